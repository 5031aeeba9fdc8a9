//! What an embedder writes: routes in groups, with hooks around them.

use std::rc::Rc;

use http::Method;

use crate::app::definition::{Before, Definition, Hooks, HttpHandler, Target};
use crate::app::error_http::HttpError;
use crate::app::request::Request;
use crate::app::response::IntoResponse;
use crate::app::router::Router;
use crate::app::socket::Socket;
use crate::app::ws::IntoWs;
use crate::closed::Closed;
use crate::guard::Guarded;
use crate::message::Envelope;

/// Routes that share a prefix and hooks; see [`App::group`].
#[derive(Default)]
pub struct Group {
    is_admin: bool,
    hooks: Hooks,
    definitions: Vec<Definition>,
}

impl Group {
    fn add(mut self, path: &str, target: Target) -> Group {
        self.definitions.push(Definition { is_admin: false, path: path.to_owned(), target, hooks: Hooks::default() });
        self
    }

    /// The definitions with prefix and hooks applied.
    fn finish(self, prefix: &str) -> Vec<Definition> {
        let (hooks, is_admin) = (self.hooks, self.is_admin);
        let finish = |definition: Definition| Definition {
            is_admin: definition.is_admin || is_admin,
            path: join(prefix, &definition.path),
            hooks: definition.hooks.within(&hooks),
            target: definition.target,
        };
        self.definitions.into_iter().map(finish).collect()
    }

    /// Routes below `prefix`, with hooks of their own inside those of this group.
    #[must_use]
    pub fn group(mut self, prefix: &str, build: impl FnOnce(Group) -> Group) -> Group {
        self.definitions.extend(build(Group::default()).finish(prefix));
        self
    }

    /// The routes of this group are for operators. Where the server has an admin listener
    /// ([`Config::admin_address`](crate::Config)) they are only there, and on the other addresses as if there were none of
    /// them; and only they are there. Where it has none, this changes nothing.
    ///
    /// ```
    /// use ringwire::App;
    ///
    /// let app = App::new()
    ///     .get("/", async |_| "hello")
    ///     .group("/internal", |group| group.admin().get("/version", async |_| env!("CARGO_PKG_VERSION")));
    /// ```
    #[must_use]
    pub fn admin(self) -> Group {
        Group { is_admin: true, ..self }
    }

    /// A WebSocket route: a [`Ws`](crate::Ws), or just its message handler. `{name}` in the path is a parameter.
    #[must_use]
    pub fn ws<M>(self, path: &str, route: impl IntoWs<M>) -> Group {
        self.add(path, Target::Ws(route.into_ws()))
    }

    /// An HTTP route of one method.
    #[must_use]
    pub fn method<F, R>(self, method: Method, path: &str, handler: F) -> Group
    where
        F: AsyncFn(Request) -> R + 'static,
        R: IntoResponse,
    {
        self.add(path, Target::Http(Some(method), boxed(handler)))
    }

    /// An HTTP route of all methods.
    #[must_use]
    pub fn any<F, R>(self, path: &str, handler: F) -> Group
    where
        F: AsyncFn(Request) -> R + 'static,
        R: IntoResponse,
    {
        self.add(path, Target::Http(None, boxed(handler)))
    }

    /// Runs before every route of this group, upgrade or not, and may refuse the request, attach typed values to it, add
    /// headers to the response or choose a subprotocol. Hooks run in the order in which they were added, those of outer
    /// groups first; one that refuses is the last.
    #[must_use]
    pub fn before(mut self, check: impl Fn(&mut Request) -> Result<(), HttpError> + 'static) -> Group {
        let check = Guarded::new(check);
        self.hooks.before.push(Before::Now(Rc::new(move |request| check(request))));
        self
    }

    /// As `before`, with a hook that may wait.
    #[must_use]
    pub fn before_async<F>(mut self, check: F) -> Group
    where
        F: AsyncFn(&mut Request) -> Result<(), HttpError> + 'static,
    {
        let check = Rc::new(Guarded::new(check));
        self.hooks.before.push(Before::Later(Rc::new(move |request| {
            let check = Rc::clone(&check);
            Box::pin(async move { check(request).await })
        })));
        self
    }

    /// Runs once for every WebSocket of this group when it has ended, after its route's `on_close`.
    #[must_use]
    pub fn after(mut self, hook: impl Fn(&mut Socket<'_>, &Closed) + 'static) -> Group {
        let hook = Guarded::new(hook);
        self.hooks.after.push(Rc::new(move |socket, closed| hook(socket, closed)));
        self
    }

    /// Sees every request of this group before its hooks.
    #[must_use]
    pub fn observe(mut self, observer: impl Fn(&Request) + 'static) -> Group {
        let observer = Guarded::new(observer);
        self.hooks.observers.push(Rc::new(move |request| observer(request)));
        self
    }

    /// Sees the end of every WebSocket of this group before its route's `on_close`.
    #[must_use]
    pub fn observe_close(mut self, observer: impl Fn(&Closed) + 'static) -> Group {
        let observer = Guarded::new(observer);
        self.hooks.closed_observers.push(Rc::new(move |closed| observer(closed)));
        self
    }
}

fn boxed<F, R>(handler: F) -> HttpHandler
where
    F: AsyncFn(Request) -> R + 'static,
    R: IntoResponse,
{
    let handler = Rc::new(Guarded::new(handler));
    Rc::new(move |request| {
        let handler = Rc::clone(&handler);
        Box::pin(async move { handler(request).await.into_response() })
    })
}

fn join(prefix: &str, path: &str) -> String {
    let prefix = prefix.trim_end_matches('/');
    match (prefix, path) {
        ("", path) if path.starts_with('/') => path.to_owned(),
        (prefix, "" | "/") if !prefix.is_empty() => prefix.to_owned(),
        (prefix, path) => format!("{prefix}/{}", path.trim_start_matches('/')),
    }
}

macro_rules! methods {
    ($type:ident: $($name:ident $method:ident,)+) => {
        impl $type {$(
            #[doc = concat!("An HTTP route for ", stringify!($method), ". HEAD is answered by the route for GET.")]
            #[must_use]
            pub fn $name<F, R>(self, path: &str, handler: F) -> $type
            where
                F: AsyncFn(Request) -> R + 'static,
                R: IntoResponse,
            {
                self.method(Method::$method, path, handler)
            }
        )+}
    };
}

methods!(Group: get GET, post POST, put PUT, delete DELETE, patch PATCH,);
methods!(App: get GET, post POST, put PUT, delete DELETE, patch PATCH,);

/// The routes of a server. Made once on each core, so its handlers need not be `Send`: an `Rc` that they capture is the
/// core's own state, and what crosses cores is an `Arc` captured outside.
///
/// ```no_run
/// use ringwire::{App, Message, Server, Socket};
///
/// fn main() -> ringwire::Result<()> {
///     Server::from_env()?.run(|| App::new().ws("/echo", |socket: &mut Socket, message: Message| socket.send(message)))
/// }
/// ```
#[derive(Default)]
pub struct App {
    root: Group,
    envelope: Envelope,
    fallback: Option<HttpHandler>,
}

impl App {
    /// No routes: every request is answered 404.
    pub fn new() -> App {
        App::default()
    }

    /// How named events are written.
    #[must_use]
    pub fn envelope(mut self, envelope: Envelope) -> App {
        self.envelope = envelope;
        self
    }

    /// Answers requests for which there is no route.
    #[must_use]
    pub fn fallback<F, R>(mut self, handler: F) -> App
    where
        F: AsyncFn(Request) -> R + 'static,
        R: IntoResponse,
    {
        self.fallback = Some(boxed(handler));
        self
    }

    fn change(mut self, change: impl FnOnce(Group) -> Group) -> App {
        self.root = change(self.root);
        self
    }

    /// Routes below `prefix`, with hooks of their own.
    #[must_use]
    pub fn group(self, prefix: &str, build: impl FnOnce(Group) -> Group) -> App {
        self.change(|root| root.group(prefix, build))
    }

    /// A WebSocket route: a [`Ws`](crate::Ws), or just its message handler. `{name}` in the path is a parameter.
    #[must_use]
    pub fn ws<M>(self, path: &str, route: impl IntoWs<M>) -> App {
        self.change(|root| root.ws(path, route))
    }

    /// An HTTP route of one method.
    #[must_use]
    pub fn method<F, R>(self, method: Method, path: &str, handler: F) -> App
    where
        F: AsyncFn(Request) -> R + 'static,
        R: IntoResponse,
    {
        self.change(|root| root.method(method, path, handler))
    }

    /// An HTTP route of all methods.
    #[must_use]
    pub fn any<F, R>(self, path: &str, handler: F) -> App
    where
        F: AsyncFn(Request) -> R + 'static,
        R: IntoResponse,
    {
        self.change(|root| root.any(path, handler))
    }

    /// See [`Group::before`]; for all routes.
    #[must_use]
    pub fn before(self, check: impl Fn(&mut Request) -> Result<(), HttpError> + 'static) -> App {
        self.change(|root| root.before(check))
    }

    /// See [`Group::before_async`]; for all routes.
    #[must_use]
    pub fn before_async<F>(self, check: F) -> App
    where
        F: AsyncFn(&mut Request) -> Result<(), HttpError> + 'static,
    {
        self.change(|root| root.before_async(check))
    }

    /// See [`Group::after`]; for all routes.
    #[must_use]
    pub fn after(self, hook: impl Fn(&mut Socket<'_>, &Closed) + 'static) -> App {
        self.change(|root| root.after(hook))
    }

    /// See [`Group::observe`]; for all routes.
    #[must_use]
    pub fn observe(self, observer: impl Fn(&Request) + 'static) -> App {
        self.change(|root| root.observe(observer))
    }

    /// See [`Group::observe_close`]; for all routes.
    #[must_use]
    pub fn observe_close(self, observer: impl Fn(&Closed) + 'static) -> App {
        self.change(|root| root.observe_close(observer))
    }

    pub(crate) fn into_parts(self) -> (Router, Envelope) {
        (Router::new(self.root.finish(""), self.fallback), self.envelope)
    }
}
