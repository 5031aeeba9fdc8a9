//! What each connection has sent and received: counted only where somebody wants to be told, for most do not.

/// One connection's counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tallied {
    /// Messages received.
    pub(crate) messages_in: u64,
    /// Messages queued to it.
    pub(crate) messages_out: u64,
    /// Bytes received, its request and framing included.
    pub(crate) bytes_in: u64,
    /// Bytes that its socket has taken.
    pub(crate) bytes_out: u64,
    /// Bytes of the last batch, which may not have been taken whole.
    offered: u64,
}

impl Tallied {
    /// So many bytes are in the batch.
    #[inline]
    pub(crate) fn offer(&mut self, bytes: usize) {
        self.offered = bytes as u64;
        self.bytes_out += bytes as u64;
    }

    /// Only so many of them were taken.
    pub(crate) fn took_only(&mut self, bytes: usize) {
        self.bytes_out -= std::mem::take(&mut self.offered).saturating_sub(bytes as u64);
    }
}

/// All of them, by slot. Where nothing is counted there are none.
#[derive(Debug, Default)]
pub(crate) struct Traffic {
    slots: Vec<Tallied>,
    is_on: bool,
}

impl Traffic {
    /// Counts from now on.
    pub(crate) fn start(&mut self) {
        self.is_on = true;
    }

    /// A connection begins.
    #[inline]
    pub(crate) fn open(&mut self, slot: u32) {
        if self.is_on {
            let index = slot as usize;
            self.slots.resize(self.slots.len().max(index + 1), Tallied::default());
            self.slots[index] = Tallied::default();
        }
    }

    /// A connection's counts, if they are kept.
    #[inline]
    pub(crate) fn of(&mut self, slot: u32) -> Option<&mut Tallied> {
        self.slots.get_mut(slot as usize)
    }

    /// A message was queued to a connection.
    #[inline]
    pub(crate) fn queued(&mut self, slot: u32) {
        if let Some(tallied) = self.of(slot) {
            tallied.messages_out += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_offered_and_not_taken_does_not_count() {
        let mut traffic = Traffic::default();
        traffic.open(3);
        assert_eq!(traffic.of(3), None, "nobody wants to know");
        traffic.start();
        traffic.open(3);
        let of = traffic.of(3).expect("counts");
        of.offer(10);
        of.offer(20);
        of.took_only(5);
        assert_eq!(of.bytes_out, 15);
        traffic.queued(3);
        traffic.queued(9);
        assert_eq!(traffic.of(3).map(|of| of.messages_out), Some(1));
        traffic.open(3);
        assert_eq!(traffic.of(3).copied(), Some(Tallied::default()), "the next owner begins anew");
    }
}
