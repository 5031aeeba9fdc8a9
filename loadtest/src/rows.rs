//! The figures that runs are compared by: where they are in a report, which way is better, and how they are written.

use hdrhistogram::Histogram;
use serde_json::{Map, Value, json};

use crate::words::{bytes_text, time_text};

/// The percentiles that are told.
pub(crate) const QUANTILES: [(&str, f64); 5] =
    [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999), ("p99.99", 0.9999)];

/// The latencies that figures may have: key and what to call it.
pub(crate) const TIMES: [(&str, &str); 10] = [
    ("latency_us", "latency"),
    ("uncorrected_us", "  uncorrected"),
    ("spread_us", "first to last"),
    ("before_stall_us", "before stall"),
    ("while_stalled_us", "while stalled"),
    ("http_us", "HTTP response"),
    ("ping_us", "ping to pong"),
    ("handshake_us", "handshake"),
    ("tls_handshake_us", "TLS handshake"),
    ("lag_us", "generator lag"),
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Better {
    Less,
    More,
}

/// See the module.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    pub(crate) name: String,
    /// JSON pointer.
    pub(crate) pointer: String,
    pub(crate) better: Better,
    pub(crate) unit: fn(f64) -> String,
    /// What went wrong is added up over several rounds; everything else has a median.
    pub(crate) is_count: bool,
}

impl Row {
    /// Its value in a report.
    pub(crate) fn value(&self, figures: &Value) -> Option<f64> {
        figures.pointer(&self.pointer).and_then(Value::as_f64)
    }

    /// The lowest and the highest over a report's rounds, where it has several.
    pub(crate) fn range(&self, figures: &Value) -> Option<(f64, f64)> {
        let range = &figures["ranges"][&self.pointer];
        Some((range[0].as_f64()?, range[1].as_f64()?))
    }
}

/// Percentiles of a histogram of nanoseconds, in microseconds.
pub(crate) fn percentiles(histogram: &Histogram<u64>) -> Value {
    let mut figures = Map::new();
    for (name, quantile) in QUANTILES {
        figures.insert(name.to_owned(), json!(histogram.value_at_quantile(quantile) as f64 / 1e3));
    }
    figures.insert("max".to_owned(), json!(histogram.max() as f64 / 1e3));
    figures.insert("mean".to_owned(), json!(histogram.mean() / 1e3));
    figures.insert("count".to_owned(), json!(histogram.len()));
    Value::Object(figures)
}

/// All that a report has, those of its agents included.
pub(crate) fn rows_of(figures: &Value) -> Vec<Row> {
    let mut all = rows();
    for (place, agent) in figures["agents"].as_array().into_iter().flatten().enumerate() {
        let name = agent["agent"].as_str().unwrap_or_default();
        let row = |what: &str, pointer: &str, better, unit| Row {
            name: format!("{name} {what}"),
            pointer: format!("/agents/{place}{pointer}"),
            better,
            unit,
            is_count: false,
        };
        all.push(row("messages/s", "/messages_per_s", Better::More, |value| format!("{value:.0}")));
        all.push(row("p50", "/latency_us/p50", Better::Less, time_text));
        all.push(row("p99", "/latency_us/p99", Better::Less, time_text));
        all.push(row("lag p99", "/lag_us/p99", Better::Less, time_text));
        let problems = row("problems", "/problem_count", Better::Less, |value| format!("{value:.0}"));
        all.push(Row { is_count: true, ..problems });
    }
    all
}

/// All that a report may have, beside those of its agents.
pub(crate) fn rows() -> Vec<Row> {
    let row = |name: String, pointer: String, better, unit| Row { name, pointer, better, unit, is_count: false };
    let whole = |value: f64| format!("{value:.0}");
    let mut rows = vec![
        row("messages/s".into(), "/messages_per_s".into(), Better::More, whole),
        row("connections/s".into(), "/connections/per_s".into(), Better::More, whole),
    ];
    for (key, name) in TIMES {
        for time in QUANTILES.iter().map(|quantile| quantile.0).chain(["max"]) {
            rows.push(row(format!("{} {time}", name.trim()), format!("/{key}/{time}"), Better::Less, time_text));
        }
    }
    for side in ["server", "client"] {
        let pointer = format!("/{side}/cpu_us_per_message");
        rows.push(row(format!("{side} CPU/message"), pointer, Better::Less, |us| format!("{us:.3} us")));
    }
    let server = |key: &str| format!("/server/{key}");
    rows.push(row("server CPU/connection".into(), server("cpu_us_per_connection"), Better::Less, time_text));
    rows.push(row("server memory/connection".into(), server("rss_bytes_per_connection"), Better::Less, bytes_text));
    for way in ["sent", "received"] {
        let pointer = format!("/deflate/{way}/ratio");
        rows.push(row(format!("deflate {way}"), pointer, Better::More, |ratio| format!("{ratio:.2} to 1")));
    }
    for check in ["lost", "duplicated", "reordered", "corrupted", "unexpected"] {
        rows.push(Row { is_count: true, ..row(check.into(), format!("/checks/{check}"), Better::Less, whole) });
    }
    let failed = row("failed connections".into(), "/connections/failed".into(), Better::Less, whole);
    rows.push(Row { is_count: true, ..failed });
    rows.push(Row { is_count: true, ..row("problems".into(), "/problem_count".into(), Better::Less, whole) });
    rows
}
