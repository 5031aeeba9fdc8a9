//! A connection's requests: heads and bodies, the service's answers now or later, upgrades.

use bytes::Bytes;
use http::{HeaderName, HeaderValue, StatusCode};

use super::Shard;
use super::conn::{Conn, Manner, Phase, Stage, Stash, Unanswered, WaitsFor, has_begun};
use super::gate::{Turn, Worker};
use super::input::Next;
use super::log;
use super::timers::after;
use crate::admission::Refused;
use crate::engine::{Key, Ring};
use crate::hub::{CompactPeer, CoreHub};
use crate::metrics::{RefusalReason, TimeoutKind};
use crate::proto::extensions::{self, Agreed, Malformed};
use crate::proto::handshake;
use crate::proto::http::{
    Body, BodyDecoder, BodyPiece, HeadError, HeadLimits, HttpDate, RequestHead, ResponseHead, asks_for_head,
    check_method, empty_lines, head_end, parse_head, put_continue, put_response,
};
use crate::shard::service::{Accept, Answer, Inbound, Reply, Service};

/// A body that comes slower than this is not waited for.
const BODY_BYTES_PER_SECOND_MIN: u128 = 1024;

impl<R: Ring, S: Service> Shard<R, S> {
    /// The time for a request is up: 503 where it is we who have not answered, 408 to whoever has begun one, nothing to
    /// whoever has not: nobody has asked.
    pub(super) fn request_timed_out(&mut self, slot: u32) {
        let conn = &mut self.conns[slot];
        match conn.waits_for {
            Some(WaitsFor::Answer) => {
                self.hub.counters.timeouts.add(TimeoutKind::Answer, 1);
                self.hub.counters.refused.add(RefusalReason::Unanswered, 1);
                log::refused(&self.hub, conn.peer.into(), RefusalReason::Unanswered, Some(503));
                // The answer may still come: nobody waits for it then.
                let reply = Reply::error(StatusCode::SERVICE_UNAVAILABLE, "the answer took too long");
                return self.refuse_late(slot, &reply);
            }
            Some(_) => {
                self.hub.counters.timeouts.add(TimeoutKind::Write, 1);
                return self.finish(slot, 1006, "it does not read");
            }
            None => {}
        }
        if conn.stash.as_mut().is_some_and(|stash| stash.goes_on(self.clock.now_ns)) {
            return self.give_time(slot);
        }
        let is_between = conn.is_between_requests();
        self.hub.counters.timeouts.add(if is_between { TimeoutKind::Idle } else { TimeoutKind::Handshake }, 1);
        if conn.awaits_proxy || !conn.has_request() {
            return self.teardown(slot);
        }
        self.hub.counters.refused.add(RefusalReason::Timeout, 1);
        log::refused(&self.hub, conn.peer.into(), RefusalReason::Timeout, Some(408));
        self.refuse_late(slot, &Reply::error(StatusCode::REQUEST_TIMEOUT, "the request took too long"));
    }

    /// Answers a request that is not complete, and ends the connection, whose peer may still be sending.
    pub(super) fn refuse_late(&mut self, slot: u32, reply: &Reply) {
        let stash = self.conns[slot].stash.as_deref();
        let asked = stash.map(Stash::asked).unwrap_or_default();
        let mut reply = reply.clone();
        self.service.answering(slot, self.conns.key(slot).generation(), asked, &mut reply);
        queue_reply(&mut self.hub, slot, &self.clock.date, &reply, Then::Close, asks_for_head(asked));
        self.conns[slot].lingers = true;
        self.start_flush(slot);
    }

    /// Gives a connection the answer that it waits for.
    pub(super) fn answer(&mut self, slot: u32, generation: u32, answer: Answer) {
        let waits = |conn: &Conn| conn.waits_for == Some(WaitsFor::Answer);
        if !self.conns.get(Key::new(slot, generation)).is_some_and(waits) {
            return;
        }
        if let Some(request) = self.conns[slot].stash.as_mut().and_then(|stash| stash.request.as_mut()) {
            request.stage = Stage::Answered(answer);
            self.go_on(slot);
        }
    }
}

impl<S: Service> Worker<'_, S> {
    /// What comes now has as long as a head has.
    fn give_time(&mut self) {
        self.conn.deadline_ms = after(self.cx.clock.now_ns / 1_000_000, self.cx.clock.times.request);
    }

    fn head_limits(&self) -> HeadLimits {
        HeadLimits { bytes_max: self.cx.settings.head_bytes_max, ..HeadLimits::default() }
    }

    pub(super) fn requests(&mut self, data: &mut [u8]) -> Next {
        if self.conn.awaits_proxy {
            return self.proxy_header(data);
        }
        if self.speaks_tls(data) {
            return self.refuse_tls();
        }
        let Some(mut stash) = self.conn.stash.take() else { return self.requests_in(data, 0) };
        if let Some(request) = stash.request.take() {
            debug_assert!(stash.bytes.is_empty());
            let mut consumed = 0;
            let next = self.body(request, data, &mut consumed);
            return self.behind(next, &mut data[consumed..]);
        }
        stash.push(data);
        self.requests_in(&mut stash.bytes, stash.searched)
    }

    /// Whether the peer begins with a record of TLS (RFC 8446 5.1), where it should begin with a request, which no such byte
    /// does: so it is known from the first one, however the bytes are cut.
    fn speaks_tls(&self, data: &[u8]) -> bool {
        !self.conn.answered
            && self.conn.stash.is_none()
            && matches!(data, [22, ..])
            && !self.cx.wires.has_line(self.cx.slot)
    }

    #[cold]
    fn refuse_tls(&mut self) -> Next {
        self.cx.hub.counters.refused.add(RefusalReason::Tls, 1);
        log::refused(self.cx.hub, self.conn.peer.into(), RefusalReason::Tls, None);
        let _ = self.cx.hub.outbox.queue_raw::<()>(self.cx.slot, |out| {
            // A fatal alert, protocol_version: of all that there are it says best that there is none (RFC 8446 6.2).
            out.extend_from_slice(&[21, 3, 1, 0, 2, 2, 70]);
            Ok(())
        });
        Next::Refuse
    }

    /// After one request, the rest of the input.
    fn behind(&mut self, next: Next, rest: &mut [u8]) -> Next {
        match next {
            Next::Wait(wait) => self.pause(rest, wait),
            Next::Go if rest.is_empty() => next,
            Next::Go if self.conn.phase == Phase::Http => self.requests_in(rest, 0),
            // Frames sent right behind the handshake.
            Next::Go => self.frames(rest),
            Next::Flush | Next::Refuse | Next::Failed => next,
        }
    }

    /// Goes on with a request that was held back.
    pub(super) fn held_request(&mut self, mut request: Box<Unanswered>) -> Next {
        match std::mem::replace(&mut request.stage, Stage::Handled(0)) {
            stage @ Stage::Body { .. } => {
                request.stage = stage;
                self.body(request, &[], &mut 0)
            }
            Stage::Complete(body) => {
                let since_ns = request.since_ns;
                self.with_head(&request.head, |worker, head| worker.request(head, &request.head, body, since_ns))
            }
            // What most are answered with asks no more of the head than is known of it.
            Stage::Answered(Answer::Response(reply)) => {
                self.tell_of(&request.head, &reply, request.since_ns);
                self.respond(request.manner, &request.head, RefusalReason::App, reply)
            }
            Stage::Answered(answer) => {
                let since_ns = request.since_ns;
                self.with_head(&request.head, |worker, head| worker.answered(head, &request.head, answer, since_ns))
            }
            Stage::Handled(_) => unreachable!("nothing goes on before the answer"),
        }
    }

    fn with_head(&mut self, head: &[u8], go_on: impl FnOnce(&mut Self, &RequestHead<'_>) -> Next) -> Next {
        match parse_head(head, &self.head_limits()) {
            Ok(head) => go_on(self, &head),
            Err(error) => self.refuse_head(error, head),
        }
    }

    /// Keeps a request, and nothing of the connection is handled before it.
    fn hold_request(
        &mut self,
        head: &RequestHead<'_>,
        head_bytes: &[u8],
        stage: Stage,
        wait: WaitsFor,
        since_ns: u64,
    ) -> Next {
        let request = Unanswered { head: head_bytes.to_vec(), manner: Manner::of(head), since_ns, stage };
        self.conn.stash.get_or_insert_default().request = Some(Box::new(request));
        Next::Wait(wait)
    }

    /// Handles the requests in `data`, whose first `searched` bytes contain no end of a head.
    pub(super) fn requests_in(&mut self, data: &mut [u8], mut searched: usize) -> Next {
        let limits = self.head_limits();
        let mut at = 0;
        loop {
            // Whoever has sent nothing else has not begun a request.
            let empty = empty_lines(&data[at..]);
            (at, searched) = (at + empty, searched.saturating_sub(empty));
            if at == data.len() {
                return Next::Go;
            }
            let rest = &mut data[at..];
            let Some(end) = head_end(rest, searched) else {
                if let Err(error) = check_method(rest) {
                    return self.refuse_head(error, rest);
                }
                if rest.len() > limits.bytes_max {
                    return self.refuse_head(HeadError::TooLarge, rest);
                }
                // What the connection has been silent since the last request does not count against this one.
                if self.conn.answered && has_begun(rest) && !has_begun(&rest[..searched]) {
                    self.give_time();
                }
                let stash = Stash { bytes: rest.to_vec(), searched: rest.len(), ..Stash::default() };
                self.conn.stash = Some(Box::new(stash));
                return Next::Go;
            };
            searched = 0;
            let (head_bytes, rest) = rest.split_at_mut(end);
            let mut consumed = 0;
            let next = match parse_head(head_bytes, &limits) {
                Err(error) => return self.refuse_head(error, head_bytes),
                Ok(head) => match head.body() {
                    Err(error) => return self.refuse_head(error, head_bytes),
                    Ok(Body::None) => self.request(&head, head_bytes, Bytes::new(), self.cx.clock.now_ns),
                    Ok(Body::Length(length)) if self.is_there(length, &head, rest) => {
                        consumed = length as usize;
                        let body = Bytes::copy_from_slice(&rest[..consumed]);
                        self.request(&head, head_bytes, body, self.cx.clock.now_ns)
                    }
                    Ok(body) => match BodyDecoder::new(body, self.cx.settings.body_bytes_max) {
                        Err(error) => return self.refuse(error.status(), &error.to_string(), head_bytes),
                        Ok(decoder) => {
                            // RFC 9110 10.1.1: the client waits for this, or for a final status, before it sends the body.
                            if head.expects_continue() && rest.is_empty() {
                                if let Some((reason, reply)) = self.refusal_of_head(&head) {
                                    self.cx.hub.counters.refused.add(reason, 1);
                                    self.tell(&head, reply.status, Some(reason), self.cx.clock.now_ns);
                                    self.queue_reply(&reply, Then::Close, head_bytes);
                                    return Next::Refuse;
                                }
                                let _ = self.cx.hub.outbox.queue_raw::<()>(self.cx.slot, |out| {
                                    put_continue(out);
                                    Ok(())
                                });
                            }
                            self.give_time();
                            let stage = Stage::Body { decoder, received: Vec::new(), seen: (self.cx.clock.now_ns, 0) };
                            let (manner, since_ns) = (Manner::of(&head), self.cx.clock.now_ns);
                            let request = Unanswered { head: head_bytes.to_vec(), manner, since_ns, stage };
                            self.body(Box::new(request), rest, &mut consumed)
                        }
                    },
                },
            };
            at += end + consumed;
            let is_body_to_come = self.conn.stash.as_ref().is_some_and(|stash| stash.request.is_some());
            if next != Next::Go || self.conn.phase != Phase::Http || is_body_to_come {
                return self.behind(next, &mut data[at..]);
            }
        }
    }

    /// Whether the whole of a body stands behind its head, and may: it is taken as it is then. Who holds it back until he is
    /// told to send it is told.
    fn is_there(&self, length: u64, head: &RequestHead<'_>, rest: &[u8]) -> bool {
        length <= self.cx.settings.body_bytes_max as u64
            && length <= rest.len() as u64
            && !(head.expects_continue() && rest.is_empty())
    }

    /// Reads on in a body; handles its request when it is complete.
    fn body(&mut self, mut request: Box<Unanswered>, input: &[u8], consumed: &mut usize) -> Next {
        let Stage::Body { decoder, received, .. } = &mut request.stage else { return self.held_request(request) };
        loop {
            match decoder.next(input, consumed) {
                Ok(BodyPiece::Data(piece)) => received.extend_from_slice(piece),
                Ok(BodyPiece::More) => {
                    self.conn.stash = Some(Box::new(Stash { request: Some(request), ..Stash::default() }));
                    return Next::Go;
                }
                Ok(BodyPiece::End) => break,
                Err(error) => return self.refuse(error.status(), &error.to_string(), &request.head),
            }
        }
        request.stage = Stage::Complete(Bytes::from(std::mem::take(received)));
        self.held_request(request)
    }

    /// Why the client need not send the body that it holds back: the final status alone is its answer then.
    fn refusal_of_head(&self, head: &RequestHead<'_>) -> Option<(RefusalReason, Reply)> {
        if let Some(reply) = self.cx.refusal_of_head(head, self.serves()) {
            return Some((RefusalReason::App, reply));
        }
        handshake::check(head).is_ok().then(|| (RefusalReason::Handshake, body_of_handshake()))
    }

    fn refuse_head(&mut self, error: HeadError, asked: &[u8]) -> Next {
        self.refuse(error.status(), &error.to_string(), asked)
    }

    /// Answers what was asked, as far as it is there, with an error and ends the connection, whose peer may still be sending.
    fn refuse(&mut self, status: u16, message: &str, asked: &[u8]) -> Next {
        self.cx.hub.counters.refused.add(RefusalReason::Request, 1);
        log::refused(self.cx.hub, self.conn.peer.into(), RefusalReason::Request, Some(status));
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_REQUEST);
        self.queue_reply(&Reply::error(status, message), Then::Close, asked);
        Next::Refuse
    }

    /// Answers what was asked, as far as it is there.
    pub(super) fn queue_reply(&mut self, reply: &Reply, then: Then, asked: &[u8]) {
        let mut reply = reply.clone();
        self.cx.answering(asked, &mut reply);
        queue_reply(self.cx.hub, self.cx.slot, &self.cx.clock.date, &reply, then, asks_for_head(asked));
    }

    /// Has a complete request handled when it is its turn.
    fn request(&mut self, head: &RequestHead<'_>, head_bytes: &[u8], body: Bytes, since_ns: u64) -> Next {
        let turn = match self.cx.turn() {
            Ok(turn) => turn,
            Err(wait) => return self.hold_request(head, head_bytes, Stage::Complete(body), wait, since_ns),
        };
        self.conn.answered = true;
        let body_bytes = body.len();
        let tls = self.cx.wires.info(self.cx.slot).cloned();
        let client = self.client(head);
        let (peer, is_relayed) = (client.peer, client.is_relayed);
        let inbound = Inbound { head, body, peer, is_relayed, tls, serves: self.serves() };
        match self.cx.request(turn, &inbound) {
            Answer::Later => {
                self.hold_request(head, head_bytes, Stage::Handled(body_bytes), WaitsFor::Answer, since_ns)
            }
            answer => self.answered(head, head_bytes, answer, since_ns),
        }
    }

    /// Does what was decided about a request; a WebSocket opens when it is its turn.
    fn answered(&mut self, head: &RequestHead<'_>, head_bytes: &[u8], answer: Answer, since_ns: u64) -> Next {
        let (reason, reply) = match answer {
            Answer::Response(reply) => (RefusalReason::App, reply),
            Answer::WebSocket(accept) => {
                let turn = match self.cx.turn() {
                    Ok(turn) => turn,
                    Err(wait) => {
                        let stage = Stage::Answered(Answer::WebSocket(accept));
                        return self.hold_request(head, head_bytes, stage, wait, since_ns);
                    }
                };
                match self.upgrade(turn, head, head_bytes, accept, since_ns) {
                    Ok(()) => return Next::Go,
                    Err(refusal) => refusal,
                }
            }
            Answer::Later => unreachable!("an answer is not put off twice"),
        };
        self.tell(head, reply.status, is_refusal(&reply).then_some(reason), since_ns);
        self.respond(Manner::of(head), head_bytes, reason, reply)
    }

    /// Queues what a request is answered, and says what becomes of its connection.
    fn respond(&mut self, manner: Manner, head_bytes: &[u8], reason: RefusalReason, mut reply: Reply) -> Next {
        if is_refusal(&reply) {
            self.cx.hub.counters.refused.add(reason, 1);
        }
        // Who is let in no further must not take the place of somebody who would be.
        let is_limit = matches!(reason, RefusalReason::Full | RefusalReason::Address | RefusalReason::Memory);
        let is_draining = self.cx.admission.is_draining();
        // What is sent behind a refused upgrade may be meant for a WebSocket, or hidden from a proxy that believes in one.
        let is_refused_upgrade = manner.is_upgrade;
        let keep_alive =
            manner.keeps_alive && !is_limit && !is_draining && !is_refused_upgrade && !asks_for_close(&reply);
        self.conn.deadline_ms = after(self.cx.clock.now_ns / 1_000_000, self.cx.clock.times.between);
        let then = if keep_alive { Then::KeepAlive } else { Then::Close };
        self.cx.answering(head_bytes, &mut reply);
        queue_reply(self.cx.hub, self.cx.slot, &self.cx.clock.date, &reply, then, manner.head_only);
        match then {
            Then::KeepAlive => Next::Go,
            Then::Close if is_refused_upgrade && !is_limit && !is_draining => Next::Refuse,
            Then::Close => Next::Flush,
        }
    }

    /// Has the log say how a handler has answered a request, where somebody reads it.
    fn tell_of(&self, head: &[u8], reply: &Reply, since_ns: u64) {
        if log::wants_requests()
            && let Ok(head) = parse_head(head, &self.head_limits())
        {
            self.tell(&head, reply.status, is_refusal(reply).then_some(RefusalReason::App), since_ns);
        }
    }

    /// Has the log say how a request was answered.
    fn tell(&self, head: &RequestHead<'_>, status: StatusCode, refused: Option<RefusalReason>, since_ns: u64) {
        log::request(self.cx.hub, head, || self.client(head).peer, status.as_u16(), refused, since_ns);
    }

    /// Checks the handshake and opens the WebSocket; or says why not, and what to answer.
    fn upgrade(
        &mut self,
        turn: Turn,
        head: &RequestHead<'_>,
        head_bytes: &[u8],
        accept: Accept,
        since_ns: u64,
    ) -> Result<(), (RefusalReason, Reply)> {
        let upgrade = handshake::check(head).map_err(|refusal| (RefusalReason::Handshake, refusal.into()))?;
        if head.body() != Ok(Body::None) {
            return Err((RefusalReason::Handshake, body_of_handshake()));
        }
        if !self.cx.settings.origins.allow(upgrade.origin()) {
            // RFC 6455 10.2: a server that does not want this origin answers 403.
            return Err((RefusalReason::Origin, Reply::error(StatusCode::FORBIDDEN, "this origin is not allowed")));
        }
        let (deflate, extensions) = match self.deflate(head, &accept, upgrade.extensions()) {
            Ok(agreed) => agreed.unzip(),
            Err(Malformed) => return Err((RefusalReason::Handshake, malformed_extensions())),
        };
        let peer = CompactPeer::from(self.client(head).peer);
        let entered = match self.cx.hub.counters.opened - self.cx.hub.counters.closed {
            // The connection would fit, but then there would be no slot left to tell the next one that there is none.
            open if open >= u64::from(self.cx.settings.websockets_max) => Err(Refused::Full),
            _ => self.cx.admission.enter(peer.ip()),
        };
        entered.map_err(|refused| {
            let unavailable = |message| Reply::error(StatusCode::SERVICE_UNAVAILABLE, message).with_retry_after();
            match refused {
                Refused::Full => (RefusalReason::Full, unavailable("the server is full")),
                Refused::TooManyFromAddress => {
                    let message = "too many connections from this address";
                    let reply = Reply::error(StatusCode::TOO_MANY_REQUESTS, message).with_retry_after();
                    (RefusalReason::Address, reply)
                }
                Refused::Draining => (RefusalReason::Draining, unavailable("the server is shutting down")),
                Refused::OutOfMemory => (RefusalReason::Memory, Reply::out_of_memory()),
            }
        })?;
        let Accept { route, protocol, headers, context, .. } = accept;
        let mut reply = Reply { status: StatusCode::SWITCHING_PROTOCOLS, headers, body: Bytes::new().into() };
        self.cx.answering(head_bytes, &mut reply);
        let switched = self.cx.hub.outbox.queue_raw(self.cx.slot, |out| {
            // RFC 9110 7.8: who expects 100 (Continue) MUST get it before 101.
            if head.expects_continue() {
                put_continue(out);
            }
            let agreed = extensions.iter().map(|value| ("Sec-WebSocket-Extensions", value.as_bytes()));
            handshake::put_switching(out, upgrade.key(), protocol.as_deref(), agreed.chain(fields(&reply.headers)))
        });
        if switched != Ok(true) {
            self.cx.admission.leave(peer.ip());
            tracing::error!("the response to a handshake had a header that must not be written");
            return Err((RefusalReason::App, Reply::error(StatusCode::INTERNAL_SERVER_ERROR, "internal error")));
        }
        self.conn.turn_to(Phase::Open);
        self.conn.entered = true;
        if std::mem::take(&mut self.conn.counted) {
            self.cx.admission.depart(self.conn.peer.ip());
        }
        self.conn.peer = peer;
        self.cx.hub.enter(self.cx.slot, self.cx.generation, route);
        self.cx.hub.describe(self.cx.slot, self.conn.peer.into(), self.cx.clock.now_ns);
        if let Some(agreed) = deflate {
            self.conn.machine.agree(agreed);
            self.cx.hub.agree(self.cx.slot, agreed);
        }
        self.cx.hub.counters.opened += 1;
        self.tell(head, StatusCode::SWITCHING_PROTOCOLS, None, since_ns);
        log::opened(self.cx.hub, self.cx.slot);
        self.cx.open(turn, context);
        Ok(())
    }

    /// What is agreed with a client of compression, and what to answer, if anything is.
    fn deflate<'v>(
        &self,
        head: &RequestHead<'_>,
        accept: &Accept,
        offers: impl Iterator<Item = &'v str>,
    ) -> Result<Option<(Agreed, String)>, Malformed> {
        let Some(terms) = self.cx.hub.deflate_terms(accept.route) else { return Ok(None) };
        let agreed = extensions::accept(offers, terms)?;
        let is_broken = |agent: &str| self.cx.settings.deflate_skip.matches(agent);
        let refuses = accept.refuses_deflate || head.headers("user-agent").any(is_broken);
        Ok(agreed.filter(|_| !refuses))
    }
}

impl Stash {
    /// What the connection has asked and was not answered, as far as it is there.
    fn asked(&self) -> &[u8] {
        self.request.as_ref().map_or(&self.bytes[self.handled..], |request| &request.head)
    }

    /// Whether the body that it has a part of has come at [`BODY_BYTES_PER_SECOND_MIN`] since this was asked last.
    fn goes_on(&mut self, now_ns: u64) -> bool {
        let Some(request) = &mut self.request else { return false };
        let Stage::Body { received, seen, .. } = &mut request.stage else { return false };
        let (at_ns, bytes) = std::mem::replace(seen, (now_ns, received.len()));
        let expected = u128::from(now_ns.saturating_sub(at_ns)) * BODY_BYTES_PER_SECOND_MIN / 1_000_000_000;
        (received.len() - bytes) as u128 >= expected
    }
}

/// What whoever speaks plain HTTP is told where TLS is spoken.
pub(super) fn plain_on_tls(date: &HttpDate) -> Vec<u8> {
    let text = "this port speaks TLS: ask for https:// or wss://";
    let reply = Reply::error(StatusCode::BAD_REQUEST, text);
    let head = ResponseHead { status: 400, date: Some(date), keep_alive: false, head_only: false };
    let mut out = Vec::new();
    let written = put_response(&mut out, &head, fields(&reply.headers), &reply.body);
    debug_assert!(written.is_ok());
    out
}

/// RFC 6455 9.1: a field that is no list of extensions MUST have the connection failed.
fn malformed_extensions() -> Reply {
    Reply::error(StatusCode::BAD_REQUEST, "malformed Sec-WebSocket-Extensions")
}

fn body_of_handshake() -> Reply {
    Reply::error(StatusCode::BAD_REQUEST, "a WebSocket handshake has no body")
}

/// What becomes of a connection behind an answer.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Then {
    KeepAlive,
    Close,
}

fn is_refusal(reply: &Reply) -> bool {
    reply.status.is_client_error() || reply.status.is_server_error()
}

/// Whether a handler has asked for the connection to end behind its response.
fn asks_for_close(reply: &Reply) -> bool {
    let is_close = |value: &HeaderValue| value.as_bytes().trim_ascii().eq_ignore_ascii_case(b"close");
    reply.headers.iter().any(|(name, value)| *name == http::header::CONNECTION && is_close(value))
}

fn fields(headers: &[(HeaderName, HeaderValue)]) -> impl Iterator<Item = (&str, &[u8])> {
    headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes()))
}

/// Queues an answer, the one way that there is: with the date, and without content where HEAD has asked for it.
fn queue_reply(hub: &mut CoreHub, slot: u32, date: &HttpDate, reply: &Reply, then: Then, head_only: bool) {
    let head = |status| ResponseHead { status, date: Some(date), keep_alive: then == Then::KeepAlive, head_only };
    let status = reply.status.as_u16();
    // RFC 9110 15.2: an interim status is no answer.
    let queued = match status {
        100..200 => None,
        _ => {
            hub.outbox.queue_raw(slot, |out| put_response(out, &head(status), fields(&reply.headers), &reply.body)).ok()
        }
    };
    if queued.is_none() {
        tracing::error!(status, "a response had a status or a header that must not be written");
        let _ = hub.outbox.queue_raw(slot, |out| put_response(out, &head(500), [], b""));
    }
}
