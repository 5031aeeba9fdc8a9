//! A run on an agent: its part of what a leader has planned, on a thread of its own.

use std::{
    cell::RefCell,
    panic::{AssertUnwindSafe, catch_unwind},
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use clap::Parser;
use data_encoding::BASE64;

use super::{
    mail::Mail,
    protocol::{AGENTS_MAX, Brought, Doing, Plan, Word},
};
use crate::{
    cli::{Cli, Command},
    files::{Contents, Files},
    gate::{Gate, Reached},
    launch::{self, Site},
    progress::{Progress, Teller},
};

/// Intervals that are sent at once.
const INTERVALS_SENT: usize = 200;

/// The agent's clock.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock(Instant);

impl Clock {
    pub(crate) fn new() -> Clock {
        Clock(Instant::now())
    }

    pub(crate) fn of(self, at: Instant) -> u64 {
        at.saturating_duration_since(self.0).as_nanos() as u64
    }

    pub(crate) fn at(self, at_ns: u64) -> Instant {
        let now = Instant::now();
        // However far away a leader may have it.
        self.0.checked_add(Duration::from_nanos(at_ns)).unwrap_or(now)
    }
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Job {
    gate: Arc<Gate>,
    stop: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Job {
    /// Begins a run; what comes of it is put into the mail.
    ///
    /// # Errors
    /// What is wrong with the plan.
    pub(crate) fn begin(plan: &Plan, connections_max: usize, clock: Clock, mail: &Arc<Mail>) -> Result<Job, String> {
        let part = plan.part;
        if part.agent >= part.agents || part.agents > AGENTS_MAX {
            return Err("the plan is for no such agent".to_owned());
        }
        let line = std::iter::once("ringwire-loadtest").chain(plan.arguments.iter().map(String::as_str));
        let command = Cli::try_parse_from(line).map_err(|error| error.to_string())?.command;
        if matches!(command, Command::Agent(_) | Command::Diff(_)) {
            return Err("the plan is for no scenario".to_owned());
        }
        let mut contents = Contents::new();
        for file in &plan.files {
            let bytes = BASE64.decode(file.base64.as_bytes()).map_err(|error| format!("a file: {error}"))?;
            contents.insert(PathBuf::from(&file.name), bytes);
        }
        let gate = Arc::new(Gate::new({
            let mail = mail.clone();
            move |reached| {
                mail.put(match reached {
                    Reached::Ready(counts) => Word::Ready(counts),
                    Reached::Flowing(at) => Word::Flowing { at_ns: clock.of(at) },
                    Reached::Measured => Word::Measured {},
                });
            }
        }));
        let stop = Arc::new(AtomicBool::new(false));
        let thread = thread::spawn({
            let (gate, stop, mail) = (gate.clone(), stop.clone(), mail.clone());
            move || {
                let notes = mail.clone();
                let note = move |doing: crate::progress::Doing<'_>| {
                    notes.note(Doing {
                        what: doing.what.to_owned(),
                        counts: *doing.counts,
                        rate: doing.rate,
                        latencies: doing.latencies.cloned(),
                    });
                };
                let site = Site {
                    files: &Files::sent(contents),
                    part,
                    gate: Some(gate),
                    connections_max: Some(connections_max),
                    progress: RefCell::new(Progress::Told(Teller(Box::new(note)))),
                    stop: &stop,
                };
                let done = catch_unwind(AssertUnwindSafe(|| launch::scenario(&command, &site)));
                match done {
                    Ok(Ok((about, mut outcome))) => {
                        let mut intervals = std::mem::take(&mut outcome.intervals).into_iter().peekable();
                        while intervals.peek().is_some() {
                            mail.put(Word::Intervals(intervals.by_ref().take(INTERVALS_SENT).collect()));
                        }
                        mail.put(Word::Result(Box::new(Brought { about, outcome })));
                    }
                    Ok(Err(error)) => mail.put(Word::Failed { why: error.to_string() }),
                    Err(_) => mail.put(Word::Failed { why: "it panicked: see its own output".to_owned() }),
                }
            }
        });
        Ok(Job { gate, stop, thread })
    }

    /// Messages begin to flow then.
    pub(crate) fn go(&self, at: Instant) {
        self.gate.open_at(at);
    }

    /// Ends it early.
    pub(crate) fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    /// Ends it at once: nobody wants to know any more.
    pub(crate) fn abandon(&self) {
        self.gate.abandon();
        self.stop();
    }

    pub(crate) fn is_over(&self) -> bool {
        self.thread.is_finished()
    }
}
