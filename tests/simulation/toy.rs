//! A small server that is correct on purpose: it shows that the simulated ring can be served under all faults, and gives
//! the oracles something to judge. It trusts its clients to speak the protocol, and bounds nothing.

use std::cell::RefCell;
use std::collections::{BTreeSet, VecDeque};
use std::rc::Rc;

use bytes::Bytes;
use ringwire::engine::sim::Ring;
use ringwire::engine::{BatchSend, Completion, Op, Pieces, Ring as _, Token, Wait};

use crate::driver::Host;
use crate::oracle::Route;
use crate::wire::{BINARY, CLOSE, PING, PONG, TEXT};

/// Mail between the cores.
#[derive(Clone)]
pub struct Bus {
    mail: Rc<RefCell<Vec<VecDeque<Bytes>>>>,
}

impl Bus {
    pub fn new(cores: usize) -> Bus {
        Bus { mail: Rc::new(RefCell::new(vec![VecDeque::new(); cores])) }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Free,
    Accepting,
    Open,
    /// Close what is open as soon as the outbox is empty.
    Finishing,
    Closing,
}

struct Conn {
    stage: Stage,
    generation: u32,
    receiving: bool,
    sending: bool,
    close_in_flight: bool,
    upgraded: bool,
    inbox: Vec<u8>,
    partial: Option<(u8, Vec<u8>)>,
    outbox: Vec<u8>,
    /// What the send under way tries to send, or the last one did.
    tried: Bytes,
}

impl Conn {
    fn new(generation: u32) -> Conn {
        Conn {
            stage: Stage::Free,
            generation,
            receiving: false,
            sending: false,
            close_in_flight: false,
            upgraded: false,
            inbox: Vec::new(),
            partial: None,
            outbox: Vec::new(),
            tried: Bytes::new(),
        }
    }

    fn is_open(&self) -> bool {
        matches!(self.stage, Stage::Open | Stage::Finishing)
    }
}

/// One core of the toy server.
pub struct Toy {
    ring: Ring,
    core: usize,
    route: Route,
    bus: Bus,
    conns: Vec<Conn>,
    stopping: bool,
    ticks: u64,
}

impl Toy {
    pub fn new(core: usize, ring: Ring, route: Route, bus: Bus) -> Toy {
        let conns = (0..ring.slots()).map(|_| Conn::new(0)).collect();
        Toy { ring, core, route, bus, conns, stopping: false, ticks: 0 }
    }

    fn token(&self, op: Op, slot: usize) -> Token {
        Token::new(op, self.conns[slot].generation, slot as u32)
    }

    fn arm_accepts(&mut self) {
        let mut armed = self.conns.iter().filter(|conn| conn.stage == Stage::Accepting).count();
        for slot in 0..self.conns.len() {
            if self.stopping || armed == 3 {
                return;
            }
            if self.conns[slot].stage == Stage::Free {
                self.conns[slot].stage = Stage::Accepting;
                self.ring.accept(0, self.token(Op::Accept, slot));
                armed += 1;
            }
        }
    }

    /// Receives in either way, by turns.
    fn arm_receives(&mut self) {
        for slot in 0..self.conns.len() {
            let conn = &mut self.conns[slot];
            if !conn.is_open() || conn.receiving {
                continue;
            }
            conn.receiving = true;
            if self.ticks.is_multiple_of(4) {
                self.ring.recv_into(self.token(Op::RecvInto, slot), Vec::with_capacity(300), 200);
            } else {
                self.ring.recv(self.token(Op::Recv, slot));
            }
        }
    }

    fn end(&mut self, slot: usize) {
        let conn = &mut self.conns[slot];
        if !conn.is_open() {
            return;
        }
        conn.stage = Stage::Closing;
        conn.close_in_flight = true;
        conn.outbox.clear();
        self.ring.cancel(self.token(Op::Cancel, slot));
        self.ring.close(self.token(Op::Close, slot));
    }

    fn complete(&mut self, completion: Completion) {
        let Completion { token, result, filled, more } = completion;
        if token.op() == Op::Doorbell {
            return;
        }
        let slot = token.index() as usize;
        let conn = &mut self.conns[slot];
        assert!(token.is_of_generation(conn.generation), "a slot is freed only when nothing of it is in flight");
        match token.op() {
            Op::Accept => conn.stage = if result.is_ok() { Stage::Open } else { Stage::Free },
            Op::Recv => {
                conn.receiving = more;
                if let Some(filled) = filled {
                    let bytes = self.ring.buffer(filled).to_vec();
                    self.ring.recycle(filled);
                    self.received(slot, &bytes);
                } else {
                    self.receive_ended(slot, result);
                }
            }
            Op::RecvInto => {
                conn.receiving = false;
                let bytes = self.ring.take_received(token);
                if bytes.is_empty() { self.receive_ended(slot, result) } else { self.received(slot, &bytes) }
            }
            // A receive that completed before may have ended the connection.
            Op::SendNow if !conn.is_open() => {}
            Op::SendNow => match result {
                Ok(_) | Err(libc::EAGAIN) => {
                    conn.tried = conn.tried.slice(result.unwrap_or(0) as usize..);
                    conn.sending = true;
                    let rest = conn.tried.clone();
                    self.ring.send(self.token(Op::Send, slot), rest);
                }
                Err(_) => self.end(slot),
            },
            Op::Send => {
                conn.sending = false;
                if result.ok() != Some(conn.tried.len() as u32) {
                    self.end(slot);
                }
            }
            Op::Close => conn.close_in_flight = false,
            op => panic!("no completion of {op:?} is due"),
        }
        let conn = &self.conns[slot];
        if conn.stage == Stage::Closing && !conn.receiving && !conn.sending && !conn.close_in_flight {
            self.conns[slot] = Conn::new(conn.generation + 1);
        }
    }

    fn receive_ended(&mut self, slot: usize, result: Result<u32, i32>) {
        // What ends a receive for passing reasons is armed again with the next tick.
        if !matches!(result, Err(libc::ENOBUFS | libc::EINTR | libc::ECANCELED)) {
            self.end(slot);
        }
    }

    fn received(&mut self, slot: usize, bytes: &[u8]) {
        if self.conns[slot].stage != Stage::Open {
            return;
        }
        self.conns[slot].inbox.extend_from_slice(bytes);
        if !self.conns[slot].upgraded && !self.upgrade(slot) {
            return;
        }
        while self.conns[slot].stage == Stage::Open {
            let Some((first, payload)) = take_frame(&mut self.conns[slot].inbox) else { return };
            self.frame(slot, first, payload);
        }
    }

    fn upgrade(&mut self, slot: usize) -> bool {
        let conn = &mut self.conns[slot];
        let Some(end) = conn.inbox.windows(4).position(|window| window == b"\r\n\r\n") else { return false };
        let head: Vec<u8> = conn.inbox.drain(..end + 4).collect();
        let head = String::from_utf8(head).expect("a client's head");
        let key = head.lines().find_map(|line| line.strip_prefix("Sec-WebSocket-Key: ")).expect("a client's key");
        let accept = tungstenite::handshake::derive_accept_key(key.as_bytes());
        let response = format!(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: {accept}\r\n\r\n"
        );
        conn.outbox.extend(response.into_bytes());
        conn.upgraded = true;
        true
    }

    fn frame(&mut self, slot: usize, first: u8, payload: Vec<u8>) {
        let conn = &mut self.conns[slot];
        match first & 0x0f {
            CLOSE => {
                put_frame(&mut conn.outbox, CLOSE, &payload);
                conn.stage = Stage::Finishing;
                return;
            }
            PING => return put_frame(&mut conn.outbox, PONG, &payload),
            PONG => return,
            opcode @ (TEXT | BINARY) => conn.partial = Some((opcode, payload)),
            _ => conn.partial.as_mut().expect("a message to continue").1.extend(payload),
        }
        if first & 0x80 == 0 {
            return;
        }
        let (opcode, payload) = conn.partial.take().expect("a message");
        if self.route == Route::Echo {
            return put_frame(&mut conn.outbox, opcode, &payload);
        }
        let mut encoded = Vec::new();
        put_frame(&mut encoded, opcode, &payload);
        self.spread(&encoded);
        let cores = self.bus.mail.borrow().len();
        for core in (0..cores).filter(|&core| core != self.core) {
            self.bus.mail.borrow_mut()[core].push_back(Bytes::from(encoded.clone()));
            self.ring.ring_doorbell(core);
        }
    }

    fn spread(&mut self, encoded: &[u8]) {
        for conn in self.conns.iter_mut().filter(|conn| conn.upgraded && conn.stage == Stage::Open) {
            conn.outbox.extend_from_slice(encoded);
        }
    }
}

impl Host for Toy {
    fn tick(&mut self) {
        self.ticks += 1;
        let mail = std::mem::take(&mut self.bus.mail.borrow_mut()[self.core]);
        mail.iter().for_each(|encoded| self.spread(encoded));
        self.arm_accepts();
        self.arm_receives();
        let mut batch = BTreeSet::new();
        for slot in 0..self.conns.len() {
            let conn = &mut self.conns[slot];
            if !conn.is_open() || conn.sending {
                continue;
            }
            if !conn.outbox.is_empty() {
                conn.tried = Bytes::from(std::mem::take(&mut conn.outbox));
                batch.insert(slot);
            } else if conn.stage == Stage::Finishing || self.stopping {
                self.end(slot);
            }
        }
        let conns = &self.conns;
        let sends = batch.iter().map(|&slot| BatchSend {
            token: Token::new(Op::SendNow, conns[slot].generation, slot as u32),
            pieces: Pieces::One(&conns[slot].tried),
        });
        // What finished in this batch is closed with the next tick: do not sleep before it.
        let wait = if batch.is_empty() { Wait::Forever } else { Wait::No };
        self.ring.turn(sends, wait).expect("a ring that works");
        while let Some(completion) = self.ring.completion() {
            self.complete(completion);
        }
    }

    fn stop(&mut self) {
        self.stopping = true;
        self.ring.stop_accepting();
    }
}

fn put_frame(out: &mut Vec<u8>, opcode: u8, payload: &[u8]) {
    out.push(0x80 | opcode);
    match payload.len() {
        n @ 0..=125 => out.push(n as u8),
        n @ 126..=0xffff => {
            out.push(126);
            out.extend((n as u16).to_be_bytes());
        }
        n => {
            out.push(127);
            out.extend((n as u64).to_be_bytes());
        }
    }
    out.extend_from_slice(payload);
}

/// Takes one whole masked frame: its first byte and its payload.
fn take_frame(bytes: &mut Vec<u8>) -> Option<(u8, Vec<u8>)> {
    let (&first, &second) = (bytes.first()?, bytes.get(1)?);
    let extended = |n: usize| Some(bytes.get(2..2 + n)?.iter().fold(0, |sum, &byte| sum << 8 | usize::from(byte)));
    let (start, len) = match second & 0x7f {
        126 => (4, extended(2)?),
        127 => (10, extended(8)?),
        n => (2, usize::from(n)),
    };
    let mask: [u8; 4] = bytes.get(start..start + 4)?.try_into().ok()?;
    let end = start + 4 + len;
    if bytes.len() < end {
        return None;
    }
    let masked = bytes.drain(..end).skip(start + 4);
    Some((first, masked.zip(mask.into_iter().cycle()).map(|(byte, mask)| byte ^ mask).collect()))
}
