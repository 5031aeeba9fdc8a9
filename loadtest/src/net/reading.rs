//! What is read of a connection: records are opened, the opening handshake is held against what was asked, and the rest goes to
//! whoever reads what the connection speaks.
//!
//! It is all of the [`Net`](super::Net) but the ring, whose buffer the bytes are in.

use ringwire::{
    engine::{Key, Slots},
    proto::{Limits, Spares, handshake::HandshakeError},
    tls::{Event, TlsError, TlsInfo},
};

use crate::{
    net::{
        app::{App, Gone, Io, Speaks},
        deflate,
        frames::read_frames,
        handshake::{handshake_key, shake_hands},
        line::{Line, State},
        plain::{read_http, read_raw},
    },
    tally::Timed,
    target::Target,
};

/// See the module.
pub(super) struct Reader<'a> {
    pub(super) lines: &'a mut Slots<Line>,
    pub(super) io: &'a mut Io,
    pub(super) targets: &'a [Target],
    pub(super) limits: &'a Limits,
    pub(super) spares: &'a mut Spares,
    pub(super) urgent: &'a mut Vec<Key>,
}

impl Reader<'_> {
    /// The way is free for what the connection is to speak.
    pub(super) fn greet<A: App>(&mut self, app: &mut A, conn: u32) {
        let line = &mut self.lines[conn];
        if line.speaks != Speaks::WebSocket {
            return self.opened(app, conn);
        }
        line.state = State::Handshake;
        let key = handshake_key(line.key);
        let (target, room, ask) = (&self.targets[usize::from(line.target)], line.room, app.ask(line.tag));
        // What the command line and files say is checked when they are read.
        self.io.outbox.put_raw(conn, |out| {
            let written = target.put_request(out, room, &key, ask);
            debug_assert!(written);
        });
    }

    fn opened<A: App>(&mut self, app: &mut A, conn: u32) {
        let line = &mut self.lines[conn];
        line.state = State::Open;
        line.head = Vec::new();
        self.io.opening -= 1;
        self.io.tally.open += 1;
        self.io.tally.opened += 1;
        self.io.tally.target = usize::from(line.target);
        let took = self.io.now - line.since;
        if line.speaks != Speaks::Http {
            self.io.tally.time(Timed::Handshake, took);
        }
        if let Some(target) = self.io.tally.targets.get_mut(usize::from(line.target)) {
            target.opened += 1;
            target.handshakes.saturating_record(took.max(1));
        }
        app.opened(self.io, conn, line.tag);
    }

    /// Takes bytes as they have come; says whether the connection is over.
    pub(super) fn received<A: App>(&mut self, app: &mut A, conn: u32, data: &mut [u8]) -> Option<Gone> {
        self.io.tally.bytes_in += data.len() as u64;
        let line = &mut self.lines[conn];
        self.io.tally.target = usize::from(line.target);
        if line.session.is_some() { self.records(app, conn, data) } else { self.data(app, conn, data) }
    }

    /// Opens records, and takes what is in them.
    fn records<A: App>(&mut self, app: &mut A, conn: u32, data: &mut [u8]) -> Option<Gone> {
        let mut session = self.lines[conn].session.take()?;
        let (mut at, mut gone) = (0, None);
        loop {
            match session.next(data, &mut at, self.spares) {
                Ok(None) => break,
                Ok(Some(Event::Ready)) => {
                    self.secured(app, conn, session.info().map(|info| &**info));
                }
                Ok(Some(Event::Data(plain))) => {
                    if gone.is_none() {
                        gone = self.data(app, conn, plain);
                    }
                }
                Ok(Some(Event::Closed)) => {}
                Err(error) => {
                    self.insecure(conn, &error);
                    gone = Some(Gone::Failed);
                    break;
                }
            }
        }
        let key = self.lines.key(conn);
        let line = &mut self.lines[conn];
        // RFC 8446 6.1: close_notify comes before the end of what is written.
        let is_done = line.machine.close_received() && !session.has_closed();
        if (session.has_output() || is_done) && !std::mem::replace(&mut line.is_urgent, true) {
            self.urgent.push(key);
        }
        line.session = Some(session);
        gone
    }

    fn secured<A: App>(&mut self, app: &mut A, conn: u32, agreed: Option<&TlsInfo>) {
        let secured = &mut self.io.tally.secured;
        let is_resumed = agreed.is_some_and(TlsInfo::is_resumed);
        *if is_resumed { &mut secured.resumed } else { &mut secured.full } += 1;
        if let Some(agreed) = agreed {
            *secured.agreed.entry(words(agreed)).or_default() += 1;
        }
        if let State::Securing(since) = self.lines[conn].state {
            self.io.tally.time(Timed::Tls, self.io.now - since);
        }
        self.greet(app, conn);
    }

    /// Notes what is wrong with a session.
    pub(super) fn insecure(&mut self, conn: u32, error: &TlsError) {
        let line = &mut self.lines[conn];
        // Once we are leaving the server may end the connection in any way.
        if !matches!(line.state, State::Leaving(_)) {
            *self.io.tally.secured.failures.entry(error.failure().name().into()).or_default() += 1;
            line.fails(|| format!("TLS: {error}"));
        }
    }

    fn data<A: App>(&mut self, app: &mut A, conn: u32, data: &mut [u8]) -> Option<Gone> {
        let mut at = 0;
        let line = &mut self.lines[conn];
        if line.state == State::Handshake {
            let target = &self.targets[usize::from(line.target)];
            match shake_hands(line, data, target) {
                Ok(None) => return None,
                Ok(Some((used, agreed))) => {
                    at = used;
                    if let Some(deflate) = &mut self.io.deflate {
                        let told = &mut self.io.tally.deflated;
                        match agreed {
                            Some(agreed) => {
                                line.machine.agree(agreed);
                                deflate.begin(conn, agreed);
                                *told.agreed.entry(deflate::words(agreed)).or_default() += 1;
                            }
                            None => told.declined += 1,
                        }
                    }
                }
                Err(error) => {
                    if let HandshakeError::Status(status) = error {
                        *self.io.tally.statuses.entry(status).or_default() += 1;
                    }
                    line.fails(|| error.to_string());
                    return Some(Gone::Failed);
                }
            }
            self.opened(app, conn);
        }
        let line = &mut self.lines[conn];
        let data = &mut data[at..];
        match line.speaks {
            Speaks::WebSocket => read_frames(line, self.io, app, conn, data, self.limits, self.spares),
            Speaks::Raw => read_raw(line, self.io, app, conn, data),
            Speaks::Http => read_http(line, self.io, app, conn, data),
        }
    }
}

/// What was agreed on, in words.
fn words(agreed: &TlsInfo) -> String {
    let (version, suite) = (agreed.version(), agreed.cipher_suite());
    match agreed.key_exchange() {
        Some(key_exchange) => format!("{version}, {key_exchange}, {suite}"),
        // TLS 1.2 resumes with the keys of before alone.
        None => format!("{version}, {suite}"),
    }
}
