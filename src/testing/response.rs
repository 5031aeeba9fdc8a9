//! HTTP responses as a test sees them.

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use serde::de::DeserializeOwned;

use crate::app::response::Outcome;
use crate::app::{IntoResponse, Response};
use crate::proto::http::{Body, BodyDecoder, BodyPiece};
use crate::quote::quoted;

const HEADERS_MAX: usize = 128;

/// A whole response.
///
/// ```
/// use ringwire::testing::TestServer;
/// use ringwire::App;
///
/// let server = TestServer::new(|| App::new().get("/", async |_| "welcome"));
/// let response = server.get("/").send();
/// assert_eq!(response.status(), 200);
/// assert_eq!(response.header("content-type"), Some("text/plain; charset=utf-8"));
/// assert_eq!(response.text(), "welcome");
/// ```
#[derive(Clone, Debug)]
pub struct TestResponse {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
}

impl TestResponse {
    /// The status; compares with numbers: `assert_eq!(response.status(), 200)`.
    ///
    /// ```
    /// use ringwire::testing::TestServer;
    /// use ringwire::App;
    ///
    /// let server = TestServer::new(|| App::new().get("/", async |_| "welcome"));
    /// let response = server.get("/").send();
    /// assert_eq!(response.status(), 200);
    /// assert!(response.status().is_success());
    /// ```
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// The header fields.
    ///
    /// ```
    /// use ringwire::testing::TestServer;
    /// use ringwire::App;
    ///
    /// let server = TestServer::new(|| App::new().get("/", async |_| "welcome"));
    /// let response = server.get("/").send();
    /// assert!(response.headers().contains_key("date"));
    /// assert_eq!(response.headers().get_all("content-type").iter().count(), 1);
    /// ```
    pub fn headers(&self) -> &HeaderMap {
        &self.headers
    }

    /// The first value of a header field, if it is visible ASCII.
    ///
    /// ```
    /// use ringwire::testing::TestServer;
    /// use ringwire::App;
    ///
    /// let server = TestServer::new(|| App::new().get("/", async |_| "welcome"));
    /// let response = server.get("/").send();
    /// assert_eq!(response.header("Content-Length"), Some("7"));
    /// assert_eq!(response.header("etag"), None);
    /// ```
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// The body.
    ///
    /// ```
    /// use ringwire::testing::TestServer;
    /// use ringwire::App;
    ///
    /// let server = TestServer::new(|| App::new().get("/", async |_| "welcome"));
    /// let response = server.get("/").send();
    /// assert_eq!(response.body(), "welcome");
    /// ```
    pub fn body(&self) -> &Bytes {
        &self.body
    }

    /// The body as text.
    ///
    /// ```
    /// use ringwire::testing::TestServer;
    /// use ringwire::App;
    ///
    /// let server = TestServer::new(|| App::new().get("/", async |_| "welcome"));
    /// let response = server.get("/").send();
    /// assert_eq!(response.text(), "welcome");
    /// ```
    ///
    /// # Panics
    /// If it is not UTF-8.
    #[track_caller]
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap_or_else(|_| panic!("the body is no text: {}", quoted(&self.body)))
    }

    /// The body, decoded from JSON.
    ///
    /// ```
    /// use ringwire::testing::TestServer;
    /// use ringwire::App;
    /// use serde_json::{Value, json};
    ///
    /// let server = TestServer::new(|| App::new().get("/", async |_| json!({"rooms": ["lobby"]})));
    /// let answer: Value = server.get("/").send().json();
    /// assert_eq!(answer["rooms"][0], "lobby");
    /// ```
    ///
    /// # Panics
    /// If it is not JSON, or not of that type.
    #[track_caller]
    pub fn json<T: DeserializeOwned>(&self) -> T {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}", quoted(&self.body)))
    }

    /// The same response, if it has this status.
    ///
    /// ```
    /// use ringwire::testing::TestServer;
    /// use ringwire::App;
    ///
    /// let server = TestServer::new(|| App::new().get("/", async |_| "welcome"));
    /// assert_eq!(server.get("/").send().expect_status(200).text(), "welcome");
    /// server.get("/attic").send().expect_status(404);
    /// ```
    ///
    /// # Panics
    /// If it has another: with that and the beginning of the body.
    #[track_caller]
    pub fn expect_status(self, status: u16) -> TestResponse {
        let is = self.status;
        assert!(is == status, "the status is {is}, not {status}; the body is {}", quoted(&self.body));
        self
    }

    /// What a handler or a failed hook answers, without a server: for unit tests of them.
    ///
    /// ```
    /// use ringwire::HttpError;
    /// use ringwire::testing::TestResponse;
    ///
    /// let response = TestResponse::of(HttpError::not_found("no such user"));
    /// assert_eq!(response.status(), 404);
    /// assert_eq!(response.text(), r#"{"error":"no such user"}"#);
    /// ```
    ///
    /// # Panics
    /// If it is an upgrade, which only a server can answer.
    #[track_caller]
    pub fn of(answer: impl IntoResponse) -> TestResponse {
        let Response(outcome) = answer.into_response();
        let Outcome::Reply(mut reply) = outcome else { panic!("an upgrade: connect to a TestServer for it") };
        let headers = std::mem::take(&mut reply.headers).into_inner().into_iter().collect();
        TestResponse { status: reply.status, headers, body: (*reply.body).clone() }
    }
}

/// Reads the response at the start of `bytes`; `at_end` if no more come. `Ok(None)`: it is not whole. `Err`: it never will be,
/// or is none.
pub(super) fn read(bytes: &[u8], has_body: bool, at_end: bool) -> Result<Option<TestResponse>, String> {
    let mut rest = bytes;
    loop {
        let mut fields = [httparse::EMPTY_HEADER; HEADERS_MAX];
        let mut head = httparse::Response::new(&mut fields);
        let len = match head.parse(rest) {
            Ok(httparse::Status::Complete(len)) => len,
            Ok(httparse::Status::Partial) if !at_end => return Ok(None),
            Ok(httparse::Status::Partial) => {
                return Err(format!("the connection ended before a response: {}", quoted(rest)));
            }
            Err(error) => return Err(format!("this is no HTTP response ({error}): {}", quoted(rest))),
        };
        let status = head.code.and_then(|code| StatusCode::from_u16(code).ok()).ok_or("a status that is none")?;
        rest = &rest[len..];
        // RFC 9110 15.2: interim responses come before the final one.
        if status.is_informational() && status != StatusCode::SWITCHING_PROTOCOLS {
            continue;
        }
        let field = |field: &httparse::Header<'_>| {
            Some((HeaderName::from_bytes(field.name.as_bytes()).ok()?, HeaderValue::from_bytes(field.value).ok()?))
        };
        let fields: Option<Vec<_>> = head.headers.iter().map(field).collect();
        let mut headers = HeaderMap::new();
        for (name, value) in fields.ok_or("a header field that is none")? {
            headers.append(name, value);
        }
        let bare = !has_body || status.is_informational() || matches!(status.as_u16(), 204 | 304);
        let body = if bare { Some(Bytes::new()) } else { body(&headers, rest, at_end)? };
        return Ok(body.map(|body| TestResponse { status, headers, body }));
    }
}

/// RFC 9112 6.3
fn body(headers: &HeaderMap, bytes: &[u8], at_end: bool) -> Result<Option<Bytes>, String> {
    let length = headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
    let body = match length {
        _ if headers.contains_key(TRANSFER_ENCODING) => Body::Chunked,
        Some(length) => Body::Length(length),
        None => return Ok(at_end.then(|| Bytes::copy_from_slice(bytes))),
    };
    let mut decoder = BodyDecoder::new(body, usize::MAX).map_err(|error| error.to_string())?;
    let (mut whole, mut consumed) = (Vec::new(), 0);
    loop {
        match decoder.next(bytes, &mut consumed).map_err(|error| error.to_string())? {
            BodyPiece::Data(piece) => whole.extend_from_slice(piece),
            BodyPiece::End => return Ok(Some(whole.into())),
            BodyPiece::More if at_end => return Err("the connection ended within the body".to_owned()),
            BodyPiece::More => return Ok(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn responses_are_read_whole_or_not_at_all() {
        let cases: [(&str, Option<(u16, &str)>); 5] = [
            ("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi", Some((200, "hi"))),
            ("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi", Some((200, "hi"))),
            ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\nh\r\n1\r\ni\r\n0\r\n\r\n", Some((200, "hi"))),
            ("HTTP/1.1 204 No Content\r\n\r\n", Some((204, ""))),
            ("HTTP/1.1 200 OK\r\n\r\nto the end", None),
        ];
        for (bytes, want) in cases {
            for cut in 0..bytes.len() {
                let part = read(&bytes.as_bytes()[..cut], true, false);
                assert!(matches!(part, Ok(None)), "{bytes}, {cut}: {part:?}");
            }
            let whole = read(bytes.as_bytes(), true, false).unwrap();
            let whole = whole.as_ref().map(|whole| (whole.status().as_u16(), whole.text()));
            assert_eq!(whole, want, "{bytes}");
        }
        assert_eq!(read(b"HTTP/1.1 200 OK\r\n\r\nto the end", true, true).unwrap().unwrap().text(), "to the end");
        assert!(read(b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nhi", true, true).is_err());
        assert!(read(b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\n", false, false).unwrap().is_some(), "of a HEAD");
        assert!(read(b"no response\r\n\r\n", true, false).is_err());
    }
}
