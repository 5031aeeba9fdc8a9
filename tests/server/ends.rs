//! The ends of a server: what is left when it has ended, however it did, and what is held of it then.

use std::collections::BTreeSet;
use std::io::Read;
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{SigSet, Signal};
use ringwire::client::blocking::block_on;
use ringwire::config::{CoreSet, ListenAddress};
use ringwire::server::start_service;
use ringwire::{App, Config, Delivery, Handle, Hub, Message, Server, Socket, ws};
use serde_json::Value;

use crate::common::raw::{self, Raw};
use crate::common::{PATIENCE, UntilAllCoresHaveSome, any_port, config, eventually};
use crate::frail::{DIE, Frail};

/// What `run` returns, unless it hangs.
pub(crate) fn soon<T: Send + 'static>(run: impl FnOnce() -> T + Send + 'static) -> T {
    let (result_in, result) = mpsc::channel();
    thread::spawn(move || result_in.send(run()));
    result.recv_timeout(3 * PATIENCE).expect("it does not hang")
}

/// A path for a socket, in a directory of its own.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Scratch {
        let directory = std::env::temp_dir().join(format!("ringwire-ends-{}-{name}", std::process::id()));
        let _ = std::fs::remove_dir_all(&directory);
        std::fs::create_dir_all(&directory).expect("a directory");
        Scratch(directory)
    }

    fn socket(&self) -> PathBuf {
        self.0.join("socket")
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

pub(crate) fn echo() -> App {
    App::new().ws("/echo", |socket: &mut Socket<'_>, message: Message<'_>| socket.send(message))
}

fn with_unix(path: &Path) -> Config {
    let addresses = vec![any_port(), ListenAddress::Unix(path.to_owned())];
    config().addresses(addresses).drain_timeout(Duration::from_millis(200))
}

pub(crate) fn inet(handle: &Handle) -> SocketAddr {
    handle.addresses().iter().find_map(|bound| bound.inet()).expect("TCP")
}

/// A socket of a client's, and what it is in the middle of.
struct Open(&'static str, Box<dyn Read>);

/// Sockets in every state that a connection can be in, on TCP and on a Unix socket.
fn sockets_of_all_kinds(address: SocketAddr, path: &Path) -> Vec<Open> {
    fn through(stages: &[(&'static str, Vec<u8>, usize)], connect: impl Fn() -> Box<dyn Duplex>) -> Vec<Open> {
        let mut open = Vec::new();
        for (what, sent, answer_len_min) in stages {
            let mut stream = connect();
            stream.write_all(sent).expect("sent");
            let mut answer = [0; 1024];
            let mut len = 0;
            while len < *answer_len_min {
                len += stream.read(&mut answer[len..]).expect("an answer");
            }
            open.push(Open(what, Box::new(stream)));
        }
        open
    }
    let get = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec();
    let stages = [
        // One that says nothing at all is the kernel's for a second.
        ("one byte", b"G".to_vec(), 0),
        ("half a handshake", b"GET /echo HTTP/1.1\r\nHost: x\r\nUpgrade: websoc".to_vec(), 0),
        ("a kept connection", get, 20),
        ("a WebSocket", raw::upgrade_request("/echo"), 100),
        ("half a frame", [raw::upgrade_request("/echo"), raw::text("half of it")[..5].to_vec()].concat(), 100),
    ];
    let mut all = through(&stages, || {
        let stream = TcpStream::connect(address).expect("a connection");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        Box::new(stream)
    });
    all.extend(through(&stages, || {
        let stream = UnixStream::connect(path).expect("a connection");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        Box::new(stream)
    }));
    all
}

trait Duplex: Read + std::io::Write {}
impl<T: Read + std::io::Write> Duplex for T {}

/// Reads on to the end, be it a reset.
fn ends(open: &mut Open) {
    let mut rest = [0; 4096];
    loop {
        match open.1.read(&mut rest) {
            Ok(0) => return,
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return,
            Err(error) => panic!("{} has not ended: {error}", open.0),
        }
    }
}

/// Kills: a hub's bells that keep the rings open, and with them every socket; closes that are queued and never submitted; a
/// core that fails and keeps its places.
#[test]
fn sockets_end_with_the_server_whatever_is_held_of_it_and_however_it_ends() {
    for fails in [false, true] {
        let scratch = Scratch::new(if fails { "fails" } else { "drains" });
        let path = scratch.socket();
        let handle = start_service(Server::new(with_unix(&path)), Frail::new).expect("it starts");
        let address = inet(&handle);
        let hub = handle.hub().clone();
        let mut open = sockets_of_all_kinds(address, &path);
        eventually(|| hub.websockets() == 4, || format!("4 WebSockets, there are {}", hub.websockets()));
        let began = Instant::now();
        let ended = if fails {
            let mut killer = Raw::connect(address);
            killer.upgrade("/echo");
            killer.send(&raw::text(DIE));
            soon(move || handle.join())
        } else {
            handle.shutdown();
            soon(move || handle.join())
        };
        match ended {
            Ok(()) => assert!(!fails),
            Err(error) => assert!(fails && error.to_string().contains("on purpose"), "{error}"),
        }
        // Within the ten seconds after which a core that has not ended is left behind, and with it all that it holds.
        assert!(began.elapsed() < PATIENCE - Duration::from_secs(1), "{:?}", began.elapsed());
        open.iter_mut().for_each(ends);
        eventually(|| TcpStream::connect(address).is_err(), || format!("nobody to listen (fails: {fails})"));
        assert!(UnixStream::connect(&path).is_err() && !path.exists(), "nor there");
        assert_eq!(hub.websockets(), 0, "whoever has gone is counted no more");
        soon(move || {
            let _hub = hub;
        });
    }
}

/// A core that fails ends the server although nobody joins it, or holds it.
#[test]
fn a_core_that_fails_ends_a_server_that_nobody_holds() {
    let config = config().cores(CoreSet::Count(3));
    let handle = start_service(Server::new(config), Frail::new).expect("it starts");
    let address = inet(&handle);
    let mut clients: Vec<Raw> = (0..12).map(|_| Raw::connect(address)).collect();
    clients.iter_mut().for_each(|client| client.upgrade("/echo"));
    let hub = handle.hub().clone();
    drop(handle);
    clients[0].send(&raw::text(DIE));
    for client in &mut clients {
        let _ = client.rest();
    }
    eventually(|| TcpStream::connect(address).is_err(), || "nobody to listen".to_owned());
    eventually(|| hub.websockets() == 0, || "no WebSocket".to_owned());
}

/// Kills: calls that wait for a core that has ended.
#[test]
fn a_hub_of_a_server_that_has_ended_says_so_at_once() {
    let ids = Arc::new(Mutex::new(Vec::new()));
    let (seen, senders) = (Arc::clone(&ids), Arc::new(Mutex::new(Vec::new())));
    let made = Arc::clone(&senders);
    let app = move || {
        let (ids, senders) = (Arc::clone(&seen), Arc::clone(&made));
        App::new().ws(
            "/echo",
            ws().on_connect(move |socket| {
                ids.lock().expect("no panic").push(socket.id());
                senders.lock().expect("no panic").push(socket.sender());
            }),
        )
    };
    let handle = Server::new(config().drain_timeout(Duration::from_millis(200))).start(app).expect("it starts");
    let mut client = Raw::connect(inet(&handle));
    client.upgrade("/echo");
    let hub = handle.hub().clone();
    eventually(|| !senders.lock().expect("no panic").is_empty(), || "a sender".to_owned());
    handle.shutdown();
    handle.shutdown();
    soon(move || handle.join()).expect("it ends well");

    let id = ids.lock().expect("no panic")[0];
    let sender = senders.lock().expect("no panic").pop().expect("one");
    soon(move || {
        let mut gone = Delivery::default();
        gone.gone = 1;
        assert_eq!(hub.send_to(id, "x").expect("text").wait(), gone);
        assert_eq!(sender.send("x").expect("text").wait(), gone);
        assert!(sender.is_gone());
        assert_eq!(hub.emit_to(id, "x", &1).expect("JSON").wait(), gone);
        assert_eq!(hub.to_all().send("x").expect("text").wait().queued, 0);
        assert_eq!(hub.to("room").send("x").expect("text").wait().queued, 0);
        assert_eq!(hub.to_route("/echo").send("x").expect("text").wait().queued, 0);
        assert_eq!(hub.disconnect(id, 1000, "x").expect("legal").wait(), None);
        assert_eq!(hub.data(id).wait(), None);
        assert_eq!(hub.set_data(id, Value::Null).wait(), None);
        assert_eq!((hub.websockets(), hub.cores()), (0, 2));
        assert!(hub.is_draining());
        let all = block_on(async {
            let connections = hub.connections().await.expect("an answer").len();
            let page = hub.connections_page(0, 10).await.expect("an answer").len();
            let ids = hub.ids().await.expect("an answer").len();
            let count = hub.count().await.expect("an answer");
            let members = hub.members("room").await.expect("an answer").len();
            let member_count = hub.member_count("room").await.expect("an answer");
            connections + page + ids + count + members + member_count + hub.metrics().await.cores.len()
        });
        assert_eq!(all, 0);
    });
}

/// What was asked of a core that fails before it has answered is answered all the same: there is nothing to wait for.
#[test]
fn questions_to_a_core_that_fails_are_not_waited_for_for_ever() {
    let handle = start_service(Server::new(config().cores(CoreSet::Count(1))), Frail::new).expect("it starts");
    let hub = handle.hub().clone();
    let ended = Arc::new(AtomicBool::new(false));
    let asking: Vec<_> = (0..4)
        .map(|_| {
            let (hub, ended): (Hub, _) = (hub.clone(), Arc::clone(&ended));
            thread::spawn(move || {
                while !ended.load(Ordering::Relaxed) {
                    let _ = hub.to_all().send("x").expect("text").wait();
                }
            })
        })
        .collect();
    let mut killer = Raw::connect(inet(&handle));
    killer.upgrade("/echo");
    killer.send(&raw::text(DIE));
    soon(move || handle.join()).expect_err("its core has failed");
    ended.store(true, Ordering::Relaxed);
    soon(move || asking.into_iter().for_each(|thread| assert!(thread.join().is_ok())));
}

/// Kills: a drain that waits for room in a mailbox, or for a core that hangs, before it tells the others.
#[test]
fn a_core_that_hangs_with_a_full_mailbox_keeps_no_other_from_ending() {
    let (release, released) = crossbeam_channel::bounded::<()>(0);
    let (stuck_in, stuck) = crossbeam_channel::unbounded();
    let (opened_in, opened) = crossbeam_channel::unbounded();
    let app = move || {
        let (released, stuck_in, opened_in) = (released.clone(), stuck_in.clone(), opened_in.clone());
        let route = ws().on_connect(move |socket| opened_in.send(socket.id().core()).expect("the test waits"));
        let route = route.on_message(move |socket: &mut Socket<'_>, message: Message<'_>| {
            if message.as_text() == Some("hang") {
                stuck_in.send(socket.id()).expect("the test waits");
                // Until the test lets go of the other end.
                let _ = released.recv();
            }
            socket.send(message)
        });
        App::new().ws("/echo", route)
    };
    let config = config().mail_depth(16).drain_timeout(3 * PATIENCE);
    let handle = Server::new(config).start(app).expect("it starts");
    let (mut clients, mut cores) = (Vec::new(), BTreeSet::new());
    let mut pace = UntilAllCoresHaveSome::new();
    while clients.len() < 24 || cores.len() < 2 {
        pace.one_more();
        let mut client = Raw::connect(inet(&handle));
        client.upgrade("/echo");
        let core = opened.recv_timeout(PATIENCE).expect("it opens");
        clients.push((client, core));
        cores.insert(core);
    }
    let hung = clients[0].1;
    clients[0].0.send(&raw::text("hang"));
    let id = stuck.recv_timeout(PATIENCE).expect("it hangs");
    let hub = handle.hub().clone();
    // Not waited for: those that fit are answered when the core goes on.
    let asked: Vec<_> = (0..64).map(|_| hub.set_data(id, Value::Null)).collect();
    assert!(asked.into_iter().rev().take(40).all(|asked| asked.wait().is_none()), "the mailbox is full");
    let began = Instant::now();
    handle.shutdown();
    assert!(began.elapsed() < PATIENCE);
    // Those on the other core are told to go, while this one hangs.
    for (client, _) in clients.iter_mut().filter(|(_, core)| *core != hung) {
        assert_eq!(client.frame().code(), Some(1001));
        client.send(&raw::close(1001, b""));
    }
    drop((release, clients));
    soon(move || handle.join()).expect("they end in the end");
}

/// Kills: a `join` that waits for ever for a handler that does not return.
#[test]
fn whoever_joins_is_told_of_a_core_that_does_not_end() {
    let (release, released) = crossbeam_channel::bounded::<()>(0);
    let (stuck_in, stuck) = crossbeam_channel::unbounded();
    let app = move || {
        let (released, stuck_in) = (released.clone(), stuck_in.clone());
        App::new().ws(
            "/echo",
            ws().on_close(move |_, _| {
                stuck_in.send(()).expect("the test waits");
                let _ = released.recv();
            }),
        )
    };
    let config = config().cores(CoreSet::Count(1)).drain_timeout(Duration::from_millis(200));
    let handle = Server::new(config).start(app).expect("it starts");
    let mut client = Raw::connect(inet(&handle));
    client.upgrade("/echo");
    handle.shutdown();
    stuck.recv_timeout(PATIENCE).expect("it hangs");
    let error = soon(move || handle.join()).expect_err("it has not ended").to_string();
    assert!(error.contains("core 0 has not ended in its time"), "{error}");
    drop(release);
    let _ = client.rest();
}

/// Kills: calls that block a core's thread and wait for it, without a word.
#[test]
fn what_blocks_refuses_to_on_a_core() {
    let server: Arc<Mutex<Option<Handle>>> = Arc::default();
    let joined = Arc::clone(&server);
    let app = move || {
        let joined = Arc::clone(&joined);
        App::new()
            .ws("/send", |socket: &mut Socket<'_>, _: Message<'_>| {
                let delivering = socket.hub().send_to(socket.id(), "x").expect("text");
                delivering.wait().queued.to_string()
            })
            .ws("/ask", |socket: &mut Socket<'_>, _: Message<'_>| {
                socket.hub().data(socket.id()).wait().map(|_| "answered")
            })
            .ws("/join", move |_: &mut Socket<'_>, _: Message<'_>| {
                let handle = joined.lock().expect("no panic").take();
                handle.map(|handle| handle.join().map(|()| "joined").unwrap_or("failed"))
            })
            .ws("/client", |_: &mut Socket<'_>, _: Message<'_>| block_on(async { "blocked" }))
    };
    let handle = Server::new(config().cores(CoreSet::Count(1))).start(app).expect("it starts");
    let address = inet(&handle);
    *server.lock().expect("no panic") = Some(handle);
    for path in ["/send", "/ask", "/client", "/join"] {
        let mut client = Raw::connect(address);
        client.upgrade(path);
        client.send(&raw::text("x"));
        let frames = client.frames().0;
        assert!(frames.iter().any(|frame| frame.code() == Some(1011)), "{path}: {frames:?}");
    }
}

/// Kills: a handle that takes the file of a Unix socket with it while the server is there.
#[test]
fn a_server_whose_handle_was_dropped_is_found_by_its_path() {
    let scratch = Scratch::new("dropped");
    let path = scratch.socket();
    let handle = start_service(Server::new(with_unix(&path)), Frail::new).expect("it starts");
    let address = inet(&handle);
    drop(handle);
    let mut open = sockets_of_all_kinds(address, &path);
    let mut killer = Raw::connect(address);
    killer.upgrade("/echo");
    killer.send(&raw::text(DIE));
    open.iter_mut().for_each(ends);
    eventually(|| !path.exists(), || "the last core to take the file away".to_owned());
}

/// Kills: a server that takes away the file of the one that came after it, be it by the same inode.
#[test]
fn a_server_leaves_the_file_of_its_successor_alone() {
    let scratch = Scratch::new("successor");
    let path = scratch.socket();
    let first = Server::new(with_unix(&path)).start(echo).expect("it starts");
    std::fs::remove_file(&path).expect("it was there");
    // The file system may give the next file the number of the one that has gone.
    let second = Server::new(with_unix(&path)).start(echo).expect("it starts too");
    first.shutdown();
    soon(move || first.join()).expect("it ends well");
    UnixStream::connect(&path).expect("the second one's file is there");
    second.shutdown();
    soon(move || second.join()).expect("it ends well");
    assert!(!path.exists());
}

/// Kills: starts that fail half-way and leave something behind: a port, a file, signals that stay blocked.
#[test]
fn a_start_that_fails_leaves_nothing_behind() {
    let scratch = Scratch::new("half");
    let path = scratch.socket();
    let listener = || std::net::TcpListener::bind("127.0.0.1:0").expect("a listener");
    let at = |address: SocketAddr| ListenAddress::Inet { host: address.ip().to_string(), port: address.port() };
    type Make = fn() -> App;
    let no_app: Make = || panic!("no app");
    for (is_in_use, make, expected) in [(true, echo as Make, "cannot listen on"), (false, no_app, "no app")] {
        let (first, last) = (listener(), listener());
        let (first_at, last_at) = (first.local_addr().expect("one"), last.local_addr().expect("one"));
        drop(first);
        let _last = is_in_use.then_some(last);
        let addresses = vec![at(first_at), ListenAddress::Unix(path.clone()), at(last_at)];
        let error = Server::new(config().addresses(addresses)).run(make).expect_err("it cannot start").to_string();
        assert!(error.contains(expected), "{error}");
        let blocked = SigSet::thread_get_mask().expect("a mask");
        assert!(!blocked.contains(Signal::SIGTERM) && !blocked.contains(Signal::SIGINT), "{expected}");
        assert!(!path.exists(), "{expected}");
        std::net::TcpListener::bind(first_at).expect("the port is free");
    }
}
