//! A WebSocket load generator that checks every message.
//!
//! Connections live on io_uring rings, one per thread, in direct descriptors. What is due on each is known, so that a
//! reply is checked in every byte as it comes: lost, repeated, reordered and corrupted messages are counted, and make the
//! exit code 1. `README.md` shows each scenario.

#![forbid(unsafe_code)]

mod cli;
mod diff;
mod html;
mod net;
mod progress;
mod report;
mod run;
mod scenario;
mod slo;
mod tally;
mod target;
mod track;
mod usage;
mod wire;

use std::{
    fs,
    io::{self, BufWriter, Write},
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use clap::Parser;
use nix::sys::signal::{SigSet, Signal};
use ringwire::proto::event::Kind;
use serde_json::Value;

use crate::{
    cli::{Cli, Command, Flow, Opening, Output, Publishing, To},
    net::Nanos,
    progress::Progress,
    report::About,
    run::Outcome,
    scenario::{
        churn::{self, Churn},
        connect::{self, Connect},
        echo::{self, Echo},
        emit::{self, Emit},
        fanout::{self, Board, Fanout},
    },
    wire::{Layout, Messages, STAMP_BYTES, STREAMS_MAX},
};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const OK: u8 = 0;
const PROBLEMS: u8 = 1;
const NOT_MEASURED: u8 = 2;
const OBJECTIVE_MISSED: u8 = 3;

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

fn main() -> ExitCode {
    match run(&Cli::parse().command) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("ringwire-loadtest: {error}");
            ExitCode::from(NOT_MEASURED)
        }
    }
}

/// The first SIGINT or SIGTERM ends the run with a report, the second at once.
fn watch_signals() -> io::Result<()> {
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGINT);
    signals.add(Signal::SIGTERM);
    // Every thread made later inherits this, so only the watcher takes them.
    signals.thread_block()?;
    thread::spawn(move || {
        while signals.wait().is_ok() {
            if INTERRUPTED.swap(true, Ordering::Relaxed) {
                std::process::exit(130);
            }
        }
    });
    Ok(())
}

fn nanos(seconds: f64) -> Nanos {
    (seconds * 1e9) as Nanos
}

/// What all scenarios need from the command line.
struct Common<'a> {
    to: &'a To,
    opening: &'a Opening,
    output: &'a Output,
    connections: usize,
    layout: Layout,
    warmup: f64,
    duration: Option<f64>,
    patience: f64,
}

impl<'a> Common<'a> {
    fn new(to: &'a To, opening: &'a Opening, flow: &Flow, output: &'a Output, connections: usize) -> Self {
        let layout = if to.raw { Layout::RawEcho } else { Layout::WebSocket };
        let duration = flow.count.is_none().then_some(flow.duration);
        Self { to, opening, output, connections, layout, warmup: flow.warmup, duration, patience: flow.patience }
    }

    fn plan(&self) -> Result<run::Plan, String> {
        let mut target = self.to.url.clone();
        target.headers.clone_from(&self.to.headers);
        target.protocols.clone_from(&self.to.protocols);
        target.check()?;
        target.sources = self.opening.bind.clone().unwrap_or_default();
        target.spread_sources(self.connections);
        if self.connections == 0 {
            return Err("there must be connections".to_owned());
        }
        let descriptors = run::raise_nofile().map_err(|error| error.to_string())?;
        let processors = thread::available_parallelism().map_or(1, usize::from);
        let pinned = self.opening.pin.len();
        let wanted = if pinned > 0 { pinned } else { (processors / 2).max(1) };
        let wanted = self.opening.threads.unwrap_or(wanted).max(run::workers_needed(self.connections, descriptors));
        let kind = if self.to.binary { Kind::Binary } else { Kind::Text };
        let window = self.duration.unwrap_or(20.0);
        Ok(run::Plan {
            target: Arc::new(target),
            messages: Box::leak(Box::new(Messages::new(self.layout, kind, self.to.size.clone()))),
            connections: self.connections,
            slots: 0,
            workers: wanted.clamp(1, self.connections),
            pin: self.opening.pin.clone(),
            warmup: Duration::from_secs_f64(self.warmup),
            duration: self.duration.map(Duration::from_secs_f64),
            patience: Duration::from_secs_f64(self.patience),
            server_pid: self.output.server_pid,
            interval: Duration::from_secs_f64((window / 40.0).clamp(0.1, 1.0)),
        })
    }

    fn about(&self, scenario: &'static str, unit: &'static str, rate: Option<f64>) -> About {
        let started_unix_s = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        About { scenario, unit, url: self.to.url.url.clone(), connections: self.connections, rate, started_unix_s }
    }

    fn refuse_raw(&self, scenario: &str) -> Result<(), String> {
        if self.to.raw {
            Err(format!("{scenario} needs WebSocket: --raw is for echo, broadcast and connect"))
        } else {
            Ok(())
        }
    }
}

fn run(command: &Command) -> Result<u8, Box<dyn std::error::Error>> {
    if let Command::Diff { a, b } = command {
        let read = |path: &std::path::Path| -> Result<Value, String> {
            let text = fs::read(path).map_err(|error| format!("{}: {error}", path.display()))?;
            serde_json::from_slice(&text).map_err(|error| format!("{}: {error}", path.display()))
        };
        print!("{}", diff::table(&read(a)?, &read(b)?));
        return Ok(OK);
    }
    watch_signals()?;
    match command {
        Command::Echo { to, opening, flow, connections, pipeline, output } => {
            let common = Common::new(to, opening, flow, output, *connections);
            let plan = echo::Plan {
                connections: *connections,
                concurrency: opening.concurrency,
                ramp: opening.ramp,
                pipeline: *pipeline as usize,
                rate: flow.rate,
                count: flow.count,
                patience: nanos(flow.patience),
                raw: to.raw,
            };
            let run = common.plan()?;
            let mut progress = Progress::new(output.quiet);
            let outcome = run.run(|share, _| Echo::new(plan.clone(), share), &mut progress, &INTERRUPTED)?;
            finish(&common.about("echo", "replies", flow.rate), &outcome, output)
        }
        Command::Broadcast { to, opening, flow, subscribers, publishing, output } => {
            let members = subscribers + publishing.publishers as usize;
            let groups = Groups { count: 1, members, stalled: 0 };
            fan_out("broadcast", to, opening, flow, publishing, output, groups)
        }
        Command::Rooms { to, opening, flow, rooms, members, publishing, output } => {
            if !to.url.path.contains("{room}") {
                return Err("the URL must have {room} in its path".into());
            }
            let groups = Groups { count: (*rooms).max(1), members: *members, stalled: 0 };
            fan_out("rooms", to, opening, flow, publishing, output, groups)
        }
        Command::Slow { to, opening, flow, subscribers, stalled, publishing, output } => {
            if flow.count.is_some() {
                return Err("slow needs a --duration: readers stall in the middle of it".into());
            }
            let members = subscribers + publishing.publishers as usize;
            let groups = Groups { count: 1, members, stalled: *stalled };
            fan_out("slow", to, opening, flow, publishing, output, groups)
        }
        Command::Emit { to, opening, flow, connections, posters, api, token, output } => {
            let mut common = Common::new(to, opening, flow, output, *connections);
            common.refuse_raw("emit")?;
            if to.binary || to.size.min() < STAMP_BYTES || to.size.max() > 32 << 10 {
                return Err(format!("emit sends text of {STAMP_BYTES} bytes to 32 KiB").into());
            }
            if !api.contains("{id}") {
                return Err("--api must have {id} in it".into());
            }
            let mut run = common.plan()?;
            common.connections += (*posters).max(1) * run.workers;
            run.connections = common.connections;
            let plan = emit::Plan {
                sockets: *connections,
                posters: (*posters).max(1),
                concurrency: opening.concurrency,
                ramp: opening.ramp,
                rate: flow.rate,
                count: flow.count,
                patience: nanos(flow.patience),
                host: to.url.host.clone(),
                api: api.clone(),
                token: token.clone(),
            };
            let mut progress = Progress::new(output.quiet);
            let outcome = run.run(|share, _| Emit::new(plan.clone(), share), &mut progress, &INTERRUPTED)?;
            finish(&common.about("emit", "deliveries", flow.rate), &outcome, output)
        }
        Command::Connect { to, opening, connections, hold, echo, ping, ping_rate, patience, output } => {
            let common = Common {
                to,
                opening,
                output,
                connections: *connections,
                layout: if to.raw { Layout::RawEcho } else { Layout::WebSocket },
                warmup: 0.0,
                duration: None,
                patience: *patience,
            };
            if *ping {
                common.refuse_raw("--ping")?;
            }
            let plan = connect::Plan {
                connections: *connections,
                concurrency: opening.concurrency,
                ramp: opening.ramp,
                first_echo: *echo,
                ping: *ping,
                pings_per_second: *ping_rate,
                hold: nanos(*hold),
                patience: nanos(*patience),
                raw: to.raw,
            };
            let run = common.plan()?;
            let mut progress = Progress::new(output.quiet);
            let outcome = run.run(|share, _| Connect::new(plan.clone(), share), &mut progress, &INTERRUPTED)?;
            finish(&common.about("connect", "connections", opening.ramp), &outcome, output)
        }
        Command::Churn { to, opening, flow, users, words, output } => {
            let common = Common::new(to, opening, flow, output, *users);
            common.refuse_raw("churn")?;
            let plan = churn::Plan {
                users: *users,
                words: *words,
                rate: flow.rate,
                count: flow.count,
                patience: nanos(flow.patience),
            };
            let mut run = common.plan()?;
            // Sessions come and go: a worker that has none open is no failure, and an address has only so many ports.
            run.connections = 0;
            run.slots = *users;
            let mut progress = Progress::new(output.quiet);
            let outcome = run.run(|share, _| Churn::new(plan.clone(), share), &mut progress, &INTERRUPTED)?;
            finish(&common.about("churn", "sessions", flow.rate), &outcome, output)
        }
        Command::Diff { .. } => unreachable!("done above"),
    }
}

/// Groups of connections that hear the same.
#[derive(Clone, Copy)]
struct Groups {
    count: usize,
    members: usize,
    stalled: usize,
}

fn fan_out(
    scenario: &'static str,
    to: &To,
    opening: &Opening,
    flow: &Flow,
    publishing: &Publishing,
    output: &Output,
    groups: Groups,
) -> Result<u8, Box<dyn std::error::Error>> {
    let publishers = publishing.publishers as usize;
    if publishers > groups.members {
        return Err("a group has more publishers than members".into());
    }
    if to.raw && (publishers > 1 || scenario != "broadcast") {
        return Err("--raw needs a broadcast with one publisher".into());
    }
    if to.size.min() < STAMP_BYTES {
        return Err(
            format!("{scenario} needs messages of at least {STAMP_BYTES} bytes, which say who sent them").into()
        );
    }
    let connections = groups.count * (groups.members + groups.stalled);
    if groups.count * publishers > STREAMS_MAX {
        return Err(format!("at most {STREAMS_MAX} publishers can be told apart").into());
    }
    let mut common = Common::new(to, opening, flow, output, connections);
    if to.raw {
        common.layout = Layout::RawFanout;
    }
    let plan = fanout::Plan {
        groups: groups.count,
        members: groups.members,
        publishers,
        stalled: groups.stalled,
        stall_after: nanos(flow.duration / 2.0),
        burst: u64::from(publishing.burst),
        rate: flow.rate,
        count: flow.count,
        concurrency: opening.concurrency,
        ramp: opening.ramp,
        patience: nanos(flow.patience),
        raw: to.raw,
    };
    let run = common.plan()?;
    let board = Arc::new(Board::new(plan, run.workers));
    let mut progress = Progress::new(output.quiet);
    let outcome = run.run(
        |share, net| {
            board.set_bell(share.worker, net.bell());
            Fanout::new(board.clone(), share)
        },
        &mut progress,
        &INTERRUPTED,
    )?;
    finish(&common.about(scenario, "deliveries", flow.rate), &outcome, output)
}

/// Prints and stores the figures, and says with which code to exit.
fn finish(about: &About, outcome: &Outcome, output: &Output) -> Result<u8, Box<dyn std::error::Error>> {
    let mut figures = report::figures(about, outcome);
    let rules: Vec<Value> = output.slo.iter().flatten().map(|rule| rule.judge(&figures)).collect();
    let missed = rules.iter().any(|rule| rule["met"] != true);
    let problems = figures["problem_count"].as_u64() != Some(0);
    figures["slo"] = Value::Array(rules);
    figures["passed"] = Value::Bool(!missed && !problems);
    print!("{}", report::text(&figures));
    io::stdout().flush()?;
    if let Some(path) = &output.json {
        fs::write(path, format!("{figures:#}\n"))?;
    }
    if let Some(path) = &output.html {
        fs::write(path, html::page(&figures))?;
    }
    if let Some(path) = &output.hdr_log {
        write_hdr_log(path, about, outcome)?;
    }
    Ok(match (problems, missed) {
        (true, _) => PROBLEMS,
        (false, true) => OBJECTIVE_MISSED,
        (false, false) => OK,
    })
}

/// The latencies of each interval, in nanoseconds, as HdrHistogram's tools read them.
fn write_hdr_log(path: &std::path::Path, about: &About, outcome: &Outcome) -> Result<(), Box<dyn std::error::Error>> {
    use hdrhistogram::serialization::{V2DeflateSerializer, interval_log::IntervalLogWriterBuilder};
    let mut file = BufWriter::new(fs::File::create(path)?);
    let mut serializer = V2DeflateSerializer::new();
    let started = UNIX_EPOCH + Duration::from_secs(about.started_unix_s);
    let mut log = IntervalLogWriterBuilder::new()
        .with_base_time(started)
        .add_comment("latencies in nanoseconds")
        .begin_log_with(&mut file, &mut serializer)?;
    for interval in &outcome.intervals {
        if let Some(latencies) = &interval.latencies {
            let begin = Duration::from_secs_f64((interval.at_s - interval.seconds).max(0.0));
            let length = Duration::from_secs_f64(interval.seconds);
            log.write_histogram(latencies, begin, length, None)
                .map_err(|error| format!("{}: {error:?}", path.display()))?;
        }
    }
    drop(log);
    file.flush()?;
    Ok(())
}
