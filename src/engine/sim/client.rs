//! The other end of a simulated connection.

use std::net::{Ipv4Addr, SocketAddr};

use crate::engine::Peer;

use super::faults::Fault;
use super::listeners::enqueue;
use super::options::WINDOW_BYTES;
use super::socket::Socket;
use super::world::World;

/// A client's socket, in the hands of the test. Clones are the same socket. Of a connection that the core has made it is
/// the server's socket, and what is said here of the server holds for the core.
///
/// Nothing blocks: what the socket has no room for waits in the client ([`Client::unsent`]) and follows as the server
/// reads.
#[derive(Clone)]
pub struct Client {
    pub(super) world: World,
    pub(super) socket: usize,
}

impl World {
    /// Connects to a listener of a core, from an address of its own. Where the core accepts no more, the client sees a
    /// reset.
    ///
    /// # Panics
    /// If there is no such core or listener.
    pub fn connect(&self, core: usize, listener: u32) -> Client {
        self.dial(Some(core), listener, None)
    }

    /// [`World::connect`] from a given address.
    ///
    /// # Panics
    /// If there is no such core or listener.
    pub fn connect_from(&self, core: usize, listener: u32, peer: Peer) -> Client {
        self.dial(Some(core), listener, Some(peer))
    }

    /// [`World::connect`] to a listener that cores share. Where none of them accepts any more, the client sees a reset.
    ///
    /// # Panics
    /// If there is no such listener.
    pub fn connect_shared(&self, listener: u32) -> Client {
        self.dial(None, listener, None)
    }

    fn dial(&self, core: Option<usize>, listener: u32, peer: Option<Peer>) -> Client {
        let mut inner = self.inner.borrow_mut();
        let net = &mut inner.net;
        let socket = net.sockets.len();
        let address = Ipv4Addr::new(10, (socket >> 16) as u8, (socket >> 8) as u8, socket as u8);
        let peer = peer.unwrap_or_else(|| Peer::Inet(SocketAddr::from((address, 40_000))));
        net.sockets.push(Socket::new(peer, WINDOW_BYTES));
        let at = if net.hit(Fault::Postponed) { net.later() } else { net.now };
        let number = listener as usize;
        let (is_open, pending) = match core {
            Some(core) => {
                let listener = inner.core(core).0.listeners.get_mut(number);
                let listener = listener.expect("connect to a listener that exists");
                (listener.open, &mut listener.pending)
            }
            None => {
                let shared = net.shared.get_mut(number).expect("connect to a listener that cores share");
                (shared.is_open(), &mut shared.pending)
            }
        };
        if is_open {
            enqueue(pending, socket, at);
            inner.wake_accepts();
        } else {
            let socket = &mut inner.net.sockets[socket];
            socket.break_both();
            socket.released = true;
        }
        drop(inner);
        Client { world: self.clone(), socket }
    }

    /// The next connection that a core has asked for. The core waits until it is answered.
    pub fn next_dial(&self) -> Option<Dial> {
        let (socket, address) = self.inner.borrow_mut().net.dialled.pop_front()?;
        Some(Dial { client: Client { world: self.clone(), socket }, address })
    }
}

impl Client {
    fn with<T>(&self, f: impl FnOnce(&mut Socket) -> T) -> T {
        f(&mut self.world.inner.borrow_mut().net.sockets[self.socket])
    }

    /// Writes `bytes`, all of them. Lost without a word where the connection is broken, as on a real socket.
    ///
    /// # Panics
    /// After [`Client::shutdown_write`] or [`Client::close`].
    pub fn send(&self, bytes: &[u8]) {
        self.with(|s| s.client_send(bytes));
    }

    /// How many written bytes wait for room in the socket.
    pub fn unsent(&self) -> usize {
        self.with(|s| s.unsent.len())
    }

    /// Bytes that the server sent and this client has not read.
    pub fn readable(&self) -> usize {
        self.with(|s| s.outbound.bytes.len())
    }

    /// Reads at most `n` bytes; that much room is free for the server again.
    pub fn read(&self, n: usize) -> Vec<u8> {
        self.with(|s| s.client_read(n))
    }

    /// Reads everything that is there.
    pub fn received(&self) -> Vec<u8> {
        self.read(usize::MAX)
    }

    /// Sends a FIN after what was written; reading goes on.
    pub fn shutdown_write(&self) {
        self.with(Socket::client_done);
    }

    /// Closes the socket: a FIN after what was written, or a reset if there are bytes unread.
    pub fn close(&self) {
        self.with(Socket::client_close);
    }

    /// Breaks the connection off with a reset.
    pub fn reset(&self) {
        self.with(Socket::client_reset);
    }

    /// How many bytes the socket holds of what the server sends, until this client reads them. 0: takes nothing.
    pub fn set_window(&self, bytes_max: usize) {
        self.with(|s| s.outbound.bytes_max = bytes_max);
    }

    /// How many bytes the socket holds of what this client sends, until the server reads them.
    pub fn set_send_window(&self, bytes_max: usize) {
        self.with(|s| {
            s.inbound.bytes_max = bytes_max;
            s.push_unsent();
        });
    }

    /// Whether a core accepted the connection.
    pub fn is_accepted(&self) -> bool {
        self.with(|s| s.accepted)
    }

    /// The number of the core that accepted the connection.
    pub fn accepted_by(&self) -> Option<usize> {
        self.with(|s| s.accepted_by)
    }

    /// Whether the server has let go of the connection entirely.
    pub fn is_released(&self) -> bool {
        self.with(|s| s.released)
    }

    /// Whether an injected fault broke the connection, or nobody accepted it: an end without farewell is then nobody's
    /// fault.
    pub fn was_broken(&self) -> bool {
        self.with(|s| s.was_broken)
    }

    /// Whether this client is through with the connection: it closed it, or it saw its end.
    pub fn is_closed(&self) -> bool {
        self.with(|s| s.client_closed) || self.saw_fin() || self.saw_reset()
    }

    /// Whether the server's FIN shows: everything before it was read.
    pub fn saw_fin(&self) -> bool {
        self.with(|s| s.outbound.bytes.is_empty() && s.outbound.fin && !s.client_reset && !s.client_closed)
    }

    /// Whether a reset by the server or the network shows: everything before it was read.
    pub fn saw_reset(&self) -> bool {
        self.with(|s| s.outbound.bytes.is_empty() && s.client_reset && !s.client_closed)
    }
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Client#{}", self.socket)
    }
}

/// A connection that a core wants to make. It waits until it is answered; dropped, it never is.
#[derive(Debug)]
pub struct Dial {
    pub(super) client: Client,
    pub(super) address: Option<SocketAddr>,
}

impl Dial {
    /// Where to; `None` for Unix sockets.
    pub fn address(&self) -> Option<SocketAddr> {
        self.address
    }

    /// Makes the connection, unless the core has given up meanwhile: then the other end sees its end.
    pub fn accept(self) -> Client {
        self.client.with(|s| s.answer = Some(Ok(())));
        self.client
    }

    /// Refuses it with an error such as `ECONNREFUSED`.
    pub fn refuse(self, errno: i32) {
        self.client.with(|s| s.answer = Some(Err(errno)));
    }
}
