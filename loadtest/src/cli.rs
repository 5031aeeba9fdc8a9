//! The command line.

use std::{
    ffi::{OsStr, OsString},
    net::Ipv4Addr,
    path::PathBuf,
    time::Duration,
};

use clap::{
    Arg, ArgMatches, Args, CommandFactory, Error, Parser, Subcommand,
    builder::TypedValueParser,
    error::{ContextKind, ContextValue, ErrorKind},
};

use crate::{
    diff,
    fleet::address,
    headers,
    script::{recording::Matching, stages::Stages},
    slo,
    target::{Target, parse_sources},
    tls::Tls,
    wire::{Content, Sizes},
};

/// Measures any WebSocket server, and checks every message that comes back.
///
/// Exit codes: 0 all went well; 1 messages or connections were not as they should be, an agent was lost, or not all rounds could be made;
/// 2 nothing could be measured; 3 an objective of --slo was missed, or a limit of diff --fail-on.
#[derive(Debug, Parser)]
#[command(version)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Every connection sends messages and expects each back.
    Echo(Echo),
    /// Publishers' messages reach every connection, the publishers included.
    #[command(alias = "fanout")]
    Broadcast(Broadcast),
    /// As broadcast, in many rooms at once; the URL has {room} where the room's name goes.
    Rooms(Rooms),
    /// As broadcast, and in the middle of it some connections stop reading: the others must not notice.
    Slow(Slow),
    /// Messages to single sockets by POST to the server's HTTP API; the URL's route tells each socket its id.
    Emit(Emit),
    /// Opens connections, holds them, pings them.
    Connect(Connect),
    /// Users who connect, say a few words, and leave, over and over.
    Churn(Churn),
    /// Users who follow a scenario file (TOML): what they send, expect and wait, in stages.
    Run(Run),
    /// Plays recorded sessions (HAR, as browsers save them) again.
    Replay(Replay),
    /// Makes its part of runs that another machine leads, with --agents.
    Agent(Agent),
    /// Compares two reports written with --json.
    Diff(diff::Diff),
}

impl Command {
    /// What all scenarios have.
    pub(crate) fn common(&self) -> &Common {
        match self {
            Command::Echo(Echo { load, .. })
            | Command::Emit(Emit { load, .. })
            | Command::Churn(Churn { load, .. }) => &load.common,
            Command::Broadcast(Broadcast { publishing, .. })
            | Command::Rooms(Rooms { publishing, .. })
            | Command::Slow(Slow { publishing, .. }) => &publishing.load.common,
            Command::Connect(Connect { common, .. })
            | Command::Run(Run { common, .. })
            | Command::Replay(Replay { common, .. }) => common,
            Command::Agent(_) | Command::Diff(_) => unreachable!("no scenario"),
        }
    }

    /// How messages flow, where stages do not say.
    pub(crate) fn flow(&self) -> Option<&Flow> {
        match self {
            Command::Echo(Echo { stages: Some(_), .. }) | Command::Churn(Churn { stages: Some(_), .. }) => None,
            Command::Echo(Echo { load, .. })
            | Command::Emit(Emit { load, .. })
            | Command::Churn(Churn { load, .. })
            | Command::Broadcast(Broadcast { publishing: Publishing { load, .. }, .. })
            | Command::Rooms(Rooms { publishing: Publishing { load, .. }, .. })
            | Command::Slow(Slow { publishing: Publishing { load, .. }, .. }) => Some(&load.flow),
            _ => None,
        }
    }
}

#[derive(Args, Debug)]
pub(crate) struct Agent {
    /// Where to listen for who leads: HOST:PORT, or HOST for port 9009. Other addresses than those of this machine itself need a token: an agent
    /// sends whatever load it is told to, wherever it is told to.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1", value_parser = address::parse)]
    pub(crate) listen: String,
    /// What whoever leads must know; by default that of RINGWIRE_LOADTEST_TOKEN, which other users of this machine cannot
    /// see.
    #[arg(long, value_name = "TOKEN", allow_hyphen_values = true)]
    pub(crate) token: Option<String>,
    /// Connections that may be asked of it; by default as many as this process may have descriptors.
    #[arg(long, value_name = "COUNT")]
    pub(crate) max_connections: Option<usize>,
    /// No word of the runs.
    #[arg(long, short)]
    pub(crate) quiet: bool,
}

#[derive(Args, Debug)]
pub(crate) struct Echo {
    /// Connections.
    #[arg(long, default_value_t = 64)]
    pub(crate) connections: usize,
    /// Messages in flight per connection.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=65_536))]
    pub(crate) pipeline: u32,
    /// Connections in stages, as 10s:1000,30s:10000 (in 10 seconds to 1,000, then in 30 to 10,000), with messages a second as
    /// 10s:1000@200; in place of --connections and times.
    #[arg(long, value_parser = Stages::parse, conflicts_with_all = ["connections", "pipeline", "rate", "duration", "count", "warmup", "raw"])]
    pub(crate) stages: Option<Stages>,
    #[command(flatten)]
    pub(crate) load: Load,
}

#[derive(Args, Debug)]
pub(crate) struct Broadcast {
    /// Connections that only receive.
    #[arg(long, default_value_t = 1000)]
    pub(crate) subscribers: usize,
    #[command(flatten)]
    pub(crate) publishing: Publishing,
}

#[derive(Args, Debug)]
pub(crate) struct Rooms {
    /// Rooms.
    #[arg(long, default_value_t = 100)]
    pub(crate) rooms: usize,
    /// Connections in each, publishers included.
    #[arg(long, default_value_t = 10)]
    pub(crate) members: usize,
    #[command(flatten)]
    pub(crate) publishing: Publishing,
}

#[derive(Args, Debug)]
pub(crate) struct Slow {
    /// Connections that go on reading.
    #[arg(long, default_value_t = 90)]
    pub(crate) subscribers: usize,
    /// Connections that stop.
    #[arg(long, default_value_t = 10)]
    pub(crate) stalled: usize,
    /// When they stop, after the measured window has begun (seconds, or with a unit: 500ms, 2m); by default in its middle.
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub(crate) stall_after: Option<Duration>,
    #[command(flatten)]
    pub(crate) publishing: Publishing,
}

#[derive(Args, Debug)]
pub(crate) struct Emit {
    /// Sockets that receive.
    #[arg(long, default_value_t = 64)]
    pub(crate) connections: usize,
    /// HTTP connections of each thread.
    #[arg(long, default_value_t = 8)]
    pub(crate) posters: usize,
    /// Requests in flight on each HTTP connection; without --rate, messages that have not come, too.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=65_536))]
    pub(crate) pipeline: u32,
    /// Path to post to, with {id} where the id goes.
    #[arg(long, value_name = "PATH", default_value = "/api/message/{id}")]
    pub(crate) api: String,
    /// Bearer token of the API.
    #[arg(long, allow_hyphen_values = true)]
    pub(crate) token: Option<String>,
    #[command(flatten)]
    pub(crate) load: Load,
}

#[derive(Args, Debug)]
pub(crate) struct Connect {
    /// Connections.
    #[arg(long, default_value_t = 10_000)]
    pub(crate) connections: usize,
    /// Hold the open connections for this long (seconds, or with a unit: 500ms, 2m).
    #[arg(long, value_name = "TIME", default_value = "0s", value_parser = time)]
    pub(crate) hold: Duration,
    /// Every connection sends one message and checks the reply before it counts as open.
    #[arg(long)]
    pub(crate) echo: bool,
    /// Ping every connection once all are open, and again at the end of the hold.
    #[arg(long)]
    pub(crate) ping: bool,
    /// Pings a second.
    #[arg(long, default_value_t = 20_000.0, value_parser = positive)]
    pub(crate) ping_rate: f64,
    #[command(flatten)]
    pub(crate) common: Common,
}

#[derive(Args, Debug)]
pub(crate) struct Churn {
    /// Users at once.
    #[arg(long, default_value_t = 64)]
    pub(crate) users: usize,
    /// Messages each sends, and gets back, before it leaves.
    #[arg(long, default_value_t = 1)]
    pub(crate) words: u64,
    /// Users in stages, as 10s:1000,30s:10000; in place of --users and times.
    #[arg(long, value_parser = Stages::parse, conflicts_with_all = ["users", "rate", "duration", "count", "warmup"])]
    pub(crate) stages: Option<Stages>,
    #[command(flatten)]
    pub(crate) load: Load,
}

#[derive(Args, Debug)]
#[command(mut_group("Url", |group| group.required(false)))]
pub(crate) struct Run {
    /// The scenario file.
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// Stages in place of the file's, as 10s:1000,30s:10000 (in 10 seconds to 1,000 connections, then in 30 to 10,000), with
    /// rounds a second as 10s:1000@200.
    #[arg(long, value_parser = Stages::parse)]
    pub(crate) stages: Option<Stages>,
    #[command(flatten)]
    pub(crate) common: Common,
}

#[derive(Args, Debug)]
#[command(mut_group("Url", |group| group.required(false)))]
pub(crate) struct Replay {
    /// The recording.
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// Users at once; by default one for each recorded session.
    #[arg(long)]
    pub(crate) connections: Option<usize>,
    /// How often each of them plays its session.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) repeat: u64,
    /// How much faster than it was recorded.
    #[arg(long, default_value_t = 1.0, value_parser = positive)]
    pub(crate) speed: f64,
    /// How what comes is held against what came.
    #[arg(long = "match", value_enum, default_value_t = Matching::Shape)]
    pub(crate) matching: Matching,
    #[command(flatten)]
    pub(crate) common: Common,
}

/// Who publishes, in the scenarios where many hear the same.
#[derive(Args, Debug)]
pub(crate) struct Publishing {
    /// Connections that publish (of each room); they receive too.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) publishers: u32,
    /// Messages published at once.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub(crate) burst: u32,
    #[command(flatten)]
    pub(crate) load: Load,
}

/// What every scenario in which messages flow has.
#[derive(Args, Debug)]
pub(crate) struct Load {
    #[command(flatten)]
    pub(crate) flow: Flow,
    #[command(flatten)]
    pub(crate) common: Common,
}

/// What every scenario has.
#[derive(Args, Debug)]
pub(crate) struct Common {
    /// An answer may take this long before it counts as lost (seconds, or with a unit: 500ms, 2m).
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = time)]
    pub(crate) patience: Duration,
    #[command(flatten)]
    pub(crate) to: To,
    #[command(flatten)]
    pub(crate) tls: Tls,
    #[command(flatten)]
    pub(crate) opening: Opening,
    #[command(flatten)]
    pub(crate) output: Output,
}

/// How messages flow.
#[derive(Args, Debug)]
pub(crate) struct Flow {
    /// Messages a second in all, evenly, whatever the replies do (open loop); latency then counts from when a message
    /// should have been sent. Without it the next message follows the reply (closed loop).
    #[arg(long, value_parser = positive)]
    pub(crate) rate: Option<f64>,
    /// Measure for this long (seconds, or with a unit: 500ms, 2m).
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = lasting)]
    pub(crate) duration: Duration,
    /// Measure this many messages (published ones of a broadcast, sessions of churn) instead of a time.
    #[arg(long, conflicts_with = "duration")]
    pub(crate) count: Option<u64>,
    /// Let messages flow for this long before the measured window (seconds, or with a unit: 500ms, 2m).
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = time)]
    pub(crate) warmup: Duration,
}

/// Where to, and with what.
#[derive(Args, Debug)]
#[command(next_help_heading = "Server and messages")]
pub(crate) struct To {
    #[command(flatten)]
    url: Url,
    /// Header of the handshake; may be repeated. Host stands in place of the URL's.
    #[arg(long = "header", value_name = "NAME: VALUE", value_parser = Unshown(headers::parse), allow_hyphen_values = true)]
    pub(crate) headers: Vec<(String, String)>,
    /// Subprotocol to offer; may be repeated.
    #[arg(long = "subprotocol", value_name = "NAME")]
    pub(crate) protocols: Vec<String>,
    /// Payload bytes: 64, 4KiB, 64..4096 (evenly), or 64:90,4KiB:10 (with weights).
    #[arg(long, default_value = "64", value_parser = Sizes::parse)]
    pub(crate) size: Sizes,
    /// What payloads are made of.
    #[arg(long, value_enum, default_value_t = Content::Random)]
    pub(crate) content: Content,
    /// Send text messages (the default).
    #[arg(long, conflicts_with = "binary")]
    pub(crate) text: bool,
    /// Send binary messages.
    #[arg(long)]
    pub(crate) binary: bool,
    /// No handshake and no masks: the same number of bytes for a server without WebSocket.
    #[arg(long)]
    pub(crate) raw: bool,
    /// Offer compression by permessage-deflate, with contexts that messages may refer back to, or without.
    #[arg(long, value_enum, value_name = "HOW", num_args = 0..=1, require_equals = true,
          default_missing_value = "context", conflicts_with = "raw")]
    pub(crate) deflate: Option<Contexts>,
    /// Do not compress messages of fewer bytes.
    #[arg(long, value_name = "SIZE", default_value = "256", value_parser = size, requires = "deflate")]
    pub(crate) deflate_min: usize,
}

/// What is offered of compression.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Contexts {
    /// Messages may refer to those before; the server may decline that.
    Context,
    /// Each message by itself.
    NoContext,
}

/// The URL, which may stand by itself or behind its name.
#[derive(Args, Debug)]
#[group(required = true, multiple = false)]
struct Url {
    /// Server and route, as ws://HOST:PORT/PATH or wss://HOST:PORT/PATH.
    #[arg(value_name = "URL", help_heading = None::<&'static str>, value_parser = Unshown(Target::parse))]
    positional: Option<Target>,
    /// The same as the argument; given several times, connections are dealt out in turn.
    #[arg(long = "url", value_name = "URL", value_parser = Unshown(Target::parse))]
    named: Vec<Target>,
}

impl To {
    /// Where to; there is at least one.
    pub(crate) fn urls(&self) -> impl Iterator<Item = &Target> {
        self.url.positional.iter().chain(&self.url.named)
    }
}

/// How connections are opened.
#[derive(Args, Debug)]
#[command(next_help_heading = "Connections and threads")]
pub(crate) struct Opening {
    /// Handshakes in flight.
    #[arg(long, default_value_t = 256)]
    pub(crate) concurrency: usize,
    /// Connections a second while ramping up; as fast as they go without it.
    #[arg(long, value_name = "RATE", value_parser = positive)]
    pub(crate) ramp: Option<f64>,
    /// Source addresses, as 127.0.0.1,127.0.0.2 or 127.0.0.1-127.0.0.20. By default one, and more of the loopback network
    /// where one has not enough ports.
    #[arg(long, value_name = "ADDRESSES", value_parser = parse_sources)]
    pub(crate) bind: Option<Sources>,
    /// Threads, each with a ring of its own; by default one per pinned processor, else half of the processors, and as many
    /// as the connections need.
    #[arg(long)]
    pub(crate) threads: Option<usize>,
    /// Processors to pin the threads to, as 1 or 1,2,3.
    #[arg(long, value_name = "PROCESSORS", value_delimiter = ',')]
    pub(crate) pin: Vec<usize>,
    /// Agents (`ringwire-loadtest agent`) that make the run together in place of this process, as host-a,host-b:9010; without a
    /// port it is 9009. They are shown the token of RINGWIRE_LOADTEST_TOKEN.
    #[arg(long, value_name = "HOST:PORT", value_delimiter = ',', value_parser = address::parse)]
    pub(crate) agents: Vec<String>,
    /// An agent that is not heard of for this long is lost (seconds, or with a unit: 500ms, 2m).
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = time)]
    pub(crate) agent_patience: Duration,
}

type Sources = Vec<Ipv4Addr>;

/// What comes of it.
#[derive(Args, Debug)]
#[command(next_help_heading = "Report")]
pub(crate) struct Output {
    /// Process on this machine whose CPU time and memory are reported.
    #[arg(long, value_name = "PID")]
    pub(crate) server_pid: Option<u32>,
    /// Run it so often; the report has medians with ranges.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) rounds: u32,
    /// Objectives, such as 'p99<5ms,lost=0,rate>10000'; exit code 3 if one is missed.
    #[arg(long, value_name = "OBJECTIVES", value_parser = slo::parse)]
    pub(crate) slo: Option<Rules>,
    /// Write the figures to this file.
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
    /// Write a page with plots to this file.
    #[arg(long, value_name = "FILE")]
    pub(crate) html: Option<PathBuf>,
    /// Write the latencies of each interval to this file, as a HdrHistogram log.
    #[arg(long, value_name = "FILE")]
    pub(crate) hdr_log: Option<PathBuf>,
    /// Write checks and objectives to this file, as JUnit's XML.
    #[arg(long, value_name = "FILE")]
    pub(crate) junit: Option<PathBuf>,
    /// Append the figures to this file, as Markdown: $GITHUB_STEP_SUMMARY.
    #[arg(long, value_name = "FILE")]
    pub(crate) summary: Option<PathBuf>,
    /// No progress.
    #[arg(long, short)]
    pub(crate) quiet: bool,
}

type Rules = Vec<slo::Rule>;

/// Reads the command line.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn read(arguments: Vec<OsString>) -> Result<ArgMatches, Error> {
    let is_secret = |argument: &OsString| {
        let argument = argument.to_string_lossy();
        ["--header", "--token"].iter().any(|secret| argument.starts_with(secret))
    };
    let has_secrets = arguments.iter().any(is_secret);
    Cli::command().try_get_matches_from(arguments).map_err(|mut error| {
        let unknown = match error.get(ContextKind::InvalidArg) {
            Some(ContextValue::String(unknown)) if error.kind() == ErrorKind::UnknownArgument => unknown.as_str(),
            _ => "-",
        };
        // Where quotes are missing it is a part of what is secret.
        if has_secrets && !unknown.starts_with('-') {
            error.insert(ContextKind::InvalidArg, ContextValue::String("…".to_owned()));
            error.remove(ContextKind::Suggested);
        }
        error
    })
}

/// Reads what may be secret, so that an error says what is wrong and not what was given.
#[derive(Clone)]
struct Unshown<T>(fn(&str) -> Result<T, String>);

impl<T: Clone + Send + Sync + 'static> TypedValueParser for Unshown<T> {
    type Value = T;

    fn parse_ref(&self, command: &clap::Command, arg: Option<&Arg>, value: &OsStr) -> Result<T, Error> {
        let read = value.to_str().ok_or_else(|| "it is not UTF-8".to_owned()).and_then(self.0);
        let option = arg.map(Arg::to_string).unwrap_or_default();
        read.map_err(|why| Error::raw(ErrorKind::ValueValidation, format!("{option}: {why}\n")).with_cmd(command))
    }
}

/// No run takes so long.
const TIME_MAX: Duration = Duration::from_secs(1_000_000);

/// Reads a time: a number of seconds, or with a unit.
pub(crate) fn time(text: &str) -> Result<Duration, String> {
    let time = match text.parse::<f64>() {
        Ok(seconds) => Duration::try_from_secs_f64(seconds).ok(),
        Err(_) => humantime::parse_duration(text).ok(),
    };
    time.filter(|time| *time < TIME_MAX)
        .ok_or_else(|| "a time is a number of seconds, or has a unit: 5, 5s, 500ms, 2m".to_owned())
}

/// Reads a time in which something can be measured.
fn lasting(text: &str) -> Result<Duration, String> {
    time(text).and_then(|time| if time.is_zero() { Err("it must last some time".to_owned()) } else { Ok(time) })
}

/// Reads a number of bytes.
fn size(text: &str) -> Result<usize, String> {
    match Sizes::parse(text)? {
        Sizes::Fixed(size) => Ok(size),
        _ => Err("one size, as 64 or 4KiB".to_owned()),
    }
}

fn positive(text: &str) -> Result<f64, String> {
    let number = text.parse::<f64>().map_err(|error| error.to_string())?;
    if number > 0.0 && number.is_finite() { Ok(number) } else { Err("must be more than 0".to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Result<Command, clap::Error> {
        Cli::try_parse_from(format!("ringwire-loadtest {line}").split(' ')).map(|cli| cli.command)
    }

    fn echo(line: &str) -> Echo {
        match read(line) {
            Ok(Command::Echo(echo)) => echo,
            other => panic!("{line}: {other:?}"),
        }
    }

    #[test]
    fn times_are_seconds_or_have_a_unit() {
        let cases = [
            ("5", 5_000),
            ("0", 0),
            ("0.25", 250),
            ("5s", 5_000),
            ("0.5s", 500),
            ("500ms", 500),
            ("2m", 120_000),
            ("1m 30s", 90_000),
            ("1m30s", 90_000),
            ("1h", 3_600_000),
        ];
        for (text, ms) in cases {
            assert_eq!(time(text), Ok(Duration::from_millis(ms)), "{text}");
        }
        for wrong in ["", "s", "-1", "-1s", "5x", "five", "nan", "inf", "1e9", "1000000", "99999d", "5 5"] {
            assert!(time(wrong).is_err_and(|error| error.contains("500ms")), "{wrong}");
        }
        let echo = echo("echo ws://127.0.0.1:1/ --duration 2m --warmup 500ms --patience 3");
        let flow = &echo.load.flow;
        let times = [flow.duration, flow.warmup, echo.load.common.patience];
        assert_eq!(times.map(|time| time.as_millis()), [120_000, 500, 3_000]);
    }

    #[test]
    fn times_have_defaults_and_a_count_takes_the_place_of_one() {
        let Load { flow, common } = echo("echo ws://127.0.0.1:1/ --count 5").load;
        let times = [flow.duration, flow.warmup, common.patience];
        assert_eq!((times.map(|time| time.as_secs()), flow.count), ([5, 1, 5], Some(5)));
        let both = read("echo ws://127.0.0.1:1/ --count 5 --duration 1s").expect_err("one or the other");
        assert_eq!(both.kind(), ErrorKind::ArgumentConflict);
        // Nothing is measured in no time.
        for scenario in ["echo", "slow", "churn", "emit"] {
            let nothing = read(&format!("{scenario} ws://127.0.0.1:1/ --duration 0ms")).expect_err("no time");
            assert!(nothing.to_string().contains("it must last some time"), "{nothing}");
        }
        assert!(read("echo ws://127.0.0.1:1/ --warmup 0 --duration 1ms").is_ok());
    }

    #[test]
    fn the_url_is_given_once_in_either_of_two_ways() {
        for line in ["echo ws://127.0.0.1:7/x", "echo --url ws://127.0.0.1:7/x", "echo --raw ws://127.0.0.1:7/x --text"]
        {
            let urls: Vec<String> = echo(line).load.common.to.urls().map(|target| target.path.clone()).collect();
            assert_eq!(urls, ["/x"], "{line}");
        }
        let several = echo("echo --url ws://127.0.0.1:7/x --url wss://127.0.0.1:8/y");
        let urls: Vec<&str> = several.load.common.to.urls().map(|target| target.path.as_str()).collect();
        assert_eq!(urls, ["/x", "/y"]);
        for scenario in ["echo", "broadcast", "fanout", "rooms", "slow", "emit", "connect", "churn"] {
            let missing = read(scenario).expect_err("no URL");
            assert_eq!(missing.kind(), ErrorKind::MissingRequiredArgument, "{scenario}");
            assert!(missing.to_string().contains("<URL|--url <URL>>"), "{missing}");
            let url = "ws://127.0.0.1:7/";
            let twice = read(&format!("{scenario} {url} --url {url}")).expect_err("two URLs");
            assert_eq!(twice.kind(), ErrorKind::ArgumentConflict, "{scenario}");
            assert!(twice.to_string().contains("'[URL]' cannot be used with '--url <URL>'"), "{twice}");
        }
        let wrong = read("echo 127.0.0.1:7").expect_err("no scheme").to_string();
        assert!(wrong.contains("the URL must begin with ws://"), "{wrong}");
    }

    #[test]
    fn compression_and_tls_are_asked_for_in_words() {
        let to = |line: &str| echo(&format!("echo ws://127.0.0.1:7/ {line}")).load.common.to;
        for (line, expected) in [
            ("", (None, 256)),
            ("--deflate", (Some(Contexts::Context), 256)),
            ("--deflate=context", (Some(Contexts::Context), 256)),
            ("--deflate=no-context --deflate-min 1KiB", (Some(Contexts::NoContext), 1024)),
        ] {
            let line = if line.is_empty() { "--text" } else { line };
            let to = to(line);
            assert_eq!((to.deflate, to.deflate_min), expected, "{line}");
        }
        // Behind it the URL can still stand.
        assert_eq!(echo("echo --deflate ws://127.0.0.1:7/x").load.common.to.urls().count(), 1);
        for (line, kind) in [
            ("--deflate --raw", ErrorKind::ArgumentConflict),
            ("--deflate=much", ErrorKind::InvalidValue),
            ("--deflate-min 1..2 --deflate", ErrorKind::ValueValidation),
            ("--deflate-min 1", ErrorKind::MissingRequiredArgument),
            ("--client-cert a.pem", ErrorKind::MissingRequiredArgument),
            ("--insecure --ca a.pem", ErrorKind::ArgumentConflict),
            ("--key-exchange x448", ErrorKind::ValueValidation),
        ] {
            let wrong = read(&format!("echo ws://127.0.0.1:7/ {line}")).expect_err(line);
            assert_eq!(wrong.kind(), kind, "{line}: {wrong}");
        }
    }

    /// Kills: a secret in the error of a mistake beside it.
    #[test]
    fn what_may_be_secret_is_in_no_error() {
        for (scenario, option, value, why) in [
            ("echo", "--header", "Authorization Bearer s3cret", "--header <NAME: VALUE>: a header is NAME: VALUE"),
            ("echo", "--header", "Authorization Bearer s3cret:x", "what stands before the colon is no name"),
            ("echo", "--header", "Authorization: s3cret\u{1}", "Authorization: its value has characters"),
            ("echo", "--header", "Upgrade: s3cret", "Upgrade cannot be given"),
            ("echo", "--url", "ws:/a/?token=s3cret", "--url <URL>: the URL must begin with ws://"),
            ("echo", "--url", "ws://u:s3cret@a/", "the URL has a user"),
            ("echo", "--url", "ws://u:s3cret@a:1?x", "the URL has a user"),
            ("echo", "--url", "ws://a:s3cret/", "its port is no number"),
            ("echo", "--url", "ws:///?s3cret", "has no host"),
        ] {
            let line = ["x", scenario, option, value];
            let error = Cli::try_parse_from(line).expect_err(value).to_string();
            assert!(error.contains(why) && !error.contains("s3cret"), "{value}: {error}");
            let error =
                Cli::try_parse_from(["x", scenario, &format!("{option}={value}")]).expect_err(value).to_string();
            assert!(error.contains(why) && !error.contains("s3cret"), "{value}: {error}");
        }
        // Where quotes are missing, or it looks like an option.
        for (line, told) in [
            ("echo ws://127.0.0.1:1/ --header Authorization: s3cret", "unexpected argument '…'"),
            ("echo --header Authorization: s3cret", "[URL]: the URL must begin with"),
            ("emit ws://127.0.0.1:1/ --token a s3cret", "unexpected argument '…'"),
            ("emit ws://127.0.0.1:1/ --token --s3cret --connectoins 5", "unexpected argument '--connectoins'"),
            ("agent --token -s3cret --lisent x", "unexpected argument '--lisent'"),
            ("echo ws://127.0.0.1:1/ lost", "unexpected argument 'lost'"),
        ] {
            let line = format!("x {line}").split(' ').map(OsString::from).collect();
            let error = super::read(line).expect_err(told).to_string();
            assert!(error.contains(told) && !error.contains("s3cret"), "{error}");
        }
    }

    #[test]
    fn help_tells_every_option_of_a_scenario() {
        Cli::command().debug_assert();
        const COMMON: &str = "[URL] --url --header --subprotocol --size --content --text --binary --raw --deflate \
                              --deflate-min --ca --insecure --client-cert --client-key --no-resumption --key-exchange --patience \
                              --concurrency --ramp --bind --threads --pin --agents --agent-patience --server-pid --rounds --slo --json --html --hdr-log --junit \
                              --summary --quiet";
        const FLOW: &str = "--rate --duration --count --warmup";
        let scenarios = [
            ("echo", FLOW, "--connections --pipeline --stages"),
            ("broadcast", FLOW, "--subscribers --publishers --burst"),
            ("rooms", FLOW, "--rooms --members --publishers --burst"),
            ("slow", FLOW, "--subscribers --stalled --stall-after --publishers --burst"),
            ("emit", FLOW, "--connections --posters --pipeline --api --token"),
            ("connect", "", "--connections --hold --echo --ping --ping-rate"),
            ("churn", FLOW, "--users --words --stages"),
            ("run", "", "[FILE] --stages"),
            ("replay", "", "[FILE] --connections --repeat --speed --match"),
        ];
        for (scenario, flow, own) in scenarios {
            let mut command = Cli::command();
            let command = command.find_subcommand_mut(scenario).expect("a scenario");
            let told: Vec<String> = command
                .get_arguments()
                .filter(|arg| !arg.is_hide_set() && arg.get_help().is_some())
                .map(|arg| match (arg.get_long(), arg.get_value_names()) {
                    (Some(long), _) => format!("--{long}"),
                    (None, names) => format!("[{}]", names.and_then(<[_]>::first).expect("a name")),
                })
                .collect();
            let mut expected: Vec<&str> = [COMMON, flow, own].into_iter().flat_map(str::split_whitespace).collect();
            expected.sort_unstable();
            let mut listed: Vec<&str> = told.iter().map(String::as_str).filter(|name| *name != "--help").collect();
            listed.sort_unstable();
            assert_eq!(listed, expected, "{scenario}");
            // The groups are told apart, and the scenario's own options come first.
            let help = command.render_help().to_string();
            let places: Vec<usize> = [
                "\nArguments:",
                "\nOptions:",
                "\nServer and messages:",
                "\nTLS:",
                "\nConnections and threads:",
                "\nReport:",
            ]
            .map(|heading| help.find(heading).unwrap_or_else(|| panic!("{scenario}: no {heading} in {help}")))
            .into();
            assert!(places.is_sorted(), "{help}");
        }
    }
}
