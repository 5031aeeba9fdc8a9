//! Writes HTTP/1.1 responses (RFC 9112 4), headers and body, into a byte buffer.

use thiserror::Error;

use super::http::is_token;

/// A header field that must not be written: its name is not a token, or its value has a line break or another control
/// character (RFC 9110 5.5), with which content of a message could pass for a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("invalid response header")]
pub struct BadHeader;

/// Appends a response. Content-Length and `Connection: close` or `keep-alive` are written here, from `body` and
/// `keep_alive`; Content-Length and Transfer-Encoding among `headers` are left out. With `head_only` (the answer to HEAD)
/// the body is not written, but its length is.
///
/// # Errors
/// [`BadHeader`]; `out` is as it was.
pub fn put_response<'h>(
    out: &mut Vec<u8>,
    status: u16,
    headers: impl IntoIterator<Item = (&'h str, &'h str)>,
    body: &[u8],
    keep_alive: bool,
    head_only: bool,
) -> Result<(), BadHeader> {
    let start = out.len();
    put_status(out, status);
    for (name, value) in headers {
        let framing = ["content-length", "transfer-encoding"];
        if framing.iter().any(|framing| name.eq_ignore_ascii_case(framing)) {
            continue;
        }
        if let Err(error) = put_header(out, name, value) {
            out.truncate(start);
            return Err(error);
        }
    }
    // RFC 9110 8.6: no Content-Length in a 1xx or 204; RFC 9110 15.4.5: a 304 has no content.
    let has_content = status >= 200 && status != 204 && status != 304;
    if has_content {
        out.extend_from_slice(b"content-length: ");
        put_number(out, body.len());
        out.extend_from_slice(b"\r\n");
    }
    let connection: &[u8] = if keep_alive { b"connection: keep-alive\r\n\r\n" } else { b"connection: close\r\n\r\n" };
    out.extend_from_slice(connection);
    if has_content && !head_only {
        out.extend_from_slice(body);
    }
    Ok(())
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
pub(super) fn put_header(out: &mut Vec<u8>, name: &str, value: &str) -> Result<(), BadHeader> {
    let name_is_token = !name.is_empty() && name.bytes().all(is_token);
    let is_control = |byte: u8| (byte < b' ' && byte != b'\t') || byte == 0x7F;
    if !name_is_token || value.bytes().any(is_control) {
        return Err(BadHeader);
    }
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(value.as_bytes());
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

    fn response(status: u16, headers: &[(&str, &str)], body: &[u8], keep: bool, head: bool) -> String {
        let mut out = Vec::new();
        put_response(&mut out, status, headers.iter().copied(), body, keep, head).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn responses() {
        assert_eq!(
            response(200, &[("content-type", "text/plain"), ("Content-Length", "99")], b"hi", true, false),
            "HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 2\r\nconnection: keep-alive\r\n\r\nhi"
        );
        assert_eq!(
            response(404, &[], b"gone", false, true),
            "HTTP/1.1 404 Not Found\r\ncontent-length: 4\r\nconnection: close\r\n\r\n"
        );
        assert_eq!(response(204, &[], b"", true, false), "HTTP/1.1 204 No Content\r\nconnection: keep-alive\r\n\r\n");
        assert!(response(799, &[], b"", true, false).starts_with("HTTP/1.1 799 \r\n"));
    }

    #[test]
    fn header_injection_is_refused() {
        for (name, value) in [
            ("x", "a\r\nSet-Cookie: b"),
            ("x", "a\nb"),
            ("x", "a\0"),
            ("x\r\ny", "a"),
            ("", "a"),
            ("x y", "a"),
            ("x:", "a"),
            ("x", "\x7F"),
        ] {
            let mut out = b"before".to_vec();
            assert_eq!(put_response(&mut out, 200, [(name, value)], b"", true, false), Err(BadHeader));
            assert_eq!(out, b"before");
        }
    }
}
