//! Revali: the order of a connection's life, its clean-up, and what failing handlers do.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use ringwire::{App, BoxError, Connection, FailurePolicy, Group, OwnedMessage, Socket, ws};

use super::rig::{close_code, close_frame, log, say, serve, text};

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
