//! Whole cores with the stand-alone app on simulated rings, and clients that do whatever the input says: nothing panics,
//! no handler fails, others are served, and in the end nothing is left.
//!
//! Input: a byte that chooses faults, buffers and mail, then actions: one byte for the client and what it does, one for
//! a number or a count of bytes, then as many bytes.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use ringwire::engine::Peer;
use ringwire::engine::sim::{Client, Fault, Faults, RingOptions};

use super::take;
use crate::host::Setup;
use crate::rig::{Rig, Socket};
use crate::wire::{self, Event, PONG};

const PATHS: [&str; 6] = ["/echo", "/broadcast", "/rooms/a", "/rooms/b", "/ws", "/nowhere"];

pub fn run(mut data: &[u8]) {
    let how = take(&mut data);
    let ring = RingOptions {
        buffers: if how & 1 == 0 { 32 } else { 4 },
        buffer_bytes: if how & 2 == 0 { 512 } else { 16 },
        incremental: how & 4 != 0,
        ..RingOptions::default()
    };
    let mut setup = Setup { cores: 2, ring, mail_depth: if how & 8 == 0 { 64 } else { 2 }, ..Setup::default() };
    setup.settings.limits.message_bytes_max = 2_000;
    setup.settings.limits.fragments_max = 20;
    setup.settings.direct_bytes_min = 64;
    setup.settings.tick_bytes_max = 256;
    setup.settings.pause_bytes = 1_000;
    setup.outbox_bytes_max = 4_096;
    // All of them within the time that the end takes, so that nobody is left behind.
    setup.settings.handshake_timeout = Duration::from_secs(2);
    setup.settings.idle_timeout = Duration::from_secs(5);
    setup.settings.ping_interval = Duration::from_secs(2);
    setup.settings.write_timeout = Duration::from_secs(3);
    setup.settings.close_timeout = Duration::from_secs(1);
    setup.settings.drain_timeout = Duration::from_secs(3600);
    let faults = if how & 16 == 0 { Faults::none() } else { Faults::harsh().with(Fault::ClockJump, 0.0) };
    let mut rig = Rig::faulty(&setup, u64::from(how), faults);
    let mut witness = rig.open(0, "/echo");
    let mut clients: [Option<Client>; 4] = std::array::from_fn(|_| None);
    let mut actions = 0;
    while !data.is_empty() && actions < 64 {
        actions += 1;
        let (action, number) = (take(&mut data), take(&mut data));
        let place = usize::from(action & 3);
        let client = clients[place].get_or_insert_with(|| {
            // Half of them are where the admin routes answer.
            let host = if place < 2 { Ipv4Addr::LOCALHOST } else { Ipv4Addr::new(10, 1, 1, 1) };
            rig.world.connect_from(place % 2, 0, Peer::Inet(SocketAddr::from((host, 40_000 + u16::from(number)))))
        });
        let mut bytes = || {
            let (bytes, rest) = data.split_at(usize::from(number).min(data.len()));
            data = rest;
            bytes
        };
        match action >> 2 & 7 {
            0 | 1 => client.send(bytes()),
            2 => client.send(&wire::request(PATHS[usize::from(number) % PATHS.len()], "dGhlIHNhbXBsZSBub25jZQ==")),
            3 => {
                let payload = bytes();
                let mut frame = Vec::new();
                wire::frame(&mut frame, action & 128 == 0, action >> 5 & 3, payload, &mut rig.world.fork_rng());
                client.send(&frame);
            }
            4 => {
                for _ in 0..number / 25 {
                    answer_pings(&mut witness);
                    rig.pass_ms(1_000);
                }
            }
            5 => client.set_window(usize::from(number) * 16),
            6 => drop(client.received()),
            _ if number & 1 == 0 => {
                client.reset();
                clients[place] = None;
            }
            _ => {
                client.close();
                clients[place] = None;
            }
        }
        if action & 64 == 0 {
            rig.settle();
        }
    }
    rig.world.set_faults(Faults::none());
    rig.pass_ms(150);
    answer_pings(&mut witness);
    if !witness.client.was_broken() {
        witness.text("still there?");
        rig.settle();
        assert_eq!(witness.texts(), ["still there?"]);
    }
    for core in 0..2 {
        // 1011 is a handler that failed; none of the program's own may.
        let failed = rig.ended(core).into_iter().find(|ended| ended.code == 1011);
        assert!(failed.is_none(), "{failed:?}");
    }
    rig.finish();
}

/// Reads what has come to a client that has not asked for anything.
fn answer_pings(witness: &mut Socket) {
    for event in witness.events() {
        match event {
            Event::Ping(payload) => witness.frame(PONG, &payload),
            other => panic!("{other:?} was meant for somebody else"),
        }
    }
}
