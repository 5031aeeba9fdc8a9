//! The frame machine, in both roles, against tungstenite, and against itself on other pieces of the same stream.
//!
//! Input: a byte that chooses role and loans, the size of the pieces, then the stream.

use ringwire::proto::{Limits, Role};

use super::take;
use crate::protocol::oracle::compare;
use crate::protocol::run_with;

const SMALL: Limits = Limits { message_bytes_max: 500, fragments_max: 8 };

pub fn run(mut data: &[u8]) {
    let how = take(&mut data);
    let piece_bytes = usize::from(take(&mut data)).max(1);
    let role = if how & 1 == 0 { Role::Server } else { Role::Client };
    let lend = [None, Some(1), Some(100), None][usize::from(how >> 1 & 3)];
    compare(role, data, piece_bytes, lend);
    // The limit of fragments is ours alone: no judge but the stream in one piece.
    let pieces: Vec<&[u8]> = data.chunks(piece_bytes).collect();
    assert_eq!(run_with(role, SMALL, lend, &pieces), run_with(role, SMALL, None, &[data]), "cut by {piece_bytes}");
}
