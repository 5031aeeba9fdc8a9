//! Starts the cores and ends them.
//!
//! A core that fails ends the server: it stops the others, whoever holds what of it. What a core is told at its end it is
//! told by letters for which there is always room, and nobody waits for a core for longer than it may take.
//!
//! Knows of this crate: `admission`, `app`, `backplane`, `config`, `engine`, `error`, `guard`, `hub`, `machine`, `mail`, `metrics`,
//! `outbox`, `proto`, `remote`, `runtime`, `shard`, `tls`, `wakers`.

mod board;
mod core_start;
mod handle;
pub mod listen;
mod news;
mod nofile;
pub(crate) mod parts;
#[cfg(feature = "tls")]
pub(crate) mod renewal;
mod signals;
mod tells;

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::mpsc;
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::{Duration, Instant};


use crate::admission::Balance;
use crate::app::serve::CoreApp;
use crate::app::{App, Core};
use crate::backplane;
use crate::config::{Config, available_cpus};
use crate::engine::bell::Doorbell;
use crate::engine::Descriptors;
use crate::error::{Error, Result};
use crate::guard::{Guarded, panic_text};
use crate::hub::{CoreHub, IdKey};
use crate::machine;
use crate::mail::{PostOffice, Wake};
use crate::remote::Hub;
use crate::shard::service::{Serves, Service};
use crate::shard::{Entrance, Handover};
use board::Board;
use core_start::CoreStart;
use handle::Place;
pub use handle::{Draining, Handle};
pub use listen::BoundAddress;
pub use parts::{admission, core_hub, settings};
use news::{Ending, News, next_step};
use signals::Taken;
use tells::{say_started, warn_of_little_room};

/// How long a start that has failed waits for its other cores.
const ABANDONED_AFTER: Duration = Duration::from_secs(1);
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
        let acceptor: Option<Arc<crate::tls::Acceptor>> = None;
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
