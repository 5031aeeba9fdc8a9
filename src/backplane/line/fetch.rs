//! Reading a room's messages from the stream: for who comes back, and where some are missing.
//!
//! A reader is a consumer of JetStream for the one subject, from a number on; it is asked for its messages in batches, so that no more
//! come than there is room for. What it finds is complete behind the number if that message is itself one of the room's:
//! the oldest of a room go first. If it is not, it is complete if the room has fewer messages than are kept of one, and
//! the stream still has one that is no later: from its front the stream loses the oldest of all.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;

use super::entry::Entry;
use super::{Line, Out, REQUEST_NS, Request, api};
use crate::backplane::subject::token;
use crate::hub::{Found, FoundMessage, Since};

/// Readers at once.
const RUNNING_MAX: usize = 32;
/// Questions that wait.
const ASKS_MAX: usize = 4_096;
/// Messages that are asked for at once.
const BATCH: u64 = 256;
/// What is fetched to fill a gap.
const GAP_MAX: usize = 10_000;
const GAP_BYTES_MAX: usize = 16 << 20;

/// Who wants to know what of a room.
pub(super) struct Ask {
    room: Arc<str>,
    since: Since,
    pub(super) core: usize,
    pub(super) token: u64,
    pub(super) until_ns: u64,
    stage: Stage,
}

enum Stage {
    /// It is not known yet where the room is.
    Begun,
    Reading,
    /// It waits for the messages up to the end of this to be passed on.
    Found(Box<Found>),
}

/// What something is fetched for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    Gap,
    /// By its number.
    Ask(u64),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fetching {
    /// Until others are done.
    Queued,
    Opening,
    Reading {
        left: u64,
    },
    /// What there was is read; whether that is all is being found out.
    Judging,
}

/// A reader.
pub(super) struct Fetch {
    room: Arc<str>,
    purpose: Purpose,
    /// Behind this.
    since: u64,
    pub(super) doing: Fetching,
    consumer: Option<String>,
    request: u64,
    /// The first message that there was, the last, and how many.
    first: Option<u64>,
    read: Option<u64>,
    /// All that there was up to this is among them.
    end: u64,
    count: u64,
    /// What was read is all above this, if something was cut off or is missing.
    floor: Option<u64>,
    is_full: bool,
    entries: VecDeque<Read>,
    bytes: usize,
    messages_max: usize,
    bytes_max: usize,
}

struct Read {
    seq: u64,
    age_ns: u64,
    entry: Entry,
    bytes: usize,
}

impl Fetch {
    pub(super) fn is_of(&self, consumer: &str) -> bool {
        self.consumer.as_deref() == Some(consumer)
    }

    /// False if it has come before.
    fn take(&mut self, seq: u64, age_ns: u64, payload: Bytes) -> bool {
        if self.read.is_some_and(|read| seq <= read) {
            return false;
        }
        self.read = Some(seq);
        self.first.get_or_insert(seq);
        self.end = self.end.max(seq);
        self.count += 1;
        let bytes = payload.len();
        let entry = Entry::read(payload);
        if seq <= self.since {
            return true;
        }
        if entry.publication.is_none() && self.purpose != Purpose::Gap {
            self.entries.clear();
            self.bytes = 0;
            (self.floor, self.is_full) = (Some(seq), false);
            return true;
        }
        self.bytes += bytes;
        self.entries.push_back(Read { seq, age_ns, entry, bytes });
        while self.entries.len() > self.messages_max || self.bytes > self.bytes_max {
            let Some(dropped) = self.entries.pop_front() else { break };
            self.bytes -= dropped.bytes;
            (self.floor, self.is_full) = (Some(dropped.seq), true);
        }
        true
    }
}

impl Line {
    // ---- who asks -------------------------------------------------------------------------------------------------

    /// A core wants to know what there is of a room.
    pub(in crate::backplane) fn seek(&mut self, room: Arc<str>, since: Since, core: usize, token: u64, now_ns: u64) {
        self.counts.asked += 1;
        if !self.is_ready() || !self.keeps(&room) || self.asks.len() >= ASKS_MAX {
            self.counts.unanswered += 1;
            return self.out.push_back(Out::Sought { core, token, found: None });
        }
        self.tokens += 1;
        let id = self.tokens;
        self.asks.insert(id, Ask { room, since, core, token, until_ns: now_ns + REQUEST_NS, stage: Stage::Begun });
        self.go_on(id, now_ns);
    }

    fn followed_at(&self, room: &str) -> Option<Option<u64>> {
        self.follows.get(room).filter(|follow| follow.is_followed()).map(|follow| follow.last())
    }

    fn go_on(&mut self, id: u64, now_ns: u64) {
        let Some(ask) = self.asks.get_mut(&id) else { return };
        let (room, since) = (Arc::clone(&ask.room), ask.since);
        let epoch = self.stream.as_ref().map_or(0, |stream| stream.epoch);
        let followed = self.followed_at(&room);
        if followed == Some(None) {
            // It is being found out.
            return;
        }
        let last = followed.flatten();
        if let (Some(last), Since::Now) = (last, since) {
            let found = Found { epoch, last: Some(last), floor: last, end: last, ..Found::default() };
            return self.answer(id, Box::new(found));
        }
        let behind = match since {
            Since::Position(at) if at.epoch_number() == epoch => at.offset(),
            Since::Now => self.last_seq,
            _ => 0,
        };
        if let Some(ask) = self.asks.get_mut(&id) {
            ask.stage = Stage::Reading;
        }
        self.fetch(&room, behind, Purpose::Ask(id), now_ns);
    }

    /// Something has become of a room that questions may have waited for.
    pub(super) fn serve(&mut self, room: &Arc<str>, now_ns: u64) {
        if self.asks.is_empty() {
            return;
        }
        let Some(Some(last)) = self.followed_at(room) else { return };
        let of_room: Vec<u64> = self.asks.iter().filter(|(_, ask)| ask.room == *room).map(|(id, _)| *id).collect();
        for id in of_room {
            let Some(ask) = self.asks.get_mut(&id) else { continue };
            match &ask.stage {
                Stage::Begun => self.go_on(id, now_ns),
                Stage::Found(found) if found.end <= last => {
                    let Stage::Found(mut found) = std::mem::replace(&mut ask.stage, Stage::Reading) else { continue };
                    found.last = Some(last);
                    self.answer(id, found);
                }
                Stage::Found(_) | Stage::Reading => {}
            }
        }
    }

    fn answer(&mut self, id: u64, found: Box<Found>) {
        if let Some(Ask { core, token, .. }) = self.asks.remove(&id) {
            self.out.push_back(Out::Sought { core, token, found: Some(found) });
        }
    }

    // ---- readers --------------------------------------------------------------------------------------------------

    /// Reads what there is of a room behind this number; which reader does.
    pub(super) fn fetch(&mut self, room: &Arc<str>, since: u64, purpose: Purpose, now_ns: u64) -> u64 {
        self.tokens += 1;
        let id = self.tokens;
        let (messages_max, bytes_max) = match purpose {
            Purpose::Gap => (GAP_MAX, GAP_BYTES_MAX),
            Purpose::Ask(_) => {
                let limits = self.histories.of(room);
                limits.map_or((0, 0), |limits| (limits.messages_max(), limits.bytes_max()))
            }
        };
        let fetch = Fetch {
            room: Arc::clone(room),
            purpose,
            since,
            doing: Fetching::Queued,
            consumer: None,
            request: 0,
            first: None,
            read: None,
            // Whatever has been passed on was stored before this.
            end: self.followed_at(room).map_or(self.last_seq, |last| last.unwrap_or(0)),
            count: 0,
            floor: None,
            is_full: false,
            entries: VecDeque::new(),
            bytes: 0,
            messages_max,
            bytes_max,
        };
        self.fetches.insert(id, fetch);
        self.queue.push_back(id);
        self.open_next(now_ns);
        id
    }

    fn open_next(&mut self, now_ns: u64) {
        while self.running < RUNNING_MAX
            && let Some(id) = self.queue.pop_front()
        {
            let Some(fetch) = self.fetches.get_mut(&id) else { continue };
            self.running += 1;
            fetch.doing = Fetching::Opening;
            let (subject, since) = (self.subjects.history(&token(&fetch.room)), fetch.since);
            let payload = api::consumer(&self.name, &subject, since);
            self.request(format!("$JS.API.CONSUMER.CREATE.{}", self.name), payload, Request::Fetch(id), now_ns);
        }
    }

    pub(super) fn opened(&mut self, id: u64, consumer: String, pending: u64, now_ns: u64) {
        let Some(fetch) = self.fetches.get_mut(&id) else { return };
        fetch.consumer = Some(consumer);
        if pending == 0 { self.read_all(id, now_ns) } else { self.read(id, pending, now_ns) }
    }

    fn read(&mut self, id: u64, pending: u64, now_ns: u64) {
        let batch = pending.min(BATCH);
        let Some(fetch) = self.fetches.get_mut(&id) else { return };
        fetch.doing = Fetching::Reading { left: batch };
        let consumer = fetch.consumer.clone().unwrap_or_default();
        let subject = format!("$JS.API.CONSUMER.MSG.NEXT.{}.{consumer}", self.name);
        self.request(subject, api::pull(batch), Request::Fetch(id), now_ns);
        let request = self.tokens;
        if let Some(fetch) = self.fetches.get_mut(&id) {
            fetch.request = request;
        }
    }

    /// A reader has got a message, and so many are to come.
    pub(super) fn fetched(&mut self, id: u64, seq: u64, pending: u64, age_ns: u64, payload: Bytes, now_ns: u64) {
        let Some(fetch) = self.fetches.get_mut(&id) else { return };
        let Fetching::Reading { left } = fetch.doing else { return };
        if !fetch.take(seq, age_ns, payload) {
            return;
        }
        let left = left.saturating_sub(1);
        fetch.doing = Fetching::Reading { left };
        let request = fetch.request;
        if pending == 0 || left == 0 {
            self.requests.remove(&request);
            if pending == 0 { self.read_all(id, now_ns) } else { self.read(id, pending, now_ns) }
        }
    }

    /// All that there is has been read.
    fn read_all(&mut self, id: u64, now_ns: u64) {
        let per_room_max = self.stream.as_ref().map_or(0, |stream| stream.limits.per_room_max);
        let Some(fetch) = self.fetches.get_mut(&id) else { return };
        if let Some(consumer) = &fetch.consumer {
            let subject = format!("$JS.API.CONSUMER.DELETE.{}.{consumer}", self.name);
            self.out.push_back(Out::Publish { subject, reply: None, payload: Bytes::new(), number: None });
        }
        if fetch.count == 0 && fetch.since > self.last_seq && fetch.purpose != Purpose::Gap {
            // The stream has never been there: who says so gets what there is.
            let (room, purpose) = (Arc::clone(&fetch.room), fetch.purpose);
            self.end_fetch(id, now_ns);
            self.fetch(&room, 0, purpose, now_ns);
            return;
        }
        if fetch.floor.is_some() {
            return self.done(id, now_ns);
        }
        if fetch.since > 0 && fetch.first == Some(fetch.since) {
            fetch.floor = Some(fetch.since);
            return self.done(id, now_ns);
        }
        if fetch.count >= per_room_max {
            fetch.floor = Some(fetch.first.map_or(fetch.end, |first| first - 1));
            return self.done(id, now_ns);
        }
        fetch.doing = Fetching::Judging;
        let subject = format!("$JS.API.DIRECT.GET.{}", self.name);
        self.request(subject, api::first_of_all(), Request::Fetch(id), now_ns);
    }

    /// The first message that the stream still has.
    pub(super) fn judged(&mut self, id: u64, first: u64, now_ns: u64) {
        let Some(fetch) = self.fetches.get_mut(&id) else { return };
        fetch.floor = Some(match fetch.first {
            _ if first <= fetch.since + 1 => fetch.since,
            Some(first) => first - 1,
            None => fetch.end,
        });
        self.done(id, now_ns);
    }

    fn done(&mut self, id: u64, now_ns: u64) {
        let Some(fetch) = self.end_fetch(id, now_ns) else { return };
        let Fetch { room, purpose, since, end, floor, is_full, entries, .. } = fetch;
        let floor = floor.unwrap_or(end);
        match purpose {
            Purpose::Gap => {
                let entries = entries.into_iter().map(|read| (read.seq, read.entry)).collect();
                self.filled(&room, id, entries, floor == since, now_ns);
            }
            Purpose::Ask(ask) => {
                let epoch = self.stream.as_ref().map_or(0, |stream| stream.epoch);
                let message = |read: Read| {
                    let frame = read.entry.publication?.frame.numbered(read.seq);
                    Some(FoundMessage { offset: read.seq, frame, age_ns: read.age_ns })
                };
                let messages = entries.into_iter().filter_map(message).collect();
                let found = Box::new(Found { epoch, last: None, floor, end, is_full, messages });
                if self.followed_at(&room).is_none() {
                    return self.answer(ask, found);
                }
                let Some(asking) = self.asks.get_mut(&ask) else { return };
                asking.stage = Stage::Found(found);
                self.serve(&room, now_ns);
                if self.asks.contains_key(&ask) {
                    // What the stream has, and has not come, may have been lost on its way.
                    self.ask_for_last(&room, now_ns);
                }
            }
        }
    }

    pub(super) fn fetch_failed(&mut self, id: u64, now_ns: u64) {
        let Some(Fetch { room, purpose, .. }) = self.end_fetch(id, now_ns) else { return };
        match purpose {
            Purpose::Gap => self.not_filled(&room, id, now_ns),
            Purpose::Ask(ask) => {
                if let Some(Ask { core, token, .. }) = self.asks.remove(&ask) {
                    self.counts.unanswered += 1;
                    self.out.push_back(Out::Sought { core, token, found: None });
                }
            }
        }
    }

    fn end_fetch(&mut self, id: u64, now_ns: u64) -> Option<Fetch> {
        let fetch = self.fetches.remove(&id)?;
        if fetch.doing != Fetching::Queued {
            self.running -= 1;
        }
        self.requests.remove(&fetch.request);
        self.open_next(now_ns);
        Some(fetch)
    }
}
