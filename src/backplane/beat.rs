//! What a node tells all others of itself: that it lives, and how many members its rooms have.
//!
//! Beats are numbered without a gap, whatever is in them. So whoever misses one knows, and asks for all of it; and what is
//! told of all of it comes in the same line as the changes, so nothing has to be matched up.

use super::bytes::{Reader, Writer};
use crate::hub::ConnectionId;

/// Bytes of rooms in one beat, about.
const PAGE_BYTES: usize = 256 << 10;

/// One message of that line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Beat {
    pub(super) number: u64,
    pub(super) name: String,
    /// When the node was started, in nanoseconds since 1970.
    pub(super) started_ns: u64,
    pub(super) connections: u64,
    pub(super) kind: Kind,
    /// Whoever hears this is to tell all of its own.
    pub(super) asks: bool,
    pub(super) rooms: Vec<Item>,
}

/// What its rooms are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Kind {
    /// Those that have changed.
    #[default]
    Changes,
    /// A part of all.
    All {
        /// The first one.
        first: bool,
        /// The last one.
        last: bool,
    },
    /// None any more: the node ends.
    End,
}

/// A room of the node that beats.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Item {
    pub(super) room: String,
    pub(super) members: u32,
    /// Of those that are known by their ids: who has come, or of all, who is there.
    pub(super) came: Vec<ConnectionId>,
    /// And who has left.
    pub(super) left: Vec<ConnectionId>,
}

impl Item {
    fn len(&self) -> usize {
        self.room.len() + 16 * (self.came.len() + self.left.len()) + 8
    }
}

impl Beat {
    pub(super) fn write(&self, writer: &mut Writer) {
        let kind = match self.kind {
            Kind::Changes => 0,
            Kind::All { first, last } => 1 | u8::from(first) << 2 | u8::from(last) << 3,
            Kind::End => 2,
        };
        writer.u8(kind | u8::from(self.asks) << 4).number(self.number).text(&self.name);
        writer.number(self.started_ns).number(self.connections);
        for item in &self.rooms {
            writer.text(&item.room).number(u64::from(item.members));
            for ids in [&item.came, &item.left] {
                writer.number(ids.len() as u64);
                for id in ids {
                    writer.id(*id);
                }
            }
        }
    }

    pub(super) fn read(reader: &mut Reader) -> Option<Beat> {
        let flags = reader.u8()?;
        let kind = match flags & 3 {
            0 => Kind::Changes,
            1 => Kind::All { first: flags & 4 != 0, last: flags & 8 != 0 },
            2 => Kind::End,
            _ => return None,
        };
        let (number, name) = (reader.number()?, reader.text()?);
        let (started_ns, connections) = (reader.number()?, reader.number()?);
        let mut rooms = Vec::new();
        while !reader.is_empty() {
            let (room, members) = (reader.text()?, reader.u32()?);
            let mut ids = || {
                let count = reader.number()?;
                let ids: Vec<_> = (0..count).map_while(|_| reader.id()).collect();
                (ids.len() as u64 == count).then_some(ids)
            };
            rooms.push(Item { room, members, came: ids()?, left: ids()? });
        }
        Some(Beat { number, name, started_ns, connections, kind, asks: flags & 16 != 0, rooms })
    }
}

/// Divides rooms among beats, so that none is long; at least one part.
pub(super) fn pages(items: impl IntoIterator<Item = Item>) -> Vec<Vec<Item>> {
    let mut pages = vec![Vec::new()];
    let mut len = 0;
    for item in items {
        if len > 0 && len + item.len() > PAGE_BYTES {
            pages.push(Vec::new());
            len = 0;
        }
        len += item.len();
        pages.last_mut().expect("one at least").push(item);
    }
    pages
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn beats_come_back_and_what_is_cut_is_refused_or_less() {
        let id = |number| ConnectionId::from_bytes([number; 16]);
        let item = Item { room: "a".into(), members: 3, came: vec![id(1), id(2)], left: vec![id(3)] };
        for kind in [Kind::Changes, Kind::End, Kind::All { first: true, last: false }] {
            let rooms = vec![item.clone(), Item::default()];
            let beat =
                Beat { number: 900, name: "n".into(), started_ns: 1 << 60, connections: 5, kind, asks: true, rooms };
            let mut writer = Writer::default();
            beat.write(&mut writer);
            let bytes = writer.into_bytes();
            assert_eq!(Beat::read(&mut Reader(bytes.clone())), Some(beat.clone()));
            for len in 0..bytes.len() {
                assert_ne!(Beat::read(&mut Reader(bytes.slice(..len))), Some(beat.clone()));
            }
        }
        let huge = [0, 1, 0, 0, 0, 1, b'r', 1, 0xff, 0xff, 0xff, 0x7f];
        assert_eq!(Beat::read(&mut Reader(huge.to_vec().into())), None, "ids that are not there take no memory");
    }

    #[test]
    fn no_beat_is_long() {
        let items = (0..100).map(|number| Item { room: format!("{number:0>10000}"), ..Item::default() });
        let pages = pages(items);
        assert_eq!(pages.iter().map(Vec::len).sum::<usize>(), 100);
        assert!(pages.len() > 3 && pages.iter().all(|page| page.len() < 30));
        assert_eq!(super::pages([]).len(), 1);
    }
}
