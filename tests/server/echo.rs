//! `/echo`: every size and shape of message comes back as it was.

use ringwire::remote::AskAll as _;
use std::io::Write as _;
use std::thread;

use tungstenite::Message;

use crate::common::raw::{self, FIN, Frame, PING, PONG};
use crate::common::{TestServer, pattern, text};

const SIZES: [usize; 8] = [0, 1, 125, 126, 65_535, 65_536, 1 << 20, 16 << 20];

#[test]
fn messages_of_every_size_come_back() {
    let server = TestServer::new();
    let mut client = server.client("/echo");
    for size in SIZES {
        let bytes = pattern(size);
        client.send(Message::binary(bytes.clone())).expect("sent");
        let reply = client.read().expect("a reply");
        assert!(matches!(&reply, Message::Binary(reply) if **reply == *bytes), "{size} bytes of binary");

        let letters: String = bytes.iter().map(|byte| char::from(b'a' + byte % 26)).collect();
        client.send(Message::text(letters.clone())).expect("sent");
        assert!(text(&mut client) == letters, "{size} bytes of text");
    }
    client.send(Message::text("Köln, 東京, 🌍")).expect("sent");
    assert_eq!(text(&mut client), "Köln, 東京, 🌍");
}

// The default limit of fragments is there to let this pass.
#[test]
fn four_mebibytes_in_frames_of_64_bytes() {
    let server = TestServer::new();
    let mut client = server.open("/echo");
    let message = pattern(4 << 20);
    let mut bytes = Vec::new();
    let count = message.len() / 64;
    for (index, part) in message.chunks(64).enumerate() {
        let opcode = if index == 0 { raw::BINARY } else { 0 };
        let fin = if index + 1 == count { FIN } else { 0 };
        bytes.extend(raw::frame(fin | opcode, part));
    }
    client.send(&bytes);
    assert!(client.frame() == Frame::new(FIN | raw::BINARY, &message));
}

#[test]
fn control_frames_may_stand_between_fragments() {
    let server = TestServer::new();
    let mut client = server.open("/echo");
    let bytes = [raw::frame(raw::TEXT, b"Hel"), raw::frame(FIN | PING, b"in between"), raw::frame(FIN, b"lo")].concat();
    client.send(&bytes);
    assert_eq!(client.frame(), Frame::new(FIN | PONG, b"in between"));
    assert_eq!(client.frame(), Frame::new(FIN | raw::TEXT, b"Hello"));
}

#[test]
fn frames_that_arrive_byte_by_byte() {
    let server = TestServer::new();
    let mut client = server.open("/echo");
    for byte in raw::binary(&pattern(300)) {
        client.send(&[byte]);
    }
    assert_eq!(client.frame(), Frame::new(FIN | raw::BINARY, &pattern(300)));
}

#[test]
fn a_thousand_messages_in_one_write_come_back_in_order() {
    let server = TestServer::new();
    let mut client = server.open("/echo");
    let bytes: Vec<u8> = (0..1000).flat_map(|number| raw::text(&format!("message {number}"))).collect();
    client.send(&bytes);
    for number in 0..1000 {
        assert_eq!(client.frame(), Frame::new(FIN | raw::TEXT, format!("message {number}").as_bytes()));
    }
}

// The server stops reading from a client whose replies pile up, instead of dropping it as a slow consumer: a client
// that sends faster than it reads is held back by TCP. Sizes are such that a second reply would not fit the outbox.
#[test]
fn a_client_that_reads_late_is_held_back_and_loses_nothing() {
    let server = TestServer::new();
    let mut client = server.open("/echo");
    let sizes = [200 << 10, 900 << 10, 10, 250 << 10, 3 << 20, 70_000];
    let rounds = 12;
    let mut writer = client.stream.try_clone().expect("a second handle");
    let sending = thread::spawn(move || {
        for size in sizes.repeat(rounds) {
            writer.write_all(&raw::binary(&pattern(size))).expect("it can be sent");
        }
    });
    thread::sleep(std::time::Duration::from_millis(300));
    for (number, size) in sizes.repeat(rounds).into_iter().enumerate() {
        let frame = client.frame();
        assert_eq!((frame.first, frame.payload.len()), (FIN | raw::BINARY, size), "message {number}");
        assert!(frame.payload == pattern(size));
    }
    sending.join().expect("all was sent");
}

#[test]
fn ten_thousand_pings_are_answered_and_others_served() {
    let server = TestServer::new();
    let mut client = server.open("/echo");
    let mut other = server.client("/echo");
    let mut writer = client.stream.try_clone().expect("a second handle");
    let sending = thread::spawn(move || {
        for number in 0..10_000_u32 {
            writer.write_all(&raw::frame(FIN | PING, &number.to_be_bytes())).expect("it can be sent");
        }
    });
    other.send(Message::text("meanwhile")).expect("sent");
    assert_eq!(text(&mut other), "meanwhile");
    for number in 0..10_000_u32 {
        assert_eq!(client.frame(), Frame::new(FIN | PONG, &number.to_be_bytes()));
    }
    sending.join().expect("all was sent");
}

// RFC 6455 5.5.3 lets a server answer only the latest ping: its queue stays bounded when nobody reads the pongs.
#[test]
fn pings_whose_pongs_nobody_reads_cost_bounded_memory() {
    let server = TestServer::new();
    let mut client = server.open("/echo");
    client.stream.set_write_timeout(Some(std::time::Duration::from_millis(500))).expect("a timeout");
    let pings = raw::frame(FIN | PING, &[7; 125]).repeat(500);
    let mut sent = 0;
    while sent < 64 << 20 {
        match client.stream.write(&pings) {
            Ok(len) => sent += len,
            // Held back: bounded as well.
            Err(_) => break,
        }
    }
    let backlogs = server.handle().hub().ask_all(|hub| hub.outbox.backlog_bytes()).expect("the cores answer");
    assert!(backlogs.iter().sum::<usize>() <= 2 << 20, "{backlogs:?}");
    let mut other = server.client("/echo");
    other.send(Message::text("still here")).expect("sent");
    assert_eq!(text(&mut other), "still here");
}
