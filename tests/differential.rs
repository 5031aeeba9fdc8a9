//! The machine against tungstenite's server, on seeded random streams of frames, most of them valid, some mutated: the
//! same messages in the same order, and the same verdict at the end. `wire::oracle` says what the two may disagree about;
//! the fuzzer's streams go through it too.

mod wire;

use ringwire::proto::Role;
use wire::oracle::{Verdict, compare};
use wire::{close, frame};

/// SplitMix64.
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) % n as u64) as usize
    }

    fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.below(256) as u8).collect()
    }

    fn text(&mut self, characters: usize) -> Vec<u8> {
        let some = ['a', 'z', ' ', 'é', 'µ', '€', '水', '\u{FFFF}', '🦀', '\u{10FFFF}'];
        (0..characters).map(|_| some[self.below(some.len())]).collect::<String>().into_bytes()
    }

    fn len(&mut self) -> usize {
        match self.below(12) {
            0 => 0,
            1 => 125 + self.below(4),
            2 => self.below(3200),
            _ => self.below(40),
        }
    }
}

/// A few frames, one per element: valid as a whole, unless mutated afterwards.
fn stream(random: &mut Random) -> Vec<Vec<u8>> {
    let mut frames = Vec::new();
    for _ in 0..1 + random.below(6) {
        let (opcode, payload) = if random.one_in(2) {
            let len = random.len();
            (0x02, random.bytes(len))
        } else {
            let len = random.len() / 2;
            (0x01, random.text(len))
        };
        let mut cuts: Vec<_> = (0..[0, 0, 0, 1, 3][random.below(5)]).map(|_| random.below(payload.len() + 1)).collect();
        cuts.extend([0, payload.len()]);
        cuts.sort_unstable();
        for (i, ends) in cuts.windows(2).enumerate() {
            let first = if i == 0 { opcode } else { 0 };
            let fin = if i + 2 == cuts.len() { 0x80 } else { 0 };
            frames.push(frame(first | fin, &payload[ends[0]..ends[1]]));
            if random.one_in(4) {
                let control = 0x89 + random.below(2) as u8;
                let len = random.below(20);
                frames.push(frame(control, &random.bytes(len)));
            }
        }
    }
    match random.below(4) {
        0 => {}
        1 => frames.push(frame(0x88, b"")),
        _ => {
            let codes = [1000, 1001, 1003, 1011, 3000, 4999];
            frames.push(frame(0x88, &close(codes[random.below(codes.len())], b"reason")));
        }
    }
    frames
}

fn mutate(random: &mut Random, frames: &mut Vec<Vec<u8>>) {
    let at = random.below(frames.len());
    match random.below(8) {
        0 => frames[at][0] ^= 1 << random.below(8),
        1 => frames[at][1] ^= 0x80,
        2 => drop(frames.remove(at)),
        3 => frames.insert(at, frame([0x80, 0x00, 0x83, 0x8B, 0xC1][random.below(5)], b"x")),
        4 => {
            // Payload, or a length that no longer fits what follows.
            let byte = 1 + random.below(frames[at].len() - 1);
            frames[at][byte] ^= 1 << random.below(8);
        }
        5 => frames.insert(at, frame(0x88, &close(random.below(5100) as u16, b""))),
        6 => frames.insert(at, frame(0x81, &[b"ok \xE2\x82", &b"\xFF\x80"[..]].concat())),
        _ => {
            let len = frames[at].len();
            frames[at].truncate(random.below(len));
        }
    }
}

#[test]
fn agrees_with_tungstenite() {
    let mut ends = [0; 5];
    for seed in 0..6000 {
        let mut random = Random(seed);
        let mut frames = stream(&mut random);
        let mutated = random.one_in(2);
        if mutated {
            mutate(&mut random, &mut frames);
        }
        let bytes = frames.concat();
        let size = 1 + random.below(bytes.len().max(1));
        let lend = [None, Some(1)][random.below(2)];
        match compare(Role::Server, &bytes, size, lend) {
            Verdict::Same(end) => ends[end as usize] += 1,
            Verdict::Excused => assert!(mutated, "seed {seed}"),
        }
    }
    assert!(ends.iter().all(|&count| count > 30), "every end is tried: {ends:?}");
}
