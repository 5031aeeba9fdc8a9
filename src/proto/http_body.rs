//! Request bodies (RFC 9112 6 and 7.1): takes the framing off, piece by piece, without keeping any of the content.

use thiserror::Error;

use super::http::{Body, is_token};

/// Most bytes of chunk-size lines beyond the sizes themselves (extensions), and of trailers, in one body.
const OVERHEAD_BYTES_MAX: usize = 8 * 1024;

/// Why a body is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum BodyError {
    /// More content than allowed.
    #[error("request body too large")]
    TooLarge,
    /// Not the chunked coding.
    #[error("malformed chunked body")]
    Malformed,
    /// Chunk extensions or trailers beyond 8 KiB.
    #[error("chunk extensions or trailers too large")]
    OverheadTooLarge,
}

impl BodyError {
    /// The status that answers it. The connection must be closed behind the answer.
    pub fn status(self) -> u16 {
        match self {
            Self::TooLarge => 413,
            Self::Malformed => 400,
            Self::OverheadTooLarge => 431,
        }
    }
}

/// What [`BodyDecoder::next`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyPiece<'i> {
    /// Content, never empty.
    Data(&'i [u8]),
    /// All of the input is consumed and the body goes on.
    More,
    /// The body is complete; what is behind `consumed` belongs to the next request.
    End,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// So many bytes of a Content-Length body to come.
    Length(u64),
    /// In the digits of a chunk's size: its value so far and how many digits.
    Size {
        value: u64,
        digits: u8,
    },
    /// In the extensions behind a chunk's size.
    Extension {
        size: u64,
        at: Extension,
    },
    /// Behind the CR of a chunk-size line.
    SizeLf {
        size: u64,
    },
    /// In a chunk: so many bytes to come.
    Chunk(u64),
    /// Behind a chunk: its CR, its LF.
    ChunkCr,
    ChunkLf,
    /// In the trailer section: at the start of a line, in a field's name, in its value, behind its CR, behind the last
    /// line's CR.
    Trailer,
    TrailerName,
    TrailerValue,
    TrailerLf,
    LastLf,
    End,
}

/// Where in `*( BWS ";" BWS name [ BWS "=" BWS value ] )` (RFC 9112 7.1.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Extension {
    /// Behind something whole and white space: only a semicolon can follow.
    Space,
    /// Behind a semicolon.
    Start,
    Name,
    /// Behind a name and white space.
    NameSpace,
    /// Behind the equals sign.
    Equals,
    Value,
    Quoted,
    /// Behind a backslash within quotes.
    Escape,
    /// Behind the closing quote.
    Unquoted,
}

impl Extension {
    /// Behind one more byte; `None` for one that must not be there.
    fn step(self, byte: u8) -> Option<Extension> {
        let is_space = matches!(byte, b' ' | b'\t');
        Some(match (self, byte) {
            (Self::Quoted, b'"') => Self::Unquoted,
            (Self::Quoted, b'\\') => Self::Escape,
            (Self::Quoted | Self::Escape, _) => return is_text(byte).then_some(Self::Quoted),
            (Self::Space | Self::Name | Self::NameSpace | Self::Value | Self::Unquoted, b';') => Self::Start,
            (Self::Space | Self::Start | Self::NameSpace | Self::Equals, _) if is_space => self,
            (Self::Name, _) if is_space => Self::NameSpace,
            (Self::Value | Self::Unquoted, _) if is_space => Self::Space,
            (Self::Name | Self::NameSpace, b'=') => Self::Equals,
            (Self::Equals, b'"') => Self::Quoted,
            (Self::Start | Self::Name, _) if is_token(byte) => Self::Name,
            (Self::Equals | Self::Value, _) if is_token(byte) => Self::Value,
            _ => return None,
        })
    }

    /// Whether the line may end here.
    fn is_whole(self) -> bool {
        matches!(self, Self::Name | Self::Value | Self::Unquoted)
    }
}

/// Takes the framing off one request body. Trailers are read and dropped.
#[derive(Clone, Debug)]
pub struct BodyDecoder {
    state: State,
    bytes_left: u64,
    overhead_left: usize,
}

impl BodyDecoder {
    /// For a body delimited as `body` says, with at most `bytes_max` bytes of content.
    ///
    /// # Errors
    /// [`BodyError::TooLarge`] where the declared length is too large already.
    pub fn new(body: Body, bytes_max: usize) -> Result<Self, BodyError> {
        let state = match body {
            Body::None => State::End,
            Body::Length(length) if length > bytes_max as u64 => return Err(BodyError::TooLarge),
            Body::Length(0) => State::End,
            Body::Length(length) => State::Length(length),
            Body::Chunked => State::Size { value: 0, digits: 0 },
        };
        Ok(Self { state, bytes_left: bytes_max as u64, overhead_left: OVERHEAD_BYTES_MAX })
    }

    /// Whether the body is complete.
    pub fn is_done(&self) -> bool {
        self.state == State::End
    }

    /// Takes the next piece out of `input[*consumed..]` and moves `consumed` behind it. Call it until it gives
    /// [`BodyPiece::More`] or [`BodyPiece::End`].
    ///
    /// # Errors
    /// See [`BodyError`]; the connection is of no further use then.
    ///
    /// # Panics
    /// Where `*consumed` is beyond the input.
    pub fn next<'i>(&mut self, input: &'i [u8], consumed: &mut usize) -> Result<BodyPiece<'i>, BodyError> {
        loop {
            let rest = &input[*consumed..];
            if self.state == State::End {
                return Ok(BodyPiece::End);
            }
            let Some(&byte) = rest.first() else {
                return Ok(BodyPiece::More);
            };
            if let State::Length(left) | State::Chunk(left) = self.state {
                let n = usize::try_from(left).map_or(rest.len(), |left| left.min(rest.len()));
                let left = left - n as u64;
                self.state = match self.state {
                    State::Length(_) if left == 0 => State::End,
                    State::Length(_) => State::Length(left),
                    _ if left == 0 => State::ChunkCr,
                    _ => State::Chunk(left),
                };
                *consumed += n;
                return Ok(BodyPiece::Data(&rest[..n]));
            }
            self.state = self.step(byte)?;
            *consumed += 1;
        }
    }

    /// One byte of framing.
    fn step(&mut self, byte: u8) -> Result<State, BodyError> {
        let malformed = Err(BodyError::Malformed);
        Ok(match (self.state, byte) {
            (State::Size { value, digits }, _) if byte.is_ascii_hexdigit() => {
                // 16 digits fill 64 bits. Leading zeros count: nobody needs more.
                if digits == 16 {
                    return malformed;
                }
                let digit = char::from(byte).to_digit(16).map_or(0, u64::from);
                State::Size { value: value << 4 | digit, digits: digits + 1 }
            }
            (State::Size { digits: 0, .. }, _) => return malformed,
            (State::Size { value, .. }, b'\r') => State::SizeLf { size: value },
            (State::Extension { size, at }, b'\r') if at.is_whole() => State::SizeLf { size },
            (State::Size { value: size, .. }, _) => self.extension(size, Extension::Space, byte)?,
            (State::Extension { size, at }, _) => self.extension(size, at, byte)?,
            (State::SizeLf { size: 0 }, b'\n') => State::Trailer,
            (State::SizeLf { size }, b'\n') => {
                if size > self.bytes_left {
                    return Err(BodyError::TooLarge);
                }
                self.bytes_left -= size;
                State::Chunk(size)
            }
            (State::ChunkCr, b'\r') => State::ChunkLf,
            (State::ChunkLf, b'\n') => State::Size { value: 0, digits: 0 },
            (State::Trailer, b'\r') => State::LastLf,
            (State::TrailerName, b':') => State::TrailerValue,
            (State::Trailer | State::TrailerName, _) if is_token(byte) => {
                self.overhead()?;
                State::TrailerName
            }
            (State::TrailerValue, b'\r') => State::TrailerLf,
            (State::TrailerValue, _) if is_text(byte) => {
                self.overhead()?;
                State::TrailerValue
            }
            (State::TrailerLf, b'\n') => State::Trailer,
            (State::LastLf, b'\n') => State::End,
            _ => return malformed,
        })
    }

    /// One byte behind a chunk's size, or in its extensions.
    fn extension(&mut self, size: u64, at: Extension, byte: u8) -> Result<State, BodyError> {
        let at = at.step(byte).ok_or(BodyError::Malformed)?;
        self.overhead()?;
        Ok(State::Extension { size, at })
    }

    fn overhead(&mut self) -> Result<(), BodyError> {
        let left = self.overhead_left.checked_sub(1).ok_or(BodyError::OverheadTooLarge)?;
        self.overhead_left = left;
        Ok(())
    }
}

/// Whether a byte may be within a line: no control character but the tab.
fn is_text(byte: u8) -> bool {
    byte == b'\t' || (byte >= b' ' && byte != 0x7F)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(body: Body, max: usize, input: &[u8], step: usize) -> Result<(Vec<u8>, usize, bool), BodyError> {
        let mut decoder = BodyDecoder::new(body, max)?;
        let (mut content, mut total) = (Vec::new(), 0);
        for piece in input.chunks(step) {
            let mut consumed = 0;
            loop {
                match decoder.next(piece, &mut consumed)? {
                    BodyPiece::Data(data) => content.extend_from_slice(data),
                    BodyPiece::More => break,
                    BodyPiece::End => return Ok((content, total + consumed, true)),
                }
            }
            total += consumed;
        }
        Ok((content, total, decoder.is_done()))
    }

    // RFC 9112 7.1
    #[test]
    fn chunked_in_any_pieces() {
        let input = b"5\r\nhello\r\n06 ;a = \"b;\\\"\"; c\t;d=e\r\n world\r\n0;f\r\nX: y\r\nZ:\xFFw\r\n\r\nGET /";
        for step in 1..=input.len() {
            let (content, consumed, done) = run(Body::Chunked, 11, input, step).unwrap();
            assert_eq!((&content[..], consumed, done), (&b"hello world"[..], input.len() - 5, true));
            assert_eq!(run(Body::Chunked, 10, input, step), Err(BodyError::TooLarge));
        }
    }

    #[test]
    fn chunked_refusals() {
        for wrong in [
            &b"\r\n"[..],
            b"g\r\n",
            b"5\nhello",
            b"5\r\nhelloX",
            b"5\r\nhello\n",
            b"-1\r\n",
            b"0x5\r\n",
            b"00000000000000001\r\n",
            b"1;\x00",
            b"0\r\n\n",
            b"0\r\nA\n",
            b"5\rX",
            b"1;a\n",
            // Behind the size: extensions alone, which begin with a semicolon.
            b"5 junk\r\n",
            b"5\tff\r\n",
            b"5 0\r\n",
            b"5 \r\n",
            b"5,\r\n",
            b" 5\r\n",
            b"+5\r\n",
            b"5h\r\n",
            b"5\x0B;a\r\n",
            b"5;\r\n",
            b"5;;a\r\n",
            b"5;a b\r\n",
            b"5;a \r\n",
            b"5;a=\r\n",
            b"5;a=b=c\r\n",
            b"5;a=\"b\"c\r\n",
            b"5;a=\"b\r\n",
            b"5;a=\"b\\\r\n",
            b"5;a\r\r\n",
            // Behind a chunk: CRLF alone.
            b"1\r\nx\r\r\n",
            b"1\r\nx \r\n",
            b"1\r\nx\n",
            b"1\r\nx0\r\n",
            // Trailers are fields.
            b"0\r\nA\r\n\r\n",
            b"0\r\n: a\r\n\r\n",
            b"0\r\nA : b\r\n\r\n",
            b"0\r\n A: b\r\n\r\n",
            b"0\r\nA: b\r\n c\r\n\r\n",
            b"0\r\nA: b\n\r\n",
            b"0\r\nA: b\0\r\n\r\n",
            b"0\r\nA: b\rc\r\n\r\n",
            b"0\r\n\r\r\n",
        ] {
            for step in [1, 2, wrong.len()] {
                assert_eq!(run(Body::Chunked, 100, wrong, step), Err(BodyError::Malformed), "{wrong:?}");
            }
        }
        let long = [&b"1;"[..], &[b'a'; 9000]].concat();
        assert_eq!(run(Body::Chunked, 100, &long, 100), Err(BodyError::OverheadTooLarge));
        let many = b"1;abc\r\nx\r\n".repeat(2100);
        assert_eq!(run(Body::Chunked, 9000, &many, 100), Err(BodyError::OverheadTooLarge));
        let trailers = [&b"0\r\n"[..], &b"A: b\r\n".repeat(3000)].concat();
        assert_eq!(run(Body::Chunked, 100, &trailers, 100), Err(BodyError::OverheadTooLarge));
        assert_eq!(run(Body::Chunked, 100, b"ffffffffffffffff\r\n", 1), Err(BodyError::TooLarge));
    }

    #[test]
    fn by_length() {
        for step in 1..8 {
            let (content, consumed, done) = run(Body::Length(5), 5, b"hello!!", step).unwrap();
            assert_eq!((&content[..], consumed, done), (&b"hello"[..], 5, true));
        }
        assert_eq!(run(Body::Length(6), 5, b"", 1), Err(BodyError::TooLarge));
        assert_eq!(run(Body::None, 0, b"x", 1), Ok((vec![], 0, true)));
    }
}
