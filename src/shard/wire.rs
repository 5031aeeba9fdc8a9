//! The seam between plain bytes and those on the wire: what is queued leaves as it is, or sealed; what arrives is handled as it
//! is, or opened first.
//!
//! A connection of a listener with TLS has a [`Line`]; all others have none, and nothing here costs them more than to see that.
//! Queues hold plain bytes, shared by whoever gets the same. For the batch each line's stretch is sealed, as few records as it
//! fits into, in an arena that lives until the batch is settled ([`Shard::seal_batch`]); of a long queue only a part, so that
//! most of it can still be dropped. What a socket does not take of the sealed bytes is the connection's waiting send, and so
//! is, sealed, each part that follows ([`Shard::send_rest`]). What a session has to say by itself leaves in front of that.
//!
//! What arrives is opened in the receive buffer, and handed on to the parser there. A handshake is different: it takes a
//! hundred times as long as a message. So its input is kept and waits its turn, [`HANDSHAKES_PER_TICK`] in a tick, and as many
//! at once in the process as the settings say; who takes a place and says nothing is given little time when others wait.

use bytes::Bytes;

use super::conn::Phase;
use super::gate::Worker;
use super::input::Next;
use super::lines::{Line, Sealed, Wires};
use super::requests::plain_on_tls;
use super::{STASH_BYTES_MAX, Shard};
use crate::engine::{Completion, Filled, Key, Op, Ring};
use crate::metrics::{RefusalReason, TlsResult};
use crate::outbox::Outbox;
use crate::shard::service::Service;
use crate::tls::{Event, Failure, RECORD_BYTES_MAX, Session, TlsError};

/// Steps of handshakes in one tick: a full one has one that costs a signature and two key exchanges, about 0.1 ms, and one that
/// costs little.
const HANDSHAKES_PER_TICK: usize = 4;
/// No further step is begun when they have taken so long in this tick: some keys are slower than others.
const HANDSHAKES_NS_PER_TICK: u64 = 100_000;
/// How long to wait before asking again for a place among the process's handshakes.
const PLACE_AGAIN_MS: u64 = 2;
/// How often those who take a place are hurried while others wait.
const HURRY_AGAIN_MS: u64 = 1_000;
/// Most bytes of one connection that are sealed at once.
const SEALED_BYTES_MAX: usize = 256 << 10;

/// What became of received bytes.
pub(super) struct Opened {
    next: Next,
    is_ready: bool,
    is_closed: bool,
    failed: Option<TlsError>,
}

impl<S: Service> Worker<'_, S> {
    /// Opens records, and handles what is in them as far as it may be handled now; what may not is held back.
    fn open_records(&mut self, session: &mut Session, data: &mut [u8]) -> Opened {
        let mut opened = Opened { next: Next::Go, is_ready: false, is_closed: false, failed: None };
        let mut at = 0;
        let mut waits = self.conn.waits_for.is_some();
        loop {
            let plain = match session.next(data, &mut at, &mut self.cx.hub.spares) {
                Ok(None) => return opened,
                Ok(Some(Event::Data(plain))) => plain,
                Ok(Some(Event::Ready)) => {
                    opened.is_ready = true;
                    self.cx.wires.set_info(self.cx.slot, session.info().cloned());
                    continue;
                }
                Ok(Some(Event::Closed)) => {
                    opened.is_closed = true;
                    continue;
                }
                Err(error) => {
                    opened.failed = Some(error);
                    return opened;
                }
            };
            match opened.next {
                _ if waits => self.conn.stash.get_or_insert_default().push(plain),
                Next::Go => {
                    opened.next = self.input(plain);
                    waits = matches!(opened.next, Next::Wait(_));
                }
                // The peer's Close is still looked for.
                Next::Failed => {
                    let _ = self.frames(plain);
                    if self.conn.machine.close_received() {
                        opened.next = Next::Flush;
                    }
                }
                Next::Flush | Next::Refuse | Next::Wait(_) => {}
            }
        }
    }
}

impl<R: Ring, S: Service> Shard<R, S> {
    /// Gives a connection that was just accepted a line, if its listener speaks TLS.
    pub(super) fn begin_line(&mut self, slot: u32) {
        let listener = usize::from(self.conns[slot].listener);
        if let Some(Some(acceptor)) = self.settings.acceptors.get(listener) {
            self.wires.begin(slot, acceptor.session());
        }
    }

    /// The connection has ended.
    pub(super) fn end_line(&mut self, slot: u32) {
        let Some(line) = self.wires.lines.get_mut(slot as usize).and_then(Option::take) else { return };
        if let Some(session) = &line.session
            && session.is_handshaking()
            && session.has_begun()
        {
            self.hub.counters.tls_handshakes.add(TlsResult::Abandoned, 1);
        }
        if line.has_place {
            self.admission.end_handshake();
        }
    }

    /// Whether everything has left that a connection has to send.
    pub(super) fn is_all_sent(&self, slot: u32) -> bool {
        self.hub.outbox.is_empty(slot) && self.wires.is_quiet(slot)
    }

    /// The connection says close_notify behind what is queued to it.
    pub(super) fn end_of_output(&mut self, slot: u32) {
        let key = self.conns.key(slot);
        if let Some(line) = self.wires.line_mut(slot) {
            line.ends = true;
            self.wires.mark_urgent(key);
        }
    }

    // ---- receiving --------------------------------------------------------------------------------------------------

    /// Takes what a connection with a line has received.
    pub(super) fn feed_line(&mut self, slot: u32, filled: &Filled) {
        let was = self.conns[slot].phase;
        let Some(line) = self.wires.line_mut(slot) else { return };
        let is_handshaking = line.session.as_ref().is_some_and(|session| session.is_handshaking());
        if is_handshaking || !line.pending.is_empty() {
            line.pending.extend_from_slice(self.ring.buffer(filled));
            return self.queue_handshake(slot);
        }
        let Some(mut session) = line.session.take() else { return };
        let waited = self.conns[slot].waits_for.is_some();
        let (mut worker, ring) = self.worker(slot);
        let opened = worker.open_records(&mut session, ring.buffer(filled));
        self.opened(slot, was, waited, session, opened);
    }

    /// Bytes of the handshake have come with something else.
    pub(super) fn feed_handshake(&mut self, slot: u32, bytes: &[u8]) {
        if let Some(line) = self.wires.line_mut(slot) {
            line.pending.extend_from_slice(bytes);
            self.queue_handshake(slot);
        }
    }

    fn queue_handshake(&mut self, slot: u32) {
        let key = self.conns.key(slot);
        let Some(line) = self.wires.line_mut(slot) else { return };
        if line.pending.len() > STASH_BYTES_MAX {
            self.stop_receiving(slot);
        }
        let Some(line) = self.wires.line_mut(slot) else { return };
        if !std::mem::replace(&mut line.is_queued, true) {
            self.wires.queue.push_back(key);
        }
        self.account(slot);
    }

    /// Lets the handshakes whose turn it is go on.
    pub(super) fn go_on_with_handshakes(&mut self) {
        if self.wires.queue.is_empty() {
            return;
        }
        // What is queued to others leaves before, as long as one step may take a hundred times as long; but not twice in a row.
        if self.hub.outbox.has_dirty() && !std::mem::replace(&mut self.wires.has_yielded, true) {
            return;
        }
        self.wires.has_yielded = false;
        let until_ns = self.ring.now() + HANDSHAKES_NS_PER_TICK;
        self.wires.again_ms = 0;
        let mut steps = 0;
        while steps < HANDSHAKES_PER_TICK
            && self.ring.now() < until_ns
            && let Some(key) = self.wires.queue.pop_front()
        {
            if !self.conns.contains(key) {
                continue;
            }
            let slot = key.slot();
            let Some(line) = self.wires.line_mut(slot) else { continue };
            if !line.has_place && line.session.as_ref().is_some_and(|session| session.is_handshaking()) {
                line.has_place = self.admission.begin_handshake();
                if !line.has_place {
                    self.wires.queue.push_front(key);
                    return self.wait_for_place();
                }
            }
            line.is_queued = false;
            steps += 1;
            self.take_step(slot);
        }
    }

    /// All places are taken. Those who take one and say nothing must not keep everybody else waiting.
    #[cold]
    fn wait_for_place(&mut self) {
        let now_ms = self.now_ms();
        self.wires.again_ms = now_ms + PLACE_AGAIN_MS;
        if self.wires.hurry_again_ms <= now_ms {
            self.wires.hurry_again_ms = now_ms + HURRY_AGAIN_MS;
            let has_place = |line: &Option<Box<Line>>| line.as_ref().is_some_and(|line| line.has_place);
            let slots: Vec<usize> =
                (0..self.wires.lines.len()).filter(|slot| has_place(&self.wires.lines[*slot])).collect();
            for slot in slots {
                self.hurry_one(slot as u32);
            }
        }
    }

    fn take_step(&mut self, slot: u32) {
        let was = self.conns[slot].phase;
        let Some(line) = self.wires.line_mut(slot) else { return };
        let Some(mut session) = line.session.take() else { return };
        let mut pending = std::mem::take(&mut line.pending);
        let waited = self.conns[slot].waits_for.is_some();
        let opened = match was {
            Phase::Http | Phase::Open | Phase::Closing => self.worker(slot).0.open_records(&mut session, &mut pending),
            _ => Opened { next: Next::Go, is_ready: false, is_closed: false, failed: None },
        };
        if opened.is_ready {
            let is_resumed = session.info().is_some_and(|info| info.is_resumed());
            let result = if is_resumed { TlsResult::Resumed } else { TlsResult::Full };
            self.hub.counters.tls_handshakes.add(result, 1);
        }
        if !session.is_handshaking()
            && let Some(line) = self.wires.line_mut(slot)
            && std::mem::take(&mut line.has_place)
        {
            self.admission.end_handshake();
        }
        self.opened(slot, was, waited, session, opened);
        self.account(slot);
        let conn = &self.conns[slot];
        if conn.peer_finished && conn.waits_for.is_none() {
            self.end_of_input(slot);
        } else {
            self.start_receiving(slot);
        }
    }

    /// Goes on by what became of received bytes.
    fn opened(&mut self, slot: u32, was: Phase, waited: bool, session: Box<Session>, opened: Opened) {
        let key = self.conns.key(slot);
        let has_output = session.has_output();
        if let Some(line) = self.wires.line_mut(slot) {
            line.session = Some(session);
        }
        if has_output {
            self.wires.mark_urgent(key);
        }
        let holds =
            self.conns[slot].holds() || self.wires.session(slot).is_some_and(|session| session.memory_bytes() > 0);
        if !waited && (was == Phase::Http || opened.next != Next::Go) {
            self.after_input(slot, was, opened.next);
        }
        let stash_len = self.conns[slot].stash.as_ref().map_or(0, |stash| stash.bytes.len());
        if self.conns[slot].waits_for.is_some() && stash_len > STASH_BYTES_MAX {
            self.stop_receiving(slot);
        }
        if let Some(error) = opened.failed {
            self.line_failed(slot, &error);
        } else if opened.is_closed {
            let conn = &mut self.conns[slot];
            conn.peer_finished = true;
            if conn.waits_for.is_none() {
                self.end_of_input(slot);
            }
        }
        if holds {
            self.account(slot);
        }
    }

    /// A session has failed: its peer is told, if it can be, and the connection ends.
    #[cold]
    fn line_failed(&mut self, slot: u32, error: &TlsError) {
        let failure = error.failure();
        let peer = self.conns[slot].peer.into();
        super::log::tls_failed(&self.hub, peer, error, self.wires.info(slot).is_some());
        let date = &self.clock.date;
        if self.wires.info(slot).is_some() {
            self.hub.counters.protocol_errors += u64::from(failure != Failure::Alert);
        } else {
            self.hub.counters.tls_handshakes.add(TlsResult::from(failure), 1);
        }
        if failure == Failure::PlainHttp {
            self.hub.counters.refused.add(RefusalReason::Tls, 1);
            if let Some(session) = self.wires.line_mut(slot).and_then(|line| line.session.as_mut()) {
                session.say_plainly(plain_on_tls(date));
            }
        }
        let conn = &mut self.conns[slot];
        if !matches!(conn.phase, Phase::Http | Phase::Open | Phase::Closing) {
            return;
        }
        conn.end(1006, &error.to_string(), crate::metrics::Side::Nobody);
        if conn.phase == Phase::Open {
            self.hub.mark_closing(slot);
        }
        // What is queued cannot be sealed any more.
        self.hub.outbox.discard(slot);
        self.conns[slot].lingers = true;
        self.start_flush(slot);
    }

    // ---- sending ----------------------------------------------------------------------------------------------------

    /// Seals what leaves in the next batch.
    #[inline]
    pub(super) fn seal_batch(&mut self) {
        if !self.wires.lines.is_empty() {
            self.seal_lines();
        }
    }

    fn seal_lines(&mut self) {
        debug_assert!(self.wires.sealed.is_empty() && self.wires.arena.is_empty());
        let outbox: &mut Outbox = &mut self.hub.outbox;
        let bytes_max = outbox.sealed_bytes_max().clamp(RECORD_BYTES_MAX, SEALED_BYTES_MAX);
        let mut added = 0;
        for to_send in outbox.batch() {
            added += self.wires.seal(&to_send, bytes_max).unwrap_or(0);
        }
        for key in std::mem::take(&mut self.wires.urgent) {
            let slot = key.slot();
            if !self.conns.contains(key) {
                continue;
            }
            let is_parked = outbox.is_parked(slot);
            let is_empty = outbox.is_empty(slot);
            let Wires { lines, arena, sealed, .. } = &mut self.wires;
            let Some(line) = lines[slot as usize].as_deref_mut() else { continue };
            line.is_urgent = false;
            // What waits for a full socket goes on with it; what was sealed just now has it in front.
            if is_parked || line.is_quiet() {
                continue;
            }
            let start = arena.len();
            line.speak(is_empty, arena);
            let (end, plain, has_more, is_short) = (arena.len(), 0, false, false);
            added += end - start;
            if start < end {
                sealed.push(Sealed { key, start, end, plain, has_more, is_short });
            }
        }
        outbox.add_sealing(added);
    }

    /// A send of sealed bytes was not sent whole. `false` if it was none of sealed bytes.
    pub(super) fn sealed_short(&mut self, key: Key, completion: &Completion) -> bool {
        if !self.wires.has_line(key.slot()) {
            return false;
        }
        let slot = key.slot();
        let Some(sealed) = self.wires.sealed_mut(key) else { return true };
        sealed.is_short = true;
        let (start, end, plain) = (sealed.start, sealed.end, sealed.plain);
        let Ok(sent) = completion.sent() else {
            self.hub.outbox.send_failed(slot);
            self.sending.broken.push(key);
            return true;
        };
        let rest = Bytes::copy_from_slice(&self.wires.arena[start + sent..end]);
        if self.hub.outbox.sent_sealed(slot, plain, rest.clone()) {
            self.launch_send(slot, rest);
            self.watch_write(slot);
        }
        true
    }

    /// Goes on with those whose queues had more than was sealed, when all of that was sent.
    pub(super) fn settle_sealed(&mut self) {
        if self.wires.sealed.is_empty() {
            return;
        }
        let mut sealed = std::mem::take(&mut self.wires.sealed);
        for sealed in sealed.drain(..).filter(|sealed| sealed.has_more && !sealed.is_short) {
            let slot = sealed.key.slot();
            if self.conns.contains(sealed.key)
                && let Some(rest) = self.hub.outbox.sent_short(slot, sealed.plain)
            {
                self.send_rest(slot, rest);
                self.watch_write(slot);
            }
        }
        self.wires.sealed = sealed;
        self.wires.clear_arena();
    }

    /// Seals the next part of a queue whose socket is full, and whatever the session has to say.
    pub(super) fn sealed_rest(&mut self, slot: u32, bytes: Bytes) -> Bytes {
        let ends = self.hub.outbox.is_last_in_flight(slot);
        let key = self.conns.key(slot);
        let Some(line) = self.wires.line_mut(slot) else { return bytes };
        let ends = ends && line.ends;
        let Some(session) = line.session.as_deref_mut() else { return bytes };
        let records = bytes.len() / RECORD_BYTES_MAX + 3;
        let mut sealed = self.hub.spares.take(bytes.len() + records * crate::tls::RECORD_OVERHEAD_MAX);
        if session.seal([&bytes[..]], &mut sealed).is_err() {
            self.sending.broken.push(key);
        } else if ends {
            session.seal_close(&mut sealed);
        }
        let sealed = Bytes::from(sealed);
        if sealed.is_empty() {
            // A session that has failed and has nothing to say: the connection is about to end.
            self.sending.broken.push(key);
            return bytes;
        }
        self.hub.outbox.seal_in_flight(slot, sealed.clone());
        sealed
    }

    /// Sends what a session has to say by itself when a waiting send is done that nothing is queued behind.
    pub(super) fn speak_behind(&mut self, slot: u32) {
        let Some(line) = self.wires.line_mut(slot).filter(|line| !line.is_quiet()) else { return };
        let mut said = Vec::new();
        line.speak(true, &mut said);
        if said.is_empty() {
            return;
        }
        let said = Bytes::from(said);
        self.hub.outbox.add_sealing(said.len());
        if self.hub.outbox.sent_sealed(slot, 0, said.clone()) {
            self.launch_send(slot, said);
        }
    }

    fn launch_send(&mut self, slot: u32, bytes: Bytes) {
        let token = self.conns.launch(Op::Send, slot);
        self.ring.send(token, bytes);
    }
}

impl From<Failure> for TlsResult {
    fn from(failure: Failure) -> TlsResult {
        match failure {
            Failure::PlainHttp => TlsResult::PlainHttp,
            Failure::NotTls => TlsResult::NotTls,
            Failure::NothingInCommon => TlsResult::NothingInCommon,
            Failure::NoCertificate => TlsResult::NoCertificate,
            Failure::PeerCertificate => TlsResult::PeerCertificate,
            Failure::Alert => TlsResult::Alert,
            Failure::Truncated => TlsResult::Abandoned,
            Failure::Internal => TlsResult::Internal,
            _ => TlsResult::Protocol,
        }
    }
}
