//! Apps on whole cores under the virtual clock: handlers that wait, bodies, answers that come late, and handlers that close
//! whatever they can reach.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use ringwire::engine::sim::{Client, Fault, Faults, RingOptions, Rng};
use ringwire::{
    App, BoxError, Closed, Connection, ConnectionId, FailurePolicy, Message, Mode, OwnedMessage, Request, Sender,
    sleep, ws,
};

use crate::driver::{self, Scenario};
use crate::ends::Heard;
use crate::host::Setup;
use crate::oracle::Route;
use crate::rig::{Rig, Socket};
use crate::wire::{self, Event};

fn serving(app: impl Fn() -> App + 'static) -> Setup {
    Setup { app: Rc::new(app), ..Setup::default() }
}

fn ms(request: &Request) -> Duration {
    let ms = request.query("ms").and_then(|ms| ms.parse().ok());
    Duration::from_millis(ms.unwrap_or(0))
}

// ---- WebSockets whose handlers wait -------------------------------------------------------------------------------

/// A hook that waits, and a handler that waits for each message, longer for some.
pub fn waiting_handler() -> App {
    let echo = async |_: Connection, message: OwnedMessage| {
        sleep(Duration::from_micros(message.as_bytes().len() as u64 % 97)).await;
        message
    };
    App::new()
        .before_async(async |request: &mut Request| {
            sleep(Duration::from_micros(request.headers().len() as u64 * 11)).await;
            Ok(())
        })
        .ws("/echo", ws().inbox_depth(2).on_message_async(echo))
}

/// A task for each connection, which takes its messages when it likes.
pub fn waiting_task() -> App {
    let echo = async |mut connection: Connection| {
        while let Some(message) = connection.recv().await {
            let len = message.as_bytes().len() as u64;
            if len.is_multiple_of(3) {
                sleep(Duration::from_micros(len % 500)).await;
            }
            let _ = connection.send(message);
        }
    };
    App::new().ws("/echo", ws().inbox_depth(1).task(echo))
}

thread_local! {
    static TOLD: RefCell<Heard> = const { RefCell::new(Vec::new()) };
}

/// An echo that writes down what its `on_close` is told, for [`take_told`].
pub fn told() -> App {
    let note = |socket: &mut ringwire::Socket<'_>, closed: &Closed| {
        TOLD.with_borrow_mut(|told| told.push((socket.id(), closed.clone())))
    };
    let echo = |socket: &mut ringwire::Socket<'_>, message: Message<'_>| socket.send(message);
    App::new().ws("/echo", ws().on_message(echo).on_close(note))
}

/// What every `on_close` of [`told`] on this thread has been told since the last call.
pub fn take_told() -> Heard {
    TOLD.take()
}

#[test]
fn handlers_that_wait_answer_everything_in_order() {
    for app in [waiting_handler as fn() -> App, waiting_task] {
        for seed in crate::seeds(30) {
            let calm = Scenario::of(seed, Route::Echo).calm();
            let scenario = Scenario { app, patient: true, stay: false, ..calm };
            let report = driver::run(&scenario).unwrap_or_else(|why| panic!("seed {seed}: {why}"));
            assert_eq!(report.clean, scenario.clients, "seed {seed}: everybody ends cleanly");
        }
    }
}

/// Kills: input that is handled again as soon as the outbox is empty, although the task has not taken what came before.
#[test]
fn a_flood_to_a_slow_task_waits_in_its_own_socket() {
    let seen = Rc::new(RefCell::new(Vec::new()));
    let taken = Rc::clone(&seen);
    let mut rig = Rig::new(&serving(move || {
        let seen = Rc::clone(&taken);
        let task = async move |mut connection: Connection| {
            while let Some(message) = connection.recv().await {
                seen.borrow_mut().push(message.as_text().expect("text").to_owned());
                sleep(Duration::from_millis(1)).await;
            }
        };
        App::new().ws("/slow", ws().inbox_depth(2).task(task))
    }));
    let mut socket = rig.open(0, "/slow");
    assert_eq!(socket.events(), []);
    let texts: Vec<String> = (0..2_000).map(|n| format!("{n:0500}")).collect();
    texts.iter().for_each(|text| socket.text(text));
    let ticks = rig.counters(0).ticks;
    rig.pass_ms(50);
    let bytes = texts.len() * 508 - socket.client.unsent();
    assert!(bytes < 200_000, "{bytes} bytes were taken for a task that takes 25,000");
    let ticks = rig.counters(0).ticks - ticks;
    assert!(ticks < 1_000, "{ticks} ticks");
    // Its end stands behind its messages.
    socket.close(1000);
    rig.pass_ms(4_000);
    assert_eq!(*seen.borrow(), texts);
    assert_eq!(socket.close_code(), Some(1000));
    assert!(rig.ended(0)[0].clean);
    rig.finish();
}

/// An app whose task takes one message and then none for a long time, and the ids of its connections.
fn deaf() -> (Setup, Rc<RefCell<Vec<ConnectionId>>>) {
    let ids = Rc::new(RefCell::new(Vec::new()));
    let opened = Rc::clone(&ids);
    let setup = serving(move || {
        let ids = Rc::clone(&opened);
        let task = async |mut connection: Connection| {
            let _ = connection.recv().await;
            sleep(Duration::from_secs(300)).await;
            while let Some(message) = connection.recv().await {
                let _ = connection.send(message);
            }
        };
        let route = ws().inbox_depth(1).on_connect(move |socket| ids.borrow_mut().push(socket.id())).task(task);
        App::new().ws("/deaf", route)
    });
    (setup, ids)
}

#[test]
fn a_held_connection_that_is_closed_hears_the_peers_close() {
    let (setup, ids) = deaf();
    let mut rig = Rig::new(&setup);
    let mut socket = rig.open(0, "/deaf");
    (0..5).for_each(|n| socket.text(&format!("{n}")));
    rig.pass_ms(10);
    drop(rig.cores.hub.disconnect(ids.borrow()[0], 4000, "enough"));
    rig.settle();
    assert_eq!(socket.close_code(), Some(4000));
    socket.close(4000);
    rig.settle();
    assert!(socket.client.saw_fin() && rig.ended(0)[0].clean);
    rig.finish();
}

/// Kills: connections that stay held for a task that will never take anything again.
#[test]
fn messages_to_a_task_that_has_ended_are_discarded() {
    let mut rig = Rig::new(&serving(|| {
        let task = async |mut connection: Connection| {
            sleep(Duration::from_millis(5)).await;
            connection.recv().await
        };
        App::new().ws("/one", ws().inbox_depth(2).task(task))
    }));
    let mut socket = rig.open(0, "/one");
    (0..50).for_each(|n| socket.text(&format!("{n}")));
    rig.pass_ms(10);
    assert_eq!(socket.texts(), ["0"]);
    socket.close(1000);
    rig.settle();
    assert_eq!(socket.close_code(), Some(1000));
    rig.finish();
}

#[test]
fn a_peer_that_is_not_read_from_is_not_idle() {
    let (setup, _) = deaf();
    let mut rig = Rig::new(&setup);
    let mut socket = rig.open(0, "/deaf");
    (0..5).for_each(|n| socket.text(&format!("{n}")));
    rig.pass(Duration::from_secs(310));
    let messages = socket.events().into_iter().filter(|event| matches!(event, Event::Message(_)));
    assert_eq!(messages.count(), 4);
    assert_eq!(rig.connections(), 1);
    rig.finish();
}

#[test]
fn a_task_may_outlive_its_connection() {
    let ended = Rc::new(Cell::new(0));
    let count = Rc::clone(&ended);
    let ring = RingOptions { slots: 1, ..RingOptions::default() };
    let setup = serving(move || {
        let ended = Rc::clone(&count);
        let task = async move |mut connection: Connection| {
            let first = connection.recv().await.expect("a message");
            while connection.recv().await.is_some() {}
            sleep(Duration::from_millis(20)).await;
            // Whoever has the slot now must not get it, nor be closed.
            assert!(!connection.send(first).is_queued());
            connection.close(4000, "not you").expect("a code");
            ended.set(ended.get() + 1);
        };
        App::new().ws("/task", ws().inbox_depth(1).task(task))
    });
    let mut rig = Rig::new(&Setup { ring, ..setup });
    for n in 0..3 {
        let mut socket = rig.open(0, "/task");
        socket.text("for me");
        rig.pass_ms(30);
        assert_eq!((socket.events(), ended.get()), (vec![], n));
        socket.client.reset();
        rig.pass_ms(1);
    }
    rig.pass_ms(30);
    assert_eq!(ended.get(), 3);
    rig.finish();
}

#[test]
fn a_failed_handler_that_waits_does_what_its_policy_says() {
    let errors = Rc::new(Cell::new(0));
    let count = Rc::clone(&errors);
    let mut rig = Rig::new(&serving(move || {
        let route = |policy| {
            let errors = Rc::clone(&count);
            let handler = async |_: Connection, message: OwnedMessage| {
                sleep(Duration::from_millis(1)).await;
                match message.as_text() {
                    Some("error") => Err(BoxError::from("as asked")),
                    Some("panic") => panic!("as asked"),
                    _ => Ok(message),
                }
            };
            ws().on_failure(policy).on_error(move |_, _| errors.set(errors.get() + 1)).on_message_async(handler)
        };
        App::new().ws("/close", route(FailurePolicy::Close)).ws("/keep", route(FailurePolicy::Keep))
    }));
    for how in ["error", "panic"] {
        let mut socket = rig.open(0, "/close");
        ["before", how, "after"].iter().for_each(|text| socket.text(text));
        rig.pass_ms(10);
        let events = socket.events();
        assert_eq!((events.len(), events.last()), (2, Some(&Event::Close(Some(1011)))), "{how}");
        socket.close(1011);
        let mut socket = rig.open(0, "/keep");
        ["before", how, "after"].iter().for_each(|text| socket.text(text));
        rig.pass_ms(10);
        assert_eq!(socket.texts(), ["before", "after"], "{how}");
    }
    assert_eq!(errors.get(), 4, "panics are told, too");
    rig.finish();
}

/// Kills: tasks that are kept alive by their own wakers.
#[test]
fn tasks_end_with_the_core() {
    let held = Rc::new(());
    let in_app = Rc::clone(&held);
    let mut rig = Rig::new(&serving(move || {
        let held = Rc::clone(&in_app);
        let task = async move |mut connection: Connection| {
            let _held = Rc::clone(&held);
            while connection.recv().await.is_some() {}
            std::future::pending::<()>().await;
        };
        App::new().ws("/task", ws().task(task))
    }));
    let before = Rc::strong_count(&held);
    let _open = rig.open(0, "/task");
    let gone = rig.open(0, "/task");
    gone.client.reset();
    rig.settle();
    assert_eq!(Rc::strong_count(&held), before + 2);
    drop(rig);
    assert_eq!(Rc::strong_count(&held), 1);
}

// ---- senders ------------------------------------------------------------------------------------------------------

/// Kills: the end of a sender that is told by a letter for which there is no room.
#[test]
fn the_end_of_the_last_sender_is_noticed_by_a_core_whose_mailbox_is_full() {
    let senders: Rc<RefCell<Vec<Sender>>> = Rc::default();
    let kept = Rc::clone(&senders);
    let setup = serving(move || {
        let senders = Rc::clone(&kept);
        let keep = move |socket: &mut ringwire::Socket<'_>, _: Message<'_>| senders.borrow_mut().push(socket.sender());
        App::new().ws("/push", ws().mode(Mode::SendOnly).on_message(keep))
    });
    let mut rig = Rig::new(&Setup { mail_depth: 1, ..setup });
    let mut socket = rig.open(0, "/push");
    assert_eq!(socket.events(), []);
    let sender = senders.borrow_mut().pop().expect("a sender");
    let last = sender.send("last").expect("text");
    assert_eq!(sender.send("too much").expect("text").wait().refused, 1);
    drop(sender);
    rig.settle();
    assert_eq!(last.wait().queued, 1);
    let last = wire::Message { opcode: wire::TEXT, payload: b"last".to_vec() };
    assert_eq!(socket.events(), [Event::Message(last), Event::Close(Some(1000))]);
    socket.close(1000);
    rig.finish();
}

/// Kills: the end of earlier senders that is taken for the end of those there are now.
#[test]
fn a_sender_keeps_its_connection_open_although_earlier_ones_have_ended() {
    let senders: Rc<RefCell<Vec<Sender>>> = Rc::default();
    let kept = Rc::clone(&senders);
    let mut rig = Rig::new(&serving(move || {
        let senders = Rc::clone(&kept);
        let keep = move |socket: &mut ringwire::Socket<'_>| {
            drop(socket.sender());
            drop(socket.sender());
            senders.borrow_mut().push(socket.sender());
        };
        App::new().ws("/push", ws().mode(Mode::SendOnly).on_connect(keep))
    }));
    let mut socket = rig.open(0, "/push");
    rig.pass_ms(10);
    assert_eq!(socket.events(), []);
    let sender = senders.borrow_mut().pop().expect("a sender");
    let _ = sender.send("later").expect("text");
    rig.settle();
    assert_eq!(socket.texts(), ["later"]);
    drop(sender);
    rig.settle();
    assert_eq!(socket.close_code(), Some(1000));
    socket.close(1000);
    rig.finish();
}

// ---- requests -----------------------------------------------------------------------------------------------------

/// Takes the whole responses off `bytes`: status and body of each.
fn take_responses(bytes: &mut Vec<u8>) -> Vec<(u16, String)> {
    let mut found = Vec::new();
    while let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
        let head = String::from_utf8(bytes[..end].to_vec()).expect("a head is text").to_ascii_lowercase();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
        let length: usize = length.map_or(0, |length| length.trim().parse().expect("a length"));
        if bytes.len() < end + 4 + length {
            break;
        }
        let status = head[9..12].parse().expect("a status");
        found.push((status, String::from_utf8_lossy(&bytes[end + 4..end + 4 + length]).into_owned()));
        bytes.drain(..end + 4 + length);
    }
    found
}

fn responses(client: &Client) -> Vec<(u16, String)> {
    take_responses(&mut client.received())
}

/// `/late` says its number and what its body was, sooner or later.
fn late() -> App {
    let late = async |request: Request| {
        let body = request.body();
        sleep(Duration::from_micros(body.len() as u64 % 700)).await;
        sleep(ms(&request)).await;
        let sum: u64 = body.iter().map(|byte| u64::from(*byte)).sum();
        format!("{} {} {sum}", request.query("n").unwrap_or_default(), body.len())
    };
    App::new().any("/late", late)
}

/// Appends a request in one of the ways in which bodies are sent; returns what it is answered with.
fn put_request(out: &mut Vec<u8>, n: usize, rng: &mut Rng) -> String {
    let mut body = vec![0; rng.pick(&[0, 1, 10, 3_000])];
    rng.fill(&mut body);
    let sum: u64 = body.iter().map(|byte| u64::from(*byte)).sum();
    let head = |method: &str, fields: &str| format!("{method} /late?n={n} HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
    match rng.below(3) {
        0 => {
            out.extend(head("GET", "").into_bytes());
            return format!("{n} 0 0");
        }
        1 => {
            out.extend(head("POST", &format!("Content-Length: {}\r\n", body.len())).into_bytes());
            out.extend(&body);
        }
        _ => {
            out.extend(head("POST", "Transfer-Encoding: chunked\r\n").into_bytes());
            let mut rest = body.as_slice();
            while !rest.is_empty() {
                let (chunk, after) = rest.split_at(rng.between(1, rest.len()));
                out.extend(format!("{:x}\r\n", chunk.len()).into_bytes());
                out.extend(chunk);
                out.extend(b"\r\n");
                rest = after;
            }
            out.extend(b"0\r\n\r\n");
        }
    }
    format!("{n} {} {sum}", body.len())
}

#[test]
fn pipelined_bodies_are_answered_late_and_in_order() {
    for seed in crate::seeds(60) {
        let mut rig = Rig::faulty(&serving(late), seed, Faults::harsh().with(Fault::ClockJump, 0.0));
        let mut rng = Rng::new(seed);
        let clients: Vec<Client> = (0..3).map(|_| rig.connect(0)).collect();
        for client in &clients {
            let mut bytes = Vec::new();
            let expected: Vec<(u16, String)> = (0..8).map(|n| (200, put_request(&mut bytes, n, &mut rng))).collect();
            let mut rest = bytes.as_slice();
            while !rest.is_empty() {
                let (piece, after) = rest.split_at(rng.between(1, rest.len()));
                client.send(piece);
                rest = after;
                rig.pass(Duration::from_micros(rng.below(400)));
            }
            rig.pass_ms(30);
            let got = responses(client);
            let whole = !client.was_broken() && !client.saw_reset();
            assert!(if whole { got == expected } else { expected.starts_with(&got) }, "seed {seed}: {got:?}");
        }
        rig.finish();
    }
}

#[test]
fn a_connection_may_break_while_its_answer_is_awaited() {
    let ended = Rc::new(Cell::new(0));
    let count = Rc::clone(&ended);
    let ring = RingOptions { slots: 3, ..RingOptions::default() };
    let setup = serving(move || {
        let ended = Rc::clone(&count);
        let handler = async move |request: Request| {
            sleep(ms(&request)).await;
            ended.set(ended.get() + 1);
            request.query("n").unwrap_or_default().into_owned()
        };
        App::new().post("/wait", handler)
    });
    for seed in crate::seeds(30) {
        ended.set(0);
        let mut rig = Rig::faulty(&Setup { ring: ring.clone(), ..setup.clone() }, seed, Faults::none());
        let mut rng = Rng::new(seed);
        for n in 0..40 {
            let client = rig.connect(0);
            let head =
                format!("POST /wait?n={n}&ms={} HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc", rng.below(6));
            client.send(head.as_bytes());
            rig.pass_ms(rng.below(6));
            match responses(&client).as_slice() {
                [] => {}
                got => assert_eq!(got, [(200, n.to_string())], "seed {seed}: an answer of its own"),
            }
            if rng.chance(0.7) {
                client.reset();
            } else {
                // Half-closed: it still wants its answer.
                client.shutdown_write();
            }
            rig.pass_ms(rng.below(2));
        }
        rig.pass_ms(100);
        assert_eq!((ended.get(), rig.connections()), (40, 0), "seed {seed}: handlers run to their end");
        rig.finish();
    }
}

/// Kills: what a hook found out that is kept by slot alone.
#[test]
fn a_late_answer_never_reaches_who_has_the_slot_next() {
    #[derive(Clone)]
    struct Name(String);
    let ring = RingOptions { slots: 1, ..RingOptions::default() };
    let setup = serving(|| {
        let name = async |request: &mut Request| {
            sleep(ms(request)).await;
            let name = request.query("name").unwrap_or_default().into_owned();
            request.extensions_mut().insert(Name(name));
            Ok(())
        };
        let tell = |socket: &mut ringwire::Socket<'_>| socket.extensions().get::<Name>().map(|name| name.0.clone());
        App::new().before_async(name).ws("/who", ws().on_connect(tell))
    });
    for late_ms in 2..12 {
        let mut rig = Rig::new(&Setup { ring: ring.clone(), ..setup.clone() });
        let first = rig.connect(0);
        first.send(&wire::request("/who?name=first&ms=8", "dGhlIHNhbXBsZSBub25jZQ=="));
        rig.pass_ms(1);
        first.reset();
        rig.pass_ms(1);
        let mut second = rig.open(0, &format!("/who?name=second&ms={late_ms}"));
        rig.pass_ms(20);
        assert_eq!(second.texts(), ["second"], "{late_ms} ms");
        second.close(1000);
        rig.finish();
    }
}

#[test]
fn hooks_and_handlers_that_panic_are_answered_for() {
    let mut rig = Rig::new(&serving(|| {
        let panics = async |request: &mut Request| {
            sleep(Duration::from_millis(1)).await;
            assert!(request.query("hook").is_none(), "as asked");
            Ok(())
        };
        let handler = async |request: Request| {
            assert!(request.query("handler").is_none(), "as asked");
            "fine"
        };
        App::new().before_async(panics).ws("/ws", ws().trigger_on_connect()).get("/http", handler)
    }));
    let client = rig.connect(0);
    for path in ["/http?hook=1", "/http?handler=1", "/http"] {
        client.send(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes());
    }
    // Last, because it ends the connection.
    client.send(&wire::request("/ws?hook=1", "dGhlIHNhbXBsZSBub25jZQ=="));
    rig.pass_ms(10);
    let statuses: Vec<u16> = responses(&client).into_iter().map(|(status, _)| status).collect();
    assert_eq!(statuses, [500, 500, 200, 500]);
    rig.finish();
}

#[test]
fn the_next_head_has_its_time_after_a_late_answer() {
    let mut rig = Rig::new(&serving(late));
    let client = rig.connect(0);
    client.send(b"GET /late?n=1&ms=15000 HTTP/1.1\r\nHost: a\r\n\r\nGET /late?n=2 HTTP/1.1\r\nHo");
    rig.pass_ms(23_000);
    assert_eq!(responses(&client), [(200, "1 0 0".to_owned())]);
    assert!(!client.saw_fin());
    rig.pass_ms(4_000);
    assert_eq!(responses(&client)[0].0, 408);
    rig.finish();
}

#[test]
fn a_drain_waits_for_answers() {
    let mut rig = Rig::new(&serving(late));
    let client = rig.connect(0);
    client.send(b"GET /late?n=1&ms=500 HTTP/1.1\r\nHost: a\r\n\r\nGET /late?n=2 HTTP/1.1\r\nHost: a\r\n\r\n");
    let websocket = rig.connect(0);
    websocket.send(b"POST /late?ms=400 HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbo");
    rig.pass_ms(10);
    rig.drain();
    rig.pass_ms(300);
    assert!(!rig.cores.is_drained());
    websocket.send(b"dy");
    rig.pass_ms(900);
    assert_eq!(responses(&client), [(200, "1 0 0".to_owned())], "and no more: the connection is to go");
    assert_eq!(responses(&websocket).len(), 1);
    assert!(client.saw_fin() && rig.cores.is_drained());
    rig.finish();
}

/// Kills: routes that are kept for good, without their limits.
#[test]
fn a_handler_may_upgrade_to_a_route_of_its_own_making() {
    let held = Rc::new(());
    let in_app = Rc::clone(&held);
    let mut rig = Rig::new(&serving(move || {
        let held = Rc::clone(&in_app);
        let upgrade = async move |request: Request| {
            let held = Rc::clone(&held);
            let echo = move |socket: &mut ringwire::Socket<'_>, message: Message<'_>| {
                let _held = &held;
                socket.send(message)
            };
            request.upgrade(&ws().max_message(10).on_message(echo))
        };
        App::new().get("/up", upgrade)
    }));
    let before = Rc::strong_count(&held);
    let mut sockets: Vec<Socket> = (0..5).map(|_| rig.open(0, "/up")).collect();
    assert_eq!(Rc::strong_count(&held), before + 5);
    for socket in &mut sockets {
        socket.text("0123456789");
    }
    rig.settle();
    for socket in &mut sockets {
        assert_eq!(socket.texts(), ["0123456789"]);
        socket.text("0123456789a");
    }
    rig.settle();
    for socket in &mut sockets {
        assert_eq!(socket.close_code(), Some(1009));
        socket.close(1009);
    }
    let client = rig.connect(0);
    client.send(b"GET /up HTTP/1.1\r\nHost: a\r\n\r\n");
    rig.pass_ms(10);
    assert_eq!(responses(&client)[0].0, 426);
    assert_eq!(Rc::strong_count(&held), before);
    rig.finish();
}

// ---- handlers that close ------------------------------------------------------------------------------------------

/// What the handlers of a run have done, on all cores.
#[derive(Default)]
struct Doings {
    ids: RefCell<Vec<ConnectionId>>,
    closed: RefCell<BTreeMap<ConnectionId, u32>>,
    rng: RefCell<Option<Rng>>,
}

impl Doings {
    fn pick(&self) -> Option<ConnectionId> {
        let ids = self.ids.borrow();
        let place = self.rng.borrow_mut().as_mut()?.below(ids.len().max(1) as u64);
        ids.get(place as usize).copied()
    }

    /// Does what a client asks for.
    fn act(&self, socket: &mut ringwire::Socket<'_>, what: &str) {
        match what {
            "close" => socket.close(4000, "asked to").expect("a code"),
            "other" => {
                if let Some(id) = self.pick() {
                    drop(socket.hub().disconnect(id, 4001, "by another"));
                }
            }
            "emit" => {
                let _ = socket.join("room");
                let _ = socket.to("room").send("from inside").expect("text");
                socket.leave("room");
                let _ = socket.to("room").send("from outside").expect("text");
                let _ = socket.join("room");
            }
            "panic" => panic!("as asked"),
            _ => {}
        }
    }
}

fn play(doings: &Rc<Doings>) -> App {
    let (on_connect, on_message, on_close) = (Rc::clone(doings), Rc::clone(doings), Rc::clone(doings));
    let route = ws()
        .on_connect(move |socket| {
            on_connect.ids.borrow_mut().push(socket.id());
            let what = socket.request().query("do").unwrap_or_default().into_owned();
            on_connect.act(socket, &what);
        })
        .on_message(move |socket, message| on_message.act(socket, message.as_text().unwrap_or_default()))
        .on_close(move |socket, _| {
            *on_close.closed.borrow_mut().entry(socket.id()).or_default() += 1;
            assert!(!socket.send("too late").is_queued());
            for what in ["close", "emit", "other"] {
                on_close.act(socket, what);
            }
            if socket.request().query("do").as_deref() == Some("panic") {
                panic!("once more");
            }
        });
    App::new().ws("/play", route)
}

#[test]
fn handlers_may_close_and_emit_wherever_they_are_called() {
    for seed in crate::seeds(60) {
        let doings = Rc::new(Doings::default());
        *doings.rng.borrow_mut() = Some(Rng::new(seed + 1));
        let app = Rc::clone(&doings);
        let mail_depth = if seed.is_multiple_of(2) { 2 } else { 64 };
        let setup = Setup { cores: 2, mail_depth, ..serving(move || play(&app)) };
        let mut rig = Rig::faulty(&setup, seed, Faults::harsh().with(Fault::ClockJump, 0.0));
        let mut rng = Rng::new(seed);
        let whats = ["close", "other", "emit", "panic", "nothing", "emit", "nothing"];
        let mut sockets: Vec<Option<Socket>> = (0..10).map(|_| None).collect();
        for round in 0..150 {
            for (n, place) in sockets.iter_mut().enumerate() {
                let Some(socket) = place else {
                    if rng.chance(0.3) {
                        *place = Some(rig.open(n % 2, &format!("/play?do={}", rng.pick(&whats))));
                    }
                    continue;
                };
                for event in socket.events() {
                    if let Event::Close(code) = event {
                        assert!(matches!(code, Some(4000 | 4001 | 1011)), "seed {seed} round {round}: {code:?}");
                        socket.close(code.unwrap_or(1000));
                    }
                }
                if socket.client.saw_fin() || socket.client.saw_reset() {
                    *place = None;
                } else if rng.chance(0.05) {
                    socket.client.reset();
                    *place = None;
                } else if rng.chance(0.3) {
                    socket.text(rng.pick(&whats));
                    socket.text(rng.pick(&whats));
                }
            }
            rig.pass(Duration::from_micros(rng.below(300)));
        }
        rig.world.set_faults(Faults::none());
        // An accept that failed is tried again after a while.
        rig.pass_ms(150);
        let mut alive: Vec<Socket> = (0..2).map(|core| rig.open(core, "/play")).collect();
        alive.iter_mut().for_each(|socket| socket.text("close"));
        rig.pass_ms(100);
        assert!(alive.iter_mut().all(|socket| matches!(socket.close_code(), Some(4000 | 4001))), "seed {seed}");
        rig.finish();
        let closed = doings.closed.borrow();
        let ids = doings.ids.borrow();
        assert!(
            ids.len() > 20 && ids.len() == closed.len(),
            "seed {seed}: {} opened, {} closed",
            ids.len(),
            closed.len()
        );
        assert!(closed.values().all(|count| *count == 1), "seed {seed}");
    }
}

#[test]
fn a_handler_that_panics_closes_with_1011_and_nothing_else() {
    let doings = Rc::new(Doings::default());
    let app = Rc::clone(&doings);
    let mut rig = Rig::new(&serving(move || play(&app)));
    let mut other = rig.open(0, "/play");
    for path in ["/play?do=panic", "/play"] {
        let mut socket = rig.open(0, path);
        socket.text("panic");
        rig.settle();
        assert_eq!(socket.events(), [Event::Close(Some(1011))], "{path}");
        socket.close(1011);
        rig.settle();
        assert!(socket.client.saw_fin());
    }
    assert_eq!((other.events(), rig.connections()), (vec![], 1));
    rig.finish();
    assert_eq!(doings.closed.borrow().values().sum::<u32>(), 3);
}
