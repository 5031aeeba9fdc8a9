//! What the bridge and the owners of rooms tell each other where all machines share one history: plain data. See [`super::shared`].

use std::collections::VecDeque;

use super::publication::Publication;
use crate::outbox::FrameBuf;

/// Longest name of a room that has a history beyond its machine: it is a part of a subject.
pub(crate) const SHARED_NAME_BYTES_MAX: usize = 1024;

/// Who keeps the history of rooms.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// Each machine for itself.
    #[default]
    Local,
    /// All have one, of this epoch.
    Shared(u64),
    /// All have one, and this machine cannot reach it.
    Apart,
}

/// A message of the one line, or a mark in it.
#[derive(Debug)]
pub struct Numbered {
    /// Of which history.
    pub epoch: u64,
    /// Its number.
    pub offset: u64,
    /// Whether it follows what was passed on before it, as far as is known.
    pub is_next: bool,
    /// The message; `None`: here something is missing.
    pub publication: Option<Publication>,
    /// The members here have got it without a number.
    pub is_known: bool,
}

/// What the bridge has found of a room.
#[derive(Debug, Default)]
pub struct Found {
    /// Of which history.
    pub epoch: u64,
    /// The last message that was passed on to the owner, if it gets all of the room's.
    pub last: Option<u64>,
    /// Above this, and up to `end`, these are all messages that there were; 0: all from the first on.
    pub floor: u64,
    /// Up to where was looked.
    pub end: u64,
    /// There was more than the room may keep.
    pub is_full: bool,
    /// The messages, in order.
    pub messages: VecDeque<FoundMessage>,
}

/// One of them.
#[derive(Debug)]
pub struct FoundMessage {
    /// Its number.
    pub offset: u64,
    /// As members get it.
    pub frame: FrameBuf,
    /// How long ago it was published.
    pub age_ns: u64,
}
