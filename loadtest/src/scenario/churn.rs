//! Churn: users who come, say a few words, and go, over and over.

use std::collections::VecDeque;

use crate::{
    net::{App, Gone, Io, Nanos, Received},
    problems::Problem,
    scenario::{AGAIN_AFTER, Pace, Phase, Scenario, Schedule, Share, Verdict, judge, plain},
    tally::Timed,
    track::Tracker,
    wire::{Name, STREAMS_MAX},
};

/// What to do.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// Users at once.
    pub(crate) users: usize,
    /// Messages each sends, and gets back, before it leaves.
    pub(crate) words: u64,
    /// Of sessions, not of messages.
    pub(crate) pace: Pace,
}

/// A user's place. A session uses a stream of its own.
#[derive(Debug, Default)]
struct User {
    slot: Option<u32>,
    busy: bool,
    session: u32,
    sent: u64,
    tracker: Tracker,
    /// When the session was due, and when it began.
    due: Nanos,
    began: Nanos,
    last_at: Nanos,
    leaving: bool,
}

/// One worker's users.
#[derive(Debug)]
pub(crate) struct Churn {
    plan: Plan,
    share: Share,
    phase: Phase,
    users: Vec<User>,
    free: Vec<usize>,
    /// Those whose connections failed, and when each may connect again, in that order.
    resting: VecDeque<(Nanos, usize)>,
    sessions: u64,
    schedule: Option<Schedule>,
    budget: u64,
    look_again: Nanos,
    /// When a session was opened last.
    opened_at: Option<Nanos>,
}

impl Churn {
    pub(crate) fn new(plan: Plan, share: Share) -> Self {
        let count = share.of(plan.users).max(1);
        Self {
            phase: Phase::Open,
            users: (0..count).map(|_| User::default()).collect(),
            free: (0..count).rev().collect(),
            resting: VecDeque::new(),
            sessions: 0,
            schedule: None,
            budget: share.of_budget(plan.pace.count),
            look_again: 0,
            opened_at: None,
            share,
            plan,
        }
    }

    fn begin(&mut self, io: &mut Io, due: Nanos) -> bool {
        let Some(tag) = self.free.pop() else { return false };
        let number = self.share.number(self.sessions as usize);
        self.sessions += 1;
        self.users[tag] = User {
            busy: true,
            session: number as u32 & (STREAMS_MAX as u32 - 1),
            due,
            began: io.now,
            last_at: io.now,
            ..User::default()
        };
        let mut open = plain(tag, false);
        open.number = number;
        io.open(open);
        true
    }

    fn begin_more(&mut self, io: &mut Io) -> Option<Nanos> {
        if !self.phase.is_flowing() {
            return None;
        }
        while let Some(&(_, tag)) = self.resting.front().filter(|(until, _)| *until <= io.now) {
            self.resting.pop_front();
            self.free.push(tag);
        }
        let due = self.begin_due(io);
        let rested = self.resting.front().map(|(until, _)| *until);
        [due, rested].into_iter().flatten().min()
    }

    /// Begins the sessions that are due, as far as there are users, and says when the next is.
    fn begin_due(&mut self, io: &mut Io) -> Option<Nanos> {
        let Some(schedule) = self.schedule else {
            while self.budget > 0 && self.begin(io, io.now) {
                self.budget -= u64::from(self.phase == Phase::Measure);
            }
            return None;
        };
        while self.budget > 0 && schedule.at(self.sessions) <= io.now && self.begin(io, schedule.at(self.sessions)) {
            self.budget -= u64::from(self.phase == Phase::Measure);
        }
        Some(schedule.at(self.sessions)).filter(|at| *at > io.now)
    }

    fn go_on(&mut self, io: &mut Io, tag: usize) {
        let user = &mut self.users[tag];
        let Some(slot) = user.slot else { return };
        user.last_at = io.now;
        if user.sent < self.plan.words {
            io.send(slot, Name { stream: user.session, sequence: user.sent });
            user.sent += 1;
        } else {
            user.leaving = true;
            io.leave(slot);
        }
    }

    fn look_for_the_stuck(&mut self, io: &mut Io) {
        self.look_again = io.now + 100_000_000;
        for user in &mut self.users {
            if let Some(slot) = user.slot.filter(|_| !user.leaving && io.now > user.last_at + self.plan.pace.patience) {
                user.leaving = true;
                io.abandon(slot);
            }
        }
    }
}

impl App for Churn {
    fn opened(&mut self, io: &mut Io, conn: u32, tag: u32) {
        self.users[tag as usize].slot = Some(conn);
        self.opened_at = Some(io.now);
        self.go_on(io, tag as usize);
    }

    fn due(&self, tag: u32) -> Option<Name> {
        let user = &self.users[tag as usize];
        let sequence = user.tracker.next;
        (sequence < user.sent).then_some(Name { stream: user.session, sequence })
    }

    fn matched(&mut self, io: &mut Io, _conn: u32, tag: u32) {
        self.users[tag as usize].tracker.next += 1;
        self.go_on(io, tag as usize);
    }

    fn received(&mut self, io: &mut Io, _conn: u32, tag: u32, message: Received<'_>) {
        let user = &mut self.users[tag as usize];
        match judge(io, tag, user.session, &mut user.tracker, user.sent, message) {
            Verdict::Arrived { .. } | Verdict::Spoilt => self.go_on(io, tag as usize),
            Verdict::Nothing => {}
        }
    }

    fn closed(&mut self, io: &mut Io, _conn: u32, tag: u32, gone: Gone) {
        let user = &mut self.users[tag as usize];
        let missing = user.tracker.missing(user.sent);
        if self.phase < Phase::Stop {
            lose(io, user.session, missing);
        }
        if gone == Gone::Left && missing == 0 && user.leaving {
            io.tally.done += 1;
            io.tally.latency(io.now.saturating_sub(user.due));
            if self.schedule.is_some() {
                io.tally.time_recorded(Timed::Uncorrected, io.now - user.began);
            }
        }
        user.slot = None;
        user.busy = false;
        match gone {
            Gone::Failed => self.resting.push_back((io.now + AGAIN_AFTER, tag as usize)),
            Gone::Left => self.free.push(tag as usize),
        }
    }

    fn tick(&mut self, io: &mut Io) -> Option<Nanos> {
        if io.now >= self.look_again {
            self.look_for_the_stuck(io);
        }
        self.begin_more(io)
    }
}

impl Scenario for Churn {
    fn enter(&mut self, io: &mut Io, phase: Phase) {
        let before = std::mem::replace(&mut self.phase, phase);
        if before < Phase::Warmup && phase.is_flowing() {
            self.schedule =
                self.plan.pace.rate.map(|rate| Schedule::new(io.now, rate, self.share, 1, self.share.places()));
        }
        if let Some(schedule) = self.schedule.filter(|_| before.is_flowing() && !phase.is_flowing()) {
            let late = schedule.due(io.now).saturating_sub(self.sessions).min(self.budget);
            // Between two sessions a user has no connection either.
            let is_connected = self.users.iter().any(|user| user.slot.is_some())
                || self.opened_at.is_some_and(|at| io.now < at + self.plan.pace.patience);
            io.tally.never_sent(late, is_connected);
        }
    }

    fn is_ready(&self, _io: &Io) -> bool {
        true
    }

    fn is_idle(&mut self, _io: &Io) -> bool {
        (self.phase == Phase::Drain || self.budget == 0) && self.free.len() + self.resting.len() == self.users.len()
    }

    fn conclude(&mut self, io: &mut Io) {
        // A session goes on after the measured time: what it said last may still be answered.
        let now = io.now;
        let is_late = |user: &&User| user.busy && now > user.last_at + self.plan.pace.patience;
        for user in self.users.iter().filter(is_late) {
            lose(io, user.session, user.tracker.missing(user.sent));
        }
    }
}

/// Replies of a session never came.
fn lose(io: &mut Io, session: u32, count: u64) {
    io.tally.note(Problem::Lost, count, || format!("session {session}: {count} replies never came"));
}
