//! A seeded fake of the kernel: [`Ring`] implements the engine's trait over simulated sockets, so that whole cores run
//! in one thread, under faults, against a virtual clock.
//!
//! **The same seed gives the same run.** All chance comes from one generator, drawn from in the order of calls; all time
//! is [`World::now`], which moves only when the driver says so; nothing depends on addresses, hash order, threads or the
//! machine. A run is a function of the seed, the [`Faults`] and the calls made, and [`World::fingerprint`] is a digest of
//! everything that the cores were told: two runs with different digests took different ways. A driver that wants chance
//! of its own takes [`World::fork_rng`] at the start. A failing seed thus reproduces exactly, as long as neither the
//! driver nor the code under test asks anything but the world for time and chance.
//!
//! **The kernel's rules are asserted.** What would corrupt a stream or leak a buffer on the real ring panics here, where
//! the core makes the wrong call: two sends in flight for a slot, a receive armed twice, an operation on a closed slot, a
//! slot reused while something of it is in flight, a generation used again, a close over operations that were not
//! cancelled, a buffer recycled twice or not before the next turn, and so on. A panic is a bug of the caller, never of
//! the peer. Bytes of a recycled buffer are overwritten.
//!
//! **A driver** calls each core's tick in turn. [`Ring::turn`](super::Ring::turn) never blocks: where the real one would
//! sleep it returns with nothing and [`World::parked_until`] says until when. The driver must then leave that core alone
//! until [`World::runnable`], which is the moment at which the real call would return; so a core that tells others that it
//! sleeps must not take that back between the return of `turn` and its next look at completions, clock and mail. When
//! no core is runnable, [`World::next_wakeup`] says where to move the clock, or that all sleep for good.

mod buffers;
mod client;
mod faults;
mod kernel;
mod net;
mod ops;
mod ring;
mod rng;
mod rules;
mod socket;

#[cfg(test)]
mod connect_tests;
#[cfg(test)]
mod fault_tests;
#[cfg(test)]
mod rule_tests;
#[cfg(test)]
mod tests;

use std::cell::RefCell;
use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;

use super::{Nanos, Peer};

pub use client::{Client, Dial};
pub use faults::{Fault, FaultCounts, Faults};
pub use ring::Ring;
pub use rng::Rng;

use net::Net;
use rules::Core;
use socket::Socket;

/// Bytes that a socket holds in each direction, until told otherwise.
const WINDOW_BYTES: usize = 64 * 1024;

/// A bug planted in the fake: whoever checks what clients receive must notice each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutant {
    /// One send in ten loses a byte.
    LoseByte,
    /// One send in ten delivers a byte twice.
    DuplicateByte,
    /// One send in ten arrives after the next one of its connection.
    ReorderSends,
    /// A closed connection sends no FIN.
    ForgetFin,
    /// Direct descriptors on a kernel that closes them late.
    DirectThoughLate,
}

impl Mutant {
    /// Every mutant.
    pub const ALL: [Mutant; 5] =
        [Mutant::LoseByte, Mutant::DuplicateByte, Mutant::ReorderSends, Mutant::ForgetFin, Mutant::DirectThoughLate];
}

/// How a simulated ring is set up.
#[derive(Clone, Debug)]
pub struct RingOptions {
    /// Slots in the table of direct descriptors.
    pub slots: u32,
    /// Provided buffers.
    pub buffers: u16,
    /// Bytes in each provided buffer.
    pub buffer_bytes: u32,
    /// Whether the kernel fills a buffer in several stretches.
    pub incremental: bool,
    /// Whether multishot receives may be bounded.
    pub bounds_receives: bool,
    /// Whether the kernel keeps a closed direct descriptor's socket open until all older operations on any direct
    /// descriptor of the ring have ended (Linux before 6.13). The ring then has none, unless it is a [`Mutant`].
    pub closes_late: bool,
    /// Operations that can be queued before they are submitted unasked.
    pub sq_entries: u32,
    /// Completions shown at a time.
    pub cq_entries: u32,
    /// Listeners, numbered from 0.
    pub listeners: u32,
    /// The bug that this ring has.
    pub mutant: Option<Mutant>,
}

impl Default for RingOptions {
    /// A small ring: 64 slots, 32 buffers of 512 bytes, one listener.
    fn default() -> RingOptions {
        RingOptions {
            slots: 64,
            buffers: 32,
            buffer_bytes: 512,
            incremental: false,
            bounds_receives: true,
            closes_late: false,
            sq_entries: 256,
            cq_entries: 1024,
            listeners: 1,
            mutant: None,
        }
    }
}

/// Everything that is simulated. Clones are the same world.
#[derive(Clone)]
pub struct World {
    inner: Rc<RefCell<Inner>>,
}

struct Inner {
    seed: u64,
    net: Net,
    /// By number; `None` for numbers without a ring.
    cores: Vec<Option<Core>>,
}

impl Inner {
    fn core(&mut self, core: usize) -> (&mut Core, &mut Net) {
        match self.cores.get_mut(core) {
            Some(Some(found)) => (found, &mut self.net),
            _ => panic!("there is no core {core}"),
        }
    }

    /// Hands over the doorbells that core number `from` rang.
    fn deliver_doorbells(&mut self, from: usize) {
        let (ringer, _) = self.core(from);
        for target in std::mem::take(&mut ringer.rung) {
            let at = if self.net.hit(Fault::DoorbellLate) { self.net.later() } else { self.net.now };
            match self.cores.get_mut(target) {
                Some(Some(core)) if core.gone => {}
                Some(Some(core)) => {
                    let place = core.doorbells.partition_point(|&other| other <= at);
                    core.doorbells.insert(place, at);
                }
                _ => panic!("core {from} rings the doorbell of core {target}, which does not exist"),
            }
        }
    }
}

impl World {
    /// A world at time 0, with no cores.
    pub fn new(seed: u64, faults: Faults) -> World {
        let net = Net {
            now: 0,
            rng: Rng::new(seed),
            faults,
            counts: FaultCounts::default(),
            sockets: Vec::new(),
            dialled: VecDeque::new(),
            slots_reused: 0,
            fingerprint: 0xcbf2_9ce4_8422_2325,
            unended: None,
        };
        World { inner: Rc::new(RefCell::new(Inner { seed, net, cores: Vec::new() })) }
    }

    /// The seed that this world was made from.
    pub fn seed(&self) -> u64 {
        self.inner.borrow().seed
    }

    /// The ring of core number `core`.
    ///
    /// # Panics
    /// If that core has a ring.
    pub fn ring(&self, core: usize, options: RingOptions) -> Ring {
        let mut inner = self.inner.borrow_mut();
        if inner.cores.len() <= core {
            inner.cores.resize_with(core + 1, || None);
        }
        assert!(inner.cores[core].is_none(), "core {core} has a ring");
        let memory = vec![ring::POISON; options.buffers as usize * options.buffer_bytes as usize];
        inner.cores[core] = Some(Core::new(options));
        Ring::new(self.clone(), core, memory)
    }

    /// Connects to a listener of a core, from an address of its own. Where the core accepts no more, the client sees a
    /// reset.
    ///
    /// # Panics
    /// If there is no such core or listener.
    pub fn connect(&self, core: usize, listener: u32) -> Client {
        let n = self.inner.borrow().net.sockets.len();
        let address = Ipv4Addr::new(10, (n >> 16) as u8, (n >> 8) as u8, n as u8);
        self.connect_from(core, listener, Peer::Inet(SocketAddr::from((address, 40_000))))
    }

    /// [`World::connect`] from a given address.
    ///
    /// # Panics
    /// If there is no such core or listener.
    pub fn connect_from(&self, core: usize, listener: u32, peer: Peer) -> Client {
        let mut inner = self.inner.borrow_mut();
        let (core, net) = inner.core(core);
        let socket = net.sockets.len();
        net.sockets.push(Socket::new(peer, WINDOW_BYTES));
        let at = if net.hit(Fault::Postponed) { net.later() } else { net.now };
        let listener = core.listeners.get_mut(listener as usize).expect("connect to a listener that exists");
        if listener.open {
            // In order of arrival, however late each shows.
            let at = listener.pending.back().map_or(at, |&(_, before)| at.max(before));
            listener.pending.push_back((socket, at));
        } else {
            net.sockets[socket].break_both();
            net.sockets[socket].released = true;
        }
        drop(inner);
        Client { world: self.clone(), socket }
    }

    /// The next connection that a core has asked for. The core waits until it is answered.
    pub fn next_dial(&self) -> Option<Dial> {
        let (socket, address) = self.inner.borrow_mut().net.dialled.pop_front()?;
        Some(Dial { client: Client { world: self.clone(), socket }, address })
    }

    /// The clock that all cores share.
    pub fn now(&self) -> Nanos {
        self.inner.borrow().net.now
    }

    /// Moves the clock on; under [`Fault::ClockJump`] further than that.
    pub fn advance(&self, ns: Nanos) {
        let net = &mut self.inner.borrow_mut().net;
        net.now += ns;
        if net.hit(Fault::ClockJump) {
            net.now += net.rng.below(net.faults.clock_jump_ns_max.max(1));
        }
    }

    /// The earliest time at which some core has a completion, as far as is known now. Not in the past; `None` if nothing
    /// happens unless a client or a core does something.
    pub fn next_event(&self) -> Option<Nanos> {
        let inner = self.inner.borrow();
        let cores = inner.cores.iter().flatten().filter(|core| !core.gone);
        cores.filter_map(|core| core.next_event(&inner.net)).min()
    }

    /// When core number `core` has its next completion, as [`World::next_event`].
    ///
    /// # Panics
    /// If there is no such core.
    pub fn next_event_of(&self, core: usize) -> Option<Nanos> {
        let mut inner = self.inner.borrow_mut();
        let (core, net) = inner.core(core);
        core.next_event(net)
    }

    /// Until when the last turn of core number `core` sleeps, as long as nothing wakes it: [`Nanos::MAX`] for ever, `None`
    /// if it does not sleep.
    ///
    /// # Panics
    /// If there is no such core.
    pub fn parked_until(&self, core: usize) -> Option<Nanos> {
        self.inner.borrow_mut().core(core).0.parked_until
    }

    /// Whether core number `core` would be running now: its last turn did not sleep, or its sleep is over.
    ///
    /// # Panics
    /// If there is no such core.
    pub fn runnable(&self, core: usize) -> bool {
        let now = self.now();
        let due = |at: Option<Nanos>| at.is_some_and(|at| at <= now);
        self.parked_until(core).is_none() || due(self.parked_until(core)) || due(self.next_event_of(core))
    }

    /// The earliest time at which some core runs again: now, the next completion or the next deadline. `None` if all
    /// cores sleep until a client does something.
    pub fn next_wakeup(&self) -> Option<Nanos> {
        let inner = self.inner.borrow();
        let cores = inner.cores.iter().flatten().filter(|core| !core.gone);
        let wakeup = |core: &Core| {
            let parked = core.parked_until.map_or(inner.net.now, |until| until.max(inner.net.now));
            core.next_event(&inner.net).map_or(parked, |event| event.min(parked))
        };
        cores.map(wakeup).min().filter(|&at| at < Nanos::MAX)
    }

    /// The thread of core number `core` has ended, or would have: its listeners are closed, and nothing but a completion
    /// makes it run again.
    ///
    /// # Panics
    /// If there is no such core.
    pub fn thread_ended(&self, core: usize) {
        let mut inner = self.inner.borrow_mut();
        let (core, net) = inner.core(core);
        core.parked_until = Some(Nanos::MAX);
        core.close_listeners(net);
    }

    /// Other faults from here on; a driver switches them off to see everything come to rest.
    pub fn set_faults(&self, faults: Faults) {
        self.inner.borrow_mut().net.faults = faults;
    }

    /// How often each fault was injected so far.
    pub fn fault_counts(&self) -> FaultCounts {
        self.inner.borrow().net.counts.clone()
    }

    /// How often a connection got a slot that another had before.
    pub fn slots_reused(&self) -> u64 {
        self.inner.borrow().net.slots_reused
    }

    /// A generator for the driver's own chance, derived from the seed.
    pub fn fork_rng(&self) -> Rng {
        self.inner.borrow_mut().net.rng.fork()
    }

    /// A digest of everything that the cores were told so far.
    pub fn fingerprint(&self) -> u64 {
        self.inner.borrow().net.fingerprint
    }

    /// A connection that a core has closed and that has not ended for its peer, although that is ten times as long ago as
    /// anything is delayed, and nothing else is due on the core or many turns have passed. A socket that is closed ends for
    /// its peer, whatever others do: there is none such unless the ring is wrong, or the way in which it is used.
    pub fn unended(&self) -> Option<String> {
        let inner = self.inner.borrow();
        let cores = inner.cores.iter().flatten().filter(|core| !core.gone);
        inner.net.unended.clone().or_else(|| cores.filter_map(|core| core.unended(&inner.net)).next())
    }

    /// Verifies that core number `core` is at rest: every buffer given back, no descriptor open, nothing in flight (so
    /// accepting must have been stopped).
    ///
    /// # Panics
    /// If it is not, saying what is left.
    pub fn check_quiescent(&self, core: usize) {
        let mut inner = self.inner.borrow_mut();
        let seed = inner.seed;
        if let Some(what) = inner.core(core).0.unrest() {
            panic!("core {core} is not at rest (seed {seed}): {what}");
        }
    }
}

impl std::fmt::Debug for World {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let inner = self.inner.borrow();
        write!(f, "World(seed {}, {} ns, faults: {})", inner.seed, inner.net.now, inner.net.counts)
    }
}
