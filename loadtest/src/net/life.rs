//! The life of a connection: opening it, leaving it in order, and its end, whoever wanted it.

use std::io;

use ringwire::{
    engine::{Op, Ring},
    proto::frame::put_masked_frame,
};

use crate::{
    net::{
        App, CLOSE_PATIENCE, Gone, Nanos, Net, Open, Speaks,
        handshake::handshake_key,
        line::{Line, State},
    },
    tally::Timed,
};

/// A handshake takes no longer on a server that works.
const HANDSHAKE_PATIENCE: Nanos = 20_000_000_000;

impl Net {
    pub(super) fn open<A: App>(&mut self, app: &mut A, open: Open) {
        let key = self.lines.insert(Line::new(&open, self.io.now, self.io.keys.bits()));
        let conn = key.slot();
        let token = self.lines.launch(Op::Connect, conn);
        self.io.outbox.0.open(conn, key.generation());
        let connecting = self
            .target
            .socket(open.number, open.receive_buffer)
            .and_then(|(socket, address)| self.ring.connect(token, socket, address));
        if let Err(error) = connecting {
            self.errno(conn, error.raw_os_error().unwrap_or_default());
            self.io.outbox.0.close(conn);
            self.lines.land(conn);
            self.lines.free_if_done(conn);
            self.io.opening -= 1;
            app.closed(&mut self.io, conn, open.tag, Gone::Failed);
        }
    }

    pub(super) fn connected<A: App>(&mut self, app: &mut A, conn: u32) {
        self.receive(conn);
        let line = &mut self.lines[conn];
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
        let line = &mut self.lines[conn];
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
        let line = &mut self.lines[conn];
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
            State::Dead | State::Leaving(_) => {}
            State::Connecting | State::Handshake | State::Open => self.end(app, conn, Gone::Left),
        }
    }

    /// Tells the app and closes the descriptor.
    pub(super) fn end<A: App>(&mut self, app: &mut A, conn: u32, gone: Gone) {
        let line = &mut self.lines[conn];
        let (tag, told) = (line.tag, line.told);
        match line.state {
            State::Connecting | State::Handshake => self.io.opening -= 1,
            State::Open => self.io.tally.open -= 1,
            State::Dead => return,
            State::Leaving(_) => {}
        }
        line.state = State::Dead;
        line.machine.take_buffers(&mut self.spares);
        self.io.outbox.0.close(conn);
        // The kernel looks through all operations of the ring for those of a descriptor: only where there is one to find.
        if self.lines.in_flight(conn) > 0 {
            self.ring.cancel(self.lines.token(Op::Cancel, conn));
        }
        self.ring.close(self.lines.launch(Op::Close, conn));
        if told {
            return;
        }
        if gone == Gone::Failed && !app.is_expendable(tag) {
            self.io.tally.failed += 1;
        }
        app.closed(&mut self.io, conn, tag, gone);
    }

    fn errno(&mut self, conn: u32, errno: i32) {
        *self.io.tally.errnos.entry(errno).or_default() += 1;
        let tag = self.lines[conn].tag;
        self.io.tally.say(|| format!("connection {tag}: {}", io::Error::from_raw_os_error(errno)));
    }

    pub(super) fn broken<A: App>(&mut self, app: &mut A, conn: u32, errno: i32) {
        // Once we are leaving the server may end the connection in any way.
        if matches!(self.lines[conn].state, State::Leaving(_)) {
            return self.end(app, conn, Gone::Left);
        }
        self.errno(conn, errno);
        self.end(app, conn, Gone::Failed);
    }

    pub(super) fn end_of_file<A: App>(&mut self, app: &mut A, conn: u32) {
        let line = &self.lines[conn];
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
        let now = self.io.now;
        let is_late = |line: &Line| match line.state {
            State::Connecting | State::Handshake => now > line.since + HANDSHAKE_PATIENCE,
            State::Leaving(since) => now > since + CLOSE_PATIENCE,
            State::Open | State::Dead => false,
        };
        for key in self.lines.keys_where(is_late) {
            self.broken(app, key.slot(), nix::libc::ETIMEDOUT);
        }
    }
}
