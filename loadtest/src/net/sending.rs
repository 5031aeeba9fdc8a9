//! Sending: what of a batch was not taken at once goes on in a send that waits.

use ringwire::engine::{Completion, Op, Ring};

use crate::net::{App, Net};

impl Net {
    /// A send of the batch was not sent whole.
    pub(super) fn sent_short<A: App>(&mut self, app: &mut A, completion: &Completion) {
        let Some(key) = self.lines.owner(completion.token) else { return };
        let conn = key.slot();
        if !self.lines[conn].is_live() {
            return;
        }
        if self.is_secure {
            return self.sealed_short(app, key, completion);
        }
        let sent = match completion.sent() {
            Ok(sent) => sent,
            Err(errno) => return self.broken(app, conn, errno),
        };
        if let Some(rest) = self.io.outbox.0.sent_short(conn, sent) {
            self.ring.send(self.lines.launch(Op::Send, conn), rest);
        }
    }

    /// A send that waited is done.
    pub(super) fn sent<A: App>(&mut self, app: &mut A, conn: u32, completion: &Completion) {
        let next = self.io.outbox.0.sent_async(conn, drop);
        match (completion.result, next) {
            (Err(errno), _) => self.broken(app, conn, errno),
            (Ok(_), Some(next)) => self.send_on(app, conn, next),
            (Ok(_), None) => {}
        }
    }
}
