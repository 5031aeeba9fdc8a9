//! Whole cores on the simulated ring: seeded clients, seeded faults, and oracles that know what must come back.
//!
//! `RINGWIRE_SIM_SEED=7` runs that seed alone, `RINGWIRE_SIM_SEEDS=1000` so many of them, from `RINGWIRE_SIM_FROM` on. A
//! failure names its seed, and the same seed fails the same way. What happened in the runs, fault by fault, is printed as a
//! table. At scale, on all processors and with the code's own assertions:
//!
//! ```sh
//! RINGWIRE_SIM_SEEDS=20000 cargo test --profile proof --test simulation harsh -- --nocapture
//! ```

#![allow(unreachable_pub, reason = "the modules of a test crate are reachable from nowhere else")]

mod apps;
mod balance;
mod chatter;
mod client_driver;
mod client_host;
mod client_judge;
mod client_lives;
mod client_runs;
mod client_users;
mod driver;
mod endpoint;
mod ends;
mod failures;
mod host;
mod joins;
mod lives;
mod mail;
mod memory;
mod operators;
mod oracle;
mod order;
mod pitfalls;
mod requests;
#[allow(dead_code, reason = "the three ways use more of it")]
mod rig;
mod routes;
#[allow(dead_code, reason = "the fuzz targets use more of it")]
mod secure;
mod slow;
mod streams;
mod table;
mod tasks;
mod turns;
mod waits;
mod wire;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use driver::{Report, Scenario};
use failures::Failures;
use oracle::Route;
use ringwire::config::Deflate;
use ringwire::engine::sim::{Fault, Faults, Mutant};
use ringwire::marks::Mark;
use table::Table;

/// The seeds to run: all of them in a row, or the one that the environment names.
fn seeds(default_count: u64) -> Vec<u64> {
    let variable = |name| std::env::var(name).ok().map(|value| value.parse().expect("a number"));
    let first = variable("RINGWIRE_SIM_FROM").unwrap_or(0);
    match (variable("RINGWIRE_SIM_SEED"), variable("RINGWIRE_SIM_SEEDS")) {
        (Some(seed), _) => vec![seed],
        (None, count) => (first..first + count.unwrap_or(default_count)).collect(),
    }
}

const ROUTES: [Route; 3] = [Route::Echo, Route::Broadcast, Route::Rooms];

fn run(scenario: &Scenario) -> Report {
    driver::run(scenario).unwrap_or_else(|why| panic!("seed {}, {:?}: {why}", scenario.seed, scenario.route))
}

#[test]
fn everybody_is_served_without_faults() {
    for route in ROUTES {
        for seed in seeds(12) {
            let scenario = Scenario::of(seed, route).calm();
            let report = run(&scenario);
            assert_eq!(report.clean, scenario.clients, "seed {seed}, {route:?}: everybody ends cleanly");
            assert!(report.letters > 0, "seed {seed}, {route:?}: the cores talk to each other");
        }
    }
}

/// A way to use a server, and the run of it that a seed makes.
type Variant = (&'static str, fn(u64) -> Scenario);

const VARIANTS: [Variant; 21] = [
    ("echo", |seed| Scenario::of(seed, Route::Echo)),
    ("broadcast", |seed| Scenario::of(seed, Route::Broadcast)),
    ("rooms", |seed| Scenario::of(seed, Route::Rooms)),
    ("a handler that waits", |seed| patient(apps::waiting_handler, seed)),
    ("a task", |seed| patient(apps::waiting_task, seed)),
    ("an on_close", |seed| Scenario { app: apps::told, tells: true, ..Scenario::of(seed, Route::Echo) }),
    ("echo within time limits", |seed| Scenario::of(seed, Route::Echo).dropping()),
    ("broadcast within time limits", |seed| Scenario::of(seed, Route::Broadcast).dropping()),
    // Nobody is owed everything here: a Close of one's own may cross with the 1013, and is then answered as it was said.
    ("broadcast to slow consumers", |seed| Scenario {
        grace_ns: u64::MAX,
        outbox_bytes_max: 6_000,
        payload_bytes_max: 2_000,
        ..Scenario::of(seed, Route::Broadcast)
    }),
    ("echo of cores that share a listener", |seed| Scenario { shared: true, ..Scenario::of(seed, Route::Echo) }),
    ("broadcast of cores that share a listener, within time limits", |seed| Scenario {
        shared: true,
        ..Scenario::of(seed, Route::Broadcast).dropping()
    }),
    ("echo with TLS", |seed| Scenario { tls: true, ..Scenario::of(seed, Route::Echo) }),
    ("broadcast with TLS", |seed| Scenario { tls: true, ..Scenario::of(seed, Route::Broadcast) }),
    ("rooms with TLS within time limits", |seed| Scenario { tls: true, ..Scenario::of(seed, Route::Rooms).dropping() }),
    ("rooms within time limits", |seed| Scenario::of(seed, Route::Rooms).dropping()),
    ("broadcast in shared streams", |seed| deflated(Deflate::Shared, Scenario::of(seed, Route::Broadcast))),
    ("rooms in shared streams within time limits", |seed| {
        deflated(Deflate::Shared, Scenario::of(seed, Route::Rooms).dropping())
    }),
    ("rooms in shared streams to slow consumers with TLS", |seed| {
        let of =
            Scenario { tls: true, grace_ns: u64::MAX, outbox_bytes_max: 6_000, ..Scenario::of(seed, Route::Rooms) };
        deflated(Deflate::Shared, Scenario { payload_bytes_max: 2_000, ..of })
    }),
    ("echo in contexts", |seed| deflated(Deflate::Dedicated, Scenario::of(seed, Route::Echo))),
    ("rooms in contexts", |seed| deflated(Deflate::Dedicated, Scenario::of(seed, Route::Rooms))),
    ("broadcast compressed", |seed| deflated(Deflate::Stateless, Scenario::of(seed, Route::Broadcast))),
];

fn deflated(deflate: Deflate, of: Scenario) -> Scenario {
    Scenario { deflate, messages_max: 24, ..of }
}

fn patient(app: fn() -> ringwire::App, seed: u64) -> Scenario {
    Scenario { app, patient: true, stay: false, ..Scenario::of(seed, Route::Echo) }
}

/// Runs each variant under each seed, on all processors; what failed, and what happened in the others.
fn run_all(seeds: &[u64]) -> (Failures, Table) {
    let next = AtomicUsize::new(0);
    let results = Mutex::new((Failures::default(), Table::default()));
    let work = || {
        let mut mine = Table::default();
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            let Some(&seed) = seeds.get(number / VARIANTS.len()) else { break };
            let (name, scenario) = VARIANTS[number % VARIANTS.len()];
            // What it was that panicked is on standard error.
            let result = catch_unwind(AssertUnwindSafe(|| driver::run(&scenario(seed))));
            match result.unwrap_or_else(|_| Err("a panic".to_owned())) {
                Ok(report) => mine.add_all(&report.table),
                Err(why) => results.lock().expect("no panic").0.add(format!("seed {seed}, {name}: {why}")),
            }
        }
        results.lock().expect("no panic").1.add_all(&mine);
    };
    let threads = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| (0..threads).for_each(|_| drop(scope.spawn(work))));
    results.into_inner().expect("no panic")
}

#[test]
fn harsh_faults_of_every_kind_are_survived() {
    let seeds = seeds(25);
    let (failures, table) = run_all(&seeds);
    println!("{table}");
    failures.expect_none();
    if seeds.len() < 10 {
        return;
    }
    let harsh = Faults::harsh();
    for &fault in Fault::ALL.iter().filter(|&&fault| harsh.chance(fault) > 0.0) {
        assert!(table.of(&format!("fault {fault:?}")) > 0, "{fault:?} never happened:\n{table}");
    }
    let clients: u64 = ["Clean", "Left", "Broken"].map(|end| table.of(&format!("end {end}"))).iter().sum();
    assert!(table.of("end Clean") * 5 > clients, "too few ended cleanly, the oracles saw too little:\n{table}");
    let (runs, talks) = (table.of("run"), table.of("run with letters between cores"));
    assert!(talks * 10 > runs * 9, "in {talks} of {runs} runs the cores talked to each other");
    for what in [
        "end ServerClosed(Some(1013))",
        "slot reused",
        "round with mail that found no room",
        "connection dropped by a time limit",
        "message received compressed",
        "message inflated",
        "stream begun anew",
        "operator answered",
    ] {
        assert!(table.of(what) > 0, "never: {what}");
    }
    // No budget here, and descriptors enough; two letters of one call for one core are in `lives.rs`.
    let elsewhere = [Mark::ShedForMemory, Mark::AcceptBacksOff, Mark::LetterKeepsItsPlace];
    if cfg!(debug_assertions) {
        for mark in Mark::ALL.iter().filter(|mark| !elsewhere.contains(mark)) {
            assert!(table.of(&format!("mark {mark:?}")) > 0, "never: {mark:?}\n{table}");
        }
    }
}

#[test]
fn same_seed_is_the_same_run() {
    let run = |seed| {
        let report = run(&Scenario::of(seed, Route::Broadcast));
        (report.fingerprint, report.table, report.clean, report.messages)
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
                let of = Scenario::of(seed, route);
                let scenario = Scenario { faults: Faults::none(), mutant: Some(mutant), drains: false, ..of };
                driver::run(&scenario).is_err()
            });
            let found = found.count();
            assert!(found >= 8, "{mutant:?} on {route:?} was found only {found} times in 10");
        }
    }
}
