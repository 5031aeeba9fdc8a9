//! How servers of `wss://` are spoken to: whom they have to be, what is shown to them, which key exchanges they are offered.
//!
//! It is told on the command line or in a scenario file, and becomes the configuration of rustls that makes the sessions. Files
//! are read where all files of a run are, so that an agent opens none.

mod key_exchanges;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use clap::Args;
use ringwire::tls::Connector;
use rustls::{
    CipherSuite, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
    client::{
        Resumption,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{WebPkiSupportedAlgorithms, aws_lc_rs::default_provider, verify_tls12_signature, verify_tls13_signature},
    pki_types::{
        CertificateDer, PrivateKeyDer, ServerName, UnixTime,
        pem::{Error as PemError, PemObject as _},
    },
};

pub(crate) use self::key_exchanges::KeyExchanges;
use crate::{files::Files, tickets::Tickets};

/// How servers of wss:// URLs are spoken to.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "TLS")]
pub(crate) struct Tls {
    /// PEM file of authorities to trust, in place of those of this machine; may be repeated.
    #[arg(long, value_name = "FILE")]
    pub(crate) ca: Vec<PathBuf>,
    /// Accept whatever certificate a server shows.
    #[arg(long, conflicts_with = "ca")]
    pub(crate) insecure: bool,
    /// PEM file of the certificate to show to servers that ask for one.
    #[arg(long, value_name = "FILE", requires = "client_key")]
    pub(crate) client_cert: Option<PathBuf>,
    /// PEM file of its key.
    #[arg(long, value_name = "FILE", requires = "client_cert")]
    pub(crate) client_key: Option<PathBuf>,
    /// Make a full handshake for every connection: resume no session of an earlier one.
    #[arg(long)]
    pub(crate) no_resumption: bool,
    /// Offer these key exchanges alone, comma-separated, the wanted one first: x25519mlkem768, x25519, secp256r1, secp384r1. By
    /// default all of them, in this order.
    #[arg(long, value_name = "NAMES", value_parser = KeyExchanges::parse)]
    pub(crate) key_exchange: Option<KeyExchanges>,
}

impl Tls {
    /// Whether any of it is given.
    pub(crate) fn is_asked_for(&self) -> bool {
        !self.ca.is_empty()
            || self.insecure
            || self.client_cert.is_some()
            || self.no_resumption
            || self.key_exchange.is_some()
    }

    /// The files that it names.
    pub(crate) fn files(&self) -> impl Iterator<Item = &PathBuf> {
        self.ca.iter().chain(&self.client_cert).chain(&self.client_key)
    }

    /// What is not given here is as it is there.
    pub(crate) fn or(mut self, other: &Tls) -> Tls {
        if self.ca.is_empty() && !self.insecure {
            (self.ca, self.insecure) = (other.ca.clone(), other.insecure);
        }
        if self.client_cert.is_none() {
            (self.client_cert, self.client_key) = (other.client_cert.clone(), other.client_key.clone());
        }
        self.no_resumption |= other.no_resumption;
        self.key_exchange = self.key_exchange.or_else(|| other.key_exchange.clone());
        self
    }

    /// What makes the sessions of one target: tickets of one server are of no use to another.
    pub(crate) fn connector(&self, files: &Files) -> Result<Connector, String> {
        let mut provider = default_provider();
        // As browsers do: servers go by the client's order.
        provider.cipher_suites.sort_by_key(|suite| !is_aes_128(suite.suite()));
        if let Some(key_exchanges) = &self.key_exchange {
            provider.kx_groups = key_exchanges.groups();
        }
        let algorithms = provider.signature_verification_algorithms;
        let builder = ClientConfig::builder_with_provider(Arc::new(provider));
        let builder = builder.with_safe_default_protocol_versions().map_err(|error| error.to_string())?;
        let builder = match self.insecure {
            true => builder.dangerous().with_custom_certificate_verifier(Arc::new(AcceptsAny(algorithms))),
            false => builder.with_root_certificates(self.roots(files)?),
        };
        let mut config = match (&self.client_cert, &self.client_key) {
            (Some(certificate), Some(key)) => {
                let (chain, private) = (certificates(files, certificate)?, private_key(files, key)?);
                builder.with_client_auth_cert(chain, private).map_err(|error| match error {
                    rustls::Error::InconsistentKeys(_) => {
                        wrong(key, &format!("not the key of the certificate in {}", certificate.display()))
                    }
                    error => wrong(key, &error.to_string()),
                })?
            }
            _ => builder.with_no_client_auth(),
        };
        config.resumption = match self.no_resumption {
            true => Resumption::disabled(),
            false => Resumption::store(Arc::new(Tickets::default())),
        };
        Ok(Connector::new(config))
    }

    fn roots(&self, files: &Files) -> Result<RootCertStore, String> {
        let mut roots = RootCertStore::empty();
        for file in &self.ca {
            for certificate in certificates(files, file)? {
                roots.add(certificate).map_err(|error| wrong(file, &error.to_string()))?;
            }
        }
        if self.ca.is_empty() {
            let found = rustls_native_certs::load_native_certs();
            // Some that are there are old enough to be no certificates any more.
            let (added, _) = roots.add_parsable_certificates(found.certs);
            if added == 0 {
                let why = found.errors.first().map(|error| format!(" ({error})")).unwrap_or_default();
                return Err(format!(
                    "this machine has no certificates of authorities{why}: install them (ca-certificates), or use --ca"
                ));
            }
        }
        Ok(roots)
    }
}

fn is_aes_128(suite: CipherSuite) -> bool {
    suite.as_str().is_some_and(|name| name.contains("AES_128"))
}

fn wrong(file: &Path, what: &str) -> String {
    format!("{}: {what}", file.display())
}

fn certificates(files: &Files, file: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let bytes = files.read(file).map_err(|error| wrong(file, &error.to_string()))?;
    let found: Result<Vec<_>, PemError> = CertificateDer::pem_slice_iter(&bytes).collect();
    match found {
        Ok(found) if found.is_empty() => Err(wrong(file, "there is no certificate in it")),
        Ok(found) => Ok(found),
        Err(error) => Err(wrong(file, &format!("not PEM: {error}"))),
    }
}

fn private_key(files: &Files, file: &Path) -> Result<PrivateKeyDer<'static>, String> {
    let bytes = files.read(file).map_err(|error| wrong(file, &error.to_string()))?;
    PrivateKeyDer::from_pem_slice(&bytes).map_err(|error| match error {
        PemError::NoItemsFound => wrong(file, "there is no private key in it"),
        error => wrong(file, &format!("not PEM: {error}")),
    })
}

/// Believes everybody to be who he says, and still has him prove that he has the key.
#[derive(Debug)]
struct AcceptsAny(WebPkiSupportedAlgorithms);

impl ServerCertVerifier for AcceptsAny {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.0)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.0)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tls(ca: &[&str], insecure: bool, cert: Option<&str>, no_resumption: bool, key_exchange: Option<&str>) -> Tls {
        Tls {
            ca: ca.iter().map(PathBuf::from).collect(),
            insecure,
            client_cert: cert.map(|name| format!("{name}.pem").into()),
            client_key: cert.map(|name| format!("{name}.key").into()),
            no_resumption,
            key_exchange: key_exchange.map(|names| KeyExchanges::parse(names).expect(names)),
        }
    }

    /// Kills: a file's authorities beside those of the command line; a certificate with the other's key.
    #[test]
    fn what_the_command_line_says_stands_in_place_of_the_files() {
        let file = || tls(&["file.pem"], false, Some("file"), false, Some("secp256r1"));
        let rows = [
            (tls(&[], false, None, false, None), file()),
            (
                tls(&["own.pem"], false, None, false, None),
                tls(&["own.pem"], false, Some("file"), false, Some("secp256r1")),
            ),
            (tls(&[], true, None, false, None), tls(&[], true, Some("file"), false, Some("secp256r1"))),
            (
                tls(&[], false, Some("own"), false, None),
                tls(&["file.pem"], false, Some("own"), false, Some("secp256r1")),
            ),
            (tls(&[], false, None, true, None), tls(&["file.pem"], false, Some("file"), true, Some("secp256r1"))),
            (
                tls(&[], false, None, false, Some("x25519")),
                tls(&["file.pem"], false, Some("file"), false, Some("x25519")),
            ),
        ];
        for (own, expected) in rows {
            assert_eq!(format!("{:?}", own.or(&file())), format!("{expected:?}"));
        }
        for asked in [
            tls(&["a"], false, None, false, None),
            tls(&[], true, None, false, None),
            tls(&[], false, Some("a"), false, None),
            tls(&[], false, None, true, None),
            tls(&[], false, None, false, Some("x25519")),
        ] {
            assert!(asked.is_asked_for() && !Tls::default().is_asked_for(), "{asked:?}");
        }
    }
}
