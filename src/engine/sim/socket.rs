//! One TCP connection between a simulated client and a core, as both ends see it.

use std::collections::VecDeque;

use crate::engine::Peer;

use super::options::Mutant;
use super::rng::Rng;

/// Bytes under way in one direction: the sender's and the receiver's socket buffers taken together.
#[derive(Debug)]
pub(super) struct Pipe {
    pub(super) bytes: VecDeque<u8>,
    pub(super) bytes_max: usize,
    /// No more bytes follow those that are there.
    pub(super) fin: bool,
}

impl Pipe {
    fn new(bytes_max: usize) -> Pipe {
        Pipe { bytes: VecDeque::new(), bytes_max, fin: false }
    }

    pub(super) fn room(&self) -> usize {
        self.bytes_max.saturating_sub(self.bytes.len())
    }
}

/// What a receive of the server would find.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Readable {
    Nothing,
    Data(usize),
    End,
    Error,
}

#[derive(Debug)]
pub(super) struct Socket {
    pub(super) peer: Peer,
    /// Accepted by the core, or connected to by it.
    pub(super) accepted: bool,
    /// The core that has accepted it.
    pub(super) accepted_by: Option<usize>,
    /// Where the core is who connects: what it was told, if it was.
    pub(super) answer: Option<Result<(), i32>>,
    /// Client to server.
    pub(super) inbound: Pipe,
    /// Server to client.
    pub(super) outbound: Pipe,
    /// What the client wrote and its socket did not take yet.
    pub(super) unsent: VecDeque<u8>,
    /// The client will write no more; its FIN follows `unsent`.
    pub(super) client_done: bool,
    pub(super) client_closed: bool,
    /// The client sees a reset once it has read what is in `outbound`.
    pub(super) client_reset: bool,
    /// A fault or a refusal broke the connection, not what either end did with it.
    pub(super) was_broken: bool,
    /// The server's descriptor and all operations on it are gone.
    pub(super) released: bool,
    /// The server's end is dead; `error` is reported once, to whichever operation comes first.
    broken: bool,
    error: Option<i32>,
    /// Bytes that the mutant [`Mutant::ReorderSends`] keeps back.
    kept_back: Option<Vec<u8>>,
}

impl Socket {
    pub(super) fn new(peer: Peer, bytes_max: usize) -> Socket {
        Socket {
            peer,
            accepted: false,
            accepted_by: None,
            answer: None,
            inbound: Pipe::new(bytes_max),
            outbound: Pipe::new(bytes_max),
            unsent: VecDeque::new(),
            client_done: false,
            client_closed: false,
            client_reset: false,
            was_broken: false,
            released: false,
            broken: false,
            error: None,
            kept_back: None,
        }
    }

    pub(super) fn readable(&self) -> Readable {
        // As in the kernel, what was received before an error is read before the error shows.
        match self.inbound.bytes.len() {
            0 if self.error.is_some() => Readable::Error,
            0 if self.inbound.fin || self.broken => Readable::End,
            0 => Readable::Nothing,
            n => Readable::Data(n),
        }
    }

    /// Whether a send of the server would get anywhere, be it into an error.
    pub(super) fn writable(&self) -> bool {
        self.broken || self.error.is_some() || self.client_closed || self.outbound.room() > 0
    }

    /// Whether the client can know that the server has closed the connection.
    pub(super) fn has_ended(&self) -> bool {
        self.outbound.fin || self.client_reset || self.client_closed || self.was_broken
    }

    pub(super) fn take_error(&mut self) -> Option<i32> {
        self.error.take()
    }

    /// Moves received bytes into `into`, and what the client still had to send after them.
    pub(super) fn take(&mut self, into: &mut [u8]) {
        let len = into.len();
        let received = self.inbound.bytes.drain(..len);
        into.iter_mut().zip(received).for_each(|(byte, received)| *byte = received);
        self.push_unsent();
    }

    /// A send of the server: how many bytes the socket took, 0 if it was full.
    pub(super) fn write(&mut self, bytes: &[u8], mutant: Option<Mutant>, rng: &mut Rng) -> Result<usize, i32> {
        if let Some(error) = self.error.take() {
            return Err(error);
        }
        if self.broken {
            return Err(libc::EPIPE);
        }
        if self.client_closed {
            // The bytes leave, and the answer to them is a reset.
            self.broken = true;
            self.error = Some(libc::EPIPE);
            return Ok(bytes.len());
        }
        let n = bytes.len().min(self.outbound.room());
        if n > 0 {
            self.put(&bytes[..n], mutant, rng);
        }
        Ok(n)
    }

    fn put(&mut self, bytes: &[u8], mutant: Option<Mutant>, rng: &mut Rng) {
        let victim = rng.chance(if mutant.is_some() { 0.1 } else { 0.0 }).then(|| rng.between(0, bytes.len() - 1));
        let before = self.kept_back.take();
        match (mutant, victim) {
            (Some(Mutant::LoseByte), Some(i)) => {
                self.outbound.bytes.extend(&bytes[..i]);
                self.outbound.bytes.extend(&bytes[i + 1..]);
            }
            (Some(Mutant::DuplicateByte), Some(i)) => {
                self.outbound.bytes.extend(&bytes[..=i]);
                self.outbound.bytes.extend(&bytes[i..]);
            }
            (Some(Mutant::ReorderSends), Some(_)) if before.is_none() => self.kept_back = Some(bytes.to_vec()),
            _ => self.outbound.bytes.extend(bytes),
        }
        self.outbound.bytes.extend(before.into_iter().flatten());
    }

    /// The server's descriptor is closed and nothing holds it any more.
    pub(super) fn release(&mut self, mutant: Option<Mutant>, discard: bool) {
        self.released = true;
        self.outbound.bytes.extend(self.kept_back.take().into_iter().flatten());
        // RFC 9293 3.6.1, as TCP stacks have it: closing with data unread, or getting data after that, is a reset.
        if !self.inbound.bytes.is_empty() || !self.unsent.is_empty() {
            self.inbound.bytes.clear();
            self.unsent.clear();
            self.client_reset = true;
            if discard {
                self.outbound.bytes.clear();
            }
        } else if mutant != Some(Mutant::ForgetFin) {
            self.outbound.fin = true;
        }
    }

    /// The connection breaks under both ends.
    pub(super) fn break_both(&mut self) {
        self.break_with(libc::ECONNRESET);
    }

    /// The connection breaks under both ends; the server's next operation fails with `error`.
    pub(super) fn break_with(&mut self, error: i32) {
        self.was_broken = true;
        self.break_server(error);
        self.client_reset = true;
    }

    fn break_server(&mut self, error: i32) {
        if !self.broken {
            self.broken = true;
            self.error = Some(error);
        }
        self.unsent.clear();
    }

    /// Puts an error back that is another operation's to report.
    pub(super) fn report_later(&mut self, error: i32) {
        self.error = Some(error);
    }

    pub(super) fn client_send(&mut self, bytes: &[u8]) {
        assert!(!self.client_done, "a client sends after it said that it would not");
        if self.released && !bytes.is_empty() {
            self.client_reset = true;
        }
        if self.released || self.broken {
            return;
        }
        self.unsent.extend(bytes);
        self.push_unsent();
    }

    pub(super) fn client_done(&mut self) {
        self.client_done = true;
        self.push_unsent();
    }

    pub(super) fn client_close(&mut self) {
        if self.client_closed {
            return;
        }
        self.client_closed = true;
        self.client_done = true;
        if self.outbound.bytes.is_empty() {
            self.push_unsent();
        } else {
            // Closing with data unread is a reset.
            self.break_server(libc::ECONNRESET);
            self.outbound.bytes.clear();
        }
    }

    pub(super) fn client_reset(&mut self) {
        self.client_closed = true;
        self.client_done = true;
        self.outbound.bytes.clear();
        self.break_server(libc::ECONNRESET);
    }

    pub(super) fn client_read(&mut self, n: usize) -> Vec<u8> {
        let n = n.min(self.outbound.bytes.len());
        self.outbound.bytes.drain(..n).collect()
    }

    /// Moves what the client wrote into the socket, as far as there is room; then its FIN.
    pub(super) fn push_unsent(&mut self) {
        if self.released || self.broken {
            return;
        }
        let n = self.unsent.len().min(self.inbound.room());
        self.inbound.bytes.extend(self.unsent.drain(..n));
        self.inbound.fin = self.client_done && self.unsent.is_empty();
    }
}
