//! What is counted by kind: a few kinds each, known beforehand, so that no peer can make more of them.

use std::fmt;
use std::marker::PhantomData;

/// One of few kinds of something that happens.
///
/// ```
/// use ringwire::metrics::{Counts, DropReason, Kind as _};
///
/// let drops = Counts::<DropReason>::default();
/// for reason in DropReason::ALL {
///     println!("{}: {}", reason.label(), drops.of(*reason));
/// }
/// ```
pub trait Kind: Copy + 'static {
    /// All of them, in the order of their places.
    const ALL: &'static [Self];

    /// What it is called in metrics.
    fn label(self) -> &'static str;

    /// Its place in [`Kind::ALL`].
    fn place(self) -> usize;
}

/// Makes an enum a [`Kind`]: each variant with its label.
macro_rules! kinds {
    ($(#[$doc:meta])* $name:ident { $( $(#[$variant_doc:meta])* $variant:ident = $label:literal, )* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[non_exhaustive]
        pub enum $name {
            $( $(#[$variant_doc])* $variant, )*
        }

        impl Kind for $name {
            const ALL: &'static [$name] = &[$( $name::$variant, )*];

            fn label(self) -> &'static str {
                match self {
                    $( $name::$variant => $label, )*
                }
            }

            #[inline]
            fn place(self) -> usize {
                self as usize
            }
        }
    };
}

kinds! {
    /// Why a message was not sent to a connection whose queue was full.
    DropReason {
        /// The queue takes no more: the newest message was dropped.
        DropNew = "drop-new",
        /// The oldest message had to make room for a newer one.
        DropOld = "drop-old",
        /// A newer one with the same key took its place.
        Replaced = "replaced",
        /// The connection was closed for it.
        Close = "close",
    }
}

kinds! {
    /// Why a request or an upgrade was answered with an error status, or a connection closed before it could ask.
    ///
    /// ```
    /// use ringwire::metrics::RefusalReason;
    /// use ringwire::testing::TestServer;
    /// use ringwire::{App, ws};
    ///
    /// let server = TestServer::new(|| App::new().ws("/", ws()));
    /// assert_eq!(server.get("/attic").send().status(), 404);
    /// let counters = server.block_on(server.hub().metrics()).cores[0].counters;
    /// assert_eq!(counters.refused.of(RefusalReason::App), 1);
    /// ```
    RefusalReason {
        /// 503: the process has as many connections as it may.
        Full = "full",
        /// 429: the address has as many connections as it may.
        Address = "address",
        /// 503: more connections came than the accept rate lets in.
        Rate = "rate",
        /// 503: the server is shutting down.
        Draining = "draining",
        /// 503: the memory budget is spent.
        Memory = "memory",
        /// 403: a page of this origin may not open WebSockets.
        Origin = "origin",
        /// 400 or 426: the handshake was wrong.
        Handshake = "handshake",
        /// 4xx or 501: the request's head or body was wrong, or over a limit.
        Request = "request",
        /// 408: the request took too long.
        Timeout = "timeout",
        /// 503: a handler did not answer in time.
        Unanswered = "unanswered",
        /// Closed without an answer: it did not begin with the header of the PROXY protocol that it must begin with, or came
        /// from no trusted proxy.
        Proxy = "proxy",
        /// 400 to plain HTTP where TLS is spoken; closed without one where TLS was spoken and plain HTTP is.
        Tls = "tls",
        /// An error status that a route, a hook or the router answered with.
        App = "app",
    }
}

kinds! {
    /// How a TLS handshake has ended.
    TlsResult {
        /// Done, with a key exchange and a signature.
        Full = "full",
        /// Done: it went on from an earlier one.
        Resumed = "resumed",
        /// The connection ended before it was done, or its time was up.
        Abandoned = "abandoned",
        /// It was plain HTTP.
        PlainHttp = "plain-http",
        /// It was neither TLS nor HTTP.
        NotTls = "not-tls",
        /// No version, cipher suite, key exchange or protocol in common.
        NothingInCommon = "nothing-in-common",
        /// No certificate for the name that was asked for.
        NoCertificate = "no-certificate",
        /// The client's certificate was missing, or not accepted.
        PeerCertificate = "peer-certificate",
        /// The client broke off with an alert: it does not trust the certificate, perhaps.
        Alert = "alert",
        /// The client broke the protocol.
        Protocol = "protocol",
        /// An error of the server's own.
        Internal = "internal",
    }
}

kinds! {
    /// What came of reading certificates anew.
    ReloadResult {
        /// They are shown from then on.
        Renewed = "renewed",
        /// They could not be used, and those before stayed.
        Refused = "refused",
    }
}

kinds! {
    /// A time limit.
    ///
    /// ```
    /// use ringwire::metrics::TimeoutKind;
    /// use ringwire::testing::TestServer;
    /// use ringwire::{App, ws};
    ///
    /// let server = TestServer::new(|| App::new().ws("/", ws()));
    /// let client = server.connect("/");
    /// client.pause();
    /// server.advance(std::time::Duration::from_secs(130));
    /// let counters = server.block_on(server.hub().metrics()).cores[0].counters;
    /// assert_eq!(counters.timeouts.of(TimeoutKind::Idle), 1);
    /// ```
    TimeoutKind {
        /// For a request head and body.
        Handshake = "handshake",
        /// Without an inbound byte.
        Idle = "idle",
        /// For the peer to read what is queued, and to answer Close.
        Close = "close",
        /// For the socket to take what waits for it.
        Write = "write",
        /// For a handler to answer a request.
        Answer = "answer",
    }
}

kinds! {
    /// Why the server closed a connection that held too much.
    ShedReason {
        /// Its own queue was full.
        SlowConsumer = "slow-consumer",
        /// The process's memory budget was spent, and it held the most.
        Memory = "memory",
    }
}

kinds! {
    /// Who began to close a connection.
    ///
    /// ```
    /// use ringwire::metrics::{CloseCode, Side};
    /// use ringwire::testing::TestServer;
    /// use ringwire::{App, ws};
    ///
    /// let server = TestServer::new(|| App::new().ws("/", ws()));
    /// server.connect("/").reset();
    /// let counters = server.block_on(server.hub().metrics()).cores[0].counters;
    /// assert_eq!(counters.closes.of(CloseCode::Broken, Side::Nobody), 1);
    /// ```
    Side {
        /// This server.
        Local = "local",
        /// The peer.
        Peer = "peer",
        /// Nobody: it broke, or was dropped without a Close frame.
        Nobody = "none",
    }
}

kinds! {
    /// A close code (RFC 6455 7.4.1).
    ///
    /// ```
    /// use ringwire::metrics::CloseCode;
    ///
    /// assert_eq!(CloseCode::from(1001), CloseCode::GoingAway);
    /// assert_eq!(CloseCode::from(4711), CloseCode::Other);
    /// ```
    CloseCode {
        /// 1000
        Normal = "1000",
        /// 1001
        GoingAway = "1001",
        /// 1002
        Protocol = "1002",
        /// 1003
        Unacceptable = "1003",
        /// 1005: the Close frame had none.
        Missing = "1005",
        /// 1006: there was no Close frame.
        Broken = "1006",
        /// 1007
        BadData = "1007",
        /// 1008
        Policy = "1008",
        /// 1009
        TooBig = "1009",
        /// 1010
        Extension = "1010",
        /// 1011
        Internal = "1011",
        /// 1012
        Restart = "1012",
        /// 1013
        TryLater = "1013",
        /// 1014
        BadGateway = "1014",
        /// Any other, those of applications among them: a peer may choose them freely.
        Other = "other",
    }
}

impl From<u16> for CloseCode {
    fn from(code: u16) -> CloseCode {
        match code {
            1000 => CloseCode::Normal,
            1001 => CloseCode::GoingAway,
            1002 => CloseCode::Protocol,
            1003 => CloseCode::Unacceptable,
            1005 => CloseCode::Missing,
            1006 => CloseCode::Broken,
            1007 => CloseCode::BadData,
            1008 => CloseCode::Policy,
            1009 => CloseCode::TooBig,
            1010 => CloseCode::Extension,
            1011 => CloseCode::Internal,
            1012 => CloseCode::Restart,
            1013 => CloseCode::TryLater,
            1014 => CloseCode::BadGateway,
            _ => CloseCode::Other,
        }
    }
}

/// Room for the kinds of every [`Kind`].
const KINDS_MAX: usize = 16;

/// Counts by kind.
///
/// ```
/// use ringwire::metrics::{Counts, DropReason};
///
/// let mut drops = Counts::<DropReason>::default();
/// drops.add(DropReason::DropOld, 3);
/// assert_eq!((drops.of(DropReason::DropOld), drops.total()), (3, 3));
/// ```
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Counts<K> {
    counts: [u64; KINDS_MAX],
    kind: PhantomData<K>,
}

impl<K: Kind> Counts<K> {
    const FITS: () = assert!(K::ALL.len() <= KINDS_MAX);

    /// Counts `more` of a kind.
    #[inline]
    pub fn add(&mut self, kind: K, more: u64) {
        let () = Self::FITS;
        self.counts[kind.place()] += more;
    }

    /// How many of a kind.
    ///
    /// ```
    /// use ringwire::metrics::{Counts, TimeoutKind};
    ///
    /// let mut timeouts = Counts::<TimeoutKind>::default();
    /// timeouts.add(TimeoutKind::Idle, 3);
    /// timeouts.add(TimeoutKind::Close, 1);
    /// assert_eq!(timeouts.of(TimeoutKind::Idle), 3);
    /// ```
    pub fn of(&self, kind: K) -> u64 {
        self.counts[kind.place()]
    }

    /// How many of all kinds.
    ///
    /// ```
    /// use ringwire::metrics::{Counts, TimeoutKind};
    ///
    /// let mut timeouts = Counts::<TimeoutKind>::default();
    /// timeouts.add(TimeoutKind::Idle, 3);
    /// timeouts.add(TimeoutKind::Close, 1);
    /// assert_eq!(timeouts.total(), 4);
    /// ```
    pub fn total(&self) -> u64 {
        self.counts.iter().sum()
    }
}

impl<K> Default for Counts<K> {
    fn default() -> Counts<K> {
        Counts { counts: [0; KINDS_MAX], kind: PhantomData }
    }
}

impl<K: Kind> fmt::Debug for Counts<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(K::ALL.iter().map(|kind| (kind.label(), self.of(*kind)))).finish()
    }
}

/// WebSockets that ended, by close code and by who began to close.
///
/// ```
/// use ringwire::metrics::{CloseCode, Side};
/// use ringwire::testing::TestServer;
/// use ringwire::{App, ws};
///
/// let server = TestServer::new(|| App::new().ws("/", ws()));
/// server.connect("/").close(1000, "bye");
/// let closes = server.block_on(server.hub().metrics()).cores[0].counters.closes;
/// assert_eq!((closes.of(CloseCode::Normal, Side::Peer), closes.total()), (1, 1));
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Closes {
    local: Counts<CloseCode>,
    peer: Counts<CloseCode>,
    nobody: u64,
}

impl Closes {
    /// Counts the end of a connection; the code of a connection that nobody closed says nothing.
    pub fn add(&mut self, code: u16, by: Side) {
        match by {
            Side::Local => self.local.add(code.into(), 1),
            Side::Peer => self.peer.add(code.into(), 1),
            Side::Nobody => self.nobody += 1,
        }
    }

    /// How many a side closed with a code; those that nobody closed have the code 1006.
    pub fn of(&self, code: CloseCode, by: Side) -> u64 {
        match by {
            Side::Local => self.local.of(code),
            Side::Peer => self.peer.of(code),
            Side::Nobody if code == CloseCode::Broken => self.nobody,
            Side::Nobody => 0,
        }
    }

    /// How many ended.
    pub fn total(&self) -> u64 {
        self.local.total() + self.peer.total() + self.nobody
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places<K: Kind>() {
        for (place, kind) in K::ALL.iter().enumerate() {
            assert_eq!(kind.place(), place);
            assert!(K::ALL.iter().filter(|other| other.label() == kind.label()).count() == 1);
        }
    }

    #[test]
    fn kinds_have_their_places_and_labels_of_their_own() {
        places::<DropReason>();
        places::<RefusalReason>();
        places::<TimeoutKind>();
        places::<ShedReason>();
        places::<Side>();
        places::<CloseCode>();
    }

    #[test]
    fn codes_that_peers_make_up_are_one_kind() {
        let mut closes = Closes::default();
        (3000..5000).for_each(|code| closes.add(code, Side::Peer));
        closes.add(1000, Side::Peer);
        closes.add(1006, Side::Nobody);
        closes.add(1001, Side::Local);
        assert_eq!(closes.of(CloseCode::Other, Side::Peer), 2000);
        assert_eq!(closes.of(CloseCode::Normal, Side::Peer), 1);
        assert_eq!(closes.of(CloseCode::Normal, Side::Local), 0);
        assert_eq!(closes.of(CloseCode::GoingAway, Side::Local), 1);
        assert_eq!(closes.of(CloseCode::Broken, Side::Nobody), 1);
        assert_eq!(closes.total(), 2003);
        for code in CloseCode::ALL.iter().filter(|code| **code != CloseCode::Other) {
            assert_eq!(CloseCode::from(code.label().parse::<u16>().unwrap()), *code);
        }
    }
}
