//! The handshake: subprotocols, and the request that is there afterwards.

use ringwire::{App, BoxError, ws};
use serde_json::{Value, json};

use crate::examples::{arcade, spry};
use crate::rig::{json, say, serve};

#[test]
fn a13_subprotocols() {
    let served = arcade();
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

#[test]
fn s05_the_request_is_there_after_the_upgrade() {
    let served = spry();
    let (mut client, _) = served.connect("/who?name=a%20b+c&x=1", &[("User-Agent", "seed")]).expect("an upgrade");
    let who: Value = json(&mut client);
    assert_eq!(who["method"], "GET");
    assert_eq!(who["path"], "/who");
    assert_eq!(who["name"], "a b c");
    assert_eq!(who["agent"], "seed");
    assert_eq!(who["peer"], "127.0.0.1");
    assert_eq!(who["body"], 0);
}
