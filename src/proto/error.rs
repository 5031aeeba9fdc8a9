//! What a peer can do wrong after the handshake, and the close code that answers it.

use thiserror::Error;

/// A breach of RFC 6455 by the peer. Its text is constant and short enough to be the reason of the Close frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Error)]
#[error("{}", self.reason())]
#[non_exhaustive]
pub enum ProtocolError {
    /// A reserved bit is set that no extension gave a meaning (RFC 6455 5.2).
    ReservedBits,
    /// Opcode 3-7 or 11-15 (RFC 6455 5.2).
    ReservedOpcode,
    /// A control frame without FIN (RFC 6455 5.5).
    FragmentedControl,
    /// A control frame of more than 125 bytes (RFC 6455 5.5).
    LongControl,
    /// A payload length that is not in its shortest form (RFC 6455 5.2).
    NonMinimalLength,
    /// A 64-bit payload length with its top bit set (RFC 6455 5.2).
    LengthOutOfRange,
    /// A client's frame that is not masked (RFC 6455 5.1).
    Unmasked,
    /// A server's frame that is masked (RFC 6455 5.1).
    Masked,
    /// A continuation frame with nothing to continue (RFC 6455 5.4).
    UnexpectedContinuation,
    /// A new message before the last one ended (RFC 6455 5.4).
    ExpectedContinuation,
    /// Text that is not UTF-8 (RFC 6455 8.1).
    BadUtf8,
    /// A compressed message that cannot be decompressed (RFC 7692 7.2.2).
    BadCompression,
    /// A message over the limit (RFC 6455 10.4).
    MessageTooBig,
    /// More fragments in one message than allowed (RFC 6455 10.4).
    TooManyFragments,
    /// A Close frame of one byte (RFC 6455 5.5.1).
    ShortClose,
    /// A close code that must not be on the wire (RFC 6455 7.4).
    BadCloseCode,
    /// A close reason that is not UTF-8 (RFC 6455 5.5.1).
    BadCloseReason,
}

impl ProtocolError {
    /// The code for the Close frame that answers this error (RFC 6455 7.4.1).
    pub fn close_code(self) -> u16 {
        match self {
            Self::BadUtf8 | Self::BadCloseReason | Self::BadCompression => 1007,
            Self::TooManyFragments => 1008,
            Self::MessageTooBig => 1009,
            _ => 1002,
        }
    }

    /// The text for the Close frame's reason; the same as `Display`.
    pub fn reason(self) -> &'static str {
        match self {
            Self::ReservedBits => "reserved bit set",
            Self::ReservedOpcode => "reserved opcode",
            Self::FragmentedControl => "fragmented control frame",
            Self::LongControl => "control frame too long",
            Self::NonMinimalLength => "payload length not minimal",
            Self::LengthOutOfRange => "payload length out of range",
            Self::Unmasked => "unmasked client frame",
            Self::Masked => "masked server frame",
            Self::UnexpectedContinuation => "nothing to continue",
            Self::ExpectedContinuation => "expected a continuation",
            Self::BadUtf8 => "invalid UTF-8",
            Self::BadCompression => "invalid compressed data",
            Self::MessageTooBig => "message too big",
            Self::TooManyFragments => "too many fragments",
            Self::ShortClose => "close frame too short",
            Self::BadCloseCode => "invalid close code",
            Self::BadCloseReason => "invalid UTF-8 in close reason",
        }
    }
}
