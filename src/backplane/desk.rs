//! Where letters of cores become what a node does, and what it has to do becomes letters to cores; what is left is the bus's.
//! Knows no bus and reads no clock.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use crossbeam_channel::Receiver;

use super::asking::{Ask, Reply};
use super::board::{Board, NodeInfo, Question};
use super::node::{Cores, Node, Output, ReplyTo};
use crate::hub::{
    Answer, ConnectionId, ConnectionInfo, DataAnswer, Delivery, JoinError, Letter, Order, Scope, Tally, owners,
};
use crate::mail::{Courier, MailError, Mailbox};

/// Letters that wait for room in one core's mailbox: what comes for it beyond that is dropped, and counted.
const HELD_MAX: usize = 16_384;
/// Letters of cores, and messages of the bus, that are handled between two looks at the other.
const BATCH: usize = 1024;

/// What the bus, or whoever answers for this machine, is to do.
#[derive(Debug)]
pub(super) enum Todo {
    Subscribe(String),
    Unsubscribe(String),
    Publish(String, Bytes),
    /// Have this answered, by [`Desk::answered`].
    Ask(ReplyTo, Ask),
    Joined,
    Refused,
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
        mailbox: Mailbox<Letter>,
        courier: Courier<Letter>,
        board: Arc<Board>,
        questions: Receiver<Question>,
    ) -> Desk {
        let running = courier.cores();
        let held = (0..running).map(|_| VecDeque::new()).collect();
        let (waiters, todo) = (HashMap::new(), VecDeque::new());
        Desk { node, mailbox, courier, board, questions, waiters, tokens: 0, held, todo, running }
    }

    /// Whether all cores have ended.
    pub(super) fn is_over(&self) -> bool {
        self.running == 0
    }

    /// Whether letters wait for room in a core's mailbox, and are to be tried again soon.
    pub(super) fn is_held(&self) -> bool {
        self.held.iter().any(|held| !held.is_empty())
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
        self.node.flush(now_ns);
        self.pass_on();
        self.count();
    }

    /// What is to be done next.
    pub(super) fn next(&mut self) -> Option<Todo> {
        self.todo.pop_front()
    }

    fn read(&mut self, letter: Letter, now_ns: u64) {
        let Letter::Order(order) = letter else { return };
        match order {
            Order::Presence { room, core, members } => self.node.members(&room, core, members, now_ns),
            Order::Member { room, id, is_there } => self.node.member(&room, id, is_there),
            Order::CoreEnded { core } => {
                self.running -= 1;
                self.node.core_ended(core, now_ns);
            }
            Order::Publish { scope, frame, key, except, tally } => {
                let elsewhere = self.known_receivers(&scope);
                let sent = self.node.publish(&scope, &frame, key, except);
                if let Some(tally) = tally {
                    tally.add(match sent {
                        Ok(()) => Delivery { elsewhere, ..Delivery::default() },
                        Err(_) => Delivery { refused: 1, ..Delivery::default() },
                    });
                }
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
                let nodes: Vec<u32> = self.node.others().map(|(node, ..)| node).collect();
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
                Output::Publish(subject, payload) => self.todo.push_back(Todo::Publish(subject, payload)),
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
                    if self.board.has_history(&room) {
                        self.tell_all(|| Order::EndHistory { room: Arc::clone(&room) });
                    }
                }
                Output::Deliver { scope: Scope::Room(room), frame, key, except, .. }
                    if !frame.is_ephemeral() && self.board.has_history(&room) =>
                {
                    // Its owner numbers it, and passes it on to those cores.
                    let reads = |core: &usize| !self.courier.has_ended(*core);
                    let owner = owners(&room, self.courier.cores()).find(reads);
                    let (tally, goes_abroad, from) = (None, false, None);
                    let order = Order::Record { room, frame, key, except, tally, goes_abroad, from };
                    self.give_one(owner.unwrap_or(0), order.into());
                }
                Output::Deliver { scope, frame, key, except, cores } => {
                    let order =
                        || Order::Publish { scope: scope.clone(), frame: frame.clone(), key, except, tally: None };
                    self.give(&cores, order);
                }
            }
        }
        if is_news {
            self.board.set_others(self.node.others().map(info).collect());
        }
    }

    fn tell_all(&self, order: impl Fn() -> Order) {
        for core in 0..self.courier.cores() {
            // One that has ended need not know.
            let _ = self.courier.send_urgent(core, order().into());
        }
    }

    fn give(&mut self, cores: &Cores, order: impl Fn() -> Order) {
        match cores {
            Cores::All => (0..self.courier.cores()).for_each(|core| self.give_one(core, order().into())),
            Cores::These(these) => these.iter().for_each(|core| self.give_one(usize::from(*core), order().into())),
        }
    }

    fn give_one(&mut self, core: usize, letter: Letter) {
        let held = &mut self.held[core];
        let letter = match held.is_empty() {
            true => match self.courier.offer(core, letter) {
                Err((MailError::Full, letter)) => letter,
                _ => return,
            },
            false => letter,
        };
        if held.len() < HELD_MAX {
            held.push_back(letter);
        } else {
            self.board.counters.dropped_slow.fetch_add(1, Ordering::Relaxed);
        }
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
        let (counts, on) = (self.node.counts(), &self.board.counters);
        for (counter, count) in [
            (&on.sent, counts.sent),
            (&on.received, counts.received),
            (&on.dropped_away, counts.away),
            (&on.malformed, counts.malformed),
            (&on.twice, counts.twice),
            (&on.unreachable, counts.unreachable),
        ] {
            counter.store(count, Ordering::Relaxed);
        }
        self.board.set_joined(self.node.is_joined());
    }
}

fn info((number, name, connections, rooms): (u32, &str, u64, usize)) -> NodeInfo {
    NodeInfo { name: name.to_owned(), number, connections, rooms }
}
