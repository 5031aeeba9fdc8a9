//! What a client writes, byte for byte, apart from the library so that it can judge it.

/// A good opening handshake's request.
pub(crate) fn request(path: &str, key: &str) -> Vec<u8> {
    request_with(path, key, None)
}

/// The same with an offer of extensions.
pub(crate) fn request_with(path: &str, key: &str, offer: Option<&str>) -> Vec<u8> {
    let extensions = offer.map_or_else(String::new, |offer| format!("Sec-WebSocket-Extensions: {offer}\r\n"));
    format!(
        "GET {path} HTTP/1.1\r\nHost: ringwire.test\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n{extensions}\r\n"
    )
    .into_bytes()
}

/// Appends a masked frame with this first byte, its length in its shortest form (RFC 6455 5.2).
pub(crate) fn put_frame(out: &mut Vec<u8>, first: u8, payload: &[u8], mask: [u8; 4]) {
    out.push(first);
    match payload.len() {
        len @ 0..=125 => out.push(0x80 | len as u8),
        len @ 126..=0xFFFF => {
            out.push(0x80 | 126);
            out.extend((len as u16).to_be_bytes());
        }
        len => {
            out.push(0x80 | 127);
            out.extend((len as u64).to_be_bytes());
        }
    }
    out.extend(mask);
    out.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
}
