//! What the tests of a running server share: servers in this process and as a program, a client that knows no more of
//! WebSocket than bytes, and tungstenite as an independent one.

// Each test program uses its own part of it.
#![allow(dead_code)]

pub(crate) mod bytes;
#[cfg(feature = "tls")]
pub(crate) mod pki;
#[cfg(feature = "cli")]
pub(crate) mod program;
pub(crate) mod raw;

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use ringwire::config::{Config, CoreSet, ListenAddress};
use ringwire::remote::AskAll as _;
use ringwire::{ConnectionId, Handle, standalone};
use tungstenite::protocol::WebSocketConfig;
use tungstenite::{Message, WebSocket};

/// Longer than anything takes on a machine that is busy with other tests.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// `TEST_DESCRIPTORS=plain` has this process take the way of kernels that close direct descriptors late.
pub(crate) fn choose_descriptors() {
    match std::env::var("TEST_DESCRIPTORS").as_deref() {
        Ok("plain") => ringwire::engine::uring::assume_closes_late(),
        Ok(other) => panic!("TEST_DESCRIPTORS={other}: it must be plain, or not set"),
        Err(_) => {}
    }
}

/// A free port of this machine.
pub(crate) fn any_port() -> ListenAddress {
    ListenAddress::Inet { host: "127.0.0.1".into(), port: 0 }
}

/// Two cores on a free port, small enough to be started for every test.
pub(crate) fn config() -> Config {
    choose_descriptors();
    Config::default()
        .addresses(vec![any_port()])
        .cores(CoreSet::Count(2))
        .recv_buffers(64)
        .max_connections(2000)
        .drain_timeout(Duration::from_secs(2))
        .drain_spread(Duration::ZERO)
}

/// A server in this process; ends when it is dropped.
pub(crate) struct TestServer {
    handle: Option<Handle>,
    pub(crate) address: SocketAddr,
}

impl TestServer {
    pub(crate) fn new() -> TestServer {
        TestServer::with(config())
    }

    pub(crate) fn with(config: Config) -> TestServer {
        let handle = standalone::start(config).expect("the server starts");
        let address = handle.addresses().iter().find_map(|bound| bound.inet());
        // A server on a Unix socket alone has no such address, and its test does not use it.
        TestServer { handle: Some(handle), address: address.unwrap_or_else(|| ([127, 0, 0, 1], 1).into()) }
    }

    pub(crate) fn handle(&self) -> &Handle {
        self.handle.as_ref().expect("it runs")
    }

    pub(crate) fn raw(&self) -> raw::Raw {
        raw::Raw::connect(self.address)
    }

    /// A raw client after its handshake.
    pub(crate) fn open(&self, path: &str) -> raw::Raw {
        let mut client = self.raw();
        client.upgrade(path);
        client
    }

    pub(crate) fn client(&self, path: &str) -> Client {
        client(self.address, path)
    }

    /// Waits until the server counts so many WebSockets.
    pub(crate) fn await_connections(&self, count: u32) {
        let is = || self.handle().connections();
        eventually(|| is() == count, || format!("{count} connections, there are {}", is()));
    }

    /// The ids of a room's members on all cores.
    pub(crate) fn members(&self, room: &'static str) -> Vec<ConnectionId> {
        let ids = self
            .handle()
            .hub()
            .ask_all(move |hub| hub.local_members(room).iter().map(|slot| hub.id(*slot)).collect::<Vec<_>>());
        ids.expect("the cores answer").concat()
    }

    /// Begins a drain, and returns how it ended.
    pub(crate) fn shutdown(mut self) -> ringwire::Result<()> {
        let handle = self.handle.take().expect("it runs");
        handle.shutdown();
        handle.join()
    }
}

impl Drop for TestServer {
    fn drop(&mut self) {
        if let Some(handle) = self.handle.take() {
            handle.shutdown();
            let ended = handle.join();
            if !std::thread::panicking() {
                ended.expect("every core ends well");
            }
        }
    }
}

pub(crate) type Client = WebSocket<TcpStream>;

/// An independent client after its handshake.
pub(crate) fn client(address: SocketAddr, path: &str) -> Client {
    try_client(address, path).expect("a handshake")
}

pub(crate) fn try_client(address: SocketAddr, path: &str) -> Result<Client, String> {
    let stream = TcpStream::connect(address).map_err(|error| error.to_string())?;
    stream
        .set_read_timeout(Some(PATIENCE))
        .and_then(|()| stream.set_nodelay(true))
        .map_err(|error| error.to_string())?;
    let limits = WebSocketConfig::default().max_frame_size(None).max_message_size(None);
    let url = format!("ws://{address}{path}");
    match tungstenite::client::client_with_config(url, stream, Some(limits)) {
        Ok((client, _)) => Ok(client),
        Err(error) => Err(error.to_string()),
    }
}

/// Reads the next message as text.
pub(crate) fn text(client: &mut Client) -> String {
    match client.read().expect("a message") {
        Message::Text(text) => text.to_string(),
        other => panic!("not text: {other:?}"),
    }
}

/// Reads up to the end of the connection; returns the close code, if a Close frame came.
pub(crate) fn close_code(client: &mut Client) -> Option<u16> {
    let mut code = None;
    loop {
        match client.read() {
            Ok(Message::Close(frame)) => code = Some(frame.map_or(1005, |frame| frame.code.into())),
            Ok(_) => {}
            Err(tungstenite::Error::ConnectionClosed | tungstenite::Error::AlreadyClosed) => return code,
            Err(tungstenite::Error::Io(error)) if error.kind() == io::ErrorKind::ConnectionReset => return code,
            Err(tungstenite::Error::Protocol(_)) => return code,
            Err(error) => panic!("{error}"),
        }
    }
}

/// Paces clients that come until each core has some. While a core has no processor the others take whoever would wait for it:
/// that ends, after a time, and not after a number of clients.
pub(crate) struct UntilAllCoresHaveSome {
    since: Instant,
    came: u32,
}

impl UntilAllCoresHaveSome {
    pub(crate) fn new() -> UntilAllCoresHaveSome {
        UntilAllCoresHaveSome { since: Instant::now(), came: 0 }
    }

    /// Before one more comes.
    pub(crate) fn one_more(&mut self) {
        assert!(self.since.elapsed() < PATIENCE, "a core has got none of {} that came", self.came);
        self.came += 1;
        if self.came > 20 {
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// Waits for a condition, and says what did not come true.
pub(crate) fn eventually(mut condition: impl FnMut() -> bool, what: impl Fn() -> String) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < PATIENCE, "waited in vain for {}", what());
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Bytes that a shift or a loss would show in.
pub(crate) fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|index| (index.wrapping_mul(31) ^ (index >> 8)) as u8).collect()
}
