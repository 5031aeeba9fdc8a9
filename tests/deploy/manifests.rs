//! The manifests against the interface of Kubernetes, as far as they use it: every field is one that there is, and of its type.
//! kubectl says so, too, but asks a cluster for what there is; and what a cluster does not know it may drop without a word.

use serde_json::Value;
use yaml_rust2::{Yaml, YamlLoader};

use crate::{json as read_json, read, text, yaml};

/// What is wrong with a value of this type, as tests/deploy/kubernetes.json writes it.
fn faults(at: &str, value: &Yaml, kind: &str, types: &Value) -> Vec<String> {
    let wrong = || vec![format!("{at}: not of type {kind}: {value:?}")];
    let must = |holds: bool| if holds { Vec::new() } else { wrong() };
    let within = |open: char, close: char| kind.strip_prefix(open).and_then(|rest| rest.strip_suffix(close));
    if let Some(item) = within('[', ']') {
        let Some(items) = value.as_vec() else { return wrong() };
        let each =
            items.iter().enumerate().map(|(number, value)| faults(&format!("{at}[{number}]"), value, item, types));
        return each.flatten().collect();
    }
    if let Some(item) = within('{', '}') {
        let Some(entries) = value.as_hash() else { return wrong() };
        let each = entries.iter().map(|(key, value)| match key.as_str() {
            Some(key) => faults(&format!("{at}.{key}"), value, item, types),
            None => vec![format!("{at}: {key:?} is no name")],
        });
        return each.flatten().collect();
    }
    match kind {
        "text" => return must(value.as_str().is_some()),
        "switch" => return must(value.as_bool().is_some()),
        "number" => return must(value.as_i64().is_some()),
        "number or text" => return must(value.as_i64().is_some() || value.as_str().is_some()),
        "quantity" => return must(value.as_i64().is_some() || value.as_str().is_some_and(is_quantity)),
        _ => {}
    }
    let Some(fields) = types[kind].as_object() else {
        return vec![format!("{at}: what {kind} consists of is not in kubernetes.json: add it to .ci/manifests")];
    };
    let Some(entries) = value.as_hash() else { return wrong() };
    let mut found = Vec::new();
    for (key, value) in entries {
        let key = key.as_str().unwrap_or_default();
        match fields.get(key).and_then(Value::as_str) {
            Some(kind) => found.extend(faults(&format!("{at}.{key}"), value, kind.trim_end_matches('?'), types)),
            None => found.push(format!("{at}: {kind} has no field {key:?}")),
        }
    }
    for (field, kind) in fields {
        let is_needed = kind.as_str().is_some_and(|kind| !kind.ends_with('?'));
        if is_needed && value[field.as_str()].is_badvalue() {
            found.push(format!("{at} lacks {field}"));
        }
    }
    found
}

/// A number, and perhaps a unit (k8s.io/apimachinery/pkg/api/resource).
fn is_quantity(text: &str) -> bool {
    let unit = text.trim_start_matches(|it: char| it.is_ascii_digit() || it == '.');
    let number = &text[..text.len() - unit.len()];
    let units = ["", "n", "u", "m", "k", "M", "G", "T", "P", "E", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];
    number.parse::<f64>().is_ok() && units.contains(&unit)
}

fn faults_of(documents: &[Yaml]) -> Vec<String> {
    let types = &read_json("tests/deploy/kubernetes.json")["types"];
    let each = documents.iter().map(|document| {
        let kind = text(&document["kind"]);
        faults(kind, document, kind, types)
    });
    each.flatten().collect()
}

const FILES: [&str; 2] = ["deploy/kubernetes.yaml", "deploy/kubernetes-seccomp.yaml"];

#[test]
fn manifests_have_fields_that_there_are() {
    for file in FILES {
        assert_eq!(faults_of(&yaml(file)), Vec::<String>::new(), "{file}");
    }
}

/// Kills: a check that finds nothing.
#[test]
fn what_is_wrong_with_a_manifest_is_found() {
    for (old, new, expected) in [
        ("readinessProbe:", "readinesProbe:", "Container has no field \"readinesProbe\""),
        ("periodSeconds: 2\n", "periodSeconds: 2s\n", "readinessProbe.periodSeconds: not of type number"),
        ("runAsNonRoot: true", "runAsNonRoot: \"true\"", "securityContext.runAsNonRoot: not of type switch"),
        ("capabilities: {drop: [ALL]}", "capabilities: {drop: ALL}", "capabilities.drop: not of type [text]"),
        ("memory: 1Gi}", "memory: 1GB}", "limits.memory: not of type quantity"),
        (
            "- {name: RINGWIRE_MAX_CONNECTIONS, value: \"100000\"}",
            "- {name: RINGWIRE_MAX_CONNECTIONS, value: 100000}",
            "not of type text",
        ),
        ("- name: ringwire\n          image", "- image", "containers[0] lacks name"),
        ("seccompProfile:", "seccomp:", "PodSecurityContext has no field \"seccomp\""),
        (
            "          readinessProbe:",
            "          lifecycle: {preStop: {sleep: {seconds: 5}}}\n          readinessProbe:",
            "Lifecycle consists of is not in",
        ),
        (
            "target: {type: AverageValue, averageValue: \"60000\"}",
            "target: {averageValue: \"60000\"}",
            "pods.target lacks type",
        ),
        (
            "  selector: {app.kubernetes.io/name: ringwire}",
            "  selector: {matchLabels: {app: ringwire}}",
            "spec.selector.matchLabels: not of type text",
        ),
    ] {
        let good = read(FILES[0]);
        let bad = good.replacen(old, new, 1);
        assert_ne!(good, bad, "{old}");
        let found = faults_of(&YamlLoader::load_from_str(&bad).unwrap_or_else(|error| panic!("{new}: {error}")));
        assert!(found.iter().any(|fault| fault.contains(expected)), "{new}: {found:?}");
    }
}
