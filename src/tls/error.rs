//! Why a session has failed.

use std::fmt;

/// A session's end before its time. What it shows is fit for a log: a peer's text is cut and escaped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsError {
    failure: Failure,
    text: String,
}

/// The kind of a [`TlsError`].
///
/// ```no_run
/// use ringwire::client::{ClientError, connect, tls::Failure};
///
/// # async fn example() {
/// match connect("wss://chat.example.org/").await {
///     Err(ClientError::Tls(error)) if error.failure() == Failure::PeerCertificate => eprintln!("not trusted: {error}"),
///     Err(ClientError::Tls(error)) if error.failure() == Failure::PlainHttp => eprintln!("is it ws://, perhaps?"),
///     other => println!("{:?}", other.map(drop)),
/// }
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
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
    /// All of them, in the order of their numbers.
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
        match &error {
            E::InvalidCertificate(why) => TlsError::new(failure, certificate_text(why)),
            E::AlertReceived(alert) => TlsError::new(failure, alert_text(u8::from(*alert))),
            _ => TlsError::new(failure, crate::quote::excerpt(&error)),
        }
    }
}

/// What a peer has broken off with (RFC 8446 6).
#[cfg(feature = "tls")]
pub(super) fn alert_text(alert: u8) -> String {
    let name = rustls::AlertDescription::from(alert).as_str().unwrap_or("unknown");
    format!("the peer broke off: {name} ({alert})")
}

/// What is wrong with a peer's certificate.
#[cfg(feature = "tls")]
fn certificate_text(why: &rustls::CertificateError) -> String {
    use rustls::CertificateError as E;
    const DAY_S: u64 = 86_400;
    let days = |from: &rustls::pki_types::UnixTime, to: &rustls::pki_types::UnixTime| {
        to.as_secs().saturating_sub(from.as_secs()) / DAY_S
    };
    match why {
        E::UnknownIssuer => "the peer's certificate is signed by nobody that is trusted".into(),
        E::BadSignature => "the peer's certificate is not signed by whom it says".into(),
        E::Expired => "the peer's certificate has expired".into(),
        E::ExpiredContext { time, not_after } => {
            format!("the peer's certificate has expired {} days ago", days(not_after, time))
        }
        E::NotValidYet => "the peer's certificate is not valid yet".into(),
        E::NotValidYetContext { time, not_before } => {
            format!("the peer's certificate is not valid yet, for {} days", days(time, not_before))
        }
        E::Revoked => "the peer's certificate was revoked".into(),
        E::NotValidForName => "the peer's certificate is not for the name that was asked for".into(),
        E::NotValidForNameContext { expected, presented } => {
            const NAMES_MAX: usize = 3;
            // rustls gives them as `DnsName("a.test")`.
            let name = |name: &String| {
                let inner = name.split_once('(').and_then(|(_, name)| name.strip_suffix(')')).unwrap_or(name);
                crate::quote::quoted(inner.trim_matches('"')).to_string()
            };
            let mut names: Vec<String> = presented.iter().take(NAMES_MAX).map(name).collect();
            if presented.len() > NAMES_MAX {
                names.push(format!("and {} more", presented.len() - NAMES_MAX));
            }
            let names = if names.is_empty() { "no name".into() } else { names.join(", ") };
            let expected = crate::quote::quoted(&*expected.to_str()).to_string();
            format!("the peer's certificate is not for {expected}: it is for {names}")
        }
        E::Other(other) if other.to_string().contains("CaUsedAsEndEntity") => {
            "the peer's certificate is that of an authority (CA:TRUE), and none of a server's or a client's own".into()
        }
        why => format!("the peer's certificate is not accepted: {}", crate::quote::excerpt(why)),
    }
}
