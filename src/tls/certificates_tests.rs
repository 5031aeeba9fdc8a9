//! Pairs of each kind, good and bad, in files.

use rcgen::{CertificateParams, date_time_ymd};

use super::*;
use crate::tls::test_kit::pki::{self, Issued};

/// Within the time of every certificate that is made here.
const NOW_UNIX_S: u64 = 1_900_000_000;

struct Folder(pki::Folder);

impl Folder {
    fn new() -> Folder {
        Folder(pki::Folder::new())
    }

    /// A pair for these names.
    fn pair(&self, file: &str, names: &[&str]) -> (PathBuf, PathBuf) {
        self.pair_of(file, names, |_| ())
    }

    fn pair_of(&self, file: &str, names: &[&str], change: impl FnOnce(&mut CertificateParams)) -> (PathBuf, PathBuf) {
        let issued = Issued::self_signed(names, |params| {
            params.not_after = date_time_ymd(2040, 1, 1);
            change(params);
        });
        self.0.put(file, &issued)
    }
}

fn read_pair((certificate, key): &(PathBuf, PathBuf)) -> Result<Certificate, CertificateError> {
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    Certificate::read(certificate, key, &provider, NOW_UNIX_S)
}

#[test]
fn what_a_certificate_says_is_known() {
    let folder = Folder::new();
    let read = read_pair(&folder.pair("a", &["Example.org", "*.example.org", "127.0.0.1"])).unwrap();
    assert_eq!(read.names, ["example.org", "*.example.org", "127.0.0.1"]);
    assert_eq!((read.not_before_unix_s, read.not_after_unix_s), (1_577_836_800, 2_208_988_800));
    assert_eq!(read.days_left(NOW_UNIX_S), 3576);
    assert_eq!(read.days_left(u64::MAX), 0);
}

/// Kills: a wildcard that is taken before an exact name, one for more than one label, and names compared as they are written.
#[test]
fn the_certificate_for_a_name_is_chosen() {
    let folder = Folder::new();
    let pair = |file: &str, names: &[&str]| read_pair(&folder.pair(file, names)).unwrap();
    let all = ByName(vec![
        pair("first", &["first.test"]),
        pair("wild", &["*.example.org"]),
        pair("exact", &["chat.example.org", "example.org"]),
    ]);
    for (name, file) in [
        (Some("first.test"), "first"),
        (Some("chat.example.org"), "exact"),
        (Some("CHAT.Example.ORG"), "exact"),
        (Some("other.example.org"), "wild"),
        (Some("example.org"), "exact"),
        (Some("a.b.example.org"), "first"),
        (Some("nowhere.test"), "first"),
        (None, "first"),
    ] {
        let chosen = all.of(name).expect("one");
        assert_eq!(chosen.path.file_stem().unwrap(), file, "{name:?}");
    }
}

#[test]
fn what_cannot_be_used_is_refused_with_the_file_and_the_reason() {
    let folder = Folder::new();
    let (good, key) = folder.pair("good", &["a.test"]);
    let (_, other_key) = folder.pair("other", &["a.test"]);
    let dated = |file: &str, from: i32, to: i32| {
        folder.pair_of(file, &["a.test"], |params| {
            params.not_before = date_time_ymd(from, 1, 1);
            params.not_after = date_time_ymd(to, 1, 1);
        })
    };
    let file = |name: &str, text: &str| folder.0.write(name, text);
    let cases = [
        ((good.clone(), other_key), "other.key: not the key of the certificate in"),
        ((folder.0.file("none.pem"), key.clone()), "none.pem: No such file"),
        ((good.clone(), folder.0.file("none.key")), "none.key: No such file"),
        ((file("empty.pem", ""), key.clone()), "empty.pem: there is no certificate in it"),
        ((key.clone(), key.clone()), "good.key: there is no certificate in it"),
        ((good.clone(), good.clone()), "good.pem: there is no private key in it"),
        ((file("cut.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n"), key.clone()), "cut.pem: not PEM"),
        (
            (file("junk.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"), key.clone()),
            "junk.pem: no certificate",
        ),
        (dated("old", 2020, 2021), "old.pem: the certificate has expired 3"),
        (dated("early", 2035, 2040), "early.pem: the certificate is not valid yet"),
    ];
    assert!(read_pair(&(good, key)).is_ok());
    for (pair, want) in cases {
        let error = read_pair(&pair).expect_err(want).to_string();
        assert!(error.contains(want), "{error} / {want}");
    }
}

#[test]
fn material_is_all_good_or_refused() {
    let folder = Folder::new();
    let pair = folder.pair("a", &["a.test"]);
    let bad = folder.pair_of("old", &["a.test"], |params| params.not_after = date_time_ymd(2021, 1, 1));
    let (ca, _) = folder.pair("ca", &["ca.test"]);
    let material = |pairs: Vec<_>, clients, client_cas: Vec<PathBuf>| Material {
        pairs,
        client_cas,
        clients,
        speaks_tls12: true,
    };
    for (material, is_good) in [
        (material(vec![pair.clone()], Clients::NotAsked, vec![]), true),
        (material(vec![pair.clone()], Clients::Optional, vec![ca.clone()]), true),
        (material(vec![pair.clone()], Clients::Required, vec![ca]), true),
        (material(vec![pair.clone(), bad], Clients::NotAsked, vec![]), false),
        (material(vec![pair.clone()], Clients::Required, vec![pair.1.clone()]), false),
        (material(vec![pair], Clients::Required, vec![]), false),
    ] {
        let read = material.read(NOW_UNIX_S);
        assert_eq!(read.is_ok(), is_good, "{material:?} {:?}", read.err().map(|error| error.to_string()));
    }
}
