//! The connections of a core: who they are, what is known of them, what holds their input back, and which are to be closed.

use std::borrow::Cow;
use std::net::SocketAddr;

use super::kept::data_bytes;
use super::member::Member;
use super::{ConnectionInfo, ConnectionPage, CoreHub, Delivery, Doom};
use crate::hub::ConnectionId;
use crate::message::RawJson;

/// What a connection takes in a listing, beside its data.
const LISTED_BYTES: usize = 256;

impl CoreHub {
    /// Enters a WebSocket connection; messages can be queued to it from now on.
    #[doc(hidden)]
    pub fn enter(&mut self, slot: u32, generation: u32, route: u16) {
        let index = slot as usize;
        if self.members.len() <= index {
            self.members.resize_with(index + 1, Member::default);
        }
        let member = &mut self.members[index];
        debug_assert!(!member.open && member.rooms.is_empty());
        *member = Member { generation, route, open: true, ..Member::default() };
        self.routes.open(route);
    }

    /// Removes a connection and its memberships.
    pub(crate) fn leave_all(&mut self, slot: u32) {
        let Some(member) = self.members.get_mut(slot as usize) else { return };
        if std::mem::replace(&mut member.open, false) {
            let route = member.route;
            self.routes.close(route);
        }
        self.tell_ended(slot);
        self.end_sends(slot);
        let member = &mut self.members[slot as usize];
        let kept_bytes = member.kept_bytes;
        self.keep(slot, 0, kept_bytes);
        if !self.data.is_empty() {
            self.data.remove(&slot);
        }
        while let Some((room, place)) = self.members[slot as usize].rooms.pop() {
            self.remove_from_room(slot, room, place);
        }
        self.members[slot as usize].rooms.shrink_to_fit();
    }

    /// The slot of a living connection of this core; `None` for stale or foreign ids.
    pub fn resolve(&self, id: ConnectionId) -> Option<u32> {
        self.find(id).filter(|slot| !self.members[*slot as usize].doomed)
    }

    /// As [`CoreHub::resolve`], or that of a connection that is closing and has not gone.
    pub fn find(&self, id: ConnectionId) -> Option<u32> {
        let slot = id.slot();
        let member = self.members.get(slot as usize)?;
        let is_it =
            id.core() == self.core && member.open && member.generation == id.generation() && self.ids.is_genuine(id);
        is_it.then_some(slot)
    }

    // ---- closing ---------------------------------------------------------------------------------------------------

    /// Asks for a connection to be closed at the end of this tick, after what is queued to it. The first request counts;
    /// later messages to it are refused.
    pub fn close(&mut self, slot: u32, code: Option<u16>, reason: impl Into<Cow<'static, str>>) {
        let Some(member) = self.members.get_mut(slot as usize) else { return };
        if member.open && !member.doomed {
            member.doomed = true;
            self.outbox.seal(slot);
            self.dooms.push(Doom { slot, generation: member.generation, code, reason: reason.into() });
        }
    }

    /// Marks a connection that is closing by its peer's doing: later messages to it are refused.
    pub(crate) fn mark_closing(&mut self, slot: u32) {
        self.members[slot as usize].doomed = true;
        self.outbox.seal(slot);
    }

    /// Whether a connection is open and not about to be closed.
    #[inline]
    pub fn is_open(&self, slot: u32) -> bool {
        self.members.get(slot as usize).is_some_and(|member| member.open && !member.doomed)
    }

    /// The connections to close; takes the list, so that what is asked for meanwhile waits for the next call.
    pub(crate) fn take_dooms(&mut self) -> Vec<Doom> {
        std::mem::take(&mut self.dooms)
    }

    pub(crate) fn has_dooms(&self) -> bool {
        !self.dooms.is_empty()
    }

    // ---- what is known of a connection ----------------------------------------------------------------------------

    /// Says who a connection is, right after it was entered.
    pub(crate) fn describe(&mut self, slot: u32, peer: Option<SocketAddr>, now_ns: u64) {
        let member = &mut self.members[slot as usize];
        member.peer = peer.into();
        member.opened_ns = now_ns;
    }

    /// A connection's peer; `None` on a Unix socket.
    pub fn peer(&self, slot: u32) -> Option<SocketAddr> {
        self.members[slot as usize].peer.into()
    }

    /// When a connection was opened, on the core's clock.
    pub fn opened_ns(&self, slot: u32) -> u64 {
        self.members[slot as usize].opened_ns
    }

    /// A connection's JSON data; `null` if none was set.
    pub fn data(&self, slot: u32) -> RawJson {
        self.data.get(&slot).cloned().unwrap_or_default()
    }

    /// Sets a connection's JSON data.
    pub fn set_data(&mut self, slot: u32, data: RawJson) {
        if self.members.get(slot as usize).is_some_and(|member| member.open) {
            let more = data_bytes(&data);
            let less = self.data.insert(slot, data).map_or(0, |old| data_bytes(&old));
            self.keep(slot, more, less);
        }
    }

    /// What is known of a connection.
    pub(crate) fn info(&self, slot: u32) -> ConnectionInfo {
        ConnectionInfo {
            id: self.id(slot),
            route: self.route_path(slot),
            core: self.core,
            peer: self.peer(slot),
            connected_ms: self.now_ns.saturating_sub(self.opened_ns(slot)) / 1_000_000,
            data: self.data(slot),
        }
    }

    /// Connections of this core in the order of their slots, from slot `from` on: after the first `skip`, at most `limit`,
    /// and no more than `bytes_max` bytes of them, but one if there is one and `limit` allows it.
    pub(crate) fn connections_page(&self, from: u32, skip: usize, limit: usize, bytes_max: usize) -> ConnectionPage {
        let open = |slot: &u32| self.members[*slot as usize].open;
        self.page((from..self.members.len() as u32).filter(open), skip, limit, bytes_max)
    }

    /// As [`CoreHub::connections_page`], of the members of a room.
    pub(crate) fn members_page(
        &self,
        room: &str,
        from: u32,
        skip: usize,
        limit: usize,
        bytes_max: usize,
    ) -> ConnectionPage {
        let slots = self.first_members(room, from, skip.saturating_add(limit).saturating_add(1));
        self.page(slots.into_iter(), skip, limit, bytes_max)
    }

    /// The ids of at most `limit` members of a room, from slot `from` on, and the slot to go on from if that was not all.
    pub(crate) fn member_ids(&self, room: &str, from: u32, limit: usize) -> (Vec<ConnectionId>, Option<u32>) {
        let mut slots = self.first_members(room, from, limit.saturating_add(1));
        let next = if slots.len() > limit { slots.pop() } else { None };
        (slots.into_iter().map(|slot| self.id(slot)).collect(), next)
    }

    /// The first `count` members of a room in the order of their slots, from slot `from` on.
    fn first_members(&self, room: &str, from: u32, count: usize) -> Vec<u32> {
        let mut slots: Vec<u32> = self.local_members(room).iter().copied().filter(|slot| *slot >= from).collect();
        // No more of them need be in order than are asked for.
        if count < slots.len() {
            slots.select_nth_unstable(count);
            slots.truncate(count);
        }
        slots.sort_unstable();
        slots
    }

    fn page(
        &self,
        mut slots: impl Iterator<Item = u32>,
        skip: usize,
        limit: usize,
        bytes_max: usize,
    ) -> ConnectionPage {
        let mut page = ConnectionPage { passed: slots.by_ref().take(skip).count(), ..ConnectionPage::default() };
        for slot in slots {
            let bytes = LISTED_BYTES + self.data.get(&slot).map_or(0, |data| data.as_str().len());
            let is_full = !page.connections.is_empty() && page.bytes + bytes > bytes_max;
            if page.connections.len() == limit || is_full {
                page.next = Some(slot);
                break;
            }
            page.bytes += bytes;
            page.connections.push(self.info(slot));
        }
        page
    }

    /// Closes the members of a room on this core, those included whose join is not known to all yet.
    pub(crate) fn close_members(&mut self, room: &str, code: u16, reason: &str) -> Delivery {
        let mut delivery = Delivery::default();
        let Some(room) = self.names.get(room).map(|room| &self.rooms[room.0 as usize]) else { return delivery };
        let slots: Vec<u32> = room.members.iter().copied().chain(room.joining.iter().map(|(_, slot)| *slot)).collect();
        for slot in slots {
            if self.is_open(slot) {
                self.close(slot, Some(code), reason.to_owned());
                delivery.queued += 1;
            } else {
                delivery.gone += 1;
            }
        }
        delivery
    }

    /// How many connections this core has.
    pub fn count(&self) -> usize {
        (self.counters.opened - self.counters.closed) as usize
    }

    // ---- input that waits -----------------------------------------------------------------------------------------

    /// Handles no more of a connection's messages until it is released.
    pub(crate) fn hold(&mut self, slot: u32) {
        self.members[slot as usize].task_is_behind = true;
        self.outbox.set_held(slot, true);
    }

    /// Handles a connection's messages again.
    pub(crate) fn release(&mut self, id: ConnectionId) {
        let slot = id.slot();
        if let Some(member) = self.members.get_mut(slot as usize)
            && member.generation == id.generation()
        {
            member.task_is_behind = false;
            self.release_if_free(slot);
        }
    }

    /// Goes on with a connection's messages if nothing holds them back any more.
    pub(super) fn release_if_free(&mut self, slot: u32) {
        let member = &self.members[slot as usize];
        if !member.task_is_behind && member.changes == 0 && self.outbox.set_held(slot, false) {
            self.released.push((slot, member.generation));
        }
    }

    pub(crate) fn take_released(&mut self) -> Vec<(u32, u32)> {
        std::mem::take(&mut self.released)
    }

    pub(crate) fn has_released(&self) -> bool {
        !self.released.is_empty()
    }

    // ---- send-only connections ------------------------------------------------------------------------------------

    /// Closes a connection with 1000 as soon as nobody outside can send to it any more.
    pub(crate) fn close_with_senders(&mut self, slot: u32) {
        self.members[slot as usize].ends_with_senders = true;
    }

    /// Somebody outside gets a sender of a connection, and nobody has one: the number by which the letter about the end of
    /// these senders is told from those about the end of earlier ones.
    pub(crate) fn begin_senders(&mut self, slot: u32) -> u32 {
        let member = &mut self.members[slot as usize];
        member.senders += 1;
        member.senders
    }

    /// Closes a connection whose last sender was dropped, if it is to end with it and there has been no other since.
    pub(super) fn close_without_senders(&mut self, id: ConnectionId, number: u32) {
        if let Some(slot) = self.resolve(id)
            && self.members[slot as usize].ends_with_senders
            && self.members[slot as usize].senders == number
        {
            self.close(slot, Some(1000), "done");
        }
    }
}
