//! Against RFC 7692 7.2.3's examples, and against an inflater and a deflater of others.

use miniz_oxide::inflate::stream::InflateState;
use miniz_oxide::{DataFormat, MZFlush};

use super::*;
use crate::chance::Chance;
use crate::proto::pool::Pool;

fn inflate(compressed: &[u8], context: Option<&mut History>, bytes_max: usize) -> Result<Vec<u8>, InflateError> {
    inflate_with(&mut Inflater::new(), compressed, context, bytes_max)
}

fn inflate_with(
    inflater: &mut Inflater,
    compressed: &[u8],
    context: Option<&mut History>,
    bytes_max: usize,
) -> Result<Vec<u8>, InflateError> {
    let mut out = b"head".to_vec();
    inflater.inflate(compressed, context, bytes_max, &mut out, &mut Pool::new(1 << 20))?;
    assert_eq!(out.drain(..4).as_slice(), b"head", "what was there stays");
    Ok(out)
}

/// Another's inflater, with one context for all that it is given.
struct Oracle(Box<InflateState>);

impl Oracle {
    fn new() -> Self {
        Self(InflateState::new_boxed(DataFormat::Raw))
    }

    fn read(&mut self, compressed: &[u8]) -> Vec<u8> {
        let input = [compressed, &TAIL].concat();
        let (mut taken, mut out) = (0, Vec::new());
        loop {
            let mut piece = [0; 4096];
            let result = miniz_oxide::inflate::stream::inflate(&mut self.0, &input[taken..], &mut piece, MZFlush::None);
            taken += result.bytes_consumed;
            out.extend_from_slice(&piece[..result.bytes_written]);
            if taken == input.len() && result.bytes_written < piece.len() {
                return out;
            }
            result.status.expect("valid data");
        }
    }
}

/// A message of words, numbers and noise, which refers to itself near and far.
fn message(chance: &mut Chance, len: usize) -> Vec<u8> {
    const WORDS: [&str; 6] = [r#"{"symbol":"#, r#","price":"#, r#","volume":"#, "zebra", "\u{e9}t\u{e9}", r#""}"#];
    let mut message = Vec::with_capacity(len + 32);
    while message.len() < len {
        match chance.below(8) {
            0 => message.extend_from_slice(&(chance.below(1 << 30) as u32).to_le_bytes()),
            1 => message.extend_from_slice(chance.below(100_000).to_string().as_bytes()),
            2 if !message.is_empty() => {
                let from = chance.below(message.len());
                let piece = message[from..(from + 40).min(message.len())].to_vec();
                message.extend_from_slice(&piece);
            }
            _ => message.extend_from_slice(WORDS[chance.below(6)].as_bytes()),
        }
    }
    message.truncate(len);
    message
}

#[test]
fn examples_of_rfc_7692_7_2_3() {
    let rows: [(&str, &[u8], &[u8]); 6] = [
        ("7.2.3.1", &[0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00], b"Hello"),
        ("7.2.3.3", &[0x00, 0x05, 0x00, 0xfa, 0xff, 0x48, 0x65, 0x6c, 0x6c, 0x6f, 0x00], b"Hello"),
        ("7.2.3.4", &[0xf3, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00, 0x00], b"Hello"),
        ("7.2.3.5", &[0xf2, 0x48, 0x05, 0x00, 0x00, 0x00, 0xff, 0xff, 0xca, 0xc9, 0xc9, 0x07, 0x00], b"Hello"),
        ("7.2.3.6", &[0x00], b""),
        ("nothing", &[], b""),
    ];
    for (name, compressed, payload) in rows {
        assert_eq!(inflate(compressed, None, 5).as_deref(), Ok(payload), "{name}");
    }
    // 7.2.3.2: the second refers to the first.
    let mut context = History::new(15);
    let (first, second) = ([0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00], [0xf2, 0x00, 0x11, 0x00, 0x00]);
    assert_eq!(inflate(&first, Some(&mut context), 9).unwrap(), b"Hello");
    assert_eq!(inflate(&second, Some(&mut context), 9).unwrap(), b"Hello");
    assert_eq!(context.as_slice(), b"HelloHello");
    assert_eq!(inflate(&second, None, 9), Err(InflateError::Invalid), "without the first");
}

/// Meant to kill: a restart that forgets the window, that of before or that of this message.
#[test]
fn final_blocks_are_gone_on_behind() {
    let mut context = History::new(15);
    let hello = [0xf3, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00];
    let again = [0xf2, 0x00, 0x11, 0x00, 0x00];
    let both = [&hello[..], &again].concat();
    assert_eq!(inflate(&both, Some(&mut context), 99).unwrap(), b"HelloHello", "refers to this message");
    let empty_final = [0x03, 0x00];
    let both = [&empty_final[..], &again].concat();
    assert_eq!(inflate(&both, Some(&mut context), 99).unwrap(), b"Hello", "refers to the one before");
    let many = empty_final.repeat(64);
    assert_eq!(inflate(&many, None, 99).unwrap(), b"");
    let too_many = empty_final.repeat(66);
    assert_eq!(inflate(&too_many, None, 99), Err(InflateError::Invalid), "each costs a window");
}

/// Meant to kill: a dictionary that is not the history, a history that misses a message or has one that was not sent, a
/// state that goes on for another context.
#[test]
fn contexts_are_what_independent_inflaters_have() {
    for seed in 0..30 {
        let chance = &mut Chance(seed);
        let bits = 10 + (seed % 6) as u8;
        let mut deflater = Deflater::new(1 + (seed % 9) as u8);
        let mut inflater = Inflater::new();
        let mut lines: Vec<_> = (0..3).map(|_| (History::new(bits), History::new(bits), Oracle::new())).collect();
        for number in 0..60 {
            let line = if chance.below(3) == 0 { chance.below(3) } else { 0 };
            let (sender, receiver, oracle) = &mut lines[line];
            let len_max = if chance.below(10) == 0 { 70_000 } else { 3_000 };
            let len = chance.below(len_max);
            let payload = message(chance, len);
            let mut frame = b"header".to_vec();
            let before = sender.as_slice().to_vec();
            if !deflater.compress(&payload, Some(sender), &mut frame) {
                assert_eq!((&frame[..], sender.as_slice()), (&b"header"[..], &before[..]), "as it was");
                continue;
            }
            let compressed = &frame[6..];
            assert!(compressed.len() < payload.len());
            assert!(oracle.read(compressed) == payload, "seed {seed}, message {number}, another's inflater");
            let read = inflate_with(&mut inflater, compressed, Some(receiver), payload.len());
            assert!(read.as_deref() == Ok(&payload[..]), "seed {seed}, message {number}");
            assert_eq!(sender.as_slice(), receiver.as_slice());
            assert!(sender.memory_bytes() <= 1 << bits, "no more than the window");
        }
    }
}

#[test]
fn without_a_context_each_message_stands_for_itself() {
    let chance = &mut Chance(7);
    let mut deflater = Deflater::new(LEVEL);
    let mut history = History::new(15);
    for _ in 0..50 {
        let payload = message(chance, 900);
        let mut out = Vec::new();
        assert!(deflater.compress(&payload, Some(&mut history), &mut out));
        out.clear();
        assert!(deflater.compress(&payload, None, &mut out));
        assert!(Oracle::new().read(&out) == payload);
    }
}

#[test]
fn what_does_not_get_shorter_is_left_as_it_is() {
    let chance = &mut Chance(3);
    let noise: Vec<u8> = (0..70_000).map(|_| chance.below(256) as u8).collect();
    let mut deflater = Deflater::new(LEVEL);
    let mut history = History::new(WINDOW_BITS);
    for len in [0, 1, 2, 3, 5, 100, 1000, 70_000] {
        let mut out = vec![9];
        assert!(!deflater.compress(&noise[..len], Some(&mut history), &mut out), "{len}");
        assert_eq!((out, history.is_empty()), (vec![9], true), "{len}");
    }
    // Once more, with a state that has failed to make it shorter; and the worst for each level and window.
    for level in 1..=9 {
        for bits in [10, 15] {
            for make in
                [|at: usize, _| 144 + (at % 112) as u8, |_, noise: u8| noise | 0x90, |at, noise| noise ^ at as u8]
            {
                let payload: Vec<u8> = noise.iter().enumerate().map(|(at, &noise)| make(at, noise)).collect();
                let mut deflater = Deflater::new(level);
                let mut small = History::new(bits);
                for len in [200, 16_400, 70_000] {
                    for _ in 0..2 {
                        let mut out = Vec::new();
                        if deflater.compress(&payload[..len], None, &mut out) {
                            assert!(Oracle::new().read(&out) == payload[..len], "{level} {bits} {len}");
                        }
                        small.reset();
                        out.clear();
                        if deflater.compress(&payload[..len], Some(&mut small), &mut out) {
                            assert!(Oracle::new().read(&out) == payload[..len], "{level} {bits} {len}");
                        }
                    }
                }
            }
        }
    }
    // The same noise a second time is in the window.
    assert!(deflater.compress(&[&noise[..1000], &noise[..1000]].concat(), Some(&mut history), &mut Vec::new()));
}

/// Meant to kill: a bound that is off by one, that counts what was there before, or that takes memory beforehand.
#[test]
fn bounds_in_bytes_and_ratio() {
    let zeros = |len: usize| {
        let mut out = Vec::new();
        assert!(Deflater::new(9).compress(&vec![0; len], None, &mut out));
        out
    };
    let bomb = zeros(UNRATED_BYTES);
    assert!(bomb.len() < UNRATED_BYTES / 900);
    assert_eq!(inflate(&bomb, None, UNRATED_BYTES).map(|out| out.len()), Ok(UNRATED_BYTES));
    assert_eq!(inflate(&bomb, None, UNRATED_BYTES - 1), Err(InflateError::TooBig));
    let rated = zeros(UNRATED_BYTES + 1);
    assert_eq!(inflate(&rated, None, 1 << 30), Err(InflateError::TooBig), "its ratio");
    assert_eq!(inflate(&[0x00], None, 0).as_deref(), Ok(&[][..]));
    assert_eq!(inflate(&zeros(100), None, 99), Err(InflateError::TooBig));

    let mut out = Vec::new();
    let mut pool = Pool::new(0);
    let refused = Inflater::new().inflate(&zeros(16 << 20), None, 100_000, &mut out, &mut pool);
    assert_eq!(refused, Err(InflateError::TooBig));
    assert!(out.capacity() <= 131_072, "{} bytes were taken", out.capacity());
}

/// Meant to kill: a panic, a loop, or a result that depends on what was inflated before.
#[test]
fn any_bytes_give_what_anothers_inflater_gives_or_an_error() {
    let mut inflater = Inflater::new();
    let (mut good, mut bad) = (0, 0);
    for seed in 0..3_000 {
        let chance = &mut Chance(seed);
        let mut bytes = Vec::new();
        let payload = message(chance, 300);
        assert!(Deflater::new(1 + (seed % 9) as u8).compress(&payload, None, &mut bytes));
        for _ in 0..chance.below(4) {
            let at = chance.below(bytes.len());
            match chance.below(3) {
                0 => bytes[at] ^= 1 << chance.below(8),
                1 => bytes.truncate(at + 1),
                _ => bytes.insert(at, chance.below(256) as u8),
            }
        }
        let ours = inflate_with(&mut inflater, &bytes, None, 100_000);
        let input = [&bytes[..], &TAIL].concat();
        let mut theirs = vec![0; 100_001];
        let mut state = InflateState::new_boxed(DataFormat::Raw);
        let result = miniz_oxide::inflate::stream::inflate(&mut state, &input, &mut theirs, MZFlush::None);
        theirs.truncate(result.bytes_written);
        match ours {
            Ok(ours) => {
                good += 1;
                // A final block ends what the other reads.
                assert!(ours.starts_with(&theirs), "seed {seed}");
            }
            Err(_) => bad += 1,
        }
    }
    assert!(good > 500 && bad > 500, "{good} and {bad}");
}
