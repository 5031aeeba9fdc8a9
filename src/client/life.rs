//! How connections begin, what their users ask of them, and what happens when their time is up.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use super::conn::{Conn, Phase, after};
use super::driver::{Driver, LINGER_NS};
use super::error::Answer;
use super::error::{ClientError, Waiting, read_answer};
use super::letter::Letter;
use super::line::{Ended, Line, LineEnd};
use super::order::{Destination, Order};
use crate::engine::{Completion, Key, Op, Ring};
use crate::proto::frame::Opcode;

/// The shortest time that one of several addresses gets.
const ATTEMPT_NS_MIN: u64 = 250_000_000;

impl<R: Ring> Driver<R> {
    /// A connection is asked for.
    pub(super) fn start(&mut self, line: LineEnd, order: Box<Order>) {
        let slot = self.conns.next_vacant();
        if slot >= self.ring.slots() {
            let source = io::Error::from_raw_os_error(libc::EMFILE);
            let error = ClientError::Connect { address: "any server".into(), source };
            return line.end(Ended::abnormal(error), None, &mut self.wakers);
        }
        let deadline_ns = after(self.now_ns, order.settings.handshake_timeout);
        let destination = order.destination.clone();
        let key = self.conns.insert(Conn::new(line, order, deadline_ns));
        self.conns[slot].line.set_key(key);
        self.watch_over(slot);
        match destination {
            Destination::Address(address) => {
                self.conns[slot].addresses.push(address);
                self.try_next_address(slot);
            }
            Destination::Unix(path) => match SockAddr::unix(&path) {
                Ok(address) => self.try_address(slot, address, path.display().to_string()),
                Err(source) => {
                    self.finish(slot, ClientError::Connect { address: path.display().to_string(), source });
                }
            },
            Destination::Name(host, port) => {
                let courier = self.letters.courier();
                let then = move |found| courier.post(Letter::Resolved(key, found));
                (self.resolve)(host, port, Box::new(then));
            }
        }
    }

    pub(super) fn resolved(&mut self, key: Key, found: io::Result<Vec<SocketAddr>>) {
        let Some(conn) = self.conns.get_mut(key).filter(|conn| conn.phase == Phase::Resolving) else { return };
        match found {
            Ok(addresses) => {
                let bind = conn.order.settings.bind;
                let fits = |address: &SocketAddr| bind.is_none_or(|bind| bind.is_ipv4() == address.is_ipv4());
                conn.addresses = addresses.into_iter().filter(fits).collect();
                conn.addresses.reverse();
                self.try_next_address(key.slot());
            }
            Err(source) => {
                let host = match &conn.order.destination {
                    Destination::Name(host, _) => host.clone(),
                    _ => String::new(),
                };
                self.finish(key.slot(), ClientError::Resolve { host, source });
            }
        }
    }

    /// Connects to the next address, or fails if there is none.
    pub(super) fn try_next_address(&mut self, slot: u32) {
        let conn = &mut self.conns[slot];
        match conn.addresses.pop() {
            Some(address) => self.try_address(slot, SockAddr::from(address), address.to_string()),
            None => {
                let failure = conn.failure.take();
                let none = || ClientError::Connect {
                    address: "any address of its kind".into(),
                    source: io::Error::from(io::ErrorKind::AddrNotAvailable),
                };
                self.finish(slot, failure.unwrap_or_else(none));
            }
        }
    }

    fn try_address(&mut self, slot: u32, address: SockAddr, text: String) {
        let now_ns = self.now_ns;
        let conn = &mut self.conns[slot];
        conn.phase = Phase::Connecting;
        // An address that does not answer leaves time for the others.
        conn.attempt_ns = match conn.addresses.len() as u64 {
            0 => u64::MAX,
            more => now_ns + (conn.deadline_ns.saturating_sub(now_ns) / (more + 1)).max(ATTEMPT_NS_MIN),
        };
        let bind = conn.order.settings.bind.filter(|_| !address.is_unix());
        let token = self.conns.launch(Op::Connect, slot);
        let connecting = socket(&address, bind).and_then(|socket| self.ring.connect(token, socket, address));
        let conn = &mut self.conns[slot];
        match connecting {
            Ok(()) => {
                conn.failure = Some(ClientError::Connect { address: text, source: io::ErrorKind::TimedOut.into() });
                conn.has_descriptor = true;
                self.watch_over(slot);
            }
            Err(source) => {
                conn.failure = Some(ClientError::Connect { address: text, source });
                self.conns.land(slot);
                self.try_next_address(slot);
            }
        }
    }

    pub(super) fn connected(&mut self, completion: &Completion) {
        let Some(slot) = self.landed(completion.token) else { return };
        let conn = &mut self.conns[slot];
        match completion.result {
            Ok(_) => {
                conn.phase = Phase::Handshaking;
                conn.failure = None;
                conn.line.push_request(std::mem::take(&mut conn.order.request));
                self.mark_dirty(slot);
                self.start_receiving(slot);
            }
            Err(errno) => {
                // Cancelled means that its time was up, as the error says already.
                if let Some(ClientError::Connect { source, .. }) = &mut conn.failure
                    && errno != libc::ECANCELED
                {
                    *source = io::Error::from_raw_os_error(errno);
                }
                if conn.addresses.is_empty() {
                    return self.try_next_address(slot);
                }
                conn.phase = Phase::Retrying;
                self.ring.close(self.conns.launch(Op::Close, slot));
            }
        }
    }

    /// Does what the user of a connection wants.
    pub(super) fn look(&mut self, line: &Arc<Line>) {
        let Some(key) = line.key() else { return };
        let Some(phase) = self.conns.get(key).map(|conn| conn.phase) else { return };
        let slot = key.slot();
        let wants = line.take_wants();
        match phase {
            Phase::Dead => return,
            Phase::Resolving | Phase::Retrying | Phase::Connecting | Phase::Handshaking | Phase::Refused => {
                match phase {
                    _ if !wants.gone => {}
                    Phase::Handshaking | Phase::Refused => self.say_last(slot, ClientError::Closing),
                    _ => self.finish(slot, ClientError::Closing),
                }
                return;
            }
            Phase::Open | Phase::Closing | Phase::Flushing => {}
        }
        self.mark_dirty(slot);
        if phase == Phase::Open {
            if let Some((code, reason)) = wants.close {
                self.begin_close(slot, code, &reason);
            } else if wants.gone {
                // RFC 6455 7.4.1: 1001 is for an endpoint that goes away.
                self.begin_close(slot, 1001, "");
            }
        }
        if wants.resume || wants.gone {
            self.resumable.push(key);
        }
    }

    /// Begins the closing handshake.
    fn begin_close(&mut self, slot: u32, code: u16, reason: &str) {
        let now_ns = self.now_ns;
        let conn = &mut self.conns[slot];
        let line = &conn.line;
        let mut replies = |opcode: Opcode, payload: &[u8]| line.control(opcode, payload);
        conn.machine.close(Some(code), reason, &mut replies);
        conn.phase = Phase::Closing;
        conn.deadline_ns = after(now_ns, conn.order.settings.close_timeout);
        // What it holds back is not wanted any more, but the server's Close may be behind it.
        if conn.paused {
            self.resumable.push(self.conns.key(slot));
        }
        self.mark_dirty(slot);
        self.watch_over(slot);
    }

    /// Everything is said: the connection ends when it is sent.
    pub(super) fn start_flushing(&mut self, slot: u32) {
        let conn = &mut self.conns[slot];
        if matches!(conn.phase, Phase::Flushing | Phase::Dead) {
            return;
        }
        conn.phase = Phase::Flushing;
        conn.deadline_ns = after(self.now_ns, conn.order.settings.close_timeout);
        self.mark_dirty(slot);
        self.watch_over(slot);
        self.end_if_flushed(slot);
    }

    /// Tells the user of the end once our Close is on its way, and then gives the server a moment to close first: RFC 6455
    /// 7.1.1 wants the TIME_WAIT to be the server's.
    pub(super) fn end_if_flushed(&mut self, slot: u32) {
        let conn = &mut self.conns[slot];
        debug_assert_eq!(conn.phase, Phase::Flushing);
        if !conn.told && !conn.is_flushed() {
            return;
        }
        if conn.finished.is_some() {
            return self.finish(slot, ClientError::Closing);
        }
        if !conn.told {
            conn.deadline_ns = self.now_ns + LINGER_NS;
            self.tell(slot);
            self.watch_over(slot);
        }
    }

    /// A connection's time is up.
    pub(super) fn overdue(&mut self, slot: u32) {
        let now_ns = self.now_ns;
        let conn = &mut self.conns[slot];
        let waiting = match conn.phase {
            Phase::Connecting if now_ns < conn.deadline_ns => {
                // The connect completes as cancelled, and the next address has its turn.
                conn.attempt_ns = u64::MAX;
                return self.ring.cancel(self.conns.token(Op::Cancel, slot));
            }
            Phase::Resolving => Waiting::Resolve,
            Phase::Connecting | Phase::Retrying => Waiting::Connect,
            Phase::Handshaking if conn.is_tls_handshaking() => Waiting::Tls,
            Phase::Handshaking => Waiting::Handshake,
            Phase::Refused => return self.refused(slot, true),
            Phase::Open if conn.pinged_ns.is_none() => {
                conn.pinged_ns = Some(now_ns);
                conn.line.probe();
                return self.mark_dirty(slot);
            }
            Phase::Open => Waiting::Pong,
            // The server has not answered our Close.
            Phase::Closing | Phase::Flushing | Phase::Dead => {
                conn.ended.get_or_insert_with(|| Ended {
                    code: 1006,
                    reason: "the server did not answer the Close frame".into(),
                    clean: false,
                    error: None,
                });
                return self.finish(slot, ClientError::Closing);
            }
        };
        self.finish(slot, ClientError::Timeout(waiting));
    }

    /// Ends a connection whose handshake was refused, if the answer is complete or nothing more will come of it.
    pub(super) fn refused(&mut self, slot: u32, finished: bool) {
        let conn = &mut self.conns[slot];
        let error = match read_answer(&conn.stash) {
            Ok(Answer::Partial(_)) if !finished => return,
            Ok(Answer::Partial(refused) | Answer::Whole(refused)) => ClientError::Refused(Box::new(refused)),
            Ok(Answer::Interim) => ClientError::Closing,
            Err(error) => ClientError::Handshake(error),
        };
        self.say_last(slot, error);
    }
}

fn socket(address: &SockAddr, bind: Option<std::net::IpAddr>) -> io::Result<OwnedFd> {
    let domain = address.domain();
    let protocol = if domain == Domain::UNIX { None } else { Some(Protocol::TCP) };
    let socket = Socket::new(domain, Type::STREAM, protocol)?;
    if domain != Domain::UNIX {
        socket.set_tcp_nodelay(true)?;
    }
    if let Some(ip) = bind {
        socket.bind(&SocketAddr::new(ip, 0).into())?;
    }
    Ok(OwnedFd::from(socket))
}
