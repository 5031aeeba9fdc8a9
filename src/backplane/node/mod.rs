//! A node among others, as a machine without a bus: what its cores and the bus tell it goes in, with the time; what the bus and
//! the cores are to do comes out ([`Node::next_output`]).
//!
//! What it goes by:
//! * A node subscribes to a room while it has members, and says so in its next beat, in this order: whoever knows that it has
//!   members reaches them. A message to a room of which no other node has members does not get here.
//! * The bus keeps the order of one node's messages to one subject, and nothing else is asked of it: it may lose, double and
//!   delay them. Each has a number, and none is delivered twice.
//! * What others have in their rooms is told in one numbered line of beats: see `beat.rs`. A node that is silent for the
//!   timeout counts no more.
//! * A question that nobody answers in time is answered here: unreachable. Whether it was done is not known then, and no answer
//!   says that it was.
//! * A name belongs to whoever has it already; of two that had it apart, to the one that was started last.

mod incoming;
mod talk;
mod telling;

pub use incoming::Manner;
pub(super) use incoming::frame_of_outside;
pub use talk::{Cores, Counts, Identity, NotSent, Output, ReplyTo};

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;

use super::NodeInfo;
use super::asking::{Ask, Reply, write_frame};
use super::beat::{Beat, Kind};
use super::bytes::{Reader, Writer};
use super::parts::Parts;
use super::peers::{Former, Peers};
use super::seen::Seen;
use super::subject::{NAME_BYTES_MAX, Subjects};
use crate::hub::{ConnectionId, Publication, Scope};

/// What every message between nodes begins with.
const VERSION: u8 = 1;
/// How long a node that has claimed its name waits for somebody to object.
const CLAIM_NS: u64 = 500_000_000;
/// How soon a node whose name belongs to another claims it again.
const CLAIM_AGAIN_NS: u64 = 5_000_000_000;
/// How long a question waits for its answer.
pub const ASK_NS: u64 = 2_000_000_000;
/// Questions that wait at once.
const ASKS_MAX: usize = 65_536;
/// Bytes to one subject that are put into one message.
const BATCH_BYTES: usize = 64 << 10;
/// What a message has beside what was cut from another, or more.
const PART_BYTES: usize = 64;

mod kind {
    pub(super) const BATCH: u8 = 0;
    pub(super) const BEAT: u8 = 1;
    pub(super) const ASK: u8 = 2;
    pub(super) const REPLY: u8 = 3;
    pub(super) const CLAIM: u8 = 4;
    pub(super) const TAKEN: u8 = 5;
    pub(super) const TELL_ALL: u8 = 6;
    pub(super) const PART: u8 = 7;
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// The bus was never there.
    Away,
    /// Nobody may object until then.
    Claiming { until_ns: u64 },
    Joined,
    /// Another has the name.
    Apart { again_ns: u64 },
}

/// A room with members here.
#[derive(Default)]
struct Room {
    by_core: Vec<(u16, u32)>,
    /// Those that are known by their ids.
    ids: BTreeSet<ConnectionId>,
    /// Who has come (true) or gone since it was told.
    changes: BTreeMap<ConnectionId, bool>,
    subscribed: bool,
}

impl Room {
    fn members(&self) -> u32 {
        self.by_core.iter().map(|(_, members)| members).sum()
    }

    fn cores(&self) -> Cores {
        Cores::These(self.by_core.iter().map(|(core, _)| *core).collect())
    }
}

struct Pending {
    token: u64,
    node: u32,
    until_ns: u64,
}

/// Who has sent something.
#[derive(Default)]
struct Sender {
    seen: Seen,
    parts: Parts,
    heard_ns: u64,
}

/// The machine. See the module.
pub struct Node {
    identity: Identity,
    subjects: Subjects,
    state: State,
    is_connected: bool,
    /// Bytes of the longest message that the bus takes.
    payload_bytes_max: usize,
    now_ns: u64,
    rooms: HashMap<Arc<str>, Room>,
    /// Rooms that the others are to be told of.
    changed: BTreeSet<Arc<str>>,
    connections: u64,
    peers: Peers,
    senders: HashMap<u32, Sender>,
    /// Of the last beat, the last message, the last that was cut.
    beats: u64,
    messages: u64,
    cuts: u64,
    batches: Vec<(String, Writer)>,
    /// The last batch to each subject.
    places: HashMap<String, usize>,
    asks: BTreeMap<u64, Pending>,
    out: VecDeque<Output>,
    tell_all: bool,
    /// All are to tell everything, too.
    asks_all: bool,
    next_beat_ns: u64,
    next_tell_ns: u64,
    next_all_ns: u64,
    counts: Counts,
}

impl Node {
    /// A node that the bus has not been heard of.
    pub fn new(identity: Identity, now_ns: u64) -> Node {
        Node {
            subjects: Subjects::new(&identity.prefix),
            identity,
            state: State::Away,
            is_connected: false,
            payload_bytes_max: 1 << 20,
            now_ns,
            rooms: HashMap::new(),
            changed: BTreeSet::new(),
            connections: 0,
            peers: Peers::default(),
            senders: HashMap::new(),
            beats: 0,
            messages: 0,
            cuts: 0,
            batches: Vec::new(),
            places: HashMap::new(),
            asks: BTreeMap::new(),
            out: VecDeque::new(),
            tell_all: false,
            asks_all: false,
            next_beat_ns: 0,
            next_tell_ns: 0,
            next_all_ns: 0,
            counts: Counts::default(),
        }
    }

    /// What is to be done next.
    pub fn next_output(&mut self) -> Option<Output> {
        self.out.pop_front()
    }

    /// What happened so far.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// Whether it is one of the nodes: its name is its own, and the bus is there.
    pub fn is_joined(&self) -> bool {
        self.state == State::Joined && self.is_connected
    }

    /// The other nodes.
    pub fn others(&self) -> impl Iterator<Item = NodeInfo> {
        self.peers.list(self.now_ns)
    }

    /// Members of a room on other nodes.
    pub fn members_elsewhere(&self, room: &str) -> u64 {
        self.peers.members(room)
    }

    /// Rooms that other nodes have members of.
    pub fn rooms_elsewhere(&self) -> usize {
        self.peers.rooms()
    }

    fn period_ns(&self) -> u64 {
        self.identity.timeout_ns / 5
    }

    fn at(&mut self, now_ns: u64) {
        let gap_ns = now_ns.saturating_sub(self.now_ns);
        // The process stood still, and what others have said meanwhile may not have been read.
        if gap_ns > self.identity.timeout_ns / 2 {
            self.peers.forgive(gap_ns);
        }
        self.now_ns = self.now_ns.max(now_ns);
    }

    // ---- the bus comes and goes -----------------------------------------------------------------------------------

    /// The bus is there, again or for the first time; it takes messages of so many bytes.
    pub fn connected(&mut self, payload_bytes_max: usize, now_ns: u64) {
        self.at(now_ns);
        self.is_connected = true;
        self.payload_bytes_max = payload_bytes_max.max(1024);
        let own = self.subjects.node(self.identity.number, "*");
        self.out.push_back(Output::Subscribe(own));
        self.out.push_back(Output::Subscribe(self.subjects.claim(&self.identity.name)));
        self.claim();
        match self.state {
            State::Joined => self.enter(),
            State::Away | State::Claiming { .. } | State::Apart { .. } => {
                self.state = State::Claiming { until_ns: self.now_ns + CLAIM_NS };
            }
        }
    }

    /// The bus is not there.
    pub fn disconnected(&mut self, now_ns: u64) {
        self.at(now_ns);
        self.is_connected = false;
        if let State::Claiming { .. } = self.state {
            self.state = State::Away;
        }
        self.batches.clear();
        self.places.clear();
        for (_, pending) in std::mem::take(&mut self.asks) {
            self.give_up(&pending);
        }
    }

    fn claim(&mut self) {
        let mut writer = self.begin(kind::CLAIM);
        writer.number(self.identity.started_ns);
        let subject = self.subjects.claim(&self.identity.name);
        self.send(subject, writer);
    }

    /// Listens to what concerns it, says what it has, and has the others do likewise.
    fn enter(&mut self) {
        for subject in [self.subjects.beat(), self.subjects.all(), self.subjects.routes(), self.subjects.outside()] {
            self.out.push_back(Output::Subscribe(subject));
        }
        let mut rooms: Vec<Arc<str>> = self.rooms.keys().cloned().collect();
        rooms.sort_unstable();
        for name in rooms {
            let room = self.rooms.get_mut(&name).expect("just seen");
            if room.members() > 0 {
                room.subscribed = true;
                self.out.push_back(Output::Subscribe(self.subjects.room(&name)));
            }
        }
        self.tell_all = true;
        self.asks_all = true;
        self.next_all_ns = 0;
        self.tell();
    }

    /// The node ends.
    pub fn end(&mut self, now_ns: u64) {
        self.at(now_ns);
        self.flush(now_ns);
        if self.is_joined() {
            self.beat(Kind::End, Vec::new());
        }
        self.state = State::Apart { again_ns: u64::MAX };
    }

    // ---- what the cores say ---------------------------------------------------------------------------------------

    /// So many members of a room has a core.
    pub fn members(&mut self, name: &Arc<str>, core: usize, members: u32, now_ns: u64) {
        self.at(now_ns);
        if name.len() > NAME_BYTES_MAX {
            return;
        }
        let (core, is_joined) = (core as u16, self.state == State::Joined);
        let room = self.rooms.entry(Arc::clone(name)).or_default();
        let place = room.by_core.iter().position(|(of, _)| *of == core);
        match (place, members) {
            (Some(place), 0) => drop(room.by_core.swap_remove(place)),
            (Some(place), _) => room.by_core[place].1 = members,
            (None, 0) => {}
            (None, _) => room.by_core.push((core, members)),
        }
        if members > 0 && !room.subscribed && is_joined {
            room.subscribed = true;
            self.out.push_back(Output::Subscribe(self.subjects.room(name)));
        }
        self.changed.insert(Arc::clone(name));
    }

    /// A connection has come to a room in a way that is told to its members, or has left it.
    pub fn member(&mut self, name: &Arc<str>, id: ConnectionId, is_there: bool) {
        if name.len() > NAME_BYTES_MAX {
            return;
        }
        let room = self.rooms.entry(Arc::clone(name)).or_default();
        let has_changed = if is_there { room.ids.insert(id) } else { room.ids.remove(&id) };
        if has_changed {
            room.changes.insert(id, is_there);
        }
        self.changed.insert(Arc::clone(name));
    }

    /// Rooms that have members on this node, or had some a moment ago.
    pub fn rooms_here(&self) -> usize {
        self.rooms.len()
    }

    /// Members of a room on this node.
    pub fn members_here(&self, room: &str) -> u32 {
        self.rooms.get(room).map_or(0, Room::members)
    }

    /// A core has ended, and its connections with it.
    pub fn core_ended(&mut self, core: usize, now_ns: u64) {
        let names: Vec<Arc<str>> = self.rooms.keys().cloned().collect();
        for name in names {
            self.members(&name, core, 0, now_ns);
            let room = self.rooms.get_mut(&name).expect("just seen");
            let gone: Vec<ConnectionId> = room.ids.iter().copied().filter(|id| id.core() == core).collect();
            for id in gone {
                room.ids.remove(&id);
                room.changes.insert(id, false);
            }
        }
    }

    /// So many connections has this node.
    pub fn connections(&mut self, connections: u64) {
        if self.connections != connections {
            self.connections = connections;
            self.next_beat_ns = self.next_beat_ns.min(self.next_tell_ns);
        }
    }

    /// A message to connections of other nodes; what goes to one subject is sent together, by [`Node::flush`].
    ///
    /// # Errors
    /// If the bus is away.
    pub fn publish(&mut self, scope: &Scope, publication: &Publication) -> Result<(), NotSent> {
        if !self.is_joined() {
            self.counts.away += 1;
            return Err(NotSent);
        }
        let subject = match scope {
            // Nobody is there any more, and whoever wrote this will hear of it.
            Scope::Room(room) if self.peers.members(room) == 0 => return Ok(()),
            _ if self.peers.len() == 0 => return Ok(()),
            Scope::Room(room) => self.subjects.room(room),
            Scope::Everyone => self.subjects.all(),
            Scope::Route(route) => self.subjects.route(&route.path),
            Scope::Path(path) | Scope::RouteElsewhere { path, .. } => self.subjects.route(path),
        };
        self.messages += 1;
        self.counts.sent += 1;
        let number = self.messages;
        let place = match self.places.get(&subject) {
            Some(&place) if self.batches[place].1.0.len() < BATCH_BYTES => place,
            _ => {
                let place = self.batches.len();
                self.places.insert(subject.clone(), place);
                let batch = (subject, self.begin(kind::BATCH));
                self.batches.push(batch);
                place
            }
        };
        let writer = &mut self.batches[place].1;
        writer.number(number).u8(u8::from(publication.except.is_some()));
        if let Some(id) = publication.except {
            writer.id(id);
        }
        let made_at = match scope {
            Scope::Room(_) | Scope::Everyone => None,
            Scope::Route(route) => Some((&route.path, route.made_at)),
            Scope::Path(path) | Scope::RouteElsewhere { path, .. } => {
                writer.u8(0).text(path);
                None
            }
        };
        if let Some((path, made_at)) = made_at {
            writer.u8(if made_at.is_some() { 2 } else { 1 }).text(path);
            if let Some(place) = made_at {
                writer.text(place.file()).number(u64::from(place.line())).number(u64::from(place.column()));
            }
        }
        write_frame(writer, &publication.frame, publication.key);
        Ok(())
    }

    /// Asks another node; [`Output::Answer`] with this token is what comes of it.
    pub fn ask(&mut self, node: u32, ask: &Ask, token: u64, now_ns: u64) {
        self.at(now_ns);
        let is_there = self.peers.get(node).is_some();
        if !is_there && self.peers.former(node) != Some(Former::Silent) && self.is_joined() {
            return self.out.push_back(Output::Answer(token, Some(ask.gone())));
        }
        if !is_there || !self.is_joined() || self.asks.len() >= ASKS_MAX {
            self.counts.unreachable += 1;
            return self.out.push_back(Output::Answer(token, None));
        }
        self.messages += 1;
        let number = self.messages;
        let mut writer = self.begin(kind::ASK);
        writer.number(number);
        ask.write(&mut writer);
        self.asks.insert(number, Pending { token, node, until_ns: self.now_ns + ASK_NS });
        let subject = self.subjects.node(node, "ask");
        self.send(subject, writer);
    }

    /// What [`Output::Ask`] has asked is answered.
    pub fn answered(&mut self, to: ReplyTo, reply: &Reply, now_ns: u64) {
        self.at(now_ns);
        match to {
            ReplyTo::Node(node, number) => {
                let mut writer = self.begin(kind::REPLY);
                writer.number(number);
                reply.write(&mut writer);
                let subject = self.subjects.node(node, "reply");
                self.send(subject, writer);
            }
            ReplyTo::Subject(subject) => {
                let sent = matches!(reply, Reply::Delivery(delivery) if delivery.queued > 0);
                let payload = if sent { &br#"{"sent":true}"#[..] } else { br#"{"sent":false}"# };
                self.out.push_back(Output::Publish(subject, Bytes::from_static(payload)));
            }
            ReplyTo::Nobody => {}
        }
    }

    // ---- who is there ---------------------------------------------------------------------------------------------

    fn heard(&mut self, node: u32, beat: Beat) {
        if beat.name == self.identity.name {
            // Two of this name, and each of them took it while it could not hear the other. It stays with the later one.
            match (self.identity.started_ns, self.identity.number) > (beat.started_ns, node) {
                true => self.contest(node, beat.started_ns),
                false => self.part(),
            }
            return;
        }
        self.tell_all |= beat.asks;
        if self.peers.heard(node, beat, self.now_ns) {
            let writer = self.begin(kind::TELL_ALL);
            let subject = self.subjects.node(node, "tell");
            self.send(subject, writer);
        }
    }

    /// Another node wants this one's name.
    fn contest(&mut self, node: u32, started_ns: u64) {
        let mine = (self.identity.started_ns, self.identity.number);
        match self.state {
            State::Joined => {}
            // Of two that claim it at once it is the earlier one's, which may not have heard of this claim.
            State::Claiming { .. } if mine > (started_ns, node) => return self.claim(),
            State::Claiming { .. } => {}
            State::Away | State::Apart { .. } => return,
        }
        let writer = self.begin(kind::TAKEN);
        let subject = self.subjects.node(node, "taken");
        self.send(subject, writer);
    }

    /// The name is another node's: what is left is this machine.
    fn part(&mut self) {
        let mut subjects =
            vec![self.subjects.beat(), self.subjects.all(), self.subjects.routes(), self.subjects.outside()];
        for (name, room) in &mut self.rooms {
            if std::mem::take(&mut room.subscribed) {
                subjects.push(self.subjects.room(name));
                self.out.push_back(Output::Left(Arc::clone(name)));
            }
        }
        self.out.extend(subjects.into_iter().map(Output::Unsubscribe));
        let others: Vec<u32> = self.peers.numbers().collect();
        for node in others {
            self.peers.remove(node, Former::Silent, self.now_ns);
        }
        self.state = State::Apart { again_ns: self.now_ns + CLAIM_AGAIN_NS };
        self.out.push_back(Output::Refused);
        self.pass_on();
    }

    // ---- time -----------------------------------------------------------------------------------------------------

    /// When [`Node::tick`] is to be called at the latest.
    pub fn due_ns(&self) -> u64 {
        let state = match self.state {
            State::Claiming { until_ns } => until_ns,
            State::Apart { again_ns } => again_ns,
            State::Joined if self.is_connected => {
                let all = if self.tell_all { self.next_all_ns } else { u64::MAX };
                let changes = if self.changed.is_empty() { u64::MAX } else { self.next_tell_ns };
                self.next_beat_ns.min(all).min(changes)
            }
            State::Joined | State::Away => self.next_beat_ns,
        };
        let ask = self.asks.first_key_value().map_or(u64::MAX, |(_, first)| first.until_ns);
        state.min(ask)
    }

    /// Time has passed.
    pub fn tick(&mut self, now_ns: u64) {
        self.at(now_ns);
        match self.state {
            State::Claiming { until_ns } if until_ns <= self.now_ns => {
                self.state = State::Joined;
                self.out.push_back(Output::Joined);
                self.enter();
            }
            State::Apart { again_ns } if again_ns <= self.now_ns && self.is_connected => {
                self.claim();
                self.state = State::Claiming { until_ns: self.now_ns + CLAIM_NS };
            }
            State::Apart { again_ns } if again_ns <= self.now_ns => {
                self.state = State::Apart { again_ns: self.now_ns + CLAIM_AGAIN_NS };
            }
            _ => {}
        }
        while let Some(first) = self.asks.first_entry().filter(|first| first.get().until_ns <= self.now_ns) {
            let pending = first.remove();
            self.give_up(&pending);
        }
        for node in self.peers.silent(self.identity.timeout_ns, self.now_ns) {
            self.lose(node);
        }
        self.flush(now_ns);
        if self.next_beat_ns <= self.now_ns {
            self.next_beat_ns = self.now_ns + self.period_ns();
            if self.is_joined() {
                self.beat(Kind::Changes, Vec::new());
            }
        }
    }

    fn lose(&mut self, node: u32) {
        self.peers.remove(node, Former::Silent, self.now_ns);
        let lost: Vec<u64> =
            self.asks.iter().filter(|(_, pending)| pending.node == node).map(|(number, _)| *number).collect();
        for number in lost {
            if let Some(pending) = self.asks.remove(&number) {
                self.give_up(&pending);
            }
        }
    }

    fn give_up(&mut self, pending: &Pending) {
        self.counts.unreachable += 1;
        self.out.push_back(Output::Answer(pending.token, None));
    }

    /// Sends what was gathered, tells the others what has changed if that is due, and the cores what is known of the others.
    /// To be called after whatever has come in together.
    pub fn flush(&mut self, now_ns: u64) {
        self.at(now_ns);
        self.places.clear();
        for (subject, writer) in std::mem::take(&mut self.batches) {
            self.send(subject, writer);
        }
        self.tell();
        self.pass_on();
    }

    // ---- messages -------------------------------------------------------------------------------------------------

    fn begin(&self, kind: u8) -> Writer {
        let mut writer = Writer::default();
        writer.u8(VERSION).number(u64::from(self.identity.number)).u8(kind);
        writer
    }

    /// In as many parts as it takes.
    fn send(&mut self, subject: String, writer: Writer) {
        let payload = writer.into_bytes();
        if payload.len() <= self.payload_bytes_max {
            return self.out.push_back(Output::Publish(subject, payload));
        }
        let mut reader = Reader(payload);
        let head = (reader.u8(), reader.u32());
        debug_assert_eq!(head, (Some(VERSION), Some(self.identity.number)));
        let whole = reader.0;
        self.cuts += 1;
        let part_bytes = self.payload_bytes_max - PART_BYTES;
        let parts = whole.len().div_ceil(part_bytes);
        for index in 0..parts {
            let part = whole.slice(index * part_bytes..whole.len().min((index + 1) * part_bytes));
            let mut writer = self.begin(kind::PART);
            writer.number(self.cuts).number(index as u64).number(parts as u64);
            writer.0.extend_from_slice(&part);
            self.out.push_back(Output::Publish(subject.clone(), writer.into_bytes()));
        }
    }
}
