//! HTTP/1.1 request heads (RFC 9112, RFC 9110), on httparse, with what it leaves open: where the head ends, which
//! heads are refused, how long the body is.
//!
//! Order of calls: [`looks_like_http`] on the first bytes, [`head_end`] as bytes arrive, [`parse_head`] once it has found
//! the end. Everything in a [`RequestHead`] borrows the head's bytes.

use smallvec::SmallVec;
use thiserror::Error;

pub use super::http_body::{BodyDecoder, BodyError, BodyPiece};
pub use super::http_response::{BadHeader, put_continue, put_response};

/// Most header fields that any setting can allow.
pub const HEADERS_MAX: usize = 128;

/// Longest method that [`looks_like_http`] believes in, in bytes.
const METHOD_BYTES_MAX: usize = 24;

/// Bounds on a request head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeadLimits {
    /// Most bytes of the whole head.
    pub bytes_max: usize,
    /// Most header fields; at most [`HEADERS_MAX`].
    pub headers_max: usize,
}

impl Default for HeadLimits {
    /// 16 KiB and 100 fields.
    fn default() -> Self {
        Self { bytes_max: 16 * 1024, headers_max: 100 }
    }
}

/// Why a request head is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum HeadError {
    /// Not a request line and header fields.
    #[error("malformed request head")]
    Malformed,
    /// Over [`HeadLimits::bytes_max`].
    #[error("request head too large")]
    TooLarge,
    /// Over [`HeadLimits::headers_max`].
    #[error("too many header fields")]
    TooManyHeaders,
    /// Neither HTTP/1.0 nor HTTP/1.1.
    #[error("HTTP version not supported")]
    Version,
    /// HTTP/1.1 without a Host field, or a head with several, or with one that is no host (RFC 9112 3.2).
    #[error("exactly one valid Host field is required")]
    Host,
    /// Content-Length that is not one number, or is given beside Transfer-Encoding (RFC 9112 6.3).
    #[error("invalid Content-Length")]
    ContentLength,
    /// Transfer-Encoding that does not end in chunked, or in HTTP/1.0 (RFC 9112 6.1).
    #[error("invalid Transfer-Encoding")]
    TransferEncoding,
    /// A transfer coding before chunked (RFC 9112 6.1).
    #[error("transfer coding not implemented")]
    TransferCoding,
}

impl HeadError {
    /// The status that answers it. The connection must be closed behind the answer.
    pub fn status(self) -> u16 {
        match self {
            Self::TooLarge | Self::TooManyHeaders => 431,
            Self::Version => 505,
            Self::TransferCoding => 501,
            _ => 400,
        }
    }
}

/// Whether the first bytes of a connection can still become an HTTP request. False as early as it is certain, so that a
/// TLS hello or other noise is refused at its first byte instead of at the handshake timeout.
pub fn looks_like_http(bytes: &[u8]) -> bool {
    // RFC 9112 2.2: at least one empty line before the request line SHOULD be ignored.
    let bytes = match bytes {
        [b'\r', b'\n', rest @ ..] => rest,
        [b'\r'] => return true,
        all => all,
    };
    match bytes.iter().position(|&byte| byte == b' ') {
        Some(0) => false,
        Some(len) => len <= METHOD_BYTES_MAX && bytes[..len].iter().all(|&byte| is_token(byte)),
        None => bytes.len() <= METHOD_BYTES_MAX && bytes.iter().all(|&byte| is_token(byte)),
    }
}

/// Where the request head at the start of `buf` ends: the index behind its empty line. `from` is how many of the bytes an
/// earlier call has seen without finding it (0 at first): only new bytes are scanned, so a head that arrives byte by
/// byte costs no more than one that arrives at once.
///
/// An end in bare line feeds is found too; [`parse_head`] refuses it.
pub fn head_end(buf: &[u8], from: usize) -> Option<usize> {
    // The empty line that may come first is no end.
    let first = if buf.starts_with(b"\r\n") { 2 } else { 0 };
    let mut at = from.saturating_sub(2).max(first);
    while let Some(offset) = memchr::memchr(b'\n', buf.get(at..)?) {
        at += offset + 1;
        match buf[at..] {
            [b'\n', ..] => return Some(at + 1),
            [b'\r', b'\n', ..] => return Some(at + 2),
            _ => {}
        }
    }
    None
}

/// A header field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header<'b> {
    /// The name as it was sent; compare it ignoring case.
    pub name: &'b str,
    /// The value without the white space around it.
    pub value: &'b [u8],
}

/// A request head.
#[derive(Clone, Debug)]
pub struct RequestHead<'b> {
    method: &'b str,
    target: &'b str,
    version_minor: u8,
    headers: SmallVec<[Header<'b>; 24]>,
}

/// How the body behind a request head is delimited (RFC 9112 6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Body {
    /// There is none.
    None,
    /// So many bytes.
    Length(u64),
    /// In chunks (RFC 9112 7.1).
    Chunked,
}

/// Parses the request head that is the whole of `head`, as [`head_end`] delimits it.
///
/// # Errors
/// The first thing wrong with it; see [`HeadError`]. That includes the rules for Host (RFC 9112 3.2), but not those for
/// the body: see [`RequestHead::body`].
pub fn parse_head<'b>(head: &'b [u8], limits: &HeadLimits) -> Result<RequestHead<'b>, HeadError> {
    if head.len() > limits.bytes_max {
        return Err(HeadError::TooLarge);
    }
    // RFC 9112 2.2: a bare LF may be taken as a line end, which is how two parsers come to disagree. Not here.
    let bare = |at: usize| at == 0 || head[at - 1] != b'\r';
    if memchr::memchr_iter(b'\n', head).any(bare) {
        return Err(HeadError::Malformed);
    }
    let mut fields = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let fields = &mut fields[..limits.headers_max.min(HEADERS_MAX)];
    let mut request = httparse::Request::new(fields);
    match request.parse(head) {
        Ok(httparse::Status::Complete(len)) if len == head.len() => {}
        Ok(_) => return Err(HeadError::Malformed),
        Err(httparse::Error::TooManyHeaders) => return Err(HeadError::TooManyHeaders),
        Err(httparse::Error::Version) if has_other_version(head) => return Err(HeadError::Version),
        Err(_) => return Err(HeadError::Malformed),
    }
    let (Some(method), Some(target), Some(version_minor)) = (request.method, request.path, request.version) else {
        return Err(HeadError::Malformed);
    };
    let header = |field: &httparse::Header<'b>| Header { name: field.name, value: field.value };
    let headers: SmallVec<[Header<'b>; 24]> = request.headers.iter().map(header).collect();
    if headers.iter().any(|header| header.name.is_empty()) {
        return Err(HeadError::Malformed);
    }
    let head = RequestHead { method, target, version_minor, headers };
    // RFC 9112 3.2: 400 to an HTTP/1.1 request without Host, and to any with more than one or with an invalid value.
    let mut hosts = values_bytes(&head.headers, "host");
    match (hosts.next(), hosts.next()) {
        (None, _) if version_minor == 0 => {}
        (Some(host), None) if is_host(host) => {}
        _ => return Err(HeadError::Host),
    }
    drop(hosts);
    Ok(head)
}

/// Whether this is `uri-host [ ":" port ]` (RFC 9110 7.2), or nothing: what a target without an authority has.
fn is_host(value: &[u8]) -> bool {
    // RFC 3986 3.2.2: unreserved, sub-delims, percent-encoded.
    let is_name = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=%".contains(byte);
    let is_port = |rest: &[u8]| match rest {
        [] => true,
        [b':', port @ ..] => port.iter().all(u8::is_ascii_digit),
        _ => false,
    };
    match value {
        [b'[', rest @ ..] => match memchr::memchr(b']', rest) {
            Some(end) => {
                end > 0 && rest[..end].iter().all(|byte| is_name(byte) || *byte == b':') && is_port(&rest[end + 1..])
            }
            None => false,
        },
        _ => {
            let (name, rest) = value.split_at(memchr::memchr(b':', value).unwrap_or(value.len()));
            name.iter().all(is_name) && is_port(rest)
        }
    }
}

impl<'b> RequestHead<'b> {
    /// The method, in its own case (RFC 9110 9.1).
    pub fn method(&self) -> &'b str {
        self.method
    }

    /// The request target as it was sent (RFC 9112 3.2).
    pub fn target(&self) -> &'b str {
        self.target
    }

    /// The target's path, not percent-decoded, without the query; `*` and authorities as they are.
    pub fn path(&self) -> &'b str {
        let origin = self.origin_form();
        origin.split_once('?').map_or(origin, |(path, _)| path)
    }

    /// The target's query, without its question mark.
    pub fn query(&self) -> Option<&'b str> {
        self.origin_form().split_once('?').map(|(_, query)| query)
    }

    /// The x of HTTP/1.x: 0 or 1.
    pub fn version_minor(&self) -> u8 {
        self.version_minor
    }

    /// All header fields, in order.
    pub fn all(&self) -> &[Header<'b>] {
        &self.headers
    }

    /// The value of the first field of that name, in any case; `None` too where it is not UTF-8.
    pub fn header(&self, name: &str) -> Option<&'b str> {
        self.header_bytes(name).and_then(|value| std::str::from_utf8(value).ok())
    }

    /// The value of the first field of that name, in any case, as it was sent.
    pub fn header_bytes(&self, name: &str) -> Option<&'b [u8]> {
        values_bytes(&self.headers, name).next()
    }

    /// The values of all fields of that name, in any case and in order. One that is not UTF-8 is given as `U+FFFD`.
    pub fn headers<'s>(&'s self, name: &'s str) -> impl Iterator<Item = &'b str> + 's {
        values(&self.headers, name)
    }

    /// The members of the comma-separated list that all fields of that name make (RFC 9110 5.6.1), trimmed, none empty.
    pub fn list<'s>(&'s self, name: &'s str) -> impl Iterator<Item = &'b str> + 's {
        list(&self.headers, name)
    }

    /// Whether the connection may serve another request behind this one (RFC 9112 9.3).
    pub fn keep_alive(&self) -> bool {
        let mut keep_alive = self.version_minor == 1;
        for option in self.list("connection") {
            if option.eq_ignore_ascii_case("close") {
                return false;
            }
            keep_alive |= option.eq_ignore_ascii_case("keep-alive");
        }
        keep_alive
    }

    /// Whether the client waits for `100 Continue` before it sends the body (RFC 9110 10.1.1).
    pub fn expects_continue(&self) -> bool {
        self.version_minor == 1 && self.header("expect").is_some_and(|value| value.eq_ignore_ascii_case("100-continue"))
    }

    /// How the body is delimited (RFC 9112 6.3), by the rules that leave no room for two readings of it.
    ///
    /// # Errors
    /// [`HeadError::ContentLength`], [`HeadError::TransferEncoding`] or [`HeadError::TransferCoding`]. The connection is
    /// of no further use: where its next request begins is not known.
    pub fn body(&self) -> Result<Body, HeadError> {
        let coded = self.header_bytes("transfer-encoding").is_some();
        let length = self.content_length()?;
        if !coded {
            return Ok(match length {
                None | Some(0) => Body::None,
                Some(length) => Body::Length(length),
            });
        }
        // RFC 9112 6.1: both of them, or Transfer-Encoding in HTTP/1.0, ought to be handled as an error.
        if length.is_some() {
            return Err(HeadError::ContentLength);
        }
        if self.version_minor == 0 {
            return Err(HeadError::TransferEncoding);
        }
        let (mut codings, mut chunked) = (0, 0);
        let mut last_is_chunked = false;
        for coding in self.list("transfer-encoding") {
            codings += 1;
            last_is_chunked = coding.eq_ignore_ascii_case("chunked");
            chunked += u32::from(last_is_chunked);
        }
        // RFC 9112 6.3: in a request, a final coding other than chunked is answered 400. RFC 9112 6.1: chunked is not
        // applied twice.
        if !last_is_chunked || chunked != 1 {
            return Err(HeadError::TransferEncoding);
        }
        if codings > 1 {
            return Err(HeadError::TransferCoding);
        }
        Ok(Body::Chunked)
    }

    fn content_length(&self) -> Result<Option<u64>, HeadError> {
        let mut length = None;
        for value in self.headers("content-length") {
            // RFC 9112 6.3: a list of equal values may be taken as one; anything else is an error.
            for member in value.split(',') {
                let member = member.trim_matches([' ', '\t']);
                if member.is_empty() || !member.bytes().all(|byte| byte.is_ascii_digit()) {
                    return Err(HeadError::ContentLength);
                }
                let number: u64 = member.parse().map_err(|_| HeadError::ContentLength)?;
                if length.is_some_and(|earlier| earlier != number) {
                    return Err(HeadError::ContentLength);
                }
                length = Some(number);
            }
        }
        Ok(length)
    }

    /// The target without the scheme and authority of the absolute form (RFC 9112 3.2.2).
    fn origin_form(&self) -> &'b str {
        if self.target.starts_with('/') {
            return self.target;
        }
        match self.target.split_once("://") {
            Some((_, rest)) => match rest.find(['/', '?']) {
                Some(at) if rest.as_bytes()[at] == b'/' => &rest[at..],
                // An empty path; only the query is of use.
                Some(at) => &rest[at..],
                None => "/",
            },
            None => self.target,
        }
    }
}

/// The values of the fields called `name`.
fn values_bytes<'s, 'b>(headers: &'s [Header<'b>], name: &'s str) -> impl Iterator<Item = &'b [u8]> + use<'s, 'b> {
    let named = move |header: &&Header<'b>| header.name.eq_ignore_ascii_case(name);
    headers.iter().filter(named).map(|header| header.value)
}

/// See [`RequestHead::headers`].
pub(super) fn values<'s, 'b>(headers: &'s [Header<'b>], name: &'s str) -> impl Iterator<Item = &'b str> + use<'s, 'b> {
    values_bytes(headers, name).map(|value| std::str::from_utf8(value).unwrap_or("\u{FFFD}"))
}

/// See [`RequestHead::list`].
pub(super) fn list<'s, 'b>(headers: &'s [Header<'b>], name: &'s str) -> impl Iterator<Item = &'b str> + use<'s, 'b> {
    values(headers, name)
        .flat_map(|value| value.split(','))
        .map(|member| member.trim_matches([' ', '\t']))
        .filter(|member| !member.is_empty())
}

/// Whether a byte may be in a token: a method or a field name (RFC 9110 5.6.2).
pub(super) fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// Whether the request line ends in a version that is well-formed: it is then not supported, rather than malformed.
fn has_other_version(head: &[u8]) -> bool {
    let head = head.strip_prefix(b"\r\n").unwrap_or(head);
    let line = head.split(|&byte| byte == b'\r').next().unwrap_or_default();
    let version = line.rsplit(|&byte| byte == b' ').next().unwrap_or_default();
    matches!(version, [b'H', b'T', b'T', b'P', b'/', major, b'.', minor]
        if major.is_ascii_digit() && minor.is_ascii_digit() && version != b"HTTP/1.1" && version != b"HTTP/1.0")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(head: &str) -> Result<RequestHead<'_>, HeadError> {
        assert_eq!(head_end(head.as_bytes(), 0), Some(head.len()), "{head:?}");
        parse_head(head.as_bytes(), &HeadLimits::default())
    }

    #[test]
    fn the_end_is_found_at_the_same_place_however_it_arrives() {
        for (bytes, want) in [
            (&b"GET / HTTP/1.1\r\nHost: x\r\n\r\nrest\r\n\r\n"[..], Some(27)),
            (b"\r\nGET / HTTP/1.1\r\n\r\n", Some(20)),
            (b"GET / HTTP/1.1\n\nrest", Some(16)),
            (b"GET / HTTP/1.1\n\r\nrest", Some(17)),
            (b"GET / HTTP/1.1\r\nHost: x\r\n", None),
            (b"", None),
            (b"\r\n", None),
        ] {
            assert_eq!(head_end(bytes, 0), want);
            let found = (1..=bytes.len()).find_map(|len| head_end(&bytes[..len], len - 1));
            assert_eq!(found, want, "{bytes:?}");
            for seen in 0..want.unwrap_or(bytes.len()) {
                assert_eq!(head_end(bytes, seen), want, "{bytes:?} from {seen}");
            }
        }
    }

    #[test]
    fn noise_is_refused_at_once() {
        for noise in [&b"\x16\x03\x01"[..], b"\x00", b" GET", b"GE\x80", b"{", b"GET\t/", b"\n"] {
            assert!(!looks_like_http(noise), "{noise:?}");
        }
        assert!(!looks_like_http(&[b'A'; 25]));
        for good in [&b""[..], b"G", b"GET ", b"GET /\x00", b"\r", b"\r\n", b"\r\nPO", b"PRI * HT"] {
            assert!(looks_like_http(good), "{good:?}");
        }
    }

    #[test]
    fn a_head_in_parts() {
        let head = parse("GET /a/b?c=d?e HTTP/1.1\r\nhOST: x\r\nX-A: 1 \r\nx-a:2\r\n\r\n").unwrap();
        assert_eq!((head.method(), head.target()), ("GET", "/a/b?c=d?e"));
        assert_eq!((head.path(), head.query()), ("/a/b", Some("c=d?e")));
        assert_eq!((head.header("Host"), head.header("none")), (Some("x"), None));
        assert_eq!(head.headers("X-A").collect::<Vec<_>>(), ["1", "2"]);
        assert_eq!((head.version_minor(), head.all().len()), (1, 3));
        let head = parse("GET http://x:1/p?q HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
        assert_eq!((head.path(), head.query()), ("/p", Some("q")));
        let head = parse("GET http://x HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
        assert_eq!((head.path(), head.query()), ("/", None));
        let head = parse("OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
        assert_eq!(head.path(), "*");
    }

    // RFC 9112 9.3
    #[test]
    fn keep_alive() {
        for (version, field, want) in [
            ("1.1", "", true),
            ("1.0", "", false),
            ("1.1", "Connection: Upgrade, CLOSE\r\n", false),
            ("1.0", "Connection: Keep-Alive\r\n", true),
            ("1.1", "Connection: keep-alive\r\nConnection: close\r\n", false),
        ] {
            let text = format!("GET / HTTP/{version}\r\nHost: x\r\n{field}\r\n");
            assert_eq!(parse(&text).unwrap().keep_alive(), want, "{text}");
        }
    }
}
