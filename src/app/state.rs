//! State in the hands of handlers: what all cores share, and what is a core's own.

use std::rc::Rc;
use std::sync::Arc;

use crate::app::connection::Connection;
use crate::app::socket::Socket;
use crate::app::values::CoreValues;
use crate::remote::Hub;
use crate::runtime::Runtime;

/// Which core an app is made for: what [`Server::run_with`](crate::Server::run_with) hands out.
///
/// ```no_run
/// use ringwire::{App, Core, Server, ws};
///
/// fn app(core: &Core, motto: &&str) -> App {
///     println!("core {} of {}: {motto}", core.number(), core.count());
///     App::new().ws("/", ws())
/// }
///
/// fn main() -> ringwire::Result<()> {
///     Server::from_env()?.run_with("less is more", |core, motto| app(core, motto))
/// }
/// ```
#[derive(Clone)]
pub struct Core {
    number: usize,
    hub: Hub,
}

impl Core {
    pub(crate) fn new(number: usize, hub: Hub) -> Core {
        Core { number, hub }
    }

    /// Its number, from 0.
    ///
    /// ```
    /// use ringwire::testing::TestServer;
    /// use ringwire::{App, Core, ws};
    ///
    /// // Once for the server, and not on each of its cores.
    /// let goodbye = async |core: Core| {
    ///     if core.number() == 0 {
    ///         let _ = core.hub().emit_to_all("goodbye", &());
    ///     }
    /// };
    /// let server = TestServer::builder().cores(2).start(move || App::new().ws("/", ws()).on_shutdown(goodbye));
    /// let client = server.connect("/");
    /// server.shutdown();
    /// client.expect_event("goodbye");
    /// client.expect_close(1001);
    /// ```
    pub fn number(&self) -> usize {
        self.number
    }

    /// How many cores the server has.
    ///
    /// ```no_run
    /// use ringwire::{App, Server};
    ///
    /// fn main() -> ringwire::Result<()> {
    ///     Server::from_env()?.run_with((), |core, _| {
    ///         // An equal part of a thousand for each core.
    ///         let tickets = std::cell::Cell::new(1000 / core.count());
    ///         App::new().with_core_state(tickets)
    ///     })
    /// }
    /// ```
    pub fn count(&self) -> usize {
        self.hub.cores()
    }

    /// The way to all connections of the server.
    ///
    /// ```no_run
    /// use ringwire::{App, Server};
    /// use std::time::Duration;
    ///
    /// fn main() -> ringwire::Result<()> {
    ///     Server::from_env()?.run_with((), |core, _| {
    ///         let hub = core.hub().clone();
    ///         if core.number() == 0 {
    ///             std::thread::spawn(move || loop {
    ///                 std::thread::sleep(Duration::from_secs(60));
    ///                 let _ = hub.emit_to_all("count", &hub.websockets());
    ///             });
    ///         }
    ///         App::new()
    ///     })
    /// }
    /// ```
    pub fn hub(&self) -> &Hub {
        &self.hub
    }
}

impl<'a> Socket<'a> {
    /// The state of this type that all cores share, from [`Server::run_with`](crate::Server::run_with) or
    /// [`App::with_state`](crate::App::with_state).
    ///
    /// ```
    /// use ringwire::testing::TestServer;
    /// use ringwire::{App, ws};
    /// use std::sync::Arc;
    ///
    /// struct Motto(&'static str);
    ///
    /// let route = || ws().on_connect(|socket| socket.state::<Motto>().0);
    /// let server = TestServer::new(move || App::new().with_state(Arc::new(Motto("less is more"))).ws("/", route()));
    /// server.connect("/").expect_text("less is more");
    /// ```
    ///
    /// # Panics
    /// If the app has none of the type.
    #[track_caller]
    pub fn state<T: Send + Sync + 'static>(&self) -> &'a T {
        self.core.shared.get::<T>()
    }

    /// This core's own state of this type, from [`App::with_core_state`](crate::App::with_core_state).
    ///
    /// ```
    /// use ringwire::testing::TestServer;
    /// use ringwire::{App, ws};
    /// use std::cell::Cell;
    ///
    /// let number = || {
    ///     ws().on_connect(|socket| {
    ///         let last: &Cell<u32> = socket.core_state();
    ///         last.set(last.get() + 1);
    ///         format!("you are the {}th of this core", last.get())
    ///     })
    /// };
    /// let server = TestServer::new(move || App::new().with_core_state(Cell::new(6_u32)).ws("/", number()));
    /// server.connect("/").expect_text("you are the 7th of this core");
    /// ```
    ///
    /// # Panics
    /// If the app has none of the type.
    #[track_caller]
    pub fn core_state<T: 'static>(&self) -> &'a T {
        self.core.values.get::<T>()
    }
}

impl Connection {
    /// The state of this type that all cores share: see [`Socket::state`].
    ///
    /// ```
    /// use ringwire::testing::TestServer;
    /// use ringwire::{App, Connection, ws};
    /// use std::sync::Arc;
    ///
    /// struct Motto(&'static str);
    ///
    /// let task = async |connection: Connection| connection.state::<Motto>().0;
    /// let app = move || App::new().with_state(Arc::new(Motto("less is more"))).ws("/", ws().task(task));
    /// TestServer::new(app).connect("/").expect_text("less is more");
    /// ```
    ///
    /// # Panics
    /// If the app has none of the type.
    #[track_caller]
    pub fn state<T: Send + Sync + 'static>(&self) -> Arc<T> {
        Arc::clone(self.core().shared.get::<T>())
    }

    /// This core's own state of this type: see [`Socket::core_state`].
    ///
    /// ```
    /// use ringwire::testing::TestServer;
    /// use ringwire::{App, Connection, ws};
    /// use std::cell::RefCell;
    ///
    /// let remember = async |mut connection: Connection| {
    ///     let said = connection.core_state::<RefCell<Vec<String>>>();
    ///     while let Some(message) = connection.recv().await {
    ///         said.borrow_mut().extend(message.as_text().map(str::to_owned));
    ///         let _ = connection.send(said.borrow().join(", "));
    ///     }
    /// };
    /// let app = move || App::new().with_core_state(RefCell::new(Vec::<String>::new())).ws("/", ws().task(remember));
    /// let server = TestServer::new(app);
    /// let (ann, ben) = (server.connect("/"), server.connect("/"));
    /// ann.send("tea");
    /// ben.send("milk");
    /// ben.expect_text("tea, milk");
    /// ```
    ///
    /// # Panics
    /// If the app has none of the type.
    #[track_caller]
    pub fn core_state<T: 'static>(&self) -> Rc<T> {
        Rc::clone(self.core().values.get::<T>())
    }
}

impl crate::app::request::Request {
    /// The state of this type that all cores share: see [`Socket::state`].
    ///
    /// ```
    /// use ringwire::testing::TestServer;
    /// use ringwire::{App, Request};
    /// use std::sync::Arc;
    ///
    /// struct Motto(&'static str);
    ///
    /// let motto = async |request: Request| request.state::<Motto>().0;
    /// let server = TestServer::new(move || App::new().with_state(Arc::new(Motto("less is more"))).get("/", motto));
    /// assert_eq!(server.get("/").send().text(), "less is more");
    /// ```
    ///
    /// # Panics
    /// If the app has none of the type.
    #[track_caller]
    pub fn state<T: Send + Sync + 'static>(&self) -> &T {
        self.shared.get::<T>()
    }

    /// This core's own state of this type: see [`Socket::core_state`].
    ///
    /// ```
    /// use ringwire::testing::TestServer;
    /// use ringwire::{App, Request};
    /// use std::cell::Cell;
    ///
    /// let count = async |request: Request| {
    ///     let asked = request.core_state::<Cell<u32>>();
    ///     asked.set(asked.get() + 1);
    ///     asked.get().to_string()
    /// };
    /// let server = TestServer::new(move || App::new().with_core_state(Cell::new(0_u32)).get("/", count));
    /// server.get("/").send();
    /// assert_eq!(server.get("/").send().text(), "2");
    /// ```
    ///
    /// # Panics
    /// If the app has none of the type, or outside a core: it works in handlers, hooks and tasks.
    #[track_caller]
    pub fn core_state<T: 'static>(&self) -> Rc<T> {
        let values = Runtime::current().local::<CoreValues>().expect("the core has an app");
        Rc::clone(values.get::<T>())
    }
}
