//! Whole cores on simulated rings: the real shard with an app, usually the stand-alone program's, mail between the cores,
//! and a service around it that checks that every connection that opens also closes, once.

use std::any::Any;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ringwire::admission::{Admission, Balance, Memory};
use ringwire::config::{Origins, SlowConsumer, TrustedProxies, UserAgents};
use ringwire::engine::sim::{Ring, RingOptions, World};
use ringwire::hub::IdKey;
use ringwire::hub::{CoreHub, DeflateSettings, Delivery, Known, Letter, Shutdown, Tally};
use ringwire::mail::{Courier, PostOffice, Wake};
use ringwire::outbox::Outbox;
use ringwire::proto::frame::Opcode;
use ringwire::proto::http::RequestHead;
use ringwire::proto::{Incoming, Limits, Spares};
use ringwire::remote::{CoreEnd, Hub};
use ringwire::shard::service::{Accept, Answer, Ended, Inbound, Reply, Serves, Service};
use ringwire::shard::{Handover, Settings, Shard};
use ringwire::{App, ConnectionId, Dropped, app, remote, standalone};

/// A clock of decompression: each look at it takes a microsecond.
fn clock_ns() -> u64 {
    thread_local!(static LOOKS: std::cell::Cell<u64> = const { std::cell::Cell::new(0) });
    LOOKS.with(|looks| looks.replace(looks.get() + 1) * 1_000)
}

/// How the cores are set up.
#[derive(Clone)]
pub struct Setup {
    pub cores: usize,
    pub ring: RingOptions,
    pub settings: Settings,
    pub outbox_bytes_max: usize,
    pub slow_consumer: SlowConsumer,
    pub mail_depth: usize,
    pub deflate: DeflateSettings,
    pub connections_max: u32,
    pub memory_bytes_max: u64,
    /// Made once for each core, as in a real server, but all of them in one thread.
    pub app: Rc<dyn Fn() -> App>,
}

impl Default for Setup {
    /// One core, the settings' usual values.
    fn default() -> Setup {
        let settings = Settings {
            limits: Limits { message_bytes_max: 1 << 20, fragments_max: 1024 },
            recv_bytes_max: 256 << 10,
            direct_bytes_min: 16 << 10,
            tick_bytes_max: 256 << 10,
            inflate_ns_per_tick: u64::MAX,
            inflate_bytes_min: 1,
            direct_interrupts: true,
            head_bytes_max: 16 << 10,
            body_bytes_max: 1 << 20,
            handshake_timeout: Duration::from_secs(10),
            keep_alive: Duration::from_secs(75),
            crowded_slots: 0,
            idle_timeout: Duration::from_secs(120),
            ping_interval: Duration::from_secs(30),
            write_timeout: Duration::from_secs(30),
            answer_timeout: Duration::from_secs(60),
            close_timeout: Duration::from_secs(5),
            message_rate_per_second: 0,
            pause_bytes: 256 << 10,
            deflate_skip: UserAgents::default(),
            origins: Origins::Any,
            websockets_max: u32::MAX,
            drain_notice: Duration::ZERO,
            drain_timeout: Duration::from_secs(10),
            drain_spread: Duration::from_secs(1),
            listeners: 1,
            entrances: Vec::new(),
            acceptors: Vec::new(),
            trusted_proxies: TrustedProxies::default(),
            handover: Handover::Close,
            admin_stays: false,
        };
        Setup {
            cores: 1,
            ring: RingOptions::default(),
            settings,
            outbox_bytes_max: 1 << 20,
            slow_consumer: SlowConsumer::Close,
            mail_depth: 1024,
            deflate: DeflateSettings::default(),
            connections_max: 1000,
            memory_bytes_max: 0,
            app: Rc::new(|| standalone::app(&ringwire::Config::default())),
        }
    }
}

/// The route `/direct`: told its own id, a client writes `to ID TEXT`.
const DIRECT: u16 = 100;

/// An app's service and the route `/direct`, and a record of what the shard made of both.
pub struct Watched {
    inner: Box<dyn Service>,
    open: BTreeMap<u32, ConnectionId>,
    /// Every connection that has ended, in order.
    pub ended: Vec<(ConnectionId, Ended)>,
    /// By slot, the number that whoever asked for a WebSocket gave itself with `?n=`, and by id once it is open.
    asking: BTreeMap<u32, usize>,
    now_ns: u64,
    clients: BTreeMap<ConnectionId, usize>,
    /// The ends of those that gave themselves a number: the number, and how long they were open, in nanoseconds.
    pub ends: Vec<(usize, ConnectionId, Ended, u64)>,
    /// The text of each message on `/direct`, and what became of it.
    pub asked: Vec<(String, oneshot::Receiver<Delivery>)>,
    /// Closes this many of the slots that follow a sender's own, itself included, when it says `close`.
    pub closes: u32,
}

impl Service for Watched {
    fn begin_tick(&mut self, now_ns: u64) {
        self.now_ns = now_ns;
        self.inner.begin_tick(now_ns);
    }

    fn end_tick(&mut self) {
        self.inner.end_tick();
    }

    fn take_wakes(&mut self, wake: &mut dyn FnMut(usize)) {
        self.inner.take_wakes(wake);
    }

    fn request(&mut self, hub: &mut CoreHub, slot: u32, generation: u32, inbound: &Inbound<'_, '_>) -> Answer {
        let number = inbound.head.query().and_then(|query| query.strip_prefix("n=")?.parse().ok());
        match number {
            Some(number) => self.asking.insert(slot, number),
            None => self.asking.remove(&slot),
        };
        if inbound.head.path() == "/direct" {
            return Answer::WebSocket(Accept { route: DIRECT, ..Accept::default() });
        }
        self.inner.request(hub, slot, generation, inbound)
    }

    fn refusal_of_head(&self, head: &RequestHead<'_>, serves: Serves) -> Option<Reply> {
        self.inner.refusal_of_head(head, serves)
    }

    fn open(&mut self, hub: &mut CoreHub, slot: u32, context: Option<Box<dyn Any>>) {
        let id = hub.id(slot);
        assert_eq!(self.open.insert(slot, id), None, "slot {slot} opened twice");
        if let Some(number) = self.asking.remove(&slot) {
            self.clients.insert(id, number);
        }
        if hub.route(slot) == DIRECT {
            hub.send(slot, Opcode::Text, format!("id {id}").as_bytes());
        } else {
            self.inner.open(hub, slot, context);
        }
    }

    fn message(&mut self, hub: &mut CoreHub, slot: u32, message: Incoming<'_>) {
        assert!(self.open.contains_key(&slot), "a message on slot {slot}, which is not open");
        if hub.route(slot) != DIRECT {
            return self.inner.message(hub, slot, message);
        }
        let text = String::from_utf8_lossy(&message.payload).into_owned();
        if text == "close" {
            return (slot..slot + self.closes).for_each(|slot| hub.close(slot, Some(1000), "asked to"));
        }
        let order = text.strip_prefix("to ").and_then(|rest| rest.split_once(' '));
        let Some((Ok(id), rest)) = order.map(|(id, rest)| (id.parse(), rest)) else {
            return hub.close(slot, Some(1008), "to ID TEXT");
        };
        let (tally, answer) = Tally::new();
        self.asked.push((rest.to_owned(), answer));
        hub.emit_to(id, Opcode::Text, rest.as_bytes(), Some(tally));
    }

    fn close(&mut self, hub: &mut CoreHub, slot: u32, ended: &Ended) {
        let id = hub.id(slot);
        assert_eq!(self.open.remove(&slot), Some(id), "slot {slot} closes what it did not open");
        // Whatever a last handler tries on its own connection must come to nothing.
        assert_eq!(hub.send(slot, Opcode::Text, b"too late"), ringwire::outbox::Queued::Gone);
        hub.close(slot, Some(1000), "too late");
        self.ended.push((id, ended.clone()));
        if let Some(number) = self.clients.remove(&id) {
            self.ends.push((number, id, ended.clone(), self.now_ns.saturating_sub(hub.opened_ns(slot))));
        }
        if hub.route(slot) != DIRECT {
            self.inner.close(hub, slot, ended);
        }
    }

    fn known(&mut self, hub: &mut CoreHub, known: &Known) {
        assert!(self.open.contains_key(&known.slot), "slot {}, which is not open, has joined something", known.slot);
        self.inner.known(hub, known);
    }

    fn dropped(&mut self, hub: &mut CoreHub, slot: u32, dropped: &Dropped) {
        assert!(self.open.contains_key(&slot), "slot {slot}, which is not open, has lost something");
        self.inner.dropped(hub, slot, dropped);
    }

    fn drained(&mut self, hub: &mut CoreHub, slot: u32, from_bytes: usize) {
        assert!(self.open.contains_key(&slot), "slot {slot}, which is not open, has drained");
        self.inner.drained(hub, slot, from_bytes);
    }

    fn inbox_bytes(&self) -> usize {
        self.inner.inbox_bytes()
    }

    fn inbox_bytes_of(&self, slot: u32) -> usize {
        self.inner.inbox_bytes_of(slot)
    }

    fn empty_inbox(&mut self, slot: u32) {
        self.inner.empty_inbox(slot);
    }

    fn run_tasks(&mut self, hub: &mut Option<Box<CoreHub>>) {
        self.inner.run_tasks(hub);
    }

    fn take_answers(&mut self, answers: &mut Vec<(u32, u32, Answer)>) {
        self.inner.take_answers(answers);
    }

    fn is_ready(&self) -> bool {
        self.inner.is_ready()
    }

    fn next_due_ns(&self) -> Option<u64> {
        self.inner.next_due_ns()
    }
}

/// One core.
pub struct Core {
    pub shard: Shard<Ring, Watched>,
    number: usize,
    world: World,
    /// In the middle of a tick: its turn sleeps.
    asleep: bool,
    bell: Arc<Bell>,
    /// Until its thread would have ended.
    end: Option<CoreEnd>,
}

/// What other threads wake a core with.
#[derive(Default)]
pub struct Bell(AtomicBool);

impl Bell {
    pub fn is_rung(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }

    pub fn silence(&self) {
        self.0.store(false, Ordering::SeqCst);
    }
}

impl Wake for Bell {
    fn wake(&self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

impl Core {
    /// Whether it runs now, as far as the ring, the clock and other threads' bells go.
    pub fn is_runnable(&self) -> bool {
        if self.is_stopped() {
            return false;
        }
        if self.shard.is_finished() {
            // Its thread would have ended. It only reads its mail, which would have gone with it.
            return self.world.next_event_of(self.number).is_some_and(|at| at <= self.world.now());
        }
        self.bell.is_rung() || self.world.runnable(self.number)
    }

    /// Whether its thread would have ended with operations in flight, which end with its ring.
    fn is_stopped(&self) -> bool {
        self.shard.is_finished() && self.shard.slots_in_use() > 0
    }

    /// Ends the tick that sleeps, and turns the ring once more.
    pub fn tick(&mut self) {
        self.bell.silence();
        if std::mem::take(&mut self.asleep) {
            self.work();
        }
        if self.is_stopped() {
            return;
        }
        self.shard.turn().expect("a ring that works");
        match self.world.parked_until(self.number) {
            Some(_) => self.asleep = true,
            None => self.work(),
        }
        if self.shard.is_finished() {
            self.world.thread_ended(self.number);
            self.end = None;
        }
    }

    /// Reads the mail of a core whose thread would have ended, and its mailbox with it: nobody must wait for room in it.
    fn discard_mail(&mut self) {
        if self.shard.is_finished() && !self.is_stopped() {
            self.shard.work();
        }
    }

    fn work(&mut self) {
        self.shard.work();
        // Where it has not asked itself.
        let has_asked = cfg!(debug_assertions) && self.shard.slots_in_use() <= 64;
        assert!(has_asked || self.shard.hub().invariants());
    }

    /// Verifies that nothing of any connection is left.
    pub fn check_over(&mut self) -> Result<(), String> {
        if !self.is_stopped() {
            // Bells that its last tick rang, and those of this one, which reads what is left of its mail.
            self.tick();
            self.shard.turn().expect("a ring that works");
        }
        let (slots, websockets) = (self.shard.slots_in_use(), self.shard.websockets());
        let open = self.shard.service().open.len();
        let backlog = self.shard.hub().outbox.backlog_bytes();
        if (slots, websockets, open, backlog) != (0, 0, 0, 0) {
            let number = self.number;
            return Err(format!(
                "core {number} keeps {slots} slots, {websockets} WebSockets, {open} open ones, {backlog} queued bytes"
            ));
        }
        let left = self.shard.hub().metrics();
        if (left.outbox_bytes, left.partial_bytes) != (0, 0) {
            return Err(format!("core {} still counts bytes: {left:?}", self.number));
        }
        self.world.check_quiescent(self.number);
        Ok(())
    }
}

/// All cores of a server.
pub struct Cores {
    pub all: Vec<Core>,
    pub courier: Courier<Letter>,
    pub hub: Hub,
    pub admission: Arc<Admission>,
}

impl Cores {
    pub fn new(world: &World, setup: &Setup) -> Cores {
        let ids = IdKey::default();
        let admission = Admission::new(setup.connections_max, 0, 0);
        let memory = Memory::new(setup.memory_bytes_max, setup.cores);
        let know_of_each_other = setup.ring.shared_listeners > 0 || setup.settings.admin_stays;
        let balance = if know_of_each_other { Balance::new(setup.cores) } else { Balance::default() };
        let admission = Arc::new(admission.with_memory(memory).with_balance(balance));
        let mut office = PostOffice::new(setup.cores, setup.mail_depth);
        let bells: Vec<Arc<Bell>> = (0..setup.cores).map(|_| Arc::default()).collect();
        let wakes = bells.iter().map(|bell| Arc::clone(bell) as Arc<dyn Wake>).collect();
        let courier = office.courier(wakes);
        let handle = remote::hub(courier.clone(), Arc::clone(&admission));
        let all = bells.iter().enumerate().map(|(number, bell)| {
            let (post, mailbox) = office.take(number);
            let outbox = Outbox::new(setup.outbox_bytes_max);
            let mut hub = CoreHub::new(ids.clone(), post, outbox, Spares::new(1 << 20), setup.slow_consumer);
            hub.spares.set_clock(clock_ns);
            hub.set_deflate(setup.deflate);
            let inner = Box::new(app::service((setup.app)(), &mut hub, handle.clone()));
            let service = Watched {
                inner,
                open: BTreeMap::new(),
                ended: Vec::new(),
                asking: BTreeMap::new(),
                now_ns: 0,
                clients: BTreeMap::new(),
                ends: Vec::new(),
                asked: Vec::new(),
                closes: 1,
            };
            let ring = world.ring(number, setup.ring.clone());
            let settings = setup.settings.clone();
            let shard = Shard::new(ring, service, hub, mailbox, Arc::clone(&admission), settings);
            let end = Some(remote::end_of(&handle, number));
            Core { shard, number, world: world.clone(), asleep: false, bell: Arc::clone(bell), end }
        });
        let all = all.collect();
        Cores { all, courier, hub: handle, admission }
    }

    /// Tells every core to drain, however full its mailbox is; false where it was: try again.
    pub fn drain(&self, core: usize) -> bool {
        self.courier.send(core, Shutdown::Drain { within: None }.into()).is_ok()
    }

    /// Whether some core waits for room in another's mailbox. Letters to cores that have ended are nobody's.
    pub fn is_congested(&mut self) -> bool {
        let is_congested = self.all.iter_mut().any(|core| core.shard.hub().is_congested());
        if is_congested {
            self.all.iter_mut().for_each(Core::discard_mail);
        }
        is_congested
    }

    pub fn is_any_runnable(&self) -> bool {
        self.all.iter().any(Core::is_runnable)
    }

    /// Whether no core has anything to do, be it later: letters may wait for room.
    pub fn are_idle(&mut self) -> bool {
        !self.is_any_runnable() && !self.is_congested()
    }

    /// Letters that cores have read.
    pub fn letters(&mut self) -> u64 {
        self.all.iter_mut().map(|core| core.shard.hub().counters.letters).sum()
    }

    /// What keeps the cores from being drained, for messages.
    pub fn state(&self) -> String {
        let state = |core: &Core| {
            let (finished, slots) = (core.shard.is_finished(), core.shard.slots_in_use());
            format!("core {}: finished {finished}, {slots} slots, runnable {}", core.number, core.is_runnable())
        };
        self.all.iter().map(state).collect::<Vec<_>>().join("; ")
    }

    pub fn is_drained(&self) -> bool {
        self.all.iter().all(|core| core.shard.is_finished() && core.shard.slots_in_use() == 0)
    }
}
