//! `/ws`.

use std::sync::Barrier;
use std::thread;
use std::time::{Duration, SystemTime};

use ringwire::config::CoreSet;
use serde_json::json;
use tungstenite::Message;

use crate::User;
use crate::common::{TestServer, UntilAllCoresHaveSome, config};

#[test]
fn a_socket_is_told_its_id() {
    let server = TestServer::new();
    let (one, other) = (User::new(&server), User::new(&server));
    assert_eq!(one.id.len(), 22);
    assert_ne!(one.id, other.id);
}

#[test]
fn joins_and_leaves_are_counted_over_all_cores_and_told_to_the_others() {
    let server = TestServer::new();
    let [mut one, mut other] = User::on_both_cores(&server);
    assert_ne!(one.core(), other.core());
    assert_eq!(one.join("den"), json!({ "room": "den", "members": 1 }));
    assert_eq!(other.join("den"), json!({ "room": "den", "members": 2 }));
    assert_eq!(one.expect("user-joined"), json!({ "room": "den", "userId": other.id }));
    // Who is in it already is told the count, and nobody else hears of it.
    assert_eq!(other.join("den"), json!({ "room": "den", "members": 2 }));
    one.has_nothing_more();

    other.emit("leave", &json!({ "room": "den" }));
    assert_eq!(other.expect("left"), json!({ "room": "den", "members": 1 }));
    assert_eq!(one.expect("user-left"), json!({ "room": "den", "userId": other.id }));
    one.emit("leave", &json!({ "room": "den" }));
    assert_eq!(one.expect("left"), json!({ "room": "den", "members": 0 }));
    other.has_nothing_more();
}

/// Kills: joins at once on different cores of which neither knows of the other.
#[test]
fn joins_at_once_on_different_cores_add_up() {
    for cores in [2, 3] {
        let server = TestServer::with(config().cores(CoreSet::Count(cores)));
        let mut users: Vec<User> = (0..10).map(|_| User::new(&server)).collect();
        let mut pace = UntilAllCoresHaveSome::new();
        while (0..cores).any(|core| users.iter().all(|user| user.core() != core)) {
            pace.one_more();
            users.remove(0);
            users.push(User::new(&server));
        }
        for round in 0..30 {
            let room = format!("room {round}");
            let join = json!({ "event": "join", "data": { "room": room } }).to_string();
            let start = Barrier::new(users.len());
            let join_one = |user: &mut User| {
                start.wait();
                user.send(&join);
                let (event, data) = user.next();
                assert_eq!(event, "joined", "nothing of a room comes before that");
                let own = data["members"].as_u64().expect("a count");
                for _ in own..10 {
                    user.expect("user-joined");
                }
                user.has_nothing_more();
                own
            };
            let join_one = &join_one;
            let mut counts: Vec<u64> = thread::scope(|scope| {
                let threads: Vec<_> = users.iter_mut().map(|user| scope.spawn(move || join_one(user))).collect();
                threads.into_iter().map(|thread| thread.join().expect("it adds up to ten")).collect()
            });
            counts.sort_unstable();
            assert_eq!(counts.pop(), Some(10), "{counts:?}: the last one counts all");
            // Whichever core publishes, whoever was answered hears it.
            let sender = &mut users[round % 10];
            sender.emit("message", &json!({ "room": room, "message": round }));
            for user in &mut users {
                assert_eq!(user.expect("message")["message"], round);
            }
        }
    }
}

/// Kills: joins that are answered before other cores know where to send.
#[test]
fn what_is_said_after_an_answer_reaches_whoever_was_answered() {
    let server = TestServer::new();
    let [mut one, mut other] = User::on_both_cores(&server);
    for round in 0..300 {
        let room = format!("room {round}");
        one.join(&room);
        other.join(&room);
        one.expect("user-joined");
        let (from, to) = if round % 2 == 0 { (&mut one, &mut other) } else { (&mut other, &mut one) };
        from.emit("message", &json!({ "room": room, "message": round }));
        assert_eq!(to.expect("message")["message"], round);
        from.expect("message");
        one.emit("leave", &json!({ "room": room }));
        assert_eq!(one.expect("left")["members"], 1);
        other.expect("user-left");
        other.emit("leave", &json!({ "room": room }));
        assert_eq!(other.expect("left")["members"], 0);
        one.has_nothing_more();
    }
}

#[test]
fn a_message_reaches_all_members_and_its_sender_once() {
    let server = TestServer::new();
    let [mut one, mut other] = User::on_both_cores(&server);
    let mut outsider = User::new(&server);
    one.join("den");
    other.join("den");
    one.expect("user-joined");
    outsider.join("elsewhere");
    for message in [json!("hello"), json!({ "deep": [1, null, { "b": 2, "a": "\u{1F980}" }] }), json!(null), json!(7)] {
        one.emit("message", &json!({ "room": "den", "message": message }));
        let said = one.expect("message");
        assert_eq!(said, other.expect("message"));
        let mut keys: Vec<&String> = said.as_object().expect("an object").keys().collect();
        keys.sort();
        assert_eq!(keys, ["id", "message", "room", "timestamp", "userId"]);
        assert_eq!((&said["userId"], &said["room"], &said["message"]), (&json!(one.id), &json!("den"), &message));
    }
    one.has_nothing_more();
    other.has_nothing_more();
    outsider.has_nothing_more();
}

#[test]
fn message_ids_differ_and_timestamps_are_now() {
    let server = TestServer::new();
    let mut users = User::on_both_cores(&server);
    let mut ids = std::collections::BTreeSet::new();
    for user in &mut users {
        let room = user.id.clone();
        user.join(&room);
        for _ in 0..100 {
            user.emit("message", &json!({ "room": room, "message": 0 }));
            let said = user.expect("message");
            assert!(ids.insert(said["id"].as_str().expect("text").to_owned()));
            let timestamp = said["timestamp"].as_str().expect("text");
            assert_eq!((timestamp.len(), &timestamp[19..20], &timestamp[23..]), (24, ".", "Z"), "{timestamp}");
            let time = humantime::parse_rfc3339(timestamp).expect("RFC 3339");
            assert!(time.elapsed().is_ok_and(|age| age < Duration::from_secs(10)) && time < SystemTime::now());
        }
    }
}

// A number that no float holds, and an order of keys that no map keeps.
#[test]
fn data_is_passed_on_as_it_was_written() {
    let server = TestServer::new();
    let mut user = User::new(&server);
    let odd = r#"{"z":123456789012345678901234567890, "a":1.0e2,"a":"\u0041"}"#;
    user.send(&format!(r#"{{"data":{odd},"event":"ping"}}"#));
    assert_eq!(crate::text(&mut user.client), format!(r#"{{"event":"pong","data":{odd}}}"#));
    user.join("den");
    user.send(&format!(r#"{{"event":"message","data":{{"message":{odd},"room":"den"}}}}"#));
    assert!(crate::text(&mut user.client).contains(&format!(r#""message":{odd}"#)));
}

#[test]
fn a_ping_without_data_is_answered() {
    let server = TestServer::new();
    let mut user = User::new(&server);
    for ping in [r#"{"event":"ping"}"#, r#"{"event":"ping","data":null}"#] {
        user.send(ping);
        assert_eq!(user.expect("pong"), json!(null));
    }
}

#[test]
fn typing_is_told_to_the_others() {
    let server = TestServer::new();
    let [mut one, mut other] = User::on_both_cores(&server);
    one.join("den");
    other.join("den");
    one.expect("user-joined");
    other.emit("typing", &json!({ "room": "den" }));
    assert_eq!(one.expect("user-typing"), json!({ "room": "den", "userId": other.id }));
    other.has_nothing_more();
}

#[test]
fn whatever_is_no_event_gets_an_error_and_the_socket_stays_open() {
    let server = TestServer::new();
    let mut user = User::new(&server);
    user.join("den");
    let long = format!(r#"{{"event":"join","data":{{"room":"{}"}}}}"#, "x".repeat(300));
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    let cases = [
        "",
        "hello",
        "{",
        "[]",
        "null",
        r#"{"event":7}"#,
        r#"{"data":{}}"#,
        r#"{"event":"ping","event":"ping"}"#,
        r#"{"event":"shout","data":{"room":"den"}}"#,
        r#"["ping",5]"#,
        r#" ["message",{"room":"den","message":1}]"#,
        r#"{"event":"join","data":["den"]}"#,
        r#"{"event":"message","data":["den","hi"]}"#,
        r#"{"event":"join"}"#,
        r#"{"event":"join","data":{}}"#,
        r#"{"event":"join","data":{"room":""}}"#,
        r#"{"event":"join","data":{"room":5}}"#,
        r#"{"event":"leave","data":{"room":"elsewhere"}}"#,
        r#"{"event":"message","data":{"room":"den"}}"#,
        r#"{"event":"message","data":{"room":"elsewhere","message":"hi"}}"#,
        r#"{"event":"typing","data":{"room":"elsewhere"}}"#,
        &long,
        &deep,
    ];
    for case in cases {
        user.send(case);
        let error = user.expect("error");
        assert!(error["message"].as_str().is_some_and(|message| message.len() > 5), "{case}: {error}");
    }
    user.client.send(Message::binary(br#"{"event":"ping"}"#.to_vec())).expect("sent");
    assert_eq!(user.expect("error"), json!({ "message": "events are text messages" }));
    user.has_nothing_more();
}

#[test]
fn rooms_are_bounded_and_the_refusal_is_told() {
    let server = TestServer::new();
    let mut user = User::new(&server);
    for number in 0..256 {
        user.join(&number.to_string());
    }
    user.emit("join", &json!({ "room": "one more" }));
    assert!(user.expect("error")["message"].as_str().is_some_and(|message| message.contains("256 rooms")));
}

#[test]
fn whoever_goes_has_left_all_its_rooms() {
    let server = TestServer::new();
    let [mut stays, mut goes] = User::on_both_cores(&server);
    for room in ["a", "b"] {
        stays.join(room);
        goes.join(room);
        stays.expect("user-joined");
    }
    let id = goes.id.clone();
    goes.client.close(None).expect("closing");
    let mut left = [stays.expect("user-left"), stays.expect("user-left")];
    left.sort_by_key(ToString::to_string);
    assert_eq!(left, ["a", "b"].map(|room| json!({ "room": room, "userId": id })));
    assert_eq!(stays.join("a"), json!({ "room": "a", "members": 1 }));
    // So has one whose connection just breaks.
    let mut breaks = User::new(&server);
    breaks.join("a");
    stays.expect("user-joined");
    drop(breaks);
    stays.expect("user-left");
}

/// Kills: answers that wait for other cores while what comes behind them is answered.
#[test]
fn what_comes_in_one_packet_is_answered_in_order() {
    let server = TestServer::new();
    let [mut one, mut other] = User::on_both_cores(&server);
    other.join("den");
    let events = [
        r#"{"event":"join","data":{"room":"den"}}"#,
        r#"{"event":"message","data":{"room":"den","message":1}}"#,
        r#"{"event":"leave","data":{"room":"den"}}"#,
        r#"{"event":"message","data":{"room":"den","message":2}}"#,
        r#"{"event":"join","data":{"room":"den"}}"#,
        r#"{"event":"ping","data":3}"#,
    ];
    for event in events {
        one.client.write(Message::text(event)).expect("queued");
    }
    one.client.flush().expect("sent");
    let answers: Vec<(String, serde_json::Value)> = (0..6).map(|_| one.next()).collect();
    let names: Vec<&str> = answers.iter().map(|(event, _)| event.as_str()).collect();
    assert_eq!(names, ["joined", "message", "left", "error", "joined", "pong"]);
    assert_eq!([0, 2, 4].map(|n| answers[n].1["members"].as_u64()), [Some(2), Some(1), Some(2)]);
}

// What is sent in front of a Close is done before it.
#[test]
fn the_last_words_are_heard() {
    let server = TestServer::new();
    let [mut hears, mut says] = User::on_both_cores(&server);
    hears.join("den");
    says.emit("join", &json!({ "room": "den" }));
    says.emit("message", &json!({ "room": "den", "message": "bye" }));
    says.client.close(None).expect("closing");
    hears.expect("user-joined");
    assert_eq!(hears.expect("message")["message"], "bye");
    hears.expect("user-left");
}

#[test]
fn event_rooms_are_apart_from_the_load_routes() {
    let server = TestServer::new();
    let mut user = User::new(&server);
    for room in ["broadcast", "rooms/den", "den"] {
        assert_eq!(user.join(room)["members"], 1);
    }
    let mut loads = [server.client("/broadcast"), server.client("/rooms/den")];
    for load in &mut loads {
        load.send(Message::text("raw")).expect("sent");
        assert_eq!(crate::text(load), "raw");
    }
    user.has_nothing_more();
}
