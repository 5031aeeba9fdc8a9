//! Two reports side by side, and whether the second is worse than it may be.

use std::path::PathBuf;

use clap::Args;
use ringwire::quote::quoted;
use serde_json::Value;

use crate::{
    ci::{self, Case},
    like,
    rows::{Better, Row, rows_of},
    sink::{self, Sink},
    slo,
    verdict::{Outcome, Verdict},
};

/// Differences of fewer percent say nothing.
const NOISE_PERCENT: f64 = 5.0;
/// Fewer rounds say nothing: one that was disturbed decides.
const ROUNDS_MIN: u64 = 3;

#[derive(Args, Debug)]
pub(crate) struct Diff {
    /// The report to compare with.
    pub(crate) a: PathBuf,
    /// The report to judge.
    pub(crate) b: PathBuf,
    /// Limits, such as 'p99=+10%,rate=-5%'; exit code 3 if B is beyond one of them.
    #[arg(long, value_name = "LIMITS", value_parser = parse_limits, allow_hyphen_values = true)]
    pub(crate) fail_on: Option<Limits>,
    /// Judge the limits even where the settings of both runs are not the same.
    #[arg(long, requires = "fail_on")]
    pub(crate) anyway: bool,
    /// Write the limits to this file, as JUnit's XML.
    #[arg(long, value_name = "FILE")]
    pub(crate) junit: Option<PathBuf>,
    /// Append the table to this file, as Markdown: $GITHUB_STEP_SUMMARY.
    #[arg(long, value_name = "FILE")]
    pub(crate) summary: Option<PathBuf>,
}

type Limits = Vec<Limit>;

/// How far a figure may go: `p99=+10%`.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Limit {
    pub(crate) text: String,
    pointer: String,
    /// Percent of the first report's figure: more than that is too much where it is positive, less where it is negative. It has the
    /// sign of what is worse.
    percent: f64,
}

/// What came of a limit.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Judged {
    pub(crate) limit: String,
    /// What was found, in words.
    pub(crate) found: String,
    pub(crate) is_met: bool,
}

/// Prints two reports side by side, and judges the second by the first.
///
/// # Errors
/// If one is no report, or they are not alike and limits would have to be judged all the same.
pub(crate) fn run(cli: &Diff) -> Outcome<Verdict> {
    let junit = cli.junit.as_deref().map(|path| Sink::new("--junit", path));
    let summary = cli.summary.as_deref().map(|path| Sink::shared("--summary", path));
    sink::check(&junit.into_iter().chain(summary).collect::<Vec<_>>())?;
    let (a, b) = (like::read(&cli.a)?, like::read(&cli.b)?);
    let unlike =
        like::compare(&a, &b).map_err(|why| format!("{} (A) and {} (B): {why}", cli.a.display(), cli.b.display()))?;
    let notes = unlike.lines();
    let table = table(&a, &b);
    let limits = cli.fail_on.as_deref().unwrap_or_default();
    let is_refused = !limits.is_empty() && !unlike.settings.is_empty() && !cli.anyway;
    let mut text: String = notes.iter().map(|note| format!("{note}\n")).collect();
    text += &table;
    let mut cases = Vec::new();
    if is_refused {
        cases.push(Case { name: "like for like".to_owned(), failure: Some(unlike.settings.join(", ")) });
    } else {
        for Judged { limit, found, is_met } in limits.iter().map(|limit| limit.judge(&a, &b)) {
            text += &format!("limit {limit}: {} ({found})\n", if is_met { "met" } else { "EXCEEDED" });
            cases.push(Case { name: format!("limit {limit}"), failure: (!is_met).then_some(found) });
        }
    }
    let write = |sink: Option<Sink<'_>>, text: String| sink.map_or(Ok(()), |sink| sink.write(text.as_bytes()));
    sink::all([
        sink::print(&text),
        write(junit, ci::junit("diff", 0.0, &cases, &notes)),
        write(summary, ci::markdown_diff(&table, &cases, &notes)),
    ])?;
    if is_refused {
        return Err(format!("{}: limits say nothing of that; --anyway judges them all the same", notes[0]).into());
    }
    let is_exceeded = cases.iter().any(|case| case.failure.is_some());
    Ok(if is_exceeded { Verdict::ObjectiveMissed } else { Verdict::Passed })
}

/// Reads limits, separated by commas.
pub(crate) fn parse_limits(text: &str) -> Result<Vec<Limit>, String> {
    text.split(',').map(str::trim).filter(|limit| !limit.is_empty()).map(Limit::parse).collect()
}

impl Limit {
    fn parse(text: &str) -> Result<Limit, String> {
        let wrong = || format!("{} is not NAME=+PERCENT% or NAME=-PERCENT%, as p99=+10% or rate=-5%", quoted(text));
        let (name, percent) = text.split_once('=').ok_or_else(wrong)?;
        let (pointer, better) = slo::pointer(name.trim())?;
        let percent = percent.trim().strip_suffix('%').ok_or_else(wrong)?;
        let is_signed = percent.starts_with(['+', '-']);
        let percent =
            percent.parse::<f64>().ok().filter(|percent| is_signed && percent.is_finite()).ok_or_else(wrong)?;
        let (worse, way) = match better {
            Better::Less => ('+', "more"),
            Better::More => ('-', "less"),
        };
        if percent.is_sign_positive() != (worse == '+') {
            let name = name.trim();
            let percent = percent.abs();
            return Err(format!("{}: {name} is worse where it is {way}: {name}={worse}{percent}%", quoted(text)));
        }
        Ok(Limit { text: text.to_owned(), pointer, percent })
    }

    /// Holds two reports against it. Where both have several rounds, what lies within the ranges of both is not too much.
    pub(crate) fn judge(&self, a: &Value, b: &Value) -> Judged {
        let value = |figures: &Value| slo::figure(figures, &self.pointer);
        let told = |found: String, is_met| Judged { limit: self.text.clone(), found, is_met };
        let (Some(before), Some(after)) = (value(a), value(b)) else {
            return told("no such figure in both reports".to_owned(), false);
        };
        let bound = before * (1.0 + self.percent / 100.0);
        // With +0 % more is too much, with -0 % less.
        let is_upper = self.percent > 0.0 || self.percent.is_sign_positive();
        let is_beyond = if is_upper { after > bound } else { after < bound };
        let change = if before == 0.0 { f64::INFINITY } else { (after - before) / before * 100.0 };
        let change = if before == after { "the same".to_owned() } else { format!("{change:+.1} %") };
        if !is_beyond {
            return told(change, true);
        }
        match ranges(a, b, &self.pointer) {
            Some(((_, high), (low, _))) if is_upper && low <= high => {
                told(format!("{change}, but the ranges of the rounds overlap"), true)
            }
            Some(((low, _), (_, high))) if !is_upper && high >= low => {
                told(format!("{change}, but the ranges of the rounds overlap"), true)
            }
            _ => told(change, false),
        }
    }
}

type Range = (f64, f64);

fn ranges(a: &Value, b: &Value, pointer: &str) -> Option<(Range, Range)> {
    let range = |figures: &Value| {
        let range = &figures["ranges"][pointer];
        Some((range[0].as_f64()?, range[1].as_f64()?))
    };
    Some((range(a)?, range(b)?))
}

/// A table of what both reports have, with the change in percent.
pub(crate) fn table(a: &Value, b: &Value) -> String {
    let rounds = |figures: &Value| figures["rounds"].as_u64().unwrap_or(1);
    let are_enough = rounds(a) >= ROUNDS_MIN && rounds(b) >= ROUNDS_MIN;
    let mut text = format!("{:<26} {:>14} {:>14} {:>10}\n", "", "A", "B", "change");
    for row in rows_of(a) {
        let (Some(before), Some(after)) = (row.value(a), row.value(b)) else { continue };
        let change = (after - before) / before * 100.0;
        let told = match before == after {
            true => "=".to_owned(),
            false if before == 0.0 => "new".to_owned(),
            false => format!("{change:+.1} %"),
        };
        let verdict = verdict(&row, a, b, are_enough);
        let line =
            format!("{:<26} {:>14} {:>14} {told:>10} {verdict}", row.name, (row.unit)(before), (row.unit)(after));
        text += line.trim_end();
        text.push('\n');
    }
    if !are_enough {
        text +=
            &format!("too few rounds to call anything better or worse: run both with --rounds {ROUNDS_MIN} or more\n");
    }
    text
}

/// Better or worse, where that can be told.
fn verdict(row: &Row, a: &Value, b: &Value, are_enough: bool) -> &'static str {
    let (before, after) = (row.value(a).unwrap_or_default(), row.value(b).unwrap_or_default());
    if before == after {
        return "";
    }
    let is_better = (after < before) == (row.better == Better::Less);
    let word = if is_better { "better" } else { "worse" };
    // One message that is lost is one too many, however often that was looked at.
    if row.is_count {
        return word;
    }
    let is_noise = before != 0.0 && ((after - before) / before * 100.0).abs() < NOISE_PERCENT;
    let do_overlap = match (row.range(a), row.range(b)) {
        (Some(a), Some(b)) => a.0 <= b.1 && b.0 <= a.1,
        _ => false,
    };
    if !are_enough || is_noise || do_overlap { "" } else { word }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn report(rate: (f64, f64, f64), p99: (f64, f64, f64), lost: u64, rounds: u64) -> Value {
        json!({
            "messages_per_s": rate.1, "latency_us": {"p99": p99.1}, "checks": {"lost": lost}, "rounds": rounds,
            "ranges": {"/messages_per_s": [rate.0, rate.2], "/latency_us/p99": [p99.0, p99.2]},
        })
    }

    #[test]
    fn changes_beyond_the_noise_and_the_ranges_are_judged() {
        let a = report((990.0, 1000.0, 1010.0), (90.0, 100.0, 110.0), 0, 3);
        let b = report((1010.0, 1020.0, 1030.0), (140.0, 150.0, 160.0), 3, 3);
        let line =
            |text: &str, name: &str| text.lines().find(|line| line.starts_with(name)).unwrap_or_default().to_owned();
        let text = table(&a, &b);
        assert!(line(&text, "messages/s").ends_with("+2.0 %"), "{text}");
        assert!(line(&text, "latency p99").ends_with("+50.0 % worse"), "{text}");
        assert!(line(&text, "lost").ends_with("new worse"), "{text}");
        assert!(!text.contains("spread") && !text.contains("too few"), "{text}");
        assert!(line(&table(&b, &a), "latency p99").ends_with("-33.3 % better"));
        // Ranges that overlap say nothing.
        let wide = report((990.0, 1000.0, 1010.0), (90.0, 150.0, 160.0), 0, 3);
        assert!(line(&table(&a, &wide), "latency p99").ends_with("+50.0 %"));
        // Nor does one round; but what is lost is lost.
        let one = report((990.0, 1000.0, 1010.0), (140.0, 150.0, 160.0), 1, 1);
        let text = table(&a, &one);
        assert!(line(&text, "latency p99").ends_with("+50.0 %") && line(&text, "lost").ends_with("worse"), "{text}");
        assert!(text.contains("--rounds 3"), "{text}");
    }

    #[test]
    fn limits_are_read_and_judged() {
        let a = report((990.0, 1000.0, 1010.0), (90.0, 100.0, 110.0), 0, 3);
        let far = report((890.0, 900.0, 910.0), (140.0, 150.0, 160.0), 1, 3);
        let near = report((930.0, 940.0, 991.0), (109.0, 112.0, 120.0), 0, 3);
        let judged = |text: &str, b: &Value| -> Vec<bool> {
            parse_limits(text).expect(text).iter().map(|limit| limit.judge(&a, b).is_met).collect()
        };
        assert_eq!(judged("p99=+10%, rate=-5%, lost=+0%", &far), [false, false, false]);
        assert_eq!(judged("p99=+60%,rate=-20%", &far), [true, true]);
        // Beyond, but the ranges of the rounds overlap.
        assert_eq!(judged("p99=+10%,rate=-5%,lost=+0%", &near), [true, true, true]);
        assert_eq!(judged("p99=+10%,rate=-5%", &a), [true, true]);
        assert_eq!(judged("handshake.p99=+10%", &a), [false], "a figure that is not there");
        for (text, why) in [
            ("p99", "not NAME"),
            ("p99=10%", "not NAME"),
            ("p99=+10", "not NAME"),
            ("p98=+10%", "is not one of"),
            ("p99=+x%", "not NAME"),
            ("p99=-5%", "\"p99=-5%\": p99 is worse where it is more: p99=+5%"),
            ("lost=-0%", "lost=+0%"),
            ("handshake.p50=-1.5%", "handshake.p50=+1.5%"),
            ("server_cpu=-5%", "server_cpu=+5%"),
            ("p99=+5%, rate=+5%", "\"rate=+5%\": rate is worse where it is less: rate=-5%"),
            ("connect_rate=+0%", "connect_rate=-0%"),
        ] {
            let error = parse_limits(text).expect_err(text);
            assert!(error.contains(why), "{error}");
        }
    }
}
