//! An HTTP request as hooks and handlers see it.

use std::borrow::Cow;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{AsHeaderName, COOKIE, HOST, UPGRADE};
use http::{Extensions, HeaderMap, HeaderName, HeaderValue, Method, Uri};
use percent_encoding::percent_decode_str;
use serde::de::DeserializeOwned;
use smallvec::SmallVec;

use crate::app::error_http::HttpError;
use crate::app::path;
use crate::app::values::SharedValues;
use crate::guard::Guarded;
use crate::remote::Hub;
use crate::shard::service::{Headers, Inbound};
use crate::tls::TlsInfo;

/// A request with its whole body. Hooks may attach typed values, add headers to the response, and choose a subprotocol.
///
/// ```
/// use ringwire::testing::TestServer;
/// use ringwire::{App, Request};
///
/// async fn greet(request: Request) -> String {
///     let greeting = if request.query("lang").as_deref() == Some("de") { "Guten Tag" } else { "Good day" };
///     format!("{greeting}, {}!", request.param("name"))
/// }
///
/// let server = TestServer::new(|| App::new().get("/greet/{name}", greet));
/// assert_eq!(server.get("/greet/ann?lang=de").send().text(), "Guten Tag, ann!");
/// ```
pub struct Request {
    method: Method,
    uri: Uri,
    /// In normal form, where the URI's is not.
    path: Option<Box<str>>,
    headers: HeaderMap,
    params: SmallVec<[(String, String); 2]>,
    body: Bytes,
    peer: Option<SocketAddr>,
    is_relayed: bool,
    tls: Option<Arc<TlsInfo>>,
    hub: Hub,
    extensions: Guarded<Extensions>,
    /// What hooks add to the response.
    pub(crate) added_headers: Guarded<Headers>,
    pub(crate) protocol: Option<String>,
    /// Whatever the route says of compression.
    pub(crate) refuses_deflate: bool,
    /// State that all cores share.
    pub(crate) shared: Arc<SharedValues>,
}

/// A head, and a copy of it that its values are parts of.
struct Parts<'b> {
    whole: &'b [u8],
    copy: Bytes,
}

impl Parts<'_> {
    /// The same bytes of the copy. What does not stand in the head is copied by itself.
    fn of(&self, part: &[u8]) -> Bytes {
        let at = (part.as_ptr() as usize).wrapping_sub(self.whole.as_ptr() as usize);
        let is_part = self.whole.get(at..).is_some_and(|rest| rest.len() >= part.len());
        if is_part { self.copy.slice(at..at + part.len()) } else { Bytes::copy_from_slice(part) }
    }
}

impl Request {
    pub(crate) fn new(
        inbound: &Inbound<'_, '_>,
        params: SmallVec<[(String, String); 2]>,
        hub: Hub,
    ) -> Result<Request, HttpError> {
        let head = inbound.head;
        let parts = Parts { whole: head.bytes(), copy: Bytes::copy_from_slice(head.bytes()) };
        let bad = |what: &str| HttpError::bad_request(format!("invalid {what}"));
        let mut headers = HeaderMap::with_capacity(head.all().len());
        for header in head.all() {
            let name = HeaderName::from_bytes(header.name.as_bytes()).map_err(|_| bad("header name"))?;
            let value = HeaderValue::from_maybe_shared(parts.of(header.value)).map_err(|_| bad("header value"))?;
            headers.append(name, value);
        }
        if let Some(authority) = head.target_authority() {
            headers.insert(HOST, HeaderValue::from_str(authority).map_err(|_| bad("request target"))?);
        }
        Ok(Request {
            method: Method::from_bytes(head.method().as_bytes()).map_err(|_| bad("method"))?,
            path: match path::normal(head.path()) {
                Cow::Borrowed(_) => None,
                Cow::Owned(path) => Some(path.into_boxed_str()),
            },
            uri: Uri::from_maybe_shared(parts.of(head.target().as_bytes())).map_err(|_| bad("request target"))?,
            headers,
            params,
            body: inbound.body.clone(),
            peer: inbound.peer,
            is_relayed: inbound.is_relayed,
            tls: inbound.tls.clone(),
            hub,
            extensions: Guarded::default(),
            added_headers: Guarded::default(),
            protocol: None,
            refuses_deflate: false,
            shared: Arc::default(),
        })
    }

    /// The method.
    ///
    /// ```
    /// use ringwire::testing::request;
    /// use ringwire::{HttpError, Request};
    ///
    /// fn read_only(request: &mut Request) -> Result<(), HttpError> {
    ///     if request.method().is_safe() { Ok(()) } else { Err(HttpError::forbidden("nothing is changed here")) }
    /// }
    ///
    /// assert!(read_only(&mut request("GET", "/").build()).is_ok());
    /// assert!(read_only(&mut request("DELETE", "/").build()).is_err());
    /// ```
    pub fn method(&self) -> &Method {
        &self.method
    }

    /// The path and query as they were sent; with scheme and authority if the request names them, as proxies are asked.
    ///
    /// ```
    /// use ringwire::testing::request;
    ///
    /// let request = request("GET", "/search?q=tea&page=2").build();
    /// assert_eq!(request.uri().query(), Some("q=tea&page=2"));
    /// ```
    pub fn uri(&self) -> &Uri {
        &self.uri
    }

    /// The path in its normal form (RFC 3986 6.2.2.2): letters, digits and `-._~` are not percent-encoded, even if they were
    /// sent so; what else was, is.
    ///
    /// ```
    /// use ringwire::testing::request;
    ///
    /// let request = request("GET", "/%61nn/a%2Fb?page=2").build();
    /// assert_eq!(request.path(), "/ann/a%2Fb");
    /// ```
    pub fn path(&self) -> &str {
        self.path.as_deref().unwrap_or_else(|| self.uri.path())
    }

    /// The first value of a query parameter, percent-decoded.
    ///
    /// ```
    /// use ringwire::testing::request;
    ///
    /// let request = request("GET", "/search?q=green+tea&sort").build();
    /// assert_eq!(request.query("q").as_deref(), Some("green tea"));
    /// assert_eq!(request.query("sort").as_deref(), Some(""));
    /// assert_eq!(request.query("page"), None);
    /// ```
    pub fn query(&self, name: &str) -> Option<Cow<'_, str>> {
        let pairs = self.uri.query()?.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
        let mut values = pairs.filter(|(key, _)| decode_query(key) == name).map(|(_, value)| decode_query(value));
        values.next()
    }

    /// The host, and the port where it is not the scheme's own, that the request is for: the Host field, or what the target
    /// names in its place (RFC 9112 3.2.2). `None` if there is none, which only HTTP/1.0 may have.
    ///
    /// ```
    /// use ringwire::{HttpError, Request};
    ///
    /// fn only_for_the_intranet(request: &mut Request) -> Result<(), HttpError> {
    ///     match request.host() {
    ///         Some("intranet.example") => Ok(()),
    ///         _ => Err(HttpError::forbidden("not from here")),
    ///     }
    /// }
    /// ```
    pub fn host(&self) -> Option<&str> {
        self.header(HOST).filter(|host| !host.is_empty())
    }

    /// The header fields. Of a request with a target in absolute form, Host is what the target names (RFC 9112 3.2.2).
    ///
    /// ```
    /// use ringwire::testing::request;
    ///
    /// let request = request("GET", "/").header("accept", "text/html").header("accept", "text/plain").build();
    /// let accepted: Vec<_> = request.headers().get_all("accept").iter().collect();
    /// assert_eq!(accepted, ["text/html", "text/plain"]);
    /// ```
    pub fn headers(&self) -> &HeaderMap {
        &self.headers
    }

    /// The first value of a header field, if it is visible ASCII.
    ///
    /// ```
    /// use ringwire::testing::request;
    ///
    /// let request = request("GET", "/").header("X-Device", "sensor").build();
    /// assert_eq!(request.header("x-device"), Some("sensor"));
    /// assert_eq!(request.header(http::header::AUTHORIZATION), None);
    /// ```
    pub fn header(&self, name: impl AsHeaderName) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// The value of a cookie (RFC 6265 4.2).
    ///
    /// ```
    /// use ringwire::testing::request;
    ///
    /// let request = request("GET", "/").header("cookie", "theme=dark; user=ann").build();
    /// assert_eq!(request.cookie("user"), Some("ann"));
    /// assert_eq!(request.cookie("session"), None);
    /// ```
    pub fn cookie(&self, name: &str) -> Option<&str> {
        let fields = self.headers.get_all(COOKIE).iter().filter_map(|field| field.to_str().ok());
        let mut pairs = fields.flat_map(|field| field.split(';')).filter_map(|pair| pair.trim().split_once('='));
        pairs.find(|(key, _)| *key == name).map(|(_, value)| value.trim_matches('"'))
    }

    /// A parameter of the route's path, percent-decoded; empty if there is none of that name.
    ///
    /// ```
    /// use ringwire::testing::TestServer;
    /// use ringwire::{App, Request};
    ///
    /// let server = TestServer::new(|| {
    ///     App::new().get("/users/{name}", async |request: Request| request.param("name").to_owned())
    /// });
    /// assert_eq!(server.get("/users/J%C3%BCrgen").send().text(), "Jürgen");
    /// ```
    pub fn param(&self, name: &str) -> &str {
        self.params.iter().find(|(key, _)| key == name).map_or("", |(_, value)| value)
    }

    /// The body.
    ///
    /// ```
    /// use ringwire::testing::request;
    ///
    /// let request = request("POST", "/upload").body(vec![1, 2, 3]).build();
    /// assert_eq!(&request.body()[..], [1, 2, 3]);
    /// ```
    pub fn body(&self) -> &Bytes {
        &self.body
    }

    /// The body, decoded from JSON.
    ///
    /// ```
    /// use ringwire::testing::{TestResponse, block_on, request};
    /// use ringwire::{HttpError, Request};
    ///
    /// #[derive(serde::Deserialize)]
    /// struct Said {
    ///     text: String,
    /// }
    ///
    /// async fn say(request: Request) -> Result<String, HttpError> {
    ///     let said: Said = request.json()?;
    ///     Ok(said.text)
    /// }
    ///
    /// let answer = |body: &'static str| TestResponse::of(block_on(say(request("POST", "/say").body(body).build())));
    /// assert_eq!(answer(r#"{"text": "hello"}"#).text(), "hello");
    /// assert_eq!(answer("hello").status(), 400);
    /// ```
    ///
    /// # Errors
    /// A 400 if it is not JSON, or not of that type.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, HttpError> {
        serde_json::from_slice(&self.body).map_err(HttpError::invalid_json)
    }

    /// The peer's address; `None` on a Unix socket. Behind a proxy that is trusted it is the client that the proxy names
    /// ([`Config::trusted_proxies`](crate::Config), [`Config::proxy_protocol`](crate::Config)), with port 0 where it does not
    /// tell that.
    ///
    /// ```
    /// use ringwire::testing::request;
    ///
    /// let request = request("GET", "/").peer("192.0.2.7:4711".parse().ok()).build();
    /// assert_eq!(request.peer().map(|peer| peer.ip().to_string()).as_deref(), Some("192.0.2.7"));
    /// ```
    pub fn peer(&self) -> Option<SocketAddr> {
        self.peer
    }

    /// Whether [`Request::peer`] is a proxy's word: the connection began with a header of the PROXY protocol, or a trusted
    /// proxy has told for whom it asks. What a peer may do because it is of this machine, such a one may not.
    ///
    /// ```
    /// use ringwire::testing::request;
    /// use ringwire::{HttpError, Request};
    ///
    /// /// For programs of this machine.
    /// fn only_local(request: &mut Request) -> Result<(), HttpError> {
    ///     match request.peer() {
    ///         Some(peer) if peer.ip().is_loopback() && !request.is_relayed() => Ok(()),
    ///         _ => Err(HttpError::forbidden("not from here")),
    ///     }
    /// }
    ///
    /// assert!(only_local(&mut request("GET", "/").build()).is_ok());
    /// ```
    pub fn is_relayed(&self) -> bool {
        self.is_relayed
    }

    /// What the TLS of its connection has agreed on: version and cipher, the name that was asked for, the client's certificate.
    /// `None` on a connection without TLS, and where TLS ends at a proxy.
    ///
    /// ```
    /// use ringwire::{HttpError, Request};
    ///
    /// fn only_with_a_certificate(request: &mut Request) -> Result<(), HttpError> {
    ///     match request.tls().and_then(|tls| tls.peer_certificate()) {
    ///         Some(_der) => Ok(()),
    ///         None => Err(HttpError::forbidden("show a certificate")),
    ///     }
    /// }
    /// ```
    pub fn tls(&self) -> Option<&TlsInfo> {
        self.tls.as_deref()
    }

    /// The way to all connections.
    ///
    /// ```
    /// use ringwire::testing::TestServer;
    /// use ringwire::{App, Request, ws};
    ///
    /// let announce = async |request: Request| match request.hub().emit_to_all("news", request.param("text")) {
    ///     Ok(told) => format!("{} were told", told.await.queued),
    ///     Err(error) => error.to_string(),
    /// };
    /// let server = TestServer::new(move || App::new().ws("/", ws()).post("/news/{text}", announce));
    /// let client = server.connect("/");
    /// assert_eq!(server.post("/news/rain").send().text(), "1 were told");
    /// assert_eq!(client.expect_event("news"), "rain");
    /// ```
    pub fn hub(&self) -> &Hub {
        &self.hub
    }

    /// Typed values that hooks attached.
    ///
    /// ```
    /// use ringwire::testing::{block_on, request};
    /// use ringwire::Request;
    ///
    /// #[derive(Clone)]
    /// struct User(String);
    ///
    /// async fn whoami(request: Request) -> String {
    ///     request.extensions().get::<User>().map_or("nobody".to_owned(), |user| user.0.clone())
    /// }
    ///
    /// let mut request = request("GET", "/whoami").build();
    /// request.extensions_mut().insert(User("ann".to_owned())); // as a hook does
    /// assert_eq!(block_on(whoami(request)), "ann");
    /// ```
    pub fn extensions(&self) -> &Extensions {
        &self.extensions
    }

    /// To attach typed values, for later hooks, the handler and, on a WebSocket route, the connection's life.
    ///
    /// ```
    /// use ringwire::testing::TestServer;
    /// use ringwire::{App, ws};
    ///
    /// #[derive(Clone)]
    /// struct User(String);
    ///
    /// let route = || {
    ///     ws().before(|request| {
    ///         let user = User(request.cookie("user").unwrap_or("stranger").to_owned());
    ///         request.extensions_mut().insert(user);
    ///         Ok(())
    ///     })
    ///     .on_connect(|socket| socket.extension::<User>().map(|user| user.0))
    /// };
    /// let server = TestServer::new(move || App::new().ws("/", route()));
    /// server.handshake("/").cookie("user", "ann").open().expect_text("ann");
    /// ```
    pub fn extensions_mut(&mut self) -> &mut Extensions {
        &mut self.extensions
    }

    pub(crate) fn take_extensions(&mut self) -> Guarded<Extensions> {
        std::mem::take(&mut self.extensions)
    }

    /// Adds a header field to the response, be it an upgrade or not.
    ///
    /// ```
    /// use ringwire::testing::TestServer;
    /// use http::{HeaderValue, header::SERVER};
    /// use ringwire::{App, Request, ws};
    ///
    /// let name = |request: &mut Request| {
    ///     request.respond_with_header(SERVER, HeaderValue::from_static("chat/2"));
    ///     Ok(())
    /// };
    /// let server = TestServer::new(move || App::new().before(name).ws("/", ws()).get("/about", async |_| "a chat"));
    /// assert_eq!(server.connect("/").header("server").as_deref(), Some("chat/2"));
    /// assert_eq!(server.get("/about").send().header("server"), Some("chat/2"));
    /// ```
    pub fn respond_with_header(&mut self, name: HeaderName, value: HeaderValue) {
        self.added_headers.push((name, value));
    }

    /// The header fields that hooks have added to the response so far.
    ///
    /// ```
    /// use ringwire::testing::request;
    /// use http::{HeaderValue, header::SERVER};
    ///
    /// let mut request = request("GET", "/").build();
    /// request.respond_with_header(SERVER, HeaderValue::from_static("chat/2"));
    /// let names: Vec<_> = request.response_headers().map(|(name, _)| name.as_str()).collect();
    /// assert_eq!(names, ["server"]);
    /// ```
    pub fn response_headers(&self) -> impl Iterator<Item = (&HeaderName, &HeaderValue)> {
        self.added_headers.iter().map(|(name, value)| (name, value))
    }

    /// The subprotocol that a hook has chosen.
    ///
    /// ```
    /// use ringwire::testing::request;
    ///
    /// let mut request = request("GET", "/").header("sec-websocket-protocol", "v1, v2").build();
    /// assert_eq!(request.protocol(), None);
    /// request.accept_protocol("v2").unwrap();
    /// assert_eq!(request.protocol(), Some("v2"));
    /// ```
    pub fn protocol(&self) -> Option<&str> {
        self.protocol.as_deref()
    }

    /// Whether it asks for a WebSocket: an `Upgrade` field names `websocket` (RFC 6455 4.2.1). What else a handshake needs is
    /// checked when it is answered with an upgrade.
    ///
    /// ```
    /// use ringwire::{App, IntoResponse, Request, ws};
    ///
    /// let live = ws().on_message(|_, message| message.as_text().map(str::to_owned));
    /// App::new().get("/feed", async move |request: Request| {
    ///     if request.is_upgrade() { request.upgrade(&live) } else { "come back with a WebSocket".into_response() }
    /// });
    /// ```
    pub fn is_upgrade(&self) -> bool {
        let fields = self.headers.get_all(UPGRADE).iter().filter_map(|field| field.to_str().ok());
        fields.flat_map(|field| field.split(',')).any(|name| name.trim().eq_ignore_ascii_case("websocket"))
    }

    /// The subprotocols that the client offers, its favourite first.
    ///
    /// ```
    /// use ringwire::testing::request;
    ///
    /// let request = request("GET", "/").header("sec-websocket-protocol", "v2, v1").build();
    /// assert_eq!(request.protocols().collect::<Vec<_>>(), ["v2", "v1"]);
    /// ```
    pub fn protocols(&self) -> impl Iterator<Item = &str> {
        let fields = self.headers.get_all(http::header::SEC_WEBSOCKET_PROTOCOL).iter();
        let fields = fields.filter_map(|field| field.to_str().ok());
        fields.flat_map(|field| field.split(',')).map(str::trim).filter(|protocol| !protocol.is_empty())
    }

    /// Chooses a subprotocol, which must be one of those offered (RFC 6455 4.2.2).
    ///
    /// ```
    /// use ringwire::testing::TestServer;
    /// use ringwire::{App, ws};
    ///
    /// let route = || ws().before(|request| request.accept_protocol("chat-v1"));
    /// let server = TestServer::new(move || App::new().ws("/chat", route()));
    /// let client = server.handshake("/chat").protocols(["chat-v2", "chat-v1"]).open();
    /// assert_eq!(client.protocol().as_deref(), Some("chat-v1"));
    /// assert_eq!(server.handshake("/chat").refusal().status(), 400);
    /// ```
    ///
    /// # Errors
    /// A 400 if the client does not offer it.
    pub fn accept_protocol(&mut self, protocol: &str) -> Result<(), HttpError> {
        if !self.protocols().any(|offered| offered == protocol) {
            return Err(HttpError::bad_request("unsupported subprotocol"));
        }
        self.protocol = Some(protocol.to_owned());
        Ok(())
    }

    /// Has the WebSocket that the request opens go without compression, whatever its route and the client say: for clients that
    /// are known to get it wrong, or to be better off without. Called in a [`Ws::before`](crate::Ws::before) hook.
    ///
    /// ```
    /// use ringwire::{App, Deflate, Request, ws};
    ///
    /// App::new().ws("/feed", ws().deflate(Deflate::Stateless).before(|request: &mut Request| {
    ///     if request.header("x-device") == Some("sensor") {
    ///         request.refuse_deflate();
    ///     }
    ///     Ok(())
    /// }));
    /// ```
    pub fn refuse_deflate(&mut self) {
        self.refuses_deflate = true;
    }
}

fn decode_query(text: &str) -> Cow<'_, str> {
    if text.contains('+') {
        Cow::Owned(percent_decode_str(&text.replace('+', " ")).decode_utf8_lossy().into_owned())
    } else {
        percent_decode_str(text).decode_utf8_lossy()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Kills: a value that is another part of the head than its own.
    #[test]
    fn values_are_parts_of_one_copy() {
        let whole = b"GET /a HTTP/1.1\r\nHost: x\r\n\r\n".to_vec();
        let parts = Parts { whole: &whole, copy: Bytes::copy_from_slice(&whole) };
        for range in [0..0, 4..6, 23..24, 0..whole.len(), whole.len()..whole.len()] {
            let part = parts.of(&whole[range.clone()]);
            assert_eq!(part, whole[range.clone()], "{range:?}");
            let is_shared = part.is_empty() || parts.copy.as_ptr_range().contains(&part.as_ptr());
            assert!(is_shared, "{range:?}");
        }
        let elsewhere = whole.clone();
        let part = parts.of(&elsewhere[4..6]);
        assert!(part == b"/a"[..] && !parts.copy.as_ptr_range().contains(&part.as_ptr()));
    }
}
