//! The opening handshake (RFC 6455 4), both sides. The server's decides on a request that [`super::http`] parsed; neither
//! makes random numbers or does I/O.

use thiserror::Error;
use tungstenite::handshake::derive_accept_key;

use super::extensions::{self, Agreed, Offer};
use super::http::{Header, RequestHead, list, values};
use super::http_response::{BadHeader, put_header, put_status};

/// Most bytes of a response head that the client reads.
pub const RESPONSE_BYTES_MAX: usize = 16 * 1024;

/// Most interim responses before the final one.
pub const INTERIM_RESPONSES_MAX: usize = 16;

const RESPONSE_HEADERS_MAX: usize = 64;

/// A request that may be upgraded.
#[derive(Clone, Copy, Debug)]
pub struct Upgrade<'h> {
    headers: &'h [Header<'h>],
    key: &'h str,
}

impl<'h> Upgrade<'h> {
    /// The client's Sec-WebSocket-Key, for [`put_switching`].
    pub fn key(&self) -> &'h str {
        self.key
    }

    /// The subprotocols the client offers, its favourite first (RFC 6455 4.1 item 10).
    pub fn protocols(&self) -> impl Iterator<Item = &'h str> + 'h {
        list(self.headers, "sec-websocket-protocol")
    }

    /// The extensions the client offers, each with its parameters (RFC 6455 9.1), one string per header field.
    pub fn extensions(&self) -> impl Iterator<Item = &'h str> + 'h {
        values(self.headers, "sec-websocket-extensions")
    }

    /// The Origin (RFC 6455 10.2); browsers always send it.
    pub fn origin(&self) -> Option<&'h str> {
        values(self.headers, "origin").next()
    }
}

/// A refused handshake: the response to give.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(unnameable_types, reason = "only implementations of traits mention it")]
pub struct Refusal {
    /// The status code.
    pub status: u16,
    /// Header fields that the status requires.
    pub headers: &'static [(&'static str, &'static str)],
    /// What is wrong, for the body.
    pub message: &'static str,
}

impl Refusal {
    fn new(status: u16, headers: &'static [(&'static str, &'static str)], message: &'static str) -> Self {
        Self { status, headers, message }
    }
}

/// Whether the request is meant to become a WebSocket, however wrong it is. What is not answered 101 must not be followed by
/// another request on its connection: a proxy that tunnels whatever looks like an upgrade has not seen that one.
pub fn is_attempt(head: &RequestHead<'_>) -> bool {
    const WEBSOCKET: &[u8] = b"websocket";
    head.all().iter().any(|header| match header.name.len() {
        7 => {
            header.name.eq_ignore_ascii_case("upgrade")
                && header.value.windows(WEBSOCKET.len()).any(|part| part.eq_ignore_ascii_case(WEBSOCKET))
        }
        len => {
            (len == 17 && header.name.eq_ignore_ascii_case("sec-websocket-key"))
                || (len == 21 && header.name.eq_ignore_ascii_case("sec-websocket-version"))
        }
    })
}

/// Whether the request asks for WebSocket, rightly or not: Upgrade names it. Anything else is ordinary HTTP.
pub fn is_upgrade_request(head: &RequestHead<'_>) -> bool {
    head.has_member("upgrade", "websocket")
}

/// Checks a client's opening handshake (RFC 6455 4.2.1).
///
/// # Errors
/// The response that refuses it: 400, 405, 426.
pub fn check<'h>(head: &'h RequestHead<'_>) -> Result<Upgrade<'h>, Refusal> {
    // RFC 6455 4.1 item 2: the method MUST be GET and the version at least 1.1.
    if head.method() != "GET" {
        return Err(Refusal::new(405, &[("allow", "GET")], "a WebSocket handshake is a GET"));
    }
    // RFC 9110 15.5.22: a 426 MUST have an Upgrade field; RFC 9110 7.8: and the connection option for it. RFC 6455 4.2.2:
    // and the version that is spoken here.
    const UPGRADE_REQUIRED: &[(&str, &str)] =
        &[("sec-websocket-version", "13"), ("upgrade", "websocket"), ("connection", "Upgrade")];
    if !is_upgrade_request(head) {
        return Err(Refusal::new(426, UPGRADE_REQUIRED, "this is a WebSocket endpoint"));
    }
    let bad_request = |message| Err(Refusal::new(400, &[], message));
    if head.version_minor() == 0 {
        return bad_request("a WebSocket handshake is HTTP/1.1");
    }
    // RFC 6455 4.2.1 item 4
    if !head.has_member("connection", "upgrade") {
        return bad_request("Connection must have the option Upgrade");
    }
    // RFC 6455 4.2.2 and 4.4: on another version, 426 with the one that is spoken here.
    let mut versions = head.headers("sec-websocket-version");
    if versions.next() != Some("13") || versions.next().is_some() {
        return Err(Refusal::new(426, UPGRADE_REQUIRED, "Sec-WebSocket-Version must be 13"));
    }
    // RFC 6455 4.2.1 item 5, 11.3.1: exactly one key, 16 bytes in base64.
    let mut keys = head.headers("sec-websocket-key");
    match (keys.next(), keys.next()) {
        (Some(key), None) if is_key(key) => Ok(Upgrade { headers: head.all(), key }),
        _ => bad_request("Sec-WebSocket-Key must be 16 bytes in base64"),
    }
}

/// Appends the response that accepts the handshake (RFC 6455 4.2.2): 101 with the accept key, the subprotocol chosen out
/// of the offered ones, and any other headers.
///
/// # Errors
/// [`BadHeader`] for a protocol or header that must not be written; `out` is as it was.
pub fn put_switching<'h>(
    out: &mut Vec<u8>,
    key: &str,
    protocol: Option<&'h str>,
    headers: impl IntoIterator<Item = (&'h str, &'h [u8])>,
) -> Result<(), BadHeader> {
    let start = out.len();
    put_status(out, 101);
    out.extend_from_slice(b"Upgrade: websocket\r\nConnection: Upgrade\r\n");
    let accept = derive_accept_key(key.as_bytes());
    put_fields(out, start, [("Sec-WebSocket-Accept", accept.as_bytes())])?;
    let protocol = protocol.map(|protocol| ("Sec-WebSocket-Protocol", protocol.as_bytes()));
    put_fields(out, start, protocol.into_iter().chain(headers))?;
    out.extend_from_slice(b"\r\n");
    Ok(())
}

/// Appends a client's opening handshake (RFC 6455 4.1) for [`client_key`]'s `key`. `host` is the Host field's value, with
/// the port where it is not the scheme's own; `target` begins with a slash; `protocols` are offered in that order.
///
/// # Errors
/// [`BadHeader`] for a host, target, protocol or header that must not be written; `out` is as it was.
pub fn put_request<'h>(
    out: &mut Vec<u8>,
    host: &'h str,
    target: &str,
    key: &'h str,
    protocols: &[&str],
    headers: impl IntoIterator<Item = (&'h str, &'h str)>,
) -> Result<(), BadHeader> {
    let start = out.len();
    if target.is_empty() || target.bytes().any(|byte| byte <= b' ' || byte == 0x7F) {
        return Err(BadHeader);
    }
    out.extend_from_slice(b"GET ");
    out.extend_from_slice(target.as_bytes());
    out.extend_from_slice(b" HTTP/1.1\r\n");
    let protocols = protocols.join(", ");
    let own = [
        ("Host", host),
        ("Upgrade", "websocket"),
        ("Connection", "Upgrade"),
        ("Sec-WebSocket-Key", key),
        ("Sec-WebSocket-Version", "13"),
    ];
    put_fields(out, start, own.map(|(name, value)| (name, value.as_bytes())))?;
    if !protocols.is_empty() {
        put_fields(out, start, [("Sec-WebSocket-Protocol", protocols.as_bytes())])?;
    }
    put_fields(out, start, headers.into_iter().map(|(name, value)| (name, value.as_bytes())))?;
    out.extend_from_slice(b"\r\n");
    Ok(())
}

/// A Sec-WebSocket-Key of 16 random bytes (RFC 6455 4.1 item 7).
pub fn client_key(random: [u8; 16]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    // 128 bits, then 4 zero bits, are 22 digits of 6.
    let bits = u128::from_be_bytes(random);
    let mut key: String =
        (0..21).map(|digit| char::from(ALPHABET[(bits >> (122 - 6 * digit)) as usize & 63])).collect();
    key.push(char::from(ALPHABET[(bits as usize & 3) << 4]));
    key.push_str("==");
    key
}

/// What the server said to the client's handshake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientHandshake {
    /// The subprotocol it chose; see [`ClientHandshake::check_protocol`].
    pub protocol: Option<String>,
    /// All header fields; values are bytes (RFC 9110 5.5).
    pub headers: Vec<(String, Vec<u8>)>,
    /// What is agreed of compression, if it is.
    pub deflate: Option<Agreed>,
}

impl ClientHandshake {
    /// Checks that the chosen subprotocol is one of the `offered` (RFC 6455 4.1).
    ///
    /// # Errors
    /// [`HandshakeError::Protocol`] where it is not; none chosen is right.
    pub fn check_protocol(&self, offered: &[&str]) -> Result<(), HandshakeError> {
        match &self.protocol {
            Some(chosen) if !offered.contains(&chosen.as_str()) => Err(HandshakeError::Protocol),
            _ => Ok(()),
        }
    }
}

/// Why the client does not take the server's answer for a WebSocket (RFC 6455 4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum HandshakeError {
    /// Not an HTTP/1.1 response.
    #[error("malformed handshake response")]
    Malformed,
    /// A head over 16 KiB.
    #[error("handshake response too large")]
    TooLarge,
    /// A status other than 101.
    #[error("the server answered the handshake with status {0}")]
    Status(u16),
    /// Upgrade is not websocket, or Connection has no option for it.
    #[error("the handshake response is no upgrade to WebSocket")]
    Upgrade,
    /// Sec-WebSocket-Accept is not the one for the key.
    #[error("wrong Sec-WebSocket-Accept")]
    Accept,
    /// An extension that was not offered, or with parameters that answer no offer (RFC 7692 7.1).
    #[error("the server chose an extension that was not offered")]
    Extension,
    /// A subprotocol that was not offered.
    #[error("the server chose a subprotocol that was not offered")]
    Protocol,
}

/// How many bytes of interim responses (RFC 9110 15.2) are at the start of `bytes`, as far as they are whole. A client MUST
/// be able to read them before the final one, whatever they say.
///
/// # Errors
/// [`HandshakeError::TooLarge`] for more than [`RESPONSE_BYTES_MAX`] bytes of them, or more than
/// [`INTERIM_RESPONSES_MAX`].
pub fn interim_len(bytes: &[u8]) -> Result<usize, HandshakeError> {
    let mut len = 0;
    for _ in 0..=INTERIM_RESPONSES_MAX {
        let mut fields = [httparse::EMPTY_HEADER; RESPONSE_HEADERS_MAX];
        let mut response = httparse::Response::new(&mut fields);
        match response.parse(&bytes[len..]) {
            Ok(httparse::Status::Complete(head)) if matches!(response.code, Some(100 | 102..200)) => len += head,
            // The final one is judged elsewhere.
            Ok(_) | Err(_) => return Ok(len),
        }
        if len > RESPONSE_BYTES_MAX {
            break;
        }
    }
    Err(HandshakeError::TooLarge)
}

/// Reads the server's answer behind any interim responses, as [`check_response`] does; the length that it tells includes
/// them. `offer`: what was offered of compression.
///
/// # Errors
/// See [`HandshakeError`]; the connection must be closed.
pub fn check_final_response(
    bytes: &[u8],
    key: &str,
    offer: Option<Offer>,
) -> Result<Option<(ClientHandshake, usize)>, HandshakeError> {
    let interim = interim_len(bytes)?;
    let read = check_response(&bytes[interim..], key, offer)?;
    Ok(read.map(|(handshake, len)| (handshake, interim + len)))
}

/// Reads the server's answer at the start of `bytes`: what it said and how many bytes its head has, or `None` if more are
/// needed. Frames may follow at once. `offer`: what was offered of compression.
///
/// # Errors
/// See [`HandshakeError`]; the connection must be closed.
pub fn check_response(
    bytes: &[u8],
    key: &str,
    offer: Option<Offer>,
) -> Result<Option<(ClientHandshake, usize)>, HandshakeError> {
    let mut fields = [httparse::EMPTY_HEADER; RESPONSE_HEADERS_MAX];
    let mut response = httparse::Response::new(&mut fields);
    let consumed = match response.parse(bytes) {
        Ok(httparse::Status::Complete(len)) if len <= RESPONSE_BYTES_MAX => len,
        Ok(httparse::Status::Partial) if bytes.len() < RESPONSE_BYTES_MAX => return Ok(None),
        Ok(_) | Err(httparse::Error::TooManyHeaders) => return Err(HandshakeError::TooLarge),
        Err(_) => return Err(HandshakeError::Malformed),
    };
    match response.code {
        Some(101) => {}
        // RFC 9110 15: a status is a number from 100 on.
        Some(status) if status >= 100 => return Err(HandshakeError::Status(status)),
        _ => return Err(HandshakeError::Malformed),
    }
    let headers: Vec<(String, Vec<u8>)> =
        response.headers.iter().map(|field| (field.name.to_owned(), field.value.to_owned())).collect();
    let named = |name: &'static str| {
        let is_named = move |header: &&(String, Vec<u8>)| header.0.eq_ignore_ascii_case(name);
        // None of what is looked for has anything but ASCII.
        headers.iter().filter(is_named).map(|header| std::str::from_utf8(&header.1).unwrap_or("\u{FFFD}").trim())
    };
    if !has_token(named("upgrade"), "websocket")
        || !has_token(named("connection").flat_map(|value| value.split(',')), "upgrade")
    {
        return Err(HandshakeError::Upgrade);
    }
    if !named("sec-websocket-accept").eq([derive_accept_key(key.as_bytes())]) {
        return Err(HandshakeError::Accept);
    }
    let deflate =
        extensions::check_answer(named("sec-websocket-extensions"), offer).ok_or(HandshakeError::Extension)?;
    let mut protocols = named("sec-websocket-protocol");
    let protocol = protocols.next().map(str::to_owned);
    if protocols.next().is_some() {
        return Err(HandshakeError::Protocol);
    }
    Ok(Some((ClientHandshake { protocol, headers, deflate }, consumed)))
}

/// Appends header fields; on a bad one, takes back everything behind `start`.
fn put_fields<'h>(
    out: &mut Vec<u8>,
    start: usize,
    fields: impl IntoIterator<Item = (&'h str, &'h [u8])>,
) -> Result<(), BadHeader> {
    for (name, value) in fields {
        put_header(out, name, value).inspect_err(|_| out.truncate(start))?;
    }
    Ok(())
}

fn has_token<'v>(mut values: impl Iterator<Item = &'v str>, token: &str) -> bool {
    values.any(|value| value.trim().eq_ignore_ascii_case(token))
}

/// Whether `key` is 16 bytes in base64: 22 digits and two signs of padding.
fn is_key(key: &str) -> bool {
    let is_digit = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'+' || byte == b'/';
    key.len() == 24 && key.ends_with("==") && key.as_bytes()[..22].iter().all(|&byte| is_digit(byte))
}

#[cfg(test)]
mod tests {
    use super::super::http::{HeadLimits, parse_head};
    use super::*;

    // RFC 6455 1.3
    const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
    const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

    #[test]
    fn a_request_and_its_answer() {
        let mut request = Vec::new();
        let extra = [("Origin", "http://x")];
        put_request(&mut request, "x:1", "/c?d", KEY, &["a", "b"], extra).unwrap();
        let head = parse_head(&request, &HeadLimits::default()).unwrap();
        let upgrade = check(&head).unwrap();
        assert_eq!((upgrade.key(), upgrade.origin()), (KEY, Some("http://x")));
        assert_eq!(upgrade.protocols().collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(upgrade.extensions().count(), 0);

        let mut answer = Vec::new();
        put_switching(&mut answer, upgrade.key(), Some("b"), [("X", &b"y\xFF"[..])]).unwrap();
        let text = String::from_utf8_lossy(&answer);
        assert!(text.starts_with("HTTP/1.1 101 Switching Protocols\r\n"), "{text}");
        assert!(text.contains(&format!("\r\nSec-WebSocket-Accept: {ACCEPT}\r\n")), "{text}");
        for short in 0..answer.len() {
            assert_eq!(check_response(&answer[..short], KEY, None), Ok(None));
        }
        let len = answer.len();
        answer.extend_from_slice(b"\x81\x00");
        let (handshake, consumed) = check_response(&answer, KEY, None).unwrap().unwrap();
        assert_eq!((consumed, handshake.protocol.as_deref()), (len, Some("b")));
        assert_eq!(handshake.headers.last(), Some(&("X".to_owned(), b"y\xFF".to_vec())), "values are bytes");
        assert_eq!(handshake.check_protocol(&["b"]), Ok(()));
        assert_eq!(handshake.check_protocol(&["c"]), Err(HandshakeError::Protocol));
    }

    #[test]
    fn keys() {
        assert_eq!(client_key(*b"the sample nonce"), KEY);
        assert_eq!(client_key([0xFF; 16]), "/////////////////////w==");
        assert!(is_key(KEY) && is_key(&client_key([0; 16])));
        for wrong in [
            "",
            "x",
            "dGhlIHNhbXBsZSBub25jZQ",
            "dGhlIHNhbXBsZSBub25jZ===",
            "dGhlIHNhbXBsZSBub25jZQAA==",
            "dGhlIHNhbXBsZSBub25j_Q==",
        ] {
            assert!(!is_key(wrong), "{wrong}");
        }
    }

    // RFC 6455 4.1: what the client MUST check.
    #[test]
    fn responses_that_are_no_handshake() {
        let good = format!(
            "HTTP/1.1 101 X\r\nUpgrade: WebSocket\r\nConnection: keep-alive, upgrade\r\nSec-WebSocket-Accept: {ACCEPT}\r\n\r\n"
        );
        assert!(check_response(good.as_bytes(), KEY, None).unwrap().is_some());
        for (from, to, want) in [
            ("101", "200", HandshakeError::Status(200)),
            ("WebSocket\r\n", "h2c\r\n", HandshakeError::Upgrade),
            (", upgrade", "", HandshakeError::Upgrade),
            ("s3p", "S3p", HandshakeError::Accept),
            ("\r\n\r\n", "\r\nSec-WebSocket-Extensions: x\r\n\r\n", HandshakeError::Extension),
            ("HTTP/1.1", "HTTQ/1.1", HandshakeError::Malformed),
            ("101", "004", HandshakeError::Malformed),
        ] {
            let bad = good.replace(from, to);
            assert_eq!(check_response(bad.as_bytes(), KEY, None), Err(want), "{bad}");
        }
        let huge = format!("HTTP/1.1 101 X\r\nA: {}", "x".repeat(RESPONSE_BYTES_MAX));
        assert_eq!(check_response(huge.as_bytes(), KEY, None), Err(HandshakeError::TooLarge));
    }

    // RFC 9110 15.2: a client MUST be able to parse 1xx before the final response.
    #[test]
    fn interim_responses_are_skipped() {
        let good = format!(
            "HTTP/1.1 101 X\r\nUpgrade: websocket\r\nConnection: upgrade\r\nSec-WebSocket-Accept: {ACCEPT}\r\n\r\n"
        );
        let one = "HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n";
        for interim in ["", "HTTP/1.1 100 Continue\r\n\r\n", one, &one.repeat(3), &one.repeat(INTERIM_RESPONSES_MAX)] {
            let all = [interim, &good, "\u{1}"].concat();
            for short in 0..interim.len() + good.len() {
                assert_eq!(check_final_response(&all.as_bytes()[..short], KEY, None), Ok(None), "{short} of {all}");
            }
            let (_, consumed) = check_final_response(all.as_bytes(), KEY, None).unwrap().unwrap();
            assert_eq!(consumed, all.len() - 1);
            let refused = [interim, "HTTP/1.1 403 No\r\n\r\n"].concat();
            assert_eq!(check_final_response(refused.as_bytes(), KEY, None), Err(HandshakeError::Status(403)));
            let none = [interim, "SSH-2.0"].concat();
            assert_eq!(check_final_response(none.as_bytes(), KEY, None), Err(HandshakeError::Malformed));
        }
        let many = one.repeat(INTERIM_RESPONSES_MAX + 1);
        assert_eq!(check_final_response(many.as_bytes(), KEY, None), Err(HandshakeError::TooLarge));
        let large = format!("HTTP/1.1 103 X\r\nA: {}\r\n\r\n", "x".repeat(6000)).repeat(3);
        assert_eq!(check_final_response(large.as_bytes(), KEY, None), Err(HandshakeError::TooLarge));
    }

    #[test]
    fn nothing_bad_is_written() {
        let mut out = Vec::new();
        assert_eq!(put_switching(&mut out, KEY, Some("a\r\nb"), []), Err(BadHeader));
        assert_eq!(put_request(&mut out, "x", "/a b", KEY, &[], []), Err(BadHeader));
        assert_eq!(put_request(&mut out, "x\n", "/", KEY, &[], []), Err(BadHeader));
        assert!(out.is_empty());
    }
}
