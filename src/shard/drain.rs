//! A core's last minutes: it gives notice, then drains, then ends.
//!
//! During the notice it accepts and serves as ever, and only says that it is about to go (`/readyz`), so that balancers stop
//! sending it new connections before it refuses any. Then no WebSocket is let in any more, those that are open are told to
//! go one after the other, and each connection that has been answered ends. The core is done when all have gone, or at the
//! drain's timeout, which counts from the end of the notice.
//!
//! Who tells it to drain may give it a time of its own for all of that, which can be shortened later, and never be made longer.

use std::collections::VecDeque;
use std::time::Duration;

use super::conn::Phase;
use super::{ACCEPT_BACKOFF_MS, Handover, Shard};
use crate::engine::{Key, Ring};
use crate::shard::service::Service;

/// How long handshakes of TCP that have begun may take to end up in a listener's queue.
const TURNED_AWAY_MS: u64 = 500;
/// Ticks in a row without an accept after which nobody waits in the listeners' queues.
const QUIET_TICKS: u32 = 2;

/// How far a core is from its end.
pub(super) enum Leaving {
    /// It stays.
    No,
    /// It will drain then.
    Noticed {
        until_ms: u64,
        /// It ends then, whatever the drain's timeout is.
        stop_at_ms: Option<u64>,
    },
    Draining(Drain),
    /// It is over, whoever was there.
    Stopped,
}

/// A drain under way.
pub(super) struct Drain {
    /// When which connection is told to go.
    plan: VecDeque<(u64, Key)>,
    stop_at_ms: u64,
    /// Accepts at least until then, and until nobody waits in the queues; `None` when that is over.
    accept_until_ms: Option<u64>,
    /// Ticks in a row in which nobody waited.
    pub(super) quiet_ticks: u32,
}

impl Drain {
    /// Is over by then, if that is sooner, and tells everybody to go by half of the time that is left.
    fn hasten(&mut self, now_ms: u64, by_ms: u64) {
        if by_ms >= self.stop_at_ms {
            return;
        }
        self.stop_at_ms = by_ms;
        let left_ms = by_ms.saturating_sub(now_ms) / 2;
        let planned_ms = self.plan.back().map_or(0, |(at_ms, _)| at_ms.saturating_sub(now_ms));
        if planned_ms > left_ms {
            for (at_ms, _) in &mut self.plan {
                let after_ms = u128::from(at_ms.saturating_sub(now_ms)) * u128::from(left_ms) / u128::from(planned_ms);
                *at_ms = now_ms + after_ms as u64;
            }
        }
    }
}

fn as_ms(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

impl<R: Ring, S: Service> Shard<R, S> {
    pub(super) fn drain(&self) -> Option<&Drain> {
        match &self.leaving {
            Leaving::Draining(drain) => Some(drain),
            Leaving::No | Leaving::Noticed { .. } | Leaving::Stopped => None,
        }
    }

    /// Whether connections are accepted.
    pub(super) fn accepts(&self) -> bool {
        match &self.leaving {
            Leaving::No | Leaving::Noticed { .. } => true,
            Leaving::Draining(drain) => drain.accept_until_ms.is_some(),
            Leaving::Stopped => false,
        }
    }

    /// Whether it has ended every connection at once.
    pub(super) fn has_stopped(&self) -> bool {
        matches!(self.leaving, Leaving::Stopped)
    }

    /// When leaving goes on.
    pub(super) fn next_leaving_ms(&self) -> Option<u64> {
        match &self.leaving {
            Leaving::No | Leaving::Stopped => None,
            Leaving::Noticed { until_ms, .. } => Some(*until_ms),
            Leaving::Draining(drain) => {
                let plan_ms = drain.plan.front().map_or(drain.stop_at_ms, |(at_ms, _)| *at_ms);
                Some(plan_ms.min(drain.accept_until_ms.unwrap_or(u64::MAX)))
            }
        }
    }

    /// Says that the core is about to go, which it does after its notice; once. It has ended within so much time, or as the
    /// settings say: the earliest end that it was told counts. Half of a time that is shorter than the settings' is for the
    /// notice at most, and half of the rest for the spread.
    pub(super) fn drain_within(&mut self, within: Option<Duration>) {
        let now_ms = self.now_ms();
        let (notice_ms, timeout_ms) = (as_ms(self.settings.drain_notice), as_ms(self.settings.drain_timeout));
        let by_ms = now_ms.saturating_add(within.map_or(notice_ms.saturating_add(timeout_ms), as_ms));
        let half_ms = now_ms + (by_ms - now_ms) / 2;
        match &mut self.leaving {
            Leaving::No => {
                self.admission.give_notice();
                self.service.shutting_down();
                let until_ms = now_ms.saturating_add(notice_ms);
                self.leaving = match within {
                    None => Leaving::Noticed { until_ms, stop_at_ms: None },
                    Some(_) => Leaving::Noticed { until_ms: until_ms.min(half_ms), stop_at_ms: Some(by_ms) },
                };
            }
            Leaving::Noticed { until_ms, stop_at_ms } => {
                if by_ms < stop_at_ms.unwrap_or(until_ms.saturating_add(timeout_ms)) {
                    *until_ms = half_ms.min(*until_ms);
                    *stop_at_ms = Some(by_ms);
                }
            }
            Leaving::Draining(drain) => drain.hasten(now_ms, by_ms),
            Leaving::Stopped => {}
        }
    }

    /// Goes on with leaving, if it is.
    pub(super) fn leave(&mut self) {
        match self.leaving {
            Leaving::No | Leaving::Stopped => {}
            Leaving::Noticed { until_ms, .. } if until_ms > self.now_ms() => {}
            Leaving::Noticed { stop_at_ms, .. } => {
                self.start_drain(stop_at_ms);
                self.drain_some();
            }
            Leaving::Draining(_) => self.drain_some(),
        }
    }

    /// Stops accepting and plans when each connection is told to go.
    fn start_drain(&mut self, stop_at_ms: Option<u64>) {
        self.admission.drain();
        let now_ms = self.now_ms();
        let accept_until_ms = match self.settings.handover {
            Handover::Close => Some(now_ms),
            Handover::Share => {
                self.ring.turn_away();
                Some(now_ms + TURNED_AWAY_MS)
            }
            Handover::Leave => {
                self.ring.stop_accepting();
                None
            }
        };
        let open = self.conns.keys_where(|conn| conn.phase == Phase::Open);
        let (count, spread_ms) = (open.len() as u64, self.settings.drain_spread.as_millis() as u64);
        let plan =
            open.into_iter().enumerate().map(|(nth, key)| (now_ms + spread_ms * nth as u64 / count, key)).collect();
        let mut drain = Drain { plan, stop_at_ms: u64::MAX, accept_until_ms, quiet_ticks: 0 };
        match stop_at_ms {
            Some(stop_at_ms) => drain.hasten(now_ms, stop_at_ms),
            None => drain.stop_at_ms = now_ms.saturating_add(as_ms(self.settings.drain_timeout)),
        }
        self.leaving = Leaving::Draining(drain);
        for key in self.conns.keys_where(|conn| conn.phase == Phase::Delayed) {
            self.start_http(key.slot());
        }
        // A request that has begun, or is about to, is waited for, but not as long as usual.
        self.hurry(|conn| !conn.is_between_requests());
    }

    /// Stops accepting in a drain when nobody waits in the listeners' queues any more.
    fn end_accepting(&mut self) {
        let now_ms = self.now_ms();
        let Leaving::Draining(drain) = &mut self.leaving else { return };
        if drain.accept_until_ms.is_none_or(|until_ms| until_ms > now_ms) {
            return;
        }
        if !self.accepting.is_at_all() {
            // No slot or no descriptor is free: some will be, as connections end.
            drain.accept_until_ms = Some(now_ms + ACCEPT_BACKOFF_MS);
            return;
        }
        drain.quiet_ticks += 1;
        if drain.quiet_ticks > QUIET_TICKS {
            drain.accept_until_ms = None;
            self.ring.stop_accepting();
        }
    }

    fn drain_some(&mut self) {
        self.end_accepting();
        let now_ms = self.now_ms();
        let Leaving::Draining(drain) = &mut self.leaving else { return };
        while let Some(&(at_ms, key)) = drain.plan.front()
            && at_ms <= now_ms
        {
            drain.plan.pop_front();
            if self.conns.contains(key) {
                self.hub.close(key.slot(), Some(1001), "server shutting down");
            }
        }
        if now_ms >= drain.stop_at_ms {
            self.stop();
        } else if self.websockets() == 0 {
            // Requests can be made on kept-alive connections until the last WebSocket has gone.
            for key in self.conns.keys_where(|conn| conn.phase == Phase::Http && conn.is_between_requests()) {
                self.start_flush(key.slot());
            }
        }
    }

    /// Ends every connection at once.
    pub(super) fn stop(&mut self) {
        self.leaving = Leaving::Stopped;
        for key in self.conns.keys_where(|_| true) {
            self.finish(key.slot(), 1006, "the server stopped");
        }
    }
}
