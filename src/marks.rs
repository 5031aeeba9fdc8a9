//! Lines that a test asserts were reached.
//!
//! A rare path has a mark where it is taken, and a test that claims to take it asks afterwards whether it was there: so no
//! such test passes because nothing happened. Marks count where debug assertions are on; elsewhere they are nothing. Each
//! thread counts for itself, so whole cores on one thread, as in the simulation, see their own marks alone.
//!
//! Knows of this crate: nothing.

use std::cell::Cell;

macro_rules! marks {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// A path that is seldom taken.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Mark {
            $($(#[$doc])* $name,)*
        }

        impl Mark {
            /// Every mark.
            pub const ALL: &[Mark] = &[$(Mark::$name,)*];
        }
    };
}

marks! {
    /// A letter waits for room in a core's mailbox.
    LetterWaits,
    /// A letter that was tried again finds no room, and others wait behind it.
    LetterKeepsItsPlace,
    /// Input that was held back while mail found no room goes on.
    MailFlowsAgain,
    /// A receive finds no buffer.
    ReceiveStarves,
    /// A receive ends although the connection goes on.
    ReceiveInterrupted,
    /// A receive into a message's own buffer ends without bytes.
    DirectReceiveCut,
    /// Input of a connection that must wait is kept.
    InputHeldBack,
    /// More was received than one tick handles.
    InputOfNextTick,
    /// What is to be decompressed waits for its turn.
    InflatingWaits,
    /// Input that was kept is handled.
    InputResumed,
    /// A socket takes a part of what it was given.
    SentShort,
    /// A newer message takes the place of an older one.
    Replaced,
    /// Descriptors or memory are lacking, and accepting waits.
    AcceptBacksOff,
    /// A core that has more connections than others leaves new ones to them.
    LeavesToOthers,
    /// A connection is closed because of the memory that it holds.
    ShedForMemory,
}

thread_local! {
    static REACHED: [Cell<u64>; Mark::ALL.len()] = const { [const { Cell::new(0) }; Mark::ALL.len()] };
}

/// Notes that a path is taken.
#[inline(always)]
pub(crate) fn reach(mark: Mark) {
    if cfg!(debug_assertions) {
        REACHED.with(|reached| reached[mark as usize].set(reached[mark as usize].get() + 1));
    }
}

/// How often this thread has taken each path since the last call; `None` where marks do not count.
pub fn take() -> Option<Vec<(Mark, u64)>> {
    let taken = REACHED.with(|reached| Mark::ALL.iter().map(|&mark| (mark, reached[mark as usize].take())).collect());
    cfg!(debug_assertions).then_some(taken)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_counted_until_they_are_taken() {
        let of = |mark| {
            take().and_then(|marks| marks.into_iter().find(|(other, _)| *other == mark)).map_or(0, |(_, count)| count)
        };
        take();
        reach(Mark::SentShort);
        reach(Mark::SentShort);
        assert_eq!(of(Mark::SentShort), 2);
        assert_eq!(of(Mark::SentShort), 0);
    }
}
