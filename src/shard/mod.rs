//! One core: its tick, and the lives of its connections. Generic over [`Ring`], so that the whole of it also runs on the
//! simulated one, and over [`Service`](service::Service), what is built on it.
//!
//! In come completions from the ring, letters from other cores and threads through the mailbox, and time, read from the ring
//! once a tick. Out go operations to the ring, calls of the service's handlers, and letters through the hub. It never knows
//! what a message or a path means, what a handler does, any clock but its ring's, or another core's connections.
//!
//! Whoever drives it calls [`Shard::tick`] until [`Shard::is_finished`], or [`Shard::run`], which does; a simulation calls the
//! two halves of a tick, [`Shard::turn`], which sleeps, and [`Shard::work`], when the sleep is over. Between ticks anybody may
//! write letters; nothing else reaches a shard.
//!
//! A tick, in this order: submit what the last tick queued and wait; take the completions; settle the sends of the batch;
//! read the mail; answer the joins that are known to all now; run parser and handlers over what was received; fire due timers; tell handlers who does not keep up; close
//! the doomed; ring other cores' bells. The mail comes before the handlers so that what a core was told before a message
//! arrived is known when the message is handled. Of much that was received a tick handles only a part, and the next one goes
//! on: what is handled at once is still in the processor's cache when it is sent. Nothing in a tick blocks, and nothing
//! allocates per message once warm.
//!
//! All parts use the ring, the service, the hub, the mailbox, what the process admits, the settings, the connections and the
//! clock. The rest of a core is each one part's:
//!
//! | part | owns | does |
//! | --- | --- | --- |
//! | `clock` | `clock` | what time it is, as of this tick |
//! | `conn` | one connection's state | its phases, and which may follow which |
//! | `life` | `accepting` | accepts, deadlines, closing, the end |
//! | `timers` | `timers` | when to look at whom |
//! | `intake` | `intake` | what the ring has brought, and whose turn it is to bring more |
//! | `input`, `direct` | | receives, and bytes to messages |
//! | `requests` | | bytes to requests, answers, upgrades |
//! | `proxied` | | who is behind a proxy |
//! | `gate` | `waiting` | whether input may be handled now: the only way to its handlers |
//! | `tasks` | `tasks` | what runs beside handlers, to whom the hub is lent |
//! | `wire`, `lines` | `wires` | TLS: what leaves is sealed, what arrives opened |
//! | `sending` | `sending` | the batch, what sockets refuse, how long they may |
//! | `memory` | `minding` | who is shed when the budget is spent |
//! | `log` | `floods` | what the log says of connections and requests |
//! | `spares` | `spares` | what is given back to the system |
//! | `drain` | `leaving` | notice, drain, end |
//!
//! Invariants: a slot is freed only when no operation of it is in flight; at most one receive and one waiting send are in
//! flight for a slot; a socket is closed only after what was queued to it before has been sent, unless it is broken or its
//! time is up; what is kept from one tick to another names connections by their keys.
//!
//! Knows of this crate: `admission`, `config`, `engine`, `guard`, `hub`, `mail`, `marks`, `metrics`, `outbox`, `proto`,
//! `quote`, `tls`.

mod clock;
mod conn;
mod direct;
mod drain;
mod gate;
mod input;
mod intake;
mod life;
mod lines;
mod log;
mod memory;
mod proxied;
mod requests;
mod sending;
pub mod service;
mod settings;
mod spares;
mod tasks;
mod timers;
mod wire;

use std::io;
use std::sync::Arc;

use crate::admission::Admission;
use crate::engine::{Key, Ring, Slots, Wait};
use crate::hub::{CoreHub, Letter, Shutdown};
use crate::mail::Mailbox;
use crate::marks::{Mark, reach};
use crate::shard::service::Service;
use clock::Clock;
use conn::{Conn, Phase};
use drain::Leaving;
use gate::Waiting;
use intake::Intake;
use life::Accepting;
use lines::Wires;
use log::Floods;
use memory::Minding;
use sending::Sending;
use spares::Spares;
use tasks::Tasks;
use timers::Timers;

pub use settings::{Entrance, Handover, Settings};

/// How long to wait before accepting again when the process is out of descriptors or memory.
const ACCEPT_BACKOFF_MS: u64 = 100;
/// Input held back for a paused connection before its receive is cancelled.
const STASH_BYTES_MAX: usize = 64 << 10;
/// How long a peer that broke the protocol has to read our answer before the socket is closed.
const LINGER_MS: u64 = 500;

/// One core. See the module.
pub struct Shard<R, S> {
    // What all parts use.
    ring: R,
    service: S,
    hub: Box<CoreHub>,
    mailbox: Mailbox<Letter>,
    admission: Arc<Admission>,
    settings: Settings,
    conns: Slots<Conn>,
    clock: Clock,
    // What one part owns.
    accepting: Accepting,
    leaving: Leaving,
    timers: Timers,
    intake: Intake,
    waiting: Waiting,
    tasks: Tasks,
    wires: Wires,
    sending: Sending,
    minding: Minding,
    spares: Spares,
    floods: Floods,
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
        if log::wants_connections() {
            hub.traffic.start();
        }
        Shard {
            clock: Clock::new(ring.now()),
            accepting: Accepting::new(slots, settings.listeners),
            leaving: Leaving::No,
            timers: Timers::default(),
            intake: Intake::default(),
            waiting: Waiting::default(),
            tasks: Tasks::new(hub.core()),
            wires: Wires::default(),
            sending: Sending::default(),
            minding: Minding::default(),
            spares: Spares::default(),
            floods: Floods::new(),
            ring,
            service,
            hub: Box::new(hub),
            mailbox,
            admission,
            settings,
            conns: Slots::for_a_core(slots),
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
        self.tell_last_limits();
        Ok(())
    }

    /// Submits what the last tick queued: descriptors to close, and bells of cores that are to read its letters.
    fn submit_last(&mut self) {
        self.seal_batch();
        if let Err(error) = self.turn_ring(Wait::No) {
            tracing::debug!(%error, "the last submission failed");
        }
    }

    /// Whether there is nothing left to do: stopped, or drained to the last connection.
    pub fn is_finished(&self) -> bool {
        self.has_stopped() || (!self.accepts_anybody() && self.conns.is_empty())
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
        self.seal_batch();
        let wait = self.wait();
        self.turn_ring(wait)
    }

    fn turn_ring(&mut self, wait: Wait) -> io::Result<()> {
        let CoreHub { outbox, traffic, .. } = &mut *self.hub;
        let batch = outbox.batch().inspect(|to_send| {
            if let Some(tallied) = traffic.of(to_send.slot) {
                tallied.offer(to_send.bytes_len());
            }
        });
        let wires = &self.wires;
        let plain = batch.filter(|to_send| !wires.has_line(to_send.slot)).map(lines::plain);
        self.ring.turn(plain.chain(wires.sends()), wait)
    }

    /// The second half of a tick.
    #[doc(hidden)]
    pub fn work(&mut self) {
        self.mailbox.unpark();
        self.clock.read(&self.ring);
        self.hub.now_ns = self.clock.now_ns;
        self.hub.outbox.set_now_ms(self.now_ms());
        self.service.begin_tick(self.clock.now_ns);
        self.clock.times = self.times();
        self.make_room();
        self.take_completions();
        self.settle();
        self.mind_memory();
        self.read_mail();
        self.tell_of_changes();
        self.resume_inflating();
        self.handle_completions();
        self.go_on_with_handshakes();
        self.resume();
        self.run_tasks();
        self.fire_timers();
        self.leave();
        self.tell_of_slowness();
        self.close_doomed();
        self.post_mail();
        self.mailbox.tell_of_room(|core| self.hub.wake(core, |core| self.ring.ring_doorbell(core)));
        self.rearm_starved();
        self.say_what_is_held();
        self.service.end_tick();
        self.wake_others();
        self.measure();
        self.mind_spares();
        self.tell_of_limits();
        debug_assert!(self.conns.len() > 64 || self.hub.invariants());
    }

    /// Takes down what the tick has cost.
    #[inline]
    fn measure(&mut self) {
        let counters = &mut self.hub.counters;
        counters.ticks += 1;
        counters.handling.add(self.ring.now().saturating_sub(self.clock.now_ns));
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
        let mail_flows_again = !self.waiting.congested.is_empty() && !self.hub.is_congested();
        if !self.intake.completions.is_empty()
            || !self.waiting.resumable.is_empty()
            || !self.waiting.inflating.is_empty()
            || !self.sending.broken.is_empty()
            || !self.sending.watched.is_empty()
            || mail_flows_again
            || self.hub.has_dooms()
            || self.hub.has_released()
            || self.hub.has_done()
            || self.hub.ends_read() > 0
            || self.hub.outbox.expects_fall()
            || self.must_look()
            || self.wires.must_go_on()
        {
            return Wait::No;
        }
        let accept_ms = if self.accepts_anybody() { self.accepting.next_due_ms() } else { None };
        let (timer_ms, leaving_ms, look_ms) = (self.timers.next_due_ms(), self.next_leaving_ms(), self.next_look_ms());
        let dues_ms =
            [timer_ms, self.next_spares_ms(), accept_ms, leaving_ms, self.next_task_ms(), look_ms, self.next_told_ms()];
        let place_ms = self.wires.next_place_ms();
        let due_ms = dues_ms.into_iter().chain([place_ms]).flatten().min();
        if !self.mailbox.park() {
            return Wait::No;
        }
        if self.service.is_ready() || self.hub.is_told_of_room() {
            self.mailbox.unpark();
            return Wait::No;
        }
        due_ms.map_or(Wait::Forever, |due_ms| Wait::Until(due_ms.saturating_mul(1_000_000)))
    }

    fn now_ms(&self) -> u64 {
        self.clock.now_ms()
    }

    fn read_mail(&mut self) {
        // As many as were there: what arrives meanwhile waits for the next tick. Whatever came before one of these urgent
        // letters is among these letters, and takes no effect after it.
        let urgent = self.mailbox.urgent_len();
        let letters = self.mailbox.len();
        self.read_urgent(urgent);
        let ends = self.hub.ends_read();
        // And whatever is urgent and was written before one of these letters is read before it.
        self.read_urgent(self.mailbox.urgent_len());
        for _ in 0..letters {
            let Some(letter) = self.mailbox.next() else { break };
            self.read_letter(letter);
            // What follows in the mail comes behind what the history says.
            if self.hub.has_recovered() {
                self.tell_of_changes();
            }
        }
        self.hub.take_effect(ends);
        if !self.hub.is_congested() && !self.waiting.congested.is_empty() {
            reach(Mark::MailFlowsAgain);
            self.waiting.resumable.append(&mut self.waiting.congested);
        }
    }

    /// Rings the bells of cores that sleep and have letters.
    fn post_mail(&mut self) {
        let mut bells = 0;
        self.hub.post_mail(|core| {
            bells += 1;
            self.ring.ring_doorbell(core);
        });
        self.hub.counters.bells += bells;
    }

    /// And of those that sleep and have something ready.
    fn wake_others(&mut self) {
        let (hub, ring, mut bells) = (&self.hub, &mut self.ring, 0);
        self.service.take_wakes(&mut |core| {
            hub.wake(core, |core| {
                bells += 1;
                ring.ring_doorbell(core);
            });
        });
        self.hub.counters.bells += bells;
    }

    fn read_urgent(&mut self, count: usize) {
        for _ in 0..count {
            let Some(letter) = self.mailbox.next_urgent() else { break };
            self.read_letter(letter);
        }
    }

    /// Answers the joins and leaves that are known to all now.
    fn tell_of_changes(&mut self) {
        while let Some(known) = self.hub.next_done() {
            if self.conns.is_taken(known.slot) && self.conns[known.slot].entered {
                self.service.known(&mut self.hub, &known);
            }
        }
        self.resume_released();
    }

    /// Goes on with whom the hub has released.
    fn resume_released(&mut self) {
        if self.hub.has_released() {
            let released = self.hub.take_released();
            self.waiting.resumable.extend(released.into_iter().map(|(slot, generation)| Key::new(slot, generation)));
        }
    }

    fn read_letter(&mut self, letter: Letter) {
        match self.hub.read(letter) {
            None => {}
            Some(Shutdown::Drain { within }) => self.drain_within(within),
            Some(Shutdown::Stop) => self.stop(),
        }
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
        self.conns.len() - self.accepting.in_flight as usize
    }
}

/// However a core ends, what it has taken of the whole process's limits is free again: a core that fails takes no place
/// with it.
impl<R, S> Drop for Shard<R, S> {
    fn drop(&mut self) {
        for (_, conn) in self.conns.iter() {
            match conn.phase {
                Phase::Accepting | Phase::Dead => {}
                _ if conn.entered => self.admission.leave(conn.peer.ip()),
                _ if conn.counted => self.admission.depart(conn.peer.ip()),
                _ => {}
            }
        }
        self.admission.balance().publish(self.hub.core(), None);
        self.admission.balance().set_drained(self.hub.core());
        (0..self.wires.places()).for_each(|_| self.admission.end_handshake());
        let memory = self.admission.memory();
        if memory.is_limited() {
            memory.publish(self.hub.core(), 0);
            memory.forget(self.hub.core());
        }
    }
}
