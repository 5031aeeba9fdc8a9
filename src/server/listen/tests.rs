use std::io::Write as _;
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};

use super::*;
use crate::config::ProxyProtocol;

fn config(addresses: &str) -> Config {
    let addresses = addresses.split(',').map(|text| text.parse().expect(text));
    Config::default().addresses(addresses.collect()).backlog(256)
}

fn inet(listeners: &Listeners, index: usize) -> SocketAddr {
    listeners.bound[index].inet().expect("a TCP address")
}

fn sockets(listeners: &Listeners, index: usize) -> Vec<Socket> {
    listeners.per_core.iter().map(|core| Socket::from(core[index].try_clone().expect("a descriptor"))).collect()
}

/// A path in a directory of the test's own, which goes with it.
struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Some(directory) = self.0.parent() {
            let _ = fs::remove_dir_all(directory);
        }
    }
}

impl std::ops::Deref for Scratch {
    type Target = Path;

    fn deref(&self) -> &Path {
        &self.0
    }
}

fn scratch(name: &str) -> Scratch {
    let directory = std::env::temp_dir().join(format!("ringwire-{}-{name}", std::process::id()));
    let _ = fs::remove_dir_all(&directory);
    fs::create_dir_all(&directory).expect("a directory");
    Scratch(directory.join("socket"))
}

fn unix(path: &Path) -> Config {
    config(&format!("unix:{}", path.display()))
}

fn kind(result: Result<Listeners>) -> io::ErrorKind {
    match result {
        Err(Error::Listen { source, .. }) => source.kind(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn every_core_accepts_from_the_same_queue() {
    let listeners = bind_all(&config("127.0.0.1:0"), 4).expect("listeners");
    let address = inet(&listeners, 0);
    assert_ne!(address.port(), 0);
    let mut clients: Vec<TcpStream> = (0..200).map(|_| TcpStream::connect(address).expect("a connection")).collect();
    for client in &mut clients {
        client.write_all(b"G").expect("there is room");
    }
    let sockets = sockets(&listeners, 0);
    assert_eq!(sockets.len(), 4);
    assert!(sockets.iter().all(|socket| !socket.nonblocking().expect("flags")));
    for socket in &sockets {
        for _ in 0..50 {
            let (connection, _) = socket.accept().expect("one of all");
            assert!(connection.tcp_nodelay().expect("inherited"));
        }
    }
    sockets[0].set_nonblocking(true).expect("flags");
    assert_eq!(sockets[0].accept().map(drop).expect_err("all are taken").kind(), io::ErrorKind::WouldBlock);
}

#[test]
fn a_port_in_use_is_told_whoever_uses_it() {
    let ours = bind_all(&config("127.0.0.1:0"), 2).expect("listeners");
    let again = config(&inet(&ours, 0).to_string());
    assert_eq!(kind(bind_all(&again, 2)), io::ErrorKind::AddrInUse);
    assert_eq!(kind(bind_all(&again, 1)), io::ErrorKind::AddrInUse);

    let other = TcpListener::bind("127.0.0.1:0").expect("a listener");
    let taken = config(&other.local_addr().expect("an address").to_string());
    assert_eq!(kind(bind_all(&taken, 2)), io::ErrorKind::AddrInUse);
}

#[test]
fn a_port_is_free_again_at_once() {
    let listeners = bind_all(&config("127.0.0.1:0"), 2).expect("listeners");
    let address = inet(&listeners, 0);
    let client = TcpStream::connect(address).expect("a connection");
    let server: Vec<_> = sockets(&listeners, 0)
        .into_iter()
        .filter_map(|socket| {
            socket.set_nonblocking(true).ok()?;
            socket.accept().ok()
        })
        .collect();
    drop((listeners, server, client));
    let again = bind_all(&config(&address.to_string()), 2).expect("TIME_WAIT is no obstacle");
    assert_eq!(inet(&again, 0), address);
}

#[test]
fn several_addresses_in_their_order() {
    let path = scratch("several");
    let setting = format!("127.0.0.1:0,unix:{},127.0.0.2:0", path.display());
    let listeners = bind_all(&config(&setting), 3).expect("listeners");
    assert_eq!(listeners.bound.len(), 3);
    assert_eq!(listeners.bound[1], BoundAddress::Unix(path.to_path_buf()));
    for core in &listeners.per_core {
        assert_eq!(core.len(), 3);
    }
    assert_eq!(listeners.bound[0].to_string(), format!("ws://{}", inet(&listeners, 0)));
    assert_eq!(listeners.bound[1].to_string(), format!("unix:{}", path.display()));
}

#[test]
fn a_name_has_one_port_on_all_its_addresses() {
    let listeners = bind_all(&config("localhost:0"), 2).expect("listeners");
    let port = inet(&listeners, 0).port();
    for index in 0..listeners.bound.len() {
        let address = inet(&listeners, index);
        assert!(address.ip().is_loopback());
        assert_eq!(address.port(), port);
    }
}

#[test]
fn the_ipv6_wildcard_takes_ipv4_unless_that_is_listened_on() {
    // Between the two binds the port may become somebody's.
    for _ in 0..10 {
        let Ok(both) = bind_all(&config("[::]:0"), 2) else {
            return; // no IPv6 here
        };
        let port = inet(&both, 0).port();
        TcpStream::connect(("127.0.0.1", port)).expect("IPv4 through the IPv6 socket");
        drop(both);
        if let Ok(each) = bind_all(&config(&format!("[::]:{port},0.0.0.0:{port}")), 2) {
            assert_eq!(each.bound.len(), 2);
            return;
        }
    }
    panic!("the two cannot be had together");
}

#[test]
fn an_address_of_another_machine() {
    let result = bind_all(&config("192.0.2.1:9001"), 1);
    assert_eq!(kind(result), io::ErrorKind::AddrNotAvailable);
}

#[test]
fn a_unix_socket_is_shared_and_its_file_removed() {
    let path = scratch("shared");
    let listeners = bind_all(&unix(&path), 2).expect("listeners");
    let _client = UnixStream::connect(&*path).expect("a connection");
    let cores = sockets(&listeners, 0);
    cores[1].accept().expect("the second core sees it, too");
    drop(listeners);
    assert!(!path.exists());
}

#[test]
fn a_live_unix_socket_is_in_use_and_a_stale_one_is_replaced() {
    let path = scratch("stale");
    let other = UnixListener::bind(&*path).expect("a listener");
    assert_eq!(kind(bind_all(&unix(&path), 1)), io::ErrorKind::AddrInUse);
    UnixStream::connect(&*path).expect("the other one is unharmed");
    drop(other);
    assert!(path.exists());
    let _listeners = bind_all(&unix(&path), 1).expect("the file was stale");
    UnixStream::connect(&*path).expect("a connection");
}

#[test]
fn a_file_that_is_no_socket_is_left_alone() {
    let path = scratch("file");
    fs::write(&*path, "precious").expect("a file");
    assert_eq!(kind(bind_all(&unix(&path), 1)), io::ErrorKind::AlreadyExists);
    assert_eq!(fs::read(&*path).expect("the file"), b"precious");
}

#[test]
fn the_file_of_a_successor_is_left_alone() {
    let path = scratch("successor");
    let first = bind_all(&unix(&path), 1).expect("listeners");
    // Both files exist for a moment, so that they cannot have the same inode.
    let aside = path.with_extension("new");
    let second = UnixListener::bind(&aside).expect("a listener");
    fs::rename(&aside, &*path).expect("a rename");
    drop(first);
    UnixStream::connect(&*path).expect("the second one's file is there");
    drop(second);
}

#[test]
fn passed_sockets_become_blocking_and_are_shared() {
    let passed = Socket::from(TcpListener::bind("127.0.0.1:0").expect("a listener"));
    passed.set_nonblocking(true).expect("flags");
    let mut listeners = Listeners {
        per_core: vec![Vec::new(), Vec::new()],
        bound: Vec::new(),
        entrances: Vec::new(),
        files: Vec::new(),
        are_passed: false,
    };
    adopt(&mut listeners, &passed).expect("a listener");
    for socket in sockets(&listeners, 0) {
        assert!(!socket.nonblocking().expect("flags"));
    }
    let _client = TcpStream::connect(inet(&listeners, 0)).expect("a connection");
    let (connection, _) = sockets(&listeners, 0)[1].accept().expect("a connection");
    assert!(connection.tcp_nodelay().expect("inherited"));

    let idle = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    assert!(adopt(&mut listeners, &idle).is_err());
}

/// Runs itself once more as a process that was passed two sockets.
#[test]
fn sockets_of_the_environment_replace_the_addresses() {
    const SELF: &str = "server::listen::tests::sockets_of_the_environment_replace_the_addresses";
    if std::env::var_os("LISTEN_FDS").is_some() {
        let listeners = bind_all(&config("192.0.2.1:9001"), 2).expect("the passed ones");
        let told: Vec<String> = listeners.bound.iter().map(ToString::to_string).collect();
        println!("bound: {}", told.join(" "));
        assert!(listeners.per_core.iter().all(|core| core.len() == 2));
        assert_eq!(listeners.entrances, [Entrance::default(); 2]);
        return;
    }
    let path = scratch("passed");
    let inet = TcpListener::bind("127.0.0.1:0").expect("a listener");
    let unix = UnixListener::bind(&*path).expect("a listener");
    let address = inet.local_addr().expect("an address");
    let run = |pid: &str| {
        let script = format!(
            "exec 3<&0 4<&2 0</dev/null 2>&1; export LISTEN_FDS=2 LISTEN_PID={pid}; exec \"$0\" --exact {SELF} --nocapture"
        );
        let output = std::process::Command::new("sh")
            .args(["-c", &script])
            .arg(std::env::current_exe().expect("a path"))
            .stdin(OwnedFd::from(inet.try_clone().expect("a duplicate")))
            .stderr(OwnedFd::from(unix.try_clone().expect("a duplicate")))
            .output()
            .expect("a shell");
        (output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let (is_ok, text) = run("$$");
    let expected = format!("bound: ws://{address} unix:{}", path.display());
    assert!(is_ok && text.contains(&expected), "{text}");
    // The sockets of another process are not this one's; the address of another machine is then tried.
    let (is_ok, text) = run("1");
    assert!(!is_ok && text.contains("192.0.2.1:9001"), "{text}");
}

/// Kills: giving what one address is for to the sockets of another, where a name has several.
#[test]
fn each_socket_is_for_what_its_address_is_for() {
    let path = scratch("entrances");
    let setting = format!("localhost:0,127.0.0.2:0,unix:{}", path.display());
    let proxied =
        config(&setting).proxy_protocol(format!("127.0.0.2:0,unix:{}", path.display()).parse().expect("a list"));
    let listeners = bind_all(&proxied, 2).expect("listeners");
    assert_eq!(listeners.entrances.len(), listeners.bound.len());
    for (bound, entrance) in listeners.bound.iter().zip(&listeners.entrances) {
        let is_proxied = bound.inet().is_none_or(|address| address.ip().to_string() == "127.0.0.2");
        assert_eq!(*entrance, Entrance { proxy_protocol: is_proxied, is_secure: false, serves: Serves::All }, "{bound}");
    }
    drop(listeners);

    let admin = Some("localhost:0".parse().expect("an address"));
    let apart = config("127.0.0.1:0").admin_address(admin).proxy_protocol(ProxyProtocol::Always);
    let listeners = bind_all(&apart, 1).expect("listeners");
    let public = Entrance { proxy_protocol: true, is_secure: false, serves: Serves::Public };
    let admin = Entrance { proxy_protocol: false, is_secure: false, serves: Serves::Admin };
    assert_eq!(listeners.entrances[0], public);
    assert!(listeners.entrances.len() > 1 && listeners.entrances[1..].iter().all(|entrance| *entrance == admin));
    assert!(listeners.per_core.iter().all(|core| core.len() == listeners.entrances.len()));
}
