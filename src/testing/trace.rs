//! What happened in a run, for people to read and for two runs to be compared.

use std::collections::VecDeque;
use std::fmt::{self, Write as _};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

/// Lines that are kept; of a longer run, the last ones.
const LINES_MAX: usize = 1000;

#[derive(Default)]
pub(super) struct Trace {
    lines: VecDeque<String>,
    /// Of every line there ever was, and of what a line only names the length of.
    digest: u64,
}

impl Trace {
    /// Notes what `whom` (a client) did or saw; `payload` counts whole in the digest, however much of it is shown.
    pub(super) fn note(&mut self, now_ns: u64, whom: &dyn fmt::Display, what: fmt::Arguments<'_>, payload: &[u8]) {
        let mut line = String::new();
        let (ms, us) = (now_ns / 1_000_000, now_ns / 1_000 % 1_000);
        let _ = write!(line, "{ms:>6}.{us:03} ms  {whom} {what}");
        let mut hasher = DefaultHasher::new();
        (self.digest, now_ns, &line, payload).hash(&mut hasher);
        self.digest = hasher.finish();
        if self.lines.len() == LINES_MAX {
            self.lines.pop_front();
        }
        self.lines.push_back(line);
    }

    pub(super) fn digest(&self) -> u64 {
        self.digest
    }

    /// The last `count` lines.
    pub(super) fn last(&self, count: usize) -> String {
        let mut text = String::new();
        for line in self.lines.iter().skip(self.lines.len().saturating_sub(count)) {
            text.push_str(line);
            text.push('\n');
        }
        text
    }

    pub(super) fn all(&self) -> String {
        self.last(LINES_MAX)
    }
}
