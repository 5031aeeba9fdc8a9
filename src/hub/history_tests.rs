//! Rooms with a history, on hubs whose mail comes whenever it likes.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::mailed::{Mailed, letters, mailed, sent};
use super::*;
use crate::chance::Chance;
use crate::config::History;
use crate::mail::Mailbox;
use crate::message::Envelope;
use crate::outbox::Key;
use crate::proto::{Incoming, Kind, Opcode, Payload};
use crate::remote::{Delivering, Hub};

const ROOMS: [&str; 3] = ["a", "b", "c"];

/// A connection, by its core and slot.
type Who = (usize, u32);

#[derive(Clone, Copy, Debug, Default)]
struct Seat {
    /// It has asked to be in the room, and not to be out of it.
    is_in: bool,
    /// How far it has read.
    at: Option<Position>,
    /// The owner has ended meanwhile: the numbers are those of another history, whose epoch it will be told when it joins.
    is_lost: bool,
    /// When it left: what had been queued by then it has read in the next step.
    left: u64,
}

#[derive(Debug, Default)]
struct Client {
    generation: u32,
    waits: bool,
    seats: [Seat; 3],
}

/// A join that was answered.
struct Join {
    room: usize,
    since: Since,
    recovered: Recovered,
}

struct Cores {
    hubs: Vec<CoreHub>,
    mailboxes: Vec<Option<Mailbox<Letter>>>,
    handle: Hub,
    step: u64,
    kept_max: u64,
    clients: BTreeMap<Who, Client>,
    waiting: BTreeMap<(usize, u64), (u32, usize, Since)>,
    joins: Vec<Join>,
    /// What each offset of each history has been to whoever has seen it.
    seen: BTreeMap<(usize, u64, u64), String>,
    published: Vec<u64>,
    numbers: u64,
    told: Vec<(usize, Delivering)>,
    resumed: [u64; 2],
}

fn incoming(text: &str) -> Incoming<'_> {
    Incoming { kind: Kind::Text, payload: Payload::Borrowed(text.as_bytes()), uncompressed: false }
}

fn hubs(
    cores: usize,
    slots: u32,
    depth: usize,
    history: &History,
    bytes_max: usize,
) -> (Vec<CoreHub>, Vec<Option<Mailbox<Letter>>>, Hub) {
    let prepare = |hub: &mut CoreHub| hub.set_history(history.clone(), bytes_max);
    let Mailed { hubs, mailboxes, handle } = mailed(cores, slots, depth, prepare);
    handle.set_histories(hubs[0].histories());
    (hubs, mailboxes, handle)
}

impl Cores {
    fn new(cores: usize, slots: u32, depth: usize, kept_max: u32) -> Cores {
        let (hubs, mailboxes, handle) = hubs(cores, slots, depth, &History::last(kept_max), 1 << 20);
        let all = (0..cores).flat_map(|core| (0..slots).map(move |slot| (core, slot)));
        Cores {
            hubs,
            mailboxes,
            handle,
            step: 0,
            kept_max: u64::from(kept_max),
            clients: all.map(|who| (who, Client { generation: 1, ..Client::default() })).collect(),
            waiting: BTreeMap::new(),
            joins: Vec::new(),
            seen: BTreeMap::new(),
            published: vec![0; ROOMS.len()],
            numbers: 0,
            told: Vec::new(),
            resumed: [0; 2],
        }
    }

    /// As a shard's tick: mail, answers in line with it, then whatever the connections do.
    fn tick(&mut self, core: usize, act: impl FnOnce(&mut Cores)) {
        self.step += 1;
        let Some(mailbox) = &mut self.mailboxes[core] else { return };
        for letter in letters(mailbox) {
            assert!(self.hubs[core].read(letter).is_none());
            if self.hubs[core].has_recovered() {
                self.tell(core);
            }
        }
        let ends = self.hubs[core].ends_read();
        self.hubs[core].take_effect(ends);
        self.tell(core);
        act(self);
        self.hubs[core].post_mail(|_| {});
        assert!(self.hubs[core].invariants());
        self.look(core);
    }

    fn tell(&mut self, core: usize) {
        while let Some(Known { slot, number, members }) = self.hubs[core].next_done() {
            if let Some((_, room, since)) = self.waiting.remove(&(core, number)) {
                self.answered((core, slot), room, since, members);
            }
        }
    }

    fn answered(&mut self, who: Who, room: usize, since: Since, members: Option<usize>) {
        let (core, slot) = who;
        self.clients.get_mut(&who).expect("a connection").waits = false;
        let members = members.expect("it waits for this");
        let recovered = self.hubs[core].take_recovered(members);
        assert!(recovered.members == members && members > 0);
        let word = format!("J{}", self.joins.len());
        assert_eq!(self.hubs[core].send(slot, Opcode::Text, word.as_bytes()), Queued::Yes);
        assert_eq!(self.hubs[core].replay(slot, &recovered), Queued::Yes);
        self.joins.push(Join { room, since, recovered });
    }

    fn join(&mut self, who: Who, room: usize, since: Since) {
        let (core, slot) = who;
        self.clients.get_mut(&who).expect("a connection").seats[room].is_in = true;
        match self.hubs[core].join_since(slot, ROOMS[room], None, since).expect("let in") {
            Done::Now(members) => self.answered(who, room, since, Some(members)),
            Done::Later(number) => {
                self.clients.get_mut(&who).expect("a connection").waits = true;
                self.waiting.insert((core, number), (slot, room, since));
            }
            Done::Untold => unreachable!("it is open"),
        }
    }

    fn leave(&mut self, who: Who, room: usize) {
        assert!(self.hubs[who.0].leave(who.1, ROOMS[room]));
        let step = self.step;
        let seat = &mut self.clients.get_mut(&who).expect("a connection").seats[room];
        (seat.is_in, seat.left) = (false, step);
    }

    /// The connection breaks, and what was queued to it is lost; another one comes, which knows what it had read.
    fn reconnect(&mut self, who: Who) {
        let (core, slot) = who;
        let hub = &mut self.hubs[core];
        hub.outbox.shut(slot);
        hub.leave_all(slot);
        hub.outbox.close(slot);
        let client = self.clients.get_mut(&who).expect("a connection");
        client.generation += 1;
        client.waits = false;
        client.seats.iter_mut().for_each(|seat| seat.is_in = false);
        hub.outbox.open(slot, client.generation);
        hub.enter(slot, client.generation, 0);
        self.waiting.retain(|(of, _), (other, ..)| (*of, *other) != who);
    }

    fn event(&mut self, room: usize, by: usize) -> String {
        self.numbers += 1;
        let text = Envelope::Event.encode("said", &json!({ "r": room, "p": by, "n": self.numbers }));
        String::from_utf8(text.expect("JSON")).expect("text")
    }

    fn publish(&mut self, core: usize, room: usize) {
        let text = self.event(room, core);
        self.published[room] += 1;
        let how = Sending { is_event: true, ..Sending::default() };
        self.hubs[core].send_to_scope(&Scope::Room(ROOMS[room].into()), incoming(&text), how);
    }

    fn publish_outside(&mut self, room: usize) {
        self.numbers += 1;
        let data = json!({ "r": room, "p": 99, "n": self.numbers });
        self.told.push((room, self.handle.emit_to_room(ROOMS[room], "said", &data).expect("JSON")));
    }

    /// What the core's connections are sent.
    fn look(&mut self, core: usize) {
        for (slot, texts) in sent(&mut self.hubs[core]) {
            for text in texts {
                self.read((core, slot), &text);
            }
        }
    }

    fn read(&mut self, who: Who, text: &str) {
        let client = self.clients.get_mut(&who).expect("a connection");
        if let Some(index) = text.strip_prefix('J') {
            let Join { room, since, recovered } = &self.joins[index.parse::<usize>().expect("an index")];
            let end = recovered.position.expect("it has a history");
            let kept = end.offset.min(self.kept_max);
            let count = recovered.len() as u64;
            let expected = match *since {
                Since::Now => (0, true),
                Since::Last(wanted) => {
                    let wanted = (wanted as u64).min(end.offset);
                    (wanted.min(kept), wanted <= kept)
                }
                Since::Position(seen) if seen.epoch == end.epoch => {
                    self.resumed[0] += 1;
                    let missed = end.offset.checked_sub(seen.offset).expect("nobody is before the owner");
                    (missed.min(kept), missed <= kept)
                }
                Since::Position(_) => {
                    self.resumed[1] += 1;
                    (kept, false)
                }
            };
            assert_eq!((count, recovered.is_complete), expected, "{who:?} {since:?} {end:?}");
            let seat = &mut client.seats[*room];
            (seat.at, seat.is_lost) = (Some(Position { offset: end.offset - count, ..end }), false);
            return;
        }
        let event: Value = serde_json::from_str(text).expect("JSON");
        let Some(room) = event["data"]["r"].as_u64() else { return };
        let Seat { at, is_lost, .. } = &mut client.seats[room as usize];
        let at = at.as_mut().expect("it was answered");
        let offset = event["offset"].as_u64().expect("an offset");
        if offset == 1 && at.offset > 0 && self.mailboxes.iter().any(Option::is_none) {
            (at.offset, *is_lost) = (0, true);
        }
        assert_eq!(offset, at.offset + 1, "{who:?} at {at:?}: {text}");
        at.offset += 1;
        if *is_lost {
            return;
        }
        let before = self.seen.insert((room as usize, at.epoch, at.offset), text.to_owned());
        assert!(before.is_none_or(|before| before == text), "one offset of two messages: {text}");
    }

    /// A core ends, and whatever it has, with it.
    fn end(&mut self, core: usize) {
        self.mailboxes[core] = None;
        drop(self.handle.end_of(core));
        self.clients.retain(|(of, _), _| *of != core);
        self.waiting.retain(|(of, _), _| *of != core);
    }

    fn living(&self) -> Vec<usize> {
        (0..self.hubs.len()).filter(|core| self.mailboxes[*core].is_some()).collect()
    }

    fn settle(&mut self) {
        for round in 0.. {
            assert!(round < 10_000, "somebody waits for ever");
            for core in self.living() {
                self.tick(core, |_| {});
            }
            let is_quiet = |mailbox: &Mailbox<Letter>| mailbox.is_empty();
            let waits = self.living().into_iter().any(|core| self.hubs[core].post.waiting() > 0);
            if self.mailboxes.iter().flatten().all(is_quiet) && !waits && self.waiting.is_empty() {
                break;
            }
        }
    }

    /// One thing that happens on a core.
    fn act(&mut self, core: usize, chance: &mut Chance) {
        if self.hubs[core].is_congested() {
            return;
        }
        let slots = self.clients.keys().filter(|(of, _)| *of == core).count();
        let who = (core, chance.below(slots) as u32);
        let room = [0, 0, 1, 2][chance.below(4)];
        let (waits, seat) = (self.clients[&who].waits, self.clients[&who].seats[room]);
        match chance.below(20) {
            0..9 => self.publish(core, room),
            9 => self.publish_outside(room),
            10 => {
                let how = Sending { is_event: true, is_ephemeral: true, ..Sending::default() };
                let text = incoming(r#"{"event":"types","data":{}}"#);
                self.hubs[core].send_to_scope(&Scope::Room(ROOMS[room].into()), text, how);
            }
            11 => self.reconnect(who),
            _ if waits => {}
            _ if seat.is_in && chance.below(3) == 0 => self.leave(who, room),
            _ if seat.is_in => {}
            _ if seat.left < self.step => {
                let since = match chance.below(6) {
                    0 => Since::Now,
                    1 => Since::Last(chance.below(9)),
                    _ => Since::from(seat.at),
                };
                self.join(who, room, since);
            }
            _ => {}
        }
    }
}

/// Kills: who joins before the answer is read (doubles) or after what follows it (gaps), an order that differs between cores,
/// an owner on each core, an epoch that outlives its messages.
#[test]
fn who_comes_back_misses_nothing_and_gets_nothing_twice() {
    let (mut resumed, mut incomplete) = ([0; 2], 0);
    for seed in 0..300 {
        let mut chance = Chance(seed);
        let cores = 1 + chance.below(4);
        let kept_max = [3, 10, 10_000][chance.below(3)];
        let ends = cores > 1 && chance.below(4) == 0;
        let mut world = Cores::new(cores, 3, [4, 16, 64][chance.below(3)], kept_max);
        for _ in 0..250 {
            let living = world.living();
            let core = living[chance.below(living.len())];
            world.tick(core, |world| (0..chance.below(4)).for_each(|_| world.act(core, &mut chance)));
            if ends && living.len() > 1 && chance.below(80) == 0 {
                world.end(living[chance.below(living.len())]);
            }
        }
        world.settle();
        // All who are in are where the owner is.
        for (room, name) in ROOMS.iter().enumerate() {
            let owner = owners(name, cores).find(|core| world.mailboxes[*core].is_some()).expect("one lives");
            let end = world.hubs[owner].recover(&Arc::from(*name), Since::Now).position.expect("it has a history");
            for (who, client) in world.clients.iter().filter(|(_, client)| client.seats[room].is_in) {
                let at = client.seats[room].at;
                assert!(ends || at == Some(end), "seed {seed}: {who:?} is at {at:?}, and {name} at {end:?}");
            }
            if !ends {
                let mut accepted = 0;
                for (_, told) in world.told.extract_if(.., |(of, _)| *of == room) {
                    accepted += u64::from(told.wait().refused == 0);
                }
                assert_eq!(end.offset, world.published[room] + accepted, "seed {seed}");
            }
        }
        // What one core has published stands in that order.
        let mut last: BTreeMap<(usize, u64, u64), u64> = BTreeMap::new();
        for ((room, epoch, _), text) in &world.seen {
            let event: Value = serde_json::from_str(text).expect("JSON");
            let [by, number] = ["p", "n"].map(|key| event["data"][key].as_u64().expect("a number"));
            assert!(last.insert((*room, *epoch, by), number) < Some(number), "seed {seed}: {text}");
        }
        resumed = [resumed[0] + world.resumed[0], resumed[1] + world.resumed[1]];
        incomplete += world.joins.iter().filter(|join| !join.recovered.is_complete).count();
    }
    assert!(resumed[0] > 1_000 && resumed[1] > 10 && incomplete > 100, "{resumed:?} {incomplete}");
}

fn room_of(owner: usize, cores: usize) -> Arc<str> {
    let mut names = (0..).map(|number: u32| format!("room {number}"));
    names.find(|name| owners(name, cores).next() == Some(owner)).expect("each core owns some").into()
}

/// Kills: an owner that reads on while what it passes on waits without a bound.
#[test]
fn who_publishes_is_held_up_by_an_owner_that_is() {
    let (mut hubs, mut mailboxes, handle) = hubs(3, 1, 16, &History::last(1000), 1 << 24);
    let room = room_of(1, 3);
    let read = |hubs: &mut Vec<CoreHub>, mailboxes: &mut Vec<Option<Mailbox<Letter>>>, core: usize| {
        let mailbox = mailboxes[core].as_mut().expect("it lives");
        while let Some(letter) = mailbox.next_urgent().or_else(|| mailbox.next()) {
            hubs[core].read(letter);
        }
        hubs[core].post_mail(|_| {});
    };
    hubs[2].join(0, &room).expect("let in");
    (0..3).for_each(|core| hubs[core].post_mail(|_| {}));
    (0..2).for_each(|core| read(&mut hubs, &mut mailboxes, core));
    // Core 2 reads nothing.
    let mut published = 0;
    for _ in 0..10_000 {
        if !hubs[0].is_congested() {
            hubs[0].send_to_scope(&Scope::Room(Arc::clone(&room)), incoming("x"), Sending::default());
            published += 1;
        }
        hubs[0].post_mail(|_| {});
        read(&mut hubs, &mut mailboxes, 1);
        read(&mut hubs, &mut mailboxes, 0);
    }
    assert!((500..2_000).contains(&published) && hubs[1].post.waiting() <= published, "{published}");
    let mut refused = 0;
    for _ in 0..10_000 {
        let told = handle.send_to_room(&room, "y").expect("text");
        read(&mut hubs, &mut mailboxes, 1);
        if hubs[1].counters.history_refused > refused {
            refused = hubs[1].counters.history_refused;
            assert_eq!(told.wait(), Delivery { refused: 1, ..Delivery::default() });
        }
    }
    assert!(refused > 1_000 && hubs[1].post.waiting() < 6_000, "{refused}");
    // It reads again, and everything goes on.
    for _ in 0..2_000 {
        (0..3).for_each(|core| read(&mut hubs, &mut mailboxes, core));
    }
    assert!(hubs.iter().all(|hub| !hub.is_congested()));
    assert_eq!(hubs[2].outbox.queued_bytes(0) as u64, 3 * (published as u64 + 10_000 - refused));
}

/// Kills: a bound that is not one, the loudest room forgotten first, and what is forgotten not told.
#[test]
fn past_the_bound_the_rooms_that_were_quiet_the_longest_are_forgotten() {
    let (mut hubs, ..) = hubs(1, 1, 16, &History::last(10), 10_000);
    let hub = &mut hubs[0];
    let names: Vec<Arc<str>> = (0..40).map(|number: u32| number.to_string().into()).collect();
    let mut positions = Vec::new();
    for name in &names {
        hub.send_to_scope(&Scope::Room(Arc::clone(name)), incoming("x"), Sending::default());
        hub.send_to_scope(&Scope::Room(Arc::clone(&names[0])), incoming("y"), Sending::default());
        positions.push(hub.recover(name, Since::Now).position.expect("it has a history"));
        assert!(hub.kept_bytes() <= 10_000);
    }
    assert!(hub.counters.history_forgotten > 10);
    let is_complete = |hub: &mut CoreHub, index: usize| hub.recover(&names[index], positions[index].into()).is_complete;
    assert!(is_complete(hub, 39), "it was the last");
    let epoch = hub.recover(&names[0], Since::Now).position.map(|position| position.epoch);
    assert_eq!(epoch, Some(positions[0].epoch), "it is heard of all the time");
    let before = hub.recover(&names[1], positions[1].into());
    assert!(!before.is_complete && before.is_empty() && before.position != Some(positions[1]));
    // What the memory budget wants back.
    assert!(hub.forget_histories(usize::MAX) > 5_000);
    assert_eq!((hub.kept_bytes(), hub.history_counts()), (0, (0, 0)));
}

/// Kills: who sends left out of the history as it is of the receivers, and a key that is lost on the way.
#[test]
fn who_sends_is_left_out_on_whatever_core_the_owner_is() {
    for owner in 0..2 {
        let (mut hubs, mut mailboxes, _) = hubs(2, 3, 64, &History::last(10), 1 << 20);
        let room = room_of(owner, 2);
        let mail = |hubs: &mut Vec<CoreHub>, mailboxes: &mut Vec<Option<Mailbox<Letter>>>| {
            for _ in 0..4 {
                for (hub, mailbox) in hubs.iter_mut().zip(mailboxes.iter_mut()) {
                    let mailbox = mailbox.as_mut().expect("it lives");
                    while let Some(letter) = mailbox.next_urgent().or_else(|| mailbox.next()) {
                        hub.read(letter);
                    }
                    hub.post_mail(|_| {});
                }
            }
        };
        for (core, slot) in [(0, 0), (0, 1), (1, 0)] {
            hubs[core].join(slot, &room).expect("let in");
        }
        mail(&mut hubs, &mut mailboxes);
        let how = Sending { except: Some(0), key: Some(Key::of(b"key")), ..Sending::default() };
        let scope = Scope::Room(Arc::clone(&room));
        let here = hubs[0].send_to_scope(&scope, incoming("x"), how);
        assert_eq!(here.queued, u32::from(owner == 0), "counted where it is delivered");
        // A route says nothing of an order with others.
        let ephemeral = Sending { is_ephemeral: true, ..how };
        assert_eq!(hubs[0].send_to_scope(&scope, incoming("y"), ephemeral).queued, 1);
        mail(&mut hubs, &mut mailboxes);
        let bytes = |core: usize, slot: u32| hubs[core].outbox.queued_bytes(slot);
        assert_eq!([bytes(0, 0), bytes(0, 1), bytes(1, 0)], [0, 6, 6]);
        let recovered = hubs[owner].recover(&room, Since::Last(9));
        assert_eq!((recovered.len(), recovered.members), (1, 3));
    }
}

#[test]
fn the_longest_beginning_says_what_a_room_keeps() {
    let rules = [
        History::last(5),
        History::last(6).of_rooms("a/"),
        History::off().of_rooms("a/b/"),
        History::last(7).of_rooms("a/b/c"),
        History::last(8).of_rooms("a/"),
    ];
    let histories = Histories::new(rules);
    let kept = |name: &str| histories.of(name).map_or(0, |history| history.messages_max());
    assert_eq!(["", "x", "a/", "a/x", "a/b/", "a/b/x", "a/b/c", "a/b/cd"].map(kept), [5, 5, 8, 8, 0, 0, 7, 7]);
    assert!(Histories::new([History::off(), History::off().of_rooms("x")]).of("x").is_none());
    let spread: std::collections::BTreeSet<usize> =
        (0..64).filter_map(|number: u32| owners(&number.to_string(), 4).next()).collect();
    assert_eq!(spread.len(), 4);
    assert_eq!(owners("x", 3).collect::<std::collections::BTreeSet<_>>().len(), 3);
}
