//! What a connection receives: the handshake's answer, then frames.

use std::io;

use http::{HeaderMap, HeaderName, HeaderValue};

use super::conn::{Conn, Phase, Receiving};
use super::deflate::Compressing;
use super::driver::{Driver, LINGER_NS};
use super::error::ClientError;
use super::line::{Ended, Line, Opened};
use crate::engine::{Completion, Filled, Op, RecvEnd, Ring, Token};
use crate::message::Message;
use crate::proto::frame::Opcode;
use crate::proto::handshake::{ClientHandshake, HandshakeError, check_final_response, interim_len};
use crate::proto::{Event, ProtocolError};

/// Input held back for a paused connection before its receive is cancelled.
const STASH_BYTES_MAX: usize = 64 << 10;

/// What became of received bytes.
pub(super) enum Input {
    /// They were frames.
    Frames(Next),
    /// They are of the handshake's answer, in the stash.
    Answer,
    /// They are in the stash until the user has received.
    HeldBack,
    /// Nobody wants them.
    Ignored,
}

/// What frames led to.
pub(super) enum Next {
    /// More input.
    Go,
    /// The inbox is full; the rest is in the stash.
    Pause,
    /// The server said Close, which is answered.
    Closed,
    /// The server broke the protocol and will be told so.
    Failed(ProtocolError),
}

impl<R: Ring> Driver<R> {
    /// A multishot receive brought data, or ended, or both.
    pub(super) fn received(&mut self, completion: Completion) {
        let end = completion.recv_end();
        if let Some(filled) = completion.filled {
            if let Some(key) = self.conns.owner(completion.token) {
                self.feed(key.slot(), &filled);
            }
            self.ring.recycle(filled);
        }
        if !completion.more {
            self.receive_ended(completion.token, end);
        }
    }

    fn receive_ended(&mut self, token: Token, end: RecvEnd) {
        let Some(slot) = self.landed(token) else { return };
        let conn = &mut self.conns[slot];
        conn.receiving = Receiving::Idle;
        let errno = match end {
            RecvEnd::Interrupted => return self.start_receiving(slot),
            RecvEnd::NoBuffers => return self.starved.push(self.conns.key(slot)),
            RecvEnd::EndOfFile => 0,
            RecvEnd::Failed(errno) => errno,
        };
        conn.finished = Some(errno);
        // What is held back came before the end.
        if !conn.paused {
            self.end_of_input(slot, errno);
        }
    }

    /// The server will send nothing more, and everything it sent has been handled.
    fn end_of_input(&mut self, slot: u32, errno: i32) {
        let conn = &mut self.conns[slot];
        let error = match errno {
            0 => conn.cut_off(),
            errno => io::Error::from_raw_os_error(errno),
        };
        match conn.phase {
            Phase::Refused => return self.refused(slot, true),
            Phase::Closing => conn.set_closed_without_close_frame(),
            Phase::Flushing if errno == 0 => return self.end_if_flushed(slot),
            _ => {}
        }
        self.finish(slot, ClientError::Broken(error));
    }

    fn feed(&mut self, slot: u32, filled: &Filled) {
        let conn = &mut self.conns[slot];
        conn.last_inbound_ns = self.now_ns;
        conn.pinged_ns = None;
        if conn.tls.is_some() {
            return self.feed_sealed(slot, filled);
        }
        let (spares, wakers, messages) = (&mut self.spares, &mut self.wakers, &mut self.messages);
        let input = Worker { conn, spares, wakers, messages }.input(self.ring.buffer(filled));
        self.handled(slot, input);
    }

    /// Goes on by what became of received bytes.
    pub(super) fn handled(&mut self, slot: u32, input: Input) {
        match input {
            Input::Frames(next) => self.after_frames(slot, next),
            Input::Answer => self.answer(slot),
            Input::HeldBack => {
                let conn = &mut self.conns[slot];
                if conn.stash.len() > STASH_BYTES_MAX && conn.receiving == Receiving::Multi {
                    conn.receiving = Receiving::Stopping;
                    self.ring.cancel_recv(self.conns.token(Op::Recv, slot));
                }
            }
            Input::Ignored => {}
        }
    }

    // ---- the handshake's answer -----------------------------------------------------------------------------------

    fn answer(&mut self, slot: u32) {
        let now_ns = self.now_ns;
        let conn = &mut self.conns[slot];
        if conn.phase == Phase::Refused {
            return self.refused(slot, false);
        }
        match check_final_response(&conn.stash, &conn.order.key, conn.order.settings.deflate) {
            Ok(None) => {}
            Ok(Some((handshake, consumed))) => self.opened(slot, handshake, consumed),
            Err(HandshakeError::Status(_)) => {
                let interim = interim_len(&conn.stash).unwrap_or_default();
                conn.stash.drain(..interim);
                conn.phase = Phase::Refused;
                conn.deadline_ns = conn.deadline_ns.min(now_ns + LINGER_NS);
                self.watch_over(slot);
                self.refused(slot, false);
            }
            Err(error) => self.say_last(slot, ClientError::Handshake(error)),
        }
    }

    fn opened(&mut self, slot: u32, handshake: ClientHandshake, consumed: usize) {
        let conn = &mut self.conns[slot];
        let offered: Vec<&str> = conn.order.protocols.iter().map(String::as_str).collect();
        if let Err(error) = handshake.check_protocol(&offered) {
            return self.say_last(slot, ClientError::Handshake(error));
        }
        let mut headers = HeaderMap::with_capacity(handshake.headers.len());
        for (name, value) in handshake.headers {
            if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) {
                headers.append(name, value);
            }
        }
        conn.phase = Phase::Open;
        conn.deadline_ns = u64::MAX;
        conn.opened_ns = Some(self.now_ns);
        let deflate = handshake.deflate.map(|agreed| {
            conn.machine.agree(agreed);
            Compressing::new(agreed, conn.order.settings.deflate_bytes_min)
        });
        let tls = conn.tls.as_ref().and_then(|tls| tls.info.clone());
        conn.line.open(Opened { protocol: handshake.protocol, headers, tls }, deflate, &mut self.wakers);
        let mut rest = std::mem::take(&mut conn.stash).split_off(consumed);
        self.watch_over(slot);
        if !rest.is_empty() {
            self.frames(slot, &mut rest);
        }
    }

    // ---- frames ---------------------------------------------------------------------------------------------------

    fn frames(&mut self, slot: u32, data: &mut [u8]) {
        let conn = &mut self.conns[slot];
        let (spares, wakers, messages) = (&mut self.spares, &mut self.wakers, &mut self.messages);
        let next = Worker { conn, spares, wakers, messages }.frames(data);
        self.after_frames(slot, next);
    }

    fn after_frames(&mut self, slot: u32, next: Next) {
        match next {
            Next::Go => {}
            Next::Pause => {
                self.conns[slot].paused = true;
                return;
            }
            Next::Closed => self.start_flushing(slot),
            Next::Failed(error) => {
                let ended = Ended {
                    code: error.close_code(),
                    reason: error.reason().into(),
                    clean: false,
                    error: Some(ClientError::Protocol(error)),
                };
                self.conns[slot].ended.get_or_insert(ended);
                self.start_flushing(slot);
            }
        }
        // Pongs and Close frames may have been queued.
        if self.conns.is_taken(slot) && self.conns[slot].phase != Phase::Dead {
            self.mark_dirty(slot);
        }
    }

    /// Handles the input that was held back from connections whose users have received.
    pub(super) fn resume(&mut self) {
        for key in std::mem::take(&mut self.resumable) {
            let slot = key.slot();
            let Some(conn) = self.conns.get_mut(key).filter(|conn| conn.paused) else { continue };
            conn.paused = false;
            conn.last_inbound_ns = self.now_ns;
            let mut stash = std::mem::take(&mut conn.stash);
            if matches!(conn.phase, Phase::Open | Phase::Closing) {
                self.frames(slot, &mut stash);
            }
            let Some(conn) = self.conns.get_mut(key) else { continue };
            if conn.paused || conn.phase == Phase::Dead {
                continue;
            }
            let finished = conn.finished;
            match finished {
                _ if self.end_of_session(slot) => {}
                Some(errno) => self.end_of_input(slot, errno),
                None => {
                    self.start_receiving(slot);
                    self.watch_over(slot);
                }
            }
        }
    }
}

/// Reads what one connection has received.
pub(super) struct Worker<'w> {
    pub(super) conn: &'w mut Conn,
    pub(super) spares: &'w mut crate::proto::Spares,
    pub(super) wakers: &'w mut Vec<std::task::Waker>,
    pub(super) messages: &'w mut Vec<crate::message::OwnedMessage>,
}

impl Worker<'_> {
    pub(super) fn input(&mut self, data: &mut [u8]) -> Input {
        match self.conn.phase {
            Phase::Open | Phase::Closing if self.conn.paused => {
                self.conn.stash.extend_from_slice(data);
                Input::HeldBack
            }
            Phase::Open | Phase::Closing => Input::Frames(self.frames(data)),
            Phase::Handshaking | Phase::Refused => {
                self.conn.stash.extend_from_slice(data);
                Input::Answer
            }
            _ => Input::Ignored,
        }
    }

    fn frames(&mut self, data: &mut [u8]) -> Next {
        let mut consumed = 0;
        let mut room = self.conn.line.inbox_room();
        let limits = self.conn.order.settings.limits;
        let next = loop {
            if room == 0 && self.conn.machine.is_open() {
                let held = self.conn.line.deliver(self.messages, true, self.wakers);
                if held {
                    self.conn.stash.extend_from_slice(&data[consumed..]);
                    return Next::Pause;
                }
                room = self.conn.line.inbox_room();
                continue;
            }
            let line = &self.conn.line;
            let mut replies = |opcode: Opcode, payload: &[u8]| line.control(opcode, payload);
            let Some(event) = self.conn.machine.next(data, &mut consumed, &limits, self.spares, &mut replies) else {
                break Next::Go;
            };
            match event {
                Event::Message(message) => {
                    let message = Message(message).into_owned();
                    room = room.saturating_sub(Line::cost(&message));
                    self.messages.push(message);
                }
                Event::Ping(_) => {}
                Event::Pong(payload) => line.pong(payload, self.wakers),
                Event::Close { code, reason } => {
                    let ended =
                        Ended { code: code.unwrap_or(1005), reason: reason.to_owned(), clean: true, error: None };
                    self.conn.ended.get_or_insert(ended);
                    break Next::Closed;
                }
                Event::Failed(error) => break Next::Failed(error),
            }
        };
        if !self.messages.is_empty() {
            self.conn.line.deliver(self.messages, false, self.wakers);
        }
        next
    }
}
