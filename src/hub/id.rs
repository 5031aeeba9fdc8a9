//! The address of a connection.

use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::str::FromStr;

use data_encoding::BASE64URL_NOPAD;
use serde::de::Visitor;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Names one connection among all there ever were on any machine: its node, its core there, its slot, the slot's generation,
/// and a tag that cannot be guessed.
///
/// A message to an id goes to the node and the core that the id itself names; there is no global table. A node that starts
/// again is another one, and the ids of the former are stale; where machines are not joined, there is one node. When the connection is gone the
/// id is stale, and stays so: whoever gets the slot next has another generation. Prints as 22 characters of base64url and
/// parses back; `serde` writes and reads it so, too.
///
/// ```
/// use ringwire::ConnectionId;
///
/// let text = "AAEAACoAAAAHAAB2YztBMQ";
/// let id: ConnectionId = text.parse().unwrap();
/// assert_eq!((id.core(), id.to_string().as_str()), (1, text));
/// assert!("somebody".parse::<ConnectionId>().is_err());
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnectionId([u8; 16]);

impl ConnectionId {
    /// Characters of an id's text.
    pub const TEXT_LEN: usize = 22;

    /// The core that owns the connection, on its node.
    ///
    /// ```
    /// use ringwire::ConnectionId;
    ///
    /// let id: ConnectionId = "AAEAACoAAAAHAAB2YztBMQ".parse().unwrap();
    /// assert_eq!(id.core(), 1);
    /// ```
    pub fn core(self) -> usize {
        usize::from(u16::from_be_bytes([self.0[0], self.0[1]]) & CORE_MAX)
    }

    /// The node's number, which is new with each start; 0 where machines are not joined.
    pub fn node(self) -> u32 {
        let high = u32::from(self.0[0] >> 2);
        high << 16 | u32::from(u16::from_be_bytes([self.0[9], self.0[10]]))
    }

    pub(crate) fn slot(self) -> u32 {
        u32::from_be_bytes([0, self.0[2], self.0[3], self.0[4]])
    }

    pub(crate) fn generation(self) -> u32 {
        u32::from_be_bytes(self.0[5..9].try_into().expect("four bytes"))
    }

    pub(crate) fn to_bytes(self) -> [u8; 16] {
        self.0
    }

    pub(crate) fn from_bytes(bytes: [u8; 16]) -> ConnectionId {
        ConnectionId(bytes)
    }
}

impl fmt::Display for ConnectionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = [0; Self::TEXT_LEN];
        BASE64URL_NOPAD.encode_mut(&self.0, &mut text);
        f.write_str(str::from_utf8(&text).expect("base64 is ASCII"))
    }
}

impl fmt::Debug for ConnectionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}({}/{}@{})", self.core(), self.slot(), self.generation())
    }
}

impl Serialize for ConnectionId {
    /// As its text.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ConnectionId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<ConnectionId, D::Error> {
        struct Text;
        impl Visitor<'_> for Text {
            type Value = ConnectionId;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a connection id: 22 characters of base64url")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<ConnectionId, E> {
                text.parse().map_err(E::custom)
            }
        }
        deserializer.deserialize_str(Text)
    }
}

/// The text is not the text of a connection id.
///
/// ```
/// use ringwire::{ConnectionId, ParseIdError};
///
/// assert_eq!("somebody".parse::<ConnectionId>(), Err(ParseIdError));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a connection id: it has 22 characters of base64url")]
pub struct ParseIdError;

impl FromStr for ConnectionId {
    type Err = ParseIdError;

    fn from_str(text: &str) -> Result<ConnectionId, ParseIdError> {
        if text.len() != Self::TEXT_LEN {
            return Err(ParseIdError);
        }
        let mut bytes = [0; 16];
        BASE64URL_NOPAD.decode_mut(text.as_bytes(), &mut bytes).map_err(|_| ParseIdError)?;
        Ok(ConnectionId(bytes))
    }
}

// What an id has room for: ten bits of core, 24 of slot, 32 of generation, 22 of node, 40 of tag.
const CORE_MAX: u16 = (1 << 10) - 1;
/// Slots that a core can have.
pub(crate) const SLOTS_MAX: u32 = 1 << 24;
/// Numbers that nodes can have, 0 included, which is none's.
pub(crate) const NODES_MAX: u32 = 1 << 22;

/// Makes and verifies ids. The tag is a keyed hash of the rest, so it costs a connection no memory, and nobody without
/// this process's key can make up a valid id.
#[doc(hidden)]
#[derive(Clone, Debug, Default)]
pub struct IdKey {
    secret: RandomState,
    node: u32,
    /// Of a test that is to see the same ids in every run.
    #[cfg(feature = "testing")]
    seed: Option<u64>,
}

impl IdKey {
    /// A key that is no secret: the same seed gives the same ids.
    #[cfg(feature = "testing")]
    pub(crate) fn seeded(seed: u64) -> IdKey {
        IdKey { seed: Some(seed), ..IdKey::default() }
    }

    /// The same key, for ids of the node with this number.
    pub(crate) fn of_node(self, node: u32) -> IdKey {
        assert!(node < NODES_MAX);
        IdKey { node, ..self }
    }

    /// The node whose ids these are.
    pub(crate) fn node(&self) -> u32 {
        self.node
    }

    fn tag(&self, core: usize, slot: u32, generation: u32) -> u64 {
        #[cfg(feature = "testing")]
        if let Some(seed) = self.seed {
            let mut hasher = std::hash::DefaultHasher::new();
            std::hash::Hash::hash(&(seed, core, slot, generation), &mut hasher);
            return std::hash::Hasher::finish(&hasher);
        }
        self.secret.hash_one((core, slot, generation))
    }

    /// What a history of this core begins with: no other one has it.
    pub(crate) fn epoch(&self, core: usize, number: u64) -> u64 {
        #[cfg(feature = "testing")]
        if let Some(seed) = self.seed {
            let mut hasher = std::hash::DefaultHasher::new();
            std::hash::Hash::hash(&(seed, "epoch", core, number), &mut hasher);
            return std::hash::Hasher::finish(&hasher);
        }
        self.secret.hash_one(("epoch", core, number))
    }

    pub(crate) fn id(&self, core: usize, slot: u32, generation: u32) -> ConnectionId {
        debug_assert!(core <= usize::from(CORE_MAX) && slot < SLOTS_MAX);
        let mut bytes = [0; 16];
        let high = (self.node >> 16) as u16;
        bytes[0..2].copy_from_slice(&(core as u16 | high << 10).to_be_bytes());
        bytes[2..5].copy_from_slice(&slot.to_be_bytes()[1..]);
        bytes[5..9].copy_from_slice(&generation.to_be_bytes());
        bytes[9..11].copy_from_slice(&(self.node as u16).to_be_bytes());
        let tag = self.tag(core, slot, generation).to_be_bytes();
        bytes[11..16].copy_from_slice(&tag[..5]);
        ConnectionId(bytes)
    }

    pub(crate) fn is_genuine(&self, id: ConnectionId) -> bool {
        self.id(id.core(), id.slot(), id.generation()) == id
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_prints_parses_and_is_genuine() {
        let key = IdKey::default();
        let id = key.id(3, 70_000, 9);
        assert_eq!((id.core(), id.slot(), id.generation()), (3, 70_000, 9));
        assert_eq!(id.to_string().len(), ConnectionId::TEXT_LEN);
        assert_eq!(id.to_string().parse(), Ok(id));
        assert!(key.is_genuine(id));
    }

    /// Kills: a node's number that is cut, or reaches into what stands beside it.
    #[test]
    fn an_id_names_its_node() {
        let key = IdKey::default();
        for node in [0, 1, 0xffff, 0x1_0000, NODES_MAX - 1] {
            let key = key.clone().of_node(node);
            for (core, slot, generation) in [(0, 0, 0), (1023, SLOTS_MAX - 1, u32::MAX), (5, 70_000, 9)] {
                let id = key.id(core, slot, generation);
                assert_eq!((id.node(), id.core(), id.slot(), id.generation()), (node, core, slot, generation));
                assert!(key.is_genuine(id) && !key.clone().of_node(node ^ 1).is_genuine(id));
            }
        }
    }

    #[test]
    fn in_json_an_id_is_its_text() {
        let id = IdKey::default().id(3, 70_000, 9);
        let json = serde_json::to_string(&[id]).expect("JSON");
        assert_eq!(json, format!(r#"["{id}"]"#));
        assert_eq!(serde_json::from_str::<Vec<ConnectionId>>(&json).expect("ids"), [id]);
        assert_eq!(serde_json::from_value::<ConnectionId>(id.to_string().into()).expect("an id"), id);
        for wrong in ["7", "null", r#""AAAA""#, r#"[1,2]"#] {
            assert!(serde_json::from_str::<ConnectionId>(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_made_up_id_is_not_genuine() {
        let key = IdKey::default();
        let id = IdKey::default().id(0, 1, 2);
        assert!(!key.is_genuine(id), "made with another key");
        for text in ["", "AAAA", "AAAAAAAAAAAAAAAAAAAAA!", "AAAAAAAAAAAAAAAAAAAAAAA"] {
            assert_eq!(text.parse::<ConnectionId>(), Err(ParseIdError), "{text}");
        }
    }
}
