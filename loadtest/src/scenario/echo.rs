//! Echo: every connection sends messages and gets each back.
//!
//! Closed loop: a fixed number in flight per connection. Open loop: messages are due at an even rate; a connection with
//! its full number in flight sends late, and the latency counts from when the message was due all the same.

use crate::{
    net::{App, Gone, Io, Nanos, Received},
    problems::Problem,
    scenario::{Opener, Pace, Phase, Ramp, Scenario, Schedule, Share, Verdict, judge, plain},
    tally::Timed,
    track::Tracker,
    wire::Name,
};

/// How often replies that take too long are looked for.
const LOOK_EVERY: Nanos = 50_000_000;

/// What to do.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) connections: usize,
    pub(crate) ramp: Ramp,
    pub(crate) pipeline: usize,
    pub(crate) pace: Pace,
    pub(crate) raw: bool,
}

/// A connection. Invariant: `tracker.next <= sent <= tracker.next + pipeline`.
#[derive(Debug, Default)]
struct Conn {
    slot: Option<u32>,
    sent: u64,
    /// Open loop: how many should have been sent.
    due: u64,
    tracker: Tracker,
}

/// One worker's connections.
#[derive(Debug)]
pub(crate) struct Echo {
    plan: Plan,
    share: Share,
    opener: Opener,
    phase: Phase,
    conns: Vec<Conn>,
    /// When each message in flight was sent: `pipeline` places per connection.
    sent_at: Vec<Nanos>,
    schedule: Option<Schedule>,
    scheduled: u64,
    budget: u64,
    outstanding: u64,
    alive: usize,
    look_again: Nanos,
}

impl Echo {
    pub(crate) fn new(plan: Plan, share: Share) -> Self {
        let count = share.of(plan.connections);
        Self {
            opener: Opener::new(share, count, plan.ramp),
            phase: Phase::Open,
            conns: (0..count).map(|_| Conn::default()).collect(),
            sent_at: vec![0; count * plan.pipeline],
            schedule: None,
            scheduled: 0,
            budget: share.of_budget(plan.pace.count),
            outstanding: 0,
            alive: 0,
            look_again: 0,
            share,
            plan,
        }
    }

    fn stream(&self, tag: usize) -> u32 {
        self.share.number(tag) as u32
    }

    /// Sends what the connection may send now.
    #[inline]
    fn pump(&mut self, io: &mut Io, tag: usize) {
        let stream = self.stream(tag);
        let conn = &mut self.conns[tag];
        let Some(slot) = conn.slot else { return };
        let depth = self.plan.pipeline as u64;
        let room = depth - (conn.sent - conn.tracker.next);
        let count = if !self.phase.is_flowing() {
            0
        } else if self.schedule.is_some() {
            room.min(conn.due - conn.sent)
        } else if self.phase == Phase::Measure {
            let count = room.min(self.budget);
            self.budget -= count;
            count
        } else {
            room
        };
        for _ in 0..count {
            io.send(slot, Name { stream, sequence: conn.sent });
            self.sent_at[tag * self.plan.pipeline + (conn.sent % depth) as usize] = io.now;
            conn.sent += 1;
        }
        self.outstanding += count;
    }

    #[inline]
    fn arrived(&mut self, io: &mut Io, tag: usize, sequence: u64) {
        self.outstanding -= 1;
        io.tally.done += 1;
        let sent_at = self.sent_at[tag * self.plan.pipeline + (sequence % self.plan.pipeline as u64) as usize];
        match &self.schedule {
            None => io.tally.latency(io.now - sent_at),
            Some(schedule) => {
                let due = schedule.at(sequence * self.conns.len() as u64 + tag as u64);
                io.tally.latency(io.now.saturating_sub(due));
                io.tally.time_recorded(Timed::Uncorrected, io.now - sent_at);
            }
        }
        self.pump(io, tag);
    }

    /// Gives up what a connection waits for, up to this message.
    fn give_up(&mut self, tag: usize, end: u64) {
        let conn = &mut self.conns[tag];
        self.outstanding -= end - conn.tracker.next;
        conn.tracker.give_up(end);
    }

    fn follow_schedule(&mut self, io: &mut Io) -> Option<Nanos> {
        let schedule = self.schedule?;
        if !self.phase.is_flowing() || self.conns.is_empty() {
            return None;
        }
        self.take_due(io);
        Some(schedule.at(self.scheduled))
    }

    /// Gives what is due to the connections, and has them send it.
    fn take_due(&mut self, io: &mut Io) {
        let Some(schedule) = self.schedule.filter(|_| !self.conns.is_empty()) else { return };
        let due = schedule.due(io.now);
        while self.scheduled < due && self.budget > 0 {
            let tag = (self.scheduled % self.conns.len() as u64) as usize;
            io.tally.time_recorded(Timed::Lag, io.now.saturating_sub(schedule.at(self.scheduled)));
            self.conns[tag].due += 1;
            self.scheduled += 1;
            self.budget -= u64::from(self.phase == Phase::Measure);
            self.pump(io, tag);
        }
    }

    fn look_for_the_missing(&mut self, io: &mut Io) {
        self.look_again = io.now + LOOK_EVERY;
        let depth = self.plan.pipeline;
        for tag in 0..self.conns.len() {
            let conn = &self.conns[tag];
            let sent_at = |sequence: u64| self.sent_at[tag * depth + (sequence % depth as u64) as usize];
            let is_late = |sequence: &u64| io.now > sent_at(*sequence) + self.plan.pace.patience;
            let late = (conn.tracker.next..conn.sent).take_while(is_late).count() as u64;
            if late > 0 {
                self.give_up(tag, conn.tracker.next + late);
                self.pump(io, tag);
            }
        }
    }
}

impl App for Echo {
    fn opened(&mut self, _io: &mut Io, conn: u32, tag: u32) {
        self.conns[tag as usize].slot = Some(conn);
        self.alive += 1;
    }

    #[inline]
    fn due(&self, tag: u32) -> Option<Name> {
        let conn = &self.conns[tag as usize];
        let sequence = conn.tracker.next;
        (sequence < conn.sent).then(|| Name { stream: self.stream(tag as usize), sequence })
    }

    #[inline]
    fn matched(&mut self, io: &mut Io, _conn: u32, tag: u32) {
        let conn = &mut self.conns[tag as usize];
        let sequence = conn.tracker.next;
        conn.tracker.next += 1;
        self.arrived(io, tag as usize, sequence);
    }

    fn received(&mut self, io: &mut Io, _conn: u32, tag: u32, message: Received<'_>) {
        let stream = self.stream(tag as usize);
        let conn = &mut self.conns[tag as usize];
        match judge(io, tag, stream, &mut conn.tracker, conn.sent, message) {
            Verdict::Arrived { sequence, skipped } => {
                self.outstanding -= skipped;
                self.arrived(io, tag as usize, sequence);
            }
            Verdict::Spoilt => {
                self.outstanding -= 1;
                self.pump(io, tag as usize);
            }
            Verdict::Nothing => {}
        }
    }

    fn closed(&mut self, _io: &mut Io, _conn: u32, tag: u32, _gone: Gone) {
        if self.conns[tag as usize].slot.take().is_some() {
            self.alive -= 1;
            self.give_up(tag as usize, self.conns[tag as usize].sent);
        }
    }

    fn tick(&mut self, io: &mut Io) -> Option<Nanos> {
        if self.phase == Phase::Open {
            let raw = self.plan.raw;
            return self.opener.tick(io, |tag| plain(tag, raw));
        }
        if io.now >= self.look_again {
            self.look_for_the_missing(io);
        }
        self.follow_schedule(io)
    }
}

impl Scenario for Echo {
    fn enter(&mut self, io: &mut Io, phase: Phase) {
        let before = std::mem::replace(&mut self.phase, phase);
        if before < Phase::Warmup && phase.is_flowing() {
            self.schedule = self
                .plan
                .pace
                .rate
                .map(|rate| Schedule::new(io.now, rate, self.share, self.conns.len(), self.plan.connections));
        }
        if phase.is_flowing() && self.schedule.is_none() {
            (0..self.conns.len()).for_each(|tag| self.pump(io, tag));
        }
    }

    fn is_ready(&self, io: &Io) -> bool {
        self.opener.is_done(io)
    }

    fn is_idle(&mut self, _io: &Io) -> bool {
        let all_sent = || self.conns.iter().all(|conn| conn.slot.is_none() || conn.due <= conn.sent);
        let over = self.phase == Phase::Drain || self.alive == 0 || (self.budget == 0 && all_sent());
        over && self.outstanding == 0
    }

    fn conclude(&mut self, io: &mut Io) {
        for (tag, conn) in self.conns.iter().enumerate() {
            let lost = conn.tracker.missing(conn.sent);
            let with_it = if conn.slot.is_none() { ", which ended" } else { "" };
            let late = conn.tracker.came_too_late();
            io.tally.note(Problem::Lost, lost, || match late {
                0 => format!("connection {tag}{with_it}: {lost} replies never came"),
                _ => format!("connection {tag}{with_it}: {lost} replies did not come in time, {late} of them later"),
            });
            io.tally.never_sent(conn.due.saturating_sub(conn.sent), conn.slot.is_some());
        }
    }
}
