//! The ring: setting it up, entering the kernel, and handing each completion to whom it concerns.

use std::{collections::VecDeque, io, os::fd::RawFd};

use io_uring::{CompletionQueue, IoUring, cqueue, opcode, types::Fd};

use super::{
    app::App,
    io::{Io, OP_ACCEPT, OP_CLOSE, OP_RECV, OP_SEND_ALL, OP_SEND_NOW, OP_SHIFT},
    options::Options,
    pool::Pool,
};

const SQ_ENTRIES: u32 = 2048;
const CQ_ENTRIES: u32 = 32_768;

/// A ring with its connections; made on the thread that runs it.
pub struct Driver {
    io: Io,
    completions: CompletionQueue<'static>,
}

impl Driver {
    /// Sets up a ring that accepts from a listener, whose descriptor must stay open.
    ///
    /// # Errors
    /// If the kernel grants no such ring or no memory for it.
    ///
    /// # Panics
    /// If the number of buffers is not a power of two up to 32,768.
    pub fn new(options: Options, listener: RawFd) -> io::Result<Self> {
        let ring = IoUring::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_submit_all()
            .setup_cqsize(CQ_ENTRIES)
            .setup_clamp()
            .setup_no_sqarray()
            .build(SQ_ENTRIES)?;
        // One ring per thread for the life of the process; leaking it gives the three halves a lifetime without a
        // self-reference, and keeps the one submitter that knows the registered descriptor.
        let ring: &'static mut IoUring = Box::leak(Box::new(ring));
        let (mut submitter, queue, completions) = ring.split();
        submitter.register_ring_fd()?;
        submitter.register_files_sparse(options.slots)?;
        let pool = Pool::new(&submitter, &options)?;
        let mut io = Io {
            submitter,
            queue,
            pool,
            conns: Vec::new(),
            dirty: Vec::new(),
            flushed: Vec::new(),
            closing: Vec::new(),
            starved: VecDeque::new(),
            shared: Vec::new(),
            queued: 0,
            listener,
            accept_paused: false,
            options,
        };
        io.arm_accept()?;
        Ok(Self { io, completions })
    }

    /// Runs until the application says stop.
    ///
    /// # Errors
    /// If the ring is beyond use.
    pub fn run(&mut self, app: &mut impl App) -> io::Result<()> {
        let mut batch: Vec<cqueue::Entry> = Vec::with_capacity(CQ_ENTRIES as usize);
        self.io.flush()?;
        loop {
            self.io.enter(1)?;
            self.completions.sync();
            batch.extend(&mut self.completions);
            self.completions.sync();
            if !self.io.queue.is_empty() {
                // The kernel took only a part: nothing is settled before the rest is in.
                continue;
            }
            // Settle the sends of the last tick before anything is appended to the same queues.
            for entry in batch.iter().filter(|entry| entry.user_data() >> OP_SHIFT == OP_SEND_NOW) {
                self.io.send_now_failed(entry.user_data() as u32, entry.result());
            }
            self.io.settle();
            for entry in batch.drain(..) {
                self.io.complete(app, &entry)?;
            }
            if !app.tick(&mut self.io) {
                return Ok(());
            }
            self.io.flush()?;
        }
    }
}

impl Io {
    fn arm_accept(&mut self) -> io::Result<()> {
        let accept = opcode::AcceptMulti::new(Fd(self.listener)).allocate_file_index(true).build();
        self.push(accept.user_data(OP_ACCEPT << OP_SHIFT))
    }

    fn complete<A: App>(&mut self, app: &mut A, entry: &cqueue::Entry) -> io::Result<()> {
        let conn = entry.user_data() as u32;
        match entry.user_data() >> OP_SHIFT {
            OP_RECV => self.received(app, conn, entry.result(), entry.flags())?,
            OP_SEND_ALL => self.send_all_done(conn, entry.result()),
            OP_ACCEPT => {
                if let Ok(slot) = u32::try_from(entry.result()) {
                    self.open(slot)?;
                    app.opened(self, slot);
                }
                if !cqueue::more(entry.flags()) {
                    // A full table would refuse again at once: wait until a connection has gone.
                    self.accept_paused = entry.result() < 0 && self.conns.iter().any(|conn| conn.open);
                    if !self.accept_paused {
                        self.arm_accept()?;
                    }
                }
            }
            OP_CLOSE => {
                let error = self.conns[conn as usize].error;
                self.reset(conn);
                app.closed(self, conn, error);
                if std::mem::take(&mut self.accept_paused) {
                    self.arm_accept()?;
                }
            }
            _ => {}
        }
        Ok(())
    }
}
