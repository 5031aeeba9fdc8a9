//! Messages to sets of connections, and what the core knows of each connection besides its rooms.

use std::net::SocketAddr;
use std::sync::Arc;

use super::kept::data_bytes;
use super::{CoreHub, Delivery, Letter, SHARED_BYTES_MIN, Scope, Tally};
use crate::hub::ConnectionId;
use crate::message::RawJson;
use crate::outbox::FrameBuf;
use crate::outbox::{Key, Outgoing};
use crate::proto::{Incoming, Payload};

/// What is known of a connection.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct ConnectionInfo {
    /// Its address.
    pub id: ConnectionId,
    /// The path of its route.
    pub route: Arc<str>,
    /// Its core.
    pub core: usize,
    /// The peer; `None` on a Unix socket.
    pub peer: Option<SocketAddr>,
    /// How long it has been open, in milliseconds.
    pub connected_ms: u64,
    /// Its JSON data.
    pub data: RawJson,
}

/// A part of one core's connections, bounded in number and bytes.
#[derive(Debug, Default)]
pub struct ConnectionPage {
    pub(crate) connections: Vec<ConnectionInfo>,
    /// How many were passed over.
    pub(crate) passed: usize,
    /// What they take, of the bytes that were allowed.
    pub(crate) bytes: usize,
    /// The slot to go on from; `None` if that was all.
    pub(crate) next: Option<u32>,
}

/// What a connection takes in a listing, beside its data.
const LISTED_BYTES: usize = 256;

impl CoreHub {
    /// Sends a message to a set of connections, on every core. The count is of this core's.
    pub(crate) fn send_to_scope(
        &mut self,
        scope: &Scope,
        message: Incoming<'_>,
        key: Option<Key>,
        except: Option<u32>,
    ) -> Delivery {
        let opcode = message.kind.into();
        match message.payload {
            Payload::Owned(payload) if payload.as_slice().len() >= SHARED_BYTES_MIN => {
                let frame = FrameBuf::from_owned(message.kind, payload);
                self.publish_scope(scope, &Outgoing::Shared(&frame), key, except)
            }
            payload => match self.outbox.encode(opcode, payload.as_slice()) {
                Some(frame) => {
                    if let Some(key) = key {
                        self.outbox.mark(frame, key);
                    }
                    self.publish_scope(scope, &Outgoing::Arena(frame), key, except)
                }
                None => {
                    let frame = FrameBuf::new(opcode, payload.as_slice());
                    self.publish_scope(scope, &Outgoing::Shared(&frame), key, except)
                }
            },
        }
    }

    fn publish_scope(
        &mut self,
        scope: &Scope,
        frame: &Outgoing<'_>,
        key: Option<Key>,
        except: Option<u32>,
    ) -> Delivery {
        if let Scope::Room(name) = scope {
            return match self.names.get(name).copied() {
                Some(room) => self.publish_frame(room, frame, key, except, None),
                None => Delivery::default(),
            };
        }
        let cores = self.post.cores();
        if cores > 1 {
            let shared = match frame {
                Outgoing::Arena(frame) => self.outbox.export(*frame),
                Outgoing::Shared(frame) => (*frame).clone(),
            };
            for core in (0..cores).filter(|core| *core != self.core) {
                let (scope, frame) = (scope.clone(), shared.clone());
                self.post.send(core, Letter::Publish { scope, frame, key, except: None, tally: None });
            }
        }
        self.deliver_to_scope(scope, frame, key, except)
    }

    /// Delivers to this core's part of a set of connections.
    fn deliver_to_scope(
        &mut self,
        scope: &Scope,
        frame: &Outgoing<'_>,
        key: Option<Key>,
        except: Option<u32>,
    ) -> Delivery {
        let wanted = match scope {
            Scope::Room(name) => {
                let Some(room) = self.names.get(name).copied() else { return Delivery::default() };
                return self.deliver_to_room(room, frame, key, except);
            }
            Scope::Everyone => None,
            Scope::Route(name) => Some(self.routes.wanted(|known| known == name)),
            Scope::Path(path) => Some(self.routes.wanted(|known| known.path == *path)),
        };
        let wanted = match wanted {
            Some(None) => return Delivery::default(),
            Some(wanted) => wanted,
            None => None,
        };
        let mut delivery = Delivery::default();
        for slot in 0..self.members.len() as u32 {
            let member = &self.members[slot as usize];
            let is_meant = wanted.as_ref().is_none_or(|wanted| self.routes.is_wanted(member.route, wanted));
            if member.open && !member.doomed && is_meant && except != Some(slot) {
                delivery.add(self.deliver(slot, frame, key));
            }
        }
        delivery
    }

    pub(super) fn read_publish(
        &mut self,
        scope: &Scope,
        frame: &FrameBuf,
        key: Option<Key>,
        except: Option<ConnectionId>,
        tally: Option<Arc<Tally>>,
    ) {
        let except = except.and_then(|id| self.resolve(id));
        let outgoing = self.outgoing(frame, key);
        let delivery = self.deliver_to_scope(scope, &outgoing, key, except);
        if let Some(tally) = tally {
            tally.add(delivery);
        }
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
        let mut page = ConnectionPage::default();
        let open = |slot: &u32| self.members[*slot as usize].open;
        let mut slots = (from..self.members.len() as u32).filter(open);
        page.passed = slots.by_ref().take(skip).count();
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

impl Delivery {
    pub(super) fn add(&mut self, queued: crate::outbox::Queued) {
        let more = Delivery::from(queued);
        self.queued += more.queued;
        self.dropped += more.dropped;
        self.gone += more.gone;
        self.refused += more.refused;
    }
}
