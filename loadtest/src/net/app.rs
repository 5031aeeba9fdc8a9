//! What a scenario is to the connections of a thread, and what it may use: the counters, the clock, the outbound queues,
//! and wishes that are carried out after its call.

use std::{convert::Infallible, fmt, time::Instant};

use ringwire::{
    engine::{BatchSend, Key, Op, Pieces},
    outbox::{Outbox, Stretch},
    proto::{
        Kind, Opcode,
        frame::{mark_compressed, put_masked_frame},
    },
};

use crate::{
    net::deflate::Deflate,
    tally::Tally,
    target::Ask,
    wire::{Keys, Messages, Name},
};

/// Nanoseconds since the run began, the same on all threads.
pub(crate) type Nanos = u64;

/// What a connection speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Speaks {
    /// RFC 6455.
    WebSocket,
    /// The expected bytes, nothing else.
    Raw,
    /// HTTP/1.1, kept alive.
    Http,
}

/// A connection to open.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Open {
    /// The app's own number for it.
    pub(crate) tag: u32,
    /// Its number in the whole run: chooses the source address.
    pub(crate) number: usize,
    /// Chooses the URL, where its kind is dealt out by itself; else its number does.
    pub(crate) turn: Option<usize>,
    pub(crate) speaks: Speaks,
    /// Fills `{room}` in the path.
    pub(crate) room: Option<u32>,
    /// Size of the socket's receive buffer, if not the system's choice.
    pub(crate) receive_buffer: Option<usize>,
}

/// Why a connection is no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Gone {
    /// We left, and the server answered.
    Left,
    /// Something was wrong; it is counted already.
    Failed,
}

/// A data message that was not the one due, or came where none could be foretold.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Received<'a> {
    pub(crate) kind: Kind,
    pub(crate) payload: &'a [u8],
}

/// What the app wants done to a connection.
#[derive(Clone, Debug)]
pub(super) enum Command {
    Open(Open),
    Leave(u32),
    Drop(u32),
    Fail(u32, String),
    Pause(u32),
}

/// A scenario's part on one thread. It may name a connection from its `opened` to its `closed`.
pub(crate) trait App {
    /// The opening handshake is done.
    fn opened(&mut self, io: &mut Io, conn: u32, tag: u32);
    /// Which message is due next on a connection, if that can be told.
    fn due(&self, tag: u32) -> Option<Name>;
    /// The message that was due came, right in every byte.
    fn matched(&mut self, io: &mut Io, conn: u32, tag: u32);
    /// Another message came.
    fn received(&mut self, io: &mut Io, conn: u32, tag: u32, message: Received<'_>);
    /// A pong came.
    fn pong(&mut self, _io: &mut Io, _tag: u32, _payload: &[u8]) {}
    /// An HTTP response came, with this content.
    fn responded(&mut self, _io: &mut Io, _conn: u32, _tag: u32, _status: u16, _body: &[u8]) {}
    /// The connection is no more, or never was.
    fn closed(&mut self, io: &mut Io, conn: u32, tag: u32, gone: Gone);
    /// What the opening handshake says beside what all say.
    fn ask(&self, _tag: u32) -> Ask<'_> {
        Ask::default()
    }
    /// Whether the server may end this connection as it likes.
    fn is_expendable(&self, _tag: u32) -> bool {
        false
    }
    /// Once per tick. Returns when it wants the next one at the latest.
    fn tick(&mut self, io: &mut Io) -> Option<Nanos>;
}

/// An app whose messages have been counted: what still comes while its connections are closed is nothing to it.
pub(super) struct Concluded<'a, A>(pub(super) &'a mut A);

impl<A: App> App for Concluded<'_, A> {
    fn opened(&mut self, _io: &mut Io, _conn: u32, _tag: u32) {}

    fn due(&self, _tag: u32) -> Option<Name> {
        None
    }

    fn matched(&mut self, _io: &mut Io, _conn: u32, _tag: u32) {}

    fn received(&mut self, _io: &mut Io, _conn: u32, _tag: u32, _message: Received<'_>) {}

    fn closed(&mut self, io: &mut Io, conn: u32, tag: u32, gone: Gone) {
        self.0.closed(io, conn, tag, gone);
    }

    fn ask(&self, tag: u32) -> Ask<'_> {
        self.0.ask(tag)
    }

    fn is_expendable(&self, tag: u32) -> bool {
        self.0.is_expendable(tag)
    }

    fn tick(&mut self, _io: &mut Io) -> Option<Nanos> {
        None
    }
}

/// What an app may use.
#[derive(Debug)]
pub(crate) struct Io {
    pub(crate) tally: Tally,
    pub(crate) messages: &'static Messages,
    /// The time, read at least once per tick.
    pub(crate) now: Nanos,
    pub(super) outbox: Sends,
    pub(super) keys: Keys,
    /// Where compression is offered.
    pub(super) deflate: Option<Box<Deflate>>,
    origin: Instant,
    pub(super) commands: Vec<Command>,
    /// Connections that are connecting or shaking hands, or asked for.
    pub(crate) opening: usize,
}

/// The outbound queues.
pub(super) struct Sends(pub(super) Outbox);

impl fmt::Debug for Sends {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sends").finish_non_exhaustive()
    }
}

impl Sends {
    /// Frames, masked.
    #[inline]
    pub(super) fn put(&mut self, conn: u32, write: impl FnOnce(&mut Vec<u8>)) -> bool {
        self.0.queue_frames(conn, write)
    }

    /// Bytes that are no frames.
    pub(super) fn put_raw(&mut self, conn: u32, write: impl FnOnce(&mut Vec<u8>)) -> bool {
        let queued = self.0.queue_raw(conn, |out| {
            write(out);
            Ok::<(), Infallible>(())
        });
        matches!(queued, Ok(true))
    }

    /// What was queued, as the ring takes it.
    pub(super) fn batch(&mut self) -> impl Iterator<Item = BatchSend<'_>> {
        self.0.batch().map(|send| {
            let pieces = match send.bytes {
                Stretch::One(bytes) => Pieces::One(bytes),
                Stretch::Many(pieces) => Pieces::Many(pieces),
            };
            BatchSend { token: Key::new(send.slot, send.generation).token(Op::SendNow), pieces }
        })
    }
}

impl Io {
    pub(super) fn new(messages: &'static Messages, origin: Instant, seed: u64) -> Io {
        Io {
            tally: Tally::new(),
            messages,
            now: origin.elapsed().as_nanos() as u64,
            outbox: Sends(Outbox::new(usize::MAX)),
            keys: Keys::new(seed),
            deflate: None,
            origin,
            commands: Vec::new(),
            opening: 0,
        }
    }

    /// Asks for a connection.
    pub(crate) fn open(&mut self, open: Open) {
        self.opening += 1;
        self.commands.push(Command::Open(open));
    }

    /// Ends a connection in order: Close 1000, the server's answer, the end.
    pub(crate) fn leave(&mut self, conn: u32) {
        self.commands.push(Command::Leave(conn));
    }

    /// Ends a connection at once.
    pub(crate) fn abandon(&mut self, conn: u32) {
        self.commands.push(Command::Drop(conn));
    }

    /// Ends a connection at once, as one that has failed.
    pub(crate) fn fail(&mut self, conn: u32, why: String) {
        self.commands.push(Command::Fail(conn, why));
    }

    /// Stops reading from a connection.
    pub(crate) fn pause(&mut self, conn: u32) {
        self.commands.push(Command::Pause(conn));
    }

    /// Queues a message.
    #[inline]
    pub(crate) fn send(&mut self, conn: u32, name: Name) {
        if self.deflate.is_some() {
            let payload = self.messages.reply(name).payload();
            return self.message(conn, self.messages.kind, &payload);
        }
        let (key, messages, sent) = (self.keys.key(), self.messages, &mut self.tally.bytes_out);
        self.outbox.put(conn, |out| {
            let start = out.len();
            messages.put_request(out, name, key);
            *sent += (out.len() - start) as u64;
        });
    }

    /// Queues a message of any content.
    pub(crate) fn message(&mut self, conn: u32, kind: Kind, payload: &[u8]) {
        let (key, tally) = (self.keys.key(), &mut self.tally);
        let compressed = self.deflate.as_mut().and_then(|deflate| deflate.compress(conn, payload, &mut tally.deflated));
        self.outbox.put(conn, |out| {
            let start = out.len();
            put_masked_frame(out, kind.into(), compressed.unwrap_or(payload), key);
            if compressed.is_some() {
                mark_compressed(&mut out[start..]);
            }
            tally.bytes_out += (out.len() - start) as u64;
        });
    }

    /// Queues a control frame.
    pub(crate) fn control(&mut self, conn: u32, opcode: Opcode, payload: &[u8]) {
        let key = self.keys.key();
        self.outbox.put(conn, |out| put_masked_frame(out, opcode, payload, key));
    }

    /// Queues bytes as they are.
    pub(crate) fn raw(&mut self, conn: u32, bytes: &[u8]) {
        self.tally.bytes_out += bytes.len() as u64;
        self.outbox.put_raw(conn, |out| out.extend_from_slice(bytes));
    }

    pub(super) fn read_clock(&mut self) {
        self.now = self.origin.elapsed().as_nanos() as u64;
    }
}
