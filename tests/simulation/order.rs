//! Messages from one core to one connection arrive in the order in which they were sent, whatever they were sent with.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use ringwire::engine::sim::{Fault, Faults, RingOptions, Rng};
use ringwire::hub::{CoreHub, Letter};
use ringwire::{App, Connection, ConnectionId, Message, Sender, Socket, sleep, ws};

use crate::host::Setup;
use crate::rig::Rig;
use crate::wire::Event;

const ROOM: &str = "room";

/// To whom everything goes; it is in the room, alone there, and alone on its route.
#[derive(Clone)]
struct Target {
    id: ConnectionId,
    sender: Sender,
}

type Shared = Rc<RefCell<Option<Target>>>;

/// Ways to send that a handler has, and of these the ones that anything on a core's thread has.
const BY_SOCKET: [&str; 8] = ["to", "to keyed", "to emit", "all", "send", "send keyed", "emit", "own room"];
const BY_HUB: [&str; 8] =
    ["hub", "hub keyed", "hub emit", "hub room", "hub all", "hub route", "sender", "sender keyed"];

/// Sends by a way of [`BY_HUB`].
fn by_hub(hub: &ringwire::Hub, target: &Target, way: &str, text: &str) {
    let sent = match way {
        "hub" => hub.send_to(target.id, text),
        "hub keyed" => hub.to_connection(target.id).keyed("key").send(text),
        "hub emit" => hub.emit_to(target.id, text, &()),
        "hub room" => hub.send_to_room(ROOM, text),
        "hub all" => hub.send_to_all(text),
        "hub route" => hub.to_route("/target").send(text),
        "sender" => target.sender.send(text),
        "sender keyed" => target.sender.send_keyed("key", text),
        other => panic!("no way: {other}"),
    };
    drop(sent.expect("text"));
}

/// Sends by any way. Those that reach one's own connection alone work where that is the target.
fn by_socket(socket: &mut Socket<'_>, target: &Target, way: &str, text: &str) {
    match way {
        "to" => _ = socket.to(ROOM).send(text).expect("text"),
        "to keyed" => _ = socket.to(ROOM).keyed("key").send(text).expect("text"),
        "to emit" => _ = socket.to(ROOM).emit(text, &()).expect("text"),
        "all" => _ = socket.to_all().send(text).expect("text"),
        "notice" => {
            socket.leave(ROOM);
            let notice = socket.notice(text, &()).expect("text");
            socket.join_then(ROOM, Some(notice), |_, _| {}).expect("it may join");
        }
        "send" => _ = socket.send(text),
        "send keyed" => _ = socket.send_keyed("key", text),
        "emit" => _ = socket.emit(text, &()).expect("text"),
        "own room" => _ = socket.to_own_room(text).expect("text"),
        way => by_hub(&socket.hub().clone(), target, way, text),
    }
}

/// `/target` says who it is. `/act` does what it is told: `MODE,WAY,WAY`. `/target` does so too.
fn app(shared: &Shared) -> App {
    let (of_target, acting) = (Rc::clone(shared), Rc::clone(shared));
    let act = move |socket: &mut Socket<'_>, message: Message<'_>| {
        let text = message.as_text().expect("text").to_owned();
        let parts: Vec<&str> = text.split(',').collect();
        let [mode, first, second] = parts[..] else { panic!("{text}") };
        let target = acting.borrow().clone().expect("a target");
        let (hub, second) = (socket.hub().clone(), second.to_owned());
        match mode {
            "handler" => {
                by_socket(socket, &target, first, "1");
                by_socket(socket, &target, &second, "2");
            }
            "then task" => {
                by_socket(socket, &target, first, "1");
                socket.spawn(async move { by_hub(&hub, &target, &second, "2") }).detach();
            }
            "then late task" => {
                by_socket(socket, &target, first, "1");
                let task = async move {
                    sleep(Duration::from_millis(3)).await;
                    by_hub(&hub, &target, &second, "2");
                };
                socket.spawn(task).detach();
            }
            "task" => {
                let first = first.to_owned();
                let task = async move {
                    by_hub(&hub, &target, &first, "1");
                    by_hub(&hub, &target, &second, "2");
                };
                socket.spawn(task).detach();
            }
            other => panic!("no mode: {other}"),
        }
    };
    let on_connect = move |socket: &mut Socket<'_>| {
        let (id, sender) = (socket.id(), socket.sender());
        *of_target.borrow_mut() = Some(Target { id, sender });
        socket.join(ROOM)
    };
    App::new().ws("/target", ws().on_connect(on_connect).on_message(act.clone())).ws("/act", ws().on_message(act))
}

/// The pairs of ways for a mode.
fn pairs(mode: &str, is_own: bool) -> Vec<(&'static str, &'static str)> {
    // To oneself, or to others.
    let by_socket = if is_own { BY_SOCKET.to_vec() } else { [&BY_SOCKET[..4], &["notice"]].concat() };
    let all: Vec<&str> = [&by_socket[..], &BY_HUB].concat();
    let firsts = if mode == "task" { BY_HUB.to_vec() } else { all.clone() };
    let seconds = if mode == "handler" { all } else { BY_HUB.to_vec() };
    firsts.iter().flat_map(|first| seconds.iter().map(|second| (*first, *second))).collect()
}

/// Kills: whatever a handler sends through the hub's handle and what is done after it overtakes; what a task sends past
/// letters that wait.
#[test]
fn no_way_to_send_overtakes_another() {
    // Where the target is, seen from who acts: the same connection, another one of the core, one of another core.
    for (core, is_own) in [(0, true), (0, false), (1, false)] {
        for is_full in [false, true] {
            for mode in ["handler", "then task", "then late task", "task"] {
                let shared = Shared::default();
                let of_app = Rc::clone(&shared);
                let app = move || app(&of_app);
                let mail_depth = if is_full { 1 } else { 64 };
                let mut rig = Rig::new(&Setup { cores: 2, mail_depth, app: Rc::new(app), ..Setup::default() });
                let mut target = rig.open(core, "/target");
                let mut other = (!is_own).then(|| rig.open(0, "/act"));
                rig.pass_ms(2);
                for (first, second) in pairs(mode, is_own) {
                    let what = format!("{first}, then {second}, by {mode}, from core 0 to {core}, full: {is_full}");
                    if is_full {
                        let run = || Letter::run(|_: &mut CoreHub| {});
                        while rig.cores.courier.send(1, run()).is_ok() {}
                    }
                    other.as_mut().unwrap_or(&mut target).text(&format!("{mode},{first},{second}"));
                    if is_full {
                        // The other core makes room, and its sender finds out later.
                        rig.cores.all[0].tick();
                        rig.cores.all[0].tick();
                        rig.cores.all[1].tick();
                    }
                    rig.pass_ms(10);
                    let strip = |text: &String| text.trim_start_matches(r#"{"event":""#)[..1].to_owned();
                    let got: Vec<String> = target.texts().iter().map(strip).collect();
                    assert!(got.is_sorted() && got.len() <= 2, "{got:?}: {what}");
                    if !is_full {
                        assert_eq!(got, ["1", "2"], "{what}");
                    }
                    if let Some(other) = &mut other {
                        other.events();
                    }
                }
                rig.finish();
            }
        }
    }
}

/// What an interceptor, a task's connection and its sender queue to one connection.
#[test]
fn a_task_answers_behind_what_its_interceptors_have_sent() {
    for way in ["send", "hub", "sender"] {
        for answer in ["connection", "connection keyed", "sender", "hub"] {
            let app = move || {
                let task = async move |mut connection: Connection| {
                    while let Some(message) = connection.recv().await {
                        let _ = connection.sender().send("2");
                        match answer {
                            "connection" => _ = connection.send("3"),
                            "connection keyed" => _ = connection.send_keyed("key", "3"),
                            "sender" => drop(connection.sender().send("3")),
                            _ => drop(connection.hub().send_to(connection.id(), "3")),
                        }
                        let _ = connection.send(message);
                    }
                };
                let before = move |socket: &mut Socket<'_>, _: &Message<'_>| {
                    let (id, hub) = (socket.id(), socket.hub().clone());
                    match way {
                        "send" => _ = socket.send("0"),
                        "hub" => drop(hub.send_to(id, "0")),
                        _ => _ = socket.sender().send("0"),
                    }
                    let _ = socket.send("1");
                };
                App::new().ws("/", ws().before_message(before).task(task))
            };
            let mut rig = Rig::new(&Setup { cores: 2, mail_depth: 1, app: Rc::new(app), ..Setup::default() });
            let mut socket = rig.open(0, "/");
            for _ in 0..3 {
                socket.text("4");
                rig.pass_ms(1);
                assert_eq!(socket.texts(), ["0", "1", "2", "3", "4"], "{way}, {answer}");
            }
            rig.finish();
        }
    }
}

/// A handler that sends to many rooms at once.
fn bursts() -> App {
    let rooms = || (0..20).map(|n| format!("room {n}"));
    let on_connect = move |socket: &mut Socket<'_>| rooms().try_for_each(|room| socket.join(room));
    let on_message = move |socket: &mut Socket<'_>, message: Message<'_>| {
        let text = message.as_text().expect("text");
        for (n, room) in rooms().enumerate() {
            let _ = socket.to(&room).send(format!("{text} {n}").as_str()).expect("text");
        }
    };
    App::new().ws("/bursts", ws().on_connect(on_connect).on_message(on_message))
}

/// Kills: a letter that finds no room and is put behind the others that wait.
#[test]
fn bursts_through_a_narrow_mailbox_stay_in_order() {
    for seed in crate::seeds(20) {
        let cores = 2 + (seed % 2) as usize;
        let calm = [Fault::ClockJump, Fault::Reset, Fault::TimedOut, Fault::BrokenSend, Fault::SendNoMemory];
        let faults = calm.iter().fold(Faults::harsh(), |faults, fault| faults.with(*fault, 0.0));
        let faults = faults.with(Fault::AcceptAborted, 0.0);
        let ring = RingOptions { slots: 64, ..RingOptions::default() };
        let app = Rc::new(bursts as fn() -> App);
        let mut rig = Rig::faulty(&Setup { cores, mail_depth: 1, ring, app, ..Setup::default() }, seed, faults);
        let mut rng = Rng::new(seed);
        let mut sockets: Vec<_> = (0..2 * cores).map(|n| rig.open(n % cores, "/bursts")).collect();
        rig.pass_ms(200);
        let mut got = vec![Vec::new(); sockets.len()];
        let mut congested = false;
        for round in 0..600 {
            for (n, socket) in sockets.iter_mut().enumerate() {
                if round % 50 == 0 && round < 500 {
                    socket.text(&format!("{n} {}", round / 50));
                }
                for event in socket.events() {
                    if let Event::Message(message) = event {
                        got[n].push(String::from_utf8(message.payload).expect("text"));
                    }
                }
            }
            for core in 0..cores {
                if rng.chance(0.5) && rig.cores.all[core].is_runnable() {
                    rig.cores.all[core].tick();
                    congested |= rig.cores.all[core].shard.hub().is_congested();
                }
            }
            rig.world.advance(rng.below(50_000));
        }
        rig.world.set_faults(Faults::none());
        rig.pass_ms(1_000);
        assert!(congested, "seed {seed}");
        for (n, (socket, got)) in sockets.iter_mut().zip(&mut got).enumerate() {
            got.extend(socket.texts());
            for sender in 0..2 * cores {
                let mine = got.iter().filter(|text| text.starts_with(&format!("{sender} "))).cloned();
                let all = (0..10).flat_map(|burst| (0..20).map(move |room| format!("{sender} {burst} {room}")));
                assert!(mine.eq(all), "seed {seed}: {sender} to {n}");
            }
        }
        rig.finish();
    }
}
