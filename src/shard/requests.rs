//! A connection's requests: heads and bodies, the service's answers now or later, upgrades.

use bytes::Bytes;
use http::{HeaderName, HeaderValue, StatusCode};

use super::Shard;
use super::conn::{Phase, Stash, Unanswered};
use super::input::{Next, Worker};
use super::life::after;
use crate::admission::Refused;
use crate::engine::Ring;
use crate::hub::CoreHub;
use crate::metrics::{RefusalReason, TimeoutKind};
use crate::proto::handshake;
use crate::proto::http::{
    Body, BodyDecoder, BodyPiece, HeadError, HeadLimits, HttpDate, RequestHead, ResponseHead, asks_for_head,
    check_method, empty_lines, head_end, parse_head, put_continue, put_response,
};
use crate::shard::service::{Accept, Answer, Inbound, Reply, Service};

/// A body that comes slower than this is not waited for.
const BODY_BYTES_PER_SECOND_MIN: u128 = 1024;

impl<R: Ring, S: Service> Shard<R, S> {
    /// The time for a request is up: 503 where it is we who have not answered, 408 to whoever has begun one or never
    /// tried, nothing to a kept-alive connection that has no more requests.
    pub(super) fn request_timed_out(&mut self, slot: u32) {
        let conn = &mut self.conns[slot as usize];
        if conn.awaits_answer {
            // The answer may still come: nobody waits for it then.
            conn.awaits_answer = false;
            self.hub.counters.timeouts.add(TimeoutKind::Answer, 1);
            self.hub.counters.refused.add(RefusalReason::Unanswered, 1);
            let reply = Reply::error(StatusCode::SERVICE_UNAVAILABLE, "the answer took too long");
            return self.refuse_late(slot, &reply);
        }
        if conn.stash.as_mut().is_some_and(|stash| stash.goes_on(self.now_ns)) {
            return self.give_time(slot);
        }
        self.hub.counters.timeouts.add(TimeoutKind::Handshake, 1);
        if conn.stash.is_none() && conn.answered {
            return self.teardown(slot);
        }
        self.hub.counters.refused.add(RefusalReason::Timeout, 1);
        self.refuse_late(slot, &Reply::error(StatusCode::REQUEST_TIMEOUT, "the request took too long"));
    }

    /// Answers a request that is not complete, and ends the connection, whose peer may still be sending.
    pub(super) fn refuse_late(&mut self, slot: u32, reply: &Reply) {
        let stash = self.conns[slot as usize].stash.as_deref();
        let asked = stash.map(Stash::asked).unwrap_or_default();
        queue_reply(&mut self.hub, slot, &self.date, reply, Then::Close, asks_for_head(asked));
        self.conns[slot as usize].lingers = true;
        self.start_flush(slot);
    }

    /// Gives a connection the answer that it waits for.
    pub(super) fn answer(&mut self, slot: u32, generation: u32, answer: Answer) {
        let conn = match self.conns.get_mut(slot as usize) {
            Some(conn) if self.generations.of(slot) == generation && conn.awaits_answer => conn,
            _ => return,
        };
        conn.awaits_answer = false;
        let unanswered = conn.stash.as_mut().and_then(|stash| stash.request.take());
        let was = conn.phase;
        // The time that the answer took is not the peer's: the next head has as long as the first one had.
        self.give_time(slot);
        let (Some(unanswered), Phase::Http) = (unanswered, was) else { return };
        let (mut worker, _) = self.worker(slot);
        let limits = worker.head_limits();
        let next = match parse_head(&unanswered.head, &limits) {
            Ok(head) => worker.answered(&head, answer),
            Err(error) => worker.refuse_head(error, &unanswered.head),
        };
        // Further input has waited in the stash, or will come.
        self.resumable.push((slot, generation));
        self.after_input(slot, was, next);
    }
}

impl<S: Service> Worker<'_, S> {
    /// The request has as long, from now on, as a head has.
    fn give_time(&mut self) {
        self.conn.deadline_ms = after(self.cx.now_ns / 1_000_000, self.cx.request_timeout);
    }

    fn head_limits(&self) -> HeadLimits {
        HeadLimits { bytes_max: self.cx.settings.head_bytes_max, ..HeadLimits::default() }
    }

    pub(super) fn requests(&mut self, data: &mut [u8]) -> Next {
        let Some(mut stash) = self.conn.stash.take() else {
            // What the connection has been silent since the last request does not count against this one.
            if self.conn.answered {
                self.give_time();
            }
            return self.requests_in(data, 0);
        };
        if let Some(unanswered) = stash.request.take() {
            debug_assert!(stash.bytes.is_empty());
            let mut consumed = 0;
            let next = self.body(unanswered, data, &mut consumed);
            return self.go_on(next, &mut data[consumed..]);
        }
        stash.bytes.extend_from_slice(data);
        self.requests_in(&mut stash.bytes, stash.searched)
    }

    /// After one request, the rest of the input.
    fn go_on(&mut self, next: Next, rest: &mut [u8]) -> Next {
        if next == Next::AwaitAnswer {
            return self.pause(rest, next);
        }
        if next != Next::Go || rest.is_empty() {
            return next;
        }
        if self.conn.phase != Phase::Http {
            // Frames sent right behind the handshake.
            return self.frames(rest);
        }
        if self.cx.hub.outbox.must_wait(self.cx.slot, self.cx.settings.pause_bytes) {
            return self.pause(rest, Next::PauseForOutbox);
        }
        self.requests_in(rest, 0)
    }

    /// Handles the requests in `data`, whose first `searched` bytes contain no end of a head.
    fn requests_in(&mut self, data: &mut [u8], mut searched: usize) -> Next {
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
                    Ok(Body::None) => self.request(&head, head_bytes, Bytes::new()),
                    Ok(body) => match BodyDecoder::new(body, self.cx.settings.body_bytes_max) {
                        Err(error) => return self.refuse(error.status(), &error.to_string(), head_bytes),
                        Ok(decoder) => {
                            // RFC 9110 10.1.1: the client waits for this, or for a final status, before it sends the body.
                            if head.expects_continue() && rest.is_empty() {
                                if let Some((reason, reply)) = self.refusal_of_head(&head) {
                                    self.cx.hub.counters.refused.add(reason, 1);
                                    self.queue_reply(&reply, Then::Close, head_bytes);
                                    return Next::Refuse;
                                }
                                let _ = self.cx.hub.outbox.queue_raw::<()>(self.cx.slot, |out| {
                                    put_continue(out);
                                    Ok(())
                                });
                            }
                            self.give_time();
                            let unanswered = Unanswered {
                                head: head_bytes.to_vec(),
                                body: Some(decoder),
                                received: Vec::new(),
                                seen: (self.cx.now_ns, 0),
                                handled_bytes: 0,
                            };
                            self.body(Box::new(unanswered), rest, &mut consumed)
                        }
                    },
                },
            };
            at += end + consumed;
            let is_body_to_come = self.conn.stash.as_ref().is_some_and(|stash| stash.request.is_some());
            if next != Next::Go || self.conn.phase != Phase::Http || is_body_to_come {
                return self.go_on(next, &mut data[at..]);
            }
            if self.cx.hub.outbox.must_wait(self.cx.slot, self.cx.settings.pause_bytes) && at < data.len() {
                return self.pause(&data[at..], Next::PauseForOutbox);
            }
        }
    }

    /// Reads on in a body; handles its request when it is complete.
    fn body(&mut self, mut unanswered: Box<Unanswered>, input: &[u8], consumed: &mut usize) -> Next {
        let Some(decoder) = &mut unanswered.body else { return Next::Go };
        loop {
            match decoder.next(input, consumed) {
                Ok(BodyPiece::Data(piece)) => unanswered.received.extend_from_slice(piece),
                Ok(BodyPiece::More) => {
                    self.conn.stash = Some(Box::new(Stash { request: Some(unanswered), ..Stash::default() }));
                    return Next::Go;
                }
                Ok(BodyPiece::End) => break,
                Err(error) => return self.refuse(error.status(), &error.to_string(), &unanswered.head),
            }
        }
        let body = Bytes::from(std::mem::take(&mut unanswered.received));
        let limits = self.head_limits();
        match parse_head(&unanswered.head, &limits) {
            Ok(head) => self.request(&head, &unanswered.head, body),
            Err(error) => self.refuse_head(error, &unanswered.head),
        }
    }

    /// Why the client need not send the body that it holds back: the final status alone is its answer then.
    fn refusal_of_head(&self, head: &RequestHead<'_>) -> Option<(RefusalReason, Reply)> {
        if let Some(reply) = self.cx.service.refusal_of_head(head) {
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
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_REQUEST);
        self.queue_reply(&Reply::error(status, message), Then::Close, asked);
        Next::Refuse
    }

    /// Answers what was asked, as far as it is there.
    fn queue_reply(&mut self, reply: &Reply, then: Then, asked: &[u8]) {
        queue_reply(self.cx.hub, self.cx.slot, self.cx.date, reply, then, asks_for_head(asked));
    }

    fn request(&mut self, head: &RequestHead<'_>, head_bytes: &[u8], body: Bytes) -> Next {
        self.conn.answered = true;
        let handled_bytes = body.len();
        let inbound = Inbound { head, body, peer: self.conn.peer.into() };
        match self.cx.service.request(self.cx.hub, self.cx.slot, self.cx.generation, &inbound) {
            Answer::Later => {
                let head = head_bytes.to_vec();
                let unanswered =
                    Unanswered { head, body: None, received: Vec::new(), seen: (self.cx.now_ns, 0), handled_bytes };
                self.conn.stash.get_or_insert_default().request = Some(Box::new(unanswered));
                Next::AwaitAnswer
            }
            answer => self.answered(head, answer),
        }
    }

    fn answered(&mut self, head: &RequestHead<'_>, answer: Answer) -> Next {
        let (reason, reply) = match answer {
            Answer::Response(reply) => (RefusalReason::App, reply),
            Answer::WebSocket(accept) => match self.upgrade(head, accept) {
                Ok(()) => return Next::Go,
                Err(refusal) => refusal,
            },
            Answer::Later => unreachable!("an answer is not put off twice"),
        };
        if reply.status.is_client_error() || reply.status.is_server_error() {
            self.cx.hub.counters.refused.add(reason, 1);
        }
        // Who is let in no further must not take the place of somebody who would be.
        let is_limit = matches!(reason, RefusalReason::Full | RefusalReason::Address | RefusalReason::Memory);
        let is_draining = self.cx.admission.is_draining();
        // What is sent behind a refused upgrade may be meant for a WebSocket, or hidden from a proxy that believes in one.
        let is_refused_upgrade = handshake::is_attempt(head);
        let keep_alive =
            head.keep_alive() && !is_limit && !is_draining && !is_refused_upgrade && !asks_for_close(&reply);
        let then = if keep_alive { Then::KeepAlive } else { Then::Close };
        let is_head = head.method() == "HEAD";
        queue_reply(self.cx.hub, self.cx.slot, self.cx.date, &reply, then, is_head);
        match then {
            Then::KeepAlive => Next::Go,
            Then::Close if is_refused_upgrade && !is_limit && !is_draining => Next::Refuse,
            Then::Close => Next::Flush,
        }
    }

    /// Checks the handshake and opens the WebSocket; or says why not, and what to answer.
    fn upgrade(&mut self, head: &RequestHead<'_>, accept: Accept) -> Result<(), (RefusalReason, Reply)> {
        let upgrade = handshake::check(head).map_err(|refusal| (RefusalReason::Handshake, refusal.into()))?;
        if head.body() != Ok(Body::None) {
            return Err((RefusalReason::Handshake, body_of_handshake()));
        }
        if !self.cx.settings.origins.allow(upgrade.origin()) {
            // RFC 6455 10.2: a server that does not want this origin answers 403.
            return Err((RefusalReason::Origin, Reply::error(StatusCode::FORBIDDEN, "this origin is not allowed")));
        }
        let entered = match self.cx.hub.counters.opened - self.cx.hub.counters.closed {
            // The connection would fit, but then there would be no slot left to tell the next one that there is none.
            open if open >= u64::from(self.cx.settings.websockets_max) => Err(Refused::Full),
            _ => self.cx.admission.enter(self.conn.peer.ip()),
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
        let protocol = accept.protocol.as_deref();
        let switched = self.cx.hub.outbox.queue_raw(self.cx.slot, |out| {
            // RFC 9110 7.8: who expects 100 (Continue) MUST get it before 101.
            if head.expects_continue() {
                put_continue(out);
            }
            handshake::put_switching(out, upgrade.key(), protocol, fields(&accept.headers))
        });
        if switched != Ok(true) {
            self.cx.admission.leave(self.conn.peer.ip());
            tracing::error!("the response to a handshake had a header that must not be written");
            return Err((RefusalReason::App, Reply::error(StatusCode::INTERNAL_SERVER_ERROR, "internal error")));
        }
        self.conn.phase = Phase::Open;
        self.conn.entered = true;
        self.cx.admission.depart(self.conn.peer.ip());
        self.cx.hub.enter(self.cx.slot, self.cx.generation, accept.route);
        self.cx.hub.describe(self.cx.slot, self.conn.peer.into(), self.cx.now_ns);
        self.cx.hub.counters.opened += 1;
        self.cx.service.open(self.cx.hub, self.cx.slot, accept.context);
        Ok(())
    }
}

impl Stash {
    /// What the connection has asked and was not answered, as far as it is there.
    fn asked(&self) -> &[u8] {
        self.request.as_ref().map_or(&self.bytes, |request| &request.head)
    }

    /// Whether the body that it has a part of has come at [`BODY_BYTES_PER_SECOND_MIN`] since this was asked last.
    fn goes_on(&mut self, now_ns: u64) -> bool {
        let Some(request) = self.request.as_mut().filter(|request| request.body.is_some()) else { return false };
        let (at_ns, bytes) = std::mem::replace(&mut request.seen, (now_ns, request.received.len()));
        let expected = u128::from(now_ns.saturating_sub(at_ns)) * BODY_BYTES_PER_SECOND_MIN / 1_000_000_000;
        (request.received.len() - bytes) as u128 >= expected
    }
}

fn body_of_handshake() -> Reply {
    Reply::error(StatusCode::BAD_REQUEST, "a WebSocket handshake has no body")
}

/// What becomes of a connection behind an answer.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Then {
    KeepAlive,
    Close,
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
