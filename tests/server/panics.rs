//! What a user wrote panics, wherever it may: in a call, in a destructor, while it is written, in what the panic carries.
//! It costs its own connection at most; the core and everybody else on it go on.

use std::fmt;
use std::future::{pending, poll_fn};
use std::net::SocketAddr;
use std::panic::panic_any;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use http::HeaderValue;
use http::header::HeaderName;
use ringwire::config::CoreSet;
use ringwire::{
    App, BoxError, Connection, HttpError, Json, Message, Mode, Request, Response, Server, Socket, sleep, spawn_local,
    ws,
};
use serde::{Serialize, Serializer};

use crate::common::config;
use crate::common::raw::{self, End, Raw};
use crate::ends::soon;

/// Panics when it is dropped, written, or asked for its bytes a second time.
#[derive(Clone)]
struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        panic!("a destructor");
    }
}

/// Another type, since extensions are kept by type.
#[derive(Clone)]
struct Other(Bomb);

impl Other {
    fn new() -> Other {
        let other = Other(Bomb);
        let _ = &other.0;
        other
    }
}

/// As much as a body is.
struct Owner(Bomb, &'static [u8]);

impl AsRef<[u8]> for Owner {
    fn as_ref(&self) -> &[u8] {
        let _ = &self.0;
        self.1
    }
}

fn explosive_bytes(bytes: &'static [u8]) -> Bytes {
    Bytes::from_owner(Owner(Bomb, bytes))
}

/// Neither can be written.
struct Unspeakable;

impl fmt::Display for Unspeakable {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        panic!("a Display")
    }
}

impl fmt::Debug for Unspeakable {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        panic!("a Debug")
    }
}

impl std::error::Error for Unspeakable {}

impl Serialize for Unspeakable {
    fn serialize<S: Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
        panic!("a Serialize")
    }
}

#[derive(thiserror::Error)]
#[error("an error")]
struct Explosive(Bomb);

impl fmt::Debug for Explosive {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let _ = &self.0;
        f.write_str("Explosive")
    }
}

/// A waker that does not want to be woken.
struct Sleepy;

impl Wake for Sleepy {
    fn wake(self: Arc<Sleepy>) {
        panic!("a waker")
    }
}

fn insert(request: &mut Request) {
    request.extensions_mut().insert(Bomb);
    request.extensions_mut().insert(Other::new());
}

fn blow_up<T>() -> T {
    panic_any(Bomb)
}

/// What the client of a case sees.
#[derive(Clone, Copy, Debug)]
enum Seen {
    /// A message is answered with "fine", and nothing is wrong when the client goes.
    Fine,
    /// The WebSocket is closed with this code after a message.
    Closed(u16),
    /// The request is answered with this status.
    Status(u16),
    /// It does not wait for the answer.
    Leaves,
}

use Seen::{Closed, Fine, Leaves, Status};

type Routes = fn(App, &'static str) -> App;

fn explode(_: &mut Socket<'_>, _: Message<'_>) -> Result<(), BoxError> {
    Err(Box::new(Explosive(Bomb)))
}

fn fine(_: &mut Socket<'_>, _: Message<'_>) -> &'static str {
    "fine"
}

/// Each with a route of its own.
const CASES: &[(&str, Seen, Routes)] = &[
    // ---- destructors of what a connection or a request has
    ("/extensions", Fine, |app, path| {
        let on_connect = |socket: &mut Socket<'_>| {
            socket.extensions().insert(Bomb);
            socket.extensions().insert(Other::new());
        };
        app.ws(path, ws().on_connect(on_connect).on_message(fine))
    }),
    ("/request", Fine, |app, path| {
        let before = |request: &mut Request| {
            insert(request);
            Ok(())
        };
        app.group(path, |group| group.before(before).ws("/", fine))
    }),
    ("/forgotten", Fine, |app, path| {
        let before = |request: &mut Request| {
            insert(request);
            Ok(())
        };
        app.group(path, |group| group.before(before).ws("/", ws().forget_request().on_message(fine)))
    }),
    ("/refused", Status(403), |app, path| {
        let before = |request: &mut Request| {
            insert(request);
            Err(HttpError::forbidden("no"))
        };
        app.group(path, |group| group.before(before).ws("/", fine))
    }),
    ("/protocol", Status(400), |app, path| {
        let before = |request: &mut Request| {
            insert(request);
            Ok(())
        };
        app.group(path, |group| group.before(before).ws("/", ws().subprotocols(["x"]).on_message(fine)))
    }),
    ("/late", Leaves, |app, path| {
        let before = async |request: &mut Request| {
            insert(request);
            sleep(Duration::from_millis(50)).await;
            Ok(())
        };
        app.group(path, |group| group.before_async(before).ws("/", fine))
    }),
    ("/cleanup", Fine, |app, path| {
        let on_connect = |socket: &mut Socket<'_>| {
            let bomb = Bomb;
            socket.on_cleanup(|| panic!("a clean-up"));
            socket.on_cleanup(move || drop(bomb));
            socket.on_cleanup(|| panic_any(Bomb));
        };
        app.ws(path, ws().on_connect(on_connect).on_message(fine))
    }),
    ("/on-close", Fine, |app, path| {
        app.group(path, |group| {
            let group = group.after(|_, _| panic!("an after hook")).observe_close(|_| panic_any(Bomb));
            group.ws("/", ws().on_message(fine).on_close(|_, _| panic!("on_close")))
        })
    }),
    // ---- what handlers have captured, which is dropped with the connection, or with the core
    ("/captured", Fine, |app, path| {
        let bomb = Bomb;
        app.ws(path, move |_: &mut Socket<'_>, _: Message<'_>| {
            let _ = &bomb;
            "fine"
        })
    }),
    ("/captured-everywhere", Fine, |app, path| {
        let (a, b, c, d, e) = (Bomb, Bomb, Bomb, Bomb, Bomb);
        app.group(path, |group| {
            let group = group
                .before(move |_| {
                    let _ = &a;
                    Ok(())
                })
                .observe(move |_| {
                    let _ = &b;
                })
                .after(move |_, _| {
                    let _ = &c;
                });
            let on_connect = move |_: &mut Socket<'_>| {
                let _ = &d;
            };
            let on_close = move |_: &mut Socket<'_>, _: &ringwire::Closed| {
                let _ = &e;
            };
            group.ws("/", ws().on_connect(on_connect).on_close(on_close).on_message(fine))
        })
    }),
    ("/upgraded", Fine, |app, path| {
        app.get(path, async |request: Request| {
            let (bomb, other) = (Bomb, Bomb);
            let on_close = move |_: &mut Socket<'_>, _: &ringwire::Closed| {
                let _ = &other;
            };
            request.upgrade(&ws().on_close(on_close).on_message(move |_, _| {
                let _ = &bomb;
                "fine"
            }))
        })
    }),
    // ---- handlers that fail
    ("/panics", Closed(1011), |app, path| app.ws(path, |_: &mut Socket<'_>, _: Message<'_>| blow_up::<()>())),
    ("/panics-later", Closed(1011), |app, path| app.ws(path, ws().on_message_async(async |_, _| blow_up::<()>()))),
    ("/before-message", Closed(1011), |app, path| {
        app.ws(path, ws().before_message(|_, _| blow_up::<()>()).on_message(fine))
    }),
    ("/after-message", Closed(1011), |app, path| app.ws(path, ws().after_message(|_| panic_any(Bomb)))),
    ("/error-written", Closed(1011), |app, path| {
        app.ws(path, |_: &mut Socket<'_>, _: Message<'_>| Err::<(), Unspeakable>(Unspeakable))
    }),
    ("/error-written-later", Closed(1011), |app, path| {
        app.ws(path, ws().on_message_async(async |_, _| Err::<(), Unspeakable>(Unspeakable)))
    }),
    ("/error-dropped", Closed(1011), |app, path| app.ws(path, explode)),
    ("/error-dropped-later", Closed(1011), |app, path| {
        app.ws(path, ws().on_message_async(async |_, _| Err::<(), Explosive>(Explosive(Bomb))))
    }),
    ("/on-error", Closed(1011), |app, path| app.ws(path, ws().on_error(|_, _| panic_any(Bomb)).on_message(explode))),
    ("/serialized", Closed(1011), |app, path| app.ws(path, |_: &mut Socket<'_>, _: Message<'_>| Json(Unspeakable))),
    ("/emitted", Closed(1011), |app, path| {
        app.ws(path, |socket: &mut Socket<'_>, _: Message<'_>| socket.to_all().emit("x", &Unspeakable))
    }),
    ("/emitted-by-hub", Closed(1011), |app, path| {
        app.ws(path, |socket: &mut Socket<'_>, _: Message<'_>| {
            let _ = socket.hub().to_all().emit("x", &Unspeakable);
        })
    }),
    // ---- tasks
    ("/task-ends", Fine, |app, path| {
        app.ws(
            path,
            ws().task(async |mut connection: Connection| {
                let _bomb = Bomb;
                while connection.recv().await.is_some() {
                    let _ = connection.send("fine");
                }
            }),
        )
    }),
    ("/task-stays", Fine, |app, path| {
        app.ws(
            path,
            ws().task(async |mut connection: Connection| {
                let _bombs = (Bomb, Some(connection.clone()));
                connection.recv().await;
                let _ = connection.send("fine");
                pending::<()>().await;
            }),
        )
    }),
    ("/spawned", Fine, |app, path| {
        app.ws(path, |socket: &mut Socket<'_>, _: Message<'_>| {
            // One stays to the end, one is cancelled, one gives back what nobody takes.
            let stays = socket.spawn(async {
                let _bomb = Bomb;
                pending::<()>().await;
            });
            stays.detach();
            drop(spawn_local(async {
                let _bomb = Bomb;
                pending::<()>().await;
            }));
            spawn_local(async { Bomb }).detach();
            spawn_local(async { blow_up::<()>() }).detach();
            "fine"
        })
    }),
    ("/awaited", Closed(1011), |app, path| {
        app.ws(
            path,
            ws().on_message_async(async |_, _| {
                let task = spawn_local(async { blow_up::<()>() });
                task.await
            }),
        )
    }),
    ("/stream", Closed(1011), |app, path| {
        app.ws(
            path,
            ws().task(async |mut connection: Connection| {
                connection.recv().await;
                let explosive = stream::poll_fn(|_| -> Poll<Option<String>> { panic_any(Bomb) });
                connection.send_stream(explosive).await
            }),
        )
    }),
    ("/send-only", Closed(1011), |app, path| {
        app.ws(path, ws().mode(Mode::SendOnly).on_message_async(async |_, _| blow_up::<()>()))
    }),
    ("/waker", Fine, |app, path| {
        app.ws(
            path,
            ws().task(async |mut connection: Connection| {
                let mut other = connection.clone();
                let waker = Waker::from(Arc::new(Sleepy));
                let mut sleepy = Box::pin(async move { other.recv().await });
                let mut also = Box::pin(sleep(Duration::from_millis(1)));
                let _ = sleepy.as_mut().poll(&mut Context::from_waker(&waker));
                let _ = also.as_mut().poll(&mut Context::from_waker(&waker));
                sleep(Duration::from_millis(30)).await;
                let received = poll_fn(|cx| {
                    let mut own = Box::pin(connection.recv());
                    Pin::new(&mut own).poll(cx).map(|message| message.is_some())
                });
                let _ = received.await;
                let _ = connection.send("fine");
                drop(sleepy);
            }),
        )
    }),
    // ---- requests
    ("/http", Status(500), |app, path| app.get(path, async |_: Request| blow_up::<()>())),
    ("/http-extensions", Status(200), |app, path| {
        app.get(path, async |mut request: Request| {
            insert(&mut request);
            "fine"
        })
    }),
    ("/http-body", Status(200), |app, path| app.get(path, async |_: Request| explosive_bytes(b"a body"))),
    ("/http-field", Status(200), |app, path| {
        app.get(path, async |_: Request| {
            let value = HeaderValue::from_maybe_shared(explosive_bytes(b"a value")).expect("one");
            Response::text("fine").with_header(HeaderName::from_static("x-y"), value)
        })
    }),
    ("/http-late", Leaves, |app, path| {
        app.get(path, async |_: Request| {
            sleep(Duration::from_millis(50)).await;
            explosive_bytes(b"a body")
        })
    }),
    ("/http-stays", Leaves, |app, path| {
        app.get(path, async |_: Request| {
            let _bomb = Bomb;
            pending::<&'static str>().await
        })
    }),
    ("/http-json", Status(500), |app, path| app.get(path, async |_: Request| Json(Unspeakable))),
    ("/before", Status(500), |app, path| app.group(path, |group| group.before(|_| blow_up()).ws("/", fine))),
    ("/before-later", Status(500), |app, path| {
        app.group(path, |group| group.before_async(async |_| blow_up()).ws("/", fine))
    }),
    ("/observed", Fine, |app, path| app.group(path, |group| group.observe(|_| panic_any(Bomb)).ws("/", fine))),
];

fn app() -> App {
    let app = App::new().ws("/echo", |socket: &mut Socket<'_>, message: Message<'_>| socket.send(message));
    CASES.iter().fold(app, |app, (path, _, routes)| routes(app, path))
}

fn run(address: SocketAddr, path: &str, seen: Seen) {
    let mut client = Raw::connect(address);
    client.send(&raw::upgrade_request(path));
    match seen {
        Status(status) => {
            let response = client.response(false);
            assert_eq!(response.status, status, "{path}: {response:?}");
            return;
        }
        Leaves => {
            std::thread::sleep(Duration::from_millis(10));
            return;
        }
        Fine | Closed(_) => assert_eq!(client.response(false).status, 101, "{path}"),
    }
    client.send_if_open(&raw::text("a message"));
    match seen {
        Closed(code) => {
            let frames = client.frames().0;
            assert!(frames.iter().any(|frame| frame.code() == Some(code)), "{path}: {frames:?}");
        }
        _ => {
            assert_eq!(client.frame().payload, b"fine", "{path}");
            client.send(&raw::close(1000, b""));
            assert_eq!(client.frame().code(), Some(1000), "{path}");
            assert_eq!(client.rest(), (Vec::new(), End::Finished), "{path}");
        }
    }
}

/// Kills: every place where a user's code runs, or is dropped, without a guard.
#[test]
fn a_panic_of_a_users_costs_one_connection_wherever_it_is() {
    // They wait more than they work.
    std::thread::scope(|scope| {
        CASES.chunks(CASES.len().div_ceil(6)).for_each(|cases| drop(scope.spawn(|| survive(cases))))
    });
}

fn survive(cases: &[(&str, Seen, Routes)]) {
    let config = config().cores(CoreSet::Count(1));
    let handle = Server::new(config).start(app).expect("it starts");
    let address = handle.addresses()[0].inet().expect("TCP");
    let mut witness = Raw::connect(address);
    witness.upgrade("/echo");
    for (path, seen, _) in cases {
        run(address, path, *seen);
        // What happens after the client has gone, too.
        for round in 0..3 {
            witness.send(&raw::text(path));
            assert_eq!(witness.frame().payload, path.as_bytes(), "{path}: the others go on");
            std::thread::sleep(Duration::from_millis(if round == 1 { 60 } else { 0 }));
        }
    }
    // Everything that is left is dropped here: the app with what its handlers have captured, tasks that never end.
    handle.shutdown();
    assert_eq!(witness.frame().code(), Some(1001));
    witness.send(&raw::close(1001, b""));
    soon(move || handle.join()).expect("the core has ended well");
}

/// What makes the apps is a user's too, and so is what it has captured.
#[test]
fn whatever_makes_the_apps_is_dropped_behind_a_guard() {
    let bomb = Bomb;
    let make = move || {
        let _ = &bomb;
        App::new()
    };
    let handle = Server::new(config()).start(make).expect("it starts");
    handle.shutdown();
    soon(move || handle.join()).expect("the cores have ended well");

    let error = soon(|| Server::new(config()).start(|| panic_any(Bomb)).map(|_| ())).expect_err("no app");
    assert!(error.to_string().contains("could not be made"), "{error}");
}
