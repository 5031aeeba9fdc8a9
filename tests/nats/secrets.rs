//! What an outsider says of a message in its headers holds on every machine, and so does the mark of what the API sends.

use serde_json::{Value, json};

use crate::common::raw::{self, BINARY, FIN, RSV1, Raw, TEXT};
use crate::rig::{Machine, Nats, Outsider, eventually};

/// An event socket that has agreed on compression and is in a room, and its id.
fn open(machine: &Machine) -> (Raw, String) {
    let mut socket = Raw::connect(machine.address());
    socket.upgrade_compressed("/ws");
    let connected: Value = serde_json::from_slice(&socket.frame().payload).expect("JSON");
    socket.send(&raw::text(&json!({ "event": "join", "data": { "room": "den" } }).to_string()));
    (socket, connected["data"]["id"].as_str().expect("an id").to_owned())
}

/// Kills: a header that nobody reads, or that gets lost in the line of all machines; a mark that stays on one machine.
#[test]
fn what_is_marked_goes_out_as_it_is_on_every_machine() {
    for has_history in [false, true] {
        let Some(nats) = (if has_history { Nats::with_jetstream() } else { Nats::start() }) else { return };
        let history = if has_history { "--history=10" } else { "--history=off" };
        let all = ["m0", "m1"].map(|name| Machine::with(&nats.url(), name, &["--deflate=stateless", history]));
        for machine in &all {
            machine.await_nodes(1);
            let is_shared = || !has_history || machine.metric("ringwire_nats_history_shared") == 1.0;
            eventually(is_shared, || format!("{} to have the history of all", machine.name));
        }
        let mut sockets = all.each_ref().map(open);
        let ids = sockets.each_ref().map(|(_, id)| id.clone());
        all.iter().for_each(|machine| eventually(|| machine.members("den") == 2, || "both are in".into()));
        let text = json!({ "event": "secret", "data": "the word is 4711, ".repeat(40) }).to_string();
        // The next one of more than a few words.
        let next = |socket: &mut Raw| loop {
            let frame = socket.frame();
            if frame.payload.len() > 200 || frame.first & RSV1 != 0 {
                return frame.first;
            }
        };
        let mut outsider = Outsider::connect(&nats);
        for subject in ["ringwire.in.room.ws/den", "ringwire.in.all"] {
            for (header, first) in [
                (None, FIN | RSV1 | TEXT),
                (Some("Ringwire-Uncompressed: true"), FIN | TEXT),
                (Some("Ringwire-Uncompressed: false"), FIN | RSV1 | TEXT),
                (Some("Content-Type: application/octet-stream"), FIN | RSV1 | BINARY),
                (Some("Content-Type: application/octet-stream\r\nRingwire-Uncompressed: true"), FIN | BINARY),
            ] {
                outsider.publish_with(header, subject, &text);
                for (socket, _) in &mut sockets {
                    assert_eq!(next(socket), first, "{subject} {header:?}, history: {has_history}");
                }
            }
        }
        for ((socket, _), id) in sockets.iter_mut().zip(&ids) {
            for (header, first) in [(None, FIN | RSV1 | TEXT), (Some("Ringwire-Uncompressed: true"), FIN | TEXT)] {
                outsider.publish_with(header, &format!("ringwire.in.id.{id}"), &text);
                assert_eq!(next(socket), first, "{header:?} to one");
                let query = if header.is_some() { "?uncompressed=true" } else { "" };
                assert_eq!(all[0].ask("POST", &format!("/api/message/{id}{query}"), &text).0, 200);
                assert_eq!(next(socket), first, "{query} to one, by HTTP");
            }
        }
        for (query, first) in [("", FIN | RSV1 | TEXT), ("?uncompressed=true", FIN | TEXT)] {
            for path in ["/api/broadcast", "/api/rooms/den"] {
                assert_eq!(all[1].ask("POST", &format!("{path}{query}"), &text).0, 200);
                for (socket, _) in &mut sockets {
                    assert_eq!(next(socket), first, "{path}{query}, history: {has_history}");
                }
            }
        }
    }
}
