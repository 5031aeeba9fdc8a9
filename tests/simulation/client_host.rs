//! The client's core on a simulated ring, the futures of its users, and what it finds where it connects: cables to a
//! server's cores, or peers that play a server badly.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Waker};

use ringwire::client::simulated::{Courier, Driver, Found, Resolve, through};
use ringwire::client::{Connect, connect};
use ringwire::engine::sim::{Client, Ring, RingOptions, Rng, World};

use crate::host::Bell;
use crate::secure::{self, Socket};
use crate::wire;

/// The client's driver.
pub struct ClientCore {
    pub driver: Driver<Ring>,
    pub courier: Arc<Courier>,
    number: usize,
    world: World,
    /// In the middle of a tick: its turn sleeps.
    asleep: bool,
    bell: Arc<Bell>,
}

/// For cores that are asked for addresses only.
pub fn no_names(host: String, _: u16, _: Found) {
    panic!("nobody resolves names here: {host}");
}

impl ClientCore {
    pub fn new(world: &World, number: usize, options: RingOptions, resolve: Resolve) -> ClientCore {
        let bell: Arc<Bell> = Arc::default();
        let (courier, letters) = Courier::new(Arc::clone(&bell) as Arc<dyn ringwire::mail::Wake>);
        let ring = world.ring(number, RingOptions { listeners: 0, ..options });
        let driver = Driver::new(ring, letters, resolve);
        ClientCore { driver, courier, number, world: world.clone(), asleep: false, bell }
    }

    pub fn is_runnable(&self) -> bool {
        self.bell.is_rung() || self.world.runnable(self.number)
    }

    /// Ends the tick that sleeps, and turns the ring once more.
    pub fn tick(&mut self) {
        self.bell.silence();
        if std::mem::take(&mut self.asleep) {
            self.driver.work();
        }
        self.driver.turn().expect("a ring that works");
        match self.world.parked_until(self.number) {
            Some(_) => self.asleep = true,
            None => self.driver.work(),
        }
    }

    /// Verifies that nothing of any connection is left.
    pub fn check_over(&self) -> Result<(), String> {
        match self.driver.slots_in_use() {
            0 => self.world.check_quiescent(self.number),
            slots => return Err(format!("the client keeps {slots} slots")),
        }
        Ok(())
    }
}

/// The same with TLS.
pub fn connect_securely_to(courier: &Arc<Courier>, port: u16, path: &str) -> Connect {
    through(connect(format!("wss://10.9.9.9:{port}{path}")), courier).tls(secure::connector())
}

/// A connection to be made through a simulated driver.
pub fn connect_to(courier: &Arc<Courier>, port: u16, path: &str) -> Connect {
    through(connect(format!("ws://10.9.9.9:{port}{path}")), courier)
}

/// Futures and who of them has been woken. Nobody is polled unasked, so whom the code forgets to wake is stuck.
#[derive(Default)]
pub struct Tasks {
    tasks: Vec<Task>,
}

struct Task {
    future: Option<Pin<Box<dyn Future<Output = ()>>>>,
    woken: Arc<Woken>,
}

struct Woken(AtomicBool);

impl std::task::Wake for Woken {
    fn wake(self: Arc<Woken>) {
        self.0.store(true, Ordering::SeqCst);
    }
}

impl Tasks {
    pub fn spawn(&mut self, future: impl Future<Output = ()> + 'static) {
        self.tasks.push(Task { future: Some(Box::pin(future)), woken: Arc::new(Woken(AtomicBool::new(true))) });
    }

    /// Polls who was woken, each with some chance; whether anybody was.
    pub fn poll(&mut self, chance: f64, rng: &mut Rng) -> bool {
        let mut any = false;
        for task in &mut self.tasks {
            let Some(future) = &mut task.future else { continue };
            if !task.woken.0.load(Ordering::SeqCst) {
                continue;
            }
            any = true;
            if !rng.chance(chance) {
                continue;
            }
            task.woken.0.store(false, Ordering::SeqCst);
            let waker = Waker::from(Arc::clone(&task.woken));
            if future.as_mut().poll(&mut Context::from_waker(&waker)).is_ready() {
                task.future = None;
            }
        }
        any
    }

    /// The numbers of those that are not done.
    pub fn left(&self) -> Vec<usize> {
        (0..self.tasks.len()).filter(|&n| self.tasks[n].future.is_some()).collect()
    }
}

/// Lets the others go first, once.
pub async fn yield_now() {
    let mut yielded = false;
    std::future::poll_fn(|cx| {
        if std::mem::replace(&mut yielded, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// What one direction of a cable holds that the far side has not taken.
const CABLE_BYTES: usize = 2_000;

/// Carries bytes, ends and resets between two simulated connections: from the client's core to a server's.
pub struct Cable {
    pub near: Client,
    pub far: Client,
    /// Ends that have been passed on, from the near side and from the far one.
    ended: [bool; 2],
    /// It carries nothing any more, and nobody is told.
    pub is_cut: bool,
    broken: bool,
}

impl Cable {
    pub fn new(near: Client, far: Client) -> Cable {
        Cable { near, far, ended: [false; 2], is_cut: false, broken: false }
    }

    /// Whether a fault has broken it on either side.
    pub fn was_broken(&self) -> bool {
        self.is_cut || self.near.was_broken() || self.far.was_broken()
    }

    /// Carries what there is, at most so many bytes each way; whether there was anything.
    pub fn step(&mut self, bytes_max: usize) -> bool {
        let mut moved = false;
        for side in 0..2 {
            let (from, to) = if side == 0 { (&self.near, &self.far) } else { (&self.far, &self.near) };
            if self.is_cut || self.broken {
                return moved;
            }
            if to.unsent() < CABLE_BYTES {
                let bytes = from.read(bytes_max);
                if !bytes.is_empty() {
                    to.send(&bytes);
                    moved = true;
                }
            }
            if from.saw_fin() && !self.ended[side] {
                self.ended[side] = true;
                to.shutdown_write();
                moved = true;
            }
            // What came before a reset is delivered before it.
            if from.saw_reset() && to.unsent() == 0 {
                to.reset();
                self.broken = true;
                moved = true;
            }
        }
        moved
    }
}

/// How a peer that is no server behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    /// Says nothing, ever.
    Silent,
    /// Closes at once.
    HangsUp,
    /// Breaks the connection off at once.
    Resets,
    /// Answers something that is no HTTP.
    Babbles,
    /// Answers with half of a head, and closes.
    Breaks,
    /// Answers with a status other than 101, and a body that comes in pieces.
    Refuses,
    /// Accepts with a key that is not the right one.
    Forges,
    /// Opens the WebSocket, sends a message, and then what no server may send.
    Lies,
    /// Opens the WebSocket, sends a message, and then half a frame and its end.
    Stops,
    /// Opens the WebSocket, pings until it was answered some times, and never answers a ping with what it said; then goes
    /// on as [`Manner::Stops`].
    Asks,
}

impl Manner {
    pub const ALL: [Manner; 10] = [
        Manner::Silent,
        Manner::HangsUp,
        Manner::Resets,
        Manner::Babbles,
        Manner::Breaks,
        Manner::Refuses,
        Manner::Forges,
        Manner::Lies,
        Manner::Stops,
        Manner::Asks,
    ];

    /// Whether the WebSocket opens.
    pub fn opens(self) -> bool {
        matches!(self, Manner::Lies | Manner::Stops | Manner::Asks)
    }
}

/// What [`Manner::Lies`], [`Manner::Stops`] and [`Manner::Asks`] send before they err.
pub const GREETING: &str = "hello";

/// How often [`Manner::Asks`] asks.
const QUESTIONS: usize = 3;

/// What it asks: each time something else, of another length.
fn question(nth: usize) -> Vec<u8> {
    format!("question {nth}").repeat(nth).into_bytes()
}

/// A peer with a [`Manner`].
pub struct Peer {
    socket: Socket,
    manner: Manner,
    request: Vec<u8>,
    to_write: VecDeque<Vec<u8>>,
    began: bool,
    /// Its pings that were answered.
    answered: usize,
    wrong_pong: Option<Vec<u8>>,
}

impl Peer {
    pub fn new(socket: Socket, manner: Manner) -> Peer {
        let (request, to_write) = (Vec::new(), VecDeque::new());
        Peer { socket, manner, request, to_write, began: false, answered: 0, wrong_pong: None }
    }

    /// What answered a ping of its own without saying the same, or answered none.
    pub fn wrong_pong(&self) -> Option<&[u8]> {
        self.wrong_pong.as_deref()
    }

    /// Does the next thing; whether there was any.
    pub fn step(&mut self) -> bool {
        let read = self.socket.read(usize::MAX);
        if self.socket.client.is_closed() {
            self.socket.close();
            return false;
        }
        self.request.extend_from_slice(&read);
        if !self.began {
            return self.begin();
        }
        if self.manner == Manner::Asks {
            self.hear();
        }
        match self.to_write.pop_front() {
            Some(bytes) if bytes.is_empty() => self.socket.close(),
            Some(bytes) => self.socket.send(&bytes),
            None => return !read.is_empty(),
        }
        true
    }

    /// Reads frames: pongs to its questions, and pings, which it answers wrong.
    fn hear(&mut self) {
        while let Some((opcode, mut payload)) = wire::take_frame(&mut self.request) {
            match opcode {
                wire::PING => {
                    payload.reverse();
                    payload.push(0);
                    self.to_write.push_back(control(wire::PONG, &payload));
                }
                // Whoever has said Close answers no more pings (RFC 6455 5.5.1): there is nothing to wait for.
                wire::CLOSE if self.answered < QUESTIONS => {
                    self.answered = QUESTIONS;
                    self.to_write.extend(stop());
                }
                wire::PONG if payload == question(self.answered) && self.answered < QUESTIONS => {
                    self.answered += 1;
                    match self.answered {
                        QUESTIONS => self.to_write.extend(stop()),
                        nth => self.to_write.push_back(control(wire::PING, &question(nth))),
                    }
                }
                wire::PONG => self.wrong_pong = Some(payload),
                _ => {}
            }
        }
    }

    fn begin(&mut self) -> bool {
        match self.manner {
            Manner::Silent => return false,
            Manner::HangsUp => self.socket.close(),
            Manner::Resets => self.socket.reset(),
            _ => {
                let Some(key) = wire::key_of(&self.request) else { return false };
                self.request.clear();
                self.answer(&key);
            }
        }
        self.began = true;
        true
    }

    /// Plans what to say; an empty piece is the end.
    fn answer(&mut self, key: &str) {
        let pieces = match self.manner {
            Manner::Babbles => vec![b"220 smtp.test ESMTP\r\n\r\n".to_vec()],
            Manner::Breaks => vec![b"HTTP/1.1 101 Switching Protocols\r\nUpgr".to_vec(), vec![]],
            Manner::Refuses => vec![
                b"HTTP/1.1 103 Early Hints\r\n\r\n".to_vec(),
                b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 8\r\n\r\nnot".to_vec(),
                b" now.".to_vec(),
            ],
            Manner::Forges => vec![wire::switching("bm90IHRoZSByaWdodCBrZXk=")],
            // RFC 6455 5.1: a server must not mask.
            Manner::Lies => vec![wire::switching(key), greeting(), vec![0x81, 0x81, 1, 2, 3, 4, 5]],
            Manner::Stops => [vec![wire::switching(key)], stop().to_vec()].concat(),
            Manner::Asks => vec![wire::switching(key), control(wire::PING, &question(0))],
            Manner::Silent | Manner::HangsUp | Manner::Resets => Vec::new(),
        };
        self.to_write.extend(pieces);
    }
}

fn control(opcode: u8, payload: &[u8]) -> Vec<u8> {
    [&[0x80 | opcode, payload.len() as u8], payload].concat()
}

fn greeting() -> Vec<u8> {
    [&[0x81, GREETING.len() as u8], GREETING.as_bytes()].concat()
}

/// A message, half a frame, and the end.
fn stop() -> [Vec<u8>; 3] {
    [greeting(), vec![0x82, 126, 1, 0, 7], vec![]]
}
