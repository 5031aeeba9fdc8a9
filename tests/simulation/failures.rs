//! What went wrong in many runs.

/// Most of them that are told again at the end.
const SHOWN_MAX: usize = 20;

/// Each is told at once, since a run of many seeds may be ended before its end.
#[derive(Debug, Default)]
pub struct Failures(Vec<String>);

impl Failures {
    pub fn add(&mut self, failure: String) {
        eprintln!("{failure}");
        self.0.push(failure);
    }

    /// # Panics
    /// If there are any.
    pub fn expect_none(&self) {
        let shown = &self.0[..self.0.len().min(SHOWN_MAX)];
        assert!(self.0.is_empty(), "{} failures:\n{}", self.0.len(), shown.join("\n"));
    }
}
