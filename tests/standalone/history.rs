//! The history of rooms on `/ws`: positions, what was missed, and that nothing is different where there is none.

use ringwire::config::CoreSet;
use serde_json::{Value, json};
use tungstenite::Message;

use crate::common::{TestServer, config, text};
use crate::{User, ask};

fn server(history: &str) -> TestServer {
    TestServer::with(config().cores(CoreSet::Count(2)).history(history.parse().expect("a history")))
}

impl User {
    fn whole(&mut self) -> Value {
        serde_json::from_str(&text(&mut self.client)).expect("JSON")
    }

    /// What a message in a room is, and its offset.
    fn said(&mut self) -> (Value, u64) {
        let event = self.whole();
        assert_eq!(event["event"], "message", "{event}");
        (event["data"]["message"].clone(), event["offset"].as_u64().expect("an offset"))
    }

    fn say(&mut self, room: &str, message: u64) {
        self.emit("message", &json!({ "room": room, "message": message }));
    }

    fn join_with(&mut self, data: Value) -> Value {
        self.emit("join", &data);
        self.expect("joined")
    }
}

fn offsets(joined: &Value) -> Vec<u64> {
    let history = joined["history"].as_array().expect("a history");
    history.iter().map(|event| event["offset"].as_u64().expect("an offset")).collect()
}

/// Kills: a client that is sent what it did not ask for, and one that has to ask twice.
#[test]
fn who_comes_back_with_its_position_is_given_what_it_has_missed() {
    let server = server("3");
    for room in ["den", "lair", "attic"] {
        let [mut ann, mut ben] = User::on_both_cores(&server);
        let joined = ann.join_with(json!({ "room": room }));
        let epoch = joined["epoch"].as_str().expect("an epoch").to_owned();
        assert_eq!(joined, json!({ "room": room, "members": 1, "offset": 0, "epoch": epoch }));
        ann.say(room, 1);
        assert_eq!(ann.said(), (json!(1), 1));
        let joined = ben.join_with(json!({ "room": room, "since": { "epoch": epoch, "offset": 0 } }));
        assert_eq!((&joined["members"], &joined["recovered"], &joined["offset"]), (&json!(2), &json!(true), &json!(1)));
        assert_eq!((joined["history"][0]["data"]["message"].clone(), offsets(&joined)), (json!(1), vec![1]));
        assert_eq!(joined["history"][0]["data"]["userId"], json!(ann.id));
        assert_eq!(ann.expect("user-joined")["userId"], json!(ben.id));
        ben.say(room, 2);
        assert_eq!((ann.said(), ben.said()), ((json!(2), 2), (json!(2), 2)));
        ben.client.close(None).expect("it listens");
        assert_eq!(ann.expect("user-left")["userId"], json!(ben.id));
        // What somebody types is nothing for later.
        ann.emit("typing", &json!({ "room": room }));
        let sent = ask(&server, "POST", &format!("/api/rooms/{room}"), r#"{"event":"news","data":3}"#);
        assert_eq!(sent.0, 200, "{}", sent.1);
        assert_eq!(ann.whole(), json!({ "event": "news", "data": 3, "offset": 3 }));
        let mut ben = User::new(&server);
        let joined = ben.join_with(json!({ "room": room, "since": { "epoch": epoch, "offset": 2 } }));
        assert_eq!(joined["history"], json!([{ "event": "news", "data": 3, "offset": 3 }]));
        assert_eq!((&joined["recovered"], &joined["epoch"]), (&json!(true), &json!(epoch)));
        (4..6).for_each(|number| ann.say(room, number));
        let mut cases =
            vec![(json!({ "epoch": epoch, "offset": 2 }), true), (json!({ "epoch": epoch, "offset": 1 }), false)];
        cases.push((json!({ "epoch": "0123456789abcdef", "offset": 4 }), false));
        assert_eq!((ben.said(), ben.said()), ((json!(4), 4), (json!(5), 5)));
        for (since, recovered) in cases {
            let mut eve = User::new(&server);
            let joined = eve.join_with(json!({ "room": room, "since": since }));
            assert_eq!((offsets(&joined), &joined["recovered"]), (vec![3, 4, 5], &json!(recovered)), "{since}");
        }
        for (last, expected, recovered) in [(2, vec![4, 5], true), (100, vec![3, 4, 5], false), (0, vec![], true)] {
            let joined = User::new(&server).join_with(json!({ "room": room, "last": last }));
            assert_eq!((offsets(&joined), &joined["recovered"]), (expected, &json!(recovered)), "{last}");
        }
    }
}

#[test]
fn a_position_that_is_none_is_refused_and_the_socket_stays_open() {
    let server = server("3");
    let mut ann = User::new(&server);
    for since in [json!(7), json!({ "epoch": "x", "offset": 0 }), json!({ "epoch": "0123456789abcdef", "offset": -1 })]
    {
        ann.emit("join", &json!({ "room": "den", "since": since }));
        let error = ann.expect("error");
        assert!(error["message"].as_str().is_some_and(|why| why.starts_with("invalid data: ")), "{error}");
    }
    ann.join("den");
}

/// Kills: an answer that has other fields for those who do not ask.
#[test]
fn without_a_history_nothing_is_different_and_who_asks_is_told() {
    let server = server("off");
    let mut ann = User::new(&server);
    ann.send(r#"{"event":"join","data":{"room":"den"}}"#);
    assert_eq!(text(&mut ann.client), r#"{"event":"joined","data":{"members":1,"room":"den"}}"#);
    ann.say("den", 1);
    let said = ann.expect("message");
    assert_eq!(said["message"], 1);
    let joined = ann.join_with(json!({ "room": "den", "last": 10 }));
    assert_eq!(joined, json!({ "room": "den", "members": 1, "history": [], "recovered": false }));
}

/// The other routes' rooms have none.
#[test]
fn rooms_of_other_routes_are_not_kept() {
    let server = server("9");
    for path in ["/rooms/den", "/broadcast"] {
        let mut client = server.client(path);
        client.send(Message::text("hello")).expect("sent");
        assert_eq!(text(&mut client), "hello");
    }
    let (status, _) = ask(&server, "GET", "/healthz", "");
    assert_eq!(status, 200);
    let metrics = crate::ask_with(&server, "GET", "/metrics", &[], "").body;
    let kept: Vec<&str> = metrics.lines().filter(|line| line.starts_with("ringwire_history_rooms{")).collect();
    assert!(kept.len() == 2 && kept.iter().all(|line| line.ends_with(" 0")), "{kept:?}");
}
