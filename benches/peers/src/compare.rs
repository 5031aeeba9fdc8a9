//! The comparison: the bare limit, ringwire and every other server, in turn, round after round, each a fresh process on
//! one CPU with the load generator on another. What else the machine does falls on all of them alike. What counts is
//! server CPU per message: it holds even where the client sets the pace.
//!
//! Servers in scripts take part where their packages are installed (`foreign`); those that are not are named and left out. A
//! server has its turn in the rows that it speaks: the bare limit and the Rust servers here know neither TLS nor compression.

use std::{
    fs,
    io::{self, IsTerminal},
    path::PathBuf,
    process::{Command, ExitCode, Stdio},
    thread,
    time::Duration,
};

use nix::{
    sched::{CpuSet, sched_getaffinity},
    unistd::Pid,
};
use peers::runner::{Outcome, choose, measure, pin, start};
use serde_json::Value;

use crate::{
    foreign::{self, Installed, Wire},
    servers,
    table::{cell, cpu, line, median, ranged, rate, time},
};

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
    /// Folder in which `npm install ws @oven/bun-linux-x64` and the like were done: those servers are measured too.
    #[arg(long, value_name = "DIR", default_value = ".")]
    modules: PathBuf,
    /// Print a table with a column for each server, as README.md has it, when all is measured.
    #[arg(long)]
    readme: bool,
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
    let rust = [LIMIT, OURS].into_iter().chain(servers::ALL.map(|server| server.0));
    rust.chain(foreign::ALL.map(|foreign| foreign.name))
}

enum Load {
    Echo { connections: u32, size: u32, pipeline: u32 },
    Broadcast { size: u32, burst: u32 },
    Idle,
}

/// A row: its name, what is done, and over what.
struct Row(&'static str, Load, Wire);

/// Bytes of a short text.
const SHORT: u32 = 5;

const fn echo(connections: u32, size: u32, pipeline: u32) -> Load {
    Load::Echo { connections, size, pipeline }
}

const ROWS: [Row; 18] = [
    Row("echo 64 x 64 B", echo(64, 64, 1), Wire::Plain),
    Row("echo 64 x 64 B, 16 in flight", echo(64, 64, 16), Wire::Plain),
    Row("echo 512 x 64 B", echo(512, 64, 1), Wire::Plain),
    Row("echo 64 x 16 KiB", echo(64, 16 << 10, 1), Wire::Plain),
    Row("echo 8 x 1 MiB", echo(8, 1 << 20, 1), Wire::Plain),
    Row("fan-out 1,000 x 64 B", Load::Broadcast { size: 64, burst: 1 }, Wire::Plain),
    Row("fan-out 1,000 x 4 KiB", Load::Broadcast { size: 4 << 10, burst: 1 }, Wire::Plain),
    Row("fan-out 1,000 x 64 B, 8 at once", Load::Broadcast { size: 64, burst: 8 }, Wire::Plain),
    Row("10,000 idle", Load::Idle, Wire::Plain),
    Row("TLS: echo 64 x 64 B", echo(64, 64, 1), Wire::Tls),
    Row("TLS: echo 64 x 16 KiB", echo(64, 16 << 10, 1), Wire::Tls),
    Row("deflate: echo 64 x 1 KiB of JSON", echo(64, 1 << 10, 1), Wire::Deflate),
    // HttpArena's echo-ws and echo-ws-pipeline.
    Row("arena: echo-ws, 512", echo(512, SHORT, 1), Wire::Plain),
    Row("arena: echo-ws, 4,096", echo(4096, SHORT, 1), Wire::Plain),
    Row("arena: echo-ws, 16,384", echo(16_384, SHORT, 1), Wire::Plain),
    Row("arena: echo-ws-pipeline, 512", echo(512, SHORT, 16), Wire::Plain),
    Row("arena: echo-ws-pipeline, 4,096", echo(4096, SHORT, 16), Wire::Plain),
    Row("arena: echo-ws-pipeline, 16,384", echo(16_384, SHORT, 16), Wire::Plain),
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
    foreign: Vec<Installed>,
    /// The files of a certificate for 127.0.0.1, and of its key.
    certificate: (PathBuf, PathBuf),
}

impl Drop for Programs {
    fn drop(&mut self) {
        for file in [&self.certificate.0, &self.certificate.1] {
            let _ = fs::remove_file(file);
        }
    }
}

impl Programs {
    fn find(args: &Args, foreign: Vec<Installed>) -> Outcome<Programs> {
        let own = std::env::current_exe()?;
        let beside = |name: &str| own.with_file_name(name);
        let programs = Programs {
            ringwire: args.ringwire.clone().unwrap_or_else(|| beside("ringwire")),
            loadtest: args.loadtest.clone().unwrap_or_else(|| beside("ringwire-loadtest")),
            own,
            foreign,
            certificate: ["cert", "key"]
                .map(|part| std::env::temp_dir().join(format!("ringwire-peers-{}-{part}.pem", std::process::id())))
                .into(),
        };
        for program in [&programs.ringwire, &programs.loadtest] {
            if !program.exists() {
                return Err(format!("{} is not there: `cargo build --release` makes it", program.display()).into());
            }
        }
        Ok(programs)
    }

    /// Makes the certificate, once.
    fn certify(&self) -> Outcome<()> {
        let (certificate, key) = &self.certificate;
        if certificate.exists() && key.exists() {
            return Ok(());
        }
        let mut command = Command::new("openssl");
        command.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "30"]);
        command.args(["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]);
        let made = command.arg("-keyout").arg(key).arg("-out").arg(certificate).stderr(Stdio::null()).status()?;
        if made.success() { Ok(()) } else { Err("openssl has made no certificate".into()) }
    }

    fn server(&self, name: &str, load: &Load, wire: Wire) -> Command {
        if let Some(foreign) = self.foreign.iter().find(|foreign| foreign.name == name) {
            return foreign.command(load.route(), wire, &self.certificate);
        }
        let mut command = Command::new(if name == OURS { &self.ringwire } else { &self.own });
        if name == OURS {
            let scheme = if wire == Wire::Tls { "wss" } else { "ws" };
            command.env("RINGWIRE_ADDR", format!("{scheme}://127.0.0.1:0")).env("RINGWIRE_CORES", "1");
            match wire {
                Wire::Plain => {}
                Wire::Tls => {
                    let (certificate, key) = &self.certificate;
                    command.env("RINGWIRE_TLS_CERT", certificate).env("RINGWIRE_TLS_KEY", key);
                }
                Wire::Deflate => drop(command.env("RINGWIRE_DEFLATE", "dedicated")),
            }
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

    fn client(&self, args: &Args, row: &Row, url: &str, pid: u32, raw: bool) -> Command {
        let Row(_, load, wire) = row;
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
        match wire {
            Wire::Plain => {}
            Wire::Tls => drop(command.arg("--insecure")),
            Wire::Deflate => drop(command.args(["--deflate", "--content=json"])),
        }
        if raw {
            command.arg("--raw");
        }
        command
    }

    /// One turn of one server.
    fn turn(&self, args: &Args, name: &str, row: &Row) -> Outcome<Value> {
        let Row(_, load, wire) = row;
        if let Some(peer) = args.peers.iter().find(|peer| peer.name == name) {
            pin(args.client_cpu)?;
            return measure(&mut self.client(args, row, &format!("{}/{}", peer.url, load.route()), peer.pid, false));
        }
        if *wire == Wire::Tls {
            self.certify()?;
        }
        // Children inherit the CPU this program is on.
        pin(args.server_cpu)?;
        let (running, addr) = start(&mut self.server(name, load, *wire))?;
        pin(args.client_cpu)?;
        let scheme = if *wire == Wire::Tls { "wss" } else { "ws" };
        let url = format!("{scheme}://{addr}/{}", load.route());
        measure(&mut self.client(args, row, &url, running.id(), name == LIMIT))
    }

    /// Whether a server speaks what a row is measured over.
    fn speaks(&self, name: &str, wire: Wire) -> bool {
        wire == Wire::Plain || name == OURS || self.foreign.iter().any(|foreign| foreign.name == name)
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

/// The servers in scripts that take part; those that are not installed are named.
fn installed(args: &Args) -> Vec<Installed> {
    let is_wanted = |name: &str| args.servers.is_empty() || args.servers.iter().any(|wanted| wanted == name);
    let found = foreign::ALL.iter().filter(|foreign| is_wanted(foreign.name)).filter_map(|foreign| {
        let found = foreign.find(&args.modules);
        if let Err(why) = &found {
            eprintln!("{} is left out: {why}", foreign.name);
        }
        found.ok()
    });
    found.collect()
}

/// Where a row's figures are: CPU time and times.
fn pointers(load: &Load) -> (&'static str, &'static str) {
    match load {
        Load::Idle => ("/server/cpu_us_per_connection", "/handshake_us"),
        _ => ("/server/cpu_us_per_message", "/latency_us"),
    }
}

/// All turns of a row, by server; none where it does not speak what the row is measured over.
type Turns = Vec<Vec<Value>>;

/// Runs the comparison and prints its table, in Markdown.
pub(crate) fn run(args: &Args) -> Outcome<ExitCode> {
    check(args)?;
    let rows = choose(&ROWS.map(|row| row.0), &args.rows)?;
    let foreign = installed(args);
    let is_here = |name: &&str| {
        let is_foreign = foreign::ALL.iter().any(|foreign| foreign.name == *name);
        !is_foreign || args.list || foreign.iter().any(|foreign| foreign.name == *name)
    };
    let names: Vec<&str> = own_names()
        .filter(|name| args.servers.is_empty() || args.servers.iter().any(|wanted| wanted == name))
        .filter(is_here)
        .chain(args.peers.iter().map(|peer| peer.name.as_str()))
        .collect();
    if args.list {
        ROWS.iter().zip(1..).for_each(|(row, number)| println!("{number} {}", row.0));
        names.iter().for_each(|name| println!("{name}"));
        return Ok(ExitCode::SUCCESS);
    }
    let programs = Programs::find(args, foreign)?;
    let mut failures = 0;
    println!("| load | server | messages/s | server CPU/message | x limit | p50 | p99 | RSS/connection |");
    println!("| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |");
    let mut all: Vec<(&Row, Turns)> = Vec::new();
    for row in rows.into_iter().map(|place| &ROWS[place]) {
        let mut turns: Turns = names.iter().map(|_| Vec::new()).collect();
        let Row(title, load, wire) = row;
        let speaks = |name: &str| programs.speaks(name, *wire);
        for round in 1..=args.rounds {
            for (name, turns) in names.iter().zip(&mut turns).filter(|(name, _)| speaks(name)) {
                show(&format!("{title}: round {round} of {}, {name}", args.rounds));
                match programs.turn(args, name, row) {
                    Ok(figures) => turns.push(figures),
                    Err(error) => {
                        failures += 1;
                        show("");
                        eprintln!("{title}, {name}: {error}");
                    }
                }
                // Lets the kernel finish with the connections of this turn.
                thread::sleep(Duration::from_millis(100));
            }
        }
        show("");
        let (cpu_of, latency) = pointers(load);
        let limit = names.iter().position(|name| *name == LIMIT).and_then(|place| median(&turns[place], cpu_of));
        for (name, turns) in names.iter().zip(&turns).filter(|(name, _)| speaks(name)) {
            let shown = if *name == OURS { format!("**{name}**") } else { (*name).to_owned() };
            let cells = [
                (*title).to_owned(),
                shown,
                ranged(turns, "/messages_per_s", rate),
                ranged(turns, cpu_of, |us| format!("{us:.2} us")),
                cell(median(turns, cpu_of).zip(limit).map(|(cpu, limit)| cpu / limit), |ratio| format!("{ratio:.2}")),
                cell(median(turns, &format!("{latency}/p50")), time),
                cell(median(turns, &format!("{latency}/p99")), time),
                cell(median(turns, "/server/rss_bytes_per_connection"), |bytes| format!("{bytes:.0} B")),
            ];
            println!("{}", line(cells));
        }
        all.push((row, turns));
    }
    println!(
        "\nMedians of {} rounds, with the lowest and the highest. The idle row counts connections instead of messages, and its \
         times are handshakes.",
        args.rounds
    );
    if args.readme {
        println!(
            "\nServer CPU a message in microseconds, from the lowest to the highest round, and messages a second:\n"
        );
        println!("{}", line(["load".to_owned()].into_iter().chain(names.iter().map(|name| (*name).to_owned()))));
        println!("{}", line(std::iter::repeat_n("---".to_owned(), names.len() + 1)));
        all.iter().for_each(|(row, turns)| println!("{}", readme_line(row, turns)));
    }
    Ok(if failures == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn readme_line(Row(title, load, _): &Row, turns: &Turns) -> String {
    let (cpu_of, _) = pointers(load);
    let of_server = |turns: &Vec<Value>| match turns.is_empty() {
        true => "-".to_owned(),
        false => format!("{}; {}/s", ranged(turns, cpu_of, cpu), cell(median(turns, "/messages_per_s"), rate)),
    };
    line([(*title).to_owned()].into_iter().chain(turns.iter().map(of_server)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_row_of_the_readme_has_a_cell_for_each_server() {
        let turn = |cpu: f64| json!({"messages_per_s": 20_000, "server": {"cpu_us_per_message": cpu}});
        let turns = vec![vec![turn(4.5), turn(4.25), turn(5.0)], vec![], vec![turn(12.0)]];
        let expected = "| echo 64 x 64 B | 4.50 (4.25 .. 5.00); 20 k/s | - | 12.0; 20 k/s |";
        assert_eq!(readme_line(&ROWS[0], &turns), expected);
    }

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
}
