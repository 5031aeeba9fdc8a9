//! What is stored of a message: who has sent it, under which number of its own, and the message as it goes to members.

use bytes::Bytes;

use crate::backplane::asking::{read_frame, write_frame};
use crate::backplane::bytes::{Reader, Writer};
use crate::hub::ConnectionId;
use crate::outbox::{FrameBuf, Key};

const VERSION: u8 = 1;
const MESSAGE: u8 = 0;
const MESSAGE_EXCEPT: u8 = 1;
const MARK: u8 = 2;

/// What an entry takes beside the message's frame, at most.
pub(super) const ENTRY_BYTES: usize = 96;

/// A message, or a mark.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    /// The node that has sent it, and its number there; none has 0.
    pub(super) from: (u32, u64),
    /// `None`: something is missing here.
    pub(super) message: Option<Content>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Content {
    pub(super) frame: FrameBuf,
    pub(super) key: Option<Key>,
    pub(super) except: Option<ConnectionId>,
}

impl Entry {
    pub(super) fn to_bytes(&self) -> Bytes {
        let mut writer = Writer::default();
        writer.u8(VERSION).number(u64::from(self.from.0)).number(self.from.1);
        match &self.message {
            None => drop(writer.u8(MARK)),
            Some(Content { frame, key, except }) => {
                match except {
                    Some(id) => writer.u8(MESSAGE_EXCEPT).id(*id),
                    None => writer.u8(MESSAGE),
                };
                write_frame(&mut writer, frame, *key);
            }
        }
        writer.into_bytes()
    }

    /// What makes no sense is a mark of nobody: whatever it was, it is missing.
    pub(super) fn read(payload: Bytes) -> Entry {
        Entry::parse(payload).unwrap_or(Entry { from: (0, 0), message: None })
    }

    fn parse(payload: Bytes) -> Option<Entry> {
        let mut reader = Reader(payload);
        if reader.u8()? != VERSION {
            return None;
        }
        let from = (reader.u32()?, reader.number()?);
        let kind = reader.u8()?;
        let message = match kind {
            MARK => None,
            MESSAGE | MESSAGE_EXCEPT => {
                let except = if kind == MESSAGE_EXCEPT { Some(reader.id()?) } else { None };
                let (frame, key) = read_frame(&mut reader)?;
                Some(Content { frame, key, except })
            }
            _ => return None,
        };
        reader.is_empty().then_some(Entry { from, message })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::frame::Opcode;

    /// Kills: a key, an exception or a mark of the message that does not survive the way.
    #[test]
    fn entries_come_back_and_what_is_cut_is_a_mark_of_nobody() {
        let id = ConnectionId::from_bytes([7; 16]);
        let frame = |opcode, payload: &[u8]| FrameBuf::new(opcode, payload);
        let contents = [
            Content { frame: frame(Opcode::Text, b"hi").event(true), key: None, except: Some(id) },
            Content { frame: frame(Opcode::Binary, &[0; 300]).uncompressed(true), key: Some(Key::of(b"k")), except: None },
            Content { frame: frame(Opcode::Text, b""), key: None, except: None },
        ];
        for message in contents.map(Some).into_iter().chain([None]) {
            let entry = Entry { from: (70_000, 1 << 40), message };
            let bytes = entry.to_bytes();
            let frame_len = entry.message.as_ref().map_or(0, |message| message.frame.len());
            assert!(bytes.len() <= frame_len + ENTRY_BYTES);
            assert_eq!(Entry::read(bytes.clone()), entry);
            for len in 0..bytes.len() {
                assert_eq!(Entry::read(bytes.slice(..len)), Entry { from: (0, 0), message: None }, "cut to {len}");
            }
        }
    }
}
