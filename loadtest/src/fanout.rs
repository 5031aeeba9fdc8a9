//! Fan-out: a burst of messages goes out, every connection must receive all of it, then the next burst goes out.
//!
//! Publishers are connections like the others and take turns; they receive too. What is counted is deliveries.

use std::{io, net::TcpStream, sync::Arc};

use hdrhistogram::Histogram;
use peers::uring::{App, Chunk, Io};

use crate::{
    run::{Exchange, Phase, Scenario, Shared, TickClock, latencies},
    wire::{Keys, Replies, append_close},
};

#[derive(Debug, Default)]
struct Receiver {
    open: bool,
    deliveries: Replies,
}

/// All connections; a fan-out has one worker.
#[derive(Debug)]
pub(crate) struct Fanout {
    shared: Arc<Shared>,
    exchange: Exchange,
    publishers: usize,
    burst: u64,
    /// Bursts that may still be sent in the measured window.
    budget: u64,
    keys: Keys,
    clock: TickClock,
    /// Messages published so far; every receiver that is not `pending` has seen them all.
    published: u64,
    pending: usize,
    published_at: u64,
    bursts: u64,
    finished: bool,
    receivers: Vec<Receiver>,
    done: u64,
    latencies: Histogram<u64>,
}

impl Fanout {
    pub(crate) fn new(shared: Arc<Shared>, exchange: Exchange, publishers: usize, burst: u64, budget: u64) -> Self {
        Self {
            shared,
            exchange,
            publishers,
            burst,
            budget,
            keys: Keys::new(0x8765_4321),
            clock: TickClock::new(),
            published: 0,
            pending: 0,
            published_at: 0,
            bursts: 0,
            finished: false,
            receivers: Vec::new(),
            done: 0,
            latencies: latencies(),
        }
    }

    fn publish(&mut self, io: &mut Io) {
        let publisher = (self.bursts % self.publishers as u64) as u32;
        let out = io.out(publisher);
        for sequence in self.published..self.published + self.burst {
            self.exchange.messages.append_request(out, sequence, self.keys.key());
        }
        self.bursts += 1;
        self.published += self.burst;
        self.published_at = self.clock.now();
        self.pending = self.receivers.len();
    }

    fn fail(&mut self, io: &mut Io, conn: u32, why: &dyn std::fmt::Display) {
        self.receivers[conn as usize].open = false;
        self.shared.problem(1, || format!("connection {conn}: {why}"));
        io.close(conn);
        self.finish(io);
    }

    /// Ends the run and counts what is missing.
    fn finish(&mut self, io: &mut Io) {
        if std::mem::replace(&mut self.finished, true) {
            return;
        }
        for (conn, receiver) in (0..).zip(&self.receivers) {
            let lost = self.published - receiver.deliveries.sequence;
            if lost > 0 {
                self.shared.problem(lost, || format!("connection {conn}: {lost} deliveries never came"));
            }
            if receiver.open && self.exchange.websocket {
                append_close(io.out(conn), self.keys.key());
            }
        }
    }
}

impl App for Fanout {
    fn received(&mut self, io: &mut Io, conn: u32, chunk: Chunk) {
        let receiver = &mut self.receivers[conn as usize];
        if !receiver.open || self.finished {
            return io.recycle(chunk);
        }
        let checked = receiver.deliveries.check(&self.exchange.messages, chunk.bytes());
        io.recycle(chunk);
        let completed = match checked {
            Ok(completed) if receiver.deliveries.sequence <= self.published => completed as u64,
            Ok(_) => return self.fail(io, conn, &"more deliveries than messages"),
            Err(wrong) => return self.fail(io, conn, &wrong),
        };
        if !receiver.deliveries.pongs.is_empty() {
            io.out(conn).append(&mut receiver.deliveries.pongs);
        }
        self.done += completed;
        self.pending -= usize::from(completed > 0 && receiver.deliveries.sequence == self.published);
        if self.shared.phase() == Phase::Measure {
            let latency = self.clock.now() - self.published_at;
            self.latencies.saturating_record_n(latency, completed);
        }
    }

    fn closed(&mut self, io: &mut Io, conn: u32, error: i32) {
        if self.receivers[conn as usize].open && !self.finished {
            self.fail(io, conn, &format_args!("closed by the server (error {error})"));
        }
    }

    fn tick(&mut self, io: &mut Io) -> bool {
        self.clock.end_tick();
        self.shared.progress(0, self.done);
        if self.finished {
            return false;
        }
        let phase = self.shared.phase();
        if self.pending > 0 {
            if self.clock.now() - self.published_at > self.exchange.patience.as_nanos() as u64 {
                self.finish(io);
            }
        } else if phase == Phase::Stop {
            self.finish(io);
        } else if self.budget == 0 {
            self.shared.finish(0);
        } else {
            self.budget -= u64::from(phase == Phase::Measure);
            self.publish(io);
        }
        true
    }
}

impl Scenario for Fanout {
    fn adopt(&mut self, io: &mut Io, sockets: Vec<TcpStream>) -> io::Result<()> {
        for socket in sockets {
            let conn = io.adopt(socket.into())? as usize;
            assert_eq!(conn, self.receivers.len());
            self.receivers.push(Receiver { open: true, ..Receiver::default() });
        }
        Ok(())
    }

    fn into_latencies(self) -> Histogram<u64> {
        self.latencies
    }
}
