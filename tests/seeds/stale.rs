//! Ids that have outlived their connection.

use std::collections::HashMap;

use data_encoding::BASE64URL_NOPAD;
use ringwire::config::{Config, CoreSet};
use ringwire::{App, ConnectionId, ws};

use super::rig::{raw, serve_with};
use crate::common::config;

/// How often one slot is given to another connection.
const REUSES: u32 = 1 << 12;

fn slot(id: ConnectionId) -> u32 {
    let bytes = BASE64URL_NOPAD.decode(id.to_string().as_bytes()).expect("an id's text");
    u32::from_be_bytes(bytes[2..6].try_into().expect("four bytes"))
}

#[test]
fn a05_a_stale_id_never_reaches_who_got_its_slot() {
    let config = Config { cores: CoreSet::Count(1), connections_max: 500, ..config() };
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
    for id in &stale {
        let told = served.hub().emit_to(*id, "private", "not for you").expect("text").wait();
        assert_eq!((told.queued, told.gone), (0, 1), "{id:?}");
        assert_eq!(served.hub().data(*id).wait(), Some(None));
    }
    for (client, id) in &mut newcomers {
        assert_eq!(served.hub().send_to(*id, "for you").expect("text").wait().queued, 1);
        assert_eq!(client.frame().payload, b"for you", "and nothing before it");
        client.send(&raw::close(1000, b""));
    }
}
