//! Connectors of each kind, against rustls' own server.

use std::sync::Arc;

use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};

use super::test_kit::Pair;
use super::test_kit::pki::{Authority, Folder, Issued};
use super::{Connector, ConnectorBuilder, Failure, TlsVersion};

fn server(issued: &Issued, clients: Option<(Arc<RootCertStore>, bool)>, versions: &[TlsVersion]) -> Arc<ServerConfig> {
    let versions: Vec<_> = versions
        .iter()
        .map(|version| match version {
            TlsVersion::Tls12 => &rustls::version::TLS12,
            TlsVersion::Tls13 => &rustls::version::TLS13,
        })
        .collect();
    let builder = ServerConfig::builder_with_protocol_versions(&versions);
    let builder = match clients {
        None => builder.with_no_client_auth(),
        Some((roots, is_required)) => {
            let verifier = WebPkiClientVerifier::builder(roots);
            let verifier = if is_required { verifier } else { verifier.allow_unauthenticated() };
            builder.with_client_cert_verifier(verifier.build().unwrap())
        }
    };
    let (chain, key) = issued.pair();
    let mut config = builder.with_single_cert(chain, key).unwrap();
    config.ticketer = rustls::crypto::aws_lc_rs::Ticketer::new().unwrap();
    Arc::new(config)
}

const BOTH: &[TlsVersion] = &[TlsVersion::Tls12, TlsVersion::Tls13];

/// What becomes of a handshake with a server of this name: whether it was resumed, or why it failed.
fn meet(connector: &Connector, name: &str, server: &Arc<ServerConfig>) -> Result<bool, (Failure, String)> {
    let mut pair = Pair::meet(connector.session(name).unwrap(), server);
    pair.settle(usize::MAX).map_err(|error| (error.failure(), error.to_string()))?;
    assert_eq!(pair.receive(b"hello", 3).map_err(|error| (error.failure(), error.to_string()))?, b"hello");
    assert_eq!(pair.send(&[b"hello"]), b"hello");
    Ok(pair.session.info().unwrap().is_resumed())
}

/// Kills: a verifier that is not asked, that does not look at names or dates, and insecurity that is not asked for.
#[test]
fn servers_are_believed_as_the_builder_says() {
    let folder = Folder::new();
    let (authority, other) = (Authority::new(), Authority::new());
    let ca = folder.write("ca.pem", &authority.pem());
    let good = authority.sign(&["chat.test", "127.0.0.1", "::1"]);
    let old = authority.sign_until(&["chat.test"], 2021);
    let early = authority.sign_with(&["chat.test"], |params| params.not_before = rcgen::date_time_ymd(2090, 1, 1));
    let alone = Issued::self_signed(&["chat.test"], |_| ());
    let as_authority = Issued::self_signed(&["chat.test"], |params| {
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    });
    let trusting = || Connector::builder().ca_file(&ca);
    let anybody = || Connector::builder().dangerous_accept_any_certificate();
    let rows: &[(&str, ConnectorBuilder, &str, &Issued, Option<&str>)] = &[
        ("trusted", trusting(), "chat.test", &good, None),
        ("however it is written", trusting(), "CHAT.Test", &good, None),
        ("by its address", trusting(), "127.0.0.1", &good, None),
        ("by its address of IPv6", trusting(), "[::1]", &good, None),
        ("as bytes", Connector::builder().ca_pem(authority.pem()), "chat.test", &good, None),
        ("one of two", Connector::builder().ca_pem(other.pem()).ca_file(&ca), "chat.test", &good, None),
        ("self-signed", Connector::builder().ca_pem(alone.pem()), "chat.test", &alone, None),
        ("wrong name", trusting(), "evil.test", &good, Some("it is for \"chat.test\", \"127.0.0.1\"")),
        ("wrong address", trusting(), "127.0.0.2", &good, Some("is not for \"127.0.0.2\"")),
        ("expired", trusting(), "chat.test", &old, Some("has expired")),
        ("not yet good", trusting(), "chat.test", &early, Some("is not valid yet")),
        ("another's", Connector::builder().ca_pem(other.pem()), "chat.test", &good, Some("nobody that is trusted")),
        ("self-signed, unknown", trusting(), "chat.test", &alone, Some("nobody that is trusted")),
        (
            "an authority's own",
            Connector::builder().ca_pem(as_authority.pem()),
            "chat.test",
            &as_authority,
            Some("that of an authority (CA:TRUE)"),
        ),
        ("insecure, another's", anybody(), "chat.test", &alone, None),
        ("insecure, another's name", anybody(), "evil.test", &good, None),
        ("insecure, expired", anybody(), "chat.test", &old, None),
    ];
    for (what, builder, name, issued, error) in rows {
        let connector = builder.clone().build().unwrap();
        for version in BOTH {
            let server = server(issued, None, &[*version]);
            match (meet(&connector, name, &server), error) {
                (Ok(false), None) => {}
                (Err((Failure::PeerCertificate, text)), Some(error)) if text.contains(error) => {}
                (met, _) => panic!("{what} {version}: {met:?}"),
            }
        }
    }
}

/// Kills: tickets that come after the handshake and are dropped; a store of its own for each clone; remembering unasked.
#[test]
fn clones_resume_what_another_has_agreed_on_unless_they_forget() {
    let authority = Authority::new();
    let issued = authority.sign(&["chat.test"]);
    let builder = Connector::builder().ca_pem(authority.pem());
    for version in BOTH {
        let server = server(&issued, None, &[*version]);
        let connector = builder.clone().build().unwrap();
        let met = [(); 3].map(|()| meet(&connector.clone(), "chat.test", &server).unwrap());
        assert_eq!(met, [false, true, true], "{version}");
        let another = builder.clone().build().unwrap();
        assert!(!meet(&another, "chat.test", &server).unwrap());
        let forgetting = builder.clone().without_resumption().build().unwrap();
        let met = [(); 2].map(|()| meet(&forgetting, "chat.test", &server).unwrap());
        assert_eq!(met, [false, false], "{version}");
    }
}

#[test]
fn a_certificate_is_shown_to_who_asks_for_one() {
    let folder = Folder::new();
    let authority = Authority::new();
    let issued = authority.sign(&["chat.test"]);
    let client = authority.sign(&["client.test"]);
    let (pem, key) = folder.put("client", &client);
    let builder = Connector::builder().ca_pem(authority.pem());
    for version in BOTH {
        for (builder, shows) in [
            (builder.clone(), false),
            (builder.clone().certificate_files(&pem, &key), true),
            (builder.clone().certificate_pem(client.pem(), client.key_pem()), true),
        ] {
            let connector = builder.build().unwrap();
            for is_required in [false, true] {
                let server = server(&issued, Some((authority.roots(), is_required)), &[*version]);
                let mut pair = Pair::meet(connector.session("chat.test").unwrap(), &server);
                let is_let_in = pair.settle_refused().is_ok();
                assert_eq!(is_let_in, shows || !is_required, "{version} {shows} {is_required}");
                let shown = pair.peer.peer_certificates().and_then(<[_]>::first).cloned();
                assert_eq!(shown, shows.then(|| client.certificate.clone()));
            }
        }
    }
}

#[test]
fn the_oldest_version_is_as_it_is_said() {
    let authority = Authority::new();
    let issued = authority.sign(&["chat.test"]);
    let builder = Connector::builder().ca_pem(authority.pem());
    let of_13 = builder.clone().min_version(TlsVersion::Tls13);
    for (builder, version, is_spoken) in [
        (&builder, TlsVersion::Tls12, true),
        (&builder, TlsVersion::Tls13, true),
        (&of_13, TlsVersion::Tls12, false),
        (&of_13, TlsVersion::Tls13, true),
    ] {
        let server = server(&issued, None, &[version]);
        let mut pair = Pair::meet(builder.clone().build().unwrap().session("chat.test").unwrap(), &server);
        assert_eq!(pair.settle_refused().is_ok(), is_spoken, "{version}");
    }
}

#[test]
fn what_cannot_be_used_is_told_with_the_file() {
    let folder = Folder::new();
    let authority = Authority::new();
    let (one, other) = (authority.sign(&["a.test"]), authority.sign(&["b.test"]));
    let (one_pem, one_key) = folder.put("one", &one);
    let (_, other_key) = folder.put("other", &other);
    let empty = folder.write("empty.pem", "");
    let cut = folder.write("cut.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n");
    let junk = folder.write("junk.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
    let none = folder.file("none.pem");
    let builder = || Connector::builder().ca_pem(authority.pem());
    for (builder, want) in [
        (builder().ca_file(&none), "none.pem: No such file"),
        (builder().ca_file(&empty), "empty.pem: there is no certificate in it"),
        (builder().ca_pem("x"), "what was given as PEM: there is no certificate in it"),
        (builder().ca_file(&cut), "cut.pem: not PEM"),
        (builder().ca_file(&junk), "junk.pem: "),
        (builder().certificate_files(&none, &one_key), "none.pem: No such file"),
        (builder().certificate_files(&one_pem, &none), "none.pem: No such file"),
        (builder().certificate_files(&one_pem, &empty), "empty.pem: there is no private key in it"),
        (builder().certificate_files(&one_pem, &other_key), "other.key: not the key of the certificate in"),
    ] {
        let error = builder.build().expect_err(want).to_string();
        assert!(error.contains(want), "{error} / {want}");
    }
    let connector = builder().build().unwrap();
    for name in ["", "a b", "ä.test", "[", "a..b"] {
        let error = connector.session(name).expect_err(name);
        assert!(error.to_string().contains("no name"), "{error}");
    }
}
