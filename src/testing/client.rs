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
    /// # Panics
    /// If it cannot be written as JSON.
    #[track_caller]
    pub fn send_json(&self, value: &(impl Serialize + ?Sized)) {
        self.send(Json(value));
    }

    /// Sends a named event, in the app's [`Envelope`](crate::Envelope).
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
    pub fn send_bytes(&self, bytes: &[u8]) {
        self.act(format_args!("writes {} bytes", bytes.len()), bytes, |line| line.write(bytes));
    }

    /// Sends a ping.
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
    /// # Panics
    /// If the code is not one that may be sent (RFC 6455 7.4).
    #[track_caller]
    pub fn close(&self, code: u16, reason: &str) {
        assert!(close::is_legal(code), "{code} is no code that may be sent");
        self.act(format_args!("closes with {code}"), reason.as_bytes(), |line| line.close(Some(code), reason));
    }

    /// Closes the socket without a Close frame, as a browser that crashes.
    pub fn leave(&self) {
        self.act(format_args!("leaves"), &[], Line::leave);
    }

    /// Breaks the connection off with a reset, as a network that fails.
    pub fn reset(&self) {
        self.act(format_args!("breaks off"), &[], Line::reset);
    }

    // ---- reading --------------------------------------------------------------------------------------------------

    /// Stops reading: a client that hangs. It does not even answer pings. What the server sends stays in the socket, up to
    /// 64 KiB or the [window](TestClient::set_window), and then in its outbox.
    pub fn pause(&self) {
        self.act(format_args!("stops reading"), &[], |line| line.is_paused = true);
    }

    /// Reads again, everything that is there first.
    pub fn resume(&self) {
        let now = self.stage.borrow().world.now();
        self.act(format_args!("reads"), &[], |line| {
            line.is_paused = false;
            line.read_slowly(None, now);
        });
    }

    /// Reads no more than this from now on, a thousandth of it each millisecond, until [`TestClient::resume`].
    pub fn read_slowly(&self, bytes_per_second: usize) {
        let now = self.stage.borrow().world.now();
        self.act(format_args!("reads slowly"), &[], |line| line.read_slowly(Some(bytes_per_second), now));
    }

    /// How much the socket holds of what the server sends and the client has not read; 64 KiB unless this is called.
    pub fn set_window(&self, bytes: usize) {
        self.with(|line| line.set_window(bytes));
    }

    /// The next message; `None` once the connection is closed or has ended.
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
    /// # Panics
    /// If something else comes, or nothing, as all that expects something does.
    #[track_caller]
    pub fn next_text(&self) -> String {
        let message = self.expect_message(&"text", OwnedMessage::is_text);
        message.as_text().map(str::to_owned).unwrap_or_default()
    }

    /// The next message, which must be binary.
    ///
    /// # Panics
    /// As [`TestClient::next_text`].
    #[track_caller]
    pub fn next_binary(&self) -> Bytes {
        self.expect_message(&"a binary message", |message| !message.is_text()).into_bytes()
    }

    /// The next message, which must be JSON of this type.
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
    pub fn unread(&self) -> Vec<OwnedMessage> {
        self.with(|line| line.messages.drain(..).collect())
    }

    // ---- expecting ------------------------------------------------------------------------------------------------

    /// The next message must be this text.
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
    /// # Panics
    /// As [`TestClient::next_text`].
    #[track_caller]
    pub fn expect_end(&self) {
        self.expect(&"an end without a Close", |seen| matches!(seen, Seen::End(_)));
    }

    /// A ping of the server's must come, or have come since the last one was asked for: its payload. It was answered.
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
    /// # Panics
    /// If something comes.
    #[track_caller]
    pub fn expect_nothing(&self) {
        self.expect_nothing_for(NOTHING_FOR);
    }

    /// No message comes and the connection stays, for this long.
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
    pub fn is_open(&self) -> bool {
        self.with(|line| line.last().is_none())
    }

    /// The subprotocol that the server chose.
    pub fn protocol(&self) -> Option<String> {
        self.with(|line| line.handshake.as_ref().and_then(|handshake| handshake.protocol.clone()))
    }

    /// Whether compression is agreed on.
    pub fn is_deflated(&self) -> bool {
        self.with(|line| line.handshake.as_ref().is_some_and(|handshake| handshake.deflate.is_some()))
    }

    /// How many messages the server has sent compressed.
    pub fn inflated_messages(&self) -> u64 {
        self.with(|line| line.inflated().messages)
    }

    /// The first value of a header field of the server's handshake.
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
