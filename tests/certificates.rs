//! TLS by settings: certificates from files, chosen by name, of clients, and renewed while the server runs.
#![cfg(all(feature = "cli", feature = "tls"))]

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use nix::sys::signal::Signal;
use ringwire::client::blocking::block_on;
use ringwire::config::{ClientAuth, Files, ListenAddress, Scheme, TlsMin};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, StreamOwned};

use common::pki::{self, Authority};
use common::program::Program;
use common::{TestServer, any_port, config, eventually};

/// An authority, and files of certificates that it has signed.
struct Folder {
    files: pki::Folder,
    authority: Authority,
}

impl Folder {
    fn new() -> Folder {
        let (files, authority) = (pki::Folder::new(), Authority::new());
        files.write("ca.pem", &authority.pem());
        Folder { files, authority }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.files.file(name)
    }

    /// Writes a pair for these names, that is good until this year.
    fn write(&self, name: &str, names: &[&str], until: i32) {
        self.files.put(name, &self.authority.sign_until(names, until));
    }

    fn certificate(&self, name: &str) -> CertificateDer<'static> {
        CertificateDer::from_pem_file(self.file(&format!("{name}.pem"))).expect("a certificate")
    }

    fn files(&self, names: &[&str], suffix: &str) -> Files {
        names.iter().map(|name| self.file(&format!("{name}.{suffix}"))).collect()
    }

    fn config(&self, names: &[&str]) -> ringwire::Config {
        config().tls_cert(self.files(names, "pem")).tls_key(self.files(names, "key"))
    }

    /// What a client goes by that trusts the authority, and shows this certificate.
    fn client(&self, shows: Option<&str>) -> Arc<ClientConfig> {
        let builder = ClientConfig::builder().with_root_certificates(self.authority.roots());
        Arc::new(match shows {
            Some(name) => {
                let key = PrivateKeyDer::from_pem_file(self.file(&format!("{name}.key"))).expect("a key");
                builder.with_client_auth_cert(vec![self.certificate(name)], key).expect("a pair")
            }
            None => builder.with_no_client_auth(),
        })
    }
}

/// Asks for `/healthz`, and returns the certificate that was shown with the status line.
fn ask(
    client: &Arc<ClientConfig>,
    address: SocketAddr,
    name: &str,
) -> Result<(CertificateDer<'static>, String), String> {
    let socket = TcpStream::connect(address).map_err(|error| error.to_string())?;
    socket.set_read_timeout(Some(common::PATIENCE)).map_err(|error| error.to_string())?;
    let name = ServerName::try_from(name.to_owned()).map_err(|error| error.to_string())?;
    let session = ClientConnection::new(client.clone(), name).map_err(|error| error.to_string())?;
    let mut stream = StreamOwned::new(session, socket);
    let asked = stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    let mut answer = String::new();
    let read = asked.and_then(|()| stream.read_to_string(&mut answer));
    let shown = stream.conn.peer_certificates().and_then(<[_]>::first).cloned().map(CertificateDer::into_owned);
    match (read, shown) {
        (Ok(_), Some(shown)) => Ok((shown, answer.lines().next().unwrap_or_default().to_owned())),
        (read, _) => Err(format!("{read:?}")),
    }
}

fn is_served(folder: &Folder, address: SocketAddr, asked_for: &str, name: &str) -> bool {
    ask(&folder.client(None), address, asked_for).is_ok_and(|(shown, _)| shown == folder.certificate(name))
}

#[test]
fn the_certificate_of_the_name_that_is_asked_for_is_shown() {
    let folder = Folder::new();
    folder.write("one", &["one.test"], 2100);
    folder.write("two", &["two.test", "*.wild.test"], 2100);
    let server = TestServer::with(folder.config(&["one", "two"]));
    let bound = &server.handle().addresses()[0];
    assert!(bound.is_secure() && bound.to_string().starts_with("wss://127.0.0.1:"), "{bound}");
    assert!(bound.to_http().starts_with("https://127.0.0.1:"));
    for (asked_for, name) in [("one.test", "one"), ("two.test", "two"), ("a.wild.test", "two")] {
        let (shown, status) = ask(&folder.client(None), server.address, asked_for).expect(asked_for);
        assert!(shown == folder.certificate(name), "{asked_for}");
        assert_eq!(status, "HTTP/1.1 200 OK");
    }
    assert!(ask(&folder.client(None), server.address, "unknown.test").is_err(), "the first one is not for that name");
}

/// Each address speaks what it says, or else TLS where there is a certificate; the operators' is plain unless it says so.
#[test]
fn each_address_speaks_what_it_says() {
    let folder = Folder::new();
    folder.write("one", &["one.test"], 2100);
    let speaking = |scheme| ListenAddress::Speaking(scheme, Box::new(any_port()));
    let addresses = vec![any_port(), speaking(Scheme::Ws), speaking(Scheme::Wss)];
    for (admin, is_admin_secure) in [(any_port(), false), (speaking(Scheme::Wss), true)] {
        let config = folder.config(&["one"]).addresses(addresses.clone()).admin_address(Some(admin));
        let server = TestServer::with(config);
        let handle = server.handle();
        let all = handle.addresses().iter().chain(handle.admin_addresses());
        let secure: Vec<bool> = all.clone().map(ringwire::BoundAddress::is_secure).collect();
        assert_eq!(secure, [true, false, true, is_admin_secure]);
        for (bound, is_secure) in all.zip(secure) {
            let address = bound.inet().expect("a port");
            let mut plain = common::raw::Raw::connect(address);
            plain.send(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n");
            let status = plain.response(false).status;
            let is_tls = ask(&folder.client(None), address, "one.test").is_ok();
            // Plain HTTP on a port for TLS is answered, with 400.
            assert_eq!((status == 400, is_tls), (is_secure, is_secure), "{bound}: {status}");
        }
    }
}

/// Kills: a pair that does not fit replaces the good one; a server that reads its files once.
#[test]
fn certificates_are_renewed_and_bad_ones_refused() {
    let folder = Folder::new();
    folder.write("one", &["one.test"], 2100);
    let server = TestServer::with(folder.config(&["one"]));
    let address = server.address;
    let shown = || ask(&folder.client(None), address, "one.test").expect("an answer").0;
    let open = shown();
    folder.write("one", &["one.test"], 2100);
    assert!(server.handle().renew_certificates());
    eventually(|| shown() == folder.certificate("one"), || "the new one is not shown".into());
    let good = shown();
    assert!(good != open);

    folder.write("other", &["one.test"], 2100);
    folder.write("old", &["one.test"], 2021);
    let bad: [(&str, &dyn Fn()); 4] = [
        ("the key of another", &|| drop(fs::copy(folder.file("other.key"), folder.file("one.key")))),
        ("unreadable", &|| drop(fs::remove_file(folder.file("one.pem")))),
        ("empty", &|| fs::write(folder.file("one.pem"), "").expect("a file")),
        ("expired", &|| {
            fs::copy(folder.file("old.pem"), folder.file("one.pem")).expect("a copy");
            fs::copy(folder.file("old.key"), folder.file("one.key")).expect("a copy");
        }),
    ];
    for (name, spoil) in bad {
        spoil();
        assert!(server.handle().renew_certificates());
        std::thread::sleep(std::time::Duration::from_millis(100));
        assert!(shown() == good, "{name}");
    }
    folder.write("one", &["one.test"], 2100);
    assert!(server.handle().renew_certificates());
    eventually(|| shown() == folder.certificate("one"), || "it does not recover".into());
}

/// What `/metrics` says of the certificates: when each expires, and what came of reading them anew.
fn told(server: &TestServer) -> BTreeMap<String, f64> {
    let hub = server.handle().hub().clone();
    let text = block_on(async move { hub.metrics().await }).to_prometheus();
    let series = text.lines().filter(|line| line.starts_with("ringwire_tls_certificate_"));
    series
        .filter_map(|line| line.rsplit_once(' '))
        .map(|(name, value)| {
            (name.trim_start_matches("ringwire_tls_certificate_").to_owned(), value.parse().expect("a number"))
        })
        .collect()
}

/// Kills: files that are looked at once, or by their names alone; an expiry that stays that of the old one; reloads uncounted.
#[test]
fn files_are_watched_and_metrics_tell_of_them() {
    let folder = Folder::new();
    folder.write("one", &["one.test", "also.test"], 2100);
    folder.write("two", &["two.test"], 2099);
    let server = TestServer::with(folder.config(&["one", "two"]).tls_look_interval(Duration::from_millis(50)));
    let address = server.address;
    let until = |year: i32| rcgen::date_time_ymd(year, 1, 1).unix_timestamp() as f64;
    let want = |one, two, renewed, refused| {
        BTreeMap::from([
            ("expiry_seconds{name=\"one.test\"}".to_owned(), until(one)),
            ("expiry_seconds{name=\"two.test\"}".to_owned(), until(two)),
            ("reloads_total{result=\"renewed\"}".to_owned(), renewed),
            ("reloads_total{result=\"refused\"}".to_owned(), refused),
        ])
    };
    assert_eq!(told(&server), want(2100, 2099, 0.0, 0.0));

    // Put in place as one file, as tools do that are careful.
    folder.write("next", &["one.test"], 2098);
    fs::rename(folder.file("next.key"), folder.file("one.key")).expect("a move");
    fs::rename(folder.file("next.pem"), folder.file("one.pem")).expect("a move");
    eventually(|| is_served(&folder, address, "one.test", "one"), || "the new one is not shown".into());
    let now = || told(&server);
    eventually(|| now()["expiry_seconds{name=\"one.test\"}"] == until(2098), || format!("{:?}", now()));
    // Between the two moves the pair did not fit.
    let refused = now()["reloads_total{result=\"refused\"}"];
    assert!(refused <= 1.0 && now()["reloads_total{result=\"renewed\"}"] >= 1.0, "{:?}", now());

    let renewed = now()["reloads_total{result=\"renewed\"}"];
    folder.files.write("two.pem", "");
    eventually(|| now() == want(2098, 2099, renewed, refused + 1.0), || format!("{:?}", now()));
    // What has not changed is not read again.
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(now(), want(2098, 2099, renewed, refused + 1.0));
    assert!(is_served(&folder, address, "one.test", "one"), "what was there stays");

    folder.write("two", &["two.test"], 2097);
    eventually(|| now()["expiry_seconds{name=\"two.test\"}"] == until(2097), || format!("{:?}", now()));
    assert!(is_served(&folder, address, "two.test", "two"));
}

#[test]
fn without_certificates_from_files_metrics_tell_of_none() {
    let (chain, key) = Authority::new().sign(&["one.test"]).pair();
    let own = rustls::ServerConfig::builder().with_no_client_auth().with_single_cert(chain, key).expect("a pair");
    assert!(told(&TestServer::with(config().tls(own))).is_empty());
    assert!(told(&TestServer::new()).is_empty());
}

#[test]
fn clients_show_certificates_as_they_are_asked_to() {
    let folder = Folder::new();
    folder.write("one", &["one.test"], 2100);
    folder.write("client", &["client.test"], 2100);
    let stranger = Folder::new();
    stranger.write("client", &["client.test"], 2100);
    fs::copy(stranger.file("client.pem"), folder.file("stranger.pem")).expect("a copy");
    fs::copy(stranger.file("client.key"), folder.file("stranger.key")).expect("a copy");
    for (asked, without, with_good, with_bad) in [
        (ClientAuth::Off, true, true, true),
        (ClientAuth::Optional, true, true, false),
        (ClientAuth::Required, false, true, false),
    ] {
        let mut config = folder.config(&["one"]).tls_client_auth(asked);
        if asked != ClientAuth::Off {
            config = config.tls_client_ca([folder.file("ca.pem")].into_iter().collect());
        }
        let server = TestServer::with(config);
        for (shows, is_let_in) in [(None, without), (Some("client"), with_good), (Some("stranger"), with_bad)] {
            let answer = ask(&folder.client(shows), server.address, "one.test");
            assert_eq!(answer.is_ok(), is_let_in, "{asked} {shows:?}: {answer:?}");
        }
    }
}

#[test]
fn the_oldest_version_is_a_setting() {
    let folder = Folder::new();
    folder.write("one", &["one.test"], 2100);
    for (min, speaks_tls12) in [(TlsMin::Tls12, true), (TlsMin::Tls13, false)] {
        let server = TestServer::with(folder.config(&["one"]).tls_min(min));
        let roots = folder.authority.roots();
        for (version, is_spoken) in [(&rustls::version::TLS12, speaks_tls12), (&rustls::version::TLS13, true)] {
            let client = ClientConfig::builder_with_protocol_versions(&[version])
                .with_root_certificates(roots.clone())
                .with_no_client_auth();
            let answer = ask(&Arc::new(client), server.address, "one.test");
            assert_eq!(answer.is_ok(), is_spoken, "{min} {version:?}");
        }
    }
}

/// What the program's settings are refused for, each with the setting's name and the reason.
#[test]
fn settings_that_make_no_sense_are_refused() {
    let folder = Folder::new();
    folder.write("one", &["one.test"], 2100);
    folder.write("two", &["two.test"], 2100);
    folder.write("old", &["one.test"], 2021);
    let path = |name: &str| folder.file(name).display().to_string();
    let pair = |cert: &str, key: &str| vec![("RINGWIRE_TLS_CERT", path(cert)), ("RINGWIRE_TLS_KEY", path(key))];
    let with = |mut all: Vec<(&'static str, String)>, more: &[(&'static str, &str)]| {
        all.extend(more.iter().map(|(name, value)| (*name, (*value).to_owned())));
        all
    };
    for (settings, want) in [
        (vec![("RINGWIRE_TLS_CERT", path("one.pem"))], "RINGWIRE_TLS_KEY has 0"),
        (vec![("RINGWIRE_TLS_KEY", path("one.key"))], "RINGWIRE_TLS_CERT has 0"),
        (vec![("RINGWIRE_ADDR", "wss://127.0.0.1:0".into())], "RINGWIRE_TLS_CERT is not set"),
        (vec![("RINGWIRE_ADMIN_ADDR", "wss://127.0.0.1:0".into())], "RINGWIRE_ADMIN_ADDR=wss://127.0.0.1:0 cannot be"),
        (
            with(pair("one.pem", "one.key"), &[("RINGWIRE_ADDR", "ws://127.0.0.1:0")]),
            "no address of RINGWIRE_ADDR speaks TLS",
        ),
        (
            with(pair("one.pem", "one.key"), &[("RINGWIRE_TLS_CLIENT_AUTH", "required")]),
            "RINGWIRE_TLS_CLIENT_CA is not set",
        ),
        (with(pair("one.pem", "one.key"), &[("RINGWIRE_TLS_MIN", "1.1")]), "must be 1.2 or 1.3"),
        (pair("one.pem", "two.key"), "two.key: not the key of the certificate in"),
        (pair("old.pem", "old.key"), "old.pem: the certificate has expired"),
        (pair("none.pem", "one.key"), "none.pem: No such file"),
    ] {
        let mut settings = settings;
        if !settings.iter().any(|(name, _)| *name == "RINGWIRE_ADDR") {
            settings.push(("RINGWIRE_ADDR", "127.0.0.1:0".into()));
        }
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_ringwire"))
            .envs(settings.iter().map(|(name, value)| (*name, value.as_str())))
            .output()
            .expect("the program");
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(error.contains(want), "{settings:?}: {error}");
        assert_eq!(output.status.code(), Some(78), "{want}: {error}");
    }
}

#[test]
fn check_judges_the_files() {
    let folder = Folder::new();
    folder.write("one", &["one.test"], 2100);
    folder.write("old", &["one.test"], 2021);
    let check = |cert: &str, key: &str| {
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_ringwire"))
            .args(["check", "--addr=127.0.0.1:0"])
            .arg(format!("--tls-cert={}", folder.file(cert).display()))
            .arg(format!("--tls-key={}", folder.file(key).display()))
            .output()
            .expect("the program");
        (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let private = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    fs::set_permissions(folder.file("one.key"), private).expect("permissions");
    let (code, text) = check("one.pem", "one.key");
    assert!(code == Some(0) && text.contains("for one.test, "), "{text}");
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o644);
    fs::set_permissions(folder.file("one.key"), open).expect("permissions");
    assert!(check("one.pem", "one.key").1.contains("others may read the key"));
    for (cert, key, want) in
        [("one.pem", "old.key", "not the key"), ("old.pem", "old.key", "has expired"), ("no", "no", "No such file")]
    {
        let (code, text) = check(cert, key);
        assert!(code == Some(78) && text.contains(want), "{text}");
    }
}

#[test]
fn the_program_renews_on_sighup_and_says_what_it_speaks() {
    let folder = Folder::new();
    folder.write("one", &["one.test"], 2100);
    let path = |name: &str| folder.file(name).display().to_string();
    let program =
        Program::start(&[&format!("--tls-cert={}", path("one.pem")), &format!("--tls-key={}", path("one.key"))]);
    let address = program.address;
    assert!(program.first_line.starts_with("ringwire listening on wss://"), "{}", program.first_line);
    assert!(is_served(&folder, address, "one.test", "one"));
    folder.write("one", &["one.test"], 2100);
    program.signal(Signal::SIGHUP);
    eventually(|| is_served(&folder, address, "one.test", "one"), || "the new one is not shown".into());
    if is_there("curl") {
        let ca = path("ca.pem");
        let url = format!("https://one.test:{}/healthz", address.port());
        let resolve = format!("one.test:{}:127.0.0.1", address.port());
        let output = std::process::Command::new("curl")
            .args(["-sS", "--cacert", &ca, "--resolve", &resolve, &url])
            .output()
            .expect("curl");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    } else {
        eprintln!("no curl: not tried with it");
    }
}

fn is_there(program: &str) -> bool {
    std::env::var_os("PATH")
        .is_some_and(|paths| std::env::split_paths(&paths).any(|path| Path::new(&path).join(program).exists()))
}
