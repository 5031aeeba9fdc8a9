//! Users who follow a script: as many as its stages say, each with a connection of its own, step by step.
//!
//! A user's number is its place: it is there while the stages have so many connections, and what it is goes by its number, in all
//! its sessions; which row of a file it has by how many of its kind come before it. Closed loop: a user begins its next round when
//! the last is over. Open loop, where the stages have a rate: rounds are due at that rate, and given to whoever has nothing to
//! do; latency counts from when a round was due, as it does everywhere.
//!
//! Invariant: a timer counts only while its user is in the epoch that it was set in.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, VecDeque},
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use ringwire::proto::Kind;

use crate::{
    deal::Deal,
    headers,
    net::{App, Gone, Io, Nanos, Open, Received},
    problems::Problem,
    scenario::{AGAIN_AFTER, Phase, Scenario, Share, plain},
    script::{
        Action, Role, Script,
        seats::Seat,
        template::{Template, Values},
    },
    tally::Timed,
    target::{Ask, Target},
    wire::{Keys, Name},
};

/// What to do.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) script: Arc<Script>,
    pub(crate) deal: Deal,
    /// Handshakes in flight, on all workers.
    pub(crate) concurrency: usize,
    pub(crate) patience: Nanos,
}

/// What a user is at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Doing {
    /// It is not there.
    #[default]
    Away,
    /// It waits for its turn to connect, or connects.
    Opening,
    /// It waits for a message.
    Expecting,
    /// It waits for a time.
    Thinking,
    /// It waits for a round to be due, or has nothing more to do.
    Idle,
    /// It has said goodbye.
    Leaving,
}

#[derive(Debug, Default)]
struct User {
    seat: Seat,
    slot: Option<u32>,
    doing: Doing,
    epoch: u32,
    /// Sessions that have begun.
    sessions: u64,
    has_failed: bool,
    /// In `begin`, not in `each`.
    begins: bool,
    step: usize,
    rounds: u64,
    count: u64,
    began: Nanos,
    /// When what is waited for was asked for, and when it should have been.
    sent_at: Nanos,
    due: Nanos,
    sent: (Option<Kind>, Vec<u8>),
    variables: Vec<String>,
    path: Option<String>,
    headers: Vec<(String, String)>,
}

/// Why a path and header fields cannot be written.
fn check(path: Option<&str>, headers: &[(String, String)]) -> Result<(), String> {
    path.map_or(Ok(()), Target::check_path).map_err(|why| format!("its path: {why}"))?;
    headers.iter().try_for_each(|(name, value)| headers::check_value(value).map_err(|why| format!("{name}: {why}")))
}

/// One worker's users.
#[derive(Debug)]
pub(crate) struct Play {
    plan: Plan,
    share: Share,
    concurrency: usize,
    phase: Phase,
    began: Nanos,
    users: Vec<User>,
    /// Users below this place are to be there.
    wanted: usize,
    to_open: VecDeque<usize>,
    timers: BinaryHeap<Reverse<(Nanos, usize, u32)>>,
    /// Open loop: who has nothing to do, and which round is the next.
    idle: VecDeque<usize>,
    next_round: u64,
    is_short_of_users: bool,
    finished: usize,
    keys: Keys,
    unix_ms_at_0: u64,
}

impl Play {
    pub(crate) fn new(plan: Plan, share: Share) -> Self {
        let seats = plan.script.seats(share, plan.deal);
        Self {
            concurrency: share.of(plan.concurrency).max(1),
            phase: Phase::Open,
            began: 0,
            users: seats.into_iter().map(|seat| User { seat, ..User::default() }).collect(),
            wanted: 0,
            to_open: VecDeque::new(),
            timers: BinaryHeap::new(),
            idle: VecDeque::new(),
            next_round: share.place() as u64,
            is_short_of_users: false,
            finished: 0,
            keys: Keys::new(u64::from(std::process::id()) << 20 ^ share.place() as u64),
            unix_ms_at_0: 0,
            share,
            plan,
        }
    }

    fn role(&self, tag: usize) -> &Role {
        let script = &self.plan.script;
        &script.roles[self.users[tag].seat.role]
    }

    /// Calls back with a user's templates' values.
    fn with_values<T>(&mut self, io: &Io, tag: usize, make: impl FnOnce(&mut Values<'_>, &Role) -> T) -> T {
        let script = self.plan.script.clone();
        let user = &self.users[tag];
        let seat = user.seat;
        let mut values = Values {
            user: seat.number as u64,
            session: user.sessions,
            count: user.count,
            now_ms: self.unix_ms_at_0 + io.now / 1_000_000,
            variables: &user.variables,
            messages: io.messages,
            keys: &mut self.keys,
        };
        make(&mut values, &script.roles[seat.role])
    }

    fn set_timer(&mut self, tag: usize, at: Nanos) {
        self.timers.push(Reverse((at, tag, self.users[tag].epoch)));
    }

    fn enter(&mut self, tag: usize, doing: Doing) {
        let user = &mut self.users[tag];
        user.doing = doing;
        user.epoch += 1;
    }

    /// Opens and closes what the stages have it, and says when that changes next.
    fn follow_stages(&mut self, io: &mut Io) -> Option<Nanos> {
        let at = io.now - self.began;
        let stages = &self.plan.script.stages;
        let connections = stages.connections(at);
        let wanted = self.users.partition_point(|user| user.seat.number < connections);
        let changes = stages.changes(at).map(|at| self.began + at);
        for tag in self.wanted..wanted {
            // Whoever has come to the end of its sessions stays away.
            if self.users[tag].doing == Doing::Away && !self.is_done(tag) {
                self.enter(tag, Doing::Opening);
                self.to_open.push_back(tag);
            }
        }
        for tag in wanted..self.wanted {
            self.leave(io, tag);
        }
        self.wanted = wanted;
        while io.opening < self.concurrency
            && let Some(tag) = self.to_open.pop_front()
        {
            self.open(io, tag);
        }
        changes
    }

    fn is_done(&self, tag: usize) -> bool {
        self.plan.script.sessions.is_some_and(|sessions| self.users[tag].sessions >= sessions)
    }

    /// Begins a session.
    fn open(&mut self, io: &mut Io, tag: usize) {
        if self.users[tag].doing != Doing::Opening {
            return;
        }
        if tag >= self.wanted {
            return self.enter(tag, Doing::Away);
        }
        let seat = self.users[tag].seat;
        let role = self.role(tag);
        let row = role.rows.get(seat.number_in_role % role.rows.len().max(1)).cloned().unwrap_or_default();
        // The first turns are those of the URLs in their order.
        let turn = role.target.unwrap_or(seat.turn);
        let variables = role.variables.len();
        let user = &mut self.users[tag];
        *user = User {
            seat,
            doing: user.doing,
            epoch: user.epoch,
            sessions: user.sessions,
            began: io.now,
            ..User::default()
        };
        user.variables = row;
        user.begins = true;
        for place in 0..variables {
            let value = self.with_values(io, tag, |values, role| role.variables[place].text(values));
            self.users[tag].variables.push(value);
        }
        let (path, headers) = self.with_values(io, tag, |values, role| {
            let path = role.path.as_ref().map(|path| path.text(values));
            let header = |(name, value): &(String, Template)| (name.clone(), value.text(values));
            (path, role.headers.iter().map(header).collect::<Vec<_>>())
        });
        let user = &mut self.users[tag];
        user.sessions += 1;
        if let Err(why) = check(path.as_deref(), &headers) {
            io.tally.note(Problem::Failed, 1, || format!("user {}: {why}", seat.number));
            self.enter(tag, Doing::Away);
            self.finished += usize::from(self.is_done(tag));
            return self.set_timer(tag, io.now + AGAIN_AFTER);
        }
        (user.path, user.headers) = (path, headers);
        io.open(Open { number: seat.number, turn: Some(turn), ..plain(tag, false) });
    }

    /// Ends a user's session in order.
    fn leave(&mut self, io: &mut Io, tag: usize) {
        match (self.users[tag].doing, self.users[tag].slot) {
            (Doing::Away | Doing::Leaving, _) => {}
            (_, Some(slot)) => {
                self.enter(tag, Doing::Leaving);
                io.leave(slot);
            }
            // It has not begun to connect, or is at it: `opened` sees to that.
            (_, None) => {}
        }
    }

    /// Goes on with a user's steps until one has to be waited for.
    fn go_on(&mut self, io: &mut Io, tag: usize) {
        let script = self.plan.script.clone();
        let role = &script.roles[self.users[tag].seat.role];
        while let Some(slot) = self.users[tag].slot {
            if self.phase != Phase::Measure {
                return self.enter(tag, Doing::Idle);
            }
            let user = &self.users[tag];
            let actions = if user.begins { &role.begin } else { &role.each };
            let Some(action) = actions.get(user.step) else {
                if !self.begin_round(io, tag, role) {
                    return;
                }
                continue;
            };
            self.users[tag].step += 1;
            match action {
                Action::Send { payload, kind } => {
                    let bytes = self.with_values(io, tag, |values, _| payload.render(values));
                    io.message(slot, *kind, &bytes);
                    io.tally.published += 1;
                    let user = &mut self.users[tag];
                    user.count += 1;
                    user.sent_at = io.now;
                    user.sent = (Some(*kind), bytes);
                }
                Action::Expect { within, .. } => {
                    self.enter(tag, Doing::Expecting);
                    return self.set_timer(tag, io.now + within.unwrap_or(self.plan.patience));
                }
                Action::Think(span) => {
                    let at = io.now + span.choose(self.keys.bits());
                    self.enter(tag, Doing::Thinking);
                    return self.set_timer(tag, at);
                }
                Action::At(after) => {
                    let at = self.users[tag].began + after;
                    if at > io.now {
                        self.enter(tag, Doing::Thinking);
                        return self.set_timer(tag, at);
                    }
                }
            }
        }
    }

    /// A round is over, or what comes before the first: begins the next, if it is time; `false` if there is nothing to do now.
    fn begin_round(&mut self, io: &mut Io, tag: usize, role: &Role) -> bool {
        let user = &mut self.users[tag];
        let was_begin = std::mem::replace(&mut user.begins, false);
        user.rounds += u64::from(!was_begin || role.each.is_empty());
        user.step = 0;
        user.due = io.now;
        if role.rounds.is_some_and(|rounds| user.rounds >= rounds) {
            self.leave(io, tag);
            return false;
        }
        if role.each.is_empty() {
            self.enter(tag, Doing::Idle);
            return false;
        }
        if self.plan.script.stages.has_rate() {
            self.enter(tag, Doing::Idle);
            self.idle.push_back(tag);
            return false;
        }
        true
    }

    /// Gives rounds that are due to whoever has nothing to do, and says when the next is.
    fn follow_rate(&mut self, io: &mut Io) -> Option<Nanos> {
        let script = self.plan.script.clone();
        loop {
            let due = self.began + script.stages.due(self.next_round)?;
            if due > io.now {
                self.is_short_of_users = false;
                return Some(due);
            }
            let Some(tag) = self.idle.pop_front() else {
                // It is late, and will be counted so: whoever is done first takes it.
                self.is_short_of_users = true;
                return None;
            };
            let user = &mut self.users[tag];
            if user.doing != Doing::Idle || user.slot.is_none() || user.begins {
                continue;
            }
            user.due = due;
            if !self.is_short_of_users {
                io.tally.time_recorded(Timed::Lag, io.now - due);
            }
            self.next_round += self.share.places() as u64;
            self.go_on(io, tag);
        }
    }

    /// Rounds that are due by the end and were given to nobody.
    fn count_unsent(&self, io: &mut Io) {
        let stages = &self.plan.script.stages;
        let end = stages.end().min(io.now - self.began);
        let is_connected = self.users.iter().any(|user| user.slot.is_some());
        let mut round = self.next_round;
        while stages.has_rate() && stages.due(round).is_some_and(|due| due < end) {
            io.tally.never_sent(1, is_connected);
            round += self.share.places() as u64;
        }
    }

    /// What a user waits for is lost.
    fn lose(&self, io: &mut Io, tag: usize, why: &str) {
        let (number, role, name) = (self.users[tag].seat.number, &self.role(tag).name, self.expected_name(tag));
        io.tally.note(Problem::Lost, 1, || format!("user {number} ({role}): {name}: {why}"));
    }

    /// What a user waits for does not come.
    fn fail(&mut self, io: &mut Io, tag: usize, what: &str) {
        self.lose(io, tag, what);
        self.users[tag].has_failed = true;
        self.leave(io, tag);
    }

    /// The name of the expectation that the user is at.
    fn expected_name(&self, tag: usize) -> &str {
        match self.expected(tag) {
            Some(Action::Expect { name, .. }) => &self.plan.script.names[*name],
            _ => "a message",
        }
    }

    fn expected(&self, tag: usize) -> Option<&Action> {
        let (user, role) = (&self.users[tag], self.role(tag));
        let actions = if user.begins { &role.begin } else { &role.each };
        actions.get(user.step.checked_sub(1)?)
    }

    /// What was waited for has come.
    fn arrived(&mut self, io: &mut Io, tag: usize, name: usize) {
        let user = &self.users[tag];
        let (sent_at, due) = (user.sent_at, user.due);
        let has_rate = self.plan.script.stages.has_rate() && !user.begins;
        io.tally.done += 1;
        // What a server says by itself when it is connected to answers nothing.
        if user.count > 0 {
            io.tally.latency(io.now.saturating_sub(if has_rate { due.min(sent_at) } else { sent_at }));
            if has_rate {
                io.tally.time_recorded(Timed::Uncorrected, io.now - sent_at);
            }
        }
        io.tally.step(name, io.now - sent_at);
        // Only the first wait of a round is late by the round's own lateness.
        self.users[tag].due = Nanos::MAX;
        self.go_on(io, tag);
    }

    fn fire_timers(&mut self, io: &mut Io) {
        while let Some(&Reverse((at, tag, epoch))) = self.timers.peek() {
            if at > io.now {
                return;
            }
            self.timers.pop();
            if self.users[tag].epoch != epoch {
                continue;
            }
            match self.users[tag].doing {
                Doing::Expecting => self.fail(io, tag, "nothing came that is as expected"),
                Doing::Thinking => {
                    // Whatever was asked before was answered before.
                    self.users[tag].sent_at = io.now;
                    self.go_on(io, tag);
                }
                // Its time away is over.
                Doing::Away if tag < self.wanted && self.phase == Phase::Measure && !self.is_done(tag) => {
                    self.enter(tag, Doing::Opening);
                    self.to_open.push_back(tag);
                }
                _ => {}
            }
        }
    }
}

impl App for Play {
    fn opened(&mut self, io: &mut Io, conn: u32, tag: u32) {
        let tag = tag as usize;
        let user = &mut self.users[tag];
        user.slot = Some(conn);
        (user.began, user.sent_at, user.due) = (io.now, io.now, io.now);
        self.enter(tag, Doing::Idle);
        if tag >= self.wanted {
            return self.leave(io, tag);
        }
        self.go_on(io, tag);
    }

    fn ask(&self, tag: u32) -> Ask<'_> {
        let user = &self.users[tag as usize];
        Ask { path: user.path.as_deref(), headers: &user.headers }
    }

    fn due(&self, _tag: u32) -> Option<Name> {
        None
    }

    fn matched(&mut self, _io: &mut Io, _conn: u32, _tag: u32) {}

    fn received(&mut self, io: &mut Io, _conn: u32, tag: u32, message: Received<'_>) {
        let tag = tag as usize;
        let script = self.plan.script.clone();
        let role = &script.roles[self.users[tag].seat.role];
        let user = &self.users[tag];
        if user.doing == Doing::Leaving {
            return;
        }
        let actions = if user.begins { &role.begin } else { &role.each };
        let expected = match (user.doing, user.step.checked_sub(1).and_then(|step| actions.get(step))) {
            (Doing::Expecting, Some(Action::Expect { name, what, .. })) => Some((*name, what)),
            _ => None,
        };
        let Some((name, what)) = expected else {
            io.tally.unasked += 1;
            if role.strict {
                let number = self.users[tag].seat.number;
                io.tally.note(Problem::Unexpected, 1, || {
                    format!("user {number} ({}): a message that it did not wait for", role.name)
                });
            }
            return;
        };
        let sent = std::mem::take(&mut self.users[tag].sent);
        let is_met = self.with_values(io, tag, |values, _| {
            let sent = (sent.0.unwrap_or(message.kind), &sent.1[..]);
            what.is_met(message.kind, message.payload, sent, values)
        });
        self.users[tag].sent = sent;
        if is_met {
            return self.arrived(io, tag, name);
        }
        io.tally.unasked += 1;
        if role.strict {
            let (number, len) = (self.users[tag].seat.number, message.payload.len());
            let name = &script.names[name];
            io.tally.note(Problem::Corrupted, 1, || {
                format!("user {number} ({}): {name}: {len} bytes that are not as expected", role.name)
            });
            // It took the place of the right one.
            self.go_on(io, tag);
        }
    }

    fn closed(&mut self, io: &mut Io, _conn: u32, tag: u32, gone: Gone) {
        let tag = tag as usize;
        let user = &mut self.users[tag];
        user.slot = None;
        let (was, has_failed) = (user.doing, user.has_failed || gone == Gone::Failed);
        if was == Doing::Expecting && self.phase < Phase::Stop {
            self.lose(io, tag, "the connection ended before it came");
        }
        if was == Doing::Leaving && !has_failed {
            io.tally.sessions += 1;
        }
        self.enter(tag, Doing::Away);
        if self.is_done(tag) {
            self.finished += 1;
            return;
        }
        if self.phase == Phase::Measure && tag < self.wanted {
            let away = self.role(tag).away.choose(self.keys.bits());
            self.set_timer(tag, io.now + if has_failed { away.max(AGAIN_AFTER) } else { away });
        }
    }

    fn tick(&mut self, io: &mut Io) -> Option<Nanos> {
        if self.phase != Phase::Measure {
            self.fire_timers(io);
            return self.timers.peek().map(|next| next.0.0);
        }
        self.fire_timers(io);
        let stages = self.follow_stages(io);
        let rate = self.follow_rate(io);
        let timer = self.timers.peek().map(|next| next.0.0);
        [stages, rate, timer].into_iter().flatten().min()
    }
}

impl Scenario for Play {
    fn enter(&mut self, io: &mut Io, phase: Phase) {
        let before = std::mem::replace(&mut self.phase, phase);
        if phase == Phase::Measure && before < phase {
            self.began = io.now;
            let unix = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64);
            self.unix_ms_at_0 = unix.saturating_sub(io.now / 1_000_000);
        }
        if before == Phase::Measure && phase > before {
            self.count_unsent(io);
        }
    }

    fn is_ready(&self, _io: &Io) -> bool {
        true
    }

    fn is_idle(&mut self, io: &Io) -> bool {
        match self.phase {
            Phase::Measure => self.plan.script.sessions.is_some() && self.finished == self.users.len(),
            _ => io.opening == 0 && !self.users.iter().any(|user| user.doing == Doing::Expecting),
        }
    }

    fn conclude(&mut self, io: &mut Io) {
        for tag in 0..self.users.len() {
            if self.users[tag].doing == Doing::Expecting && self.users[tag].slot.is_some() {
                self.lose(io, tag, "it had not come when the run ended");
            }
        }
    }
}
