//! Echo: every connection keeps a fixed number of messages in flight and checks every reply.

use std::{io, net::TcpStream, sync::Arc};

use hdrhistogram::Histogram;
use peers::uring::{App, Chunk, Io};

use crate::{
    run::{Exchange, Phase, Scenario, Shared, TickClock, latencies},
    wire::{Keys, Replies, append_close},
};

/// A connection's position. Invariant: `replies.sequence <= next_request <= replies.sequence + pipeline`.
#[derive(Debug, Default)]
struct Conn {
    open: bool,
    next_request: u64,
    replies: Replies,
}

impl Conn {
    fn in_flight(&self) -> u64 {
        self.next_request - self.replies.sequence
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Begin,
    Run,
    /// Nothing new is sent since this time.
    Drain(u64),
    /// Waits for the end of the measured window.
    Finished,
    Bye,
}

/// One worker's connections.
#[derive(Debug)]
pub(crate) struct Echo {
    shared: Arc<Shared>,
    worker: usize,
    exchange: Exchange,
    pipeline: usize,
    /// Requests that may still be sent in the measured window.
    budget: u64,
    keys: Keys,
    clock: TickClock,
    stage: Stage,
    conns: Vec<Conn>,
    /// When each request in flight was queued: `pipeline` places per connection.
    queued_at: Vec<u64>,
    done: u64,
    latencies: Histogram<u64>,
}

impl Echo {
    pub(crate) fn new(shared: Arc<Shared>, worker: usize, exchange: Exchange, pipeline: usize, budget: u64) -> Self {
        Self {
            shared,
            worker,
            exchange,
            pipeline,
            budget,
            keys: Keys::new(0x1234_5678 + worker as u64),
            clock: TickClock::new(),
            stage: Stage::Begin,
            conns: Vec::new(),
            queued_at: Vec::new(),
            done: 0,
            latencies: latencies(),
        }
    }

    fn send(&mut self, io: &mut Io, conn: u32, count: usize) {
        let measured = self.shared.phase() == Phase::Measure;
        let count = if measured { (count as u64).min(self.budget) } else { count as u64 };
        if measured {
            self.budget -= count;
        }
        let now = self.clock.now();
        let out = io.out(conn);
        let state = &mut self.conns[conn as usize];
        for _ in 0..count {
            self.exchange.messages.append_request(out, state.next_request, self.keys.key());
            let place = (state.next_request % self.pipeline as u64) as usize;
            self.queued_at[conn as usize * self.pipeline + place] = now;
            state.next_request += 1;
        }
        debug_assert!(state.in_flight() <= self.pipeline as u64);
    }

    fn fail(&mut self, io: &mut Io, conn: u32, why: &dyn std::fmt::Display) {
        let state = &mut self.conns[conn as usize];
        state.open = false;
        self.shared.problem(1, || format!("connection {conn}: {why}"));
        let lost = state.in_flight().saturating_sub(1);
        if lost > 0 {
            self.shared.problem(lost, || format!("connection {conn}: {lost} more replies lost with it"));
        }
        io.close(conn);
    }

    fn is_idle(&self) -> bool {
        self.conns.iter().all(|conn| !conn.open || conn.in_flight() == 0)
    }

    fn say_goodbye(&mut self, io: &mut Io) {
        for (conn, state) in (0..).zip(&mut self.conns).filter(|(_, state)| state.open) {
            if state.in_flight() > 0 {
                let lost = state.in_flight();
                self.shared.problem(lost, || format!("connection {conn}: {lost} replies never came"));
            }
            if self.exchange.websocket {
                append_close(io.out(conn), self.keys.key());
            }
        }
    }
}

impl App for Echo {
    fn received(&mut self, io: &mut Io, conn: u32, chunk: Chunk) {
        let state = &mut self.conns[conn as usize];
        if !state.open || self.stage == Stage::Bye {
            return io.recycle(chunk);
        }
        let first = state.replies.sequence;
        let checked = state.replies.check(&self.exchange.messages, chunk.bytes());
        io.recycle(chunk);
        let completed = match checked {
            Ok(completed) if state.replies.sequence <= state.next_request => completed,
            Ok(_) => return self.fail(io, conn, &"more replies than requests"),
            Err(wrong) => return self.fail(io, conn, &wrong),
        };
        if !state.replies.pongs.is_empty() {
            io.out(conn).append(&mut state.replies.pongs);
        }
        self.done += completed as u64;
        if self.shared.phase() == Phase::Measure {
            let now = self.clock.now();
            let places = &self.queued_at[conn as usize * self.pipeline..][..self.pipeline];
            for sequence in first..first + completed as u64 {
                let queued_at = places[(sequence % self.pipeline as u64) as usize];
                self.latencies.saturating_record(now - queued_at);
            }
        }
        if self.stage == Stage::Run && completed > 0 && self.shared.phase() != Phase::Stop {
            self.send(io, conn, completed);
        }
    }

    fn closed(&mut self, io: &mut Io, conn: u32, error: i32) {
        if self.conns[conn as usize].open && self.stage != Stage::Bye {
            self.fail(io, conn, &format_args!("closed by the server (error {error})"));
        }
    }

    fn tick(&mut self, io: &mut Io) -> bool {
        self.clock.end_tick();
        self.shared.progress(self.worker, self.done);
        match self.stage {
            Stage::Begin => {
                self.stage = Stage::Run;
                (0..self.conns.len() as u32).for_each(|conn| self.send(io, conn, self.pipeline));
            }
            Stage::Run if self.budget == 0 || self.shared.phase() == Phase::Stop => {
                self.stage = Stage::Drain(self.clock.now());
            }
            Stage::Run => return self.conns.iter().any(|conn| conn.open),
            Stage::Drain(since) => {
                let waited = self.clock.now() - since;
                if self.is_idle() || u128::from(waited) > self.exchange.patience.as_nanos() {
                    self.shared.finish(self.worker);
                    self.stage = Stage::Finished;
                }
            }
            Stage::Finished if self.shared.phase() == Phase::Stop => {
                self.say_goodbye(io);
                self.stage = Stage::Bye;
            }
            Stage::Finished => {}
            Stage::Bye => return false,
        }
        true
    }
}

impl Scenario for Echo {
    fn adopt(&mut self, io: &mut Io, sockets: Vec<TcpStream>) -> io::Result<()> {
        for socket in sockets {
            let conn = io.adopt(socket.into())? as usize;
            assert_eq!(conn, self.conns.len());
            self.conns.push(Conn { open: true, ..Conn::default() });
        }
        self.queued_at = vec![0; self.conns.len() * self.pipeline];
        Ok(())
    }

    fn into_latencies(self) -> Histogram<u64> {
        self.latencies
    }
}
