//! The dashboard has the form that Grafana takes: it says nothing of what it does not understand, and shows something else.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::json as read_json;

/// Versions of a dashboard's form that Grafana 10 to 12 write; older ones are migrated, newer ones refused.
const SCHEMA_VERSIONS: std::ops::RangeInclusive<u64> = 36..=41;
/// Of Grafana's many units those that a server has use for, by their names in dashboards.
const UNITS: [&str; 14] = [
    "none",
    "short",
    "percent",
    "percentunit",
    "bytes",
    "decbytes",
    "Bps",
    "cps",
    "ops",
    "reqps",
    "ns",
    "ms",
    "s",
    "bool",
];
const PANELS: [&str; 5] = ["row", "stat", "gauge", "table", "timeseries"];
const CALCULATIONS: [&str; 6] = ["last", "lastNotNull", "mean", "max", "min", "sum"];
/// Variables that Grafana has by itself.
const BUILT_IN: [&str; 4] = ["__rate_interval", "__interval", "__range", "__all"];
const WIDTH: u64 = 24;

/// What is wrong with a dashboard.
fn faults(dashboard: &Value) -> Vec<String> {
    let mut faults = Vec::new();
    let mut need = |holds: bool, what: String| {
        if !holds {
            faults.push(what);
        }
    };
    let is_text = |value: &Value| value.as_str().is_some_and(|text| !text.is_empty());
    need(is_text(&dashboard["title"]), "it has no title".into());
    // An id is the database's, which gives one at the import.
    need(dashboard["id"].is_null(), "it has an id".into());
    let is_name = |it: char| it.is_ascii_alphanumeric() || "-_".contains(it);
    let uid = dashboard["uid"].as_str().unwrap_or_default();
    need((1..=40).contains(&uid.len()) && uid.chars().all(is_name), format!("uid {uid:?}"));
    let version = dashboard["schemaVersion"].as_u64().unwrap_or_default();
    need(SCHEMA_VERSIONS.contains(&version), format!("schemaVersion {version}"));
    need(dashboard["time"]["from"].is_string() && dashboard["time"]["to"].is_string(), "it has no time".into());
    need(dashboard["annotations"]["list"].is_array(), "annotations".into());

    let variables = dashboard["templating"]["list"].as_array().cloned().unwrap_or_default();
    let names: BTreeSet<&str> = variables.iter().filter_map(|variable| variable["name"].as_str()).collect();
    need(names.len() == variables.len(), "variables have no names of their own".into());
    let sources: BTreeSet<String> = variables
        .iter()
        .filter(|variable| variable["type"] == "datasource" && variable["query"] == "prometheus")
        .filter_map(|variable| Some(format!("${{{}}}", variable["name"].as_str()?)))
        .collect();
    let is_source =
        |value: &Value| value["type"] == "prometheus" && value["uid"].as_str().is_some_and(|uid| sources.contains(uid));
    for variable in &variables {
        let (name, kind) = (&variable["name"], variable["type"].as_str().unwrap_or_default());
        need(
            ["datasource", "query", "custom", "interval"].contains(&kind),
            format!("variable {name} of type {kind:?}"),
        );
        need(kind != "query" || is_source(&variable["datasource"]), format!("variable {name} has no data source"));
    }
    let known = |name: &str| names.contains(name) || BUILT_IN.contains(&name);

    let panels = dashboard["panels"].as_array().cloned().unwrap_or_default();
    need(!panels.is_empty(), "it has no panels".into());
    let mut ids = BTreeSet::new();
    let mut taken: Vec<(&Value, [u64; 4])> = Vec::new();
    for panel in &panels {
        let title = &panel["title"];
        need(is_text(title), format!("a panel without a title: {panel}"));
        let id = panel["id"].as_u64().unwrap_or_default();
        need(id > 0 && ids.insert(id), format!("{title}: id {id}"));
        let kind = panel["type"].as_str().unwrap_or_default();
        need(PANELS.contains(&kind), format!("{title}: type {kind:?}"));
        let place = ["x", "y", "w", "h"].map(|field| panel["gridPos"][field].as_u64().unwrap_or(u64::from(u32::MAX)));
        let [x, y, w, h] = place;
        need(w > 0 && h > 0 && x + w <= WIDTH && y < 10_000, format!("{title}: gridPos {place:?}"));
        for (other, [ox, oy, ow, oh]) in &taken {
            let is_apart = x + w <= *ox || ox + ow <= x || y + h <= *oy || oy + oh <= y;
            need(is_apart, format!("{title} lies on {other}"));
        }
        taken.push((title, place));
        if kind == "row" {
            need(w == WIDTH && h == 1, format!("{title}: a row is one line"));
            need(panel["collapsed"] == false && panel["panels"] == json!([]), format!("{title}: a row hides panels"));
            continue;
        }
        need(is_source(&panel["datasource"]), format!("{title}: datasource"));
        let defaults = &panel["fieldConfig"]["defaults"];
        need(panel["fieldConfig"]["overrides"].is_array(), format!("{title}: fieldConfig.overrides"));
        let unit = defaults["unit"].as_str().unwrap_or_default();
        need(UNITS.contains(&unit), format!("{title}: unit {unit:?}"));
        let steps = defaults["thresholds"]["steps"].as_array().cloned().unwrap_or_default();
        let values: Vec<Option<f64>> = steps.iter().map(|step| step["value"].as_f64()).collect();
        need(
            values.is_sorted() && values.iter().skip(1).all(Option::is_some),
            format!("{title}: thresholds {values:?}"),
        );
        need(values.first().is_none_or(Option::is_none), format!("{title}: thresholds begin somewhere"));
        if kind == "stat" {
            let calculations = panel["options"]["reduceOptions"]["calcs"].as_array().cloned().unwrap_or_default();
            let are_known = calculations.iter().all(|it| it.as_str().is_some_and(|it| CALCULATIONS.contains(&it)));
            need(are_known && calculations.len() == 1, format!("{title}: calcs {calculations:?}"));
        }
        let mut letters = BTreeSet::new();
        for target in panel["targets"].as_array().into_iter().flatten() {
            let letter = target["refId"].as_str().unwrap_or_default();
            need(!letter.is_empty() && letters.insert(letter.to_owned()), format!("{title}: refId {letter:?}"));
            need(is_source(&target["datasource"]), format!("{title} {letter}: datasource"));
            let expression = target["expr"].as_str().unwrap_or_default();
            need(!expression.is_empty(), format!("{title} {letter}: expr"));
            for rest in expression.split('$').skip(1) {
                let end = rest.find(|it: char| !(it.is_ascii_alphanumeric() || it == '_')).unwrap_or(rest.len());
                need(known(&rest[..end]), format!("{title} {letter}: variable {}", &rest[..end]));
            }
            // What a legend shows is what is left to be shown.
            let legend = target["legendFormat"].as_str().unwrap_or_default();
            for label in legend.split("{{").skip(1).filter_map(|rest| rest.split_once("}}")).map(|(label, _)| label) {
                let mut sums = expression.split("by (").skip(1).filter_map(|rest| rest.split_once(')'));
                let is_kept = sums.all(|(kept, _)| kept.split(", ").any(|it| it == label));
                need(is_kept && !expression.starts_with("sum("), format!("{title} {letter}: legend {label}"));
            }
        }
        need(!letters.is_empty(), format!("{title}: no query"));
    }
    faults
}

#[test]
fn the_dashboard_has_the_form_that_grafana_takes() {
    assert_eq!(faults(&read_json("deploy/grafana.json")), Vec::<String>::new());
}

/// The number of the first panel of this type.
fn first(dashboard: &Value, kind: &str) -> usize {
    let panels = dashboard["panels"].as_array().expect("panels");
    panels.iter().position(|panel| panel["type"] == kind).expect(kind)
}

/// Kills: a check that finds nothing.
#[test]
fn what_is_wrong_with_a_dashboard_is_found() {
    let good = read_json("deploy/grafana.json");
    let (row, stat, series) = (first(&good, "row"), first(&good, "stat"), first(&good, "timeseries"));
    let changes: &[(String, Value, &str)] = &[
        ("/title".into(), json!(""), "it has no title"),
        ("/uid".into(), json!("ring/wire"), "uid"),
        ("/schemaVersion".into(), json!(99), "schemaVersion 99"),
        ("/time/from".into(), json!(null), "it has no time"),
        ("/templating/list/1/datasource/uid".into(), json!("${other}"), "has no data source"),
        ("/templating/list/1/name".into(), json!("instance"), "no names of their own"),
        (format!("/panels/{stat}/id"), json!(2), "id 2"),
        (format!("/panels/{stat}/type"), json!("singlestat"), "type \"singlestat\""),
        (format!("/panels/{stat}/gridPos/w"), json!(5), "lies on"),
        (format!("/panels/{series}/gridPos/x"), json!(20), "gridPos"),
        (format!("/panels/{series}/gridPos/h"), json!(8), "lies on"),
        (format!("/panels/{row}/collapsed"), json!(true), "hides panels"),
        (format!("/panels/{series}/datasource/uid"), json!("prometheus"), "datasource"),
        (format!("/panels/{series}/fieldConfig/defaults/unit"), json!("seconds"), "unit \"seconds\""),
        (format!("/panels/{stat}/options/reduceOptions/calcs"), json!(["latest"]), "calcs"),
        (format!("/panels/{series}/targets/1/refId"), json!("A"), "refId \"A\""),
        (format!("/panels/{series}/targets/0/datasource/uid"), json!("x"), "datasource"),
        (format!("/panels/{series}/targets/0/expr"), json!("up{job=\"$jobs\"}"), "variable jobs"),
        (format!("/panels/{series}/targets/0/legendFormat"), json!("{{core}}"), "legend core"),
    ];
    for (at, value, expected) in changes {
        let mut bad = good.clone();
        *bad.pointer_mut(at).unwrap_or_else(|| panic!("{at}")) = value.clone();
        let found = faults(&bad);
        assert!(found.iter().any(|fault| fault.contains(expected)), "{at}: {found:?}");
    }
}
