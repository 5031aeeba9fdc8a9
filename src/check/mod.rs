//! Whether this machine can run the server with the given settings, and what to change where it cannot.
//!
//! [`check`] gathers the facts and judges them; `ringwire check` prints the [`Report`], and [`require`] is the short
//! form for a start. The judging is a pure function of the facts, so that every verdict can be tested on any machine.
//!
//! Knows of this crate: `config`, `engine`, `error`, `machine`, `tls`.

#[cfg(feature = "tls")]
mod certificates;
mod facts;
mod judge;
mod needs;
mod network;
mod ports;
mod report;

use crate::config::Config;
use crate::error::{Error, Result};
use facts::{Attempt, Facts};

pub use report::{Finding, Report, Verdict};

/// Looks at everything that the server depends on. Changes nothing.
pub fn check(config: &Config) -> Report {
    judge::report(config, &Facts::gather(config, Attempt::Whole))
}

/// What a start needs.
///
/// # Errors
/// [`Error::Config`] when the settings name processors that this process may not use; [`Error::Unavailable`] with the
/// first thing that keeps the server from running.
pub fn require(config: &Config) -> Result<()> {
    let facts = Facts::gather(config, Attempt::Small);
    config.cpus(facts.usable_cpus(config))?;
    match judge::report(config, &facts).obstacles().next() {
        None => Ok(()),
        Some(finding) => Err(Error::Unavailable(format!(
            "{}: {} (should be: {}). {}",
            finding.what,
            finding.found,
            finding.wanted,
            finding.remedy.as_deref().unwrap_or_default()
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_runs_the_tests_so_it_can_run_the_server() {
        let addresses = vec!["127.0.0.1:0".parse().expect("an address")];
        let config = Config::default().addresses(addresses);
        let report = check(&config);
        assert_eq!(report.exit_code(), 0, "{report}");
        require(&config).expect("nothing is bad");
    }
}
