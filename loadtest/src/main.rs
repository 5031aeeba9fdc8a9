//! A WebSocket load generator that checks every message.
//!
//! Connections live on io_uring rings, one per thread, in direct descriptors. What is due on each is known, so that a
//! reply is checked in every byte as it comes: lost, repeated, reordered and corrupted messages are counted, and make the
//! exit code 1. `README.md` shows each scenario.

#![forbid(unsafe_code)]

mod agents;
mod ci;
mod cli;
mod deal;
mod diff;
mod files;
mod fleet;
mod gate;
mod host;
mod html;
mod launch;
mod net;
mod outcome;
mod output;
mod pack;
mod part;
mod problems;
mod progress;
mod report;
mod rounds;
mod rows;
mod run;
mod scenario;
mod script;
mod slo;
mod tally;
mod target;
mod tickets;
mod times;
mod tls;
mod track;
mod usage;
mod verdict;
mod wire;
mod words;

use std::{
    fs, io,
    path::Path,
    process::ExitCode,
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use clap::Parser;
use nix::sys::signal::{SigSet, Signal};
use serde_json::Value;

use crate::{
    ci::Case,
    cli::{Cli, Command},
    diff::Judged,
    files::Files,
    fleet::leader::Fleet,
    launch::Site,
    output::Round,
    progress::Progress,
    verdict::{Outcome, Verdict},
};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

fn main() -> ExitCode {
    let verdict = match Cli::parse().command {
        Command::Diff(diff) => compare(&diff),
        Command::Agent(agent) => {
            watch_signals().map_err(Into::into).and_then(|()| fleet::agent::serve(&agent, &INTERRUPTED))
        }
        command => watch_signals().map_err(Into::into).and_then(|()| measure(&command)),
    };
    ExitCode::from(verdict.unwrap_or_else(|error| {
        eprintln!("ringwire-loadtest: {error}");
        Verdict::NotMeasured
    }) as u8)
}

/// Runs a scenario, as many rounds as are asked for, and reports.
fn measure(command: &Command) -> Outcome<Verdict> {
    let output = &command.common().output;
    let files = Files::here();
    let mut fleet = Fleet::gather(command, &files, std::env::args_os().skip(1))?;
    let mut rounds = Vec::new();
    for _ in 0..output.rounds {
        if !rounds.is_empty() && INTERRUPTED.load(Ordering::Relaxed) {
            break;
        }
        let progress = Progress::new(output.quiet);
        let (about, outcome) = match &mut fleet {
            Some(fleet) => fleet.run(progress, &INTERRUPTED)?,
            None => launch::scenario(command, &Site::alone(&files, progress, &INTERRUPTED))?,
        };
        let is_whole = outcome.lost_agents == 0;
        rounds.push(Round::new(&about, outcome));
        // Those that are left would make another run.
        if !is_whole {
            break;
        }
    }
    output::finish(rounds, output)
}

/// Prints two reports side by side, and judges the second by the first.
fn compare(cli: &cli::Diff) -> Outcome<Verdict> {
    let read = |path: &Path| -> Result<Value, String> {
        let text = fs::read(path).map_err(|error| format!("{}: {error}", path.display()))?;
        serde_json::from_slice(&text).map_err(|error| format!("{}: {error}", path.display()))
    };
    let (a, b) = (read(&cli.a)?, read(&cli.b)?);
    let table = diff::table(&a, &b);
    print!("{table}");
    let judged: Vec<Judged> = cli.fail_on.iter().flatten().map(|limit| limit.judge(&a, &b)).collect();
    let mut cases = Vec::new();
    for Judged { limit, found, is_met } in judged {
        println!("limit {limit}: {} ({found})", if is_met { "met" } else { "EXCEEDED" });
        cases.push(Case { name: format!("limit {limit}"), failure: (!is_met).then_some(found) });
    }
    if let Some(path) = &cli.junit {
        fs::write(path, ci::junit("diff", 0.0, &cases))?;
    }
    if let Some(path) = &cli.summary {
        ci::append(path, &ci::markdown_diff(&table, &cases))?;
    }
    let is_exceeded = cases.iter().any(|case| case.failure.is_some());
    Ok(if is_exceeded { Verdict::ObjectiveMissed } else { Verdict::Passed })
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
