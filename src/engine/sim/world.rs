//! Everything that is simulated, and its clock.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;

use crate::engine::Nanos;

use super::faults::{Fault, FaultCounts, Faults};
use super::net::Net;
use super::rng::Rng;
use super::rules::Core;

/// Everything that is simulated. Clones are the same world.
#[derive(Clone)]
pub struct World {
    pub(super) inner: Rc<RefCell<Inner>>,
}

pub(super) struct Inner {
    seed: u64,
    pub(super) net: Net,
    /// By number; `None` for numbers without a ring.
    pub(super) cores: Vec<Option<Core>>,
}

impl Inner {
    pub(super) fn core(&mut self, core: usize) -> (&mut Core, &mut Net) {
        match self.cores.get_mut(core) {
            Some(Some(found)) => (found, &mut self.net),
            _ => panic!("there is no core {core}"),
        }
    }

    /// Hands over the doorbells that core number `from` rang.
    pub(super) fn deliver_doorbells(&mut self, from: usize) {
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
            shared: Vec::new(),
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

    /// The clock that all cores share.
    pub fn now(&self) -> Nanos {
        self.inner.borrow().net.now
    }

    /// Moves the clock on; under [`Fault::ClockJump`] further than that.
    pub fn advance(&self, ns: Nanos) {
        let mut inner = self.inner.borrow_mut();
        let net = &mut inner.net;
        net.now += ns;
        if net.hit(Fault::ClockJump) {
            net.now += net.rng.below(net.faults.clock_jump_ns_max.max(1));
        }
        inner.wake_accepts();
    }

    /// The earliest time at which some core has a completion, as far as is known now. Not in the past; `None` if nothing
    /// happens unless a client or a core does something.
    pub fn next_event(&self) -> Option<Nanos> {
        let inner = self.inner.borrow();
        let cores = inner.cores.iter().flatten().filter(|core| !core.gone);
        cores.filter_map(|core| core.next_event(&inner.net)).chain(inner.net.next_wake()).min()
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
        cores.map(wakeup).chain(inner.net.next_wake()).min().filter(|&at| at < Nanos::MAX)
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
