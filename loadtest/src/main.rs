//! A WebSocket load generator that checks every reply.
//!
//! Closed loop: a connection sends its next message when a reply has come. Anything that is not the reply that was due
//! (a wrong byte, a missing reply, a close) is counted and listed, and makes the exit code 1.

mod connect;
mod echo;
mod fanout;
mod handshake;
mod report;
mod run;
mod usage;
mod wire;

use std::{fs, io, path::PathBuf, process::ExitCode, sync::Arc, time::Duration};

use clap::{Args, Parser, Subcommand};

use crate::{
    echo::Echo,
    fanout::Fanout,
    handshake::Target,
    run::{Exchange, Plan},
    wire::{Layout, Messages},
};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[derive(Debug, Parser)]
#[command(version, about)]
struct Cli {
    #[command(subcommand)]
    scenario: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Sends messages and expects each back.
    Echo {
        #[command(flatten)]
        common: Common,
        #[arg(long, default_value_t = 64)]
        connections: usize,
        /// Messages in flight per connection.
        #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
        pipeline: u32,
        /// Worker threads.
        #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
        threads: u32,
    },
    /// Sends messages and expects each at every connection, the sender's included.
    Fanout {
        #[command(flatten)]
        common: Common,
        #[arg(long, default_value_t = 1000)]
        subscribers: usize,
        /// Connections that publish, in turn; they receive too.
        #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
        publishers: u32,
        /// Messages published at once.
        #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
        burst: u32,
    },
    /// Opens connections as fast as it can, holds them, closes them.
    Connect {
        /// Server and route, as ws://HOST:PORT/PATH.
        #[arg(long, value_parser = Target::parse)]
        url: Target,
        #[arg(long, default_value_t = 10_000)]
        connections: usize,
        /// Handshakes in flight.
        #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..))]
        concurrency: u32,
        /// Seconds to hold the open connections.
        #[arg(long, default_value_t = 0.0)]
        hold: f64,
        /// Use this many source addresses, from 127.0.0.1 up, for more connections than one address has ports.
        #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=254))]
        source_ips: u8,
        /// Every connection sends one message and checks the reply before it counts as open.
        #[arg(long)]
        echo: bool,
        /// Payload bytes of that message.
        #[arg(long, default_value_t = 64)]
        size: usize,
        /// Process whose CPU time and memory are reported.
        #[arg(long)]
        server_pid: Option<u32>,
        /// Also write the figures to this file.
        #[arg(long)]
        json: Option<PathBuf>,
        /// Pin to this CPU.
        #[arg(long)]
        pin: Option<usize>,
        /// No handshake and no masks.
        #[arg(long)]
        raw: bool,
    },
}

#[derive(Args, Debug)]
struct Common {
    /// Server and route, as ws://HOST:PORT/PATH.
    #[arg(long, value_parser = Target::parse)]
    url: Target,
    /// Payload bytes of a message.
    #[arg(long, default_value_t = 64)]
    size: usize,
    /// Measured seconds.
    #[arg(long, default_value_t = 5.0)]
    duration: f64,
    /// Measure this many messages (published ones for a fan-out) instead of a time.
    #[arg(long, conflicts_with = "duration")]
    count: Option<u64>,
    /// Seconds before the measured window.
    #[arg(long, default_value_t = 1.0)]
    warmup: f64,
    /// Seconds a reply may take before it counts as lost.
    #[arg(long, default_value_t = 5.0)]
    patience: f64,
    /// Send text messages (the default).
    #[arg(long, conflicts_with = "binary")]
    text: bool,
    /// Send binary messages.
    #[arg(long)]
    binary: bool,
    /// Process whose CPU time and memory are reported.
    #[arg(long)]
    server_pid: Option<u32>,
    /// Also write the figures to this file.
    #[arg(long)]
    json: Option<PathBuf>,
    /// Pin worker threads to this CPU and the following ones.
    #[arg(long)]
    pin: Option<usize>,
    /// No handshake and no masks: the same number of bytes for a server without WebSocket.
    #[arg(long)]
    raw: bool,
}

impl Common {
    fn plan(&self, connections: usize, threads: usize, messages: &Messages) -> Plan {
        let (sent, received) = messages.wire_bytes();
        Plan {
            target: self.url.clone(),
            raw: self.raw,
            connections,
            threads: threads.min(connections.max(1)),
            pin: self.pin,
            warmup: Duration::from_secs_f64(self.warmup),
            duration: self.count.is_none().then(|| Duration::from_secs_f64(self.duration)),
            server_pid: self.server_pid,
            wire_bytes: sent.max(received),
        }
    }

    fn exchange(&self, raw: Layout) -> Exchange {
        let layout = if self.raw { raw } else { Layout::WebSocket };
        Exchange {
            messages: Arc::new(Messages::new(layout, !self.binary, self.size)),
            websocket: !self.raw,
            patience: Duration::from_secs_f64(self.patience),
        }
    }
}

fn main() -> ExitCode {
    match run(&Cli::parse().scenario) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("ringwire-loadtest: {error}");
            ExitCode::from(2)
        }
    }
}

fn run(command: &Command) -> io::Result<bool> {
    peers::process::raise_nofile()?;
    match command {
        Command::Echo { common, connections, pipeline, threads } => {
            let exchange = common.exchange(Layout::RawEcho);
            let plan = common.plan(*connections, *threads as usize, &exchange.messages);
            let threads = plan.threads as u64;
            let report = plan.run(|shared, worker| {
                let budget = common
                    .count
                    .map_or(u64::MAX, |count| count / threads + u64::from((worker as u64) < count % threads));
                Echo::new(shared, worker, exchange.clone(), *pipeline as usize, budget)
            })?;
            finish(&report, &report.to_json(), common.json.as_ref(), report.problem_count)
        }
        Command::Fanout { common, subscribers, publishers, burst } => {
            let exchange = common.exchange(Layout::RawFanout);
            let plan = common.plan(subscribers + *publishers as usize, 1, &exchange.messages);
            let (publishers, burst) = (*publishers as usize, u64::from(*burst));
            let report = plan.run(|shared, _| {
                let budget = common.count.map_or(u64::MAX, |count| count.div_ceil(burst));
                Fanout::new(shared, exchange.clone(), publishers, burst, budget)
            })?;
            finish(&report, &report.to_json(), common.json.as_ref(), report.problem_count)
        }
        Command::Connect {
            url,
            connections,
            concurrency,
            hold,
            source_ips,
            echo,
            size,
            server_pid,
            json,
            pin,
            raw,
        } => {
            if let Some(cpu) = pin {
                run::pin(*cpu)?;
            }
            let layout = if *raw { Layout::RawEcho } else { Layout::WebSocket };
            let plan = connect::Plan {
                target: url.clone(),
                raw: *raw,
                connections: *connections,
                concurrency: *concurrency as usize,
                source_ips: *source_ips,
                first_echo: echo.then(|| Messages::new(layout, true, *size)),
                hold: Duration::from_secs_f64(*hold),
                server_pid: *server_pid,
            };
            let report = plan.run()?;
            finish(&report, &report.to_json(), json.as_ref(), report.problem_count)
        }
    }
}

/// Prints and stores a report; `true` when nothing went wrong.
fn finish(
    report: &dyn std::fmt::Display,
    figures: &serde_json::Value,
    json: Option<&PathBuf>,
    problem_count: u64,
) -> io::Result<bool> {
    println!("{report}");
    if let Some(path) = json {
        fs::write(path, format!("{figures:#}\n"))?;
    }
    Ok(problem_count == 0)
}
