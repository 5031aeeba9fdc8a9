//! TLS between the queues and the sockets: what is queued to a connection with a session is sealed for the batch, as few
//! records as it fits into.
//!
//! The sealed bytes are in an arena until the batch has been tried. What a socket does not take of them is the connection's
//! waiting send, and so is, sealed, each part that follows. What a session has to say by itself (its handshake, new keys, an
//! alert) leaves in front of whatever is sealed next.
//!
//! Where no target is spoken to by TLS, nothing here is done.

use bytes::Bytes;
use ringwire::{
    engine::{Completion, Key, Op, Ring},
    outbox::Stretch,
    tls::{RECORD_BYTES_MAX, RECORD_OVERHEAD_MAX, TlsError},
};

use crate::net::{
    Net,
    app::{App, Gone},
    line::Line,
    wires::{Sealed, Wires},
};

impl Net {
    /// Seals what leaves in the next batch.
    pub(super) fn seal_batch(&mut self) {
        let Net { wires, lines, io, .. } = self;
        let Wires { arena, sealed, urgent, broken } = wires;
        debug_assert!(sealed.is_empty() && arena.is_empty());
        for to_send in io.outbox.0.batch() {
            let (start, plain) = (arena.len(), to_send.bytes_len());
            let key = Key::new(to_send.slot, to_send.generation);
            let line = &mut lines[to_send.slot];
            // Nothing follows the closing handshake but close_notify; in the same send, so that both stay in order.
            let is_done = line.machine.close_received();
            match line.session.as_deref_mut() {
                Some(session) => {
                    let sealing = match to_send.bytes {
                        Stretch::One(bytes) => session.seal([bytes], arena),
                        Stretch::Many(pieces) => session.seal(pieces.iter().map(|piece| &piece[..]), arena),
                    };
                    if let Err(error) = sealing {
                        broken.push((key, error));
                    } else if is_done {
                        session.seal_close(arena);
                    }
                }
                // Of a target without TLS beside one with.
                None => match to_send.bytes {
                    Stretch::One(bytes) => arena.extend_from_slice(bytes),
                    Stretch::Many(pieces) => pieces.iter().for_each(|piece| arena.extend_from_slice(piece)),
                },
            }
            if start < arena.len() {
                sealed.push(Sealed { key, start, end: arena.len(), plain });
            }
        }
        let outbox = &io.outbox.0;
        urgent.retain(|&key| {
            let Some(line) = lines.get_mut(key) else { return false };
            // It goes on with the waiting send.
            if outbox.is_parked(key.slot()) {
                return true;
            }
            line.is_urgent = false;
            let start = arena.len();
            let is_done = line.machine.close_received();
            if let Some(session) = line.session.as_deref_mut() {
                match is_done && !session.has_closed() {
                    true => session.seal_close(arena),
                    false => session.take_output(arena),
                }
            }
            if start < arena.len() {
                sealed.push(Sealed { key, start, end: arena.len(), plain: 0 });
            }
            false
        });
    }

    /// A send of the batch was not sent whole, and was sealed or stands among sealed ones: starts the waiting send of the rest.
    pub(super) fn sealed_short<A: App>(&mut self, app: &mut A, key: Key, completion: &Completion) {
        let conn = key.slot();
        let sent = match completion.sent() {
            Ok(sent) => sent,
            Err(errno) => return self.broken(app, conn, errno),
        };
        let Some(sealed) = self.wires.sealed.iter().find(|sealed| sealed.key == key) else { return };
        let rest = Bytes::copy_from_slice(&self.wires.arena[sealed.start + sent..sealed.end]);
        if self.io.outbox.0.sent_sealed(conn, sealed.plain, rest.clone()) {
            self.ring.send(self.lines.launch(Op::Send, conn), rest);
        }
    }

    /// Sends what a full socket is waited with, sealed where that is due.
    pub(super) fn send_on<A: App>(&mut self, app: &mut A, conn: u32, bytes: Bytes) {
        let mut bytes = bytes;
        if let Some(session) = self.lines[conn].session.as_deref_mut() {
            let records = bytes.len() / RECORD_BYTES_MAX + 3;
            let mut sealed = Vec::with_capacity(bytes.len() + records * RECORD_OVERHEAD_MAX);
            if let Err(error) = session.seal([&bytes[..]], &mut sealed) {
                return self.session_failed(app, conn, &error);
            }
            bytes = Bytes::from(sealed);
            self.io.outbox.0.seal_in_flight(conn, bytes.clone());
        }
        self.ring.send(self.lines.launch(Op::Send, conn), bytes);
    }

    /// Ends connections whose sessions could seal no more.
    pub(super) fn end_broken<A: App>(&mut self, app: &mut A) {
        for (key, error) in std::mem::take(&mut self.wires.broken) {
            if self.lines.get(key).is_some_and(Line::is_live) {
                self.session_failed(app, key.slot(), &error);
            }
        }
    }

    /// A session can say nothing more.
    pub(super) fn session_failed<A: App>(&mut self, app: &mut A, conn: u32, error: &TlsError) {
        self.reader().0.insecure(conn, error);
        self.end(app, conn, Gone::Failed);
    }
}
