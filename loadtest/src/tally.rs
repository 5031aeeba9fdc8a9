//! What one worker counts.

use std::{borrow::Cow, collections::BTreeMap};

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use crate::pack;
use crate::problems::{Problem, Problems};
pub(crate) use crate::times::{Timed, latencies};

/// Handshakes of TLS.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Secured {
    pub(crate) full: u64,
    /// Those that went on from an earlier one.
    pub(crate) resumed: u64,
    /// Connections by what was agreed on: the version, the key exchange, the cipher suite.
    pub(crate) agreed: BTreeMap<String, u64>,
    /// Those that failed, and connections that did later on, by reason.
    pub(crate) failures: BTreeMap<Cow<'static, str>, u64>,
}

impl Secured {
    fn add(&mut self, other: &Secured) {
        let Secured { full, resumed, agreed, failures } = other;
        self.full += full;
        self.resumed += resumed;
        add_counts(&mut self.agreed, agreed);
        add_counts(&mut self.failures, failures);
    }
}

/// Messages that were compressed, and their payloads' bytes before and after.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Packed {
    pub(crate) messages: u64,
    /// As they were meant.
    pub(crate) bytes: u64,
    /// As they went over the wire.
    pub(crate) bytes_on_wire: u64,
}

impl Packed {
    pub(crate) fn add(&mut self, other: Packed) {
        let Packed { messages, bytes, bytes_on_wire } = other;
        self.messages += messages;
        self.bytes += bytes;
        self.bytes_on_wire += bytes_on_wire;
    }
}

/// What came of permessage-deflate.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Deflated {
    /// Connections by what was agreed on.
    pub(crate) agreed: BTreeMap<String, u64>,
    /// Connections whose servers agreed on nothing.
    pub(crate) declined: u64,
    pub(crate) sent: Packed,
    pub(crate) received: Packed,
}

impl Deflated {
    fn add(&mut self, other: &Deflated) {
        let Deflated { agreed, declined, sent, received } = other;
        add_counts(&mut self.agreed, agreed);
        self.declined += declined;
        self.sent.add(*sent);
        self.received.add(*received);
    }
}

/// What is told of each target where there are several.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct OfTarget {
    pub(crate) opened: u64,
    pub(crate) failed: u64,
    /// The main latency, in the measured window.
    #[serde(with = "pack::one")]
    pub(crate) latencies: Histogram<u64>,
    #[serde(with = "pack::one")]
    pub(crate) handshakes: Histogram<u64>,
}

impl OfTarget {
    pub(crate) fn new() -> OfTarget {
        OfTarget { opened: 0, failed: 0, latencies: latencies(), handshakes: latencies() }
    }

    pub(crate) fn add(&mut self, other: &OfTarget) {
        let OfTarget { opened, failed, latencies, handshakes } = other;
        self.opened += opened;
        self.failed += failed;
        self.latencies.add(latencies).expect("the same bounds");
        self.handshakes.add(handshakes).expect("the same bounds");
    }
}

fn add_counts<K: Ord + Clone>(into: &mut BTreeMap<K, u64>, from: &BTreeMap<K, u64>) {
    from.iter().for_each(|(what, count)| *into.entry(what.clone()).or_default() += count);
}

/// How a connection ended. Each that was asked for ends in one of these ways, so they add up to all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum End {
    /// The closing handshake was made, and the server has ended the connection.
    Closed,
    /// The server has answered our Close frame, but not ended the connection in time.
    LeftOpen,
    /// The server has ended the connection without answering our Close frame.
    Unanswered,
    /// The server has neither answered our Close frame nor ended the connection in time.
    Silent,
    /// We have dropped it without a Close frame, as the scenario has it.
    Dropped,
    /// It broke, or the server closed it, or was wrong.
    Failed,
    /// It was never open.
    NeverOpened,
    /// Its handshake was under way when the run ended, no longer than it may be.
    StillOpening,
    /// The agent that had it was lost.
    Unknown,
}

impl End {
    /// Its key in the figures.
    pub(crate) fn key(self) -> &'static str {
        match self {
            End::Closed => "closed",
            End::LeftOpen => "left_open",
            End::Unanswered => "unanswered",
            End::Silent => "silent",
            End::Dropped => "dropped",
            End::Failed => "failed",
            End::NeverOpened => "never_opened",
            End::StillOpening => "still_opening",
            End::Unknown => "unknown",
        }
    }
}

/// One worker's counts.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Tally {
    /// Messages completed: replies, deliveries, sessions, handshakes.
    pub(crate) done: u64,
    /// Messages published, where each has many deliveries.
    pub(crate) published: u64,
    /// Scheduled messages that were never sent, although who was to send them was there; and those that nobody was there for.
    pub(crate) unsent: u64,
    pub(crate) unconnected: u64,
    pub(crate) bytes_in: u64,
    pub(crate) bytes_out: u64,
    /// Connections open now.
    pub(crate) open: u64,
    /// Connections opened in all.
    pub(crate) opened: u64,
    /// Connections asked for in all.
    pub(crate) asked: u64,
    /// How they ended.
    pub(crate) ends: BTreeMap<End, u64>,
    /// Close codes that the server sent.
    pub(crate) closes: BTreeMap<u16, u64>,
    /// System errors.
    pub(crate) errnos: BTreeMap<i32, u64>,
    /// HTTP statuses other than the wanted: why connections failed and messages were lost.
    pub(crate) statuses: BTreeMap<u16, u64>,
    pub(crate) secured: Secured,
    pub(crate) deflated: Deflated,
    /// From the sending to what was expected, by the expectation's number.
    #[serde(with = "pack::some")]
    pub(crate) steps: Vec<Option<Histogram<u64>>>,
    /// Messages that no user was waiting for.
    pub(crate) unasked: u64,
    /// Sessions of users that ended as they should.
    pub(crate) sessions: u64,
    /// One for each target; empty where there is one only.
    pub(crate) targets: Vec<OfTarget>,
    /// Whose connection something is told of now.
    #[serde(skip)]
    pub(crate) target: usize,
    /// All that was not as it should be.
    pub(crate) problems: Problems,
    /// The main latency of the current interval.
    #[serde(skip, default = "latencies")]
    pub(crate) interval: Histogram<u64>,
    #[serde(skip)]
    timed: [Option<Histogram<u64>>; Timed::ALL.len()],
    /// Whether latencies are recorded now.
    #[serde(skip)]
    pub(crate) recording: bool,
}

impl Tally {
    pub(crate) fn new() -> Self {
        Self {
            done: 0,
            published: 0,
            unsent: 0,
            unconnected: 0,
            bytes_in: 0,
            bytes_out: 0,
            open: 0,
            opened: 0,
            asked: 0,
            ends: BTreeMap::new(),
            closes: BTreeMap::new(),
            errnos: BTreeMap::new(),
            statuses: BTreeMap::new(),
            secured: Secured::default(),
            deflated: Deflated::default(),
            steps: Vec::new(),
            unasked: 0,
            sessions: 0,
            targets: Vec::new(),
            target: 0,
            problems: Problems::default(),
            interval: latencies(),
            timed: Default::default(),
            recording: false,
        }
    }

    /// Adds what is counted once, when a run is over, and all problems.
    pub(crate) fn add(&mut self, from: &Tally) {
        self.add_beside_problems(from);
        self.problems.add(&from.problems);
    }

    /// Adds what is counted once, when a run is over: not what the workers tell meanwhile, nor what is measured in time
    /// besides the main latency.
    pub(crate) fn add_beside_problems(&mut self, from: &Tally) {
        // Named one by one, so that a new one is not forgotten.
        let Tally {
            done: _,
            published: _,
            unsent,
            unconnected,
            bytes_in,
            bytes_out,
            open: _,
            opened,
            asked,
            ends,
            closes,
            errnos,
            statuses,
            secured,
            deflated,
            steps,
            unasked,
            sessions,
            targets,
            target: _,
            problems: _,
            interval: _,
            timed: _,
            recording: _,
        } = from;
        self.unsent += unsent;
        self.unconnected += unconnected;
        self.bytes_in += bytes_in;
        self.bytes_out += bytes_out;
        self.opened += opened;
        self.asked += asked;
        self.unasked += unasked;
        self.sessions += sessions;
        add_counts(&mut self.ends, ends);
        add_counts(&mut self.closes, closes);
        add_counts(&mut self.errnos, errnos);
        add_counts(&mut self.statuses, statuses);
        self.secured.add(secured);
        self.deflated.add(deflated);
        if self.steps.len() < steps.len() {
            self.steps.resize_with(steps.len(), || None);
        }
        for (into, from) in self.steps.iter_mut().zip(steps) {
            if let Some(from) = from {
                into.get_or_insert_with(latencies).add(from).expect("the same bounds");
            }
        }
        if self.targets.len() < targets.len() {
            self.targets.resize_with(targets.len(), OfTarget::new);
        }
        self.targets.iter_mut().zip(targets).for_each(|(into, from)| into.add(from));
    }

    /// Records the main latency.
    #[inline]
    pub(crate) fn latency(&mut self, nanoseconds: u64) {
        if self.recording {
            self.interval.saturating_record(nanoseconds.max(1));
            if let Some(target) = self.targets.get_mut(self.target) {
                target.latencies.saturating_record(nanoseconds.max(1));
            }
        }
    }

    /// Records another one, whether the window is measured or not.
    pub(crate) fn time(&mut self, what: Timed, nanoseconds: u64) {
        self.timed[what as usize].get_or_insert_with(latencies).saturating_record(nanoseconds.max(1));
    }

    /// Records another one if the window is measured.
    #[inline]
    pub(crate) fn time_recorded(&mut self, what: Timed, nanoseconds: u64) {
        if self.recording {
            self.time(what, nanoseconds);
        }
    }

    /// Records how long what a user expected took.
    pub(crate) fn step(&mut self, number: usize, nanoseconds: u64) {
        if self.steps.len() <= number {
            self.steps.resize_with(number + 1, || None);
        }
        self.steps[number].get_or_insert_with(latencies).saturating_record(nanoseconds.max(1));
    }

    pub(crate) fn timed(&self, what: Timed) -> Option<&Histogram<u64>> {
        self.timed[what as usize].as_ref()
    }

    /// Counts problems, and tells of them what the text says.
    pub(crate) fn note(&mut self, what: Problem, count: u64, text: impl FnOnce() -> String) {
        self.problems.note(what, count, text);
    }

    /// Counts scheduled messages that were never sent; whether there was a connection for them says why.
    pub(crate) fn never_sent(&mut self, count: u64, is_connected: bool) {
        *if is_connected { &mut self.unsent } else { &mut self.unconnected } += count;
    }

    /// Counts how a connection has ended.
    pub(crate) fn ended(&mut self, how: End, tag: u32) {
        *self.ends.entry(how).or_default() += 1;
        if how == End::Silent {
            self.note(Problem::Silent, 1, || {
                format!("connection {tag}: neither a Close frame nor an end in answer to ours")
            });
        }
    }
}

#[cfg(test)]
impl Tally {
    /// One in which something of everything was counted.
    pub(crate) fn sample() -> Tally {
        let mut times = latencies();
        [10, 1_000, 1_000_000].iter().for_each(|ns| times.record(*ns).expect("within"));
        let packed = |messages| Packed { messages, bytes: 100 * messages, bytes_on_wire: 40 * messages };
        let mut problems = Problems::default();
        for (what, count) in Problem::CHECKS.into_iter().chain([Problem::Failed]).zip(10..) {
            problems.note(what, count, || "a \"problem\"".to_owned());
        }
        let target = OfTarget { opened: 2, failed: 1, latencies: times.clone(), handshakes: times.clone() };
        Tally {
            done: 1,
            published: 2,
            unsent: 3,
            unconnected: 9,
            bytes_in: 4,
            bytes_out: 5,
            open: 6,
            opened: 7,
            asked: 8,
            ends: BTreeMap::from([(End::Closed, 6), (End::LeftOpen, 2)]),
            closes: BTreeMap::from([(1001, 15), (1006, 16)]),
            errnos: BTreeMap::from([(104, 17)]),
            statuses: BTreeMap::from([(503, 18)]),
            secured: Secured {
                full: 19,
                resumed: 20,
                agreed: BTreeMap::from([("TLSv1.3, X25519".to_owned(), 21)]),
                failures: BTreeMap::from([("alert".into(), 22)]),
            },
            deflated: Deflated {
                agreed: BTreeMap::from([("server_no_context_takeover".to_owned(), 23)]),
                declined: 24,
                sent: packed(25),
                received: packed(26),
            },
            steps: vec![Some(times)],
            unasked: 27,
            sessions: 28,
            targets: vec![target.clone(), target],
            problems,
            ..Tally::new()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Kills: a counter that is left out of the sum.
    #[test]
    fn all_that_was_counted_is_added_up() {
        let mut sum = Tally::new();
        (0..3).for_each(|_| sum.add(&Tally::sample()));
        let numbers = |tally: &Tally| -> Vec<u64> {
            let mut json = serde_json::to_value(tally).expect("JSON");
            // What is told of them is told as it was.
            json["problems"].take();
            let mut numbers = Vec::new();
            let mut left = vec![&json];
            while let Some(value) = left.pop() {
                match value {
                    serde_json::Value::Object(table) => left.extend(table.values()),
                    serde_json::Value::Number(number) => numbers.extend(number.as_u64()),
                    _ => {}
                }
            }
            numbers
        };
        // What the workers tell meanwhile is not the sum's.
        let one = Tally { done: 0, published: 0, open: 0, ..Tally::sample() };
        assert_eq!(numbers(&sum), numbers(&one).iter().map(|number| 3 * number).collect::<Vec<_>>());
        assert_eq!(numbers(&sum).iter().filter(|number| **number > 0).count(), 26);
        let counts = |times: Option<&Histogram<u64>>| times.map(|times| times.len());
        assert_eq!(counts(sum.steps[0].as_ref()), Some(9));
        let [first, second] = &sum.targets[..] else { panic!("two targets") };
        for target in [first, second] {
            assert_eq!((target.opened, target.failed, target.latencies.len(), target.handshakes.len()), (6, 3, 9, 9));
        }
        for (what, count) in Problem::CHECKS.into_iter().chain([Problem::Failed]).zip(10..) {
            assert_eq!(sum.problems.count(what), 3 * count);
        }
    }
}
