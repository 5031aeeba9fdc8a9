//! Writes HTTP/1.1 responses (RFC 9112 4), headers and body, into a byte buffer.

use thiserror::Error;

use super::http::is_token;
use super::http_date::HttpDate;

/// A header field that must not be written: its name is not a token, or its value has a line break or another control
/// character (RFC 9110 5.5), with which content of a message could pass for a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("invalid response header")]
pub struct BadHeader;

/// What a response says besides its own fields and its body.
#[derive(Clone, Copy, Debug)]
pub struct ResponseHead<'d> {
    /// The status: a final one, from 200 on.
    pub status: u16,
    /// When it is made (RFC 9110 6.6.1); not written where the response has a Date of its own.
    pub date: Option<&'d HttpDate>,
    /// Whether another request may follow on the connection.
    pub keep_alive: bool,
    /// Whether it answers HEAD: the length of the body is written, and not the body (RFC 9110 9.3.2).
    pub head_only: bool,
}

/// Appends a response. Content-Length and `Connection: close` or `keep-alive` are written here, from `body` and `head`;
/// of `headers`, Content-Length, Transfer-Encoding and a Connection of one of these two options are left out. Values are
/// bytes, and are written as they are.
///
/// # Errors
/// [`BadHeader`]; `out` is as it was.
pub fn put_response<'h>(
    out: &mut Vec<u8>,
    head: &ResponseHead<'_>,
    headers: impl IntoIterator<Item = (&'h str, &'h [u8])>,
    body: &[u8],
) -> Result<(), BadHeader> {
    let start = out.len();
    put_status(out, head.status);
    let connection: &[u8] = if head.keep_alive { b"connection: keep-alive\r\n" } else { b"connection: close\r\n" };
    out.extend_from_slice(connection);
    let mut is_dated = false;
    for (name, value) in headers {
        if is_framing(name, value) {
            continue;
        }
        is_dated |= name.eq_ignore_ascii_case("date");
        if let Err(error) = put_header(out, name, value) {
            out.truncate(start);
            return Err(error);
        }
    }
    if let (Some(date), false) = (head.date, is_dated) {
        out.extend_from_slice(b"date: ");
        out.extend_from_slice(date.as_bytes());
        out.extend_from_slice(b"\r\n");
    }
    // RFC 9110 8.6: no Content-Length in a 1xx or 204; RFC 9110 15.4.5: a 304 has no content; 15.3.6: nor has a 205, whose
    // length is told.
    let body = if head.status == 205 { &[] } else { body };
    let has_content = head.status >= 200 && head.status != 204 && head.status != 304;
    if has_content {
        out.extend_from_slice(b"content-length: ");
        put_number(out, body.len());
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(b"\r\n");
    if has_content && !head.head_only {
        out.extend_from_slice(body);
    }
    Ok(())
}

/// Whether a field is one that [`put_response`] writes itself.
fn is_framing(name: &str, value: &[u8]) -> bool {
    let is_end = |option: &[u8]| option.eq_ignore_ascii_case(b"close") || option.eq_ignore_ascii_case(b"keep-alive");
    match name.len() {
        14 => name.eq_ignore_ascii_case("content-length"),
        17 => name.eq_ignore_ascii_case("transfer-encoding"),
        10 => name.eq_ignore_ascii_case("connection") && is_end(value.trim_ascii()),
        _ => false,
    }
}

/// Appends `100 Continue` (RFC 9110 15.2.1).
pub fn put_continue(out: &mut Vec<u8>) {
    out.extend_from_slice(b"HTTP/1.1 100 Continue\r\n\r\n");
}

/// Appends a status line.
pub(super) fn put_status(out: &mut Vec<u8>, status: u16) {
    let reason =
        http::StatusCode::from_u16(status).ok().and_then(|status| status.canonical_reason()).unwrap_or_default();
    out.extend_from_slice(b"HTTP/1.1 ");
    put_number(out, usize::from(status));
    out.push(b' ');
    out.extend_from_slice(reason.as_bytes());
    out.extend_from_slice(b"\r\n");
}

/// Appends a header field's line, if it is harmless.
pub(super) fn put_header(out: &mut Vec<u8>, name: &str, value: &[u8]) -> Result<(), BadHeader> {
    let name_is_token = !name.is_empty() && name.bytes().all(is_token);
    let is_control = |byte: u8| (byte < b' ' && byte != b'\t') || byte == 0x7F;
    if !name_is_token || value.iter().copied().any(is_control) {
        return Err(BadHeader);
    }
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
    Ok(())
}

fn put_number(out: &mut Vec<u8>, number: usize) {
    let mut digits = [0; 20];
    let mut at = digits.len();
    let mut rest = number;
    loop {
        at -= 1;
        digits[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn response(status: u16, headers: &[(&str, &str)], body: &[u8], keep_alive: bool, head_only: bool) -> Vec<u8> {
        let mut out = Vec::new();
        let head = ResponseHead { status, date: None, keep_alive, head_only };
        put_response(&mut out, &head, headers.iter().map(|(name, value)| (*name, value.as_bytes())), body).unwrap();
        out
    }

    fn text(bytes: &[u8]) -> &str {
        std::str::from_utf8(bytes).unwrap()
    }

    #[test]
    fn responses() {
        let headers = [("content-type", "text/plain"), ("Content-Length", "99"), ("Connection", "close")];
        assert_eq!(
            text(&response(200, &headers, b"hi", true, false)),
            "HTTP/1.1 200 OK\r\nconnection: keep-alive\r\ncontent-type: text/plain\r\ncontent-length: 2\r\n\r\nhi"
        );
        assert_eq!(
            text(&response(404, &[("Connection", "Upgrade")], b"gone", false, true)),
            "HTTP/1.1 404 Not Found\r\nconnection: close\r\nConnection: Upgrade\r\ncontent-length: 4\r\n\r\n"
        );
        assert!(response(799, &[], b"", true, false).starts_with(b"HTTP/1.1 799 \r\n"));
    }

    // RFC 9110 8.6, 15.3.5, 15.3.6, 15.4.5
    #[test]
    fn some_have_no_content() {
        for (status, length) in [(204, ""), (304, ""), (205, "content-length: 0\r\n")] {
            let bytes = response(status, &[("content-length", "7")], b"content", true, false);
            let fields = text(&bytes).split_once("\r\n").unwrap().1;
            assert_eq!(fields, format!("connection: keep-alive\r\n{length}\r\n"), "{status}");
        }
    }

    // RFC 9110 6.6.1
    #[test]
    fn a_response_has_one_date() {
        let date = HttpDate::from_unix(784_111_777);
        let head = ResponseHead { status: 200, date: Some(&date), keep_alive: true, head_only: false };
        let written = |headers: &[(&str, &[u8])]| {
            let mut out = Vec::new();
            put_response(&mut out, &head, headers.iter().copied(), b"").unwrap();
            String::from_utf8(out).unwrap()
        };
        assert!(written(&[]).contains("\r\ndate: Sun, 06 Nov 1994 08:49:37 GMT\r\n"));
        let own = written(&[("Date", b"Mon, 07 Nov 1994 00:00:00 GMT")]);
        assert!(own.contains("\r\nDate: Mon, 07 ") && !own.contains("Sun"), "{own}");
    }

    // RFC 9110 5.5: obs-text, and what must not be sent.
    #[test]
    fn values_are_bytes() {
        let all: Vec<u8> = (0..=255).filter(|byte| (*byte >= b' ' && *byte != 0x7F) || *byte == b'\t').collect();
        let mut out = Vec::new();
        put_header(&mut out, "x", &all).unwrap();
        assert_eq!(out, [b"x: ", &all[..], b"\r\n"].concat());
        for byte in (0..b' ').filter(|byte| *byte != b'\t').chain([0x7F]) {
            let mut out = b"before".to_vec();
            assert_eq!(put_header(&mut out, "x", &[b'a', byte, b'b']), Err(BadHeader), "{byte}");
            assert_eq!(out, b"before");
        }
    }

    #[test]
    fn header_injection_is_refused() {
        let head = ResponseHead { status: 200, date: None, keep_alive: true, head_only: false };
        for (name, value) in [
            ("x", &b"a\r\nSet-Cookie: b"[..]),
            ("x", b"a\nb"),
            ("x", b"a\0"),
            ("x\r\ny", b"a"),
            ("", b"a"),
            ("x y", b"a"),
            ("x:", b"a"),
            ("x", b"\x7F"),
        ] {
            let mut out = b"before".to_vec();
            assert_eq!(put_response(&mut out, &head, [("fine", &b"yes"[..]), (name, value)], b""), Err(BadHeader));
            assert_eq!(out, b"before");
        }
    }
}
