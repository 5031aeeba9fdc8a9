//! What cores, and threads that are none, write to a core, and how they learn what came of it.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde_json::Value;

use super::delivery::{Delivery, Tally};
use super::id::ConnectionId;
use super::info::ConnectionInfo;
use super::recovered::{Recovered, Since};
use super::numbered::{Found, Mode, Numbered};
use super::publication::Publication;
use super::room::JoinError;
use super::routes::RouteName;
use crate::mail::MailError;
use crate::message::RawJson;
use crate::outbox::{FrameBuf, Key, Queued};

/// A set of connections.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    /// All of them.
    Everyone,
    /// Those of a route, by its name.
    Route(RouteName),
    /// Those of all routes of a path as it was given to the app.
    Path(Arc<str>),
    /// The members of a room.
    Room(Arc<str>),
    /// Those of a route as another machine names it.
    RouteElsewhere {
        /// Its path, or that of the HTTP route whose handler upgrades to it.
        path: Arc<str>,
        /// Where such a handler's route was made: file, line, column.
        made_at: Option<(Arc<str>, u32, u32)>,
    },
}

/// What one core, or a thread that is none, asks of a core whose state is an `H`.
pub enum Letter<H: ?Sized> {
    /// What could as well come from another process.
    Order(Order),
    /// What cannot leave this one.
    Local(Local<H>),
}

/// What a core is asked to do: plain data, but for where the answer goes, which whoever passes it on keeps.
#[derive(Debug)]
pub enum Order {
    /// How many members of a room a core has, but for those that came by changes. Urgent.
    Presence {
        /// The room's name.
        room: Arc<str>,
        /// The core that says so.
        core: usize,
        /// How many.
        members: u32,
    },
    /// How many members of a room that came by changes a core has: see `hub/changes.rs`.
    Change {
        /// The room's name.
        room: Arc<str>,
        /// The core that says so.
        core: usize,
        /// How many.
        members: u32,
        /// The number of the change, if somebody waits for this to be read.
        number: Option<u64>,
        /// What the room's members are to be told.
        notice: Option<FrameBuf>,
    },
    /// A core has read the other's changes up to this number. Urgent.
    ChangesRead {
        /// The core that has read them.
        core: usize,
        /// The number of the last.
        number: u64,
    },
    /// To the bridge: a connection has come to a room by a change, or has left it. Urgent.
    Member {
        /// The room's name.
        room: Arc<str>,
        /// Who.
        id: ConnectionId,
        /// Whether it has come.
        is_there: bool,
    },
    /// From the bridge: how many there are beside this machine. Urgent.
    Others {
        /// Machines.
        nodes: u32,
        /// Their connections.
        connections: u32,
    },
    /// From the bridge: members of a room were lost with their machine, or are there again.
    Lost {
        /// The room's name.
        room: Arc<str>,
        /// Who.
        ids: Arc<[ConnectionId]>,
        /// Whether they are there again.
        back: bool,
    },
    /// A core has ended: it has no connections and reads nothing any more. Urgent.
    CoreEnded {
        /// Which.
        core: usize,
    },
    /// A message to this core's part of a set of connections.
    Publish {
        /// To whom.
        scope: Scope,
        /// The message.
        publication: Publication,
    },
    /// To a room's owner: a message that it is to number, keep and pass on. See `hub/history.rs`.
    Record {
        /// The room's name.
        room: Arc<str>,
        /// The message.
        publication: Publication,
        /// It goes on to other machines.
        goes_abroad: bool,
        /// The core that waits for this to be read; no thread does.
        from: Option<usize>,
    },
    /// A room's owner has read so many of these. Urgent.
    RecordsRead {
        /// The owner.
        owner: usize,
        /// How many more.
        count: u32,
    },
    /// To a room's owner: somebody who is joining wants its history.
    Recover {
        /// The room's name.
        room: Arc<str>,
        /// What of it.
        since: Since,
        /// The core that asks.
        core: usize,
        /// The number of its change.
        number: u64,
    },
    /// From a room's owner, in line with the room's messages.
    Recovered {
        /// The number of the change.
        number: u64,
        /// What it gets.
        recovered: Recovered,
    },
    /// From the bridge: what others publish to a room has not been listened to for a while. Urgent.
    EndHistory {
        /// The room's name.
        room: Arc<str>,
    },
    /// What a room with a history has kept, for whoever asks by a handle.
    History {
        /// The room's name.
        room: Arc<str>,
        /// What of it.
        since: Since,
        /// It.
        answer: Answer<Recovered>,
    },
    /// To the bridge: a message for a room whose history all machines share, to be numbered. See `hub/shared.rs`.
    Number {
        /// The room's name.
        room: Arc<str>,
        /// The message.
        publication: Publication,
    },
    /// From the bridge to a room's owner, in the one order: a message with its number.
    Numbered {
        /// The room's name.
        room: Arc<str>,
        /// The message, and its number.
        numbered: Numbered,
    },
    /// From the bridge to a room's owner: a message that could not be numbered, to be delivered all the same.
    Unnumbered {
        /// The room's name.
        room: Arc<str>,
        /// The message.
        publication: Publication,
        /// It goes on to other machines.
        goes_abroad: bool,
    },
    /// To the bridge: a room's owner wants more of its history than it has.
    Seek {
        /// The room's name.
        room: Arc<str>,
        /// What of it.
        since: Since,
        /// The owner.
        core: usize,
        /// What the answer names.
        token: u64,
    },
    /// From the bridge, in line with the room's messages.
    Sought {
        /// What was asked.
        token: u64,
        /// What there is; `None` if that could not be found out in time.
        found: Option<Box<Found>>,
    },
    /// From the bridge, in line with messages: who keeps the history of rooms.
    HistoryMode {
        /// Who.
        mode: Mode,
    },
    /// From the bridge to a room's owner, in line with its messages: nothing more of the room is to be listened to.
    Release {
        /// The room's name.
        room: Arc<str>,
    },
    /// To the bridge: it is so. Urgent.
    Released {
        /// The room's name.
        room: Arc<str>,
    },
    /// A message to one connection.
    EmitTo {
        /// To whom.
        id: ConnectionId,
        /// The message.
        frame: FrameBuf,
        /// Its key, where only the latest with the same one matters.
        key: Option<Key>,
        /// Where the answer is added.
        tally: Option<Arc<Tally>>,
    },
    /// Close a connection.
    Close {
        /// Which.
        id: ConnectionId,
        /// The close code; `None` for a Close frame without one.
        code: Option<u16>,
        /// The reason.
        reason: String,
        /// Whether it was there.
        answer: Answer<bool>,
    },
    /// Ping a connection.
    Ping {
        /// Which.
        id: ConnectionId,
        /// At most 125 bytes.
        payload: Bytes,
        /// What became of it.
        answer: Answer<Delivery>,
    },
    /// Tell a connection's JSON data.
    Data {
        /// Whose.
        id: ConnectionId,
        /// It, if the connection was there.
        answer: DataAnswer,
    },
    /// Tell what is known of a connection.
    Info {
        /// Of which.
        id: ConnectionId,
        /// It, if the connection was there.
        answer: Answer<Option<ConnectionInfo>>,
    },
    /// Set a connection's JSON data.
    SetData {
        /// Whose.
        id: ConnectionId,
        /// What.
        data: RawJson,
        /// Whether it was there.
        answer: Answer<bool>,
    },
    /// Have a connection join a room.
    Join {
        /// Which.
        id: ConnectionId,
        /// The room's name.
        room: Arc<str>,
        /// How many members the room has when that is known to all cores.
        answer: Answer<Result<usize, JoinError>>,
    },
    /// Have a connection leave a room.
    Leave {
        /// Which.
        id: ConnectionId,
        /// The room's name.
        room: Arc<str>,
        /// Whether it was in it, when that is known to all cores.
        answer: Answer<bool>,
    },
    /// Close this core's members of a room.
    CloseMembers {
        /// The room's name.
        room: Arc<str>,
        /// The close code.
        code: u16,
        /// The reason.
        reason: Arc<str>,
        /// Where the answer is added: as queued those that are closed.
        tally: Arc<Tally>,
    },
    /// The last sender of a connection was dropped. Urgent, so that it is never lost; it takes effect when the ordinary
    /// letters that came before it, which may be messages from that sender, have been read.
    SendersEnded {
        /// The connection.
        id: ConnectionId,
        /// Of which senders it was the last: there may be others by now.
        number: u32,
    },
}

/// What a core is asked that nothing but memory can carry.
pub enum Local<H: ?Sized> {
    /// Runs between two ticks' handlers.
    Run(Box<dyn Ask<H>>),
    /// The core is to end.
    End(Shutdown),
}

/// How a core is to end: the shard's business.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shutdown {
    /// Stop accepting, close every connection with 1001, end when the last one is gone.
    Drain {
        /// In so much time from now, whatever the settings say.
        within: Option<Duration>,
    },
    /// At once.
    Stop,
}

/// Where the answer to one who asks goes.
pub type Answer<A> = oneshot::Sender<Result<A, MailError>>;

/// The same of a connection's data, as it is wanted.
#[derive(Debug)]
pub enum DataAnswer {
    /// As it was written.
    Raw(Answer<Option<RawJson>>),
    /// As a value.
    Value(Answer<Option<Value>>),
}

impl DataAnswer {
    /// Sends it.
    pub(crate) fn send(self, data: Result<Option<RawJson>, MailError>) {
        // Nobody may be waiting any more.
        match self {
            DataAnswer::Raw(answer) => drop(answer.send(data)),
            DataAnswer::Value(answer) => drop(answer.send(data.map(|data| data.map(|data| data.to_value())))),
        }
    }
}

impl Order {
    /// Tells whoever waits that the connection that it is about has gone.
    pub(crate) fn answer_gone(self) {
        match self {
            Order::EmitTo { tally: Some(tally), .. } => tally.add(Queued::Gone.into()),
            Order::Close { answer, .. } | Order::SetData { answer, .. } | Order::Leave { answer, .. } => {
                drop(answer.send(Ok(false)));
            }
            Order::Ping { answer, .. } => drop(answer.send(Ok(Queued::Gone.into()))),
            Order::Data { answer, .. } => answer.send(Ok(None)),
            Order::Info { answer, .. } => drop(answer.send(Ok(None))),
            Order::Join { answer, .. } => drop(answer.send(Ok(Err(JoinError::Gone)))),
            _ => {}
        }
    }
}

impl<H: ?Sized> From<Order> for Letter<H> {
    #[inline]
    fn from(order: Order) -> Letter<H> {
        Letter::Order(order)
    }
}

impl<H: ?Sized> From<Shutdown> for Letter<H> {
    fn from(shutdown: Shutdown) -> Letter<H> {
        Letter::Local(Local::End(shutdown))
    }
}

impl<H: ?Sized> Letter<H> {
    /// A letter that does this.
    pub fn run(run: impl FnOnce(&mut H) + Send + 'static) -> Letter<H>
    where
        H: 'static,
    {
        Letter::Local(Local::Run(Box::new(run)))
    }

    /// A letter that asks this and sends the answer back.
    pub(crate) fn ask<A: Send + 'static>(
        ask: impl FnOnce(&mut H) -> A + Send + 'static,
    ) -> (Letter<H>, oneshot::Receiver<Result<A, MailError>>)
    where
        H: 'static,
    {
        let (answer, receiver) = oneshot::channel();
        (Letter::Local(Local::Run(Box::new(Question { ask, answer }))), receiver)
    }

    /// Tells whoever waits for what becomes of it that it could not be delivered.
    pub(crate) fn refuse(self, error: MailError) {
        match self {
            Letter::Order(
                Order::Publish { publication, .. }
                | Order::Record { publication, .. }
                | Order::Number { publication, .. }
                | Order::Numbered { numbered: Numbered { publication: Some(publication), .. }, .. }
                | Order::Unnumbered { publication, .. },
            ) => publication.tell(Delivery::not_made(error)),
            Letter::Order(Order::EmitTo { tally: Some(tally), .. } | Order::CloseMembers { tally, .. }) => {
                tally.add(Delivery::not_made(error));
            }
            Letter::Order(
                Order::Close { answer, .. } | Order::SetData { answer, .. } | Order::Leave { answer, .. },
            ) => {
                // Nobody may be waiting any more, here as below.
                let _ = answer.send(Err(error));
            }
            Letter::Order(Order::Join { answer, .. }) => {
                let _ = answer.send(Err(error));
            }
            Letter::Order(Order::Ping { answer, .. }) => drop(answer.send(Err(error))),
            Letter::Order(Order::Data { answer, .. }) => answer.send(Err(error)),
            Letter::Order(Order::History { answer, .. }) => drop(answer.send(Err(error))),
            Letter::Order(Order::Info { answer, .. }) => drop(answer.send(Err(error))),
            Letter::Local(Local::Run(ask)) => ask.refuse(error),
            _ => {}
        }
    }
}

/// What a core is asked to do, whoever wrote it: a panic in it ends nothing but this.
pub trait Ask<H: ?Sized>: Send {
    /// Does it.
    fn run(self: Box<Self>, hub: &mut H);

    /// It cannot be asked.
    fn refuse(self: Box<Self>, error: MailError) {
        let _ = error;
    }
}

impl<H: ?Sized, F: FnOnce(&mut H) + Send> Ask<H> for F {
    fn run(self: Box<Self>, hub: &mut H) {
        self(hub);
    }
}

/// A question whose answer goes back.
struct Question<F, A> {
    ask: F,
    answer: oneshot::Sender<Result<A, MailError>>,
}

impl<H: ?Sized, A: Send, F: FnOnce(&mut H) -> A + Send> Ask<H> for Question<F, A> {
    fn run(self: Box<Self>, hub: &mut H) {
        let Question { ask, answer } = *self;
        let _ = answer.send(Ok(ask(hub)));
    }

    fn refuse(self: Box<Self>, error: MailError) {
        let _ = self.answer.send(Err(error));
    }
}
