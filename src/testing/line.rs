//! One client's end of a connection: what its bytes mean, and what it answers by itself.
//!
//! In come bytes of the simulated socket, when the stage pumps it; out go what a test then finds in the fields, and pongs and
//! the answer to a Close, which need nobody's doing. It never ticks a core and never moves the clock.

use std::collections::VecDeque;
use std::fmt;

use bytes::Bytes;

use super::response::{TestResponse, read};
use super::trace::Trace;
use crate::engine::Nanos;
use crate::engine::sim::{Client, Rng};
use crate::message::OwnedMessage;
use crate::proto::deflate::{Deflater, History, LEVEL, WINDOW_BITS_MIN};
use crate::proto::extensions::Offer;
use crate::proto::handshake::{ClientHandshake, HandshakeError, check_final_response};
use crate::proto::{Event, Inflated, Kind, Limits, Machine, Opcode, ProtocolError, Role, Spares, frame, mask};
use crate::quote::quoted;

/// A client of a test takes whatever it gets.
const LIMITS: Limits = Limits { message_bytes_max: usize::MAX, fragments_max: u32::MAX };
/// How often a slow reader reads.
const SLOW_STEP_NS: Nanos = 1_000_000;

/// What a client waits for.
pub(super) enum Phase {
    /// A response, which has no body if the request was a HEAD.
    Response { has_body: bool },
    /// The answer to a handshake with this key and these protocols.
    Handshake { key: String, offered: Vec<String>, deflate: Option<Offer> },
    /// Frames.
    Open,
}

/// How a connection ended for the client.
#[derive(Clone, Debug)]
pub(super) enum End {
    /// The server closed it.
    Fin,
    /// It broke.
    Reset,
    /// The client went itself.
    Left,
    /// The server sent what it must not.
    Wrong(String),
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            End::Fin => f.write_str("the server closed the connection"),
            End::Reset => f.write_str("the connection was reset"),
            End::Left => f.write_str("the client has left"),
            End::Wrong(why) => write!(f, "the server broke the protocol: {why}"),
        }
    }
}

/// The next thing that a client sees.
pub(super) enum Seen {
    Message(OwnedMessage),
    Close(Option<u16>, String),
    End(End),
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Seen::Message(message) => {
                let kind = if message.is_text() { "text" } else { "binary" };
                write!(f, "{kind} {} came", quoted(message.as_bytes()))
            }
            Seen::Close(Some(code), reason) => write!(f, "Close {code} {} came", quoted(reason)),
            Seen::Close(None, _) => f.write_str("a Close without a code came"),
            Seen::End(end) => end.fmt(f),
        }
    }
}

pub(super) struct Line {
    name: String,
    socket: Client,
    phase: Phase,
    /// Of a response that is not whole.
    head: Vec<u8>,
    machine: Machine,
    spares: Spares,
    /// What it sends with, where compression is agreed on.
    deflate: Option<(Deflater, Option<History>)>,
    rng: Rng,
    pub(super) response: Option<TestResponse>,
    pub(super) handshake: Option<ClientHandshake>,
    pub(super) messages: VecDeque<OwnedMessage>,
    pub(super) pings: VecDeque<Bytes>,
    pub(super) pongs: VecDeque<Bytes>,
    /// The server's Close.
    pub(super) close: Option<(Option<u16>, String)>,
    pub(super) end: Option<End>,
    pub(super) is_paused: bool,
    /// Bytes that it reads in each step, and when it reads again.
    slow: Option<(usize, Nanos)>,
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

impl Line {
    pub(super) fn new(name: String, socket: Client, phase: Phase, rng: Rng) -> Line {
        Line {
            name,
            socket,
            phase,
            head: Vec::new(),
            machine: Machine::new(Role::Client),
            spares: Spares::new(1 << 20),
            deflate: None,
            rng,
            response: None,
            handshake: None,
            messages: VecDeque::new(),
            pings: VecDeque::new(),
            pongs: VecDeque::new(),
            close: None,
            end: None,
            is_paused: false,
            slow: None,
        }
    }

    // ---- what it sends --------------------------------------------------------------------------------------------

    /// Writes bytes as they are. Lost where the connection has ended, as on a real socket.
    pub(super) fn write(&mut self, bytes: &[u8]) {
        if self.end.is_none() {
            self.socket.send(bytes);
        }
    }

    /// Sends a frame, unless a Close was sent before it (RFC 6455 5.5.1).
    pub(super) fn frame(&mut self, opcode: Opcode, fin: bool, payload: &[u8]) {
        if !self.machine.close_sent() {
            self.put(opcode, fin, payload);
        }
    }

    /// Sends a message, compressed where that makes it shorter.
    pub(super) fn message(&mut self, opcode: Opcode, payload: &[u8]) {
        let mut compressed = Vec::new();
        let is_open = !self.machine.close_sent();
        let is_shorter = is_open
            && self
                .deflate
                .as_mut()
                .is_some_and(|(deflater, context)| deflater.compress(payload, context.as_mut(), &mut compressed));
        if is_shorter {
            self.put_as(opcode, true, true, &compressed);
        } else {
            self.frame(opcode, true, payload);
        }
    }

    fn put(&mut self, opcode: Opcode, fin: bool, payload: &[u8]) {
        self.put_as(opcode, fin, false, payload);
    }

    fn put_as(&mut self, opcode: Opcode, fin: bool, rsv1: bool, payload: &[u8]) {
        let mut key = [0; 4];
        self.rng.fill(&mut key);
        let (header, len) = frame::encode_header(opcode, fin, rsv1, payload.len() as u64, Some(key));
        let mut bytes = header[..len].to_vec();
        mask::copy_into(key, 0, payload, &mut bytes);
        self.write(&bytes);
    }

    /// Begins the closing handshake, or answers the server's.
    pub(super) fn close(&mut self, code: Option<u16>, reason: &str) {
        let mut replies = Vec::new();
        self.machine.close(code, reason, &mut |opcode, payload: &[u8]| replies.push((opcode, payload.to_vec())));
        replies.into_iter().for_each(|(opcode, payload)| self.put(opcode, true, &payload));
    }

    /// Closes the socket without a word.
    pub(super) fn leave(&mut self) {
        if self.end.is_none() {
            self.socket.close();
            self.end = Some(End::Left);
        }
    }

    /// Breaks the connection off.
    pub(super) fn reset(&mut self) {
        if self.end.is_none() {
            self.socket.reset();
            self.end = Some(End::Left);
        }
    }

    // ---- what it reads --------------------------------------------------------------------------------------------

    /// Reads so many bytes a second at most; `None`: whatever is there.
    pub(super) fn read_slowly(&mut self, bytes_per_second: Option<usize>, now: Nanos) {
        self.slow = bytes_per_second.map(|bytes| ((bytes / 1000).max(1), now + SLOW_STEP_NS));
    }

    pub(super) fn set_window(&mut self, bytes: usize) {
        self.socket.set_window(bytes);
    }

    /// When it reads again, if time alone makes it.
    pub(super) fn next_due(&self) -> Option<Nanos> {
        self.slow.filter(|_| !self.is_paused && self.end.is_none() && self.socket.readable() > 0).map(|(_, at)| at)
    }

    /// Reads what is there; false if that was nothing.
    pub(super) fn pump(&mut self, now: Nanos, trace: &mut Trace) -> bool {
        if self.is_paused || self.end.is_some() {
            return false;
        }
        let mut bytes = self.take_bytes(now);
        let has_read = !bytes.is_empty();
        if has_read {
            self.read(&mut bytes, now, trace);
        }
        let (fin, reset) = (self.socket.saw_fin(), self.socket.saw_reset());
        if self.end.is_none() && (fin || reset) {
            self.read_end();
            self.end.get_or_insert(if reset { End::Reset } else { End::Fin });
            self.socket.close();
        }
        if let Some(end) = &self.end {
            trace.note(now, &self.name, format_args!("ends: {end}"), &[]);
        }
        has_read || self.end.is_some()
    }

    fn take_bytes(&mut self, now: Nanos) -> Vec<u8> {
        match &mut self.slow {
            None => self.socket.received(),
            Some((_, at)) if *at > now => Vec::new(),
            Some((bytes, at)) => {
                *at = now + SLOW_STEP_NS;
                self.socket.read(*bytes)
            }
        }
    }

    fn read(&mut self, bytes: &mut [u8], now: Nanos, trace: &mut Trace) {
        if matches!(self.phase, Phase::Open) {
            return self.read_frames(bytes, now, trace);
        }
        self.head.extend_from_slice(bytes);
        if let Phase::Handshake { key, offered, deflate } = &self.phase {
            match check_final_response(&self.head, key, *deflate) {
                Ok(None) => return,
                Ok(Some((handshake, len))) => {
                    let offered: Vec<&str> = offered.iter().map(String::as_str).collect();
                    if let Err(error) = handshake.check_protocol(&offered) {
                        self.end = Some(End::Wrong(error.to_string()));
                        return;
                    }
                    trace.note(now, &self.name, format_args!("is open"), &[]);
                    if let Some(agreed) = handshake.deflate {
                        self.machine.agree(agreed);
                        let context = agreed.sends_context(Role::Client).then(|| agreed.sent_window_bits(Role::Client));
                        let context = context.filter(|bits| *bits >= WINDOW_BITS_MIN).map(History::new);
                        self.deflate = Some((Deflater::new(LEVEL), context));
                    }
                    self.handshake = Some(handshake);
                    self.phase = Phase::Open;
                    let mut head = std::mem::take(&mut self.head);
                    return self.read_frames(&mut head[len..], now, trace);
                }
                // A refusal, whose body may be to come.
                Err(HandshakeError::Status(_)) => self.phase = Phase::Response { has_body: true },
                Err(error) => {
                    self.end = Some(End::Wrong(error.to_string()));
                    return;
                }
            }
        }
        self.read_response(false, now, trace);
    }

    fn read_response(&mut self, at_end: bool, now: Nanos, trace: &mut Trace) {
        let Phase::Response { has_body } = self.phase else { return };
        match read(&self.head, has_body, at_end) {
            Ok(None) => {}
            Ok(Some(response)) => {
                trace.note(now, &self.name, format_args!("is answered {}", response.status()), &self.head);
                self.response = Some(response);
            }
            Err(why) => self.end = Some(End::Wrong(why)),
        }
    }

    /// What the end of the connection means for what was not whole.
    fn read_end(&mut self) {
        if self.response.is_none() && !self.head.is_empty() {
            self.read_response(true, 0, &mut Trace::default());
        }
    }

    fn read_frames(&mut self, bytes: &mut [u8], now: Nanos, trace: &mut Trace) {
        let (mut replies, mut consumed) = (Vec::new(), 0);
        let mut queue = |opcode: Opcode, payload: &[u8]| replies.push((opcode, payload.to_vec()));
        let mut failed = None;
        while let Some(event) = self.machine.next(bytes, &mut consumed, &LIMITS, &mut self.spares, &mut queue) {
            match event {
                Event::Message(message) => {
                    let payload = Bytes::copy_from_slice(&message.payload);
                    let kind = if message.kind == Kind::Text { "text" } else { "binary" };
                    trace.note(now, &self.name, format_args!("hears {kind} {}", quoted(&payload)), &payload);
                    self.messages.push_back(match message.kind {
                        Kind::Text => OwnedMessage::text(String::from_utf8_lossy(&payload)),
                        Kind::Binary => OwnedMessage::binary(payload),
                    });
                }
                Event::Ping(payload) => {
                    trace.note(now, &self.name, format_args!("is pinged"), payload);
                    self.pings.push_back(Bytes::copy_from_slice(payload));
                }
                Event::Pong(payload) => {
                    trace.note(now, &self.name, format_args!("hears a pong"), payload);
                    self.pongs.push_back(Bytes::copy_from_slice(payload));
                }
                Event::Close { code, reason } => {
                    let shown = code.unwrap_or(1005);
                    trace.note(now, &self.name, format_args!("is closed with {shown} {}", quoted(reason)), &[]);
                    self.close = Some((code, reason.to_owned()));
                }
                Event::Failed(error) => failed = Some(error),
            }
        }
        replies.into_iter().for_each(|(opcode, payload)| self.put(opcode, true, &payload));
        if let Some(error) = failed {
            self.end = Some(End::Wrong(ProtocolError::to_string(&error)));
        }
    }

    /// What it was sent compressed.
    pub(super) fn inflated(&self) -> Inflated {
        self.spares.inflated()
    }

    /// The next thing that it sees, if there is one.
    pub(super) fn next(&mut self) -> Option<Seen> {
        if let Some(message) = self.messages.pop_front() {
            return Some(Seen::Message(message));
        }
        self.last()
    }

    /// What it sees once all messages are read.
    pub(super) fn last(&self) -> Option<Seen> {
        let close = self.close.clone().map(|(code, reason)| Seen::Close(code, reason));
        close.or_else(|| self.end.clone().map(Seen::End))
    }
}
