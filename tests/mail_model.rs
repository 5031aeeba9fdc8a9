//! Every interleaving, and every reordering that the memory model allows, of the flag by which mail wakes sleeping cores.
//!
//! The file under test is the library's own, compiled over the atomics of `loom`. The channel is modelled as weakly as can
//! be: a relaxed counter of letters, so that nothing but the protocol's fences orders anything. The bell is a counter that
//! the receiver takes when it wakes, as it takes the completion from its ring.

use loom::sync::Arc;
use loom::sync::atomic::AtomicUsize;
use loom::thread;
use parked::Parked;
use sync::Ordering;

mod sync {
    pub(super) use loom::sync::atomic::{Ordering, fence};

    /// A flag whose stores are exchanges. Loom does not put a plain store and an exchange by another thread into one order
    /// (the exchange's value must stand right behind the one it read), and would show readings that C++20 forbids.
    #[derive(Debug, Default)]
    pub(super) struct AtomicBool(loom::sync::atomic::AtomicBool);

    impl AtomicBool {
        pub(super) fn load(&self, ordering: Ordering) -> bool {
            self.0.load(ordering)
        }

        pub(super) fn store(&self, value: bool, ordering: Ordering) {
            self.0.swap(value, ordering);
        }

        pub(super) fn swap(&self, value: bool, ordering: Ordering) -> bool {
            self.0.swap(value, ordering)
        }
    }
}

#[path = "../src/mail/parked.rs"]
mod parked;

/// What the two sides do around the flag.
trait Protocol: Default + Send + Sync + 'static {
    fn park(&self, is_empty: impl FnOnce() -> bool) -> bool;
    fn unpark(&self);
    fn take(&self) -> bool;
}

impl Protocol for Parked {
    fn park(&self, is_empty: impl FnOnce() -> bool) -> bool {
        Parked::park(self, is_empty)
    }

    fn unpark(&self) {
        Parked::unpark(self);
    }

    fn take(&self) -> bool {
        Parked::take(self)
    }
}

struct Core<P> {
    parked: P,
    letters: AtomicUsize,
    bell: AtomicUsize,
}

impl<P: Protocol> Core<P> {
    fn write(&self, letters: usize) {
        self.letters.fetch_add(letters, Ordering::Relaxed);
        if self.parked.take() {
            self.bell.fetch_add(1, Ordering::Release);
        }
    }
}

/// `writers` threads write `batches` times each, while the core sleeps twice. It wakes from its first sleep because a timer
/// was due, whatever came. If it sleeps in the end although there are letters, somebody must have rung.
fn nobody_sleeps_through_a_letter<P: Protocol>(writers: usize, batches: usize) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(4);
    model.check(move || {
        let core = Arc::new(Core { parked: P::default(), letters: AtomicUsize::new(0), bell: AtomicUsize::new(0) });
        let writers: Vec<_> = (0..writers)
            .map(|_| {
                let core = Arc::clone(&core);
                thread::spawn(move || (0..batches).for_each(|_| core.write(1)))
            })
            .collect();
        let mut read = 0;
        let mut sleeps = false;
        for _ in 0..2 {
            core.parked.unpark();
            core.bell.swap(0, Ordering::Acquire);
            read = core.letters.load(Ordering::Relaxed).max(read);
            sleeps = core.parked.park(|| core.letters.load(Ordering::Relaxed) == read);
        }
        for writer in writers {
            writer.join().expect("writers do not panic");
        }
        let is_missed = core.letters.load(Ordering::Relaxed) != read;
        let is_rung = core.bell.load(Ordering::Relaxed) > 0;
        assert!(!(sleeps && is_missed) || is_rung, "slept through a letter");
    });
}

#[test]
fn one_writer_two_batches() {
    nobody_sleeps_through_a_letter::<Parked>(1, 2);
}

#[test]
fn two_writers() {
    nobody_sleeps_through_a_letter::<Parked>(2, 1);
}

/// A letter is read by the core's last look, or discarded by whoever wrote it: none is left when both have gone.
#[test]
fn no_letter_outlives_the_core() {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(4);
    model.check(|| {
        let core = Arc::new((Parked::default(), AtomicUsize::new(0)));
        let writers: Vec<_> = (0..2)
            .map(|_| {
                let core = Arc::clone(&core);
                thread::spawn(move || {
                    let (parked, letters) = &*core;
                    letters.fetch_add(1, Ordering::Relaxed);
                    parked.take();
                    if parked.has_ended() {
                        letters.swap(0, Ordering::Relaxed);
                    }
                })
            })
            .collect();
        core.0.end();
        core.1.swap(0, Ordering::Relaxed);
        for writer in writers {
            writer.join().expect("writers do not panic");
        }
        assert_eq!(core.1.load(Ordering::Relaxed), 0, "a letter is left");
    });
}

/// The protocol, with fences or without.
#[derive(Default)]
struct Fenced<const RECEIVER: bool, const SENDER: bool>(sync::AtomicBool);

impl<const RECEIVER: bool, const SENDER: bool> Protocol for Fenced<RECEIVER, SENDER> {
    fn park(&self, is_empty: impl FnOnce() -> bool) -> bool {
        self.0.store(true, Ordering::Relaxed);
        if RECEIVER {
            sync::fence(Ordering::SeqCst);
        }
        if is_empty() {
            return true;
        }
        self.unpark();
        false
    }

    fn unpark(&self) {
        self.0.store(false, Ordering::Relaxed);
    }

    fn take(&self) -> bool {
        if SENDER {
            sync::fence(Ordering::SeqCst);
        }
        self.0.load(Ordering::Relaxed) && self.0.swap(false, Ordering::AcqRel)
    }
}

#[test]
fn the_same_protocol_written_out_passes() {
    nobody_sleeps_through_a_letter::<Fenced<true, true>>(1, 2);
}

#[test]
#[should_panic(expected = "slept through a letter")]
fn a_receiver_without_its_fence_is_caught() {
    nobody_sleeps_through_a_letter::<Fenced<false, true>>(1, 1);
}

#[test]
#[should_panic(expected = "slept through a letter")]
fn a_sender_without_its_fence_is_caught() {
    nobody_sleeps_through_a_letter::<Fenced<true, false>>(1, 1);
}
