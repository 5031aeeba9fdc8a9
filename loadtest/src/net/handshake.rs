//! The opening handshake.

use ringwire::proto::{
    extensions::Agreed,
    handshake::{HandshakeError, check_final_response, client_key},
};

use crate::{net::line::Line, target::Target};

pub(super) fn handshake_key(bits: u64) -> String {
    let mut random = [0; 16];
    random[..8].copy_from_slice(&bits.to_le_bytes());
    random[8..].copy_from_slice(&bits.rotate_left(29).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes());
    client_key(random)
}

/// How many bytes of `data` end the handshake, and what is agreed of compression; `None`: it has not ended.
pub(super) fn shake_hands(
    line: &mut Line,
    data: &[u8],
    target: &Target,
) -> Result<Option<(usize, Option<Agreed>)>, HandshakeError> {
    let key = handshake_key(line.key);
    let before = line.head.len();
    let checked = if before == 0 {
        check_final_response(data, &key, target.offer)?
    } else {
        line.head.extend_from_slice(data);
        check_final_response(&line.head, &key, target.offer)?
    };
    let Some((handshake, len)) = checked else {
        if before == 0 {
            line.head.extend_from_slice(data);
        }
        return Ok(None);
    };
    let offered: Vec<&str> = target.protocols.iter().map(String::as_str).collect();
    handshake.check_protocol(&offered)?;
    Ok(Some((len - before, handshake.deflate)))
}
