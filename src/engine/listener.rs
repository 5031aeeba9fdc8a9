//! What a listener is told that no package says.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Has a TCP listener hand out a connection when its first bytes are there, or a second after its handshake. A client of
/// HTTP speaks first, so what is accepted can be read at once, without another sleep; and who says nothing takes a slot
/// only late. (Apache does likewise.)
///
/// # Errors
/// The kernel's, where the descriptor is no TCP socket.
pub fn defer_accept(listener: BorrowedFd<'_>) -> io::Result<()> {
    // One retransmission of the SYN-ACK later the connection is handed out all the same.
    let seconds: libc::c_int = 1;
    // SAFETY: the option's value is an int that lives until the call returns, and its size is given; the descriptor is open
    // for as long as it is borrowed.
    let outcome = unsafe {
        libc::setsockopt(
            listener.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_DEFER_ACCEPT,
            (&raw const seconds).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    if outcome == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::net::{TcpListener, TcpStream, UdpSocket};
    use std::os::fd::AsFd;
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn who_speaks_is_accepted_before_who_does_not() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        defer_accept(listener.as_fd()).unwrap();
        let silent = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let mut talker = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        talker.write_all(b"GET").unwrap();
        assert_eq!(listener.accept().unwrap().1, talker.local_addr().unwrap());
        let began = Instant::now();
        assert_eq!(listener.accept().unwrap().1, silent.local_addr().unwrap());
        assert!(began.elapsed() < Duration::from_secs(8), "in the end it is accepted all the same");
    }

    #[test]
    fn other_sockets_are_refused() {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        assert!(defer_accept(socket.as_fd()).is_err());
    }
}
