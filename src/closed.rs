//! How a WebSocket ended, for servers and clients alike.
//!
//! Knows of this crate: nothing.

use std::time::Duration;

/// How a WebSocket ended, as `on_close` sees it.
///
/// ```
/// use ringwire::testing::TestServer;
/// use ringwire::{App, Closed, ws};
/// use std::{cell::RefCell, rc::Rc};
///
/// fn line(closed: &Closed) -> String {
///     let how = if closed.clean { "closed" } else { "broke" };
///     format!("{how} with {} after {} s", closed.code, closed.duration.as_secs())
/// }
///
/// let lines = Rc::new(RefCell::new(Vec::new()));
/// let server = TestServer::new(|| {
///     let lines = Rc::clone(&lines);
///     App::new().ws("/", ws().on_close(move |_, closed| lines.borrow_mut().push(line(closed))))
/// });
/// let (ann, ben) = (server.connect("/"), server.connect("/"));
/// server.advance(std::time::Duration::from_secs(5));
/// ann.close(1000, "bye");
/// ben.reset();
/// assert_eq!(*lines.borrow(), ["closed with 1000 after 5 s", "broke with 1006 after 5 s"]);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Closed {
    /// The close code: the peer's, or ours if we closed first; 1005 if there was none, 1006 if the connection broke.
    pub code: u16,
    /// The reason that came with it.
    pub reason: String,
    /// Whether both sides said Close.
    pub clean: bool,
    /// How long it was open.
    pub duration: Duration,
}

impl Closed {
    /// An end, for tests of what is told of one.
    ///
    /// ```
    /// use std::time::Duration;
    /// use ringwire::Closed;
    ///
    /// let closed = Closed::new(1000, "bye", true, Duration::from_secs(3));
    /// assert_eq!((closed.code, closed.reason.as_str()), (1000, "bye"));
    /// ```
    pub fn new(code: u16, reason: impl Into<String>, clean: bool, duration: Duration) -> Closed {
        Closed { code, reason: reason.into(), clean, duration }
    }
}
