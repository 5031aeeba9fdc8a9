//! A route as it was written: its path, what is there, and the hooks around it.

use std::rc::Rc;

use http::Method;

use crate::app::before::{Before, LocalBoxFuture};
use crate::app::request::Request;
use crate::app::response::Response;
use crate::app::ws::{OnClose, Ws};
use crate::closed::Closed;

pub(crate) type HttpHandler = Rc<dyn Fn(Request) -> LocalBoxFuture<'static, Response>>;
pub(crate) type Observe = Rc<dyn Fn(&Request)>;
pub(crate) type ObserveClose = Rc<dyn Fn(&Closed)>;

/// Hooks of a group and of those around it, outermost first.
#[derive(Clone, Default)]
pub(crate) struct Hooks {
    pub(crate) observers: Vec<Observe>,
    pub(crate) before: Vec<Before>,
    pub(crate) closed_observers: Vec<ObserveClose>,
    pub(crate) after: Vec<OnClose>,
}

impl Hooks {
    pub(crate) fn within(&self, outer: &Hooks) -> Hooks {
        let mut hooks = outer.clone();
        hooks.observers.extend(self.observers.iter().cloned());
        hooks.before.extend(self.before.iter().cloned());
        // What was entered last is left first.
        hooks.closed_observers = [self.closed_observers.clone(), hooks.closed_observers].concat();
        hooks.after = [self.after.clone(), hooks.after].concat();
        hooks
    }
}

pub(crate) enum Target {
    Ws(Ws),
    /// `None` = any method.
    Http(Option<Method>, HttpHandler),
}

pub(crate) struct Definition {
    /// Whether it is for operators: on the admin listener, where there is one, and nowhere else.
    pub(crate) is_admin: bool,
    pub(crate) path: String,
    pub(crate) target: Target,
    pub(crate) hooks: Hooks,
}
