//! What a run leaves behind: the report on standard output, and the files that were asked for.

use std::{
    fs,
    io::{self, BufWriter, Write},
    path::Path,
    time::{Duration, UNIX_EPOCH},
};

use hdrhistogram::serialization::{V2DeflateSerializer, interval_log::IntervalLogWriterBuilder};
use serde_json::Value;

use crate::{
    ci,
    cli::Output,
    html,
    outcome::{self, Interval},
    report::{self, About},
    rounds,
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
    pub(crate) fn new(about: &About, outcome: outcome::Outcome) -> Round {
        let figures = report::figures(about, &outcome);
        Round { figures, started_unix_s: about.started_unix_s, intervals: outcome.intervals }
    }
}

/// Prints and stores the figures of all rounds, and judges them.
pub(crate) fn finish(mut rounds: Vec<Round>, output: &Output) -> Outcome<Verdict> {
    let mut figures = rounds::merge(rounds.iter_mut().map(|round| round.figures.take()).collect());
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
        write_hdr_log(path, &rounds)?;
    }
    if let Some(path) = &output.junit {
        let seconds = figures["elapsed_s"].as_f64().unwrap_or_default();
        let suite = format!("load test: {}", figures["scenario"].as_str().unwrap_or_default());
        fs::write(path, ci::junit(&suite, seconds, &ci::cases(&figures)))?;
    }
    if let Some(path) = &output.summary {
        ci::append(path, &ci::markdown(&figures))?;
    }
    Ok(match (problems, missed) {
        (true, _) => Verdict::Problems,
        (false, true) => Verdict::ObjectiveMissed,
        (false, false) => Verdict::Passed,
    })
}

/// The latencies of each interval, in nanoseconds, as HdrHistogram's tools read them.
fn write_hdr_log(path: &Path, rounds: &[Round]) -> Outcome<()> {
    let mut file = BufWriter::new(fs::File::create(path)?);
    let mut serializer = V2DeflateSerializer::new();
    let first = rounds.first().map_or(0, |round| round.started_unix_s);
    let started = UNIX_EPOCH + Duration::from_secs(first);
    let mut log = IntervalLogWriterBuilder::new()
        .with_base_time(started)
        .add_comment("latencies in nanoseconds")
        .begin_log_with(&mut file, &mut serializer)?;
    let intervals = rounds.iter().flat_map(|round| {
        let later = Duration::from_secs(round.started_unix_s - first);
        round.intervals.iter().map(move |interval| (later, interval))
    });
    for (later, interval) in intervals {
        if let Some(latencies) = &interval.latencies {
            let begin = later + Duration::from_secs_f64((interval.at_s - interval.seconds).max(0.0));
            let length = Duration::from_secs_f64(interval.seconds);
            log.write_histogram(latencies, begin, length, None)
                .map_err(|error| format!("{}: {error:?}", path.display()))?;
        }
    }
    drop(log);
    file.flush()?;
    Ok(())
}
