//! Client connections of one thread on the project's own ring: connecting, the opening handshake, frames, closing.
//!
//! Owns the ring, its direct descriptors (a connection holds no descriptor of the process once it is connecting), the
//! outbound queues and each connection's parser. It knows what is due on a connection from the [`App`], and compares what
//! comes with it piece by piece without assembling it; only what differs goes through the protocol machine.
//!
//! Order in a tick: [`App::tick`] queues and asks; what it asked for is done; one turn of the ring; completions go to the
//! app. Everything else the app may do is on [`Io`].
//!
//! Invariant: a slot is given out again only when no operation of it is in flight.

use std::{io, mem, sync::Arc, time::Instant};

use ringwire::{
    engine::{BatchSend, Completion, Filled, Op, Pieces, Ring, Token, Wait, bell::Bell, uring},
    outbox::{Outbox, Stretch, ToSend},
    proto::{
        Event, Limits, Machine, Opcode, Pool, Role,
        event::Kind,
        frame::put_masked_frame,
        handshake::{HandshakeError, check_response, client_key},
    },
};

use crate::{
    tally::{Tally, Timed},
    target::Target,
    wire::{Keys, Layout, Match, Messages, Name},
};

/// Nanoseconds since the run began, the same on all threads.
pub(crate) type Nanos = u64;

/// How often a tick comes at least while everything is being closed.
const FINISH_TICK: Nanos = 10_000_000;
/// How often connections are looked through for those that take too long.
const SWEEP_EVERY: Nanos = 200_000_000;
/// A handshake takes no longer on a server that works.
pub(crate) const HANDSHAKE_PATIENCE: Nanos = 20_000_000_000;
/// How long a closing handshake may take, and then the server's end of the connection.
const CLOSE_PATIENCE: Nanos = 2_000_000_000;
/// The clock is read anew after as many completions.
const COMPLETIONS_PER_CLOCK: usize = 64;
/// Bytes of a response head that is not a WebSocket's.
const HTTP_BYTES_MAX: usize = 64 << 10;

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
#[derive(Clone, Copy, Debug)]
enum Command {
    Open(Open),
    Leave(u32),
    Drop(u32),
    Pause(u32),
}

/// A scenario's part on one thread.
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
    /// An HTTP response came.
    fn responded(&mut self, _io: &mut Io, _conn: u32, _tag: u32, _status: u16) {}
    /// The connection is no more, or never was.
    fn closed(&mut self, io: &mut Io, conn: u32, tag: u32, gone: Gone);
    /// Whether the server may end this connection as it likes.
    fn is_expendable(&self, _tag: u32) -> bool {
        false
    }
    /// Once per tick. Returns when it wants the next one at the latest.
    fn tick(&mut self, io: &mut Io) -> Option<Nanos>;
}

/// What an app may use.
#[derive(Debug)]
pub(crate) struct Io {
    pub(crate) tally: Tally,
    pub(crate) messages: &'static Messages,
    /// The time, read at least once per tick.
    pub(crate) now: Nanos,
    outbox: Sends,
    keys: Keys,
    origin: Instant,
    commands: Vec<Command>,
    /// Connections that are connecting or shaking hands, or asked for.
    pub(crate) opening: usize,
}

/// The outbound queues.
struct Sends(Outbox);

impl std::fmt::Debug for Sends {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sends").finish_non_exhaustive()
    }
}

impl Sends {
    fn put(&mut self, conn: u32, write: impl FnOnce(&mut Vec<u8>)) -> bool {
        let queued = self.0.queue_raw(conn, |out| {
            write(out);
            Ok::<(), std::convert::Infallible>(())
        });
        matches!(queued, Ok(true))
    }
}

impl Io {
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

    /// Stops reading from a connection.
    pub(crate) fn pause(&mut self, conn: u32) {
        self.commands.push(Command::Pause(conn));
    }

    /// Queues a message.
    #[inline]
    pub(crate) fn send(&mut self, conn: u32, name: Name) {
        let (key, messages, sent) = (self.keys.key(), self.messages, &mut self.tally.bytes_out);
        self.outbox.put(conn, |out| {
            let start = out.len();
            messages.put_request(out, name, key);
            *sent += (out.len() - start) as u64;
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
        self.outbox.put(conn, |out| out.extend_from_slice(bytes));
    }

    fn read_clock(&mut self) {
        self.now = self.origin.elapsed().as_nanos() as u64;
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Vacant,
    Connecting,
    Handshake,
    Open,
    /// Our Close frame is on its way; since when.
    Leaving(Nanos),
    /// Its descriptor is being closed.
    Dead,
}

/// One connection. Small: there may be a hundred thousand.
#[derive(Debug)]
struct Line {
    generation: u32,
    state: State,
    speaks: Speaks,
    /// Operations whose completion is still to come.
    in_flight: u8,
    paused: bool,
    /// The app knows that it is over.
    told: bool,
    tag: u32,
    room: Option<u32>,
    since: Nanos,
    machine: Machine,
    /// The message that is coming, and how many bytes of it have come.
    coming: Option<(Name, usize)>,
    /// Random bytes of the handshake's key.
    key: u64,
    /// Part of a response head.
    head: Vec<u8>,
}

/// All connections of a thread.
pub(crate) struct Net {
    ring: uring::Uring,
    pub(crate) io: Io,
    target: Arc<Target>,
    lines: Vec<Line>,
    free: Vec<u32>,
    live: usize,
    pool: Pool,
    limits: Limits,
    completions: Vec<Completion>,
    starved: Vec<u32>,
    /// What to add to the run's clock to get the ring's.
    ring_ahead: i128,
    next_sweep: Nanos,
}

impl Net {
    /// A ring for `slots` connections.
    ///
    /// # Errors
    /// The kernel's; or if the table of direct descriptors would be too small.
    pub(crate) fn new(
        target: Arc<Target>,
        messages: &'static Messages,
        slots: u32,
        origin: Instant,
        seed: u64,
    ) -> io::Result<Net> {
        let large = messages.sizes.max() > 64 << 10;
        let options = uring::Options {
            slots,
            buffers: 2048,
            buffer_bytes: if large { 16 << 10 } else { 4 << 10 },
            incremental_bytes: if large { 256 << 10 } else { 64 << 10 },
            ..uring::Options::default()
        };
        let ring = uring::Uring::new(&options, Vec::new())?;
        if ring.slots() < slots {
            let text =
                format!("this process may have {} descriptors, {slots} are wanted: use more --threads", ring.slots());
            return Err(io::Error::other(text));
        }
        let now = origin.elapsed().as_nanos() as u64;
        Ok(Net {
            ring_ahead: i128::from(ring.now()) - i128::from(now),
            ring,
            io: Io {
                tally: Tally::new(),
                messages,
                now,
                outbox: Sends(Outbox::new(usize::MAX)),
                keys: Keys::new(seed),
                origin,
                commands: Vec::new(),
                opening: 0,
            },
            target,
            lines: Vec::new(),
            free: Vec::new(),
            live: 0,
            pool: Pool::new(64 << 20),
            limits: Limits { message_bytes_max: 1 << 26, fragments_max: 1 << 20 },
            completions: Vec::new(),
            starved: Vec::new(),
            next_sweep: 0,
        })
    }

    /// Wakes this thread out of its ring.
    pub(crate) fn bell(&self) -> Arc<Bell> {
        self.ring.bell()
    }

    /// One tick. See the module.
    ///
    /// # Errors
    /// If the ring is beyond use.
    pub(crate) fn tick<A: App>(&mut self, app: &mut A) -> io::Result<()> {
        let wake = app.tick(&mut self.io);
        self.obey(app);
        self.turn(app, wake)
    }

    /// Says goodbye on every connection, and waits for the answers, but not for long.
    ///
    /// # Errors
    /// If the ring is beyond use.
    pub(crate) fn finish<A: App>(&mut self, app: &mut A) -> io::Result<()> {
        let open = (0..self.lines.len() as u32).filter(|&conn| self.lines[conn as usize].state != State::Vacant);
        open.for_each(|conn| self.io.leave(conn));
        self.obey(app);
        let end = self.io.now + CLOSE_PATIENCE;
        self.next_sweep = Nanos::MAX;
        while self.live > 0 && self.io.now < end {
            self.turn(app, Some(self.io.now + FINISH_TICK))?;
        }
        // What is left ends with the ring, all at once: one by one the kernel would look for each among all the others.
        Ok(())
    }

    fn obey<A: App>(&mut self, app: &mut A) {
        while !self.io.commands.is_empty() {
            for command in mem::take(&mut self.io.commands) {
                match command {
                    Command::Open(open) => self.open(app, open),
                    Command::Leave(conn) => self.leave(app, conn),
                    Command::Drop(conn) => {
                        if self.is_live(conn) {
                            self.end(app, conn, Gone::Left);
                        }
                    }
                    Command::Pause(conn) => {
                        let line = &mut self.lines[conn as usize];
                        if line.state == State::Open && !line.paused {
                            line.paused = true;
                            self.ring.cancel(Token::new(Op::Recv, line.generation, conn));
                        }
                    }
                }
            }
        }
    }

    fn is_live(&self, conn: u32) -> bool {
        !matches!(self.lines[conn as usize].state, State::Vacant | State::Dead)
    }

    fn open<A: App>(&mut self, app: &mut A, open: Open) {
        let conn = self.free.pop().unwrap_or_else(|| {
            self.lines.push(Line {
                generation: 0,
                state: State::Vacant,
                speaks: Speaks::WebSocket,
                in_flight: 0,
                paused: false,
                told: false,
                tag: 0,
                room: None,
                since: 0,
                machine: Machine::new(Role::Client),
                coming: None,
                key: 0,
                head: Vec::new(),
            });
            (self.lines.len() - 1) as u32
        });
        let line = &mut self.lines[conn as usize];
        debug_assert!(line.state == State::Vacant && line.in_flight == 0);
        line.state = State::Connecting;
        line.speaks = open.speaks;
        line.paused = false;
        line.told = false;
        line.tag = open.tag;
        line.room = open.room;
        line.since = self.io.now;
        line.machine = Machine::new(Role::Client);
        line.coming = None;
        line.key = self.io.keys.bits();
        line.head = Vec::new();
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

    fn leave<A: App>(&mut self, app: &mut A, conn: u32) {
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
    fn end<A: App>(&mut self, app: &mut A, conn: u32, gone: Gone) {
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
        if matches!(line.state, State::Vacant | State::Dead) {
            return;
        }
        line.state = State::Dead;
        line.machine.take_buffers(&mut self.pool);
        self.io.outbox.0.close(conn);
        let token = Token::new(Op::Close, line.generation, conn);
        // The kernel looks through all operations of the ring for those of a descriptor: only where there is one to find.
        if line.in_flight > 0 {
            self.ring.cancel(token);
        }
        self.ring.close(token);
        line.in_flight += 1;
    }

    fn vacate(&mut self, conn: u32) {
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

    fn turn<A: App>(&mut self, app: &mut A, wake: Option<Nanos>) -> io::Result<()> {
        // Without a wish there is no timer to set either: the measuring thread rings the bell often enough.
        let wait = match wake {
            None => Wait::Forever,
            Some(wake) if wake <= self.io.now => Wait::No,
            Some(wake) => Wait::Until((i128::from(wake) + self.ring_ahead).max(0) as u64),
        };
        self.ring.turn(self.io.outbox.0.batch().map(batch_send), wait)?;
        self.io.read_clock();
        let mut completions = mem::take(&mut self.completions);
        while let Some(completion) = self.ring.completion() {
            if completion.token.op() == Op::SendNow {
                self.sent_short(app, completion);
            } else {
                completions.push(completion);
            }
        }
        self.io.outbox.0.settle(drop);
        for (index, completion) in completions.drain(..).enumerate() {
            if index % COMPLETIONS_PER_CLOCK == COMPLETIONS_PER_CLOCK - 1 {
                self.io.read_clock();
            }
            self.complete(app, completion);
        }
        self.completions = completions;
        for conn in mem::take(&mut self.starved) {
            self.receive(conn);
        }
        self.obey(app);
        if self.io.now >= self.next_sweep {
            self.next_sweep = self.io.now + SWEEP_EVERY;
            self.sweep(app);
        }
        Ok(())
    }

    /// A send of the batch was not sent whole.
    fn sent_short<A: App>(&mut self, app: &mut A, completion: Completion) {
        let conn = completion.token.index();
        let line = &mut self.lines[conn as usize];
        if !completion.token.is_of_generation(line.generation) || matches!(line.state, State::Dead | State::Vacant) {
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

    fn complete<A: App>(&mut self, app: &mut A, completion: Completion) {
        let conn = completion.token.index();
        let op = completion.token.op();
        if op == Op::Doorbell {
            return;
        }
        let line = &mut self.lines[conn as usize];
        debug_assert!(completion.token.is_of_generation(line.generation), "a slot was given out too early");
        if op != Op::Recv || !completion.more {
            line.in_flight -= 1;
        }
        if line.state == State::Dead {
            let in_flight = line.in_flight;
            if let Some(filled) = completion.filled {
                self.ring.recycle(filled);
            }
            if in_flight == 0 {
                self.vacate(conn);
            }
            return;
        }
        match op {
            Op::Connect => match completion.result {
                Ok(_) => self.connected(app, conn),
                Err(errno) => self.broken(app, conn, errno),
            },
            Op::Recv => self.filled(app, conn, completion),
            Op::Send => {
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
            _ => {}
        }
    }

    fn broken<A: App>(&mut self, app: &mut A, conn: u32, errno: i32) {
        // Once we are leaving the server may end the connection in any way.
        if matches!(self.lines[conn as usize].state, State::Leaving(_)) {
            return self.end(app, conn, Gone::Left);
        }
        self.errno(conn, errno);
        self.end(app, conn, Gone::Failed);
    }

    fn receive(&mut self, conn: u32) {
        let line = &mut self.lines[conn as usize];
        if !matches!(line.state, State::Vacant | State::Dead) && !line.paused {
            line.in_flight += 1;
            self.ring.recv(Token::new(Op::Recv, line.generation, conn));
        }
    }

    fn connected<A: App>(&mut self, app: &mut A, conn: u32) {
        self.receive(conn);
        let line = &mut self.lines[conn as usize];
        if line.speaks == Speaks::WebSocket {
            line.state = State::Handshake;
            let key = handshake_key(line.key);
            let (target, room) = (&self.target, line.room);
            self.io.outbox.put(conn, |out| target.put_request(out, room, &key));
        } else {
            self.opened(app, conn);
        }
    }

    fn opened<A: App>(&mut self, app: &mut A, conn: u32) {
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

    /// Data, the end, or an error of a receive.
    fn filled<A: App>(&mut self, app: &mut A, conn: u32, completion: Completion) {
        let filled = completion.filled;
        if let Some(filled) = filled {
            self.take(app, conn, filled);
            self.ring.recycle(filled);
        }
        if completion.more || !self.is_live(conn) {
            return;
        }
        match completion.result {
            Ok(_) if filled.is_some() => self.receive(conn),
            Err(errno) if errno == nix::libc::ENOBUFS => self.starved.push(conn),
            Err(_) if self.lines[conn as usize].paused => {}
            Err(errno) => self.broken(app, conn, errno),
            Ok(_) => self.end_of_file(app, conn),
        }
    }

    fn end_of_file<A: App>(&mut self, app: &mut A, conn: u32) {
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

    /// Takes received bytes.
    fn take<A: App>(&mut self, app: &mut A, conn: u32, filled: Filled) {
        let line = &mut self.lines[conn as usize];
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
        let line = &mut self.lines[conn as usize];
        // Borrowed anew: telling the app needs all of `self`.
        let data = &mut self.ring.buffer(filled)[at..];
        let ended = match line.speaks {
            Speaks::WebSocket => read_frames(line, &mut self.io, app, conn, data, &self.limits, &mut self.pool),
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

    /// Ends what takes too long.
    fn sweep<A: App>(&mut self, app: &mut A) {
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

fn batch_send(send: ToSend<'_>) -> BatchSend<'_> {
    let pieces = match send.bytes {
        Stretch::One(bytes) => Pieces::One(bytes),
        Stretch::Many(pieces) => Pieces::Many(pieces),
    };
    BatchSend { token: Token::new(Op::SendNow, send.generation, send.slot), pieces }
}

fn handshake_key(bits: u64) -> String {
    let mut random = [0; 16];
    random[..8].copy_from_slice(&bits.to_le_bytes());
    random[8..].copy_from_slice(&bits.rotate_left(29).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes());
    client_key(random)
}

/// How many bytes of `data` end the handshake; `None`: none yet.
fn shake_hands(line: &mut Line, data: &[u8], target: &Target) -> Result<Option<usize>, HandshakeError> {
    let key = handshake_key(line.key);
    let before = line.head.len();
    let checked = if before == 0 {
        check_response(data, &key)?
    } else {
        line.head.extend_from_slice(data);
        check_response(&line.head, &key)?
    };
    let Some((handshake, len)) = checked else {
        if before == 0 {
            line.head.extend_from_slice(data);
        }
        return Ok(None);
    };
    let offered: Vec<&str> = target.protocols.iter().map(String::as_str).collect();
    handshake.check_protocol(&offered)?;
    Ok(Some(len - before))
}

/// Reads frames; says whether the connection is over.
fn read_frames<A: App>(
    line: &mut Line,
    io: &mut Io,
    app: &mut A,
    conn: u32,
    data: &mut [u8],
    limits: &Limits,
    pool: &mut Pool,
) -> Option<Gone> {
    let tag = line.tag;
    let messages = io.messages;
    let mut at = 0;
    while at < data.len() {
        // Between frames, and nothing closing: what is due can be compared as it comes.
        if line.machine.memory_bytes() == 0 && line.machine.is_open() {
            let coming = line.coming.take().or_else(|| app.due(tag).map(|name| (name, 0)));
            if let Some((name, before)) = coming {
                let parts = messages.reply(name);
                match parts.compare(before, &data[at..]) {
                    Match::Whole(used) => {
                        at += used;
                        if before == 0 || app.due(tag) == Some(name) {
                            app.matched(io, conn, tag);
                        } else {
                            app.received(io, conn, tag, Received { kind: messages.kind, payload: &parts.payload() });
                        }
                        continue;
                    }
                    Match::Partial => {
                        line.coming = Some((name, before + data.len() - at));
                        return None;
                    }
                    Match::Differs if before > 0 => {
                        // The machine has to see the frame from its beginning: what has come was as expected.
                        let mut again = parts.prefix(before);
                        let (mut used, mut ended) = (0, None);
                        while ended.is_none() && used < again.len() {
                            ended = read_event(line, io, app, conn, &mut again, &mut used, limits, pool);
                        }
                        if ended.is_some() {
                            return ended;
                        }
                    }
                    Match::Differs => {}
                }
            }
        }
        if let Some(gone) = read_event(line, io, app, conn, data, &mut at, limits, pool) {
            return Some(gone);
        }
    }
    None
}

/// Lets the machine take one event out of `data[*at..]`, or all of it; says whether the connection is over.
#[allow(clippy::too_many_arguments)]
fn read_event<A: App>(
    line: &mut Line,
    io: &mut Io,
    app: &mut A,
    conn: u32,
    data: &mut [u8],
    at: &mut usize,
    limits: &Limits,
    pool: &mut Pool,
) -> Option<Gone> {
    let tag = line.tag;
    let leaving = matches!(line.state, State::Leaving(_));
    let (outbox, keys) = (&mut io.outbox, &mut io.keys);
    let mut reply = |opcode, payload: &[u8]| {
        let key = keys.key();
        outbox.put(conn, |out| put_masked_frame(out, opcode, payload, key));
    };
    match line.machine.next(data, at, limits, pool, &mut reply)? {
        Event::Message(message) => {
            app.received(io, conn, tag, Received { kind: message.kind, payload: &message.payload });
            None
        }
        Event::Ping(_) => None,
        Event::Pong(payload) => {
            app.pong(io, tag, payload);
            None
        }
        Event::Close { code, reason } => {
            *io.tally.closes.entry(code.unwrap_or(1005)).or_default() += 1;
            if leaving {
                // The server ends the connection; the end of file comes next.
                return None;
            }
            if !app.is_expendable(tag) {
                io.tally.say(|| format!("connection {tag}: Close {} {reason:?}", code.unwrap_or(1005)));
            }
            Some(Gone::Failed)
        }
        Event::Failed(error) => {
            io.tally.say(|| format!("connection {tag}: the server broke the protocol: {error}"));
            io.tally.checks.corrupted += 1;
            Some(Gone::Failed)
        }
    }
}

fn read_raw<A: App>(line: &mut Line, io: &mut Io, app: &mut A, conn: u32, mut data: &[u8]) -> Option<Gone> {
    let messages = io.messages;
    debug_assert!(messages.layout != Layout::WebSocket);
    while !data.is_empty() {
        let coming = line.coming.take().or_else(|| app.due(line.tag).map(|name| (name, 0)));
        let Some((name, before)) = coming else {
            io.tally.checks.unexpected += 1;
            io.tally.say(|| format!("connection {}: bytes that nothing asked for", line.tag));
            return Some(Gone::Failed);
        };
        match messages.reply(name).compare(before, data) {
            Match::Whole(used) => {
                data = &data[used..];
                app.matched(io, conn, line.tag);
            }
            Match::Partial => {
                line.coming = Some((name, before + data.len()));
                return None;
            }
            Match::Differs => {
                io.tally.checks.corrupted += 1;
                io.tally.say(|| format!("connection {}: reply {} differs", line.tag, name.sequence));
                return Some(Gone::Failed);
            }
        }
    }
    None
}

fn read_http<A: App>(line: &mut Line, io: &mut Io, app: &mut A, conn: u32, data: &[u8]) -> Option<Gone> {
    line.head.extend_from_slice(data);
    let mut used = 0;
    let malformed = loop {
        let mut fields = [httparse::EMPTY_HEADER; 64];
        let mut response = httparse::Response::new(&mut fields);
        let head = match response.parse(&line.head[used..]) {
            Ok(httparse::Status::Complete(head)) => head,
            Ok(httparse::Status::Partial) => break line.head.len() - used > HTTP_BYTES_MAX,
            Err(_) => break true,
        };
        let length = response.headers.iter().find(|field| field.name.eq_ignore_ascii_case("content-length"));
        let length = length.and_then(|field| std::str::from_utf8(field.value).ok()?.trim().parse::<usize>().ok());
        let Some(length) = length.filter(|&length| length <= HTTP_BYTES_MAX) else { break true };
        if line.head.len() - used < head + length {
            break false;
        }
        let status = response.code.unwrap_or_default();
        used += head + length;
        app.responded(io, conn, line.tag, status);
    };
    line.head.drain(..used);
    if malformed {
        io.tally.say(|| format!("connection {}: not an HTTP response with a Content-Length", line.tag));
        return Some(Gone::Failed);
    }
    None
}
