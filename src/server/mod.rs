//! Starts the cores and ends them.
//!
//! A core that fails ends the server: it stops the others, whoever holds what of it. What a core is told at its end it is
//! told by letters for which there is always room, and nobody waits for a core for longer than it may take.
//!
//! Knows of this crate: `admission`, `app`, `backplane`, `config`, `engine`, `error`, `guard`, `hub`, `machine`, `mail`, `metrics`,
//! `outbox`, `proto`, `remote`, `runtime`, `shard`, `tls`, `wakers`.

mod board;
mod handle;
pub mod listen;
mod news;
mod nofile;
#[cfg(feature = "tls")]
pub(crate) mod renewal;
mod signals;

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::mpsc;
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::time::{ClockId, clock_gettime};
use nix::unistd::Pid;

use crate::admission::{Admission, Balance, Memory};
use crate::app::serve::CoreApp;
use crate::app::{App, Core};
use crate::backplane;
use crate::config::{Config, NatsHistory, SETTINGS, available_cpus};
use crate::engine::bell::Doorbell;
use crate::engine::uring::{Options, Uring};
use crate::engine::{Descriptors, Ring as _};
use crate::error::{Error, Result};
use crate::guard::{Guarded, panic_text};
use crate::hub::{CoreHub, DeflateSettings, IdKey, Letter, SLOTS_MAX};
use crate::machine;
use crate::mail::{Mailbox, Post, PostOffice, Wake};
use crate::outbox::Outbox;
use crate::proto::{Limits, Spares};
use crate::remote::Hub;
use crate::server::listen::SocketFile;
use crate::shard::service::{Serves, Service};
use crate::shard::{Entrance, Handover, Settings, Shard};
use crate::tls::Acceptor;
use board::Board;
use handle::Place;
pub use handle::{Draining, Handle};
pub use listen::BoundAddress;
use news::{Ending, News, next_step};
use signals::Taken;

/// Slots beyond the allowed WebSockets, so that those over the limit can be told so; of a small table an eighth.
const SPARE_SLOTS: u32 = 256;
/// How long a start that has failed waits for its other cores.
const ABANDONED_AFTER: Duration = Duration::from_secs(1);
/// Memory that a core keeps for assembling messages.
const POOL_BYTES: usize = 16 << 20;
/// Bytes that one arming of a receive brings: a quarter of what stays in the cache.
const RECV_BYTES_MAX: u32 = 256 << 10;
/// Received bytes after which a tick handles no further connection's: what is received, opened, sealed and sent of so much
/// stays in a cache of the second level. Measured with 64 connections of 16 KiB: a twentieth to a tenth less over TLS, no
/// difference without.
const TICK_BYTES_MAX: usize = 256 << 10;
/// Time that a tick takes to decompress before other input goes first. A few bytes can become a thousand times as many, and
/// a core has other connections.
const INFLATE_NS_PER_TICK: u64 = 500_000;
/// Less than this becomes at most 4 MiB (RFC 1951: 1,032 times as much), in a fraction of that time.
const INFLATE_BYTES_MIN: usize = 4 << 10;
/// Payload bytes to come from which it pays to receive straight into a message's own buffer.
const DIRECT_BYTES_MIN: usize = 128 << 10;
/// Buffers of this size are large: where a receive cannot be bounded, to cancel it costs more than it saves.
const LARGE_BUFFER_BYTES: u32 = 16 << 10;
/// With incremental consumption buffers are this large at least: a 16 KiB message then comes in one piece.
const INCREMENTAL_BUFFER_BYTES: u32 = 64 << 10;

type OnStart = Arc<dyn Fn(&Handle) + Send + Sync>;

/// A server that has not been started.
///
/// ```no_run
/// use ringwire::{App, Config, Server, ws};
///
/// fn main() -> ringwire::Result<()> {
///     let config = Config::default().addresses(vec!["0.0.0.0:9001".parse().expect("an address")]);
///     let handle = Server::new(config).start(|| App::new().ws("/", ws()))?;
///     println!("listening on {}", handle.addresses()[0]);
///     handle.join()
/// }
/// ```
#[derive(Clone)]
pub struct Server {
    config: Config,
    release_memory: Option<fn()>,
    on_start: Option<OnStart>,
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("config", &self.config).finish_non_exhaustive()
    }
}

impl Server {
    /// A server with these settings.
    ///
    /// ```no_run
    /// use ringwire::{App, Config, Server};
    ///
    /// fn main() -> ringwire::Result<()> {
    ///     let config = Config::default().max_message(64 << 10).max_connections(10_000);
    ///     Server::new(config).run(App::new)
    /// }
    /// ```
    pub fn new(config: Config) -> Server {
        Server { config, release_memory: None, on_start: None }
    }

    /// Calls this once all cores accept connections, where the server is run ([`Server::run`], [`Server::run_with`]): to
    /// say where it listens.
    ///
    /// ```no_run
    /// use ringwire::{App, Config, Server};
    ///
    /// # fn main() -> ringwire::Result<()> {
    /// Server::new(Config::default()).on_start(|handle| println!("{}", handle.addresses()[0])).run(App::new)
    /// # }
    /// ```
    #[must_use]
    pub fn on_start(self, started: impl Fn(&Handle) + Send + Sync + 'static) -> Server {
        Server { on_start: Some(Arc::new(started)), ..self }
    }

    /// Calls `release` on each core's own thread when that core has given up memory which it kept to be used again (buffers
    /// of large messages, about a second after their last use), and is not busy with large messages otherwise: for what the
    /// program's allocator has to be told, such as mimalloc's `mi_collect` or glibc's `malloc_trim`. Without it the memory is
    /// free for the process, but perhaps not for the system.
    ///
    /// ```no_run
    /// use ringwire::{App, Server};
    ///
    /// /// Gives what is free back to the system: glibc's own, others have their like.
    /// fn trim() {
    ///     // SAFETY: it may be called at any time.
    ///     unsafe { libc::malloc_trim(0) };
    /// }
    ///
    /// # fn main() -> ringwire::Result<()> {
    /// Server::from_env()?.release_memory_with(trim).run(App::new)
    /// # }
    /// ```
    #[must_use]
    pub fn release_memory_with(self, release: fn()) -> Server {
        Server { release_memory: Some(release), ..self }
    }

    /// A server with the settings of the environment's `RINGWIRE_*` variables.
    ///
    /// ```no_run
    /// use ringwire::{App, Message, Server, Socket};
    ///
    /// fn main() -> ringwire::Result<()> {
    ///     let echo = |socket: &mut Socket, message: Message| socket.send(message);
    ///     Server::from_env()?.run(move || App::new().ws("/echo", echo))
    /// }
    /// ```
    ///
    /// # Errors
    /// If a variable has a bad value, or there is no setting of that name.
    pub fn from_env() -> Result<Server> {
        Ok(Server::new(Config::from_env()?))
    }

    /// Serves an app until SIGTERM or SIGINT, then drains; a second signal ends the process at once. `make` runs once on
    /// each core. Raises the limit of open files, as [`Server::start`] does.
    ///
    /// ```no_run
    /// use ringwire::{App, Server, ws};
    ///
    /// fn app() -> App {
    ///     App::new()
    ///         .ws("/rooms/{room}", ws().on_connect(|socket| socket.join(socket.param("room"))))
    ///         .get("/", async |_| "connect to /rooms/lobby")
    /// }
    ///
    /// fn main() -> ringwire::Result<()> {
    ///     Server::from_env()?.run(app)
    /// }
    /// ```
    ///
    /// # Errors
    /// If the server cannot be started, or a core fails.
    pub fn run(self, make: impl Fn() -> App + Send + Sync + 'static) -> Result<()> {
        self.run_app(move |_| make())
    }

    /// As [`Server::run`], with state that all cores share: handlers and hooks find it by its type
    /// ([`Socket::state`](crate::Socket::state), [`Connection::state`](crate::Connection::state),
    /// [`Request::state`](crate::Request::state)), and `make` gets it too, with the core that it makes an app for. What
    /// belongs to one core, `make` gives to the app itself: [`App::with_core_state`].
    ///
    /// ```no_run
    /// use ringwire::{App, Request, Server, ws};
    /// use std::sync::atomic::{AtomicU64, Ordering};
    ///
    /// #[derive(Default)]
    /// struct Totals {
    ///     messages: AtomicU64,
    /// }
    ///
    /// fn main() -> ringwire::Result<()> {
    ///     Server::from_env()?.run_with(Totals::default(), |_core, _totals| {
    ///         App::new()
    ///             .ws(
    ///                 "/count",
    ///                 ws().on_message(|socket, _| {
    ///                     socket.state::<Totals>().messages.fetch_add(1, Ordering::Relaxed);
    ///                 }),
    ///             )
    ///             .get("/total", async |request: Request| {
    ///                 request.state::<Totals>().messages.load(Ordering::Relaxed).to_string()
    ///             })
    ///     })
    /// }
    /// ```
    ///
    /// # Errors
    /// If the server cannot be started, or a core fails.
    pub fn run_with<T: Send + Sync + 'static>(
        self,
        state: T,
        make: impl Fn(&Core, &Arc<T>) -> App + Send + Sync + 'static,
    ) -> Result<()> {
        self.run_app(with_state(state, make))
    }

    fn run_app(self, make: impl Fn(&Core) -> App + Send + Sync + 'static) -> Result<()> {
        let on_start = self.on_start.clone();
        let started = move |handle: &Handle| on_start.iter().for_each(|on_start| on_start(handle));
        self.run_service(core_app(make), started)
    }

    /// Starts an app and returns once all cores accept connections. `make` runs once on each core.
    ///
    /// The soft limit of open files (RLIMIT_NOFILE) is raised to the hard one, for the whole process: a core's
    /// connections lie in a table of its ring, which the kernel allows to be as large as the soft limit; before Linux
    /// 6.13 they are descriptors of the process, of which each core has an equal part. Where the hard limit is too low
    /// for [`Config::max_connections`](crate::Config::max_connections), a warning says so, and a core answers upgrades with 503 as soon
    /// as its table has room for no more.
    ///
    /// ```no_run
    /// use ringwire::{App, Config, Server, ws};
    ///
    /// # fn main() -> ringwire::Result<()> {
    /// let config = Config::default().addresses(vec!["127.0.0.1:0".parse().expect("an address")]);
    /// let handle = Server::new(config).start(|| App::new().ws("/", ws()))?;
    /// println!("{}", handle.addresses()[0]); // with the port that it got
    /// handle.shutdown();
    /// handle.join()
    /// # }
    /// ```
    ///
    /// # Errors
    /// If an address cannot be listened on, or io_uring cannot be used, or `make` panics.
    pub fn start(self, make: impl Fn() -> App + Send + Sync + 'static) -> Result<Handle> {
        self.start_service(core_app(move |_| make()))
    }

    /// As [`Server::start`], with state that all cores share: see [`Server::run_with`].
    ///
    /// ```no_run
    /// use ringwire::{App, Config, Request, Server};
    ///
    /// struct Motto(&'static str);
    ///
    /// # fn main() -> ringwire::Result<()> {
    /// let handle = Server::new(Config::default()).start_with(Motto("less is more"), |_core, _motto| {
    ///     App::new().get("/", async |request: Request| request.state::<Motto>().0)
    /// })?;
    /// handle.join()
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`Server::start`].
    pub fn start_with<T: Send + Sync + 'static>(
        self,
        state: T,
        make: impl Fn(&Core, &Arc<T>) -> App + Send + Sync + 'static,
    ) -> Result<Handle> {
        self.start_service(core_app(with_state(state, make)))
    }

    /// Serves until SIGTERM or SIGINT, then drains; a second signal ends the process at once. `make` runs once on each
    /// core.
    ///
    /// # Errors
    /// If the server cannot be started, or a core fails.
    pub(crate) fn run_service<S: Service>(
        self,
        make: impl Fn(&mut CoreHub, Hub) -> S + Send + Sync + 'static,
        started: impl FnOnce(&Handle),
    ) -> Result<()> {
        let taken = Taken::new()?;
        let handle = self.start_service(make)?;
        // The thread has it before anybody can know that the server has started.
        taken.drain_with(handle.ending());
        #[cfg(feature = "tls")]
        let _renewed = handle.renewal().map(|renewal| signals::Hangups::renew(renewal.clone())).transpose()?;
        let seen = catch_unwind(AssertUnwindSafe(|| started(&handle)));
        if seen.is_err() {
            handle.ending().stop();
        }
        let ended = handle.join();
        drop(taken);
        if let Err(panic) = seen {
            resume_unwind(panic);
        }
        ended
    }

    /// Starts the cores and returns once all of them accept connections. `make` runs once on each core.
    ///
    /// # Errors
    /// If an address cannot be listened on, or io_uring cannot be used.
    pub(crate) fn start_service<S: Service>(
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
        #[cfg(feature = "tls")]
        let (acceptor, renewal) = renewal::acceptor(&config)?.unzip();
        #[cfg(not(feature = "tls"))]
        let acceptor: Option<Arc<Acceptor>> = None;
        let listeners = listen::bind_all(&config, cpus.len())?;
        let handover = match (listeners.are_passed, config.reuse_port) {
            (true, _) => Handover::Leave,
            (false, true) => Handover::Share,
            (false, false) => Handover::Close,
        };
        let make = Arc::new(Guarded::new(make));
        let files = Arc::new(listeners.files);
        let entrances = listeners.entrances;
        let acceptors: Vec<_> =
            entrances.iter().map(|entrance| acceptor.clone().filter(|_| entrance.is_secure)).collect();
        let epoch = Instant::now();
        // All cores have the same listening sockets.
        let admission = Arc::new(admission(&config, cpus.len()).with_balance(Balance::new(cpus.len())));
        let mut backplane = backplane::of(&config)?;
        let abroad = backplane.board();
        let ids = IdKey::default().of_node(abroad.as_ref().map_or(0, |board| board.number));
        let mut office = PostOffice::new(cpus.len(), config.mail_depth as usize);
        let bridge = backplane.join(&mut office);
        let (news_in, news) = crossbeam_channel::unbounded();
        let (go, gone) = crossbeam_channel::unbounded();
        let ending = Arc::<OnceLock<Ending>>::default();
        let board = Arc::new(Board::new(cpus.len(), config.drain_notice.saturating_add(config.drain_timeout), epoch));
        let mut threads = Vec::new();
        let mut bells_out = Vec::new();
        for (core, (cpu, fds)) in cpus.iter().copied().zip(listeners.per_core).enumerate() {
            let (post, mailbox) = office.take(core);
            let (bells_in, bells) = mpsc::channel::<(Vec<Arc<Doorbell>>, Hub)>();
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
                entrances: entrances.clone(),
                acceptors: acceptors.clone(),
                epoch,
                release_memory: self.release_memory,
                _files: Arc::clone(&files),
            };
            let (make, news, ending) = (Arc::clone(&make), news_in.clone(), Arc::clone(&ending));
            let board = Arc::clone(&board);
            let thread = thread::Builder::new()
                .name(format!("ringwire-{core}"))
                .spawn(move || {
                    // However a core ends, whoever waits for it is told.
                    let ended = catch_unwind(AssertUnwindSafe(|| start.run(fds, &**make))).unwrap_or_else(|panic| {
                        Err(Error::Internal(format!("core {core} panicked: {}", panic_text(panic))))
                    });
                    if let (Err(error), Some(ending)) = (&ended, ending.get()) {
                        ending.stop();
                        tracing::error!(%error, "a core failed, and the server ends");
                    }
                    board.ended(core, ended.as_ref().err());
                    let _ = news.send((core, News::Ended(ended)));
                })
                .map_err(Error::io("starting a core's thread"))?;
            threads.push(thread);
        }
        drop((gone, files));
        let introduce = || {
            let mut bells: Vec<Option<Arc<Doorbell>>> = vec![None; cpus.len()];
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
            let mut bells: Vec<Arc<Doorbell>> = bells.into_iter().flatten().collect();
            let mut wakes: Vec<Arc<dyn Wake>> =
                bells.iter().map(|bell| Arc::clone(bell.bell()) as Arc<dyn Wake>).collect();
            if let Some(bridge) = bridge {
                bells.push(bridge.doorbell);
                wakes.push(bridge.wake);
            }
            let courier = office.courier(wakes);
            let hub = Hub::new(courier.clone(), Arc::clone(&admission)).with_others(abroad);
            #[cfg(feature = "tls")]
            let hub = match &renewal {
                Some(Some(renewal)) => hub.with_certificates(renewal.told()),
                _ => hub,
            };
            let told = Ending::new(hub.clone(), &board);
            let _ = ending.set(told.clone());
            for out in bells_out {
                // A core that has ended meanwhile is seen by the next step.
                let _ = out.send((bells.clone(), hub.clone()));
            }
            // Nobody is served by a server that does not start: each core waits for the apps of the others.
            for _ in &cpus {
                next_step(&news)?;
            }
            // Who serves nobody yet can still be refused its name.
            let counted = Arc::clone(&admission);
            let place = backplane::Place {
                courier,
                house: hub.house(),
                connections: Box::new(move || u64::from(counted.connections())),
            };
            let bridge = backplane.start(place)?;
            for _ in &cpus {
                let _ = go.send(());
            }
            Ok((told, bridge))
        };
        let introduced = introduce();
        drop(go);
        match introduced {
            Ok((ending, bridge)) => {
                threads.extend(bridge);
                let (admin, public) = listeners
                    .bound
                    .into_iter()
                    .zip(entrances)
                    .partition::<Vec<_>, _>(|(_, entrance)| entrance.serves == Serves::Admin);
                let of = |bound: Vec<(BoundAddress, Entrance)>| {
                    bound.into_iter().map(|(address, _)| address).collect::<Vec<_>>()
                };
                let (addresses, admin_addresses) = (of(public), of(admin));
                say_started(&config, cpus.len(), &addresses, &admin_addresses);
                board.have_threads(threads);
                let place = Place {
                    addresses,
                    admin_addresses,
                    admission,
                    cores: cpus.len(),
                    #[cfg(feature = "tls")]
                    renewal: renewal.flatten(),
                };
                Ok(Handle::new(ending, board, place))
            }
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

/// Makes apps that have this state.
fn with_state<T: Send + Sync + 'static>(
    state: T,
    make: impl Fn(&Core, &Arc<T>) -> App + Send + Sync + 'static,
) -> impl Fn(&Core) -> App + Send + Sync + 'static {
    let state = Arc::new(state);
    move |core| make(core, &state).with_state(Arc::clone(&state))
}

/// Makes cores' parts of apps.
fn core_app(
    make: impl Fn(&Core) -> App + Send + Sync + 'static,
) -> impl Fn(&mut CoreHub, Hub) -> CoreApp + Send + Sync + 'static {
    move |hub, handle| {
        let core = Core::new(hub.core(), handle.clone());
        CoreApp::new(make(&core), hub, handle)
    }
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
    bells: mpsc::Receiver<(Vec<Arc<Doorbell>>, Hub)>,
    /// Says once to each core that all have their apps; closed if one has not.
    go: Receiver<()>,
    news: Sender<(usize, News)>,
    handover: Handover,
    /// What each listener is for.
    entrances: Vec<Entrance>,
    /// What makes the sessions of each that speaks TLS.
    acceptors: Vec<Option<Arc<Acceptor>>>,
    /// What the clocks of all cores count from.
    epoch: Instant,
    release_memory: Option<fn()>,
    /// Files of Unix sockets, which the last core takes away when its listeners are closed.
    _files: Arc<Vec<SocketFile>>,
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
        let options = Options { epoch: self.epoch, ..ring_options(&self.config, self.cores) };
        let mut ring = Uring::new(&options, listeners).map_err(|error| {
            let why = match error.raw_os_error() {
                Some(libc::ENOMEM) => {
                    "RLIMIT_MEMLOCK has no room for this ring beside those that its user has, or a memory limit; \
                     `ringwire check` tells how much it takes"
                }
                Some(libc::EPERM | libc::EACCES | libc::ENOSYS) => {
                    "container runtimes block it by default, and deploy/README.md of ringwire's source tells how to allow it; \
                     `ringwire check` tells more"
                }
                _ => "`ringwire check` tells more",
            };
            Error::Unavailable(format!("io_uring cannot be used: {error}; {why}"))
        })?;
        let (bell, slots, descriptors) = (ring.doorbell(), ring.slots(), ring.descriptors());
        let _ = self.news.send((self.core, News::Ring { bell, slots, descriptors }));
        // Without the others' bells the start has failed elsewhere, and was reported there.
        let Ok((bells, handle)) = self.bells.recv() else { return Ok(()) };
        // In this order, so that it is dropped after whatever has the mailbox.
        let _end = handle.end_of(self.core);
        let mailbox = self.mailbox;
        ring.set_doorbells(bells);
        let config = &self.config;
        let mut hub = core_hub(config, self.ids, self.post);
        hub.spares.set_clock(clock_ns);
        hub.set_deflate_clock(clock_ns);
        hub.set_cpu_clock(cpu_ns);
        let service = catch_unwind(AssertUnwindSafe(|| make(&mut hub, handle))).map_err(|panic| {
            Error::Internal(format!("the app of core {} could not be made: {}", self.core, panic_text(panic)))
        })?;
        let _ = self.news.send((self.core, News::Made));
        if self.go.recv().is_err() {
            return Ok(());
        }
        let settings = settings(config, listener_count, ring.buffer_bytes(), ring.bounds_receives());
        let settings = Settings {
            handover: self.handover,
            admin_stays: !config.reuse_port,
            entrances: self.entrances,
            acceptors: self.acceptors,
            websockets_max: websockets_max(ring.slots()),
            ..settings
        };
        let mut shard = Shard::new(ring, service, hub, mailbox, self.admission, settings);
        if let Some(release) = self.release_memory {
            shard.release_memory_with(release);
        }
        shard.run().map_err(Error::io(format!("core {}", self.core)))
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
        slots: config.connections_max.saturating_add(SPARE_SLOTS).min(SLOTS_MAX),
        descriptors: None,
        rings,
        buffers: config.recv_buffers,
        buffer_bytes: config.recv_buffer_bytes,
        incremental_bytes: INCREMENTAL_BUFFER_BYTES,
        spin: config.spin,
        ..Options::default()
    }
}

/// A clock for durations.
fn clock_ns() -> u64 {
    static START: OnceLock<Instant> = OnceLock::new();
    u64::try_from(START.get_or_init(Instant::now).elapsed().as_nanos()).unwrap_or(u64::MAX)
}

/// Processor time of the thread that asks.
fn cpu_ns() -> u64 {
    let taken = clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID);
    taken.map_or(0, |taken| u64::try_from(Duration::from(taken).as_nanos()).unwrap_or(u64::MAX))
}

/// The limits of the whole process.
pub fn admission(config: &Config, cores: usize) -> Admission {
    Admission::new(config.connections_max, config.connections_per_ip_max, config.accept_rate_per_second)
        .with_memory(Memory::new(config.memory_bytes_max as u64, cores))
        .with_tls_handshakes(config.tls_handshakes)
}

/// The hub of one core.
pub fn core_hub(config: &Config, ids: IdKey, post: Post<Letter>) -> CoreHub {
    let outbox = Outbox::new(config.outbox_bytes_max);
    let cores = post.cores().max(1);
    let mut hub = CoreHub::new(ids, post, outbox, Spares::new(POOL_BYTES), config.slow_consumer);
    hub.set_deflate(DeflateSettings {
        mode: config.deflate,
        bytes_min: config.deflate_bytes_min,
        window_bits: config.deflate_window_bits,
        level: config.deflate_level,
    });
    hub.set_rooms_max(config.rooms_max);
    hub.set_history(config.history.clone(), config.history_bytes_max / cores);
    hub
}

/// WebSockets that a core with a table of so many slots takes.
pub(crate) fn websockets_max(slots: u32) -> u32 {
    slots - SPARE_SLOTS.min(slots / 8)
}

fn say_started(config: &Config, cores: usize, addresses: &[BoundAddress], admin: &[BoundAddress]) {
    let all = |addresses: &[BoundAddress]| addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
    let admin = (!admin.is_empty()).then(|| all(admin));
    let version = env!("CARGO_PKG_VERSION");
    tracing::info!(target: "ringwire::server", version, cores, addresses = %all(addresses), admin, "started");
    let default = Config::default();
    for setting in SETTINGS {
        let value = setting.value(config);
        if value != setting.value(&default) {
            tracing::info!(target: "ringwire::server", name = setting.variable, value = %value, "setting");
        }
    }
    let is_off = config.nats_history == NatsHistory::Off;
    if config.nats_url.is_some() && config.history != default.history && is_off {
        tracing::info!(target: "ringwire::server", "the history of rooms is this machine's own: nobody resumes from another's");
    }
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

pub fn settings(config: &Config, listeners: u8, buffer_bytes: u32, bounds_receives: bool) -> Settings {
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
        tick_bytes_max: TICK_BYTES_MAX,
        inflate_ns_per_tick: INFLATE_NS_PER_TICK,
        inflate_bytes_min: INFLATE_BYTES_MIN,
        direct_bytes_min: DIRECT_BYTES_MIN,
        direct_interrupts: !bounds_receives && buffer_bytes < LARGE_BUFFER_BYTES,
        deflate_skip: config.deflate_skip.clone(),
        origins: config.origins.clone(),
        websockets_max: u32::MAX,
        drain_notice: config.drain_notice,
        drain_timeout: config.drain_timeout,
        drain_spread: config.drain_spread,
        listeners,
        entrances: Vec::new(),
        acceptors: Vec::new(),
        trusted_proxies: config.trusted_proxies.clone(),
        handover: Handover::default(),
        admin_stays: false,
    }
}

/// Starts a server of a service that is no [`App`](crate::App); `make` runs once on each core.
///
/// # Errors
/// If an address cannot be listened on, or io_uring cannot be used.
pub fn start_service<S: Service>(
    server: Server,
    make: impl Fn(&mut CoreHub, Hub) -> S + Send + Sync + 'static,
) -> Result<Handle> {
    server.start_service(make)
}

/// As [`Server::run`], of a service that is no [`App`](crate::App).
///
/// # Errors
/// If the server cannot be started, or a core fails.
pub fn run_service<S: Service>(
    server: Server,
    make: impl Fn(&mut CoreHub, Hub) -> S + Send + Sync + 'static,
    started: impl FnOnce(&Handle),
) -> Result<()> {
    server.run_service(make, started)
}
