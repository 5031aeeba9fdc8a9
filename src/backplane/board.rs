//! What all threads may know of the other machines, and how they ask them.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, TrySendError};

use super::asking::{Ask, Reply};
use crate::hub::Histories;
use crate::mail::{MailError, Wake};

/// Questions that wait for the bridge.
const QUESTIONS_MAX: usize = 4096;

/// Another machine of the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct NodeInfo {
    /// Its name: its `RINGWIRE_NODE`, or a random one.
    pub name: String,
    /// Its number: what ids of its connections name.
    pub number: u32,
    /// Its WebSockets.
    pub connections: u64,
    /// The rooms that it has members of.
    pub rooms: usize,
    /// When it was started by its own clock, in milliseconds since 1970.
    pub started_unix_ms: u64,
    /// How long ago it was heard last, to about half a second.
    pub heard_ago: Duration,
}

/// What a thread asks of another machine.
pub(crate) struct Question {
    pub(crate) node: u32,
    pub(crate) ask: Ask,
    pub(crate) answer: oneshot::Sender<Result<Reply, MailError>>,
}

/// What the bridge counts.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) sent: AtomicU64,
    pub(crate) received: AtomicU64,
    pub(crate) dropped_away: AtomicU64,
    pub(crate) dropped_congested: AtomicU64,
    pub(crate) dropped_slow: AtomicU64,
    pub(crate) malformed: AtomicU64,
    pub(crate) twice: AtomicU64,
    pub(crate) unreachable: AtomicU64,
    pub(crate) reconnects: AtomicU64,
    pub(crate) round_trip_ns: AtomicU64,
    pub(crate) history_sent: AtomicU64,
    pub(crate) history_received: AtomicU64,
    pub(crate) history_apart: AtomicU64,
    pub(crate) history_refused: AtomicU64,
    pub(crate) history_gaps: AtomicU64,
    pub(crate) history_asked: AtomicU64,
    pub(crate) history_unanswered: AtomicU64,
}

/// See the module.
pub(crate) struct Board {
    pub(crate) name: String,
    pub(crate) number: u32,
    /// Whether the server is not ready without the others.
    pub(crate) is_required: bool,
    pub(crate) counters: Counters,
    /// Which rooms have a history here.
    pub(crate) histories: OnceLock<Arc<Histories>>,
    is_joined: AtomicBool,
    is_shared: AtomicBool,
    /// Rooms that have members here.
    pub(crate) rooms: AtomicU64,
    pub(crate) started_unix_ms: u64,
    others: AtomicU32,
    connections: AtomicU64,
    nodes: Mutex<Vec<NodeInfo>>,
    questions: Sender<Question>,
    wake: Arc<dyn Wake>,
}

impl Board {
    pub(crate) fn new(
        name: String,
        number: u32,
        is_required: bool,
        started_unix_ms: u64,
        wake: Arc<dyn Wake>,
    ) -> (Arc<Board>, Receiver<Question>) {
        let (questions, receiver) = crossbeam_channel::bounded(QUESTIONS_MAX);
        let board = Board {
            name,
            number,
            is_required,
            counters: Counters::default(),
            histories: OnceLock::new(),
            is_joined: AtomicBool::new(false),
            is_shared: AtomicBool::new(false),
            rooms: AtomicU64::new(0),
            started_unix_ms,
            others: AtomicU32::new(0),
            connections: AtomicU64::new(0),
            nodes: Mutex::default(),
            questions,
            wake,
        };
        (Arc::new(board), receiver)
    }

    /// Whether a room has a history here.
    pub(crate) fn has_history(&self, room: &str) -> bool {
        self.histories.get().is_some_and(|histories| histories.of(room).is_some())
    }

    /// Whether this machine is one of the others' others now.
    pub(crate) fn is_joined(&self) -> bool {
        self.is_joined.load(Ordering::Relaxed)
    }

    pub(crate) fn set_joined(&self, is_joined: bool) {
        self.is_joined.store(is_joined, Ordering::Relaxed);
    }

    /// Whether rooms have one history on all machines, and it can be reached.
    pub(crate) fn is_shared(&self) -> bool {
        self.is_shared.load(Ordering::Relaxed)
    }

    pub(crate) fn set_shared(&self, is_shared: bool) {
        self.is_shared.store(is_shared, Ordering::Relaxed);
    }

    /// How many others there are.
    pub(crate) fn others(&self) -> u32 {
        self.others.load(Ordering::Relaxed)
    }

    /// The connections of all of them.
    pub(crate) fn connections(&self) -> u64 {
        self.connections.load(Ordering::Relaxed)
    }

    pub(crate) fn set_others(&self, nodes: Vec<NodeInfo>) {
        self.others.store(nodes.len() as u32, Ordering::Relaxed);
        self.connections.store(nodes.iter().map(|node| node.connections).sum(), Ordering::Relaxed);
        *self.nodes.lock().unwrap_or_else(PoisonError::into_inner) = nodes;
    }

    /// The others, in the order of their numbers.
    pub(crate) fn nodes(&self) -> Vec<NodeInfo> {
        self.nodes.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Asks another machine.
    pub(crate) fn ask(&self, node: u32, ask: Ask) -> oneshot::Receiver<Result<Reply, MailError>> {
        let (answer, receiver) = oneshot::channel();
        match self.questions.try_send(Question { node, ask, answer }) {
            Ok(()) => self.wake.wake(),
            Err(TrySendError::Full(question)) => drop(question.answer.send(Err(MailError::Full))),
            Err(TrySendError::Disconnected(question)) => drop(question.answer.send(Err(MailError::Unreachable))),
        }
        receiver
    }
}
