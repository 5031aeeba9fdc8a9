//! What a core keeps to be used again, and gives back when nobody uses it: buffers of messages, the arena of a large tick.
//!
//! Nothing is counted per message. While there is something that could be given back, or connections come and go, the core
//! looks once in [`LOOK_INTERVAL_MS`] at what was not used since it looked last, frees that, and has the allocator look after
//! what was freed before; after [`QUIET_LOOKS`] in a row that found nothing it sleeps as long as before. So memory is back
//! with the system a few seconds after its last use, as far as the allocator gives it back. It may have a call of its own for
//! that ([`Shard::release_memory_with`]): mimalloc has, which the program uses, and so has glibc. So do the ring's
//! buffers, when a look has found nothing.

use super::Shard;
use crate::engine::Ring;
use crate::shard::service::Service;

/// Between two looks.
const LOOK_INTERVAL_MS: u64 = 1_000;
/// Looks in a row at nothing after which there will be none: as many as an allocator with a delay of a second needs.
const QUIET_LOOKS: u8 = 3;
/// Bytes received and sent since the last look that are worth one.
const MOVED_BYTES_MIN: u64 = 1 << 20;
/// Bytes freed at a look of which the allocator is told at once, however busy the core is.
const FREED_BYTES_MIN: usize = 1 << 20;
/// More than allocators put beside other blocks: to give it back makes them look at what else they may give back.
const NUDGE_BYTES: usize = 2 << 20;

/// What was seen at the last look.
#[derive(Default)]
pub(super) struct Spares {
    /// When to look next.
    look_at_ms: Option<u64>,
    quiet_looks: u8,
    /// Connections that had ended.
    released: u64,
    /// Bytes that had been received and sent.
    moved_bytes: u64,
    /// Tells the allocator.
    release: Option<fn()>,
}

impl<R: Ring, S: Service> Shard<R, S> {
    /// Has `release` called on the core's thread when memory was given up.
    pub fn release_memory_with(&mut self, release: fn()) {
        self.spares.release = Some(release);
    }

    /// Once a tick, at its end.
    #[inline]
    pub(super) fn mind_spares(&mut self) {
        match self.spares.look_at_ms {
            None if self.is_worth_a_look() => self.spares.look_at_ms = Some(self.now_ms() + LOOK_INTERVAL_MS),
            Some(at_ms) if at_ms <= self.now_ms() => self.give_back_spares(),
            _ => {}
        }
    }

    /// When the core must be awake for it.
    pub(super) fn next_spares_ms(&self) -> Option<u64> {
        self.spares.look_at_ms
    }

    fn is_worth_a_look(&self) -> bool {
        let counters = &self.hub.counters;
        self.hub.spares.bytes() > 0
            || self.hub.outbox.has_spares()
            || self.wires.has_spares()
            || counters.released != self.spares.released
            || counters.bytes_in + counters.bytes_out > self.spares.moved_bytes + MOVED_BYTES_MIN
    }

    #[cold]
    fn give_back_spares(&mut self) {
        let is_quiet = !self.is_worth_a_look();
        let counters = &self.hub.counters;
        self.spares.released = counters.released;
        self.spares.moved_bytes = counters.bytes_in + counters.bytes_out;
        let kept_bytes = self.hub.spares.bytes();
        self.hub.spares.trim_unused();
        let freed_bytes = kept_bytes - self.hub.spares.bytes();
        self.hub.outbox.trim_unused();
        self.wires.trim_unused();
        self.hub.trim_streams();
        self.intake.trim();
        if is_quiet {
            self.ring.release_memory();
        }
        match self.spares.release {
            Some(release) if is_quiet || freed_bytes >= FREED_BYTES_MIN => release(),
            Some(_) => {}
            // Black-boxed, or there would be no allocation.
            None => drop(std::hint::black_box(Vec::<u8>::with_capacity(NUDGE_BYTES))),
        }
        self.spares.quiet_looks = if is_quiet { self.spares.quiet_looks + 1 } else { 0 };
        let goes_on = self.spares.quiet_looks < QUIET_LOOKS;
        self.spares.look_at_ms = goes_on.then(|| self.now_ms() + LOOK_INTERVAL_MS);
        if !goes_on {
            self.spares.quiet_looks = 0;
        }
    }
}
