//! What a test asks a server for: HTTP requests and WebSocket handshakes.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;

use bytes::Bytes;
use serde::Serialize;

use super::client::TestClient;
use super::line::{End, Phase};
use super::request::put_field;
use super::response::TestResponse;
use super::stage::Stage;
use crate::engine::Peer;
use crate::proto::extensions::Offer;
use crate::proto::handshake;
use crate::quote::quoted;

/// What both kinds have.
struct Draft {
    stage: Rc<RefCell<Stage>>,
    target: String,
    host: String,
    headers: Vec<(String, String)>,
    core: Option<usize>,
    peer: Option<Peer>,
}

impl Draft {
    fn new(stage: &Rc<RefCell<Stage>>, target: &str) -> Draft {
        assert!(target.starts_with('/'), "a path begins with a slash");
        Draft {
            stage: Rc::clone(stage),
            target: target.to_owned(),
            host: "localhost".to_owned(),
            headers: Vec::new(),
            core: None,
            peer: None,
        }
    }

    fn header(&mut self, name: &str, value: &str) {
        if name.eq_ignore_ascii_case("host") {
            self.host = value.to_owned();
        } else {
            self.headers.push((name.to_owned(), value.to_owned()));
        }
    }
}

macro_rules! draft_methods {
    () => {
        /// Adds a header field.
        ///
        /// ```
        /// use ringwire::testing::TestServer;
        /// use ringwire::{App, Request};
        ///
        /// let accepted = async |request: Request| request.header("accept").unwrap_or("nothing").to_owned();
        /// let server = TestServer::new(move || App::new().get("/", accepted));
        /// assert_eq!(server.get("/").header("accept", "text/html").send().text(), "text/html");
        /// ```
        pub fn header(mut self, name: &str, value: &str) -> Self {
            self.draft.header(name, value);
            self
        }

        /// Adds a bearer token: `Authorization: Bearer TOKEN` (RFC 6750 2.1).
        ///
        /// ```
        /// use ringwire::testing::TestServer;
        /// use ringwire::{App, Request};
        ///
        /// let shown = async |request: Request| request.header("authorization").unwrap_or("nothing").to_owned();
        /// let server = TestServer::new(move || App::new().get("/", shown));
        /// assert_eq!(server.get("/").token("secret").send().text(), "Bearer secret");
        /// ```
        pub fn token(self, token: &str) -> Self {
            self.header("authorization", &format!("Bearer {token}"))
        }

        /// Adds a cookie (RFC 6265 4.2).
        ///
        /// ```
        /// use ringwire::testing::TestServer;
        /// use ringwire::{App, Request};
        ///
        /// let who = async |request: Request| request.cookie("user").unwrap_or("nobody").to_owned();
        /// let server = TestServer::new(move || App::new().get("/", who));
        /// assert_eq!(server.get("/").cookie("theme", "dark").cookie("user", "ann").send().text(), "ann");
        /// ```
        pub fn cookie(self, name: &str, value: &str) -> Self {
            self.header("cookie", &format!("{name}={value}"))
        }

        /// Goes to this core; otherwise each connection goes to the next core in turn.
        ///
        /// ```
        /// use ringwire::testing::TestServer;
        /// use ringwire::{App, ws};
        ///
        /// let route = || ws().on_connect(|socket| socket.id().core().to_string());
        /// let server = TestServer::builder().cores(3).start(move || App::new().ws("/", route()));
        /// server.handshake("/").on_core(2).open().expect_text("2");
        /// ```
        pub fn on_core(mut self, core: usize) -> Self {
            self.draft.core = Some(core);
            self
        }

        /// Comes from this address; otherwise each connection has one of its own.
        ///
        /// ```
        /// use ringwire::testing::TestServer;
        /// use ringwire::{App, Config, ws};
        ///
        /// let config = Config::default().max_connections_per_ip(1);
        /// let server = TestServer::builder().config(config).start(|| App::new().ws("/", ws()));
        /// let peer = "192.0.2.7:4711".parse().unwrap();
        /// let _first = server.handshake("/").from(peer).open();
        /// assert_eq!(server.handshake("/").from(peer).refusal().status(), 429);
        /// ```
        pub fn from(mut self, peer: SocketAddr) -> Self {
            self.draft.peer = Some(Peer::Inet(peer));
            self
        }
    };
}

/// An HTTP request that is being made: [`TestCall::send`] sends it. Each has a connection of its own.
///
/// ```
/// use ringwire::testing::TestServer;
/// use ringwire::{App, HttpError, Request};
/// use serde_json::{Value, json};
///
/// async fn double(request: Request) -> Result<Value, HttpError> {
///     let number: u32 = request.json()?;
///     Ok(json!({"double": 2 * number}))
/// }
///
/// let server = TestServer::new(|| App::new().post("/double", double));
/// let response = server.post("/double").json(&21).send().expect_status(200);
/// assert_eq!(response.json::<Value>(), json!({"double": 42}));
/// assert_eq!(server.post("/double").body("no number").send().status(), 400);
/// assert_eq!(server.get("/double").send().status(), 405);
/// ```
#[must_use = "send it"]
pub struct TestCall {
    draft: Draft,
    method: String,
    body: Option<Bytes>,
}

impl TestCall {
    pub(super) fn new(stage: &Rc<RefCell<Stage>>, method: &str, target: &str) -> TestCall {
        TestCall { draft: Draft::new(stage, target), method: method.to_owned(), body: None }
    }

    draft_methods!();

    /// Sets the body.
    ///
    /// ```
    /// use ringwire::testing::TestServer;
    /// use ringwire::{App, Request};
    ///
    /// let length = async |request: Request| request.body().len().to_string();
    /// let server = TestServer::new(move || App::new().post("/length", length));
    /// assert_eq!(server.post("/length").body("hello").send().text(), "5");
    /// ```
    pub fn body(mut self, body: impl Into<Bytes>) -> TestCall {
        self.body = Some(body.into());
        self
    }

    /// Sets the body to this value as JSON.
    ///
    /// ```
    /// use ringwire::testing::TestServer;
    /// use ringwire::{App, Request};
    ///
    /// let body = async |request: Request| String::from_utf8_lossy(request.body()).into_owned();
    /// let server = TestServer::new(move || App::new().post("/body", body));
    /// assert_eq!(server.post("/body").json(&["a", "b"]).send().text(), r#"["a","b"]"#);
    /// ```
    ///
    /// # Panics
    /// If it cannot be written as JSON.
    #[track_caller]
    pub fn json(self, body: &(impl Serialize + ?Sized)) -> TestCall {
        let body = serde_json::to_vec(body).expect("a body that can be written as JSON");
        self.header("content-type", "application/json").body(body)
    }

    /// Sends it and awaits the response, as everything that a test expects.
    ///
    /// ```
    /// use ringwire::testing::TestServer;
    /// use ringwire::App;
    ///
    /// let server = TestServer::new(|| App::new().get("/", async |_| "welcome"));
    /// assert_eq!(server.get("/").send().text(), "welcome");
    /// assert_eq!(server.get("/attic").send().status(), 404);
    /// ```
    ///
    /// # Panics
    /// If there is none, or a header field is none that may be sent.
    #[track_caller]
    pub fn send(self) -> TestResponse {
        self.start().response()
    }

    /// Sends it: the test goes on, and asks for the response later.
    ///
    /// ```
    /// use ringwire::testing::TestServer;
    /// use ringwire::{App, sleep};
    /// use std::time::Duration;
    ///
    /// let slow = async |_| {
    ///     sleep(Duration::from_secs(2)).await;
    ///     "at last"
    /// };
    /// let server = TestServer::new(move || App::new().get("/", slow));
    /// let pending = server.get("/").start();
    /// server.advance(Duration::from_secs(1));
    /// assert!(!pending.is_ready());
    /// assert_eq!(pending.response().text(), "at last");
    /// ```
    ///
    /// # Panics
    /// If a header field is none that may be sent.
    #[track_caller]
    pub fn start(self) -> PendingResponse {
        let TestCall { draft, method, body } = self;
        let Draft { stage, target, host, headers, core, peer } = draft;
        let mut bytes = format!("{method} {target} HTTP/1.1\r\n").into_bytes();
        put_field(&mut bytes, "host", &host);
        headers.iter().for_each(|(name, value)| put_field(&mut bytes, name, value));
        if let Some(body) = &body {
            put_field(&mut bytes, "content-length", &body.len().to_string());
        }
        bytes.extend_from_slice(b"\r\n");
        bytes.extend_from_slice(body.as_deref().unwrap_or_default());
        let what = format!("{method} {target}");
        let number = {
            let mut stage = stage.borrow_mut();
            let number = stage.open(&what, core, peer, |_| Phase::Response { has_body: method != "HEAD" });
            stage.line(number).write(&bytes);
            stage.settle();
            number
        };
        PendingResponse { stage, number, what }
    }
}

/// A response that is to come. Dropped, it closes the connection.
///
/// ```
/// use ringwire::testing::TestServer;
/// use ringwire::{App, sleep};
/// use std::time::Duration;
///
/// let slow = async |_| sleep(Duration::from_secs(2)).await;
/// let server = TestServer::new(move || App::new().get("/slow", slow).get("/fast", async |_| "done"));
/// let slow = server.get("/slow").start();
/// assert_eq!(server.get("/fast").send().text(), "done"); // meanwhile
/// assert_eq!(slow.response().status(), 204);
/// ```
#[must_use = "ask for the response"]
pub struct PendingResponse {
    stage: Rc<RefCell<Stage>>,
    number: usize,
    what: String,
}

impl PendingResponse {
    /// Whether it is there.
    ///
    /// ```
    /// use ringwire::testing::TestServer;
    /// use ringwire::{App, sleep};
    /// use std::time::Duration;
    ///
    /// let slow = async |_| {
    ///     sleep(Duration::from_secs(2)).await;
    ///     "at last"
    /// };
    /// let server = TestServer::new(move || App::new().get("/", slow));
    /// let pending = server.get("/").start();
    /// assert!(!pending.is_ready());
    /// server.advance(Duration::from_millis(2100));
    /// assert!(pending.is_ready());
    /// ```
    pub fn is_ready(&self) -> bool {
        self.stage.borrow_mut().line(self.number).response.is_some()
    }

    /// The response, which is awaited.
    ///
    /// ```
    /// use ringwire::testing::TestServer;
    /// use ringwire::{App, sleep};
    /// use std::time::Duration;
    ///
    /// let slow = async |_| {
    ///     sleep(Duration::from_secs(2)).await;
    ///     "at last"
    /// };
    /// let server = TestServer::new(move || App::new().get("/", slow));
    /// let pending = server.get("/").start();
    /// assert_eq!(pending.response().text(), "at last");
    /// assert!(server.now() >= Duration::from_secs(2));
    /// ```
    ///
    /// # Panics
    /// If there is none.
    #[track_caller]
    pub fn response(self) -> TestResponse {
        match outcome(&self.stage, self.number) {
            Ok(Some(response)) => response,
            Ok(None) => unreachable!("no handshake was sent"),
            Err(why) => panic!("{}", self.stage.borrow().told(&format!("{}: {why}", self.what))),
        }
    }
}

impl Drop for PendingResponse {
    fn drop(&mut self) {
        if let Ok(mut stage) = self.stage.try_borrow_mut() {
            stage.forget(self.number);
        }
    }
}

/// A WebSocket handshake that is being made: [`TestHandshake::open`] makes a client of it, and whoever is to be refused asks
/// for the [refusal](TestHandshake::refusal).
///
/// ```
/// use ringwire::testing::TestServer;
/// use ringwire::{App, HttpError, Request, ws};
///
/// fn authenticate(request: &mut Request) -> Result<(), HttpError> {
///     match request.header("authorization") {
///         Some("Bearer secret") => Ok(()),
///         _ => Err(HttpError::unauthorized("who are you?")),
///     }
/// }
///
/// let server = TestServer::new(|| {
///     App::new().before(authenticate).ws("/private", ws().subprotocols(["v2", "v1"]).on_connect(|_| "welcome"))
/// });
/// assert_eq!(server.handshake("/private").token("wrong").refusal().status(), 401);
/// let client = server.handshake("/private").token("secret").protocols(["v1", "v0"]).open();
/// assert_eq!(client.protocol().as_deref(), Some("v1"));
/// client.expect_text("welcome");
/// ```
#[must_use = "open it"]
pub struct TestHandshake {
    draft: Draft,
    protocols: Vec<String>,
    deflate: Option<Offer>,
}

impl TestHandshake {
    pub(super) fn new(stage: &Rc<RefCell<Stage>>, target: &str) -> TestHandshake {
        TestHandshake { draft: Draft::new(stage, target), protocols: Vec::new(), deflate: None }
    }

    draft_methods!();

    /// Offers these subprotocols, the favourite first.
    ///
    /// ```
    /// use ringwire::testing::TestServer;
    /// use ringwire::{App, ws};
    ///
    /// let server = TestServer::new(|| App::new().ws("/", ws().subprotocols(["v2", "v1"])));
    /// let client = server.handshake("/").protocols(["v0", "v1"]).open();
    /// assert_eq!(client.protocol().as_deref(), Some("v1"));
    /// ```
    pub fn protocols<P: Into<String>>(mut self, protocols: impl IntoIterator<Item = P>) -> TestHandshake {
        self.protocols.extend(protocols.into_iter().map(Into::into));
        self
    }

    /// Offers compression (permessage-deflate, RFC 7692), as browsers do. Where the server agrees, messages that get shorter are
    /// sent compressed, and what it sends is decompressed.
    ///
    /// ```
    /// use ringwire::testing::TestServer;
    /// use ringwire::{App, Deflate, Message, Socket, ws};
    ///
    /// let echo = |socket: &mut Socket, message: Message| socket.send(message);
    /// let server = TestServer::new(move || App::new().ws("/echo", ws().deflate(Deflate::Dedicated).on_message(echo)));
    /// let client = server.handshake("/echo").deflate().open();
    /// assert!(client.is_deflated());
    /// client.send("hello ".repeat(100));
    /// client.expect_text(&"hello ".repeat(100));
    /// ```
    pub fn deflate(mut self) -> TestHandshake {
        self.deflate = Some(Offer { context: true });
        self
    }

    /// As [`TestHandshake::deflate`], but each message stands for itself, both ways.
    ///
    /// ```
    /// use ringwire::testing::TestServer;
    /// use ringwire::{App, Deflate, ws};
    ///
    /// let route = || ws().deflate(Deflate::Stateless).on_message(|_, message| message.into_owned());
    /// let server = TestServer::new(move || App::new().ws("/", route()));
    /// let client = server.handshake("/").deflate_stateless().open();
    /// let extensions = client.header("sec-websocket-extensions").unwrap();
    /// assert!(extensions.contains("server_no_context_takeover"));
    /// ```
    pub fn deflate_stateless(mut self) -> TestHandshake {
        self.deflate = Some(Offer { context: false });
        self
    }

    /// Comes from a page of this origin (RFC 6455 10.2).
    ///
    /// ```
    /// use ringwire::testing::TestServer;
    /// use ringwire::{App, Config, ws};
    ///
    /// let config = Config::default().origins("https://app.example".parse().unwrap());
    /// let server = TestServer::builder().config(config).start(|| App::new().ws("/", ws()));
    /// assert!(server.handshake("/").origin("https://app.example").open().is_open());
    /// assert_eq!(server.handshake("/").origin("https://other.example").refusal().status(), 403);
    /// ```
    pub fn origin(self, origin: &str) -> TestHandshake {
        self.header("origin", origin)
    }

    /// The client, or the response that refuses it.
    ///
    /// ```
    /// use ringwire::testing::TestServer;
    /// use ringwire::{App, Config, ws};
    ///
    /// let config = Config::default().max_connections(1);
    /// let server = TestServer::builder().config(config).start(|| App::new().ws("/", ws()));
    /// let first = server.handshake("/").try_open();
    /// let second = server.handshake("/").try_open();
    /// assert!(first.is_ok());
    /// assert_eq!(second.unwrap_err().status(), 503);
    /// ```
    ///
    /// # Errors
    /// The refusal.
    ///
    /// # Panics
    /// If there is no answer, or a header field is none that may be sent.
    #[track_caller]
    #[expect(clippy::result_large_err, reason = "a test has few of them, and wants to look at it")]
    pub fn try_open(self) -> Result<TestClient, TestResponse> {
        let TestHandshake { draft, protocols, deflate } = self;
        let Draft { stage, target, host, headers, core, peer } = draft;
        let protocols: Vec<&str> = protocols.iter().map(String::as_str).collect();
        let headers = headers.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let headers = headers.chain(deflate.map(|offer| ("Sec-WebSocket-Extensions", offer.value())));
        let client = {
            let mut stage = stage.borrow_mut();
            let mut key = String::new();
            let number = stage.open(&target, core, peer, |rng| {
                let mut random = [0; 16];
                rng.fill(&mut random);
                key = handshake::client_key(random);
                let offered = protocols.iter().copied().map(str::to_owned).collect();
                Phase::Handshake { key: key.clone(), offered, deflate }
            });
            let mut bytes = Vec::new();
            let written = handshake::put_request(&mut bytes, &host, &target, &key, &protocols, headers);
            assert!(written.is_ok(), "{target}: a header field, subprotocol or path that must not be sent");
            stage.line(number).write(&bytes);
            number
        };
        let client = TestClient::new(Rc::clone(&stage), client);
        match outcome(&stage, client.number()) {
            Ok(None) => Ok(client),
            Ok(Some(refusal)) => Err(refusal),
            Err(why) => panic!("{}", stage.borrow().told(&format!("WebSocket {target}: {why}"))),
        }
    }

    /// The client.
    ///
    /// ```
    /// use ringwire::testing::TestServer;
    /// use ringwire::{App, ws};
    ///
    /// let route = || ws().on_connect(|socket| socket.request().cookie("user").map(str::to_owned));
    /// let server = TestServer::new(move || App::new().ws("/", route()));
    /// server.handshake("/").cookie("user", "ann").open().expect_text("ann");
    /// ```
    ///
    /// # Panics
    /// If the handshake is refused, or fails.
    #[track_caller]
    pub fn open(self) -> TestClient {
        let (stage, target) = (Rc::clone(&self.draft.stage), self.draft.target.clone());
        match self.try_open() {
            Ok(client) => client,
            Err(refusal) => {
                let (status, body) = (refusal.status(), quoted(refusal.body()).to_string());
                panic!("{}", stage.borrow().told(&format!("WebSocket {target}: refused with {status}: {body}")))
            }
        }
    }

    /// The response that refuses the handshake.
    ///
    /// ```
    /// use ringwire::testing::TestServer;
    /// use ringwire::{App, HttpError, ws};
    ///
    /// let route = || ws().before(|_| Err(HttpError::forbidden("members only")));
    /// let server = TestServer::new(move || App::new().ws("/", route()));
    /// let refusal = server.handshake("/").refusal().expect_status(403);
    /// assert_eq!(refusal.text(), r#"{"error":"members only"}"#);
    /// ```
    ///
    /// # Panics
    /// If it is not refused, or fails.
    #[track_caller]
    pub fn refusal(self) -> TestResponse {
        let (stage, target) = (Rc::clone(&self.draft.stage), self.draft.target.clone());
        match self.try_open() {
            Err(refusal) => refusal,
            Ok(client) => {
                drop(client);
                panic!("{}", stage.borrow().told(&format!("WebSocket {target}: it is open, but should be refused")))
            }
        }
    }
}

/// What comes of what a client has asked for: a WebSocket (`None`), or a response; or why neither.
fn outcome(stage: &RefCell<Stage>, number: usize) -> Result<Option<TestResponse>, String> {
    let seen = stage.borrow_mut().wait(|stage| {
        let line = stage.line(number);
        match (line.response.take(), &line.end) {
            (Some(response), _) => Some(Ok(Some(response))),
            (None, _) if line.handshake.is_some() => Some(Ok(None)),
            (None, Some(end)) => Some(Err(End::to_string(end))),
            (None, None) => None,
        }
    });
    seen.unwrap_or_else(|| Err("there is no answer".to_owned()))
}
