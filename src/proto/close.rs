//! Close frames (RFC 6455 5.5.1, 7.4): which codes may be on the wire, and the payload that carries them.

use super::{ProtocolError, frame::CONTROL_BYTES_MAX};

/// Most bytes of a close reason: a control frame's payload without the two of the code.
pub const REASON_BYTES_MAX: usize = CONTROL_BYTES_MAX - 2;

/// Whether `code` may be in a Close frame, sent or received (RFC 6455 7.4.1 and 7.4.2, and IANA's registry for
/// 1012-1014). 1004 is reserved; 1005, 1006 and 1015 are for reporting only.
pub fn is_legal(code: u16) -> bool {
    matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999)
}

/// The code must not be sent in a Close frame (RFC 6455 7.4).
///
/// ```
/// use ringwire::{IllegalCloseCode, Message, Socket};
///
/// fn hang_up(socket: &mut Socket, message: Message) -> Result<(), IllegalCloseCode> {
///     let code = message.as_text().and_then(|text| text.parse().ok()).unwrap_or(1000);
///     socket.close(code, "as you wish") // 1005, 1006 and others are never sent
/// }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0} is not a close code that may be sent")]
pub struct IllegalCloseCode(pub u16);

/// The code itself, if it may be sent.
///
/// # Errors
/// If [`is_legal`] denies it.
pub fn legal(code: u16) -> Result<u16, IllegalCloseCode> {
    if is_legal(code) { Ok(code) } else { Err(IllegalCloseCode(code)) }
}

/// Reads a Close frame's payload: its code, if it has one, and the reason.
///
/// # Errors
/// [`ProtocolError::ShortClose`] for one byte, [`ProtocolError::BadCloseCode`] for a code that [`is_legal`] denies,
/// [`ProtocolError::BadCloseReason`] for a reason that is not UTF-8.
pub fn parse(payload: &[u8]) -> Result<(Option<u16>, &str), ProtocolError> {
    match payload {
        [] => Ok((None, "")),
        // RFC 6455 5.5.1: if there is a body, its first two bytes MUST be the code.
        [_] => Err(ProtocolError::ShortClose),
        [high, low, reason @ ..] => {
            let code = u16::from_be_bytes([*high, *low]);
            if !is_legal(code) {
                return Err(ProtocolError::BadCloseCode);
            }
            match std::str::from_utf8(reason) {
                Ok(reason) => Ok((Some(code), reason)),
                Err(_) => Err(ProtocolError::BadCloseReason),
            }
        }
    }
}

/// A Close frame's payload, built in place.
#[derive(Clone, Copy, Debug)]
pub struct ClosePayload {
    bytes: [u8; CONTROL_BYTES_MAX],
    len: u8,
}

impl ClosePayload {
    /// The payload's bytes, at most 125.
    pub fn as_slice(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

/// A ping with more than 125 bytes of payload (RFC 6455 5.5).
///
/// ```
/// use ringwire::testing::TestServer;
/// use ringwire::{App, ws};
///
/// let route = || {
///     ws().on_message(|socket, message| match socket.ping(message.as_bytes()) {
///         Ok(_) => None,
///         Err(error) => Some(error.to_string()),
///     })
/// };
/// let server = TestServer::new(move || App::new().ws("/", route()));
/// let client = server.connect("/");
/// client.send("x".repeat(126));
/// client.expect_text("a ping has at most 125 bytes");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a ping has at most 125 bytes")]
pub struct PingTooLong;

/// The payload of a ping, if it may be one.
///
/// # Errors
/// If it has more than 125 bytes.
pub fn ping(payload: &[u8]) -> Result<&[u8], PingTooLong> {
    if payload.len() <= CONTROL_BYTES_MAX { Ok(payload) } else { Err(PingTooLong) }
}

/// Builds a Close frame's payload. Without a code it is empty and the reason is dropped; a reason over
/// [`REASON_BYTES_MAX`] bytes is cut at the last character that fits. The code is not checked: see [`is_legal`].
pub fn encode(code: Option<u16>, reason: &str) -> ClosePayload {
    let mut payload = ClosePayload { bytes: [0; CONTROL_BYTES_MAX], len: 0 };
    if let Some(code) = code {
        let reason = &reason.as_bytes()[..cut(reason)];
        payload.bytes[..2].copy_from_slice(&code.to_be_bytes());
        payload.bytes[2..2 + reason.len()].copy_from_slice(reason);
        payload.len = 2 + reason.len() as u8;
    }
    payload
}

/// How many bytes of `reason` fit into a Close frame, ending between two characters.
fn cut(reason: &str) -> usize {
    let mut len = reason.len().min(REASON_BYTES_MAX);
    while !reason.is_char_boundary(len) {
        len -= 1;
    }
    len
}

#[cfg(test)]
mod tests {
    use super::*;

    // RFC 6455 7.4
    #[test]
    fn legal_codes() {
        let legal: Vec<u16> = (0..=u16::MAX).filter(|&code| is_legal(code)).collect();
        let mut want = vec![1000, 1001, 1002, 1003];
        want.extend(1007..=1014);
        want.extend(3000..=4999);
        assert_eq!(legal, want);
    }

    // RFC 6455 5.5.1
    #[test]
    fn payloads() {
        assert_eq!(parse(b""), Ok((None, "")));
        assert_eq!(parse(b"\x03"), Err(ProtocolError::ShortClose));
        assert_eq!(parse(b"\x03\xE8"), Ok((Some(1000), "")));
        assert_eq!(parse("\u{3}\u{0}x".as_bytes()), Err(ProtocolError::BadCloseCode));
        assert_eq!(parse(b"\x03\xE8bye"), Ok((Some(1000), "bye")));
        assert_eq!(parse(b"\x03\xE8\xFF"), Err(ProtocolError::BadCloseReason));
        assert_eq!(parse(b"\x03\xED"), Err(ProtocolError::BadCloseCode));
        assert_eq!(ProtocolError::BadCloseReason.close_code(), 1007);
    }

    #[test]
    fn reasons_are_cut_between_characters() {
        for (reason, kept) in [
            ("x".repeat(123), 123),
            ("x".repeat(124), 123),
            ("é".repeat(62), 122),
            (format!("{}🦀", "x".repeat(119)), 123),
            (format!("{}🦀", "x".repeat(120)), 120),
            (format!("{}🦀", "x".repeat(122)), 122),
        ] {
            let payload = encode(Some(1001), &reason);
            assert_eq!(parse(payload.as_slice()), Ok((Some(1001), &reason[..kept])));
        }
        assert_eq!(encode(None, "dropped").as_slice(), b"");
    }
}
