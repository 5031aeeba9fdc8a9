//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::{
    slo,
    target::{Target, parse_header, parse_sources},
    wire::Sizes,
};

/// Measures any WebSocket server, and checks every message that comes back.
///
/// Exit codes: 0 all went well; 1 messages or connections were not as they should be; 2 nothing could be measured;
/// 3 an objective of --slo was missed.
#[derive(Debug, Parser)]
#[command(version)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Every connection sends messages and expects each back.
    Echo {
        #[command(flatten)]
        to: To,
        #[command(flatten)]
        opening: Opening,
        #[command(flatten)]
        flow: Flow,
        /// Connections.
        #[arg(long, default_value_t = 64)]
        connections: usize,
        /// Messages in flight per connection.
        #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=65_536))]
        pipeline: u32,
        #[command(flatten)]
        output: Output,
    },
    /// Publishers' messages reach every connection, the publishers included.
    #[command(alias = "fanout")]
    Broadcast {
        #[command(flatten)]
        to: To,
        #[command(flatten)]
        opening: Opening,
        #[command(flatten)]
        flow: Flow,
        /// Connections that only receive.
        #[arg(long, default_value_t = 1000)]
        subscribers: usize,
        #[command(flatten)]
        publishing: Publishing,
        #[command(flatten)]
        output: Output,
    },
    /// As broadcast, in many rooms at once; the URL has {room} where the room's name goes.
    Rooms {
        #[command(flatten)]
        to: To,
        #[command(flatten)]
        opening: Opening,
        #[command(flatten)]
        flow: Flow,
        /// Rooms.
        #[arg(long, default_value_t = 100)]
        rooms: usize,
        /// Connections in each, publishers included.
        #[arg(long, default_value_t = 10)]
        members: usize,
        #[command(flatten)]
        publishing: Publishing,
        #[command(flatten)]
        output: Output,
    },
    /// As broadcast, and in the middle of it some connections stop reading: the others must not notice.
    Slow {
        #[command(flatten)]
        to: To,
        #[command(flatten)]
        opening: Opening,
        #[command(flatten)]
        flow: Flow,
        /// Connections that go on reading.
        #[arg(long, default_value_t = 90)]
        subscribers: usize,
        /// Connections that stop.
        #[arg(long, default_value_t = 10)]
        stalled: usize,
        #[command(flatten)]
        publishing: Publishing,
        #[command(flatten)]
        output: Output,
    },
    /// Messages to single sockets by POST to the server's HTTP API; the URL's route tells each socket its id.
    Emit {
        #[command(flatten)]
        to: To,
        #[command(flatten)]
        opening: Opening,
        #[command(flatten)]
        flow: Flow,
        /// Sockets that receive.
        #[arg(long, default_value_t = 64)]
        connections: usize,
        /// HTTP connections of each thread.
        #[arg(long, default_value_t = 8)]
        posters: usize,
        /// Path to post to, with {id} where the id goes.
        #[arg(long, default_value = "/api/message/{id}")]
        api: String,
        /// Bearer token of the API.
        #[arg(long)]
        token: Option<String>,
        #[command(flatten)]
        output: Output,
    },
    /// Opens connections, holds them, pings them.
    Connect {
        #[command(flatten)]
        to: To,
        #[command(flatten)]
        opening: Opening,
        /// Connections.
        #[arg(long, default_value_t = 10_000)]
        connections: usize,
        /// Seconds to hold the open connections.
        #[arg(long, default_value_t = 0.0, value_parser = seconds)]
        hold: f64,
        /// Every connection sends one message and checks the reply before it counts as open.
        #[arg(long)]
        echo: bool,
        /// Ping every connection once all are open, and again at the end of the hold.
        #[arg(long)]
        ping: bool,
        /// Pings a second.
        #[arg(long, default_value_t = 20_000.0, value_parser = positive)]
        ping_rate: f64,
        /// Seconds an answer may take.
        #[arg(long, default_value_t = 5.0, value_parser = seconds)]
        patience: f64,
        #[command(flatten)]
        output: Output,
    },
    /// Users who connect, say a few words, and leave, over and over.
    Churn {
        #[command(flatten)]
        to: To,
        #[command(flatten)]
        opening: Opening,
        #[command(flatten)]
        flow: Flow,
        /// Users at once.
        #[arg(long, default_value_t = 64)]
        users: usize,
        /// Messages each sends, and gets back, before it leaves.
        #[arg(long, default_value_t = 1)]
        words: u64,
        #[command(flatten)]
        output: Output,
    },
    /// Compares two reports written with --json.
    Diff {
        /// The report to compare with.
        a: PathBuf,
        /// The report to judge.
        b: PathBuf,
    },
}

/// Where to, and with what.
#[derive(Args, Debug)]
pub(crate) struct To {
    /// Server and route, as ws://HOST:PORT/PATH.
    #[arg(long, value_parser = Target::parse)]
    pub(crate) url: Target,
    /// Header of the handshake, as NAME: VALUE; may be repeated.
    #[arg(long = "header", value_parser = parse_header)]
    pub(crate) headers: Vec<(String, String)>,
    /// Subprotocol to offer; may be repeated.
    #[arg(long = "subprotocol")]
    pub(crate) protocols: Vec<String>,
    /// Payload bytes: 64, 4KiB, 64..4096 (evenly), or 64:90,4KiB:10 (with weights).
    #[arg(long, default_value = "64", value_parser = Sizes::parse)]
    pub(crate) size: Sizes,
    /// Send text messages (the default).
    #[arg(long, conflicts_with = "binary")]
    pub(crate) text: bool,
    /// Send binary messages.
    #[arg(long)]
    pub(crate) binary: bool,
    /// No handshake and no masks: the same number of bytes for a server without WebSocket.
    #[arg(long)]
    pub(crate) raw: bool,
}

/// How connections are opened.
#[derive(Args, Debug)]
pub(crate) struct Opening {
    /// Handshakes in flight.
    #[arg(long, default_value_t = 256)]
    pub(crate) concurrency: usize,
    /// Connections a second while ramping up; as fast as they go without it.
    #[arg(long, value_parser = positive)]
    pub(crate) ramp: Option<f64>,
    /// Source addresses, as 127.0.0.1,127.0.0.2 or 127.0.0.1-127.0.0.20. By default one, and more of the loopback network
    /// where one has not enough ports.
    #[arg(long, value_parser = parse_sources)]
    pub(crate) bind: Option<Sources>,
    /// Threads, each with a ring of its own; by default one per pinned processor, else half of the processors, and as many
    /// as the connections need.
    #[arg(long)]
    pub(crate) threads: Option<usize>,
    /// Processors to pin the threads to, as 1 or 1,2,3.
    #[arg(long, value_delimiter = ',')]
    pub(crate) pin: Vec<usize>,
}

type Sources = Vec<std::net::Ipv4Addr>;

/// How messages flow.
#[derive(Args, Debug)]
pub(crate) struct Flow {
    /// Messages a second in all, evenly, whatever the replies do (open loop); latency then counts from when a message
    /// should have been sent. Without it the next message follows the reply (closed loop).
    #[arg(long, value_parser = positive)]
    pub(crate) rate: Option<f64>,
    /// Measured seconds.
    #[arg(long, default_value_t = 5.0, value_parser = seconds)]
    pub(crate) duration: f64,
    /// Measure this many messages (published ones of a broadcast, sessions of churn) instead of a time.
    #[arg(long, conflicts_with = "duration")]
    pub(crate) count: Option<u64>,
    /// Seconds before the measured window.
    #[arg(long, default_value_t = 1.0, value_parser = seconds)]
    pub(crate) warmup: f64,
    /// Seconds an answer may take before it counts as lost.
    #[arg(long, default_value_t = 5.0, value_parser = seconds)]
    pub(crate) patience: f64,
}

/// Who publishes.
#[derive(Args, Debug)]
pub(crate) struct Publishing {
    /// Connections that publish (of each room); they receive too.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) publishers: u32,
    /// Messages published at once.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub(crate) burst: u32,
}

/// What comes of it.
#[derive(Args, Debug)]
pub(crate) struct Output {
    /// Process on this machine whose CPU time and memory are reported.
    #[arg(long)]
    pub(crate) server_pid: Option<u32>,
    /// Objectives, such as 'p99<5ms,lost=0,rate>10000'; exit code 3 if one is missed.
    #[arg(long, value_parser = slo::parse)]
    pub(crate) slo: Option<Rules>,
    /// Write the figures to this file.
    #[arg(long)]
    pub(crate) json: Option<PathBuf>,
    /// Write a page with plots to this file.
    #[arg(long)]
    pub(crate) html: Option<PathBuf>,
    /// Write the latencies of each interval to this file, as a HdrHistogram log.
    #[arg(long)]
    pub(crate) hdr_log: Option<PathBuf>,
    /// No progress.
    #[arg(long, short)]
    pub(crate) quiet: bool,
}

type Rules = Vec<slo::Rule>;

fn seconds(text: &str) -> Result<f64, String> {
    let number = text.trim_end_matches('s').parse::<f64>().map_err(|error| error.to_string())?;
    if (0.0..1e6).contains(&number) { Ok(number) } else { Err("a number of seconds from 0 to 1000000".to_owned()) }
}

fn positive(text: &str) -> Result<f64, String> {
    let number = text.parse::<f64>().map_err(|error| error.to_string())?;
    if number > 0.0 && number.is_finite() { Ok(number) } else { Err("must be more than 0".to_owned()) }
}
