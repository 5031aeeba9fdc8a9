//! How much of the messages of rooms is kept.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use super::types::Malformed;
use super::value::{Allowed, Value, range};

const KIB: u64 = 1 << 10;
const GIB: u64 = 1 << 30;
const MILLISECOND: u64 = 1_000_000;
const YEAR: u64 = 365 * 86_400 * 1_000 * MILLISECOND;

/// Messages of one room at most.
const MESSAGES_MAX: u64 = 1_000_000;
/// Bytes of one room, unless it is said.
const ROOM_BYTES_DEFAULT: usize = 1 << 20;

const MESSAGES: Allowed = Allowed::Count(range(1, MESSAGES_MAX));
const AGE: Allowed = Allowed::Time(range(MILLISECOND, YEAR));
const BYTES: Allowed = Allowed::Bytes(range(KIB, 64 * GIB));

/// How much of its messages a room keeps, for those who come later or come back: see
/// [`Socket::join_since`](crate::Socket::join_since).
///
/// Rooms are the server's, and not a route's: a route's [`Ws::history`](crate::Ws::history) is that of all of them, or of those
/// whose names begin as [`History::of_rooms`] says, whoever publishes to them. The longest beginning counts. As text, in
/// `RINGWIRE_HISTORY`, it is `off`, or how many messages, and then the longest age and the most bytes of a room, each behind a
/// comma: `100`, `100,10m`, `100,10m,64KiB`.
///
/// ```
/// use ringwire::History;
/// use std::time::Duration;
///
/// let history = History::last(100).max_age(Duration::from_secs(600));
/// assert_eq!(history, "100,10m".parse().unwrap());
/// assert_eq!(history.to_string(), "100,600s");
/// assert_eq!(History::off().to_string(), "off");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct History {
    /// None: 0.
    messages_max: u32,
    age_max: Option<Duration>,
    bytes_max: usize,
    prefix: String,
}

impl History {
    /// The last so many messages, of no more than a MiB a room, however old they are.
    ///
    /// ```
    /// use ringwire::testing::TestServer;
    /// use ringwire::{App, History, ws};
    ///
    /// let route = || {
    ///     ws().history(History::last(100))
    ///         .on_connect(|socket| socket.join_with_history("lobby", 100))
    ///         .on_message(|socket, message| socket.to_own_room(message))
    /// };
    /// let server = TestServer::new(move || App::new().ws("/", route()));
    /// let ann = server.connect("/");
    /// ann.send("hello");
    /// ann.expect_text("hello");
    /// server.connect("/").expect_text("hello");
    /// ```
    #[must_use]
    pub fn last(messages: u32) -> History {
        History { messages_max: messages, age_max: None, bytes_max: ROOM_BYTES_DEFAULT, prefix: String::new() }
    }

    /// None: messages are delivered, and not kept.
    ///
    /// ```
    /// use ringwire::testing::TestServer;
    /// use ringwire::{App, History, ws};
    ///
    /// let route = || {
    ///     ws().history(History::last(100))
    ///         .history(History::off().of_rooms("secret/"))
    ///         .on_connect(|socket| socket.join_with_history("secret/plan", 100))
    ///         .on_message(|socket, message| socket.to_own_room(message))
    /// };
    /// let server = TestServer::new(move || App::new().ws("/", route()));
    /// server.connect("/").send("hush");
    /// server.connect("/").expect_nothing();
    /// ```
    #[must_use]
    pub fn off() -> History {
        History::last(0)
    }

    /// None that is older than this.
    ///
    /// ```
    /// use ringwire::testing::TestServer;
    /// use ringwire::{App, History, ws};
    /// use std::time::Duration;
    ///
    /// let route = || {
    ///     ws().history(History::last(100).max_age(Duration::from_secs(60)))
    ///         .on_connect(|socket| socket.join_with_history("lobby", 100))
    ///         .on_message(|socket, message| socket.to_own_room(message))
    /// };
    /// let server = TestServer::new(move || App::new().ws("/", route()));
    /// server.connect("/").send("old news");
    /// server.advance(Duration::from_secs(61));
    /// server.connect("/").expect_nothing();
    /// ```
    #[must_use]
    pub fn max_age(self, age: Duration) -> History {
        History { age_max: Some(age), ..self }
    }

    /// No more than so many bytes of messages in a room, with their frames. What all rooms keep together has a bound of its
    /// own: [`Config::history_bytes`](crate::Config::history_bytes).
    ///
    /// ```
    /// use ringwire::History;
    /// use std::time::Duration;
    ///
    /// let history = History::last(1000).max_age(Duration::from_secs(3600)).max_bytes(64 << 10);
    /// assert_eq!(history, "1000,1h,64KiB".parse().unwrap());
    /// ```
    #[must_use]
    pub fn max_bytes(self, bytes: usize) -> History {
        History { bytes_max: bytes, ..self }
    }

    /// Of rooms whose names begin so, and no others.
    ///
    /// ```
    /// use ringwire::{History, ws};
    ///
    /// ws().history(History::last(20).of_rooms("chat/")).history(History::last(1).of_rooms("prices/"));
    /// ```
    #[must_use]
    pub fn of_rooms(self, prefix: impl Into<String>) -> History {
        History { prefix: prefix.into(), ..self }
    }

    pub(crate) fn is_off(&self) -> bool {
        self.messages_max == 0
    }

    pub(crate) fn messages_max(&self) -> usize {
        self.messages_max as usize
    }

    pub(crate) fn age_max_ns(&self) -> Option<u64> {
        self.age_max.map(|age| u64::try_from(age.as_nanos()).unwrap_or(u64::MAX))
    }

    pub(crate) fn bytes_max(&self) -> usize {
        self.bytes_max
    }

    pub(crate) fn prefix(&self) -> &str {
        &self.prefix
    }
}

impl Default for History {
    fn default() -> History {
        History::off()
    }
}

impl FromStr for History {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<History, Malformed> {
        if text.eq_ignore_ascii_case("off") {
            return Ok(History::off());
        }
        let mut parts = text.split(',').map(str::trim);
        let mut number = |allowed: &Allowed| match parts.next() {
            Some(part) => allowed.parse_number(part).map(Some).ok_or(Malformed),
            None => Ok(None),
        };
        let messages = number(&MESSAGES)?.ok_or(Malformed)?;
        let mut history = History::last(u32::try_from(messages).map_err(|_| Malformed)?);
        if let Some(age_ns) = number(&AGE)? {
            history = history.max_age(Duration::from_nanos(age_ns));
        }
        if let Some(bytes) = number(&BYTES)? {
            history = history.max_bytes(usize::try_from(bytes).map_err(|_| Malformed)?);
        }
        if parts.next().is_some() { Err(Malformed) } else { Ok(history) }
    }
}

impl fmt::Display for History {
    /// As `RINGWIRE_HISTORY` has it: without the names of rooms.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_off() {
            return f.write_str("off");
        }
        write!(f, "{}", self.messages_max)?;
        let has_bytes = self.bytes_max != ROOM_BYTES_DEFAULT;
        match self.age_max_ns() {
            Some(age_ns) => write!(f, ",{}", AGE.show_number(age_ns))?,
            // The longest, which is none in all but name.
            None if has_bytes => write!(f, ",{}", AGE.show_number(YEAR))?,
            None => {}
        }
        if has_bytes { write!(f, ",{}", BYTES.show_number(self.bytes_max as u64)) } else { Ok(()) }
    }
}

impl Value for History {
    fn parse(text: &str, _: &Allowed) -> Option<History> {
        text.parse().ok()
    }

    fn show(&self, _: &Allowed) -> String {
        self.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_is_read_back() {
        for text in ["off", "1", "100", "100,600s", "100,250ms", "7,1h,64KiB", "1000000,8760h,1KiB"] {
            let history: History = text.parse().expect("a history");
            assert_eq!(history.to_string(), text);
        }
        assert_eq!(
            "100, 10m , 64KiB".parse(),
            Ok(History::last(100).max_age(Duration::from_secs(600)).max_bytes(65_536))
        );
        assert_eq!("OFF".parse(), Ok(History::off()));
        assert_eq!(History::last(5).max_bytes(2048).to_string(), "5,8760h,2KiB");
        for wrong in
            ["", "0", "-1", "on", "100,", "100,10", "100,0s", "100,10m,", "100,10m,1", "1,1s,1KiB,1", "1000001"]
        {
            assert_eq!(wrong.parse::<History>(), Err(Malformed), "{wrong}");
        }
    }
}
