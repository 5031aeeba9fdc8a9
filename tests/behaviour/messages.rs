//! Messages: text, binary and JSON, and the handlers that get them.

use ringwire::{App, BoxError, Connection, Events, OwnedMessage, Ws, ws};
use serde_json::json;
use tungstenite::Message;

use crate::examples::{arcade, dart, revali};
use crate::rig::{close_code, close_frame, json, log, raw, say, serve, text};

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
fn a12_text_and_binary_are_told_apart() {
    let served = arcade();
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
fn d03_binary_and_json() {
    let served = dart();
    let mut client = served.client("/");
    client.send(Message::binary(vec![1, 2, 3, 4, 5])).expect("sent");
    assert_eq!(client.read().expect("a message"), Message::binary(vec![1, 2, 3, 4, 5]));
    say(&mut client, r#"{"type":"greeting","content":"Hello Server"}"#);
    assert_eq!(json(&mut client), json!({"type": "response", "content": "Hello Client"}));
    say(&mut client, r#"{"type":"other"}"#);
    assert_eq!(text(&mut client), r#"Echo: {"type":"other"}"#);
}

#[test]
fn r03_bodies_text_json_map_nullable_and_undecodable() {
    let served = revali();
    let mut client = served.client("/chat/typed");
    say(&mut client, r#"{"user":"ann","text":"hi"}"#);
    assert_eq!(text(&mut client), "ann: hi");
    let mut client = served.client("/upload/progress");
    say(&mut client, r#"{"progress":50,"filename":"a.txt"}"#);
    assert_eq!(text(&mut client), "Upload progress: 50%");
    say(&mut client, r#"{"progress":100,"filename":"a.txt"}"#);
    assert_eq!(text(&mut client), "Upload complete: a.txt");

    for bad in ["", "hello", r#"{"user":"ann"}"#, "[]", "null"] {
        let mut client = served.client("/chat/typed");
        say(&mut client, bad);
        assert_eq!(close_frame(&mut client).0, 1007, "{bad:?}");
    }
    let nullable = serve(|| App::new().ws("/", ws().on_json(|_, number: Option<u8>| format!("{number:?}"))));
    let mut client = nullable.client("/");
    for (sent, got) in [("7", "Some(7)"), ("null", "None"), ("", "None")] {
        say(&mut client, sent);
        assert_eq!(text(&mut client), got);
    }
    say(&mut client, "256");
    assert_eq!(close_code(&mut client), Some(1007));
}

/// Kills: a message that cannot be decoded, told as a handler's own failure because the handler waits.
#[test]
fn what_cannot_be_decoded_closes_with_1007_whoever_decodes_it() {
    let (tell, told) = log();
    let served = serve(move || {
        let route = |route: Ws| {
            let tell = tell.clone();
            route.on_error(move |_, error| tell(&error.to_string()))
        };
        App::new()
            .ws("/json", route(ws().on_json(|_, _: u32| ())))
            .ws("/now", route(ws().on_message(|_, message| message.json::<u32>().map(drop))))
            .ws(
                "/later",
                route(
                    ws().on_message_async(async |_: Connection, message: OwnedMessage| message.json::<u32>().map(drop)),
                ),
            )
            .ws(
                "/task",
                route(ws().task(async |mut connection: Connection| {
                    let message = connection.recv().await.ok_or("no message")?;
                    Ok::<_, BoxError>(message.json::<u32>().map(drop)?)
                })),
            )
            .ws("/event", route(Events::new().on("n", |_, _: u32| ()).into()))
    });
    let long = "\u{7f}".repeat(1 << 20);
    for path in ["/json", "/now", "/later", "/task", "/event"] {
        for wrong in [r#""seven""#.to_owned(), format!("\"{long}\"")] {
            let mut client = served.client(path);
            say(&mut client, if path == "/event" { format!(r#"{{"event":"n","data":{wrong}}}"#) } else { wrong });
            assert_eq!(close_frame(&mut client), (1007, "the message cannot be decoded".to_owned()), "{path}");
            let error = told.next();
            assert!(error.starts_with("the message cannot be decoded: invalid type: string"), "{error}");
            // However long the message is that it quotes.
            assert!(error.len() < 500 && error.contains("expected u32"), "{error}");
        }
    }
}
