//! Every setting once: name, unit, default, range and what it is for.
//!
//! The table below makes [`Config`], the parsing of variables and flags, `--help`, `ringwire config` and the table in
//! README; a setting that is added here is everywhere. A leaf: it reads no clock and opens nothing.
//!
//! Knows of this crate: `error`.

mod history;
mod nats;
mod origin;
mod proxies;
mod types;
mod value;

use std::borrow::Cow;
use std::ffi::OsString;
use std::fmt::Write as _;
#[cfg(feature = "tls")]
use std::sync::Arc;
use std::time::Duration;

use crate::error::ConfigError;
pub use history::History;
#[cfg(feature = "nats")]
pub(crate) use nats::Login;
pub use nats::{NatsUrls, NodeName, SubjectPrefix};
pub use origin::Origins;
pub use proxies::{ProxyProtocol, TrustedProxies};
pub use types::{
    ApiToken, CORES_MAX, ClientAuth, CoreSet, Deflate, Files, ListenAddress, LogFormat, Malformed, NatsHistory, Scheme,
    SlowConsumer, TlsMin, UserAgents, available_cpus,
};
use types::{
    CLIENT_AUTH_WORDS, DEFLATE_WORDS, LOG_FORMAT_WORDS, NATS_HISTORY_WORDS, SLOW_CONSUMER_WORDS, TLS_MIN_WORDS,
};
pub use value::{Allowed, Range};
use value::{Value, range};

/// What every variable's name begins with.
pub const PREFIX: &str = "RINGWIRE_";
/// What the names of the variables of tests begin with, which may be set where servers run and are no settings.
const TEST_PREFIXES: [&str; 2] = ["RINGWIRE_SIM_", "RINGWIRE_TEST_"];

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

const MICROSECOND: u64 = 1_000;
const MILLISECOND: u64 = 1_000_000;
const SECOND: u64 = 1_000_000_000;
const DAY: u64 = 86_400 * SECOND;

/// Most bytes of a core's provided buffers.
const RECV_BYTES_MAX: u64 = GIB;

const COUNT_MAX: u64 = u32::MAX as u64;

/// Makes [`Config`] and [`SETTINGS`] of one table. Each row: field, its setter where that has another name, type, name without
/// prefix, default, what is allowed, meaning, and for an example: another value as an argument of the setter and as text.
macro_rules! settings {
    ($( $field:ident $(as $setter:ident)?: $type:ty = $name:literal, $default:literal, $allowed:expr, $doc:literal => $example:literal, $shown:literal; )*) => {
        /// The settings of a server.
        ///
        /// Made by [`Config::default`] or [`Config::from_env`], and changed by setters, one for each setting, which take any
        /// value: [`Config::validate`], which every server asks at its start, tells whether the result can be used.
        /// [`Setting::value`] reads one.
        ///
        /// ```
        /// use ringwire::config::{Config, CoreSet};
        ///
        /// let config = Config::default().cores(CoreSet::Count(2)).max_message(64 << 10);
        /// assert!(config.validate().is_ok());
        /// ```
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub struct Config {
            $( pub(crate) $field: $type, )*
            /// What is gone by instead of the files.
            #[cfg(feature = "tls")]
            pub(crate) own_tls: Option<OwnTls>,
            /// How often files of certificates are looked at, if not as usual.
            #[cfg(feature = "tls")]
            pub(crate) tls_look_interval: Option<Duration>,
        }

        impl Config {
            $( setter! {
                concat!($doc, ".\n\n`RINGWIRE_", $name, "`, default `", $default, "`."),
                ($name, $example, $shown),
                $field: $type $(, $setter)?
            } )*
        }

        impl Default for Config {
            fn default() -> Config {
                Config {
                    $( $field: Value::parse($default, &$allowed).expect("defaults are allowed"), )*
                    #[cfg(feature = "tls")]
                    own_tls: None,
                    #[cfg(feature = "tls")]
                    tls_look_interval: None,
                }
            }
        }

        /// Every setting, in the order in which people read about them.
        pub static SETTINGS: &[Setting] = &[
            $( Setting {
                variable: concat!("RINGWIRE_", $name),
                default: $default,
                allowed: $allowed,
                doc: $doc,
                read: |config, text| {
                    config.$field = Value::parse(text, &$allowed)?;
                    Some(())
                },
                show: |config| Value::show(&config.$field, &$allowed),
            }, )*
        ];
    };
}

/// The setter of a field, which has its name or another.
macro_rules! setter {
    ($doc:expr, $example:tt, $field:ident: $type:ty) => {
        setter! { $doc, $example, $field: $type, $field }
    };
    ($doc:expr, ($name:literal, $example:literal, $shown:literal), $field:ident: $type:ty, $setter:ident) => {
        #[doc = $doc]
        ///
        /// ```
        /// # use std::time::Duration;
        /// use ringwire::config::{Config, Setting};
        ///
        #[doc = concat!("let config = Config::default().", stringify!($setter), "(", $example, ");")]
        #[doc = concat!("let setting = Setting::named(\"RINGWIRE_", $name, "\").expect(\"it is a setting\");")]
        #[doc = concat!("assert_eq!(setting.value(&config), \"", $shown, "\");")]
        /// # Ok::<(), ringwire::config::Malformed>(())
        /// ```
        #[must_use]
        pub fn $setter(mut self, value: $type) -> Config {
            self.$field = value;
            self
        }
    };
}

settings! {
    addresses: Vec<ListenAddress> = "ADDR", "127.0.0.1:9001",
        Allowed::Text("HOST:PORT or unix:/PATH, or several, comma-separated, each with ws:// or wss:// in front or not", "ADDR"),
        "where to listen: HOST:PORT, or unix:/PATH for a Unix socket; several, comma-separated. With wss:// in front it speaks \
         TLS, with ws:// it does not; without either it does where RINGWIRE_TLS_CERT is set. Sockets passed in \
         LISTEN_FDS are used instead"
        => "vec![\"0.0.0.0:9001\".parse()?]", "0.0.0.0:9001";
    cores: CoreSet = "CORES", "all",
        Allowed::Text("all, a number from 1 to 1024, or a list of different processors such as 0,2,4-7", "CORES"),
        "number of cores, or a list of processors such as 0,2,4-7 (one alone: 3-3); all = one for each processor that the \
         process may use, but no more than its CPU quota (cpu.max), rounded up, can keep busy: where that makes fewer, they \
         are not pinned"
        => "ringwire::config::CoreSet::Count(2)", "2";
    pin: bool = "PIN", "true", Allowed::Switch,
        "pin each core's thread to its processor"
        => "false", "false";
    ring_entries: u32 = "RING_ENTRIES", "1024", Allowed::Count(range(8, 32_768)),
        "submission entries per core"
        => "4096", "4096";
    cq_entries: u32 = "CQ_ENTRIES", "8192", Allowed::Count(range(16, 65_536)),
        "completion entries per core"
        => "16_384", "16384";
    recv_buffers: u16 = "RECV_BUFFERS", "4096", Allowed::Count(range(1, 32_768).power_of_two()),
        "provided buffers per core"
        => "1024", "1024";
    recv_buffer_bytes as recv_buffer_size: u32 = "RECV_BUFFER_SIZE", "2KiB", Allowed::Bytes(range(256, MIB)),
        "bytes in each provided buffer; Linux 6.12 and later use the same memory, RINGWIRE_RECV_BUFFERS times this and at most 1GiB per core, as buffers of 64KiB at \
         least"
        => "4 << 10", "4KiB";
    spin: Duration = "SPIN", "0us", Allowed::Time(range(MICROSECOND, SECOND).or_zero("off")),
        "busy-poll this long before sleeping"
        => "Duration::from_micros(50)", "50us";
    tls_cert: Files = "TLS_CERT", "(none)",
        Allowed::Text("(none) or files, comma-separated", "FILES"),
        "PEM files with a certificate and those that it was signed by; of several the one for the name that the client asks for \
         is shown, or else the first. Read again on SIGHUP, and within 10s of a change"
        => "[\"chain.pem\"].into_iter().collect()", "chain.pem";
    tls_key: Files = "TLS_KEY", "(none)",
        Allowed::Text("(none) or files, comma-separated", "FILES"),
        "PEM files with the private key of each, in the same order"
        => "[\"key.pem\"].into_iter().collect()", "key.pem";
    tls_client_ca: Files = "TLS_CLIENT_CA", "(none)",
        Allowed::Text("(none) or files, comma-separated", "FILES"),
        "PEM files with the certificates by which those of clients must be signed"
        => "[\"clients.pem\"].into_iter().collect()", "clients.pem";
    tls_client_auth: ClientAuth = "TLS_CLIENT_AUTH", "off", Allowed::Word(CLIENT_AUTH_WORDS),
        "whether clients are asked for a certificate, and whether they must have one"
        => "ringwire::config::ClientAuth::Required", "required";
    tls_min: TlsMin = "TLS_MIN", "1.2", Allowed::Word(TLS_MIN_WORDS),
        "oldest version of TLS that is spoken"
        => "ringwire::config::TlsMin::Tls13", "1.3";
    tls_handshakes: u32 = "TLS_HANDSHAKES", "256", Allowed::Count(range(1, COUNT_MAX)),
        "TLS handshakes under way at once, whole process; others wait for their turn"
        => "64", "64";
    reuse_port: bool = "REUSEPORT", "false", Allowed::Switch,
        "share the address with another server of the same user, for restarts: see README"
        => "true", "true";
    backlog: u32 = "BACKLOG", "4096", Allowed::Count(range(1, i32::MAX as u64)),
        "listen backlog"
        => "1024", "1024";
    connections_max as max_connections: u32 = "MAX_CONNECTIONS", "1000000", Allowed::Count(range(1, COUNT_MAX)),
        "open WebSockets of the whole process; past it an upgrade gets 503 with Retry-After"
        => "10_000", "10000";
    connections_per_ip_max as max_connections_per_ip: u32 = "MAX_CONNECTIONS_PER_IP", "0",
        Allowed::Count(range(1, COUNT_MAX).or_zero("off")),
        "open WebSockets of one address (of IPv6, one /64); past it an upgrade gets 429. It may have 16 more than that of other connections; past \
         those it gets 429 at once"
        => "100", "100";
    accept_rate_per_second as accept_rate: u32 = "ACCEPT_RATE", "0", Allowed::Count(range(1, COUNT_MAX).or_zero("off")),
        "new connections a second, whole process; one that would have to wait longer than a second gets 503"
        => "5000", "5000";
    head_bytes_max as max_head: usize = "MAX_HEAD", "16KiB", Allowed::Bytes(range(256, MIB)),
        "request head; 431 past it"
        => "8 << 10", "8KiB";
    body_bytes_max as max_body: usize = "MAX_BODY", "1MiB", Allowed::Bytes(range(0, GIB)),
        "body of a request; 413 past it"
        => "4 << 20", "4MiB";
    message_bytes_max as max_message: usize = "MAX_MESSAGE", "16MiB", Allowed::Bytes(range(125, 4 * GIB)),
        "one message; close 1009 past it"
        => "64 << 10", "64KiB";
    fragments_max as max_fragments: u32 = "MAX_FRAGMENTS", "131072", Allowed::Count(range(1, COUNT_MAX)),
        "frames in one message; close 1008 past it"
        => "1024", "1024";
    handshake_timeout: Duration = "HANDSHAKE_TIMEOUT", "10s", Allowed::Time(range(MILLISECOND, DAY)),
        "from accept to a complete request head, and from the first byte of each further one; past it 408 to who has begun one, \
         and nothing to others. A body has as long again whenever it has come at 1KiB a second; while fewer than 64 places for \
         connections are left, and in a drain, nobody has more than a second"
        => "Duration::from_secs(5)", "5s";
    keep_alive: Duration = "KEEP_ALIVE", "75s", Allowed::Time(range(MILLISECOND, DAY)),
        "close an HTTP connection after this much silence between two requests: longer than a proxy in front keeps its own; while \
         fewer than 64 places for connections are left, after a second"
        => "Duration::from_secs(30)", "30s";
    idle_timeout: Duration = "IDLE_TIMEOUT", "120s", Allowed::Time(range(MILLISECOND, 365 * DAY).or_zero("never")),
        "drop a connection after this long without an inbound byte"
        => "Duration::from_secs(60)", "60s";
    ping_interval: Duration = "PING_INTERVAL", "30s", Allowed::Time(range(MILLISECOND, 365 * DAY).or_zero("never")),
        "ping a client after this much inbound silence, and at the latest after half of RINGWIRE_IDLE_TIMEOUT"
        => "Duration::from_secs(20)", "20s";
    write_timeout: Duration = "WRITE_TIMEOUT", "30s", Allowed::Time(range(MILLISECOND, 365 * DAY).or_zero("never")),
        "drop a connection when none of the sends that wait for its socket is done for this long: each is a message, several \
         up to 64 KiB, or 256 KiB of a longer one"
        => "Duration::from_secs(10)", "10s";
    answer_timeout: Duration = "ANSWER_TIMEOUT", "60s", Allowed::Time(range(MILLISECOND, DAY).or_zero("never")),
        "an HTTP handler has this long to answer; 503 past it"
        => "Duration::from_secs(5)", "5s";
    close_timeout: Duration = "CLOSE_TIMEOUT", "5s", Allowed::Time(range(MILLISECOND, DAY)),
        "wait this long for the peer's Close, then drop; while it reads what was queued before, for each send that waits for its \
         socket"
        => "Duration::from_secs(1)", "1s";
    outbox_bytes_max as max_outbox: usize = "MAX_OUTBOX", "1MiB", Allowed::Bytes(range(KIB, 4 * GIB)),
        "bytes queued for one connection"
        => "256 << 10", "256KiB";
    slow_consumer: SlowConsumer = "SLOW_CONSUMER", "close", Allowed::Word(SLOW_CONSUMER_WORDS),
        "when an outbox is full: close (1013), drop-new or drop-old; keep-latest: while a client is behind, a message with a \
         key replaces the waiting one with the same key, else as drop-old"
        => "ringwire::config::SlowConsumer::DropOld", "drop-old";
    deflate: Deflate = "DEFLATE", "off", Allowed::Word(DEFLATE_WORDS),
        "compress messages (permessage-deflate) of clients that offer it: stateless: each by itself; shared: a room's messages refer to \
         those before, compressed once for all members; dedicated: each connection's do, both ways, for a window of memory each"
        => "ringwire::config::Deflate::Shared", "shared";
    deflate_bytes_min as deflate_min: usize = "DEFLATE_MIN", "256", Allowed::Bytes(range(1, GIB)),
        "messages of fewer bytes are sent as they are"
        => "1024", "1KiB";
    deflate_window_bits as deflate_window: u8 = "DEFLATE_WINDOW", "12", Allowed::Count(range(10, 15)),
        "how far messages refer back to those before them, as a power of two: 12 is 4KiB"
        => "15", "15";
    deflate_level: u8 = "DEFLATE_LEVEL", "1", Allowed::Count(range(1, 9)),
        "how hard to compress: 1 is the fastest, 9 the smallest"
        => "6", "6";
    deflate_skip: UserAgents = "DEFLATE_SKIP", "Version/15.0,Version/15.1,Version/15.2,Version/15.3",
        Allowed::Text("(none) or parts of User-Agent, comma-separated", "LIST"),
        "clients whose User-Agent has one of these in it get no compression: by default Safari 15.0 to 15.3, whose \
         context takeover is broken"
        => "\"ExampleBot\".parse()?", "ExampleBot";
    rooms_max as max_rooms: u32 = "MAX_ROOMS", "256", Allowed::Count(range(1, 65_536)),
        "rooms that one connection may be in; a join past it is refused"
        => "1000", "1000";
    history: History = "HISTORY", "off",
        Allowed::Text("off, or a number of messages, then the longest age and the most bytes of a room behind commas: 100,10m,64KiB",
        "HISTORY"),
        "how much rooms keep of their messages, for those who come later or come back"
        => "\"100,10m\".parse()?", "100,600s";
    history_bytes_max as history_bytes: usize = "HISTORY_BYTES", "64MiB", Allowed::Bytes(range(64 * KIB, 1024 * GIB)),
        "messages that all rooms keep together; past it the rooms that have been quiet the longest lose theirs"
        => "256 << 20", "256MiB";
    memory_bytes_max as max_memory: usize = "MAX_MEMORY", "0", Allowed::Bytes(range(64 * KIB, 1024 * GIB).or_zero("off")),
        "queued and partial messages of the whole process, what rooms keep of theirs, and connections' data and memberships past \
         a KiB each; past it rooms forget what they keep, upgrades get 503, and the connections that hold the most are closed \
         with 1013"
        => "1 << 30", "1GiB";
    message_rate_per_second as message_rate: u32 = "MESSAGE_RATE", "0", Allowed::Count(range(1, COUNT_MAX).or_zero("off")),
        "messages a second from one connection, as a token bucket; close 1008 past it"
        => "50", "50";
    origins: Origins = "ORIGINS", "*",
        Allowed::Text("* or origins of pages such as https://example.org (not ws://), comma-separated", "ORIGINS"),
        "allowed values of the Origin field, comma-separated; 403 for others"
        => "\"https://example.org\".parse()?", "https://example.org";
    api_token: Option<ApiToken> = "API_TOKEN", "(none)",
        Allowed::Secret("(none) or a token of letters, digits and -._~+/=", "TOKEN"),
        "bearer token for /api/* and /metrics; without one they answer only this machine, asked by address or as localhost: \
         set one behind any proxy, for not every proxy can be told from this machine; printed as (set)"
        => "Some(\"a-long-and-random-token\".parse()?)", "(set)";
    admin_address: Option<ListenAddress> = "ADMIN_ADDR", "(none)",
        Allowed::Text("(none), HOST:PORT or unix:/PATH", "ADDR"),
        "where /api/*, /metrics, /healthz and /readyz are, instead of on RINGWIRE_ADDR: there they are 404 then, and here \
         everything else is; limits of addresses and rates do not hold here"
        => "Some(\"127.0.0.1:9002\".parse()?)", "127.0.0.1:9002";
    trusted_proxies: TrustedProxies = "TRUSTED_PROXIES", "(none)",
        Allowed::Text("(none), or networks such as 10.0.0.0/8, addresses, or unix for peers on Unix sockets, comma-separated", "LIST"),
        "proxies that are believed when they name the client, by Forwarded, X-Forwarded-For or X-Real-IP: the right-most address \
         that is none of theirs is the peer, for limits, logs and /api; and by the PROXY protocol, which nobody else may speak \
         if there are any"
        => "\"10.0.0.0/8\".parse()?", "10.0.0.0/8";
    proxy_protocol: ProxyProtocol = "PROXY_PROTOCOL", "false",
        Allowed::Text("true, false, or those of RINGWIRE_ADDR that are meant, comma-separated", "WHERE"),
        "connections begin with a header of the PROXY protocol (version 1 or 2), which names the client; one without is closed"
        => "ringwire::config::ProxyProtocol::Always", "true";
    api_origins: Option<Origins> = "API_ORIGINS", "(none)",
        Allowed::Text("(none), * or origins of pages such as https://example.org, comma-separated", "ORIGINS"),
        "origins whose pages may use /api/* from a browser (CORS); they show the token like everybody else, where one is set"
        => "Some(\"https://example.org\".parse()?)", "https://example.org";
    mail_depth: u32 = "MAIL_DEPTH", "8192", Allowed::Count(range(16, 1 << 24)),
        "messages waiting for one core from the others"
        => "1024", "1024";
    nats_url: Option<NatsUrls> = "NATS_URL", "(none)",
        Allowed::Secret("(none) or nats://HOST:PORT or tls://HOST:PORT, or several, comma-separated, each with USER:PASSWORD@ or \
         TOKEN@ before the host and ?creds=FILE or ?ca=FILE behind it or not", "URLS"),
        "servers of NATS by which this machine is joined with all others of the same prefix: rooms, broadcasts, emits and counts \
         mean all of them then; see docs/many_machines.md. Printed as (set)"
        => "Some(\"nats://127.0.0.1:4222\".parse()?)", "(set)";
    nats_prefix: SubjectPrefix = "NATS_PREFIX", "ringwire",
        Allowed::Text("tokens of letters, digits, - and _, with dots between them, at most 64 bytes", "PREFIX"),
        "what all subjects in NATS begin with: those who share it are one"
        => "\"chat\".parse()?", "chat";
    node_name as node: NodeName = "NODE", "random",
        Allowed::Text("random, or at most 64 letters, digits, -, _ and .", "NAME"),
        "this machine's name among them, which no other may have: a server whose name is taken does not start"
        => "\"eu-1\".parse()?", "eu-1";
    node_timeout: Duration = "NODE_TIMEOUT", "5s", Allowed::Time(range(500 * MILLISECOND, 300 * SECOND)),
        "a machine that has not been heard of for this long counts no more, nor do its connections"
        => "Duration::from_secs(10)", "10s";
    nats_history: NatsHistory = "NATS_HISTORY", "memory", Allowed::Word(NATS_HISTORY_WORDS),
        "where JetStream keeps the one history that the rooms of all machines have, if RINGWIRE_HISTORY or a route asks for one; off, \
         and where JetStream is off: each machine has its own"
        => "ringwire::config::NatsHistory::File", "file";
    nats_required: bool = "NATS_REQUIRED", "false", Allowed::Switch,
        "whether /readyz says 503 while NATS is away"
        => "true", "true";
    drain_notice: Duration = "DRAIN_NOTICE", "0s", Allowed::Time(range(MILLISECOND, DAY).or_zero("at once")),
        "before it shuts down, serve and accept for this long as ever, while /readyz says 503: until load balancers have seen it"
        => "Duration::from_secs(5)", "5s";
    drain_timeout: Duration = "DRAIN_TIMEOUT", "10s", Allowed::Time(range(MILLISECOND, DAY)),
        "shutdown takes no longer than this, counted from the end of RINGWIRE_DRAIN_NOTICE"
        => "Duration::from_secs(30)", "30s";
    drain_spread: Duration = "DRAIN_SPREAD", "1s", Allowed::Time(range(MILLISECOND, DAY).or_zero("at once")),
        "shutdown spreads its Close frames over this long, so that clients do not all come back at once"
        => "Duration::from_secs(3)", "3s";
    log: String = "LOG", "info",
        Allowed::Text("a filter such as info or warn,ringwire=debug", "FILTER"),
        "which log lines to write, in tracing's filter syntax"
        => "String::from(\"warn,ringwire=debug\")", "warn,ringwire=debug";
    log_format: LogFormat = "LOG_FORMAT", "text", Allowed::Word(LOG_FORMAT_WORDS),
        "how to write them, to standard error: text or json"
        => "ringwire::config::LogFormat::Json", "json";
}

#[cfg(feature = "tls")]
impl Config {
    /// Speaks TLS by this configuration, instead of one that is made of `RINGWIRE_TLS_CERT` and its like. It is given what a
    /// server needs: HTTP/1.1 as the only protocol, tickets whose keys rotate, and no early data.
    ///
    /// ```
    /// # fn with(own: rustls::ServerConfig) {
    /// let config = ringwire::Config::default().tls(own);
    /// # }
    /// ```
    #[must_use]
    pub fn tls(mut self, own: rustls::ServerConfig) -> Config {
        self.own_tls = Some(OwnTls(Arc::new(own)));
        self
    }

    /// Looks at the files of certificates so often, instead of every ten seconds: for tests that do not wait that long.
    #[cfg(feature = "unstable")]
    #[doc(hidden)]
    #[must_use]
    pub fn tls_look_interval(mut self, interval: Duration) -> Config {
        self.tls_look_interval = Some(interval);
        self
    }
}

/// A configuration of the embedder's own; equal to itself alone.
#[cfg(feature = "tls")]
#[derive(Clone, Debug)]
pub(crate) struct OwnTls(pub(crate) Arc<rustls::ServerConfig>);

#[cfg(feature = "tls")]
impl PartialEq for OwnTls {
    fn eq(&self, other: &OwnTls) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

#[cfg(feature = "tls")]
impl Eq for OwnTls {}

/// One row of the table: a setting's names, default, range and meaning.
///
/// ```
/// use ringwire::config::SETTINGS;
///
/// for setting in SETTINGS {
///     println!("{} ({}): {}", setting.variable, setting.default, setting.doc);
/// }
/// assert!(SETTINGS.iter().any(|setting| setting.variable == "RINGWIRE_ADDR"));
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    /// The environment variable.
    pub variable: &'static str,
    /// The default, as one would write it.
    pub default: &'static str,
    /// What may be written.
    pub allowed: Allowed,
    /// What it is for.
    pub doc: &'static str,
    read: fn(&mut Config, &str) -> Option<()>,
    show: fn(&Config) -> String,
}

impl Setting {
    /// The setting of this variable.
    ///
    /// ```
    /// use ringwire::config::Setting;
    ///
    /// assert_eq!(Setting::named("RINGWIRE_BACKLOG").map(|setting| setting.default), Some("4096"));
    /// assert!(Setting::named("RINGWIRE_COFFEE").is_none());
    /// ```
    pub fn named(variable: &str) -> Option<&'static Setting> {
        SETTINGS.iter().find(|setting| setting.variable == variable)
    }

    /// The flag's name without its dashes: `max-connections` for `RINGWIRE_MAX_CONNECTIONS`.
    ///
    /// ```
    /// use ringwire::config::Setting;
    ///
    /// let setting = Setting::named("RINGWIRE_MAX_CONNECTIONS").unwrap();
    /// assert_eq!(setting.flag(), "max-connections");
    /// ```
    pub fn flag(&self) -> String {
        self.variable[PREFIX.len()..].to_ascii_lowercase().replace('_', "-")
    }

    /// Sets it in `config`; `source` is the variable or flag that an error names.
    ///
    /// ```
    /// use ringwire::config::{Config, Setting};
    ///
    /// let (mut config, setting) = (Config::default(), Setting::named("RINGWIRE_MAX_MESSAGE").unwrap());
    /// setting.apply(&mut config, "chat.toml", "64KiB").unwrap();
    /// assert_eq!(setting.value(&config), "64KiB");
    /// let error = setting.apply(&mut config, "chat.toml", "much").unwrap_err();
    /// assert!(error.to_string().starts_with("chat.toml=much is not allowed"));
    /// ```
    ///
    /// # Errors
    /// When the value is not allowed; `config` is then as before.
    pub fn apply(&self, config: &mut Config, source: &str, value: &str) -> Result<(), ConfigError> {
        (self.read)(config, value.trim()).ok_or_else(|| ConfigError::BadValue {
            setting: String::from(source),
            value: String::from(if self.is_secret() { "(hidden)" } else { value }),
            allowed: self.allowed.describe() + &self.allowed.hint(value.trim()).unwrap_or_default(),
        })
    }

    /// Its value in `config`, as one would write it; a secret that is set is `(set)`, which cannot be read back.
    ///
    /// ```
    /// use ringwire::config::{Config, Setting};
    ///
    /// let config = Config::default().max_message(64 << 10).api_token(Some("secret".parse().unwrap()));
    /// let value = |variable| Setting::named(variable).unwrap().value(&config);
    /// assert_eq!((value("RINGWIRE_MAX_MESSAGE").as_str(), value("RINGWIRE_API_TOKEN").as_str()), ("64KiB", "(set)"));
    /// ```
    pub fn value(&self, config: &Config) -> String {
        let value = (self.show)(config);
        if self.is_secret() && value != self.default { String::from("(set)") } else { value }
    }

    fn is_secret(&self) -> bool {
        matches!(self.allowed, Allowed::Secret(..))
    }

    /// An error about its value in `config`, which is fine by itself but contradicts something else.
    ///
    /// ```
    /// use ringwire::config::{Config, Setting};
    ///
    /// let (config, setting) = (Config::default(), Setting::named("RINGWIRE_BACKLOG").unwrap());
    /// let error = setting.conflict(&config, "this program's own listener allows 128");
    /// assert_eq!(error.to_string(), "RINGWIRE_BACKLOG=4096 cannot be: this program's own listener allows 128");
    /// ```
    pub fn conflict(&self, config: &Config, reason: impl Into<String>) -> ConfigError {
        ConfigError::Conflict { setting: String::from(self.variable), value: self.value(config), reason: reason.into() }
    }
}

impl Config {
    /// The settings that the process's environment asks for, defaults elsewhere.
    ///
    /// ```no_run
    /// use ringwire::{App, Config, Server};
    ///
    /// fn main() -> ringwire::Result<()> {
    ///     // What the program has its own mind about, whatever the environment says.
    ///     let config = Config::from_env()?.max_message(64 << 10);
    ///     Server::new(config).run(App::new)
    /// }
    /// ```
    ///
    /// # Errors
    /// When a value is not allowed, values contradict each other, or a variable beginning with `RINGWIRE_` is no
    /// setting.
    pub fn from_env() -> Result<Config, ConfigError> {
        Config::from_sources(std::env::vars_os(), [])
    }

    /// The settings that these variables and then these flags ask for, defaults elsewhere. A flag is a setting and
    /// its value; it wins over the variable. Variables that do not begin with `RINGWIRE_` are passed over.
    ///
    /// ```
    /// use ringwire::config::{Config, Setting};
    ///
    /// let variables = [("RINGWIRE_BACKLOG", "100"), ("PATH", "/bin")].map(|(name, value)| (name.into(), value.into()));
    /// let backlog = Setting::named("RINGWIRE_BACKLOG").unwrap();
    /// let config = Config::from_sources(variables, [(backlog, "200")]).unwrap();
    /// assert_eq!(backlog.value(&config), "200");
    /// ```
    ///
    /// # Errors
    /// As [`Config::from_env`].
    pub fn from_sources<'a>(
        variables: impl IntoIterator<Item = (OsString, OsString)>,
        flags: impl IntoIterator<Item = (&'static Setting, &'a str)>,
    ) -> Result<Config, ConfigError> {
        let mut config = Config::default();
        for (name, value) in variables {
            let name = name.to_string_lossy();
            if !name.starts_with(PREFIX) || TEST_PREFIXES.iter().any(|prefix| name.starts_with(prefix)) {
                continue;
            }
            let setting = Setting::named(&name).ok_or_else(|| ConfigError::Unknown {
                suggestion: nearest(&name).map(String::from),
                name: name.clone().into_owned(),
            })?;
            // Bytes that are no UTF-8 become U+FFFD, which a path could contain: refuse them rather than alter them.
            let text = value.to_str().ok_or_else(|| ConfigError::BadValue {
                setting: String::from(setting.variable),
                value: value.to_string_lossy().into_owned(),
                allowed: String::from("UTF-8"),
            })?;
            setting.apply(&mut config, setting.variable, text)?;
        }
        for (setting, value) in flags {
            setting.apply(&mut config, &format!("--{}", setting.flag()), value)?;
        }
        config.validate()?;
        Ok(config)
    }

    /// Whether every value is allowed and none contradicts another. [`Config::from_env`] has done it already; it is
    /// for a `Config` whose fields were set by hand.
    ///
    /// ```
    /// use ringwire::config::Config;
    /// use std::time::Duration;
    ///
    /// let config = Config::default().drain_timeout(Duration::from_secs(1)).drain_spread(Duration::from_secs(2));
    /// let error = config.validate().unwrap_err();
    /// assert_eq!(error.to_string(), "RINGWIRE_DRAIN_SPREAD=2s cannot be: it is more than RINGWIRE_DRAIN_TIMEOUT=1s");
    /// ```
    ///
    /// # Errors
    /// The first value that cannot be used.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let mut copy = self.clone();
        for setting in SETTINGS {
            setting.apply(&mut copy, setting.variable, &(setting.show)(self))?;
        }
        let conflict = |variable: &str, reason: String| Err(self.conflict(variable, reason));
        if self.cq_entries < self.ring_entries {
            let reason = format!("it is less than RINGWIRE_RING_ENTRIES={}", self.ring_entries);
            return conflict("RINGWIRE_CQ_ENTRIES", reason);
        }
        let recv_bytes = u64::from(self.recv_buffers) * u64::from(self.recv_buffer_bytes);
        if recv_bytes > RECV_BYTES_MAX {
            let reason = format!(
                "with RINGWIRE_RECV_BUFFERS={} that is {} MiB for each core, and at most {} MiB are allowed",
                self.recv_buffers,
                recv_bytes / MIB,
                RECV_BYTES_MAX / MIB
            );
            return conflict("RINGWIRE_RECV_BUFFER_SIZE", reason);
        }
        if let ProxyProtocol::On(addresses) = &self.proxy_protocol
            && let Some(other) =
                addresses.iter().find(|on| !self.addresses.iter().any(|address| address.place() == on.place()))
        {
            return conflict("RINGWIRE_PROXY_PROTOCOL", format!("{other} is none of RINGWIRE_ADDR"));
        }
        if let Some(admin) = self.admin_address.as_ref().filter(|admin| !admin.is_any_port())
            && self.addresses.iter().any(|address| address.place() == admin.place())
        {
            return conflict("RINGWIRE_ADMIN_ADDR", String::from("it is one of RINGWIRE_ADDR"));
        }
        self.validate_tls()?;
        if self.nats_url.is_some() && !cfg!(feature = "nats") {
            return conflict("RINGWIRE_NATS_URL", String::from("this build has no NATS (feature `nats`)"));
        }
        if self.drain_spread > self.drain_timeout {
            let timeout = Setting::named("RINGWIRE_DRAIN_TIMEOUT").map(|it| it.value(self));
            let reason = format!("it is more than RINGWIRE_DRAIN_TIMEOUT={}", timeout.unwrap_or_default());
            return conflict("RINGWIRE_DRAIN_SPREAD", reason);
        }
        Ok(())
    }

    /// Whether an address speaks TLS: as it says, or else where there is a certificate.
    pub(crate) fn is_secure(&self, address: &ListenAddress) -> bool {
        address.scheme().map_or(self.has_certificate(), |scheme| scheme == Scheme::Wss)
    }

    /// The same of the operators' address, which speaks TLS only if it says so.
    pub(crate) fn is_admin_secure(&self) -> bool {
        self.admin_address.as_ref().is_some_and(|address| address.scheme() == Some(Scheme::Wss))
    }

    pub(crate) fn has_certificate(&self) -> bool {
        #[cfg(feature = "tls")]
        if self.own_tls.is_some() {
            return true;
        }
        !self.tls_cert.is_empty()
    }

    /// An error about a setting's value here, which contradicts something else.
    fn conflict(&self, variable: &str, reason: String) -> ConfigError {
        Setting::named(variable).expect("a setting of the table").conflict(self, reason)
    }

    fn validate_tls(&self) -> Result<(), ConfigError> {
        let conflict = |variable: &str, reason: String| Err(self.conflict(variable, reason));
        let (certificates, keys) = (self.tls_cert.0.len(), self.tls_key.0.len());
        if certificates != keys {
            let (variable, other) = if certificates > keys { ("CERT", "KEY") } else { ("KEY", "CERT") };
            let reason = format!("RINGWIRE_TLS_{other} has {}: each certificate has a key", certificates.min(keys));
            return conflict(&format!("{PREFIX}TLS_{variable}"), reason);
        }
        if self.tls_client_auth != ClientAuth::Off && self.tls_client_ca.is_empty() {
            return conflict("RINGWIRE_TLS_CLIENT_AUTH", String::from("RINGWIRE_TLS_CLIENT_CA is not set"));
        }
        if self.tls_client_auth == ClientAuth::Off && !self.tls_client_ca.is_empty() {
            return conflict(
                "RINGWIRE_TLS_CLIENT_CA",
                String::from("RINGWIRE_TLS_CLIENT_AUTH=off asks nobody for one"),
            );
        }
        let all = self.addresses.iter().chain(&self.admin_address);
        let secure = all.clone().find(|address| address.scheme() == Some(Scheme::Wss));
        let is_tls_built = cfg!(feature = "tls");
        match secure {
            Some(address) if !is_tls_built => {
                conflict("RINGWIRE_ADDR", format!("{address}: this build has no TLS (feature `tls`)"))
            }
            Some(address) if !self.has_certificate() => {
                let variable = if self.addresses.contains(address) { "RINGWIRE_ADDR" } else { "RINGWIRE_ADMIN_ADDR" };
                conflict(variable, format!("for {address} there is no certificate: RINGWIRE_TLS_CERT is not set"))
            }
            None if certificates > 0 && !is_tls_built => {
                conflict("RINGWIRE_TLS_CERT", String::from("this build has no TLS (feature `tls`)"))
            }
            None if certificates > 0 && all.clone().all(|address| address.scheme() == Some(Scheme::Ws)) => {
                conflict("RINGWIRE_TLS_CERT", String::from("no address of RINGWIRE_ADDR speaks TLS"))
            }
            _ => Ok(()),
        }
    }

    /// Those of the `available` processors that there are cores for, of which `busy_max` can be kept busy: where
    /// [`Config::cores`] is `all`, there are no more than that.
    ///
    /// ```
    /// use ringwire::config::Config;
    ///
    /// // Four processors, and a quota of two.
    /// assert_eq!(Config::default().usable_cpus(&[0, 1, 2, 3], 2), [0, 1]);
    /// ```
    pub fn usable_cpus<'a>(&self, available: &'a [usize], busy_max: usize) -> &'a [usize] {
        match self.cores {
            CoreSet::All => &available[..busy_max.min(available.len())],
            CoreSet::Count(_) | CoreSet::List(_) => available,
        }
    }

    /// The processor of each core.
    ///
    /// ```
    /// use ringwire::config::{Config, CoreSet};
    ///
    /// let config = Config::default().cores(CoreSet::Count(3));
    /// assert_eq!(config.cpus(&[0, 1]).unwrap(), [0, 1, 0]);
    /// assert!(Config::default().cores(CoreSet::List(vec![7])).cpus(&[0, 1]).is_err());
    /// ```
    ///
    /// # Errors
    /// When the list of processors has one that this process may not use.
    pub fn cpus(&self, available: &[usize]) -> Result<Vec<usize>, ConfigError> {
        let missing = self.cores.missing(available);
        if self.pin && !missing.is_empty() {
            let setting = Setting::named("RINGWIRE_CORES").expect("a setting of the table");
            let reason = format!("this process may not run on {} (only on {})", numbers(&missing), numbers(available));
            return Err(setting.conflict(self, reason));
        }
        Ok(self.cores.cpus(available))
    }

    /// All settings as `NAME=value` lines that a shell can source (`set -a; . ./file`): what would mean something to it stands
    /// in single quotes. A secret that is set stands there as `(set)`: a file made of it does not start a server with a wrong
    /// secret, for that is refused.
    ///
    /// ```
    /// use ringwire::config::Config;
    ///
    /// let lines = Config::default().backlog(100).to_lines();
    /// assert!(lines.contains("RINGWIRE_BACKLOG=100\n"));
    /// ```
    pub fn to_lines(&self) -> String {
        let mut lines = String::new();
        for setting in SETTINGS {
            let _ = writeln!(lines, "{}={}", setting.variable, for_shell(&setting.value(self)));
        }
        lines
    }

    /// README's table of the settings.
    ///
    /// ```
    /// use ringwire::config::Config;
    ///
    /// assert!(Config::markdown_table().contains("| `RINGWIRE_BACKLOG` | `4096` |"));
    /// ```
    pub fn markdown_table() -> String {
        let mut table = String::from("| variable | default | allowed | meaning |\n| --- | --- | --- | --- |\n");
        for setting in SETTINGS {
            let _ = writeln!(
                table,
                "| `{}` | `{}` | {} | {} |",
                setting.variable,
                setting.default,
                setting.allowed.describe().replace('*', "`*`"),
                setting.doc
            );
        }
        table
    }
}

/// A value as a shell reads it (POSIX 2.2.2).
fn for_shell(value: &str) -> Cow<'_, str> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./:,@%+=".contains(&byte);
    match value.bytes().all(is_plain) {
        true => Cow::Borrowed(value),
        false => Cow::Owned(format!("'{}'", value.replace('\'', r"'\''"))),
    }
}

fn numbers(list: &[usize]) -> String {
    let texts: Vec<String> = list.iter().map(ToString::to_string).collect();
    texts.join(",")
}

/// The variable whose name is most like `name`, unless all are far from it.
fn nearest(name: &str) -> Option<&'static str> {
    let distance = |setting: &Setting| {
        let own = &setting.variable[PREFIX.len()..];
        strsim::damerau_levenshtein(&name[PREFIX.len()..].to_ascii_uppercase(), own)
    };
    SETTINGS
        .iter()
        .map(|setting| (distance(setting), setting.variable))
        .min()
        // Half of a short name may be anything.
        .filter(|(distance, _)| *distance <= ((name.len() - PREFIX.len()) / 2).min(3))
        .map(|(_, variable)| variable)
}

#[cfg(test)]
mod tests;
