//! How tasks, sleepers and wakers behave, without a server.

use std::sync::Mutex;

use super::*;

async fn yield_once() {
    let mut is_second = false;
    std::future::poll_fn(move |cx| {
        if std::mem::replace(&mut is_second, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// Kills: sleepers that stay until they are due, one for each poll.
#[test]
fn a_sleeper_that_is_dropped_is_forgotten() {
    let runtime = Runtime::new();
    runtime.make_current();
    let task = async {
        for _ in 0..100 {
            assert_eq!(timeout(Duration::from_secs(60), yield_once()).await, Ok(()));
        }
        std::future::pending::<()>().await;
    };
    runtime.spawn(task).detach();
    for _ in 0..150 {
        runtime.run(&mut None);
        assert!(runtime.dues.borrow().len() <= 1);
    }
    assert!(runtime.dues.borrow().is_empty());
    runtime.end();
}

#[test]
fn sleepers_wake_when_they_are_due() {
    let runtime = Runtime::new();
    runtime.make_current();
    let woken = Rc::new(RefCell::new(Vec::new()));
    for ms in [30, 10, 20, 10] {
        let woken = Rc::clone(&woken);
        let task = async move {
            sleep(Duration::from_millis(ms)).await;
            woken.borrow_mut().push(ms);
        };
        runtime.spawn(task).detach();
    }
    runtime.run(&mut None);
    assert_eq!(runtime.next_due_ns(), Some(10_000_000));
    for now_ms in [9, 10, 25, 40] {
        runtime.set_now_ns(now_ms * 1_000_000);
        runtime.run(&mut None);
    }
    assert_eq!(*woken.borrow(), [10, 10, 20, 30]);
    assert!(runtime.active.borrow().is_empty() && runtime.next_due_ns().is_none());
    runtime.end();
}

/// Runs a task a millisecond at a time; when it was done, in milliseconds.
fn run_until_done(runtime: &Rc<Runtime>, task: impl Future<Output = ()> + 'static) -> Option<u64> {
    let task = runtime.spawn(task);
    for now_ms in 0..1000 {
        runtime.set_now_ns(now_ms * 1_000_000);
        while runtime.is_ready() || runtime.next_due_ns().is_some_and(|due_ns| due_ns <= runtime.now_ns()) {
            runtime.run(&mut None);
        }
        if task.is_finished() {
            return Some(now_ms);
        }
    }
    None
}

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// Kills: a tick that begins anew each time it is awaited.
#[test]
fn a_tick_that_was_given_up_is_due_when_it_was() {
    let runtime = Runtime::new();
    runtime.make_current();
    let task = async {
        let mut every = interval(ms(20));
        let mut ticks = 0;
        let begun_ns = Runtime::current().now_ns();
        while Runtime::current().now_ns() - begun_ns < 300_000_000 {
            ticks += u32::from(timeout(ms(5), every.tick()).await.is_ok());
        }
        assert_eq!(ticks, 15);
    };
    assert_eq!(run_until_done(&runtime, task), Some(300));
    assert!(runtime.dues.borrow().is_empty());
    runtime.end();
}

/// Kills: time between ticks that is added to the period.
#[test]
fn ticks_do_not_drift() {
    let runtime = Runtime::new();
    runtime.make_current();
    let task = async {
        let mut every = interval(ms(20));
        for tick in 1..=10 {
            every.tick().await;
            assert_eq!(Runtime::current().now_ns(), tick * 20_000_000);
            if tick < 10 {
                sleep(ms(15)).await;
            }
        }
    };
    assert_eq!(run_until_done(&runtime, task), Some(200));
    runtime.end();
}

/// Kills: missed ticks that are made up for, and a late one that shifts those after it.
#[test]
fn a_late_tick_comes_at_once_and_those_that_were_missed_do_not() {
    let runtime = Runtime::new();
    runtime.make_current();
    let task = async {
        let mut every = interval(ms(20));
        // (what is done before the tick, when the tick comes), in milliseconds.
        for (work, at) in [(5, 20), (30, 50), (0, 60), (65, 125), (0, 140), (20, 160), (0, 180), (39, 219), (0, 220)] {
            sleep(ms(work)).await;
            every.tick().await;
            assert_eq!(Runtime::current().now_ns(), at * 1_000_000, "after {work} ms");
        }
    };
    assert_eq!(run_until_done(&runtime, task), Some(220));
    runtime.end();
}

#[test]
fn an_interval_made_elsewhere_begins_with_its_first_tick() {
    let mut every = std::thread::spawn(|| interval(ms(20))).join().unwrap();
    let runtime = Runtime::new();
    runtime.make_current();
    let task = async move {
        sleep(ms(30)).await;
        every.tick().await;
    };
    assert_eq!(run_until_done(&runtime, task), Some(50));
    runtime.spawn(async { interval(Duration::MAX).tick().await }).detach();
    runtime.run(&mut None);
    assert_eq!(runtime.next_due_ns(), None, "never");
    runtime.end();
}

/// Kills: a time beyond all times that is reckoned with.
#[test]
fn a_sleeper_for_ever_is_never_due() {
    let runtime = Runtime::new();
    runtime.make_current();
    runtime.set_now_ns(5);
    runtime.spawn(sleep(Duration::MAX)).detach();
    runtime.run(&mut None);
    assert_eq!(runtime.next_due_ns(), None);
    runtime.spawn(sleep(Duration::from_nanos(2))).detach();
    runtime.run(&mut None);
    assert_eq!(runtime.next_due_ns(), Some(7));
    runtime.end();
}

/// Kills: tasks that are dropped with their last waker, on whichever thread that is, or never.
#[test]
fn tasks_end_with_their_core_and_wakers_may_be_used_later() {
    let runtime = Runtime::new();
    runtime.make_current();
    let held = Rc::new(());
    let waker = Arc::new(Mutex::new(None::<Waker>));
    let (in_task, waker_out) = (Rc::clone(&held), Arc::clone(&waker));
    let task = async move {
        let _in_task = in_task;
        std::future::poll_fn::<(), _>(|cx| {
            *waker_out.lock().unwrap() = Some(cx.waker().clone());
            Poll::Pending
        })
        .await;
    };
    runtime.spawn(task).detach();
    let in_sleeper = Rc::clone(&held);
    let sleeper = async move {
        sleep(Duration::from_secs(1)).await;
        drop(in_sleeper);
    };
    runtime.spawn(sleeper).detach();
    runtime.run(&mut None);
    assert_eq!(Rc::strong_count(&held), 3);
    runtime.end();
    assert_eq!((Rc::strong_count(&held), Rc::strong_count(&runtime)), (1, 1));
    drop(runtime);
    std::thread::spawn(move || waker.lock().unwrap().take().unwrap().wake()).join().unwrap();
}

/// Kills: a core for which something has become ready, and which nobody wakes; one that is woken in the middle of another's tick.
#[test]
fn other_cores_are_woken_at_the_end_of_a_tick() {
    #[derive(Default)]
    struct Bell(std::sync::atomic::AtomicU32);
    impl crate::mail::Wake for Bell {
        fn wake(&self) {
            self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        }
    }
    let bells = [(); 2].map(|()| Arc::new(Bell::default()));
    let rung = || bells.each_ref().map(|bell| bell.0.load(std::sync::atomic::Ordering::Relaxed));
    let mut office = crate::mail::PostOffice::<Letter>::new(2, 8);
    let wakes = bells.iter().map(|bell| Arc::clone(bell) as Arc<dyn crate::mail::Wake>).collect();
    let courier = office.courier(wakes);
    let runtimes = [0, 1].map(|core| {
        let runtime = Runtime::new();
        runtime.set_waker(courier.waker(core).unwrap());
        runtime
    });
    let mut mailboxes = [0, 1].map(|core| office.take(core).1);
    mailboxes.iter_mut().for_each(|mailbox| assert!(mailbox.park()));
    let woken = |runtime: &Runtime| {
        let mut woken = Vec::new();
        runtime.take_wakes(&mut |core| woken.push(core));
        woken
    };
    runtimes[0].make_current();
    runtimes[0].set_in_tick(true);
    for runtime in [&runtimes[0], &runtimes[1], &runtimes[1]] {
        runtime.spawn(async {}).detach();
    }
    assert_eq!((rung(), woken(&runtimes[0])), ([0, 0], vec![1]), "itself looks before it sleeps");
    assert!(woken(&runtimes[0]).is_empty());
    // Whoever is no core in a tick wakes at once.
    runtimes[0].set_in_tick(false);
    runtimes[1].spawn(async {}).detach();
    assert_eq!((rung(), woken(&runtimes[0])), ([0, 1], vec![]));
    runtimes.iter().for_each(|runtime| runtime.end());
}
