//! What makes two messages versions of the same thing.

use std::hash::{BuildHasher as _, RandomState};
use std::num::NonZeroU64;
use std::sync::OnceLock;

/// The key of a message: of those with the same key, a connection that is behind needs the latest alone.
///
/// Only a hash of 128 bits is kept, under secrets of the process's own, so a key of any length costs the same and nobody
/// can choose two that are taken for one. The same key is the same on every core.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Key(NonZeroU64, u64);

impl Key {
    /// Of the pongs to a peer that does not read.
    pub(super) const PONG: Key = Key(NonZeroU64::MAX, 0);

    /// The key of this name.
    pub fn of(name: &[u8]) -> Key {
        static SECRETS: OnceLock<[RandomState; 2]> = OnceLock::new();
        let [first, second] = SECRETS.get_or_init(|| [RandomState::new(), RandomState::new()]);
        // The lowest bit is no loss: it makes an absent key free.
        let first = NonZeroU64::MIN | first.hash_one(name);
        Key(first, second.hash_one(name))
    }
}

const _: () = assert!(size_of::<Option<Key>>() == 16);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_name_is_the_same_key() {
        let keys: Vec<Key> = (0..1000).map(|number| Key::of(format!("price:{number}").as_bytes())).collect();
        for (number, key) in keys.iter().enumerate() {
            assert_eq!(keys.iter().position(|other| other == key), Some(number));
            assert_eq!(Key::of(format!("price:{number}").as_bytes()), *key);
        }
    }
}
