//! All outbound queues of one core: bounded, first in first out, with a list of the connections that have something to
//! send. No I/O: the shard hands [`Outbox::batch`] to its ring and reports what came of it.
//!
//! Frames of a tick are encoded one behind the other into one arena, and a connection's queue is normally just the
//! stretch of the arena that it has to send. Consecutive frames for a connection lengthen its stretch, so whatever one
//! tick queues for a socket leaves in one send; and connections to which the same frames were queued name the same
//! stretch, so a broadcast costs each receiver two integers and no copy. Only what a full socket refuses leaves the arena:
//! it becomes the connection's backlog, copied once for all connections with the same rest.
//!
//! Order of calls: `queue…` any number of times; [`Outbox::batch`] into the ring's turn; [`Outbox::sent_short`] for each
//! send of the batch that was not sent whole; then [`Outbox::settle`], once. [`Outbox::sent_async`] when a waiting send is
//! done.
//!
//! Invariant, per connection: at most one of {arena stretch, backlog} is non-empty; it is on the dirty list exactly when it
//! has something to send and no waiting send is in flight; `queued_bytes <= bytes_max` unless a single frame is larger
//! (replies to the connection's own messages and control frames are bounded by its input); a waiting send owns no more than
//! a quarter of `bytes_max`, or one message, so most of a queue can be dropped or replaced (see `overflow.rs`).
//!
//! Knows of this crate: `marks`, `proto`, `tables`.

mod backlog;
mod context;
mod dropped;
mod fall;
mod frame_buf;
#[cfg(test)]
mod frame_tests;
mod key;
mod measure;
#[cfg(test)]
mod model_tests;
mod outgoing;
mod overflow;
#[cfg(test)]
mod overflow_tests;
mod replies;
mod sealed;
mod spares;
mod stretch;
#[cfg(test)]
mod tests;
mod turn;

use bytes::Bytes;

use crate::proto::frame::{Opcode, SHORT_PAYLOAD_BYTES_MAX, encode_header, put_frame, put_short_frame};
use crate::tables::room_for;
use backlog::Backlog;
use fall::Fall;
use spares::ARENA_BYTES_AT_FIRST;

pub use context::Step;
pub use dropped::Dropped;
pub use frame_buf::FrameBuf;
pub use key::Key;
pub use outgoing::{Outgoing, SHARED_BYTES_MIN};
pub use replies::OutboxReplies;
pub use stretch::{PIECES_MAX, Stretch, ToSend};

/// What became of one frame for one connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(unnameable_types, reason = "only implementations of traits mention it")]
pub enum Queued {
    /// It will be sent.
    Yes,
    /// The queue is at its limit; the frame is not in it.
    Full,
    /// The connection takes no more messages.
    Gone,
}

/// A frame encoded in this tick's arena; worthless after [`Outbox::settle`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ArenaFrame {
    start: u32,
    end: u32,
}

impl ArenaFrame {
    /// Bytes on the wire.
    pub fn wire_len(self) -> usize {
        (self.end - self.start) as usize
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// No connection: nothing may be queued.
    Vacant,
    /// Everything may be queued.
    Open,
    /// No more messages; control frames still.
    Sealed,
    /// The Close frame is queued: nothing may follow it.
    Shut,
}

struct Slot {
    start: u32,
    end: u32,
    generation: u32,
    state: State,
    dirty: bool,
    /// Input of this connection is held back: see [`Outbox::must_wait`].
    held: bool,
    backlog: Option<Box<Backlog>>,
}

/// Bytes that one tick's arena may hold.
const ARENA_BYTES_MAX: usize = 1 << 30;
/// What is written at once and longer than this is queued by itself.
const IN_ARENA_BYTES_MAX: usize = 4 << 20;
/// Two stretches up to this long together are joined in the arena; longer ones are kept as pieces.
const JOIN_BYTES_MAX: usize = 16 << 10;
/// Empty backlogs kept for reuse.
const BACKLOGS_KEPT: usize = 256;
/// The outbound queues of a core. See the module.
pub struct Outbox {
    arena: Vec<u8>,
    slots: Vec<Slot>,
    dirty: Vec<u32>,
    bytes_max: usize,
    #[expect(clippy::vec_box, reason = "a connection holds its backlog by one pointer, and it moves between the two")]
    backlogs_free: Vec<Box<Backlog>>,
    /// The last join: these two stretches stand together at the third.
    joined: Option<(ArenaFrame, ArenaFrame, ArenaFrame)>,
    /// The last stretch that had to leave the arena.
    copied: Option<(ArenaFrame, Bytes)>,
    /// Long frames that stand in the arena for many, in their order, with what they came as.
    imported: Vec<(ArenaFrame, Bytes)>,
    backlog_bytes: usize,
    /// Bytes that sockets have taken.
    sent_bytes: u64,
    /// Bytes of the batch's sends that have failed.
    failed_bytes: u64,
    little_used_ticks: u32,
    /// The most that was in the arena since [`Outbox::trim_unused`] was called last.
    arena_used_bytes: usize,
    /// The keys of frames in the arena, by where they start.
    marks: Vec<(u32, Key)>,
    /// How many of the first bytes of a connection's stretch are no frames.
    raw: Vec<(u32, u32)>,
    /// Where connections with a compression context are in it, by slot; empty where none has one. See `context.rs`.
    steps: Vec<Step>,
    /// What waits for a full socket to take it is timed by this clock.
    now_ms: u64,
    /// Falls from more than this are noted.
    drain_floor: usize,
    /// Connections of whose queues something was sent, with what was in them before.
    drained: Vec<Fall>,
}

impl Outbox {
    /// Empty queues, each of which will take up to `bytes_max` bytes (or a single larger frame).
    pub fn new(bytes_max: usize) -> Outbox {
        Outbox {
            arena: Vec::with_capacity(ARENA_BYTES_AT_FIRST),
            slots: Vec::new(),
            dirty: Vec::new(),
            bytes_max,
            backlogs_free: Vec::new(),
            joined: None,
            copied: None,
            imported: Vec::new(),
            backlog_bytes: 0,
            sent_bytes: 0,
            failed_bytes: 0,
            little_used_ticks: 0,
            arena_used_bytes: 0,
            marks: Vec::new(),
            raw: Vec::new(),
            steps: Vec::new(),
            now_ms: 0,
            drain_floor: usize::MAX,
            drained: Vec::new(),
        }
    }

    /// Makes room for so many connections.
    pub fn reserve(&mut self, slots: usize) {
        self.slots.reserve(room_for::<Slot>(slots));
    }

    /// Starts a connection's queue.
    pub fn open(&mut self, slot: u32, generation: u32) {
        let index = slot as usize;
        while self.slots.len() <= index {
            self.slots.push(Slot {
                start: 0,
                end: 0,
                generation: 0,
                state: State::Vacant,
                dirty: false,
                held: false,
                backlog: None,
            });
        }
        let slot = &mut self.slots[index];
        assert!(slot.state == State::Vacant && slot.start == slot.end && slot.backlog.is_none());
        slot.state = State::Open;
        slot.generation = generation;
    }

    /// Lets no more messages into the queue; what is in it will still be sent, and so will control frames.
    pub fn seal(&mut self, slot: u32) {
        let slot = &mut self.slots[slot as usize];
        if slot.state == State::Open {
            slot.state = State::Sealed;
        }
    }

    /// Lets nothing more into the queue.
    pub fn shut(&mut self, slot: u32) {
        let slot = &mut self.slots[slot as usize];
        if slot.state != State::Vacant {
            slot.state = State::Shut;
        }
    }

    /// Ends a connection's queue and forgets what is in it. A waiting send in flight is the ring's until it completes.
    pub fn close(&mut self, slot: u32) {
        let index = slot as usize;
        self.close_context(slot);
        self.slots[index].state = State::Vacant;
        self.slots[index].held = false;
        self.slots[index].start = 0;
        self.slots[index].end = 0;
        if let Some(backlog) = self.slots[index].backlog.take() {
            self.backlog_bytes -= backlog.queue_bytes + backlog.in_flight_bytes;
            self.keep_backlog(backlog);
        }
    }

    /// Whether nothing of this connection is waiting or in flight.
    #[inline]
    pub fn is_empty(&self, slot: u32) -> bool {
        let slot = &self.slots[slot as usize];
        slot.start == slot.end && slot.backlog.is_none()
    }

    /// Whether the socket refused bytes and a waiting send is in flight.
    pub fn is_parked(&self, slot: u32) -> bool {
        self.slots[slot as usize].is_parked()
    }

    /// Whether its socket has refused something that it has not taken yet, or something is queued by reference.
    #[inline]
    pub fn has_backlog(&self, slot: u32) -> bool {
        self.slots[slot as usize].backlog.is_some()
    }

    /// Whether messages can be queued.
    #[inline]
    pub fn is_open(&self, slot: u32) -> bool {
        self.slots.get(slot as usize).is_some_and(|slot| slot.state == State::Open)
    }

    /// Bytes waiting or in flight for this connection.
    #[inline]
    pub fn queued_bytes(&self, slot: u32) -> usize {
        self.slots[slot as usize].queued_bytes()
    }

    /// Bytes of the waiting send in flight for this connection.
    pub fn in_flight_bytes(&self, slot: u32) -> usize {
        self.slots[slot as usize].backlog.as_ref().map_or(0, |backlog| backlog.in_flight_bytes)
    }

    /// Bytes that sockets have refused so far, over all connections.
    pub fn backlog_bytes(&self) -> usize {
        self.backlog_bytes
    }

    /// Whether input of this connection should wait: more than `bytes` are queued to it, or somebody holds it back.
    #[inline]
    pub fn must_wait(&self, slot: u32, bytes: usize) -> bool {
        let slot = &self.slots[slot as usize];
        slot.held || slot.queued_bytes() > bytes
    }

    /// Holds a connection's input back, or not; returns whether it was held. It is kept here because whoever handles
    /// input looks at the queue anyway.
    pub fn set_held(&mut self, slot: u32, held: bool) -> bool {
        self.slots.get_mut(slot as usize).is_some_and(|slot| std::mem::replace(&mut slot.held, held))
    }

    /// Whether somebody holds a connection's input back.
    pub fn is_held(&self, slot: u32) -> bool {
        self.slots[slot as usize].held
    }

    /// Encodes a message into the arena, for any number of [`Outbox::queue`]; `None` if the tick's arena is full.
    #[inline]
    pub fn encode(&mut self, opcode: Opcode, payload: &[u8]) -> Option<ArenaFrame> {
        let start = self.arena.len();
        if start + payload.len() + 16 > ARENA_BYTES_MAX {
            return None;
        }
        put_frame(&mut self.arena, opcode, payload);
        Some(ArenaFrame { start: start as u32, end: self.arena.len() as u32 })
    }

    /// As [`Outbox::encode`], of a payload that was compressed (RFC 7692 6: its frame has the bit RSV1).
    pub fn encode_compressed(&mut self, opcode: Opcode, compressed: &[u8]) -> Option<ArenaFrame> {
        let start = self.arena.len();
        if start + compressed.len() + 16 > ARENA_BYTES_MAX {
            return None;
        }
        let (header, len) = encode_header(opcode, true, true, compressed.len() as u64, None);
        self.arena.extend_from_slice(&header[..len]);
        self.arena.extend_from_slice(compressed);
        Some(ArenaFrame { start: start as u32, end: self.arena.len() as u32 })
    }

    /// Copies an encoded frame into the arena.
    fn import(&mut self, frame: &FrameBuf) -> Option<ArenaFrame> {
        self.append(frame.bytes())
    }

    fn append(&mut self, bytes: &[u8]) -> Option<ArenaFrame> {
        let start = self.arena.len();
        if start + bytes.len() > ARENA_BYTES_MAX {
            return None;
        }
        self.arena.extend_from_slice(bytes);
        Some(ArenaFrame { start: start as u32, end: self.arena.len() as u32 })
    }

    /// Encodes a message straight behind what this tick has queued to one connection, where nothing is in the way: no backlog,
    /// no other connection's message, room in queue and arena. What is so as a rule takes this road; false, and nothing done, is
    /// an invitation to take the ordinary one.
    #[inline(always)]
    pub fn extend(&mut self, slot: u32, opcode: Opcode, payload: &[u8]) -> bool {
        let start = self.arena.len();
        let Some(queue) = self.slots.get_mut(slot as usize) else { return false };
        if payload.len() > SHORT_PAYLOAD_BYTES_MAX
            || start + SHORT_PAYLOAD_BYTES_MAX + 2 > ARENA_BYTES_MAX
            || queue.state != State::Open
            || queue.backlog.is_some()
        {
            return false;
        }
        if queue.start == queue.end {
            queue.start = start as u32;
            queue.list(&mut self.dirty, slot);
        } else if queue.end as usize != start || start + payload.len() + 2 - queue.start as usize > self.bytes_max {
            return false;
        }
        queue.end = (start + payload.len() + 2) as u32;
        put_short_frame(&mut self.arena, opcode, payload);
        true
    }

    /// Queues a frame of this tick's arena to a connection.
    #[inline]
    pub fn queue(&mut self, slot: u32, frame: ArenaFrame) -> Queued {
        let Some(queue) = self.slots.get_mut(slot as usize) else { return Queued::Gone };
        if queue.state == State::Open && queue.backlog.is_none() {
            if queue.start == queue.end {
                queue.start = frame.start;
                queue.end = frame.end;
                queue.list(&mut self.dirty, slot);
                return Queued::Yes;
            }
            if queue.end == frame.start && (frame.end - queue.start) as usize <= self.bytes_max {
                queue.end = frame.end;
                return Queued::Yes;
            }
        }
        self.queue_slow(slot, frame)
    }

    #[cold]
    #[inline(never)]
    fn queue_slow(&mut self, slot: u32, frame: ArenaFrame) -> Queued {
        let queued = self.admit(slot, frame.wire_len());
        if queued == Queued::Yes {
            self.force(slot, frame);
        }
        queued
    }

    /// Queues an encoded frame to a connection by reference.
    pub fn queue_shared(&mut self, slot: u32, frame: &FrameBuf) -> Queued {
        let queued = self.admit(slot, frame.len());
        if queued == Queued::Yes {
            self.spill(slot);
            self.push_back(slot, frame.bytes().clone(), None);
        }
        queued
    }

    /// Queues the bytes that `write` appends, which are no frames, whatever the limit: HTTP, which whoever writes it bounds.
    /// `false` if the queue is closed.
    ///
    /// # Errors
    /// The writer's; nothing is queued then.
    pub fn queue_raw<E>(&mut self, slot: u32, write: impl FnOnce(&mut Vec<u8>) -> Result<(), E>) -> Result<bool, E> {
        let start = self.arena.len();
        if !self.is_open(slot) || start > ARENA_BYTES_MAX {
            return Ok(false);
        }
        if let Err(error) = write(&mut self.arena) {
            self.arena.truncate(start);
            return Err(error);
        }
        if self.arena.len() - start > IN_ARENA_BYTES_MAX {
            self.take_tail(slot, start);
            return Ok(true);
        }
        self.force(slot, ArenaFrame { start: start as u32, end: self.arena.len() as u32 });
        let queue = &self.slots[slot as usize];
        if queue.backlog.is_none() {
            self.raw.push((slot, queue.end - queue.start));
        }
        Ok(true)
    }

    /// Queues the frames that `write` appends, masked or not, whatever the limit: those of a client, which knows what it has
    /// asked for. `false` if the queue is closed.
    #[inline]
    pub fn queue_frames(&mut self, slot: u32, write: impl FnOnce(&mut Vec<u8>)) -> bool {
        let start = self.arena.len();
        if !self.is_open(slot) || start > ARENA_BYTES_MAX {
            return false;
        }
        write(&mut self.arena);
        if self.arena.len() - start > IN_ARENA_BYTES_MAX {
            self.take_tail(slot, start);
            return true;
        }
        self.force(slot, ArenaFrame { start: start as u32, end: self.arena.len() as u32 });
        true
    }

    /// Queues what was just written behind `start`, and is too long for the arena, by itself: stretches of the arena have
    /// places of 32 bits, and what is written at once has no bound.
    #[cold]
    fn take_tail(&mut self, slot: u32, start: usize) {
        let bytes = Bytes::from(self.arena.split_off(start));
        self.spill(slot);
        self.push_back(slot, bytes, None);
    }

    fn queue_control(&mut self, slot: u32, opcode: Opcode, payload: &[u8]) {
        // RFC 6455 5.5.3: a peer that lets pings pile up may be answered the most recent one only; where the queue is at
        // its limit, none of them.
        if opcode == Opcode::Pong && self.queued_bytes(slot) > self.bytes_max {
            return;
        }
        if opcode == Opcode::Pong && self.is_parked(slot) {
            return self.queue_late_pong(slot, payload);
        }
        if matches!(self.slots[slot as usize].state, State::Open | State::Sealed)
            && let Some(frame) = self.encode(opcode, payload)
        {
            self.force(slot, frame);
        }
    }

    /// Whether `len` more bytes may be queued. An empty queue takes any frame: there must be a way to send a message
    /// that is larger than the limit.
    fn admit(&self, slot: u32, len: usize) -> Queued {
        match self.slots.get(slot as usize) {
            Some(queue) if queue.state == State::Open => {
                let queued_bytes = queue.queued_bytes();
                if queued_bytes == 0 || queued_bytes + len <= self.bytes_max { Queued::Yes } else { Queued::Full }
            }
            _ => Queued::Gone,
        }
    }

    /// Queues an arena frame, whatever stands in the queue.
    fn force(&mut self, slot: u32, frame: ArenaFrame) {
        let queue = &mut self.slots[slot as usize];
        if queue.backlog.is_some() {
            let bytes = self.copy_out(frame);
            return self.push_back(slot, bytes, None);
        }
        if queue.start == queue.end {
            queue.start = frame.start;
            queue.end = frame.end;
            self.mark_dirty(slot);
        } else if queue.end == frame.start {
            queue.end = frame.end;
        } else {
            let before = ArenaFrame { start: queue.start, end: queue.end };
            match self.join(before, frame) {
                Some(joined) => {
                    let queue = &mut self.slots[slot as usize];
                    queue.start = joined.start;
                    queue.end = joined.end;
                }
                None => {
                    self.spill(slot);
                    let bytes = self.copy_out(frame);
                    self.push_back(slot, bytes, self.key_of(frame));
                }
            }
        }
    }

    /// Puts two stretches side by side in the arena, once for all connections that have the same two.
    fn join(&mut self, first: ArenaFrame, second: ArenaFrame) -> Option<ArenaFrame> {
        if let Some((a, b, joined)) = self.joined
            && (a, b) == (first, second)
        {
            return Some(joined);
        }
        let len = first.wire_len() + second.wire_len();
        // What need not be copied is not.
        let is_imported = self.imported(first).is_some() || self.imported(second).is_some();
        if is_imported || len > JOIN_BYTES_MAX || self.arena.len() + len > ARENA_BYTES_MAX {
            return None;
        }
        let start = self.arena.len() as u32;
        self.arena.extend_from_within(first.start as usize..first.end as usize);
        self.arena.extend_from_within(second.start as usize..second.end as usize);
        let joined = ArenaFrame { start, end: self.arena.len() as u32 };
        self.copy_marks(first, start);
        self.copy_marks(second, start + first.wire_len() as u32);
        self.joined = Some((first, second, joined));
        Some(joined)
    }

    fn push_back(&mut self, slot: u32, bytes: Bytes, key: Option<Key>) {
        self.backlog_bytes += bytes.len();
        let queue = &mut self.slots[slot as usize];
        let backlog = queue.backlog.get_or_insert_with(|| self.backlogs_free.pop().unwrap_or_default());
        backlog.push_back(bytes, key);
        if backlog.in_flight_bytes == 0 {
            self.mark_dirty(slot);
        }
    }

    fn copy_out(&mut self, stretch: ArenaFrame) -> Bytes {
        if let Some((of, bytes)) = &self.copied
            && *of == stretch
        {
            return bytes.clone();
        }
        if let Some(bytes) = self.imported(stretch) {
            return bytes.clone();
        }
        let bytes = Bytes::copy_from_slice(&self.arena[stretch.start as usize..stretch.end as usize]);
        self.copied = Some((stretch, bytes.clone()));
        bytes
    }

    /// What a stretch came as, if it is one of [`Outbox::imported`].
    fn imported(&self, stretch: ArenaFrame) -> Option<&Bytes> {
        let at = self.imported.binary_search_by_key(&stretch.start, |(at, _)| at.start).ok()?;
        self.imported.get(at).filter(|(at, _)| *at == stretch).map(|(_, bytes)| bytes)
    }

    #[inline]
    fn mark_dirty(&mut self, slot: u32) {
        let queue = &mut self.slots[slot as usize];
        queue.list(&mut self.dirty, slot);
    }

    /// Whether any connection has something to send.
    pub fn has_dirty(&self) -> bool {
        !self.dirty.is_empty()
    }

    fn keep_backlog(&mut self, mut backlog: Box<Backlog>) {
        if self.backlogs_free.len() < BACKLOGS_KEPT && backlog.capacity() <= 64 {
            backlog.clear(drop);
            self.backlogs_free.push(backlog);
        }
    }

    /// Checks the module's invariant; for `debug_assert`.
    pub fn invariants(&self) -> bool {
        let mut backlog_bytes = 0;
        for (index, slot) in self.slots.iter().enumerate() {
            let in_arena = slot.start != slot.end;
            assert!(slot.start <= slot.end && (slot.state != State::Vacant || !in_arena));
            assert!(!(in_arena && slot.backlog.is_some()), "slot {index}: one place at a time");
            if let Some(backlog) = &slot.backlog {
                backlog.invariants();
                backlog_bytes += backlog.queue_bytes + backlog.in_flight_bytes;
            }
            let wants = in_arena || slot.backlog.as_ref().is_some_and(|backlog| backlog.in_flight_bytes == 0);
            assert!(!wants || slot.dirty, "slot {index}: what can be sent is on the list");
        }
        assert_eq!(backlog_bytes, self.backlog_bytes);
        assert_eq!(self.dirty.len(), self.slots.iter().filter(|slot| slot.dirty).count(), "listed once");
        true
    }
}

impl Slot {
    /// Puts it on the list of those with something to send. It may be there: closed and opened again since the last batch.
    #[inline]
    fn list(&mut self, dirty: &mut Vec<u32>, slot: u32) {
        if !self.dirty {
            self.dirty = true;
            dirty.push(slot);
        }
    }

    fn is_parked(&self) -> bool {
        self.backlog.as_ref().is_some_and(|backlog| backlog.in_flight_bytes > 0)
    }

    #[inline]
    fn queued_bytes(&self) -> usize {
        let backlog = self.backlog.as_ref().map_or(0, |backlog| backlog.queue_bytes + backlog.in_flight_bytes);
        (self.end - self.start) as usize + backlog
    }
}
