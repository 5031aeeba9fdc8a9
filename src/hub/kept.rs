//! What connections have the hub keep beside messages: the rooms that they are in, and their JSON data. A peer decides how
//! many rooms and how long their names are, so it counts in the memory budget.

use super::CoreHub;
use crate::message::RawJson;

/// So many bytes a connection are part of what an idle one costs, and not counted.
const FREE_BYTES: u32 = 1 << 10;
/// A room on a core: its entry among the rooms and among their names, and a place in its connection's list.
const ROOM_BYTES: usize = 192;
/// What each other core keeps of it; the name is shared.
const PRESENCE_BYTES: usize = 160;
/// Data: its entry in the table, and what it is shared by.
const DATA_BYTES: usize = 48;

/// What a membership costs, as if the room had no other member.
pub(super) fn membership_bytes(name: &str, cores: usize) -> u32 {
    (name.len() + ROOM_BYTES + PRESENCE_BYTES * cores.saturating_sub(1)) as u32
}

/// What a connection's data takes in memory.
pub(super) fn data_bytes(data: &RawJson) -> u32 {
    u32::try_from(data.as_str().len() + DATA_BYTES).unwrap_or(u32::MAX)
}

impl CoreHub {
    /// A connection keeps so much more, and so much less.
    pub(super) fn keep(&mut self, slot: u32, more: u32, less: u32) {
        let member = &mut self.members[slot as usize];
        let before = member.kept_bytes.saturating_sub(FREE_BYTES);
        member.kept_bytes = member.kept_bytes.saturating_add(more).saturating_sub(less);
        let now = member.kept_bytes.saturating_sub(FREE_BYTES);
        self.kept_bytes = self.kept_bytes - before as usize + now as usize;
    }

    /// Bytes that all connections of the core keep, without what is free, what compression keeps for them, and what rooms keep of
    /// their messages.
    pub(crate) fn kept_bytes(&self) -> usize {
        self.kept_bytes + self.streams.bytes() + self.history_bytes()
    }

    /// Bytes that a connection keeps, without what is free.
    pub(crate) fn kept_by(&self, slot: u32) -> usize {
        self.members.get(slot as usize).map_or(0, |member| member.kept_bytes.saturating_sub(FREE_BYTES)) as usize
    }
}
