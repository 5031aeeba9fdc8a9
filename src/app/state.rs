//! State in the hands of handlers: what all cores share, and what is a core's own.

use std::rc::Rc;
use std::sync::Arc;

use crate::app::connection::Connection;
use crate::app::socket::Socket;
use crate::app::values::CoreValues;
use crate::remote::Hub;
use crate::runtime::Runtime;

/// Which core an app is made for: what [`Server::run_with`](crate::Server::run_with) hands out.
#[derive(Clone)]
pub struct Core {
    number: usize,
    hub: Hub,
}

impl Core {
    pub(crate) fn new(number: usize, hub: Hub) -> Core {
        Core { number, hub }
    }

    /// Its number, from 0.
    pub fn number(&self) -> usize {
        self.number
    }

    /// How many cores the server has.
    pub fn count(&self) -> usize {
        self.hub.cores()
    }

    /// The way to all connections of the server.
    pub fn hub(&self) -> &Hub {
        &self.hub
    }
}

impl<'a> Socket<'a> {
    /// The state of this type that all cores share, from [`Server::run_with`](crate::Server::run_with) or
    /// [`App::with_state`](crate::App::with_state).
    ///
    /// # Panics
    /// If the app has none of the type.
    #[track_caller]
    pub fn state<T: Send + Sync + 'static>(&self) -> &'a T {
        self.core.shared.get::<T>()
    }

    /// This core's own state of this type, from [`App::with_core_state`](crate::App::with_core_state).
    ///
    /// # Panics
    /// If the app has none of the type.
    #[track_caller]
    pub fn core_state<T: 'static>(&self) -> &'a T {
        self.core.values.get::<T>()
    }
}

impl Connection {
    /// The state of this type that all cores share: see [`Socket::state`].
    ///
    /// # Panics
    /// If the app has none of the type.
    #[track_caller]
    pub fn state<T: Send + Sync + 'static>(&self) -> Arc<T> {
        Arc::clone(self.core().shared.get::<T>())
    }

    /// This core's own state of this type: see [`Socket::core_state`].
    ///
    /// # Panics
    /// If the app has none of the type.
    #[track_caller]
    pub fn core_state<T: 'static>(&self) -> Rc<T> {
        Rc::clone(self.core().values.get::<T>())
    }
}

impl crate::app::request::Request {
    /// The state of this type that all cores share: see [`Socket::state`].
    ///
    /// # Panics
    /// If the app has none of the type.
    #[track_caller]
    pub fn state<T: Send + Sync + 'static>(&self) -> &T {
        self.shared.get::<T>()
    }

    /// This core's own state of this type: see [`Socket::core_state`].
    ///
    /// # Panics
    /// If the app has none of the type, or outside a core: it works in handlers, hooks and tasks.
    #[track_caller]
    pub fn core_state<T: 'static>(&self) -> Rc<T> {
        let values = Runtime::current().local::<CoreValues>().expect("the core has an app");
        Rc::clone(values.get::<T>())
    }
}
