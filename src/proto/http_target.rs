//! Request targets (RFC 9112 3.2): which form one has, and what it says of authority, path and query.

/// Why a target is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TargetError {
    /// None of the forms, or not that of its method.
    Malformed,
    /// CONNECT, which only a proxy has a use for.
    Connect,
}

/// A request target, taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Target<'b> {
    /// What the absolute form names in place of the Host field (RFC 9112 3.2.2).
    pub(super) authority: Option<&'b str>,
    /// Never empty; `*` is the whole server.
    pub(super) path: &'b str,
    /// Without its question mark.
    pub(super) query: Option<&'b str>,
}

impl<'b> Target<'b> {
    /// # Errors
    /// See [`TargetError`].
    pub(super) fn parse(method: &str, target: &'b str) -> Result<Target<'b>, TargetError> {
        // RFC 9112 3.2.3: the authority form is CONNECT's, and CONNECT has no other.
        if method == "CONNECT" {
            let is_authority = is_authority(target.as_bytes()) && target.contains(':');
            return Err(if is_authority { TargetError::Connect } else { TargetError::Malformed });
        }
        if target == "*" {
            return Ok(Target { authority: None, path: target, query: None });
        }
        // RFC 9110 7.1: the target has no fragment.
        if memchr::memchr(b'#', target.as_bytes()).is_some() {
            return Err(TargetError::Malformed);
        }
        let (authority, rest) = match target.strip_prefix('/') {
            Some(_) => (None, target),
            None => absolute(target)?,
        };
        let (path, query) = match memchr::memchr(b'?', rest.as_bytes()) {
            Some(at) => (&rest[..at], Some(&rest[at + 1..])),
            None => (rest, None),
        };
        if !is_escaped_well(path.as_bytes()) {
            return Err(TargetError::Malformed);
        }
        // RFC 9110 4.2.3: an empty path is the same as "/".
        Ok(Target { authority, path: if path.is_empty() { "/" } else { path }, query })
    }
}

/// The authority of the absolute form, and what is behind it.
fn absolute(target: &str) -> Result<(Option<&str>, &str), TargetError> {
    let (scheme, rest) = target.split_once("://").ok_or(TargetError::Malformed)?;
    if !["http", "https", "ws", "wss"].iter().any(|known| scheme.eq_ignore_ascii_case(known)) {
        return Err(TargetError::Malformed);
    }
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, rest) = rest.split_at(end);
    // RFC 9110 4.2.1: an empty host is invalid; 4.2.4: user information is an error.
    if !is_authority(authority.as_bytes()) {
        return Err(TargetError::Malformed);
    }
    Ok((Some(authority), rest))
}

fn is_authority(value: &[u8]) -> bool {
    is_host(value) && !matches!(value, [] | [b':', ..])
}

/// Whether this is `uri-host [ ":" port ]` (RFC 9110 7.2), or nothing: what a target without an authority has.
pub(super) fn is_host(value: &[u8]) -> bool {
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
            name.iter().all(is_name) && is_escaped_well(name) && is_port(rest)
        }
    }
}

/// Whether each percent sign has its two digits (RFC 3986 2.1).
fn is_escaped_well(text: &[u8]) -> bool {
    let is_escape = |at: usize| text.get(at + 1..at + 3).is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit));
    memchr::memchr_iter(b'%', text).all(is_escape)
}

#[cfg(test)]
mod tests {
    use super::*;

    // RFC 9112 3.2
    #[test]
    fn forms() {
        for (target, authority, path, query) in [
            ("/", None, "/", None),
            ("/a/b?c?d", None, "/a/b", Some("c?d")),
            ("//x/y", None, "//x/y", None),
            ("/http://x/", None, "/http://x/", None),
            ("/a?http://x/", None, "/a", Some("http://x/")),
            ("/%41%2f?%", None, "/%41%2f", Some("%")),
            ("*", None, "*", None),
            ("http://x", Some("x"), "/", None),
            ("HTTP://X:80/", Some("X:80"), "/", None),
            ("http://x?q=/", Some("x"), "/", Some("q=/")),
            ("https://[::1]:9/a?", Some("[::1]:9"), "/a", Some("")),
            ("ws://127.0.0.1:/echo", Some("127.0.0.1:"), "/echo", None),
        ] {
            assert_eq!(Target::parse("GET", target), Ok(Target { authority, path, query }), "{target}");
        }
    }

    #[test]
    fn no_forms() {
        for target in [
            "",
            "x",
            "x/y",
            "?q",
            "x:80",
            "http:/x",
            "http:x",
            "http://",
            "http:///x",
            "http://?q",
            "http://:80/",
            "http://me@x/",
            "http://me:secret@x/",
            "http://x:y/",
            "http://a b/",
            "http://[::1/",
            "http://x%/",
            "ftp://x/",
            "://x/",
            "/#",
            "/a#b",
            "http://x#y",
            "http://x/#",
            "/%",
            "/%4",
            "/%4g",
            "/%%41",
            "/a/%zz/b",
            "http://x/%",
            "**",
            "*?",
        ] {
            assert_eq!(Target::parse("GET", target), Err(TargetError::Malformed), "{target}");
        }
        for (target, error) in [
            ("x:80", TargetError::Connect),
            ("[::1]:80", TargetError::Connect),
            ("/x", TargetError::Malformed),
            ("*", TargetError::Malformed),
            ("http://x/", TargetError::Malformed),
            ("x", TargetError::Malformed),
        ] {
            assert_eq!(Target::parse("CONNECT", target), Err(error), "{target}");
        }
    }
}
