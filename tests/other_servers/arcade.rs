//! Arcade, "WebSockets Guide": hooks, broadcasts, chat rooms, management by HTTP, and a client that comes back.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ringwire::client::{Event, Reconnecting, connect};
use ringwire::testing::{TestClient, TestServer, block_on};
use ringwire::{App, BoxError, Connection, ConnectionId, HttpError, Json, Request, Socket, ws};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::given::{User, fresh_id, is_time, now, printed, serve, user_of};

fn basic_server() -> App {
    let echo = ws()
        .on_connect(|socket| format!("Welcome! Your ID is {}", socket.id()))
        .on_text(|socket, message| {
            println!("Received from {}: {message}", socket.id());
            format!("Echo: {message}")
        })
        .on_close(|socket, _| println!("Client {} disconnected", socket.id()))
        .on_error(|socket, error| println!("Error from {}: {error}", socket.id()));
    App::new().ws("/ws", echo)
}

fn connection_handler() -> App {
    let chat = async |mut socket: Connection| {
        println!("New connection: {}", socket.id());
        socket.to_all().emit("user-joined", &json!({"userId": socket.id()}))?;
        let users = socket.hub().ids().await?;
        let _ = socket.send(Json(json!({"type": "users-list", "users": users})));
        while let Some(message) = socket.recv().await {
            let chat = json!({"from": socket.id(), "message": message.as_text(), "timestamp": now()});
            socket.to_all().emit("chat", &chat)?;
        }
        Ok::<_, BoxError>(())
    };
    App::new().ws("/ws/chat", ws().task(chat))
}

async fn authenticate(request: &mut Request) -> Result<(), HttpError> {
    let token = request.header("authorization").or_else(|| request.cookie("auth-token"));
    let token = token.ok_or_else(|| HttpError::unauthorized("Unauthorized"))?;
    let user = user_of(token).await?;
    request.extensions_mut().insert(user);
    Ok(())
}

fn private_route() -> App {
    let welcome = |socket: &mut Socket<'_>| {
        let user: User = socket.extension()?;
        socket.set_data(json!({"user": user}));
        Some(format!("Welcome {}!", user.name))
    };
    App::new().ws("/ws/private", ws().before_async(authenticate).on_connect(welcome).on_message(|_, _| {}))
}

fn broadcasts() -> App {
    let broadcast = async |request: Request| {
        let value: Map<String, Value> = request.json()?;
        let message = json!({"message": value.get("message"), "timestamp": now()});
        let told = request.hub().emit_to_all("broadcast", &message)?.await;
        Ok::<_, HttpError>(json!({"sent": true, "recipients": told.queued}))
    };
    let message = async |request: Request| {
        let value: Map<String, Value> = request.json()?;
        let user_id = request.param("user_id").parse()?;
        if request.hub().emit_to(user_id, "private-message", &value)?.await.queued == 0 {
            return Err(HttpError::not_found("User not connected"));
        }
        Ok(json!({"sent": true}))
    };
    App::new().ws("/ws", ws()).post("/api/broadcast", broadcast).post("/api/message/{user_id}", message)
}

struct ChatRoom {
    name: String,
    users: BTreeSet<ConnectionId>,
    messages: VecDeque<Value>,
}

impl ChatRoom {
    fn add_message(&mut self, message: Value) {
        self.messages.push_back(message);
        if self.messages.len() > 100 {
            self.messages.pop_front();
        }
    }
}

type ChatRooms = Mutex<HashMap<String, ChatRoom>>;

#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
enum FromUser {
    Message { message: Value },
    Typing,
}

fn chat_rooms(rooms: &Arc<ChatRooms>) -> App {
    let chat = ws()
        .on_connect(|socket| {
            let (user, room_id) = (json!({"userId": socket.id()}), socket.param("room_id"));
            let mut rooms = socket.state::<ChatRooms>().lock().expect("no panic");
            let Some(room) = rooms.get_mut(room_id) else {
                let _ = socket.send(Json(json!({"error": "Room not found"})));
                socket.close_without_code();
                return Ok(());
            };
            socket.set_data(json!({"roomId": room_id}));
            room.users.insert(socket.id());
            socket.join(room_id)?;
            let _ = socket.send(Json(json!({
                "type": "room-info",
                "room": {"id": room_id, "name": room.name, "users": room.users},
                "messages": room.messages,
            })));
            socket.to(room_id).except_self().emit("user-joined", &user)?;
            Ok::<_, BoxError>(())
        })
        .on_json(|socket, from: FromUser| {
            let (id, room_id) = (socket.id(), socket.param("room_id"));
            match from {
                FromUser::Message { message } => {
                    let message = json!({"id": fresh_id(), "userId": id, "message": message, "timestamp": now()});
                    let mut rooms = socket.state::<ChatRooms>().lock().expect("no panic");
                    if let Some(room) = rooms.get_mut(room_id) {
                        room.add_message(message.clone());
                    }
                    socket.to(room_id).emit("message", &message)
                }
                FromUser::Typing => socket.to(room_id).except_self().emit("user-typing", &json!({"userId": id})),
            }
        })
        .on_close(|socket, _| {
            let (id, room_id) = (socket.id(), socket.param("room_id"));
            let mut rooms = socket.state::<ChatRooms>().lock().expect("no panic");
            if rooms.get_mut(room_id).is_some_and(|room| room.users.remove(&id)) {
                let _ = socket.to(room_id).except_self().emit("user-left", &json!({"userId": id}));
            }
        });
    let create_room = async |request: Request| {
        #[derive(Deserialize)]
        struct Body {
            name: String,
        }
        let (Body { name }, room_id) = (request.json()?, fresh_id());
        let answer = json!({"id": room_id, "name": name, "wsUrl": format!("/ws/chat/{room_id}")});
        let room = ChatRoom { name, users: BTreeSet::new(), messages: VecDeque::new() };
        request.state::<ChatRooms>().lock().expect("no panic").insert(room_id, room);
        Ok::<_, HttpError>(answer)
    };
    App::new().with_state(Arc::clone(rooms)).ws("/ws/chat/{room_id}", chat).post("/api/rooms", create_room)
}

#[derive(Clone, Default)]
struct MessageCount(u64);

fn monitored_route() -> App {
    let monitored = ws()
        .on_message(|socket, _| {
            socket.extensions().get_or_insert_default::<MessageCount>().0 += 1;
        })
        .after(|socket, closed| {
            let messages = socket.extension::<MessageCount>().unwrap_or_default().0;
            let duration = closed.duration.as_secs();
            let closed = json!({"connectionId": socket.id(), "duration": duration, "messages": messages});
            println!("WebSocket closed {closed}");
        });
    App::new().ws("/ws/monitored", monitored)
}

fn binary_data() -> App {
    let binary = ws()
        .on_connect(|_| vec![1, 2, 3, 4, 5])
        .on_text(|_, data| format!("Received text: {data}"))
        .on_binary(|socket, data| {
            println!("Received {} bytes from {}", data.len(), socket.id());
            socket.send(data)
        });
    App::new().ws("/ws/binary", binary)
}

fn subprotocols() -> App {
    let chat = ws().subprotocols(["chat-v1"]).on_json(|_, data: Value| println!("{data} by chat-v1"));
    App::new().ws("/ws/protocol", chat)
}

fn connection_management() -> App {
    let list = async |request: Request| {
        let connections = request.hub().connections().await?;
        let list = connections.iter().map(|known| json!({"id": known.id, "data": known.data}));
        Ok::<_, HttpError>(json!({"count": connections.len(), "connections": list.collect::<Vec<_>>()}))
    };
    let disconnect = async |request: Request| {
        let id = request.param("id").parse()?;
        let sent = request.hub().emit_to(id, "disconnect", &json!({"reason": "Admin action"}))?.await;
        if sent.queued == 0 {
            return Err(HttpError::not_found("Connection not found"));
        }
        Ok(json!({"disconnected": true}))
    };
    App::new()
        .ws("/ws", ws().on_connect(|socket| socket.set_data(json!({"path": "/ws"}))))
        .get("/api/ws/connections", list)
        .delete("/api/ws/connections/{id}", disconnect)
}

async fn client_that_comes_back(url: &str, mut handle_message: impl FnMut(&Reconnecting, &Value)) {
    let mut client = Reconnecting::new(connect(url));
    while let Some(event) = client.next().await {
        match event {
            Event::Opened { .. } => {
                println!("Connected to Arcade WebSocket");
                let hello = json!({"type": "message", "message": "Hello, Arcade!"});
                let _ = client.send(Json(hello)).await;
            }
            Event::Message(message) => match message.json() {
                Ok(data) => handle_message(&client, &data),
                Err(_) => println!("Received: {}", message.as_text().unwrap_or_default()),
            },
            Event::Closed { why, retry_in } => {
                println!("Disconnected from Arcade WebSocket: {why}");
                if retry_in.is_some() {
                    println!("Attempting to reconnect...");
                }
            }
            _ => {}
        }
    }
}

/// The id that the server has greeted a client with.
fn welcomed(client: &TestClient) -> String {
    let welcome = client.next_text();
    welcome.strip_prefix("Welcome! Your ID is ").expect("a welcome").to_owned()
}

#[test]
fn a_server_welcomes_echoes_and_knows_who_left() {
    let server = TestServer::new(basic_server);
    let client = server.connect("/ws");
    let id = welcomed(&client);
    client.send("hello");
    client.expect_text("Echo: hello");
    client.reset();
    server.advance(Duration::from_secs(1));
    assert_eq!(printed(), [format!("Received from {id}: hello"), format!("Client {id} disconnected")]);
}

/// The newcomer hears of itself, as it is connected by then, and gets the list.
#[test]
fn who_connects_is_told_to_all_and_gets_the_list_of_all() {
    let server = TestServer::builder().cores(2).start(connection_handler);
    let first = server.connect("/ws/chat");
    let ann = first.expect_event("user-joined")["userId"].clone();
    first.expect_json(json!({"type": "users-list", "users": [&ann]}));
    let second = server.connect("/ws/chat");
    let ben = second.expect_event("user-joined")["userId"].clone();
    let list: Value = second.next_json();
    let users = list["users"].as_array().expect("a list");
    assert!(list["type"] == "users-list" && users.len() == 2 && users.contains(&ann) && users.contains(&ben), "{list}");
    assert_eq!(first.expect_event("user-joined")["userId"], ben);
    second.send("hello");
    for client in [first, second] {
        let said = client.expect_event("chat");
        assert_eq!((&said["from"], &said["message"]), (&ben, &json!("hello")));
        assert!(said["timestamp"].as_str().is_some_and(is_time));
    }
    assert_eq!(printed().len(), 2);
}

#[test]
fn only_users_get_in_by_header_or_cookie() {
    let server = TestServer::new(private_route);
    let refusals = [
        server.handshake("/ws/private"),
        server.handshake("/ws/private").header("authorization", "wrong"),
        server.handshake("/ws/private").cookie("other", "token-of-ann"),
    ];
    for refused in refusals {
        assert_eq!(refused.refusal().status(), 401);
    }
    server.handshake("/ws/private").header("authorization", "token-of-ann").open().expect_text("Welcome ann!");
    let client = server.handshake("/ws/private").cookie("auth-token", "token-of-ben").open();
    client.expect_text("Welcome ben!");
    let data: Vec<Value> = server
        .block_on(server.hub().connections())
        .expect("the cores answer")
        .iter()
        .map(|known| serde_json::from_str(&json!(known.data).to_string()).expect("JSON"))
        .collect();
    assert!(data.contains(&json!({"user": {"name": "ben"}})), "{data:?}");
}

#[test]
fn http_requests_reach_all_or_one() {
    let server = TestServer::builder().cores(2).start(broadcasts);
    let clients = [server.connect("/ws"), server.connect("/ws")];
    let sent = server.post("/api/broadcast").json(&json!({"message": "hello"})).send().expect_status(200);
    assert_eq!(sent.json::<Value>(), json!({"sent": true, "recipients": 2}));
    for client in &clients {
        let told = client.expect_event("broadcast");
        assert!(told["message"] == "hello" && told["timestamp"].as_str().is_some_and(is_time), "{told}");
    }
    let ids = server.block_on(server.hub().ids()).expect("the cores answer");
    let sent = server.post(&format!("/api/message/{}", ids[0])).json(&json!({"text": "psst"})).send();
    assert_eq!(sent.expect_status(200).json::<Value>(), json!({"sent": true}));
    let heard: Vec<usize> = clients.iter().map(|client| client.unread().len()).collect();
    assert_eq!(heard.iter().sum::<usize>(), 1, "{heard:?}");
    for client in &clients {
        client.close(1000, "");
        client.expect_close(1000);
    }
    for gone in [ids[0].to_string(), "nobody".to_owned()] {
        assert_eq!(server.post(&format!("/api/message/{gone}")).json(&json!({})).send().status(), 404);
    }
    for path in ["/api/broadcast", "/api/message/1"] {
        assert_eq!(server.post(path).body("no JSON").send().status(), 400);
    }
}

#[test]
fn a_chat_has_rooms_members_and_a_history() {
    let rooms = Arc::<ChatRooms>::default();
    let server = TestServer::builder().cores(2).start(|| chat_rooms(&rooms));
    let unknown = server.connect("/ws/chat/nowhere");
    unknown.expect_json(json!({"error": "Room not found"}));
    unknown.expect_close(1005);
    assert_eq!(server.post("/api/rooms").json(&json!({"title": "Den"})).send().status(), 400);
    let room: Value = server.post("/api/rooms").json(&json!({"name": "Den"})).send().expect_status(200).json();
    let path = room["wsUrl"].as_str().expect("a path");
    assert_eq!((&room["name"], path), (&json!("Den"), format!("/ws/chat/{}", room["id"].as_str().unwrap()).as_str()));

    let ann = server.connect(path);
    let info: Value = ann.next_json();
    assert_eq!(
        (&info["type"], &info["room"]["name"], &info["messages"]),
        (&json!("room-info"), &json!("Den"), &json!([]))
    );
    let anns_id = info["room"]["users"][0].clone();
    for number in 1..=101 {
        ann.send_json(&json!({"type": "message", "message": format!("number {number}")}));
        let said = ann.expect_event("message");
        assert_eq!((&said["userId"], &said["message"]), (&anns_id, &json!(format!("number {number}"))));
        assert!(said["id"].is_string() && said["timestamp"].as_str().is_some_and(is_time), "{said}");
    }
    let ben = server.connect(path);
    let info: Value = ben.next_json();
    let messages = info["messages"].as_array().expect("a list");
    assert_eq!((messages.len(), &messages[0]["message"]), (100, &json!("number 2")), "the last hundred");
    assert_eq!(info["room"]["users"].as_array().map(Vec::len), Some(2));
    let bens_id = ann.expect_event("user-joined")["userId"].clone();

    ben.send_json(&json!({"type": "typing"}));
    assert_eq!(ann.expect_event("user-typing")["userId"], bens_id);
    ben.expect_nothing();
    ben.send_json(&json!({"type": "message", "message": "hello"}));
    assert_eq!(ann.expect_event("message"), ben.expect_event("message"));
    ben.leave();
    assert_eq!(ann.expect_event("user-left")["userId"], bens_id);
}

#[test]
fn the_after_hook_has_data_and_duration() {
    let server = TestServer::new(monitored_route);
    let client = server.connect("/ws/monitored");
    client.send("one");
    client.send("two");
    server.advance(Duration::from_secs(7));
    client.close(1000, "");
    client.expect_close(1000);
    let printed = printed();
    let closed = printed.first().and_then(|line| line.strip_prefix("WebSocket closed ")).expect("it was called");
    let closed: Value = serde_json::from_str(closed).expect("JSON");
    assert_eq!((printed.len(), &closed["duration"], &closed["messages"]), (1, &json!(7), &json!(2)));
    assert!(closed["connectionId"].is_string());
}

#[test]
fn text_and_bytes_are_told_apart() {
    let server = TestServer::new(binary_data);
    let client = server.connect("/ws/binary");
    client.expect_binary([1, 2, 3, 4, 5]);
    client.send("hello");
    client.expect_text("Received text: hello");
    client.send([7, 8]);
    client.expect_binary([7, 8]);
    assert!(printed()[0].starts_with("Received 2 bytes from "));
}

#[test]
fn a_subprotocol_is_required_and_accepted() {
    let server = TestServer::new(subprotocols);
    assert_eq!(server.handshake("/ws/protocol").refusal().status(), 400);
    assert_eq!(server.handshake("/ws/protocol").protocols(["chat-v2"]).refusal().status(), 400);
    let client = server.handshake("/ws/protocol").protocols(["chat-v2", "chat-v1"]).open();
    assert_eq!(client.protocol().as_deref(), Some("chat-v1"));
    client.send_json(&json!([1]));
    assert_eq!(printed(), ["[1] by chat-v1"]);
}

#[test]
fn connections_are_listed_and_told_to_go() {
    let server = TestServer::new(connection_management);
    let client = server.connect("/ws");
    let list: Value = server.get("/api/ws/connections").send().expect_status(200).json();
    assert_eq!((&list["count"], &list["connections"][0]["data"]), (&json!(1), &json!({"path": "/ws"})));
    let path = format!("/api/ws/connections/{}", list["connections"][0]["id"].as_str().expect("an id"));
    assert_eq!(server.delete(&path).send().expect_status(200).json::<Value>(), json!({"disconnected": true}));
    assert_eq!(client.expect_event("disconnect"), json!({"reason": "Admin action"}));
    // The client should close the connection upon receiving this.
    client.close(1000, "");
    client.expect_close(1000);
    assert_eq!(server.delete(&path).send().status(), 404);
}

/// After a second, more or less: the first connection is closed, and the second is told that it is over.
#[test]
fn a_client_comes_back_and_reads_json_and_other_text() {
    let visits = Arc::new(Mutex::new(0));
    let seen = Arc::clone(&visits);
    let server = serve(move || {
        let visits = Arc::clone(&visits);
        let answer = move |socket: &mut Socket<'_>, said: Value| {
            let mut visits = visits.lock().expect("no panic");
            *visits += 1;
            let _ = socket.send("no JSON");
            let _ = socket.send(Json(json!({"visit": *visits, "said": said["message"]})));
            if *visits == 1 { socket.close(1012, "") } else { Ok(()) }
        };
        App::new().ws("/ws/chat/{room_id}", ws().on_json(answer))
    });
    let mut heard = Vec::new();
    block_on(client_that_comes_back(&server.url("/ws/chat/room123"), |client, data| {
        heard.push(data.clone());
        if data["visit"] == 2 {
            client.stop();
        }
    }));
    let said = |visit: u32| json!({"visit": visit, "said": "Hello, Arcade!"});
    assert_eq!((heard, *seen.lock().expect("no panic")), (vec![said(1), said(2)], 2));
    let printed = printed();
    let visit = ["Connected to Arcade WebSocket", "Received: no JSON"];
    assert_eq!(printed[..2], visit);
    assert!(printed[2].starts_with("Disconnected from Arcade WebSocket: "), "{printed:?}");
    assert_eq!(printed[3..6], ["Attempting to reconnect...", visit[0], visit[1]]);
}
