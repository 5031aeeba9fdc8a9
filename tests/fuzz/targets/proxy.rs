//! What proxies say of their clients: the header of the PROXY protocol, and the fields of a request.
//!
//! Input: a connection's first bytes; the same bytes, up to a line's end, as each of the fields.

use std::net::{IpAddr, SocketAddr};

use ringwire::proto::forwarded::{Told, client};
use ringwire::proto::http::{HeadLimits, parse_head};
use ringwire::proto::proxy::{HEADER_BYTES_MAX, ProxyError, Source, parse};

pub fn run(data: &[u8]) {
    header(data);
    fields(data);
}

/// However much of it has come, what is decided stays decided.
fn header(data: &[u8]) {
    let read = parse(data);
    if let Ok(Some((source, len))) = read {
        assert!(len <= data.len().min(HEADER_BYTES_MAX) && len >= 15);
        assert_eq!(parse(&data[..len]), read, "what follows it changes it");
        if let Source::Client(address) = source {
            is_somebody(address);
        }
    }
    let mut decided = None;
    for end in 0..=data.len().min(HEADER_BYTES_MAX + 1) {
        let now = parse(&data[..end]);
        match (decided, now) {
            (None, Ok(None)) => {}
            (None, _) => decided = Some(now),
            (Some(first), _) => assert_eq!(now, first, "decided before byte {end}"),
        }
    }
    match decided {
        Some(first) => assert_eq!(read, first),
        None => assert!(read == Ok(None) || read == Err(ProxyError::TooLong), "{read:?}"),
    }
}

fn is_somebody(address: SocketAddr) {
    assert!(!address.ip().is_unspecified() && address.ip() == address.ip().to_canonical());
}

fn fields(data: &[u8]) {
    let line = data.split(|byte| matches!(byte, b'\r' | b'\n')).next().unwrap_or_default();
    let told = |fields: &[(&str, &[u8])]| {
        let mut head = b"GET / HTTP/1.1\r\nHost: x\r\n".to_vec();
        for (name, value) in fields {
            head.extend([name.as_bytes(), b": ", value, b"\r\n"].concat());
        }
        head.extend(b"\r\n");
        let head = parse_head(&head, &HeadLimits::default()).ok()?;
        Some(client(&head, |ip| matches!(ip, IpAddr::V4(v4) if v4.octets()[0] == 10)))
    };
    for name in ["Forwarded", "X-Forwarded-For"] {
        let Some(alone) = told(&[(name, line)]) else { return };
        if let Told::Client(address) = alone {
            is_somebody(address);
        }
        // Whatever a client has written, the word of the proxy behind it is what counts: in a line of its own...
        let honest: &[u8] = if name == "Forwarded" { b"for=192.0.2.1" } else { b"192.0.2.1" };
        let client = Told::Client("192.0.2.1:0".parse().expect("an address"));
        assert_eq!(told(&[(name, line), (name, honest)]), Some(client));
        // ...and in the same, unless nothing of that can be read.
        let appended = told(&[(name, &[line, b", ", honest].concat())]).expect("a head");
        assert!(appended == client || (appended == Told::Unclear && name == "Forwarded"), "{name}: {appended:?}");
    }
    let real = told(&[("X-Real-IP", line)]).expect("a head, as before");
    let listed = told(&[("X-Forwarded-For", line)]);
    if !line.contains(&b',') && !line.trim_ascii().is_empty() {
        assert_eq!(Some(real), listed);
    }
}
