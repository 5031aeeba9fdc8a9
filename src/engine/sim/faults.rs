//! What may go wrong, how likely, and how often it did.

use crate::engine::Nanos;

macro_rules! faults {
    ($($(#[$doc:meta])* $name:ident = $harsh:expr,)*) => {
        /// A kind of fault that the fake kernel can inject. Each is something that the real one does.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Fault {
            $($(#[$doc])* $name,)*
        }

        impl Fault {
            /// Every kind.
            pub const ALL: &[Fault] = &[$(Fault::$name,)*];
            const HARSH: &[f64] = &[$($harsh,)*];
        }
    };
}

faults! {
    /// A batch send is cut short though there is room.
    ShortSend = 0.10,
    /// A batch send meets a full socket though there is room.
    SpuriousEagain = 0.05,
    /// An asynchronous send waits, or goes out in parts, though there is room.
    DelayedSend = 0.30,
    /// An asynchronous send goes out in part, then the connection breaks.
    BrokenSend = 0.01,
    /// One receive finds the buffer ring empty. Only while at least one buffer is out, as in the kernel.
    NoBuffersOne = 0.05,
    /// The buffer ring shrinks to one to three buffers for a while: all receives of the core starve together.
    NoBuffersAll = 0.02,
    /// A receive delivers data and says that no more follow.
    LostMore = 0.10,
    /// A multishot receive ends with `EINTR`.
    RecvInterrupted = 0.01,
    /// A multishot receive ends with `ECANCELED` that nobody asked for.
    RecvCancelled = 0.01,
    /// The last data before the end of file says that no more follow: the end shows only after arming again.
    EofAfterRearm = 0.30,
    /// The connection breaks in the middle of something; both sides see a reset.
    Reset = 0.002,
    /// TCP gives up on the connection: `ETIMEDOUT` or `EHOSTUNREACH` for the server.
    TimedOut = 0.001,
    /// A batch send fails for want of memory, which ends the connection.
    SendNoMemory = 0.001,
    /// A reset by the server destroys what the client has not read yet. Real TCP does it; `harsh` leaves it out, since
    /// under it no oracle can demand that a Close frame arrives.
    ResetDiscards = 0.0,
    /// A cancelled operation ends later, and may still deliver data or finish its work first.
    LateAfterCancel = 0.40,
    /// A completion comes later than it could.
    Postponed = 0.15,
    /// The doorbell of another core comes later than it could.
    DoorbellLate = 0.15,
    /// A turn that would sleep returns with nothing, as after a signal.
    SpuriousWake = 0.05,
    /// Completions of different slots come in another order.
    Reordered = 0.30,
    /// The completion queue overflows: what is new shows only some turns later.
    CqOverflow = 0.03,
    /// An accept fails with `EMFILE`, `ENFILE` or `ENOMEM`; the connection stays pending.
    AcceptError = 0.05,
    /// An accept fails with `ECONNABORTED`; the connection is lost.
    AcceptAborted = 0.01,
    /// A receive delivers one byte.
    SingleByte = 0.10,
    /// A receive delivers less than is there.
    ShortRecv = 0.20,
    /// A single-shot receive delivers less than fits.
    RecvIntoShort = 0.20,
    /// A single-shot receive ends with `EINTR`.
    RecvIntoInterrupted = 0.05,
    /// Queued operations are submitted at once, and their completions may show before the next turn.
    EarlySubmit = 0.05,
    /// The clock goes on further than asked for.
    ClockJump = 0.001,
    /// A connection that a core makes fails though it was accepted. Like the next, not among the `harsh`: servers do not
    /// connect.
    ConnectFailed = 0.0,
    /// A connect is refused at once for want of a descriptor.
    NoDescriptor = 0.0,
}

/// How likely each [`Fault`] is, each time it could happen.
#[derive(Clone, Debug, PartialEq)]
pub struct Faults {
    chances: [f64; Fault::ALL.len()],
    /// Longest time by which something is postponed or delayed.
    pub delay_ns_max: Nanos,
    /// Longest jump of the clock.
    pub clock_jump_ns_max: Nanos,
}

impl Faults {
    /// No faults: a kernel on its best day.
    pub fn none() -> Faults {
        Faults { chances: [0.0; Fault::ALL.len()], delay_ns_max: 1_000_000, clock_jump_ns_max: 2_000_000_000 }
    }

    /// Everything at once, often enough that a short run meets it, rarely enough that most connections live.
    pub fn harsh() -> Faults {
        let mut faults = Faults::none();
        faults.chances.copy_from_slice(Fault::HARSH);
        faults
    }

    /// The same with another probability for `fault`.
    ///
    /// # Panics
    /// If `probability` is not within 0 to 1.
    pub fn with(mut self, fault: Fault, probability: f64) -> Faults {
        assert!((0.0..=1.0).contains(&probability), "no probability: {probability}");
        self.chances[fault as usize] = probability;
        self
    }

    /// The probability of `fault`.
    pub fn chance(&self, fault: Fault) -> f64 {
        self.chances[fault as usize]
    }
}

/// How often each [`Fault`] was injected.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FaultCounts {
    counts: [u64; Fault::ALL.len()],
}

impl FaultCounts {
    /// How often `fault` was injected.
    pub fn of(&self, fault: Fault) -> u64 {
        self.counts[fault as usize]
    }

    /// All faults together.
    pub fn total(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Adds what another run counted.
    pub fn add(&mut self, other: &FaultCounts) {
        for (mine, theirs) in self.counts.iter_mut().zip(other.counts) {
            *mine += theirs;
        }
    }

    pub(super) fn count(&mut self, fault: Fault) {
        self.counts[fault as usize] += 1;
    }
}

impl std::fmt::Display for FaultCounts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let seen = Fault::ALL.iter().filter(|&&fault| self.of(fault) > 0);
        for (i, &fault) in seen.enumerate() {
            write!(f, "{}{fault:?} {}", if i == 0 { "" } else { ", " }, self.of(fault))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_numbered_in_order() {
        for (i, &fault) in Fault::ALL.iter().enumerate() {
            assert_eq!(fault as usize, i);
            assert_eq!(Faults::none().chance(fault), 0.0);
            assert_eq!(Faults::harsh().chance(fault), Fault::HARSH[i]);
        }
    }

    #[test]
    fn counts_add_up() {
        let mut counts = FaultCounts::default();
        counts.count(Fault::Reset);
        counts.count(Fault::Reset);
        counts.count(Fault::ShortSend);
        let mut sum = counts.clone();
        sum.add(&counts);
        assert_eq!((sum.of(Fault::Reset), sum.total()), (4, 6));
        assert_eq!(counts.to_string(), "ShortSend 1, Reset 2");
    }
}
