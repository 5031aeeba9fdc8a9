//! Messages that are longer than the bus takes: cut into parts, and put together again.

use std::collections::VecDeque;

use bytes::Bytes;

/// Messages of one node that are being put together at once: it sends the parts of one right behind each other.
const OPEN_MAX: usize = 8;

/// A message that is being put together.
struct Open {
    number: u64,
    parts: u64,
    next: u64,
    bytes: Vec<u8>,
}

/// What one node has begun to send.
#[derive(Default)]
pub(super) struct Parts {
    open: VecDeque<Open>,
}

impl Parts {
    /// Takes a part of message `number`, one of `parts`; the message if this was the last. One that misses a part, or grows
    /// beyond `bytes_max`, comes to nothing, and so does the oldest where too many are begun.
    pub(super) fn take(
        &mut self,
        number: u64,
        index: u64,
        parts: u64,
        part: &[u8],
        bytes_max: usize,
    ) -> Option<Bytes> {
        if index == 0 {
            self.open.retain(|open| open.number != number);
            if self.open.len() == OPEN_MAX {
                self.open.pop_front();
            }
            self.open.push_back(Open { number, parts, next: 0, bytes: Vec::new() });
        }
        let place = self.open.iter().position(|open| open.number == number)?;
        let open = &mut self.open[place];
        if open.next > index {
            // It came twice.
            return None;
        }
        if open.next < index || open.parts != parts || open.bytes.len() + part.len() > bytes_max {
            self.open.remove(place);
            return None;
        }
        open.bytes.extend_from_slice(part);
        open.next += 1;
        if open.next < parts {
            return None;
        }
        self.open.remove(place).map(|open| open.bytes.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_make_a_message_only_together_and_in_order() {
        let mut parts = Parts::default();
        assert_eq!(parts.take(1, 0, 3, b"a", 10), None);
        assert_eq!(parts.take(2, 0, 2, b"x", 10), None, "of another message");
        assert_eq!(parts.take(1, 1, 3, b"b", 10), None);
        assert_eq!(parts.take(1, 1, 3, b"b", 10), None, "again");
        assert_eq!(parts.take(1, 2, 3, b"c", 10).as_deref(), Some(&b"abc"[..]));
        assert_eq!(parts.take(1, 2, 3, b"c", 10), None, "it is done");
        assert_eq!(parts.take(2, 1, 2, b"y", 10).as_deref(), Some(&b"xy"[..]));
        assert_eq!(parts.take(3, 0, 3, b"a", 10), None);
        assert_eq!(parts.take(3, 2, 3, b"c", 10), None, "one is missing");
        assert_eq!(parts.take(3, 1, 3, b"b", 10), None);
        assert_eq!(parts.take(4, 0, 2, b"123456", 10), None);
        assert_eq!(parts.take(4, 1, 2, b"123456", 10), None, "too long");
    }

    #[test]
    fn no_more_than_a_few_are_kept() {
        let mut parts = Parts::default();
        (0..1000).for_each(|number| assert_eq!(parts.take(number, 0, 2, b"a", 10), None));
        assert_eq!(parts.open.len(), OPEN_MAX);
        assert!(parts.take(0, 1, 2, b"b", 10).is_none());
        assert!(parts.take(999, 1, 2, b"b", 10).is_some());
    }
}
