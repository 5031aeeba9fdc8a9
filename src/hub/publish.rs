//! Messages to one connection, to a room, to a set of connections: encoded once in each form that is wanted, queued, and
//! passed on to the cores that have receivers; those to a room with a history by way of its owner, see [`super::history`].

use std::collections::BTreeMap;
use std::sync::Arc;

use super::streams::Home;
use super::{CoreHub, Delivery, Order, Publication, RoomId, RouteName, Scope, Tally};
use crate::hub::ConnectionId;
use crate::outbox::{FrameBuf, Key, Outgoing, Queued, SHARED_BYTES_MIN};
use crate::proto::frame::Opcode;
use crate::proto::{Incoming, Kind, Payload};

/// How a message goes to a set of connections.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Sending {
    /// Only the latest with the same key matters.
    pub(crate) key: Option<Key>,
    /// Not to this connection of this core.
    pub(crate) except: Option<u32>,
    /// It is an event in the app's envelope.
    pub(crate) is_event: bool,
    /// Rooms do not keep it.
    pub(crate) is_ephemeral: bool,
}

impl CoreHub {
    // ---- one connection -------------------------------------------------------------------------------------------

    /// Queues a message to a connection of this core.
    #[inline]
    pub fn send(&mut self, slot: u32, opcode: Opcode, payload: &[u8]) -> Queued {
        if !self.streams.has_receivers() && self.outbox.extend(slot, opcode, payload) {
            self.counters.messages_out += 1;
            self.traffic.queued(slot);
            return Queued::Yes;
        }
        self.deliver_alone(slot, &mut Outgoing::new(opcode, payload))
    }

    /// Queues a message to a connection of this core, of which only the latest with the same key matters.
    pub(crate) fn send_keyed(&mut self, slot: u32, opcode: Opcode, payload: &[u8], key: Key) -> Queued {
        self.deliver_alone(slot, &mut Outgoing::new(opcode, payload).keyed(Some(key)))
    }

    /// Queues a message to a connection of this core that is not compressed, whatever was agreed.
    pub(crate) fn send_uncompressed(&mut self, slot: u32, opcode: Opcode, payload: &[u8], key: Option<Key>) -> Queued {
        self.deliver_alone(slot, Outgoing::new(opcode, payload).keyed(key).set_uncompressed(true))
    }

    /// Queues a received message back to the connection that it came from; a large one travels without being copied. The
    /// limit of the queue does not apply: its input is held back while much is queued to it.
    #[inline]
    pub fn send_incoming(&mut self, slot: u32, message: Incoming<'_>) -> Queued {
        self.with_outgoing(message, |hub, message| hub.reply(slot, message))
    }

    #[inline]
    pub(super) fn reply(&mut self, slot: u32, message: &mut Outgoing<'_>) -> Queued {
        let compressed = match self.streams.has_receivers() {
            true => self.queue_compressed(slot, message).filter(|queued| *queued == Queued::Yes),
            false => None,
        };
        let queued = compressed.unwrap_or_else(|| self.outbox.put_reply(slot, message));
        if queued == Queued::Yes {
            self.counters.messages_out += 1;
            self.traffic.queued(slot);
        }
        queued
    }

    /// Sends to a connection of any core by its id; `tally` gets the answer, at once or when the other core has looked.
    pub fn emit_to(&mut self, id: ConnectionId, opcode: Opcode, payload: &[u8], tally: Option<Arc<Tally>>) {
        let mut message = Outgoing::new(opcode, payload);
        if id.node() != self.ids.node() {
            let frame = self.outbox.share(&mut message).clone();
            // Where there is no bridge, it has gone.
            let bridge = self.post.bridge().unwrap_or(self.post.cores());
            self.forward(bridge, Order::EmitTo { id, frame, key: None, tally }.into());
        } else if id.core() == self.core || id.core() >= self.post.cores() {
            self.deliver_to_id(id, &mut message, tally);
        } else {
            let frame = self.outbox.share(&mut message).clone();
            self.post.send(id.core(), Order::EmitTo { id, frame, key: None, tally }.into());
        }
    }

    pub(super) fn deliver_to_id(&mut self, id: ConnectionId, message: &mut Outgoing<'_>, tally: Option<Arc<Tally>>) {
        let queued = self.resolve(id).map_or(Queued::Gone, |slot| self.deliver_alone(slot, message));
        if let Some(tally) = tally {
            tally.add(queued.into());
        }
    }

    /// Queues a message to a connection of this core, if it is on a route of this path; `None` if it is on another.
    pub(crate) fn send_on_route(&mut self, id: ConnectionId, path: &str, frame: FrameBuf) -> Option<Queued> {
        let is_another = self.find(id).is_some_and(|slot| *self.route_path(slot) != *path);
        let slot = if is_another { return None } else { self.resolve(id) };
        Some(slot.map_or(Queued::Gone, |slot| self.deliver_alone(slot, &mut Outgoing::of_frame(frame))))
    }

    /// To nobody else. A call of its own, so that [`CoreHub::send`] is short where it is inlined.
    #[inline(never)]
    fn deliver_alone(&mut self, slot: u32, message: &mut Outgoing<'_>) -> Queued {
        let queued = self.deliver(slot, message);
        if queued != Queued::Yes {
            self.outbox.take_back(message);
        }
        queued
    }

    /// Has a received message go out: a large one without being copied, and the buffer of another is used again.
    #[inline]
    fn with_outgoing<R>(
        &mut self,
        message: Incoming<'_>,
        send: impl FnOnce(&mut CoreHub, &mut Outgoing<'_>) -> R,
    ) -> R {
        let Incoming { kind, payload, uncompressed } = message;
        match payload {
            Payload::Owned(payload) if payload.as_slice().len() >= SHARED_BYTES_MIN => {
                send(self, Outgoing::of_owned(kind, payload).set_uncompressed(uncompressed))
            }
            Payload::Owned(payload) => {
                let mut message = Outgoing::new(kind.into(), payload.as_slice());
                let sent = send(self, message.set_uncompressed(uncompressed));
                self.spares.give(payload.into_parts().0);
                sent
            }
            Payload::Borrowed(payload) => {
                send(self, Outgoing::new(kind.into(), payload).set_uncompressed(uncompressed))
            }
        }
    }

    // ---- rooms ----------------------------------------------------------------------------------------------------

    /// Sends a received message to all members of a room on every core; the count is of this core's members.
    pub fn publish_incoming(&mut self, room: RoomId, message: Incoming<'_>, except: Option<u32>) -> Delivery {
        self.with_outgoing(message, |hub, message| hub.publish_to_room(room, message, except, None))
    }

    /// Sends a message to all members of a room on every core. The returned count is of this core's members; `tally`
    /// gets the other cores' when they have delivered.
    pub fn publish(
        &mut self,
        room: RoomId,
        kind: Kind,
        payload: &[u8],
        except: Option<u32>,
        tally: Option<Arc<Tally>>,
    ) -> Delivery {
        self.publish_to_room(room, &mut Outgoing::new(kind.into(), payload), except, tally)
    }

    pub(super) fn publish_to_room(
        &mut self,
        id: RoomId,
        message: &mut Outgoing<'_>,
        except: Option<u32>,
        tally: Option<Arc<Tally>>,
    ) -> Delivery {
        let room = &self.rooms[id.0 as usize];
        if room.has_history {
            let name = Arc::clone(&room.name);
            return self.record(&name, message, except, tally);
        }
        self.give_to_room(id, message, except, tally)
    }

    /// The same, and nobody keeps it.
    fn give_to_room(
        &mut self,
        id: RoomId,
        message: &mut Outgoing<'_>,
        except: Option<u32>,
        tally: Option<Arc<Tally>>,
    ) -> Delivery {
        let mut delivery = Delivery::default();
        if self.give_to_cores(id, message, None, tally.as_ref()) {
            let scope = Scope::Room(Arc::clone(&self.rooms[id.0 as usize].name));
            delivery = self.publish_abroad(scope, message);
        }
        delivery.merge(self.deliver_to_room(id, message, except));
        if let Some(tally) = tally {
            tally.add(delivery);
        }
        delivery
    }

    /// Passes a message on to all members of a room that this core owns, and to other machines, as these are to get it, if it is
    /// to go there.
    pub(super) fn pass_on(&mut self, name: &Arc<str>, publication: Publication, abroad: Option<FrameBuf>) -> Delivery {
        let Publication { frame, key, except, tally } = publication;
        let mut delivery = Delivery::default();
        if let Some(id) = self.names.get(name).copied() {
            let mut message = Outgoing::of_frame(frame).keyed(key);
            let is_abroad = self.give_to_cores(id, &mut message, except, tally.as_ref());
            if let Some(frame) = abroad.filter(|_| is_abroad) {
                let mut message = Outgoing::of_frame(frame).keyed(key);
                delivery = self.publish_abroad(Scope::Room(Arc::clone(name)), &mut message);
            }
            let except = except.and_then(|id| self.resolve(id));
            delivery.merge(self.deliver_to_room(id, &mut message, except));
        }
        if let Some(tally) = tally {
            tally.add(delivery);
        }
        delivery
    }

    /// Passes a message on to the other cores that have members of a room, and makes the form that this one's take; whether there
    /// are members on other machines.
    #[inline]
    pub(super) fn give_to_cores(
        &mut self,
        id: RoomId,
        message: &mut Outgoing<'_>,
        except: Option<ConnectionId>,
        tally: Option<&Arc<Tally>>,
    ) -> bool {
        let room = &self.rooms[id.0 as usize];
        if !room.members.is_empty() && !self.streams.has_receivers() {
            self.outbox.make_for_here(message);
        }
        let (cores, mut is_abroad) = (self.post.cores(), false);
        for core in room.elsewhere.cores() {
            if core == cores {
                is_abroad = true;
                continue;
            }
            let scope = Scope::Room(Arc::clone(&room.name));
            let publication = Publication::of(&mut self.outbox, message, except, tally.cloned());
            self.post.send(core, Order::Publish { scope, publication }.into());
        }
        is_abroad
    }

    pub(super) fn deliver_to_room(&mut self, id: RoomId, message: &mut Outgoing<'_>, except: Option<u32>) -> Delivery {
        let mut delivery = Delivery::default();
        if self.streams.has_receivers() {
            // Delivering changes no room.
            let members = std::mem::take(&mut self.rooms[id.0 as usize].members);
            let receivers = members.iter().copied().filter(|slot| except != Some(*slot));
            delivery = self.deliver_in_forms(Home::Room(id.0), receivers, message);
            self.rooms[id.0 as usize].members = members;
            return delivery;
        }
        if message.key().is_some() {
            // Delivering changes no room.
            let members = std::mem::take(&mut self.rooms[id.0 as usize].members);
            self.outbox.make_for_many(message, members.len());
            for &slot in members.iter().filter(|slot| except != Some(**slot)) {
                delivery.add(self.deliver(slot, message));
            }
            self.rooms[id.0 as usize].members = members;
            return delivery;
        }
        let members = &self.rooms[id.0 as usize].members;
        if members.is_empty() {
            return delivery;
        }
        let mut overflown = std::mem::take(&mut self.overflown);
        let traffic = &mut self.traffic;
        self.outbox.make_for_many(message, members.len());
        let receivers = members.iter().copied().filter(|slot| except != Some(*slot));
        self.outbox.put_to_all(receivers, message, |slot, queued| match queued {
            Queued::Yes => {
                delivery.queued += 1;
                traffic.queued(slot);
            }
            Queued::Full => overflown.push(slot),
            Queued::Gone => delivery.gone += 1,
        });
        self.counters.messages_out += u64::from(delivery.queued);
        for slot in overflown.drain(..) {
            delivery.add(self.overflow(slot, message));
        }
        self.overflown = overflown;
        delivery
    }

    // ---- sets of connections --------------------------------------------------------------------------------------

    /// Sends a message to a set of connections, on every core. The count is of this core's.
    pub(crate) fn send_to_scope(&mut self, scope: &Scope, message: Incoming<'_>, how: Sending) -> Delivery {
        let Sending { key, is_event, is_ephemeral, .. } = how;
        self.with_outgoing(message, |hub, message| {
            hub.publish_to_scope(scope, message.set_key(key).set_event(is_event).set_ephemeral(is_ephemeral), how)
        })
    }

    fn publish_to_scope(&mut self, scope: &Scope, message: &mut Outgoing<'_>, how: Sending) -> Delivery {
        let Sending { except, is_ephemeral, .. } = how;
        if let Scope::Room(name) = scope {
            return match self.names.get(name).copied() {
                Some(room) if is_ephemeral => self.give_to_room(room, message, except, None),
                Some(room) => self.publish_to_room(room, message, except, None),
                // Nobody is in it, and its owner keeps the message for those who come.
                None if !is_ephemeral && self.has_history(name) => self.record(name, message, except, None),
                None => Delivery::default(),
            };
        }
        if !self.streams.has_receivers() {
            self.outbox.make_for_here(message);
        }
        for core in (0..self.post.cores()).filter(|core| *core != self.core) {
            let (scope, publication) = (scope.clone(), Publication::of(&mut self.outbox, message, None, None));
            self.post.send(core, Order::Publish { scope, publication }.into());
        }
        let mut delivery = Delivery::default();
        if self.post.bridge().is_some() {
            delivery = self.publish_abroad(scope.clone(), message);
        }
        delivery.merge(self.deliver_to_scope(scope, message, except));
        delivery
    }

    /// Delivers to this core's part of a set of connections.
    fn deliver_to_scope(&mut self, scope: &Scope, message: &mut Outgoing<'_>, except: Option<u32>) -> Delivery {
        let wanted = match scope {
            Scope::Room(name) => {
                let Some(room) = self.names.get(name).copied() else { return Delivery::default() };
                return self.deliver_to_room(room, message, except);
            }
            Scope::Everyone => None,
            Scope::Route(name) => Some(self.routes.wanted(|known| known == name)),
            Scope::Path(path) => Some(self.routes.wanted(|known| known.path == *path)),
            Scope::RouteElsewhere { path, made_at } => {
                let is_made_there = |known: &RouteName| match (made_at, known.made_at) {
                    (Some((file, line, column)), Some(at)) => {
                        (&**file, *line, *column) == (at.file(), at.line(), at.column())
                    }
                    (None, None) => true,
                    _ => false,
                };
                Some(self.routes.wanted(|known| known.path == *path && is_made_there(known)))
            }
        };
        let wanted = match wanted {
            Some(None) => return Delivery::default(),
            Some(wanted) => wanted,
            None => None,
        };
        if !self.streams.has_receivers() {
            self.outbox.make_for_many(message, self.members.len());
        }
        let mut delivery = Delivery::default();
        let mut by_route: BTreeMap<u16, Vec<u32>> = BTreeMap::new();
        for slot in 0..self.members.len() as u32 {
            let member = &self.members[slot as usize];
            let is_meant = wanted.as_ref().is_none_or(|wanted| self.routes.is_wanted(member.route, wanted));
            if member.open && !member.doomed && is_meant && except != Some(slot) {
                match self.streams.has_receivers() {
                    true => by_route.entry(member.route).or_default().push(slot),
                    false => delivery.add(self.deliver(slot, message)),
                }
            }
        }
        for (route, slots) in by_route {
            delivery.merge(self.deliver_in_forms(Home::Route(route), slots.into_iter(), message));
        }
        delivery
    }

    pub(super) fn read_publish(&mut self, scope: &Scope, publication: Publication) {
        let Publication { frame, key, except, tally } = publication;
        let except = except.and_then(|id| self.resolve(id));
        let delivery = self.deliver_to_scope(scope, &mut Outgoing::of_frame(frame).keyed(key), except);
        if let Some(tally) = tally {
            tally.add(delivery);
        }
    }
}
