//! Frames that are compressed with a context (RFC 7692 7.1.1): each can be read only by who has read all those before it, back
//! to one that depends on nothing.
//!
//! Who makes such frames numbers them by [`Step`]s, no two alike on a core. A connection is at the step of the last that it
//! got, and gets the next one only if that follows on the step where it is: so whoever has missed one, for whatever reason,
//! comes from elsewhere or has never had one, is behind without anybody having to note it. One that is behind is caught up by
//! a frame that depends on nothing.
//!
//! Two rules, and nothing outside can break them, for nothing else queues such a frame or knows where a connection is:
//!
//! - behind a backlog, none is queued;
//! - of those that a backlog has, all that have not been begun are dropped, or none, and the connection is behind. They have
//!   no keys, so nothing is put in their places.
//!
//! In the queue of a connection with a context such a frame is known by its bit RSV1: who has a context gets no other
//! compressed frames, since these would be in its window, too.

use super::backlog::{is_compressed, is_raw};
use super::{ArenaFrame, Outbox, Queued, State};

/// A frame's place among all that were compressed with a context on this core.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Step(u64);

impl Step {
    /// Of a connection without a context.
    const NONE: Step = Step(0);
    /// Of a connection that gets none but what depends on nothing.
    const BEHIND: Step = Step(1);

    /// Before all of a core's frames.
    pub fn first() -> Step {
        Step(2)
    }

    /// That of the core's next frame, whatever stream it is in.
    #[must_use]
    pub fn next(self) -> Step {
        Step(self.0 + 1)
    }
}

impl Outbox {
    /// From now on a connection may get frames with a context; it is behind.
    pub fn open_context(&mut self, slot: u32) {
        let index = slot as usize;
        debug_assert!(self.slots[index].state != State::Vacant);
        if self.steps.len() <= index {
            self.steps.resize(index + 1, Step::NONE);
        }
        self.steps[index] = Step::BEHIND;
    }

    pub(super) fn close_context(&mut self, slot: u32) {
        if let Some(step) = self.steps.get_mut(slot as usize) {
            *step = Step::NONE;
        }
    }

    pub(super) fn has_context(&self, slot: u32) -> bool {
        self.steps.get(slot as usize).is_some_and(|step| *step != Step::NONE)
    }

    /// Something compressed was dropped, or may have been.
    pub(super) fn fall_behind(&mut self, slot: u32) {
        if let Some(step) = self.steps.get_mut(slot as usize).filter(|step| **step != Step::NONE) {
            *step = Step::BEHIND;
        }
    }

    /// Whether a connection can get the frame after this one now; `None`: one that depends on nothing.
    #[inline]
    pub fn can_follow(&self, slot: u32, after: Option<Step>) -> bool {
        let Some(&step) = self.steps.get(slot as usize) else { return false };
        let is_next = after.map_or(step != Step::NONE, |after| step == after);
        is_next && self.slots[slot as usize].backlog.is_none() && self.is_open(slot)
    }

    /// Queues a frame of this step, compressed with what came up to `after`, to a connection that can follow. If it is not
    /// in the queue then, the connection is behind, and is to get the message as it is.
    #[inline]
    pub fn queue_with_context(&mut self, slot: u32, frame: ArenaFrame, after: Option<Step>, step: Step) -> bool {
        debug_assert!(after.is_none_or(|after| after < step) && step > Step::BEHIND);
        if !self.can_follow(slot, after) || self.queue(slot, frame) != Queued::Yes {
            return false;
        }
        self.steps[slot as usize] = step;
        true
    }

    /// Whether the first frame of this must not be dropped alone.
    pub(super) fn is_bound(&self, slot: u32, frame: &[u8]) -> bool {
        !is_raw(frame) && is_compressed(frame) && self.has_context(slot)
    }
}
