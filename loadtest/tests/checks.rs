//! The load generator against servers that are right and servers that are wrong in one way each.
//!
//! The servers here share no code with the generator: framing is tungstenite's.

mod common;

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    process::Command,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use common::{assert_only, program, run, run_on, says, scratch, serve, serve_echo};
use serde_json::{Value, json};
use tungstenite::{
    Message, WebSocket,
    handshake::server::{Request, Response},
    protocol::frame::{
        Frame, FrameHeader,
        coding::{Data, OpCode},
    },
};

fn echo(code: i32, addr: SocketAddr, options: &str) -> Value {
    run(code, "echo", &format!("ws://{addr}/echo"), options)
}

const SHORT: &str = "--connections 3 --pipeline 4 --warmup 0 --count 300";
/// As many, dealt out: each connection sends 100 of them, however little the machine lets one of them do meanwhile.
const DEALT: &str = "--connections 3 --pipeline 4 --warmup 0 --rate 5000 --count 300";

#[test]
fn an_echo_server_passes_at_every_size_and_with_both_opcodes() {
    let addr = serve_echo(|_, message| vec![message]);
    for size in ["0", "1", "8", "125", "126", "4KiB", "65535", "65536", "0..300", "64:9,5000:1"] {
        for kind in ["--text", "--binary"] {
            echo(0, addr, &format!("{SHORT} --size {size} {kind}"));
        }
    }
    echo(0, addr, "--connections 2 --pipeline 3 --size 1MiB --warmup 0 --count 20");
    let figures = echo(0, addr, "--connections 5 --threads 2 --warmup 0.1 --duration 0.2");
    assert!(figures["messages"].as_u64() > Some(10), "{figures}");
}

/// Kills: what is left of a short send that is cut where no frame ends.
#[test]
fn more_is_in_flight_than_sockets_hold() {
    // It reads the next message when the answer to the last one is sent, so requests and answers both pile up.
    let addr = serve_echo(|_, message| vec![message]);
    for (pipeline, size) in
        [(40, "100KiB"), (40, "65530..65545"), (2_000, "120..130"), (300, "0:1,125:1,126:1,65536:1")]
    {
        echo(
            0,
            addr,
            &format!("--connections 2 --pipeline {pipeline} --size {size} --warmup 0 --count {}", 3 * pipeline),
        );
    }
}

#[test]
fn a_count_is_kept_exactly_and_figures_are_written() {
    let served = Arc::new(AtomicU64::new(0));
    let count = served.clone();
    let addr = serve_echo(move |_, message| {
        count.fetch_add(1, Ordering::Relaxed);
        vec![message]
    });
    let (html, log) = (scratch("page.html"), scratch("log.hlog"));
    let pid = std::process::id();
    let options =
        format!("{SHORT} --threads 2 --server-pid {pid} --html {} --hdr-log {}", html.display(), log.display());
    let figures = echo(0, addr, &options);
    assert_eq!(served.load(Ordering::Relaxed), 300);
    assert_eq!((&figures["messages"], &figures["problem_count"]), (&300.into(), &0.into()));
    for pointer in ["/messages_per_s", "/client/cpu_us_per_message", "/server/rss_bytes"] {
        assert!(figures.pointer(pointer).and_then(Value::as_f64).is_some_and(|value| value > 0.0), "{pointer}");
    }
    let server = &figures["server"];
    assert!(server["cores"].as_u64() >= Some(1) && server["busiest_thread_share"].is_f64(), "{server}");
    // Of a process the kernel tells the time in hundredths of a second, which is more than 300 messages take.
    assert!(figures["server"]["cpu_us_per_message"].is_f64(), "{figures}");
    let latency = &figures["latency_us"];
    assert_eq!(latency["count"], 300);
    assert!(latency["p99.9"].as_f64() >= latency["p50"].as_f64() && latency["p50"].as_f64() > Some(0.0));
    let page = std::fs::read_to_string(&html).expect("written");
    assert!(page.contains("<svg") && page.ends_with("</html>\n"));
    let text = std::fs::read_to_string(&log).expect("written");
    assert!(text.contains("HIST"), "{text}");
    [html, log].into_iter().for_each(|path| std::fs::remove_file(path).expect("ours"));
}

#[test]
fn dropped_replies_are_lost_and_counted() {
    let addr = serve_echo(|number, message| if number == 7 || number == 20 { vec![] } else { vec![message] });
    let figures = echo(1, addr, DEALT);
    assert_only(&figures, "lost", 6);
    // With one in flight nothing follows the lost reply: only waiting shows it.
    let addr = serve_echo(|number, message| if number == 7 { vec![] } else { vec![message] });
    let figures = echo(1, addr, "--connections 1 --warmup 0 --count 20 --patience 2");
    assert_only(&figures, "lost", 1);
    says(&figures, "1 replies never came");
}

#[test]
fn doubled_replies_are_counted() {
    let addr = serve_echo(|number, message| if number == 7 { vec![message.clone(), message] } else { vec![message] });
    assert_only(&echo(1, addr, DEALT), "duplicated", 3);
}

#[test]
fn reordered_replies_are_counted_and_not_lost() {
    let held: Mutex<Option<Message>> = Mutex::new(None);
    let addr = serve_echo(move |number, message| match number {
        7 => {
            *held.lock().expect("held briefly") = Some(message);
            vec![]
        }
        8 => vec![message, held.lock().expect("held briefly").take().expect("kept before")],
        _ => vec![message],
    });
    let figures = echo(1, addr, "--connections 1 --pipeline 4 --warmup 0 --count 100");
    assert_only(&figures, "reordered", 1);
    says(&figures, "message 7 came behind a later one");
}

#[test]
fn corrupted_replies_are_counted_wherever_the_byte_is() {
    for at in [0, 8, 13, 63] {
        let addr = serve_echo(move |number, message| match number {
            5 => {
                let mut bytes = message.into_data().to_vec();
                bytes[at] ^= 1;
                vec![Message::binary(bytes)]
            }
            _ => vec![message],
        });
        let figures = echo(1, addr, &format!("{DEALT} --binary"));
        assert_only(&figures, "corrupted", 3);
        says(&figures, &format!("message 5 is wrong at byte {at} of 64"));
    }
    // In the middle of a message that arrives in pieces.
    let addr = serve_echo(|number, message| {
        let mut bytes = message.into_data().to_vec();
        bytes[150_000] ^= u8::from(number == 2);
        vec![Message::binary(bytes)]
    });
    let options = "--connections 2 --pipeline 2 --size 200000 --binary --rate 2000 --warmup 0 --count 20";
    let figures = echo(1, addr, options);
    assert_only(&figures, "corrupted", 2);
    says(&figures, "is wrong at byte 150000 of 200000");
}

#[test]
fn a_reply_of_another_opcode_or_length_is_corrupted() {
    let addr = serve_echo(
        |number, message| {
            if number == 4 { vec![Message::binary(message.into_data())] } else { vec![message] }
        },
    );
    let figures = echo(1, addr, DEALT);
    assert_only(&figures, "corrupted", 3);
    says(&figures, "is binary instead of text");
    let addr = serve_echo(|number, message| if number == 4 { vec!["short".into()] } else { vec![message] });
    let figures = echo(1, addr, DEALT);
    assert_only(&figures, "corrupted", 3);
    says(&figures, "has 5 bytes instead of 64");
}

#[test]
fn a_stall_shows_in_the_corrected_percentiles_only() {
    let addr = serve_echo(|number, message| {
        if number == 50 {
            thread::sleep(Duration::from_secs(1));
        }
        vec![message]
    });
    let figures = echo(0, addr, "--connections 1 --rate 200 --warmup 0 --duration 2");
    let us = |key: &str, time: &str| figures[key][time].as_f64().expect("a figure");
    assert!(us("latency_us", "p90") > 500_000.0, "{}", figures["latency_us"]);
    assert!(us("uncorrected_us", "p90") < 100_000.0, "{}", figures["uncorrected_us"]);
    assert!(us("uncorrected_us", "max") > 900_000.0, "{}", figures["uncorrected_us"]);
    assert_eq!(figures["unsent"], 0);
    let rate = figures["messages_per_s"].as_f64().expect("a figure");
    assert!(rate < 210.0, "{rate}");
}

#[test]
fn a_delay_misses_the_objective() {
    let addr = serve_echo(|_, message| {
        thread::sleep(Duration::from_millis(20));
        vec![message]
    });
    let options = "--connections 2 --warmup 0 --count 20 --slo";
    let figures = echo(3, addr, &format!("{options} p50<10ms,lost=0"));
    assert_eq!((&figures["slo"][0]["met"], &figures["slo"][1]["met"]), (&false.into(), &true.into()));
    echo(0, addr, &format!("{options} p50>10ms"));
    assert_eq!(run_on("echo", &format!("ws://{addr}/"), "--slo p50<10").status.code(), Some(2));
}

#[test]
fn a_close_in_the_middle_fails() {
    let addr = serve_echo(|number, message| if number == 9 { vec![Message::Close(None)] } else { vec![message] });
    let figures = echo(1, addr, DEALT);
    assert_eq!((&figures["close_codes"]["1005"], &figures["connections"]["failed"]), (&3.into(), &3.into()));
    let addr = serve(|stream| {
        let mut socket = tungstenite::accept(stream).expect("a handshake");
        (0..9).for_each(|_| {
            let message = socket.read().expect("a message");
            socket.send(message).expect("open");
        });
    });
    let figures = echo(1, addr, "--connections 1 --warmup 0 --count 20 --patience 2");
    says(&figures, "connection 0: ");
    assert_eq!((&figures["checks"]["lost"], &figures["connections"]["failed"]), (&1.into(), &1.into()));
}

#[test]
fn pings_between_replies_are_answered_and_disturb_nothing() {
    let pongs = Arc::new(AtomicU64::new(0));
    let count = pongs.clone();
    let addr = serve(move |stream| {
        let mut socket = tungstenite::accept(stream).expect("a handshake");
        while let Ok(message) = socket.read() {
            if message.is_pong() {
                assert_eq!(message.into_data(), "are you there");
                count.fetch_add(1, Ordering::Relaxed);
            } else if message.is_text() {
                socket.send(Message::Ping("are you there".into())).expect("open");
                socket.send(message).expect("open");
            }
        }
    });
    echo(0, addr, "--connections 1 --warmup 0 --count 50");
    assert!(pongs.load(Ordering::Relaxed) >= 49);
}

/// A server of rooms by path; `skip` says which delivery, counted over all, is left out. Members that do not read make
/// it wait for nobody: their sockets are not blocking.
fn serve_rooms(skip: Option<usize>) -> SocketAddr {
    type Members = Arc<Mutex<Vec<(String, TcpStream)>>>;
    let members: Members = Arc::default();
    let mut delivered = 0;
    let deliver = Mutex::new(move |stream: &mut TcpStream, frame: &[u8]| {
        if Some(delivered) != skip {
            let _ = stream.write_all(frame);
        }
        delivered += 1;
    });
    serve(move |stream| {
        stream.set_nodelay(true).expect("a TCP socket");
        let writer = stream.try_clone().expect("a socket");
        writer.set_write_timeout(Some(Duration::from_millis(1))).expect("a TCP socket");
        let mut room = String::new();
        #[allow(clippy::result_large_err)]
        let accepted = tungstenite::accept_hdr(stream, |request: &Request, response: Response| {
            room = request.uri().path().to_owned();
            members.lock().expect("held briefly").push((room.clone(), writer));
            Ok(response)
        });
        let mut socket: WebSocket<TcpStream> = accepted.expect("a handshake");
        while let Ok(message) = socket.read() {
            if message.is_close() {
                break;
            }
            let mut frame = Vec::new();
            let header = FrameHeader { opcode: OpCode::Data(Data::Text), ..FrameHeader::default() };
            Frame::from_payload(header, message.into_data()).format(&mut frame).expect("a vector takes all");
            let mut deliver = deliver.lock().expect("held briefly");
            let mut members = members.lock().expect("held briefly");
            members.iter_mut().filter(|member| member.0 == room).for_each(|member| deliver(&mut member.1, &frame));
        }
        let _ = socket.close(None);
        while socket.read().is_ok() {}
    })
}

#[test]
fn a_broadcast_server_passes_and_every_delivery_counts() {
    let url = format!("ws://{}/broadcast", serve_rooms(None));
    for (burst, threads) in [(1, 1), (8, 1), (8, 2)] {
        let options = format!("--subscribers 5 --burst {burst} --threads {threads} --warmup 0 --count 80");
        let figures = run(0, "fanout", &url, &options);
        assert_eq!((&figures["messages"], &figures["published"]), (&480.into(), &80.into()));
        assert_eq!(figures["spread_us"]["count"], 80, "one spread per message");
    }
    let options = "--subscribers 3 --publishers 3 --threads 2 --rate 300 --warmup 0 --duration 0.5";
    let figures = run(0, "broadcast", &url, options);
    assert!(figures["published"].as_u64() > Some(120), "{figures}");
}

#[test]
fn a_missing_delivery_is_lost() {
    let url = format!("ws://{}/broadcast", serve_rooms(Some(17)));
    let figures = run(1, "broadcast", &url, "--subscribers 5 --burst 2 --warmup 0 --count 80 --patience 1");
    assert_only(&figures, "lost", 1);
}

#[test]
fn rooms_are_apart() {
    let url = format!("ws://{}/rooms/{{room}}", serve_rooms(None));
    let figures = run(0, "rooms", &url, "--rooms 4 --members 3 --publishers 2 --threads 2 --warmup 0 --count 80");
    assert_eq!(figures["messages"], 240, "each of 80 messages to its room's 3 members");
    // A server that knows only one room delivers to strangers.
    let addr = serve_rooms(None);
    let figures = run(
        1,
        "rooms",
        &format!("ws://{addr}/all?{{room}}"),
        "--rooms 2 --members 2 --warmup 0 --count 4 --patience 1",
    );
    assert_eq!(figures["checks"]["unexpected"], 8, "{figures}");
}

#[test]
fn readers_do_not_suffer_from_others_that_stall() {
    let url = format!("ws://{}/broadcast", serve_rooms(None));
    let options = "--subscribers 5 --stalled 2 --size 1KiB --rate 200 --warmup 0 --duration 1";
    let figures = run(0, "slow", &url, options);
    for key in ["before_stall_us", "while_stalled_us"] {
        assert!(figures[key]["count"].as_u64() > Some(300), "{key}: {figures}");
    }
}

/// Kills: a run of slow readers in which nobody is slow.
#[test]
fn a_stall_behind_the_window_is_refused() {
    for (after, is_refused) in [("9", true), ("1000ms", true), ("0.9", false)] {
        // Nobody is there: what is refused is refused before that is seen.
        let output = run_on("slow", "ws://127.0.0.1:1/", &format!("--stall-after {after} --duration 1"));
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{text}");
        assert_eq!(
            text.contains("the window is over after 1s (--duration), and nobody would stall"),
            is_refused,
            "{text}"
        );
    }
}

#[test]
fn raw_mode_expects_the_bytes_it_sent() {
    let addr = serve(|mut stream| {
        let mut buffer = [0; 4096];
        while let Ok(count @ 1..) = stream.read(&mut buffer) {
            stream.write_all(&buffer[..count]).expect("open");
        }
    });
    echo(0, addr, &format!("{SHORT} --raw --size 64"));
    echo(0, addr, &format!("{SHORT} --raw --size 70000"));
    run(0, "connect", &format!("ws://{addr}/"), "--raw --echo --connections 20");
    let addr = serve(|mut stream| {
        let mut buffer = [0; 70];
        while stream.read_exact(&mut buffer).is_ok() {
            buffer[69] ^= 1;
            stream.write_all(&buffer).expect("open");
        }
    });
    let figures = echo(1, addr, "--connections 1 --warmup 0 --count 3 --patience 1 --raw --size 64");
    assert_eq!(figures["checks"]["corrupted"], 1, "{figures}");
}

#[test]
fn connections_are_opened_pinged_and_held() {
    let addr = serve_echo(|_, message| vec![message]);
    let url = format!("ws://{addr}/echo");
    let options = "--connections 100 --concurrency 8 --echo --ping --hold 0.1 --bind 127.0.0.1-127.0.0.3 --threads 2";
    let figures = run(0, "connect", &url, options);
    assert_eq!((&figures["connections"]["ready"], &figures["ping_us"]["count"]), (&100.into(), &200.into()));
    let figures = run(0, "connect", &url, "--connections 30 --ramp 100");
    let ramp_s = figures["connections"]["ramp_s"].as_f64().expect("a figure");
    assert!((0.25..3.0).contains(&ramp_s), "{ramp_s}");

    // Pings that nobody answers.
    let addr = serve(|mut stream| {
        drop(tungstenite::accept(stream.try_clone().expect("a socket")).expect("a handshake"));
        while let Ok(1..) = stream.read(&mut [0; 100]) {}
    });
    let figures = run(1, "connect", &format!("ws://{addr}/"), "--connections 3 --ping --patience 1");
    assert_eq!(figures["checks"]["lost"], 3, "{figures}");
}

#[test]
fn users_come_and_go() {
    let addr = serve_echo(|_, message| vec![message]);
    let url = format!("ws://{addr}/echo");
    let figures = run(0, "churn", &url, "--users 4 --words 2 --threads 2 --warmup 0 --count 60");
    assert_eq!((&figures["messages"], &figures["handshake_us"]["count"]), (&60.into(), &60.into()));
    run(0, "churn", &url, "--users 4 --rate 100 --warmup 0 --duration 0.4");
    let addr = serve_echo(|number, message| if number == 1 { vec![] } else { vec![message] });
    let url = format!("ws://{addr}/echo");
    let figures = run(1, "churn", &url, "--users 2 --words 2 --warmup 0 --count 2 --patience 1");
    assert_only(&figures, "lost", 2);
}

#[test]
fn what_the_handshake_says_is_sent_and_checked() {
    let addr = serve(|stream| {
        #[allow(clippy::result_large_err)]
        let accepted = tungstenite::accept_hdr(stream, |request: &Request, mut response: Response| {
            let named =
                |name: &str| request.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
            assert_eq!((named("authorization"), named("sec-websocket-protocol")), ("Bearer x", "chat-v1"));
            response.headers_mut().insert("sec-websocket-protocol", "chat-v1".parse().expect("a value"));
            Ok(response)
        });
        let mut socket = accepted.expect("a handshake");
        while let Ok(message) = socket.read() {
            if socket.send(message).is_err() {
                return;
            }
        }
    });
    let output = program()
        .args(["echo", "-q", "--url", &format!("ws://{addr}/"), "--subprotocol", "chat-v1"])
        .args(["--header", "Authorization: Bearer x", "--warmup", "0", "--count", "5", "--connections", "1"])
        .output();
    assert_eq!(output.expect("it starts").status.code(), Some(0));
}

#[test]
fn refusals_are_told_by_their_status() {
    let admitted = AtomicU64::new(0);
    let addr = serve(move |mut stream| {
        if admitted.fetch_add(1, Ordering::Relaxed) < 3 {
            let mut socket = tungstenite::accept(stream).expect("a handshake");
            while socket.read().is_ok() {}
            return;
        }
        let _ = stream.read(&mut [0; 4096]);
        let _ = stream.write_all(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n");
    });
    let figures = run(1, "connect", &format!("ws://{addr}/"), "--connections 5 --concurrency 1");
    assert_eq!((&figures["http_statuses"]["503"], &figures["connections"]["ready"]), (&2.into(), &3.into()));
}

#[test]
fn a_server_that_is_not_there_is_an_error() {
    let addr = TcpListener::bind("127.0.0.1:0").expect("a free port").local_addr().expect("bound");
    let output = run_on("echo", &format!("ws://{addr}/"), SHORT);
    assert_eq!(output.status.code(), Some(2));
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(text.contains("no connection could be opened") && text.contains("refused"), "{text}");
}

#[test]
fn the_url_may_stand_by_itself_and_times_have_units() {
    let addr = serve_echo(|_, message| vec![message]);
    let url = format!("ws://{addr}/echo");
    let json = scratch("figures.json");
    let output = program()
        .args(["echo", "-q", "--connections", "2", "--warmup", "50ms", "--duration", "300ms", "--patience", "1m"])
        .args([&url, "--json"])
        .arg(&json)
        .output()
        .expect("it starts");
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    let figures: Value = serde_json::from_slice(&std::fs::read(&json).expect("written")).expect("JSON");
    std::fs::remove_file(json).expect("ours");
    assert_eq!(figures["url"], url);
    let elapsed = figures["elapsed_s"].as_f64().expect("a figure");
    assert!((0.3..2.0).contains(&elapsed), "{elapsed}");

    for (arguments, why) in [
        (vec!["echo"], "<URL|--url <URL>>"),
        (vec!["echo", &url, "--url", &url], "cannot be used with"),
        (vec!["echo", &url, "--duration", "5x"], "a time is a number of seconds"),
    ] {
        let output = program().args(&arguments).output().expect("it starts");
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(2) && text.contains(why), "{arguments:?}: {text}");
    }
}

#[test]
fn a_server_process_that_is_not_there_is_an_error_before_the_run() {
    let accepted = Arc::new(AtomicU64::new(0));
    let count = accepted.clone();
    let addr = serve(move |_| {
        count.fetch_add(1, Ordering::Relaxed);
    });
    // Above the largest number that Linux gives out.
    let output = run_on("echo", &format!("ws://{addr}/"), "--server-pid 8388608");
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{text}");
    assert!(text.contains("--server-pid 8388608: there is no such process"), "{text}");
    assert_eq!(accepted.load(Ordering::Relaxed), 0);
}

#[test]
fn a_server_process_that_ends_meanwhile_is_told_in_the_report() {
    let addr = serve_echo(|_, message| vec![message]);
    let mut server = Command::new("sleep").arg("0.5").spawn().expect("it starts");
    let options = format!("--connections 2 --warmup 0 --duration 1.5 --server-pid {}", server.id());
    let reaper = thread::spawn(move || server.wait().expect("ours"));
    let figures = echo(0, addr, &options);
    reaper.join().expect("no panic");
    let warnings = figures["warnings"].to_string();
    assert!(warnings.contains("process ended"), "{warnings}");
    assert_eq!(figures["server"], Value::Null);
    assert!(figures["messages"].as_u64() > Some(10), "{figures}");
}

#[test]
fn two_reports_are_compared() {
    let addr = serve_echo(|_, message| vec![message]);
    let (a, b) = (scratch("a.json"), scratch("b.json"));
    for path in [&a, &b] {
        let options = format!("--connections 1 --warmup 0 --count 20 --json {}", path.display());
        assert_eq!(run_on("echo", &format!("ws://{addr}/"), &options).status.code(), Some(0));
    }
    let output = program().arg("diff").args([&a, &b]).output().expect("it starts");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("latency p99") && text.contains("messages/s"), "{text}");
    assert_eq!(program().arg("diff").args([&a, &scratch("none")]).output().expect("it starts").status.code(), Some(2));
    [a, b].into_iter().for_each(|path| std::fs::remove_file(path).expect("ours"));
}

/// Kills: connections that are forgotten when the program has no more patience.
#[test]
fn every_connection_is_accounted_for_at_the_end() {
    // Each does something else when it is told that we leave.
    let number = AtomicU64::new(0);
    let addr = serve(move |mut stream| {
        let turn = number.fetch_add(1, Ordering::Relaxed) % 4;
        let writer = stream.try_clone().expect("a socket");
        let mut socket = tungstenite::accept(writer).expect("a handshake");
        match turn {
            // The Close is answered, and the connection ended.
            0 => while socket.read().is_ok() {},
            // It is ended without a word.
            1 => drop(stream.read(&mut [0; 100])),
            // Nothing is done at all.
            2 => while let Ok(1..) = stream.read(&mut [0; 100]) {},
            // The Close is answered, and the connection left open.
            _ => {
                let _ = stream.read(&mut [0; 100]);
                let _ = stream.write_all(&[0x88, 2, 3, 0xe8]);
                while let Ok(1..) = stream.read(&mut [0; 100]) {}
            }
        }
    });
    let figures = run(1, "connect", &format!("ws://{addr}/"), "--connections 12 --concurrency 1");
    let expected = json!({"closed": 3, "left_open": 3, "unanswered": 3, "silent": 3});
    assert_eq!(figures["ends"], expected, "{figures}");
    assert_eq!(figures["problem_count"], 3);
    says(&figures, "3 connections silent");
    says(&figures, "neither a Close frame nor an end");
}

#[test]
fn the_lag_of_the_generator_and_the_host_are_told() {
    let addr = serve_echo(|_, message| vec![message]);
    let figures = echo(0, addr, "--connections 2 --rate 200 --warmup 0 --duration 0.5 --server-pid 1");
    assert!(figures["lag_us"]["count"].as_u64() > Some(50), "{figures}");
    let host = &figures["host"];
    assert!(host["stolen_cores"].is_number() && host["others_cores"].is_number(), "{host}");
    assert_eq!(host["disturbed"] == true, figures["warnings"].to_string().contains("disturbed"), "{figures}");
    let figures = echo(0, addr, "--connections 2 --warmup 0 --count 50");
    assert!(figures["host"]["others_cores"].is_null(), "a server that is not named cannot be told from others");
}

/// Where the kernel, or a filter as containers have it, denies io_uring, it says what the server's own check says.
#[test]
fn without_io_uring_it_says_what_to_change() {
    // prctl(PR_SET_NO_NEW_PRIVS), then a filter that answers io_uring_setup (425) with EPERM.
    let script = r#"
import ctypes, os, struct, sys
libc = ctypes.CDLL(None, use_errno=True)
code = b"".join(struct.pack("HBBI", *line) for line in [
    (0x20, 0, 0, 0), (0x15, 0, 1, 425), (0x06, 0, 0, 0x00050001), (0x06, 0, 0, 0x7fff0000)])
buffer = ctypes.create_string_buffer(code)
program = ctypes.create_string_buffer(struct.pack("HxxxxxxQ", 4, ctypes.addressof(buffer)))
if libc.prctl(38, 1, 0, 0, 0) or libc.prctl(22, 2, program, 0, 0):
    sys.exit(77)
os.execv(sys.argv[1], sys.argv[1:])
"#;
    for arguments in [&["echo", "ws://127.0.0.1:1/"][..], &["agent", "--listen", "127.0.0.1:0"]] {
        let mut python = Command::new("python3");
        let Ok(output) = python.args(["-c", script, env!("CARGO_BIN_EXE_ringwire-loadtest")]).args(arguments).output()
        else {
            return eprintln!("skipped: there is no python3");
        };
        let text = String::from_utf8_lossy(&output.stderr);
        if output.status.code() == Some(77) {
            return eprintln!("skipped: filters are not allowed here");
        }
        assert_eq!(output.status.code(), Some(2), "{text}");
        assert!(text.contains("seccomp") && text.contains("should be") && text.contains("io_uring_setup"), "{text}");
    }
}
