//! The client's side of the opening handshake: what a server answers, and what is asked for.
//!
//! Input: the answer's bytes; the same bytes, as text, are also tried as parts of a request.

use ringwire::proto::handshake::{
    HandshakeError, RESPONSE_BYTES_MAX, check_final_response, check_response, interim_len, put_request,
};
use ringwire::proto::http::{HeadLimits, head_end, parse_head};

const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

pub fn run(data: &[u8]) {
    answer(data);
    ringwire::client::read_refusal(data);
    ask(&String::from_utf8_lossy(data));
}

fn answer(data: &[u8]) {
    let read = check_response(data, KEY, None);
    match &read {
        Ok(Some((handshake, len))) => {
            assert!(*len <= data.len().min(RESPONSE_BYTES_MAX));
            for short in 0..*len {
                assert_eq!(check_response(&data[..short], KEY, None), Ok(None), "decided before its end");
            }
            assert_eq!(check_response(&data[..*len], KEY, None), read, "what follows it changes it");
            let protocol = handshake.protocol.as_deref();
            assert_eq!(handshake.check_protocol(&[]).is_err(), protocol.is_some());
        }
        Ok(None) => assert!(data.len() < RESPONSE_BYTES_MAX),
        Err(HandshakeError::Status(status)) => assert!((100..1000).contains(status) && *status != 101),
        Err(_) => {}
    }
    // Interim responses before it change nothing but its place.
    const INTERIM: &[u8] = b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n";
    match interim_len(data) {
        Ok(0) => {
            let moved = check_final_response(&[INTERIM, data].concat(), KEY, None);
            assert_eq!(moved, read.map(|read| read.map(|(handshake, len)| (handshake, INTERIM.len() + len))));
        }
        Ok(len) => assert!(len <= data.len() && interim_len(&data[..len]) == Ok(len)),
        Err(error) => assert_eq!((error, data.len() > 200), (HandshakeError::TooLarge, true)),
    }
}

/// A request made of any text is refused, or it is read back as it was meant: nothing can be smuggled into it.
fn ask(text: &str) {
    let mut parts = text.splitn(5, '|');
    let mut part = || parts.next().unwrap_or_default();
    let (target, host, protocol, name, value) = (part(), part(), part(), part(), part());
    let protocols: &[&str] = if protocol.is_empty() { &[] } else { &[protocol] };
    let mut request = Vec::new();
    if put_request(&mut request, host, target, KEY, protocols, [(name, value)]).is_err() {
        assert!(request.is_empty(), "a refused request leaves nothing behind");
        return;
    }
    assert_eq!(head_end(&request, 0), Some(request.len()), "a request has one end");
    let limits = HeadLimits { bytes_max: usize::MAX, headers_max: 100 };
    // A target may be something that no parser takes; what it must not do is to become another request.
    let Ok(head) = parse_head(&request, &limits) else { return };
    assert_eq!((head.target(), head.all().len()), (target, 6 + protocols.len()));
    let last = head.all().last().expect("fields");
    assert_eq!((last.name, last.value), (name, value.trim_matches([' ', '\t']).as_bytes()));
}
