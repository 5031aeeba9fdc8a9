//! What can go wrong for a client, as values.

use std::error::Error;
use std::fmt;
use std::io;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

use crate::closed::Closed;
use crate::message::EncodeError;
use crate::proto::ProtocolError;
use crate::proto::handshake::HandshakeError;
use crate::proto::http::{Body, BodyDecoder, BodyPiece};
use crate::quote::quoted;
use crate::tls::{Failure, TlsError};

/// Most bytes of a refusal's body that are kept.
const EXCERPT_BYTES_MAX: usize = 4096;
const HEADERS_MAX: usize = 64;

/// Why a client could not connect, send or receive.
///
/// ```no_run
/// use ringwire::client::{ClientError, connect};
///
/// # async fn example() {
/// match connect("ws://127.0.0.1:9001/feed").await {
///     Ok(client) => println!("{:?}", client.protocol()),
///     Err(ClientError::Refused(refused)) => eprintln!("{}: {:?}", refused.status, refused.body),
///     Err(ClientError::Connect { address, source }) => eprintln!("nobody listens on {address}: {source}"),
///     Err(other) => eprintln!("{other}"),
/// }
/// # }
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// The URL is not that of a WebSocket (RFC 6455 3).
    #[error("{} is not a WebSocket URL: {reason}", quoted(url))]
    Url {
        /// As it was given.
        url: String,
        /// What is wrong with it.
        reason: &'static str,
    },

    /// The URL begins with `wss:`, and the feature `tls` is missing.
    #[error("TLS is not built in: {} needs ringwire's feature `tls`", quoted(url))]
    NoTls {
        /// As it was given.
        url: String,
    },

    /// TLS has failed, in the handshake or later: the server's certificate is not accepted, or the server does not speak
    /// TLS, or not as it should.
    #[error("TLS failed: {0}")]
    Tls(TlsError),

    /// A header field or subprotocol must not be sent, or is the client's own to write.
    #[error("{} cannot be sent in the handshake", quoted(.0))]
    Header(String),

    /// The host's name has no address.
    #[error("{host} cannot be resolved: {source}")]
    Resolve {
        /// The name.
        host: String,
        /// Why not.
        source: io::Error,
    },

    /// No connection was made: it was refused, or the host cannot be reached.
    #[error("cannot connect to {address}: {source}")]
    Connect {
        /// The last address that was tried.
        address: String,
        /// Why not.
        source: io::Error,
    },

    /// The server answered the handshake with something else than 101.
    #[error(transparent)]
    Refused(Box<Refused>),

    /// The server's answer to the handshake is not one, or does not fit the request (RFC 6455 4.1).
    #[error(transparent)]
    Handshake(HandshakeError),

    /// The server broke the protocol; it has been told so.
    #[error("the server broke the protocol: {0}")]
    Protocol(ProtocolError),

    /// The time was up.
    #[error("{0}")]
    Timeout(Waiting),

    /// The connection broke without a closing handshake.
    #[error("the connection broke: {0}")]
    Broken(io::Error),

    /// The connection is closing: nothing more can be sent.
    #[error("the connection is closing")]
    Closing,

    /// The connection is closed.
    #[error("the connection is closed: {} {}", .0.code, quoted(&.0.reason))]
    Closed(Closed),

    /// What the program does before each attempt has failed; see
    /// [`Reconnecting::with_factory`](super::Reconnecting::with_factory).
    #[error("the attempt could not be prepared: {source}")]
    Prepare {
        /// The program's error.
        source: Box<dyn Error + Send + Sync>,
    },

    /// What the program does on each new connection has failed; see [`Reconnecting::on_open`](super::Reconnecting::on_open).
    #[error("the connection could not be taken up again: {source}")]
    Resume {
        /// The program's error.
        source: Box<dyn Error + Send + Sync>,
    },

    /// There is no connection at the moment; see [`Reconnecting`](super::Reconnecting).
    #[error("there is no connection at the moment")]
    NotConnected,

    /// So much is waiting to be sent that the message was not queued.
    #[error("too much is waiting to be sent")]
    Full,

    /// A message of more than 1 GiB, which is not sent.
    #[error("a message of {0} bytes is too big to be sent")]
    TooBig(usize),

    /// The value could not be written as JSON.
    #[error(transparent)]
    Encode(#[from] EncodeError),

    /// The code must not be sent in a Close frame (RFC 6455 7.4).
    #[error("{0} is not a close code that may be sent")]
    IllegalCloseCode(u16),

    /// The machine does not offer what is needed: io_uring, random bytes, a thread.
    #[error("{0}")]
    Unavailable(String),
}

impl ClientError {
    /// Whether trying again cannot help: the request itself is wrong.
    ///
    /// ```
    /// use ringwire::client::{blocking, ClientError};
    ///
    /// let error = blocking::connect("http://example.org").unwrap_err();
    /// assert!(error.is_permanent(), "no WebSocket has such a URL");
    /// assert!(!ClientError::NotConnected.is_permanent());
    /// ```
    pub fn is_permanent(&self) -> bool {
        match self {
            ClientError::Url { .. } | ClientError::NoTls { .. } | ClientError::Header(_) => true,
            ClientError::Tls(error) => error.failure() == Failure::Internal,
            _ => false,
        }
    }

    /// The status with which the server has refused the handshake, if it has.
    ///
    /// ```no_run
    /// # async fn example() {
    /// let error = ringwire::client::connect("ws://127.0.0.1:9001/private").await.err();
    /// if error.and_then(|error| error.status()).is_some_and(|status| status == 401) {
    ///     println!("log in first");
    /// }
    /// # }
    /// ```
    pub fn status(&self) -> Option<StatusCode> {
        match self {
            ClientError::Refused(refused) => Some(refused.status),
            _ => None,
        }
    }
}

/// What did not happen in time.
///
/// ```no_run
/// use ringwire::client::{ClientError, Waiting, connect};
///
/// # async fn example() {
/// match connect("ws://chat.example/feed").await {
///     Err(ClientError::Timeout(Waiting::Resolve)) => eprintln!("is the name right?"),
///     Err(ClientError::Timeout(Waiting::Connect | Waiting::Handshake)) => eprintln!("is the server there?"),
///     other => println!("{:?}", other.map(drop)),
/// }
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Waiting {
    /// The host's name was not resolved.
    Resolve,
    /// No connection was made.
    Connect,
    /// The server did not complete the handshake of TLS.
    Tls,
    /// The server did not answer the handshake.
    Handshake,
    /// The server did not answer a ping.
    Pong,
    /// No message came; the connection is as it was.
    Message,
}

impl fmt::Display for Waiting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Waiting::Resolve => "the host's name was not resolved in time",
            Waiting::Connect => "no connection was made in time",
            Waiting::Tls => "the server did not complete the TLS handshake in time",
            Waiting::Handshake => "the server did not answer the handshake in time",
            Waiting::Pong => "the server did not answer a ping in time",
            Waiting::Message => "no message came in time",
        })
    }
}

/// The server's answer to a handshake that it did not accept. Redirects are not followed: they arrive here. `Debug` shows
/// the body's beginning, and of the header fields how many there are.
///
/// ```no_run
/// use ringwire::client::{ClientError, connect};
///
/// # async fn example() {
/// if let Err(ClientError::Refused(refused)) = connect("ws://127.0.0.1:9001/feed").await {
///     let wait = refused.headers.get("retry-after").and_then(|value| value.to_str().ok());
///     println!("{}, again in {} s", refused.status, wait.unwrap_or("?"));
/// }
/// # }
/// ```
#[derive(Clone, PartialEq, Eq, thiserror::Error)]
#[error("the server answered the handshake with {status}")]
pub struct Refused {
    /// The status.
    pub status: StatusCode,
    /// The header fields.
    pub headers: HeaderMap,
    /// The body's first 4 KiB, as far as they came within a second.
    pub body: Bytes,
}

impl fmt::Debug for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Refused { status, headers, body } = self;
        write!(f, "Refused({status}, {} header fields, body of {} bytes: {})", headers.len(), body.len(), quoted(body))
    }
}

/// What the bytes of an answer other than 101 are.
pub(super) enum Answer {
    /// An interim answer (RFC 9110 15.2), which is none.
    Interim,
    /// More may come.
    Partial(Refused),
    /// All of it.
    Whole(Refused),
}

/// Reads an answer whose head is complete.
pub(super) fn read_answer(bytes: &[u8]) -> Result<Answer, HandshakeError> {
    let mut fields = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut response = httparse::Response::new(&mut fields);
    let head_len = match response.parse(bytes) {
        Ok(httparse::Status::Complete(len)) => len,
        Ok(httparse::Status::Partial) | Err(_) => return Err(HandshakeError::Malformed),
    };
    let status = response.code.and_then(|code| StatusCode::from_u16(code).ok()).ok_or(HandshakeError::Malformed)?;
    if status.is_informational() {
        return Ok(Answer::Interim);
    }
    let mut headers = HeaderMap::new();
    for field in response.headers.iter() {
        if let (Ok(name), Ok(value)) =
            (HeaderName::from_bytes(field.name.as_bytes()), HeaderValue::from_bytes(field.value))
        {
            headers.append(name, value);
        }
    }
    let (body, is_whole) = read_body(status, &headers, &bytes[head_len..]);
    let refused = Refused { status, headers, body: Bytes::from(body) };
    Ok(if is_whole { Answer::Whole(refused) } else { Answer::Partial(refused) })
}

/// The body's excerpt, and whether nothing more will be added to it (RFC 9112 6.3).
fn read_body(status: StatusCode, headers: &HeaderMap, bytes: &[u8]) -> (Vec<u8>, bool) {
    if status == StatusCode::NO_CONTENT || status == StatusCode::NOT_MODIFIED {
        return (Vec::new(), true);
    }
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    if text("transfer-encoding").is_some_and(|coding| coding.trim().eq_ignore_ascii_case("chunked")) {
        return read_chunks(bytes);
    }
    let declared = text("content-length").and_then(|length| length.trim().parse().ok()).unwrap_or(usize::MAX);
    let wanted = declared.min(EXCERPT_BYTES_MAX);
    (bytes[..bytes.len().min(wanted)].to_vec(), bytes.len() >= wanted)
}

fn read_chunks(bytes: &[u8]) -> (Vec<u8>, bool) {
    let mut content = Vec::new();
    // As large as can be, because more than the excerpt is no error here.
    let Ok(mut decoder) = BodyDecoder::new(Body::Chunked, usize::MAX) else { return (content, true) };
    let mut consumed = 0;
    loop {
        match decoder.next(bytes, &mut consumed) {
            Ok(BodyPiece::Data(piece)) => {
                content.extend_from_slice(&piece[..piece.len().min(EXCERPT_BYTES_MAX - content.len())]);
                if content.len() == EXCERPT_BYTES_MAX {
                    return (content, true);
                }
            }
            Ok(BodyPiece::More) => return (content, false),
            Ok(BodyPiece::End) | Err(_) => return (content, true),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(bytes: &str) -> (Refused, bool) {
        match read_answer(bytes.as_bytes()) {
            Ok(Answer::Whole(refused)) => (refused, true),
            Ok(Answer::Partial(refused)) => (refused, false),
            Ok(Answer::Interim) => panic!("interim"),
            Err(error) => panic!("{error}"),
        }
    }

    #[test]
    fn bodies_end_as_their_heads_say() {
        for (answer, body, is_whole) in [
            ("HTTP/1.1 404 X\r\nContent-Length: 3\r\n\r\nabcd", "abc", true),
            ("HTTP/1.1 404 X\r\nContent-Length: 3\r\n\r\nab", "ab", false),
            ("HTTP/1.1 404 X\r\n\r\nab", "ab", false),
            ("HTTP/1.1 204 X\r\n\r\n", "", true),
            ("HTTP/1.1 500 X\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n1\r\nc\r\n0\r\n\r\n", "abc", true),
            ("HTTP/1.1 500 X\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n1\r\n", "ab", false),
        ] {
            let (refused, whole) = refused(answer);
            assert_eq!((&*refused.body, whole), (body.as_bytes(), is_whole), "{answer}");
        }
        let long = format!("HTTP/1.1 404 X\r\n\r\n{}", "x".repeat(5000));
        let (refused, whole) = refused(&long);
        assert_eq!((refused.body.len(), whole), (EXCERPT_BYTES_MAX, true));
    }

    #[test]
    fn interim_answers_are_told_apart() {
        let bytes = b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 101";
        assert!(matches!(read_answer(bytes), Ok(Answer::Interim)));
    }
}
