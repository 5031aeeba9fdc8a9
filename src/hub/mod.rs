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
//! Knows of this crate: `config`, `mail`, `message`, `metrics`, `outbox`, `proto`, `tables`.

mod abroad;
#[cfg(test)]
mod abroad_tests;
mod changes;
#[cfg(test)]
mod changes_tests;
mod deflate;
mod delivery;
mod history;
#[cfg(test)]
mod history_tests;
mod id;
mod info;
mod kept;
mod letter;
mod limits;
#[cfg(test)]
mod mailed;
mod measure;
mod member;
mod members;
#[cfg(test)]
mod members_tests;
mod numbered;
mod peer;
mod publication;
mod publish;
mod ready;
mod record;
mod recovered;
mod room;
mod rooms;
mod routes;
mod shared;
mod slow;
#[cfg(test)]
mod slow_tests;
mod streams;
#[cfg(test)]
mod streams_tests;
#[cfg(test)]
mod tests;
mod traffic;

use std::collections::{BTreeMap, HashMap};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use crate::config::SlowConsumer;
use crate::mail::Post;
use crate::message::RawJson;
use crate::metrics::Counters;
use crate::outbox::{Dropped, Outbox, Outgoing, Queued};
use crate::proto::Spares;
use crate::tables::room_for;
use abroad::Abroad;
use changes::Changes;
use history::{Archive, Seeker};
use member::Member;
use room::{Place, Room};
use routes::RouteNames;
use shared::Sharing;
use slab::Slab;
use streams::Streams;

pub use changes::{Done, Known};
pub use deflate::DeflateSettings;
pub use delivery::{Delivery, Tally};
pub(crate) use history::{Histories, HistoryBounds, owners};
#[cfg(feature = "nats")]
pub(crate) use id::NODES_MAX;
pub(crate) use id::SLOTS_MAX;
pub use id::{ConnectionId, IdKey, ParseIdError};
pub use info::{ConnectionInfo, ConnectionPage};
pub use letter::{Answer, Ask, DataAnswer, Local, Order, Scope, Shutdown};
pub use limits::RouteLimits;
pub use member::Doom;
pub(crate) use numbered::SHARED_NAME_BYTES_MAX;
pub use numbered::{Found, FoundMessage, Mode, Numbered};
pub(crate) use peer::CompactPeer;
pub use publication::Publication;
pub(crate) use publish::Sending;
pub(crate) use ready::READY_BYTES_MAX;
pub use recovered::{ParsePositionError, Position, Recovered, Since};
pub use room::{JoinError, RoomId, RoomInfo};
pub use routes::RouteName;
pub(crate) use traffic::{Tallied, Traffic};

/// What is written to a core.
pub type Letter = letter::Letter<CoreHub>;

/// Rooms that one connection may be in, unless a setting or its route says otherwise: a peer decides how many it joins, so
/// there must be a bound.
const ROOMS_MAX_DEFAULT: u32 = 256;
/// Bytes of a room's name, unless the connection's route says otherwise.
pub const ROOM_NAME_BYTES_MAX: usize = 256;

/// What has ended elsewhere.
enum End {
    /// A connection's senders outside, by their number.
    Senders(ConnectionId, u32),
    /// A core, and its connections with it.
    Core(usize),
}

/// Connections and rooms of one core. See the module.
pub struct CoreHub {
    /// The outbound queues.
    pub outbox: Outbox,
    /// Buffers for assembled messages.
    pub spares: Spares,
    /// What happened so far, but for what was decompressed, which [`CoreHub::metrics`] adds.
    pub counters: Counters,
    /// The same of each connection, where somebody wants it.
    pub(crate) traffic: Traffic,
    ids: IdKey,
    core: usize,
    abroad: Abroad,
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
    deflate: DeflateSettings,
    streams: Streams,
    archive: Archive,
    sharing: Sharing,
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
    /// Who waits elsewhere for connections, by slot.
    waiters: HashMap<u32, Vec<ready::WhoWaits>>,
    /// The core's clock, as of this tick.
    pub(crate) now_ns: u64,
    /// What the thread that asks has had of processors.
    cpu_ns: fn() -> u64,
}

impl CoreHub {
    /// A core without connections.
    #[doc(hidden)]
    pub fn new(ids: IdKey, post: Post<Letter>, outbox: Outbox, spares: Spares, slow_consumer: SlowConsumer) -> CoreHub {
        CoreHub {
            outbox,
            spares,
            counters: Counters::default(),
            traffic: Traffic::default(),
            ids,
            core: post.core(),
            abroad: Abroad::default(),
            members: Vec::new(),
            rooms: Slab::new(),
            names: HashMap::new(),
            news: Vec::new(),
            changes: Changes::new(post.core(), post.cores()),
            post,
            dooms: Vec::new(),
            slow_consumer,
            deflate: DeflateSettings::default(),
            streams: Streams::new(DeflateSettings::default().level),
            archive: Archive::default(),
            sharing: Sharing::default(),
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
            waiters: HashMap::new(),
            now_ns: 0,
            cpu_ns: || 0,
        }
    }

    /// A hub without connections or other cores, to stand in for a core's own while that is lent.
    pub(crate) fn stand_in(core: usize) -> CoreHub {
        let (ids, outbox, spares) = (IdKey::default(), Outbox::new(0), Spares::new(0));
        let mut hub = CoreHub::new(ids, Post::nowhere(), outbox, spares, SlowConsumer::Close);
        hub.core = core;
        hub
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
        self.members.reserve(room_for::<Member>(slots));
        self.outbox.reserve(slots);
    }

    // ---- letters --------------------------------------------------------------------------------------------------

    /// Does what a letter asks; the end of the core is the shard's business, and comes back.
    pub(crate) fn read(&mut self, letter: Letter) -> Option<Shutdown> {
        self.counters.letters += 1;
        match letter {
            Letter::Order(order) => self.obey(order),
            Letter::Local(Local::Run(ask)) => {
                if catch_unwind(AssertUnwindSafe(|| ask.run(self))).is_err() {
                    tracing::error!("what a core was asked panicked");
                }
            }
            Letter::Local(Local::End(shutdown)) => return Some(shutdown),
        }
        None
    }

    fn obey(&mut self, order: Order) {
        match order {
            Order::Presence { room, core, members } => self.read_presence(&room, core, members),
            Order::Change { room, core, members, number, notice } => {
                self.read_change(&room, core, members, number, notice.as_ref());
            }
            Order::ChangesRead { core, number } => self.changes_read(core, number),
            Order::CoreEnded { core } => self.ends.push(End::Core(core)),
            Order::Publish { scope, publication } => self.read_publish(&scope, publication),
            Order::Record { room, publication, goes_abroad, from } => {
                self.read_record(&room, publication, goes_abroad, from);
            }
            Order::RecordsRead { owner, count } => self.records_read(owner, count),
            Order::Recover { room, since, core, number } => self.read_recover(&room, since, core, number),
            Order::Recovered { number, recovered } => self.read_recovered(number, recovered),
            Order::EndHistory { room } => self.end_history(&room),
            Order::Numbered { room, numbered } => self.read_numbered(&room, numbered),
            Order::Unnumbered { room, publication, goes_abroad } => {
                self.give_unnumbered(&room, publication, goes_abroad);
            }
            Order::Sought { token, found } => self.read_sought(token, found.map(|found| *found)),
            Order::History { room, since, answer } => self.seek(&room, since, Seeker::Outside(answer)),
            Order::HistoryMode { mode } => self.set_mode(mode),
            Order::Release { room } => self.read_release(&room),
            Order::EmitTo { id, frame, key, tally } => {
                self.deliver_to_id(id, &mut Outgoing::of_frame(frame).keyed(key), tally);
            }
            Order::Close { id, code, reason, answer } => {
                let slot = self.find(id);
                if let Some(slot) = slot {
                    self.close(slot, code, reason);
                }
                // Nobody may be waiting any more, here as below.
                let _ = answer.send(Ok(slot.is_some()));
            }
            Order::SetData { id, data, answer } => {
                let slot = self.find(id);
                if let Some(slot) = slot {
                    self.set_data(slot, data);
                }
                let _ = answer.send(Ok(slot.is_some()));
            }
            Order::Ping { id, payload, answer } => {
                let queued = self.resolve(id).map_or(Queued::Gone, |slot| self.outbox.ping(slot, &payload));
                let _ = answer.send(Ok(queued.into()));
            }
            Order::Data { id, answer } => answer.send(Ok(self.find(id).map(|slot| self.data(slot)))),
            Order::Info { id, answer } => drop(answer.send(Ok(self.find(id).map(|slot| self.info(slot))))),
            Order::Others { nodes, connections } => self.abroad.others = (nodes, connections),
            Order::Lost { room, ids, back } => self.tell_lost(&room, &ids, back),
            // The bridge's alone.
            Order::Member { .. } | Order::Number { .. } | Order::Seek { .. } | Order::Released { .. } => {}
            Order::Join { id, room, answer } => self.join_for(id, &room, answer),
            Order::Leave { id, room, answer } => self.leave_for(id, &room, answer),
            Order::CloseMembers { room, code, reason, tally } => tally.add(self.close_members(&room, code, &reason)),
            Order::SendersEnded { id, number } => self.ends.push(End::Senders(id, number)),
        }
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

    /// Whether letters to other cores wait for room: take in nothing that would make more of them.
    #[inline]
    pub fn is_congested(&self) -> bool {
        self.post.is_congested() || self.is_behind_in_records()
    }

    /// Whether cores whose mailboxes were full have told of room in them.
    pub(crate) fn is_told_of_room(&self) -> bool {
        self.post.is_told_of_room()
    }

    /// Wakes a core that waits for room in this one's mailbox, if it sleeps.
    pub(crate) fn wake(&self, core: usize, ring: impl FnOnce(usize)) {
        self.post.wake(core, ring);
    }

    /// Ends the tick's mail: retries what waited and rings the bells.
    pub(crate) fn post_mail(&mut self, ring: impl FnMut(usize)) {
        self.tell_news();
        self.confirm_changes();
        self.confirm_records();
        self.look_at_histories();
        self.post.retry();
        self.post.bells(ring);
    }

    /// Checks that members and rooms agree; for `debug_assert`.
    pub fn invariants(&self) -> bool {
        assert_eq!(self.members.iter().filter(|member| member.open).count(), self.routes.count());
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
        self.history_invariants();
        assert_eq!(places().count(), self.rooms.iter().map(|(_, room)| room.count()).sum::<usize>());
        self.outbox.invariants()
    }
}
