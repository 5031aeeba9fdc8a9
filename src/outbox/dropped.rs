//! What a connection has lost.

/// Messages that a connection will not get because it does not keep up.
///
/// ```
/// use ringwire::testing::TestServer;
/// use ringwire::{App, Config, SlowConsumer, ws};
/// use std::{cell::Cell, rc::Rc};
///
/// let missed = Rc::new(Cell::new(0));
/// let config = Config::default().max_outbox(4096);
/// let server = TestServer::builder().config(config).start(|| {
///     let missed = Rc::clone(&missed);
///     let count = move |dropped: &ringwire::Dropped| missed.set(missed.get() + dropped.oldest);
///     App::new().ws("/", ws().slow_consumer(SlowConsumer::DropOld).on_drop(move |_, dropped| count(dropped)))
/// });
/// let slow = server.connect("/");
/// slow.set_window(1024);
/// slow.pause();
/// for _ in 0..100 {
///     server.block_on(server.hub().send_to_all("x".repeat(1000)).unwrap());
/// }
/// slow.resume();
/// assert_eq!(slow.unread().len() as u64, 100 - missed.get());
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Dropped {
    /// Those whose place a newer one with the same key took.
    pub replaced: u64,
    /// Those that were forgotten to make room for newer ones.
    pub oldest: u64,
    /// Those that were not queued, because there was no room.
    pub newest: u64,
    /// The bytes of all these on the wire.
    pub bytes: u64,
}

impl Dropped {
    /// How many in all.
    ///
    /// ```
    /// use ringwire::{SlowConsumer, ws};
    ///
    /// ws().slow_consumer(SlowConsumer::KeepLatest).on_drop(|socket, dropped| {
    ///     eprintln!("{} missed {}, {} of them replaced", socket.id(), dropped.messages(), dropped.replaced);
    /// });
    /// ```
    pub fn messages(&self) -> u64 {
        self.replaced + self.oldest + self.newest
    }

    /// Whether there are none.
    ///
    /// ```
    /// use ringwire::Dropped;
    ///
    /// assert!(Dropped::default().is_none());
    /// ```
    pub fn is_none(&self) -> bool {
        self.messages() == 0
    }

    /// One that was not queued.
    pub(crate) fn one_newest(bytes: usize) -> Dropped {
        Dropped { newest: 1, bytes: bytes as u64, ..Dropped::default() }
    }

    /// Counts these, too.
    pub(crate) fn add(&mut self, more: Dropped) {
        self.replaced += more.replaced;
        self.oldest += more.oldest;
        self.newest += more.newest;
        self.bytes += more.bytes;
    }

    pub(super) fn add_replaced(&mut self, bytes: usize) {
        self.replaced += 1;
        self.bytes += bytes as u64;
    }
}
