//! The bridge to NATS: one thread with a runtime of its own, which no core waits for.
//!
//! What goes out waits in a queue with a bound and is dropped beyond it, with a count: where NATS is slow or away, nothing
//! gathers and nobody is held up. The client connects again by itself, with a delay that chance spreads.

use std::collections::HashMap;
use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use async_nats::connection::State;
use async_nats::{Client, ConnectOptions, Event, ServerAddr};
use crossbeam_channel::Receiver;
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use tokio::io::unix::AsyncFd;
use tokio::sync::Notify;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::JoinHandle as Task;

use super::board::{Board, Question};
use super::desk::{Desk, Incoming, Outgoing, Todo};
use super::line::{Arrived, LineSettings};
use super::node::{Identity, Manner, Node};
use super::way::{Backplane, Bells, House, Place};
use crate::config::{Config, Login, NatsUrls};
use crate::engine::chime::Chime;
use crate::error::{Error, Result};
use crate::hub::{Letter, NODES_MAX};
use crate::mail::{Mailbox, PostOffice, Wake};
use crate::outbox::Key;

/// Messages that wait to be sent, and their bytes.
const QUEUE_MAX: usize = 16_384;
const QUEUE_BYTES_MAX: usize = 32 << 20;
/// Messages of one subscription that wait to be read; the client drops what comes beyond.
const SUBSCRIPTION_MAX: usize = 1_024;
/// Messages handled between two looks at the cores' letters.
const BATCH: usize = 512;
/// How long a start waits to be one of the others.
const START_PATIENCE: Duration = Duration::from_secs(3);
/// How long an end waits for what is on its way.
const END_PATIENCE: Duration = Duration::from_secs(1);
/// How often the number of connections is looked at, and letters that found no room are tried again.
const LOOK: Duration = Duration::from_millis(100);
const LOOK_AGAIN: Duration = Duration::from_millis(1);
/// How often the round trip to the server is measured.
const ROUND_TRIP_EVERY: Duration = Duration::from_secs(5);

/// Machines joined by NATS.
pub(super) struct Nats {
    urls: NatsUrls,
    identity: Identity,
    line: LineSettings,
    mail_depth: usize,
    timeout: Duration,
    chime: Chime,
    notify: Arc<Notify>,
    board: Arc<Board>,
    questions: Receiver<Question>,
    mailbox: Option<Mailbox<Letter>>,
}

struct NotifyWake(Arc<Notify>);

impl Wake for NotifyWake {
    fn wake(&self) {
        self.0.notify_one();
    }
}

impl Nats {
    pub(super) fn new(config: &Config, urls: &NatsUrls) -> Result<Nats> {
        let number = random_number()?;
        let given = config.node_name.given().map(str::to_owned);
        let name = given.unwrap_or_else(|| format!("node-{number:06x}"));
        let started_ns = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64);
        let identity = Identity {
            prefix: config.nats_prefix.to_string(),
            name: name.clone(),
            number,
            started_ns,
            timeout_ns: config.node_timeout.as_nanos() as u64,
            // A message, what a batch has beside it, and all rooms of a page.
            message_bytes_max: config.message_bytes_max.saturating_add(1 << 20),
        };
        let line = LineSettings {
            prefix: identity.prefix.clone(),
            node: number,
            storage: config.nats_history,
            bytes_max: config.history_bytes_max,
            patience_ns: identity.timeout_ns / 2,
            unix_ns: started_ns,
            nonce: format!("{:x}{:04x}", started_ns, random_number()?),
        };
        let notify = Arc::new(Notify::new());
        let wake = Arc::new(NotifyWake(Arc::clone(&notify)));
        let (board, questions) = Board::new(name, number, config.nats_required, started_ns / 1_000_000, wake);
        let chime = Chime::new().map_err(Error::io("a ring for the bridge to NATS"))?;
        Ok(Nats {
            urls: urls.clone(),
            identity,
            line,
            mail_depth: config.mail_depth as usize,
            timeout: config.node_timeout,
            chime,
            notify,
            board,
            questions,
            mailbox: None,
        })
    }
}

/// None that is none's.
fn random_number() -> Result<u32> {
    let mut bytes = [0; 4];
    loop {
        getrandom::fill(&mut bytes).map_err(|error| Error::Internal(format!("no random numbers: {error}")))?;
        let number = u32::from_ne_bytes(bytes) % NODES_MAX;
        if number != 0 {
            return Ok(number);
        }
    }
}

impl Backplane for Nats {
    fn board(&self) -> Option<Arc<Board>> {
        Some(Arc::clone(&self.board))
    }

    fn join(&mut self, office: &mut PostOffice<Letter>) -> Option<Bells> {
        Key::share();
        self.mailbox = Some(office.add_bridge(self.mail_depth));
        let wake = Arc::new(NotifyWake(Arc::clone(&self.notify)));
        Some(Bells { doorbell: self.chime.doorbell(), wake })
    }

    fn start(mut self: Box<Self>, place: Place) -> Result<Option<JoinHandle<()>>> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(Error::io("a runtime for the bridge to NATS"))?;
        let mailbox = self.mailbox.take().expect("it has joined");
        let (news, told) = mpsc::channel();
        let name = self.identity.name.clone();
        let thread = thread::Builder::new()
            .name("ringwire-nats".into())
            .spawn(move || {
                let clock = Instant::now();
                let node = Node::new(self.identity.clone(), 0);
                let unix_ns = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64);
                let line = LineSettings { unix_ns, ..self.line.clone() };
                let (board, questions) = (Arc::clone(&self.board), self.questions.clone());
                let desk = Desk::new(node, line, mailbox, place.courier, board, questions);
                let settings = Settings { urls: self.urls, name: self.identity.name, timeout: self.timeout };
                let bridge = Bridge {
                    desk,
                    house: place.house,
                    connections: place.connections,
                    board: self.board,
                    clock,
                    queue: Queue::default(),
                    news: Some(news),
                    is_refused: false,
                    is_there: false,
                    was_there: false,
                };
                if let Err(error) = runtime.block_on(bridge.run(&settings, self.chime, &self.notify)) {
                    tracing::error!(%error, "the bridge to NATS has failed: this machine is alone");
                }
                // What the client still does is not waited for.
                runtime.shutdown_background();
            })
            .map_err(Error::io("starting the bridge to NATS"))?;
        match told.recv_timeout(START_PATIENCE) {
            Ok(Began::Joined) => {}
            Ok(Began::Refused) => {
                return Err(Error::Unavailable(format!(
                    "another machine is called {name}: RINGWIRE_NODE must differ from all others of this RINGWIRE_NATS_PREFIX"
                )));
            }
            Ok(Began::Failed(why)) => return Err(Error::Unavailable(why)),
            Err(_) => tracing::warn!("NATS does not answer: this machine is alone until it does"),
        }
        Ok(Some(thread))
    }
}

struct Settings {
    urls: NatsUrls,
    name: String,
    timeout: Duration,
}

/// How the start went.
enum Began {
    Joined,
    Refused,
    Failed(String),
}

async fn options(settings: &Settings, events: UnboundedSender<Event>) -> std::result::Result<ConnectOptions, String> {
    let ping = (settings.timeout / 4).clamp(Duration::from_millis(250), Duration::from_secs(10));
    let mut options = ConnectOptions::new()
        .name(format!("ringwire {}", settings.name))
        .no_echo()
        .retry_on_initial_connect()
        .ping_interval(ping)
        .connection_timeout(settings.timeout.max(Duration::from_secs(1)))
        .subscription_capacity(SUBSCRIPTION_MAX)
        .client_capacity(256)
        .reconnect_delay_callback(delay)
        .event_callback(move |event| {
            // Nobody listens any more at the end.
            let _ = events.send(event);
            async {}
        });
    for url in settings.urls.urls() {
        options = match &url.login {
            Some(Login::Token(token)) => options.token(token.clone()),
            Some(Login::Password(user, password)) => options.user_and_password(user.clone(), password.clone()),
            None => options,
        };
        if let Some(file) = &url.creds {
            options = options.credentials_file(file).await.map_err(|error| format!("{}: {error}", file.display()))?;
        }
        if let Some(file) = &url.ca {
            options = options.add_root_certificates(file.clone());
        }
        if url.tls {
            options = options.require_tls(true);
        }
    }
    Ok(options)
}

/// Up to two seconds, half of it by chance: machines that lost NATS together do not all come back at once.
fn delay(attempts: usize) -> Duration {
    let most_ms = (50_u64 << attempts.min(6)).min(2000);
    let mut byte = [0];
    // Without chance there is no spread, and no harm.
    let _ = getrandom::fill(&mut byte);
    Duration::from_millis(most_ms / 2 + most_ms * u64::from(byte[0]) / 512)
}

/// What is to be sent, on its way to the task that sends.
#[derive(Default)]
struct Queue {
    sender: Option<UnboundedSender<Op>>,
    fill: Arc<Fill>,
}

#[derive(Default)]
struct Fill {
    messages: AtomicUsize,
    bytes: AtomicUsize,
}

enum Op {
    Subscribe(String),
    Unsubscribe(String),
    /// One of all nodes is to get it.
    Share(String),
    Publish(Outgoing),
}

impl Queue {
    /// False if it was dropped.
    fn put(&self, op: Op) -> bool {
        if let Op::Publish(Outgoing { payload, .. }) = &op {
            let fill = &self.fill;
            let is_full = fill.messages.load(Ordering::Relaxed) >= QUEUE_MAX
                || fill.bytes.load(Ordering::Relaxed) + payload.len() > QUEUE_BYTES_MAX;
            if is_full {
                return false;
            }
            fill.messages.fetch_add(1, Ordering::Relaxed);
            fill.bytes.fetch_add(payload.len(), Ordering::Relaxed);
        }
        self.sender.as_ref().is_some_and(|sender| sender.send(op).is_ok())
    }
}

/// A message that has come; `is_shared`: to this node alone.
fn incoming(message: async_nats::Message, is_shared: bool) -> Incoming {
    let header = |name: &str| message.headers.as_ref().and_then(|headers| headers.get(name)).map(|value| value.as_str());
    let number = |name: &str| header(name).and_then(|value| value.parse().ok());
    let manner = Manner {
        is_binary: header("Content-Type") == Some("application/octet-stream"),
        is_uncompressed: header("Ringwire-Uncompressed") == Some("true"),
    };
    let (seq, last_seq) = (number("Nats-Sequence"), number("Nats-Last-Sequence"));
    let arrived = Arrived {
        subject: message.subject.to_string(),
        payload: message.payload,
        reply: message.reply.map(|reply| reply.to_string()),
        status: message.status.map(|status| status.as_u16()),
        seq,
        last_seq,
    };
    Incoming { arrived, manner, is_shared }
}

/// Does in their order what is to be sent and listened to.
async fn send_all(
    client: Client,
    mut ops: UnboundedReceiver<Op>,
    fill: Arc<Fill>,
    all: tokio::sync::mpsc::Sender<Incoming>,
) {
    let mut listening: HashMap<String, Task<()>> = HashMap::new();
    let listen = |mut messages: async_nats::Subscriber, is_shared: bool| {
        let all = all.clone();
        tokio::spawn(async move {
            while let Some(message) = messages.next().await {
                if all.send(incoming(message, is_shared)).await.is_err() {
                    break;
                }
            }
        })
    };
    let mut shares: Vec<(String, Task<()>)> = Vec::new();
    while let Some(op) = ops.recv().await {
        match op {
            Op::Publish(Outgoing { subject, reply, payload, .. }) => {
                let bytes = payload.len();
                // An error says that the client has ended.
                let _ = match reply {
                    Some(reply) => client.publish_with_reply(subject, reply, payload).await,
                    None => client.publish(subject, payload).await,
                };
                fill.messages.fetch_sub(1, Ordering::Relaxed);
                fill.bytes.fetch_sub(bytes, Ordering::Relaxed);
            }
            Op::Subscribe(subject) if listening.contains_key(&subject) => {}
            Op::Subscribe(subject) => {
                let Ok(messages) = client.subscribe(subject.clone()).await else { continue };
                listening.insert(subject, listen(messages, false));
            }
            Op::Share(subject) if shares.iter().any(|(shared, _)| *shared == subject) => {}
            Op::Share(subject) => {
                let group = String::from("ringwire");
                let Ok(messages) = client.queue_subscribe(subject.clone(), group).await else { continue };
                shares.push((subject, listen(messages, true)));
            }
            // What it listened with tells the server at its end.
            Op::Unsubscribe(subject) => drop(listening.remove(&subject).map(|task| task.abort())),
        }
    }
}

struct Bridge {
    desk: Desk,
    house: House,
    connections: Box<dyn Fn() -> u64 + Send>,
    board: Arc<Board>,
    clock: Instant,
    queue: Queue,
    /// Who waits for the start.
    news: Option<mpsc::Sender<Began>>,
    /// The log has it that the name is another machine's.
    is_refused: bool,
    /// What the node was told last of the bus.
    is_there: bool,
    was_there: bool,
}

impl Bridge {
    fn now_ns(&self) -> u64 {
        u64::try_from(self.clock.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    fn tell(&mut self, began: Began) {
        if let Some(news) = self.news.take() {
            let _ = news.send(began);
        }
    }

    async fn run(mut self, settings: &Settings, chime: Chime, notify: &Notify) -> std::result::Result<(), String> {
        #[allow(deprecated, reason = "what it became is unsafe, for descriptors that are closed too early: the chime owns its own")]
        let mut chime = AsyncFd::new(chime).map_err(|error| error.to_string())?;
        let (events_in, mut events) = unbounded_channel();
        let client = match self.connect(settings, events_in).await {
            Ok(client) => client,
            Err(why) => {
                self.tell(Began::Failed(why.clone()));
                return Err(why);
            }
        };
        let (incoming_in, mut incoming) = tokio::sync::mpsc::channel(SUBSCRIPTION_MAX);
        let (sender, ops) = unbounded_channel();
        self.queue.sender = Some(sender);
        let sending = tokio::spawn(send_all(client.clone(), ops, Arc::clone(&self.queue.fill), incoming_in));
        let mut answering = FuturesUnordered::new();
        let measuring = tokio::spawn(measure(client.clone(), Arc::clone(&self.board)));
        loop {
            self.look(&client);
            let now_ns = self.now_ns();
            self.desk.node.connections((self.connections)());
            self.desk.work(now_ns);
            while let Some(todo) = self.desk.next() {
                match todo {
                    Todo::Ask(to, ask) => {
                        let answer = (self.house)(ask);
                        answering.push(async move { (to, answer.await) });
                    }
                    todo => self.send(todo),
                }
            }
            if self.desk.is_over() {
                break;
            }
            let wait = match self.desk.is_held() {
                true => LOOK_AGAIN,
                false => LOOK.min(Duration::from_nanos(self.desk.due_ns().saturating_sub(now_ns))),
            };
            if !self.desk.park() {
                // There is more, and others have their turn.
                tokio::task::yield_now().await;
                continue;
            }
            tokio::select! {
                ready = chime.readable_mut() => {
                    if let Ok(mut ready) = ready {
                        ready.get_inner_mut().hush();
                        ready.clear_ready();
                    }
                }
                () = notify.notified() => {}
                Some(message) = incoming.recv() => {
                    self.take(message);
                    for _ in 1..BATCH {
                        let Ok(message) = incoming.try_recv() else { break };
                        self.take(message);
                    }
                }
                Some(event) = events.recv() => self.heed(&event, &client),
                Some((to, reply)) = next(&mut answering) => {
                    let now_ns = self.now_ns();
                    self.desk.answered(to, &reply, now_ns);
                }
                () = tokio::time::sleep(wait) => {}
            }
            self.desk.unpark();
        }
        let now_ns = self.now_ns();
        self.desk.node.end(now_ns);
        self.desk.work(now_ns);
        while let Some(todo) = self.desk.next() {
            self.send(todo);
        }
        measuring.abort();
        // Nothing more comes: what is queued is sent.
        self.queue.sender = None;
        let _ = tokio::time::timeout(END_PATIENCE, async {
            let _ = sending.await;
            let _ = client.drain().await;
            let _ = client.flush().await;
        })
        .await;
        Ok(())
    }

    async fn connect(
        &self,
        settings: &Settings,
        events: UnboundedSender<Event>,
    ) -> std::result::Result<Client, String> {
        let options = options(settings, events).await?;
        let servers = settings.urls.urls().iter().map(|url| url.to_string().parse::<ServerAddr>());
        let servers: Vec<ServerAddr> = servers.collect::<std::result::Result<_, _>>().map_err(|error| error.to_string())?;
        options.connect(servers).await.map_err(|error| format!("NATS: {error}"))
    }

    fn send(&mut self, todo: Todo) {
        let is_sent = match todo {
            Todo::Subscribe(subject) => self.queue.put(Op::Subscribe(subject)),
            Todo::Unsubscribe(subject) => self.queue.put(Op::Unsubscribe(subject)),
            Todo::Share(subject) => self.queue.put(Op::Share(subject)),
            Todo::Publish(message) => {
                let number = message.number;
                let is_sent = self.queue.put(Op::Publish(message));
                if let (false, Some(number)) = (is_sent, number) {
                    self.desk.not_sent(number);
                }
                is_sent
            }
            Todo::Joined => {
                tracing::info!(target: "ringwire::server", node = %self.board.name, "joined the other machines");
                self.is_refused = false;
                self.tell(Began::Joined);
                true
            }
            Todo::Refused => {
                // It asks again and again.
                if self.news.is_none() && !std::mem::replace(&mut self.is_refused, true) {
                    tracing::error!(node = %self.board.name, "another machine has this one's name: this machine is alone");
                }
                self.tell(Began::Refused);
                true
            }
            Todo::Ask(..) => true,
        };
        if !is_sent {
            self.board.counters.dropped_congested.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn take(&mut self, message: Incoming) {
        let now_ns = self.now_ns();
        self.desk.received(message, now_ns);
    }

    /// Whether the bus is there is asked, too: of many events at once the client may drop some.
    fn look(&mut self, client: &Client) {
        let is_there = client.connection_state() == State::Connected;
        if is_there != self.is_there {
            self.heed(if is_there { &Event::Connected } else { &Event::Disconnected }, client);
        }
    }

    fn heed(&mut self, event: &Event, client: &Client) {
        let now_ns = self.now_ns();
        match event {
            Event::Connected => {
                if std::mem::replace(&mut self.is_there, true) {
                    return;
                }
                if std::mem::replace(&mut self.was_there, true) {
                    self.board.counters.reconnects.fetch_add(1, Ordering::Relaxed);
                }
                tracing::info!(target: "ringwire::server", "connected to NATS");
                self.desk.connected(client.server_info().max_payload, now_ns);
            }
            Event::Disconnected | Event::Closed => {
                if std::mem::replace(&mut self.is_there, false) {
                    tracing::warn!(target: "ringwire::server", "NATS is away: this machine is alone until it is back");
                    self.desk.disconnected(now_ns);
                }
            }
            Event::SlowConsumer(_) => {
                self.board.counters.dropped_slow.fetch_add(1, Ordering::Relaxed);
                self.desk.doubt(now_ns);
            }
            Event::ServerError(error) => tracing::warn!(target: "ringwire::server", %error, "NATS says"),
            Event::ClientError(error) => tracing::debug!(target: "ringwire::server", %error, "the client of NATS says"),
            Event::LameDuckMode | Event::Draining => {}
        }
    }
}

/// The next of these; waits for ever while there is none.
async fn next<F: Future>(all: &mut FuturesUnordered<F>) -> Option<F::Output> {
    match all.next().await {
        Some(output) => Some(output),
        None => pending().await,
    }
}

/// Measures the way to the server and back: a question that nobody hears is answered by the server itself.
async fn measure(client: Client, board: Arc<Board>) {
    loop {
        tokio::time::sleep(ROUND_TRIP_EVERY).await;
        let subject = format!("_ringwire.{}.{:06x}", std::process::id(), board.number);
        let began = Instant::now();
        let asked = tokio::time::timeout(Duration::from_secs(5), client.request(subject, bytes::Bytes::new())).await;
        if asked.is_ok() {
            board.counters.round_trip_ns.store(began.elapsed().as_nanos() as u64, Ordering::Relaxed);
        }
    }
}
