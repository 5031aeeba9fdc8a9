//! What leader and agents say to each other: JSON, one text message each, an object whose only key says what it is.
//!
//! `hello` keeps its first two fields in all versions, so that any two can tell each other that they do not fit. All times are of
//! the agent's own clock, in nanoseconds since it began.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{
    outcome::{Counts, Interval, Outcome},
    pack,
    part::Part,
    report::About,
};

/// The version of what is said here.
pub(crate) const PROTOCOL: u32 = 2;
/// Agents read the leader's command line: only those of the same version read it alike.
pub(crate) const VERSION: &str = env!("CARGO_PKG_VERSION");
/// The variable with the token.
pub(crate) const TOKEN_VARIABLE: &str = "RINGWIRE_LOADTEST_TOKEN";
/// The most bytes of one message.
pub(crate) const MESSAGE_BYTES_MAX: usize = 64 << 20;
/// The most bytes of all files of a run, so that its plan is one message.
pub(crate) const FILES_BYTES_MAX: usize = 40 << 20;
/// The most agents of a run.
pub(crate) const AGENTS_MAX: usize = 1000;

/// Who speaks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Version {
    pub(crate) protocol: u32,
    pub(crate) version: String,
}

impl Version {
    pub(crate) fn own() -> Version {
        Version { protocol: PROTOCOL, version: VERSION.to_owned() }
    }

    /// Whether both can make a run together.
    pub(crate) fn fits(&self) -> bool {
        *self == Version::own()
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Another may have written it.
        let version: String = self.version.chars().filter(|char| !char.is_control()).take(40).collect();
        write!(f, "version {version} (protocol {})", self.protocol)
    }
}

/// What a leader says.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Order {
    Hello(Version),
    Plan(Plan),
    /// What is your time? The number comes back with the answer.
    Probe {
        number: u64,
    },
    /// Messages begin to flow at this time.
    Go {
        at_ns: u64,
    },
    /// End the run now, and bring what there is.
    Stop {},
}

/// A run to make a part of.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Plan {
    pub(crate) part: Part,
    /// The leader's command line, from the name of the scenario on.
    pub(crate) arguments: Vec<String>,
    pub(crate) files: Vec<SentFile>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct SentFile {
    /// As the command line, or a file that it names, has it.
    pub(crate) name: String,
    pub(crate) base64: String,
}

/// What an agent says.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Word {
    Hello(Hello),
    /// It takes orders from now on.
    Welcome {},
    /// It does not.
    Refused {
        why: String,
    },
    /// Its connections are open, or will not be.
    Ready(Counts),
    Probed {
        number: u64,
        now_ns: u64,
    },
    /// Messages began to flow at this time.
    Flowing {
        at_ns: u64,
    },
    /// Its measured window is over.
    Measured {},
    /// How it does. Comes each second, whatever happens.
    Doing(Doing),
    /// Some of the run's intervals.
    Intervals(Vec<Interval>),
    /// Everything else: the end of the run.
    Result(Box<Brought>),
    /// Its part of the run came to nothing.
    Failed {
        why: String,
    },
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Hello {
    #[serde(flatten)]
    pub(crate) version: Version,
    /// The most connections that it takes.
    #[serde(default)]
    pub(crate) connections_max: usize,
    #[serde(default)]
    pub(crate) machine: Machine,
}

/// What an agent runs on.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Machine {
    pub(crate) kernel: String,
    pub(crate) processor: String,
    pub(crate) processors: usize,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Doing {
    pub(crate) what: String,
    pub(crate) counts: Counts,
    /// Messages a second.
    pub(crate) rate: f64,
    /// Of the newest interval.
    #[serde(with = "pack::option")]
    pub(crate) latencies: Option<hdrhistogram::Histogram<u64>>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Brought {
    pub(crate) about: About,
    pub(crate) outcome: Outcome,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        problems::Problem,
        tally::{End, Tally, Timed, latencies},
    };
    use std::time::Duration;

    #[test]
    fn other_versions_are_known_by_their_hello() {
        let later = r#"{"hello":{"protocol":2,"version":"9.1.0","more":{"a":[1]}}}"#;
        let Ok(Word::Hello(hello)) = serde_json::from_str(later) else { panic!("a hello") };
        assert!(!hello.version.fits() && Version::own().fits());
        assert_eq!(hello.version.to_string(), "version 9.1.0 (protocol 2)");
        let Ok(Order::Hello(version)) = serde_json::from_str(later) else { panic!("a hello") };
        assert!(!version.fits());
        let patch = Version { version: "0.0.0".to_owned(), ..Version::own() };
        assert!(!patch.fits(), "another version may read the command line otherwise");
    }

    /// Kills: a counter that is left behind on the way.
    #[test]
    fn what_was_counted_arrives() {
        let mut times = latencies();
        [10, 1_000, 1_000_000].iter().for_each(|ns| times.record(*ns).expect("within"));
        let mut tally = Tally::new();
        (tally.unsent, tally.bytes_in, tally.bytes_out, tally.opened, tally.asked) = (1, 2, 3, 4, 5);
        (tally.unasked, tally.sessions, tally.unconnected) = (7, 8, 23);
        tally.note(Problem::Failed, 6, || "a \"problem\"".to_owned());
        tally.note(Problem::Lost, 9, || "another".to_owned());
        tally.ends.insert(End::LeftOpen, 14);
        tally.closes.insert(1001, 15);
        tally.errnos.insert(104, 16);
        tally.statuses.insert(503, 17);
        tally.secured.full = 18;
        tally.secured.failures.insert("alert".into(), 19);
        tally.secured.agreed.insert("TLSv1.3, X25519".to_owned(), 22);
        tally.deflated.agreed.insert("server_no_context_takeover".to_owned(), 20);
        tally.deflated.sent.bytes = 21;
        tally.steps = vec![None, Some(times.clone())];
        let outcome = Outcome {
            ramp: Duration::from_nanos(1_234_567_891),
            done: 77,
            ready: 4,
            latencies: times.clone(),
            timed: vec![(Timed::Lag, times.clone())],
            tally,
            ..Outcome::none()
        };
        let about = About {
            scenario: "echo".to_owned(),
            unit: "replies".to_owned(),
            urls: vec!["ws://x/".to_owned()],
            steps: vec!["a".to_owned()],
            warnings: vec!["b".to_owned()],
            connections: 4,
            rate: Some(0.1),
            started_unix_s: 5,
        };
        let text = serde_json::to_string(&Word::Result(Box::new(Brought { about, outcome }))).expect("JSON");
        let Ok(Word::Result(brought)) = serde_json::from_str(&text) else { panic!("{text}") };
        let again = serde_json::to_string(&Word::Result(brought)).expect("JSON");
        assert_eq!(text, again);
        for part in [
            r#""failed":{"count":6,"told":[{"count":6,"text":"a \"problem\""}]}"#,
            "\"unconnected\":23",
            "\"lost\":{\"count\":9",
            "\"left_open\":14",
            "\"1001\":15",
            "\"104\":16",
            "\"503\":17",
            "\"alert\":19",
            "\"TLSv1.3, X25519\":22",
        ] {
            assert!(text.contains(part), "{part} is not in {text}");
        }
    }
}
