//! What is said to JetStream, and what it answers: its JSON API over plain requests, which is all that this takes. The client's
//! own module for it would bring four crates more, and tasks that know a bus where a state machine is wanted.
//!
//! One stream for each prefix. What is published to `PREFIX.hist.ROOM` is stored there, and published again by the server to
//! `PREFIX.kept.NONCE.ROOM` with its number and the number of the room's message before it. The nonce is made by whoever
//! makes the stream, and is a part of its configuration: what comes of one stream is never taken for another's.

use serde::Deserialize;
use serde_json::{Value, json};

use crate::backplane::subject::Subjects;
use crate::config::NatsHistory;
use crate::hub::HistoryBounds;

/// Errors that mean something here.
const STREAM_NOT_FOUND: u64 = 10_059;
const NAME_IN_USE: u64 = 10_058;
const NOT_ENABLED: [u64; 2] = [10_039, 10_076];

/// How long a consumer that nobody asks any more is kept.
const CONSUMER_IDLE_NS: u64 = 5_000_000_000;

/// What the stream is to keep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Limits {
    pub(super) per_room_max: u64,
    /// 0: none is too old.
    pub(super) age_max_ns: u64,
    pub(super) bytes_max: u64,
}

impl Limits {
    pub(super) fn new(bounds: HistoryBounds, bytes_max: usize) -> Limits {
        // JetStream takes none that is shorter.
        const AGE_MIN_NS: u64 = 100_000_000;
        Limits {
            per_room_max: bounds.messages_max as u64,
            age_max_ns: bounds.age_max_ns.map_or(0, |age_ns| age_ns.max(AGE_MIN_NS)),
            bytes_max: bytes_max as u64,
        }
    }

    /// As much as both of them.
    pub(super) fn at_least(self, other: Limits) -> Limits {
        let ages = [self.age_max_ns, other.age_max_ns];
        Limits {
            per_room_max: self.per_room_max.max(other.per_room_max),
            age_max_ns: if ages.contains(&0) { 0 } else { ages[0].max(ages[1]) },
            bytes_max: self.bytes_max.max(other.bytes_max),
        }
    }
}

/// A stream that is there.
#[derive(Clone, Debug)]
pub(super) struct Stream {
    pub(super) epoch: u64,
    /// What the subjects of stored messages begin with.
    pub(super) kept: String,
    pub(super) limits: Limits,
    pub(super) storage: String,
    pub(super) last_seq: u64,
    /// All of it, as it was said.
    config: Value,
}

/// What came of a request for a stream.
#[derive(Debug)]
pub(super) enum Told {
    Stream(Box<Stream>),
    NotFound,
    NameInUse,
    /// JetStream is off there.
    Off,
    /// Why not.
    Failed(String),
}

#[derive(Deserialize)]
struct Answer {
    error: Option<Failure>,
    created: Option<String>,
    config: Option<Value>,
    state: Option<State>,
    name: Option<String>,
    num_pending: Option<u64>,
    seq: Option<u64>,
}

#[derive(Deserialize)]
struct Failure {
    #[serde(default)]
    err_code: u64,
    #[serde(default)]
    description: String,
}

#[derive(Deserialize)]
struct State {
    last_seq: u64,
}

/// A stream's name has no dots; that there are none of the same name is checked by its subjects.
pub(super) fn stream_name(prefix: &str) -> String {
    format!("{}-history", prefix.replace('.', "-"))
}

pub(super) fn config(stream: &str, subjects: &Subjects, nonce: &str, storage: NatsHistory, limits: Limits) -> String {
    let config = json!({
        "name": stream,
        "description": "the history of ringwire's rooms",
        "subjects": [subjects.history(">"), subjects.history_begins()],
        "storage": storage.to_string(),
        "retention": "limits",
        "discard": "old",
        "max_msgs_per_subject": limits.per_room_max,
        "max_age": limits.age_max_ns,
        "max_bytes": limits.bytes_max,
        "max_msgs": -1,
        "max_consumers": -1,
        "num_replicas": 1,
        "allow_direct": true,
        "republish": { "src": subjects.history(">"), "dest": format!("{}.>", subjects.kept(nonce)) },
        // What comes twice is told apart here.
        "duplicate_window": 100_000_000,
    });
    config.to_string()
}

/// The same stream with other limits; whatever else somebody has set stays.
pub(super) fn with_limits(stream: &Stream, limits: Limits) -> String {
    let mut config = stream.config.clone();
    if let Some(config) = config.as_object_mut() {
        config.insert("max_msgs_per_subject".into(), limits.per_room_max.into());
        config.insert("max_age".into(), limits.age_max_ns.into());
        config.insert("max_bytes".into(), limits.bytes_max.into());
    }
    config.to_string()
}

pub(super) fn read_stream(payload: &[u8], subjects: &Subjects) -> Told {
    let Ok(answer) = serde_json::from_slice::<Answer>(payload) else {
        return Told::Failed("JetStream's answer is not understood".into());
    };
    if let Some(Failure { err_code, description }) = answer.error {
        return match err_code {
            STREAM_NOT_FOUND => Told::NotFound,
            NAME_IN_USE => Told::NameInUse,
            code if NOT_ENABLED.contains(&code) => Told::Off,
            _ => Told::Failed(description),
        };
    }
    let stream = || {
        let (created, config) = (answer.created?, answer.config?);
        let kept = config["republish"]["dest"].as_str()?.strip_suffix(".>")?.to_owned();
        let nonce = kept.strip_prefix(&subjects.kept(""))?;
        let has = |subject: &str| config["subjects"].as_array().is_some_and(|all| all.iter().any(|of| *of == subject));
        if !has(&subjects.history(">")) || config["allow_direct"] != true || nonce.is_empty() {
            return None;
        }
        let number = |name: &str| config[name].as_u64().unwrap_or(0);
        let limits = Limits {
            per_room_max: number("max_msgs_per_subject"),
            age_max_ns: number("max_age"),
            bytes_max: number("max_bytes"),
        };
        let storage = config["storage"].as_str().unwrap_or_default().to_owned();
        let epoch = hash(&[nonce, &created]);
        Some(Stream { epoch, kept, limits, storage, last_seq: answer.state.map_or(0, |state| state.last_seq), config })
    };
    match stream() {
        Some(stream) => Told::Stream(Box::new(stream)),
        None => Told::Failed("a stream of this name is there, and was not made by a ringwire of this prefix".into()),
    }
}

/// FNV-1a: the same on all machines.
fn hash(texts: &[&str]) -> u64 {
    let bytes = texts.iter().flat_map(|text| text.bytes().chain([0xff]));
    bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

/// A reader of one subject's messages from a number on.
pub(super) fn consumer(stream: &str, subject: &str, from: u64) -> String {
    let config = json!({
        "deliver_policy": "by_start_sequence",
        "opt_start_seq": from.max(1),
        "ack_policy": "none",
        "replay_policy": "instant",
        "filter_subject": subject,
        "inactive_threshold": CONSUMER_IDLE_NS,
        "mem_storage": true,
        "num_replicas": 1,
    });
    json!({ "stream_name": stream, "config": config }).to_string()
}

/// A consumer's name, and how many messages wait in it.
pub(super) fn read_consumer(payload: &[u8]) -> Option<(String, u64)> {
    let answer: Answer = serde_json::from_slice(payload).ok()?;
    Some((answer.name?, answer.num_pending.unwrap_or(0))).filter(|_| answer.error.is_none())
}

pub(super) fn pull(batch: u64) -> String {
    json!({ "batch": batch, "no_wait": true }).to_string()
}

/// The last message of a subject.
pub(super) fn last_of(subject: &str) -> String {
    json!({ "last_by_subj": subject }).to_string()
}

/// The first message of all.
pub(super) fn first_of_all() -> String {
    json!({ "next_by_subj": ">", "seq": 1 }).to_string()
}

/// The number under which a message was stored; `None` if it was not.
pub(super) fn read_ack(payload: &[u8]) -> Option<u64> {
    let answer: Answer = serde_json::from_slice(payload).ok()?;
    answer.seq.filter(|seq| *seq > 0 && answer.error.is_none())
}

/// What the reply subject of a consumer's message says.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Delivered<'s> {
    pub(super) consumer: &'s str,
    pub(super) seq: u64,
    /// In nanoseconds since 1970.
    pub(super) stored_ns: u64,
    pub(super) pending: u64,
}

/// `$JS.ACK.STREAM.CONSUMER.TIMES.SEQ.CONSUMER_SEQ.TIME.PENDING`, or the same with domain and account behind `ACK` and something behind
/// it all.
pub(super) fn read_delivered(reply: &str) -> Option<Delivered<'_>> {
    let rest = reply.strip_prefix("$JS.ACK.")?;
    let tokens: Vec<&str> = rest.split('.').collect();
    let start = match tokens.len() {
        7 => 0,
        9.. => 2,
        _ => return None,
    };
    let number = |index: usize| tokens[start + index].parse().ok();
    Some(Delivered { consumer: tokens[start + 1], seq: number(3)?, stored_ns: number(5)?, pending: number(6)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { per_room_max: 10, age_max_ns: 0, bytes_max: 1 << 20 };

    fn info(subjects: &Subjects, created: &str, nonce: &str) -> Vec<u8> {
        let config: Value =
            serde_json::from_str(&config("s", subjects, nonce, NatsHistory::Memory, LIMITS)).expect("JSON");
        json!({ "created": created, "config": config, "state": { "last_seq": 7 } }).to_string().into_bytes()
    }

    fn epoch(created: &str, nonce: &str) -> u64 {
        let subjects = Subjects::new("a.b");
        match read_stream(&info(&subjects, created, nonce), &subjects) {
            Told::Stream(stream) => stream.epoch,
            other => panic!("{other:?}"),
        }
    }

    /// Kills: a stream that was made anew and is taken for the one before it; one of another that is taken for one's own.
    #[test]
    fn a_stream_is_known_by_what_it_was_made_with() {
        let subjects = Subjects::new("a.b");
        let Told::Stream(stream) = read_stream(&info(&subjects, "2026", "n"), &subjects) else { panic!("a stream") };
        assert_eq!((&*stream.kept, stream.limits, stream.last_seq), ("a.b.kept.n", LIMITS, 7));
        assert_eq!(epoch("2026", "n"), stream.epoch);
        assert_ne!(epoch("2026", "m"), stream.epoch);
        assert_ne!(epoch("2027", "n"), stream.epoch);
        let others = Subjects::new("a-b");
        assert!(matches!(read_stream(&info(&subjects, "2026", "n"), &others), Told::Failed(_)), "another's");
        let wanted = Limits { per_room_max: 20, ..LIMITS };
        let changed: Value = serde_json::from_str(&with_limits(&stream, wanted)).expect("JSON");
        assert_eq!((&changed["max_msgs_per_subject"], &changed["republish"]), (&json!(20), &stream.config["republish"]));
    }

    #[test]
    fn errors_are_told_apart() {
        let subjects = Subjects::new("a");
        let told = |code: u64| {
            let error = json!({ "error": { "code": 400, "err_code": code, "description": "why" } });
            read_stream(error.to_string().as_bytes(), &subjects)
        };
        assert!(matches!(told(10_059), Told::NotFound));
        assert!(matches!(told(10_058), Told::NameInUse));
        assert!(matches!(told(10_039), Told::Off));
        assert!(matches!(told(10_047), Told::Failed(why) if why == "why"));
        assert!(matches!(read_stream(b"nonsense", &subjects), Told::Failed(_)));
        assert_eq!(read_ack(br#"{"stream":"s","seq":5}"#), Some(5));
        assert_eq!(read_ack(br#"{"error":{"code":503},"stream":"s","seq":0}"#), None);
        assert_eq!(read_consumer(br#"{"name":"c","num_pending":3}"#), Some(("c".into(), 3)));
        assert_eq!(read_consumer(br#"{"error":{"code":500}}"#), None);
    }

    #[test]
    fn a_consumers_message_says_where_it_stands() {
        let expected = Delivered { consumer: "c", seq: 9, stored_ns: 77, pending: 3 };
        assert_eq!(read_delivered("$JS.ACK.s.c.1.9.2.77.3"), Some(expected));
        let expected = Delivered { consumer: "c", seq: 9, stored_ns: 77, pending: 3 };
        assert_eq!(read_delivered("$JS.ACK.domain.hash.s.c.1.9.2.77.3.random"), Some(expected));
        for other in ["a.b", "$JS.ACK.s.c", "$JS.ACK.s.c.1.x.2.77.3"] {
            assert_eq!(read_delivered(other), None, "{other}");
        }
    }
}
