//! One room on one core.

use std::sync::Arc;

use smallvec::SmallVec;

/// Names a room on this core, from [`CoreHub::room`](super::CoreHub::room) or a join.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RoomId(pub(super) u32);

pub(super) struct Room {
    pub(super) name: Arc<str>,
    pub(super) members: Vec<u32>,
    pub(super) elsewhere: Elsewhere,
    /// The number of members here that the other cores know of.
    pub(super) told: u32,
    /// On the list of rooms to tell of.
    pub(super) is_news: bool,
    /// Kept although empty: somebody holds its id.
    pub(super) pinned: bool,
}

/// How many members other cores have; those that have none are left out.
#[derive(Debug, Default)]
pub(super) struct Elsewhere(SmallVec<[(u16, u32); 2]>);

impl Elsewhere {
    pub(super) fn set(&mut self, core: usize, members: u32) {
        let place = self.0.iter().position(|(of, _)| usize::from(*of) == core);
        match (place, members) {
            (Some(place), 0) => _ = self.0.swap_remove(place),
            (Some(place), _) => self.0[place].1 = members,
            (None, 0) => {}
            (None, _) => self.0.push((core as u16, members)),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn cores(&self) -> impl Iterator<Item = usize> + '_ {
        self.0.iter().map(|(core, _)| usize::from(*core))
    }

    pub(super) fn members(&self) -> usize {
        self.0.iter().map(|(_, members)| *members as usize).sum()
    }
}
