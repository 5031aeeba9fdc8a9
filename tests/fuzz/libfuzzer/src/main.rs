//! The fuzz targets under libFuzzer: `FUZZ_TARGET` names the one to run. See `.ci/fuzz`.

#![no_main]
#![allow(unreachable_pub, dead_code)]

#[path = "../../../simulation/host.rs"]
mod host;
#[path = "../../../wire/mod.rs"]
mod protocol;
#[path = "../../../simulation/rig.rs"]
mod rig;
#[path = "../../../simulation/secure.rs"]
mod secure;
#[path = "../../targets/mod.rs"]
mod targets;
#[path = "../../../simulation/wire.rs"]
mod wire;

use std::sync::OnceLock;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    static RUN: OnceLock<fn(&[u8])> = OnceLock::new();
    let run = RUN.get_or_init(|| {
        let name = std::env::var("FUZZ_TARGET").expect("FUZZ_TARGET names a target");
        targets::named(&name).unwrap_or_else(|| panic!("there is no target {name}")).run
    });
    run(data);
});
