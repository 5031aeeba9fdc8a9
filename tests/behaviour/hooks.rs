//! Hooks: what runs before, around and after a connection, and how often.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use http::StatusCode;
use ringwire::{App, Group, HttpError, Request, ws};
use serde_json::json;

use crate::common::PATIENCE;
use crate::examples::spry;
use crate::rig::{close_code, log, raw, say, serve, text};

#[test]
fn s01_groups_and_middleware_apply_to_sockets() {
    let served = spry();
    let path = "/inner/most/echo";
    assert_eq!(served.connect(path, &[]).err(), Some(403));
    assert_eq!(served.http("GET", "/inner/most/plain", "").0, 403);
    let (mut client, _) = served.connect(path, &[("X-Key", "1")]).expect("an upgrade");
    say(&mut client, "in");
    assert_eq!(text(&mut client), "in");
}

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
fn r09_the_order_of_a_life() {
    let (tell, told) = log();
    let served = serve(move || {
        let line = |text: &'static str| {
            let tell = tell.clone();
            move || tell(text)
        };
        let (observer, middleware, guard) = (line("observer pre"), line("middleware"), line("guard"));
        let (connect, pre, handler, post) = (line("on connect"), line("pre"), line("handler"), line("post"));
        let (closed, close, after) = (line("observer post"), line("close"), line("after"));
        let route = ws()
            .on_connect(move |_| connect())
            .before_message(move |_, _| pre())
            .on_message(move |_, _| {
                handler();
                "reply"
            })
            .after_message(move |_| post())
            .on_close(move |_, _| close());
        App::new().group("/life", move |group: Group| {
            group
                .observe(move |_| observer())
                .before(move |_| {
                    middleware();
                    Ok(())
                })
                .before(move |_| {
                    guard();
                    Ok(())
                })
                .observe_close(move |_| closed())
                .after(move |_, _| after())
                .ws("/", route)
        })
    });
    let mut client = served.client("/life");
    say(&mut client, "one");
    assert_eq!(text(&mut client), "reply");
    say(&mut client, "two");
    assert_eq!(text(&mut client), "reply");
    client.close(None).expect("sent");
    close_code(&mut client);
    let message = ["pre", "handler", "post"];
    let opened = ["observer pre", "middleware", "guard", "on connect"];
    let ended = ["observer post", "close", "after"];
    let expected: Vec<&str> = [&opened[..], &message, &message, &ended].concat();
    assert_eq!(told.take(expected.len()), expected);
    served.shutdown();
    assert!(told.is_empty());
}

struct Dropped(Arc<AtomicU32>);

impl Drop for Dropped {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn r10_clean_up_runs_once() {
    let (tell, told) = log();
    let drops = Arc::new(AtomicU32::new(0));
    let counter = Arc::clone(&drops);
    let served = serve(move || {
        let (tell, counter) = (tell.clone(), Arc::clone(&counter));
        let closing = tell.clone();
        let route = ws()
            .on_connect(move |socket| {
                let guard = Dropped(Arc::clone(&counter));
                socket.extensions().insert(Arc::new(guard));
                for name in ["first", "second"] {
                    let tell = tell.clone();
                    socket.on_cleanup(move || {
                        tell(name);
                        assert_ne!(name, "second", "one that panics does not keep the others from running");
                    });
                }
            })
            .on_message(|_, _| -> &str { panic!("as told") })
            .on_close(move |_, _| closing("close"));
        App::new().ws("/", route)
    });
    for round in 1..=3 {
        let mut client = served.client("/");
        match round {
            1 => client.close(None).expect("sent"),
            2 => say(&mut client, "panic"),
            _ => drop(client),
        }
        assert_eq!(told.take(3), ["close", "second", "first"]);
        served.await_count(0);
    }
    served.shutdown();
    assert_eq!(drops.load(Ordering::Relaxed), 3);
    assert!(told.is_empty());
}

/// Kills: an async `before` whose answer nobody looks at, a `before` that panics and lets in.
#[test]
fn hooks_that_refuse_or_panic_let_nobody_in() {
    let (tell, told) = log();
    let served = serve(move || {
        let tell = tell.clone();
        let guarded = move |group: Group| {
            let (socket, handler) = (tell.clone(), tell.clone());
            let upgraded = ws().on_connect(|_| "in");
            group
                .ws("/ws", ws().on_connect(move |_| socket("a socket")))
                .get("/http", async move |_: Request| handler("a handler"))
                .get("/upgraded", async move |request: Request| request.upgrade(&upgraded))
        };
        let (g1, g2, g3, g4, g5) = (guarded.clone(), guarded.clone(), guarded.clone(), guarded.clone(), guarded);
        App::new()
            .group("/now", |group| g1(group.before(|_| Err(HttpError::forbidden("no")))))
            .group("/later", |group| {
                g2(group.before_async(async |_: &mut Request| {
                    ringwire::sleep(Duration::from_millis(1)).await;
                    Err(HttpError::forbidden("no"))
                }))
            })
            .group("/both", |group| {
                g3(group.before(|_| Ok(())).before_async(async |_: &mut Request| Err(HttpError::forbidden("no"))))
            })
            .group("/panics-now", |group| g4(group.before(|_| panic!("as told"))))
            .group("/panics-later", |group| {
                g5(group.before_async(async |_: &mut Request| {
                    ringwire::sleep(Duration::from_millis(1)).await;
                    panic!("as told")
                }))
            })
    });
    for (group, status) in
        [("/now", 403), ("/later", 403), ("/both", 403), ("/panics-now", 500), ("/panics-later", 500)]
    {
        for path in ["/ws", "/upgraded"] {
            assert_eq!(served.connect(&format!("{group}{path}"), &[]).err(), Some(status), "{group}{path}");
        }
        assert_eq!(served.http("GET", &format!("{group}/http"), "").0, status, "{group}/http");
    }
    assert!(told.is_empty(), "nobody came in");
    served.await_count(0);
}

/// Kills: hooks of a group that an upgrade by an HTTP handler goes past.
#[test]
fn a_groups_hooks_are_there_behind_an_http_upgrade() {
    let (tell, told) = log();
    let served = serve(move || {
        let line = |text: &'static str| {
            let tell = tell.clone();
            move || tell(text)
        };
        let (observer, before, connect) = (line("observer"), line("before"), line("connect"));
        let (closed, close, after) = (line("observer post"), line("close"), line("after"));
        let route = ws().on_connect(move |_| connect()).on_close(move |_, _| close());
        let upgraded = route.clone();
        App::new().group("/", move |group| {
            group
                .observe(move |_| observer())
                .before(move |_| {
                    before();
                    Ok(())
                })
                .observe_close(move |_| closed())
                .after(move |_, _| after())
                .ws("/ws", route)
                .get("/upgraded", async move |request: Request| request.upgrade(&upgraded))
        })
    });
    for path in ["/ws", "/upgraded"] {
        drop(served.client(path));
        assert_eq!(told.take(6), ["observer", "before", "connect", "observer post", "close", "after"], "{path}");
    }
    assert!(told.is_empty());
}
