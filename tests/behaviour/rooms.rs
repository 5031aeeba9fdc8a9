//! Rooms.

use ringwire::{App, HttpError, JoinError, Message, Request, Socket, ws};
use serde_json::json;

use crate::common::{config, eventually};
use crate::examples::arcade;
use crate::rig::{block_on, close_frame, event_named, json, say, serve, serve_with, text};

#[test]
fn a08_an_unknown_room_is_told_so_or_refused() {
    let served = arcade();
    let mut client = served.client("/ws/chat/nowhere");
    assert_eq!(json(&mut client), json!({"error": "Room not found"}));
    assert_eq!(close_frame(&mut client).0, 4404);

    let refusing = serve(|| {
        let known = |request: &mut Request| match request.param("room") {
            "a b" => Ok(()),
            _ => Err(HttpError::not_found("Room not found")),
        };
        App::new().group("/rooms", move |group| {
            group.before(known).ws("/{room}", ws().on_connect(|socket| socket.param("room").to_owned()))
        })
    });
    assert_eq!(refusing.connect("/rooms/b", &[]).err(), Some(404));
    assert_eq!(text(&mut refusing.client("/rooms/a%20b")), "a b");
}

#[test]
fn a09_rooms() {
    let served = arcade();
    let mut first = served.client("/ws/chat/room123");
    let info = json(&mut first);
    assert_eq!(info["type"], "room-info");
    assert_eq!((&info["room"]["name"], &info["messages"]), (&json!("Lobby"), &json!([])));
    let first_id = info["room"]["users"][0].as_str().expect("an id").to_owned();

    let mut second = served.client("/ws/chat/room123");
    assert_eq!(json(&mut second)["room"]["users"].as_array().map(Vec::len), Some(2));
    let second_id = event_named(&mut first, "user-joined")["userId"].as_str().expect("an id").to_owned();
    assert_ne!(first_id, second_id);

    say(&mut first, r#"{"type":"typing"}"#);
    for number in 0..105 {
        say(&mut first, json!({"type": "message", "message": number}).to_string());
        // All members, the sender included; and the typing only to the other.
        if number == 0 {
            assert_eq!(event_named(&mut second, "user-typing"), json!({"userId": first_id}));
        }
        for client in [&mut first, &mut second] {
            let said = event_named(client, "message");
            assert_eq!((&said["userId"], &said["message"]), (&json!(first_id), &json!(number)));
            assert!(said["id"].is_string() && said["timestamp"].as_str().is_some_and(|time| time.ends_with('Z')));
        }
    }
    let mut third = served.client("/ws/chat/room123");
    let history: Vec<u64> = json(&mut third)["messages"]
        .as_array()
        .expect("a history")
        .iter()
        .filter_map(|said| said["message"].as_u64())
        .collect();
    assert_eq!(history, (5..105).collect::<Vec<u64>>());
    let third_id = event_named(&mut first, "user-joined")["userId"].clone();
    assert_eq!(event_named(&mut second, "user-joined")["userId"], third_id);

    let members = || block_on(served.hub().members("room123")).expect("the cores answer").len();
    assert_eq!(members(), 3);
    drop(second);
    for client in [&mut first, &mut third] {
        assert_eq!(event_named(client, "user-left"), json!({"userId": second_id}));
    }
    eventually(|| members() == 2, || "two members".to_owned());
}

/// Joins rooms with names of these lengths, and tells what came of each.
fn joins(socket: &mut Socket<'_>, message: Message<'_>) -> String {
    let lengths = message.as_text().unwrap_or_default().split(' ').filter_map(|length| length.parse::<usize>().ok());
    let mut told = Vec::new();
    for (number, length) in lengths.enumerate() {
        told.push(match socket.join(format!("{number:0length$}")) {
            Ok(()) => String::from("in"),
            Err(error @ (JoinError::TooManyRooms { .. } | JoinError::NameTooLong { .. })) => error.to_string(),
            Err(error) => format!("another error: {error}"),
        });
    }
    told.join(", ")
}

#[test]
fn the_limits_of_rooms_are_settings_and_routes_may_have_their_own() {
    let too_many = |max: usize| format!("the connection is in {max} rooms already, and may be in no more");
    let too_long = |max: usize| format!("a room's name has at most {max} bytes");
    let served = serve_with(config().max_rooms(2), || {
        App::new()
            .ws("/plain", ws().on_message(joins))
            .ws("/more", ws().max_rooms(3).max_room_name(300).on_message(joins))
            .get("/upgraded", {
                let route = ws().max_rooms(1).max_room_name(10).on_message(joins);
                async move |request: ringwire::Request| request.upgrade(&route)
            })
    });
    for (path, lengths, told) in [
        ("/plain", "256 257 9 9", format!("in, {}, in, {}", too_long(256), too_many(2))),
        ("/more", "300 301 9 9 9", format!("in, {}, in, in, {}", too_long(300), too_many(3))),
        ("/upgraded", "10 11 9", format!("in, {}, {}", too_long(10), too_many(1))),
    ] {
        let mut client = served.client(path);
        say(&mut client, lengths);
        assert_eq!(text(&mut client), told, "{path}");
    }
}

/// Kills: messages to a room that reach one core's members.
#[test]
fn a_room_is_over_all_cores_however_it_is_told() {
    let served = serve(|| {
        let route = ws().on_connect(|socket| socket.join("den")).on_message(|socket, message| {
            let den = socket.to("den");
            match message.as_text() {
                Some("send") => den.send("sent").map(|_| ()),
                Some("emit") => den.emit("said", "x").map(|_| ()),
                Some("bulk") => den.send(vec![7; 100_000]).map(|_| ()),
                _ => socket.to_own_room(message).map(|_| ()),
            }
        });
        App::new().ws("/", route).post("/tell", async |request: Request| {
            let told = request.hub().emit_to_room("den", "said", "y")?.await;
            Ok::<_, HttpError>(told.queued.to_string())
        })
    });
    let mut clients = served.clients_on_both_cores("/", 4);
    let count = clients.len() as u32;
    for (says, hears) in [("send", "sent"), ("emit", r#"{"event":"said","data":"x"}"#), ("own", "own")] {
        for from in 0..clients.len() {
            say(&mut clients[from], says);
            for client in &mut clients {
                assert_eq!(text(client), hears, "{says} from {from}");
            }
        }
    }
    say(&mut clients[0], "bulk");
    for client in &mut clients {
        assert_eq!(client.read().expect("a message").len(), 100_000);
    }
    assert_eq!(served.http("POST", "/tell", ""), (200, count.to_string()));
    assert_eq!(served.hub().to("den").send("z").expect("text").wait().queued, count);
    for client in &mut clients {
        assert_eq!(text(client), r#"{"event":"said","data":"y"}"#);
        assert_eq!(text(client), "z");
    }
}
