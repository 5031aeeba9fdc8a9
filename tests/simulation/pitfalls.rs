//! What io_uring does to those who trust it too far: one test for each way, on the real shard.

use ringwire::engine::sim::{Client, Fault, Faults, RingOptions};

use crate::host::Setup;
use crate::rig::{Rig, Socket};
use crate::wire::{Event, PING};

fn only(fault: Fault, chance: f64) -> Faults {
    Faults::none().with(fault, chance)
}

/// Four clients echo messages of all sizes under `fault`; everything comes back, once and in order.
fn echo_under(fault: Fault, chance: f64, ring: RingOptions) -> Rig {
    for seed in 1..10 {
        let rig = echo_once(seed, only(fault, chance), ring.clone());
        assert!(rig.world.fault_counts().of(fault) > 0, "it never happened with seed {seed}");
        rig.finish();
    }
    echo_once(0, only(fault, chance), ring)
}

fn echo_once(seed: u64, faults: Faults, ring: RingOptions) -> Rig {
    let mut rig = Rig::faulty(&Setup { ring, ..Setup::default() }, seed, faults);
    let mut sockets: Vec<Socket> = (0..4).map(|_| rig.open(0, "/echo")).collect();
    let texts: Vec<String> = [1, 700, 3, 9_000, 2].iter().map(|&len| "x".repeat(len)).collect();
    for text in &texts {
        sockets.iter_mut().for_each(|socket| socket.text(text));
        rig.settle();
    }
    let mut got = vec![Vec::new(); sockets.len()];
    for _ in 0..1000 {
        rig.pass_ms(10);
        for (socket, got) in sockets.iter_mut().zip(&mut got) {
            got.extend(socket.texts());
        }
        if got.iter().all(|got| got.len() == texts.len()) {
            break;
        }
    }
    assert!(got.iter().all(|got| *got == texts), "{:?}", got.iter().map(Vec::len).collect::<Vec<_>>());
    sockets.iter_mut().for_each(|socket| socket.close(1000));
    rig.pass_ms(10);
    assert!(sockets.iter_mut().all(|socket| socket.close_code() == Some(1000) && socket.client.saw_fin()));
    rig
}

#[test]
fn short_sends_go_on_where_they_stopped() {
    echo_under(Fault::ShortSend, 1.0, RingOptions::default()).finish();
}

#[test]
fn a_full_socket_that_took_nothing_gets_everything() {
    echo_under(Fault::SpuriousEagain, 1.0, RingOptions::default()).finish();
}

#[test]
fn a_socket_that_finds_no_buffer_is_armed_again() {
    let mut rig = echo_under(Fault::NoBuffersOne, 0.5, RingOptions::default());
    assert!(rig.counters(0).buffers_missing > 0);
    rig.finish();
}

#[test]
fn all_sockets_starve_together_and_recover() {
    let ring = RingOptions { buffers: 2, buffer_bytes: 64, ..RingOptions::default() };
    let mut rig = echo_under(Fault::NoBuffersAll, 0.5, ring);
    assert!(rig.counters(0).buffers_missing > 0);
    rig.finish();
}

#[test]
fn data_without_more_is_used_and_the_receive_armed_again() {
    echo_under(Fault::LostMore, 1.0, RingOptions::default()).finish();
}

#[test]
fn interrupted_and_cancelled_receives_are_armed_again() {
    echo_under(Fault::RecvInterrupted, 0.5, RingOptions::default()).finish();
    echo_under(Fault::RecvCancelled, 0.5, RingOptions::default()).finish();
}

#[test]
fn an_overflowing_completion_queue_loses_nothing() {
    let ring = RingOptions { cq_entries: 2, ..RingOptions::default() };
    echo_under(Fault::CqOverflow, 0.5, ring).finish();
}

#[test]
fn single_bytes_make_messages() {
    echo_under(Fault::SingleByte, 1.0, RingOptions::default()).finish();
}

/// The short count of a send stands behind more completions than a tick handles at leisure.
#[test]
fn a_short_send_is_seen_behind_any_number_of_completions() {
    let ring = RingOptions {
        slots: 128,
        buffers: 4096,
        buffer_bytes: 16,
        cq_entries: 16_384,
        sq_entries: 4096,
        ..RingOptions::default()
    };
    let mut rig = Rig::new(&Setup { ring, ..Setup::default() });
    let mut slow = rig.open(0, "/echo");
    let mut flood: Vec<Socket> = (0..64).map(|_| rig.open(0, "/echo")).collect();
    slow.client.set_window(100);
    slow.text(&"y".repeat(3_000));
    // One byte at a time: thousands of completions before the turn that sends.
    rig.world.set_faults(only(Fault::SingleByte, 1.0).with(Fault::EarlySubmit, 1.0).with(Fault::CqOverflow, 1.0));
    for _ in 0..200 {
        flood.iter_mut().for_each(|socket| socket.frame(PING, b"0123456789012345678901234567890123456789"));
        rig.cores.all[0].tick();
    }
    rig.world.set_faults(Faults::none());
    slow.client.set_window(64 << 10);
    rig.pass_ms(10);
    assert_eq!(slow.texts(), ["y".repeat(3_000)]);
    for socket in &mut flood {
        assert_eq!(socket.events().len(), 200);
    }
    rig.finish();
}

#[test]
fn half_closed_with_data_queued_everything_is_delivered() {
    for faults in [Faults::none(), only(Fault::EofAfterRearm, 1.0)] {
        let mut rig = Rig::faulty(&Setup::default(), 1, faults);
        let mut socket = rig.open(0, "/echo");
        assert_eq!(socket.events(), []);
        socket.client.set_window(100);
        socket.text(&"a".repeat(5_000));
        socket.text(&"b".repeat(5_000));
        socket.client.shutdown_write();
        let mut texts = Vec::new();
        for _ in 0..200 {
            rig.pass_ms(1);
            texts.extend(socket.texts());
        }
        assert_eq!(texts, ["a".repeat(5_000), "b".repeat(5_000)]);
        assert!(socket.client.saw_fin());
        assert_eq!(rig.ended(0)[0].code, 1006);
        rig.finish();
    }
}

/// The end of file arrives while input is held back: what came before it is still answered.
#[test]
fn half_closed_while_paused_the_held_back_input_is_handled() {
    let mut setup = Setup::default();
    setup.settings.pause_bytes = 1_000;
    let mut rig = Rig::new(&setup);
    let mut socket = rig.open(0, "/echo");
    assert_eq!(socket.events(), []);
    socket.client.set_window(100);
    let texts: Vec<String> = (0..20).map(|n| format!("{n}:").repeat(200)).collect();
    texts.iter().for_each(|text| socket.text(text));
    socket.client.shutdown_write();
    let mut got = Vec::new();
    for _ in 0..2_000 {
        rig.pass_ms(1);
        got.extend(socket.texts());
    }
    assert_eq!(got, texts);
    assert!(socket.client.saw_fin());
    rig.finish();
}

#[test]
fn end_of_file_before_a_websocket_is_open_just_ends() {
    let mut rig = Rig::new(&Setup::default());
    for begun in ["", "GET /echo HT", "GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n"] {
        let client = rig.connect(0);
        client.send(begun.as_bytes());
        client.shutdown_write();
        rig.settle();
        let answer = String::from_utf8(client.received()).unwrap();
        assert_eq!(answer.starts_with("HTTP/1.1 200 "), begun.len() > 20, "{answer}");
        assert!(client.saw_fin(), "{begun:?}");
    }
    assert_eq!(rig.connections(), 0);
    rig.finish();
}

/// A connection in some phase of its life, ready to be reset.
type Phase = (&'static str, fn(&mut Rig) -> Client);

const PHASES: [Phase; 8] = [
    ("accepting", |rig| rig.connect(0)),
    ("http", |rig| {
        let client = rig.connect(0);
        client.send(b"GET /ec");
        rig.settle();
        client
    }),
    ("open", |rig| rig.open(0, "/echo").client),
    ("open and parked", |rig| {
        let mut socket = rig.open(0, "/echo");
        socket.client.set_window(10);
        socket.text(&"x".repeat(5_000));
        rig.settle();
        socket.client
    }),
    ("paused", |rig| {
        let mut socket = rig.open(0, "/echo");
        socket.client.set_window(10);
        (0..2_000).for_each(|_| socket.text(&"x".repeat(1_000)));
        rig.settle();
        socket.client
    }),
    ("closing", |rig| {
        let (mut socket, _) = rig.open_direct(0);
        socket.text("close");
        rig.settle();
        assert_eq!(socket.close_code(), Some(1000));
        socket.client
    }),
    ("flushing", |rig| {
        let mut socket = rig.open(0, "/echo");
        socket.client.set_window(10);
        socket.text(&"x".repeat(5_000));
        socket.close(1000);
        rig.settle();
        socket.client
    }),
    ("dead", |rig| {
        let mut socket = rig.open(0, "/echo");
        rig.world.set_faults(only(Fault::LateAfterCancel, 1.0));
        socket.close(1000);
        rig.settle();
        socket.client
    }),
];

#[test]
fn resets_in_every_phase_leave_nothing_behind() {
    for (phase, reach) in PHASES {
        for faults in [Faults::none(), only(Fault::LateAfterCancel, 1.0)] {
            let mut rig = Rig::new(&Setup::default());
            let client = reach(&mut rig);
            rig.world.set_faults(faults);
            client.reset();
            rig.pass_ms(100);
            assert_eq!(rig.connections(), 0, "{phase}");
            let counters = rig.counters(0);
            assert_eq!((counters.opened, counters.closed), (rig.ended(0).len() as u64, counters.opened), "{phase}");
            rig.finish();
        }
    }
}

#[test]
fn data_after_the_close_is_recycled() {
    for seed in 0..20 {
        let faults = only(Fault::LateAfterCancel, 1.0);
        let ring = RingOptions { buffers: 4, ..RingOptions::default() };
        let mut rig = Rig::faulty(&Setup { ring, ..Setup::default() }, seed, faults);
        let mut sockets: Vec<Socket> = (0..8).map(|_| rig.open(0, "/echo")).collect();
        for socket in &mut sockets {
            socket.close(1000);
            rig.settle();
            (0..10).for_each(|_| socket.client.send(&[0x55; 300]));
        }
        rig.pass_ms(10);
        assert_eq!(rig.connections(), 0);
        rig.finish();
    }
}

/// The input of a paused connection that dies is nobody's any more: late data must neither be kept nor acted on.
#[test]
fn data_after_the_end_of_a_paused_connection_is_recycled() {
    for seed in 0..20 {
        let mut setup = Setup::default();
        setup.settings.pause_bytes = 1_000;
        setup.settings.close_timeout = std::time::Duration::from_millis(50);
        let mut rig = Rig::faulty(&setup, seed, only(Fault::LateAfterCancel, 1.0));
        let (mut socket, _) = rig.open_direct(0);
        let mut echo = rig.open(0, "/echo");
        echo.client.set_window(10);
        echo.client.set_send_window(1 << 20);
        (0..40).for_each(|_| echo.text(&"x".repeat(1_000)));
        rig.settle();
        rig.cores.all[0].shard.service().closes = 2;
        socket.text("close");
        rig.settle();
        for _ in 0..100 {
            (0..40).for_each(|_| echo.text(&"x".repeat(1_000)));
            rig.pass_ms(1);
        }
        socket.close(1000);
        rig.pass_ms(1_000);
        assert_eq!(rig.connections(), 0);
        rig.finish();
    }
}

#[test]
fn a_slot_reused_is_not_disturbed_by_its_former_owner() {
    for seed in 0..10 {
        let ring = RingOptions { slots: 2, ..RingOptions::default() };
        let faults = only(Fault::LateAfterCancel, 1.0).with(Fault::Postponed, 0.3);
        let mut rig = Rig::faulty(&Setup { ring, ..Setup::default() }, seed, faults);
        for n in 0..40 {
            let mut socket = rig.open(0, "/echo");
            socket.text(&format!("{n}"));
            rig.pass_ms(5);
            assert_eq!(socket.texts(), [format!("{n}")]);
            if n % 2 == 0 {
                socket.client.reset()
            } else {
                socket.close(1000)
            }
            rig.pass_ms(1);
        }
        rig.pass_ms(10);
        assert_eq!(rig.ended(0).len(), 40);
        rig.finish();
    }
}

#[test]
fn accepting_without_descriptors_backs_off_and_goes_on() {
    let mut rig = Rig::faulty(&Setup::default(), 1, only(Fault::AcceptError, 1.0));
    let client = rig.connect(0);
    rig.pass_ms(1_000);
    let (errors, ticks) = (rig.counters(0).accept_errors, rig.counters(0).ticks);
    assert!((32..32 * 12).contains(&errors) && ticks < 400, "{errors} errors in {ticks} ticks");
    rig.world.set_faults(Faults::none());
    rig.pass_ms(150);
    assert!(client.is_accepted());
    rig.finish();
}

#[test]
fn draining_while_accepting_backs_off_does_not_spin() {
    let mut rig = Rig::new(&Setup::default());
    let mut socket = rig.open(0, "/echo");
    rig.world.set_faults(only(Fault::AcceptError, 1.0));
    let _refused = rig.connect(0);
    rig.settle();
    let before = rig.counters(0).ticks;
    rig.drain();
    rig.pass_ms(2_000);
    assert!(rig.counters(0).ticks - before < 300, "{} ticks", rig.counters(0).ticks - before);
    assert_eq!(socket.close_code(), Some(1001));
    socket.close(1001);
    rig.finish();
}

#[test]
fn a_close_that_was_answered_shows_at_once() {
    let mut rig = Rig::new(&Setup::default());
    let mut socket = rig.open(0, "/echo");
    socket.close(1000);
    rig.settle();
    assert_eq!(socket.events(), [Event::Close(Some(1000))]);
    assert!(socket.client.saw_fin(), "the server closes as soon as its Close is sent");
    rig.finish();
}
