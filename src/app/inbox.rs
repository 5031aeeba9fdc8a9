//! Messages on their way to a connection's task.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;

use crate::guard;
use crate::message::OwnedMessage;
use crate::wakers::{Waiter, Wakers};

/// What became of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pushed {
    /// It will be read.
    Yes,
    /// It will be read, but no more should come for now.
    Full,
    /// Nobody will read it.
    Discarded,
}

/// A bounded queue: who fills it is told to stop, and what it holds is counted in its core's sum.
pub(crate) struct Inbox {
    queue: RefCell<VecDeque<OwnedMessage>>,
    bytes: Cell<usize>,
    /// Bytes in all inboxes of the core.
    core_bytes: Rc<Cell<usize>>,
    depth: usize,
    /// Those who wait for a message.
    receivers: RefCell<Wakers>,
    /// Those who wait until the socket has taken most of what is queued to it.
    senders: RefCell<Wakers>,
    /// When its connection has ended.
    ended_ns: Cell<Option<u64>>,
    /// Nobody will read it any more.
    abandoned: Cell<bool>,
}

impl Inbox {
    pub(crate) fn new(depth: usize, core_bytes: Rc<Cell<usize>>) -> Rc<Inbox> {
        Rc::new(Inbox {
            queue: RefCell::default(),
            bytes: Cell::new(0),
            core_bytes,
            depth,
            receivers: RefCell::default(),
            senders: RefCell::default(),
            ended_ns: Cell::new(None),
            abandoned: Cell::new(false),
        })
    }

    /// Puts a message in.
    pub(crate) fn push(&self, message: OwnedMessage) -> Pushed {
        if self.abandoned.get() {
            return Pushed::Discarded;
        }
        let len = message.as_bytes().len();
        self.bytes.set(self.bytes.get() + len);
        self.core_bytes.set(self.core_bytes.get() + len);
        let mut queue = self.queue.borrow_mut();
        queue.push_back(message);
        let is_full = queue.len() >= self.depth;
        drop(queue);
        wake(&self.receivers);
        if is_full { Pushed::Full } else { Pushed::Yes }
    }

    /// Takes the oldest message, and tells whether it is time for more.
    pub(super) fn pop(&self) -> Option<(OwnedMessage, bool)> {
        let mut queue = self.queue.borrow_mut();
        let message = queue.pop_front()?;
        self.forget_bytes(message.as_bytes().len());
        Some((message, queue.len() == self.depth / 2))
    }

    /// One more who may come to wait for a message or the end.
    pub(super) fn receiver(&self) -> Waiter<'_> {
        Waiter::new(&self.receivers)
    }

    /// One more who may come to wait until the outbox has fallen, or for the end.
    pub(super) fn sender(&self) -> Waiter<'_> {
        Waiter::new(&self.senders)
    }

    /// The socket has taken most of what was queued to it.
    pub(crate) fn wake_senders(&self) {
        wake(&self.senders);
    }

    /// Bytes of the messages that wait.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes.get()
    }

    /// Forgets the messages that wait, and says how many.
    pub(crate) fn clear(&self) -> usize {
        let messages = std::mem::take(&mut *self.queue.borrow_mut());
        self.forget_bytes(self.bytes.get());
        messages.len()
    }

    /// No more messages will come: the connection has ended.
    pub(crate) fn close(&self, now_ns: u64) {
        self.ended_ns.set(Some(now_ns));
        wake(&self.receivers);
        wake(&self.senders);
    }

    pub(super) fn is_closed(&self) -> bool {
        self.ended_ns.get().is_some()
    }

    /// When the connection has ended.
    pub(super) fn ended_ns(&self) -> Option<u64> {
        self.ended_ns.get()
    }

    /// Nobody will read it any more; how many messages nobody has read.
    pub(super) fn abandon(&self) -> usize {
        self.abandoned.set(true);
        self.clear()
    }

    fn forget_bytes(&self, bytes: usize) {
        self.bytes.set(self.bytes.get() - bytes);
        self.core_bytes.set(self.core_bytes.get() - bytes);
    }
}

fn wake(wakers: &RefCell<Wakers>) {
    let wakers = wakers.borrow_mut().take();
    wakers.for_each(guard::wake);
}

impl Drop for Inbox {
    fn drop(&mut self) {
        self.forget_bytes(self.bytes.get());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Kills: bytes that stay counted after their messages have gone, whichever way they went.
    #[test]
    fn a_core_counts_the_bytes_of_all_its_inboxes() {
        let core = Rc::new(Cell::new(0));
        let inboxes = [(); 3].map(|()| Inbox::new(4, Rc::clone(&core)));
        for inbox in &inboxes {
            assert_eq!(["abc", "de"].map(|text| inbox.push(OwnedMessage::text(text))), [Pushed::Yes; 2]);
        }
        assert_eq!((core.get(), inboxes[0].bytes()), (15, 5));
        assert_eq!(inboxes[0].pop().map(|(message, _)| message.as_bytes().len()), Some(3));
        assert_eq!((core.get(), inboxes[0].bytes()), (12, 2));
        assert_eq!(inboxes[1].abandon(), 2);
        assert_eq!(inboxes[1].push(OwnedMessage::text("nobody reads it")), Pushed::Discarded);
        assert_eq!(core.get(), 7);
        drop(inboxes);
        assert_eq!(core.get(), 0);
    }
}
