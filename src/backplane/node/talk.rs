//! What a node is told at its start, and what it has done.

use std::sync::Arc;

use bytes::Bytes;

use super::super::asking::{Ask, Reply};
use crate::hub::{ConnectionId, Publication, Scope};

/// Who a node is, and what it goes by.
#[derive(Clone, Debug)]
pub struct Identity {
    /// What all subjects begin with.
    pub prefix: String,
    /// Its name, which no other may have.
    pub name: String,
    /// Its number, new with each start: what ids name.
    pub number: u32,
    /// When it was started, in nanoseconds since 1970.
    pub started_ns: u64,
    /// A node that is silent for so long is not there.
    pub timeout_ns: u64,
    /// Bytes of the longest message between nodes.
    pub message_bytes_max: usize,
}

/// Which cores.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cores {
    /// All of them.
    All,
    /// These.
    These(Vec<u16>),
}

/// Where an answer goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReplyTo {
    /// To a node that has asked, under this number.
    Node(u32, u64),
    /// To an outsider, who waits there.
    Subject(String),
    /// Nobody waits.
    Nobody,
}

/// What is to be done.
#[derive(Debug)]
pub enum Output {
    /// Listen to this, if that is not done already.
    Subscribe(String),
    /// And no more.
    Unsubscribe(String),
    /// What is published to this room is not heard any more.
    Left(Arc<str>),
    /// Send this.
    Publish(String, Bytes),
    /// Deliver this to connections here.
    Deliver {
        /// To whom.
        scope: Scope,
        /// What; nobody waits.
        publication: Publication,
        /// On which cores.
        cores: Cores,
    },
    /// So many members has a room elsewhere: for all cores.
    Members(Arc<str>, u32),
    /// So many nodes are there beside this one, with so many connections.
    Others(usize, u64),
    /// Members of a room were lost with their node, or are there again: for these cores.
    Told {
        /// The room.
        room: Arc<str>,
        /// Who.
        ids: Vec<ConnectionId>,
        /// Whether they are there again.
        back: bool,
        /// Who has members of it.
        cores: Cores,
    },
    /// A connection of this node is asked something.
    Ask(ReplyTo, Ask),
    /// The answer to what was asked under this token; `None`: the node could not be reached.
    Answer(u64, Option<Reply>),
    /// The name is this node's, and others are heard.
    Joined,
    /// The name is another node's.
    Refused,
}

/// Why something was not sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotSent;

/// What happened so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Messages of cores that were handed to the bus.
    pub sent: u64,
    /// Messages of other nodes, and of outsiders, that were delivered here.
    pub received: u64,
    /// Those of cores that were not sent because the bus was away.
    pub away: u64,
    /// What came and made no sense.
    pub malformed: u64,
    /// What came twice.
    pub twice: u64,
    /// Questions that nobody has answered.
    pub unreachable: u64,
}
