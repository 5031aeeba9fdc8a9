//! The limit of open files, which bounds the tables that a server's connections lie in. A program of its own: the limit
//! is the whole process's, and other tests would see it change.

#![forbid(unsafe_code)]

mod common;

use std::sync::{Mutex, PoisonError};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use ringwire::{App, Message, Server, Socket};

use common::raw::{self, Raw};

/// Held while a test needs the process's limit to be as it is, or changes it.
static LIMIT: Mutex<()> = Mutex::new(());

/// Kills: an embedded server that stops at the soft limit, which is 1024 almost everywhere.
#[test]
fn an_embedded_server_is_not_bound_by_the_soft_limit() {
    const SOFT: u64 = 256;
    let _alone = LIMIT.lock().unwrap_or_else(PoisonError::into_inner);
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("a limit");
    setrlimit(Resource::RLIMIT_NOFILE, SOFT, hard).expect("lowered");
    let config = common::config().cores("1".parse().expect("a number"));
    let app = || App::new().ws("/echo", |socket: &mut Socket<'_>, message: Message<'_>| socket.send(message));
    let handle = Server::new(config).start(app).expect("it starts");
    assert_eq!(getrlimit(Resource::RLIMIT_NOFILE).expect("a limit"), (hard, hard), "raised, as is documented");
    let address = handle.addresses()[0].inet().expect("TCP");
    let mut clients: Vec<Raw> = Vec::new();
    for _ in 0..SOFT + 64 {
        let mut client = Raw::connect(address);
        client.upgrade("/echo");
        clients.push(client);
    }
    let last = clients.last_mut().expect("some");
    last.send(&raw::text("beyond the soft limit"));
    assert_eq!(last.frame().payload, b"beyond the soft limit");
    drop(clients);
    handle.shutdown();
    handle.join().expect("it ends");
}

/// Kills: a closed connection that does not end for its peer as long as others are silent.
#[test]
fn a_closed_connection_ends_beside_silent_ones() {
    let _alone = LIMIT.lock().unwrap_or_else(PoisonError::into_inner);
    let server = common::TestServer::new();
    let _silent: Vec<Raw> = (0..8).map(|_| server.open("/echo")).collect();
    for _ in 0..10 {
        let mut client = server.open("/echo");
        client.send(&raw::close(1000, b""));
        let (frames, end) = client.frames();
        assert!(frames.iter().any(raw::Frame::is_close) && end == raw::End::Finished, "{end:?}");
    }
}

/// Kills: a core whose table is full before the process has as many connections as it may, and which says nothing: to
/// neither the log nor whoever is one too many.
#[cfg(feature = "cli")]
#[test]
fn where_the_hard_limit_is_too_low_the_log_says_so_and_the_rest_get_503() {
    let _alone = LIMIT.lock().unwrap_or_else(PoisonError::into_inner);
    let path = std::env::temp_dir().join(format!("ringwire-descriptors-{}.log", std::process::id()));
    let arguments = ["--addr=127.0.0.1:0", "--cores=2", "--max-connections=5000", "--log=info", "--recv-buffers=64"];
    let mut command = common::program::command("ulimit -n 200", &arguments);
    command.stderr(std::fs::File::create(&path).expect("a file"));
    let program = common::program::Program::run(command);
    let mut open = Vec::new();
    let mut refused = 0;
    // However the kernel spreads them, both cores are full then.
    while refused < 50 {
        assert!(open.len() < 400, "there are no more slots");
        let mut client = Raw::connect(program.address);
        client.send(&raw::upgrade_request("/echo"));
        let response = client.response(false);
        match response.status {
            101 => open.push(client),
            status => {
                assert_eq!((status, response.header("retry-after")), (503, Some("1")), "after {}", open.len());
                refused += 1;
                client.reset();
            }
        }
    }
    for client in &mut open {
        client.send(&raw::text("within"));
        assert_eq!(client.frame().payload, b"within");
    }
    let log = std::fs::read_to_string(&path).expect("UTF-8");
    let _ = std::fs::remove_file(&path);
    let is_late = log.contains("closes direct descriptors late");
    // What this process assumes, the program does not know.
    if std::env::var_os("TEST_DESCRIPTORS").is_none() {
        assert_eq!(is_late, ringwire::engine::uring::closes_late().expect("io_uring"), "{log}");
    }
    // Of direct descriptors each core has as many as the process may have. Where the kernel closes those late, the cores
    // share the 124 that are left to connections, and keep an eighth of them for whoever is refused.
    let expected = if is_late { 100..=124 } else { 151..=400 };
    assert!(expected.contains(&open.len()), "{}", open.len());
    assert_eq!(log.matches("than RINGWIRE_MAX_CONNECTIONS").count(), 1, "{log}");
    assert!(log.contains("wanted=5000") && log.contains("LimitNOFILE="), "{log}");
}
