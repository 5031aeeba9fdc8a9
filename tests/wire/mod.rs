//! What the protocol tests share: frames as a peer writes them, and a run of the machine over pieces of a stream.

// Each test program uses a part of it.
#![allow(dead_code, unreachable_pub)]

pub mod oracle;

use ringwire::proto::{Event, Incoming, Kind, Limits, Machine, Opcode, Payload, ProtocolError, Role, Spares};

pub const KEY: [u8; 4] = [0x37, 0xFA, 0x21, 0x3D];

pub const LIMITS: Limits = Limits { message_bytes_max: 1 << 20, fragments_max: 1000 };

/// A client's frame: `first` is the whole first byte.
pub fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut out = vec![first];
    put_len(&mut out, payload.len(), 0x80);
    out.extend_from_slice(&KEY);
    out.extend(payload.iter().enumerate().map(|(i, byte)| byte ^ KEY[i % 4]));
    out
}

/// A server's frame: not masked.
pub fn server_frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut out = vec![first];
    put_len(&mut out, payload.len(), 0);
    out.extend_from_slice(payload);
    out
}

fn put_len(out: &mut Vec<u8>, len: usize, mask: u8) {
    match len {
        0..126 => out.push(mask | len as u8),
        126..0x1_0000 => {
            out.push(mask | 126);
            out.extend_from_slice(&(len as u16).to_be_bytes());
        }
        _ => {
            out.push(mask | 127);
            out.extend_from_slice(&(len as u64).to_be_bytes());
        }
    }
}

/// A Close frame's payload.
pub fn close(code: u16, reason: &[u8]) -> Vec<u8> {
    [&code.to_be_bytes(), reason].concat()
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seen {
    Text(Vec<u8>),
    Binary(Vec<u8>),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    Close(Option<u16>, String),
    Failed(ProtocolError),
}

pub fn text(payload: impl AsRef<[u8]>) -> Seen {
    Seen::Text(payload.as_ref().to_vec())
}

pub fn binary(payload: impl AsRef<[u8]>) -> Seen {
    Seen::Binary(payload.as_ref().to_vec())
}

pub type Sent = (Opcode, Vec<u8>);

/// All that a run showed.
#[derive(Debug, PartialEq, Eq)]
pub struct Run {
    pub seen: Vec<Seen>,
    pub sent: Vec<Sent>,
    pub is_open: bool,
    pub is_done: bool,
    pub failed: bool,
    pub close_received: bool,
}

impl Run {
    /// The code of the Close frame sent; `Some(None)` for an empty one.
    pub fn close_code(&self) -> Option<Option<u16>> {
        let mut closes = self.sent.iter().filter(|sent| sent.0 == Opcode::Close);
        let close = closes.next()?;
        assert!(closes.next().is_none(), "two Close frames: {:?}", self.sent);
        Some(close.1.first_chunk().map(|code| u16::from_be_bytes(*code)))
    }
}

/// A machine and everything it said.
pub struct Peer {
    pub machine: Machine,
    pub spares: Spares,
    pub limits: Limits,
    pub seen: Vec<Seen>,
    pub sent: Vec<Sent>,
    /// Lend from so many bytes to come.
    pub lend: Option<usize>,
}

impl Peer {
    pub fn new(role: Role, limits: Limits) -> Self {
        Self {
            machine: Machine::new(role),
            spares: Spares::new(1 << 22),
            limits,
            seen: Vec::new(),
            sent: Vec::new(),
            lend: None,
        }
    }

    /// Receives one piece: into the lent buffer as far as one is lent, else as an input.
    pub fn receive(&mut self, piece: &[u8]) {
        let mut piece = piece;
        while let Some(lent) = self.lend.and_then(|least| self.machine.lend(least, &mut self.spares)) {
            let mut buffer = lent.buffer;
            let room = buffer.capacity() - buffer.len();
            assert!(room > 0 && lent.len_max > 0);
            let n = room.min(lent.len_max).min(piece.len());
            buffer.extend_from_slice(&piece[..n]);
            piece = &piece[n..];
            let sent = &mut self.sent;
            let mut replies = |opcode, payload: &[u8]| sent.push((opcode, payload.to_vec()));
            let event = self.machine.give_back(buffer, n, &self.limits, &mut self.spares, &mut replies);
            self.seen.extend(event.map(|event| seen(event, &mut self.spares)));
            if piece.is_empty() {
                return;
            }
        }
        let mut input = piece.to_vec();
        let mut consumed = 0;
        let sent = &mut self.sent;
        let mut replies = |opcode, payload: &[u8]| sent.push((opcode, payload.to_vec()));
        while let Some(event) =
            self.machine.next(&mut input, &mut consumed, &self.limits, &mut self.spares, &mut replies)
        {
            // They are lent to `next` only.
            let event = match event {
                Event::Message(Incoming { kind, payload: Payload::Owned(owned), .. }) => {
                    let bytes = owned.as_slice().to_vec();
                    self.spares.give(owned.into_parts().0);
                    message(kind, bytes)
                }
                other => seen(other, &mut self.spares),
            };
            self.seen.push(event);
        }
        assert_eq!(consumed, piece.len(), "all input is consumed");
    }

    pub fn close(&mut self, code: Option<u16>, reason: &str) -> bool {
        let sent = &mut self.sent;
        let mut replies = |opcode, payload: &[u8]| sent.push((opcode, payload.to_vec()));
        self.machine.close(code, reason, &mut replies)
    }

    pub fn finish(self) -> Run {
        Run {
            is_open: self.machine.is_open(),
            is_done: self.machine.is_done(),
            failed: self.machine.failed(),
            close_received: self.machine.close_received(),
            seen: self.seen,
            sent: self.sent,
        }
    }
}

fn seen(event: Event<'_>, spares: &mut Spares) -> Seen {
    match event {
        Event::Message(Incoming { kind, payload, .. }) => {
            let bytes = payload.as_slice().to_vec();
            if let Payload::Owned(owned) = payload {
                spares.give(owned.into_parts().0);
            }
            message(kind, bytes)
        }
        Event::Ping(payload) => Seen::Ping(payload.to_vec()),
        Event::Pong(payload) => Seen::Pong(payload.to_vec()),
        Event::Close { code, reason } => Seen::Close(code, reason.to_owned()),
        Event::Failed(error) => Seen::Failed(error),
    }
}

fn message(kind: Kind, bytes: Vec<u8>) -> Seen {
    match kind {
        Kind::Text => Seen::Text(bytes),
        Kind::Binary => Seen::Binary(bytes),
    }
}

/// A server's machine over the pieces of a stream.
pub fn run(pieces: &[&[u8]]) -> Run {
    run_with(Role::Server, LIMITS, None, pieces)
}

pub fn run_with(role: Role, limits: Limits, lend: Option<usize>, pieces: &[&[u8]]) -> Run {
    let mut peer = Peer::new(role, limits);
    peer.lend = lend;
    for piece in pieces {
        peer.receive(piece);
    }
    peer.finish()
}
