//! The handshake: rustls', with its input cut into records.
//!
//! It is given one record at a time, so that nothing of what comes behind the handshake is in its hands when it is done.

use std::sync::Arc;

use rustls::client::UnbufferedClientConnection;
use rustls::kernel::KernelConnection;
use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::{ConnectionState, EncodeError, UnbufferedStatus};
use rustls::{CommonState, ExtractedSecrets, HandshakeKind, ProtocolVersion};

use super::hello::Hello;
use super::record::{ALERT, APPLICATION_DATA};
use super::{Failure, TlsError, TlsInfo, TlsVersion};

/// A handshake under way.
pub(super) struct Handshake {
    side: Side,
    /// Records that rustls has not done with: of a message that is not complete.
    records: Vec<u8>,
    hello: Hello,
    /// Something was written.
    pub(super) has_spoken: bool,
    has_heard: bool,
}

enum Side {
    Server(UnbufferedServerConnection),
    Client(UnbufferedClientConnection),
}

/// What derives the keys that follow, and keeps a client's tickets.
pub(super) enum Kernel {
    Server(KernelConnection<rustls::server::ServerConnectionData>),
    Client(KernelConnection<rustls::client::ClientConnectionData>),
}

/// How a handshake goes on.
enum Step {
    Again,
    /// More of the peer's records are needed.
    Blocked,
    /// Data may be sent, if not yet received.
    Traffic,
}

/// What a handshake leaves.
pub(super) struct Done {
    pub(super) secrets: ExtractedSecrets,
    pub(super) kernel: Kernel,
    pub(super) info: TlsInfo,
}

impl Handshake {
    pub(super) fn server(config: Arc<rustls::ServerConfig>) -> Result<Handshake, TlsError> {
        Ok(Handshake::new(Side::Server(UnbufferedServerConnection::new(config)?)))
    }

    /// A client's, which has the first word: it is in `out`.
    pub(super) fn client(
        config: Arc<rustls::ClientConfig>,
        name: rustls::pki_types::ServerName<'static>,
        out: &mut Vec<u8>,
    ) -> Result<Handshake, TlsError> {
        let mut handshake = Handshake::new(Side::Client(UnbufferedClientConnection::new(config, name)?));
        handshake.go_on(out)?;
        handshake.has_spoken = true;
        Ok(handshake)
    }

    fn new(side: Side) -> Handshake {
        Handshake { side, records: Vec::new(), hello: Hello::default(), has_spoken: false, has_heard: false }
    }

    /// Takes a record of the peer, header and all; returns whether that was the last one. What is to be said goes to `out`, on
    /// failure the alert.
    pub(super) fn take(&mut self, record: &[u8], out: &mut Vec<u8>) -> Result<bool, TlsError> {
        if let Side::Server(_) = self.side {
            self.hello.look_at(record);
        }
        self.has_heard = true;
        self.records.extend_from_slice(record);
        let before = out.len();
        let taken = self.go_on(out);
        if taken.is_err() {
            self.fetch_alert(out);
        }
        self.has_spoken |= out.len() > before;
        taken
    }

    fn go_on(&mut self, out: &mut Vec<u8>) -> Result<bool, TlsError> {
        loop {
            match self.step(out)? {
                Step::Again => {}
                Step::Traffic if !self.common().is_handshaking() => return Ok(true),
                Step::Blocked | Step::Traffic => return Ok(false),
            }
        }
    }

    fn step(&mut self, out: &mut Vec<u8>) -> Result<Step, TlsError> {
        let (discard, step) = match &mut self.side {
            Side::Server(server) => step_of(server.process_tls_records(&mut self.records), out),
            Side::Client(client) => step_of(client.process_tls_records(&mut self.records), out),
        };
        self.records.drain(..discard);
        step
    }

    /// The alert, if there is one to send. rustls gives out what waits before it looks at its input, which it must not do again
    /// now: so it is asked no more once an alert has come, or what may be one that is sealed.
    fn fetch_alert(&mut self, out: &mut Vec<u8>) {
        loop {
            let at = out.len();
            let fetched = self.step(out);
            if !matches!(fetched, Ok(Step::Again)) || matches!(out.get(at), None | Some(&ALERT | &APPLICATION_DATA)) {
                return;
            }
        }
    }

    fn common(&self) -> &CommonState {
        match &self.side {
            Side::Server(server) => server,
            Side::Client(client) => client,
        }
    }

    /// What a handshake that is done has agreed on.
    pub(super) fn finish(mut self) -> Result<Done, TlsError> {
        let server_name = std::mem::take(&mut self.hello).into_name();
        let common = self.common();
        let version = match common.protocol_version() {
            Some(ProtocolVersion::TLSv1_3) => TlsVersion::Tls13,
            _ => TlsVersion::Tls12,
        };
        let suite = common.negotiated_cipher_suite();
        let info = TlsInfo {
            version,
            cipher_suite: suite.and_then(|suite| iana_name(suite.suite())).unwrap_or_default(),
            key_exchange: common.negotiated_key_exchange_group().and_then(|group| group.name().as_str()),
            alpn: common.alpn_protocol().map(Into::into),
            server_name,
            is_resumed: common.handshake_kind() == Some(HandshakeKind::Resumed),
            peer_certificates: common
                .peer_certificates()
                .unwrap_or_default()
                .iter()
                .map(|der| (**der).into())
                .collect(),
        };
        let (secrets, kernel) = match self.side {
            Side::Server(server) => {
                let (secrets, kernel) = server.dangerous_into_kernel_connection()?;
                (secrets, Kernel::Server(kernel))
            }
            Side::Client(client) => {
                let (secrets, kernel) = client.dangerous_into_kernel_connection()?;
                (secrets, Kernel::Client(kernel))
            }
        };
        Ok(Done { secrets, kernel, info })
    }

    /// Whether a client waits for its server's first word.
    pub(super) fn is_first_of_server(&self) -> bool {
        matches!(self.side, Side::Client(_)) && !self.has_heard
    }

    /// Bytes of heap that it holds at least.
    pub(super) fn memory_bytes(&self) -> usize {
        size_of::<Handshake>() + self.records.capacity()
    }
}

impl Kernel {
    pub(super) fn is_client(&self) -> bool {
        matches!(self, Kernel::Client(_))
    }

    /// RFC 8446 7.2.
    pub(super) fn next_sealing(&mut self) -> Result<(u64, rustls::ConnectionTrafficSecrets), rustls::Error> {
        match self {
            Kernel::Server(kernel) => kernel.update_tx_secret(),
            Kernel::Client(kernel) => kernel.update_tx_secret(),
        }
    }

    pub(super) fn next_opening(&mut self) -> Result<(u64, rustls::ConnectionTrafficSecrets), rustls::Error> {
        match self {
            Kernel::Server(kernel) => kernel.update_rx_secret(),
            Kernel::Client(kernel) => kernel.update_rx_secret(),
        }
    }

    pub(super) fn keep_ticket(&mut self, ticket: &[u8]) -> Result<(), rustls::Error> {
        match self {
            Kernel::Server(_) => Err(rustls::Error::HandshakeNotComplete),
            Kernel::Client(kernel) => kernel.handle_new_session_ticket(ticket),
        }
    }
}

fn step_of<D>(status: UnbufferedStatus<'_, '_, D>, out: &mut Vec<u8>) -> (usize, Result<Step, TlsError>) {
    let internal = |text: &str| TlsError::new(Failure::Internal, text);
    let step = match status.state {
        Err(error) => Err(error.into()),
        Ok(ConnectionState::EncodeTlsData(mut data)) => {
            let at = out.len();
            if let Err(EncodeError::InsufficientSize(short)) = data.encode(&mut []) {
                out.resize(at + short.required_size, 0);
            }
            match data.encode(&mut out[at..]) {
                Ok(_) => Ok(Step::Again),
                Err(_) => Err(internal("a part of a handshake that cannot be written")),
            }
        }
        Ok(ConnectionState::TransmitTlsData(data)) => {
            data.done();
            Ok(Step::Again)
        }
        Ok(ConnectionState::BlockedHandshake) => Ok(Step::Blocked),
        Ok(ConnectionState::WriteTraffic(_)) => Ok(Step::Traffic),
        Ok(ConnectionState::PeerClosed | ConnectionState::Closed) => {
            Err(TlsError::new(Failure::Alert, "the peer closed within the handshake"))
        }
        Ok(_) => Err(internal("data within a handshake")),
    };
    (status.discard, step)
}

/// The name by which IANA's registry has a suite: rustls sets those of TLS 1.3 apart.
fn iana_name(suite: rustls::CipherSuite) -> Option<&'static str> {
    match suite {
        rustls::CipherSuite::TLS13_AES_128_GCM_SHA256 => Some("TLS_AES_128_GCM_SHA256"),
        rustls::CipherSuite::TLS13_AES_256_GCM_SHA384 => Some("TLS_AES_256_GCM_SHA384"),
        rustls::CipherSuite::TLS13_CHACHA20_POLY1305_SHA256 => Some("TLS_CHACHA20_POLY1305_SHA256"),
        _ => suite.as_str(),
    }
}
