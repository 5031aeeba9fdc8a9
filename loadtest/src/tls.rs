//! How servers of `wss://` are spoken to: whom they have to be, what is shown to them, which key exchanges they are offered.
//!
//! It is told on the command line or in a scenario file. Files are read where all files of a run are, so that an agent opens none.

mod key_exchanges;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use clap::Args;
use ringwire::tls::Connector;

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
        let read = |path: &Path| files.read(path).map_err(|error| format!("{}: {error}", path.display()));
        let mut builder = Connector::builder();
        for file in &self.ca {
            builder = if files.are_here() { builder.ca_file(file) } else { builder.ca_pem(read(file)?) };
        }
        if self.insecure {
            builder = builder.dangerous_accept_any_certificate();
        }
        if let (Some(certificate), Some(key)) = (&self.client_cert, &self.client_key) {
            builder = match files.are_here() {
                true => builder.certificate_files(certificate, key),
                false => builder.certificate_pem(read(certificate)?, read(key)?),
            };
        }
        if let Some(key_exchanges) = &self.key_exchange {
            builder = builder.key_exchange_groups(key_exchanges.groups());
        }
        builder = match self.no_resumption {
            true => builder.without_resumption(),
            false => builder.session_store(Arc::new(Tickets::default())),
        };
        builder.build().map_err(|error| error.to_string())
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
