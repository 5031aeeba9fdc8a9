//! The machine against tungstenite's server, on seeded random streams of frames, most of them valid, some mutated: the
//! same messages in the same order, and the same verdict at the end.

mod wire;

use std::io::{self, Cursor, Read, Write};

use ringwire::proto::{ProtocolError, Role, frame::decode_header};
use tungstenite::error::{CapacityError, Error};
use tungstenite::protocol::{Role as TheirRole, WebSocket, WebSocketConfig};
use tungstenite::{Bytes, Message};
use wire::{Run, Seen, close, frame, run_with};

const LIMITS: ringwire::proto::Limits = ringwire::proto::Limits { message_bytes_max: 3000, fragments_max: u32::MAX };

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// The stream ended first.
    Input,
    Closed,
    Failed,
    BadText,
    TooBig,
}

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

/// Reads what it was given, then nothing more; what is written is dropped.
struct Stream(Cursor<Vec<u8>>);

impl Read for Stream {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.0.read(buf)
    }
}

impl Write for Stream {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        Ok(buf.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn theirs(bytes: &[u8]) -> (Vec<Seen>, End) {
    let config = WebSocketConfig::default()
        .max_message_size(Some(LIMITS.message_bytes_max))
        .max_frame_size(Some(LIMITS.message_bytes_max));
    let stream = Stream(Cursor::new(bytes.to_vec()));
    let mut socket = WebSocket::from_raw_socket(stream, TheirRole::Server, Some(config));
    let mut seen = Vec::new();
    let owned = |bytes: Bytes| bytes.to_vec();
    loop {
        match socket.read() {
            Ok(Message::Text(text)) => seen.push(Seen::Text(text.as_bytes().to_vec())),
            Ok(Message::Binary(bytes)) => seen.push(Seen::Binary(owned(bytes))),
            Ok(Message::Ping(bytes)) => seen.push(Seen::Ping(owned(bytes))),
            Ok(Message::Pong(bytes)) => seen.push(Seen::Pong(owned(bytes))),
            Ok(Message::Close(None)) => {
                seen.push(Seen::Close(None, String::new()));
                return (seen, End::Closed);
            }
            Ok(Message::Close(Some(frame))) => {
                // It reports a forbidden code as its own answer.
                if frame.reason.as_str() == "Protocol violation" {
                    return (seen, End::Failed);
                }
                seen.push(Seen::Close(Some(frame.code.into()), frame.reason.as_str().to_owned()));
                return (seen, End::Closed);
            }
            Ok(Message::Frame(_)) => unreachable!("only written"),
            Err(Error::Utf8(_)) => return (seen, End::BadText),
            Err(Error::Capacity(CapacityError::MessageTooLong { .. })) => {
                return (seen, End::TooBig);
            }
            Err(Error::Protocol(tungstenite::error::ProtocolError::ResetWithoutClosingHandshake)) => {
                return (seen, End::Input);
            }
            Err(Error::Protocol(_)) => return (seen, End::Failed),
            Err(other) => panic!("{other:?}"),
        }
    }
}

fn ours(run: Run) -> (Vec<Seen>, End) {
    let mut seen = run.seen;
    let end = match seen.last() {
        Some(Seen::Failed(error)) => {
            let end = match error {
                ProtocolError::BadUtf8 | ProtocolError::BadCloseReason => End::BadText,
                ProtocolError::MessageTooBig => End::TooBig,
                _ => End::Failed,
            };
            seen.pop();
            end
        }
        Some(Seen::Close(..)) => End::Closed,
        _ => End::Input,
    };
    (seen, end)
}

/// Whether tungstenite may judge otherwise, and rightly by its own rules: it takes lengths that are not minimal; it judges
/// a frame only once all of it is there, so an error in one cut off by the end of the stream it does not see; and of two
/// errors in one frame (reserved bits and its size, a close code and its reason) it sees the other first.
fn may_differ(bytes: &[u8], ours: End, theirs: End) -> bool {
    match (ours, theirs) {
        (End::Failed | End::BadText | End::TooBig, End::Input) => true,
        (End::Failed, End::TooBig | End::BadText) => true,
        _ => has_unminimal_length(bytes),
    }
}

fn has_unminimal_length(mut bytes: &[u8]) -> bool {
    loop {
        match decode_header(bytes) {
            Ok(Some((header, len))) => {
                let end = len as u64 + header.payload_len;
                match bytes.get(usize::try_from(end).unwrap_or(usize::MAX)..) {
                    Some(rest) => bytes = rest,
                    None => return false,
                }
            }
            Err(ProtocolError::NonMinimalLength) => return true,
            _ => return false,
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
        let (their_seen, their_end) = theirs(&bytes);
        let size = 1 + random.below(bytes.len().max(1));
        let lend = [None, Some(1)][random.below(2)];
        let pieces: Vec<_> = bytes.chunks(size).collect();
        let (seen, end) = ours(run_with(Role::Server, LIMITS, lend, &pieces));
        if end != their_end && may_differ(&bytes, end, their_end) {
            assert!(mutated, "seed {seed}");
            assert!(their_seen.starts_with(&seen), "seed {seed}: {seen:?} {their_seen:?}");
            continue;
        }
        assert_eq!(end, their_end, "seed {seed}: {bytes:x?}");
        assert_eq!(seen, their_seen, "seed {seed}");
        ends[end as usize] += 1;
    }
    assert!(ends.iter().all(|&count| count > 30), "every end is tried: {ends:?}");
}
