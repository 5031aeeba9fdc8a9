//! Seeded runs of the client's driver, with and without faults.
//!
//! Masking keys and handshakes are the kernel's random bytes here too, on which no way that a run takes depends; the random
//! delays of those who come back would, so they are zero.

use std::panic::{AssertUnwindSafe, catch_unwind};

use ringwire::engine::sim::{Fault, Mutant};

use crate::client_driver::{Report, Scenario, run};
use crate::failures::Failures;
use crate::table::Table;

/// As [`run`], with assertions that failed among what was wrong.
fn try_run(scenario: &Scenario) -> Result<Report, String> {
    catch_unwind(AssertUnwindSafe(|| run(scenario))).unwrap_or_else(|_| Err("a panic".to_owned()))
}

fn must(scenario: &Scenario) -> Report {
    run(scenario).unwrap_or_else(|why| panic!("seed {}: {why}", scenario.seed))
}

#[test]
fn without_faults_every_visit_ends_in_order() {
    for seed in crate::seeds(25) {
        let report = must(&Scenario::of(seed).calm());
        let ends = ["not opened: Broken", "not opened: Connect", "broken", "closed with 1006"];
        let rows = report.table.to_string();
        assert!(!ends.iter().any(|end| rows.contains(end)), "seed {seed}:\n{rows}");
    }
}

#[test]
fn a_client_survives_harsh_faults_of_every_kind() {
    let seeds = crate::seeds(110);
    let mut table = Table::default();
    let mut clean = 0;
    let mut failures = Failures::default();
    for &seed in &seeds {
        match try_run(&Scenario::of(seed)) {
            Ok(report) => {
                table.add_all(&report.table);
                clean += report.clean;
            }
            Err(why) => failures.add(format!("seed {seed}: {why}")),
        }
    }
    println!("{table}");
    failures.expect_none();
    if seeds.len() < 100 {
        return;
    }
    let faults = Scenario::of(0).faults;
    // The server's cores do not ring for each other here.
    let possible = |fault: &&Fault| faults.chance(**fault) > 0.0 && **fault != Fault::DoorbellLate;
    for fault in Fault::ALL.iter().filter(possible) {
        assert!(table.of(&format!("fault {fault:?}")) > 0, "{fault:?} never happened:\n{table}");
    }
    assert!(clean as usize > seeds.len(), "too few ended in order, the judge saw too little:\n{table}");
    for what in [
        "slot reused",
        "gave up",
        "handle dropped",
        "closed with 4001, clean",
        "closed with 4001, clean, TLS",
        "not opened: Prepare",
        "not opened: Refused",
        "not opened: Handshake",
        "not opened: Timeout",
        "not opened: Connect",
        "broken: Protocol",
        "broken: Broken",
        "broken: Timeout",
    ] {
        assert!(table.of(what) > 0, "never: {what}\n{table}");
    }
}

#[test]
fn the_same_seed_is_the_same_run_of_a_client() {
    for seed in [5, 8] {
        assert_eq!(must(&Scenario::of(seed)), must(&Scenario::of(seed)));
    }
    assert_ne!(must(&Scenario::of(5)).fingerprint, must(&Scenario::of(6)).fingerprint);
}

/// The canary of the judge: bugs of the client's ring are found.
#[test]
fn planted_bugs_of_a_clients_ring_are_found() {
    for mutant in [Mutant::LoseByte, Mutant::DuplicateByte, Mutant::ReorderSends] {
        for is_secure in [false, true] {
            let scenario = |seed| Scenario { mutant: Some(mutant), is_secure, ..Scenario::of(seed).calm() };
            let found = (0..10).filter(|&seed| try_run(&scenario(seed)).is_err()).count();
            assert!(found >= 8, "{mutant:?}, TLS {is_secure}: found only {found} times in 10");
        }
    }
}
