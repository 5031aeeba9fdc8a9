//! Clients that mean harm or are killed: the server stays, serves others, and afterwards is what it was before: no
//! connections, no more memory, no more descriptors.
//!
//! Ten times as much of everything, and one line of a table for each kind (what it was, how many clients or requests, rounds,
//! resident KiB before and after each round, connections that are meant to stay, time):
//!
//! ```sh
//! ABUSE_SCALE=10 cargo test --release --test abuse -- --test-threads=1 --nocapture | grep '^|'
//! ```

#![cfg(feature = "cli")]
#![forbid(unsafe_code)]

mod common;

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use common::program::{Program, command};
use common::raw::{self, BINARY, End, FIN, PING, Raw, TEXT, frame};
use common::{PATIENCE, client, eventually, pattern, text};
use tungstenite::Message;

fn scale() -> usize {
    std::env::var("ABUSE_SCALE").ok().and_then(|scale| scale.parse().ok()).unwrap_or(1)
}

/// Few buffers, so that memory that grows is memory that leaks.
const SMALL: &[&str] = &["--recv-buffers=64", "--handshake-timeout=2s", "--close-timeout=500ms"];

fn start(arguments: &[&str]) -> Program {
    let program = Program::start(&[SMALL, arguments].concat());
    // Whatever is made once is made before the first measurement.
    for _ in 0..4 {
        echo_once(&program);
    }
    program
}

fn open(program: &Program, path: &str) -> Raw {
    let mut client = Raw::connect(program.address);
    client.upgrade(path);
    client
}

fn echo_once(program: &Program) {
    let mut other = client(program.address, "/echo");
    other.send(Message::text("others")).expect("sent");
    assert_eq!(text(&mut other), "others");
    other.close(None).expect("sent");
    while other.read().is_ok() {}
}

/// Connections that the kernel says the server has (established or half closed), in its network namespace: their lines in
/// its table.
fn connections(address: SocketAddr) -> Vec<String> {
    let table = std::fs::read_to_string("/proc/net/tcp").expect("a table");
    let local = format!("0100007F:{:04X}", address.port());
    // 0A is the listener. What the timer 03 runs for waits for stray packets and belongs to nobody any more: in state 06, and
    // in 05, too, where a client's reset came while the server was closing.
    let is_connection = |line: &&str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        matches!(fields[..], [_, of, _, state, _, timer, ..] if of == local && state != "0A" && !timer.starts_with("03:"))
    };
    table.lines().filter(is_connection).map(str::to_owned).collect()
}

/// What two cores keep for reuse: 16 MiB each for messages under way, 64 buffers of 64 KiB each, and small change.
const KEPT_BYTES: u64 = 2 * ((16 << 20) + 64 * (64 << 10)) + (6 << 20);

/// What the server says of itself that is not as it was: slots, WebSockets, rooms, queued and partial messages, letters.
fn unrest(program: &Program, staying: usize) -> Vec<String> {
    let mut client = Raw::connect(program.address);
    client.send(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    let response = client.response(false);
    assert_eq!(response.status, 200, "{response:?}");
    let sum = |name: &str| -> u64 {
        let values =
            response.body.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix('{')?.split_once("} "));
        let values: Vec<u64> = values.map(|(_, value)| value.parse().expect("a number")).collect();
        assert!(!values.is_empty(), "there is no {name}");
        values.iter().sum()
    };
    let staying = staying as u64;
    let wanted = [
        // The one that asks is there too, with its request.
        ("ringwire_connections", staying + 1..=staying + 1),
        ("ringwire_partial_bytes", 0..=512),
        ("ringwire_websockets", staying..=staying),
        // Each core that has heard of a room knows it.
        ("ringwire_rooms", staying..=2 * staying),
        ("ringwire_outbox_bytes", 0..=0),
        ("ringwire_inbox_bytes", 0..=0),
        ("ringwire_mail_depth", 0..=0),
        ("ringwire_mail_parked", 0..=0),
    ];
    let wrong = wanted.iter().filter(|(name, range)| !range.contains(&sum(name)));
    wrong.map(|(name, range)| format!("{name} is {}, not {range:?}", sum(name))).collect()
}

/// Does it again and again: what the server keeps for reuse has a bound, and a round must come that adds nothing. The
/// abuse says how many clients or requests it was.
fn leaves_nothing(program: &mut Program, name: &str, abuse: impl FnMut(&Program) -> usize) {
    leaves(0, program, name, abuse);
}

/// As [`leaves_nothing`], while some connections stay.
fn leaves(staying: usize, program: &mut Program, name: &str, mut abuse: impl FnMut(&Program) -> usize) {
    const ROUNDS_MAX: usize = 8;
    let start = Instant::now();
    let descriptors = program.descriptors();
    let mut rss = vec![program.rss()];
    let mut count = 0;
    loop {
        count += abuse(program);
        echo_once(program);
        let open = || connections(program.address);
        eventually(|| open().len() == staying, || format!("{staying} connections: {:#?}", open()));
        eventually(|| unrest(program, staying).is_empty(), || format!("rest: {:?}", unrest(program, staying)));
        eventually(|| open().len() == staying, || format!("{staying} connections: {:#?}", open()));
        thread::sleep(Duration::from_millis(50));
        rss.push(program.rss());
        let grown = rss[rss.len() - 1].saturating_sub(rss[rss.len() - 2]);
        // The first round warms up: what is kept for reuse is made there.
        if rss.len() > 2 && grown <= rss[0] / 50 {
            break;
        }
        assert!(rss.len() <= ROUNDS_MAX, "{name}: it grows and grows: {rss:?}");
    }
    assert!(program.is_running());
    assert_eq!(program.descriptors(), descriptors, "{name}");
    let kib: Vec<u64> = rss.iter().map(|bytes| bytes >> 10).collect();
    let rounds = rss.len() - 1;
    // On a line of its own, whatever the harness has begun to say.
    println!("\n| {name} | {count} | {rounds} | {kib:?} | {staying} | {:.1?} |", start.elapsed());
    let slots = 1000 * scale() as u64 * (2 << 10);
    assert!(rss[rss.len() - 1] <= rss[0] + KEPT_BYTES + slots, "{name}: {kib:?}");
}

#[test]
fn clients_reset_in_the_middle_of_a_frame() {
    let mut program = start(&[]);
    leaves_nothing(&mut program, "reset mid-frame", |program| {
        let beginnings = [
            raw::binary(&pattern(5000))[..3000].to_vec(),
            raw::text("x")[..3].to_vec(),
            frame(TEXT, b"a fragment"),
            raw::binary(&pattern(1 << 20))[..100_000].to_vec(),
        ];
        let clients: Vec<Raw> = (0..200 * scale())
            .map(|number| {
                let mut client = open(program, if number % 3 == 0 { "/echo" } else { "/broadcast" });
                client.send(&beginnings[number % beginnings.len()]);
                client
            })
            .collect();
        let count = clients.len();
        clients.into_iter().for_each(Raw::reset);
        count
    });
}

// A reset between the request and its answer, and in the middle of the request.
#[test]
fn clients_reset_during_the_handshake() {
    let mut program = start(&[]);
    leaves_nothing(&mut program, "reset in the handshake", |program| {
        let request = raw::upgrade_request("/broadcast");
        for number in 0..300 * scale() {
            let mut client = Raw::connect(program.address);
            client.send(&request[..request.len() - number % 3]);
            client.reset();
        }
        300 * scale()
    });
}

/// Sends these bytes one by one on each connection, checks that others are served and that these get 408, and counts them.
fn trickle(program: &Program, mut clients: Vec<Raw>, bytes: &[u8]) -> usize {
    for byte in bytes {
        for client in &mut clients {
            // The server may have had enough of it.
            client.send_if_open(&[*byte]);
        }
        thread::sleep(Duration::from_millis(30));
    }
    echo_once(program);
    for client in &mut clients {
        assert_eq!(client.try_response(false).map(|response| response.status), Ok(408));
    }
    clients.len()
}

#[test]
fn slow_heads_end_by_408_and_others_are_served() {
    let mut program = start(&["--handshake-timeout=400ms"]);
    leaves_nothing(&mut program, "slow heads", |program| {
        let clients: Vec<Raw> = (0..100 * scale()).map(|_| Raw::connect(program.address)).collect();
        let request = raw::upgrade_request("/echo");
        trickle(program, clients, &request[..20])
    });
}

#[test]
fn half_open_connections_end_by_the_idle_timeout() {
    let mut program = start(&["--idle-timeout=500ms", "--ping-interval=200ms"]);
    leaves_nothing(&mut program, "half open", |program| {
        // They neither send nor read any more, as if the cable had been cut.
        let clients: Vec<Raw> = (0..100 * scale()).map(|_| open(program, "/broadcast")).collect();
        thread::sleep(Duration::from_millis(100));
        echo_once(program);
        thread::sleep(Duration::from_millis(800));
        let last = |mut client: Raw| client.frames().1;
        assert!(clients.into_iter().all(|client| last(client) == End::Finished));
        100 * scale()
    });
}

#[test]
fn a_flood_past_the_most_connections() {
    let mut program = start(&["--max-connections=50"]);
    leaves_nothing(&mut program, "past the most connections", |program| {
        let mut inside: Vec<Raw> = (0..50).map(|_| open(program, "/broadcast")).collect();
        let refused: usize = thread::scope(|scope| {
            let flood = || {
                (0..100 * scale())
                    .filter(|_| {
                        let mut client = Raw::connect(program.address);
                        client.send(&raw::upgrade_request("/broadcast"));
                        let response = client.response(false);
                        assert_eq!((response.status, response.header("retry-after")), (503, Some("1")));
                        true
                    })
                    .count()
            };
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(flood)).collect();
            threads.into_iter().map(|thread| thread.join().expect("no panic")).sum()
        });
        assert_eq!(refused, 400 * scale());
        inside[0].send(&raw::text("we are served"));
        for client in &mut inside {
            assert_eq!(client.frame().payload, b"we are served");
        }
        // All at once, and their places are free again.
        inside.into_iter().for_each(Raw::reset);
        eventually(|| connections(program.address).is_empty(), || "free places".into());
        refused + 50
    });
}

// Sockets of the ring are no descriptors of the process, but their number has the same bound. Past it, whoever comes is
// told so or waits in the backlog, and nothing is lost.
#[test]
fn past_the_limit_of_descriptors_connections_are_refused_or_wait() {
    let limit = 128;
    let arguments = [&["--addr=127.0.0.1:0", "--cores=1", "--log=off"], SMALL].concat();
    let mut program = Program::run(command(&format!("ulimit -n {limit}"), &arguments));
    leaves_nothing(&mut program, "past the descriptors", |program| {
        let mut clients: Vec<Raw> = (0..limit * 3).map(|_| Raw::connect(program.address)).collect();
        for client in &mut clients {
            client.send(&raw::upgrade_request("/echo"));
        }
        let mut served = 0;
        // Whoever has an answer leaves, and makes room for one who waits.
        for mut client in clients {
            let response = client.response(false);
            match response.status {
                101 => {
                    client.send(&raw::text("x"));
                    assert_eq!(client.frame().payload, b"x");
                    served += 1;
                }
                _ => assert_eq!((response.status, response.header("retry-after")), (503, Some("1"))),
            }
            client.reset();
        }
        assert!(served >= limit / 2, "{served} of {limit}");
        limit * 3
    });
}

#[test]
fn a_client_that_never_reads_cannot_fill_the_memory() {
    let mut program = start(&[]);
    leaves_nothing(&mut program, "never reads", |program| {
        let before = program.rss();
        thread::scope(|scope| {
            for (size, pause_ms) in [(100, 0), (10_000, 0), (500_000, 0), (100, 1), (500_000, 1)] {
                scope.spawn(move || {
                    let client = open(program, "/echo");
                    let mut writer = client.stream.try_clone().expect("a second handle");
                    writer.set_write_timeout(Some(Duration::from_millis(700))).expect("a timeout");
                    let messages = raw::binary(&pattern(size)).repeat(1_000_000 / size);
                    let mut sent = 0;
                    while sent < 100 << 20 {
                        for part in messages.chunks(64 << 10) {
                            if writer.write_all(part).is_err() {
                                return;
                            }
                            sent += part.len();
                            thread::sleep(Duration::from_millis(pause_ms));
                        }
                    }
                });
            }
            thread::sleep(Duration::from_millis(500));
            echo_once(program);
        });
        let grown = program.rss().saturating_sub(before);
        assert!(grown < KEPT_BYTES, "{grown} bytes for five connections");
        5
    });
}

#[test]
fn members_that_never_read_do_not_hold_the_others_up() {
    let mut program = start(&["--max-outbox=256KiB"]);
    leaves_nothing(&mut program, "members that never read", |program| {
        let stalled: Vec<Raw> = (0..20 * scale()).map(|_| open(program, "/broadcast")).collect();
        let mut sender = client(program.address, "/broadcast");
        let message = pattern(64 << 10);
        let before = program.rss();
        let start = Instant::now();
        for _ in 0..400 {
            sender.send(Message::binary(message.clone())).expect("sent");
            assert!(sender.read().expect("its own copy").into_data() == message[..]);
        }
        assert!(start.elapsed() < PATIENCE, "{:?}", start.elapsed());
        let grown = program.rss().saturating_sub(before);
        assert!(grown < 20 * scale() as u64 * (512 << 10) + (8 << 20), "{grown} bytes");
        stalled.len()
    });
}

#[test]
fn floods_of_small_things() {
    let mut program = start(&[]);
    leaves_nothing(&mut program, "floods of small things", |program| {
        let floods = [
            frame(FIN | PING, b"ping").repeat(10_000),
            [frame(TEXT, b""), frame(0, b"").repeat(20_000), frame(FIN, b"end")].concat(),
            raw::text("").repeat(10_000),
            b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n".repeat(3000),
            b"\r\n".repeat(20_000),
            vec![0x81; 100_000],
        ];
        for flood in floods.iter().cycle().take(floods.len() * scale()) {
            let mut client = Raw::connect(program.address);
            if !flood.starts_with(b"GET") && !flood.starts_with(b"\r") {
                client.upgrade("/echo");
            }
            let mut writer = client.stream.try_clone().expect("a second handle");
            thread::scope(|scope| {
                scope.spawn(move || {
                    // It may be refused half way.
                    let _ = writer.write_all(flood);
                    let _ = writer.shutdown(std::net::Shutdown::Write);
                });
                client.rest();
            });
        }
        floods.len() * scale()
    });
}

/// A process of its own that holds connections in the middle of things, to be killed.
fn spawn_client_process(address: SocketAddr, connections: usize) -> Child {
    let program = std::env::current_exe().expect("this program");
    let mut child = Command::new(program)
        .args(["--exact", "be_a_client_process", "--nocapture"])
        .env("ABUSE_CLIENT", format!("{connections} {address}"))
        .stdout(Stdio::piped())
        .spawn()
        .expect("it starts");
    let output = BufReader::new(child.stdout.take().expect("a pipe"));
    let ready = output.lines().map_while(Result::ok).any(|line| line.contains("all are open"));
    assert!(ready, "the client process failed");
    child
}

// Does nothing unless it was started by the test below.
#[test]
fn be_a_client_process() {
    let Ok(orders) = std::env::var("ABUSE_CLIENT") else { return };
    let (count, address) = orders.split_once(' ').expect("a number and an address");
    let address: SocketAddr = address.parse().expect("an address");
    let count: usize = count.parse().expect("a number");
    let message = raw::binary(&pattern(100_000));
    let clients: Vec<Raw> = (0..count)
        .map(|number| {
            let mut client = Raw::connect(address);
            match number % 5 {
                0 => client.send(&raw::upgrade_request("/echo")[..50]),
                1 => client.upgrade("/broadcast"),
                // Mid-frame, mid-message, and with replies that it does not read.
                2 => {
                    client.upgrade("/broadcast");
                    client.send(&message[..30_000]);
                }
                3 => {
                    client.upgrade("/echo");
                    client.send(&frame(BINARY, &[1; 500]));
                }
                _ => {
                    client.upgrade("/echo");
                    client.send(&raw::binary(&[2; 50]).repeat(20));
                }
            }
            client
        })
        .collect();
    println!("all are open");
    thread::sleep(Duration::from_secs(60));
    drop(clients);
}

#[test]
fn client_processes_killed() {
    let mut program = start(&[]);
    let mut watcher = client(program.address, "/rooms/watch");
    leaves(1, &mut program, "killed processes", |program| {
        let children: Vec<Child> = (0..4).map(|_| spawn_client_process(program.address, 50 * scale())).collect();
        for mut child in children {
            child.kill().expect("it runs");
            child.wait().expect("it ended");
        }
        watcher.send(Message::text("still there")).expect("sent");
        assert_eq!(text(&mut watcher), "still there");
        200 * scale()
    });
}

// The time for a head is the time for its body too.
#[test]
fn slow_bodies_end_and_others_are_served() {
    let mut program = start(&["--handshake-timeout=400ms"]);
    leaves_nothing(&mut program, "slow bodies", |program| {
        let head = b"POST /api/broadcast HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n\r\n";
        let mut clients: Vec<Raw> = (0..100 * scale()).map(|_| Raw::connect(program.address)).collect();
        clients.iter_mut().for_each(|client| client.send(head));
        trickle(program, clients, b"xxxxx")
    });
}

#[test]
fn upgrades_and_then_silence() {
    let mut program = start(&["--idle-timeout=600ms", "--ping-interval=0"]);
    leaves_nothing(&mut program, "upgraded, then silent", |program| {
        let clients: Vec<Raw> = (0..200 * scale()).map(|n| open(program, ["/echo", "/ws"][n % 2])).collect();
        echo_once(program);
        let count = clients.len();
        assert!(clients.into_iter().all(|mut client| client.rest().1 != End::Open));
        count
    });
}

#[test]
fn connections_that_say_nothing_at_all() {
    let mut program = start(&["--handshake-timeout=500ms"]);
    leaves_nothing(&mut program, "connected, then silent", |program| {
        let clients: Vec<Raw> = (0..200 * scale()).map(|_| Raw::connect(program.address)).collect();
        echo_once(program);
        let count = clients.len();
        assert!(clients.into_iter().all(|mut client| client.rest().1 != End::Open));
        count
    });
}

#[test]
fn a_storm_of_resets() {
    let mut program = start(&[]);
    leaves_nothing(&mut program, "reset storm", |program| {
        thread::scope(|scope| {
            for half in 0..2 {
                scope.spawn(move || {
                    for number in 0..1000 * scale() {
                        let mut client = Raw::connect(program.address);
                        if (number + half) % 2 == 0 {
                            client.send(b"GET /echo HTTP/1.1\r\n");
                        }
                        client.reset();
                    }
                });
            }
        });
        2000 * scale()
    });
}

// What a header declares costs nothing until it has come.
#[test]
fn huge_lengths_are_declared() {
    let mut program = start(&["--max-message=4GiB", "--max-body=1GiB"]);
    leaves_nothing(&mut program, "huge declared lengths", |program| {
        let before = program.rss();
        let declare = |len: u64| [&[0x82, 0xFF][..], &len.to_be_bytes(), &[0; 4], &[7; 100]].concat();
        let clients: Vec<Raw> = (0..100 * scale())
            .map(|number| {
                let mut client = match number % 5 {
                    0 => Raw::connect(program.address),
                    _ => open(program, "/echo"),
                };
                client.send(&match number % 5 {
                    0 => b"POST /api/broadcast HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1073741824\r\n\r\nabc"
                        .to_vec(),
                    1 => declare((4 << 30) - 1),
                    2 => declare(i64::MAX as u64),
                    3 => declare(u64::MAX),
                    _ => [&frame(TEXT, b"begun"), &[0x80][..], &declare(1 << 31)[1..]].concat(),
                });
                client
            })
            .collect();
        echo_once(program);
        let grown = program.rss().saturating_sub(before);
        assert!(grown < KEPT_BYTES + clients.len() as u64 * (256 << 10), "{grown} bytes");
        let count = clients.len();
        clients.into_iter().for_each(Raw::reset);
        count
    });
}

#[test]
fn bytes_that_mean_nothing() {
    let mut program = start(&[]);
    leaves_nothing(&mut program, "garbage", |program| {
        let mut state = 0x9E37_79B9_u32;
        for number in 0..300 * scale() {
            let garbage: Vec<u8> = (0..500)
                .map(|_| {
                    state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    (state >> 24) as u8
                })
                .collect();
            let mut client = Raw::connect(program.address);
            if number % 2 == 0 {
                client.upgrade("/echo");
            }
            let _ = client.stream.write_all(&garbage);
            client.finish_sending();
            assert_ne!(client.rest().1, End::Open);
        }
        300 * scale()
    });
}

// Client, server and network all end the connection at about the same time.
#[test]
fn closes_race() {
    let mut program = start(&["--close-timeout=20ms"]);
    leaves_nothing(&mut program, "close races", |program| {
        for number in 0..100 * scale() {
            let mut client = open(program, "/ws");
            let connected = String::from_utf8(client.frame().payload).expect("text");
            let id = connected.split('"').rev().nth(1).expect("an id").to_owned();
            let mut admin = Raw::connect(program.address);
            admin.send(format!("DELETE /api/ws/connections/{id} HTTP/1.1\r\nHost: localhost\r\n\r\n").as_bytes());
            match number % 4 {
                0 => client.send(&raw::close(1000, b"bye")),
                1 => client.finish_sending(),
                2 => {
                    client.reset();
                    assert!(matches!(admin.response(false).status, 200 | 404));
                    continue;
                }
                _ => client.send(&[0x83, 0x80, 0, 0, 0, 0]),
            }
            assert!(matches!(admin.response(false).status, 200 | 404));
            client.send_if_open(&raw::close(1008, b""));
            assert_ne!(client.rest().1, End::Open);
        }
        100 * scale()
    });
}

#[test]
fn rooms_are_made_and_left() {
    let mut program = start(&[]);
    leaves_nothing(&mut program, "room churn", |program| {
        let mut clients: Vec<Raw> = (0..20).map(|_| open(program, "/ws")).collect();
        for number in 0..50 * scale() {
            for (who, client) in clients.iter_mut().enumerate() {
                let room = format!("{}-{number}", who % 7);
                for event in ["join", "typing", "leave"] {
                    client.send(&raw::text(&format!(r#"{{"event":"{event}","data":{{"room":"{room}"}}}}"#)));
                }
            }
            // What they are told must be read, or they are slow consumers.
            for client in &mut clients {
                while !String::from_utf8(client.frame().payload).expect("text").starts_with(r#"{"event":"left""#) {}
            }
        }
        let count = clients.len() * 50 * scale();
        clients.into_iter().for_each(Raw::reset);
        // Rooms of one connection each.
        let visitors: Vec<Raw> = (0..100 * scale()).map(|n| open(program, &format!("/rooms/visited-{n}"))).collect();
        count + visitors.len()
    });
}
