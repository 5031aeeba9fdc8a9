//! What cannot be decoded, or written.

use std::fmt;

use crate::quote::excerpt;

/// A payload that could not be decoded; a handler that fails with it closes the connection with 1007.
///
/// It says what is wrong in about a hundred characters, whatever the payload is; `Debug` says the same.
///
/// ```
/// use ringwire::OwnedMessage;
///
/// let error = OwnedMessage::text("[1, 2").json::<Vec<u8>>().unwrap_err();
/// assert!(error.to_string().starts_with("the message cannot be decoded: EOF while parsing"));
/// ```
#[derive(Clone, PartialEq, Eq, thiserror::Error)]
#[error("the message cannot be decoded: {0}")]
pub struct DecodeError(String);

impl DecodeError {
    /// What is wrong, and where.
    pub(crate) fn why(&self) -> &str {
        &self.0
    }
}

impl From<serde_json::Error> for DecodeError {
    /// Keeps what it says and not the error itself, which may quote all of the payload.
    fn from(error: serde_json::Error) -> DecodeError {
        DecodeError(excerpt(&error))
    }
}

/// A value that could not be written as JSON.
///
/// ```
/// use ringwire::Envelope;
/// use std::collections::HashMap;
///
/// // A key of JSON is a string.
/// let error = Envelope::Event.encode("map", &HashMap::from([((1, 2), 3)])).unwrap_err();
/// assert!(error.to_string().starts_with("the value cannot be written as JSON: key must be a string"));
/// ```
#[derive(Clone, PartialEq, Eq, thiserror::Error)]
#[error("the value cannot be written as JSON: {0}")]
pub struct EncodeError(String);

impl From<serde_json::Error> for EncodeError {
    fn from(error: serde_json::Error) -> EncodeError {
        EncodeError(excerpt(&error))
    }
}

macro_rules! debug_is_display {
    ($($error:ty),+) => {$(
        impl fmt::Debug for $error {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }
    )+};
}

debug_is_display!(DecodeError, EncodeError);
