//! A server whose cores do not all live.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread;

use ringwire::{App, Handle, Message, Server, Socket};

use crate::common::{PATIENCE, config};

fn echo() -> App {
    App::new().ws("/echo", |socket: &mut Socket<'_>, message: Message<'_>| socket.send(message))
}

/// What `run` returns, unless it hangs.
fn soon<T: Send + 'static>(run: impl FnOnce() -> T + Send + 'static) -> T {
    let (result_in, result) = mpsc::channel();
    thread::spawn(move || result_in.send(run()));
    result.recv_timeout(PATIENCE).expect("it does not hang")
}

fn start_error(make: impl Fn() -> App + Send + Sync + 'static) -> String {
    let started: Result<(), ringwire::Error> = soon(|| Server::new(config()).start(make).map(|_: Handle| ()));
    started.expect_err("it cannot start").to_string()
}

/// Kills: `join` that waits for the first core while another one is gone.
#[test]
fn whichever_core_fails_the_others_are_stopped_and_join_returns() {
    for failing in [0, 1] {
        let handle = Server::new(config()).start(echo).expect("it starts");
        let hub = handle.hub().clone();
        thread::spawn(move || hub.ask_all(move |core| assert_ne!(core.core(), failing, "on purpose")));
        let error = soon(|| handle.join()).expect_err("a core has failed").to_string();
        assert!(error.starts_with(&format!("core {failing} panicked: ")) && error.contains("on purpose"), "{error}");
    }
}

/// Kills: a start that succeeds before there are apps, and one that hangs because some cores have theirs.
#[test]
fn a_start_fails_when_an_app_cannot_be_made_on_every_core() {
    let twice = || echo().ws("/echo", |socket: &mut Socket<'_>, message: Message<'_>| socket.send(message));
    let error = start_error(twice);
    assert!(error.contains("could not be made") && error.contains("/echo"), "{error}");

    let calls = AtomicUsize::new(0);
    let error = start_error(move || match calls.fetch_add(1, Ordering::Relaxed) {
        0 => echo(),
        _ => panic!("only one app"),
    });
    assert!(error.contains("could not be made: only one app"), "{error}");
}
