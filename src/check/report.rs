//! What was found, and how good it is.

use std::fmt;

use crate::error::exit;

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

impl Finding {
    pub(super) fn good(what: &'static str, found: impl Into<String>, wanted: impl Into<String>) -> Finding {
        Finding { verdict: Verdict::Good, what, found: found.into(), wanted: wanted.into(), remedy: None }
    }

    pub(super) fn but(self, verdict: Verdict, remedy: impl Into<String>) -> Finding {
        Finding { verdict, remedy: Some(remedy.into()), ..self }
    }
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
