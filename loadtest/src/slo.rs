//! Service level objectives: `p99<5ms,lost=0,rate>10000`.

use ringwire::quote::quoted;
use serde_json::{Value, json};

use crate::{
    rows::{Better, TIMES},
    words::{bytes_text, grouped, time_text},
};

/// One objective.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Rule {
    text: String,
    pointer: String,
    unit: Unit,
    relation: Relation,
    bound: f64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unit {
    Microseconds,
    Bytes,
    Count,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Relation {
    Less,
    LessOrEqual,
    Equal,
    GreaterOrEqual,
    Greater,
}

const RELATIONS: [(&str, Relation); 5] = [
    ("<=", Relation::LessOrEqual),
    (">=", Relation::GreaterOrEqual),
    ("<", Relation::Less),
    (">", Relation::Greater),
    ("=", Relation::Equal),
];

const TIMES_OF: [&str; 7] = ["p50", "p90", "p99", "p99.9", "p99.99", "max", "mean"];

/// All others are better where they are less.
const MORE_IS_BETTER: [&str; 2] = ["rate", "connect_rate"];

/// Reads objectives, separated by commas.
pub(crate) fn parse(text: &str) -> Result<Vec<Rule>, String> {
    text.split(',').map(str::trim).filter(|rule| !rule.is_empty()).map(parse_rule).collect()
}

fn parse_rule(text: &str) -> Result<Rule, String> {
    let found = RELATIONS.iter().find_map(|(sign, relation)| Some((text.split_once(sign)?, *relation)));
    let ((name, bound), relation) = found.ok_or_else(|| format!("{} has none of < <= = >= >", quoted(text)))?;
    let (name, bound) = (name.trim(), bound.trim());
    let (pointer, unit) = target(name).ok_or_else(|| unknown(name))?;
    let digits = bound.trim_end_matches(|letter: char| letter.is_ascii_alphabetic() || letter == '/');
    let scale = match (unit, &bound[digits.len()..]) {
        (Unit::Microseconds, "ns") => 1e-3,
        (Unit::Microseconds, "us") | (Unit::Count, "" | "/s") | (Unit::Bytes, "" | "B") => 1.0,
        (Unit::Microseconds, "ms") => 1e3,
        (Unit::Microseconds, "s") => 1e6,
        (Unit::Bytes, "KiB") => 1024.0,
        (Unit::Bytes, "MiB") => 1024.0 * 1024.0,
        (Unit::Microseconds, _) => return Err(format!("{}: a time needs ns, us, ms or s", quoted(text))),
        _ => return Err(format!("{}: unknown unit", quoted(text))),
    };
    let number =
        digits.trim().parse::<f64>().map_err(|_| format!("{}: {} is not a number", quoted(text), quoted(digits)))?;
    Ok(Rule { text: text.to_owned(), pointer, unit, relation, bound: number * scale })
}

/// Where a name's value is in the figures, as a JSON pointer, and which way it is better.
///
/// # Errors
/// If there is no such name.
pub(crate) fn pointer(name: &str) -> Result<(String, Better), String> {
    let (pointer, _) = target(name).ok_or_else(|| unknown(name))?;
    Ok((pointer, if MORE_IS_BETTER.contains(&name) { Better::More } else { Better::Less }))
}

/// What the figures have at a pointer. A time of which there is no sample is none, whatever stands there.
pub(crate) fn figure(figures: &Value, pointer: &str) -> Option<f64> {
    let times = pointer.rsplit_once('/').and_then(|(times, _)| figures.pointer(times));
    let is_empty = times.is_some_and(|times| times["count"] == 0);
    figures.pointer(pointer).filter(|_| !is_empty).and_then(Value::as_f64)
}

fn unknown(name: &str) -> String {
    let times: Vec<&str> = TIMES.iter().skip(1).map(|(key, _)| key.trim_end_matches("_us")).collect();
    format!(
        "{} is not one of {} (also with {}. before), lost, duplicated, reordered, corrupted, unexpected, failed, problems, \
         rate, connect_rate, server_cpu, rss_per_connection",
        quoted(name),
        TIMES_OF.join(", "),
        times.join("., ")
    )
}

/// Where a name's value is in the figures, and what it counts.
fn target(name: &str) -> Option<(String, Unit)> {
    let count = |pointer: String| Some((pointer, Unit::Count));
    match name {
        "lost" | "duplicated" | "reordered" | "corrupted" | "unexpected" => return count(format!("/checks/{name}")),
        "failed" => return count("/connections/failed".to_owned()),
        "problems" => return count("/problem_count".to_owned()),
        "rate" => return count("/messages_per_s".to_owned()),
        "connect_rate" => return count("/connections/per_s".to_owned()),
        "server_cpu" => return Some(("/server/cpu_us_per_message".to_owned(), Unit::Microseconds)),
        "rss_per_connection" => return Some(("/server/rss_bytes_per_connection".to_owned(), Unit::Bytes)),
        _ => {}
    }
    if TIMES_OF.contains(&name) {
        return Some((format!("/latency_us/{name}"), Unit::Microseconds));
    }
    let (which, time) = name.split_once('.')?;
    let known = TIMES.iter().any(|(key, _)| key.strip_suffix("_us") == Some(which)) && TIMES_OF.contains(&time);
    known.then(|| (format!("/{which}_us/{time}"), Unit::Microseconds))
}

impl Rule {
    /// Whether the figures meet it, as it goes into the figures. A value that is not there meets nothing.
    pub(crate) fn judge(&self, figures: &Value) -> Value {
        let value = figure(figures, &self.pointer);
        let met = value.is_some_and(|value| match self.relation {
            Relation::Less => value < self.bound,
            Relation::LessOrEqual => value <= self.bound,
            Relation::Equal => (value - self.bound).abs() < 1e-9,
            Relation::GreaterOrEqual => value >= self.bound,
            Relation::Greater => value > self.bound,
        });
        let told = match (value, self.unit) {
            (None, _) => "no such figure".to_owned(),
            (Some(value), Unit::Microseconds) => time_text(value),
            (Some(value), Unit::Bytes) => bytes_text(value),
            (Some(value), Unit::Count) => grouped(value as u64),
        };
        json!({"rule": self.text, "value": told, "met": met})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objectives_are_read_and_judged() {
        let figures =
            json!({"latency_us": {"p99": 4000.0, "p99.9": 9000.0}, "checks": {"lost": 0}, "messages_per_s": 5000});
        let judged = |text: &str| -> Vec<bool> {
            parse(text).expect(text).iter().map(|rule| rule.judge(&figures)["met"] == true).collect()
        };
        assert_eq!(judged("p99<5ms,lost=0, rate>=5000/s"), [true, true, true]);
        assert_eq!(judged("p99<4000us,p99<=4ms,p99.9<0.01s,rate>5000"), [false, true, true, false]);
        assert_eq!(judged("handshake.p99<1s"), [false], "a figure that is not there");
        let nothing = json!({"latency_us": {"count": 0, "p99": 0.0}});
        let told = parse("p99<5ms").expect("a rule")[0].judge(&nothing);
        assert_eq!((&told["met"], &told["value"]), (&json!(false), &json!("no such figure")), "nothing was measured");
    }

    /// Kills: a figure that is better one way in a table, and the other way by its name.
    #[test]
    fn names_and_rows_are_better_the_same_way() {
        let rows = crate::rows::rows_of(&json!({}));
        let names =
            ["rate", "connect_rate", "server_cpu", "rss_per_connection", "lost", "failed", "p99", "handshake.p50"];
        for name in names {
            let (pointer, better) = pointer(name).expect(name);
            let row = rows.iter().find(|row| row.pointer == pointer).expect(name);
            assert_eq!(row.better, better, "{name}");
        }
    }

    #[test]
    fn a_wrong_objective_says_what_is_wrong() {
        for (text, why) in [
            ("p98<1ms", "is not one of"),
            ("p99<5", "a time needs"),
            ("lost", "none of"),
            ("lost=x", "unknown unit"),
            ("lost=", "not a number"),
        ] {
            let error = parse(text).expect_err(text);
            assert!(error.contains(why), "{error}");
        }
    }
}
