//! Origins of pages (RFC 6454), and which of them may open a socket.

use std::fmt;
use std::net::Ipv6Addr;
use std::str::FromStr;

use super::types::Malformed;

/// Which pages may open a socket: the browser tells their origin (RFC 6454), and other clients mostly none.
///
/// ```
/// use ringwire::config::Origins;
///
/// let ours: Origins = "https://example.org, http://localhost:3000".parse().unwrap();
/// assert_eq!(ours.to_string(), "https://example.org,http://localhost:3000");
/// assert_eq!("*".parse(), Ok(Origins::Any));
/// assert!("wss://example.org".parse::<Origins>().is_err(), "no page has that");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origins {
    /// All of them.
    Any,
    /// Only these, such as `https://example.org`. Case and the scheme's own port are of no account.
    List(Vec<String>),
}

impl Origins {
    /// Whether a request with this `Origin` field is let in. One without the field is no browser's and passes.
    ///
    /// ```
    /// use ringwire::config::Origins;
    ///
    /// let ours: Origins = "https://example.org".parse().unwrap();
    /// assert!(ours.allow(Some("https://EXAMPLE.org:443")));
    /// assert!(!ours.allow(Some("http://example.org")));
    /// assert!(ours.allow(None), "no browser");
    /// ```
    pub fn allow(&self, origin: Option<&str>) -> bool {
        match (self, origin) {
            (Origins::Any, _) | (_, None) => true,
            (Origins::List(list), Some(origin)) => {
                // What is not an origin is the same as nothing, itself included.
                let parsed = Origin::parse(origin);
                parsed.is_some() && list.iter().any(|allowed| Origin::parse(allowed) == parsed)
            }
        }
    }
}

impl FromStr for Origins {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        if text == "*" {
            return Ok(Origins::Any);
        }
        let origin = |part: &str| {
            // As it is copied from a browser's address bar.
            let part = part.trim();
            let part = part.strip_suffix('/').unwrap_or(part);
            Origin::parse(part).filter(|origin| !origin.is_of_sockets()).map(|origin| origin.to_string())
        };
        text.split(',').map(origin).collect::<Option<_>>().map(Origins::List).ok_or(Malformed)
    }
}

impl fmt::Display for Origins {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origins::Any => f.write_str("*"),
            Origins::List(list) => f.write_str(&list.join(",")),
        }
    }
}

/// An origin (RFC 6454 4, 6.2), taken apart so that each is equal to itself however it is written.
#[derive(Clone, Copy, Debug)]
enum Origin<'o> {
    /// That of a page which has none, such as a file.
    Null,
    Of {
        scheme: &'o str,
        host: Host<'o>,
        /// `None` is the scheme's own.
        port: Option<u16>,
    },
}

/// The host of an origin.
#[derive(Clone, Copy, Debug)]
enum Host<'o> {
    Name(&'o str),
    V6(Ipv6Addr),
}

impl<'o> Origin<'o> {
    /// `None` for what is not one.
    fn parse(text: &'o str) -> Option<Origin<'o>> {
        if text.eq_ignore_ascii_case("null") {
            return Some(Origin::Null);
        }
        let (scheme, authority) = text.split_once("://")?;
        let is_scheme = |byte: u8| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte);
        if !scheme.starts_with(|first: char| first.is_ascii_alphabetic()) || !scheme.bytes().all(is_scheme) {
            return None;
        }
        let (host, port) = Host::with_port(authority)?;
        Some(Origin::Of { scheme, host, port: port.filter(|port| Some(*port) != default_port(scheme)) })
    }

    fn is_of_sockets(&self) -> bool {
        matches!(self, Origin::Of { scheme, .. } if ["ws", "wss"].iter().any(|own| scheme.eq_ignore_ascii_case(own)))
    }
}

impl<'o> Host<'o> {
    /// Takes `host [ ":" port ]` apart; `None` for what is not that.
    fn with_port(text: &'o str) -> Option<(Host<'o>, Option<u16>)> {
        let (host, rest) = match text.strip_prefix('[') {
            Some(bracketed) => {
                let (address, rest) = bracketed.split_once(']')?;
                (Host::V6(address.parse().ok()?), rest)
            }
            None => {
                let (name, rest) = text.split_at(text.find(':').unwrap_or(text.len()));
                let is_name = |byte: u8| byte.is_ascii_graphic() && !b"/?#@*[]\\\"<>^`{|},".contains(&byte);
                if name.is_empty() || !name.bytes().all(is_name) {
                    return None;
                }
                (Host::Name(name), rest)
            }
        };
        let port = match rest.strip_prefix(':') {
            Some(digits) if !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()) => {
                Some(digits.parse().ok()?)
            }
            None if rest.is_empty() => None,
            _ => return None,
        };
        Some((host, port))
    }
}

fn default_port(scheme: &str) -> Option<u16> {
    match scheme {
        _ if scheme.eq_ignore_ascii_case("http") => Some(80),
        _ if scheme.eq_ignore_ascii_case("https") => Some(443),
        _ => None,
    }
}

impl PartialEq for Origin<'_> {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Origin::Null, Origin::Null) => true,
            (Origin::Of { scheme: a, host: of, port: p }, Origin::Of { scheme: b, host: by, port: q }) => {
                a.eq_ignore_ascii_case(b) && of == by && p == q
            }
            _ => false,
        }
    }
}

impl PartialEq for Host<'_> {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Host::Name(a), Host::Name(b)) => a.eq_ignore_ascii_case(b),
            (Host::V6(a), Host::V6(b)) => a == b,
            _ => false,
        }
    }
}

/// As browsers write it.
impl fmt::Display for Origin<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Origin::Of { scheme, host, port } = self else { return f.write_str("null") };
        write!(f, "{}://", scheme.to_ascii_lowercase())?;
        match host {
            Host::Name(name) => f.write_str(&name.to_ascii_lowercase())?,
            Host::V6(address) => write!(f, "[{address}]")?,
        }
        port.map_or(Ok(()), |port| write!(f, ":{port}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins() {
        let some: Origins = "https://Example.org, http://localhost:3000,null".parse().expect("a list");
        assert_eq!(some.to_string(), "https://example.org,http://localhost:3000,null");
        assert!(some.allow(Some("https://example.org")));
        assert!(some.allow(Some("HTTPS://EXAMPLE.ORG")));
        assert!(some.allow(Some("null")));
        assert!(some.allow(None));
        assert!(!some.allow(Some("http://example.org")));
        assert!(!some.allow(Some("https://example.org.evil.test")));
        assert!(Origins::Any.allow(Some("https://anything.test")));
    }

    /// What is set, what a browser sends, and whether they are the same.
    #[test]
    fn origins_are_the_same_however_they_are_written() {
        for (set, sent, want) in [
            ("https://x:443", "https://x", true),
            ("https://x", "https://x:443", true),
            ("http://x:80", "http://x", true),
            ("https://x/", "https://x", true),
            ("https://x:443/", "https://x", true),
            ("HTTPS://X:443", "https://x", true),
            ("http://[::1]:80", "http://[::1]", true),
            ("http://[0:0::1]:8080", "http://[::1]:8080", true),
            ("http://[2001:DB8::A]", "http://[2001:db8::a]", true),
            ("NULL", "null", true),
            ("chrome-extension://abc", "chrome-extension://abc", true),
            ("https://x:80", "https://x", false),
            ("http://x:443", "http://x", false),
            ("https://x:4430", "https://x", false),
            ("http://x", "https://x", false),
            ("https://x", "https://x.", false),
            ("https://x", "https://x/", false),
            ("https://x", "https://y@x", false),
            ("https://x", "https://x:", false),
            ("https://x", "https://x https://y", false),
            ("https://x", "https://x, https://y", false),
            ("https://x", "", false),
            ("https://x", "null", false),
            ("null", "", false),
        ] {
            let set: Origins = set.parse().unwrap_or_else(|_| panic!("{set}"));
            assert_eq!(set.allow(Some(sent)), want, "{set} and {sent:?}");
            assert_eq!(set.to_string().parse(), Ok(set.clone()), "{set}");
        }
        // A list that was not parsed is compared in the same way.
        assert!(Origins::List(vec!["HTTPS://X:443".into()]).allow(Some("https://x")));
        assert!(!Origins::List(vec!["nonsense".into()]).allow(Some("nonsense")));
    }

    #[test]
    fn what_is_no_origin() {
        for text in [
            "",
            "example.org",
            "https://",
            "https://a/b",
            "https://a,",
            "https://a//",
            "ws://a",
            "WSS://a",
            "https://a?b",
            "https://a#b",
            "https://u@a",
            "https://*.a",
            "https://a:",
            "https://a:x",
            "https://a:65536",
            "https://:443",
            "https://[::1",
            "https://[x]",
            "https://[]",
            "https://::1",
            "://a",
            "1://a",
            "a b://c",
            "https://a b",
            "*,https://a",
        ] {
            assert_eq!(text.parse::<Origins>(), Err(Malformed), "{text:?}");
        }
    }
}
