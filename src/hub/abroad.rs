//! What goes to other machines, by way of the bridge: to a core it is one more core, with the number behind the last.
//!
//! Where there is no bridge nothing here is asked or counted. Where there is one, a room's members on other machines count as
//! those of that core, so a message to a room that has none there costs what it costs without.

use std::sync::Arc;

use super::room::Place;
use super::{CoreHub, Delivery, Order, Publication, RoomId, Scope};
use crate::hub::ConnectionId;
use crate::outbox::{FrameBuf, Outgoing};

/// Makes what the members of a room are told of one whose machine was lost, or is there again (`true`).
pub(super) type TellLost = Box<dyn Fn(&str, ConnectionId, bool) -> Option<FrameBuf>>;

/// What a core knows of other machines.
#[derive(Default)]
pub(super) struct Abroad {
    /// Machines, and their connections.
    pub(super) others: (u32, u32),
    pub(super) tell_lost: Option<TellLost>,
}

impl CoreHub {
    /// Has the members of rooms be told of those that were lost.
    pub(crate) fn set_tell_lost(&mut self, tell: TellLost) {
        self.abroad.tell_lost = Some(tell);
    }

    /// Members of a room on other machines.
    pub(crate) fn members_abroad(&self, name: &str) -> usize {
        let bridge = self.post.bridge();
        self.names.get(name).zip(bridge).map_or(0, |(room, bridge)| self.rooms[room.0 as usize].elsewhere.of(bridge))
    }

    /// Hands a message for a set of connections to the bridge, if there is anybody.
    pub(super) fn publish_abroad(&mut self, scope: Scope, message: &mut Outgoing<'_>) -> Delivery {
        let Some(bridge) = self.post.bridge() else { return Delivery::default() };
        let elsewhere = match &scope {
            Scope::Room(name) => self.members_abroad(name) as u32,
            Scope::Everyone if self.abroad.others.0 > 0 => self.abroad.others.1,
            // How many there are on a route is not known.
            _ if self.abroad.others.0 > 0 => 0,
            _ => return Delivery::default(),
        };
        let publication = Publication::of(&mut self.outbox, message, None, None);
        match self.post.offer(bridge, Order::Publish { scope, publication }.into()) {
            Ok(()) => Delivery { elsewhere, ..Delivery::default() },
            Err(_) => {
                self.counters.abroad_refused += 1;
                Delivery { refused: 1, ..Delivery::default() }
            }
        }
    }

    /// Tells the bridge how many members a room has here, if it was told otherwise.
    pub(super) fn tell_bridge(&mut self, id: RoomId) {
        let Some(bridge) = self.post.bridge() else { return };
        let core = self.core;
        let room = &mut self.rooms[id.0 as usize];
        let members = room.count() as u32;
        if std::mem::replace(&mut room.told_abroad, members) != members {
            let room = Arc::clone(&room.name);
            self.post.send_urgent(bridge, Order::Presence { room, core, members }.into());
        }
    }

    /// Tells the bridge who has come to a room by a change, or has left it.
    pub(super) fn tell_bridge_of(&mut self, slot: u32, id: RoomId, is_there: bool) {
        let Some(bridge) = self.post.bridge() else { return };
        self.tell_bridge(id);
        let room = Arc::clone(&self.rooms[id.0 as usize].name);
        let id = self.id(slot);
        self.post.send_urgent(bridge, Order::Member { room, id, is_there }.into());
    }

    /// Who has left a room was known to others by its id if it came by a change.
    pub(super) fn tell_bridge_of_leave(&mut self, slot: u32, id: RoomId, place: Place) {
        if place.is_changed_in() && self.post.bridge().is_some() {
            self.tell_bridge_of(slot, id, false);
        }
    }

    /// The notice of a change for the members on other machines.
    pub(super) fn note_abroad(&mut self, id: RoomId, notice: Option<&FrameBuf>) {
        if let Some(frame) = notice
            && self.post.bridge().is_some_and(|bridge| self.rooms[id.0 as usize].elsewhere.of(bridge) > 0)
        {
            let scope = Scope::Room(Arc::clone(&self.rooms[id.0 as usize].name));
            self.publish_abroad(scope, &mut Outgoing::of_frame(frame.clone().ephemeral(true)));
        }
    }

    /// Tells the members of a room here of those that were lost with their machine, or are there again.
    pub(super) fn tell_lost(&mut self, name: &str, ids: &[ConnectionId], back: bool) {
        let Some(room) = self.names.get(name).copied() else { return };
        let Some(tell) = self.abroad.tell_lost.take() else { return };
        for id in ids {
            if let Some(frame) = tell(name, *id, back) {
                self.deliver_to_room(room, &mut Outgoing::of_frame(frame), None);
            }
        }
        self.abroad.tell_lost = Some(tell);
    }
}
