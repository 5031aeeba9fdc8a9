//! Records, as they are on the wire (RFC 8446 5.1, 5.2; RFC 5246 6.2).

use super::{Failure, RECORD_BYTES_MAX, TlsError};

pub(super) const HEADER_BYTES: usize = 5;
/// RFC 8446 5.2: a record's length MUST NOT exceed 2^14 + 256. With the suites of TLS 1.2 that we have it is less.
pub(super) const CIPHERTEXT_BYTES_MAX: usize = RECORD_BYTES_MAX + 256;

// Types of content.
pub(super) const CHANGE_CIPHER_SPEC: u8 = 20;
pub(super) const ALERT: u8 = 21;
pub(super) const HANDSHAKE: u8 = 22;
pub(super) const APPLICATION_DATA: u8 = 23;

// Alerts.
pub(super) const WARNING: u8 = 1;
pub(super) const FATAL: u8 = 2;
pub(super) const CLOSE_NOTIFY: u8 = 0;
pub(super) const USER_CANCELED: u8 = 90;

/// A record's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) bytes: [u8; HEADER_BYTES],
}

impl Header {
    pub(super) fn content_type(self) -> u8 {
        self.bytes[0]
    }

    /// Bytes behind the header.
    pub(super) fn payload_len(self) -> usize {
        usize::from(u16::from_be_bytes([self.bytes[3], self.bytes[4]]))
    }

    /// Bytes of the whole record.
    pub(super) fn record_len(self) -> usize {
        HEADER_BYTES + self.payload_len()
    }
}

/// The header that bytes begin with, or `None` if it is not all there.
pub(super) fn header(bytes: &[u8]) -> Result<Option<Header>, TlsError> {
    let Some(bytes) = bytes.first_chunk::<HEADER_BYTES>() else { return Ok(None) };
    let header = Header { bytes: *bytes };
    // RFC 8446 5.1: legacy_record_version MUST be ignored for all purposes; but all versions that there are begin with 3.
    if bytes[1] != 3 || !(CHANGE_CIPHER_SPEC..=APPLICATION_DATA).contains(&bytes[0]) {
        return Err(TlsError::new(Failure::Protocol, "no record of TLS"));
    }
    if header.payload_len() > CIPHERTEXT_BYTES_MAX {
        return Err(TlsError::new(Failure::RecordOverflow, "a record longer than 2^14 + 256 bytes"));
    }
    Ok(Some(header))
}
