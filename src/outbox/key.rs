//! What makes two messages versions of the same thing.

use std::hash::{BuildHasher as _, RandomState};
use std::num::NonZeroU64;
use std::sync::OnceLock;
#[cfg(feature = "nats")]
use std::sync::atomic::{AtomicBool, Ordering};

/// The key of a message: of those with the same key, a connection that is behind needs the latest alone.
///
/// Only a hash of 128 bits is kept, so a key of any length costs the same and nobody can choose two that are taken for one:
/// it is made under secrets of the process's own, or where machines are joined (`Key::share`) it is the beginning of a
/// cryptographic one. The same key is the same on every core, and then on every machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Key(NonZeroU64, u64);

impl Key {
    /// Of the pongs to a peer that does not read.
    pub(super) const PONG: Key = Key(NonZeroU64::MAX, 0);

    /// From now on keys are the same in all processes.
    #[cfg(feature = "nats")]
    pub(crate) fn share() {
        SHARED.store(true, Ordering::Relaxed);
    }

    #[cfg(feature = "nats")]
    fn shared(name: &[u8]) -> Option<Key> {
        if !SHARED.load(Ordering::Relaxed) {
            return None;
        }
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, name);
        Key::from_bytes(digest.as_ref()[..16].try_into().ok()?)
    }

    #[cfg(not(feature = "nats"))]
    fn shared(_: &[u8]) -> Option<Key> {
        None
    }

    pub(crate) fn to_bytes(self) -> [u8; 16] {
        (u128::from(self.0.get()) << 64 | u128::from(self.1)).to_be_bytes()
    }

    /// A key that another process has made.
    pub(crate) fn from_bytes(bytes: [u8; 16]) -> Option<Key> {
        let all = u128::from_be_bytes(bytes);
        let key = Key(NonZeroU64::MIN | (all >> 64) as u64, all as u64);
        (key != Key::PONG).then_some(key)
    }

    /// The key of this name.
    pub fn of(name: &[u8]) -> Key {
        if let Some(key) = Key::shared(name) {
            return key;
        }
        static SECRETS: OnceLock<[RandomState; 2]> = OnceLock::new();
        let [first, second] = SECRETS.get_or_init(|| [RandomState::new(), RandomState::new()]);
        // The lowest bit is no loss: it makes an absent key free.
        let first = NonZeroU64::MIN | first.hash_one(name);
        Key(first, second.hash_one(name))
    }
}

#[cfg(feature = "nats")]
static SHARED: AtomicBool = AtomicBool::new(false);

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
            assert_eq!(Key::from_bytes(key.to_bytes()), Some(*key));
        }
        assert_eq!(Key::from_bytes(Key::PONG.to_bytes()), None);
    }
}
