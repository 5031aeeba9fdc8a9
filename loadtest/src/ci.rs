//! Reports for what runs tests: JUnit's XML, and Markdown as GitHub shows it in the summary of a job.

use std::fmt::Write as _;

use serde_json::Value;

use crate::{
    agents,
    problems::{Problem, Problems},
    rows::rows_of,
    words::grouped,
};

/// One thing that was to be so.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Case {
    pub(crate) name: String,
    /// Why it is not so.
    pub(crate) failure: Option<String>,
}

/// What a run's report is judged by: its checks, its connections, its objectives.
pub(crate) fn cases(figures: &Value) -> Vec<Case> {
    let mut cases = Vec::new();
    let problems = Problems::read(figures);
    let case = |cases: &mut Vec<Case>, name: String, what: Problem, unit: &str| {
        let count = problems.count(what);
        let failure = (count > 0).then(|| format!("{count} {unit}; {}", problems.line_of(what)));
        cases.push(Case { name, failure });
    };
    for check in Problem::CHECKS {
        case(&mut cases, format!("no message {}", check.key()), check, "messages");
    }
    case(&mut cases, "no connection failed".to_owned(), Problem::Failed, "connections");
    case(&mut cases, "no connection silent at the end".to_owned(), Problem::Silent, "connections");
    if figures["rounds_asked"].is_u64() {
        let failure = (problems.count(Problem::RoundMissing) > 0).then(|| problems.line_of(Problem::RoundMissing));
        cases.push(Case { name: "no round missing".to_owned(), failure });
    }
    for agent in figures["agents"].as_array().into_iter().flatten() {
        let failure = agent["lost"].as_str().map(str::to_owned);
        cases.push(Case { name: format!("agent {}", agent["agent"].as_str().unwrap_or_default()), failure });
    }
    for rule in figures["slo"].as_array().into_iter().flatten() {
        let text = |key: &str| rule[key].as_str().unwrap_or_default().to_owned();
        let failure = (rule["met"] != true).then(|| format!("it is {}", text("value")));
        cases.push(Case { name: format!("objective {}", text("rule")), failure });
    }
    cases
}

/// What is to be known beside a run's figures.
pub(crate) fn warnings(figures: &Value) -> Vec<String> {
    figures["warnings"].as_array().into_iter().flatten().filter_map(|text| text.as_str().map(str::to_owned)).collect()
}

/// A suite of them as JUnit's XML, and what else is to be said.
pub(crate) fn junit(suite: &str, seconds: f64, cases: &[Case], notes: &[String]) -> String {
    let failures = cases.iter().filter(|case| case.failure.is_some()).count();
    let mut xml = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites>\n  <testsuite name=\"{}\" tests=\"{}\" \
         failures=\"{failures}\" errors=\"0\" skipped=\"0\" time=\"{seconds:.3}\">\n",
        escape(suite),
        cases.len()
    );
    for case in cases {
        let _ = write!(xml, "    <testcase classname=\"{}\" name=\"{}\"", escape(suite), escape(&case.name));
        let _ = match &case.failure {
            None => writeln!(xml, "/>"),
            Some(why) => writeln!(xml, "><failure message=\"{}\"/></testcase>", escape(why)),
        };
    }
    if !notes.is_empty() {
        let notes: Vec<String> = notes.iter().map(|note| escape(note)).collect();
        let _ = writeln!(xml, "    <system-out>{}</system-out>", notes.join("\n"));
    }
    xml += "  </testsuite>\n</testsuites>\n";
    xml
}

/// For text and attributes of XML 1.0, which knows no control characters.
fn escape(text: &str) -> String {
    let mut escaped = String::new();
    for char in text.chars() {
        match char {
            '&' => escaped += "&amp;",
            '<' => escaped += "&lt;",
            '>' => escaped += "&gt;",
            '"' => escaped += "&quot;",
            '\t' | '\n' | '\r' => escaped.push(' '),
            char if char.is_control() || matches!(char, '\u{fffe}' | '\u{ffff}') => escaped.push('\u{fffd}'),
            char => escaped.push(char),
        }
    }
    escaped
}

/// A run as Markdown.
pub(crate) fn markdown(figures: &Value) -> String {
    let text = |key: &str| figures[key].as_str().unwrap_or_default();
    let passed = if figures["passed"] == true { "✅ passed" } else { "❌ failed" };
    let mut out = format!("### Load test: {} {} {passed}\n\n", text("scenario"), code(text("url")));
    let has_ranges = figures["ranges"].is_object();
    out += if has_ranges { "| | median | range |\n| --- | ---: | ---: |\n" } else { "| | |\n| --- | ---: |\n" };
    for row in rows_of(figures) {
        let Some(value) = row.value(figures).filter(|value| !row.is_count || *value > 0.0) else { continue };
        // Of the times, those that people look at.
        if [" p90", " p99.9", " p99.99"].iter().any(|end| row.name.ends_with(end)) {
            continue;
        }
        let range = row.range(figures).map(|(low, high)| format!("{} .. {}", (row.unit)(low), (row.unit)(high)));
        let _ = match has_ranges {
            true => writeln!(out, "| {} | {} | {} |", row.name, (row.unit)(value), range.unwrap_or_default()),
            false => writeln!(out, "| {} | {} |", row.name, (row.unit)(value)),
        };
    }
    for agent in figures["agents"].as_array().into_iter().flatten() {
        let _ = write!(out, "\n- agent {}", plain(&agents::text(agent)));
    }
    out.push('\n');
    let _ = writeln!(out, "\n{} problems.", grouped(figures["problem_count"].as_u64().unwrap_or_default()));
    out += &markdown_cases(&cases(figures));
    out += &markdown_notes(&warnings(figures));
    out.push('\n');
    out
}

/// Those that failed, as a list.
pub(crate) fn markdown_cases(cases: &[Case]) -> String {
    let mut out = String::new();
    for case in cases {
        if let Some(why) = &case.failure {
            let _ = write!(out, "\n- ❌ {}: {}", plain(&case.name), plain(why));
        }
    }
    if !out.is_empty() {
        out.push('\n');
    }
    out
}

/// What is to be known beside the figures.
fn markdown_notes(notes: &[String]) -> String {
    notes.iter().map(|note| format!("\n> ⚠️ {}\n", plain(note))).collect()
}

/// Two reports side by side as Markdown.
pub(crate) fn markdown_diff(table: &str, cases: &[Case], notes: &[String]) -> String {
    format!(
        "### Load test: comparison\n{}\n```text\n{}```\n{}\n",
        markdown_notes(notes),
        table.replace("```", ""),
        markdown_cases(cases)
    )
}

fn code(text: &str) -> String {
    format!("`{}`", text.replace('`', ""))
}

/// Text without what Markdown or HTML would make something of.
fn plain(text: &str) -> String {
    text.chars()
        .flat_map(|char| {
            let is_markup = "\\`*_[]<>|#&".contains(char);
            is_markup.then_some('\\').into_iter().chain([if char.is_control() { ' ' } else { char }])
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn figures() -> Value {
        let mut figures = json!({
            "scenario": "echo", "url": "ws://x/`<b>", "passed": false, "messages_per_s": 1234.0,
            "latency_us": {"p50": 10.0, "p90": 11.0, "p99": 20.0}, "warnings": ["disturbed: a|b"],
            "slo": [{"rule": "p99<5us", "value": "20.0 us", "met": false}, {"rule": "lost=0", "value": "0", "met": true}],
        });
        let mut problems = Problems::default();
        problems.note(Problem::Lost, 2, || "connection 0: \"<x>\" & \u{1}".to_owned());
        problems.note(Problem::Failed, 1, || "connection 1: reset".to_owned());
        problems.note(Problem::Silent, 1, || "connection 2: no end".to_owned());
        problems.fill(&mut figures);
        figures
    }

    #[test]
    fn each_check_and_objective_is_a_case() {
        let cases = cases(&figures());
        let told: Vec<(&str, bool)> = cases.iter().map(|case| (case.name.as_str(), case.failure.is_some())).collect();
        let expected = [
            ("no message lost", true),
            ("no message duplicated", false),
            ("no message reordered", false),
            ("no message corrupted", false),
            ("no message unexpected", false),
            ("no connection failed", true),
            ("no connection silent at the end", true),
            ("objective p99<5us", true),
            ("objective lost=0", false),
        ];
        assert_eq!(told, expected);
    }

    /// Kills: a run that fails by its missing rounds while every case passes.
    #[test]
    fn rounds_that_are_missing_are_a_case() {
        let name = |case: &Case| case.name == "no round missing";
        assert!(!cases(&figures()).iter().any(name));
        let mut several = figures();
        several["rounds_asked"] = json!(3);
        let failure = |figures: &Value| cases(figures).into_iter().find(name).expect("a case").failure;
        assert_eq!(failure(&several), None);
        let mut problems = Problems::default();
        problems.note(Problem::RoundMissing, 2, || "1 of 3 rounds was made: refused".to_owned());
        problems.fill(&mut several);
        assert_eq!(failure(&several).as_deref(), Some("1 of 3 rounds was made: refused"));
    }

    /// Kills: a report for machines that says nothing of an agent that is gone.
    #[test]
    fn agents_are_cases_and_lines() {
        let mut figures = figures();
        figures["agents"] = json!([
            {"agent": "a:1", "lost": null, "messages": 5, "messages_per_s": 5.0, "latency_us": {"p50": 1.0, "p99": 2.0}},
            {"agent": "b:2", "lost": "it ended | so"},
        ]);
        let cases = cases(&figures);
        let of = |name: &str| cases.iter().find(|case| case.name == name).expect("a case").failure.clone();
        assert_eq!((of("agent a:1"), of("agent b:2")), (None, Some("it ended | so".to_owned())));
        // Each is told what is known of it, and nothing else.
        assert_eq!(of("no connection failed"), Some("1 connections; connection 1: reset".to_owned()));
        let text = markdown(&figures);
        for part in ["- agent a:1: ", "- agent b:2: LOST: it ended \\| so", "| a:1 messages/s | 5 |"] {
            assert!(text.contains(part), "{part} is not in {text}");
        }
    }

    #[test]
    fn xml_is_well_formed_whatever_a_server_says() {
        let xml = junit("echo", 1.5, &cases(&figures()), &warnings(&figures()));
        assert!(xml.contains("tests=\"9\" failures=\"4\"") && xml.contains("time=\"1.500\""), "{xml}");
        assert!(xml.contains("&quot;&lt;x&gt;&quot; &amp; \u{fffd}") && !xml.contains('\u{1}'), "{xml}");
        assert!(xml.contains("<system-out>disturbed: a|b</system-out>"), "{xml}");
        // Every element is closed.
        assert_eq!(
            xml.matches("<testcase").count(),
            xml.matches("/>").count() - xml.matches("<failure").count() + xml.matches("</testcase>").count()
        );
    }

    #[test]
    fn markdown_shows_the_figures_and_what_failed() {
        let text = markdown(&figures());
        for part in
            ["| latency p99 | 20.0 us |", "❌ failed", "`ws://x/<b>`", "- ❌ no message lost", "\\<x\\>", "a\\|b"]
        {
            assert!(text.contains(part), "{part} is not in {text}");
        }
        assert!(!text.contains("p90"), "{text}");
        let mut ranged = figures();
        ranged["ranges"] = json!({"/messages_per_s": [1000.0, 2000.0]});
        assert!(markdown(&ranged).contains("| messages/s | 1234 | 1000 .. 2000 |"));
    }
}
