//! How a WebSocket ended, for servers and clients alike.
//!
//! Knows of this crate: nothing.

use std::time::Duration;

/// How a WebSocket ended, as `on_close` sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
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
