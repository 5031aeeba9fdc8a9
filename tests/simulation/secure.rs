//! A simulated peer's socket, plain or with TLS: what its user reads and writes is plain in both cases.

use std::sync::{Arc, OnceLock};

use rcgen::{CertificateParams, KeyPair, PKCS_ED25519};
use ringwire::engine::sim::Client;
use ringwire::proto::Spares;
use ringwire::tls::{Acceptor, Connector, Event, Session};
use rustls::pki_types::PrivateKeyDer;
use rustls::{ClientConfig, RootCertStore, ServerConfig};

/// What all runs go by: a certificate, once. Its signatures are all of one length, so that a seed's runs are alike.
fn configurations() -> &'static (ServerConfig, Connector) {
    static CONFIGURATIONS: OnceLock<(ServerConfig, Connector)> = OnceLock::new();
    CONFIGURATIONS.get_or_init(|| {
        let key = KeyPair::generate_for(&PKCS_ED25519).unwrap();
        let certificate =
            CertificateParams::new(vec!["localhost".into(), "10.9.9.9".into()]).unwrap().self_signed(&key).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(certificate.der().clone()).unwrap();
        let mut client = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        client.resumption = rustls::client::Resumption::disabled();
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let server = ServerConfig::builder().with_no_client_auth();
        let server = server.with_single_cert(vec![certificate.der().clone()], key).unwrap();
        (server, Connector::new(client))
    })
}

pub fn acceptor() -> Arc<Acceptor> {
    Arc::new(Acceptor::new(configurations().0.clone()).unwrap())
}

/// What a client goes by that trusts this server, at its address too.
pub fn connector() -> Connector {
    configurations().1.clone()
}

/// See the module.
pub struct Socket {
    pub client: Client,
    tls: Option<Tls>,
    has_finished: bool,
}

struct Tls {
    session: Session,
    spares: Spares,
    /// Written before there was a key.
    early: Vec<u8>,
    has_heard_end: bool,
    /// What the server has done wrong.
    wrong: Option<String>,
}

impl Socket {
    pub fn plain(client: Client) -> Socket {
        Socket { client, tls: None, has_finished: false }
    }

    /// A client's.
    pub fn secure(client: Client) -> Socket {
        Socket::with(client, configurations().1.session("localhost").unwrap())
    }

    /// A server's.
    pub fn serving(client: Client) -> Socket {
        Socket::with(client, acceptor().session())
    }

    fn with(client: Client, session: Session) -> Socket {
        let (spares, early) = (Spares::new(1 << 16), Vec::new());
        let tls = Some(Tls { session, spares, early, has_heard_end: false, wrong: None });
        let mut socket = Socket { client, tls, has_finished: false };
        socket.speak();
        socket
    }

    /// What there is of the next `n` bytes on the wire.
    pub fn read(&mut self, n: usize) -> Vec<u8> {
        let mut bytes = self.client.read(n);
        let Some(tls) = &mut self.tls else { return bytes };
        let (mut plain, mut at, mut is_ready) = (Vec::new(), 0, false);
        loop {
            match tls.session.next(&mut bytes, &mut at, &mut tls.spares) {
                Ok(None) => break,
                Ok(Some(Event::Ready)) => is_ready = true,
                Ok(Some(Event::Data(data))) => plain.extend_from_slice(data),
                Ok(Some(Event::Closed)) => tls.has_heard_end = true,
                Err(error) => {
                    tls.wrong = Some(error.to_string());
                    break;
                }
            }
        }
        if is_ready {
            let early = std::mem::take(&mut tls.early);
            self.speak();
            self.send(&early);
        }
        self.speak();
        plain
    }

    fn speak(&mut self) {
        if let Some(tls) = &mut self.tls {
            let mut out = Vec::new();
            tls.session.take_output(&mut out);
            self.put(&out);
        }
    }

    pub fn send(&mut self, bytes: &[u8]) {
        match &mut self.tls {
            None => self.client.send(bytes),
            Some(tls) if tls.session.is_handshaking() => tls.early.extend_from_slice(bytes),
            Some(tls) => {
                let mut out = Vec::new();
                tls.session.seal([bytes], &mut out).unwrap();
                self.put(&out);
            }
        }
    }

    fn put(&self, bytes: &[u8]) {
        if !self.has_finished {
            self.client.send(bytes);
        }
    }

    /// Sends nothing more, and does not say so.
    pub fn shutdown_write(&mut self) {
        self.has_finished = true;
        self.client.shutdown_write();
    }

    /// Ends without a word.
    pub fn close(&mut self) {
        self.has_finished = true;
        self.client.close();
    }

    pub fn reset(&mut self) {
        self.has_finished = true;
        self.client.reset();
    }

    /// Bytes written that are not on their way.
    pub fn unsent(&self) -> usize {
        self.client.unsent() + self.tls.as_ref().map_or(0, |tls| tls.early.len())
    }

    /// What is wrong with the way in which the server has ended or spoken.
    pub fn wrong(&self) -> Option<String> {
        let tls = self.tls.as_ref()?;
        let cut = (self.client.saw_fin() && !self.client.saw_reset() && !tls.has_heard_end)
            .then(|| "the server's FIN came without close_notify".to_owned());
        tls.wrong.clone().or(cut)
    }
}
