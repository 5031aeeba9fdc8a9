//! Records of TLS from a peer of the ordinary kind, cut into any pieces, and changed, repeated or cut off on their way: what is
//! handed on is a beginning of what was sent, and all of it where nothing was touched; however it is cut, it ends the same; and
//! memory stays bounded.
//!
//! Input: what is tried (see [`Plan::read`]), the size of the pieces, then what the peer does, and what happens to its bytes.
//! Or, with the third bit set, the bytes themselves, to a session that has heard nothing.

use std::io::Write as _;
use std::sync::Arc;

use ringwire::proto::Spares;
use ringwire::tls::{Event, Failure, RECORD_BYTES_MAX, Session};
use rustls::pki_types::ServerName;
use rustls::{ClientConnection, Connection, ServerConnection};

use super::take;
use crate::secure;

/// A record, another that is being completed, and what a handshake has in its hands.
const MEMORY_BYTES_MAX: usize = 8 * RECORD_BYTES_MAX;
/// Most bytes of an input's data.
const SENT_BYTES_MAX: usize = 200_000;
/// Records without content that a session takes for granted.
const QUIET_MAX: usize = 20;

pub fn run(mut data: &[u8]) {
    let flags = take(&mut data);
    let piece = usize::from(take(&mut data)).max(1);
    if flags & 4 != 0 {
        let [whole, cut] = [usize::MAX, piece].map(|piece| {
            let mut tested = Tested::new(flags & 1 != 0);
            tested.feed(data, piece);
            tested
        });
        assert_eq!((whole.got, whole.failure), (cut.got, cut.failure), "it depends on the pieces");
        return;
    }
    let plan = Plan::read(flags, data);
    let whole = plan.run(usize::MAX);
    let cut = plan.run(piece);
    for outcome in [&whole, &cut] {
        assert!(plan.sent.starts_with(&outcome.got), "something else than was sent was handed on");
        assert_eq!(outcome.session.end_of_file().is_ok(), outcome.is_closed);
        if !plan.is_touched {
            assert_eq!((outcome.failure, outcome.is_closed), (None, plan.closes));
            assert!(outcome.is_ready && outcome.got.len() == plan.sent.len(), "some of it is missing");
        }
    }
    // Keys are others each time; what a changed one comes to may differ.
    if plan.handshake_edits.is_empty() {
        let of = |outcome: &Tested| (outcome.got.len(), outcome.failure, outcome.is_closed, outcome.is_ready);
        assert_eq!(of(&whole), of(&cut), "it depends on the pieces");
    }
}

/// What the peer does behind the handshake.
enum Act {
    Say(usize, usize),
    NewKey,
    Close,
    /// Bytes of nobody's.
    Garbage(Vec<u8>),
    /// The last act's bytes once more.
    Repeat,
}

struct Plan {
    is_client: bool,
    is_12: bool,
    acts: Vec<Act>,
    /// Where bytes are changed, and by what.
    handshake_edits: Vec<(usize, u8)>,
    edits: Vec<(usize, u8)>,
    /// So many of the last bytes do not come.
    cut: usize,
    sent: Vec<u8>,
    closes: bool,
    is_touched: bool,
}

impl Plan {
    /// Flags: the session is the client's; TLS 1.2; (the third is read before); bytes of the handshake are changed, not those
    /// behind it.
    fn read(flags: u8, mut data: &[u8]) -> Plan {
        let mut plan = Plan {
            is_client: flags & 1 != 0,
            is_12: flags & 2 != 0,
            acts: Vec::new(),
            handshake_edits: Vec::new(),
            edits: Vec::new(),
            cut: 0,
            sent: Vec::new(),
            closes: false,
            is_touched: false,
        };
        let mut quiet = 0;
        while !data.is_empty() {
            let act = take(&mut data);
            let mut number = || usize::from(take(&mut data)) << 8 | usize::from(take(&mut data));
            match act & 7 {
                0 | 1 => {
                    let len = number() % 40_000;
                    if plan.closes || plan.sent.len() + len > SENT_BYTES_MAX {
                        continue;
                    }
                    let start = plan.sent.len();
                    plan.sent.extend((0..len).map(|n| (n + start) as u8 ^ act));
                    plan.acts.push(Act::Say(start, start + len));
                }
                // TLS 1.2 has none.
                2 if !plan.is_12 && quiet < QUIET_MAX && !plan.closes => {
                    quiet += 1;
                    plan.acts.push(Act::NewKey);
                }
                2 => {}
                3 => {
                    plan.closes = true;
                    plan.acts.push(Act::Close);
                }
                4 => {
                    let (place, change) = (number(), take(&mut data).max(1));
                    let edits = if flags & 8 != 0 { &mut plan.handshake_edits } else { &mut plan.edits };
                    edits.push((place, change));
                }
                5 => {
                    let len = (number() % 256).min(data.len());
                    plan.acts.push(Act::Garbage(data[..len].to_vec()));
                    data = &data[len..];
                }
                6 => plan.cut += number() % 2_000,
                _ => plan.acts.push(Act::Repeat),
            }
        }
        let is_foreign = |act: &Act| matches!(act, Act::Garbage(_) | Act::Repeat);
        let has_edits = !(plan.edits.is_empty() && plan.handshake_edits.is_empty());
        plan.is_touched = has_edits || plan.cut > 0 || plan.acts.iter().any(is_foreign);
        plan
    }

    fn peer(&self) -> Connection {
        let version = if self.is_12 { &rustls::version::TLS12 } else { &rustls::version::TLS13 };
        let mut peer: Connection = match self.is_client {
            true => ServerConnection::new(Arc::new(secure::server_config(version))).expect("a configuration").into(),
            false => {
                let name = ServerName::try_from("localhost").expect("a name");
                ClientConnection::new(Arc::new(secure::client_config(version)), name).expect("a configuration").into()
            }
        };
        peer.set_buffer_limit(None);
        peer
    }

    /// All of it, in pieces of this size.
    fn run(&self, piece: usize) -> Tested {
        let (mut tested, mut peer) = (Tested::new(self.is_client), self.peer());
        let mut place = 0;
        loop {
            tested.tell(&mut peer);
            let mut bytes = told(&mut peer);
            for (at, change) in &self.handshake_edits {
                if let Some(byte) = at.checked_sub(place).and_then(|at| bytes.get_mut(at)) {
                    *byte ^= change;
                }
            }
            place += bytes.len();
            tested.feed(&bytes, piece);
            if bytes.is_empty() && !tested.session.has_output() {
                break;
            }
        }
        if !tested.is_ready || tested.failure.is_some() || peer.is_handshaking() {
            return tested;
        }
        let (mut bytes, mut last) = (Vec::new(), Vec::new());
        for act in &self.acts {
            match act {
                Act::Say(start, end) => peer.writer().write_all(&self.sent[*start..*end]).expect("no limit"),
                Act::NewKey => peer.refresh_traffic_keys().expect("TLS 1.3 has new keys"),
                Act::Close => peer.send_close_notify(),
                Act::Garbage(garbage) => bytes.extend_from_slice(garbage),
                Act::Repeat => bytes.extend_from_slice(&last),
            }
            let said = told(&mut peer);
            bytes.extend_from_slice(&said);
            last = if said.is_empty() { last } else { said };
        }
        bytes.truncate(bytes.len().saturating_sub(self.cut));
        for (at, change) in &self.edits {
            let len = bytes.len().max(1);
            if let Some(byte) = bytes.get_mut(at % len) {
                *byte ^= change;
            }
        }
        tested.feed(&bytes, piece);
        tested
    }
}

/// What the peer has to send.
fn told(peer: &mut Connection) -> Vec<u8> {
    let mut bytes = Vec::new();
    while peer.wants_write() {
        peer.write_tls(&mut bytes).expect("a vector takes all");
    }
    bytes
}

/// A session, and what came of what it was fed.
struct Tested {
    session: Session,
    spares: Spares,
    got: Vec<u8>,
    is_ready: bool,
    is_closed: bool,
    failure: Option<Failure>,
}

impl Tested {
    fn new(is_client: bool) -> Tested {
        let session = match is_client {
            true => secure::connector().session("localhost").expect("a name"),
            false => secure::acceptor().session(),
        };
        let spares = Spares::new(1 << 20);
        Tested { session, spares, got: Vec::new(), is_ready: false, is_closed: false, failure: None }
    }

    fn feed(&mut self, bytes: &[u8], piece: usize) {
        for part in bytes.chunks(piece) {
            let mut part = part.to_vec();
            let mut at = 0;
            loop {
                match self.session.next(&mut part, &mut at, &mut self.spares) {
                    Ok(None) => break,
                    Ok(Some(Event::Ready)) => {
                        assert!(!std::mem::replace(&mut self.is_ready, true), "ready twice");
                    }
                    Ok(Some(Event::Data(data))) => {
                        assert!(self.is_ready && !self.is_closed && self.failure.is_none());
                        self.got.extend_from_slice(data);
                    }
                    Ok(Some(Event::Closed)) => {
                        assert!(!std::mem::replace(&mut self.is_closed, true), "closed twice");
                    }
                    Err(error) => {
                        assert!(self.failure.replace(error.failure()).is_none(), "failed twice");
                    }
                }
            }
            assert_eq!(at, part.len(), "bytes are left");
            let held = self.session.memory_bytes();
            assert!(held <= MEMORY_BYTES_MAX, "it holds {held} bytes");
        }
    }

    /// Tells the peer what the session has to say; one that does not like it goes silent.
    fn tell(&mut self, peer: &mut Connection) {
        let mut out = Vec::new();
        self.session.take_output(&mut out);
        let mut rest = out.as_slice();
        while !rest.is_empty() {
            if peer.read_tls(&mut rest).is_err() || peer.process_new_packets().is_err() {
                return;
            }
        }
    }
}
