//! Who waits for something to happen: wakers, each under the number of the future that it belongs to, so that a future
//! that is polled again or dropped leaves none behind.
//!
//! Knows of this crate: nothing.

use std::cell::RefCell;
use std::task::Waker;

use smallvec::SmallVec;

/// Those who wait; nearly always one.
#[derive(Default)]
pub(crate) struct Wakers {
    list: SmallVec<[(u64, Waker); 1]>,
    /// The number of the next who comes.
    next: u64,
}

impl Wakers {
    /// A number for one more who may come to wait.
    pub(crate) fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    /// Has this waker woken next time, instead of the last one of the same number. That is returned: to drop it may be the
    /// end of a task, which must not come under a lock or a borrow.
    #[must_use = "it is dropped when nothing is locked or borrowed"]
    pub(crate) fn set(&mut self, number: u64, waker: &Waker) -> Option<Waker> {
        match self.list.iter_mut().find(|(known, _)| *known == number) {
            Some((_, last)) if last.will_wake(waker) => None,
            Some((_, last)) => Some(std::mem::replace(last, waker.clone())),
            None => {
                self.list.push((number, waker.clone()));
                None
            }
        }
    }

    /// Forgets who does not wait any more.
    #[must_use = "it is dropped when nothing is locked or borrowed"]
    pub(crate) fn remove(&mut self, number: u64) -> Option<Waker> {
        let place = self.list.iter().position(|(known, _)| *known == number)?;
        Some(self.list.swap_remove(place).1)
    }

    /// Takes all, to be woken: one alone might give up without a word to the others.
    pub(crate) fn take(&mut self) -> impl Iterator<Item = Waker> + use<> {
        std::mem::take(&mut self.list).into_iter().map(|(_, waker)| waker)
    }

    /// Whether nobody waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }
}

/// Somebody who may wait on the same thread; takes itself off the list when it is dropped.
pub(crate) struct Waiter<'w> {
    wakers: &'w RefCell<Wakers>,
    number: Option<u64>,
}

impl<'w> Waiter<'w> {
    pub(crate) fn new(wakers: &'w RefCell<Wakers>) -> Waiter<'w> {
        Waiter { wakers, number: None }
    }

    /// Has this waker woken next time, instead of the last one.
    pub(crate) fn wait(&mut self, waker: &Waker) {
        let mut wakers = self.wakers.borrow_mut();
        let number = *self.number.get_or_insert_with(|| wakers.number());
        let former = wakers.set(number, waker);
        drop(wakers);
        drop(former);
    }
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        if let Some(number) = self.number {
            let waker = self.wakers.borrow_mut().remove(number);
            // With the borrow over: this may be the end of a task, and of other waiters in it.
            drop(waker);
        }
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
        let waiting = RefCell::new(Wakers::default());
        let wake = || {
            let wakers = waiting.borrow_mut().take();
            wakers.for_each(Waker::wake);
        };
        let mut waiters = [(); 3].map(|()| Waiter::new(&waiting));
        for _ in 0..2 {
            waiters.iter_mut().zip(&wakers).for_each(|(waiter, waker)| waiter.wait(waker));
        }
        wake();
        assert_eq!(told(), [1, 1, 1]);
        waiters.iter_mut().zip(&wakers).for_each(|(waiter, waker)| waiter.wait(waker));
        let [mut first, second, third] = waiters;
        drop(second);
        // A waker of another task takes the place of the former.
        first.wait(&wakers[1]);
        wake();
        assert_eq!(told(), [1, 2, 2]);
        drop((first, third));
        for _ in 0..100 {
            Waiter::new(&waiting).wait(&wakers[0]);
        }
        assert!(waiting.borrow().is_empty());
    }
}
