//! The places of a core: who has which, what is in flight for whom, and when a place is free for the next.
//!
//! A place is a number, the same in every table of the core and in the ring's table of direct descriptors, and it is given
//! away again as soon as it is free. So whatever is kept from one tick to another, or comes back from the kernel, is not the
//! number but the [`Key`] (or the [`Token`]) of its owner: of one that has gone it finds nothing, whoever has the place now.
//! Within a tick, once a key has found its owner, the number alone is enough, for nothing is freed meanwhile but by
//! [`Slots::free_if_done`].
//!
//! Invariant: a place is free only when nothing of it is in flight.

use std::ops::{Index, IndexMut};

use slab::Slab;

use crate::tables::room_for;

use super::token::{Generations, Op, Token};

/// A place and which of its owners is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    slot: u32,
    generation: u32,
}

impl Key {
    /// The key of the owner of this number.
    #[inline]
    pub const fn new(slot: u32, generation: u32) -> Key {
        Key { slot, generation }
    }

    /// The place.
    #[inline]
    pub const fn slot(self) -> u32 {
        self.slot
    }

    /// The owner's number.
    #[inline]
    pub const fn generation(self) -> u32 {
        self.generation
    }

    /// The token of an operation for this owner.
    #[inline]
    pub const fn token(self, op: Op) -> Token {
        Token::new(op, self.generation, self.slot)
    }
}

/// Values by place. See the module.
#[derive(Debug)]
pub struct Slots<T> {
    values: Slab<T>,
    generations: Generations,
    in_flight: Vec<u8>,
}

impl<T> Default for Slots<T> {
    fn default() -> Slots<T> {
        Slots::with_capacity(0)
    }
}

impl<T> Slots<T> {
    /// None taken, with room for so many without asking for memory.
    pub fn with_capacity(slots: usize) -> Slots<T> {
        Slots {
            values: Slab::with_capacity(slots),
            generations: Generations::with_capacity(slots),
            in_flight: Vec::with_capacity(slots),
        }
    }

    /// None taken, with room for all there can be, for as long as a core lives.
    pub fn for_a_core(slots: usize) -> Slots<T> {
        Slots {
            values: Slab::with_capacity(room_for::<T>(slots)),
            generations: Generations::with_capacity(room_for::<u32>(slots)),
            in_flight: Vec::with_capacity(room_for::<u8>(slots)),
        }
    }

    /// How many are taken.
    #[inline]
    pub fn len(&self) -> usize {
        self.values.len()
    }

    /// Whether none is taken.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// The place that [`Slots::insert`] would give away next.
    #[inline]
    pub fn next_vacant(&self) -> u32 {
        self.values.vacant_key() as u32
    }

    /// Gives away a place to a new owner, of whom nothing is in flight.
    pub fn insert(&mut self, value: T) -> Key {
        let slot = self.values.insert(value) as u32;
        self.generations.begin(slot);
        if self.in_flight.len() <= slot as usize {
            self.in_flight.resize(slot as usize + 1, 0);
        }
        debug_assert_eq!(self.in_flight[slot as usize], 0, "nothing is left of the owner before");
        Key::new(slot, self.generations.of(slot))
    }

    /// The key of whoever has this place, or had it last.
    ///
    /// # Panics
    /// If nobody ever had it.
    #[inline]
    pub fn key(&self, slot: u32) -> Key {
        Key::new(slot, self.generations.of(slot))
    }

    /// Whether this owner is still there.
    #[inline]
    pub fn contains(&self, key: Key) -> bool {
        self.get(key).is_some()
    }

    /// The owner's value, as long as it is there.
    #[inline]
    pub fn get(&self, key: Key) -> Option<&T> {
        let value = self.values.get(key.slot as usize)?;
        (self.generations.of(key.slot) == key.generation).then_some(value)
    }

    /// As [`Slots::get`].
    #[inline]
    pub fn get_mut(&mut self, key: Key) -> Option<&mut T> {
        let value = self.values.get_mut(key.slot as usize)?;
        (self.generations.of(key.slot) == key.generation).then_some(value)
    }

    /// Whose operation this is the token of, as long as the owner is there.
    #[inline]
    pub fn owner(&self, token: Token) -> Option<Key> {
        let slot = token.index();
        let is_there = self.values.contains(slot as usize) && self.generations.is_current(token);
        is_there.then(|| self.key(slot))
    }

    /// Whether anybody has this place.
    #[inline]
    pub fn is_taken(&self, slot: u32) -> bool {
        self.values.contains(slot as usize)
    }

    /// Counts an operation of the place's owner as in flight, and returns its token.
    ///
    /// # Panics
    /// If more are in flight than there are kinds of operations, which is a leak.
    #[inline]
    pub fn launch(&mut self, op: Op, slot: u32) -> Token {
        debug_assert!(self.is_taken(slot), "operations are of somebody");
        let in_flight = &mut self.in_flight[slot as usize];
        *in_flight = in_flight.checked_add(1).expect("a few operations for each place");
        self.generations.token(op, slot)
    }

    /// The token of an operation of the place's owner that does not hold the place: it posts no completion that matters.
    #[inline]
    pub fn token(&self, op: Op, slot: u32) -> Token {
        self.generations.token(op, slot)
    }

    /// An operation is no longer in flight.
    ///
    /// # Panics
    /// If none was.
    #[inline]
    pub fn land(&mut self, slot: u32) {
        let in_flight = &mut self.in_flight[slot as usize];
        *in_flight = in_flight.checked_sub(1).expect("what lands was launched");
    }

    /// How many operations of the place's owner are in flight.
    #[inline]
    pub fn in_flight(&self, slot: u32) -> u8 {
        self.in_flight[slot as usize]
    }

    /// Takes the place back if nothing of its owner is in flight: from now on no key and no token finds it.
    pub fn free_if_done(&mut self, slot: u32) -> Option<T> {
        if self.in_flight(slot) > 0 {
            return None;
        }
        let value = self.values.try_remove(slot as usize)?;
        self.generations.end(slot);
        Some(value)
    }

    /// All that are there, by place.
    pub fn iter(&self) -> impl Iterator<Item = (u32, &T)> {
        self.values.iter().map(|(slot, value)| (slot as u32, value))
    }

    /// The keys of those for whom `is_meant` holds, so that each can be found, or not, when its turn comes.
    pub fn keys_where(&self, is_meant: impl Fn(&T) -> bool) -> Vec<Key> {
        self.iter().filter(|(_, value)| is_meant(value)).map(|(slot, _)| self.key(slot)).collect()
    }
}

/// By place, where a key has found its owner in this tick.
impl<T> Index<u32> for Slots<T> {
    type Output = T;

    #[inline]
    fn index(&self, slot: u32) -> &T {
        &self.values[slot as usize]
    }
}

impl<T> IndexMut<u32> for Slots<T> {
    #[inline]
    fn index_mut(&mut self, slot: u32) -> &mut T {
        &mut self.values[slot as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Kills: keys, tokens or values of a former owner that find the next one.
    #[test]
    fn a_stale_key_finds_nothing() {
        let mut slots = Slots::default();
        let first = slots.insert("first");
        let other = slots.insert("other");
        let token = slots.token(Op::Recv, first.slot());
        assert_eq!((slots.get(first), slots.owner(token), slots.len()), (Some(&"first"), Some(first), 2));
        assert_eq!(slots.free_if_done(first.slot()), Some("first"));
        assert_eq!((slots.get(first), slots.owner(token), slots.contains(first)), (None, None, false));
        let second = slots.insert("second");
        assert_eq!((second.slot(), second.generation()), (first.slot(), first.generation() + 1));
        assert!(slots.get(first).is_none() && slots.get_mut(first).is_none() && slots.owner(token).is_none());
        assert_eq!(
            (slots.get(second), slots[second.slot()], slots.key(second.slot())),
            (Some(&"second"), "second", second)
        );
        assert_eq!(slots.get(other), Some(&"other"));
        assert_eq!(slots.get(Key::new(99, 0)), None, "a place that nobody ever had");
        assert_eq!(slots.owner(Token::new(Op::Recv, 0, 99)), None);
    }

    /// Kills: a place that is free, or found by another, while something is in flight.
    #[test]
    fn a_place_is_free_when_nothing_of_it_is_in_flight() {
        let mut slots = Slots::default();
        let key = slots.insert(1);
        let slot = key.slot();
        let tokens = [slots.launch(Op::Recv, slot), slots.launch(Op::Close, slot)];
        assert!(tokens.iter().all(|token| slots.owner(*token) == Some(key)) && slots.in_flight(slot) == 2);
        for left in [1, 0] {
            assert_eq!(slots.free_if_done(slot), None);
            assert_ne!(slots.next_vacant(), slot);
            slots.land(slot);
            assert_eq!(slots.in_flight(slot), left);
        }
        assert_eq!((slots.free_if_done(slot), slots.free_if_done(slot), slots.is_taken(slot)), (Some(1), None, false));
        assert_eq!((slots.next_vacant(), slots.is_empty()), (slot, true));
    }

    #[test]
    #[should_panic(expected = "what lands was launched")]
    fn what_lands_was_launched() {
        let mut slots = Slots::default();
        let key = slots.insert(());
        slots.land(key.slot());
    }

    #[test]
    fn keys_are_taken_before_anything_happens_to_their_owners() {
        let mut slots = Slots::default();
        let keys: Vec<Key> = (0..5).map(|n| slots.insert(n)).collect();
        let odd = slots.keys_where(|n| n % 2 == 1);
        assert_eq!(odd, [keys[1], keys[3]]);
        slots.free_if_done(keys[1].slot());
        slots.insert(7);
        assert_eq!(odd.iter().filter_map(|key| slots.get(*key)).collect::<Vec<_>>(), [&3]);
        *slots.get_mut(keys[0]).expect("it is there") = 6;
        assert_eq!((slots[keys[0].slot()], slots.iter().count()), (6, 5));
    }
}
