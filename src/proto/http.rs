//! HTTP/1.1 request heads (RFC 9112, RFC 9110), on httparse, with what it leaves open: where the head ends, which
//! heads are refused, how long the body is.
//!
//! Order of calls: [`empty_lines`] are skipped, [`looks_like_http`] is asked of the first bytes, [`head_end`] as bytes
//! arrive, [`parse_head`] once it has found the end. However the bytes are cut, what is refused is refused for the same
//! reason: whatever is checked before the end is there, `parse_head` checks first. Everything in a [`RequestHead`] borrows the
//! head's bytes.

use std::mem::MaybeUninit;

use smallvec::SmallVec;
use thiserror::Error;

pub use super::http_body::{BodyDecoder, BodyError, BodyPiece};
pub use super::http_date::HttpDate;
pub use super::http_response::{BadHeader, ResponseHead, put_continue, put_response};
use super::http_target::{Target, TargetError, is_host};

/// Most header fields that any setting can allow.
pub const HEADERS_MAX: usize = 128;

/// Longest method, in bytes; the longest that is registered has 17.
const METHOD_BYTES_MAX: usize = 64;

/// Fields of one value that decide who may do what, besides Host: a head with several of one is refused, because whoever
/// stands in between may have looked at another one (RFC 9110 5.3: a sender MUST NOT generate them).
const SINGLE_FIELDS: [&str; 2] = ["origin", "authorization"];

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
    /// A request target of none of the forms, with user information, a fragment or malformed percent-encoding, or not of
    /// the form that its method has (RFC 9112 3.2).
    #[error("malformed request target")]
    Target,
    /// A method longer than any (RFC 9112 3), or CONNECT: this is no proxy.
    #[error("method not implemented")]
    Method,
    /// Several Origin or Authorization fields.
    #[error("a field that must be single is repeated")]
    Repeated,
    /// An expectation other than `100-continue` (RFC 9110 10.1.1).
    #[error("unknown expectation")]
    Expectation,
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
            Self::TransferCoding | Self::Method => 501,
            Self::Expectation => 417,
            _ => 400,
        }
    }
}

/// How many bytes of empty lines are at the start of `bytes`. They are no part of a request, and whoever has sent nothing
/// else has not begun one.
pub fn empty_lines(bytes: &[u8]) -> usize {
    // RFC 9112 2.2: at least one empty line before the request line SHOULD be ignored.
    2 * bytes.chunks_exact(2).take_while(|line| *line == b"\r\n").count()
}

/// Whether the first bytes of a connection can still become an HTTP request. False as early as it is certain, so that a
/// TLS hello or other noise is refused at its first byte instead of at the handshake timeout.
pub fn looks_like_http(bytes: &[u8]) -> bool {
    check_method(&bytes[empty_lines(bytes)..]).is_ok()
}

/// Checks as much of the method as is there, behind the empty lines.
///
/// # Errors
/// [`HeadError::Malformed`], or [`HeadError::Method`] for one that is too long.
pub fn check_method(bytes: &[u8]) -> Result<(), HeadError> {
    match bytes.iter().take(METHOD_BYTES_MAX + 1).position(|&byte| !is_token(byte)) {
        None if bytes.len() > METHOD_BYTES_MAX => Err(HeadError::Method),
        None => Ok(()),
        // The first half of an empty line.
        Some(0) if bytes == b"\r" => Ok(()),
        Some(len) if len > 0 && bytes[len] == b' ' => Ok(()),
        Some(_) => Err(HeadError::Malformed),
    }
}

/// Whether these are the first bytes of a request that is to be answered without content (RFC 9110 9.3.2), as far as
/// they tell.
pub fn asks_for_head(bytes: &[u8]) -> bool {
    let bytes = &bytes[empty_lines(bytes)..];
    bytes == b"HEAD" || bytes.starts_with(b"HEAD ")
}

/// Where the request head at the start of `buf` ends: the index behind its empty line. `from` is how many of the bytes an
/// earlier call has seen without finding it (0 at first): only new bytes are scanned, so a head that arrives byte by
/// byte costs no more than one that arrives at once.
///
/// An end in bare line feeds is found too; [`parse_head`] refuses it.
pub fn head_end(buf: &[u8], from: usize) -> Option<usize> {
    // The empty lines that may come first are no end.
    let mut at = from.saturating_sub(2).max(empty_lines(buf));
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
    bytes: &'b [u8],
    method: &'b str,
    target: &'b str,
    parts: Target<'b>,
    version_minor: u8,
    headers: SmallVec<[Header<'b>; 24]>,
    authority: Option<&'b str>,
    expects_continue: bool,
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
    let head = &head[empty_lines(head)..];
    // What is refused before the end of the head is there is refused for the same reason when it is.
    check_method(head)?;
    if head.len() > limits.bytes_max {
        return Err(HeadError::TooLarge);
    }
    // RFC 9112 2.2: a bare LF may be taken as a line end, which is how two parsers come to disagree. Not here.
    let bare = |at: usize| at == 0 || head[at - 1] != b'\r';
    if memchr::memchr_iter(b'\n', head).any(bare) {
        return Err(HeadError::Malformed);
    }
    // Few heads have as many: to write empty ones first costs as much as to read most.
    let mut fields = [const { MaybeUninit::uninit() }; HEADERS_MAX];
    let fields = &mut fields[..limits.headers_max.min(HEADERS_MAX)];
    let mut request = httparse::Request::new(&mut []);
    match request.parse_with_uninit_headers(head, fields) {
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
    let special = Special::of(&headers, version_minor)?;
    let parts = Target::parse(method, target).map_err(|error| match error {
        TargetError::Malformed => HeadError::Target,
        TargetError::Connect => HeadError::Method,
    })?;
    // RFC 9112 3.2.2: a target in absolute form overrides the Host field.
    let authority = parts.authority.or(special.host).filter(|authority| !authority.is_empty());
    let expects_continue = special.expects_continue;
    Ok(RequestHead { bytes: head, method, target, parts, version_minor, headers, authority, expects_continue })
}

/// What the fields say that are looked at in every head.
struct Special<'b> {
    host: Option<&'b str>,
    expects_continue: bool,
}

impl<'b> Special<'b> {
    /// # Errors
    /// [`HeadError::Malformed`], [`HeadError::Host`], [`HeadError::Repeated`] or [`HeadError::Expectation`].
    fn of(headers: &[Header<'b>], version_minor: u8) -> Result<Special<'b>, HeadError> {
        let (mut host, mut has_expect) = (None, false);
        let mut seen = [false; SINGLE_FIELDS.len()];
        for Header { name, value } in headers {
            match name.len() {
                0 => return Err(HeadError::Malformed),
                4 if name.eq_ignore_ascii_case("host") => {
                    // RFC 9112 3.2: 400 to a request with more than one Host field, or with an invalid one.
                    let text = std::str::from_utf8(value).ok().filter(|text| is_host(text.as_bytes()));
                    let text = text.filter(|_| host.is_none()).ok_or(HeadError::Host)?;
                    host = Some(text);
                }
                6 if name.eq_ignore_ascii_case("expect") => has_expect = true,
                _ => {
                    let single = SINGLE_FIELDS.iter().position(|single| name.eq_ignore_ascii_case(single));
                    if single.is_some_and(|index| std::mem::replace(&mut seen[index], true)) {
                        return Err(HeadError::Repeated);
                    }
                }
            }
        }
        // RFC 9112 3.2: and to one of HTTP/1.1 without any.
        if host.is_none() && version_minor != 0 {
            return Err(HeadError::Host);
        }
        // RFC 9110 10.1.1: HTTP/1.0 has no expectations.
        let expects_continue = has_expect && version_minor == 1 && expects_continue(headers)?;
        Ok(Special { host, expects_continue })
    }
}

/// Whether the one expectation that there is is among those of the head.
fn expects_continue(headers: &[Header<'_>]) -> Result<bool, HeadError> {
    let mut expects = false;
    for expectation in list(headers, "expect") {
        // RFC 9110 10.1.1: another one may be answered 417.
        if !expectation.eq_ignore_ascii_case("100-continue") {
            return Err(HeadError::Expectation);
        }
        expects = true;
    }
    Ok(expects)
}

impl<'b> RequestHead<'b> {
    /// All of it as it was sent, from the request line to the empty line.
    pub fn bytes(&self) -> &'b [u8] {
        self.bytes
    }

    /// The method, in its own case (RFC 9110 9.1).
    pub fn method(&self) -> &'b str {
        self.method
    }

    /// The request target as it was sent (RFC 9112 3.2).
    pub fn target(&self) -> &'b str {
        self.target
    }

    /// The target's path, not percent-decoded, without the query; `/` if it is empty, `*` if the target is that.
    pub fn path(&self) -> &'b str {
        self.parts.path
    }

    /// The target's query, without its question mark.
    pub fn query(&self) -> Option<&'b str> {
        self.parts.query
    }

    /// The host, and port if any, that the request is for: that of a target in absolute form, which overrides the Host field
    /// (RFC 9112 3.2.2), or else that field's.
    pub fn authority(&self) -> Option<&'b str> {
        self.authority
    }

    /// The same where the target has it.
    pub fn target_authority(&self) -> Option<&'b str> {
        self.parts.authority
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

    /// Whether that list has this member, in any case.
    pub fn has_member(&self, name: &str, member: &str) -> bool {
        // Bytes: no other members are looked at, and what is not UTF-8 is none that is asked for.
        let is_it = |part: &[u8]| part.trim_ascii().eq_ignore_ascii_case(member.as_bytes());
        values_bytes(&self.headers, name).any(|value| value.split(|byte| *byte == b',').any(is_it))
    }

    /// Whether the connection may serve another request behind this one (RFC 9112 9.3).
    pub fn keep_alive(&self) -> bool {
        let stays = self.version_minor == 1 || self.has_member("connection", "keep-alive");
        stays && !self.has_member("connection", "close")
    }

    /// Whether the client waits for `100 Continue` (RFC 9110 10.1.1).
    pub fn expects_continue(&self) -> bool {
        self.expects_continue
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
            (b"\r\n\r\n\r\nGET / HTTP/1.1\r\n\r\n", Some(24)),
            (b"GET / HTTP/1.1\n\nrest", Some(16)),
            (b"GET / HTTP/1.1\n\r\nrest", Some(17)),
            (b"GET / HTTP/1.1\r\nHost: x\r\n", None),
            (b"", None),
            (b"\r\n", None),
            (b"\r\n\r\n", None),
            (b"\r\n\r", None),
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
        for (noise, error) in [
            (&[b'A'; METHOD_BYTES_MAX + 1][..], HeadError::Method),
            (&[b'A'; 20_000], HeadError::Method),
            (b"\x16", HeadError::Malformed),
            (b"\r\n\n", HeadError::Malformed),
        ] {
            assert_eq!(check_method(&noise[empty_lines(noise)..]), Err(error), "{noise:?}");
            assert_eq!(parse_head(noise, &HeadLimits::default()).err(), Some(error), "{noise:?}");
        }
        assert!(looks_like_http(&[b'A'; METHOD_BYTES_MAX]));
        for good in [&b""[..], b"G", b"GET ", b"GET /\x00", b"\r", b"\r\n", b"\r\n\r", b"\r\n\r\nPO", b"PRI * HT"] {
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

    // RFC 9112 3.2.2
    #[test]
    fn the_target_overrides_the_host() {
        for (target, host, authority, of_target) in [
            ("/", "a:1", Some("a:1"), None),
            ("http://b/", "a", Some("b"), Some("b")),
            ("http://b:9?x", "a", Some("b:9"), Some("b:9")),
            ("http://[::1]/", "", Some("[::1]"), Some("[::1]")),
            ("/", "", None, None),
        ] {
            let text = format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n");
            let head = parse(&text).unwrap();
            assert_eq!((head.authority(), head.target_authority()), (authority, of_target), "{text}");
        }
        assert_eq!(parse("GET http://b/ HTTP/1.0\r\n\r\n").unwrap().authority(), Some("b"));
        assert_eq!(parse("GET / HTTP/1.0\r\n\r\n").unwrap().authority(), None);
    }

    // RFC 9110 9.3.2
    #[test]
    fn requests_for_a_head_are_known_by_their_first_bytes() {
        for (bytes, want) in [
            (&b"HEAD / HTTP/1.1\r\n"[..], true),
            (b"\r\n\r\nHEAD /", true),
            (b"HEAD", true),
            (b"HEA", false),
            (b"HEADER /", false),
            (b"head / HTTP/1.1", false),
            (b"GET /HEAD ", false),
            (b"", false),
        ] {
            assert_eq!(asks_for_head(bytes), want, "{bytes:?}");
        }
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
