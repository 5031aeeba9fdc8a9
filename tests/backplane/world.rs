//! Nodes, their cores' members, the bus between them, and chance.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use data_encoding::BASE64URL_NOPAD;
use ringwire::ConnectionId;
use ringwire::backplane::node::{Cores, Identity, Manner, Node, Output, ReplyTo};
use ringwire::backplane::{Ask, Reply};
use ringwire::engine::sim::Rng;
use ringwire::hub::{Delivery, Publication, Scope};
use ringwire::outbox::FrameBuf;
use ringwire::proto::frame::Opcode;

use crate::bus::{Bus, Faults};
use crate::oracle::{Oracle, Scale};

const CORES: usize = 2;
const TIMEOUT_NS: u64 = 5_000_000_000;
const MS: u64 = 1_000_000;
/// Every node has a member in it, always.
const WATCHED: &str = "watched";
/// What a bus that takes little takes of one message.
const PAYLOAD_MAX: usize = 1_500;
/// Whoever has been somewhere for so long is known to be.
const KNOWN_NS: u64 = 150 * MS;
/// How long a connection to the bus that is cut is not known to be.
const NOTICE_NS: u64 = 1_500 * MS;

/// So many are enough.
const MEMBERS_MAX: usize = 50;

/// What chance may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    Change,
    Publish,
    All,
    Route,
    Ask,
    Fault,
}

struct Member {
    node: usize,
    core: usize,
    id: ConnectionId,
    is_alive: bool,
    since_ns: u64,
    rooms: BTreeMap<String, u64>,
}

struct Host {
    node: Node,
    number: u32,
    is_alive: bool,
    is_stopped: bool,
    was_refused: bool,
    /// What it has asked the bus for; the client remembers it.
    wanted: BTreeSet<String>,
    /// Members elsewhere, as its cores know.
    view: BTreeMap<String, u32>,
    others: (usize, u64),
    /// When the cut is noticed, and when it ends.
    cut: Option<(u64, u64)>,
    is_connected: bool,
    runs_again_ns: Option<u64>,
}

pub struct World {
    seed: u64,
    rng: Rng,
    faults: Faults,
    now_ns: u64,
    bus: Bus,
    hosts: Vec<Host>,
    names: Vec<String>,
    members: Vec<Member>,
    pub oracle: Oracle,
    messages: u64,
    tokens: u64,
    /// Names of killed nodes, and when they are started again.
    restarts: Vec<(u64, String)>,
    answers: BTreeMap<u64, Option<bool>>,
    outside: Vec<(Vec<u8>, usize)>,
    /// Replies that take their time.
    replies: Vec<(u64, usize, ReplyTo, Reply)>,
}

fn id_of(node: u32, core: usize, slot: usize) -> ConnectionId {
    let mut bytes = [7; 16];
    bytes[0..2].copy_from_slice(&(core as u16 | ((node >> 16) as u16) << 10).to_be_bytes());
    bytes[2..5].copy_from_slice(&(slot as u32).to_be_bytes()[1..]);
    bytes[9..11].copy_from_slice(&(node as u16).to_be_bytes());
    BASE64URL_NOPAD.encode(&bytes).parse().expect("an id")
}

impl World {
    pub fn new(seed: u64, nodes: usize, faults: Faults) -> World {
        let mut world = World {
            seed,
            rng: Rng::new(seed),
            faults,
            now_ns: 1_000_000_000,
            bus: Bus::default(),
            hosts: Vec::new(),
            names: Vec::new(),
            members: Vec::new(),
            oracle: Oracle::default(),
            messages: 0,
            tokens: 0,
            restarts: Vec::new(),
            answers: BTreeMap::new(),
            outside: Vec::new(),
            replies: Vec::new(),
        };
        for node in 0..nodes {
            world.add(&format!("node-{node}"));
        }
        world
    }

    /// Starts a node of this name.
    pub fn add(&mut self, name: &str) -> usize {
        let index = self.hosts.len();
        let number = 0x1_0000 * (self.rng.below(60) as u32 + 1) + index as u32;
        let identity = Identity {
            prefix: "sim".into(),
            name: name.into(),
            number,
            started_ns: self.now_ns + index as u64,
            timeout_ns: TIMEOUT_NS,
            message_bytes_max: 1 << 20,
        };
        self.names.push(name.into());
        self.hosts.push(Host {
            node: Node::new(identity, self.now_ns),
            number,
            is_alive: true,
            is_stopped: false,
            was_refused: false,
            wanted: BTreeSet::new(),
            view: BTreeMap::new(),
            others: (0, 0),
            cut: None,
            is_connected: true,
            runs_again_ns: None,
        });
        self.bus.add();
        self.hosts[index].node.connected(PAYLOAD_MAX, self.now_ns);
        self.join(index, 0, WATCHED);
        index
    }

    // ---- time -----------------------------------------------------------------------------------------------------

    pub fn now_ms(&self) -> u64 {
        self.now_ns / MS
    }

    pub fn step(&mut self) {
        self.now_ns += MS / 2 + self.rng.below(4 * MS);
        self.run();
    }

    pub fn settle(&mut self, ms: u64) {
        let end_ns = self.now_ns + ms * MS;
        while self.now_ns < end_ns {
            self.step();
        }
    }

    pub fn act_for(&mut self, ms: u64, acts: &[Act]) {
        let end_ns = self.now_ns + ms * MS;
        while self.now_ns < end_ns {
            let act = self.rng.pick(acts);
            self.act(act);
            self.step();
        }
    }

    fn listens(&self, node: usize) -> bool {
        self.hosts[node].is_alive && !self.hosts[node].is_stopped
    }

    fn run(&mut self) {
        let (due, later) = std::mem::take(&mut self.restarts).into_iter().partition(|(at_ns, _)| *at_ns <= self.now_ns);
        self.restarts = later;
        let due: Vec<(u64, String)> = due;
        for (_, name) in due {
            self.add(&name);
        }
        for node in 0..self.hosts.len() {
            self.mend(node);
        }
        let (due, later): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.replies).into_iter().partition(|(at_ns, ..)| *at_ns <= self.now_ns);
        self.replies = later;
        for (_, node, to, reply) in due {
            if self.listens(node) {
                self.hosts[node].node.answered(to, &reply, self.now_ns);
            }
        }
        loop {
            let listening: Vec<bool> = (0..self.hosts.len()).map(|node| self.listens(node)).collect();
            let Some(message) = self.bus.next(self.now_ns, |to| listening[to]) else { break };
            let node = &mut self.hosts[message.to].node;
            node.received(&message.subject, message.payload, None, Manner::default(), self.now_ns);
            self.pass_on(message.to);
        }
        for node in 0..self.hosts.len() {
            if self.listens(node) {
                let connections = self.members.iter().filter(|member| member.node == node && member.is_alive).count();
                let host = &mut self.hosts[node];
                host.node.connections(connections as u64);
                if host.node.due_ns() <= self.now_ns {
                    host.node.tick(self.now_ns);
                }
                host.node.flush(self.now_ns);
                self.pass_on(node);
            }
        }
    }

    fn mend(&mut self, node: usize) {
        let now_ns = self.now_ns;
        let host = &mut self.hosts[node];
        if host.runs_again_ns.is_some_and(|at_ns| at_ns <= now_ns) {
            host.runs_again_ns = None;
            host.is_stopped = false;
        }
        let Some((notice_ns, end_ns)) = host.cut else { return };
        if host.is_stopped || !host.is_alive {
            return;
        }
        if notice_ns <= now_ns && host.is_connected {
            host.is_connected = false;
            host.node.disconnected(now_ns);
            self.bus.forget(node);
            self.pass_on(node);
        }
        if end_ns <= now_ns {
            self.bus.mend(node);
            let host = &mut self.hosts[node];
            host.cut = None;
            if !std::mem::replace(&mut host.is_connected, true) {
                let wanted = host.wanted.clone();
                wanted.into_iter().for_each(|subject| self.bus.subscribe(node, subject));
                self.hosts[node].node.connected(PAYLOAD_MAX, now_ns);
                self.pass_on(node);
            }
        }
    }

    // ---- what nodes say -------------------------------------------------------------------------------------------

    fn pass_on(&mut self, node: usize) {
        while let Some(output) = self.hosts[node].node.next_output() {
            match output {
                Output::Subscribe(subject) => {
                    self.hosts[node].wanted.insert(subject.clone());
                    if self.hosts[node].is_connected {
                        self.bus.subscribe(node, subject);
                    }
                }
                Output::Unsubscribe(subject) => {
                    self.hosts[node].wanted.remove(&subject);
                    self.bus.unsubscribe(node, &subject);
                }
                Output::Publish(subject, payload) => {
                    assert!(payload.len() <= PAYLOAD_MAX, "{} bytes to {subject}", payload.len());
                    // The first bytes of a part: the version, three of the number, the kind.
                    self.oracle.scale.parts += u64::from(payload.len() > PAYLOAD_MAX - 64);
                    if self.hosts[node].is_connected {
                        let before = self.bus.doubled;
                        self.bus.publish(node, &subject, &payload, self.now_ns, self.faults, &mut self.rng);
                        self.oracle.scale.doubled += self.bus.doubled - before;
                    }
                }
                Output::Deliver { scope, publication: Publication { frame, except, .. }, cores } => {
                    self.deliver(node, &scope, &frame, except, &cores);
                }
                Output::Members(room, members) => {
                    match members {
                        0 => self.hosts[node].view.remove(&*room),
                        _ => self.hosts[node].view.insert(room.to_string(), members),
                    };
                }
                Output::Others(nodes, connections) => self.hosts[node].others = (nodes, connections),
                Output::Told { room, ids, back, .. } if &*room == WATCHED => {
                    for id in ids {
                        let member = self.members.iter().position(|member| member.id == id).expect("a member");
                        self.oracle.told(node, member, back);
                    }
                }
                Output::Told { .. } | Output::Left(_) => {}
                Output::Ask(to, ask) => self.be_asked(node, to, ask),
                Output::Answer(token, reply) => {
                    let answer = reply.map(|reply| match reply {
                        Reply::Delivery(delivery) => delivery.queued == 1,
                        other => panic!("{other:?}"),
                    });
                    self.oracle.answered(token, answer);
                    assert!(self.answers.insert(token, answer).is_none(), "question {token} is answered twice");
                }
                Output::Joined => self.hosts[node].was_refused = false,
                Output::Refused => self.hosts[node].was_refused = true,
            }
        }
    }

    fn deliver(&mut self, node: usize, scope: &Scope, frame: &FrameBuf, except: Option<ConnectionId>, cores: &Cores) {
        let payload = payload(frame);
        let is_there = |core: usize| match cores {
            Cores::All => true,
            Cores::These(cores) => cores.contains(&(core as u16)),
        };
        let to: Vec<usize> = (0..self.members.len())
            .filter(|&index| {
                let member = &self.members[index];
                let is_meant = match scope {
                    Scope::Room(room) => member.rooms.contains_key(&**room),
                    _ => true,
                };
                member.node == node && member.is_alive && is_meant && except != Some(member.id)
            })
            .collect();
        if let (Scope::Room(room), None) = (scope, except) {
            let on = |core: usize| to.iter().any(|&member| self.members[member].core == core);
            assert!((0..CORES).all(|core| is_there(core) == on(core)), "seed {}: cores of {room}", self.seed);
        }
        let text = String::from_utf8_lossy(&payload).into_owned();
        let fields: Vec<&str> = text.split('|').collect();
        let Ok(number) = fields[0].parse() else {
            self.outside.extend(to.into_iter().map(|member| (payload.clone(), member)));
            return;
        };
        let from = (fields[1].parse().expect("a node"), fields[2].parse().expect("a core"));
        for member in to {
            self.oracle.delivered(member, number, from, fields[3]);
        }
    }

    fn be_asked(&mut self, node: usize, to: ReplyTo, ask: Ask) {
        let Ask::Emit { id, frame, .. } = ask else { panic!("{ask:?}") };
        let payload = payload(&frame);
        let member = self.members.iter().position(|member| member.id == id && member.node == node && member.is_alive);
        if let Some(member) = member {
            match String::from_utf8_lossy(&payload).strip_prefix("ask ").and_then(|token| token.parse().ok()) {
                Some(token) => self.oracle.done(token),
                None => self.outside.push((payload, member)),
            }
        }
        let mut delivery = Delivery::default();
        *(if member.is_some() { &mut delivery.queued } else { &mut delivery.gone }) = 1;
        let at_ns = self.now_ns + self.rng.below(5 * MS);
        self.replies.push((at_ns, node, to, Reply::Delivery(delivery)));
    }

    // ---- what cores do --------------------------------------------------------------------------------------------

    /// A new member of a room.
    pub fn join(&mut self, node: usize, core: usize, room: &str) -> usize {
        let member = self.members.len();
        let id = id_of(self.hosts[node].number, core, member);
        let rooms = BTreeMap::new();
        self.members.push(Member { node, core, id, is_alive: true, since_ns: self.now_ns, rooms });
        self.enter(member, room);
        member
    }

    fn enter(&mut self, member: usize, room: &str) {
        self.members[member].rooms.insert(room.into(), self.now_ns);
        self.tell(member, room, true);
    }

    fn leave(&mut self, member: usize, room: &str) {
        self.oracle.left(member);
        self.members[member].rooms.remove(room);
        self.tell(member, room, false);
    }

    fn tell(&mut self, member: usize, room: &str, is_there: bool) {
        let Member { node, core, id, .. } = self.members[member];
        let is_in = |member: &&Member| member.node == node && member.core == core && member.rooms.contains_key(room);
        let members = self.members.iter().filter(|member| member.is_alive).filter(is_in).count();
        let name: Arc<str> = room.into();
        self.hosts[node].node.members(&name, core, members as u32, self.now_ns);
        self.hosts[node].node.member(&name, id, is_there);
        self.pass_on(node);
    }

    fn pick_node(&mut self) -> Option<usize> {
        let node = self.rng.below(self.hosts.len() as u64) as usize;
        self.listens(node).then_some(node)
    }

    fn pick_member(&mut self) -> Option<usize> {
        let member = self.rng.below(self.members.len() as u64) as usize;
        let of = &self.members[member];
        (of.is_alive && !of.rooms.contains_key(WATCHED) && self.listens(of.node)).then_some(member)
    }

    fn act(&mut self, act: Act) {
        let room = format!("r{}", self.rng.below(6));
        let core = self.rng.below(CORES as u64) as usize;
        match act {
            Act::Change => match self.rng.below(4) {
                0 | 1 if self.members() < MEMBERS_MAX => {
                    if let Some(node) = self.pick_node() {
                        self.join(node, core, &room);
                    }
                }
                2 => {
                    if let Some(member) = self.pick_member() {
                        match self.members[member].rooms.contains_key(&room) {
                            true => self.leave(member, &room),
                            false => self.enter(member, &room),
                        }
                    }
                }
                _ => {
                    if let Some(member) = self.pick_member() {
                        let rooms: Vec<String> = self.members[member].rooms.keys().cloned().collect();
                        self.members[member].is_alive = false;
                        rooms.iter().for_each(|room| self.leave(member, room));
                        self.oracle.left(member);
                    }
                }
            },
            Act::Publish => self.publish(Scope::Room(room.as_str().into()), &room, core),
            Act::All => self.publish(Scope::Everyone, "*", core),
            Act::Route => self.publish(Scope::Path("/ws/{room}".into()), "/", core),
            Act::Ask => {
                let member = self.rng.below(self.members.len() as u64) as usize;
                if let Some(node) = self.pick_node()
                    && self.members[member].node != node
                {
                    self.ask(node, self.members[member].id);
                }
            }
            Act::Fault => self.break_something(),
        }
    }

    fn publish(&mut self, scope: Scope, name: &str, core: usize) {
        let Some(node) = self.pick_node() else { return };
        self.messages += 1;
        let number = self.messages;
        let filling = if self.rng.chance(0.05) { "x".repeat(self.rng.below(6_000) as usize) } else { String::new() };
        let frame = FrameBuf::new(Opcode::Text, format!("{number}|{node}|{core}|{name}|{filling}").as_bytes());
        let except = self.rng.chance(0.1).then(|| self.rng.below(self.members.len() as u64) as usize);
        let known_ns = self.now_ns - KNOWN_NS;
        for (index, member) in self.members.iter().enumerate() {
            let since_ns = match &scope {
                Scope::Room(room) => member.rooms.get(&**room).copied(),
                _ => Some(member.since_ns),
            };
            // Where messages are lost, nobody is owed one.
            let is_owed =
                self.faults.loss == 0.0 && since_ns.is_some_and(|since_ns| since_ns < known_ns) && member.is_alive;
            if is_owed && member.node != node && self.hosts[member.node].is_alive && except != Some(index) {
                self.oracle.owe(index, number);
            }
        }
        let host = &mut self.hosts[node];
        // What a core asks itself before it hands on anything.
        let is_wanted = match &scope {
            Scope::Room(room) => host.view.contains_key(&**room),
            _ => host.others.0 > 0,
        };
        if is_wanted {
            self.oracle.scale.published += 1;
            let except = except.map(|member| self.members[member].id);
            let _ = host.node.publish(&scope, &Publication { except, ..frame.into() });
        }
    }

    pub fn ask(&mut self, node: usize, id: ConnectionId) -> u64 {
        self.tokens += 1;
        let frame = FrameBuf::new(Opcode::Text, format!("ask {}", self.tokens).as_bytes());
        self.hosts[node].node.ask(id.node(), &Ask::Emit { id, frame, key: None }, self.tokens, self.now_ns);
        self.pass_on(node);
        self.tokens
    }

    pub fn answer(&self, token: u64) -> Option<Option<bool>> {
        self.answers.get(&token).copied()
    }

    // ---- what goes wrong ------------------------------------------------------------------------------------------

    fn break_something(&mut self) {
        let faults = self.faults;
        let Some(node) = self.pick_node() else { return };
        // It was asked in one step of several: as often as the faults say of all steps.
        if self.rng.chance(faults.kills * 6.0) {
            self.oracle.scale.kills += 1;
            self.kill(node);
            let at_ns = self.now_ns + self.rng.below(9_000 * MS);
            self.restarts.push((at_ns, self.names[node].clone()));
        } else if self.rng.chance(faults.stops * 6.0) {
            self.oracle.scale.stops += 1;
            self.stop(node);
            self.hosts[node].runs_again_ns = Some(self.now_ns + self.rng.below(9_000 * MS));
        } else if self.rng.chance(faults.cuts * 6.0) && self.hosts[node].cut.is_none() {
            self.oracle.scale.cuts += 1;
            self.bus.cut(node);
            let end_ns = self.now_ns + self.rng.below(9_000 * MS);
            self.hosts[node].cut = Some((self.now_ns + NOTICE_NS, end_ns));
        }
    }

    pub fn kill(&mut self, node: usize) {
        self.hosts[node].is_alive = false;
        self.bus.forget(node);
        for member in 0..self.members.len() {
            if self.members[member].node == node {
                self.members[member].is_alive = false;
                self.oracle.left(member);
            }
        }
    }

    /// It says that it ends.
    pub fn end(&mut self, node: usize) {
        self.hosts[node].node.end(self.now_ns);
        self.pass_on(node);
        self.kill(node);
    }

    pub fn stop(&mut self, node: usize) {
        self.hosts[node].is_stopped = true;
    }

    pub fn cont(&mut self, node: usize) {
        self.hosts[node].is_stopped = false;
    }

    /// Nothing goes wrong from now on, and all that is broken is mended.
    pub fn heal(&mut self) {
        self.faults = Faults { loss: 0.0, doubled: 0.0, cuts: 0.0, kills: 0.0, stops: 0.0, ..self.faults };
        for host in &mut self.hosts {
            host.is_stopped = false;
            host.cut = host.cut.map(|(notice_ns, _)| (notice_ns, self.now_ns));
        }
        self.restarts.iter_mut().for_each(|(at_ns, _)| *at_ns = self.now_ns);
    }

    /// From now on so many of the messages are lost.
    pub fn lose(&mut self, loss: f64) {
        self.faults.loss = loss;
    }

    pub fn garbage(&mut self, count: usize) {
        for _ in 0..count {
            let to = self.rng.below(self.hosts.len() as u64) as usize;
            let wanted: Vec<String> = self.hosts[to].wanted.iter().cloned().collect();
            let at = self.rng.below(wanted.len() as u64) as usize;
            let subject = wanted[at].replace('*', "ask").replace("in.>", "in.id.x");
            let mut payload = vec![0; self.rng.below(60) as usize];
            self.rng.fill(&mut payload);
            // As a node would begin.
            let kind = self.rng.below(9) as u8;
            let head = [1, 9, kind];
            let len = payload.len().min(3);
            payload[..len].copy_from_slice(&head[..len]);
            if payload.len() > 8 && self.rng.chance(0.5) {
                payload[3..].iter_mut().for_each(|byte| *byte &= 3);
            }
            self.hosts[to].node.received(&subject, payload.into(), None, Manner::default(), self.now_ns);
            // Another node may have been made up: it comes to nothing.
            while self.hosts[to].node.next_output().is_some() {}
        }
        self.settle(12_000);
    }

    // ---- looking --------------------------------------------------------------------------------------------------

    pub fn publish_from_outside(&mut self, subject: &str, payload: &[u8]) {
        // As somebody who is none of the nodes.
        self.bus.add();
        let from = usize::MAX;
        let payload = Bytes::copy_from_slice(payload);
        self.bus.publish(from, subject, &payload, self.now_ns, self.faults, &mut self.rng);
    }

    pub fn take_from_outside(&mut self, payload: &[u8]) -> Vec<usize> {
        let (taken, left) = std::mem::take(&mut self.outside).into_iter().partition(|(got, _)| got == payload);
        self.outside = left;
        let taken: Vec<(Vec<u8>, usize)> = taken;
        let mut members: Vec<usize> = taken.into_iter().map(|(_, member)| member).collect();
        members.sort_unstable();
        members
    }

    pub fn id(&self, member: usize) -> ConnectionId {
        self.members[member].id
    }

    pub fn some_id(&self, node: usize) -> ConnectionId {
        self.members.iter().find(|member| member.node == node).expect("one at least").id
    }

    pub fn members(&self) -> usize {
        self.members.iter().filter(|member| member.is_alive).count()
    }

    pub fn count_at(&self, node: usize, room: &str) -> u32 {
        self.hosts[node].view.get(room).copied().unwrap_or(0)
    }

    pub fn others_at(&self, node: usize) -> usize {
        self.hosts[node].others.0
    }

    pub fn was_refused(&self, node: usize) -> bool {
        self.hosts[node].was_refused
    }

    pub fn is_joined(&self, node: usize) -> bool {
        self.hosts[node].is_alive && self.hosts[node].node.is_joined()
    }

    pub fn scale(&self) -> Scale {
        self.oracle.scale
    }

    /// Everybody knows what is true of all who live.
    pub fn check_at_rest(&self) {
        let seed = self.seed;
        let alive: Vec<usize> = (0..self.hosts.len()).filter(|node| self.hosts[*node].is_alive).collect();
        assert!(alive.iter().all(|node| self.hosts[*node].node.is_joined()), "seed {seed}: not all are joined");
        let mut rooms: BTreeSet<&str> =
            self.hosts.iter().flat_map(|host| host.view.keys()).map(|room| &**room).collect();
        rooms.extend(self.members.iter().flat_map(|member| member.rooms.keys()).map(|room| &**room));
        for &node in &alive {
            let host = &self.hosts[node];
            let is_of_others = |member: &&Member| member.is_alive && member.node != node;
            for room in &rooms {
                let is_in = |member: &&Member| member.rooms.contains_key(*room);
                let elsewhere = self.members.iter().filter(is_of_others).filter(is_in).count();
                let known = host.view.get(*room).copied().unwrap_or(0) as usize;
                assert_eq!(known, elsewhere, "seed {seed}: node {node} on {room}");
                assert_eq!(host.node.members_elsewhere(room), elsewhere as u64, "seed {seed}: node {node} on {room}");
                let here = self.members.iter().any(|it| it.is_alive && it.node == node && it.rooms.contains_key(*room));
                let subject = format!("sim.room.{room}");
                assert_eq!(self.bus.is_listening(node, &subject), here, "seed {seed}: node {node} to {room}");
            }
            let connections = self.members.iter().filter(is_of_others).count();
            assert_eq!(host.others, (alive.len() - 1, connections as u64), "seed {seed}: others of node {node}");
            for member in self.oracle.believed_lost(node) {
                let of = &self.members[member];
                assert!(!of.is_alive, "seed {seed}: node {node} was not told that member {member} is there again");
            }
        }
    }
}

fn payload(frame: &FrameBuf) -> Vec<u8> {
    let bytes = frame.bytes();
    let start = if bytes[1] < 126 { 2 } else { 4 };
    bytes[start..].to_vec()
}
