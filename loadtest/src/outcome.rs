//! What a run brings: counters while it goes on, and everything that was measured when it is over.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use crate::{
    pack,
    problems::Problems,
    tally::{Tally, Timed, latencies},
};

/// Counters summed over all workers.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Counts {
    pub(crate) done: u64,
    pub(crate) published: u64,
    pub(crate) open: u64,
    pub(crate) opened: u64,
    /// Connections asked for so far.
    pub(crate) asked: u64,
    pub(crate) problems: u64,
}

impl Counts {
    pub(crate) fn add(&mut self, other: &Counts) {
        let Counts { done, published, open, opened, asked, problems } = other;
        self.done += done;
        self.published += published;
        self.open += open;
        self.opened += opened;
        self.asked += asked;
        self.problems += problems;
    }
}

/// A stretch of time.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Interval {
    /// Its number since the run began.
    pub(crate) number: u64,
    /// Its end, in seconds since the run began.
    pub(crate) at_s: f64,
    pub(crate) seconds: f64,
    pub(crate) measured: bool,
    pub(crate) done: u64,
    pub(crate) open: u64,
    #[serde(with = "pack::option")]
    pub(crate) latencies: Option<Histogram<u64>>,
}

impl Interval {
    /// Adds latencies, with fewer digits than all together have: there may be many intervals.
    pub(crate) fn keep(&mut self, histogram: &Histogram<u64>) {
        let small = self.latencies.get_or_insert_with(|| Histogram::new(2).expect("two digits"));
        small.add(histogram).expect("it grows as needed");
    }
}

/// CPU time of a window.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Cpu {
    pub(crate) server: Option<Duration>,
    /// Of the server's busiest thread.
    pub(crate) server_busiest: Option<Duration>,
    pub(crate) client: Duration,
    /// Of the client's busiest thread.
    pub(crate) busiest: Duration,
}

/// What else the machine has done in a window.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Host {
    pub(crate) processors: usize,
    /// CPU time that a hypervisor gave to others.
    pub(crate) stolen: Duration,
    /// CPU time of other processes, where it can be told from the server's.
    pub(crate) others: Option<Duration>,
}

/// What a run brought.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Outcome {
    /// From the first connect until all connections were ready.
    pub(crate) ramp: Duration,
    pub(crate) ramp_cpu: Cpu,
    /// From the first connect until messages began to flow.
    pub(crate) flows_after: Duration,
    pub(crate) ready: u64,
    pub(crate) rss_before: Option<u64>,
    /// When all were open.
    pub(crate) rss_open: Option<u64>,
    /// At the end of the window.
    pub(crate) rss_after: Option<u64>,
    pub(crate) elapsed: Duration,
    pub(crate) cpu: Cpu,
    pub(crate) host: Option<Host>,
    pub(crate) done: u64,
    pub(crate) published: u64,
    pub(crate) workers: usize,
    #[serde(with = "pack::one")]
    pub(crate) latencies: Histogram<u64>,
    /// An agent sends them by themselves.
    #[serde(skip)]
    pub(crate) intervals: Vec<Interval>,
    /// Everything else, summed over the workers.
    pub(crate) tally: Tally,
    #[serde(with = "pack::timed")]
    pub(crate) timed: Vec<(Timed, Histogram<u64>)>,
    pub(crate) interrupted: bool,
    /// How many processors the server may run on, where that is known.
    pub(crate) server_cores: Option<usize>,
    /// The server's process ended before the window did.
    pub(crate) server_gone: bool,
    /// How long an interval is.
    pub(crate) interval: Duration,
    /// Those that have made it together; none where one process has made it.
    #[serde(skip)]
    pub(crate) agents: Vec<Agent>,
    /// How many of them are lost.
    #[serde(skip)]
    pub(crate) lost_agents: u64,
}

impl Outcome {
    /// All that was not as it should be.
    pub(crate) fn problem_count(&self) -> u64 {
        self.tally.problems.total()
    }

    /// Why nothing could be measured, where nothing could: no connection was ever open, and none has failed yet, of which the
    /// report would tell.
    pub(crate) fn not_measured(&self) -> Option<String> {
        let Tally { asked, opened, problems, .. } = &self.tally;
        // What a lost agent has opened is not known.
        (*asked > 0 && *opened == 0 && self.problem_count() == 0).then(|| nothing_opened(problems))
    }

    /// That of nothing.
    pub(crate) fn none() -> Outcome {
        Outcome {
            ramp: Duration::ZERO,
            ramp_cpu: Cpu::default(),
            flows_after: Duration::ZERO,
            ready: 0,
            rss_before: None,
            rss_open: None,
            rss_after: None,
            elapsed: Duration::ZERO,
            cpu: Cpu::default(),
            host: None,
            done: 0,
            published: 0,
            workers: 0,
            latencies: latencies(),
            intervals: Vec::new(),
            tally: Tally::new(),
            timed: Vec::new(),
            interrupted: false,
            server_cores: None,
            server_gone: false,
            interval: Duration::ZERO,
            agents: Vec::new(),
            lost_agents: 0,
        }
    }
}

#[cfg(test)]
impl Outcome {
    /// One of which all that a report has is there, and none of it is nothing.
    pub(crate) fn sample() -> Outcome {
        let mut times = latencies();
        (1..=1000).for_each(|us| times.record(us * 1000).expect("within"));
        let cpu = Cpu {
            server: Some(Duration::from_millis(9)),
            server_busiest: Some(Duration::from_millis(5)),
            client: Duration::from_millis(8),
            busiest: Duration::from_millis(7),
        };
        let interval = Interval {
            number: 1,
            at_s: 2.0,
            seconds: 1.0,
            measured: true,
            done: 9,
            open: 4,
            latencies: Some(times.clone()),
        };
        Outcome {
            ramp: Duration::from_millis(20),
            ramp_cpu: cpu,
            ready: 4,
            rss_before: Some(1000),
            rss_open: Some(2000),
            rss_after: Some(3000),
            elapsed: Duration::from_secs(1),
            cpu,
            done: 77,
            published: 7,
            workers: 2,
            latencies: times.clone(),
            intervals: vec![interval],
            tally: Tally::sample(),
            timed: Timed::ALL.map(|what| (what, times.clone())).to_vec(),
            server_cores: Some(2),
            interval: Duration::from_secs(1),
            ..Outcome::none()
        }
    }
}

/// One of several that have made a run together.
#[derive(Debug)]
pub(crate) struct Agent {
    /// As the command line has it.
    pub(crate) name: String,
    /// What it runs on: kernel, processor, number of processors.
    pub(crate) machine: (String, String, usize),
    pub(crate) round_trip: Option<Duration>,
    /// How long after the agreed time its messages began to flow.
    pub(crate) began_late: Option<Duration>,
    pub(crate) ended: Ended,
}

/// What came of an agent's part.
#[derive(Debug)]
pub(crate) enum Ended {
    Whole(Box<Outcome>),
    /// Why it is lost, and what it said last.
    Lost(String, Counts),
}

/// What is said where no connection was ever open, and why.
pub(crate) fn nothing_opened(problems: &Problems) -> String {
    let why = problems.first().map(|problem| format!(": {problem}"));
    format!("no connection could be opened{}", why.unwrap_or_default())
}

/// Adds what was measured in time.
pub(crate) fn add_timed(into: &mut Vec<(Timed, Histogram<u64>)>, what: Timed, from: &Histogram<u64>) {
    match into.iter_mut().find(|(known, _)| *known == what) {
        Some((_, histogram)) => histogram.add(from).expect("the same bounds"),
        None => {
            let mut histogram = latencies();
            histogram.add(from).expect("the same bounds");
            into.push((what, histogram));
        }
    }
}
