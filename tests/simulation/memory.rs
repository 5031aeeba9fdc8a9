//! The memory budget of the process, and what the cores tell of themselves, on the real shard under the virtual clock.

use std::future::pending;
use std::rc::Rc;
use std::time::Duration;

use ringwire::engine::sim::{Client, Faults, Rng, World};
use ringwire::metrics::{CloseCode, CoreMetrics, RefusalReason, ShedReason, Side};
use ringwire::{App, Connection, Request, Socket as Peer, sleep, standalone, ws};

use crate::host::{Cores, Setup};
use crate::rig::{Rig, Socket};
use crate::wire::{self, BINARY, Event, TEXT};

const BUDGET: u64 = 100_000;

fn limited(cores: usize) -> Setup {
    Setup { cores, memory_bytes_max: BUDGET, outbox_bytes_max: 1 << 20, ..Setup::default() }
}

fn metrics(rig: &mut Rig, core: usize) -> CoreMetrics {
    rig.cores.all[core].shard.hub().metrics()
}

/// Clients that were shed, on all cores.
fn shed(rig: &mut Rig) -> u64 {
    (0..rig.cores.all.len()).map(|core| rig.counters(core).shed.of(ShedReason::Memory)).sum()
}

/// A member of a room that reads nothing.
fn stalled(rig: &mut Rig, core: usize, room: &str) -> Socket {
    let mut socket = rig.open(core, room);
    assert_eq!(socket.events(), []);
    socket.client.set_window(10);
    socket
}

/// Sends so many bytes in messages of 1,000 to the room that the sender, who keeps up, is in.
fn publish(rig: &mut Rig, sender: &mut Socket, bytes: usize) {
    for _ in 0..bytes / 1_000 {
        sender.text(&"m".repeat(1_000));
        rig.settle();
        assert_eq!(sender.texts().len(), 1, "whoever reads is served");
    }
}

fn get(rig: &mut Rig, path: &str) -> u16 {
    let client = rig.connect(0);
    client.send(format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").as_bytes());
    rig.settle();
    status(&client)
}

fn status(client: &Client) -> u16 {
    let bytes = client.received();
    let text = String::from_utf8_lossy(&bytes);
    text.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or_else(|| panic!("{text:?}"))
}

/// Kills: shedding whoever was the last to ask for memory.
#[test]
fn who_holds_the_most_goes_first_and_the_others_stay() {
    let mut rig = Rig::new(&limited(1));
    let mut senders = ["/rooms/a", "/rooms/b"].map(|room| rig.open(0, room));
    senders.iter_mut().for_each(|sender| assert_eq!(sender.events(), []));
    let mut large = stalled(&mut rig, 0, "/rooms/a");
    let mut small = stalled(&mut rig, 0, "/rooms/b");
    publish(&mut rig, &mut senders[0], 60_000);
    publish(&mut rig, &mut senders[1], 30_000);
    assert_eq!(shed(&mut rig), 0);
    assert!(metrics(&mut rig, 0).outbox_largest_bytes > 60_000);
    publish(&mut rig, &mut senders[1], 15_000);
    assert_eq!(shed(&mut rig), 1);
    let held = metrics(&mut rig, 0).outbox_bytes;
    assert!(held < 60_000 && rig.counters(0).shed_bytes > 50_000, "{held}");
    large.client.set_window(1 << 20);
    small.client.set_window(1 << 20);
    rig.pass_ms(100);
    assert_eq!(large.close_code(), Some(1013), "behind what was in flight");
    assert_eq!(small.texts().len(), 45, "nothing was lost");
    large.close(1013);
    rig.settle();
    assert!(large.client.saw_fin());
    assert_eq!(rig.counters(0).closes.of(CloseCode::TryLater, Side::Local), 1);
    assert_eq!(rig.cores.admission.memory().held(), 0);
    rig.finish();
}

/// Kills: cores that shed their own part, and large holders that sleep through it.
#[test]
fn the_largest_is_shed_on_whichever_core_it_sleeps() {
    let mut rig = Rig::new(&limited(3));
    let mut hog_sender = rig.open(1, "/rooms/hog");
    assert_eq!(hog_sender.events(), []);
    let hog = stalled(&mut rig, 1, "/rooms/hog");
    publish(&mut rig, &mut hog_sender, 50_000);
    let mut sender = rig.open(0, "/rooms/b");
    assert_eq!(sender.events(), []);
    // Together they hold more than the hog, whose core sleeps from now on.
    let others: Vec<Socket> = [0, 0, 2].map(|core| stalled(&mut rig, core, "/rooms/b")).into();
    publish(&mut rig, &mut sender, 16_000);
    assert_eq!(shed(&mut rig), 0, "{}", rig.cores.admission.memory().held());
    publish(&mut rig, &mut sender, 3_000);
    let of_core = [0, 1, 2].map(|core| rig.counters(core).shed.of(ShedReason::Memory));
    assert_eq!(of_core, [0, 1, 0]);
    rig.pass_ms(1_100);
    assert!(hog.client.is_released(), "it had its time to read");
    assert!(others.iter().all(|other| !other.client.is_released()));
    assert!(!rig.cores.admission.memory().is_spent());
    rig.finish();
}

#[test]
fn while_it_is_spent_nobody_is_let_in() {
    let mut rig = Rig::new(&limited(1));
    let mut sender = rig.open(0, "/rooms/a");
    assert_eq!((sender.events(), get(&mut rig, "/readyz")), (vec![], 200));
    let mut slow = [(); 2].map(|()| stalled(&mut rig, 0, "/rooms/a"));
    // A message in flight as a whole cannot be forgotten.
    sender.frame(BINARY, &vec![7; 60_000]);
    rig.pass_ms(10);
    assert_eq!((shed(&mut rig), sender.events().len()), (1, 1));
    assert_eq!((get(&mut rig, "/readyz"), get(&mut rig, "/healthz")), (503, 200));
    let refused = rig.connect(0);
    refused.send(&wire::request("/echo", "dGhlIHNhbXBsZSBub25jZQ=="));
    rig.settle();
    let response = String::from_utf8(refused.received()).expect("text").to_ascii_lowercase();
    assert!(response.starts_with("http/1.1 503 ") && response.contains("\r\nretry-after: "), "{response}");
    assert_eq!(rig.counters(0).refused.of(RefusalReason::Memory), 1);
    rig.pass_ms(1_100);
    let gone = slow.each_mut().map(|slow| slow.client.is_released());
    assert_eq!(gone.iter().filter(|gone| **gone).count(), 1, "it read nothing in its time");
    assert_eq!(get(&mut rig, "/readyz"), 200);
    let mut late = rig.open(0, "/echo");
    late.text("x");
    rig.settle();
    assert_eq!(late.texts(), ["x"]);
    assert_eq!(rig.counters(0).shed.of(ShedReason::Memory), 1);
    rig.finish();
}

/// Kills: rooms that cost memory on every core and count nowhere.
#[test]
fn who_joins_many_rooms_of_long_names_is_shed() {
    let mut rig = Rig::new(&limited(2));
    let mut modest = rig.open(0, "/ws");
    let mut greedy = rig.open(1, "/ws");
    let join = |socket: &mut Socket, n: usize| {
        socket.text(&format!(r#"{{"event":"join","data":{{"room":"{n:0240}"}}}}"#));
    };
    join(&mut modest, 0);
    (1..251).for_each(|n| join(&mut greedy, n));
    rig.pass_ms(10);
    assert_eq!((shed(&mut rig), rig.counters(1).shed.of(ShedReason::Memory)), (1, 1));
    let mut events = greedy.events();
    rig.pass_ms(10);
    events.extend(greedy.events());
    assert_eq!(events.pop(), Some(Event::Close(Some(1013))), "behind what was in flight");
    greedy.close(1013);
    rig.pass_ms(10);
    assert_eq!(rig.cores.admission.memory().held(), 0);
    assert_eq!(modest.texts().len(), 2);
    rig.finish();
}

/// The header of a message of 1 MiB, and the first `bytes` of it.
fn begin_message(socket: &Socket, bytes: usize) {
    let mut frame = vec![0x82, 0x80 | 127];
    frame.extend((1u64 << 20).to_be_bytes());
    frame.extend([0; 4]);
    frame.extend(vec![b'p'; bytes]);
    socket.client.send(&frame);
}

#[test]
fn messages_that_never_end_are_shed() {
    for direct_bytes_min in [16 << 10, usize::MAX] {
        let mut setup = limited(2);
        setup.settings.direct_bytes_min = direct_bytes_min;
        let mut rig = Rig::new(&setup);
        let mut sockets: Vec<Socket> = (0..20).map(|n| rig.open(n % 2, "/echo")).collect();
        assert!(sockets.iter_mut().all(|socket| socket.events().is_empty()));
        for (n, socket) in sockets.iter().enumerate() {
            begin_message(socket, 10_000 + 100 * n);
            rig.pass_ms(5);
            let memory = rig.cores.admission.memory();
            // A buffer that is being received into is held until its connection has had its time.
            assert!(memory.excess() == 0 && (direct_bytes_min < 1 << 20 || memory.held() <= BUDGET), "{memory:?}");
        }
        assert!(shed(&mut rig) > 5);
        let mut codes: Vec<Option<u16>> = Vec::new();
        for socket in &mut sockets {
            match socket.events().pop() {
                Some(Event::Close(code)) => codes.push(code),
                None => {}
                event => panic!("{event:?}"),
            }
        }
        assert_eq!(codes, vec![Some(1013); shed(&mut rig) as usize]);
        // The peers' Close is recognised behind the rest of the message that nobody wants any more.
        rig.pass_ms(1_100);
        assert_eq!(rig.connections(), 20 - codes.len());
        assert!(rig.cores.admission.memory().held() <= BUDGET);
        sockets.iter().for_each(|socket| socket.client.reset());
        rig.settle();
        assert_eq!(rig.cores.admission.memory().held(), 0);
        rig.finish();
    }
}

#[test]
fn a_shed_clients_close_is_found_behind_its_message() {
    let mut rig = Rig::new(&limited(1));
    let mut socket = rig.open(0, "/echo");
    begin_message(&socket, 120_000);
    rig.settle();
    assert_eq!(socket.close_code(), Some(1013));
    socket.client.send(&vec![b'p'; (1 << 20) - 120_000]);
    socket.close(1013);
    rig.pass_ms(10);
    assert!(socket.client.saw_fin());
    rig.finish();
}

#[test]
fn bodies_that_never_end_are_shed() {
    let mut rig = Rig::new(&limited(1));
    let clients: Vec<Client> = (0..20).map(|_| rig.connect(0)).collect();
    for client in &clients {
        client.send(b"POST /api/broadcast HTTP/1.1\r\nHost: a\r\nContent-Length: 500000\r\n\r\n");
        client.send(&[b'b'; 9_000]);
        rig.pass_ms(5);
        let held = rig.cores.admission.memory().held();
        assert!(held <= BUDGET, "{held}");
    }
    let refused = clients.iter().filter(|client| client.readable() > 0);
    let refused: Vec<u16> = refused.map(status).collect();
    assert!(refused.len() > 5 && refused.iter().all(|status| *status == 503), "{refused:?}");
    assert_eq!(rig.counters(0).refused.of(RefusalReason::Memory), refused.len() as u64);
    clients.iter().for_each(Client::reset);
    rig.settle();
    assert_eq!(rig.cores.admission.memory().held(), 0);
    rig.finish();
}

#[test]
fn messages_that_a_task_does_not_take_are_shed() {
    let app = || App::new().ws("/stuck", ws().inbox_depth(1000).task(async |_: Connection| pending::<()>().await));
    let mut rig = Rig::new(&Setup { app: Rc::new(app), ..limited(1) });
    let mut socket = rig.open(0, "/stuck");
    for _ in 0..99 {
        socket.frame(TEXT, &[b't'; 1_000]);
    }
    rig.settle();
    assert_eq!((metrics(&mut rig, 0).inbox_bytes, shed(&mut rig)), (99_000, 0));
    socket.frame(TEXT, &[b't'; 2_000]);
    rig.settle();
    assert_eq!((metrics(&mut rig, 0).inbox_bytes, shed(&mut rig)), (0, 1));
    assert_eq!(socket.close_code(), Some(1013));
    socket.close(1013);
    rig.settle();
    assert!(socket.client.saw_fin());
    assert_eq!(rig.cores.admission.memory().held(), 0);
    rig.finish();
}

/// A request whose handler is at work counts, and is left alone.
#[test]
fn requests_at_work_are_counted_and_not_shed() {
    let wait = async |request: Request| {
        sleep(Duration::from_millis(50)).await;
        request.body().len().to_string()
    };
    let mut rig = Rig::new(&Setup { app: Rc::new(move || App::new().post("/wait", wait)), ..limited(1) });
    let client = rig.connect(0);
    client.send(b"POST /wait HTTP/1.1\r\nHost: a\r\nContent-Length: 150000\r\n\r\n");
    for _ in 0..15 {
        client.send(&[b'b'; 10_000]);
    }
    rig.pass_ms(20);
    // What was incomplete at a tick's beginning is shed; what came in one go is at work.
    if shed(&mut rig) == 0 {
        assert!(metrics(&mut rig, 0).partial_bytes >= 150_000);
        rig.pass_ms(100);
        assert_eq!(status(&client), 200);
    }
    assert_eq!(metrics(&mut rig, 0).partial_bytes, 0);
    rig.finish();
}

/// Clients of all kinds under faults: the sum stays near the budget, and ends at nothing.
#[test]
fn whatever_happens_the_books_balance() {
    let slow_task = async |mut connection: Connection| {
        while let Some(message) = connection.recv().await {
            sleep(Duration::from_millis(3)).await;
            let _ = connection.send(message);
        }
    };
    let app = move || standalone::app(&ringwire::Config::default()).ws("/task", ws().task(slow_task));
    for seed in crate::seeds(40) {
        let mut setup = Setup { app: Rc::new(app), ..limited(1 + (seed % 3) as usize) };
        let mut rng = Rng::new(seed);
        setup.settings.direct_bytes_min = rng.pick(&[64, 16 << 10, usize::MAX]);
        setup.settings.pause_bytes = rng.pick(&[1_000, 256 << 10]);
        let cores = setup.cores;
        let mut rig = Rig::faulty(&setup, seed, Faults::harsh());
        let mut clients: Vec<Client> = Vec::new();
        for _ in 0..150 {
            if clients.len() < 12 {
                let path = rng.pick(&["/echo", "/broadcast", "/rooms/x", "/task"]);
                let client = rig.connect(rng.below(cores as u64) as usize);
                client.send(&wire::request(path, "dGhlIHNhbXBsZSBub25jZQ=="));
                client.set_window(rng.pick(&[10, 5_000, 1 << 20]));
                clients.push(client);
            }
            let at = rng.below(clients.len() as u64) as usize;
            let client = &clients[at];
            if client.is_closed() {
                clients.swap_remove(at);
                continue;
            }
            match rng.below(10) {
                0 => {
                    client.reset();
                    clients.swap_remove(at);
                }
                1 | 2 => drop(client.received()),
                _ => {
                    let mut bytes = Vec::new();
                    let payload = vec![b'x'; rng.pick(&[10, 1_000, 20_000, 60_000])];
                    wire::frame(&mut bytes, true, BINARY, &payload, &mut rng);
                    let cut = if rng.chance(0.2) { bytes.len() / 2 } else { bytes.len() };
                    client.send(&bytes[..cut]);
                }
            }
            rig.pass(Duration::from_micros(rng.below(2_000)));
            let (held, partial) = (rig.cores.admission.memory().held(), rig.cores.all.len() as u64);
            assert!(held < BUDGET + partial * 700_000, "seed {seed}: {held}");
        }
        clients.iter().for_each(Client::reset);
        rig.world.set_faults(Faults::none());
        rig.pass_ms(5_000);
        for core in 0..cores {
            let left = metrics(&mut rig, core);
            assert_eq!((left.outbox_bytes, left.partial_bytes), (0, 0), "seed {seed}, core {core}");
        }
        rig.finish();
    }
}

/// The clock stands still while a simulated core works, unless a handler lets time pass.
#[test]
fn the_time_of_handlers_is_measured() {
    let world = World::new(1, Faults::none());
    let clock = world.clone();
    let app = move || {
        let clock = clock.clone();
        App::new()
            .ws("/busy", ws().on_message(move |_: &mut Peer<'_>, _: ringwire::Message<'_>| clock.advance(3_000_000)))
    };
    let cores = Cores::new(&world, &Setup { app: Rc::new(app), ..Setup::default() });
    let mut rig = Rig::of(world, cores);
    let mut socket = rig.open(0, "/busy");
    assert_eq!(rig.counters(0).handling.max_ns(), 0);
    socket.text("now");
    rig.settle();
    let counters = rig.counters(0);
    assert_eq!((counters.handling.max_ns(), counters.handling.sum_ns()), (3_000_000, 3_000_000));
    assert_eq!(counters.handling.count(), counters.ticks);
    rig.finish();
}

/// Everything that a connection does is in the numbers, and the bytes are those of the wire.
#[test]
fn bytes_are_counted_as_the_wire_has_them() {
    for seed in crate::seeds(20) {
        let mut rig = Rig::faulty(&Setup::default(), seed, Faults::none());
        let mut socket = rig.open(0, "/echo");
        socket.client.set_window(if seed.is_multiple_of(2) { 777 } else { 1 << 20 });
        let response = socket.client.readable() as u64;
        let request = rig.counters(0).bytes_in;
        let sizes = [0, 10, 5_000, 100_000];
        let mut got = 0;
        for size in sizes {
            socket.frame(BINARY, &vec![b'x'; size]);
            for _ in 0..300 {
                rig.settle();
                got += socket.events().len();
            }
        }
        assert_eq!(got, sizes.len());
        socket.close(1000);
        rig.settle();
        let counters = rig.counters(0);
        // RFC 6455 5.2: headers of 2, 2, 4 and 10 bytes, and 4 more for a client's key; and a Close frame.
        let frames = (2 + 2 + 4 + 10) + 105_010 + 4;
        assert_eq!((counters.bytes_out, counters.bytes_in), (response + frames, request + frames + 5 * 4));
        assert_eq!((counters.messages_in, counters.messages_out), (4, 4));
        assert!(counters.enters > 0 && counters.completions > 0);
        assert_eq!((counters.accepted, counters.released), (1, 1));
        assert_eq!((counters.closed, counters.closes.of(CloseCode::Normal, Side::Peer)), (1, 1));
        rig.finish();
    }
}
