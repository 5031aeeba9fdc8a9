//! What the subjects are called.
//!
//! A name becomes one token of a subject: what NATS gives a meaning (dots, wildcards, spaces), and what is no printable ASCII,
//! is percent-encoded. What an outsider publishes to may have the dots of a room's name as they are.

use percent_encoding::{AsciiSet, CONTROLS, percent_decode_str, utf8_percent_encode};

/// What may not stand in a token, or would be taken for an encoding.
const ENCODED: &AsciiSet = &CONTROLS.add(b' ').add(b'.').add(b'*').add(b'>').add(b'%');

/// A name as one token; that of the empty one is `%`.
pub(super) fn token(name: &str) -> String {
    match name.is_empty() {
        true => String::from("%"),
        false => utf8_percent_encode(name, ENCODED).to_string(),
    }
}

/// The name that a token, or several with dots between them, stands for; `None` if it is no UTF-8.
pub(super) fn name(token: &str) -> Option<String> {
    match token {
        "%" => Some(String::new()),
        _ => percent_decode_str(token).decode_utf8().ok().map(String::from),
    }
}

/// Longest name that is a subject of its own: NATS takes no more than 4096 bytes of a line, and three stand for one.
pub(super) const NAME_BYTES_MAX: usize = crate::hub::SHARED_NAME_BYTES_MAX;

/// The subjects of one cluster.
#[derive(Clone, Debug)]
pub(super) struct Subjects {
    prefix: String,
}

/// What a subject means to a node.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Place<'s> {
    Room(&'s str),
    All,
    Route,
    Beat,
    /// To this node alone: a question, or what is said to it.
    Own(&'s str),
    /// Somebody claims a name.
    Claim,
    InRoom(&'s str),
    InId(&'s str),
    InAll,
}

impl Subjects {
    pub(super) fn new(prefix: &str) -> Subjects {
        Subjects { prefix: prefix.to_owned() }
    }

    pub(super) fn room(&self, room: &str) -> String {
        format!("{}.room.{}", self.prefix, token(room))
    }

    pub(super) fn all(&self) -> String {
        format!("{}.all", self.prefix)
    }

    pub(super) fn route(&self, path: &str) -> String {
        format!("{}.route.{}", self.prefix, token(path))
    }

    pub(super) fn routes(&self) -> String {
        format!("{}.route.*", self.prefix)
    }

    pub(super) fn beat(&self) -> String {
        format!("{}.beat", self.prefix)
    }

    pub(super) fn node(&self, node: u32, what: &str) -> String {
        format!("{}.node.{node:06x}.{what}", self.prefix)
    }

    pub(super) fn claim(&self, name: &str) -> String {
        format!("{}.name.{}", self.prefix, token(name))
    }

    /// Where messages of a room go that are to be kept; the token may be `>`.
    pub(super) fn history(&self, token: &str) -> String {
        format!("{}.hist.{token}", self.prefix)
    }

    /// Where the first message of all is kept, which is nobody's.
    pub(super) fn history_begins(&self) -> String {
        format!("{}.histbegin", self.prefix)
    }

    /// Where they come from with their numbers, of the stream that this nonce was made for.
    pub(super) fn kept(&self, nonce: &str) -> String {
        format!("{}.kept.{nonce}", self.prefix)
    }

    pub(super) fn outside_rooms(&self) -> String {
        format!("{}.in.room.>", self.prefix)
    }

    /// The name of the room that an outsider's message is for.
    pub(super) fn outside_room(&self, subject: &str) -> Option<String> {
        match self.place(subject)? {
            Place::InRoom(token) => name(token),
            _ => None,
        }
    }

    pub(super) fn outside(&self) -> String {
        format!("{}.in.>", self.prefix)
    }

    pub(super) fn place<'s>(&self, subject: &'s str) -> Option<Place<'s>> {
        let rest = subject.strip_prefix(&self.prefix)?.strip_prefix('.')?;
        let (kind, rest) = rest.split_once('.').unwrap_or((rest, ""));
        Some(match (kind, rest) {
            ("room", token) => Place::Room(token),
            ("all", "") => Place::All,
            ("route", _) => Place::Route,
            ("beat", "") => Place::Beat,
            ("node", rest) => Place::Own(rest.split_once('.')?.1),
            ("name", _) => Place::Claim,
            ("in", "all") => Place::InAll,
            ("in", rest) => match rest.split_once('.')? {
                ("room", room) => Place::InRoom(room),
                ("id", id) => Place::InId(id),
                _ => return None,
            },
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_name_is_one_token_and_comes_back() {
        for text in ["", "lobby", "a.b", "*", ">", "a b", "50%", "日本", "ws/r\n", "%"] {
            let token = token(text);
            assert!(!token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic()), "{token}");
            assert!(!token.contains(['.', '*', '>']), "{token}");
            assert_eq!(name(&token).as_deref(), Some(text));
        }
        assert_eq!(name("a.b").as_deref(), Some("a.b"), "an outsider's dots");
        assert_eq!(name("%ff"), None);
    }

    #[test]
    fn a_subject_is_known_by_what_it_was_made_for() {
        let subjects = Subjects::new("my.app");
        let room = subjects.room("a.b");
        assert_eq!(subjects.place(&room), Some(Place::Room("a%2Eb")));
        assert_eq!(subjects.place(&subjects.all()), Some(Place::All));
        assert_eq!(subjects.place(&subjects.beat()), Some(Place::Beat));
        assert_eq!(subjects.place(&subjects.node(7, "ask")), Some(Place::Own("ask")));
        assert_eq!(subjects.place(&subjects.claim("x")), Some(Place::Claim));
        assert_eq!(subjects.place("my.app.in.room.a.b"), Some(Place::InRoom("a.b")));
        assert_eq!(subjects.place("my.app.in.all"), Some(Place::InAll));
        assert_eq!(subjects.outside_room("my.app.in.room.a.b").as_deref(), Some("a.b"));
        for (subject, kind) in [(subjects.history("a"), "hist"), (subjects.kept("n"), "kept")] {
            assert_eq!((&*subject, subjects.place(&subject)), (&*format!("my.app.{kind}.{}", &subject[subject.len() - 1..]), None));
        }
        for other in ["my.app", "my.apple.all", "my.app.in.room", "my.app.what"] {
            assert_eq!(subjects.place(other), None, "{other}");
        }
    }
}
