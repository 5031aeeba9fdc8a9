//! Other ways to listen: Unix sockets, several addresses, sockets passed by a service manager.

#[cfg(feature = "cli")]
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use ringwire::config::ListenAddress;
use tungstenite::Message;

use crate::common::{TestServer, any_port, config};

/// A path for a socket, in a directory of its own.
fn socket_path(name: &str) -> PathBuf {
    let directory = std::env::temp_dir().join(format!("ringwire-test-{}-{name}", std::process::id()));
    std::fs::create_dir_all(&directory).expect("a directory");
    directory.join("socket")
}

#[test]
fn a_unix_socket_and_a_port_at_once() {
    let path = socket_path("both");
    let addresses = vec![any_port(), ListenAddress::Unix(path.clone())];
    let server = TestServer::with(config().addresses(addresses));
    let stream = || UnixStream::connect(&path).expect("a connection");
    let mut clients: Vec<_> = (0..4)
        .map(|_| tungstenite::client::client("ws://localhost/broadcast", stream()).expect("a handshake").0)
        .collect();
    let mut inet = server.client("/broadcast");
    inet.send(Message::text("to all")).expect("sent");
    for client in &mut clients {
        assert_eq!(client.read().expect("a message"), Message::text("to all"));
    }
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&path).expect("a file").permissions());
    assert_eq!(mode & 0o170_000, 0o140_000, "a socket");
    drop((clients, inet));
    server.shutdown().expect("it ends well");
    assert!(!path.exists(), "the file is removed");
    std::fs::remove_dir(path.parent().expect("a directory")).expect("an empty directory");
}

#[cfg(feature = "cli")]
#[test]
fn a_passed_socket_is_served_by_all_cores() {
    use crate::common::client;
    use crate::common::program::Program;

    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a listener");
    let address = listener.local_addr().expect("an address");
    // This one waits in the backlog before there is a server.
    let early = TcpStream::connect(address).expect("a connection");
    let program = Program::with_listener(listener, &["--cores=2", "--log=error"]);
    assert_eq!(program.address, address);
    let (mut early, _) = tungstenite::client::client("ws://x/broadcast", early).expect("a handshake");
    let mut others: Vec<_> = (0..8).map(|_| client(address, "/broadcast")).collect();
    early.send(Message::text("hello")).expect("sent");
    for other in &mut others {
        assert_eq!(other.read().expect("a message"), Message::text("hello"));
    }
}
