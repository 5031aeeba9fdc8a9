//! Receiving: what arrives is read, and what that leads to is done.

use ringwire::engine::{Completion, Filled, Op, RecvEnd, Ring};

use crate::net::{App, Gone, Net};

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
        let (mut reader, ring) = self.reader();
        let Some(gone) = reader.received(app, conn, ring.buffer(filled)) else { return };
        let line = &mut self.lines[conn];
        // The answer to the server's Close, or the alert, leaves with the next turn; the end of file follows it.
        let answers_close = line.machine.close_received() && !line.machine.failed();
        let alerts = line.session.as_deref().is_some_and(|session| session.has_failed() && session.has_output());
        if gone == Gone::Failed && (answers_close || alerts) {
            return self.end_softly(app, conn);
        }
        self.end(app, conn, gone);
    }
}
