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
    cli::Output,
    html, outcome,
    report::{self, About},
    verdict::{Outcome, Verdict},
};

/// Prints and stores the figures, and judges them.
pub(crate) fn finish(about: &About, outcome: &outcome::Outcome, output: &Output) -> Outcome<Verdict> {
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
        (true, _) => Verdict::Problems,
        (false, true) => Verdict::ObjectiveMissed,
        (false, false) => Verdict::Passed,
    })
}

/// The latencies of each interval, in nanoseconds, as HdrHistogram's tools read them.
fn write_hdr_log(path: &Path, about: &About, outcome: &outcome::Outcome) -> Outcome<()> {
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
