//! Broadcast, rooms and slow readers: a message to one group of connections reaches each of its members.
//!
//! Members of a group are dealt out to all workers. A message's times are in a table that the workers share; each worker
//! adds up its own deliveries of a message and reports once when it has them all, so the table is touched once per
//! message and worker. The last one to report tells the publisher's worker.
//!
//! One of several agents has groups of its own, whole: what was sent is known to the process that sent it. Their numbers, and
//! those of their streams, are of the whole run, so that a message that reaches another agent's group is found too.
//!
//! Closed loop: a publisher sends its next burst when everybody has the last. Open loop: at an even rate.

mod board;
mod plan;

use std::sync::{Arc, atomic::Ordering};

pub(crate) use self::{board::Board, plan::Plan};
use crate::{
    net::{App, Gone, Io, Nanos, Open, Received},
    problems::Problem,
    scenario::{Opener, Phase, Scenario, Schedule, Share, Verdict, judge, plain},
    tally::Timed,
    track::Tracker,
    wire::{Messages, Name},
};

/// Open loop: a worker publishes so many messages before it looks at what comes.
const AT_ONCE_MAX: u64 = 4096;
/// A stalled reader's receive buffer: small, so that the server feels it soon.
const STALLED_BUFFER: usize = 4096;

/// A connection of this worker.
#[derive(Debug)]
struct Member {
    slot: Option<u32>,
    group: u32,
    stalls: bool,
    trackers: Box<[Tracker]>,
}

/// A publisher of this worker.
#[derive(Debug)]
struct Publisher {
    tag: usize,
    stream: usize,
    /// Bursts that should have been published, and those that were.
    due: u64,
    bursts: u64,
    last_at: Nanos,
}

/// This worker's deliveries of one message.
#[derive(Clone, Copy, Debug, Default)]
struct Local {
    sequence: u64,
    count: u32,
    first: Nanos,
    last: Nanos,
}

/// One worker's members.
#[derive(Debug)]
pub(crate) struct Fanout {
    board: Arc<Board>,
    share: Share,
    opener: Opener,
    phase: Phase,
    members: Vec<Member>,
    publishers: Vec<Publisher>,
    local: Vec<Local>,
    /// Per group: members here that must get everything, and how many workers have any.
    counted: Vec<u32>,
    workers_with: Vec<u32>,
    schedule: Option<Schedule>,
    scheduled: u64,
    /// How many more it may publish in this tick.
    at_once: u64,
    budget: u64,
    stall_at: Option<Nanos>,
    stalling: bool,
    raw: bool,
}

impl Fanout {
    pub(crate) fn new(board: Arc<Board>, share: Share) -> Self {
        let plan = &board.plan;
        let each = plan.members + plan.stalled;
        // Which groups are here is settled; their members are dealt out to the workers here.
        let here = share.here();
        let count = here.of(plan.connections());
        let mut publishers = Vec::new();
        let mut counted = vec![0; plan.groups];
        let members = (0..count)
            .map(|tag| {
                let number = here.number(tag);
                let (group, place) = (number / each, number % each);
                if place < plan.publishers {
                    publishers.push(Publisher {
                        tag,
                        stream: group * plan.publishers + place,
                        due: 0,
                        bursts: 0,
                        last_at: 0,
                    });
                }
                let stalls = place >= plan.members;
                counted[group] += u32::from(!stalls);
                let trackers = vec![Tracker::default(); plan.publishers].into_boxed_slice();
                Member { slot: None, group: group as u32, stalls, trackers }
            })
            .collect();
        let workers_with = (0..plan.groups)
            .map(|group| {
                let first = group * each;
                (0..board.workers)
                    .filter(|worker| (first..first + plan.members).any(|n| n % board.workers == *worker))
                    .count() as u32
            })
            .collect();
        let budget = plan
            .pace
            .count
            .map_or(u64::MAX, |count| publishers.iter().map(|publisher| plan.bursts(count, publisher.stream)).sum());
        Self {
            opener: Opener::new(share, count, plan.ramp),
            phase: Phase::Open,
            local: vec![Local::default(); board.flights.len()],
            raw: plan.raw,
            members,
            publishers,
            counted,
            workers_with,
            schedule: None,
            scheduled: 0,
            at_once: 0,
            budget,
            stall_at: None,
            stalling: false,
            board,
            share,
        }
    }

    /// The group's stream that a message belongs to, if the message says so.
    fn tracker_of(&self, member: usize, stream: u32) -> Option<usize> {
        let publishers = self.board.plan.publishers;
        let first = self.board.numbers[self.members[member].group as usize * publishers];
        stream.checked_sub(first).map(|place| place as usize).filter(|&place| place < publishers)
    }

    #[inline]
    fn delivered(&mut self, io: &mut Io, tag: usize, stream: usize, sequence: u64) {
        io.tally.done += 1;
        let member = &self.members[tag];
        if member.stalls {
            return;
        }
        let place = self.board.place(stream, sequence);
        let flight = &self.board.flights[place];
        if flight.sequence.load(Ordering::Acquire) == sequence {
            let latency = io.now.saturating_sub(flight.due.load(Ordering::Relaxed));
            io.tally.latency(latency);
            if self.schedule.is_some() || self.board.plan.pace.rate.is_some() {
                let sent = flight.sent.load(Ordering::Relaxed);
                io.tally.time_recorded(Timed::Uncorrected, io.now.saturating_sub(sent));
            }
            if self.board.plan.stalled > 0 {
                let what = if self.stalling { Timed::WhileStalled } else { Timed::BeforeStall };
                io.tally.time_recorded(what, latency);
            }
        }
        let local = &mut self.local[place];
        if local.sequence != sequence || local.count == 0 {
            *local = Local { sequence, count: 0, first: io.now, last: io.now };
        }
        local.count += 1;
        local.last = io.now;
        if local.count == self.counted[member.group as usize] {
            let (local, group) = (*local, member.group as usize);
            self.local[place].count = 0;
            self.report(io, stream, place, local, self.workers_with[group]);
        }
    }

    /// This worker has all its deliveries of a message.
    fn report(&mut self, io: &mut Io, stream: usize, place: usize, local: Local, workers: u32) {
        let flight = &self.board.flights[place];
        if flight.sequence.load(Ordering::Acquire) != local.sequence {
            return;
        }
        flight.first.fetch_min(local.first, Ordering::AcqRel);
        flight.last.fetch_max(local.last, Ordering::AcqRel);
        if flight.workers.fetch_add(1, Ordering::AcqRel) + 1 < workers {
            return;
        }
        let spread = flight.last.load(Ordering::Acquire) - flight.first.load(Ordering::Acquire);
        io.tally.time_recorded(Timed::Spread, spread);
        let of = &self.board.streams[stream];
        of.took.store(io.now.saturating_sub(flight.sent.load(Ordering::Relaxed)), Ordering::Relaxed);
        of.completed_at.store(io.now, Ordering::Relaxed);
        of.completed.fetch_add(1, Ordering::AcqRel);
        let plan = &self.board.plan;
        let first = stream / plan.publishers * (plan.members + plan.stalled) + stream % plan.publishers;
        let worker = first % self.board.workers;
        if worker != self.share.worker
            && plan.pace.rate.is_none()
            && let Some(bell) = self.board.bells[worker].get()
        {
            bell.ring();
        }
    }

    fn publish(&mut self, io: &mut Io, index: usize, due: Nanos) {
        let publisher = &mut self.publishers[index];
        publisher.last_at = io.now;
        let Some(slot) = self.members[publisher.tag].slot else { return };
        publisher.bursts += 1;
        let stream = &self.board.streams[publisher.stream];
        for _ in 0..self.board.plan.burst {
            let sequence = stream.published.load(Ordering::Relaxed);
            let flight = &self.board.flights[self.board.place(publisher.stream, sequence)];
            flight.due.store(due, Ordering::Relaxed);
            flight.sent.store(io.now, Ordering::Relaxed);
            flight.first.store(u64::MAX, Ordering::Relaxed);
            flight.last.store(0, Ordering::Relaxed);
            flight.workers.store(0, Ordering::Relaxed);
            flight.sequence.store(sequence, Ordering::Release);
            stream.published.store(sequence + 1, Ordering::Release);
            io.tally.published += 1;
            io.send(slot, Name { stream: self.board.numbers[publisher.stream], sequence });
        }
    }

    /// Closed loop: publishers whose last burst has reached everybody.
    fn publish_next(&mut self, io: &mut Io) {
        for index in 0..self.publishers.len() {
            let publisher = &self.publishers[index];
            let stream = &self.board.streams[publisher.stream];
            let (published, completed) =
                (stream.published.load(Ordering::Relaxed), stream.completed.load(Ordering::Acquire));
            if completed < published {
                if io.now < publisher.last_at + self.board.plan.pace.patience {
                    continue;
                }
                stream.completed.store(published, Ordering::Release);
            }
            if self.phase == Phase::Measure {
                if self.budget == 0 {
                    continue;
                }
                self.budget -= 1;
            }
            self.publish(io, index, io.now);
        }
    }

    /// Open loop: publishes what is due and has a place in the table.
    fn catch_up(&mut self, io: &mut Io, index: usize) {
        let Some(schedule) = self.schedule else { return };
        while let publisher = &self.publishers[index]
            && publisher.bursts < publisher.due
            && self.members[publisher.tag].slot.is_some()
            && self.at_once > 0
            && self.has_room(publisher.stream, io.now)
        {
            self.at_once = self.at_once.saturating_sub(self.board.plan.burst);
            let number = publisher.bursts * self.publishers.len() as u64 + index as u64;
            self.publish(io, index, schedule.at(number));
        }
    }

    /// Whether the next burst of a stream takes no place from a message that is under way, whose times would be lost, and whether
    /// messages of this stream come soon enough to send more.
    fn has_room(&self, stream: usize, now: Nanos) -> bool {
        let Board { window, plan, streams, .. } = &*self.board;
        let (of, soon) = (&streams[stream], plan.pace.patience / 2);
        let is_new = now < of.completed_at.load(Ordering::Relaxed) + soon;
        if is_new && of.took.load(Ordering::Relaxed) > soon {
            return false;
        }
        let next = of.published.load(Ordering::Relaxed);
        let all = self.workers_with[stream / plan.publishers];
        (next..next + plan.burst).filter(|sequence| *sequence >= *window as u64).all(|sequence| {
            let flight = &self.board.flights[self.board.place(stream, sequence)];
            flight.workers.load(Ordering::Acquire) >= all
                || now > flight.sent.load(Ordering::Relaxed) + plan.pace.patience
        })
    }

    fn follow_schedule(&mut self, io: &mut Io) -> Option<Nanos> {
        let schedule = self.schedule?;
        if self.publishers.is_empty() {
            return None;
        }
        self.at_once = AT_ONCE_MAX;
        self.take_due(io);
        // Those that had to wait.
        (0..self.publishers.len()).for_each(|index| self.catch_up(io, index));
        Some(if self.at_once > 0 { schedule.at(self.scheduled) } else { io.now })
    }

    /// Gives what is due to the publishers, and has them publish it.
    fn take_due(&mut self, io: &mut Io) {
        let Some(schedule) = self.schedule.filter(|_| !self.publishers.is_empty()) else { return };
        let due = schedule.due(io.now);
        while self.scheduled < due && self.budget > 0 {
            self.budget -= u64::from(self.phase == Phase::Measure);
            let index = (self.scheduled % self.publishers.len() as u64) as usize;
            io.tally.time_recorded(Timed::Lag, io.now.saturating_sub(schedule.at(self.scheduled)));
            self.publishers[index].due += 1;
            self.scheduled += 1;
            self.catch_up(io, index);
        }
    }

    /// What a member should have got, and has not.
    fn missing(&self, tag: usize) -> u64 {
        let member = &self.members[tag];
        let first = member.group as usize * self.board.plan.publishers;
        let published = |place: usize| self.board.streams[first + place].published.load(Ordering::Acquire);
        member.trackers.iter().enumerate().map(|(place, tracker)| tracker.missing(published(place))).sum()
    }

    fn stall(&mut self, io: &mut Io) {
        self.stalling = true;
        for member in self.members.iter().filter(|member| member.stalls) {
            if let Some(slot) = member.slot {
                io.pause(slot);
            }
        }
    }
}

impl App for Fanout {
    fn opened(&mut self, _io: &mut Io, conn: u32, tag: u32) {
        self.members[tag as usize].slot = Some(conn);
    }

    #[inline]
    fn due(&self, tag: u32) -> Option<Name> {
        // With several publishers the next one cannot be told.
        if self.board.plan.publishers != 1 {
            return None;
        }
        let member = &self.members[tag as usize];
        let sequence = member.trackers[0].next;
        let published = self.board.streams[member.group as usize].published.load(Ordering::Acquire);
        (sequence < published).then(|| Name { stream: self.board.numbers[member.group as usize], sequence })
    }

    #[inline]
    fn matched(&mut self, io: &mut Io, _conn: u32, tag: u32) {
        let member = &mut self.members[tag as usize];
        let (stream, sequence) = (member.group as usize, member.trackers[0].next);
        member.trackers[0].next += 1;
        self.delivered(io, tag as usize, stream, sequence);
    }

    fn received(&mut self, io: &mut Io, _conn: u32, tag: u32, message: Received<'_>) {
        let first = self.members[tag as usize].group as usize * self.board.plan.publishers;
        let claimed = Messages::claimed_stream(message.payload).unwrap_or(self.board.numbers[first]);
        let place = self.tracker_of(tag as usize, claimed).unwrap_or_default();
        let stream = first + place;
        let number = self.board.numbers[stream];
        let published = self.board.streams[stream].published.load(Ordering::Acquire);
        let tracker = &mut self.members[tag as usize].trackers[place];
        match judge(io, tag, number, tracker, published, message) {
            Verdict::Arrived { sequence, .. } => self.delivered(io, tag as usize, stream, sequence),
            Verdict::Spoilt | Verdict::Nothing => {}
        }
    }

    fn closed(&mut self, io: &mut Io, _conn: u32, tag: u32, _gone: Gone) {
        let member = &mut self.members[tag as usize];
        let was_open = member.slot.take().is_some();
        if member.stalls {
            return;
        }
        let group = member.group as usize;
        self.counted[group] = self.counted[group].saturating_sub(1);
        if was_open && self.phase < Phase::Stop {
            let lost = self.missing(tag as usize);
            io.tally
                .note(Problem::Lost, lost, || format!("connection {tag}, which ended: {lost} deliveries never came"));
        }
    }

    fn is_expendable(&self, tag: u32) -> bool {
        self.members[tag as usize].stalls
    }

    fn tick(&mut self, io: &mut Io) -> Option<Nanos> {
        if self.phase == Phase::Open {
            let (raw, members, plan, here) = (self.raw, &self.members, &self.board.plan, self.share.here());
            return self.opener.tick(io, |tag| {
                let member = &members[tag];
                let place = here.number(tag) % (plan.members + plan.stalled);
                let turn = Some(plan.turn(member.group as usize, place));
                let receive_buffer = member.stalls.then_some(STALLED_BUFFER);
                Open {
                    room: Some(plan.group_number(member.group as usize) as u32),
                    receive_buffer,
                    turn,
                    ..plain(tag, raw)
                }
            });
        }
        if self.stall_at.is_some_and(|at| io.now >= at) {
            self.stall_at = None;
            self.stall(io);
        }
        if !self.phase.is_flowing() {
            return None;
        }
        if self.board.plan.pace.rate.is_some() {
            self.follow_schedule(io)
        } else {
            self.publish_next(io);
            None
        }
    }
}

impl Scenario for Fanout {
    fn enter(&mut self, io: &mut Io, phase: Phase) {
        let before = std::mem::replace(&mut self.phase, phase);
        let plan = &self.board.plan;
        if before < Phase::Warmup && phase.is_flowing() {
            self.schedule = plan.pace.rate.map(|rate| {
                let rate = rate / plan.burst as f64;
                Schedule::new(io.now, rate, self.share, self.publishers.len(), plan.streams_in_all())
            });
        }
        if phase == Phase::Measure && plan.stalled > 0 {
            self.stall_at = Some(io.now + plan.stall_after);
        }
    }

    fn is_ready(&self, io: &Io) -> bool {
        self.opener.is_done(io)
    }

    fn is_idle(&mut self, _io: &Io) -> bool {
        let alive = self.members.iter().any(|member| member.slot.is_some());
        !alive
            || ((self.phase == Phase::Drain
                || self.budget == 0
                || (self.board.plan.pace.count.is_some() && self.publishers.is_empty()))
                && self.board.is_complete())
    }

    fn conclude(&mut self, io: &mut Io) {
        for (tag, member) in self.members.iter().enumerate() {
            if member.slot.is_some() && !member.stalls {
                let lost = self.missing(tag);
                io.tally.note(Problem::Lost, lost, || format!("connection {tag}: {lost} deliveries never came"));
            }
        }
        for publisher in &self.publishers {
            let late = publisher.due.saturating_sub(publisher.bursts) * self.board.plan.burst;
            io.tally.never_sent(late, self.members[publisher.tag].slot.is_some());
        }
    }
}

#[cfg(test)]
mod tests;
