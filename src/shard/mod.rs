//! One core: its tick, and the life of its connections. Generic over [`Ring`], so that the whole of it also runs on the
//! simulated one.
//!
//! A tick, in this order: submit what the last tick queued and wait; take the completions; settle the sends of the batch;
//! read the mail; run parser and handlers over what was received; fire due timers; tell handlers who does not keep up; close
//! the doomed; ring other cores' bells. The mail comes before the handlers so that what a core was told before a message arrived is known when the
//! message is handled. Nothing in a tick blocks, and nothing allocates per message once warm.
//!
//! Invariants: a slot is freed only when no operation of it is in flight; at most one receive and one waiting send are in
//! flight for a slot; a socket is closed only after what was queued to it before has been sent, unless it is broken or its
//! time is up.
//!
//! Knows of this crate: `admission`, `config`, `engine`, `guard`, `hub`, `mail`, `marks`, `metrics`, `outbox`, `proto`.

mod conn;
mod direct;
mod drain;
mod gate;
mod input;
mod life;
mod memory;
mod requests;
pub mod service;
mod spares;
mod timers;

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use slab::Slab;

use crate::admission::Admission;
use crate::config::Origins;
use crate::engine::{BATCH_PIECES_MAX, BatchSend, Completion, Generations, Op, Pieces, Ring, Token, Wait};
use crate::hub::{CoreHub, Letter};
use crate::mail::Mailbox;
use crate::marks::{Mark, reach};
use crate::outbox::{PIECES_MAX, Stretch, ToSend};
use crate::proto::Limits;
use crate::proto::http::HttpDate;
use crate::shard::service::{Answer, Service};
use conn::{Conn, Phase, Receiving, WaitsFor};
use direct::Bulk;
use drain::Leaving;
use gate::Times;
use memory::Minding;
use spares::Spares;
use timers::Timers;

/// Completions for which there is room from the start.
const COMPLETIONS_USUAL: usize = 1024;
/// Most accepts in flight per listener.
const ACCEPTS_IN_FLIGHT_MAX: usize = 32;
/// How long to wait before accepting again when the process is out of descriptors or memory.
const ACCEPT_BACKOFF_MS: u64 = 100;
/// Input held back for a paused connection before its receive is cancelled.
const STASH_BYTES_MAX: usize = 64 << 10;
/// After a large message the next receive brings so much less: only the start of the next one.
const RECV_SHARE_AFTER_BULK: u32 = 16;
/// How long a peer that broke the protocol has to read our answer before the socket is closed.
const LINGER_MS: u64 = 500;

/// What a shard goes by. Durations of 0 mean "never".
#[derive(Clone, Debug)]
pub struct Settings {
    /// Limits of messages.
    pub limits: Limits,
    /// Bytes of a request head.
    pub head_bytes_max: usize,
    /// Bytes of a request's body.
    pub body_bytes_max: usize,
    /// From accept to a complete request head, and from the first byte of each further one.
    pub handshake_timeout: Duration,
    /// Between two requests of a connection.
    pub keep_alive: Duration,
    /// While fewer slots than this are left, a request has no longer than a second.
    pub crowded_slots: u32,
    /// Without any inbound byte.
    pub idle_timeout: Duration,
    /// Inbound silence after which a ping is sent.
    pub ping_interval: Duration,
    /// For which a socket may take nothing of what waits for it.
    pub write_timeout: Duration,
    /// From a request to its answer.
    pub answer_timeout: Duration,
    /// From our Close to the peer's.
    pub close_timeout: Duration,
    /// Messages a second and connection.
    pub message_rate_per_second: u32,
    /// Queued bytes above which no more input of the same connection is handled.
    pub pause_bytes: usize,
    /// Bytes that one arming of a receive brings, where it can be bounded: the rest of a large message is received straight
    /// into its own buffer, and no connection brings more in one tick.
    pub recv_bytes_max: u32,
    /// Payload bytes to come from which a message is received straight into its own buffer; at least 8.
    pub direct_bytes_min: usize,
    /// Whether a multishot receive is cancelled for it: where receives cannot be bounded and bring little at a time.
    pub direct_interrupts: bool,
    /// Whose pages may open WebSockets.
    pub origins: Origins,
    /// WebSockets that this core takes, however many the process may have: what its table has room for.
    pub websockets_max: u32,
    /// From the word to drain to the drain.
    pub drain_notice: Duration,
    /// How long a drain may take.
    pub drain_timeout: Duration,
    /// Over how long a drain spreads its Close frames.
    pub drain_spread: Duration,
    /// Listeners of the ring.
    pub listeners: u8,
    /// What becomes of them in a drain.
    pub handover: Handover,
}

/// What becomes of the listeners when a shard drains.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Handover {
    /// They are the shard's own: it answers whoever is in their queues and closes them.
    #[default]
    Close,
    /// Another process listens on the same address by sockets of its own. Closing a listener resets whoever is in its queue
    /// or about to be, so first new connections are turned away, which come again and find the other process.
    Share,
    /// Others have the same sockets, and their queues with them: it stops accepting.
    Leave,
}

/// One core. See the module.
pub struct Shard<R, S> {
    ring: R,
    service: S,
    hub: Box<CoreHub>,
    /// Stands in for the hub while that is lent to tasks.
    stand_in: Option<Box<CoreHub>>,
    answers: Vec<(u32, u32, Answer)>,
    mailbox: Mailbox<Letter>,
    admission: Arc<Admission>,
    settings: Settings,
    conns: Slab<Conn>,
    generations: Generations,
    timers: Timers,
    now_ns: u64,
    /// What responses say of the time, and when the next second begins.
    date: HttpDate,
    next_date_ns: u64,
    core: usize,
    completions: Vec<Completion>,
    /// Receives that found no buffer; armed again once buffers have been given back.
    starved: Vec<(u32, u32)>,
    /// Connections with more of a large message at hand, in turn.
    bulk: Bulk,
    /// Connections to look at once what is queued to them has been sent.
    watched: Vec<u32>,
    /// Connections whose held-back input may be handled now.
    resumable: Vec<(u32, u32)>,
    /// Connections whose send failed.
    broken: Vec<(u32, u32)>,
    /// Connections that wait until letters to other cores have been delivered.
    congested: Vec<(u32, u32)>,
    accepts_wanted: VecDeque<u8>,
    /// Accepts to keep in flight for each listener.
    accepts_per_listener: usize,
    accepts_in_flight: u32,
    accept_again_ms: u64,
    /// [`Shard::times`] at the start of the tick.
    times: Times,
    leaving: Leaving,
    /// When it is looked again for who takes up one of few places.
    make_room_again_ms: u64,
    minding: Minding,
    spares: Spares,
    stopped: bool,
}

impl<R: Ring, S: Service> Shard<R, S> {
    /// A core that has not accepted anything yet.
    pub fn new(
        ring: R,
        service: S,
        mut hub: CoreHub,
        mailbox: Mailbox<Letter>,
        admission: Arc<Admission>,
        settings: Settings,
    ) -> Shard<R, S> {
        // Tables that double leave copies of themselves behind, as much again as what they hold. Room for all there can
        // be costs addresses only: pages that nothing has touched are no memory.
        let slots = ring.slots() as usize;
        hub.reserve(slots);
        // Each has a slot: with few of them, they are for connections.
        let accepts_per_listener = (slots / 8 / usize::from(settings.listeners).max(1)).clamp(1, ACCEPTS_IN_FLIGHT_MAX);
        let accepts_wanted = (0..accepts_per_listener).flat_map(|_| 0..settings.listeners).collect();
        Shard {
            accepts_wanted,
            accepts_per_listener,
            now_ns: ring.now(),
            date: HttpDate::from_unix(0),
            next_date_ns: 0,
            ring,
            service,
            core: hub.core(),
            hub: Box::new(hub),
            stand_in: Some(Box::new(CoreHub::stand_in())),
            answers: Vec::new(),
            mailbox,
            admission,
            settings,
            conns: Slab::with_capacity(slots),
            generations: Generations::with_capacity(slots),
            timers: Timers::default(),
            completions: Vec::with_capacity(COMPLETIONS_USUAL),
            starved: Vec::new(),
            bulk: Bulk::default(),
            watched: Vec::new(),
            resumable: Vec::new(),
            broken: Vec::new(),
            congested: Vec::new(),
            accepts_in_flight: 0,
            accept_again_ms: 0,
            times: Times::default(),
            leaving: Leaving::No,
            make_room_again_ms: 0,
            minding: Minding::default(),
            spares: Spares::default(),
            stopped: false,
        }
    }

    /// Ticks until the core has drained or was stopped.
    ///
    /// # Errors
    /// If the ring is beyond use.
    pub fn run(&mut self) -> io::Result<()> {
        while !self.is_finished() {
            self.tick()?;
        }
        self.submit_last();
        Ok(())
    }

    /// Submits what the last tick queued: descriptors to close, and bells of cores that are to read its letters.
    fn submit_last(&mut self) {
        if let Err(error) = self.ring.turn(self.hub.outbox.batch().map(batch_send), Wait::No) {
            tracing::debug!(%error, "the last submission failed");
        }
    }

    /// Whether there is nothing left to do: stopped, or drained to the last connection.
    pub fn is_finished(&self) -> bool {
        self.stopped || (!self.accepts() && self.conns.is_empty())
    }

    /// One turn of the loop. See the module.
    ///
    /// # Errors
    /// If the ring is beyond use.
    pub fn tick(&mut self) -> io::Result<()> {
        self.turn()?;
        self.work();
        Ok(())
    }

    /// The first half of a tick, which sleeps. A simulated ring returns from it at once: the second half must wait until
    /// the sleep would be over.
    ///
    /// # Errors
    /// If the ring is beyond use.
    #[doc(hidden)]
    pub fn turn(&mut self) -> io::Result<()> {
        self.arm_accepts();
        self.receive_bulk();
        let wait = self.wait();
        self.ring.turn(self.hub.outbox.batch().map(batch_send), wait)
    }

    /// The second half of a tick.
    #[doc(hidden)]
    pub fn work(&mut self) {
        self.mailbox.unpark();
        self.now_ns = self.ring.now();
        self.hub.now_ns = self.now_ns;
        self.hub.outbox.set_now_ms(self.now_ms());
        if self.now_ns >= self.next_date_ns {
            self.renew_date();
        }
        self.service.begin_tick(self.now_ns);
        self.times = self.times();
        self.make_room();
        self.take_completions();
        self.settle();
        self.mind_memory();
        self.read_mail();
        self.handle_completions();
        self.resume();
        self.run_tasks();
        self.fire_timers();
        self.leave();
        self.tell_of_slowness();
        self.close_doomed();
        self.hub.post_mail(|core| self.ring.ring_doorbell(core));
        self.rearm_starved();
        self.say_what_is_held();
        self.service.end_tick();
        self.measure();
        self.mind_spares();
        debug_assert!(self.conns.len() > 64 || self.hub.invariants());
    }

    /// Once a second, and only where there is something to do.
    #[cold]
    fn renew_date(&mut self) {
        const SECOND_NS: u64 = 1_000_000_000;
        let unix_ns = self.ring.unix_ns();
        self.date = HttpDate::from_unix(unix_ns / SECOND_NS);
        self.next_date_ns = self.now_ns + SECOND_NS - unix_ns % SECOND_NS;
    }

    /// Takes down what the tick has cost.
    #[inline]
    fn measure(&mut self) {
        let counters = &mut self.hub.counters;
        counters.ticks += 1;
        counters.handling.add(self.ring.now().saturating_sub(self.now_ns));
        counters.bytes_out = self.hub.outbox.sent_bytes();
        let stats = self.ring.stats();
        counters.enters = stats.enters;
        counters.completions = stats.completions;
        counters.overflows = stats.overflows;
    }

    /// How long the next turn may sleep.
    fn wait(&mut self) -> Wait {
        // What is watched may be sent whole by this turn, and a send that succeeds wakes nobody. Nor does the end of a
        // congestion for which connections wait.
        let mail_flows_again = !self.congested.is_empty() && !self.hub.is_congested();
        if !self.resumable.is_empty()
            || !self.broken.is_empty()
            || !self.watched.is_empty()
            || mail_flows_again
            || self.hub.has_dooms()
            || self.hub.has_released()
            || self.hub.outbox.expects_fall()
            || self.must_look()
        {
            return Wait::No;
        }
        let accepts_later = self.accepts() && !self.accepts_wanted.is_empty() && self.accept_again_ms > 0;
        let accept_ms = accepts_later.then_some(self.accept_again_ms);
        // A mailbox that was full has to be tried again, although nobody will say when there is room in it.
        let congestion_ms = self.hub.is_congested().then(|| self.now_ms() + 1);
        let task_ms = self.service.next_due_ns().map(|due_ns| due_ns.div_ceil(1_000_000));
        let (timer_ms, leaving_ms, look_ms) = (self.timers.next_due_ms(), self.next_leaving_ms(), self.next_look_ms());
        let dues_ms = [timer_ms, self.next_spares_ms(), accept_ms, leaving_ms, congestion_ms, task_ms, look_ms];
        let due_ms = dues_ms.into_iter().flatten().min();
        if !self.mailbox.park() {
            return Wait::No;
        }
        if self.service.is_ready() {
            self.mailbox.unpark();
            return Wait::No;
        }
        due_ms.map_or(Wait::Forever, |due_ms| Wait::Until(due_ms.saturating_mul(1_000_000)))
    }

    fn now_ms(&self) -> u64 {
        self.now_ns / 1_000_000
    }

    /// Takes all completions off the ring, and handles at once what the batch's failures say: their bytes are in the arena
    /// only until it is settled, so none of them may stay behind.
    fn take_completions(&mut self) {
        while let Some(completion) = self.ring.failed_send(&mut self.completions) {
            self.sent_short(&completion);
        }
    }

    fn sent_short(&mut self, completion: &Completion) {
        let slot = completion.token.index();
        if !self.is_current(completion.token) {
            return;
        }
        let Ok(sent) = completion.sent() else {
            self.hub.outbox.send_failed(slot);
            return self.broken.push((slot, self.generations.of(slot)));
        };
        if let Some(rest) = self.hub.outbox.sent_short(slot, sent) {
            self.conns[slot as usize].in_flight += 1;
            self.ring.send(self.token(Op::Send, slot), rest);
            self.watch_write(slot);
        }
    }

    /// The batch is over: what it has sent is forgotten, and whoever waited for that goes on.
    fn settle(&mut self) {
        let spares = &mut self.hub.spares;
        self.hub.outbox.settle(|buffer| spares.give(buffer));
        for (slot, generation) in std::mem::take(&mut self.broken) {
            if self.generations.of(slot) == generation && self.conns.contains(slot as usize) {
                self.finish(slot, 1006, "the connection broke");
            }
        }
        let mut watched = std::mem::take(&mut self.watched);
        for slot in watched.drain(..) {
            if let Some(conn) = self.conns.get_mut(slot as usize) {
                conn.watched = false;
                if self.hub.outbox.is_empty(slot) {
                    self.flushed(slot);
                }
            }
        }
        if self.watched.is_empty() {
            self.watched = watched;
        }
    }

    /// Everything queued to a connection has been sent.
    fn flushed(&mut self, slot: u32) {
        let conn = &mut self.conns[slot as usize];
        match conn.phase {
            Phase::Flushing if conn.lingers && !conn.peer_finished => {
                let deadline_ms = self.now_ms() + LINGER_MS;
                self.conns[slot as usize].deadline_ms = deadline_ms;
                self.look_at(slot, deadline_ms);
            }
            Phase::Flushing => self.teardown(slot),
            Phase::Http | Phase::Open | Phase::Closing => {
                // Input that a task does not take yet waits for the task, not for the socket.
                if conn.waits_for == Some(WaitsFor::Outbox) && !self.hub.outbox.is_held(slot) {
                    self.resumable.push((slot, self.generations.of(slot)));
                }
                // The time that the peer took to read is not the time that it has to say something.
                match conn.phase {
                    Phase::Http if conn.waits_for.is_none() => self.give_time(slot),
                    Phase::Closing if !conn.hurried => self.await_close(slot),
                    _ => {}
                }
            }
            _ => {}
        }
    }

    /// Looks at a connection again when its outbox is empty, which it may be after the next turn.
    fn watch(&mut self, slot: u32) {
        let conn = &mut self.conns[slot as usize];
        if !conn.watched {
            conn.watched = true;
            self.watched.push(slot);
        }
    }

    fn read_mail(&mut self) {
        // As many as were there: what arrives meanwhile waits for the next tick.
        for _ in 0..self.mailbox.urgent_len() {
            let Some(letter) = self.mailbox.next_urgent() else { break };
            self.read_letter(letter);
        }
        for _ in 0..self.mailbox.len() {
            let Some(letter) = self.mailbox.next() else { break };
            self.read_letter(letter);
        }
        self.hub.close_without_senders();
        if !self.hub.is_congested() && !self.congested.is_empty() {
            reach(Mark::MailFlowsAgain);
            self.resumable.append(&mut self.congested);
        }
    }

    fn read_letter(&mut self, letter: Letter) {
        match self.hub.read(letter) {
            None => {}
            Some(Letter::Drain) => self.give_notice(),
            Some(_) => self.stop(),
        }
    }

    /// Runs the service's tasks, and does what they ask of the shard.
    fn run_tasks(&mut self) {
        let is_due = self.service.next_due_ns().is_some_and(|due_ns| due_ns <= self.now_ns);
        if is_due || self.service.is_ready() {
            let stand_in = self.stand_in.take().expect("it is here while the hub is");
            let mut lent = Some(std::mem::replace(&mut self.hub, stand_in));
            self.service.run_tasks(&mut lent);
            let hub = lent.expect("the hub is given back");
            self.stand_in = Some(std::mem::replace(&mut self.hub, hub));
        }
        self.service.take_answers(&mut self.answers);
        for (slot, generation, answer) in std::mem::take(&mut self.answers) {
            self.answer(slot, generation, answer);
        }
        if self.hub.has_released() {
            self.resumable.append(&mut self.hub.take_released());
        }
    }

    fn handle_completions(&mut self) {
        let mut completions = std::mem::take(&mut self.completions);
        for completion in completions.drain(..) {
            match completion.token.op() {
                Op::Recv => self.received(completion),
                Op::Send => self.sent(&completion),
                Op::Accept => self.accepted(&completion),
                Op::Close => self.descriptor_closed(completion.token),
                // The mail has been read already.
                Op::Doorbell => {}
                Op::RecvInto => self.received_direct(&completion),
                Op::SendNow | Op::Cancel | Op::Connect => {}
            }
        }
        self.completions = completions;
    }

    /// A waiting send is done.
    fn sent(&mut self, completion: &Completion) {
        let slot = completion.token.index();
        if !self.is_current(completion.token) {
            return;
        }
        self.conns[slot as usize].in_flight -= 1;
        if self.conns[slot as usize].phase == Phase::Dead {
            return self.free_if_done(slot);
        }
        let whole = completion.result.is_ok_and(|sent| sent as usize == self.hub.outbox.in_flight_bytes(slot));
        if !whole {
            return self.finish(slot, 1006, "the connection broke");
        }
        let spares = &mut self.hub.spares;
        match self.hub.outbox.sent_async(slot, |buffer| spares.give(buffer)) {
            Some(next) => {
                self.conns[slot as usize].in_flight += 1;
                self.ring.send(self.token(Op::Send, slot), next);
            }
            None if self.hub.outbox.is_empty(slot) => self.flushed(slot),
            None => {}
        }
    }

    fn rearm_starved(&mut self) {
        for (slot, generation) in std::mem::take(&mut self.starved) {
            if self.generations.of(slot) == generation {
                self.start_receiving(slot);
            }
        }
    }

    /// Arms a multishot receive where one is wanted and none is.
    fn start_receiving(&mut self, slot: u32) {
        let Some(conn) = self.conns.get_mut(slot as usize) else { return };
        if conn.receiving != Receiving::Idle || conn.waits_for.is_some() || conn.peer_finished {
            return;
        }
        if self.start_direct(slot) {
            return;
        }
        let conn = &mut self.conns[slot as usize];
        if let Phase::Http | Phase::Open | Phase::Closing | Phase::Flushing = conn.phase {
            conn.receiving = Receiving::Multi;
            conn.in_flight += 1;
            let had_bulk = std::mem::take(&mut conn.had_bulk);
            let share = if had_bulk { RECV_SHARE_AFTER_BULK } else { 1 };
            let bytes_max = (self.settings.recv_bytes_max / share).max(1);
            self.ring.recv_at_most(self.token(Op::Recv, slot), bytes_max);
        }
    }

    #[inline]
    fn token(&self, op: Op, slot: u32) -> Token {
        self.generations.token(op, slot)
    }

    /// Whether the connection that this token was made for is still the slot's.
    #[inline]
    fn is_current(&self, token: Token) -> bool {
        self.generations.is_current(token) && self.conns.contains(token.index() as usize)
    }

    /// WebSockets on this core.
    pub fn websockets(&self) -> u64 {
        self.hub.counters.opened - self.hub.counters.closed
    }

    /// The core's connections and rooms.
    pub fn hub(&mut self) -> &mut CoreHub {
        &mut self.hub
    }

    /// The ring, for simulations to look at.
    pub fn ring(&mut self) -> &mut R {
        &mut self.ring
    }

    /// The service, for simulations to look at.
    pub fn service(&mut self) -> &mut S {
        &mut self.service
    }

    /// Slots in use, those that wait for a connection included.
    pub fn slots_in_use(&self) -> usize {
        self.conns.len()
    }

    /// Slots in use by connections.
    pub fn connections(&self) -> usize {
        self.conns.len() - self.accepts_in_flight as usize
    }
}

/// However a core ends, what it has taken of the whole process's limits is free again: a core that fails takes no place
/// with it.
impl<R, S> Drop for Shard<R, S> {
    fn drop(&mut self) {
        for (_, conn) in &self.conns {
            match conn.phase {
                Phase::Accepting | Phase::Dead => {}
                _ if conn.entered => self.admission.leave(conn.peer.ip()),
                _ => self.admission.depart(conn.peer.ip()),
            }
        }
        let memory = self.admission.memory();
        if memory.is_limited() {
            memory.publish(self.core, 0);
            memory.forget(self.core);
        }
    }
}

const _: () = assert!(PIECES_MAX <= BATCH_PIECES_MAX);

#[inline]
fn batch_send(to_send: ToSend<'_>) -> BatchSend<'_> {
    let token = Token::new(Op::SendNow, to_send.generation, to_send.slot);
    let pieces = match to_send.bytes {
        Stretch::One(bytes) => Pieces::One(bytes),
        Stretch::Many(pieces) => Pieces::Many(pieces),
    };
    BatchSend { token, pieces }
}
