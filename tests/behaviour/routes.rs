//! What a route has besides its handlers of all messages: hooks of its own, handlers by kind, pings, closes, counts.

use std::time::Duration;

use bytes::Bytes;
use ringwire::remote::AskAll as _;
use ringwire::{App, Connection, HttpError, IntoResponse, OwnedMessage, PingTooLong, Request, Sent, Ws, sleep, ws};
use serde_json::json;
use tungstenite::Message;

use crate::common::{Client, close_code};
use crate::rig::{block_on, log, say, serve, text};

/// A route that echoes as a closure, an async handler and a task.
fn echo(form: &str) -> Ws {
    match form {
        "closure" => ws().on_message(|_, message| message.as_text().map(str::to_owned)),
        "async" => ws().on_message_async(async |_: Connection, message: OwnedMessage| message),
        _ => ws().task(async |mut socket: Connection| {
            while let Some(message) = socket.recv().await {
                let _ = socket.send(message);
            }
        }),
    }
}

const FORMS: [&str; 3] = ["closure", "async", "task"];

/// Kills: hooks of a route that do not run, or in another order, or not where a handler upgrades.
#[test]
fn a_route_has_hooks_of_its_own_inside_those_of_its_groups() {
    let (tell, told) = log();
    let served = serve(move || {
        let say = |what: &'static str| {
            let tell = tell.clone();
            move || tell(what)
        };
        let (outer, outer_end) = (say("group before"), say("group after"));
        let hooked = |form: &str| {
            let (first, second, last) = (say("before"), say("before async"), say("on_close"));
            let (after, later) = (say("after 1"), say("after 2"));
            let gate = move |request: &mut Request| {
                first();
                request.extensions_mut().insert(7_u32);
                match request.query("refuse") {
                    Some(_) => Err(HttpError::forbidden("as told")),
                    None => Ok(()),
                }
            };
            let slow = async move |request: &mut Request| {
                sleep(Duration::from_millis(1)).await;
                assert_eq!(request.extensions().get::<u32>(), Some(&7));
                second();
                Ok(())
            };
            echo(form).before(gate).before_async(slow).on_close(move |_, _| last()).after(move |_, _| after()).after(
                move |socket, _| {
                    assert_eq!(socket.extensions().get::<u32>(), Some(&7));
                    later();
                },
            )
        };
        App::new().group("/in", |group| {
            let group = group
                .before(move |_| {
                    outer();
                    Ok(())
                })
                .after(move |_, _| outer_end());
            FORMS.iter().fold(group, |group, form| {
                let upgraded = hooked(form);
                group.ws(&format!("/{form}"), hooked(form)).get(
                    &format!("/up/{form}"),
                    async move |request: Request| {
                        if request.is_upgrade() { request.upgrade(&upgraded) } else { "plain".into_response() }
                    },
                )
            })
        })
    });
    for form in FORMS {
        for path in [format!("/in/{form}"), format!("/in/up/{form}")] {
            assert_eq!(served.connect(&format!("{path}?refuse=1"), &[]).err(), Some(403), "{path}");
            assert_eq!(told.take(2), ["group before", "before"], "{path}");
            let mut client = served.client(&path);
            say(&mut client, "x");
            assert_eq!(text(&mut client), "x");
            assert_eq!(told.take(3), ["group before", "before", "before async"], "{path}");
            drop(client);
            assert_eq!(told.take(4), ["on_close", "after 2", "after 1", "group after"], "{path}");
        }
        assert_eq!(served.http("GET", &format!("/in/up/{form}"), "").1, "plain");
        assert_eq!(told.next(), "group before");
    }
    assert!(told.is_empty());
}

#[test]
fn text_and_bytes_have_handlers_of_their_own() {
    let served = serve(|| {
        let other = |message: &OwnedMessage| format!("other {}", message.as_bytes().len());
        App::new()
            .ws("/now", ws().on_binary(|_, bytes| bytes.len().to_string()).on_text(|_, text| text.to_uppercase()))
            .ws(
                "/later",
                ws().on_text_async(async |_: Connection, text: String| {
                    sleep(Duration::from_millis(2)).await;
                    text.to_uppercase()
                })
                .on_binary_async(async |_: Connection, bytes: Bytes| bytes.len().to_string()),
            )
            .ws(
                "/mixed",
                ws().on_text_async(async |_: Connection, text: String| {
                    sleep(Duration::from_millis(2)).await;
                    text.to_uppercase()
                })
                .on_binary(|_, bytes| bytes.len().to_string()),
            )
            .ws(
                "/text",
                ws().on_message(move |_, message| other(&message.into_owned())).on_text(|_, text| text.to_uppercase()),
            )
            .ws("/binary", ws().on_binary_async(async |_: Connection, bytes: Bytes| bytes.len().to_string()))
    });
    for path in ["/now", "/later", "/mixed"] {
        let mut client = served.client(path);
        for message in [Message::text("abc"), Message::binary(vec![1, 2]), Message::text("d"), Message::binary(vec![])]
        {
            client.write(message).expect("queued");
        }
        client.flush().expect("sent");
        assert_eq!([(); 4].map(|()| text(&mut client)), ["ABC", "2", "D", "0"], "{path}");
    }
    let mut client = served.client("/text");
    client.send(Message::binary(vec![1, 2, 3])).expect("sent");
    assert_eq!(text(&mut client), "other 3");
    say(&mut client, "x");
    assert_eq!(text(&mut client), "X");
    let mut client = served.client("/binary");
    say(&mut client, "nobody hears this");
    client.send(Message::binary(vec![1])).expect("sent");
    assert_eq!(text(&mut client), "1");
    let discarded = served.hub().ask_all(|hub| hub.counters.messages_discarded).expect("answers").iter().sum::<u64>();
    assert_eq!(discarded, 1);
}

fn pong(client: &mut Client) -> Vec<u8> {
    match client.read().expect("a message") {
        Message::Pong(payload) => payload.to_vec(),
        other => panic!("not a pong: {other:?}"),
    }
}

fn ping(client: &mut Client) -> Vec<u8> {
    match client.read().expect("a message") {
        Message::Ping(payload) => {
            client.flush().expect("answered");
            payload.to_vec()
        }
        other => panic!("not a ping: {other:?}"),
    }
}

/// Kills: pings that are not told, or answered twice, and pongs of pings that nobody sent.
#[test]
fn pings_and_pongs_are_heard_and_sent_in_every_form() {
    let served = serve(|| {
        let heard = |ws: Ws| {
            ws.on_ping(|_, payload| format!("ping {}", payload.len()))
                .on_pong(|_, payload| [b"pong ", payload].concat())
        };
        let closure = ws().on_message(|socket, message| {
            assert_eq!(socket.ping([0; 126]), Err(PingTooLong));
            assert_eq!(socket.ping(message.as_bytes()), Ok(Sent::Queued));
        });
        let later = ws().on_message_async(async |socket: Connection, message: OwnedMessage| {
            assert_eq!(socket.ping([0; 126]), Err(PingTooLong));
            assert_eq!(socket.ping(message.as_bytes()), Ok(Sent::Queued));
        });
        let task = ws().task(async |mut socket: Connection| {
            while let Some(message) = socket.recv().await {
                assert_eq!(socket.ping(message.as_bytes()), Ok(Sent::Queued));
            }
        });
        App::new()
            .ws("/closure", heard(closure))
            .ws("/async", heard(later))
            .ws("/task", heard(task))
            .ws("/deaf", ws().on_connect(|_| "hi"))
    });
    for form in FORMS {
        let mut client = served.client(&format!("/{form}"));
        client.send(Message::Ping(vec![1, 2, 3].into())).expect("sent");
        assert_eq!(pong(&mut client), [1, 2, 3], "{form}");
        assert_eq!(text(&mut client), "ping 3", "{form}");
        for payload in ["", "now", &"x".repeat(125)] {
            say(&mut client, payload);
            assert_eq!(ping(&mut client), payload.as_bytes(), "{form}");
            let heard = client.read().expect("a message").into_data();
            assert_eq!(heard, [b"pong ", payload.as_bytes()].concat(), "{form}");
        }
    }
    let mut client = served.client("/deaf");
    assert_eq!(text(&mut client), "hi");
    let id = block_on(served.hub().ids()).expect("the cores answer");
    for id in id {
        assert!(served.hub().ping(id, [0; 126]).is_err());
        let _ = block_on(served.hub().ping(id, "from afar").expect("short"));
    }
    assert_eq!(ping(&mut client), b"from afar");
}

#[test]
fn a_close_may_have_no_code_and_senders_close_too() {
    let (tell, told) = log();
    let served = serve(move || {
        let tell = tell.clone();
        let later = async |socket: Connection, message: OwnedMessage| match message.as_text() {
            Some("sender") => drop(socket.sender().close(4001, "bye").expect("a legal code")),
            Some("sender-none") => drop(socket.sender().close_without_code()),
            _ => socket.close_without_code(),
        };
        App::new().group("/", move |group| {
            group
                .ws(
                    "/closure",
                    ws().on_message(|socket, message| match message.as_text() {
                        Some("sender") => drop(socket.sender().close(4001, "bye").expect("a legal code")),
                        Some("sender-none") => drop(socket.sender().close_without_code()),
                        _ => socket.close_without_code(),
                    }),
                )
                .ws("/async", ws().on_message_async(later))
                .ws(
                    "/task",
                    ws().task(async move |mut socket: Connection| {
                        let message = socket.recv().await.expect("a message");
                        later(socket, message).await;
                    }),
                )
                .after(move |_, closed| tell(&format!("{} {}", closed.code, closed.clean)))
        })
    });
    for form in FORMS {
        for (said, code, seen) in
            [("none", None, "1005 true"), ("sender-none", None, "1005 true"), ("sender", Some(4001), "4001 true")]
        {
            let mut client = served.client(&format!("/{form}"));
            say(&mut client, said);
            assert_eq!(close_code(&mut client), code.or(Some(1005)), "{form} {said}");
            assert_eq!(told.next(), seen, "{form} {said}");
        }
    }
}

/// Kills: counts that forget who has gone, or mix routes up.
#[test]
fn each_route_counts_its_connections_on_all_cores() {
    let served = serve(|| {
        App::new().ws("/a", ws()).ws("/b/{x}", ws()).get("/up", async |request: Request| request.upgrade(&ws()))
    });
    let counts = || block_on(served.hub().counts_by_route()).expect("the cores answer");
    assert!(counts().is_empty());
    let (mut at_a, at_b) = (served.clients_on_both_cores("/a", 3), [served.client("/b/1"), served.client("/b/2")]);
    let up = served.client("/up");
    assert_eq!(json!(counts()), json!({"/a": at_a.len(), "/b/{x}": 2, "/up": 1}));
    assert_eq!(block_on(served.hub().count_on_route("/b/{x}")), Ok(2));
    assert_eq!(block_on(served.hub().count_on_route("/b/1")), Ok(0));
    drop((at_b, up));
    served.await_count(at_a.len() as u32);
    at_a.pop();
    served.await_count(at_a.len() as u32);
    crate::common::eventually(|| json!(counts()) == json!({"/a": at_a.len()}), || format!("{:?}", counts()));
}
