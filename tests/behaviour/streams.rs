//! Streams as replies, and from other threads.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use futures_util::stream;
use futures_util::stream::StreamExt as _;
use ringwire::{App, BoxError, Connection, Events, FailurePolicy, Mode, OwnedMessage, Streamed, Ws, sleep, ws};
use tungstenite::Message;

use crate::common::{close_code, eventually};
use crate::rig::{block_on, close_frame, log, say, serve, text};

/// Counts down from what was said, a millisecond each; "fail" and "panic" as they say.
fn counted(text: &str) -> impl futures_core::Stream<Item = Result<Option<String>, BoxError>> + use<> {
    let text = text.trim_matches('"').to_owned();
    let count: u32 = text.parse().unwrap_or(2);
    stream::iter(0..=count).then(move |number| {
        let text = text.clone();
        async move {
            sleep(Duration::from_millis(1)).await;
            match (text.as_str(), number) {
                ("fail", 2) => Err("as told".into()),
                ("panic", 2) => panic!("as told"),
                (_, 1) => Ok(None),
                _ => Ok(Some(format!("{text} {number}"))),
            }
        }
    })
}

fn form(name: &str) -> Ws {
    match name {
        "closure" => ws().on_message(|_, message| Streamed(counted(message.as_text().unwrap_or_default()))),
        "text" => ws().on_text(|_, text| Streamed(counted(text))),
        "async" => ws().on_message_async(async |_: Connection, message: OwnedMessage| {
            Streamed(counted(message.as_text().unwrap_or_default()))
        }),
        "event" => {
            Events::new().on_message(|_, message| Streamed(counted(message.as_text().unwrap_or_default()))).into_ws()
        }
        "event-async" => Events::new()
            .on_message_async(async |_: Connection, message: OwnedMessage| {
                Streamed(counted(message.as_text().unwrap_or_default()))
            })
            .into_ws(),
        _ => ws().task(async |mut socket: Connection| {
            while let Some(message) = socket.recv().await {
                let items = Box::pin(counted(message.as_text().unwrap_or_default()));
                let mut failed = None;
                let texts = items.map(|item| item.map_err(|error| failed = Some(error)).ok().flatten());
                let _ = socket.send_stream(texts.filter_map(std::future::ready)).await;
                if let Some(error) = failed {
                    return Err(error);
                }
            }
            Ok::<_, BoxError>(())
        }),
    }
}

const FORMS: [&str; 6] = ["closure", "text", "async", "event", "event-async", "task"];

/// Kills: a stream that the next message's reply overtakes, items that are lost, and failures that nobody hears of.
#[test]
fn a_stream_is_a_reply_in_every_form() {
    let (tell, told) = log();
    let served = serve(move || {
        FORMS.iter().fold(App::new(), |app, name| {
            let tell = tell.clone();
            app.ws(&format!("/{name}"), form(name).on_error(move |_, error| tell(&error.to_string())))
        })
    });
    for name in FORMS {
        let mut client = served.client(&format!("/{name}"));
        for said in ["3", "0", "4"] {
            client.write(Message::text(said)).expect("queued");
        }
        client.flush().expect("sent");
        for expected in ["3 0", "3 2", "3 3", "0 0", "4 0", "4 2", "4 3", "4 4"] {
            assert_eq!(text(&mut client), expected, "{name}");
        }
        say(&mut client, "fail");
        assert_eq!(text(&mut client), "fail 0", "{name}");
        assert_eq!(close_frame(&mut client).0, 1011, "{name}");
        assert_eq!(told.next(), "as told", "{name}");
        let mut client = served.client(&format!("/{name}"));
        say(&mut client, "panic");
        assert_eq!(text(&mut client), "panic 0", "{name}");
        assert_eq!(close_frame(&mut client).0, 1011, "{name}");
        assert_eq!(told.next(), "panicked: as told", "{name}");
    }
}

#[test]
fn a_failed_stream_goes_by_the_policy() {
    let served = serve(|| {
        App::new()
            .ws("/closure", form("closure").on_failure(FailurePolicy::Keep))
            .ws("/async", form("async").on_failure(FailurePolicy::Keep))
    });
    for path in ["/closure", "/async"] {
        let mut client = served.client(path);
        for said in ["fail", "panic", "0"] {
            say(&mut client, said);
            assert_eq!(text(&mut client), format!("{said} 0"), "{path}");
        }
    }
}

/// Kills: streams that are read to their end whether the peer reads or not.
#[test]
fn a_stream_goes_no_faster_than_its_peer_reads() {
    let taken = Arc::new(AtomicU32::new(0));
    let counting = Arc::clone(&taken);
    let served = serve(move || {
        let endless = {
            let taken = Arc::clone(&counting);
            move || {
                let taken = Arc::clone(&taken);
                stream::iter(0..100_000_u32).map(move |_| {
                    taken.fetch_add(1, Ordering::Relaxed);
                    vec![7_u8; 16 << 10]
                })
            }
        };
        let (now, later) = (endless.clone(), endless);
        App::new()
            .ws("/now", ws().on_message(move |_, _| Streamed(now())))
            .ws("/later", ws().on_message_async(async move |_: Connection, _| Streamed(later())))
    });
    for path in ["/now", "/later"] {
        taken.store(0, Ordering::Relaxed);
        let mut client = served.client(path);
        say(&mut client, "go");
        for _ in 0..300 {
            assert_eq!(client.read().expect("a message").len(), 16 << 10);
        }
        // What the sockets' buffers hold, the kernel's bounds of a few MiB, and 64 KiB: far from 1.6 GB.
        let has_stopped = || {
            let before = taken.load(Ordering::Relaxed);
            thread::sleep(Duration::from_millis(100));
            before == taken.load(Ordering::Relaxed)
        };
        eventually(has_stopped, || "the stream does not wait".to_owned());
        let count = taken.load(Ordering::Relaxed);
        assert!((300..3_000).contains(&count), "{path}: {count}");
        drop(client);
        served.await_count(0);
    }
}

#[test]
fn streams_at_the_opening_in_every_mode() {
    let served = serve(|| {
        let greeting = || {
            Streamed(
                stream::iter(["a", "b", "c"])
                    .then(async |text| {
                        sleep(Duration::from_millis(5)).await;
                        text
                    })
                    .boxed_local(),
            )
        };
        App::new()
            .ws(
                "/beside",
                ws().on_connect(move |_| greeting()).on_message(|_, message| message.as_text().map(str::to_owned)),
            )
            .ws("/only", ws().mode(Mode::SendOnly).on_message(move |_, _| greeting()))
            .ws("/only-async", ws().mode(Mode::SendOnly).on_message_async(async move |_: Connection, _| greeting()))
            .ws("/only-task", ws().mode(Mode::SendOnly).task(async move |_: Connection| greeting()))
            .ws(
                "/deaf",
                ws().mode(Mode::ReceiveOnly).on_message(move |socket, _| {
                    let _ = socket.send("heard");
                    greeting()
                }),
            )
    });
    for path in ["/only", "/only-async", "/only-task"] {
        let mut client = served.client(path);
        say(&mut client, "this is discarded");
        assert_eq!([(); 3].map(|()| text(&mut client)), ["a", "b", "c"], "{path}");
        assert_eq!(close_code(&mut client), Some(1000), "{path}");
    }
    let mut client = served.client("/beside");
    let mut heard: Vec<String> = Vec::new();
    say(&mut client, "x");
    heard.extend([(); 4].map(|()| text(&mut client)));
    assert_ne!(heard.last().map(String::as_str), Some("x"), "it does not wait for the stream: {heard:?}");
    heard.retain(|text| text != "x");
    assert_eq!(heard, ["a", "b", "c"]);
    let mut client = served.client("/deaf");
    for _ in 0..2 {
        say(&mut client, "y");
        assert_eq!(text(&mut client), "heard");
    }
}

/// Kills: a sender whose stream does not wait for the peer, or for ever for one that has gone.
#[test]
fn a_sender_streams_from_another_thread() {
    let (tell, told) = log();
    let served = serve(move || {
        let tell = tell.clone();
        App::new().ws(
            "/",
            ws().on_message(move |socket, message| {
                let (sender, tell) = (socket.sender(), tell.clone());
                let (many, endless) = (message.as_text() == Some("many"), message.as_text() == Some("endless"));
                thread::spawn(move || {
                    let taken = AtomicU32::new(0);
                    let items = stream::iter(0..if many { 100_000 } else { 3 }).map(|number: u32| {
                        taken.fetch_add(1, Ordering::Relaxed);
                        if many { "x".repeat(16 << 10) } else { number.to_string() }
                    });
                    let items = items.chain(if endless {
                        stream::pending().left_stream()
                    } else {
                        stream::empty().right_stream()
                    });
                    let sent = block_on(async { sender.send_stream(items).await }).expect("text");
                    tell(&format!("{} {}", sent.queued, taken.into_inner() < 3_000));
                });
            }),
        )
    });
    let mut client = served.client("/");
    say(&mut client, "few");
    assert_eq!([(); 3].map(|()| text(&mut client)), ["0", "1", "2"]);
    assert_eq!(told.next(), "3 true");
    say(&mut client, "many");
    // It waits for a peer that does not read, and is not dropped as one who does not keep up.
    thread::sleep(Duration::from_millis(500));
    assert!(told.is_empty());
    for _ in 0..200 {
        assert_eq!(text(&mut client).len(), 16 << 10);
    }
    drop(client);
    let line = told.next();
    assert!(line.ends_with(" true"), "{line}");
    let mut client = served.client("/");
    say(&mut client, "endless");
    assert_eq!([(); 3].map(|()| text(&mut client)), ["0", "1", "2"]);
    drop(client);
    assert_eq!(told.next(), "3 true");
}
