//! Several agents' outcomes as one: counters and histograms are added, so that it is what one process that had made the whole
//! run would have counted; times of the agents' own clocks are brought to the moment at which messages began to flow.

use std::{collections::BTreeMap, time::Duration};

use crate::outcome::{Agent, Counts, Cpu, Ended, Interval, Outcome, add_timed};
use crate::problems::Problem;
use crate::tally::End;

/// One outcome of all; those of the agents stay in it.
pub(crate) fn outcomes(agents: Vec<Agent>) -> Outcome {
    let mut all = Outcome::none();
    let mut intervals = BTreeMap::new();
    let wholes = || agents.iter().filter_map(whole);
    let flows_after = wholes().map(|outcome| outcome.flows_after).max().unwrap_or_default();
    for Agent { name, ended, .. } in &agents {
        match ended {
            Ended::Lost(why, counts) => lost(&mut all, name, why, counts),
            Ended::Whole(outcome) => {
                add(&mut all, name, outcome);
                add_intervals(&mut intervals, outcome, flows_after);
            }
        }
    }
    all.flows_after = flows_after;
    all.intervals = intervals.into_values().collect();
    all.agents = agents;
    all
}

fn whole(agent: &Agent) -> Option<&Outcome> {
    match &agent.ended {
        Ended::Whole(outcome) => Some(outcome),
        Ended::Lost(..) => None,
    }
}

fn lost(all: &mut Outcome, name: &str, why: &str, counts: &Counts) {
    all.lost_agents += 1;
    // Its connections are asked for, and nobody can say how they ended.
    all.tally.asked += counts.asked;
    if counts.asked > 0 {
        *all.tally.ends.entry(End::Unknown).or_default() += counts.asked;
    }
    all.tally.note(Problem::AgentLost, 1, || {
        format!("agent {name} is lost: {why}; its part of the run is not in the figures")
    });
}

fn add(all: &mut Outcome, name: &str, one: &Outcome) {
    // Named one by one, so that a new one is not forgotten. What is left out is the leader's, or that of each agent.
    let Outcome {
        ramp,
        ramp_cpu,
        flows_after: _,
        ready,
        rss_before: _,
        rss_open: _,
        rss_after: _,
        elapsed,
        cpu,
        host: _,
        done,
        published,
        workers,
        latencies,
        intervals: _,
        tally,
        timed,
        interrupted,
        server_cores: _,
        server_gone: _,
        interval,
        agents: _,
        lost_agents: _,
    } = one;
    all.ramp = all.ramp.max(*ramp);
    add_cpu(&mut all.ramp_cpu, ramp_cpu);
    all.ready += ready;
    all.elapsed = all.elapsed.max(*elapsed);
    add_cpu(&mut all.cpu, cpu);
    all.done += done;
    all.published += published;
    all.workers += workers;
    all.latencies.add(latencies).expect("the same bounds");
    // Connections have the numbers of their own agent.
    let problems = tally.problems.of(&format!("agent {name}"));
    all.tally.add_beside_problems(tally);
    all.tally.problems.add(&problems);
    timed.iter().for_each(|(what, times)| add_timed(&mut all.timed, *what, times));
    all.interrupted |= interrupted;
    all.interval = all.interval.max(*interval);
}

/// The server's is the leader's to look at.
fn add_cpu(all: &mut Cpu, one: &Cpu) {
    let Cpu { server: _, server_busiest: _, client, busiest } = one;
    all.client += *client;
    all.busiest = all.busiest.max(*busiest);
}

/// Adds an agent's intervals to those of the same time, counted from when messages began to flow.
fn add_intervals(into: &mut BTreeMap<u64, Interval>, one: &Outcome, flows_after: Duration) {
    let earlier = flows_after.saturating_sub(one.flows_after).as_secs_f64();
    let shift = (earlier / one.interval.as_secs_f64().max(1e-9)).round() as u64;
    for interval in &one.intervals {
        let number = interval.number.saturating_add(shift);
        let at_s = interval.at_s + earlier;
        let sum = into.entry(number).or_insert_with(|| Interval {
            number,
            at_s,
            seconds: 0.0,
            measured: false,
            done: 0,
            open: 0,
            latencies: None,
        });
        sum.at_s = sum.at_s.max(at_s);
        sum.seconds = sum.seconds.max(interval.seconds);
        sum.measured |= interval.measured;
        sum.done += interval.done;
        sum.open += interval.open;
        if let Some(latencies) = &interval.latencies {
            sum.keep(latencies);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        problems::TOLD_MAX,
        tally::{Tally, Timed, latencies},
    };

    fn brought(name: &str, times: &[u64], flows_after: Duration) -> Agent {
        let mut outcome = Outcome { flows_after, interval: Duration::from_secs(1), workers: 1, ..Outcome::none() };
        let mut tally = Tally::new();
        (tally.asked, tally.opened) = (3, 3);
        tally.ends.insert(End::Closed, 3);
        (0..15).for_each(|_| tally.note(Problem::Failed, 1, || "connection 1: it broke".to_owned()));
        times.iter().for_each(|time| outcome.latencies.record(*time).expect("within"));
        let mut lag = latencies();
        lag.record(times[0]).expect("within");
        outcome.timed.push((Timed::Lag, lag));
        outcome.done = times.len() as u64;
        outcome.tally = tally;
        outcome.elapsed = Duration::from_secs(2);
        let interval = |number: u64| {
            let mut interval = Interval {
                number,
                at_s: (number + 1) as f64,
                seconds: 1.0,
                measured: true,
                done: 5,
                open: 3,
                latencies: None,
            };
            interval.keep(&outcome.latencies);
            interval
        };
        outcome.intervals = vec![interval(1), interval(2)];
        let machine = (String::new(), String::new(), 2);
        Agent {
            name: name.to_owned(),
            machine,
            round_trip: None,
            began_late: None,
            ended: Ended::Whole(Box::new(outcome)),
        }
    }

    fn gone(name: &str) -> Agent {
        let counts = Counts { asked: 4, ..Counts::default() };
        Agent { ended: Ended::Lost("it ended".to_owned(), counts), ..brought(name, &[1], Duration::ZERO) }
    }

    /// Kills: the histogram of an agent that is left out.
    #[test]
    fn the_sum_is_that_of_all() {
        let (a, b) = ([100, 200, 300, 40_000], [150, 9_000_000, 7]);
        let all = outcomes(vec![brought("a", &a, Duration::from_secs(1)), brought("b", &b, Duration::from_secs(3))]);
        let mut union = latencies();
        a.iter().chain(&b).for_each(|time| union.record(*time).expect("within"));
        assert!(all.latencies == union);
        assert_eq!((all.done, all.workers, all.tally.asked, all.lost_agents), (7, 2, 6, 0));
        assert_eq!(all.timed.len(), 1);
        assert_eq!(all.timed[0].1.len(), 2);
        let lines = all.tally.problems.lines();
        assert_eq!((lines.len(), lines[0].as_str()), (TOLD_MAX + 2, "30 connections failed"));
        assert_eq!(lines[1], "  agent a: connection 1: it broke");
        assert_eq!(lines[TOLD_MAX + 1], "  and 20 more");
        // The first began two seconds earlier than the second, by their own clocks.
        let numbers: Vec<(u64, u64, u64)> =
            all.intervals.iter().map(|interval| (interval.number, interval.done, interval.open)).collect();
        assert_eq!(numbers, [(1, 5, 3), (2, 5, 3), (3, 5, 3), (4, 5, 3)]);
        let same = outcomes(vec![brought("a", &a, Duration::ZERO), brought("b", &b, Duration::ZERO)]);
        let numbers: Vec<(u64, u64)> = same.intervals.iter().map(|interval| (interval.number, interval.done)).collect();
        assert_eq!(numbers, [(1, 10), (2, 10)]);
        let kept: u64 =
            same.intervals.iter().filter_map(|interval| interval.latencies.as_ref()).map(|times| times.len()).sum();
        assert_eq!(kept, 14);
    }

    /// Kills: a dead agent that is not told; its connections that are not accounted for.
    #[test]
    fn who_is_lost_is_told_first() {
        let all = outcomes(vec![brought("a", &[5], Duration::ZERO), gone("b")]);
        let first = all.tally.problems.first().expect("a problem");
        assert!(first.starts_with("agent b is lost: it ended"), "{first}");
        assert_eq!((all.lost_agents, all.tally.asked, all.tally.ends[&End::Unknown]), (1, 7, 4));
        assert_eq!(all.tally.ends.values().sum::<u64>(), all.tally.asked);
        let none = outcomes(vec![gone("a"), gone("b")]);
        assert_eq!((none.lost_agents, none.done), (2, 0));
    }
}
