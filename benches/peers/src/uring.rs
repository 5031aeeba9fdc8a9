//! One io_uring driving many TCP connections on one thread: bytes in, bytes out, no protocol.
//!
//! Owns the ring, the provided buffers and every connection's queue of unsent bytes. A tick is: settle the sends of the
//! last tick, hand what was received to the [`App`], queue one SEND per connection that has something to say, then
//! submit and wait in one `io_uring_enter`.
//!
//! Invariants: at most one send of a connection is in flight; its `bytes` go before its `held` chunks; a provided buffer
//! returns to the kernel only when the kernel is done with it *and* no [`Chunk`] of it is left.

use std::{
    collections::VecDeque,
    io,
    os::fd::{AsRawFd, OwnedFd, RawFd},
    ptr,
    sync::atomic::{AtomicU16, Ordering},
    time::Duration,
};

use io_uring::{
    CompletionQueue, IoUring, SubmissionQueue, Submitter, cqueue, opcode,
    squeue::{self, Flags},
    types::{BufRingEntry, CancelBuilder, Fixed, TimeoutFlags, Timespec},
};

const SQ_ENTRIES: u32 = 2048;
const CQ_ENTRIES: u32 = 32_768;
const BUFFER_GROUP: u16 = 0;
/// Below the kernel's limit of 1,024 pieces in a vectored send.
const PIECES_MAX: usize = 512;
/// `IOU_PBUF_RING_INC`: the kernel consumes a buffer piece by piece (6.12).
const RING_INCREMENTAL: u16 = 2;
/// `IORING_SEND_VECTORIZED`: the send's address is an array of iovec (6.17).
const SEND_VECTORIZED: u16 = 1 << 5;
/// `IORING_RECVSEND_POLL_FIRST`: wait for data instead of trying once for nothing.
const RECV_POLL_FIRST: u16 = 1;
const SEND_NOW: i32 = libc::MSG_DONTWAIT | libc::MSG_WAITALL | libc::MSG_NOSIGNAL;
const SEND_ALL: i32 = libc::MSG_WAITALL | libc::MSG_NOSIGNAL;

const OP_SHIFT: u32 = 56;
const OP_RECV: u64 = 1;
const OP_SEND_NOW: u64 = 2;
const OP_SEND_ALL: u64 = 3;
const OP_CLOSE: u64 = 4;
const OP_ACCEPT: u64 = 5;
const OP_TIMER: u64 = 6;
const OP_CANCEL: u64 = 7;

/// How a loop receives, sends and wakes.
#[derive(Clone, Debug)]
pub struct Options {
    /// Provided buffers; a power of two up to 32,768.
    pub buffers: u16,
    /// Bytes in each.
    pub buffer_size: u32,
    /// Let the kernel fill a buffer piece by piece.
    pub incremental: bool,
    /// Let one completion carry several buffers.
    pub bundle: bool,
    /// Keep one receive armed per connection instead of re-arming after each.
    pub multishot: bool,
    /// Pieces that together are at most this many bytes are copied into one plain send; above, the send is vectored.
    pub copy_bytes_max: usize,
    /// Operations submitted at once; after as many the loop enters the kernel before the tick has ended.
    pub submit_max: usize,
    /// Connections at once.
    pub slots: u32,
    /// Wake at least this often.
    pub timer: Option<Duration>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            buffers: 128,
            buffer_size: 16 * 1024,
            incremental: false,
            bundle: false,
            multishot: true,
            copy_bytes_max: 16 * 1024,
            submit_max: 1024,
            slots: 16_384,
            timer: None,
        }
    }
}

/// What a program does with the bytes.
pub trait App {
    /// A connection was accepted.
    fn opened(&mut self, _io: &mut Io, _conn: u32) {}
    /// Bytes arrived. The chunk must go to [`Io::recycle`] or [`Io::send_chunk`].
    fn received(&mut self, io: &mut Io, conn: u32, chunk: Chunk);
    /// The connection is gone and its number may be given out again. `error` is 0 for an orderly end.
    fn closed(&mut self, _io: &mut Io, _conn: u32, _error: i32) {}
    /// Everything that arrived was handed over; what is queued now leaves with this tick. `false` ends the loop.
    fn tick(&mut self, _io: &mut Io) -> bool {
        true
    }
}

/// Received bytes inside a provided buffer. Not `Clone`: it stands for the right to read them.
#[derive(Debug)]
pub struct Chunk {
    start: *const u8,
    len: usize,
    buffer: u16,
}

impl Chunk {
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: `start..start+len` lies in the pool, was written by the kernel before the completion was posted, and
        // the buffer is not given back while this chunk exists.
        unsafe { std::slice::from_raw_parts(self.start, self.len) }
    }

    fn drop_front(&mut self, count: usize) {
        assert!(count <= self.len);
        // SAFETY: `count <= len`, so the result is inside the chunk or one past its end.
        self.start = unsafe { self.start.add(count) };
        self.len -= count;
    }
}

#[derive(Clone, Copy, Default)]
struct BufferState {
    consumed: u32,
    chunks: u16,
    /// The kernel will put nothing more into it.
    done: bool,
    /// Where it stands in the ring, to find its successor in a bundle.
    position: u16,
}

/// The provided buffers: one mapping for the ring, one for the bytes.
struct Pool {
    ring: *mut BufRingEntry,
    memory: *mut u8,
    mask: u16,
    buffer_size: u32,
    tail: u16,
    published: u16,
    /// Buffer at each ring position, as the kernel sees it.
    order: Vec<u16>,
    states: Vec<BufferState>,
    free: usize,
}

fn map_anonymous(bytes: usize) -> io::Result<*mut u8> {
    // SAFETY: an anonymous private mapping at an address the kernel chooses touches no existing memory.
    let address = unsafe {
        libc::mmap(
            ptr::null_mut(),
            bytes,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_ANONYMOUS | libc::MAP_PRIVATE | libc::MAP_POPULATE,
            -1,
            0,
        )
    };
    if address == libc::MAP_FAILED { Err(io::Error::last_os_error()) } else { Ok(address.cast()) }
}

impl Pool {
    fn new(submitter: &Submitter<'_>, options: &Options) -> io::Result<Self> {
        let entries = options.buffers;
        assert!(entries.is_power_of_two() && entries <= 32_768, "buffers must be a power of two up to 32768");
        let ring: *mut BufRingEntry =
            map_anonymous(usize::from(entries) * size_of::<BufRingEntry>())?.cast::<BufRingEntry>();
        let memory = map_anonymous(usize::from(entries) * options.buffer_size as usize)?;
        let flags = if options.incremental { RING_INCREMENTAL } else { 0 };
        // SAFETY: the ring is a page-aligned mapping of `entries` entries that is never unmapped.
        unsafe { submitter.register_buf_ring_with_flags(ring as u64, entries, BUFFER_GROUP, flags)? };
        let mut pool = Self {
            ring,
            memory,
            mask: entries - 1,
            buffer_size: options.buffer_size,
            tail: 0,
            published: 0,
            order: vec![0; entries.into()],
            states: vec![BufferState::default(); entries.into()],
            free: 0,
        };
        for buffer in 0..entries {
            pool.offer(buffer);
        }
        pool.publish();
        Ok(pool)
    }

    fn address(&self, buffer: u16) -> *mut u8 {
        debug_assert!(buffer <= self.mask);
        // SAFETY: `buffer <= mask`, so the offset is inside the mapping of `(mask + 1) * buffer_size` bytes.
        unsafe { self.memory.add(usize::from(buffer) * self.buffer_size as usize) }
    }

    fn offer(&mut self, buffer: u16) {
        let position = self.tail & self.mask;
        // SAFETY: `position <= mask`; the kernel reads this entry only after the tail is published.
        let entry = unsafe { &mut *self.ring.add(position.into()) };
        entry.set_addr(self.address(buffer) as u64);
        entry.set_len(self.buffer_size);
        entry.set_bid(buffer);
        self.order[usize::from(position)] = buffer;
        self.states[usize::from(buffer)] = BufferState { position, ..BufferState::default() };
        self.tail = self.tail.wrapping_add(1);
        self.free += 1;
    }

    fn publish(&mut self) {
        if self.published == self.tail {
            return;
        }
        self.published = self.tail;
        // SAFETY: the tail overlays the first entry's reserved field, is 2-aligned, and only this thread writes it.
        let tail = unsafe { AtomicU16::from_ptr(BufRingEntry::tail(self.ring).cast_mut()) };
        tail.store(self.tail, Ordering::Release);
    }

    /// The next `len` received bytes in `buffer`.
    fn take(&mut self, buffer: u16, len: usize, done: bool) -> Chunk {
        let start = self.address(buffer);
        let state = &mut self.states[usize::from(buffer)];
        assert!(state.consumed as usize + len <= self.buffer_size as usize && !state.done);
        // SAFETY: `consumed + len <= buffer_size`, checked above.
        let start = unsafe { start.add(state.consumed as usize) };
        state.consumed += len as u32;
        state.chunks += 1;
        if done {
            state.done = true;
            self.free -= 1;
        }
        Chunk { start, len, buffer }
    }

    fn following(&self, buffer: u16) -> u16 {
        let position = self.states[usize::from(buffer)].position.wrapping_add(1) & self.mask;
        self.order[usize::from(position)]
    }

    fn release(&mut self, buffer: u16) {
        let state = &mut self.states[usize::from(buffer)];
        state.chunks -= 1;
        if state.chunks == 0 && state.done {
            self.offer(buffer);
        }
    }

    fn is_low(&self) -> bool {
        self.free * 4 < self.order.len()
    }
}

#[derive(Default)]
struct Conn {
    open: bool,
    dirty: bool,
    closing: bool,
    receiving: bool,
    sending_all: bool,
    /// The send that waits was handed to the kernel.
    flight_queued: bool,
    close_queued: bool,
    cancel_queued: bool,
    /// The tick's shared bytes are to be sent, or are being sent.
    shared: bool,
    error: i32,
    /// Set while a send that cannot wait is unsettled: what it was to send.
    sent_len: usize,
    bytes: Vec<u8>,
    held: Vec<Chunk>,
    /// Owned by the send in flight.
    flight_bytes: Vec<u8>,
    flight_held: Vec<Chunk>,
    flight_start: usize,
    pieces: Vec<libc::iovec>,
}

/// What an [`App`] may do to the loop.
pub struct Io {
    submitter: Submitter<'static>,
    queue: SubmissionQueue<'static>,
    pool: Pool,
    conns: Vec<Conn>,
    dirty: Vec<u32>,
    flushed: Vec<u32>,
    closing: Vec<u32>,
    starved: VecDeque<u32>,
    free_slots: Vec<u32>,
    shared: Vec<u8>,
    queued: usize,
    options: Options,
    listener: Option<RawFd>,
    accept_paused: bool,
    timer: Box<Timespec>,
}

/// A ring with its connections; made on the thread that runs it.
pub struct Driver {
    io: Io,
    completions: CompletionQueue<'static>,
}

impl Driver {
    /// Sets up a ring. With a listener, accepts from it; its descriptor must stay open.
    pub fn new(options: Options, listener: Option<RawFd>) -> io::Result<Self> {
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
        let timer = options.timer.unwrap_or_default();
        let free_slots = if listener.is_none() { (0..options.slots).rev().collect() } else { Vec::new() };
        let mut io = Io {
            submitter,
            queue,
            pool,
            conns: Vec::new(),
            dirty: Vec::new(),
            flushed: Vec::new(),
            closing: Vec::new(),
            starved: VecDeque::new(),
            free_slots,
            shared: Vec::new(),
            queued: 0,
            listener,
            accept_paused: false,
            timer: Box::new(Timespec::new().sec(timer.as_secs()).nsec(timer.subsec_nanos())),
            options,
        };
        io.arm_accept()?;
        io.arm_timer()?;
        Ok(Self { io, completions })
    }

    /// For what must be set up before the loop runs.
    pub fn io(&mut self) -> &mut Io {
        &mut self.io
    }

    /// Runs until the application says stop.
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
    /// Takes over a connected socket and returns its number.
    pub fn adopt(&mut self, socket: OwnedFd) -> io::Result<u32> {
        let slot = self.free_slots.pop().ok_or_else(|| io::Error::other("no free connection slot"))?;
        self.submitter.register_files_update(slot, &[socket.as_raw_fd()])?;
        self.open(slot)?;
        Ok(slot)
    }

    /// The connection's unsent bytes, to append to; they leave at the end of the tick.
    pub fn out(&mut self, conn: u32) -> &mut Vec<u8> {
        self.mark_dirty(conn);
        if !self.conns[conn as usize].held.is_empty() {
            self.fold(conn);
        }
        &mut self.conns[conn as usize].bytes
    }

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

    /// Sends what is queued without waiting for the peer, then closes.
    pub fn close(&mut self, conn: u32) {
        let state = &mut self.conns[conn as usize];
        if state.open && !state.closing {
            state.closing = true;
            self.closing.push(conn);
        }
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

    fn push(&mut self, entry: squeue::Entry) -> io::Result<()> {
        // SAFETY: every entry built here points into memory that stays in place until its completion: the pool and the
        // timer are never freed, queues of a connection are not touched between flush and settle, and `flight_*` not
        // before the send's completion.
        while unsafe { self.queue.push(&entry) }.is_err() {
            self.enter(0)?;
        }
        self.queued += 1;
        if self.queued >= self.options.submit_max {
            self.enter(0)?;
        }
        Ok(())
    }

    fn enter(&mut self, want: usize) -> io::Result<()> {
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

    fn arm_accept(&mut self) -> io::Result<()> {
        let Some(listener) = self.listener else {
            return Ok(());
        };
        let accept = opcode::AcceptMulti::new(io_uring::types::Fd(listener)).allocate_file_index(true).build();
        self.push(accept.user_data(OP_ACCEPT << OP_SHIFT))
    }

    fn arm_timer(&mut self) -> io::Result<()> {
        if self.options.timer.is_none() {
            return Ok(());
        }
        let timer = opcode::Timeout::new(&*self.timer).flags(TimeoutFlags::MULTISHOT).build();
        self.push(timer.user_data(OP_TIMER << OP_SHIFT))
    }

    fn arm_recv(&mut self, conn: u32) -> io::Result<()> {
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

    fn open(&mut self, conn: u32) -> io::Result<()> {
        if self.conns.len() <= conn as usize {
            self.conns.resize_with(conn as usize + 1, Conn::default);
        }
        let state = &mut self.conns[conn as usize];
        assert!(!state.open && state.bytes.is_empty() && state.held.is_empty());
        state.open = true;
        self.arm_recv(conn)
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
            OP_TIMER if !cqueue::more(entry.flags()) => self.arm_timer()?,
            _ => {}
        }
        Ok(())
    }

    fn received<A: App>(&mut self, app: &mut A, conn: u32, result: i32, flags: u32) -> io::Result<()> {
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

    /// A send that cannot wait sent nothing or only a part: the rest goes in a send that waits.
    fn send_now_failed(&mut self, conn: u32, result: i32) {
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
    fn settle(&mut self) {
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

    fn send_all_done(&mut self, conn: u32, result: i32) {
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

    fn flush(&mut self) -> io::Result<()> {
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

    fn flush_closing(&mut self) -> io::Result<()> {
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

    fn reset(&mut self, conn: u32) {
        let state = std::mem::take(&mut self.conns[conn as usize]);
        for chunk in state.held.into_iter().chain(state.flight_held) {
            self.pool.release(chunk.buffer);
        }
        self.conns[conn as usize].dirty = state.dirty;
        if self.listener.is_none() {
            self.free_slots.push(conn);
        }
    }
}

fn list_pieces(pieces: &mut Vec<libc::iovec>, bytes: &[u8], held: &[Chunk]) {
    pieces.clear();
    let whole = [bytes].into_iter().chain(held.iter().map(Chunk::bytes)).filter(|piece| !piece.is_empty());
    pieces.extend(whole.map(|piece| libc::iovec { iov_base: piece.as_ptr().cast_mut().cast(), iov_len: piece.len() }));
}
