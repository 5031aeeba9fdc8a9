//! A WebSocket client in a test's hand.

use std::cell::RefCell;
use std::fmt;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::line::{Line, Seen};
use super::stage::Stage;
use crate::message::{IntoMessage, Json, OwnedMessage};
use crate::proto::Opcode;
use crate::proto::close;
use crate::quote::quoted;

/// For how long "nothing" is awaited where no time is given: whatever faults delay has come by then.
const NOTHING_FOR: Duration = Duration::from_millis(100);

/// A WebSocket client of a test. It answers pings and Close frames by itself, and reads whatever comes as it comes, as
/// browsers do, unless it [is paused](TestClient::pause). Dropped, it closes its socket without a Close frame.
///
/// What a call sends has been handled by the server when the call returns, as far as that takes no time. What is expected
/// is awaited: virtual time passes until it is there, at most for the test's
/// [patience](super::TestServerBuilder::patience).
///
/// ```
/// use ringwire::testing::TestServer;
/// use ringwire::{App, Events};
/// use serde_json::{Value, json};
///
/// let server = TestServer::new(|| {
///     App::new().ws("/ws", Events::new().on("say", |socket, text: Value| socket.to_all().emit("said", &text)))
/// });
/// let (ann, ben) = (server.connect("/ws"), server.connect("/ws"));
/// ann.emit("say", "hello");
/// assert_eq!(ben.expect_event("said"), "hello");
/// ann.expect_json(json!({"event": "said", "data": "hello"}));
/// ann.close(1000, "bye");
/// ann.expect_close(1000);
/// ben.expect_nothing();
/// ```
pub struct TestClient {
    stage: Rc<RefCell<Stage>>,
    number: usize,
}

impl TestClient {
    pub(super) fn new(stage: Rc<RefCell<Stage>>, number: usize) -> TestClient {
        TestClient { stage, number }
    }

    pub(super) fn number(&self) -> usize {
        self.number
    }

    fn with<T>(&self, act: impl FnOnce(&mut Line) -> T) -> T {
        act(self.stage.borrow_mut().line(self.number))
    }

    /// Does something, tells the trace, and lets the server act on it.
    fn act(&self, what: fmt::Arguments<'_>, payload: &[u8], act: impl FnOnce(&mut Line)) {
        let mut stage = self.stage.borrow_mut();
        stage.note(self.number, what, payload);
        act(stage.line(self.number));
        stage.settle();
    }

    fn wait<T>(&self, look: impl Fn(&mut Line) -> Option<T>) -> Option<T> {
        self.stage.borrow_mut().wait(|stage| look(stage.line(self.number)))
    }

    #[track_caller]
    fn fail(&self, due: &dyn fmt::Display, came: &dyn fmt::Display) -> ! {
        let mut stage = self.stage.borrow_mut();
        let line = stage.line(self.number).to_string();
        let text = stage.told(&format!("{line}: {due} was due, but {came}"));
        drop(stage);
        panic!("{text}")
    }

    #[track_caller]
    fn expect(&self, due: &dyn fmt::Display, is_due: impl FnOnce(&Seen) -> bool) -> Seen {
        match self.wait(Line::next) {
            Some(seen) if is_due(&seen) => seen,
            Some(seen) => self.fail(due, &seen),
            None => self.fail(due, &"nothing came"),
        }
    }

    #[track_caller]
    fn expect_message(&self, due: &dyn fmt::Display, is_due: impl FnOnce(&OwnedMessage) -> bool) -> OwnedMessage {
        match self.expect(due, |seen| matches!(seen, Seen::Message(message) if is_due(message))) {
            Seen::Message(message) => message,
            other => self.fail(due, &other),
        }
    }

    // ---- sending --------------------------------------------------------------------------------------------------

    /// Sends a message: text as text, bytes as binary, [`Json`] as text. On a connection that is closing or has ended it is
    /// lost without a word.
    ///
    /// ```
    /// use ringwire::testing::TestServer;
    /// use ringwire::{App, Message, Socket};
    ///
    /// let server = TestServer::new(|| App::new().ws("/echo", |socket: &mut Socket, message: Message| socket.send(message)));
    /// let client = server.connect("/echo");
    /// client.send("text");
    /// client.expect_text("text");
    /// client.send(vec![1, 2, 3]);
    /// client.expect_binary([1, 2, 3]);
    /// ```
    ///
    /// # Panics
    /// If a value cannot be written as JSON.
    #[track_caller]
    pub fn send(&self, message: impl IntoMessage) {
        let message = message.with_message(|message| message.to_owned()).expect("a value that can be written as JSON");
        let (opcode, kind) = if message.is_text() { (Opcode::Text, "text") } else { (Opcode::Binary, "binary") };
        let payload = message.as_bytes();
        let shown = format!("sends {kind} {}", quoted(payload));
        self.act(format_args!("{shown}"), payload, |line| line.message(opcode, payload));
    }

    /// Sends a value as JSON text.
    ///
    /// ```
    /// use ringwire::testing::TestServer;
    /// use ringwire::{App, Message, Socket};
    ///
    /// let server = TestServer::new(|| App::new().ws("/echo", |socket: &mut Socket, message: Message| socket.send(message)));
    /// let client = server.connect("/echo");
    /// client.send_json(&serde_json::json!({"x": 1}));
    /// client.expect_text(r#"{"x":1}"#);
    /// ```
    ///
    /// # Panics
    /// If it cannot be written as JSON.
    #[track_caller]
    pub fn send_json(&self, value: &(impl Serialize + ?Sized)) {
        self.send(Json(value));
    }

    /// Sends a named event, in the app's [`Envelope`](crate::Envelope).
    ///
    /// ```
    /// use ringwire::testing::TestServer;
    /// use ringwire::{App, Events};
    ///
    /// let double = || Events::new().on("double", |socket, number: i64| socket.emit("doubled", &(2 * number)));
    /// let server = TestServer::new(move || App::new().ws("/ws", double()));
    /// let client = server.connect("/ws");
    /// client.emit("double", &21);
    /// assert_eq!(client.expect_event("doubled"), 42);
    /// ```
    ///
    /// # Panics
    /// If the data cannot be written as JSON.
    #[track_caller]
    pub fn emit(&self, event: &str, data: &(impl Serialize + ?Sized)) {
        let envelope = self.stage.borrow().cores.hub.envelope();
        let text = envelope.encode(event, data).expect("data that can be written as JSON");
        self.send(String::from_utf8(text).expect("JSON is UTF-8"));
    }

    /// Sends one text message in several frames.
    ///
    /// ```
    /// use ringwire::testing::TestServer;
    /// use ringwire::{App, Message, Socket};
    ///
    /// let server = TestServer::new(|| App::new().ws("/echo", |socket: &mut Socket, message: Message| socket.send(message)));
    /// let client = server.connect("/echo");
    /// client.send_fragments(&["hel", "", "lo"]);
    /// client.expect_text("hello");
    /// ```
    pub fn send_fragments(&self, parts: &[&str]) {
        let shown = format!("sends text in {} frames", parts.len());
        self.act(format_args!("{shown}"), parts.concat().as_bytes(), |line| {
            for (index, part) in parts.iter().enumerate() {
                let opcode = if index == 0 { Opcode::Text } else { Opcode::Continuation };
                line.frame(opcode, index + 1 == parts.len(), part.as_bytes());
            }
        });
    }

    /// Writes bytes as they are: for what no client would send.
    ///
    /// ```
    /// use ringwire::testing::TestServer;
    /// use ringwire::{App, Message, Socket};
    ///
    /// let server = TestServer::new(|| App::new().ws("/echo", |socket: &mut Socket, message: Message| socket.send(message)));
    /// let client = server.connect("/echo");
    /// // A frame without a mask, which no client may send (RFC 6455 5.1).
    /// client.send_bytes(b"\x81\x02hi");
    /// client.expect_close(1002);
    /// ```
    pub fn send_bytes(&self, bytes: &[u8]) {
        self.act(format_args!("writes {} bytes", bytes.len()), bytes, |line| line.write(bytes));
    }

    /// Sends a ping.
    ///
    /// ```
    /// use ringwire::testing::TestServer;
    /// use ringwire::{App, Message, Socket};
    ///
    /// let server = TestServer::new(|| App::new().ws("/echo", |socket: &mut Socket, message: Message| socket.send(message)));
    /// let client = server.connect("/echo");
    /// client.ping("there?");
    /// client.expect_pong("there?");
    /// ```
    ///
    /// # Panics
    /// If the payload has more than 125 bytes (RFC 6455 5.5).
    #[track_caller]
    pub fn ping(&self, payload: impl AsRef<[u8]>) {
        let payload = payload.as_ref();
        assert!(payload.len() <= 125, "a ping has 125 bytes at most");
        self.act(format_args!("pings"), payload, |line| line.frame(Opcode::Ping, true, payload));
    }

    /// Begins the closing handshake. [`TestClient::expect_close`] awaits the answer.
    ///
    /// ```
    /// use ringwire::testing::TestServer;
    /// use ringwire::{App, Message, Socket};
    ///
    /// let server = TestServer::new(|| App::new().ws("/echo", |socket: &mut Socket, message: Message| socket.send(message)));
    /// let client = server.connect("/echo");
    /// client.close(1000, "bye");
    /// client.expect_close(1000);
    /// assert!(!client.is_open());
    /// ```
    ///
    /// # Panics
    /// If the code is not one that may be sent (RFC 6455 7.4).
    #[track_caller]
    pub fn close(&self, code: u16, reason: &str) {
        assert!(close::is_legal(code), "{code} is no code that may be sent");
        self.act(format_args!("closes with {code}"), reason.as_bytes(), |line| line.close(Some(code), reason));
    }

    /// Closes the socket without a Close frame, as a browser that crashes.
    ///
    /// ```
    /// use ringwire::testing::TestServer;
    /// use ringwire::{App, ws};
    /// use std::{cell::Cell, rc::Rc};
    ///
    /// let code = Rc::new(Cell::new(0));
    /// let server = TestServer::new(|| {
    ///     let code = Rc::clone(&code);
    ///     App::new().ws("/", ws().on_close(move |_, closed| code.set(closed.code)))
    /// });
    /// server.connect("/").leave();
    /// assert_eq!(code.get(), 1006);
    /// ```
    pub fn leave(&self) {
        self.act(format_args!("leaves"), &[], Line::leave);
    }

    /// Breaks the connection off with a reset, as a network that fails.
    ///
    /// ```
    /// use ringwire::testing::TestServer;
    /// use ringwire::{App, ws};
    /// use std::{cell::Cell, rc::Rc};
    ///
    /// let code = Rc::new(Cell::new(0));
    /// let server = TestServer::new(|| {
    ///     let code = Rc::clone(&code);
    ///     App::new().ws("/", ws().on_close(move |_, closed| code.set(closed.code)))
    /// });
    /// server.connect("/").reset();
    /// assert_eq!(code.get(), 1006);
    /// ```
    pub fn reset(&self) {
        self.act(format_args!("breaks off"), &[], Line::reset);
    }

    // ---- reading --------------------------------------------------------------------------------------------------

    /// Stops reading: a client that hangs. It does not even answer pings. What the server sends stays in the socket, up to
    /// 64 KiB or the [window](TestClient::set_window), and then in its outbox.
    ///
    /// ```
    /// use ringwire::testing::TestServer;
    /// use ringwire::{App, ws};
    ///
    /// let server = TestServer::new(|| App::new().ws("/", ws()));
    /// let client = server.connect("/");
    /// client.pause();
    /// server.advance(std::time::Duration::from_secs(130));
    /// client.resume();
    /// assert!(!client.is_open(), "who does not answer pings is dropped");
    /// ```
    pub fn pause(&self) {
        self.act(format_args!("stops reading"), &[], |line| line.is_paused = true);
    }

    /// Reads again, everything that is there first.
    ///
    /// ```
    /// use ringwire::testing::TestServer;
    /// use ringwire::{App, Message, Socket};
    ///
    /// let server = TestServer::new(|| App::new().ws("/echo", |socket: &mut Socket, message: Message| socket.send(message)));
    /// let client = server.connect("/echo");
    /// client.pause();
    /// client.send("hello");
    /// assert!(client.unread().is_empty());
    /// client.resume();
    /// client.expect_text("hello");
    /// ```
    pub fn resume(&self) {
        let now = self.stage.borrow().world.now();
        self.act(format_args!("reads"), &[], |line| {
            line.is_paused = false;
            line.read_slowly(None, now);
        });
    }

    /// Reads no more than this from now on, a thousandth of it each millisecond, until [`TestClient::resume`].
    ///
    /// ```
    /// use ringwire::testing::TestServer;
    /// use ringwire::{App, ws};
    ///
    /// let server = TestServer::new(|| App::new().ws("/", ws()));
    /// let client = server.connect("/");
    /// client.read_slowly(1000);
    /// let _ = server.hub().send_to_all("x".repeat(5000)).unwrap();
    /// client.expect_nothing_for(std::time::Duration::from_secs(4));
    /// assert_eq!(client.next_text().len(), 5000);
    /// ```
    pub fn read_slowly(&self, bytes_per_second: usize) {
        let now = self.stage.borrow().world.now();
        self.act(format_args!("reads slowly"), &[], |line| line.read_slowly(Some(bytes_per_second), now));
    }

    /// How much the socket holds of what the server sends and the client has not read; 64 KiB unless this is called.
    ///
    /// ```
    /// use ringwire::testing::TestServer;
    /// use ringwire::{App, Config, ws};
    ///
    /// let config = Config::default().max_outbox(4096);
    /// let server = TestServer::builder().config(config).start(|| App::new().ws("/", ws()));
    /// let client = server.connect("/");
    /// client.set_window(1024);
    /// client.pause();
    /// let told = |_| server.block_on(server.hub().send_to_all("x".repeat(1000)).unwrap()).queued;
    /// let queued: u32 = (0..100).map(told).sum();
    /// assert!(queued < 10, "no more than its window and its outbox hold");
    /// ```
    pub fn set_window(&self, bytes: usize) {
        self.with(|line| line.set_window(bytes));
    }

    /// The next message; `None` once the connection is closed or has ended.
    ///
    /// ```
    /// use ringwire::testing::TestServer;
    /// use ringwire::{App, Message, Socket};
    ///
    /// let server = TestServer::new(|| App::new().ws("/echo", |socket: &mut Socket, message: Message| socket.send(message)));
    /// let client = server.connect("/echo");
    /// client.send("hello");
    /// client.close(1000, "bye");
    /// assert_eq!(client.next().unwrap().as_text(), Some("hello"));
    /// assert_eq!(client.next(), None);
    /// ```
    ///
    /// # Panics
    /// If nothing comes.
    #[track_caller]
    pub fn next(&self) -> Option<OwnedMessage> {
        match self.wait(Line::next) {
            Some(Seen::Message(message)) => Some(message),
            Some(_) => None,
            None => self.fail(&"a message", &"nothing came"),
        }
    }

    /// The next message, which must be text.
    ///
    /// ```
    /// use ringwire::testing::TestServer;
    /// use ringwire::{App, ws};
    ///
    /// let server = TestServer::new(|| App::new().ws("/", ws().on_connect(|socket| socket.id().to_string())));
    /// let client = server.connect("/");
    /// assert_eq!(client.next_text().len(), 22);
    /// ```
    ///
    /// # Panics
    /// If something else comes, or nothing, as all that expects something does.
    #[track_caller]
    pub fn next_text(&self) -> String {
        let message = self.expect_message(&"text", OwnedMessage::is_text);
        message.as_text().map(str::to_owned).unwrap_or_default()
    }

    /// The next message, which must be binary.
    ///
    /// ```
    /// use ringwire::testing::TestServer;
    /// use ringwire::{App, Message, Socket};
    ///
    /// let server = TestServer::new(|| App::new().ws("/echo", |socket: &mut Socket, message: Message| socket.send(message)));
    /// let client = server.connect("/echo");
    /// client.send(vec![7; 1000]);
    /// assert_eq!(client.next_binary().len(), 1000);
    /// ```
    ///
    /// # Panics
    /// As [`TestClient::next_text`].
    #[track_caller]
    pub fn next_binary(&self) -> Bytes {
        self.expect_message(&"a binary message", |message| !message.is_text()).into_bytes()
    }

    /// The next message, which must be JSON of this type.
    ///
    /// ```
    /// use ringwire::testing::TestServer;
    /// use ringwire::{App, Json, ws};
    ///
    /// #[derive(serde::Deserialize)]
    /// struct Welcome {
    ///     news: u32,
    /// }
    ///
    /// let route = || ws().on_connect(|_| Json(serde_json::json!({"news": 3})));
    /// let server = TestServer::new(move || App::new().ws("/", route()));
    /// assert_eq!(server.connect("/").next_json::<Welcome>().news, 3);
    /// ```
    ///
    /// # Panics
    /// As [`TestClient::next_text`].
    #[track_caller]
    pub fn next_json<T: DeserializeOwned>(&self) -> T {
        let message = self.expect_message(&"JSON", OwnedMessage::is_text);
        match message.json() {
            Ok(value) => value,
            Err(error) => self.fail(&"JSON of another type", &format!("{} came: {error}", quoted(message.as_bytes()))),
        }
    }

    /// The next message, which must be an event in the app's [`Envelope`](crate::Envelope): its name and data.
    ///
    /// ```
    /// use ringwire::testing::TestServer;
    /// use ringwire::{App, ws};
    ///
    /// let server = TestServer::new(|| App::new().ws("/", ws().on_connect(|socket| socket.emit("welcome", &3))));
    /// let (name, data) = server.connect("/").next_event();
    /// assert_eq!((name.as_str(), data), ("welcome", 3.into()));
    /// ```
    ///
    /// # Panics
    /// As [`TestClient::next_text`].
    #[track_caller]
    pub fn next_event(&self) -> (String, Value) {
        let mut value: Value = self.next_json();
        let key = self.stage.borrow().cores.hub.envelope().key();
        match value.get(key).and_then(Value::as_str).map(str::to_owned) {
            Some(name) => (name, value.get_mut("data").map_or(Value::Null, Value::take)),
            None => self.fail(&"an event", &format!("{} came", quoted(&value.to_string()))),
        }
    }

    /// Everything that has arrived and was not read.
    ///
    /// ```
    /// use ringwire::testing::TestServer;
    /// use ringwire::{App, Message, Socket};
    ///
    /// let server = TestServer::new(|| App::new().ws("/echo", |socket: &mut Socket, message: Message| socket.send(message)));
    /// let client = server.connect("/echo");
    /// ["a", "b", "c"].map(|text| client.send(text));
    /// let texts: Vec<_> = client.unread().iter().map(|message| message.as_text().unwrap().to_owned()).collect();
    /// assert_eq!(texts, ["a", "b", "c"]);
    /// client.expect_nothing();
    /// ```
    pub fn unread(&self) -> Vec<OwnedMessage> {
        self.with(|line| line.messages.drain(..).collect())
    }

    // ---- expecting ------------------------------------------------------------------------------------------------

    /// The next message must be this text.
    ///
    /// ```
    /// use ringwire::testing::TestServer;
    /// use ringwire::{App, Message, Socket};
    ///
    /// let server = TestServer::new(|| App::new().ws("/echo", |socket: &mut Socket, message: Message| socket.send(message)));
    /// let client = server.connect("/echo");
    /// client.send("hello");
    /// client.expect_text("hello");
    /// ```
    ///
    /// # Panics
    /// As [`TestClient::next_text`].
    #[track_caller]
    pub fn expect_text(&self, text: &str) {
        let due = format!("text {}", quoted(text));
        self.expect_message(&due, |message| message.as_text() == Some(text));
    }

    /// The next message must be binary, and these bytes.
    ///
    /// ```
    /// use ringwire::testing::TestServer;
    /// use ringwire::{App, Message, Socket};
    ///
    /// let server = TestServer::new(|| App::new().ws("/echo", |socket: &mut Socket, message: Message| socket.send(message)));
    /// let client = server.connect("/echo");
    /// client.send(vec![1, 2, 3]);
    /// client.expect_binary([1, 2, 3]);
    /// ```
    ///
    /// # Panics
    /// As [`TestClient::next_text`].
    #[track_caller]
    pub fn expect_binary(&self, bytes: impl AsRef<[u8]>) {
        let bytes = bytes.as_ref();
        let due = format!("binary {}", quoted(bytes));
        self.expect_message(&due, |message| !message.is_text() && message.as_bytes() == bytes);
    }

    /// The next message must be JSON and mean this value.
    ///
    /// ```
    /// use ringwire::testing::TestServer;
    /// use ringwire::{App, Message, Socket};
    ///
    /// let server = TestServer::new(|| App::new().ws("/echo", |socket: &mut Socket, message: Message| socket.send(message)));
    /// let client = server.connect("/echo");
    /// client.send(r#"{ "x": 1, "y": 2 }"#);
    /// client.expect_json(serde_json::json!({"y": 2, "x": 1}));
    /// ```
    ///
    /// # Panics
    /// As [`TestClient::next_text`], and if the value cannot be written as JSON.
    #[track_caller]
    pub fn expect_json(&self, value: impl Serialize) {
        let due = serde_json::to_value(value).expect("a value that can be written as JSON");
        let shown = format!("JSON {}", quoted(&due.to_string()));
        self.expect_message(&shown, |message| message.is_text() && message.json().is_ok_and(|is: Value| is == due));
    }

    /// The next message must be an event of this name, in the app's [`Envelope`](crate::Envelope): its data.
    ///
    /// ```
    /// use ringwire::testing::TestServer;
    /// use ringwire::{App, ws};
    ///
    /// let server = TestServer::new(|| App::new().ws("/", ws().on_connect(|socket| socket.emit("welcome", &3))));
    /// assert_eq!(server.connect("/").expect_event("welcome"), 3);
    /// ```
    ///
    /// # Panics
    /// As [`TestClient::next_text`].
    #[track_caller]
    pub fn expect_event(&self, name: &str) -> Value {
        let (is, data) = self.next_event();
        if is != name {
            let came = format!("event {} came, with {}", quoted(&is), quoted(&data.to_string()));
            self.fail(&format!("event {}", quoted(name)), &came);
        }
        data
    }

    /// The server's Close frame must come next, with this code (1005: with none): its reason.
    ///
    /// ```
    /// use ringwire::testing::TestServer;
    /// use ringwire::{App, ws};
    ///
    /// let server = TestServer::new(|| App::new().ws("/", ws().on_connect(|socket| socket.close(4000, "not today"))));
    /// assert_eq!(server.connect("/").expect_close(4000), "not today");
    /// ```
    ///
    /// # Panics
    /// As [`TestClient::next_text`].
    #[track_caller]
    pub fn expect_close(&self, code: u16) -> String {
        let due = format!("Close {code}");
        match self.expect(&due, |seen| matches!(seen, Seen::Close(is, _) if is.unwrap_or(1005) == code)) {
            Seen::Close(_, reason) => reason,
            other => self.fail(&due, &other),
        }
    }

    /// The connection must end without a Close frame next: dropped by the server, or broken.
    ///
    /// ```
    /// use ringwire::testing::TestServer;
    /// use ringwire::{App, Config, ws};
    /// use std::time::Duration;
    ///
    /// let config = Config::default().close_timeout(Duration::from_secs(1));
    /// let server = TestServer::builder().config(config).start(|| App::new().ws("/", ws()));
    /// let client = server.connect("/");
    /// client.pause();
    /// let _ = server.hub().send_to_all("x".repeat(100_000)).unwrap();
    /// server.shutdown();
    /// server.advance(Duration::from_secs(20));
    /// client.resume();
    /// client.expect_end();
    /// ```
    ///
    /// # Panics
    /// As [`TestClient::next_text`].
    #[track_caller]
    pub fn expect_end(&self) {
        self.expect(&"an end without a Close", |seen| matches!(seen, Seen::End(_)));
    }

    /// A ping of the server's must come, or have come since the last one was asked for: its payload. It was answered.
    ///
    /// ```
    /// use ringwire::testing::TestServer;
    /// use ringwire::{App, ws};
    ///
    /// let server = TestServer::new(|| App::new().ws("/", ws().on_connect(|socket| socket.ping("there?"))));
    /// assert_eq!(server.connect("/").expect_ping(), "there?");
    /// ```
    ///
    /// # Panics
    /// If none comes.
    #[track_caller]
    pub fn expect_ping(&self) -> Bytes {
        match self.wait(|line| line.pings.pop_front()) {
            Some(payload) => payload,
            None => self.fail(&"a ping", &"none came"),
        }
    }

    /// A pong with this payload must come, or have come.
    ///
    /// ```
    /// use ringwire::testing::TestServer;
    /// use ringwire::{App, ws};
    ///
    /// let server = TestServer::new(|| App::new().ws("/", ws()));
    /// let client = server.connect("/");
    /// client.ping("one");
    /// client.ping("two");
    /// client.expect_pong("one");
    /// client.expect_pong("two");
    /// ```
    ///
    /// # Panics
    /// If none comes, or one with another payload.
    #[track_caller]
    pub fn expect_pong(&self, payload: impl AsRef<[u8]>) {
        let payload = payload.as_ref();
        let due = format!("a pong {}", quoted(payload));
        match self.wait(|line| line.pongs.pop_front()) {
            Some(is) if is == payload => {}
            Some(is) => self.fail(&due, &format!("{} came", quoted(&is))),
            None => self.fail(&due, &"none came"),
        }
    }

    /// No message comes and the connection stays, for a tenth of a second. Pings are no messages.
    ///
    /// ```
    /// use ringwire::testing::TestServer;
    /// use ringwire::{App, ws};
    ///
    /// let route = || ws().on_message(|socket, message| socket.to_all().except_self().send(message));
    /// let server = TestServer::new(move || App::new().ws("/", route()));
    /// let (ann, ben) = (server.connect("/"), server.connect("/"));
    /// ann.send("hello");
    /// ben.expect_text("hello");
    /// ann.expect_nothing();
    /// ```
    ///
    /// # Panics
    /// If something comes.
    #[track_caller]
    pub fn expect_nothing(&self) {
        self.expect_nothing_for(NOTHING_FOR);
    }

    /// No message comes and the connection stays, for this long.
    ///
    /// ```
    /// use ringwire::testing::TestServer;
    /// use ringwire::{App, Connection, sleep, ws};
    /// use std::time::Duration;
    ///
    /// let late = async |_: Connection| {
    ///     sleep(Duration::from_secs(5)).await;
    ///     "at last"
    /// };
    /// let server = TestServer::new(move || App::new().ws("/", ws().task(late)));
    /// let client = server.connect("/");
    /// client.expect_nothing_for(Duration::from_secs(4));
    /// client.expect_text("at last");
    /// ```
    ///
    /// # Panics
    /// If something comes.
    #[track_caller]
    pub fn expect_nothing_for(&self, time: Duration) {
        self.stage.borrow_mut().pass(time);
        if let Some(seen) = self.with(Line::next) {
            self.fail(&"nothing", &seen);
        }
    }

    // ---- its state ------------------------------------------------------------------------------------------------

    /// Whether neither side has closed it and it has not ended, as far as this client has read.
    ///
    /// ```
    /// use ringwire::testing::TestServer;
    /// use ringwire::{App, ws};
    ///
    /// let server = TestServer::new(|| App::new().ws("/", ws()));
    /// let client = server.connect("/");
    /// assert!(client.is_open());
    /// server.shutdown();
    /// client.expect_close(1001);
    /// assert!(!client.is_open());
    /// ```
    pub fn is_open(&self) -> bool {
        self.with(|line| line.last().is_none())
    }

    /// The subprotocol that the server chose.
    ///
    /// ```
    /// use ringwire::testing::TestServer;
    /// use ringwire::{App, ws};
    ///
    /// let server = TestServer::new(|| App::new().ws("/", ws().subprotocols(["v2", "v1"])));
    /// let client = server.handshake("/").protocols(["v1"]).open();
    /// assert_eq!(client.protocol().as_deref(), Some("v1"));
    /// ```
    pub fn protocol(&self) -> Option<String> {
        self.with(|line| line.handshake.as_ref().and_then(|handshake| handshake.protocol.clone()))
    }

    /// Whether compression is agreed on.
    ///
    /// ```
    /// use ringwire::testing::TestServer;
    /// use ringwire::{App, Deflate, ws};
    ///
    /// let route = || ws().deflate(Deflate::Stateless).on_message(|_, message| message.into_owned());
    /// let server = TestServer::new(move || App::new().ws("/", route()));
    /// assert!(server.handshake("/").deflate().open().is_deflated());
    /// assert!(!server.connect("/").is_deflated());
    /// ```
    pub fn is_deflated(&self) -> bool {
        self.with(|line| line.handshake.as_ref().is_some_and(|handshake| handshake.deflate.is_some()))
    }

    /// How many messages the server has sent compressed.
    ///
    /// ```
    /// use ringwire::testing::TestServer;
    /// use ringwire::{App, Deflate, ws};
    ///
    /// let route = || ws().deflate(Deflate::Stateless).on_message(|_, message| message.into_owned());
    /// let server = TestServer::new(move || App::new().ws("/", route()));
    /// let client = server.handshake("/").deflate().open();
    /// client.send("hello ".repeat(100));
    /// client.expect_text(&"hello ".repeat(100));
    /// assert_eq!(client.inflated_messages(), 1);
    /// ```
    pub fn inflated_messages(&self) -> u64 {
        self.with(|line| line.inflated().messages)
    }

    /// The first value of a header field of the server's handshake.
    ///
    /// ```
    /// use ringwire::testing::TestServer;
    /// use http::{HeaderValue, header::SERVER};
    /// use ringwire::{App, ws};
    ///
    /// let route = || {
    ///     ws().before(|request| {
    ///         request.respond_with_header(SERVER, HeaderValue::from_static("chat/2"));
    ///         Ok(())
    ///     })
    /// };
    /// let server = TestServer::new(move || App::new().ws("/", route()));
    /// assert_eq!(server.connect("/").header("server").as_deref(), Some("chat/2"));
    /// ```
    pub fn header(&self, name: &str) -> Option<String> {
        self.with(|line| {
            let headers = &line.handshake.as_ref()?.headers;
            let found = headers.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
            found.map(|(_, value)| String::from_utf8_lossy(value).into_owned())
        })
    }
}

impl fmt::Debug for TestClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TestClient").field("number", &self.number).finish_non_exhaustive()
    }
}

impl Drop for TestClient {
    fn drop(&mut self) {
        // One that the app itself holds is dropped with the stage.
        if let Ok(mut stage) = self.stage.try_borrow_mut() {
            stage.note(self.number, format_args!("is dropped"), &[]);
            stage.forget(self.number);
            if !std::thread::panicking() {
                stage.settle();
            }
        }
    }
}
