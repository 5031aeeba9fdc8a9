//! UTF-8 checks (RFC 3629, RFC 6455 8.1): of a whole message, and of one that arrives in pieces.

use super::ProtocolError;

/// Up to so many bytes are first tried as ASCII, inline.
const ASCII_FIRST_MAX: usize = 256;

/// Whether `bytes` as a whole are UTF-8.
#[inline]
pub fn is_valid(bytes: &[u8]) -> bool {
    if bytes.len() <= ASCII_FIRST_MAX && is_ascii(bytes) {
        return true;
    }
    simdutf8::basic::from_utf8(bytes).is_ok()
}

/// As `<[u8]>::is_ascii`, which goes through the last bytes one by one: a third of the time at 125 bytes.
#[inline]
fn is_ascii(bytes: &[u8]) -> bool {
    const HIGH: u64 = 0x8080_8080_8080_8080;
    let Some(last) = bytes.last_chunk() else {
        return bytes.iter().all(u8::is_ascii);
    };
    let mut seen = u64::from_ne_bytes(*last);
    for word in bytes.chunks_exact(8) {
        seen |= word.try_into().map_or(HIGH, u64::from_ne_bytes);
    }
    seen & HIGH == 0
}

/// Checks text that arrives in pieces. Fails at the first byte that no continuation could make right, whatever the
/// splits. Invariant: `len` bytes of `tail` begin one character that is not complete and can still become valid.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Utf8 {
    tail: [u8; 3],
    len: u8,
}

impl Utf8 {
    /// At the start of a text.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next piece.
    ///
    /// # Errors
    /// [`ProtocolError::BadUtf8`] once the text cannot be UTF-8 any more; the validator is of no further use then.
    pub fn push(&mut self, bytes: &[u8]) -> Result<(), ProtocolError> {
        let rest = self.finish_character(bytes)?;
        if rest.is_empty() {
            return Ok(());
        }
        match simdutf8::compat::from_utf8(rest) {
            Ok(_) => Ok(()),
            // No length: the end cut a character that is right so far, in at most 3 bytes.
            Err(error) if error.error_len().is_none() => {
                let tail = &rest[error.valid_up_to()..];
                self.tail[..tail.len()].copy_from_slice(tail);
                self.len = tail.len() as u8;
                Ok(())
            }
            Err(_) => Err(ProtocolError::BadUtf8),
        }
    }

    /// As [`Utf8::push`], of a piece of so many bytes that are all ASCII.
    ///
    /// # Errors
    /// As there: no character goes on with these.
    pub fn push_ascii(&mut self, len: usize) -> Result<(), ProtocolError> {
        if len == 0 || self.is_complete() { Ok(()) } else { Err(ProtocolError::BadUtf8) }
    }

    /// Whether the text may end here: no character is incomplete.
    pub fn is_complete(self) -> bool {
        self.len == 0
    }

    /// Ends the text.
    ///
    /// # Errors
    /// [`ProtocolError::BadUtf8`] if its last character is incomplete.
    pub fn finish(self) -> Result<(), ProtocolError> {
        if self.is_complete() { Ok(()) } else { Err(ProtocolError::BadUtf8) }
    }

    /// Completes the character that earlier pieces began; what is left of `bytes`.
    fn finish_character<'b>(&mut self, mut bytes: &'b [u8]) -> Result<&'b [u8], ProtocolError> {
        while self.len > 0 {
            let Some((&byte, rest)) = bytes.split_first() else {
                break;
            };
            bytes = rest;
            let len = usize::from(self.len);
            let mut character = [0; 4];
            character[..len].copy_from_slice(&self.tail[..len]);
            character[len] = byte;
            match std::str::from_utf8(&character[..=len]) {
                Ok(_) => self.len = 0,
                // Incomplete, so it has at most 3 bytes: `len` was at most 2.
                Err(error) if error.error_len().is_none() => {
                    self.tail[len] = byte;
                    self.len += 1;
                }
                Err(_) => return Err(ProtocolError::BadUtf8),
            }
        }
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many bytes are taken before the failure, pushing `step` bytes at a time; `None`: all right and complete.
    fn run(bytes: &[u8], step: usize) -> Option<usize> {
        let mut utf8 = Utf8::new();
        for (i, piece) in bytes.chunks(step).enumerate() {
            let ascii = piece.is_ascii().then(|| utf8.clone().push_ascii(piece.len()));
            let pushed = utf8.push(piece);
            assert!(ascii.is_none_or(|ascii| ascii == pushed), "{bytes:x?} by {step}");
            if pushed.is_err() {
                return Some(i * step);
            }
        }
        if utf8.finish().is_err() { Some(bytes.len()) } else { None }
    }

    #[test]
    fn agrees_with_std_on_every_split() {
        let samples: [&[u8]; 12] = [
            b"",
            b"plain",
            "κόσμε".as_bytes(),
            "a\u{7F}\u{80}\u{7FF}\u{800}\u{FFFF}\u{10000}\u{10FFFF}".as_bytes(),
            b"\xED\x9F\xBF\xEE\x80\x80\xF4\x8F\xBF\xBF",
            b"ab\xC0\xAF",
            b"ab\xE0\x80\xAF",
            b"ab\xF0\x80\x80\xAF",
            b"ab\xED\xA0\x80",
            b"ab\xF4\x90\x80\x80cd",
            b"ab\xFE",
            b"ab\xE2\x82",
        ];
        for sample in samples {
            let valid = std::str::from_utf8(sample).is_ok();
            assert_eq!(is_valid(sample), valid, "{sample:x?}");
            for step in 1..=sample.len().max(1) {
                assert_eq!(run(sample, step).is_none(), valid, "{sample:x?} by {step}");
            }
            for first in 0..=sample.len() {
                for second in first..=sample.len() {
                    let mut utf8 = Utf8::new();
                    let ok = utf8.push(&sample[..first]).is_ok()
                        && utf8.push(&sample[first..second]).is_ok()
                        && utf8.push(&sample[second..]).is_ok()
                        && utf8.finish().is_ok();
                    assert_eq!(ok, valid, "{sample:x?} at {first}, {second}");
                }
            }
        }
    }

    // Autobahn 6.4: the failure is at the byte that makes it certain, not at the end of the character.
    #[test]
    fn fails_at_the_first_certain_byte() {
        assert_eq!(run(b"\xCE\xBA\xF4\x90\x80\x80", 1), Some(3));
        assert_eq!(run(b"\xED\xA0\x80", 1), Some(1));
        assert_eq!(run(b"\xE0\x9F\xBF", 1), Some(1));
        assert_eq!(run(b"\xF0\x8F\xBF\xBF", 1), Some(1));
        assert_eq!(run(b"\xF5", 1), Some(0));
        assert_eq!(run(b"\xC1", 1), Some(0));
        assert_eq!(run(b"\x80", 1), Some(0));
        assert_eq!(run(b"\xE2\x82\x41", 1), Some(2));
    }

    /// Every sequence of up to three bytes from the interesting ones: the incremental verdict after each byte equals
    /// "std finds an error that more bytes cannot mend".
    #[test]
    fn exhaustive_over_boundary_bytes() {
        let interesting: Vec<u8> = vec![
            0x00, 0x41, 0x7F, 0x80, 0x8F, 0x90, 0x9F, 0xA0, 0xBF, 0xC0, 0xC1, 0xC2, 0xDF, 0xE0, 0xE1, 0xEC, 0xED, 0xEE,
            0xEF, 0xF0, 0xF1, 0xF3, 0xF4, 0xF5, 0xFF,
        ];
        for &a in &interesting {
            for &b in &interesting {
                for &c in &interesting {
                    for &d in &[0x41, 0x80, 0xBF, 0xC2] {
                        let bytes = [a, b, c, d];
                        let certain =
                            (1..=4).find(|&n| std::str::from_utf8(&bytes[..n]).is_err_and(|e| e.error_len().is_some()));
                        let mut utf8 = Utf8::new();
                        let failed = (1..=4).find(|&n| utf8.push(&bytes[n - 1..n]).is_err());
                        assert_eq!(failed, certain, "{bytes:x?}");
                    }
                }
            }
        }
    }

    #[test]
    fn a_high_byte_is_seen_anywhere() {
        for len in 0..80 {
            let mut bytes = vec![0x7F; len];
            assert!(is_ascii(&bytes));
            for at in 0..len {
                bytes[at] = 0x80;
                assert!(!is_ascii(&bytes) && !is_valid(&bytes), "{at} of {len}");
                bytes[at] = 0x7F;
            }
        }
    }

    #[test]
    fn is_small() {
        assert_eq!(size_of::<Utf8>(), 4);
    }
}
