//! Cross-origin requests (the Fetch standard, 3.2): which pages' scripts may ask, and may read what is answered.

use std::time::Duration;

use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, VARY,
};
use http::{HeaderName, HeaderValue, Method, StatusCode};

use crate::app::answered::Answered;
use crate::config::Origins;
use crate::proto::http::RequestHead;
use crate::shard::service::Reply;

/// Which pages of other origins may use routes: given to [`Group::cors`](crate::Group::cors) or
/// [`App::cors`](crate::App::cors).
///
/// Browsers ask before they let such a page send more than a simple request; that is answered here, before any hook, which
/// would want what the browser does not send with it. This lets pages read answers; it keeps nobody out who is no browser.
///
/// ```
/// use ringwire::{App, Cors, Request};
/// use std::time::Duration;
///
/// let cors = Cors::new("https://app.example, http://localhost:3000").max_age(Duration::from_secs(600));
/// App::new().group("/api", |api| api.cors(cors).get("/count", async |request: Request| request.hub().websockets().to_string()));
/// ```
#[derive(Clone, Debug)]
pub struct Cors {
    origins: Origins,
    credentials: bool,
    methods: Option<HeaderValue>,
    headers: Option<HeaderValue>,
    exposed: Option<HeaderValue>,
    max_age: Option<Duration>,
}

impl Cors {
    /// Pages of these origins, comma-separated, such as `https://app.example`; `*` for all.
    ///
    /// ```
    /// use ringwire::testing::TestServer;
    /// use ringwire::{App, Cors};
    ///
    /// let server = TestServer::new(|| {
    ///     let cors = Cors::new("https://app.example, http://localhost:3000");
    ///     App::new().cors(cors).get("/count", async |_| "7")
    /// });
    /// let answer = server.get("/count").header("origin", "https://app.example").send();
    /// assert_eq!(answer.header("access-control-allow-origin"), Some("https://app.example"));
    /// let other = server.get("/count").header("origin", "https://other.example").send();
    /// assert_eq!(other.header("access-control-allow-origin"), None);
    /// ```
    ///
    /// # Panics
    /// If that is not what it is.
    pub fn new(origins: &str) -> Cors {
        Cors::of(origins.parse().unwrap_or_else(|_| panic!("not * or origins such as https://app.example: {origins}")))
    }

    /// Pages of these origins.
    ///
    /// ```
    /// use ringwire::config::Origins;
    /// use ringwire::testing::TestServer;
    /// use ringwire::{App, Cors};
    ///
    /// let server = TestServer::new(|| {
    ///     let cors = Cors::of(Origins::Any);
    ///     App::new().cors(cors).get("/count", async |_| "7")
    /// });
    /// let answer = server.get("/count").header("origin", "https://app.example").send();
    /// assert_eq!(answer.header("access-control-allow-origin"), Some("*"));
    /// ```
    pub fn of(origins: Origins) -> Cors {
        Cors { origins, credentials: false, methods: None, headers: None, exposed: None, max_age: None }
    }

    /// Lets pages send cookies and the like with their requests.
    ///
    /// ```
    /// use ringwire::testing::TestServer;
    /// use ringwire::{App, Cors};
    ///
    /// let server = TestServer::new(|| {
    ///     let cors = Cors::new("https://app.example").credentials();
    ///     App::new().cors(cors).get("/count", async |_| "7")
    /// });
    /// let answer = server.get("/count").header("origin", "https://app.example").send();
    /// assert_eq!(answer.header("access-control-allow-credentials"), Some("true"));
    /// ```
    ///
    /// # Panics
    /// With all origins: each page of the world would act in the name of whoever looks at it.
    #[must_use]
    pub fn credentials(mut self) -> Cors {
        assert!(self.origins != Origins::Any, "name the origins whose pages may send credentials");
        self.credentials = true;
        self
    }

    /// The methods that pages may use; otherwise those that the path has.
    ///
    /// ```
    /// use http::Method;
    /// use ringwire::testing::TestServer;
    /// use ringwire::{App, Cors};
    ///
    /// let server = TestServer::new(|| {
    ///     let cors = Cors::new("https://app.example").methods([Method::GET, Method::PUT]);
    ///     App::new().cors(cors).get("/count", async |_| "7")
    /// });
    /// let asked = server.request("OPTIONS", "/count").header("origin", "https://app.example");
    /// let answer = asked.header("access-control-request-method", "GET").send();
    /// assert_eq!(answer.header("access-control-allow-methods"), Some("GET, PUT"));
    /// ```
    #[must_use]
    pub fn methods(mut self, methods: impl IntoIterator<Item = Method>) -> Cors {
        self.methods = Some(list(methods.into_iter().map(|method| method.to_string())));
        self
    }

    /// The request's header fields that pages may set; otherwise whichever they ask for.
    ///
    /// ```
    /// use http::header::AUTHORIZATION;
    /// use ringwire::testing::TestServer;
    /// use ringwire::{App, Cors};
    ///
    /// let server = TestServer::new(|| {
    ///     let cors = Cors::new("https://app.example").headers([AUTHORIZATION]);
    ///     App::new().cors(cors).get("/count", async |_| "7")
    /// });
    /// let asked = server.request("OPTIONS", "/count").header("origin", "https://app.example");
    /// let answer = asked.header("access-control-request-method", "GET").send();
    /// assert_eq!(answer.header("access-control-allow-headers"), Some("authorization"));
    /// ```
    #[must_use]
    pub fn headers(mut self, names: impl IntoIterator<Item = HeaderName>) -> Cors {
        self.headers = Some(list(names.into_iter().map(|name| name.to_string())));
        self
    }

    /// The response's header fields that pages may read, besides those that they always may.
    ///
    /// ```
    /// use http::header::ETAG;
    /// use ringwire::testing::TestServer;
    /// use ringwire::{App, Cors};
    ///
    /// let server = TestServer::new(|| {
    ///     let cors = Cors::new("https://app.example").expose([ETAG]);
    ///     App::new().cors(cors).get("/count", async |_| "7")
    /// });
    /// let answer = server.get("/count").header("origin", "https://app.example").send();
    /// assert_eq!(answer.header("access-control-expose-headers"), Some("etag"));
    /// ```
    #[must_use]
    pub fn expose(mut self, names: impl IntoIterator<Item = HeaderName>) -> Cors {
        self.exposed = Some(list(names.into_iter().map(|name| name.to_string())));
        self
    }

    /// How long a browser may go by the answer to what it asks before.
    ///
    /// ```
    /// use ringwire::testing::TestServer;
    /// use ringwire::{App, Cors};
    /// use std::time::Duration;
    ///
    /// let server = TestServer::new(|| {
    ///     let cors = Cors::new("https://app.example").max_age(Duration::from_secs(600));
    ///     App::new().cors(cors).get("/count", async |_| "7")
    /// });
    /// let asked = server.request("OPTIONS", "/count").header("origin", "https://app.example");
    /// let answer = asked.header("access-control-request-method", "GET").send();
    /// assert_eq!(answer.header("access-control-max-age"), Some("600"));
    /// ```
    #[must_use]
    pub fn max_age(mut self, max_age: Duration) -> Cors {
        self.max_age = Some(max_age);
        self
    }

    /// Whether a request is a browser's question what a page may do.
    pub(crate) fn is_question(head: &RequestHead<'_>) -> bool {
        let has = |name: &str| head.all().iter().any(|field| field.name.eq_ignore_ascii_case(name));
        head.method() == "OPTIONS" && has("origin") && has("access-control-request-method")
    }

    /// The answer to such a question about a path with these methods.
    pub(crate) fn answer<'m>(&self, head: &RequestHead<'_>, allowed: impl Iterator<Item = &'m str>) -> Reply {
        let value =
            |name: &str| head.all().iter().find(|field| field.name.eq_ignore_ascii_case(name)).map(|field| field.value);
        let origin = value("origin").and_then(|origin| str::from_utf8(origin).ok());
        if origin.is_none_or(|origin| !self.origins.allow(Some(origin))) {
            return Reply::error(StatusCode::FORBIDDEN, "this origin is not allowed");
        }
        let mut reply = Reply { status: StatusCode::NO_CONTENT, headers: Vec::new().into(), body: Default::default() };
        let methods = self.methods.clone().unwrap_or_else(|| list(allowed.map(str::to_owned)));
        reply.headers.push((ACCESS_CONTROL_ALLOW_METHODS, methods));
        let asked = || HeaderValue::from_bytes(value("access-control-request-headers")?).ok();
        if let Some(headers) = self.headers.clone().or_else(asked) {
            reply.headers.push((ACCESS_CONTROL_ALLOW_HEADERS, headers));
        }
        if let Some(max_age) = self.max_age {
            reply.headers.push((ACCESS_CONTROL_MAX_AGE, max_age.as_secs().into()));
        }
        // What was asked decides about the answer, and what is added to any answer is added to this one.
        reply.headers.push((VARY, HeaderValue::from_static("access-control-request-headers")));
        reply
    }

    /// Lets the page read a response, if it may.
    pub(crate) fn apply(&self, answered: &mut Answered<'_>) {
        if answered.status() == StatusCode::SWITCHING_PROTOCOLS {
            return;
        }
        let origin = answered.request_header("origin").map(str::to_owned);
        let (is_any, is_allowed) =
            (self.origins == Origins::Any, origin.as_deref().is_some_and(|it| self.origins.allow(Some(it))));
        if !is_any {
            // A cache must not give one page what is another's.
            answered.add_header(VARY, HeaderValue::from_static("origin"));
        }
        let value = origin.filter(|_| is_allowed).and_then(|origin| HeaderValue::from_str(&origin).ok());
        let Some(value) = value else { return };
        answered.set_header(ACCESS_CONTROL_ALLOW_ORIGIN, if is_any { HeaderValue::from_static("*") } else { value });
        if self.credentials {
            answered.set_header(ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
        }
        if let Some(exposed) = &self.exposed {
            answered.set_header(ACCESS_CONTROL_EXPOSE_HEADERS, exposed.clone());
        }
    }
}

fn list(names: impl Iterator<Item = String>) -> HeaderValue {
    let names: Vec<String> = names.collect();
    HeaderValue::from_str(&names.join(", ")).expect("names are tokens")
}
