//! The codec of permessage-deflate (RFC 7692 7.2): message payloads in and out, no frames, no negotiation.
//!
//! A core has one [`Deflater`] and one [`Inflater`], and no connection has any. What a *context* is, is its [`History`]: the last
//! bytes of the messages that went through it, at most one window of them. A codec that is given a context begins with its history
//! as a dictionary, which gives the very bytes that a codec of its own would give or take; so a context costs its window and
//! nothing more, where a compressor's state is some 230 KiB and an inflater's some 45 KiB.
//!
//! Order of calls: any. A message that failed leaves the codecs usable, and the context of an inflater that failed unusable.
//!
//! The library is `zlib-rs`, by its own safe interface: pure Rust, no C; of all that was measured the fastest without a context,
//! and it takes a dictionary at any time in raw streams, which `flate2` does not pass on for each of its backends.
//!
//! To compress and to decompress 1 KiB of JSON takes, in microseconds, and gives, as the ratio (lines of a chat; quotes of 40
//! symbols): `cargo test --test deflate_speed -- --ignored --nocapture` in a profile that optimizes, the best of three, on a
//! machine of two cores that had other work:
//!
//! | | level 1 | ratio | level 2 | ratio | level 6 | ratio |
//! | --- | --- | --- | --- | --- | --- | --- |
//! | no context | 8.5 + 2.9 | 2.4; 2.5 | 17 + 5.2 | 3.0; 3.1 | 29 + 4.9 | 3.1; 3.2 |
//! | 2 KiB | 14 + 2.8 | 3.4; 3.2 | 28 + 4.9 | 4.2; 4.2 | | |
//! | 4 KiB | 18 + 2.8 | 3.5; 3.2 | 28 + 4.8 | 4.3; 4.2 | 37 + 6.0 | 4.7; 4.7 |
//! | 8 KiB | 25 + 2.7 | 3.6; 3.2 | 39 + 5.3 | 4.4; 4.2 | 50 + 4.8 | 4.9; 4.8 |
//! | 32 KiB | 79 + 3.4 | 3.7; 3.3 | 120 + 8.0 | 4.3; 4.2 | 111 + 6.3 | 5.1; 4.9 |
//! | one stream alone | 4.2 + 1.9 | 3.5; 3.1 | 17 + 5.5 | 4.3; 4.2 | 25 + 3.6 | 4.9; 4.9 |
//!
//! What a dictionary costs grows with it, and what it gives hardly beyond 4 KiB: that is the window where none is set.

mod deflater;
mod history;
mod inflater;

pub use deflater::{Deflater, LEVEL};
pub use history::{History, WINDOW_BITS, WINDOW_BITS_MAX, WINDOW_BITS_MIN};
pub use inflater::{InflateError, Inflater, RATIO_MAX, UNRATED_BYTES};

/// What every compressed message would end in, and does not: an empty block without compression (RFC 7692 7.2.1).
const TAIL: [u8; 4] = [0x00, 0x00, 0xFF, 0xFF];

#[cfg(test)]
pub(crate) mod reference;
#[cfg(test)]
mod tests;
