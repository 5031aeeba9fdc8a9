//! One core's connections and rooms: who gets a message. It queues to the core's outboxes and writes letters to other
//! cores; it runs no handler and knows no ring.
//!
//! A room lives on each core that has members in it. Every core knows of each room how many members the other cores have,
//! by letters that they write at once when their first member joins, and otherwise at the end of a tick in which the number
//! has changed: so a message wakes only cores that can deliver it, and members are counted without asking. These letters
//! are urgent, so they do not wait where a mailbox is full, and a core reads its mail before it runs handlers. Joins and
//! leaves that are to be known to all before they are answered are another thing: see `hub/changes.rs`.
//!
//! Order: messages from one core to one connection arrive in the order they were sent. Nothing is promised between
//! messages that start on different cores.
//!
//! Knows of this crate: `config`, `mail`, `message`, `metrics`, `outbox`, `proto`.

mod changes;
#[cfg(test)]
mod changes_tests;
mod id;
mod kept;
mod letter;
mod limits;
mod measure;
mod peer;
mod room;
mod rooms;
mod routes;
mod scope;
mod slow;
#[cfg(test)]
mod slow_tests;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use slab::Slab;
use smallvec::SmallVec;

use crate::config::SlowConsumer;
use crate::mail::Post;
use crate::message::RawJson;
use crate::metrics::Counters;
use crate::outbox::FrameBuf;
use crate::outbox::{Dropped, Key, Outbox, Outgoing, Queued};
use crate::proto::frame::Opcode;
use crate::proto::{Incoming, Kind, Payload, Spares};
use changes::Changes;
use room::{Place, Room};
use routes::RouteNames;

pub use changes::{Done, Known};
pub use id::{ConnectionId, IdKey, ParseIdError};
pub use letter::{Ask, Delivery, Letter, Scope, Tally};
pub use limits::RouteLimits;
pub(crate) use peer::CompactPeer;
pub use room::RoomId;
pub use routes::RouteName;
pub use scope::{ConnectionInfo, ConnectionPage};

/// Messages at least this long travel by reference; shorter ones are copied, which is cheaper.
const SHARED_BYTES_MIN: usize = 4096;
/// Rooms that one connection may be in, unless a setting or its route says otherwise: a peer decides how many it joins, so
/// there must be a bound.
const ROOMS_MAX_DEFAULT: u32 = 256;
/// Bytes of a room's name, unless the connection's route says otherwise.
pub const ROOM_NAME_BYTES_MAX: usize = 256;

#[derive(Default)]
struct Member {
    generation: u32,
    route: u16,
    open: bool,
    doomed: bool,
    /// Its task has not taken what came before: no more of its messages are handled.
    task_is_behind: bool,
    /// To be closed when the last sender outside is dropped.
    ends_with_senders: bool,
    /// How often somebody outside has got a sender when nobody had one.
    senders: u32,
    /// Bytes of what it has the hub keep.
    kept_bytes: u32,
    /// Joins and leaves of its that are not known to all cores yet: none of its messages is handled meanwhile.
    changes: u32,
    peer: CompactPeer,
    opened_ns: u64,
    /// Each with this connection's place in the room's list of members.
    rooms: SmallVec<[(RoomId, Place); 1]>,
}

/// What has ended elsewhere.
enum End {
    /// A connection's senders outside, by their number.
    Senders(ConnectionId, u32),
    /// A core, and its connections with it.
    Core(usize),
}

/// A connection that is to be closed at the end of the tick.
#[derive(Debug)]
pub struct Doom {
    /// Which.
    pub slot: u32,
    /// Its generation when this was asked for.
    pub generation: u32,
    /// The close code; `None` for a Close frame without one.
    pub code: Option<u16>,
    /// The reason.
    pub reason: Cow<'static, str>,
}

/// The connection could not join the room.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum JoinError {
    /// The connection is closing or has gone.
    #[error("the connection is closing")]
    Gone,
    /// It is in as many rooms as it may be: [`Config::rooms_max`](crate::Config::rooms_max), or what its route says.
    #[error("the connection is in {max} rooms already, and may be in no more")]
    TooManyRooms {
        /// How many it may be in.
        max: usize,
    },
    /// The name is longer than 256 bytes, or than what the route says.
    #[error("a room's name has at most {max} bytes")]
    NameTooLong {
        /// How many it may have.
        max: usize,
    },
}

/// Connections and rooms of one core. See the module.
pub struct CoreHub {
    /// The outbound queues.
    pub outbox: Outbox,
    /// Buffers for assembled messages.
    pub spares: Spares,
    /// What happened so far.
    pub counters: Counters,
    ids: IdKey,
    core: usize,
    members: Vec<Member>,
    rooms: Slab<Room>,
    names: HashMap<Arc<str>, RoomId>,
    /// Rooms of which the other cores may not know how many members they have here.
    news: Vec<RoomId>,
    changes: Changes,
    post: Post<Letter>,
    dooms: Vec<Doom>,
    /// Per route: what happens to a connection that does not keep up.
    slow_consumer: SlowConsumer,
    rooms_max: u32,
    overflown: Vec<u32>,
    /// What connections have lost since they were told last, by slot and generation; of those that want to know.
    losses: BTreeMap<(u32, u32), Dropped>,
    routes: RouteNames,
    route_limits: Vec<RouteLimits>,
    /// JSON data of the connections that have some.
    data: HashMap<u32, RawJson>,
    /// Connections whose messages may be handled again.
    released: Vec<(u32, u32)>,
    /// What has ended, and takes effect when the letters that came before word of it have been read.
    ends: Vec<End>,
    /// Bytes held of messages and requests that are incomplete or held back.
    pub(crate) partial_bytes: usize,
    /// Bytes of messages that tasks have not taken, as of this tick.
    pub(crate) inbox_bytes: usize,
    kept_bytes: usize,
    /// Another core waits for this one to look at what its connections hold.
    pub(crate) shed_wanted: bool,
    /// The core's clock, as of this tick.
    pub(crate) now_ns: u64,
}

impl CoreHub {
    /// A core without connections.
    #[doc(hidden)]
    pub fn new(ids: IdKey, post: Post<Letter>, outbox: Outbox, spares: Spares, slow_consumer: SlowConsumer) -> CoreHub {
        CoreHub {
            outbox,
            spares,
            counters: Counters::default(),
            ids,
            core: post.core(),
            members: Vec::new(),
            rooms: Slab::new(),
            names: HashMap::new(),
            news: Vec::new(),
            changes: Changes::new(post.core(), post.cores()),
            post,
            dooms: Vec::new(),
            slow_consumer,
            rooms_max: ROOMS_MAX_DEFAULT,
            overflown: Vec::new(),
            losses: BTreeMap::new(),
            routes: RouteNames::default(),
            route_limits: Vec::new(),
            data: HashMap::new(),
            released: Vec::new(),
            ends: Vec::new(),
            partial_bytes: 0,
            inbox_bytes: 0,
            kept_bytes: 0,
            shed_wanted: false,
            now_ns: 0,
        }
    }

    /// A hub of no core, to stand in while a core's hub is lent.
    pub(crate) fn stand_in() -> CoreHub {
        CoreHub::new(IdKey::default(), Post::nowhere(), Outbox::new(0), Spares::new(0), SlowConsumer::Close)
    }

    /// This core's number.
    pub fn core(&self) -> usize {
        self.core
    }

    /// A connection's address.
    pub fn id(&self, slot: u32) -> ConnectionId {
        let generation = self.members.get(slot as usize).map_or(0, |member| member.generation);
        self.ids.id(self.core, slot, generation)
    }

    /// The route by which a connection came.
    pub fn route(&self, slot: u32) -> u16 {
        self.members[slot as usize].route
    }

    /// Makes room for so many connections.
    pub(crate) fn reserve(&mut self, slots: usize) {
        self.members.reserve(slots);
        self.outbox.reserve(slots);
    }

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
    }

    /// Removes a connection and its memberships.
    pub(crate) fn leave_all(&mut self, slot: u32) {
        let Some(member) = self.members.get_mut(slot as usize) else { return };
        member.open = false;
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

    // ---- one connection -------------------------------------------------------------------------------------------

    /// Queues a message to a connection of this core.
    #[inline]
    pub fn send(&mut self, slot: u32, opcode: Opcode, payload: &[u8]) -> Queued {
        match self.outbox.send(slot, opcode, payload) {
            Queued::Yes => {
                self.counters.messages_out += 1;
                Queued::Yes
            }
            Queued::Full => {
                let frame = FrameBuf::new(opcode, payload);
                self.overflow(slot, &Outgoing::Shared(&frame), None)
            }
            Queued::Gone => Queued::Gone,
        }
    }

    /// Queues a received message back to the connection that it came from; a large one travels without being copied. The
    /// limit of the queue does not apply: its input is held back while much is queued to it.
    #[inline]
    pub fn send_incoming(&mut self, slot: u32, message: Incoming<'_>) -> Queued {
        match message.payload {
            Payload::Owned(payload) if payload.as_slice().len() >= SHARED_BYTES_MIN => {
                self.reply(slot, &FrameBuf::from_owned(message.kind, payload))
            }
            Payload::Owned(payload) => {
                let queued = self.reply_borrowed(slot, message.kind.into(), payload.as_slice());
                self.spares.give(payload.into_parts().0);
                queued
            }
            Payload::Borrowed(payload) => self.reply_borrowed(slot, message.kind.into(), payload),
        }
    }

    #[inline]
    fn reply_borrowed(&mut self, slot: u32, opcode: Opcode, payload: &[u8]) -> Queued {
        match self.outbox.send(slot, opcode, payload) {
            Queued::Yes => {
                self.counters.messages_out += 1;
                Queued::Yes
            }
            Queued::Full => self.reply(slot, &FrameBuf::new(opcode, payload)),
            Queued::Gone => Queued::Gone,
        }
    }

    fn reply(&mut self, slot: u32, frame: &FrameBuf) -> Queued {
        let queued = self.outbox.queue_reply(slot, frame);
        self.counters.messages_out += u64::from(queued == Queued::Yes);
        queued
    }

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

    /// Sends to a connection of any core by its id; `tally` gets the answer, at once or when the other core has looked.
    pub fn emit_to(&mut self, id: ConnectionId, opcode: Opcode, payload: &[u8], tally: Option<Arc<Tally>>) {
        if id.core() == self.core || id.core() >= self.post.cores() {
            let delivery = match self.resolve(id) {
                Some(slot) => self.send(slot, opcode, payload).into(),
                None => Delivery::from(Queued::Gone),
            };
            if let Some(tally) = tally {
                tally.add(delivery);
            }
        } else {
            let frame = FrameBuf::new(opcode, payload);
            self.post.send(id.core(), Letter::EmitTo { id, frame, key: None, tally });
        }
    }

    // ---- rooms ----------------------------------------------------------------------------------------------------

    /// Sends a received message to all members of a room on every core; the count is of this core's members.
    pub fn publish_incoming(&mut self, room: RoomId, message: Incoming<'_>, except: Option<u32>) -> Delivery {
        match message.payload {
            Payload::Owned(payload) if payload.as_slice().len() >= SHARED_BYTES_MIN => {
                let frame = FrameBuf::from_owned(message.kind, payload);
                self.publish_frame(room, &Outgoing::Shared(&frame), None, except, None)
            }
            Payload::Owned(payload) => {
                let delivery = self.publish(room, message.kind, payload.as_slice(), except, None);
                self.spares.give(payload.into_parts().0);
                delivery
            }
            Payload::Borrowed(payload) => self.publish(room, message.kind, payload, except, None),
        }
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
        match self.outbox.encode(kind.into(), payload) {
            Some(frame) => self.publish_frame(room, &Outgoing::Arena(frame), None, except, tally),
            None => {
                let frame = FrameBuf::new(kind.into(), payload);
                self.publish_frame(room, &Outgoing::Shared(&frame), None, except, tally)
            }
        }
    }

    fn publish_frame(
        &mut self,
        id: RoomId,
        frame: &Outgoing<'_>,
        key: Option<Key>,
        except: Option<u32>,
        tally: Option<Arc<Tally>>,
    ) -> Delivery {
        let room = &self.rooms[id.0 as usize];
        if !room.elsewhere.is_empty() {
            let shared = match frame {
                Outgoing::Arena(frame) => self.outbox.export(*frame),
                Outgoing::Shared(frame) => (*frame).clone(),
            };
            for core in room.elsewhere.cores() {
                let letter = Letter::Publish {
                    scope: Scope::Room(Arc::clone(&room.name)),
                    frame: shared.clone(),
                    key,
                    except: None,
                    tally: tally.clone(),
                };
                self.post.send(core, letter);
            }
        }
        let delivery = self.deliver_to_room(id, frame, key, except);
        if let Some(tally) = tally {
            tally.add(delivery);
        }
        delivery
    }

    fn deliver_to_room(&mut self, id: RoomId, frame: &Outgoing<'_>, key: Option<Key>, except: Option<u32>) -> Delivery {
        let mut delivery = Delivery::default();
        if key.is_some() {
            // Delivering changes no room.
            let members = std::mem::take(&mut self.rooms[id.0 as usize].members);
            for &slot in members.iter().filter(|slot| except != Some(**slot)) {
                delivery.add(self.deliver(slot, frame, key));
            }
            self.rooms[id.0 as usize].members = members;
            return delivery;
        }
        let mut overflown = std::mem::take(&mut self.overflown);
        for &slot in &self.rooms[id.0 as usize].members {
            if except == Some(slot) {
                continue;
            }
            let queued = match frame {
                Outgoing::Arena(frame) => self.outbox.queue(slot, *frame),
                Outgoing::Shared(frame) => self.outbox.queue_shared(slot, frame),
            };
            match queued {
                Queued::Yes => delivery.queued += 1,
                Queued::Full => overflown.push(slot),
                Queued::Gone => delivery.gone += 1,
            }
        }
        self.counters.messages_out += u64::from(delivery.queued);
        for slot in overflown.drain(..) {
            match self.overflow(slot, frame, None) {
                Queued::Yes => delivery.queued += 1,
                Queued::Full => delivery.dropped += 1,
                Queued::Gone => delivery.gone += 1,
            }
        }
        self.overflown = overflown;
        delivery
    }

    // ---- letters --------------------------------------------------------------------------------------------------

    /// Does what a letter asks; `Drain` and `Stop` are the shard's business and come back.
    pub(crate) fn read(&mut self, letter: Letter) -> Option<Letter> {
        self.counters.letters += 1;
        match letter {
            Letter::Presence { room, core, members } => self.read_presence(&room, core, members),
            Letter::Change { room, core, members, number, notice } => {
                self.read_change(&room, core, members, number, notice.as_ref());
            }
            Letter::ChangesRead { core, number } => self.changes_read(core, number),
            Letter::CoreEnded { core } => self.ends.push(End::Core(core)),
            Letter::Publish { scope, frame, key, except, tally } => {
                self.read_publish(&scope, &frame, key, except, tally);
            }
            Letter::EmitTo { id, frame, key, tally } => {
                let queued = match self.resolve(id) {
                    Some(slot) => {
                        let outgoing = self.outgoing(&frame, key);
                        self.deliver(slot, &outgoing, key)
                    }
                    None => Queued::Gone,
                };
                if let Some(tally) = tally {
                    tally.add(queued.into());
                }
            }
            Letter::Run(ask) => {
                if catch_unwind(AssertUnwindSafe(|| ask.run(self))).is_err() {
                    tracing::error!("what a core was asked panicked");
                }
            }
            Letter::SendersEnded { id, number } => self.ends.push(End::Senders(id, number)),
            Letter::Drain | Letter::Stop => return Some(letter),
        }
        None
    }

    /// Does what a letter to a core asks if it is to this one, or passes it on, in line with whatever else this core has
    /// written to that one.
    pub(crate) fn forward(&mut self, core: usize, letter: Letter) {
        if core == self.core {
            let other = self.read(letter);
            debug_assert!(other.is_none(), "a letter to the shard");
        } else if let Err((error, letter)) = self.post.offer(core, letter) {
            letter.refuse(error);
        }
    }

    /// How many ends have been read of. Urgent letters tell of them, so letters that came before may not have been read.
    pub(crate) fn ends_read(&self) -> usize {
        self.ends.len()
    }

    /// The first so many of these ends take effect: all letters that came before them have been read.
    pub(crate) fn take_effect(&mut self, ends: usize) {
        let ended: Vec<End> = self.ends.drain(..ends).collect();
        for end in ended {
            match end {
                End::Senders(id, number) => self.close_without_senders(id, number),
                End::Core(core) => self.core_ended(core),
            }
        }
    }

    /// A frame that came by letter: a short one joins the others of this tick in the arena.
    fn outgoing<'f>(&mut self, frame: &'f FrameBuf, key: Option<Key>) -> Outgoing<'f> {
        let arena = if frame.len() < SHARED_BYTES_MIN { self.outbox.import(frame) } else { None };
        if let (Some(frame), Some(key)) = (arena, key) {
            self.outbox.mark(frame, key);
        }
        arena.map_or(Outgoing::Shared(frame), Outgoing::Arena)
    }

    /// Whether letters to other cores wait for room: take in nothing that would make more of them.
    #[inline]
    pub fn is_congested(&self) -> bool {
        self.post.is_congested()
    }

    /// Ends the tick's mail: retries what waited and rings the bells.
    pub(crate) fn post_mail(&mut self, ring: impl FnMut(usize)) {
        self.tell_news();
        self.confirm_changes();
        self.post.retry();
        self.post.bells(ring);
    }

    /// Checks that members and rooms agree; for `debug_assert`.
    pub fn invariants(&self) -> bool {
        for (key, room) in &self.rooms {
            for (place, &slot) in room.members.iter().enumerate() {
                let rooms = &self.members[slot as usize].rooms;
                let is_here = |(of, at): &(RoomId, Place)| of.0 == key as u32 && at.index() == Some(place);
                assert!(rooms.iter().any(is_here), "room {} slot {slot}", room.name);
            }
            for (_, slot) in &room.joining {
                let rooms = &self.members[*slot as usize].rooms;
                assert!(rooms.contains(&(RoomId(key as u32), Place::JOINING)), "room {} slot {slot}", room.name);
            }
        }
        let places = || self.members.iter().flat_map(|member| &member.rooms);
        let changed_in = places().filter(|(_, place)| place.is_changed_in()).count();
        assert_eq!(changed_in, self.rooms.iter().map(|(_, room)| room.changed_in as usize).sum::<usize>());
        let kept = (0..self.members.len() as u32).map(|slot| self.kept_by(slot)).sum::<usize>();
        assert_eq!(kept, self.kept_bytes);
        assert_eq!(places().count(), self.rooms.iter().map(|(_, room)| room.count()).sum::<usize>());
        self.outbox.invariants()
    }
}
