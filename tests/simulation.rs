//! Whole cores on the simulated ring: seeded clients, seeded faults, and oracles that know what must come back.
//!
//! `RINGWIRE_SIM_SEED=7` runs that seed alone, `RINGWIRE_SIM_SEEDS=1000` so many of them. A failure names its seed, and
//! the same seed fails the same way.

#![allow(unreachable_pub, reason = "the modules of a test crate are reachable from nowhere else")]

#[path = "simulation/driver.rs"]
mod driver;
#[path = "simulation/endpoint.rs"]
mod endpoint;
#[path = "simulation/oracle.rs"]
mod oracle;
#[path = "simulation/toy.rs"]
mod toy;
#[path = "simulation/wire.rs"]
mod wire;

use driver::{Host, Report, Scenario};
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

fn run_toy(scenario: &Scenario) -> Result<Report, String> {
    let bus = toy::Bus::new(scenario.cores);
    driver::run(scenario, |core, ring| -> Box<dyn Host> {
        Box::new(toy::Toy::new(core, ring, scenario.route, bus.clone()))
    })
}

#[test]
fn toy_serves_everybody_without_faults() {
    for route in [Route::Echo, Route::Broadcast] {
        for seed in seeds(10) {
            let scenario = Scenario { faults: Faults::none(), leavers: 0.0, ..Scenario::of(seed, route) };
            let report = run_toy(&scenario).unwrap_or_else(|why| panic!("seed {seed}, {route:?}: {why}"));
            assert_eq!(report.clean, scenario.clients, "seed {seed}, {route:?}: everybody ends cleanly");
        }
    }
}

#[test]
fn toy_survives_harsh_faults_and_meets_every_kind() {
    let mut counts = FaultCounts::default();
    let (mut clean, mut clients) = (0, 0);
    let seeds = seeds(60);
    for route in [Route::Echo, Route::Broadcast] {
        for &seed in &seeds {
            let scenario = Scenario::of(seed, route);
            let report = run_toy(&scenario).unwrap_or_else(|why| panic!("seed {seed}, {route:?}: {why}"));
            counts.add(&report.faults);
            clean += report.clean;
            clients += scenario.clients;
        }
    }
    if seeds.len() > 1 {
        let harsh = Faults::harsh();
        for &fault in Fault::ALL.iter().filter(|&&fault| harsh.chance(fault) > 0.0) {
            assert!(counts.of(fault) > 0, "{fault:?} never happened: {counts}");
        }
        assert!(clean * 4 > clients, "only {clean} of {clients} ended cleanly: the oracles saw too little");
    }
}

#[test]
fn same_seed_is_the_same_run() {
    let run = |seed| {
        let report = run_toy(&Scenario::of(seed, Route::Broadcast)).expect("a run without a finding");
        (report.fingerprint, report.faults, report.clean, report.messages)
    };
    assert_eq!(run(3), run(3));
    assert_ne!(run(3).0, run(4).0);
}

/// The canary of the oracles: every planted bug is found, without any other fault and on most seeds.
#[test]
fn planted_bugs_are_found() {
    for route in [Route::Echo, Route::Broadcast] {
        for mutant in Mutant::ALL {
            let found = (0..10).filter(|&seed| {
                let scenario = Scenario { faults: Faults::none(), mutant: Some(mutant), ..Scenario::of(seed, route) };
                run_toy(&scenario).is_err()
            });
            let found = found.count();
            assert!(found >= 8, "{mutant:?} on {route:?} was found only {found} times in 10");
        }
    }
}
