//! The history of rooms where JetStream is off, or not to be used: each machine has its own.

use serde_json::{Value, json};

use crate::rig::{Machine, Nats, Socket, eventually};

/// Kills: a position of one machine that means something on another; what came from elsewhere without a number, or with two.
#[test]
fn each_machine_has_a_history_of_what_its_members_have_got() {
    let Some(off) = Nats::start() else { return };
    let Some(on) = Nats::with_jetstream() else { return };
    for (nats, storage) in [(&off, "memory"), (&on, "off")] {
        each_has_its_own(nats, storage);
    }
}

fn each_has_its_own(nats: &Nats, storage: &str) {
    let start = |name: &str| {
        let machine = Machine::with(&nats.url(), name, &["--history=100", &format!("--nats-history={storage}")]);
        assert_eq!(machine.metric("ringwire_nats_history_shared"), 0.0);
        machine
    };
    let all = [start("one"), start("two")];
    all.iter().for_each(|machine| machine.await_nodes(1));
    let mut sockets = all.each_ref().map(Machine::events);
    let join = |socket: &mut Socket, since: &Value| {
        socket.say("join", &json!({ "room": "den", "since": since }));
        socket.until("joined")
    };
    let mut positions = Vec::new();
    for socket in &mut sockets {
        let joined = join(socket, &Value::Null);
        positions.push(json!({ "epoch": joined["epoch"], "offset": joined["offset"] }));
    }
    assert_ne!(positions[0]["epoch"], positions[1]["epoch"]);
    all.iter().for_each(|machine| eventually(|| machine.members("den") == 2, || "both are in".into()));
    sockets.iter_mut().for_each(|socket| drop(socket.take()));
    for number in 0..20 {
        let by = number % 2;
        sockets[by].say("message", &json!({ "room": "den", "message": number }));
        for socket in &mut sockets {
            assert_eq!(socket.until("message")["message"], number);
        }
    }
    for (here, machine) in all.iter().enumerate() {
        for (of, position) in positions.iter().enumerate() {
            let mut late = machine.events();
            let joined = join(&mut late, position);
            assert_eq!(joined["recovered"], here == of, "{joined}");
            let history = joined["history"].as_array().expect("a history");
            let said: Vec<u64> = history.iter().filter_map(|event| event["data"]["message"].as_u64()).collect();
            let offsets: Vec<u64> = history.iter().filter_map(|event| event["offset"].as_u64()).collect();
            assert_eq!(said, (0..20).collect::<Vec<u64>>());
            assert_eq!(offsets, (1..=20).collect::<Vec<u64>>());
            late.say("leave", &json!({ "room": "den" }));
            late.until("left");
        }
    }
    // Nobody of a machine listens any more: what others say meanwhile it has not got.
    sockets[0].say("leave", &json!({ "room": "den" }));
    sockets[0].until("left");
    eventually(|| all[1].members("den") == 1, || "one is left".into());
    sockets[1].say("message", &json!({ "room": "den", "message": 20 }));
    sockets[1].until("message");
    let joined = join(&mut sockets[0], &json!({ "epoch": positions[0]["epoch"], "offset": 20 }));
    assert_eq!(joined["recovered"], false, "{joined}");
}
