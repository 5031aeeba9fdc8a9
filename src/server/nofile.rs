//! The limit of open files, which bounds how many connections there may be.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::error::{Error, Result};

/// Raises the soft limit of open files to the hard one, and tells the result.
///
/// # Errors
/// When the kernel refuses; the limit is then as before.
pub(super) fn raise() -> Result<u64> {
    let refused = |errno: nix::Error| Error::Io {
        context: String::from("cannot raise the limit of open files"),
        source: errno.into(),
    };
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).map_err(refused)?;
    if soft < hard {
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard).map_err(refused)?;
    }
    Ok(hard)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_of_open_files_is_raised() {
        let hard = raise().expect("allowed");
        assert_eq!(getrlimit(Resource::RLIMIT_NOFILE).expect("a limit"), (hard, hard));
    }
}
