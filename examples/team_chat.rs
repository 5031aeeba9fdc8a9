//! A chat for a team: tokens, rooms with a history, who is there, private messages by HTTP, also for pages of another origin, an
//! access log: `cargo run --example team_chat`, then open `ws://127.0.0.1:9001/rooms/lobby?token=ann-secret`. SIGTERM ends it
//! gracefully: all is delivered, Close 1001.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use ringwire::{App, ConnectionId, Cors, Events, HttpError, Request, Server, Socket, Undecodable};
use serde_json::{Value, json};

const HISTORY_MAX: usize = 50;
/// Whatever is asked for has a line: its path, without the query, and what came of it.
pub(crate) const LOG: &str = "info,ringwire::access=debug";
/// Who has which token: a database's to know.
const USERS: [(&str, &str); 3] = [("ann-secret", "ann"), ("ben-secret", "ben"), ("eve-secret", "eve")];

fn main() -> ringwire::Result<()> {
    tracing_subscriber::fmt().with_env_filter(LOG).init();
    let chat = Chat::default();
    Server::from_env()?.run(move || app(&chat))
}

pub(crate) fn app(chat: &Chat) -> App {
    let app = App::new().cors(Cors::new("https://team.example")).before(authenticate);
    app.ws("/rooms/{room}", events(chat)).post("/users/{user}/messages", send_privately)
}

#[derive(Clone)]
struct User(String);

#[derive(Default)]
struct Room {
    /// Whoever joins may hear twice what is said at that moment, and knows it by its number.
    said: u64,
    history: VecDeque<Value>,
    present: BTreeMap<ConnectionId, String>,
}

impl Room {
    fn show(&self) -> Value {
        json!({"history": self.history, "present": self.present.values().collect::<BTreeSet<_>>()})
    }

    fn has(&self, user: &str) -> bool {
        self.present.values().any(|other| other == user)
    }
}

/// What all cores share: the rooms by their names. Only the team makes any.
#[derive(Clone, Default)]
pub(crate) struct Chat(Arc<Mutex<BTreeMap<String, Room>>>);

impl Chat {
    fn with_room<T>(&self, name: &str, look: impl FnOnce(&mut Room) -> T) -> T {
        look(self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(name.to_owned()).or_default())
    }
}

/// The token is in the header, or in the query: pages cannot set the headers of a WebSocket.
fn authenticate(request: &mut Request) -> Result<(), HttpError> {
    let header = request.header("authorization").and_then(|value| value.strip_prefix("Bearer ").map(str::to_owned));
    let token = header.or_else(|| Some(request.query("token")?.into_owned())).unwrap_or_default();
    let user = USERS.iter().find(|(known, _)| *known == token).map(|(_, name)| User((*name).to_owned()));
    request.extensions_mut().insert(user.ok_or_else(|| HttpError::unauthorized("a token is needed"))?);
    Ok(())
}

fn who_and_where(socket: &mut Socket<'_>) -> (String, String) {
    let user = socket.extensions().get::<User>().map_or_else(String::new, |user| user.0.clone());
    (user, format!("room:{}", socket.param("room")))
}

fn events(chat: &Chat) -> Events {
    let (coming, talking, going) = (chat.clone(), chat.clone(), chat.clone());
    let welcome = move |socket: &mut Socket<'_>, _| {
        let (user, name) = who_and_where(socket);
        coming.with_room(&name, |room| {
            if !room.has(&user) {
                let _ = socket.to(&name).except_self().emit("joined", &user);
            }
            room.present.insert(socket.id(), user);
            let _ = socket.emit("welcome", &room.show());
        });
    };
    Events::new()
        .undecodable(Undecodable::Tell)
        .on_connect(move |socket| {
            let (user, room) = who_and_where(socket);
            socket.join(format!("user:{user}"))?;
            // Once all cores send here what is said, nothing is missed between the history and that.
            socket.join_then(room, None, welcome.clone())
        })
        .on("say", move |socket, text: String| {
            let (from, name) = who_and_where(socket);
            talking.with_room(&name, |room| {
                room.said += 1;
                room.history.push_back(json!({"number": room.said, "from": from, "text": text}));
                room.history.drain(..room.history.len().saturating_sub(HISTORY_MAX));
                socket.to(&name).emit("said", &room.history.back())
            })
        })
        .on_disconnect(move |socket, _| {
            let (user, name) = who_and_where(socket);
            going.with_room(&name, |room| {
                if room.present.remove(&socket.id()).is_some() && !room.has(&user) {
                    let _ = socket.to(&name).except_self().emit("left", &user);
                }
            });
        })
}

async fn send_privately(request: Request) -> Result<Value, HttpError> {
    let from = request.extensions().get::<User>().map_or("", |user| &user.0);
    let message = json!({"from": from, "text": request.json::<String>()?});
    match request.hub().emit_to_room(&format!("user:{}", request.param("user")), "private", &message)?.await.queued {
        0 => Err(HttpError::not_found("nobody of that name is here")),
        told => Ok(json!({"told": told})),
    }
}
