//! A row of the table.

use std::any::Any;
use std::cell::RefCell;
use std::rc::Rc;

use ringwire::Deflate;

use crate::host::Setup;
use crate::rig::{Socket, Transport};
use crate::secure;
use crate::wire::compression::OFFERS;
use crate::wire::{Event, Message, TEXT};

/// The way a row runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    Closure,
    Waiting,
    Task,
}

/// What a row's messages go through: whether TLS, and the mode of compression.
pub type Through = (bool, Deflate);

impl Way {
    /// All that a row is run through in this way.
    pub fn through(self) -> [Through; 3] {
        let (is_secure, deflate) = match self {
            Way::Closure => (false, Deflate::Stateless),
            Way::Waiting => (true, Deflate::Shared),
            Way::Task => (false, Deflate::Dedicated),
        };
        [(false, Deflate::Off), (true, Deflate::Off), (is_secure, deflate)]
    }
}

/// Has a server serve so, and its clients speak so.
pub fn transport(setup: &mut Setup, (is_secure, deflate): Through) -> Transport {
    eprintln!("over {} with compression {deflate}", if is_secure { "TLS" } else { "TCP" });
    setup.deflate.mode = deflate;
    // Whatever gets shorter.
    setup.deflate.bytes_min = 1;
    if is_secure {
        setup.settings.acceptors = vec![Some(secure::acceptor())];
    }
    let secure = is_secure.then_some(secure::layer as fn(_) -> _);
    Transport { secure, offer: Some(OFFERS[0]).filter(|_| deflate != Deflate::Off) }
}

/// What handlers and hooks of all cores tell the test, and what they give it to keep.
#[derive(Clone, Default)]
pub struct Log {
    lines: Rc<RefCell<Vec<String>>>,
    kept: Rc<RefCell<Vec<Box<dyn Any>>>>,
}

impl Log {
    pub fn add(&self, line: impl Into<String>) {
        self.lines.borrow_mut().push(line.into());
    }

    pub fn take(&self) -> Vec<String> {
        self.lines.take()
    }

    pub fn keep(&self, value: impl Any) {
        self.kept.borrow_mut().push(Box::new(value));
    }

    /// The value of this type that was kept last.
    pub fn kept<T: Any>(&self) -> T {
        let mut kept = self.kept.borrow_mut();
        let index = kept.iter().rposition(|value| value.is::<T>()).expect("one was kept");
        *kept.remove(index).downcast().expect("it is of the type")
    }

    /// A closure that tells this.
    pub fn line(&self, line: &'static str) -> impl Fn() + Clone + 'static {
        let log = self.clone();
        move || log.add(line)
    }
}

/// Bytes that no compressor makes much shorter.
pub fn noise(len: usize) -> Vec<u8> {
    let mut state = len as u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    (0..len).map(|_| next()).collect()
}

/// A number in two thousand characters, which no compressor makes shorter than half of it.
pub fn long(number: u32) -> String {
    let hex = noise(1_000 + number as usize).into_iter().take(995).map(|byte| format!("{byte:02x}"));
    format!("{number} ") + &hex.collect::<String>()
}

/// The number in such a text.
pub fn number(text: &str) -> u32 {
    let number = text.split(' ').next().and_then(|number| number.parse().ok()).expect("a number");
    assert!(text == long(number), "other bytes");
    number
}

/// The code of the Close frame that has arrived, behind these texts alone.
pub fn close_code_after(client: &mut Socket, texts: &[&str]) -> Option<u16> {
    let mut events = client.events();
    let Some(Event::Close(code)) = events.pop() else { panic!("{events:?}, and no Close") };
    let text = |text: &&str| Event::Message(Message { opcode: TEXT, payload: text.as_bytes().to_vec() });
    assert_eq!(events, texts.iter().map(text).collect::<Vec<_>>());
    code
}

/// A row: `route` makes the route but for its handler, `app` (one route at `/{room}` if it is left out) puts it somewhere,
/// and `client` leads the clients by the hand. What is done with the connection is one of
/// * `handler |peer, message|`, for each message, and what it returns is the reply;
/// * `handler_but_no_task(WHY)`, where a task by definition has no such thing;
/// * `opener |peer, message|`, also when the connection opens, with `None`;
/// * `once |peer|`, only then.
///
/// In each `now!(…)` is what is waited for where waiting is possible, and `pause!()` waits there for a while.
macro_rules! row {
    (
        $(#[$doc:meta])*
        $name:ident;
        $(setup |$setup:ident| $change:block)?
        $(app |$app_route:ident, $app_log:ident| $app:expr;)?
        route |$ws:ident, $route_log:ident| $route:expr;
        $kind:ident $(($why:literal))? |$peer:ident, $log:ident $(, $message:ident)?| $body:block
        client |$rig:ident, $way:ident, $client_log:ident| $client:block
    ) => {
        $(#[$doc])*
        mod $name {
            #[allow(unused_imports)]
            use super::*;

            #[allow(unused_variables)]
            fn route(log: &crate::row::Log) -> ringwire::Ws {
                let ($ws, $route_log) = (ringwire::ws(), log.clone());
                $route
            }

            #[allow(unused_variables, unused_assignments, unused_mut)]
            fn app(log: &crate::row::Log, route: ringwire::Ws) -> ringwire::App {
                let mut route = Some(route);
                let mut app = None;
                $({
                    let ($app_route, $app_log) = (route.take().expect("once"), log.clone());
                    app = Some($app);
                })?
                app.unwrap_or_else(|| ringwire::App::new().ws("/{room}", route.take().expect("once")))
            }

            fn run(way: crate::row::Way, handled: fn(ringwire::Ws, crate::row::Log) -> ringwire::Ws) {
                way.through().into_iter().for_each(|through| run_through(way, through, handled));
            }

            #[allow(unused_variables, unused_mut)]
            fn run_through(
                $way: crate::row::Way,
                through: crate::row::Through,
                handled: fn(ringwire::Ws, crate::row::Log) -> ringwire::Ws,
            ) {
                let log = crate::row::Log::default();
                let in_app = log.clone();
                let mut setup = crate::host::Setup::default();
                let transport = crate::row::transport(&mut setup, through);
                $({
                    let $setup = &mut setup;
                    $change;
                })?
                setup.app = std::rc::Rc::new(move || app(&in_app, handled(route(&in_app), in_app.clone())));
                let mut rig = crate::rig::Rig::new(&setup);
                rig.transport = transport;
                {
                    let ($rig, $client_log) = (&mut rig, &log);
                    $client
                }
                drop(log);
                rig.finish();
            }

            forms!($kind $(($why))? |$peer, $log $(, $message)?| $body);
        }
    };
}

/// The three forms of what a row does.
macro_rules! forms {
    (handler |$peer:ident, $log:ident, $message:ident| $body:block) => {
        forms!(handled | $peer, $log, $message | $body);

        #[test]
        #[allow(unused_imports, unused_variables)]
        fn task() {
            use crate::row::{awaited as now, sleeping as pause};
            run(crate::row::Way::Task, |ws, $log| {
                ws.task(async move |mut $peer: ringwire::Connection| -> Result<(), ringwire::BoxError> {
                    let $log = &$log;
                    while let Some($message) = $peer.recv().await {
                        let reply = async { $body }.await;
                        ringwire::IntoReply::reply(reply, &mut $peer)?;
                    }
                    Ok(())
                })
            });
        }
    };
    (handler_but_no_task($why:literal) |$peer:ident, $log:ident, $message:ident| $body:block) => {
        forms!(handled | $peer, $log, $message | $body);

        #[test]
        #[should_panic(expected = "not applicable")]
        fn task() {
            panic!("not applicable: {}", $why);
        }
    };
    (handled |$peer:ident, $log:ident, $message:ident| $body:block) => {
        #[test]
        #[allow(unused_imports, unused_variables)]
        fn closure() {
            use crate::row::{at_once as now, going_on as pause};
            run(crate::row::Way::Closure, |ws, $log| {
                ws.on_message(move |$peer: &mut ringwire::Socket<'_>, $message: ringwire::Message<'_>| {
                    let $log = &$log;
                    $body
                })
            });
        }

        #[test]
        #[allow(unused_imports, unused_variables)]
        fn waiting() {
            use crate::row::{awaited as now, sleeping as pause};
            run(crate::row::Way::Waiting, |ws, $log| {
                ws.on_message_async(async move |$peer: ringwire::Connection, $message: ringwire::OwnedMessage| {
                    let $log = &$log;
                    $body
                })
            });
        }
    };
    (opener |$peer:ident, $log:ident, $message:ident| $body:block) => {
        #[test]
        #[allow(unused_imports, unused_variables)]
        fn closure() {
            use crate::row::{at_once as now, going_on as pause};
            run(crate::row::Way::Closure, |ws, $log| {
                ws.on_open_or_message(
                    move |$peer: &mut ringwire::Socket<'_>, $message: Option<ringwire::Message<'_>>| {
                        let $log = &$log;
                        $body
                    },
                )
            });
        }

        #[test]
        #[allow(unused_imports, unused_variables)]
        fn waiting() {
            use crate::row::{awaited as now, sleeping as pause};
            run(crate::row::Way::Waiting, |ws, $log| {
                ws.on_open_or_message_async(
                    async move |$peer: ringwire::Connection, $message: Option<ringwire::OwnedMessage>| {
                        let $log = &$log;
                        $body
                    },
                )
            });
        }

        #[test]
        #[allow(unused_imports, unused_variables)]
        fn task() {
            use crate::row::{awaited as now, sleeping as pause};
            run(crate::row::Way::Task, |ws, $log| {
                ws.task(async move |mut $peer: ringwire::Connection| -> Result<(), ringwire::BoxError> {
                    let $log = &$log;
                    let mut message = None::<ringwire::OwnedMessage>;
                    loop {
                        let $message = message.take();
                        let reply = async { $body }.await;
                        ringwire::IntoReply::reply(reply, &mut $peer)?;
                        match $peer.recv().await {
                            Some(next) => message = Some(next),
                            None => return Ok(()),
                        }
                    }
                })
            });
        }
    };
    (once |$peer:ident, $log:ident| $body:block) => {
        forms!(handled | $peer, $log, _message | $body);

        #[test]
        #[allow(unused_imports, unused_variables)]
        fn task() {
            use crate::row::{awaited as now, sleeping as pause};
            run(crate::row::Way::Task, |ws, $log| {
                ws.task(async move |$peer: ringwire::Connection| {
                    let $log = &$log;
                    $body
                })
            });
        }
    };
}

macro_rules! at_once {
    ($done:expr) => {
        $done
    };
}
pub(crate) use at_once;

macro_rules! awaited {
    ($future:expr) => {
        $future.await
    };
}
pub(crate) use awaited;

macro_rules! going_on {
    () => {};
}
pub(crate) use going_on;

macro_rules! sleeping {
    () => {
        ringwire::sleep(std::time::Duration::from_millis(1)).await
    };
}
pub(crate) use sleeping;
