//! How the closing handshake stands (RFC 6455 7), and what control frames do to it: the state that outlives messages.
//!
//! Invariant: `failed` implies `close_sent`, and `Mode::Open` implies that nothing was sent, received or failed.

use super::event::{Event, Replies, Role};
use super::frame::Opcode;
use super::{ProtocolError, close};

/// How far the machine listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// To everything.
    Open,
    /// Closing or failed: it looks for the peer's Close and skips the rest.
    Skimming,
    /// The peer's Close came, or frames cannot be told apart any more: to nothing.
    Deaf,
}

/// The part of the state that outlives messages.
#[derive(Clone, Copy, Debug)]
pub(super) struct Flow {
    pub(super) role: Role,
    pub(super) mode: Mode,
    pub(super) close_sent: bool,
    pub(super) close_received: bool,
    pub(super) failed: bool,
    /// Messages may be compressed: it was agreed on.
    pub(super) deflates: bool,
}

impl Flow {
    pub(super) fn new(role: Role) -> Self {
        Self { role, mode: Mode::Open, close_sent: false, close_received: false, failed: false, deflates: false }
    }

    /// A complete control frame while open.
    pub(super) fn control<'p>(&mut self, opcode: Opcode, payload: &'p [u8], replies: &mut impl Replies) -> Event<'p> {
        match opcode {
            Opcode::Ping => {
                // RFC 6455 5.5.3: a Pong MUST have the Ping's application data.
                replies.reply(Opcode::Pong, payload);
                Event::Ping(payload)
            }
            Opcode::Pong => Event::Pong(payload),
            _ => {
                self.close_received = true;
                let event = match close::parse(payload) {
                    Ok((code, reason)) => {
                        // RFC 6455 5.5.1: the endpoint MUST answer, and typically echoes the code.
                        if !self.close_sent {
                            self.close_sent = true;
                            replies.reply(Opcode::Close, close::encode(code, "").as_slice());
                        }
                        Event::Close { code, reason }
                    }
                    Err(error) => {
                        self.fail(error, replies);
                        Event::Failed(error)
                    }
                };
                self.mode = Mode::Deaf;
                event
            }
        }
    }

    /// The end of a connection that was closing already: an event, unless it had failed before.
    pub(super) fn end<'p>(&mut self, close: Result<(Option<u16>, &'p str), ProtocolError>) -> Option<Event<'p>> {
        self.mode = Mode::Deaf;
        if self.failed {
            return None;
        }
        Some(match close {
            Ok((code, reason)) => Event::Close { code, reason },
            Err(error) => {
                self.failed = true;
                Event::Failed(error)
            }
        })
    }

    /// Fails the connection (RFC 6455 7.1.7): one Close frame says why, unless one was sent already.
    pub(super) fn fail(&mut self, error: ProtocolError, replies: &mut impl Replies) {
        self.failed = true;
        self.mode = Mode::Skimming;
        if !self.close_sent {
            self.close_sent = true;
            let payload = close::encode(Some(error.close_code()), error.reason());
            replies.reply(Opcode::Close, payload.as_slice());
        }
    }

    pub(super) fn invariants(&self) {
        debug_assert!(!self.failed || self.close_sent);
        let untouched = !(self.close_sent || self.close_received || self.failed);
        debug_assert_eq!(self.mode == Mode::Open, untouched);
    }
}
