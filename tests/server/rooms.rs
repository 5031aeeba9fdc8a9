//! `/broadcast` and `/rooms/{room}`: everybody of a room gets every message, on whichever core they are.

use ringwire::remote::AskAll as _;
use std::time::Duration;

use tungstenite::Message;

use crate::common::{Client, TestServer, UntilAllCoresHaveSome, raw, text};

/// Clients of one path, with some on each core.
fn clients_on_both_cores(server: &TestServer, path: &str, at_least: usize) -> Vec<Client> {
    let mut clients: Vec<Client> = (0..at_least).map(|_| server.client(path)).collect();
    let opened = || server.handle().hub().ask_all(|hub| hub.counters.opened).expect("the cores answer");
    let mut pace = UntilAllCoresHaveSome::new();
    while opened().contains(&0) {
        pace.one_more();
        clients.push(server.client(path));
    }
    clients
}

#[test]
fn a_broadcast_reaches_every_core() {
    let server = TestServer::new();
    let mut clients = clients_on_both_cores(&server, "/broadcast", 16);
    for sender in 0..clients.len() {
        let message = format!("from {sender}");
        clients[sender].send(Message::text(message.clone())).expect("sent");
        for client in &mut clients {
            assert_eq!(text(client), message);
        }
    }
}

#[test]
fn messages_of_one_sender_arrive_in_order() {
    let server = TestServer::new();
    let mut clients = clients_on_both_cores(&server, "/broadcast", 8);
    for number in 0..500 {
        clients[0].write(Message::text(number.to_string())).expect("queued");
    }
    clients[0].flush().expect("sent");
    for client in &mut clients {
        for number in 0..500 {
            assert_eq!(text(client), number.to_string());
        }
    }
}

#[test]
fn large_broadcasts_of_several_senders_arrive_whole() {
    let server = TestServer::new();
    let mut clients = clients_on_both_cores(&server, "/broadcast", 6);
    let sizes = [4095, 4096, 70_000, 300_000];
    for (sender, size) in sizes.into_iter().enumerate() {
        clients[sender].send(Message::binary(vec![sender as u8; size])).expect("sent");
    }
    for client in &mut clients {
        let mut seen = [false; 4];
        for _ in sizes {
            let bytes = client.read().expect("a message").into_data();
            let sender = usize::from(bytes[0]);
            assert_eq!(bytes.len(), sizes[sender]);
            assert!(bytes.iter().all(|byte| usize::from(*byte) == sender));
            seen[sender] = true;
        }
        assert_eq!(seen, [true; 4]);
    }
}

#[test]
fn rooms_keep_to_themselves() {
    let server = TestServer::new();
    let mut reds = clients_on_both_cores(&server, "/rooms/red", 8);
    let mut blues: Vec<Client> = (0..8).map(|_| server.client("/rooms/blue")).collect();
    reds[0].send(Message::text("red")).expect("sent");
    blues[0].send(Message::text("blue")).expect("sent");
    for red in &mut reds {
        assert_eq!(text(red), "red");
    }
    for blue in &mut blues {
        assert_eq!(text(blue), "blue", "nothing of the other room came first");
    }
}

#[test]
fn whoever_has_left_a_room_is_not_counted_any_more() {
    let server = TestServer::new();
    let mut staying = server.client("/rooms/door");
    for _ in 0..20 {
        let mut leaving = server.client("/rooms/door");
        leaving.close(None).expect("sent");
        while leaving.read().is_ok() {}
    }
    server.await_connections(1);
    staying.send(Message::text("alone")).expect("sent");
    assert_eq!(text(&mut staying), "alone");
    staying.close(None).expect("sent");
    while staying.read().is_ok() {}
    server.await_connections(0);
    let rooms = server.handle().hub().ask_all(|hub| (hub.room_count(), hub.local_members("rooms/door").len()));
    for (count, members) in rooms.expect("the cores answer") {
        assert_eq!(members, 0);
        assert_eq!(count, 0, "nothing of it is kept");
    }
}

// A member that has been told that it is in can count on every message after that, from whichever core.
#[test]
fn a_new_member_misses_nothing() {
    let server = TestServer::new();
    let mut first = server.client("/rooms/fresh");
    for number in 0..50 {
        let mut newcomer = server.client("/rooms/fresh");
        first.send(Message::text(number.to_string())).expect("sent");
        assert_eq!(text(&mut newcomer), number.to_string());
        assert_eq!(text(&mut first), number.to_string());
    }
}

#[test]
fn names_of_rooms_that_are_none() {
    let server = TestServer::new();
    for path in ["/rooms/", "/rooms", "/rooms/a/b"] {
        let mut client = server.raw();
        client.send(&raw::upgrade_request(path));
        assert_eq!(client.response(false).status, 404, "{path}");
    }
    let mut long = server.raw();
    long.send(&raw::upgrade_request(&format!("/rooms/{}", "r".repeat(300))));
    assert_eq!(long.response(false).status, 400, "too long for the hub");
    assert!(server.open("/rooms/r%C3%A4um?x=1").is_silent(Duration::from_millis(20)));
}
