//! Bugs planted in a chat: each must be found by tests as an embedder writes them, and the chat without one must pass.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex};

use ringwire::testing::{Faults, TestServer, seeds};
use ringwire::{App, BoxError, Json, Request, Socket, ws};
use serde_json::{Value, json};

#[derive(Clone, Copy, Debug, PartialEq)]
enum Bug {
    None,
    /// The history forgets the message that began it.
    HistoryLosesItsFirst,
    /// What is said in one room is heard in all.
    RoomsLeak,
    /// The sender does not hear himself.
    SenderIsForgotten,
    /// Who leaves without a Close stays in the list.
    GoneButPresent,
    /// All rooms have one history.
    RoomsShareHistory,
    /// The hook lets anybody in who has any token.
    AnyToken,
    /// Presence is counted by each core for itself.
    CountsItsOwnCore,
}

const BUGS: [Bug; 7] = [
    Bug::HistoryLosesItsFirst,
    Bug::RoomsLeak,
    Bug::SenderIsForgotten,
    Bug::GoneButPresent,
    Bug::RoomsShareHistory,
    Bug::AnyToken,
    Bug::CountsItsOwnCore,
];

type History = Arc<Mutex<BTreeMap<String, Vec<String>>>>;
type Count = Arc<Mutex<u32>>;

fn room_of(socket: &Socket<'_>) -> String {
    socket.param("room").to_owned()
}

fn key_of(bug: Bug, room: &str) -> String {
    if bug == Bug::RoomsShareHistory { String::new() } else { room.to_owned() }
}

fn app(bug: Bug, history: &History, count: &Count) -> App {
    // Made once on each core.
    let count = if bug == Bug::CountsItsOwnCore { Count::default() } else { Arc::clone(count) };
    let (come, gone, shown) = (Arc::clone(&count), Arc::clone(&count), count);
    let (earlier, later) = (Arc::clone(history), Arc::clone(history));
    let show = move |socket: &mut Socket<'_>, _| {
        let rooms = earlier.lock().expect("no panic");
        let _ = socket.send(Json(rooms.get(&key_of(bug, &room_of(socket))).cloned().unwrap_or_default()));
    };
    let room = ws()
        .on_connect(move |socket| {
            *come.lock().expect("no panic") += 1;
            socket.join_then(room_of(socket), None, show.clone())?;
            Ok::<_, BoxError>(())
        })
        .on_message(move |socket, message| {
            let (room, text) = (room_of(socket), message.as_text().unwrap_or_default().to_owned());
            let mut rooms = later.lock().expect("no panic");
            let history = rooms.entry(key_of(bug, &room)).or_default();
            history.push(text.clone());
            if bug == Bug::HistoryLosesItsFirst && history.len() == 2 {
                history.remove(0);
            }
            match bug {
                Bug::RoomsLeak => socket.to_all().send(text),
                Bug::SenderIsForgotten => socket.to(&room).except_self().send(text),
                _ => socket.to(&room).send(text),
            }
        })
        .on_close(move |_, closed| {
            if bug != Bug::GoneButPresent || closed.clean {
                *gone.lock().expect("no panic") -= 1;
            }
        });
    App::new().get("/count", async move |_: Request| json!(*shown.lock().expect("no panic"))).group("/rooms", |group| {
        group
            .before(move |request| match request.header("authorization") {
                Some("Bearer right") => Ok(()),
                Some(_) if bug == Bug::AnyToken => Ok(()),
                _ => Err(ringwire::HttpError::unauthorized("no")),
            })
            .ws("/{room}", room)
    })
}

/// What an embedder would write.
fn test(bug: Bug, seed: u64) {
    let (history, count) = (History::default(), Count::default());
    let builder = TestServer::builder().cores(3).seed(seed).faults(Faults::none().delays(0.5));
    let server = builder.start(|| app(bug, &history, &count));
    assert_eq!(server.handshake("/rooms/lobby").token("wrong").refusal().status(), 401);
    let enter = |room: &str| server.handshake(&format!("/rooms/{room}")).token("right").open();

    let (ann, eve) = (enter("lobby"), enter("other"));
    ann.expect_json(json!([]));
    eve.expect_json(json!([]));
    for text in ["one", "two", "three"] {
        ann.send(text);
        ann.expect_text(text);
    }
    eve.expect_nothing();
    let ben = enter("lobby");
    ben.expect_json(json!(["one", "two", "three"]));
    assert_eq!(server.get("/count").send().json::<Value>(), 3);
    let dan = enter("other");
    dan.expect_json(json!([]));
    dan.close(1000, "");
    dan.expect_close(1000);

    // Somebody joins while somebody talks: what he did not get with the history, he hears.
    let talk = server.get("/count").start();
    server.together(|| (0..5).for_each(|number: u8| ann.send(number.to_string())));
    let cid = enter("lobby");
    (5..10).for_each(|number: u8| ann.send(number.to_string()));
    let mut heard: Vec<String> = cid.next_json();
    while heard.last().is_none_or(|last| last != "9") {
        heard.push(cid.next_text());
    }
    let numbers = (0..10).map(|number: u8| number.to_string());
    numbers.for_each(|number| assert!(heard.contains(&number), "{number} is missing in {heard:?}"));
    talk.response().expect_status(200);

    eve.reset();
    ben.leave();
    server.advance(std::time::Duration::from_secs(1));
    assert_eq!(server.get("/count").send().json::<Value>(), 2);
}

#[test]
fn a_chat_without_bugs_passes_and_every_planted_bug_is_found() {
    for seed in seeds(30) {
        test(Bug::None, seed);
    }
    for bug in BUGS {
        let mut found = seeds(30).filter(|&seed| catch_unwind(AssertUnwindSafe(|| test(bug, seed))).is_err());
        assert!(found.next().is_some(), "{bug:?} is not found");
    }
}
