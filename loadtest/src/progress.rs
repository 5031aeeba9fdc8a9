//! How a run is doing: one live line on a terminal, a plain line a second elsewhere. On standard error, so that standard
//! output is the report alone.

use std::io::IsTerminal;

use hdrhistogram::Histogram;
use indicatif::{ProgressBar, ProgressStyle};

use crate::{
    outcome::{Counts, Interval},
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

    pub(crate) fn show(
        &mut self,
        what: &str,
        seconds: f64,
        counts: &Counts,
        sample: Option<&Interval>,
        latencies: Option<&Histogram<u64>>,
    ) {
        let due = match self {
            Self::Quiet => false,
            Self::Live(_) => true,
            Self::Lines(next) => seconds >= *next,
        };
        if !due {
            return;
        }
        let rate = sample.map_or(0.0, |sample| sample.done as f64 / sample.seconds);
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
            Self::Quiet => {}
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
