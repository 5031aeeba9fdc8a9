//! What can go wrong outside the protocol, and the exit code that tells it to a supervisor.
//!
//! Knows of this crate: nothing.

use std::fmt;
use std::io;

/// The result of everything in this crate that can fail.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What can go wrong.
///
/// Its `Debug` is its `Display`, causes included, so that it reads well where `main` returns it. For an exit code that says
/// more than 1, let `main` return that:
///
/// ```no_run
/// use std::process::ExitCode;
///
/// fn main() -> ExitCode {
///     match serve() {
///         Ok(()) => ExitCode::SUCCESS,
///         Err(error) => {
///             eprintln!("{error}");
///             ExitCode::from(error.exit_code())
///         }
///     }
/// }
///
/// fn serve() -> ringwire::Result<()> {
///     ringwire::Server::from_env()?.run(ringwire::App::new)
/// }
/// ```
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A setting is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),

    /// An address cannot be listened on: it is in use, not allowed, or not of this machine.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The address as it is set.
        address: String,
        /// Why not.
        source: io::Error,
    },

    /// The machine does not offer what is needed, io_uring above all.
    #[error("{0}")]
    Unavailable(String),

    /// A call to the operating system failed.
    #[error("{context}: {source}")]
    Io {
        /// What was being done.
        context: String,
        /// Why it failed.
        source: io::Error,
    },

    /// A thread of this program failed, which is a bug of ours.
    #[error("{0}")]
    Internal(String),
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Error {
    /// An [`Error::Io`] that says what was being done; made for `map_err`.
    ///
    /// ```
    /// use ringwire::Error;
    ///
    /// fn token() -> ringwire::Result<String> {
    ///     std::fs::read_to_string("/no/such/token").map_err(Error::io("reading the token"))
    /// }
    ///
    /// assert_eq!(token().unwrap_err().to_string(), "reading the token: No such file or directory (os error 2)");
    /// ```
    pub fn io(context: impl Into<String>) -> impl FnOnce(io::Error) -> Error {
        let context = context.into();
        move |source| Error::Io { context, source }
    }

    /// The same error once more, for another who waits for it.
    pub(crate) fn again(&self) -> Error {
        let io = |source: &io::Error| match source.raw_os_error() {
            Some(code) => io::Error::from_raw_os_error(code),
            None => io::Error::new(source.kind(), source.to_string()),
        };
        match self {
            Error::Config(error) => Error::Config(error.clone()),
            Error::Listen { address, source } => Error::Listen { address: address.clone(), source: io(source) },
            Error::Unavailable(text) => Error::Unavailable(text.clone()),
            Error::Io { context, source } => Error::Io { context: context.clone(), source: io(source) },
            Error::Internal(text) => Error::Internal(text.clone()),
        }
    }

    /// The process's exit code for this error, as `sysexits.h` names them: 78 for a bad setting, 69 where the machine
    /// lacks something, 74 for failed input or output, 70 for a bug.
    ///
    /// ```
    /// use ringwire::{Config, Error, error::exit};
    ///
    /// let error = Error::from(Config::default().ring_entries(1 << 14).cq_entries(16).validate().unwrap_err());
    /// assert_eq!(error.exit_code(), exit::CONFIG);
    /// ```
    pub fn exit_code(&self) -> u8 {
        match self {
            Error::Config(_) => exit::CONFIG,
            Error::Listen { .. } | Error::Unavailable(_) => exit::UNAVAILABLE,
            Error::Io { .. } => exit::IO,
            Error::Internal(_) => exit::SOFTWARE,
        }
    }
}

/// Exit codes, as `sysexits.h` has them.
pub mod exit {
    /// The command line is wrong.
    pub const USAGE: u8 = 64;
    /// Something that is needed is not there.
    pub const UNAVAILABLE: u8 = 69;
    /// A bug.
    pub const SOFTWARE: u8 = 70;
    /// Input or output failed.
    pub const IO: u8 = 74;
    /// A setting is wrong.
    pub const CONFIG: u8 = 78;
}

/// A setting that cannot be used as it is.
///
/// ```
/// use ringwire::{Config, error::ConfigError};
///
/// let variables = [("RINGWIRE_BACKLOGG".into(), "100".into())];
/// match Config::from_sources(variables, []).unwrap_err() {
///     ConfigError::Unknown { suggestion, .. } => assert_eq!(suggestion.as_deref(), Some("RINGWIRE_BACKLOG")),
///     other => panic!("{other}"),
/// }
/// ```
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The value is not one that the setting may have.
    #[error("{setting}={value} is not allowed: it must be {allowed}")]
    BadValue {
        /// The variable or the flag.
        setting: String,
        /// Its value.
        value: String,
        /// What may be written instead.
        allowed: String,
    },

    /// No setting has this name.
    #[error("unknown variable {name}{}", match suggestion {
        Some(nearest) => format!(": did you mean {nearest}?"),
        None => String::from("; `ringwire --help` lists all of them"),
    })]
    Unknown {
        /// The variable.
        name: String,
        /// The setting of the most similar name.
        suggestion: Option<String>,
    },

    /// Two settings that are fine alone contradict each other, or the machine.
    #[error("{setting}={value} cannot be: {reason}")]
    Conflict {
        /// The variable.
        setting: String,
        /// Its value.
        value: String,
        /// What it contradicts.
        reason: String,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_has_its_exit_code() {
        let unknown = ConfigError::Unknown { name: String::from("RINGWIRE_X"), suggestion: None };
        let in_use =
            Error::Listen { address: String::from("127.0.0.1:1"), source: io::Error::from(io::ErrorKind::AddrInUse) };
        assert_eq!(Error::from(unknown).again().exit_code(), 78);
        assert_eq!((in_use.again().to_string(), in_use.exit_code()), (in_use.to_string(), 69));
        assert_eq!(Error::Unavailable(String::from("no io_uring")).exit_code(), 69);
        assert_eq!(Error::io("reading")(io::ErrorKind::Other.into()).exit_code(), 74);
        assert_eq!(Error::Internal(String::from("oops")).exit_code(), 70);
    }

    /// Kills: `Error: Config(Unknown { .. })` from a `main` that returns the error.
    #[test]
    fn main_may_return_it() {
        let unknown = ConfigError::Unknown { name: String::from("RINGWIRE_X"), suggestion: None };
        let text = format!("{:?}", Error::from(unknown));
        assert_eq!(text, "unknown variable RINGWIRE_X; `ringwire --help` lists all of them");
        let text = format!("{:?}", Error::io("reading")(io::Error::other("the disk is gone")));
        assert_eq!(text, "reading: the disk is gone");
    }

    #[test]
    fn messages_name_setting_value_and_remedy() {
        let bad = ConfigError::BadValue {
            setting: String::from("RINGWIRE_PIN"),
            value: String::from("perhaps"),
            allowed: String::from("true or false"),
        };
        assert_eq!(bad.to_string(), "RINGWIRE_PIN=perhaps is not allowed: it must be true or false");
        let unknown = ConfigError::Unknown {
            name: String::from("RINGWIRE_CORE"),
            suggestion: Some(String::from("RINGWIRE_CORES")),
        };
        assert_eq!(unknown.to_string(), "unknown variable RINGWIRE_CORE: did you mean RINGWIRE_CORES?");
    }
}
