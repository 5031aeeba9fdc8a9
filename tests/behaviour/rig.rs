//! A server for an app, and what its clients do.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};

use ringwire::config::Config;
use ringwire::{App, Handle, Hub, Server};
use serde_json::Value;
use tungstenite::http::{Request, Response};
use tungstenite::{Error, Message};

use crate::common::raw::Raw;
use crate::common::{self, Client, PATIENCE, UntilAllCoresHaveSome, eventually};

pub(crate) use crate::common::{close_code, config, raw, text};

/// A server in this process; ends when it is dropped.
pub(crate) struct Served {
    handle: Option<Handle>,
    pub(crate) address: SocketAddr,
}

pub(crate) fn serve(make: impl Fn() -> App + Send + Sync + 'static) -> Served {
    serve_with(config(), make)
}

pub(crate) fn serve_with(config: Config, make: impl Fn() -> App + Send + Sync + 'static) -> Served {
    Served::of(Server::new(config).start(make).expect("the server starts"))
}

impl Served {
    pub(crate) fn of(handle: Handle) -> Served {
        let address = handle.addresses()[0].inet().expect("a TCP address");
        Served { handle: Some(handle), address }
    }

    pub(crate) fn hub(&self) -> &Hub {
        self.handle.as_ref().expect("it runs").hub()
    }

    pub(crate) fn client(&self, path: &str) -> Client {
        common::client(self.address, path)
    }

    /// A client whose handshake has these fields too.
    pub(crate) fn connect(&self, path: &str, fields: &[(&str, &str)]) -> Result<(Client, Response<()>), u16> {
        let stream = std::net::TcpStream::connect(self.address).expect("a connection");
        stream.set_read_timeout(Some(PATIENCE)).expect("a time limit");
        let mut request = Request::builder()
            .uri(format!("ws://{}{path}", self.address))
            .header("Host", "x")
            .header("Connection", "Upgrade")
            .header("Upgrade", "websocket")
            .header("Sec-WebSocket-Version", "13")
            .header("Sec-WebSocket-Key", raw::KEY);
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        match tungstenite::client(request.body(()).expect("a request"), stream) {
            Ok((client, response)) => Ok((client, response.map(|_| ()))),
            Err(tungstenite::HandshakeError::Failure(Error::Http(response))) => Err(response.status().as_u16()),
            Err(error) => panic!("{error}"),
        }
    }

    pub(crate) fn raw(&self) -> Raw {
        Raw::connect(self.address)
    }

    /// The status of one request and its body.
    pub(crate) fn http(&self, method: &str, path: &str, body: &str) -> (u16, String) {
        let mut client = self.raw();
        client.send(&request(method, path, body));
        let response = client.response(method == "HEAD");
        (response.status, response.body)
    }

    pub(crate) fn http_json(&self, method: &str, path: &str, body: &str) -> (u16, Value) {
        let (status, body) = self.http(method, path, body);
        (status, serde_json::from_str(&body).unwrap_or_else(|error| panic!("{error}: {body:?}")))
    }

    pub(crate) fn await_count(&self, count: u32) {
        let is = || self.hub().websockets();
        eventually(|| is() == count, || format!("{count} connections, there are {}", is()));
    }

    /// Clients on both cores, at least `count`.
    pub(crate) fn clients_on_both_cores(&self, path: &str, count: usize) -> Vec<Client> {
        let mut clients = Vec::new();
        let mut pace = UntilAllCoresHaveSome::new();
        loop {
            pace.one_more();
            clients.push(self.client(path));
            let cores = block_on(self.hub().connections()).expect("the cores answer");
            let has = |core: usize| cores.iter().any(|connection| connection.core == core);
            if clients.len() >= count && has(0) && has(1) {
                return clients;
            }
        }
    }

    /// Waits for its end, which somebody else has asked for.
    pub(crate) fn join(mut self) {
        self.handle.take().expect("it runs").join().expect("every core ends well");
    }

    pub(crate) fn shutdown(mut self) {
        let handle = self.handle.take().expect("it runs");
        handle.shutdown();
        handle.join().expect("every core ends well");
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        if let Some(handle) = self.handle.take() {
            handle.shutdown();
            let ended = handle.join();
            if !thread::panicking() {
                ended.expect("every core ends well");
            }
        }
    }
}

pub(crate) fn request(method: &str, path: &str, body: &str) -> Vec<u8> {
    format!("{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

pub(crate) fn say(client: &mut Client, text: impl Into<String>) {
    client.send(Message::text(text.into())).expect("sent");
}

/// The next message, as JSON.
pub(crate) fn json(client: &mut Client) -> Value {
    let text = text(client);
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text:?}"))
}

/// The next event of the form `{"event","data"}`.
pub(crate) fn event(client: &mut Client) -> (String, Value) {
    let mut value = json(client);
    let name = value["event"].as_str().unwrap_or_else(|| panic!("no event: {value}")).to_owned();
    (name, value["data"].take())
}

/// The next event's data; the event must have this name.
pub(crate) fn event_named(client: &mut Client, name: &str) -> Value {
    let (is, data) = event(client);
    assert_eq!(is, name, "{data}");
    data
}

/// The code and reason of the Close frame that is the next message.
pub(crate) fn close_frame(client: &mut Client) -> (u16, String) {
    match client.read().expect("a message") {
        Message::Close(Some(frame)) => {
            let closed = (frame.code.into(), frame.reason.to_string());
            // The answer to it; the server has said all.
            let _ = client.flush();
            closed
        }
        other => panic!("not a Close frame: {other:?}"),
    }
}

/// What hooks on the cores tell the test.
pub(crate) struct Log(Receiver<String>);

pub(crate) fn log() -> (impl Fn(&str) + Clone + Send + Sync + 'static, Log) {
    let (sender, receiver): (Sender<String>, _) = channel();
    (move |line: &str| sender.send(line.to_owned()).unwrap_or(()), Log(receiver))
}

impl Log {
    pub(crate) fn next(&self) -> String {
        self.0.recv_timeout(PATIENCE).expect("a line")
    }

    pub(crate) fn take(&self, count: usize) -> Vec<String> {
        (0..count).map(|_| self.next()).collect()
    }

    /// Nothing more was told.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.try_recv().is_err()
    }
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Runs a future of the hub's on a thread that is no core.
pub(crate) fn block_on<T>(future: impl IntoFuture<Output = T>) -> T {
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut future = pin!(future.into_future());
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(output) => return output,
            Poll::Pending => thread::park_timeout(PATIENCE),
        }
    }
}
