//! TLS, without I/O: bytes of a connection go in and come out, of either role.
//!
//! A [`Session`] is one connection's. rustls makes its handshake; from then on its records are opened and sealed here, in
//! place, with the keys that the handshake has agreed on: a record that is whole in a receive buffer is opened there, a split
//! one in a buffer that is borrowed for it, and whatever a tick has queued to a connection becomes one record, up to 16 KiB.
//! TLS 1.3 (RFC 8446) and 1.2 (RFC 5246) with AES-GCM (RFC 5288) and ChaCha20-Poly1305 (RFC 7905). There is no early data, no
//! renegotiation and no compression.
//!
//! An [`Acceptor`] makes the sessions of a listener, a [`Connector`] those of a client.
//!
//! Order of calls of a session: [`Session::next`] with what has been received, until it has no more; what it has to say by
//! itself, of the handshake and later, waits in it ([`Session::has_output`]) and comes out of [`Session::take_output`], or in
//! front of the next [`Session::seal`]. Whatever comes out is to be sent in the order in which it has come out.
//! [`Session::seal_close`] comes last.
//!
//! What a peer sends can lead to an error only, with the alert for it waiting to be sent. Nothing of a record is handed on
//! before its authentication tag has been checked.
//!
//! Without the feature `tls` there is nothing to make a session of.
//!
//! Knows of this crate: `config`, `proto`, `quote`.

mod error;
mod info;

#[cfg(feature = "tls")]
mod acceptor;
#[cfg(feature = "tls")]
mod aead;
#[cfg(feature = "tls")]
mod certificates;
#[cfg(feature = "tls")]
mod connector;
#[cfg(all(test, feature = "tls"))]
mod connector_tests;
#[cfg(feature = "tls")]
mod handshake;
#[cfg(feature = "tls")]
mod hello;
#[cfg(feature = "tls")]
mod keys;
#[cfg(not(feature = "tls"))]
mod off;
#[cfg(feature = "tls")]
mod posted;
#[cfg(feature = "tls")]
mod record;
#[cfg(feature = "tls")]
mod session;
#[cfg(all(test, feature = "tls"))]
pub(crate) mod test_kit;
#[cfg(all(test, feature = "tls"))]
mod tests;

pub use error::{Failure, TlsError};
pub use info::{TlsInfo, TlsVersion};

#[cfg(feature = "tls")]
pub use acceptor::Acceptor;
#[cfg(feature = "tls")]
pub use certificates::{Certificate, CertificateError, Clients, Material};
#[cfg(feature = "tls")]
pub use connector::{Connector, ConnectorBuilder, ConnectorError};
#[cfg(not(feature = "tls"))]
pub use off::{Acceptor, Session};
#[cfg(feature = "tls")]
pub use session::Session;

/// RFC 7301: what WebSockets and the HTTP around them are spoken over (RFC 6455 has no name of its own).
#[cfg(feature = "tls")]
const ALPN: &[u8] = b"http/1.1";
/// Most bytes of content in one record (RFC 8446 5.1).
pub const RECORD_BYTES_MAX: usize = 1 << 14;
/// Most bytes that one record adds to its content.
pub const RECORD_OVERHEAD_MAX: usize = 5 + 8 + 1 + 16;

/// What a session has found in what was received.
#[derive(Debug)]
pub enum Event<'a> {
    /// The handshake is done. Once, before everything else.
    Ready,
    /// The peer has sent this.
    Data(&'a mut [u8]),
    /// The peer has said that it will send nothing more; whatever follows is ignored.
    Closed,
}
