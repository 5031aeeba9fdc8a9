//! Connections in the hands of tasks: who reads what comes, who waits for a slow peer, and who hears of a failure.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use futures_util::stream::{self, StreamExt as _};
use ringwire::{App, BoxError, Connection, Sent, interval, sleep, spawn_local, timeout, ws};

use crate::host::Setup;
use crate::rig::Rig;
use crate::wire::Event;

fn setup(app: impl Fn() -> App + 'static) -> Setup {
    Setup { app: Rc::new(app), ..Setup::default() }
}

/// Kills: a look at the queue each millisecond, and a waiter that is woken by each send or by none.
#[test]
fn who_waits_for_a_slow_peer_is_woken_once() {
    let (polls, ready) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(0)));
    let (polls_in, ready_in) = (Rc::clone(&polls), Rc::clone(&ready));
    let app = move || {
        let (polls, ready) = (Rc::clone(&polls_in), Rc::clone(&ready_in));
        let task = async move |connection: Connection| {
            for _ in 0..2 {
                (0..200).for_each(|_| _ = connection.send("x".repeat(1_000)));
                let mut waiting = pin!(connection.ready());
                poll_fn(|cx| {
                    polls.set(polls.get() + 1);
                    waiting.as_mut().poll(cx)
                })
                .await;
                ready.set(ready.get() + 1);
            }
            std::future::pending::<()>().await;
        };
        App::new().ws("/", ws().task(task))
    };
    let mut rig = Rig::new(&setup(app));
    let socket = rig.open(0, "/");
    socket.client.set_window(1_000);
    rig.pass_ms(1_000);
    let ticks = rig.counters(0).ticks;
    rig.pass_ms(10_000);
    assert!(rig.counters(0).ticks - ticks < 20, "a core with nothing to do sleeps");
    let is_behind = |rig: &mut Rig| rig.cores.all[0].shard.hub().outbox.queued_bytes(0) > 64 << 10;
    for round in 1..=2 {
        let was_ready = ready.get();
        while ready.get() == was_ready {
            assert!(is_behind(&mut rig), "round {round}: it is not behind any more, and was not woken");
            socket.client.read(20_000);
            rig.settle();
        }
        // After the first round it has begun to wait for the second.
        assert_eq!(polls.get(), [3, 4][round - 1], "it asks, waits, and is woken when it need not wait");
    }
    socket.client.reset();
    rig.finish();
}

/// Kills: a waiter that the end of its connection leaves waiting.
#[test]
fn who_waits_for_a_slow_peer_hears_of_its_end() {
    let done = Rc::new(Cell::new(false));
    let done_in = Rc::clone(&done);
    let app = move || {
        let done = Rc::clone(&done_in);
        let task = async move |connection: Connection| {
            (0..200).for_each(|_| _ = connection.send("x".repeat(1_000)));
            connection.ready().await;
            done.set(connection.is_closed());
        };
        App::new().ws("/", ws().task(task))
    };
    let mut rig = Rig::new(&setup(app));
    let socket = rig.open(0, "/");
    socket.client.set_window(1_000);
    rig.pass_ms(10);
    assert!(!done.get());
    socket.client.reset();
    rig.pass_ms(10);
    assert!(done.get());
    rig.finish();
}

/// Kills: messages that are taken off a stream before there is room for them, and are lost with the future.
#[test]
fn a_stream_that_is_given_up_and_gone_on_with_loses_nothing() {
    let app = || {
        let task = async |connection: Connection| {
            let mut numbers = stream::iter((0..300).map(|number| format!("{number:01000}")));
            while timeout(Duration::from_millis(5), connection.send_stream(&mut numbers)).await.is_err() {}
        };
        App::new().ws("/", ws().task(task))
    };
    let mut rig = Rig::new(&setup(app));
    let mut socket = rig.open(0, "/");
    let mut got = Vec::new();
    while got.len() < 300 {
        let most = 256 << 10;
        assert!(rig.cores.all[0].shard.hub().outbox.queued_bytes(0) < most, "no faster than the peer reads");
        rig.pass_ms(3);
        got.extend(socket.texts().into_iter().map(|text| text.parse::<usize>().expect("a number")));
    }
    assert_eq!(got, (0..300).collect::<Vec<_>>());
    rig.finish();
}

/// Kills: a stream that has nothing to say and outlives its connection.
#[test]
fn who_streams_hears_of_the_end() {
    let told = Rc::new(Cell::new(None));
    let told_in = Rc::clone(&told);
    let app = move || {
        let told = Rc::clone(&told_in);
        let task = async move |connection: Connection| {
            let sent = connection.send_stream(stream::iter(["first"]).chain(stream::pending())).await;
            told.set(Some(sent));
        };
        App::new().ws("/", ws().task(task))
    };
    let mut rig = Rig::new(&setup(app));
    let mut socket = rig.open(0, "/");
    assert_eq!(socket.texts(), ["first"]);
    socket.client.reset();
    rig.pass_ms(1);
    assert_eq!(told.get(), Some(Sent::Gone));
    rig.finish();
}

/// Kills: an inbox that closes with the route's task although somebody reads it, and messages that are thrown away
/// without being counted.
#[test]
fn messages_wait_for_the_last_clone_and_are_counted_when_it_has_gone() {
    let app = || {
        let task = async |connection: Connection| {
            let mut reader = connection.clone();
            let two = async move {
                for _ in 0..2 {
                    sleep(Duration::from_millis(5)).await;
                    let message = reader.recv().await.expect("one came");
                    let _ = reader.send(message);
                }
                // Those that came meanwhile, and have not been read.
                sleep(Duration::from_millis(50)).await;
            };
            spawn_local(two).detach();
        };
        App::new().ws("/", ws().inbox_depth(2).task(task))
    };
    let mut rig = Rig::new(&setup(app));
    let mut socket = rig.open(0, "/");
    ["a", "b", "c"].into_iter().for_each(|text| socket.text(text));
    rig.pass_ms(30);
    assert_eq!(socket.texts(), ["a", "b"]);
    assert_eq!(rig.counters(0).messages_discarded, 0);
    rig.pass_ms(100);
    assert_eq!(rig.counters(0).messages_discarded, 1, "it waited for a clone that has gone");
    // Many more than the inbox would hold: nobody holds them back either.
    (0..10).for_each(|_| socket.text("late"));
    rig.settle();
    assert_eq!((rig.counters(0).messages_discarded, socket.texts()), (11, vec![]));
    socket.close(1000);
    rig.settle();
    assert_eq!(socket.close_code(), Some(1000), "what is behind them is read");
    rig.finish();
}

/// Kills: failures of tasks that are told only while the connection is open.
#[test]
fn a_failure_while_the_connection_closes_is_told() {
    let failures = Rc::new(RefCell::new(Vec::new()));
    let failures_in = Rc::clone(&failures);
    let app = move || {
        let task = async |mut connection: Connection| -> Result<(), BoxError> {
            let by_peer = connection.recv().await.is_some_and(|message| message.as_text() == Some("peer"));
            if by_peer {
                sleep(Duration::from_millis(5)).await;
            } else {
                connection.close(1000, "done").expect("a legal code");
            }
            Err(if by_peer { "after the peer's Close" } else { "after its own Close" }.into())
        };
        let failures = Rc::clone(&failures_in);
        let tell = move |socket: &mut ringwire::Socket<'_>, error: &(dyn std::error::Error + Send + Sync + 'static)| {
            assert!(socket.send("too late") != ringwire::Sent::Queued);
            failures.borrow_mut().push(error.to_string());
        };
        App::new().ws("/", ws().task(task).on_error(tell))
    };
    let mut rig = Rig::new(&setup(app));
    let mut own = rig.open(0, "/");
    own.text("own");
    rig.settle();
    assert_eq!(own.events(), [Event::Close(Some(1000))], "the first reason to close counts");
    assert_eq!(*failures.borrow(), ["after its own Close"]);
    let mut peer = rig.open(0, "/");
    peer.client.set_window(0);
    peer.text("peer");
    peer.close(1000);
    rig.pass_ms(10);
    assert_eq!(failures.borrow()[1..], ["after the peer's Close"]);
    own.close(1000);
    peer.client.reset();
    rig.finish();
}

/// An interval keeps its time on a core whatever is done beside it.
#[test]
fn ticks_come_in_time_beside_other_waits() {
    let ticks = Rc::new(Cell::new(0));
    let ticks_in = Rc::clone(&ticks);
    let app = move || {
        let ticks = Rc::clone(&ticks_in);
        let task = async move |_: Connection| {
            let mut every = interval(Duration::from_millis(20));
            for _ in 0..1_000 {
                if timeout(Duration::from_millis(5), every.tick()).await.is_ok() {
                    ticks.set(ticks.get() + 1);
                }
            }
        };
        App::new().ws("/", ws().task(task))
    };
    let mut rig = Rig::new(&setup(app));
    let socket = rig.open(0, "/");
    rig.pass_ms(310);
    assert_eq!(ticks.get(), 15);
    socket.client.reset();
    rig.finish();
}
