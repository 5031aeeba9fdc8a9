//! How a handler is called, and what follows from its failure: the same for handlers at once, handlers that wait, and tasks.

use std::rc::Rc;

use crate::app::reply::{BoxError, FailurePolicy, Panicked};
use crate::app::socket::Socket;
use crate::guard::{Guarded, attempted, guarded, text};
use crate::message::Message;
use crate::quote::line;

type OnError = Rc<dyn Fn(&mut Socket<'_>, &(dyn std::error::Error + Send + Sync + 'static))>;
type Intercept = Rc<dyn Fn(&mut Socket<'_>, &Message<'_>) -> Result<(), BoxError>>;
type Intercepted = Rc<dyn Fn(&mut Socket<'_>)>;

/// What a route says of the calls of its handlers.
#[derive(Clone, Default)]
pub(crate) struct Rules {
    pub(crate) on_error: Option<OnError>,
    pub(crate) before_message: Vec<Intercept>,
    pub(crate) after_message: Vec<Intercepted>,
    pub(crate) failure: FailurePolicy,
}

impl Socket<'_> {
    /// Runs what a user wrote for the connection; false if it failed.
    #[inline]
    pub(super) fn run(&mut self, rules: &Rules, call: impl FnOnce(&mut Socket<'_>) -> Result<(), BoxError>) -> bool {
        let result = attempted(|| call(self));
        self.core.runtime.catch_up(self.hub);
        match result {
            Ok(Ok(())) => true,
            Ok(Err(error)) => {
                self.failed(rules, error);
                false
            }
            Err(panic) => {
                self.failed(rules, Panicked::boxed(panic));
                false
            }
        }
    }

    /// Runs what a user wrote that returns nothing.
    pub(super) fn tell(&mut self, rules: &Rules, call: impl FnOnce(&mut Socket<'_>)) {
        self.run(rules, |socket| {
            call(socket);
            Ok(())
        });
    }

    /// A handler has failed: with an error, or by a panic.
    #[cold]
    pub(super) fn failed(&mut self, rules: &Rules, error: BoxError) {
        let error = Guarded::new(error);
        tracing::error!(id = %self.id(), error = text(&line(&*error)), "a handler failed");
        if let Some(on_error) = &rules.on_error {
            guarded("on_error", || on_error(self, error.as_ref()));
        }
        self.core.runtime.catch_up(self.hub);
        if let Some((code, reason)) = rules.failure.close_for(&error) {
            self.hub.close(self.slot, Some(code), reason);
        }
    }

    /// Shows a message to the interceptors before it is handled; false if it is not to be.
    #[inline]
    pub(super) fn before_message(&mut self, rules: &Rules, message: &Message<'_>) -> bool {
        rules.before_message.is_empty() || self.intercept(rules, message)
    }

    fn intercept(&mut self, rules: &Rules, message: &Message<'_>) -> bool {
        // A task may get to what the peer sent before it closed.
        let was_open = self.hub.is_open(self.slot);
        rules.before_message.iter().all(|intercept| {
            self.run(rules, |socket| intercept(socket, message)) && self.hub.is_open(self.slot) == was_open
        })
    }

    /// A message has been handled, well or not.
    #[inline]
    pub(super) fn after_message(&mut self, rules: &Rules) {
        if !rules.after_message.is_empty() {
            self.show_handled(rules);
        }
    }

    #[inline(never)]
    fn show_handled(&mut self, rules: &Rules) {
        for intercept in &rules.after_message {
            self.tell(rules, |socket| intercept(socket));
        }
    }
}
