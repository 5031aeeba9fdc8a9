//! RFC 6455 as a strict client speaks it, written apart from the library so that it can judge it.

use std::collections::VecDeque;

use ringwire::engine::sim::Rng;

#[path = "../common/bytes.rs"]
mod bytes;
#[allow(unused_imports, reason = "not every test program asks both ways")]
pub(crate) use bytes::{request, request_with};
#[path = "compression.rs"]
pub(crate) mod compression;
pub use compression::Compression;

pub const TEXT: u8 = 1;
pub const BINARY: u8 = 2;
pub const CLOSE: u8 = 8;
pub const PING: u8 = 9;
pub const PONG: u8 = 10;
/// Most bytes of a control frame's payload (RFC 6455 5.5).
const CONTROL_BYTES_MAX: usize = 125;

/// A data message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    pub opcode: u8,
    pub payload: Vec<u8>,
}

/// What a server sent after its handshake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    Message(Message),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    /// With its code, if it had one.
    Close(Option<u16>),
}

/// The key of an opening handshake, once all of it is there.
pub fn key_of(request: &[u8]) -> Option<String> {
    let request = std::str::from_utf8(request).ok()?.strip_suffix("\r\n\r\n")?;
    request.lines().find_map(|line| line.strip_prefix("Sec-WebSocket-Key: ")).map(str::to_owned)
}

/// The answer that accepts the handshake with `key`.
pub fn switching(key: &str) -> Vec<u8> {
    let accept = tungstenite::handshake::derive_accept_key(key.as_bytes());
    format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {accept}\r\n\r\n"
    )
    .into_bytes()
}

/// Takes a client's frame, unmasked, off the front of these bytes, if all of it is there: its opcode and its payload.
pub fn take_frame(bytes: &mut Vec<u8>) -> Option<(u8, Vec<u8>)> {
    let [first, second, ..] = bytes[..] else { return None };
    assert!(second & 0x80 != 0, "RFC 6455 5.1: a client must mask");
    let (start, len) = match second & 0x7f {
        126 if bytes.len() < 4 => return None,
        126 => (4, usize::from(u16::from_be_bytes([bytes[2], bytes[3]]))),
        127 => panic!("a small one was sent"),
        len => (2, usize::from(len)),
    };
    if bytes.len() < start + 4 + len {
        return None;
    }
    let frame: Vec<u8> = bytes.drain(..start + 4 + len).collect();
    let mask = &frame[start..start + 4];
    let payload = frame[start + 4..].iter().zip(mask.iter().cycle()).map(|(byte, key)| byte ^ key);
    Some((first & 0x0f, payload.collect()))
}

/// Appends one masked frame.
pub fn frame(out: &mut Vec<u8>, fin: bool, opcode: u8, payload: &[u8], rng: &mut Rng) {
    bytes::put_frame(out, u8::from(fin) << 7 | opcode, payload, (rng.next_u64() as u32).to_be_bytes());
}

/// A client's pings, each with a payload of its own, and the pongs that they are owed.
#[derive(Debug, Default)]
pub struct Pings {
    sent: usize,
    /// Those without a pong, in order.
    due: VecDeque<Vec<u8>>,
}

impl Pings {
    /// Appends a ping.
    pub fn ping(&mut self, out: &mut Vec<u8>, rng: &mut Rng) {
        let mut payload = format!("ping {} ", self.sent).into_bytes();
        let filler = rng.between(0, CONTROL_BYTES_MAX - payload.len());
        payload.resize(payload.len() + if rng.chance(0.8) { filler.min(10) } else { filler }, b'.');
        frame(out, true, PING, &payload, rng);
        self.sent += 1;
        self.due.push_back(payload);
    }

    /// Takes a pong. RFC 6455 5.5.3: it has a ping's data, and one for the latest of several pings is enough.
    pub fn pong(&mut self, payload: &[u8]) -> Result<(), String> {
        let Some(answered) = self.due.iter().position(|due| due == payload) else {
            let text = String::from_utf8_lossy(payload);
            return Err(format!(
                "the pong {text:?} is no answer to {:?}",
                self.due.iter().map(Vec::len).collect::<Vec<_>>()
            ));
        };
        self.due.drain(..=answered);
        Ok(())
    }

    /// How many have no pong.
    pub fn unanswered(&self) -> usize {
        self.due.len()
    }
}

/// Appends `message` in up to `frames_max` frames, sometimes with a ping between them.
pub fn message(out: &mut Vec<u8>, message: &Message, frames_max: usize, pings: &mut Pings, rng: &mut Rng) {
    let frames = rng.between(1, frames_max);
    let mut rest = message.payload.as_slice();
    for i in 1..=frames {
        let n = if i == frames { rest.len() } else { rng.between(0, rest.len()) };
        let (part, after) = rest.split_at(n);
        frame(out, i == frames, if i == 1 { message.opcode } else { 0 }, part, rng);
        rest = after;
        if i < frames && rng.chance(0.2) {
            pings.ping(out, rng);
        }
    }
}

/// Whether a [`Reader`]'s complaint is of an answer that a server may well give when it goes or when time is up.
pub fn is_refusal(why: &str) -> bool {
    ["503", "408"].iter().any(|status| why.starts_with(&format!("not upgraded: HTTP/1.1 {status}")))
}

/// Reads what a server sends: the response head, then frames. Says what is wrong with anything that a server must not
/// send.
#[derive(Debug)]
pub struct Reader {
    key: String,
    bytes: Vec<u8>,
    upgraded: bool,
    /// What was offered, and what came of it.
    offer: Option<&'static str>,
    pub compression: Option<Compression>,
    /// A message of which fragments came, and whether it is compressed.
    partial: Option<Message>,
    is_compressed: bool,
    closed: bool,
    /// The reason in its Close frame.
    close_reason: String,
}

impl Reader {
    pub fn new(key: &str) -> Reader {
        Reader::offering(key, None)
    }

    pub fn offering(key: &str, offer: Option<&'static str>) -> Reader {
        Reader {
            key: key.to_owned(),
            bytes: Vec::new(),
            upgraded: false,
            offer,
            compression: None,
            partial: None,
            is_compressed: false,
            closed: false,
            close_reason: String::new(),
        }
    }

    pub fn is_upgraded(&self) -> bool {
        self.upgraded
    }

    /// Reads the answer to the handshake, if all of it is there: whether it is.
    pub fn open(&mut self) -> Result<bool, String> {
        if self.upgraded { Ok(true) } else { self.head() }
    }

    /// Whether the message that came last was compressed.
    pub fn was_compressed(&self) -> bool {
        self.is_compressed
    }

    /// The reason that came in its Close frame.
    pub fn close_reason(&self) -> &str {
        &self.close_reason
    }

    pub fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// Bytes that are not part of anything whole.
    pub fn is_within_something(&self) -> bool {
        !self.bytes.is_empty() || self.partial.is_some()
    }

    /// The next whole thing. `Err`: the server broke the protocol.
    pub fn next(&mut self) -> Result<Option<Event>, String> {
        if !self.upgraded && !self.head()? {
            return Ok(None);
        }
        while let Some((first, payload)) = self.take_frame()? {
            if let Some(event) = self.event(first, payload)? {
                return Ok(Some(event));
            }
        }
        Ok(None)
    }

    fn head(&mut self) -> Result<bool, String> {
        let Some(end) = self.bytes.windows(4).position(|window| window == b"\r\n\r\n") else {
            return Ok(false);
        };
        let head: Vec<u8> = self.bytes.drain(..end + 4).collect();
        let head = String::from_utf8(head).map_err(|_| "a response head that is not text")?;
        if !head.starts_with("HTTP/1.1 101 ") {
            return Err(format!("not upgraded: {}", head.lines().next().unwrap_or_default()));
        }
        let field = |wanted: &str| {
            head.lines().find_map(|line| {
                let (name, value) = line.split_once(':')?;
                name.eq_ignore_ascii_case(wanted).then(|| value.trim().to_owned())
            })
        };
        let accept = field("sec-websocket-accept");
        let expected = tungstenite::handshake::derive_accept_key(self.key.as_bytes());
        if accept.as_deref() != Some(&expected) {
            return Err(format!("Sec-WebSocket-Accept is {accept:?}, not {expected}"));
        }
        if let Some(answer) = field("sec-websocket-extensions") {
            let offer = self.offer.ok_or_else(|| format!("{answer:?}, and nothing was offered"))?;
            self.compression = Some(Compression::new(&answer, offer)?);
        }
        self.upgraded = true;
        Ok(true)
    }

    fn take_frame(&mut self) -> Result<Option<(u8, Vec<u8>)>, String> {
        let bytes = &self.bytes;
        let (Some(&first), Some(&second)) = (bytes.first(), bytes.get(1)) else { return Ok(None) };
        if self.closed {
            return Err("bytes after the Close frame".to_owned());
        }
        if second & 0x80 != 0 {
            return Err("RFC 6455 5.1: a server must not mask".to_owned());
        }
        let extended = |n: usize| -> Option<u64> {
            let bytes = bytes.get(2..2 + n)?;
            Some(bytes.iter().fold(0, |sum, &byte| sum << 8 | u64::from(byte)))
        };
        let (start, len, least) = match second {
            126 => (4, extended(2), 126),
            127 => (10, extended(8), 0x1_0000),
            n => (2, Some(u64::from(n)), 0),
        };
        let Some(len) = len else { return Ok(None) };
        if len < least {
            return Err(format!("RFC 6455 5.2: length {len} is not in its shortest form"));
        }
        let end = start + usize::try_from(len).map_err(|_| "a length beyond reason")?;
        if self.bytes.len() < end {
            return Ok(None);
        }
        let payload = self.bytes.drain(..end).skip(start).collect();
        Ok(Some((first, payload)))
    }

    fn event(&mut self, first: u8, payload: Vec<u8>) -> Result<Option<Event>, String> {
        let (fin, opcode) = (first & 0x80 != 0, first & 0x0f);
        // RFC 7692 6: RSV1 says so in the first frame of a message, and nowhere else.
        let may_be_compressed = self.compression.is_some() && matches!(opcode, TEXT | BINARY);
        if first & if may_be_compressed { 0x30 } else { 0x70 } != 0 {
            return Err(format!("RFC 6455 5.2: reserved bits are set: {first:#x}"));
        }
        if opcode >= 8 && (!fin || payload.len() > CONTROL_BYTES_MAX) {
            return Err("RFC 6455 5.5: a control frame is fragmented or long".to_owned());
        }
        match opcode {
            TEXT | BINARY if self.partial.is_some() => return Err("a message within a fragmented message".to_owned()),
            TEXT | BINARY => {
                self.is_compressed = first & 0x40 != 0;
                self.partial = Some(Message { opcode, payload });
            }
            0 => match &mut self.partial {
                Some(partial) => partial.payload.extend(payload),
                None => return Err("a continuation of nothing".to_owned()),
            },
            CLOSE => {
                self.closed = true;
                return match payload.as_slice() {
                    [] => Ok(Some(Event::Close(None))),
                    [_] => Err("RFC 6455 5.5.1: a Close with half a code".to_owned()),
                    [a, b, reason @ ..] => {
                        let reason = String::from_utf8(reason.to_vec());
                        self.close_reason = reason.map_err(|_| "RFC 6455 5.5.1: a Close reason that is not UTF-8")?;
                        Ok(Some(Event::Close(Some(u16::from_be_bytes([*a, *b])))))
                    }
                };
            }
            PING => return Ok(Some(Event::Ping(payload))),
            PONG => return Ok(Some(Event::Pong(payload))),
            _ => return Err(format!("RFC 6455 5.2: opcode {opcode} is reserved")),
        }
        let Some(mut message) = (if fin { self.partial.take() } else { None }) else { return Ok(None) };
        if let Some(compression) = self.compression.as_mut().filter(|_| self.is_compressed) {
            message.payload = compression.inflate(&message.payload)?;
        }
        if message.opcode == TEXT && std::str::from_utf8(&message.payload).is_err() {
            return Err("RFC 6455 5.6: a text message that is not UTF-8".to_owned());
        }
        Ok(Some(Event::Message(message)))
    }
}

#[test]
fn reader_refuses_what_a_server_must_not_send() {
    let cases: &[(&[u8], &str)] = &[
        (&[0x81, 0x81, 0, 0, 0, 0, 0], "mask"),
        (&[0xc1, 0], "reserved bits"),
        (&[0x83, 0], "opcode 3"),
        (&[0x08, 0], "control frame"),
        (&[0x81, 126, 0, 5], "shortest form"),
        (&[0x80, 0], "continuation of nothing"),
        (&[0x01, 0, 0x81, 0], "within a fragmented"),
        (&[0x81, 1, 0xff], "UTF-8"),
        (&[0x88, 1, 3], "half a code"),
        (&[0x88, 3, 3, 232, 0xff], "reason that is not UTF-8"),
        (&[0x88, 0, 0x81, 0], "after the Close"),
    ];
    for (bytes, complaint) in cases {
        let mut reader = Reader { upgraded: true, ..Reader::new("key") };
        reader.push(bytes);
        let why = loop {
            match reader.next() {
                Ok(Some(_)) => {}
                Ok(None) => panic!("{bytes:?} was accepted"),
                Err(why) => break why,
            }
        };
        assert!(why.contains(complaint), "{bytes:?}: {why}");
    }
}

#[test]
fn pongs_answer_pings_in_order_and_once() {
    let (mut pings, mut rng, mut out) = (Pings::default(), Rng::new(1), Vec::new());
    (0..4).for_each(|_| pings.ping(&mut out, &mut rng));
    let sent: Vec<Vec<u8>> = pings.due.iter().cloned().collect();
    assert!(pings.pong(b"something else").is_err());
    assert_eq!(pings.pong(&sent[1]), Ok(()), "the first is answered with the second");
    assert!(pings.pong(&sent[0]).is_err() && pings.pong(&sent[1]).is_err());
    assert_eq!((pings.pong(&sent[3]), pings.unanswered()), (Ok(()), 0));
}
