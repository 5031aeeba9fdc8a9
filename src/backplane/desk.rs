//! Where letters of cores become what a node does, and what it has to do becomes letters to cores; what is left is the bus's.
//! Knows no bus and reads no clock.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use crossbeam_channel::Receiver;

use super::asking::{Ask, Reply};
use super::board::{Board, Question};
use super::line::{Arrived, Line, LineSettings, Out, Word};
use super::node::{Cores, Manner, Node, Output, ReplyTo, frame_of_outside};
use super::subject::Subjects;
use crate::hub::{
    Answer, ConnectionId, ConnectionInfo, DataAnswer, Delivery, JoinError, Letter, Mode, Order, Publication, Scope, Tally, owners,
};
use crate::mail::{Courier, MailError, Mailbox};

/// Letters that wait for room in one core's mailbox: what comes for it beyond that is dropped, and counted.
const HELD_MAX: usize = 16_384;
/// How often what threads know of the others is told anew.
const NODES_NS: u64 = 500_000_000;
/// Letters of cores, and messages of the bus, that are handled between two looks at the other.
const BATCH: usize = 1024;

/// What the bus, or whoever answers for this machine, is to do.
#[derive(Debug)]
pub(super) enum Todo {
    Subscribe(String),
    Unsubscribe(String),
    /// Listen to this as one of all nodes: each message goes to one of them.
    Share(String),
    Publish(Outgoing),
    /// Have this answered, by [`Desk::answered`].
    Ask(ReplyTo, Ask),
    Joined,
    Refused,
}

/// A message for the bus.
#[derive(Debug)]
pub(super) struct Outgoing {
    pub(super) subject: String,
    pub(super) reply: Option<String>,
    pub(super) payload: Bytes,
    /// To be named, by [`Desk::not_sent`], if it is dropped.
    pub(super) number: Option<u64>,
}

/// A message of the bus.
#[derive(Debug, Default)]
pub(super) struct Incoming {
    pub(super) arrived: Arrived,
    pub(super) manner: Manner,
    /// It has gone to one node, and not to all.
    pub(super) is_shared: bool,
}

/// Who waits for what another machine answers.
enum Waiter {
    Nobody,
    Tally(Arc<Tally>),
    Found(Answer<bool>),
    Delivery(Answer<Delivery>),
    Data(DataAnswer),
    Info(Answer<Option<ConnectionInfo>>),
    Joined(Answer<Result<usize, JoinError>>),
    Reply(oneshot::Sender<Result<Reply, MailError>>),
}

impl Waiter {
    /// `None`: the machine did not answer. What makes no sense as an answer is none.
    fn tell(self, reply: Option<Reply>) {
        let reply = match reply {
            Some(Reply::Busy) => Err(MailError::Full),
            Some(reply) => Ok(reply),
            None => Err(MailError::Unreachable),
        };
        fn told<A>(answer: Answer<A>, reply: Result<Reply, MailError>, of: impl FnOnce(Reply) -> Option<A>) {
            // Nobody may be waiting any more.
            let _ = answer.send(reply.and_then(|reply| of(reply).ok_or(MailError::Unreachable)));
        }
        match self {
            Waiter::Nobody => {}
            Waiter::Tally(tally) => tally.add(match reply {
                Ok(Reply::Delivery(delivery)) => delivery,
                Err(MailError::Full) => Delivery { refused: 1, ..Delivery::default() },
                _ => Delivery { unreachable: 1, ..Delivery::default() },
            }),
            Waiter::Found(answer) => told(answer, reply, |reply| match reply {
                Reply::Found(found) => Some(found),
                _ => None,
            }),
            Waiter::Delivery(answer) => told(answer, reply, |reply| match reply {
                Reply::Delivery(delivery) => Some(delivery),
                _ => None,
            }),
            Waiter::Data(answer) => answer.send(reply.and_then(|reply| match reply {
                Reply::Data(data) => Ok(data),
                _ => Err(MailError::Unreachable),
            })),
            Waiter::Info(answer) => told(answer, reply, |reply| match reply {
                Reply::Info(info) => Some(info),
                _ => None,
            }),
            Waiter::Joined(answer) => told(answer, reply, |reply| match reply {
                Reply::Joined(joined) => Some(joined),
                _ => None,
            }),
            Waiter::Reply(answer) => drop(answer.send(reply)),
        }
    }
}

/// See the module.
pub(super) struct Desk {
    pub(super) node: Node,
    line: Line,
    subjects: Subjects,
    /// Rooms of which a numbered message was dropped: the next one says so.
    cut: HashSet<Arc<str>>,
    next_nodes_ns: u64,
    mailbox: Mailbox<Letter>,
    courier: Courier<Letter>,
    board: Arc<Board>,
    questions: Receiver<Question>,
    waiters: HashMap<u64, Waiter>,
    tokens: u64,
    /// Letters that wait, by core.
    held: Vec<VecDeque<Letter>>,
    todo: VecDeque<Todo>,
    /// Cores that run.
    running: usize,
}

impl Desk {
    pub(super) fn new(
        node: Node,
        line: LineSettings,
        mailbox: Mailbox<Letter>,
        courier: Courier<Letter>,
        board: Arc<Board>,
        questions: Receiver<Question>,
    ) -> Desk {
        let running = courier.cores();
        let held = (0..running).map(|_| VecDeque::new()).collect();
        let subjects = Subjects::new(&line.prefix);
        let line = Line::new(line, board.histories.get().cloned().unwrap_or_default());
        Desk {
            node,
            line,
            subjects,
            cut: HashSet::new(),
            next_nodes_ns: 0,
            mailbox,
            courier,
            board,
            questions,
            waiters: HashMap::new(),
            tokens: 0,
            held,
            todo: VecDeque::new(),
            running,
        }
    }

    /// Whether all cores have ended.
    pub(super) fn is_over(&self) -> bool {
        self.running == 0
    }

    /// Whether letters wait for room in a core's mailbox, and are to be tried again soon.
    pub(super) fn is_held(&self) -> bool {
        self.held.iter().any(|held| !held.is_empty())
    }

    /// When there is something to do at the latest.
    pub(super) fn due_ns(&self) -> u64 {
        self.node.due_ns().min(self.line.due_ns())
    }

    /// The bus is there; it takes messages of so many bytes.
    pub(super) fn connected(&mut self, payload_bytes_max: usize, now_ns: u64) {
        self.node.connected(payload_bytes_max, now_ns);
        // What the line asks is answered where the node listens.
        self.pass_on();
        self.line.connected(payload_bytes_max, now_ns);
    }

    /// The bus is not there.
    pub(super) fn disconnected(&mut self, now_ns: u64) {
        self.node.disconnected(now_ns);
        self.line.disconnected();
    }

    /// Messages of the bus have been lost on their way here.
    pub(super) fn doubt(&mut self, now_ns: u64) {
        self.line.doubt(now_ns);
    }

    /// A message has been dropped, for there is too much to be sent.
    pub(super) fn not_sent(&mut self, number: u64) {
        self.line.not_sent(number);
    }

    /// A message of the bus has come.
    pub(super) fn received(&mut self, incoming: Incoming, now_ns: u64) {
        let Incoming { arrived, manner, is_shared } = incoming;
        if let Some(room) = self.subjects.outside_room(&arrived.subject).filter(|room| is_shared || self.line.has(room)) {
            // All nodes have got it, and one of them puts it into the line.
            if is_shared && self.line.has(&room) {
                let frame = frame_of_outside(&arrived.payload, manner);
                self.line.number(room.into(), frame.into(), now_ns);
            }
            return;
        }
        if !self.line.received(&arrived, now_ns) {
            let Arrived { subject, payload, reply, .. } = arrived;
            self.node.received(&subject, payload, reply, manner, now_ns);
        }
    }

    /// Says that its thread is about to sleep; false if there is something to do.
    pub(super) fn park(&mut self) -> bool {
        self.questions.is_empty() && self.mailbox.park()
    }

    pub(super) fn unpark(&mut self) {
        self.mailbox.unpark();
    }

    /// Handles what has come from the cores and from threads, up to a bound, and what came of it.
    pub(super) fn work(&mut self, now_ns: u64) {
        self.give_held();
        for _ in 0..BATCH {
            let Some(letter) = self.mailbox.next_urgent() else { break };
            self.read(letter, now_ns);
        }
        for _ in 0..BATCH {
            // One that has come meanwhile is told of what is sent after it.
            while let Some(letter) = self.mailbox.next_urgent() {
                self.read(letter, now_ns);
            }
            let Some(letter) = self.mailbox.next() else { break };
            self.read(letter, now_ns);
        }
        for _ in 0..BATCH {
            let Ok(Question { node, ask, answer }) = self.questions.try_recv() else { break };
            self.ask(node, &ask, Waiter::Reply(answer), now_ns);
        }
        if self.node.due_ns() <= now_ns {
            self.node.tick(now_ns);
        }
        if self.line.due_ns() <= now_ns {
            self.line.tick(now_ns);
        }
        self.node.flush(now_ns);
        self.pass_on();
        self.count();
        if self.next_nodes_ns <= now_ns {
            self.next_nodes_ns = now_ns + NODES_NS;
            self.board.set_others(self.node.others().collect());
        }
    }

    /// What is to be done next.
    pub(super) fn next(&mut self) -> Option<Todo> {
        self.todo.pop_front()
    }

    fn read(&mut self, letter: Letter, now_ns: u64) {
        let Letter::Order(order) = letter else { return };
        match order {
            Order::Presence { room, core, members } => {
                self.node.members(&room, core, members, now_ns);
                self.line.members(&room, self.node.members_here(&room), now_ns);
            }
            Order::Member { room, id, is_there } => self.node.member(&room, id, is_there),
            Order::CoreEnded { core } => {
                self.running -= 1;
                self.node.core_ended(core, now_ns);
                for room in self.line.followed() {
                    self.line.members(&room, self.node.members_here(&room), now_ns);
                }
            }
            Order::Number { room, publication } => self.line.number(room, publication, now_ns),
            Order::Seek { room, since, core, token } => self.line.seek(room, since, core, token, now_ns),
            Order::Released { room } => self.line.released(&room),
            Order::Publish { scope, publication } => {
                let elsewhere = self.known_receivers(&scope);
                publication.tell(match self.node.publish(&scope, &publication) {
                    Ok(()) => Delivery { elsewhere, ..Delivery::default() },
                    Err(_) => Delivery { refused: 1, ..Delivery::default() },
                });
            }
            Order::EmitTo { id, frame, key, tally } => {
                let waiter = tally.map_or(Waiter::Nobody, Waiter::Tally);
                self.ask(id.node(), &Ask::Emit { id, frame, key }, waiter, now_ns);
            }
            Order::Close { id, code, reason, answer } => {
                self.ask(id.node(), &Ask::Close { id, code, reason }, Waiter::Found(answer), now_ns);
            }
            Order::Ping { id, payload, answer } => {
                self.ask(id.node(), &Ask::Ping { id, payload }, Waiter::Delivery(answer), now_ns);
            }
            Order::Data { id, answer } => self.ask(id.node(), &Ask::Data(id), Waiter::Data(answer), now_ns),
            Order::Info { id, answer } => self.ask(id.node(), &Ask::Info(id), Waiter::Info(answer), now_ns),
            Order::SetData { id, data, answer } => {
                self.ask(id.node(), &Ask::SetData { id, data }, Waiter::Found(answer), now_ns);
            }
            Order::Join { id, room, answer } => {
                let ask = Ask::Join { id, room: room.to_string() };
                self.ask(id.node(), &ask, Waiter::Joined(answer), now_ns);
            }
            Order::Leave { id, room, answer } => {
                let ask = Ask::Leave { id, room: room.to_string() };
                self.ask(id.node(), &ask, Waiter::Found(answer), now_ns);
            }
            Order::CloseMembers { room, code, reason, tally } => {
                let ask = Ask::CloseRoom { room: room.to_string(), code, reason: reason.to_string() };
                let nodes: Vec<u32> = self.node.others().map(|node| node.number).collect();
                for node in nodes {
                    self.ask(node, &ask, Waiter::Tally(Arc::clone(&tally)), now_ns);
                }
            }
            // To cores.
            Order::Change { .. }
            | Order::ChangesRead { .. }
            | Order::Others { .. }
            | Order::Lost { .. }
            | Order::Record { .. }
            | Order::RecordsRead { .. }
            | Order::Recover { .. }
            | Order::Recovered { .. }
            | Order::EndHistory { .. }
            | Order::History { .. }
            | Order::HistoryMode { .. }
            | Order::Numbered { .. }
            | Order::Unnumbered { .. }
            | Order::Sought { .. }
            | Order::Release { .. }
            | Order::SendersEnded { .. } => {}
        }
    }

    fn known_receivers(&self, scope: &Scope) -> u32 {
        let known = match scope {
            Scope::Room(room) => self.node.members_elsewhere(room),
            Scope::Everyone => self.board.connections(),
            Scope::Route(_) | Scope::Path(_) | Scope::RouteElsewhere { .. } => 0,
        };
        u32::try_from(known).unwrap_or(u32::MAX)
    }

    fn ask(&mut self, node: u32, ask: &Ask, waiter: Waiter, now_ns: u64) {
        self.tokens += 1;
        self.waiters.insert(self.tokens, waiter);
        self.node.ask(node, ask, self.tokens, now_ns);
    }

    /// What a question to this machine has come to.
    pub(super) fn answered(&mut self, to: ReplyTo, reply: &Reply, now_ns: u64) {
        self.node.answered(to, reply, now_ns);
    }

    // ---- to the cores ---------------------------------------------------------------------------------------------

    fn pass_on(&mut self) {
        let bridge = self.courier.cores();
        let mut is_news = false;
        while let Some(output) = self.node.next_output() {
            match output {
                Output::Subscribe(subject) => self.todo.push_back(Todo::Subscribe(subject)),
                Output::Unsubscribe(subject) => self.todo.push_back(Todo::Unsubscribe(subject)),
                Output::Publish(subject, payload) => {
                    let message = Outgoing { subject, reply: None, payload, number: None };
                    self.todo.push_back(Todo::Publish(message));
                }
                Output::Ask(to, ask) => self.todo.push_back(Todo::Ask(to, ask)),
                Output::Joined => self.todo.push_back(Todo::Joined),
                Output::Refused => self.todo.push_back(Todo::Refused),
                Output::Answer(token, reply) => {
                    if let Some(waiter) = self.waiters.remove(&token) {
                        waiter.tell(reply);
                    }
                }
                Output::Members(room, members) => {
                    is_news = true;
                    self.tell_all(|| Order::Presence { room: Arc::clone(&room), core: bridge, members });
                }
                Output::Others(nodes, connections) => {
                    is_news = true;
                    let (nodes, connections) = (nodes as u32, u32::try_from(connections).unwrap_or(u32::MAX));
                    self.tell_all(|| Order::Others { nodes, connections });
                }
                Output::Told { room, ids, back, cores } => {
                    let ids: Arc<[ConnectionId]> = ids.into();
                    let order = || Order::Lost { room: Arc::clone(&room), ids: Arc::clone(&ids), back };
                    self.give(&cores, order);
                }
                Output::Left(room) => {
                    if self.board.has_history(&room) && !self.line.has(&room) {
                        self.tell_all(|| Order::EndHistory { room: Arc::clone(&room) });
                    }
                }
                Output::Deliver { scope: Scope::Room(room), publication, .. }
                    if !publication.frame.is_ephemeral()
                        && self.board.has_history(&room)
                        && !self.line.has(&room) =>
                {
                    // Its owner numbers it, and passes it on to those cores.
                    let owner = self.owner(&room);
                    let order = Order::Record { room, publication, goes_abroad: false, from: None };
                    self.give_one(owner, order.into());
                }
                Output::Deliver { scope, publication, cores } => {
                    self.give(&cores, || Order::Publish { scope: scope.clone(), publication: publication.clone() });
                }
            }
        }
        if is_news {
            self.board.set_others(self.node.others().collect());
        }
        while let Some(out) = self.line.next_output() {
            self.pass_on_of_line(out);
        }
    }

    fn owner(&self, room: &str) -> usize {
        owners(room, self.courier.cores()).find(|core| !self.courier.has_ended(*core)).unwrap_or(0)
    }

    fn pass_on_of_line(&mut self, out: Out) {
        match out {
            Out::Subscribe(subject) => self.todo.push_back(Todo::Subscribe(subject)),
            Out::Unsubscribe(subject) => self.todo.push_back(Todo::Unsubscribe(subject)),
            Out::Share(subject) => self.todo.push_back(Todo::Share(subject)),
            Out::Publish { subject, reply, payload, number } => {
                self.todo.push_back(Todo::Publish(Outgoing { subject, reply, payload, number }));
            }
            Out::Numbered { room, mut numbered } => {
                if let Some(Publication { tally: Some(tally), .. }) = &numbered.publication {
                    tally.add(self.elsewhere(&room));
                }
                numbered.is_next &= !self.cut.remove(&room);
                let owner = self.owner(&room);
                let order = Order::Numbered { room: Arc::clone(&room), numbered };
                if !self.give_one(owner, order.into()) {
                    self.cut.insert(room);
                }
            }
            Out::Unnumbered { room, publication, goes_abroad } => {
                let owner = self.owner(&room);
                self.give_one(owner, Order::Unnumbered { room, publication, goes_abroad }.into());
            }
            Out::Stored { room, tally } => tally.add(self.elsewhere(&room)),
            Out::Refused(tally) => {
                if let Some(tally) = tally {
                    tally.add(Delivery { refused: 1, ..Delivery::default() });
                }
            }
            Out::Sought { core, token, found } => self.give_surely(core, Order::Sought { token, found }.into()),
            Out::Mode(mode) => {
                self.board.set_shared(matches!(mode, Mode::Shared(_)));
                for core in 0..self.courier.cores() {
                    self.give_surely(core, Order::HistoryMode { mode }.into());
                }
            }
            Out::Release(room) => self.give_surely(self.owner(&room), Order::Release { room }.into()),
            Out::Say(word) => say(&word),
        }
    }

    fn elsewhere(&self, room: &str) -> Delivery {
        let elsewhere = u32::try_from(self.node.members_elsewhere(room)).unwrap_or(u32::MAX);
        Delivery { elsewhere, ..Delivery::default() }
    }

    fn tell_all(&self, order: impl Fn() -> Order) {
        for core in 0..self.courier.cores() {
            // One that has ended need not know.
            let _ = self.courier.send_urgent(core, order().into());
        }
    }

    fn give(&mut self, cores: &Cores, order: impl Fn() -> Order) {
        let these: Vec<usize> = match cores {
            Cores::All => (0..self.courier.cores()).collect(),
            Cores::These(these) => these.iter().map(|core| usize::from(*core)).collect(),
        };
        for core in these {
            self.give_one(core, order().into());
        }
    }

    /// False if it was dropped.
    fn give_one(&mut self, core: usize, letter: Letter) -> bool {
        if self.held[core].len() < HELD_MAX {
            self.give_surely(core, letter);
            return true;
        }
        self.board.counters.dropped_slow.fetch_add(1, Ordering::Relaxed);
        letter.refuse(MailError::Full);
        false
    }

    /// However many wait: there is a bound to letters of this kind.
    fn give_surely(&mut self, core: usize, letter: Letter) {
        let Some(held) = self.held.get_mut(core) else { return };
        let letter = match held.is_empty() {
            true => match self.courier.offer(core, letter) {
                Err((MailError::Full, letter)) => letter,
                _ => return,
            },
            false => letter,
        };
        held.push_back(letter);
    }

    fn give_held(&mut self) {
        for (core, held) in self.held.iter_mut().enumerate() {
            while let Some(letter) = held.pop_front() {
                if let Err((MailError::Full, letter)) = self.courier.offer(core, letter) {
                    held.push_front(letter);
                    break;
                }
            }
        }
    }

    fn count(&self) {
        let (counts, on, line) = (self.node.counts(), &self.board.counters, self.line.counts());
        for (counter, count) in [
            (&on.sent, counts.sent),
            (&on.received, counts.received),
            (&on.dropped_away, counts.away),
            (&on.malformed, counts.malformed),
            (&on.twice, counts.twice),
            (&on.unreachable, counts.unreachable),
            (&on.history_sent, line.sent),
            (&on.history_received, line.received),
            (&on.history_apart, line.apart),
            (&on.history_refused, line.refused),
            (&on.history_gaps, line.gaps),
            (&on.history_asked, line.asked),
            (&on.history_unanswered, line.unanswered),
        ] {
            counter.store(count, Ordering::Relaxed);
        }
        self.board.rooms.store(self.node.rooms_here() as u64, Ordering::Relaxed);
        self.board.set_joined(self.node.is_joined());
    }
}

/// Tells whoever runs the server who keeps the history of rooms.
fn say(word: &Word) {
    match word {
        Word::Shared { storage } => {
            tracing::info!(target: "ringwire::server", storage, "rooms have one history on all machines: JetStream keeps it");
        }
        Word::Off => tracing::info!(
            target: "ringwire::server",
            "JetStream is off at NATS: the history of rooms is this machine's own, and nobody resumes from another's"
        ),
        Word::Failed(why) => {
            tracing::warn!(target: "ringwire::server", why, "JetStream does not keep the history of rooms");
        }
        Word::Away => tracing::warn!(
            target: "ringwire::server",
            "the history of rooms is away: messages go to this machine's members without a number until it is back"
        ),
        Word::Anew => tracing::warn!(
            target: "ringwire::server",
            "JetStream has begun the history of rooms anew: nobody resumes from what was before"
        ),
    }
}
