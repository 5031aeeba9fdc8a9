//! One message on its way out: to a connection, to the members of a room, to other cores.

use super::{ArenaFrame, Dropped, FrameBuf, Key, Outbox, Queued};
use crate::proto::frame::{Opcode, encode_header};
use crate::proto::{Kind, OwnedPayload};

/// A message that is there as a frame of at least so many bytes goes by reference; a shorter one is copied, which is cheaper.
pub const SHARED_BYTES_MIN: usize = 4096;

/// Where many are to get such a message it stands in the arena, copied once, if it has at most so many bytes for each of them: to
/// refer to it costs each of them as much as to copy these.
const BYTES_PER_RECEIVER: usize = 1 << 10;

/// A message on its way out, in each form that somebody asks for, each of them made once. It lives no longer than a tick.
#[derive(Debug)]
pub struct Outgoing<'a> {
    opcode: Opcode,
    /// Empty if it came as a frame.
    payload: &'a [u8],
    key: Option<Key>,
    in_arena: Option<ArenaFrame>,
    shared: Option<FrameBuf>,
    packed: Packed,
    uncompressed: bool,
    is_event: bool,
    is_ephemeral: bool,
}

/// A message compressed by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Packed {
    /// Nobody has asked.
    Untried,
    /// It goes as it is.
    No,
    /// In this tick's arena.
    Arena(ArenaFrame),
}

impl<'a> Outgoing<'a> {
    /// A message of one frame.
    #[inline]
    pub fn new(opcode: Opcode, payload: &'a [u8]) -> Outgoing<'a> {
        Outgoing {
            opcode,
            payload,
            key: None,
            in_arena: None,
            shared: None,
            packed: Packed::Untried,
            uncompressed: false,
            is_event: false,
            is_ephemeral: false,
        }
    }

    /// A message that is encoded already.
    #[inline]
    pub fn of_frame(frame: FrameBuf) -> Outgoing<'a> {
        let (uncompressed, is_event, is_ephemeral) = (frame.is_uncompressed(), frame.is_event(), frame.is_ephemeral());
        Outgoing { uncompressed, is_event, is_ephemeral, shared: Some(frame), ..Outgoing::new(Opcode::Binary, &[]) }
    }

    /// An assembled message, whose payload is not copied.
    pub fn of_owned(kind: Kind, payload: OwnedPayload) -> Outgoing<'a> {
        Outgoing::of_frame(FrameBuf::from_owned(kind, payload))
    }

    /// Gives it a key: where only the latest with the same one matters, that is all a connection gets that is behind.
    #[inline]
    pub fn keyed(self, key: Option<Key>) -> Outgoing<'a> {
        Outgoing { key, ..self }
    }

    /// As [`Outgoing::keyed`], before it has a form.
    #[inline]
    pub fn set_key(&mut self, key: Option<Key>) -> &mut Outgoing<'a> {
        debug_assert!(self.in_arena.is_none());
        self.key = key;
        self
    }

    /// As this says, whoever gets it: compressed where that is agreed, or as it is.
    #[inline]
    pub fn set_uncompressed(&mut self, uncompressed: bool) -> &mut Outgoing<'a> {
        self.uncompressed = uncompressed;
        self
    }

    /// Whether it is an event in an envelope, before others have a form of it.
    #[inline]
    pub fn set_event(&mut self, is_event: bool) -> &mut Outgoing<'a> {
        debug_assert!(self.shared.is_none() || !is_event);
        self.is_event = is_event;
        self
    }

    /// Whether rooms do not keep it, before others have a form of it.
    #[inline]
    pub fn set_ephemeral(&mut self, is_ephemeral: bool) -> &mut Outgoing<'a> {
        self.is_ephemeral = is_ephemeral;
        if let Some(frame) = self.shared.take_if(|_| is_ephemeral) {
            self.shared = Some(frame.ephemeral(true));
        }
        self
    }

    /// What can be compressed of it: what it is, and its payload, if that has `bytes_min` bytes and was not marked.
    pub fn compressible(&self, bytes_min: usize) -> Option<(Opcode, &[u8])> {
        if self.uncompressed {
            return None;
        }
        let parts = match &self.shared {
            Some(frame) if self.payload.is_empty() => frame.parts(),
            _ => Some((self.opcode, self.payload)),
        };
        parts.filter(|(opcode, payload)| !opcode.is_control() && payload.len() >= bytes_min)
    }

    /// Its key.
    #[inline]
    pub fn key(&self) -> Option<Key> {
        self.key
    }

    /// Bytes on the wire.
    pub fn wire_len(&self) -> usize {
        match (&self.in_arena, &self.shared) {
            (Some(frame), _) => frame.wire_len(),
            (_, Some(frame)) => frame.len(),
            _ => encode_header(self.opcode, true, false, self.payload.len() as u64, None).1 + self.payload.len(),
        }
    }
}

/// What this core's queues take of a message.
#[derive(Clone, Copy, Debug)]
pub(super) enum Form<'o> {
    /// In this tick's arena.
    Arena(ArenaFrame),
    /// By reference.
    Shared(&'o FrameBuf),
}

impl Form<'_> {
    /// Bytes on the wire.
    pub(super) fn wire_len(&self) -> usize {
        match self {
            Form::Arena(frame) => frame.wire_len(),
            Form::Shared(frame) => frame.len(),
        }
    }
}

impl Outbox {
    /// The form that this core's queues take, made by whoever asks first: a short message of one frame as a rule.
    #[inline(always)]
    pub(super) fn form<'o>(&mut self, message: &'o mut Outgoing<'_>) -> Form<'o> {
        if let Some(frame) = message.in_arena {
            return Form::Arena(frame);
        }
        if message.shared.is_none()
            && message.key.is_none()
            && let Some(frame) = self.encode(message.opcode, message.payload)
        {
            message.in_arena = Some(frame);
            return Form::Arena(frame);
        }
        self.other_form(message)
    }

    #[inline(never)]
    fn other_form<'o>(&mut self, message: &'o mut Outgoing<'_>) -> Form<'o> {
        let in_arena = match &message.shared {
            None => self.encode(message.opcode, message.payload),
            Some(frame) if frame.len() < SHARED_BYTES_MIN => self.import(frame),
            Some(_) => None,
        };
        if let Some(frame) = in_arena {
            if let Some(key) = message.key {
                self.mark(frame, key);
            }
            message.in_arena = in_arena;
            return Form::Arena(frame);
        }
        let Outgoing { opcode, payload, shared, is_event, is_ephemeral, .. } = message;
        let make = || FrameBuf::new(*opcode, payload).event(*is_event).ephemeral(*is_ephemeral);
        Form::Shared(shared.get_or_insert_with(make))
    }

    /// Makes the form that this core's queues take. Asked before [`Outbox::share`] where they may be many: to stand in the arena
    /// costs a receiver less than to be referred to.
    #[inline]
    pub fn make_for_here(&mut self, message: &mut Outgoing<'_>) {
        let _ = self.form(message);
    }

    /// Makes the form that this core's queues take of a message that so many are to get. Those whose sockets refuse it share what
    /// it came as.
    #[inline]
    pub fn make_for_many(&mut self, message: &mut Outgoing<'_>, receivers: usize) {
        if message.in_arena.is_none() && message.shared.is_some() {
            self.import_for_many(message, receivers);
        }
    }

    #[inline(never)]
    fn import_for_many(&mut self, message: &mut Outgoing<'_>, receivers: usize) {
        let Some(frame) = &message.shared else { return };
        if frame.len() < SHARED_BYTES_MIN || frame.len() > receivers.saturating_mul(BYTES_PER_RECEIVER) {
            return;
        }
        let Some(in_arena) = self.import(frame) else { return };
        if let Some(key) = message.key {
            self.mark(in_arena, key);
        }
        self.imported.push((in_arena, frame.bytes().clone()));
        message.in_arena = Some(in_arena);
    }

    /// The form in which a message outlives the tick, for other cores.
    pub fn share<'o>(&mut self, message: &'o mut Outgoing<'_>) -> &'o FrameBuf {
        let Outgoing { opcode, payload, in_arena, shared, uncompressed, is_event, is_ephemeral, .. } = message;
        let frame = shared.get_or_insert_with(|| {
            let frame = match in_arena {
                Some(frame) => FrameBuf::from_encoded(self.copy_out(*frame)),
                None => FrameBuf::new(*opcode, payload),
            };
            frame.event(*is_event).ephemeral(*is_ephemeral)
        });
        // Wherever the frame comes from: the other cores know of the mark by it alone.
        frame.set_uncompressed(*uncompressed);
        frame
    }

    /// Queues a message to a connection.
    #[inline]
    pub fn put(&mut self, slot: u32, message: &mut Outgoing<'_>) -> Queued {
        if !self.is_open(slot) {
            return Queued::Gone;
        }
        match self.form(message) {
            Form::Arena(frame) => self.queue(slot, frame),
            Form::Shared(frame) => self.queue_shared(slot, frame),
        }
    }

    /// Queues a message to many connections, and tells of each what became of it.
    #[inline]
    pub fn put_to_all(
        &mut self,
        slots: impl Iterator<Item = u32>,
        message: &mut Outgoing<'_>,
        mut tell: impl FnMut(u32, Queued),
    ) {
        match self.form(message) {
            Form::Arena(frame) => slots.for_each(|slot| tell(slot, self.queue(slot, frame))),
            Form::Shared(frame) => slots.for_each(|slot| tell(slot, self.queue_shared(slot, frame))),
        }
    }

    /// Has a message in its compressed form, which `compress` makes when somebody asks for the first time; `None`: it goes as
    /// it is.
    pub fn pack(
        &mut self,
        message: &mut Outgoing<'_>,
        compress: impl FnOnce(&mut Outbox, &Outgoing<'_>) -> Option<ArenaFrame>,
    ) -> Option<ArenaFrame> {
        if message.packed == Packed::Untried {
            message.packed = compress(self, message).map_or(Packed::No, Packed::Arena);
            if let (Packed::Arena(frame), Some(key)) = (message.packed, message.key) {
                self.mark(frame, key);
            }
        }
        match message.packed {
            Packed::Arena(frame) => Some(frame),
            _ => None,
        }
    }

    /// As [`Outbox::put_latest`], of a form in the arena.
    pub fn put_latest_packed(&mut self, slot: u32, frame: ArenaFrame, key: Key) -> (Queued, Dropped) {
        self.queue_latest(slot, Form::Arena(frame), key)
    }

    /// Queues a message of which only the latest with its key matters: where one with the same key waits, it takes that one's
    /// place, which is counted in the result. As long as nothing waits, nothing is replaced.
    pub fn put_latest(&mut self, slot: u32, message: &mut Outgoing<'_>, key: Key) -> (Queued, Dropped) {
        if !self.is_open(slot) {
            return (Queued::Gone, Dropped::default());
        }
        let form = self.form(message);
        self.queue_latest(slot, form, key)
    }

    /// Queues a reply to what the connection itself has sent, whatever the limit: its input is held back while much is
    /// queued to it, so this is one message more than that at most.
    #[inline]
    pub fn put_reply(&mut self, slot: u32, message: &mut Outgoing<'_>) -> Queued {
        match self.put(slot, message) {
            Queued::Full => {
                match self.form(message) {
                    Form::Arena(frame) => self.force(slot, frame),
                    Form::Shared(frame) => {
                        self.spill(slot);
                        self.push_back(slot, frame.bytes().clone(), None);
                    }
                }
                Queued::Yes
            }
            queued => queued,
        }
    }

    /// Takes a message that nobody has queued out of the arena again, so that those for which there is no room do not fill it.
    pub fn take_back(&mut self, message: &mut Outgoing<'_>) {
        let end = self.arena.len();
        let frame = match message.packed {
            Packed::Arena(frame) if frame.end as usize == end => {
                message.packed = Packed::Untried;
                frame
            }
            _ => {
                let Some(frame) = message.in_arena.take_if(|frame| frame.end as usize == end) else { return };
                frame
            }
        };
        self.arena.truncate(frame.start as usize);
        while self.marks.pop_if(|(start, _)| *start >= frame.start).is_some() {}
        // What stands there next is another message.
        self.joined = None;
        self.copied = None;
        while self.imported.pop_if(|(at, _)| at.start >= frame.start).is_some() {}
    }

    /// Queues a message to one connection.
    #[inline]
    pub fn send(&mut self, slot: u32, opcode: Opcode, payload: &[u8]) -> Queued {
        let mut message = Outgoing::new(opcode, payload);
        let queued = self.put(slot, &mut message);
        if queued != Queued::Yes {
            self.take_back(&mut message);
        }
        queued
    }
}
