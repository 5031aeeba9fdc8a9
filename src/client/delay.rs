//! Waiting without an executor's timers: the client thread has some.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};

use crate::guard;

/// What the thread and the future share.
#[derive(Default)]
struct DelayState(Mutex<(bool, Option<Waker>)>);

/// The thread's side: the time is up when it is dropped, be it that the thread has ended.
pub(super) struct DelayEnd(Arc<DelayState>);

impl Drop for DelayEnd {
    fn drop(&mut self) {
        let waker = {
            let mut state = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
            state.0 = true;
            state.1.take()
        };
        waker.into_iter().for_each(guard::wake);
    }
}

/// Done when its time is up.
pub(super) struct Delay(Arc<DelayState>);

impl Delay {
    /// Is done when its end is dropped.
    pub(super) fn new() -> (Delay, DelayEnd) {
        let state = Arc::new(DelayState::default());
        (Delay(Arc::clone(&state)), DelayEnd(state))
    }
}

impl Future for Delay {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        if state.0 {
            return Poll::Ready(());
        }
        // Dropping a waker may be the end of a task: not under the lock.
        let former = state.1.replace(cx.waker().clone());
        drop(state);
        drop(former);
        Poll::Pending
    }
}
