//! How much room the tables of a core are given at its start, which live as long as it does.
//!
//! Room that nothing has touched is addresses and no memory. So a table is given room for all there can be, and at least so
//! much that an allocator puts it by itself: side by side with blocks that come and go it would keep the memory of these.
//!
//! Knows of this crate: nothing.

/// From so many bytes on allocators give a block memory of its own (mimalloc from 512 KiB, glibc's first threshold is 128 KiB).
const BYTES_MIN: usize = 1 << 20;

/// Entries to have room for where there will be at most `count`.
pub(crate) fn room_for<T>(count: usize) -> usize {
    count.max(BYTES_MIN.div_ceil(size_of::<T>().max(1)))
}

#[cfg(test)]
mod tests {
    use super::room_for;

    #[test]
    fn tables_stand_by_themselves() {
        assert_eq!(room_for::<u32>(10_000), 1 << 18);
        assert_eq!(room_for::<[u64; 3]>(10), 43_691);
        assert_eq!(room_for::<u8>(2 << 20), 2 << 20);
        assert_eq!(room_for::<()>(10), 1 << 20);
    }
}
