//! Inputs made of others by what libFuzzer does most: bits, bytes, lengths, repetitions, and parts of two inputs.

use ringwire::engine::sim::Rng;

/// Longest input.
const BYTES_MAX: usize = 4096;

/// Values at which code behaves otherwise.
const EDGES: [u8; 12] = [0, 1, 0x7D, 0x7E, 0x7F, 0x80, 0x81, 0x88, 0xC0, 0xED, 0xF4, 0xFF];

/// One of `inputs`, changed in one to five ways.
pub fn mutated(inputs: &[&[u8]], rng: &mut Rng) -> Vec<u8> {
    let mut bytes = rng.pick(inputs).to_vec();
    for _ in 0..rng.between(1, 5) {
        let at = rng.between(0, bytes.len());
        let len = rng.between(0, (bytes.len() - at).min(64));
        match rng.below(9) {
            0 if at < bytes.len() => bytes[at] ^= 1 << rng.below(8),
            1 if at < bytes.len() => bytes[at] = rng.pick(&EDGES),
            2 if at < bytes.len() => bytes[at] = rng.below(256) as u8,
            3 if at < bytes.len() => bytes[at] = bytes[at].wrapping_add(rng.pick(&[1, 2, 254, 255])),
            4 => drop(bytes.drain(at..at + len)),
            5 => bytes.truncate(at),
            6 => {
                let part = bytes[at..at + len].to_vec();
                let to = rng.between(0, bytes.len());
                bytes.splice(to..to, part);
            }
            7 => {
                let other = rng.pick(inputs);
                let from = rng.between(0, other.len());
                let part = &other[from..rng.between(from, other.len())];
                bytes.splice(at..at + len, part.iter().copied());
            }
            _ => {
                let mut some = vec![0; rng.between(1, 16)];
                rng.fill(&mut some);
                bytes.splice(at..at, some);
            }
        }
    }
    bytes.truncate(BYTES_MAX);
    bytes
}
