//! What the fake kernel does with a core's operations: submission, progress, and when there is progress to make.

use std::net::SocketAddr;

use crate::engine::{BatchSend, Completion, Nanos, Op, Peer, Token};

use super::faults::Fault;
use super::net::Net;
use super::ops::{Cancelled, Closed, ConnectOp, Hold, RecvIntoOp, RecvOp, SendOp, due};
use super::options::{Mutant, WINDOW_BYTES};
use super::rules::{Core, Queued, Slot};
use super::socket::{Readable, Socket};

/// Turns in which a closed socket may be late.
const LATE_TURNS_MAX: u32 = 16;
/// How many times a receive is retried in one turn, as in the kernel, before other sockets come first.
const ROUNDS_MAX: usize = 32;

/// Breaks a connection in the middle of something, where chance wants it so.
fn break_by_chance(socket: usize, net: &mut Net) {
    if net.hit(Fault::Reset) {
        net.sockets[socket].break_both();
    }
    if net.hit(Fault::TimedOut) {
        let errno = net.rng.pick(&[libc::ETIMEDOUT, libc::EHOSTUNREACH]);
        net.sockets[socket].break_with(errno);
    }
}

impl Slot {
    /// Whether an operation holds its socket.
    fn is_held(&self) -> bool {
        self.oldest().is_some()
    }

    /// The place of its oldest operation among those of the ring.
    fn oldest(&self) -> Option<u64> {
        let numbers = [
            self.connect_op.as_ref().map(|op| op.number),
            self.recv_op.as_ref().map(|op| op.number),
            self.recv_into_op.as_ref().map(|op| op.number),
            self.send_op.as_ref().map(|op| op.number),
        ];
        numbers.into_iter().flatten().min()
    }
}

impl Core {
    /// Submits what is queued.
    pub(super) fn execute(&mut self, net: &mut Net) {
        while let Some(queued) = self.queue.pop_front() {
            self.submitted += 1;
            let number = self.submitted;
            match queued {
                Queued::Accept { listener, token } => self.execute_accept(listener as usize, token, net),
                Queued::StopAccepting { listener } => self.execute_stop_accepting(listener as usize, net),
                Queued::Connect { token, address } => self.execute_connect(token, number, address, net),
                Queued::Recv { token, bytes_max } => {
                    let left = if bytes_max == 0 { usize::MAX } else { bytes_max as usize };
                    let op = RecvOp { token, number, left, hold: Hold::default(), cancelled: None };
                    self.slot(token).recv_op = Some(op);
                    self.live.insert(token.index());
                }
                Queued::RecvInto { token, buffer, len_max, waits } => {
                    let (hold, cancelled) = (Hold::default(), None);
                    let op = RecvIntoOp { token, number, buffer, len_max, waits, hold, cancelled };
                    self.slot(token).recv_into_op = Some(op);
                    self.live.insert(token.index());
                }
                Queued::Send { token, data } => {
                    let mut hold = Hold { asked: true, until: 0 };
                    if net.hit(Fault::DelayedSend) {
                        hold.until = net.later();
                    }
                    self.slot(token).send_op = Some(SendOp { token, number, data, sent: 0, hold, cancelled: None });
                    self.live.insert(token.index());
                }
                Queued::Cancel(token) => self.execute_cancel(token, false, net),
                Queued::CancelRecv(token) => self.execute_cancel(token, true, net),
                Queued::Close(token) => {
                    let slot = self.slot(token);
                    slot.descriptor_open = false;
                    slot.closed_number = number;
                    if let Some(socket) = slot.socket {
                        self.closed.push_back(Closed { socket, number, at: net.now, late_turns: 0 });
                    }
                    self.post(token, Ok(0));
                    self.release_if_unheld(token.index(), net);
                }
                Queued::Doorbell(core) => self.rung.push(core),
            }
        }
    }

    fn execute_connect(&mut self, token: Token, number: u64, address: Option<SocketAddr>, net: &mut Net) {
        let socket = net.sockets.len();
        net.sockets.push(Socket::new(address.map_or(Peer::Unix, Peer::Inet), WINDOW_BYTES));
        net.dialled.push_back((socket, address));
        self.install(token, socket, net);
        self.slot(token).connect_op = Some(ConnectOp { token, number, hold: Hold::default(), cancelled: None });
        self.live.insert(token.index());
    }

    /// The cancellation itself posts nothing: what it ended does.
    fn execute_cancel(&mut self, token: Token, only_recv: bool, net: &mut Net) {
        let slot = self.slot(token);
        let ops = [
            slot.connect_op.as_mut().filter(|_| !only_recv).map(|op| &mut op.cancelled),
            slot.recv_op.as_mut().map(|op| &mut op.cancelled),
            slot.recv_into_op.as_mut().filter(|_| !only_recv).map(|op| &mut op.cancelled),
            slot.send_op.as_mut().filter(|_| !only_recv).map(|op| &mut op.cancelled),
        ];
        for cancelled in ops.into_iter().flatten().filter(|cancelled| cancelled.is_none()) {
            let late = net.hit(Fault::LateAfterCancel);
            let at = if late { net.later() } else { net.now };
            *cancelled = Some(Cancelled { at, works: late && net.rng.chance(0.5) });
        }
    }

    /// Tries one send of the batch, once.
    pub(super) fn send_now(&mut self, send: &BatchSend<'_>, net: &mut Net) {
        let bytes = self.check_batch(send);
        let mutant = self.options.mutant;
        let socket = self.slot(send.token).socket.expect("an open slot has a socket");
        break_by_chance(socket, net);
        if net.hit(Fault::SendNoMemory) {
            let errno = net.rng.pick(&[libc::ENOMEM, libc::ENOBUFS]);
            net.sockets[socket].break_with(errno);
        }
        let mut len = bytes.len();
        if net.hit(Fault::SpuriousEagain) {
            len = 0;
        } else if len > 1 && net.hit(Fault::ShortSend) {
            len = net.rng.between(1, len - 1);
        }
        let result = match net.sockets[socket].write(&bytes[..len], mutant, &mut net.rng) {
            Ok(0) => Err(libc::EAGAIN),
            Ok(n) => Ok(n),
            Err(errno) => Err(errno),
        };
        net.record(result.map_or_else(|errno| 1 << 32 | errno as u64, |n| n as u64));
        if result != Ok(bytes.len()) {
            self.await_batch_result(send.token);
            self.post(send.token, result.map(|n| n as u32));
        }
    }

    /// Lets everything that is due happen.
    pub(super) fn progress(&mut self, net: &mut Net, memory: &mut [u8]) {
        self.ring_doorbells(net);
        self.accept_pending(net);
        self.squeeze_buffers(net);
        let mut order: Vec<u32> = self.live.iter().copied().collect();
        if order.len() > 1 && net.hit(Fault::Reordered) {
            net.rng.shuffle(&mut order);
        }
        for index in order {
            self.progress_connect(index, net);
            self.progress_send(index, net);
            for _ in 0..ROUNDS_MAX {
                if !self.progress_recv(index, net, memory) {
                    break;
                }
            }
            self.progress_recv_into(index, net);
            self.release_if_unheld(index, net);
            if !self.slots[index as usize].is_held() {
                self.live.remove(&index);
            }
        }
        self.release_kept(net);
        self.judge_ends(net);
    }

    /// Lets go of the sockets that were kept for operations older than their close, once there are none.
    fn release_kept(&mut self, net: &mut Net) {
        if self.kept.is_empty() {
            return;
        }
        let oldest = self.live.iter().filter_map(|&index| self.slots[index as usize].oldest()).min();
        let mutant = self.options.mutant;
        self.kept.retain(|&(socket, closed)| {
            let is_kept = oldest.is_some_and(|number| number < closed);
            if !is_kept {
                net.sockets[socket].release(mutant, false);
            }
            is_kept
        });
    }

    /// Sees to it that what was closed ends, in its time and after some turns: in a turn everything due happens, but for what
    /// chance holds up once more.
    fn judge_ends(&mut self, net: &mut Net) {
        while let Some(closed) = self.closed.front_mut() {
            if !net.sockets[closed.socket].has_ended() {
                closed.late_turns += u32::from(closed.is_overdue(net));
                if closed.late_turns > LATE_TURNS_MAX {
                    net.unended.get_or_insert_with(|| closed.to_string());
                }
                return;
            }
            self.closed.pop_front();
        }
    }

    /// What was closed, should have ended, and will not by anything that is due.
    pub(super) fn unended(&self, net: &Net) -> Option<String> {
        let late = self.closed.iter().find(|closed| !net.sockets[closed.socket].has_ended())?;
        let is_at_rest = self.queue.is_empty() && self.next_event(net).is_none_or(|at| at > net.now);
        (is_at_rest && late.is_overdue(net)).then(|| late.to_string())
    }

    fn ring_doorbells(&mut self, net: &Net) {
        while self.doorbells.front().is_some_and(|&at| at <= net.now) {
            self.doorbells.pop_front();
            self.post(Token::new(Op::Doorbell, 0, 0), Ok(0));
        }
    }

    pub(super) fn install(&mut self, token: Token, socket: usize, net: &mut Net) {
        let slot = self.slot(token);
        assert!(slot.socket.is_none() && !slot.descriptor_open, "{token:?}: its descriptor is open");
        slot.peer = net.sockets[socket].peer;
        slot.socket = Some(socket);
        slot.descriptor_open = true;
        net.slots_reused += u64::from(!slot.used.is_empty());
        slot.used.insert(slot.generation);
    }

    fn squeeze_buffers(&mut self, net: &mut Net) {
        match self.buffers.squeeze {
            Some((_, until)) if until <= net.now => self.buffers.squeeze = None,
            Some(_) => {}
            None if net.hit(Fault::NoBuffersAll) => {
                self.buffers.squeeze = Some((net.rng.between(1, 3), net.later()));
            }
            None => {}
        }
    }

    fn progress_connect(&mut self, index: u32, net: &mut Net) {
        let slot = &mut self.slots[index as usize];
        let (Some(op), Some(socket)) = (&mut slot.connect_op, slot.socket) else { return };
        let answer = net.sockets[socket].answer;
        let result = match op.cancelled {
            Some(cancelled) if cancelled.at > net.now => return,
            Some(cancelled) => answer.filter(|_| cancelled.works).unwrap_or(Err(libc::ECANCELED)),
            None => match answer {
                Some(answer) if op.hold.passes(net) => answer,
                _ => return,
            },
        };
        let result = match result {
            Ok(()) if net.hit(Fault::ConnectFailed) => {
                Err(net.rng.pick(&[libc::ETIMEDOUT, libc::EHOSTUNREACH, libc::ECONNREFUSED, libc::ECONNRESET]))
            }
            result => result,
        };
        let socket = &mut net.sockets[socket];
        match result {
            Ok(()) => socket.accepted = true,
            Err(errno) => {
                socket.break_with(errno);
                // The connect itself reports it.
                socket.take_error();
            }
        }
        let token = op.token;
        slot.connect_op = None;
        self.post(token, result.map(|()| 0));
    }

    fn progress_send(&mut self, index: u32, net: &mut Net) {
        let mutant = self.options.mutant;
        let slot = &mut self.slots[index as usize];
        let (Some(op), Some(socket)) = (&mut slot.send_op, slot.socket) else { return };
        let rest = op.data.len() - op.sent;
        let mut len = rest;
        if let Some(cancelled) = op.cancelled {
            if cancelled.at > net.now {
                return;
            }
            len = if cancelled.works { net.rng.between(0, rest) } else { 0 };
        } else {
            if !net.sockets[socket].writable() || !op.hold.passes(net) {
                return;
            }
            if net.hit(Fault::BrokenSend) {
                let part = net.rng.between(0, rest - 1);
                op.sent += net.sockets[socket].write(&op.data[op.sent..][..part], mutant, &mut net.rng).unwrap_or(0);
                net.sockets[socket].break_both();
                len = op.data.len() - op.sent;
            } else if rest > 1 && net.hit(Fault::DelayedSend) {
                len = net.rng.between(1, rest - 1);
                op.hold.until = net.later();
            }
        }
        let socket = &mut net.sockets[socket];
        let result = if len > 0 { socket.write(&op.data[op.sent..][..len], mutant, &mut net.rng) } else { Ok(0) };
        op.sent += *result.as_ref().unwrap_or(&0);
        let done = match result {
            _ if op.sent == op.data.len() => Ok(op.sent as u32),
            Err(errno) if op.sent > 0 => {
                socket.report_later(errno);
                Ok(op.sent as u32)
            }
            Err(errno) => Err(errno),
            Ok(_) if op.cancelled.is_none() => return,
            Ok(_) if op.sent > 0 => Ok(op.sent as u32),
            Ok(_) => Err(libc::ECANCELED),
        };
        let token = op.token;
        slot.send_op = None;
        self.post(token, done);
    }

    /// One completion of a multishot receive, if it has one; returns whether it may have another.
    fn progress_recv(&mut self, index: u32, net: &mut Net, memory: &mut [u8]) -> bool {
        let (out, room) = (self.buffers.out_count(), self.buffers.room());
        let full = self.completions.len() >= self.options.cq_entries as usize;
        let slot = &mut self.slots[index as usize];
        let (Some(op), Some(socket)) = (&mut slot.recv_op, slot.socket) else { return false };
        let token = op.token;
        let mut more = true;
        let readable = net.sockets[socket].readable();
        if let Some(cancelled) = op.cancelled {
            if cancelled.at > net.now {
                return false;
            }
            if !cancelled.works || !matches!(readable, Readable::Data(_)) || room == 0 {
                return self.end_recv(index, Err(libc::ECANCELED));
            }
            // Data that was on its way; in its stead or after it, the end.
            op.cancelled = Some(Cancelled { works: false, ..cancelled });
            more = net.rng.chance(0.5);
        } else if readable == Readable::Nothing || !op.hold.passes(net) {
            return false;
        }
        let available = match readable {
            Readable::Data(n) => n,
            Readable::End => return self.end_recv(index, Ok(0)),
            Readable::Error => {
                let errno = net.sockets[socket].take_error().unwrap_or(libc::ECONNRESET);
                return self.end_recv(index, Err(errno));
            }
            Readable::Nothing => return false,
        };
        if op.cancelled.is_none() {
            break_by_chance(socket, net);
            if net.hit(Fault::RecvInterrupted) {
                return self.end_recv(index, Err(libc::EINTR));
            }
            if net.hit(Fault::RecvCancelled) {
                return self.end_recv(index, Err(libc::ECANCELED));
            }
            if room == 0 || (out > 0 && net.hit(Fault::NoBuffersOne)) {
                return self.end_recv(index, Err(libc::ENOBUFS));
            }
        }
        let mut len = available.min(room).min(op.left);
        if len > 1 && net.hit(Fault::SingleByte) {
            len = 1;
        } else if len > 1 && net.hit(Fault::ShortRecv) {
            len = net.rng.between(1, len - 1);
        }
        op.hold = Hold::default();
        op.left -= len;
        let spent = op.left == 0;
        let filled = self.buffers.fill(len);
        let from = &mut net.sockets[socket];
        from.take(&mut memory[self.buffers.range(&filled)]);
        let at_end = from.readable() == Readable::End;
        // The kernel ends a multishot receive whose completion finds the queue full.
        if full || spent || net.hit(Fault::LostMore) || (at_end && net.hit(Fault::EofAfterRearm)) {
            more = false;
        }
        self.post_completion(Completion { token, result: Ok(len as u32), filled: Some(filled), more });
        if !more {
            self.slots[index as usize].recv_op = None;
        }
        more && !net.hit(Fault::Reordered)
    }

    fn end_recv(&mut self, index: u32, result: Result<u32, i32>) -> bool {
        let op = self.slots[index as usize].recv_op.take().expect("an armed receive");
        self.post(op.token, result);
        false
    }

    fn progress_recv_into(&mut self, index: u32, net: &mut Net) {
        let slot = &mut self.slots[index as usize];
        let (Some(op), Some(socket)) = (&mut slot.recv_into_op, slot.socket) else { return };
        let readable = net.sockets[socket].readable();
        let result = if let Some(cancelled) = op.cancelled {
            if cancelled.at > net.now {
                return;
            }
            match readable {
                Readable::Data(n) if cancelled.works => Ok(n),
                _ => Err(libc::ECANCELED),
            }
        } else {
            let nothing = readable == Readable::Nothing || (op.waits && !op.hold.passes(net));
            if nothing && op.waits {
                return;
            }
            match readable {
                _ if net.hit(Fault::RecvIntoInterrupted) => Err(libc::EINTR),
                Readable::Nothing => Err(libc::EAGAIN),
                Readable::Data(n) => Ok(n),
                Readable::Error => Err(net.sockets[socket].take_error().unwrap_or(libc::ECONNRESET)),
                Readable::End => Ok(0),
            }
        };
        let result = result.map(|available| {
            let old = op.buffer.len();
            let mut len = available.min(op.len_max).min(op.buffer.capacity() - old);
            if len > 1 && net.hit(Fault::RecvIntoShort) {
                len = net.rng.between(1, len - 1);
            }
            op.buffer.resize(old + len, 0);
            net.sockets[socket].take(&mut op.buffer[old..]);
            len as u32
        });
        let op = slot.recv_into_op.take().expect("looked at above");
        slot.received = Some(op.buffer);
        self.post(op.token, result);
    }

    /// A socket lives until its descriptor is closed and no operation holds it.
    fn release_if_unheld(&mut self, index: u32, net: &mut Net) {
        let mutant: Option<Mutant> = self.options.mutant;
        let keeps = self.keeps_closed();
        let slot = &mut self.slots[index as usize];
        if let (false, false, Some(socket)) = (slot.is_held(), slot.descriptor_open, slot.socket) {
            slot.socket = None;
            if keeps {
                self.kept.push((socket, slot.closed_number));
                return;
            }
            let discard = net.hit(Fault::ResetDiscards);
            net.sockets[socket].release(mutant, discard);
        }
    }

    /// The earliest time at which this core has a completion, as far as is known now.
    pub(super) fn next_event(&self, net: &Net) -> Option<Nanos> {
        let mut next = if self.completions.is_empty() { None } else { Some(net.now) };
        let mut consider = |at: Option<Nanos>| {
            if let Some(at) = at.map(|at| at.max(net.now)) {
                next = Some(next.map_or(at, |next: Nanos| next.min(at)));
            }
        };
        consider(self.doorbells.front().copied());
        consider(self.next_accepted(net));
        for &index in &self.live {
            let slot = &self.slots[index as usize];
            let Some(socket) = slot.socket.map(|socket| &net.sockets[socket]) else { continue };
            let readable = socket.readable() != Readable::Nothing;
            let answered = socket.answer.is_some();
            consider(slot.connect_op.as_ref().and_then(|op| due(op.hold, op.cancelled, answered)));
            consider(slot.recv_op.as_ref().and_then(|op| due(op.hold, op.cancelled, readable)));
            consider(slot.recv_into_op.as_ref().and_then(|op| due(op.hold, op.cancelled, readable || !op.waits)));
            consider(slot.send_op.as_ref().and_then(|op| due(op.hold, op.cancelled, socket.writable())));
        }
        next
    }

    /// Ends everything: the ring is gone, and the kernel closes what it held.
    pub(super) fn tear_down(&mut self, net: &mut Net) {
        self.gone = true;
        self.live.clear();
        self.close_listeners(net);
        for slot in &mut self.slots {
            if let Some(socket) = slot.socket.take() {
                net.sockets[socket].release(self.options.mutant, false);
            }
        }
        for (socket, _) in self.kept.drain(..) {
            net.sockets[socket].release(self.options.mutant, false);
        }
    }
}
