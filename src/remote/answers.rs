//! The answers to what went to cores from any thread: to be awaited, or waited for.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use crate::hub::Delivery;
use crate::mail::MailError;
use crate::runtime::Runtime;

/// An answer on its way: what became of a message, once every core concerned has looked. Await it, or
/// [`Delivering::wait`] on a thread of your own; dropping it changes nothing.
///
/// ```no_run
/// # fn main() -> ringwire::Result<()> {
/// # let handle = ringwire::Server::new(ringwire::Config::default()).start(ringwire::App::new)?;
/// let hub = handle.hub().clone();
/// std::thread::spawn(move || {
///     let told = hub.emit_to_all("tick", &1).map(|delivering| delivering.wait());
///     println!("{told:?}");
/// });
/// # handle.join()
/// # }
/// ```
#[derive(Debug)]
pub struct Delivering(pub(super) oneshot::Receiver<Delivery>);

impl Delivering {
    /// Blocks until the answer is there.
    ///
    /// ```no_run
    /// # fn example(hub: ringwire::Hub) -> Result<(), ringwire::EncodeError> {
    /// // On a thread of its own; tasks and handlers await it.
    /// let told = hub.send_to_room("lobby", "hello")?.wait();
    /// println!("{} have it, {} do not keep up", told.queued, told.dropped);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Panics
    /// On a core: in a handler, a hook or a task, which would wait for itself. Await it there.
    pub fn wait(self) -> Delivery {
        Runtime::refuse_to_block("Delivering::wait");
        self.0.recv().unwrap_or_default()
    }
}

impl IntoFuture for Delivering {
    type Output = Delivery;
    type IntoFuture = Answer<Delivery>;

    fn into_future(self) -> Answer<Delivery> {
        Answer(self.0.into_future(), Result::unwrap_or_default)
    }
}

/// The future of an answer.
#[derive(Debug)]
pub struct Answer<A, O = A>(oneshot::AsyncReceiver<A>, fn(Result<A, oneshot::RecvError>) -> O);

impl<A, O> Future for Answer<A, O> {
    type Output = O;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<O> {
        let finish = self.1;
        Pin::new(&mut self.0).poll(cx).map(finish)
    }
}

/// A question to a connection's core on its way.
///
/// ```
/// use ringwire::testing::TestServer;
/// use ringwire::{App, ConnectionId, ws};
///
/// let server = TestServer::new(|| App::new().ws("/", ws().on_connect(|socket| socket.id().to_string())));
/// let client = server.connect("/");
/// let id: ConnectionId = client.next_text().parse().unwrap();
/// match server.block_on(server.hub().connection(id)) {
///     Some(Some(info)) => assert_eq!(info.id, id),
///     Some(None) => println!("it has gone"),
///     None => println!("its core does not answer"),
/// }
/// ```
#[derive(Debug)]
pub struct Asking<A>(pub(super) oneshot::Receiver<Result<A, MailError>>);

impl<A> Asking<A> {
    /// Blocks until the answer is there; `None` if there will be none: the server has ended, or the core's mailbox is full.
    ///
    /// ```no_run
    /// # fn example(hub: ringwire::Hub, id: ringwire::ConnectionId) {
    /// // On a thread of its own; tasks and handlers await it.
    /// if let Some(Some(data)) = hub.data(id).wait() {
    ///     println!("{}", data["name"]);
    /// }
    /// # }
    /// ```
    ///
    /// # Panics
    /// On a core: in a handler, a hook or a task, which would wait for itself. Await it there.
    pub fn wait(self) -> Option<A> {
        Runtime::refuse_to_block("Asking::wait");
        self.0.recv().ok()?.ok()
    }
}

impl<A> Asking<A> {
    /// The answer, or why there will be none: the core's mailbox is full, the server has ended, or the machine that has the
    /// connection does not answer, and then it is not known whether what was asked was done.
    pub fn outcome(self) -> Answer<Result<A, MailError>> {
        Answer(self.0.into_future(), |answer| answer.unwrap_or(Err(MailError::Ended)))
    }
}

impl<A> IntoFuture for Asking<A> {
    type Output = Option<A>;
    type IntoFuture = Answer<Result<A, MailError>, Option<A>>;

    fn into_future(self) -> Self::IntoFuture {
        Answer(self.0.into_future(), |answer| answer.ok()?.ok())
    }
}
/// The answer; `None` if the core has ended.
pub(super) async fn answered<A>(question: oneshot::Receiver<Result<A, MailError>>) -> Result<Option<A>, MailError> {
    match question.await {
        Ok(Ok(answer)) => Ok(Some(answer)),
        Ok(Err(MailError::Ended)) | Err(_) => Ok(None),
        Ok(Err(error)) => Err(error),
    }
}
