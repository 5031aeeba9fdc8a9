//! The client without futures: each call blocks its thread until it is done.
//!
//! Not for a ringwire core's own thread, where every call panics, nor for an asynchronous runtime's: what blocks there blocks
//! everybody.
//!
//! ```no_run
//! # fn main() -> Result<(), ringwire::client::ClientError> {
//! let mut client = ringwire::client::blocking::connect("ws://127.0.0.1:9001/echo")?;
//! client.send("hello")?;
//! if let Some(message) = client.recv() {
//!     println!("{:?}", message?.as_text());
//! }
//! client.close(1000, "")?;
//! # Ok(())
//! # }
//! ```

use std::future::{Future, IntoFuture};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use http::HeaderMap;

use super::{ClientError, Connect, Sender, Waiting};
use crate::closed::Closed;
use crate::message::{IntoMessage, OwnedMessage};
use crate::runtime::Runtime;
use crate::tls::TlsInfo;

/// Connects to a `ws://` or `wss://` URL with the default settings; [`Connect::wait`] does so with others.
///
/// ```no_run
/// # fn main() -> Result<(), ringwire::client::ClientError> {
/// let client = ringwire::client::blocking::connect("ws://127.0.0.1:9001/echo")?;
/// client.send("hello")?;
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// See [`ClientError`].
pub fn connect(url: impl Into<String>) -> Result<Client, ClientError> {
    super::connect(url).wait()
}

impl Connect {
    /// Connects, blocking this thread.
    ///
    /// ```no_run
    /// # fn main() -> Result<(), ringwire::client::ClientError> {
    /// let client = ringwire::client::connect("ws://127.0.0.1:9001/echo").subprotocols(["v1"]).wait()?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn wait(self) -> Result<Client, ClientError> {
        Ok(Client { inner: block_on(self.into_future())? })
    }
}

/// A connection whose calls block. Made by [`connect`] or [`Connect::wait`]; dropping it closes the connection with 1001
/// in the background.
///
/// It is also an iterator over the messages.
///
/// ```no_run
/// # fn example(mut client: ringwire::client::blocking::Client) -> Result<(), ringwire::client::ClientError> {
/// for message in &mut client {
///     println!("{:?}", message?.as_text());
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Client {
    inner: super::Client,
}

impl Client {
    /// The subprotocol that the server chose.
    ///
    /// ```no_run
    /// # fn example(mut client: ringwire::client::blocking::Client) -> Result<(), ringwire::client::ClientError> {
    /// if client.protocol() != Some("v2") {
    ///     println!("an old server");
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn protocol(&self) -> Option<&str> {
        self.inner.protocol()
    }

    /// The header fields of the server's answer to the handshake.
    ///
    /// ```no_run
    /// # fn example(mut client: ringwire::client::blocking::Client) -> Result<(), ringwire::client::ClientError> {
    /// println!("{:?}", client.headers().get("server"));
    /// # Ok(())
    /// # }
    /// ```
    pub fn headers(&self) -> &HeaderMap {
        self.inner.headers()
    }

    /// What the handshake of TLS has agreed on, if the connection is one of `wss://`.
    ///
    /// ```no_run
    /// # fn example(client: ringwire::client::blocking::Client) {
    /// println!("{:?}", client.tls().map(|tls| tls.version()));
    /// # }
    /// ```
    pub fn tls(&self) -> Option<&TlsInfo> {
        self.inner.tls()
    }

    /// Sends a message; waits while too much is waiting to be sent.
    ///
    /// ```no_run
    /// # fn example(mut client: ringwire::client::blocking::Client) -> Result<(), ringwire::client::ClientError> {
    /// client.send("text")?;
    /// client.send(vec![1, 2, 3])?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`super::Client::send`].
    pub fn send(&self, message: impl IntoMessage) -> Result<(), ClientError> {
        block_on(self.inner.send(message))
    }

    /// The next message; waits for it.
    ///
    /// ```no_run
    /// # fn example(mut client: ringwire::client::blocking::Client) -> Result<(), ringwire::client::ClientError> {
    /// while let Some(message) = client.recv() {
    ///     println!("{:?}", message?.as_text());
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`super::Client::recv`].
    pub fn recv(&mut self) -> Option<Result<OwnedMessage, ClientError>> {
        block_on(self.inner.recv())
    }

    /// The next message; waits for it at most this long.
    ///
    /// ```no_run
    /// # fn example(mut client: ringwire::client::blocking::Client) -> Result<(), ringwire::client::ClientError> {
    /// use std::time::Duration;
    /// use ringwire::client::ClientError;
    ///
    /// match client.recv_timeout(Duration::from_secs(1)) {
    ///     Some(Ok(message)) => println!("{:?}", message.as_text()),
    ///     Some(Err(ClientError::Timeout(_))) => println!("nothing for a second"),
    ///     ended => println!("{ended:?}"),
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`ClientError::Timeout`] of [`Waiting::Message`] if none came, which leaves the connection as it was; else as
    /// [`super::Client::recv`].
    pub fn recv_timeout(&mut self, timeout: Duration) -> Option<Result<OwnedMessage, ClientError>> {
        let received = block_on_until(self.inner.recv(), Instant::now().checked_add(timeout));
        received.unwrap_or(Some(Err(ClientError::Timeout(Waiting::Message))))
    }

    /// Pings the server and waits for its pong.
    ///
    /// ```no_run
    /// # fn example(mut client: ringwire::client::blocking::Client) -> Result<(), ringwire::client::ClientError> {
    /// client.ping()?;
    /// println!("the server has read all that was sent before");
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// If the connection ends before.
    pub fn ping(&self) -> Result<(), ClientError> {
        block_on(self.inner.ping())
    }

    /// Closes the connection and waits until the server has answered; how it ended.
    ///
    /// ```no_run
    /// # fn example(mut client: ringwire::client::blocking::Client) -> Result<(), ringwire::client::ClientError> {
    /// let closed = client.close(1000, "done")?;
    /// assert!(closed.clean);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`super::Client::close`].
    pub fn close(&mut self, code: u16, reason: &str) -> Result<Closed, ClientError> {
        block_on(self.inner.close(code, reason))
    }

    /// How the connection ended, if it has.
    ///
    /// ```no_run
    /// # fn example(mut client: ringwire::client::blocking::Client) -> Result<(), ringwire::client::ClientError> {
    /// while client.recv().is_some() {}
    /// println!("{:?}", client.closed());
    /// # Ok(())
    /// # }
    /// ```
    pub fn closed(&self) -> Option<Closed> {
        self.inner.closed()
    }

    /// A way to send from other threads.
    ///
    /// ```no_run
    /// # fn example(mut client: ringwire::client::blocking::Client) -> Result<(), ringwire::client::ClientError> {
    /// let sender = client.sender();
    /// std::thread::spawn(move || sender.try_send("from another thread"));
    /// # Ok(())
    /// # }
    /// ```
    pub fn sender(&self) -> Sender {
        self.inner.sender()
    }

    /// The asynchronous face of the same connection.
    ///
    /// ```no_run
    /// # fn example(mut client: ringwire::client::blocking::Client) -> Result<(), ringwire::client::ClientError> {
    /// let mut client = client.into_async();
    /// ringwire::client::blocking::block_on(async {
    ///     client.send("the same connection").await
    /// })?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn into_async(self) -> super::Client {
        self.inner
    }
}

impl Iterator for Client {
    type Item = Result<OwnedMessage, ClientError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.recv()
    }
}

/// Wakes a thread that is parked.
struct Parker {
    thread: Thread,
    is_woken: AtomicBool,
}

impl Wake for Parker {
    fn wake(self: Arc<Parker>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Parker>) {
        if !self.is_woken.swap(true, Ordering::Release) {
            self.thread.unpark();
        }
    }
}

/// Runs a future of this module's on this thread until it is done, such as [`Reconnecting::next`](super::Reconnecting::next).
///
/// ```
/// assert_eq!(ringwire::client::blocking::block_on(async { 1 + 1 }), 2);
/// ```
pub fn block_on<F: Future>(future: F) -> F::Output {
    match block_on_until(future, None) {
        Some(output) => output,
        None => unreachable!("without a deadline it is done or waits"),
    }
}

fn block_on_until<F: Future>(future: F, deadline: Option<Instant>) -> Option<F::Output> {
    Runtime::refuse_to_block("the blocking client");
    let mut future = std::pin::pin!(future);
    let parker = Arc::new(Parker { thread: thread::current(), is_woken: AtomicBool::new(false) });
    let waker = Waker::from(Arc::clone(&parker));
    let mut cx = Context::from_waker(&waker);
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut cx) {
            return Some(output);
        }
        while !parker.is_woken.swap(false, Ordering::Acquire) {
            match deadline.map(|deadline| deadline.saturating_duration_since(Instant::now())) {
                None => thread::park(),
                Some(Duration::ZERO) => return None,
                Some(left) => thread::park_timeout(left),
            }
        }
    }
}
