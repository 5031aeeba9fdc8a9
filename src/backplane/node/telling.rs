//! What the others are told of this node's rooms, and its cores of theirs.

use std::sync::Arc;

use super::{Node, Output, Room, kind};
use super::super::beat::{Beat, Item, Kind, pages};

/// How often changes of rooms are told, at most.
const TELL_NS: u64 = 10_000_000;
/// How often all rooms are told, at most.
const ALL_NS: u64 = 100_000_000;

impl Node {
    /// What the others are to know of this node's rooms.
    pub(super) fn tell(&mut self) {
        if !self.is_joined() {
            // All of it is told by and by.
            self.forget_empty();
            return;
        }
        if self.tell_all && self.next_all_ns <= self.now_ns {
            self.next_all_ns = self.now_ns + ALL_NS;
            self.tell_all = false;
            self.forget_empty();
            let mut items: Vec<Item> = self.rooms.iter().map(|(name, room)| all_of(name, room)).collect();
            items.sort_unstable_by(|one, other| one.room.cmp(&other.room));
            let pages = pages(items);
            let last = pages.len() - 1;
            for (index, page) in pages.into_iter().enumerate() {
                self.beat(Kind::All { first: index == 0, last: index == last }, page);
            }
            self.asks_all = false;
        } else if !self.changed.is_empty() && self.next_tell_ns <= self.now_ns {
            self.next_tell_ns = self.now_ns + TELL_NS;
            let changed = std::mem::take(&mut self.changed);
            let items = changed.iter().filter_map(|name| self.rooms.get_mut(name).map(|room| changes_of(name, room)));
            for page in pages(items.collect::<Vec<_>>()) {
                self.beat(Kind::Changes, page);
            }
            self.changed = changed;
            self.forget_empty();
        }
    }

    /// Ends with the rooms that have changed: nobody is to be told of those without members any more.
    pub(super) fn forget_empty(&mut self) {
        for name in std::mem::take(&mut self.changed) {
            let Some(room) = self.rooms.get_mut(&name) else { continue };
            room.changes.clear();
            if room.members() == 0 {
                if room.subscribed {
                    self.out.push_back(Output::Unsubscribe(self.subjects.room(&name)));
                    self.out.push_back(Output::Left(Arc::clone(&name)));
                }
                room.subscribed = false;
                if room.ids.is_empty() {
                    self.rooms.remove(&name);
                }
            }
        }
    }

    pub(super) fn beat(&mut self, kind: Kind, rooms: Vec<Item>) {
        self.beats += 1;
        let beat = Beat {
            number: self.beats,
            name: self.identity.name.clone(),
            started_ns: self.identity.started_ns,
            connections: self.connections,
            kind,
            asks: self.asks_all && matches!(kind, Kind::All { last: true, .. }),
            rooms,
        };
        self.next_beat_ns = self.now_ns + self.period_ns();
        let mut writer = self.begin(kind::BEAT);
        beat.write(&mut writer);
        let subject = self.subjects.beat();
        self.send(subject, writer);
    }

    /// The cores are told what has changed elsewhere.
    pub(super) fn pass_on(&mut self) {
        debug_assert!(self.peers.rooms() > 64 || self.peers.invariants());
        let changed = self.peers.take_changed();
        self.out.extend(changed.into_iter().map(|(room, members)| Output::Members(room, members)));
        if self.peers.take_news() {
            self.out.push_back(Output::Others(self.peers.len(), self.peers.connections()));
        }
        for told in self.peers.take_told() {
            if let Some(room) = self.rooms.get(&told.room).filter(|room| room.members() > 0) {
                let cores = room.cores();
                self.out.push_back(Output::Told { room: told.room, ids: told.ids, back: told.back, cores });
            }
        }
    }
}

fn all_of(name: &Arc<str>, room: &Room) -> Item {
    let came = room.ids.iter().copied().collect();
    Item { room: name.to_string(), members: room.members(), came, left: Vec::new() }
}

fn changes_of(name: &Arc<str>, room: &mut Room) -> Item {
    let changes = std::mem::take(&mut room.changes);
    let of = |wanted: bool| changes.iter().filter(|(_, came)| **came == wanted).map(|(id, _)| *id).collect();
    Item { room: name.to_string(), members: room.members(), came: of(true), left: of(false) }
}
