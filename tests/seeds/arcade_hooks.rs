//! Arcade: what runs before and after a connection, and the limits of its list of best practices.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use http::StatusCode;
use ringwire::client::{Event, Reconnecting, connect};
use ringwire::config::Config;
use ringwire::{App, HttpError, Request, ws};
use serde_json::json;
use tungstenite::Message;

use super::rig::{block_on, close_code, log, raw, say, serve, serve_with, text};
use crate::common::{PATIENCE, config};

#[derive(Clone)]
struct User(String);

#[test]
fn a07_before_hooks_accept_or_refuse() {
    let (tell, told) = log();
    let served = serve(move || {
        let (outer, inner) = (tell.clone(), tell.clone());
        let authenticate = move |request: &mut Request| {
            outer("outer");
            let token = request.header("authorization").or_else(|| request.cookie("auth-token"));
            let name = token.and_then(|token| token.strip_prefix("token-of-"));
            let user = User(name.ok_or_else(|| HttpError::unauthorized("who?"))?.to_owned());
            request.extensions_mut().insert(user);
            request.respond_with_header(http::header::SERVER, http::HeaderValue::from_static("seed"));
            Ok(())
        };
        let refuse = |request: &mut Request| match request.query("status").and_then(|code| code.parse().ok()) {
            Some(code) => Err(HttpError::new(StatusCode::from_u16(code).expect("a status"), "as asked")),
            None => Ok(()),
        };
        let greeting = |socket: &mut ringwire::Socket<'_>| {
            socket.extensions().get::<User>().map(|user| format!("Welcome {}!", user.0))
        };
        App::new().group("/in", move |group| {
            group.before(authenticate).before(refuse).group("/ner", move |group| {
                group
                    .before_async(async move |_: &mut Request| {
                        inner("inner");
                        ringwire::sleep(Duration::from_millis(1)).await;
                        Ok(())
                    })
                    .ws("/", ws().on_connect(greeting))
            })
        })
    });
    let path = "/in/ner";
    // Nothing of a handshake is left when a hook refuses.
    let mut client = served.raw();
    client.send(&raw::upgrade_request(path));
    let refused = client.response(false);
    assert_eq!((refused.status, refused.header("sec-websocket-accept")), (401, None));
    assert_eq!(refused.body, r#"{"error":"who?"}"#);
    assert_eq!(told.next(), "outer");
    assert!(told.is_empty(), "the chain has ended");

    let named = ("Authorization", "token-of-ann");
    for code in [400, 401, 403, 404, 503] {
        assert_eq!(served.connect(&format!("{path}?status={code}"), &[named]).err(), Some(code));
        assert_eq!(told.next(), "outer");
    }
    assert!(told.is_empty());
    for field in [named, ("Cookie", "theme=dark; auth-token=token-of-ann")] {
        let (mut client, response) = served.connect(path, &[field]).expect("an upgrade");
        assert_eq!(response.headers()["server"], "seed");
        assert_eq!(text(&mut client), "Welcome ann!");
        assert_eq!(told.take(2), ["outer", "inner"]);
    }
}

#[derive(Clone, Copy, Default)]
struct Messages(u32);

#[test]
fn a11_the_after_hook_runs_once_however_a_connection_ends() {
    let (tell, told) = log();
    let served = serve(move || {
        let tell = tell.clone();
        let route = ws()
            .on_connect(|socket| {
                socket.set_data(json!({"name": socket.param("name")}));
            })
            .on_message(|socket, message| {
                assert_ne!(message.as_text(), Some("panic"), "as told");
                socket.extensions().get_or_insert_default::<Messages>().0 += 1;
                message.as_text().map(str::to_owned)
            });
        App::new().group("/", move |group| {
            group.ws("/{name}", route).after(move |socket, closed| {
                assert!(closed.duration > Duration::ZERO && closed.duration < PATIENCE);
                let messages = socket.extensions().get_or_insert_default::<Messages>().0;
                let data = socket.data();
                tell(&format!("{} {messages} {}", data["name"].as_str().unwrap_or("?"), closed.code));
            })
        })
    });
    let counted = |name: &str| {
        let mut client = served.client(&format!("/{name}"));
        say(&mut client, "one");
        assert_eq!(text(&mut client), "one");
        client
    };
    let mut clean = counted("clean");
    clean.close(None).expect("sent");
    assert_eq!(close_code(&mut clean), Some(1005));
    assert_eq!(told.next(), "clean 1 1005");

    let mut client = served.raw();
    client.upgrade("/reset");
    client.send(&raw::text("one"));
    client.frame();
    client.reset();
    assert_eq!(told.next(), "reset 1 1006");

    drop(counted("dropped").into_inner());
    assert_eq!(told.next(), "dropped 1 1006");

    let mut panics = counted("panic");
    say(&mut panics, "panic");
    assert_eq!(close_code(&mut panics), Some(1011));
    assert_eq!(told.next(), "panic 1 1011");

    let mut last = counted("shutdown");
    let reading = std::thread::spawn(move || close_code(&mut last));
    served.shutdown();
    assert_eq!(reading.join().expect("no panic"), Some(1001));
    assert_eq!(told.next(), "shutdown 1 1001");
    assert!(told.is_empty(), "once each");
}

#[test]
fn a14_limits_heartbeat_rate_and_clean_up() {
    let cleaned = Arc::new(AtomicU32::new(0));
    let counter = Arc::clone(&cleaned);
    let served = serve(move || {
        let counter = Arc::clone(&counter);
        let guarded = ws().on_connect(move |socket| {
            let counter = Arc::clone(&counter);
            socket.on_cleanup(move || {
                counter.fetch_add(1, Ordering::Relaxed);
            });
        });
        App::new()
            .ws("/size", guarded.clone().max_message(1000).on_message(|_, _| "fits"))
            .ws("/rate", guarded.clone().message_rate(10))
            .ws("/alive", guarded.ping_interval(Duration::from_millis(30)).idle_timeout(Duration::from_millis(300)))
    });
    let mut client = served.client("/size");
    client.send(Message::binary(vec![0; 1000])).expect("sent");
    assert_eq!(text(&mut client), "fits");
    client.send(Message::binary(vec![0; 1001])).expect("sent");
    assert_eq!(close_code(&mut client), Some(1009));

    let mut client = served.client("/rate");
    for _ in 0..50 {
        // It may have been closed already.
        let _ = client.send(Message::text("x"));
    }
    assert_eq!(close_code(&mut client), Some(1008));

    // One that does not answer pings is stale.
    let mut client = served.raw();
    client.upgrade("/alive");
    let (frames, _) = client.frames();
    assert!(frames.len() > 2 && frames.iter().all(|frame| frame.first == raw::FIN | raw::PING), "{frames:?}");
    served.await_count(0);
    assert_eq!(cleaned.load(Ordering::Relaxed), 3);
}

#[test]
fn a14_a_client_that_reconnects_doubling_its_delay() {
    let app = || App::new().ws("/", ws().on_connect(|_| "hello"));
    let served = serve(app);
    let address = served.address;
    let first = Duration::from_millis(50);
    let mut client = Reconnecting::new(connect(format!("ws://{address}/"))).delays(first, first * 4);
    let mut next = || block_on(client.next()).expect("it goes on");
    assert!(matches!(next(), Event::Opened { .. }));
    assert!(matches!(next(), Event::Message(message) if message.as_text() == Some("hello")));
    served.shutdown();
    // Each delay is twice the last one, up to the longest, times a random number between 0.5 and 1.5.
    for factor in [1, 2, 4, 4] {
        let Event::Closed { retry_in: Some(delay), .. } = next() else { panic!("it is closed") };
        assert!(delay >= first * factor / 2 && delay <= first * factor * 3 / 2, "{delay:?} {factor}");
    }
    let config = Config { addresses: vec![address.into()], ..config() };
    let served = serve_with(config, app);
    // Attempts may have failed while it started.
    while !matches!(next(), Event::Opened { .. }) {}
    assert!(matches!(next(), Event::Message(_)));
    served.shutdown();
    let Event::Closed { retry_in: Some(delay), .. } = next() else { panic!("it is closed") };
    assert!(delay <= first * 3 / 2, "the first delay again: {delay:?}");
}
