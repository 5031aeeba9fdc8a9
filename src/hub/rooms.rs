//! Who is in which room, and what the cores tell each other of it.

use std::collections::BinaryHeap;
use std::sync::Arc;

use super::kept::membership_bytes;
use super::room::Place;
use super::streams::Home;
use super::{CoreHub, JoinError, Order, Room, RoomId, RoomInfo};

impl CoreHub {
    /// The room of this name, made if there is none, and kept: its id stays valid.
    pub fn room(&mut self, name: &str) -> RoomId {
        let room = self.find_or_make(name, || name.into());
        self.rooms[room.0 as usize].pinned = true;
        room
    }

    pub(super) fn find_or_make(&mut self, name: &str, shared: impl FnOnce() -> Arc<str>) -> RoomId {
        if let Some(room) = self.names.get(name) {
            return *room;
        }
        let name = shared();
        let has_history = self.has_history(&name);
        let room = RoomId(self.rooms.insert(Room::new(Arc::clone(&name), has_history)) as u32);
        self.names.insert(name, room);
        room
    }

    /// Adds a connection to the room of this name; nothing happens if it is a member. What this core publishes reaches it
    /// from now on; the others hear of it by an urgent letter. When they have read that is nobody's concern here: see
    /// [`CoreHub::join_then`].
    ///
    /// # Errors
    /// If the connection is closing, in too many rooms, or the name is too long.
    pub fn join(&mut self, slot: u32, name: &str) -> Result<RoomId, JoinError> {
        let (id, was) = self.let_in(slot, name)?;
        if was.is_some() {
            return Ok(id);
        }
        let room = &mut self.rooms[id.0 as usize];
        self.members[slot as usize].rooms.push((id, Place::plain(room.members.len())));
        room.members.push(slot);
        // Who publishes to it from now on must know of it; how many they are can wait for the end of the tick.
        if room.told.plain == 0 {
            self.announce(id);
        } else {
            self.note_news(id);
        }
        Ok(id)
    }

    /// Whether a connection may be in a room, and its place if it is.
    pub(super) fn let_in(&mut self, slot: u32, name: &str) -> Result<(RoomId, Option<Place>), JoinError> {
        if !self.is_open(slot) {
            return Err(JoinError::Gone);
        }
        let max = self.room_name_bytes_max(slot);
        if name.len() > max {
            return Err(JoinError::NameTooLong { max });
        }
        if let Some(room) = self.names.get(name)
            && let Some(place) = self.place(slot, *room)
        {
            return Ok((*room, Some(place)));
        }
        let max = self.rooms_max(slot);
        if self.members[slot as usize].rooms.len() >= max {
            return Err(JoinError::TooManyRooms { max });
        }
        let id = self.find_or_make(name, || name.into());
        self.keep(slot, membership_bytes(name, self.post.cores()), 0);
        Ok((id, None))
    }

    /// Removes a connection from a room; false if it was not a member.
    pub fn leave(&mut self, slot: u32, name: &str) -> bool {
        let Some(room) = self.names.get(name).copied() else { return false };
        let rooms = &mut self.members[slot as usize].rooms;
        match rooms.iter().position(|(of, _)| *of == room) {
            Some(index) => {
                let (_, place) = rooms.remove(index);
                self.keep(slot, 0, membership_bytes(name, self.post.cores()));
                self.remove_from_room(slot, room, place);
                true
            }
            None => false,
        }
    }

    fn place(&self, slot: u32, room: RoomId) -> Option<Place> {
        let rooms = &self.members[slot as usize].rooms;
        rooms.iter().find(|(of, _)| *of == room).map(|(_, place)| *place)
    }

    /// Whether a connection is in a room.
    pub fn is_member(&self, slot: u32, room: RoomId) -> bool {
        self.place(slot, room).is_some()
    }

    /// The room that a connection joined first of those it is still in.
    #[inline]
    pub fn first_room(&self, slot: u32) -> Option<RoomId> {
        self.members[slot as usize].rooms.first().map(|(room, _)| *room)
    }

    /// The members of a room on this core, as slots; without those whose join is not known to all yet.
    pub fn local_members(&self, name: &str) -> &[u32] {
        self.names.get(name).map_or(&[], |room| &self.rooms[room.0 as usize].members)
    }

    /// How many members a room has: those of this core, and those that the other cores have told of.
    pub fn member_count(&self, name: &str) -> usize {
        self.names.get(name).map_or(0, |room| {
            let room = &self.rooms[room.0 as usize];
            room.count() + room.elsewhere.members()
        })
    }

    /// Whether a connection is in the room of this name.
    pub fn is_in(&self, slot: u32, name: &str) -> bool {
        self.names.get(name).is_some_and(|room| self.is_member(slot, *room))
    }

    /// The names of the rooms that a connection is in.
    pub fn rooms_of(&self, slot: u32) -> Vec<String> {
        let name = |(room, _): &(RoomId, Place)| self.rooms[room.0 as usize].name.to_string();
        self.members[slot as usize].rooms.iter().map(name).collect()
    }

    /// The first `limit` rooms that have members, on whatever core, in the order of their names' bytes: of those whose names
    /// begin with `prefix` and come after `after`.
    pub(crate) fn rooms_page(&self, prefix: &str, after: &str, limit: usize) -> Vec<RoomInfo> {
        // However many there are, no more of them are held than are asked for.
        let mut first: BinaryHeap<&str> = BinaryHeap::new();
        for name in self.names.keys().map(|name| &**name) {
            if name <= after || !name.starts_with(prefix) || self.member_count(name) == 0 {
                continue;
            }
            if first.len() < limit {
                first.push(name);
            } else if let Some(mut last) = first.peek_mut()
                && name < *last
            {
                *last = name;
            }
        }
        let info = |name: &str| RoomInfo { name: name.to_owned(), members: self.member_count(name) };
        first.into_sorted_vec().into_iter().map(info).collect()
    }

    /// Rooms that this core knows of.
    pub fn room_count(&self) -> usize {
        self.rooms.len()
    }

    pub(super) fn remove_from_room(&mut self, slot: u32, id: RoomId, place: Place) {
        let room = &mut self.rooms[id.0 as usize];
        room.changed_in -= u32::from(place.is_changed_in());
        match place.index() {
            Some(index) => {
                room.members.swap_remove(index);
                if let Some(&moved) = room.members.get(index) {
                    let rooms = &mut self.members[moved as usize].rooms;
                    let entry = rooms.iter_mut().find(|(of, _)| *of == id).expect("members know their rooms");
                    entry.1 = entry.1.moved_to(index);
                }
            }
            None => room.joining.retain(|(_, of)| *of != slot),
        }
        self.tell_bridge_of_leave(slot, id, place);
        self.note_news(id);
        self.forget_if_unused(id);
    }

    /// The number of a room's members has changed: the others are told at the end of the tick, once.
    pub(super) fn note_news(&mut self, id: RoomId) {
        let room = &mut self.rooms[id.0 as usize];
        if (self.post.cores() > 1 || self.post.bridge().is_some()) && !room.is_news {
            room.is_news = true;
            self.news.push(id);
        }
    }

    /// Tells the others of the rooms whose number of members is not what they were told last.
    pub(super) fn tell_news(&mut self) {
        while let Some(id) = self.news.pop() {
            let room = &mut self.rooms[id.0 as usize];
            room.is_news = false;
            let (told, to_tell) = (room.told, room.to_tell());
            if to_tell.plain != told.plain {
                self.announce(id);
            }
            if to_tell.changed_in != told.changed_in {
                self.tell_change(id, None, None);
            }
            self.tell_bridge(id);
            self.forget_if_unused(id);
        }
    }

    pub(super) fn announce(&mut self, id: RoomId) {
        self.tell_bridge(id);
        let core = self.core;
        let room = &mut self.rooms[id.0 as usize];
        let members = room.to_tell().plain;
        room.told.plain = members;
        for other in (0..self.post.cores()).filter(|other| *other != core) {
            self.post.send_urgent(other, Order::Presence { room: Arc::clone(&room.name), core, members }.into());
        }
    }

    pub(super) fn read_presence(&mut self, name: &Arc<str>, core: usize, members: u32) {
        // The name is the same memory on all cores.
        let id = self.find_or_make(name, || Arc::clone(name));
        self.rooms[id.0 as usize].elsewhere.set_plain(core, members);
        self.forget_if_unused(id);
    }

    pub(super) fn forget_if_unused(&mut self, id: RoomId) {
        if self.rooms[id.0 as usize].is_unused() {
            let room = self.rooms.remove(id.0 as usize);
            self.streams.forget(Home::Room(id.0));
            self.names.remove(&room.name);
        }
    }
}
