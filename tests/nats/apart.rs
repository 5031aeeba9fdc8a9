//! NATS that is away, and machines that are cut off.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::json;

use crate::rig::{Machine, Nats, PATIENCE, Proxy, Socket, eventually};

/// Kills: local delivery that waits for NATS; a readiness that does not tell; subscriptions or counts that need a restart.
#[test]
fn without_nats_a_machine_is_alone_and_afterwards_it_is_not() {
    let Some(mut nats) = Nats::start() else { return };
    let required = Machine::with(&nats.url(), "m0", &["--nats-required=true"]);
    let other = Machine::start(&nats.url(), "m1");
    let all = [&required, &other];
    all.iter().for_each(|machine| machine.await_nodes(1));
    let mut sockets: Vec<Socket> = [&required, &required, &other].iter().map(|machine| machine.events()).collect();
    for socket in &mut sockets {
        socket.join("lobby");
    }
    all.iter().for_each(|machine| eventually(|| machine.members("lobby") == 3, || "all are in".into()));
    sockets.iter_mut().for_each(|socket| drop(socket.take()));
    let alone = |nats: &mut Nats, how: &str, away: &mut dyn FnMut(&mut Nats), back: &mut dyn FnMut(&mut Nats)| {
        let mut sockets: Vec<&mut Socket> = sockets.iter_mut().collect();
        assert_eq!(required.ask("GET", "/readyz", "").0, 200, "{how}");
        away(nats);
        // At once, and as long as it lasts.
        let began = Instant::now();
        let mut number = 0;
        while required.ask("GET", "/readyz", "").0 == 200 || required.members("lobby") != 2 {
            assert!(began.elapsed() < PATIENCE, "{how}: it is not noticed");
            sockets[0].say("message", &json!({ "room": "lobby", "message": number }));
            let (first, second) = (sockets[0].until("message"), sockets[1].until("message"));
            assert_eq!((&first["message"], &second["message"]), (&json!(number), &json!(number)), "{how}");
            number += 1;
        }
        assert_eq!(required.ask("GET", "/readyz", ""), (503, json!({ "status": "NATS is away" })));
        assert_eq!(other.ask("GET", "/readyz", "").0, 200, "who does not require it is ready");
        back(nats);
        eventually(|| required.ask("GET", "/readyz", "").0 == 200, || format!("{how}: it is ready again"));
        all.iter().for_each(|machine| eventually(|| machine.members("lobby") == 3, || format!("{how}: all are in")));
        sockets[0].say("message", &json!({ "room": "lobby", "message": how }));
        for socket in &mut sockets {
            while socket.until("message")["message"] != how {}
        }
    };
    let mut alone = alone;
    alone(&mut nats, "restarted", &mut |nats| nats.signal(Signal::SIGKILL), &mut |nats| nats.restart(Duration::ZERO));
    alone(&mut nats, "stopped", &mut |nats| nats.signal(Signal::SIGSTOP), &mut |nats| nats.signal(Signal::SIGCONT));
    assert!(required.metric("ringwire_nats_reconnects_total") >= 1.0);
}

/// Kills: a machine that is cut off and still counted, or still counts the others.
#[test]
fn a_machine_that_is_cut_off_is_lost_to_the_others_and_they_to_it() {
    let Some(nats) = Nats::start() else { return };
    let proxy = Proxy::before(nats.port);
    let all = [
        Machine::start(&nats.url(), "m0"),
        Machine::start(&format!("nats://127.0.0.1:{}", proxy.port), "m1"),
        Machine::start(&nats.url(), "m2"),
    ];
    all.iter().for_each(|machine| machine.await_nodes(2));
    let mut sockets: Vec<Socket> = all.iter().map(Machine::events).collect();
    for socket in &mut sockets {
        socket.join("lobby");
    }
    all.iter().for_each(|machine| eventually(|| machine.members("lobby") == 3, || "all are in".into()));
    proxy.is_stopped.store(true, Ordering::SeqCst);
    for (machine, members) in all.iter().zip([2, 1, 2]) {
        eventually(|| machine.members("lobby") == members, || format!("{} at {}", members, machine.name));
    }
    proxy.is_stopped.store(false, Ordering::SeqCst);
    all.iter().for_each(|machine| eventually(|| machine.members("lobby") == 3, || "all are in again".into()));
    sockets[1].say("message", &json!({ "room": "lobby", "message": "back" }));
    for socket in &mut sockets {
        assert_eq!(socket.until("message")["message"], "back");
    }
}
