//! Payloads of Close frames: read, written, read again; and as a frame to the machine.
//!
//! Input: the payload.

use ringwire::proto::close::{REASON_BYTES_MAX, encode, is_legal, parse};
use ringwire::proto::{ProtocolError, Role};

use crate::protocol::{LIMITS, Seen, frame, run_with};

pub fn run(data: &[u8]) {
    let read = parse(data);
    match read {
        Ok((code, reason)) => {
            assert!(code.is_none_or(is_legal) && reason.len() + 2 * usize::from(code.is_some()) == data.len());
            assert!(parse(encode(code, reason).as_slice()).is_ok_and(|again| {
                again.0 == code
                    && reason.starts_with(again.1)
                    && again.1.len() + 3 >= reason.len().min(REASON_BYTES_MAX)
            }));
        }
        Err(error) => assert!(matches!(error.close_code(), 1002 | 1007)),
    }
    if data.len() <= 125 {
        let run = run_with(Role::Server, LIMITS, None, &[&frame(0x88, data)]);
        let want = match read {
            Ok((code, reason)) => Seen::Close(code, reason.to_owned()),
            Err(error) => Seen::Failed(error),
        };
        assert_eq!(run.seen, [want]);
        let answered = run.close_code().expect("every Close is answered");
        match read {
            // RFC 6455 5.5.1: the answer echoes the code.
            Ok((code, _)) => assert_eq!(answered, code),
            Err(ProtocolError::BadCloseReason) => assert_eq!(answered, Some(1007)),
            Err(_) => assert_eq!(answered, Some(1002)),
        }
    }
    // Any text is a reason, cut between two characters.
    let text = String::from_utf8_lossy(data);
    let payload = encode(Some(1000), &text);
    assert!(payload.as_slice().len() <= 125);
    let (_, cut) = parse(payload.as_slice()).expect("what is written can be read");
    assert!(text.starts_with(cut) && (cut.len() == text.len() || cut.len() + 3 >= REASON_BYTES_MAX));
}
