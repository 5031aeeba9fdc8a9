//! Random operations against a simple model: per connection, the bytes that its socket must get.

use bytes::Bytes;

use super::tests::{bytes_of, encoded, shared};
use super::*;
use crate::chance::Chance;
use crate::proto::Replies as _;

/// Per connection all bytes that it must get, all that its socket has taken, and the waiting send.
#[derive(Default)]
struct Expected {
    queued: Vec<u8>,
    sent: Vec<u8>,
    waiting: Option<Bytes>,
    is_open: bool,
    is_shut: bool,
    generation: u32,
}

struct Model {
    outbox: Outbox,
    connections: Vec<Expected>,
    chance: Chance,
    number: u32,
}

impl Model {
    const CONNECTIONS: usize = 6;
    const BYTES_MAX: usize = 60_000;

    fn new(seed: u64) -> Model {
        let mut model =
            Model { outbox: Outbox::new(Self::BYTES_MAX), connections: Vec::new(), chance: Chance(seed), number: 0 };
        for slot in 0..Self::CONNECTIONS {
            model.connections.push(Expected::default());
            model.open(slot);
        }
        model
    }

    fn open(&mut self, slot: usize) {
        let generation = self.connections[slot].generation + 1;
        self.connections[slot] = Expected { is_open: true, generation, ..Expected::default() };
        self.outbox.open(slot as u32, generation);
    }

    /// A payload that differs from all others and is mostly short.
    fn payload(&mut self) -> Vec<u8> {
        self.number += 1;
        let len = match self.chance.below(20) {
            0 => self.chance.below(40_000),
            1..4 => self.chance.below(4000),
            _ => self.chance.below(100),
        };
        let number = self.number;
        (0..len).map(|at| (number as usize * 31 + at) as u8).collect()
    }

    fn queued(&mut self, slot: usize, queued: Queued, frame: &[u8]) {
        let connection = &mut self.connections[slot];
        let pending = connection.queued.len() - connection.sent.len();
        let expected = match connection.is_open {
            false => Queued::Gone,
            true if pending == 0 || pending + frame.len() <= Self::BYTES_MAX => Queued::Yes,
            true => Queued::Full,
        };
        assert_eq!(queued, expected);
        if queued == Queued::Yes {
            connection.queued.extend_from_slice(frame);
        }
    }

    fn queue_something(&mut self) {
        let slot = self.chance.below(Self::CONNECTIONS);
        let payload = self.payload();
        let frame = encoded(&payload);
        match self.chance.below(10) {
            0..4 => {
                let queued = match self.outbox.extend(slot as u32, Opcode::Binary, &payload) {
                    true => Queued::Yes,
                    false => self.outbox.send(slot as u32, Opcode::Binary, &payload),
                };
                self.queued(slot, queued, &frame);
            }
            4..7 => {
                let arena = self.outbox.encode(Opcode::Binary, &payload).unwrap();
                for slot in 0..Self::CONNECTIONS {
                    if self.chance.below(4) > 0 {
                        let queued = self.outbox.queue(slot as u32, arena);
                        self.queued(slot, queued, &frame);
                    }
                }
            }
            7..9 => {
                let queued = self.outbox.queue_shared(slot as u32, &shared(&payload));
                self.queued(slot, queued, &frame);
            }
            _ => {
                let connection = &mut self.connections[slot];
                let pending = connection.queued.len() - connection.sent.len();
                // A pong to a peer that does not read may take another one's place, which has a test of its own.
                let (opcode, bytes) = match connection.waiting {
                    Some(_) => (Opcode::Ping, [0x89, 0]),
                    None => (Opcode::Pong, [0x8a, 0]),
                };
                OutboxReplies { outbox: &mut self.outbox, slot: slot as u32 }.reply(opcode, b"");
                let is_taken = opcode == Opcode::Ping || pending <= Self::BYTES_MAX;
                if connection.generation > 0 && !connection.is_shut && is_taken {
                    connection.queued.extend_from_slice(&bytes);
                }
            }
        }
    }

    /// A turn: each socket takes some of its send.
    fn turn(&mut self) {
        let sends: Vec<(u32, u32, Vec<u8>)> =
            self.outbox.batch().map(|send| (send.slot, send.generation, bytes_of(send.bytes))).collect();
        for (index, (slot, generation, bytes)) in sends.into_iter().enumerate() {
            let connection = &mut self.connections[slot as usize];
            assert_eq!(connection.generation, generation);
            assert!(connection.waiting.is_none(), "two sends for one socket");
            assert_eq!(connection.queued[connection.sent.len()..], bytes, "slot {slot}, send {index}");
            let taken = match self.chance.below(3) {
                0 => self.chance.below(bytes.len()),
                _ => bytes.len(),
            };
            connection.sent.extend_from_slice(&bytes[..taken]);
            if taken < bytes.len() {
                connection.waiting = Some(self.outbox.sent_short(slot, taken).expect("a rest"));
            }
        }
        self.outbox.settle(|_| {});
    }

    fn finish_a_waiting_send(&mut self) {
        let slot = self.chance.below(Self::CONNECTIONS);
        let connection = &mut self.connections[slot];
        if let Some(bytes) = connection.waiting.take() {
            connection.sent.extend_from_slice(&bytes);
            drop(bytes);
            connection.waiting = self.outbox.sent_async(slot as u32, |_| {});
        }
    }

    fn end_or_begin(&mut self) {
        let slot = self.chance.below(Self::CONNECTIONS);
        match self.chance.below(3) {
            0 => {
                self.outbox.seal(slot as u32);
                self.connections[slot].is_open = false;
            }
            1 => {
                self.outbox.shut(slot as u32);
                self.connections[slot].is_open = false;
                self.connections[slot].is_shut = true;
            }
            _ => {
                self.outbox.close(slot as u32);
                self.open(slot);
            }
        }
    }

    fn step(&mut self) {
        match self.chance.below(100) {
            0..65 => self.queue_something(),
            65..80 => self.turn(),
            80..98 => self.finish_a_waiting_send(),
            _ => self.end_or_begin(),
        }
        assert!(self.outbox.invariants());
        for (slot, connection) in self.connections.iter().enumerate() {
            let pending = connection.queued.len() - connection.sent.len();
            assert_eq!(self.outbox.queued_bytes(slot as u32), pending);
            assert_eq!(self.outbox.is_parked(slot as u32), connection.waiting.is_some());
            assert_eq!(self.outbox.is_empty(slot as u32), pending == 0);
        }
    }
}

#[test]
fn random_operations_send_what_was_queued() {
    for seed in 0..20 {
        let mut model = Model::new(seed);
        (0..3000).for_each(|_| model.step());
        let mut rounds = 0;
        while model.connections.iter().any(|connection| connection.sent.len() < connection.queued.len()) {
            model.turn();
            (0..20).for_each(|_| model.finish_a_waiting_send());
            rounds += 1;
            assert!(rounds < 1000, "seed {seed}: stuck");
        }
        for connection in &model.connections {
            assert!(connection.sent == connection.queued, "seed {seed}");
        }
        assert_eq!(model.outbox.backlog_bytes(), 0);
    }
}
