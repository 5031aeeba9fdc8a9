//! A chat server with rooms, private and broadcast messages, and an HTTP side: `cargo run --example chat_with_http_api`.
//!
//! It listens on port 3000, or on that of the variable `PORT`. The room `room123` is there from the start; more are made by
//! `POST /api/rooms`.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use ringwire::config::{Config, ListenAddress};
use ringwire::{App, BoxError, ConnectionId, Group, HttpError, Json, Message, Request, Server, Socket, Ws, ws};
use serde::Deserialize;
use serde_json::{Value, json};

/// Messages that somebody who joins a room gets to see.
const HISTORY_MAX: usize = 100;

fn main() -> ringwire::Result<()> {
    let port = std::env::var("PORT").ok().and_then(|port| port.parse().ok()).unwrap_or(3000);
    let address = ListenAddress::from(SocketAddr::from(([127, 0, 0, 1], port)));
    let config = Config::from_env()?.addresses(vec![address]);
    let rooms = Rooms::default();
    rooms.create("room123", "Lobby");
    Server::new(config).on_start(|handle| println!("listening on {}", handle.addresses()[0])).run(move || app(&rooms))
}

/// What the cores share: the rooms by their ids.
#[derive(Clone, Default)]
pub(crate) struct Rooms(Arc<Mutex<HashMap<String, Room>>>);

struct Room {
    name: String,
    users: BTreeSet<String>,
    messages: VecDeque<Value>,
}

impl Rooms {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, Room>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn create(&self, id: &str, name: &str) {
        let room = Room { name: name.to_owned(), users: BTreeSet::new(), messages: VecDeque::new() };
        self.lock().insert(id.to_owned(), room);
    }
}

pub(crate) fn app(rooms: &Rooms) -> App {
    let created = rooms.clone();
    App::new()
        .ws("/ws", welcome())
        .ws("/ws/chat", open_chat())
        .ws("/ws/chat/{room}", chat_room(rooms))
        .ws("/ws/binary", binary())
        .ws("/ws/protocol", ws().subprotocols(["chat-v1"]).on_json(|_, data: Value| Json(json!({"received": data}))))
        .group("/ws/private", private)
        .group("/ws/monitored", monitored)
        .post("/api/broadcast", broadcast)
        .post("/api/message/{id}", private_message)
        .post("/api/rooms", async move |request: Request| create_room(&created, &request))
        .get("/api/ws/connections", connections)
        .delete("/api/ws/connections/{id}", disconnect)
}

fn now() -> String {
    humantime::format_rfc3339_millis(SystemTime::now()).to_string()
}

fn fresh_id(kind: &str) -> String {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    format!("{kind}-{}", NEXT.fetch_add(1, Ordering::Relaxed))
}

// ---- sockets ------------------------------------------------------------------------------------------------------

fn welcome() -> Ws {
    ws().on_connect(|socket| format!("Welcome! Your ID is {}", socket.id()))
        .on_message(|_, message| message.as_text().map(|text| format!("Echo: {text}")))
}

/// Everybody on the server talks to everybody.
fn open_chat() -> Ws {
    ws().on_connect(|socket| {
        let user = socket_id(socket);
        socket.to_all().emit("user-joined", &json!({"userId": user}))?;
        let (hub, sender) = (socket.hub().clone(), socket.sender());
        let greeting = async move {
            let Ok(users) = hub.ids().await else { return };
            let users: Vec<String> = users.iter().map(ToString::to_string).collect();
            let _ = sender.send(Json(json!({"type": "users-list", "users": users})));
        };
        socket.spawn(greeting).detach();
        Ok::<_, BoxError>(())
    })
    .on_message(|socket, message| {
        let said = json!({"from": socket_id(socket), "message": message.as_text(), "timestamp": now()});
        socket.to_all().emit("chat", &said)
    })
}

fn socket_id(socket: &Socket<'_>) -> String {
    socket.id().to_string()
}

#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
enum FromClient {
    Message {
        message: Value,
    },
    Typing,
    #[serde(other)]
    Other,
}

fn chat_room(rooms: &Rooms) -> Ws {
    let (joined, said, left) = (rooms.clone(), rooms.clone(), rooms.clone());
    ws().max_message(64 << 10)
        .message_rate(1000)
        .on_connect(move |socket| {
            let (room_id, user) = (socket.param("room"), socket_id(socket));
            let mut rooms = joined.lock();
            let Some(room) = rooms.get_mut(room_id) else {
                let _ = socket.send(Json(json!({"error": "Room not found"})));
                socket.close(4404, "room not found")?;
                return Ok(());
            };
            socket.join(room_id)?;
            socket.set_data(json!({"roomId": room_id}));
            room.users.insert(user.clone());
            let info = json!({
                "type": "room-info",
                "room": {"id": room_id, "name": room.name, "users": room.users},
                "messages": room.messages,
            });
            let _ = socket.send(Json(info));
            socket.to(room_id).except_self().emit("user-joined", &json!({"userId": user}))?;
            Ok::<_, BoxError>(())
        })
        .on_message(move |socket, message| {
            let (room_id, user) = (socket.param("room"), socket_id(socket));
            match message.json()? {
                FromClient::Message { message } => {
                    let message =
                        json!({"id": fresh_id("message"), "userId": user, "message": message, "timestamp": now()});
                    if let Some(room) = said.lock().get_mut(room_id) {
                        room.messages.push_back(message.clone());
                        if room.messages.len() > HISTORY_MAX {
                            room.messages.pop_front();
                        }
                    }
                    socket.to(room_id).emit("message", &message)?;
                }
                FromClient::Typing => {
                    socket.to(room_id).except_self().emit("user-typing", &json!({"userId": user}))?;
                }
                FromClient::Other => {}
            }
            Ok::<_, BoxError>(())
        })
        .on_close(move |socket, _| {
            let (room_id, user) = (socket.param("room"), socket_id(socket));
            let was_in = left.lock().get_mut(room_id).is_some_and(|room| room.users.remove(&user));
            if was_in {
                let _ = socket.to(room_id).except_self().emit("user-left", &json!({"userId": user}));
            }
        })
}

fn binary() -> Ws {
    ws().on_connect(|_| vec![1_u8, 2, 3, 4, 5]).on_message(
        |socket: &mut Socket<'_>, message: Message<'_>| match message
            .as_text()
            .map(|text| format!("Received text: {text}"))
        {
            Some(text) => socket.send(text),
            None => socket.send(message),
        },
    )
}

// ---- authentication -----------------------------------------------------------------------------------------------

#[derive(Clone)]
struct User {
    name: String,
}

/// The token is in the header `Authorization`, or in the cookie `auth-token`.
fn authenticate(request: &mut Request) -> Result<(), HttpError> {
    let token = request.header("authorization").or_else(|| request.cookie("auth-token"));
    let name = token.and_then(|token| token.strip_prefix("token-of-"));
    let user = User { name: name.ok_or_else(|| HttpError::unauthorized("Unauthorized"))?.to_owned() };
    request.extensions_mut().insert(user);
    Ok(())
}

fn private(group: Group) -> Group {
    let greet = |socket: &mut Socket<'_>| {
        let name = socket.extensions().get::<User>().map_or_else(String::new, |user| user.name.clone());
        socket.set_data(json!({"user": name}));
        format!("Welcome {name}!")
    };
    group.before(authenticate).ws("/", ws().on_connect(greet))
}

// ---- hooks --------------------------------------------------------------------------------------------------------

#[derive(Clone, Copy, Default)]
struct MessageCount(u64);

fn monitored(group: Group) -> Group {
    let count = |socket: &mut Socket<'_>, _: Message<'_>| {
        socket.extensions().get_or_insert_default::<MessageCount>().0 += 1;
    };
    group.ws("/", count).after(|socket, closed| {
        let messages = socket.extensions().get_or_insert_default::<MessageCount>().0;
        println!("{} closed after {} s and {messages} messages", socket.id(), closed.duration.as_secs());
    })
}

// ---- HTTP ---------------------------------------------------------------------------------------------------------

async fn broadcast(request: Request) -> Result<Value, HttpError> {
    #[derive(Deserialize)]
    struct Body {
        message: Value,
    }
    let Body { message } = request.json()?;
    let told = request.hub().emit_to_all("broadcast", &json!({"message": message, "timestamp": now()}))?.await;
    Ok(json!({"sent": true, "recipients": told.queued}))
}

async fn private_message(request: Request) -> Result<Value, HttpError> {
    let message: Value = request.json()?;
    let id = request.param("id").parse().map_err(|_| HttpError::not_found("User not connected"))?;
    match request.hub().emit_to(id, "private-message", &message)?.await.queued {
        0 => Err(HttpError::not_found("User not connected")),
        _ => Ok(json!({"sent": true})),
    }
}

fn create_room(rooms: &Rooms, request: &Request) -> Result<Value, HttpError> {
    #[derive(Deserialize)]
    struct Body {
        name: String,
    }
    let Body { name } = request.json()?;
    let id = fresh_id("room");
    rooms.create(&id, &name);
    Ok(json!({"id": id, "name": name, "wsUrl": format!("/ws/chat/{id}")}))
}

async fn connections(request: Request) -> Result<Value, HttpError> {
    let connections = request.hub().connections().await?;
    let list: Vec<Value> =
        connections.iter().map(|known| json!({"id": known.id.to_string(), "data": known.data})).collect();
    Ok(json!({"count": list.len(), "connections": list}))
}

async fn disconnect(request: Request) -> Result<Value, HttpError> {
    let gone = || HttpError::not_found("Connection not found");
    let id: ConnectionId = request.param("id").parse().map_err(|_| gone())?;
    let told = request.hub().emit_to(id, "disconnect", &json!({"reason": "Admin action"}))?.await;
    // The client may close when it hears this; it is closed in any case.
    match request.hub().disconnect(id, 1008, "Admin action").expect("a legal code").await {
        Some(true) if told.gone == 0 => Ok(json!({"disconnected": true})),
        _ => Err(gone()),
    }
}
