//! Whole cores' hubs with receivers that decompress what they are sent by an inflater of their own, over a connection's whole
//! life: joins, leaves, moves, sockets that do not keep up under every policy, keys, reconnects, several cores.
//!
//! `STREAM_SEEDS=5000 cargo test --lib every_receiver_reads` runs more of them.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::tests::{World, bytes_of};
use super::*;
use crate::chance::Chance;
use crate::config::Deflate;
use crate::outbox::Key;
use crate::proto::deflate::reference::Reference;
use crate::proto::extensions::Agreed;
use crate::proto::frame::frame_len;
use crate::proto::{Incoming, Kind, Opcode, Payload};

const BYTES_MAX: usize = 3000;
const SLOTS: usize = 10;
const POLICIES: [SlowConsumer; 4] =
    [SlowConsumer::DropOld, SlowConsumer::KeepLatest, SlowConsumer::DropNew, SlowConsumer::Close];
const MODES: [Deflate; 4] = [Deflate::Shared, Deflate::Stateless, Deflate::Dedicated, Deflate::Off];
const ROOMS: [&str; 3] = ["a", "b", "c"];

/// What message number so much says; those that are to go as they are, say so.
fn text(number: u64, is_marked: bool) -> Vec<u8> {
    let mut chance = Chance(number);
    let mut text = format!("{number} {} ", u8::from(is_marked));
    let words_max = if chance.below(8) == 0 { 160 } else { 60 };
    for _ in 0..chance.below(words_max) {
        text += ["bid ", "ask ", "price:", "EUR/USD ", "17 ", "0.0"][chance.below(6)];
        text += &chance.below(1000).to_string();
    }
    text.into_bytes()
}

/// A client: its inflater lives as long as it does.
struct Receiver {
    inflater: Option<Reference>,
    window_bits: u8,
    route: u16,
    taken: Vec<u8>,
    waiting: Option<Bytes>,
    /// The last number from each core; where nothing is ever put before another.
    last: BTreeMap<u64, u64>,
    cores: u64,
}

#[derive(Debug, Default)]
struct Seen {
    read: u64,
    compressed: u64,
    resets: u64,
    saved: u64,
    dropped_old: u64,
    replaced: u64,
    closed: u64,
    behind: u64,
}

struct Model {
    world: World,
    receivers: Vec<BTreeMap<u32, Receiver>>,
    chance: Chance,
    number: u64,
    generation: u32,
    seen: Seen,
}

impl Model {
    fn new(seed: u64) -> Model {
        let mut chance = Chance(seed);
        let cores = 1 + chance.below(3);
        let mut world = World::with(cores, BYTES_MAX, SlowConsumer::Close);
        let limits: Vec<RouteLimits> = MODES
            .iter()
            .flat_map(|mode| POLICIES.map(|policy| (*mode, policy)))
            .map(|(mode, policy)| RouteLimits {
                deflate: Some(mode),
                slow_consumer: Some(policy),
                ..RouteLimits::default()
            })
            .collect();
        let window_bits = 10 + chance.below(3) as u8;
        for hub in &mut world.hubs {
            hub.set_route_limits(limits.clone());
            hub.set_deflate(DeflateSettings { bytes_min: 30, window_bits, ..DeflateSettings::default() });
        }
        let receivers = (0..cores).map(|_| BTreeMap::new()).collect();
        let mut model = Model { world, receivers, chance, number: 0, generation: 0, seen: Seen::default() };
        for core in 0..cores {
            for slot in 0..SLOTS as u32 {
                model.connect(core, slot);
            }
        }
        model
    }

    fn connect(&mut self, core: usize, slot: u32) {
        self.generation += 1;
        let mode = [0, 0, 0, 1, 2, 3][self.chance.below(6)];
        let route = (mode * POLICIES.len() + self.chance.below(POLICIES.len())) as u16;
        let hub = &mut self.world.hubs[core];
        hub.outbox.open(slot, self.generation);
        hub.enter(slot, self.generation, route);
        let has_context = matches!(MODES[mode], Deflate::Shared | Deflate::Dedicated) && self.chance.below(8) > 0;
        let window_bits = if self.chance.below(8) == 0 { 10 } else { 15 };
        if MODES[mode] != Deflate::Off {
            hub.agree(
                slot,
                Agreed {
                    server_context: has_context,
                    client_context: false,
                    server_window_bits: window_bits,
                    client_window_bits: 15,
                },
            );
        }
        let inflater = has_context.then(|| Reference::new(window_bits));
        let receiver = Receiver {
            inflater,
            window_bits,
            route,
            taken: Vec::new(),
            waiting: None,
            last: BTreeMap::new(),
            cores: self.receivers.len() as u64,
        };
        self.receivers[core].insert(slot, receiver);
        if self.chance.below(4) > 0 {
            self.join(core, slot, "a");
        }
    }

    fn disconnect(&mut self, core: usize, slot: u32) {
        self.world.disconnect(core, slot);
        self.receivers[core].remove(&slot);
    }

    fn join(&mut self, core: usize, slot: u32, room: &str) {
        // A connection that is about to be closed may not.
        let _ = self.world.hubs[core].join(slot, room);
    }

    fn publish(&mut self) {
        let cores = self.world.hubs.len();
        let core = self.chance.below(cores);
        self.number += 1;
        let number = self.number * cores as u64 + core as u64;
        let is_marked = self.chance.below(8) == 0;
        let payload = text(number, is_marked);
        let incoming = Incoming { kind: Kind::Text, payload: Payload::Borrowed(&payload), uncompressed: is_marked };
        let key = [None, Some("x"), Some("y")][self.chance.below(3)].map(|key| Key::of(key.as_bytes()));
        let slot = self.chance.below(SLOTS) as u32;
        let hub = &mut self.world.hubs[core];
        match self.chance.below(8) {
            0..5 => {
                let room = ROOMS[[0, 0, 0, 1, 2][self.chance.below(5)]];
                let how = Sending { key, except: (slot == 0).then_some(slot), ..Sending::default() };
                hub.send_to_scope(&Scope::Room(room.into()), incoming, how);
            }
            5 => drop(hub.send_to_scope(&Scope::Everyone, incoming, Sending { key, ..Sending::default() })),
            6 => drop(hub.send_incoming(slot, incoming)),
            _ if is_marked => drop(hub.send_uncompressed(slot, Opcode::Text, &payload, key)),
            _ => drop(hub.send(slot, Opcode::Text, &payload)),
        }
        if self.chance.below(16) == 0 {
            let _ = hub.outbox.ping(slot, b"?");
        }
    }

    fn turn(&mut self, core: usize) {
        let hub = &mut self.world.hubs[core];
        let sends: Vec<(u32, Vec<u8>)> = hub.outbox.batch().map(|send| (send.slot, bytes_of(send.bytes))).collect();
        for (slot, bytes) in sends {
            let Some(receiver) = self.receivers[core].get_mut(&slot) else { continue };
            assert!(receiver.waiting.is_none(), "two sends for one socket");
            let is_slow = slot % 3 == 0;
            let takes_all = self.chance.below(if is_slow { 3 } else { 20 }) > 0;
            let taken = if takes_all { bytes.len() } else { self.chance.below(bytes.len()) };
            receiver.taken.extend_from_slice(&bytes[..taken]);
            if taken < bytes.len() {
                receiver.waiting = hub.outbox.sent_short(slot, taken);
            }
        }
        hub.outbox.settle(|_| {});
        assert!(hub.invariants());
        for doom in hub.take_dooms() {
            self.seen.closed += 1;
            self.disconnect(core, doom.slot);
            self.connect(core, doom.slot);
        }
        self.read(core);
    }

    fn finish_a_waiting_send(&mut self, core: usize) {
        let slot = self.chance.below(SLOTS) as u32;
        let hub = &mut self.world.hubs[core];
        if let Some(receiver) = self.receivers[core].get_mut(&slot)
            && let Some(bytes) = receiver.waiting.take()
        {
            receiver.taken.extend_from_slice(&bytes);
            drop(bytes);
            receiver.waiting = hub.outbox.sent_async(slot, |_| {});
        }
    }

    fn read(&mut self, core: usize) {
        for (slot, receiver) in &mut self.receivers[core] {
            receiver.read_all(*slot, &mut self.seen);
        }
    }

    fn step(&mut self) {
        let core = self.chance.below(self.world.hubs.len());
        let slot = self.chance.below(SLOTS) as u32;
        let room = ROOMS[self.chance.below(ROOMS.len())];
        match self.chance.below(40) {
            0..20 => self.publish(),
            20..28 => self.turn(core),
            28..36 => self.finish_a_waiting_send(core),
            36 => self.join(core, slot, room),
            37 => drop(self.world.hubs[core].leave(slot, room)),
            38 => drop(self.world.mail()),
            _ if self.chance.below(4) == 0 => {
                self.disconnect(core, slot);
                self.connect(core, slot);
            }
            _ if self.chance.below(8) == 0 => self.world.hubs[core].trim_streams(),
            _ => self.seen.behind += self.world.hubs[core].streams.waiting(),
        }
    }

    fn run(mut self, steps: usize) -> Seen {
        for _ in 0..steps {
            self.step();
        }
        self.world.mail();
        for core in 0..self.world.hubs.len() {
            self.turn(core);
            for slot in 0..SLOTS as u32 {
                while let Some(bytes) = self.receivers[core].get_mut(&slot).and_then(|it| it.waiting.take()) {
                    self.receivers[core].get_mut(&slot).expect("it is there").taken.extend_from_slice(&bytes);
                    let next = self.world.hubs[core].outbox.sent_async(slot, |_| {});
                    self.receivers[core].get_mut(&slot).expect("it is there").waiting = next;
                }
            }
            self.read(core);
            assert!(self.receivers[core].values().all(|receiver| receiver.taken.is_empty()), "half a frame at the end");
            let counters = self.world.hubs[core].counters;
            self.seen.resets += counters.stream_resets;
            self.seen.saved += counters.deflate_saved;
            self.seen.dropped_old += counters.drops.of(crate::metrics::DropReason::DropOld);
            self.seen.replaced += counters.drops.of(crate::metrics::DropReason::Replaced);
            for slot in 0..SLOTS as u32 {
                self.disconnect(core, slot);
            }
            self.world.mail();
        }
        for hub in &mut self.world.hubs {
            hub.trim_streams();
            hub.trim_streams();
            assert_eq!(hub.streams.bytes(), 0, "what no stream has is counted");
            assert!(!hub.streams.has_receivers());
        }
        self.seen
    }
}

impl Receiver {
    fn read_all(&mut self, slot: u32, seen: &mut Seen) {
        loop {
            let bytes = &self.taken;
            if bytes.len() < 2 || (bytes[1] >= 126 && bytes.len() < 4) || bytes.len() < frame_len(bytes) {
                return;
            }
            let rest = self.taken.split_off(frame_len(&self.taken));
            let frame = std::mem::replace(&mut self.taken, rest);
            if frame[0] == 0x89 {
                continue;
            }
            let payload = &frame[if frame[1] == 126 { 4 } else { 2 }..];
            let is_compressed = frame[0] == 0xC1;
            assert!(is_compressed || frame[0] == 0x81, "slot {slot}: {:#x}", frame[0]);
            let message = if is_compressed { self.inflate(slot, payload) } else { payload.to_vec() };
            let shown = String::from_utf8_lossy(&message).into_owned();
            let mut words = shown.split(' ');
            let number: u64 = words.next().and_then(|word| word.parse().ok()).unwrap_or_else(|| panic!("{shown}"));
            let is_marked = words.next() == Some("1");
            assert!(message == text(number, is_marked), "slot {slot}: {shown}");
            assert!(!(is_marked && is_compressed), "slot {slot}: a secret was compressed");
            seen.read += 1;
            seen.compressed += u64::from(is_compressed);
            if POLICIES[usize::from(self.route) % POLICIES.len()] != SlowConsumer::KeepLatest {
                let last = self.last.insert(number % self.cores, number);
                assert!(last.is_none_or(|last| last < number), "slot {slot}: {number} behind {last:?}");
            }
        }
    }

    fn inflate(&mut self, slot: u32, payload: &[u8]) -> Vec<u8> {
        let mut fresh = Reference::new(self.window_bits);
        let inflater = self.inflater.as_mut().unwrap_or(&mut fresh);
        inflater.read(payload, 1 << 20).unwrap_or_else(|why| panic!("slot {slot}: {why}"))
    }
}

/// What a receiver gets whose socket takes nothing for a while, in which much is published: numbers, and how many of the
/// messages were compressed.
fn gets_meanwhile(mode: Deflate, policy: SlowConsumer) -> (Vec<u64>, usize) {
    let mut world = World::with(1, BYTES_MAX, SlowConsumer::Close);
    let hub = &mut world.hubs[0];
    hub.set_route_limits(vec![RouteLimits {
        deflate: Some(mode),
        slow_consumer: Some(policy),
        ..RouteLimits::default()
    }]);
    hub.set_deflate(DeflateSettings { bytes_min: 30, ..DeflateSettings::default() });
    let agreed =
        Agreed { server_context: true, client_context: false, server_window_bits: 15, client_window_bits: 15 };
    for slot in [0, 1] {
        hub.outbox.open(slot, 1);
        hub.enter(slot, 1, 0);
        if mode != Deflate::Off {
            hub.agree(slot, agreed);
        }
        hub.join(slot, "a").expect("it may");
    }
    let mut taken = Vec::new();
    let mut waiting = None;
    for number in 0..60 {
        // The one that is refused is alike in each mode.
        let is_marked = number == 2;
        let payload = format!("{number} {} {}", u8::from(is_marked), "again and again ".repeat(14)).into_bytes();
        let incoming = Incoming { kind: Kind::Text, payload: Payload::Borrowed(&payload), uncompressed: is_marked };
        let key = [Key::of(b"x"), Key::of(b"y"), Key::of(b"z")][number % 3];
        hub.send_to_scope(&Scope::Room("a".into()), incoming, Sending { key: Some(key), ..Sending::default() });
        let sends: Vec<_> = hub.outbox.batch().map(|send| (send.slot, bytes_of(send.bytes))).collect();
        for (slot, bytes) in sends {
            match (slot, number) {
                (0, 2) => waiting = hub.outbox.sent_short(slot, 0),
                (0, _) => taken.extend_from_slice(&bytes),
                _ => {}
            }
        }
        hub.outbox.settle(|_| {});
    }
    while let Some(bytes) = waiting.take() {
        taken.extend_from_slice(&bytes);
        waiting = hub.outbox.sent_async(0, |_| {});
    }
    let (mut numbers, mut compressed) = (Vec::new(), 0);
    let mut inflater = Reference::new(15);
    while !taken.is_empty() {
        let frame: Vec<u8> = taken.drain(..frame_len(&taken)).collect();
        let payload = &frame[if frame[1] == 126 { 4 } else { 2 }..];
        compressed += usize::from(frame[0] == 0xC1);
        let message =
            if frame[0] == 0xC1 { inflater.read(payload, BYTES_MAX).expect("it reads") } else { payload.to_vec() };
        let shown = String::from_utf8(message).expect("text");
        numbers.push(shown.split(' ').next().and_then(|number| number.parse().ok()).expect("a number"));
    }
    (numbers, compressed)
}

/// Kills: what is compressed with a context queued behind a backlog.
///
/// Behind what a socket has refused, what becomes of a message does not depend on compression: what is compressed with a context can
/// be dropped only with all that follows it, and cannot be replaced.
#[test]
fn policies_do_the_same_for_receivers_with_a_context() {
    for policy in [SlowConsumer::DropOld, SlowConsumer::KeepLatest, SlowConsumer::DropNew] {
        let (plain, none) = gets_meanwhile(Deflate::Off, policy);
        assert!(none == 0 && plain.len() < 30, "{policy}: {plain:?}");
        for mode in [Deflate::Shared, Deflate::Dedicated] {
            let (numbers, compressed) = gets_meanwhile(mode, policy);
            assert!(compressed > 0, "{policy} {mode}");
            assert_eq!(numbers, plain, "{policy} {mode}");
        }
    }
}

/// Kills: a drop that leaves its connection in step; a connection that is behind let in without a reset; a reset that keeps the
/// window, in the history or in the compressor; the first alone of the frames in a context dropped, wherever they are queued; a
/// stream sent to who has a smaller window; a slot's step that outlives its connection.
#[test]
fn every_receiver_reads_what_was_published() {
    let seeds: u64 = std::env::var("STREAM_SEEDS").ok().and_then(|seeds| seeds.parse().ok()).unwrap_or(60);
    let from: u64 = std::env::var("STREAM_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(0);
    let mut all = Seen::default();
    for seed in from..from + seeds {
        let seen = std::panic::catch_unwind(|| Model::new(seed).run(600)).unwrap_or_else(|panic| {
            eprintln!("STREAM_SEED={seed} STREAM_SEEDS=1");
            std::panic::resume_unwind(panic)
        });
        all.read += seen.read;
        all.compressed += seen.compressed;
        all.resets += seen.resets;
        all.saved += seen.saved;
        all.dropped_old += seen.dropped_old;
        all.replaced += seen.replaced;
        all.closed += seen.closed;
        all.behind += seen.behind;
    }
    println!("{all:?}");
    if seeds >= 20 {
        let counts = [all.compressed, all.resets, all.saved, all.dropped_old, all.replaced, all.closed, all.behind];
        assert!(counts.iter().all(|count| *count > 0), "something never happened: {all:?}");
        assert!(all.compressed * 4 > all.read, "hardly anything was compressed: {all:?}");
    }
}
