//! Whole cores on the simulated ring: seeded clients, seeded faults, and oracles that know what must come back.
//!
//! `RINGWIRE_SIM_SEED=7` runs that seed alone, `RINGWIRE_SIM_SEEDS=1000` so many of them. A failure names its seed, and
//! the same seed fails the same way.

#![allow(unreachable_pub, reason = "the modules of a test crate are reachable from nowhere else")]

#[path = "simulation/apps.rs"]
mod apps;
#[path = "simulation/driver.rs"]
mod driver;
#[path = "simulation/endpoint.rs"]
mod endpoint;
#[path = "simulation/host.rs"]
mod host;
#[path = "simulation/lives.rs"]
mod lives;
#[path = "simulation/memory.rs"]
mod memory;
#[path = "simulation/oracle.rs"]
mod oracle;
#[path = "simulation/pitfalls.rs"]
mod pitfalls;
#[path = "simulation/rig.rs"]
mod rig;
#[path = "simulation/slow.rs"]
mod slow;
#[path = "simulation/wire.rs"]
mod wire;

use driver::{Report, Scenario};
use oracle::Route;
use ringwire::engine::sim::{Fault, FaultCounts, Faults, Mutant};

/// The seeds to run: all of them in a row, or the one that the environment names.
fn seeds(default_count: u64) -> Vec<u64> {
    let variable = |name| std::env::var(name).ok().map(|value| value.parse().expect("a number"));
    match (variable("RINGWIRE_SIM_SEED"), variable("RINGWIRE_SIM_SEEDS")) {
        (Some(seed), _) => vec![seed],
        (None, count) => (0..count.unwrap_or(default_count)).collect(),
    }
}

const ROUTES: [Route; 3] = [Route::Echo, Route::Broadcast, Route::Rooms];

fn run(scenario: &Scenario) -> Report {
    driver::run(scenario).unwrap_or_else(|why| panic!("seed {}, {:?}: {why}", scenario.seed, scenario.route))
}

#[test]
fn everybody_is_served_without_faults() {
    for route in ROUTES {
        for seed in seeds(30) {
            let scenario =
                Scenario { faults: Faults::none(), leavers: 0.0, drains: false, ..Scenario::of(seed, route) };
            let report = run(&scenario);
            assert_eq!(report.clean, scenario.clients, "seed {seed}, {route:?}: everybody ends cleanly");
        }
    }
}

#[test]
fn harsh_faults_of_every_kind_are_survived() {
    let mut counts = FaultCounts::default();
    let (mut clean, mut clients) = (0, 0);
    let seeds = seeds(100);
    for route in ROUTES {
        for &seed in &seeds {
            let scenario = Scenario::of(seed, route);
            let report = run(&scenario);
            counts.add(&report.faults);
            clean += report.clean;
            clients += scenario.clients;
        }
    }
    if seeds.len() > 1 {
        let harsh = Faults::harsh();
        let happens = |&&fault: &&Fault| harsh.chance(fault) > 0.0;
        for &fault in Fault::ALL.iter().filter(happens) {
            assert!(counts.of(fault) > 0, "{fault:?} never happened: {counts}");
        }
        assert!(clean * 4 > clients, "only {clean} of {clients} ended cleanly: the oracles saw too little");
    }
}

#[test]
fn same_seed_is_the_same_run() {
    let run = |seed| {
        let report = run(&Scenario::of(seed, Route::Broadcast));
        (report.fingerprint, report.faults, report.clean, report.messages)
    };
    assert_eq!(run(3), run(3));
    assert_ne!(run(3).0, run(4).0);
}

/// The canary of the oracles: every planted bug is found, without any other fault and on most seeds.
#[test]
fn planted_bugs_are_found() {
    for route in ROUTES {
        for mutant in Mutant::ALL {
            let found = (0..10).filter(|&seed| {
                let scenario = Scenario {
                    faults: Faults::none(),
                    mutant: Some(mutant),
                    drains: false,
                    ..Scenario::of(seed, route)
                };
                driver::run(&scenario).is_err()
            });
            let found = found.count();
            assert!(found >= 8, "{mutant:?} on {route:?} was found only {found} times in 10");
        }
    }
}
