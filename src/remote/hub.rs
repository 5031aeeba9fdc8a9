//! The hub as seen by threads that are no core.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use crate::admission::Admission;
use crate::backplane::Board;
use crate::hub::{CoreHub, Histories, Letter, Order, Shutdown, owners};
use crate::mail::{Courier, MailError};
use crate::message::Envelope;
use crate::metrics::Certificates;

/// The way to every connection of a running server from any thread; clones are the same. What it can do is in the
/// documentation of its methods: messages, events, rooms, data, counts.
///
/// ```
/// use ringwire::testing::TestServer;
/// use ringwire::{App, ws};
///
/// let server = TestServer::builder().cores(2).start(|| App::new().ws("/news", ws()));
/// let (ann, ben) = (server.connect("/news"), server.connect("/news"));
/// let hub = server.hub().clone(); // for another thread, or a task of another runtime
/// let told = server.block_on(hub.emit_to_all("headline", "it rains").unwrap());
/// assert_eq!(told.queued, 2);
/// [ann, ben].map(|client| assert_eq!(client.expect_event("headline"), "it rains"));
/// ```
#[derive(Clone)]
pub struct Hub {
    courier: Courier<Letter>,
    envelope: Arc<OnceLock<Envelope>>,
    admission: Arc<Admission>,
    on_shutdown: Arc<OnceLock<OnShutdown>>,
    certificates: Arc<Mutex<Certificates>>,
    others: Option<Arc<Board>>,
    histories: Arc<OnceLock<Arc<Histories>>>,
}

/// Tells whoever has started the server that it is to end, and within which time.
type OnShutdown = Box<dyn Fn(Option<Duration>) + Send + Sync>;

impl Hub {
    /// The way in through `courier`.
    pub(crate) fn new(courier: Courier<Letter>, admission: Arc<Admission>) -> Hub {
        Hub {
            courier,
            envelope: Arc::default(),
            admission,
            on_shutdown: Arc::default(),
            certificates: Arc::default(),
            others: None,
            histories: Arc::default(),
        }
    }

    /// Where somebody writes what is to be told of the server's certificates.
    #[cfg(feature = "tls")]
    pub(crate) fn with_certificates(self, certificates: Arc<Mutex<Certificates>>) -> Hub {
        Hub { certificates, ..self }
    }

    /// What is to be told of the server's certificates.
    pub(crate) fn certificates(&self) -> Certificates {
        self.certificates.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// This machine is one of several.
    pub(crate) fn with_others(self, others: Option<Arc<Board>>) -> Hub {
        Hub { others, ..self }
    }

    /// What is known of the other machines, where this one is to be one of several.
    pub(crate) fn others(&self) -> Option<&Arc<Board>> {
        self.others.as_ref()
    }

    /// Begins to drain, as [`Handle::shutdown`](crate::Handle::shutdown) does, from any thread, and from handlers and tasks
    /// too. Waits for nothing; when it is called again it does nothing more.
    ///
    /// ```
    /// use ringwire::{App, Request};
    ///
    /// App::new().post("/quit", async |request: Request| request.hub().shutdown());
    /// ```
    pub fn shutdown(&self) {
        self.drain(None);
    }

    /// As [`Hub::shutdown`], with a time of its own: whatever [`Config::drain_notice`](crate::Config),
    /// [`Config::drain_spread`](crate::Config) and [`Config::drain_timeout`](crate::Config) are, all connections have ended
    /// when it is over, those that have not closed by then without a word. Of a time too short for the former two the notice
    /// has half at most, and the spread half of the rest.
    ///
    /// It may be called again: the earliest end counts, so that a later call can shorten a drain, one by
    /// [`Hub::shutdown`] or a signal too, and none makes it longer. Waits for nothing; the handle's
    /// [`drain`](crate::Handle::drain) does.
    ///
    /// ```
    /// use ringwire::testing::TestServer;
    /// use ringwire::{App, Request, ws};
    /// use std::time::Duration;
    ///
    /// let quit = async |request: Request| request.hub().shutdown_within(Duration::from_secs(2));
    /// let server = TestServer::new(move || App::new().ws("/", ws()).post("/quit", quit));
    /// let client = server.connect("/");
    /// server.post("/quit").send();
    /// client.expect_close(1001);
    /// server.join();
    /// ```
    pub fn shutdown_within(&self, timeout: Duration) {
        self.drain(Some(timeout));
    }

    fn drain(&self, within: Option<Duration>) {
        for core in 0..self.cores() {
            // One that has ended needs no telling.
            let _ = self.courier.send_urgent(core, Shutdown::Drain { within }.into());
        }
        if let Some(on_shutdown) = self.on_shutdown.get() {
            on_shutdown(within);
        }
    }

    /// Calls this, too, when the server is told to end.
    pub(crate) fn tell_of_shutdown(&self, on_shutdown: impl Fn(Option<Duration>) + Send + Sync + 'static) {
        let _ = self.on_shutdown.set(Box::new(on_shutdown));
    }

    /// Whether the server is shutting down, or about to: it is true from the beginning of `RINGWIRE_DRAIN_NOTICE`, in which
    /// everybody is still served and let in.
    ///
    /// ```
    /// use ringwire::testing::TestServer;
    /// use ringwire::{App, HttpError, Request};
    ///
    /// async fn ready(request: Request) -> Result<&'static str, HttpError> {
    ///     if request.hub().is_draining() { Err(HttpError::unavailable("draining")) } else { Ok("ready") }
    /// }
    ///
    /// let server = TestServer::new(|| App::new().get("/ready", ready));
    /// assert_eq!(server.get("/ready").send().text(), "ready");
    /// ```
    pub fn is_draining(&self) -> bool {
        self.admission.is_leaving()
    }

    /// Whether the memory budget was spent, and not enough of it is free again: no WebSocket is let in.
    ///
    /// ```
    /// use ringwire::testing::TestServer;
    /// use ringwire::{App, Request};
    ///
    /// let memory = async |request: Request| if request.hub().is_out_of_memory() { "spent" } else { "fine" };
    /// let server = TestServer::new(move || App::new().get("/memory", memory));
    /// assert_eq!(server.get("/memory").send().text(), "fine");
    /// ```
    pub fn is_out_of_memory(&self) -> bool {
        self.admission.memory().is_spent()
    }

    /// The memory budget in bytes; 0 = none.
    pub(crate) fn memory_bytes_max(&self) -> u64 {
        self.admission.memory().bytes_max()
    }

    /// WebSockets now, over all cores.
    ///
    /// ```
    /// use ringwire::testing::TestServer;
    /// use ringwire::{App, ws};
    ///
    /// let server = TestServer::builder().cores(2).start(|| App::new().ws("/", ws()));
    /// let _clients = [server.connect("/"), server.connect("/"), server.connect("/")];
    /// assert_eq!(server.hub().websockets(), 3);
    /// ```
    pub fn websockets(&self) -> u32 {
        self.admission.connections()
    }

    /// Which rooms have a history, as the apps of all cores say.
    pub(crate) fn set_histories(&self, histories: &Arc<Histories>) {
        if let Some(others) = &self.others {
            let _ = others.histories.set(Arc::clone(histories));
        }
        // The first one counts, as all say the same.
        let _ = self.histories.set(Arc::clone(histories));
    }

    /// The core that owns a room.
    pub(super) fn owner(&self, room: &str) -> usize {
        owners(room, self.cores()).find(|core| !self.courier.has_ended(*core)).unwrap_or(0)
    }

    /// Whether a room has a history.
    pub(super) fn has_history(&self, room: &str) -> bool {
        self.histories.get().is_some_and(|histories| histories.of(room).is_some())
    }

    /// Sets how events are written; the first app that is made says it.
    pub(crate) fn set_envelope(&self, envelope: Envelope) {
        let _ = self.envelope.set(envelope);
    }

    pub(crate) fn envelope(&self) -> Envelope {
        self.envelope.get().copied().unwrap_or_default()
    }

    /// What tells the other cores that one has ended, when it is dropped.
    pub(crate) fn end_of(&self, core: usize) -> CoreEnd {
        CoreEnd { courier: self.courier.clone(), core }
    }

    pub(crate) fn courier(&self) -> &Courier<Letter> {
        &self.courier
    }

    /// The number of cores.
    ///
    /// ```
    /// use ringwire::testing::TestServer;
    /// use ringwire::App;
    ///
    /// let server = TestServer::builder().cores(3).start(App::new);
    /// assert_eq!(server.hub().cores(), 3);
    /// ```
    pub fn cores(&self) -> usize {
        self.courier.cores()
    }
}

/// Tells all other cores that one has ended, when it is dropped: after the core's mailbox, so that whatever was not read by
/// then never will be.
pub struct CoreEnd {
    courier: Courier<Letter>,
    core: usize,
}

impl Drop for CoreEnd {
    fn drop(&mut self) {
        let all = (0..self.courier.cores()).chain(self.courier.bridge());
        for other in all.filter(|other| *other != self.core) {
            // One that has ended itself does not need to know.
            let _ = self.courier.send_urgent(other, Order::CoreEnded { core: self.core }.into());
        }
    }
}

/// What tests ask of the cores; users do not see it.
#[doc(hidden)]
pub trait AskAll {
    /// Runs `ask` on every core and collects what it returns, in the order of cores. Blocks, so not on a core's thread.
    ///
    /// # Errors
    /// If a core's mailbox is full, or the core or `ask` has ended without an answer.
    fn ask_all<A: Send + 'static>(
        &self,
        ask: impl Fn(&mut CoreHub) -> A + Clone + Send + 'static,
    ) -> Result<Vec<A>, MailError>;
}

impl AskAll for Hub {
    fn ask_all<A: Send + 'static>(
        &self,
        ask: impl Fn(&mut CoreHub) -> A + Clone + Send + 'static,
    ) -> Result<Vec<A>, MailError> {
        let mut answers = Vec::new();
        for core in 0..self.cores() {
            let (letter, answer) = Letter::ask(ask.clone());
            self.courier.send(core, letter)?;
            answers.push(answer);
        }
        answers.into_iter().map(|answer| answer.recv().unwrap_or(Err(MailError::Ended))).collect()
    }
}
