//! The stand-alone program's `/ws`: whatever text a client sends, the socket stays open, and what it hears are events.
//!
//! Input: messages, NUL between them, by turns of two clients on different cores.

use serde_json::Value;

use crate::host::Setup;
use crate::rig::{Rig, Socket};
use crate::wire::{BINARY, Event, TEXT};

pub fn run(data: &[u8]) {
    let mut rig = Rig::new(&Setup { cores: 2, ..Setup::default() });
    let mut clients = [rig.open(0, "/ws"), rig.open(1, "/ws")];
    rig.settle();
    let ids = clients.each_mut().map(|client| {
        let heard = events(client);
        assert_eq!((heard.len(), &heard[0]["event"]), (1, &Value::from("connected")));
        heard[0]["data"]["id"].as_str().expect("an id").to_owned()
    });
    for (n, message) in data.split(|&byte| byte == 0).take(12).enumerate() {
        let from = n % 2;
        match std::str::from_utf8(message) {
            Ok(text) => clients[from].text(text),
            Err(_) => clients[from].frame(BINARY, message),
        }
        rig.settle();
        let heard = clients.each_mut().map(events);
        judge(message, &ids[from], &heard[from]);
    }
    clients.iter_mut().for_each(|client| client.close(1000));
    rig.finish();
}

/// Everything that has arrived: events all.
fn events(client: &mut Socket) -> Vec<Value> {
    let event = |event| match event {
        Event::Message(message) => {
            assert_eq!(message.opcode, TEXT);
            let value: Value = serde_json::from_slice(&message.payload).expect("an event is JSON");
            let keys: Vec<&String> = value.as_object().expect("an object").keys().collect();
            assert_eq!(keys, ["data", "event"], "{value}");
            value
        }
        other => panic!("{other:?} where an event was due"),
    };
    client.events().into_iter().map(event).collect()
}

/// What the sender hears of its own message.
fn judge(message: &[u8], id: &str, heard: &[Value]) {
    let text = std::str::from_utf8(message).ok();
    let said: Option<Value> = text.and_then(|text| serde_json::from_str(text).ok());
    let name = said.as_ref().and_then(|said| said.get("event")?.as_str());
    let names: Vec<&str> = heard.iter().map(|event| event["event"].as_str().expect("a name")).collect();
    match name {
        Some("ping") if names == ["pong"] => {
            assert_eq!(heard[0]["data"], *said.as_ref().and_then(|said| said.get("data")).unwrap_or(&Value::Null));
        }
        Some("message") if names == ["message"] => assert_eq!(heard[0]["data"]["userId"], id),
        Some("join") if names == ["joined"] => assert!(heard[0]["data"]["members"].as_u64() > Some(0)),
        Some("leave") if names == ["left"] => {}
        Some("typing") if names.is_empty() => {}
        // Not JSON, or with a name that is not there or not known, or data that does not fit.
        _ => assert_eq!(names, ["error"], "{:?}", String::from_utf8_lossy(message)),
    }
}
