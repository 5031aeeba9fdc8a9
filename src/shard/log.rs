//! What the log says of connections and requests, in fields. Nothing is formatted, and nothing allocated, unless its target is
//! on: each event costs a look at the level.
//!
//! | target | level | events |
//! | --- | --- | --- |
//! | `ringwire::limits` | info | `limit`: how often each limit was reached since it was told last, each ten seconds at most |
//! | `ringwire::connection` | debug | `opened`, `closed`: WebSockets |
//! | `ringwire::access` | debug | `request`: each that was answered; `refused`: what was answered, or dropped, without one |
//! | `ringwire::frames` | trace | `frame`: the head of each that is received, in a span with the connection's id |
//!
//! No event of a peer's has a line of its own at `info`: whoever can make many must not fill the log.

use std::fmt;
use std::net::SocketAddr;

use tracing::Level;

use crate::engine::Ring;
use crate::hub::{CoreHub, Tallied};
use crate::metrics::{Counters, Counts, DropReason, Kind, RefusalReason, ShedReason, TimeoutKind};
use crate::proto::http::RequestHead;
use crate::quote::{line, quoted};
use crate::shard::Shard;
use crate::shard::service::{Ended, Service};
use crate::tls::TlsError;

/// How long a limit that was told is not told again.
const TELL_AGAIN_MS: u64 = 10_000;
/// How often the counters are looked at.
const LOOK_AGAIN_MS: u64 = 1_000;

/// A peer's address, or that it is on a Unix socket.
struct PeerName(Option<SocketAddr>);

impl fmt::Display for PeerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(address) => address.fmt(f),
            None => f.write_str("unix"),
        }
    }
}

/// Whether somebody wants to be told of connections as they end.
pub(super) fn wants_connections() -> bool {
    tracing::enabled!(target: "ringwire::connection", Level::DEBUG)
}

/// Whether somebody wants to be told of requests.
#[inline]
pub(super) fn wants_requests() -> bool {
    tracing::enabled!(target: "ringwire::access", Level::DEBUG)
}

fn millis(ns: u64) -> u64 {
    ns / 1_000_000
}

/// A WebSocket has been opened.
#[inline]
pub(super) fn opened(hub: &CoreHub, slot: u32) {
    tracing::debug!(
        target: "ringwire::connection",
        id = %hub.id(slot),
        core = hub.core(),
        route = %hub.route_path(slot),
        peer = %PeerName(hub.peer(slot)),
        "opened"
    );
}

/// A WebSocket has ended. The hub still counts it.
#[inline]
pub(super) fn closed(hub: &mut CoreHub, slot: u32, ended: &Ended) {
    if !wants_connections() {
        return;
    }
    let tallied = hub.traffic.of(slot).copied();
    let count = |of: fn(&Tallied) -> u64| tallied.as_ref().map(of);
    tracing::debug!(
        target: "ringwire::connection",
        id = %hub.id(slot),
        core = hub.core(),
        route = %hub.route_path(slot),
        peer = %PeerName(hub.peer(slot)),
        code = ended.code,
        reason = %quoted(&ended.reason),
        by = ended.by.label(),
        clean = ended.clean,
        duration_ms = millis(hub.now_ns.saturating_sub(hub.opened_ns(slot))),
        messages_in = count(|tallied| tallied.messages_in),
        messages_out = count(|tallied| tallied.messages_out),
        bytes_in = count(|tallied| tallied.bytes_in),
        bytes_out = count(|tallied| tallied.bytes_out),
        "closed"
    );
}

/// A request has been answered: `since_ns` it is complete.
#[inline]
pub(super) fn request(
    hub: &CoreHub,
    head: &RequestHead<'_>,
    peer: impl FnOnce() -> Option<SocketAddr>,
    status: u16,
    refused: Option<RefusalReason>,
    since_ns: u64,
) {
    tracing::debug!(
        target: "ringwire::access",
        core = hub.core(),
        peer = %PeerName(peer()),
        method = %line(&head.method()),
        // Without the query, which may hold a secret.
        path = %line(&head.path()),
        status,
        refused = refused.map(RefusalReason::label),
        duration_us = hub.now_ns.saturating_sub(since_ns) / 1_000,
        "request"
    );
}

/// Somebody was answered so before he had asked for anything, or asked in a way that cannot be read; or was not answered.
#[inline]
pub(super) fn refused(hub: &CoreHub, peer: Option<SocketAddr>, reason: RefusalReason, status: Option<u16>) {
    tracing::debug!(
        target: "ringwire::access",
        core = hub.core(),
        peer = %PeerName(peer),
        reason = reason.label(),
        status,
        "refused"
    );
}

/// A session of TLS has failed, in its handshake or later.
pub(super) fn tls_failed(hub: &CoreHub, peer: Option<SocketAddr>, error: &TlsError, was_open: bool) {
    tracing::debug!(
        target: "ringwire::tls",
        core = hub.core(),
        peer = %PeerName(peer),
        reason = error.failure().name(),
        %error,
        handshake = !was_open,
        "TLS failed"
    );
}

/// The span that frames of this connection are told in.
#[inline]
pub(super) fn frames_of(hub: &CoreHub, slot: u32) -> tracing::Span {
    tracing::trace_span!(target: "ringwire::frames", "connection", id = %hub.id(slot))
}

// ---- limits -----------------------------------------------------------------------------------------------------------

/// The counters that are told of.
#[derive(Clone, Copy, Default)]
struct Watched {
    refused: Counts<RefusalReason>,
    timeouts: Counts<TimeoutKind>,
    shed: Counts<ShedReason>,
    drops: Counts<DropReason>,
    protocol_errors: u64,
}

impl Watched {
    fn of(counters: &Counters) -> Watched {
        Watched {
            refused: counters.refused,
            timeouts: counters.timeouts,
            shed: counters.shed,
            drops: counters.drops,
            protocol_errors: counters.protocol_errors,
        }
    }

    /// Each with its kind and its name. Answers of the app's, silence, and a newer message in the place of an older one are
    /// nobody's limit.
    fn each(&self) -> impl Iterator<Item = (&'static str, &'static str, u64)> {
        fn all<K: Kind>(
            what: &'static str,
            counts: Counts<K>,
        ) -> impl Iterator<Item = (&'static str, &'static str, u64)> {
            K::ALL.iter().map(move |kind| (what, kind.label(), counts.of(*kind)))
        }
        all("refused", self.refused)
            .filter(|(_, which, _)| *which != RefusalReason::App.label())
            .chain(all("timeout", self.timeouts).filter(|(_, which, _)| *which != TimeoutKind::Idle.label()))
            .chain(all("shed", self.shed))
            .chain(all("dropped", self.drops).filter(|(_, which, _)| *which != DropReason::Replaced.label()))
            .chain(std::iter::once(("protocol", "error", self.protocol_errors)))
    }
}

/// What was told of limits.
pub(super) struct Floods {
    is_on: bool,
    told: Watched,
    /// Connections that had come and gone at the last look: nobody reaches a limit without one or the other, but who is
    /// too slow, and that one is seen with what he does next.
    moved: u64,
    look_at_ms: u64,
    tell_at_ms: u64,
    is_untold: bool,
}

impl Floods {
    pub(super) fn new() -> Floods {
        Floods {
            is_on: tracing::enabled!(target: "ringwire::limits", Level::INFO),
            told: Watched::default(),
            moved: 0,
            look_at_ms: 0,
            tell_at_ms: 0,
            is_untold: false,
        }
    }
}

fn moved(counters: &Counters) -> u64 {
    counters.accepted + counters.released
}

impl<R: Ring, S: Service> Shard<R, S> {
    /// Tells of limits that were reached since they were told last, unless that was a moment ago.
    #[inline]
    pub(super) fn tell_of_limits(&mut self) {
        if self.floods.is_on && self.now_ms() >= self.floods.look_at_ms {
            self.look_at_limits();
        }
    }

    #[cold]
    fn look_at_limits(&mut self) {
        let now_ms = self.now_ms();
        let floods = &mut self.floods;
        floods.look_at_ms = now_ms + LOOK_AGAIN_MS;
        floods.moved = moved(&self.hub.counters);
        let watched = Watched::of(&self.hub.counters);
        floods.is_untold = watched.each().zip(floods.told.each()).any(|(now, told)| now != told);
        if floods.is_untold && now_ms >= floods.tell_at_ms {
            floods.tell_at_ms = now_ms + TELL_AGAIN_MS;
            self.tell_limits(&watched);
        }
    }

    fn tell_limits(&mut self, watched: &Watched) {
        let core = self.hub.core();
        for ((what, which, now), (.., told)) in watched.each().zip(self.floods.told.each()) {
            let count = now - told;
            if count > 0 {
                tracing::info!(target: "ringwire::limits", core, what, which, count, "limit");
            }
        }
        self.floods.told = *watched;
        self.floods.is_untold = false;
    }

    /// What was not told yet, at the end.
    pub(super) fn tell_last_limits(&mut self) {
        if self.floods.is_on {
            self.tell_limits(&Watched::of(&self.hub.counters));
        }
    }

    /// When there may be something to tell.
    #[inline]
    pub(super) fn next_told_ms(&self) -> Option<u64> {
        let floods = &self.floods;
        if !floods.is_on {
            return None;
        }
        if floods.is_untold {
            return Some(floods.tell_at_ms.max(floods.look_at_ms));
        }
        (floods.moved != moved(&self.hub.counters)).then_some(floods.look_at_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::http::{HeadLimits, parse_head};

    /// Kills: making fields for a log that nobody reads.
    #[test]
    fn nothing_is_looked_up_for_a_log_that_is_off() {
        let mut hub = CoreHub::stand_in(0);
        let head = parse_head(b"GET / HTTP/1.0\r\n\r\n", &HeadLimits::default()).unwrap();
        request(&hub, &head, || panic!("the peer was looked up"), 200, None, 0);
        // It has no connection of that number: whoever looks it up panics.
        opened(&hub, 7);
        closed(&mut hub, 7, &Ended::broken());
        assert!(frames_of(&hub, 7).is_none() && !Floods::new().is_on && !wants_connections());
        hub.traffic.open(7);
        assert_eq!(hub.traffic.of(7), None);
    }

    #[test]
    fn what_is_nobodys_limit_is_not_told() {
        let mut counters = Counters::default();
        counters.refused.add(RefusalReason::App, 1);
        counters.timeouts.add(TimeoutKind::Idle, 1);
        counters.drops.add(DropReason::Replaced, 1);
        assert!(Watched::of(&counters).each().all(|(.., count)| count == 0));
        counters.refused.add(RefusalReason::Address, 3);
        counters.shed.add(ShedReason::Memory, 2);
        let told: Vec<_> = Watched::of(&counters).each().filter(|(.., count)| *count > 0).collect();
        assert_eq!(told, [("refused", "address", 3), ("shed", "memory", 2)]);
    }
}
