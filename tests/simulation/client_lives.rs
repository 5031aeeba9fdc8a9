//! Connections of the client's core from their making to their end, under the virtual clock, with peers that a test leads
//! by the hand.

use std::cell::RefCell;
use std::future::{Future, IntoFuture};
use std::io;
use std::rc::Rc;
use std::time::Duration;

use ringwire::client::simulated::{Found, through};
use ringwire::client::{Client, ClientError, Connect, Event, Reconnecting, Waiting};
use ringwire::engine::sim::{self, Dial, Fault, Faults, RingOptions, Rng, World};

use crate::client_host::{ClientCore, Tasks, connect_to};
use crate::rig;
use crate::wire::{self, CLOSE, PING, PONG, TEXT};

/// What a future gave, if it is done.
type Answer<T> = Rc<RefCell<Option<T>>>;

fn take<T>(answer: &Answer<T>) -> T {
    answer.borrow_mut().take().expect("it is answered")
}

struct Rig {
    world: World,
    client: ClientCore,
    tasks: Tasks,
    rng: Rng,
}

/// Finds two addresses for `two.test`, and none for other names.
fn resolve(host: String, port: u16, found: Found) {
    let addresses =
        ["10.0.0.1", "10.0.0.2"].map(|ip| (ip.parse::<std::net::IpAddr>().expect("an address"), port).into());
    found(if host == "two.test" { Ok(addresses.to_vec()) } else { Err(io::Error::from(io::ErrorKind::NotFound)) });
}

impl Rig {
    fn new(faults: Faults, options: RingOptions) -> Rig {
        let world = World::new(1, faults);
        let client = ClientCore::new(&world, 0, options, resolve);
        Rig { world, client, tasks: Tasks::default(), rng: Rng::new(1) }
    }

    fn calm() -> Rig {
        Rig::new(Faults::none(), RingOptions::default())
    }

    fn connect(&self) -> Connect {
        connect_to(&self.client.courier, 1, "/")
    }

    fn start<T: 'static>(&mut self, future: impl Future<Output = T> + 'static) -> Answer<T> {
        let answer = Answer::default();
        let to = Rc::clone(&answer);
        self.tasks.spawn(async move {
            let result = future.await;
            *to.borrow_mut() = Some(result);
        });
        self.settle();
        answer
    }

    /// Lets the core and everybody's futures act until all sleep. The clock stands still.
    fn settle(&mut self) {
        for _ in 0..100_000 {
            let polled = self.tasks.poll(1.0, &mut self.rng);
            match self.client.is_runnable() {
                true => self.client.tick(),
                false if polled => {}
                false => return,
            }
        }
        panic!("it does not come to rest at {} ns", self.world.now());
    }

    fn pass(&mut self, time: Duration) {
        rig::pass(&self.world.clone(), time, || self.settle());
    }

    fn pass_ms(&mut self, ms: u64) {
        self.pass(Duration::from_millis(ms));
    }

    fn dial(&mut self) -> Dial {
        self.settle();
        self.world.next_dial().expect("it connects")
    }

    /// A connection that is open, and its other end.
    fn open_with(&mut self, connect: Connect) -> (Client, Server) {
        let client = self.start(connect.into_future());
        let socket = self.dial().accept();
        let mut server = Server { socket, bytes: Vec::new() };
        self.pass_ms(10);
        server.switch();
        self.pass_ms(10);
        (take(&client).expect("it is open"), server)
    }

    fn open(&mut self) -> (Client, Server) {
        self.open_with(self.connect())
    }

    /// Nothing of anybody is left, soon.
    fn finish(mut self) {
        self.world.set_faults(Faults::none());
        self.pass_ms(1_500);
        assert_eq!(self.tasks.left(), [0; 0], "everybody is answered");
        self.client.tick();
        self.client.check_over().expect("nothing is left");
    }
}

/// The other end of a connection, which does only what it is told to.
struct Server {
    socket: sim::Client,
    bytes: Vec<u8>,
}

impl Server {
    fn switch(&mut self) {
        let key = wire::key_of(&self.socket.received()).expect("a request");
        self.socket.send(&wire::switching(&key));
    }

    fn send(&self, opcode: u8, payload: &[u8]) {
        let mut frame = vec![0x80 | opcode];
        match u16::try_from(payload.len()) {
            Ok(len) if len < 126 => frame.push(len as u8),
            Ok(len) => {
                frame.push(126);
                frame.extend(len.to_be_bytes());
            }
            Err(_) => panic!("a small one will do"),
        }
        frame.extend_from_slice(payload);
        self.socket.send(&frame);
    }

    fn close(&self, code: u16) {
        self.send(CLOSE, &code.to_be_bytes());
    }

    /// Whole frames that have come, unmasked: opcode and payload.
    fn frames(&mut self) -> Vec<(u8, Vec<u8>)> {
        self.bytes.extend(self.socket.received());
        std::iter::from_fn(|| wire::take_frame(&mut self.bytes)).collect()
    }
}

async fn next_text(client: &mut Client) -> Option<String> {
    client.recv().await.map(|message| message.expect("a message").as_text().expect("text").to_owned())
}

/// What is left to receive, and the client.
async fn all_texts(mut client: Client) -> (Vec<String>, Client) {
    let mut texts = Vec::new();
    while let Some(text) = next_text(&mut client).await {
        texts.push(text);
    }
    (texts, client)
}

// ---- connecting ---------------------------------------------------------------------------------------------------

#[test]
fn a_refused_connect_is_told_with_its_reason() {
    let mut rig = Rig::calm();
    let answer = rig.start(rig.connect().into_future());
    rig.dial().refuse(libc::ECONNREFUSED);
    rig.pass_ms(1);
    match take(&answer) {
        Err(ClientError::Connect { address, source }) => {
            assert_eq!((address.as_str(), source.raw_os_error()), ("10.9.9.9:1", Some(libc::ECONNREFUSED)));
        }
        other => panic!("{other:?}"),
    }
    rig.finish();
}

fn two(rig: &Rig) -> Connect {
    through(ringwire::client::connect("ws://two.test:7/"), &rig.client.courier)
}

#[test]
fn the_next_address_is_tried_when_one_refuses_or_does_not_answer() {
    for (silent, late) in [(false, 0.0), (true, 0.0), (true, 1.0)] {
        let mut rig = Rig::new(Faults::none().with(Fault::LateAfterCancel, late), RingOptions::default());
        let answer = rig.start(two(&rig).into_future());
        let first = rig.dial();
        assert_eq!(first.address(), Some("10.0.0.1:7".parse().expect("an address")));
        if silent {
            rig.pass(Duration::from_secs(4));
            assert!(rig.world.next_dial().is_none(), "half of the time is the first one's");
            rig.pass(Duration::from_secs(2));
        } else {
            first.refuse(libc::EHOSTUNREACH);
        }
        let second = rig.dial();
        assert_eq!(second.address(), Some("10.0.0.2:7".parse().expect("an address")));
        let mut server = Server { socket: second.accept(), bytes: Vec::new() };
        rig.pass_ms(10);
        server.switch();
        rig.pass_ms(10);
        drop(take(&answer).expect("the second one answers"));
        rig.pass_ms(10);
        assert_eq!(server.frames(), [(CLOSE, 1001u16.to_be_bytes().to_vec())]);
        server.socket.close();
        rig.finish();
    }
}

#[test]
fn the_last_addresss_error_is_told_and_unknown_names_are() {
    let mut rig = Rig::calm();
    let answer = rig.start(two(&rig).into_future());
    rig.dial().refuse(libc::EHOSTUNREACH);
    rig.dial().refuse(libc::ECONNREFUSED);
    rig.pass_ms(1);
    let error = take(&answer).expect_err("both refuse");
    assert!(matches!(&error, ClientError::Connect { address, .. } if address == "10.0.0.2:7"), "{error}");
    let unknown = through(ringwire::client::connect("ws://nowhere.test/"), &rig.client.courier);
    let answer = rig.start(unknown.into_future());
    assert!(matches!(take(&answer), Err(ClientError::Resolve { host, .. }) if host == "nowhere.test"));
    rig.finish();
}

thread_local! {
    /// Whom [`resolve_later`] owes an answer.
    static OWED: RefCell<Vec<Found>> = const { RefCell::new(Vec::new()) };
}

fn resolve_later(_: String, _: u16, found: Found) {
    OWED.with_borrow_mut(|owed| owed.push(found));
}

/// Kills: a slot that is reused under the same generation.
#[test]
fn a_late_address_is_not_taken_for_the_next_connections() {
    let mut rig = Rig::calm();
    rig.client = ClientCore::new(&rig.world, 1, RingOptions::default(), resolve_later);
    let first = rig.start(two(&rig).handshake_timeout(Duration::from_secs(1)).into_future());
    rig.pass_ms(1_100);
    assert!(matches!(take(&first), Err(ClientError::Timeout(Waiting::Resolve))));
    let second = rig.start(two(&rig).into_future());
    let [late, own] = OWED.take().try_into().unwrap_or_else(|_| panic!("both have asked"));
    late(Ok(vec!["10.0.0.8:7".parse().expect("an address")]));
    rig.pass_ms(1);
    assert!(rig.world.next_dial().is_none());
    own(Ok(vec!["10.0.0.9:7".parse().expect("an address")]));
    let dial = rig.dial();
    assert_eq!(dial.address(), Some("10.0.0.9:7".parse().expect("an address")));
    dial.refuse(libc::ECONNREFUSED);
    rig.pass_ms(1);
    assert!(take(&second).is_err());
    rig.finish();
}

#[test]
fn who_does_not_answer_is_given_up_in_time() {
    let mut rig = Rig::calm();
    let connect = rig.connect().handshake_timeout(Duration::from_secs(3));
    let unanswered = rig.start(connect.clone().into_future());
    let _dial = rig.dial();
    let stalled = rig.start(connect.into_future());
    let socket = rig.dial().accept();
    rig.pass_ms(10);
    socket.send(b"HTTP/1.1 101 Switching Proto");
    rig.pass_ms(2_900);
    assert!(unanswered.borrow().is_none() && stalled.borrow().is_none());
    rig.pass_ms(200);
    assert!(matches!(take(&unanswered), Err(ClientError::Timeout(Waiting::Connect))));
    assert!(matches!(take(&stalled), Err(ClientError::Timeout(Waiting::Handshake))));
    rig.finish();
}

/// Kills: a connect that is not cancelled, and one whose late completion is taken for the next connection's.
#[test]
fn whoever_gives_up_while_connecting_leaves_nothing() {
    for stage in 0..4 {
        for late in [0.0, 1.0] {
            let mut rig = Rig::new(Faults::none().with(Fault::LateAfterCancel, late), RingOptions::default());
            let mut connecting = Some(rig.connect().into_future());
            if stage > 0 {
                rig.settle();
            }
            let mut server = None;
            if stage > 1 {
                server = Some(rig.dial().accept());
                rig.pass_ms(1);
            }
            if stage > 2 {
                let socket = server.as_ref().expect("it was accepted");
                socket.send(b"HTTP/1.1 101 Swi");
                rig.settle();
            }
            drop(connecting.take());
            if late == 0.0 {
                rig.settle();
            } else {
                // The next one has the slot as soon as it may.
                rig.pass_ms(5);
            }
            if let Some(dial) = rig.world.next_dial() {
                server = Some(dial.accept());
            }
            let (client, next) = rig.open();
            assert!(client.is_open());
            let sees_the_end = |server: sim::Client| {
                server.received();
                server.saw_fin() || server.saw_reset()
            };
            assert!(server.is_none_or(sees_the_end), "stage {stage}");
            next.socket.close();
            drop(client);
            rig.finish();
        }
    }
}

#[test]
fn more_connections_than_slots_are_an_error_until_one_ends() {
    let mut rig = Rig::new(Faults::none(), RingOptions { slots: 2, ..RingOptions::default() });
    let (first, server) = rig.open();
    let (second, other) = rig.open();
    let third = rig.start(rig.connect().into_future());
    let error = take(&third).expect_err("there is no slot");
    assert!(
        matches!(&error, ClientError::Connect { source, .. } if source.raw_os_error() == Some(libc::EMFILE)),
        "{error}"
    );
    drop(first);
    rig.settle();
    server.socket.close();
    rig.pass_ms(10);
    let (third, last) = rig.open();
    assert!(third.is_open() && second.is_open());
    other.socket.close();
    last.socket.close();
    rig.finish();
}

// ---- backpressure -------------------------------------------------------------------------------------------------

#[test]
fn what_nobody_receives_is_not_read_and_comes_whole_later() {
    let mut rig = Rig::calm();
    let (client, server) = rig.open_with(rig.connect().max_inbox(1_000));
    let texts: Vec<String> = (0..1_000).map(|n| format!("{n}:").repeat(70)).collect();
    texts.iter().for_each(|text| server.send(TEXT, text.as_bytes()));
    // The end is behind them, and waits as they do.
    server.close(4000);
    server.socket.shutdown_write();
    rig.pass_ms(100);
    let taken = texts.iter().map(String::len).sum::<usize>() - server.socket.unsent();
    assert!(taken < 250_000, "{taken} bytes were taken for somebody who receives nothing");
    assert_eq!(client.closed(), None);
    let answer = rig.start(all_texts(client));
    rig.pass_ms(100);
    let (got, client) = take(&answer);
    assert!(got == texts, "{} of {}", got.len(), texts.len());
    assert!(client.closed().is_some_and(|closed| closed.code == 4000 && closed.clean));
    rig.finish();
}

#[test]
fn an_error_behind_what_is_held_back_is_told_after_it() {
    let mut rig = Rig::calm();
    let (client, server) = rig.open_with(rig.connect().max_inbox(1));
    (0..50).for_each(|n| server.send(TEXT, format!("{n}").as_bytes()));
    rig.pass_ms(10);
    server.socket.shutdown_write();
    rig.pass_ms(10);
    assert_eq!(client.closed(), None);
    let answer = rig.start(async move {
        let mut client = client;
        let mut got = 0;
        loop {
            match client.recv().await {
                Some(Ok(_)) => got += 1,
                Some(Err(error)) => return (got, error, client.recv().await.is_none()),
                None => panic!("it did not end in order"),
            }
        }
    });
    rig.pass_ms(10);
    assert!(matches!(take(&answer), (50, ClientError::Broken(_), true)));
    rig.finish();
}

#[test]
fn a_send_waits_for_room_and_one_that_is_dropped_has_queued_nothing() {
    let mut rig = Rig::calm();
    let (client, mut server) = rig.open_with(rig.connect().max_outbox(1_000));
    server.socket.set_window(0);
    client.try_send("a".repeat(900)).expect("there is room");
    assert!(matches!(client.try_send("b".repeat(900)), Err(ClientError::Full)));
    rig.pass_ms(10);
    {
        let mut dropped = Box::pin(client.send("c".repeat(900)));
        let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
        assert!(dropped.as_mut().poll(&mut cx).is_pending());
    }
    let sender = client.sender();
    let answer = rig.start(async move { sender.send("d".repeat(900)).await });
    rig.pass_ms(10);
    assert!(answer.borrow().is_none());
    server.socket.set_window(64 << 10);
    rig.pass_ms(10);
    take(&answer).expect("there is room");
    let sent: Vec<u8> = server.frames().iter().map(|(_, payload)| payload[0]).collect();
    assert_eq!(sent, *b"ad");
    server.close(1000);
    rig.pass_ms(10);
    server.socket.close();
    drop(client);
    rig.finish();
}

/// Kills: what was queued while a send waited for room, forgotten when that is done.
#[test]
fn what_is_queued_behind_a_send_that_waits_follows_it() {
    let mut rig = Rig::calm();
    let (client, mut server) = rig.open();
    server.socket.set_window(10);
    client.try_send("a".repeat(900)).expect("there is room");
    rig.pass_ms(10);
    client.try_send("b").expect("there is room");
    rig.pass_ms(10);
    let mut frames = server.frames();
    server.socket.set_window(64 << 10);
    rig.pass_ms(10);
    frames.extend(server.frames());
    let sent: Vec<u8> = frames.iter().map(|(_, payload)| payload[0]).collect();
    assert_eq!(sent, *b"ab");
    drop(client);
    rig.settle();
    server.socket.close();
    rig.finish();
}

// ---- silence ------------------------------------------------------------------------------------------------------

#[test]
fn a_server_that_answers_no_ping_is_given_up() {
    let mut rig = Rig::calm();
    let limits = rig.connect().ping_interval(Duration::from_secs(5)).pong_timeout(Duration::from_secs(2));
    let (mut client, mut server) = rig.open_with(limits);
    rig.pass_ms(4_900);
    assert_eq!(server.frames(), []);
    rig.pass_ms(200);
    let (opcode, payload) = server.frames().remove(0);
    assert_eq!(opcode, PING);
    server.send(PONG, &payload);
    rig.pass_ms(6_500);
    assert_eq!(server.frames().len(), 1, "the silence began anew");
    assert_eq!(client.closed(), None);
    let answer = rig.start(async move { client.recv().await });
    rig.pass_ms(1_000);
    assert!(matches!(take(&answer), Some(Err(ClientError::Timeout(Waiting::Pong)))));
    assert!(server.socket.saw_fin() || server.socket.saw_reset());
    rig.finish();
}

// ---- closing ------------------------------------------------------------------------------------------------------

/// Kills: a connection that lingers although the server has closed it.
/// Kills: pongs that are missing, doubled, or say something else (RFC 6455 5.5.3).
#[test]
fn each_ping_is_answered_with_what_it_said() {
    let mut rig = Rig::calm();
    let (client, mut server) = rig.open();
    let payloads = [vec![], vec![0], b"are you there?".to_vec(), vec![0xFF; 125]];
    for payload in &payloads {
        server.send(PING, payload);
        // Nobody receives, and there are messages before each further ping.
        server.send(TEXT, b"between");
        rig.pass_ms(1);
        assert_eq!(server.frames(), [(PONG, payload.clone())]);
    }
    payloads.iter().for_each(|payload| server.send(PING, payload));
    rig.pass_ms(1);
    assert_eq!(server.frames(), payloads.map(|payload| (PONG, payload)));
    let texts = rig.start(all_texts(client));
    server.close(1000);
    rig.pass_ms(10);
    server.socket.close();
    rig.pass_ms(10);
    assert_eq!(take(&texts).0, ["between"; 4]);
    rig.finish();
}

/// Kills: a pong that is taken for the answer to a ping although it says something else, and one that is not although it
/// does.
#[test]
fn a_ping_is_answered_by_its_own_pong_or_a_later_one() {
    let mut rig = Rig::calm();
    let (client, mut server) = rig.open();
    let client = Rc::new(client);
    let mut ping = |rig: &mut Rig| {
        let client = Rc::clone(&client);
        let answer = rig.start(async move { client.ping().await });
        rig.pass_ms(1);
        let frames = server.frames();
        let [(PING, payload)] = &frames[..] else { panic!("one ping") };
        (answer, payload.clone())
    };
    let pings = [(); 4].map(|()| ping(&mut rig));
    let is_done = |nth: usize| pings[nth].0.borrow().is_some();
    let payload = |nth: usize| &pings[nth].1[..];
    // Unasked, of pings that were never sent, cut, and changed.
    for wrong in [&b""[..], b"unasked", &[0; 8], &[0xFF; 8], &payload(0)[..7], &[payload(0), b"more"].concat()] {
        server.send(PONG, wrong);
        rig.pass_ms(1);
        assert!((0..4).all(|nth| !is_done(nth)), "{wrong:?} is no answer");
    }
    server.send(PONG, payload(0));
    rig.pass_ms(1);
    assert_eq!([0, 1, 2, 3].map(is_done), [true, false, false, false]);
    // RFC 6455 5.5.3: of several pings the last one alone may be answered.
    server.send(PONG, payload(2));
    rig.pass_ms(1);
    assert_eq!([0, 1, 2, 3].map(is_done), [true, true, true, false]);
    server.send(PONG, payload(1));
    server.close(1000);
    rig.pass_ms(10);
    server.socket.close();
    rig.pass_ms(10);
    assert!((0..3).all(|nth| take(&pings[nth].0).is_ok()));
    assert!(take(&pings[3].0).is_err(), "its pong never came");
    drop(client);
    rig.finish();
}

#[test]
fn closes_that_cross_are_in_order_on_both_sides() {
    let mut rig = Rig::calm();
    let (mut client, mut server) = rig.open();
    server.close(4000);
    let answer = rig.start(async move { client.close(4001, "mine").await });
    rig.pass_ms(10);
    assert_eq!(server.frames().iter().filter(|(opcode, _)| *opcode == CLOSE).count(), 1);
    server.socket.close();
    rig.pass_ms(10);
    assert!(take(&answer).is_ok_and(|closed| closed.clean));
    assert_eq!(rig.client.driver.slots_in_use(), 0, "nothing more is waited for");
    rig.finish();
}

/// RFC 6455 7.1.1: the server closes the connection first; one that does not is not waited for.
#[test]
fn a_server_that_does_not_close_its_socket_keeps_nobody_waiting() {
    let mut rig = Rig::calm();
    let (mut client, mut server) = rig.open();
    let answer = rig.start(async move { client.close(1000, "").await });
    rig.pass_ms(10);
    assert_eq!(server.frames(), [(CLOSE, 1000u16.to_be_bytes().to_vec())]);
    server.close(1000);
    rig.pass_ms(10);
    assert!(take(&answer).is_ok_and(|closed| closed.clean && closed.code == 1000));
    assert!(!server.socket.saw_fin());
    rig.pass_ms(1_000);
    assert!(server.socket.saw_fin());
    rig.finish();
}

#[test]
fn a_close_that_is_not_answered_ends_in_time() {
    let mut rig = Rig::calm();
    let (mut client, server) = rig.open_with(rig.connect().close_timeout(Duration::from_secs(2)));
    let answer = rig.start(async move { client.close(1000, "").await });
    rig.pass_ms(1_900);
    assert!(answer.borrow().is_none());
    rig.pass_ms(200);
    assert!(take(&answer).is_ok_and(|closed| !closed.clean && closed.code == 1006));
    server.socket.close();
    rig.finish();
}

#[test]
fn a_core_that_ends_answers_everybody() {
    let mut rig = Rig::calm();
    let (mut receiver, _server) = rig.open();
    let (mut closer, _other) = rig.open();
    let (pinger, _third) = rig.open();
    let connecting = rig.start(rig.connect().into_future());
    let received = rig.start(async move { receiver.recv().await });
    let closed = rig.start(async move { closer.close(1000, "").await });
    let ponged = rig.start(async move { pinger.ping().await });
    let connect = rig.connect();
    let Rig { client, mut tasks, mut rng, .. } = rig;
    drop(client);
    while tasks.poll(1.0, &mut rng) {}
    assert!(matches!(take(&connecting), Err(ClientError::Unavailable(_))));
    assert!(matches!(take(&received), Some(Err(ClientError::Unavailable(_)))));
    assert!(matches!(take(&closed), Err(ClientError::Unavailable(_))));
    assert!(take(&ponged).is_err());
    let late = Answer::default();
    let to = Rc::clone(&late);
    tasks.spawn(async move { *to.borrow_mut() = Some(connect.await) });
    while tasks.poll(1.0, &mut rng) {}
    assert!(matches!(take(&late), Err(ClientError::Unavailable(_))));
}

// ---- coming back --------------------------------------------------------------------------------------------------

/// Kills: a client that comes back and does not know that its server has gone without a word.
#[test]
fn a_client_that_comes_back_pings_unless_told_not_to() {
    let seconds = Duration::from_secs;
    for (set, expected) in [(None, Some(30)), (Some(seconds(5)), Some(5)), (Some(Duration::ZERO), None)] {
        let mut rig = Rig::calm();
        let connect = set.into_iter().fold(rig.connect(), Connect::ping_interval);
        let mut client = Reconnecting::new(connect);
        let stop = client.sender();
        rig.tasks.spawn(async move { while client.next().await.is_some() {} });
        let mut server = Server { socket: rig.dial().accept(), bytes: Vec::new() };
        rig.pass_ms(1);
        server.switch();
        rig.settle();
        if let Some(expected) = expected {
            rig.pass(seconds(expected) - Duration::from_millis(50));
            assert_eq!(server.frames(), [], "{set:?}");
            rig.pass_ms(100);
            assert!(matches!(server.frames().as_slice(), [(PING, _)]), "{set:?}");
            // Nobody answers: the connection is given up, and another one made.
            rig.pass(seconds(12));
            drop(rig.dial());
        } else {
            rig.pass(seconds(300));
            assert_eq!(server.frames(), []);
            server.socket.close();
        }
        stop.stop();
        rig.finish();
    }
}

#[test]
fn a_client_that_comes_back_waits_longer_each_time_until_it_was_open() {
    let mut rig = Rig::calm();
    let mut client = Reconnecting::new(rig.connect());
    let stop = client.sender();
    let events = Rc::new(RefCell::new(Vec::new()));
    let to = Rc::clone(&events);
    rig.tasks.spawn(async move {
        while let Some(event) = client.next().await {
            to.borrow_mut().push(event);
        }
    });
    let mut expected = [1, 2, 4, 8, 16, 30, 30].into_iter();
    for attempt in 0..9 {
        let dial = rig.dial();
        if attempt == 7 {
            let mut server = Server { socket: dial.accept(), bytes: Vec::new() };
            rig.pass_ms(1);
            server.switch();
            rig.settle();
            assert!(matches!(events.borrow_mut().remove(0), Event::Opened { .. }));
            server.socket.close();
            expected = [1, 2, 4, 8, 16, 30, 30].into_iter();
        } else {
            dial.refuse(libc::ECONNREFUSED);
        }
        rig.settle();
        let event = events.borrow_mut().remove(0);
        let Event::Closed { retry_in: Some(retry_in), .. } = event else { panic!("{event:?}") };
        let delay = Duration::from_secs(expected.next().expect("enough of them"));
        assert!((delay / 2..delay * 3 / 2).contains(&retry_in), "attempt {attempt}: {retry_in:?}, not about {delay:?}");
        rig.pass(retry_in - Duration::from_millis(1));
        assert!(rig.world.next_dial().is_none(), "attempt {attempt}: it waits");
        rig.pass_ms(2);
    }
    drop(rig.dial());
    stop.stop();
    rig.settle();
    assert!(matches!(events.borrow().as_slice(), [Event::Closed { why: ClientError::NotConnected, retry_in: None }]));
    rig.finish();
}
