//! The load generator against servers that are right and servers that are wrong in one way each.
//!
//! The servers here share no code with the generator: framing is tungstenite's.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    process::{Command, Output},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    thread,
};

use serde_json::Value;
use tungstenite::{
    Message,
    protocol::frame::{
        Frame, FrameHeader,
        coding::{Data, OpCode},
    },
};

/// Serves every connection on a thread of its own for the rest of the test.
fn serve(handle: impl Fn(TcpStream) + Send + Sync + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let addr = listener.local_addr().expect("bound");
    let handle = Arc::new(handle);
    thread::spawn(move || {
        for stream in listener.incoming() {
            let (stream, handle) = (stream.expect("accepted"), handle.clone());
            thread::spawn(move || handle(stream));
        }
    });
    addr
}

/// An echo server whose answer to message `n` of a connection is what `answer` makes of it.
fn serve_echo(answer: impl Fn(u64, Message) -> Vec<Message> + Send + Sync + 'static) -> SocketAddr {
    serve(move |stream| {
        stream.set_nodelay(true).expect("a TCP socket");
        let Ok(mut socket) = tungstenite::accept(stream) else {
            return;
        };
        let mut number = 0;
        while let Ok(message) = socket.read() {
            if !message.is_text() && !message.is_binary() {
                continue;
            }
            for message in answer(number, message) {
                if socket.send(message).is_err() {
                    return;
                }
            }
            number += 1;
        }
    })
}

fn loadtest(scenario: &str, addr: SocketAddr, options: &str) -> Output {
    Command::new(env!("CARGO_BIN_EXE_ringwire-loadtest"))
        .args([scenario, "--url", &format!("ws://{addr}/echo")])
        .args(options.split_whitespace())
        .output()
        .expect("the program starts")
}

fn passes(scenario: &str, addr: SocketAddr, options: &str) -> String {
    let output = loadtest(scenario, addr, options);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(
        output.status.code(),
        Some(0),
        "{scenario} {options}\n{text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    text
}

fn fails_saying(scenario: &str, addr: SocketAddr, options: &str, expected: &str) {
    let output = loadtest(scenario, addr, options);
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{scenario} {options}\n{text}");
    assert!(text.contains(expected), "{expected:?} is not in\n{text}");
}

const SHORT: &str = "--connections 3 --pipeline 4 --warmup 0 --count 300 --patience 0.3";

#[test]
fn an_echo_server_passes_at_every_size_and_with_both_opcodes() {
    let addr = serve_echo(|_, message| vec![message]);
    for size in [0, 1, 8, 125, 126, 4096, 65_535, 65_536] {
        for kind in ["--text", "--binary"] {
            passes("echo", addr, &format!("{SHORT} --size {size} {kind}"));
        }
    }
    passes("echo", addr, "--connections 2 --pipeline 3 --size 1048576 --warmup 0 --count 20");
    passes("echo", addr, "--connections 5 --threads 2 --warmup 0.1 --duration 0.2");
}

#[test]
fn a_count_is_kept_exactly_and_figures_are_written() {
    let served = Arc::new(AtomicU64::new(0));
    let count = served.clone();
    let addr = serve_echo(move |_, message| {
        count.fetch_add(1, Ordering::Relaxed);
        vec![message]
    });
    let json = std::env::temp_dir().join(format!("loadtest-figures-{}.json", std::process::id()));
    let pid = std::process::id();
    passes("echo", addr, &format!("{SHORT} --threads 2 --server-pid {pid} --json {}", json.display()));
    assert_eq!(served.load(Ordering::Relaxed), 300);
    let figures: Value = serde_json::from_slice(&std::fs::read(&json).expect("written")).expect("JSON");
    std::fs::remove_file(json).expect("ours");
    assert_eq!((&figures["messages"], &figures["problem_count"]), (&300.into(), &0.into()));
    for name in ["messages_per_s", "server_cpu_us_per_message", "client_cpu_us_per_message", "server_rss_bytes"] {
        assert!(figures[name].as_f64().is_some_and(|value| value > 0.0), "{name} in {figures}");
    }
    assert!(figures["latency_us"]["p99.9"].as_f64() >= figures["latency_us"]["p50"].as_f64());
}

#[test]
fn a_dropped_reply_fails() {
    let addr = serve_echo(|number, message| if number == 7 { vec![] } else { vec![message] });
    fails_saying("echo", addr, SHORT, "reply 7: byte ");
    // With one in flight nothing follows the lost reply: only waiting shows it.
    let alone = "--connections 1 --warmup 0 --duration 0.1 --patience 0.2";
    fails_saying("echo", addr, alone, "1 replies never came");
}

#[test]
fn a_corrupted_repeated_or_retyped_reply_fails() {
    let flip = |message: Message, at: usize| {
        let mut bytes = message.into_data().to_vec();
        bytes[at] ^= 1;
        Message::binary(bytes)
    };
    for (at, offset) in [(0, 2), (8, 10), (63, 65)] {
        let addr = serve_echo(move |number, message| match number {
            5 => vec![flip(message, at)],
            _ => vec![message],
        });
        let expected = format!("reply 5: byte {offset} is");
        fails_saying("echo", addr, &format!("{SHORT} --binary"), &expected);
    }
    let addr = serve_echo(|_, message| vec![message.clone(), message]);
    fails_saying("echo", addr, SHORT, "reply 1: byte 2 is");
    let addr = serve_echo(|_, message| vec![Message::binary(message.into_data())]);
    fails_saying("echo", addr, SHORT, "reply 0: byte 0 is 0x82 instead of 0x81");
}

#[test]
fn a_close_in_the_middle_fails() {
    let addr = serve_echo(|number, message| if number == 9 { vec![Message::Close(None)] } else { vec![message] });
    fails_saying("echo", addr, SHORT, "Close 1005 instead of reply 9");
    let addr = serve_echo(|number, message| if number == 9 { panic!("as intended") } else { vec![message] });
    fails_saying("echo", addr, SHORT, "closed by the server");
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
    passes("echo", addr, "--connections 1 --warmup 0 --count 50");
    assert!(pongs.load(Ordering::Relaxed) >= 49);
}

/// A broadcast server; `skip` says which delivery, counted over all, is left out.
fn serve_broadcast(skip: Option<usize>) -> SocketAddr {
    let members: Arc<Mutex<Vec<TcpStream>>> = Arc::default();
    let mut delivered = 0;
    let deliver = Mutex::new(move |stream: &mut TcpStream, frame: &[u8]| {
        if Some(delivered) != skip {
            let _ = stream.write_all(frame);
        }
        delivered += 1;
    });
    serve(move |stream| {
        let writer = stream.try_clone().expect("a socket");
        let mut socket = tungstenite::accept(stream).expect("a handshake");
        members.lock().expect("held briefly").push(writer);
        while let Ok(message) = socket.read() {
            if message.is_close() {
                return;
            }
            let mut frame = Vec::new();
            let header = FrameHeader { opcode: OpCode::Data(Data::Text), ..FrameHeader::default() };
            Frame::from_payload(header, message.into_data()).format(&mut frame).expect("a vector takes all");
            let mut deliver = deliver.lock().expect("held briefly");
            members.lock().expect("held briefly").iter_mut().for_each(|member| deliver(member, &frame));
        }
    })
}

#[test]
fn a_broadcast_server_passes_and_every_delivery_counts() {
    for burst in [1, 8] {
        let options = format!("--subscribers 5 --burst {burst} --warmup 0 --count 80");
        let text = passes("fanout", serve_broadcast(None), &options);
        assert!(text.contains("messages      480 in"), "80 messages to 6 connections in\n{text}");
    }
}

#[test]
fn a_missing_delivery_fails() {
    let options = "--subscribers 5 --burst 2 --warmup 0 --count 80 --patience 0.2";
    fails_saying("fanout", serve_broadcast(Some(17)), options, "deliveries never came");
}

#[test]
fn raw_mode_expects_the_bytes_it_sent() {
    let addr = serve(|mut stream| {
        let mut buffer = [0; 4096];
        while let Ok(count @ 1..) = stream.read(&mut buffer) {
            stream.write_all(&buffer[..count]).expect("open");
        }
    });
    passes("echo", addr, &format!("{SHORT} --raw --size 64"));
    passes("echo", addr, &format!("{SHORT} --raw --size 70000"));
    passes("connect", addr, "--raw --echo --connections 20");
    let addr = serve(|mut stream| {
        let mut buffer = [0; 70];
        while stream.read_exact(&mut buffer).is_ok() {
            buffer[69] ^= 1;
            stream.write_all(&buffer).expect("open");
        }
    });
    fails_saying("echo", addr, &format!("{SHORT} --raw --size 64"), "reply 0: byte 69 is");
}

#[test]
fn connections_are_opened_checked_and_held() {
    let addr = serve_echo(|_, message| vec![message]);
    let text = passes("connect", addr, "--connections 100 --concurrency 8 --echo --hold 0.1 --source-ips 3");
    assert!(text.contains("connections   100 in"), "{text}");
    passes("connect", addr, "--connections 30");

    let addr = serve_echo(|_, _| vec!["something else".into()]);
    fails_saying("connect", addr, "--connections 3 --echo", "reply 0: byte 1 is");
    let addr = serve(|mut stream| {
        let _ = stream.read(&mut [0; 4096]);
        let _ = stream.write_all(b"HTTP/1.1 503 Service Unavailable\r\n\r\n");
    });
    fails_saying("connect", addr, "--connections 3", "refused: HTTP/1.1 503");
}

#[test]
fn a_server_that_is_not_there_is_an_error() {
    let addr = TcpListener::bind("127.0.0.1:0").expect("a free port").local_addr().expect("bound");
    assert_eq!(loadtest("echo", addr, SHORT).status.code(), Some(2));
}
