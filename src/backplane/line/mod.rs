//! The one line of all rooms' messages, where JetStream keeps it: a machine without a bus, a clock or a core, as
//! [`node`](super::node) is.
//!
//! **The line.** One stream for each prefix has the messages of all rooms with a history (`api.rs`). Its numbers are the offsets, so they
//! rise in a room and are not one by one; the epoch is made of when and by whom it was made, so a stream that was made anew is
//! another history. The server publishes each message again when it is stored, with its number and that of the room's
//! message before it. A node listens to that for the rooms that it has members of (`follow.rs`): what is missing is seen by the
//! numbers, is fetched, and comes before what follows it. So all nodes' members get a room's messages in one order, the sender's
//! own, too; that a message came back is also how its sender learns that it was stored.
//!
//! **Who comes back** is answered from what its owner has in memory, or from the stream (`fetch.rs`): complete if the message
//! that it names is still there as one of the room's, for the oldest go first; or if nothing behind its position can have gone,
//! because the stream still has what is older and the room has fewer messages than are kept of one.
//!
//! **When the stream is away** (`Mode::Apart`), be it that NATS is, or that it does not answer in time: what was sent and did not come
//! back goes to the members here without a number, and so does whatever is published from then on. Should some of it turn out
//! to be stored, it is known by its number and is not delivered again. When the stream is back each such room gets a mark in it: nobody
//! resumes across one and is told that it is complete. What others have published meanwhile is fetched then.
//! Whether the stream is there, and the same, is looked at each second.
//!
//! **Bounds.** Messages on their way have a bound by number and bytes, past which they are refused and told so; so have questions,
//! readers at once and what waits for a gap to be filled. Nothing waits longer than [`REQUEST_NS`] for the stream.

mod api;
mod entry;
mod fetch;
mod follow;
mod talk;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;

use api::{Limits, Stream, Told, read_ack, read_consumer, read_delivered, read_stream};
use entry::{ENTRY_BYTES, Entry};
use fetch::{Ask, Fetch, Fetching};
use follow::Follow;
pub(super) use talk::{Arrived, LineCounts, LineSettings, Out, Word};

use super::subject::{Subjects, token};
use crate::config::NatsHistory;
use crate::hub::{Histories, Mode, Publication, SHARED_NAME_BYTES_MAX};

/// How long a request waits for its answer, and whoever asks for a history.
const REQUEST_NS: u64 = 2_000_000_000;
/// How often it is looked whether the stream is there.
const LOOK_NS: u64 = 1_000_000_000;
/// Messages on their way, and their bytes.
const PENDING_MAX: usize = 8_192;
const PENDING_BYTES_MAX: usize = 16 << 20;
/// Messages that were given up and may have been stored.
const ORPHANS_MAX: usize = 65_536;

/// One on its way.
struct Pending {
    room: Arc<str>,
    /// `None`: a mark.
    publication: Option<Publication>,
    bytes: usize,
    at_ns: u64,
    stored: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// NATS is away, or no room has a history.
    Away,
    /// The stream is being looked for, or made.
    Looking,
    Ready,
    /// It cannot be used for now.
    Waiting { again_ns: u64 },
}

/// What was asked.
enum Request {
    Info,
    Make,
    Change,
    Remove,
    /// Whether it is still there.
    Look,
    /// The last message of a room.
    Last(Arc<str>),
    Fetch(u64),
}

struct Waiting {
    request: Request,
    until_ns: u64,
}

/// The machine. See the module.
pub(super) struct Line {
    settings: LineSettings,
    subjects: Subjects,
    name: String,
    histories: Arc<Histories>,
    limits: Option<Limits>,
    state: State,
    mode: Mode,
    stream: Option<Stream>,
    /// The highest number that is known of the stream, and what it was at the last look.
    last_seq: u64,
    looked_seq: u64,
    payload_bytes_max: usize,
    requests: BTreeMap<u64, Waiting>,
    tokens: u64,
    follows: HashMap<Arc<str>, Follow>,
    asks: BTreeMap<u64, Ask>,
    fetches: BTreeMap<u64, Fetch>,
    /// Those that wait for others to be done.
    queue: VecDeque<u64>,
    running: usize,
    pending: BTreeMap<u64, Pending>,
    pending_bytes: usize,
    orphans: BTreeSet<u64>,
    to_mark: BTreeSet<Arc<str>>,
    numbers: u64,
    next_look_ns: u64,
    said: Option<Word>,
    out: VecDeque<Out>,
    counts: LineCounts,
}

impl Line {
    /// These rooms have a history.
    pub(super) fn new(settings: LineSettings, histories: Arc<Histories>) -> Line {
        let limits = histories.bounds().map(|bounds| Limits::new(bounds, settings.bytes_max));
        Line {
            subjects: Subjects::new(&settings.prefix),
            name: api::stream_name(&settings.prefix),
            settings,
            histories,
            limits,
            state: State::Away,
            mode: Mode::Local,
            stream: None,
            last_seq: 0,
            looked_seq: 0,
            payload_bytes_max: 1 << 20,
            requests: BTreeMap::new(),
            tokens: 0,
            follows: HashMap::new(),
            asks: BTreeMap::new(),
            fetches: BTreeMap::new(),
            queue: VecDeque::new(),
            running: 0,
            pending: BTreeMap::new(),
            pending_bytes: 0,
            orphans: BTreeSet::new(),
            to_mark: BTreeSet::new(),
            numbers: 0,
            next_look_ns: 0,
            said: None,
            out: VecDeque::new(),
            counts: LineCounts::default(),
        }
    }

    pub(super) fn next_output(&mut self) -> Option<Out> {
        self.out.pop_front()
    }

    pub(super) fn counts(&self) -> LineCounts {
        self.counts
    }

    /// Whether this room's messages are put in order by the stream, or were and will be.
    pub(super) fn has(&self, room: &str) -> bool {
        self.mode != Mode::Local && self.keeps(room)
    }

    fn keeps(&self, room: &str) -> bool {
        room.len() <= SHARED_NAME_BYTES_MAX && self.histories.of(room).is_some()
    }

    fn is_wanted(&self) -> bool {
        self.settings.storage != NatsHistory::Off && self.limits.is_some()
    }

    fn is_ready(&self) -> bool {
        self.state == State::Ready
    }

    // ---- the bus and the stream come and go -----------------------------------------------------------------------

    /// The bus is there; it takes messages of so many bytes.
    pub(super) fn connected(&mut self, payload_bytes_max: usize, now_ns: u64) {
        self.payload_bytes_max = payload_bytes_max;
        if self.is_wanted() {
            self.look_for_it(now_ns);
        }
    }

    pub(super) fn disconnected(&mut self) {
        self.lose();
        self.state = State::Away;
    }

    fn look_for_it(&mut self, now_ns: u64) {
        self.state = State::Looking;
        let subject = format!("$JS.API.STREAM.INFO.{}", self.name);
        self.request(subject, String::new(), Request::Info, now_ns);
    }

    /// The stream cannot be reached: what is on its way is given up.
    fn lose(&mut self) {
        self.requests.clear();
        self.fetches.clear();
        self.queue.clear();
        self.running = 0;
        for follow in self.follows.values_mut() {
            follow.lose();
        }
        for ask in std::mem::take(&mut self.asks).into_values() {
            self.counts.unanswered += 1;
            self.out.push_back(Out::Sought { core: ask.core, token: ask.token, found: None });
        }
        if let Mode::Shared(_) = self.mode {
            self.set_mode(Mode::Apart);
            self.say(Word::Away);
        }
        self.pending_bytes = 0;
        for (number, Pending { room, publication, .. }) in std::mem::take(&mut self.pending) {
            self.orphans.insert(number);
            if self.orphans.len() > ORPHANS_MAX {
                self.orphans.pop_first();
            }
            self.to_mark.insert(Arc::clone(&room));
            if let Some(publication) = publication {
                self.counts.apart += 1;
                self.out.push_back(Out::Unnumbered { room, publication, goes_abroad: false });
            }
        }
    }

    fn fail(&mut self, word: Word, now_ns: u64) {
        self.lose();
        self.say(word);
        self.state = State::Waiting { again_ns: now_ns + LOOK_NS };
    }

    fn set_mode(&mut self, mode: Mode) {
        if self.mode != mode {
            self.mode = mode;
            self.out.push_back(Out::Mode(mode));
        }
    }

    /// Not the same again and again.
    fn say(&mut self, word: Word) {
        if self.said.as_ref() != Some(&word) {
            self.said = Some(word.clone());
            self.out.push_back(Out::Say(word));
        }
    }

    fn told_of_stream(&mut self, request: &Request, told: Told, now_ns: u64) {
        match (request, told) {
            (_, Told::Off) if self.mode == Mode::Local => self.fail(Word::Off, now_ns),
            (_, Told::Off) => self.fail(Word::Failed("JetStream is off".into()), now_ns),
            (Request::Change, Told::Failed(why)) => self.say(Word::Failed(why)),
            (Request::Make, Told::NameInUse) => self.look_for_it(now_ns),
            (Request::Make, Told::Stream(stream)) => {
                // It is older than any message: as long as it is there, nothing has gone but for a room's number of messages.
                let subject = self.subjects.history_begins();
                self.out.push_back(Out::Publish { subject, reply: None, payload: Bytes::new(), number: None });
                self.adopt(*stream, now_ns);
            }
            (Request::Info | Request::Look, Told::Stream(stream)) => self.adopt(*stream, now_ns),
            (Request::Info | Request::Look, Told::NotFound) => {
                if self.is_ready() {
                    self.lose();
                }
                self.make(now_ns);
            }
            (Request::Remove, _) => self.make(now_ns),
            (_, Told::Failed(why)) => self.fail(Word::Failed(why), now_ns),
            _ => {}
        }
    }

    fn make(&mut self, now_ns: u64) {
        let (storage, Some(limits)) = (self.settings.storage, self.limits) else { return };
        self.state = State::Looking;
        // Each has a nonce of its own.
        self.tokens += 1;
        let nonce = format!("{}{:x}", self.settings.nonce, self.tokens);
        let config = api::config(&self.name, &self.subjects, &nonce, storage, limits);
        self.request(format!("$JS.API.STREAM.CREATE.{}", self.name), config, Request::Make, now_ns);
    }

    fn remove(&mut self, now_ns: u64) {
        self.state = State::Looking;
        self.request(format!("$JS.API.STREAM.DELETE.{}", self.name), String::new(), Request::Remove, now_ns);
    }

    /// The stream is there.
    fn adopt(&mut self, stream: Stream, now_ns: u64) {
        let before = self.stream.as_ref().map(|stream| stream.epoch);
        if before == Some(stream.epoch) && stream.last_seq < self.looked_seq {
            // It has lost what clients have got already, and would give others their numbers.
            self.lose();
            return self.remove(now_ns);
        }
        if before.is_none() && self.limits.is_some_and(|limits| limits.per_room_max > stream.limits.per_room_max) {
            // With more messages of a room than were kept it could not be told any more that some have gone.
            return self.remove(now_ns);
        }
        self.next_look_ns = now_ns + LOOK_NS;
        if self.is_ready() && before == Some(stream.epoch) {
            self.looked_seq = stream.last_seq;
            self.last_seq = self.last_seq.max(stream.last_seq);
            return;
        }
        if self.is_ready() {
            self.lose();
        }
        let old = self.stream.replace(stream.clone());
        if before != Some(stream.epoch) {
            self.last_seq = 0;
            self.orphans.clear();
            self.to_mark.clear();
            for follow in self.follows.values_mut() {
                follow.begin_anew();
            }
        }
        self.looked_seq = stream.last_seq;
        self.last_seq = self.last_seq.max(stream.last_seq);
        self.state = State::Ready;
        self.set_mode(Mode::Shared(stream.epoch));
        if before.is_some_and(|before| before != stream.epoch) {
            self.say(Word::Anew);
        }
        self.say(Word::Shared { storage: stream.storage.clone() });
        // Nodes with other settings do not take turns: what one asks for beyond the others stays.
        let wanted = self.limits.map(|limits| limits.at_least(stream.limits)).filter(|_| before.is_none());
        if let Some(limits) = wanted.filter(|limits| *limits != stream.limits) {
            let config = api::with_limits(&stream, limits);
            self.request(format!("$JS.API.STREAM.UPDATE.{}", self.name), config, Request::Change, now_ns);
        }
        self.out.push_back(Out::Share(self.subjects.outside_rooms()));
        let rooms: Vec<Arc<str>> = self.follows.keys().cloned().collect();
        for room in rooms {
            if let Some(old) = old.as_ref().filter(|old| old.kept != stream.kept) {
                self.out.push_back(Out::Unsubscribe(format!("{}.{}", old.kept, token(&room))));
            }
            self.listen(&room, now_ns);
        }
        for room in std::mem::take(&mut self.to_mark) {
            self.mark(room, now_ns);
        }
    }

    // ---- messages of this node ------------------------------------------------------------------------------------

    /// Sends a message of a room to the stream.
    pub(super) fn number(&mut self, room: Arc<str>, publication: Publication, now_ns: u64) {
        let bytes = publication.frame.len() + ENTRY_BYTES;
        let is_long = bytes > self.payload_bytes_max;
        if !self.is_ready() || is_long {
            self.counts.apart += 1;
            if self.is_ready() {
                self.mark(Arc::clone(&room), now_ns);
            } else if self.mode != Mode::Local {
                self.to_mark.insert(Arc::clone(&room));
            }
            return self.out.push_back(Out::Unnumbered { room, publication, goes_abroad: true });
        }
        if self.pending.len() >= PENDING_MAX || self.pending_bytes + bytes > PENDING_BYTES_MAX {
            self.counts.refused += 1;
            return self.out.push_back(Out::Refused(publication.tally));
        }
        self.counts.sent += 1;
        self.send(room, Some(publication), bytes, now_ns);
    }

    /// Says in the stream that something of a room is not in it.
    pub(super) fn mark(&mut self, room: Arc<str>, now_ns: u64) {
        if self.is_ready() {
            self.send(room, None, ENTRY_BYTES, now_ns);
        } else if self.mode != Mode::Local {
            self.to_mark.insert(room);
        }
    }

    fn send(&mut self, room: Arc<str>, publication: Option<Publication>, bytes: usize, now_ns: u64) {
        self.numbers += 1;
        let number = self.numbers;
        let payload = Entry::to_bytes((self.settings.node, number), publication.as_ref());
        let subject = self.subjects.history(&token(&room));
        let reply = Some(self.subjects.node(self.settings.node, &format!("a{number}")));
        self.pending_bytes += bytes;
        self.pending.insert(number, Pending { room, publication, bytes, at_ns: now_ns, stored: None });
        self.out.push_back(Out::Publish { subject, reply, payload, number: Some(number) });
    }

    /// A message could not be sent: there is too much on its way to the bus.
    pub(super) fn not_sent(&mut self, number: u64) {
        if let Some(Pending { room, publication, .. }) = self.take_pending(number) {
            match publication {
                Some(publication) => {
                    self.counts.refused += 1;
                    self.out.push_back(Out::Refused(publication.tally));
                }
                None => drop(self.to_mark.insert(room)),
            }
        }
    }

    fn take_pending(&mut self, number: u64) -> Option<Pending> {
        let pending = self.pending.remove(&number)?;
        self.pending_bytes -= pending.bytes;
        Some(pending)
    }

    fn acknowledged(&mut self, number: u64, arrived: &Arrived, now_ns: u64) {
        if !self.pending.contains_key(&number) {
            return;
        }
        let Some(seq) = read_ack(&arrived.payload).filter(|_| arrived.status.is_none()) else {
            // Nothing is stored there now.
            return self.fail(Word::Failed("what is sent to it is not stored".into()), now_ns);
        };
        let Some(pending) = self.pending.get_mut(&number) else { return };
        pending.stored = Some(seq);
        self.last_seq = self.last_seq.max(seq);
        if !self.follows.get(&pending.room).is_some_and(Follow::is_followed) {
            self.forget_stored(number);
        }
    }

    /// It was stored, and does not come here.
    fn forget_stored(&mut self, number: u64) {
        if let Some(Pending { room, publication: Some(Publication { tally: Some(tally), .. }), .. }) =
            self.take_pending(number)
        {
            self.out.push_back(Out::Stored { room, tally });
        }
    }

    // ---- what comes -----------------------------------------------------------------------------------------------

    /// A message has come; false if it is nothing of this.
    pub(super) fn received(&mut self, arrived: &Arrived, now_ns: u64) -> bool {
        if let Some(delivered) = arrived.reply.as_deref().and_then(read_delivered) {
            let age_ns = (self.settings.unix_ns + now_ns).saturating_sub(delivered.stored_ns);
            let (seq, pending) = (delivered.seq, delivered.pending);
            let fetch = self.fetches.iter().find(|(_, fetch)| fetch.is_of(delivered.consumer)).map(|(id, _)| *id);
            if let Some(fetch) = fetch {
                self.fetched(fetch, seq, pending, age_ns, arrived.payload.clone(), now_ns);
            }
            return true;
        }
        let own = self.subjects.node(self.settings.node, "");
        if let Some(what) = arrived.subject.strip_prefix(&own) {
            let number = what.get(1..).and_then(|number| number.parse::<u64>().ok());
            match (what.as_bytes().first(), number) {
                (Some(b'a'), Some(number)) => self.acknowledged(number, arrived, now_ns),
                (Some(b'j'), Some(token)) => self.answered(token, arrived, now_ns),
                _ => return false,
            }
            return true;
        }
        let kept = self.stream.as_ref().and_then(|stream| arrived.subject.strip_prefix(&stream.kept));
        let Some(room) = kept.and_then(|rest| rest.strip_prefix('.')).and_then(super::subject::name) else {
            return arrived.subject.starts_with(&self.subjects.kept(""));
        };
        if let (true, Some(seq), Some(before)) = (self.is_ready(), arrived.seq, arrived.last_seq) {
            self.last_seq = self.last_seq.max(seq);
            self.arrived(&room, seq, before, arrived.payload.clone(), now_ns);
        }
        true
    }

    fn request(&mut self, subject: String, payload: String, request: Request, now_ns: u64) {
        self.tokens += 1;
        let reply = Some(self.subjects.node(self.settings.node, &format!("j{}", self.tokens)));
        self.requests.insert(self.tokens, Waiting { request, until_ns: now_ns + REQUEST_NS });
        self.out.push_back(Out::Publish { subject, reply, payload: payload.into(), number: None });
    }

    fn answered(&mut self, token: u64, arrived: &Arrived, now_ns: u64) {
        let Some(Waiting { request, .. }) = self.requests.remove(&token) else { return };
        match request {
            Request::Info | Request::Make | Request::Change | Request::Remove | Request::Look => {
                // Nobody answers at all where it is off.
                let told = match arrived.status {
                    Some(503) => Told::Off,
                    _ => read_stream(&arrived.payload, &self.subjects),
                };
                self.told_of_stream(&request, told, now_ns);
            }
            Request::Last(room) => {
                let seq = arrived.seq.filter(|_| arrived.status.is_none());
                self.told_last(&room, seq, arrived.status, now_ns);
            }
            Request::Fetch(id) => {
                let Some(fetch) = self.fetches.get_mut(&id) else { return };
                match fetch.doing {
                    Fetching::Opening => match read_consumer(&arrived.payload) {
                        Some((name, pending)) => self.opened(id, name, pending, now_ns),
                        None => self.fetch_failed(id, now_ns),
                    },
                    // It has no more, or has been cut short.
                    Fetching::Reading { .. } => self.fetch_failed(id, now_ns),
                    Fetching::Judging => match (arrived.status, arrived.seq) {
                        (None, Some(first)) => self.judged(id, first, now_ns),
                        _ => self.fetch_failed(id, now_ns),
                    },
                    Fetching::Queued => {}
                }
            }
        }
    }

    // ---- time -----------------------------------------------------------------------------------------------------

    pub(super) fn due_ns(&self) -> u64 {
        let state = match self.state {
            State::Away | State::Looking => u64::MAX,
            State::Ready => self.next_look_ns,
            State::Waiting { again_ns } => again_ns,
        };
        let request = self.requests.first_key_value().map_or(u64::MAX, |(_, first)| first.until_ns);
        let ask = self.asks.first_key_value().map_or(u64::MAX, |(_, first)| first.until_ns);
        let pending = self.pending.first_key_value();
        let pending = pending.map_or(u64::MAX, |(_, first)| first.at_ns.saturating_add(self.settings.patience_ns));
        state.min(request).min(ask).min(pending)
    }

    pub(super) fn tick(&mut self, now_ns: u64) {
        match self.state {
            State::Waiting { again_ns } if again_ns <= now_ns => self.look_for_it(now_ns),
            State::Ready if self.next_look_ns <= now_ns => {
                self.next_look_ns = now_ns + LOOK_NS;
                let subject = format!("$JS.API.STREAM.INFO.{}", self.name);
                self.request(subject, String::new(), Request::Look, now_ns);
            }
            _ => {}
        }
        while let Some(first) = self.requests.first_entry().filter(|first| first.get().until_ns <= now_ns) {
            let Waiting { request, .. } = first.remove();
            match request {
                Request::Last(room) => self.told_last(&room, None, None, now_ns),
                Request::Fetch(id) => self.fetch_failed(id, now_ns),
                Request::Change => {}
                _ => self.fail(Word::Failed("JetStream does not answer".into()), now_ns),
            }
        }
        while let Some(first) = self.asks.first_entry().filter(|first| first.get().until_ns <= now_ns) {
            let ask = first.remove();
            self.counts.unanswered += 1;
            self.out.push_back(Out::Sought { core: ask.core, token: ask.token, found: None });
        }
        self.look_at_pending(now_ns);
    }

    fn look_at_pending(&mut self, now_ns: u64) {
        while let Some((&number, first)) = self.pending.first_key_value() {
            if first.at_ns.saturating_add(self.settings.patience_ns) > now_ns {
                break;
            }
            let Some(seq) = first.stored else {
                return self.fail(Word::Failed("JetStream does not answer in time".into()), now_ns);
            };
            let room = Arc::clone(&first.room);
            match self.follows.get(&room).filter(|follow| follow.is_followed() && !follow.has_passed(seq)) {
                Some(_) => {
                    // It is there, and was lost on its way here.
                    self.ask_for_last(&room, now_ns);
                    if let Some(pending) = self.pending.get_mut(&number) {
                        pending.at_ns = now_ns;
                    }
                    break;
                }
                None => self.forget_stored(number),
            }
        }
    }

    /// Whatever comes of the stream may have been lost on its way here.
    pub(super) fn doubt(&mut self, now_ns: u64) {
        let rooms: Vec<Arc<str>> = self.follows.keys().cloned().collect();
        for room in rooms {
            if let Some(follow) = self.follows.get_mut(&room) {
                follow.doubt();
            }
            self.ask_for_last(&room, now_ns);
        }
    }
}
