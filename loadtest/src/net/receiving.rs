//! Receiving: what arrives goes to whoever reads what the connection speaks.

use ringwire::{
    engine::{Completion, Filled, Op, RecvEnd, Ring},
    proto::handshake::HandshakeError,
};

use crate::net::{
    App, Gone, Net, Speaks,
    frames::read_frames,
    handshake::shake_hands,
    line::State,
    plain::{read_http, read_raw},
};

impl Net {
    pub(super) fn receive(&mut self, conn: u32) {
        let line = &self.lines[conn];
        if line.is_live() && !line.paused {
            self.ring.recv(self.lines.launch(Op::Recv, conn));
        }
    }

    /// Data, the end, or an error of a receive.
    pub(super) fn filled<A: App>(&mut self, app: &mut A, conn: u32, completion: Completion) {
        let end = completion.recv_end();
        if let Some(filled) = completion.filled {
            self.take(app, conn, &filled);
            self.ring.recycle(filled);
        }
        if completion.more || !self.is_live(conn) {
            return;
        }
        match end {
            RecvEnd::Interrupted => self.receive(conn),
            RecvEnd::NoBuffers => self.starved.push(conn),
            RecvEnd::EndOfFile => self.end_of_file(app, conn),
            RecvEnd::Failed(_) if self.lines[conn].paused => {}
            RecvEnd::Failed(errno) => self.broken(app, conn, errno),
        }
    }

    /// Takes received bytes.
    fn take<A: App>(&mut self, app: &mut A, conn: u32, filled: &Filled) {
        let line = &mut self.lines[conn];
        let data = self.ring.buffer(filled);
        self.io.tally.bytes_in += data.len() as u64;
        let mut at = 0;
        if line.state == State::Handshake {
            match shake_hands(line, data, &self.target) {
                Ok(None) => return,
                Ok(Some(used)) => at = used,
                Err(error) => {
                    if let HandshakeError::Status(status) = error {
                        *self.io.tally.statuses.entry(status).or_default() += 1;
                    }
                    self.io.tally.say(|| format!("connection {}: {error}", line.tag));
                    return self.end(app, conn, Gone::Failed);
                }
            }
            self.opened(app, conn);
        }
        let line = &mut self.lines[conn];
        // Borrowed anew: telling the app needs all of `self`.
        let data = &mut self.ring.buffer(filled)[at..];
        let ended = match line.speaks {
            Speaks::WebSocket => read_frames(line, &mut self.io, app, conn, data, &self.limits, &mut self.spares),
            Speaks::Raw => read_raw(line, &mut self.io, app, conn, data),
            Speaks::Http => read_http(line, &mut self.io, app, conn, data),
        };
        if let Some(gone) = ended {
            // The answer to the server's Close leaves with the next turn; the end of file follows it.
            if line.machine.close_received() && !line.machine.failed() && gone == Gone::Failed {
                line.state = State::Leaving(self.io.now);
                line.told = true;
                self.io.tally.open -= 1;
                if !app.is_expendable(line.tag) {
                    self.io.tally.failed += 1;
                }
                let tag = line.tag;
                return app.closed(&mut self.io, conn, tag, gone);
            }
            self.end(app, conn, gone);
        }
    }
}
