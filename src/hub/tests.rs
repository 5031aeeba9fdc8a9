//! Several cores' hubs with mail between them, and no sockets: what each connection would be sent.

use std::collections::{BTreeMap, BTreeSet};

use super::mailed::{Mailed, mailed, sent};
use super::*;
use crate::chance::Chance;
use crate::mail::Mailbox;
use crate::outbox::Stretch;
use crate::outbox::{FrameBuf, Queued, SHARED_BYTES_MIN};
use crate::proto::{Kind, Opcode};
use crate::remote::{AskAll as _, Hub};

pub(super) struct World {
    pub(super) hubs: Vec<CoreHub>,
    mailboxes: Vec<Mailbox<Letter>>,
    handle: Hub,
}

impl World {
    pub(super) fn new(cores: usize) -> World {
        World::with(cores, 1 << 20, SlowConsumer::Close)
    }

    pub(super) fn with(cores: usize, bytes_max: usize, policy: SlowConsumer) -> World {
        let prepare = |hub: &mut CoreHub| {
            hub.outbox = Outbox::new(bytes_max);
            hub.slow_consumer = policy;
        };
        let Mailed { hubs, mailboxes, handle } = mailed(cores, 0, 64, prepare);
        World { hubs, mailboxes: mailboxes.into_iter().flatten().collect(), handle }
    }

    pub(super) fn connect(&mut self, core: usize, slot: u32, generation: u32) {
        self.hubs[core].outbox.open(slot, generation);
        self.hubs[core].enter(slot, generation, 0);
    }

    pub(super) fn disconnect(&mut self, core: usize, slot: u32) {
        self.hubs[core].outbox.shut(slot);
        self.hubs[core].leave_all(slot);
        self.hubs[core].outbox.close(slot);
    }

    /// Lets every core read its mail, until there is none; how many letters each has read.
    pub(super) fn mail(&mut self) -> Vec<u64> {
        let before: Vec<u64> = self.hubs.iter().map(|hub| hub.counters.letters).collect();
        loop {
            self.hubs.iter_mut().for_each(|hub| hub.post_mail(|_| {}));
            let waiting = self.mailboxes.iter().any(|mailbox| !mailbox.is_empty());
            if !waiting {
                break;
            }
            for (hub, mailbox) in self.hubs.iter_mut().zip(&mut self.mailboxes) {
                while let Some(letter) = mailbox.next_urgent().or_else(|| mailbox.next()) {
                    assert!(hub.read(letter).is_none());
                }
                hub.take_effect(hub.ends_read());
            }
        }
        self.hubs.iter().zip(before).map(|(hub, before)| hub.counters.letters - before).collect()
    }

    /// What a core's connections are sent in this tick: payloads of short frames.
    fn sent(&mut self, core: usize) -> BTreeMap<u32, Vec<String>> {
        let hub = &mut self.hubs[core];
        let sent = sent(hub).into_iter().collect();
        assert!(hub.invariants());
        sent
    }

    fn publish(&mut self, core: usize, room: &str, text: &str) -> Delivery {
        let room = self.hubs[core].room(room);
        self.hubs[core].publish(room, Kind::Text, text.as_bytes(), None, None)
    }
}

pub(super) fn bytes_of(stretch: Stretch<'_>) -> Vec<u8> {
    match stretch {
        Stretch::One(bytes) => bytes.to_vec(),
        Stretch::Many(pieces) => pieces.concat(),
    }
}

pub(super) fn payloads(mut bytes: &[u8]) -> Vec<String> {
    let mut found = Vec::new();
    while let [_, len, rest @ ..] = bytes {
        let (payload, rest) = rest.split_at(usize::from(*len));
        found.push(String::from_utf8(payload.to_vec()).expect("text"));
        bytes = rest;
    }
    found
}

fn queued(count: u32) -> Delivery {
    Delivery { queued: count, ..Delivery::default() }
}

fn each<const N: usize>(slots: [u32; N], texts: &[&str]) -> BTreeMap<u32, Vec<String>> {
    slots.iter().map(|slot| (*slot, texts.iter().map(|text| String::from(*text)).collect())).collect()
}

// ---- rooms on one core --------------------------------------------------------------------------------------------

#[test]
fn members_get_what_is_published_and_nobody_else() {
    let mut world = World::new(1);
    (0..4).for_each(|slot| world.connect(0, slot, 1));
    for slot in [0, 2, 3] {
        world.hubs[0].join(slot, "a").unwrap();
    }
    world.hubs[0].join(1, "b").unwrap();
    world.hubs[0].join(3, "b").unwrap();
    assert_eq!(world.publish(0, "a", "to a"), queued(3));
    assert_eq!(world.publish(0, "b", "to b"), queued(2));
    assert_eq!(world.publish(0, "c", "to nobody"), queued(0));
    let mut expected = each([0, 2], &["to a"]);
    expected.extend(each([1], &["to b"]));
    expected.extend(each([3], &["to a", "to b"]));
    assert_eq!(world.sent(0), expected);
    assert_eq!(world.hubs[0].counters.messages_out, 5);
    assert!(world.hubs[0].leave(2, "a"));
    assert!(!world.hubs[0].leave(2, "a") && !world.hubs[0].leave(2, "nowhere"));
    assert_eq!(world.publish(0, "a", "again"), queued(2));
    assert_eq!(world.sent(0), each([0, 3], &["again"]));
}

#[test]
fn the_sender_can_be_left_out() {
    let mut world = World::new(1);
    (0..3).for_each(|slot| world.connect(0, slot, 1));
    let rooms: Vec<RoomId> = (0..3).map(|slot| world.hubs[0].join(slot, "a").unwrap()).collect();
    assert!(rooms.iter().all(|room| *room == rooms[0]));
    let delivery = world.hubs[0].publish(rooms[0], Kind::Text, b"hi", Some(1), None);
    assert_eq!(delivery, queued(2));
    assert_eq!(world.sent(0), each([0, 2], &["hi"]));
    // By letter, the one left out is named by its id.
    for id in [world.hubs[0].id(1), world.hubs[0].ids.id(0, 1, 9), world.hubs[0].ids.id(3, 1, 1)] {
        let (scope, frame) = (Scope::Room("a".into()), FrameBuf::new(Opcode::Text, b"ho"));
        let publication = Publication { except: Some(id), ..frame.into() };
        world.hubs[0].read(Order::Publish { scope, publication }.into());
        let expected = if id == world.hubs[0].id(1) { each([0, 2], &["ho"]) } else { each([0, 1, 2], &["ho"]) };
        assert_eq!(world.sent(0), expected, "a stale or foreign id leaves nobody out");
    }
}

#[test]
fn joining_twice_is_being_a_member_once() {
    let mut world = World::new(1);
    world.connect(0, 0, 1);
    let room = world.hubs[0].join(0, "a").unwrap();
    assert_eq!(world.hubs[0].join(0, "a"), Ok(room));
    assert_eq!(world.hubs[0].local_members("a"), [0]);
    assert!(world.hubs[0].is_member(0, room));
    assert_eq!(world.hubs[0].first_room(0), Some(room));
    assert!(world.hubs[0].leave(0, "a"));
    assert_eq!(world.hubs[0].first_room(0), None);
    assert_eq!(world.hubs[0].room_count(), 0);
}

#[test]
fn joins_are_bounded() {
    let mut world = World::new(1);
    world.connect(0, 0, 1);
    for room in 0..256 {
        world.hubs[0].join(0, &room.to_string()).unwrap();
    }
    assert_eq!(world.hubs[0].join(0, "one more"), Err(JoinError::TooManyRooms { max: 256 }));
    assert!(world.hubs[0].join(0, "0").is_ok(), "it is in that one already");
    assert_eq!(world.hubs[0].room_count(), 256, "a refused join makes no room");
    world.hubs[0].leave(0, "7");
    let longest = "x".repeat(ROOM_NAME_BYTES_MAX);
    assert_eq!(world.hubs[0].join(0, &(longest.clone() + "x")), Err(JoinError::NameTooLong { max: 256 }));
    assert!(world.hubs[0].join(0, &longest).is_ok());
    world.disconnect(0, 0);
    assert_eq!(world.hubs[0].room_count(), 0);
    assert!(world.hubs[0].invariants());
    assert_eq!(world.hubs[0].join(0, "a"), Err(JoinError::Gone));
    assert_eq!(world.hubs[0].join(77, "a"), Err(JoinError::Gone));
}

#[test]
fn a_named_room_stays_and_others_are_forgotten() {
    let mut world = World::new(2);
    world.connect(0, 0, 1);
    world.hubs[0].room("kept");
    world.hubs[0].join(0, "kept").unwrap();
    world.hubs[0].join(0, "passing").unwrap();
    world.mail();
    assert_eq!([world.hubs[0].room_count(), world.hubs[1].room_count()], [2, 2]);
    world.disconnect(0, 0);
    world.mail();
    assert_eq!([world.hubs[0].room_count(), world.hubs[1].room_count()], [1, 0]);
}

// ---- several cores ------------------------------------------------------------------------------------------------

#[test]
fn only_the_first_and_the_last_member_are_announced() {
    let mut world = World::new(3);
    (0..3).for_each(|slot| world.connect(1, slot, 1));
    world.hubs[1].join(0, "a").unwrap();
    assert_eq!(world.mail(), [1, 0, 1]);
    world.hubs[1].join(1, "a").unwrap();
    world.hubs[1].join(2, "a").unwrap();
    world.hubs[1].leave(0, "a");
    world.disconnect(1, 1);
    assert_eq!(world.mail(), [0, 0, 0]);
    world.hubs[1].leave(2, "a");
    assert_eq!(world.mail(), [1, 0, 1]);
}

/// Kills: counts that are told of each join and leave, and rooms that are forgotten before the others are told.
#[test]
fn members_are_counted_over_all_cores_and_told_once_a_tick() {
    let mut world = World::new(3);
    for core in 0..3 {
        (0..4).for_each(|slot| world.connect(core, slot, 1));
    }
    let counts = |world: &World| [0, 1, 2].map(|core| world.hubs[core].member_count("a"));
    for slot in 0..4 {
        world.hubs[0].join(slot, "a").unwrap();
        assert_eq!(world.hubs[0].member_count("a"), slot as usize + 1, "itself included, at once");
    }
    world.hubs[1].join(2, "a").unwrap();
    // The first is told at once, so that others can publish, and the rest at the end of the tick.
    assert_eq!((world.mail(), counts(&world)), (vec![1, 2, 3], [5; 3]));
    for _ in 0..100 {
        world.hubs[0].leave(1, "a");
        world.hubs[0].join(1, "a").unwrap();
        world.hubs[1].leave(2, "a");
        world.hubs[1].join(2, "a").unwrap();
    }
    assert_eq!((world.mail(), counts(&world)), (vec![0; 3], [5; 3]), "nothing has changed");
    (0..3).for_each(|slot| world.disconnect(0, slot));
    world.hubs[1].leave(2, "a");
    assert_eq!((world.mail(), counts(&world)), (vec![1, 1, 2], [1; 3]));
    world.disconnect(0, 3);
    assert_eq!((world.mail(), counts(&world)), (vec![0, 1, 1], [0; 3]));
    assert!(world.hubs.iter().all(|hub| hub.room_count() == 0));
}

/// Kills: copies of names on each core, and bytes that stay counted after what they were for has gone.
#[test]
fn rooms_and_data_are_counted_and_names_are_shared() {
    let mut world = World::new(2);
    (0..2).for_each(|slot| world.connect(0, slot, 1));
    let name = |n: usize| format!("{n:0200}");
    world.hubs[0].join(0, &name(0)).unwrap();
    assert_eq!(world.hubs[0].kept_bytes(), 0, "that much is part of a connection");
    (0..100).for_each(|n| _ = world.hubs[0].join(0, &name(n)).unwrap());
    let kept = world.hubs[0].kept_bytes();
    assert!(kept > 100 * 300 && kept == world.hubs[0].kept_by(0), "{kept}");
    world.hubs[0].set_data(1, serde_json::json!(["x".repeat(10_000)]).into());
    world.hubs[0].set_data(1, serde_json::json!(["x".repeat(5_000)]).into());
    let of_data = world.hubs[0].kept_bytes() - kept;
    assert!((4_000..6_000).contains(&of_data), "{of_data}");
    world.mail();
    let [here, there] = [0, 1].map(|core| {
        let hub = &world.hubs[core];
        Arc::clone(&hub.rooms[hub.names[&*name(7)].0 as usize].name)
    });
    assert!(Arc::ptr_eq(&here, &there));
    assert_eq!(world.hubs[1].kept_bytes(), 0);
    (0..99).for_each(|n| assert!(world.hubs[0].leave(0, &name(n))));
    assert_eq!(world.hubs[0].kept_bytes(), of_data);
    world.disconnect(0, 0);
    world.disconnect(0, 1);
    assert_eq!(world.hubs[0].kept_bytes(), 0);
    assert!(world.hubs[0].invariants());
}

#[test]
fn only_cores_with_members_get_what_is_published() {
    let mut world = World::new(4);
    for core in [0, 2] {
        world.connect(core, 5, 1);
        world.hubs[core].join(5, "a").unwrap();
    }
    world.mail();
    assert_eq!(world.publish(0, "a", "hi"), queued(1));
    assert_eq!(world.mail(), [0, 0, 1, 0]);
    assert!(world.mailboxes.iter_mut().all(Mailbox::park));
    world.publish(0, "a", "ho");
    let mut rung = Vec::new();
    world.hubs[0].post_mail(|core| rung.push(core));
    assert_eq!(rung, [2], "and only they are woken");
    assert_eq!(world.mail(), [0, 0, 1, 0]);
    assert_eq!(world.sent(0), each([5], &["hi", "ho"]));
    assert_eq!(world.sent(2), each([5], &["hi", "ho"]));
    // A core without members of its own can publish as well.
    assert_eq!(world.publish(3, "a", "from afar"), queued(0));
    assert_eq!(world.mail(), [1, 0, 1, 0]);
    assert_eq!(world.sent(2), each([5], &["from afar"]));
}

#[test]
fn letters_to_an_unknown_room_concern_nobody() {
    let mut world = World::new(2);
    let (tally, answer) = Tally::new();
    let frame = FrameBuf::new(Opcode::Text, b"x");
    let publication = Publication { tally: Some(tally), ..frame.into() };
    world.hubs[0].read(Order::Publish { scope: Scope::Room("?".into()), publication }.into());
    assert_eq!(answer.recv(), Ok(Delivery::default()));
    world.hubs[0].read(Order::Presence { room: "?".into(), core: 1, members: 0 }.into());
    assert_eq!(world.hubs[0].room_count(), 0);
    let drain = Shutdown::Drain { within: Some(std::time::Duration::from_secs(5)) };
    assert_eq!(world.hubs[0].read(drain.into()), Some(drain));
    assert!(matches!(world.hubs[0].read(Shutdown::Stop.into()), Some(Shutdown::Stop)));
}

#[test]
fn large_messages_reach_other_cores_by_reference() {
    let mut world = World::new(2);
    for core in 0..2 {
        world.connect(core, 0, 1);
        world.hubs[core].join(0, "a").unwrap();
    }
    world.mail();
    let room = world.hubs[0].room("a");
    world.hubs[0].publish(room, Kind::Binary, &[7; 2 * SHARED_BYTES_MIN], None, None);
    world.mail();
    for core in 0..2 {
        let hub = &mut world.hubs[core];
        let lens: Vec<usize> = hub.outbox.batch().map(|send| bytes_of(send.bytes).len()).collect();
        assert_eq!(lens, [2 * SHARED_BYTES_MIN + 4]);
        assert_eq!(hub.outbox.backlog_bytes() > 0, core == 1, "copied here, referred to there");
    }
}

#[test]
fn an_id_reaches_its_connection_on_any_core() {
    let mut world = World::new(2);
    world.connect(0, 3, 1);
    world.connect(1, 4, 1);
    let (here, there) = (world.hubs[0].id(3), world.hubs[1].id(4));
    let ids = world.hubs[0].ids.clone();
    let stranger = IdKey::default();
    let gone = Delivery { gone: 1, ..Delivery::default() };
    let cases = [
        (here, queued(1)),
        (there, queued(1)),
        (ids.id(0, 3, 0), gone),
        (ids.id(1, 4, 2), gone),
        (ids.id(0, 99, 1), gone),
        (ids.id(1, 99, 1), gone),
        (ids.id(2, 3, 1), gone),
        (stranger.id(0, 3, 1), gone),
        (stranger.id(1, 4, 1), gone),
    ];
    for (id, expected) in cases {
        let (tally, answer) = Tally::new();
        world.hubs[0].emit_to(id, Opcode::Text, b"psst", Some(tally));
        world.mail();
        assert_eq!(answer.recv(), Ok(expected), "{id:?}");
    }
    assert_eq!(world.sent(0), each([3], &["psst"]));
    assert_eq!(world.sent(1), each([4], &["psst"]));
    world.disconnect(1, 4);
    world.connect(1, 4, 2);
    world.hubs[0].emit_to(there, Opcode::Text, b"late", None);
    world.mail();
    assert_eq!(world.sent(1), BTreeMap::new(), "never another connection of the same slot");
}

#[test]
fn short_letters_to_one_connection_leave_in_one_piece() {
    let mut world = World::new(2);
    world.connect(1, 0, 1);
    let id = world.hubs[1].id(0);
    for text in ["one", "two", "three"] {
        world.hubs[0].emit_to(id, Opcode::Text, text.as_bytes(), None);
    }
    world.mail();
    assert!(matches!(world.hubs[1].outbox.batch().next().unwrap().bytes, Stretch::One(_)));
    assert_eq!(world.sent(1), each([0], &["one", "two", "three"]));
}

// ---- tallies and threads ------------------------------------------------------------------------------------------

#[test]
fn a_tally_arrives_when_every_core_has_answered() {
    let mut world = World::new(3);
    for core in 0..3 {
        for slot in 0..=core as u32 {
            world.connect(core, slot, 1);
            world.hubs[core].join(slot, "a").unwrap();
        }
    }
    world.mail();
    let (tally, answer) = Tally::new();
    let room = world.hubs[0].room("a");
    let here = world.hubs[0].publish(room, Kind::Text, b"hi", None, Some(tally));
    assert_eq!(here, queued(1));
    for core in [1, 2] {
        assert_eq!(answer.try_recv(), Err(oneshot::TryRecvError::Empty), "core {core} has not answered");
        let letter = world.mailboxes[core].next().unwrap();
        world.hubs[core].read(letter);
    }
    assert_eq!(answer.try_recv(), Ok(queued(6)));
}

#[test]
fn nobody_needs_to_wait_for_a_tally() {
    let mut world = World::new(2);
    world.connect(1, 0, 1);
    let id = world.hubs[1].id(0);
    let (tally, answer) = Tally::new();
    drop(answer);
    world.hubs[0].emit_to(id, Opcode::Text, b"x", Some(tally));
    world.mail();
    assert_eq!(world.sent(1), each([0], &["x"]));
}

#[test]
fn a_core_that_ended_does_not_hold_a_tally_up() {
    let mut world = World::new(2);
    world.connect(1, 0, 1);
    world.hubs[1].join(0, "a").unwrap();
    world.mail();
    world.mailboxes.pop();
    let (tally, answer) = Tally::new();
    let room = world.hubs[0].room("a");
    world.hubs[0].publish(room, Kind::Text, b"hi", None, Some(tally));
    assert_eq!(answer.try_recv(), Ok(queued(0)));
}

#[test]
fn other_threads_reach_everybody() {
    let mut world = World::new(2);
    for core in 0..2 {
        world.connect(core, 0, 1);
        world.hubs[core].join(0, "a").unwrap();
    }
    let handle = world.handle.clone();
    let published = handle.send_to_room("a", "all").unwrap();
    let emitted = handle.send_to(world.hubs[1].id(0), "you").unwrap();
    let nowhere = handle.send_to(world.hubs[0].ids.id(9, 0, 1), "?").unwrap();
    world.mail();
    assert_eq!(published.wait(), queued(2));
    assert_eq!(emitted.wait(), queued(1));
    assert_eq!(nowhere.wait(), Delivery { gone: 1, ..Delivery::default() });
    assert_eq!(world.sent(0), each([0], &["all"]));
    assert_eq!(world.sent(1), each([0], &["all", "you"]));

    let asker = std::thread::spawn(move || handle.ask_all(|hub| hub.core()));
    while !asker.is_finished() {
        world.mail();
    }
    assert_eq!(asker.join().unwrap(), Ok(vec![0, 1]));
}

/// Kills: presence letters that wait with the others.
#[test]
fn word_of_a_join_does_not_wait_in_a_full_mailbox() {
    let mut world = World::new(2);
    world.connect(0, 0, 1);
    world.connect(1, 0, 1);
    let id = world.hubs[1].id(0);
    for _ in 0..100 {
        world.hubs[0].emit_to(id, Opcode::Text, b"x", None);
    }
    assert!(world.hubs[0].is_congested());
    world.hubs[0].join(0, "a").unwrap();
    let letter = world.mailboxes[1].next_urgent().unwrap();
    world.hubs[1].read(letter);
    world.publish(1, "a", "heard");
    world.mail();
    assert_eq!(world.sent(0), each([0], &["heard"]));
}

// ---- slow consumers and dooms -------------------------------------------------------------------------------------

/// A core with two members of a room, of which the first has a full socket and a queue of five messages of 18 bytes.
fn one_slow_member(policy: SlowConsumer) -> (World, RoomId, bytes::Bytes) {
    let mut world = World::with(1, 100, policy);
    let hub = &mut world.hubs[0];
    hub.outbox.open(0, 1);
    hub.enter(0, 1, 0);
    hub.outbox.open(1, 1);
    hub.enter(1, 1, 0);
    hub.join(0, "a").unwrap();
    let room = hub.join(1, "a").unwrap();
    hub.send(0, Opcode::Text, b"0");
    assert_eq!(hub.outbox.batch().count(), 1);
    let waiting = hub.outbox.sent_short(0, 0).unwrap();
    hub.outbox.settle(|_| {});
    for number in 1..6 {
        assert_eq!(hub.send(0, Opcode::Text, format!("{number:016}").as_bytes()), Queued::Yes);
    }
    (world, room, waiting)
}

#[test]
fn a_slow_consumer_can_be_closed() {
    let (mut world, room, _waiting) = one_slow_member(SlowConsumer::Close);
    let hub = &mut world.hubs[0];
    let delivery = hub.publish(room, Kind::Text, b"0123456789", None, None);
    assert_eq!(delivery, Delivery { queued: 1, dropped: 1, ..Delivery::default() });
    assert_eq!((hub.counters.shed.total(), hub.counters.drops.total()), (1, 1));
    let delivery = hub.publish(room, Kind::Text, b"0123456789", None, None);
    assert_eq!(delivery, Delivery { queued: 1, gone: 1, ..Delivery::default() }, "it is closing");
    let dooms = hub.take_dooms();
    assert_eq!(dooms.len(), 1);
    assert_eq!((dooms[0].slot, dooms[0].generation, dooms[0].code), (0, 1, Some(1013)));
    assert!(!hub.is_open(0) && hub.is_open(1));
}

#[test]
fn a_slow_consumer_can_miss_new_messages() {
    let (mut world, room, _waiting) = one_slow_member(SlowConsumer::DropNew);
    let hub = &mut world.hubs[0];
    for _ in 0..3 {
        let delivery = hub.publish(room, Kind::Text, b"0123456789", None, None);
        assert_eq!(delivery, Delivery { queued: 1, dropped: 1, ..Delivery::default() });
    }
    assert_eq!(hub.counters.drops.total(), 3);
    assert!(!hub.has_dooms() && hub.is_open(0));
}

#[test]
fn a_slow_consumer_can_miss_old_messages() {
    let (mut world, room, waiting) = one_slow_member(SlowConsumer::DropOld);
    let hub = &mut world.hubs[0];
    assert_eq!(hub.publish(room, Kind::Text, b"new", None, None), queued(2));
    assert_eq!(hub.send(0, Opcode::Text, b"newer"), Queued::Yes);
    assert_eq!(hub.counters.drops.total(), 1);
    assert_eq!(hub.send(0, Opcode::Text, &[b'x'; 200]), Queued::Full, "there is no room for that");
    assert_eq!(hub.counters.drops.total(), 2);
    drop(waiting);
    let next: Vec<u8> = std::iter::from_fn(|| hub.outbox.sent_async(0, |_| {})).flatten().collect();
    let numbers = (2..6).map(|number| format!("{number:016}"));
    let expected: Vec<String> = numbers.chain(["new".into(), "newer".into()]).collect();
    assert_eq!(payloads(&next), expected);
}

#[test]
fn a_connection_is_doomed_once() {
    let mut world = World::new(1);
    world.connect(0, 0, 1);
    world.connect(0, 1, 5);
    let hub = &mut world.hubs[0];
    let id = hub.id(0);
    assert_eq!(hub.resolve(id), Some(0));
    hub.close(0, Some(4000), "first");
    hub.close(0, Some(4001), String::from("second"));
    hub.mark_closing(1);
    hub.close(1, None, "too late");
    hub.close(99, None, "nobody");
    assert_eq!(hub.resolve(id), None);
    assert_eq!(hub.send(0, Opcode::Text, b"late"), Queued::Gone);
    assert_eq!(hub.join(0, "a"), Err(JoinError::Gone));
    let dooms = hub.take_dooms();
    assert_eq!(dooms.len(), 1);
    assert_eq!((dooms[0].code, dooms[0].reason.as_ref()), (Some(4000), "first"));
    assert!(!hub.has_dooms() && hub.take_dooms().is_empty());
    world.disconnect(0, 0);
    world.connect(0, 0, 2);
    world.hubs[0].close(0, None, "");
    assert_eq!(world.hubs[0].take_dooms()[0].generation, 2, "its next owner can be closed");
}

// ---- a model ------------------------------------------------------------------------------------------------------

#[test]
fn random_joins_and_leaves_reach_exactly_the_members() {
    const CORES: usize = 3;
    const SLOTS: usize = 7;
    const ROOMS: [&str; 5] = ["a", "b", "c", "d", "e"];
    for seed in 0..10 {
        let mut chance = Chance(seed);
        let mut world = World::new(CORES);
        let mut generation = 1;
        let mut members: BTreeMap<&str, BTreeSet<(usize, u32)>> =
            ROOMS.iter().map(|room| (*room, BTreeSet::new())).collect();
        for core in 0..CORES {
            (0..SLOTS).for_each(|slot| world.connect(core, slot as u32, generation));
        }
        for step in 0..2000 {
            let (core, slot) = (chance.below(CORES), chance.below(SLOTS) as u32);
            let room = ROOMS[chance.below(ROOMS.len())];
            let in_room = members.get_mut(room).unwrap();
            match chance.below(20) {
                0..7 => {
                    world.hubs[core].join(slot, room).unwrap();
                    in_room.insert((core, slot));
                }
                7..13 => assert_eq!(world.hubs[core].leave(slot, room), in_room.remove(&(core, slot))),
                13 => {
                    world.disconnect(core, slot);
                    members.values_mut().for_each(|members| _ = members.remove(&(core, slot)));
                    generation += 1;
                    world.connect(core, slot, generation);
                }
                _ if in_room.is_empty() => {}
                _ => {
                    let except = (chance.below(2) == 0).then_some(slot);
                    let text = step.to_string();
                    let id = world.hubs[core].names[room];
                    world.hubs[core].publish(id, Kind::Text, text.as_bytes(), except, None);
                    let letters = world.mail();
                    for (other, letters) in letters.into_iter().enumerate() {
                        let here: BTreeMap<u32, Vec<String>> = in_room
                            .iter()
                            .filter(|(of, member)| *of == other && !(other == core && except == Some(*member)))
                            .map(|(_, member)| (*member, vec![text.clone()]))
                            .collect();
                        let woken = other != core && in_room.iter().any(|(of, _)| *of == other);
                        assert_eq!(letters, u64::from(woken), "seed {seed} step {step} core {other}");
                        assert_eq!(world.sent(other), here, "seed {seed} step {step} core {other}");
                    }
                }
            }
            world.mail();
            let rooms = members.values().filter(|members| !members.is_empty()).count();
            for hub in &world.hubs {
                assert!(hub.invariants());
                assert_eq!(hub.room_count(), rooms, "seed {seed} step {step}");
            }
        }
    }
}
