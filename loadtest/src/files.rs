//! The files that a run reads: those of this machine, or, where another one has ordered the run, what it has sent of its own.
//! An agent opens no file that a leader names.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

/// A text without the mark that some programs write before it (U+FEFF in UTF-8).
pub(crate) fn without_mark(bytes: &[u8]) -> &[u8] {
    bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes)
}

/// Files by their names, as the run has them.
pub(crate) type Contents = BTreeMap<PathBuf, Vec<u8>>;

/// See the module. Each file is read once, and the same in all rounds.
#[derive(Debug)]
pub(crate) struct Files {
    sent: Option<Contents>,
    read: Mutex<Contents>,
}

impl Files {
    /// Those of this machine.
    pub(crate) fn here() -> Files {
        Files { sent: None, read: Mutex::default() }
    }

    /// Those that were sent, and no others.
    pub(crate) fn sent(contents: Contents) -> Files {
        Files { sent: Some(contents), read: Mutex::default() }
    }

    pub(crate) fn are_here(&self) -> bool {
        self.sent.is_none()
    }

    /// A file's bytes.
    ///
    /// # Errors
    /// The system's; or if it was not sent.
    pub(crate) fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        let Some(sent) = &self.sent else {
            let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
            // A pipe can be read once.
            if let Some(known) = read.get(path) {
                return Ok(known.clone());
            }
            let bytes = fs::read(path)?;
            read.insert(path.to_owned(), bytes.clone());
            return Ok(bytes);
        };
        sent.get(path).cloned().ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "it was not sent with the run"))
    }

    /// What has been read of this machine's.
    pub(crate) fn known(&self) -> Contents {
        self.read.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Kills: an agent that opens the file of a name that a leader has sent.
    #[test]
    fn what_was_not_sent_is_not_there() {
        let files = Files::sent(Contents::from([(PathBuf::from("a.toml"), b"x".to_vec())]));
        assert_eq!(files.read(Path::new("a.toml")).expect("sent"), b"x");
        for path in ["/etc/hostname", "/proc/self/status", "../a.toml"] {
            let error = files.read(Path::new(path)).expect_err("not sent");
            assert!(error.to_string().contains("not sent"), "{error}");
        }
    }

    #[test]
    fn what_was_read_is_known() {
        let files = Files::here();
        let path = Path::new("/proc/self/comm");
        assert!(files.read(path).is_ok() && files.read(Path::new("/nowhere/x")).is_err());
        assert_eq!(files.known().keys().collect::<Vec<_>>(), [path]);
    }
}
