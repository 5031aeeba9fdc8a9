//! A server that is ended from several places, with times of their own.

use std::future::Future as _;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread;
use std::time::{Duration, Instant};

use ringwire::client::blocking::block_on;
use ringwire::config::CoreSet;
use ringwire::server::start_service;
use ringwire::{Handle, Server};

use crate::common::raw::{self, Raw};
use crate::common::{PATIENCE, config};
use crate::ends::{echo, inet, soon};
use crate::frail::{DIE, Frail};

const HOUR: Duration = Duration::from_secs(3600);

/// A server that drains for hours if nobody hurries it, and whose clients are told to go at once.
fn patient(notice: Duration) -> Handle {
    let config = config()
        .drain_notice(notice)
        .drain_timeout(HOUR)
        .drain_spread(Duration::ZERO)
        .close_timeout(HOUR)
        .idle_timeout(Duration::ZERO)
        .write_timeout(HOUR);
    Server::new(config).start(echo).expect("it starts")
}

/// A client that never answers a Close frame.
fn mute(handle: &Handle) -> Raw {
    let mut client = Raw::connect(inet(handle));
    client.upgrade("/echo");
    client
}

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// Kills: a clone whose drop ends the server, and a `join` that takes from another what it waits for.
#[test]
fn every_clone_is_the_server_and_each_may_be_joined() {
    for fails in [false, true] {
        let handle = start_service(Server::new(config()), Frail::new).expect("it starts");
        let address = inet(&handle);
        drop(handle.clone());
        let mut client = Raw::connect(address);
        client.upgrade("/echo");
        client.send(&raw::text("still there"));
        assert_eq!(client.frame().payload, b"still there");
        let clones: Vec<Handle> = (0..3).map(|_| handle.clone()).collect();
        let joining: Vec<_> = clones.into_iter().map(|clone| thread::spawn(|| clone.join())).collect();
        if fails {
            client.send(&raw::text(DIE));
        } else {
            handle.shutdown();
            client.send(&raw::close(1000, b""));
        }
        let mut ends: Vec<_> =
            soon(move || joining.into_iter().map(|thread| thread.join().expect("no panic")).collect());
        // Whoever comes later is told the same.
        ends.push(soon({
            let late = handle.clone();
            move || late.join()
        }));
        ends.push(soon(move || block_on(handle.drain(HOUR))));
        assert_eq!(ends.len(), 5);
        for end in ends {
            match (fails, end) {
                (false, end) => end.expect("it ends well"),
                (true, end) => {
                    let error = end.expect_err("a core has failed").to_string();
                    assert!(error.contains("panicked"), "{error}");
                }
            }
        }
    }
}

/// Kills: a drain that takes the time of the settings instead of its own, or that ends only for who waits on a thread.
#[test]
fn a_drain_has_its_own_time_awaited_or_waited_for() {
    for (awaits, notice) in [(true, Duration::ZERO), (false, Duration::ZERO), (true, HOUR), (false, HOUR)] {
        let handle = patient(notice);
        let mut client = mute(&handle);
        let began = Instant::now();
        let draining = handle.drain(ms(600));
        let ended = soon(move || if awaits { block_on(draining) } else { draining.wait() });
        ended.expect("it ends well");
        assert!(began.elapsed() >= ms(550), "{:?}", began.elapsed());
        // It was told to go in time to do so.
        assert_eq!(client.frame().code(), Some(1001));
        let _ = client.rest();
        assert_eq!(handle.connections(), 0);
    }
}

#[derive(Clone, Copy, Debug)]
enum Call {
    Shutdown,
    Drain(Duration),
    HubWithin(Duration),
}

/// The earliest end counts, whoever asks for it, and in whichever order.
#[test]
fn a_later_call_shortens_a_drain_and_none_makes_it_longer() {
    let soon_after = ms(400);
    for (notice, calls) in [
        (Duration::ZERO, [Call::Drain(HOUR), Call::Drain(soon_after)]),
        (Duration::ZERO, [Call::Drain(soon_after), Call::Drain(HOUR)]),
        (Duration::ZERO, [Call::Shutdown, Call::HubWithin(soon_after)]),
        (Duration::ZERO, [Call::HubWithin(soon_after), Call::Shutdown]),
        (HOUR, [Call::Shutdown, Call::Drain(soon_after)]),
        (HOUR, [Call::Drain(HOUR), Call::HubWithin(soon_after)]),
    ] {
        let handle = patient(notice);
        let mut client = mute(&handle);
        for (nth, call) in calls.into_iter().enumerate() {
            if nth == 1 {
                // Within the notice, or the drain.
                thread::sleep(ms(100));
            }
            match call {
                Call::Shutdown => handle.shutdown(),
                Call::Drain(timeout) => drop(handle.drain(timeout)),
                Call::HubWithin(timeout) => handle.hub().shutdown_within(timeout),
            }
        }
        soon(move || handle.join()).unwrap_or_else(|error| panic!("{notice:?} {calls:?}: {error}"));
        assert_eq!(client.frame().code(), Some(1001), "{notice:?} {calls:?}");
        let _ = client.rest();
    }
}

/// Kills: a future that is asked again and again, or dropped, and leaves a waker; one that is woken alone of several.
#[test]
fn everybody_who_awaits_a_drain_is_told() {
    struct NoWake;
    impl Wake for NoWake {
        fn wake(self: Arc<NoWake>) {}
    }
    let handle = patient(Duration::ZERO);
    let client = mute(&handle);
    let waker = Arc::new(NoWake);
    {
        let mut dropped = pin!(handle.drain(HOUR));
        for _ in 0..3 {
            let waker = Waker::from(Arc::clone(&waker));
            assert!(matches!(dropped.as_mut().poll(&mut Context::from_waker(&waker)), Poll::Pending));
        }
        assert_eq!(Arc::strong_count(&waker), 2, "one of them is kept");
    }
    assert_eq!(Arc::strong_count(&waker), 1, "it is gone with its future");
    let awaiting: Vec<_> = (0..3).map(|_| handle.drain(HOUR)).map(|it| thread::spawn(|| block_on(it))).collect();
    drop(handle.drain(ms(100)));
    soon(move || awaiting.into_iter().for_each(|thread| thread.join().expect("no panic").expect("it ends well")));
    drop(client);
}

/// Kills: a future that waits for ever for a handler that does not return, and a clone that is not told of it.
#[test]
fn whoever_awaits_is_told_of_a_core_that_does_not_end() {
    let (release, released) = crossbeam_channel::bounded::<()>(0);
    let (stuck_in, stuck) = crossbeam_channel::unbounded();
    let app = move || {
        let (released, stuck_in) = (released.clone(), stuck_in.clone());
        ringwire::App::new().ws(
            "/echo",
            ringwire::ws().on_message(move |_, _| {
                stuck_in.send(()).expect("the test waits");
                let _ = released.recv();
            }),
        )
    };
    let config = config().cores(CoreSet::Count(1)).drain_timeout(HOUR);
    let handle = Server::new(config).start(app).expect("it starts");
    let mut client = mute(&handle);
    client.send(&raw::text("x"));
    stuck.recv_timeout(PATIENCE).expect("it hangs");
    let joining = thread::spawn({
        let clone = handle.clone();
        move || clone.join()
    });
    let ends = soon(move || [block_on(handle.drain(ms(200))), joining.join().expect("no panic")]);
    for end in ends {
        let error = end.expect_err("it has not ended").to_string();
        assert!(error.contains("core 0 has not ended in its time"), "{error}");
    }
    drop(release);
    let _ = client.rest();
}
