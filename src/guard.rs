//! Where what a user wrote runs, and where it is dropped: nowhere but behind what is here.
//!
//! Knows of this crate: nothing.
//!
//! A panic of a handler costs its connection, and a panic of a destructor costs nothing but a line in the log: the core, and
//! everybody else that it serves, goes on. So a user's code is called through [`guarded`], and a user's values (closures,
//! futures, errors, extensions, bodies) are kept as [`Guarded`] or [`GuardedFuture`], which drop them so, wherever it is
//! that they are dropped. What no library can catch ends the process, as the language has it: a destructor that panics
//! while a panic of the same call or of the same value's destructor unwinds, and an abort.
//!
//! An assertion of our own that fails below a handler's call, in `socket.send` for example, unwinds through the handler
//! and is taken for the handler's panic: its connection is closed with 1011 and the core goes on. One that fails outside of
//! handlers ends its core, and with it the server.

use std::any::Any;
use std::fmt;
use std::future::Future;
use std::mem::needs_drop;
use std::ops::{Deref, DerefMut};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

/// Calls what a user wrote; `None` if it panicked, which is logged.
#[inline]
pub fn guarded<R>(what: &str, call: impl FnOnce() -> R) -> Option<R> {
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(returned) => Some(returned),
        Err(panic) => {
            panicked(what, panic);
            None
        }
    }
}

/// As [`guarded`]; what a panic says of itself is for the caller to log.
///
/// # Errors
/// If it panicked, with the panic's text.
#[inline]
pub fn attempted<R>(call: impl FnOnce() -> R) -> Result<R, String> {
    catch_unwind(AssertUnwindSafe(call)).map_err(panic_text)
}

#[cold]
fn panicked(what: &str, panic: Box<dyn Any + Send>) {
    drop_panic(panic);
    tracing::error!("{what} panicked");
}

/// What a panic says of itself.
#[cold]
pub fn panic_text(panic: Box<dyn Any + Send>) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
    drop_panic(panic);
    text.unwrap_or_else(|| "it does not say why".to_owned())
}

/// A panic carries whatever a user gave to `panic_any`, whose destructor may panic again, with whatever that carries.
pub fn drop_panic(panic: Box<dyn Any + Send>) {
    if let Err(next) = catch_unwind(AssertUnwindSafe(|| drop(panic))) {
        // There need not be an end to it.
        std::mem::forget(next);
    }
}

/// What a value says of itself, for a log.
pub fn text(value: &(impl fmt::Display + ?Sized)) -> String {
    guarded("a Display", || value.to_string()).unwrap_or_else(|| "(it panicked while it was written)".to_owned())
}

/// Wakes whoever waits: executors are a user's, too.
#[inline]
pub fn wake(waker: Waker) {
    guarded("a waker", || waker.wake());
}

/// A value of a user's. Its destructor runs guarded, whoever drops it.
#[allow(unnameable_types, reason = "only implementations of traits mention it")]
pub struct Guarded<T>(Option<T>);

impl<T> Guarded<T> {
    /// Takes the value in.
    #[inline]
    pub fn new(value: T) -> Guarded<T> {
        Guarded(Some(value))
    }

    /// Gives the value back.
    pub fn into_inner(mut self) -> T {
        self.0.take().expect(THERE)
    }
}

const THERE: &str = "the value is there until it is dropped";

impl<T> Deref for Guarded<T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        self.0.as_ref().expect(THERE)
    }
}

impl<T> DerefMut for Guarded<T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        self.0.as_mut().expect(THERE)
    }
}

impl<T> Drop for Guarded<T> {
    #[inline]
    fn drop(&mut self) {
        if needs_drop::<T>() {
            let value = self.0.take();
            guarded("a destructor", move || drop(value));
        }
    }
}

impl<T> From<T> for Guarded<T> {
    fn from(value: T) -> Guarded<T> {
        Guarded::new(value)
    }
}

impl<T: Default> Default for Guarded<T> {
    fn default() -> Guarded<T> {
        Guarded::new(T::default())
    }
}

impl<T: Clone> Clone for Guarded<T> {
    fn clone(&self) -> Guarded<T> {
        Guarded(self.0.clone())
    }
}

impl<T: fmt::Debug> fmt::Debug for Guarded<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

/// A future of a user's: its output, or `None` if it panicked. It is dropped, guarded, as soon as it is done.
pub struct GuardedFuture<F: ?Sized>(Option<Pin<Box<F>>>);

impl<F: ?Sized> GuardedFuture<F> {
    /// Takes the future in.
    pub fn new(future: Pin<Box<F>>) -> GuardedFuture<F> {
        GuardedFuture(Some(future))
    }

    fn end(&mut self) {
        if let Some(future) = self.0.take() {
            guarded("a future's destructor", move || drop(future));
        }
    }
}

impl<F: Future + ?Sized> GuardedFuture<F> {
    /// Polls it; where that panics, or did, the error is the panic's text, which is for the caller to log.
    pub fn poll_attempt(&mut self, cx: &mut Context<'_>) -> Poll<Result<F::Output, String>> {
        let Some(future) = &mut self.0 else { return Poll::Ready(Err("it is over".to_owned())) };
        let polled = match attempted(|| future.as_mut().poll(cx)) {
            Ok(Poll::Pending) => return Poll::Pending,
            Ok(Poll::Ready(output)) => Ok(output),
            Err(panic) => Err(panic),
        };
        self.end();
        Poll::Ready(polled)
    }
}

impl<F: Future + ?Sized> Future for GuardedFuture<F> {
    type Output = Option<F::Output>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let was_over = self.0.is_none();
        let polled = self.poll_attempt(cx);
        if !was_over && matches!(polled, Poll::Ready(Err(_))) {
            tracing::error!("a task panicked");
        }
        polled.map(Result::ok)
    }
}

impl<F: ?Sized> Drop for GuardedFuture<F> {
    fn drop(&mut self) {
        self.end();
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::panic::panic_any;
    use std::rc::Rc;
    use std::sync::Arc;
    use std::task::Wake;

    use super::*;

    /// Counts its end, and panics then, `more` times with itself as what the panic carries.
    struct Bomb(Arc<std::sync::atomic::AtomicU32>, u32);

    impl Drop for Bomb {
        fn drop(&mut self) {
            self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            match self.1 {
                0 => panic!("a destructor"),
                more => panic_any(Bomb(Arc::clone(&self.0), more - 1)),
            }
        }
    }

    fn bomb(more: u32) -> (Bomb, impl Fn() -> u32) {
        let count = Arc::<std::sync::atomic::AtomicU32>::default();
        let counted = Arc::clone(&count);
        (Bomb(count, more), move || counted.load(std::sync::atomic::Ordering::Relaxed))
    }

    /// Kills: a guard from which what a panic carries panics again.
    #[test]
    fn whatever_a_panic_carries_ends_there() {
        for more in 0..4 {
            let (bomb, count) = bomb(more);
            assert_eq!(guarded("a test", || -> () { panic_any(bomb) }), None);
            assert!(count() >= 1);
        }
        let (bomb, _) = bomb(2);
        let panic = catch_unwind(AssertUnwindSafe(|| -> () { panic_any(bomb) })).unwrap_err();
        assert_eq!(panic_text(panic), "it does not say why");
        let panic = catch_unwind(|| -> () { panic!("because {}", 1) }).unwrap_err();
        assert_eq!(panic_text(panic), "because 1");
    }

    #[test]
    fn a_destructor_panics_for_itself_alone() {
        let (bomb, count) = bomb(0);
        let other = Rc::new(());
        let many = vec![Some(Guarded::new(bomb)), None];
        let kept = (many, Rc::clone(&other));
        drop(kept);
        assert_eq!((count(), Rc::strong_count(&other)), (1, 1));
    }

    /// Kills: a guard that aborts because it is itself dropped by a panic.
    #[test]
    fn values_of_a_user_may_be_dropped_by_a_panic() {
        let (bomb, count) = bomb(1);
        let kept = Guarded::new(bomb);
        let call = move || {
            let _kept = kept;
            panic!("the handler");
        };
        assert_eq!(guarded("a handler", call), None::<()>);
        assert_eq!(count(), 2, "it, and what its panic carried");
    }

    #[test]
    fn a_future_ends_once_however_it_does() {
        let polled = Rc::new(Cell::new(0));
        for panics in [false, true] {
            let (bomb, count) = bomb(0);
            let polls = Rc::clone(&polled);
            let future = async move {
                let _bomb = Guarded::new(bomb);
                polls.set(polls.get() + 1);
                assert!(!panics, "the future");
                7
            };
            let mut future = GuardedFuture::new(Box::pin(future));
            let mut cx = Context::from_waker(Waker::noop());
            let expected = if panics { None } else { Some(7) };
            assert_eq!(Pin::new(&mut future).poll(&mut cx), Poll::Ready(expected));
            assert_eq!(count(), 1);
            assert_eq!(Pin::new(&mut future).poll(&mut cx), Poll::Ready(None), "it is over");
        }
        let (bomb, count) = bomb(0);
        let unpolled = GuardedFuture::new(Box::pin(async move { drop(bomb) }));
        drop(unpolled);
        assert_eq!((count(), polled.get()), (1, 2));
    }

    #[test]
    fn what_cannot_be_written_or_woken() {
        struct Mute;
        impl fmt::Display for Mute {
            fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
                panic!("no words")
            }
        }
        impl Wake for Mute {
            fn wake(self: Arc<Mute>) {
                panic!("not now")
            }
        }
        assert_eq!(text("words"), "words");
        assert!(text(&Mute).starts_with('('));
        wake(Waker::from(Arc::new(Mute)));
    }
}
