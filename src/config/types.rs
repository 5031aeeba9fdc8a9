//! The types of the settings that are not plain numbers.

use std::collections::BTreeSet;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

use subtle::ConstantTimeEq as _;

/// How the absence of an optional value is written.
pub(super) const NONE: &str = "(none)";

/// Most cores that may be asked for.
pub const CORES_MAX: usize = 1024;

/// The text is not of the form that the type wants; the setting's [`Allowed`](super::Allowed) says what is.
///
/// ```
/// use ringwire::config::{CoreSet, Malformed};
///
/// assert_eq!("0,0".parse::<CoreSet>(), Err(Malformed));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed value")]
pub struct Malformed;

/// Where to listen.
///
/// ```
/// use ringwire::config::ListenAddress;
///
/// for text in ["127.0.0.1:9001", "[::]:9001", "localhost:9001", "unix:/run/chat.sock", "wss://0.0.0.0:443"] {
///     let address: ListenAddress = text.parse().unwrap();
///     assert_eq!(address.to_string(), text);
/// }
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ListenAddress {
    /// A TCP port of a host, by name or by number; what the name stands for is asked when it is listened on.
    Inet {
        /// Name or number, without the brackets of IPv6.
        host: String,
        /// The port; 0 lets the kernel choose one.
        port: u16,
    },
    /// A Unix socket.
    Unix(PathBuf),
    /// One of the others, and what is spoken there, whether there is a certificate or not.
    Speaking(Scheme, Box<ListenAddress>),
}

/// What is spoken on an address.
///
/// ```
/// use ringwire::config::{ListenAddress, Scheme};
///
/// let address: ListenAddress = "wss://0.0.0.0:443".parse().unwrap();
/// assert_eq!(address.scheme(), Some(Scheme::Wss));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// HTTP and WebSocket, in the clear.
    Ws,
    /// The same over TLS.
    Wss,
}

impl Scheme {
    const ALL: [Scheme; 2] = [Scheme::Ws, Scheme::Wss];

    /// What stands in front of an address.
    fn prefix(self) -> &'static str {
        if self == Scheme::Wss { "wss://" } else { "ws://" }
    }
}

impl ListenAddress {
    /// Whether the kernel chooses the port.
    pub(super) fn is_any_port(&self) -> bool {
        matches!(self.place(), ListenAddress::Inet { port: 0, .. })
    }

    /// What is to be spoken there, where that is said.
    ///
    /// ```
    /// use ringwire::config::{ListenAddress, Scheme};
    ///
    /// let scheme = |text: &str| text.parse::<ListenAddress>().unwrap().scheme();
    /// assert_eq!(scheme("ws://0.0.0.0:80"), Some(Scheme::Ws));
    /// assert_eq!(scheme("0.0.0.0:80"), None);
    /// ```
    pub fn scheme(&self) -> Option<Scheme> {
        match self {
            ListenAddress::Speaking(scheme, _) => Some(*scheme),
            _ => None,
        }
    }

    /// The address alone.
    ///
    /// ```
    /// use ringwire::config::ListenAddress;
    ///
    /// let address: ListenAddress = "wss://0.0.0.0:443".parse().unwrap();
    /// assert_eq!(address.place().to_string(), "0.0.0.0:443");
    /// ```
    pub fn place(&self) -> &ListenAddress {
        match self {
            ListenAddress::Speaking(_, place) => place.place(),
            place => place,
        }
    }
}

impl From<SocketAddr> for ListenAddress {
    fn from(address: SocketAddr) -> ListenAddress {
        let port = address.port();
        let text = address.to_string();
        // The text keeps an IPv6 scope, which `SocketAddr::ip` would lose.
        let host = text.rsplit_once(':').map_or("", |(host, _)| host);
        ListenAddress::Inet { host: String::from(host.trim_start_matches('[').trim_end_matches(']')), port }
    }
}

impl FromStr for ListenAddress {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        for scheme in Scheme::ALL {
            let prefix = scheme.prefix();
            if let Some(start) = text.get(..prefix.len())
                && start.eq_ignore_ascii_case(prefix)
            {
                let place: ListenAddress = text[prefix.len()..].parse()?;
                let is_place = place.scheme().is_none();
                return is_place.then(|| ListenAddress::Speaking(scheme, Box::new(place))).ok_or(Malformed);
            }
        }
        if let Some(path) = text.strip_prefix("unix:") {
            // sun_path holds 108 bytes, its NUL included (unix(7)).
            let fits = (1..108).contains(&path.len()) && !path.contains('\0');
            return fits.then(|| ListenAddress::Unix(PathBuf::from(path))).ok_or(Malformed);
        }
        if let Ok(address) = text.parse::<SocketAddr>() {
            return Ok(ListenAddress::from(address));
        }
        let (host, port) = text.rsplit_once(':').ok_or(Malformed)?;
        let named = !host.is_empty() && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte));
        let digits = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
        match port.parse() {
            Ok(port) if named && digits => Ok(ListenAddress::Inet { host: String::from(host), port }),
            _ => Err(Malformed),
        }
    }
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ListenAddress::Inet { host, port } if host.contains(':') => {
                write!(f, "[{host}]:{port}")
            }
            ListenAddress::Inet { host, port } => write!(f, "{host}:{port}"),
            ListenAddress::Unix(path) => write!(f, "unix:{}", path.display()),
            ListenAddress::Speaking(scheme, place) => write!(f, "{}{place}", scheme.prefix()),
        }
    }
}

/// How many cores run, and on which processors.
///
/// ```
/// use ringwire::config::CoreSet;
///
/// assert_eq!("all".parse(), Ok(CoreSet::All));
/// assert_eq!("2".parse(), Ok(CoreSet::Count(2)));
/// assert_eq!("0,2,4-6".parse(), Ok(CoreSet::List(vec![0, 2, 4, 5, 6])));
/// assert_eq!("3-3".parse(), Ok(CoreSet::List(vec![3])));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CoreSet {
    /// One on each processor that the process may use.
    All,
    /// This many, on the processors in turn; more than there are processors is legal.
    Count(usize),
    /// One on each of these processors.
    List(Vec<usize>),
}

impl CoreSet {
    /// The processor of each core, given the processors that the process may use ([`available_cpus`]).
    ///
    /// ```
    /// use ringwire::config::CoreSet;
    ///
    /// assert_eq!(CoreSet::All.cpus(&[4, 5]), [4, 5]);
    /// assert_eq!(CoreSet::Count(3).cpus(&[4, 5]), [4, 5, 4]);
    /// ```
    ///
    /// # Panics
    /// When `available` is empty.
    pub fn cpus(&self, available: &[usize]) -> Vec<usize> {
        assert!(!available.is_empty(), "a process has a processor");
        match self {
            CoreSet::All => available.to_vec(),
            CoreSet::Count(count) => available.iter().copied().cycle().take(*count).collect(),
            CoreSet::List(list) => list.clone(),
        }
    }

    /// The processors that are asked for by number and that the process may not use.
    ///
    /// ```
    /// use ringwire::config::CoreSet;
    ///
    /// assert_eq!(CoreSet::List(vec![4, 7]).missing(&[4, 5]), [7]);
    /// ```
    pub fn missing(&self, available: &[usize]) -> Vec<usize> {
        match self {
            CoreSet::All | CoreSet::Count(_) => Vec::new(),
            CoreSet::List(list) => list.iter().copied().filter(|cpu| !available.contains(cpu)).collect(),
        }
    }
}

/// The processors that this process may run on: its affinity mask, in ascending order.
///
/// ```
/// use ringwire::config::available_cpus;
///
/// assert!(!available_cpus().unwrap().is_empty());
/// ```
///
/// # Errors
/// When the kernel does not say.
pub fn available_cpus() -> std::io::Result<Vec<usize>> {
    let set = nix::sched::sched_getaffinity(nix::unistd::Pid::from_raw(0))?;
    Ok((0..nix::sched::CpuSet::count()).filter(|cpu| set.is_set(*cpu).unwrap_or(false)).collect())
}

impl FromStr for CoreSet {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        let number = |text: &str| -> Result<usize, Malformed> {
            let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
            text.parse().ok().filter(|number| digits && *number <= CORES_MAX).ok_or(Malformed)
        };
        if text.eq_ignore_ascii_case("all") {
            return Ok(CoreSet::All);
        }
        if !text.contains([',', '-']) {
            return match number(text)? {
                0 => Err(Malformed),
                count => Ok(CoreSet::Count(count)),
            };
        }
        let mut list = Vec::new();
        for part in text.split(',').map(str::trim) {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (first, last) = (number(first)?, number(last)?);
            if first > last || last >= CORES_MAX {
                return Err(Malformed);
            }
            list.extend(first..=last);
        }
        // Two cores on one processor would wait for each other.
        let different: BTreeSet<&usize> = list.iter().collect();
        match list.len() {
            len if different.len() < len => Err(Malformed),
            1..=CORES_MAX => Ok(CoreSet::List(list)),
            _ => Err(Malformed),
        }
    }
}

impl fmt::Display for CoreSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CoreSet::All => f.write_str("all"),
            CoreSet::Count(count) => write!(f, "{count}"),
            // `3` alone would be read as three cores.
            CoreSet::List(list) if list.len() == 1 => write!(f, "{0}-{0}", list[0]),
            CoreSet::List(list) => {
                let numbers: Vec<String> = list.iter().map(ToString::to_string).collect();
                f.write_str(&numbers.join(","))
            }
        }
    }
}

/// A secret that a request must know: `Authorization: Bearer TOKEN` (RFC 6750 2.1). Neither `Debug` nor an error tells it.
///
/// ```
/// use ringwire::config::ApiToken;
///
/// let token: ApiToken = "c29tZXRoaW5n".parse().unwrap();
/// assert!(token.is(b"c29tZXRoaW5n") && !token.is(b"guess"));
/// assert_eq!(format!("{token:?}"), "ApiToken(..)");
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct ApiToken(String);

impl ApiToken {
    /// Whether a request that shows this knows the token. Takes as long for a near miss as for a far one.
    ///
    /// ```
    /// use ringwire::config::ApiToken;
    ///
    /// let token: ApiToken = "secret".parse().unwrap();
    /// assert!(token.is(b"secret") && !token.is(b"secre"));
    /// ```
    pub fn is(&self, shown: &[u8]) -> bool {
        self.0.as_bytes().ct_eq(shown).into()
    }

    pub(super) fn reveal(&self) -> &str {
        &self.0
    }
}

impl FromStr for ApiToken {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        // RFC 6750 2.1: b64token, which needs no quoting in a header field.
        let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~+/=".contains(&byte);
        let fits = !text.is_empty() && text.bytes().all(is_token);
        fits.then(|| ApiToken(String::from(text))).ok_or(Malformed)
    }
}

impl fmt::Debug for ApiToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ApiToken(..)")
    }
}

/// A type whose values each have one word; the word list is made beside it, so that neither can lack one.
macro_rules! words {
    (
        $(#[$type_doc:meta])* $type:ident, $list:ident;
        $( $(#[$doc:meta])* $variant:ident = $word:literal; )*
    ) => {
        $(#[$type_doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum $type { $( $(#[$doc])* $variant, )* }

        pub(super) const $list: &[&str] = &[$($word),*];

        impl FromStr for $type {
            type Err = Malformed;

            fn from_str(text: &str) -> Result<Self, Malformed> {
                match text {
                    $( $word => Ok($type::$variant), )*
                    _ => Err(Malformed),
                }
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(match self { $( $type::$variant => $word, )* })
            }
        }
    };
}

words! {
    /// What happens when a connection's outbox is full.
    ///
    /// ```
    /// use ringwire::{SlowConsumer, ws};
    ///
    /// // Prices: only the latest counts. Orders: who misses one has to begin anew.
    /// let (prices, orders) = (ws().slow_consumer(SlowConsumer::KeepLatest), ws().slow_consumer(SlowConsumer::Close));
    /// assert_eq!("drop-old".parse(), Ok(SlowConsumer::DropOld));
    /// ```
    SlowConsumer, SLOW_CONSUMER_WORDS;
    /// The connection is closed with code 1013 (try again later).
    Close = "close";
    /// The message that does not fit is dropped.
    DropNew = "drop-new";
    /// The oldest messages are dropped until it fits.
    DropOld = "drop-old";
    /// While a connection is behind, a message with a key takes the place of the one with the same key that waits: the peer
    /// gets the latest of each, and a key that changes all the time keeps its turn. Messages without a key are all kept, in
    /// their order, and are never replaced. Where even so there is no room, the oldest are dropped, with or without a key.
    KeepLatest = "keep-latest";
}

words! {
    /// Where JetStream, a part of NATS, keeps the one history of rooms that joined machines have.
    ///
    /// ```
    /// use ringwire::config::{Config, NatsHistory};
    ///
    /// let config = Config::default().nats_history(NatsHistory::File);
    /// assert!(config.validate().is_ok());
    /// assert_eq!(NatsHistory::File.to_string(), "file");
    /// ```
    NatsHistory, NATS_HISTORY_WORDS;
    /// Nowhere: each machine has a history of its own.
    Off = "off";
    /// In memory: it ends with NATS.
    Memory = "memory";
    /// In files: it outlives NATS.
    File = "file";
}

words! {
    /// Whether clients show certificates of their own.
    ///
    /// ```
    /// use ringwire::config::{ClientAuth, Config};
    ///
    /// let config = Config::default().tls_client_auth(ClientAuth::Required);
    /// assert!(config.validate().is_err(), "by whom must they be signed?");
    /// ```
    ClientAuth, CLIENT_AUTH_WORDS;
    /// They are not asked for one.
    Off = "off";
    /// They are asked, and may have none; one that is not accepted ends the handshake.
    Optional = "optional";
    /// Who has none that is accepted is not let in.
    Required = "required";
}

words! {
    /// The oldest version of TLS that is spoken.
    ///
    /// ```
    /// use ringwire::config::{Config, TlsMin};
    ///
    /// let config = Config::default().tls_min(TlsMin::Tls13);
    /// assert!(config.to_lines().contains("RINGWIRE_TLS_MIN=1.3"));
    /// ```
    TlsMin, TLS_MIN_WORDS;
    /// TLS 1.2 (RFC 5246).
    Tls12 = "1.2";
    /// TLS 1.3 (RFC 8446).
    Tls13 = "1.3";
}

/// Files, in an order that means something.
///
/// ```
/// use ringwire::config::{Config, Files};
///
/// let chain: Files = "chain.pem,other.pem".parse().unwrap();
/// let keys: Files = ["key.pem", "other-key.pem"].into_iter().collect();
/// assert!(Config::default().tls_cert(chain).tls_key(keys).to_lines().contains("RINGWIRE_TLS_CERT=chain.pem,other.pem"));
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Files(pub Vec<PathBuf>);

impl Files {
    /// Whether there are none.
    ///
    /// ```
    /// use ringwire::config::Files;
    ///
    /// assert!(Files::default().is_empty());
    /// assert!(!"chain.pem".parse::<Files>().unwrap().is_empty());
    /// ```
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl<P: Into<PathBuf>> FromIterator<P> for Files {
    fn from_iter<I: IntoIterator<Item = P>>(paths: I) -> Files {
        Files(paths.into_iter().map(Into::into).collect())
    }
}

impl FromStr for Files {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        if text == NONE {
            return Ok(Files::default());
        }
        let is_path = |path: &str| !path.is_empty() && !path.contains('\0');
        let parts = text.split(',').map(str::trim);
        parts
            .map(|path| is_path(path).then(|| PathBuf::from(path)).ok_or(Malformed))
            .collect::<Result<_, _>>()
            .map(Files)
    }
}

impl fmt::Display for Files {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return f.write_str(NONE);
        }
        let parts: Vec<String> = self.0.iter().map(|path| path.display().to_string()).collect();
        f.write_str(&parts.join(","))
    }
}

words! {
    /// How messages are compressed with permessage-deflate (RFC 7692), where a client offers it.
    ///
    /// ```
    /// use ringwire::{Deflate, ws};
    ///
    /// // One stream for all who read the feed; files that are compressed already stay as they are.
    /// let (feed, files) = (ws().deflate(Deflate::Shared), ws().deflate(Deflate::Off));
    /// assert_eq!("dedicated".parse(), Ok(Deflate::Dedicated));
    /// ```
    Deflate, DEFLATE_WORDS;
    /// They are not.
    Off = "off";
    /// Each by itself, both ways: nothing is kept for a connection, and what is sent to many is compressed once.
    Stateless = "stateless";
    /// What a room or a route is sent refers to what it was sent before, compressed once for all members; what clients send
    /// stands for itself.
    Shared = "shared";
    /// Each connection's messages refer to those before, both ways: the best ratio for what is sent to one, and a window of
    /// memory for each connection and way.
    Dedicated = "dedicated";
}

/// Parts of the User-Agent field of clients whose compression is broken.
///
/// ```
/// use ringwire::config::{Config, UserAgents};
///
/// let old: UserAgents = "Version/15.0,ExampleBot".parse().unwrap();
/// let config = Config::default().deflate_skip(old);
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UserAgents(Vec<String>);

impl UserAgents {
    /// Whether one of them is in this field's value.
    ///
    /// ```
    /// use ringwire::config::UserAgents;
    ///
    /// let old: UserAgents = "Version/15.0,ExampleBot".parse().unwrap();
    /// assert!(old.matches("Mozilla/5.0 (Macintosh) Version/15.0 Safari/605.1"));
    /// assert!(!old.matches("Mozilla/5.0 (X11; Linux x86_64) Firefox/140.0"));
    /// ```
    pub fn matches(&self, user_agent: &str) -> bool {
        self.0.iter().any(|part| user_agent.contains(part.as_str()))
    }
}

impl FromStr for UserAgents {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<UserAgents, Malformed> {
        if text == NONE {
            return Ok(UserAgents::default());
        }
        let parts: Vec<String> = text.split(',').map(|part| part.trim().to_owned()).collect();
        if parts.iter().any(String::is_empty) { Err(Malformed) } else { Ok(UserAgents(parts)) }
    }
}

impl fmt::Display for UserAgents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&if self.0.is_empty() { NONE.to_owned() } else { self.0.join(",") })
    }
}

words! {
    /// How log lines are written.
    ///
    /// ```
    /// use ringwire::config::LogFormat;
    ///
    /// assert_eq!("json".parse(), Ok(LogFormat::Json));
    /// assert_eq!(LogFormat::Text.to_string(), "text");
    /// ```
    LogFormat, LOG_FORMAT_WORDS;
    /// For people.
    Text = "text";
    /// One JSON object a line.
    Json = "json";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        for text in ["127.0.0.1:9001", "[::1]:9001", "[::]:0", "localhost:80", "unix:/run/x.sock"] {
            let address: ListenAddress = text.parse().expect(text);
            assert_eq!(address.to_string(), text);
        }
        for text in [
            "",
            "9001",
            ":9001",
            "localhost",
            "localhost:",
            "localhost:+80",
            "::1:9001",
            "127.0.0.1:65536",
            "http://localhost:9001",
            "ws://wss://localhost:9001",
            "wss://",
            "wss://localhost:9001/",
            "wss:localhost:9001",
            "unix:",
        ] {
            assert_eq!(text.parse::<ListenAddress>(), Err(Malformed), "{text:?}");
        }
        for (text, scheme) in
            [("ws://[::1]:9001", Scheme::Ws), ("WSS://localhost:80", Scheme::Wss), ("wss://unix:/x", Scheme::Wss)]
        {
            let address: ListenAddress = text.parse().expect(text);
            assert_eq!(address.scheme(), Some(scheme), "{text}");
            assert_eq!(address.to_string(), text.replace("WSS", "wss"));
            assert_eq!(address.place().to_string(), address.to_string().split_once("//").expect("a scheme").1);
        }
        let long = format!("unix:/{}", "x".repeat(107));
        assert_eq!(long.parse::<ListenAddress>(), Err(Malformed));
    }

    #[test]
    fn files() {
        for (text, shown) in [("(none)", "(none)"), ("/a.pem", "/a.pem"), ("a.pem , /b c.pem", "a.pem,/b c.pem")] {
            let files: Files = text.parse().expect(text);
            assert_eq!(files.to_string(), shown);
            assert_eq!(shown.parse(), Ok(files));
        }
        for text in ["", ",", "/a,", "/a,,/b"] {
            assert_eq!(text.parse::<Files>(), Err(Malformed), "{text:?}");
        }
    }

    #[test]
    fn core_sets() {
        let list = |numbers: &[usize]| Ok(CoreSet::List(numbers.to_vec()));
        let cases = [
            ("all", Ok(CoreSet::All)),
            ("4", Ok(CoreSet::Count(4))),
            ("1024", Ok(CoreSet::Count(1024))),
            ("0,2,4-7", list(&[0, 2, 4, 5, 6, 7])),
            ("3-3", list(&[3])),
            ("0,0", Err(Malformed)),
            ("0-3,2", Err(Malformed)),
            ("0", Err(Malformed)),
            ("1025", Err(Malformed)),
            ("7-4", Err(Malformed)),
            ("1,", Err(Malformed)),
            ("-1", Err(Malformed)),
            ("0-1024", Err(Malformed)),
            ("", Err(Malformed)),
            ("+4", Err(Malformed)),
        ];
        for (text, expected) in cases {
            let parsed = text.parse::<CoreSet>();
            assert_eq!(parsed, expected, "{text:?}");
            if let Ok(cores) = parsed {
                assert_eq!(cores.to_string().parse(), Ok(cores));
            }
        }
    }

    #[test]
    fn a_core_has_a_processor() {
        let available = [1, 3];
        assert_eq!(CoreSet::All.cpus(&available), [1, 3]);
        assert_eq!(CoreSet::Count(5).cpus(&available), [1, 3, 1, 3, 1]);
        assert_eq!(CoreSet::Count(1).cpus(&available), [1]);
        let list = CoreSet::List(vec![3, 0]);
        assert_eq!(list.cpus(&available), [3, 0]);
        assert_eq!(list.missing(&available), [0]);
        assert!(!available_cpus().expect("an affinity mask").is_empty());
    }

    #[test]
    fn words() {
        for word in SLOW_CONSUMER_WORDS {
            let policy: SlowConsumer = word.parse().expect(word);
            assert_eq!(policy.to_string(), *word);
        }
        assert_eq!("json".parse(), Ok(LogFormat::Json));
        assert_eq!("JSON".parse::<LogFormat>(), Err(Malformed));
    }
}
