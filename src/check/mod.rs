//! Whether this machine can run the server with the given settings, and what to change where it cannot.
//!
//! [`check`] gathers the facts and judges them; `ringwire check` prints the [`Report`], and [`require`] is the short
//! form for a start. The judging is a pure function of the facts, so that every verdict can be tested on any machine.

mod facts;
mod judge;
mod needs;

use std::fmt;

use crate::config::Config;
use crate::error::{Error, Result, exit};
use facts::{Attempt, Facts};

/// How good something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// As it should be.
    Good,
    /// The server runs, but with less than the settings ask for.
    Advice,
    /// The server cannot run.
    Bad,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Finding {
    /// How good it is.
    pub verdict: Verdict,
    /// Its name.
    pub what: &'static str,
    /// What it is.
    pub found: String,
    /// What it should be.
    pub wanted: String,
    /// How to change it, unless it is good.
    pub remedy: Option<String>,
}

/// Everything that was looked at. Its `Display` is what `ringwire check` prints.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Report {
    /// One by one.
    pub findings: Vec<Finding>,
}

impl Report {
    /// What keeps the server from running.
    pub fn obstacles(&self) -> impl Iterator<Item = &Finding> {
        let bad = |finding: &&Finding| finding.verdict == Verdict::Bad;
        self.findings.iter().filter(bad)
    }

    /// The exit code of `ringwire check`: 0, or 78 if something keeps the server from running.
    pub fn exit_code(&self) -> u8 {
        match self.obstacles().next() {
            None => 0,
            Some(_) => exit::CONFIG,
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for finding in &self.findings {
            let verdict = match finding.verdict {
                Verdict::Good => "ok",
                Verdict::Advice => "advice",
                Verdict::Bad => "bad",
            };
            writeln!(f, "{verdict:<7} {}: {}", finding.what, finding.found)?;
            writeln!(f, "        should be: {}", finding.wanted)?;
            if let Some(remedy) = &finding.remedy {
                writeln!(f, "        change it: {remedy}")?;
            }
        }
        match self.obstacles().count() {
            0 => writeln!(f, "ringwire can run here"),
            1 => writeln!(f, "ringwire cannot run here: 1 thing is bad"),
            count => writeln!(f, "ringwire cannot run here: {count} things are bad"),
        }
    }
}

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
        let config = Config::default();
        let report = check(&config);
        assert_eq!(report.exit_code(), 0, "{report}");
        require(&config).expect("nothing is bad");
    }
}
