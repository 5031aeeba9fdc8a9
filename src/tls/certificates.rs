//! Certificates of a server: read from files, judged, and chosen by the name that a client asks for.
//!
//! A pair that cannot be used is refused here, with one line that names the file and says why, before anything goes by it.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::{Error as PemError, PemObject as _};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{RootCertStore, ServerConfig};
use x509_cert::Certificate as X509;
use x509_cert::der::Decode as _;
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;

use crate::config::{ClientAuth, Config, TlsMin};

/// Seconds of a day.
const DAY_S: u64 = 86_400;

/// What a server's TLS is made of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Material {
    /// Files of certificates and of their keys.
    pub pairs: Vec<(PathBuf, PathBuf)>,
    /// Files of those by which the certificates of clients must be signed.
    pub client_cas: Vec<PathBuf>,
    /// What is asked of clients.
    pub clients: Clients,
    /// Whether TLS 1.2 is spoken, too.
    pub speaks_tls12: bool,
}

/// What is asked of clients.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Clients {
    /// Nothing.
    #[default]
    NotAsked,
    /// A certificate, if they have one.
    Optional,
    /// A certificate.
    Required,
}

/// A certificate that can be used, and what is to be known of it.
#[derive(Clone, Debug)]
pub struct Certificate {
    key: Arc<CertifiedKey>,
    /// The file that it came from.
    pub path: PathBuf,
    /// The names that it is for, in lower case.
    pub names: Vec<String>,
    /// When it begins to be good, in seconds of Unix time.
    pub not_before_unix_s: u64,
    /// When it has expired.
    pub not_after_unix_s: u64,
}

/// Why files cannot be used.
#[derive(Debug)]
#[non_exhaustive]
pub enum CertificateError {
    /// A file cannot be read.
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file does not hold what it should.
    Content {
        /// Which.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// The key is of another certificate.
    Mismatch {
        /// The certificate's file.
        certificate: PathBuf,
        /// The key's.
        key: PathBuf,
    },
    /// It is not good at this time.
    Time {
        /// The certificate's file.
        path: PathBuf,
        /// Seconds until it is good, or since it was: negative.
        good_in_s: i64,
    },
}

impl fmt::Display for CertificateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CertificateError::Read { path, source } => write!(f, "{}: {source}", path.display()),
            CertificateError::Content { path, what } => write!(f, "{}: {what}", path.display()),
            CertificateError::Mismatch { certificate, key } => {
                write!(f, "{}: not the key of the certificate in {}", key.display(), certificate.display())
            }
            CertificateError::Time { path, good_in_s } if *good_in_s > 0 => {
                write!(f, "{}: the certificate is not valid yet, for {good_in_s} seconds", path.display())
            }
            CertificateError::Time { path, good_in_s } => {
                write!(f, "{}: the certificate has expired {} days ago", path.display(), good_in_s.unsigned_abs() / DAY_S)
            }
        }
    }
}

impl std::error::Error for CertificateError {}

fn content(path: &Path, what: impl Into<String>) -> CertificateError {
    CertificateError::Content { path: path.to_owned(), what: what.into() }
}

fn read(path: &Path) -> Result<Vec<u8>, CertificateError> {
    fs::read(path).map_err(|source| CertificateError::Read { path: path.to_owned(), source })
}

fn read_certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, CertificateError> {
    let pem = read(path)?;
    let found: Result<Vec<_>, PemError> = CertificateDer::pem_slice_iter(&pem).collect();
    let found = found.map_err(|error| content(path, format!("not PEM: {error}")))?;
    if found.is_empty() {
        return Err(content(path, "there is no certificate in it"));
    }
    Ok(found)
}

impl Certificate {
    /// One that ends within so many days is worth a word.
    pub const DAYS_LEFT_FEW: u64 = 14;

    /// Reads a pair.
    ///
    /// # Errors
    /// If it cannot be used at this time.
    pub fn read(
        certificate: &Path,
        key: &Path,
        provider: &CryptoProvider,
        now_unix_s: u64,
    ) -> Result<Certificate, CertificateError> {
        let chain = read_certificates(certificate)?;
        let parsed = X509::from_der(&chain[0]).map_err(|error| content(certificate, format!("no certificate: {error}")))?;
        let private = PrivateKeyDer::from_pem_slice(&read(key)?).map_err(|error| match error {
            PemError::NoItemsFound => content(key, "there is no private key in it"),
            error => content(key, format!("not PEM: {error}")),
        })?;
        let names = names_of(&parsed).map_err(|error| content(certificate, format!("its names: {error}")))?;
        let validity = &parsed.tbs_certificate.validity;
        let not_before_unix_s = validity.not_before.to_unix_duration().as_secs();
        let not_after_unix_s = validity.not_after.to_unix_duration().as_secs();
        let pair = CertifiedKey::from_der(chain, private, provider).map_err(|error| match error {
            rustls::Error::InconsistentKeys(_) => {
                CertificateError::Mismatch { certificate: certificate.to_owned(), key: key.to_owned() }
            }
            error => content(key, error.to_string()),
        })?;
        if now_unix_s < not_before_unix_s || now_unix_s >= not_after_unix_s {
            let nearest = if now_unix_s < not_before_unix_s { not_before_unix_s } else { not_after_unix_s };
            let good_in_s = nearest.cast_signed() - now_unix_s.cast_signed();
            return Err(CertificateError::Time { path: certificate.to_owned(), good_in_s });
        }
        let path = certificate.to_owned();
        Ok(Certificate { key: Arc::new(pair), path, names, not_before_unix_s, not_after_unix_s })
    }

    /// As [`Certificate::read`], for whoever only wants to know whether it can be used.
    ///
    /// # Errors
    /// If it cannot.
    pub fn read_alone(certificate: &Path, key: &Path, now_unix_s: u64) -> Result<Certificate, CertificateError> {
        Certificate::read(certificate, key, &rustls::crypto::aws_lc_rs::default_provider(), now_unix_s)
    }

    /// Whole days that it is still good for.
    pub fn days_left(&self, now_unix_s: u64) -> u64 {
        self.not_after_unix_s.saturating_sub(now_unix_s) / DAY_S
    }

    /// How well it is for a name: exactly, by a wildcard (RFC 6125 6.4.3), or not.
    fn fits(&self, name: &str) -> Option<Fit> {
        if self.names.iter().any(|own| own == name) {
            return Some(Fit::Exact);
        }
        let (_, rest) = name.split_once('.')?;
        let is_by_wildcard = self.names.iter().any(|own| own.strip_prefix("*.") == Some(rest));
        is_by_wildcard.then_some(Fit::Wildcard)
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Fit {
    Exact,
    Wildcard,
}

/// The names of hosts that a certificate is for (RFC 5280 4.2.1.6): those of its alternative names; addresses as text.
fn names_of(certificate: &X509) -> Result<Vec<String>, x509_cert::der::Error> {
    let mut names = Vec::new();
    if let Some((_, found)) = certificate.tbs_certificate.get::<SubjectAltName>()? {
        for name in found.0 {
            match name {
                GeneralName::DnsName(name) => names.push(name.as_str().to_ascii_lowercase()),
                GeneralName::IpAddress(address) => match address.as_bytes() {
                    [a, b, c, d] => names.push(std::net::Ipv4Addr::new(*a, *b, *c, *d).to_string()),
                    bytes => names.extend(
                        <[u8; 16]>::try_from(bytes).ok().map(|bytes| std::net::Ipv6Addr::from(bytes).to_string()),
                    ),
                },
                _ => {}
            }
        }
    }
    Ok(names)
}

/// The certificate for the name that a client asks for: the first that has it, else the first that has it by a wildcard, else
/// the first of all.
#[derive(Debug)]
struct ByName(Vec<Certificate>);

impl ByName {
    fn of(&self, name: Option<&str>) -> Option<&Certificate> {
        let name = name.unwrap_or_default().to_ascii_lowercase();
        let fitting = |wanted| self.0.iter().find(|certificate| certificate.fits(&name) == Some(wanted));
        fitting(Fit::Exact).or_else(|| fitting(Fit::Wildcard)).or(self.0.first())
    }
}

impl ResolvesServerCert for ByName {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.of(hello.server_name()).map(|certificate| Arc::clone(&certificate.key))
    }
}

impl Material {
    /// What the settings say.
    pub fn of(config: &Config) -> Material {
        Material {
            pairs: config.tls_cert.0.iter().cloned().zip(config.tls_key.0.iter().cloned()).collect(),
            client_cas: config.tls_client_ca.0.clone(),
            clients: match config.tls_client_auth {
                ClientAuth::Off => Clients::NotAsked,
                ClientAuth::Optional => Clients::Optional,
                ClientAuth::Required => Clients::Required,
            },
            speaks_tls12: config.tls_min == TlsMin::Tls12,
        }
    }

    /// Every file of it.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        let pairs = self.pairs.iter().flat_map(|(certificate, key)| [certificate, key]);
        pairs.chain(&self.client_cas).map(PathBuf::as_path)
    }

    /// Reads all of it.
    ///
    /// # Errors
    /// The first file that cannot be used at this time.
    pub fn read(&self, now_unix_s: u64) -> Result<(ServerConfig, Vec<Certificate>), CertificateError> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let certificates = self
            .pairs
            .iter()
            .map(|(certificate, key)| Certificate::read(certificate, key, &provider, now_unix_s))
            .collect::<Result<Vec<_>, _>>()?;
        let versions = if self.speaks_tls12 { rustls::ALL_VERSIONS } else { &[&rustls::version::TLS13] };
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(versions)
            .unwrap_or_else(|error| unreachable!("the provider has suites of each version: {error}"));
        let builder = match self.clients {
            Clients::NotAsked => builder.with_no_client_auth(),
            Clients::Optional | Clients::Required => builder.with_client_cert_verifier(self.verifier(provider)?),
        };
        let mut config = builder.with_cert_resolver(Arc::new(ByName(certificates.clone())));
        // A ticket is good for one connection, and who comes again has one; a browser's page as a rule has no more. Each costs
        // as much as a record.
        config.send_tls13_tickets = 1;
        Ok((config, certificates))
    }

    fn verifier(
        &self,
        provider: Arc<CryptoProvider>,
    ) -> Result<Arc<dyn rustls::server::danger::ClientCertVerifier>, CertificateError> {
        let mut roots = RootCertStore::empty();
        for path in &self.client_cas {
            for certificate in read_certificates(path)? {
                roots.add(certificate).map_err(|error| content(path, error.to_string()))?;
            }
        }
        let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
        let builder = if self.clients == Clients::Optional { builder.allow_unauthenticated() } else { builder };
        let name = self.client_cas.first().map_or_else(|| Path::new("RINGWIRE_TLS_CLIENT_CA"), PathBuf::as_path);
        builder.build().map_err(|error| content(name, error.to_string()))
    }
}

#[cfg(test)]
#[path = "certificates_tests.rs"]
mod tests;
