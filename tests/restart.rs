//! Restarts of the program under connect load: nobody is refused, reset or left without an answer.

#![cfg(feature = "cli")]

mod common;

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use common::PATIENCE;
use common::program::{Program, command};
use nix::sys::signal::Signal;

/// Clients that connect, upgrade, echo a message and leave, over and over.
struct Load {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<BTreeMap<String, u32>>>,
}

impl Load {
    fn start(address: SocketAddr) -> Load {
        let stop = Arc::new(AtomicBool::new(false));
        let threads = (0..6).map(|_| {
            let stop = Arc::clone(&stop);
            std::thread::spawn(move || {
                let mut outcomes = BTreeMap::new();
                while !stop.load(Ordering::Relaxed) {
                    *outcomes.entry(visit(address)).or_default() += 1;
                }
                outcomes
            })
        });
        Load { threads: threads.collect(), stop }
    }

    /// Outcomes and how often each was.
    fn end(self) -> BTreeMap<String, u32> {
        self.stop.store(true, Ordering::Relaxed);
        let mut all = BTreeMap::new();
        for thread in self.threads {
            for (outcome, count) in thread.join().expect("no panic") {
                *all.entry(outcome).or_default() += count;
            }
        }
        all
    }
}

/// How one visit goes: `served`, `closed 1001`, `answered 503`, or what went wrong.
fn visit(address: SocketAddr) -> String {
    try_visit(address).unwrap_or_else(|(stage, kind)| format!("{kind:?} while {stage}"))
}

fn try_visit(address: SocketAddr) -> Result<String, (&'static str, ErrorKind)> {
    let at = |stage: &'static str| move |error: std::io::Error| (stage, error.kind());
    let mut stream = TcpStream::connect(address).map_err(at("connecting"))?;
    stream.set_read_timeout(Some(PATIENCE)).map_err(at("connecting"))?;
    stream.write_all(&common::raw::upgrade_request("/echo")).map_err(at("asking"))?;
    let mut received = Vec::new();
    let mut more = |received: &mut Vec<u8>, stage| {
        let mut buffer = [0; 4096];
        match stream.read(&mut buffer).map_err(at(stage))? {
            0 => Err((stage, ErrorKind::UnexpectedEof)),
            len => {
                received.extend_from_slice(&buffer[..len]);
                Ok(())
            }
        }
    };
    let end = loop {
        match received.windows(4).position(|window| window == b"\r\n\r\n") {
            Some(end) => break end + 4,
            None => more(&mut received, "waiting for the answer")?,
        }
    };
    if !received.starts_with(b"HTTP/1.1 101") {
        return Ok(format!("answered {}", String::from_utf8_lossy(&received[9..12])));
    }
    received.drain(..end);
    while received.len() < 4 {
        if received.is_empty() {
            // A masked text message of two bytes, once.
            (&stream).write_all(&[0x81, 0x82, 0, 0, 0, 0, b'h', b'i']).map_err(at("sending"))?;
        }
        let mut buffer = [0; 4096];
        match (&stream).read(&mut buffer).map_err(at("waiting for the echo"))? {
            0 => return Err(("waiting for the echo", ErrorKind::UnexpectedEof)),
            len => received.extend_from_slice(&buffer[..len]),
        }
    }
    let outcome = match received[..4] {
        [0x81, 2, b'h', b'i'] => "served".to_owned(),
        [0x88, _, high, low] => format!("closed {}", u16::from_be_bytes([high, low])),
        _ => format!("{received:?}"),
    };
    (&stream).write_all(&[0x88, 0x82, 0, 0, 0, 0, 3, 0xe8]).map_err(at("saying goodbye"))?;
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).map_err(at("waiting for the end"))?;
    Ok(outcome)
}

/// Everybody was answered, most were served, and new ones are.
fn check(outcomes: &BTreeMap<String, u32>) {
    let is_fine = |outcome: &String| ["served", "closed 1001", "answered 503"].contains(&outcome.as_str());
    assert!(outcomes.keys().all(is_fine), "{outcomes:?}");
    assert!(outcomes["served"] > 50, "{outcomes:?}");
    eprintln!("{outcomes:?}");
}

const ARGUMENTS: [&str; 4] = ["--cores=2", "--log=error", "--drain-timeout=8s", "--drain-spread=100ms"];

fn pause() {
    std::thread::sleep(Duration::from_millis(300));
}

/// Both have the listening socket, and its queue stays.
#[test]
fn nobody_is_lost_where_the_listening_socket_is_passed_on() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("it has one");
    let pass = || Program::with_listener(listener.try_clone().expect("a duplicate"), &ARGUMENTS);
    let mut program = pass();
    let load = Load::start(address);
    for overlaps in [true, false, true, false] {
        pause();
        if overlaps {
            let old = std::mem::replace(&mut program, pass());
            old.signal(Signal::SIGTERM);
            assert_eq!(old.ended().code(), Some(0));
        } else {
            // As a service manager does: the new one starts when the old one has ended, and the queue waits.
            program.signal(Signal::SIGTERM);
            assert_eq!(program.ended().code(), Some(0));
            program = pass();
        }
    }
    pause();
    check(&load.end());
    assert_eq!(visit(address), "served");
}

/// Each has listeners of its own on the port.
#[test]
fn nobody_is_lost_where_the_port_is_shared() {
    let start = |address: &str| {
        let all = [&[address, "--reuseport=true"][..], &ARGUMENTS].concat();
        Program::run(command("", &all))
    };
    let mut program = start("--addr=127.0.0.1:0");
    let address = program.address;
    let load = Load::start(address);
    for _ in 0..4 {
        pause();
        let old = std::mem::replace(&mut program, start(&format!("--addr={address}")));
        pause();
        old.signal(Signal::SIGTERM);
        assert_eq!(old.ended().code(), Some(0));
    }
    pause();
    check(&load.end());
    assert_eq!(visit(address), "served");
}

/// Who waits in the queue of a server that nobody follows is told so.
#[test]
fn whoever_waits_in_the_queue_is_answered() {
    for _ in 0..5 {
        let program = Program::start(&["--drain-timeout=8s"]);
        let waiting: Vec<TcpStream> = (0..100)
            .map(|_| {
                let mut stream = TcpStream::connect(program.address).expect("it listens");
                stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
                stream.write_all(&common::raw::upgrade_request("/echo")).expect("it listens");
                stream
            })
            .collect();
        program.signal(Signal::SIGTERM);
        for mut stream in waiting {
            let mut status = [0; 12];
            stream.read_exact(&mut status).expect("an answer");
            assert!(status == *b"HTTP/1.1 503" || status == *b"HTTP/1.1 101", "{status:?}");
        }
        assert_eq!(program.ended().code(), Some(0));
    }
}

#[test]
fn an_address_in_use_is_refused_unless_it_is_shared_on_purpose() {
    let program = Program::start(&[]);
    let address = format!("--addr={}", program.address);
    let mut second = command("", &[&address, "--log=error"]);
    let refused = second.stderr(std::process::Stdio::piped()).output().expect("it starts");
    assert_eq!(refused.status.code(), Some(69), "{}", String::from_utf8_lossy(&refused.stderr));
    let shared = Program::run(command("", &[&address, "--log=error", "--reuseport=true"]));
    assert_eq!(shared.address, program.address);
    assert_eq!(visit(program.address), "served");
}

#[test]
fn the_path_of_a_unix_socket_leads_to_the_new_server() {
    use std::os::unix::net::UnixStream;
    let directory = std::env::temp_dir().join(format!("ringwire-restart-{}", std::process::id()));
    std::fs::create_dir_all(&directory).expect("a directory");
    let path = directory.join("socket");
    let unix = format!("--addr=unix:{},127.0.0.1:0", path.display());
    let start = || {
        let mut command = command("", &[&unix, "--log=error", "--reuseport=true", "--cores=1"]);
        command.stdout(std::process::Stdio::piped());
        let mut child = command.spawn().expect("it starts");
        let mut line = String::new();
        let mut output = std::io::BufReader::new(child.stdout.take().expect("a pipe"));
        std::io::BufRead::read_line(&mut output, &mut line).expect("a line");
        assert!(line.starts_with("ringwire listening on unix:"), "{line}");
        (child, output)
    };
    let ask = || {
        let mut stream = UnixStream::connect(&path).expect("somebody listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
        stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").expect("taken");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    };
    let (mut old, _old_output) = start();
    let mut early = UnixStream::connect(&path).expect("somebody listens");
    early.set_read_timeout(Some(PATIENCE)).expect("a socket");
    let (mut new, _new_output) = start();
    ask();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(old.id() as i32), Signal::SIGTERM).expect("it runs");
    early.write_all(b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n").expect("taken");
    let mut answer = String::new();
    early.read_to_string(&mut answer).expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert_eq!(old.wait().expect("it ends").code(), Some(0));
    ask();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(new.id() as i32), Signal::SIGTERM).expect("it runs");
    assert_eq!(new.wait().expect("it ends").code(), Some(0));
    assert!(!path.exists(), "the last one cleans up");
    std::fs::remove_dir_all(&directory).expect("it is there");
}
