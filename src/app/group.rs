//! What an embedder writes: routes in groups, with hooks around them.

use std::rc::Rc;
use std::sync::Arc;

use http::Method;
use serde_json::Value;

use crate::app::answered::Answered;
use crate::app::before::{Before, LocalBoxFuture};
use crate::app::cors::Cors;
use crate::app::definition::{Definition, Hooks, HttpHandler, Target};
use crate::app::error_http::HttpError;
use crate::app::layers::{Layer, Layers};
use crate::app::request::Request;
use crate::app::response::HandlerResponse;
use crate::app::router::Router;
use crate::app::socket::Socket;
use crate::app::state::Core;
use crate::app::values::{CoreValues, SharedValues};
use crate::app::ws::IntoWs;
use crate::closed::Closed;
use crate::guard::Guarded;
use crate::hub::ConnectionId;
use crate::message::Envelope;

/// Routes that share a prefix and hooks; see [`App::group`].
///
/// ```
/// use ringwire::testing::TestServer;
/// use ringwire::{App, Group, HttpError, Request};
///
/// fn users(group: Group) -> Group {
///     group
///         .before(|request: &mut Request| {
///             if request.header("authorization").is_some() { Ok(()) } else { Err(HttpError::unauthorized("who are you?")) }
///         })
///         .get("/{name}", async |request: Request| format!("about {}", request.param("name")))
/// }
///
/// let server = TestServer::new(|| App::new().group("/users", users).get("/", async |_| "welcome"));
/// assert_eq!(server.get("/users/ann").token("secret").send().text(), "about ann");
/// assert_eq!(server.get("/users/ann").send().status(), 401);
/// assert_eq!(server.get("/").send().text(), "welcome");
/// ```
#[derive(Default)]
pub struct Group {
    is_admin: bool,
    hooks: Hooks,
    definitions: Vec<Definition>,
    /// Each with the path that it is for, and all below it.
    layers: Vec<(String, Layer)>,
    fallbacks: Vec<(String, HttpHandler)>,
}

impl Group {
    fn add(mut self, path: &str, target: Target) -> Group {
        check_syntax(path);
        self.definitions.push(Definition { is_admin: false, path: path.to_owned(), target, hooks: Hooks::default() });
        self
    }

    /// The same with prefix and hooks applied, and none of its own.
    fn finish(self, prefix: &str) -> Group {
        check_syntax(prefix);
        let Group { is_admin, hooks, definitions, layers, fallbacks } = self;
        let finish = |definition: Definition| Definition {
            is_admin: definition.is_admin || is_admin,
            path: join(prefix, &definition.path),
            hooks: definition.hooks.within(&hooks),
            target: definition.target,
        };
        Group {
            is_admin: false,
            hooks: Hooks::default(),
            definitions: definitions.into_iter().map(finish).collect(),
            layers: layers.into_iter().map(|(path, layer)| (join(prefix, &path), layer)).collect(),
            fallbacks: fallbacks.into_iter().map(|(path, handler)| (join(prefix, &path), handler)).collect(),
        }
    }

    fn take_in(mut self, inner: Group) -> Group {
        self.definitions.extend(inner.definitions);
        self.layers.extend(inner.layers);
        self.fallbacks.extend(inner.fallbacks);
        self
    }

    /// Routes below `prefix`, with hooks of their own inside those of this group.
    ///
    /// ```
    /// use ringwire::testing::TestServer;
    /// use ringwire::App;
    ///
    /// let server = TestServer::new(|| {
    ///     App::new().group("/api", |api| api.group("/v1", |v1| v1.get("/version", async |_| "1")))
    /// });
    /// assert_eq!(server.get("/api/v1/version").send().text(), "1");
    /// ```
    #[must_use]
    pub fn group(self, prefix: &str, build: impl FnOnce(Group) -> Group) -> Group {
        self.take_in(build(Group::default()).finish(prefix))
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
    ///
    /// ```
    /// use ringwire::testing::TestServer;
    /// use ringwire::{App, Message, Socket, ws};
    ///
    /// let echo = |socket: &mut Socket, message: Message| socket.send(message);
    /// let server = TestServer::new(move || {
    ///     App::new().group("/live", |live| live.ws("/echo", echo).ws("/rooms/{room}", ws().on_connect(|_| "welcome")))
    /// });
    /// server.connect("/live/rooms/lobby").expect_text("welcome");
    /// ```
    #[must_use]
    pub fn ws<M>(self, path: &str, route: impl IntoWs<M>) -> Group {
        self.add(path, Target::Ws(route.into_ws()))
    }

    /// An HTTP route of one method.
    ///
    /// ```
    /// use ringwire::testing::TestServer;
    /// use http::Method;
    /// use ringwire::{App, Request};
    ///
    /// let server = TestServer::new(|| {
    ///     App::new().group("/files", |files| files.method(Method::OPTIONS, "/", async |_: Request| "what may be done"))
    /// });
    /// assert_eq!(server.request("OPTIONS", "/files").send().text(), "what may be done");
    /// ```
    #[must_use]
    pub fn method<F, R>(self, method: Method, path: &str, handler: F) -> Group
    where
        F: AsyncFn(Request) -> R + 'static,
        R: HandlerResponse,
    {
        self.add(path, Target::Http(Some(method), boxed(handler)))
    }

    /// An HTTP route of all methods.
    ///
    /// ```
    /// use ringwire::testing::TestServer;
    /// use ringwire::{App, Request};
    ///
    /// let method = async |request: Request| request.method().to_string();
    /// let server = TestServer::new(move || App::new().group("/echo", |echo| echo.any("/method", method)));
    /// assert_eq!(server.put("/echo/method").send().text(), "PUT");
    /// ```
    #[must_use]
    pub fn any<F, R>(self, path: &str, handler: F) -> Group
    where
        F: AsyncFn(Request) -> R + 'static,
        R: HandlerResponse,
    {
        self.add(path, Target::Http(None, boxed(handler)))
    }

    /// Runs before every route of this group, upgrade or not, and may refuse the request, attach typed values to it, add
    /// headers to the response or choose a subprotocol. Hooks run in the order in which they were added, those of outer
    /// groups first; one that refuses is the last.
    ///
    /// ```
    /// use ringwire::testing::TestServer;
    /// use ringwire::{App, HttpError, Request, ws};
    ///
    /// fn only_members(request: &mut Request) -> Result<(), HttpError> {
    ///     let name = request.cookie("member").ok_or_else(|| HttpError::forbidden("members only"))?.to_owned();
    ///     request.extensions_mut().insert(name);
    ///     Ok(())
    /// }
    ///
    /// let server = TestServer::new(|| {
    ///     App::new().group("/club", |club| {
    ///         club.before(only_members).ws("/chat", ws().on_connect(|socket| socket.extension::<String>()))
    ///     })
    /// });
    /// server.handshake("/club/chat").cookie("member", "ann").open().expect_text("ann");
    /// assert_eq!(server.handshake("/club/chat").refusal().status(), 403);
    /// ```
    #[must_use]
    pub fn before(mut self, check: impl Fn(&mut Request) -> Result<(), HttpError> + 'static) -> Group {
        self.hooks.before.push(Before::now(check));
        self
    }

    /// As `before`, with a hook that may wait.
    ///
    /// ```
    /// use ringwire::testing::TestServer;
    /// use ringwire::{App, HttpError, Request, sleep};
    /// use std::time::Duration;
    ///
    /// let look_up = async |request: &mut Request| {
    ///     sleep(Duration::from_millis(10)).await; // … in which a database answers
    ///     if request.header("authorization") == Some("Bearer secret") { Ok(()) } else { Err(HttpError::unauthorized("no")) }
    /// };
    /// let server = TestServer::new(move || {
    ///     App::new().group("/api", |api| api.before_async(look_up).get("/secret", async |_| "42"))
    /// });
    /// assert_eq!(server.get("/api/secret").token("secret").send().text(), "42");
    /// assert_eq!(server.get("/api/secret").send().status(), 401);
    /// ```
    #[must_use]
    pub fn before_async<F>(mut self, check: F) -> Group
    where
        F: AsyncFn(&mut Request) -> Result<(), HttpError> + 'static,
    {
        self.hooks.before.push(Before::later(check));
        self
    }

    /// Runs once for every WebSocket of this group when it has ended, after its route's `on_close`.
    ///
    /// ```
    /// use ringwire::testing::TestServer;
    /// use ringwire::{App, ws};
    /// use std::{cell::Cell, rc::Rc};
    ///
    /// let ended = Rc::new(Cell::new(0));
    /// let server = TestServer::new(|| {
    ///     let ended = Rc::clone(&ended);
    ///     App::new().group("/live", |live| live.after(move |_, _| ended.set(ended.get() + 1)).ws("/a", ws()).ws("/b", ws()))
    /// });
    /// server.connect("/live/a").close(1000, "bye");
    /// server.connect("/live/b").reset();
    /// assert_eq!(ended.get(), 2);
    /// ```
    #[must_use]
    pub fn after(mut self, hook: impl Fn(&mut Socket<'_>, &Closed) + 'static) -> Group {
        let hook = Guarded::new(hook);
        self.hooks.after.push(Rc::new(move |socket, closed| hook(socket, closed)));
        self
    }

    /// Sees every response of this group on its way out, and may add fields to it: those of its routes, and to whatever else
    /// is asked for below its prefix, be it 404, 405, or 500 of a handler that has panicked; also what the server refuses by
    /// itself, for a limit or a handshake, and 101 of WebSockets that open. Hooks of inner groups run first, and of one group
    /// those that were added last.
    ///
    /// ```
    /// use http::HeaderValue;
    /// use ringwire::{App, Request};
    ///
    /// App::new()
    ///     .on_response(|answered| {
    ///         println!("{} {} in {:?}", answered.path().unwrap_or("?"), answered.status(), answered.latency());
    ///         answered.set_header(http::header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    ///     })
    ///     .get("/", async |_: Request| "hello");
    /// ```
    #[must_use]
    pub fn on_response(mut self, hook: impl Fn(&mut Answered<'_>) + 'static) -> Group {
        self.layers.push((String::new(), Layer::hook(hook)));
        self
    }

    /// Lets pages of other origins use the routes of this group, and read what is answered below its prefix, refusals too.
    /// The innermost group's [`Cors`] decides.
    ///
    /// ```
    /// use ringwire::testing::TestServer;
    /// use ringwire::{App, Cors};
    ///
    /// let server = TestServer::new(|| {
    ///     let cors = Cors::new("https://app.example");
    ///     App::new().group("/api", |api| api.cors(cors).get("/count", async |_| "7"))
    /// });
    /// let response = server.get("/api/count").header("origin", "https://app.example").send();
    /// assert_eq!(response.header("access-control-allow-origin"), Some("https://app.example"));
    /// ```
    #[must_use]
    pub fn cors(mut self, cors: Cors) -> Group {
        self.layers.push((String::new(), Layer::Cors(cors)));
        self
    }

    /// Sees every request of this group before its hooks.
    ///
    /// ```
    /// use ringwire::testing::TestServer;
    /// use ringwire::{App, HttpError};
    /// use std::{cell::RefCell, rc::Rc};
    ///
    /// let asked = Rc::new(RefCell::new(Vec::new()));
    /// let server = TestServer::new(|| {
    ///     let asked = Rc::clone(&asked);
    ///     App::new().group("/api", |api| {
    ///         api.observe(move |request| asked.borrow_mut().push(request.path().to_owned()))
    ///             .before(|_| Err(HttpError::forbidden("closed today")))
    ///             .get("/count", async |_| "7")
    ///     })
    /// });
    /// assert_eq!(server.get("/api/count").send().status(), 403);
    /// assert_eq!(*asked.borrow(), ["/api/count"]);
    /// ```
    #[must_use]
    pub fn observe(mut self, observer: impl Fn(&Request) + 'static) -> Group {
        let observer = Guarded::new(observer);
        self.hooks.observers.push(Rc::new(move |request| observer(request)));
        self
    }

    /// Sees the end of every WebSocket of this group before its route's `on_close`.
    ///
    /// ```
    /// use ringwire::testing::TestServer;
    /// use ringwire::{App, ws};
    /// use std::{cell::RefCell, rc::Rc};
    ///
    /// let codes = Rc::new(RefCell::new(Vec::new()));
    /// let server = TestServer::new(|| {
    ///     let codes = Rc::clone(&codes);
    ///     App::new().group("/live", |live| live.observe_close(move |closed| codes.borrow_mut().push(closed.code)).ws("/", ws()))
    /// });
    /// server.connect("/live").close(4001, "bye");
    /// server.connect("/live").reset();
    /// assert_eq!(*codes.borrow(), [4001, 1006]);
    /// ```
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
    R: HandlerResponse,
{
    let handler = Rc::new(Guarded::new(handler));
    Rc::new(move |request| {
        let handler = Rc::clone(&handler);
        Box::pin(async move { handler(request).await.into_handler_response() })
    })
}

/// Panics where a path is written as other routers have it: it would be a route that nobody asks for.
fn check_syntax(path: &str) {
    let mend = |segment: &str| match segment.split_at_checked(1) {
        Some((":", name)) if !name.is_empty() => Some(format!("{{{name}}}")),
        Some(("*", name)) => Some(format!("{{*{}}}", if name.is_empty() { "rest" } else { name })),
        Some(("<", name)) if name.ends_with('>') => Some(format!("{{{}}}", name.trim_end_matches('>'))),
        _ => None,
    };
    if let Some(right) = path.split('/').find_map(mend) {
        let whole: Vec<String> = path.split('/').map(|part| mend(part).unwrap_or_else(|| part.to_owned())).collect();
        panic!("the route {path} cannot be added: a parameter is written {right}, as in {}", whole.join("/"));
    }
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
            ///
            /// ```
            /// use ringwire::testing::TestServer;
            /// use ringwire::{App, Request};
            ///
            /// async fn room(request: Request) -> String {
            ///     format!("{} {}", request.method(), request.param("room"))
            /// }
            ///
            #[doc = concat!("let app = || App::new().", stringify!($name), "(\"/rooms/{room}\", room);")]
            /// let server = TestServer::new(app);
            #[doc = concat!("let response = server.request(\"", stringify!($method), "\", \"/rooms/lobby\").send();")]
            #[doc = concat!("assert_eq!(response.text(), \"", stringify!($method), " lobby\");")]
            /// ```
            #[must_use]
            pub fn $name<F, R>(self, path: &str, handler: F) -> $type
            where
                F: AsyncFn(Request) -> R + 'static,
                R: HandlerResponse,
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
    /// `None` = the default, or that of the app that it is nested in.
    envelope: Option<Envelope>,
    shared: SharedValues,
    values: CoreValues,
    on_shutdown: Vec<OnShutdown>,
    tell_lost: Option<TellOfLost>,
}

/// What is said of a lost member: an event's name and data.
pub(crate) type TellOfLost = Rc<dyn Fn(&LostMember<'_>) -> Option<(String, Value)>>;

/// A member of a room whose machine was lost, or is there again: see [`App::tell_lost`].
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct LostMember<'m> {
    /// The room.
    pub room: &'m str,
    /// Who.
    pub id: ConnectionId,
    /// Whether it is there again, after it was told that it was lost.
    pub is_back: bool,
}

pub(crate) type OnShutdown = Rc<dyn Fn(Core) -> LocalBoxFuture<'static, ()>>;

/// What an app comes to on a core.
pub(crate) struct Parts {
    pub(crate) router: Router,
    pub(crate) envelope: Envelope,
    pub(crate) shared: SharedValues,
    pub(crate) values: CoreValues,
    pub(crate) on_shutdown: Vec<OnShutdown>,
    pub(crate) tell_lost: Option<TellOfLost>,
}

impl App {
    /// No routes: every request is answered 404.
    ///
    /// ```
    /// use ringwire::testing::TestServer;
    /// use ringwire::App;
    ///
    /// let server = TestServer::new(App::new);
    /// assert_eq!(server.get("/").send().status(), 404);
    /// ```
    pub fn new() -> App {
        App::default()
    }

    /// How named events are written.
    ///
    /// ```
    /// use ringwire::testing::TestServer;
    /// use ringwire::{App, Envelope, ws};
    ///
    /// let server = TestServer::new(|| {
    ///     App::new().envelope(Envelope::Path).ws("/", ws().on_connect(|socket| socket.emit("welcome", &1)))
    /// });
    /// server.connect("/").expect_text(r#"{"path":"welcome","data":1}"#);
    /// ```
    #[must_use]
    pub fn envelope(mut self, envelope: Envelope) -> App {
        self.envelope = Some(envelope);
        self
    }

    /// Says by which event the members of a room are told of a member whose machine was lost, and of its being there again: a
    /// machine that is not heard of for [`Config::node_timeout`](crate::Config::node_timeout) cannot say so itself. `None`: they
    /// are not told. It is asked of those who joined with [`Socket::join_then`](crate::Socket::join_then) or an awaited
    /// [`Connection::join`](crate::Connection::join), once on each core that has members of the room; where machines are not
    /// joined, never.
    ///
    /// ```
    /// use ringwire::App;
    /// use serde_json::json;
    ///
    /// App::new().tell_lost(|member| {
    ///     let event = if member.is_back { "user-joined" } else { "user-left" };
    ///     Some((event, json!({ "room": member.room, "userId": member.id })))
    /// });
    /// ```
    #[must_use]
    pub fn tell_lost<E: Into<String>>(
        mut self,
        tell: impl Fn(&LostMember<'_>) -> Option<(E, Value)> + 'static,
    ) -> App {
        self.tell_lost = Some(Rc::new(move |member| tell(member).map(|(event, data)| (event.into(), data))));
        self
    }

    /// Answers requests for which there is no route; of a nested app, those below its prefix.
    ///
    /// ```
    /// use ringwire::testing::TestServer;
    /// use http::StatusCode;
    /// use ringwire::{App, Request};
    ///
    /// let lost = async |request: Request| (StatusCode::NOT_FOUND, format!("there is no {}", request.path()));
    /// let server = TestServer::new(move || App::new().fallback(lost));
    /// assert_eq!(server.get("/attic").send().expect_status(404).text(), "there is no /attic");
    /// ```
    #[must_use]
    pub fn fallback<F, R>(mut self, handler: F) -> App
    where
        F: AsyncFn(Request) -> R + 'static,
        R: HandlerResponse,
    {
        self.root.fallbacks.retain(|(path, _)| !path.is_empty());
        self.root.fallbacks.push((String::new(), boxed(handler)));
        self
    }

    pub(crate) fn change(mut self, change: impl FnOnce(Group) -> Group) -> App {
        self.root = change(self.root);
        self
    }

    /// Routes below `prefix`, with hooks of their own.
    ///
    /// ```
    /// use ringwire::testing::TestServer;
    /// use ringwire::{App, HttpError, Request};
    ///
    /// let closed = |_: &mut Request| Err(HttpError::unavailable("back at nine"));
    /// let server = TestServer::new(move || {
    ///     App::new().group("/shop", |shop| shop.before(closed).get("/", async |_| "welcome")).get("/", async |_| "the square")
    /// });
    /// assert_eq!(server.get("/shop").send().status(), 503);
    /// assert_eq!(server.get("/").send().text(), "the square");
    /// ```
    #[must_use]
    pub fn group(self, prefix: &str, build: impl FnOnce(Group) -> Group) -> App {
        self.change(|root| root.group(prefix, build))
    }

    /// A WebSocket route: a [`Ws`](crate::Ws), or just its message handler. `{name}` in the path is a parameter.
    ///
    /// ```
    /// use ringwire::testing::TestServer;
    /// use ringwire::{App, Message, Socket, ws};
    ///
    /// let echo = |socket: &mut Socket, message: Message| socket.send(message);
    /// let server = TestServer::new(move || {
    ///     App::new().ws("/echo", echo).ws("/greet/{name}", ws().on_connect(|socket| socket.param("name").to_owned()))
    /// });
    /// let client = server.connect("/echo");
    /// client.send("hello");
    /// client.expect_text("hello");
    /// server.connect("/greet/ann").expect_text("ann");
    /// ```
    #[must_use]
    pub fn ws<M>(self, path: &str, route: impl IntoWs<M>) -> App {
        self.change(|root| root.ws(path, route))
    }

    /// An HTTP route of one method.
    ///
    /// ```
    /// use ringwire::testing::TestServer;
    /// use http::Method;
    /// use ringwire::{App, Request};
    ///
    /// let server = TestServer::new(|| App::new().method(Method::OPTIONS, "/", async |_: Request| "what may be done"));
    /// assert_eq!(server.request("OPTIONS", "/").send().text(), "what may be done");
    /// ```
    #[must_use]
    pub fn method<F, R>(self, method: Method, path: &str, handler: F) -> App
    where
        F: AsyncFn(Request) -> R + 'static,
        R: HandlerResponse,
    {
        self.change(|root| root.method(method, path, handler))
    }

    /// An HTTP route of all methods.
    ///
    /// ```
    /// use ringwire::testing::TestServer;
    /// use ringwire::{App, Request};
    ///
    /// let server = TestServer::new(|| App::new().any("/method", async |request: Request| request.method().to_string()));
    /// assert_eq!(server.put("/method").send().text(), "PUT");
    /// ```
    #[must_use]
    pub fn any<F, R>(self, path: &str, handler: F) -> App
    where
        F: AsyncFn(Request) -> R + 'static,
        R: HandlerResponse,
    {
        self.change(|root| root.any(path, handler))
    }

    /// See [`Group::before`]; for all routes.
    ///
    /// ```
    /// use ringwire::testing::TestServer;
    /// use ringwire::{App, HttpError, Request};
    ///
    /// let only_the_intranet = |request: &mut Request| match request.host() {
    ///     Some("intranet.example") => Ok(()),
    ///     _ => Err(HttpError::forbidden("not from here")),
    /// };
    /// let server = TestServer::new(move || App::new().before(only_the_intranet).get("/", async |_| "welcome"));
    /// assert_eq!(server.get("/").header("host", "intranet.example").send().text(), "welcome");
    /// assert_eq!(server.get("/").send().status(), 403);
    /// ```
    #[must_use]
    pub fn before(self, check: impl Fn(&mut Request) -> Result<(), HttpError> + 'static) -> App {
        self.change(|root| root.before(check))
    }

    /// See [`Group::before_async`]; for all routes.
    ///
    /// ```
    /// use ringwire::testing::TestServer;
    /// use ringwire::{App, Request, sleep};
    /// use std::time::Duration;
    ///
    /// let late = async |_: &mut Request| {
    ///     sleep(Duration::from_millis(10)).await;
    ///     Ok(())
    /// };
    /// let server = TestServer::new(move || App::new().before_async(late).get("/", async |_| "welcome"));
    /// assert_eq!(server.get("/").send().text(), "welcome");
    /// ```
    #[must_use]
    pub fn before_async<F>(self, check: F) -> App
    where
        F: AsyncFn(&mut Request) -> Result<(), HttpError> + 'static,
    {
        self.change(|root| root.before_async(check))
    }

    /// See [`Group::after`]; for all routes.
    ///
    /// ```
    /// use ringwire::testing::TestServer;
    /// use ringwire::{App, ws};
    /// use std::{cell::Cell, rc::Rc};
    ///
    /// let seconds = Rc::new(Cell::new(0));
    /// let server = TestServer::new(|| {
    ///     let seconds = Rc::clone(&seconds);
    ///     App::new().after(move |_, closed| seconds.set(seconds.get() + closed.duration.as_secs())).ws("/", ws())
    /// });
    /// let client = server.connect("/");
    /// server.advance(std::time::Duration::from_secs(5));
    /// client.reset();
    /// assert_eq!(seconds.get(), 5);
    /// ```
    #[must_use]
    pub fn after(self, hook: impl Fn(&mut Socket<'_>, &Closed) + 'static) -> App {
        self.change(|root| root.after(hook))
    }

    /// See [`Group::on_response`]; for all routes, and for whatever the server answers.
    ///
    /// ```
    /// use ringwire::testing::TestServer;
    /// use http::{HeaderValue, header::SERVER};
    /// use ringwire::App;
    ///
    /// let server = TestServer::new(|| App::new().on_response(|answered| answered.set_header(SERVER, HeaderValue::from_static("chat/2"))));
    /// assert_eq!(server.get("/nowhere").send().expect_status(404).header("server"), Some("chat/2"));
    /// ```
    #[must_use]
    pub fn on_response(self, hook: impl Fn(&mut Answered<'_>) + 'static) -> App {
        self.change(|root| root.on_response(hook))
    }

    /// See [`Group::cors`]; for all routes.
    ///
    /// ```
    /// use ringwire::testing::TestServer;
    /// use ringwire::{App, Cors};
    ///
    /// let server = TestServer::new(|| App::new().cors(Cors::new("*")).get("/", async |_| "for everybody"));
    /// let response = server.get("/").header("origin", "https://app.example").send();
    /// assert_eq!(response.header("access-control-allow-origin"), Some("*"));
    /// ```
    #[must_use]
    pub fn cors(self, cors: Cors) -> App {
        self.change(|root| root.cors(cors))
    }

    /// Takes in another app: its routes below `prefix`, with its hooks around them and inside those of this app, and its
    /// fallback for what else is asked for there. Its state is found where this app has none of the type.
    ///
    /// ```
    /// use ringwire::{App, Request, ws};
    ///
    /// fn admin() -> App {
    ///     App::new().get("/health", async |_: Request| "fine").ws("/live", ws())
    /// }
    ///
    /// App::new().nest("/admin", admin()).get("/", async |_: Request| "welcome");
    /// ```
    ///
    /// # Panics
    /// If the two apps name different envelopes: a server has one.
    #[must_use]
    pub fn nest(mut self, prefix: &str, app: App) -> App {
        let envelopes = (self.envelope, app.envelope);
        let agree = envelopes.0.is_none() || envelopes.1.is_none() || envelopes.0 == envelopes.1;
        assert!(agree, "the app at {prefix} has another envelope: a server has one");
        self.envelope = envelopes.0.or(envelopes.1);
        self.root = self.root.take_in(app.root.finish(prefix));
        self.shared.merge(app.shared);
        self.values.merge(app.values);
        self.on_shutdown.extend(app.on_shutdown);
        self
    }

    /// Runs as a task on each core when the server is told to end, at the beginning of its notice
    /// ([`Config::drain_notice`](crate::Config)): connections are open then, and those that the hook talks to still hear it.
    /// Nobody waits for it for longer than for them.
    ///
    /// ```
    /// use ringwire::{App, Core, ws};
    ///
    /// App::new().ws("/live", ws()).on_shutdown(async |core: Core| {
    ///     if core.number() == 0 {
    ///         let _ = core.hub().emit_to_all("goodbye", &"back in a minute");
    ///     }
    /// });
    /// ```
    #[must_use]
    pub fn on_shutdown(mut self, hook: impl AsyncFn(Core) + 'static) -> App {
        let hook = Rc::new(Guarded::new(hook));
        self.on_shutdown.push(Rc::new(move |core| {
            let hook = Rc::clone(&hook);
            Box::pin(async move { hook(core).await })
        }));
        self
    }

    /// Gives handlers and hooks a state that all cores share: [`Socket::state`](crate::Socket::state),
    /// [`Connection::state`](crate::Connection::state) and [`Request::state`] find it by its type.
    /// [`Server::run_with`](crate::Server::run_with) does this for the state that it has.
    ///
    /// ```
    /// use ringwire::testing::TestServer;
    /// use ringwire::{App, Request};
    /// use std::sync::Arc;
    ///
    /// struct Motto(&'static str);
    ///
    /// let motto = Arc::new(Motto("less is more"));
    /// let server = TestServer::builder().cores(2).start(|| {
    ///     App::new().with_state(Arc::clone(&motto)).get("/", async |request: Request| request.state::<Motto>().0)
    /// });
    /// assert_eq!(server.get("/").send().text(), "less is more");
    /// ```
    ///
    /// # Panics
    /// If the app has a state of the type.
    #[must_use]
    pub fn with_state<T: Send + Sync + 'static>(mut self, state: Arc<T>) -> App {
        self.shared.insert(state);
        self
    }

    /// Gives handlers and hooks a state that is this core's own, and need not be `Send`: what belongs to its connections and
    /// to no others. [`Socket::core_state`](crate::Socket::core_state) and its like find it by its type.
    ///
    /// ```
    /// use ringwire::{App, ws};
    /// use std::cell::Cell;
    ///
    /// App::new().with_core_state(Cell::new(0_u64)).ws(
    ///     "/",
    ///     ws().on_message(|socket, _| {
    ///         let count = socket.core_state::<Cell<u64>>();
    ///         count.set(count.get() + 1);
    ///         count.get().to_string()
    ///     }),
    /// );
    /// ```
    ///
    /// # Panics
    /// If the app has such a state of the type.
    #[must_use]
    pub fn with_core_state<T: 'static>(mut self, state: T) -> App {
        self.values.insert(state);
        self
    }

    /// See [`Group::observe`]; for all routes.
    ///
    /// ```
    /// use ringwire::testing::TestServer;
    /// use ringwire::App;
    /// use std::{cell::Cell, rc::Rc};
    ///
    /// let asked = Rc::new(Cell::new(0));
    /// let server = TestServer::new(|| {
    ///     let asked = Rc::clone(&asked);
    ///     App::new().observe(move |_| asked.set(asked.get() + 1)).get("/", async |_| "hello")
    /// });
    /// server.get("/").send().expect_status(200);
    /// assert_eq!(asked.get(), 1);
    /// ```
    #[must_use]
    pub fn observe(self, observer: impl Fn(&Request) + 'static) -> App {
        self.change(|root| root.observe(observer))
    }

    /// See [`Group::observe_close`]; for all routes.
    ///
    /// ```
    /// use ringwire::testing::TestServer;
    /// use ringwire::{App, ws};
    /// use std::{cell::RefCell, rc::Rc};
    ///
    /// let reasons = Rc::new(RefCell::new(Vec::new()));
    /// let server = TestServer::new(|| {
    ///     let reasons = Rc::clone(&reasons);
    ///     App::new().observe_close(move |closed| reasons.borrow_mut().push(closed.reason.clone())).ws("/", ws())
    /// });
    /// server.connect("/").close(1000, "bye");
    /// assert_eq!(*reasons.borrow(), ["bye"]);
    /// ```
    #[must_use]
    pub fn observe_close(self, observer: impl Fn(&Closed) + 'static) -> App {
        self.change(|root| root.observe_close(observer))
    }

    pub(crate) fn into_parts(self) -> Parts {
        let App { root, envelope, shared, values, on_shutdown, tell_lost } = self;
        let Group { definitions, layers, fallbacks, .. } = root.finish("");
        let router = Router::new(definitions, fallbacks, Layers::new(layers));
        Parts { router, envelope: envelope.unwrap_or_default(), shared, values, on_shutdown, tell_lost }
    }
}
