//! Whether two reports can be held against each other: that they are reports, of one scenario, made with the same settings and in the
//! same place.

use std::{fs, path::Path};

use ringwire::quote::quoted;
use serde_json::Value;

/// A key, and whether what stands there is of its kind.
type Part = (&'static str, fn(&Value) -> bool);

/// What a report has at least.
const PARTS: [Part; 6] = [
    ("tool", Value::is_string),
    ("scenario", Value::is_string),
    ("connections", Value::is_object),
    ("messages_per_s", Value::is_number),
    ("checks", Value::is_object),
    ("problem_count", Value::is_u64),
];

/// What is another in two reports of the same scenario.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Unlike {
    /// Settings: what is measured is not the same, so that no limit can be judged.
    pub(crate) settings: Vec<String>,
    /// What else is to be known where figures differ.
    pub(crate) notes: Vec<String>,
}

/// Reads a report.
///
/// # Errors
/// If the file cannot be read, or is none; it is named.
pub(crate) fn read(path: &Path) -> Result<Value, String> {
    let told = |why: String| format!("{}: {why}", path.display());
    let text = fs::read(path).map_err(|error| told(error.to_string()))?;
    let figures: Value =
        serde_json::from_slice(&text).map_err(|error| told(format!("no report of --json: it is no JSON: {error}")))?;
    let is_missing = |part: &&Part| !figures.get(part.0).is_some_and(part.1);
    let missing: Vec<&str> = PARTS.iter().filter(is_missing).map(|part| part.0).collect();
    match missing.is_empty() {
        true => Ok(figures),
        false => Err(told(format!("no report of --json: it has no {}", missing.join(", no ")))),
    }
}

/// Compares what two reports say of their runs.
///
/// # Errors
/// If they are of two scenarios.
pub(crate) fn compare(a: &Value, b: &Value) -> Result<Unlike, String> {
    let scenario = |figures: &Value| figures["scenario"].as_str().unwrap_or_default().to_owned();
    if scenario(a) != scenario(b) {
        return Err(format!(
            "A is of {}, B of {}: they cannot be compared",
            quoted(&scenario(a)),
            quoted(&scenario(b))
        ));
    }
    let mut unlike = Unlike { settings: settings(a, b), notes: Vec::new() };
    for (what, pointer) in [
        ("tool", "/tool"),
        ("processors", "/machine/processors"),
        ("processor", "/machine/processor"),
        ("kernel", "/machine/kernel"),
    ] {
        unlike.notes.extend(difference(what, a.pointer(pointer), b.pointer(pointer)));
    }
    for (name, figures) in [("A", a), ("B", b)] {
        if !figures["settings"].is_object() {
            unlike.notes.push(format!("{name} does not say its settings, as an older version made it"));
        }
    }
    // What stands in the same place is held against each other: it should be the same machine.
    let names = |figures: &Value| -> Vec<Value> {
        figures["agents"].as_array().into_iter().flatten().map(|agent| agent["agent"].clone()).collect()
    };
    if names(a) != names(b) {
        unlike.notes.push("A and B were not made by the same agents".to_owned());
    }
    for (name, figures) in [("A", a), ("B", b)] {
        if figures["host"]["disturbed"] == true {
            unlike.notes.push(format!("{name} was disturbed: see its warnings"));
        }
    }
    Ok(unlike)
}

/// The settings that differ, in words.
fn settings(a: &Value, b: &Value) -> Vec<String> {
    let none = serde_json::Map::new();
    let of = |figures| Value::as_object(figures).unwrap_or(&none);
    let (a_settings, b_settings) = (of(&a["settings"]), of(&b["settings"]));
    let mut all = Vec::new();
    if a_settings.is_empty() || b_settings.is_empty() {
        for (what, pointer) in [("connections", "/connections/wanted"), ("rate", "/rate")] {
            all.extend(difference(what, a.pointer(pointer), b.pointer(pointer)));
        }
    } else {
        let only_b = b_settings.keys().filter(|name| !a_settings.contains_key(*name));
        for name in a_settings.keys().chain(only_b) {
            all.extend(difference(&name.replace('_', "-"), a_settings.get(name), b_settings.get(name)));
        }
    }
    // Whatever is counted is of all rounds together.
    let rounds = |figures: &Value| figures["rounds"].as_u64().unwrap_or(1).into();
    all.extend(difference("rounds", Some(&rounds(a)), Some(&rounds(b))));
    let schemes = |figures: &Value| -> Value {
        let urls = figures["url"].as_str().unwrap_or_default().split(", ");
        urls.map(|url| url.split("://").next().unwrap_or_default()).collect::<Vec<_>>().join(", ").into()
    };
    all.extend(difference("URL", Some(&schemes(a)), Some(&schemes(b))));
    all
}

fn difference(what: &str, a: Option<&Value>, b: Option<&Value>) -> Option<String> {
    let text = |value: Option<&Value>| match value {
        None | Some(Value::Null) => "none".to_owned(),
        Some(Value::String(text)) => text.clone(),
        Some(value) => value.to_string(),
    };
    let (a, b) = (text(a), text(b));
    (a != b).then(|| format!("{what} {a} -> {b}"))
}

impl Unlike {
    /// All of it, as lines to be read before the figures.
    pub(crate) fn lines(&self) -> Vec<String> {
        let settings = (!self.settings.is_empty()).then(|| format!("not like for like: {}", self.settings.join(", ")));
        settings.into_iter().chain(self.notes.iter().cloned()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn report() -> Value {
        json!({
            "tool": "ringwire-loadtest 0.1.0", "scenario": "echo", "url": "ws://a:1/x", "rate": null,
            "connections": {"wanted": 64}, "machine": {"processors": 2, "processor": "x", "kernel": "6.1"},
            "settings": {"connections": "64", "size": "64", "duration": "5s"},
            "messages_per_s": 5.0, "checks": {"lost": 0}, "problem_count": 0,
        })
    }

    /// Kills: two runs of different settings that are compared without a word.
    #[test]
    fn what_is_not_alike_is_told() {
        let with = |pointer: &str, value: Value| {
            let mut changed = report();
            let (table, key) = pointer.rsplit_once('/').expect("a pointer");
            changed.pointer_mut(table).expect("a table")[key] = value;
            changed
        };
        let rows = [
            ("/url", json!("ws://b:2/x"), "", ""),
            ("/rounds", json!(3), "rounds 1 -> 3", ""),
            ("/rounds", json!(1), "", ""),
            ("/settings/connections", json!("128"), "connections 64 -> 128", ""),
            ("/settings/deflate_min", json!("1KiB"), "deflate-min none -> 1KiB", ""),
            ("/url", json!("wss://a:1/x"), "URL ws -> wss", ""),
            ("/url", json!("ws://a:1/x, ws://b:1/x"), "URL ws -> ws, ws", ""),
            ("/machine/processor", json!("y"), "", "processor x -> y"),
            ("/tool", json!("ringwire-loadtest 0.2.0"), "", "0.1.0 -> ringwire-loadtest 0.2.0"),
            ("/agents", json!([{"agent": "a:1"}]), "", "not made by the same agents"),
            ("/host", json!({"disturbed": true}), "", "B was disturbed"),
            ("/settings", Value::Null, "", "B does not say its settings"),
        ];
        for (pointer, value, settings, note) in rows {
            let unlike = compare(&report(), &with(pointer, value.clone())).expect("one scenario");
            assert_eq!(unlike.settings.join(";"), settings, "{pointer} {value}");
            assert!(unlike.notes.join(";").contains(note) && unlike.notes.is_empty() == note.is_empty(), "{unlike:?}");
        }
        let mut old = with("/settings", Value::Null);
        old["connections"]["wanted"] = json!(9);
        let unlike = compare(&report(), &old).expect("one scenario");
        assert_eq!(unlike.lines()[0], "not like for like: connections 64 -> 9");
        let error = compare(&report(), &with("/scenario", json!("rooms"))).expect_err("two scenarios");
        assert_eq!(error, "A is of \"echo\", B of \"rooms\": they cannot be compared");
    }

    #[test]
    fn what_is_no_report_is_named_with_what_it_lacks() {
        let path = std::env::temp_dir().join(format!("loadtest-like-{}.json", std::process::id()));
        let rows = [
            ("", "no report of --json: it is no JSON"),
            ("5", "it has no tool, no scenario, no connections"),
            ("{}", "it has no tool, no scenario, no connections, no messages_per_s, no checks, no problem_count"),
            (&report().to_string().replace("\"checks\"", "\"ckecks\""), "no report of --json: it has no checks"),
            (&report().to_string().replace("5.0", "\"x\""), "it has no messages_per_s"),
        ];
        for (text, why) in rows {
            fs::write(&path, text).expect("ours");
            let error = read(&path).expect_err(text);
            assert!(error.starts_with(&path.display().to_string()) && error.contains(why), "{error}");
        }
        fs::write(&path, report().to_string()).expect("ours");
        assert_eq!(read(&path), Ok(report()));
        fs::remove_file(&path).expect("ours");
        assert!(read(&path).is_err_and(|error| error.contains("No such file")));
    }
}
