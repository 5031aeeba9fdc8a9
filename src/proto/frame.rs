//! Frame headers (RFC 6455 5.2): reading and writing them, and whole frames into a byte buffer.
//!
//! Nothing here keeps state or allocates beyond the buffer it appends to.

use super::{ProtocolError, mask};

/// Most bytes a frame header can have: 2, a 64-bit length, a mask key.
pub const HEADER_BYTES_MAX: usize = 14;

/// Most payload bytes of a control frame (RFC 6455 5.5).
pub const CONTROL_BYTES_MAX: usize = 125;

/// Most bytes of a payload whose length stands in a frame's second byte (RFC 6455 5.2).
pub const SHORT_PAYLOAD_BYTES_MAX: usize = 125;

const FIN: u8 = 0x80;
const RSV1: u8 = 0x40;
const RSV23: u8 = 0x30;
const MASKED: u8 = 0x80;

/// What a frame is (RFC 6455 5.2); the value is the one on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Opcode {
    /// More of the message that a text or binary frame began.
    Continuation = 0x0,
    /// A text message, or its beginning.
    Text = 0x1,
    /// A binary message, or its beginning.
    Binary = 0x2,
    /// The closing handshake.
    Close = 0x8,
    /// A question for a pong.
    Ping = 0x9,
    /// The answer to a ping, or unsolicited.
    Pong = 0xA,
}

impl Opcode {
    /// The opcode of the four low bits; `None` for the reserved ones.
    #[inline]
    pub fn from_bits(bits: u8) -> Option<Self> {
        Some(match bits & 0x0F {
            0x0 => Self::Continuation,
            0x1 => Self::Text,
            0x2 => Self::Binary,
            0x8 => Self::Close,
            0x9 => Self::Ping,
            0xA => Self::Pong,
            _ => return None,
        })
    }

    /// Whether frames of it are control frames: never fragmented, at most 125 bytes (RFC 6455 5.5).
    #[inline]
    pub fn is_control(self) -> bool {
        self as u8 & 0x8 != 0
    }
}

/// A decoded frame header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameHeader {
    /// Last frame of its message.
    pub fin: bool,
    /// First reserved bit: with permessage-deflate, "compressed" (RFC 7692 6).
    pub rsv1: bool,
    /// What the frame is.
    pub opcode: Opcode,
    /// The mask key, if the payload is masked.
    pub mask: Option<[u8; 4]>,
    /// Bytes of payload behind the header; at most 2^63 - 1.
    pub payload_len: u64,
}

/// What the reader of a header knows beforehand, so that a header that cannot be right is refused at its first wrong
/// byte. The default expects nothing but allows no reserved bit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Expect {
    /// Whether the frame must be masked, or must not be; `None`: either.
    pub masked: Option<bool>,
    /// Whether RSV1 may be set, on the first frame of a data message.
    pub rsv1: bool,
    /// Whether a data frame must be a continuation, or must not be; `None`: either.
    pub continuation: Option<bool>,
}

/// Reads a frame header at the start of `bytes`: the header and how many bytes it has, or `None` if more bytes are
/// needed. Same as [`decode_header_as`] with nothing expected.
///
/// # Errors
/// See [`decode_header_as`].
#[inline]
pub fn decode_header(bytes: &[u8]) -> Result<Option<(FrameHeader, usize)>, ProtocolError> {
    decode_header_as(bytes, Expect::default())
}

/// Reads a frame header at the start of `bytes`, as [`decode_header`], with more to refuse.
///
/// # Errors
/// What is wrong with the header, as early as it is certain, whichever bytes are still missing. Of several errors it is
/// the one in the earliest byte, so the result does not depend on how the bytes are split.
#[inline]
pub fn decode_header_as(bytes: &[u8], expect: Expect) -> Result<Option<(FrameHeader, usize)>, ProtocolError> {
    let Some(&first) = bytes.first() else {
        return Ok(None);
    };
    let (opcode, fin, rsv1) = first_byte(first, expect)?;
    let Some(&second) = bytes.get(1) else {
        return Ok(None);
    };
    let masked = second & MASKED != 0;
    match expect.masked {
        // RFC 6455 5.1: the server MUST close the connection upon receiving a frame that is not masked.
        Some(true) if !masked => return Err(ProtocolError::Unmasked),
        // RFC 6455 5.1: a client MUST close a connection if it detects a masked frame.
        Some(false) if masked => return Err(ProtocolError::Masked),
        _ => {}
    }
    let len7 = second & !MASKED;
    // RFC 6455 5.5: all control frames MUST have a payload length of 125 bytes or less.
    if opcode.is_control() && usize::from(len7) > CONTROL_BYTES_MAX {
        return Err(ProtocolError::LongControl);
    }
    let (payload_len, at) = match len7 {
        126 => match bytes.get(2..4) {
            Some(&[a, b]) => (u64::from(u16::from_be_bytes([a, b])), 4),
            _ => return Ok(None),
        },
        127 => {
            // RFC 6455 5.2: the most significant bit of the 64-bit length MUST be 0.
            if bytes.get(2).is_some_and(|top| top & 0x80 != 0) {
                return Err(ProtocolError::LengthOutOfRange);
            }
            match bytes.get(2..10) {
                Some(&[a, b, c, d, e, f, g, h]) => (u64::from_be_bytes([a, b, c, d, e, f, g, h]), 10),
                _ => return Ok(None),
            }
        }
        short => (u64::from(short), 2),
    };
    // RFC 6455 5.2: the minimal number of bytes MUST be used to encode the length.
    if (at == 4 && payload_len < 126) || (at == 10 && payload_len <= 0xFFFF) {
        return Err(ProtocolError::NonMinimalLength);
    }
    let (mask, end) = if masked {
        match bytes.get(at..at + 4) {
            Some(&[a, b, c, d]) => (Some([a, b, c, d]), at + 4),
            _ => return Ok(None),
        }
    } else {
        (None, at)
    };
    let header = FrameHeader { fin, rsv1, opcode, mask, payload_len };
    Ok(Some((header, end)))
}

#[inline]
fn first_byte(first: u8, expect: Expect) -> Result<(Opcode, bool, bool), ProtocolError> {
    let (fin, rsv1) = (first & FIN != 0, first & RSV1 != 0);
    // RFC 6455 5.2: reserved bits MUST be 0 unless an extension is negotiated that defines them.
    if first & RSV23 != 0 || (rsv1 && !expect.rsv1) {
        return Err(ProtocolError::ReservedBits);
    }
    // RFC 6455 5.2: on an unknown opcode the receiver MUST fail the connection.
    let opcode = Opcode::from_bits(first).ok_or(ProtocolError::ReservedOpcode)?;
    if opcode.is_control() {
        // RFC 6455 5.5: all control frames MUST NOT be fragmented.
        if !fin {
            return Err(ProtocolError::FragmentedControl);
        }
    } else {
        match expect.continuation {
            // RFC 6455 5.4: fragments of one message MUST NOT be interleaved with those of another.
            Some(true) if opcode != Opcode::Continuation => {
                return Err(ProtocolError::ExpectedContinuation);
            }
            Some(false) if opcode == Opcode::Continuation => {
                return Err(ProtocolError::UnexpectedContinuation);
            }
            _ => {}
        }
    }
    // RFC 7692 6.1: RSV1 is set on the first frame of a message only, never on control frames.
    if rsv1 && !matches!(opcode, Opcode::Text | Opcode::Binary) {
        return Err(ProtocolError::ReservedBits);
    }
    Ok((opcode, fin, rsv1))
}

/// The length, header included, of the frame that begins here and is known to be whole: one's own, whichever role one has.
///
/// # Panics
/// If `frame` ends within the header.
#[inline]
pub(crate) fn frame_len(frame: &[u8]) -> usize {
    let unmasked = match frame[1] & !MASKED {
        126 => 4 + usize::from(u16::from_be_bytes([frame[2], frame[3]])),
        127 => 10 + u64::from_be_bytes(frame[2..10].try_into().expect("eight bytes")) as usize,
        short => 2 + usize::from(short),
    };
    // RFC 6455 5.2: the mask key is there if the bit is set, as in every frame of a client.
    unmasked + if frame[1] & MASKED == 0 { 0 } else { 4 }
}

/// A frame header for `len` bytes of payload: the bytes and how many of them count.
///
/// # Panics
/// Never; a `len` over 2^63 - 1, which no slice has, would make a header that peers refuse.
#[inline]
pub fn encode_header(
    opcode: Opcode,
    fin: bool,
    rsv1: bool,
    len: u64,
    mask: Option<[u8; 4]>,
) -> ([u8; HEADER_BYTES_MAX], usize) {
    let mut header = [0; HEADER_BYTES_MAX];
    header[0] = opcode as u8 | (u8::from(fin) << 7) | (u8::from(rsv1) << 6);
    let mut at = 2;
    if len < 126 {
        header[1] = len as u8;
    } else if len <= 0xFFFF {
        header[1] = 126;
        header[2..4].copy_from_slice(&(len as u16).to_be_bytes());
        at = 4;
    } else {
        header[1] = 127;
        header[2..10].copy_from_slice(&len.to_be_bytes());
        at = 10;
    }
    if let Some(key) = mask {
        header[1] |= MASKED;
        header[at..at + 4].copy_from_slice(&key);
        at += 4;
    }
    (header, at)
}

/// Appends a server's frame: FIN set, not masked (RFC 6455 5.1).
#[inline]
pub fn put_frame(out: &mut Vec<u8>, opcode: Opcode, payload: &[u8]) {
    if payload.len() <= SHORT_PAYLOAD_BYTES_MAX {
        put_short_frame(out, opcode, payload);
    } else {
        put_long_frame(out, opcode, payload);
    }
}

/// Likewise, of a payload of [`SHORT_PAYLOAD_BYTES_MAX`] or fewer, whose header is two bytes (RFC 6455 5.2).
#[inline]
pub fn put_short_frame(out: &mut Vec<u8>, opcode: Opcode, payload: &[u8]) {
    debug_assert!(payload.len() <= SHORT_PAYLOAD_BYTES_MAX);
    out.reserve(2 + payload.len());
    out.extend_from_slice(&[FIN | opcode as u8, payload.len() as u8]);
    out.extend_from_slice(payload);
}

#[inline(never)]
fn put_long_frame(out: &mut Vec<u8>, opcode: Opcode, payload: &[u8]) {
    let (header, len) = encode_header(opcode, true, false, payload.len() as u64, None);
    out.reserve(len + payload.len());
    out.extend_from_slice(&header[..len]);
    out.extend_from_slice(payload);
}

/// Says of a frame, the first of its message, that the message is compressed (RFC 7692 6.1).
///
/// # Panics
/// If `frame` is empty.
#[inline]
pub fn mark_compressed(frame: &mut [u8]) {
    frame[0] |= RSV1;
}

/// Appends a client's frame: FIN set, masked with `key`, which must be fresh and unpredictable (RFC 6455 5.3).
#[inline]
pub fn put_masked_frame(out: &mut Vec<u8>, opcode: Opcode, payload: &[u8], key: [u8; 4]) {
    out.reserve(payload.len() + HEADER_BYTES_MAX);
    let (header, len) = encode_header(opcode, true, false, payload.len() as u64, Some(key));
    out.extend_from_slice(&header[..len]);
    mask::copy_into(key, 0, payload, out);
}

#[cfg(test)]
mod tests {
    use super::*;

    const LENGTHS: [u64; 11] = [0, 1, 125, 126, 127, 128, 65_535, 65_536, 65_537, 1 << 32, (1 << 63) - 1];

    #[test]
    fn what_is_encoded_is_decoded_and_every_prefix_needs_more() {
        for len in LENGTHS {
            for mask in [None, Some([1, 2, 3, 4])] {
                for fin in [true, false] {
                    for opcode in [Opcode::Continuation, Opcode::Text, Opcode::Binary] {
                        let (bytes, n) = encode_header(opcode, fin, false, len, mask);
                        let header = FrameHeader { fin, rsv1: false, opcode, mask, payload_len: len };
                        assert_eq!(decode_header(&bytes[..n]), Ok(Some((header, n))));
                        assert_eq!(decode_header(&bytes), Ok(Some((header, n))));
                        for short in 0..n {
                            assert_eq!(decode_header(&bytes[..short]), Ok(None), "{len} {short}");
                        }
                    }
                }
            }
        }
    }

    // RFC 6455 5.2
    #[test]
    fn one_byte_is_enough_to_refuse() {
        for opcode in [3, 4, 5, 6, 7, 11, 12, 13, 14, 15] {
            assert_eq!(decode_header(&[0x80 | opcode]), Err(ProtocolError::ReservedOpcode));
        }
        for bits in 1..8u8 {
            assert_eq!(decode_header(&[0x81 | bits << 4]), Err(ProtocolError::ReservedBits));
        }
        for opcode in [8, 9, 10] {
            assert_eq!(decode_header(&[opcode]), Err(ProtocolError::FragmentedControl));
        }
        let in_message = Expect { continuation: Some(true), ..Expect::default() };
        assert_eq!(decode_header_as(&[0x81], in_message), Err(ProtocolError::ExpectedContinuation));
        assert_eq!(decode_header_as(&[0x89], in_message), Ok(None));
        let outside = Expect { continuation: Some(false), ..Expect::default() };
        assert_eq!(decode_header_as(&[0x80], outside), Err(ProtocolError::UnexpectedContinuation));
    }

    // RFC 7692 6
    #[test]
    fn rsv1_is_for_the_first_frame_of_a_data_message() {
        let deflate = Expect { rsv1: true, ..Expect::default() };
        assert!(decode_header_as(&[0xC1, 0], deflate).unwrap().unwrap().0.rsv1);
        for first in [0xC0, 0xC8, 0xC9, 0xCA, 0xE1, 0xD1] {
            assert_eq!(decode_header_as(&[first], deflate), Err(ProtocolError::ReservedBits));
        }
    }

    // RFC 6455 5.1, 5.5
    #[test]
    fn two_bytes_are_enough_to_refuse() {
        let server = Expect { masked: Some(true), ..Expect::default() };
        let client = Expect { masked: Some(false), ..Expect::default() };
        assert_eq!(decode_header_as(&[0x81, 0x05], server), Err(ProtocolError::Unmasked));
        assert_eq!(decode_header_as(&[0x81, 0x85], client), Err(ProtocolError::Masked));
        for len in [126, 127, 254, 255] {
            assert_eq!(decode_header(&[0x89, len]), Err(ProtocolError::LongControl));
        }
    }

    // RFC 6455 5.2
    #[test]
    fn lengths_are_minimal_and_have_63_bits() {
        for wrong in [&[0x82, 126, 0, 125][..], &[0x82, 127, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF]] {
            assert_eq!(decode_header(wrong), Err(ProtocolError::NonMinimalLength));
        }
        assert_eq!(decode_header(&[0x82, 127, 0x80]), Err(ProtocolError::LengthOutOfRange));
    }

    #[test]
    fn whole_frames() {
        let mut out = vec![0xEE];
        put_frame(&mut out, Opcode::Text, b"Hello");
        assert_eq!(out, b"\xEE\x81\x05Hello");
        // RFC 6455 5.7: a single-frame masked text message.
        let mut out = Vec::new();
        put_masked_frame(&mut out, Opcode::Text, b"Hello", [0x37, 0xFA, 0x21, 0x3D]);
        assert_eq!(out, [0x81, 0x85, 0x37, 0xFA, 0x21, 0x3D, 0x7F, 0x9F, 0x4D, 0x51, 0x58]);
        for len in [0, 125, 126, 65_535, 65_536] {
            let payload = vec![7; len];
            let mut out = Vec::new();
            put_frame(&mut out, Opcode::Binary, &payload);
            let (header, at) = decode_header(&out).unwrap().unwrap();
            assert_eq!((header.payload_len, header.mask, header.fin), (len as u64, None, true));
            assert_eq!(out[at..], payload);
            assert_eq!(frame_len(&out), out.len());
            let mut masked = Vec::new();
            put_masked_frame(&mut masked, Opcode::Binary, &payload, [0xFF; 4]);
            assert_eq!((frame_len(&masked), masked.len()), (masked.len(), out.len() + 4));
        }
    }
}
