//! Connections of other machines, for whoever asks here, and those of this one, for whoever asks there.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::backplane::{Answering, Ask, Board, House, NodeInfo, Reply};
use crate::hub::{ConnectionId, ConnectionInfo, ConnectionPage, CoreHub, Order, Tally};
use crate::mail::MailError;
use crate::message::RawJson;
use crate::metrics::{NodeMetrics, NodesMetrics};
use crate::remote::Hub;
use crate::remote::answers::{Asking, Delivering, answered};

/// Connections, and ids, in one answer between machines, and about how many bytes of the former.
const PART_LEN: u64 = 1024;
const IDS_LEN: u64 = 16 << 10;
const PART_BYTES_MAX: usize = 512 << 10;

fn measured(node: &NodeInfo) -> NodeMetrics {
    NodeMetrics {
        name: node.name.clone(),
        connections: node.connections,
        rooms: node.rooms as u64,
        heard_ms: u64::try_from(node.heard_ago.as_millis()).unwrap_or(u64::MAX),
    }
}

impl Hub {
    /// The name of this machine among those that are joined (`RINGWIRE_NODE`, or a random one); `None` where none are.
    pub fn node_name(&self) -> Option<&str> {
        self.others().map(|others| &*others.name)
    }

    /// The other machines, as far as they have been heard of lately; empty where machines are not joined, and while NATS is
    /// away.
    pub fn nodes(&self) -> Vec<NodeInfo> {
        self.others().map(|others| others.nodes()).unwrap_or_default()
    }

    /// This machine, as the others know it.
    pub(crate) fn own_node(&self) -> Option<NodeInfo> {
        let others = self.others()?;
        Some(NodeInfo {
            name: others.name.clone(),
            number: others.number,
            connections: u64::from(self.websockets()),
            rooms: others.rooms.load(Ordering::Relaxed) as usize,
            started_unix_ms: others.started_unix_ms,
            heard_ago: Duration::ZERO,
        })
    }

    /// Whether this machine is joined with the others now: NATS is there, and has heard of it. True where machines are not
    /// joined.
    pub fn is_joined(&self) -> bool {
        self.others().is_none_or(|others| others.is_joined())
    }

    pub(super) fn nodes_metrics(&self, dropped_mailbox: u64) -> Option<NodesMetrics> {
        let others = self.others()?;
        let (nodes, counters) = (others.nodes(), &others.counters);
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Some(NodesMetrics {
            name: others.name.clone(),
            number: others.number,
            is_joined: others.is_joined(),
            others: nodes.len() as u64,
            connections: nodes.iter().map(|node| node.connections).sum(),
            rooms: nodes.iter().map(|node| node.rooms as u64).sum(),
            sent: of(&counters.sent),
            received: of(&counters.received),
            dropped_away: of(&counters.dropped_away),
            dropped_congested: of(&counters.dropped_congested),
            dropped_mailbox,
            dropped_slow: of(&counters.dropped_slow),
            malformed: of(&counters.malformed),
            twice: of(&counters.twice),
            unreachable: of(&counters.unreachable),
            reconnects: of(&counters.reconnects),
            round_trip_ns: of(&counters.round_trip_ns),
            each: {
                let mut each: Vec<NodeMetrics> = nodes.iter().map(measured).collect();
                each.sort_by(|one, other| one.name.cmp(&other.name));
                each
            },
            history_shared: others.is_shared(),
            history_sent: of(&counters.history_sent),
            history_received: of(&counters.history_received),
            history_apart: of(&counters.history_apart),
            history_refused: of(&counters.history_refused),
            history_gaps: of(&counters.history_gaps),
            history_asked: of(&counters.history_asked),
            history_unanswered: of(&counters.history_unanswered),
        })
    }

    /// Whether it is to be, and is not: the server is not ready then.
    pub(crate) fn lacks_others(&self) -> bool {
        self.others().is_some_and(|others| others.is_required && !others.is_joined())
    }

    /// Whether an id can be that of a connection here, or on another machine.
    pub(crate) fn may_have(&self, id: ConnectionId) -> bool {
        self.way_to(id).is_some()
    }

    /// The number of the core that has a connection, or of the bridge to the machine that has it.
    pub(super) fn way_to(&self, id: ConnectionId) -> Option<usize> {
        match id.node() == self.number() {
            true => Some(id.core()).filter(|core| *core < self.cores()),
            false => self.courier().bridge(),
        }
    }

    fn number(&self) -> u32 {
        self.others().map_or(0, |others| others.number)
    }

    /// The number of the bridge, if there are other machines.
    pub(super) fn bridge_if_wanted(&self) -> Option<usize> {
        self.others().filter(|others| others.others() > 0).and_then(|_| self.courier().bridge())
    }

    // ---- what others have -----------------------------------------------------------------------------------------

    async fn ask_node(&self, board: &Board, node: u32, ask: Ask) -> Result<Reply, MailError> {
        board.ask(node, ask).await.unwrap_or(Err(MailError::Ended))
    }

    /// All parts that another machine has, from the first that is wanted on; `take` says whether it wants another.
    async fn parts(
        &self,
        mut ask: impl FnMut(u64) -> Ask,
        mut take: impl FnMut(Vec<ConnectionInfo>, Vec<ConnectionId>, u64) -> bool,
    ) -> Result<(), MailError> {
        let Some(board) = self.others() else { return Ok(()) };
        for node in board.nodes() {
            let mut cursor = Some(0);
            while let Some(from) = cursor {
                let reply = self.ask_node(board, node.number, ask(from)).await?;
                let Reply::Page { connections, ids, passed, next } = reply else { return Err(MailError::Unreachable) };
                if !take(connections, ids, passed) {
                    return Ok(());
                }
                // One that did not move would be asked for ever.
                cursor = next.filter(|next| *next > from);
            }
        }
        Ok(())
    }

    pub(super) async fn connections_elsewhere(&self, room: Option<&str>) -> Result<Vec<ConnectionInfo>, MailError> {
        let mut all = Vec::new();
        let room = room.map(str::to_owned);
        let ask = |cursor| Ask::Page { room: room.clone(), cursor, skip: 0, limit: PART_LEN, ids_only: false };
        let take = |connections: Vec<ConnectionInfo>, _, _| {
            all.extend(connections);
            true
        };
        self.parts(ask, take).await?;
        Ok(all)
    }

    pub(super) async fn ids_elsewhere(&self, room: &str) -> Result<Vec<ConnectionId>, MailError> {
        let mut all = Vec::new();
        let ask = |cursor| Ask::Page { room: Some(room.to_owned()), cursor, skip: 0, limit: IDS_LEN, ids_only: true };
        let take = |_, ids: Vec<ConnectionId>, _| {
            all.extend(ids);
            true
        };
        self.parts(ask, take).await?;
        Ok(all)
    }

    /// A page over all machines, this one first.
    pub(super) async fn page_of_all(
        &self,
        room: Option<&str>,
        offset: usize,
        limit: usize,
        part: impl Fn(&CoreHub, u32, usize, usize, usize) -> ConnectionPage + Clone + Send + 'static,
    ) -> Result<Vec<ConnectionInfo>, MailError> {
        let (mut all, skip) = self.page(offset, limit, part).await?;
        let Some(skip) = skip.filter(|_| all.len() < limit) else { return Ok(all) };
        let Some(board) = self.others() else { return Ok(all) };
        let mut skip = skip as u64;
        for node in board.nodes() {
            let mut cursor = Some(0);
            while let Some(from) = cursor {
                let wanted = ((limit - all.len()) as u64).min(PART_LEN);
                let room = room.map(str::to_owned);
                let ask = Ask::Page { room, cursor: from, skip, limit: wanted, ids_only: false };
                let reply = self.ask_node(board, node.number, ask).await?;
                let Reply::Page { connections, passed, next, .. } = reply else { return Err(MailError::Unreachable) };
                skip = skip.saturating_sub(passed);
                all.extend(connections);
                if all.len() >= limit {
                    all.truncate(limit);
                    return Ok(all);
                }
                cursor = next.filter(|next| *next > from);
            }
        }
        Ok(all)
    }

    pub(super) async fn routes_elsewhere(&self) -> Result<Vec<(String, usize)>, MailError> {
        let Some(board) = self.others() else { return Ok(Vec::new()) };
        let mut all = Vec::new();
        for node in board.nodes() {
            let Reply::Routes(routes) = self.ask_node(board, node.number, Ask::Routes).await? else {
                return Err(MailError::Unreachable);
            };
            all.extend(routes.into_iter().map(|(path, count)| (path, count as usize)));
        }
        Ok(all)
    }

    // ---- what this machine has ------------------------------------------------------------------------------------

    /// What answers other machines.
    pub(crate) fn house(&self) -> House {
        let hub = self.clone();
        Box::new(move |ask| hub.answer(ask))
    }

    /// Whatever is asked of one connection is on its way to its core when this returns: what is asked in some order is done in
    /// it.
    fn answer(&self, ask: Ask) -> Answering {
        let (tally, delivered) = Tally::new();
        let delivery = |delivering: Delivering| -> Answering {
            Box::pin(async move { Reply::Delivery(delivering.await) })
        };
        match ask {
            Ask::Emit { id, frame, key } => {
                self.give_here(id, Order::EmitTo { id, frame, key, tally: Some(tally) });
                delivery(Delivering(delivered))
            }
            Ask::Close { id, code, reason } => {
                let (answer, asking) = oneshot::channel();
                self.give_here(id, Order::Close { id, code, reason, answer });
                reply(Asking(asking), Reply::Found)
            }
            Ask::Ping { id, payload } => {
                let (answer, asking) = oneshot::channel();
                self.give_here(id, Order::Ping { id, payload, answer });
                reply(Asking(asking), Reply::Delivery)
            }
            Ask::Data(id) => match self.is_here(id) {
                true => reply(self.raw_data(id), Reply::Data),
                false => Box::pin(async { Reply::Data(None::<RawJson>) }),
            },
            Ask::SetData { id, data } => {
                let (answer, asking) = oneshot::channel();
                self.give_here(id, Order::SetData { id, data, answer });
                reply(Asking(asking), Reply::Found)
            }
            Ask::Info(id) => {
                let (answer, asking) = oneshot::channel();
                self.give_here(id, Order::Info { id, answer });
                reply(Asking(asking), Reply::Info)
            }
            Ask::Join { id, room } => {
                let (answer, asking) = oneshot::channel();
                self.give_here(id, Order::Join { id, room: room.into(), answer });
                reply(Asking(asking), Reply::Joined)
            }
            Ask::Leave { id, room } => {
                let (answer, asking) = oneshot::channel();
                self.give_here(id, Order::Leave { id, room: room.into(), answer });
                reply(Asking(asking), Reply::Found)
            }
            Ask::CloseRoom { room, code, reason } => {
                delivery(self.close_room_on(0..self.cores(), &room, code, &reason))
            }
            Ask::Page { room, cursor, skip, limit, ids_only } => {
                let hub = self.clone();
                Box::pin(async move {
                    hub.part_here(room, cursor, skip, limit, ids_only).await.unwrap_or(Reply::Busy)
                })
            }
            Ask::Routes => {
                let hub = self.clone();
                Box::pin(async move {
                    let routes = hub.counts_by_route_here().await;
                    routes.map_or(Reply::Busy, |routes| {
                        Reply::Routes(routes.into_iter().map(|(path, count)| (path, count as u64)).collect())
                    })
                })
            }
        }
    }

    fn is_here(&self, id: ConnectionId) -> bool {
        id.node() == self.number() && id.core() < self.cores()
    }

    /// What another machine asks is never passed on to a third.
    fn give_here(&self, id: ConnectionId, order: Order) {
        match self.is_here(id) {
            true => self.give(id.core(), order.into()),
            false => order.answer_gone(),
        }
    }

    /// The first part from `cursor` on, which is a core and a slot of it.
    async fn part_here(
        &self,
        room: Option<String>,
        cursor: u64,
        skip: u64,
        limit: u64,
        ids_only: bool,
    ) -> Result<Reply, MailError> {
        let (mut core, mut slot) = ((cursor >> 32) as usize, cursor as u32);
        let (skip, limit) = (usize::try_from(skip).unwrap_or(usize::MAX), limit.min(IDS_LEN) as usize);
        while core < self.cores() {
            let room = room.clone();
            let at = |core: usize, slot: u32| (core as u64) << 32 | u64::from(slot);
            let question = self.question(core, move |hub| match (room, ids_only) {
                (Some(room), true) => {
                    let (ids, next) = hub.member_ids(&room, slot, limit);
                    (ConnectionPage { next, ..ConnectionPage::default() }, ids)
                }
                (Some(room), false) => (hub.members_page(&room, slot, skip, limit, PART_BYTES_MAX), Vec::new()),
                (None, _) => (hub.connections_page(slot, skip, limit, PART_BYTES_MAX), Vec::new()),
            });
            if let Some((page, ids)) = answered(question).await? {
                let (passed, next) = (page.passed as u64, page.next.map(|slot| at(core, slot)));
                if next.is_some() || passed > 0 || !page.connections.is_empty() || !ids.is_empty() {
                    let next = next.or_else(|| (core + 1 < self.cores()).then(|| at(core + 1, 0)));
                    return Ok(Reply::Page { connections: page.connections, ids, passed, next });
                }
            }
            (core, slot) = (core + 1, 0);
        }
        Ok(Reply::Page { connections: Vec::new(), ids: Vec::new(), passed: 0, next: None })
    }
}

fn reply<A: Send + 'static>(asking: Asking<A>, reply: fn(A) -> Reply) -> Answering {
    // A core that has ended has no connections, and neither it nor a full mailbox can say more than that it cannot be asked.
    Box::pin(async move { asking.await.map_or(Reply::Busy, reply) })
}
