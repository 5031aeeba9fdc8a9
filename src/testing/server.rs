//! A server in a test's hand.

use std::cell::RefCell;
use std::fmt;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::Duration;

use super::calls::{TestCall, TestHandshake};
use super::client::TestClient;
use super::cores::Cores;
use super::faults::Faults;
use super::seeds;
use super::stage::Stage;
use crate::app::App;
use crate::config::Config;
use crate::engine::sim::World;
use crate::remote::Hub;

/// Places for connections on each core, unless a test says otherwise.
const SLOTS: u32 = 512;
/// How long what a test expects may take, unless it says otherwise: of virtual time.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a core may take to end after its time, as in a real server.
const END_GRACE: Duration = Duration::from_secs(10);
/// How often and how long another thread is waited for: of real time.
const NAPS_MAX: u32 = 100;
const NAP: Duration = Duration::from_millis(100);

/// How a [`TestServer`] is to be: [`TestServer::builder`] makes one, [`TestServerBuilder::start`] starts it.
#[derive(Clone, Debug)]
#[must_use = "start it"]
pub struct TestServerBuilder {
    config: Config,
    cores: usize,
    seed: Option<u64>,
    faults: Faults,
    patience: Duration,
    slots: u32,
}

impl TestServerBuilder {
    /// The server's settings; [`Config::default`] unless this is called. Addresses, the PROXY protocol, cores, pinning and
    /// whatever else is about threads and real sockets is of no effect.
    pub fn config(self, config: Config) -> TestServerBuilder {
        TestServerBuilder { config, ..self }
    }

    /// The number of cores; one unless this is called. Connections go to them in turn. They run in an order that the seed
    /// chooses, so that seeds try orders of events between them.
    pub fn cores(self, cores: usize) -> TestServerBuilder {
        TestServerBuilder { cores, ..self }
    }

    /// Where all chance comes from. Unless this is called it is what `RINGWIRE_TEST_SEED` says, or 0.
    pub fn seed(self, seed: u64) -> TestServerBuilder {
        TestServerBuilder { seed: Some(seed), ..self }
    }

    /// What goes wrong; nothing unless this is called.
    pub fn faults(self, faults: Faults) -> TestServerBuilder {
        TestServerBuilder { faults, ..self }
    }

    /// How much virtual time may pass until what the test expects is there; ten seconds unless this is called.
    pub fn patience(self, patience: Duration) -> TestServerBuilder {
        TestServerBuilder { patience, ..self }
    }

    /// Places for connections on each core; 512 unless this is called. An eighth of them, at most 256, is for those that are no
    /// WebSockets.
    pub fn slots(self, slots: u32) -> TestServerBuilder {
        TestServerBuilder { slots, ..self }
    }

    /// Starts the server. `app` is called once for each core, as in a real one.
    ///
    /// # Panics
    /// If a setting is none that a server would start with, there are no cores, or fewer than 100 slots.
    #[track_caller]
    pub fn start(self, app: impl Fn() -> App) -> TestServer {
        if let Err(error) = self.config.validate() {
            panic!("{error}");
        }
        assert!(self.cores > 0, "a server has cores");
        // With fewer free ones, a server that is crowded hurries its clients.
        assert!(self.slots >= 100, "a core has 100 slots at least");
        let world = World::new(self.seed.unwrap_or_else(seeds::usual), self.faults.0);
        let cores = Cores::new(&world, &self.config, self.cores, self.slots, &app);
        let hub = cores.hub.clone();
        let config = self.config;
        let drain_max = config.drain_notice.saturating_add(config.drain_timeout).saturating_add(END_GRACE);
        let mut stage = Stage::new(world, cores, self.patience);
        stage.settle();
        TestServer { stage: Rc::new(RefCell::new(stage)), hub, drain_max }
    }
}

/// A server that runs an [`App`] within a test: the real cores on a simulated ring, without port, thread or real time.
///
/// Everything happens within calls of the test's, and time passes only where it says so or expects something. See the
/// [module](super).
pub struct TestServer {
    stage: Rc<RefCell<Stage>>,
    hub: Hub,
    /// How long a drain may take.
    drain_max: Duration,
}

impl TestServer {
    /// A server with one core, usual settings and no faults.
    ///
    /// ```
    /// use ringwire::testing::TestServer;
    /// use ringwire::{App, Request};
    ///
    /// let server = TestServer::new(|| App::new().get("/hello", async |_: Request| "Hello!"));
    /// assert_eq!(server.get("/hello").send().text(), "Hello!");
    /// ```
    #[track_caller]
    pub fn new(app: impl Fn() -> App) -> TestServer {
        TestServer::builder().start(app)
    }

    /// For a server with other settings, several cores, faults, or a seed of its own.
    pub fn builder() -> TestServerBuilder {
        TestServerBuilder {
            config: Config::default(),
            cores: 1,
            seed: None,
            faults: Faults::none(),
            patience: PATIENCE,
            slots: SLOTS,
        }
    }

    // ---- clients --------------------------------------------------------------------------------------------------

    /// A WebSocket client of this path, which may have a query.
    ///
    /// # Panics
    /// If the handshake is refused. For one with header fields, a token or subprotocols, and for one that is to be refused,
    /// there is [`TestServer::handshake`].
    #[track_caller]
    pub fn connect(&self, path: &str) -> TestClient {
        self.handshake(path).open()
    }

    /// Begins a WebSocket handshake.
    pub fn handshake(&self, path: &str) -> TestHandshake {
        TestHandshake::new(&self.stage, path)
    }

    /// Begins a GET request.
    pub fn get(&self, path: &str) -> TestCall {
        self.request("GET", path)
    }

    /// Begins a POST request.
    pub fn post(&self, path: &str) -> TestCall {
        self.request("POST", path)
    }

    /// Begins a PUT request.
    pub fn put(&self, path: &str) -> TestCall {
        self.request("PUT", path)
    }

    /// Begins a DELETE request.
    pub fn delete(&self, path: &str) -> TestCall {
        self.request("DELETE", path)
    }

    /// Begins a request with any method.
    pub fn request(&self, method: &str, path: &str) -> TestCall {
        TestCall::new(&self.stage, method, path)
    }

    /// What is sent within reaches the server at once, in one tick of each core, instead of one after the other. Nothing can
    /// be expected there.
    ///
    /// ```
    /// use ringwire::testing::TestServer;
    /// use ringwire::{App, Message, Socket};
    ///
    /// let server = TestServer::new(|| App::new().ws("/", |socket: &mut Socket, message: Message| socket.send(message)));
    /// let client = server.connect("/");
    /// server.together(|| (0..3).for_each(|number| client.send(number.to_string())));
    /// (0..3).for_each(|number: u8| client.expect_text(&number.to_string()));
    /// ```
    pub fn together<T>(&self, act: impl FnOnce() -> T) -> T {
        self.stage.borrow_mut().is_held = true;
        let done = act();
        let mut stage = self.stage.borrow_mut();
        stage.is_held = false;
        stage.settle();
        done
    }

    // ---- the app from outside -------------------------------------------------------------------------------------

    /// The way to all connections, as from another thread. Its answers are awaited by [`TestServer::block_on`]; what waits for
    /// one on this thread panics, because the cores run on it.
    ///
    /// ```
    /// use ringwire::testing::TestServer;
    /// use ringwire::{App, ws};
    ///
    /// let server = TestServer::builder().cores(2).start(|| App::new().ws("/news", ws()));
    /// let (ann, ben) = (server.connect("/news"), server.connect("/news"));
    /// let told = server.block_on(server.hub().emit_to_all("headline", "it rains").unwrap());
    /// assert_eq!(told.queued, 2);
    /// assert_eq!(ann.expect_event("headline"), "it rains");
    /// assert_eq!(ben.expect_event("headline"), "it rains");
    /// ```
    pub fn hub(&self) -> &Hub {
        // It is asked for to wait for something, maybe.
        self.stage.borrow_mut().cores.share_thread();
        &self.hub
    }

    /// Runs the server until a future is done: an answer of the [hub](TestServer::hub)'s, or anything else that depends on
    /// it. Virtual time passes as where something is expected; after that, what other threads have to do with it is waited
    /// for, for ten seconds of real time.
    ///
    /// # Panics
    /// If it is not done by then.
    #[track_caller]
    pub fn block_on<T>(&self, future: impl IntoFuture<Output = T>) -> T {
        let woken = Arc::new(Woken { is_woken: AtomicBool::new(true), driver: thread::current() });
        let waker = Waker::from(Arc::clone(&woken));
        let mut future = pin!(future.into_future());
        let end = {
            let stage = self.stage.borrow();
            stage.end_of(stage.patience)
        };
        let mut naps = 0;
        loop {
            self.stage.borrow_mut().settle();
            if woken.is_woken.swap(false, Ordering::SeqCst) {
                if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
                    self.stage.borrow_mut().settle();
                    return output;
                }
                // What it has just asked for may be there at once.
                continue;
            }
            let mut stage = self.stage.borrow_mut();
            if stage.world.now() < end {
                stage.step(end);
            } else if naps < NAPS_MAX {
                drop(stage);
                naps += 1;
                thread::park_timeout(NAP);
            } else {
                let text = stage.told("the future is not done");
                drop(stage);
                panic!("{text}");
            }
        }
    }

    // ---- time -----------------------------------------------------------------------------------------------------

    /// Lets this much virtual time pass, with everything that falls due in it: pings, timeouts, intervals, sleeping tasks.
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// use ringwire::testing::TestServer;
    /// use ringwire::{App, ws};
    ///
    /// let server = TestServer::new(|| App::new().ws("/", ws()));
    /// let client = server.connect("/");
    /// server.advance(Duration::from_secs(30));
    /// client.expect_ping();
    /// client.pause();
    /// server.advance(Duration::from_secs(121));
    /// client.resume();
    /// assert!(!client.is_open(), "who does not answer pings is dropped");
    /// ```
    pub fn advance(&self, time: Duration) {
        self.stage.borrow_mut().pass(time);
    }

    /// Virtual time since the server's start.
    pub fn now(&self) -> Duration {
        Duration::from_nanos(self.stage.borrow().world.now())
    }

    // ---- the end --------------------------------------------------------------------------------------------------

    /// Begins to drain, as [`Handle::shutdown`](crate::Handle::shutdown) and SIGTERM do: no more is accepted, and each
    /// connection gets Close 1001 at its time.
    pub fn shutdown(&self) {
        let mut stage = self.stage.borrow_mut();
        stage.cores.drain();
        stage.settle();
    }

    /// Awaits the end of all cores, after [`TestServer::shutdown`].
    ///
    /// # Panics
    /// If they have not ended by the time that a drain may take.
    #[track_caller]
    pub fn join(self) {
        let mut stage = self.stage.borrow_mut();
        let patience = std::mem::replace(&mut stage.patience, self.drain_max);
        let ended = stage.wait(|stage| stage.cores.are_finished().then_some(()));
        stage.patience = patience;
        if ended.is_none() {
            let text = stage.told("the server has not ended: was it told to?");
            drop(stage);
            panic!("{text}");
        }
    }

    // ---- chance and what happened ---------------------------------------------------------------------------------

    /// Other faults from now on.
    pub fn set_faults(&self, faults: Faults) {
        self.stage.borrow().world.set_faults(faults.0);
    }

    /// How often something went wrong so far.
    pub fn faults_injected(&self) -> u64 {
        self.stage.borrow().world.fault_counts().total()
    }

    /// The seed of this run.
    pub fn seed(&self) -> u64 {
        self.stage.borrow().world.seed()
    }

    /// What clients did and saw, and when: a line for each, the last thousand of them.
    pub fn trace(&self) -> String {
        self.stage.borrow().trace.all()
    }

    /// A digest of all that happened so far, to clients and to cores. The same seed gives the same one, as long as the app and
    /// the test ask nothing but virtual time and have no chance of their own.
    pub fn fingerprint(&self) -> u64 {
        let stage = self.stage.borrow();
        stage.world.fingerprint() ^ stage.trace.digest()
    }
}

impl fmt::Debug for TestServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TestServer").field("seed", &self.seed()).field("now", &self.now()).finish_non_exhaustive()
    }
}

/// Wakes whoever waits in [`TestServer::block_on`], from whichever thread.
struct Woken {
    is_woken: AtomicBool,
    driver: Thread,
}

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.is_woken.store(true, Ordering::SeqCst);
        self.driver.unpark();
    }
}

/// Runs a future that needs no server, such as that of a handler which only looks at its request.
///
/// # Panics
/// If it waits for something that does not come within ten seconds of real time.
#[track_caller]
pub fn block_on<T>(future: impl IntoFuture<Output = T>) -> T {
    let woken = Arc::new(Woken { is_woken: AtomicBool::new(true), driver: thread::current() });
    let waker = Waker::from(Arc::clone(&woken));
    let mut future = pin!(future.into_future());
    for _ in 0..=NAPS_MAX {
        while woken.is_woken.swap(false, Ordering::SeqCst) {
            if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
                return output;
            }
        }
        thread::park_timeout(NAP);
    }
    panic!("the future is not done")
}
