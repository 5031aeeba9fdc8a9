//! The WebSocket state machine of one connection, for both roles (RFC 6455 5 to 8).
//!
//! Order of calls: [`Machine::next`] in a loop on every input until it gives `None`. Then, instead of receiving the next
//! input elsewhere, [`Machine::lend`] may offer the buffer of a large message to receive into; between it and
//! [`Machine::give_back`] there is no `next`. [`Machine::take_buffers`] at the end.
//!
//! A protocol error is a state: the machine queues the Close frame, says [`Event::Failed`] once and discards the rest.
//! Frames to send go out through [`Replies`]; the machine does no I/O, and allocates nothing for a message that is
//! complete in its input: that one is unmasked in place and borrowed.
//!
//! Invariant: the record of what is incomplete exists only while a frame or a message is, or where the peer's compressed messages
//! refer to those before them.

use super::assembly::{Assembly, Frame};
use super::deflate::History;
use super::event::{Event, Incoming, Lent, Limits, Payload, Replies, Role};
use super::extensions::Agreed;
use super::flow::{Flow, Mode};
use super::frame::{Expect, Opcode, decode_header_as};
use super::partial::Partial;
use super::payload::{Kind, OwnedPayload};
use super::spares::Spares;
use super::{ProtocolError, close, mask, utf8};

/// Fewest bytes of room that a loan has, where so many are to come.
const LEND_BYTES_MIN: usize = 64 * 1024;

/// Most bytes by which a loan grows the buffer.
const LEND_BYTES_MAX: usize = 1024 * 1024;

/// The state machine. Small: what is incomplete is in a box that exists only meanwhile.
#[derive(Debug)]
pub struct Machine {
    flow: Flow,
    partial: Option<Box<Partial>>,
}

/// What is left to read after a failure.
enum Rest {
    /// Nothing can be told apart any more.
    Lost,
    /// The next byte begins a frame.
    Frames,
    /// The rest of this frame, then frames.
    Of(Frame),
}

impl Machine {
    /// A connection right after its handshake.
    pub fn new(role: Role) -> Self {
        Self { flow: Flow::new(role), partial: None }
    }

    /// The handshake has agreed on compression: messages with RSV1 are decompressed from now on (RFC 7692 6.2). Before the
    /// first input.
    pub fn agree(&mut self, agreed: Agreed) {
        self.flow.deflates = true;
        if let Some(bits) = agreed.received_context(self.flow.role) {
            self.partial.get_or_insert_default().context = Some(Box::new(History::new(bits)));
        }
    }

    /// Takes the next event out of `input[*consumed..]` and moves `consumed` behind it; `None`: all of it is consumed, what
    /// is incomplete is kept. Call it until then. Payloads are unmasked in place, so `input` is scrambled behind
    /// `consumed`.
    ///
    /// # Panics
    /// Where `*consumed` is beyond the input, and in debug builds while the buffer is lent.
    #[inline]
    pub fn next<'a>(
        &'a mut self,
        input: &'a mut [u8],
        consumed: &mut usize,
        limits: &Limits,
        spares: &mut Spares,
        replies: &mut impl Replies,
    ) -> Option<Event<'a>> {
        if self.flow.mode == Mode::Open
            && self.partial.is_none()
            && let Some(whole) = whole_message(self.flow.role, &input[*consumed..])
            && whole.len <= limits.message_bytes_max
        {
            let payload = &mut input[*consumed + whole.header_len..][..whole.len];
            *consumed += whole.header_len + whole.len;
            tell(whole.kind.into(), true, whole.len as u64);
            let is_ascii = whole.key.is_some_and(|key| mask::apply(key, 0, payload));
            let payload: &'a [u8] = payload;
            if whole.kind == Kind::Text && !is_ascii && !utf8::is_valid(payload) {
                return Some(self.fail(ProtocolError::BadUtf8, Rest::Frames, spares, replies));
            }
            return Some(Event::Message(Incoming {
                kind: whole.kind,
                payload: Payload::Borrowed(payload),
                uncompressed: false,
            }));
        }
        self.next_slow(input, consumed, limits, spares, replies)
    }

    /// Begins the closing handshake: queues a Close frame, with an empty payload where `code` is `None`. False, and
    /// nothing queued, if one was sent already. Messages that arrive from now on are discarded (RFC 6455 1.4). The code is
    /// the caller's to check: [`close::is_legal`].
    pub fn close(&mut self, code: Option<u16>, reason: &str, replies: &mut impl Replies) -> bool {
        if self.flow.close_sent {
            return false;
        }
        debug_assert!(code.is_none_or(close::is_legal), "a code that must not be sent");
        self.flow.close_sent = true;
        if self.flow.mode == Mode::Open {
            self.flow.mode = Mode::Skimming;
        }
        replies.reply(Opcode::Close, close::encode(code, reason).as_slice());
        true
    }

    /// Whether messages may come compressed.
    #[inline]
    pub fn is_compressed(&self) -> bool {
        self.flow.deflates
    }

    /// Payload bytes that are still to come of the data frame that the machine is in the middle of.
    #[inline]
    pub fn payload_to_come(&self) -> u64 {
        let frame = self.partial.as_ref().and_then(|partial| partial.frame);
        frame.filter(|frame| !frame.opcode.is_control()).map_or(0, |frame| frame.remaining)
    }

    /// In the middle of a data frame of which `threshold` or more bytes are to come, lends the message's buffer, with room
    /// to receive into. Room is made as bytes arrive (double, between 64 KiB and 1 MiB at a time), never as the frame
    /// declares, unless the pool has a buffer of that size.
    ///
    /// Fails to lend (`None`) elsewhere, and once closing. Until [`Machine::give_back`], `next` must not be called.
    pub fn lend(&mut self, threshold: usize, spares: &mut Spares) -> Option<Lent> {
        let partial = self.partial.as_deref_mut()?;
        let frame = partial.frame?;
        if self.flow.mode != Mode::Open
            || frame.opcode.is_control()
            || frame.remaining == 0
            || frame.remaining < threshold as u64
            || partial.lent.is_some()
        {
            return None;
        }
        let message = partial.message.as_mut()?;
        let len_max = usize::try_from(frame.remaining).unwrap_or(usize::MAX);
        let step = message.len().clamp(LEND_BYTES_MIN, LEND_BYTES_MAX).min(len_max);
        // Less than half a step of room is not worth a receive.
        if message.buffer.capacity() - message.buffer.len() < step.div_ceil(2) {
            message.make_room(step, &frame, &mut spares.pool);
        }
        if message.buffer.is_empty() {
            message.set_headroom();
        }
        debug_assert!(message.buffer.capacity() > message.buffer.len());
        partial.lent = Some(message.buffer.capacity());
        Some(Lent { buffer: std::mem::take(&mut message.buffer), len_max })
    }

    /// Takes the lent buffer back with `fresh` received bytes at its end, which may be 0, and continues as
    /// [`Machine::next`] would: the message if it is complete, or a failure.
    ///
    /// # Panics
    /// Where `fresh` is more than the loan allowed.
    pub fn give_back<'a>(
        &'a mut self,
        buffer: Vec<u8>,
        fresh: usize,
        limits: &Limits,
        spares: &mut Spares,
        replies: &mut impl Replies,
    ) -> Option<Event<'a>> {
        let Some(partial) = self.partial.as_deref_mut() else {
            spares.give(buffer);
            return None;
        };
        let lent = partial.lent.take();
        let (Some(_), Some(mut frame)) = (lent, partial.frame) else {
            spares.give(buffer);
            return None;
        };
        assert!(fresh as u64 <= frame.remaining, "more received than the loan allowed");
        let taken = match (&mut partial.message, self.flow.mode) {
            (Some(message), Mode::Open) => message.restore(&frame, buffer, fresh),
            // Closed meanwhile: the bytes count, their content does not.
            _ => {
                spares.give(buffer);
                Ok(())
            }
        };
        frame.advance(fresh);
        partial.frame = (frame.remaining > 0).then_some(frame);
        if let Err(error) = taken {
            let rest = if frame.remaining > 0 { Rest::Of(frame) } else { Rest::Frames };
            return Some(self.fail(error, rest, spares, replies));
        }
        if frame.remaining > 0 || !frame.fin || self.flow.mode != Mode::Open {
            return None;
        }
        Some(self.deliver(limits, spares, replies))
    }

    /// Gives up the message that is being assembled, after [`Machine::close`]: what follows is read only for the peer's
    /// Close. A lent buffer is given up when it comes back.
    pub fn forget_message(&mut self, spares: &mut Spares) {
        debug_assert!(self.flow.mode != Mode::Open, "the rest of the message would be taken for a message");
        if let Some(partial) = self.partial.as_mut().filter(|partial| partial.lent.is_none()) {
            partial.drop_message(&mut spares.pool);
        }
    }

    /// Gives all storage to the pool: the connection is over, nothing more will be read from it.
    pub fn take_buffers(&mut self, spares: &mut Spares) {
        self.flow.mode = Mode::Deaf;
        if let Some(mut partial) = self.partial.take() {
            partial.clear(&mut spares.pool);
            partial.lent = None;
            spares.give_record(partial);
        }
    }

    /// Bytes of heap that the incomplete frame or message holds, a lent buffer included, and what messages to come may refer
    /// to.
    #[inline]
    pub fn memory_bytes(&self) -> usize {
        self.partial.as_ref().map_or(0, |partial| partial.memory_bytes())
    }

    /// Which end this is.
    #[inline]
    pub fn role(&self) -> Role {
        self.flow.role
    }

    /// No Close frame was sent or received, and nothing failed: messages may be sent (RFC 6455 5.5.1).
    #[inline]
    pub fn is_open(&self) -> bool {
        self.flow.mode == Mode::Open
    }

    /// A Close frame was queued: nothing may be sent behind it (RFC 6455 5.5.1).
    #[inline]
    pub fn close_sent(&self) -> bool {
        self.flow.close_sent
    }

    /// The peer's Close frame arrived.
    #[inline]
    pub fn close_received(&self) -> bool {
        self.flow.close_received
    }

    /// The peer broke the protocol.
    #[inline]
    pub fn failed(&self) -> bool {
        self.flow.failed
    }

    /// The peer's bytes cannot say anything more: both Close frames are exchanged, or frames cannot be told apart after a
    /// failure. Flush, then close the connection (RFC 6455 7.1.1).
    #[inline]
    pub fn is_done(&self) -> bool {
        self.flow.mode == Mode::Deaf
    }

    #[inline(never)]
    fn next_slow<'a>(
        &'a mut self,
        input: &'a mut [u8],
        consumed: &mut usize,
        limits: &Limits,
        spares: &mut Spares,
        replies: &mut impl Replies,
    ) -> Option<Event<'a>> {
        debug_assert!(self.partial.as_ref().is_none_or(|p| p.lent.is_none()), "buffer is lent");
        loop {
            match self.flow.mode {
                Mode::Open => {}
                Mode::Skimming => return self.skim(input, consumed, spares),
                Mode::Deaf => {
                    *consumed = input.len();
                    self.discard(spares);
                    return None;
                }
            }
            let mut frame = match self.frame(input, consumed, spares) {
                Ok(Some(frame)) => frame,
                Ok(None) => {
                    self.release_if_idle(spares);
                    return None;
                }
                Err(error) => return Some(self.fail(error, Rest::Lost, spares, replies)),
            };
            if !frame.begun
                && let Err(error) = self.admit(&frame, limits)
            {
                return Some(self.fail(error, Rest::Of(frame), spares, replies));
            }
            let start = *consumed;
            let share = frame.share(input.len() - start);
            *consumed += share;
            let whole = !frame.begun && share as u64 == frame.remaining;
            let in_message = self.partial.as_ref().is_some_and(|p| p.message.is_some());

            if whole && (frame.opcode.is_control() || (frame.fin && !in_message)) {
                self.set_frame(None, spares);
                let payload = &mut input[start..start + share];
                let is_ascii = frame.key.is_some_and(|key| mask::apply(key, 0, payload));
                let payload: &'a [u8] = payload;
                let kind = match frame.opcode {
                    Opcode::Text => Kind::Text,
                    Opcode::Binary => Kind::Binary,
                    control => {
                        let event = self.flow.control(control, payload, replies);
                        return Some(event);
                    }
                };
                self.release_if_idle(spares);
                if frame.rsv1 {
                    return Some(self.deliver_compressed(kind, payload, limits, spares, replies));
                }
                if kind == Kind::Text && !is_ascii && !utf8::is_valid(payload) {
                    return Some(self.fail(ProtocolError::BadUtf8, Rest::Frames, spares, replies));
                }
                return Some(Event::Message(Incoming {
                    kind,
                    payload: Payload::Borrowed(payload),
                    uncompressed: false,
                }));
            }

            let partial = self.partial.get_or_insert_with(|| spares.take_record());
            let piece = &input[start..start + share];
            if frame.opcode.is_control() {
                partial.push_control(&frame, piece);
                frame.advance(share);
                if frame.remaining > 0 {
                    partial.frame = Some(frame);
                    return None;
                }
                partial.frame = None;
                // Borrowed from the record, which goes with the next call.
                let Some(partial) = &self.partial else { unreachable!("just made") };
                return Some(self.flow.control(frame.opcode, partial.control(), replies));
            }

            let message = partial.message.get_or_insert_with(|| {
                let text = frame.opcode == Opcode::Text;
                Assembly::new(if text { Kind::Text } else { Kind::Binary }, frame.rsv1)
            });
            message.fragments += u32::from(!frame.begun);
            let taken = message.append(&frame, piece, &mut spares.pool);
            frame.advance(share);
            frame.begun = true;
            let more = frame.remaining > 0;
            partial.frame = more.then_some(frame);
            if let Err(error) = taken {
                let rest = if more { Rest::Of(frame) } else { Rest::Frames };
                return Some(self.fail(error, rest, spares, replies));
            }
            if more {
                return None;
            }
            if frame.fin {
                return Some(self.deliver(limits, spares, replies));
            }
        }
    }

    /// The frame to go on with: the one under way, or the next of the input once its header is complete. `None`: the input
    /// ended before.
    fn frame(
        &mut self,
        input: &[u8],
        consumed: &mut usize,
        spares: &mut Spares,
    ) -> Result<Option<Frame>, ProtocolError> {
        if let Some(frame) = self.partial.as_ref().and_then(|partial| partial.frame) {
            return Ok(Some(frame));
        }
        let rest = &input[*consumed..];
        if rest.is_empty() {
            return Ok(None);
        }
        let open = self.flow.mode == Mode::Open;
        let in_message = self.partial.as_ref().is_some_and(|partial| partial.message.is_some());
        let expect = Expect {
            masked: Some(self.flow.role == Role::Server),
            rsv1: self.flow.deflates,
            continuation: open.then_some(in_message),
        };
        let stored = self.partial.as_ref().map_or(0, |partial| usize::from(partial.head_len));
        let head;
        let bytes = match &self.partial {
            Some(partial) if stored > 0 => {
                head = partial.head_with(rest);
                &head.0[..head.1]
            }
            _ => rest,
        };
        match decode_header_as(bytes, expect) {
            Ok(Some((header, len))) => {
                *consumed += len - stored;
                if let Some(partial) = &mut self.partial {
                    partial.head_len = 0;
                }
                tell(header.opcode, header.fin, header.payload_len);
                Ok(Some(Frame::new(header)))
            }
            Ok(None) => {
                self.partial.get_or_insert_with(|| spares.take_record()).keep_head(bytes);
                *consumed = input.len();
                Ok(None)
            }
            Err(error) => {
                *consumed = input.len();
                Err(error)
            }
        }
    }

    /// Holds a frame whose header is complete against the limits.
    fn admit(&self, frame: &Frame, limits: &Limits) -> Result<(), ProtocolError> {
        if frame.opcode.is_control() {
            return Ok(());
        }
        let message = self.partial.as_ref().and_then(|partial| partial.message.as_ref());
        let (len, fragments) = message.map_or((0, 0), |message| (message.len(), message.fragments));
        // RFC 6455 10.4: limits on frame and message size, applied before any of it is stored.
        if frame.remaining > (limits.message_bytes_max as u64).saturating_sub(len as u64) {
            return Err(ProtocolError::MessageTooBig);
        }
        let single = frame.fin && message.is_none();
        if !single && fragments >= limits.fragments_max {
            return Err(ProtocolError::TooManyFragments);
        }
        Ok(())
    }

    /// The assembled message is complete.
    fn deliver<'a>(&mut self, limits: &Limits, spares: &mut Spares, replies: &mut impl Replies) -> Event<'a> {
        let message = self.partial.as_mut().and_then(|partial| partial.message.take());
        let Some(message) = message else { unreachable!("a complete frame without a message") };
        self.release_if_idle(spares);
        let (kind, compressed) = (message.kind, message.compressed);
        match message.finish() {
            Ok(payload) if compressed => {
                let event = self.deliver_compressed(kind, &payload, limits, spares, replies);
                spares.give(payload.into_parts().0);
                event
            }
            Ok(payload) => Event::Message(Incoming { kind, payload: Payload::Owned(payload), uncompressed: false }),
            Err(error) => self.fail(error, Rest::Frames, spares, replies),
        }
    }

    /// A message is all there, and compressed.
    fn deliver_compressed<'a>(
        &mut self,
        kind: Kind,
        compressed: &[u8],
        limits: &Limits,
        spares: &mut Spares,
        replies: &mut impl Replies,
    ) -> Event<'a> {
        let is_text = |payload: &OwnedPayload| kind == Kind::Binary || utf8::is_valid(payload);
        let context = self.partial.as_mut().and_then(|partial| partial.context.as_deref_mut());
        match spares.inflate(compressed, context, limits.message_bytes_max) {
            Ok(payload) if is_text(&payload) => {
                Event::Message(Incoming { kind, payload: Payload::Owned(payload), uncompressed: false })
            }
            Ok(payload) => {
                spares.give(payload.into_parts().0);
                self.fail(ProtocolError::BadUtf8, Rest::Frames, spares, replies)
            }
            Err(error) => self.fail(error, Rest::Frames, spares, replies),
        }
    }

    /// Fails the connection (RFC 6455 7.1.7).
    #[cold]
    fn fail<'a>(
        &mut self,
        error: ProtocolError,
        rest: Rest,
        spares: &mut Spares,
        replies: &mut impl Replies,
    ) -> Event<'a> {
        let frame = match rest {
            Rest::Of(frame) if frame.remaining > 0 => Some(frame),
            _ => None,
        };
        self.flow.fail(error, replies);
        if matches!(rest, Rest::Lost) {
            self.flow.mode = Mode::Deaf;
        }
        if let Some(partial) = &mut self.partial {
            partial.clear(&mut spares.pool);
        }
        self.set_frame(frame, spares);
        self.release_if_idle(spares);
        Event::Failed(error)
    }

    /// Looks for the peer's Close behind our own; reads no more than headers of what comes before it.
    fn skim<'a>(&'a mut self, input: &'a mut [u8], consumed: &mut usize, spares: &mut Spares) -> Option<Event<'a>> {
        if let Some(partial) = &mut self.partial {
            partial.drop_message(&mut spares.pool);
        }
        loop {
            let mut frame = match self.frame(input, consumed, spares) {
                Ok(Some(frame)) => frame,
                Ok(None) => {
                    self.release_if_idle(spares);
                    return None;
                }
                Err(error) => {
                    self.discard(spares);
                    return self.flow.end(Err(error));
                }
            };
            let start = *consumed;
            let share = frame.share(input.len() - start);
            *consumed += share;
            if frame.opcode == Opcode::Close {
                let partial = self.partial.get_or_insert_with(|| spares.take_record());
                partial.push_control(&frame, &input[start..start + share]);
            }
            frame.advance(share);
            let more = frame.remaining > 0;
            self.set_frame(more.then_some(frame), spares);
            if more {
                return None;
            }
            if frame.opcode == Opcode::Close {
                *consumed = input.len();
                self.flow.close_received = true;
                let Some(partial) = &self.partial else { unreachable!("just filled") };
                return self.flow.end(close::parse(partial.control()));
            }
        }
    }

    /// Notes which frame is under way; takes a record only if there is one.
    fn set_frame(&mut self, frame: Option<Frame>, spares: &mut Spares) {
        if frame.is_some() || self.partial.is_some() {
            self.partial.get_or_insert_with(|| spares.take_record()).frame = frame;
        }
    }

    /// Nothing that is incomplete matters any more.
    fn discard(&mut self, spares: &mut Spares) {
        if let Some(partial) = &mut self.partial {
            partial.clear(&mut spares.pool);
        }
        self.release_if_idle(spares);
    }

    fn release_if_idle(&mut self, spares: &mut Spares) {
        self.flow.invariants();
        if let Some(partial) = self.partial.take_if(|partial| partial.is_idle() && partial.context.is_none()) {
            spares.give_record(partial);
        }
    }
}

/// A data message that is all there.
struct Whole {
    kind: Kind,
    key: Option<[u8; 4]>,
    header_len: usize,
    len: usize,
}

/// Has the log say what frame has begun, for whoever wants to know what a peer sends.
#[inline(always)]
fn tell(opcode: Opcode, fin: bool, len: u64) {
    #[cold]
    fn told(opcode: Opcode, fin: bool, len: u64) {
        tracing::trace!(target: "ringwire::frames", opcode = opcode as u8, fin, len, "frame");
    }
    if tracing::enabled!(target: "ringwire::frames", tracing::Level::TRACE) {
        told(opcode, fin, len);
    }
}

/// The hot path's look at the input: a data message in one frame of less than 64 KiB that is all there, with nothing
/// wrong in its header. `None` says nothing: [`decode_header_as`] finds out.
#[inline]
fn whole_message(role: Role, bytes: &[u8]) -> Option<Whole> {
    let &[first, second, ..] = bytes else {
        return None;
    };
    let kind = match first {
        0x81 => Kind::Text,
        0x82 => Kind::Binary,
        _ => return None,
    };
    let masked = role == Role::Server;
    if (second & 0x80 != 0) != masked {
        return None;
    }
    let (len, at) = match second & 0x7F {
        len @ 0..126 => (usize::from(len), 2),
        126 => match bytes.get(2..4) {
            Some(&[a, b]) => (usize::from(u16::from_be_bytes([a, b])), 4),
            _ => return None,
        },
        _ => return None,
    };
    if at == 4 && len < 126 {
        return None;
    }
    let (key, header_len) = if masked {
        match bytes.get(at..at + 4) {
            Some(&[a, b, c, d]) => (Some([a, b, c, d]), at + 4),
            _ => return None,
        }
    } else {
        (None, at)
    };
    (bytes.len() - header_len >= len).then_some(Whole { kind, key, header_len, len })
}

#[cfg(test)]
mod tests;
