//! The dashboard, the alerts and the manifests name metrics, labels and their values: each is looked up in a real answer of
//! `/metrics`.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use ringwire::metrics::{Expiry, Metrics, NodesMetrics};

use crate::common::TestServer;
use crate::common::raw::Raw;
use crate::{Scratch, is_installed, json, list, output, place, read, text, yaml};

/// Names of series, and of each its labels with their values.
type Series = BTreeMap<String, BTreeMap<String, BTreeSet<String>>>;

/// What a running server answers.
fn metrics() -> String {
    let server = TestServer::new();
    let mut client = Raw::connect(server.address);
    client.send(b"GET /metrics HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n");
    let response = client.response(false);
    assert_eq!(response.status, 200);
    response.body
}

/// What a server says that has certificates, and other machines.
fn metrics_of_others() -> String {
    let mut metrics = Metrics::default();
    metrics.certificates.shown = vec![Expiry::new("chat.example.org", 0)];
    metrics.nodes = Some(NodesMetrics::default());
    metrics.to_prometheus()
}

fn series() -> Series {
    series_of(&metrics())
}

/// All that alerts may be about.
fn all_series() -> Series {
    series_of(&(metrics() + &metrics_of_others()))
}

fn series_of(told: &str) -> Series {
    let mut series = Series::new();
    for line in told.lines().filter(|line| !line.starts_with('#')) {
        let (name, rest) = line.split_at(line.find(['{', ' ']).expect("a value"));
        let labels = series.entry(name.to_owned()).or_default();
        let inside = rest.strip_prefix('{').and_then(|rest| rest.split_once('}')).map_or("", |(inside, _)| inside);
        for label in inside.split(',').filter(|label| !label.is_empty()) {
            let (label, value) = label.split_once('=').expect("label=value");
            labels.entry(label.to_owned()).or_default().insert(value.trim_matches('"').to_owned());
        }
    }
    series
}

/// The metrics of the program in an expression of Prometheus, each with its selectors: label, operator, value.
fn named(expression: &str) -> Vec<(String, Vec<(String, String)>)> {
    let mut found = Vec::new();
    for (at, _) in expression.match_indices("ringwire_") {
        // Not within a text, such as the name of a job.
        let is_word = expression[..at]
            .chars()
            .next_back()
            .is_none_or(|before| !(before.is_alphanumeric() || before == '_' || before == '"'));
        if !is_word {
            continue;
        }
        let rest = &expression[at..];
        let end =
            rest.find(|it: char| !(it.is_ascii_lowercase() || it == '_' || it.is_ascii_digit())).unwrap_or(rest.len());
        let mut selectors = Vec::new();
        if let Some((inside, _)) = rest[end..].strip_prefix('{').and_then(|inside| inside.split_once('}')) {
            for selector in inside.split(',').map(str::trim).filter(|it| !it.is_empty()) {
                let (label, value) = selector.split_once('=').expect("label=value");
                selectors.push((
                    label.trim_end_matches('!').to_owned(),
                    value.trim_start_matches('~').trim_matches('"').to_owned(),
                ));
            }
        }
        found.push((rest[..end].to_owned(), selectors));
    }
    found
}

/// Labels that Prometheus gives whatever it scrapes.
const GIVEN: [&str; 4] = ["job", "instance", "namespace", "pod"];

fn check(place: &str, expression: &str, series: &Series) -> usize {
    let named = named(expression);
    for (name, selectors) in &named {
        let labels = series.get(name).unwrap_or_else(|| panic!("{place}: there is no metric {name}: {expression}"));
        for (label, values) in selectors.iter().filter(|(label, _)| !GIVEN.contains(&label.as_str())) {
            let known =
                labels.get(label).unwrap_or_else(|| panic!("{place}: {name} has no label {label}: {expression}"));
            for value in values.split('|') {
                assert!(known.contains(value), "{place}: {name} has no {label}={value}: {expression}");
            }
        }
        // What is summed by is a label of what is summed; an expression has one kind of them.
        for by in expression.split("by (").skip(1).filter_map(|rest| rest.split_once(')')).map(|(labels, _)| labels) {
            for label in by.split(", ").filter(|label| !GIVEN.contains(label)) {
                let has_it =
                    |(name, _): &(String, _)| series.get(name).is_some_and(|labels| labels.contains_key(label));
                assert!(named.iter().any(has_it), "{place}: nothing has the label {label}: {expression}");
            }
        }
    }
    named.len()
}

#[test]
fn the_dashboard_shows_metrics_that_there_are() {
    let (series, dashboard) = (series(), json("deploy/grafana.json"));
    let panels = dashboard["panels"].as_array().expect("panels");
    let mut shown = BTreeSet::new();
    for panel in panels {
        let title = panel["title"].as_str().expect("a title");
        if panel["type"] == "row" {
            continue;
        }
        assert!(panel["description"].as_str().is_some_and(|it| it.ends_with('.') || it.ends_with(')')), "{title}");
        assert_eq!(panel["datasource"]["uid"], "${datasource}", "{title}");
        let targets = panel["targets"].as_array().expect("queries");
        assert!(!targets.is_empty(), "{title}");
        for target in targets {
            let expression = target["expr"].as_str().expect("an expression");
            assert!(check(title, expression, &series) > 0, "{title}: {expression}");
            assert_eq!(expression.matches("job=~\"$job\"").count(), named(expression).len(), "{title}: {expression}");
            shown.extend(named(expression).into_iter().map(|(name, _)| name));
        }
    }
    for variable in dashboard["templating"]["list"].as_array().expect("variables") {
        if let Some(query) = variable["query"]["query"].as_str() {
            assert_eq!(check("a variable", query, &series), 1);
        }
    }
    // Kills: a metric that is added, and shown to nobody. Those without a place: how they are made says nothing of its own.
    const UNSHOWN: [&str; 10] = [
        "ringwire_bells_total",
        "ringwire_cores",
        "ringwire_handler_seconds_count",
        "ringwire_letters_total",
        "ringwire_memory_shed_bytes_total",
        "ringwire_out_of_step",
        "ringwire_stream_resets_total",
        "ringwire_ticks_total",
        "ringwire_connections_accepted_total",
        "ringwire_websockets_closed_total",
    ];
    let missing: Vec<_> =
        series.keys().filter(|name| !shown.contains(*name) && !UNSHOWN.contains(&name.as_str())).collect();
    assert!(missing.is_empty(), "no panel shows {missing:?}");
}

#[test]
fn alerts_are_about_metrics_that_there_are() {
    let series = all_series();
    let documents = yaml("deploy/alerts.yaml");
    let mut names = BTreeSet::new();
    for group in list(&documents[0]["groups"]) {
        for rule in list(&group["rules"]) {
            let name = text(&rule["alert"]);
            assert!(names.insert(name) && name.starts_with("Ringwire"), "{name}");
            let expression = text(&rule["expr"]);
            let count = check(name, expression, &series);
            assert!(count > 0 || expression.starts_with("up{"), "{name}: {expression}");
            for field in ["summary", "description"] {
                // What they show of an alert is there to be shown.
                let shown = text(&rule["annotations"][field]);
                check(name, shown, &series);
                for label in
                    shown.split("$labels.").skip(1).filter_map(|rest| rest.split_once(' ')).map(|(label, _)| label)
                {
                    let mut sums = expression.split("by (").skip(1).filter_map(|rest| rest.split_once(')')).peekable();
                    let is_kept = sums.peek().is_none() || sums.any(|(kept, _)| kept.split(", ").any(|it| it == label));
                    assert!(is_kept, "{name}: {expression} has no {label}");
                }
            }
            assert!(["critical", "warning"].contains(&text(&rule["labels"]["severity"])), "{name}");
        }
    }
    assert!(names.len() >= 10);
    // What README calls worth an alert has one.
    let readme = read("README.md");
    let worth =
        readme.split_once("Worth an alert: ").and_then(|(_, rest)| rest.split_once("\n\n")).expect("a paragraph").0;
    for (name, _) in named(worth).iter().filter(|(name, _)| !name.ends_with("_longest_seconds")) {
        assert!(read("deploy/alerts.yaml").contains(name), "{name}");
    }
}

/// What the tests of the alerts make up is what the program tells, and each alert is tried, where it fires and where it does not.
///
/// Kills: an alert that is added and never tried, and one that is tried with series that there are not.
#[test]
fn alerts_are_tried_with_series_that_there_are() {
    let series = all_series();
    let (alerts, trials) = (&yaml("deploy/alerts.yaml")[0], &yaml("tests/deploy/alerts.yaml")[0]);
    let mut tried: BTreeMap<&str, BTreeSet<bool>> = BTreeMap::new();
    for trial in list(&trials["tests"]) {
        for input in list(&trial["input_series"]) {
            let made_up = text(&input["series"]);
            if !made_up.starts_with("up{") {
                assert_eq!(check(text(&trial["name"]), made_up, &series), 1, "{made_up}");
                // Whatever the program tells it with is there.
                let name = made_up.split('{').next().expect("a name");
                for label in series[name].keys() {
                    assert!(made_up.contains(&format!("{label}=")), "{made_up} has no {label}");
                }
            }
        }
        for case in list(&trial["alert_rule_test"]) {
            let fires = !list(&case["exp_alerts"]).is_empty();
            tried.entry(text(&case["alertname"])).or_default().insert(fires);
        }
    }
    let rules = list(&alerts["groups"]).iter().flat_map(|group| list(&group["rules"]));
    let names: BTreeSet<&str> = rules.map(|rule| text(&rule["alert"])).collect();
    assert_eq!(names, tried.keys().copied().collect());
    for (name, outcomes) in tried {
        assert_eq!(outcomes.len(), 2, "{name} is tried where it fires, and where it does not");
    }
}

/// Kills: an alert that cannot fire with what the program tells, or fires when all is well.
#[test]
fn alerts_fire_when_they_should() {
    if is_installed("promtool") {
        output(Command::new("promtool").args(["test", "rules"]).arg(place("tests/deploy/alerts.yaml")));
    }
}

#[test]
fn prometheus_takes_the_guide_s_configuration() {
    if is_installed("promtool") {
        let guide = read("deploy/README.md");
        let scrapes =
            guide.split("```yaml\n").skip(1).find(|part| part.starts_with("rule_files")).expect("a configuration");
        let scratch = Scratch::new("prometheus");
        scratch.file("alerts.yaml", read("deploy/alerts.yaml"));
        let token = scratch.file("ringwire-token", "a-token");
        let scrapes = scrapes
            .split("```")
            .next()
            .expect("an end")
            .replace("/etc/prometheus/ringwire-token", &token.display().to_string());
        let file = scratch.file("prometheus.yml", scrapes);
        output(Command::new("promtool").args(["check", "config"]).arg(file));
    }
}

#[test]
fn prometheus_takes_the_alerts() {
    if is_installed("promtool") {
        output(Command::new("promtool").args(["check", "rules"]).arg(place("deploy/alerts.yaml")));
        // And the queries of the dashboard, with its variables filled in, as rules.
        let mut rules = String::from("groups: [{name: dashboard, rules: [\n");
        for panel in json("deploy/grafana.json")["panels"].as_array().expect("panels") {
            for target in panel["targets"].as_array().into_iter().flatten() {
                let expression = target["expr"].as_str().expect("an expression").replace("$__rate_interval", "5m");
                rules += &format!("{{record: a, expr: {}}},\n", serde_json::Value::from(expression));
            }
        }
        let scratch = Scratch::new("promtool");
        let file = scratch.file("rules.yaml", rules + "]}]\n");
        output(Command::new("promtool").args(["check", "rules", "--lint=none"]).arg(file));
    }
}

#[test]
fn kubernetes_scales_by_a_metric_that_there_is() {
    let series = series();
    let documents = yaml("deploy/kubernetes.yaml");
    let scaler =
        documents.iter().find(|document| document["kind"].as_str() == Some("HorizontalPodAutoscaler")).expect("one");
    let names = list(&scaler["spec"]["metrics"]).iter().filter_map(|metric| metric["pods"]["metric"]["name"].as_str());
    let names: Vec<&str> = names.collect();
    assert_eq!(names.len(), 1);
    assert!(series.contains_key(names[0]), "{names:?}");
    // The guide has the rule for the adapter that offers it.
    let guide = read("deploy/README.md");
    assert!(guide.contains(&format!("seriesQuery: '{}{{", names[0])), "{names:?}");
}
