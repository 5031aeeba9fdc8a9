//! Closing: codes, reasons, what was sent before, and handlers that fail.

use std::time::{Duration, Instant};

use ringwire::{App, BoxError, Closed, Connection, FailurePolicy, OwnedMessage, Socket, ws};
use serde_json::json;

use crate::common::config;
use crate::common::raw::Raw;
use crate::examples::{revali, spry};
use crate::rig::{Log, Served, close_frame, log, raw, say, serve, serve_with, text};

#[test]
fn r06_close_codes_and_reasons() {
    let served = serve(|| {
        let route = ws().on_json(|socket, (code, reason): (u16, String)| {
            socket.close(code, &reason).map_err(|error| error.to_string()).err()
        });
        App::new().ws("/", route)
    });
    let mut client = served.client("/");
    for code in [0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535] {
        say(&mut client, json!([code, ""]).to_string());
        assert_eq!(text(&mut client), format!("{code} is not a close code that may be sent"));
    }
    for code in [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 3999, 4000, 4999] {
        let mut client = served.raw();
        client.upgrade("/");
        client.send(&raw::text(&json!([code, "why"]).to_string()));
        let frame = client.frame();
        assert_eq!((frame.code(), &frame.payload[2..]), (Some(code), &b"why"[..]));
    }
    // Two bytes hold the code, so 123 are left (RFC 6455 5.5); no character is cut in two.
    for (reason, len) in [("x".repeat(123), 123), ("x".repeat(124), 123), ("é".repeat(62), 122), ("𝄞".repeat(40), 120)]
    {
        let mut client = served.raw();
        client.upgrade("/");
        client.send(&raw::text(&json!([4000, reason]).to_string()));
        let frame = client.frame();
        assert_eq!(std::str::from_utf8(&frame.payload[2..]).expect("UTF-8"), &reason[..len]);
    }
    let served = revali();
    let mut client = served.client("/chat/persistent");
    say(&mut client, "stay");
    assert_eq!(text(&mut client), "Message processed");
    say(&mut client, "quit");
    assert_eq!(close_frame(&mut client), (1000, "Normal closure".to_owned()));
}

#[test]
fn s03_open_until_closed_and_what_was_sent_before_arrives() {
    let (tell, told) = log();
    let served = serve(move || {
        let tell = tell.clone();
        let done = ws().task(async move |_| tell("returned"));
        let last = "x".repeat(300_000);
        let send_and_close = ws().on_connect(move |socket| {
            let _ = socket.send(&last);
            socket.close(1000, "")
        });
        App::new().ws("/done", done).ws("/last", send_and_close)
    });
    let mut client = served.raw();
    client.upgrade("/done");
    assert_eq!(told.next(), "returned");
    // Messages that nobody awaits any more are discarded; the connection lives.
    client.send(&raw::text("x").repeat(100));
    assert!(client.is_silent(Duration::from_millis(100)));
    client.send(&raw::frame(raw::FIN | raw::PING, b"there?"));
    assert_eq!(client.frame().payload, b"there?");

    let mut client = served.client("/last");
    assert_eq!(text(&mut client).len(), 300_000);
    assert_eq!(close_frame(&mut client).0, 1000);

    let served = spry();
    let mut client = served.client("/once");
    say(&mut client, "bye");
    assert_eq!(text(&mut client), "bye");
    assert_eq!(close_frame(&mut client).0, 1000);
}

#[test]
fn s04_a_throwing_handler_closes_and_answers_no_http() {
    let served = spry();
    let mut client = served.raw();
    client.upgrade("/throws");
    client.send(&raw::text("x"));
    let (frames, _) = client.frames();
    assert_eq!((frames.len(), frames[0].code()), (1, Some(1011)), "one Close frame and nothing else");
    assert!(!String::from_utf8_lossy(&frames[0].payload).contains("secret"));
}

const SECRET: &str = "a secret of the server";

fn fails(text: Option<&str>) -> Result<Option<String>, BoxError> {
    match text {
        Some("error") => Err(SECRET.into()),
        Some("panic") => panic!("{SECRET}"),
        text => Ok(text.map(str::to_owned)),
    }
}

#[test]
fn r11_a_failing_handler_closes_1011_or_keeps_and_tells_no_detail() {
    let served = serve(|| {
        let now = ws().on_message(|_: &mut Socket<'_>, message| fails(message.as_text()));
        let later = ws().on_message_async(async |_: Connection, message: OwnedMessage| fails(message.as_text()));
        let task = ws().task(async |mut connection: Connection| {
            let message = connection.recv().await;
            fails(message.as_ref().and_then(OwnedMessage::as_text))
        });
        App::new()
            .ws("/now", now.clone())
            .ws("/later", later.clone())
            .ws("/task", task)
            .ws("/connect", ws().on_connect(|_| Err::<(), BoxError>(SECRET.into())))
            .group("/keep", |group| {
                let keep = |route: ringwire::Ws| route.on_failure(FailurePolicy::Keep);
                group.ws("/now", keep(now)).ws("/later", keep(later))
            })
    });
    for path in ["/now", "/later", "/task"] {
        for failure in ["error", "panic"] {
            let mut client = served.client(path);
            say(&mut client, failure);
            let (code, reason) = close_frame(&mut client);
            assert_eq!((code, reason.as_str()), (1011, "internal error"), "{path} {failure}");
        }
    }
    assert_eq!(close_frame(&mut served.client("/connect")).0, 1011);
    for path in ["/keep/now", "/keep/later"] {
        let mut client = served.client(path);
        for line in ["error", "alive", "panic", "still alive"] {
            say(&mut client, line);
        }
        assert_eq!(text(&mut client), "alive", "{path}");
        assert_eq!(text(&mut client), "still alive", "{path}");
    }
}

/// Runs `end` on a connection that has been open for a while; what `on_close` was told, and whether the time was right.
fn told_of(served: &Served, told: &Log, end: impl FnOnce(&mut Raw)) -> String {
    const OPEN: Duration = Duration::from_millis(120);
    let start = Instant::now();
    let mut client = served.raw();
    client.upgrade("/");
    client.send(&raw::text("there?"));
    assert_eq!(client.frame().payload, b"there?");
    let opened = Instant::now();
    std::thread::sleep(OPEN);
    end(&mut client);
    let line = told.next();
    let (closed, millis) = line.rsplit_once(' ').expect("a time");
    let duration = Duration::from_millis(millis.parse().expect("a number"));
    // The core's clock stands still during a tick, and what is told is cut to milliseconds.
    let least = opened.elapsed().min(OPEN) - Duration::from_millis(20);
    assert!(duration >= least && duration <= start.elapsed(), "{duration:?} of {:?}", start.elapsed());
    closed.to_owned()
}

/// Kills: `clean`, `code`, `reason` or `duration` that are not as they were.
#[test]
fn on_close_is_told_how_it_ended_and_how_long_it_was() {
    let (tell, told) = log();
    let config = config().close_timeout(Duration::from_millis(100));
    let served = serve_with(config, move || {
        let tell = tell.clone();
        let route = ws()
            .on_message(|socket, message| match message.as_text() {
                Some("close") => socket.close(4002, "ours").map(|()| None).map_err(BoxError::from),
                Some("fail") => Err("as told".into()),
                text => Ok(text.map(str::to_owned)),
            })
            .on_close(move |_, closed| {
                let Closed { code, reason, clean, duration, .. } = closed;
                tell(&format!("{code} {reason:?} {clean} {}", duration.as_millis()));
            });
        App::new().ws("/", route)
    });
    // Longer than anything below: a time that is not the connection's own is told apart.
    std::thread::sleep(Duration::from_millis(500));
    let answer = |client: &mut Raw| {
        let code = client.frame().code().expect("a Close frame");
        client.send(&raw::close(code, b""));
    };
    let told_of = |end: &dyn Fn(&mut Raw)| told_of(&served, &told, end);
    assert_eq!(told_of(&|client| client.send(&raw::close(4001, b"bye"))), r#"4001 "bye" true"#);
    assert_eq!(told_of(&|client| client.send(&raw::frame(raw::FIN | raw::CLOSE, b""))), r#"1005 "" true"#);
    assert_eq!(told_of(&|client| client.finish_sending()), r#"1006 "the peer closed without a Close frame" false"#);
    let closed = told_of(&|client| {
        client.send(&raw::text("close"));
        answer(client);
    });
    assert_eq!(closed, r#"4002 "ours" true"#);
    assert_eq!(told_of(&|client| client.send(&raw::text("close"))), r#"4002 "ours" false"#, "it never answers");
    let failed = told_of(&|client| {
        client.send(&raw::text("fail"));
        answer(client);
    });
    assert_eq!(failed, r#"1011 "internal error" true"#);
    let broken = told_of(&|client| client.send(b"\x81\x01x"));
    assert!(broken.starts_with("1002 "), "{broken}");
}
