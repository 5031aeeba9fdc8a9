//! What the ring has brought, and whose turn it is to bring more.

use super::Shard;
use super::direct::Bulk;
use crate::engine::{Completion, Key, Op, Ring};
use crate::marks::{Mark, reach};
use crate::shard::service::Service;

/// Completions for which there is room from the start.
const COMPLETIONS_USUAL: usize = 1024;

/// What has come and is to come. Any of the connections may have gone.
pub(super) struct Intake {
    /// Completions of this tick, the mail comes before them; and what the tick before has left of its own.
    pub(super) completions: Vec<Completion>,
    /// Empty between ticks: room for what a tick leaves, so that none is allocated for it.
    left: Vec<Completion>,
    /// Those whose receives found no buffer: armed again once buffers have been given back.
    pub(super) starved: Vec<Key>,
    /// Those with more of a large message at hand, in turn.
    pub(super) bulk: Bulk,
}

impl Default for Intake {
    fn default() -> Intake {
        let completions = Vec::with_capacity(COMPLETIONS_USUAL);
        Intake { completions, left: Vec::new(), starved: Vec::new(), bulk: Bulk::default() }
    }
}

impl Intake {
    /// Gives up the room that a large tick has taken.
    pub(super) fn trim(&mut self) {
        if self.completions.capacity() > COMPLETIONS_USUAL && self.completions.is_empty() {
            self.completions.shrink_to(COMPLETIONS_USUAL);
        }
        self.left.shrink_to(COMPLETIONS_USUAL);
    }
}

impl<R: Ring, S: Service> Shard<R, S> {
    pub(super) fn handle_completions(&mut self) {
        let mut completions = std::mem::take(&mut self.intake.completions);
        let mut left = std::mem::take(&mut self.intake.left);
        let mut left_bytes = self.settings.tick_bytes_max;
        for completion in completions.drain(..) {
            match completion.token.op() {
                // With all that a connection has received behind it: so its order is kept.
                Op::Recv if left_bytes == 0 => left.push(completion),
                Op::Recv => {
                    let bytes = completion.filled.as_ref().map_or(0, |filled| filled.byte_count() as usize);
                    left_bytes = left_bytes.saturating_sub(bytes);
                    self.received(completion);
                }
                Op::Send => self.sent(&completion),
                Op::Accept => self.accepted(&completion),
                Op::Close => self.descriptor_closed(completion.token),
                // The mail has been read already.
                Op::Doorbell => {}
                Op::RecvInto => self.received_direct(&completion),
                Op::SendNow | Op::Cancel | Op::Connect => {}
            }
        }
        if !left.is_empty() {
            reach(Mark::InputOfNextTick);
            std::mem::swap(&mut completions, &mut left);
        }
        (self.intake.completions, self.intake.left) = (completions, left);
    }

    pub(super) fn rearm_starved(&mut self) {
        for key in std::mem::take(&mut self.intake.starved) {
            if self.conns.contains(key) {
                self.start_receiving(key.slot());
            }
        }
    }
}
