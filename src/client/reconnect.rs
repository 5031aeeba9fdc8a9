//! A client that comes back.
//!
//! One attempt after the other: each is prepared, connects, is taken up again by the program, and only then is what others
//! send with. What the program gives (a factory, hooks) runs within [`Reconnecting::next`], and on no other thread.

use std::error::Error;
use std::fmt;
use std::future::{Future, IntoFuture, poll_fn};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use futures_core::Stream;
use http::StatusCode;

use super::delay::Delay;
use super::letter::Courier;
use super::{Client, ClientError, Connect, Connecting, Sender, keys, thread};
use crate::message::{IntoMessage, OwnedMessage};

/// Pings of a connection whose own interval was not set: half-open ones are found by nobody else.
const PING_INTERVAL: Duration = Duration::from_secs(30);

/// What happens to a [`Reconnecting`] client.
///
/// ```
/// use ringwire::client::Event;
///
/// fn show(event: Event) {
///     match event {
///         Event::Opened { .. } => println!("connected"),
///         Event::Message(message) => println!("{message:?}"),
///         Event::Closed { why, retry_in: Some(wait) } => println!("{why}; again in {wait:?}"),
///         Event::Closed { why, retry_in: None } => println!("{why}; that was all"),
///         _ => {}
///     }
/// }
/// ```
#[derive(Debug)]
#[non_exhaustive]
pub enum Event {
    /// The connection is open, and [`Reconnecting::on_open`] has done what it does. State that the server keeps per
    /// connection, such as joined rooms, has to be set up anew.
    Opened {
        /// The subprotocol that the server chose.
        protocol: Option<String>,
    },
    /// A message came.
    Message(OwnedMessage),
    /// The connection ended, or was not made.
    Closed {
        /// Why: [`ClientError::Closed`] if it was closed in order.
        why: ClientError,
        /// When the next attempt will be made; `None` if none will, because of [`Reconnecting::stop`], because the limit of
        /// attempts is reached, or because trying again would not help ([`Reconnecting::give_up_on`]).
        retry_in: Option<Duration>,
    },
}

/// Keeps a connection up: when it ends, or could not be made, tries again after 1 s, and after twice as long each time up
/// to 30 s; once it was open, after 1 s again. Each delay is multiplied by a random number between 0.5 and 1.5, so that
/// the clients of a server that restarts do not all come back at once.
///
/// It does so only while [`Reconnecting::next`] is awaited (or the [`Stream`] polled). Every end is a reason to try again,
/// a Close frame of any code included, but not a refusal with 401, 403 or 404: [`Reconnecting::give_up_on`] says which are.
/// [`Reconnecting::stop`] ends it.
///
/// A server that has gone without a word is found by pings, after 30 s of silence unless [`Connect::ping_interval`] is set.
///
/// Messages are not kept for the next connection: while there is none, sending is an error. Whether what was sent before
/// has arrived is unknown, and what to say on a new connection only the program knows: it says it in
/// [`Reconnecting::on_open`], before anybody else can send.
///
/// ```no_run
/// # async fn example() {
/// use ringwire::client::{Event, Reconnecting, connect};
///
/// let mut client = Reconnecting::new(connect("ws://127.0.0.1:9001/rooms/lobby"));
/// while let Some(event) = client.next().await {
///     match event {
///         Event::Opened { .. } => drop(client.send("here I am").await),
///         Event::Message(message) => println!("{message:?}"),
///         Event::Closed { why, retry_in } => eprintln!("{why}; again in {retry_in:?}"),
///         _ => {}
///     }
/// }
/// # }
/// ```
///
/// With a token that does not live long, and a subscription that is made anew each time:
///
/// ```no_run
/// # async fn fresh_token() -> Result<String, std::io::Error> { Ok(String::new()) }
/// use ringwire::client::{Client, ClientError, Reconnecting, connect};
///
/// let client = Reconnecting::with_factory(|| async {
///     let token = fresh_token().await?;
///     Ok::<_, std::io::Error>(connect("ws://127.0.0.1:9001/feed").header("authorization", format!("Bearer {token}")))
/// })
/// .on_open(|client: Client| async move {
///     client.send(r#"{"subscribe":"prices"}"#).await?;
///     Ok::<_, ClientError>(client)
/// });
/// ```
pub struct Reconnecting {
    hooks: Unshared<Hooks>,
    /// Whose clock the delays are on; the process's client thread's if none is known.
    courier: Option<Arc<Courier>>,
    first: Duration,
    longest: Duration,
    attempts_max: u32,
    delay: Duration,
    /// Attempts since it was last open.
    attempts: u32,
    stage: Stage,
    link: Arc<Mutex<Link>>,
}

enum Stage {
    Start,
    Preparing(Unshared<Boxed<Connect>>),
    Connecting(Connecting),
    Resuming(Unshared<Boxed<Client>>),
    Up(Client),
    Waiting(Delay),
    Over,
}

type Boxed<T> = Pin<Box<dyn Future<Output = Result<T, ClientError>> + Send>>;

/// What the program does.
struct Hooks {
    prepare: Box<dyn FnMut() -> Boxed<Connect> + Send>,
    on_open: Option<Box<dyn FnMut(Client) -> Boxed<Client> + Send>>,
    gives_up_on: Box<dyn Fn(&ClientError) -> bool + Send>,
}

/// What only `&mut` reaches: threads may share what contains it, and the futures that borrow that can move between them,
/// whatever the program's closures are.
struct Unshared<T>(Mutex<T>);

impl<T> Unshared<T> {
    fn new(value: T) -> Unshared<T> {
        Unshared(Mutex::new(value))
    }

    fn get(&mut self) -> &mut T {
        self.0.get_mut().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A program's error, as one of ours if it is one.
fn of_program(
    error: impl Into<Box<dyn Error + Send + Sync>>,
    other: impl FnOnce(Box<dyn Error + Send + Sync>) -> ClientError,
) -> ClientError {
    match error.into().downcast::<ClientError>() {
        Ok(own) => *own,
        Err(error) => other(error),
    }
}

/// Whether it is not tried again after this, unless the program says otherwise.
fn gives_up_on(why: &ClientError) -> bool {
    let refused = [StatusCode::UNAUTHORIZED, StatusCode::FORBIDDEN, StatusCode::NOT_FOUND];
    why.is_permanent() || why.status().is_some_and(|status| refused.contains(&status))
}

/// What the client shares with its senders.
#[derive(Default)]
struct Link {
    sender: Option<Sender>,
    is_stopped: bool,
    waker: Option<Waker>,
}

fn lock(link: &Mutex<Link>) -> MutexGuard<'_, Link> {
    link.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Reconnecting {
    /// Will connect as `connect` says, when [`Reconnecting::next`] is first awaited.
    ///
    /// ```no_run
    /// use ringwire::client::{Event, Reconnecting, connect};
    ///
    /// # async fn example() {
    /// let mut client = Reconnecting::new(connect("ws://127.0.0.1:9001/feed").header("authorization", "Bearer secret"));
    /// while let Some(event) = client.next().await {
    ///     if let Event::Message(message) = event {
    ///         println!("{message:?}");
    ///     }
    /// }
    /// # }
    /// ```
    pub fn new(connect: Connect) -> Reconnecting {
        let courier = connect.own_courier();
        let client = Reconnecting::with_factory(move || std::future::ready(Ok::<_, ClientError>(connect.clone())));
        Reconnecting { courier, ..client }
    }

    /// Asks `factory` before each attempt how to connect, the first one included: for URLs, header fields and tokens that
    /// do not stay the same. It has as much time as it takes.
    ///
    /// A factory that fails is an attempt that has failed, with [`ClientError::Prepare`]; a [`ClientError`] of its own is
    /// told as it is.
    ///
    /// ```
    /// use ringwire::client::{Reconnecting, connect};
    ///
    /// // Another server each time.
    /// let mut hosts = ["a.example", "b.example"].into_iter().cycle();
    /// let client = Reconnecting::with_factory(move || {
    ///     let host = hosts.next().unwrap_or_default();
    ///     async move { Ok::<_, std::io::Error>(connect(format!("ws://{host}/feed"))) }
    /// });
    /// ```
    pub fn with_factory<F, E>(mut factory: impl FnMut() -> F + Send + 'static) -> Reconnecting
    where
        F: Future<Output = Result<Connect, E>> + Send + 'static,
        E: Into<Box<dyn Error + Send + Sync>>,
    {
        let prepare = move || -> Boxed<Connect> {
            let preparing = factory();
            Box::pin(async {
                preparing.await.map_err(|error| of_program(error, |source| ClientError::Prepare { source }))
            })
        };
        let hooks = Hooks { prepare: Box::new(prepare), on_open: None, gives_up_on: Box::new(gives_up_on) };
        let first = Duration::from_secs(1);
        Reconnecting {
            hooks: Unshared::new(hooks),
            courier: None,
            first,
            longest: Duration::from_secs(30),
            attempts_max: u32::MAX,
            delay: first,
            attempts: 0,
            stage: Stage::Start,
            link: Arc::default(),
        }
    }

    /// The first delay, and the longest up to which it doubles, both before they are multiplied by the random number.
    ///
    /// ```
    /// use ringwire::client::{Reconnecting, connect};
    /// use std::time::Duration;
    ///
    /// let client = Reconnecting::new(connect("ws://127.0.0.1:9001/feed"))
    ///     .delays(Duration::from_millis(100), Duration::from_secs(5));
    /// ```
    #[must_use]
    pub fn delays(mut self, first: Duration, longest: Duration) -> Reconnecting {
        self.first = first;
        self.delay = first;
        self.longest = longest.max(first);
        self
    }

    /// Gives up after so many attempts in a row that have not led to an open connection.
    ///
    /// ```no_run
    /// use ringwire::client::{Event, Reconnecting, connect};
    ///
    /// # async fn example() {
    /// let mut client = Reconnecting::new(connect("ws://127.0.0.1:9001/feed")).max_attempts(3);
    /// while let Some(event) = client.next().await {
    ///     if let Event::Closed { why, retry_in: None } = event {
    ///         eprintln!("given up: {why}");
    ///     }
    /// }
    /// # }
    /// ```
    #[must_use]
    pub fn max_attempts(mut self, attempts: u32) -> Reconnecting {
        self.attempts_max = attempts;
        self
    }

    /// After what it does not try again, instead of after what [`ClientError::is_permanent`], and after refusals with 401, 403
    /// or 404. It is asked about every end of a connection too, which [`ClientError::Closed`] tells.
    ///
    /// ```
    /// use http::StatusCode;
    /// use ringwire::client::{ClientError, Reconnecting, connect};
    ///
    /// let client = Reconnecting::new(connect("ws://127.0.0.1:9001/feed")).give_up_on(|why| match why {
    ///     // The server says that this user has been thrown out.
    ///     ClientError::Closed(closed) => closed.code == 4003,
    ///     // A token that was refused is not used again: the factory gets another one.
    ///     _ => why.is_permanent() || why.status() == Some(StatusCode::FORBIDDEN),
    /// });
    /// ```
    #[must_use]
    pub fn give_up_on(mut self, gives_up: impl Fn(&ClientError) -> bool + Send + 'static) -> Reconnecting {
        self.hooks.get().gives_up_on = Box::new(gives_up);
        self
    }

    /// Does this on each new connection, the first one included, before [`Event::Opened`], and before anybody else can send:
    /// what it sends, such as subscriptions, is the first that the server gets. It may wait for the answers; what it
    /// receives is no [`Event::Message`] then. It gives the client back.
    ///
    /// If it fails, the connection is dropped, which is an attempt that has failed, with [`ClientError::Resume`]; a
    /// [`ClientError`] of its own is told as it is. The last one set counts.
    ///
    /// ```
    /// use ringwire::client::{Client, ClientError, Reconnecting, connect};
    ///
    /// let client = Reconnecting::new(connect("ws://127.0.0.1:9001/feed")).on_open(|mut client: Client| async move {
    ///     client.send("subscribe prices").await?;
    ///     match client.recv().await.transpose()?.as_ref().and_then(|answer| answer.as_text()) {
    ///         Some("subscribed") => Ok(client),
    ///         _ => Err(Box::<dyn std::error::Error + Send + Sync>::from("not subscribed")),
    ///     }
    /// });
    /// ```
    #[must_use]
    pub fn on_open<F, E>(mut self, mut hook: impl FnMut(Client) -> F + Send + 'static) -> Reconnecting
    where
        F: Future<Output = Result<Client, E>> + Send + 'static,
        E: Into<Box<dyn Error + Send + Sync>>,
    {
        self.hooks.get().on_open = Some(Box::new(move |client| -> Boxed<Client> {
            let resuming = hook(client);
            Box::pin(async {
                resuming.await.map_err(|error| of_program(error, |source| ClientError::Resume { source }))
            })
        }));
        self
    }

    /// Waits on another driver's clock than the process's client thread's.
    #[cfg(feature = "unstable")]
    pub(crate) fn through(mut self, courier: &Arc<Courier>) -> Reconnecting {
        self.courier = Some(Arc::clone(courier));
        self
    }

    /// What happens next; `None` once it was stopped, or has given up. No event is lost if the future is dropped.
    ///
    /// ```no_run
    /// use ringwire::client::Event;
    ///
    /// # async fn example(mut client: ringwire::client::Reconnecting) {
    /// while let Some(event) = client.next().await {
    ///     match event {
    ///         Event::Message(message) => println!("{message:?}"),
    ///         other => println!("{other:?}"),
    ///     }
    /// }
    /// # }
    /// ```
    pub async fn next(&mut self) -> Option<Event> {
        poll_fn(|cx| self.poll_event(cx)).await
    }

    /// Sends a message on the connection there is.
    ///
    /// ```no_run
    /// use ringwire::client::{ClientError, Reconnecting};
    ///
    /// # async fn example(client: Reconnecting) -> Result<(), ClientError> {
    /// match client.send("hello").await {
    ///     Err(ClientError::NotConnected) => println!("not at the moment"),
    ///     sent => sent?,
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`ClientError::NotConnected`] while there is none; else as [`Client::send`].
    pub async fn send(&self, message: impl IntoMessage) -> Result<(), ClientError> {
        self.sender().send(message).await
    }

    /// Ends it: closes the connection with 1000 if there is one, and tries no more. Then [`Reconnecting::next`] gives what is
    /// left, a last [`Event::Closed`], and `None`.
    ///
    /// ```no_run
    /// use ringwire::client::Event;
    ///
    /// # async fn example(mut client: ringwire::client::Reconnecting) {
    /// while let Some(event) = client.next().await {
    ///     if matches!(event, Event::Message(message) if message.as_text() == Some("that was all")) {
    ///         client.stop();
    ///     }
    /// }
    /// # }
    /// ```
    pub fn stop(&self) {
        self.sender().stop();
    }

    /// A way to send, and to stop it, for other tasks and threads.
    ///
    /// ```no_run
    /// # fn example(client: ringwire::client::Reconnecting) {
    /// let sender = client.sender();
    /// std::thread::spawn(move || {
    ///     if let Err(error) = sender.try_send("from another thread") {
    ///         eprintln!("{error}");
    ///     }
    /// });
    /// # }
    /// ```
    pub fn sender(&self) -> ReconnectingSender {
        ReconnectingSender { link: Arc::clone(&self.link) }
    }

    fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<Option<Event>> {
        let is_stopped = {
            let mut link = lock(&self.link);
            let former = link.waker.replace(cx.waker().clone());
            let is_stopped = link.is_stopped;
            drop(link);
            drop(former);
            is_stopped
        };
        loop {
            match &mut self.stage {
                Stage::Start | Stage::Preparing(_) | Stage::Connecting(_) | Stage::Resuming(_) | Stage::Waiting(_)
                    if is_stopped =>
                {
                    self.stage = Stage::Over;
                    let why = ClientError::NotConnected;
                    return Poll::Ready(Some(Event::Closed { why, retry_in: None }));
                }
                Stage::Start => {
                    self.attempts += 1;
                    let preparing = (self.hooks.get().prepare)();
                    self.stage = Stage::Preparing(Unshared::new(preparing));
                }
                Stage::Preparing(preparing) => match preparing.get().as_mut().poll(cx) {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(Ok(connect)) => {
                        let connecting = connect.ping_interval_if_unset(PING_INTERVAL).into_future();
                        self.stage = Stage::Connecting(connecting);
                    }
                    Poll::Ready(Err(why)) => return Poll::Ready(Some(self.down(why))),
                },
                Stage::Connecting(connecting) => match Pin::new(connecting).poll(cx) {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(Ok(client)) => match &mut self.hooks.get().on_open {
                        None => return Poll::Ready(Some(self.opened(client))),
                        Some(on_open) => self.stage = Stage::Resuming(Unshared::new(on_open(client))),
                    },
                    Poll::Ready(Err(why)) => return Poll::Ready(Some(self.down(why))),
                },
                Stage::Resuming(resuming) => match resuming.get().as_mut().poll(cx) {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(Ok(client)) => return Poll::Ready(Some(self.opened(client))),
                    Poll::Ready(Err(why)) => return Poll::Ready(Some(self.down(why))),
                },
                Stage::Up(client) => match Pin::new(&mut *client).poll_next(cx) {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(Some(Ok(message))) => return Poll::Ready(Some(Event::Message(message))),
                    Poll::Ready(Some(Err(why))) => return Poll::Ready(Some(self.down(why))),
                    Poll::Ready(None) => {
                        let why = client.closed().map_or(ClientError::Closing, ClientError::Closed);
                        return Poll::Ready(Some(self.down(why)));
                    }
                },
                Stage::Waiting(delay) => match Pin::new(delay).poll(cx) {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(()) => self.stage = Stage::Start,
                },
                Stage::Over => return Poll::Ready(None),
            }
        }
    }

    fn opened(&mut self, client: Client) -> Event {
        self.delay = self.first;
        self.attempts = 0;
        let mut link = lock(&self.link);
        link.sender = Some(client.sender());
        if link.is_stopped {
            // It was stopped while this poll was under way.
            let _ = client.sender().close(1000, "");
        }
        drop(link);
        let protocol = client.protocol().map(str::to_owned);
        self.stage = Stage::Up(client);
        Event::Opened { protocol }
    }

    fn down(&mut self, why: ClientError) -> Event {
        let is_stopped = {
            let mut link = lock(&self.link);
            link.sender = None;
            link.is_stopped
        };
        if is_stopped || self.attempts >= self.attempts_max || (self.hooks.get().gives_up_on)(&why) {
            self.stage = Stage::Over;
            return Event::Closed { why, retry_in: None };
        }
        let retry_in = jittered(self.delay);
        self.delay = (self.delay * 2).min(self.longest);
        match self.courier.clone().map_or_else(thread::courier, Ok) {
            Ok(courier) => self.stage = Stage::Waiting(courier.delay(retry_in)),
            Err(why) => {
                self.stage = Stage::Over;
                return Event::Closed { why, retry_in: None };
            }
        }
        Event::Closed { why, retry_in: Some(retry_in) }
    }
}

/// Half to one and a half of a delay, evenly distributed.
fn jittered(delay: Duration) -> Duration {
    // Without random bytes there is no handshake either; then the delay is not what matters.
    let random = keys::random().map_or(1 << 31, u32::from_ne_bytes);
    delay.mul_f64(0.5 + f64::from(random) / (f64::from(u32::MAX) + 1.0))
}

impl Stream for Reconnecting {
    type Item = Event;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Event>> {
        self.poll_event(cx)
    }
}

impl fmt::Debug for Reconnecting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let is_open = matches!(self.stage, Stage::Up(_));
        f.debug_struct("Reconnecting").field("is_open", &is_open).finish_non_exhaustive()
    }
}

/// Sends on a [`Reconnecting`] client's current connection, from any task or thread.
///
/// ```no_run
/// # async fn example(client: ringwire::client::Reconnecting) -> Result<(), ringwire::client::ClientError> {
/// let sender = client.sender(); // clones go to as many tasks and threads as there are
/// if sender.is_open() {
///     sender.send("hello").await?;
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct ReconnectingSender {
    link: Arc<Mutex<Link>>,
}

impl ReconnectingSender {
    fn current(&self) -> Result<Sender, ClientError> {
        lock(&self.link).sender.clone().ok_or(ClientError::NotConnected)
    }

    /// As [`Reconnecting::send`].
    ///
    /// ```no_run
    /// # async fn example(sender: ringwire::client::ReconnectingSender) -> Result<(), ringwire::client::ClientError> {
    /// sender.send("waits while too much is waiting, and not for a connection").await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`Reconnecting::send`].
    pub async fn send(&self, message: impl IntoMessage) -> Result<(), ClientError> {
        self.current()?.send(message).await
    }

    /// As [`Client::try_send`], on the connection there is.
    ///
    /// ```no_run
    /// # async fn example(sender: ringwire::client::ReconnectingSender) -> Result<(), ringwire::client::ClientError> {
    /// if sender.try_send("now or never").is_err() {
    ///     println!("left out");
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`ClientError::NotConnected`] while there is none; else as [`Client::try_send`].
    pub fn try_send(&self, message: impl IntoMessage) -> Result<(), ClientError> {
        self.current()?.try_send(message)
    }

    /// Whether there is a connection on which messages can be queued.
    ///
    /// ```no_run
    /// # async fn example(sender: ringwire::client::ReconnectingSender) -> Result<(), ringwire::client::ClientError> {
    /// if !sender.is_open() {
    ///     println!("no connection at the moment");
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn is_open(&self) -> bool {
        self.current().is_ok_and(|sender| sender.is_open())
    }

    /// As [`Reconnecting::stop`].
    ///
    /// ```no_run
    /// # async fn example(sender: ringwire::client::ReconnectingSender) -> Result<(), ringwire::client::ClientError> {
    /// sender.send("bye").await?;
    /// sender.stop();
    /// # Ok(())
    /// # }
    /// ```
    pub fn stop(&self) {
        let (sender, waker) = {
            let mut link = lock(&self.link);
            link.is_stopped = true;
            (link.sender.clone(), link.waker.take())
        };
        if let Some(sender) = sender {
            // 1000 is a legal code.
            let _ = sender.close(1000, "");
        }
        waker.into_iter().for_each(Waker::wake);
    }
}

impl fmt::Debug for ReconnectingSender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReconnectingSender").field("is_open", &self.is_open()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jitter_is_half_to_one_and_a_half_and_spread() {
        let delays: Vec<f64> = (0..1000).map(|_| jittered(Duration::from_secs(1)).as_secs_f64()).collect();
        assert!(delays.iter().all(|delay| (0.5..1.5).contains(delay)));
        let mean = delays.iter().sum::<f64>() / 1000.0;
        assert!((0.95..1.05).contains(&mean), "{mean}");
    }

    /// Kills: a client whose futures cannot be spawned on a runtime of many threads because of what its hooks are.
    #[test]
    fn it_and_its_futures_may_move_between_threads() {
        fn is_shared<T: Send + Sync>(_: &T) {}
        fn is_sent<T: Send>(_: &T) {}
        let mut client = Reconnecting::new(super::super::connect("ws://127.0.0.1:1"));
        is_shared(&client);
        is_sent(&client.send("x"));
        is_sent(&client.next());
    }

    #[test]
    fn delays_double_to_the_longest() {
        let mut client = Reconnecting::new(super::super::connect("ws://127.0.0.1:1"));
        let mut seen = Vec::new();
        for _ in 0..7 {
            seen.push(client.delay.as_secs());
            let _ = client.down(ClientError::Closing);
        }
        assert_eq!(seen, [1, 2, 4, 8, 16, 30, 30]);
        client.delay = client.first;
    }
}
