//! What a line is told, and what it has to be done.

use std::sync::Arc;

use bytes::Bytes;

use crate::config::NatsHistory;
use crate::hub::{Found, Mode, Numbered, Publication, Tally};

/// Who a line is of, and what it goes by.
#[derive(Clone, Debug)]
pub(in crate::backplane) struct LineSettings {
    pub(in crate::backplane) prefix: String,
    pub(in crate::backplane) node: u32,
    /// Where the stream keeps them, if histories are not each machine's own.
    pub(in crate::backplane) storage: NatsHistory,
    /// Bytes of all rooms' messages.
    pub(in crate::backplane) bytes_max: usize,
    /// What has not come back for so long does not.
    pub(in crate::backplane) patience_ns: u64,
    /// What the clock's zero is in nanoseconds since 1970.
    pub(in crate::backplane) unix_ns: u64,
    /// What no other stream's subjects have.
    pub(in crate::backplane) nonce: String,
}

/// A message that has come.
#[derive(Clone, Debug, Default)]
pub(in crate::backplane) struct Arrived {
    pub(in crate::backplane) subject: String,
    pub(in crate::backplane) payload: Bytes,
    pub(in crate::backplane) reply: Option<String>,
    /// Of a message without content, what it says.
    pub(in crate::backplane) status: Option<u16>,
    /// Under which number it was stored, and the message of its subject before it.
    pub(in crate::backplane) seq: Option<u64>,
    pub(in crate::backplane) last_seq: Option<u64>,
}

/// What is to be done.
#[derive(Debug)]
pub(in crate::backplane) enum Out {
    Subscribe(String),
    Unsubscribe(String),
    /// Listen to this as one of all nodes: each message goes to one of them.
    Share(String),
    Publish {
        subject: String,
        reply: Option<String>,
        payload: Bytes,
        /// The message's own number, to be named if it cannot be sent.
        number: Option<u64>,
    },
    Numbered {
        room: Arc<str>,
        numbered: Numbered,
    },
    Unnumbered {
        room: Arc<str>,
        publication: Publication,
        /// Others have not got it either.
        goes_abroad: bool,
    },
    /// It was stored, and nobody here is in the room.
    Stored {
        room: Arc<str>,
        tally: Arc<Tally>,
    },
    /// It is not sent: there is too much on its way.
    Refused(Option<Arc<Tally>>),
    Sought {
        core: usize,
        token: u64,
        found: Option<Box<Found>>,
    },
    Mode(Mode),
    Release(Arc<str>),
    Say(Word),
}

/// What whoever runs the server is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::backplane) enum Word {
    /// All machines have one history.
    Shared { storage: String },
    /// Each has its own: JetStream is off.
    Off,
    /// The stream cannot be used, for this reason.
    Failed(String),
    /// It was there, and is away.
    Away,
    /// It was made anew.
    Anew,
}

/// What happened so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::backplane) struct LineCounts {
    /// Messages that were sent to the stream.
    pub(in crate::backplane) sent: u64,
    /// Messages that came from it in order.
    pub(in crate::backplane) received: u64,
    /// Messages that went to the members here alone, without a number.
    pub(in crate::backplane) apart: u64,
    /// Messages that were refused.
    pub(in crate::backplane) refused: u64,
    /// Times that something was missing and was fetched.
    pub(in crate::backplane) gaps: u64,
    /// Questions of cores, and those that were not answered in time.
    pub(in crate::backplane) asked: u64,
    pub(in crate::backplane) unanswered: u64,
}
