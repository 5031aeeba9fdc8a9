//! The ring of provided buffers: who has which stretch of which buffer.
//!
//! Invariant: free <= all buffers; a buffer is either free or wholly filled; the head of the free ones may be filled in
//! part when buffers are incremental.

use std::collections::VecDeque;

use crate::engine::{Extent, Filled, Nanos};

#[derive(Debug)]
struct Stretch {
    extent: Extent,
    /// Its completion was taken: the core may use it.
    /// Since which of the core's turns the core has it.
    lent_in: Option<u64>,
}

#[derive(Debug)]
pub(super) struct Buffers {
    bytes: u32,
    incremental: bool,
    /// In the order in which the kernel takes them.
    free: VecDeque<u16>,
    /// Bytes of the first free buffer that are filled already.
    head_filled: u32,
    /// By buffer, what is filled and not given back.
    out: Vec<Vec<Stretch>>,
    /// Until then no more than so many buffers may be out.
    pub(super) squeeze: Option<(usize, Nanos)>,
}

impl Buffers {
    pub(super) fn new(count: u16, bytes: u32, incremental: bool) -> Buffers {
        assert!(count > 0 && bytes > 0, "a ring needs buffers");
        Buffers {
            bytes,
            incremental,
            free: (0..count).collect(),
            head_filled: 0,
            out: (0..count).map(|_| Vec::new()).collect(),
            squeeze: None,
        }
    }

    /// Buffers wholly filled and not given back.
    pub(super) fn out_count(&self) -> usize {
        self.out.len() - self.free.len()
    }

    /// The most bytes that the next receive can fill; 0 where the ring is empty.
    pub(super) fn room(&self) -> usize {
        let squeezed = self.squeeze.is_some_and(|(most, _)| self.out_count() >= most);
        if self.free.is_empty() || squeezed { 0 } else { (self.bytes - self.head_filled) as usize }
    }

    /// Fills `len` bytes of the buffer in turn.
    pub(super) fn fill(&mut self, len: usize) -> Filled {
        assert!(len > 0 && len <= self.room());
        let buffer = self.free[0];
        let (offset, len) = (self.head_filled, len as u32);
        let last = !self.incremental || offset + len == self.bytes;
        if last {
            self.free.pop_front();
            self.head_filled = 0;
        } else {
            self.head_filled += len;
        }
        let extent = Extent { buffer, offset, len, last };
        self.out[buffer as usize].push(Stretch { extent, lent_in: None });
        Filled(extent)
    }

    pub(super) fn range(&self, Filled(extent): &Filled) -> std::ops::Range<usize> {
        let start = extent.buffer as usize * self.bytes as usize + extent.offset as usize;
        start..start + extent.len as usize
    }

    pub(super) fn lend(&mut self, Filled(extent): &Filled, turn: u64) {
        let stretch = self.out[extent.buffer as usize].iter_mut().find(|s| s.extent == *extent);
        stretch.expect("a filled stretch is recorded").lent_in = Some(turn);
    }

    /// Only for what other rings have made can it fail.
    pub(super) fn assert_lent(&self, Filled(extent): &Filled) {
        let out = self.out.get(extent.buffer as usize);
        let lent = out.is_some_and(|out| out.iter().any(|s| s.lent_in.is_some() && s.extent == *extent));
        assert!(lent, "{extent:?} is not lent: its bytes are not the core's to use");
    }

    pub(super) fn recycle(&mut self, filled: &Filled) {
        let extent = filled.0;
        let out = self.out.get_mut(extent.buffer as usize);
        let found = out.and_then(|out| out.iter().position(|s| s.lent_in.is_some() && s.extent == extent).map(|i| (out, i)));
        let Some((out, i)) = found else {
            panic!("{extent:?} was recycled twice, or never lent");
        };
        out.remove(i);
        if extent.last {
            assert!(out.is_empty(), "{extent:?} gives its buffer back while other stretches of it are in use");
            self.free.push_back(extent.buffer);
        }
    }

    /// A stretch that the core has taken before that turn and not given back.
    pub(super) fn lent_before(&self, turn: u64) -> Option<impl std::fmt::Debug> {
        let is_older = |stretch: &&Stretch| stretch.lent_in.is_some_and(|lent_in| lent_in < turn);
        self.out.iter().flatten().find(is_older).map(|stretch| stretch.extent)
    }

    /// A stretch that is out in any way, be its completion taken or not.
    pub(super) fn any_out(&self) -> Option<impl std::fmt::Debug> {
        self.out.iter().flatten().next().map(|s| s.extent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled_and_lent(buffers: &mut Buffers, len: usize) -> Filled {
        let filled = buffers.fill(len);
        buffers.lend(&filled, 0);
        filled
    }

    #[test]
    fn whole_buffers_go_round_in_ring_order() {
        let mut buffers = Buffers::new(2, 8, false);
        let a = filled_and_lent(&mut buffers, 3);
        let b = filled_and_lent(&mut buffers, 8);
        assert_eq!((a.0.buffer, a.0.last, b.0.buffer, buffers.room()), (0, true, 1, 0));
        buffers.recycle(&b);
        buffers.recycle(&a);
        assert_eq!((buffers.fill(1).0.buffer, buffers.fill(1).0.buffer), (1, 0));
    }

    #[test]
    fn incremental_stretches_follow_each_other() {
        let mut buffers = Buffers::new(2, 8, true);
        let a = filled_and_lent(&mut buffers, 3);
        let b = filled_and_lent(&mut buffers, 5);
        assert_eq!((a.0.offset, a.0.last, b.0.offset, b.0.last, b.0.buffer), (0, false, 3, true, 0));
        assert_eq!((buffers.out_count(), buffers.room()), (1, 8));
        buffers.recycle(&a);
        assert_eq!(buffers.out_count(), 1);
        buffers.recycle(&b);
        assert_eq!((buffers.out_count(), buffers.any_out().is_none()), (0, true));
    }

    #[test]
    #[should_panic(expected = "while other stretches of it are in use")]
    fn last_stretch_first() {
        let mut buffers = Buffers::new(1, 8, true);
        let _first = filled_and_lent(&mut buffers, 3);
        let last = filled_and_lent(&mut buffers, 5);
        buffers.recycle(&last);
    }

    #[test]
    #[should_panic(expected = "recycled twice")]
    fn recycling_twice() {
        let mut buffers = Buffers::new(2, 8, false);
        let filled = filled_and_lent(&mut buffers, 3);
        buffers.recycle(&filled);
        buffers.recycle(&filled);
    }

    #[test]
    #[should_panic(expected = "or never lent")]
    fn recycling_what_was_never_lent() {
        let mut buffers = Buffers::new(2, 8, false);
        buffers.recycle(&Filled(Extent { buffer: 9, offset: 0, len: 1, last: true }));
    }
}
