//! What is fuzzed: functions that take any bytes and panic when a promise is broken. The smoke run and libFuzzer call the
//! same ones.
//!
//! A panic of the code under test is a find, and so is every assertion here: two ways of saying the same thing that
//! disagree.

mod close;
mod events;
mod extensions;
mod frames;
mod handshake;
mod http;
mod inflate;
mod mask;
mod proxy;
mod settings;
mod shard;
mod tls;
mod utf8;

/// Something to fuzz.
#[derive(Clone, Copy)]
pub struct Target {
    /// Also its corpus's directory.
    pub name: &'static str,
    pub run: fn(&[u8]),
    /// Mutated inputs of a smoke run: what takes about half a second.
    pub smoke_inputs: usize,
}

pub const TARGETS: &[Target] = &[
    Target { name: "frames", run: frames::run, smoke_inputs: 6_000 },
    Target { name: "http", run: http::run, smoke_inputs: 6_000 },
    Target { name: "handshake", run: handshake::run, smoke_inputs: 6_000 },
    Target { name: "close", run: close::run, smoke_inputs: 10_000 },
    Target { name: "settings", run: settings::run, smoke_inputs: 6_000 },
    Target { name: "utf8", run: utf8::run, smoke_inputs: 10_000 },
    Target { name: "mask", run: mask::run, smoke_inputs: 10_000 },
    Target { name: "proxy", run: proxy::run, smoke_inputs: 10_000 },
    Target { name: "extensions", run: extensions::run, smoke_inputs: 10_000 },
    Target { name: "inflate", run: inflate::run, smoke_inputs: 4_000 },
    // A handshake each, and another.
    Target { name: "tls", run: tls::run, smoke_inputs: 80 },
    Target { name: "events", run: events::run, smoke_inputs: 400 },
    Target { name: "shard", run: shard::run, smoke_inputs: 400 },
];

/// The target of that name.
pub fn named(name: &str) -> Option<&'static Target> {
    TARGETS.iter().find(|target| target.name == name)
}

/// Takes a byte off the front; 0 where there is none.
fn take(data: &mut &[u8]) -> u8 {
    let Some((&first, rest)) = data.split_first() else { return 0 };
    *data = rest;
    first
}
