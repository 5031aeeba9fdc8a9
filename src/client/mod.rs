//! The WebSocket client, on the same io_uring engine and the same protocol machine as the server.
//!
//! [`connect`] makes a [`Client`]: asynchronous, and bound to no executor. Its futures can be awaited in a handler or task
//! of a ringwire core, on tokio, or on anything else that polls futures. [`blocking`] is the same for programs that have
//! no use for futures, and [`Reconnecting`] keeps a connection up.
//!
//! ```no_run
//! # async fn example() -> Result<(), ringwire::client::ClientError> {
//! use ringwire::Json;
//! use ringwire::client::connect;
//!
//! let mut client = connect("ws://127.0.0.1:9001/echo").await?;
//! client.send("hello").await?;
//! client.send(Json([1, 2, 3])).await?;
//! while let Some(message) = client.recv().await {
//!     println!("{:?}", message?);
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # How it works
//!
//! All connections of the process are driven by one thread, which the first one starts, with a ring of its own. Users
//! encode and mask messages themselves, into the connection's queue; the thread sends what has been queued meanwhile in
//! one piece, and puts what it receives into the connection's inbox. Both are bounded ([`Connect::max_outbox`],
//! [`Connect::max_inbox`]): [`Client::send`] waits while the server does not read, and nothing more is read from a server
//! while nobody receives. Pings and Close frames are answered whether or not anybody receives, as long as the inbox has
//! room.
//!
//! Masking keys come from the kernel's random number generator (RFC 6455 5.3).
//!
//! Inside, what is known goes one way: an `order` says what is wanted; a `line` is what a user's handle and the thread share
//! of a connection, and knows neither; `letter` is the way to the thread; `conn` is what the thread knows of a connection,
//! `driver` its tick, on any ring and any clock, and `thread` the one that the process has; `connect` and the clients
//! use all of these. Of the server it knows nothing: no hub, no shard, no app.
//!
//! Of `wss://` the frames are sealed at the moment when they are sent, and opened where they were received (`seal`,
//! `secured`); whom
//! that trusts says [`Connect::tls`].
//!
//! Not in here: proxies, redirects.
//!
//! Knows of this crate: `closed`, `engine`, `guard`, `mail`, `message`, `proto`, `quote`, `runtime`, `tls`,
//! `wakers`.

pub mod blocking;
mod conn;
mod connect;
mod deflate;
mod delay;
mod driver;
mod error;
mod input;
mod keys;
mod letter;
mod life;
mod line;
mod order;
mod out;
mod reconnect;
mod resolve;
mod seal;
mod secured;
mod thread;
pub mod tls;

use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_core::Stream;
use http::HeaderMap;

pub use connect::{Connect, Connecting, connect};
pub use error::{ClientError, Refused, Waiting};

pub use reconnect::{Event, Reconnecting, ReconnectingSender};

use crate::closed::Closed;
use crate::message::{IntoMessage, OwnedMessage};
pub use crate::proto::ProtocolError;
pub use crate::proto::handshake::HandshakeError;
use crate::tls::TlsInfo;
use letter::Handle;
use line::{Opened, Queued};

#[cfg(feature = "unstable")]
#[doc(hidden)]
pub mod simulated;

/// The status and the excerpt of the body in an answer that refuses a handshake, for the fuzzer.
#[cfg(feature = "unstable")]
#[doc(hidden)]
pub fn read_refusal(bytes: &[u8]) -> Option<(u16, bytes::Bytes)> {
    match error::read_answer(bytes) {
        Ok(error::Answer::Whole(refused) | error::Answer::Partial(refused)) => {
            Some((refused.status.as_u16(), refused.body))
        }
        Ok(error::Answer::Interim) | Err(_) => None,
    }
}

/// A WebSocket connection to a server. Made by [`connect`].
///
/// Dropping it closes the connection with 1001 in the background; a program that ends right then may be faster, so
/// [`Client::close`] is the way to be sure.
///
/// It is also a [`Stream`] of messages.
///
/// ```no_run
/// # async fn example() -> Result<(), ringwire::client::ClientError> {
/// let mut client = ringwire::client::connect("ws://127.0.0.1:9001/echo").await?;
/// client.send("hello").await?;
/// println!("{:?}", client.recv().await);
/// # Ok(())
/// # }
/// ```
pub struct Client {
    handle: Handle,
    opened: Opened,
}

impl Client {
    fn new(handle: Handle, opened: Opened) -> Client {
        Client { handle, opened }
    }

    /// The subprotocol that the server chose (RFC 6455 1.9).
    ///
    /// ```no_run
    /// # async fn example(mut client: ringwire::client::Client) -> Result<(), ringwire::client::ClientError> {
    /// if client.protocol() != Some("v2") {
    ///     println!("an old server");
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn protocol(&self) -> Option<&str> {
        self.opened.protocol.as_deref()
    }

    /// The header fields of the server's answer to the handshake.
    ///
    /// ```no_run
    /// # async fn example(mut client: ringwire::client::Client) -> Result<(), ringwire::client::ClientError> {
    /// let server = client.headers().get("server");
    /// println!("{server:?}");
    /// # Ok(())
    /// # }
    /// ```
    pub fn headers(&self) -> &HeaderMap {
        &self.opened.headers
    }

    /// What the handshake of TLS has agreed on, if the connection is one of `wss://`.
    ///
    /// ```no_run
    /// # async fn example() -> Result<(), ringwire::client::ClientError> {
    /// let client = ringwire::client::connect("wss://chat.example.org/").await?;
    /// if let Some(tls) = client.tls() {
    ///     println!("{} {}", tls.version(), tls.cipher_suite());
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn tls(&self) -> Option<&TlsInfo> {
        self.opened.tls.as_deref()
    }

    /// Sends a message: text from strings, binary from bytes, text from [`Json`](crate::Json). Waits while more than
    /// [`Connect::max_outbox`] is waiting to be sent. Messages are sent in the order in which they were queued; a future
    /// that is dropped before it is done has queued nothing.
    ///
    /// ```no_run
    /// # async fn example(mut client: ringwire::client::Client) -> Result<(), ringwire::client::ClientError> {
    /// client.send("text").await?;
    /// client.send(vec![1, 2, 3]).await?;
    /// client.send(ringwire::Json([1, 2, 3])).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`ClientError::Closing`] or [`ClientError::Closed`] if nothing can be sent any more, [`ClientError::Encode`],
    /// [`ClientError::TooBig`]. That it is `Ok` does not mean that the server has got it.
    pub async fn send(&self, message: impl IntoMessage) -> Result<(), ClientError> {
        send(&self.handle, message).await
    }

    /// As [`Client::send`], without waiting.
    ///
    /// ```no_run
    /// # async fn example(mut client: ringwire::client::Client) -> Result<(), ringwire::client::ClientError> {
    /// use ringwire::client::ClientError;
    ///
    /// match client.try_send("the latest price") {
    ///     Err(ClientError::Full) => println!("the server does not keep up: this one is left out"),
    ///     sent => sent?,
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`ClientError::Full`] if it would have had to wait: the message is not queued then.
    pub fn try_send(&self, message: impl IntoMessage) -> Result<(), ClientError> {
        try_send(&self.handle, message)
    }

    /// The next message. After the last one, `None` if the connection was closed in order, by either side; if it was not,
    /// why, and `None` from then on. No message is lost if the future is dropped.
    ///
    /// ```no_run
    /// # async fn example(mut client: ringwire::client::Client) -> Result<(), ringwire::client::ClientError> {
    /// while let Some(message) = client.recv().await {
    ///     println!("{:?}", message?.as_text());
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`ClientError::Broken`], [`ClientError::Protocol`], or [`ClientError::Timeout`] for a ping that was not answered.
    pub async fn recv(&mut self) -> Option<Result<OwnedMessage, ClientError>> {
        poll_fn(|cx| self.handle.poll_recv(cx)).await
    }

    /// Pings the server and waits for its pong (RFC 6455 5.5.2). The pong comes behind the messages that the server sent
    /// before it: if those are more than [`Connect::max_inbox`], it is not seen before some of them are received.
    ///
    /// ```no_run
    /// # async fn example(mut client: ringwire::client::Client) -> Result<(), ringwire::client::ClientError> {
    /// let begun = std::time::Instant::now();
    /// client.ping().await?;
    /// println!("{:?} there and back", begun.elapsed());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// If the connection ends before.
    pub async fn ping(&self) -> Result<(), ClientError> {
        let number = self.handle.ping()?;
        let mut waiter = self.handle.line.waiter();
        poll_fn(|cx| self.handle.line.poll_pong(number, &mut waiter, cx)).await
    }

    /// Closes the connection behind everything queued (RFC 6455 7.1.2) and waits until the server has answered, or
    /// [`Connect::close_timeout`] is over; how it ended. What arrives from now on is discarded, and so is what the inbox had
    /// no room for; what is in it can still be received. The reason is cut to 123 bytes.
    ///
    /// ```no_run
    /// # async fn example(mut client: ringwire::client::Client) -> Result<(), ringwire::client::ClientError> {
    /// let closed = client.close(1000, "done").await?;
    /// assert!(closed.clean);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`ClientError::IllegalCloseCode`]: 1000-1003, 1007-1014 and 3000-4999 may be sent.
    pub async fn close(&mut self, code: u16, reason: &str) -> Result<Closed, ClientError> {
        self.handle.close(code, reason)?;
        let mut waiter = self.handle.line.waiter();
        let closed = poll_fn(|cx| self.handle.line.poll_closed(&mut waiter, cx)).await;
        closed.ok_or_else(|| ClientError::Unavailable("the client thread has ended".into()))
    }

    /// How the connection ended, if it has.
    ///
    /// ```no_run
    /// # async fn example(mut client: ringwire::client::Client) -> Result<(), ringwire::client::ClientError> {
    /// while client.recv().await.is_some() {}
    /// if let Some(closed) = client.closed() {
    ///     println!("{} {}", closed.code, closed.reason);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn closed(&self) -> Option<Closed> {
        self.handle.line.closed()
    }

    /// Whether messages can be queued: no side has closed the connection.
    ///
    /// ```no_run
    /// # async fn example(mut client: ringwire::client::Client) -> Result<(), ringwire::client::ClientError> {
    /// while client.is_open() {
    ///     client.send("once more").await?;
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn is_open(&self) -> bool {
        self.handle.line.is_open()
    }

    /// Another way to send, for other tasks and threads.
    ///
    /// ```no_run
    /// # async fn example(mut client: ringwire::client::Client) -> Result<(), ringwire::client::ClientError> {
    /// let sender = client.sender();
    /// std::thread::spawn(move || sender.try_send("from another thread"));
    /// # Ok(())
    /// # }
    /// ```
    pub fn sender(&self) -> Sender {
        Sender { handle: self.handle.clone() }
    }
}

impl Stream for Client {
    type Item = Result<OwnedMessage, ClientError>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.handle.poll_recv(cx)
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.handle.abandon();
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("opened", &self.opened).field("closed", &self.closed()).finish_non_exhaustive()
    }
}

/// Sends to a [`Client`]'s server from any task or thread. It does not keep the connection open.
///
/// ```no_run
/// # async fn example() -> Result<(), ringwire::client::ClientError> {
/// let mut client = ringwire::client::connect("ws://127.0.0.1:9001/echo").await?;
/// let sender = client.sender();
/// std::thread::spawn(move || sender.try_send("from another thread"));
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Sender {
    handle: Handle,
}

impl Sender {
    /// As [`Client::send`].
    ///
    /// ```no_run
    /// # async fn example(sender: ringwire::client::Sender) -> Result<(), ringwire::client::ClientError> {
    /// sender.send("waits while too much is waiting").await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`Client::send`].
    pub async fn send(&self, message: impl IntoMessage) -> Result<(), ClientError> {
        send(&self.handle, message).await
    }

    /// As [`Client::try_send`].
    ///
    /// ```no_run
    /// # async fn example(sender: ringwire::client::Sender) -> Result<(), ringwire::client::ClientError> {
    /// if sender.try_send("now or never").is_err() {
    ///     println!("left out");
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`Client::try_send`].
    pub fn try_send(&self, message: impl IntoMessage) -> Result<(), ClientError> {
        try_send(&self.handle, message)
    }

    /// Begins to close the connection, as [`Client::close`] does, without waiting.
    ///
    /// ```no_run
    /// # async fn example(sender: ringwire::client::Sender) -> Result<(), ringwire::client::ClientError> {
    /// sender.close(1000, "done")?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`ClientError::IllegalCloseCode`]
    pub fn close(&self, code: u16, reason: &str) -> Result<(), ClientError> {
        self.handle.close(code, reason)
    }

    /// As [`Client::is_open`].
    ///
    /// ```no_run
    /// # async fn example(sender: ringwire::client::Sender) -> Result<(), ringwire::client::ClientError> {
    /// if sender.is_open() {
    ///     sender.send("still there").await?;
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn is_open(&self) -> bool {
        self.handle.line.is_open()
    }
}

impl fmt::Debug for Sender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sender").field("is_open", &self.is_open()).finish_non_exhaustive()
    }
}

async fn send(handle: &Handle, message: impl IntoMessage) -> Result<(), ClientError> {
    match handle.try_queue(message)? {
        Queued::Yes => Ok(()),
        Queued::Later(mut later) => {
            let mut waiter = handle.line.waiter();
            poll_fn(|cx| handle.poll_queue(&mut later, &mut waiter, cx)).await
        }
    }
}

fn try_send(handle: &Handle, message: impl IntoMessage) -> Result<(), ClientError> {
    match handle.try_queue(message)? {
        Queued::Yes => Ok(()),
        Queued::Later(_) => Err(ClientError::Full),
    }
}
