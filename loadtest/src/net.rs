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

mod app;
mod deflate;
mod frames;
mod handshake;
mod life;
mod line;
mod plain;
mod reading;
mod receiving;
mod secure;
mod sending;
mod wires;

use std::{io, mem, sync::Arc, time::Instant};

use ringwire::{
    engine::{Completion, Descriptors, Op, Ring, Slots, Wait, bell::Bell, uring},
    proto::{Limits, Spares},
};

pub(crate) use self::app::{App, Gone, Io, Nanos, Open, Received, Speaks};
use self::{
    app::{Command, Concluded},
    deflate::Deflate,
    line::{Line, State},
    reading::Reader,
    wires::Wires,
};
use crate::{
    deal::Deal,
    tally::{OfTarget, Packed},
    target::Target,
    wire::Messages,
};

/// How long a closing handshake may take, and then the server's end of the connection.
const CLOSE_PATIENCE: Nanos = 2_000_000_000;
/// As long as connections end, all of them have so much time to.
const CLOSE_PATIENCE_IN_ALL: Nanos = 60_000_000_000;
/// How often a tick comes at least while everything is being closed.
const FINISH_TICK: Nanos = 10_000_000;
/// Nobody is given up for being silent before so many of them.
const LOOKS_MIN: u32 = 100;
/// How often connections are looked through for those that take too long.
const SWEEP_EVERY: Nanos = 200_000_000;
/// The clock is read anew after as many completions.
const COMPLETIONS_PER_CLOCK: usize = 64;

/// All connections of a thread.
pub(crate) struct Net {
    ring: uring::Uring,
    pub(crate) io: Io,
    targets: Arc<[Target]>,
    /// How connections are dealt out to them.
    deal: Deal,
    lines: Slots<Line>,
    wires: Wires,
    /// Some target is spoken to by TLS.
    is_secure: bool,
    spares: Spares,
    limits: Limits,
    /// How long a handshake may take.
    patience: Nanos,
    completions: Vec<Completion>,
    starved: Vec<u32>,
    /// What to add to the run's clock to get the ring's.
    ring_ahead: i128,
    next_sweep: Nanos,
}

impl Net {
    /// A ring for `slots` connections, one of so many `rings` of this process; a handshake may take as long as `patience`.
    ///
    /// # Errors
    /// The kernel's; or if there are too few descriptors for as many.
    pub(crate) fn new(
        (targets, deal): (Arc<[Target]>, Deal),
        messages: &'static Messages,
        (slots, rings): (u32, u32),
        patience: Nanos,
        origin: Instant,
        seed: u64,
        deflate_bytes_min: usize,
    ) -> io::Result<Net> {
        let large = messages.sizes.max() > 64 << 10;
        let options = uring::Options {
            slots,
            rings,
            buffers: 2048,
            buffer_bytes: if large { 16 << 10 } else { 4 << 10 },
            incremental_bytes: if large { 256 << 10 } else { 64 << 10 },
            ..uring::Options::default()
        };
        let ring = uring::Uring::new(&options, Vec::new())?;
        if ring.slots() < slots {
            let remedy = match ring.descriptors() {
                Descriptors::Direct => "use more --threads",
                Descriptors::Plain => {
                    "all threads share them on this kernel: raise the limit of open files (ulimit -Hn)"
                }
            };
            let text = format!("a thread may have {} descriptors, {slots} are wanted: {remedy}", ring.slots());
            return Err(io::Error::other(text));
        }
        let mut io = Io::new(messages, origin, seed);
        // Both clocks at once: whatever lies between the two readings would make every wake late by so much.
        io.read_clock();
        if targets.iter().any(|target| target.offer.is_some()) {
            io.deflate = Some(Box::new(Deflate::new(deflate_bytes_min)));
        }
        if targets.len() > 1 {
            io.tally.targets = vec![OfTarget::new(); targets.len()];
        }
        let ring_ahead = i128::from(ring.now()) - i128::from(io.now);
        Ok(Net {
            ring_ahead,
            ring,
            io,
            is_secure: targets.iter().any(|target| target.connector.is_some()),
            targets,
            deal,
            lines: Slots::default(),
            wires: Wires::default(),
            spares: Spares::new(64 << 20),
            limits: Limits { message_bytes_max: 1 << 26, fragments_max: 1 << 20 },
            patience,
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

    /// Says goodbye on every connection, and waits for the answers, but not for long. What is missing has been counted.
    ///
    /// # Errors
    /// If the ring is beyond use.
    pub(crate) fn finish<A: App>(&mut self, app: &mut A) -> io::Result<()> {
        let app = &mut Concluded(app);
        self.lines.iter().for_each(|(conn, _)| self.io.leave(conn));
        self.obey(app);
        self.next_sweep = Nanos::MAX;
        let give_up = self.io.now + CLOSE_PATIENCE_IN_ALL;
        // Whoever has many has much to do: what counts is that it goes on. Time alone says nothing: in it this thread may have had no
        // processor to look.
        let (mut left, mut end, mut looks) = (self.lines.len(), self.io.now + CLOSE_PATIENCE, 0);
        while left > 0 && (self.io.now < end || looks < LOOKS_MIN) && self.io.now < give_up {
            self.turn(app, Some(self.io.now + FINISH_TICK))?;
            looks += 1;
            if self.lines.len() < left {
                (left, end, looks) = (self.lines.len(), self.io.now + CLOSE_PATIENCE, 0);
            }
        }
        self.count_the_rest();
        let inflated = self.spares.inflated();
        self.io.tally.deflated.received =
            Packed { messages: inflated.messages, bytes: inflated.bytes_after, bytes_on_wire: inflated.bytes_before };
        // What is left ends with the ring, all at once: one by one the kernel would look for each among all the others.
        Ok(())
    }

    fn obey<A: App>(&mut self, app: &mut A) {
        while !self.io.commands.is_empty() {
            for command in mem::take(&mut self.io.commands) {
                match command {
                    Command::Open(open) => self.open(app, open),
                    Command::Leave(conn) | Command::Drop(conn) | Command::Fail(conn, _) | Command::Pause(conn)
                        if !self.is_live(conn) => {}
                    Command::Leave(conn) => self.leave(app, conn),
                    Command::Drop(conn) => self.end(app, conn, Gone::Left),
                    Command::Fail(conn, why) => {
                        self.lines[conn].fails(|| why);
                        self.end(app, conn, Gone::Failed);
                    }
                    Command::Pause(conn) => {
                        let line = &mut self.lines[conn];
                        if line.state == State::Open && !line.paused {
                            line.paused = true;
                            self.ring.cancel(self.lines.token(Op::Cancel, conn));
                        }
                    }
                }
            }
        }
    }

    /// Everything that reading needs, and the ring beside it.
    fn reader(&mut self) -> (Reader<'_>, &mut uring::Uring) {
        let Net { ring, io, targets, lines, limits, spares, wires, .. } = self;
        (Reader { lines, io, targets, limits, spares, urgent: &mut wires.urgent }, ring)
    }

    fn is_live(&self, conn: u32) -> bool {
        self.lines.is_taken(conn) && self.lines[conn].is_live()
    }

    fn turn<A: App>(&mut self, app: &mut A, wake: Option<Nanos>) -> io::Result<()> {
        // Without a wish there is no timer to set either: the measuring thread rings the bell often enough.
        let wait = match wake {
            None => Wait::Forever,
            Some(wake) if wake <= self.io.now => Wait::No,
            Some(wake) => Wait::Until((i128::from(wake) + self.ring_ahead).max(0) as u64),
        };
        if self.is_secure {
            self.seal_batch();
            self.ring.turn(self.wires.batch(), wait)?;
        } else {
            self.ring.turn(self.io.outbox.batch(), wait)?;
        }
        self.io.read_clock();
        let mut completions = mem::take(&mut self.completions);
        while let Some(completion) = self.ring.failed_send(&mut completions) {
            self.sent_short(app, &completion);
        }
        self.io.outbox.0.settle(drop);
        if self.is_secure {
            self.wires.settle();
            self.end_broken(app);
        }
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

    fn complete<A: App>(&mut self, app: &mut A, completion: Completion) {
        let conn = completion.token.index();
        let op = completion.token.op();
        if matches!(op, Op::Doorbell | Op::Cancel) {
            return;
        }
        debug_assert!(self.lines.owner(completion.token).is_some(), "a slot was given out too early");
        if op != Op::Recv || !completion.more {
            self.lines.land(conn);
        }
        if self.lines[conn].state == State::Dead {
            if let Some(filled) = completion.filled {
                self.ring.recycle(filled);
            }
            self.lines.free_if_done(conn);
            return;
        }
        match op {
            Op::Connect => match completion.result {
                Ok(_) => self.connected(app, conn),
                Err(errno) => self.broken(app, conn, errno),
            },
            Op::Recv => self.filled(app, conn, completion),
            Op::Send => self.sent(app, conn, &completion),
            _ => {}
        }
    }
}
