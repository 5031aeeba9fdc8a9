//! A listener that takes no new connections and keeps those that it has.
//!
//! Nothing in the kernel's interface does that: a listener that is closed, or shut down, resets whoever is in its queue
//! and whoever is about to be. So it gets a filter that drops the first segment of each handshake and nothing else. Whoever
//! sends one hears nothing, and by TCP's rules sends it again after a second.

use std::os::fd::OwnedFd;

use socket2::{SockFilter, SockRef};

/// A classic BPF program that drops every segment that would begin a connection: byte 13 of a TCP header has the flags, of
/// which SYN is the second (RFC 9293 3.1). The kernel shows it segments from the TCP header on.
const NO_SYN: [SockFilter; 4] = [
    // ldb [13]; jset #2, drop, keep; drop: ret #0; keep: ret #-1
    SockFilter::new(0x30, 0, 0, 13),
    SockFilter::new(0x45, 0, 1, 0x02),
    SockFilter::new(0x06, 0, 0, 0),
    SockFilter::new(0x06, 0, 0, u32::MAX),
];

/// Has a TCP listener take no new connection. Other listeners are left alone.
pub(super) fn turn_away(listener: &OwnedFd) {
    let listener = SockRef::from(listener);
    let is_tcp = listener.local_addr().is_ok_and(|address| address.as_socket().is_some());
    if is_tcp && let Err(error) = listener.attach_filter(&NO_SYN) {
        tracing::warn!(%error, "new connections cannot be turned away: those that come last may be reset");
    }
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;
    use std::net::{TcpListener, TcpStream};
    use std::time::Duration;

    use super::*;

    #[test]
    fn who_has_come_stays_and_nobody_else_comes() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let early = TcpStream::connect(address).unwrap();
        let filtered = OwnedFd::from(listener.try_clone().unwrap());
        turn_away(&filtered);
        let late = TcpStream::connect_timeout(&address, Duration::from_millis(100));
        assert_eq!(late.unwrap_err().kind(), ErrorKind::TimedOut, "not refused");
        let (accepted, peer) = listener.accept().unwrap();
        assert_eq!(peer, early.local_addr().unwrap());
        drop(accepted);
    }
}
