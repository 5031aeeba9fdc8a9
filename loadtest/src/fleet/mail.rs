//! From the thread that makes a run to the task that speaks with the leader.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};

use super::protocol::{Doing, Word};

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Mail(Mutex<Letters>);

#[derive(Debug, Default)]
struct Letters {
    waiting: VecDeque<Word>,
    /// The newest word of how it goes; older ones are of no use.
    doing: Doing,
    waker: Option<Waker>,
}

impl Mail {
    fn letters(&self) -> MutexGuard<'_, Letters> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn put(&self, word: Word) {
        let mut letters = self.letters();
        letters.waiting.push_back(word);
        let waker = letters.waker.take();
        drop(letters);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    pub(crate) fn note(&self, doing: Doing) {
        self.letters().doing = doing;
    }

    pub(crate) fn doing(&self) -> Doing {
        self.letters().doing.clone()
    }

    pub(crate) fn poll_take(&self, cx: &mut Context<'_>) -> Poll<Word> {
        let mut letters = self.letters();
        match letters.waiting.pop_front() {
            Some(word) => Poll::Ready(word),
            None => {
                letters.waker = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }
}
