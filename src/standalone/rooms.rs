//! What clients may call a room. What it is called in the hub is another matter: each route has a prefix of its own, which
//! takes nothing away from the name.

pub(super) use crate::hub::ROOM_NAME_BYTES_MAX as NAME_BYTES_MAX;

/// Whether clients may call a room so.
///
/// # Errors
/// Why not.
pub(super) fn check(room: &str) -> Result<(), String> {
    match room.len() {
        0 => Err(String::from("a room has a name")),
        1..=NAME_BYTES_MAX => Ok(()),
        _ => Err(format!("a room's name has at most {NAME_BYTES_MAX} bytes")),
    }
}
