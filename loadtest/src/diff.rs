//! Two runs side by side.

use serde_json::Value;

use crate::{
    report::{QUANTILES, TIMES},
    words::{bytes_text, time_text},
};

#[derive(Clone, Copy)]
enum Better {
    Less,
    More,
}

/// A figure: its name, its place in the JSON, which way is better, and how it is written.
type Row = (String, String, Better, fn(f64) -> String);

/// Differences of fewer percent say nothing.
const NOISE_PERCENT: f64 = 5.0;

/// A table of what both runs have, with the change in percent.
pub(crate) fn table(a: &Value, b: &Value) -> String {
    let mut rows: Vec<Row> = vec![
        ("messages/s".into(), "/messages_per_s".into(), Better::More, |value| format!("{value:.0}")),
        ("connections/s".into(), "/connections/per_s".into(), Better::More, |value| format!("{value:.0}")),
    ];
    for (key, name) in TIMES {
        for time in QUANTILES.iter().map(|quantile| quantile.0).chain(["max"]) {
            rows.push((format!("{} {time}", name.trim()), format!("/{key}/{time}"), Better::Less, time_text));
        }
    }
    for side in ["server", "client"] {
        rows.push((format!("{side} CPU/message"), format!("/{side}/cpu_us_per_message"), Better::Less, |us| {
            format!("{us:.3} us")
        }));
    }
    rows.push(("server CPU/connection".into(), "/server/cpu_us_per_connection".into(), Better::Less, time_text));
    rows.push(("server memory/connection".into(), "/server/rss_bytes_per_connection".into(), Better::Less, bytes_text));
    for check in ["lost", "duplicated", "reordered", "corrupted", "unexpected"] {
        rows.push((check.into(), format!("/checks/{check}"), Better::Less, |value| format!("{value:.0}")));
    }
    rows.push(("failed connections".into(), "/connections/failed".into(), Better::Less, |value| format!("{value:.0}")));

    let mut text = format!("{:<26} {:>14} {:>14} {:>10}\n", "", "A", "B", "change");
    for (name, pointer, better, unit) in rows {
        let value = |figures: &Value| figures.pointer(&pointer).and_then(Value::as_f64);
        let (Some(before), Some(after)) = (value(a), value(b)) else { continue };
        let change = (after - before) / before * 100.0;
        let told = match before == after {
            true => "=".to_owned(),
            false if before == 0.0 => "new".to_owned(),
            false => format!("{change:+.1} %"),
        };
        let verdict = match better {
            _ if before == after || (before != 0.0 && change.abs() < NOISE_PERCENT) => "",
            Better::Less if after < before => "better",
            Better::More if after > before => "better",
            _ => "worse",
        };
        text += format!("{name:<26} {:>14} {:>14} {told:>10} {verdict}", unit(before), unit(after)).trim_end();
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn changes_beyond_the_noise_are_judged() {
        let run = |rate: f64, p99: f64, lost: u64| json!({"messages_per_s": rate, "latency_us": {"p99": p99}, "checks": {"lost": lost}});
        let text = table(&run(1000.0, 100.0, 0), &run(1020.0, 150.0, 3));
        let line = |name: &str| text.lines().find(|line| line.starts_with(name)).unwrap_or_default().to_owned();
        assert!(line("messages/s").ends_with("+2.0 %"), "{text}");
        assert!(line("latency p99").ends_with("+50.0 % worse"), "{text}");
        assert!(line("lost").ends_with("new worse"), "{text}");
        assert!(!text.contains("spread"), "{text}");
    }
}
