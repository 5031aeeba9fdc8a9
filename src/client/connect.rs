//! What a connection is asked to be: URL, headers, limits; and the future that makes it.

use std::future::{Future, IntoFuture};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::Uri;
use percent_encoding::{CONTROLS, utf8_percent_encode};

use super::Client;
use super::deflate::BYTES_MIN;
use super::error::ClientError;
use super::keys::no_random;
use super::letter::{Courier, Handle};
use super::order::{Destination, Order, Settings};
use super::out::SEND_BYTES_MAX;
use super::{keys, thread};
use crate::proto::Limits;
use crate::proto::extensions::Offer;
use crate::proto::handshake::{client_key, put_request};
#[cfg(feature = "tls")]
use crate::tls::Connector;
use crate::tls::Session;

/// Most frames of one received message.
const FRAGMENTS_MAX: u32 = 131_072;
/// Header fields that the handshake writes itself.
const OWN_HEADERS: [&str; 6] = [
    "upgrade",
    "connection",
    "sec-websocket-key",
    "sec-websocket-version",
    "sec-websocket-protocol",
    "sec-websocket-extensions",
];

/// A connection to be made: awaiting it gives the [`Client`], [`Connect::wait`] the blocking one.
///
/// ```no_run
/// use std::time::Duration;
///
/// # async fn example() -> Result<(), ringwire::client::ClientError> {
/// let client = ringwire::client::connect("ws://127.0.0.1:9001/echo")
///     .header("authorization", "Bearer 123")
///     .subprotocols(["chat-v2", "chat-v1"])
///     .handshake_timeout(Duration::from_secs(3))
///     .ping_interval(Duration::from_secs(30))
///     .await?;
/// assert_ne!(client.protocol(), Some("chat-v0"));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
#[must_use = "it does nothing until it is awaited"]
pub struct Connect {
    url: String,
    headers: Vec<(String, String)>,
    protocols: Vec<String>,
    unix: Option<PathBuf>,
    settings: Settings,
    /// If it was set.
    ping_interval: Option<Duration>,
    #[cfg(feature = "tls")]
    tls: Option<Connector>,
    courier: Option<Arc<Courier>>,
}

/// A connection to a `ws://` or `wss://` URL, with the default settings. Nothing happens until it is awaited.
///
/// `wss://` is TLS with whoever the machine's authorities have signed a certificate for the URL's host
/// ([`Connect::tls`] says otherwise), and needs the feature `tls`.
///
/// ```no_run
/// # async fn example() -> Result<(), ringwire::client::ClientError> {
/// let mut client = ringwire::client::connect("ws://127.0.0.1:9001/echo").await?;
/// client.send("hello").await?;
/// if let Some(message) = client.recv().await {
///     println!("{:?}", message?.as_text());
/// }
/// client.close(1000, "done").await?;
/// # Ok(())
/// # }
/// ```
pub fn connect(url: impl Into<String>) -> Connect {
    Connect {
        url: url.into(),
        headers: Vec::new(),
        protocols: Vec::new(),
        unix: None,
        settings: Settings {
            bind: None,
            limits: Limits { message_bytes_max: 16 << 20, fragments_max: FRAGMENTS_MAX },
            handshake_timeout: Duration::from_secs(10),
            close_timeout: Duration::from_secs(5),
            ping_interval: Duration::ZERO,
            pong_timeout: Duration::from_secs(10),
            outbox_bytes_max: 1 << 20,
            inbox_bytes_max: 1 << 20,
            deflate: None,
            deflate_bytes_min: BYTES_MIN,
        },
        ping_interval: None,
        #[cfg(feature = "tls")]
        tls: None,
        courier: None,
    }
}

impl Connect {
    /// Adds a header field to the handshake; `Host` replaces the URL's. A field that must not be sent makes connecting
    /// fail with [`ClientError::Header`].
    ///
    /// ```no_run
    /// # async fn example() -> Result<(), ringwire::client::ClientError> {
    /// let client = ringwire::client::connect("ws://127.0.0.1:9001/feed").header("authorization", "Bearer secret").await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Connect {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// Offers subprotocols, the favourite first (RFC 6455 1.9); which one the server chose says [`Client::protocol`].
    ///
    /// ```no_run
    /// # async fn example() -> Result<(), ringwire::client::ClientError> {
    /// let client = ringwire::client::connect("ws://127.0.0.1:9001/feed").subprotocols(["v2", "v1"]).await?;
    /// match client.protocol() {
    ///     Some("v2") => println!("it speaks the newer one"),
    ///     _ => println!("the older one will do"),
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn subprotocols<P: Into<String>>(mut self, protocols: impl IntoIterator<Item = P>) -> Connect {
        self.protocols.extend(protocols.into_iter().map(Into::into));
        self
    }

    /// Offers compression (permessage-deflate, RFC 7692): messages of 256 bytes and more are sent compressed, and refer to those
    /// before them, where the server agrees. Whether it does says the field `Sec-WebSocket-Extensions` of
    /// [`Client::headers`].
    ///
    /// ```no_run
    /// # async fn example() -> Result<(), ringwire::client::ClientError> {
    /// let client = ringwire::client::connect("ws://127.0.0.1:9001/echo").deflate().await?;
    /// assert!(client.headers().contains_key("sec-websocket-extensions"));
    /// # Ok(())
    /// # }
    /// ```
    pub fn deflate(mut self) -> Connect {
        self.settings.deflate = Some(Offer { context: true });
        self
    }

    /// As [`Connect::deflate`], but each message stands for itself, both ways: neither end keeps anything for it.
    ///
    /// ```no_run
    /// # async fn example() -> Result<(), ringwire::client::ClientError> {
    /// let client = ringwire::client::connect("ws://127.0.0.1:9001/feed").deflate_stateless().await?;
    /// let agreed = client.headers().get("sec-websocket-extensions");
    /// println!("{agreed:?}");
    /// # Ok(())
    /// # }
    /// ```
    pub fn deflate_stateless(mut self) -> Connect {
        self.settings.deflate = Some(Offer { context: false });
        self
    }

    /// Bytes from which a message is sent compressed; 256 if not set.
    ///
    /// ```no_run
    /// # async fn example() -> Result<(), ringwire::client::ClientError> {
    /// let client = ringwire::client::connect("ws://127.0.0.1:9001/feed").deflate().deflate_min(1024).await?;
    /// client.send("a short message is sent as it is").await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn deflate_min(mut self, bytes: usize) -> Connect {
        self.settings.deflate_bytes_min = bytes;
        self
    }

    /// Whom a `wss://` URL trusts, and what it shows itself as: see [`Connector`]. Without it, whom the machine trusts
    /// ([`Connector::platform`]). The server's certificate has to be for the URL's host, whatever else the handshake says.
    ///
    /// ```no_run
    /// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
    /// use ringwire::client::{connect, tls::Connector};
    ///
    /// let connector = Connector::builder().ca_file("authority.pem").build()?;
    /// let client = connect("wss://chat.example.org/").tls(connector).await?;
    /// println!("{}", client.tls().expect("it is wss").version());
    /// # Ok(())
    /// # }
    /// ```
    #[cfg(feature = "tls")]
    pub fn tls(mut self, connector: Connector) -> Connect {
        self.tls = Some(connector);
        self
    }

    /// The most time from now to the server's answer, TLS and the resolution of the name included; 10 s if not set, zero is
    /// without limit.
    ///
    /// ```no_run
    /// use ringwire::client::{ClientError, connect};
    /// use std::time::Duration;
    ///
    /// # async fn example() {
    /// match connect("ws://chat.example/feed").handshake_timeout(Duration::from_secs(3)).await {
    ///     Ok(client) => println!("{:?}", client.protocol()),
    ///     Err(ClientError::Timeout(what)) => eprintln!("{what}"),
    ///     Err(other) => eprintln!("{other}"),
    /// }
    /// # }
    /// ```
    pub fn handshake_timeout(mut self, timeout: Duration) -> Connect {
        self.settings.handshake_timeout = timeout;
        self
    }

    /// How long the server may take to answer a Close frame before the connection is dropped; 5 s if not set.
    ///
    /// ```no_run
    /// use std::time::Duration;
    ///
    /// # async fn example() -> Result<(), ringwire::client::ClientError> {
    /// let mut client = ringwire::client::connect("ws://127.0.0.1:9001/feed").close_timeout(Duration::from_secs(1)).await?;
    /// let closed = client.close(1000, "bye").await?;
    /// println!("answered: {}", closed.clean);
    /// # Ok(())
    /// # }
    /// ```
    pub fn close_timeout(mut self, timeout: Duration) -> Connect {
        self.settings.close_timeout = timeout;
        self
    }

    /// Pings the server when nothing came from it for so long; never if zero. If not set: never, and after 30 s by a client
    /// that comes back ([`Reconnecting`](super::Reconnecting)).
    ///
    /// ```no_run
    /// use std::time::Duration;
    ///
    /// # async fn example() -> Result<(), ringwire::client::ClientError> {
    /// let client = ringwire::client::connect("ws://127.0.0.1:9001/feed").ping_interval(Duration::from_secs(20)).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn ping_interval(mut self, interval: Duration) -> Connect {
        self.ping_interval = Some(interval);
        self
    }

    /// As [`Connect::ping_interval`], unless that was set.
    pub(super) fn ping_interval_if_unset(mut self, interval: Duration) -> Connect {
        self.ping_interval.get_or_insert(interval);
        self
    }

    /// How long after such a ping something, be it not the pong, must come from the server, or the connection is given up
    /// with [`ClientError::Timeout`]; 10 s if not set.
    ///
    /// ```no_run
    /// use ringwire::client::{ClientError, connect};
    /// use std::time::Duration;
    ///
    /// # async fn example() -> Result<(), ClientError> {
    /// let feed = connect("ws://127.0.0.1:9001/feed").ping_interval(Duration::from_secs(20)).pong_timeout(Duration::from_secs(5));
    /// let mut client = feed.await?;
    /// while let Some(message) = client.recv().await {
    ///     match message {
    ///         Err(ClientError::Timeout(_)) => eprintln!("the server has gone without a word"),
    ///         other => println!("{:?}", other?.as_text()),
    ///     }
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn pong_timeout(mut self, timeout: Duration) -> Connect {
        self.settings.pong_timeout = timeout;
        self
    }

    /// The most bytes of a received message; 16 MiB if not set. A larger one ends the connection with Close 1009.
    ///
    /// ```no_run
    /// # async fn example() -> Result<(), ringwire::client::ClientError> {
    /// let client = ringwire::client::connect("ws://127.0.0.1:9001/feed").max_message(64 << 10).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn max_message(mut self, bytes: usize) -> Connect {
        self.settings.limits.message_bytes_max = bytes;
        self
    }

    /// Bytes that may wait to be sent before `send` waits; 1 MiB if not set. A larger message is taken when nothing waits.
    ///
    /// ```no_run
    /// # async fn example() -> Result<(), ringwire::client::ClientError> {
    /// let client = ringwire::client::connect("ws://127.0.0.1:9001/feed").max_outbox(64 << 10).await?;
    /// client.send("waits while 64 KiB are waiting to be sent").await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn max_outbox(mut self, bytes: usize) -> Connect {
        self.settings.outbox_bytes_max = bytes.min(SEND_BYTES_MAX);
        self
    }

    /// Bytes of received messages, each counting 64 more, that may wait for `recv` before nothing more is read from the
    /// server; 1 MiB if not set.
    ///
    /// ```no_run
    /// # async fn example() -> Result<(), ringwire::client::ClientError> {
    /// let mut client = ringwire::client::connect("ws://127.0.0.1:9001/feed").max_inbox(64 << 10).await?;
    /// // While nobody takes messages, no more than 64 KiB of them are held, and the server has to wait.
    /// let first = client.recv().await;
    /// println!("{first:?}");
    /// # Ok(())
    /// # }
    /// ```
    pub fn max_inbox(mut self, bytes: usize) -> Connect {
        self.settings.inbox_bytes_max = bytes.max(1);
        self
    }

    /// Connects from this address of the machine.
    ///
    /// ```no_run
    /// # async fn example() -> Result<(), ringwire::client::ClientError> {
    /// let client = ringwire::client::connect("ws://chat.example/feed").bind("192.0.2.7".parse().expect("an address")).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn bind(mut self, address: IpAddr) -> Connect {
        self.settings.bind = Some(address);
        self
    }

    /// Connects to a Unix socket; the URL is for the handshake alone.
    ///
    /// ```no_run
    /// # async fn example() -> Result<(), ringwire::client::ClientError> {
    /// let client = ringwire::client::connect("ws://localhost/feed").unix("/run/chat.sock").await?;
    /// client.send("to a server of this machine").await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn unix(mut self, path: impl Into<PathBuf>) -> Connect {
        self.unix = Some(path.into());
        self
    }

    /// Connects through another driver than the process's client thread.
    #[cfg(feature = "unstable")]
    pub(crate) fn through(mut self, courier: &Arc<Courier>) -> Connect {
        self.courier = Some(Arc::clone(courier));
        self
    }

    /// The one that it was given.
    pub(super) fn own_courier(&self) -> Option<Arc<Courier>> {
        self.courier.clone()
    }

    fn courier(&self) -> Result<Arc<Courier>, ClientError> {
        self.courier.clone().map_or_else(thread::courier, Ok)
    }

    /// Everything that can be wrong before anything is sent is wrong here.
    fn order(self) -> Result<Order, ClientError> {
        let target = Target::parse(&self.url)?;
        let session = if target.is_secure { Some(Box::new(self.session(&target.host)?)) } else { None };
        let mut host = target.host_header;
        let mut headers = self.headers;
        let is_own = |name: &str| OWN_HEADERS.iter().any(|own| own.eq_ignore_ascii_case(name));
        if let Some((name, _)) = headers.iter().find(|(name, _)| is_own(name)) {
            return Err(ClientError::Header(name.clone()));
        }
        headers.retain(|(name, value)| {
            let is_host = name.eq_ignore_ascii_case("host");
            if is_host {
                host.clone_from(value);
            }
            !is_host
        });
        let key = client_key(keys::random().map_err(no_random)?);
        let protocols: Vec<&str> = self.protocols.iter().map(String::as_str).collect();
        let offer = self.settings.deflate.map(|offer| ("Sec-WebSocket-Extensions", offer.value()));
        let fields = || headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).chain(offer);
        let mut request = Vec::with_capacity(512);
        if put_request(&mut request, &host, &target.path, &key, &protocols, fields()).is_err() {
            // Written one by one, to say which one is bad.
            let mut scratch = Vec::new();
            let bad = fields().find(|&field| put_request(&mut scratch, "x", "/", &key, &[], [field]).is_err());
            let bad = bad.map(|(name, _)| name.to_owned());
            let protocols =
                || protocols.iter().find(|name| put_request(&mut Vec::new(), "x", "/", &key, &[name], []).is_err());
            let bad = bad.or_else(|| protocols().map(|name| (*name).to_owned()));
            return Err(ClientError::Header(bad.unwrap_or(host)));
        }
        let destination = self.unix.map_or(target.destination, Destination::Unix);
        let ping_interval = self.ping_interval.unwrap_or(Duration::ZERO);
        let settings = Settings { ping_interval, ..self.settings };
        Ok(Order { destination, request, key, protocols: self.protocols, session, settings })
    }

    #[cfg(feature = "tls")]
    fn session(&self, host: &str) -> Result<Session, ClientError> {
        let connector = self.tls.clone().map_or_else(Connector::platform, Ok)?;
        connector.session(host).map_err(ClientError::Tls)
    }

    #[cfg(not(feature = "tls"))]
    fn session(&self, _: &str) -> Result<Session, ClientError> {
        Err(ClientError::NoTls { url: self.url.clone() })
    }
}

impl IntoFuture for Connect {
    type Output = Result<Client, ClientError>;
    type IntoFuture = Connecting;

    fn into_future(self) -> Connecting {
        let start = || {
            let courier = self.courier()?;
            Ok(Handle::order(courier, self.order()?))
        };
        Connecting(Some(start()))
    }
}

/// A connection under way. Dropping it gives it up.
///
/// ```no_run
/// use std::future::IntoFuture as _;
///
/// # async fn example() -> Result<(), ringwire::client::ClientError> {
/// // Both at once, by whatever runtime there is.
/// let [first, second] = ["ws://a.example/feed", "ws://b.example/feed"].map(|url| ringwire::client::connect(url).into_future());
/// let (first, second) = (first.await?, second.await?);
/// # drop((first, second));
/// # Ok(())
/// # }
/// ```
#[must_use = "dropping it gives the connection up"]
pub struct Connecting(Option<Result<Handle, ClientError>>);

impl Future for Connecting {
    type Output = Result<Client, ClientError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Some(Ok(handle)) = &self.0 else {
            let error = self.0.take().and_then(Result::err);
            return Poll::Ready(Err(error.unwrap_or(ClientError::Closing)));
        };
        let Poll::Ready(opened) = handle.line.poll_open(cx) else { return Poll::Pending };
        let handle = handle.clone();
        self.0 = None;
        Poll::Ready(opened.map(|opened| Client::new(handle, opened)))
    }
}

impl Drop for Connecting {
    fn drop(&mut self) {
        if let Some(Ok(handle)) = &self.0 {
            handle.abandon();
        }
    }
}

impl std::fmt::Debug for Connecting {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connecting").finish_non_exhaustive()
    }
}

/// What a URL says.
#[derive(Debug, PartialEq, Eq)]
struct Target {
    is_secure: bool,
    destination: Destination,
    /// Without its port; with brackets if it is an address of IPv6.
    host: String,
    host_header: String,
    path: String,
}

impl Target {
    fn parse(url: &str) -> Result<Target, ClientError> {
        let wrong = |reason| ClientError::Url { url: url.to_owned(), reason };
        let scheme = url.split_once(':').map(|(scheme, _)| scheme).unwrap_or_default();
        let is_secure = scheme.eq_ignore_ascii_case("wss");
        if !(is_secure || scheme.eq_ignore_ascii_case("ws")) || !url[scheme.len()..].starts_with("://") {
            return Err(wrong("it does not begin with ws:// or wss://"));
        }
        // RFC 6455 3.
        let default_port = if is_secure { 443 } else { 80 };
        // RFC 6455 3: fragment identifiers MUST NOT be used.
        if url.contains('#') {
            return Err(wrong("it has a fragment; a # is written %23"));
        }
        let escaped = utf8_percent_encode(url, CONTROLS).to_string();
        let uri: Uri = escaped.parse().map_err(|_| wrong("it is malformed"))?;
        let authority = uri.authority().ok_or_else(|| wrong("it has no host"))?;
        if authority.as_str().contains('@') {
            return Err(wrong("it has a user name; use an Authorization header"));
        }
        let host = authority.host();
        if host.is_empty() {
            return Err(wrong("it has no host"));
        }
        let port = match authority.port_u16() {
            Some(port) => port,
            None if authority.as_str() == host => default_port,
            None => return Err(wrong("its port is not one")),
        };
        let host_header = if port == default_port { host.to_owned() } else { format!("{host}:{port}") };
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        let destination = match bare.parse::<IpAddr>() {
            Ok(ip) => Destination::Address(SocketAddr::new(ip, port)),
            Err(_) => Destination::Name(host.to_owned(), port),
        };
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        // A URL such as ws://host?query has an empty path, which is sent as a slash (RFC 9112 3.2.1).
        let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
        Ok(Target { is_secure, destination, host: host.to_owned(), host_header, path })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls() {
        let name = |host: &str, port| Destination::Name(host.into(), port);
        let address = |text: &str| Destination::Address(text.parse().unwrap());
        for (url, destination, host_header, path) in [
            ("ws://example.com", name("example.com", 80), "example.com", "/"),
            ("WS://example.com:80/a", name("example.com", 80), "example.com", "/a"),
            ("ws://localhost:9001/a/b?c=d", name("localhost", 9001), "localhost:9001", "/a/b?c=d"),
            ("ws://example.com?x", name("example.com", 80), "example.com", "/?x"),
            ("ws://127.0.0.1:1/", address("127.0.0.1:1"), "127.0.0.1:1", "/"),
            ("ws://[::1]:90/", address("[::1]:90"), "[::1]:90", "/"),
            ("ws://[::1]/", address("[::1]:80"), "[::1]", "/"),
            ("ws://x/ä", name("x", 80), "x", "/%C3%A4"),
            ("ws://x:443/", name("x", 443), "x:443", "/"),
            ("wss://example.com", name("example.com", 443), "example.com", "/"),
            ("WSS://Example.com:443/a", name("Example.com", 443), "Example.com", "/a"),
            ("wss://x:80/", name("x", 80), "x:80", "/"),
            ("wss://[::1]/", address("[::1]:443"), "[::1]", "/"),
        ] {
            let is_secure = url.as_bytes()[2].eq_ignore_ascii_case(&b's');
            let host = host_header.strip_suffix(":443").unwrap_or(host_header);
            let host = if host.starts_with('[') { "[::1]" } else { host.split(':').next().unwrap() }.into();
            let (host_header, path) = (host_header.into(), path.into());
            let target = Target { is_secure, destination, host, host_header, path };
            assert_eq!(Target::parse(url).unwrap(), target, "{url}");
        }
    }

    #[test]
    fn wrong_urls() {
        for (url, reason) in [
            ("", "ws://"),
            ("localhost:9001/echo", "ws://"),
            ("http://x/", "ws://"),
            ("ws:x", "ws://"),
            ("wss:x", "wss://"),
            ("wsss://x", "wss://"),
            ("wss://x/#top", "fragment"),
            ("ws://", "malformed"),
            ("ws://x/#top", "fragment"),
            ("ws://me:secret@x/", "user name"),
            ("ws://x:99999/", "port"),
            ("ws://x:/", "port"),
            ("ws://x y/", "malformed"),
        ] {
            let error = Target::parse(url).unwrap_err();
            assert!(matches!(error, ClientError::Url { reason: why, .. } if why.contains(reason)), "{url}: {error}");
            assert!(error.is_permanent());
        }
    }

    #[test]
    #[cfg(not(feature = "tls"))]
    fn without_tls_it_is_said_so() {
        let error = connect("wss://example.com/").order().err().unwrap();
        assert!(matches!(error, ClientError::NoTls { .. }) && error.is_permanent(), "{error}");
        assert!(error.to_string().contains("TLS is not built in"), "{error}");
    }

    #[test]
    fn bad_headers_are_named() {
        for (connect, bad) in [
            (connect("ws://x").header("a b", "c"), "a b"),
            (connect("ws://x").header("fine", "x").header("evil", "a\r\nb"), "evil"),
            (connect("ws://x").header("Sec-WebSocket-Key", "x"), "Sec-WebSocket-Key"),
            (connect("ws://x").subprotocols(["a", "b\n"]), "b\n"),
            (connect("ws://x").header("host", "a\nb"), "a\nb"),
        ] {
            assert!(matches!(connect.order().err(), Some(ClientError::Header(name)) if name == bad), "{bad:?}");
        }
        let order = connect("ws://x").header("Host", "y").order().unwrap_or_else(|error| panic!("{error}"));
        let request = String::from_utf8(order.request).unwrap();
        assert!(request.contains("\r\nHost: y\r\n") && !request.contains("Host: x"), "{request}");
    }
}
