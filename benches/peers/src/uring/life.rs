//! How connections begin and end.

use std::io;

use io_uring::{
    opcode,
    types::{CancelBuilder, Fixed},
};

use super::{
    conn::Conn,
    io::{Io, OP_CANCEL, OP_CLOSE, OP_SHIFT},
};

impl Io {
    pub(super) fn open(&mut self, conn: u32) -> io::Result<()> {
        if self.conns.len() <= conn as usize {
            self.conns.resize_with(conn as usize + 1, Conn::default);
        }
        let state = &mut self.conns[conn as usize];
        assert!(!state.open && state.bytes.is_empty() && state.held.is_empty());
        state.open = true;
        self.arm_recv(conn)
    }

    /// Sends what is queued without waiting for the peer, then closes.
    pub fn close(&mut self, conn: u32) {
        let state = &mut self.conns[conn as usize];
        if state.open && !state.closing {
            state.closing = true;
            self.closing.push(conn);
        }
    }

    pub(super) fn flush_closing(&mut self) -> io::Result<()> {
        let mut closing = std::mem::take(&mut self.closing);
        for conn in closing.drain(..) {
            let state = &mut self.conns[conn as usize];
            if state.close_queued {
                continue;
            }
            if !state.receiving && !state.sending_all {
                state.close_queued = true;
                self.push(opcode::Close::new(Fixed(conn)).build().user_data(OP_CLOSE << OP_SHIFT | u64::from(conn)))?;
            } else if !state.cancel_queued {
                state.cancel_queued = true;
                let cancel = opcode::AsyncCancel2::new(CancelBuilder::fd(Fixed(conn)).all()).build();
                self.push(cancel.user_data(OP_CANCEL << OP_SHIFT))?;
            }
        }
        self.closing = closing;
        Ok(())
    }

    pub(super) fn reset(&mut self, conn: u32) {
        let state = std::mem::take(&mut self.conns[conn as usize]);
        for chunk in state.held.into_iter().chain(state.flight_held) {
            self.pool.release(chunk.buffer);
        }
        self.conns[conn as usize].dirty = state.dirty;
    }
}
