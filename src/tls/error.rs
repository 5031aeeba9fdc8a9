//! Why a session has failed.

use std::fmt;

/// A session's end before its time. What it shows is fit for a log: a peer's text is cut and escaped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsError {
    failure: Failure,
    text: String,
}

/// The kind of a [`TlsError`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
#[allow(unnameable_types, reason = "only for the inside")]
pub enum Failure {
    /// The peer speaks HTTP, not TLS.
    PlainHttp,
    /// The peer speaks something else that is not TLS.
    NotTls,
    /// The two have no version, cipher suite, key exchange or protocol in common.
    NothingInCommon,
    /// There is no certificate for the name that the client has asked for.
    NoCertificate,
    /// The peer has shown no certificate, or one that is not accepted.
    PeerCertificate,
    /// The peer has broken off with an alert.
    Alert,
    /// A record's authentication tag is wrong.
    BadRecordMac,
    /// A record is longer than it may be.
    RecordOverflow,
    /// A message that has no place here, or is not what it should be.
    Protocol,
    /// Too many records that say nothing.
    Flood,
    /// The connection ended without a word: what came last may be missing (RFC 8446 6.1).
    Truncated,
    /// The keys have sealed as many records as they may, and TLS 1.2 has no way to renew them.
    Exhausted,
    /// Ours: the configuration, or memory.
    Internal,
}

impl Failure {
    /// All of them, in the order of [`Failure::index`].
    pub const ALL: [Failure; 13] = [
        Failure::PlainHttp,
        Failure::NotTls,
        Failure::NothingInCommon,
        Failure::NoCertificate,
        Failure::PeerCertificate,
        Failure::Alert,
        Failure::BadRecordMac,
        Failure::RecordOverflow,
        Failure::Protocol,
        Failure::Flood,
        Failure::Truncated,
        Failure::Exhausted,
        Failure::Internal,
    ];

    /// A short name, as metrics and logs have it.
    pub fn name(self) -> &'static str {
        match self {
            Failure::PlainHttp => "plain_http",
            Failure::NotTls => "not_tls",
            Failure::NothingInCommon => "nothing_in_common",
            Failure::NoCertificate => "no_certificate",
            Failure::PeerCertificate => "peer_certificate",
            Failure::Alert => "alert",
            Failure::BadRecordMac => "bad_record_mac",
            Failure::RecordOverflow => "record_overflow",
            Failure::Protocol => "protocol",
            Failure::Flood => "flood",
            Failure::Truncated => "truncated",
            Failure::Exhausted => "exhausted",
            Failure::Internal => "internal",
        }
    }
}

impl TlsError {
    #[cfg(feature = "tls")]
    pub(super) fn new(failure: Failure, text: impl Into<String>) -> TlsError {
        TlsError { failure, text: text.into() }
    }

    /// The kind.
    pub fn failure(&self) -> Failure {
        self.failure
    }

    /// The alert that the peer is told by (RFC 8446 6); `None` where there is nobody who would understand.
    #[cfg(feature = "tls")]
    pub(super) fn alert(&self) -> Option<u8> {
        match self.failure {
            // unexpected_message, bad_record_mac, record_overflow, internal_error.
            Failure::Protocol | Failure::Flood => Some(10),
            Failure::BadRecordMac => Some(20),
            Failure::RecordOverflow => Some(22),
            Failure::Internal => Some(80),
            _ => None,
        }
    }
}

impl fmt::Display for TlsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for TlsError {}

#[cfg(feature = "tls")]
impl From<rustls::Error> for TlsError {
    fn from(error: rustls::Error) -> TlsError {
        use rustls::Error as E;
        let failure = match &error {
            E::PeerIncompatible(_) | E::NoApplicationProtocol => Failure::NothingInCommon,
            E::NoCertificatesPresented | E::InvalidCertificate(_) | E::InvalidCertRevocationList(_) => {
                Failure::PeerCertificate
            }
            E::AlertReceived(_) => Failure::Alert,
            E::DecryptError => Failure::BadRecordMac,
            E::PeerSentOversizedRecord => Failure::RecordOverflow,
            E::General(text) if text.contains("no server certificate chain resolved") => Failure::NoCertificate,
            E::General(_) | E::EncryptError | E::FailedToGetCurrentTime | E::FailedToGetRandomBytes => {
                Failure::Internal
            }
            _ => Failure::Protocol,
        };
        TlsError::new(failure, crate::quote::excerpt(&error))
    }
}
