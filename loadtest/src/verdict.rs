//! How the program ends; see the README.

use std::error::Error;

/// The exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Verdict {
    Passed = 0,
    Problems = 1,
    NotMeasured = 2,
    ObjectiveMissed = 3,
}

/// What came of something, or why nothing could be measured.
pub(crate) type Outcome<T> = Result<T, Box<dyn Error>>;
