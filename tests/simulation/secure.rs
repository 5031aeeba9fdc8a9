//! A simulated peer's socket, plain or with TLS: what its user reads and writes is plain in both cases.

use std::sync::{Arc, OnceLock};

use rcgen::{CertificateParams, KeyPair, PKCS_ED25519};
use ringwire::engine::sim::Client;
use ringwire::proto::Spares;
use ringwire::tls::{Acceptor, Connector, Event, Session};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, ConfigBuilder, RootCertStore, ServerConfig, SupportedProtocolVersion, WantsVerifier};

use crate::rig::Layer;

/// What all runs go by: a certificate, once. Its signatures are all of one length, so that a seed's runs are alike.
struct Pki {
    certificate: CertificateDer<'static>,
    key: PrivateKeyDer<'static>,
    server: ServerConfig,
    connector: Connector,
}

fn pki() -> &'static Pki {
    static PKI: OnceLock<Pki> = OnceLock::new();
    PKI.get_or_init(|| {
        let key = KeyPair::generate_for(&PKCS_ED25519).unwrap();
        let certificate =
            CertificateParams::new(vec!["localhost".into(), "10.9.9.9".into()]).unwrap().self_signed(&key).unwrap();
        let certificate = certificate.der().clone();
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let server = server(ServerConfig::builder(), &certificate, &key);
        let connector = Connector::new(client(ClientConfig::builder(), &certificate));
        Pki { certificate, key, server, connector }
    })
}

fn server(
    builder: ConfigBuilder<ServerConfig, WantsVerifier>,
    certificate: &CertificateDer<'static>,
    key: &PrivateKeyDer<'static>,
) -> ServerConfig {
    builder.with_no_client_auth().with_single_cert(vec![certificate.clone()], key.clone_key()).unwrap()
}

fn client(builder: ConfigBuilder<ClientConfig, WantsVerifier>, certificate: &CertificateDer<'static>) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots.add(certificate.clone()).unwrap();
    let mut client = builder.with_root_certificates(roots).with_no_client_auth();
    client.resumption = rustls::client::Resumption::disabled();
    client
}

/// What a server of the ordinary kind goes by that speaks this version alone.
pub fn server_config(version: &'static SupportedProtocolVersion) -> ServerConfig {
    server(ServerConfig::builder_with_protocol_versions(&[version]), &pki().certificate, &pki().key)
}

/// And a client.
pub fn client_config(version: &'static SupportedProtocolVersion) -> ClientConfig {
    client(ClientConfig::builder_with_protocol_versions(&[version]), &pki().certificate)
}

pub fn acceptor() -> Arc<Acceptor> {
    Arc::new(Acceptor::new(pki().server.clone()).unwrap())
}

/// What a client goes by that trusts this server, at its address too.
pub fn connector() -> Connector {
    pki().connector.clone()
}

/// A client's layer of TLS, for [`Transport`](crate::rig::Transport).
pub fn layer(client: Client) -> Box<dyn Layer> {
    Box::new(Socket::secure(client))
}

impl Layer for Socket {
    fn receive(&mut self) -> Vec<u8> {
        self.read(usize::MAX)
    }

    fn send(&mut self, bytes: &[u8]) {
        Socket::send(self, bytes);
    }
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
        Socket::with(client, pki().connector.session("localhost").unwrap())
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

    /// Whether there is TLS.
    pub fn is_secure(&self) -> bool {
        self.tls.is_some()
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
