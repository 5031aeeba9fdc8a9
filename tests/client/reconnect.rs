//! The client that comes back: SEED_FEATURES A14.

use std::net::TcpStream;
use std::time::{Duration, Instant};

use ringwire::client::blocking::block_on;
use ringwire::client::{ClientError, Event, Reconnecting, connect};
use tungstenite::Message;

use crate::common::TestServer;
use crate::servers;

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn retry_in(event: Option<Event>) -> Duration {
    match event {
        Some(Event::Closed { retry_in: Some(retry_in), .. }) => retry_in,
        other => panic!("{other:?}"),
    }
}

#[test]
fn delays_double_up_to_the_longest_and_start_again_once_open() {
    // Two refusals by the server, then a conversation, then refusals.
    let (url, server) = servers::serve(6, {
        let count = std::cell::Cell::new(0);
        move |stream: TcpStream| {
            count.set(count.get() + 1);
            if count.get() == 4 {
                let mut socket = tungstenite::accept(stream).expect("a handshake");
                socket.send(Message::text("hello")).expect("sent");
                socket.close(None).expect("sent");
                while socket.read().is_ok() {}
            }
        }
    });
    let mut client = Reconnecting::new(connect(url)).delays(ms(20), ms(60));
    let base = |want: u64, got: Duration| {
        assert!((ms(want) / 2..ms(want) * 3 / 2).contains(&got), "about {want} ms: {got:?}");
    };
    let start = Instant::now();
    let first = retry_in(block_on(client.next()));
    base(20, first);
    let second = retry_in(block_on(client.next()));
    base(40, second);
    let third = retry_in(block_on(client.next()));
    base(60, third);
    assert!(matches!(block_on(client.next()), Some(Event::Opened { protocol: None })));
    // It has waited as long as it said, and not much longer.
    let said = first + second + third;
    assert!((said..said + ms(2000)).contains(&start.elapsed()), "{said:?} {:?}", start.elapsed());
    assert!(matches!(block_on(client.next()), Some(Event::Message(message)) if message.as_text() == Some("hello")));
    match block_on(client.next()) {
        Some(Event::Closed { why: ClientError::Closed(closed), retry_in: Some(retry_in) }) => {
            assert_eq!((closed.code, closed.clean), (1005, true));
            base(20, retry_in);
        }
        other => panic!("{other:?}"),
    }
    base(40, retry_in(block_on(client.next())));
    base(60, retry_in(block_on(client.next())));
    server.join().expect("no panic");
}

#[test]
fn sending_needs_a_connection_and_stopping_ends_it() {
    let server = TestServer::new();
    let mut client = Reconnecting::new(connect(format!("ws://{}/echo", server.address)));
    assert!(matches!(block_on(client.send("too early")), Err(ClientError::NotConnected)));
    assert!(matches!(block_on(client.next()), Some(Event::Opened { .. })));
    let sender = client.sender();
    assert!(sender.is_open());
    sender.try_send("there and back").expect("sent");
    assert!(matches!(block_on(client.next()), Some(Event::Message(_))));
    let stopping = std::thread::spawn(move || {
        std::thread::sleep(ms(20));
        sender.stop();
        sender
    });
    match block_on(client.next()) {
        Some(Event::Closed { why: ClientError::Closed(closed), retry_in: None }) => {
            assert_eq!((closed.code, closed.clean), (1000, true));
        }
        other => panic!("{other:?}"),
    }
    assert!(block_on(client.next()).is_none());
    let sender = stopping.join().expect("no panic");
    assert!(matches!(sender.try_send("too late"), Err(ClientError::NotConnected)));
}

#[test]
fn stopping_ends_the_wait_for_the_next_attempt() {
    let mut client = Reconnecting::new(connect("ws://127.0.0.1:1/")).delays(Duration::from_secs(60), ms(0));
    assert!(retry_in(block_on(client.next())) >= Duration::from_secs(30));
    let sender = client.sender();
    let stopping = std::thread::spawn(move || {
        std::thread::sleep(ms(20));
        sender.stop();
    });
    assert!(matches!(block_on(client.next()), Some(Event::Closed { retry_in: None, .. })));
    assert!(block_on(client.next()).is_none());
    stopping.join().expect("no panic");
}

#[test]
fn it_gives_up_when_told_so_or_when_trying_again_cannot_help() {
    let mut client = Reconnecting::new(connect("ws://127.0.0.1:1/")).delays(ms(5), ms(5)).max_attempts(2);
    retry_in(block_on(client.next()));
    assert!(matches!(
        block_on(client.next()),
        Some(Event::Closed { why: ClientError::Connect { .. }, retry_in: None })
    ));
    assert!(block_on(client.next()).is_none());
    let mut client = Reconnecting::new(connect("wss://127.0.0.1/"));
    assert!(matches!(block_on(client.next()), Some(Event::Closed { why: ClientError::Tls { .. }, retry_in: None })));
    assert!(block_on(client.next()).is_none());
}

#[test]
fn it_survives_a_server_that_is_restarted() {
    let server = TestServer::new();
    let address = server.address;
    let mut client = Reconnecting::new(connect(format!("ws://{address}/echo"))).delays(ms(20), ms(50));
    assert!(matches!(block_on(client.next()), Some(Event::Opened { .. })));
    let down = std::thread::spawn(move || drop(server));
    match block_on(client.next()) {
        // A server that drains says so.
        Some(Event::Closed { why: ClientError::Closed(closed), .. }) => assert_eq!(closed.code, 1001),
        other => panic!("{other:?}"),
    }
    down.join().expect("it ends well");
    let mut config = crate::common::config();
    let host = "127.0.0.1".into();
    config.addresses = vec![ringwire::config::ListenAddress::Inet { host, port: address.port() }];
    let server = TestServer::with(config);
    let opened = loop {
        match block_on(client.next()).expect("it goes on") {
            Event::Opened { .. } => break true,
            Event::Closed { retry_in: Some(_), .. } => {}
            other => panic!("{other:?}"),
        }
    };
    assert!(opened);
    block_on(client.send("back again")).expect("sent");
    assert!(matches!(block_on(client.next()), Some(Event::Message(_))));
    drop(client);
    drop(server);
}
