//! What a machine shows to NATS, and whom it believes.

use std::path::Path;

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use data_encoding::{BASE32_NOPAD, BASE64URL_NOPAD};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use serde_json::{Value, json};

use crate::common::program::command;
use crate::rig::{Machine, Nats, free_port, fresh_directory, nats_server};

/// Kills: secrets in what is shown.
#[test]
fn who_shows_the_wrong_password_is_alone_and_the_right_one_is_never_shown() {
    let Some(program) = nats_server() else { return };
    let started = (0..5).find_map(|_| Nats::on(&program, free_port(), &["--user", "me", "--pass", "hush hush"]));
    let nats = started.expect("nats-server starts");
    let url = |password: &str| format!("nats://me:{password}@127.0.0.1:{}", nats.port);
    let right = [Machine::start(&url("hush%20hush"), "m0"), Machine::start(&url("hush%20hush"), "m1")];
    right.iter().for_each(|machine| machine.await_nodes(1));
    let wrong = Machine::with(&url("guess"), "m2", &["--nats-required=true"]);
    assert_eq!(wrong.ask("GET", "/readyz", "").0, 503);
    assert_eq!(wrong.metric("ringwire_nodes"), 0.0);
    let shown = command("", &["config", &format!("--nats-url={}", url("hush%20hush"))]).output().expect("it runs");
    let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
    assert!(shown.contains("RINGWIRE_NATS_URL='(set)'") && !shown.contains("hush"), "{shown}");
}

/// Kills: a `tls://` that speaks in the clear, or believes whatever certificate it is shown.
#[test]
fn nats_is_spoken_to_by_tls_where_that_is_asked_for() {
    let Some(program) = nats_server() else { return };
    let directory = std::env::temp_dir().join(format!("ringwire-nats-tls-{}", std::process::id()));
    std::fs::create_dir_all(&directory).expect("a directory");
    let file = |name: &str, text: &str| {
        let path = directory.join(name);
        std::fs::write(&path, text).expect("a file");
        path.to_str().expect("UTF-8").to_owned()
    };
    let mut authority = CertificateParams::new(Vec::<String>::new()).expect("parameters");
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate().expect("a key")).expect("an authority");
    let key = KeyPair::generate().expect("a key");
    let params = CertificateParams::new(vec!["localhost".into()]).expect("parameters");
    let certificate = params.signed_by(&key, &authority).expect("a certificate");
    let (certificate, key) = (file("cert.pem", &certificate.pem()), file("key.pem", &key.serialize_pem()));
    let ca = file("ca.pem", &authority.pem());
    let arguments = ["--tls", "--tlscert", &certificate, "--tlskey", &key];
    let nats = (0..5).find_map(|_| Nats::on(&program, free_port(), &arguments)).expect("nats-server starts");
    let url = format!("tls://localhost:{}", nats.port);
    let all = ["m0", "m1"].map(|name| Machine::start(&format!("{url}?ca={ca}"), name));
    all.iter().for_each(|machine| machine.await_nodes(1));
    let stranger = Machine::with(&url, "m2", &["--nats-required=true"]);
    assert_eq!(stranger.ask("GET", "/readyz", "").0, 503, "nobody has signed it");
    let _ = std::fs::remove_dir_all(directory);
}

/// Kills: a token that is not shown, or is taken for something else.
#[test]
fn a_token_is_shown_where_there_is_one() {
    let Some(program) = nats_server() else { return };
    let started = (0..5).find_map(|_| Nats::on(&program, free_port(), &["--auth", "s3cret"]));
    let nats = started.expect("nats-server starts");
    let url = |token: &str| format!("nats://{token}@127.0.0.1:{}", nats.port);
    let right = [Machine::start(&url("s3cret"), "m0"), Machine::start(&url("s3cret"), "m1")];
    right.iter().for_each(|machine| machine.await_nodes(1));
    let wrong = Machine::with(&url("guess"), "m2", &["--nats-required=true"]);
    assert_eq!(wrong.ask("GET", "/readyz", "").0, 503);
}

/// A key of NATS: what it is of, and the pair.
struct Nkey {
    kind: u8,
    seed: [u8; 32],
    pair: Ed25519KeyPair,
}

const OPERATOR: u8 = 14 << 3;
const ACCOUNT: u8 = 0;
const USER: u8 = 20 << 3;
const SEED: u8 = 18 << 3;

/// CRC-16 of XMODEM behind it, the low byte first, in base32.
fn checked(mut bytes: Vec<u8>) -> String {
    let crc = bytes.iter().fold(0_u16, |crc, byte| {
        (0..8).fold(crc ^ u16::from(*byte) << 8, |crc, _| crc << 1 ^ if crc & 0x8000 != 0 { 0x1021 } else { 0 })
    });
    bytes.extend(crc.to_le_bytes());
    BASE32_NOPAD.encode(&bytes)
}

impl Nkey {
    fn new(kind: u8, number: u8) -> Nkey {
        let seed = [number; 32];
        Nkey { kind, seed, pair: Ed25519KeyPair::from_seed_unchecked(&seed).expect("a key") }
    }

    fn public(&self) -> String {
        checked([&[self.kind], self.pair.public_key().as_ref()].concat())
    }

    fn secret(&self) -> String {
        checked([&[SEED | self.kind >> 5, (self.kind & 31) << 3], &self.seed[..]].concat())
    }

    /// A token in which it says of somebody who that is.
    fn says_of(&self, subject: &Nkey, name: &str, what: &Value) -> String {
        let head = json!({ "typ": "JWT", "alg": "ed25519-nkey" }).to_string();
        let claims =
            json!({ "jti": name, "iat": 1, "iss": self.public(), "sub": subject.public(), "name": name, "nats": what });
        let encode = |bytes: &[u8]| BASE64URL_NOPAD.encode(bytes);
        let said = format!("{}.{}", encode(head.as_bytes()), encode(claims.to_string().as_bytes()));
        let signature = encode(self.pair.sign(said.as_bytes()).as_ref());
        format!("{said}.{signature}")
    }
}

fn creds_file(directory: &Path, name: &str, account: &Nkey, user: &Nkey) -> String {
    let what = json!({ "pub": {}, "sub": {}, "subs": -1, "data": -1, "payload": -1, "type": "user", "version": 2 });
    let text = format!(
        "-----BEGIN NATS USER JWT-----\n{}\n------END NATS USER JWT------\n\n\
         -----BEGIN USER NKEY SEED-----\n{}\n------END USER NKEY SEED------\n",
        account.says_of(user, name, &what),
        user.secret()
    );
    let path = directory.join(format!("{name}.creds"));
    std::fs::write(&path, text).expect("a file");
    path.to_str().expect("UTF-8").to_owned()
}

/// Kills: a file of credentials that is not read, or whose challenge is not signed.
#[test]
fn a_file_of_credentials_lets_a_machine_in() {
    let Some(program) = nats_server() else { return };
    let directory = fresh_directory("creds");
    std::fs::create_dir_all(&directory).expect("a directory");
    let (operator, account, user) = (Nkey::new(OPERATOR, 1), Nkey::new(ACCOUNT, 2), Nkey::new(USER, 3));
    let stranger = Nkey::new(ACCOUNT, 4);
    let limits = json!({ "subs": -1, "data": -1, "payload": -1, "imports": -1, "exports": -1, "wildcards": true, "conn": -1, "leaf": -1 });
    let of_account = json!({ "limits": limits, "type": "account", "version": 2 });
    let config = format!(
        "operator: {}\nresolver: MEMORY\nresolver_preload: {{ {}: {} }}\n",
        operator.says_of(&operator, "operator", &json!({ "type": "operator", "version": 2 })),
        account.public(),
        operator.says_of(&account, "account", &of_account)
    );
    let file = directory.join("nats.conf");
    std::fs::write(&file, config).expect("a file");
    let arguments = ["-c", file.to_str().expect("UTF-8")];
    let nats = (0..5).find_map(|_| Nats::on(&program, free_port(), &arguments)).expect("nats-server starts");
    let url = |creds: &str| format!("{}?creds={creds}", nats.url());
    let right = creds_file(&directory, "right", &account, &user);
    let all = ["m0", "m1"].map(|name| Machine::start(&url(&right), name));
    all.iter().for_each(|machine| machine.await_nodes(1));
    // Signed by an account that the operator does not know, and none at all.
    let wrong = creds_file(&directory, "wrong", &stranger, &Nkey::new(USER, 5));
    for (name, url) in [("m2", url(&wrong)), ("m3", nats.url())] {
        let machine = Machine::with(&url, name, &["--nats-required=true"]);
        assert_eq!(machine.ask("GET", "/readyz", "").0, 503, "{name}");
    }
    // A file that is not there is told at the start.
    let missing = directory.join("missing.creds");
    let mut command = command("", &["--addr=127.0.0.1:0", "--cores=1", "--log=error"]);
    let output =
        command.arg(format!("--nats-url={}", url(missing.to_str().expect("UTF-8")))).output().expect("it starts");
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(69), "{error}");
    assert!(error.contains("missing.creds"), "{error}");
    let _ = std::fs::remove_dir_all(directory);
}
