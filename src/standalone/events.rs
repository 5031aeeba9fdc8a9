//! `/ws`: rooms and messages as named events, `{"event":E,"data":D}` both ways.
//!
//! A join or leave is answered once every core knows of it, and the answer's count and the notices that follow add up.
//!
//! Where rooms keep their messages (`RINGWIRE_HISTORY`), the answer to a join says where the client is in the room, each message
//! says its offset, and a join with the last position, or for the last so many messages, is answered with what was missed.
//!
//! Whatever a client sends that is none of the events gets an `error` event, and the socket stays open. Data that is
//! passed on, a message's or a ping's, is passed on as it was written.

use std::borrow::Cow;
use std::cell::Cell;
use std::hash::{BuildHasher, RandomState};
use std::time::SystemTime;

use data_encoding::BASE64;
use serde::{Deserialize, Serialize};
use serde_json::value::{RawValue, to_raw_value};
use serde_json::{Value, json};

use super::rooms;
use crate::app::socket::{Notice, Socket};
use crate::app::ws::Ws;
use crate::app::{Events, LostMember, Unhandled};
use crate::hub::{Position, Recovered, Since};
use crate::message::json::{check_passed_on, object};
use crate::message::{DecodeError, EncodeError, Message};
use crate::quote::quoted;

/// The route's path.
pub(super) const PATH: &str = "/ws";

/// The hub's name of a room of event sockets, apart from those of the load routes.
pub(super) fn room_name(room: &str) -> String {
    format!("{ROOM_PREFIX}{room}")
}

/// What clients call the room of this name in the hub.
pub(super) fn shown_room(name: &str) -> &str {
    name.strip_prefix(ROOM_PREFIX).unwrap_or(name)
}

const ROOM_PREFIX: &str = "ws/";

pub(super) fn route() -> Ws {
    // One per core, as the app is.
    let ids = MessageIds::default();
    let events = Events::new()
        .ignore_acks()
        .on_connect(|socket| {
            let id = socket.id().to_string();
            emit(socket, "connected", &json!({ "id": id }));
        })
        .on_raw("join", |socket, data| {
            let joined = read(data).and_then(|joining: Joining<'_>| join(socket, &joining));
            told(socket, joined);
        })
        .on_raw("leave", |socket, data| {
            let left = read(data).and_then(|InRoom { room }| leave(socket, &room));
            told(socket, left);
        })
        .on_raw("message", move |socket, data| {
            let said = read(data).and_then(|saying: Saying<'_>| say(socket, &saying, &ids));
            told(socket, said);
        })
        .on_raw("typing", |socket, data| {
            let typing = read(data).and_then(|InRoom { room }| {
                let name = member_of(socket, &room)?;
                let data = of_user(socket, &name);
                logged(socket.to(&name).ephemeral().except_self().emit("user-typing", &data));
                Ok(())
            });
            told(socket, typing);
        })
        .on_raw("ping", |socket, data| match check_passed_on(data) {
            Ok(()) => emit(socket, "pong", data),
            Err(error) => told(socket, Err(error.into())),
        })
        .on_unhandled(|socket, what| {
            let why = match what {
                Unhandled::Event { name, .. } => {
                    format!("unknown event {}: join, leave, message, typing or ping", quoted(&**name)).into()
                }
                // What is wrong with it, for somebody who types events by hand.
                Unhandled::Text(error) => {
                    format!(r#"not an event such as {{"event":"ping","data":null}}: {}"#, error.why()).into()
                }
                Unhandled::Binary => "events are text messages".into(),
            };
            told(socket, Err(Refused(why)));
        })
        .on_disconnect(|socket, _| {
            for name in socket.rooms() {
                let notice = notice(socket, &name, "user-left");
                socket.leave_then(&name, notice, |_, _| {});
            }
        });
    events.into_ws().forget_request().max_room_name(rooms::NAME_BYTES_MAX + ROOM_PREFIX.len())
}

/// What the members of a room are told of one whose machine was lost, or is there again: what it would have said itself.
pub(super) fn lost(member: &LostMember<'_>) -> Option<(&'static str, Value)> {
    let room = member.room.strip_prefix(ROOM_PREFIX)?;
    let event = if member.is_back { "user-joined" } else { "user-left" };
    Some((event, json!({ "room": room, "userId": member.id.to_string() })))
}

/// Why an event was not handled; the client is told.
struct Refused(Cow<'static, str>);

impl From<DecodeError> for Refused {
    fn from(error: DecodeError) -> Refused {
        Refused(format!("invalid data: {}", error.why()).into())
    }
}

fn read<'m, D: Deserialize<'m>>(data: &'m RawValue) -> Result<D, Refused> {
    Ok(object(data.get().as_bytes()).map_err(DecodeError::from)?)
}

/// Tells the connection why its event was not handled.
fn told(socket: &mut Socket<'_>, handled: Result<(), Refused>) {
    if let Err(Refused(why)) = handled {
        emit(socket, "error", &json!({ "message": why }));
    }
}

#[derive(Deserialize)]
struct InRoom<'m> {
    #[serde(borrow)]
    room: Cow<'m, str>,
}

#[derive(Deserialize)]
struct Joining<'m> {
    #[serde(borrow)]
    room: Cow<'m, str>,
    /// What came behind this is wanted.
    since: Option<Position>,
    /// So many of the last messages are.
    last: Option<u32>,
}

#[derive(Deserialize)]
struct Saying<'m> {
    #[serde(borrow)]
    room: Cow<'m, str>,
    #[serde(borrow)]
    message: &'m RawValue,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Said<'m> {
    id: String,
    user_id: String,
    room: &'m str,
    message: &'m RawValue,
    timestamp: String,
}

/// The answer to a join; without a history there are two fields of it.
#[derive(Serialize)]
struct Joined<'m> {
    #[serde(skip_serializing_if = "Option::is_none")]
    epoch: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    history: Option<Vec<Box<RawValue>>>,
    members: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    offset: Option<u64>,
    /// Whether the history is all that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    recovered: Option<bool>,
    room: &'m str,
}

fn join(socket: &mut Socket<'_>, joining: &Joining<'_>) -> Result<(), Refused> {
    let Joining { room, since, last } = joining;
    rooms::check(room).map_err(|why| Refused(why.into()))?;
    let name = room_name(room);
    let notice = notice(socket, &name, "user-joined");
    let asks = since.is_some() || last.is_some();
    let since = since.map_or_else(|| Since::from(last.map(|last| last as usize)), Since::Position);
    let room = room.clone().into_owned();
    let then = move |socket: &mut Socket<'_>, recovered: Recovered| {
        // What was not to be compressed is not compressed among others either.
        let is_marked = asks && recovered.messages().any(|(_, message)| message.is_uncompressed());
        let history = || recovered.messages().filter_map(|(offset, message)| shown(offset, &message)).collect();
        let joined = Joined {
            epoch: recovered.position.map(Position::epoch),
            history: asks.then(history),
            members: recovered.members,
            offset: recovered.position.map(Position::offset),
            recovered: asks.then_some(recovered.is_complete),
            room: &room,
        };
        logged(if is_marked { socket.emit_uncompressed("joined", &joined) } else { socket.emit("joined", &joined) });
    };
    socket.join_since(&name, since, notice, then).map_err(|error| Refused(error.to_string().into()))
}

/// A message of a room's history: an event as its members have got it. What other programs have published may be none.
fn shown(offset: u64, message: &Message<'_>) -> Option<Box<RawValue>> {
    let Some(text) = message.as_text() else {
        return to_raw_value(&json!({ "base64": BASE64.encode(message.as_bytes()), "offset": offset })).ok();
    };
    let event: Option<Box<RawValue>> = serde_json::from_str(text).ok();
    let event = event.filter(|event| event.get().starts_with('{'));
    event.or_else(|| to_raw_value(&json!({ "text": text, "offset": offset })).ok())
}

fn leave(socket: &mut Socket<'_>, room: &str) -> Result<(), Refused> {
    let name = member_of(socket, room)?;
    let notice = notice(socket, &name, "user-left");
    socket.leave_then(&name, notice, answer("left", room));
    Ok(())
}

/// Tells the connection how many members a room has.
fn answer(event: &'static str, room: &str) -> impl FnOnce(&mut Socket<'_>, usize) + 'static {
    let room = room.to_owned();
    move |socket, members| emit(socket, event, &json!({ "room": room, "members": members }))
}

fn say(socket: &mut Socket<'_>, saying: &Saying<'_>, ids: &MessageIds) -> Result<(), Refused> {
    let name = member_of(socket, &saying.room)?;
    check_passed_on(saying.message)?;
    let id = socket.id();
    let said =
        Said { id: ids.make(), user_id: id.to_string(), room: &saying.room, message: saying.message, timestamp: now() };
    logged(socket.to(&name).emit("message", &said));
    Ok(())
}

/// The hub's name of a room that the connection is in.
fn member_of(socket: &Socket<'_>, room: &str) -> Result<String, Refused> {
    let name = room_name(room);
    let refused = || Refused(format!("not in the room {}", quoted(room)).into());
    socket.is_in(&name).then_some(name).ok_or_else(refused)
}

fn emit(socket: &mut Socket<'_>, event: &str, data: &(impl Serialize + ?Sized)) {
    logged(socket.emit(event, data));
}

/// What the members of a room are told of one that joins or leaves it.
fn notice(socket: &Socket<'_>, name: &str, event: &str) -> Option<Notice> {
    socket.notice(event, &of_user(socket, name)).inspect_err(|error| tracing::error!(%error, "no notice")).ok()
}

fn of_user(socket: &Socket<'_>, name: &str) -> Value {
    let room = shown_room(name);
    json!({ "room": room, "userId": socket.id().to_string() })
}

/// Who has gone or does not keep up misses an event. That it cannot be written as JSON would be a bug.
fn logged<T>(result: Result<T, EncodeError>) {
    if let Err(error) = result {
        tracing::error!(%error, "an event was not sent");
    }
}

/// Makes ids that no other message has: 128 bits of a keyed hash of a count, with a key that is random on each core.
#[derive(Default)]
struct MessageIds {
    key: RandomState,
    count: Cell<u64>,
}

impl MessageIds {
    fn make(&self) -> String {
        let count = self.count.get();
        self.count.set(count + 1);
        format!("{:016x}{:016x}", self.key.hash_one((count, 0)), self.key.hash_one((count, 1)))
    }
}

/// The time of day, RFC 3339 in UTC with milliseconds.
pub(super) fn now() -> String {
    humantime::format_rfc3339_millis(SystemTime::now()).to_string()
}
