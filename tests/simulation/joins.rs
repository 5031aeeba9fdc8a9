//! Joins and leaves of event sockets on many cores: whoever is in a room knows, by the answer and by what it is told after
//! that, how many are, and misses nothing that is said.

use std::rc::Rc;

use ringwire::engine::sim::{Fault, Faults, RingOptions, Rng};
use ringwire::standalone;
use serde_json::{Value, json};

use crate::host::Setup;
use crate::rig::{Rig, Socket};
use crate::wire::Event;

fn setup(cores: usize, mail_depth: usize) -> Setup {
    let app = || standalone::app(&ringwire::Config::default());
    let ring = RingOptions { slots: 200, ..RingOptions::default() };
    Setup { cores, mail_depth, ring, app: Rc::new(app), ..Setup::default() }
}

/// A client of `/ws` and what it knows of the one room.
struct Member {
    socket: Socket,
    is_connected: bool,
    /// It has asked to be let in or out, and has not been answered.
    asks: bool,
    /// Members by its answer, and by what it was told since; `None` where it is in no room.
    count: Option<i64>,
    heard: Vec<u64>,
    is_gone: bool,
}

impl Member {
    fn new(rig: &mut Rig, core: usize) -> Member {
        let socket = rig.open(core, "/ws");
        Member { socket, is_connected: false, asks: false, count: None, heard: Vec::new(), is_gone: false }
    }

    fn say(&mut self, event: &str, data: &Value) {
        self.socket.text(&json!({"event": event, "data": data}).to_string());
    }

    fn ask(&mut self, event: &str) {
        self.asks = true;
        self.say(event, &json!({"room": "den"}));
    }

    /// Takes in what has come.
    fn read(&mut self) {
        for event in self.socket.events() {
            let Event::Message(message) = event else { continue };
            let event: Value = serde_json::from_slice(&message.payload).expect("JSON");
            let (name, data) = (event["event"].as_str().expect("a name"), &event["data"]);
            match name {
                "connected" => self.is_connected = true,
                "joined" => {
                    assert!(self.asks && self.count.is_none(), "{event}");
                    self.asks = false;
                    self.count = Some(data["members"].as_i64().expect("a count"));
                }
                "left" => {
                    assert!(self.asks, "{event}");
                    self.asks = false;
                    self.count = None;
                }
                "user-joined" => *self.count.as_mut().expect("it is in the room") += 1,
                // It may be on its way out.
                "user-left" => *self.count.as_mut().expect("it is in the room") -= 1,
                "message" => {
                    assert!(self.count.is_some(), "{event}");
                    self.heard.push(data["message"].as_u64().expect("a number"));
                }
                other => panic!("{other}: {event}"),
            }
        }
        self.is_gone |= self.socket.client.saw_fin() || self.socket.client.saw_reset();
    }

    fn is_in(&self) -> bool {
        !self.is_gone && !self.asks && self.count.is_some()
    }
}

/// A message, and who must hear it: whoever had been answered when it was sent, and is there when it arrives.
struct Said {
    number: u64,
    by: usize,
    owed: Vec<usize>,
}

/// Kills: answers that do not wait for all cores, notices on another way than the count, messages before the answer.
#[test]
fn joins_on_many_cores_add_up_and_members_miss_nothing() {
    let mut breaks = 0;
    for seed in crate::seeds(60) {
        breaks += join_at_random(seed);
    }
    assert!(breaks > 0 || crate::seeds(60).len() < 10, "nobody ever went without a word");
}

fn join_at_random(seed: u64) -> usize {
    let cores = 2 + (seed % 3) as usize;
    let faults = Faults::harsh().with(Fault::ClockJump, 0.0).with(Fault::AcceptError, 0.0);
    let mut rig = Rig::faulty(&setup(cores, [1, 2, 64][(seed / 3 % 3) as usize]), seed, faults);
    let mut rng = Rng::new(seed + 1);
    let mut members: Vec<Member> = (0..3 * cores).map(|n| Member::new(&mut rig, n % cores)).collect();
    let mut said: Vec<Said> = Vec::new();
    let mut breaks = 0;
    for round in 0..500 {
        for n in 0..members.len() {
            members[n].read();
            if members[n].is_gone || rng.chance(0.003) {
                // What it was owed goes with it, and so may what it has said: it is handled for sure if it came back.
                for said in &mut said {
                    said.owed.retain(|of| *of != n);
                    if said.by == n && !members[n].heard.contains(&said.number) {
                        said.owed.clear();
                    }
                }
                if !members[n].is_gone {
                    members[n].socket.client.reset();
                }
                breaks += 1;
                members[n] = Member::new(&mut rig, rng.below(cores as u64) as usize);
                continue;
            }
            let member = &mut members[n];
            if !member.is_connected || member.asks || round > 400 {
                continue;
            }
            match (member.count, rng.below(20)) {
                (None, 0..4) => member.ask("join"),
                (Some(_), 0) => {
                    member.ask("leave");
                    let heard = &members[n].heard;
                    let missing = said.iter_mut().filter(|said| !heard.contains(&said.number));
                    missing.for_each(|said| said.owed.retain(|of| *of != n));
                }
                (Some(_), 1..3) => {
                    let number = said.len() as u64;
                    member.say("message", &json!({"room": "den", "message": number}));
                    let owed = (0..members.len()).filter(|of| members[*of].is_in()).collect();
                    said.push(Said { number, by: n, owed });
                }
                _ => {}
            }
        }
        for core in 0..cores {
            if rng.chance(0.6) && rig.cores.all[core].is_runnable() {
                rig.cores.all[core].tick();
            }
        }
        rig.world.advance(rng.below(100_000));
    }
    rig.world.set_faults(Faults::none());
    rig.pass_ms(200);
    members.iter_mut().for_each(Member::read);
    let alive = |member: &&Member| !member.is_gone && member.count.is_some();
    let inside = members.iter().filter(alive).count() as i64;
    for (n, member) in members.iter().enumerate().filter(|(_, member)| !member.is_gone) {
        assert!(!member.asks, "seed {seed}: {n} was not answered");
        assert!(
            member.count.is_none_or(|count| count == inside),
            "seed {seed}: {n} has {:?} of {inside}",
            member.count
        );
    }
    for Said { number, by, owed } in said.iter().filter(|said| !members[said.by].is_gone) {
        for n in owed.iter().filter(|n| !members[**n].is_gone) {
            let times = members[*n].heard.iter().filter(|of| *of == number).count();
            assert_eq!(times, 1, "seed {seed}: {n} and message {number} by {by}");
        }
    }
    rig.finish();
    breaks
}

/// Kills: joins of which neither knows of the other.
#[test]
fn ten_joins_at_once_add_up_to_ten_for_each() {
    for cores in 1..=5 {
        for mail_depth in [1, 64] {
            let mut rig = Rig::new(&setup(cores, mail_depth));
            let mut members: Vec<Member> = (0..10).map(|n| Member::new(&mut rig, n % cores)).collect();
            members.iter_mut().for_each(|member| member.ask("join"));
            rig.settle();
            rig.pass_ms(20);
            members.iter_mut().for_each(Member::read);
            assert_eq!(members.iter().map(|member| member.count).collect::<Vec<_>>(), vec![Some(10); 10]);
            members.iter_mut().for_each(|member| member.ask("leave"));
            rig.pass_ms(20);
            members.iter_mut().for_each(Member::read);
            assert!(members.iter().all(|member| member.count.is_none() && !member.asks));
            rig.finish();
        }
    }
}

/// What a client sends right behind a join is handled behind the answer, also where another core takes its time.
#[test]
fn what_stands_behind_a_join_waits_for_its_answer() {
    let mut rig = Rig::new(&setup(2, 64));
    let mut socket = rig.open(0, "/ws");
    assert_eq!(socket.texts().len(), 1);
    let events = ["join", "message", "join", "leave", "join", "typing", "ping"];
    for event in events {
        socket.text(&json!({"event": event, "data": {"room": "den", "message": event}}).to_string());
    }
    while rig.cores.all[0].is_runnable() {
        rig.cores.all[0].tick();
    }
    assert_eq!(socket.texts().len(), 0, "the other core has not read of the join");
    rig.pass_ms(10);
    let name = |text: &String| serde_json::from_str::<Value>(text).expect("JSON")["event"].as_str().map(str::to_owned);
    let names: Vec<String> = socket.texts().iter().filter_map(name).collect();
    assert_eq!(names, ["joined", "message", "joined", "left", "joined", "pong"]);
    rig.finish();
}

/// Kills: whatever waits for an answer that will not come, and answers to those that have gone.
#[test]
fn who_goes_while_its_join_is_under_way_leaves_nothing_behind() {
    for reset in [true, false] {
        let mut rig = Rig::new(&setup(2, 64));
        let mut stays = Member::new(&mut rig, 1);
        stays.ask("join");
        rig.pass_ms(1);
        let mut goes = Member::new(&mut rig, 0);
        goes.ask("join");
        while rig.cores.all[0].is_runnable() {
            rig.cores.all[0].tick();
        }
        if reset {
            goes.socket.client.reset();
        } else {
            goes.socket.close(1000);
        }
        while rig.cores.all[0].is_runnable() {
            rig.cores.all[0].tick();
        }
        let mut next = Member::new(&mut rig, 0);
        rig.pass_ms(10);
        next.read();
        next.ask("join");
        rig.pass_ms(10);
        [&mut stays, &mut next, &mut goes].into_iter().for_each(Member::read);
        assert_eq!((stays.count, next.count), (Some(2), Some(2)));
        assert_eq!(rig.connections(), 2);
        rig.finish();
    }
}

/// Kills: answers that wait for a core that has ended, and rooms that count its members for ever.
#[test]
fn joins_are_answered_while_others_drain() {
    let mut rig = Rig::new(&setup(3, 1));
    let mut members: Vec<Member> = (0..3).map(|core| Member::new(&mut rig, core)).collect();
    members.iter_mut().for_each(|member| member.ask("join"));
    rig.pass_ms(10);
    assert!(rig.cores.drain(2));
    rig.pass_ms(10);
    members[0].read();
    members[0].ask("leave");
    rig.pass_ms(10);
    members[2].socket.close(1001);
    rig.pass_ms(10_500);
    members.iter_mut().for_each(Member::read);
    assert!(members[2].is_gone && rig.cores.all[2].shard.is_finished());
    assert_eq!((members[0].count, members[1].count), (None, Some(1)));
    members[0].ask("join");
    rig.pass_ms(10);
    members.iter_mut().for_each(Member::read);
    assert_eq!((members[0].count, members[1].count), (Some(2), Some(2)));
    rig.finish();
}
