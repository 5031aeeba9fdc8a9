//! How a handler is called, and what follows from its failure: the same for handlers at once, handlers that wait, and tasks.

use crate::app::reply::{BoxError, Panicked};
use crate::app::socket::Socket;
use crate::app::ws::Route;
use crate::guard::{Guarded, attempted, guarded, text};
use crate::message::Message;
use crate::quote::line;

impl Socket<'_> {
    /// Runs what a user wrote for the connection; false if it failed.
    #[inline]
    pub(super) fn run(&mut self, route: &Route, call: impl FnOnce(&mut Socket<'_>) -> Result<(), BoxError>) -> bool {
        let result = attempted(|| call(self));
        self.core.runtime.catch_up(self.hub);
        match result {
            Ok(Ok(())) => true,
            Ok(Err(error)) => {
                self.failed(route, error);
                false
            }
            Err(panic) => {
                self.failed(route, Panicked::boxed(panic));
                false
            }
        }
    }

    /// Runs what a user wrote that returns nothing.
    pub(super) fn tell(&mut self, route: &Route, call: impl FnOnce(&mut Socket<'_>)) {
        self.run(route, |socket| {
            call(socket);
            Ok(())
        });
    }

    /// A handler has failed: with an error, or by a panic.
    #[cold]
    pub(super) fn failed(&mut self, route: &Route, error: BoxError) {
        let error = Guarded::new(error);
        tracing::error!(id = %self.id(), error = text(&line(&*error)), "a handler failed");
        if let Some(on_error) = &route.on_error {
            guarded("on_error", || on_error(self, error.as_ref()));
        }
        self.core.runtime.catch_up(self.hub);
        if let Some((code, reason)) = route.failure.close_for(&error) {
            self.hub.close(self.slot, Some(code), reason);
        }
    }

    /// Shows a message to the interceptors before it is handled; false if it is not to be.
    #[inline]
    pub(super) fn before_message(&mut self, route: &Route, message: &Message<'_>) -> bool {
        route.before_message.is_empty() || self.intercept(route, message)
    }

    fn intercept(&mut self, route: &Route, message: &Message<'_>) -> bool {
        // A task may get to what the peer sent before it closed.
        let was_open = self.hub.is_open(self.slot);
        route.before_message.iter().all(|intercept| {
            self.run(route, |socket| intercept(socket, message)) && self.hub.is_open(self.slot) == was_open
        })
    }

    /// A message has been handled, well or not.
    #[inline]
    pub(super) fn after_message(&mut self, route: &Route) {
        for intercept in &route.after_message {
            self.tell(route, |socket| intercept(socket));
        }
    }
}
