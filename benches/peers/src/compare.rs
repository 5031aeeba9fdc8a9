//! The comparison: the bare limit, ringwire and every other server, in turn, round after round, each a fresh process on
//! one CPU with the load generator on another. What else the machine does falls on all of them alike. What counts is
//! server CPU per message: it holds even where the client sets the pace.

use std::{
    io::{self, IsTerminal},
    path::PathBuf,
    process::{Command, ExitCode},
    thread,
    time::Duration,
};

use nix::{
    sched::{CpuSet, sched_getaffinity},
    unistd::Pid,
};
use peers::runner::{Outcome, choose, measure, pin, start};
use serde_json::Value;

use crate::servers;

/// The first two: what all others are held against, and what this is about.
const LIMIT: &str = "bare io_uring";
const OURS: &str = "ringwire";

/// What to compare.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Rounds; every server has its turn in each.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Measured seconds of a turn.
    #[arg(long, default_value_t = 1.5)]
    duration: f64,
    /// Seconds before the measured window.
    #[arg(long, default_value_t = 0.3)]
    warmup: f64,
    /// Rows to measure, by number or part of the name; all without it.
    #[arg(long, value_delimiter = ',')]
    rows: Vec<String>,
    /// Servers to measure, by name; all without it. Those of --peer are always measured.
    #[arg(long, value_delimiter = ',')]
    servers: Vec<String>,
    /// A server started by hand, such as mine=ws://127.0.0.1:9000,4242; its routes are URL/echo and URL/broadcast, so
    /// measure only the --rows that it has the route for. May be repeated.
    #[arg(long = "peer", value_name = "NAME=URL,PID", value_parser = parse_peer)]
    peers: Vec<Peer>,
    /// The ringwire program; by default the one beside this program.
    #[arg(long)]
    ringwire: Option<PathBuf>,
    /// The load generator; by default the one beside this program.
    #[arg(long)]
    loadtest: Option<PathBuf>,
    /// CPU of the servers.
    #[arg(long, default_value_t = 0)]
    server_cpu: usize,
    /// CPU of the load generator.
    #[arg(long, default_value_t = 1)]
    client_cpu: usize,
    /// List rows and servers, and stop.
    #[arg(long)]
    list: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Peer {
    name: String,
    url: String,
    pid: u32,
}

fn parse_peer(text: &str) -> Result<Peer, String> {
    let wrong = || format!("{text:?} is not NAME=URL,PID");
    let (name, rest) = text.split_once('=').ok_or_else(wrong)?;
    let (url, pid) = rest.rsplit_once(',').ok_or_else(wrong)?;
    let pid = pid.trim().parse().map_err(|_| wrong())?;
    if name.is_empty() || own_names().any(|own| own == name) {
        return Err(format!("{name:?} cannot be the name of a peer: it needs one of its own"));
    }
    if !url.starts_with("ws://") {
        return Err(format!("{url:?} does not begin with ws://"));
    }
    Ok(Peer { name: name.to_owned(), url: url.trim_end_matches('/').to_owned(), pid })
}

/// The servers that are started here.
fn own_names<'a>() -> impl Iterator<Item = &'a str> {
    [LIMIT, OURS].into_iter().chain(servers::ALL.map(|server| server.0))
}

enum Load {
    Echo { connections: u32, size: u32, pipeline: u32 },
    Broadcast { size: u32, burst: u32 },
    Idle,
}

const ROWS: [(&str, Load); 9] = [
    ("echo 64 x 64 B", Load::Echo { connections: 64, size: 64, pipeline: 1 }),
    ("echo 64 x 64 B, 16 in flight", Load::Echo { connections: 64, size: 64, pipeline: 16 }),
    ("echo 512 x 64 B", Load::Echo { connections: 512, size: 64, pipeline: 1 }),
    ("echo 64 x 16 KiB", Load::Echo { connections: 64, size: 16 << 10, pipeline: 1 }),
    ("echo 8 x 1 MiB", Load::Echo { connections: 8, size: 1 << 20, pipeline: 1 }),
    ("fan-out 1,000 x 64 B", Load::Broadcast { size: 64, burst: 1 }),
    ("fan-out 1,000 x 4 KiB", Load::Broadcast { size: 4 << 10, burst: 1 }),
    ("fan-out 1,000 x 64 B, 8 at once", Load::Broadcast { size: 64, burst: 8 }),
    ("10,000 idle", Load::Idle),
];

impl Load {
    fn route(&self) -> &'static str {
        if matches!(self, Load::Broadcast { .. }) { "broadcast" } else { "echo" }
    }
}

/// Where the programs are.
struct Programs {
    own: PathBuf,
    ringwire: PathBuf,
    loadtest: PathBuf,
}

impl Programs {
    fn find(args: &Args) -> Outcome<Programs> {
        let own = std::env::current_exe()?;
        let beside = |name: &str| own.with_file_name(name);
        let programs = Programs {
            ringwire: args.ringwire.clone().unwrap_or_else(|| beside("ringwire")),
            loadtest: args.loadtest.clone().unwrap_or_else(|| beside("ringwire-loadtest")),
            own,
        };
        for program in [&programs.ringwire, &programs.loadtest] {
            if !program.exists() {
                return Err(format!("{} is not there: `cargo build --release` makes it", program.display()).into());
            }
        }
        Ok(programs)
    }

    fn server(&self, name: &str, load: &Load) -> Command {
        let mut command = Command::new(if name == OURS { &self.ringwire } else { &self.own });
        if name == OURS {
            command.env("RINGWIRE_ADDR", "127.0.0.1:0").env("RINGWIRE_CORES", "1").env("RINGWIRE_LOG", "error");
            return command;
        }
        if name != LIMIT {
            command.args(["serve", name, "--addr", "127.0.0.1:0", "--mode", load.route()]);
            return command;
        }
        // Buffers as they suit the row best, so that the limit is one.
        match *load {
            Load::Echo { size, pipeline, .. } => {
                let (bytes, count) = match (size, pipeline) {
                    (..=64, 1) => (2048, 256),
                    (..=64, _) => (16 << 10, 128),
                    (..=65_536, _) => (64 << 10, 64),
                    _ => (128 << 10, 16),
                };
                command.args(["raw-echo", "--addr", "127.0.0.1:0"]);
                command.arg(format!("--buffer-size={bytes}")).arg(format!("--buffers={count}"));
            }
            Load::Broadcast { size, .. } => {
                let header = if size < 126 { 2 } else { 4 };
                command.args(["raw-fanout", "--addr", "127.0.0.1:0"]);
                command.arg(format!("--message-size={}", header + 4 + size));
                command.arg(format!("--delivery-size={}", header + size));
            }
            Load::Idle => {
                command.args(["raw-echo", "--addr", "127.0.0.1:0", "--buffer-size=2048", "--buffers=256"]);
            }
        }
        command
    }

    fn client(&self, args: &Args, load: &Load, url: &str, pid: u32, raw: bool) -> Command {
        let mut command = Command::new(&self.loadtest);
        match *load {
            Load::Echo { connections, size, pipeline } => {
                command.arg("echo").arg(format!("--connections={connections}"));
                command.arg(format!("--size={size}")).arg(format!("--pipeline={pipeline}"));
            }
            Load::Broadcast { size, burst } => {
                command.args(["broadcast", "--subscribers=1000"]);
                command.arg(format!("--size={size}")).arg(format!("--burst={burst}"));
            }
            Load::Idle => {
                command.args(["connect", "--connections=10000", "--hold=0.5"]);
            }
        }
        if !matches!(load, Load::Idle) {
            command.arg(format!("--duration={}", args.duration)).arg(format!("--warmup={}", args.warmup));
        }
        command.arg("--quiet").arg("--url").arg(url);
        command.arg(format!("--server-pid={pid}")).arg(format!("--pin={}", args.client_cpu));
        if raw {
            command.arg("--raw");
        }
        command
    }

    /// One turn of one server.
    fn turn(&self, args: &Args, name: &str, load: &Load) -> Outcome<Value> {
        if let Some(peer) = args.peers.iter().find(|peer| peer.name == name) {
            pin(args.client_cpu)?;
            return measure(&mut self.client(args, load, &format!("{}/{}", peer.url, load.route()), peer.pid, false));
        }
        // Children inherit the CPU this program is on.
        pin(args.server_cpu)?;
        let (running, addr) = start(&mut self.server(name, load))?;
        pin(args.client_cpu)?;
        let url = format!("ws://{addr}/{}", load.route());
        measure(&mut self.client(args, load, &url, running.id(), name == LIMIT))
    }
}

/// The middle value of those that are there.
fn median(figures: &[Value], pointer: &str) -> Option<f64> {
    let mut values: Vec<f64> = figures.iter().filter_map(|figures| figures.pointer(pointer)?.as_f64()).collect();
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => None,
        len if len % 2 == 1 => Some(values[middle]),
        _ => Some((values[middle - 1] + values[middle]) / 2.0),
    }
}

fn cell(value: Option<f64>, text: impl Fn(f64) -> String) -> String {
    value.map_or_else(|| "-".to_owned(), text)
}

fn time(us: f64) -> String {
    if us < 1000.0 { format!("{us:.0} us") } else { format!("{:.1} ms", us / 1000.0) }
}

fn rate(each_second: f64) -> String {
    match each_second {
        rate if rate >= 1e6 => format!("{:.2} M", rate / 1e6),
        rate if rate >= 1e4 => format!("{:.0} k", rate / 1e3),
        rate => format!("{rate:.0}"),
    }
}

/// Whether what the command line names is there: servers, and the processes of peers.
fn check(args: &Args) -> Outcome<()> {
    let is_known =
        |name: &String| own_names().chain(args.peers.iter().map(|peer| peer.name.as_str())).any(|own| own == name);
    if let Some(unknown) = args.servers.iter().find(|name| !is_known(name)) {
        return Err(format!("no server is called {unknown:?}; --list shows them").into());
    }
    for (place, Peer { name, pid, .. }) in args.peers.iter().enumerate() {
        if args.peers[..place].iter().any(|peer| peer.name == *name) {
            return Err(format!("two peers are called {name:?}").into());
        }
        let processors = i32::try_from(*pid).ok().and_then(|pid| sched_getaffinity(Pid::from_raw(pid)).ok());
        let Some(processors) = processors.filter(|_| *pid > 0) else {
            return Err(format!("peer {name}: there is no process {pid} on this machine").into());
        };
        let others = (0..CpuSet::count()).filter(|cpu| *cpu != args.server_cpu);
        if others.into_iter().any(|cpu| processors.is_set(cpu) == Ok(true)) {
            eprintln!(
                "{name} may run on other processors than {}, where the others run: start it with `taskset -c {}`",
                args.server_cpu, args.server_cpu
            );
        }
    }
    Ok(())
}

/// One line on a terminal that says what is going on; nothing elsewhere.
fn show(what: &str) {
    if io::stderr().is_terminal() {
        eprint!("\r\x1b[K{what}");
    }
}

/// Runs the comparison and prints its table, in Markdown.
pub(crate) fn run(args: &Args) -> Outcome<ExitCode> {
    check(args)?;
    let rows = choose(&ROWS.map(|row| row.0), &args.rows)?;
    let names: Vec<&str> = own_names()
        .filter(|name| args.servers.is_empty() || args.servers.iter().any(|wanted| wanted == name))
        .chain(args.peers.iter().map(|peer| peer.name.as_str()))
        .collect();
    if args.list {
        ROWS.iter().zip(1..).for_each(|(row, number)| println!("{number} {}", row.0));
        names.iter().for_each(|name| println!("{name}"));
        return Ok(ExitCode::SUCCESS);
    }
    let programs = Programs::find(args)?;
    let mut failures = 0;
    println!("| load | server | messages/s | server CPU/message | x limit | p50 | p99 | RSS/connection |");
    println!("| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |");
    for (row, load) in rows.into_iter().map(|place| &ROWS[place]) {
        let mut turns: Vec<Vec<Value>> = names.iter().map(|_| Vec::new()).collect();
        for round in 1..=args.rounds {
            for (name, turns) in names.iter().zip(&mut turns) {
                show(&format!("{row}: round {round} of {}, {name}", args.rounds));
                match programs.turn(args, name, load) {
                    Ok(figures) => turns.push(figures),
                    Err(error) => {
                        failures += 1;
                        show("");
                        eprintln!("{row}, {name}: {error}");
                    }
                }
                // Lets the kernel finish with the connections of this turn.
                thread::sleep(Duration::from_millis(100));
            }
        }
        show("");
        let is_idle = matches!(load, Load::Idle);
        let cpu_of = if is_idle { "/server/cpu_us_per_connection" } else { "/server/cpu_us_per_message" };
        let limit = names.iter().position(|name| *name == LIMIT).and_then(|place| median(&turns[place], cpu_of));
        for (name, turns) in names.iter().zip(&turns) {
            let cpu = median(turns, cpu_of);
            let latency = if is_idle { "handshake_us" } else { "latency_us" };
            let shown = if *name == OURS { format!("**{name}**") } else { (*name).to_owned() };
            println!(
                "| {row} | {shown} | {} | {} | {} | {} | {} | {} |",
                cell(median(turns, "/messages_per_s"), rate),
                cell(cpu, |us| format!("{us:.2} us")),
                cell(cpu.zip(limit).map(|(cpu, limit)| cpu / limit), |ratio| format!("{ratio:.2}")),
                cell(median(turns, &format!("/{latency}/p50")), time),
                cell(median(turns, &format!("/{latency}/p99")), time),
                cell(median(turns, "/server/rss_bytes_per_connection"), |bytes| format!("{bytes:.0} B")),
            );
        }
    }
    println!(
        "\nMedians of {} rounds. The idle row counts connections instead of messages, and its times are handshakes.",
        args.rounds
    );
    Ok(if failures == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn peers_started_by_hand_are_read() {
        let peer = parse_peer("uws=ws://127.0.0.1:9,123").expect("a peer");
        assert_eq!((peer.name.as_str(), peer.url.as_str(), peer.pid), ("uws", "ws://127.0.0.1:9", 123));
        let wrong =
            ["uws=ws://127.0.0.1:9", "uws=http://127.0.0.1:9,1", "=ws://127.0.0.1:9,1", "uws=ws://127.0.0.1:9,x"];
        wrong.iter().for_each(|text| assert!(parse_peer(text).is_err(), "{text}"));
        // It would be taken for the server of that name that is started here.
        own_names().for_each(|own| assert!(parse_peer(&format!("{own}=ws://127.0.0.1:9,1")).is_err(), "{own}"));
    }

    #[test]
    fn the_middle_of_what_is_there() {
        let figures = [json!({"a": 3.0}), json!({"a": 1.0}), json!({}), json!({"a": 2.0})];
        assert_eq!((median(&figures, "/a"), median(&figures, "/b")), (Some(2.0), None));
    }
}
