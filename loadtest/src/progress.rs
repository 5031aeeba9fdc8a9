//! How a run is doing: one live line on a terminal, a plain line a second elsewhere. On standard error, so that standard
//! output is the report alone.

use std::{fmt, io::IsTerminal};

use hdrhistogram::Histogram;
use indicatif::{ProgressBar, ProgressStyle};

use crate::{
    outcome::Counts,
    words::{grouped, time_text},
};

/// Plain lines come no closer than this.
const LINE_EVERY_S: f64 = 1.0;

/// See the module.
#[derive(Debug)]
pub(crate) enum Progress {
    /// Nothing is shown.
    Quiet,
    /// A terminal.
    Live(ProgressBar),
    /// Anything else; when the next line is due.
    Lines(f64),
    /// Whoever has ordered the run is told.
    Told(Teller),
}

/// Is called with how a run is doing.
pub(crate) struct Teller(pub(crate) Box<dyn FnMut(Doing<'_>) + Send>);

impl fmt::Debug for Teller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Teller").finish_non_exhaustive()
    }
}

/// How a run is doing.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Doing<'a> {
    /// In one word.
    pub(crate) what: &'a str,
    pub(crate) counts: &'a Counts,
    /// Messages a second.
    pub(crate) rate: f64,
    /// Of the newest interval that has any.
    pub(crate) latencies: Option<&'a Histogram<u64>>,
}

impl Progress {
    pub(crate) fn new(quiet: bool) -> Self {
        if quiet {
            return Self::Quiet;
        }
        if !std::io::stderr().is_terminal() {
            return Self::Lines(LINE_EVERY_S);
        }
        let bar = ProgressBar::new_spinner();
        bar.set_style(ProgressStyle::with_template("{spinner:.cyan} {msg}").expect("a valid template"));
        Self::Live(bar)
    }

    pub(crate) fn show(&mut self, seconds: f64, doing: Doing<'_>) {
        let due = match self {
            Self::Quiet => false,
            Self::Live(_) => true,
            Self::Lines(next) => seconds >= *next,
            Self::Told(teller) => {
                (teller.0)(doing);
                false
            }
        };
        if !due {
            return;
        }
        let Doing { what, counts, rate, latencies } = doing;
        let mut text =
            format!("{seconds:6.1} s  {what:<10}  {} open  {} /s", grouped(counts.open), grouped(rate as u64));
        if let Some(latencies) = latencies {
            let at = |quantile| time_text(latencies.value_at_quantile(quantile) as f64 / 1e3);
            text += &format!("  p50 {}  p99 {}", at(0.5), at(0.99));
        }
        if counts.problems > 0 {
            text += &format!("  {} problems", grouped(counts.problems));
        }
        match self {
            Self::Quiet | Self::Told(_) => {}
            Self::Live(bar) => {
                bar.set_message(text);
                bar.tick();
            }
            Self::Lines(next) => {
                eprintln!("{text}");
                *next = seconds.floor() + LINE_EVERY_S;
            }
        }
    }

    pub(crate) fn clear(&mut self) {
        if let Self::Live(bar) = self {
            bar.finish_and_clear();
        }
    }
}
