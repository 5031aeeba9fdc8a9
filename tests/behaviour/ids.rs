//! Ids: addresses of connections, and what is kept with one.

use std::collections::HashMap;

use data_encoding::BASE64URL_NOPAD;
use ringwire::config::CoreSet;
use ringwire::{App, ConnectionId, ws};
use serde_json::{Value, json};

use crate::common::config;
use crate::examples::{arcade, welcomed};
use crate::rig::{block_on, event_named, log, raw, say, serve, serve_with, text};

#[test]
fn a01_get_upgrades_and_the_id_is_an_address() {
    let served = arcade();
    let mut clients = served.clients_on_both_cores("/ws", 2);
    let ids: Vec<ConnectionId> = clients.iter_mut().map(welcomed).collect();
    for (index, (client, id)) in clients.iter_mut().zip(&ids).enumerate() {
        assert!(ids[..index].iter().all(|other| other != id));
        assert_eq!(served.hub().send_to(*id, format!("for {index}")).expect("text").wait().queued, 1);
        assert_eq!(text(client), format!("for {index}"));
        say(client, "hello");
        assert_eq!(text(client), "Echo: hello");
    }
    let cores: Vec<usize> = ids.iter().map(|id| id.core()).collect();
    assert!(cores.contains(&0) && cores.contains(&1), "{cores:?}");
}

/// How often one slot is given to another connection.
const REUSES: u32 = 1 << 9;

fn slot(id: ConnectionId) -> u32 {
    let bytes = BASE64URL_NOPAD.decode(id.to_string().as_bytes()).expect("an id's text");
    u32::from_be_bytes([0, bytes[2], bytes[3], bytes[4]])
}

#[test]
fn a05_emit_to_unknown_id_is_404() {
    let served = arcade();
    let mut clients = served.clients_on_both_cores("/ws", 2);
    for client in &mut clients {
        let id = welcomed(client);
        let path = format!("/api/message/{id}");
        assert_eq!(served.http_json("POST", &path, r#"{"a":1}"#), (200, json!({"sent": true})));
        assert_eq!(event_named(client, "private-message"), json!({"a": 1}));
        assert_eq!(served.http("POST", &path, "{").0, 400);
    }
    let gone = {
        let mut client = served.client("/ws");
        welcomed(&mut client)
    };
    served.await_count(clients.len() as u32);
    // One that has gone, one that never was, one that is none.
    for id in [gone.to_string(), "AAEAAAAqAAAAB3ZjO0ExAA".to_owned(), "somebody".to_owned()] {
        let answer = served.http_json("POST", &format!("/api/message/{id}"), "{}");
        assert_eq!(answer, (404, json!({"error": "User not connected"})), "{id}");
    }
}

#[test]
fn a05_a_stale_id_never_reaches_who_got_its_slot() {
    let config = config().cores(CoreSet::Count(1)).max_connections(500);
    let served = serve_with(config, || App::new().ws("/", ws().on_connect(|socket| socket.id().to_string())));
    let open = || {
        let mut client = served.raw();
        client.upgrade("/");
        let id: ConnectionId = String::from_utf8(client.frame().payload).expect("text").parse().expect("an id");
        (client, id)
    };
    let mut stale: Vec<ConnectionId> = Vec::new();
    let mut uses: HashMap<u32, u32> = HashMap::new();
    while uses.values().all(|uses| *uses <= REUSES) {
        let (client, id) = open();
        *uses.entry(slot(id)).or_default() += 1;
        stale.push(id);
        client.reset();
    }
    served.await_count(0);
    let reused = *uses.iter().max_by_key(|(_, uses)| **uses).expect("a slot").0;
    // Newcomers take free slots until one of them has it.
    let mut newcomers = vec![open()];
    while newcomers.iter().all(|(_, id)| slot(*id) != reused) {
        newcomers.push(open());
    }
    for (_, id) in &newcomers {
        assert!(!stale.contains(id));
    }
    // Fewer at a time than a core's mailbox holds.
    for ids in stale.chunks(1000) {
        let emit = |id: &ConnectionId| served.hub().emit_to(*id, "private", "not for you").expect("text");
        let asked: Vec<_> = ids.iter().map(emit).collect();
        for (id, delivering) in ids.iter().zip(asked) {
            let told = delivering.wait();
            assert_eq!((told.queued, told.dropped, told.gone), (0, 0, 1), "{id:?}");
        }
        assert_eq!(served.hub().data(ids[0]).wait(), Some(None));
    }
    for (client, id) in &mut newcomers {
        assert_eq!(served.hub().send_to(*id, "for you").expect("text").wait().queued, 1);
        assert_eq!(client.frame().payload, b"for you", "and nothing before it");
        client.send(&raw::close(1000, b""));
    }
}

#[test]
fn a06_ids_and_data_across_cores_and_in_the_after_hook() {
    let (tell, told) = log();
    let served = serve(move || {
        let tell = tell.clone();
        let route = ws().on_connect(|socket| {
            socket.extensions().insert(7_u8);
            socket.set_data(json!({"step": 1}));
            socket.id().to_string()
        });
        App::new().group("/", move |group| {
            group.ws("/", route).after(move |socket, _| {
                let typed = socket.extensions().get::<u8>().copied();
                tell(&format!("{} {typed:?}", socket.data()));
            })
        })
    });
    let mut clients = served.clients_on_both_cores("/", 4);
    let hub = served.hub();
    let mut ids: Vec<ConnectionId> = clients.iter_mut().map(|client| text(client).parse().expect("an id")).collect();
    let mut known = block_on(hub.ids()).expect("the cores answer");
    known.sort_unstable();
    ids.sort_unstable();
    assert_eq!(known, ids);
    for id in &ids {
        assert_eq!(hub.data(*id).wait(), Some(Some(json!({"step": 1}))));
        assert_eq!(hub.set_data(*id, json!({"step": 2})).wait(), Some(true));
    }
    let connections = block_on(hub.connections()).expect("the cores answer");
    assert!(connections.iter().all(|connection| connection.data == json!({"step": 2})));
    let count = clients.len();
    drop(clients);
    assert_eq!(told.take(count), vec![r#"{"step":2} Some(7)"#; count]);
    served.await_count(0);
    assert_eq!(hub.data(ids[0]).wait(), Some(None));
    assert_eq!(hub.set_data(ids[0], Value::Null).wait(), Some(false));
}

/// Kills: ids whose tag nobody looks at, so that they can be made up.
#[test]
fn an_id_with_another_tag_is_nobodys() {
    let config = config().cores(CoreSet::Count(1));
    let served = serve_with(config, || App::new().ws("/", ws().on_connect(|socket| socket.id().to_string())));
    let mut client = served.raw();
    client.upgrade("/");
    let id = String::from_utf8(client.frame().payload).expect("text");
    let genuine = BASE64URL_NOPAD.decode(id.as_bytes()).expect("an id's text");
    let hub = served.hub();
    // Core, slot and generation are as they are.
    for place in 10..16 {
        let mut bytes = genuine.clone();
        bytes[place] ^= 1;
        let forged: ConnectionId = BASE64URL_NOPAD.encode(&bytes).parse().expect("an id's text");
        let told = hub.send_to(forged, "not for you").expect("text").wait();
        assert_eq!((told.queued, told.gone), (0, 1), "{place}");
        assert_eq!(hub.data(forged).wait(), Some(None));
        assert_eq!(hub.set_data(forged, Value::Null).wait(), Some(false));
        assert_eq!(hub.disconnect(forged, 1000, "").expect("a legal code").wait(), Some(false));
        assert!(matches!(hub.connection(forged).wait(), Some(None)));
    }
    assert_eq!(hub.send_to(id.parse().expect("an id"), "for you").expect("text").wait().queued, 1);
    assert_eq!(client.frame().payload, b"for you");
}
