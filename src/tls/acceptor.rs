//! What makes the sessions of a listener.

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use rustls::ServerConfig;

use super::{ALPN, Session, TlsError};

/// Makes the sessions of a listener, all cores' alike. Its configuration can be replaced while it is in use.
///
/// Whatever the configuration says, it is given: HTTP/1.1 as the only protocol; tickets without state, whose keys rotate, and
/// which end with the configuration that they were issued under, because whom that has let in the next one may not; and no
/// early data, which could be replayed.
pub struct Acceptor {
    config: RwLock<Arc<ServerConfig>>,
}

impl Acceptor {
    /// One that goes by this configuration.
    ///
    /// # Errors
    /// If there is no randomness for the keys of tickets.
    pub fn new(config: ServerConfig) -> Result<Acceptor, TlsError> {
        Ok(Acceptor { config: RwLock::new(prepared(config)?) })
    }

    /// Goes by another configuration from now on. Sessions that there are keep theirs.
    ///
    /// # Errors
    /// As [`Acceptor::new`]; the old one stays then.
    pub fn replace(&self, config: ServerConfig) -> Result<(), TlsError> {
        let config = prepared(config)?;
        *self.config.write().unwrap_or_else(PoisonError::into_inner) = config;
        Ok(())
    }

    /// The configuration that it goes by now.
    pub fn config(&self) -> Arc<ServerConfig> {
        self.config.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A session for a connection that was just accepted. It costs nothing before its peer has said something.
    pub fn session(&self) -> Session {
        Session::server(self.config())
    }
}

impl fmt::Debug for Acceptor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Acceptor").finish_non_exhaustive()
    }
}

fn prepared(mut config: ServerConfig) -> Result<Arc<ServerConfig>, TlsError> {
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.enable_secret_extraction = true;
    config.max_early_data_size = 0;
    config.send_half_rtt_data = false;
    config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
    config.ticketer = rustls::crypto::aws_lc_rs::Ticketer::new()?;
    Ok(Arc::new(config))
}
