//! Who may become a WebSocket, by the limits that hold for the whole process.
//!
//! Knows of this crate: nothing.

mod balance;
mod memory;

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

pub use balance::{Balance, most_beside};
pub use memory::Memory;

/// Limits and gauges that hold for the whole process; touched when connections come and go, never per message.
#[derive(Debug)]
pub struct Admission {
    connections_max: u32,
    connections: AtomicU32,
    per_ip_max: u32,
    per_ip: Mutex<HashMap<IpAddr, OfAddress>>,
    accept_interval_ns: u64,
    accept_due_ns: AtomicU64,
    /// The server is about to drain, or does.
    noticed: AtomicBool,
    draining: AtomicBool,
    memory: Memory,
    balance: Balance,
    tls_handshakes_max: u32,
    tls_handshakes: AtomicU32,
}

/// What one address has open.
#[derive(Debug, Default)]
struct OfAddress {
    websockets: u32,
    /// Connections that have not become WebSockets.
    others: u32,
}

/// Connections of one address that are no WebSockets yet, beyond as many as it may have of those: a browser opens six
/// for a page.
const OTHERS_PER_IP_SPARE: u32 = 16;
/// How long a connection waits for its turn by the accept rate; who would have to wait longer is refused. Otherwise a flood
/// would keep everybody waiting long after it is over.
const ACCEPT_WAIT_MAX_NS: u64 = 1_000_000_000;

/// Why a connection may not become a WebSocket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// The process has as many as it may.
    Full,
    /// This address has as many as it may.
    TooManyFromAddress,
    /// The server is shutting down.
    Draining,
    /// The memory budget is spent.
    OutOfMemory,
}

impl Admission {
    /// Limits as configured; 0 = none for the last two.
    pub fn new(connections_max: u32, per_ip_max: u32, accept_rate_per_second: u32) -> Admission {
        Admission {
            connections_max,
            connections: AtomicU32::new(0),
            per_ip_max,
            per_ip: Mutex::default(),
            accept_interval_ns: 1_000_000_000u64.checked_div(u64::from(accept_rate_per_second)).unwrap_or(0),
            accept_due_ns: AtomicU64::new(0),
            noticed: AtomicBool::new(false),
            draining: AtomicBool::new(false),
            memory: Memory::default(),
            balance: Balance::default(),
            tls_handshakes_max: 256,
            tls_handshakes: AtomicU32::new(0),
        }
    }

    /// With a budget of memory.
    #[must_use]
    pub fn with_memory(self, memory: Memory) -> Admission {
        Admission { memory, ..self }
    }

    /// With cores that accept from the same sockets.
    #[must_use]
    pub fn with_balance(self, balance: Balance) -> Admission {
        Admission { balance, ..self }
    }

    /// With a limit of TLS handshakes under way at once; at least one may always be.
    #[must_use]
    pub fn with_tls_handshakes(self, tls_handshakes_max: u32) -> Admission {
        Admission { tls_handshakes_max: tls_handshakes_max.max(1), ..self }
    }

    /// Counts a TLS handshake in, if there is a place for it.
    #[must_use]
    pub fn begin_handshake(&self) -> bool {
        let begun = self.tls_handshakes.fetch_add(1, Ordering::Relaxed) < self.tls_handshakes_max;
        if !begun {
            self.end_handshake();
        }
        begun
    }

    /// Counts one out that has begun.
    pub fn end_handshake(&self) {
        self.tls_handshakes.fetch_sub(1, Ordering::Relaxed);
    }

    /// TLS handshakes under way.
    pub fn tls_handshakes(&self) -> u32 {
        self.tls_handshakes.load(Ordering::Relaxed)
    }

    /// How connections are spread over the cores.
    #[inline]
    pub fn balance(&self) -> &Balance {
        &self.balance
    }

    /// The budget of memory.
    #[inline]
    pub fn memory(&self) -> &Memory {
        &self.memory
    }

    /// Counts a WebSocket in.
    ///
    /// # Errors
    /// If a limit is reached; it is not counted then.
    pub fn enter(&self, ip: Option<IpAddr>) -> Result<(), Refused> {
        if self.is_draining() {
            return Err(Refused::Draining);
        }
        if self.memory.is_spent() {
            return Err(Refused::OutOfMemory);
        }
        if self.connections.fetch_add(1, Ordering::Relaxed) >= self.connections_max {
            self.connections.fetch_sub(1, Ordering::Relaxed);
            return Err(Refused::Full);
        }
        if let (Some(ip), 1..) = (ip, self.per_ip_max) {
            let mut per_ip = self.per_ip.lock().unwrap_or_else(PoisonError::into_inner);
            let count = &mut per_ip.entry(counted(ip)).or_default().websockets;
            if *count >= self.per_ip_max {
                self.connections.fetch_sub(1, Ordering::Relaxed);
                return Err(Refused::TooManyFromAddress);
            }
            *count += 1;
        }
        Ok(())
    }

    /// Counts one out that [`Admission::enter`] let in.
    pub fn leave(&self, ip: Option<IpAddr>) {
        self.connections.fetch_sub(1, Ordering::Relaxed);
        self.less(ip, |of_address| &mut of_address.websockets);
    }

    /// Counts in a connection that is no WebSocket yet. `false` if its address has too many of them; it is counted all the
    /// same.
    #[must_use]
    pub fn arrive(&self, ip: Option<IpAddr>) -> bool {
        let (Some(ip), 1..) = (ip, self.per_ip_max) else { return true };
        let mut per_ip = self.per_ip.lock().unwrap_or_else(PoisonError::into_inner);
        let count = &mut per_ip.entry(counted(ip)).or_default().others;
        *count += 1;
        *count <= self.per_ip_max.saturating_add(OTHERS_PER_IP_SPARE)
    }

    /// Counts one out that has arrived: it has become a WebSocket, or has ended.
    pub fn depart(&self, ip: Option<IpAddr>) {
        self.less(ip, |of_address| &mut of_address.others);
    }

    fn less(&self, ip: Option<IpAddr>, which: impl FnOnce(&mut OfAddress) -> &mut u32) {
        let (Some(ip), 1..) = (ip, self.per_ip_max) else { return };
        let mut per_ip = self.per_ip.lock().unwrap_or_else(PoisonError::into_inner);
        if let Entry::Occupied(mut entry) = per_ip.entry(counted(ip)) {
            let count = which(entry.get_mut());
            *count = count.saturating_sub(1);
            if entry.get().websockets == 0 && entry.get().others == 0 {
                entry.remove();
            }
        }
    }

    /// When a connection accepted at `now_ns` may start: at once, or as late as the accept rate wants it. `None` if so many
    /// are waiting that it may not.
    pub fn accept_due_ns(&self, now_ns: u64) -> Option<u64> {
        if self.accept_interval_ns == 0 {
            return Some(now_ns);
        }
        let mut due = None;
        let _ = self.accept_due_ns.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |next| {
            let at = next.max(now_ns);
            due = (at <= now_ns + ACCEPT_WAIT_MAX_NS).then_some(at);
            due.map(|at| at + self.accept_interval_ns)
        });
        due
    }

    /// WebSockets now, in the whole process.
    pub fn connections(&self) -> u32 {
        self.connections.load(Ordering::Relaxed)
    }

    /// Whether the server is shutting down, or about to: whoever can choose should go elsewhere.
    pub fn is_leaving(&self) -> bool {
        self.noticed.load(Ordering::Relaxed)
    }

    /// From now on it is told that the server is about to shut down.
    pub fn give_notice(&self) {
        self.noticed.store(true, Ordering::Relaxed);
    }

    /// Whether the server is shutting down, and lets in no WebSocket.
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    /// From now on no WebSocket is let in.
    pub fn drain(&self) {
        self.give_notice();
        self.draining.store(true, Ordering::Relaxed);
    }
}

/// What is counted for an address: of IPv6 its first 64 bits, for whoever has one address has all that begin so (RFC 6177).
fn counted(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX))),
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Kills: counting each address of IPv6 by itself, of which everybody has more than can be counted.
    #[test]
    fn what_is_one_address() {
        for (first, second, are_one) in [
            ("192.0.2.1", "192.0.2.1", true),
            ("192.0.2.1", "192.0.2.2", false),
            ("192.0.2.1", "::ffff:192.0.2.1", true),
            ("::ffff:192.0.2.1", "::ffff:192.0.2.2", false),
            ("2001:db8:0:1::1", "2001:db8:0:1:ffff:ffff:ffff:ffff", true),
            ("2001:db8:0:1::1", "2001:db8:0:2::1", false),
            ("::1", "2001:db8::1", false),
        ] {
            let admission = Admission::new(10, 1, 0);
            let [first, second] = [first, second].map(|text| Some(text.parse::<IpAddr>().unwrap()));
            admission.enter(first).unwrap();
            assert_eq!(admission.enter(second).is_err(), are_one, "{first:?} {second:?}");
            if are_one {
                admission.leave(second);
                assert_eq!(admission.enter(first), Ok(()), "{first:?} {second:?}");
            }
        }
    }
}
