//! Where NATS is, and how one shows who one is there.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use super::types::Malformed;

/// Servers of NATS, of one cluster: `nats://HOST:PORT` or `tls://HOST:PORT`, comma-separated. `USER:PASSWORD@` or `TOKEN@` may
/// stand before the host, percent-encoded, and `?creds=FILE` and `?ca=FILE` behind it, with `&` between them.
///
/// Never shown with what is secret in it.
///
/// ```
/// use ringwire::config::NatsUrls;
///
/// let urls: NatsUrls = "nats://user:secret@one.example:4222,tls://two.example?ca=/etc/ca.pem".parse().unwrap();
/// assert_eq!(urls.to_string(), "nats://one.example:4222,tls://two.example:4222");
/// assert!("http://one.example".parse::<NatsUrls>().is_err());
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct NatsUrls {
    text: String,
    urls: Vec<NatsUrl>,
}

/// One of them.
#[cfg_attr(not(feature = "nats"), allow(dead_code, reason = "it is only judged"))]
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct NatsUrl {
    pub(crate) tls: bool,
    /// Host and port.
    pub(crate) place: String,
    pub(crate) login: Option<Login>,
    pub(crate) creds: Option<PathBuf>,
    pub(crate) ca: Option<PathBuf>,
}

/// What is shown to the server.
#[cfg_attr(not(feature = "nats"), allow(dead_code, reason = "it is only judged"))]
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Login {
    Token(String),
    Password(String, String),
}

const PORT: &str = "4222";

impl NatsUrls {
    pub(super) fn reveal(&self) -> &str {
        &self.text
    }

    #[cfg(feature = "nats")]
    pub(crate) fn urls(&self) -> &[NatsUrl] {
        &self.urls
    }
}

impl FromStr for NatsUrls {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<NatsUrls, Malformed> {
        let urls = text.split(',').map(|url| parse(url.trim())).collect::<Option<Vec<_>>>().ok_or(Malformed)?;
        Ok(NatsUrls { text: String::from(text), urls })
    }
}

fn parse(url: &str) -> Option<NatsUrl> {
    let (scheme, rest) = url.split_once("://").unwrap_or(("nats", url));
    let tls = match scheme.to_ascii_lowercase().as_str() {
        "nats" => false,
        "tls" => true,
        _ => return None,
    };
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    let (login, place) = match rest.rsplit_once('@') {
        Some((login, place)) => (Some(login), place),
        None => (None, rest),
    };
    let login = match login.map(|login| login.split_once(':').ok_or(login)) {
        None => None,
        Some(Ok((user, password))) => Some(Login::Password(decoded(user)?, decoded(password)?)),
        Some(Err(token)) => Some(Login::Token(decoded(token)?)),
    };
    let is_bracketed = place.starts_with('[');
    let (host, port) = match place.rsplit_once(':') {
        Some((host, port)) if !is_bracketed || host.ends_with(']') => (host, port),
        _ => (place, PORT),
    };
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    let inner = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let is_address = inner.is_some_and(|inner| inner.parse::<std::net::Ipv6Addr>().is_ok());
    let is_host = !host.is_empty() && host.bytes().all(is_name) || is_address;
    let is_port = port.parse::<u16>().is_ok_and(|port| port > 0);
    let mut found = NatsUrl { tls, place: format!("{host}:{port}"), login, creds: None, ca: None };
    for part in query.split('&').filter(|part| !part.is_empty()) {
        let (name, file) = part.split_once('=').filter(|(_, file)| !file.is_empty())?;
        match name {
            "creds" => found.creds = Some(decoded(file)?.into()),
            "ca" => found.ca = Some(decoded(file)?.into()),
            _ => return None,
        }
    }
    (is_host && is_port).then_some(found)
}

fn decoded(text: &str) -> Option<String> {
    percent_encoding::percent_decode_str(text).decode_utf8().ok().filter(|text| !text.is_empty()).map(String::from)
}

impl fmt::Display for NatsUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", if self.tls { "tls" } else { "nats" }, self.place)
    }
}

impl fmt::Display for NatsUrls {
    /// Without what is secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, url) in self.urls.iter().enumerate() {
            write!(f, "{}{url}", if index > 0 { "," } else { "" })?;
        }
        Ok(())
    }
}

impl fmt::Debug for NatsUrls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NatsUrls({self})")
    }
}

/// What all subjects begin with: tokens of letters, digits, `-` and `_`, with dots between them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubjectPrefix(String);

impl FromStr for SubjectPrefix {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<SubjectPrefix, Malformed> {
        let is_token = |token: &str| {
            !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
        };
        let fits = text.len() <= 64 && text.split('.').all(is_token);
        fits.then(|| SubjectPrefix(String::from(text))).ok_or(Malformed)
    }
}

impl fmt::Display for SubjectPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A machine's name among the others'; random where none is given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeName(Option<String>);

impl NodeName {
    const RANDOM: &'static str = "random";

    /// The name, where one is given.
    pub fn given(&self) -> Option<&str> {
        self.0.as_deref()
    }
}

impl FromStr for NodeName {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<NodeName, Malformed> {
        if text == NodeName::RANDOM {
            return Ok(NodeName(None));
        }
        let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        let fits = (1..=64).contains(&text.len()) && text.bytes().all(is_name);
        fits.then(|| NodeName(Some(String::from(text)))).ok_or(Malformed)
    }
}

impl fmt::Display for NodeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.given().unwrap_or(NodeName::RANDOM))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls() {
        let one = |text: &str| text.parse::<NatsUrls>().ok().and_then(|urls| urls.urls.into_iter().next());
        let url = one("TLS://us%40er:p%3Ass@[::1]:4333/?creds=/a%2Cb&ca=c.pem").expect("a URL");
        assert!(url.tls && url.place == "[::1]:4333");
        assert!(url.login == Some(Login::Password("us@er".into(), "p:ss".into())));
        assert_eq!((url.creds, url.ca), (Some("/a,b".into()), Some("c.pem".into())));
        let url = one("token@localhost").expect("a URL");
        assert!(!url.tls && url.place == "localhost:4222" && url.login == Some(Login::Token("token".into())));
        assert_eq!(one("[::1]").expect("a URL").place, "[::1]:4222");
        for wrong in ["", "ws://a", "nats://", "a:0", "a:b", "nats://a,", "a?x=1", "a?ca=", "(set)", "a b", "[zz]", "["]
        {
            assert!(wrong.parse::<NatsUrls>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn secrets_are_not_shown() {
        let urls: NatsUrls = "nats://u:hush@a,hush@b".parse().expect("URLs");
        assert!(!format!("{urls} {urls:?}").contains("hush"));
    }

    #[test]
    fn prefixes_and_names() {
        for fine in ["ringwire", "a.b-c_D.1"] {
            assert!(fine.parse::<SubjectPrefix>().is_ok(), "{fine}");
        }
        for wrong in ["", ".", "a.", "a..b", "a b", "a.*", ">", "é"] {
            assert!(wrong.parse::<SubjectPrefix>().is_err(), "{wrong}");
        }
        assert_eq!("random".parse::<NodeName>().expect("a name").given(), None);
        assert_eq!("web-1.eu".parse::<NodeName>().expect("a name").given(), Some("web-1.eu"));
        assert!("a b".parse::<NodeName>().is_err() && "".parse::<NodeName>().is_err());
    }
}
