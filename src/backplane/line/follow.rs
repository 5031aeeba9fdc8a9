//! The rooms that this node has members of: what comes of them in order, and what is missing of it.
//!
//! Each message says the number of the room's message before it. If that is not the last one that was passed on, what lies between is
//! fetched first, and the message waits. What has gone from the stream by then is missing for good, and the owner is
//! told so, for it may say of nothing before that it is complete.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;

use super::entry::Entry;
use super::fetch::Purpose;
use super::{Line, Out, Request, api};
use crate::backplane::subject::token;
use crate::hub::{Mode, Numbered, Publication};

/// Messages of a room that wait for what is missing before them, and their bytes.
const AHEAD_MAX: usize = 1_024;
const AHEAD_BYTES_MAX: usize = 8 << 20;
/// How often the last message of a room is asked for in vain.
const TRIES_MAX: u32 = 3;

#[derive(Default)]
pub(super) struct Follow {
    /// Nobody is in the room any more, and its owner has been told so.
    is_releasing: bool,
    /// Answers of owners that are to come.
    releases: u32,
    /// All of the room's messages up to this one have been passed on, or were before this node listened.
    last: Option<u64>,
    /// Where the stream was when this node began to listen.
    from: u64,
    /// Nothing can have been lost since the last message that was passed on.
    is_sure: bool,
    /// What waits, by number: the number before it, and it.
    ahead: BTreeMap<u64, (u64, Entry)>,
    ahead_bytes: usize,
    /// The room's last message is being asked for, and is to be once more.
    is_asking: bool,
    asks_again: bool,
    tries: u32,
    /// What is missing is being fetched, by this reader.
    filling: Option<u64>,
    /// It could not be, or is not there any more.
    gives_up: bool,
}

impl Follow {
    pub(super) fn is_followed(&self) -> bool {
        !self.is_releasing
    }

    pub(super) fn last(&self) -> Option<u64> {
        self.last
    }

    pub(super) fn has_passed(&self, seq: u64) -> bool {
        self.last.is_some_and(|last| seq <= last)
    }

    /// The stream is away: what is asked of it is not answered.
    pub(super) fn lose(&mut self) {
        self.doubt();
        (self.is_asking, self.asks_again, self.gives_up, self.tries) = (false, false, false, 0);
        self.filling = None;
        self.ahead.clear();
        self.ahead_bytes = 0;
    }

    pub(super) fn begin_anew(&mut self) {
        self.lose();
        self.last = None;
    }

    pub(super) fn doubt(&mut self) {
        self.is_sure = false;
    }
}

impl Line {
    /// So many members of a room has this node.
    pub(in crate::backplane) fn members(&mut self, room: &Arc<str>, members: u32, now_ns: u64) {
        if !self.keeps(room) || !self.is_wanted() {
            return;
        }
        match (members > 0, self.follows.get_mut(room)) {
            (true, Some(follow)) => follow.is_releasing = false,
            (true, None) => {
                self.follows.insert(Arc::clone(room), Follow::default());
                self.listen(room, now_ns);
            }
            (false, Some(_)) if self.mode == Mode::Local => drop(self.follows.remove(room)),
            (false, Some(follow)) if !follow.is_releasing => {
                // An owner may have told somebody who is joining just now what it has: it lets go of that first, and what it says
                // then stands behind what this node hears of that member.
                follow.is_releasing = true;
                follow.releases += 1;
                self.out.push_back(Out::Release(Arc::clone(room)));
            }
            _ => {}
        }
    }

    /// The rooms that it listens to.
    pub(in crate::backplane) fn followed(&self) -> Vec<Arc<str>> {
        self.follows.keys().cloned().collect()
    }

    /// A room's owner has let go of it.
    pub(in crate::backplane) fn released(&mut self, room: &str) {
        let Some(follow) = self.follows.get_mut(room) else { return };
        follow.releases = follow.releases.saturating_sub(1);
        if follow.releases == 0 && follow.is_releasing {
            self.follows.remove(room);
            if let Some(subject) = self.subject_of(room) {
                self.out.push_back(Out::Unsubscribe(subject));
            }
        }
    }

    fn subject_of(&self, room: &str) -> Option<String> {
        self.stream.as_ref().map(|stream| format!("{}.{}", stream.kept, token(room)))
    }

    /// Begins to listen to a room, and finds out where it is.
    pub(super) fn listen(&mut self, room: &Arc<str>, now_ns: u64) {
        if !self.is_ready() {
            return;
        }
        let subject = self.subject_of(room).expect("there is a stream");
        self.out.push_back(Out::Subscribe(subject));
        let last_seq = self.last_seq;
        if let Some(follow) = self.follows.get_mut(room) {
            follow.from = last_seq;
        }
        self.ask_for_last(room, now_ns);
    }

    /// Asks for the number of a room's last message: what has not come by then is missing.
    pub(super) fn ask_for_last(&mut self, room: &Arc<str>, now_ns: u64) {
        if !self.is_ready() {
            return;
        }
        let Some(follow) = self.follows.get_mut(room) else { return };
        if std::mem::replace(&mut follow.is_asking, true) {
            follow.asks_again = true;
            return;
        }
        let payload = api::last_of(&self.subjects.history(&token(room)));
        let subject = format!("$JS.API.DIRECT.GET.{}", self.name);
        self.request(subject, payload, Request::Last(Arc::clone(room)), now_ns);
    }

    /// The number of a room's last message; with a status of 404 there is none.
    pub(super) fn told_last(&mut self, room: &Arc<str>, seq: Option<u64>, status: Option<u16>, now_ns: u64) {
        let Some(follow) = self.follows.get_mut(room) else { return };
        follow.is_asking = false;
        let mut asks_again = std::mem::take(&mut follow.asks_again);
        let mut is_missing = false;
        match (seq, status, follow.last) {
            (Some(seq), _, Some(last)) => {
                follow.tries = 0;
                is_missing = seq > last;
                follow.is_sure |= seq == last;
            }
            (Some(_), _, None) | (None, Some(404), None) => {
                follow.tries = 0;
                follow.last = Some(seq.unwrap_or(follow.from));
                follow.is_sure = true;
            }
            (None, Some(404), Some(_)) => follow.tries = 0,
            (None, _, last) => {
                follow.tries += 1;
                asks_again |= follow.tries < TRIES_MAX;
                if last.is_none() && follow.tries >= TRIES_MAX {
                    // Members are there; who asks for a history is not answered by this.
                    follow.last = Some(follow.from);
                }
            }
        }
        self.advance(room, now_ns);
        let has_come = |follow: &Follow| seq.is_some_and(|seq| follow.has_passed(seq));
        if is_missing && !self.follows.get(room).is_some_and(has_come) {
            self.fill(room, now_ns);
        }
        if asks_again {
            self.ask_for_last(room, now_ns);
        }
        self.serve(room, now_ns);
    }

    /// A message of a room has come, and says which one was before it; 0: none that is still there.
    pub(super) fn arrived(&mut self, room: &str, seq: u64, before: u64, payload: Bytes, now_ns: u64) {
        let Some((room, _)) = self.follows.get_key_value(room) else { return };
        let room = Arc::clone(room);
        let follow = self.follows.get_mut(&room).expect("just seen");
        if follow.has_passed(seq) || follow.ahead.contains_key(&seq) {
            return;
        }
        if follow.last.is_none() {
            follow.last = Some(if before > 0 { before } else { seq - 1 });
            follow.is_sure = true;
        }
        if follow.ahead.len() >= AHEAD_MAX || follow.ahead_bytes + payload.len() > AHEAD_BYTES_MAX {
            // It is asked for again when there is room.
            follow.asks_again = true;
            return;
        }
        follow.ahead_bytes += payload.len();
        follow.ahead.insert(seq, (before, Entry::read(payload)));
        self.advance(&room, now_ns);
        self.serve(&room, now_ns);
    }

    /// Passes on what stands in line.
    fn advance(&mut self, room: &Arc<str>, now_ns: u64) {
        loop {
            let Some(follow) = self.follows.get_mut(room) else { return };
            let Some(last) = follow.last.filter(|_| follow.filling.is_none()) else { return };
            let Some((&seq, (before, _))) = follow.ahead.first_key_value() else {
                follow.ahead_bytes = 0;
                follow.gives_up = false;
                return;
            };
            let before = *before;
            if seq > last && before > last && !follow.gives_up {
                return self.fill(room, now_ns);
            }
            let (_, (_, entry)) = follow.ahead.pop_first().expect("just seen");
            if seq > last {
                let is_next = before == last || (before < last && follow.is_sure);
                follow.gives_up = false;
                self.pass(room, seq, is_next, entry, now_ns);
            }
        }
    }

    /// Fetches what is missing behind the last message that was passed on.
    fn fill(&mut self, room: &Arc<str>, now_ns: u64) {
        let Some(follow) = self.follows.get_mut(room) else { return };
        if follow.filling.is_some() {
            return;
        }
        let last = follow.last.unwrap_or(0);
        self.counts.gaps += 1;
        let id = self.fetch(room, last, Purpose::Gap, now_ns);
        if let Some(follow) = self.follows.get_mut(room) {
            follow.filling = Some(id);
        }
    }

    /// What was missing is there, or as much of it as there is; `is_all`: all of it.
    pub(super) fn filled(
        &mut self,
        room: &Arc<str>,
        by: u64,
        entries: Vec<(u64, Entry)>,
        is_all: bool,
        now_ns: u64,
    ) {
        // It may have been begun when the room was listened to before.
        let Some(follow) = self.follows.get_mut(room).filter(|follow| follow.filling == Some(by)) else { return };
        follow.filling = None;
        let mut is_next = is_all;
        // What is not among it has gone.
        follow.gives_up = true;
        for (seq, entry) in entries {
            if self.follows.get(room).is_some_and(|follow| !follow.has_passed(seq)) {
                self.pass(room, seq, is_next, entry, now_ns);
                is_next = true;
            }
        }
        self.advance(room, now_ns);
        self.catch_up(room, now_ns);
        self.serve(room, now_ns);
    }

    pub(super) fn not_filled(&mut self, room: &Arc<str>, by: u64, now_ns: u64) {
        let Some(follow) = self.follows.get_mut(room).filter(|follow| follow.filling == Some(by)) else { return };
        (follow.filling, follow.is_sure, follow.gives_up) = (None, false, true);
        self.advance(room, now_ns);
        self.catch_up(room, now_ns);
        self.serve(room, now_ns);
    }

    /// Asks for what there was no room for.
    fn catch_up(&mut self, room: &Arc<str>, now_ns: u64) {
        let follow = self.follows.get_mut(room);
        if follow.is_some_and(|follow| !follow.is_asking && std::mem::take(&mut follow.asks_again)) {
            self.ask_for_last(room, now_ns);
        }
    }

    fn pass(&mut self, room: &Arc<str>, seq: u64, is_next: bool, entry: Entry, now_ns: u64) {
        let Some(stream) = &self.stream else { return };
        let epoch = stream.epoch;
        self.counts.received += 1;
        let (node, number) = entry.from;
        let (mut tally, mut is_known) = (None, false);
        if node == self.settings.node {
            is_known = self.orphans.remove(&number);
            let pending = self.take_pending(number).and_then(|pending| pending.publication);
            tally = pending.and_then(|publication| publication.tally);
        }
        if let Some(follow) = self.follows.get_mut(room) {
            follow.last = Some(seq);
            // From here on.
            follow.is_sure = true;
        }
        let publication = entry.publication.map(|publication| Publication { tally, ..publication });
        let is_message = publication.is_some();
        let numbered = Numbered { epoch, offset: seq, is_next, publication, is_known };
        self.out.push_back(Out::Numbered { room: Arc::clone(room), numbered });
        if is_known && is_message {
            // The members here have got it out of line.
            self.mark(Arc::clone(room), now_ns);
        }
    }
}
