//! Operators have a listener of their own, which accepts until every core has drained.

use std::time::Duration;

use ringwire::engine::sim::{Client, RingOptions};
use ringwire::shard::service::Serves;
use ringwire::shard::{Entrance, Handover};

use crate::host::Setup;
use crate::rig::{Rig, Socket};

const PUBLIC: u32 = 0;
const ADMIN: u32 = 1;

/// Two cores, each with both listeners, whose drain lasts for as long as somebody stays, and at most a minute.
fn setup(handover: Handover, admin_stays: bool) -> Setup {
    let ring = RingOptions { listeners: 2, ..RingOptions::default() };
    let mut setup = Setup { cores: 2, ring, ..Setup::default() };
    let entrance = |serves| Entrance { serves, ..Entrance::default() };
    let settings = &mut setup.settings;
    settings.listeners = 2;
    settings.entrances = vec![entrance(Serves::Public), entrance(Serves::Admin)];
    settings.handover = handover;
    settings.admin_stays = admin_stays;
    settings.drain_timeout = Duration::from_secs(60);
    settings.drain_spread = Duration::ZERO;
    settings.close_timeout = Duration::from_secs(3600);
    setup
}

/// What an operator is answered who asks whether the server is ready.
fn ready(rig: &mut Rig, client: &Client) -> String {
    client.send(b"GET /readyz HTTP/1.1\r\nHost: a\r\n\r\n");
    rig.settle();
    String::from_utf8(client.received()).expect("text")
}

fn is_finished(rig: &Rig) -> Vec<bool> {
    rig.cores.all.iter().map(|core| core.shard.is_finished()).collect()
}

/// A rig that drains, and a client of its first core that does not go.
fn draining(handover: Handover, admin_stays: bool) -> (Rig, Socket) {
    let mut rig = Rig::new(&setup(handover, admin_stays));
    let socket = rig.open(0, "/echo");
    rig.drain();
    // The drain that has handshakes turned away first does so for half a second.
    rig.pass_ms(1_000);
    (rig, socket)
}

/// Kills: a core that ends, or closes its listener, while another one drains; a drain that answers no operator, keeps him
/// connected or lets clients in; one that outlasts the last client.
#[test]
fn operators_are_answered_until_all_cores_have_drained() {
    for handover in [Handover::Close, Handover::Leave] {
        let (mut rig, mut socket) = draining(handover, true);
        for second in 0..20 {
            for core in [0, 1] {
                let client = rig.world.connect(core, ADMIN);
                let answer = ready(&mut rig, &client);
                assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("draining"), "{second}: {answer}");
                assert!(client.saw_fin(), "{second}");
                assert!(rig.world.connect(core, PUBLIC).saw_reset(), "{second}");
            }
            rig.pass_ms(1_000);
        }
        assert_eq!(is_finished(&rig), [false, false]);
        assert_eq!(socket.close_code(), Some(1001));
        socket.client.close();
        rig.pass_ms(200);
        assert_eq!(is_finished(&rig), [true, true]);
        assert!([0, 1].iter().all(|core| rig.world.connect(*core, ADMIN).saw_reset()));
        rig.finish();
    }
}

/// Kills: an operator who is connected and says nothing holds the end up for long, or whoever comes last is reset.
#[test]
fn the_last_operators_are_answered_and_hold_nothing_up() {
    let (mut rig, socket) = draining(Handover::Close, true);
    let silent = rig.world.connect(1, ADMIN);
    rig.settle();
    socket.client.close();
    let last = [0, 1].map(|core| rig.world.connect(core, ADMIN));
    last.iter().for_each(|client| client.send(b"GET /readyz HTTP/1.1\r\nHost: a\r\n\r\n"));
    rig.pass_ms(200);
    for client in last {
        assert!(client.received().starts_with(b"HTTP/1.1 503 "), "it was in the queue");
    }
    assert_eq!(is_finished(&rig), [true, false]);
    rig.pass_ms(1_500);
    assert!(silent.saw_fin());
    assert_eq!(is_finished(&rig), [true, true]);
    rig.finish();
}

/// One that was connected before, and is between two requests, is kept for as long as others drain.
#[test]
fn an_operator_s_kept_connection_stays_until_then() {
    let mut rig = Rig::new(&setup(Handover::Close, true));
    let socket = rig.open(0, "/echo");
    let kept = [0, 1].map(|core| rig.world.connect(core, ADMIN));
    for client in &kept {
        assert!(ready(&mut rig, client).starts_with("HTTP/1.1 200 "));
    }
    rig.drain();
    rig.pass_ms(10_000);
    assert!(!kept[0].saw_fin() && !kept[1].saw_fin());
    let answer = ready(&mut rig, &kept[1]);
    assert!(answer.starts_with("HTTP/1.1 503 ") && kept[1].saw_fin(), "{answer}");
    socket.client.close();
    rig.pass_ms(200);
    assert!(kept[0].saw_fin());
    assert_eq!(is_finished(&rig), [true, true]);
    rig.finish();
}

/// Kills: a listener that is dead once all slots were taken by those who asked, and an end that waits for it.
#[test]
fn operators_are_answered_again_when_slots_are_free_again() {
    for cores in [1, 2] {
        let mut setup = setup(Handover::Close, true);
        (setup.cores, setup.ring.slots) = (cores, 8);
        let mut rig = Rig::new(&setup);
        let socket = rig.open(0, "/echo");
        rig.drain();
        rig.pass_ms(1_000);
        for round in 0..3 {
            let crowd: Vec<Client> = (0..40).map(|number| rig.world.connect(number % cores, ADMIN)).collect();
            rig.settle();
            crowd.iter().for_each(Client::close);
            rig.pass_ms(2_000);
            for core in 0..cores {
                let client = rig.world.connect(core, ADMIN);
                let answer = ready(&mut rig, &client);
                assert!(answer.starts_with("HTTP/1.1 503 "), "{cores} cores, round {round}: {answer:?}");
            }
        }
        socket.client.close();
        rig.pass_ms(400);
        assert_eq!(is_finished(&rig), vec![true; cores]);
        rig.finish();
    }
}

/// Kills: an end that waits until nobody asks any more.
#[test]
fn operators_who_never_stop_asking_hold_nothing_up() {
    let (mut rig, socket) = draining(Handover::Close, true);
    socket.client.close();
    // One more before each tick, so that there is never one without somebody.
    for _ in 0..2_000 {
        for core in [0, 1] {
            let client = rig.world.connect(core, ADMIN);
            client.send(b"GET /readyz HTTP/1.1\r\nHost: a\r\n\r\n");
            if rig.cores.all[core].is_runnable() {
                rig.cores.all[core].tick();
            }
        }
        rig.world.advance(250_000);
    }
    assert!([0, 1].iter().all(|core| rig.world.connect(*core, ADMIN).saw_reset()));
    rig.pass_ms(50);
    assert_eq!(is_finished(&rig), [true, true]);
    rig.finish();
}

/// The drain's timeout ends it, whoever asks.
#[test]
fn operators_are_answered_no_longer_than_a_drain_may_take() {
    let (mut rig, _socket) = draining(Handover::Close, true);
    rig.pass_ms(58_000);
    let client = rig.world.connect(1, ADMIN);
    assert!(ready(&mut rig, &client).starts_with("HTTP/1.1 503 "));
    rig.pass_ms(1_500);
    assert_eq!(is_finished(&rig), [true, true]);
}

/// Where another process is to have the address, it has it from the beginning of the drain.
#[test]
fn where_the_address_is_shared_operators_are_the_other_process_s() {
    for handover in [Handover::Close, Handover::Share, Handover::Leave] {
        let (mut rig, socket) = draining(handover, false);
        // The core without connections has ended, as it has always done.
        assert_eq!(is_finished(&rig), [false, true], "{handover:?}");
        assert!(rig.world.connect(0, ADMIN).saw_reset(), "{handover:?}");
        socket.client.close();
        rig.pass_ms(200);
        assert_eq!(is_finished(&rig), [true, true], "{handover:?}");
        rig.finish();
    }
}
