//! Starts the cores and ends them.
//!
//! Knows of this crate: `admission`, `app`, `config`, `engine`, `error`, `hub`, `machine`, `mail`, `outbox`, `proto`,
//! `remote`, `shard`.

pub mod listen;
mod nofile;

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::sys::signal::{SigSet, Signal};
use nix::unistd::Pid;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::admission::{Admission, Memory};
use crate::app::App;
use crate::app::serve::CoreApp;
use crate::config::{Config, available_cpus};
use crate::engine::bell::Bell;
use crate::engine::uring::{Options, Uring};
use crate::engine::{Descriptors, Ring as _};
use crate::error::{Error, Result};
use crate::hub::IdKey;
use crate::hub::{CoreHub, Letter};
use crate::machine;
use crate::mail::{MailError, Mailbox, Post, PostOffice, Wake};
use crate::outbox::Outbox;
use crate::proto::{Limits, Spares};
use crate::remote::Hub;
use crate::server::listen::{BoundAddress, SocketFile};
use crate::shard::service::Service;
use crate::shard::{Handover, Settings, Shard};

/// Slots beyond the allowed WebSockets, so that those over the limit can be told so; of a small table an eighth.
const SPARE_SLOTS: u32 = 256;
/// How long a start that has failed waits for its other cores.
const ABANDONED_AFTER: Duration = Duration::from_secs(1);
/// Memory that a core keeps for assembling messages.
const POOL_BYTES: usize = 16 << 20;
/// Bytes that one arming of a receive brings: a quarter of what stays in the cache.
const RECV_BYTES_MAX: u32 = 256 << 10;
/// Payload bytes to come from which it pays to receive straight into a message's own buffer.
const DIRECT_BYTES_MIN: usize = 128 << 10;
/// Buffers of this size are large: where a receive cannot be bounded, to cancel it costs more than it saves.
const LARGE_BUFFER_BYTES: u32 = 16 << 10;
/// With incremental consumption buffers are this large at least: a 16 KiB message then comes in one piece.
const INCREMENTAL_BUFFER_BYTES: u32 = 64 << 10;

/// A server that has not been started.
#[derive(Clone, Debug)]
pub struct Server {
    config: Config,
}

impl Server {
    /// A server with these settings.
    pub fn new(config: Config) -> Server {
        Server { config }
    }

    /// A server with the settings of the environment's `RINGWIRE_*` variables.
    ///
    /// # Errors
    /// If a variable has a bad value, or there is no setting of that name.
    pub fn from_env() -> Result<Server> {
        Ok(Server { config: Config::from_env()? })
    }

    /// Serves an app until SIGTERM or SIGINT, then drains; a second signal ends the process at once. `make` runs once on
    /// each core. Raises the limit of open files, as [`Server::start`] does.
    ///
    /// # Errors
    /// If the server cannot be started, or a core fails.
    pub fn run(self, make: impl Fn() -> App + Send + Sync + 'static) -> Result<()> {
        self.run_service(move |hub, handle| CoreApp::new(make(), hub, handle), |_| {})
    }

    /// As [`Server::run`]; `started` is called once all cores accept connections.
    ///
    /// # Errors
    /// If the server cannot be started, or a core fails.
    pub fn run_with(self, make: impl Fn() -> App + Send + Sync + 'static, started: impl FnOnce(&Handle)) -> Result<()> {
        self.run_service(move |hub, handle| CoreApp::new(make(), hub, handle), started)
    }

    /// Starts an app and returns once all cores accept connections. `make` runs once on each core.
    ///
    /// The soft limit of open files (RLIMIT_NOFILE) is raised to the hard one, for the whole process: a core's
    /// connections lie in a table of its ring, which the kernel allows to be as large as the soft limit; before Linux
    /// 6.13 they are descriptors of the process, of which each core has an equal part. Where the hard limit is too low
    /// for [`Config::connections_max`](crate::Config), a warning says so, and a core answers upgrades with 503 as soon
    /// as its table has room for no more.
    ///
    /// # Errors
    /// If an address cannot be listened on, or io_uring cannot be used, or `make` panics.
    pub fn start(self, make: impl Fn() -> App + Send + Sync + 'static) -> Result<Handle> {
        self.start_service(move |hub, handle| CoreApp::new(make(), hub, handle))
    }

    /// Serves until SIGTERM or SIGINT, then drains; a second signal ends the process at once. `make` runs once on each
    /// core.
    ///
    /// # Errors
    /// If the server cannot be started, or a core fails.
    #[doc(hidden)]
    pub fn run_service<S: Service>(
        self,
        make: impl Fn(&mut CoreHub, Hub) -> S + Send + Sync + 'static,
        started: impl FnOnce(&Handle),
    ) -> Result<()> {
        let mut signals = Signals::new([SIGTERM, SIGINT]).map_err(Error::io("taking signals"))?;
        // The cores inherit this and are not interrupted. Threads that an embedder started before may still get them.
        let blocked = SigSet::from_iter([Signal::SIGTERM, Signal::SIGINT]);
        blocked.thread_block().map_err(|errno| Error::io("blocking signals")(errno.into()))?;
        let (hub_in, hub) = mpsc::channel::<Hub>();
        let taken = signals.handle();
        let spawned = thread::Builder::new().name("ringwire-signals".into()).spawn(move || {
            if let Err(error) = blocked.thread_unblock() {
                tracing::error!(%error, "signals cannot be unblocked");
            }
            let mut signals = signals.forever();
            if let Some(signal) = signals.next() {
                // As long as apps are being made there is nothing to drain, and perhaps something that hangs.
                let Ok(hub) = hub.try_recv() else { std::process::exit(128 + signal) };
                tracing::info!(signal, "draining");
                tell_all(&hub, || Letter::Drain);
            }
            if let Some(signal) = signals.next() {
                std::process::exit(128 + signal);
            }
        });
        spawned.map_err(Error::io("starting the signal thread"))?;
        let handle = self.start_service(make).inspect_err(|_| taken.close())?;
        // The thread has it before anybody can know that the server has started.
        let _ = hub_in.send(handle.hub.clone());
        started(&handle);
        handle.join()
    }

    /// Starts the cores and returns once all of them accept connections. `make` runs once on each core.
    ///
    /// # Errors
    /// If an address cannot be listened on, or io_uring cannot be used.
    #[doc(hidden)]
    pub fn start_service<S: Service>(
        self,
        make: impl Fn(&mut CoreHub, Hub) -> S + Send + Sync + 'static,
    ) -> Result<Handle> {
        let config = Arc::new(self.config);
        config.validate()?;
        let available = available_cpus().map_err(Error::io("reading the processor affinity"))?;
        let limits = machine::Limits::of_this_process();
        let usable = config.usable_cpus(&available, limits.cores(available.len()));
        let cpus = config.cpus(usable)?;
        let is_part = usable.len() < available.len();
        if let (true, Some(quota)) = (is_part, limits.processors) {
            let cores = cpus.len();
            tracing::info!(
                quota,
                cores,
                "as many cores as the CPU quota can keep busy, not pinned: RINGWIRE_CORES is all"
            );
        }
        if let Err(error) = nofile::raise() {
            tracing::warn!(%error, "the soft limit of open files stays");
        }
        let listeners = listen::bind_all(&config, cpus.len())?;
        let handover = match (listeners.are_passed, config.reuse_port) {
            (true, _) => Handover::Leave,
            (false, true) => Handover::Share,
            (false, false) => Handover::Close,
        };
        let make = Arc::new(make);
        let admission =
            Admission::new(config.connections_max, config.connections_per_ip_max, config.accept_rate_per_second)
                .with_memory(Memory::new(config.memory_bytes_max as u64, cpus.len()));
        let admission = Arc::new(admission);
        let ids = IdKey::default();
        let mut office = PostOffice::new(cpus.len(), config.mail_depth as usize);
        let (news_in, news) = crossbeam_channel::unbounded();
        let (go, gone) = crossbeam_channel::unbounded();
        let mut threads = Vec::new();
        let mut bells_out = Vec::new();
        for (core, (cpu, fds)) in cpus.iter().copied().zip(listeners.per_core).enumerate() {
            let (post, mailbox) = office.take(core);
            let (bells_in, bells) = mpsc::channel::<(Vec<Arc<Bell>>, Hub)>();
            bells_out.push(bells_in);
            let start = CoreStart {
                core,
                cores: cpus.len() as u32,
                // On whichever processors the quota is spent: others may be on the first ones too.
                pin: (config.pin && !is_part).then_some(cpu),
                config: Arc::clone(&config),
                admission: Arc::clone(&admission),
                ids: ids.clone(),
                post,
                mailbox,
                bells,
                go: gone.clone(),
                news: news_in.clone(),
                handover,
            };
            let (make, news) = (Arc::clone(&make), news_in.clone());
            let thread = thread::Builder::new()
                .name(format!("ringwire-{core}"))
                .spawn(move || {
                    // However a core ends, whoever waits for it is told.
                    let ended = catch_unwind(AssertUnwindSafe(|| start.run(fds, &*make))).unwrap_or_else(|panic| {
                        Err(Error::Internal(format!("core {core} panicked: {}", panic_message(&*panic))))
                    });
                    let _ = news.send((core, News::Ended(ended)));
                })
                .map_err(Error::io("starting a core's thread"))?;
            threads.push(thread);
        }
        drop((gone, news_in));
        let introduce = || {
            let mut bells: Vec<Option<Arc<Bell>>> = vec![None; cpus.len()];
            let mut room = 0;
            let mut are_plain = false;
            for _ in &cpus {
                if let (core, News::Ring { bell, slots, descriptors }) = next_step(&news)? {
                    bells[core] = Some(bell);
                    room += u64::from(slots);
                    are_plain |= descriptors == Descriptors::Plain;
                }
            }
            if are_plain {
                tracing::info!(
                    room,
                    "this kernel closes direct descriptors late, as Linux before 6.13 does: connections are descriptors of the \
                     process, and the cores share its limit of open files"
                );
            }
            warn_of_little_room(&config, room);
            let bells: Vec<Arc<Bell>> = bells.into_iter().flatten().collect();
            let wakes = bells.iter().map(|bell| Arc::clone(bell) as Arc<dyn Wake>).collect();
            let hub = Hub::new(office.courier(wakes), Arc::clone(&admission));
            for out in bells_out {
                // A core that has ended meanwhile is seen by the next step.
                let _ = out.send((bells.clone(), hub.clone()));
            }
            // Nobody is served by a server that does not start: each core waits for the apps of the others.
            for _ in &cpus {
                next_step(&news)?;
            }
            for _ in &cpus {
                let _ = go.send(());
            }
            Ok(hub)
        };
        let introduced = introduce();
        drop(go);
        match introduced {
            Ok(hub) => Ok(Handle { hub, threads, news, addresses: listeners.bound, files: listeners.files, admission }),
            Err(error) => {
                // The others wait for bells or for the word to go, which will not come: they end, and with them their
                // listeners. One whose app is still being made may hang in that, and is not waited for.
                let until = Instant::now() + ABANDONED_AFTER;
                for thread in threads {
                    while !thread.is_finished() && Instant::now() < until {
                        thread::sleep(Duration::from_millis(1));
                    }
                    if thread.is_finished() {
                        let _ = thread.join();
                    }
                }
                Err(error)
            }
        }
    }
}

/// What a core tells of itself, in this order.
enum News {
    /// It has a ring: how to wake it, how many slots there are, and where their sockets are.
    Ring { bell: Arc<Bell>, slots: u32, descriptors: Descriptors },
    /// It has its app.
    Made,
    /// It has ended, well or not.
    Ended(Result<()>),
}

/// What the next core has done on its way to a start; an error if it has ended instead.
fn next_step(news: &Receiver<(usize, News)>) -> Result<(usize, News)> {
    let early = || Error::Internal("a core ended while starting".into());
    match news.recv() {
        Ok((_, News::Ended(ended))) => Err(ended.err().unwrap_or_else(early)),
        Ok(step) => Ok(step),
        Err(_) => Err(early()),
    }
}

fn panic_message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("it does not say why")
}

/// What a core's thread starts with.
struct CoreStart {
    core: usize,
    /// Cores of the server.
    cores: u32,
    /// The processor to pin its thread to.
    pin: Option<usize>,
    config: Arc<Config>,
    admission: Arc<Admission>,
    ids: IdKey,
    post: Post<Letter>,
    mailbox: Mailbox<Letter>,
    bells: mpsc::Receiver<(Vec<Arc<Bell>>, Hub)>,
    /// Says once to each core that all have their apps; closed if one has not.
    go: Receiver<()>,
    news: Sender<(usize, News)>,
    handover: Handover,
}

impl CoreStart {
    fn run<S: Service>(
        self,
        listeners: Vec<std::os::fd::OwnedFd>,
        make: &(impl Fn(&mut CoreHub, Hub) -> S + Send + Sync),
    ) -> Result<()> {
        if let Some(cpu) = self.pin {
            pin(cpu);
        }
        let listener_count = listeners.len() as u8;
        let mut ring = Uring::new(&ring_options(&self.config, self.cores), listeners).map_err(|error| {
            let why = match error.raw_os_error() {
                Some(libc::ENOMEM) => {
                    "RLIMIT_MEMLOCK has no room for this ring beside those that its user has, or a memory limit; \
                     `ringwire check` tells how much it takes"
                }
                _ => "`ringwire check` tells more",
            };
            Error::Unavailable(format!("io_uring cannot be used: {error}; {why}"))
        })?;
        let (bell, slots, descriptors) = (ring.bell(), ring.slots(), ring.descriptors());
        let _ = self.news.send((self.core, News::Ring { bell, slots, descriptors }));
        // Without the others' bells the start has failed elsewhere, and was reported there.
        let Ok((bells, handle)) = self.bells.recv() else { return Ok(()) };
        ring.set_bells(bells);
        let config = &self.config;
        let outbox = Outbox::new(config.outbox_bytes_max);
        let mut hub = CoreHub::new(self.ids, self.post, outbox, Spares::new(POOL_BYTES), config.slow_consumer);
        hub.set_rooms_max(config.rooms_max);
        let service = catch_unwind(AssertUnwindSafe(|| make(&mut hub, handle))).map_err(|panic| {
            Error::Internal(format!("the app of core {} could not be made: {}", self.core, panic_message(&*panic)))
        })?;
        let _ = self.news.send((self.core, News::Made));
        if self.go.recv().is_err() {
            return Ok(());
        }
        let settings = settings(config, listener_count, ring.buffer_bytes(), ring.bounds_receives());
        let settings = Settings { handover: self.handover, websockets_max: websockets_max(ring.slots()), ..settings };
        let mut shard = Shard::new(ring, service, hub, self.mailbox, self.admission, settings);
        let ended = shard.run().map_err(Error::io(format!("core {}", self.core)));
        ended.inspect_err(|error| tracing::error!(%error, "a core failed"))
    }
}

fn pin(cpu: usize) {
    let mut set = CpuSet::new();
    let pinned = set.set(cpu).and_then(|()| sched_setaffinity(Pid::from_raw(0), &set));
    if let Err(error) = pinned {
        tracing::warn!(cpu, %error, "the core's thread could not be pinned");
    }
}

fn ring_options(config: &Config, rings: u32) -> Options {
    Options {
        sq_entries: config.ring_entries,
        cq_entries: config.cq_entries,
        slots: config.connections_max.saturating_add(SPARE_SLOTS),
        descriptors: None,
        rings,
        buffers: config.recv_buffers,
        buffer_bytes: config.recv_buffer_bytes,
        incremental_bytes: INCREMENTAL_BUFFER_BYTES,
        spin: config.spin,
    }
}

/// WebSockets that a core with a table of so many slots takes.
fn websockets_max(slots: u32) -> u32 {
    slots - SPARE_SLOTS.min(slots / 8)
}

fn warn_of_little_room(config: &Config, room: u64) {
    let wanted = config.connections_max;
    // Hardly a machine has room for as many as the default says: that is no news to somebody who has not set it.
    if room < u64::from(wanted) && wanted != Config::default().connections_max {
        tracing::warn!(
            room,
            wanted,
            "there is room for fewer connections than RINGWIRE_MAX_CONNECTIONS: raise the hard limit of open files \
             (ulimit -Hn, LimitNOFILE=), or lower the setting; `ringwire check` tells more"
        );
    }
}

fn settings(config: &Config, listeners: u8, buffer_bytes: u32, bounds_receives: bool) -> Settings {
    Settings {
        limits: Limits { message_bytes_max: config.message_bytes_max, fragments_max: config.fragments_max },
        head_bytes_max: config.head_bytes_max,
        body_bytes_max: config.body_bytes_max,
        handshake_timeout: config.handshake_timeout,
        keep_alive: config.keep_alive,
        crowded_slots: SPARE_SLOTS / 4,
        idle_timeout: config.idle_timeout,
        ping_interval: config.ping_interval,
        write_timeout: config.write_timeout,
        answer_timeout: config.answer_timeout,
        close_timeout: config.close_timeout,
        message_rate_per_second: config.message_rate_per_second,
        pause_bytes: (config.outbox_bytes_max / 2).min(256 << 10),
        recv_bytes_max: RECV_BYTES_MAX,
        direct_bytes_min: DIRECT_BYTES_MIN,
        direct_interrupts: !bounds_receives && buffer_bytes < LARGE_BUFFER_BYTES,
        origins: config.origins.clone(),
        websockets_max: u32::MAX,
        drain_notice: config.drain_notice,
        drain_timeout: config.drain_timeout,
        drain_spread: config.drain_spread,
        listeners,
        handover: Handover::default(),
    }
}

/// Writes a letter to every core, however full their mailboxes are.
fn tell_all(hub: &Hub, letter: impl Fn() -> Letter) {
    for core in 0..hub.cores() {
        while hub.letter(core, letter()) == Err(MailError::Full) {
            thread::sleep(Duration::from_millis(1));
        }
    }
}

/// A running server. Dropping it lets the server run on; [`Handle::shutdown`] and [`Handle::join`] end it.
pub struct Handle {
    hub: Hub,
    threads: Vec<JoinHandle<()>>,
    /// The cores' ends.
    news: Receiver<(usize, News)>,
    addresses: Vec<BoundAddress>,
    files: Vec<SocketFile>,
    admission: Arc<Admission>,
}

impl Handle {
    /// Where it listens, with real port numbers.
    pub fn addresses(&self) -> &[BoundAddress] {
        &self.addresses
    }

    /// The number of cores.
    pub fn cores(&self) -> usize {
        self.threads.len()
    }

    /// The way to its connections from any thread.
    pub fn hub(&self) -> &Hub {
        &self.hub
    }

    /// WebSockets now, over all cores.
    pub fn connections(&self) -> u32 {
        self.admission.connections()
    }

    /// Begins to drain: no more is accepted, every connection gets Close 1001, what is queued is delivered.
    pub fn shutdown(&self) {
        tell_all(&self.hub, || Letter::Drain);
    }

    /// Waits until every core has ended.
    ///
    /// # Errors
    /// If a core failed: as soon as one does, the others are stopped.
    pub fn join(self) -> Result<()> {
        let mut result = Ok(());
        // In the order in which they end: the first one may be fine, and the last one gone for long.
        for _ in &self.threads {
            let Ok((_, news)) = self.news.recv() else { break };
            if let (News::Ended(Err(error)), Ok(())) = (news, &result) {
                tell_all(&self.hub, || Letter::Stop);
                result = Err(error);
            }
        }
        for thread in self.threads {
            let _ = thread.join();
        }
        drop(self.files);
        result
    }
}
