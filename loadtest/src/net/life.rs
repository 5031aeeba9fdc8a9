//! The life of a connection: opening it, leaving it in order, and its end, whoever wanted it.

use std::io;

use ringwire::{
    engine::{Op, Ring, Token},
    proto::frame::put_masked_frame,
};

use crate::{
    net::{
        App, Gone, Nanos, Net, Open, Speaks,
        handshake::handshake_key,
        line::{Line, State},
    },
    tally::Timed,
};

/// A handshake takes no longer on a server that works.
const HANDSHAKE_PATIENCE: Nanos = 20_000_000_000;
/// How long a closing handshake may take, and then the server's end of the connection.
pub(super) const CLOSE_PATIENCE: Nanos = 2_000_000_000;

impl Net {
    pub(super) fn open<A: App>(&mut self, app: &mut A, open: Open) {
        let conn = self.free.pop().unwrap_or_else(|| {
            self.lines.push(Line::vacant());
            (self.lines.len() - 1) as u32
        });
        let key = self.io.keys.bits();
        let line = &mut self.lines[conn as usize];
        line.begin(&open, self.io.now, key);
        let token = Token::new(Op::Connect, line.generation, conn);
        self.live += 1;
        self.io.outbox.0.open(conn, line.generation);
        let connecting = self
            .target
            .socket(open.number, open.receive_buffer)
            .and_then(|(socket, address)| self.ring.connect(token, socket, address));
        match connecting {
            Ok(()) => self.lines[conn as usize].in_flight += 1,
            Err(error) => {
                self.errno(conn, error.raw_os_error().unwrap_or_default());
                self.io.outbox.0.close(conn);
                self.vacate(conn);
                self.io.opening -= 1;
                app.closed(&mut self.io, conn, open.tag, Gone::Failed);
            }
        }
    }

    pub(super) fn connected<A: App>(&mut self, app: &mut A, conn: u32) {
        self.receive(conn);
        let line = &mut self.lines[conn as usize];
        if line.speaks == Speaks::WebSocket {
            line.state = State::Handshake;
            let key = handshake_key(line.key);
            let (target, room) = (&self.target, line.room);
            self.io.outbox.put_raw(conn, |out| target.put_request(out, room, &key));
        } else {
            self.opened(app, conn);
        }
    }

    pub(super) fn opened<A: App>(&mut self, app: &mut A, conn: u32) {
        let line = &mut self.lines[conn as usize];
        line.state = State::Open;
        line.head = Vec::new();
        self.io.opening -= 1;
        self.io.tally.open += 1;
        self.io.tally.opened += 1;
        if line.speaks != Speaks::Http {
            self.io.tally.time(Timed::Handshake, self.io.now - line.since);
        }
        app.opened(&mut self.io, conn, line.tag);
    }

    /// Begins the closing handshake where there is one to be had, else ends the connection.
    pub(super) fn leave<A: App>(&mut self, app: &mut A, conn: u32) {
        let line = &mut self.lines[conn as usize];
        match line.state {
            State::Open if line.speaks == Speaks::WebSocket && !line.paused => {
                line.state = State::Leaving(self.io.now);
                let (outbox, keys) = (&mut self.io.outbox, &mut self.io.keys);
                let mut reply = |opcode, payload: &[u8]| {
                    let key = keys.key();
                    outbox.put(conn, |out| put_masked_frame(out, opcode, payload, key));
                };
                line.machine.close(Some(1000), "", &mut reply);
                self.io.tally.open -= 1;
            }
            State::Vacant | State::Dead | State::Leaving(_) => {}
            State::Connecting | State::Handshake | State::Open => self.end(app, conn, Gone::Left),
        }
    }

    /// Tells the app and closes the descriptor.
    pub(super) fn end<A: App>(&mut self, app: &mut A, conn: u32, gone: Gone) {
        let line = &self.lines[conn as usize];
        let tag = line.tag;
        match line.state {
            State::Connecting | State::Handshake => self.io.opening -= 1,
            State::Open => self.io.tally.open -= 1,
            State::Vacant | State::Dead => return,
            State::Leaving(_) => {}
        }
        let told = line.told;
        self.drop_line(conn);
        if told {
            return;
        }
        if gone == Gone::Failed && !app.is_expendable(tag) {
            self.io.tally.failed += 1;
        }
        app.closed(&mut self.io, conn, tag, gone);
    }

    fn drop_line(&mut self, conn: u32) {
        let line = &mut self.lines[conn as usize];
        if !line.is_live() {
            return;
        }
        line.state = State::Dead;
        line.machine.take_buffers(&mut self.spares);
        self.io.outbox.0.close(conn);
        let token = Token::new(Op::Close, line.generation, conn);
        // The kernel looks through all operations of the ring for those of a descriptor: only where there is one to find.
        if line.in_flight > 0 {
            self.ring.cancel(token);
        }
        self.ring.close(token);
        line.in_flight += 1;
    }

    pub(super) fn vacate(&mut self, conn: u32) {
        let line = &mut self.lines[conn as usize];
        line.state = State::Vacant;
        line.generation = line.generation.wrapping_add(1);
        line.head = Vec::new();
        self.free.push(conn);
        self.live -= 1;
    }

    fn errno(&mut self, conn: u32, errno: i32) {
        *self.io.tally.errnos.entry(errno).or_default() += 1;
        let tag = self.lines[conn as usize].tag;
        self.io.tally.say(|| format!("connection {tag}: {}", io::Error::from_raw_os_error(errno)));
    }

    pub(super) fn broken<A: App>(&mut self, app: &mut A, conn: u32, errno: i32) {
        // Once we are leaving the server may end the connection in any way.
        if matches!(self.lines[conn as usize].state, State::Leaving(_)) {
            return self.end(app, conn, Gone::Left);
        }
        self.errno(conn, errno);
        self.end(app, conn, Gone::Failed);
    }

    pub(super) fn end_of_file<A: App>(&mut self, app: &mut A, conn: u32) {
        let line = &self.lines[conn as usize];
        if matches!(line.state, State::Leaving(_)) {
            return self.end(app, conn, Gone::Left);
        }
        if !line.machine.close_received() {
            let (tag, what) = (line.tag, if line.state == State::Open { "" } else { " during the handshake" });
            *self.io.tally.closes.entry(1006).or_default() += 1;
            self.io.tally.say(|| format!("connection {tag}: closed by the server without a Close frame{what}"));
        }
        self.end(app, conn, Gone::Failed);
    }

    /// Ends what takes too long.
    pub(super) fn sweep<A: App>(&mut self, app: &mut A) {
        for conn in 0..self.lines.len() as u32 {
            let line = &self.lines[conn as usize];
            match line.state {
                State::Connecting | State::Handshake if self.io.now > line.since + HANDSHAKE_PATIENCE => {
                    self.errno(conn, nix::libc::ETIMEDOUT);
                    self.end(app, conn, Gone::Failed);
                }
                State::Leaving(since) if self.io.now > since + CLOSE_PATIENCE => {
                    self.end(app, conn, Gone::Left);
                }
                _ => {}
            }
        }
    }
}
