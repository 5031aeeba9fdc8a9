//! Users of the client in seeded runs: they connect, send, receive, ping, go, and come back, and write down what they are
//! told; and the server's handler, which writes down what it has seen.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::future::Future;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;
use std::task::Poll;
use std::time::Duration;

use futures_util::future::{Either, select};
use ringwire::client::simulated::{Courier, reconnecting_through};
use ringwire::client::{Client, ClientError, Connect, Event, Reconnecting};
use ringwire::engine::sim::Rng;
use ringwire::{App, Message, OwnedMessage, Socket, ws};

use crate::client_host::yield_now;

/// Asks the server to close the connection.
pub const BYE: &str = "bye";
/// The code with which it does.
pub const BYE_CODE: u16 = 4001;
/// What makes the server send a lot at once.
const FLOOD: &str = "flood";
const FLOOD_MESSAGES: usize = 30;

/// Attempts that a user who keeps a connection up may make.
const ATTEMPTS_MAX: usize = 50;

/// One attempt of a user, and what became of it.
#[derive(Default)]
pub struct Visit {
    pub accepted: Vec<String>,
    pub received: Vec<String>,
    /// Pings of its own that were answered.
    pub ponged: u64,
    pub end: Option<End>,
    /// It waited for all of its answers before it said goodbye.
    pub was_patient: bool,
    /// It said goodbye while it was owed answers.
    pub was_stopped: bool,
}

impl fmt::Debug for Visit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let brief = |texts: &[String]| {
            let mark = |text: &str| if text.ends_with(BYE) { BYE } else { "" };
            texts.iter().map(|text| format!("{}{}", text.len(), mark(text))).collect::<Vec<_>>().join(" ")
        };
        let (accepted, received) = (brief(&self.accepted), brief(&self.received));
        write!(f, "accepted [{accepted}], received [{received}], end {:?}, patient {}", self.end, self.was_patient)
    }
}

#[derive(Debug)]
pub enum End {
    /// The user gave up before it knew.
    GaveUp,
    NotOpened(ClientError),
    /// The handle was dropped.
    Dropped,
    /// In order: code, and whether both sides said Close.
    Closed(u16, bool),
    Broken(ClientError),
}

/// Everything that one user was told, in order.
pub type Visits = Rc<RefCell<Vec<Visit>>>;

/// What the server's handler has seen, by user and visit.
pub type Seen = Rc<RefCell<BTreeMap<(usize, usize), Vec<String>>>>;

/// One message of a flood.
fn flood() -> String {
    FLOOD.repeat(600)
}

fn tag(user: usize, visit: usize, number: usize) -> String {
    format!("{user}.{visit}.{number}:")
}

/// What one who comes back says first.
fn hello(user: usize, visit: usize) -> String {
    tag(user, visit, 99)
}

fn visit_of(text: &str) -> Option<(usize, usize)> {
    let mut parts = text.split('.');
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

/// Writes down each message, and sends it back.
pub fn app(seen: &Seen) -> App {
    let seen = Rc::clone(seen);
    let handler = move |socket: &mut Socket, message: Message| {
        let text = message.as_text().expect("users send text").to_owned();
        if let Some(key) = visit_of(&text) {
            seen.borrow_mut().entry(key).or_default().push(text.clone());
        }
        let _ = socket.send(text.as_str());
        if text.ends_with(FLOOD) {
            for _ in 0..FLOOD_MESSAGES {
                let _ = socket.send(flood().as_str());
            }
        }
        if text.ends_with(BYE) {
            let _ = socket.close(BYE_CODE, "as asked");
        }
    };
    App::new().ws("/", ws().on_message(handler))
}

pub struct User {
    pub number: usize,
    pub rng: Rng,
    pub visits: Visits,
    pub payload_bytes_max: usize,
    /// Stays until it is told something: it never drops what it waits for.
    pub is_steady: bool,
}

impl User {
    fn visit<T>(&self, note: impl FnOnce(&mut Visit) -> T) -> T {
        note(self.visits.borrow_mut().last_mut().expect("a visit has begun"))
    }

    fn text(&mut self, number: usize) -> String {
        let visit = self.visits.borrow().len() - 1;
        let most = if self.rng.chance(0.8) { self.payload_bytes_max.min(100) } else { self.payload_bytes_max };
        let filler = "x".repeat(self.rng.between(0, most));
        tag(self.number, visit, number) + &filler
    }

    fn take(&self, message: &OwnedMessage) {
        let text = message.as_text().expect("the server sends text").to_owned();
        if text != flood() {
            self.visit(|visit| visit.received.push(text));
        }
    }

    /// How many answers are owed.
    fn is_owed(&self) -> bool {
        self.visit(|visit| visit.received.len() < visit.accepted.len())
    }

    fn is_flooded(&self) -> bool {
        self.visit(|visit| visit.accepted.iter().any(|text| text.ends_with(FLOOD)))
    }

    /// Receives one message; false at the end.
    async fn receive(&self, client: &mut Client) -> bool {
        match client.recv().await {
            Some(Ok(message)) => {
                self.take(&message);
                return true;
            }
            Some(Err(error)) => {
                assert!(client.recv().await.is_none(), "an error is the last thing");
                self.visit(|visit| visit.end = Some(End::Broken(error)));
            }
            None => {
                let closed = client.closed().expect("how it ended is known at the end");
                self.visit(|visit| visit.end = Some(End::Closed(closed.code, closed.clean)));
            }
        }
        false
    }

    /// Sends one message, and receives while there is no room; false if it could not be sent any more.
    async fn send(&mut self, client: &mut Client, text: String) -> bool {
        if self.rng.chance(0.3) {
            match client.try_send(text.as_str()) {
                Ok(()) => {
                    self.visit(|visit| visit.accepted.push(text));
                    return true;
                }
                Err(ClientError::Full) => {}
                Err(_) => return false,
            }
        }
        let sender = client.sender();
        let gives_up = !self.is_steady && !text.ends_with(BYE) && self.rng.chance(0.05);
        let mut sending = pin!(sender.send(text.as_str()));
        loop {
            match select(sending.as_mut(), pin!(self.receive(client))).await {
                Either::Left((Ok(()), _)) => {
                    self.visit(|visit| visit.accepted.push(text.clone()));
                    return true;
                }
                Either::Left((Err(_), _)) => return false,
                // A future that is dropped has queued nothing.
                Either::Right((true, _)) if gives_up => return true,
                Either::Right((true, _)) => {}
                Either::Right((false, _)) => {
                    assert!(sending.await.is_err(), "nothing can be queued after the end");
                    return false;
                }
            }
        }
    }

    /// Connects, talks, and goes; once.
    pub async fn call(&mut self, connect: Connect) {
        self.visits.borrow_mut().push(Visit::default());
        let mut connecting = connect.into_future();
        if !self.is_steady && self.rng.chance(0.1) {
            for _ in 0..self.rng.between(0, 20) {
                let done = std::future::poll_fn(|cx| Poll::Ready(pin!(&mut connecting).poll(cx).is_ready())).await;
                if done {
                    break;
                }
                yield_now().await;
            }
            return self.visit(|visit| visit.end = Some(End::GaveUp));
        }
        let mut client = match connecting.await {
            Ok(client) => client,
            Err(error) => return self.visit(|visit| visit.end = Some(End::NotOpened(error))),
        };
        let messages = self.rng.between(0, 12);
        for number in 0..messages {
            let mut text = self.text(number);
            let says_bye = self.rng.chance(0.03);
            if says_bye {
                text.push_str(BYE);
            } else if self.rng.chance(0.05) {
                text.push_str(FLOOD);
            }
            if !self.send(&mut client, text).await || says_bye {
                return self.hear_out(&mut client).await;
            }
            if self.rng.chance(0.2) && self.is_owed() && !self.receive(&mut client).await {
                return;
            }
            // The pong would be behind a flood that does not fit into the inbox.
            let may_ping = !self.is_owed() && !self.is_flooded();
            if self.rng.chance(0.1) && may_ping {
                if client.ping().await.is_err() {
                    return self.hear_out(&mut client).await;
                }
                self.visit(|visit| visit.ponged += 1);
            }
            if self.rng.chance(0.1) {
                yield_now().await;
            }
            if !self.is_steady && self.rng.chance(0.03) {
                return self.visit(|visit| visit.end = Some(End::Dropped));
            }
        }
        if self.is_steady || self.rng.chance(0.7) {
            while self.is_owed() {
                if !self.receive(&mut client).await {
                    return;
                }
            }
            self.visit(|visit| visit.was_patient = true);
        }
        let closed = client.close(1000, "done").await.expect("a legal code, and a core that lives");
        self.hear_out(&mut client).await;
        assert_eq!(client.closed().map(|closed| closed.code), Some(closed.code));
        assert!(client.try_send("too late").is_err());
        assert!(client.ping().await.is_err());
    }

    /// Receives what is left.
    async fn hear_out(&self, client: &mut Client) {
        while self.receive(client).await {}
    }

    /// Keeps a connection up for some visits.
    pub async fn stay(&mut self, courier: &Arc<Courier>, connect: Connect, mut visits_left: usize) {
        let (number, current) = (self.number, Arc::new(AtomicUsize::new(0)));
        let (visit, mut fails) = (Arc::clone(&current), self.rng.between(0, 3));
        // What greets the server before anybody else can, and a factory that fails now and then.
        let client = Reconnecting::with_factory(move || {
            fails = (fails + 1) % 4;
            std::future::ready(if fails == 0 { Err("no token") } else { Ok(connect.clone()) })
        });
        let mut client = reconnecting_through(client, courier)
            .on_open(move |client: Client| {
                let hello = hello(number, visit.load(Relaxed));
                async move { client.send(hello).await.map(|()| client) }
            })
            .delays(Duration::ZERO, Duration::ZERO);
        self.visits.borrow_mut().push(Visit::default());
        let mut attempts = 0;
        let mut is_open = false;
        let mut to_say: VecDeque<String> = VecDeque::new();
        loop {
            let event = match to_say.front().cloned() {
                None => client.next().await,
                Some(text) => {
                    let sender = client.sender();
                    match select(pin!(sender.send(text.as_str())), pin!(client.next())).await {
                        Either::Right((event, _)) => event,
                        Either::Left((Ok(()), _)) => {
                            let text = to_say.pop_front().expect("it was there");
                            self.visit(|visit| visit.accepted.push(text));
                            continue;
                        }
                        Either::Left((Err(_), _)) => {
                            to_say.clear();
                            continue;
                        }
                    }
                }
            };
            match event.expect("the last event says that it is the last") {
                Event::Opened { .. } => {
                    is_open = true;
                    let hello = hello(self.number, current.load(Relaxed));
                    self.visit(|visit| visit.accepted.push(hello));
                    visits_left = visits_left.saturating_sub(1);
                    let messages = self.rng.between(1, 5);
                    to_say.extend((0..messages).map(|number| self.text(number)));
                    if let Some(last) = to_say.back_mut() {
                        last.push_str(BYE);
                    }
                }
                Event::Message(message) => {
                    self.take(&message);
                    if visits_left == 0 && self.rng.chance(0.2) {
                        client.stop();
                        self.visit(|visit| visit.was_stopped = true);
                    }
                }
                Event::Closed { why, retry_in } => {
                    let end = match why {
                        ClientError::Closed(closed) => End::Closed(closed.code, closed.clean),
                        why if !is_open => End::NotOpened(why),
                        why => End::Broken(why),
                    };
                    is_open = false;
                    to_say.clear();
                    attempts += 1;
                    self.visit(|visit| visit.end = Some(end));
                    if retry_in.is_none() {
                        assert!(client.next().await.is_none());
                        break;
                    }
                    if visits_left == 0 || attempts == ATTEMPTS_MAX {
                        client.stop();
                    }
                    self.visits.borrow_mut().push(Visit::default());
                    current.fetch_add(1, Relaxed);
                }
                event => panic!("{event:?}"),
            }
        }
    }
}
