//! What every part of the loop works on: the ring's submitting half, the connections, and the lists between them.

use std::{collections::VecDeque, io, os::fd::RawFd};

use io_uring::{SubmissionQueue, Submitter, squeue};

use super::{conn::Conn, options::Options, pool::Pool};

pub(super) const OP_SHIFT: u32 = 56;
pub(super) const OP_RECV: u64 = 1;
pub(super) const OP_SEND_NOW: u64 = 2;
pub(super) const OP_SEND_ALL: u64 = 3;
pub(super) const OP_CLOSE: u64 = 4;
pub(super) const OP_ACCEPT: u64 = 5;
pub(super) const OP_CANCEL: u64 = 6;

/// What an [`App`] may do to the loop.
pub struct Io {
    pub(super) submitter: Submitter<'static>,
    pub(super) queue: SubmissionQueue<'static>,
    pub(super) pool: Pool,
    pub(super) conns: Vec<Conn>,
    pub(super) dirty: Vec<u32>,
    pub(super) flushed: Vec<u32>,
    pub(super) closing: Vec<u32>,
    pub(super) starved: VecDeque<u32>,
    pub(super) shared: Vec<u8>,
    pub(super) queued: usize,
    pub(super) options: Options,
    pub(super) listener: RawFd,
    pub(super) accept_paused: bool,
}

impl Io {
    pub(super) fn push(&mut self, entry: squeue::Entry) -> io::Result<()> {
        // SAFETY: every entry built here points into memory that stays in place until its completion: the pool is
        // never freed, queues of a connection are not touched between flush and settle, and `flight_*` not before the
        // send's completion.
        while unsafe { self.queue.push(&entry) }.is_err() {
            self.enter(0)?;
        }
        self.queued += 1;
        if self.queued >= self.options.submit_max {
            self.enter(0)?;
        }
        Ok(())
    }

    pub(super) fn enter(&mut self, want: usize) -> io::Result<()> {
        self.pool.publish();
        self.queue.sync();
        self.queued = 0;
        let result = self.submitter.submit_and_wait(want);
        self.queue.sync();
        match result {
            Ok(_) => Ok(()),
            // Interrupted, or completions must be reaped first: both come back by themselves.
            Err(error) if matches!(error.raw_os_error(), Some(libc::EINTR | libc::EBUSY | libc::EAGAIN)) => Ok(()),
            Err(error) => Err(error),
        }
    }
}
