//! The hub, from a thread that is no core.

use std::thread;

use ringwire::OwnedMessage;
use ringwire::{ConnectionId, Delivery};
use tungstenite::Message;

use crate::common::{TestServer, text};

fn delivery(queued: u32, gone: u32) -> Delivery {
    let mut delivery = Delivery::default();
    (delivery.queued, delivery.gone) = (queued, gone);
    delivery
}

fn emit(server: &TestServer, id: ConnectionId, message: &str) -> Delivery {
    let hub = server.handle().hub().clone();
    let message = message.to_owned();
    let asking = thread::spawn(move || hub.send_to(id, OwnedMessage::text(message)).expect("a message").wait());
    asking.join().expect("no panic")
}

#[test]
fn emit_to_reaches_one_connection_and_no_newcomer_in_its_place() {
    let server = TestServer::new();
    let mut clients: Vec<_> = (0..8).map(|_| server.client("/broadcast")).collect();
    let ids = server.members("broadcast");
    assert_eq!(ids.len(), 8);
    for id in &ids {
        assert_eq!(emit(&server, *id, &id.to_string()), delivery(1, 0));
    }
    let mut seen: Vec<String> = clients.iter_mut().map(text).collect();
    let mut expected: Vec<String> = ids.iter().map(ToString::to_string).collect();
    seen.sort();
    expected.sort();
    assert_eq!(seen, expected, "each got its own, once");

    drop(clients);
    server.await_connections(0);
    for id in &ids {
        assert_eq!(emit(&server, *id, "too late"), delivery(0, 1));
    }
    // Many more than left, so that every slot has a newcomer.
    let mut newcomers: Vec<_> = (0..80).map(|_| server.client("/broadcast")).collect();
    for id in &ids {
        assert_eq!(emit(&server, *id, "not for you"), delivery(0, 1));
    }
    newcomers[0].send(Message::text("for all")).expect("sent");
    for newcomer in &mut newcomers {
        assert_eq!(text(newcomer), "for all");
    }
}

#[test]
fn made_up_ids_are_gone() {
    let server = TestServer::new();
    let _client = server.client("/broadcast");
    let id = server.members("broadcast")[0];
    let forged: String = id.to_string().chars().rev().collect();
    assert_eq!(emit(&server, forged.parse().expect("it looks like one"), "x"), delivery(0, 1));
    assert_eq!(emit(&server, "_____wAAAAAAAAAAAAAAAA".parse().expect("it looks like one"), "x"), delivery(0, 1));
}

#[test]
fn publish_counts_receivers_of_all_cores() {
    let server = TestServer::new();
    let mut clients: Vec<_> = (0..12).map(|_| server.client("/rooms/count")).collect();
    let publish = |room: &str| server.handle().hub().send_to_room(room, [1, 2, 3]).expect("a message").wait();
    assert_eq!(publish("rooms/count"), delivery(12, 0));
    assert_eq!(publish("rooms/nobody"), delivery(0, 0));
    for client in &mut clients {
        assert_eq!(client.read().expect("a message"), Message::binary(vec![1, 2, 3]));
    }
}

// Eight threads and both cores at once; every message is answered for.
#[test]
fn many_threads_emit_at_once() {
    let server = TestServer::new();
    let mut clients: Vec<_> = (0..4).map(|_| server.client("/broadcast")).collect();
    let ids = server.members("broadcast");
    thread::scope(|scope| {
        for thread in 0..8 {
            let (hub, ids) = (server.handle().hub().clone(), &ids);
            scope.spawn(move || {
                for number in 0..200 {
                    let message = format!("{thread} {number}");
                    let answer = hub.send_to(ids[number % 4], OwnedMessage::text(message)).expect("a message");
                    assert_eq!(answer.wait(), delivery(1, 0));
                }
            });
        }
    });
    for client in &mut clients {
        let mut last = [None; 8];
        for _ in 0..400 {
            let message = text(client);
            let (thread, number) = message.split_once(' ').expect("two numbers");
            let (thread, number): (usize, u32) = (thread.parse().expect("one"), number.parse().expect("two"));
            assert!(last[thread] < Some(number), "in the order of each thread");
            last[thread] = Some(number);
        }
    }
}
