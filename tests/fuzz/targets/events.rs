//! The stand-alone program's `/ws`: whatever text a client sends, the socket stays open, and what it hears are events.
//!
//! Input: messages, NUL between them, by turns of two clients on different cores.

use std::collections::BTreeMap;

use serde_json::Value;
use serde_json::value::RawValue;

use crate::host::Setup;
use crate::rig::{Rig, Socket};
use crate::wire::{BINARY, Event, TEXT};

/// An event's name, and its data as it was written: escapes that stand for no character are no error of JSON's grammar,
/// and depth has no limit there.
type Heard = (String, String);

pub fn run(data: &[u8]) {
    let mut rig = Rig::new(&Setup { cores: 2, ..Setup::default() });
    let mut clients = [rig.open(0, "/ws"), rig.open(1, "/ws")];
    rig.settle();
    let ids = clients.each_mut().map(|client| {
        let heard = events(client);
        assert_eq!((heard.len(), heard[0].0.as_str()), (1, "connected"));
        field(&heard[0], "id").as_str().expect("an id").to_owned()
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

fn parts(text: &[u8]) -> Option<BTreeMap<String, Box<RawValue>>> {
    serde_json::from_slice(text).ok()
}

/// Everything that has arrived: events all.
fn events(client: &mut Socket) -> Vec<Heard> {
    let event = |event| match event {
        Event::Message(message) => {
            assert_eq!(message.opcode, TEXT);
            let parts = parts(&message.payload).expect("an event is an object");
            assert!(parts.len() == 2, "{parts:?}");
            (serde_json::from_str(parts["event"].get()).expect("a name"), parts["data"].get().to_owned())
        }
        other => panic!("{other:?} where an event was due"),
    };
    client.events().into_iter().map(event).collect()
}

fn field(heard: &Heard, name: &str) -> Value {
    let data = parts(heard.1.as_bytes()).expect("data with fields");
    serde_json::from_str(data[name].get()).expect("a value")
}

/// What the sender hears of its own message.
fn judge(message: &[u8], id: &str, heard: &[Heard]) {
    let said = parts(message).unwrap_or_default();
    let name: Option<String> = said.get("event").and_then(|name| serde_json::from_str(name.get()).ok());
    let names: Vec<&str> = heard.iter().map(|event| event.0.as_str()).collect();
    match name.as_deref() {
        Some("ping") if names == ["pong"] => {
            assert_eq!(heard[0].1, said.get("data").map_or("null", |data| data.get()));
        }
        Some("message") if names == ["message"] => assert_eq!(field(&heard[0], "userId"), id),
        Some("join") if names == ["joined"] => assert!(field(&heard[0], "members").as_u64() > Some(0)),
        Some("leave") if names == ["left"] => {}
        Some("typing") if names.is_empty() => {}
        // Not JSON, or with a name that is not there or not known, or data that does not fit.
        _ => assert_eq!(names, ["error"], "{:?}", String::from_utf8_lossy(message)),
    }
}
