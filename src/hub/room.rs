//! One room on one core.

use std::sync::Arc;

use smallvec::SmallVec;

/// Names a room on this core, from [`CoreHub::room`](super::CoreHub::room) or a join.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RoomId(pub(super) u32);

pub(super) struct Room {
    pub(super) name: Arc<str>,
    pub(super) members: Vec<u32>,
    pub(super) elsewhere: CoreSet,
    /// Kept although empty: somebody holds its id.
    pub(super) pinned: bool,
}

/// A set of cores.
#[derive(Debug, Default)]
pub(super) struct CoreSet(SmallVec<[u64; 1]>);

impl CoreSet {
    pub(super) fn set(&mut self, core: usize, present: bool) {
        let word = core / 64;
        if self.0.len() <= word {
            self.0.resize(word + 1, 0);
        }
        let bit = 1 << (core % 64);
        if present {
            self.0[word] |= bit;
        } else {
            self.0[word] &= !bit;
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.iter().all(|word| *word == 0)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = usize> + '_ {
        self.0.iter().enumerate().flat_map(|(index, word)| {
            (0..64).filter(move |bit| word & (1 << bit) != 0).map(move |bit| index * 64 + bit)
        })
    }
}
