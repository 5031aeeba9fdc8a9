//! A WebSocket load generator that checks every message.
//!
//! Connections live on io_uring rings, one per thread, in direct descriptors. What is due on each is known, so that a
//! reply is checked in every byte as it comes: lost, repeated, reordered and corrupted messages are counted, and make the
//! exit code 1. `README.md` shows each scenario.

#![forbid(unsafe_code)]

mod cli;
mod diff;
mod html;
mod launch;
mod net;
mod outcome;
mod output;
mod progress;
mod report;
mod run;
mod scenario;
mod slo;
mod tally;
mod target;
mod track;
mod usage;
mod verdict;
mod wire;
mod words;

use std::{
    fs, io,
    path::Path,
    process::ExitCode,
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use clap::Parser;
use nix::sys::signal::{SigSet, Signal};
use serde_json::Value;

use crate::{
    cli::{Cli, Command},
    verdict::{Outcome, Verdict},
};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

fn main() -> ExitCode {
    let verdict = match Cli::parse().command {
        Command::Diff { a, b } => compare(&a, &b),
        command => watch_signals().map_err(Into::into).and_then(|()| launch::scenario(&command, &INTERRUPTED)),
    };
    ExitCode::from(verdict.unwrap_or_else(|error| {
        eprintln!("ringwire-loadtest: {error}");
        Verdict::NotMeasured
    }) as u8)
}

/// Prints two reports side by side.
fn compare(a: &Path, b: &Path) -> Outcome<Verdict> {
    let read = |path: &Path| -> Result<Value, String> {
        let text = fs::read(path).map_err(|error| format!("{}: {error}", path.display()))?;
        serde_json::from_slice(&text).map_err(|error| format!("{}: {error}", path.display()))
    };
    print!("{}", diff::table(&read(a)?, &read(b)?));
    Ok(Verdict::Passed)
}

/// The first SIGINT or SIGTERM ends the run with a report, the second at once.
fn watch_signals() -> io::Result<()> {
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGINT);
    signals.add(Signal::SIGTERM);
    // Every thread made later inherits this, so only the watcher takes them.
    signals.thread_block()?;
    thread::spawn(move || {
        while signals.wait().is_ok() {
            if INTERRUPTED.swap(true, Ordering::Relaxed) {
                std::process::exit(130);
            }
        }
    });
    Ok(())
}
