//! What a handshake has agreed on.

use std::fmt;

/// The version of TLS that a connection speaks.
///
/// ```
/// use ringwire::{HttpError, Request, TlsVersion};
///
/// fn only_new(request: &mut Request) -> Result<(), HttpError> {
///     match request.tls().map(|tls| tls.version()) {
///         Some(version) if version >= TlsVersion::Tls13 => Ok(()),
///         _ => Err(HttpError::forbidden("TLS 1.3, please")),
///     }
/// }
///
/// assert_eq!(TlsVersion::Tls13.to_string(), "TLSv1.3");
/// ```
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
///
/// ```
/// use ringwire::Request;
///
/// fn line(request: &Request) -> String {
///     match request.tls() {
///         Some(tls) => format!("{} {} for {}", tls.version(), tls.cipher_suite(), tls.server_name().unwrap_or("no name")),
///         None => "in the clear".to_owned(),
///     }
/// }
///
/// assert_eq!(line(&ringwire::testing::request("GET", "/").build()), "in the clear");
/// ```
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
    ///
    /// ```no_run
    /// # fn example(tls: &ringwire::TlsInfo) {
    /// if tls.version() < ringwire::TlsVersion::Tls13 {
    ///     println!("an old client: {}", tls.version());
    /// }
    /// # }
    /// ```
    pub fn version(&self) -> TlsVersion {
        self.version
    }

    /// The cipher suite, as IANA names it: `TLS_AES_128_GCM_SHA256`.
    ///
    /// ```no_run
    /// # fn example(tls: &ringwire::TlsInfo) {
    /// if !tls.cipher_suite().contains("GCM") {
    ///     println!("a client without AES in hardware: {}", tls.cipher_suite());
    /// }
    /// # }
    /// ```
    pub fn cipher_suite(&self) -> &'static str {
        self.cipher_suite
    }

    /// The key exchange of this handshake, as IANA names it: `X25519MLKEM768`. `None` where the keys come of an earlier one
    /// alone.
    ///
    /// ```no_run
    /// # fn example(tls: &ringwire::TlsInfo) {
    /// if tls.key_exchange() == Some("X25519MLKEM768") {
    ///     println!("what is recorded today cannot be read by the computers of tomorrow");
    /// }
    /// # }
    /// ```
    pub fn key_exchange(&self) -> Option<&'static str> {
        self.key_exchange
    }

    /// The application protocol that was agreed on (RFC 7301), such as `http/1.1`, if the client has offered any.
    ///
    /// ```no_run
    /// # fn example(tls: &ringwire::TlsInfo) {
    /// if tls.alpn() == Some(b"http/1.1".as_slice()) {
    ///     println!("as browsers ask for WebSockets");
    /// }
    /// # }
    /// ```
    pub fn alpn(&self) -> Option<&[u8]> {
        self.alpn.as_deref()
    }

    /// The name of the server that the client has asked for (RFC 6066 3), if it has.
    ///
    /// ```no_run
    /// # fn example(tls: &ringwire::TlsInfo) {
    /// match tls.server_name() {
    ///     Some(name) => println!("asked for as {name}"),
    ///     None => println!("asked for by its address"),
    /// }
    /// # }
    /// ```
    pub fn server_name(&self) -> Option<&str> {
        self.server_name.as_deref()
    }

    /// Whether the handshake went on from an earlier one of the same peer (RFC 8446 2.2).
    ///
    /// ```no_run
    /// # fn example(tls: &ringwire::TlsInfo) {
    /// println!("{} handshake", if tls.is_resumed() { "a short" } else { "a full" });
    /// # }
    /// ```
    pub fn is_resumed(&self) -> bool {
        self.is_resumed
    }

    /// The certificate that the peer has shown, and was found good: DER, as X.509 has it (RFC 5280).
    ///
    /// ```
    /// use ringwire::{HttpError, Request};
    /// use sha2::{Digest, Sha256};
    ///
    /// const KNOWN: [[u8; 32]; 1] = [[0x42; 32]];
    ///
    /// fn only_known(request: &mut Request) -> Result<(), HttpError> {
    ///     let der = request.tls().and_then(|tls| tls.peer_certificate());
    ///     match der.map(|der| <[u8; 32]>::from(Sha256::digest(der))) {
    ///         Some(print) if KNOWN.contains(&print) => Ok(()),
    ///         _ => Err(HttpError::forbidden("who are you?")),
    ///     }
    /// }
    /// ```
    pub fn peer_certificate(&self) -> Option<&[u8]> {
        self.peer_certificates.first().map(|der| &**der)
    }

    /// The same with those that it was signed by, in the peer's order.
    ///
    /// ```no_run
    /// # fn example(tls: &ringwire::TlsInfo) {
    /// let sizes: Vec<usize> = tls.peer_certificates().map(<[u8]>::len).collect();
    /// println!("a chain of {} certificates, {sizes:?} bytes", sizes.len());
    /// # }
    /// ```
    pub fn peer_certificates(&self) -> impl ExactSizeIterator<Item = &[u8]> {
        self.peer_certificates.iter().map(|der| &**der)
    }
}
