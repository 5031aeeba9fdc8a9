//! How connections end: by either side, by both at once, rudely, in the middle of something.

use std::thread;

use ringwire::OwnedMessage;
use ringwire::remote::AskAll as _;
use tungstenite::Message;

use crate::common::raw::{self, End, FIN, PING};
use crate::common::{TestServer, close_code, config, eventually, text};

/// Closes all members of a room from the server's side.
fn close_all(server: &TestServer, room: &'static str, code: u16) {
    let closed = server.handle().hub().ask_all(move |hub| {
        for slot in hub.local_members(room).to_vec() {
            hub.close(slot, Some(code), "told to");
        }
    });
    closed.expect("the cores answer");
}

#[test]
fn the_client_closes() {
    let server = TestServer::new();
    for (sent, answered) in [(Some(1000), 1000), (Some(3000), 3000), (Some(4999), 4999), (None, 1005)] {
        let mut client = server.open("/echo");
        client.send(&sent.map_or_else(|| raw::frame(FIN | raw::CLOSE, b""), |code| raw::close(code, b"bye")));
        let (frames, end) = client.frames();
        assert_eq!((frames.len(), end), (1, End::Finished));
        assert!(frames[0].is_close());
        assert_eq!(frames[0].code().unwrap_or(1005), answered);
    }
    server.await_connections(0);
}

#[test]
fn the_server_closes() {
    let server = TestServer::new();
    let mut client = server.client("/broadcast");
    close_all(&server, "broadcast", 4001);
    assert_eq!(close_code(&mut client), Some(4001));
    server.await_connections(0);
}

// RFC 6455 7.1.5: whoever closes first, each side sends one Close frame and the connection ends.
#[test]
fn both_sides_close_at_once() {
    let server = TestServer::new();
    for round in 0..100_u16 {
        let mut client = server.open("/broadcast");
        thread::scope(|scope| {
            scope.spawn(|| close_all(&server, "broadcast", 4000));
            if round % 2 == 0 {
                thread::yield_now();
            }
            client.send(&raw::close(1000, b""));
        });
        let (frames, end) = client.frames();
        assert_eq!((frames.len(), end), (1, End::Finished), "round {round}: {frames:?}");
        assert!(matches!(frames[0].code(), Some(1000 | 4000)), "{frames:?}");
    }
    server.await_connections(0);
    assert_eq!(server.handle().connections(), 0);
}

#[test]
fn the_client_goes_right_after_its_close() {
    let server = TestServer::new();
    for _ in 0..100 {
        let mut client = server.open("/echo");
        client.send(&raw::close(1000, b""));
        drop(client);
        let mut client = server.open("/echo");
        client.send(&[raw::text("x"), raw::close(1000, b"")].concat());
        client.reset();
    }
    server.await_connections(0);
}

#[test]
fn everything_sent_before_close_is_answered_before_close() {
    let server = TestServer::new();
    let mut client = server.open("/echo");
    let messages = raw::binary(&[5; 10_000]).repeat(300);
    let reading = {
        let reader = client.stream.try_clone().expect("a second handle");
        thread::spawn(move || raw::Raw::over(reader).frames())
    };
    client.send(&[messages, raw::close(1000, b"")].concat());
    let (frames, end) = reading.join().expect("no panic");
    assert_eq!((frames.len(), end), (301, End::Finished));
    assert_eq!(frames[300].code(), Some(1000));
    assert!(frames[..300].iter().all(|frame| frame.payload == [5; 10_000]));
}

// RFC 6455 1.4, 5.5.1: what follows a Close is no message any more.
#[test]
fn data_behind_close_is_ignored() {
    let server = TestServer::new();
    for behind in [raw::text("too late"), raw::frame(FIN | PING, b"x"), vec![0xFF; 100_000], raw::close(1001, b"")] {
        let mut client = server.open("/echo");
        client.send(&[raw::close(1000, b""), behind].concat());
        let (frames, end) = client.frames();
        assert_eq!((frames.len(), frames[0].code()), (1, Some(1000)), "{end:?}");
    }
    server.await_connections(0);
}

#[test]
fn half_closed_without_a_close_frame() {
    let server = TestServer::new();
    let mut client = server.open("/echo");
    client.send(&raw::text("last words"));
    client.finish_sending();
    assert_eq!(client.frame().payload, b"last words");
    let (frames, end) = client.frames();
    assert_eq!((frames, end), (Vec::new(), End::Finished), "nothing answers a connection without Close");
    server.await_connections(0);
}

#[test]
fn half_closed_after_its_close_frame() {
    let server = TestServer::new();
    let mut client = server.open("/echo");
    client.send(&[raw::text("a"), raw::close(1000, b"")].concat());
    client.finish_sending();
    let (frames, end) = client.frames();
    assert_eq!((frames.len(), end), (2, End::Finished));
    assert_eq!(frames[1].code(), Some(1000));
}

#[test]
fn gone_in_the_middle_of_a_frame_or_a_message() {
    let server = TestServer::new();
    let beginnings = [
        raw::binary(&[1; 1000])[..500].to_vec(),
        raw::text("x")[..1].to_vec(),
        raw::frame(raw::TEXT, b"first of two"),
        raw::binary(&[1; 1 << 20])[..300_000].to_vec(),
    ];
    for (number, beginning) in beginnings.iter().cycle().take(40).enumerate() {
        let mut client = server.open("/broadcast");
        client.send(beginning);
        if number % 2 == 0 {
            client.reset();
        }
    }
    server.await_connections(0);
    let mut client = server.client("/broadcast");
    client.send(Message::text("alone")).expect("sent");
    assert_eq!(text(&mut client), "alone");
}

// A Close frame stands behind what is queued, which a stalled reader still gets when it reads in time.
#[test]
fn what_is_queued_when_the_server_closes_is_delivered() {
    let server = TestServer::with(config().max_outbox(64 << 20));
    let mut client = server.open("/broadcast");
    let message = vec![3; 1 << 20];
    for _ in 0..32 {
        let hub = server.handle().hub();
        let answer = hub.send_to_room("broadcast", OwnedMessage::binary(message.clone())).expect("a message");
        assert_eq!(answer.wait().queued, 1);
    }
    close_all(&server, "broadcast", 1000);
    let reading = client.stream.try_clone().expect("a second handle");
    let mut reader = raw::Raw::over(reading);
    for _ in 0..32 {
        assert!(reader.frame().payload == message);
    }
    assert_eq!(reader.frame().code(), Some(1000));
    client.send(&raw::close(1000, b""));
    assert_eq!(reader.rest(), (Vec::new(), End::Finished));
}

#[test]
fn counters_tell_of_each_connection_once() {
    let server = TestServer::new();
    for _ in 0..10 {
        let mut client = server.client("/echo");
        client.close(None).expect("sent");
        close_code(&mut client);
    }
    let sum = || {
        let counters = server.handle().hub().ask_all(|hub| hub.counters).expect("the cores answer");
        counters.iter().fold((0, 0, 0), |sum, core| (sum.0 + core.accepted, sum.1 + core.opened, sum.2 + core.closed))
    };
    eventually(|| sum() == (10, 10, 10), || format!("10 of each: {:?}", sum()));
}
