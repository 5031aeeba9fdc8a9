//! What a run leaves behind: the report on standard output, and the files that were asked for.

use std::time::{Duration, UNIX_EPOCH};

use hdrhistogram::serialization::{V2DeflateSerializer, interval_log::IntervalLogWriterBuilder};
use serde_json::Value;

use crate::{
    ci,
    cli::Output,
    html,
    outcome::{self, Interval},
    report::{self, About},
    rounds::{self, End},
    sink::{self, Sink},
    verdict::{Outcome, Verdict},
};

/// One round's figures, and what they were made of.
#[derive(Debug)]
pub(crate) struct Round {
    figures: Value,
    started_unix_s: u64,
    intervals: Vec<Interval>,
}

impl Round {
    pub(crate) fn new(about: &About, settings: &Value, outcome: outcome::Outcome) -> Round {
        let mut figures = report::figures(about, &outcome);
        figures["settings"] = settings.clone();
        Round { figures, started_unix_s: about.started_unix_s, intervals: outcome.intervals }
    }
}

/// Prints and stores the figures of all rounds, and judges them; `end` is why there are no more.
pub(crate) fn finish(mut rounds: Vec<Round>, end: Option<&End>, output: &Output) -> Outcome<Verdict> {
    let mut figures = rounds::merge(rounds.iter_mut().map(|round| round.figures.take()).collect());
    rounds::account(&mut figures, rounds.len() as u64, output.rounds.into(), end);
    let rules: Vec<Value> = output.slo.iter().flatten().map(|rule| rule.judge(&figures)).collect();
    let missed = rules.iter().any(|rule| rule["met"] != true);
    let problems = figures["problem_count"].as_u64() != Some(0);
    figures["slo"] = Value::Array(rules);
    figures["passed"] = Value::Bool(!missed && !problems);
    let mut done = vec![sink::print(&report::text(&figures))];
    for (what, sink) in files(output) {
        done.push(content(what, &figures, &rounds).and_then(|content| sink.write(&content)));
    }
    sink::all(done)?;
    Ok(match (problems, missed) {
        (true, _) => Verdict::Problems,
        (false, true) => Verdict::ObjectiveMissed,
        (false, false) => Verdict::Passed,
    })
}

/// What files can be asked for.
#[derive(Clone, Copy, Debug)]
enum What {
    Json,
    Html,
    HdrLog,
    Junit,
    Summary,
}

/// Those that are asked for.
fn files(output: &Output) -> Vec<(What, Sink<'_>)> {
    let Output { json, html, hdr_log, junit, summary, server_pid: _, rounds: _, slo: _, quiet: _ } = output;
    let mut all = Vec::new();
    for (what, option, path) in [
        (What::Json, "--json", json),
        (What::Html, "--html", html),
        (What::HdrLog, "--hdr-log", hdr_log),
        (What::Junit, "--junit", junit),
    ] {
        all.extend(path.as_deref().map(|path| (what, Sink::new(option, path))));
    }
    all.extend(summary.as_deref().map(|path| (What::Summary, Sink::shared("--summary", path))));
    all
}

/// Looks at the files that are asked for: nobody wants to hear behind a long run that one cannot be written.
///
/// # Errors
/// Which one cannot be, and why.
pub(crate) fn check(output: &Output) -> Result<(), String> {
    sink::check(&files(output).into_iter().map(|(_, sink)| sink).collect::<Vec<_>>())
}

fn content(what: What, figures: &Value, rounds: &[Round]) -> Result<Vec<u8>, String> {
    Ok(match what {
        What::Json => format!("{figures:#}\n").into_bytes(),
        What::Html => html::page(figures).into_bytes(),
        What::HdrLog => hdr_log(rounds).map_err(|error| format!("--hdr-log: {error}"))?,
        What::Junit => {
            let seconds = figures["elapsed_s"].as_f64().unwrap_or_default();
            let suite = format!("load test: {}", figures["scenario"].as_str().unwrap_or_default());
            ci::junit(&suite, seconds, &ci::cases(figures), &ci::warnings(figures)).into_bytes()
        }
        What::Summary => ci::markdown(figures).into_bytes(),
    })
}

/// The latencies of each interval, in nanoseconds, as HdrHistogram's tools read them.
fn hdr_log(rounds: &[Round]) -> Outcome<Vec<u8>> {
    let mut text = Vec::new();
    let mut serializer = V2DeflateSerializer::new();
    let first = rounds.first().map_or(0, |round| round.started_unix_s);
    let started = UNIX_EPOCH + Duration::from_secs(first);
    let mut log = IntervalLogWriterBuilder::new()
        .with_base_time(started)
        .add_comment("latencies in nanoseconds")
        .begin_log_with(&mut text, &mut serializer)?;
    let intervals = rounds.iter().flat_map(|round| {
        let later = Duration::from_secs(round.started_unix_s - first);
        round.intervals.iter().map(move |interval| (later, interval))
    });
    for (later, interval) in intervals {
        if let Some(latencies) = &interval.latencies {
            let begin = later + Duration::from_secs_f64((interval.at_s - interval.seconds).max(0.0));
            let length = Duration::from_secs_f64(interval.seconds);
            log.write_histogram(latencies, begin, length, None).map_err(|error| format!("{error:?}"))?;
        }
    }
    drop(log);
    Ok(text)
}
