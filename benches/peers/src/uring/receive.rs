//! Receiving: into the provided buffers, one chunk to the application for each buffer that was filled.

use std::{io, ptr};

use io_uring::{cqueue, opcode, squeue::Flags, types::Fixed};

use super::{
    app::App,
    io::{Io, OP_RECV, OP_SHIFT},
    pool::BUFFER_GROUP,
};

/// `IORING_RECVSEND_POLL_FIRST`: wait for data instead of trying once for nothing.
const RECV_POLL_FIRST: u16 = 1;

impl Io {
    pub(super) fn arm_recv(&mut self, conn: u32) -> io::Result<()> {
        let fd = Fixed(conn);
        let entry = if !self.options.multishot {
            opcode::Recv::new(fd, ptr::null_mut(), 0)
                .buf_group(BUFFER_GROUP)
                .ioprio(RECV_POLL_FIRST)
                .build()
                .flags(Flags::BUFFER_SELECT)
        } else if self.options.bundle {
            opcode::RecvMultiBundle::new(fd, BUFFER_GROUP).build()
        } else {
            opcode::RecvMulti::new(fd, BUFFER_GROUP).build()
        };
        self.conns[conn as usize].receiving = true;
        self.push(entry.user_data(OP_RECV << OP_SHIFT | u64::from(conn)))
    }

    pub(super) fn received<A: App>(&mut self, app: &mut A, conn: u32, result: i32, flags: u32) -> io::Result<()> {
        let ended = !cqueue::more(flags);
        if ended {
            self.conns[conn as usize].receiving = false;
        }
        if result > 0 {
            let mut left = result as usize;
            let mut buffer = cqueue::buffer_select(flags).expect("received bytes carry a buffer");
            while left > 0 {
                let len = left.min(self.options.buffer_size as usize);
                left -= len;
                let following = if left > 0 { self.pool.following(buffer) } else { buffer };
                let chunk = self.pool.take(buffer, len, !cqueue::buffer_more(flags));
                if self.conns[conn as usize].closing {
                    self.recycle(chunk);
                } else {
                    app.received(self, conn, chunk);
                }
                buffer = following;
            }
        }
        let state = &mut self.conns[conn as usize];
        if state.closing {
            self.closing.push(conn);
        } else if result > 0 && ended {
            self.arm_recv(conn)?;
        } else if result == -libc::ENOBUFS {
            self.starved.push_back(conn);
        } else if result <= 0 && ended {
            state.error = -result;
            self.close(conn);
        }
        Ok(())
    }
}
