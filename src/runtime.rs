//! One core's executor: futures that need not be `Send`, and its clock.
//!
//! Tasks run in a phase of their own of the core's tick, when no handler is running; meanwhile the core's hub is lent to
//! them, so a task can queue messages directly. A waker may be used on any thread: what it wakes is put into the core's
//! ready queue, and the core is rung if it sleeps; by another core of the same server at the end of that one's tick, with the
//! letters that it has written meanwhile. So a task may await anything that wakes it: a channel from another
//! thread, a join handle of another runtime, or the core's own [`sleep`].
//!
//! Tasks end with their core, on its thread: [`Runtime::end`] drops those that are not done. Wakers may be used later, and
//! do nothing then.
//!
//! Knows of this crate: `guard`, `hub`, `mail`.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use async_task::Runnable;
use crossbeam_channel::{Receiver, Sender};
use futures_core::Stream;
use slab::Slab;

use crate::guard::{self, Guarded, GuardedFuture};
use crate::hub::{CoreHub, Letter};
use crate::mail::{CoreWaker, Courier};

thread_local! {
    static CURRENT: RefCell<Option<Rc<Runtime>>> = const { RefCell::new(None) };
}

/// A spawned future. Dropping it cancels the future; [`Task::detach`] lets it run on. Awaiting it gives its output.
///
/// ```
/// use ringwire::testing::TestServer;
/// use ringwire::{App, Connection, spawn_local, ws};
///
/// let both = async |_: Connection| {
///     let (one, two) = (spawn_local(async { 1 }), spawn_local(async { 2 }));
///     (one.await + two.await).to_string()
/// };
/// let server = TestServer::new(move || App::new().ws("/", ws().task(both)));
/// server.connect("/").expect_text("3");
/// ```
///
/// # Panics
/// Awaiting it panics if the future did, or if its core has ended before it was done.
#[must_use = "a task that is dropped is cancelled"]
pub struct Task<T>(async_task::Task<Option<Guarded<T>>>);

impl<T> Task<T> {
    /// Lets the future run on, whatever becomes of its output.
    ///
    /// ```
    /// use ringwire::testing::TestServer;
    /// use ringwire::{App, Request, sleep, spawn_local};
    /// use std::time::Duration;
    ///
    /// let later = async |request: Request| {
    ///     let hub = request.hub().clone();
    ///     spawn_local(async move {
    ///         sleep(Duration::from_secs(1)).await;
    ///         hub.shutdown();
    ///     })
    ///     .detach();
    ///     "in a second"
    /// };
    /// let server = TestServer::new(move || App::new().post("/quit", later));
    /// assert_eq!(server.post("/quit").send().text(), "in a second");
    /// server.join();
    /// ```
    pub fn detach(self) {
        self.0.detach();
    }

    /// Cancels the future, and waits until it has been dropped. Its output, if it was done before.
    ///
    /// ```
    /// use ringwire::testing::TestServer;
    /// use ringwire::{App, Connection, sleep, spawn_local, ws};
    /// use std::time::Duration;
    ///
    /// // Nudges who says nothing for a minute.
    /// let nudging = async |mut connection: Connection| loop {
    ///     let sender = connection.sender();
    ///     let nudge = spawn_local(async move {
    ///         sleep(Duration::from_secs(60)).await;
    ///         sender.send("still there?").map(drop)
    ///     });
    ///     if connection.recv().await.is_none() {
    ///         break;
    ///     }
    ///     nudge.cancel().await;
    /// };
    /// let server = TestServer::new(move || App::new().ws("/", ws().task(nudging)));
    /// let client = server.connect("/");
    /// server.advance(Duration::from_secs(40));
    /// client.send("hello");
    /// client.expect_nothing_for(Duration::from_secs(50));
    /// server.advance(Duration::from_secs(20));
    /// client.expect_text("still there?");
    /// ```
    pub async fn cancel(self) -> Option<T> {
        self.0.cancel().await.flatten().map(Guarded::into_inner)
    }

    /// Whether the future is done, was cancelled, or has panicked.
    ///
    /// ```
    /// use ringwire::testing::TestServer;
    /// use ringwire::{App, Connection, sleep, spawn_local, ws};
    /// use std::time::Duration;
    ///
    /// let dots = async |connection: Connection| {
    ///     let work = spawn_local(sleep(Duration::from_millis(2500)));
    ///     while !work.is_finished() {
    ///         let _ = connection.send(".");
    ///         sleep(Duration::from_secs(1)).await;
    ///     }
    ///     "done"
    /// };
    /// let server = TestServer::new(move || App::new().ws("/", ws().task(dots)));
    /// let client = server.connect("/");
    /// [".", ".", ".", "done"].map(|text| client.expect_text(text));
    /// ```
    pub fn is_finished(&self) -> bool {
        self.0.is_finished()
    }
}

impl<T> Future for Task<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<T> {
        let output = Pin::new(&mut self.0).poll(cx);
        output.map(|output| output.expect("the task panicked").into_inner())
    }
}

impl<T> fmt::Debug for Task<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Task").field("is_finished", &self.is_finished()).finish_non_exhaustive()
    }
}

/// How the waker side reaches the core.
struct Ready {
    queue: Sender<Runnable>,
    core: OnceLock<CoreWaker>,
}

impl Ready {
    /// Wakes the core, if it sleeps, or has the core do it whose tick this is.
    fn wake(&self) {
        let Some(core) = self.core.get() else { return };
        // A thread that is ending has no current one.
        let is_left = CURRENT.try_with(|current| {
            let current = current.try_borrow().ok();
            current.is_some_and(|current| current.as_ref().is_some_and(|current| current.leave_to_end_of_tick(core)))
        });
        if !is_left.unwrap_or(false) {
            core.wake();
        }
    }
}

/// Something asked of the hub while it was not lent.
type AskHub = Box<dyn FnOnce(&mut CoreHub)>;

/// A core's executor. See the module.
pub(crate) struct Runtime {
    ready: Arc<Ready>,
    queue: Receiver<Runnable>,
    /// A waker of each task that is not done.
    active: RefCell<Slab<Waker>>,
    /// Sleepers by their time; the second number tells apart those of the same time.
    dues: RefCell<BTreeMap<(u64, u64), Waker>>,
    sequence: Cell<u64>,
    now_ns: Cell<u64>,
    /// Handlers or tasks of the core are running: what is deferred now is done in this tick or the next.
    in_tick: Cell<bool>,
    /// The core has ended, and only destructors run.
    is_ending: Cell<bool>,
    /// The core has no thread of its own: whoever waits on the one that drives it waits for himself.
    #[cfg(feature = "testing")]
    shares_thread: Cell<bool>,
    /// The core's hub while tasks run.
    hub: RefCell<Option<Box<CoreHub>>>,
    /// Other cores of the server for which something has become ready in this tick.
    to_wake: RefCell<Vec<usize>>,
    /// What was asked of the hub while it was not lent.
    deferred: RefCell<Vec<AskHub>>,
    /// What whoever serves this core wants found from wherever its code runs.
    local: RefCell<Option<Rc<dyn Any>>>,
}

impl Runtime {
    pub(crate) fn new() -> Rc<Runtime> {
        let (sender, queue) = crossbeam_channel::unbounded();
        Rc::new(Runtime {
            ready: Arc::new(Ready { queue: sender, core: OnceLock::new() }),
            queue,
            active: RefCell::default(),
            dues: RefCell::default(),
            sequence: Cell::new(0),
            now_ns: Cell::new(0),
            in_tick: Cell::new(false),
            is_ending: Cell::new(false),
            #[cfg(feature = "testing")]
            shares_thread: Cell::new(false),
            hub: RefCell::new(None),
            to_wake: RefCell::default(),
            deferred: RefCell::default(),
            local: RefCell::default(),
        })
    }

    pub(crate) fn set_local<L: 'static>(&self, local: Rc<L>) {
        *self.local.borrow_mut() = Some(local);
    }

    pub(crate) fn local<L: 'static>(&self) -> Option<Rc<L>> {
        self.local.borrow().clone()?.downcast().ok()
    }

    /// How foreign threads wake the core; until this is called they cannot.
    pub(crate) fn set_waker(&self, waker: CoreWaker) {
        let _ = self.ready.core.set(waker);
    }

    /// Makes this the runtime of [`spawn_local`], [`sleep`] and the like on this thread.
    pub(crate) fn make_current(self: &Rc<Runtime>) {
        CURRENT.with_borrow_mut(|current| *current = Some(Rc::clone(self)));
    }

    /// The core runs on the thread that drives it, beside a test.
    #[cfg(feature = "testing")]
    pub(crate) fn share_thread(&self) {
        self.shares_thread.set(true);
    }

    /// This thread's, if it is in a tick of a core of this server: what that core sends goes through its hub.
    pub(crate) fn of(courier: &Courier<Letter>) -> Option<Rc<Runtime>> {
        let is_core = |runtime: &Runtime| runtime.ready.core.get().is_some_and(|waker| courier.has(waker));
        let is_of = |runtime: &Rc<Runtime>| runtime.in_tick.get() && is_core(runtime);
        // A thread that is ending has none.
        CURRENT.try_with(|current| current.borrow().clone().filter(is_of)).ok().flatten()
    }

    /// For what blocks its thread until a core has done something.
    ///
    /// # Panics
    /// Where what is called runs on a core: the core would wait for itself, and so would all of its connections.
    pub(crate) fn refuse_to_block(call: &str) {
        let on_core = |runtime: &Rc<Runtime>| runtime.in_tick.get() || runtime.is_ending.get();
        let is_on_core = CURRENT.try_with(|current| current.borrow().as_ref().is_some_and(on_core)).unwrap_or(false);
        assert!(
            !is_on_core,
            "{call} blocks its thread, and this one is a core's, which would wait for itself: await instead"
        );
        assert!(
            !Runtime::is_thread_shared(),
            "{call} blocks the thread that drives the test server's cores: TestServer::block_on it"
        );
    }

    /// Whether this thread is a test's, which drives cores of its own: time stands still for them while something else runs.
    pub(crate) fn is_thread_shared() -> bool {
        #[cfg(feature = "testing")]
        let shares = |runtime: &Rc<Runtime>| runtime.shares_thread.get();
        #[cfg(not(feature = "testing"))]
        let shares = |_: &Rc<Runtime>| false;
        CURRENT.try_with(|current| current.borrow().as_ref().is_some_and(shares)).unwrap_or(false)
    }

    pub(crate) fn current() -> Rc<Runtime> {
        CURRENT.with_borrow(Option::clone).expect("only on a core: in a handler, a hook or a task")
    }

    pub(crate) fn set_in_tick(&self, in_tick: bool) {
        self.in_tick.set(in_tick);
    }

    pub(crate) fn set_now_ns(&self, now_ns: u64) {
        self.now_ns.set(now_ns);
    }

    pub(crate) fn now_ns(&self) -> u64 {
        self.now_ns.get()
    }

    pub(crate) fn spawn<T: 'static>(self: &Rc<Runtime>, future: impl Future<Output = T> + 'static) -> Task<T> {
        let ready = Arc::clone(&self.ready);
        let schedule = move |runnable| {
            if ready.queue.send(runnable).is_ok() {
                ready.wake();
            }
        };
        let mut active = self.active.borrow_mut();
        let entry = active.vacant_entry();
        let is_active = Active { runtime: Rc::clone(self), key: entry.key() };
        let future = GuardedFuture::new(Box::pin(future));
        // Nothing in it panics, and nothing when it is dropped: that would abort the process.
        let future = async move {
            let _is_active = is_active;
            future.await.map(Guarded::new)
        };
        let (runnable, task) = async_task::spawn_local(future, schedule);
        entry.insert(runnable.waker());
        drop(active);
        runnable.schedule();
        Task(task)
    }

    /// Notes that a core is to be woken when this one's tick is over, if it is in one and both are of one server. Whether
    /// something is ready for itself it looks before it sleeps.
    fn leave_to_end_of_tick(&self, core: &CoreWaker) -> bool {
        let own = self.ready.core.get().filter(|_| self.in_tick.get());
        let Some((own, number)) = own.and_then(|own| Some((own, core.core_beside(own)?))) else { return false };
        let mut to_wake = self.to_wake.borrow_mut();
        if own.core_beside(own) != Some(number) && !to_wake.contains(&number) {
            to_wake.push(number);
        }
        true
    }

    /// The cores that were to be woken at the end of the tick, each once.
    pub(crate) fn take_wakes(&self, wake: &mut dyn FnMut(usize)) {
        // Nothing that is called from here makes anything ready.
        self.to_wake.borrow_mut().drain(..).for_each(wake);
    }

    /// Ends with the core: drops all tasks.
    pub(crate) fn end(self: &Rc<Runtime>) {
        self.is_ending.set(true);
        let wakers: Vec<Waker> = self.active.borrow().iter().map(|(_, waker)| waker.clone()).collect();
        wakers.into_iter().for_each(Waker::wake);
        // Every task is in the queue now, or some other thread is about to put it there.
        while !self.active.borrow().is_empty() {
            let Ok(runnable) = self.queue.recv_timeout(Duration::from_secs(1)) else { break };
            drop(runnable);
        }
        // Those of executors within tasks are a user's.
        self.dues.take().into_values().for_each(|waker| drop(Guarded::new(waker)));
        drop(self.deferred.take());
        let is_current = |current: &mut Rc<Runtime>| Rc::ptr_eq(current, self);
        drop(CURRENT.with_borrow_mut(|current| current.take_if(is_current)));
    }

    /// Whether a task is ready to run.
    pub(crate) fn is_ready(&self) -> bool {
        !self.queue.is_empty() || !self.deferred.borrow().is_empty()
    }

    /// When the next sleeper is due; `None` too if all of them sleep for ever, which is what the end of time is taken for.
    pub(crate) fn next_due_ns(&self) -> Option<u64> {
        let first_ns = self.dues.borrow().first_key_value().map(|((at_ns, _), _)| *at_ns);
        first_ns.filter(|at_ns| *at_ns != u64::MAX)
    }

    /// Wakes due sleepers and runs the tasks that are ready now; those that become ready meanwhile wait for the next call.
    pub(crate) fn run(&self, hub: &mut Option<Box<CoreHub>>) {
        self.fire();
        if let Some(hub) = hub {
            self.catch_up(hub);
        }
        std::mem::swap(&mut *self.hub.borrow_mut(), hub);
        for _ in 0..self.queue.len() {
            let Ok(runnable) = self.queue.try_recv() else { break };
            // A panic ends the task alone: its future is dropped, and whoever awaits it panics too.
            runnable.run();
        }
        std::mem::swap(&mut *self.hub.borrow_mut(), hub);
    }

    fn fire(&self) {
        while let Some(waker) = self.take_due() {
            guard::wake(waker);
        }
    }

    fn take_due(&self) -> Option<Waker> {
        let mut dues = self.dues.borrow_mut();
        let first = dues.first_entry().filter(|first| first.key().0 <= self.now_ns.get())?;
        Some(first.remove())
    }

    /// Does what was asked of the hub while it was not lent: before whoever has it does anything else with it, so that
    /// everything is done in the order in which it was asked.
    #[inline]
    pub(crate) fn catch_up(&self, hub: &mut CoreHub) {
        if !self.deferred.borrow().is_empty() {
            self.do_deferred(hub);
        }
    }

    #[cold]
    fn do_deferred(&self, hub: &mut CoreHub) {
        loop {
            let deferred = std::mem::take(&mut *self.deferred.borrow_mut());
            if deferred.is_empty() {
                return;
            }
            deferred.into_iter().for_each(|ask| ask(hub));
        }
    }

    /// Gives `ask` the hub while tasks run; `None` at other times.
    pub(crate) fn try_with_hub<A>(&self, ask: impl FnOnce(&mut CoreHub) -> A) -> Option<A> {
        let mut hub = self.hub.try_borrow_mut().ok()?;
        let hub = hub.as_deref_mut()?;
        self.catch_up(hub);
        Some(ask(hub))
    }

    /// Gives `ask` the hub: now in a task, and in a handler before the handler does anything else with it, or is over.
    pub(crate) fn with_hub(&self, ask: impl FnOnce(&mut CoreHub) + 'static) {
        let mut ask = Some(ask);
        if self.try_with_hub(|hub| ask.take().map(|ask| ask(hub))).is_none()
            && let Some(ask) = ask
        {
            self.deferred.borrow_mut().push(Box::new(ask));
        }
    }
}

/// Held by a task's future: its end takes the task off the list.
struct Active {
    runtime: Rc<Runtime>,
    key: usize,
}

impl Drop for Active {
    fn drop(&mut self) {
        let waker = self.runtime.active.borrow_mut().try_remove(self.key);
        drop(waker);
    }
}

/// Runs a future on this core, which need not be `Send`.
///
/// ```
/// use ringwire::testing::TestServer;
/// use ringwire::{App, sleep, spawn_local, ws};
/// use std::time::Duration;
///
/// let route = || {
///     ws().on_connect(|socket| {
///         let sender = socket.sender();
///         let reminder = async move {
///             sleep(Duration::from_secs(5)).await;
///             sender.send("tea is ready").map(drop)
///         };
///         spawn_local(reminder).detach();
///     })
/// };
/// let server = TestServer::new(move || App::new().ws("/", route()));
/// server.connect("/").expect_text("tea is ready");
/// ```
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
    Sleep { duration, due: None }
}

/// The future of [`sleep`].
#[derive(Debug)]
pub struct Sleep {
    duration: Duration,
    due: Option<Due>,
}

/// A sleeper's place among those of its core; it takes itself off when it is dropped.
struct Due {
    runtime: Rc<Runtime>,
    at_ns: u64,
    sequence: u64,
}

impl Due {
    fn after(duration: Duration) -> Due {
        let runtime = Runtime::current();
        let at_ns = after(runtime.now_ns(), duration);
        Due::at(runtime, at_ns)
    }

    fn at(runtime: Rc<Runtime>, at_ns: u64) -> Due {
        let sequence = runtime.sequence.get();
        runtime.sequence.set(sequence + 1);
        Due { runtime, at_ns, sequence }
    }

    /// Has this waker woken when it is time, instead of the last one.
    fn wake(&self, waker: Waker) {
        let last = self.runtime.dues.borrow_mut().insert((self.at_ns, self.sequence), waker);
        drop(last);
    }
}

impl Drop for Due {
    fn drop(&mut self) {
        let waker = self.runtime.dues.borrow_mut().remove(&(self.at_ns, self.sequence));
        // With the borrow over: this may be the end of a task, and of other sleepers in it.
        drop(waker);
    }
}

impl fmt::Debug for Due {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Due").field("at_ns", &self.at_ns).finish_non_exhaustive()
    }
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let duration = self.duration;
        let due = self.due.get_or_insert_with(|| Due::after(duration));
        if due.at_ns <= due.runtime.now_ns() {
            return Poll::Ready(());
        }
        due.wake(cx.waker().clone());
        Poll::Pending
    }
}

fn after(from_ns: u64, duration: Duration) -> u64 {
    from_ns.saturating_add(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX))
}

/// Ticks every `period`, first after one period.
///
/// Ticks are due at whole multiples of the period, counted from when this was called, or outside a core from when the
/// first tick was awaited: whatever is done between two ticks, they do not drift. A tick that is awaited late comes at
/// once; those that were missed beside it are skipped, and the next one is due at the next multiple.
///
/// ```no_run
/// # use std::time::Duration;
/// # async fn example() {
/// let mut seconds = ringwire::interval(Duration::from_secs(1));
/// loop {
///     seconds.tick().await;
/// }
/// # }
/// ```
///
/// # Panics
/// If `period` is zero.
pub fn interval(period: Duration) -> Interval {
    assert!(!period.is_zero(), "an interval needs a period");
    let now_ns = CURRENT.with_borrow(|current| current.as_ref().map(|runtime| runtime.now_ns()));
    Interval { period, due_ns: now_ns.map(|now_ns| after(now_ns, period)) }
}

/// Made by [`interval`].
#[derive(Debug)]
pub struct Interval {
    period: Duration,
    /// When the next tick is due; `None` before the first one is awaited, if it was made outside a core.
    due_ns: Option<u64>,
}

impl Interval {
    /// Waits for the next tick. A future that is dropped before it is done has taken none: the tick is due when it was.
    ///
    /// ```
    /// use ringwire::testing::TestServer;
    /// use ringwire::{App, Connection, interval, ws};
    /// use std::time::Duration;
    ///
    /// let clock = async |connection: Connection| {
    ///     let mut minutes = interval(Duration::from_secs(60));
    ///     loop {
    ///         minutes.tick().await;
    ///         let _ = connection.send("a minute");
    ///     }
    /// };
    /// let server = TestServer::new(move || App::new().ws("/", ws().task(clock)));
    /// let client = server.connect("/");
    /// server.advance(Duration::from_secs(181));
    /// assert_eq!(client.unread().len(), 3);
    /// ```
    ///
    /// # Panics
    /// When awaited outside a core.
    pub async fn tick(&mut self) {
        let mut waiting = None;
        std::future::poll_fn(|cx| self.poll_due(cx, &mut waiting)).await;
    }

    /// A stream with an item for each tick.
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// use futures_util::StreamExt as _;
    /// use ringwire::{Streamed, interval, ws};
    ///
    /// // Until the connection ends.
    /// ws().on_connect(|_| Streamed(interval(Duration::from_secs(5)).into_stream().map(|()| "still here")));
    /// ```
    ///
    /// # Panics
    /// When polled outside a core.
    pub fn into_stream(self) -> impl Stream<Item = ()> + Unpin {
        Ticks { interval: self, waiting: None }
    }

    fn poll_due(&mut self, cx: &Context<'_>, waiting: &mut Option<Due>) -> Poll<()> {
        let runtime = Runtime::current();
        let now_ns = runtime.now_ns();
        let due_ns = *self.due_ns.get_or_insert_with(|| after(now_ns, self.period));
        if due_ns > now_ns {
            waiting.get_or_insert_with(|| Due::at(runtime, due_ns)).wake(cx.waker().clone());
            return Poll::Pending;
        }
        self.due_ns = Some(next_multiple(due_ns, self.period, now_ns));
        Poll::Ready(())
    }
}

struct Ticks {
    interval: Interval,
    waiting: Option<Due>,
}

impl Stream for Ticks {
    type Item = ();

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<()>> {
        let Ticks { interval, waiting } = &mut *self;
        let tick = interval.poll_due(cx, waiting);
        if tick.is_ready() {
            *waiting = None;
        }
        tick.map(Some)
    }
}

/// The first time after `now_ns` of those that follow `due_ns` by whole periods.
fn next_multiple(due_ns: u64, period: Duration, now_ns: u64) -> u64 {
    let period_ns = u64::try_from(period.as_nanos()).unwrap_or(u64::MAX);
    let periods = (now_ns - due_ns) / period_ns + 1;
    due_ns.saturating_add(period_ns.saturating_mul(periods))
}

/// The time was up before the future was done.
///
/// ```
/// use ringwire::testing::TestServer;
/// use ringwire::{App, Connection, Elapsed, timeout, ws};
/// use std::time::Duration;
///
/// let in_time = async |mut connection: Connection| match timeout(Duration::from_secs(5), connection.recv()).await {
///     Ok(_message) => "thank you",
///     Err(Elapsed) => "too late",
/// };
/// let server = TestServer::new(move || App::new().ws("/", ws().task(in_time)));
/// server.connect("/").expect_text("too late");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the time is up")]
pub struct Elapsed;

/// Waits for `future`, at most for `duration`.
///
/// ```
/// use ringwire::testing::TestServer;
/// use ringwire::{App, Connection, Elapsed, timeout, ws};
/// use std::time::Duration;
///
/// // Who does not log in within ten seconds is not served.
/// let log_in = async |mut connection: Connection| {
///     let name = timeout(Duration::from_secs(10), connection.recv()).await?;
///     Ok::<_, Elapsed>(name)
/// };
/// let server = TestServer::new(move || App::new().ws("/", ws().task(log_in)));
/// let (ann, silent) = (server.connect("/"), server.connect("/"));
/// ann.send("ann");
/// ann.expect_text("ann");
/// server.advance(Duration::from_secs(11));
/// silent.expect_close(1011);
/// ```
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

#[cfg(test)]
mod tests;
