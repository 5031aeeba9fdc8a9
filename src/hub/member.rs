//! What is known of one connection.

use std::borrow::Cow;

use smallvec::SmallVec;

use super::peer::CompactPeer;
use super::room::{Place, RoomId};
use super::streams::Sends;
use crate::proto::extensions::Agreed;

#[derive(Default)]
pub(super) struct Member {
    pub(super) generation: u32,
    pub(super) route: u16,
    pub(super) open: bool,
    /// What is agreed of compression, if it is.
    pub(super) deflate: Option<Agreed>,
    pub(super) sends: Sends,
    pub(super) doomed: bool,
    /// Its task has not taken what came before: no more of its messages are handled.
    pub(super) task_is_behind: bool,
    /// To be closed when the last sender outside is dropped.
    pub(super) ends_with_senders: bool,
    /// How often somebody outside has got a sender when nobody had one.
    pub(super) senders: u32,
    /// Bytes of what it has the hub keep.
    pub(super) kept_bytes: u32,
    /// Joins and leaves of its that are not known to all cores yet: none of its messages is handled meanwhile.
    pub(super) changes: u32,
    pub(super) peer: CompactPeer,
    pub(super) opened_ns: u64,
    /// Each with this connection's place in the room's list of members.
    pub(super) rooms: SmallVec<[(RoomId, Place); 1]>,
}

/// A connection that is to be closed at the end of the tick.
#[derive(Debug)]
pub struct Doom {
    /// Which.
    pub slot: u32,
    /// Its generation when this was asked for.
    pub generation: u32,
    /// The close code; `None` for a Close frame without one.
    pub code: Option<u16>,
    /// The reason.
    pub reason: Cow<'static, str>,
}
