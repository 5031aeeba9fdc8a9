//! What a handshake has agreed on.

use std::fmt;

/// The version of TLS that a connection speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum TlsVersion {
    /// TLS 1.2 (RFC 5246).
    Tls12,
    /// TLS 1.3 (RFC 8446).
    Tls13,
}

impl fmt::Display for TlsVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            TlsVersion::Tls12 => "TLSv1.2",
            TlsVersion::Tls13 => "TLSv1.3",
        })
    }
}

/// What a connection's handshake has agreed on, and who the peer has shown to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsInfo {
    pub(super) version: TlsVersion,
    pub(super) cipher_suite: &'static str,
    pub(super) key_exchange: Option<&'static str>,
    pub(super) alpn: Option<Box<[u8]>>,
    pub(super) server_name: Option<Box<str>>,
    pub(super) is_resumed: bool,
    pub(super) peer_certificates: Box<[Box<[u8]>]>,
}

impl TlsInfo {
    /// The version.
    pub fn version(&self) -> TlsVersion {
        self.version
    }

    /// The cipher suite, as IANA names it: `TLS_AES_128_GCM_SHA256`.
    pub fn cipher_suite(&self) -> &'static str {
        self.cipher_suite
    }

    /// The key exchange of this handshake, as IANA names it: `X25519MLKEM768`. `None` where the keys come of an earlier one
    /// alone.
    pub fn key_exchange(&self) -> Option<&'static str> {
        self.key_exchange
    }

    /// The application protocol that was agreed on (RFC 7301), such as `http/1.1`, if the client has offered any.
    pub fn alpn(&self) -> Option<&[u8]> {
        self.alpn.as_deref()
    }

    /// The name of the server that the client has asked for (RFC 6066 3), if it has.
    pub fn server_name(&self) -> Option<&str> {
        self.server_name.as_deref()
    }

    /// Whether the handshake went on from an earlier one of the same peer (RFC 8446 2.2).
    pub fn is_resumed(&self) -> bool {
        self.is_resumed
    }

    /// The certificate that the peer has shown, and was found good: DER, as X.509 has it (RFC 5280).
    pub fn peer_certificate(&self) -> Option<&[u8]> {
        self.peer_certificates.first().map(|der| &**der)
    }

    /// The same with those that it was signed by, in the peer's order.
    pub fn peer_certificates(&self) -> impl ExactSizeIterator<Item = &[u8]> {
        self.peer_certificates.iter().map(|der| &**der)
    }
}
