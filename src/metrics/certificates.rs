//! The certificates that a server shows, as metrics tell of them.

use super::{Counts, ReloadResult};

/// What is told of the certificates that were read from files.
///
/// ```
/// use ringwire::metrics::Certificates;
///
/// /// Names whose certificates expire within two weeks.
/// fn urgent(certificates: &Certificates, now_unix_s: u64) -> Vec<&str> {
///     let soon = now_unix_s + 14 * 86_400;
///     certificates.shown.iter().filter(|shown| shown.at_unix_s < soon).map(|shown| shown.name.as_str()).collect()
/// }
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Certificates {
    /// Those that are shown now.
    pub shown: Vec<Expiry>,
    /// Times that the files were read anew since the start, by what came of it.
    pub reloads: Counts<ReloadResult>,
}

/// A certificate that is shown.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Expiry {
    /// The first name that it is for.
    pub name: String,
    /// When it expires, in seconds of Unix time.
    pub at_unix_s: u64,
}

impl Expiry {
    /// One that is for this name first, and expires then.
    ///
    /// ```
    /// use ringwire::metrics::{Certificates, Expiry};
    ///
    /// // For a test of what looks at them.
    /// let mut certificates = Certificates::default();
    /// certificates.shown = vec![Expiry::new("chat.example.org", 2_000_000_000)];
    /// assert_eq!(certificates.shown[0].name, "chat.example.org");
    /// ```
    pub fn new(name: impl Into<String>, at_unix_s: u64) -> Expiry {
        Expiry { name: name.into(), at_unix_s }
    }
}
