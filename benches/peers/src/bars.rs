//! Measures ringwire against the bare programs and prints each row with its bar.
//!
//! The servers of a row take turns, each round a fresh process on one CPU with the load generator on another, so that
//! what else the machine does falls on all of them alike. What is compared is server CPU per message, not messages per
//! second: that holds even where the client sets the pace.

use std::{
    path::PathBuf,
    process::{Command, ExitCode},
};

use clap::Parser;
use peers::runner::{self, Outcome, choose, end, pin, start};

const CONNECTIONS_OPENED: &str = "10000";

#[derive(Parser)]
#[command(about)]
struct Args {
    /// Directory with the built programs; by default the one this program is in.
    #[arg(long)]
    programs: Option<PathBuf>,
    /// The ringwire program, if it is not in that directory.
    #[arg(long)]
    ringwire: Option<PathBuf>,
    /// The load generator, if it is not in that directory.
    #[arg(long)]
    loadtest: Option<PathBuf>,
    /// Measure the bare programs only.
    #[arg(long)]
    bare_only: bool,
    /// Rows to measure, by number or part of the name; all without it.
    #[arg(long, value_delimiter = ',')]
    rows: Vec<String>,
    /// List the rows and stop.
    #[arg(long)]
    list: bool,
    /// Rounds; every program has its turn in each.
    #[arg(long, default_value_t = 9)]
    rounds: usize,
    /// Measured seconds of a round.
    #[arg(long, default_value_t = 1.5)]
    duration: f64,
    /// Seconds before the measured window.
    #[arg(long, default_value_t = 0.3)]
    warmup: f64,
    /// CPU of the servers.
    #[arg(long, default_value_t = 0)]
    server_cpu: usize,
    /// CPU of the load generator.
    #[arg(long, default_value_t = 1)]
    client_cpu: usize,
    /// Print every round.
    #[arg(long)]
    verbose: bool,
}

enum Bar {
    /// Times the better bare program.
    Ratio(f64),
    /// Microseconds.
    Absolute(f64),
}

struct Row {
    name: &'static str,
    scenario: Scenario,
    /// Closed loop with one message in flight settles in one of two rhythms; only the lower third compares like with
    /// like there.
    two_modes: bool,
    bar: Bar,
}

enum Scenario {
    Echo {
        connections: u32,
        size: u32,
        pipeline: u32,
        uring_buffers: (u32, u32),
        epoll_buffer: u32,
    },
    Fanout {
        subscribers: u32,
        size: u32,
        burst: u32,
    },
    Connect,
    /// Users who connect, upgrade, say one thing, and leave with a closing handshake.
    Session,
}

const fn echo(connections: u32, size: u32, pipeline: u32, uring_buffers: (u32, u32), epoll_buffer: u32) -> Scenario {
    Scenario::Echo { connections, size, pipeline, uring_buffers, epoll_buffer }
}

const fn fanout(size: u32, burst: u32) -> Scenario {
    Scenario::Fanout { subscribers: 1000, size, burst }
}

/// Buffer sizes are the best found for the row, so that the bare programs are a limit and not a straw man.
const ROWS: [Row; 9] = [
    Row {
        name: "echo 64 x 64 B",
        scenario: echo(64, 64, 1, (2048, 256), 16 << 10),
        two_modes: true,
        bar: Bar::Ratio(1.10),
    },
    Row {
        name: "echo 64 x 64 B, 16 in flight",
        scenario: echo(64, 64, 16, (16 << 10, 128), 16 << 10),
        two_modes: false,
        bar: Bar::Ratio(1.20),
    },
    Row {
        name: "echo 64 x 16 KiB",
        scenario: echo(64, 16 << 10, 1, (64 << 10, 64), 64 << 10),
        two_modes: true,
        bar: Bar::Ratio(1.12),
    },
    Row {
        name: "echo 8 x 1 MiB",
        scenario: echo(8, 1 << 20, 1, (128 << 10, 16), 256 << 10),
        two_modes: true,
        bar: Bar::Ratio(1.25),
    },
    Row { name: "fan-out 1000 x 64 B", scenario: fanout(64, 1), two_modes: false, bar: Bar::Ratio(1.08) },
    Row { name: "fan-out 1000 x 64 B, burst 8", scenario: fanout(64, 8), two_modes: false, bar: Bar::Ratio(1.15) },
    Row { name: "fan-out 1000 x 4 KiB", scenario: fanout(4 << 10, 1), two_modes: false, bar: Bar::Ratio(1.10) },
    Row {
        name: "connect, 10000 with first echo",
        scenario: Scenario::Connect,
        two_modes: false,
        bar: Bar::Absolute(16.0),
    },
    Row {
        name: "connect, upgrade, echo, close (bare: the same bytes)",
        scenario: Scenario::Session,
        two_modes: false,
        bar: Bar::Ratio(1.6),
    },
];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Server {
    Uring,
    Epoll,
    Ringwire,
}

impl Server {
    fn name(self) -> &'static str {
        match self {
            Self::Uring => "bare io_uring",
            Self::Epoll => "bare epoll",
            Self::Ringwire => "ringwire",
        }
    }
}

struct Programs {
    directory: PathBuf,
    ringwire: PathBuf,
    loadtest: PathBuf,
}

impl Programs {
    fn server(&self, server: Server, scenario: &Scenario) -> Command {
        if server == Server::Ringwire {
            let mut command = Command::new(&self.ringwire);
            command.env("RINGWIRE_ADDR", "127.0.0.1:0").env("RINGWIRE_CORES", "1");
            return command;
        }
        let program = match scenario {
            Scenario::Fanout { .. } => "raw_fanout",
            Scenario::Session => "raw_session",
            Scenario::Echo { .. } | Scenario::Connect => "raw_echo",
        };
        let mut command = Command::new(self.directory.join(program));
        command.args(["--addr", "127.0.0.1:0"]);
        let uring = server == Server::Uring;
        command.args(["--engine", if uring { "uring" } else { "epoll" }]);
        match *scenario {
            Scenario::Echo { uring_buffers: (size, count), epoll_buffer, .. } => {
                let size = if uring { size } else { epoll_buffer };
                command.arg(format!("--buffer-size={size}")).arg(format!("--buffers={count}"));
            }
            Scenario::Fanout { size, .. } => {
                let header = if size < 126 { 2 } else { 4 };
                command.arg(format!("--message-size={}", header + 4 + size));
                command.arg(format!("--delivery-size={}", header + size));
            }
            // Small and many: every connection of a tick brings a few bytes at once.
            Scenario::Connect | Scenario::Session => {
                command.args(["--buffer-size=2048", "--buffers=1024"]);
            }
        }
        command
    }

    fn client(&self, args: &Args, server: Server, pid: u32, addr: &str, scenario: &Scenario) -> Command {
        let mut command = Command::new(&self.loadtest);
        let route = match *scenario {
            Scenario::Echo { connections, size, pipeline, .. } => {
                command.arg("echo").arg(format!("--connections={connections}"));
                command.arg(format!("--size={size}")).arg(format!("--pipeline={pipeline}"));
                "/echo"
            }
            Scenario::Fanout { subscribers, size, burst } => {
                command.arg("fanout").arg(format!("--subscribers={subscribers}"));
                command.arg(format!("--size={size}")).arg(format!("--burst={burst}"));
                "/broadcast"
            }
            Scenario::Connect => {
                command.args(["connect", "--echo", "--connections", CONNECTIONS_OPENED]);
                "/echo"
            }
            Scenario::Session => {
                command.args(["churn", "--users=32", "--words=1", "--size=64"]);
                "/echo"
            }
        };
        if !matches!(scenario, Scenario::Connect) {
            command.arg(format!("--duration={}", args.duration)).arg(format!("--warmup={}", args.warmup));
        }
        command.arg("--url").arg(format!("ws://{addr}{route}"));
        command.arg(format!("--server-pid={pid}")).arg(format!("--pin={}", args.client_cpu));
        if server != Server::Ringwire && !matches!(scenario, Scenario::Session) {
            command.arg("--raw");
        }
        command
    }
}

/// Server CPU per message of one round, in microseconds.
fn round(args: &Args, programs: &Programs, server: Server, scenario: &Scenario) -> Outcome<f64> {
    // Children inherit the CPU this program is on.
    pin(args.server_cpu)?;
    let (running, addr) = start(&mut programs.server(server, scenario))?;
    pin(args.client_cpu)?;
    let figures = runner::measure(&mut programs.client(args, server, running.id(), &addr, scenario))?;
    let per = if matches!(scenario, Scenario::Connect) { "connection" } else { "message" };
    figures["server"][format!("cpu_us_per_{per}")].as_f64().ok_or_else(|| "no server CPU in the report".into())
}

struct Figures {
    median: f64,
    lower_third: f64,
}

impl Figures {
    fn of(mut samples: Vec<f64>) -> Option<Self> {
        if samples.is_empty() {
            return None;
        }
        samples.sort_by(f64::total_cmp);
        let middle = samples.len() / 2;
        let median =
            if samples.len() % 2 == 1 { samples[middle] } else { (samples[middle - 1] + samples[middle]) / 2.0 };
        let low = &samples[..samples.len().div_ceil(3)];
        Some(Self { median, lower_third: low.iter().sum::<f64>() / low.len() as f64 })
    }
}

/// Measures a row and prints it; `false` when it misses its bar or a round failed.
fn measure(args: &Args, programs: &Programs, row: &Row) -> bool {
    let servers: &[Server] = if args.bare_only {
        &[Server::Uring, Server::Epoll]
    } else {
        &[Server::Uring, Server::Epoll, Server::Ringwire]
    };
    let mut samples = vec![Vec::new(); servers.len()];
    let mut failures = 0;
    for _ in 0..args.rounds {
        for (server, samples) in servers.iter().zip(&mut samples) {
            match round(args, programs, *server, &row.scenario) {
                Ok(cpu) => samples.push(cpu),
                Err(error) => {
                    failures += 1;
                    eprintln!("{}, {}: {error}", row.name, server.name());
                }
            }
        }
    }
    println!("{}", row.name);
    let mut bare: Option<Figures> = None;
    let mut met = failures == 0;
    for (server, samples) in servers.iter().zip(samples) {
        if args.verbose {
            let each: Vec<String> = samples.iter().map(|sample| format!("{sample:.3}")).collect();
            println!("    {:14} each round   {}", server.name(), each.join(" "));
        }
        let Some(figures) = Figures::of(samples) else {
            println!("    {:14} no figures", server.name());
            met = false;
            continue;
        };
        print!(
            "    {:14} median {:9.3} us   lower third {:9.3} us",
            server.name(),
            figures.median,
            figures.lower_third
        );
        if *server == Server::Ringwire {
            met &= judge(row, &figures, bare.as_ref());
        } else {
            println!();
            bare = Some(match bare {
                None => figures,
                Some(other) => Figures {
                    median: other.median.min(figures.median),
                    lower_third: other.lower_third.min(figures.lower_third),
                },
            });
        }
    }
    met
}

fn judge(row: &Row, figures: &Figures, bare: Option<&Figures>) -> bool {
    let chosen = |figures: &Figures| {
        if row.two_modes { figures.lower_third } else { figures.median }
    };
    let ratios = bare.map(|bare| (figures.median / bare.median, figures.lower_third / bare.lower_third));
    if let Some((median, lower_third)) = ratios {
        print!("   ratio {median:.3} / {lower_third:.3}");
    }
    let (met, bar) = match (&row.bar, bare) {
        (Bar::Ratio(bar), Some(bare)) => (chosen(figures) / chosen(bare) <= *bar, format!("{bar:.2}")),
        (Bar::Ratio(bar), None) => (false, format!("{bar:.2}")),
        (Bar::Absolute(bar), _) => (chosen(figures) <= *bar, format!("{bar:.1} us")),
    };
    let by = if row.two_modes { "lower third" } else { "median" };
    println!("   bar {bar} by {by}: {}", if met { "met" } else { "MISSED" });
    met
}

fn main() -> ExitCode {
    end(run())
}

fn run() -> Outcome<ExitCode> {
    let args = Args::parse();
    if args.list {
        ROWS.iter().zip(1..).for_each(|(row, number)| println!("{number} {}", row.name));
        return Ok(ExitCode::SUCCESS);
    }
    let directory = match &args.programs {
        Some(directory) => directory.clone(),
        None => std::env::current_exe()?.parent().ok_or("this program has no directory")?.to_owned(),
    };
    let programs = Programs {
        ringwire: args.ringwire.clone().unwrap_or_else(|| directory.join("ringwire")),
        loadtest: args.loadtest.clone().unwrap_or_else(|| directory.join("ringwire-loadtest")),
        directory,
    };
    let names: Vec<&str> = ROWS.iter().map(|row| row.name).collect();
    let mut all_met = true;
    for place in choose(&names, &args.rows)? {
        all_met &= measure(&args, &programs, &ROWS[place]);
    }
    Ok(if all_met { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_the_median_and_the_mean_of_the_lower_third() {
        let figures = Figures::of(vec![9.0, 1.0, 5.0, 3.0, 7.0, 2.0]).expect("samples");
        assert_eq!((figures.median, figures.lower_third), (4.0, 1.5));
        assert!(Figures::of(Vec::new()).is_none());
    }

    #[test]
    fn a_bar_is_met_up_to_its_ratio() {
        let row = |two_modes| Row { name: "", scenario: Scenario::Connect, two_modes, bar: Bar::Ratio(1.10) };
        let bare = Figures { median: 10.0, lower_third: 5.0 };
        let slow_median = Figures { median: 12.0, lower_third: 5.5 };
        assert!(judge(&row(true), &slow_median, Some(&bare)));
        assert!(!judge(&row(false), &slow_median, Some(&bare)));
        assert!(!judge(&row(true), &slow_median, None));
    }
}
