//! permessage-deflate (RFC 7692) through the whole: what is agreed, what comes in, by each kind of handler.

#![cfg(feature = "cli")]

#[path = "common/browser.rs"]
mod browser;
mod common;

use std::time::Duration;

use common::bytes;
use common::program::Program;
use common::raw::{self, Raw};
use ringwire::config::Config;
use ringwire::proto::deflate::Deflater;
use ringwire::proto::frame::{mark_compressed, put_masked_frame};
use ringwire::proto::{Opcode, frame};
use ringwire::testing::{TestClient, TestServer, block_on};
use ringwire::{App, Connection, Deflate, Message, OwnedMessage, Request, Server, Socket, Ws, ws};

const EXTENSIONS: &str = "sec-websocket-extensions";
const MODES: [Deflate; 3] = [Deflate::Stateless, Deflate::Shared, Deflate::Dedicated];

type Echo = (&'static str, fn() -> Ws);

/// An echo as each kind of handler.
fn echoes() -> [Echo; 3] {
    [
        ("closure", || ws().on_message(|socket: &mut Socket, message: Message| socket.send(message))),
        ("async", || {
            ws().on_message_async(async |socket: Connection, message: OwnedMessage| {
                let _ = socket.send(message);
            })
        }),
        ("task", || {
            ws().task(async |mut socket: Connection| {
                while let Some(message) = socket.recv().await {
                    let _ = socket.send(message);
                }
            })
        }),
    ]
}

fn texts() -> Vec<String> {
    let line = |n: usize| format!(r#"{{"event":"said","data":{{"room":"lobby","n":{n},"text":"naïve 🦀"}}}}"#);
    (0..40).map(|n| (0..n * n % 60).map(|m| line(n + m)).collect::<String>() + &line(n)).collect()
}

/// Meant to kill: an agreement that the connection does not get, a context of another connection's, a kind of handler that gets what
/// was not decompressed.
#[test]
fn each_kind_of_handler_gets_what_was_sent_in_each_mode() {
    for (kind, echo) in echoes() {
        for mode in MODES {
            let server = TestServer::new(move || App::new().ws("/", echo().deflate(mode)));
            let clients = [
                server.handshake("/").deflate().open(),
                server.handshake("/").deflate_stateless().open(),
                server.handshake("/").open(),
                server.handshake("/").deflate().open(),
            ];
            let agreed: Vec<bool> = clients.iter().map(TestClient::is_deflated).collect();
            assert_eq!(agreed, [true, true, false, true], "{kind} {mode}");
            for text in texts() {
                clients.iter().for_each(|client| client.send(text.as_str()));
                clients.iter().for_each(|client| client.expect_text(&text));
                clients[0].send(text.as_bytes().to_vec());
                clients[0].expect_binary(text.as_bytes());
            }
            let inflated = server.hub_metrics();
            assert!(inflated.0 >= 4 * 30 && inflated.1 * 2 < inflated.2, "{kind} {mode}: {inflated:?}");
        }
    }
}

trait HubMetrics {
    /// Messages decompressed, their bytes on the wire and then.
    fn hub_metrics(&self) -> (u64, u64, u64);
}

impl HubMetrics for TestServer {
    fn hub_metrics(&self) -> (u64, u64, u64) {
        let hub = self.hub().clone();
        let metrics = self.block_on(async move { hub.metrics().await });
        metrics
            .cores
            .iter()
            .map(|core| core.counters.inflated)
            .fold((0, 0, 0), |sum, core| (sum.0 + core.messages, sum.1 + core.wire_bytes, sum.2 + core.payload_bytes))
    }
}

#[test]
fn what_is_answered() {
    let echo = || ws().on_message(|socket: &mut Socket, message: Message| socket.send(message));
    let app = move || {
        let refuses = |request: &mut Request| {
            request.refuse_deflate();
            Ok(())
        };
        let told = |socket: &mut Socket| socket.send(if socket.is_deflated() { "yes" } else { "no" });
        App::new()
            .ws("/off", echo().deflate(Deflate::Off))
            .ws("/config", echo())
            .ws("/dedicated", echo().deflate(Deflate::Dedicated).on_connect(told))
            .ws("/refused", echo().before(refuses).on_connect(told))
    };
    let config = Config::default().deflate(Deflate::Stateless);
    let server = TestServer::builder().config(config).start(app);
    let stateless = "permessage-deflate; server_no_context_takeover; client_no_context_takeover";
    let safari = "Mozilla/5.0 (Macintosh; Intel Mac OS X 12_2) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/15.3 Safari/605.1.15";
    let later = safari.replace("15.3", "15.4");
    let rows: [(&str, &str, Option<&str>); 6] = [
        ("/off", "x", None),
        ("/config", "x", Some(stateless)),
        ("/config", safari, None),
        ("/config", &later, Some(stateless)),
        ("/dedicated", "x", Some("permessage-deflate; client_max_window_bits=12")),
        ("/refused", "x", None),
    ];
    for (path, agent, expected) in rows {
        let client = server.handshake(path).header("user-agent", agent).deflate().open();
        assert_eq!(client.header(EXTENSIONS).as_deref(), expected, "{path} {agent}");
        // RFC 7692 5: nothing is answered where nothing was offered.
        assert_eq!(server.connect(path).header(EXTENSIONS), None, "{path}");
        if matches!(path, "/dedicated" | "/refused") {
            client.expect_text(if expected.is_some() { "yes" } else { "no" });
        }
    }
    // Offered by hand: declined ones, and what is no list.
    let offer = |path: &str, value: &str| {
        let opened = server.handshake(path).header(EXTENSIONS, value).try_open();
        opened.map_or_else(|refusal| refusal.status().as_u16(), |_| 101)
    };
    assert_eq!(offer("/dedicated", "permessage-deflate; server_max_window_bits=9, x"), 101, "declined");
    assert_eq!(offer("/dedicated", "permessage-deflate;"), 400);
    assert_eq!(offer("/off", "permessage-deflate;"), 101, "not looked at");
}

fn compressed(payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    assert!(Deflater::new(9).compress(payload, None, &mut out));
    out
}

fn compressed_frame(payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    put_masked_frame(&mut bytes, Opcode::Binary, payload, [1, 2, 3, 4]);
    mark_compressed(&mut bytes);
    bytes
}

fn fragments(payload: &[u8], bytes: usize) -> Vec<u8> {
    let mut out = Vec::new();
    for (index, part) in payload.chunks(bytes).enumerate() {
        let (opcode, is_last) =
            (if index == 0 { Opcode::Binary } else { Opcode::Continuation }, (index + 1) * bytes >= payload.len());
        let (header, len) = frame::encode_header(opcode, is_last, index == 0, part.len() as u64, Some([0; 4]));
        out.extend_from_slice(&header[..len]);
        out.extend_from_slice(part);
    }
    out
}

/// Meant to kill: a bound on wire bytes alone, memory that follows what is declared, a bomb that costs others their messages.
#[test]
fn bombs_cost_their_senders() {
    const MAX: usize = 100_000;
    let config = Config::default().max_message(MAX).deflate(Deflate::Stateless);
    let length = |socket: &mut Socket, message: Message| socket.send(message.as_bytes().len().to_string());
    let server = TestServer::builder().config(config).start(move || App::new().ws("/", ws().on_message(length)));
    let bystander = server.connect("/");
    let bomb = compressed(&vec![0; 16 << 20]);
    assert!(bomb.len() < 20_000);
    let nested = compressed(&bomb);
    for (_name, bytes, expected) in [
        ("in one frame", compressed_frame(&bomb), None),
        ("in fragments", fragments(&bomb, 100), None),
        ("one byte too many", compressed_frame(&compressed(&vec![0; MAX + 1])), None),
        ("just fits", compressed_frame(&compressed(&vec![0; MAX])), Some(MAX)),
        ("a bomb in a message is bytes", compressed_frame(&nested), Some(bomb.len())),
    ] {
        for _ in 0..3 {
            let client = server.handshake("/").deflate().open();
            client.send_bytes(&bytes);
            match expected {
                Some(len) => client.expect_text(&len.to_string()),
                None => drop(client.expect_close(1009)),
            }
            bystander.send("x");
            bystander.expect_text("1");
        }
    }
    // Nonsense, and what refers to nothing.
    for payload in [&[0xFF_u8; 30][..], &[0xf2, 0x00, 0x11, 0x00, 0x00]] {
        let client = server.handshake("/").deflate().open();
        client.send_bytes(&compressed_frame(payload));
        client.expect_close(1007);
        let plain = server.connect("/");
        plain.send_bytes(&compressed_frame(payload));
        plain.expect_close(1002);
    }
}

/// Kills: output of a bomb that is made before it is bounded, or kept for its connection. `benches/bombs.py` does the same at
/// full size, and with an eye on everybody else.
#[test]
fn a_flood_of_bombs_takes_no_memory() {
    const MESSAGE_BYTES_MAX: usize = 1 << 20;
    const GROWTH_BYTES_MAX: u64 = 8 << 20;
    let program = Program::start(&["--deflate=stateless", &format!("--max-message={MESSAGE_BYTES_MAX}")]);
    let bomb = compressed(&vec![0; 16 << 20]);
    let nested = compressed_frame(&compressed(&bomb));
    let forms = [compressed_frame(&bomb), fragments(&bomb, 100), nested];
    let explode = |clients: usize| {
        let mut clients: Vec<_> = (0..clients)
            .map(|_| {
                let mut client = Raw::connect(program.address);
                client.send(&bytes::request_with("/echo", raw::KEY, Some("permessage-deflate")));
                assert!(client.response(false).header(EXTENSIONS).is_some());
                client
            })
            .collect();
        for (number, client) in clients.iter_mut().enumerate() {
            client.send_if_open(&forms[number % forms.len()]);
        }
        for (number, client) in clients.iter_mut().enumerate() {
            let frame = client.frame();
            // What was a bomb in a message comes back as it was: bytes.
            let expected = if number % forms.len() == 2 { None } else { Some(1009) };
            assert_eq!(frame.code(), expected, "{number}");
        }
    };
    // Buffers to receive into are touched one by one, all of them where the kernel fills none of them bit by bit: they are no
    // bomb's doing.
    let mut clients: Vec<Raw> = (0..8).map(|_| Raw::connect(program.address)).collect();
    clients.iter_mut().for_each(|client| client.upgrade("/echo"));
    for _ in 0..100 {
        for client in &mut clients {
            client.send(&raw::binary(&[0; 16 << 10]));
            assert_eq!(client.frame().payload.len(), 16 << 10);
        }
    }
    drop(clients);
    explode(forms.len());
    let before = program.rss_peak();
    (0..10).for_each(|_| explode(30));
    let growth = program.rss_peak() - before;
    assert!(growth <= GROWTH_BYTES_MAX, "{growth} bytes");
}

/// A context counts in the memory budget, and is no more than its window.
#[test]
fn contexts_are_counted() {
    let server = TestServer::new(|| App::new().ws("/", echoes()[0].1().deflate(Deflate::Dedicated)));
    let held = || {
        let hub = server.hub().clone();
        server.block_on(async move { hub.metrics().await }).cores.iter().map(|core| core.partial_bytes).sum::<u64>()
    };
    let client = server.handshake("/").deflate().open();
    for text in texts() {
        client.send(text.as_str());
        client.expect_text(&text);
    }
    assert!((4096..5000).contains(&held()), "{}", held());
    client.close(1000, "");
    client.expect_close(1000);
    server.advance(Duration::from_secs(1));
    assert_eq!(held(), 0);
}

/// On the real ring, with the library's own client, in both of its modes.
#[test]
fn the_librarys_client() {
    for mode in [Deflate::Off, Deflate::Stateless, Deflate::Shared, Deflate::Dedicated] {
        let config = Config::default()
            .addresses(vec!["127.0.0.1:0".parse().expect("an address")])
            .cores("1".parse().expect("cores"))
            .deflate(mode);
        let handle = Server::new(config).start(|| App::new().ws("/", echoes()[0].1())).expect("it starts");
        let url = handle.addresses()[0].to_string();
        for context in [true, false] {
            let connect = ringwire::client::connect(&url).deflate_min(1);
            let connect = if context { connect.deflate() } else { connect.deflate_stateless() };
            let mut client = connect.wait().expect("it opens");
            assert_eq!(client.headers().contains_key(EXTENSIONS), mode != Deflate::Off);
            for text in texts().into_iter().chain(["x".repeat(300_000)]) {
                client.send(text.as_str()).expect("it is sent");
                let echo = client.recv().expect("an answer").expect("no error");
                assert!(echo.as_text() == Some(&text));
            }
            client.close(1000, "").expect("it closes");
        }
        let hub = handle.hub().clone();
        let metrics = block_on(hub.metrics());
        let inflated: u64 = metrics.cores.iter().map(|core| core.counters.inflated.messages).sum();
        assert_eq!(inflated > 60, mode != Deflate::Off, "{mode}: {inflated}");
        handle.shutdown();
        handle.join().expect("it ends");
    }
}

/// Python's websockets, where it is installed.
#[test]
fn python_websockets() {
    const SCRIPT: &str = r#"
import asyncio, sys, websockets
async def main():
    async with websockets.connect(sys.argv[1], compression="deflate") as socket:
        texts = ['{"n":%d,"text":"na\u00efve and naive"}' % n * (n + 1) for n in range(60)]
        for text in texts:
            await socket.send(text)
            assert await socket.recv() == text
        protocol = getattr(socket, "protocol", socket)
        print([extension.name for extension in protocol.extensions])
asyncio.run(main())
"#;
    let python = std::env::var("RINGWIRE_TEST_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let has_it = std::process::Command::new(&python).args(["-c", "import websockets"]).output();
    if !has_it.is_ok_and(|output| output.status.success()) {
        return eprintln!("skipped: python3 has no websockets");
    }
    for (mode, expected) in
        [("off", "[]"), ("stateless", "['permessage-deflate']"), ("dedicated", "['permessage-deflate']")]
    {
        let program = Program::start(&[&format!("--deflate={mode}")]);
        let url = format!("ws://{}/echo", program.address);
        let output = std::process::Command::new(&python).args(["-c", SCRIPT, &url]).output().expect("it runs");
        let said = String::from_utf8_lossy(&output.stdout);
        assert_eq!(said.trim(), expected, "{mode}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

/// Node's ws, where it is installed.
#[test]
fn node_ws() {
    const SCRIPT: &str = r#"
const WebSocket = require('ws');
const socket = new WebSocket(process.argv[1], { perMessageDeflate: { threshold: 0 } });
const text = n => JSON.stringify({ n, words: 'again and again '.repeat(n) });
let got = 0;
socket.on('open', () => { for (let n = 0; n < 60; n++) socket.send(text(n)); });
socket.on('message', data => { if (data.toString() === text(got) && ++got === 60) { console.log(socket.extensions); socket.close(); } });
socket.on('error', error => { console.log(error.message); });
"#;
    let directory = std::env::var("RINGWIRE_TEST_NODE_MODULES").unwrap_or_else(|_| "/usr/lib/node_modules".to_owned());
    let node =
        |arguments: &[&str]| std::process::Command::new("node").env("NODE_PATH", &directory).args(arguments).output();
    if !node(&["-e", "require('ws')"]).is_ok_and(|output| output.status.success()) {
        return eprintln!("skipped: node has no ws");
    }
    for (mode, expected) in [("off", ""), ("stateless", "permessage-deflate"), ("dedicated", "permessage-deflate")] {
        let program = Program::start(&[&format!("--deflate={mode}")]);
        let url = format!("ws://{}/echo", program.address);
        let output = node(&["-e", SCRIPT, &url]).expect("it runs");
        assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), expected, "{mode}");
    }
}

/// Chromium, where it is installed: what it says was agreed, and that texts come back as they were, in each mode.
#[test]
fn chromium() {
    const SCRIPT: &str = r#"
        window.open_socket = url => {
            const line = n => JSON.stringify({ event: 'said', data: { room: 'lobby', n, text: 'naïve 🦀' } });
            const texts = [...Array(40).keys()].map(n => line(n).repeat(1 + n * n % 30));
            const state = window.state = { got: 0, wrong: 0, extensions: null, code: null };
            const socket = new WebSocket(url);
            socket.onopen = () => { state.extensions = socket.extensions; texts.forEach(text => socket.send(text)); };
            socket.onmessage = event => {
                if (event.data !== texts[state.got++]) state.wrong++;
                if (state.got === texts.length) socket.close(1000);
            };
            socket.onclose = event => { state.code = event.code; };
        };
    "#;
    let Some(browser) = browser::Browser::start() else { return };
    let mut page = browser.open("about:blank");
    page.eval(SCRIPT);
    for (mode, expected) in [
        ("off", ""),
        ("stateless", "permessage-deflate; server_no_context_takeover; client_no_context_takeover"),
        ("shared", "permessage-deflate; client_no_context_takeover"),
        ("dedicated", "permessage-deflate; client_max_window_bits=12"),
    ] {
        let program = Program::start(&[&format!("--deflate={mode}")]);
        for path in ["echo", "broadcast", "rooms/red"] {
            page.eval(&format!("open_socket('ws://{}/{path}')", program.address));
            page.until("state.code !== null");
            let state = page.eval("state");
            assert_eq!(state["extensions"], expected, "{mode} {path}: {state}");
            assert_eq!((&state["got"], &state["wrong"]), (&40.into(), &0.into()), "{mode} {path}: {state}");
            assert_eq!(state["code"], 1000, "{mode} {path}: {state}");
        }
    }
}
