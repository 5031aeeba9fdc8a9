//! One direction's key, and the number of its next record: records are opened and sealed in place.
//!
//! Invariant: a nonce is used once with a key. It is the vector of the key with the record's number (RFC 8446 5.3; RFC 5288 3
//! and RFC 7905 2 for TLS 1.2), and no number comes twice: each record sealed or opened takes one, be it empty, and a new key
//! comes with numbers of its own, from 0. They never wrap.

use rustls::ConnectionTrafficSecrets;

use super::aead::{Aead, Cipher, TAG_BYTES};
use super::record::{APPLICATION_DATA, HEADER_BYTES, Header};
use super::{Failure, RECORD_BYTES_MAX, TlsError, TlsVersion};

/// RFC 5288 3: of a nonce this is in the record.
const EXPLICIT_BYTES: usize = 8;
/// RFC 8446 5.5: an AES-GCM key is good for 2^24.5 full records.
pub(super) const AES_GCM_RECORDS_MAX: u64 = 1 << 24;

/// The key of one direction.
pub(super) struct Key {
    key: Aead,
    iv: [u8; 12],
    number: u64,
    /// Records that may be sealed with it.
    pub(super) records_max: u64,
    version: TlsVersion,
    /// Part of the nonce is in each record: AES-GCM of TLS 1.2.
    is_explicit: bool,
}

/// A record that was opened: its type, and where its content is.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Opened {
    pub(super) content_type: u8,
    pub(super) start: usize,
    pub(super) end: usize,
}

impl Key {
    pub(super) fn new(version: TlsVersion, number: u64, secrets: &ConnectionTrafficSecrets) -> Result<Key, TlsError> {
        let (cipher, key, iv) = match secrets {
            ConnectionTrafficSecrets::Aes128Gcm { key, iv } => (Cipher::Aes128Gcm, key, iv),
            ConnectionTrafficSecrets::Aes256Gcm { key, iv } => (Cipher::Aes256Gcm, key, iv),
            ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv } => (Cipher::Chacha20Poly1305, key, iv),
            _ => return Err(TlsError::new(Failure::Internal, "a cipher that is not known here")),
        };
        let unusable = || TlsError::new(Failure::Internal, "a key that cannot be used");
        let is_gcm = cipher != Cipher::Chacha20Poly1305;
        Ok(Key {
            key: Aead::new(cipher, key.as_ref()).map_err(|_| unusable())?,
            iv: iv.as_ref().try_into().map_err(|_| unusable())?,
            number,
            records_max: if is_gcm { AES_GCM_RECORDS_MAX } else { u64::MAX },
            version,
            is_explicit: is_gcm && version == TlsVersion::Tls12,
        })
    }

    /// Whether this is the last record but one that may be sealed: what comes next has to renew the key, or end.
    pub(super) fn is_worn(&self) -> bool {
        self.number.saturating_add(1) >= self.records_max
    }

    fn nonce(&self) -> [u8; 12] {
        let mut nonce = self.iv;
        nonce[4..].iter_mut().zip(self.number.to_be_bytes()).for_each(|(byte, of_number)| *byte ^= of_number);
        nonce
    }

    fn count(&mut self) -> Result<(), TlsError> {
        // RFC 8446 5.3: a sequence number MUST NOT wrap.
        let next = self.number.checked_add(1);
        self.number = next.ok_or_else(|| TlsError::new(Failure::Exhausted, "no more records with this key"))?;
        Ok(())
    }

    /// RFC 5246 6.2.3.3.
    fn aad_of_12(&self, content_type: u8, version: [u8; 2], len: usize) -> [u8; 13] {
        let mut aad = [0; 13];
        aad[..8].copy_from_slice(&self.number.to_be_bytes());
        aad[8] = content_type;
        aad[9..11].copy_from_slice(&version);
        aad[11..].copy_from_slice(&(len as u16).to_be_bytes());
        aad
    }

    /// Opens a whole record, header and all. What it leaves in `record` on failure is nobody's business.
    pub(super) fn open(&mut self, header: Header, record: &mut [u8]) -> Result<Opened, TlsError> {
        debug_assert_eq!(record.len(), header.record_len());
        let bad = || TlsError::new(Failure::BadRecordMac, "a record that was not sealed with the agreed key");
        let overflow = || TlsError::new(Failure::RecordOverflow, "more than 2^14 bytes in a record");
        let start = HEADER_BYTES + if self.is_explicit { EXPLICIT_BYTES } else { 0 };
        let sealed = record.get(start..).filter(|sealed| sealed.len() >= TAG_BYTES).ok_or_else(bad)?;
        let len = sealed.len() - TAG_BYTES;
        let mut nonce = self.nonce();
        if self.is_explicit {
            nonce[..4].copy_from_slice(&self.iv[..4]);
            nonce[4..].copy_from_slice(&record[HEADER_BYTES..start]);
        }
        let version = [header.bytes[1], header.bytes[2]];
        let opened = match self.version {
            TlsVersion::Tls12 => {
                let aad = self.aad_of_12(header.content_type(), version, len);
                self.key.open(nonce, &aad, &mut record[start..])
            }
            // RFC 8446 5.2: the additional data is the header.
            TlsVersion::Tls13 => self.key.open(nonce, &header.bytes, &mut record[start..]),
        };
        let opened = opened.map_err(|_| bad())?;
        let opened = &record[start..start + opened];
        let mut opened_record = Opened { content_type: header.content_type(), start, end: start + opened.len() };
        if self.version == TlsVersion::Tls13 {
            // RFC 8446 5.4: the type is the last byte that is not zero. What is longer than a record may be is, with its padding.
            if opened.len() > RECORD_BYTES_MAX + 1 {
                return Err(overflow());
            }
            let Some(last) = opened.iter().rposition(|byte| *byte != 0) else {
                return Err(TlsError::new(Failure::Protocol, "a record of zeros"));
            };
            opened_record.content_type = opened[last];
            opened_record.end = start + last;
        }
        if opened_record.end - start > RECORD_BYTES_MAX {
            return Err(overflow());
        }
        self.count()?;
        Ok(opened_record)
    }

    /// Begins a record behind what is in `out`; its content is to be appended.
    pub(super) fn begin(&self, out: &mut Vec<u8>) -> usize {
        let at = out.len();
        out.extend_from_slice(&[0; HEADER_BYTES]);
        if self.is_explicit {
            out.extend_from_slice(&self.nonce()[4..]);
        }
        at
    }

    /// Seals the record that was begun at `at` and has its content behind it.
    pub(super) fn seal(&mut self, content_type: u8, at: usize, out: &mut Vec<u8>) -> Result<(), TlsError> {
        let start = at + HEADER_BYTES + if self.is_explicit { EXPLICIT_BYTES } else { 0 };
        let nonce = self.nonce();
        let (opaque_type, content_len) = match self.version {
            TlsVersion::Tls12 => (content_type, out.len() - start),
            TlsVersion::Tls13 => {
                out.push(content_type);
                (APPLICATION_DATA, out.len() - start)
            }
        };
        let len = (out.len() - at - HEADER_BYTES + TAG_BYTES) as u16;
        let header = [opaque_type, 3, 3, len.to_be_bytes()[0], len.to_be_bytes()[1]];
        out[at..at + HEADER_BYTES].copy_from_slice(&header);
        let content = &mut out[start..];
        let tag = match self.version {
            TlsVersion::Tls12 => {
                let aad = self.aad_of_12(content_type, [3, 3], content_len);
                self.key.seal(nonce, &aad, content)
            }
            TlsVersion::Tls13 => self.key.seal(nonce, &header, content),
        };
        let tag = tag.map_err(|_| TlsError::new(Failure::Internal, "a record could not be sealed"))?;
        out.extend_from_slice(&tag);
        self.count()
    }
}
