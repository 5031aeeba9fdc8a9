//! What an embedder writes: routes, hooks and handlers, and the service that they become on each core.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;

use http::{HeaderValue, Method, StatusCode};
use percent_encoding::percent_decode_str;
use smallvec::SmallVec;

use crate::error_http::HttpError;
use crate::message::Envelope;
use crate::request::Request;
use crate::response::{IntoResponse, Response};
use crate::service::Reply;
use crate::socket::Socket;
use crate::ws::{Closed, IntoWs, LocalBoxFuture, OnClose, Ws};

type Check = Rc<dyn Fn(&mut Request) -> Result<(), HttpError>>;
type CheckAsync = Rc<dyn for<'r> Fn(&'r mut Request) -> LocalBoxFuture<'r, Result<(), HttpError>>>;
pub(crate) type HttpHandler = Rc<dyn Fn(Request) -> LocalBoxFuture<'static, Response>>;
type Observe = Rc<dyn Fn(&Request)>;
type ObserveClose = Rc<dyn Fn(&Closed)>;

#[derive(Clone)]
pub(crate) enum Before {
    Now(Check),
    Later(CheckAsync),
}

/// Hooks of a group and of those around it, outermost first.
#[derive(Clone, Default)]
pub(crate) struct Hooks {
    pub(crate) observers: Vec<Observe>,
    pub(crate) before: Vec<Before>,
    pub(crate) closed_observers: Vec<ObserveClose>,
    pub(crate) after: Vec<OnClose>,
}

impl Hooks {
    fn within(&self, outer: &Hooks) -> Hooks {
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
    pub(crate) path: String,
    pub(crate) target: Target,
    pub(crate) hooks: Hooks,
}

/// Routes that share a prefix and hooks; see [`App::group`].
#[derive(Default)]
pub struct Group {
    hooks: Hooks,
    definitions: Vec<Definition>,
}

impl Group {
    fn add(mut self, path: &str, target: Target) -> Group {
        self.definitions.push(Definition { path: path.to_owned(), target, hooks: Hooks::default() });
        self
    }

    /// The definitions with prefix and hooks applied.
    fn finish(self, prefix: &str) -> Vec<Definition> {
        let hooks = self.hooks;
        let finish = |definition: Definition| Definition {
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

    /// A WebSocket route: a [`Ws`], or just its message handler. `{name}` in the path is a parameter.
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
        self.hooks.before.push(Before::Now(Rc::new(check)));
        self
    }

    /// As `before`, with a hook that may wait.
    #[must_use]
    pub fn before_async<F>(mut self, check: F) -> Group
    where
        F: AsyncFn(&mut Request) -> Result<(), HttpError> + 'static,
    {
        let check = Rc::new(check);
        self.hooks.before.push(Before::Later(Rc::new(move |request| {
            let check = Rc::clone(&check);
            Box::pin(async move { check(request).await })
        })));
        self
    }

    /// Runs once for every WebSocket of this group when it has ended, after its route's `on_close`.
    #[must_use]
    pub fn after(mut self, hook: impl Fn(&mut Socket<'_>, &Closed) + 'static) -> Group {
        self.hooks.after.push(Rc::new(hook));
        self
    }

    /// Sees every request of this group before its hooks.
    #[must_use]
    pub fn observe(mut self, observer: impl Fn(&Request) + 'static) -> Group {
        self.hooks.observers.push(Rc::new(observer));
        self
    }

    /// Sees the end of every WebSocket of this group before its route's `on_close`.
    #[must_use]
    pub fn observe_close(mut self, observer: impl Fn(&Closed) + 'static) -> Group {
        self.hooks.closed_observers.push(Rc::new(observer));
        self
    }
}

fn boxed<F, R>(handler: F) -> HttpHandler
where
    F: AsyncFn(Request) -> R + 'static,
    R: IntoResponse,
{
    let handler = Rc::new(handler);
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

    /// A WebSocket route: a [`Ws`], or just its message handler. `{name}` in the path is a parameter.
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

/// One path of the router.
#[derive(Default)]
pub(crate) struct Endpoint {
    pub(crate) path: Arc<str>,
    pub(crate) ws: Option<(u16, Rc<Hooks>)>,
    pub(crate) methods: Vec<(Option<Method>, HttpHandler, Rc<Hooks>)>,
}

/// Finds the endpoint of a request.
pub(crate) struct Router {
    paths: matchit::Router<usize>,
    pub(crate) endpoints: Vec<Endpoint>,
    /// The WebSocket routes by number, with their paths and hooks.
    pub(crate) ws: Vec<(Ws, String, Rc<Hooks>)>,
    pub(crate) fallback: Option<HttpHandler>,
}

pub(crate) type Params = SmallVec<[(String, String); 2]>;

impl Router {
    fn new(definitions: Vec<Definition>, fallback: Option<HttpHandler>) -> Router {
        let mut router = Router { paths: matchit::Router::new(), endpoints: Vec::new(), ws: Vec::new(), fallback };
        for definition in definitions {
            let index = router.endpoint(&definition.path);
            let hooks = Rc::new(definition.hooks);
            match definition.target {
                Target::Ws(ws) => {
                    assert!(router.endpoints[index].ws.is_none(), "two WebSocket routes at {}", definition.path);
                    router.endpoints[index].ws = Some((router.ws.len() as u16, Rc::clone(&hooks)));
                    router.ws.push((ws, definition.path, hooks));
                }
                Target::Http(method, handler) => router.endpoints[index].methods.push((method, handler, hooks)),
            }
        }
        router
    }

    fn endpoint(&mut self, path: &str) -> usize {
        if let Some(index) = self.endpoints.iter().position(|endpoint| &*endpoint.path == path) {
            return index;
        }
        let index = self.endpoints.len();
        if let Err(error) = self.paths.insert(path, index) {
            panic!("the route {path:?} cannot be added: {error}");
        }
        self.endpoints.push(Endpoint { path: path.into(), ..Endpoint::default() });
        index
    }

    /// The endpoint of a path and its parameters; `None` if there is none.
    ///
    /// # Errors
    /// 400 if a parameter is not UTF-8: made valid, different ones would be the same.
    pub(crate) fn find(&self, path: &str) -> Result<Option<(&Endpoint, Params)>, HttpError> {
        let Ok(found) = self.paths.at(path) else { return Ok(None) };
        let decode = |(name, value): (&str, &str)| {
            let value = percent_decode_str(value).decode_utf8().ok()?;
            Some((name.to_owned(), value.into_owned()))
        };
        let params: Option<Params> = found.params.iter().map(decode).collect();
        let params = params.ok_or(HttpError::bad_request("the path is not UTF-8"))?;
        Ok(Some((&self.endpoints[*found.value], params)))
    }
}

impl Endpoint {
    /// The HTTP handler for a method. GET's also answers HEAD.
    ///
    /// # Errors
    /// 405 with the methods that there are.
    pub(crate) fn handler(&self, method: &str) -> Result<(&HttpHandler, &Rc<Hooks>), Reply> {
        let matches = |wanted: &Option<Method>, method: &str| wanted.as_ref().is_none_or(|wanted| wanted == method);
        let find = |method: &str| self.methods.iter().find(|(wanted, ..)| matches(wanted, method));
        let found = find(method).or_else(|| if method == "HEAD" { find("GET") } else { None });
        if let Some((_, handler, hooks)) = found {
            return Ok((handler, hooks));
        }
        let mut allowed: Vec<&str> =
            self.methods.iter().filter_map(|(method, ..)| method.as_ref()).map(Method::as_str).collect();
        if self.ws.is_some() && !allowed.contains(&"GET") {
            allowed.push("GET");
        }
        if allowed.contains(&"GET") && !allowed.contains(&"HEAD") {
            allowed.push("HEAD");
        }
        let allow = HeaderValue::from_str(&allowed.join(", ")).expect("methods are tokens");
        let reply = Reply::error(StatusCode::METHOD_NOT_ALLOWED, "method not allowed");
        Err(reply.with_header(http::header::ALLOW, allow))
    }
}

/// Calls what a user wrote; a panic becomes `None` and is logged.
pub(crate) fn guarded<R>(what: &str, call: impl FnOnce() -> R) -> Option<R> {
    catch_unwind(AssertUnwindSafe(call)).map_err(|_| tracing::error!("{what} panicked")).ok()
}
