//! Where somebody is in a room's history, and what it gets of it.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::message::{Message, borrowed};
use crate::outbox::FrameBuf;
use crate::proto::Kind;
use crate::proto::frame::Opcode;

/// Where somebody is in a room's history: behind how many messages, and of which history.
///
/// A history that was lost, with the server or because others needed its room, is followed by another one of the same room,
/// with another epoch: what is counted in the one means nothing in the other. As text it is the epoch and the offset,
/// `5a3f90c47b1e2d86:17`, and in JSON `{"epoch":"5a3f90c47b1e2d86","offset":17}`.
///
/// ```
/// use ringwire::Position;
///
/// let position: Position = "5a3f90c47b1e2d86:17".parse().unwrap();
/// assert_eq!((position.offset(), position.to_string().as_str()), (17, "5a3f90c47b1e2d86:17"));
/// assert_eq!(serde_json::to_string(&position).unwrap(), r#"{"epoch":"5a3f90c47b1e2d86","offset":17}"#);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Position {
    pub(super) epoch: u64,
    pub(super) offset: u64,
}

impl Position {
    /// The offset of the last message that it is behind of: the first one of a history has 1, and each one more; where all
    /// machines have one history, others' messages lie between, and it only rises.
    ///
    /// ```
    /// use ringwire::Position;
    ///
    /// assert_eq!("5a3f90c47b1e2d86:17".parse::<Position>().unwrap().offset(), 17);
    /// ```
    pub fn offset(self) -> u64 {
        self.offset
    }

    pub(crate) fn epoch_number(self) -> u64 {
        self.epoch
    }

    /// The epoch, 16 hexadecimal digits.
    ///
    /// ```
    /// use ringwire::Position;
    ///
    /// assert_eq!("5a3f90c47b1e2d86:17".parse::<Position>().unwrap().epoch(), "5a3f90c47b1e2d86");
    /// ```
    pub fn epoch(self) -> String {
        format!("{:016x}", self.epoch)
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}:{}", self.epoch, self.offset)
    }
}

/// The text is not the text of a position.
///
/// ```
/// use ringwire::{ParsePositionError, Position};
///
/// assert_eq!("yesterday".parse::<Position>(), Err(ParsePositionError));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a position: it is 16 hexadecimal digits, a colon and a number")]
pub struct ParsePositionError;

impl FromStr for Position {
    type Err = ParsePositionError;

    fn from_str(text: &str) -> Result<Position, ParsePositionError> {
        let (epoch, offset) = text.split_once(':').ok_or(ParsePositionError)?;
        let is_number = !offset.is_empty() && offset.bytes().all(|byte| byte.is_ascii_digit());
        let offset = offset.parse().ok().filter(|_| is_number).ok_or(ParsePositionError)?;
        Ok(Position { epoch: read_epoch(epoch).ok_or(ParsePositionError)?, offset })
    }
}

fn read_epoch(text: &str) -> Option<u64> {
    let is_epoch = text.len() == 16 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    if is_epoch { u64::from_str_radix(text, 16).ok() } else { None }
}

#[derive(Serialize, Deserialize)]
struct Fields {
    epoch: String,
    offset: u64,
}

impl Serialize for Position {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Fields { epoch: self.epoch(), offset: self.offset }.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Position {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Position, D::Error> {
        let Fields { epoch, offset } = Fields::deserialize(deserializer)?;
        let wrong = || serde::de::Error::custom("an epoch has 16 hexadecimal digits");
        Ok(Position { epoch: read_epoch(&epoch).ok_or_else(wrong)?, offset })
    }
}

/// What of a room's history is asked for: `100` are the last hundred messages, a [`Position`] is what came behind it, and
/// `None` of either nothing.
///
/// ```
/// use ringwire::{Position, Since};
///
/// let seen: Option<Position> = None;
/// assert_eq!((Since::from(100), Since::from(seen)), (Since::Last(100), Since::Now));
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Since {
    /// Nothing but where it is.
    #[default]
    Now,
    /// The last so many messages.
    Last(usize),
    /// What came behind this; all there is, where that is not known.
    Position(Position),
}

impl From<usize> for Since {
    fn from(messages: usize) -> Since {
        Since::Last(messages)
    }
}

impl From<Position> for Since {
    fn from(position: Position) -> Since {
        Since::Position(position)
    }
}

impl<S: Into<Since>> From<Option<S>> for Since {
    fn from(since: Option<S>) -> Since {
        since.map_or(Since::Now, Into::into)
    }
}

/// What a connection gets of a room's history: from [`Socket::join_since`](crate::Socket::join_since).
///
/// ```
/// use ringwire::testing::TestServer;
/// use ringwire::{App, History, Json, ws};
///
/// let route = || {
///     ws().history(History::last(2))
///         .on_connect(|socket| {
///             socket.join_since("lobby", 100, None, |socket, recovered| {
///                 let texts: Vec<_> = recovered.messages().map(|(offset, message)| (offset, message.as_text().unwrap().to_owned())).collect();
///                 let _ = socket.send(Json((recovered.members, recovered.is_complete, texts)));
///             })
///         })
///         .on_message(|socket, message| socket.to("lobby").except_self().send(message))
/// };
/// let server = TestServer::new(move || App::new().ws("/", route()));
/// let ann = server.connect("/");
/// ann.expect_json((1, true, [(); 0]));
/// ["a", "b", "c"].map(|text| ann.send(text));
/// // One of the hundred that it wants is not there any more.
/// server.connect("/").expect_json((2, false, [(2, "b"), (3, "c")]));
/// ```
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Recovered {
    /// How many members the room has.
    pub members: usize,
    /// Behind the last message: what comes now follows. `None` if the room has no history.
    pub position: Option<Position>,
    /// Whether this is all that was asked for. If not, some of it has been forgotten, or the history is another one.
    pub is_complete: bool,
    pub(super) messages: Vec<(u64, FrameBuf)>,
}

impl Recovered {
    /// The messages in their order, each with its offset.
    ///
    /// ```
    /// use ringwire::Recovered;
    ///
    /// fn texts(recovered: &Recovered) -> Vec<String> {
    ///     recovered.messages().filter_map(|(_, message)| message.as_text().map(str::to_owned)).collect()
    /// }
    /// # assert!(texts(&Recovered::default()).is_empty());
    /// ```
    pub fn messages(&self) -> impl Iterator<Item = (u64, Message<'_>)> {
        self.messages.iter().filter_map(|(offset, frame)| {
            let (opcode, payload) = frame.parts()?;
            let kind = if opcode == Opcode::Text { Kind::Text } else { Kind::Binary };
            Some((*offset, borrowed(kind, payload).marked(frame.is_uncompressed())))
        })
    }

    /// How many messages there are.
    ///
    /// ```
    /// assert_eq!(ringwire::Recovered::default().len(), 0);
    /// ```
    pub fn len(&self) -> usize {
        self.messages.len()
    }

    /// Whether there is none.
    ///
    /// ```
    /// assert!(ringwire::Recovered::default().is_empty());
    /// ```
    pub fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    pub(super) fn frames(&self) -> impl Iterator<Item = &FrameBuf> {
        self.messages.iter().map(|(_, frame)| frame)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_are_read_as_they_are_written() {
        let position = Position { epoch: 0x5a3f, offset: u64::MAX };
        assert_eq!(position.to_string().parse(), Ok(position));
        let json = serde_json::to_string(&position).expect("JSON");
        assert_eq!(json, r#"{"epoch":"0000000000005a3f","offset":18446744073709551615}"#);
        assert_eq!(serde_json::from_str::<Position>(&json).expect("a position"), position);
        for wrong in
            ["", ":", "5a3f:1", "0000000000005a3f:", "0000000000005a3f:+1", "0000000000005a3g:1", "+000000000005a3f:1"]
        {
            assert_eq!(wrong.parse::<Position>(), Err(ParsePositionError), "{wrong}");
        }
        for wrong in [r#"{"epoch":"5a3f","offset":1}"#, r#"{"epoch":1,"offset":1}"#, r#"{"offset":1}"#, "[]", "7"] {
            assert!(serde_json::from_str::<Position>(wrong).is_err(), "{wrong}");
        }
    }
}
