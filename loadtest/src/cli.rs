//! The command line.

use std::{net::Ipv4Addr, path::PathBuf, time::Duration};

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
    /// Compares two reports written with --json.
    Diff {
        /// The report to compare with.
        a: PathBuf,
        /// The report to judge.
        b: PathBuf,
    },
}

#[derive(Args, Debug)]
pub(crate) struct Echo {
    /// Connections.
    #[arg(long, default_value_t = 64)]
    pub(crate) connections: usize,
    /// Messages in flight per connection.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=65_536))]
    pub(crate) pipeline: u32,
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
    /// Path to post to, with {id} where the id goes.
    #[arg(long, value_name = "PATH", default_value = "/api/message/{id}")]
    pub(crate) api: String,
    /// Bearer token of the API.
    #[arg(long)]
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
    #[command(flatten)]
    pub(crate) load: Load,
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
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = time)]
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
    /// Header of the handshake; may be repeated.
    #[arg(long = "header", value_name = "NAME: VALUE", value_parser = parse_header)]
    pub(crate) headers: Vec<(String, String)>,
    /// Subprotocol to offer; may be repeated.
    #[arg(long = "subprotocol", value_name = "NAME")]
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

/// The URL, which may stand by itself or behind its name.
#[derive(Args, Debug)]
#[group(required = true, multiple = false)]
struct Url {
    /// Server and route, as ws://HOST:PORT/PATH.
    #[arg(value_name = "URL", help_heading = None::<&'static str>, value_parser = Target::parse)]
    positional: Option<Target>,
    /// The same as the argument; of several, which differ in HOST:PORT alone, connections take each in turn.
    #[arg(long = "url", value_name = "URL", value_parser = Target::parse)]
    named: Vec<Target>,
}

impl To {
    /// Where to.
    pub(crate) fn url(&self) -> &Target {
        let Url { positional, named } = &self.url;
        positional.as_ref().or(named.first()).expect("the group is required")
    }

    /// Where to, with all servers that there are.
    pub(crate) fn target(&self) -> Result<Target, String> {
        let mut target = self.url().clone();
        for other in self.url.named.iter().skip(1) {
            if other.path != target.path {
                return Err(format!("all URLs must have the same path, and {} has another", other.url));
            }
            target.more.push(other.addr);
        }
        Ok(target)
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
}

type Sources = Vec<Ipv4Addr>;

/// What comes of it.
#[derive(Args, Debug)]
#[command(next_help_heading = "Report")]
pub(crate) struct Output {
    /// Process on this machine whose CPU time and memory are reported.
    #[arg(long, value_name = "PID")]
    pub(crate) server_pid: Option<u32>,
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
    /// No progress.
    #[arg(long, short)]
    pub(crate) quiet: bool,
}

type Rules = Vec<slo::Rule>;

/// No run takes so long.
const TIME_MAX: Duration = Duration::from_secs(1_000_000);

/// Reads a time: a number of seconds, or with a unit.
fn time(text: &str) -> Result<Duration, String> {
    let time = match text.parse::<f64>() {
        Ok(seconds) => Duration::try_from_secs_f64(seconds).ok(),
        Err(_) => humantime::parse_duration(text).ok(),
    };
    time.filter(|time| *time < TIME_MAX)
        .ok_or_else(|| "a time is a number of seconds, or has a unit: 5, 5s, 500ms, 2m".to_owned())
}

fn positive(text: &str) -> Result<f64, String> {
    let number = text.parse::<f64>().map_err(|error| error.to_string())?;
    if number > 0.0 && number.is_finite() { Ok(number) } else { Err("must be more than 0".to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::{CommandFactory, error::ErrorKind};

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
    }

    #[test]
    fn the_url_is_given_once_in_either_of_two_ways() {
        for line in ["echo ws://127.0.0.1:7/x", "echo --url ws://127.0.0.1:7/x", "echo --raw ws://127.0.0.1:7/x --text"]
        {
            assert_eq!(echo(line).load.common.to.url().path, "/x", "{line}");
        }
        let several = echo("echo --url ws://127.0.0.1:7/x --url ws://127.0.0.1:8/x").load.common.to.target();
        let several = several.expect("one path");
        assert_eq!((several.addr.port(), several.more[0].port(), several.more.len()), (7, 8, 1));
        let other = echo("echo --url ws://127.0.0.1:7/x --url ws://127.0.0.1:8/y").load.common.to.target();
        assert!(other.is_err_and(|error| error.contains("the same path")));
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
    fn help_tells_every_option_of_a_scenario() {
        Cli::command().debug_assert();
        const COMMON: &str = "[URL] --url --header --subprotocol --size --text --binary --raw --patience --concurrency \
                              --ramp --bind --threads --pin --server-pid --slo --json --html --hdr-log --quiet";
        const FLOW: &str = "--rate --duration --count --warmup";
        let scenarios = [
            ("echo", FLOW, "--connections --pipeline"),
            ("broadcast", FLOW, "--subscribers --publishers --burst"),
            ("rooms", FLOW, "--rooms --members --publishers --burst"),
            ("slow", FLOW, "--subscribers --stalled --publishers --burst"),
            ("emit", FLOW, "--connections --posters --api --token"),
            ("connect", "", "--connections --hold --echo --ping --ping-rate"),
            ("churn", FLOW, "--users --words"),
        ];
        for (scenario, flow, own) in scenarios {
            let mut command = Cli::command();
            let command = command.find_subcommand_mut(scenario).expect("a scenario");
            let told: Vec<String> = command
                .get_arguments()
                .filter(|arg| !arg.is_hide_set() && arg.get_help().is_some())
                .map(|arg| arg.get_long().map_or_else(|| "[URL]".to_owned(), |long| format!("--{long}")))
                .collect();
            let mut expected: Vec<&str> = [COMMON, flow, own].into_iter().flat_map(str::split_whitespace).collect();
            expected.sort_unstable();
            let mut listed: Vec<&str> = told.iter().map(String::as_str).filter(|name| *name != "--help").collect();
            listed.sort_unstable();
            assert_eq!(listed, expected, "{scenario}");
            // The groups are told apart, and the scenario's own options come first.
            let help = command.render_help().to_string();
            let places: Vec<usize> =
                ["\nArguments:", "\nOptions:", "\nServer and messages:", "\nConnections and threads:", "\nReport:"]
                    .map(|heading| help.find(heading).unwrap_or_else(|| panic!("{scenario}: no {heading} in {help}")))
                    .into();
            assert!(places.is_sorted(), "{help}");
        }
    }
}
