//! What is stored of a message: who has sent it, under which number of its own, and the message as it goes to members.

use bytes::Bytes;

use crate::backplane::asking::{read_frame, write_frame};
use crate::backplane::bytes::{Reader, Writer};
use crate::hub::Publication;

const VERSION: u8 = 1;
const MESSAGE: u8 = 0;
const MESSAGE_EXCEPT: u8 = 1;
const MARK: u8 = 2;

/// What an entry takes beside the message's frame, at most.
pub(super) const ENTRY_BYTES: usize = 96;

/// A message, or a mark.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    /// The node that has sent it, and its number there; none has 0.
    pub(super) from: (u32, u64),
    /// `None`: something is missing here. Nobody waits by it.
    pub(super) publication: Option<Publication>,
}

impl Entry {
    /// What is stored of one; who waits for what becomes of it stays here.
    pub(super) fn to_bytes(from: (u32, u64), publication: Option<&Publication>) -> Bytes {
        let mut writer = Writer::default();
        writer.u8(VERSION).number(u64::from(from.0)).number(from.1);
        match publication {
            None => drop(writer.u8(MARK)),
            Some(Publication { frame, key, except, tally: _ }) => {
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
        Entry::parse(payload).unwrap_or(Entry { from: (0, 0), publication: None })
    }

    fn parse(payload: Bytes) -> Option<Entry> {
        let mut reader = Reader(payload);
        if reader.u8()? != VERSION {
            return None;
        }
        let from = (reader.u32()?, reader.number()?);
        let kind = reader.u8()?;
        let publication = match kind {
            MARK => None,
            MESSAGE | MESSAGE_EXCEPT => {
                let except = if kind == MESSAGE_EXCEPT { Some(reader.id()?) } else { None };
                let (frame, key) = read_frame(&mut reader)?;
                Some(Publication { frame, key, except, tally: None })
            }
            _ => return None,
        };
        reader.is_empty().then_some(Entry { from, publication })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::ConnectionId;
    use crate::outbox::{FrameBuf, Key};
    use crate::proto::frame::Opcode;

    /// Kills: a key, an exception or a mark of the message that does not survive the way.
    #[test]
    fn entries_come_back_and_what_is_cut_is_a_mark_of_nobody() {
        let id = ConnectionId::from_bytes([7; 16]);
        let frame = |opcode, payload: &[u8]| FrameBuf::new(opcode, payload);
        let publications = [
            Publication { except: Some(id), ..frame(Opcode::Text, b"hi").event(true).into() },
            Publication { key: Some(Key::of(b"k")), ..frame(Opcode::Binary, &[0; 300]).uncompressed(true).into() },
            frame(Opcode::Text, b"").into(),
        ];
        let read = |bytes| {
            let Entry { from, publication } = Entry::read(bytes);
            (from, publication.map(|Publication { frame, key, except, tally }| (frame, key, except, tally.is_some())))
        };
        for publication in publications.map(Some).into_iter().chain([None]) {
            let from = (70_000, 1 << 40);
            let bytes = Entry::to_bytes(from, publication.as_ref());
            let frame_len = publication.as_ref().map_or(0, |publication| publication.frame.len());
            assert!(bytes.len() <= frame_len + ENTRY_BYTES);
            let expected = publication.map(|Publication { frame, key, except, .. }| (frame, key, except, false));
            assert_eq!(read(bytes.clone()), (from, expected));
            for len in 0..bytes.len() {
                assert_eq!(read(bytes.slice(..len)), ((0, 0), None), "cut to {len}");
            }
        }
    }
}
