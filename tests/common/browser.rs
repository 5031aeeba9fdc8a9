//! A headless Chromium and as much of the DevTools protocol as it takes to drive a page as a person would: keys and
//! clicks.

// Each test program uses its own part of it.
#![allow(dead_code)]

use std::cell::{Cell, RefCell};
use std::io::{BufRead as _, BufReader};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::rc::Rc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use data_encoding::BASE64;
use serde_json::{Value, json};
use tungstenite::protocol::WebSocketConfig;
use tungstenite::{Message, WebSocket};

/// Longer than a page takes on a machine that is busy with other tests.
const PATIENCE: Duration = Duration::from_secs(30);

const PROGRAMS: &[&str] = &["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"];

const FLAGS: &[&str] = &[
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-background-timer-throttling",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--hide-scrollbars",
    "--remote-debugging-port=0",
];

/// A Chromium of its own, with a fresh profile; ends when it is dropped.
pub(crate) struct Browser {
    process: Process,
    wire: Rc<Wire>,
}

struct Process {
    child: Child,
    profile: PathBuf,
}

impl Drop for Process {
    fn drop(&mut self) {
        // It was asked to end, and then all of its processes do; the first alone is killed if it does not.
        let start = Instant::now();
        while matches!(self.child.try_wait(), Ok(None)) && start.elapsed() < Duration::from_secs(5) {
            std::thread::sleep(Duration::from_millis(10));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.profile);
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        self.wire.tell("Browser.close");
    }
}

impl Browser {
    /// `None`, and a word on standard error why there is no test, where none is installed.
    pub(crate) fn start() -> Option<Browser> {
        Browser::start_with(&[])
    }

    /// The same with more flags.
    pub(crate) fn start_with(flags: &[&str]) -> Option<Browser> {
        let browser = Browser::launch(flags);
        if browser.is_none() {
            eprintln!("skipped: there is no chromium, chromium-browser or google-chrome in PATH");
        }
        browser
    }

    fn launch(flags: &[&str]) -> Option<Browser> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let path = std::env::var_os("PATH")?;
        let mut places =
            std::env::split_paths(&path).flat_map(|directory| PROGRAMS.iter().map(move |it| directory.join(it)));
        let program = places.find(|program| program.is_file())?;
        let name = format!("ringwire-browser-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let profile = std::env::temp_dir().join(name);
        let mut command = Command::new(program);
        command.args(FLAGS).args(flags).arg(format!("--user-data-dir={}", profile.display())).arg("about:blank");
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn();
        let mut process = Process { child: child.expect("the browser starts"), profile };
        let mut lines = BufReader::new(process.child.stderr.take().expect("a pipe"));
        let mut said = String::new();
        let url = loop {
            let start = said.len();
            let len = lines.read_line(&mut said).expect("text");
            assert!(len > 0, "the browser ended: {said}");
            if let Some(url) = said[start..].trim_end().strip_prefix("DevTools listening on ") {
                break url.to_owned();
            }
        };
        // It goes on complaining, and must not wait for a reader.
        std::thread::spawn(move || std::io::copy(&mut lines, &mut std::io::sink()));
        Some(Browser { process, wire: Rc::new(Wire::connect(&url)) })
    }

    pub(crate) fn open(&self, url: &str) -> Page {
        assert!(self.process.profile.is_absolute());
        // A window each, so that none hides another.
        let target = self.wire.call(None, "Target.createTarget", json!({ "url": "about:blank", "newWindow": true }));
        let attach = json!({ "targetId": target["targetId"], "flatten": true });
        let session =
            self.wire.call(None, "Target.attachToTarget", attach)["sessionId"].as_str().expect("one").to_owned();
        let mut page = Page { wire: Rc::clone(&self.wire), session };
        for domain in ["Page", "Runtime", "Log"] {
            page.call(&format!("{domain}.enable"), json!({}));
        }
        if url != "about:blank" {
            page.go(url);
        }
        page
    }
}

/// A page, by its session on the browser's one connection.
pub(crate) struct Page {
    wire: Rc<Wire>,
    session: String,
}

impl Page {
    fn call(&mut self, method: &str, parameters: Value) -> Value {
        self.wire.call(Some(&self.session), method, parameters)
    }

    pub(crate) fn go(&mut self, url: &str) {
        let gone = self.call("Page.navigate", json!({ "url": url }));
        assert_eq!(gone["errorText"], json!(null), "{url}");
    }

    /// The value of a JavaScript expression.
    #[track_caller]
    pub(crate) fn eval(&mut self, expression: &str) -> Value {
        let parameters = json!({ "expression": expression, "returnByValue": true, "userGesture": true });
        let mut answer = self.call("Runtime.evaluate", parameters);
        assert_eq!(answer["exceptionDetails"], json!(null), "{expression}");
        answer["result"]["value"].take()
    }

    /// Waits until this expression is true.
    #[track_caller]
    pub(crate) fn until(&mut self, expression: &str) {
        let start = Instant::now();
        while self.eval(expression) != json!(true) {
            assert!(start.elapsed() < PATIENCE, "in vain: {expression}\n{}", self.eval("document.body.innerText"));
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Types into what has the focus.
    pub(crate) fn insert(&mut self, text: &str) {
        self.call("Input.insertText", json!({ "text": text }));
    }

    /// Presses Enter or Escape.
    pub(crate) fn press(&mut self, key: &str) {
        let (code, text) = if key == "Enter" { (13, "\r") } else { (27, "") };
        let down = json!({ "type": "keyDown", "key": key, "code": key, "windowsVirtualKeyCode": code, "text": text });
        self.call("Input.dispatchKeyEvent", down);
        self.call("Input.dispatchKeyEvent", json!({ "type": "keyUp", "key": key, "code": key }));
    }

    /// Presses Alt and a letter.
    pub(crate) fn press_alt(&mut self, letter: &str) {
        let code = format!("Key{}", letter.to_uppercase());
        let key = json!({ "type": "rawKeyDown", "modifiers": 1, "key": letter, "code": code });
        self.call("Input.dispatchKeyEvent", key);
        self.call("Input.dispatchKeyEvent", json!({ "type": "keyUp", "key": letter, "code": code }));
    }

    pub(crate) fn fill(&mut self, field: &str, text: &str) {
        self.eval(&format!("document.querySelector('{field}').focus(), document.querySelector('{field}').select()"));
        self.insert(text);
    }

    pub(crate) fn click(&mut self, what: &str) {
        self.eval(&format!("document.querySelector('{what}').click()"));
    }

    /// Sets the colour scheme and the window's size.
    pub(crate) fn look(&mut self, scheme: &str, width: u32, height: u32) {
        let feature = json!([{ "name": "prefers-color-scheme", "value": scheme }]);
        self.call("Emulation.setEmulatedMedia", json!({ "features": feature }));
        let size = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500 });
        self.call("Emulation.setDeviceMetricsOverride", size);
    }

    /// Puts what the page has the browser download into this directory.
    pub(crate) fn download_to(&mut self, directory: &std::path::Path) {
        let parameters = json!({ "behavior": "allow", "downloadPath": directory });
        self.wire.call(None, "Browser.setDownloadBehavior", parameters);
    }

    /// A PNG of the window, or of the whole page.
    pub(crate) fn picture(&mut self, whole: bool) -> Vec<u8> {
        let picture = self.call("Page.captureScreenshot", json!({ "captureBeyondViewport": whole }));
        BASE64.decode(picture["data"].as_str().expect("data").as_bytes()).expect("base64")
    }

    /// Nothing was thrown, and the policy forbade nothing.
    #[track_caller]
    pub(crate) fn has_no_complaints(&mut self) {
        assert_eq!(self.complaints(), Vec::<Value>::new());
    }

    /// What was thrown and what was forbidden so far.
    fn complaints(&mut self) -> Vec<Value> {
        let complaints = self.wire.complaints.borrow();
        complaints.iter().filter(|event| event["sessionId"] == self.session.as_str()).cloned().collect()
    }
}

struct Wire {
    socket: RefCell<WebSocket<TcpStream>>,
    calls: Cell<u64>,
    complaints: RefCell<Vec<Value>>,
}

impl Wire {
    fn connect(url: &str) -> Wire {
        let authority = url.trim_start_matches("ws://").split('/').next().expect("an authority");
        let stream = TcpStream::connect(authority).expect("the browser listens");
        stream.set_read_timeout(Some(Duration::from_secs(60))).expect("a timeout");
        let limits = WebSocketConfig::default().max_frame_size(None).max_message_size(None);
        let (socket, _) = tungstenite::client::client_with_config(url, stream, Some(limits)).expect("a handshake");
        Wire { socket: RefCell::new(socket), calls: Cell::new(0), complaints: RefCell::default() }
    }

    /// Without waiting for what comes of it.
    fn tell(&self, method: &str) {
        // A test that fails may have left it in the middle of a call.
        if let Ok(mut socket) = self.socket.try_borrow_mut() {
            let _ = socket.send(Message::text(json!({ "id": 0, "method": method }).to_string()));
        }
    }

    fn call(&self, session: Option<&str>, method: &str, parameters: Value) -> Value {
        let id = self.calls.get() + 1;
        self.calls.set(id);
        let mut call = json!({ "id": id, "method": method, "params": parameters });
        if let Some(session) = session {
            call["sessionId"] = json!(session);
        }
        let mut socket = self.socket.borrow_mut();
        socket.send(Message::text(call.to_string())).expect("sent");
        loop {
            let message = socket.read().expect("the browser answers");
            let Ok(text) = message.to_text() else { continue };
            let mut event: Value = serde_json::from_str(text).expect("JSON");
            if event["id"] == id {
                assert_eq!(event["error"], json!(null), "{method}");
                return event["result"].take();
            }
            let is_error = event["params"]["entry"]["level"] == "error";
            if event["method"] == "Runtime.exceptionThrown" || event["method"] == "Log.entryAdded" && is_error {
                self.complaints.borrow_mut().push(event);
            }
        }
    }
}
