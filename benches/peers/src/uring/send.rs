//! Sending: one send per connection and tick, which cannot wait; what it leaves goes in one that waits.

use std::io;

use io_uring::{
    opcode,
    squeue::{self, Flags},
    types::Fixed,
};

use super::{
    io::{Io, OP_SEND_ALL, OP_SEND_NOW, OP_SHIFT},
    pool::Chunk,
};

/// Below the kernel's limit of 1,024 pieces in a vectored send.
const PIECES_MAX: usize = 512;
/// `IORING_SEND_VECTORIZED`: the send's address is an array of iovec (6.17).
const SEND_VECTORIZED: u16 = 1 << 5;
const SEND_NOW: i32 = libc::MSG_DONTWAIT | libc::MSG_WAITALL | libc::MSG_NOSIGNAL;
const SEND_ALL: i32 = libc::MSG_WAITALL | libc::MSG_NOSIGNAL;

impl Io {
    /// Queues received bytes to be sent from where they are.
    pub fn send_chunk(&mut self, conn: u32, chunk: Chunk) {
        self.mark_dirty(conn);
        let held = &mut self.conns[conn as usize].held;
        if let Some(last) = held.last_mut()
            && last.buffer == chunk.buffer
            && last.start.wrapping_add(last.len) == chunk.start
        {
            last.len += chunk.len;
            return self.pool.release(chunk.buffer);
        }
        held.push(chunk);
        if held.len() >= PIECES_MAX || self.pool.is_low() {
            self.fold(conn);
        }
    }

    /// Queues bytes of one's own, behind those before: none of them may have been received chunks.
    pub fn send(&mut self, conn: u32, bytes: &[u8]) {
        self.mark_dirty(conn);
        let state = &mut self.conns[conn as usize];
        debug_assert!(state.held.is_empty());
        state.bytes.extend_from_slice(bytes);
    }

    /// Bytes that every connection passed to [`Io::send_shared`] gets once at the end of the tick.
    pub fn shared(&mut self) -> &mut Vec<u8> {
        &mut self.shared
    }

    /// Queues the tick's shared bytes. Append to them first.
    pub fn send_shared(&mut self, conn: u32) {
        self.mark_dirty(conn);
        let state = &mut self.conns[conn as usize];
        if state.sending_all || !state.bytes.is_empty() {
            state.bytes.extend_from_slice(&self.shared);
        } else {
            state.shared = true;
        }
    }

    /// Gives a chunk's buffer back.
    pub fn recycle(&mut self, chunk: Chunk) {
        self.pool.release(chunk.buffer);
    }

    fn mark_dirty(&mut self, conn: u32) {
        let state = &mut self.conns[conn as usize];
        if !state.dirty {
            state.dirty = true;
            self.dirty.push(conn);
        }
    }

    /// Copies held chunks behind the connection's own bytes and gives their buffers back.
    fn fold(&mut self, conn: u32) {
        let state = &mut self.conns[conn as usize];
        for chunk in state.held.drain(..) {
            state.bytes.extend_from_slice(chunk.bytes());
            self.pool.release(chunk.buffer);
        }
    }

    /// A send that cannot wait sent nothing or only a part: the rest goes in a send that waits.
    pub(super) fn send_now_failed(&mut self, conn: u32, result: i32) {
        let state = &mut self.conns[conn as usize];
        if result < 0 && result != -libc::EAGAIN {
            state.error = -result;
            return self.close(conn);
        }
        let mut done = result.max(0) as usize;
        assert!(done < state.sent_len);
        state.sent_len = 0;
        if state.shared {
            state.shared = false;
            state.bytes.extend_from_slice(&self.shared);
        }
        state.sending_all = true;
        std::mem::swap(&mut state.bytes, &mut state.flight_bytes);
        std::mem::swap(&mut state.held, &mut state.flight_held);
        state.flight_start = done.min(state.flight_bytes.len());
        done -= state.flight_start;
        let mut whole = 0;
        for chunk in &mut state.flight_held {
            let part = done.min(chunk.len);
            chunk.drop_front(part);
            done -= part;
            whole += usize::from(chunk.len == 0);
        }
        for chunk in state.flight_held.drain(..whole) {
            self.pool.release(chunk.buffer);
        }
        if self.pool.is_low() {
            for chunk in state.flight_held.drain(..) {
                state.flight_bytes.extend_from_slice(chunk.bytes());
                self.pool.release(chunk.buffer);
            }
        }
        self.mark_dirty(conn);
    }

    /// Forgets what the last flush sent completely.
    pub(super) fn settle(&mut self) {
        for conn in self.flushed.drain(..) {
            let state = &mut self.conns[conn as usize];
            state.shared = false;
            if state.sent_len == 0 {
                continue;
            }
            state.sent_len = 0;
            state.bytes.clear();
            for chunk in state.held.drain(..) {
                self.pool.release(chunk.buffer);
            }
        }
        self.shared.clear();
    }

    pub(super) fn send_all_done(&mut self, conn: u32, result: i32) {
        let state = &mut self.conns[conn as usize];
        state.sending_all = false;
        state.flight_queued = false;
        let wanted: usize = state.flight_bytes.len() - state.flight_start
            + state.flight_held.iter().map(|chunk| chunk.len).sum::<usize>();
        state.flight_bytes.clear();
        for chunk in state.flight_held.drain(..) {
            self.pool.release(chunk.buffer);
        }
        if state.closing {
            self.closing.push(conn);
        } else if result < 0 || result as usize != wanted {
            state.error = if result < 0 { -result } else { libc::EPIPE };
            self.close(conn);
        } else if !state.bytes.is_empty() || !state.held.is_empty() {
            self.mark_dirty(conn);
        }
    }

    pub(super) fn flush(&mut self) -> io::Result<()> {
        let mut dirty = std::mem::take(&mut self.dirty);
        for conn in dirty.drain(..) {
            let state = &mut self.conns[conn as usize];
            state.dirty = false;
            if !state.open || state.close_queued {
                continue;
            }
            let entry = if state.sending_all {
                // Freshly turned into a send that waits, or one is on its way already.
                if state.flight_queued {
                    continue;
                } else {
                    self.send_flight(conn)
                }
            } else {
                match self.send_queued(conn) {
                    Some(entry) => entry,
                    None => continue,
                }
            };
            self.push(entry)?;
        }
        self.dirty = dirty;
        self.flush_closing()?;
        while !self.pool.is_low()
            && let Some(conn) = self.starved.pop_front()
        {
            let state = &self.conns[conn as usize];
            if state.open && !state.closing && !state.receiving {
                self.arm_recv(conn)?;
            }
        }
        Ok(())
    }

    /// One send of everything queued, which completes within the submission or not at all.
    fn send_queued(&mut self, conn: u32) -> Option<squeue::Entry> {
        let state = &mut self.conns[conn as usize];
        let held_len: usize = state.held.iter().map(|chunk| chunk.len).sum();
        let total = if state.shared { self.shared.len() } else { state.bytes.len() + held_len };
        if total == 0 {
            return None;
        }
        let single = state.bytes.is_empty() && state.held.len() == 1;
        if !single && !state.held.is_empty() && total <= self.options.copy_bytes_max {
            self.fold(conn);
        }
        let state = &mut self.conns[conn as usize];
        state.sent_len = total;
        self.flushed.push(conn);
        let fd = Fixed(conn);
        let send = if state.shared {
            opcode::Send::new(fd, self.shared.as_ptr(), total as u32)
        } else if single {
            opcode::Send::new(fd, state.held[0].start, total as u32)
        } else if state.held.is_empty() {
            opcode::Send::new(fd, state.bytes.as_ptr(), total as u32)
        } else {
            list_pieces(&mut state.pieces, &state.bytes, &state.held);
            let pieces = std::mem::take(&mut state.pieces);
            let send = opcode::Send::new(fd, pieces.as_ptr().cast(), pieces.len() as u32).ioprio(SEND_VECTORIZED);
            state.pieces = pieces;
            send
        };
        let entry = send.flags(SEND_NOW).build().flags(Flags::SKIP_SUCCESS);
        Some(entry.user_data(OP_SEND_NOW << OP_SHIFT | u64::from(conn)))
    }

    /// One send of the rest, which waits for the peer.
    fn send_flight(&mut self, conn: u32) -> squeue::Entry {
        let state = &mut self.conns[conn as usize];
        state.flight_queued = true;
        list_pieces(&mut state.pieces, &state.flight_bytes[state.flight_start..], &state.flight_held);
        opcode::Send::new(Fixed(conn), state.pieces.as_ptr().cast(), state.pieces.len() as u32)
            .ioprio(SEND_VECTORIZED)
            .flags(SEND_ALL)
            .build()
            .user_data(OP_SEND_ALL << OP_SHIFT | u64::from(conn))
    }
}

fn list_pieces(pieces: &mut Vec<libc::iovec>, bytes: &[u8], held: &[Chunk]) {
    pieces.clear();
    let whole = [bytes].into_iter().chain(held.iter().map(Chunk::bytes)).filter(|piece| !piece.is_empty());
    pieces.extend(whole.map(|piece| libc::iovec { iov_base: piece.as_ptr().cast_mut().cast(), iov_len: piece.len() }));
}
