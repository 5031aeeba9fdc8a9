//! Whom a client of `wss://` trusts, and what it is told of TLS.
//!
//! Nothing of it is needed for a server whose certificate the machine's authorities have signed:
//!
//! ```no_run
//! # async fn example() -> Result<(), ringwire::client::ClientError> {
//! let client = ringwire::client::connect("wss://chat.example.org/").await?;
//! # Ok(())
//! # }
//! ```
//!
//! A [`Connector`] is for all else: an authority of one's own, a certificate to show, a configuration of rustls. One is
//! meant to be made once and cloned: its clones resume each other's sessions.

#[cfg(feature = "tls")]
pub use crate::tls::{Connector, ConnectorBuilder, ConnectorError};
pub use crate::tls::{Failure, TlsError};

#[cfg(feature = "tls")]
impl From<ConnectorError> for super::ClientError {
    fn from(error: ConnectorError) -> super::ClientError {
        super::ClientError::Unavailable(error.to_string())
    }
}
