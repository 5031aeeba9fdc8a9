//! `emit`: messages by HTTP, one at a time and in a pipeline, against servers that do as they should and others.

mod common;

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

use common::{assert_only, run, run_on, says, serve};
use serde_json::{Value, json};
use tungstenite::protocol::frame::{
    Frame, FrameHeader,
    coding::{Data, OpCode},
};

/// The event route and the API of the contract, as far as `emit` uses them; `deliver` makes of a message what arrives.
fn serve_api(deliver: impl Fn(u64, Value) -> Vec<Value> + Send + Sync + 'static) -> SocketAddr {
    serve_api_telling(deliver, |_| r#"{"sent":true}"#)
}

/// The same, where `told` is the content of the responses.
fn serve_api_telling(
    deliver: impl Fn(u64, Value) -> Vec<Value> + Send + Sync + 'static,
    told: impl Fn(u64) -> &'static str + Send + Sync + 'static,
) -> SocketAddr {
    serve_api_answering(deliver, move |number| (200, told(number)))
}

/// The same, where `answered` has the status as well.
fn serve_api_answering(
    deliver: impl Fn(u64, Value) -> Vec<Value> + Send + Sync + 'static,
    answered: impl Fn(u64) -> (u16, &'static str) + Send + Sync + 'static,
) -> SocketAddr {
    let sockets: Arc<Mutex<Vec<TcpStream>>> = Arc::default();
    let delivered = AtomicU64::new(0);
    serve(move |stream| {
        let mut first = [0; 4];
        while stream.peek(&mut first).expect("a socket") < 4 {}
        if &first == b"GET " {
            let writer = stream.try_clone().expect("a socket");
            let mut socket = tungstenite::accept(stream).expect("a handshake");
            let id = {
                let mut sockets = sockets.lock().expect("held briefly");
                sockets.push(writer);
                sockets.len() - 1
            };
            let event = json!({"event": "connected", "data": {"id": format!("id{id}")}});
            socket.send(event.to_string().into()).expect("open");
            while socket.read().is_ok() {}
            return;
        }
        let mut stream = BufReader::new(stream);
        let mut responses = Vec::new();
        loop {
            let mut head = String::new();
            while !head.ends_with("\r\n\r\n") {
                if stream.read_line(&mut head).unwrap_or_default() == 0 {
                    return;
                }
            }
            let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: ")).expect("a length");
            let mut body = vec![0; length.parse().expect("a number")];
            stream.read_exact(&mut body).expect("the body");
            let path = head.split(' ').nth(1).expect("a path");
            let id: usize = path.strip_prefix("/api/message/id").expect("the route").parse().expect("an id");
            let number = delivered.fetch_add(1, Ordering::Relaxed);
            let data: Value = serde_json::from_slice(&body).expect("JSON");
            for data in deliver(number, data) {
                let event = json!({"event": "private-message", "data": data}).to_string();
                let mut frame = Vec::new();
                let header = FrameHeader { opcode: OpCode::Data(Data::Text), ..FrameHeader::default() };
                Frame::from_payload(header, event.into()).format(&mut frame).expect("a vector takes all");
                sockets.lock().expect("held briefly")[id].write_all(&frame).expect("open");
            }
            let (status, told) = answered(number);
            let response = format!("HTTP/1.1 {status} Status\r\nContent-Length: {}\r\n\r\n{told}", told.len());
            // As long as more requests are there, their responses go together.
            responses.extend_from_slice(response.as_bytes());
            if stream.buffer().is_empty() {
                stream.get_mut().write_all(&responses).expect("open");
                responses.clear();
            }
        }
    })
}

#[test]
fn messages_by_http_reach_their_sockets() {
    let url = format!("ws://{}/ws", serve_api(|_, data| vec![data]));
    let figures = run(0, "emit", &url, "--connections 6 --posters 2 --threads 2 --warmup 0 --count 100");
    assert_eq!((&figures["messages"], &figures["http_us"]["count"]), (&100.into(), &100.into()));
    run(0, "emit", &url, "--connections 3 --posters 2 --warmup 0 --rate 200 --duration 0.4");
    let url = format!("ws://{}/ws", serve_api(|number, data| if number == 5 { vec![] } else { vec![data] }));
    let figures = run(1, "emit", &url, "--connections 3 --posters 1 --warmup 0 --count 30 --patience 1");
    assert_only(&figures, "lost", 1);
    let url = format!("ws://{}/ws", serve_api(|_, _| vec!["something else".into()]));
    let figures = run(1, "emit", &url, "--connections 1 --posters 1 --warmup 0 --count 3 --patience 1");
    assert_eq!(figures["checks"]["corrupted"], 3, "{figures}");
}

/// Kills: a number of connections that are wanted which is not that of those that are opened.
#[test]
fn as_many_are_wanted_as_are_opened() {
    let url = format!("ws://{}/ws", serve_api(|_, data| vec![data]));
    for (sockets, posters, threads, all) in
        [(3, 8, 1, 6), (3, 8, 2, 6), (3, 1, 2, 5), (5, 2, 2, 9), (5, 2, 3, 10), (1, 1, 1, 2), (6, 2, 1, 8)]
    {
        let options = format!("--connections {sockets} --posters {posters} --threads {threads} --warmup 0 --count 20");
        let figures = run(0, "emit", &url, &options);
        let connections = &figures["connections"];
        assert_eq!((&connections["wanted"], &connections["ready"]), (&json!(all), &json!(all)), "{options}");
        let ends: u64 = figures["ends"].as_object().expect("a table").values().filter_map(Value::as_u64).sum();
        assert_eq!(ends, all, "{options}: {sockets} sockets");
    }
}

/// Kills: a second request that waits for the first one's response; what is lost of a pipeline and holds it up for good.
#[test]
fn several_messages_by_http_are_in_flight_at_once() {
    // Nothing is answered before 8 requests are there.
    let gathering = serve(|stream| {
        let mut first = [0; 4];
        while stream.peek(&mut first).expect("a socket") < 4 {}
        if &first == b"GET " {
            let mut socket = tungstenite::accept(stream).expect("a handshake");
            let event = json!({"event": "connected", "data": {"id": "id0"}});
            socket.send(event.to_string().into()).expect("open");
            while socket.read().is_ok() {}
            return;
        }
        let mut stream = BufReader::new(stream);
        for count in 1.. {
            let mut line = String::new();
            // Behind the body of the one before, which has no end of a line.
            while !line.contains("POST /") {
                line.clear();
                if stream.read_line(&mut line).unwrap_or_default() == 0 {
                    return;
                }
            }
            if count % 8 == 0 {
                let response = "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n".repeat(8);
                stream.get_mut().write_all(response.as_bytes()).expect("open");
            }
        }
    });
    let options = "--connections 1 --posters 1 --pipeline 8 --warmup 0 --count 24 --patience 20";
    let figures = run(1, "emit", &format!("ws://{gathering}/ws"), options);
    assert_eq!(figures["http_statuses"], json!({"404": 24}), "{figures}");
    assert_only_lost(&figures, 24);

    // And who is never answered does not wait for ever.
    let options = "--connections 1 --posters 1 --pipeline 4 --warmup 0 --count 24 --patience 1";
    let figures = run(1, "emit", &format!("ws://{gathering}/ws"), options);
    says(&figures, "closed before 4 of its responses");

    let url = |addr: SocketAddr| format!("ws://{addr}/ws");
    let piped = "--connections 6 --posters 2 --pipeline 16 --warmup 0";
    let all = url(serve_api(|_, data| vec![data]));
    let figures = run(0, "emit", &all, &format!("{piped} --threads 2 --count 400"));
    assert_eq!((&figures["messages"], &figures["http_us"]["count"]), (&400.into(), &400.into()));
    run(0, "emit", &all, &format!("{piped} --rate 400 --duration 0.5"));
    let one_lost = url(serve_api(|number, data| if number == 50 { vec![] } else { vec![data] }));
    let figures = run(1, "emit", &one_lost, &format!("{piped} --count 200 --patience 2"));
    assert_eq!(figures["messages"], 199, "{figures}");
    assert_only_lost(&figures, 1);
    let twice = url(serve_api(|number, data| vec![data; if number == 50 { 2 } else { 1 }]));
    assert_only(&run(1, "emit", &twice, &format!("{piped} --count 200")), "duplicated", 1);
}

/// Kills: a message that was refused and is a problem twice, or none where it came all the same.
#[test]
fn a_refused_message_is_one_problem_whether_it_came_or_not() {
    for (delivers, check, text) in [
        (false, "lost", "never came: its response had status 500"),
        (true, "unexpected", "came, but its response had status 500"),
    ] {
        let deliver = move |number, data| if number % 5 != 3 || delivers { vec![data] } else { vec![] };
        let addr = serve_api_answering(deliver, |number| if number % 5 == 3 { (500, "") } else { (200, "") });
        let options = "--connections 3 --posters 2 --pipeline 2 --warmup 0 --count 20 --patience 1";
        let figures = run(1, "emit", &format!("ws://{addr}/ws"), options);
        assert_only(&figures, check, 4);
        assert_eq!(figures["http_statuses"], json!({"500": 4}), "{figures}");
        says(&figures, text);
    }
}

/// Kills: a response that is not looked into.
#[test]
fn what_responses_say_of_a_message_is_checked() {
    for (told, text) in [
        (r#"{"sent":false}"#, "it is said that it was not sent"),
        (r#"{"sent":true,"recipients":2}"#, "it is said that 2 sockets get it"),
        (r#"{"sent":true,"recipients":0}"#, "it is said that 0 sockets get it"),
    ] {
        let addr = serve_api_telling(|_, data| vec![data], move |number| if number == 3 { told } else { "" });
        let options = "--connections 2 --posters 2 --pipeline 4 --warmup 0 --count 20";
        let figures = run(1, "emit", &format!("ws://{addr}/ws"), options);
        assert_only(&figures, "unexpected", 1);
        says(&figures, text);
    }
    // Other servers say what they like.
    for told in ["", "ok", "[]", r#"{"sent":"yes","recipients":"many"}"#, r#"{"sent":true,"recipients":1}"#] {
        let addr = serve_api_telling(|_, data| vec![data], move |_| told);
        run(0, "emit", &format!("ws://{addr}/ws"), "--connections 2 --posters 1 --warmup 0 --count 5");
    }
}

/// So many were lost, whatever was said of it.
fn assert_only_lost(figures: &Value, count: u64) {
    let expected = json!({"lost": count, "duplicated": 0, "reordered": 0, "corrupted": 0, "unexpected": 0});
    assert_eq!(figures["checks"], expected, "{}", figures["problems"]);
}

/// Kills: a path or a token with which each request is refused while the run goes on.
#[test]
fn what_no_request_can_have_is_told_before_the_run() {
    for (options, why) in [
        ("--api api/message/{id}", "--api: it does not begin with a slash"),
        ("--api /api/message", "--api must have {id} in it"),
        ("--token a\u{7f}b", "--token: its value has characters"),
    ] {
        let output = run_on("emit", "ws://127.0.0.1:1/ws", options);
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.code() == Some(2) && text.contains(why), "{options}: {text}");
    }
}
