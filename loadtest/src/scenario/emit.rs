//! Emit: messages to single sockets through the server's HTTP API, by the ids that the server gave them.
//!
//! Every socket connects to the event route and is told its id. HTTP connections then post to `/api/message/{id}`, and
//! the event has to arrive at that socket, once, in order, with that content. Which core serves an HTTP connection and
//! which one a socket is the kernel's choice, so with several cores most messages cross from one to another. A socket is
//! always addressed by the same HTTP connection: only then is there an order to check.

use serde_json::Value;

use crate::{
    net::{App, Gone, Io, Nanos, Open, Received, Speaks},
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
    pub(crate) ramp: Ramp,
    pub(crate) pace: Pace,
    /// Of each target.
    pub(crate) hosts: Vec<String>,
    /// Path with `{id}`.
    pub(crate) api: String,
    pub(crate) token: Option<String>,
}

#[derive(Debug, Default)]
struct Socket {
    slot: Option<u32>,
    id: Option<String>,
    /// Messages posted, and when the last of them was due and posted.
    sent: u64,
    tracker: Tracker,
    times: std::collections::VecDeque<(u64, Nanos, Nanos)>,
}

#[derive(Debug, Default)]
struct Poster {
    slot: Option<u32>,
    /// The socket it has posted to and waits for a response about, since when.
    waiting: Option<(usize, Nanos)>,
    /// Closed loop: the event of that post has not come yet.
    undelivered: Option<(usize, u64)>,
    next: usize,
    due: u64,
    posted: u64,
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
        let posters = plan.posters.min(sockets);
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

    /// Posts as much as this HTTP connection may.
    fn pump(&mut self, io: &mut Io, index: usize) {
        let posters = self.posters.len();
        let poster = &mut self.posters[index];
        let (Some(slot), None) = (poster.slot, poster.waiting) else { return };
        let due = match &self.schedule {
            Some(schedule) if poster.posted < poster.due => schedule.at(poster.posted * posters as u64 + index as u64),
            Some(_) => return,
            None if poster.undelivered.is_some() || !self.phase.is_flowing() || self.budget == 0 => return,
            None => {
                self.budget -= u64::from(self.phase == Phase::Measure);
                io.now
            }
        };
        // The next of its own sockets that is there.
        let own = self.sockets.len() - index;
        let own = own.div_ceil(posters);
        let place = |turn: usize| index + (turn % own) * posters;
        let Some(turn) = (poster.next..poster.next + own).find(|&turn| self.sockets[place(turn)].id.is_some()) else {
            return;
        };
        poster.next = turn + 1;
        poster.posted += 1;
        let tag = place(turn);
        let socket = &mut self.sockets[tag];
        let name = Name { stream: self.share.number(tag) as u32, sequence: socket.sent };
        socket.sent += 1;
        socket.times.push_back((name.sequence, due, io.now));
        poster.waiting = Some((tag, io.now));
        poster.undelivered = Some((tag, name.sequence));
        self.outstanding += 1;
        let body = io.messages.reply(name).payload();
        let id = socket.id.as_deref().unwrap_or_default();
        let path = self.plan.api.replace("{id}", id);
        let token =
            self.plan.token.as_ref().map_or(String::new(), |token| format!("Authorization: Bearer {token}\r\n"));
        self.request.clear();
        self.request.extend_from_slice(
            format!(
                "POST {path} HTTP/1.1\r\nHost: {}\r\n{token}Content-Type: application/json\r\nContent-Length: {}\r\n\r\n\"",
                self.plan.hosts[self.share.number(self.sockets.len() + index) % self.plan.hosts.len()],
                body.len() + 2
            )
            .as_bytes(),
        );
        self.request.extend_from_slice(&body);
        self.request.push(b'"');
        io.raw(slot, &self.request);
        io.tally.published += 1;
    }

    fn poster_of(&self, tag: usize) -> usize {
        tag % self.posters.len()
    }

    fn arrived(&mut self, io: &mut Io, tag: usize, sequence: u64) {
        io.tally.done += 1;
        self.outstanding = self.outstanding.saturating_sub(1);
        let socket = &mut self.sockets[tag];
        while let Some(&(of, due, sent)) = socket.times.front() {
            if of > sequence {
                break;
            }
            socket.times.pop_front();
            if of == sequence {
                io.tally.latency(io.now.saturating_sub(due));
                if self.schedule.is_some() {
                    io.tally.time_recorded(Timed::Uncorrected, io.now - sent);
                }
            }
        }
        let index = self.poster_of(tag);
        if self.posters[index].undelivered == Some((tag, sequence)) {
            self.posters[index].undelivered = None;
            self.pump(io, index);
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
                    Verdict::Arrived { sequence, skipped } => {
                        self.outstanding = self.outstanding.saturating_sub(skipped);
                        self.arrived(io, tag, sequence);
                    }
                    Verdict::Spoilt => self.outstanding = self.outstanding.saturating_sub(1),
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
            io.tally.checks.unexpected += 1;
            io.tally.say(|| format!("connection {tag}: {what}"));
        }
    }

    fn responded(&mut self, io: &mut Io, _conn: u32, tag: u32, status: u16) {
        let index = tag as usize - self.sockets.len();
        let Some((socket, at)) = self.posters[index].waiting.take() else {
            io.tally.checks.unexpected += 1;
            return io.tally.say(|| format!("HTTP connection {index}: status {status}, which nothing asked for"));
        };
        io.tally.time_recorded(Timed::Http, io.now - at);
        if status != 200 {
            *io.tally.statuses.entry(status).or_default() += 1;
            io.tally.say(|| format!("HTTP connection {index}: status {status} for a message to socket {socket}"));
            self.posters[index].undelivered = None;
        }
        self.pump(io, index);
    }

    fn closed(&mut self, io: &mut Io, _conn: u32, tag: u32, _gone: Gone) {
        let tag = tag as usize;
        if tag < self.sockets.len() {
            let socket = &mut self.sockets[tag];
            if socket.slot.take().is_some() && socket.id.take().is_none() {
                self.unnamed -= 1;
            }
            return;
        }
        let index = tag - self.sockets.len();
        self.posters[index].slot = None;
        if self.posters[index].waiting.take().is_some() && self.phase < Phase::Stop {
            io.tally.say(|| format!("HTTP connection {index}: closed before its response"));
        }
    }

    fn tick(&mut self, io: &mut Io) -> Option<Nanos> {
        if self.phase == Phase::Open {
            let sockets = self.sockets.len();
            return self.opener.tick(io, |tag| {
                let speaks = if tag < sockets { Speaks::WebSocket } else { Speaks::Http };
                Open { speaks, ..plain(tag, false) }
            });
        }
        if io.now >= self.look_again {
            self.look_again = io.now + 50_000_000;
            for index in 0..self.posters.len() {
                if let Some((tag, sequence)) = self.posters[index].undelivered {
                    let late = self.sockets[tag]
                        .times
                        .iter()
                        .any(|time| time.0 == sequence && io.now > time.2 + self.plan.pace.patience);
                    if late {
                        self.posters[index].undelivered = None;
                        self.outstanding = self.outstanding.saturating_sub(1);
                        io.tally.say(|| format!("socket {tag}: message {sequence} never came"));
                        self.pump(io, index);
                    }
                }
            }
        }
        let schedule = self.schedule?;
        if !self.phase.is_flowing() || self.posters.is_empty() {
            return None;
        }
        let due = schedule.due(io.now);
        while self.scheduled < due && self.budget > 0 {
            let index = (self.scheduled % self.posters.len() as u64) as usize;
            io.tally.time_recorded(Timed::Lag, io.now.saturating_sub(schedule.at(self.scheduled)));
            self.posters[index].due += 1;
            self.scheduled += 1;
            self.budget -= u64::from(self.phase == Phase::Measure);
            self.pump(io, index);
        }
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
        let quiet =
            |poster: &Poster| poster.slot.is_none() || (poster.waiting.is_none() && poster.due <= poster.posted);
        (self.phase == Phase::Drain || self.budget == 0) && self.outstanding == 0 && self.posters.iter().all(quiet)
            || self.posters.iter().all(|poster| poster.slot.is_none())
    }

    fn conclude(&mut self, io: &mut Io) {
        for socket in &self.sockets {
            io.tally.checks.lost += socket.tracker.missing(socket.sent);
        }
        for poster in &self.posters {
            io.tally.unsent += poster.due.saturating_sub(poster.posted);
        }
    }
}
