//! Several rounds of the same run as one report: medians, with the lowest and the highest of each figure.

use serde_json::{Map, Value, json};

use crate::{problems::Problems, rows::rows_of};

/// Warnings that are told.
const WARNINGS_MAX: usize = 20;

/// One report of all; of one round, that round's.
pub(crate) fn merge(mut rounds: Vec<Value>) -> Value {
    let Some(mut merged) = rounds.pop() else { return Value::Null };
    if rounds.is_empty() {
        return merged;
    }
    rounds.push(merged.clone());
    let mut ranges = Map::new();
    for row in rows_of(&merged) {
        let mut values: Vec<f64> = rounds.iter().filter_map(|round| row.value(round)).collect();
        if values.len() < rounds.len() {
            continue;
        }
        values.sort_by(f64::total_cmp);
        let Some(place) = merged.pointer_mut(&row.pointer) else { continue };
        if row.is_count {
            *place = json!(values.iter().sum::<f64>() as u64);
        } else {
            *place = json!(median(&values));
            ranges.insert(row.pointer, json!([values[0], values[values.len() - 1]]));
        }
    }
    let mut warnings: Vec<Value> = Vec::new();
    for told in rounds.iter().flat_map(|round| round["warnings"].as_array().into_iter().flatten()) {
        if !warnings.contains(told) && warnings.len() < WARNINGS_MAX {
            warnings.push(told.clone());
        }
    }
    merged["warnings"] = Value::Array(warnings);
    let mut problems = Problems::default();
    rounds.iter().for_each(|round| problems.add(&Problems::read(round)));
    problems.fill(&mut merged);
    merge_agents(&mut merged, &rounds);
    let disturbed = rounds.iter().any(|round| round["host"]["disturbed"] == true);
    merged["host"]["disturbed"] = json!(disturbed);
    merged["rounds"] = json!(rounds.len());
    merged["ranges"] = Value::Object(ranges);
    merged
}

/// The agents' times are medians as all others are; one that was lost or disturbed in one round was so.
fn merge_agents(merged: &mut Value, rounds: &[Value]) {
    for (place, agent) in merged["agents"].as_array_mut().into_iter().flatten().enumerate() {
        let mut each = rounds.iter().filter_map(|round| round["agents"].get(place));
        for key in ["latency_us", "lag_us"] {
            for (name, value) in agent[key].as_object_mut().into_iter().flatten().filter(|(name, _)| *name != "count") {
                let mut values: Vec<f64> = each.clone().filter_map(|row| row[key][name.as_str()].as_f64()).collect();
                values.sort_by(f64::total_cmp);
                if !values.is_empty() {
                    *value = json!(median(&values));
                }
            }
        }
        if each.clone().any(|row| row["host"]["disturbed"] == true) && agent["host"].is_object() {
            agent["host"]["disturbed"] = json!(true);
        }
        if let Some(lost) = each.find(|row| row["lost"].is_string()) {
            agent["lost"] = lost["lost"].clone();
        }
    }
}

/// The middle one of sorted values, or what is between the two in the middle.
fn median(sorted: &[f64]) -> f64 {
    let middle = sorted.len() / 2;
    if sorted.len() % 2 == 1 { sorted[middle] } else { (sorted[middle - 1] + sorted[middle]) / 2.0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::problems::Problem;

    #[test]
    fn rounds_have_medians_and_ranges_and_add_up_what_went_wrong() {
        let round = |rate: f64, p99: f64, lost: u64, warning: &str| {
            let mut figures = json!({"messages_per_s": rate, "latency_us": {"p99": p99}, "warnings": [warning],
                                     "host": {"disturbed": lost > 1}});
            let mut problems = Problems::default();
            problems.note(Problem::Lost, lost, || format!("{lost} of {rate}"));
            problems.fill(&mut figures);
            figures
        };
        let merged = merge(vec![round(30.0, 1.0, 0, "a"), round(10.0, 5.0, 2, "b"), round(20.0, 2.0, 1, "a")]);
        assert_eq!((&merged["messages_per_s"], &merged["latency_us"]["p99"]), (&json!(20.0), &json!(2.0)));
        assert_eq!((&merged["checks"]["lost"], &merged["problem_count"]), (&json!(3), &json!(3)));
        assert_eq!(merged["problems"], json!(["3 lost", "  2 of 10", "  1 of 20"]));
        assert_eq!(merged["ranges"], json!({"/messages_per_s": [10.0, 30.0], "/latency_us/p99": [1.0, 5.0]}));
        assert_eq!((&merged["rounds"], &merged["warnings"]), (&json!(3), &json!(["a", "b"])));
        assert_eq!(merged["host"]["disturbed"], true);
        let even = merge(vec![round(30.0, 1.0, 0, "a"), round(10.0, 5.0, 0, "a")]);
        assert_eq!(even["messages_per_s"], 20.0);
        let of_agent = |p90: f64, is_disturbed: bool, lost: Value| {
            let host = json!({"disturbed": is_disturbed});
            let mut round = round(30.0, 1.0, 0, "a");
            round["agents"] =
                json!([{"agent": "x:1", "latency_us": {"p90": p90, "count": 5}, "host": host, "lost": lost}]);
            round
        };
        let agents = merge(vec![
            of_agent(3.0, true, json!("gone")),
            of_agent(9.0, false, Value::Null),
            of_agent(4.0, false, Value::Null),
        ]);
        let row = &agents["agents"][0];
        assert_eq!((&row["latency_us"], &row["lost"]), (&json!({"p90": 4.0, "count": 5}), &json!("gone")));
        assert_eq!(row["host"]["disturbed"], true);
        let one = merge(vec![round(30.0, 1.0, 0, "a")]);
        assert!(one["ranges"].is_null() && one["messages_per_s"] == 30.0);
    }
}
