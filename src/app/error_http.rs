//! Errors that are answers: a status and what is wrong.

use std::borrow::Cow;

use http::{HeaderName, HeaderValue, StatusCode};

use crate::hub::ParseIdError;
use crate::mail::MailError;
use crate::message::{DecodeError, EncodeError};

/// Refuses a request: its status, and `{"error":"…"}` as the body.
///
/// ```
/// use ringwire::HttpError;
///
/// let error = HttpError::unauthorized("who are you?");
/// assert_eq!(error.status().as_u16(), 401);
/// ```
#[derive(Clone, Debug, thiserror::Error)]
#[error("{status}: {message}")]
pub struct HttpError {
    status: StatusCode,
    message: Cow<'static, str>,
    pub(crate) headers: Vec<(HeaderName, HeaderValue)>,
}

impl HttpError {
    /// An error of any status.
    ///
    /// ```
    /// use http::StatusCode;
    /// use ringwire::HttpError;
    /// use ringwire::testing::TestResponse;
    ///
    /// let seen = TestResponse::of(HttpError::new(StatusCode::CONFLICT, "somebody has that name"));
    /// assert_eq!(seen.expect_status(409).text(), r#"{"error":"somebody has that name"}"#);
    /// ```
    pub fn new(status: StatusCode, message: impl Into<Cow<'static, str>>) -> HttpError {
        HttpError { status, message: message.into(), headers: Vec::new() }
    }

    /// 400
    ///
    /// ```
    /// use ringwire::HttpError;
    /// use ringwire::testing::TestResponse;
    ///
    /// let seen = TestResponse::of(HttpError::bad_request("a name has letters")).expect_status(400);
    /// assert_eq!(seen.text(), r#"{"error":"a name has letters"}"#);
    /// ```
    pub fn bad_request(message: impl Into<Cow<'static, str>>) -> HttpError {
        HttpError::new(StatusCode::BAD_REQUEST, message)
    }

    /// 400: a body that is no JSON, or not of the type that is wanted.
    pub(crate) fn invalid_json(error: impl Into<DecodeError>) -> HttpError {
        HttpError::bad_request(format!("invalid JSON: {}", error.into().why()))
    }

    /// 401
    ///
    /// ```
    /// use ringwire::HttpError;
    /// use ringwire::testing::TestResponse;
    ///
    /// let seen = TestResponse::of(HttpError::unauthorized("log in first")).expect_status(401);
    /// assert_eq!(seen.text(), r#"{"error":"log in first"}"#);
    /// ```
    pub fn unauthorized(message: impl Into<Cow<'static, str>>) -> HttpError {
        HttpError::new(StatusCode::UNAUTHORIZED, message)
    }

    /// 403
    ///
    /// ```
    /// use ringwire::HttpError;
    /// use ringwire::testing::TestResponse;
    ///
    /// let seen = TestResponse::of(HttpError::forbidden("members only")).expect_status(403);
    /// assert_eq!(seen.text(), r#"{"error":"members only"}"#);
    /// ```
    pub fn forbidden(message: impl Into<Cow<'static, str>>) -> HttpError {
        HttpError::new(StatusCode::FORBIDDEN, message)
    }

    /// 404
    ///
    /// ```
    /// use ringwire::HttpError;
    /// use ringwire::testing::TestResponse;
    ///
    /// let seen = TestResponse::of(HttpError::not_found("no such room")).expect_status(404);
    /// assert_eq!(seen.text(), r#"{"error":"no such room"}"#);
    /// ```
    pub fn not_found(message: impl Into<Cow<'static, str>>) -> HttpError {
        HttpError::new(StatusCode::NOT_FOUND, message)
    }

    /// 503
    ///
    /// ```
    /// use ringwire::HttpError;
    /// use ringwire::testing::TestResponse;
    ///
    /// let seen = TestResponse::of(HttpError::unavailable("back at nine")).expect_status(503);
    /// assert_eq!(seen.text(), r#"{"error":"back at nine"}"#);
    /// ```
    pub fn unavailable(message: impl Into<Cow<'static, str>>) -> HttpError {
        HttpError::new(StatusCode::SERVICE_UNAVAILABLE, message)
    }

    /// Adds a header field.
    ///
    /// ```
    /// use http::{HeaderValue, header::RETRY_AFTER};
    /// use ringwire::HttpError;
    /// use ringwire::testing::TestResponse;
    ///
    /// let error = HttpError::unavailable("busy").with_header(RETRY_AFTER, HeaderValue::from_static("30"));
    /// assert_eq!(TestResponse::of(error).header("retry-after"), Some("30"));
    /// ```
    #[must_use]
    pub fn with_header(mut self, name: HeaderName, value: HeaderValue) -> HttpError {
        self.headers.push((name, value));
        self
    }

    /// Its status.
    ///
    /// ```
    /// use ringwire::testing::request;
    /// use ringwire::{HttpError, Request};
    ///
    /// fn check(request: &mut Request) -> Result<(), HttpError> {
    ///     request.cookie("user").map(drop).ok_or_else(|| HttpError::unauthorized("log in first"))
    /// }
    ///
    /// assert_eq!(check(&mut request("GET", "/").build()).unwrap_err().status(), 401);
    /// ```
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// What is wrong.
    ///
    /// ```
    /// use ringwire::HttpError;
    ///
    /// let error = HttpError::not_found("no such room");
    /// assert_eq!(error.message(), "no such room");
    /// assert_eq!(error.to_string(), "404 Not Found: no such room");
    /// ```
    pub fn message(&self) -> &str {
        &self.message
    }
}

impl From<DecodeError> for HttpError {
    fn from(error: DecodeError) -> HttpError {
        HttpError::bad_request(error.to_string())
    }
}

impl From<ParseIdError> for HttpError {
    fn from(_: ParseIdError) -> HttpError {
        HttpError::not_found("no such connection")
    }
}

impl From<MailError> for HttpError {
    /// A 503: not all cores could be asked; or a 504: another machine does not answer.
    fn from(error: MailError) -> HttpError {
        match error {
            MailError::Unreachable => HttpError::new(StatusCode::GATEWAY_TIMEOUT, "node unreachable"),
            MailError::Full | MailError::Ended => HttpError::unavailable("busy"),
        }
    }
}

impl From<EncodeError> for HttpError {
    fn from(error: EncodeError) -> HttpError {
        tracing::error!(%error, "a response could not be written");
        HttpError::new(StatusCode::INTERNAL_SERVER_ERROR, "internal error")
    }
}
