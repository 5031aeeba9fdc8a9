//! Rooms, broadcasts, ids and counts over several processes.

use std::collections::{BTreeMap, BTreeSet};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tungstenite::Message;

use crate::common;
use crate::common::program::command;
use crate::rig::{Machine, Nats, Outsider, Socket, eventually, machines};

/// Kills: a room, a route or a broadcast that ends at the machine; what comes back to its sender; a count of one machine.
#[test]
fn rooms_broadcasts_and_counts_mean_all_machines() {
    let Some(nats) = Nats::start() else { return };
    let all = machines(&nats, 2);
    let mut sockets: Vec<Socket> = (0..6).map(|number| all[number % 2].events()).collect();
    for (number, socket) in sockets.iter_mut().enumerate() {
        socket.join("lobby");
        let known = number as u64 + 1;
        all.iter().for_each(|machine| {
            eventually(|| machine.members("lobby") == known, || format!("{known} members at {}", machine.name));
        });
    }
    // Each has heard of all that came after it, wherever they are.
    for number in 0..6 {
        let expected: BTreeSet<String> = sockets[number + 1..].iter().map(|socket| socket.id.clone()).collect();
        let heard = sockets[number].take();
        let heard: BTreeSet<String> = heard
            .into_iter()
            .map(|(event, data)| {
                assert_eq!(event, "user-joined");
                data["userId"].as_str().expect("an id").to_owned()
            })
            .collect();
        assert_eq!(heard, expected, "socket {number}");
    }
    for number in 0..6 {
        sockets[number].say("message", &json!({ "room": "lobby", "message": number }));
        for socket in &mut sockets {
            assert_eq!(socket.expect("message")["message"], number);
        }
        sockets[number].say("typing", &json!({ "room": "lobby" }));
        let id = sockets[number].id.clone();
        for (other, socket) in sockets.iter_mut().enumerate() {
            if other != number {
                assert_eq!(socket.expect("user-typing")["userId"], *id);
            }
        }
    }
    for machine in &all {
        let event = r#"{"event":"news","data":1}"#;
        assert_eq!(machine.ask("POST", "/api/broadcast", event), (200, json!({ "sent": true, "recipients": 3 })));
        assert_eq!(machine.ask("POST", "/api/rooms/lobby", event), (200, json!({ "sent": true, "recipients": 6 })));
        for socket in &mut sockets {
            assert_eq!((socket.expect("news"), socket.expect("news")), (json!(1), json!(1)));
        }
    }
    assert!(sockets.iter_mut().all(|socket| socket.take().is_empty()), "nothing came twice");
    // Raw rooms, binary, and a message that NATS takes in parts alone.
    let mut raw: Vec<Socket> = (0..2).map(|number| all[number].open("/rooms/bits")).collect();
    let metric = |machine: &Machine| machine.metric("ringwire_nodes_rooms") as u64;
    eventually(|| all.iter().all(|machine| metric(machine) >= 2), || "both know of the other's room".into());
    let large = common::pattern(3 << 20);
    raw[0].client.send(Message::binary(large.clone())).expect("it listens");
    for socket in &mut raw {
        assert_eq!(socket.client.read().expect("a message"), Message::binary(large.clone()));
    }
    let (_, listing) = all[0].ask("GET", "/api/ws/connections", "");
    assert_eq!((&listing["count"], listing["connections"].as_array().map(Vec::len)), (&json!(8), Some(8)));
    let pages: Vec<Value> = (0..8)
        .map(|offset| all[1].ask("GET", &format!("/api/ws/connections?limit=1&offset={offset}"), "").1)
        .map(|page| page["connections"][0]["id"].clone())
        .collect();
    assert_eq!(pages.iter().map(Value::to_string).collect::<BTreeSet<_>>().len(), 8, "{pages:?}");
    // Who leaves.
    let mut last = sockets.pop().expect("a socket");
    last.client.close(None).expect("it listens");
    drop(last);
    for socket in &mut sockets {
        socket.expect("user-left");
    }
    all.iter().for_each(|machine| eventually(|| machine.members("lobby") == 5, || "it has left".into()));
}

/// Kills: an id that only its own machine understands; one whose slot or key another machine has, too.
#[test]
fn an_id_is_reached_from_any_machine() {
    let Some(nats) = Nats::start() else { return };
    let all = machines(&nats, 2);
    let (mut here, mut there) = (all[0].events(), all[1].events());
    let asker = &all[0];
    let path = |what: &str, id: &str| format!("{what}/{id}");
    let (mine, theirs) = (here.id.clone(), there.id.clone());
    assert_ne!(mine, theirs);
    let sent = (200, json!({ "sent": true }));
    assert_eq!(asker.ask("POST", &path("/api/message", &theirs), "[1.50]"), sent);
    assert_eq!(there.expect("private-message"), json!([1.5]));
    assert_eq!(asker.ask("POST", &path("/api/message", &mine), "2"), sent);
    assert_eq!(here.expect("private-message"), json!(2));
    let data = format!("/api/ws/connections/{theirs}/data");
    assert_eq!(asker.ask("GET", &data, ""), (200, Value::Null));
    assert_eq!(asker.ask("PUT", &data, r#"{"n":1}"#), (200, json!({ "n": 1 })));
    assert_eq!(asker.ask("GET", &data, ""), (200, json!({ "n": 1 })));
    let batch = json!({ "messages": [{ "event": "many", "data": 3, "ids": [mine, theirs] }] }).to_string();
    let (status, published) = asker.ask("POST", "/api/publish", &batch);
    assert_eq!((status, &published["sent"]), (200, &json!(true)), "{published}");
    assert_eq!((here.expect("many"), there.expect("many")), (json!(3), json!(3)));
    // In the order in which they were sent.
    for number in 0..50 {
        assert_eq!(asker.ask("POST", &path("/api/message", &theirs), &number.to_string()), sent);
    }
    for number in 0..50 {
        assert_eq!(there.expect("private-message"), json!(number));
    }
    let connection = path("/api/ws/connections", &theirs);
    assert_eq!(asker.ask("DELETE", &connection, ""), (200, json!({ "disconnected": true })));
    assert_eq!(there.expect("disconnect"), json!({ "reason": "Admin action" }));
    assert_eq!(common::close_code(&mut there.client), Some(1008));
    drop(there);
    eventually(|| asker.ask("DELETE", &connection, "").0 == 404, || "it has gone".into());
    assert_eq!(asker.ask("POST", &path("/api/message", &theirs), "1").0, 404);
    assert_eq!(asker.ask("GET", &data, "").0, 404);
    // A room is closed on all machines.
    let mut members: Vec<Socket> = all.iter().map(Machine::events).collect();
    for socket in &mut members {
        socket.join("closing");
    }
    eventually(|| asker.members("closing") == 2, || "both are members".into());
    assert_eq!(asker.ask("DELETE", "/api/rooms/closing", ""), (200, json!({ "disconnected": 2 })));
    for socket in &mut members {
        socket.until("disconnect");
        assert_eq!(common::close_code(&mut socket.client), Some(1008));
    }
}

/// Kills: counts that stay with the dead; members that nobody, or everybody twice, is told of; a wrong yes.
#[test]
fn a_machine_that_is_killed_counts_no_more_and_its_members_are_told_of_once() {
    let Some(nats) = Nats::start() else { return };
    let mut all = machines(&nats, 3);
    let mut sockets: Vec<Socket> = (0..6).map(|number| all[number % 3].events()).collect();
    for socket in &mut sockets {
        socket.join("lobby");
    }
    all.iter().for_each(|machine| eventually(|| machine.members("lobby") == 6, || "all are in".into()));
    sockets.iter_mut().for_each(|socket| drop(socket.take()));
    let dead = all.remove(2);
    dead.kill();
    let began = Instant::now();
    // The others lose nothing of each other meanwhile.
    let mut number = 0;
    let (mut left, mut said): (Vec<Vec<String>>, Vec<Vec<u64>>) = (vec![Vec::new(); 6], vec![Vec::new(); 6]);
    while began.elapsed() < Duration::from_secs(4) {
        for sender in [0, 1] {
            sockets[sender].say("message", &json!({ "room": "lobby", "message": number }));
            number += 1;
            thread::sleep(Duration::from_millis(20));
        }
    }
    thread::sleep(Duration::from_millis(500));
    for index in [0, 1, 3, 4] {
        for (event, data) in sockets[index].take() {
            match event.as_str() {
                "user-left" => left[index].push(data["userId"].as_str().expect("an id").to_owned()),
                "message" => said[index].push(data["message"].as_u64().expect("a number")),
                other => panic!("{other}"),
            }
        }
        let mut expected = vec![sockets[2].id.clone(), sockets[5].id.clone()];
        expected.sort();
        left[index].sort();
        assert_eq!(left[index], expected, "socket {index} is told once of each");
        said[index].sort_unstable();
        assert_eq!(said[index], (0..number).collect::<Vec<_>>(), "socket {index}");
    }
    all.iter().for_each(|machine| assert_eq!(machine.members("lobby"), 4, "{}", machine.name));
    all.iter().for_each(|machine| machine.await_nodes(1));
    let (status, answer) = all[0].ask("POST", &format!("/api/message/{}", sockets[2].id), "1");
    assert_eq!((status, answer), (504, json!({ "error": "node unreachable" })));
    // It starts again: its former ids are gone for good.
    let again = Machine::start(&nats.url(), "m2");
    again.await_nodes(2);
    all.iter().for_each(|machine| machine.await_nodes(2));
    assert_eq!(all[0].ask("POST", &format!("/api/message/{}", sockets[2].id), "1").0, 404);
    let mut socket = again.events();
    socket.join("lobby");
    assert_eq!(sockets[0].expect("user-joined")["userId"], *socket.id);
}

/// Kills: a machine that goes on believing in others which are silent, or is believed in; counts that are wrong afterwards.
#[test]
fn a_machine_that_stands_still_is_lost_and_comes_back() {
    let Some(nats) = Nats::start() else { return };
    let all = machines(&nats, 2);
    let (mut here, mut there) = (all[0].events(), all[1].events());
    here.join("lobby");
    there.join("lobby");
    all.iter().for_each(|machine| eventually(|| machine.members("lobby") == 2, || "both are in".into()));
    here.take();
    all[1].program.signal(Signal::SIGSTOP);
    let (status, answer) = all[0].ask("POST", &format!("/api/message/{}", there.id), "1");
    assert_eq!((status, answer), (504, json!({ "error": "node unreachable" })), "while it is still believed in");
    assert_eq!(here.expect("user-left")["userId"], *there.id);
    assert_eq!(all[0].members("lobby"), 1);
    all[1].program.signal(Signal::SIGCONT);
    assert_eq!(here.expect("user-joined")["userId"], *there.id, "it is there again");
    all.iter().for_each(|machine| eventually(|| machine.members("lobby") == 2, || "both are in".into()));
    here.say("message", &json!({ "room": "lobby", "message": "again" }));
    assert_eq!(there.until("message")["message"], "again");
}

/// Kills: a second machine of a name that starts.
#[test]
fn a_name_that_is_taken_is_refused_at_the_start() {
    let Some(nats) = Nats::start() else { return };
    let _first = Machine::start(&nats.url(), "same");
    let mut second = command("", &["--addr=127.0.0.1:0", "--cores=1", "--node=same", "--log=error"]);
    let output = second.arg(format!("--nats-url={}", nats.url())).output().expect("it starts");
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(69), "{error}");
    assert!(error.contains("another machine is called same: RINGWIRE_NODE"), "{error}");
}

/// Kills: a way in that only one machine knows, or that delivers twice.
#[test]
fn any_program_publishes_to_sockets() {
    let Some(nats) = Nats::start() else { return };
    let all = machines(&nats, 2);
    let mut sockets: Vec<Socket> = all.iter().map(Machine::events).collect();
    for socket in &mut sockets {
        socket.join("my room.1");
    }
    all.iter().for_each(|machine| eventually(|| machine.members("my room.1") == 2, || "both are in".into()));
    sockets.iter_mut().for_each(|socket| drop(socket.take()));
    let mut outsider = Outsider::connect(&nats);
    let event = |number: u64| json!({ "event": "said", "data": number }).to_string();
    outsider.publish("ringwire.in.room.ws/my%20room.1", event(1).as_bytes());
    outsider.publish("ringwire.in.all", event(2).as_bytes());
    for socket in &mut sockets {
        assert_eq!(socket.expect("said"), 1);
        assert_eq!(socket.expect("said"), 2);
    }
    for (number, socket) in sockets.iter_mut().enumerate() {
        let number = number as u64 + 3;
        let answer = outsider.ask(&format!("ringwire.in.id.{}", socket.id), &event(number));
        assert_eq!(answer, r#"{"sent":true}"#);
        assert_eq!(socket.expect("said"), number);
    }
    assert!(sockets.iter_mut().all(|socket| socket.take().is_empty()));
}

/// Kills: changes that are lost where there are many.
#[test]
fn after_much_coming_and_going_all_counts_are_exact() {
    const ROOMS: usize = 1_000;
    let Some(nats) = Nats::start() else { return };
    let all = machines(&nats, 3);
    let workers: Vec<_> = all
        .iter()
        .enumerate()
        .map(|(index, machine)| {
            let mut sockets: Vec<Socket> = (0..8).map(|_| machine.events()).collect();
            thread::spawn(move || {
                let mut chance = index as u64 * 7919 + 1;
                let mut rooms = vec![BTreeSet::new(); sockets.len()];
                for round in 0..ROOMS {
                    for (number, socket) in sockets.iter_mut().enumerate() {
                        chance = chance.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                        let room = format!("r{}", (chance >> 33) as usize % ROOMS);
                        socket.say("join", &json!({ "room": room }));
                        rooms[number].insert(room.clone());
                        // Most of what is joined is left, at once or by and by.
                        let any = rooms[number].iter().nth((chance >> 40) as usize % rooms[number].len()).cloned();
                        let left = if round % 3 == 0 { any } else { Some(room) };
                        if let Some(room) = left.filter(|_| rooms[number].len() > 20) {
                            socket.say("leave", &json!({ "room": room }));
                            rooms[number].remove(&room);
                        }
                    }
                    if round % 50 == 0 {
                        sockets.iter_mut().for_each(|socket| drop(socket.take()));
                    }
                }
                sockets.iter_mut().for_each(|socket| drop(socket.take()));
                (sockets, rooms)
            })
        })
        .collect();
    let mut sockets = Vec::new();
    let mut expected: BTreeMap<String, u64> = BTreeMap::new();
    for worker in workers {
        let (its, rooms) = worker.join().expect("it ends well");
        sockets.extend(its);
        rooms.into_iter().flatten().for_each(|room| *expected.entry(room).or_default() += 1);
    }
    assert!(expected.len() > 50, "some have stayed: {}", expected.len());
    for machine in &all {
        eventually(|| machine.rooms() == expected, || format!("{} to count all and no more", machine.name));
    }
    // Whoever ends leaves all.
    drop(sockets);
    for machine in &all {
        eventually(|| machine.rooms().is_empty(), || format!("{} to know of no room", machine.name));
    }
}
