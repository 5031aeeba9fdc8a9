//! A simulated WebSocket client: connects, sends tagged messages in awkward pieces, reads at its own pace, says goodbye.

use ringwire::engine::Nanos;
use ringwire::engine::sim::Rng;

use crate::ends::Said;
use crate::oracle::{End, Log, tag};
use crate::secure::Socket;
use crate::wire::{self, BINARY, CLOSE, Event, Message, PONG, Pings, Reader, TEXT};

/// What a client is going to do.
#[derive(Clone, Debug)]
pub struct Plan {
    pub id: usize,
    pub path: String,
    /// For the judges.
    pub room: usize,
    pub messages: usize,
    pub payload_bytes_max: usize,
    pub frames_max: usize,
    /// Whether it goes at some point without a Close.
    pub leaves: bool,
    /// Whether it may also go without anybody noticing, as when a cable is cut. Then the server has time limits.
    pub vanishes: bool,
    /// Whether it waits for as many messages as it has sent before its Close.
    pub patient: bool,
    /// Whether the server may end a healthy connection without a Close, as after a timeout.
    pub may_be_dropped: bool,
    /// Codes with which the server may begin to close.
    pub earned: &'static [u16],
    /// Whether its pings are answered whatever it reads: not where its queue may be at its limit.
    pub owed_pongs: bool,
    /// Bytes that its socket takes before it reads.
    pub window: usize,
    /// The chance that it reads at all in one step.
    pub reads: f64,
    /// The extensions that it offers. Then it says what can be compressed.
    pub offer: Option<&'static str>,
}

/// A WebSocket client under simulation.
pub struct Endpoint {
    pub log: Log,
    plan: Plan,
    client: Socket,
    rng: Rng,
    reader: Reader,
    /// Bytes composed and not written, and where messages of the log end in them (place, number).
    writing: Vec<u8>,
    marks: Vec<(usize, usize)>,
    pings: Pings,
    close_sent: bool,
    /// It has finished sending without a Close, and still reads.
    half_closed: bool,
    /// The server's Close code, and whether the client had said Close before.
    server_close: Option<(Option<u16>, bool)>,
    /// What happened to its connection, and in which phase.
    pub fate: Option<(&'static str, Phase)>,
    /// No goodbye before this is set: a test may want everybody to stay until all are through.
    pub may_finish: bool,
}

/// How far a connection has come, as its client sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Before the answer to its handshake.
    Asking,
    Open,
    /// With part of a message written.
    MidMessage,
    /// With more sent to it than it has read.
    Behind,
    /// After its Close.
    Closing,
    /// After the server's Close.
    Closed,
}

/// What is said where messages are to be compressed.
const WORDS: [&str; 9] =
    ["bid ", "ask ", "price: ", "EUR/USD ", "17 ", "0.25, ", "{\"symbol\": ", "}, ", "the quick brown "];

/// What clients say when they go; none is one with which a server begins.
const CLOSE_CODES: [u16; 4] = [1000, 1000, 3000, 4999];

impl Endpoint {
    pub fn new(plan: Plan, client: Socket, now: Nanos, mut rng: Rng) -> Endpoint {
        client.client.set_window(plan.window);
        let key = format!("{:016x}{:05x}g==", rng.next_u64(), plan.id);
        let writing = wire::request_with(&plan.path, &key, plan.offer);
        Endpoint {
            log: Log { room: plan.room, asked_at: now, ..Log::default() },
            reader: Reader::offering(&key, plan.offer),
            plan,
            client,
            rng,
            writing,
            marks: Vec::new(),
            pings: Pings::default(),
            close_sent: false,
            half_closed: false,
            server_close: None,
            fate: None,
            may_finish: true,
        }
    }

    pub fn is_over(&self) -> bool {
        self.log.end.is_some()
    }

    fn phase(&self) -> Phase {
        if self.server_close.is_some() {
            Phase::Closed
        } else if self.close_sent {
            Phase::Closing
        } else if !self.reader.is_upgraded() {
            Phase::Asking
        } else if !self.writing.is_empty() || self.client.unsent() > 0 {
            Phase::MidMessage
        } else if self.client.client.readable() > 0 {
            Phase::Behind
        } else {
            Phase::Open
        }
    }

    /// Whether a core has taken its connection.
    pub fn was_accepted(&self) -> bool {
        self.client.client.is_accepted()
    }

    /// Whether everything that it has to say but goodbye is written.
    pub fn is_through(&self) -> bool {
        self.is_over() || (self.log.sent.len() >= self.plan.messages && self.writing.is_empty())
    }

    /// Whether nothing is under way to or from it, as far as its socket shows.
    pub fn is_quiet(&self) -> bool {
        self.is_over() || (self.is_through() && self.client.unsent() == 0 && self.client.client.readable() == 0)
    }

    /// Messages that came compressed, if that was agreed.
    pub fn compressed(&self) -> u64 {
        self.reader.compression.as_ref().map_or(0, |compression| compression.messages)
    }

    /// What it is waiting for, for messages.
    pub fn state(&self) -> String {
        format!(
            "client {}: {:?}, upgraded {}, sent {}, received {}, {} bytes to write, {} unsent, close sent {}, got {:?}, {:?}",
            self.plan.id,
            self.fate,
            self.reader.is_upgraded(),
            self.log.sent.len(),
            self.log.received.len(),
            self.writing.len(),
            self.client.unsent(),
            self.close_sent,
            self.server_close,
            self.client.client,
        )
    }

    /// Reads a little, writes a little. `Err`: the server broke the protocol.
    pub fn step(&mut self, now: Nanos) -> Result<(), String> {
        if self.is_over() {
            return Ok(());
        }
        if self.rng.chance(self.plan.reads) {
            let n = if self.rng.chance(0.5) { usize::MAX } else { self.rng.between(1, 200) };
            let bytes = self.client.read(n);
            self.reader.push(&bytes);
            self.events(now)?;
        }
        if self.is_over() {
            return Ok(());
        }
        if self.client.client.saw_fin() || self.client.client.saw_reset() {
            return self.ended(now);
        }
        if self.half_closed {
            return Ok(());
        }
        if self.plan.leaves && self.rng.chance(0.01) {
            self.leave(now);
            return Ok(());
        }
        self.compose();
        self.write(now);
        Ok(())
    }

    /// Goes without a Close, in one of the ways in which clients do.
    fn leave(&mut self, now: Nanos) {
        let phase = self.phase();
        let way = match self.rng.below(if self.plan.vanishes { 4 } else { 3 }) {
            0 => {
                self.client.client.reset();
                "reset by the client"
            }
            1 => {
                self.client.client.close();
                "closed by the client without a Close"
            }
            2 => {
                // What is written is on its way; what is not never will be.
                self.client.shutdown_write();
                self.half_closed = true;
                self.fate = Some(("half-closed by the client", phase));
                return;
            }
            _ => "vanished",
        };
        self.fate = Some((way, phase));
        self.is_over_with(End::Left, now);
    }

    fn events(&mut self, now: Nanos) -> Result<(), String> {
        loop {
            let event = match self.reader.next() {
                Ok(Some(event)) => event,
                Ok(None) => break,
                Err(why) if self.plan.may_be_dropped && wire::is_refusal(&why) => {
                    self.is_over_with(End::Broken, now);
                    self.client.client.close();
                    return Ok(());
                }
                Err(why) => return Err(why),
            };
            match event {
                Event::Message(message) => self.log.received.push(message),
                Event::Ping(payload) if !self.close_sent && !self.half_closed => {
                    wire::frame(&mut self.writing, true, PONG, &payload, &mut self.rng);
                }
                Event::Ping(_) => {}
                Event::Pong(payload) => self.pings.pong(&payload)?,
                Event::Close(code) => {
                    self.server_close = Some((code, self.close_sent));
                    self.log.heard = Some(Said { code, reason: self.reader.close_reason().to_owned() });
                    if !self.close_sent {
                        self.say_close(code.unwrap_or(1000), "");
                    }
                }
            }
        }
        if self.reader.is_upgraded() {
            self.log.opened_at.get_or_insert(now);
        }
        Ok(())
    }

    fn is_over_with(&mut self, end: End, now: Nanos) {
        self.log.end = Some(end);
        self.log.over_at = Some(now);
    }

    fn ended(&mut self, now: Nanos) -> Result<(), String> {
        let reset = self.client.client.saw_reset();
        if self.client.client.was_broken() {
            self.log.was_broken = true;
            self.fate.get_or_insert(("broken under both", self.phase()));
        }
        // Time can be up in the middle of something. And who ends within TLS without a word is told nothing more: RFC 8446 6.1.
        let may_be_cut = self.half_closed && self.client.is_secure();
        if !reset && !may_be_cut && !self.plan.vanishes && self.reader.is_within_something() {
            return Err(format!("the server's FIN came in the middle of something: {}", self.state()));
        }
        if let Some(wrong) = self.client.wrong().filter(|_| !self.plan.may_be_dropped && !may_be_cut) {
            return Err(format!("{wrong}: {}", self.state()));
        }
        let own = self.log.said.as_ref().and_then(|said| said.code);
        let end = match self.server_close {
            _ if self.half_closed => End::Left,
            Some((code, true)) if code == own && self.reader.close_reason().is_empty() => End::Clean,
            Some((Some(code), _)) if self.plan.earned.contains(&code) => End::ServerClosed(Some(code)),
            Some((code, _)) => {
                let reason = self.reader.close_reason();
                return Err(format!("a Close that nothing has earned: {code:?} {reason:?}; {}", self.state()));
            }
            None if self.client.client.was_broken() || self.plan.may_be_dropped => End::Broken,
            None => return Err(format!("a healthy connection ended without a Close: {}", self.state())),
        };
        // Its pings all came before its Close.
        if end == End::Clean && self.plan.owed_pongs && self.pings.unanswered() > 0 {
            return Err(format!("{} pings without a pong: {}", self.pings.unanswered(), self.state()));
        }
        self.is_over_with(end, now);
        self.client.client.close();
        Ok(())
    }

    /// Puts the next thing to say into `writing`.
    fn compose(&mut self) {
        if self.close_sent || !self.writing.is_empty() {
            return;
        }
        // Frames right behind the request are legal, and sometimes sent.
        if !self.reader.is_upgraded() && !self.rng.chance(0.05) {
            return;
        }
        if self.log.sent.len() == self.plan.messages {
            if self.may_finish && (!self.plan.patient || self.log.received.len() == self.log.sent.len()) {
                let code = self.rng.pick(&CLOSE_CODES);
                let reason = if self.rng.chance(0.5) { format!("bye from {}", self.plan.id) } else { String::new() };
                self.say_close(code, &reason);
            }
            return;
        }
        for _ in 0..self.rng.between(1, 4).min(self.plan.messages - self.log.sent.len()) {
            if self.rng.chance(0.1) {
                self.pings.ping(&mut self.writing, &mut self.rng);
            }
            let message = self.next_message();
            let compressed = self.reader.compression.as_mut().filter(|_| self.rng.chance(0.5));
            let compressed = compressed.and_then(|compression| compression.deflate(&message.payload));
            // RFC 7692 6: the bit RSV1.
            let sent = compressed.map(|payload| Message { opcode: message.opcode | 0x40, payload });
            let sent = sent.as_ref().unwrap_or(&message);
            wire::message(&mut self.writing, sent, self.plan.frames_max, &mut self.pings, &mut self.rng);
            self.marks.push((self.writing.len(), self.log.sent.len()));
            self.log.sent.push((message, None));
        }
    }

    fn next_message(&mut self) -> Message {
        let mut payload = tag(self.plan.id, self.log.sent.len()).into_bytes();
        // Mostly small ones, as in life.
        let most =
            if self.rng.chance(0.8) { self.plan.payload_bytes_max.min(100) } else { self.plan.payload_bytes_max };
        let mut filler = vec![0; self.rng.between(0, most)];
        self.rng.fill(&mut filler);
        let opcode = self.rng.pick(&[TEXT, BINARY]);
        if opcode == TEXT {
            filler.iter_mut().for_each(|byte| *byte = b'a' + *byte % 26);
        }
        if self.plan.offer.is_some() {
            let words = filler.chunks(7).flat_map(|chunk| WORDS[usize::from(chunk[0]) % WORDS.len()].bytes());
            filler = words.take(filler.len()).collect();
        }
        payload.extend(filler);
        Message { opcode, payload }
    }

    fn say_close(&mut self, code: u16, reason: &str) {
        if self.half_closed {
            return;
        }
        // Messages that are composed and not begun would follow; what is begun must be finished.
        let payload = [&code.to_be_bytes(), reason.as_bytes()].concat();
        wire::frame(&mut self.writing, true, CLOSE, &payload, &mut self.rng);
        self.log.said = Some(Said { code: Some(code), reason: reason.to_owned() });
        self.close_sent = true;
    }

    fn write(&mut self, now: Nanos) {
        if self.writing.is_empty() || self.client.unsent() > 0 {
            return;
        }
        let all = self.writing.len();
        let n = if self.rng.chance(0.6) { all } else { self.rng.between(1, all) };
        self.client.send(&self.writing[..n]);
        self.writing.drain(..n);
        if self.writing.is_empty() && self.close_sent {
            self.log.said_at = Some(now);
        }
        let sent = &mut self.log.sent;
        self.marks.retain_mut(|(end, number)| {
            if *end <= n {
                sent[*number].1 = Some(now);
                return false;
            }
            *end -= n;
            true
        });
    }
}
