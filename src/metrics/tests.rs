//! The text against an independent parser of it.

use std::collections::{BTreeMap, BTreeSet};

use prometheus_parse::{Sample, Scrape, Value};

use super::*;

fn parsed(text: &str) -> Scrape {
    Scrape::parse(text.lines().map(|line| Ok(line.to_owned()))).expect("the format")
}

/// Two cores of which much happened on the second.
fn metrics() -> Metrics {
    let mut core =
        CoreMetrics { core: 1, cpu_ns: 2_500_000_000, outbox_bytes: 77, mail_depth: 5, ..CoreMetrics::default() };
    let counters = &mut core.counters;
    counters.accepted = 10;
    counters.released = 4;
    counters.drops.add(DropReason::DropOld, 3);
    counters.closes.add(1000, Side::Peer);
    counters.closes.add(4321, Side::Peer);
    counters.closes.add(1006, Side::Nobody);
    [900, 2_000, 3_000_000, 5_000_000_000].into_iter().for_each(|ns| counters.handling.add(ns));
    let shown = [("a.test", 2_000), ("b \"\\ c", 1_000), ("a.test", 1_500)]
        .map(|(name, at_unix_s)| Expiry::new(name, at_unix_s))
        .to_vec();
    let mut certificates = Certificates { shown, ..Certificates::default() };
    certificates.reloads.add(ReloadResult::Refused, 2);
    let cores = vec![CoreMetrics::default(), core];
    Metrics { cores, cores_all: 2, memory_bytes_max: 4096, certificates, ..Metrics::default() }
}

fn find<'s>(scrape: &'s Scrape, name: &str, labels: &[(&str, &str)]) -> &'s Sample {
    let is_it = |sample: &&Sample| {
        sample.metric == name && labels.iter().all(|(label, value)| sample.labels.get(label) == Some(value))
    };
    let found: Vec<&Sample> = scrape.samples.iter().filter(is_it).collect();
    assert_eq!(found.len(), 1, "{name} {labels:?}");
    found[0]
}

fn number(scrape: &Scrape, name: &str, labels: &[(&str, &str)]) -> f64 {
    match &find(scrape, name, labels).value {
        Value::Counter(value) | Value::Gauge(value) => *value,
        other => panic!("{name} is {other:?}"),
    }
}

#[test]
fn a_parser_reads_what_was_counted() {
    let scrape = parsed(&metrics().to_prometheus());
    assert_eq!(number(&scrape, "ringwire_connections", &[("core", "1")]), 6.0);
    assert_eq!(number(&scrape, "ringwire_connections", &[("core", "0")]), 0.0);
    let dropped = |reason| number(&scrape, "ringwire_messages_dropped_total", &[("core", "1"), ("reason", reason)]);
    assert_eq!((dropped("drop-old"), dropped("drop-new")), (3.0, 0.0));
    let closed =
        |code, by| number(&scrape, "ringwire_websockets_closed_total", &[("core", "1"), ("code", code), ("by", by)]);
    assert_eq!(["1000", "other", "1001"].map(|code| closed(code, "peer")), [1.0, 1.0, 0.0]);
    assert_eq!((closed("1006", "none"), closed("1000", "local")), (1.0, 0.0));
    assert_eq!(number(&scrape, "ringwire_outbox_bytes", &[("core", "1")]), 77.0);
    assert_eq!(["0", "1"].map(|core| number(&scrape, "ringwire_cpu_seconds_total", &[("core", core)])), [0.0, 2.5]);
    assert_eq!(number(&scrape, "ringwire_mail_depth", &[("core", "1")]), 5.0);
    assert_eq!(number(&scrape, "ringwire_memory_limit_bytes", &[]), 4096.0);
    assert_eq!(number(&scrape, "ringwire_handler_longest_seconds", &[("core", "1")]), 5.0);
    let expiry = |name| number(&scrape, "ringwire_tls_certificate_expiry_seconds", &[("name", name)]);
    assert_eq!(expiry("a.test"), 1_500.0, "the earliest of several");
    let reloads = |result| number(&scrape, "ringwire_tls_certificate_reloads_total", &[("result", result)]);
    assert_eq!((reloads("refused"), reloads("renewed")), (2.0, 0.0));
    assert!(metrics().to_prometheus().contains("{name=\"b \\\"\\\\ c\"} 1000\n"));
    assert!(!Metrics::default().to_prometheus().contains("certificate"));
}

#[test]
fn a_parser_reads_the_histogram() {
    let scrape = parsed(&metrics().to_prometheus());
    let Value::Histogram(buckets) = &find(&scrape, "ringwire_handler_seconds", &[("core", "1")]).value else {
        panic!("a histogram")
    };
    let counts: Vec<f64> = buckets.iter().map(|bucket| bucket.count).collect();
    assert!(buckets.is_sorted_by(|a, b| a.less_than < b.less_than), "{buckets:?}");
    assert!(counts.is_sorted() && counts.len() == 22, "cumulative: {counts:?}");
    assert_eq!((buckets[0].less_than, buckets[21].less_than), (1.024e-6, f64::INFINITY));
    assert_eq!((counts[0], counts[1], counts[20], counts[21]), (1.0, 2.0, 3.0, 4.0));
    assert!(metrics().to_prometheus().contains("ringwire_handler_seconds_sum{core=\"1\"} 5.0030029\n"));
    assert!(metrics().to_prometheus().contains("ringwire_handler_seconds_count{core=\"1\"} 4\n"));
}

/// What the format asks for and a lenient parser does not check.
#[test]
fn every_family_is_described_once_before_its_series_and_named_by_the_conventions() {
    let text = metrics().to_prometheus();
    let mut types: BTreeMap<&str, &str> = BTreeMap::new();
    let mut seen = BTreeSet::new();
    let mut family = "";
    let lines: Vec<&str> = text.lines().collect();
    assert!(text.ends_with('\n'));
    for (index, line) in lines.iter().enumerate() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            let (name, help) = help.split_once(' ').expect("a help text");
            assert!(help.ends_with('.') && help.len() > 5, "{line}");
            assert!(lines[index + 1].starts_with(&format!("# TYPE {name} ")), "{line}");
        } else if let Some(kind) = line.strip_prefix("# TYPE ") {
            let (name, kind) = kind.split_once(' ').expect("a type");
            family = name;
            assert_eq!(types.insert(name, kind), None, "{name} twice");
            assert!(name.starts_with("ringwire_"), "{name}");
            assert_eq!(name.ends_with("_total"), kind == "counter", "{name} is a {kind}");
        } else {
            let (series, value) = line.rsplit_once(' ').expect("a value");
            let name = series.split('{').next().expect("a name");
            let suffixed = name.strip_prefix(family).expect("series follow their family");
            let suffixes: &[&str] = if types[family] == "histogram" { &["_bucket", "_sum", "_count"] } else { &[""] };
            assert!(suffixes.contains(&suffixed), "{line}");
            assert!(value.parse::<f64>().is_ok_and(|value| value >= 0.0), "{line}");
            assert!(seen.insert(series), "{series} twice");
        }
    }
    assert!(types.len() > 30, "{}", types.len());
}
