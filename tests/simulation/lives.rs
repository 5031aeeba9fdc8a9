//! Backpressure, slow consumers, mail, time limits, draining and ids, on the real shard under the virtual clock.

use std::rc::Rc;
use std::time::Duration;

use ringwire::config::SlowConsumer;
use ringwire::engine::sim::{Client, Fault, Faults, RingOptions, Rng};
use ringwire::marks::{self, Mark};
use ringwire::shard::Handover;
use ringwire::{App, Message, ws};

use crate::host::Setup;
use crate::rig::{Rig, Socket};
use crate::wire::{Event, PING, PONG};

// ---- backpressure and slow consumers ------------------------------------------------------------------------------

#[test]
fn an_echo_client_that_does_not_read_is_not_read_from() {
    let mut setup = Setup::default();
    setup.settings.pause_bytes = 10_000;
    let mut rig = Rig::new(&setup);
    let mut socket = rig.open(0, "/echo");
    assert_eq!(socket.events(), []);
    socket.client.set_window(100);
    let texts: Vec<String> = (0..2_000).map(|n| format!("{n}:").repeat(100)).collect();
    texts.iter().for_each(|text| socket.text(text));
    rig.pass_ms(100);
    let taken = texts.iter().map(String::len).sum::<usize>() - socket.client.unsent();
    assert!(taken < 300_000, "{taken} bytes were taken from a client that reads nothing");
    let mut got = Vec::new();
    socket.client.set_window(20_000);
    for _ in 0..1_000 {
        rig.settle();
        got.extend(socket.texts());
    }
    assert_eq!(got.len(), texts.len());
    assert_eq!(got, texts);
    rig.finish();
}

#[test]
fn pings_of_a_client_that_does_not_read_do_not_pile_up() {
    let mut rig = Rig::new(&Setup { outbox_bytes_max: 10_000, ..Setup::default() });
    let mut socket = rig.open(0, "/echo");
    socket.client.set_window(10);
    for _ in 0..200 {
        (0..100).for_each(|_| socket.frame(PING, &[b'p'; 100]));
        rig.settle();
    }
    assert!(rig.cores.all[0].shard.hub().outbox.backlog_bytes() < 80_000);
    rig.finish();
}

/// A reader and one that does not read get 100 messages; returns the rig and both.
fn slow_consumer(policy: SlowConsumer) -> (Rig, Socket, Socket) {
    let setup = Setup { slow_consumer: policy, outbox_bytes_max: 10_000, ..Setup::default() };
    let mut rig = Rig::new(&setup);
    let mut good = rig.open(0, "/broadcast");
    let mut slow = rig.open(0, "/broadcast");
    assert_eq!((good.events(), slow.events()), (vec![], vec![]));
    slow.client.set_window(10);
    let mut got = Vec::new();
    for n in 0..100 {
        good.text(&format!("{n:0500}"));
        rig.settle();
        got.extend(good.texts());
    }
    assert_eq!(got.len(), 100, "slow consumers never slow others");
    slow.client.set_window(64 << 10);
    rig.pass_ms(10);
    (rig, good, slow)
}

fn numbers(events: &[Event]) -> Vec<usize> {
    let number = |event: &Event| match event {
        Event::Message(message) => str::from_utf8(&message.payload).unwrap().parse().ok(),
        _ => None,
    };
    events.iter().filter_map(number).collect()
}

#[test]
fn a_slow_consumer_is_closed_1013_after_what_was_queued() {
    let (mut rig, _good, mut slow) = slow_consumer(SlowConsumer::Close);
    let events = slow.events();
    let got = numbers(&events);
    assert_eq!(got, (0..got.len()).collect::<Vec<_>>());
    assert!((15..25).contains(&got.len()), "{}", got.len());
    assert_eq!(events.last(), Some(&Event::Close(Some(1013))));
    assert_eq!((rig.counters(0).shed.total(), rig.counters(0).drops.total()), (1, 1));
    slow.close(1013);
    rig.settle();
    assert!(slow.client.saw_fin());
    assert_eq!(rig.ended(0)[0].code, 1013);
    rig.finish();
}

#[test]
fn a_slow_consumer_misses_the_newest_where_they_are_dropped() {
    let (mut rig, mut good, mut slow) = slow_consumer(SlowConsumer::DropNew);
    let got = numbers(&slow.events());
    assert_eq!(got, (0..got.len()).collect::<Vec<_>>());
    assert_eq!(rig.counters(0).drops.total() as usize, 100 - got.len());
    good.text("100");
    rig.settle();
    assert_eq!(slow.texts(), ["100"], "and goes on");
    rig.finish();
}

#[test]
fn a_slow_consumer_misses_the_oldest_where_they_are_dropped() {
    let (mut rig, _good, mut slow) = slow_consumer(SlowConsumer::DropOld);
    let got = numbers(&slow.events());
    assert!(got.is_sorted() && got.last() == Some(&99) && got[0] == 0, "what is in flight stays: {got:?}");
    assert_eq!(rig.counters(0).drops.total() as usize, 100 - got.len());
    rig.finish();
}

// ---- between cores ------------------------------------------------------------------------------------------------

/// Each core's handler sends a message to 20 rooms in one call, all of them to the same core, whose mailbox holds one letter.
/// Kills: a letter that is tried again and gets behind those that were written after it.
#[test]
fn a_burst_to_many_rooms_keeps_its_order_through_a_mailbox_of_one() {
    const ROOMS: usize = 20;
    const MESSAGES: usize = 10;
    let app = || {
        let join_all = |socket: &mut ringwire::Socket<'_>| {
            (0..ROOMS).for_each(|room| socket.join(format!("{room}")).expect("room"))
        };
        let to_all = |socket: &mut ringwire::Socket<'_>, message: Message<'_>| {
            let text = message.as_text().expect("text").to_owned();
            for room in 0..ROOMS {
                let _ = socket.to(&room.to_string()).send(format!("{text} {room}")).expect("text");
            }
        };
        App::new().ws("/bursts", ws().on_connect(join_all).on_message(to_all))
    };
    marks::take();
    let mut rig = Rig::new(&Setup { cores: 2, mail_depth: 1, app: Rc::new(app), ..Setup::default() });
    let mut sockets: Vec<Socket> = (0..4).map(|n| rig.open(n % 2, "/bursts")).collect();
    rig.pass_ms(100);
    for number in 0..MESSAGES {
        for (sender, socket) in sockets.iter_mut().enumerate() {
            socket.text(&format!("{sender} {number}"));
        }
    }
    let mut got = vec![Vec::new(); sockets.len()];
    for _ in 0..2_000 {
        rig.pass(Duration::from_micros(500));
        sockets.iter_mut().zip(&mut got).for_each(|(socket, got)| got.extend(socket.texts()));
        if got.iter().all(|got| got.len() == sockets.len() * MESSAGES * ROOMS) {
            break;
        }
    }
    for got in got {
        for sender in 0..sockets.len() {
            let of_sender = got.iter().filter(|text| text.starts_with(&format!("{sender} "))).cloned();
            let numbers =
                (0..MESSAGES).flat_map(|number| (0..ROOMS).map(move |room| format!("{sender} {number} {room}")));
            assert_eq!(of_sender.collect::<Vec<_>>(), numbers.collect::<Vec<_>>());
        }
    }
    let kept = marks::take().map(|marks| marks.into_iter().find(|(mark, _)| *mark == Mark::LetterKeepsItsPlace));
    assert!(kept.flatten().is_none_or(|(_, count)| count > 0), "no letter of several was tried again");
    rig.finish();
}

#[test]
fn a_full_mailbox_pauses_publishers_and_loses_nothing() {
    for depth in [1, 3] {
        let mut rig = Rig::new(&Setup { cores: 3, mail_depth: depth, ..Setup::default() });
        let mut sockets: Vec<Socket> = (0..6).map(|n| rig.open(n % 3, "/broadcast")).collect();
        rig.pass_ms(100);
        for n in 0..200 {
            for (sender, socket) in sockets.iter_mut().enumerate() {
                socket.text(&format!("{sender} {n}"));
            }
        }
        let mut got = vec![Vec::new(); 6];
        let mut was_congested = false;
        for _ in 0..3_000 {
            for core in 0..3 {
                if rig.cores.all[core].is_runnable() {
                    rig.cores.all[core].tick();
                    was_congested |= rig.cores.all[core].shard.hub().is_congested();
                }
            }
            for (socket, got) in sockets.iter_mut().zip(&mut got) {
                got.extend(socket.texts());
            }
            rig.world.advance(50_000);
        }
        assert!(was_congested);
        for got in got {
            for sender in 0..6 {
                let mine = got.iter().filter(|text| text.starts_with(&format!("{sender} "))).cloned();
                let all: Vec<String> = (0..200).map(|n| format!("{sender} {n}")).collect();
                assert_eq!(mine.collect::<Vec<_>>(), all, "from {sender}, mailboxes of {depth}");
            }
        }
        rig.finish();
    }
}

/// The last letter that waited has been delivered within the tick that paused its sender: nothing else will wake the core.
#[test]
fn a_publisher_paused_for_mail_goes_on_by_itself() {
    let mut rig = Rig::new(&Setup { cores: 2, mail_depth: 1, ..Setup::default() });
    let mut publisher = rig.open(0, "/broadcast");
    let mut listener = rig.open(1, "/broadcast");
    rig.pass_ms(10);
    (0..50).for_each(|n| publisher.text(&format!("{n}")));
    rig.pass_ms(1_000);
    assert_eq!(publisher.texts().len(), 50);
    assert_eq!(listener.texts().len(), 50);
    rig.finish();
}

#[test]
fn ids_find_their_connection_on_every_core_and_never_another_one() {
    let ring = RingOptions { slots: 4, ..RingOptions::default() };
    let mut rig = Rig::new(&Setup { cores: 2, ring, ..Setup::default() });
    let mut stale = Vec::new();
    for n in 0..100 {
        let (mut target, id) = rig.open_direct(1);
        let (mut asker, own) = rig.open_direct(0);
        for old in &stale {
            asker.text(&format!("to {old} not for you"));
        }
        asker.text(&format!("to {id} {n}"));
        asker.text(&format!("to {own} self {n}"));
        rig.settle();
        assert_eq!(target.texts(), [format!("{n}")]);
        assert_eq!(asker.texts(), [format!("self {n}")]);
        stale = vec![id, own];
        target.client.close();
        asker.close(1000);
        rig.settle();
    }
    let mut tally = (0, 0);
    for (text, answer) in rig.cores.all[0].shard.service().asked.drain(..) {
        let delivery = answer.try_recv().expect("every question is answered");
        let expected = if text == "not for you" { (0, 1) } else { (1, 0) };
        assert_eq!((delivery.queued, delivery.gone), expected, "{text}");
        tally = (tally.0 + delivery.queued, tally.1 + delivery.gone);
    }
    assert_eq!(tally, (200, 198));
    rig.finish();
}

/// Emits to random ids, living and gone, from all cores under all faults: answers are true, nothing comes twice or to
/// somebody else, and what one sender sends to one receiver keeps its order.
#[test]
fn random_emits_across_cores_arrive_once_and_in_order() {
    for seed in crate::seeds(40) {
        emit_at_random(seed);
    }
}

fn emit_at_random(seed: u64) {
    let mail_depth = if seed.is_multiple_of(2) { 2 } else { 64 };
    let mut rig = Rig::faulty(&Setup { cores: 3, mail_depth, ..Setup::default() }, seed, Faults::harsh());
    rig.world.set_faults(Faults::harsh().with(Fault::ClockJump, 0.0));
    let mut rng = Rng::new(seed);
    let mut sockets: Vec<Socket> = (0..9).map(|n| rig.open(n % 3, "/direct")).collect();
    let mut ids: Vec<Option<String>> = vec![None; sockets.len()];
    let mut got: Vec<Vec<(usize, usize)>> = vec![Vec::new(); sockets.len()];
    let mut sent = 0;
    for round in 0..400 {
        for (n, socket) in sockets.iter_mut().enumerate() {
            for event in socket.events() {
                let Event::Message(message) = event else { continue };
                let text = String::from_utf8(message.payload).unwrap();
                match text.strip_prefix("id ") {
                    Some(id) => ids[n] = Some(id.to_owned()),
                    None => {
                        let numbers: Vec<usize> = text.split(' ').map(|number| number.parse().unwrap()).collect();
                        assert_eq!(numbers[1], n, "seed {seed}: a message for another");
                        got[n].push((numbers[0], numbers[2]));
                    }
                }
            }
            let target = rng.below(9) as usize;
            if round < 200 && !socket.client.is_closed() && ids[n].is_some() && ids[target].is_some() {
                socket.text(&format!("to {} {n} {target} {sent}", ids[target].as_ref().unwrap()));
                sent += 1;
                if rng.chance(0.002) {
                    socket.client.reset();
                }
            }
        }
        rig.pass(Duration::from_micros(rng.below(500)));
    }
    rig.world.set_faults(Faults::none());
    rig.pass_ms(100);
    let mut queued = 0;
    for core in &mut rig.cores.all {
        for (_, answer) in core.shard.service().asked.drain(..) {
            let delivery = answer.try_recv().expect("every question is answered");
            assert_eq!(delivery.queued + delivery.gone + delivery.dropped, 1);
            queued += delivery.queued;
        }
    }
    let received: usize = got.iter().map(Vec::len).sum();
    assert!(received <= queued as usize, "seed {seed}: {received} arrived of {queued}");
    if sockets.iter().all(|socket| !socket.client.is_closed()) {
        assert_eq!(received, queued as usize, "seed {seed}");
    }
    for got in &got {
        for sender in 0..9 {
            let numbers: Vec<usize> =
                got.iter().filter(|(from, _)| *from == sender).map(|(_, number)| *number).collect();
            assert!(numbers.windows(2).all(|pair| pair[0] < pair[1]), "seed {seed}: {numbers:?}");
        }
    }
    rig.finish();
}

// ---- handlers that close ------------------------------------------------------------------------------------------

#[test]
fn a_handler_may_close_itself_and_others_in_one_go() {
    let mut rig = Rig::new(&Setup::default());
    let mut sockets: Vec<Socket> = (0..4).map(|_| rig.open_direct(0).0).collect();
    rig.cores.all[0].shard.service().closes = 64;
    // What came with the request to close is read for a Close only, of the closer and of those that it closes.
    for socket in &mut sockets {
        socket.text("close");
        socket.text("close");
        socket.frame(PING, b"still there?");
    }
    rig.settle();
    for socket in &mut sockets {
        assert_eq!(socket.close_code(), Some(1000));
        socket.close(1000);
    }
    rig.settle();
    assert!(sockets.iter().all(|socket| socket.client.saw_fin()));
    let ended = rig.ended(0);
    assert!(ended.len() == 4 && ended.iter().all(|ended| ended.code == 1000 && ended.clean), "{ended:?}");
    rig.finish();
}

// ---- time ---------------------------------------------------------------------------------------------------------

#[test]
fn where_places_are_few_a_request_has_less_time() {
    let mut setup = Setup::default();
    setup.settings.crowded_slots = u32::MAX;
    let mut rig = Rig::new(&setup);
    // However it is begun: as the first, as a further one, or by a head whose body does not come.
    let (first, further, body) = (rig.connect(0), rig.connect(0), rig.connect(0));
    further.send(b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n");
    rig.settle();
    assert!(further.received().starts_with(b"HTTP/1.1 200 "));
    first.send(b"GET /echo HTTP/1.1\r\nHost:");
    further.send(b"G");
    body.send(b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\n");
    // And a body that does come, at 2 KiB a second, has as much time as it needs.
    let steady = rig.connect(0);
    steady.send(b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 10240\r\n\r\n");
    for _ in 0..9 {
        steady.send(&[b' '; 205]);
        rig.pass_ms(100);
    }
    assert_eq!((first.readable(), further.readable(), body.readable()), (0, 0, 0));
    for _ in 0..40 {
        steady.send(&[b' '; 205]);
        rig.pass_ms(100);
    }
    for late in [&first, &further, &body] {
        assert!(late.received().starts_with(b"HTTP/1.1 408 "));
        late.close();
    }
    steady.send(&[b' '; 195]);
    rig.settle();
    assert!(steady.received().starts_with(b"HTTP/1.1 4") && !steady.saw_fin(), "an answer, and not for its slowness");
    steady.close();
    rig.pass_ms(2_000);
    rig.finish();
}

/// What a client has sent, how long it may then be silent, and how the connection ends.
type Silence = (&'static str, &'static [&'static [u8]], u64, &'static [u8]);

const GET: &[u8] = b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n";

/// From accept to the first head and from the first byte of each further one it is 10 s, and 408 to who has begun; between
/// two it is 75 s. Nothing is said to who has not asked for anything.
///
/// Kills: one limit for both; a limit that starts anew with each byte or empty line; an answer to nobody's question.
#[test]
fn heads_and_the_silence_between_them_have_their_own_limits() {
    const LATE: &[u8] = b"HTTP/1.1 408 ";
    let silences: [Silence; 9] = [
        ("nothing", &[], 10_000, b""),
        ("an empty line", &[b"\r\n"], 10_000, b""),
        ("half an empty line", &[b"\r"], 10_000, b""),
        ("half a head", &[b"GET /echo HTTP/1.1\r\nHost:"], 10_000, LATE),
        ("an empty line and half a head", &[b"\r\n", b"GET /echo HTT"], 10_000, LATE),
        ("a head without its body", &[b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n"], 10_000, LATE),
        ("a request", &[GET], 75_000, b""),
        ("a request and an empty line", &[GET, b"\r\n"], 75_000, b""),
        ("a request and half a head", &[GET, b"GE"], 10_000, LATE),
    ];
    for (what, pieces, limit_ms, end) in silences {
        let mut rig = Rig::new(&Setup::default());
        let client = rig.connect(0);
        rig.settle();
        for piece in pieces {
            client.send(piece);
            rig.settle();
        }
        let answers = client.received();
        assert_eq!(answers.starts_with(b"HTTP/1.1 200 "), pieces.contains(&GET), "{what}");
        rig.pass_ms(limit_ms - 100);
        assert_eq!((client.readable(), client.saw_fin()), (0, false), "{what}");
        rig.pass_ms(200);
        let said = client.received();
        assert!(said.starts_with(end) && said.is_empty() == end.is_empty(), "{what}: {said:?}");
        rig.pass_ms(1_000);
        assert!(client.saw_fin(), "{what}");
        assert_eq!((rig.counters(0).timeouts.total(), rig.connections()), (1, 0), "{what}");
        rig.finish();
    }
}

/// Each head counts from its own first byte, however long it was silent before, and no byte starts it anew.
#[test]
fn a_further_head_counts_from_its_first_byte() {
    let mut rig = Rig::new(&Setup::default());
    let client = rig.connect(0);
    for _ in 0..3 {
        client.send(GET);
        rig.pass_ms(70_000);
        assert!(client.received().starts_with(b"HTTP/1.1 200 ") && !client.saw_fin());
        client.send(&GET[..1]);
        rig.pass_ms(9_000);
        client.send(&GET[1..]);
        rig.settle();
        assert!(client.received().starts_with(b"HTTP/1.1 200 "));
    }
    for byte in &GET[..20] {
        client.send(&[*byte]);
        rig.pass_ms(490);
    }
    assert_eq!((client.readable(), client.saw_fin()), (0, false));
    rig.pass_ms(300);
    assert!(client.received().starts_with(b"HTTP/1.1 408 "));
    client.close();
    rig.finish();
}

/// Empty lines are no requests: they keep no place.
#[test]
fn empty_lines_keep_no_connection_alive() {
    for first in [&b""[..], GET] {
        let mut rig = Rig::new(&Setup::default());
        let client = rig.connect(0);
        client.send(first);
        for _ in 0..76 {
            if !client.saw_fin() {
                client.send(b"\r\n");
            }
            rig.pass_ms(1_000);
            client.received();
        }
        assert!(client.saw_fin(), "{first:?}");
        rig.finish();
    }
}

/// Places that were given away when there were many are given back when there are few.
#[test]
fn where_places_become_few_silence_ends_sooner() {
    let ring = RingOptions { slots: 24, ..RingOptions::default() };
    let mut setup = Setup { ring, ..Setup::default() };
    setup.settings.crowded_slots = 8;
    let mut rig = Rig::new(&setup);
    let kept: Vec<_> = (0..8).map(|_| rig.connect(0)).collect();
    kept.iter().for_each(|client| client.send(GET));
    rig.pass_ms(10_000);
    assert!(kept.iter().all(|client| client.received().starts_with(b"HTTP/1.1 200 ") && !client.saw_fin()));
    let _sockets: Vec<Socket> = (0..10).map(|_| rig.open(0, "/echo")).collect();
    rig.pass_ms(2_500);
    assert!(kept.iter().all(|client| client.saw_fin()));
    rig.finish();
}

#[test]
fn pings_keep_alive_whoever_answers() {
    let mut rig = Rig::new(&Setup::default());
    let mut alive = rig.open(0, "/echo");
    let mut mute = rig.open(0, "/echo");
    let mut pings = 0;
    for _ in 0..300 {
        rig.pass_ms(1_000);
        for event in alive.events() {
            assert_eq!(event, Event::Ping(vec![]));
            alive.frame(PONG, b"");
            pings += 1;
        }
    }
    assert!((9..=10).contains(&pings), "{pings}");
    let pings = mute.events();
    assert!(pings.len() == 3 && mute.client.saw_fin(), "{pings:?}");
    assert_eq!(rig.counters(0).timeouts.total(), 1);
    assert_eq!(rig.ended(0)[0].reason, "idle timeout");
    rig.finish();
}

#[test]
fn a_peer_that_never_answers_close_is_dropped() {
    let mut rig = Rig::new(&Setup::default());
    let (mut socket, _) = rig.open_direct(0);
    socket.text("close");
    rig.pass_ms(4_900);
    assert_eq!(socket.close_code(), Some(1000));
    assert_eq!(rig.connections(), 1);
    rig.pass_ms(200);
    assert_eq!((rig.connections(), rig.counters(0).timeouts.total()), (0, 1));
    assert!(socket.client.saw_fin());
    assert!(!rig.ended(0)[0].clean);
    rig.finish();
}

#[test]
fn what_is_never_read_is_given_up() {
    let mut rig = Rig::new(&Setup::default());
    let mut socket = rig.open(0, "/echo");
    socket.client.set_window(10);
    socket.text(&"x".repeat(5_000));
    socket.close(1000);
    rig.pass_ms(5_100);
    assert_eq!((rig.connections(), rig.counters(0).timeouts.total()), (0, 1));
    rig.finish();
}

#[test]
fn clock_jumps_fire_what_is_due_and_nothing_else() {
    let mut rig = Rig::new(&Setup::default());
    let mut socket = rig.open(0, "/echo");
    let half = rig.connect(0);
    rig.settle();
    rig.world.advance(40_000_000_000);
    rig.settle();
    assert_eq!(socket.events(), [Event::Ping(vec![])]);
    assert!(half.saw_fin(), "it has not asked for anything");
    socket.text("still here");
    rig.settle();
    assert_eq!(socket.texts(), ["still here"]);
    rig.world.advance(1_000_000_000_000_000);
    rig.settle();
    assert_eq!(rig.connections(), 0);
    rig.finish();
}

// ---- the end ------------------------------------------------------------------------------------------------------

#[test]
fn a_drain_spreads_1001_delivers_what_is_queued_and_ends() {
    let mut rig = Rig::new(&Setup { cores: 2, ..Setup::default() });
    let mut sockets: Vec<Socket> = (0..20).map(|n| rig.open(n % 2, "/echo")).collect();
    for socket in &mut sockets {
        socket.client.set_window(1_000);
        socket.text(&"q".repeat(5_000));
    }
    rig.settle();
    rig.drain();
    let late = rig.connect(0);
    let mut told_at = Vec::new();
    let mut texts = 0;
    for ms in 0..1_500 {
        rig.pass_ms(1);
        for socket in &mut sockets {
            for event in socket.events() {
                match event {
                    Event::Message(message) => texts += message.payload.len() / 5_000,
                    Event::Close(code) => {
                        assert_eq!(code, Some(1001));
                        told_at.push(ms);
                        socket.close(1001);
                    }
                    event => panic!("{event:?}"),
                }
            }
        }
    }
    assert_eq!((texts, told_at.len()), (20, 20));
    assert!(told_at[0] < 100 && (850..1_100).contains(&told_at[19]), "{told_at:?}");
    assert!(rig.cores.is_drained() && late.is_closed());
    rig.finish();
}

#[test]
fn a_drain_ends_in_time_whoever_does_not_answer() {
    let mut setup = Setup::default();
    setup.settings.close_timeout = Duration::from_secs(60);
    let mut rig = Rig::new(&setup);
    let mut socket = rig.open(0, "/echo");
    socket.client.set_window(10);
    socket.text(&"x".repeat(5_000));
    rig.settle();
    rig.drain();
    rig.pass_ms(9_900);
    assert!(!rig.cores.all[0].shard.is_finished());
    rig.pass_ms(200);
    assert!(rig.cores.all[0].shard.is_finished());
    assert_eq!(rig.ended(0)[0].code, 1001);
    assert_eq!(rig.cores.admission.connections(), 0);
    drop(rig.cores);
    assert!(socket.client.is_released());
}

/// Half a request is waited for as long as a first one, not for the whole drain; whoever has been answered, for the last
/// WebSocket.
#[test]
fn a_drain_waits_a_second_for_what_has_begun() {
    for begun in [&b"GET /echo HTT"[..], b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nx", b"", b"\r\n"]
    {
        for kept in [false, true] {
            let mut rig = Rig::new(&Setup::default());
            let client = rig.connect(0);
            if kept {
                client.send(GET);
                rig.settle();
                assert!(client.received().starts_with(b"HTTP/1.1 200 "));
            }
            client.send(begun);
            rig.settle();
            rig.drain();
            let has_begun = begun.len() > 2;
            if has_begun || !kept {
                rig.pass_ms(900);
                assert!(!rig.cores.is_drained() && !client.saw_fin(), "{begun:?}");
            }
            rig.pass_ms(200);
            assert_eq!(client.received().starts_with(b"HTTP/1.1 408 "), has_begun, "{begun:?}");
            rig.pass_ms(600);
            assert!(rig.cores.is_drained() && client.saw_fin(), "{begun:?} {kept}");
            rig.finish();
        }
    }
}

/// A request that begins before the drain is answered within it.
#[test]
fn a_drain_answers_what_has_begun() {
    let mut rig = Rig::new(&Setup::default());
    let client = rig.connect(0);
    client.send(&GET[..10]);
    rig.settle();
    rig.drain();
    rig.pass_ms(800);
    client.send(&GET[10..]);
    rig.settle();
    let answer = String::from_utf8(client.received()).expect("text");
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.contains("\r\nconnection: close\r\n"), "{answer}");
    assert!(client.saw_fin());
    rig.finish();
}

/// During the notice everybody is served as before and told that the server is about to go, on new connections and kept
/// ones; then it drains, in a time of its own.
#[test]
fn notice_is_given_before_a_drain() {
    for handover in [Handover::Close, Handover::Share, Handover::Leave] {
        let mut setup = Setup { cores: 2, ..Setup::default() };
        setup.settings.drain_notice = Duration::from_secs(20);
        setup.settings.handover = handover;
        setup.settings.close_timeout = Duration::from_secs(60);
        let mut rig = Rig::new(&setup);
        let ready = |client: &Client, rig: &mut Rig| {
            client.send(b"GET /readyz HTTP/1.1\r\nHost: a\r\n\r\n");
            rig.settle();
            String::from_utf8(client.received()).expect("text")
        };
        let kept = rig.connect(0);
        assert!(ready(&kept, &mut rig).starts_with("HTTP/1.1 200 "));
        let mut before = rig.open(1, "/echo");
        rig.drain();
        let mut later = Vec::new();
        for second in 0..19 {
            rig.pass_ms(1_000);
            if second % 3 == 0 {
                // A second word changes nothing.
                rig.drain();
            }
            let fresh = rig.connect(second % 2);
            for client in [&kept, &fresh] {
                let answer = ready(client, &mut rig);
                assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("keep-alive"), "{answer}");
            }
            later.push(rig.open(second % 2, "/echo"));
        }
        for socket in later.iter_mut().chain([&mut before]) {
            socket.text("served");
            rig.settle();
            assert_eq!(socket.texts(), ["served"]);
        }
        rig.pass_ms(2_100);
        for socket in later.iter_mut().chain([&mut before]) {
            assert_eq!(socket.close_code(), Some(1001));
        }
        // Nobody answers: it ends at its timeout, which began with the drain.
        rig.pass_ms(8_500);
        assert!(!rig.cores.all.iter().any(|core| core.shard.is_finished()));
        rig.pass_ms(2_000);
        assert!(rig.cores.all.iter().all(|core| core.shard.is_finished()));
        assert_eq!(rig.cores.admission.connections(), 0);
    }
}

#[test]
fn after_a_failure_the_peers_close_ends_the_wait() {
    let mut rig = Rig::new(&Setup::default());
    let mut socket = rig.open(0, "/echo");
    assert_eq!(socket.events(), []);
    socket.frame(1, &[0xff]);
    rig.settle();
    assert_eq!(socket.close_code(), Some(1007));
    assert!(!socket.client.saw_fin());
    socket.close(1007);
    rig.settle();
    assert!(socket.client.saw_fin(), "both have said Close");
    assert_eq!(rig.counters(0).protocol_errors, 1);
    rig.finish();
}
