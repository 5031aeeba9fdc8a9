//! One core's executor: futures that need not be `Send`, and its clock.
//!
//! Tasks run in a phase of their own of the core's tick, when no handler is running; meanwhile the core's hub is lent to
//! them, so a task can queue messages directly. A waker may be used on any thread: what it wakes is put into the core's
//! ready queue, and the core is rung if it sleeps. So a task may await anything that wakes it: a channel from another
//! thread, a join handle of another runtime, or the core's own [`sleep`].

use std::cell::{Cell, RefCell};
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use async_task::Runnable;
use crossbeam_channel::{Receiver, Sender};

use crate::hub::CoreHub;
use crate::mail::CoreWaker;

thread_local! {
    static CURRENT: RefCell<Option<Rc<Runtime>>> = const { RefCell::new(None) };
}

/// A spawned future. Dropping it cancels the future; [`Task::detach`] lets it run on. Awaiting it gives its output.
pub type Task<T> = async_task::Task<T>;

type Deferred = Box<dyn FnOnce(&mut CoreHub)>;

struct Due {
    at_ns: u64,
    sequence: u64,
    waker: Waker,
}

impl PartialEq for Due {
    fn eq(&self, other: &Due) -> bool {
        (self.at_ns, self.sequence) == (other.at_ns, other.sequence)
    }
}

impl Eq for Due {}

impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Due) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Due {
    fn cmp(&self, other: &Due) -> std::cmp::Ordering {
        (self.at_ns, self.sequence).cmp(&(other.at_ns, other.sequence))
    }
}

/// How the waker side reaches the core.
struct Ready {
    queue: Sender<Runnable>,
    core: OnceLock<CoreWaker>,
}

/// A core's executor. See the module.
pub(crate) struct Runtime {
    ready: Arc<Ready>,
    queue: Receiver<Runnable>,
    dues: RefCell<BinaryHeap<Reverse<Due>>>,
    sequence: Cell<u64>,
    now_ns: Cell<u64>,
    /// The core's hub while tasks run.
    hub: RefCell<Option<Box<CoreHub>>>,
    /// What was asked of the hub while it was not lent.
    deferred: RefCell<Vec<Deferred>>,
}

impl Runtime {
    pub(crate) fn new() -> Rc<Runtime> {
        let (sender, queue) = crossbeam_channel::unbounded();
        Rc::new(Runtime {
            ready: Arc::new(Ready { queue: sender, core: OnceLock::new() }),
            queue,
            dues: RefCell::default(),
            sequence: Cell::new(0),
            now_ns: Cell::new(0),
            hub: RefCell::new(None),
            deferred: RefCell::default(),
        })
    }

    /// How foreign threads wake the core; until this is called they cannot.
    pub(crate) fn set_waker(&self, waker: CoreWaker) {
        let _ = self.ready.core.set(waker);
    }

    /// Makes this the runtime of [`spawn_local`], [`sleep`] and the like on this thread.
    pub(crate) fn make_current(self: &Rc<Runtime>) {
        CURRENT.with_borrow_mut(|current| *current = Some(Rc::clone(self)));
    }

    fn current() -> Rc<Runtime> {
        CURRENT.with_borrow(Option::clone).expect("only on a core: in a handler, a hook or a task")
    }

    pub(crate) fn set_now_ns(&self, now_ns: u64) {
        self.now_ns.set(now_ns);
    }

    pub(crate) fn now_ns(&self) -> u64 {
        self.now_ns.get()
    }

    pub(crate) fn spawn<T: 'static>(&self, future: impl Future<Output = T> + 'static) -> Task<T> {
        let ready = Arc::clone(&self.ready);
        let schedule = move |runnable| {
            // The core has ended with its queue: nobody will run it.
            if ready.queue.send(runnable).is_ok()
                && let Some(core) = ready.core.get()
            {
                core.wake();
            }
        };
        let (runnable, task) = async_task::spawn_local(future, schedule);
        runnable.schedule();
        task
    }

    /// Whether a task is ready to run.
    pub(crate) fn is_ready(&self) -> bool {
        !self.queue.is_empty() || !self.deferred.borrow().is_empty()
    }

    /// When the next sleeper is due.
    pub(crate) fn next_due_ns(&self) -> Option<u64> {
        self.dues.borrow().peek().map(|Reverse(due)| due.at_ns)
    }

    /// Wakes due sleepers and runs the tasks that are ready now; those that become ready meanwhile wait for the next call.
    pub(crate) fn run(&self, hub: &mut Option<Box<CoreHub>>) {
        self.fire();
        std::mem::swap(&mut *self.hub.borrow_mut(), hub);
        for deferred in std::mem::take(&mut *self.deferred.borrow_mut()) {
            self.with_hub(deferred);
        }
        for _ in 0..self.queue.len() {
            let Ok(runnable) = self.queue.try_recv() else { break };
            // A panic ends the task alone: its future is dropped, and whoever awaits it panics too.
            if catch_unwind(AssertUnwindSafe(|| runnable.run())).is_err() {
                tracing::error!("a task panicked");
            }
        }
        std::mem::swap(&mut *self.hub.borrow_mut(), hub);
    }

    fn fire(&self) {
        loop {
            let waker = match self.dues.borrow_mut().peek_mut() {
                Some(due) if due.0.at_ns <= self.now_ns.get() => {
                    std::collections::binary_heap::PeekMut::pop(due).0.waker
                }
                _ => return,
            };
            waker.wake();
        }
    }

    /// Gives `ask` the hub while tasks run; `None` at other times.
    pub(crate) fn try_with_hub<A>(&self, ask: impl FnOnce(&mut CoreHub) -> A) -> Option<A> {
        let mut hub = self.hub.try_borrow_mut().ok()?;
        hub.as_deref_mut().map(ask)
    }

    /// Gives `ask` the hub, now or in the next phase of tasks.
    pub(crate) fn with_hub(&self, ask: impl FnOnce(&mut CoreHub) + 'static) {
        let mut ask = Some(ask);
        if self.try_with_hub(|hub| ask.take().map(|ask| ask(hub))).is_none()
            && let Some(ask) = ask
        {
            self.deferred.borrow_mut().push(Box::new(ask));
        }
    }

    fn wake_at(&self, at_ns: u64, waker: Waker) {
        let sequence = self.sequence.get();
        self.sequence.set(sequence + 1);
        self.dues.borrow_mut().push(Reverse(Due { at_ns, sequence, waker }));
    }
}

/// Runs a future on this core, which need not be `Send`.
///
/// # Panics
/// Outside a core: it works in handlers, hooks and tasks.
pub fn spawn_local<T: 'static>(future: impl Future<Output = T> + 'static) -> Task<T> {
    Runtime::current().spawn(future)
}

/// Waits for `duration`, to the precision of the core's tick.
///
/// ```no_run
/// # async fn example() {
/// ringwire::sleep(std::time::Duration::from_millis(10)).await;
/// # }
/// ```
///
/// # Panics
/// When awaited outside a core.
pub fn sleep(duration: Duration) -> Sleep {
    Sleep { duration, at_ns: None }
}

/// The future of [`sleep`].
#[derive(Debug)]
pub struct Sleep {
    duration: Duration,
    at_ns: Option<u64>,
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let runtime = Runtime::current();
        let now_ns = runtime.now_ns();
        let at_ns = match self.at_ns {
            Some(at_ns) => at_ns,
            None => now_ns.saturating_add(u64::try_from(self.duration.as_nanos()).unwrap_or(u64::MAX)),
        };
        self.at_ns = Some(at_ns);
        if at_ns <= now_ns {
            return Poll::Ready(());
        }
        runtime.wake_at(at_ns, cx.waker().clone());
        Poll::Pending
    }
}

/// Ticks every `period`, first after one period. A tick that was missed is not made up for.
///
/// # Panics
/// If `period` is zero.
pub fn interval(period: Duration) -> Interval {
    assert!(!period.is_zero(), "an interval needs a period");
    Interval { period }
}

/// Made by [`interval`].
#[derive(Debug)]
pub struct Interval {
    period: Duration,
}

impl Interval {
    /// Waits for the next tick.
    pub async fn tick(&mut self) {
        sleep(self.period).await;
    }
}

/// The time was up before the future was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the time is up")]
pub struct Elapsed;

/// Waits for `future`, at most for `duration`.
///
/// # Errors
/// [`Elapsed`] if the time was up first; the future is dropped then.
pub async fn timeout<T>(duration: Duration, future: impl Future<Output = T>) -> Result<T, Elapsed> {
    let mut future = std::pin::pin!(future);
    let mut sleep = std::pin::pin!(sleep(duration));
    std::future::poll_fn(move |cx| {
        if let Poll::Ready(output) = future.as_mut().poll(cx) {
            return Poll::Ready(Ok(output));
        }
        sleep.as_mut().poll(cx).map(|()| Err(Elapsed))
    })
    .await
}
