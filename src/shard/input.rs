//! What a connection receives: from the ring's buffers through parser and handlers.

use super::conn::{Conn, Phase, Receiving, Stash};
use super::life::after;
use super::service::{Answer, Ended, Request, Response, Service};
use super::{LINGER_MS, STASH_BYTES_MAX, Settings, Shard};
use crate::admission::{Admission, Refused};
use crate::config::Origins;
use crate::engine::{Completion, Filled, Op, Ring};
use crate::hub::CoreHub;
use crate::outbox::OutboxReplies;
use crate::proto::handshake::{self, Refusal};
use crate::proto::http::put_response;
use crate::proto::http::{self, Body, HeadError, HeadLimits, RequestHead};
use crate::proto::{Event, Incoming, Payload};
use crate::proto::{HEADROOM, OwnedPayload};
use http_status::StatusCode;

/// `http` is the protocol module here.
use ::http as http_status;

/// What a connection's input leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    /// More input.
    Go,
    /// Close when everything queued is sent.
    Flush,
    /// Likewise, but the peer may still be sending.
    Refuse,
    /// The peer broke the protocol and has been told so.
    Failed,
    /// The rest is held back until what is queued to this connection has been sent.
    PauseForOutbox,
    /// The rest is held back until letters to other cores have been delivered.
    PauseForMail,
}

impl<R: Ring, S: Service> Shard<R, S> {
    /// A multishot receive brought data, or ended, or both.
    pub(super) fn received(&mut self, completion: &Completion) {
        let slot = completion.token.index();
        let current = self.is_current(completion.token);
        if let Some(filled) = completion.filled {
            if current {
                self.feed(slot, filled);
            }
            self.ring.recycle(filled);
        }
        if current && !completion.more {
            self.receive_ended(slot, completion);
        }
    }

    fn receive_ended(&mut self, slot: u32, completion: &Completion) {
        let conn = &mut self.conns[slot as usize];
        conn.in_flight -= 1;
        conn.receiving = Receiving::Idle;
        if conn.phase == Phase::Dead {
            return self.free_if_done(slot);
        }
        match completion.result {
            // Data without F_MORE: the kernel ended the multishot for its own reasons.
            Ok(_) if completion.filled.is_some() => self.start_receiving(slot),
            Ok(_) => {
                conn.peer_finished = true;
                if !conn.paused {
                    self.end_of_input(slot);
                }
            }
            Err(libc::ENOBUFS) => {
                self.hub.counters.buffers_missing += 1;
                self.starved.push((slot, self.generations[slot as usize]));
            }
            Err(libc::ECANCELED | libc::EINTR | libc::EAGAIN) => self.start_receiving(slot),
            Err(_) => self.finish(slot, 1006, "the connection broke"),
        }
    }

    /// The peer will send nothing more, and everything it sent has been handled.
    fn end_of_input(&mut self, slot: u32) {
        let conn = &mut self.conns[slot as usize];
        match conn.phase {
            Phase::Open => {
                conn.end(1006, "the peer closed without a Close frame", false);
                self.hub.mark_closing(slot);
                self.start_flush(slot);
            }
            Phase::Http | Phase::Closing => self.start_flush(slot),
            Phase::Flushing if self.hub.outbox.is_empty(slot) => self.teardown(slot),
            Phase::Flushing | Phase::Accepting | Phase::Delayed | Phase::Dead => {}
        }
    }

    #[inline]
    fn feed(&mut self, slot: u32, filled: Filled) {
        let conn = &mut self.conns[slot as usize];
        conn.last_inbound_ms = self.now_ns / 1_000_000;
        self.hub.counters.bytes_in += u64::from(filled.len);
        if !matches!(conn.phase, Phase::Open | Phase::Http | Phase::Closing) {
            return;
        }
        if conn.paused {
            return self.hold_back(slot, filled);
        }
        let was = conn.phase;
        let cx = Context {
            slot,
            generation: self.generations[slot as usize],
            hub: &mut self.hub,
            service: &mut self.service,
            admission: &self.admission,
            settings: &self.settings,
            now_ns: self.now_ns,
        };
        let mut worker = Worker { conn, cx };
        let next = worker.input(self.ring.buffer(filled));
        if was == Phase::Http || next != Next::Go {
            self.after_input(slot, was, next);
        }
    }

    /// Input of a paused connection waits in its stash; if there is much of it, no more is received.
    #[cold]
    fn hold_back(&mut self, slot: u32, filled: Filled) {
        let token = self.token(Op::Recv, slot);
        let conn = &mut self.conns[slot as usize];
        let stash = conn.stash.get_or_insert_default();
        stash.bytes.extend_from_slice(self.ring.buffer(filled));
        if stash.bytes.len() > STASH_BYTES_MAX && conn.receiving == Receiving::Multi {
            conn.receiving = Receiving::Stopping;
            self.ring.cancel_recv(token);
        }
    }

    fn after_input(&mut self, slot: u32, was: Phase, next: Next) {
        let now_ms = self.now_ms();
        let conn = &mut self.conns[slot as usize];
        if was == Phase::Http && conn.phase != Phase::Http {
            self.watch_over(slot);
        } else if was == Phase::Http && conn.stash.is_none() {
            // Between requests: the next head has as long as the first one had.
            conn.deadline_ms = after(now_ms, self.settings.handshake_timeout);
        }
        match next {
            Next::Go => {}
            Next::Flush => self.start_flush(slot),
            Next::Refuse => {
                self.conns[slot as usize].lingers = true;
                self.start_flush(slot);
            }
            Next::Failed => {
                let conn = &mut self.conns[slot as usize];
                conn.phase = Phase::Closing;
                // Where frames cannot be told apart any more, the peer's Close will not be recognised.
                let close_timeout_ms = after(0, self.settings.close_timeout);
                let limit_ms = if conn.machine.is_done() { LINGER_MS.min(close_timeout_ms) } else { close_timeout_ms };
                conn.deadline_ms = now_ms.saturating_add(limit_ms);
                let deadline_ms = conn.deadline_ms;
                self.look_at(slot, deadline_ms);
            }
            Next::PauseForOutbox => {
                self.conns[slot as usize].paused = true;
                self.watch(slot);
            }
            Next::PauseForMail => {
                self.conns[slot as usize].paused = true;
                self.congested.push((slot, self.generations[slot as usize]));
            }
        }
    }

    /// Handles the input that was held back from connections that may go on.
    pub(super) fn resume(&mut self) {
        for (slot, generation) in std::mem::take(&mut self.resumable) {
            if self.generations[slot as usize] != generation {
                continue;
            }
            let Some(conn) = self.conns.get_mut(slot as usize).filter(|conn| conn.paused) else { continue };
            conn.paused = false;
            let was = conn.phase;
            let stash = conn.stash.take();
            if let (Some(mut stash), Phase::Http | Phase::Open | Phase::Closing) = (stash, was) {
                let cx = Context {
                    slot,
                    generation,
                    hub: &mut self.hub,
                    service: &mut self.service,
                    admission: &self.admission,
                    settings: &self.settings,
                    now_ns: self.now_ns,
                };
                let mut worker = Worker { conn, cx };
                let next = worker.stashed(&mut stash);
                self.after_input(slot, was, next);
            }
            let conn = &self.conns[slot as usize];
            if conn.phase != Phase::Dead && !conn.paused {
                if conn.peer_finished {
                    self.end_of_input(slot);
                } else {
                    self.start_receiving(slot);
                }
            }
        }
    }

    /// The time for a request head is up: 408 to whoever has begun one or never tried, nothing to a kept-alive
    /// connection that has no more requests.
    pub(super) fn request_timed_out(&mut self, slot: u32) {
        let conn = &self.conns[slot as usize];
        if conn.stash.is_none() && conn.answered {
            return self.teardown(slot);
        }
        self.hub.counters.refused += 1;
        let response = Response::error(StatusCode::REQUEST_TIMEOUT, "the request head took too long");
        queue_response(&mut self.hub, slot, &response, false, false);
        self.conns[slot as usize].lingers = true;
        self.start_flush(slot);
    }
}

/// Handles one connection's input. Two parts, so that a message may be borrowed from the connection's machine while the
/// rest of the core handles it.
struct Worker<'w, S> {
    conn: &'w mut Conn,
    cx: Context<'w, S>,
}

struct Context<'w, S> {
    slot: u32,
    generation: u32,
    hub: &'w mut CoreHub,
    service: &'w mut S,
    admission: &'w Admission,
    settings: &'w Settings,
    now_ns: u64,
}

impl<S: Service> Context<'_, S> {
    /// Why the next message must wait: what the last ones led to has to leave first.
    #[inline]
    fn must_pause(&self) -> Option<Next> {
        if self.hub.outbox.queued_bytes(self.slot) > self.settings.pause_bytes {
            Some(Next::PauseForOutbox)
        } else if self.hub.is_congested() {
            Some(Next::PauseForMail)
        } else {
            None
        }
    }

    #[inline]
    fn deliver(&mut self, rate_due_ns: &mut u64, message: Incoming<'_>) {
        // After a handler has closed the connection, what still arrives is read only for the peer's Close.
        if !self.hub.outbox.is_open(self.slot) {
            return;
        }
        self.hub.counters.messages_in += 1;
        let rate = self.settings.message_rate_per_second;
        if rate > 0 && is_too_fast(rate_due_ns, self.now_ns, rate) {
            return self.hub.close(self.slot, Some(1008), "message rate exceeded");
        }
        self.service.message(self.hub, self.slot, message);
    }
}

impl<S: Service> Worker<'_, S> {
    /// Handles what was held back.
    fn stashed(&mut self, stash: &mut Stash) -> Next {
        if let Some((kind, payload)) = stash.message.take() {
            self.cx.deliver(&mut self.conn.rate_due_ns, Incoming { kind, payload: Payload::Owned(payload) });
        }
        self.input(&mut stash.bytes)
    }

    #[inline]
    fn input(&mut self, data: &mut [u8]) -> Next {
        if self.conn.phase == Phase::Http { self.requests(data) } else { self.frames(data) }
    }

    // ---- WebSocket ------------------------------------------------------------------------------------------------

    fn frames(&mut self, data: &mut [u8]) -> Next {
        let mut consumed = 0;
        let mut failed = false;
        loop {
            let mut replies = OutboxReplies { outbox: &mut self.cx.hub.outbox, slot: self.cx.slot };
            let limits = &self.cx.settings.limits;
            let machine = &mut self.conn.machine;
            let Some(event) = machine.next(data, &mut consumed, limits, &mut self.cx.hub.pool, &mut replies) else {
                // Of a peer's Close after a failure there is no event.
                return match (failed || self.conn.phase == Phase::Closing, self.conn.machine.close_received()) {
                    (true, true) => Next::Flush,
                    _ if failed => Next::Failed,
                    _ => Next::Go,
                };
            };
            match event {
                Event::Message(message) => {
                    let Some(why) = self.cx.must_pause() else {
                        self.cx.deliver(&mut self.conn.rate_due_ns, message);
                        continue;
                    };
                    // Held back whole, so that the next message can be assembled while this one waits.
                    let payload = match message.payload {
                        Payload::Owned(payload) => payload,
                        Payload::Borrowed(payload) => {
                            OwnedPayload::copy_of(payload, self.cx.hub.pool.take(payload.len() + HEADROOM))
                        }
                    };
                    let held = (message.kind, payload);
                    self.conn.stash.get_or_insert_default().message = Some(held);
                    return self.pause(&data[consumed..], why);
                }
                Event::Ping(_) | Event::Pong(_) => {}
                Event::Close { code, reason } => {
                    let (code, reason) = (code.unwrap_or(1005), reason.to_owned());
                    self.conn.ended.get_or_insert_with(|| Box::new(Ended { code, reason, clean: true })).clean = true;
                    self.cx.hub.mark_closing(self.cx.slot);
                    return Next::Flush;
                }
                Event::Failed(error) => {
                    self.cx.hub.counters.protocol_errors += 1;
                    self.conn.end(error.close_code(), error.reason(), false);
                    self.cx.hub.mark_closing(self.cx.slot);
                    failed = true;
                }
            }
        }
    }

    fn pause(&mut self, rest: &[u8], why: Next) -> Next {
        if !rest.is_empty() {
            self.conn.stash.get_or_insert_default().bytes.extend_from_slice(rest);
        }
        why
    }

    // ---- HTTP -----------------------------------------------------------------------------------------------------

    fn requests(&mut self, data: &mut [u8]) -> Next {
        match self.conn.stash.take() {
            None => self.requests_in(data, 0),
            Some(mut stash) => {
                stash.bytes.extend_from_slice(data);
                self.requests_in(&mut stash.bytes, stash.searched)
            }
        }
    }

    /// Handles the requests in `data`, whose first `searched` bytes contain no end of a head.
    fn requests_in(&mut self, data: &mut [u8], mut searched: usize) -> Next {
        let mut at = 0;
        let limits = HeadLimits { bytes_max: self.cx.settings.head_bytes_max, ..HeadLimits::default() };
        while at < data.len() {
            let rest = &data[at..];
            let Some(end) = http::head_end(rest, searched) else {
                if rest.len() > limits.bytes_max {
                    return self.refuse_head(HeadError::TooLarge);
                }
                if !http::looks_like_http(rest) {
                    return self.refuse_head(HeadError::Malformed);
                }
                let searched = rest.len();
                self.conn.stash = Some(Box::new(Stash { bytes: rest.to_vec(), searched, message: None }));
                return Next::Go;
            };
            searched = 0;
            let next = match http::parse_head(&rest[..end], &limits) {
                Err(error) => return self.refuse_head(error),
                Ok(head) => self.request(&head),
            };
            at += end;
            self.conn.answered = true;
            if next != Next::Go {
                return next;
            }
            if self.conn.phase != Phase::Http {
                // Frames sent right behind the handshake.
                return if at < data.len() { self.frames(&mut data[at..]) } else { Next::Go };
            }
            if self.cx.hub.outbox.queued_bytes(self.cx.slot) > self.cx.settings.pause_bytes {
                return self.pause(&data[at..], Next::PauseForOutbox);
            }
        }
        Next::Go
    }

    fn refuse_head(&mut self, error: HeadError) -> Next {
        self.cx.hub.counters.refused += 1;
        let status = StatusCode::from_u16(error.status()).unwrap_or(StatusCode::BAD_REQUEST);
        let response = Response::error(status, &error.to_string());
        queue_response(self.cx.hub, self.cx.slot, &response, false, false);
        Next::Refuse
    }

    fn request(&mut self, head: &RequestHead<'_>) -> Next {
        let body = match head.body() {
            Ok(body) => body,
            Err(error) => return self.refuse_head(error),
        };
        let request = Request { head, peer: self.conn.peer.expand() };
        let (response, keep_alive) = match self.cx.service.request(self.cx.hub, &request) {
            Answer::Response(response) => (response, true),
            Answer::WebSocket { route } => match self.upgrade(head, body, route) {
                Ok(()) => return Next::Go,
                Err(response) => (response, true),
            },
        };
        if response.status.is_client_error() || response.status.is_server_error() {
            self.cx.hub.counters.refused += 1;
        }
        // No route takes a body: what there is of it would have to be read past.
        let keep_alive = keep_alive && body == Body::None && head.keep_alive() && !self.cx.admission.is_draining();
        queue_response(self.cx.hub, self.cx.slot, &response, keep_alive, head.method() == "HEAD");
        match (keep_alive, body) {
            (true, _) => Next::Go,
            (false, Body::None) => Next::Flush,
            (false, _) => Next::Refuse,
        }
    }

    /// Checks the handshake and opens the WebSocket; or says what to answer.
    fn upgrade(&mut self, head: &RequestHead<'_>, body: Body, route: u16) -> Result<(), Response> {
        let upgrade = handshake::check(head).map_err(|refusal| refusal_response(&refusal))?;
        if body != Body::None {
            return Err(Response::error(StatusCode::BAD_REQUEST, "a WebSocket handshake has no body"));
        }
        if let (Origins::List(allowed), Some(origin)) = (&self.cx.settings.origins, upgrade.origin())
            && !allowed.iter().any(|allowed| allowed.eq_ignore_ascii_case(origin))
        {
            // RFC 6455 10.2: a server that does not want this origin answers 403.
            return Err(Response::error(StatusCode::FORBIDDEN, "this origin is not allowed"));
        }
        self.cx.admission.enter(self.conn.peer.ip()).map_err(|refused| {
            let (status, message) = match refused {
                Refused::Full => (StatusCode::SERVICE_UNAVAILABLE, "the server is full"),
                Refused::TooManyFromAddress => {
                    (StatusCode::TOO_MANY_REQUESTS, "too many connections from this address")
                }
                Refused::Draining => (StatusCode::SERVICE_UNAVAILABLE, "the server is shutting down"),
            };
            Response::error(status, message).with_header("retry-after", "1")
        })?;
        let switched = self.cx.hub.outbox.queue_raw(self.cx.slot, |out| {
            handshake::put_switching(out, upgrade.key(), None, std::iter::empty::<(&str, &str)>())
        });
        debug_assert_eq!(switched, Ok(true));
        self.conn.phase = Phase::Open;
        self.conn.entered = true;
        self.cx.hub.enter(self.cx.slot, self.cx.generation, route);
        self.cx.hub.counters.opened += 1;
        self.cx.service.open(self.cx.hub, self.cx.slot);
        Ok(())
    }
}

/// Counts a message against the rate, by the generic cell rate algorithm with a burst of one second's worth.
fn is_too_fast(due_ns: &mut u64, now_ns: u64, rate_per_second: u32) -> bool {
    const BURST_NS: u64 = 1_000_000_000;
    let interval_ns = BURST_NS / u64::from(rate_per_second);
    let due = (*due_ns).max(now_ns) + interval_ns;
    if due > now_ns + BURST_NS {
        return true;
    }
    *due_ns = due;
    false
}

fn refusal_response(refusal: &Refusal) -> Response {
    let status = StatusCode::from_u16(refusal.status).unwrap_or(StatusCode::BAD_REQUEST);
    refusal
        .headers
        .iter()
        .fold(Response::error(status, refusal.message), |response, (name, value)| response.with_header(name, *value))
}

fn queue_response(hub: &mut CoreHub, slot: u32, response: &Response, keep_alive: bool, head_only: bool) {
    let headers = || response.headers.iter().map(|(name, value)| (*name, value.as_str()));
    let status = response.status.as_u16();
    let queued =
        hub.outbox.queue_raw(slot, |out| put_response(out, status, headers(), &response.body, keep_alive, head_only));
    if queued.is_err() {
        tracing::error!(status, "a response had a header that must not be written");
        let _ = hub.outbox.queue_raw(slot, |out| {
            put_response(out, 500, std::iter::empty::<(&str, &str)>(), b"", keep_alive, head_only)
        });
    }
}
