//! The life of a connection: opening it, leaving it in order, and its end, whoever wanted it.

use std::{io, time::Duration};

use ringwire::{
    engine::{Op, Ring},
    proto::frame::put_masked_frame,
    tls::Failure,
};

use crate::{
    net::{
        App, CLOSE_PATIENCE, Gone, Net, Open, Speaks,
        line::{Line, State},
    },
    problems::Problem,
    tally::End,
};

impl Net {
    pub(super) fn open<A: App>(&mut self, app: &mut A, open: Open) {
        let target = self.deal.url(open.turn.unwrap_or(open.number));
        self.io.tally.asked += 1;
        let key = self.lines.insert(Line::new(&open, target as u16, self.io.now, self.io.keys.bits()));
        let conn = key.slot();
        let token = self.lines.launch(Op::Connect, conn);
        self.io.outbox.0.open(conn, key.generation());
        let connecting = self.targets[target]
            .socket(open.number / self.targets.len(), open.receive_buffer)
            .and_then(|(socket, address)| self.ring.connect(token, socket, address));
        if let Err(error) = connecting {
            self.errno(conn, error.raw_os_error().unwrap_or_default());
            self.io.outbox.0.close(conn);
            self.io.opening -= 1;
            self.io.tally.ended(End::NeverOpened, open.tag);
            self.tell(app, conn, open.tag, Gone::Failed);
            self.lines[conn].state = State::Dead;
            self.lines.land(conn);
            self.lines.free_if_done(conn);
        }
    }

    pub(super) fn connected<A: App>(&mut self, app: &mut A, conn: u32) {
        self.receive(conn);
        let line = &mut self.lines[conn];
        let target = &self.targets[usize::from(line.target)];
        let Some(connector) = &target.connector else { return self.reader().0.greet(app, conn) };
        line.state = State::Securing(self.io.now);
        match connector.session(target.name()) {
            Ok(session) => {
                line.session = Some(Box::new(session));
                line.is_urgent = true;
                self.wires.urgent.push(self.lines.key(conn));
            }
            Err(error) => self.session_failed(app, conn, &error),
        }
    }

    /// Begins the closing handshake where there is one to be had, else ends the connection.
    pub(super) fn leave<A: App>(&mut self, app: &mut A, conn: u32) {
        let is_late = self.lines[conn].is_unanswered(self.io.now, self.patience);
        let line = &mut self.lines[conn];
        match line.state {
            State::Open if line.speaks == Speaks::WebSocket && !line.paused => {
                line.state = State::Leaving(self.io.now);
                let (outbox, keys) = (&mut self.io.outbox, &mut self.io.keys);
                let mut reply = |opcode, payload: &[u8]| {
                    let key = keys.key();
                    outbox.put(conn, |out| put_masked_frame(out, opcode, payload, key));
                };
                line.machine.close(Some(1000), "", &mut reply);
                self.io.tally.open -= 1;
            }
            State::Dead | State::Leaving(_) => {}
            _ if is_late => self.unanswered(app, conn),
            State::Connecting | State::Securing(_) | State::Handshake | State::Open => self.end(app, conn, Gone::Left),
        }
    }

    /// Tells the app and closes the descriptor.
    pub(super) fn end<A: App>(&mut self, app: &mut A, conn: u32, gone: Gone) {
        let line = &mut self.lines[conn];
        let (tag, told) = (line.tag, line.told);
        let is_answered = line.machine.close_received();
        let how = match line.state {
            State::Dead => return,
            State::Connecting | State::Securing(_) | State::Handshake => {
                self.io.opening -= 1;
                if gone == Gone::Left { End::StillOpening } else { End::NeverOpened }
            }
            State::Open => {
                self.io.tally.open -= 1;
                if gone == Gone::Left { End::Dropped } else { End::Failed }
            }
            State::Leaving(_) if told => End::Failed,
            State::Leaving(_) => match (is_answered, line.is_late) {
                (true, false) => End::Closed,
                (true, true) => End::LeftOpen,
                (false, false) => End::Unanswered,
                (false, true) => End::Silent,
            },
        };
        line.state = State::Dead;
        line.machine.take_buffers(&mut self.spares);
        line.session = None;
        self.io.outbox.0.close(conn);
        if let Some(deflate) = &mut self.io.deflate {
            deflate.end(conn);
        }
        // The kernel looks through all operations of the ring for those of a descriptor: only where there is one to find.
        if self.lines.in_flight(conn) > 0 {
            self.ring.cancel(self.lines.token(Op::Cancel, conn));
        }
        self.ring.close(self.lines.launch(Op::Close, conn));
        self.io.tally.ended(how, tag);
        if !told {
            self.tell(app, conn, tag, gone);
        }
    }

    /// Tells the app of a failure, and lets what the server is to be told of it leave before the connection ends.
    pub(super) fn end_softly<A: App>(&mut self, app: &mut A, conn: u32) {
        let line = &mut self.lines[conn];
        match line.state {
            State::Open => self.io.tally.open -= 1,
            State::Connecting | State::Securing(_) | State::Handshake => self.io.opening -= 1,
            State::Leaving(_) | State::Dead => {}
        }
        line.state = State::Leaving(self.io.now);
        if !std::mem::replace(&mut line.told, true) {
            let tag = line.tag;
            self.tell(app, conn, tag, Gone::Failed);
        }
    }

    fn tell<A: App>(&mut self, app: &mut A, conn: u32, tag: u32, gone: Gone) {
        if gone == Gone::Failed && !app.is_expendable(tag) {
            let line = &mut self.lines[conn];
            let why = line.why.take();
            self.io.tally.note(Problem::Failed, 1, || {
                format!("connection {tag}: {}", why.as_deref().unwrap_or("it ended, and nothing says why"))
            });
            let target = usize::from(line.target);
            if let Some(target) = self.io.tally.targets.get_mut(target) {
                target.failed += 1;
            }
        }
        app.closed(&mut self.io, conn, tag, gone);
    }

    /// Counts those that are still there at the end.
    pub(super) fn count_the_rest(&mut self) {
        for (_, line) in self.lines.iter() {
            let how = match line.state {
                State::Dead => continue,
                State::Leaving(_) if line.told => End::Failed,
                State::Leaving(_) if line.machine.close_received() => End::LeftOpen,
                State::Leaving(_) => End::Silent,
                State::Connecting | State::Securing(_) | State::Handshake => End::StillOpening,
                State::Open => End::Dropped,
            };
            self.io.tally.ended(how, line.tag);
        }
    }

    fn errno(&mut self, conn: u32, errno: i32) {
        *self.io.tally.errnos.entry(errno).or_default() += 1;
        self.lines[conn].fails(|| io::Error::from_raw_os_error(errno).to_string());
    }

    pub(super) fn broken<A: App>(&mut self, app: &mut A, conn: u32, errno: i32) {
        // Once we are leaving the server may end the connection in any way.
        if matches!(self.lines[conn].state, State::Leaving(_)) {
            return self.end(app, conn, Gone::Left);
        }
        if let State::Securing(_) = self.lines[conn].state {
            *self.io.tally.secured.failures.entry("connection_broke".into()).or_default() += 1;
        }
        self.errno(conn, errno);
        self.end(app, conn, Gone::Failed);
    }

    pub(super) fn end_of_file<A: App>(&mut self, app: &mut A, conn: u32) {
        let line = &mut self.lines[conn];
        if matches!(line.state, State::Leaving(_)) {
            return self.end(app, conn, Gone::Left);
        }
        if !line.machine.close_received() {
            let what = match line.state {
                State::Open => "",
                State::Securing(_) => {
                    *self.io.tally.secured.failures.entry(Failure::Truncated.name().into()).or_default() += 1;
                    " during the handshake of TLS"
                }
                _ => " during the handshake",
            };
            *self.io.tally.closes.entry(1006).or_default() += 1;
            line.fails(|| format!("closed by the server without a Close frame{what}"));
        }
        self.end(app, conn, Gone::Failed);
    }

    /// Ends what takes too long.
    pub(super) fn sweep<A: App>(&mut self, app: &mut A) {
        let (now, patience) = (self.io.now, self.patience);
        let is_late = |line: &Line| match line.state {
            State::Leaving(since) => now > since + CLOSE_PATIENCE,
            _ => line.is_unanswered(now, patience),
        };
        for key in self.lines.keys_where(is_late) {
            let conn = key.slot();
            let line = &mut self.lines[conn];
            line.is_late = true;
            match line.state {
                State::Leaving(_) => self.end(app, conn, Gone::Left),
                _ => self.unanswered(app, conn),
            }
        }
    }

    /// Ends a connection whose handshake has had all its time.
    fn unanswered<A: App>(&mut self, app: &mut A, conn: u32) {
        let patience = Duration::from_nanos(self.patience);
        let line = &mut self.lines[conn];
        if let State::Securing(_) = line.state {
            *self.io.tally.secured.failures.entry("timed_out".into()).or_default() += 1;
        }
        line.fails(|| format!("no answer to the handshake within {}", humantime::format_duration(patience)));
        self.end(app, conn, Gone::Failed);
    }
}
