//! Lines of several nodes on a model of JetStream, which delays what goes to a node by each of its ways for itself, loses some of it,
//! goes away, and is made anew.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use serde_json::{Value, json};

use super::*;
use crate::chance::Chance;
use crate::config::History;
use crate::hub::{Found, Numbered, Since};
use crate::outbox::FrameBuf;
use crate::proto::frame::Opcode;

const ROOMS: [&str; 3] = ["a", "b", "c"];
const MS: u64 = 1_000_000;

/// What was ever stored under a number.
struct Stored {
    subject: String,
    payload: Bytes,
    is_there: bool,
}

struct Stream {
    config: Value,
    created: u64,
    all: BTreeMap<u64, Stored>,
}

/// What a node is sent, by its ways.
#[derive(Default)]
struct Ways {
    kept: VecDeque<Arrived>,
    own: VecDeque<Arrived>,
    listens: BTreeSet<String>,
}

struct Model {
    now_ns: u64,
    stream: Option<Stream>,
    made: u64,
    per_room_max: usize,
    is_off: bool,
    consumers: BTreeMap<String, VecDeque<u64>>,
    nodes: Vec<(Line, Ways, bool)>,
    /// By epoch.
    logs: BTreeMap<u64, BTreeMap<u64, (String, Option<String>)>>,
    /// By node and room: what was passed on last.
    passed: BTreeMap<(usize, String), (u64, u64)>,
    heard: BTreeMap<usize, Vec<(String, u64, String)>>,
    sought: Vec<(usize, u64, Option<Box<Found>>)>,
    words: Vec<(usize, Word)>,
    modes: BTreeMap<usize, Mode>,
    apart: usize,
    loses: bool,
    /// What a step takes, at most.
    step_ns: u64,
}

fn text_of(frame: &FrameBuf) -> String {
    let (_, payload) = frame.parts().expect("a message");
    String::from_utf8(payload.to_vec()).expect("text")
}

fn message(text: &str) -> Publication {
    FrameBuf::new(Opcode::Text, text.as_bytes()).into()
}

impl Model {
    fn new(nodes: usize, kept_max: u32) -> Model {
        let histories = Arc::new(Histories::new([History::last(kept_max)]));
        let line = |node: usize| {
            let settings = LineSettings {
                prefix: "p".into(),
                node: node as u32 + 1,
                storage: NatsHistory::Memory,
                bytes_max: 1 << 20,
                patience_ns: 500 * MS,
                unix_ns: 0,
                nonce: format!("n{node}"),
            };
            (Line::new(settings, Arc::clone(&histories)), Ways::default(), false)
        };
        Model {
            now_ns: 0,
            stream: None,
            made: 0,
            per_room_max: kept_max as usize,
            is_off: false,
            consumers: BTreeMap::new(),
            nodes: (0..nodes).map(line).collect(),
            logs: BTreeMap::new(),
            passed: BTreeMap::new(),
            heard: BTreeMap::new(),
            sought: Vec::new(),
            words: Vec::new(),
            modes: BTreeMap::new(),
            apart: 0,
            loses: false,
            step_ns: 2 * MS,
        }
    }

    fn connect(&mut self, node: usize) {
        self.nodes[node].2 = true;
        let now_ns = self.now_ns;
        self.nodes[node].0.connected(1 << 20, now_ns);
        self.work(node);
    }

    fn cut(&mut self, node: usize) {
        let (line, ways, is_connected) = &mut self.nodes[node];
        *is_connected = false;
        ways.kept.clear();
        ways.own.clear();
        line.disconnected();
        self.work(node);
    }

    fn work(&mut self, node: usize) {
        while let Some(out) = self.nodes[node].0.next_output() {
            match out {
                Out::Subscribe(subject) => drop(self.nodes[node].1.listens.insert(subject)),
                Out::Unsubscribe(subject) => drop(self.nodes[node].1.listens.remove(&subject)),
                Out::Share(_) | Out::Stored { .. } | Out::Refused(_) => {}
                Out::Publish { subject, reply, payload, .. } => {
                    if self.nodes[node].2 {
                        self.publish(node, &subject, reply, &payload);
                    }
                }
                Out::Numbered { room, numbered, .. } => self.judge(node, &room, numbered),
                Out::Unnumbered { .. } => self.apart += 1,
                Out::Sought { token, found, .. } => {
                    if let Some(found) = &found {
                        self.judge_found(found, token);
                    }
                    self.sought.push((node, token, found));
                }
                Out::Mode(mode) => drop(self.modes.insert(node, mode)),
                Out::Release(room) => {
                    // Its owner has nothing any more that the next message could follow.
                    self.passed.remove(&(node, room.to_string()));
                    self.nodes[node].0.released(&room);
                }
                Out::Say(word) => self.words.push((node, word)),
            }
        }
    }

    // ---- the server -----------------------------------------------------------------------------------------------

    fn answer(&mut self, node: usize, reply: Option<String>, arrived: Arrived) {
        if let Some(subject) = reply {
            self.nodes[node].1.own.push_back(Arrived { subject, ..arrived });
        }
    }

    fn say(&mut self, node: usize, reply: Option<String>, what: &Value) {
        self.answer(node, reply, Arrived { payload: what.to_string().into(), ..Arrived::default() });
    }

    fn nothing(&mut self, node: usize, reply: Option<String>, status: u16) {
        self.answer(node, reply, Arrived { status: Some(status), ..Arrived::default() });
    }

    fn publish(&mut self, node: usize, subject: &str, reply: Option<String>, payload: &Bytes) {
        let body: Value = serde_json::from_slice(payload).unwrap_or_default();
        if self.is_off {
            return self.nothing(node, reply, 503);
        }
        match subject.strip_prefix("$JS.API.") {
            Some(api) if api.starts_with("STREAM.INFO") => match &self.stream {
                Some(stream) => {
                    let last = stream.all.last_key_value().map_or(0, |(seq, _)| *seq);
                    let told = json!({ "created": stream.created.to_string(), "config": stream.config, "state": { "last_seq": last } });
                    self.say(node, reply, &told);
                }
                None => self.say(node, reply, &json!({ "error": { "err_code": 10_059 } })),
            },
            Some(api) if api.starts_with("STREAM.CREATE") => {
                if self.stream.is_some() {
                    return self.say(node, reply, &json!({ "error": { "err_code": 10_058 } }));
                }
                self.made += 1;
                self.stream = Some(Stream { config: body.clone(), created: self.made, all: BTreeMap::new() });
                let told = json!({ "created": self.made.to_string(), "config": body, "state": { "last_seq": 0 } });
                self.say(node, reply, &told);
            }
            Some(api) if api.starts_with("DIRECT.GET") => {
                let Some(stream) = &self.stream else { return self.nothing(node, reply, 503) };
                let there = || stream.all.iter().filter(|(_, stored)| stored.is_there);
                let found = match body["last_by_subj"].as_str() {
                    Some(subject) => there().rfind(|(_, stored)| stored.subject == subject),
                    None => there().next(),
                };
                match found.map(|(seq, _)| *seq) {
                    Some(seq) => self.answer(node, reply, Arrived { seq: Some(seq), ..Arrived::default() }),
                    None => self.nothing(node, reply, 404),
                }
            }
            Some(api) if api.starts_with("CONSUMER.CREATE") => {
                let Some(stream) = &self.stream else { return self.nothing(node, reply, 503) };
                let config = &body["config"];
                let (from, subject) = (config["opt_start_seq"].as_u64(), config["filter_subject"].as_str());
                let is_of = |seq: u64, stored: &Stored| {
                    stored.is_there && Some(seq) >= from && Some(&*stored.subject) == subject
                };
                let all: VecDeque<u64> =
                    stream.all.iter().filter(|(seq, stored)| is_of(**seq, stored)).map(|(seq, _)| *seq).collect();
                let name = format!("c{}", self.consumers.len());
                self.say(node, reply, &json!({ "name": name, "num_pending": all.len() }));
                self.consumers.insert(name, all);
            }
            Some(api) if api.starts_with("CONSUMER.MSG.NEXT") => {
                let name = api.rsplit('.').next().expect("a name").to_owned();
                for _ in 0..body["batch"].as_u64().expect("a number") {
                    let Some(all) = self.consumers.get_mut(&name) else { return };
                    let Some(seq) = all.pop_front() else { break };
                    let reply = format!("$JS.ACK.s.{name}.1.{seq}.1.0.{}", all.len());
                    let Some(stored) = self.stream.as_ref().and_then(|stream| stream.all.get(&seq)) else { return };
                    let (subject, payload) = (stored.subject.clone(), stored.payload.clone());
                    self.nodes[node].1.own.push_back(Arrived { subject, payload, reply: Some(reply), ..Arrived::default() });
                }
            }
            Some(_) => {}
            None => {
                let Some(seq) = self.store(subject, payload) else { return self.nothing(node, reply, 503) };
                self.say(node, reply, &json!({ "stream": "s", "seq": seq }));
            }
        }
    }

    /// Stores a message, and publishes it again.
    fn store(&mut self, subject: &str, payload: &Bytes) -> Option<u64> {
        let stream = self.stream.as_mut()?;
        let seq = stream.all.last_key_value().map_or(0, |(seq, _)| *seq) + 1;
        let of_subject = |(_, stored): &(&u64, &mut Stored)| stored.is_there && stored.subject == subject;
        let before = stream.all.iter_mut().filter(of_subject).map(|(seq, _)| *seq).last().unwrap_or(0);
        stream.all.insert(seq, Stored { subject: subject.into(), payload: payload.clone(), is_there: true });
        let mut there: Vec<&mut Stored> =
            stream.all.values_mut().filter(|stored| stored.is_there && stored.subject == subject).collect();
        if there.len() > self.per_room_max {
            there[0].is_there = false;
        }
        let room = subject.strip_prefix("p.hist.")?.to_owned();
        let dest = stream.config["republish"]["dest"].as_str()?.strip_suffix('>')?.to_owned() + &room;
        let nonce = dest.split('.').nth(2)?.to_owned();
        let epoch = epoch_of(&nonce, stream.created);
        let entry = Entry::read(payload.clone());
        let text = entry.publication.map(|publication| text_of(&publication.frame));
        self.logs.entry(epoch).or_default().insert(seq, (room, text));
        for (_, ways, is_connected) in &mut self.nodes {
            if *is_connected && ways.listens.contains(&dest) {
                let (seq, last_seq) = (Some(seq), Some(before));
                ways.kept.push_back(Arrived { subject: dest.clone(), payload: payload.clone(), seq, last_seq, ..Arrived::default() });
            }
        }
        Some(seq)
    }

    // ---- time -----------------------------------------------------------------------------------------------------

    /// Delivers something, by whichever way.
    fn step(&mut self, chance: &mut Chance) {
        self.now_ns += self.step_ns * chance.below(3) as u64 / 2;
        let node = chance.below(self.nodes.len());
        let (line, ways, _) = &mut self.nodes[node];
        let is_lost = self.loses && chance.below(20) == 0;
        let next = match chance.below(2) {
            0 => ways.kept.pop_front().filter(|_| !is_lost),
            _ => ways.own.pop_front(),
        };
        if let Some(arrived) = next {
            assert!(line.received(&arrived, self.now_ns), "{arrived:?}");
        }
        if line.due_ns() <= self.now_ns {
            line.tick(self.now_ns);
        }
        self.work(node);
    }

    fn settle(&mut self, chance: &mut Chance) {
        for count in 0.. {
            self.step(chance);
            if count >= 3_000 && self.nodes.iter().all(|(_, ways, _)| ways.kept.is_empty() && ways.own.is_empty()) {
                break;
            }
        }
    }

    // ---- the judge ------------------------------------------------------------------------------------------------

    fn judge(&mut self, node: usize, room: &str, numbered: Numbered) {
        let Numbered { epoch, offset, is_next, publication, is_known } = numbered;
        let frame = publication.map(|publication| publication.frame);
        let log = &self.logs[&epoch];
        let (of, text) = &log[&offset];
        assert_eq!(of, room);
        assert_eq!(frame.as_ref().map(text_of), *text);
        let before = self.passed.insert((node, room.to_owned()), (epoch, offset));
        if let Some((_, last)) = before.filter(|(of, _)| *of == epoch) {
            assert!(offset > last, "node {node}: {offset} behind {last}");
            let missed = log.range(last + 1..offset).filter(|(_, (of, _))| of == room).count();
            assert!(!is_next || missed == 0, "node {node}: {missed} are missing before {offset}");
        }
        if let Some(frame) = frame.filter(|_| !is_known) {
            self.heard.entry(node).or_default().push((room.to_owned(), offset, text_of(&frame)));
        }
    }

    fn judge_found(&self, found: &Found, token: u64) {
        let room = ROOMS[token as usize % ROOMS.len()];
        let log = self.logs.get(&found.epoch);
        let of_room = log.into_iter().flatten().filter(|(_, (of, _))| of == room);
        let within = of_room.filter(|(seq, _)| **seq > found.floor && **seq <= found.end);
        let expected: Vec<(u64, Option<String>)> = within.map(|(seq, (_, text))| (*seq, text.clone())).collect();
        let got: Vec<(u64, Option<String>)> =
            found.messages.iter().map(|message| (message.offset, Some(text_of(&message.frame)))).collect();
        assert_eq!(got, expected, "{room} above {} up to {}", found.floor, found.end);
    }

    fn epoch(&self) -> u64 {
        let stream = self.stream.as_ref().expect("a stream");
        let dest = stream.config["republish"]["dest"].as_str().expect("a subject");
        epoch_of(dest.split('.').nth(2).expect("a nonce"), stream.created)
    }
}

fn epoch_of(nonce: &str, created: u64) -> u64 {
    let config = json!({
        "subjects": ["p.hist.>"], "allow_direct": true, "republish": { "dest": format!("p.kept.{nonce}.>") },
    });
    let told = json!({ "created": created.to_string(), "config": config }).to_string();
    match read_stream(told.as_bytes(), &Subjects::new("p")) {
        Told::Stream(stream) => stream.epoch,
        other => panic!("{other:?}"),
    }
}

fn room(name: &str) -> Arc<str> {
    name.into()
}

/// Kills: a gap that nobody sees; a message that overtakes what is missing before it; an answer that claims more than it has.
#[test]
fn all_nodes_pass_on_the_same_line_whatever_is_lost_on_the_way() {
    for seed in 0..60 {
        let mut chance = Chance(seed);
        let mut model = Model::new(3, 1 + chance.below(40) as u32);
        model.loses = seed % 2 == 0;
        // The stream always answers in time.
        model.step_ns = MS / 5;
        (0..3).for_each(|node| model.connect(node));
        model.settle(&mut chance);
        assert!(model.modes.values().all(|mode| *mode == Mode::Shared(model.epoch())), "{:?}", model.modes);
        let mut token = 0;
        for round in 0..1_500 {
            let node = chance.below(3);
            let name = ROOMS[chance.below(3)];
            let now_ns = model.now_ns;
            match chance.below(12) {
                0..4 => model.nodes[node].0.number(room(name), message(&format!("{round}")), now_ns),
                4 => model.nodes[node].0.members(&room(name), chance.below(2) as u32, now_ns),
                5 => {
                    token += 1;
                    let name = ROOMS[token as usize % 3];
                    let offset = chance.below(300) as u64;
                    let since = match chance.below(4) {
                        0 => Since::Now,
                        1 => Since::Last(chance.below(20)),
                        _ => Since::Position(format!("{:016x}:{offset}", model.epoch()).parse().expect("a position")),
                    };
                    model.nodes[node].0.seek(room(name), since, 0, token, now_ns);
                }
                6 if chance.below(20) == 0 => model.nodes[node].0.doubt(now_ns),
                _ => model.step(&mut chance),
            }
            model.work(node);
        }
        model.loses = false;
        for node in 0..3 {
            for name in ROOMS {
                model.nodes[node].0.members(&room(name), 1, model.now_ns);
            }
            model.work(node);
        }
        model.settle(&mut chance);
        (0..3).for_each(|node| model.nodes[node].0.doubt(model.now_ns));
        (0..3).for_each(|node| model.work(node));
        model.settle(&mut chance);
        assert_eq!(model.sought.len() as u64, token, "seed {seed}: each question is answered");
        let log = &model.logs[&model.epoch()];
        for name in ROOMS {
            let last = log.iter().rfind(|(_, (of, _))| of == name).map(|(seq, _)| *seq);
            for node in 0..3 {
                let passed = model.passed.get(&(node, name.to_owned())).map(|(_, offset)| *offset);
                // Where nothing was said since it listens, nothing was passed on.
                assert!(passed.is_none() || passed == last, "seed {seed}: node {node} is at {passed:?} of {last:?}");
            }
        }
        assert_eq!(model.apart, 0);
    }
}

/// Kills: a stream that was made anew and is not noticed; what was sent and is given up, and then comes twice; a room without a mark.
#[test]
fn what_goes_on_apart_is_marked_and_does_not_come_again() {
    for seed in 0..60 {
        let mut chance = Chance(seed);
        let mut model = Model::new(2, 100);
        (0..2).for_each(|node| model.connect(node));
        model.settle(&mut chance);
        for node in 0..2 {
            model.nodes[node].0.members(&room("a"), 1, model.now_ns);
            model.work(node);
        }
        model.settle(&mut chance);
        model.nodes[0].0.number(room("a"), message("before"), model.now_ns);
        model.work(0);
        model.settle(&mut chance);
        // What is on its way is stored, and the node does not hear of it.
        model.nodes[0].0.number(room("a"), message("on its way"), model.now_ns);
        model.work(0);
        model.cut(0);
        assert_eq!((model.apart, model.modes[&0]), (1, Mode::Apart));
        model.nodes[0].0.number(room("a"), message("apart"), model.now_ns);
        model.work(0);
        model.nodes[0].0.number(room("b"), message("apart in another"), model.now_ns);
        model.work(0);
        assert_eq!(model.apart, 3);
        model.nodes[1].0.number(room("a"), message("of the other"), model.now_ns);
        model.work(1);
        if seed % 3 == 0 {
            model.stream = None;
        }
        model.settle(&mut chance);
        let before = model.heard.remove(&0).expect("something");
        assert_eq!(before.iter().map(|(.., text)| &**text).collect::<Vec<_>>(), ["before"]);
        model.connect(0);
        model.settle(&mut chance);
        assert_eq!(model.modes[&0], Mode::Shared(model.epoch()));
        let heard: Vec<String> = model.heard.remove(&0).unwrap_or_default().into_iter().map(|(.., text)| text).collect();
        let log: Vec<Option<String>> = model.logs.get(&model.epoch()).into_iter().flatten().map(|(_, (_, text))| text.clone()).collect();
        match seed % 3 {
            0 => assert!(model.words.contains(&(0, Word::Anew)), "{:?}", model.words),
            _ => {
                assert_eq!(heard, ["of the other"], "what it has missed, and not its own again");
                assert!(log.iter().filter(|text| text.is_none()).count() >= 1, "a mark: {log:?}");
                assert_eq!(log.last(), Some(&None), "behind all of it: {log:?}");
                let marked = |name: &str| model.logs[&model.epoch()].values().any(|(of, text)| of == name && text.is_none());
                assert_eq!(ROOMS.map(marked), [true, true, false], "each room, and no other");
            }
        }
    }
}

/// Kills: a server without JetStream that is waited for; one that has it later and is not found.
#[test]
fn without_jetstream_each_has_its_own() {
    let mut chance = Chance(1);
    let mut model = Model::new(1, 10);
    model.is_off = true;
    model.connect(0);
    model.settle(&mut chance);
    assert_eq!((model.words.as_slice(), model.modes.len()), (&[(0, Word::Off)][..], 0), "it is said once");
    assert!(!model.nodes[0].0.has("a"));
    model.is_off = false;
    model.settle(&mut chance);
    assert_eq!(model.modes[&0], Mode::Shared(model.epoch()));
    // From now on it never numbers for itself again.
    model.is_off = true;
    model.settle(&mut chance);
    assert_eq!(model.modes[&0], Mode::Apart);
    assert!(model.nodes[0].0.has("a"));
}

/// Kills: messages without a bound on their way; a question that nobody answers.
#[test]
fn a_stream_that_does_not_answer_holds_nothing_up_for_long() {
    let mut chance = Chance(1);
    let mut model = Model::new(1, 10);
    model.connect(0);
    model.settle(&mut chance);
    model.nodes[0].0.members(&room("a"), 1, model.now_ns);
    model.work(0);
    model.settle(&mut chance);
    // Nothing comes to it any more.
    model.nodes[0].2 = false;
    let sent = PENDING_MAX + 10;
    for number in 0..sent {
        model.nodes[0].0.number(room("a"), message(&number.to_string()), model.now_ns);
    }
    model.nodes[0].0.seek(room("a"), Since::Last(5), 0, 0, model.now_ns);
    assert_eq!(model.nodes[0].0.counts().refused, 10);
    model.now_ns += 500 * MS;
    model.nodes[0].0.tick(model.now_ns);
    model.work(0);
    assert_eq!((model.apart, model.modes[&0]), (PENDING_MAX, Mode::Apart));
    assert!(matches!(&model.sought[..], [(0, 0, None)]), "it is told that nothing was found");
}
