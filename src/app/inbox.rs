//! Messages on their way to a connection's task.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::task::Waker;

use smallvec::SmallVec;

use crate::message::OwnedMessage;

/// A bounded queue: who fills it is told to stop, and what it holds is counted in its core's sum.
pub(crate) struct Inbox {
    queue: RefCell<VecDeque<OwnedMessage>>,
    bytes: Cell<usize>,
    /// Bytes in all inboxes of the core.
    core_bytes: Rc<Cell<usize>>,
    depth: usize,
    /// Whoever waits, each under a number of its own; nearly always one.
    wakers: RefCell<SmallVec<[(u64, Waker); 1]>>,
    /// The number of the next who comes to wait.
    next_waiter: Cell<u64>,
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
            wakers: RefCell::default(),
            next_waiter: Cell::new(0),
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

    /// One more who may come to wait for a message or the end.
    pub(super) fn waiter(&self) -> Waiter<'_> {
        let number = self.next_waiter.get();
        self.next_waiter.set(number + 1);
        Waiter { inbox: self, number, has_waited: false }
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

    /// Wakes all: one alone might have given up without a word to the others.
    fn wake(&self) {
        let wakers = std::mem::take(&mut *self.wakers.borrow_mut());
        wakers.into_iter().for_each(|(_, waker)| waker.wake());
    }
}

/// Somebody who may wait for an inbox; it takes itself off the list when it is dropped.
pub(super) struct Waiter<'i> {
    inbox: &'i Inbox,
    number: u64,
    has_waited: bool,
}

impl Waiter<'_> {
    /// Has this waker woken by the next message or the end, instead of the last one.
    pub(super) fn wait(&mut self, waker: &Waker) {
        self.has_waited = true;
        let mut wakers = self.inbox.wakers.borrow_mut();
        match wakers.iter_mut().find(|(number, _)| *number == self.number) {
            Some((_, last)) => last.clone_from(waker),
            None => wakers.push((self.number, waker.clone())),
        }
    }
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        if self.has_waited {
            let mut wakers = self.inbox.wakers.borrow_mut();
            let place = wakers.iter().position(|(number, _)| *number == self.number);
            let waker = place.map(|place| wakers.swap_remove(place));
            // With the borrow over: this may be the end of a task, and of other waiters in it.
            drop(wakers);
            drop(waker);
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
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::task::Wake;

    use super::*;

    #[derive(Default)]
    struct Count(AtomicU32);

    impl Wake for Count {
        fn wake(self: Arc<Count>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Kills: a second waiter that takes the first one's place, and wakers that stay when their waiters have given up.
    #[test]
    fn every_waiter_is_woken() {
        let counts = [(); 3].map(|()| Arc::new(Count::default()));
        let told = || counts.each_ref().map(|count| count.0.load(Ordering::Relaxed));
        let wakers = counts.each_ref().map(|count| Waker::from(Arc::clone(count)));
        let inbox = Inbox::new(4, Rc::new(Cell::new(0)));
        let mut waiters = [(); 3].map(|()| inbox.waiter());
        for _ in 0..2 {
            waiters.iter_mut().zip(&wakers).for_each(|(waiter, waker)| waiter.wait(waker));
        }
        inbox.push(OwnedMessage::text("abc"));
        assert_eq!(told(), [1, 1, 1]);
        waiters.iter_mut().zip(&wakers).for_each(|(waiter, waker)| waiter.wait(waker));
        let [first, second, third] = waiters;
        drop(second);
        inbox.close();
        assert_eq!(told(), [2, 1, 2]);
        drop((first, third));
        for _ in 0..100 {
            inbox.waiter().wait(&wakers[0]);
        }
        assert!(inbox.wakers.borrow().is_empty());
    }

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
