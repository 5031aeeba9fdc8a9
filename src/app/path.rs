//! Paths as they are compared: the same however their characters are percent-encoded (RFC 3986 6.2.2).

use std::borrow::Cow;

/// The path in its normal form: with the characters decoded that need not be encoded, and no others. Whoever compares it
/// with a path of his own is not deceived by `/%61dmin`.
pub(crate) fn normal(path: &str) -> Cow<'_, str> {
    // RFC 3986 2.3
    let is_unreserved = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    decode(path, is_unreserved).unwrap_or(Cow::Borrowed(path))
}

/// The path as routes are written: with all of its characters decoded, but for the slash, which would part segments, and the
/// percent sign, which would be decoded twice. And whether that is text; if it is not, only ASCII has been decoded.
pub(crate) fn for_routes(path: &str) -> (Cow<'_, str>, bool) {
    let is_plain = |byte: u8| !b"/%".contains(&byte);
    match decode(path, is_plain) {
        Some(decoded) => (decoded, true),
        None => (decode(path, |byte| byte.is_ascii() && is_plain(byte)).unwrap_or(Cow::Borrowed(path)), false),
    }
}

/// Decodes the bytes that `decodes` says; `None` if the result is not UTF-8.
fn decode(path: &str, decodes: impl Fn(u8) -> bool) -> Option<Cow<'_, str>> {
    if memchr::memchr(b'%', path.as_bytes()).is_none() {
        return Some(Cow::Borrowed(path));
    }
    let digit = |byte: u8| char::from(byte).to_digit(16).map(|value| value as u8);
    let mut decoded = Vec::with_capacity(path.len());
    let mut rest = path.as_bytes();
    while let [first, behind @ ..] = rest {
        let byte = match behind {
            [high, low, ..] if *first == b'%' => digit(*high).zip(digit(*low)).map(|(high, low)| high << 4 | low),
            _ => None,
        };
        match byte.filter(|byte| decodes(*byte)) {
            Some(byte) => {
                decoded.push(byte);
                rest = &behind[2..];
            }
            None => {
                decoded.push(*first);
                rest = behind;
            }
        }
    }
    String::from_utf8(decoded).ok().map(Cow::Owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths() {
        for (path, normal_form, of_routes, is_text) in [
            ("/a", "/a", "/a", true),
            ("/%61%2D%7e", "/a-~", "/a-~", true),
            ("/%2F%2f%25", "/%2F%2f%25", "/%2F%2f%25", true),
            ("/%2561", "/%2561", "/%2561", true),
            ("/a%20b%3F", "/a%20b%3F", "/a b?", true),
            ("/%C3%A9%61", "/%C3%A9a", "/\u{e9}a", true),
            ("/%FF%61%20", "/%FFa%20", "/%FFa ", false),
            ("/%", "/%", "/%", true),
            ("*", "*", "*", true),
        ] {
            assert_eq!(normal(path), normal_form, "{path}");
            assert_eq!(for_routes(path), (Cow::Borrowed(of_routes), is_text), "{path}");
        }
    }
}
