//! Nodes on a simulated bus: the machine that joins them, seeded, with an oracle that knows what must come and what must not.
//!
//! `RINGWIRE_SIM_SEED=7` runs that seed alone, `RINGWIRE_SIM_SEEDS=1000` so many of them.

#![forbid(unsafe_code)]
#![allow(unreachable_pub, reason = "the modules of a test crate are reachable from nowhere else")]

mod bus;
mod oracle;
mod world;

use bus::Faults;
use oracle::Scale;
use world::{Act, World};

fn seeds(default_count: u64) -> Vec<u64> {
    let variable = |name| std::env::var(name).ok().map(|value| value.parse().expect("a number"));
    match (variable("RINGWIRE_SIM_SEED"), variable("RINGWIRE_SIM_SEEDS")) {
        (Some(seed), _) => vec![seed],
        (None, count) => (0..count.unwrap_or(default_count)).collect(),
    }
}

const CALM: Faults = Faults { loss: 0.0, doubled: 0.0, delay_ms: 20, cuts: 0.0, kills: 0.0, stops: 0.0 };
const HARSH: Faults = Faults { loss: 0.02, doubled: 0.05, delay_ms: 40, cuts: 0.001, kills: 0.0004, stops: 0.0006 };

/// Kills: an interest that is not told, or not subscribed to before it is told; an answer that is lost.
#[test]
fn without_faults_everybody_gets_everything_once() {
    for seed in seeds(12) {
        let mut world = World::new(seed, 3, CALM);
        world.settle(3_000);
        world.act_for(6_000, &[Act::Change, Act::Publish, Act::All, Act::Route, Act::Ask]);
        world.settle(5_000);
        world.check_at_rest();
        let Scale { published, delivered, answers, lost, .. } = world.scale();
        assert!(published > 500 && delivered > 500 && answers > 100, "seed {seed}: {:?}", world.scale());
        assert_eq!((world.oracle.missed(), lost), (0, 0), "seed {seed}");
    }
}

/// At most once, in order, and all counts right at rest, whatever the bus does.
///
/// Kills: messages that are not told apart by their numbers; a yes for what was not done; counts that stay when a node has
/// died; members that are told of twice.
#[test]
fn whatever_the_bus_does_nothing_comes_twice_or_in_disorder_and_counts_are_right_at_rest() {
    let mut all = Scale::default();
    let seeds = seeds(10);
    for seed in &seeds {
        let mut world = World::new(*seed, 2 + (*seed % 4) as usize, HARSH);
        world.settle(1_000);
        world.act_for(15_000, &[Act::Change, Act::Publish, Act::All, Act::Route, Act::Ask, Act::Fault]);
        world.heal();
        world.settle(15_000);
        world.check_at_rest();
        all.add(world.scale());
    }
    println!("{all:?}");
    if seeds.len() >= 10 {
        let Scale { published, delivered, doubled, answers, unanswered, lost, back, kills, cuts, stops, parts } = all;
        for (what, count) in [
            ("published", published),
            ("delivered", delivered),
            ("doubled", doubled),
            ("answers", answers),
            ("unanswered", unanswered),
            ("lost", lost),
            ("back", back),
            ("kills", kills),
            ("cuts", cuts),
            ("stops", stops),
            ("parts", parts),
        ] {
            assert!(count > 10, "hardly ever: {what}: {all:?}");
        }
    }
}

/// Kills: a gap in the beats that nobody minds. Nothing else has all told anew here.
#[test]
fn changes_that_were_lost_are_asked_for() {
    for seed in seeds(6) {
        let mut world = World::new(seed, 3, CALM);
        world.settle(3_000);
        world.lose(0.2);
        world.act_for(3_000, &[Act::Change]);
        world.heal();
        world.settle(4_000);
        world.check_at_rest();
    }
}

#[test]
fn the_same_seed_is_the_same_run() {
    let run = |seed| {
        let mut world = World::new(seed, 3, HARSH);
        world.act_for(5_000, &[Act::Change, Act::Publish, Act::Ask, Act::Fault]);
        format!("{:?}", world.scale())
    };
    assert_eq!(run(5), run(5));
    assert_ne!(run(5), run(6));
}

/// A join is counted elsewhere after the time that changes gather, and the way of two messages.
#[test]
fn a_join_is_counted_elsewhere_within_the_bound() {
    for seed in seeds(5) {
        let mut world = World::new(seed, 3, CALM);
        world.settle(3_000);
        let mut longest_ms = 0;
        for number in 0..50 {
            let room = format!("fresh-{number}");
            world.join(number % 3, 0, &room);
            let began = world.now_ms();
            while (0..3).any(|node| node != number % 3 && world.count_at(node, &room) != 1) {
                world.step();
                assert!(world.now_ms() < began + 1_000, "seed {seed}: never");
            }
            longest_ms = longest_ms.max(world.now_ms() - began);
        }
        // Ten to gather, twenty on the way, and the steps of the simulation.
        assert!(longest_ms <= 45, "seed {seed}: {longest_ms} ms");
    }
}

/// Kills: a node that is counted longer than the timeout after it has died.
#[test]
fn who_has_died_is_counted_no_more_after_the_timeout() {
    for seed in seeds(5) {
        let mut world = World::new(seed, 3, CALM);
        world.settle(3_000);
        world.act_for(1_000, &[Act::Change]);
        world.settle(500);
        world.kill(1);
        world.settle(6_000);
        for node in [0, 2] {
            assert_eq!(world.others_at(node), 1, "seed {seed}");
        }
        world.check_at_rest();
        let lost = world.scale().lost;
        assert!(lost >= 2, "seed {seed}: both others are told: {lost}");
        world.settle(10_000);
        assert_eq!(world.scale().lost, lost, "seed {seed}: once");
    }
}

/// Kills: a second node that takes a name which another has; two that claim it at once and both take it, or neither does.
#[test]
fn a_name_is_one_nodes() {
    for seed in seeds(20) {
        let mut world = World::new(seed, 2, CALM);
        world.settle(3_000);
        let second = world.add("node-0");
        world.settle(3_000);
        assert!(world.was_refused(second), "seed {seed}");
        assert!(!world.was_refused(0), "seed {seed}");
        let at_once = [world.add("twin"), world.add("twin")];
        world.settle(3_000);
        let refused = at_once.iter().filter(|node| world.was_refused(**node)).count();
        assert_eq!(refused, 1, "seed {seed}");
    }
}

/// Kills: two nodes of one name that were apart and stay, or both leave for good.
#[test]
fn of_two_that_took_a_name_apart_one_stays() {
    for seed in seeds(10) {
        let mut world = World::new(seed, 2, CALM);
        world.settle(2_000);
        world.stop(0);
        world.settle(6_000);
        let second = world.add("node-0");
        world.settle(2_000);
        assert!(!world.was_refused(second), "seed {seed}: nobody objects");
        world.cont(0);
        world.settle(20_000);
        let joined = [0, second].iter().filter(|node| world.is_joined(**node)).count();
        assert_eq!(joined, 1, "seed {seed}");
        assert_eq!(world.others_at(1), 1, "seed {seed}");
    }
}

/// Kills: an id of a former node that waits for an answer, and one of a silent node that is said to have gone.
#[test]
fn ids_of_who_is_not_there() {
    let mut world = World::new(1, 3, CALM);
    world.settle(3_000);
    let (of_one, of_two) = (world.some_id(1), world.some_id(2));
    world.kill(1);
    let silent = world.ask(0, of_one);
    world.settle(3_000);
    assert_eq!(world.answer(silent), Some(None), "nobody has answered in time");
    world.settle(5_000);
    let lost = world.ask(0, of_one);
    assert_eq!(world.answer(lost), Some(None), "it may live, and is asked no more");
    let restarted = world.add("node-1");
    world.settle(3_000);
    assert!(world.is_joined(restarted));
    let former = world.ask(0, of_one);
    assert_eq!(world.answer(former), Some(Some(false)), "another has its name");
    world.end(2);
    world.settle(1_000);
    let ended = world.ask(0, of_two);
    assert_eq!(world.answer(ended), Some(Some(false)), "it has said so");
}

/// What outsiders publish.
#[test]
fn programs_publish_to_rooms_to_ids_and_to_all() {
    let mut world = World::new(1, 2, CALM);
    world.settle(3_000);
    let (one, other) = (world.join(0, 0, "a.b c"), world.join(1, 1, "a.b c"));
    world.settle(100);
    for (subject, payload, to) in [
        ("sim.in.room.a.b%20c", &b"to the room"[..], vec![one, other]),
        ("sim.in.room.nobody", b"to nobody", vec![]),
        (&format!("sim.in.id.{}", world.id(other)), b"\xff\x00 binary", vec![other]),
        ("sim.in.id.somebody", b"no id", vec![]),
    ] {
        world.publish_from_outside(subject, payload);
        world.settle(100);
        assert_eq!(world.take_from_outside(payload), to, "{subject}");
    }
    world.publish_from_outside("sim.in.all", b"to all");
    world.settle(100);
    assert_eq!(world.take_from_outside(b"to all").len(), world.members());
}

/// Kills: bytes of the bus that panic, or are delivered though they are no message.
#[test]
fn what_makes_no_sense_does_nothing() {
    for seed in seeds(10) {
        let mut world = World::new(seed, 2, CALM);
        world.settle(2_000);
        let delivered = world.scale().delivered;
        world.garbage(3_000);
        world.settle(1_000);
        assert_eq!(world.scale().delivered, delivered, "seed {seed}");
        world.check_at_rest();
    }
}
