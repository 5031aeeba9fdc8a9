//! The incremental validator against std's.
//!
//! Input: the sizes of the first pieces and of the others, then the bytes.

use ringwire::proto::utf8::{Utf8, is_valid};

use super::take;

pub fn run(mut data: &[u8]) {
    let first = usize::from(take(&mut data) & 15);
    let other = usize::from(take(&mut data)).max(1);
    assert_eq!(is_valid(data), std::str::from_utf8(data).is_ok());
    let (head, tail) = data.split_at(first.min(data.len()));
    let mut utf8 = Utf8::new();
    let mut end = 0;
    for piece in std::iter::once(head).chain(tail.chunks(other)) {
        end += piece.len();
        let so_far = std::str::from_utf8(&data[..end]);
        // As early as it is certain (RFC 6455 8.1), and no earlier.
        let can_go_on = so_far.as_ref().map_or_else(|error| error.error_len().is_none(), |_| true);
        assert_eq!(utf8.push(piece).is_ok(), can_go_on, "after {end} bytes");
        if !can_go_on {
            return;
        }
        assert_eq!(utf8.is_complete(), so_far.is_ok(), "after {end} bytes");
    }
    assert_eq!(utf8.finish().is_ok(), is_valid(data));
}
