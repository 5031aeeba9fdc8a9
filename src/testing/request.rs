//! Requests made by hand, for unit tests of hooks and handlers.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderName, HeaderValue};
use serde::Serialize;

use crate::admission::Admission;
use crate::app::Request;
use crate::mail::PostOffice;
use crate::proto::http::{HeadLimits, parse_head};
use crate::remote::Hub;
use crate::shard::service::{Inbound, Serves};

/// Begins a request with this method and target (path and query), for what takes a [`Request`]: hooks, handlers.
///
/// ```
/// use ringwire::testing::{TestResponse, block_on, request};
/// use ringwire::{HttpError, Request};
///
/// fn authenticate(request: &mut Request) -> Result<(), HttpError> {
///     let name = request.cookie("user").ok_or_else(|| HttpError::unauthorized("log in first"))?.to_owned();
///     request.extensions_mut().insert(name);
///     Ok(())
/// }
///
/// async fn greet(request: Request) -> String {
///     format!("Hello, {}!", request.param("name"))
/// }
///
/// let mut of_ann = request("GET", "/private").header("cookie", "user=ann").build();
/// authenticate(&mut of_ann).unwrap();
/// assert_eq!(of_ann.extensions().get::<String>().unwrap(), "ann");
///
/// let refused = authenticate(&mut request("GET", "/private").build()).unwrap_err();
/// assert_eq!(refused.status(), 401);
///
/// fn choose(request: &mut Request) -> Result<(), HttpError> {
///     request.accept_protocol("chat-v1")
/// }
///
/// let mut offering = request("GET", "/chat").header("sec-websocket-protocol", "chat-v2, chat-v1").build();
/// choose(&mut offering).unwrap();
/// assert_eq!(offering.protocol(), Some("chat-v1"));
///
/// let greeting = block_on(greet(request("GET", "/greet/ann").param("name", "ann").build()));
/// assert_eq!(TestResponse::of(greeting).text(), "Hello, ann!");
/// ```
pub fn request(method: &str, target: &str) -> RequestBuilder {
    RequestBuilder {
        head: format!("{method} {target} HTTP/1.1\r\n").into_bytes(),
        has_host: false,
        params: Vec::new(),
        body: Bytes::new(),
        peer: Some(SocketAddr::from(([127, 0, 0, 1], 40_000))),
        hub: None,
    }
}

/// A request that is being made: see [`request`].
///
/// ```
/// use ringwire::testing::request;
///
/// let request = request("POST", "/rooms/lobby?loud")
///     .param("room", "lobby")
///     .header("authorization", "Bearer secret")
///     .json(&"hello")
///     .build();
/// assert_eq!((request.param("room"), request.json::<String>().unwrap().as_str()), ("lobby", "hello"));
/// assert!(request.query("loud").is_some());
/// ```
#[must_use = "build it"]
pub struct RequestBuilder {
    head: Vec<u8>,
    has_host: bool,
    params: Vec<(String, String)>,
    body: Bytes,
    peer: Option<SocketAddr>,
    hub: Option<Hub>,
}

impl RequestBuilder {
    /// Adds a header field.
    ///
    /// ```
    /// use ringwire::testing::request;
    ///
    /// let request = request("GET", "/").header("host", "intranet.example").build();
    /// assert_eq!(request.host(), Some("intranet.example"));
    /// ```
    ///
    /// # Panics
    /// If the name or the value is not one that a header field may have.
    #[track_caller]
    pub fn header(mut self, name: &str, value: &str) -> RequestBuilder {
        put_field(&mut self.head, name, value);
        self.has_host |= name.eq_ignore_ascii_case("host");
        self
    }

    /// Sets a parameter, as the route's path would.
    ///
    /// ```
    /// use ringwire::testing::request;
    ///
    /// let request = request("GET", "/users/ann").param("name", "ann").build();
    /// assert_eq!(request.param("name"), "ann");
    /// ```
    pub fn param(mut self, name: &str, value: &str) -> RequestBuilder {
        self.params.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Sets the body.
    ///
    /// ```
    /// use ringwire::testing::request;
    ///
    /// let request = request("POST", "/").body("hello").build();
    /// assert_eq!(request.body(), "hello");
    /// ```
    pub fn body(mut self, body: impl Into<Bytes>) -> RequestBuilder {
        self.body = body.into();
        self
    }

    /// Sets the body to this value as JSON.
    ///
    /// ```
    /// use ringwire::testing::request;
    ///
    /// let request = request("POST", "/").json(&[1, 2]).build();
    /// assert_eq!(request.header("content-type"), Some("application/json"));
    /// assert_eq!(request.json::<Vec<u8>>().unwrap(), [1, 2]);
    /// ```
    ///
    /// # Panics
    /// If it cannot be written as JSON.
    #[track_caller]
    pub fn json(self, body: &(impl Serialize + ?Sized)) -> RequestBuilder {
        let body = serde_json::to_vec(body).expect("a body that can be written as JSON");
        self.header("content-type", "application/json").body(body)
    }

    /// Who asks; `None` is a peer on a Unix socket. A loopback address unless this is called.
    ///
    /// ```
    /// use ringwire::testing::request;
    ///
    /// let far = request("GET", "/").peer("192.0.2.7:4711".parse().ok()).build();
    /// assert!(far.peer().is_some_and(|peer| !peer.ip().is_loopback()));
    /// assert_eq!(request("GET", "/").peer(None).build().peer(), None);
    /// ```
    pub fn peer(mut self, peer: Option<SocketAddr>) -> RequestBuilder {
        self.peer = peer;
        self
    }

    /// The way to connections, such as [`TestServer::hub`](super::TestServer::hub). Without one there are none: nobody is
    /// reached, and counts are 0.
    ///
    /// ```
    /// use ringwire::testing::{TestServer, request};
    /// use ringwire::{App, Request, ws};
    ///
    /// async fn count(request: Request) -> String {
    ///     request.hub().websockets().to_string()
    /// }
    ///
    /// let server = TestServer::new(|| App::new().ws("/", ws()));
    /// let _client = server.connect("/");
    /// let asked = request("GET", "/count").hub(server.hub()).build();
    /// assert_eq!(server.block_on(count(asked)), "1");
    /// ```
    pub fn hub(mut self, hub: &Hub) -> RequestBuilder {
        self.hub = Some(hub.clone());
        self
    }

    /// The request.
    ///
    /// ```
    /// use ringwire::testing::request;
    ///
    /// let request = request("GET", "/search?q=tea").build();
    /// assert_eq!((request.path(), request.query("q").as_deref()), ("/search", Some("tea")));
    /// ```
    ///
    /// # Panics
    /// If the method or the target is not one that a request may have.
    #[track_caller]
    pub fn build(self) -> Request {
        let mut head = self.head;
        if !self.has_host {
            put_field(&mut head, "host", "localhost");
        }
        head.extend_from_slice(b"\r\n");
        let head = parse_head(&head, &HeadLimits::default()).unwrap_or_else(|error| panic!("no request: {error}"));
        let serves = Serves::default();
        let inbound = Inbound { head: &head, body: self.body, peer: self.peer, is_relayed: false, tls: None, serves };
        let hub = self.hub.unwrap_or_else(|| {
            let nobody = PostOffice::new(0, 1).courier(Vec::new());
            Hub::new(nobody, Arc::new(Admission::new(0, 0, 0)))
        });
        Request::new(&inbound, self.params.into_iter().collect(), hub)
            .unwrap_or_else(|error| panic!("no request: {}", error.message()))
    }
}

/// Appends a header field.
#[track_caller]
pub(super) fn put_field(head: &mut Vec<u8>, name: &str, value: &str) {
    let name = HeaderName::from_bytes(name.as_bytes()).expect("a header field's name");
    let value = HeaderValue::from_str(value).expect("a header field's value");
    for part in [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
        head.extend_from_slice(part);
    }
}
