//! Secrets beside what others may choose: whatever sends them, one that is marked goes out as it is, on every core, and no
//! window ever has it. What is not marked goes out compressed by the same ways.

use std::rc::Rc;
use std::time::Duration;

use futures_util::stream;
use ringwire::{
    App, BoxError, Connection, Deflate, EncodeError, Events, IntoMessage, IntoReply, Json, Message, OwnedMessage,
    Receivers, ReplySink, Socket, Streamed, To, Uncompressed, Ws, ws,
};

use crate::host::Setup;
use crate::rig::Rig;
use crate::row::{Through, long, transport};

type Route = fn() -> Ws;

/// A message that is marked, or the same one that is not.
#[derive(Clone)]
struct Marked(String, bool);

impl IntoMessage for Marked {
    fn with_message<R>(self, send: impl FnOnce(Message<'_>) -> R) -> Result<R, EncodeError> {
        match self.1 {
            true => Uncompressed(OwnedMessage::text(self.0)).with_message(send),
            false => OwnedMessage::text(self.0).with_message(send),
        }
    }
}

fn mark(to: To<'_>, is_marked: bool) -> To<'_> {
    if is_marked { to.uncompressed() } else { to }
}

fn mark_all(to: Receivers<'_>, is_marked: bool) -> Receivers<'_> {
    if is_marked { to.uncompressed() } else { to }
}

/// What is to be kept: short, or as long as what travels without being copied.
fn secret(asked: &str) -> String {
    if asked.ends_with("long") { long(4711).repeat(3) } else { "the word is 4711, ".repeat(20) }
}

/// Messages to the connection itself, and to another one of its room.
const TO_ITSELF: usize = 27;
const TO_ANOTHER: usize = 18;

macro_rules! secrets {
    ($name:ident, $mode:expr) => {
        row! {
            $name;
            setup |setup| {
                setup.cores = 2;
                setup.deflate.mode = $mode;
                setup.deflate.bytes_min = 200;
            }
            route |ws, log| ws.on_connect(|socket| {
                socket.join("den")?;
                socket.join("garden")
            });
            handler |peer, log, message| {
                let asked = message.as_text().expect("text").to_owned();
                let is_marked = asked.starts_with("secret");
                let text = secret(&asked);
                let said = || Marked(text.clone(), is_marked);
                let (hub, id, sender) = (peer.hub().clone(), peer.id(), peer.sender());
                let _ = peer.send(said());
                let _ = peer.send_keyed("key", said());
                let _ = match is_marked {
                    true => peer.emit_uncompressed("event", &text)?,
                    false => peer.emit("event", &text)?,
                };
                let hour = Duration::from_secs(3600);
                drop(match is_marked {
                    true => peer.emit_with_ack_uncompressed("event", &text, hour),
                    false => peer.emit_with_ack("event", &text, hour),
                });
                peer.to("den").send(said())?;
                mark(peer.to("den"), is_marked).send(text.as_str())?;
                mark(peer.to("den").except_self(), is_marked).send(OwnedMessage::text(text.clone()))?;
                mark(peer.to("den").keyed("key"), is_marked).emit("event", &text)?;
                peer.to_own_room(said())?;
                mark(peer.to_route(), is_marked).emit("event", &text)?;
                mark(peer.to_all(), is_marked).send(Json(&text))?;
                // What others are told of a change.
                let notice = peer.notice("event", &text)?;
                let notice = if is_marked { notice.uncompressed() } else { notice };
                let _ = peer.leave_then("garden", Some(notice.clone()), |_, _| ());
                peer.join_then("garden", Some(notice), |_, _| ())?;
                // By the hub, from whatever thread.
                for to in [hub.to_connection(id), hub.to("den"), hub.to_route("/{room}"), hub.to_all()] {
                    drop(to.clone().send(said())?);
                    drop(mark_all(to.clone(), is_marked).emit("event", &text)?);
                    drop(mark_all(to.keyed("key"), is_marked).send(text.as_str())?);
                }
                drop(hub.send_to(id, said())?);
                // By who holds on to the connection.
                drop(sender.send(said())?);
                drop(sender.send_keyed("key", said())?);
                drop(match is_marked {
                    true => sender.emit_uncompressed("event", &text)?,
                    false => sender.emit("event", &text)?,
                });
                Ok::<_, BoxError>(if is_marked { Reply::Marked(text.uncompressed()) } else { Reply::Plain(text) })
            }
            client |rig, way, log| {
                if rig.transport.offer.is_some() {
                    // Plain and over TLS, once each: the mode is the row's own.
                    return;
                }
                rig.transport.offer = Some(crate::wire::compression::OFFERS[0]);
                let mut clients = [0, 1].map(|core| rig.open(core, "/den"));
                for asked in ["plain", "secret", "plain", "secret long", "plain long", "plain"] {
                    clients[0].text(asked);
                    let mut got = [vec![], vec![]];
                    // More than their windows hold.
                    for _ in 0..10 {
                        rig.pass_ms(2);
                        got.iter_mut().zip(&mut clients).for_each(|(got, client)| got.extend(client.messages()));
                    }
                    let is_marked = asked.starts_with("secret");
                    let whole = secret(asked);
                    for (payload, is_compressed) in got.iter().flatten() {
                        assert!(String::from_utf8_lossy(payload).contains(&whole), "{asked}: other text");
                        assert!(!(is_marked && *is_compressed), "{asked}: compressed");
                    }
                    let counts = got.each_ref().map(Vec::len);
                    let compressed = got.each_ref().map(|all| all.iter().filter(|(_, is)| *is).count());
                    assert_eq!(counts, [TO_ITSELF, TO_ANOTHER], "{asked}");
                    // To one alone nothing is sent in the stream of a room.
                    let is_all = $mode != Deflate::Shared;
                    let due = if is_marked { 0 } else if is_all { counts[0] } else { 1 };
                    assert!(compressed[0] >= due && (is_marked || compressed[1] > 0), "{asked}: {compressed:?} of {counts:?}");
                }
            }
        }
    };
}

secrets!(stateless, Deflate::Stateless);
secrets!(shared, Deflate::Shared);
secrets!(dedicated, Deflate::Dedicated);

/// What a handler returns.
enum Reply {
    Marked(Uncompressed<String>),
    Plain(String),
}

impl IntoReply for Reply {
    fn reply(self, sink: &mut dyn ReplySink) -> Result<(), BoxError> {
        match self {
            Reply::Marked(text) => text.reply(sink),
            Reply::Plain(text) => text.reply(sink),
        }
    }
}

/// What comes to a client of this route that asks so.
fn asked(route: fn() -> Ws, through: Through, text: &str) -> Vec<(String, bool)> {
    let mut setup = Setup { app: Rc::new(move || App::new().ws("/", route())), ..Setup::default() };
    let transport = transport(&mut setup, through);
    let mut rig = Rig::new(&setup);
    rig.transport = transport;
    let mut client = rig.open(0, "/");
    client.text(text);
    rig.pass_ms(10);
    let text = |(payload, is_compressed)| (String::from_utf8(payload).expect("text"), is_compressed);
    let messages = client.messages().into_iter().map(text).collect();
    drop(client);
    rig.finish();
    messages
}

const WORDS: &str = "the word is the word is the word";

/// Kills: an acknowledgement that forgets the mark of its data, or that it is JSON.
#[test]
fn an_acknowledgement_is_marked_as_what_it_acknowledges() {
    let closure = || {
        let events = Events::new().on("who", |_: &mut Socket<'_>, (): ()| Uncompressed(Json([WORDS])));
        events.on("what", |_: &mut Socket<'_>, (): ()| Json([WORDS])).into_ws()
    };
    let waiting = || {
        let events = Events::new().on_async("who", async |_: Connection, (): ()| Uncompressed(Json([WORDS])));
        events.on_async("what", async |_: Connection, (): ()| Json([WORDS])).into_ws()
    };
    let ways: [(&str, Route); 3] = [("closure", closure), ("waiting", waiting), ("task", task)];
    let data = format!(r#"["{WORDS}"]"#);
    for (way, route) in ways {
        for mode in [Deflate::Stateless, Deflate::Shared, Deflate::Dedicated] {
            for (name, is_compressed) in [("who", false), ("what", mode != Deflate::Shared)] {
                let wanted = asked(route, (false, mode), &format!(r#"{{"event":"{name}","data":null,"ack":7}}"#));
                assert_eq!(wanted, [(format!(r#"{{"ack":7,"data":{data}}}"#), is_compressed)], "{way} {mode}");
                let told = asked(route, (false, mode), &format!(r#"{{"event":"{name}","data":null}}"#));
                assert_eq!(told, [(data.clone(), is_compressed)], "{way} {mode}");
            }
        }
    }
}

fn task() -> Ws {
    ws().task(async |mut connection: Connection| {
        while let Some(Ok(event)) = connection.recv_event().await {
            match event.name() {
                "who" => event.reply(&mut connection, Uncompressed(Json([WORDS]))).await?,
                _ => event.reply(&mut connection, Json([WORDS])).await?,
            }
        }
        Ok::<_, BoxError>(())
    })
}

/// Kills: a mark that stays behind when what it was on is streamed, optional, or fails.
#[test]
fn a_mark_reaches_all_that_a_reply_brings() {
    let streamed = || ws().on_message(|_, _| Uncompressed(Streamed(stream::iter([WORDS, WORDS]))));
    let optional = || ws().on_message_async(async |_, _| Some(Ok::<_, BoxError>(Uncompressed(Json([WORDS])))));
    let within = || ws().on_message(|_, _| Uncompressed(Some(WORDS)));
    let plain = || ws().on_message(|_, _| Streamed(stream::iter([WORDS, WORDS])));
    let rows: [(Route, usize, bool); 4] =
        [(streamed, 2, false), (optional, 1, false), (within, 1, false), (plain, 2, true)];
    for (route, count, is_compressed) in rows {
        for mode in [Deflate::Stateless, Deflate::Dedicated] {
            let got = asked(route, (false, mode), "x");
            assert_eq!(got.iter().map(|(_, is)| *is).collect::<Vec<_>>(), vec![is_compressed; count], "{mode}");
        }
    }
}
