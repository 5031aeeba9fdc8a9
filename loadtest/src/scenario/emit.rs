//! Emit: messages to single sockets through the server's HTTP API, by the ids that the server gave them.
//!
//! Every socket connects to the event route and is told its id. HTTP connections then post to `/api/message/{id}`, and
//! the event has to arrive at that socket, once, in order, with that content. Which core serves an HTTP connection and
//! which one a socket is the kernel's choice, so with several cores most messages cross from one to another. A socket is
//! always addressed by the same HTTP connection: only then is there an order to check.
//!
//! An HTTP connection may have several requests in flight (RFC 9112 9.3.2); their responses come in their order.
//!
//! Invariant: a poster's `undelivered` are the `times` of its sockets, and `outstanding` are those of all.

use std::{collections::VecDeque, io::Write};

use serde::Deserialize;
use serde_json::Value;

use crate::{
    deal::Deal,
    net::{App, Gone, Io, Nanos, Open, Received, Speaks},
    problems::Problem,
    scenario::{Opener, Pace, Phase, Ramp, Scenario, Schedule, Share, Verdict, judge, plain},
    tally::Timed,
    track::Tracker,
    wire::Name,
};
use ringwire::{proto::Kind, quote::quoted};

/// What to do.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) sockets: usize,
    /// HTTP connections, of each worker.
    pub(crate) posters: usize,
    /// Requests in flight on each of them.
    pub(crate) pipeline: usize,
    pub(crate) ramp: Ramp,
    pub(crate) pace: Pace,
    /// Of each target.
    pub(crate) hosts: Vec<String>,
    pub(crate) deal: Deal,
    /// Path with `{id}`.
    pub(crate) api: String,
    pub(crate) token: Option<String>,
}

impl Plan {
    /// The HTTP connections that a worker opens: none that would have no socket of its own.
    pub(crate) fn posters_of(&self, share: Share) -> usize {
        self.posters.min(share.of(self.sockets))
    }
}

#[derive(Debug, Default)]
struct Socket {
    slot: Option<u32>,
    id: Option<String>,
    /// Messages posted.
    sent: u64,
    tracker: Tracker,
    /// Those that have not come and may, in order.
    times: VecDeque<Times>,
    /// Those whose responses had another status than 200.
    refused: Vec<(u64, u16)>,
}

/// When a message was due, and when it was posted.
#[derive(Clone, Copy, Debug)]
struct Times {
    sequence: u64,
    due: Nanos,
    posted: Nanos,
}

/// A request that has no response.
#[derive(Clone, Copy, Debug)]
struct Asked {
    socket: usize,
    sequence: u64,
    at: Nanos,
}

#[derive(Debug, Default)]
struct Poster {
    slot: Option<u32>,
    /// In their order.
    waiting: VecDeque<Asked>,
    undelivered: usize,
    next: usize,
    due: u64,
    posted: u64,
}

/// What a response says of its message, where it says anything of the kind.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Told {
    sent: Option<bool>,
    recipients: Option<u64>,
}

impl Told {
    /// What is wrong with it: a message has one receiver.
    fn complaint(&self) -> Option<String> {
        match self {
            Told { sent: Some(false), .. } => Some("that it was not sent".to_owned()),
            Told { recipients: Some(count), .. } if *count != 1 => Some(format!("that {count} sockets get it")),
            _ => None,
        }
    }
}

/// One worker's sockets and HTTP connections; tags from `sockets.len()` on are the latter's.
#[derive(Debug)]
pub(crate) struct Emit {
    plan: Plan,
    share: Share,
    opener: Opener,
    phase: Phase,
    sockets: Vec<Socket>,
    posters: Vec<Poster>,
    unnamed: usize,
    schedule: Option<Schedule>,
    scheduled: u64,
    budget: u64,
    outstanding: u64,
    request: Vec<u8>,
    look_again: Nanos,
}

impl Emit {
    pub(crate) fn new(plan: Plan, share: Share) -> Self {
        let sockets = share.of(plan.sockets);
        let posters = plan.posters_of(share);
        let count = sockets + posters;
        Self {
            opener: Opener::new(share, count, plan.ramp),
            phase: Phase::Open,
            sockets: (0..sockets).map(|_| Socket::default()).collect(),
            posters: (0..posters).map(|_| Poster::default()).collect(),
            unnamed: 0,
            schedule: None,
            scheduled: 0,
            budget: share.of_budget(plan.pace.count),
            outstanding: 0,
            request: Vec::new(),
            look_again: 0,
            share,
            plan,
        }
    }

    fn stream(&self, tag: usize) -> u32 {
        self.share.number(tag) as u32
    }

    /// Gives what is due to the HTTP connections, and has them post it.
    fn take_due(&mut self, io: &mut Io) {
        let Some(schedule) = self.schedule.filter(|_| !self.posters.is_empty()) else { return };
        let due = schedule.due(io.now);
        while self.scheduled < due && self.budget > 0 {
            let index = (self.scheduled % self.posters.len() as u64) as usize;
            io.tally.time_recorded(Timed::Lag, io.now.saturating_sub(schedule.at(self.scheduled)));
            self.posters[index].due += 1;
            self.scheduled += 1;
            self.budget -= u64::from(self.phase == Phase::Measure);
            self.pump(io, index);
        }
    }

    /// Posts as much as this HTTP connection may.
    fn pump(&mut self, io: &mut Io, index: usize) {
        while self.post(io, index) {}
    }

    /// Posts the next message of this HTTP connection, unless it has to wait or there is none.
    fn post(&mut self, io: &mut Io, index: usize) -> bool {
        let (posters, pipeline) = (self.posters.len(), self.plan.pipeline);
        let poster = &mut self.posters[index];
        if !self.phase.is_flowing() {
            return false;
        }
        let Some(slot) = poster.slot.filter(|_| poster.waiting.len() < pipeline) else { return false };
        let due = match &self.schedule {
            Some(schedule) if poster.posted < poster.due => schedule.at(poster.posted * posters as u64 + index as u64),
            Some(_) => return false,
            None if poster.undelivered >= pipeline || self.budget == 0 => return false,
            None => io.now,
        };
        // The next of its own sockets that is there.
        let own = (self.sockets.len() - index).div_ceil(posters);
        let place = |turn: usize| index + (turn % own) * posters;
        let Some(turn) = (poster.next..poster.next + own).find(|&turn| self.sockets[place(turn)].id.is_some()) else {
            return false;
        };
        if self.schedule.is_none() {
            self.budget -= u64::from(self.phase == Phase::Measure);
        }
        poster.next = (turn + 1) % own;
        poster.posted += 1;
        let tag = place(turn);
        let socket = &mut self.sockets[tag];
        let name = Name { stream: self.share.number(tag) as u32, sequence: socket.sent };
        socket.sent += 1;
        socket.times.push_back(Times { sequence: name.sequence, due, posted: io.now });
        poster.waiting.push_back(Asked { socket: tag, sequence: name.sequence, at: io.now });
        poster.undelivered += 1;
        self.outstanding += 1;
        let host = &self.plan.hosts[self.plan.deal.url(self.share.number(index))];
        let id = self.sockets[tag].id.as_deref().unwrap_or_default();
        put_request(&mut self.request, &self.plan, host, id, &io.messages.reply(name).payload());
        io.raw(slot, &self.request);
        io.tally.published += 1;
        true
    }

    fn poster_of(&self, tag: usize) -> usize {
        tag % self.posters.len()
    }

    /// A socket's messages up to this one have come, or will not; returns the times of this one, if it was waited for.
    fn settle(&mut self, tag: usize, sequence: u64) -> Option<Times> {
        let index = self.poster_of(tag);
        let mut last = None;
        let waited_for = &mut self.sockets[tag].times;
        while let Some(&times) = waited_for.front().filter(|times| times.sequence <= sequence) {
            waited_for.pop_front();
            self.posters[index].undelivered -= 1;
            self.outstanding -= 1;
            last = Some(times);
        }
        last.filter(|last| last.sequence == sequence)
    }

    fn arrived(&mut self, io: &mut Io, tag: usize, sequence: u64) {
        io.tally.done += 1;
        if let Some(times) = self.settle(tag, sequence) {
            io.tally.latency(io.now.saturating_sub(times.due));
            if self.schedule.is_some() {
                io.tally.time_recorded(Timed::Uncorrected, io.now - times.posted);
            }
        }
        self.pump(io, self.poster_of(tag));
    }

    /// What the server has refused will not come.
    fn refused(&mut self, index: usize, asked: Asked) {
        let times = &mut self.sockets[asked.socket].times;
        if let Some(place) = times.iter().position(|times| times.sequence == asked.sequence) {
            times.remove(place);
            self.posters[index].undelivered -= 1;
            self.outstanding -= 1;
        }
    }

    /// Gives up what was posted too long ago, and connections whose responses do not come.
    fn lose_late(&mut self, io: &mut Io) {
        for poster in &self.posters {
            let first = poster.waiting.front().filter(|first| io.now > first.at + self.plan.pace.patience);
            if let (Some(slot), Some(_)) = (poster.slot, first) {
                io.fail(slot, format!("closed before {} of its responses", poster.waiting.len()));
            }
        }
        for tag in 0..self.sockets.len() {
            let patience = self.plan.pace.patience;
            let mut is_lost = false;
            while let Some(first) = self.sockets[tag].times.front()
                && io.now > first.posted + patience
            {
                let sequence = first.sequence;
                self.settle(tag, sequence);
                is_lost = true;
            }
            if is_lost {
                self.pump(io, self.poster_of(tag));
            }
        }
    }

    fn event(&mut self, io: &mut Io, tag: usize, text: &[u8]) -> Result<(), String> {
        let mut event: Value = serde_json::from_slice(text).map_err(|error| format!("not JSON: {error}"))?;
        let data = event["data"].take();
        match event["event"].as_str() {
            Some("connected") => {
                let id = data["id"].as_str().ok_or("event connected without an id")?;
                if self.sockets[tag].id.replace(id.to_owned()).is_none() {
                    self.unnamed -= 1;
                }
                Ok(())
            }
            Some("private-message") => {
                let payload = data.as_str().unwrap_or_default().as_bytes();
                let stream = self.stream(tag);
                let socket = &mut self.sockets[tag];
                let message = Received { kind: io.messages.kind, payload };
                match judge(io, tag as u32, stream, &mut socket.tracker, socket.sent, message) {
                    Verdict::Arrived { sequence, .. } => self.arrived(io, tag, sequence),
                    Verdict::Spoilt => {
                        let spoilt = socket.tracker.next - 1;
                        self.settle(tag, spoilt);
                        self.pump(io, self.poster_of(tag));
                    }
                    Verdict::Nothing => {}
                }
                Ok(())
            }
            other => Err(format!("event {}, which nothing asked for", quoted(other.unwrap_or_default()))),
        }
    }
}

impl App for Emit {
    fn opened(&mut self, io: &mut Io, conn: u32, tag: u32) {
        let tag = tag as usize;
        if let Some(socket) = self.sockets.get_mut(tag) {
            socket.slot = Some(conn);
            self.unnamed += 1;
        } else {
            let index = tag - self.sockets.len();
            self.posters[index].slot = Some(conn);
            self.pump(io, index);
        }
    }

    fn due(&self, _tag: u32) -> Option<Name> {
        None
    }

    fn matched(&mut self, _io: &mut Io, _conn: u32, _tag: u32) {}

    fn received(&mut self, io: &mut Io, _conn: u32, tag: u32, message: Received<'_>) {
        let told = if message.kind == Kind::Text {
            self.event(io, tag as usize, message.payload)
        } else {
            Err("a binary message".to_owned())
        };
        if let Err(what) = told {
            io.tally.note(Problem::Unexpected, 1, || format!("connection {tag}: {what}"));
        }
    }

    fn responded(&mut self, io: &mut Io, _conn: u32, tag: u32, status: u16, body: &[u8]) {
        let index = tag as usize - self.sockets.len();
        let Some(asked) = self.posters[index].waiting.pop_front() else {
            return io.tally.note(Problem::Unexpected, 1, || {
                format!("HTTP connection {index}: status {status}, which nothing asked for")
            });
        };
        let Asked { socket, sequence, at } = asked;
        io.tally.time_recorded(Timed::Http, io.now - at);
        if status != 200 {
            *io.tally.statuses.entry(status).or_default() += 1;
            self.sockets[socket].refused.push((sequence, status));
            self.refused(index, asked);
        } else if let Some(complaint) = serde_json::from_slice::<Told>(body).unwrap_or_default().complaint() {
            io.tally.note(Problem::Unexpected, 1, || {
                format!("HTTP connection {index}: of a message to socket {socket} it is said {complaint}")
            });
        }
        self.pump(io, index);
    }

    fn closed(&mut self, _io: &mut Io, _conn: u32, tag: u32, _gone: Gone) {
        let tag = tag as usize;
        if tag < self.sockets.len() {
            let socket = &mut self.sockets[tag];
            if socket.slot.take().is_some() && socket.id.take().is_none() {
                self.unnamed -= 1;
            }
            self.settle(tag, u64::MAX);
            return;
        }
        let index = tag - self.sockets.len();
        self.posters[index].slot = None;
        self.posters[index].waiting.clear();
    }

    fn tick(&mut self, io: &mut Io) -> Option<Nanos> {
        if self.phase == Phase::Open {
            let (sockets, share) = (self.sockets.len(), self.share);
            return self.opener.tick(io, |tag| match tag.checked_sub(sockets) {
                None => plain(tag, false),
                Some(index) => Open { speaks: Speaks::Http, turn: Some(share.number(index)), ..plain(tag, false) },
            });
        }
        if io.now >= self.look_again {
            self.look_again = io.now + 50_000_000;
            self.lose_late(io);
        }
        let schedule = self.schedule?;
        if !self.phase.is_flowing() || self.posters.is_empty() {
            return None;
        }
        self.take_due(io);
        Some(schedule.at(self.scheduled))
    }
}

impl Scenario for Emit {
    fn enter(&mut self, io: &mut Io, phase: Phase) {
        let before = std::mem::replace(&mut self.phase, phase);
        if before < Phase::Warmup && phase.is_flowing() {
            self.schedule =
                self.plan.pace.rate.map(|rate| Schedule::new(io.now, rate, self.share, 1, self.share.places()));
        }
        if phase.is_flowing() {
            (0..self.posters.len()).for_each(|index| self.pump(io, index));
        }
    }

    fn is_ready(&self, io: &Io) -> bool {
        self.opener.is_done(io) && self.unnamed == 0
    }

    fn is_idle(&mut self, _io: &Io) -> bool {
        let is_over = self.phase == Phase::Drain;
        let quiet = |poster: &Poster| {
            poster.slot.is_none() || (poster.waiting.is_empty() && (is_over || poster.due <= poster.posted))
        };
        (is_over || self.budget == 0) && self.outstanding == 0 && self.posters.iter().all(quiet)
            || self.posters.iter().all(|poster| poster.slot.is_none())
    }

    fn conclude(&mut self, io: &mut Io) {
        for (tag, socket) in self.sockets.iter().enumerate() {
            // A message that was refused is one problem: it did not come, or it came all the same.
            let mut lost = socket.tracker.missing(socket.sent);
            for &(sequence, status) in &socket.refused {
                if socket.tracker.is_missing(sequence) {
                    lost -= 1;
                    io.tally.note(Problem::Lost, 1, || {
                        format!("socket {tag}: message {sequence} never came: its response had status {status}")
                    });
                } else {
                    io.tally.note(Problem::Unexpected, 1, || {
                        format!("socket {tag}: message {sequence} came, but its response had status {status}")
                    });
                }
            }
            io.tally.note(Problem::Lost, lost, || format!("socket {tag}: {lost} messages never came"));
        }
        for (index, poster) in self.posters.iter().enumerate() {
            let mut own = self.sockets.iter().skip(index).step_by(self.posters.len());
            let is_connected = poster.slot.is_some() && own.any(|socket| socket.id.is_some());
            io.tally.never_sent(poster.due.saturating_sub(poster.posted), is_connected);
        }
    }
}

/// Writes a request in place of the one before.
fn put_request(out: &mut Vec<u8>, plan: &Plan, host: &str, id: &str, payload: &[u8]) {
    let (before, after) = plan.api.split_once("{id}").unwrap_or((&plan.api, ""));
    out.clear();
    // A vector takes all.
    let _ = write!(out, "POST {before}{id}{after} HTTP/1.1\r\nHost: {host}\r\n");
    if let Some(token) = &plan.token {
        let _ = write!(out, "Authorization: Bearer {token}\r\n");
    }
    let length = payload.len() + 2;
    let _ = write!(out, "Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n\"");
    out.extend_from_slice(payload);
    out.push(b'"');
}
