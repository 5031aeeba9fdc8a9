//! What the documents take for granted: a clock, ids, users, services, a server for their clients, and what they print.

use std::cell::RefCell;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use ringwire::config::{Config, CoreSet, ListenAddress};
use ringwire::{App, Handle, HttpError, Server};
use serde::Serialize;

thread_local! {
    static PRINTED: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

/// The test kit's server and the clients that block are all in the thread of their test.
pub(crate) fn print(line: String) {
    PRINTED.with_borrow_mut(|printed| printed.push(line));
}

/// What this thread has printed since it was asked last.
pub(crate) fn printed() -> Vec<String> {
    PRINTED.take()
}

/// `DateTime.now()`.
pub(crate) fn now() -> String {
    humantime::format_rfc3339_millis(SystemTime::now()).to_string()
}

/// Whether a text is what [`now`] gives.
pub(crate) fn is_time(text: &str) -> bool {
    humantime::parse_rfc3339(text).is_ok()
}

/// `Uuid().v4()`.
pub(crate) fn fresh_id() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    format!("id-{}", NEXT.fetch_add(1, Ordering::Relaxed))
}

#[derive(Clone, Debug, Serialize)]
pub(crate) struct User {
    pub(crate) name: String,
}

/// `validateTokenAndGetUser`.
pub(crate) async fn user_of(token: &str) -> Result<User, HttpError> {
    let name = token.strip_prefix("token-of-").ok_or_else(|| HttpError::unauthorized("Unauthorized"))?;
    Ok(User { name: name.to_owned() })
}

#[derive(Clone, Debug, Serialize)]
pub(crate) struct Notification {
    pub(crate) title: String,
}

type Listener = Box<dyn FnMut(&Notification) + Send>;

/// `notificationService`: whoever listens hears of each notification.
#[derive(Clone, Default)]
pub(crate) struct NotificationService(Arc<Mutex<Vec<Listener>>>);

impl NotificationService {
    pub(crate) fn listen(&self, listener: impl FnMut(&Notification) + Send + 'static) {
        self.0.lock().expect("no panic").push(Box::new(listener));
    }

    pub(crate) fn notify(&self, title: &str) {
        let notification = Notification { title: title.to_owned() };
        self.0.lock().expect("no panic").iter_mut().for_each(|listener| listener(&notification));
    }

    /// Nobody listens any more.
    pub(crate) fn end(&self) {
        self.0.lock().expect("no panic").clear();
    }
}

/// A server for clients that need a real one, and its address. It ends with the test's process at the latest.
pub(crate) struct Served {
    handle: Option<Handle>,
    address: String,
}

pub(crate) fn serve(app: impl Fn() -> App + Send + Sync + 'static) -> Served {
    let config = Config::default()
        .addresses(vec![ListenAddress::Inet { host: "127.0.0.1".into(), port: 0 }])
        .cores(CoreSet::Count(1))
        .recv_buffers(64)
        .max_connections(100)
        .drain_timeout(Duration::from_secs(2))
        .drain_spread(Duration::ZERO);
    let handle = Server::new(config).start(app).expect("the server starts");
    let address = handle.addresses()[0].inet().expect("a TCP address").to_string();
    Served { handle: Some(handle), address }
}

impl Served {
    pub(crate) fn url(&self, path: &str) -> String {
        format!("ws://{}{path}", self.address)
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        if let Some(handle) = self.handle.take() {
            handle.shutdown();
            let ended = handle.join();
            assert!(std::thread::panicking() || ended.is_ok(), "{ended:?}");
        }
    }
}

/// An address where nobody listens.
pub(crate) fn nobody() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    format!("ws://{}/", listener.local_addr().expect("an address"))
}
