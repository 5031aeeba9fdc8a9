//! The client that comes back: SEED_FEATURES A14.

use std::future::{pending, ready};
use std::io::{Read as _, Write as _};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use http::StatusCode;
use ringwire::BoxError;
use ringwire::client::blocking::block_on;
use ringwire::client::{Client, ClientError, Connect, Event, Reconnecting};
use tungstenite::Message;

use crate::common::TestServer;
use crate::servers::{self, Speaks, Stream, connect};

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn retry_in(event: Option<Event>) -> Duration {
    match event {
        Some(Event::Closed { retry_in: Some(retry_in), .. }) => retry_in,
        other => panic!("{other:?}"),
    }
}

#[test]
fn delays_double_up_to_the_longest_and_start_again_once_open() {
    for speaks in Speaks::ALL {
        // Two refusals by the server, then a conversation, then refusals.
        let (url, server) = servers::serve(speaks, 6, {
            let count = std::cell::Cell::new(0);
            move |stream: Stream| {
                count.set(count.get() + 1);
                if count.get() == 4 {
                    let mut socket = tungstenite::accept(stream).expect("a handshake");
                    socket.send(Message::text("hello")).expect("sent");
                    socket.close(None).expect("sent");
                    while socket.read().is_ok() {}
                }
            }
        });
        let mut client = Reconnecting::new(connect(url)).delays(ms(20), ms(60));
        let base = |want: u64, got: Duration| {
            assert!((ms(want) / 2..ms(want) * 3 / 2).contains(&got), "about {want} ms: {got:?}");
        };
        let start = Instant::now();
        let first = retry_in(block_on(client.next()));
        base(20, first);
        let second = retry_in(block_on(client.next()));
        base(40, second);
        let third = retry_in(block_on(client.next()));
        base(60, third);
        assert!(matches!(block_on(client.next()), Some(Event::Opened { protocol: None })));
        // It has waited as long as it said, and not much longer.
        let said = first + second + third;
        assert!((said..said + ms(2000)).contains(&start.elapsed()), "{said:?} {:?}", start.elapsed());
        assert!(matches!(block_on(client.next()), Some(Event::Message(message)) if message.as_text() == Some("hello")));
        match block_on(client.next()) {
            Some(Event::Closed { why: ClientError::Closed(closed), retry_in: Some(retry_in) }) => {
                assert_eq!((closed.code, closed.clean), (1005, true));
                base(20, retry_in);
            }
            other => panic!("{other:?}"),
        }
        base(40, retry_in(block_on(client.next())));
        base(60, retry_in(block_on(client.next())));
        server.join().expect("no panic");
    }
}

#[test]
fn sending_needs_a_connection_and_stopping_ends_it() {
    for speaks in Speaks::ALL {
        let server = servers::own(speaks);
        let mut client = Reconnecting::new(connect(servers::url(&server, speaks, "/echo")));
        assert!(matches!(block_on(client.send("too early")), Err(ClientError::NotConnected)));
        assert!(matches!(block_on(client.next()), Some(Event::Opened { .. })));
        let sender = client.sender();
        assert!(sender.is_open());
        sender.try_send("there and back").expect("sent");
        assert!(matches!(block_on(client.next()), Some(Event::Message(_))));
        let stopping = std::thread::spawn(move || {
            std::thread::sleep(ms(20));
            sender.stop();
            sender
        });
        match block_on(client.next()) {
            Some(Event::Closed { why: ClientError::Closed(closed), retry_in: None }) => {
                assert_eq!((closed.code, closed.clean), (1000, true));
            }
            other => panic!("{other:?}"),
        }
        assert!(block_on(client.next()).is_none());
        let sender = stopping.join().expect("no panic");
        assert!(matches!(sender.try_send("too late"), Err(ClientError::NotConnected)));
    }
}

#[test]
fn stopping_ends_the_wait_for_the_next_attempt() {
    let mut client = Reconnecting::new(connect("ws://127.0.0.1:1/")).delays(Duration::from_secs(60), ms(0));
    assert!(retry_in(block_on(client.next())) >= Duration::from_secs(30));
    let sender = client.sender();
    let stopping = std::thread::spawn(move || {
        std::thread::sleep(ms(20));
        sender.stop();
    });
    assert!(matches!(block_on(client.next()), Some(Event::Closed { retry_in: None, .. })));
    assert!(block_on(client.next()).is_none());
    stopping.join().expect("no panic");
}

#[test]
fn it_gives_up_when_told_so_or_when_trying_again_cannot_help() {
    let mut client = Reconnecting::new(connect("ws://127.0.0.1:1/")).delays(ms(5), ms(5)).max_attempts(2);
    retry_in(block_on(client.next()));
    assert!(matches!(
        block_on(client.next()),
        Some(Event::Closed { why: ClientError::Connect { .. }, retry_in: None })
    ));
    assert!(block_on(client.next()).is_none());
    // No name of a server.
    let mut client = Reconnecting::new(connect("wss://a..b/"));
    assert!(matches!(block_on(client.next()), Some(Event::Closed { why: ClientError::Tls(_), retry_in: None })));
    assert!(block_on(client.next()).is_none());
}

#[test]
fn it_survives_a_server_that_is_restarted() {
    for speaks in Speaks::ALL {
        let server = servers::own(speaks);
        let address = server.address;
        let mut client = Reconnecting::new(connect(servers::url(&server, speaks, "/echo"))).delays(ms(20), ms(50));
        assert!(matches!(block_on(client.next()), Some(Event::Opened { .. })));
        let down = std::thread::spawn(move || drop(server));
        match block_on(client.next()) {
            // A server that drains says so.
            Some(Event::Closed { why: ClientError::Closed(closed), .. }) => assert_eq!(closed.code, 1001),
            other => panic!("{other:?}"),
        }
        down.join().expect("it ends well");
        let again = crate::common::config().addresses(vec![address.into()]);
        let server = TestServer::with(match speaks.config(&servers::pki().1) {
            Some(tls) => again.tls(tls),
            None => again,
        });
        let opened = loop {
            match block_on(client.next()).expect("it goes on") {
                Event::Opened { .. } => break true,
                Event::Closed { retry_in: Some(_), .. } => {}
                other => panic!("{other:?}"),
            }
        };
        assert!(opened);
        block_on(client.send("back again")).expect("sent");
        assert!(matches!(block_on(client.next()), Some(Event::Message(_))));
        drop(client);
        drop(server);
    }
}

/// Answers a handshake with this status; what its `Authorization` was, and its path.
fn refuse(mut stream: Stream, status: u16) -> String {
    let head = read_head(&mut stream);
    let _ = stream.write_all(format!("HTTP/1.1 {status} X\r\nContent-Length: 0\r\n\r\n").as_bytes());
    head
}

fn read_head(stream: &mut Stream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).expect("a request");
        head.push(byte[0]);
    }
    String::from_utf8(head).expect("ASCII")
}

/// Kills: a factory that is asked once, one whose failure ends it or is not counted, and one that is polled but never woken.
#[test]
fn a_factory_is_asked_before_each_attempt_and_may_fail() {
    for speaks in Speaks::ALL {
        let (url, server) = servers::serve(speaks, 3, |stream| refuse(stream, 503));
        let asked = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&asked);
        let factory = move || {
            let attempt = counted.fetch_add(1, Ordering::Relaxed) + 1;
            let url = url.clone();
            async move {
                // Something that is waited for, and wakes from another thread.
                let (done_in, done) = futures_channel();
                std::thread::spawn(move || {
                    std::thread::sleep(ms(5));
                    done_in.fire();
                });
                done.await;
                match attempt {
                    2 | 4 => Err("no token"),
                    _ => Ok(connect(format!("{url}{attempt}")).header("authorization", format!("Bearer {attempt}"))),
                }
            }
        };
        let mut client = Reconnecting::with_factory(factory).delays(ms(20), ms(80)).max_attempts(5);
        for (attempt, base) in [(1, 20), (2, 40), (3, 80), (4, 80)] {
            match block_on(client.next()) {
                Some(Event::Closed { why, retry_in: Some(retry_in) }) => {
                    assert!((ms(base) / 2..ms(base) * 3 / 2).contains(&retry_in), "attempt {attempt}: {retry_in:?}");
                    match attempt {
                        2 | 4 => assert_eq!(why.to_string(), "the attempt could not be prepared: no token"),
                        _ => assert_eq!(why.status(), Some(StatusCode::SERVICE_UNAVAILABLE), "{why}"),
                    }
                }
                other => panic!("{other:?}"),
            }
        }
        // Those that failed to be prepared are attempts.
        assert!(matches!(block_on(client.next()), Some(Event::Closed { retry_in: None, .. })));
        assert!(block_on(client.next()).is_none());
        assert_eq!(asked.load(Ordering::Relaxed), 5);
        for (head, attempt) in server.join().expect("no panic").iter().zip([1, 3, 5]) {
            assert!(head.starts_with(&format!("GET /{attempt} ")), "{head}");
            assert!(head.to_ascii_lowercase().contains(&format!("\r\nauthorization: bearer {attempt}\r\n")), "{head}");
        }
    }
}

/// A future that another thread finishes.
fn futures_channel() -> (Fire, impl Future<Output = ()> + Send) {
    let state: Arc<Mutex<(bool, Option<std::task::Waker>)>> = Arc::default();
    let fire = Fire(Arc::clone(&state));
    let done = std::future::poll_fn(move |cx| {
        let mut state = state.lock().expect("no panic");
        if state.0 {
            return std::task::Poll::Ready(());
        }
        state.1 = Some(cx.waker().clone());
        std::task::Poll::Pending
    });
    (fire, done)
}

struct Fire(Arc<Mutex<(bool, Option<std::task::Waker>)>>);

impl Fire {
    fn fire(self) {
        let mut state = self.0.lock().expect("no panic");
        state.0 = true;
        state.1.take().into_iter().for_each(std::task::Waker::wake);
    }
}

/// Kills: one that knocks for ever at a door that stays shut, and one that takes a moment's trouble for that.
#[test]
fn refusals_that_trying_again_does_not_mend_end_it_unless_told_otherwise() {
    type GivesUp = fn(&ClientError) -> bool;
    let never: GivesUp = |_| false;
    let gone: GivesUp = |why| why.status() == Some(StatusCode::GONE);
    let rows: [(u16, Option<GivesUp>, bool); 11] = [
        (401, None, true),
        (403, None, true),
        (404, None, true),
        (400, None, false),
        (410, None, false),
        (429, None, false),
        (500, None, false),
        (503, None, false),
        (401, Some(never), false),
        (410, Some(gone), true),
        (403, Some(gone), false),
    ];
    for ((status, gives_up, ends), speaks) in rows.into_iter().zip(Speaks::ALL.into_iter().cycle()) {
        let (url, server) = servers::serve(speaks, 1, move |stream| refuse(stream, status));
        let mut client = Reconnecting::new(connect(url)).delays(ms(1), ms(1));
        if let Some(gives_up) = gives_up {
            client = client.give_up_on(gives_up);
        }
        match block_on(client.next()) {
            Some(Event::Closed { why, retry_in }) => {
                assert_eq!((why.status().map(|it| it.as_u16()), retry_in.is_none()), (Some(status), ends));
            }
            other => panic!("{status}: {other:?}"),
        }
        if ends {
            assert!(block_on(client.next()).is_none());
        }
        server.join().expect("no panic");
    }
    // The end of a connection, too.
    let (url, server) = servers::tungstenite(Speaks::Tls13, |socket| {
        let frame = tungstenite::protocol::CloseFrame { code: 4003.into(), reason: "out".into() };
        socket.close(Some(frame)).expect("sent");
        while socket.read().is_ok() {}
    });
    let thrown_out = |why: &ClientError| matches!(why, ClientError::Closed(closed) if closed.code == 4003);
    let mut client = Reconnecting::new(connect(url)).give_up_on(thrown_out);
    assert!(matches!(block_on(client.next()), Some(Event::Opened { .. })));
    assert!(matches!(block_on(client.next()), Some(Event::Closed { retry_in: None, .. })));
    server.join().expect("no panic");
    // Errors of the factory's that are ours are judged as such.
    let mut client = Reconnecting::with_factory(|| ready(Err::<Connect, _>(ClientError::Header("x".into()))));
    assert!(matches!(block_on(client.next()), Some(Event::Closed { why: ClientError::Header(_), retry_in: None })));
}

/// Kills: senders that are quicker than the program's own subscription, and a hook that is forgotten the second time.
#[test]
fn what_the_hook_says_comes_before_what_others_send_on_every_connection() {
    for speaks in Speaks::ALL {
        const OPENINGS: usize = 4;
        let (url, server) = servers::serve(speaks, OPENINGS, |stream| {
            let mut socket = tungstenite::accept(stream).expect("a handshake");
            let first = socket.read().expect("a message").into_text().expect("text").to_string();
            // Others have all the time to be quicker than the hook, which waits for this.
            std::thread::sleep(ms(50));
            socket.send(Message::text("subscribed")).expect("sent");
            let second = socket.read().expect("a message").into_text().expect("text").to_string();
            let _ = socket.close(None);
            while socket.read().is_ok() {}
            (first, second)
        });
        let mut client =
            Reconnecting::new(connect(url)).delays(ms(5), ms(5)).on_open(|mut client: Client| async move {
                // It takes its time, in which others could be quicker.
                let (done_in, done) = futures_channel();
                std::thread::spawn(move || {
                    std::thread::sleep(ms(50));
                    done_in.fire();
                });
                done.await;
                client.send("subscribe").await?;
                let answer = client.recv().await.ok_or("closed")??;
                assert_eq!(answer.as_text(), Some("subscribed"));
                Ok::<_, BoxError>(client)
            });
        let (sender, is_over) = (client.sender(), Arc::new(AtomicBool::new(false)));
        let over = Arc::clone(&is_over);
        let pushing = std::thread::spawn(move || {
            while !over.load(Ordering::Relaxed) {
                let _ = sender.try_send("pushed");
                std::thread::sleep(Duration::from_micros(200));
            }
        });
        for opening in 0..OPENINGS {
            assert!(matches!(block_on(client.next()), Some(Event::Opened { .. })), "{opening}");
            // What the hook has received is no event.
            assert!(matches!(block_on(client.next()), Some(Event::Closed { why: ClientError::Closed(_), .. })));
        }
        is_over.store(true, Ordering::Relaxed);
        pushing.join().expect("no panic");
        for said in server.join().expect("no panic") {
            assert_eq!(said, ("subscribe".to_owned(), "pushed".to_owned()));
        }
    }
}

/// Kills: delays that begin anew because the handshake went well, and a connection that stays open though nobody has it.
#[test]
fn a_hook_that_fails_is_an_attempt_that_failed() {
    for speaks in Speaks::ALL {
        let (url, server) = servers::serve(speaks, 3, |stream| {
            let mut socket = tungstenite::accept(stream).expect("a handshake");
            let code = |frame: Option<tungstenite::protocol::CloseFrame>| frame.map(|frame| u16::from(frame.code));
            loop {
                match socket.read() {
                    Ok(Message::Close(frame)) => return code(frame),
                    Ok(_) => {}
                    Err(error) => panic!("{error}"),
                }
            }
        });
        let mut client = Reconnecting::new(connect(url))
            .delays(ms(20), ms(80))
            .max_attempts(3)
            .on_open(|_client: Client| ready(Err::<Client, _>("not subscribed")));
        for base in [20, 40] {
            let event = block_on(client.next());
            let text = format!("{event:?}");
            let delay = retry_in(event);
            assert!((ms(base) / 2..ms(base) * 3 / 2).contains(&delay), "{delay:?}");
            assert!(text.contains("Resume") && text.contains("not subscribed"), "{text}");
            assert!(!client.sender().is_open());
        }
        let Some(Event::Closed { why, retry_in: None }) = block_on(client.next()) else { panic!("three attempts") };
        assert_eq!(why.to_string(), "the connection could not be taken up again: not subscribed");
        assert_eq!(server.join().expect("no panic"), [Some(1001); 3]);
    }
}

/// Kills: a factory or a hook that never ends, and nothing ends it.
#[test]
fn stopping_ends_the_wait_for_the_programs_own_code() {
    for speaks in Speaks::ALL {
        let server = servers::own(speaks);
        let url = servers::url(&server, speaks, "/echo");
        let hung = || Reconnecting::with_factory(pending::<Result<Connect, ClientError>>);
        let resumed = || Reconnecting::new(connect(&url)).on_open(|_| pending::<Result<Client, ClientError>>());
        for mut client in [hung(), resumed()] {
            let sender = client.sender();
            let stopping = std::thread::spawn(move || {
                std::thread::sleep(ms(100));
                sender.stop();
            });
            let event = block_on(client.next());
            assert!(
                matches!(event, Some(Event::Closed { why: ClientError::NotConnected, retry_in: None })),
                "{event:?}"
            );
            assert!(block_on(client.next()).is_none());
            stopping.join().expect("no panic");
        }
    }
}
