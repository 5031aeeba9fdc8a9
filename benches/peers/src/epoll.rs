//! The same moving of bytes with epoll, recv(2) and send(2): what a good program without io_uring costs.
//!
//! Level-triggered: one receive into a shared buffer and one send per ready connection and wake-up, so a connection
//! that is never slow costs two system calls a message.

use std::{
    io,
    net::TcpListener,
    os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd},
    ptr,
};

const EVENTS_MAX: usize = 1024;

/// What a program does with the bytes.
pub trait App {
    /// Bytes arrived; they are valid only during the call.
    fn received(&mut self, io: &mut Io, conn: u32, bytes: &[u8]);
    /// Every ready connection was read once.
    fn tick(&mut self, _io: &mut Io) {}
    /// The connection is gone.
    fn closed(&mut self, _conn: u32) {}
}

struct Conn {
    socket: OwnedFd,
    unsent: Vec<u8>,
    /// Bytes of `unsent` that have left.
    unsent_start: usize,
    failed: bool,
}

/// The connections of a loop.
pub struct Io {
    epoll: OwnedFd,
    conns: Vec<Option<Conn>>,
}

fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

impl Io {
    /// The numbers of all open connections.
    pub fn open(&self) -> impl Iterator<Item = u32> + use<> {
        let open: Vec<u32> =
            (0..).zip(&self.conns).filter(|(_, conn)| conn.is_some()).map(|(index, _)| index).collect();
        open.into_iter()
    }

    /// Sends at once what the socket takes and keeps the rest until it takes more.
    pub fn send(&mut self, conn: u32, bytes: &[u8]) {
        let epoll = self.epoll.as_raw_fd();
        let Some(state) = self.conns[conn as usize].as_mut() else {
            return;
        };
        if !state.unsent.is_empty() {
            return state.unsent.extend_from_slice(bytes);
        }
        match send(state.socket.as_raw_fd(), bytes) {
            Ok(sent) if sent == bytes.len() => {}
            Ok(sent) => {
                state.unsent.extend_from_slice(&bytes[sent..]);
                let interest = libc::EPOLLIN | libc::EPOLLOUT;
                state.failed |= watch(epoll, libc::EPOLL_CTL_MOD, state.socket.as_raw_fd(), interest, conn).is_err();
            }
            Err(_) => state.failed = true,
        }
    }

    /// Closes a connection of which something has been received, with what it has not taken yet.
    pub fn close(&mut self, conn: u32) {
        if let Some(state) = &mut self.conns[conn as usize] {
            state.failed = true;
        }
    }

    fn send_unsent(&mut self, conn: u32) {
        let epoll = self.epoll.as_raw_fd();
        let Some(state) = self.conns[conn as usize].as_mut() else {
            return;
        };
        match send(state.socket.as_raw_fd(), &state.unsent[state.unsent_start..]) {
            Ok(sent) => {
                state.unsent_start += sent;
                if state.unsent_start == state.unsent.len() {
                    state.unsent.clear();
                    state.unsent_start = 0;
                    let socket = state.socket.as_raw_fd();
                    state.failed |= watch(epoll, libc::EPOLL_CTL_MOD, socket, libc::EPOLLIN, conn).is_err();
                }
            }
            Err(_) => state.failed = true,
        }
    }

    fn accept(&mut self, listener: RawFd) {
        loop {
            // SAFETY: null address and length ask for no peer address.
            let fd = unsafe { libc::accept4(listener, ptr::null_mut(), ptr::null_mut(), libc::SOCK_NONBLOCK) };
            if fd < 0 {
                return;
            }
            // SAFETY: accept4 just returned this descriptor and nothing else owns it.
            let socket = unsafe { OwnedFd::from_raw_fd(fd) };
            let conn = fd as usize;
            if self.conns.len() <= conn {
                self.conns.resize_with(conn + 1, || None);
            }
            if watch(self.epoll.as_raw_fd(), libc::EPOLL_CTL_ADD, fd, libc::EPOLLIN, conn as u32).is_ok() {
                self.conns[conn] = Some(Conn { socket, unsent: Vec::new(), unsent_start: 0, failed: false });
            }
        }
    }
}

fn send(socket: RawFd, bytes: &[u8]) -> io::Result<usize> {
    let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    // SAFETY: pointer and length come from one slice that outlives the call.
    let sent = unsafe { libc::send(socket, bytes.as_ptr().cast(), bytes.len(), flags) };
    match usize::try_from(sent) {
        Ok(sent) => Ok(sent),
        Err(_) => match io::Error::last_os_error() {
            error if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
            error => Err(error),
        },
    }
}

fn watch(epoll: RawFd, operation: libc::c_int, socket: RawFd, interest: libc::c_int, token: u32) -> io::Result<()> {
    let mut event = libc::epoll_event { events: interest as u32, u64: token.into() };
    // SAFETY: `event` is valid for the call, which copies it.
    check(unsafe { libc::epoll_ctl(epoll, operation, socket, &mut event) }).map(drop)
}

/// Serves until the process is told to stop. `buffer_size` is the most one receive takes.
pub fn run(listener: &TcpListener, buffer_size: usize, app: &mut impl App) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    // SAFETY: takes a flag and returns a new descriptor.
    let epoll = check(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) })?;
    // SAFETY: epoll_create1 just returned this descriptor and nothing else owns it.
    let mut io = Io { epoll: unsafe { OwnedFd::from_raw_fd(epoll) }, conns: Vec::new() };
    let listener = listener.as_raw_fd();
    watch(epoll, libc::EPOLL_CTL_ADD, listener, libc::EPOLLIN, listener as u32)?;
    let mut buffer = vec![0u8; buffer_size];
    let mut events = vec![libc::epoll_event { events: 0, u64: 0 }; EVENTS_MAX];
    loop {
        // SAFETY: `events` has room for EVENTS_MAX entries.
        let ready = unsafe { libc::epoll_wait(epoll, events.as_mut_ptr(), EVENTS_MAX as libc::c_int, -1) };
        for event in &events[..usize::try_from(ready).unwrap_or(0)] {
            let (token, ready) = (event.u64 as u32, event.events as libc::c_int);
            if token == listener as u32 {
                io.accept(listener);
                continue;
            }
            if ready & libc::EPOLLOUT != 0 {
                io.send_unsent(token);
            }
            let Some(state) = io.conns[token as usize].as_mut() else {
                continue;
            };
            let (socket, start, room) = (state.socket.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len());
            let mut received = 0;
            if ready & !libc::EPOLLOUT != 0 {
                // SAFETY: `buffer` has `room` writable bytes.
                received = unsafe { libc::recv(socket, start, room, libc::MSG_DONTWAIT) };
                let again = received < 0 && io::Error::last_os_error().kind() == io::ErrorKind::WouldBlock;
                state.failed |= received <= 0 && !again;
            }
            if received > 0 {
                app.received(&mut io, token, &buffer[..received as usize]);
            }
            if io.conns[token as usize].as_ref().is_some_and(|conn| conn.failed) {
                io.conns[token as usize] = None;
                app.closed(token);
            }
        }
        app.tick(&mut io);
    }
}
