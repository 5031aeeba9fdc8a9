//! What is written for others to read: files, each looked at before a run begins and written when it is over, and standard output.
//! Whatever cannot be written is told with the option and the path that asked for it.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write as _},
    path::{Path, PathBuf},
};

/// A file that is to be written.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sink<'a> {
    /// The option that names it.
    option: &'static str,
    path: &'a Path,
    /// Several may write to it, each behind the others.
    is_shared: bool,
}

impl<'a> Sink<'a> {
    /// One that has this alone in it.
    pub(crate) fn new(option: &'static str, path: &'a Path) -> Sink<'a> {
        Sink { option, path, is_shared: false }
    }

    /// One that this is appended to.
    pub(crate) fn shared(option: &'static str, path: &'a Path) -> Sink<'a> {
        Sink { is_shared: true, ..Sink::new(option, path) }
    }

    fn told(&self, error: &io::Error) -> String {
        format!("{} {}: {error}", self.option, self.path.display())
    }

    /// Whether it could be written now. Leaves what is there as it is, and nothing where nothing was. The path of the file itself,
    /// which is the same however it is named; none of a device or a pipe, which keep what several write.
    fn check(&self) -> io::Result<Option<PathBuf>> {
        let is_there = match fs::metadata(self.path) {
            Ok(there) if there.is_dir() => return Err(io::ErrorKind::IsADirectory.into()),
            // A pipe would wait for its reader.
            Ok(there) if !there.is_file() => return Ok(None),
            there => there.is_ok(),
        };
        OpenOptions::new().append(true).create(!is_there).open(self.path)?;
        // Where it is a link, what it leads to.
        let itself = fs::canonicalize(self.path)?;
        if !is_there {
            fs::remove_file(&itself)?;
        }
        Ok(Some(itself))
    }

    /// Writes it.
    ///
    /// # Errors
    /// The system's, with the option and the path.
    pub(crate) fn write(&self, text: &[u8]) -> Result<(), String> {
        let mut options = OpenOptions::new();
        let options = if self.is_shared { options.append(true) } else { options.write(true).truncate(true) };
        let written = options.create(true).open(self.path).and_then(|mut file| file.write_all(text));
        written.map_err(|error| self.told(&error))
    }
}

/// Looks at files that are to be written.
///
/// # Errors
/// If one cannot be, or two are the same.
pub(crate) fn check(sinks: &[Sink<'_>]) -> Result<(), String> {
    let mut known: Vec<(&Sink<'_>, PathBuf)> = Vec::new();
    for sink in sinks {
        let Some(file) = sink.check().map_err(|error| sink.told(&error))? else { continue };
        if let Some((other, _)) = known.iter().find(|(_, other)| *other == file) {
            return Err(format!("{} and {} are both {}", other.option, sink.option, sink.path.display()));
        }
        known.push((sink, file));
    }
    Ok(())
}

/// Writes to standard output.
///
/// # Errors
/// The system's: nobody may read it any more.
pub(crate) fn print(text: &str) -> Result<(), String> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(|error| format!("standard output: {error}"))
}

/// All that went wrong, as one; whatever could be done was.
pub(crate) fn all(done: impl IntoIterator<Item = Result<(), String>>) -> Result<(), String> {
    let wrong: Vec<String> = done.into_iter().filter_map(Result::err).collect();
    if wrong.is_empty() { Ok(()) } else { Err(wrong.join("; ")) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    /// Kills: a look that leaves an empty file, that empties one, or that takes a link for what it leads to.
    #[test]
    fn a_look_leaves_everything_as_it_was() {
        let folder = std::env::temp_dir().join(format!("loadtest-sink-{}", std::process::id()));
        fs::create_dir(&folder).expect("a folder of our own");
        let path = |name: &str| folder.join(name);
        fs::write(path("old"), "before").expect("ours");
        symlink(path("not yet"), path("link")).expect("ours");
        let looked = |path: &Path| check(&[Sink::new("--json", path)]);
        for name in ["new", "old", "link"] {
            assert_eq!(looked(&path(name)), Ok(()), "{name}");
        }
        assert_eq!(looked(Path::new("/dev/full")), Ok(()), "no file, which only writing tells");
        let names: Vec<_> =
            fs::read_dir(&folder).expect("ours").map(|entry| entry.expect("ours").file_name()).collect();
        assert_eq!((names.len(), path("link").is_symlink()), (2, true), "{names:?}");
        assert_eq!(fs::read(path("old")).expect("ours"), b"before");
        for (wrong, why) in [("none/x", "No such file"), ("", "is a directory"), ("old/x", "Not a directory")] {
            let error = looked(&path(wrong)).expect_err(wrong);
            assert!(error.starts_with(&format!("--json {}", path(wrong).display())) && error.contains(why), "{error}");
        }
        // One file of two names, which the second would overwrite.
        let beside = path("sub");
        fs::create_dir(&beside).expect("ours");
        for (one, other, is_same) in [
            ("old", "old", true),
            ("new", "new", true),
            ("new", "./new", true),
            ("sub/../new", "new", true),
            ("link", "not yet", true),
            ("not yet", "link", true),
            ("new", "old", false),
            ("new", "sub/new", false),
        ] {
            let (one, other) = (path(one), path(other));
            let both = check(&[Sink::new("--json", &one), Sink::shared("--summary", &other)]);
            let expected = format!("--json and --summary are both {}", other.display());
            assert_eq!(both.err(), is_same.then_some(expected));
        }
        let device = Path::new("/dev/null");
        assert_eq!(check(&[Sink::new("--json", device), Sink::new("--html", device)]), Ok(()));
        fs::remove_dir(beside).expect("ours");
        let (once, shared) = (path("once"), path("shared"));
        for _ in 0..2 {
            Sink::new("--json", &once).write(b"x").expect("ours");
            Sink::shared("--summary", &shared).write(b"x").expect("ours");
        }
        assert_eq!((fs::read(once).expect("ours"), fs::read(shared).expect("ours")), (b"x".into(), b"xx".into()));
        fs::remove_dir_all(folder).expect("ours");
    }

    #[test]
    fn what_cannot_be_written_is_told_with_its_option_and_path() {
        let full = Sink::new("--html", Path::new("/dev/full")).write(b"x");
        let gone = Sink::shared("--summary", Path::new("/nowhere/x.md")).write(b"x");
        let told = all([full, Ok(()), gone]).expect_err("two of them");
        assert!(told.contains("--html /dev/full: No space") && told.contains("; --summary /nowhere/x.md: "), "{told}");
    }
}
