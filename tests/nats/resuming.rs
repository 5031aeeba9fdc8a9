//! The one history that rooms have on all machines, where JetStream keeps it: who leaves one machine resumes on another.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tungstenite::Message;

use crate::common;
use crate::rig::{Machine, Nats, Outsider, Proxy, Socket, eventually};

/// What somebody has seen of a room: numbers and messages.
type Seen = Vec<(u64, String)>;

fn machine(nats: &Nats, name: &str, history: &str) -> Machine {
    // Whoever does not read for a while is nobody who does not keep up.
    let machine = Machine::with(&nats.url(), name, &[&format!("--history={history}"), "--max-outbox=16MiB"]);
    machine.await_history();
    machine
}

impl Machine {
    /// Waits until rooms have one history with those of other machines.
    fn await_history(&self) {
        let is_shared = || self.metric("ringwire_nats_history_shared") == 1.0;
        eventually(is_shared, || format!("{} to have the history of all", self.name));
    }
}

/// What an event of a room says: its number and its message.
fn said(event: &Value) -> Option<(u64, String)> {
    let message = event["data"]["message"].as_str()?.to_owned();
    Some((event["offset"].as_u64().unwrap_or(0), message))
}

impl Socket {
    /// Joins, and what the answer is.
    #[track_caller]
    fn resume(&mut self, room: &str, how: &Value) -> Value {
        let mut asking = json!({ "room": room });
        for (name, value) in how.as_object().into_iter().flatten() {
            asking[name] = value.clone();
        }
        self.say("join", &asking);
        self.until("joined")
    }

    fn say_in(&mut self, room: &str, text: &str) {
        self.say("message", &json!({ "room": room, "message": text }));
    }

    /// The next message of a room.
    #[track_caller]
    fn hear(&mut self) -> (u64, String) {
        loop {
            let event = self.read_whole();
            if event["event"] == "message" {
                return said(&event).expect("a message");
            }
        }
    }
}

fn history(joined: &Value) -> Seen {
    joined["history"].as_array().expect("a history").iter().filter_map(said).collect()
}

fn texts(seen: &Seen) -> Vec<&str> {
    seen.iter().map(|(_, text)| &**text).collect()
}

fn at(epoch: &Value, offset: u64) -> Value {
    json!({ "since": { "epoch": epoch, "offset": offset } })
}

fn position(joined: &Value) -> (Value, u64) {
    (joined["epoch"].clone(), joined["offset"].as_u64().expect("an offset"))
}

/// Somebody who is in the room all the while, up to the message `end`.
fn witness(mut socket: Socket) -> Seen {
    let mut seen = Seen::new();
    while seen.last().is_none_or(|(_, text)| text != "end") {
        seen.push(socket.hear());
    }
    seen
}

/// Somebody whose connection breaks again and again, and who comes back to another machine each time.
fn traveller(addresses: &[std::net::SocketAddr], first: usize, room: &str) -> (Seen, u64) {
    let mut seen = Seen::new();
    let mut place: Option<(Value, u64)> = None;
    let mut start = 0;
    for round in 0_usize.. {
        let address = addresses[(first + round) % addresses.len()];
        let mut socket = Socket { client: common::client(address, "/ws"), id: String::new() };
        let how = place.as_ref().map_or(json!({}), |(epoch, offset)| at(epoch, *offset));
        let joined = socket.resume(room, &how);
        match &place {
            None => start = joined["offset"].as_u64().expect("an offset"),
            Some((_, offset)) => {
                assert_eq!(joined["recovered"], true, "round {round} from {offset}: {joined}");
                seen.extend(history(&joined));
            }
        }
        let (epoch, offset) = position(&joined);
        place = Some((epoch.clone(), offset));
        for _ in 0..5 + (first + round * 7) % 13 {
            if seen.last().is_some_and(|(_, text)| text == "end") {
                return (seen, start);
            }
            let message = socket.hear();
            place = Some((epoch.clone(), message.0));
            seen.push(message);
        }
    }
    unreachable!()
}

/// Kills: own messages that are delivered at once, or twice; a gap or a double between history and what follows; an order that is
/// another one on another machine; messages that overtake the answer to a join.
#[test]
fn who_travels_sees_what_everybody_saw() {
    const EACH: usize = 120;
    let Some(nats) = Nats::with_jetstream() else { return };
    let all: Vec<Machine> = (0..3).map(|number| machine(&nats, &format!("m{number}"), "5000")).collect();
    all.iter().for_each(|machine| machine.await_nodes(2));
    let addresses: Vec<_> = all.iter().map(Machine::address).collect();
    let witnesses: Vec<_> = all
        .iter()
        .map(|machine| {
            let mut socket = machine.events();
            socket.resume("den", &json!({}));
            thread::spawn(move || witness(socket))
        })
        .collect();
    let travellers: Vec<_> = (0..4)
        .map(|first| {
            let addresses = addresses.clone();
            thread::spawn(move || traveller(&addresses, first, "den"))
        })
        .collect();
    let publishers: Vec<_> = (0..6)
        .map(|number| {
            let mut socket = all[number % 3].events();
            socket.resume("den", &json!({}));
            thread::spawn(move || {
                for count in 0..EACH {
                    let text = format!("{number}-{count}");
                    socket.say_in("den", &text);
                    while socket.hear().1 != text {}
                }
            })
        })
        .collect();
    publishers.into_iter().for_each(|publisher| publisher.join().expect("it ends well"));
    let mut last = all[0].events();
    last.resume("den", &json!({}));
    last.say_in("den", "end");
    let seen: Vec<Seen> = witnesses.into_iter().map(|witness| witness.join().expect("it ends well")).collect();
    let expected: BTreeSet<String> = (0..6)
        .flat_map(|number| (0..EACH).map(move |count| format!("{number}-{count}")))
        .chain(["end".into()])
        .collect();
    assert_eq!(seen[0].len(), expected.len(), "each once");
    assert_eq!(seen[0].iter().map(|(_, text)| text.clone()).collect::<BTreeSet<_>>(), expected);
    assert!(seen[0].is_sorted_by(|one, other| one.0 < other.0), "in order");
    assert!(seen.iter().all(|other| *other == seen[0]), "the same everywhere");
    for traveller in travellers {
        let (travelled, start) = traveller.join().expect("it ends well");
        let wanted: Seen = seen[0].iter().filter(|(offset, _)| *offset > start).cloned().collect();
        assert_eq!(travelled, wanted);
    }
}

/// Kills: what is not kept any more and is said to be complete; a position of nowhere that is believed; a limit of a room that is not.
#[test]
fn what_has_gone_is_told() {
    let Some(nats) = Nats::with_jetstream() else { return };
    let all = [machine(&nats, "m0", "10"), machine(&nats, "m1", "10")];
    all.iter().for_each(|machine| machine.await_nodes(1));
    let mut one = all[0].events();
    let (epoch, start) = position(&one.resume("den", &json!({})));
    let mut offsets = vec![start];
    for number in 0..15 {
        one.say_in("den", &number.to_string());
        offsets.push(one.hear().0);
    }
    // The other machine has never heard of the room: whoever asks there is answered from the stream.
    for machine in [&all[1], &all[0]] {
        let mut other = machine.events();
        let mut ask = |how: &Value| {
            let joined = other.resume("den", how);
            let seen = history(&joined);
            other.say("leave", &json!({ "room": "den" }));
            other.until("left");
            (joined["recovered"].clone(), texts(&seen).iter().map(|text| (*text).to_owned()).collect::<Vec<_>>())
        };
        let last = |count: usize| (15 - count..15).map(|number| number.to_string()).collect::<Vec<_>>();
        // Of the fifteen there are ten.
        let cases = [
            (at(&epoch, offsets[15]), true, 0),
            (at(&epoch, offsets[14]), true, 1),
            (at(&epoch, offsets[6]), true, 9),
            (at(&epoch, offsets[4]), false, 10),
            (at(&epoch, start), false, 10),
            (at(&epoch, offsets[15] + 1000), false, 10),
            (at(&json!("0123456789abcdef"), offsets[15]), false, 10),
            (json!({ "last": 3 }), true, 3),
            (json!({ "last": 10 }), true, 10),
            (json!({ "last": 11 }), false, 10),
        ];
        for (how, is_complete, count) in cases {
            assert_eq!(ask(&how), (json!(is_complete), last(count)), "{how} at {}", machine.name);
        }
    }
    // A room with fewer messages than are kept has lost none, whoever asks.
    one.resume("few", &json!({}));
    one.say_in("few", "only");
    one.hear();
    for machine in &all {
        let joined = machine.events().resume("few", &json!({ "last": 100 }));
        assert_eq!(
            (joined["recovered"].clone(), texts(&history(&joined))),
            (json!(true), vec!["only"]),
            "{}",
            machine.name
        );
    }
}

/// Kills: a position in a room without messages that nobody believes; messages to nobody that are not kept.
#[test]
fn a_room_in_which_nobody_is_keeps_what_is_said() {
    let Some(nats) = Nats::with_jetstream() else { return };
    let all = [machine(&nats, "m0", "10"), machine(&nats, "m1", "10")];
    all.iter().for_each(|machine| machine.await_nodes(1));
    let mut one = all[0].events();
    let (epoch, offset) = position(&one.resume("den", &json!({})));
    drop(one);
    eventually(|| all.iter().all(|machine| machine.members("den") == 0), || "it has gone".into());
    let mut outsider = Outsider::connect(&nats);
    outsider.publish("ringwire.in.room.ws/den", br#"{"event":"message","data":{"message":"from NATS"}}"#);
    let event = r#"{"event":"message","data":{"message":"from HTTP"}}"#;
    eventually(
        || history(&all[1].events().resume("den", &json!({ "last": 10 }))).len() == 1,
        || "it has been kept".into(),
    );
    assert_eq!(all[0].ask("POST", "/api/rooms/den", event).0, 200);
    eventually(
        || history(&all[1].events().resume("den", &json!({ "last": 10 }))).len() == 2,
        || "it has been kept".into(),
    );
    let mut other = all[1].events();
    let joined = other.resume("den", &at(&epoch, offset));
    assert_eq!((joined["recovered"].clone(), texts(&history(&joined))), (json!(true), vec!["from NATS", "from HTTP"]));
    // Once, although all machines hear of it.
    let mut here = all[0].events();
    here.resume("den", &json!({}));
    outsider.publish("ringwire.in.room.ws/den", br#"{"event":"message","data":{"message":"again"}}"#);
    for socket in [&mut here, &mut other] {
        assert_eq!(socket.hear().1, "again");
        assert!(!socket.take().iter().any(|(event, _)| event == "message"));
    }
}

/// Kills: messages that come to be something else on the way: bytes, large ones, those that nobody keeps.
#[test]
fn messages_stay_what_they_are() {
    let Some(nats) = Nats::with_jetstream() else { return };
    let all = [machine(&nats, "m0", "10"), machine(&nats, "m1", "10")];
    all.iter().for_each(|machine| machine.await_nodes(1));
    let mut raw: Vec<Socket> = all.iter().map(|machine| machine.open("/rooms/bits")).collect();
    let knows = |machine: &Machine| machine.metric("ringwire_nodes_rooms") as u64;
    eventually(|| all.iter().all(|machine| knows(machine) >= 1), || "both know of the other's room".into());
    // The last one is more than NATS takes at once, and more than a room keeps.
    for len in [0, 1, 70_000, 3 << 20] {
        let bytes = common::pattern(len);
        raw[0].client.send(Message::binary(bytes.clone())).expect("it listens");
        for socket in &mut raw {
            assert_eq!(socket.client.read().expect("a message"), Message::binary(bytes.clone()), "{len} bytes");
        }
    }
    raw[1].client.send(Message::text("text")).expect("it listens");
    for socket in &mut raw {
        assert_eq!(socket.client.read().expect("a message"), Message::text("text"));
    }
    let mut events: Vec<Socket> = all.iter().map(Machine::events).collect();
    for socket in &mut events {
        socket.resume("den", &json!({}));
    }
    eventually(|| all.iter().all(|machine| machine.members("den") == 2), || "both are in".into());
    events[0].say("typing", &json!({ "room": "den" }));
    events[1].until("user-typing");
    events[0].say_in("den", "said");
    for socket in &mut events {
        assert_eq!(socket.hear().1, "said");
    }
    let joined = all[1].events().resume("den", &json!({ "last": 10 }));
    assert_eq!(texts(&history(&joined)), ["said"]);
    // Whoever asks for what came before a message that was too long is told.
    let (epoch, offset) = position(&joined);
    events[1].say("message", &json!({ "room": "den", "message": "x".repeat(1 << 20) }));
    for socket in &mut events {
        assert_eq!(socket.hear().1.len(), 1 << 20);
    }
    events[1].say_in("den", "behind it");
    for socket in &mut events {
        assert_eq!(socket.hear().1, "behind it");
    }
    let joined = all[0].events().resume("den", &at(&epoch, offset));
    assert_eq!((joined["recovered"].clone(), texts(&history(&joined))), (json!(false), vec!["behind it"]));
}

/// Kills: a history that ends with a machine.
#[test]
fn a_machine_that_is_killed_takes_nothing_with_it() {
    let Some(nats) = Nats::with_jetstream() else { return };
    let mut all = [machine(&nats, "m0", "100"), machine(&nats, "m1", "100")];
    all.iter().for_each(|machine| machine.await_nodes(1));
    let mut here = all[0].events();
    let mut there = all[1].events();
    let (epoch, mut offset) = position(&here.resume("den", &json!({})));
    there.resume("den", &json!({}));
    for number in 0..10 {
        let by = if number % 2 == 0 { &mut here } else { &mut there };
        by.say_in("den", &number.to_string());
        assert_eq!(there.hear().1, number.to_string());
        offset = here.hear().0;
    }
    all[0].kill();
    for number in 10..15 {
        there.say_in("den", &number.to_string());
        there.hear();
    }
    let again = machine(&nats, "m0", "100");
    all[0] = again;
    for machine in all.iter().rev() {
        let joined = machine.events().resume("den", &at(&epoch, offset));
        assert_eq!(joined["recovered"], true, "{}: {joined}", machine.name);
        assert_eq!(texts(&history(&joined)), ["10", "11", "12", "13", "14"], "{}", machine.name);
    }
}

/// Kills: a history that was lost and is said to be complete, or to be lost where it is in files; numbers that begin anew under
/// the same epoch.
#[test]
fn nats_that_starts_again_has_another_history_or_the_same_in_files() {
    for storage in ["memory", "file"] {
        let Some(mut nats) = Nats::with_jetstream() else { return };
        let start = |name: &str| {
            let arguments = ["--history=100", &format!("--nats-history={storage}")];
            let machine = Machine::with(&nats.url(), name, &arguments);
            machine.await_history();
            machine
        };
        let all = [start("m0"), start("m1")];
        all.iter().for_each(|machine| machine.await_nodes(1));
        let mut here = all[0].events();
        let (epoch, start) = position(&here.resume("den", &json!({})));
        let mut offset = start;
        for number in 0..5 {
            here.say_in("den", &number.to_string());
            offset = here.hear().0;
        }
        let before = all[0].metric("ringwire_nats_reconnects_total");
        nats.restart(Duration::from_millis(100));
        eventually(|| all[0].metric("ringwire_nats_reconnects_total") > before, || "NATS is there again".into());
        all.iter().for_each(Machine::await_history);
        // Members get what is said, and it has a number again by and by.
        let mut number = 5;
        loop {
            here.say_in("den", &number.to_string());
            let heard = here.hear();
            assert_eq!(heard.1, number.to_string());
            if heard.0 > 0 {
                break;
            }
            number += 1;
        }
        for machine in &all {
            let joined = machine.events().resume("den", &at(&epoch, offset));
            let (is_same, is_all) = (joined["epoch"] == epoch, joined["recovered"] == true);
            assert_eq!(is_same, storage == "file", "{storage}: {joined}");
            assert!(!is_all || is_same, "{storage}: {joined}");
            assert!(!is_all || texts(&history(&joined)).len() + 5 == number + 1, "{storage}: {joined}");
            assert_eq!(texts(&history(&joined)).last().map(|text| (*text).to_owned()), Some(number.to_string()));
        }
    }
}

/// Kills: local delivery that waits for the stream; what was said meanwhile and is neither in the history nor missed; what
/// others have said meanwhile that does not come; messages that come twice.
#[test]
fn a_machine_that_is_cut_off_has_marks_where_something_is_missing() {
    let Some(nats) = Nats::with_jetstream() else { return };
    let proxy = Proxy::before(nats.port);
    let url = format!("nats://127.0.0.1:{}", proxy.port);
    let all = [machine(&nats, "m0", "1000"), Machine::with(&url, "m1", &["--history=1000"])];
    all.iter().for_each(|machine| machine.await_nodes(1));
    all[1].await_history();
    let mut sockets = all.each_ref().map(Machine::events);
    let mut place = (Value::Null, 0);
    for socket in &mut sockets {
        place = position(&socket.resume("den", &json!({})));
        socket.resume("quiet", &json!({}));
    }
    eventually(|| all.iter().all(|machine| machine.members("den") == 2), || "all are in".into());
    sockets[0].say_in("den", "before");
    for socket in &mut sockets {
        place.1 = socket.hear().0;
    }
    proxy.is_stopped.store(true, Ordering::SeqCst);
    // Both go on for themselves; what is on its way when the line breaks comes without a number.
    let (mut seen, mut count) = ([Seen::new(), Seen::new()], 0);
    while all[1].metric("ringwire_nats_history_shared") == 1.0 || count < 20 {
        for side in [0, 1] {
            let text = format!("{side}-{count}");
            sockets[side].say_in("den", &text);
            let heard = sockets[side].hear();
            assert_eq!(heard.1, text, "it waits for nobody");
            seen[side].push(heard);
        }
        count += 1;
    }
    sockets[0].say_in("quiet", "missed");
    sockets[0].hear();
    let joined = all[1].events().resume("den", &at(&place.0, place.1));
    assert_eq!((joined["recovered"].clone(), joined["offset"].clone()), (json!(false), Value::Null), "{joined}");
    proxy.is_stopped.store(false, Ordering::SeqCst);
    all[1].await_history();
    all.iter().for_each(|machine| eventually(|| machine.members("den") == 2, || "all are in again".into()));
    // What the one has said to all comes to those who were cut off, in order and once, be the room quiet or not.
    sockets[0].say_in("den", "after");
    let mut late = Seen::new();
    while !["after", "missed"].iter().all(|wanted| texts(&late).contains(wanted)) {
        late.push(sockets[1].hear());
    }
    let of_others: Vec<String> =
        texts(&late).iter().filter(|text| text.starts_with("0-")).map(|text| (*text).into()).collect();
    let expected: Vec<String> = texts(&seen[0]).iter().map(|text| (*text).to_owned()).collect();
    assert_eq!(of_others, expected);
    assert_eq!(texts(&late).iter().filter(|text| **text == "missed").count(), 1);
    assert!(!texts(&late).iter().any(|text| text.starts_with("1-")), "its own have come already: {late:?}");
    // Nobody is told that this is all; from here on it is.
    for machine in &all {
        eventually(
            || machine.events().resume("den", &at(&place.0, place.1))["recovered"] == false,
            || format!("{} to say that something is missing", machine.name),
        );
    }
    let (_, now) = position(&all[0].events().resume("den", &json!({})));
    sockets[1].say_in("den", "more");
    sockets[1].hear();
    for machine in &all {
        let joined = machine.events().resume("den", &at(&place.0, now));
        assert_eq!(
            (joined["recovered"].clone(), texts(&history(&joined))),
            (json!(true), vec!["more"]),
            "{}",
            machine.name
        );
    }
    // The other machine's messages were delivered nowhere else.
    let heard = sockets[0].take().into_iter().filter(|(event, _)| event == "message");
    let heard: Vec<String> = heard.map(|(_, data)| data["message"].as_str().expect("text").to_owned()).collect();
    let of_other: Vec<&String> = heard.iter().filter(|text| text.starts_with("1-")).collect();
    assert_eq!(of_other.iter().collect::<BTreeSet<_>>().len(), of_other.len(), "none twice: {heard:?}");
}

/// Kills: local delivery that waits for a stream which does not answer.
#[test]
fn nats_that_stands_still_holds_up_nobody() {
    let Some(nats) = Nats::with_jetstream() else { return };
    let machine = machine(&nats, "m0", "1000");
    let mut sockets = [machine.events(), machine.events()];
    for socket in &mut sockets {
        socket.resume("den", &json!({}));
    }
    nats.signal(Signal::SIGSTOP);
    for number in 0..30 {
        sockets[0].say_in("den", &number.to_string());
        for socket in &mut sockets {
            assert_eq!(socket.hear(), (0, number.to_string()));
        }
    }
    nats.signal(Signal::SIGCONT);
    let mut number = 30;
    loop {
        sockets[0].say_in("den", &number.to_string());
        let heard = sockets[0].hear();
        assert_eq!((&heard, &*heard.1), (&sockets[1].hear(), &*number.to_string()), "nothing comes twice");
        if heard.0 > 0 {
            break;
        }
        number += 1;
        thread::sleep(Duration::from_millis(20));
    }
}
