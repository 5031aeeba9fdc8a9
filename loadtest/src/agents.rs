//! The agents of a run, one by one, in its report.

use std::{fmt::Write as _, time::Duration};

use serde_json::{Value, json};

use crate::{
    host,
    outcome::{Agent, Ended, Outcome},
    problems::Problem,
    rows::percentiles,
    tally::{End, Timed},
    words::{grouped, time_text},
};

/// What all their machines did, and by whose the run was disturbed.
pub(crate) fn host(agents: &[Agent]) -> (Value, Vec<String>) {
    let (mut stolen, mut others) = (None, None);
    let mut all = Vec::new();
    for Agent { name, ended, .. } in agents {
        let Ended::Whole(outcome) = ended else { continue };
        let (value, why) = host::judge(outcome);
        let add = |sum: &mut Option<f64>, key: &str| {
            if let Some(cores) = value[key].as_f64() {
                *sum.get_or_insert(0.0) += cores;
            }
        };
        add(&mut stolen, "stolen_cores");
        add(&mut others, "others_cores");
        all.extend(why.into_iter().map(|why| format!("agent {name}: {why}")));
    }
    (json!({"stolen_cores": stolen, "others_cores": others, "disturbed": !all.is_empty()}), all)
}

/// Their figures. Where connections are all that is counted, these are the messages.
pub(crate) fn rows(agents: &[Agent], is_connect: bool) -> Value {
    agents.iter().map(|agent| row(agent, is_connect)).collect()
}

fn row(agent: &Agent, is_connect: bool) -> Value {
    let us = |time: Option<Duration>| time.map(|time| time.as_secs_f64() * 1e6);
    let (kernel, processor, processors) = &agent.machine;
    let mut row = json!({
        "agent": agent.name,
        "lost": null,
        "machine": {"kernel": kernel, "processor": processor, "processors": processors},
        "round_trip_us": us(agent.round_trip),
        "began_late_us": us(agent.began_late),
    });
    match &agent.ended {
        Ended::Whole(outcome) => fill(&mut row, outcome, is_connect),
        Ended::Lost(why, counts) => {
            row["lost"] = json!(why);
            row["connections"] = json!({"ready": counts.opened, "failed": null});
            row["ends"] = json!({End::Unknown.key(): counts.asked});
        }
    }
    row
}

fn fill(row: &mut Value, outcome: &Outcome, is_connect: bool) {
    let elapsed = outcome.elapsed.as_secs_f64().max(1e-9);
    let (messages, seconds) = match is_connect {
        true => (outcome.ready, outcome.ramp.as_secs_f64().max(1e-9)),
        false => (outcome.done, elapsed),
    };
    let (tally, problems) = (&outcome.tally, &outcome.tally.problems);
    let (host, _) = host::judge(outcome);
    let lag = outcome.timed.iter().find(|(what, _)| *what == Timed::Lag).map(|(_, lag)| percentiles(lag));
    row["connections"] = json!({"ready": outcome.ready, "failed": problems.count(Problem::Failed)});
    row["opened"] = json!(tally.opened);
    row["elapsed_s"] = json!(elapsed);
    row["messages"] = json!(messages);
    row["messages_per_s"] = json!(messages as f64 / seconds);
    row["latency_us"] = percentiles(&outcome.latencies);
    row["lag_us"] = lag.unwrap_or_default();
    row["checks"] =
        Problem::CHECKS.iter().map(|check| (check.key().to_owned(), json!(problems.count(*check)))).collect();
    row["ends"] = tally.ends.iter().map(|(end, count)| (end.key().to_owned(), json!(count))).collect();
    row["problem_count"] = json!(outcome.problem_count());
    let cpu = outcome.cpu.client;
    row["client"] = json!({
        "cpu_us_per_message": (outcome.done > 0).then(|| cpu.as_secs_f64() * 1e6 / outcome.done as f64),
        "cpu_share": cpu.as_secs_f64() / elapsed,
        "busiest_thread_share": outcome.cpu.busiest.as_secs_f64() / elapsed,
        "threads": outcome.workers,
    });
    row["host"] = host;
}

/// One of them, in words.
pub(crate) fn text(agent: &Value) -> String {
    let name = agent["agent"].as_str().unwrap_or_default();
    if let Some(why) = agent["lost"].as_str() {
        return format!("{name}: LOST: {why}");
    }
    let time = |pointer: &str| time_text(agent.pointer(pointer).and_then(Value::as_f64).unwrap_or_default());
    let number = |pointer: &str| agent.pointer(pointer).and_then(Value::as_f64).unwrap_or_default();
    let mut text = format!(
        "{name}: {} connections, {} failed, {} messages = {} /s, p50 {}, p99 {}, {:.2} cores",
        grouped(agent["opened"].as_u64().unwrap_or_default()),
        grouped(agent["connections"]["failed"].as_u64().unwrap_or_default()),
        grouped(agent["messages"].as_u64().unwrap_or_default()),
        grouped(number("/messages_per_s") as u64),
        time("/latency_us/p50"),
        time("/latency_us/p99"),
        number("/client/cpu_share"),
    );
    if agent["lag_us"]["count"].as_u64().is_some_and(|count| count > 0) {
        let _ = write!(text, ", lag p99 {}", time("/lag_us/p99"));
    }
    if agent["host"]["disturbed"] == true {
        text += ", DISTURBED";
    }
    let problems = agent["problem_count"].as_u64().unwrap_or_default();
    if problems > 0 {
        let _ = write!(text, ", {} problems", grouped(problems));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outcome::{Counts, Host};

    fn agent(name: &str, ended: Ended) -> Agent {
        let machine = ("6.1".to_owned(), "x".to_owned(), 2);
        Agent { name: name.to_owned(), machine, round_trip: None, began_late: None, ended }
    }

    fn outcome(stolen_ms: u64) -> Outcome {
        let stolen = Duration::from_millis(stolen_ms);
        let host = Some(Host { processors: 2, stolen, others: Some(Duration::ZERO) });
        Outcome { elapsed: Duration::from_secs(1), host, done: 10, ..Outcome::none() }
    }

    /// Kills: a disturbed agent that is not named.
    #[test]
    fn a_disturbed_agent_marks_the_run_and_is_named() {
        let whole = |stolen_ms| Ended::Whole(Box::new(outcome(stolen_ms)));
        let agents = [
            agent("a:1", whole(0)),
            agent("b:2", whole(500)),
            agent("c:3", Ended::Lost("gone".into(), Counts::default())),
        ];
        let (value, why) = host(&agents);
        assert_eq!((&value["disturbed"], &value["stolen_cores"]), (&json!(true), &json!(0.5)));
        assert_eq!(why.len(), 1);
        assert!(why[0].starts_with("agent b:2: the hypervisor"), "{why:?}");
        let rows = rows(&agents, false);
        assert_eq!([0, 1].map(|row| &rows[row]["host"]["disturbed"]), [&json!(false), &json!(true)]);
        assert!(text(&rows[1]).ends_with("DISTURBED") && text(&rows[2]) == "c:3: LOST: gone", "{rows}");
        assert_eq!(host(&agents[..1]).0["disturbed"], false);
    }
}
