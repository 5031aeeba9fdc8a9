//! What proxies say in a request's fields of whoever they ask for: `Forwarded` (RFC 7239), `X-Forwarded-For`, `X-Real-IP`.
//!
//! Each proxy on the way adds the address that it was asked from, so the list is as good as its last entries: those before
//! the first that no trusted proxy has written are the client's own words. The client is the right-most address that is none
//! of a trusted proxy. (RFC 7239 8.1: only proxies that are known to be good can be believed.)
//!
//! A proxy that writes one of the three passes the other two on as the client sent them. So where there are several they must
//! say the same, or none of them is believed.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use super::http::RequestHead;

/// What the fields say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// Nothing: there are none of them.
    Nothing,
    /// That this is the client. The port is 0 where it is not told.
    Client(SocketAddr),
    /// Nothing that can be believed: they contradict each other, or are no addresses.
    Unclear,
}

/// Reads a request's fields that came from a trusted proxy, given which addresses are those of others.
pub fn client(head: &RequestHead<'_>, is_trusted: impl Fn(IpAddr) -> bool) -> Told {
    let (mut forwarded, mut listed, mut real) = (Way::default(), Way::default(), Way::default());
    for field in head.all() {
        match field.name.len() {
            9 if field.name.eq_ignore_ascii_case("forwarded") => forwarded.add_elements(field.value, &is_trusted),
            15 if field.name.eq_ignore_ascii_case("x-forwarded-for") => {
                for entry in field.value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
                    if !entry.is_empty() {
                        listed.add(node(entry), &is_trusted);
                    }
                }
            }
            // One alone: the address that the last proxy was asked from.
            9 if field.name.eq_ignore_ascii_case("x-real-ip") && real.is_there => real.fail(),
            9 if field.name.eq_ignore_ascii_case("x-real-ip") => real.add(node(field.value), &is_trusted),
            _ => {}
        }
    }
    let lists = [&forwarded, &listed];
    let mut told = lists.into_iter().filter(|way| way.is_there);
    let Some(first) = told.next() else {
        return match real.is_there {
            true => real.told(),
            false => Told::Nothing,
        };
    };
    let same_client = |other: &Way| match (first.told(), other.told()) {
        (Told::Client(first), Told::Client(other)) => first.ip() == other.ip(),
        (first, other) => first == other,
    };
    let all_agree = told.all(same_client);
    let last_agrees = !real.is_there || real.last == first.last;
    if all_agree && last_agrees { first.told() } else { Told::Unclear }
}

/// The way that one kind of field tells, from the client's end on.
#[derive(Default)]
struct Way {
    is_there: bool,
    /// The right-most address that is not trusted, of those so far. If there is none, the first after which all are trusted.
    client: Option<SocketAddr>,
    /// The last address.
    last: Option<IpAddr>,
}

impl Way {
    fn add(&mut self, node: Option<SocketAddr>, is_trusted: impl Fn(IpAddr) -> bool) {
        self.is_there = true;
        self.last = node.map(|address| address.ip());
        match node {
            // Nobody behind somebody unknown can be vouched for.
            None => self.client = None,
            Some(address) if self.client.is_none() || !is_trusted(address.ip()) => self.client = Some(address),
            Some(_) => {}
        }
    }

    /// Nothing that was said so far is good.
    fn fail(&mut self) {
        self.add(None, |_| false);
    }

    fn told(&self) -> Told {
        self.client.map_or(Told::Unclear, Told::Client)
    }

    /// RFC 7239 4: `for=192.0.2.60;proto=http, for="[2001:db8:cafe::17]:4711"`.
    fn add_elements(&mut self, mut value: &[u8], is_trusted: impl Fn(IpAddr) -> bool) {
        while !value.trim_ascii_start().is_empty() {
            match element(value) {
                // A quotation mark of the client's may have taken in what a proxy has added behind it: nothing of the
                // field is what it seems.
                None => return self.fail(),
                Some((Element::Empty, rest)) => value = rest,
                Some((Element::For(node), rest)) => {
                    self.add(node, &is_trusted);
                    value = rest;
                }
            }
        }
    }
}

enum Element {
    /// RFC 9110 5.6.1: a recipient must ignore empty elements of a list.
    Empty,
    For(Option<SocketAddr>),
}

/// The first element of a `Forwarded` field's value, and what follows its comma; `None` if it is malformed.
fn element(value: &[u8]) -> Option<(Element, &[u8])> {
    let mut rest = value;
    let (mut is_empty, mut found) = (true, None);
    loop {
        rest = rest.trim_ascii_start();
        match rest {
            [] => break,
            [b',', behind @ ..] => {
                rest = behind;
                break;
            }
            [b';', behind @ ..] => rest = behind,
            _ => {
                is_empty = false;
                let (name, text, behind) = pair(rest)?;
                if name.eq_ignore_ascii_case(b"for") {
                    // RFC 7239 4: each parameter MUST NOT occur more than once per element.
                    if found.is_some() {
                        return None;
                    }
                    found = Some(node(text));
                }
                rest = behind.trim_ascii_start();
                if !matches!(rest, [] | [b',' | b';', ..]) {
                    return None;
                }
            }
        }
    }
    Some((if is_empty { Element::Empty } else { Element::For(found.flatten()) }, rest))
}

/// A parameter's name and value, without quotation marks, and what follows.
fn pair(bytes: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let equals = bytes.iter().position(|byte| !byte.is_ascii_alphanumeric() && !b"!#$%&'*+-.^_`|~".contains(byte))?;
    let (name, rest) = bytes.split_at(equals);
    let rest = rest.strip_prefix(b"=")?;
    if name.is_empty() {
        return None;
    }
    match rest.strip_prefix(b"\"") {
        Some(quoted) => {
            let mut at = 0;
            // A value with escapes is no address, and only its end matters.
            while *quoted.get(at)? != b'"' {
                at += if quoted[at] == b'\\' { 2 } else { 1 };
            }
            Some((name, &quoted[..at], &quoted[at + 1..]))
        }
        // A token; addresses of IPv6 and ports must be quoted, and not everybody does.
        None => {
            let is_end = |byte: &u8| b",;\" \t".contains(byte);
            let (text, rest) = rest.split_at(rest.iter().position(is_end).unwrap_or(rest.len()));
            Some((name, text, rest))
        }
    }
}

/// An address, with or without a port: `192.0.2.43`, `192.0.2.43:47011`, `2001:db8::17`, `[2001:db8::17]:47011`. `None` for
/// what is none: `unknown`, or a name of a proxy's own (RFC 7239 6), and the address that nobody has.
fn node(bytes: &[u8]) -> Option<SocketAddr> {
    let text = std::str::from_utf8(bytes).ok()?;
    let (ip, port) = match text.strip_prefix('[') {
        Some(bracketed) => {
            let (ip, port) = bracketed.split_once(']')?;
            (IpAddr::V6(ip.parse::<Ipv6Addr>().ok()?), port.strip_prefix(':').or(port.is_empty().then_some("")))
        }
        None => match text.parse() {
            Ok(ip) => (ip, Some("")),
            Err(_) => {
                let (ip, port) = text.split_once(':')?;
                (IpAddr::V4(ip.parse().ok()?), Some(port))
            }
        },
    };
    // RFC 7239 6: a port may be hidden behind a name too.
    let port = match port? {
        "" => 0,
        name if name.starts_with('_') => 0,
        digits if digits.bytes().all(|byte| byte.is_ascii_digit()) => digits.parse().ok()?,
        _ => return None,
    };
    let ip = ip.to_canonical();
    (!ip.is_unspecified()).then_some(SocketAddr::new(ip, port))
}

#[cfg(test)]
mod tests {
    use super::super::http::{HeadLimits, parse_head};
    use super::*;

    fn told(fields: &str) -> Told {
        let head = format!("GET / HTTP/1.1\r\nHost: x\r\n{fields}\r\n");
        let head = parse_head(head.as_bytes(), &HeadLimits::default()).expect("a head");
        client(&head, |ip| ip.to_string().starts_with("10."))
    }

    #[track_caller]
    fn says(fields: &[&str], want: &str) {
        let fields: String = fields.iter().map(|field| format!("{field}\r\n")).collect();
        let want = match want {
            "" => Told::Nothing,
            "?" => Told::Unclear,
            text => Told::Client(text.parse().or_else(|_| format!("{text}:0").parse()).expect("an address")),
        };
        assert_eq!(told(&fields), want, "{fields}");
    }

    #[test]
    fn the_right_most_address_that_is_not_trusted_is_the_client() {
        for (value, want) in [
            ("192.0.2.1", "192.0.2.1"),
            ("192.0.2.1, 10.0.0.1, 10.0.0.2", "192.0.2.1"),
            // What is before it is the client's own word.
            ("203.0.113.9, 192.0.2.1, 10.0.0.2", "192.0.2.1"),
            ("10.0.0.9, 192.0.2.1", "192.0.2.1"),
            ("10.0.0.1, 10.0.0.2", "10.0.0.1"),
            ("192.0.2.1, unknown, 10.0.0.1, 10.0.0.2", "10.0.0.1"),
            ("192.0.2.1, unknown", "?"),
            ("unknown, 192.0.2.1", "192.0.2.1"),
            ("192.0.2.1,,10.0.0.1,", "192.0.2.1"),
            ("", ""),
            ("192.0.2.1:80", "192.0.2.1:80"),
            ("2001:db8::1", "[2001:db8::1]:0"),
            ("[2001:db8::1]", "[2001:db8::1]:0"),
            ("[2001:db8::1]:80", "[2001:db8::1]:80"),
            ("::ffff:192.0.2.1", "192.0.2.1"),
            ("::", "?"),
            ("0.0.0.0", "?"),
            ("[::ffff:0.0.0.0]", "?"),
            ("192.0.2.1:+80", "?"),
            ("192.0.2.1:65536", "?"),
            ("[2001:db8::1]x", "?"),
            ("2001:db8::1%eth0", "?"),
            ("192.0.2.01", "?"),
            ("evil.test", "?"),
        ] {
            says(&[&format!("X-Forwarded-For: {value}")], want);
        }
        // RFC 9110 5.2: several lines are one list.
        says(&["X-Forwarded-For: 192.0.2.1", "x-forwarded-for: 10.0.0.1"], "192.0.2.1");
        says(&["X-Real-IP: 192.0.2.1"], "192.0.2.1");
        says(&["X-Real-IP: 192.0.2.1", "X-Real-IP: 192.0.2.1"], "?");
        says(&["X-Real-IP: 192.0.2.1, 192.0.2.2"], "?");
        says(&["X-Forwarded-Proto: https", "Via: 1.1 x"], "");
    }

    /// RFC 7239 4, 5.2, 6, 7.1.
    #[test]
    fn forwarded() {
        for (value, want) in [
            ("for=192.0.2.60;proto=http;by=203.0.113.43", "192.0.2.60"),
            (r#"For="[2001:db8:cafe::17]:4711""#, "[2001:db8:cafe::17]:4711"),
            ("for=192.0.2.43, for=10.0.0.1;by=10.0.0.2", "192.0.2.43"),
            (r#"for=_gazonk"#, "?"),
            (r#"for="192.0.2.43:_port""#, "192.0.2.43"),
            (r#"host="a,b;for=1.2.3.4";for=192.0.2.1"#, "192.0.2.1"),
            (r#"host="a\",for=1.2.3.4";for=192.0.2.1"#, "192.0.2.1"),
            (";for=192.0.2.1;", "192.0.2.1"),
            (", for=192.0.2.1 ,", "192.0.2.1"),
            ("for=[2001:db8::1]:80", "[2001:db8::1]:80"),
            ("proto=https", "?"),
            ("for=192.0.2.1, proto=https", "?"),
            ("for=192.0.2.1;for=192.0.2.2", "?"),
            ("for", "?"),
            ("for=", "?"),
            ("=192.0.2.1", "?"),
            ("for =192.0.2.1", "?"),
            ("for=192.0.2.1 x", "?"),
            ("", ""),
        ] {
            says(&[&format!("Forwarded: {value}")], want);
        }
    }

    /// Kills: a client's open quotation mark that hides what the proxy has added, so that another of his words is believed.
    #[test]
    fn a_quotation_mark_hides_nothing() {
        for start in [r#"for=""#, r#"for="1.2.3.4"#, r#"for=1.2.3.4, for="x"#, r#"for=1.2.3.4;host=""#, r#"for="\"#] {
            says(&[&format!("Forwarded: {start}, for=192.0.2.1")], "?");
            says(&[&format!(r#"Forwarded: {start}, for="[2001:db8::1]:47011""#)], "?");
            says(&[&format!("Forwarded: {start}"), "Forwarded: for=192.0.2.1"], "192.0.2.1");
        }
    }

    /// A proxy that writes one kind passes on the others.
    #[test]
    fn fields_that_contradict_each_other_are_not_believed() {
        for (fields, want) in [
            (&["Forwarded: for=192.0.2.1", "X-Forwarded-For: 192.0.2.1"], "192.0.2.1"),
            (&["Forwarded: for=6.6.6.6", "X-Forwarded-For: 192.0.2.1"], "?"),
            (&["Forwarded: for=6.6.6.6, for=10.0.0.1", "X-Forwarded-For: 192.0.2.1, 10.0.0.1"], "?"),
            (&["Forwarded: for=unknown", "X-Forwarded-For: 192.0.2.1"], "?"),
            (&["X-Real-IP: 192.0.2.1", "X-Forwarded-For: 6.6.6.6"], "?"),
            (&["X-Real-IP: 6.6.6.6", "X-Forwarded-For: 192.0.2.1"], "?"),
            (&["X-Real-IP: 192.0.2.1", "X-Forwarded-For: 6.6.6.6, 192.0.2.1"], "192.0.2.1"),
            // The last proxy was asked by one that is trusted.
            (&["X-Real-IP: 10.0.0.1", "X-Forwarded-For: 192.0.2.1, 10.0.0.1"], "192.0.2.1"),
            (&["X-Real-IP: 10.0.0.1", "Forwarded: for=6.6.6.6"], "?"),
        ] {
            says(fields, want);
        }
    }
}
