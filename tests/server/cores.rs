//! A server whose cores do not all live.

use std::io::{BufRead as _, BufReader};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use ringwire::config::CoreSet;
use ringwire::hub::CoreHub;
use ringwire::remote::AskAll as _;
use ringwire::{App, Handle, Message, Request, Server, Socket, sleep, spawn_local, timeout};

use crate::common::raw::{End, Raw};
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
        // Whoever is let in next finds its slot taken, which must never be.
        let injure = move |core: &mut CoreHub| {
            if core.core() == failing {
                (0..2_000).for_each(|slot| core.outbox.open(slot, 7));
            }
        };
        hub.ask_all(injure).expect("the cores answer");
        let address = handle.addresses()[0].inet().expect("TCP");
        thread::spawn(move || {
            while let Ok(stream) = TcpStream::connect(address) {
                drop(stream);
                thread::sleep(Duration::from_millis(1));
            }
        });
        let error = soon(|| handle.join()).expect_err("a core has failed").to_string();
        assert!(error.starts_with(&format!("core {failing} panicked: ")), "{error}");
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

/// A start fails although the app of one core hangs. Kills: one that waits for all of its threads.
#[test]
fn a_start_fails_while_an_app_hangs() {
    let calls = AtomicUsize::new(0);
    let error = start_error(move || match calls.fetch_add(1, Ordering::Relaxed) {
        0 => loop {
            thread::park();
        },
        _ => panic!("only one app"),
    });
    assert!(error.contains("could not be made: only one app"), "{error}");
}

/// Kills: signals that are taken before there is anybody to mind them.
#[test]
fn a_start_that_hangs_can_be_interrupted() {
    let test = std::env::current_exe().expect("a path");
    let mut command = Command::new(test);
    command.args(["--exact", "cores::hangs_in_its_app", "--ignored", "--nocapture"]).stdout(Stdio::piped());
    let mut child = command.spawn().expect("it runs");
    let mut lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
    assert!(lines.any(|line| line.is_ok_and(|line| line.contains("hanging"))));
    kill(Pid::from_raw(child.id() as i32), Signal::SIGTERM).expect("a signal");
    let status = soon(move || child.wait()).expect("its end");
    assert_eq!(status.code(), Some(128 + 15));
}

#[test]
#[ignore = "started by the test above"]
fn hangs_in_its_app() {
    let _ = Server::new(config()).run(|| {
        println!("hanging");
        loop {
            thread::park();
        }
    });
}

/// Kills: a core that ends, or never sleeps again, when nothing but the end of time is left to wait for.
#[test]
fn a_core_outlives_tasks_that_sleep_for_ever() {
    let short = Duration::from_millis(50);
    let config = config().cores(CoreSet::Count(1)).handshake_timeout(short);
    let app = move || {
        App::new().get("/", async move |_: Request| {
            spawn_local(sleep(Duration::MAX)).detach();
            timeout(Duration::MAX, sleep(Duration::from_millis(1))).await.map_or("late", |()| "in time")
        })
    };
    let handle = Server::new(config).start(app).expect("it starts");
    for _ in 0..3 {
        let mut client = Raw::connect(handle.addresses()[0].inet().expect("TCP"));
        client.send(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        assert_eq!(client.response(false).body, "in time");
        assert_eq!(client.rest(), (Vec::new(), End::Finished));
        // Long enough for all of the connection's timers to be gone.
        thread::sleep(short * 8);
    }
    handle.shutdown();
    handle.join().expect("the core is there");
}

/// Kills: questions whose panic is the end of a core.
#[test]
fn what_a_core_is_asked_ends_nothing_but_itself() {
    let handle = Server::new(config()).start(echo).expect("it starts");
    let asked = handle.hub().ask_all(|core| assert_ne!(core.core(), 0, "on purpose"));
    assert_eq!(asked.map(|answers| answers.len()), Err(ringwire::MailError::Ended));
    assert_eq!(handle.hub().ask_all(|core| core.core()), Ok(vec![0, 1]));
    handle.shutdown();
    handle.join().expect("the cores are there");
}
