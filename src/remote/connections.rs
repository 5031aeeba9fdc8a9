//! What is asked and told of connections from any thread: their data and descriptions, how many there are, their ends.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde_json::Value;

use crate::hub::{ConnectionId, ConnectionInfo, ConnectionPage, CoreHub, DataAnswer, Delivery, Letter, Order};
use crate::mail::MailError;
use crate::message::RawJson;
use crate::metrics::{CoreMetrics, Metrics};
use crate::proto::close::{self, IllegalCloseCode, PingTooLong};
use crate::remote::Hub;
use crate::remote::answers::{Asking, answered};

/// Bytes of connections in one page, unless it is one connection's.
const PAGE_BYTES_MAX: usize = 4 << 20;
impl Hub {
    /// Closes a connection with this code and reason. The answer is false if it had gone; one that is
    /// closing already goes by what it was closed with first.
    ///
    /// ```
    /// use ringwire::testing::TestServer;
    /// use ringwire::{App, ConnectionId, ws};
    ///
    /// let server = TestServer::new(|| App::new().ws("/", ws().on_connect(|socket| socket.id().to_string())));
    /// let client = server.connect("/");
    /// let id: ConnectionId = client.next_text().parse().unwrap();
    /// assert!(server.hub().disconnect(id, 1005, "not a code that is sent").is_err());
    /// assert_eq!(server.block_on(server.hub().disconnect(id, 1008, "no gossip").unwrap()), Some(true));
    /// assert_eq!(client.expect_close(1008), "no gossip");
    /// ```
    ///
    /// # Errors
    /// If the code is not one that may be sent: 1000-1003, 1007-1014 and 3000-4999 may. Nothing happens then.
    pub fn disconnect(
        &self,
        id: ConnectionId,
        code: u16,
        reason: impl Into<String>,
    ) -> Result<Asking<bool>, IllegalCloseCode> {
        let code = close::legal(code)?;
        let reason = reason.into();
        let (answer, asking) = oneshot::channel();
        self.give_to(id, Order::Close { id, code: Some(code), reason, answer });
        Ok(Asking(asking))
    }

    /// As [`Hub::disconnect`], with a Close frame that has neither a code nor a reason (RFC 6455 5.5.1).
    ///
    /// ```
    /// use ringwire::testing::TestServer;
    /// use ringwire::{App, ConnectionId, ws};
    ///
    /// let server = TestServer::new(|| App::new().ws("/", ws().on_connect(|socket| socket.id().to_string())));
    /// let client = server.connect("/");
    /// let id: ConnectionId = client.next_text().parse().unwrap();
    /// assert_eq!(server.block_on(server.hub().disconnect_without_code(id)), Some(true));
    /// client.expect_close(1005);
    /// ```
    pub fn disconnect_without_code(&self, id: ConnectionId) -> Asking<bool> {
        let (answer, asking) = oneshot::channel();
        self.give_to(id, Order::Close { id, code: None, reason: String::new(), answer });
        Asking(asking)
    }

    /// Sends a ping with this payload to a connection; the answer says `dropped` where its outbox has no room.
    ///
    /// ```
    /// use ringwire::testing::TestServer;
    /// use ringwire::{App, ConnectionId, ws};
    ///
    /// let server = TestServer::new(|| App::new().ws("/", ws().on_connect(|socket| socket.id().to_string())));
    /// let client = server.connect("/");
    /// let id: ConnectionId = client.next_text().parse().unwrap();
    /// let told = server.block_on(server.hub().ping(id, "there?").unwrap());
    /// assert_eq!(told.map(|told| told.queued), Some(1));
    /// assert_eq!(client.expect_ping(), "there?");
    /// ```
    ///
    /// # Errors
    /// If the payload has more than 125 bytes (RFC 6455 5.5).
    pub fn ping(&self, id: ConnectionId, payload: impl AsRef<[u8]>) -> Result<Asking<Delivery>, PingTooLong> {
        let payload = Bytes::copy_from_slice(close::ping(payload.as_ref())?);
        let (answer, asking) = oneshot::channel();
        self.give_to(id, Order::Ping { id, payload, answer });
        Ok(Asking(asking))
    }

    /// A connection's JSON data; `None` inside if it has gone.
    ///
    /// ```
    /// use ringwire::testing::TestServer;
    /// use ringwire::{App, ConnectionId, ws};
    ///
    /// let server = TestServer::new(|| App::new().ws("/", ws().on_connect(|socket| socket.id().to_string())));
    /// let client = server.connect("/");
    /// let id: ConnectionId = client.next_text().parse().unwrap();
    /// let hub = server.hub();
    /// server.block_on(hub.set_data(id, serde_json::json!({"name": "ann"})));
    /// assert_eq!(server.block_on(hub.data(id)).flatten().unwrap()["name"], "ann");
    /// ```
    pub fn data(&self, id: ConnectionId) -> Asking<Option<Value>> {
        let (answer, asking) = oneshot::channel();
        self.give_to(id, Order::Data { id, answer: DataAnswer::Value(answer) });
        Asking(asking)
    }

    /// A connection's JSON data as it was written, with all digits of its numbers; `None` inside if it has gone.
    ///
    /// ```
    /// use ringwire::testing::TestServer;
    /// use ringwire::{App, ConnectionId, ws};
    ///
    /// let server = TestServer::new(|| App::new().ws("/", ws().on_connect(|socket| socket.id().to_string())));
    /// let client = server.connect("/");
    /// let id: ConnectionId = client.next_text().parse().unwrap();
    /// let hub = server.hub();
    /// server.block_on(hub.set_data(id, ringwire::RawJson::parse("0.10000000000000000001").unwrap()));
    /// let data = server.block_on(hub.raw_data(id)).flatten().unwrap();
    /// assert_eq!(data.as_str(), "0.10000000000000000001");
    /// ```
    pub fn raw_data(&self, id: ConnectionId) -> Asking<Option<RawJson>> {
        let (answer, asking) = oneshot::channel();
        self.give_to(id, Order::Data { id, answer: DataAnswer::Raw(answer) });
        Asking(asking)
    }

    /// Sets a connection's JSON data: a [`Value`], or a [`RawJson`], which stays as it is written. The answer is false if
    /// the connection had gone.
    ///
    /// ```
    /// use ringwire::testing::TestServer;
    /// use ringwire::{App, ConnectionId, ws};
    ///
    /// let server = TestServer::new(|| App::new().ws("/", ws().on_connect(|socket| socket.id().to_string())));
    /// let client = server.connect("/");
    /// let id: ConnectionId = client.next_text().parse().unwrap();
    /// assert_eq!(server.block_on(server.hub().set_data(id, serde_json::json!({"level": 7}))), Some(true));
    /// client.reset();
    /// assert_eq!(server.block_on(server.hub().set_data(id, serde_json::json!(null))), Some(false));
    /// ```
    pub fn set_data(&self, id: ConnectionId, data: impl Into<RawJson>) -> Asking<bool> {
        let (answer, asking) = oneshot::channel();
        self.give_to(id, Order::SetData { id, data: data.into(), answer });
        Asking(asking)
    }

    /// What is known of one connection; `None` inside if it has gone.
    ///
    /// ```
    /// use ringwire::testing::TestServer;
    /// use ringwire::{App, ConnectionId, ws};
    ///
    /// let server = TestServer::new(|| App::new().ws("/", ws().on_connect(|socket| socket.id().to_string())));
    /// let client = server.connect("/");
    /// let id: ConnectionId = client.next_text().parse().unwrap();
    /// let info = server.block_on(server.hub().connection(id)).flatten().unwrap();
    /// assert_eq!((&*info.route, info.core), ("/", 0));
    /// client.reset();
    /// assert_eq!(server.block_on(server.hub().connection(id)), Some(None));
    /// ```
    pub fn connection(&self, id: ConnectionId) -> Asking<Option<ConnectionInfo>> {
        let (answer, asking) = oneshot::channel();
        self.give_to(id, Order::Info { id, answer });
        Asking(asking)
    }

    /// All connections, core by core, which are asked for a part at a time: whoever is there all the while is in it, once.
    /// Their data is shared with the hub, and not copied.
    ///
    /// ```
    /// use ringwire::testing::TestServer;
    /// use ringwire::{App, ws};
    ///
    /// let server = TestServer::builder().cores(2).start(|| App::new().ws("/news", ws()).ws("/chat", ws()));
    /// let (reader, chatter) = (server.connect("/news"), server.connect("/chat"));
    /// let connections = server.block_on(server.hub().connections()).unwrap();
    /// let mut routes: Vec<&str> = connections.iter().map(|connection| &*connection.route).collect();
    /// routes.sort();
    /// assert_eq!(routes, ["/chat", "/news"]);
    /// # drop((reader, chatter));
    /// ```
    ///
    /// # Errors
    /// If a core's mailbox is full: nothing is known of its connections.
    pub async fn connections(&self) -> Result<Vec<ConnectionInfo>, MailError> {
        const PART_LEN: usize = 1024;
        let mut all = Vec::new();
        for core in 0..self.cores() {
            let mut from = Some(0);
            while let Some(slot) = from {
                let question = self.question(core, move |hub| hub.connections_page(slot, 0, PART_LEN, usize::MAX));
                let Some(page) = answered(question).await? else { break };
                all.extend(page.connections);
                from = page.next;
            }
        }
        all.extend(self.connections_elsewhere(None).await?);
        Ok(all)
    }

    /// A part of all connections, core by core: at most `limit` of them after the first `offset`, and no more than 4 MiB,
    /// where each counts 256 bytes and its data, but at least one if there is one. The next part begins as many further on
    /// as there are in this one.
    ///
    /// ```
    /// use ringwire::testing::TestServer;
    /// use ringwire::{App, ws};
    ///
    /// let server = TestServer::builder().cores(2).start(|| App::new().ws("/", ws()));
    /// let _clients: Vec<_> = (0..25).map(|_| server.connect("/")).collect();
    /// let (mut seen, mut pages) = (0, 0);
    /// loop {
    ///     let page = server.block_on(server.hub().connections_page(seen, 10)).unwrap();
    ///     if page.is_empty() {
    ///         break;
    ///     }
    ///     seen += page.len();
    ///     pages += 1;
    /// }
    /// assert_eq!((seen, pages), (25, 3));
    /// ```
    ///
    /// # Errors
    /// If a core's mailbox is full.
    pub async fn connections_page(&self, offset: usize, limit: usize) -> Result<Vec<ConnectionInfo>, MailError> {
        let part = CoreHub::connections_page;
        self.page_of_all(None, offset, limit, part).await
    }

    /// A page of what `part` tells of, on this machine: from this slot, after so many, at most so many, and no more than so many
    /// bytes. And how many there are still to be passed over, if that was all.
    pub(super) async fn page(
        &self,
        offset: usize,
        limit: usize,
        part: impl Fn(&CoreHub, u32, usize, usize, usize) -> ConnectionPage + Clone + Send + 'static,
    ) -> Result<(Vec<ConnectionInfo>, Option<usize>), MailError> {
        let (mut skip, mut bytes_left) = (offset, PAGE_BYTES_MAX);
        let mut all: Vec<ConnectionInfo> = Vec::new();
        for core in 0..self.cores() {
            let (part, wanted) = (part.clone(), limit - all.len());
            let question = self.question(core, move |hub| part(hub, 0, skip, wanted, bytes_left));
            let Some(mut page) = answered(question).await? else { continue };
            // A core gives one however many bytes it has, and this may be in the place of one that is not the first.
            if !all.is_empty() && page.bytes > bytes_left {
                return Ok((all, None));
            }
            skip -= page.passed;
            bytes_left = bytes_left.saturating_sub(page.bytes);
            all.append(&mut page.connections);
            if page.next.is_some() {
                return Ok((all, None));
            }
        }
        Ok((all, Some(skip)))
    }

    /// The ids of all connections.
    ///
    /// ```
    /// use ringwire::testing::TestServer;
    /// use ringwire::{App, ConnectionId, ws};
    ///
    /// let server = TestServer::new(|| App::new().ws("/", ws().on_connect(|socket| socket.id().to_string())));
    /// let client = server.connect("/");
    /// let id: ConnectionId = client.next_text().parse().unwrap();
    /// assert_eq!(server.block_on(server.hub().ids()).unwrap(), [id]);
    /// ```
    ///
    /// # Errors
    /// If a core's mailbox is full.
    pub async fn ids(&self) -> Result<Vec<ConnectionId>, MailError> {
        Ok(self.connections().await?.into_iter().map(|connection| connection.id).collect())
    }

    /// How many connections there are; of other machines, as many as they have told of last.
    ///
    /// ```
    /// use ringwire::testing::TestServer;
    /// use ringwire::{App, ws};
    ///
    /// let server = TestServer::builder().cores(2).start(|| App::new().ws("/news", ws()).ws("/chat", ws()));
    /// let (reader, chatter) = (server.connect("/news"), server.connect("/chat"));
    /// assert_eq!(server.block_on(server.hub().count()).unwrap(), 2);
    /// drop(reader);
    /// assert_eq!(server.block_on(server.hub().count()).unwrap(), 1);
    /// # drop(chatter);
    /// ```
    ///
    /// # Errors
    /// If a core's mailbox is full.
    pub async fn count(&self) -> Result<usize, MailError> {
        let here: usize = self.gather(|hub| hub.count()).await?.into_iter().sum();
        Ok(here + self.others().map_or(0, |others| others.connections() as usize))
    }

    /// How many connections there are on each route that has any, by the routes' paths. Those that an HTTP handler has
    /// upgraded count by the handler's path.
    ///
    /// ```
    /// use ringwire::testing::TestServer;
    /// use ringwire::{App, ws};
    ///
    /// let server = TestServer::builder().cores(2).start(|| App::new().ws("/news", ws()).ws("/chat", ws()));
    /// let (reader, chatter) = (server.connect("/news"), server.connect("/chat"));
    /// let counts = server.block_on(server.hub().counts_by_route()).unwrap();
    /// assert_eq!((counts["/chat"], counts["/news"]), (1, 1));
    /// # drop((reader, chatter));
    /// ```
    ///
    /// # Errors
    /// If a core's mailbox is full.
    pub async fn counts_by_route(&self) -> Result<BTreeMap<String, usize>, MailError> {
        let mut counts = self.counts_by_route_here().await?;
        for (path, count) in self.routes_elsewhere().await? {
            *counts.entry(path).or_default() += count;
        }
        Ok(counts)
    }

    pub(super) async fn counts_by_route_here(&self) -> Result<BTreeMap<String, usize>, MailError> {
        let mut counts = BTreeMap::new();
        for (path, count) in self.gather(|hub| hub.counts_by_path()).await?.into_iter().flatten() {
            *counts.entry(path.to_string()).or_default() += count;
        }
        Ok(counts)
    }

    /// How many connections there are on a route, by its path as it was given to `App::ws`.
    ///
    /// ```
    /// use ringwire::testing::TestServer;
    /// use ringwire::{App, ws};
    ///
    /// let server = TestServer::builder().cores(2).start(|| App::new().ws("/news", ws()).ws("/chat", ws()));
    /// let (reader, chatter) = (server.connect("/news"), server.connect("/chat"));
    /// assert_eq!(server.block_on(server.hub().count_on_route("/news")).unwrap(), 1);
    /// assert_eq!(server.block_on(server.hub().count_on_route("/attic")).unwrap(), 0);
    /// # drop((reader, chatter));
    /// ```
    ///
    /// # Errors
    /// If a core's mailbox is full.
    pub async fn count_on_route(&self, path: &str) -> Result<usize, MailError> {
        Ok(self.counts_by_route().await?.remove(path).unwrap_or(0))
    }

    /// What every core tells of itself, for metrics; a core that has ended is left out. Works however full the mailboxes
    /// are.
    ///
    /// ```
    /// use ringwire::testing::TestServer;
    /// use ringwire::{App, ws};
    ///
    /// let server = TestServer::builder().cores(2).start(|| App::new().ws("/", ws()));
    /// let _client = server.connect("/");
    /// let metrics = server.block_on(server.hub().metrics());
    /// assert_eq!(metrics.cores.iter().map(|core| core.counters.opened).sum::<u64>(), 1);
    /// assert!(metrics.to_prometheus().contains("ringwire_messages_received_total"));
    /// ```
    pub async fn metrics(&self) -> Metrics {
        let ask = |core| {
            let (letter, answer) = Letter::ask(|hub| hub.metrics());
            // Where the core has ended, there is no answer.
            let _ = self.courier().send_urgent(core, letter);
            Asking(answer)
        };
        let questions: Vec<Asking<CoreMetrics>> = (0..self.cores()).map(ask).collect();
        let mut cores = Vec::with_capacity(questions.len());
        for question in questions {
            cores.extend(question.await);
        }
        let refused = cores.iter().map(|core| core.counters.abroad_refused).sum();
        Metrics {
            nodes: self.nodes_metrics(refused),
            cores,
            cores_all: self.cores(),
            draining: self.is_draining(),
            memory_bytes_max: self.memory_bytes_max(),
            memory_over: self.is_out_of_memory(),
            certificates: self.certificates(),
        }
    }

    /// Asks one core; the answer is `None` if there is no such core, it has ended, or its mailbox is full.
    pub(crate) fn ask<A: Send + 'static>(
        &self,
        core: usize,
        ask: impl FnOnce(&mut CoreHub) -> A + Send + 'static,
    ) -> Asking<A> {
        Asking(self.question(core, ask))
    }

    pub(super) fn question<A: Send + 'static>(
        &self,
        core: usize,
        ask: impl FnOnce(&mut CoreHub) -> A + Send + 'static,
    ) -> oneshot::Receiver<Result<A, MailError>> {
        let (letter, answer) = Letter::ask(ask);
        self.give(core, letter);
        answer
    }

    /// Asks every core and waits for all of them; a core that has ended is left out.
    pub(super) async fn gather<A: Send + 'static>(
        &self,
        ask: impl Fn(&mut CoreHub) -> A + Clone + Send + 'static,
    ) -> Result<Vec<A>, MailError> {
        let questions: Vec<_> = (0..self.cores()).map(|core| self.question(core, ask.clone())).collect();
        let mut answers = Vec::with_capacity(questions.len());
        for question in questions {
            answers.extend(answered(question).await?);
        }
        Ok(answers)
    }
}
