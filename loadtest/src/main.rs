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
mod headers;
mod host;
mod html;
mod launch;
mod like;
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
mod settings;
mod sink;
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
    io,
    process::ExitCode,
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use clap::{ArgMatches, FromArgMatches};
use nix::sys::signal::{SigSet, Signal};

use crate::{
    cli::{Cli, Command},
    files::Files,
    fleet::leader::Fleet,
    launch::Site,
    output::Round,
    progress::Progress,
    rounds::End,
    verdict::{Outcome, Verdict},
};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

fn main() -> ExitCode {
    let matches = cli::read(std::env::args_os().collect()).unwrap_or_else(|error| error.exit());
    let cli = Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    let verdict = match cli.command {
        Command::Diff(diff) => diff::run(&diff),
        Command::Agent(agent) => {
            watch_signals().map_err(Into::into).and_then(|()| fleet::agent::serve(&agent, &INTERRUPTED))
        }
        command => watch_signals().map_err(Into::into).and_then(|()| measure(&command, &matches)),
    };
    ExitCode::from(verdict.unwrap_or_else(|error| {
        eprintln!("ringwire-loadtest: {error}");
        Verdict::NotMeasured
    }) as u8)
}

/// Runs a scenario, as many rounds as are asked for, and reports.
fn measure(command: &Command, matches: &ArgMatches) -> Outcome<Verdict> {
    let output = &command.common().output;
    output::check(output)?;
    let files = Files::here();
    let mut fleet = Fleet::gather(command, &files, std::env::args_os().skip(1))?;
    let mut rounds = Vec::new();
    let mut end = None;
    while end.is_none() && rounds.len() < output.rounds as usize {
        let progress = Progress::new(output.quiet);
        let made = match &mut fleet {
            _ if !rounds.is_empty() && INTERRUPTED.load(Ordering::Relaxed) => Err("it was interrupted".into()),
            Some(fleet) => fleet.run(progress, &INTERRUPTED),
            None => launch::scenario(command, &Site::alone(&files, progress, &INTERRUPTED)),
        };
        let (about, outcome) = match made {
            Ok(made) => made,
            // What was measured before is not lost with it.
            Err(error) if !rounds.is_empty() => {
                end = Some(error.to_string());
                break;
            }
            Err(error) => return Err(error),
        };
        if outcome.lost_agents > 0 {
            end = Some("the agents that are left would make another run".to_owned());
        }
        rounds.push(Round::new(&about, &settings::of(matches, &files), outcome));
    }
    let end = end.map(|why| End { why, is_wanted: INTERRUPTED.load(Ordering::Relaxed) });
    output::finish(rounds, end.as_ref(), output)
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
