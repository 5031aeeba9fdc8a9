//! HTTP as a core answers it: the same however the bytes of the requests are cut into pieces, and with the time of the
//! ring.

use std::rc::Rc;

use ringwire::engine::sim::{Client, RingOptions};
use ringwire::shard::Entrance;
use ringwire::shard::service::Serves;
use ringwire::{App, HttpError, Message, Request, Socket};

use crate::host::Setup;
use crate::rig::Rig;

fn app() -> App {
    App::new()
        .get("/page", async |_| "a page")
        .post("/body", async |request: Request| request.body().clone())
        .get("/fails", async |_| -> Result<(), HttpError> { Err(HttpError::forbidden("no")) })
        .get("/items/{item}", async |request: Request| format!("{:?} {}", request.host(), request.param("item")))
        .ws("/echo", |socket: &mut Socket<'_>, message: Message<'_>| socket.send(message))
}

fn rig() -> Rig {
    let ring = RingOptions { slots: 1024, ..RingOptions::default() };
    let mut setup = Setup { ring, app: Rc::new(app), ..Setup::default() };
    setup.settings.head_bytes_max = 700;
    setup.settings.body_bytes_max = 100;
    Rig::new(&setup)
}

/// Streams of requests, each with how many answers it has.
fn corpus() -> Vec<(&'static str, Vec<u8>, usize)> {
    let head = |line: &str, fields: &str| format!("{line} HTTP/1.1\r\nHost: x\r\n{fields}\r\n");
    let get = || head("GET /page", "");
    let chunked = |body: &str| head("POST /body", "Transfer-Encoding: chunked\r\n") + body;
    let upgrade = |fields: &str| {
        let key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n";
        head("GET /echo", &format!("Upgrade: websocket\r\nConnection: Upgrade\r\n{key}{fields}"))
    };
    let long = "x".repeat(800);
    let rows: Vec<(&'static str, String, usize)> = vec![
        ("one", get(), 1),
        ("three", get() + &head("HEAD /page", "") + &head("GET /fails", ""), 3),
        ("empty lines", format!("\r\n\r\n{}\r\n{}\r\n\r\n\r\n{}\r\n", get(), get(), get()), 3),
        ("nothing else", "\r\n\r\n\r\n".into(), 0),
        ("a bare line feed first", format!("\r\n\n{}", get()), 1),
        ("a bare carriage return first", format!("\r\r\n{}", get()), 1),
        ("bare line feeds", get().replace("\r\n", "\n"), 1),
        ("a method of 30 letters", get().replace("GET", &"M".repeat(30)) + &get(), 2),
        ("a method of 64 letters", get().replace("GET", &"M".repeat(64)) + &get(), 2),
        ("a method of 65 letters", get().replace("GET", &"M".repeat(65)) + &get(), 1),
        ("one long token", "M".repeat(300), 1),
        ("one long token, ended", "M".repeat(300) + "\r\n\r\n", 1),
        ("half a token, ended", "M\r\n\r\n".into(), 1),
        ("noise", "\u{17}\u{3}\u{1}\u{2}\r\n\r\n".into(), 1),
        ("TLS", "\u{16}\u{3}\u{1}\u{2}\r\n\r\n".into(), 0),
        ("a space first", format!(" {}", get()), 1),
        ("a method that is none", get().replace("GET", "G(T"), 1),
        ("a long head", head("GET /page", &format!("A: {long}\r\n")) + &get(), 1),
        ("a long target", format!("GET /{long}"), 1),
        ("HEAD, refused", head("HEAD /page", "Content-Length: x\r\n") + &get(), 1),
        ("HEAD, refused by its method's length", head(&format!("HEAD{}", "M".repeat(70)), ""), 1),
        ("targets", head("GET http://y/items/%41%2Fb", "") + &head("GET /%zz", "") + &get(), 2),
        ("the whole server", head("OPTIONS *", "") + &head("GET *", "") + &get(), 3),
        ("a body", head("POST /body", "Content-Length: 5\r\n") + "hello" + &get(), 2),
        ("a body and an empty line", head("POST /body", "Content-Length: 5\r\n") + "hello\r\n" + &get(), 2),
        ("a body and no more", head("POST /body", "Content-Length: 5\r\n") + "hello\r\n", 1),
        ("an empty body", head("POST /body", "Content-Length: 0\r\n") + &get(), 2),
        ("chunks", chunked("5\r\nhello\r\n6;a=\"b\"\r\n world\r\n0\r\nX: y\r\n\r\n") + &get(), 2),
        ("no chunks", chunked("0\r\n\r\n\r\n") + &get(), 2),
        ("junk behind a size", chunked("5 junk\r\nhello\r\n0\r\n\r\n") + &get(), 1),
        ("junk behind a chunk", chunked("5\r\nhello!\r\n0\r\n\r\n") + &get(), 1),
        ("a chunk that is too large", chunked("ff\r\n") + &get(), 1),
        ("a size that is too large", chunked("11111111111111111\r\n") + &get(), 1),
        ("a trailer that is none", chunked("0\r\nX\r\n\r\n") + &get(), 1),
        ("a body that is too large", head("POST /body", "Content-Length: 101\r\n") + &get(), 1),
        ("two lengths", head("POST /body", "Content-Length: 1\r\nContent-Length: 2\r\n") + "ab", 1),
        ("a coding and a length", head("POST /body", "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n") + "0", 1),
        ("an unknown coding", head("POST /body", "Transfer-Encoding: gzip, chunked\r\n") + "0\r\n\r\n" + &get(), 1),
        ("an expected body", head("POST /body", "Content-Length: 5\r\nExpect: 100-continue\r\n") + "hello" + &get(), 2),
        ("an expected body of nobody", head("POST /page", "Content-Length: 5\r\nExpect: 100-continue\r\n"), 1),
        ("another expectation", head("GET /page", "Expect: tea\r\n") + &get(), 1),
        ("an upgrade", get() + &upgrade("") + "\u{1}", 2),
        ("an upgrade that is expected", upgrade("Expect: 100-continue\r\n"), 1),
        ("an upgrade that is refused", upgrade("Sec-WebSocket-Version: 8\r\n") + &get(), 1),
        ("an upgrade to a page", upgrade("").replace("/echo", "/page") + &get(), 1),
        ("two origins", upgrade("Origin: http://a\r\nOrigin: http://b\r\n") + &get(), 1),
        ("HTTP/1.0", get().replace("1.1", "1.0") + &get(), 1),
        ("HTTP/2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".into(), 1),
        ("a last request", head("GET /page", "Connection: close\r\n") + &get(), 1),
    ];
    rows.into_iter().map(|(name, text, answers)| (name, text.into_bytes(), answers)).collect()
}

/// What the server says to these pieces, each handled before the next one comes, and whether it ends the connection.
fn answers_to<'p>(rig: &mut Rig, pieces: impl IntoIterator<Item = &'p [u8]>) -> (String, bool) {
    let client: Client = rig.connect(0);
    rig.settle();
    let mut received = Vec::new();
    for piece in pieces.into_iter().filter(|piece| !piece.is_empty()) {
        client.send(piece);
        rig.settle();
        received.extend(client.received());
        // Whoever sees the end sends no more.
        if client.saw_fin() {
            break;
        }
    }
    let has_ended = client.saw_fin();
    assert!(!client.saw_reset());
    client.close();
    rig.settle();
    (String::from_utf8_lossy(&received).into_owned(), has_ended)
}

/// Without what is a matter of time: whether the body is asked for depends on whether it is there.
fn final_only(answers: (String, bool)) -> (String, bool) {
    (answers.0.replace("HTTP/1.1 100 Continue\r\n\r\n", ""), answers.1)
}

/// RFC 9112 2.2 to 7.1: a message is the same in one piece and in any.
#[test]
fn however_requests_are_cut_they_are_answered_alike() {
    let mut rig = rig();
    for (name, bytes, answers) in corpus() {
        let want = final_only(answers_to(&mut rig, [&bytes[..]]));
        assert_eq!(want.0.matches("HTTP/1.1 ").count(), answers, "{name}: {want:?}");
        assert_eq!(final_only(answers_to(&mut rig, bytes.chunks(1))), want, "{name}, byte by byte");
        assert_eq!(final_only(answers_to(&mut rig, bytes.chunks(7))), want, "{name}, in sevens");
        // In long streams on a coarser grid.
        for at in (1..bytes.len()).step_by(1 + bytes.len() / 300) {
            let got = final_only(answers_to(&mut rig, [&bytes[..at], &bytes[at..]]));
            assert_eq!(got, want, "{name}, cut at {at}: {:?}", String::from_utf8_lossy(&bytes[..at]));
        }
    }
    rig.pass_ms(1000);
    rig.finish();
}

/// RFC 9110 6.6.1
#[test]
fn every_answer_tells_the_time_of_the_ring() {
    let mut rig = rig();
    let client = rig.connect(0);
    let date = |rig: &mut Rig| {
        client.send(b"GET /page HTTP/1.1\r\nHost: x\r\n\r\n");
        rig.settle();
        let answer = String::from_utf8(client.received()).expect("text");
        let dates: Vec<&str> = answer.lines().filter_map(|line| line.strip_prefix("date: ")).collect();
        assert_eq!(dates.len(), 1, "{answer}");
        dates[0].to_owned()
    };
    assert_eq!(date(&mut rig), "Sun, 06 Nov 1994 08:49:37 GMT");
    rig.pass_ms(999);
    assert_eq!(date(&mut rig), "Sun, 06 Nov 1994 08:49:37 GMT");
    rig.pass_ms(2);
    assert_eq!(date(&mut rig), "Sun, 06 Nov 1994 08:49:38 GMT");
    rig.pass_ms(5_000);
    assert_eq!(date(&mut rig), "Sun, 06 Nov 1994 08:49:43 GMT");
    for (name, bytes, answers) in corpus() {
        let (text, _) = answers_to(&mut rig, [&bytes[..]]);
        let final_ones = text.matches("HTTP/1.1 ").count() - text.matches("HTTP/1.1 1").count();
        assert_eq!(text.matches("\r\ndate: Sun, 06 Nov 1994 ").count(), final_ones, "{name}, {answers}: {text}");
    }
    rig.finish();
}

/// What a proxy says first, and the requests behind it. Kills: looking for the header's end in each piece alone, and losing
/// what comes with its end.
#[test]
fn headers_of_the_proxy_protocol_are_the_same_however_they_are_cut() {
    let told = async |request: Request| format!("{} {}", request.peer().expect("a peer"), request.is_relayed());
    let ring = RingOptions { slots: 1024, ..RingOptions::default() };
    let mut setup = Setup { ring, app: Rc::new(move || App::new().get("/peer", told)), ..Setup::default() };
    setup.settings.entrances = vec![Entrance { proxy_protocol: true, serves: Serves::All, ..Entrance::default() }];
    let mut rig = Rig::new(&setup);
    let requests = b"GET /peer HTTP/1.1\r\nHost: x\r\n\r\n".repeat(2);
    let v2 = |command: u8, rest: &[u8]| {
        [b"\r\n\r\n\0\r\nQUIT\n", &[command, 0x11][..], &(rest.len() as u16).to_be_bytes(), rest].concat()
    };
    let v4 = [192, 0, 2, 7, 198, 51, 100, 1, 0xdc, 4, 1, 187];
    for (header, want) in [
        (b"PROXY TCP4 192.0.2.7 198.51.100.1 56324 443\r\n".to_vec(), Some("192.0.2.7:56324 true")),
        (b"PROXY TCP6 2001:db8::7 ::1 1 443\r\n".to_vec(), Some("[2001:db8::7]:1 true")),
        (v2(0x21, &v4), Some("192.0.2.7:56324 true")),
        (v2(0x21, &[&v4[..], &[4, 0, 20], &[0xff; 20]].concat()), Some("192.0.2.7:56324 true")),
        (b"".to_vec(), None),
        (b"PROXY TCP4\r\n".to_vec(), None),
        (v2(0x21, &v4[1..]), None),
        (v2(0x22, &v4), None),
    ] {
        let bytes = [&header[..], &requests].concat();
        let whole = answers_to(&mut rig, [&bytes[..]]);
        match want {
            Some(peer) => {
                assert!(whole.0.matches(peer).count() == 2 && !whole.1, "{}: {whole:?}", header.escape_ascii())
            }
            None => assert_eq!(whole, (String::new(), true), "{}", header.escape_ascii()),
        }
        assert_eq!(answers_to(&mut rig, bytes.chunks(1)), whole, "{}", header.escape_ascii());
        for at in 1..bytes.len() {
            let pieces = [&bytes[..at], &bytes[at..]];
            assert_eq!(answers_to(&mut rig, pieces), whole, "{} at {at}", header.escape_ascii());
        }
    }
    rig.finish();
}
