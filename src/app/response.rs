//! What an HTTP handler answers with.

use std::borrow::Cow;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderName, HeaderValue, StatusCode};
use serde::Serialize;

use crate::app::error_http::HttpError;
use crate::app::reply::Never;
use crate::app::request::Request;
use crate::app::ws::Ws;
use crate::guard::Guarded;
use crate::message::Json;
use crate::message::RawJson;
use crate::shard::service::Reply;

/// An HTTP response with its whole body, or an upgrade.
///
/// ```
/// use http::{HeaderValue, StatusCode, header};
/// use ringwire::Response;
/// use ringwire::testing::TestResponse;
///
/// let created = Response::text("made")
///     .with_status(StatusCode::CREATED)
///     .with_header(header::LOCATION, HeaderValue::from_static("/rooms/7"));
/// let seen = TestResponse::of(created).expect_status(201);
/// assert_eq!((seen.header("location"), seen.text()), (Some("/rooms/7"), "made"));
/// ```
pub struct Response(pub(crate) Outcome);

pub(crate) enum Outcome {
    Reply(Reply),
    Upgrade(Box<(Request, Ws)>),
}

impl Response {
    /// A response without a body.
    ///
    /// ```
    /// use http::StatusCode;
    /// use ringwire::Response;
    /// use ringwire::testing::TestResponse;
    ///
    /// let seen = TestResponse::of(Response::new(StatusCode::NOT_MODIFIED)).expect_status(304);
    /// assert!(seen.body().is_empty());
    /// ```
    pub fn new(status: StatusCode) -> Response {
        Response::with_body(status, None, Bytes::new())
    }

    fn with_body(status: StatusCode, content_type: Option<&'static str>, body: Bytes) -> Response {
        let headers = content_type.map(|content_type| (CONTENT_TYPE, HeaderValue::from_static(content_type)));
        Response(Outcome::Reply(Reply {
            status,
            headers: Guarded::new(headers.into_iter().collect()),
            body: body.into(),
        }))
    }

    /// A page.
    ///
    /// ```
    /// use ringwire::Response;
    /// use ringwire::testing::TestResponse;
    ///
    /// let seen = TestResponse::of(Response::html("<h1>Hello</h1>"));
    /// assert_eq!(seen.header("content-type"), Some("text/html; charset=utf-8"));
    /// ```
    pub fn html(body: impl Into<Bytes>) -> Response {
        Response::with_body(StatusCode::OK, Some("text/html; charset=utf-8"), body.into())
    }

    /// Plain text.
    ///
    /// ```
    /// use ringwire::Response;
    /// use ringwire::testing::TestResponse;
    ///
    /// let seen = TestResponse::of(Response::text("hello"));
    /// assert_eq!(seen.header("content-type"), Some("text/plain; charset=utf-8"));
    /// ```
    pub fn text(body: impl Into<Bytes>) -> Response {
        Response::with_body(StatusCode::OK, Some("text/plain; charset=utf-8"), body.into())
    }

    /// Bytes of any type.
    ///
    /// ```
    /// use ringwire::Response;
    /// use ringwire::testing::TestResponse;
    ///
    /// let seen = TestResponse::of(Response::bytes("image/png", b"\x89PNG".as_slice()));
    /// assert_eq!(seen.header("content-type"), Some("image/png"));
    /// assert_eq!(seen.body().len(), 4);
    /// ```
    pub fn bytes(content_type: &'static str, body: impl Into<Bytes>) -> Response {
        Response::with_body(StatusCode::OK, Some(content_type), body.into())
    }

    /// The same with another status.
    ///
    /// ```
    /// use http::StatusCode;
    /// use ringwire::Response;
    /// use ringwire::testing::TestResponse;
    ///
    /// let seen = TestResponse::of(Response::html("<h1>Gone</h1>").with_status(StatusCode::GONE));
    /// assert_eq!(seen.status(), 410);
    /// ```
    #[must_use]
    pub fn with_status(mut self, status: StatusCode) -> Response {
        if let Outcome::Reply(reply) = &mut self.0 {
            reply.status = status;
        }
        self
    }

    /// Takes all fields of this name away.
    ///
    /// ```
    /// use http::header::CONTENT_TYPE;
    /// use ringwire::Response;
    /// use ringwire::testing::TestResponse;
    ///
    /// let seen = TestResponse::of(Response::text("who knows").without_header(&CONTENT_TYPE));
    /// assert_eq!(seen.header("content-type"), None);
    /// ```
    #[must_use]
    pub fn without_header(mut self, name: &HeaderName) -> Response {
        match &mut self.0 {
            Outcome::Reply(reply) => reply.headers.retain(|(known, _)| known != name),
            Outcome::Upgrade(upgrade) => upgrade.0.added_headers.retain(|(known, _)| known != name),
        }
        self
    }

    /// Adds a header field.
    ///
    /// ```
    /// use http::{HeaderValue, header::CACHE_CONTROL};
    /// use ringwire::Response;
    /// use ringwire::testing::TestResponse;
    ///
    /// let response = Response::text("news").with_header(CACHE_CONTROL, HeaderValue::from_static("max-age=60"));
    /// assert_eq!(TestResponse::of(response).header("cache-control"), Some("max-age=60"));
    /// ```
    #[must_use]
    pub fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Response {
        match &mut self.0 {
            Outcome::Reply(reply) => reply.headers.push((name, value)),
            Outcome::Upgrade(upgrade) => upgrade.0.respond_with_header(name, value),
        }
        self
    }
}

impl Request {
    /// From an HTTP handler: answers with an upgrade to this WebSocket route, if the request is a handshake; with what
    /// refuses it otherwise (405 for methods other than GET, 426 without an upgrade). The connection is listed with the path
    /// of the handler's route; who is of one route with it, [`Socket::to_route`](crate::Socket::to_route) says.
    ///
    /// ```
    /// use ringwire::testing::TestServer;
    /// use ringwire::{App, HttpError, Request, Response, ws};
    ///
    /// let server = TestServer::new(|| {
    ///     let live = ws().on_connect(|_| "live");
    ///     App::new().get("/feed/{name}", async move |request: Request| match request.param("name") {
    ///         "prices" => Ok(request.upgrade(&live)),
    ///         _ => Err::<Response, _>(HttpError::not_found("no such feed")),
    ///     })
    /// });
    /// server.connect("/feed/prices").expect_text("live");
    /// assert_eq!(server.handshake("/feed/gossip").refusal().status(), 404);
    /// assert_eq!(server.get("/feed/prices").send().status(), 426);
    /// ```
    pub fn upgrade(self, route: &Ws) -> Response {
        Response(Outcome::Upgrade(Box::new((self, route.clone()))))
    }
}

impl From<HttpError> for Reply {
    fn from(error: HttpError) -> Reply {
        let mut reply = Reply::error(error.status(), error.message());
        reply.headers.extend(error.headers);
        reply
    }
}

impl From<Reply> for Response {
    fn from(reply: Reply) -> Response {
        Response(Outcome::Reply(reply))
    }
}

#[diagnostic::on_unimplemented(
    message = "`{Self}` is no response of an HTTP handler",
    label = "this cannot be sent as a response",
    note = "return text, `Json(value)`, a `StatusCode`, `(StatusCode, body)`, `Response`, `()`, or a `Result` of one",
    note = "the error of a `Result` becomes an `HttpError`, whose `From` says with which status"
)]
/// What an HTTP handler may return. A type of yours can be one:
///
/// ```
/// use http::StatusCode;
/// use ringwire::{App, IntoResponse, Response};
///
/// struct Created(String);
///
/// impl IntoResponse for Created {
///     fn into_response(self) -> Response {
///         Response::text(self.0).with_status(StatusCode::CREATED)
///     }
/// }
///
/// App::new().post("/rooms", async |_| Created("lobby".into()));
/// ```
///
/// and what there is can be completed:
///
/// ```
/// use http::{HeaderValue, StatusCode, header::CACHE_CONTROL};
/// use ringwire::testing::TestResponse;
/// use ringwire::{IntoResponse, Json, Response};
///
/// fn for_a_minute(response: impl IntoResponse) -> Response {
///     response.into_response().with_header(CACHE_CONTROL, HeaderValue::from_static("max-age=60"))
/// }
///
/// let seen = TestResponse::of(for_a_minute(Json([1, 2])));
/// assert_eq!((seen.text(), seen.header("cache-control")), ("[1,2]", Some("max-age=60")));
/// let missing = TestResponse::of(for_a_minute((StatusCode::NOT_FOUND, "no such list")));
/// assert_eq!(missing.expect_status(404).text(), "no such list");
/// ```
pub trait IntoResponse {
    /// The response.
    fn into_response(self) -> Response;
}

#[diagnostic::on_unimplemented(
    message = "`{Self}` is no response of an HTTP handler",
    label = "this cannot be sent as a response",
    note = "return text, `Json(value)`, a `StatusCode`, `(StatusCode, body)`, `Response`, `()`, or a `Result` of one",
    note = "the error of a `Result` becomes an `HttpError`, whose `From` says with which status"
)]
/// What an HTTP handler may come to: a response, which is whatever implements [`IntoResponse`], or no end, until the time for
/// an answer is over. Nothing else implements it: a type of yours becomes a response by [`IntoResponse`].
// Apart from `IntoResponse` because of `!`, as `HandlerReply` is from `IntoReply`.
pub trait HandlerResponse {
    /// The response.
    #[doc(hidden)]
    fn into_handler_response(self) -> Response;
}

impl<R: IntoResponse> HandlerResponse for R {
    fn into_handler_response(self) -> Response {
        self.into_response()
    }
}

impl HandlerResponse for Never {
    fn into_handler_response(self) -> Response {
        self
    }
}

impl IntoResponse for Response {
    fn into_response(self) -> Response {
        self
    }
}

impl IntoResponse for () {
    fn into_response(self) -> Response {
        Response::new(StatusCode::NO_CONTENT)
    }
}

impl IntoResponse for StatusCode {
    fn into_response(self) -> Response {
        Response::new(self)
    }
}

impl IntoResponse for &'static str {
    fn into_response(self) -> Response {
        Response::text(self)
    }
}

impl IntoResponse for String {
    fn into_response(self) -> Response {
        Response::text(self)
    }
}

impl IntoResponse for Cow<'static, str> {
    fn into_response(self) -> Response {
        Response::text(self.into_owned())
    }
}

impl IntoResponse for Bytes {
    fn into_response(self) -> Response {
        Response::bytes("application/octet-stream", self)
    }
}

impl<T: Serialize> IntoResponse for Json<T> {
    fn into_response(self) -> Response {
        match serde_json::to_vec(&self.0) {
            Ok(body) => Response::bytes("application/json", body),
            Err(error) => HttpError::from(crate::message::EncodeError::from(error)).into_response(),
        }
    }
}

impl IntoResponse for serde_json::Value {
    fn into_response(self) -> Response {
        Json(self).into_response()
    }
}

impl IntoResponse for RawJson {
    fn into_response(self) -> Response {
        Response::bytes("application/json", self.as_str().to_owned())
    }
}

impl IntoResponse for HttpError {
    fn into_response(self) -> Response {
        Reply::from(self).into()
    }
}

impl<T: IntoResponse> IntoResponse for (StatusCode, T) {
    fn into_response(self) -> Response {
        self.1.into_response().with_status(self.0)
    }
}

impl<T: HandlerResponse, E: Into<HttpError>> IntoResponse for Result<T, E> {
    fn into_response(self) -> Response {
        match self {
            Ok(response) => response.into_handler_response(),
            Err(error) => error.into().into_response(),
        }
    }
}
