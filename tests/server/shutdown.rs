//! How the program ends.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use tungstenite::Message;

use crate::common::program::Program;
use crate::common::raw::{self, End, Raw};
use crate::common::{TestServer, client, close_code, config, pattern, try_client};

fn get(path: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").into_bytes()
}

#[test]
fn without_connections_it_ends_at_once() {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let program = Program::start(&[]);
        let start = Instant::now();
        program.signal(signal);
        assert_eq!(program.ended().code(), Some(0));
        assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
    }
}

#[test]
fn every_client_gets_1001_spread_over_time() {
    let program = Program::start(&["--drain-spread=600ms", "--drain-timeout=8s"]);
    let clients: Vec<_> = (0..40).map(|_| client(program.address, "/echo")).collect();
    let start = Instant::now();
    program.signal(Signal::SIGTERM);
    let reading = clients.into_iter().map(|mut client| {
        std::thread::spawn(move || {
            let code = close_code(&mut client);
            (code, start.elapsed())
        })
    });
    let reading: Vec<_> = reading.collect();
    let mut times = Vec::new();
    for thread in reading {
        let (code, at) = thread.join().expect("no panic");
        assert_eq!(code, Some(1001));
        times.push(at);
    }
    times.sort();
    assert!(times[0] < Duration::from_millis(300), "the first at once: {times:?}");
    assert!(times[39] > Duration::from_millis(450), "the last at the end: {times:?}");
    let middle = times[20];
    assert!(middle > Duration::from_millis(150) && middle < Duration::from_millis(550), "{times:?}");
    assert_eq!(program.ended().code(), Some(0));
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
}

#[test]
fn while_draining_it_is_not_ready_and_lets_nobody_in() {
    let program = Program::start(&["--drain-spread=1s", "--drain-timeout=8s"]);
    let mut probe = Raw::connect(program.address);
    let mut late = Raw::connect(program.address);
    for probe in [&mut probe, &mut late] {
        probe.send(&get("/readyz"));
        assert_eq!(probe.response(false).status, 200);
    }
    let mut sockets: Vec<_> = (0..30).map(|_| client(program.address, "/echo")).collect();
    program.signal(Signal::SIGTERM);
    std::thread::sleep(Duration::from_millis(100));
    probe.send(&get("/readyz"));
    let response = probe.response(false);
    assert_eq!((response.status, response.header("connection")), (503, Some("close")), "{response:?}");
    late.send(&raw::upgrade_request("/echo"));
    let response = late.response(false);
    assert_eq!(response.status, 503);
    assert!(response.header("retry-after").is_some());
    assert_eq!(late.rest(), (Vec::new(), End::Finished));
    assert!(try_client(program.address, "/echo").is_err(), "nobody listens");
    for socket in &mut sockets {
        assert_eq!(close_code(socket), Some(1001));
    }
    assert_eq!(program.ended().code(), Some(0));
}

/// Balancers must see it before they are refused: on connections that they keep and on new ones.
#[test]
fn before_it_drains_it_says_so_and_serves() {
    let program = Program::start(&["--drain-notice=3s", "--drain-spread=0", "--drain-timeout=8s"]);
    let ready = |probe: &mut Raw| {
        probe.send(&get("/readyz"));
        let response = probe.response(false);
        (response.status, response.header("connection") == Some("keep-alive"))
    };
    let mut kept = Raw::connect(program.address);
    assert_eq!(ready(&mut kept), (200, true));
    let mut before = client(program.address, "/echo");
    let start = Instant::now();
    program.signal(Signal::SIGTERM);
    let mut told = (0, true);
    while told.0 != 503 && start.elapsed() < Duration::from_secs(2) {
        told = ready(&mut kept);
    }
    assert_eq!(told, (503, true));
    assert_eq!(ready(&mut Raw::connect(program.address)), (503, true));
    let mut during = client(program.address, "/echo");
    for socket in [&mut before, &mut during] {
        socket.send(Message::text("served")).expect("sent");
        assert_eq!(socket.read().expect("a message"), Message::text("served"));
    }
    assert_eq!([close_code(&mut before), close_code(&mut during)], [Some(1001); 2]);
    let took = start.elapsed();
    assert!(took >= Duration::from_millis(2900), "{took:?}");
    assert_eq!(program.ended().code(), Some(0));
}

/// Kills: a drain that waits its whole time for the rest of a head.
#[test]
fn half_a_request_does_not_keep_it() {
    let program = Program::start(&["--drain-timeout=60s"]);
    let mut half = Raw::connect(program.address);
    half.send(b"GET /echo HTTP/1.1\r\nHost:");
    let mut kept = Raw::connect(program.address);
    kept.send(&get("/healthz"));
    assert_eq!(kept.response(false).status, 200);
    let start = Instant::now();
    program.signal(Signal::SIGTERM);
    assert_eq!(program.ended().code(), Some(0));
    assert!(start.elapsed() < Duration::from_secs(30), "{:?}", start.elapsed());
    assert_eq!(half.response(false).status, 408);
}

#[test]
fn what_is_queued_is_delivered_first() {
    let program = Program::start(&["--max-outbox=64MiB", "--drain-spread=0", "--drain-timeout=8s"]);
    let mut sender = client(program.address, "/broadcast");
    let mut stalled = Raw::connect(program.address);
    stalled.upgrade("/broadcast");
    let message = pattern(1 << 20);
    for _ in 0..24 {
        sender.send(Message::binary(message.clone())).expect("sent");
        sender.read().expect("its own copy");
    }
    program.signal(Signal::SIGTERM);
    std::thread::sleep(Duration::from_millis(300));
    for number in 0..24 {
        assert!(stalled.frame().payload == message, "message {number}");
    }
    assert_eq!(stalled.frame().code(), Some(1001));
    stalled.send(&raw::close(1001, b""));
    assert_eq!(stalled.rest(), (Vec::new(), End::Finished));
    assert_eq!(close_code(&mut sender), Some(1001));
    assert_eq!(program.ended().code(), Some(0));
}

// A client that neither reads nor answers cannot hold the server: the drain's timeout ends it, and that is no failure.
#[test]
fn a_client_that_stays_does_not_keep_it() {
    let program = Program::start(&["--drain-spread=0", "--drain-timeout=500ms"]);
    let mut deaf = Raw::connect(program.address);
    deaf.upgrade("/echo");
    let mut undecided = Raw::connect(program.address);
    undecided.send(b"GET /echo HTTP/1.1\r\nHost:");
    let start = Instant::now();
    program.signal(Signal::SIGTERM);
    assert_eq!(program.ended().code(), Some(0));
    let took = start.elapsed();
    assert!(took > Duration::from_millis(400) && took < Duration::from_secs(3), "{took:?}");
}

#[test]
fn a_second_signal_ends_it_at_once() {
    let program = Program::start(&["--drain-spread=5s", "--drain-timeout=9s"]);
    let _clients: Vec<_> = (0..4).map(|_| client(program.address, "/echo")).collect();
    let start = Instant::now();
    program.signal(Signal::SIGTERM);
    std::thread::sleep(Duration::from_millis(200));
    program.signal(Signal::SIGTERM);
    assert_eq!(program.ended().code(), Some(143));
    assert!(start.elapsed() < Duration::from_secs(3), "{:?}", start.elapsed());
}

#[test]
fn an_embedded_server_ends_by_its_handle() {
    let server = TestServer::with(config().drain_spread(Duration::from_millis(50)));
    let mut clients: Vec<_> = (0..4).map(|_| server.client("/rooms/x")).collect();
    let reading = std::thread::spawn(move || clients.iter_mut().map(close_code).collect::<Vec<_>>());
    server.shutdown().expect("it ends well");
    assert_eq!(reading.join().expect("no panic"), [Some(1001); 4]);
}

/// A program whose handlers hang: it is this test program, which runs itself.
struct Hanging {
    child: std::process::Child,
    address: std::net::SocketAddr,
}

impl Hanging {
    fn start(how: &str) -> Hanging {
        use std::io::{BufRead as _, BufReader};
        use std::process::{Command, Stdio};

        let mut command = Command::new(std::env::current_exe().expect("a path"));
        command.args(["--exact", "shutdown::hangs_in_a_handler", "--ignored", "--nocapture"]);
        command.env("HANG_IN", how).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().expect("it runs");
        let lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
        // On a machine with one processor the test's name is in front of it.
        let address = lines.map_while(Result::ok).find_map(|line| line.split_once("listening ")?.1.parse().ok());
        Hanging { child, address: address.expect("an address") }
    }

    fn signal(&self) {
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(self.child.id() as i32), Signal::SIGTERM).expect("it runs");
    }

    fn code(&mut self, patience: Duration) -> Option<i32> {
        let start = Instant::now();
        while start.elapsed() < patience {
            if let Some(status) = self.child.try_wait().expect("it can be asked") {
                return Some(status.code().unwrap_or(-1));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        None
    }
}

impl Drop for Hanging {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
#[ignore = "started by the tests below"]
fn hangs_in_a_handler() {
    use ringwire::config::CoreSet;
    use ringwire::{App, Message, Server, Socket, ws};

    fn hang(place: &str) {
        while std::env::var("HANG_IN").is_ok_and(|how| how == place) {
            std::thread::park();
        }
    }
    struct Slow;
    impl Drop for Slow {
        fn drop(&mut self) {
            hang("destructor");
        }
    }
    let app = || {
        let on_connect = |socket: &mut Socket<'_>| socket.on_cleanup(|| drop(Slow));
        let on_message = |socket: &mut Socket<'_>, message: Message<'_>| {
            let _ = socket.send(message);
            hang("message");
        };
        App::new().ws("/echo", ws().on_connect(on_connect).on_message(on_message).on_close(|_, _| hang("on_close")))
    };
    let config = config().cores(CoreSet::Count(2)).drain_timeout(Duration::from_millis(300));
    let announce = |handle: &ringwire::Handle| {
        println!("listening {}", handle.addresses()[0].inet().expect("TCP"));
        hang("started");
    };
    let ended = Server::new(config).on_start(announce).run(app);
    std::process::exit(ended.map_or(70, |()| 0));
}

/// Kills: a second signal that waits for a core, a mailbox or a thread before it ends the program.
#[test]
fn a_second_signal_ends_it_whatever_hangs() {
    for how in ["message", "on_close", "destructor", "started", "nothing"] {
        let mut program = Hanging::start(how);
        let mut client = Raw::connect(program.address);
        client.upgrade("/echo");
        client.send(&raw::text("x"));
        if how != "message" {
            assert_eq!(client.frame().payload, b"x", "{how}");
        }
        program.signal();
        std::thread::sleep(Duration::from_millis(500));
        match how {
            "nothing" => assert_eq!(program.code(crate::common::PATIENCE), Some(0), "{how}"),
            _ => {
                assert_eq!(program.code(Duration::ZERO), None, "{how}");
                program.signal();
                assert_eq!(program.code(crate::common::PATIENCE), Some(128 + 15), "{how}");
            }
        }
    }
}

/// With one signal it ends, too, if not at once and not well: a handler that does not return is waited for no longer than
/// its core may take.
#[test]
fn a_handler_that_hangs_does_not_keep_it_for_ever() {
    let mut program = Hanging::start("on_close");
    let mut client = Raw::connect(program.address);
    client.upgrade("/echo");
    program.signal();
    assert_eq!(program.code(4 * crate::common::PATIENCE), Some(70));
}
