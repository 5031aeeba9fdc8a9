//! Messages on their way to a connection's task.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::task::Waker;

use crate::message::OwnedMessage;

/// A bounded queue: who fills it is told to stop, and what it holds is counted in its core's sum.
pub(crate) struct Inbox {
    queue: RefCell<VecDeque<OwnedMessage>>,
    bytes: Cell<usize>,
    /// Bytes in all inboxes of the core.
    core_bytes: Rc<Cell<usize>>,
    depth: usize,
    waker: RefCell<Option<Waker>>,
    closed: Cell<bool>,
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
            waker: RefCell::default(),
            closed: Cell::new(false),
            abandoned: Cell::new(false),
        })
    }

    /// Puts a message in; true if no more should come for now.
    pub(crate) fn push(&self, message: OwnedMessage) -> bool {
        if self.abandoned.get() {
            return false;
        }
        let len = message.as_bytes().len();
        self.bytes.set(self.bytes.get() + len);
        self.core_bytes.set(self.core_bytes.get() + len);
        let mut queue = self.queue.borrow_mut();
        queue.push_back(message);
        self.wake();
        queue.len() >= self.depth
    }

    /// Takes the oldest message, and tells whether it is time for more.
    pub(super) fn pop(&self) -> Option<(OwnedMessage, bool)> {
        let mut queue = self.queue.borrow_mut();
        let message = queue.pop_front()?;
        self.forget_bytes(message.as_bytes().len());
        Some((message, queue.len() == self.depth / 2))
    }

    /// Waits for a message or the end.
    pub(super) fn wait(&self, waker: Waker) {
        *self.waker.borrow_mut() = Some(waker);
    }

    /// Bytes of the messages that wait.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes.get()
    }

    /// Forgets the messages that wait.
    pub(crate) fn clear(&self) {
        let messages = std::mem::take(&mut *self.queue.borrow_mut());
        self.forget_bytes(self.bytes.get());
        drop(messages);
    }

    /// No more messages will come.
    pub(crate) fn close(&self) {
        self.closed.set(true);
        self.wake();
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed.get()
    }

    /// Nobody will read it any more.
    pub(super) fn abandon(&self) {
        self.abandoned.set(true);
        self.clear();
    }

    fn forget_bytes(&self, bytes: usize) {
        self.bytes.set(self.bytes.get() - bytes);
        self.core_bytes.set(self.core_bytes.get() - bytes);
    }

    fn wake(&self) {
        if let Some(waker) = self.waker.borrow_mut().take() {
            waker.wake();
        }
    }
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
            assert!(!inbox.push(OwnedMessage::text("abc")) && !inbox.push(OwnedMessage::text("de")));
        }
        assert_eq!((core.get(), inboxes[0].bytes()), (15, 5));
        assert_eq!(inboxes[0].pop().map(|(message, _)| message.as_bytes().len()), Some(3));
        assert_eq!((core.get(), inboxes[0].bytes()), (12, 2));
        inboxes[1].abandon();
        assert!(!inboxes[1].push(OwnedMessage::text("nobody reads it")));
        assert_eq!(core.get(), 7);
        drop(inboxes);
        assert_eq!(core.get(), 0);
    }
}
