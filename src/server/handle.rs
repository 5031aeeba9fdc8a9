//! A running server, as whoever has started it holds it.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use super::board::Board;
use super::listen::BoundAddress;
#[cfg(feature = "tls")]
use super::renewal::Renewal;
use super::news::Ending;
use crate::admission::Admission;
use crate::error::Result;
use crate::remote::Hub;
use crate::runtime::Runtime;

/// A running server; clones are the same one. Dropping them lets the server run on; [`Handle::shutdown`],
/// [`Handle::drain`] and [`Handle::join`] end it.
///
/// ```no_run
/// use std::time::Duration;
/// use ringwire::{App, Config, Server};
///
/// # async fn example() -> ringwire::Result<()> {
/// let handle = Server::new(Config::default()).start(App::new)?;
/// let stopping = handle.clone();
/// std::thread::spawn(move || {
///     // … when it is time:
///     stopping.shutdown();
/// });
/// // Or here, on any runtime:
/// handle.drain(Duration::from_secs(20)).await
/// # }
/// ```
#[derive(Clone)]
pub struct Handle {
    ending: Ending,
    board: Arc<Board>,
    place: Arc<Place>,
}

/// Where a server is, and how large.
pub(super) struct Place {
    pub(super) addresses: Vec<BoundAddress>,
    pub(super) admin_addresses: Vec<BoundAddress>,
    pub(super) admission: Arc<Admission>,
    pub(super) cores: usize,
    /// What renews the certificates, if they come from files.
    #[cfg(feature = "tls")]
    pub(super) renewal: Option<Renewal>,
}

impl Handle {
    pub(super) fn new(ending: Ending, board: Arc<Board>, place: Place) -> Handle {
        Handle { ending, board, place: Arc::new(place) }
    }

    pub(super) fn ending(&self) -> Ending {
        self.ending.clone()
    }

    #[cfg(feature = "tls")]
    pub(super) fn renewal(&self) -> Option<&Renewal> {
        self.place.renewal.as_ref()
    }

    /// Has the files of the certificates read again, as SIGHUP does where the server is run, and a change of the files within
    /// ten seconds; returns before that is done. Files that cannot be used are refused, which the log tells: what was there
    /// before stays. False if the certificates are not from files.
    ///
    /// ```no_run
    /// # fn example(handle: ringwire::Handle) -> ringwire::Result<()> {
    /// // New files are in place:
    /// if !handle.renew_certificates() {
    ///     println!("this server's certificates are not from files");
    /// }
    /// # Ok(())
    /// # }
    /// ```
    #[cfg(feature = "tls")]
    pub fn renew_certificates(&self) -> bool {
        self.renewal().is_some_and(Renewal::nudge)
    }

    /// Where it listens, with real port numbers.
    ///
    /// ```no_run
    /// # fn example(handle: ringwire::Handle) -> ringwire::Result<()> {
    /// let port = handle.addresses().iter().find_map(|address| address.inet()).map(|address| address.port());
    /// println!("{port:?}");
    /// # Ok(())
    /// # }
    /// ```
    pub fn addresses(&self) -> &[BoundAddress] {
        &self.place.addresses
    }

    /// Where it listens for operators, if that is elsewhere.
    ///
    /// ```no_run
    /// # fn example(handle: ringwire::Handle) -> ringwire::Result<()> {
    /// for address in handle.admin_addresses() {
    ///     println!("metrics are at {}/metrics", address.to_http());
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn admin_addresses(&self) -> &[BoundAddress] {
        &self.place.admin_addresses
    }

    /// The number of cores.
    ///
    /// ```no_run
    /// # fn example(handle: ringwire::Handle) -> ringwire::Result<()> {
    /// println!("{} connections on {} cores", handle.connections(), handle.cores());
    /// # Ok(())
    /// # }
    /// ```
    pub fn cores(&self) -> usize {
        self.place.cores
    }

    /// The way to its connections from any thread.
    ///
    /// ```no_run
    /// # fn example(handle: ringwire::Handle) -> ringwire::Result<()> {
    /// let hub = handle.hub().clone();
    /// std::thread::spawn(move || {
    ///     let told = hub.emit_to_all("news", "it rains").map(|told| told.wait().queued);
    ///     println!("{told:?} were told");
    /// });
    /// # Ok(())
    /// # }
    /// ```
    pub fn hub(&self) -> &Hub {
        &self.ending.hub
    }

    /// WebSockets now, over all cores.
    ///
    /// ```no_run
    /// # fn example(handle: ringwire::Handle) -> ringwire::Result<()> {
    /// while handle.connections() > 0 {
    ///     std::thread::sleep(std::time::Duration::from_secs(1));
    /// }
    /// handle.shutdown();
    /// # Ok(())
    /// # }
    /// ```
    pub fn connections(&self) -> u32 {
        self.place.admission.connections()
    }

    /// Begins to drain: no more is accepted, every connection gets Close 1001, what is queued is delivered. Operators' address
    /// ([`Config::admin_address`](crate::Config::admin_address)) answers until the end. Waits for nothing.
    ///
    /// ```no_run
    /// # fn example(handle: ringwire::Handle) -> ringwire::Result<()> {
    /// handle.shutdown();
    /// handle.join()?; // when everybody has been told
    /// # Ok(())
    /// # }
    /// ```
    pub fn shutdown(&self) {
        self.ending.drain();
    }

    /// Begins to drain, as [`Hub::shutdown_within`] does: all connections have ended when `timeout` is over, whatever the
    /// settings say. What it returns tells when every core has ended: a future on any runtime, or [`Draining::wait`].
    /// Dropping that changes nothing.
    ///
    /// It may be called again, by others too: the earliest end counts, so that the second one can shorten the first one's
    /// time, and never makes it longer.
    ///
    /// ```no_run
    /// # async fn example(handle: ringwire::Handle) -> ringwire::Result<()> {
    /// use std::time::Duration;
    ///
    /// let draining = handle.drain(Duration::from_secs(60));
    /// // … the operator has lost patience:
    /// handle.drain(Duration::from_secs(1));
    /// draining.await
    /// # }
    /// ```
    pub fn drain(&self, timeout: Duration) -> Draining {
        self.hub().shutdown_within(timeout);
        Draining { board: Arc::clone(&self.board), number: None }
    }

    /// Waits until every core has ended: after that every connection has, too, and nobody listens on the addresses. Hubs and
    /// senders that are still held find the server gone. Any number of clones may be joined, before the end and after it.
    ///
    /// Once it is to drain, or a core has failed, each core has its time, [`Config::drain_timeout`](crate::Config) or that
    /// of [`Handle::drain`] for the former, and ten seconds.
    ///
    /// ```no_run
    /// # fn example(handle: ringwire::Handle) -> ringwire::Result<()> {
    /// // Until another thread shuts the server down, or a core fails.
    /// if let Err(error) = handle.join() {
    ///     eprintln!("{error}");
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// If a core failed: as soon as one does, the others are stopped. If a core has not ended in its time, because a handler
    /// of it does not return: its thread, which nothing can end, is left behind.
    ///
    /// # Panics
    /// On a core: in a handler, a hook or a task, which would wait for itself.
    pub fn join(self) -> Result<()> {
        Runtime::refuse_to_block("Handle::join");
        self.board.join()
    }
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let addresses: Vec<String> = self.addresses().iter().map(ToString::to_string).collect();
        f.debug_struct("Handle").field("addresses", &addresses).field("cores", &self.cores()).finish_non_exhaustive()
    }
}

/// A drain under way, made by [`Handle::drain`]: awaiting it, or [`Draining::wait`], tells when the server has ended.
///
/// A task of the server itself that awaits it ends with its core, before it is told.
///
/// ```no_run
/// # async fn example(handle: ringwire::Handle) -> ringwire::Result<()> {
/// let draining = handle.drain(std::time::Duration::from_secs(20));
/// println!("{} connections are left", handle.connections());
/// draining.await
/// # }
/// ```
///
/// # Errors
/// As [`Handle::join`].
pub struct Draining {
    board: Arc<Board>,
    /// Under which it waits.
    number: Option<u64>,
}

impl Draining {
    /// Waits for it on this thread, as [`Handle::join`] does.
    ///
    /// ```no_run
    /// # fn example(handle: ringwire::Handle) -> ringwire::Result<()> {
    /// handle.drain(std::time::Duration::from_secs(20)).wait()?;
    /// println!("every connection has ended");
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`Handle::join`].
    ///
    /// # Panics
    /// On a core: in a handler, a hook or a task, which would wait for itself.
    pub fn wait(self) -> Result<()> {
        Runtime::refuse_to_block("Draining::wait");
        self.board.join()
    }
}

impl Future for Draining {
    type Output = Result<()>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        let Draining { board, number } = &mut *self;
        board.poll_join(number, cx)
    }
}

impl Drop for Draining {
    fn drop(&mut self) {
        if let Some(number) = self.number {
            self.board.forget(number);
        }
    }
}

impl fmt::Debug for Draining {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Draining").finish_non_exhaustive()
    }
}
