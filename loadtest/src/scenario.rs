//! What the scenarios share: phases, the opening of connections, schedules, and the judgement on a message.

pub(crate) mod churn;
pub(crate) mod connect;
pub(crate) mod echo;
pub(crate) mod emit;
pub(crate) mod fanout;
pub(crate) mod play;

use ringwire::proto::Kind;

use crate::{
    net::{App, Io, Nanos, Open, Received, Speaks},
    part::Part,
    problems::Problem,
    track::{Arrival, Tracker},
    wire::Name,
};

/// A connection that failed is followed by the next after so long: whoever is refused must not ask without a pause.
pub(crate) const AGAIN_AFTER: Nanos = 1_000_000_000;

/// Where a run stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(crate) enum Phase {
    /// Connections are being opened.
    Open,
    /// They are; nothing is sent yet.
    Settle,
    /// Messages flow, unmeasured.
    Warmup,
    /// Messages flow.
    Measure,
    /// Nothing new begins: what is late for its schedule is not sent any more.
    Drain,
    /// Goodbye.
    Stop,
}

impl Phase {
    pub(crate) fn from_number(number: u8) -> Phase {
        [Phase::Open, Phase::Settle, Phase::Warmup, Phase::Measure, Phase::Drain, Phase::Stop][usize::from(number)]
    }

    /// Whether new messages are sent.
    pub(crate) fn is_flowing(self) -> bool {
        matches!(self, Phase::Warmup | Phase::Measure)
    }
}

/// A scenario's part on one worker thread.
pub(crate) trait Scenario: App {
    /// The run entered a phase.
    fn enter(&mut self, io: &mut Io, phase: Phase);
    /// Every connection is open, or will not be.
    fn is_ready(&self, io: &Io) -> bool;
    /// Nothing is waited for any more. In [`Phase::Measure`]: nothing will be sent any more either.
    fn is_idle(&mut self, io: &Io) -> bool;
    /// Counts what is missing; called once, at the end.
    fn conclude(&mut self, io: &mut Io);
}

/// A worker's place among all: those of this process, and those of all the agents that make the run together.
///
/// Everything is dealt out to the agents in turn, and what an agent has to its workers, so that each item of the run has one
/// number and is one worker's, however many workers each agent has.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Share {
    pub(crate) worker: usize,
    pub(crate) workers: usize,
    pub(crate) part: Part,
}

impl Share {
    /// Its first number, below [`Share::places`].
    pub(crate) fn place(self) -> usize {
        self.worker * self.part.agents + self.part.agent
    }

    /// From one of its numbers to the next.
    pub(crate) fn places(self) -> usize {
        self.workers * self.part.agents
    }

    /// The same among the workers of this process alone.
    pub(crate) fn here(self) -> Share {
        Share { part: Part::default(), ..self }
    }

    /// This worker's part of `total`.
    pub(crate) fn of(self, total: usize) -> usize {
        let here = self.part.of(total);
        here / self.workers + usize::from(self.worker < here % self.workers)
    }

    /// This worker's part of a budget; none is unlimited.
    pub(crate) fn of_budget(self, total: Option<u64>) -> u64 {
        total.map_or(u64::MAX, |total| self.of(usize::try_from(total).unwrap_or(usize::MAX)) as u64)
    }

    /// Whether the item with this number in the whole run is this worker's.
    pub(crate) fn has(self, number: usize) -> bool {
        let (agent, index) = (number % self.part.agents, number / self.part.agents);
        agent == self.part.agent && index % self.workers == self.worker
    }

    /// The number in the whole run of this worker's item `index`, dealt out in turn.
    pub(crate) fn number(self, index: usize) -> usize {
        index * self.places() + self.place()
    }
}

/// How fast connections are opened.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ramp {
    /// Handshakes in flight, on all workers.
    pub(crate) concurrency: usize,
    pub(crate) per_second: Option<f64>,
}

/// How fast messages, or whatever the scenario counts, go, and how many.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    /// How many a second, evenly, on all workers; without it the next follows the reply.
    pub(crate) rate: Option<f64>,
    /// How many in the measured window; without it as many as its time allows.
    pub(crate) count: Option<u64>,
    /// How long an answer may take before it counts as lost.
    pub(crate) patience: Nanos,
}

/// Opens a worker's connections: so many at a time, and so many a second.
#[derive(Debug)]
pub(crate) struct Opener {
    share: Share,
    count: usize,
    next: usize,
    concurrency: usize,
    period_ns: Option<f64>,
    begin: Option<Nanos>,
}

impl Opener {
    pub(crate) fn new(share: Share, count: usize, ramp: Ramp) -> Self {
        let concurrency = share.of(ramp.concurrency).max(1);
        let period_ns = ramp.per_second.map(|rate| 1e9 * share.places() as f64 / rate);
        Self { share, count, next: 0, concurrency, period_ns, begin: None }
    }

    /// Opens what may be opened now, and says when more may be.
    pub(crate) fn tick(&mut self, io: &mut Io, mut make: impl FnMut(usize) -> Open) -> Option<Nanos> {
        let begin = *self.begin.get_or_insert(io.now);
        let allowed = self.period_ns.map_or(self.count, |period| ((io.now - begin) as f64 / period) as usize + 1);
        while self.next < self.count.min(allowed) && io.opening < self.concurrency {
            io.open(Open { number: self.share.number(self.next), ..make(self.next) });
            self.next += 1;
        }
        let period = self.period_ns.filter(|_| self.next < self.count)?;
        Some(begin + (self.next as f64 * period) as Nanos)
    }

    pub(crate) fn is_done(&self, io: &Io) -> bool {
        self.next == self.count && io.opening == 0
    }
}

/// A plain connection with this tag.
pub(crate) fn plain(tag: usize, raw: bool) -> Open {
    let speaks = if raw { Speaks::Raw } else { Speaks::WebSocket };
    Open { tag: tag as u32, number: 0, turn: None, speaks, room: None, receive_buffer: None }
}

/// When each message of a worker should be sent: evenly, whatever the replies do.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Schedule {
    begin: Nanos,
    period_ns: f64,
    offset_ns: f64,
}

impl Schedule {
    /// This worker's part of `per_second`; it has `own` of `all` places.
    pub(crate) fn new(begin: Nanos, per_second: f64, share: Share, own: usize, all: usize) -> Self {
        let period_ns = 1e9 / per_second * all as f64 / own.max(1) as f64;
        Self { begin, period_ns, offset_ns: period_ns * share.place() as f64 / share.places() as f64 }
    }

    /// When number `index` is due.
    #[inline]
    pub(crate) fn at(&self, index: u64) -> Nanos {
        self.begin + (index as f64).mul_add(self.period_ns, self.offset_ns) as Nanos
    }

    /// How many are due by now.
    pub(crate) fn due(&self, now: Nanos) -> u64 {
        let passed = now.saturating_sub(self.begin) as f64 - self.offset_ns;
        if passed < 0.0 { 0 } else { (passed / self.period_ns) as u64 + 1 }
    }
}

/// What a message that was not foretold turned out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// One that was waited for; these many before it have not come.
    Arrived { sequence: u64, skipped: u64 },
    /// It cannot be told which; it took the place of the one that was due.
    Spoilt,
    /// One that was not waited for: counted, nothing to do.
    Nothing,
}

/// Holds a message against what a receiver may get of a stream, of which `sent` were sent, and counts what is wrong.
pub(crate) fn judge(
    io: &mut Io,
    tag: u32,
    stream: u32,
    tracker: &mut Tracker,
    sent: u64,
    message: Received<'_>,
) -> Verdict {
    let near = Name { stream, sequence: tracker.next };
    let known = io.messages.identify(message.payload, near);
    let tally = &mut io.tally;
    let right_kind = message.kind == io.messages.kind;
    match known {
        Some(name) if right_kind && name.stream == stream && name.sequence < sent => {
            match tracker.arrive(name.sequence) {
                Arrival::InOrder => return Verdict::Arrived { sequence: name.sequence, skipped: 0 },
                Arrival::After(skipped) => return Verdict::Arrived { sequence: name.sequence, skipped },
                Arrival::Late => {
                    tally.note(Problem::Reordered, 1, || {
                        format!("connection {tag}: message {} came behind a later one", name.sequence)
                    });
                }
                // It is lost already.
                Arrival::TooLate => {}
                Arrival::Duplicate => {
                    tally.note(Problem::Duplicated, 1, || {
                        format!("connection {tag}: message {} came again", name.sequence)
                    });
                }
            }
            Verdict::Nothing
        }
        Some(name) if right_kind => {
            tally.note(Problem::Unexpected, 1, || {
                let Name { stream, sequence } = name;
                format!("connection {tag}: message {sequence} of stream {stream}, which was not sent to it")
            });
            Verdict::Nothing
        }
        _ => {
            let (kind, len) = (message.kind, message.payload.len());
            let want = io.messages.size(near);
            let what = if !right_kind && known.is_some() {
                let word = |kind| if kind == Kind::Text { "text" } else { "binary" };
                format!("is {} instead of {}", word(kind), word(io.messages.kind))
            } else if len != want {
                format!("has {len} bytes instead of {want}, or another content")
            } else {
                let right = io.messages.reply(near).payload();
                let byte = right.iter().zip(message.payload).position(|(want, got)| want != got).unwrap_or_default();
                format!("is wrong at byte {byte} of {len}")
            };
            tally.note(Problem::Corrupted, 1, || format!("connection {tag}: message {} {what}", near.sequence));
            if tracker.next < sent {
                tracker.next += 1;
                Verdict::Spoilt
            } else {
                Verdict::Nothing
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The places of all workers where each agent has so many.
    fn shares(workers: &[usize]) -> Vec<Share> {
        let agents = workers.len();
        let of_agent = |(agent, &workers): (usize, &usize)| {
            (0..workers).map(move |worker| Share { worker, workers, part: Part { agent, agents } })
        };
        workers.iter().enumerate().flat_map(of_agent).collect()
    }

    /// Kills: a remainder that is lost in the division; two agents with the same numbers.
    #[test]
    fn everything_is_one_workers_whatever_the_agents_have() {
        for workers in [&[1][..], &[4], &[1, 1], &[2, 2, 2], &[3, 1], &[1, 4, 2]] {
            for total in [0, 1, 2, 5, 16, 97, 100] {
                let shares = shares(workers);
                let mut numbers: Vec<usize> =
                    shares.iter().flat_map(|share| (0..share.of(total)).map(|index| share.number(index))).collect();
                assert!(shares.iter().all(|share| (0..share.of(total)).all(|index| share.has(share.number(index)))));
                let owners = |number: &usize| shares.iter().filter(|share| share.has(*number)).count();
                assert!((0..total).all(|number| owners(&number) == 1), "{workers:?}");
                numbers.sort_unstable();
                assert_eq!(numbers, (0..total).collect::<Vec<_>>(), "{workers:?}");
                let budgets: u64 = shares.iter().map(|share| share.of_budget(Some(total as u64))).sum();
                assert_eq!(budgets, total as u64, "{workers:?}");
            }
        }
    }

    #[test]
    fn the_rates_of_all_agents_add_up() {
        let shares = shares(&[2, 1, 3]);
        let due: u64 = shares
            .iter()
            .filter(|share| share.of(50) > 0)
            .map(|share| Schedule::new(0, 1000.0, *share, share.of(50), 50).due(10_000_000_000 - 1))
            .sum();
        assert!(due.abs_diff(10_000) <= shares.len() as u64, "{due}");
    }

    fn alone(worker: usize, workers: usize) -> Share {
        Share { worker, workers, part: Part::default() }
    }

    #[test]
    fn a_schedule_is_even_and_says_what_is_due() {
        let schedule = Schedule::new(1000, 1e6, alone(0, 1), 1, 1);
        assert_eq!((schedule.at(0), schedule.at(3)), (1000, 4000));
        assert_eq!((schedule.due(999), schedule.due(1000), schedule.due(3999)), (1, 1, 3));
        let second = Schedule::new(0, 1e6, alone(1, 2), 5, 10);
        assert_eq!((second.at(0), second.at(1)), (1000, 3000));
        assert_eq!((second.due(999), second.due(1000)), (0, 1));
    }
}
