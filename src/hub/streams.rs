//! What goes out compressed: once for all who can read the same bytes.
//!
//! A message that is worth it is compressed by itself for all receivers that have agreed to no context, once per core. Those
//! with a context share *streams*: a window of what went through, and the [`Step`] of the last message of it. A stream belongs
//! to a room, to a route, or to a connection alone (`dedicated`). Each core has its own of a room.
//!
//! A receiver's window is what it was sent compressed, and nothing else (RFC 7692 7.2.3.2). So a connection of the mode
//! `shared` gets the messages of one stream compressed, its home's, and everything else as it is. Home is the room that it
//! joined first of those it is still in, else its route. Whether it can read the stream's next message is for the outbox to
//! know, which sees all that is queued and dropped: see `outbox/context.rs`. Nothing here can put a connection in step that
//! is not.
//!
//! Those that cannot get the message as it is. A stream begun anew (an empty window) can be read by all whose sockets keep
//! up; that costs ratio for some messages and never correctness. So it is when nobody is left in step; and no sooner than
//! [`RESET_GAP`] messages after the last when an eighth of the receivers wait, or than [`RESET_GAP_FEW`] when fewer do.
//!
//! Memory: a window for each stream that is used, nothing in a connection but its [`Sends`] and its step. Streams go with
//! their rooms and connections, and when they are not used between two looks; they count in the budget.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use super::{CoreHub, Delivery, RoomId};
use crate::config::{Deflate, SlowConsumer};
use crate::metrics::Compressed;
use crate::outbox::{ArenaFrame, Outbox, Outgoing, Queued, Step};
use crate::proto::deflate::{Deflater, History};
use crate::proto::extensions::Agreed;

/// Fewest messages of a stream between two resets while somebody is in step: behind one, a window's worth of messages costs
/// more than it would.
const RESET_GAP: u32 = 32;
/// The same where fewer than one receiver in [`RESET_SHARE`] waits.
const RESET_GAP_FEW: u32 = 256;
/// One receiver in so many is worth a reset.
const RESET_SHARE: u32 = 8;
/// What a stream takes beside its window.
const STREAM_BYTES: usize = 160;

/// How a connection may be sent to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Sends {
    /// As it is.
    #[default]
    Plain,
    /// Compressed by itself, if it is no longer than so many bits say: the client's window has that length.
    Alone(u8),
    /// In its home's stream.
    Shared,
    /// In a stream of its own, whose window has so many bits.
    Own(u8),
}

/// Whose stream it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Home {
    Room(u32),
    Route(u16),
    Connection(u32),
}

struct Stream {
    history: History,
    step: Step,
    /// Since it was begun anew.
    messages: u32,
    /// Who could read the last message, and who waits for it to be begun anew.
    in_step: u32,
    waiting: u32,
    used: bool,
}

/// A message of a stream, for those who can follow.
#[derive(Clone, Copy)]
struct InStream {
    frame: ArenaFrame,
    after: Option<Step>,
    step: Step,
}

/// A core's compressor and streams.
pub(super) struct Streams {
    deflater: Deflater,
    level: u8,
    clock_ns: fn() -> u64,
    out: Vec<u8>,
    /// Of the last message of any stream.
    step: Step,
    streams: HashMap<Home, Stream>,
    /// Connections that are sent anything compressed: where there is none, nothing here is asked.
    receivers: u32,
    bytes: usize,
    rest: Vec<u32>,
}

impl Streams {
    pub(super) fn new(level: u8) -> Streams {
        Streams {
            deflater: Deflater::new(level),
            level,
            clock_ns: || 0,
            out: Vec::new(),
            step: Step::first(),
            streams: HashMap::new(),
            receivers: 0,
            bytes: 0,
            rest: Vec::new(),
        }
    }

    /// Has the time that compressing takes be told by a clock.
    pub(super) fn set_clock(&mut self, clock_ns: fn() -> u64) {
        self.clock_ns = clock_ns;
    }

    pub(super) fn set_level(&mut self, level: u8) {
        if level != self.level {
            self.level = level;
            self.deflater = Deflater::new(level);
        }
    }

    /// Whether anybody is sent anything compressed.
    #[inline]
    pub(super) fn has_receivers(&self) -> bool {
        self.receivers > 0
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Receivers that wait for their streams to be begun anew.
    pub(super) fn waiting(&self) -> u64 {
        self.streams.values().map(|stream| u64::from(stream.waiting)).sum()
    }

    pub(super) fn forget(&mut self, home: Home) {
        if let Some(stream) = self.streams.remove(&home) {
            self.bytes -= stream.bytes();
        }
    }

    /// Frees what was not used since this was called last.
    pub(super) fn trim_unused(&mut self) {
        let bytes = &mut self.bytes;
        self.streams.retain(|_, stream| {
            let used = std::mem::take(&mut stream.used);
            if !used {
                *bytes -= stream.bytes();
            }
            used
        });
        if self.streams.is_empty() {
            self.deflater.trim();
            self.out = Vec::new();
            self.streams.shrink_to_fit();
        }
    }

    /// The stream of a home, begun anew if that is due.
    fn stream(&mut self, home: Home, window_bits: u8, resets: &mut u64) -> &mut Stream {
        match self.streams.entry(home) {
            Entry::Vacant(place) => {
                self.bytes += STREAM_BYTES;
                let history = History::new(window_bits);
                place.insert(Stream { history, step: self.step, messages: 0, in_step: 0, waiting: 0, used: true })
            }
            Entry::Occupied(place) => {
                let stream = place.into_mut();
                stream.used = true;
                if stream.is_reset_due() {
                    *resets += 1;
                    self.bytes -= stream.bytes();
                    stream.history.reset();
                    self.bytes += stream.bytes();
                    stream.messages = 0;
                }
                stream
            }
        }
    }

    /// Compresses into the arena.
    fn compress(
        &mut self,
        home: Option<Home>,
        outbox: &mut Outbox,
        message: &Outgoing<'_>,
        bytes_min: usize,
        counters: &mut Compressed,
    ) -> Option<ArenaFrame> {
        let (opcode, payload) = message.compressible(bytes_min)?;
        self.out.clear();
        let stream = home.and_then(|home| self.streams.get_mut(&home));
        let before = stream.as_ref().map_or(0, |stream| stream.bytes());
        let mut stream = stream;
        let history = stream.as_deref_mut().map(|stream| &mut stream.history);
        let began_ns = (self.clock_ns)();
        let is_shorter = self.deflater.compress(payload, history, &mut self.out);
        counters.took_ns += (self.clock_ns)().saturating_sub(began_ns);
        if !is_shorter {
            return None;
        }
        if let Some(stream) = stream {
            self.bytes = self.bytes - before + stream.bytes();
            self.step = self.step.next();
            stream.step = self.step;
            stream.messages += 1;
        }
        counters.messages += 1;
        counters.payload_bytes += payload.len() as u64;
        counters.wire_bytes += self.out.len() as u64;
        let frame = outbox.encode_compressed(opcode, &self.out);
        if self.out.capacity() > OUT_BYTES_KEPT {
            self.out = Vec::new();
        }
        frame
    }
}

/// The buffer for compressed messages is kept up to this size.
const OUT_BYTES_KEPT: usize = 256 << 10;

impl Stream {
    fn bytes(&self) -> usize {
        STREAM_BYTES + self.history.memory_bytes()
    }

    /// What the next message depends on; `None`: on nothing.
    fn after(&self) -> Option<Step> {
        (!self.history.is_empty()).then_some(self.step)
    }

    fn is_reset_due(&self) -> bool {
        if self.waiting == 0 || self.history.is_empty() {
            return false;
        }
        let all = self.waiting + self.in_step;
        let is_worth_it = self.waiting * RESET_SHARE >= all && self.messages >= RESET_GAP;
        self.in_step == 0 || is_worth_it || self.messages >= RESET_GAP_FEW
    }
}

impl CoreHub {
    /// How a connection may be sent to, by its route's mode and what was agreed.
    pub(super) fn set_sends(&mut self, slot: u32, mode: Deflate, agreed: Agreed) {
        let bits = self.deflate.window_bits;
        // A smaller window than the stream's cannot follow it.
        let sends = match mode {
            Deflate::Off => Sends::Plain,
            Deflate::Shared if agreed.server_context && agreed.server_window_bits >= bits => Sends::Shared,
            Deflate::Dedicated if agreed.server_context => Sends::Own(bits.min(agreed.server_window_bits)),
            _ => Sends::Alone(agreed.server_window_bits),
        };
        self.members[slot as usize].sends = sends;
        self.streams.receivers += u32::from(sends != Sends::Plain);
        if matches!(sends, Sends::Shared | Sends::Own(_)) {
            self.outbox.open_context(slot);
        }
    }

    /// A connection ends.
    pub(super) fn end_sends(&mut self, slot: u32) {
        let sends = std::mem::take(&mut self.members[slot as usize].sends);
        self.streams.receivers -= u32::from(sends != Sends::Plain);
        if matches!(sends, Sends::Own(_)) {
            self.streams.forget(Home::Connection(slot));
        }
    }

    /// Has the time that compressing takes be told by a clock.
    pub(crate) fn set_deflate_clock(&mut self, clock_ns: fn() -> u64) {
        self.streams.set_clock(clock_ns);
    }

    /// Frees the streams that were not used since this was called last.
    pub(crate) fn trim_streams(&mut self) {
        self.streams.trim_unused();
    }

    fn home(&self, slot: u32) -> Home {
        match self.first_room(slot) {
            Some(RoomId(room)) => Home::Room(room),
            None => Home::Route(self.members[slot as usize].route),
        }
    }

    /// A message in its form that stands for itself, if it is shorter so.
    fn pack(&mut self, message: &mut Outgoing<'_>) -> Option<ArenaFrame> {
        let CoreHub { outbox, streams, counters, deflate, .. } = self;
        let (bytes_min, counters) = (deflate.bytes_min, &mut counters.deflated);
        outbox.pack(message, |outbox, message| streams.compress(None, outbox, message, bytes_min, counters))
    }

    /// Compresses a message in a stream.
    fn compress_in(&mut self, home: Home, after: Option<Step>, message: &Outgoing<'_>) -> Option<InStream> {
        let CoreHub { outbox, streams, counters, deflate, .. } = self;
        let frame = streams.compress(Some(home), outbox, message, deflate.bytes_min, &mut counters.deflated)?;
        Some(InStream { frame, after, step: streams.step })
    }

    /// Queues a message to one connection compressed, in whatever way it may be; `None`: it must go as it is.
    #[inline(never)]
    pub(super) fn queue_compressed(&mut self, slot: u32, message: &mut Outgoing<'_>) -> Option<Queued> {
        match self.members.get(slot as usize)?.sends {
            Sends::Plain | Sends::Shared => None,
            Sends::Alone(bits) => self.queue_packed(slot, bits, message),
            Sends::Own(bits) => {
                message.compressible(self.deflate.bytes_min)?;
                let home = Home::Connection(slot);
                let after = self.streams.stream(home, bits, &mut self.counters.stream_resets).after();
                let mut queued = false;
                if self.outbox.can_follow(slot, after)
                    && let Some(made) = self.compress_in(home, after, message)
                {
                    queued = self.outbox.queue_with_context(slot, made.frame, made.after, made.step);
                } else if self.outbox.can_follow(slot, after) {
                    return None;
                }
                let is_waiting = !queued && self.outbox.is_empty(slot);
                if let Some(stream) = self.streams.streams.get_mut(&home) {
                    (stream.in_step, stream.waiting) = (u32::from(queued), u32::from(is_waiting));
                }
                queued.then_some(Queued::Yes)
            }
        }
    }

    fn queue_packed(&mut self, slot: u32, bits: u8, message: &mut Outgoing<'_>) -> Option<Queued> {
        let (_, payload) = message.compressible(self.deflate.bytes_min)?;
        if payload.len() > 1 << bits {
            return None;
        }
        let frame = self.pack(message)?;
        match message.key() {
            Some(key) if self.policy(slot) == SlowConsumer::KeepLatest => {
                let before = self.outbox.queued_bytes(slot);
                let (queued, dropped) = self.outbox.put_latest_packed(slot, frame, key);
                self.lost(slot, dropped, before);
                Some(queued)
            }
            _ => Some(self.outbox.queue(slot, frame)),
        }
    }

    /// Delivers a message of this home to some connections: first to those that can read its stream, then to those that read
    /// it by itself, then to the others. One form behind the other, so that what a tick has for a connection stands together
    /// in the arena.
    pub(super) fn deliver_in_forms(
        &mut self,
        home: Home,
        receivers: impl Iterator<Item = u32>,
        message: &mut Outgoing<'_>,
    ) -> Delivery {
        let mut delivery = Delivery::default();
        let mut rest = std::mem::take(&mut self.streams.rest);
        let is_worth_it = message.compressible(self.deflate.bytes_min).is_some();
        let mut is_stream_asked = false;
        let (mut after, mut made, mut grew) = (None, None, !is_worth_it);
        let (mut in_step, mut waiting) = (0, 0);
        for slot in receivers {
            if grew || self.members[slot as usize].sends != Sends::Shared || self.home(slot) != home {
                rest.push(slot);
                continue;
            }
            if !std::mem::replace(&mut is_stream_asked, true) {
                let bits = self.deflate.window_bits;
                after = self.streams.stream(home, bits, &mut self.counters.stream_resets).after();
            }
            if !self.outbox.can_follow(slot, after) {
                waiting += u32::from(!self.outbox.has_backlog(slot));
                rest.push(slot);
                continue;
            }
            if made.is_none() {
                made = self.compress_in(home, after, message);
                grew = made.is_none();
            }
            match made {
                Some(made) if self.outbox.queue_with_context(slot, made.frame, made.after, made.step) => {
                    in_step += 1;
                    self.count_queued(slot, &mut delivery);
                }
                _ => rest.push(slot),
            }
        }
        if is_stream_asked
            && !grew
            && let Some(stream) = self.streams.streams.get_mut(&home)
        {
            (stream.in_step, stream.waiting) = (in_step, waiting);
        }
        let mut alone = 0;
        for slot in &rest {
            if let Sends::Alone(_) = self.members[*slot as usize].sends
                && let Some(queued) = self.queue_compressed(*slot, message)
            {
                alone += u32::from(queued == Queued::Yes);
                self.tell_queued(*slot, queued, message, &mut delivery);
            }
        }
        self.counters.deflate_saved += u64::from(in_step.saturating_sub(1) + alone.saturating_sub(1));
        let is_packed = message.compressible(self.deflate.bytes_min).is_some();
        rest.retain(|slot| match self.members[*slot as usize].sends {
            Sends::Alone(bits) => !(is_packed && self.is_packed_for(bits, message)),
            _ => true,
        });
        self.outbox.make_for_many(message, rest.len());
        for slot in &rest {
            delivery.add(self.deliver(*slot, message));
        }
        rest.clear();
        self.streams.rest = rest;
        delivery
    }

    /// Whether those with so large a window got the packed form, if anybody asked for it.
    fn is_packed_for(&mut self, bits: u8, message: &mut Outgoing<'_>) -> bool {
        let len = message.compressible(0).map_or(0, |(_, payload)| payload.len());
        len <= 1 << bits && self.pack(message).is_some()
    }

    fn count_queued(&mut self, slot: u32, delivery: &mut Delivery) {
        delivery.queued += 1;
        self.counters.messages_out += 1;
        self.traffic.queued(slot);
    }

    fn tell_queued(&mut self, slot: u32, queued: Queued, message: &mut Outgoing<'_>, delivery: &mut Delivery) {
        match queued {
            Queued::Yes => self.count_queued(slot, delivery),
            Queued::Full => delivery.add(self.overflow(slot, message)),
            Queued::Gone => delivery.gone += 1,
        }
    }
}
