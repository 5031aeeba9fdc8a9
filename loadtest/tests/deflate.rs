//! The load generator with permessage-deflate: against a server of its own framing and miniz_oxide's codec, and against
//! ringwire in each mode.

mod common;

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
};

use miniz_oxide::{
    DataFormat, MZFlush,
    deflate::compress_to_vec,
    inflate::stream::{InflateState, inflate},
};
use ringwire::Deflate;
use serde_json::Value;

use common::{Ringwire, run, serve, serve_echo};

/// A server of RFC 7692 that shares no code with the generator: it inflates each message with an inflater that keeps its
/// window, and answers with a block that has BFINAL set (7.2.3.4), in several frames if it is long.
fn serve_deflate(keeps_context: bool, spoil: Option<u64>) -> SocketAddr {
    serve(move |mut stream: TcpStream| {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            if stream.read_exact(&mut byte).is_err() {
                return;
            }
            head.push(byte[0]);
        }
        let head = String::from_utf8(head).expect("a request");
        let field = |name: &str| {
            head.lines()
                .find_map(|line| line.strip_prefix(name))
                .unwrap_or_else(|| panic!("no {name} in {head}"))
                .trim()
        };
        assert!(field("Sec-WebSocket-Extensions:").starts_with("permessage-deflate"));
        let accept = tungstenite::handshake::derive_accept_key(field("Sec-WebSocket-Key:").as_bytes());
        let terms = if keeps_context { "" } else { "; client_no_context_takeover" };
        let answer = format!(
            "HTTP/1.1 101 x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {accept}\r\n\
             Sec-WebSocket-Extensions: permessage-deflate; server_no_context_takeover{terms}\r\n\r\n"
        );
        stream.write_all(answer.as_bytes()).expect("open");
        let mut inflater = InflateState::new_boxed(DataFormat::Raw);
        let mut number = 0;
        while let Some((first, payload)) = read_frame(&mut stream) {
            if first & 0x0f == 8 {
                let _ = stream.write_all(&[0x88, 2, 3, 0xe8]);
                return;
            }
            let mut message = payload.clone();
            if first & 0x40 != 0 {
                if !keeps_context {
                    inflater = InflateState::new_boxed(DataFormat::Raw);
                }
                let with_tail = [&payload[..], &[0, 0, 0xff, 0xff]].concat();
                let mut out = vec![0; 1 << 20];
                let done = inflate(&mut inflater, &with_tail, &mut out, MZFlush::Sync);
                assert_eq!(done.bytes_consumed, with_tail.len());
                message = out[..done.bytes_written].to_vec();
            }
            if spoil == Some(number) {
                message[20] ^= 1;
            }
            number += 1;
            let mut compressed = compress_to_vec(&message, 6);
            compressed.push(0);
            let cut = if compressed.len() > 300 { 150 } else { compressed.len() };
            let (one, rest) = compressed.split_at(cut);
            write_frame(&mut stream, 0x40 | first & 0x0f | if rest.is_empty() { 0x80 } else { 0 }, one);
            if !rest.is_empty() {
                write_frame(&mut stream, 0x80, rest);
            }
        }
    })
}

fn read_frame(stream: &mut TcpStream) -> Option<(u8, Vec<u8>)> {
    let mut head = [0; 2];
    stream.read_exact(&mut head).ok()?;
    let mut len = u64::from(head[1] & 0x7f);
    if len >= 126 {
        let mut bytes = [0; 8];
        let start = if len == 126 { 6 } else { 0 };
        stream.read_exact(&mut bytes[start..]).ok()?;
        len = u64::from_be_bytes(bytes);
    }
    let mut key = [0; 4];
    stream.read_exact(&mut key).ok()?;
    let mut payload = vec![0; len as usize];
    stream.read_exact(&mut payload).ok()?;
    payload.iter_mut().enumerate().for_each(|(index, byte)| *byte ^= key[index % 4]);
    Some((head[0], payload))
}

fn write_frame(stream: &mut TcpStream, first: u8, payload: &[u8]) {
    let mut frame = vec![first];
    match payload.len() {
        len @ ..126 => frame.push(len as u8),
        len => frame.extend([&[126][..], &(len as u16).to_be_bytes()].concat()),
    }
    frame.extend(payload);
    let _ = stream.write_all(&frame);
}

fn ratio(figures: &Value, way: &str) -> f64 {
    figures["deflate"][way]["ratio"].as_f64().unwrap_or_else(|| panic!("no ratio: {}", figures["deflate"]))
}

const JSON: &str = "--content json --size 1KiB --connections 3 --warmup 0 --count 90";

/// Kills: a context that the client goes on with where the server has none; RSV1 on what is not compressed.
#[test]
fn messages_of_another_codec_are_understood_both_ways() {
    for keeps_context in [false, true] {
        let url = format!("ws://{}/", serve_deflate(keeps_context, None));
        for offer in ["--deflate", "--deflate=no-context"] {
            if keeps_context && offer != "--deflate" {
                continue;
            }
            let figures = run(0, "echo", &url, &format!("{JSON} {offer}"));
            let deflate = &figures["deflate"];
            assert_eq!((&deflate["declined"], &deflate["sent"]["messages"]), (&0.into(), &90.into()), "{deflate}");
            assert_eq!(
                (&deflate["received"]["messages"], &deflate["received"]["bytes"]),
                (&90.into(), &(90 * 1024).into())
            );
            let least = if keeps_context { 3.0 } else { 1.6 };
            assert!(ratio(&figures, "sent") > least && ratio(&figures, "received") > 1.6, "{deflate}");
        }
        // Below the least size nothing is compressed by the client; what the server does is its own.
        let figures = run(0, "echo", &url, "--deflate --size 100..200 --connections 2 --warmup 0 --count 50");
        assert_eq!(figures["deflate"]["sent"]["messages"], 0);
        let figures = run(0, "echo", &url, &format!("{JSON} --deflate --deflate-min 2KiB"));
        assert_eq!(figures["deflate"]["sent"]["messages"], 0);
    }
}

#[test]
fn a_byte_that_differs_after_inflation_is_found() {
    let url = format!("ws://{}/", serve_deflate(false, Some(5)));
    let figures = run(1, "echo", &url, "--deflate --content json --size 1KiB --connections 1 --warmup 0 --count 20");
    common::assert_only(&figures, "corrupted", 1);
    common::says(&figures, "is wrong at byte 20 of 1024");
}

#[test]
fn a_server_that_declines_is_spoken_to_as_ever() {
    let url = format!("ws://{}/", serve_echo(|_, message| vec![message]));
    let figures = run(0, "echo", &url, &format!("{JSON} --deflate"));
    let deflate = &figures["deflate"];
    assert_eq!((&deflate["declined"], &deflate["sent"]["messages"]), (&3.into(), &0.into()), "{deflate}");
    let figures = run(0, "echo", &url, JSON);
    assert!(figures["deflate"].is_null(), "nothing is told where nothing was asked");
}

#[test]
fn every_scenario_is_checked_in_every_mode_of_ringwire() {
    for (mode, echo_ratio, fanout_ratio) in
        [(Deflate::Stateless, 1.6, 1.6), (Deflate::Shared, 0.0, 2.5), (Deflate::Dedicated, 3.0, 2.5)]
    {
        let server = Ringwire::start(|config| config.deflate(mode));
        let url = |path: &str| format!("ws://{}{path}", server.address);
        let figures = run(0, "echo", &url("/echo"), &format!("{JSON} --deflate --pipeline 4"));
        // What a room has together is compressed of a room's messages alone.
        let received = figures["deflate"]["received"]["ratio"].as_f64().unwrap_or_default();
        assert!(received >= echo_ratio, "{mode:?}: {}", figures["deflate"]);
        for (scenario, path, options) in [
            ("broadcast", "/broadcast", "--subscribers 9 --burst 4 --warmup 0 --count 400"),
            ("broadcast", "/broadcast", "--subscribers 9 --publishers 3 --warmup 0 --count 300"),
            ("rooms", "/rooms/{room}", "--rooms 3 --members 4 --warmup 0 --count 300"),
        ] {
            let options = format!("{options} --content json --size 1KiB --deflate");
            let figures = run(0, scenario, &url(path), &options);
            assert!(ratio(&figures, "received") > fanout_ratio, "{mode:?} {scenario}: {}", figures["deflate"]);
        }
        run(0, "connect", &url("/echo"), "--connections 20 --echo --ping --size 1KiB --content json --deflate");
        run(
            0,
            "churn",
            &url("/echo"),
            "--users 3 --words 3 --warmup 0 --count 30 --size 1KiB --content json --deflate",
        );
        run(0, "emit", &url("/ws"), "--connections 4 --posters 2 --size 1KiB --warmup 0 --count 40 --deflate");
    }
}
