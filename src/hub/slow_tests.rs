//! Every policy for connections that do not keep up, under random traffic, and what is told of it.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::*;
use crate::chance::Chance;
use crate::outbox::{FrameBuf, Key, Queued};
use crate::outbox::{Stretch, ToSend};
use crate::proto::frame::frame_len;
use crate::proto::{Incoming, Kind, Opcode, Payload};

const BYTES_MAX: usize = 4000;
const PAYLOAD_BYTES_MAX: usize = 900;
const POLICIES: [SlowConsumer; 3] = [SlowConsumer::DropNew, SlowConsumer::DropOld, SlowConsumer::KeepLatest];
const KEYS: [Option<&str>; 6] = [None, Some("a"), Some("b"), Some("c"), Some("d"), Some("e")];

/// One receiver: what was queued to it, what its socket took, what it was told to have lost.
#[derive(Default)]
struct Receiver {
    sent_to_it: u64,
    taken: Vec<u8>,
    waiting: Option<Bytes>,
    lost: Dropped,
    drained: u64,
    /// Was it above the mark when it was looked at last?
    was_above: bool,
}

struct Model {
    hub: CoreHub,
    room: RoomId,
    receivers: Vec<Receiver>,
    chance: Chance,
    number: u64,
    /// The last number of each key.
    last: BTreeMap<usize, u64>,
}

const DRAIN_BELOW: usize = 500;

impl Model {
    fn new(seed: u64) -> Model {
        let (post, _) = crate::mail::PostOffice::new(1, 1).take(0);
        let outbox = Outbox::new(BYTES_MAX);
        let mut hub = CoreHub::new(IdKey::default(), post, outbox, Spares::new(1 << 20), SlowConsumer::Close);
        let limits = |policy: &SlowConsumer| RouteLimits {
            slow_consumer: Some(*policy),
            reports_drops: true,
            drain_below_bytes: Some(DRAIN_BELOW),
            ..RouteLimits::default()
        };
        hub.set_route_limits(POLICIES.iter().map(limits).collect());
        for slot in 0..2 * POLICIES.len() as u32 {
            hub.outbox.open(slot, 1);
            hub.enter(slot, 1, slot as u16 % POLICIES.len() as u16);
            hub.join(slot, "room").unwrap();
        }
        let room = hub.room("room");
        let receivers = (0..2 * POLICIES.len()).map(|_| Receiver::default()).collect();
        Model { hub, room, receivers, chance: Chance(seed), number: 0, last: BTreeMap::new() }
    }

    /// A message, mostly to all, that says its number and its key's.
    fn send(&mut self) {
        self.number += 1;
        let key = self.chance.below(KEYS.len());
        let mut payload = format!("{} {key} ", self.number).into_bytes();
        payload.resize(payload.len() + self.chance.below(PAYLOAD_BYTES_MAX - 30), b'.');
        let hashed = KEYS[key].map(|key| Key::of(key.as_bytes()));
        if self.chance.below(4) == 0 {
            // Not to all, so that stretches in the arena come apart.
            let slot = self.chance.below(self.receivers.len());
            self.receivers[slot].sent_to_it += 1;
            let queued = match hashed {
                Some(hashed) => self.hub.send_keyed(slot as u32, Opcode::Text, &payload, hashed),
                None => self.hub.send(slot as u32, Opcode::Text, &payload),
            };
            assert_ne!(queued, Queued::Gone);
            return;
        }
        self.receivers.iter_mut().for_each(|receiver| receiver.sent_to_it += 1);
        let incoming = Incoming { kind: Kind::Text, payload: Payload::Borrowed(&payload), uncompressed: false };
        let delivery = if self.chance.below(4) == 0 {
            let frame = FrameBuf::new(Opcode::Text, &payload);
            self.hub.publish_to_room(self.room, &mut Outgoing::of_frame(frame).keyed(hashed), None, None)
        } else {
            self.hub.send_to_scope(&Scope::Room("room".into()), incoming, Sending { key: hashed, ..Sending::default() })
        };
        assert_eq!((delivery.queued + delivery.dropped) as usize, self.receivers.len());
        self.last.insert(key, self.number);
    }

    fn look(&mut self) {
        for (slot, dropped) in self.hub.take_losses() {
            self.receivers[slot as usize].lost.add(dropped);
        }
        for (slot, from_bytes) in self.hub.take_falls() {
            if !self.hub.has_fallen(slot, from_bytes, DRAIN_BELOW) {
                continue;
            }
            let receiver = &mut self.receivers[slot as usize];
            receiver.drained += 1;
            receiver.was_above = false;
        }
        for (slot, receiver) in self.receivers.iter_mut().enumerate() {
            let queued = self.hub.outbox.queued_bytes(slot as u32);
            assert!(queued <= BYTES_MAX);
            assert!(!receiver.was_above || queued > DRAIN_BELOW, "slot {slot} fell to {queued}, and nobody was told");
            receiver.was_above = queued > DRAIN_BELOW;
        }
    }

    fn turn(&mut self) {
        self.look();
        let sends: Vec<(u32, Vec<u8>)> = self.hub.outbox.batch().map(bytes_of).collect();
        for (slot, bytes) in sends {
            let receiver = &mut self.receivers[slot as usize];
            assert!(receiver.waiting.is_none(), "two sends for one socket");
            let taken = if self.chance.below(3) == 0 { self.chance.below(bytes.len()) } else { bytes.len() };
            receiver.taken.extend_from_slice(&bytes[..taken]);
            if taken < bytes.len() {
                receiver.waiting = self.hub.outbox.sent_short(slot, taken);
                assert!(receiver.waiting.is_some());
            }
        }
        self.hub.outbox.settle(|_| {});
        self.look();
    }

    fn finish_a_waiting_send(&mut self) {
        let slot = self.chance.below(self.receivers.len());
        let receiver = &mut self.receivers[slot];
        if let Some(bytes) = receiver.waiting.take() {
            receiver.taken.extend_from_slice(&bytes);
            drop(bytes);
            receiver.waiting = self.hub.outbox.sent_async(slot as u32, |_| {});
        }
        self.look();
    }
}

fn bytes_of(send: ToSend<'_>) -> (u32, Vec<u8>) {
    let bytes = match send.bytes {
        Stretch::One(bytes) => bytes.to_vec(),
        Stretch::Many(pieces) => pieces.concat(),
    };
    (send.slot, bytes)
}

/// The numbers and keys of the messages in what a socket took.
fn messages(mut bytes: &[u8]) -> Vec<(u64, usize)> {
    let mut found = Vec::new();
    while !bytes.is_empty() {
        let (frame, rest) = bytes.split_at(frame_len(bytes));
        assert_eq!(frame[0], 0x81, "a whole text message");
        let at = if frame[1] == 126 { 4 } else { 2 };
        let text = std::str::from_utf8(&frame[at..]).expect("as it was sent");
        let mut words = text.split(' ');
        let mut number = || words.next().unwrap().parse::<u64>().unwrap();
        found.push((number(), number() as usize));
        bytes = rest;
    }
    found
}

/// Kills: messages that are lost and not counted, counted and not lost, cut, repeated or out of order; newest ones that are
/// dropped although older ones could be; a latest one that is lost although nothing was dropped for want of room.
#[test]
fn every_policy_loses_what_it_says_and_says_what_it_loses() {
    let mut seen = [Dropped::default(); 3];
    for seed in 0..30 {
        let mut model = Model::new(seed);
        for _ in 0..1500 {
            match model.chance.below(100) {
                0..70 => model.send(),
                70..80 => model.turn(),
                _ => model.finish_a_waiting_send(),
            }
            assert!(model.hub.outbox.invariants());
        }
        for _ in 0..1000 {
            model.turn();
            (0..20).for_each(|_| model.finish_a_waiting_send());
        }
        let mut all = 0;
        for (slot, receiver) in model.receivers.iter().enumerate() {
            let policy = POLICIES[slot % POLICIES.len()];
            let got = messages(&receiver.taken);
            let lost = receiver.lost;
            let what = format!("seed {seed}, slot {slot}, {policy}");
            assert_eq!(got.len() as u64 + lost.messages(), receiver.sent_to_it, "{what}");
            let is_sorted = |key: Option<usize>| {
                let of_key = got.iter().filter(|(_, of)| key.is_none_or(|key| key == *of)).map(|(number, _)| *number);
                of_key.is_sorted_by(|a, b| a < b)
            };
            match policy {
                SlowConsumer::KeepLatest => (0..KEYS.len()).for_each(|key| assert!(is_sorted(Some(key)), "{what}")),
                _ => assert!(is_sorted(None), "{what}"),
            }
            match policy {
                SlowConsumer::DropNew => assert_eq!((lost.oldest, lost.replaced), (0, 0), "{what}"),
                SlowConsumer::DropOld => assert_eq!((lost.newest, lost.replaced), (0, 0), "{what}"),
                _ => assert_eq!(lost.newest, 0, "{what}"),
            }
            if policy == SlowConsumer::KeepLatest {
                let is_missing =
                    |(key, last): &(&usize, &u64)| !got.iter().any(|(number, of)| of == *key && number >= *last);
                let missing = model.last.iter().filter(is_missing).count() as u64;
                assert!(missing <= lost.oldest, "{what}: {missing} keys have no latest");
            }
            assert!(receiver.drained > 0, "{what}");
            seen[slot % POLICIES.len()].add(lost);
            all += lost.messages();
            assert_eq!(model.hub.outbox.queued_bytes(slot as u32), 0);
        }
        assert_eq!(model.hub.counters.drops.total(), all);
        assert_eq!(model.hub.outbox.backlog_bytes(), 0);
    }
    let [new, old, latest] = seen;
    assert!(new.newest > 1000 && old.oldest > 1000 && latest.oldest > 300 && latest.replaced > 1000, "{seen:?}");
    assert!(latest.oldest < old.oldest / 2, "keys spare room: {seen:?}");
}
