//! Every limit of time and number on real sockets, with short settings.

#![forbid(unsafe_code)]

mod common;

use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use common::raw::{self, End, FIN, Frame, PING, PONG, Raw};
use common::{TestServer, config, eventually};
use ringwire::config::{CoreSet, ListenAddress, SlowConsumer};
use ringwire::metrics::{DropReason, RefusalReason, TimeoutKind};
use ringwire::outbox::Queued;
use ringwire::proto::frame::Opcode;
use ringwire::remote::AskAll as _;
use ringwire::{App, Message, OwnedMessage, Server, Socket, ws};

const SHORT: Duration = Duration::from_millis(400);
/// Timers are up to 16 ms late, and tests run beside each other, on a machine that may be busy.
const LATE: Duration = Duration::from_millis(4000);

/// Runs it, and checks that it ends this long after `start`, or a little later. The server's clock must not have begun
/// before `start`: whoever tests is sometimes not let run for longer than a timer may be early.
fn takes<T>(start: Instant, time: Duration, run: impl FnOnce() -> T) -> T {
    let result = run();
    let took = start.elapsed();
    assert!(took + Duration::from_millis(5) >= time && took < time + LATE, "{took:?} instead of {time:?}");
    result
}

fn counters(server: &TestServer, of: fn(&ringwire::metrics::Counters) -> u64) -> u64 {
    server.handle().hub().ask_all(move |hub| of(&hub.counters)).expect("the cores answer").iter().sum()
}

// ---- time -------------------------------------------------------------------------------------------------------------

#[test]
fn idle_connections_are_dropped() {
    let config = config().idle_timeout(SHORT).ping_interval(Duration::ZERO);
    let server = TestServer::with(config);
    let mut busy = server.open("/echo");
    let start = Instant::now();
    let mut idle = server.open("/echo");
    let talking = thread::spawn(move || {
        for _ in 0..20 {
            thread::sleep(SHORT / 8);
            // Bytes count, not messages.
            busy.send(&raw::text("x")[..3]);
            busy.send(&raw::text("x")[3..]);
            assert_eq!(busy.frame().payload, b"x");
        }
        busy
    });
    let (frames, end) = takes(start, SHORT, || idle.frames());
    assert_eq!((frames, end), (Vec::new(), End::Finished), "there is nobody to say Close to");
    let mut busy = talking.join().expect("it was served all the time");
    assert_eq!(counters(&server, |counters| counters.timeouts.total()), 1);
    assert_eq!(busy.rest().1, End::Finished);
    server.await_connections(0);
}

#[test]
fn silent_connections_are_pinged_and_stay_when_they_answer() {
    let config = config().idle_timeout(SHORT * 3).ping_interval(SHORT);
    let server = TestServer::with(config);
    let start = Instant::now();
    let mut answering = server.open("/echo");
    let mut deaf = server.open("/echo");
    let waiting = thread::spawn(move || {
        let (frames, end) = deaf.frames();
        (frames, end, start.elapsed())
    });
    takes(start, 5 * SHORT, || {
        for _ in 0..5 {
            assert_eq!(answering.frame(), Frame::new(FIN | PING, b""));
            answering.send(&raw::frame(FIN | PONG, b""));
        }
    });
    let (frames, end, took) = waiting.join().expect("no panic");
    assert!(!frames.is_empty() && frames.iter().all(|frame| frame.first == FIN | PING), "{frames:?}");
    assert_eq!(end, End::Finished);
    assert!(took >= SHORT * 3 && took < SHORT * 3 + LATE, "{took:?}");
    server.await_connections(1);
}

/// Kills: an idle timeout that comes before the first ping, and drops whoever is only quiet.
#[test]
fn a_short_idle_timeout_alone_drops_nobody_unasked() {
    let idle_timeout = SHORT * 10;
    let server = TestServer::with(config().idle_timeout(idle_timeout));
    let app = move || {
        let echo = |socket: &mut Socket<'_>, message: Message<'_>| socket.send(message);
        App::new().ws("/echo", ws().idle_timeout(idle_timeout).on_message(echo))
    };
    let of_route = Server::new(config()).start(app).expect("it starts");
    let mut clients = [server.raw(), Raw::connect(of_route.addresses()[0].inet().expect("TCP"))];
    clients.iter_mut().for_each(|client| client.upgrade("/echo"));
    for client in &mut clients {
        assert_eq!(client.frame(), Frame::new(FIN | PING, b""));
    }
    drop(clients);
    of_route.shutdown();
    of_route.join().expect("it ends");
}

#[test]
fn no_limit_is_no_limit() {
    let config = config().idle_timeout(Duration::ZERO).ping_interval(Duration::ZERO);
    let server = TestServer::with(config);
    assert!(server.open("/echo").is_silent(SHORT * 2));
}

#[test]
fn an_unanswered_close_ends_at_the_close_timeout() {
    let server = TestServer::with(config().close_timeout(SHORT));
    let mut client = server.open("/broadcast");
    let start = Instant::now();
    let closed = server.handle().hub().ask_all(|hub| {
        for slot in hub.local_members("broadcast").to_vec() {
            hub.close(slot, Some(1000), "enough");
        }
    });
    closed.expect("the cores answer");
    let (frames, end) = takes(start, SHORT, || client.frames());
    assert_eq!((frames.len(), frames[0].code(), end), (1, Some(1000), End::Finished));
    // One that talks all the time but never of closing is no exception.
    let mut client = server.open("/echo");
    client.send(&raw::frame(FIN | raw::TEXT, b"\xFF"));
    let start = Instant::now();
    client.stream.set_write_timeout(Some(SHORT)).expect("a timeout");
    while std::io::Write::write_all(&mut client.stream, &raw::text("and another thing")).is_ok() {
        assert!(start.elapsed() < SHORT + LATE);
        thread::sleep(Duration::from_millis(5));
    }
    server.await_connections(0);
}

#[test]
fn a_request_head_has_its_time() {
    let server = TestServer::with(config().handshake_timeout(SHORT));
    // Nothing, a part, and a byte now and then: all the same.
    let mut silent = server.raw();
    // Who says nothing is accepted after a second.
    let start = Instant::now();
    assert_eq!(silent.rest(), (Vec::new(), End::Finished), "it has not asked for anything");
    assert!((SHORT..SHORT + 10 * LATE).contains(&start.elapsed()), "{:?}", start.elapsed());

    let start = Instant::now();
    let mut partial = server.raw();
    partial.send(b"GET /echo HTTP/1.1\r\n");
    takes(start, SHORT, || assert_eq!(partial.response(false).status, 408));

    let start = Instant::now();
    let mut slow = server.raw();
    let mut writer = slow.stream.try_clone().expect("a second handle");
    let sending = thread::spawn(move || {
        for byte in raw::upgrade_request("/echo") {
            if std::io::Write::write_all(&mut writer, &[byte]).is_err() {
                return;
            }
            thread::sleep(SHORT / 20);
        }
    });
    takes(start, SHORT, || assert_eq!(slow.response(false).status, 408));
    drop(slow);
    sending.join().expect("no panic");
    assert_eq!(counters(&server, |counters| counters.timeouts.total()), 3);
}

// RFC 9112 9.3: a kept-alive connection may be closed whenever it is idle, and 408 would answer no request.
#[test]
fn a_kept_alive_connection_ends_without_an_answer() {
    let server = TestServer::with(config().keep_alive(SHORT));
    let mut client = server.raw();
    let mut start = Instant::now();
    for _ in 0..3 {
        thread::sleep(SHORT / 2);
        start = Instant::now();
        client.send(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n");
        assert_eq!(client.response(false).status, 200);
    }
    takes(start, SHORT, || assert_eq!(client.rest(), (Vec::new(), End::Finished)));
}

/// A proxy keeps its connections for longer than a head may take. Kills: one limit for a head and for the silence before it.
#[test]
fn a_kept_alive_connection_outlives_the_time_of_a_head() {
    let server = TestServer::with(config().handshake_timeout(SHORT));
    let mut client = server.raw();
    for _ in 0..3 {
        client.send(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n");
        assert_eq!(client.response(false).status, 200);
        thread::sleep(3 * SHORT);
    }
    client.send(b"GET /healthz HTTP");
    assert_eq!(client.response(false).status, 408, "and then a head has its time");
}

/// Kills: requests that are handled whatever is queued to their connection, one after the other as each is answered.
#[test]
fn requests_whose_answers_nobody_reads_wait() {
    const COUNT: usize = 3000;
    let server = TestServer::with(config().max_outbox(128 << 10));
    let one = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").into_bytes();
    let mut probe = server.raw();
    probe.send(&one("/"));
    let page_bytes = probe.response(false).body.len() as u64;
    for request in [one("/"), one("/nowhere").repeat(50)] {
        let client = narrow(&server, 4096);
        let mut writer = client.stream.try_clone().expect("a second handle");
        writer.set_write_timeout(Some(Duration::from_millis(500))).expect("a timeout");
        // One by one, each in a packet of its own, as long as they are taken.
        writer.set_nodelay(true).expect("an option");
        let mut sent = 0;
        while sent < COUNT && std::io::Write::write_all(&mut writer, &request).is_ok() {
            sent += 1;
        }
        let hub = server.handle().hub();
        let queued = || hub.ask_all(|hub| hub.outbox.held_bytes().1).expect("the cores answer");
        let most = (0..20).flat_map(|_| {
            thread::sleep(Duration::from_millis(20));
            queued()
        });
        let most = most.max().expect("there are cores") as u64;
        assert!(most > 0 && most < (64 << 10) + 2 * page_bytes, "{most} bytes for {sent} requests");
    }
}

// A handshake done in time has no more to do with the limit of it.
#[test]
fn the_time_for_the_handshake_ends_with_it() {
    let server = TestServer::with(config().handshake_timeout(SHORT));
    let mut client = server.open("/echo");
    assert!(client.is_silent(SHORT * 2));
    client.send(&raw::text("x"));
    assert_eq!(client.frame().payload, b"x");
}

// ---- numbers ----------------------------------------------------------------------------------------------------------

/// Asks for a WebSocket; the status.
fn ask(client: &mut Raw) -> raw::Response {
    client.send(&raw::upgrade_request("/echo"));
    client.response(false)
}

#[test]
fn past_the_most_connections_it_is_503_until_one_goes() {
    let server = TestServer::with(config().max_connections(5));
    let mut inside: Vec<Raw> = (0..5).map(|_| server.open("/echo")).collect();
    for _ in 0..20 {
        let mut outside = server.raw();
        let response = ask(&mut outside);
        assert_eq!(response.status, 503);
        assert!(response.header("retry-after").is_some_and(|seconds| seconds.parse::<u32>().is_ok()), "{response:?}");
        assert_eq!(outside.rest(), (Vec::new(), End::Finished), "it takes up no place");
        // HTTP is served all the same: probes must not fail because the server is full.
        let mut probe = server.raw();
        probe.send(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n");
        assert_eq!(probe.response(false).status, 200);
    }
    inside.remove(0).reset();
    server.await_connections(4);
    assert_eq!(ask(&mut server.raw()).status, 101);
    server.await_connections(4);
    for mut client in inside {
        client.send(&raw::text("x"));
        assert_eq!(client.frame().payload, b"x");
    }
}

/// A client with the address 127.0.0.`last`.
fn from(server: &TestServer, last: u8) -> Raw {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
    socket.bind(&SocketAddr::from((Ipv4Addr::new(127, 0, 0, last), 0)).into()).expect("an address");
    socket.connect(&server.address.into()).expect("a connection");
    Raw::over(TcpStream::from(socket))
}

#[test]
fn an_address_has_its_own_limit() {
    let server = TestServer::with(config().max_connections_per_ip(3));
    let from = |last: u8| from(&server, last);
    let mut inside: Vec<Raw> = (0..3).map(|_| from(1)).collect();
    assert!(inside.iter_mut().all(|client| ask(client).status == 101));
    let mut refused = from(1);
    assert_eq!(ask(&mut refused).status, 429);
    assert_eq!(refused.rest(), (Vec::new(), End::Finished), "it takes up no place");
    let mut other = from(2);
    assert_eq!(ask(&mut other).status, 101);
    drop(inside.pop());
    server.await_connections(3);
    assert_eq!(ask(&mut from(1)).status, 101);
}

/// Whoever has more connections than for a few pages, and says nothing of WebSockets on them, is refused at once, and
/// keeps nobody else out.
#[test]
fn an_address_has_a_limit_of_connections_that_are_no_websockets() {
    let server = TestServer::with(config().max_connections_per_ip(2).max_connections(10));
    let from = |last: u8| from(&server, last);
    let begin = |_| {
        let mut client = from(1);
        client.send(b"GET /");
        client
    };
    let mut begun: Vec<Raw> = (0..18).map(begin).collect();
    let accepted = || counters(&server, |counters| counters.accepted);
    eventually(|| accepted() == 18, || format!("18 connections, there are {}", accepted()));
    for client in (0..300).map(begin).collect::<Vec<Raw>>() {
        let mut client = client;
        assert_eq!(client.response(false).status, 429);
    }
    assert_eq!(ask(&mut from(2)).status, 101);
    // Those that were let in may go on, and who leaves makes room.
    begun[0].send(b"healthz HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(begun[0].response(false).status, 200);
    let refused_of = |server: &TestServer| counters(server, |counters| counters.refused.of(RefusalReason::Address));
    assert_eq!(refused_of(&server), 300);
    drop(begun);
    eventually(|| ask(&mut from(1)).status == 101, || "room for the address".into());
}

/// Half a head on every connection there can be: the rest of the world waits for a second, not for the whole time that a
/// head has.
#[test]
fn heads_that_do_not_come_block_nobody_for_long() {
    let server = TestServer::with(config().max_connections(10).cores(CoreSet::Count(1)));
    let begun: Vec<Raw> = (0..400)
        .map(|_| {
            let mut client = server.raw();
            client.send(b"GET /");
            client
        })
        .collect();
    let start = Instant::now();
    assert_eq!(ask(&mut server.raw()).status, 101);
    assert!(start.elapsed() < Duration::from_secs(8), "{:?}", start.elapsed());
    drop(begun);
}

/// Ten listeners and hardly a place: each has its turn.
#[test]
fn no_listener_goes_without() {
    let address = ListenAddress::Inet { host: "127.0.0.1".into(), port: 0 };
    let addresses = vec![address; 10];
    let server = TestServer::with(config().addresses(addresses).max_connections(10).cores(CoreSet::Count(1)));
    let bound: Vec<_> = server.handle().addresses().iter().filter_map(|bound| bound.inet()).collect();
    assert_eq!(bound.len(), 10);
    for address in bound {
        assert_eq!(ask(&mut Raw::connect(address)).status, 101);
    }
}

/// A flood past the accept rate is answered 503, and is no burden to who comes after it.
#[test]
fn past_the_accept_rate_nobody_waits_for_long() {
    let server = TestServer::with(config().accept_rate(50));
    let mut statuses = Vec::new();
    let mut flood: Vec<Raw> = (0..500)
        .map(|_| {
            let mut client = server.raw();
            client.send(&raw::upgrade_request("/echo"));
            client
        })
        .collect();
    flood.iter_mut().for_each(|client| statuses.push(client.response(false).status));
    let refused = statuses.iter().filter(|status| **status == 503).count();
    assert!(statuses.iter().all(|status| [101, 503].contains(status)) && refused > 100, "{refused}");
    let counted = counters(&server, |counters| counters.refused.of(RefusalReason::Rate));
    assert_eq!(counted, refused as u64);
    drop(flood);
    let start = Instant::now();
    eventually(|| ask(&mut server.raw()).status == 101, || "to be let in".into());
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
}

#[test]
fn connections_are_accepted_at_their_rate() {
    let server = TestServer::with(config().accept_rate(20));
    let start = Instant::now();
    let waiting: Vec<_> = (0..11)
        .map(|_| {
            let mut client = server.raw();
            thread::spawn(move || ask(&mut client).status)
        })
        .collect();
    assert!(waiting.into_iter().all(|thread| thread.join().expect("no panic") == 101), "late, and served");
    let took = start.elapsed();
    // The first is served at once, ten more at 20 a second.
    assert!(took >= Duration::from_millis(480) && took < Duration::from_millis(500) + LATE, "{took:?}");
}

#[test]
fn messages_have_their_rate() {
    let server = TestServer::with(config().message_rate(20));
    let mut steady = server.open("/echo");
    let mut bursting = server.open("/echo");
    // A burst of one second's worth is allowed, one more is not.
    bursting.send(&raw::text("x").repeat(21));
    let (frames, end) = {
        bursting.finish_sending();
        bursting.frames()
    };
    assert_eq!(end, End::Finished);
    let codes: Vec<_> = frames.iter().map(Frame::code).collect();
    assert_eq!((frames.len(), codes[20]), (21, Some(1008)), "20 replies, then Close");
    for _ in 0..20 {
        steady.send(&raw::text("y"));
        assert_eq!(steady.frame().payload, b"y");
        thread::sleep(Duration::from_millis(45));
    }
}

// ---- slow consumers -----------------------------------------------------------------------------------------------------

/// A client whose socket takes little at a time.
fn narrow(server: &TestServer, bytes: usize) -> Raw {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
    // Before it connects, so that the window is as small.
    socket.set_recv_buffer_size(bytes).expect("an option");
    socket.connect(&server.address.into()).expect("a connection");
    Raw::over(TcpStream::from(socket))
}

/// Two members of a room, of whom one does not read. Publishes numbered messages until the server has dropped some or
/// closed it, and a last one; returns the one that did not read, and how many were published.
fn overwhelm(server: &TestServer, room: &'static str) -> (Raw, u32) {
    const MESSAGE_BYTES: usize = 32 << 10;
    let path = format!("/{room}");
    let mut good = server.open(&path);
    let mut stalled = narrow(server, 16 << 10);
    stalled.upgrade(&path);
    let reading = thread::spawn(move || {
        let mut next = 0;
        loop {
            let frame = good.frame();
            if frame.payload.is_empty() {
                return next;
            }
            assert_eq!(number(&frame), next, "a good reader gets everything");
            next += 1;
        }
    });
    let mut count = 0;
    let mut publish = || {
        let mut message = vec![0; MESSAGE_BYTES];
        message[..4].copy_from_slice(&u32::to_be_bytes(count));
        let answer = server.handle().hub().send_to_room(room, OwnedMessage::binary(message)).expect("a message");
        count += 1;
        // At a pace that the good one can keep.
        thread::sleep(Duration::from_millis(2));
        answer.wait();
    };
    while counters(server, |counters| counters.drops.total()) == 0 {
        publish();
    }
    for _ in 0..50 {
        publish();
    }
    server.handle().hub().send_to_room(room, []).expect("a message").wait();
    assert_eq!(reading.join().expect("it kept up"), count);
    (stalled, count)
}

fn number(frame: &Frame) -> u32 {
    u32::from_be_bytes(frame.payload[..4].try_into().expect("four bytes"))
}

fn slow(policy: SlowConsumer) -> TestServer {
    TestServer::with(config().slow_consumer(policy).max_outbox(256 << 10))
}

/// Messages up to the first that lacks its predecessor; then the others.
fn split(frames: &[Frame]) -> (Vec<u32>, Vec<u32>) {
    let numbers: Vec<u32> = frames.iter().filter(|frame| !frame.payload.is_empty()).map(number).collect();
    assert!(numbers.is_sorted_by(|a, b| a < b), "in order, none twice: {numbers:?}");
    let gap = numbers.iter().enumerate().position(|(place, number)| place as u32 != *number).unwrap_or(numbers.len());
    (numbers[..gap].to_vec(), numbers[gap..].to_vec())
}

#[test]
fn a_slow_consumer_is_closed() {
    let server = slow(SlowConsumer::Close);
    let (mut stalled, _) = overwhelm(&server, "rooms/close");
    assert_eq!(counters(&server, |counters| counters.shed.total()), 1);
    // It wakes up in time: all that was queued before it was too slow, then the reason.
    let mut frames = Vec::new();
    while !frames.last().is_some_and(Frame::is_close) {
        frames.push(stalled.frame());
    }
    assert_eq!(frames.pop().and_then(|frame| frame.code()), Some(1013));
    let (before, behind) = split(&frames);
    assert!(!before.is_empty() && behind.is_empty(), "no gap: {behind:?}");
    stalled.send(&raw::close(1013, b""));
    assert_eq!(stalled.rest().1, End::Finished);
    server.await_connections(0);
}

#[test]
fn a_slow_consumer_that_never_reads_again_is_dropped() {
    let server = TestServer::with(config().close_timeout(SHORT).max_outbox(64 << 10));
    let (stalled, _) = overwhelm(&server, "rooms/never");
    server.await_connections(0);
    let held = || server.handle().hub().ask_all(|hub| hub.outbox.backlog_bytes()).expect("the cores answer");
    eventually(|| held().iter().sum::<usize>() == 0, || format!("an empty backlog: {:?}", held()));
    drop(stalled);
}

#[test]
fn a_slow_consumer_loses_the_newest() {
    let server = slow(SlowConsumer::DropNew);
    let (mut stalled, count) = overwhelm(&server, "rooms/new");
    stalled.send(&raw::close(1000, b""));
    let (frames, end) = stalled.frames();
    assert_eq!((frames.last().and_then(Frame::code), end), (Some(1000), End::Finished));
    let (before, behind) = split(&frames[..frames.len() - 1]);
    assert!(!before.is_empty() && behind.is_empty(), "{before:?} {behind:?}");
    assert!((before.len() as u32) < count - 40);
    assert!(counters(&server, |counters| counters.drops.total()) >= 50);
}

#[test]
fn a_slow_consumer_loses_the_oldest() {
    let server = slow(SlowConsumer::DropOld);
    let (mut stalled, count) = overwhelm(&server, "rooms/old");
    stalled.send(&raw::close(1000, b""));
    let (frames, end) = stalled.frames();
    assert_eq!((frames.last().and_then(Frame::code), end), (Some(1000), End::Finished));
    let (before, behind) = split(&frames[..frames.len() - 1]);
    assert!(!before.is_empty(), "what had left for the kernel");
    assert_eq!(behind.last(), Some(&(count - 1)), "the newest is never lost");
    let first = behind.first().copied().unwrap_or_default();
    assert_eq!(behind, (first..count).collect::<Vec<_>>(), "one gap");
}

// ---- half-open and stalled peers ------------------------------------------------------------------------------------

/// Its kernel acknowledges every ping and takes every message; nobody is there to answer. Kills: silence that is measured
/// by what goes out.
#[test]
fn a_peer_of_which_only_the_kernel_answers_is_found() {
    let timeouts = config().idle_timeout(5 * SHORT).ping_interval(SHORT);
    let server = TestServer::with(timeouts);
    let mut talker = server.open("/broadcast");
    let start = Instant::now();
    let mute = server.open("/broadcast");
    while server.handle().connections() == 2 {
        assert!(start.elapsed() < common::PATIENCE, "it is still there");
        talker.send(&raw::text("to everybody"));
        while talker.frame().payload != b"to everybody" {}
        thread::sleep(SHORT / 8);
    }
    assert!(start.elapsed() >= 5 * SHORT, "{:?}", start.elapsed());
    assert_eq!(counters(&server, |counters| counters.timeouts.of(TimeoutKind::Idle)), 1);
    assert_eq!(counters(&server, |counters| counters.timeouts.total()), 1);
    drop(mute);
}

/// It pings and pongs, and never reads: it is no idle connection.
#[test]
fn a_socket_that_takes_nothing_is_dropped() {
    let config = config().write_timeout(3 * SHORT).max_outbox(256 << 10);
    let server = TestServer::with(config.slow_consumer(SlowConsumer::DropOld));
    let (mut stalled, _) = overwhelm(&server, "rooms/stalled");
    let start = Instant::now();
    while server.handle().connections() > 0 {
        assert!(start.elapsed() < common::PATIENCE, "it is still there");
        // It may be gone by now.
        stalled.send_if_open(&raw::frame(FIN | PONG, b""));
        thread::sleep(SHORT / 4);
    }
    assert_eq!(counters(&server, |counters| counters.timeouts.of(TimeoutKind::Write)), 1);
    let held = || server.handle().hub().ask_all(|hub| hub.outbox.backlog_bytes()).expect("the cores answer");
    eventually(|| held().iter().sum::<usize>() == 0, || format!("an empty backlog: {:?}", held()));
}

// ---- slow and steady ------------------------------------------------------------------------------------------------

/// Reads all there is at a pace that leaves the server waiting.
fn read_slowly(client: &mut Raw) -> Vec<u8> {
    let mut all = Vec::new();
    let mut piece = vec![0; 64 << 10];
    loop {
        thread::sleep(Duration::from_millis(10));
        match std::io::Read::read(&mut client.stream, &mut piece) {
            Ok(0) => return all,
            Ok(len) => all.extend_from_slice(&piece[..len]),
            Err(error) => panic!("{error} after {} bytes", all.len()),
        }
    }
}

/// Responses take as long as their reader needs, whether the connection is to go on or not. Kills: the limits of a head
/// and of closing that end while a response is being read.
#[test]
fn a_response_is_read_at_leisure() {
    let limits = config().handshake_timeout(SHORT).keep_alive(SHORT).close_timeout(SHORT);
    let server = TestServer::with(limits);
    for last in ["close", "keep-alive"] {
        let mut client = narrow(&server, 64 << 10);
        let mut requests = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".repeat(400);
        requests.extend(format!("GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: {last}\r\n\r\n").into_bytes());
        let mut writer = client.stream.try_clone().expect("a second handle");
        let sending = thread::spawn(move || std::io::Write::write_all(&mut writer, &requests));
        let read = read_slowly(&mut client);
        sending.join().expect("no panic").expect("sent");
        let heads = memchr::memmem::find_iter(&read, b"HTTP/1.1 200 OK\r\n").count();
        assert_eq!(heads, 401, "{last}: {} bytes", read.len());
        assert!(read.ends_with(br#"{"status":"ok"}"#));
    }
}

/// What was queued before Close arrives, and Close, although that takes longer than Close has to be answered.
#[test]
fn what_is_queued_before_close_is_read_at_leisure() {
    const COUNT: usize = 1000;
    let limits = config().close_timeout(Duration::from_secs(1)).max_outbox(64 << 20);
    let server = TestServer::with(limits);
    let mut client = narrow(&server, 64 << 10);
    client.upgrade("/rooms/slow");
    let closed = server.handle().hub().ask_all(|hub| {
        for slot in hub.local_members("rooms/slow").to_vec() {
            for _ in 0..COUNT {
                assert_eq!(hub.send(slot, Opcode::Binary, &[7; 20 << 10]), Queued::Yes);
            }
            hub.close(slot, Some(1000), "that was all");
        }
    });
    closed.expect("the cores answer");
    let read = read_slowly(&mut client);
    let close = [&[0x88, 14][..], &1000_u16.to_be_bytes(), b"that was all"].concat();
    assert!(read.ends_with(&close), "{} bytes", read.len());
    assert_eq!(read.len(), COUNT * (4 + (20 << 10)) + close.len());
}

/// A kept-alive connection's next request has its own time, and a body as long as it goes on.
#[test]
fn each_request_and_each_body_has_its_own_time() {
    const TIME: Duration = Duration::from_secs(1);
    let server = TestServer::with(config().handshake_timeout(TIME));
    let mut client = server.raw();
    for _ in 0..3 {
        client.send(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n");
        assert_eq!(client.response(false).status, 200);
        thread::sleep(TIME * 3 / 5);
        client.send(b"GET /healthz ");
        thread::sleep(TIME / 2);
        client.send(b"HTTP/1.1\r\nHost: x\r\n\r\n");
        assert_eq!(client.response(false).status, 200);
    }
    // 10 KiB in three times as long as a head has.
    let mut client = server.raw();
    client.send(b"POST /api/broadcast HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10240\r\n\r\n");
    for _ in 0..30 {
        client.send(&[b' '; 341]);
        thread::sleep(TIME / 10);
    }
    client.send(&[b' '; 10]);
    assert_eq!(client.response(false).status, 400, "it came whole, and is no JSON");
    // One byte at a time is no progress.
    let mut client = server.raw();
    client.send(b"POST /api/broadcast HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10240\r\n\r\n");
    let mut writer = client.stream.try_clone().expect("a second handle");
    let sending = thread::spawn(move || {
        while std::io::Write::write_all(&mut writer, b" ").is_ok() {
            thread::sleep(TIME / 40);
        }
    });
    assert_eq!(client.response(false).status, 408);
    drop(client);
    sending.join().expect("no panic");
}

// ---- the latest of each key -----------------------------------------------------------------------------------------

/// One that stalls and reads again finds, behind what its socket had taken, one message of each key and that the last.
#[test]
fn a_slow_consumer_gets_the_latest_of_each_key() {
    const KEYS: u32 = 5;
    let server = slow(SlowConsumer::KeepLatest);
    let mut stalled = server.open("/rooms/prices");
    let hub = server.handle().hub().clone();
    let mut count = 0;
    let mut publish = || {
        let mut message = vec![0; 8 << 10];
        message[..4].copy_from_slice(&u32::to_be_bytes(count));
        let key = format!("price:{}", count % KEYS);
        let sent = hub.to("rooms/prices").keyed(key).send(OwnedMessage::binary(message)).expect("a message").wait();
        assert_eq!((sent.queued, sent.dropped), (1, 0));
        count += 1;
    };
    let replaced = || counters(&server, |counters| counters.drops.of(DropReason::Replaced));
    while replaced() < 500 {
        publish();
    }
    (0..KEYS).for_each(|_| publish());
    assert_eq!(counters(&server, |counters| counters.drops.total()), replaced(), "there was always room");
    let replaced = replaced();
    stalled.send(&raw::close(1000, b""));
    let (frames, end) = stalled.frames();
    assert_eq!((frames.last().and_then(Frame::code), end), (Some(1000), End::Finished));
    let numbers: Vec<u32> = frames[..frames.len() - 1].iter().map(number).collect();
    assert_eq!(numbers.len() as u64 + replaced, u64::from(count), "every other one was replaced");
    for key in 0..KEYS {
        let of_key: Vec<u32> = numbers.iter().copied().filter(|number| number % KEYS == key).collect();
        assert!(of_key.is_sorted() && of_key.last() == Some(&(count - KEYS + (key + KEYS - count % KEYS) % KEYS)));
    }
}
