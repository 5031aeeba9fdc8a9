//! Arcade: messages, ids, rooms, and the HTTP side of them.

use std::thread;

use ringwire::{App, BoxError, ConnectionId, HttpError, Request, ws};
use serde_json::{Value, json};
use tungstenite::Message;

use super::rig::{block_on, close_code, close_frame, event, event_named, json, log, raw, request, say, serve, text};
use crate::common::eventually;

#[allow(dead_code)]
#[path = "../../examples/arcade_chat.rs"]
mod arcade_chat;

use arcade_chat::Rooms;

fn example() -> super::rig::Served {
    let rooms = Rooms::default();
    rooms.create("room123", "Lobby");
    serve(move || arcade_chat::app(&rooms))
}

/// The id in the first message of the route `/ws`.
fn welcomed(client: &mut crate::common::Client) -> ConnectionId {
    let welcome = text(client);
    let id = welcome.strip_prefix("Welcome! Your ID is ").unwrap_or_else(|| panic!("{welcome}"));
    let parsed: ConnectionId = id.parse().expect("an id");
    assert_eq!(parsed.to_string(), id);
    parsed
}

#[test]
fn a01_get_upgrades_and_the_id_is_an_address() {
    let served = example();
    let mut clients = served.clients_on_both_cores("/ws", 2);
    let ids: Vec<ConnectionId> = clients.iter_mut().map(welcomed).collect();
    for (index, (client, id)) in clients.iter_mut().zip(&ids).enumerate() {
        assert!(ids[..index].iter().all(|other| other != id));
        assert_eq!(served.hub().send_to(*id, format!("for {index}")).expect("text").wait().queued, 1);
        assert_eq!(text(client), format!("for {index}"));
        say(client, "hello");
        assert_eq!(text(client), "Echo: hello");
    }
    let cores: Vec<usize> = ids.iter().map(|id| id.core()).collect();
    assert!(cores.contains(&0) && cores.contains(&1), "{cores:?}");
}

#[test]
fn a02_message_done_and_error_handlers() {
    let (tell, told) = log();
    let served = serve(move || {
        let (on_error, on_close) = (tell.clone(), tell.clone());
        let route = ws()
            .on_message(|_, message| match message.as_text() {
                Some("fail") => Err("as told"),
                text => Ok(text.map(str::to_uppercase)),
            })
            .on_error(move |_, error| on_error(&format!("error {error}")))
            .on_close(move |_, closed| on_close(&format!("{} {:?} {}", closed.code, closed.reason, closed.clean)));
        App::new().ws("/", route)
    });
    let mut client = served.client("/");
    say(&mut client, "hello");
    assert_eq!(text(&mut client), "HELLO");
    client.close(Some(tungstenite::protocol::CloseFrame { code: 4001.into(), reason: "bye".into() })).expect("sent");
    assert_eq!(told.next(), r#"4001 "bye" true"#);
    assert_eq!(close_code(&mut client), Some(4001));

    let mut client = served.client("/");
    say(&mut client, "fail");
    assert_eq!(close_code(&mut client), Some(1011));
    assert_eq!(told.next(), "error as told");
    assert!(told.next().starts_with("1011 "));

    let mut client = served.raw();
    client.upgrade("/");
    client.reset();
    let broken = told.next();
    assert!(broken.starts_with("1006 ") && broken.ends_with(" false"), "{broken}");
    assert!(told.is_empty());
}

#[test]
fn a03_on_connect_is_first_and_the_newcomer_is_registered() {
    let (tell, told) = log();
    let served = serve(move || {
        let (on_connect, on_message) = (tell.clone(), tell.clone());
        let route = ws()
            .on_connect(move |socket| {
                on_connect("connect");
                socket.to_all().emit("user-joined", &1)
            })
            .on_message(move |_, _| {
                on_message("message");
                "answer"
            });
        App::new().ws("/", route)
    });
    // The first message is there before the upgrade was answered.
    let mut client = served.raw();
    client.send(&[raw::upgrade_request("/"), raw::text("early")].concat());
    assert_eq!(client.response(false).status, 101);
    assert_eq!(client.frame().payload, br#"{"event":"user-joined","data":1}"#);
    assert_eq!(client.frame().payload, b"answer");
    assert_eq!(told.take(2), ["connect", "message"]);
}

#[test]
fn a04_emit_to_all_from_a_handler_http_and_any_thread() {
    let served = serve(|| {
        let route = ws().on_message(|socket, message| {
            let text = message.as_text().map(str::to_owned);
            socket.to_all().emit("chat", &json!({"message": text}))
        });
        App::new().ws("/", route).post("/all", async |request: Request| {
            let told = request.hub().emit_to_all("http", &request.json::<Value>()?)?.await;
            Ok::<_, HttpError>(told.queued.to_string())
        })
    });
    let mut clients = served.clients_on_both_cores("/", 8);
    let count = clients.len() as u32;
    say(&mut clients[0], "hi");
    for client in &mut clients {
        assert_eq!(text(client), r#"{"event":"chat","data":{"message":"hi"}}"#);
    }
    assert_eq!(served.http("POST", "/all", "[1,2]"), (200, count.to_string()));
    for client in &mut clients {
        assert_eq!(event(client), ("http".to_owned(), json!([1, 2])));
    }
    let hub = served.hub().clone();
    let told = thread::spawn(move || hub.emit_to_all("thread", "x").expect("text").wait()).join().expect("no panic");
    assert_eq!((told.queued, told.gone), (count, 0));
    for client in &mut clients {
        assert_eq!(event(client), ("thread".to_owned(), json!("x")));
    }
}

#[test]
fn a05_emit_to_unknown_id_is_404() {
    let served = example();
    let mut clients = served.clients_on_both_cores("/ws", 2);
    for client in &mut clients {
        let id = welcomed(client);
        let path = format!("/api/message/{id}");
        assert_eq!(served.http_json("POST", &path, r#"{"a":1}"#), (200, json!({"sent": true})));
        assert_eq!(event_named(client, "private-message"), json!({"a": 1}));
        assert_eq!(served.http("POST", &path, "{").0, 400);
    }
    let gone = {
        let mut client = served.client("/ws");
        welcomed(&mut client)
    };
    served.await_count(clients.len() as u32);
    // One that has gone, one that never was, one that is none.
    for id in [gone.to_string(), "AAEAAAAqAAAAB3ZjO0ExAA".to_owned(), "somebody".to_owned()] {
        let answer = served.http_json("POST", &format!("/api/message/{id}"), "{}");
        assert_eq!(answer, (404, json!({"error": "User not connected"})), "{id}");
    }
}

#[test]
fn a06_ids_and_data_across_cores_and_in_the_after_hook() {
    let (tell, told) = log();
    let served = serve(move || {
        let tell = tell.clone();
        let route = ws().on_connect(|socket| {
            socket.extensions().insert(7_u8);
            socket.set_data(json!({"step": 1}));
            socket.id().to_string()
        });
        App::new().group("/", move |group| {
            group.ws("/", route).after(move |socket, _| {
                let typed = socket.extensions().get::<u8>().copied();
                tell(&format!("{} {typed:?}", socket.data()));
            })
        })
    });
    let mut clients = served.clients_on_both_cores("/", 4);
    let hub = served.hub();
    let mut ids: Vec<ConnectionId> = clients.iter_mut().map(|client| text(client).parse().expect("an id")).collect();
    let mut known = block_on(hub.ids()).expect("the cores answer");
    known.sort_unstable();
    ids.sort_unstable();
    assert_eq!(known, ids);
    for id in &ids {
        assert_eq!(hub.data(*id).wait(), Some(Some(json!({"step": 1}))));
        assert_eq!(hub.set_data(*id, json!({"step": 2})).wait(), Some(true));
    }
    let connections = block_on(hub.connections()).expect("the cores answer");
    assert!(connections.iter().all(|connection| connection.data == json!({"step": 2})));
    let count = clients.len();
    drop(clients);
    assert_eq!(told.take(count), vec![r#"{"step":2} Some(7)"#; count]);
    served.await_count(0);
    assert_eq!(hub.data(ids[0]).wait(), Some(None));
    assert_eq!(hub.set_data(ids[0], Value::Null).wait(), Some(false));
}

#[test]
fn a08_an_unknown_room_is_told_so_or_refused() {
    let served = example();
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
    let served = example();
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

#[test]
fn a10_http_routes_beside_sockets() {
    let served = example();
    let mut clients = served.clients_on_both_cores("/ws", 2);
    let ids: Vec<String> = clients.iter_mut().map(|client| welcomed(client).to_string()).collect();
    let count = clients.len();

    let (status, answer) = served.http_json("POST", "/api/broadcast", r#"{"message":"all"}"#);
    assert_eq!((status, answer), (200, json!({"sent": true, "recipients": count})));
    for client in &mut clients {
        assert_eq!(event_named(client, "broadcast")["message"], "all");
    }
    for bad in ["", "{", "[]", r#"{"text":1}"#] {
        let (status, answer) = served.http_json("POST", "/api/broadcast", bad);
        assert_eq!(status, 400, "{bad}");
        assert!(answer["error"].is_string());
    }

    let (status, room) = served.http_json("POST", "/api/rooms", r#"{"name":"New"}"#);
    assert_eq!((status, &room["name"]), (200, &json!("New")));
    let mut member = served.client(room["wsUrl"].as_str().expect("a path"));
    assert_eq!(json(&mut member)["room"]["name"], "New");

    let (_, list) = served.http_json("GET", "/api/ws/connections", "");
    assert_eq!(list["count"], count + 1);
    for id in &ids {
        assert!(list["connections"].as_array().expect("a list").iter().any(|known| known["id"] == *id), "{id}");
    }

    for (client, id) in clients.iter_mut().zip(&ids) {
        let path = format!("/api/ws/connections/{id}");
        assert_eq!(served.http_json("DELETE", &path, ""), (200, json!({"disconnected": true})));
        assert_eq!(event_named(client, "disconnect"), json!({"reason": "Admin action"}));
        assert_eq!(close_frame(client), (1008, "Admin action".to_owned()));
        assert_eq!(served.http("DELETE", &path, "").0, 404);
    }
    served.await_count(1);

    assert_eq!(served.http("GET", "/nothing/here", "").0, 404);
    let mut client = served.raw();
    client.send(&request("DELETE", "/api/broadcast", ""));
    let refused = client.response(false);
    assert_eq!((refused.status, refused.header("allow")), (405, Some("POST")));
    // The same connection goes on.
    client.send(&request("GET", "/api/ws/connections", ""));
    assert_eq!(client.response(false).status, 200);
    let len = (1 << 20) + 1;
    client.send(format!("POST /api/broadcast HTTP/1.1\r\nHost: x\r\nContent-Length: {len}\r\n\r\n").as_bytes());
    assert_eq!(client.response(false).status, 413);
}

#[test]
fn a12_text_and_binary_are_told_apart() {
    let served = example();
    let mut client = served.client("/ws/binary");
    assert_eq!(client.read().expect("a message"), Message::binary(vec![1, 2, 3, 4, 5]));
    say(&mut client, "words");
    assert_eq!(text(&mut client), "Received text: words");
    for len in [0, 3, 200, 100_000] {
        let bytes = crate::common::pattern(len);
        client.send(Message::binary(bytes.clone())).expect("sent");
        assert_eq!(client.read().expect("a message"), Message::binary(bytes));
    }
}

#[test]
fn a13_subprotocols() {
    let served = example();
    for absent in [None, Some("chat-v2"), Some("chat-v11, xchat-v1")] {
        let fields: Vec<(&str, &str)> = absent.map(|list| ("Sec-WebSocket-Protocol", list)).into_iter().collect();
        assert_eq!(served.connect("/ws/protocol", &fields).err(), Some(400), "{absent:?}");
    }
    let (mut client, response) =
        served.connect("/ws/protocol", &[("Sec-WebSocket-Protocol", "other ,  chat-v1")]).expect("an upgrade");
    assert_eq!(response.headers()["sec-websocket-protocol"], "chat-v1");
    say(&mut client, "1");
    assert_eq!(json(&mut client), json!({"received": 1}));

    let optional = serve(|| {
        let route = ws().optional_subprotocols(["b", "a"]).on_connect(|_| Ok::<_, BoxError>("hello"));
        App::new().ws("/", route)
    });
    let chosen = |fields: &[(&str, &str)]| {
        let (_, response) = optional.connect("/", fields).expect("an upgrade");
        response.headers().get("sec-websocket-protocol").map(|value| value.to_str().expect("text").to_owned())
    };
    assert_eq!(chosen(&[]), None);
    assert_eq!(chosen(&[("Sec-WebSocket-Protocol", "x, a, b")]).as_deref(), Some("a"));
}
