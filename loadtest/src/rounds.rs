//! Several rounds of the same run as one report. Whatever is counted is of all rounds together, and whatever is measured is the median,
//! with the lowest and the highest of the figures that runs are compared by.
//!
//! A figure's type says which of both it is, so that a new one has its place: whole numbers are counted, others are measured. The
//! exceptions have their names below.

use serde_json::{Map, Value, json};

use crate::{
    problems::{Problem, Problems},
    rows::rows_of,
};

/// Warnings that are told.
const WARNINGS_MAX: usize = 20;

/// Whole numbers that each round has anew: how many connections it has, what it runs on.
const OF_EACH_ROUND: [&str; 8] =
    ["wanted", "ready", "processors", "cores", "threads", "rss_bytes", "rss_bytes_before", "rss_bytes_open"];
/// The time in which messages were counted goes with them.
const ADDED_UP: [&str; 1] = ["elapsed_s"];
const EARLIEST: [&str; 1] = ["started_unix_s"];
/// Lists whose entries stand for the same in each round.
const BY_PLACE: [&str; 2] = ["agents", "targets"];
/// What was said, in any round.
const SAID: [&str; 1] = ["warnings"];

/// One report of all; of one round, that round's. Curves and plots are the last round's.
pub(crate) fn merge(mut rounds: Vec<Value>) -> Value {
    if rounds.len() < 2 {
        return rounds.pop().unwrap_or_default();
    }
    let mut merged = one_of("", &rounds.iter().collect::<Vec<_>>());
    let mut ranges = Map::new();
    for row in rows_of(&merged).into_iter().filter(|row| !row.is_count) {
        let values = sorted(rounds.iter().filter_map(|round| row.value(round)));
        if values.len() == rounds.len() {
            ranges.insert(row.pointer, json!([values[0], values[values.len() - 1]]));
        }
    }
    let mut problems = Problems::default();
    rounds.iter().for_each(|round| problems.add(&Problems::read(round)));
    problems.fill(&mut merged);
    merged["rounds"] = json!(rounds.len());
    merged["ranges"] = Value::Object(ranges);
    merged
}

/// Why rounds that were asked for were not made.
#[derive(Debug)]
pub(crate) struct End {
    pub(crate) why: String,
    /// Somebody has ended it: nothing is wrong with that.
    pub(crate) is_wanted: bool,
}

/// Says in the report of those that were made how many were asked for, and why the rest is not there.
pub(crate) fn account(figures: &mut Value, made: u64, asked: u64, end: Option<&End>) {
    if asked > 1 {
        figures["rounds_asked"] = json!(asked);
    }
    let Some(End { why, is_wanted }) = end.filter(|_| made < asked) else { return };
    let were = if made == 1 { "was" } else { "were" };
    let told = format!("{made} of {asked} rounds {were} made: {why}");
    if *is_wanted {
        if let Some(warnings) = figures["warnings"].as_array_mut() {
            warnings.push(json!(told));
        }
        return;
    }
    let mut problems = Problems::read(figures);
    problems.note(Problem::RoundMissing, asked - made, || told);
    problems.fill(figures);
}

/// One value of those that stand at the same key.
fn one_of(key: &str, all: &[&Value]) -> Value {
    // Where a round has none, the others decide: an agent that was lost in one round was lost.
    let all: Vec<&Value> = all.iter().copied().filter(|value| !value.is_null()).collect();
    match all.last() {
        None => Value::Null,
        Some(Value::Object(_)) => table(&all),
        Some(Value::Array(_)) if SAID.contains(&key) => said(&all),
        Some(Value::Array(_)) if BY_PLACE.contains(&key) => by_place(&all),
        Some(Value::Number(_)) => number(key, &all),
        Some(Value::Bool(_)) => json!(all.contains(&&Value::Bool(true))),
        Some(Value::String(_)) => most_frequent(&all),
        Some(last @ Value::Array(_)) => (*last).clone(),
        Some(Value::Null) => unreachable!("none is left"),
    }
}

/// All keys that any of them has.
fn table(all: &[&Value]) -> Value {
    let mut merged = Map::new();
    for (key, _) in all.iter().filter_map(|table| table.as_object()).flatten() {
        if !merged.contains_key(key) {
            let values: Vec<&Value> = all.iter().filter_map(|table| table.get(key)).collect();
            merged.insert(key.clone(), one_of(key, &values));
        }
    }
    Value::Object(merged)
}

fn by_place(all: &[&Value]) -> Value {
    let longest = all.iter().filter_map(|list| list.as_array()).map(Vec::len).max().unwrap_or_default();
    let each = |place: usize| one_of("", &all.iter().filter_map(|list| list.get(place)).collect::<Vec<_>>());
    (0..longest).map(each).collect()
}

/// What any of them says, each once.
fn said(all: &[&Value]) -> Value {
    let mut merged: Vec<Value> = Vec::new();
    for text in all.iter().filter_map(|list| list.as_array()).flatten() {
        if !merged.contains(text) && merged.len() < WARNINGS_MAX {
            merged.push(text.clone());
        }
    }
    Value::Array(merged)
}

fn number(key: &str, all: &[&Value]) -> Value {
    let values = sorted(all.iter().filter_map(|value| value.as_f64()));
    let whole: Option<Vec<u64>> = all.iter().map(|value| value.as_u64()).collect();
    match whole {
        Some(whole) if EARLIEST.contains(&key) => json!(whole.iter().min()),
        // One that a round has had, and not one between two.
        Some(_) if OF_EACH_ROUND.contains(&key) => json!(values[(values.len() - 1) / 2] as u64),
        Some(whole) => json!(whole.iter().sum::<u64>()),
        None if ADDED_UP.contains(&key) => json!(values.iter().sum::<f64>()),
        None => json!(median(&values)),
    }
}

/// Of words there is no middle: what most say, and of several the newest.
fn most_frequent(all: &[&Value]) -> Value {
    let times = |word: &&&Value| all.iter().filter(|other| other == word).count();
    all.iter().max_by_key(times).map_or(Value::Null, |word| (*word).clone())
}

fn sorted(values: impl Iterator<Item = f64>) -> Vec<f64> {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values
}

/// The middle one of sorted values, or what is between the two in the middle.
fn median(sorted: &[f64]) -> f64 {
    let middle = sorted.len() / 2;
    if sorted.len() % 2 == 1 { sorted[middle] } else { (sorted[middle - 1] + sorted[middle]) / 2.0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        outcome::{Agent, Ended, Outcome},
        problems::Problem,
        report::{self, About},
    };

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
        assert_eq!((&row["latency_us"], &row["lost"]), (&json!({"p90": 4.0, "count": 15}), &json!("gone")));
        assert_eq!(row["host"]["disturbed"], true);
        let one = merge(vec![round(30.0, 1.0, 0, "a")]);
        assert!(one["ranges"].is_null() && one["messages_per_s"] == 30.0);
    }

    /// Kills: rounds that are missing without a word; a run that somebody has ended as a failure.
    #[test]
    fn rounds_that_are_missing_are_told_with_why() {
        let why = |is_wanted| Some(End { why: "refused".to_owned(), is_wanted });
        let rows = [
            (1, 1, None, json!(null), json!(0), json!([]), json!([])),
            (3, 3, None, json!(3), json!(0), json!([]), json!([])),
            (3, 3, why(true), json!(3), json!(0), json!([]), json!([])),
            (1, 1, why(false), json!(null), json!(0), json!([]), json!([])),
            (
                1,
                3,
                why(false),
                json!(3),
                json!(2),
                json!(["2 rounds missing", "  1 of 3 rounds was made: refused"]),
                json!([]),
            ),
            (
                2,
                3,
                why(false),
                json!(3),
                json!(1),
                json!(["1 round missing", "  2 of 3 rounds were made: refused"]),
                json!([]),
            ),
            (2, 3, why(true), json!(3), json!(0), json!([]), json!(["2 of 3 rounds were made: refused"])),
        ];
        for (made, asked, end, told, count, problems, warnings) in rows {
            let mut figures = json!({"warnings": []});
            Problems::default().fill(&mut figures);
            account(&mut figures, made, asked, end.as_ref());
            let found =
                [&figures["rounds_asked"], &figures["problem_count"], &figures["problems"], &figures["warnings"]];
            assert_eq!(found, [&told, &count, &problems, &warnings], "{made} of {asked}, {end:?}");
        }
    }

    /// Kills: a table of what went wrong of which only the last round is told, whatever that one has of it.
    #[test]
    fn tables_have_what_any_round_has() {
        let rows = [
            ("close_codes", json!({"1006": 3, "1000": 1}), json!({"1000": 4}), json!({"1006": 3, "1000": 5})),
            ("errnos", json!({"ECONNRESET": 2}), json!({}), json!({"ECONNRESET": 2})),
            ("http_statuses", json!({"503": 7}), json!({"503": 1, "429": 1}), json!({"503": 8, "429": 1})),
            ("ends", json!({"failed": 3}), json!({"closed": 3}), json!({"failed": 3, "closed": 3})),
            ("sessions", json!(4), json!(5), json!(9)),
            (
                "targets",
                json!([{"url": "a", "ready": 2, "failed": 1, "messages": 10, "latency_us": {"p50": 1.0}}]),
                json!([{"url": "a", "ready": 2, "failed": 0, "messages": 30, "latency_us": {"p50": 3.0}}]),
                json!([{"url": "a", "ready": 2, "failed": 1, "messages": 40, "latency_us": {"p50": 2.0}}]),
            ),
            (
                "steps",
                json!({"join": {"p50": 1.0, "count": 2}}),
                json!({"join": {"p50": 3.0, "count": 5}, "say": {"p50": 1.0, "count": 1}}),
                json!({"join": {"p50": 2.0, "count": 7}, "say": {"p50": 1.0, "count": 1}}),
            ),
            (
                "tls",
                json!({"full": 1, "failures": {"bad certificate": 2}}),
                json!({"full": 2, "failures": {}}),
                json!({"full": 3, "failures": {"bad certificate": 2}}),
            ),
            // Nobody has agreed on anything in the last round.
            (
                "deflate",
                json!({"declined": 1, "sent": {"bytes": 8}}),
                Value::Null,
                json!({"declined": 1, "sent": {"bytes": 8}}),
            ),
            ("bottleneck", json!("server"), json!("neither"), json!("neither")),
            ("warnings", json!(["a", "b"]), json!(["b", "c"]), json!(["a", "b", "c"])),
            ("server", Value::Null, json!({"rss_bytes": 8}), json!({"rss_bytes": 8})),
        ];
        for (key, first, second, expected) in rows {
            let round = |value: &Value| json!({key: value});
            assert_eq!(merge(vec![round(&first), round(&second)])[key], expected, "{key}");
            let absent = merge(vec![round(&first), json!({})]);
            assert_eq!(absent[key], merge(vec![round(&first), round(&Value::Null)])[key], "{key}");
        }
        let words = ["server", "neither", "server"].map(|side| json!({"bottleneck": side}));
        assert_eq!(merge(words.to_vec())["bottleneck"], "server");
    }

    /// A report of which every part is there.
    fn whole() -> Value {
        let about = About {
            scenario: "run".to_owned(),
            unit: "replies".to_owned(),
            urls: vec!["wss://a/".to_owned(), "wss://b/".to_owned()],
            steps: vec!["join".to_owned()],
            warnings: Vec::new(),
            connections: 4,
            rate: Some(5.0),
            started_unix_s: 1000,
        };
        let agent = Agent {
            name: "a:1".to_owned(),
            machine: (String::new(), String::new(), 2),
            round_trip: Some(std::time::Duration::from_millis(1)),
            began_late: Some(std::time::Duration::from_millis(1)),
            ended: Ended::Whole(Box::new(Outcome::sample())),
        };
        report::figures(&about, &Outcome { agents: vec![agent], ..Outcome::sample() })
    }

    /// The pointers of all whole numbers, but of curves and of what is told in words.
    fn whole_numbers(at: &str, value: &Value, into: &mut Vec<String>) {
        match value {
            Value::Object(table) => {
                table.iter().filter(|(key, _)| !["series", "told"].contains(&key.as_str())).for_each(|(key, value)| {
                    whole_numbers(&format!("{at}/{key}"), value, into);
                })
            }
            Value::Array(list) => {
                list.iter().enumerate().for_each(|(place, value)| whole_numbers(&format!("{at}/{place}"), value, into));
            }
            Value::Number(number) if number.is_u64() => into.push(at.to_owned()),
            _ => {}
        }
    }

    /// Kills: a counter of which the last round is told; what each round has anew that is added up.
    #[test]
    fn every_count_of_a_report_is_added_up_and_nothing_else() {
        let round = whole();
        let merged = merge(vec![round.clone(); 3]);
        let (mut pointers, mut kept) = (Vec::new(), Vec::new());
        whole_numbers("", &round, &mut pointers);
        assert!(pointers.len() > 60, "{pointers:?}");
        for pointer in &pointers {
            let value = |figures: &Value| figures.pointer(pointer).and_then(Value::as_u64).expect("a whole number");
            assert!(value(&round) > 0, "{pointer} is 0, which says nothing");
            match value(&merged) {
                sum if sum == 3 * value(&round) => {}
                same => {
                    assert_eq!(same, value(&round), "{pointer}");
                    kept.push(pointer.as_str());
                }
            }
        }
        let expected = [
            "/started_unix_s",
            "/machine/processors",
            "/connections/wanted",
            "/connections/ready",
            "/targets/0/ready",
            "/targets/1/ready",
            "/server/cores",
            "/server/rss_bytes_before",
            "/server/rss_bytes_open",
            "/server/rss_bytes",
            "/client/threads",
            "/agents/0/machine/processors",
            "/agents/0/connections/ready",
            "/agents/0/client/threads",
        ];
        assert_eq!(kept, expected);
        assert_eq!(merged["elapsed_s"].as_f64(), round["elapsed_s"].as_f64().map(|seconds| 3.0 * seconds));
        for same in ["series", "percentiles", "command", "latency_us/p99", "messages_per_s", "rate", "url", "host"] {
            let pointer = format!("/{same}");
            assert_eq!(merged.pointer(&pointer), round.pointer(&pointer), "{same}");
        }
    }
}
