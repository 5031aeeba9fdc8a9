//! Authorities, the certificates that they sign, and files of both: for the tests in the crate and for those beside it.
#![allow(dead_code, unreachable_pub, reason = "each test uses a part of it")]

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, date_time_ymd};
use rustls::RootCertStore;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

#[path = "folder.rs"]
mod folder;
pub use folder::Folder;

fn next_number() -> u32 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// Who signs certificates.
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    pub fn new() -> Authority {
        Authority::with_key(KeyPair::generate().expect("a key"))
    }

    pub fn with_key(key: KeyPair) -> Authority {
        let mut params = CertificateParams::new(Vec::<String>::new()).expect("no names");
        params.distinguished_name.push(DnType::CommonName, format!("authority {}", next_number()));
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Authority(CertifiedIssuer::self_signed(params, key).expect("an authority"))
    }

    pub fn certificate(&self) -> CertificateDer<'static> {
        self.0.der().clone()
    }

    pub fn pem(&self) -> String {
        self.0.pem()
    }

    /// What trusts it alone.
    pub fn roots(&self) -> Arc<RootCertStore> {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate()).expect("an authority");
        Arc::new(roots)
    }

    /// A certificate for these names, good for a century.
    pub fn sign(&self, names: &[&str]) -> Issued {
        self.sign_with(names, |_| ())
    }

    /// One that is good until the first day of this year.
    pub fn sign_until(&self, names: &[&str], until: i32) -> Issued {
        self.sign_with(names, |params| params.not_after = date_time_ymd(until, 1, 1))
    }

    pub fn sign_with(&self, names: &[&str], change: impl FnOnce(&mut CertificateParams)) -> Issued {
        let (params, key) = params(names, change);
        let certificate = params.signed_by(&key, &self.0).expect("a certificate");
        Issued { certificate: certificate.der().clone(), certificate_pem: certificate.pem(), key }
    }
}

fn params(names: &[&str], change: impl FnOnce(&mut CertificateParams)) -> (CertificateParams, KeyPair) {
    let names: Vec<String> = names.iter().map(ToString::to_string).collect();
    let mut params = CertificateParams::new(names).expect("names");
    params.not_before = date_time_ymd(2020, 1, 1);
    params.not_after = date_time_ymd(2100, 1, 1);
    change(&mut params);
    (params, KeyPair::generate().expect("a key"))
}

/// A certificate and its key.
pub struct Issued {
    pub certificate: CertificateDer<'static>,
    certificate_pem: String,
    key: KeyPair,
}

impl Issued {
    pub fn self_signed(names: &[&str], change: impl FnOnce(&mut CertificateParams)) -> Issued {
        let (params, key) = params(names, change);
        let certificate = params.self_signed(&key).expect("a certificate");
        Issued { certificate: certificate.der().clone(), certificate_pem: certificate.pem(), key }
    }

    /// As rustls takes it.
    pub fn pair(&self) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
        let key = PrivateKeyDer::try_from(self.key.serialize_der()).expect("a key");
        (vec![self.certificate.clone()], key)
    }

    pub fn public_key(&self) -> &KeyPair {
        &self.key
    }

    pub fn pem(&self) -> &str {
        &self.certificate_pem
    }

    pub fn key_pem(&self) -> String {
        self.key.serialize_pem()
    }
}

impl Folder {
    /// Writes a pair as `name.pem` and `name.key`, the key first.
    pub fn put(&self, name: &str, issued: &Issued) -> (PathBuf, PathBuf) {
        let key = self.write(&format!("{name}.key"), &issued.key_pem());
        (self.write(&format!("{name}.pem"), issued.pem()), key)
    }
}
