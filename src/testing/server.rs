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
///
/// ```
/// use ringwire::testing::TestServer;
/// use ringwire::testing::Faults;
/// use ringwire::{App, Config, ws};
///
/// let builder = TestServer::builder().cores(2).config(Config::default().max_rooms(1)).faults(Faults::harsh());
/// for seed in [1, 2, 3] {
///     let server = builder.clone().seed(seed).start(|| App::new().ws("/", ws().on_connect(|_| "welcome")));
///     server.connect("/").expect_text("welcome");
/// }
/// ```
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
    ///
    /// ```
    /// use ringwire::testing::TestServer;
    /// use ringwire::{App, Config, ws};
    ///
    /// let config = Config::default().max_message(1024);
    /// let server = TestServer::builder().config(config).start(|| App::new().ws("/", ws()));
    /// let client = server.connect("/");
    /// client.send("x".repeat(1025));
    /// client.expect_close(1009);
    /// ```
    pub fn config(self, config: Config) -> TestServerBuilder {
        TestServerBuilder { config, ..self }
    }

    /// The number of cores; one unless this is called. Connections go to them in turn. They run in an order that the seed
    /// chooses, so that seeds try orders of events between them.
    ///
    /// ```
    /// use ringwire::testing::TestServer;
    /// use ringwire::{App, ws};
    ///
    /// let route = || ws().on_connect(|socket| socket.id().core().to_string());
    /// let server = TestServer::builder().cores(2).start(move || App::new().ws("/", route()));
    /// ["0", "1", "0"].map(|core| server.connect("/").expect_text(core));
    /// ```
    pub fn cores(self, cores: usize) -> TestServerBuilder {
        TestServerBuilder { cores, ..self }
    }

    /// Where all chance comes from. Unless this is called it is what `RINGWIRE_TEST_SEED` says, or 0.
    ///
    /// ```
    /// use ringwire::testing::TestServer;
    /// use ringwire::App;
    ///
    /// let server = TestServer::builder().seed(7).start(App::new);
    /// assert_eq!(server.seed(), 7);
    /// ```
    pub fn seed(self, seed: u64) -> TestServerBuilder {
        TestServerBuilder { seed: Some(seed), ..self }
    }

    /// What goes wrong; nothing unless this is called.
    ///
    /// ```
    /// use ringwire::testing::{Faults, TestServer};
    /// use ringwire::{App, Message, Socket};
    ///
    /// let echo = || App::new().ws("/echo", |socket: &mut Socket, message: Message| socket.send(message));
    /// let server = TestServer::builder().faults(Faults::harsh()).start(echo);
    /// let client = server.connect("/echo");
    /// client.send("x".repeat(10_000));
    /// client.expect_text(&"x".repeat(10_000));
    /// assert!(server.faults_injected() > 0);
    /// ```
    pub fn faults(self, faults: Faults) -> TestServerBuilder {
        TestServerBuilder { faults, ..self }
    }

    /// How much virtual time may pass until what the test expects is there; ten seconds unless this is called.
    ///
    /// ```
    /// use ringwire::testing::TestServer;
    /// use ringwire::{App, Connection, sleep, ws};
    /// use std::time::Duration;
    ///
    /// let late = async |_: Connection| {
    ///     sleep(Duration::from_secs(3600)).await;
    ///     "at last"
    /// };
    /// let patient = TestServer::builder().patience(Duration::from_secs(4000));
    /// let server = patient.start(move || App::new().ws("/", ws().task(late)));
    /// server.connect("/").expect_text("at last");
    /// ```
    pub fn patience(self, patience: Duration) -> TestServerBuilder {
        TestServerBuilder { patience, ..self }
    }

    /// Places for connections on each core; 512 unless this is called. An eighth of them, at most 256, is for those that are no
    /// WebSockets.
    ///
    /// ```
    /// use ringwire::testing::TestServer;
    /// use ringwire::{App, ws};
    ///
    /// let server = TestServer::builder().slots(5000).start(|| App::new().ws("/", ws()));
    /// let clients: Vec<_> = (0..1000).map(|_| server.connect("/")).collect();
    /// assert!(clients.iter().all(|client| client.is_open()));
    /// ```
    pub fn slots(self, slots: u32) -> TestServerBuilder {
        TestServerBuilder { slots, ..self }
    }

    /// Starts the server. `app` is called once for each core, as in a real one.
    ///
    /// ```
    /// use ringwire::testing::TestServer;
    /// use ringwire::{App, ws};
    /// use std::cell::Cell;
    ///
    /// let made = Cell::new(0);
    /// let server = TestServer::builder().cores(3).start(|| {
    ///     made.set(made.get() + 1);
    ///     App::new().ws("/", ws())
    /// });
    /// assert_eq!(made.get(), 3);
    /// assert!(server.connect("/").is_open());
    /// ```
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
///
/// ```
/// use ringwire::testing::TestServer;
/// use ringwire::{App, ws};
///
/// let lobby = || {
///     ws().on_connect(|socket| socket.join("lobby")).on_message(|socket, message| socket.to_own_room(message))
/// };
/// let server = TestServer::new(move || App::new().ws("/chat", lobby()).get("/", async |_| "connect to /chat"));
/// let (ann, ben) = (server.connect("/chat"), server.connect("/chat"));
/// ann.send("hello");
/// ben.expect_text("hello");
/// assert_eq!(server.get("/").send().text(), "connect to /chat");
/// ```
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
    ///
    /// ```
    /// use ringwire::testing::TestServer;
    /// use ringwire::{App, Config, ws};
    ///
    /// let server = TestServer::builder().cores(2).config(Config::default().max_rooms(1)).start(|| App::new().ws("/", ws()));
    /// assert_eq!(server.hub().cores(), 2);
    /// ```
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
    /// ```
    /// use ringwire::testing::TestServer;
    /// use ringwire::{App, ws};
    ///
    /// let greet = || ws().on_connect(|socket| format!("Hello, {}!", socket.param("name")));
    /// let server = TestServer::new(move || App::new().ws("/greet/{name}", greet()));
    /// server.connect("/greet/ann").expect_text("Hello, ann!");
    /// ```
    ///
    /// # Panics
    /// If the handshake is refused. For one with header fields, a token or subprotocols, and for one that is to be refused,
    /// there is [`TestServer::handshake`].
    #[track_caller]
    pub fn connect(&self, path: &str) -> TestClient {
        self.handshake(path).open()
    }

    /// Begins a WebSocket handshake.
    ///
    /// ```
    /// use ringwire::testing::TestServer;
    /// use ringwire::{App, ws};
    ///
    /// let route = || ws().subprotocols(["v1"]).on_connect(|socket| socket.request().cookie("user").map(str::to_owned));
    /// let server = TestServer::new(move || App::new().ws("/", route()));
    /// let client = server.handshake("/").protocols(["v1"]).cookie("user", "ann").open();
    /// client.expect_text("ann");
    /// assert_eq!(server.handshake("/").refusal().status(), 400);
    /// ```
    pub fn handshake(&self, path: &str) -> TestHandshake {
        TestHandshake::new(&self.stage, path)
    }

    /// Begins a GET request.
    ///
    /// ```
    /// use ringwire::testing::TestServer;
    /// use ringwire::App;
    ///
    /// let server = TestServer::new(|| App::new().get("/", async |_| "welcome"));
    /// assert_eq!(server.get("/").send().text(), "welcome");
    /// ```
    pub fn get(&self, path: &str) -> TestCall {
        self.request("GET", path)
    }

    /// Begins a POST request.
    ///
    /// ```
    /// use ringwire::testing::TestServer;
    /// use ringwire::{App, Request};
    ///
    /// let shout = async |request: Request| String::from_utf8_lossy(request.body()).to_uppercase();
    /// let server = TestServer::new(move || App::new().post("/shout", shout));
    /// assert_eq!(server.post("/shout").body("hello").send().text(), "HELLO");
    /// ```
    pub fn post(&self, path: &str) -> TestCall {
        self.request("POST", path)
    }

    /// Begins a PUT request.
    ///
    /// ```
    /// use ringwire::testing::TestServer;
    /// use ringwire::{App, Request};
    ///
    /// let name = async |request: Request| format!("{} is kept", request.param("name"));
    /// let server = TestServer::new(move || App::new().put("/rooms/{name}", name));
    /// assert_eq!(server.put("/rooms/lobby").send().text(), "lobby is kept");
    /// ```
    pub fn put(&self, path: &str) -> TestCall {
        self.request("PUT", path)
    }

    /// Begins a DELETE request.
    ///
    /// ```
    /// use ringwire::testing::TestServer;
    /// use ringwire::App;
    ///
    /// let server = TestServer::new(|| App::new().delete("/rooms/{name}", async |_| ()));
    /// assert_eq!(server.delete("/rooms/lobby").send().status(), 204);
    /// ```
    pub fn delete(&self, path: &str) -> TestCall {
        self.request("DELETE", path)
    }

    /// Begins a request with any method.
    ///
    /// ```
    /// use ringwire::testing::TestServer;
    /// use ringwire::App;
    ///
    /// let server = TestServer::new(|| App::new().get("/", async |_| "welcome"));
    /// let response = server.request("OPTIONS", "/").send().expect_status(405);
    /// assert!(response.header("allow").unwrap().contains("GET"));
    /// ```
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
    /// ```
    /// use ringwire::testing::TestServer;
    /// use ringwire::{App, ws};
    ///
    /// let server = TestServer::new(|| App::new().ws("/", ws()));
    /// let _client = server.connect("/");
    /// assert_eq!(server.block_on(server.hub().count()).unwrap(), 1);
    /// ```
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
    ///
    /// ```
    /// use ringwire::testing::TestServer;
    /// use ringwire::{App, ws};
    ///
    /// let server = TestServer::new(|| App::new().ws("/", ws()));
    /// let client = server.connect("/");
    /// server.advance(std::time::Duration::from_secs(25));
    /// client.expect_ping();
    /// assert_eq!(server.now().as_secs(), 30);
    /// ```
    pub fn now(&self) -> Duration {
        Duration::from_nanos(self.stage.borrow().world.now())
    }

    // ---- the end --------------------------------------------------------------------------------------------------

    /// Begins to drain, as [`Handle::shutdown`](crate::Handle::shutdown) and SIGTERM do: no more is accepted, and each
    /// connection gets Close 1001 at its time.
    ///
    /// ```
    /// use ringwire::testing::TestServer;
    /// use ringwire::{App, ws};
    ///
    /// let server = TestServer::new(|| App::new().ws("/", ws()));
    /// let client = server.connect("/");
    /// server.shutdown();
    /// client.expect_close(1001);
    /// ```
    pub fn shutdown(&self) {
        let mut stage = self.stage.borrow_mut();
        stage.cores.drain();
        stage.settle();
    }

    /// Awaits the end of all cores, after [`TestServer::shutdown`].
    ///
    /// ```
    /// use ringwire::testing::TestServer;
    /// use ringwire::{App, ws};
    ///
    /// let server = TestServer::new(|| App::new().ws("/", ws()));
    /// let client = server.connect("/");
    /// server.shutdown();
    /// drop(client);
    /// server.join();
    /// ```
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
    ///
    /// ```
    /// use ringwire::testing::{Faults, TestServer};
    /// use ringwire::{App, Message, Socket};
    ///
    /// let echo = || App::new().ws("/echo", |socket: &mut Socket, message: Message| socket.send(message));
    /// let server = TestServer::new(echo);
    /// let client = server.connect("/echo");
    /// server.set_faults(Faults::harsh());
    /// client.send("x".repeat(10_000));
    /// client.expect_text(&"x".repeat(10_000));
    /// ```
    pub fn set_faults(&self, faults: Faults) {
        self.stage.borrow().world.set_faults(faults.0);
    }

    /// How often something went wrong so far.
    ///
    /// ```
    /// use ringwire::testing::{Faults, TestServer};
    /// use ringwire::{App, Message, Socket};
    ///
    /// let echo = || App::new().ws("/echo", |socket: &mut Socket, message: Message| socket.send(message));
    /// let server = TestServer::builder().faults(Faults::none().short_sends(0.5)).start(echo);
    /// let client = server.connect("/echo");
    /// (0..20).for_each(|number| client.send(number.to_string()));
    /// assert!(server.faults_injected() > 0);
    /// ```
    pub fn faults_injected(&self) -> u64 {
        self.stage.borrow().world.fault_counts().total()
    }

    /// The seed of this run.
    ///
    /// ```
    /// use ringwire::App;
    /// use ringwire::testing::{TestServer, seeds};
    ///
    /// for seed in seeds(3) {
    ///     let server = TestServer::builder().seed(seed).start(App::new);
    ///     assert_eq!(server.seed(), seed);
    /// }
    /// ```
    pub fn seed(&self) -> u64 {
        self.stage.borrow().world.seed()
    }

    /// What clients did and saw, and when: a line for each, the last thousand of them.
    ///
    /// ```
    /// use ringwire::testing::TestServer;
    /// use ringwire::{App, ws};
    ///
    /// let server = TestServer::new(|| App::new().ws("/", ws()));
    /// let client = server.connect("/");
    /// client.send("hello");
    /// assert!(server.trace().contains("sends text \"hello\""));
    /// ```
    pub fn trace(&self) -> String {
        self.stage.borrow().trace.all()
    }

    /// A digest of all that happened so far, to clients and to cores. The same seed gives the same one, as long as the app and
    /// the test ask nothing but virtual time and have no chance of their own.
    ///
    /// ```
    /// use ringwire::testing::TestServer;
    /// use ringwire::{App, Message, Socket};
    ///
    /// let run = |seed| {
    ///     let echo = || App::new().ws("/echo", |socket: &mut Socket, message: Message| socket.send(message));
    ///     let server = TestServer::builder().seed(seed).start(echo);
    ///     let client = server.connect("/echo");
    ///     client.send("hello");
    ///     client.expect_text("hello");
    ///     server.fingerprint()
    /// };
    /// assert_eq!(run(7), run(7));
    /// ```
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
/// ```
/// use ringwire::Request;
/// use ringwire::testing::{block_on, request};
///
/// async fn greet(request: Request) -> String {
///     format!("Hello, {}!", request.param("name"))
/// }
///
/// assert_eq!(block_on(greet(request("GET", "/greet/ann").param("name", "ann").build())), "Hello, ann!");
/// ```
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
