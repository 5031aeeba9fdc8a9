//! The PROXY protocol, versions 1 and 2 (HAProxy's proxy-protocol.txt): what a proxy says, before anything else of a
//! connection, of whoever it speaks for.
//!
//! [`parse`] is asked as bytes arrive, with all that there are since the connection began. However they are cut, it decides
//! the same, and what is wrong is refused at its first wrong byte. A connection on which the header is expected and does not
//! come must not be served: a receiver does not guess (section 5).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use thiserror::Error;

/// Longest header, in bytes. Version 1 has at most 107; of version 2 the addresses have at most 216, and the rest is what
/// a proxy tells of its TLS, of which nothing is kept.
pub const HEADER_BYTES_MAX: usize = 4096;

/// Longest header of version 1, its line end included (section 2.1).
const V1_BYTES_MAX: usize = 107;
const V1_START: &[u8] = b"PROXY ";
/// How a header of version 2 begins (section 2.2).
const V2_START: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// The start, version and command, family, and length.
const V2_FIXED_BYTES: usize = 16;

/// Who is at the other end of a proxied connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// This client.
    Client(SocketAddr),
    /// The proxy does not say, or in a way that means nothing here: who has connected is all that is known.
    Unknown,
    /// The proxy itself, for its own purposes, such as asking whether anybody is there.
    Local,
}

/// Why bytes are no PROXY header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ProxyError {
    /// They begin in another way.
    #[error("there is no PROXY header")]
    Missing,
    /// They begin so, and do not go on as the protocol says.
    #[error("the PROXY header is malformed")]
    Malformed,
    /// Over [`HEADER_BYTES_MAX`], or a line without an end.
    #[error("the PROXY header is too long")]
    TooLong,
}

/// Reads the header at the start of a connection's bytes: who it names, and how long it is. `None` if more is to come.
///
/// # Errors
/// If the bytes are not, or will not become, a header.
///
/// ```
/// use ringwire::proto::proxy::{Source, parse};
///
/// let bytes = b"PROXY TCP4 192.0.2.7 198.51.100.1 56324 443\r\nGET / HTTP/1.1\r\n";
/// assert_eq!(parse(bytes), Ok(Some((Source::Client("192.0.2.7:56324".parse().unwrap()), 45))));
/// assert_eq!(parse(&bytes[..20]), Ok(None));
/// ```
pub fn parse(bytes: &[u8]) -> Result<Option<(Source, usize)>, ProxyError> {
    let begins_as = |start: &[u8]| {
        let len = start.len().min(bytes.len());
        bytes[..len] == start[..len]
    };
    if begins_as(V2_START) {
        parse_v2(bytes)
    } else if begins_as(V1_START) {
        parse_v1(bytes)
    } else {
        Err(ProxyError::Missing)
    }
}

// ---- version 1 ------------------------------------------------------------------------------------------------------

fn parse_v1(bytes: &[u8]) -> Result<Option<(Source, usize)>, ProxyError> {
    let start = &bytes[..bytes.len().min(V1_BYTES_MAX)];
    match memchr::memchr(b'\n', start) {
        None if start.len() == V1_BYTES_MAX => Err(ProxyError::TooLong),
        None => Ok(None),
        Some(end) => {
            let line = start[..end].strip_suffix(b"\r").ok_or(ProxyError::Malformed)?;
            let line = line.strip_prefix(V1_START).ok_or(ProxyError::Malformed)?;
            Ok(Some((source_v1(line)?, end + 1)))
        }
    }
}

/// What follows `PROXY `: `TCP4 SOURCE DESTINATION SOURCE-PORT DESTINATION-PORT`.
fn source_v1(line: &[u8]) -> Result<Source, ProxyError> {
    let text = std::str::from_utf8(line).map_err(|_| ProxyError::Malformed)?;
    let mut words = text.split(' ');
    match words.next() {
        // 2.1: the receiver must ignore anything presented before the CRLF.
        Some("UNKNOWN") => return Ok(Source::Unknown),
        Some("TCP4") => of_words::<Ipv4Addr>(words),
        Some("TCP6") => of_words::<Ipv6Addr>(words),
        _ => None,
    }
    .ok_or(ProxyError::Malformed)
}

fn of_words<'w, A: FromStr + Into<IpAddr>>(mut words: impl Iterator<Item = &'w str>) -> Option<Source> {
    let mut address = || words.next()?.parse::<A>().ok();
    let (source, _) = (address()?, address()?);
    let mut port = || number(words.next()?);
    let (source_port, _) = (port()?, port()?);
    words.next().is_none().then(|| source_of(source.into(), source_port))
}

/// A port as it must be written: without a sign, and without zeros before it.
fn number(text: &str) -> Option<u16> {
    let is_plain = text == "0" || !text.starts_with(['0', '+']);
    text.parse().ok().filter(|_| is_plain)
}

/// Nobody has the unspecified address.
fn source_of(ip: IpAddr, port: u16) -> Source {
    match ip.to_canonical() {
        ip if ip.is_unspecified() => Source::Unknown,
        ip => Source::Client(SocketAddr::new(ip, port)),
    }
}

// ---- version 2 ------------------------------------------------------------------------------------------------------

fn parse_v2(bytes: &[u8]) -> Result<Option<(Source, usize)>, ProxyError> {
    // 2.2: the receiver must check the version, and drop connections with a command that it does not know.
    let Some(&version_and_command) = bytes.get(12) else { return Ok(None) };
    let is_local = match version_and_command {
        0x20 => true,
        0x21 => false,
        _ => return Err(ProxyError::Malformed),
    };
    let Some(&family) = bytes.get(13) else { return Ok(None) };
    if family >> 4 > 3 || family & 0xf > 2 {
        return Err(ProxyError::Malformed);
    }
    let Some(fixed) = bytes.get(..V2_FIXED_BYTES) else { return Ok(None) };
    let len = V2_FIXED_BYTES + usize::from(u16::from_be_bytes([fixed[14], fixed[15]]));
    // Addresses of the two ends, and their ports.
    let addresses_len = match family {
        0x11 => 12,
        0x21 => 36,
        // Without an address, of datagrams, or of Unix sockets: as if it were not said (2.2).
        _ => 0,
    };
    if len > HEADER_BYTES_MAX {
        return Err(ProxyError::TooLong);
    }
    if !is_local && len < V2_FIXED_BYTES + addresses_len {
        return Err(ProxyError::Malformed);
    }
    let Some(rest) = bytes.get(V2_FIXED_BYTES..len) else { return Ok(None) };
    let port = |at: usize| u16::from_be_bytes([rest[at], rest[at + 1]]);
    let source = match family {
        // 2.2: what is said of a connection of the proxy's own is skipped.
        _ if is_local => Source::Local,
        0x11 => {
            let ip: [u8; 4] = rest[..4].try_into().expect("four bytes");
            source_of(IpAddr::from(ip), port(8))
        }
        0x21 => {
            let ip: [u8; 16] = rest[..16].try_into().expect("sixteen bytes");
            source_of(IpAddr::from(ip), port(32))
        }
        _ => Source::Unknown,
    };
    Ok(Some((source, len)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(text: &str) -> Source {
        Source::Client(text.parse().expect("an address"))
    }

    fn v2(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let len = (rest.len() as u16).to_be_bytes();
        [&V2_START[..], &[0x20 | command, family], &len, rest].concat()
    }

    const V4: &[u8] = &[192, 0, 2, 7, 198, 51, 100, 1, 0xdc, 4, 1, 187];

    #[test]
    fn version_1() {
        for (line, want) in [
            ("TCP4 192.0.2.7 198.51.100.1 56324 443", Ok(client("192.0.2.7:56324"))),
            ("TCP4 255.255.255.255 255.255.255.255 65535 65535", Ok(client("255.255.255.255:65535"))),
            ("TCP6 2001:db8::7 ::1 0 443", Ok(client("[2001:db8::7]:0"))),
            ("TCP6 ::ffff:192.0.2.7 ::1 1 443", Ok(client("192.0.2.7:1"))),
            (
                &format!("TCP6 {0} {0} 65535 65535", ["ffff"; 8].join(":")),
                Ok(client(&format!("[{}]:65535", ["ffff"; 8].join(":")))),
            ),
            ("TCP4 0.0.0.0 0.0.0.0 1 1", Ok(Source::Unknown)),
            ("UNKNOWN", Ok(Source::Unknown)),
            ("UNKNOWN ffff:: whatever \u{e9}", Ok(Source::Unknown)),
            ("UNKNOWNS", Err(ProxyError::Malformed)),
            ("", Err(ProxyError::Malformed)),
            ("tcp4 192.0.2.7 198.51.100.1 1 2", Err(ProxyError::Malformed)),
            ("UDP4 192.0.2.7 198.51.100.1 1 2", Err(ProxyError::Malformed)),
            ("TCP4 2001:db8::7 ::1 1 2", Err(ProxyError::Malformed)),
            ("TCP6 192.0.2.7 198.51.100.1 1 2", Err(ProxyError::Malformed)),
            ("TCP4 192.0.2.07 198.51.100.1 1 2", Err(ProxyError::Malformed)),
            ("TCP4 192.0.2.7 198.51.100.1 01 2", Err(ProxyError::Malformed)),
            ("TCP4 192.0.2.7 198.51.100.1 +1 2", Err(ProxyError::Malformed)),
            ("TCP4 192.0.2.7 198.51.100.1 1 65536", Err(ProxyError::Malformed)),
            ("TCP4 192.0.2.7 198.51.100.1 1", Err(ProxyError::Malformed)),
            ("TCP4 192.0.2.7 198.51.100.1 1 2 ", Err(ProxyError::Malformed)),
            ("TCP4  192.0.2.7 198.51.100.1 1 2", Err(ProxyError::Malformed)),
            ("TCP4 192.0.2.7 198.51.100.1 1 2\r", Err(ProxyError::Malformed)),
        ] {
            let bytes = format!("PROXY {line}\r\nGET");
            assert_eq!(parse(bytes.as_bytes()), want.map(|source| Some((source, bytes.len() - 3))), "{line}");
        }
        assert_eq!(parse(b"PROXY UNKNOWN\n"), Err(ProxyError::Malformed));
        let line = |len: usize| format!("PROXY UNKNOWN {}\r\n", "x".repeat(len - 16));
        assert_eq!(parse(line(107).as_bytes()), Ok(Some((Source::Unknown, 107))));
        assert_eq!(parse(line(108).as_bytes()), Err(ProxyError::TooLong));
    }

    #[test]
    fn version_2() {
        let mut v6 = Vec::from(Ipv6Addr::from_str("2001:db8::7").expect("an address").octets());
        v6.extend([0; 16]);
        v6.extend([0, 80, 1, 187]);
        let with_more = [V4, &[4, 0, 1, 0xff, 0x20, 0xff, 0xff]].concat();
        for (bytes, want) in [
            (v2(1, 0x11, V4), Ok(client("192.0.2.7:56324"))),
            (v2(1, 0x21, &v6), Ok(client("[2001:db8::7]:80"))),
            // What follows the addresses is skipped, whatever it is.
            (v2(1, 0x11, &with_more), Ok(client("192.0.2.7:56324"))),
            (v2(1, 0x11, &[0; 12]), Ok(Source::Unknown)),
            (v2(1, 0x21, &[0; 36]), Ok(Source::Unknown)),
            (v2(1, 0x00, b""), Ok(Source::Unknown)),
            (v2(1, 0x12, V4), Ok(Source::Unknown)),
            (v2(1, 0x31, &[b'/'; 216]), Ok(Source::Unknown)),
            (v2(0, 0x00, b""), Ok(Source::Local)),
            (v2(0, 0x11, V4), Ok(Source::Local)),
            (v2(0, 0x11, b"short"), Ok(Source::Local)),
            (v2(1, 0x11, &V4[..11]), Err(ProxyError::Malformed)),
            (v2(1, 0x21, &v6[..35]), Err(ProxyError::Malformed)),
            (v2(2, 0x11, V4), Err(ProxyError::Malformed)),
            (v2(1, 0x41, V4), Err(ProxyError::Malformed)),
            (v2(1, 0x13, V4), Err(ProxyError::Malformed)),
            (v2(1, 0x00, &[0; HEADER_BYTES_MAX - 16]), Ok(Source::Unknown)),
            (v2(1, 0x00, &[0; HEADER_BYTES_MAX - 15]), Err(ProxyError::TooLong)),
        ] {
            let followed = [&bytes[..], b"GET"].concat();
            assert_eq!(parse(&followed), want.map(|source| Some((source, bytes.len()))), "{}", bytes.escape_ascii());
        }
        let mut other_version = v2(1, 0x11, V4);
        other_version[12] = 0x11;
        assert_eq!(parse(&other_version), Err(ProxyError::Malformed));
    }

    #[test]
    fn what_is_no_header_is_refused_at_its_first_wrong_byte() {
        for (bytes, wrong_at) in [
            (&b"GET / HTTP/1.1\r\n"[..], 0),
            (b"PROXz", 4),
            (b"POST", 1),
            (b"\r\n\r\nGET", 4),
            (b"\r\n\r\n\0\r\nQUIT\r", 11),
            (b"\r\n\r\n\0\r\nQUIT\n\x31", 12),
            (b"\x16\x03\x01", 0),
        ] {
            assert_eq!(parse(&bytes[..wrong_at]), Ok(None), "{}", bytes.escape_ascii());
            assert!(parse(&bytes[..=wrong_at]).is_err(), "{}", bytes.escape_ascii());
        }
    }
}
