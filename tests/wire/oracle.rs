//! tungstenite as the judge of the machine: the same bytes to both, and what they may disagree about.

use std::io::{self, Cursor, Read, Write};

use ringwire::proto::{ProtocolError, Role, frame::decode_header};
use tungstenite::error::{CapacityError, Error};
use tungstenite::protocol::{Role as TheirRole, WebSocket, WebSocketConfig};
use tungstenite::{Bytes, Message};

use super::{Run, Seen, run_with};

pub const LIMITS: ringwire::proto::Limits =
    ringwire::proto::Limits { message_bytes_max: 3000, fragments_max: u32::MAX };

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The stream ended first.
    Input,
    Closed,
    Failed,
    BadText,
    TooBig,
}

/// What the machine and its judge made of some bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The same, with this end.
    Same(End),
    /// Different ends, for one of the reasons that are known.
    Excused,
}

/// Gives `bytes` to both, to the machine in pieces of `piece_bytes`, and compares.
///
/// # Panics
/// If they disagree on anything but what `may_differ` excuses.
pub fn compare(role: Role, bytes: &[u8], piece_bytes: usize, lend: Option<usize>) -> Verdict {
    let (their_seen, their_end) = theirs(role, bytes);
    let pieces: Vec<_> = bytes.chunks(piece_bytes.max(1)).collect();
    let (seen, end) = ours(run_with(role, LIMITS, lend, &pieces));
    if (end, &seen) == (their_end, &their_seen) {
        return Verdict::Same(end);
    }
    let knows_1014 = is_1014(&seen, end, &their_seen, their_end);
    let excused = knows_1014 || (may_differ(bytes, end, their_end) && their_seen.starts_with(&seen));
    assert!(excused, "{end:?} after {seen:?}, not {their_end:?} after {their_seen:?}: {bytes:x?}");
    Verdict::Excused
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

fn theirs(role: Role, bytes: &[u8]) -> (Vec<Seen>, End) {
    let config = WebSocketConfig::default()
        .max_message_size(Some(LIMITS.message_bytes_max))
        .max_frame_size(Some(LIMITS.message_bytes_max));
    let stream = Stream(Cursor::new(bytes.to_vec()));
    let role = match role {
        Role::Server => TheirRole::Server,
        Role::Client => TheirRole::Client,
    };
    let mut socket = WebSocket::from_raw_socket(stream, role, Some(config));
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

/// Whether the difference is that tungstenite does not know close code 1014, which IANA has registered since RFC 6455.
fn is_1014(seen: &[Seen], end: End, their_seen: &[Seen], their_end: End) -> bool {
    let is_it = matches!(seen.last(), Some(Seen::Close(Some(1014), _)));
    is_it && (end, their_end) == (End::Closed, End::Failed) && seen[..seen.len() - 1] == *their_seen
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
            // A control frame whose length is written in the longer form is too long, or should have used the short one.
            Err(_) => return bytes[0] & 0x08 != 0 && bytes.get(1).is_some_and(|second| second & 0x7F > 125),
            Ok(None) => return false,
        }
    }
}
