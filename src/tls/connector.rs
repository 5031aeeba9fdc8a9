//! What makes the sessions of a client: whom it trusts, whom it shows itself as, and what it remembers of servers.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ClientSessionStore, Resumption, WantsClientCert};
use rustls::crypto::{SupportedKxGroup, WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::{Error as PemError, PemObject as _};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{CipherSuite, ClientConfig, ConfigBuilder, DigitallySignedStruct, RootCertStore, SignatureScheme};

use super::{ALPN, Failure, Session, TlsError, TlsVersion};

/// What the built connectors remember of how many servers: up to eight tickets each.
const SERVERS_REMEMBERED: usize = 32;
const TICKETS_PER_SERVER: usize = 8;

/// Makes the sessions of a client with servers. Cloned cheaply; clones, and all connections made with them, share what is
/// remembered of servers, so that a connection resumes what an earlier one has agreed on (RFC 8446 2.2), which spares both
/// sides most of the handshake.
///
/// Whatever its configuration says, HTTP/1.1 is the only protocol (RFC 7301), and there is no early data, which could be
/// replayed.
///
/// ```
/// use ringwire::client::tls::Connector;
///
/// # fn example() -> Result<(), Box<dyn std::error::Error>> {
/// // Trusts one authority, in place of those of the machine.
/// let connector = Connector::builder().ca_file("authority.pem").build()?;
/// let connecting = ringwire::client::connect("wss://chat.example.org/").tls(connector);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Connector {
    config: Arc<ClientConfig>,
}

impl Connector {
    /// One that goes by this configuration, with HTTP/1.1 as the only protocol and without early data. It has the
    /// configuration's store of sessions.
    ///
    /// ```
    /// use ringwire::client::{connect, tls::Connector};
    ///
    /// # fn example(config: rustls::ClientConfig) {
    /// let connector = Connector::new(config);
    /// let connecting = connect("wss://chat.example.org/").tls(connector);
    /// # }
    /// ```
    pub fn new(mut config: ClientConfig) -> Connector {
        config.alpn_protocols = vec![ALPN.to_vec()];
        config.enable_secret_extraction = true;
        config.enable_early_data = false;
        Connector { config: Arc::new(config) }
    }

    /// Builds one of parts; without any, it trusts whom the machine trusts.
    ///
    /// ```
    /// use ringwire::client::tls::Connector;
    ///
    /// let authority = rcgen::generate_simple_self_signed(["chat.example.org".to_owned()]).unwrap().cert.pem();
    /// assert!(Connector::builder().ca_pem(authority).build().is_ok());
    /// ```
    pub fn builder() -> ConnectorBuilder {
        ConnectorBuilder::default()
    }

    /// The process's own, made when it is first asked for: it trusts whom the machine trusts. Their certificates are read then,
    /// which takes some milliseconds: a program that minds asks before it serves.
    ///
    /// ```no_run
    /// use ringwire::client::{connect, tls::Connector};
    ///
    /// # async fn example() -> Result<(), ringwire::client::ClientError> {
    /// // To be told at the start, and not by the first connection, that the machine trusts nobody.
    /// let connector = Connector::platform()?;
    /// let client = connect("wss://chat.example.org/").tls(connector).await?;
    /// # drop(client);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// If the machine trusts nobody; the next time it is looked again.
    pub fn platform() -> Result<Connector, ConnectorError> {
        static CONNECTOR: Mutex<Option<Connector>> = Mutex::new(None);
        let mut connector = CONNECTOR.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(connector) = &*connector {
            return Ok(connector.clone());
        }
        let made = Connector::builder().build()?;
        Ok(connector.insert(made).clone())
    }

    /// A session with the server of this name, whose first words wait in it. The name is that of a host as URLs have it,
    /// an address included, with brackets or without; a name that is not ASCII has to be encoded before (RFC 5890).
    ///
    /// # Errors
    /// If that is no name, or the configuration cannot be used.
    pub fn session(&self, name: &str) -> Result<Session, TlsError> {
        let bare = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
        let Ok(name) = ServerName::try_from(bare) else {
            let text = format!("{} is no name that a certificate could be for", crate::quote::quoted(name));
            return Err(TlsError::new(Failure::Internal, text));
        };
        Session::client(self.config.clone(), name.to_owned())
    }
}

impl fmt::Debug for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connector").finish_non_exhaustive()
    }
}

/// Makes a [`Connector`]. Files are read by [`ConnectorBuilder::build`].
///
/// ```
/// use ringwire::TlsVersion;
/// use ringwire::client::tls::Connector;
///
/// # fn example() -> Result<Connector, ringwire::client::tls::ConnectorError> {
/// Connector::builder()
///     .ca_file("authority.pem")
///     .certificate_files("client.pem", "client.key")
///     .min_version(TlsVersion::Tls13)
///     .build()
/// # }
/// ```
#[derive(Clone, Default)]
pub struct ConnectorBuilder {
    authorities: Vec<Source>,
    trusts_platform: bool,
    trusts_anybody: bool,
    own: Option<(Source, Source)>,
    min_version: Option<TlsVersion>,
    forgets: bool,
    store: Option<Arc<dyn ClientSessionStore>>,
    groups: Option<Vec<&'static dyn SupportedKxGroup>>,
}

/// Where PEM is.
#[derive(Clone)]
enum Source {
    File(PathBuf),
    Bytes(Vec<u8>),
}

impl ConnectorBuilder {
    /// Trusts the certificates of authorities in this PEM file, and no longer those of the machine. May be called again for
    /// more of them. A server's self-signed certificate can stand there as well, unless it says that it is an authority's.
    ///
    /// ```
    /// use ringwire::client::tls::Connector;
    ///
    /// // Files are read when it is built.
    /// let error = Connector::builder().ca_file("/no/such/authority.pem").build().unwrap_err();
    /// assert!(error.to_string().contains("/no/such/authority.pem"));
    /// ```
    #[must_use]
    pub fn ca_file(mut self, path: impl Into<PathBuf>) -> ConnectorBuilder {
        self.authorities.push(Source::File(path.into()));
        self
    }

    /// As [`ConnectorBuilder::ca_file`], with the file's content.
    ///
    /// ```
    /// use ringwire::client::tls::Connector;
    ///
    /// let own = rcgen::generate_simple_self_signed(["chat.example.org".to_owned()]).unwrap();
    /// assert!(Connector::builder().ca_pem(own.cert.pem()).build().is_ok());
    /// assert!(Connector::builder().ca_pem("not PEM").build().is_err());
    /// ```
    #[must_use]
    pub fn ca_pem(mut self, pem: impl Into<Vec<u8>>) -> ConnectorBuilder {
        self.authorities.push(Source::Bytes(pem.into()));
        self
    }

    /// Trusts whom the machine trusts as well: those in `SSL_CERT_FILE` and `SSL_CERT_DIR` if these are set, else those
    /// where Linux distributions have them. It is so without [`ConnectorBuilder::ca_file`] and its like.
    ///
    /// ```no_run
    /// use ringwire::client::tls::Connector;
    ///
    /// # fn example() -> Result<Connector, ringwire::client::tls::ConnectorError> {
    /// // The house's own authority, and those that everybody trusts.
    /// Connector::builder().ca_file("house.pem").platform_roots().build()
    /// # }
    /// ```
    #[must_use]
    pub fn platform_roots(mut self) -> ConnectorBuilder {
        self.trusts_platform = true;
        self
    }

    /// **Accepts whatever certificate a server shows: of anybody, for any name, expired.** What is sent is encrypted, to
    /// whoever has answered. For tests.
    ///
    /// ```no_run
    /// use ringwire::client::{connect, tls::Connector};
    ///
    /// # async fn example() -> Result<(), ringwire::client::ClientError> {
    /// // In a test, of a server with a certificate that it has made itself.
    /// let connector = Connector::builder().dangerous_accept_any_certificate().build()?;
    /// let client = connect("wss://127.0.0.1:9443/").tls(connector).await?;
    /// # drop(client);
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn dangerous_accept_any_certificate(mut self) -> ConnectorBuilder {
        self.trusts_anybody = true;
        self
    }

    /// Shows this certificate to servers that ask for one. PEM files: the certificate with those that it was signed by, and
    /// its key. The last one set counts.
    ///
    /// ```no_run
    /// use ringwire::client::tls::Connector;
    ///
    /// # fn example() -> Result<Connector, ringwire::client::tls::ConnectorError> {
    /// Connector::builder().ca_file("authority.pem").certificate_files("client.pem", "client.key").build()
    /// # }
    /// ```
    #[must_use]
    pub fn certificate_files(
        mut self,
        certificate: impl Into<PathBuf>,
        key: impl Into<PathBuf>,
    ) -> ConnectorBuilder {
        self.own = Some((Source::File(certificate.into()), Source::File(key.into())));
        self
    }

    /// As [`ConnectorBuilder::certificate_files`], with the files' contents.
    ///
    /// ```
    /// use ringwire::client::tls::Connector;
    ///
    /// let own = rcgen::generate_simple_self_signed(["chat.example.org".to_owned()]).unwrap();
    /// let (certificate, key) = (own.cert.pem(), own.signing_key.serialize_pem());
    /// let of_itself = Connector::builder().ca_pem(own.cert.pem()).certificate_pem(certificate, key);
    /// assert!(of_itself.build().is_ok());
    /// ```
    #[must_use]
    pub fn certificate_pem(mut self, certificate: impl Into<Vec<u8>>, key: impl Into<Vec<u8>>) -> ConnectorBuilder {
        self.own = Some((Source::Bytes(certificate.into()), Source::Bytes(key.into())));
        self
    }

    /// The oldest version of TLS that is spoken; 1.2 if not set.
    ///
    /// ```
    /// use ringwire::TlsVersion;
    /// use ringwire::client::tls::Connector;
    ///
    /// let own = rcgen::generate_simple_self_signed(["chat.example.org".to_owned()]).unwrap();
    /// let connector = Connector::builder().ca_pem(own.cert.pem()).min_version(TlsVersion::Tls13).build();
    /// assert!(connector.is_ok());
    /// ```
    #[must_use]
    pub fn min_version(mut self, version: TlsVersion) -> ConnectorBuilder {
        self.min_version = Some(version);
        self
    }

    /// Remembers servers in this store, in place of a small one of its own: for whoever opens many connections at once, each of
    /// which takes a ticket.
    ///
    /// ```
    /// use ringwire::client::tls::Connector;
    /// use rustls::client::ClientSessionMemoryCache;
    /// use std::sync::Arc;
    ///
    /// let own = rcgen::generate_simple_self_signed(["chat.example.org".to_owned()]).unwrap();
    /// // For a thousand connections at once.
    /// let store = Arc::new(ClientSessionMemoryCache::new(1000));
    /// assert!(Connector::builder().ca_pem(own.cert.pem()).session_store(store).build().is_ok());
    /// ```
    #[must_use]
    pub fn session_store(mut self, store: Arc<dyn ClientSessionStore>) -> ConnectorBuilder {
        self.store = Some(store);
        self
    }

    /// Makes a full handshake each time, and remembers nothing of servers.
    ///
    /// ```
    /// use ringwire::client::tls::Connector;
    ///
    /// let own = rcgen::generate_simple_self_signed(["chat.example.org".to_owned()]).unwrap();
    /// // Each connection stands for itself, and none can be told to be of the same client as another.
    /// assert!(Connector::builder().ca_pem(own.cert.pem()).without_resumption().build().is_ok());
    /// ```
    #[must_use]
    pub fn without_resumption(mut self) -> ConnectorBuilder {
        self.forgets = true;
        self
    }

    /// Offers these key exchanges and no others, the one that is wanted most first (RFC 8446 4.2.7); if not set, those of
    /// rustls' provider, X25519MLKEM768 and X25519 before the curves of NIST.
    ///
    /// ```
    /// use ringwire::client::tls::Connector;
    /// use rustls::crypto::aws_lc_rs::kx_group::{SECP256R1, X25519};
    ///
    /// let own = rcgen::generate_simple_self_signed(["chat.example.org".to_owned()]).unwrap();
    /// assert!(Connector::builder().ca_pem(own.cert.pem()).key_exchange_groups([X25519, SECP256R1]).build().is_ok());
    /// assert!(Connector::builder().ca_pem(own.cert.pem()).key_exchange_groups([]).build().is_err());
    /// ```
    #[must_use]
    pub fn key_exchange_groups(
        mut self,
        groups: impl IntoIterator<Item = &'static dyn SupportedKxGroup>,
    ) -> ConnectorBuilder {
        self.groups = Some(groups.into_iter().collect());
        self
    }

    /// Reads the files and makes the connector.
    ///
    /// ```
    /// use ringwire::client::tls::Connector;
    ///
    /// let own = rcgen::generate_simple_self_signed(["chat.example.org".to_owned()]).unwrap();
    /// let other = rcgen::generate_simple_self_signed(["chat.example.org".to_owned()]).unwrap();
    /// let mixed = Connector::builder().ca_pem(own.cert.pem()).certificate_pem(own.cert.pem(), other.signing_key.serialize_pem());
    /// assert!(mixed.build().unwrap_err().to_string().contains("not the key of the certificate"));
    /// ```
    ///
    /// # Errors
    /// A file that cannot be read or does not hold what it should, a key of another certificate; nobody that is trusted; no key
    /// exchange that is offered.
    pub fn build(self) -> Result<Connector, ConnectorError> {
        let mut provider = rustls::crypto::aws_lc_rs::default_provider();
        // As browsers do: servers go by the client's order, and keys of 256 bits cost a third more.
        provider.cipher_suites.sort_by_key(|suite| !is_aes_128(suite.suite()));
        if let Some(groups) = self.groups.clone() {
            provider.kx_groups = groups;
        }
        let provider = Arc::new(provider);
        let versions = match self.min_version {
            Some(TlsVersion::Tls13) => &[&rustls::version::TLS13][..],
            _ => rustls::ALL_VERSIONS,
        };
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(versions)
            .map_err(|error| ConnectorError(format!("the key exchanges cannot be offered: {error}")))?;
        let builder: ConfigBuilder<ClientConfig, WantsClientCert> = match self.trusts_anybody {
            true => {
                let verifier = AcceptsAny(provider.signature_verification_algorithms);
                builder.dangerous().with_custom_certificate_verifier(Arc::new(verifier))
            }
            false => builder.with_root_certificates(self.roots()?),
        };
        let mut config = match &self.own {
            None => builder.with_no_client_auth(),
            Some((certificate, key)) => {
                let chain = certificates(certificate)?;
                let private = private_key(key)?;
                builder.with_client_auth_cert(chain, private).map_err(|error| match error {
                    rustls::Error::InconsistentKeys(_) => {
                        ConnectorError(format!("{key}: not the key of the certificate in {certificate}"))
                    }
                    error => key.wrong(&error.to_string()),
                })?
            }
        };
        config.resumption = match (self.forgets, self.store.clone()) {
            (true, _) => Resumption::disabled(),
            (false, Some(store)) => Resumption::store(store),
            (false, None) => Resumption::in_memory_sessions(SERVERS_REMEMBERED * TICKETS_PER_SERVER),
        };
        Ok(Connector::new(config))
    }

    fn roots(&self) -> Result<RootCertStore, ConnectorError> {
        let mut roots = RootCertStore::empty();
        for source in &self.authorities {
            for certificate in certificates(source)? {
                roots.add(certificate).map_err(|error| source.wrong(&error.to_string()))?;
            }
        }
        if self.trusts_platform || self.authorities.is_empty() {
            let found = rustls_native_certs::load_native_certs();
            // Some that are there are old enough to be no certificates any more.
            let (added, _) = roots.add_parsable_certificates(found.certs);
            if added == 0 && roots.is_empty() {
                let why = found.errors.first().map(|error| format!(" ({error})")).unwrap_or_default();
                return Err(ConnectorError(format!(
                    "the machine has no certificates of authorities{why}: install them (ca-certificates), point \
                     SSL_CERT_FILE at a file of them, or give the client its own"
                )));
            }
        }
        Ok(roots)
    }
}

impl fmt::Debug for ConnectorBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConnectorBuilder")
            .field("trusts_platform", &self.trusts_platform)
            .field("trusts_anybody", &self.trusts_anybody)
            .finish_non_exhaustive()
    }
}

impl Source {
    fn read(&self) -> Result<Vec<u8>, ConnectorError> {
        match self {
            Source::File(path) => std::fs::read(path).map_err(|error| self.wrong(&error.to_string())),
            Source::Bytes(bytes) => Ok(bytes.clone()),
        }
    }

    fn wrong(&self, what: &str) -> ConnectorError {
        ConnectorError(format!("{self}: {what}"))
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Source::File(path) => Path::display(path).fmt(f),
            Source::Bytes(_) => f.write_str("what was given as PEM"),
        }
    }
}

fn certificates(source: &Source) -> Result<Vec<CertificateDer<'static>>, ConnectorError> {
    let found: Result<Vec<_>, PemError> = CertificateDer::pem_slice_iter(&source.read()?).collect();
    match found {
        Ok(found) if found.is_empty() => Err(source.wrong("there is no certificate in it")),
        Ok(found) => Ok(found),
        Err(error) => Err(source.wrong(&format!("not PEM: {error}"))),
    }
}

fn private_key(source: &Source) -> Result<PrivateKeyDer<'static>, ConnectorError> {
    PrivateKeyDer::from_pem_slice(&source.read()?).map_err(|error| match error {
        PemError::NoItemsFound => source.wrong("there is no private key in it"),
        error => source.wrong(&format!("not PEM: {error}")),
    })
}

/// Why no [`Connector`] could be made: one line that names the file.
///
/// ```
/// use ringwire::client::tls::Connector;
///
/// let error = Connector::builder().ca_pem("no certificate").build().unwrap_err();
/// eprintln!("{error}");
/// ```
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ConnectorError(String);

/// Believes everybody to be who he says, and still has him prove that he has the key.
#[derive(Debug)]
struct AcceptsAny(WebPkiSupportedAlgorithms);

impl ServerCertVerifier for AcceptsAny {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.0)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.0)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_schemes()
    }
}

fn is_aes_128(suite: CipherSuite) -> bool {
    matches!(
        suite,
        CipherSuite::TLS13_AES_128_GCM_SHA256
            | CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256
            | CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256
    )
}
