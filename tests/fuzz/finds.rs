//! What the fuzzer has found, each with what was wrong.

use ringwire::proto::handshake::{HandshakeError, check_response};

const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

/// It was given to the user as a status that no type for one can hold (RFC 9110 15: from 100 on).
#[test]
fn an_answer_with_a_status_below_100_is_malformed() {
    for status in ["004", "099", "000"] {
        let answer = format!("HTTP/1.1 {status} X\r\n\r\n");
        assert_eq!(check_response(answer.as_bytes(), KEY, None), Err(HandshakeError::Malformed), "{status}");
    }
    assert_eq!(check_response(b"HTTP/1.1 100 X\r\n\r\n", KEY, None), Err(HandshakeError::Status(100)));
}
