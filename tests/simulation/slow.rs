//! Clients that do not keep up: each policy under random traffic, what handlers are told, and the deadlines of writing.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use ringwire::config::{Deflate, SlowConsumer};
use ringwire::engine::sim::Faults;
use ringwire::metrics::TimeoutKind;
use ringwire::{App, Dropped, Message, Request, Socket as Ws, sleep, ws};

use crate::driver::{self, Lossy, Scenario};
use crate::host::Setup;
use crate::oracle::{self, Route};
use crate::rig::{Rig, Socket};
use crate::wire::{Event, PING, PONG};

const KEYS: usize = 2;

/// `/broadcast`, with each message's key made of its sender and number.
fn keyed_broadcast() -> App {
    let publish = |socket: &mut Ws<'_>, message: Message<'_>| {
        let text = String::from_utf8_lossy(message.as_bytes()).into_owned();
        let mut numbers = text.split(':');
        let mut number = || numbers.next().and_then(|number| number.parse::<usize>().ok()).expect("a tag");
        let (sender, number) = (number(), number());
        let key = format!("{sender} {}", oracle::key_of(number, KEYS));
        let _ = socket.to("all").keyed(key).send(message).expect("no JSON");
    };
    App::new().ws("/broadcast", ws().on_connect(|socket| socket.join("all")).on_message(publish))
}

fn run_lossy(lossy: Lossy, deflate: Deflate, faults: Faults, seeds: u64) -> u64 {
    let mut dropped = 0;
    for seed in crate::seeds(seeds) {
        let of = Scenario::of(seed, Route::Broadcast);
        let app: fn() -> App = match lossy.policy {
            SlowConsumer::KeepLatest => keyed_broadcast,
            _ => of.app,
        };
        let scenario = Scenario { lossy: Some(lossy), app, faults: faults.clone(), messages_max: 40, deflate, ..of };
        let report = driver::run(&scenario).unwrap_or_else(|why| panic!("seed {seed}, {lossy:?}: {why}"));
        dropped += report.dropped;
    }
    dropped
}

#[test]
fn what_is_not_dropped_comes_whole_once_and_in_order() {
    for policy in [SlowConsumer::DropNew, SlowConsumer::DropOld, SlowConsumer::KeepLatest] {
        let keys = if policy == SlowConsumer::KeepLatest { KEYS } else { 1 };
        let lossy = Lossy { policy, outbox_bytes_max: 3_000, keys };
        let off = Deflate::Off;
        let dropped = run_lossy(lossy, off, Faults::harsh(), 60) + run_lossy(lossy, off, Faults::none(), 20);
        assert!(crate::seeds(80).len() < 80 || dropped > 500, "{policy}: only {dropped} were dropped");
    }
}

/// Each receiver inflates what it is sent by an inflater of its own, whatever is dropped or replaced of it.
#[test]
fn what_is_dropped_of_a_stream_leaves_no_receiver_out_of_step() {
    for policy in [SlowConsumer::DropNew, SlowConsumer::DropOld, SlowConsumer::KeepLatest] {
        let keys = if policy == SlowConsumer::KeepLatest { KEYS } else { 1 };
        let lossy = Lossy { policy, outbox_bytes_max: 3_000, keys };
        for deflate in [Deflate::Shared, Deflate::Dedicated] {
            let dropped = run_lossy(lossy, deflate, Faults::harsh(), 12) + run_lossy(lossy, deflate, Faults::none(), 4);
            assert!(crate::seeds(12).len() < 12 || dropped > 40, "{policy} {deflate}: only {dropped} were dropped");
        }
    }
}

#[test]
fn the_latest_of_each_key_always_comes() {
    let lossy = Lossy { policy: SlowConsumer::KeepLatest, outbox_bytes_max: 1 << 20, keys: KEYS };
    let off = Deflate::Off;
    let replaced = run_lossy(lossy, off, Faults::harsh(), 60) + run_lossy(lossy, off, Faults::none(), 40);
    assert!(crate::seeds(100).len() < 100 || replaced > 500, "only {replaced} were replaced");
}

// ---- what handlers are told ---------------------------------------------------------------------------------------

#[derive(Default)]
struct Told {
    dropped: RefCell<Vec<Dropped>>,
    drained: Cell<u32>,
    outbox_bytes: Cell<usize>,
    calls: Cell<u32>,
}

const BELOW: usize = 2_000;

/// `/feed`: everybody is sent `n` messages of 500 bytes by whoever asks for them. Hooks panic where `panics`.
fn feed(told: &Rc<Told>, policy: SlowConsumer, panics: bool) -> Setup {
    let told = Rc::clone(told);
    let app = move || {
        let (on_drop, on_drain) = (Rc::clone(&told), Rc::clone(&told));
        let ask = |socket: &mut Ws<'_>, message: Message<'_>| {
            let n: usize = message.as_text().and_then(|text| text.parse().ok()).expect("a number");
            for number in 0..n {
                let _ = socket.to_all().except_self().send(format!("{number:0500}")).expect("text");
            }
        };
        let route = ws()
            .slow_consumer(policy)
            .on_message(ask)
            .on_drop(move |socket, dropped| {
                on_drop.dropped.borrow_mut().push(*dropped);
                on_drop.outbox_bytes.set(socket.outbox_bytes());
                assert!(!panics, "as asked");
                // What this leads to is told later, and does not come back here at once.
                on_drop.calls.set(on_drop.calls.get() + 1);
                assert_eq!(on_drop.calls.get(), 1, "never from within itself");
                (0..50).for_each(|_| _ = socket.send("z".repeat(400)));
                on_drop.calls.set(0);
            })
            .on_drain(BELOW, move |socket| {
                assert!(socket.outbox_bytes() <= BELOW);
                on_drain.drained.set(on_drain.drained.get() + 1);
            });
        App::new().ws("/feed", route)
    };
    Setup { outbox_bytes_max: 10_000, app: Rc::new(app), ..Setup::default() }
}

fn asker_and_slow(setup: &Setup) -> (Rig, Socket, Socket) {
    let mut rig = Rig::new(setup);
    let asker = rig.open(0, "/feed");
    let mut slow = rig.open(0, "/feed");
    assert_eq!(slow.events(), []);
    slow.client.set_window(10);
    (rig, asker, slow)
}

#[test]
fn drops_are_told_once_in_a_tick_with_their_number() {
    for (policy, oldest, newest) in [(SlowConsumer::DropNew, 0, 11), (SlowConsumer::DropOld, 11, 0)] {
        let told = Rc::new(Told::default());
        let (mut rig, mut asker, slow) = asker_and_slow(&feed(&told, policy, false));
        asker.text("30");
        rig.settle();
        let dropped = told.dropped.borrow().clone();
        // The hook's own drops are told with the next tick, if there is one.
        assert!(dropped.len() <= 2, "{dropped:?}");
        assert_eq!((dropped[0].oldest, dropped[0].newest, dropped[0].replaced), (oldest, newest, 0));
        assert_eq!(dropped[0].bytes, 11 * 504);
        assert!(told.outbox_bytes.get() > 9_000);
        asker.text("0");
        rig.settle();
        assert!((2..=4).contains(&told.dropped.borrow().len()));
        let all: u64 = told.dropped.borrow().iter().map(Dropped::messages).sum();
        assert!(rig.counters(0).drops.total() >= all);
        slow.client.reset();
        rig.finish();
    }
}

#[test]
fn a_closed_slow_consumer_is_told_before_it_goes() {
    let told = Rc::new(Told::default());
    let (mut rig, mut asker, slow) = asker_and_slow(&feed(&told, SlowConsumer::Close, false));
    asker.text("30");
    rig.settle();
    assert_eq!(told.dropped.borrow().len(), 1);
    assert_eq!(told.dropped.borrow()[0].newest, 1, "later ones found it gone");
    slow.client.reset();
    rig.finish();
}

#[test]
fn a_hook_that_panics_closes_its_connection_alone() {
    let told = Rc::new(Told::default());
    let (mut rig, mut asker, mut slow) = asker_and_slow(&feed(&told, SlowConsumer::DropOld, true));
    asker.text("30");
    rig.settle();
    slow.client.set_window(64 << 10);
    rig.pass_ms(5);
    assert_eq!(slow.close_code(), Some(1011));
    slow.close(1011);
    asker.text("1");
    rig.settle();
    assert_eq!((asker.events(), rig.connections()), (vec![], 1));
    rig.finish();
}

#[test]
fn a_queue_that_falls_is_told_when_it_was_high() {
    let told = Rc::new(Told::default());
    let mut rig = Rig::new(&feed(&told, SlowConsumer::DropOld, false));
    let mut asker = rig.open(0, "/feed");
    let mut reader = rig.open(0, "/feed");
    assert_eq!(reader.events(), []);
    asker.text("3");
    rig.settle();
    assert_eq!((reader.texts().len(), told.drained.get()), (3, 0), "it was never high");
    // Sent whole by the turn, which wakes nobody.
    asker.text("6");
    rig.settle();
    assert_eq!((reader.texts().len(), told.drained.get()), (6, 1));
    reader.client.set_window(300);
    asker.text("10");
    rig.settle();
    assert_eq!(told.drained.get(), 1);
    let mut got = 0;
    while got < 10 {
        rig.settle();
        let is_high = rig.cores.all[0].shard.hub().outbox.queued_bytes(1) > BELOW;
        assert_eq!(told.drained.get(), if is_high { 1 } else { 2 });
        got += reader.texts().len();
    }
    assert!(told.dropped.borrow().is_empty());
    rig.finish();
}

// ---- after a limit ------------------------------------------------------------------------------------------------

/// Kills: messages that are queued behind a decision to close, and answers to what is still received.
#[test]
fn after_a_limit_nothing_but_the_close_frame_is_sent() {
    for limit in ["slow", "rate", "size"] {
        let mut setup = Setup { outbox_bytes_max: 5_000, ..Setup::default() };
        setup.settings.message_rate_per_second = if limit == "rate" { 3 } else { 0 };
        let mut rig = Rig::new(&setup);
        let mut others: Vec<Socket> = (0..4).map(|_| rig.open(0, "/broadcast")).collect();
        let mut victim = rig.open(0, "/broadcast");
        assert_eq!(victim.events(), []);
        let (code, before) = match limit {
            "slow" => {
                victim.client.set_window(0);
                for other in &mut others {
                    (0..4).for_each(|n| other.text(&format!("{n:0500}")));
                }
                (1013, 9)
            }
            "rate" => {
                (0..4).for_each(|_| victim.text("mine"));
                (1008, 3)
            }
            _ => {
                victim.frame(2, &vec![0; (1 << 20) + 1]);
                (1009, 0)
            }
        };
        rig.settle();
        // Everybody goes on, the victim too.
        for other in &mut others {
            other.text("more");
        }
        victim.text("more of mine");
        victim.frame(PING, b"there?");
        rig.settle();
        victim.client.set_window(64 << 10);
        rig.pass_ms(10);
        let events = victim.events();
        let messages = events.iter().filter(|event| matches!(event, Event::Message(_))).count();
        assert_eq!(events.last(), Some(&Event::Close(Some(code))), "{limit}");
        assert_eq!((messages, events.len()), (before, before + 1), "{limit}: {events:?}");
        rig.pass_ms(6_000);
        assert!(victim.client.saw_fin() || victim.client.saw_reset(), "{limit}");
        rig.finish();
    }
}

// ---- deadlines ----------------------------------------------------------------------------------------------------

/// Pings count what comes from the peer, not what goes to it.
#[test]
fn a_peer_that_takes_everything_and_says_nothing_is_found() {
    let mut rig = Rig::new(&Setup::default());
    let mut talker = rig.open(0, "/broadcast");
    let mut mute = rig.open(0, "/broadcast");
    assert_eq!(talker.events(), []);
    let mut pings = 0;
    for _ in 0..125 {
        rig.pass_ms(1_000);
        talker.text("tick");
        assert!(!talker.client.saw_fin());
        talker.events();
        let got = mute.events();
        pings += got.iter().filter(|event| **event == Event::Ping(vec![])).count();
    }
    assert_eq!((rig.connections(), pings), (1, 3));
    assert!(mute.client.saw_fin() && rig.ended(0)[0].reason == "idle timeout");
    assert_eq!((rig.counters(0).timeouts.of(TimeoutKind::Idle), rig.counters(0).timeouts.total()), (1, 1));
    talker.frame(PONG, b"");
    rig.finish();
}

#[test]
fn a_socket_that_takes_nothing_has_its_own_deadline() {
    // A waiting send owns a quarter of the limit: the slow one takes that much in ten seconds.
    let mut setup = Setup { outbox_bytes_max: 20_000, slow_consumer: SlowConsumer::DropOld, ..Setup::default() };
    setup.settings.write_timeout = Duration::from_secs(20);
    let mut rig = Rig::new(&setup);
    let mut talker = rig.open(0, "/broadcast");
    let mut stalled = rig.open(0, "/broadcast");
    let mut slow = rig.open(0, "/broadcast");
    assert_eq!((stalled.events(), slow.events()), (vec![], vec![]));
    stalled.client.set_window(10);
    slow.client.set_window(1_000);
    for second in 0..60 {
        talker.text(&format!("{second:01000}"));
        rig.pass_ms(1_000);
        talker.events();
        // Both are alive, one reads a little.
        for socket in [&mut stalled, &mut slow] {
            if !socket.client.is_closed() {
                socket.frame(PONG, b"");
            }
        }
        slow.client.read(500);
        match second {
            ..19 => assert_eq!(rig.connections(), 3, "{second}"),
            21.. => assert_eq!(rig.connections(), 2, "{second}"),
            _ => {}
        }
    }
    assert_eq!((rig.counters(0).timeouts.of(TimeoutKind::Write), rig.counters(0).timeouts.total()), (1, 1));
    assert_eq!(rig.ended(0)[0].reason, "write timeout");
    slow.client.reset();
    rig.finish();
}

#[test]
fn a_route_has_its_own_write_timeout() {
    let app = || {
        let many = |socket: &mut Ws<'_>| _ = socket.send("x".repeat(5_000));
        let route = |seconds| ws().write_timeout(Duration::from_secs(seconds)).on_connect(many);
        App::new().ws("/short", route(2)).ws("/never", route(0))
    };
    let mut rig = Rig::new(&Setup { app: Rc::new(app), ..Setup::default() });
    for (path, seconds) in [("/short", 2), ("/never", 100)] {
        let client = rig.connect(0);
        client.set_window(200);
        client.send(&crate::wire::request(path, "dGhlIHNhbXBsZSBub25jZQ=="));
        rig.settle();
        for _ in 0..seconds {
            assert_eq!(rig.connections(), 1, "{path}");
            rig.pass_ms(999);
            client.send(&[0x8a, 0x80, 0, 0, 0, 0]);
        }
        rig.pass_ms(50);
        assert_eq!(rig.connections(), usize::from(path == "/never"), "{path}");
        client.reset();
        rig.settle();
    }
    rig.finish();
}

#[test]
fn an_http_handler_has_so_long_to_answer() {
    let app = || {
        App::new().get("/slow", async |request: Request| {
            let ms = request.query("ms").and_then(|ms| ms.parse().ok()).expect("a number");
            sleep(Duration::from_millis(ms)).await;
            "here"
        })
    };
    let mut setup = Setup { app: Rc::new(app), ..Setup::default() };
    setup.settings.answer_timeout = Duration::from_secs(15);
    let mut rig = Rig::new(&setup);
    let ask = |rig: &Rig, ms: u32| {
        let client = rig.connect(0);
        client.send(format!("GET /slow?ms={ms} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes());
        client
    };
    let (timely, late, never) = (ask(&rig, 14_000), ask(&rig, 16_000), ask(&rig, 1_000_000));
    rig.pass_ms(14_900);
    assert!(timely.received().starts_with(b"HTTP/1.1 200 "));
    assert_eq!(late.readable(), 0);
    rig.pass_ms(2_000);
    for client in [late, never] {
        let answer = String::from_utf8(client.received()).expect("text");
        assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("too long"), "{answer}");
        assert!(answer.to_ascii_lowercase().contains("connection: close"));
        client.close();
    }
    rig.pass_ms(2_000);
    assert_eq!((rig.connections(), rig.counters(0).timeouts.of(TimeoutKind::Answer)), (1, 2));
    rig.finish();
}
