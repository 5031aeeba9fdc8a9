//! The configurations of docs/behind_a_proxy.md, run by nginx and HAProxy themselves where they are installed.

use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use ringwire::config::{ListenAddress, ProxyProtocol};

use crate::common::raw::{self, Raw};
use crate::common::{TestServer, eventually};
use crate::{ask, connect_from, get, peers_by, trusting, upgrade};

/// A busy machine starts no program at once.
const START_PATIENCE: Duration = Duration::from_secs(20);
/// Who asks the proxy: another address of this machine than the proxy's own.
const CLIENT: &str = "127.0.0.7";

/// The code block of this language in that section of the page.
fn block(section: &str, language: &str) -> String {
    let page = include_str!("../../docs/behind_a_proxy.md");
    let (_, rest) = page.split_once(&format!("\n## {section}\n")).expect("a section");
    let (_, rest) = rest.split_once(&format!("```{language}\n")).expect("a block");
    rest.split_once("```").expect("its end").0.to_owned()
}

fn find(program: &str) -> Option<PathBuf> {
    let places = std::env::var_os("PATH").unwrap_or_default();
    let more = [PathBuf::from("/usr/sbin"), PathBuf::from("/usr/local/sbin")];
    let found = std::env::split_paths(&places).chain(more).map(|place| place.join(program)).find(|path| path.is_file());
    if found.is_none() {
        eprintln!("{program} is not installed: its configuration is not tested");
    }
    found
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port").port()
}

struct Proxy {
    child: Child,
    address: SocketAddr,
    directory: PathBuf,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.directory);
    }
}

impl Proxy {
    /// Runs a program with a configuration for a port, until somebody listens there. The port was free a moment before:
    /// another one is tried if it has been taken meanwhile.
    fn start(name: &str, configuration: impl Fn(u16, &Path) -> String, command: impl Fn(&Path) -> Command) -> Proxy {
        for _ in 0..5 {
            let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
            let directory =
                std::env::temp_dir().join(format!("ringwire-{name}-{}-{}", std::process::id(), address.port()));
            fs::create_dir_all(&directory).expect("a directory");
            let file = directory.join("configuration");
            fs::write(&file, configuration(address.port(), &directory)).expect("a file");
            let child = command(&file).stdin(Stdio::null()).stdout(Stdio::null()).spawn().expect("it starts");
            let mut proxy = Proxy { child, address, directory };
            let start = Instant::now();
            while start.elapsed() < START_PATIENCE && proxy.child.try_wait().expect("it can be asked").is_none() {
                if TcpStream::connect(address).is_ok() {
                    return proxy;
                }
                std::thread::sleep(Duration::from_millis(10));
            }
        }
        panic!("{name} does not start: see its errors above");
    }

    fn nginx(program: &Path, block: &str, upstream: &str) -> Proxy {
        let configuration = |port: u16, directory: &Path| {
            let block = block
                .replace("listen 80;", &format!("listen 127.0.0.1:{port};"))
                .replace("server 127.0.0.1:9001;", &format!("server {upstream};"));
            assert!(block.contains(upstream) && block.contains(&port.to_string()), "{block}");
            let places: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
                .map(|kind| format!("{kind}_temp_path {0};\n", directory.display()))
                .concat();
            format!(
                "daemon off; master_process off; pid {0}/pid; error_log stderr error;\nevents {{}}\n\
                 http {{\naccess_log off;\n{places}{block}}}\n",
                directory.display()
            )
        };
        Proxy::start("nginx", configuration, |file| {
            let mut command = Command::new(program);
            command.arg("-p").arg(file.parent().expect("a directory")).arg("-c").arg(file).args(["-e", "stderr"]);
            command
        })
    }

    fn haproxy(program: &Path, block: &str, upstream: SocketAddr) -> Proxy {
        let configuration = |port: u16, _: &Path| {
            let block = block
                .replace("bind :80", &format!("bind 127.0.0.1:{port}"))
                .replace("127.0.0.1:9001", &upstream.to_string());
            assert!(block.contains(&upstream.to_string()) && block.contains(&port.to_string()), "{block}");
            format!("global\n    maxconn 100\n{block}\n")
        };
        Proxy::start("haproxy", configuration, |file| {
            let mut command = Command::new(program);
            // In the foreground.
            command.arg("-db").arg("-f").arg(file);
            command
        })
    }

    /// A client of the proxy opens a WebSocket that echoes, and is who the server takes it for; whatever it says of itself.
    fn is_seen_through(&self, server: &TestServer, listing: impl Fn() -> Vec<String>) {
        eventually(|| ask(Raw::connect(self.address), &get("/healthz", &[])).status == 200, || "the server".to_owned());
        for lie in [
            &[][..],
            &[("X-Forwarded-For", "6.6.6.6")],
            &[("X-Real-IP", "6.6.6.6"), ("Forwarded", "for=6.6.6.6")],
            &[("X-Forwarded-For", "127.0.0.1"), ("Forwarded", "for=\"")],
        ] {
            let mut client = connect_from(CLIENT, self.address);
            client.send(&upgrade("/echo", lie));
            let response = client.response(false);
            assert_eq!(response.status, 101, "{lie:?} {response:?}");
            client.send(&raw::text("through and through"));
            assert_eq!(client.frame().payload, b"through and through");
            let peers = listing();
            assert!(peers.len() == 1 && peers[0].starts_with(&format!("{CLIENT}:")), "{lie:?} {peers:?}");
            client.send(&raw::close(1000, b""));
            assert_eq!(client.frame().code(), Some(1000));
            drop(client);
            server.await_connections(0);
        }
    }
}

#[test]
fn nginx() {
    let Some(program) = find("nginx") else { return };
    let server = TestServer::with(trusting("127.0.0.1"));
    let proxy = Proxy::nginx(&program, &block("nginx", "nginx"), &server.address.to_string());
    proxy.is_seen_through(&server, || peers_by(server.raw(), b""));
}

#[test]
fn nginx_over_a_unix_socket() {
    let Some(program) = find("nginx") else { return };
    let path = std::env::temp_dir().join(format!("ringwire-nginx-{}.sock", std::process::id()));
    let tcp = ListenAddress::Inet { host: "127.0.0.1".into(), port: 0 };
    let server = TestServer::with(trusting("unix").addresses(vec![tcp, ListenAddress::Unix(path.clone())]));
    let proxy = Proxy::nginx(&program, &block("nginx", "nginx"), &format!("unix:{}", path.display()));
    proxy.is_seen_through(&server, || peers_by(server.raw(), b""));
}

#[test]
fn haproxy_that_speaks_http() {
    let Some(program) = find("haproxy") else { return };
    let server = TestServer::with(trusting("127.0.0.1"));
    let proxy = Proxy::haproxy(&program, &block("HAProxy, HTTP mode", "haproxy"), server.address);
    proxy.is_seen_through(&server, || peers_by(server.raw(), b""));
}

#[test]
fn haproxy_that_speaks_the_proxy_protocol() {
    let Some(program) = find("haproxy") else { return };
    let text = block("HAProxy, TCP mode, with the PROXY protocol", "haproxy");
    for text in [text.replace("send-proxy-v2", "send-proxy"), text] {
        let server = TestServer::with(trusting("127.0.0.1").proxy_protocol(ProxyProtocol::Always));
        let proxy = Proxy::haproxy(&program, &text, server.address);
        proxy.is_seen_through(&server, || peers_by(server.raw(), b"PROXY UNKNOWN\r\n"));
    }
}

/// Through any of them, nobody has the rights of a local peer.
#[test]
fn nobody_becomes_local_through_a_proxy() {
    let Some(program) = find("nginx") else { return };
    let server = TestServer::with(trusting("127.0.0.1").api_token(None));
    assert_eq!(ask(server.raw(), &get("/metrics", &[])).status, 200);
    let proxy = Proxy::nginx(&program, &block("nginx", "nginx"), &server.address.to_string());
    eventually(|| ask(Raw::connect(proxy.address), &get("/healthz", &[])).status == 200, || "the server".to_owned());
    assert_eq!(ask(Raw::connect(proxy.address), &get("/metrics", &[])).status, 403);
}
