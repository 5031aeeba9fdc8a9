//! Certificates, configurations and a rustls of the ordinary kind at the other end, in memory.

use std::sync::Arc;

use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::ServerName;
use rustls::server::WebPkiClientVerifier;
use rustls::{
    CipherSuite, ClientConfig, ClientConnection, Connection, ServerConfig, ServerConnection, SupportedProtocolVersion,
};

use super::{Acceptor, Connector, Event, Session, TlsError};
use crate::proto::Spares;
use pki::{Authority, Issued};

#[path = "../../tests/common/pki.rs"]
pub(crate) mod pki;

/// An authority, and a certificate for localhost that it has signed.
pub(crate) struct Pki {
    authority: Authority,
    issued: Issued,
}

impl Pki {
    pub(crate) fn new() -> Pki {
        let authority = Authority::new();
        let issued = authority.sign(&["localhost"]);
        Pki { authority, issued }
    }

    /// The certificate, as peers show it.
    pub(crate) fn certificate(&self) -> &[u8] {
        &self.issued.certificate
    }

    pub(crate) fn server(&self, with: &With, asks_for_certificates: bool) -> ServerConfig {
        let (chain, key) = self.issued.pair();
        let builder =
            ServerConfig::builder_with_provider(with.provider()).with_protocol_versions(&[with.version]).unwrap();
        let verifier = WebPkiClientVerifier::builder_with_provider(self.authority.roots(), with.provider()).build().unwrap();
        let builder = match asks_for_certificates {
            true => builder.with_client_cert_verifier(verifier),
            false => builder.with_no_client_auth(),
        };
        builder.with_single_cert(chain, key).unwrap()
    }

    pub(crate) fn client(&self, with: &With, shows_certificate: bool) -> ClientConfig {
        let (chain, key) = self.issued.pair();
        let builder =
            ClientConfig::builder_with_provider(with.provider()).with_protocol_versions(&[with.version]).unwrap();
        let builder = builder.with_root_certificates(self.authority.roots());
        match shows_certificate {
            true => builder.with_client_auth_cert(chain, key).unwrap(),
            false => builder.with_no_client_auth(),
        }
    }
}

/// What is to be agreed on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct With {
    pub(crate) version: &'static SupportedProtocolVersion,
    pub(crate) suite: CipherSuite,
}

impl With {
    pub(crate) const TLS13: With =
        With { version: &rustls::version::TLS13, suite: CipherSuite::TLS13_AES_128_GCM_SHA256 };
    pub(crate) const TLS12: With =
        With { version: &rustls::version::TLS12, suite: CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256 };

    /// Both versions with all three ciphers.
    pub(crate) fn all() -> Vec<With> {
        let of_13 = [
            CipherSuite::TLS13_AES_128_GCM_SHA256,
            CipherSuite::TLS13_AES_256_GCM_SHA384,
            CipherSuite::TLS13_CHACHA20_POLY1305_SHA256,
        ];
        let of_12 = [
            CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
            CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
            CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
        ];
        let of_13 = of_13.map(|suite| With { suite, ..With::TLS13 });
        of_13.into_iter().chain(of_12.map(|suite| With { suite, ..With::TLS12 })).collect()
    }

    fn provider(&self) -> Arc<CryptoProvider> {
        let mut provider = aws_lc_rs::default_provider();
        provider.cipher_suites.retain(|suite| suite.suite() == self.suite);
        Arc::new(provider)
    }
}

/// A session and rustls' own connection at its other end.
pub(crate) struct Pair {
    pub(crate) session: Session,
    pub(crate) peer: Connection,
    spares: Spares,
    peer_got: Vec<u8>,
    /// What the session was sent.
    pub(crate) got: Vec<u8>,
    pub(crate) is_ready: bool,
    pub(crate) is_closed: bool,
}

impl Pair {
    pub(crate) fn server(acceptor: &Acceptor, client: &Arc<ClientConfig>) -> Pair {
        let peer = ClientConnection::new(client.clone(), ServerName::try_from("localhost").unwrap()).unwrap();
        Pair::of(acceptor.session(), peer.into())
    }

    pub(crate) fn client(connector: &Connector, server: &Arc<ServerConfig>) -> Pair {
        Pair::meet(connector.session("localhost").unwrap(), server)
    }

    /// A client's session and a server.
    pub(crate) fn meet(session: Session, server: &Arc<ServerConfig>) -> Pair {
        Pair::of(session, ServerConnection::new(server.clone()).unwrap().into())
    }

    /// The session is the server or the client.
    pub(crate) fn with(with: &With, is_server: bool) -> Pair {
        let pki = Pki::new();
        let (server, client) = (pki.server(with, false), pki.client(with, false));
        match is_server {
            true => Pair::server(&Acceptor::new(server).unwrap(), &Arc::new(client)),
            false => Pair::client(&Connector::new(client), &Arc::new(server)),
        }
    }

    fn of(session: Session, peer: Connection) -> Pair {
        Pair {
            session,
            peer,
            spares: Spares::new(1 << 20),
            peer_got: Vec::new(),
            got: Vec::new(),
            is_ready: false,
            is_closed: false,
        }
    }

    /// What the peer has to send.
    pub(crate) fn read_peer(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        while self.peer.wants_write() {
            self.peer.write_tls(&mut bytes).unwrap();
        }
        bytes
    }

    /// Gives bytes to the peer, which must like them.
    pub(crate) fn tell_peer(&mut self, mut bytes: &[u8]) -> Result<(), rustls::Error> {
        while !bytes.is_empty() {
            self.peer.read_tls(&mut bytes).unwrap();
            self.peer.process_new_packets()?;
            // WouldBlock when there is no more.
            let _ = std::io::Read::read_to_end(&mut self.peer.reader(), &mut self.peer_got);
        }
        Ok(())
    }

    /// Gives bytes to the session, so many at a time.
    pub(crate) fn feed(&mut self, bytes: &[u8], at_once: usize) -> Result<(), TlsError> {
        for part in bytes.chunks(at_once) {
            let mut part = part.to_vec();
            let mut at = 0;
            while let Some(event) = self.session.next(&mut part, &mut at, &mut self.spares)? {
                match event {
                    Event::Ready => self.is_ready = true,
                    Event::Data(data) => self.got.extend_from_slice(data),
                    Event::Closed => self.is_closed = true,
                }
            }
            assert_eq!(at, part.len());
        }
        Ok(())
    }

    /// Goes back and forth until neither has anything to say.
    pub(crate) fn settle(&mut self, at_once: usize) -> Result<(), TlsError> {
        loop {
            let read_peer = self.read_peer();
            let fed = self.feed(&read_peer, at_once);
            let mut out = Vec::new();
            self.session.take_output(&mut out);
            let read = self.tell_peer(&out);
            fed?;
            read.unwrap();
            if read_peer.is_empty() && out.is_empty() {
                return Ok(());
            }
        }
    }

    /// As [`Pair::settle`], with a peer that may not like what it hears.
    pub(crate) fn settle_refused(&mut self) -> Result<(), String> {
        loop {
            let read_peer = self.read_peer();
            self.feed(&read_peer, usize::MAX).map_err(|error| error.to_string())?;
            let mut out = Vec::new();
            self.session.take_output(&mut out);
            let told = self.tell_peer(&out);
            let answer = self.read_peer();
            self.feed(&answer, usize::MAX).map_err(|error| error.to_string())?;
            told.map_err(|error| error.to_string())?;
            if read_peer.is_empty() && out.is_empty() && answer.is_empty() {
                return Ok(());
            }
        }
    }

    /// The session sends this; returns what the peer has read.
    pub(crate) fn send(&mut self, pieces: &[&[u8]]) -> Vec<u8> {
        let mut sealed = Vec::new();
        self.session.seal(pieces.iter().copied(), &mut sealed).unwrap();
        self.tell_peer(&sealed).unwrap();
        self.read_by_peer()
    }

    pub(crate) fn read_by_peer(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.peer_got)
    }

    /// The peer sends this; returns how the session took it.
    pub(crate) fn receive(&mut self, bytes: &[u8], at_once: usize) -> Result<Vec<u8>, TlsError> {
        let mut rest = bytes;
        while !rest.is_empty() {
            let written = std::io::Write::write(&mut self.peer.writer(), rest).unwrap();
            rest = &rest[written..];
            let sealed = self.read_peer();
            self.feed(&sealed, at_once)?;
        }
        Ok(std::mem::take(&mut self.got))
    }
}
