//! The client thread's tick. Generic over [`Ring`], like a server's core, so that it also runs on the simulated one.
//!
//! A tick, in this order: gather what is to be sent, one send per connection; submit and wait; take the completions; settle
//! the sends; read letters; handle completions; resume what was held back; fire due timers; wake users. Nothing blocks.
//!
//! Invariants: a slot is freed only when no operation of it is in flight; at most one receive, and one send, are in flight
//! for a slot; a socket is closed only after what was queued to it has been sent, unless it is broken or its time is up.

use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::io;
use std::task::Waker;

use super::conn::{Conn, Phase, Receiving};
use super::delay::DelayEnd;
use super::error::ClientError;
use super::letter::{Letter, Letters};
use super::line::{Ended, Taken};
use super::out::{Out, SEND_BYTES_MAX};
use super::resolve::Resolve;
use crate::engine::{BatchSend, Completion, Key, Op, Ring, Slots, Token, Wait};
use crate::guard;
use crate::message::OwnedMessage;
use crate::proto::Spares;

/// Memory kept for assembling messages.
const POOL_BYTES: usize = 8 << 20;
/// How long the server has to close the connection after both Close frames, and to read what we have refused.
pub(super) const LINGER_NS: u64 = 1_000_000_000;

/// Something due at a time; the earliest is the greatest, as a heap wants it.
struct Due<T> {
    at_ns: u64,
    what: T,
}

impl<T> PartialEq for Due<T> {
    fn eq(&self, other: &Due<T>) -> bool {
        self.at_ns == other.at_ns
    }
}

impl<T> Eq for Due<T> {}

impl<T> PartialOrd for Due<T> {
    fn partial_cmp(&self, other: &Due<T>) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> Ord for Due<T> {
    fn cmp(&self, other: &Due<T>) -> Ordering {
        other.at_ns.cmp(&self.at_ns)
    }
}

/// See the module.
pub struct Driver<R> {
    pub(super) ring: R,
    pub(super) letters: Letters,
    pub(super) resolve: Resolve,
    pub(super) conns: Slots<Conn>,
    pub(super) spares: Spares,
    pub(super) now_ns: u64,
    completions: Vec<Completion>,
    /// Connections that may have something to send.
    dirty: Vec<Key>,
    /// Connections of the batch that is being sent.
    batch: Vec<u32>,
    /// Connections whose send failed, or could not be sealed.
    broken: Vec<(Key, ClientError)>,
    /// Plain bytes on their way into a session.
    plain: Out,
    /// Receives that found no buffer; armed again once buffers have been given back.
    pub(super) starved: Vec<Key>,
    /// Connections whose held-back input may be handled now.
    pub(super) resumable: Vec<Key>,
    timers: BinaryHeap<Due<Key>>,
    delays: BinaryHeap<Due<DelayEnd>>,
    /// Users to wake at the end of the tick.
    pub(super) wakers: Vec<Waker>,
    /// Messages on their way into an inbox.
    pub(super) messages: Vec<OwnedMessage>,
}

/// However the thread ends, whoever was about to be woken is: they learn of the end from their lines.
impl<R> Drop for Driver<R> {
    fn drop(&mut self) {
        drop(std::mem::take(&mut self.conns));
        self.wakers.drain(..).for_each(guard::wake);
    }
}

impl<R: Ring> Driver<R> {
    /// A driver without connections.
    pub fn new(ring: R, letters: Letters, resolve: Resolve) -> Driver<R> {
        Driver {
            now_ns: ring.now(),
            ring,
            letters,
            resolve,
            conns: Slots::default(),
            spares: Spares::new(POOL_BYTES),
            completions: Vec::new(),
            dirty: Vec::new(),
            batch: Vec::new(),
            broken: Vec::new(),
            plain: Out::default(),
            starved: Vec::new(),
            resumable: Vec::new(),
            timers: BinaryHeap::new(),
            delays: BinaryHeap::new(),
            wakers: Vec::new(),
            messages: Vec::new(),
        }
    }

    /// Ticks for ever.
    ///
    /// # Errors
    /// If the ring is beyond use.
    pub(super) fn run(&mut self) -> io::Result<()> {
        loop {
            self.tick()?;
        }
    }

    fn tick(&mut self) -> io::Result<()> {
        self.turn()?;
        self.work();
        Ok(())
    }

    /// The first half of a tick, which sleeps. A simulated ring returns from it at once: the second half must wait until
    /// the sleep would be over.
    ///
    /// # Errors
    /// If the ring is beyond use.
    pub fn turn(&mut self) -> io::Result<()> {
        let watched = self.gather();
        let wait = self.wait(watched);
        let conns = &self.conns;
        let batch = self
            .batch
            .iter()
            .map(|&slot| BatchSend { token: conns.token(Op::SendNow, slot), pieces: conns[slot].out.as_pieces() });
        self.ring.turn(batch, wait)
    }

    /// The second half of a tick.
    pub fn work(&mut self) {
        self.letters.unpark();
        self.now_ns = self.ring.now();
        self.take_completions();
        self.settle();
        self.read_letters();
        self.handle_completions();
        self.break_broken();
        self.resume();
        self.fire_timers();
        self.rearm_starved();
        self.wakers.drain(..).for_each(guard::wake);
        let conns = &self.conns;
        debug_assert!(conns.len() > 64 || conns.iter().all(|(slot, conn)| conn.invariants(conns.in_flight(slot))));
    }

    /// Slots in use, those included whose connection has ended and whose operations have not.
    pub fn slots_in_use(&self) -> usize {
        self.conns.len()
    }

    /// Takes what users have queued; true if somebody waits until it is sent, of which no completion tells.
    fn gather(&mut self) -> bool {
        let mut watched = false;
        for key in std::mem::take(&mut self.dirty) {
            let Some(conn) = self.conns.get_mut(key) else { continue };
            conn.dirty = false;
            if conn.sending
                || matches!(conn.phase, Phase::Resolving | Phase::Retrying | Phase::Connecting | Phase::Dead)
            {
                continue;
            }
            let taken = match &mut conn.tls {
                None => conn.line.take_out(&mut conn.out, SEND_BYTES_MAX),
                Some(tls) => {
                    let ends = conn.phase == Phase::Flushing;
                    tls.take_out(&conn.line, ends, &mut self.plain, &mut conn.out).unwrap_or_else(|error| {
                        self.broken.push((key, ClientError::Tls(error)));
                        Taken { more: false, watched: true }
                    })
                }
            };
            conn.has_more = taken.more;
            watched |= taken.watched || taken.more || conn.phase == Phase::Flushing;
            match conn.out.is_empty() {
                false => self.batch.push(key.slot()),
                // A session that has failed takes what is queued without a word.
                true => conn.line.sent(conn.tls.as_mut().map_or(0, |tls| tls.take_sent()), &mut self.wakers),
            }
        }
        watched
    }

    fn wait(&mut self, watched: bool) -> Wait {
        if watched || !self.resumable.is_empty() || !self.letters.park() {
            return Wait::No;
        }
        let timer_ns = self.timers.peek().map(|due| due.at_ns);
        let delay_ns = self.delays.peek().map(|due| due.at_ns);
        match [timer_ns, delay_ns].into_iter().flatten().min() {
            Some(at_ns) => Wait::Until(at_ns),
            None => Wait::Forever,
        }
    }

    /// Takes all completions off the ring, and handles at once what the batch's failures say.
    fn take_completions(&mut self) {
        while let Some(completion) = self.ring.failed_send(&mut self.completions) {
            self.sent_short(&completion);
        }
    }

    fn sent_short(&mut self, completion: &Completion) {
        let Some(key) = self.conns.owner(completion.token) else { return };
        let sent = match completion.sent() {
            Ok(sent) => sent,
            Err(errno) => return self.broken.push((key, broken(errno))),
        };
        self.conns[key.slot()].sending = true;
        self.send_rest(key.slot(), sent);
    }

    /// `sent` bytes more have left: sends what is left of the queue, a piece at a time, waiting for room.
    fn send_rest(&mut self, slot: u32, sent: usize) {
        let conn = &mut self.conns[slot];
        if conn.tls.is_none() {
            conn.line.sent(sent, &mut self.wakers);
        }
        match conn.out.advance(sent) {
            Some(piece) => {
                conn.piece = piece.clone();
                self.ring.send(self.conns.launch(Op::Send, slot), piece);
            }
            None => {
                conn.sending = false;
                conn.piece.clear();
                // Sealed bytes are counted off together.
                let rest = conn.take_sent(0);
                conn.line.sent(rest, &mut self.wakers);
                // What was queued meanwhile had to wait.
                self.mark_dirty(slot);
                self.flushed(slot);
            }
        }
    }

    /// The batch is over: what it has sent is forgotten.
    fn settle(&mut self) {
        let mut batch = std::mem::take(&mut self.batch);
        for slot in batch.drain(..) {
            let conn = &mut self.conns[slot];
            if conn.sending {
                continue;
            }
            let sent = conn.out.clear();
            let sent = conn.take_sent(sent);
            conn.line.sent(sent, &mut self.wakers);
            self.flushed(slot);
        }
        self.batch = batch;
    }

    /// What was taken of a connection's queue has been sent.
    fn flushed(&mut self, slot: u32) {
        let conn = &mut self.conns[slot];
        if conn.has_more {
            self.mark_dirty(slot);
        } else if conn.phase == Phase::Flushing {
            self.end_if_flushed(slot);
        }
    }

    fn read_letters(&mut self) {
        // As many as were there: what comes meanwhile waits for the next tick.
        for _ in 0..self.letters.len() {
            let Some(letter) = self.letters.next() else { break };
            match letter {
                Letter::Connect(line, order) => self.start(line, order),
                Letter::Resolved(key, found) => self.resolved(key, found),
                Letter::Look(line) => self.look(&line),
                Letter::Delay(duration, what) => {
                    let at_ns = self.now_ns.saturating_add(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX));
                    self.delays.push(Due { at_ns, what });
                }
            }
        }
    }

    fn handle_completions(&mut self) {
        let mut completions = std::mem::take(&mut self.completions);
        for completion in completions.drain(..) {
            match completion.token.op() {
                Op::Recv => self.received(completion),
                Op::Send => self.sent(&completion),
                Op::Connect => self.connected(&completion),
                Op::Close => self.descriptor_closed(completion.token),
                // The letters have been read already.
                Op::Doorbell => {}
                Op::Accept | Op::SendNow | Op::Cancel | Op::RecvInto => {}
            }
        }
        self.completions = completions;
    }

    /// A waiting send is done.
    fn sent(&mut self, completion: &Completion) {
        let Some(slot) = self.landed(completion.token) else { return };
        let conn = &mut self.conns[slot];
        let want = conn.piece.len();
        match completion.result {
            Ok(sent) if sent as usize == want => self.send_rest(slot, want),
            result => {
                conn.sending = false;
                let errno = result.err().unwrap_or(libc::EPIPE);
                self.broken.push((self.conns.key(slot), broken(errno)));
            }
        }
    }

    fn break_broken(&mut self) {
        for (key, error) in std::mem::take(&mut self.broken) {
            if self.conns.contains(key) {
                self.finish(key.slot(), error);
            }
        }
    }

    fn fire_timers(&mut self) {
        while let Some(due) = self.timers.peek().filter(|due| due.at_ns <= self.now_ns) {
            let (at_ns, key) = (due.at_ns, due.what);
            self.timers.pop();
            let Some(conn) = self.conns.get_mut(key) else { continue };
            if conn.look_at_ns == at_ns {
                conn.look_at_ns = u64::MAX;
            }
            if conn.due_ns() <= self.now_ns {
                self.overdue(key.slot());
            }
            if self.conns.contains(key) {
                self.watch_over(key.slot());
            }
        }
        while self.delays.peek().is_some_and(|due| due.at_ns <= self.now_ns) {
            // Its drop wakes whoever waits.
            self.delays.pop();
        }
    }

    /// Makes timers look at a connection when it is due.
    pub(super) fn watch_over(&mut self, slot: u32) {
        let conn = &mut self.conns[slot];
        let at_ns = conn.due_ns();
        if at_ns < conn.look_at_ns {
            conn.look_at_ns = at_ns;
            self.timers.push(Due { at_ns, what: self.conns.key(slot) });
        }
    }

    pub(super) fn mark_dirty(&mut self, slot: u32) {
        let conn = &mut self.conns[slot];
        if !conn.dirty {
            conn.dirty = true;
            self.dirty.push(self.conns.key(slot));
        }
    }

    fn rearm_starved(&mut self) {
        for key in std::mem::take(&mut self.starved) {
            if self.conns.contains(key) {
                self.start_receiving(key.slot());
            }
        }
    }

    /// Arms a receive where one is wanted and none is.
    pub(super) fn start_receiving(&mut self, slot: u32) {
        let conn = &mut self.conns[slot];
        let wants =
            matches!(conn.phase, Phase::Handshaking | Phase::Refused | Phase::Open | Phase::Closing | Phase::Flushing);
        if wants && conn.receiving == Receiving::Idle && !conn.paused && conn.finished.is_none() {
            conn.receiving = Receiving::Multi;
            self.ring.recv(self.conns.launch(Op::Recv, slot));
        }
    }

    /// Ends a connection as was decided before, or else with this error.
    pub(super) fn finish(&mut self, slot: u32, error: ClientError) {
        let conn = &mut self.conns[slot];
        if conn.phase == Phase::Dead {
            return;
        }
        conn.ended.get_or_insert_with(|| Ended::abnormal(error));
        self.tell(slot);
        self.teardown(slot);
    }

    /// Tells users how the connection ended.
    pub(super) fn tell(&mut self, slot: u32) {
        let conn = &mut self.conns[slot];
        if std::mem::replace(&mut conn.told, true) {
            return;
        }
        if let Some(ended) = conn.ended.take() {
            let open_for = conn.opened_ns.map(|at_ns| std::time::Duration::from_nanos(self.now_ns - at_ns));
            let error = ended.error.as_ref().map(tracing::field::display);
            tracing::debug!(code = ended.code, clean = ended.clean, error, "a client's connection ended");
            conn.line.end(ended, open_for, &mut self.wakers);
        }
    }

    /// Cancels a connection's operations and closes its descriptor. The slot is free when the last of them has completed.
    fn teardown(&mut self, slot: u32) {
        let conn = &mut self.conns[slot];
        let was = std::mem::replace(&mut conn.phase, Phase::Dead);
        debug_assert_ne!(was, Phase::Dead);
        conn.stash = Vec::new();
        conn.tls = None;
        conn.machine.take_buffers(&mut self.spares);
        // While retrying, its descriptor is being closed already.
        if conn.has_descriptor && was != Phase::Retrying {
            if self.conns.in_flight(slot) > 0 {
                self.ring.cancel(self.conns.token(Op::Cancel, slot));
            }
            self.ring.close(self.conns.launch(Op::Close, slot));
        }
        self.conns.free_if_done(slot);
    }

    fn descriptor_closed(&mut self, token: Token) {
        let Some(slot) = self.landed(token) else { return };
        let conn = &mut self.conns[slot];
        debug_assert_eq!(conn.phase, Phase::Retrying);
        conn.has_descriptor = false;
        self.try_next_address(slot);
    }

    /// An operation is over: the slot of its connection, unless that is over too, which then may be freed.
    pub(super) fn landed(&mut self, token: Token) -> Option<u32> {
        let slot = self.conns.owner(token)?.slot();
        self.conns.land(slot);
        if self.conns[slot].phase == Phase::Dead {
            self.conns.free_if_done(slot);
            return None;
        }
        Some(slot)
    }
}

fn broken(errno: i32) -> ClientError {
    ClientError::Broken(io::Error::from_raw_os_error(errno))
}
