//! A response on its way out, as hooks see it.

use std::time::Duration;

use http::{HeaderName, HeaderValue, StatusCode};

use crate::proto::http::Header;
use crate::shard::service::Reply;

/// A response on its way out, and what it answers: what [`Group::on_response`](crate::Group::on_response) sees.
///
/// ```
/// use http::{HeaderValue, header};
/// use ringwire::testing::TestServer;
/// use ringwire::App;
///
/// let server = TestServer::new(|| {
///     App::new().on_response(|answered| {
///         if answered.status().is_client_error() {
///             answered.set_header(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
///         }
///     }).get("/hello", async |_| "hello")
/// });
/// assert_eq!(server.get("/nowhere").send().header("cache-control"), Some("no-store"));
/// assert_eq!(server.get("/hello").send().header("cache-control"), None);
/// ```
pub struct Answered<'a> {
    pub(crate) asked: Option<(&'a str, &'a str)>,
    pub(crate) fields: &'a [Header<'a>],
    pub(crate) reply: &'a mut Reply,
    pub(crate) latency: Duration,
}

impl Answered<'_> {
    /// The request's method; `None` if the request's head was not understood, or is not complete.
    ///
    /// ```
    /// use http::{HeaderName, HeaderValue};
    /// use ringwire::testing::TestServer;
    /// use ringwire::App;
    ///
    /// let server = TestServer::new(|| {
    ///     App::new().on_response(|answered| {
    ///         let seen = answered.method().unwrap_or("?").to_owned();
    ///         answered.set_header(HeaderName::from_static("x-seen"), HeaderValue::from_str(&seen).expect("a value"));
    ///     }).get("/hello", async |_| "hello")
    /// });
    /// assert_eq!(server.get("/hello").send().header("x-seen"), Some("GET"));
    /// ```
    pub fn method(&self) -> Option<&str> {
        self.asked.map(|(method, _)| method)
    }

    /// The request's path as it was sent; `None` as of [`Answered::method`].
    ///
    /// ```
    /// use http::{HeaderName, HeaderValue};
    /// use ringwire::testing::TestServer;
    /// use ringwire::App;
    ///
    /// let server = TestServer::new(|| {
    ///     App::new().on_response(|answered| {
    ///         let seen = answered.path().unwrap_or("?").to_owned();
    ///         answered.set_header(HeaderName::from_static("x-seen"), HeaderValue::from_str(&seen).expect("a value"));
    ///     }).get("/hello", async |_| "hello")
    /// });
    /// assert_eq!(server.get("/nowhere").send().header("x-seen"), Some("/nowhere"));
    /// ```
    pub fn path(&self) -> Option<&str> {
        self.asked.map(|(_, path)| path)
    }

    /// The first value of a field of the request, if it is text.
    ///
    /// ```
    /// use http::{HeaderValue, header};
    /// use ringwire::testing::TestServer;
    /// use ringwire::App;
    ///
    /// let server = TestServer::new(|| {
    ///     App::new().on_response(|answered| {
    ///         if answered.request_header("save-data") == Some("on") {
    ///             answered.add_header(header::VARY, HeaderValue::from_static("save-data"));
    ///         }
    ///     }).get("/hello", async |_| "hello")
    /// });
    /// assert_eq!(server.get("/hello").header("save-data", "on").send().header("vary"), Some("save-data"));
    /// ```
    pub fn request_header(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|field| field.name.eq_ignore_ascii_case(name)).and_then(|field| {
            let text = str::from_utf8(field.value).ok()?;
            Some(text.trim())
        })
    }

    /// The response's status; 101 of a WebSocket that is about to open.
    ///
    /// ```
    /// use http::{HeaderName, HeaderValue};
    /// use ringwire::testing::TestServer;
    /// use ringwire::App;
    ///
    /// let server = TestServer::new(|| {
    ///     App::new().on_response(|answered| {
    ///         let seen = answered.status().as_str().to_owned();
    ///         answered.set_header(HeaderName::from_static("x-seen"), HeaderValue::from_str(&seen).expect("a value"));
    ///     }).get("/hello", async |_| "hello")
    /// });
    /// assert_eq!(server.get("/nowhere").send().header("x-seen"), Some("404"));
    /// ```
    pub fn status(&self) -> StatusCode {
        self.reply.status
    }

    /// The first value of a field of the response. Date, Content-Length and Connection are set behind this.
    ///
    /// ```
    /// use http::{HeaderValue, header};
    /// use ringwire::testing::TestServer;
    /// use ringwire::App;
    ///
    /// let server = TestServer::new(|| {
    ///     App::new().on_response(|answered| {
    ///         if answered.header(&header::CACHE_CONTROL).is_none() {
    ///             answered.set_header(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    ///         }
    ///     }).get("/hello", async |_| "hello")
    /// });
    /// assert_eq!(server.get("/hello").send().header("cache-control"), Some("no-cache"));
    /// ```
    pub fn header(&self, name: &HeaderName) -> Option<&HeaderValue> {
        self.reply.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value)
    }

    /// The fields of the response.
    ///
    /// ```
    /// use http::{HeaderName, HeaderValue};
    /// use ringwire::testing::TestServer;
    /// use ringwire::App;
    ///
    /// let server = TestServer::new(|| {
    ///     App::new().on_response(|answered| {
    ///         let seen = answered.headers().map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(" ");
    ///         answered.set_header(HeaderName::from_static("x-seen"), HeaderValue::from_str(&seen).expect("a value"));
    ///     }).get("/hello", async |_| "hello")
    /// });
    /// assert_eq!(server.get("/hello").send().header("x-seen"), Some("content-type"));
    /// ```
    pub fn headers(&self) -> impl Iterator<Item = (&HeaderName, &HeaderValue)> {
        self.reply.headers.iter().map(|(name, value)| (name, value))
    }

    /// Bytes of the response's body.
    ///
    /// ```
    /// use http::{HeaderName, HeaderValue};
    /// use ringwire::testing::TestServer;
    /// use ringwire::App;
    ///
    /// let server = TestServer::new(|| {
    ///     App::new().on_response(|answered| {
    ///         let seen = answered.body_len().to_string();
    ///         answered.set_header(HeaderName::from_static("x-seen"), HeaderValue::from_str(&seen).expect("a value"));
    ///     }).get("/hello", async |_| "hello")
    /// });
    /// assert_eq!(server.get("/hello").send().header("x-seen"), Some("5"));
    /// ```
    pub fn body_len(&self) -> usize {
        self.reply.body.len()
    }

    /// Sets a field of the response, in the place of all that it has of the name.
    ///
    /// ```
    /// use http::{HeaderValue, header};
    /// use ringwire::testing::TestServer;
    /// use ringwire::App;
    ///
    /// let server = TestServer::new(|| {
    ///     App::new().on_response(|answered| {
    ///         answered.set_header(header::CONTENT_TYPE, HeaderValue::from_static("text/markdown"));
    ///     }).get("/hello", async |_| "hello")
    /// });
    /// assert_eq!(server.get("/hello").send().header("content-type"), Some("text/markdown"));
    /// ```
    pub fn set_header(&mut self, name: HeaderName, value: HeaderValue) {
        self.reply.headers.retain(|(known, _)| *known != name);
        self.reply.headers.push((name, value));
    }

    /// Adds a field to the response, beside those that it has of the name.
    ///
    /// ```
    /// use http::{HeaderValue, header};
    /// use ringwire::testing::TestServer;
    /// use ringwire::App;
    ///
    /// let server = TestServer::new(|| {
    ///     App::new().on_response(|answered| {
    ///         answered.add_header(header::SET_COOKIE, HeaderValue::from_static("seen=yes"));
    ///     }).get("/hello", async |_| "hello")
    /// });
    /// assert_eq!(server.get("/hello").send().header("set-cookie"), Some("seen=yes"));
    /// ```
    pub fn add_header(&mut self, name: HeaderName, value: HeaderValue) {
        self.reply.headers.push((name, value));
    }

    /// How long the answer has taken since the request was complete, to the precision of the core's tick; zero for what the
    /// server has refused by itself.
    ///
    /// ```
    /// use ringwire::testing::TestServer;
    /// use ringwire::{App, sleep};
    /// use std::time::Duration;
    /// use std::{cell::Cell, rc::Rc};
    ///
    /// let longest = Rc::new(Cell::new(Duration::ZERO));
    /// let server = TestServer::new(|| {
    ///     let longest = Rc::clone(&longest);
    ///     App::new().on_response(move |answered| longest.set(longest.get().max(answered.latency()))).get("/slow", async |_| {
    ///         sleep(Duration::from_millis(300)).await;
    ///         "at last"
    ///     })
    /// });
    /// server.get("/slow").send();
    /// assert!(longest.get() >= Duration::from_millis(300));
    /// ```
    pub fn latency(&self) -> Duration {
        self.latency
    }
}
