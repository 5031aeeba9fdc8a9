//! Fuzzing, as an ordinary test: what `fuzz/corpus` has, and some thousand mutations of it under fixed seeds.
//!
//! `.ci/fuzz` runs the same targets for as long as one likes under libFuzzer, which follows the code's coverage; what it
//! finds becomes a test in `fuzz/finds.rs`.

#![allow(unreachable_pub, reason = "the modules of a test crate are reachable from nowhere else")]

#[path = "fuzz/finds.rs"]
mod finds;
#[path = "simulation/host.rs"]
#[allow(dead_code)]
mod host;
#[path = "fuzz/mutate.rs"]
mod mutate;
#[path = "wire/mod.rs"]
mod protocol;
#[path = "simulation/rig.rs"]
#[allow(dead_code)]
mod rig;
#[path = "simulation/secure.rs"]
#[allow(dead_code)]
mod secure;
#[path = "fuzz/targets/mod.rs"]
mod targets;
#[path = "simulation/wire.rs"]
#[allow(dead_code)]
mod wire;

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::PathBuf;

use ringwire::engine::sim::Rng;
use targets::{TARGETS, Target, named};

/// The target's inputs that are kept, in the order of their names.
fn corpus(target: &Target) -> Vec<(String, Vec<u8>)> {
    let directory = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus").join(target.name);
    let files = std::fs::read_dir(&directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
    let mut inputs: Vec<(String, Vec<u8>)> = files
        .map(|file| {
            let path = file.expect("an entry").path();
            (path.display().to_string(), std::fs::read(&path).expect("a file"))
        })
        .collect();
    inputs.sort();
    inputs
}

/// Runs a target on an input, and says which it was if it fails.
fn try_input(target: &Target, name: &str, input: &[u8]) {
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| (target.run)(input))) {
        eprintln!("fuzz target {}, {name}: b\"{}\"", target.name, input.escape_ascii());
        resume_unwind(panic);
    }
}

fn smoke(name: &str) {
    let target = named(name).expect("a target");
    let corpus = corpus(target);
    assert!(corpus.len() > 3, "{name} has hardly a corpus");
    for (file, input) in &corpus {
        try_input(target, file, input);
    }
    let inputs: Vec<&[u8]> = corpus.iter().map(|(_, input)| input.as_slice()).collect();
    let mut rng = Rng::new(1);
    for number in 0..target.smoke_inputs {
        let input = mutate::mutated(&inputs, &mut rng);
        try_input(target, &format!("mutation {number}"), &input);
    }
}

macro_rules! smoke_runs {
    ($($name:ident)*) => {
        $(#[test]
        fn $name() {
            smoke(stringify!($name));
        })*

        #[test]
        fn every_target_has_a_smoke_run() {
            let names: Vec<&str> = TARGETS.iter().map(|target| target.name).collect();
            assert_eq!(names, [$(stringify!($name)),*]);
        }
    };
}

smoke_runs!(frames http handshake close settings utf8 mask proxy extensions inflate tls events shard);

/// The kept inputs are for reading too: a corpus that swells hides what it is about.
#[test]
fn the_corpus_stays_small() {
    let bytes: usize = TARGETS.iter().flat_map(corpus).map(|(_, input)| input.len()).sum();
    assert!(bytes < 300 << 10, "{bytes} bytes");
}
