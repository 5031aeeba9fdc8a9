//! Joins and leaves that are answered when they are known to all, on hubs whose mail comes whenever it likes.

use std::collections::BTreeMap;

use super::mailed::{Mailed, letters, mailed, sent};
use super::*;
use crate::chance::Chance;
use crate::mail::Mailbox;
use crate::outbox::FrameBuf;
use crate::proto::{Incoming, Kind, Opcode, Payload};
use crate::remote::Hub;

/// A connection, by its core and slot.
type Who = (usize, u32);

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Seen {
    /// When its last join was begun, was answered, and when its last leave was begun, was answered, in steps.
    join: Option<u64>,
    joined: Option<u64>,
    leave: Option<u64>,
    left: Option<u64>,
    /// The count of its last answered join, and of the notices since.
    count: i64,
}

/// Cores that tick one at a time, in any order, and a mailbox that may be full.
struct Cores {
    hubs: Vec<CoreHub>,
    mailboxes: Vec<Option<Mailbox<Letter>>>,
    handle: Hub,
    step: u64,
    seen: BTreeMap<Who, Seen>,
    /// Each message that was published: on which core, and who must get it.
    owed: Vec<(usize, Vec<Who>)>,
    got: BTreeMap<Who, Vec<usize>>,
    notices: u64,
    waited: u64,
    /// Nobody goes without an answer, so it is known who can be counted at most.
    everybody_is_answered: bool,
}

const ROOM: &str = "room";

impl Cores {
    fn new(cores: usize, slots: u32, depth: usize) -> Cores {
        let Mailed { hubs, mailboxes, handle } = mailed(cores, slots, depth, |_| {});
        let all = (0..cores).flat_map(|core| (0..slots).map(move |slot| (core, slot)));
        let seen = all.map(|who| (who, Seen::default())).collect();
        let (owed, got) = (Vec::new(), BTreeMap::new());
        Cores { hubs, mailboxes, handle, step: 0, seen, owed, got, notices: 0, waited: 0, everybody_is_answered: true }
    }

    /// As a shard's tick: mail, answers, then whatever the connections do.
    fn tick(&mut self, core: usize, act: impl FnOnce(&mut Cores)) {
        self.step += 1;
        let Some(mailbox) = &mut self.mailboxes[core] else { return };
        for letter in letters(mailbox) {
            assert!(self.hubs[core].read(letter).is_none());
        }
        let ends = self.hubs[core].ends_read();
        self.hubs[core].take_effect(ends);
        while let Some(known) = self.hubs[core].next_done() {
            if let Some(members) = known.members {
                self.answered((core, known.slot), members);
            }
        }
        act(self);
        self.hubs[core].post_mail(|_| {});
        assert!(self.hubs[core].invariants());
        self.look(core);
    }

    /// What the core's connections are sent: notices and messages.
    fn look(&mut self, core: usize) {
        for (slot, texts) in sent(&mut self.hubs[core]) {
            let who = (core, slot);
            for text in texts {
                let seen = self.seen.get_mut(&who).expect("a connection");
                match text.as_str() {
                    "+" | "-" => {
                        assert!(seen.joined.is_some(), "step {}: {who:?} is told of a room it is not in", self.step);
                        seen.count += if text == "+" { 1 } else { -1 };
                        self.notices += 1;
                    }
                    number => self.got.entry(who).or_default().push(number.parse().expect("a number")),
                }
            }
        }
    }

    fn join(&mut self, who: Who) {
        self.look(who.0);
        let seen = self.seen.get_mut(&who).expect("a connection");
        *seen = Seen { join: Some(self.step), ..Seen::default() };
        let notice = FrameBuf::new(Opcode::Text, b"+");
        match self.hubs[who.0].join_then(who.1, ROOM, Some(&notice)).expect("it may join") {
            Done::Now(members) => self.answered(who, members),
            Done::Later(_) => self.waited += 1,
            Done::Untold => panic!("it is open"),
        }
    }

    fn leave(&mut self, who: Who) {
        self.look(who.0);
        self.seen.get_mut(&who).expect("a connection").leave = Some(self.step);
        let notice = FrameBuf::new(Opcode::Text, b"-");
        let done = self.hubs[who.0].leave_then(who.1, ROOM, Some(&notice));
        if let Some(Done::Now(members)) = done {
            self.answered(who, members);
        }
        self.forgive(who);
    }

    /// What has not arrived by now may never.
    fn forgive(&mut self, who: Who) {
        let got = self.got.get(&who);
        for (number, (_, owed)) in self.owed.iter_mut().enumerate() {
            if !got.is_some_and(|got| got.contains(&number)) {
                owed.retain(|of| *of != who);
            }
        }
    }

    /// A change is done: the count must be of all whose joins were done before, and of nobody who cannot be in.
    fn answered(&mut self, who: Who, members: usize) {
        // What it was sent before counts for what it was before.
        self.look(who.0);
        let is_alive = |core: usize| self.mailboxes[core].is_some();
        let alive = || self.seen.iter().filter(|((core, _), _)| is_alive(*core));
        let surely = alive().filter(|(of, seen)| **of != who && seen.joined.is_some() && seen.leave.is_none()).count();
        let maybe = alive().filter(|(of, seen)| **of != who && seen.join.is_some() && seen.left.is_none()).count();
        let seen = self.seen.get_mut(&who).expect("a connection");
        let own = if seen.leave.is_some() {
            seen.left = Some(self.step);
            0
        } else {
            assert_eq!(seen.joined, None, "answered twice");
            seen.joined = Some(self.step);
            seen.count = members as i64;
            1
        };
        let step = self.step;
        assert!(members >= surely + own, "step {step}: {who:?} counts {members}, {surely} others were answered before");
        if self.everybody_is_answered {
            assert!(members <= maybe + own, "step {step}: {who:?} counts {members}, {maybe} others can be in");
        }
    }

    fn publish(&mut self, core: usize) {
        let number = self.owed.len();
        let in_room = |seen: &Seen| seen.joined.is_some() && seen.leave.is_none();
        let owed = self.seen.iter().filter(|(_, seen)| in_room(seen)).map(|(who, _)| *who).collect();
        self.owed.push((core, owed));
        let (hub, text) = (&mut self.hubs[core], number.to_string());
        let message = Incoming { kind: Kind::Text, payload: Payload::Borrowed(text.as_bytes()), uncompressed: false };
        hub.send_to_scope(&Scope::Room(ROOM.into()), message, Sending::default());
    }

    fn end(&mut self, core: usize) {
        self.mailboxes[core] = None;
        drop(self.handle.end_of(core));
    }

    fn settle(&mut self) {
        for _ in 0..50 {
            (0..self.hubs.len()).for_each(|core| self.tick(core, |_| {}));
        }
    }

    /// Everything has come to rest.
    fn judge(&self) {
        let is_alive = |core: usize| self.mailboxes[core].is_some();
        let in_room = |seen: &Seen| seen.join.is_some() && seen.leave.is_none();
        let members = self.seen.iter().filter(|((core, _), seen)| is_alive(*core) && in_room(seen)).count();
        let nobody_ended = self.mailboxes.iter().all(Option::is_some);
        for ((core, slot), seen) in self.seen.iter().filter(|((core, _), _)| is_alive(*core)) {
            assert_eq!(self.hubs[*core].changes_waiting(), 0, "core {core}");
            if in_room(seen) {
                assert!(seen.joined.is_some(), "{core} {slot} is not answered");
                assert_eq!(self.hubs[*core].member_count(ROOM), members);
                if nobody_ended {
                    assert_eq!(seen.count, members as i64, "{core} {slot}: the answer and the notices do not add up");
                }
            }
        }
        // What waited for room in a mailbox has gone with its core.
        for (number, (_, owed)) in self.owed.iter().enumerate().filter(|(_, (core, _))| is_alive(*core)) {
            for who in owed.iter().filter(|(core, _)| is_alive(*core)) {
                let times = self.got.get(who).map_or(0, |got| got.iter().filter(|of| **of == number).count());
                assert_eq!(times, 1, "{who:?} and message {number}");
            }
        }
        if members == 0 {
            let kept = self.hubs.iter().enumerate().filter(|(core, hub)| is_alive(*core) && hub.room_count() > 0);
            assert_eq!(kept.count(), 0, "a room that nobody is in is kept");
        }
    }
}

/// Kills: changes that are done before all cores have read them; counts and notices that go different ways; confirmations
/// of what has not been read; who is given messages before it is answered.
#[test]
fn changes_are_in_an_order_and_count_and_notices_add_up() {
    let (mut notices, mut waited) = (0, 0);
    for seed in 0..400 {
        let mut chance = Chance(seed + 1);
        let count = 1 + chance.below(4);
        let mut cores = Cores::new(count, 4, [1, 2, 64][chance.below(3)]);
        let (goes, ends) = (seed % 2 == 1, seed % 4 == 3);
        cores.everybody_is_answered = !goes;
        let mut ended = 0;
        for _ in 0..300 {
            let core = chance.below(count);
            let who = (core, chance.below(4) as u32);
            let what = chance.below(100);
            cores.tick(core, |cores| {
                let seen = cores.seen[&who];
                let is_answered = seen.join.is_none() || seen.joined.is_some();
                let is_done = seen.leave.is_none() || seen.left.is_some();
                // A connection whose change is not done is held: it says nothing more.
                match what {
                    0..40 if is_answered && is_done => {
                        if seen.joined.is_some() && seen.leave.is_none() {
                            cores.leave(who);
                        } else {
                            cores.join(who);
                        }
                    }
                    40..50 => cores.publish(core),
                    // It goes, whatever it waits for, and another takes its place.
                    50..55 if goes => {
                        cores.look(core);
                        if seen.join.is_some() && seen.left.is_none() && seen.leave.is_none() {
                            cores.hubs[core].outbox.shut(who.1);
                            cores.leave(who);
                        }
                        cores.forgive(who);
                        let hub = &mut cores.hubs[core];
                        let generation = hub.id(who.1).generation();
                        hub.outbox.shut(who.1);
                        hub.leave_all(who.1);
                        hub.outbox.close(who.1);
                        hub.outbox.open(who.1, generation + 1);
                        hub.enter(who.1, generation + 1, 0);
                        cores.seen.insert(who, Seen::default());
                    }
                    _ => {}
                }
            });
            if ends && ended + 1 < count && chance.below(200) == 0 {
                let core = chance.below(count);
                if cores.mailboxes[core].is_some() {
                    cores.end(core);
                    ended += 1;
                }
            }
        }
        cores.settle();
        cores.judge();
        notices += cores.notices;
        waited += cores.waited;
    }
    assert!(notices > 1_000 && waited > 1_000, "{notices} notices, {waited} joins had to wait");
}

#[test]
fn a_core_alone_answers_at_once_and_writes_nothing() {
    let mut cores = Cores::new(1, 3, 1);
    for slot in 0..3 {
        let done = cores.hubs[0].join_then(slot, ROOM, None).expect("it may join");
        assert_eq!(done, Done::Now(slot as usize + 1));
    }
    assert_eq!(cores.hubs[0].leave_then(1, ROOM, None), Some(Done::Now(2)));
    assert_eq!(cores.hubs[0].leave_then(1, ROOM, None), None);
    assert!(!cores.hubs[0].outbox.is_held(0) && !cores.hubs[0].has_released());
    assert_eq!(cores.hubs[0].changes_waiting(), 0);
}

/// Of joins at once on many cores each is answered; the last one counts all, and each of them adds up to all.
#[test]
fn joins_at_once_add_up() {
    for (count, slots) in [(2, 1), (2, 5), (5, 2), (16, 4)] {
        let mut cores = Cores::new(count, slots, 1);
        for core in 0..count {
            cores.tick(core, |cores| (0..slots).for_each(|slot| cores.join((core, slot))));
        }
        assert!(cores.seen.values().all(|seen| seen.joined.is_none()));
        for _ in 0..20 + count * slots as usize {
            (0..count).rev().for_each(|core| cores.tick(core, |_| {}));
        }
        cores.judge();
        assert!(cores.seen.values().all(|seen| seen.count == (count * slots as usize) as i64));
    }
}

/// A connection that has a join under way, and leaves, joins again, or has its queue closed.
#[test]
fn a_change_that_was_overtaken_is_told_as_such() {
    let mut cores = Cores::new(2, 2, 8);
    let hub = &mut cores.hubs[0];
    let Ok(Done::Later(first)) = hub.join_then(0, ROOM, None) else { panic!("another core is to be told") };
    assert!(hub.is_in(0, ROOM) && hub.local_members(ROOM).is_empty() && hub.member_count(ROOM) == 1);
    assert!(hub.leave(0, ROOM) && !hub.leave(0, ROOM));
    let Ok(Done::Later(second)) = hub.join_then(0, ROOM, None) else { panic!("another core is to be told") };
    let Ok(Done::Later(again)) = hub.join_then(0, ROOM, None) else { panic!("it is still joining") };
    assert!(first < second && second < again);
    assert!(hub.join(0, ROOM).is_ok() && hub.local_members(ROOM).is_empty(), "it is in it already");
    hub.post_mail(|_| {});
    cores.tick(1, |_| {});
    let hub = &mut cores.hubs[0];
    while let Some(letter) = cores.mailboxes[0].as_mut().and_then(Mailbox::next_urgent) {
        assert!(hub.read(letter).is_none());
    }
    let known = |number, members| Some(Known { slot: 0, number, members });
    assert_eq!(hub.next_done(), known(first, None));
    assert!(hub.outbox.is_held(0), "it waits for the others");
    assert_eq!(hub.next_done(), known(second, Some(1)));
    assert_eq!(hub.local_members(ROOM), [0]);
    assert_eq!(hub.next_done(), known(again, Some(1)));
    assert_eq!((hub.next_done(), hub.take_released().len()), (None, 1));
    assert!(!hub.outbox.is_held(0));
}

/// Plain joins are known by urgent letters, and changes that follow them are read after them.
#[test]
fn who_has_joined_plainly_is_counted_and_can_be_answered_too() {
    let mut cores = Cores::new(2, 4, 8);
    cores.hubs[1].join(0, ROOM).expect("it may join");
    cores.hubs[1].join(1, ROOM).expect("it may join");
    assert!(matches!(cores.hubs[1].join_then(1, ROOM, None), Ok(Done::Later(_))));
    assert!(matches!(cores.hubs[0].join_then(0, ROOM, None), Ok(Done::Later(_))));
    let mut counts = [None, None];
    for core in [1, 0, 1, 0] {
        let Cores { hubs, mailboxes, .. } = &mut cores;
        let (hub, mailbox) = (&mut hubs[core], mailboxes[core].as_mut().expect("it lives"));
        while let Some(letter) = mailbox.next_urgent().or_else(|| mailbox.next()) {
            assert!(hub.read(letter).is_none());
        }
        if let Some(known) = hub.next_done() {
            counts[core] = known.members;
        }
        hub.post_mail(|_| {});
    }
    assert_eq!(counts, [Some(3), Some(3)]);
    assert!(cores.hubs[1].leave(0, ROOM));
    assert!(matches!(cores.hubs[1].leave_then(1, ROOM, None), Some(Done::Later(_))));
    cores.settle();
    assert_eq!([0, 1].map(|core| cores.hubs[core].member_count(ROOM)), [1, 1]);
}

/// Kills: answers that wait for cores that have ended, and rooms that count their members.
#[test]
fn a_core_that_has_ended_is_not_waited_for_nor_counted() {
    let mut cores = Cores::new(3, 1, 1);
    cores.tick(2, |cores| cores.join((2, 0)));
    cores.settle();
    assert_eq!(cores.hubs[0].member_count(ROOM), 1);
    // One letter that it will never read, and one that waits for room.
    cores.tick(0, |cores| cores.join((0, 0)));
    cores.tick(1, |cores| cores.join((1, 0)));
    cores.end(2);
    cores.settle();
    cores.judge();
    assert_eq!(cores.hubs[0].member_count(ROOM), 2);
    cores.end(1);
    cores.settle();
    assert_eq!(cores.hubs[0].member_count(ROOM), 1);
    assert_eq!(cores.hubs[0].leave_then(0, ROOM, None), Some(Done::Now(0)));
    cores.settle();
    assert_eq!(cores.hubs[0].room_count(), 0);
}
