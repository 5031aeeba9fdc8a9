//! Apps: the state that they hand out, apps within apps, and paths as they are written.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use ringwire::{App, Connection, Core, Envelope, Events, HttpError, OwnedMessage, Request, Server, Socket, ws};
use serde_json::Value;

use crate::common::config;
use crate::rig::{Served, log, say, serve, text};

#[derive(Default)]
struct Totals(AtomicU32);

impl Totals {
    fn more(&self) -> u32 {
        self.0.fetch_add(1, Ordering::Relaxed) + 1
    }
}

struct OfCore {
    core: usize,
    count: Cell<u32>,
}

impl OfCore {
    fn shown(&self, total: u32) -> String {
        self.count.set(self.count.get() + 1);
        format!("{total} {} {}", self.core, self.count.get())
    }
}

/// Kills: state that is not shared, or not a core's own, or not found in one of the forms.
#[test]
fn state_is_found_by_its_type_in_every_form() {
    let handle = Server::new(config()).start_with(Totals::default(), |core, totals| {
        assert_eq!((core.count(), totals.0.load(Ordering::Relaxed) < 100), (2, true));
        let task = async |mut socket: Connection| {
            let (totals, of_core) = (socket.state::<Totals>(), socket.core_state::<OfCore>());
            while socket.recv().await.is_some() {
                let _ = socket.send(of_core.shown(totals.more()));
            }
        };
        App::new()
            .with_core_state(OfCore { core: core.number(), count: Cell::new(0) })
            .before(|request| {
                assert!(
                    request.state::<Totals>().0.load(Ordering::Relaxed) < 1_000
                        && request.core_state::<OfCore>().core < 2
                );
                Ok(())
            })
            .after(|socket, _| {
                assert!(
                    socket.core_state::<OfCore>().core < 2 && socket.state::<Totals>().0.load(Ordering::Relaxed) > 0
                )
            })
            .ws("/closure", |socket: &mut Socket<'_>, _: ringwire::Message<'_>| {
                // Neither borrows the socket.
                let (totals, of_core) = (socket.state::<Totals>(), socket.core_state::<OfCore>());
                socket.send(of_core.shown(totals.more()))
            })
            .ws(
                "/async",
                ws().on_message_async(async |socket: Connection, _: OwnedMessage| {
                    socket.core_state::<OfCore>().shown(socket.state::<Totals>().more())
                }),
            )
            .ws("/task", ws().task(task))
            .ws(
                "/event",
                Events::new()
                    .on("x", |socket, _: Value| socket.core_state::<OfCore>().shown(socket.state::<Totals>().more())),
            )
            .get("/http", async |request: Request| {
                request.core_state::<OfCore>().shown(request.state::<Totals>().more())
            })
    });
    let handle = handle.expect("the server starts");
    let served = Served::of(handle);
    let mut totals = BTreeSet::new();
    let mut counts = BTreeSet::new();
    let mut note = |line: &str| {
        let (total, of_core) = line.split_once(' ').expect("two parts");
        assert!(totals.insert(total.to_owned()), "{line}: nobody else has this total");
        assert!(counts.insert(of_core.to_owned()), "{line}: nor this count of the core");
    };
    for _ in 0..4 {
        for path in ["/closure", "/async", "/task", "/event"] {
            let mut client = served.client(path);
            say(&mut client, r#"{"event":"x"}"#);
            note(&text(&mut client));
        }
        note(&served.http("GET", "/http", "").1);
    }
    assert_eq!(totals.len(), 20);
    assert_eq!(totals, (1..=20).map(|total| total.to_string()).collect());
}

#[test]
fn state_that_is_not_there_is_a_failure_that_says_so() {
    let served = serve(|| {
        App::new()
            .ws("/", ws().on_message(|socket, _| socket.state::<Totals>().more().to_string()))
            .get("/", async |request: Request| request.state::<Totals>().more().to_string())
    });
    assert_eq!(served.http("GET", "/", "").0, 500);
    let mut client = served.client("/");
    say(&mut client, "x");
    assert_eq!(crate::common::close_code(&mut client), Some(1011));
    let twice = std::panic::catch_unwind(|| drop(App::new().with_core_state(1_u8).with_core_state(2_u8)));
    assert!(twice.is_err());
}

fn admin(tell: impl Fn(&str) + Clone + 'static) -> App {
    let inner = tell.clone();
    App::new()
        .with_state(Arc::new(7_u64))
        .with_core_state("inner")
        .before(move |request| {
            inner("inner before");
            if request.query("no").is_some() { Err(HttpError::forbidden("no")) } else { Ok(()) }
        })
        .after(move |_, _| tell("inner after"))
        .get("/", async |_: Request| "admin")
        .get("/state", async |request: Request| format!("{} {}", request.state::<u64>(), request.core_state::<&str>()))
        .ws("/live/{name}", ws().on_connect(|socket| socket.param("name").to_owned()))
        .fallback(async |request: Request| format!("nothing at {}", request.path()))
}

/// Kills: a nested app whose hooks, state, or fallback are lost, or reach further than its prefix.
#[test]
fn apps_nest() {
    let (tell, told) = log();
    let served = serve(move || {
        let (outer, outer_end) = (tell.clone(), tell.clone());
        App::new()
            .with_state(Arc::new(8_u64))
            .before(move |_| {
                outer("outer before");
                Ok(())
            })
            .after(move |_, _| outer_end("outer after"))
            .nest("/admin", admin(tell.clone()))
            .nest("/t/{tenant}", App::new().get("/who", async |request: Request| request.param("tenant").to_owned()))
            .get("/state", async |request: Request| request.state::<u64>().to_string())
            .fallback(async |_: Request| "nothing")
    });
    let body = |path: &str| served.http("GET", path, "").1;
    assert_eq!(body("/admin"), "admin");
    assert_eq!(told.take(2), ["outer before", "inner before"]);
    assert_eq!(served.http("GET", "/admin/?no=1", "").0, 200, "not a route: /admin is one");
    assert_eq!(served.http("GET", "/admin?no=1", "").0, 403);
    assert_eq!(told.take(2), ["outer before", "inner before"]);
    // The outer app has one of the type.
    assert_eq!(body("/admin/state"), "8 inner");
    assert_eq!(told.take(2), ["outer before", "inner before"]);
    assert_eq!(body("/state"), "8");
    assert_eq!(told.next(), "outer before");
    assert_eq!(
        (body("/admin/x"), body("/adminx"), body("/x")),
        ("nothing at /admin/x".into(), "nothing".into(), "nothing".into())
    );
    assert_eq!(body("/t/acme/who"), "acme");
    assert_eq!(told.next(), "outer before");
    let mut client = served.client("/admin/live/ann");
    assert_eq!(text(&mut client), "ann");
    assert_eq!(told.take(2), ["outer before", "inner before"]);
    drop(client);
    assert_eq!(told.take(2), ["inner after", "outer after"]);
    assert!(told.is_empty());
}

#[test]
fn a_server_has_one_envelope() {
    let served = serve(|| {
        let inner = App::new().envelope(Envelope::Path).ws("/a", ws().on_connect(|socket| socket.emit("x", &1)));
        App::new().nest("/in", inner).ws("/b", Events::new().on("x", |socket, _: Value| socket.emit("y", &2)))
    });
    assert_eq!(crate::rig::json(&mut served.client("/in/a")), serde_json::json!({"path": "x", "data": 1}));
    let mut client = served.client("/b");
    say(&mut client, r#"{"path":"x"}"#);
    assert_eq!(crate::rig::json(&mut client), serde_json::json!({"path": "y", "data": 2}));
    let clash = || App::new().envelope(Envelope::Event).nest("/in", App::new().envelope(Envelope::Path));
    assert!(std::panic::catch_unwind(|| drop(clash())).is_err());
}

/// Kills: routes that nobody asks for, written as other routers have them.
#[test]
fn paths_of_other_routers_are_refused_with_the_right_one() {
    for (path, right) in [
        ("/u/:id", "a parameter is written {id}, as in /u/{id}"),
        ("/u/:id/posts/:post", "a parameter is written {id}, as in /u/{id}/posts/{post}"),
        ("/files/*path", "a parameter is written {*path}, as in /files/{*path}"),
        ("/files/*", "a parameter is written {*rest}, as in /files/{*rest}"),
        ("/u/<id>", "a parameter is written {id}, as in /u/{id}"),
    ] {
        let ways: [Box<dyn Fn() -> App + Send + Sync>; 4] = [
            Box::new(move || App::new().ws(path, ws())),
            Box::new(move || App::new().get(path, async |_: Request| "x")),
            Box::new(move || App::new().group(path, |group| group.ws("/", ws()))),
            Box::new(move || App::new().nest(path, App::new())),
        ];
        for make in ways {
            let started = Server::new(config()).start(make);
            let error = started.expect_err("it does not start").to_string();
            assert!(error.contains(right) && error.contains(&format!("the route {path} ")), "{error}");
        }
    }
    // What only looks like it.
    let served = serve(|| App::new().get("/a:b/c*d", async |_: Request| "odd"));
    assert_eq!(served.http("GET", "/a:b/c*d", "").0, 200);
}

/// Kills: an end that handlers cannot ask for, a hook that runs not, twice, or when nobody hears it any more.
#[test]
fn a_handler_ends_the_server_and_hooks_run_before() {
    let (tell, told) = log();
    let config = config().drain_notice(std::time::Duration::from_millis(300));
    let handle = Server::new(config).start(move || {
        let (outer, inner) = (tell.clone(), tell.clone());
        let inner = App::new().on_shutdown(async move |_: Core| inner("inner"));
        App::new()
            .nest("/in", inner)
            .on_shutdown(async move |core: Core| {
                ringwire::sleep(std::time::Duration::from_millis(5)).await;
                outer("outer");
                if core.number() == 0 {
                    let sent = core.hub().emit_to_all("goodbye", &core.count()).expect("JSON").await;
                    outer(&format!("told {}", sent.queued));
                }
            })
            .ws("/", ws().on_connect(|_| "hello"))
            .post("/quit", async |request: Request| {
                request.hub().shutdown();
                request.hub().shutdown();
            })
    });
    let handle = handle.expect("the server starts");
    let served = Served::of(handle);
    let mut client = served.client("/");
    assert_eq!(text(&mut client), "hello");
    assert_eq!(served.http("POST", "/quit", "").0, 204);
    assert_eq!(crate::rig::event_named(&mut client, "goodbye"), serde_json::json!(2));
    assert_eq!(crate::rig::close_frame(&mut client).0, 1001);
    let mut lines = told.take(5);
    lines.sort();
    assert_eq!(lines, ["inner", "inner", "outer", "outer", "told 1"]);
    served.join();
    assert!(told.is_empty());
}
