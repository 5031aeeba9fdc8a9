//! Connect: opens connections, holds them, and asks every one of them whether it is still there.

use crate::{
    net::{App, Gone, Io, Nanos, Received},
    problems::Problem,
    scenario::{Opener, Phase, Ramp, Scenario, Share, Verdict, judge, plain},
    tally::Timed,
    track::Tracker,
    wire::Name,
};
use ringwire::proto::Opcode;

/// Pings that are due within so long of each other are sent together.
const PING_EVERY_MIN: Nanos = 1_000_000;

/// What to do.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) connections: usize,
    pub(crate) ramp: Ramp,
    /// Each connection sends one message and waits for its reply before it counts as ready.
    pub(crate) first_echo: bool,
    /// Ping every connection when all are open, and again at the end of the hold.
    pub(crate) ping: bool,
    pub(crate) pings_per_second: f64,
    pub(crate) hold: Nanos,
    pub(crate) patience: Nanos,
    pub(crate) raw: bool,
}

#[derive(Debug, Default)]
struct Conn {
    slot: Option<u32>,
    tracker: Tracker,
    sent: u64,
    /// When the ping that is not answered yet was sent.
    pinged_at: Option<Nanos>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Wait,
    /// Pinging; how many connections have been asked, and since when.
    Ping(usize, Nanos),
    Hold,
    LastPing(usize, Nanos),
    Over,
}

/// One worker's connections.
#[derive(Debug)]
pub(crate) struct Connect {
    plan: Plan,
    share: Share,
    opener: Opener,
    conns: Vec<Conn>,
    /// First messages without a reply.
    unready: usize,
    unanswered: usize,
    stage: Stage,
    hold_until: Nanos,
    opening: bool,
    /// Nobody is asked any more.
    draining: bool,
    pings_per_second: f64,
}

impl Connect {
    pub(crate) fn new(plan: Plan, share: Share) -> Self {
        let count = share.of(plan.connections);
        Self {
            opener: Opener::new(share, count, plan.ramp),
            conns: (0..count).map(|_| Conn::default()).collect(),
            unready: 0,
            unanswered: 0,
            stage: Stage::Wait,
            hold_until: 0,
            opening: true,
            draining: false,
            pings_per_second: plan.pings_per_second / share.places() as f64,
            share,
            plan,
        }
    }

    /// Asks the connections whose turn it is; says whether all have been.
    fn ping(&mut self, io: &mut Io, asked: &mut usize, since: Nanos) -> bool {
        let due = ((io.now - since) as f64 / 1e9 * self.pings_per_second) as usize + 1;
        while *asked < self.conns.len().min(due) {
            let conn = &mut self.conns[*asked];
            if let Some(slot) = conn.slot {
                conn.pinged_at = Some(io.now);
                io.control(slot, Opcode::Ping, b"are you there");
                self.unanswered += 1;
            }
            *asked += 1;
        }
        *asked == self.conns.len()
    }

    fn advance(&mut self, io: &mut Io) -> Option<Nanos> {
        match self.stage {
            _ if self.draining => None,
            Stage::Wait | Stage::Over => None,
            Stage::Ping(mut asked, since) | Stage::LastPing(mut asked, since) => {
                let all = self.ping(io, &mut asked, since);
                let at = |nth: usize| since + (nth as f64 / self.pings_per_second * 1e9) as Nanos;
                let give_up_at = at(self.conns.len()) + self.plan.patience;
                let over = all && (self.unanswered == 0 || io.now > give_up_at);
                // Pongs wake by themselves.
                let next_at = if all { give_up_at + 1 } else { at(asked).max(io.now + PING_EVERY_MIN) };
                self.stage = match self.stage {
                    Stage::Ping(..) if over => Stage::Hold,
                    Stage::Ping(..) => Stage::Ping(asked, since),
                    _ if over => Stage::Over,
                    _ => Stage::LastPing(asked, since),
                };
                Some(if over { io.now } else { next_at })
            }
            Stage::Hold if io.now >= self.hold_until => {
                let again = self.plan.ping && self.plan.hold > 0;
                self.stage = if again { Stage::LastPing(0, io.now) } else { Stage::Over };
                Some(io.now)
            }
            Stage::Hold => Some(self.hold_until),
        }
    }
}

impl App for Connect {
    fn opened(&mut self, io: &mut Io, slot: u32, tag: u32) {
        let stream = self.share.number(tag as usize) as u32;
        let conn = &mut self.conns[tag as usize];
        conn.slot = Some(slot);
        io.tally.done += 1;
        if self.plan.first_echo {
            self.unready += 1;
            conn.sent = 1;
            io.send(slot, Name { stream, sequence: 0 });
        }
    }

    fn due(&self, tag: u32) -> Option<Name> {
        let conn = &self.conns[tag as usize];
        let stream = self.share.number(tag as usize) as u32;
        (conn.tracker.next < conn.sent).then_some(Name { stream, sequence: conn.tracker.next })
    }

    fn matched(&mut self, _io: &mut Io, _conn: u32, tag: u32) {
        self.conns[tag as usize].tracker.next += 1;
        self.unready -= 1;
    }

    fn received(&mut self, io: &mut Io, _conn: u32, tag: u32, message: Received<'_>) {
        let stream = self.share.number(tag as usize) as u32;
        let conn = &mut self.conns[tag as usize];
        match judge(io, tag, stream, &mut conn.tracker, conn.sent, message) {
            Verdict::Arrived { .. } | Verdict::Spoilt => self.unready -= 1,
            Verdict::Nothing => {}
        }
    }

    fn pong(&mut self, io: &mut Io, tag: u32, payload: &[u8]) {
        if let Some(at) = self.conns[tag as usize].pinged_at.take() {
            self.unanswered -= 1;
            io.tally.time(Timed::Ping, io.now - at);
            io.tally.latency(io.now - at);
            if payload != b"are you there" {
                io.tally.note(Problem::Corrupted, 1, || {
                    format!("connection {tag}: a pong with another payload than the ping's")
                });
            }
        }
    }

    fn closed(&mut self, _io: &mut Io, _conn: u32, tag: u32, _gone: Gone) {
        let conn = &mut self.conns[tag as usize];
        conn.slot = None;
        if conn.tracker.next < conn.sent {
            self.unready -= 1;
        }
        if conn.pinged_at.is_some() {
            self.unanswered -= 1;
        }
    }

    fn tick(&mut self, io: &mut Io) -> Option<Nanos> {
        if self.opening {
            let raw = self.plan.raw;
            return self.opener.tick(io, |tag| plain(tag, raw));
        }
        self.advance(io)
    }
}

impl Scenario for Connect {
    fn enter(&mut self, io: &mut Io, phase: Phase) {
        if phase > Phase::Open {
            self.opening = false;
        }
        self.draining = phase >= Phase::Drain;
        if phase == Phase::Measure {
            self.hold_until = io.now + self.plan.hold;
            self.stage = if self.plan.ping { Stage::Ping(0, io.now) } else { Stage::Hold };
        }
    }

    fn is_ready(&self, io: &Io) -> bool {
        self.opener.is_done(io) && self.unready == 0
    }

    fn is_idle(&mut self, _io: &Io) -> bool {
        self.stage == Stage::Over
            || (self.draining && self.unanswered == 0)
            || self.conns.iter().all(|conn| conn.slot.is_none())
    }

    fn conclude(&mut self, io: &mut Io) {
        for (tag, conn) in self.conns.iter().enumerate() {
            let lost = conn.tracker.missing(conn.sent);
            io.tally
                .note(Problem::Lost, lost, || format!("connection {tag}: the reply to its first message never came"));
            let unanswered = u64::from(conn.pinged_at.is_some());
            io.tally.note(Problem::Lost, unanswered, || format!("connection {tag}: its ping was never answered"));
        }
    }
}
