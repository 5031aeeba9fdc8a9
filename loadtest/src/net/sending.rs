//! Sending: what of a batch was not taken at once goes on in a send that waits.

use ringwire::{
    engine::{BatchSend, Completion, Op, Pieces, Ring, Token},
    outbox::{Stretch, ToSend},
};

use crate::net::{App, Net};

impl Net {
    /// A send of the batch was not sent whole.
    pub(super) fn sent_short<A: App>(&mut self, app: &mut A, completion: Completion) {
        let conn = completion.token.index();
        let line = &mut self.lines[conn as usize];
        if !completion.token.is_of_generation(line.generation) || !line.is_live() {
            return;
        }
        let sent = match completion.result {
            Ok(sent) => sent as usize,
            Err(errno) if errno == nix::libc::EAGAIN => 0,
            Err(errno) => return self.broken(app, conn, errno),
        };
        if let Some(rest) = self.io.outbox.0.sent_short(conn, sent) {
            line.in_flight += 1;
            self.ring.send(Token::new(Op::Send, line.generation, conn), rest);
        }
    }

    /// A send that waited is done.
    pub(super) fn sent<A: App>(&mut self, app: &mut A, conn: u32, completion: &Completion) {
        let line = &mut self.lines[conn as usize];
        let next = self.io.outbox.0.sent_async(conn, drop);
        match completion.result {
            Err(errno) => self.broken(app, conn, errno),
            Ok(_) => {
                if let Some(next) = next {
                    line.in_flight += 1;
                    self.ring.send(Token::new(Op::Send, line.generation, conn), next);
                }
            }
        }
    }
}

/// A send of the outbox as the ring takes it.
pub(super) fn batch_send(send: ToSend<'_>) -> BatchSend<'_> {
    let pieces = match send.bytes {
        Stretch::One(bytes) => Pieces::One(bytes),
        Stretch::Many(pieces) => Pieces::Many(pieces),
    };
    BatchSend { token: Token::new(Op::SendNow, send.generation, send.slot), pieces }
}
