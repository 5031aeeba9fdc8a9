//! The cores of a test server: real shards with the app's own service, on simulated rings, ticked in one thread.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, Thread};

use crate::admission::Admission;
use crate::app::App;
use crate::app::serve::CoreApp;
use crate::config::Config;
use crate::engine::Ring as _;
use crate::engine::sim::{Ring, RingOptions, Rng, World};
use crate::hub::{IdKey, Letter};
use crate::mail::{PostOffice, Wake};
use crate::remote::{CoreEnd, Hub};
use crate::server;
use crate::shard::{Settings, Shard};

/// Most letters that wait for one core: so many fit into a test, and room for more costs more than the test.
const MAIL_DEPTH_MAX: usize = 1024;
/// Provided buffers of a core, likewise.
const BUFFERS_MAX: u16 = 64;

/// What other threads wake the cores with: they run on the test's own.
struct Bell {
    rung: AtomicBool,
    driver: Thread,
}

impl Wake for Bell {
    fn wake(&self) {
        self.rung.store(true, Ordering::SeqCst);
        self.driver.unpark();
    }
}

struct Core {
    shard: Shard<Ring, CoreApp>,
    number: usize,
    world: World,
    /// In the middle of a tick: its turn sleeps.
    asleep: bool,
    bell: Arc<Bell>,
    /// Until its thread would have ended.
    end: Option<CoreEnd>,
}

impl Core {
    /// Whether it runs now, as far as the ring, the clock and bells go.
    fn is_runnable(&self) -> bool {
        if self.is_stopped() {
            return false;
        }
        if self.shard.is_finished() {
            // Its thread would have ended. It only reads its mail, which would have gone with it.
            return self.world.next_event_of(self.number).is_some_and(|at| at <= self.world.now());
        }
        self.bell.rung.load(Ordering::SeqCst) || self.world.runnable(self.number)
    }

    /// Whether its thread would have ended with operations in flight, which end with its ring.
    fn is_stopped(&self) -> bool {
        self.shard.is_finished() && self.shard.slots_in_use() > 0
    }

    /// Ends the tick that sleeps, and turns the ring once more.
    fn tick(&mut self) {
        self.bell.rung.store(false, Ordering::SeqCst);
        if std::mem::take(&mut self.asleep) {
            self.shard.work();
        }
        if self.is_stopped() {
            return;
        }
        self.shard.turn().expect("a simulated ring works");
        match self.world.parked_until(self.number) {
            Some(_) => self.asleep = true,
            None => self.shard.work(),
        }
        if self.shard.is_finished() {
            self.world.thread_ended(self.number);
            self.end = None;
        }
    }
}

/// All cores of a server.
pub(super) struct Cores {
    all: Vec<Core>,
    pub(super) hub: Hub,
}

impl Cores {
    /// Makes the app once for each core.
    pub(super) fn new(world: &World, config: &Config, cores: usize, slots: u32, app: &dyn Fn() -> App) -> Cores {
        let ids = IdKey::seeded(world.seed());
        let admission: Arc<Admission> = Arc::new(server::admission(config, cores));
        let mut office = PostOffice::<Letter>::new(cores, (config.mail_depth as usize).min(MAIL_DEPTH_MAX));
        let bell = || Arc::new(Bell { rung: AtomicBool::new(false), driver: thread::current() });
        let bells: Vec<Arc<Bell>> = (0..cores).map(|_| bell()).collect();
        let wakes = bells.iter().map(|bell| Arc::clone(bell) as Arc<dyn Wake>).collect();
        let hub = Hub::new(office.courier(wakes), Arc::clone(&admission));
        let options = RingOptions {
            slots,
            buffers: config.recv_buffers.min(BUFFERS_MAX),
            buffer_bytes: config.recv_buffer_bytes,
            sq_entries: config.ring_entries,
            cq_entries: config.cq_entries,
            ..RingOptions::default()
        };
        let all = bells.into_iter().enumerate().map(|(number, bell)| {
            let (post, mailbox) = office.take(number);
            let mut core_hub = server::core_hub(config, ids.clone(), post);
            let service = CoreApp::new(app(), &mut core_hub, hub.clone());
            service.share_thread();
            let ring = world.ring(number, options.clone());
            let settings = server::settings(config, 1, options.buffer_bytes, ring.bounds_receives());
            let settings = Settings { websockets_max: server::parts::websockets_max(slots), ..settings };
            let shard = Shard::new(ring, service, core_hub, mailbox, Arc::clone(&admission), settings);
            Core { shard, number, world: world.clone(), asleep: false, bell, end: Some(hub.end_of(number)) }
        });
        let all = all.collect();
        Cores { all, hub }
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    /// Ticks each core that is to run now once, in an order that chance chooses; false if there is none.
    pub(super) fn run(&mut self, rng: &mut Rng) -> bool {
        let mut due: Vec<usize> = (0..self.all.len()).filter(|&core| self.all[core].is_runnable()).collect();
        if due.is_empty() {
            return false;
        }
        rng.shuffle(&mut due);
        due.iter().for_each(|&core| self.all[core].tick());
        self.discard_mail();
        true
    }

    /// Reads the mail of cores whose threads would have ended, and their mailboxes with them: nobody must wait for room there.
    fn discard_mail(&mut self) {
        if self.all.iter().any(|core| core.shard.is_finished())
            && self.all.iter_mut().any(|core| core.shard.hub().is_congested())
        {
            let finished = self.all.iter_mut().filter(|core| core.shard.is_finished() && !core.is_stopped());
            finished.for_each(|core| core.shard.work());
        }
    }

    /// Tells all of them to drain.
    pub(super) fn drain(&self) {
        self.hub.shutdown();
    }

    /// Whether every core has ended.
    pub(super) fn are_finished(&self) -> bool {
        self.all.iter().all(|core| core.shard.is_finished())
    }

    /// Has whoever waits for a core on this thread be told that it cannot.
    pub(super) fn share_thread(&mut self) {
        if let Some(core) = self.all.first_mut() {
            core.shard.service().share_thread();
        }
    }
}
