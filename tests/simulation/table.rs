//! What happened in some runs, how often.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

/// Counts by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Table {
    rows: BTreeMap<Cow<'static, str>, u64>,
}

impl Table {
    pub fn add(&mut self, name: impl Into<Cow<'static, str>>, count: u64) {
        *self.rows.entry(name.into()).or_default() += count;
    }

    pub fn add_all(&mut self, other: &Table) {
        other.rows.iter().for_each(|(name, count)| self.add(name.clone(), *count));
    }

    pub fn of(&self, name: &str) -> u64 {
        self.rows.get(name).copied().unwrap_or(0)
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, count) in &self.rows {
            writeln!(f, "{name:<64} {count:>12}")?;
        }
        Ok(())
    }
}
