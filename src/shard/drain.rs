//! A core's last minutes: it gives notice, then drains, then ends.
//!
//! During the notice it accepts and serves as ever, and only says that it is about to go (`/readyz`), so that balancers stop
//! sending it new connections before it refuses any. Then no WebSocket is let in any more, those that are open are told to
//! go one after the other, and each connection that has been answered ends. The core is done when all have gone, or at the
//! drain's timeout, which counts from the end of the notice.
//!
//! Operators, where they have a listener of their own, are answered until every core has drained: a drain can be watched, and is
//! seen to be one.
//!
//! Who tells it to drain may give it a time of its own for all of that, which can be shortened later, and never be made longer.

use std::collections::VecDeque;
use std::time::Duration;

use super::conn::{Conn, Phase};
use super::{ACCEPT_BACKOFF_MS, Handover, Shard};
use crate::engine::{Key, Ring};
use crate::shard::service::Service;

/// How long handshakes of TCP that have begun may take to end up in a listener's queue.
const TURNED_AWAY_MS: u64 = 500;
/// Ticks in a row without an accept after which nobody waits in the listeners' queues.
const QUIET_TICKS: u32 = 2;
/// How often a core that has drained looks whether the others have.
const LOOK_AT_OTHERS_MS: u64 = 50;
/// How long operators are accepted once all cores have drained, however many still come.
const LAST_ADMINS_MS: u64 = 200;

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
    accepts: Accepts,
    /// Ticks in a row in which nobody waited.
    pub(super) quiet_ticks: u32,
}

/// Whom a drain still accepts, in this order.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Accepts {
    /// Everybody, at least until then, and until nobody waits in the queues.
    Everybody { until_ms: u64 },
    /// Operators, until all cores have drained; whether this one has.
    Admins { has_drained: bool },
    /// Those of them who wait in the queue, at least until then, and at most until `by_ms`.
    LastAdmins { until_ms: u64, by_ms: u64 },
    Nobody,
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

    /// Whether connections are accepted from this listener.
    pub(super) fn accepts(&self, listener: u8) -> bool {
        self.accepts_everybody() || (self.accepts_anybody() && self.settings.stays(listener))
    }

    /// Whether connections are accepted from all listeners.
    pub(super) fn accepts_everybody(&self) -> bool {
        match &self.leaving {
            Leaving::No | Leaving::Noticed { .. } => true,
            Leaving::Draining(drain) => matches!(drain.accepts, Accepts::Everybody { .. }),
            Leaving::Stopped => false,
        }
    }

    /// Whether connections are accepted from any listener.
    pub(super) fn accepts_anybody(&self) -> bool {
        match &self.leaving {
            Leaving::Draining(drain) => drain.accepts != Accepts::Nobody,
            _ => self.accepts_everybody(),
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
                let accept_ms = match drain.accepts {
                    Accepts::Everybody { until_ms } => until_ms,
                    Accepts::LastAdmins { until_ms, by_ms } => until_ms.min(by_ms),
                    Accepts::Admins { has_drained: true } => self.now_ms() + LOOK_AT_OTHERS_MS,
                    Accepts::Admins { has_drained: false } | Accepts::Nobody => u64::MAX,
                };
                Some(plan_ms.min(accept_ms))
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
        let until_ms = match self.settings.handover {
            Handover::Close | Handover::Leave => now_ms,
            Handover::Share => {
                self.ring.turn_away();
                now_ms + TURNED_AWAY_MS
            }
        };
        let open = self.conns.keys_where(|conn| conn.phase == Phase::Open);
        let (count, spread_ms) = (open.len() as u64, self.settings.drain_spread.as_millis() as u64);
        let plan =
            open.into_iter().enumerate().map(|(nth, key)| (now_ms + spread_ms * nth as u64 / count, key)).collect();
        let accepts = Accepts::Everybody { until_ms };
        let mut drain = Drain { plan, stop_at_ms: u64::MAX, accepts, quiet_ticks: 0 };
        match stop_at_ms {
            Some(stop_at_ms) => drain.hasten(now_ms, stop_at_ms),
            None => drain.stop_at_ms = now_ms.saturating_add(as_ms(self.settings.drain_timeout)),
        }
        self.leaving = Leaving::Draining(drain);
        if self.settings.handover == Handover::Leave {
            // Whoever waits in the queues is another process's.
            self.accept_admins();
        }
        for key in self.conns.keys_where(|conn| conn.phase == Phase::Delayed) {
            self.start_http(key.slot());
        }
        // A request that has begun, or is about to, is waited for, but not as long as usual.
        self.hurry(|conn| !conn.is_between_requests());
    }

    /// Goes on with the end of accepting, where it is time.
    fn end_accepting(&mut self) {
        match self.drain().map(|drain| drain.accepts) {
            Some(Accepts::Everybody { until_ms }) if until_ms <= self.now_ms() => self.accept_whoever_waits(),
            Some(Accepts::Admins { .. }) => self.look_at_others(),
            Some(Accepts::LastAdmins { until_ms, by_ms }) if until_ms.min(by_ms) <= self.now_ms() => {
                self.accept_whoever_waits();
            }
            _ => {}
        }
    }

    /// Stops accepting when nobody waits in the listeners' queues any more.
    fn accept_whoever_waits(&mut self) {
        let now_ms = self.now_ms();
        let are_all = self.accepts_everybody();
        let is_at_them = self.accepting.is_at(|listener| are_all || self.settings.stays(listener));
        let Leaving::Draining(drain) = &mut self.leaving else { return };
        let is_over = matches!(drain.accepts, Accepts::LastAdmins { by_ms, .. } if by_ms <= now_ms);
        if !is_at_them && !is_over {
            // No slot or no descriptor is free: some will be, as connections end.
            if let Accepts::Everybody { until_ms } | Accepts::LastAdmins { until_ms, .. } = &mut drain.accepts {
                *until_ms = now_ms + ACCEPT_BACKOFF_MS;
            }
            return;
        }
        drain.quiet_ticks += 1;
        if drain.quiet_ticks <= QUIET_TICKS && !is_over {
            return;
        }
        if are_all {
            return self.accept_admins();
        }
        drain.accepts = Accepts::Nobody;
        self.stop_accepting(true);
    }

    /// Accepts nobody but operators, if they have listeners that stay.
    fn accept_admins(&mut self) {
        let some_stay = (0..self.settings.listeners).any(|listener| self.settings.stays(listener));
        if let Leaving::Draining(drain) = &mut self.leaving {
            drain.accepts = if some_stay { Accepts::Admins { has_drained: false } } else { Accepts::Nobody };
        }
        self.stop_accepting(false);
    }

    /// Closes the listeners, those that stay among them or not.
    fn stop_accepting(&mut self, are_all: bool) {
        for listener in 0..self.settings.listeners {
            if are_all || !self.settings.stays(listener) {
                self.ring.stop_accepting(listener.into());
                self.accepting.end(listener);
            }
        }
    }

    /// Says that this core has drained, when it has, and stops accepting operators once all have.
    fn look_at_others(&mut self) {
        let (settings, now_ms) = (&self.settings, self.now_ms());
        let is_left = |conn: &Conn| conn.phase != Phase::Accepting && !settings.stays(conn.listener);
        if self.websockets() > 0 || !self.conns.keys_where(is_left).is_empty() {
            return;
        }
        self.admission.balance().set_drained(self.hub.core());
        let have_drained = self.admission.balance().have_drained();
        let Leaving::Draining(drain) = &mut self.leaving else { return };
        drain.accepts = Accepts::Admins { has_drained: true };
        if have_drained {
            drain.accepts = Accepts::LastAdmins { until_ms: now_ms, by_ms: now_ms + LAST_ADMINS_MS };
            drain.quiet_ticks = 0;
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
        let is_over = now_ms >= drain.stop_at_ms;
        let awaits_others = matches!(drain.accepts, Accepts::Everybody { .. } | Accepts::Admins { .. });
        if is_over {
            self.stop();
        } else if self.websockets() == 0 {
            // Requests can be made on kept-alive connections until the last WebSocket has gone; operators' until all cores'.
            let settings = &self.settings;
            let has_done = |conn: &Conn| {
                let stays = awaits_others && settings.stays(conn.listener);
                conn.phase == Phase::Http && conn.is_between_requests() && !stays
            };
            for key in self.conns.keys_where(has_done) {
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
