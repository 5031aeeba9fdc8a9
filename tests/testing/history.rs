//! The history of rooms, on one core and on several, with faults: what clients that come and go make of what they are sent.

use std::collections::BTreeMap;
use std::time::Duration;

use ringwire::testing::{Faults, TestClient, TestServer, seeds};
use ringwire::{App, Config, Deflate, History, Position, Ws, ws};
use serde_json::{Value, json};

fn news(history: History) -> Ws {
    ws().history(history)
        .on_connect(|socket| {
            let seen: Option<Position> = socket.request().query("seen").and_then(|text| text.parse().ok());
            socket.join_since("news", seen, None, |socket, recovered| {
                let at = recovered.position.map(|position| position.to_string());
                let _ = socket.emit("joined", &(recovered.is_complete, at, recovered.len()));
                let _ = socket.replay(&recovered);
            })
        })
        .on_text(|socket, text| socket.to("news").emit("said", text))
}

fn server(cores: usize, seed: u64, faults: Faults, history: &History) -> TestServer {
    let history = history.clone();
    let app = move || App::new().ws("/", news(history.clone()));
    TestServer::builder().cores(cores).seed(seed).faults(faults).start(app)
}

/// Reads what it is sent as it says itself, and knows where it is.
#[derive(Default)]
struct Reader {
    client: Option<TestClient>,
    at: Option<(String, u64)>,
    read: BTreeMap<u64, String>,
}

impl Reader {
    fn come(&mut self, server: &TestServer) {
        let seen = self.at.as_ref().map(|(epoch, offset)| format!("?seen={epoch}:{offset}")).unwrap_or_default();
        self.client = Some(server.connect(&format!("/{seen}")));
    }

    fn listen(&mut self) {
        let Some(client) = &self.client else { return };
        for message in client.unread() {
            let event: Value = serde_json::from_str(message.as_text().expect("text")).expect("JSON");
            if event["event"] == "joined" {
                let position: Position = event["data"][1].as_str().expect("a position").parse().expect("a position");
                let count = event["data"][2].as_u64().expect("a count");
                let before = (position.epoch(), position.offset() - count);
                assert_eq!(event["data"][0], true);
                assert!(self.at.as_ref().is_none_or(|at| *at == before), "{:?} {event}", self.at);
                self.at = Some(before);
                continue;
            }
            let (_, at) = self.at.as_mut().expect("it has joined");
            assert_eq!(event["offset"], *at + 1, "{event}");
            *at += 1;
            self.read.insert(*at, event["data"].as_str().expect("text").to_owned());
        }
    }
}

/// Kills: an order that differs between cores; what comes between a history and what follows it.
#[test]
fn readers_that_come_and_go_read_the_same() {
    for seed in seeds(60) {
        let server = server([1, 3][seed as usize % 2], seed, Faults::harsh(), &History::last(1000));
        let mut readers: Vec<Reader> = (0..4).map(|_| Reader::default()).collect();
        readers.iter_mut().for_each(|reader| reader.come(&server));
        for round in 0..30 {
            for (number, reader) in readers.iter_mut().enumerate() {
                match (seed as usize * 7 + round * 5 + number * 3) % 11 {
                    0 => drop(reader.client.take().map(|client| client.reset())),
                    1 | 2 if reader.client.is_none() => reader.come(&server),
                    _ => {}
                }
                if let Some(client) = &reader.client {
                    client.send(format!("{number} {round}"));
                }
                if round % 3 == 0 {
                    reader.listen();
                }
            }
        }
        for reader in &mut readers {
            reader.listen();
            reader.client = None;
            reader.come(&server);
        }
        // What has been said is there when somebody else has come.
        server.advance(Duration::from_secs(1));
        readers.iter_mut().for_each(Reader::listen);
        let last = readers[0].at.clone();
        assert!(last.as_ref().is_some_and(|(_, offset)| *offset > 10), "{last:?}");
        let all: BTreeMap<u64, String> = readers.iter().flat_map(|reader| reader.read.clone()).collect();
        for reader in &readers {
            assert_eq!(reader.at, last, "seed {seed}");
            assert!(reader.read.iter().all(|(offset, text)| all[offset] == *text), "seed {seed}");
        }
    }
}

/// Kills: positions of a server that has gone that mean something to the next one.
#[test]
fn a_server_that_is_started_again_has_another_history() {
    for cores in [1, 3] {
        let said = |server: &TestServer, seen: &str| {
            let client = server.connect(&format!("/?seen={seen}"));
            let joined = client.expect_event("joined");
            (0..joined[2].as_u64().expect("a count")).for_each(|_| drop(client.expect_event("said")));
            ["a", "b"].iter().for_each(|text| client.send(*text));
            assert_eq!((client.expect_event("said"), client.expect_event("said")), ("a".into(), "b".into()));
            joined
        };
        let first = server(cores, 1, Faults::none(), &History::last(9));
        let joined = said(&first, "");
        assert_eq!((&joined[0], &joined[2]), (&json!(true), &json!(0)));
        let position = joined[1].as_str().expect("a position").to_owned();
        assert_eq!(said(&first, &position)[0], true);
        first.shutdown();
        first.join();
        let second = server(cores, 2, Faults::none(), &History::last(9));
        said(&second, "");
        let joined = said(&second, &position);
        assert_eq!((&joined[0], &joined[2]), (&json!(false), &json!(2)), "what there is, and that it is not all");
    }
}

#[test]
fn what_is_too_old_is_forgotten_and_told_so() {
    let server = server(2, 0, Faults::none(), &History::last(9).max_age(Duration::from_secs(10)));
    let ann = server.connect("/");
    let at = ann.expect_event("joined")[1].as_str().expect("a position").to_owned();
    ann.send("a");
    ann.expect_event("said");
    server.advance(Duration::from_secs(8));
    ann.send("b");
    ann.expect_event("said");
    let again = |complete: bool, count: u64| {
        let joined = server.connect(&format!("/?seen={at}")).expect_event("joined");
        assert_eq!((&joined[0], &joined[2]), (&json!(complete), &json!(count)));
    };
    again(true, 2);
    server.advance(Duration::from_secs(3));
    again(false, 1);
    server.advance(Duration::from_secs(60));
    again(false, 0);
    let metrics = server.block_on(server.hub().metrics());
    let sum = |of: fn(&ringwire::metrics::CoreMetrics) -> u64| metrics.cores.iter().map(of).sum::<u64>();
    assert_eq!(sum(|core| core.counters.history_recoveries), 3);
    assert_eq!(sum(|core| core.counters.history_incomplete), 2);
    assert_eq!((sum(|core| core.history_rooms), sum(|core| core.history_messages)), (1, 0));
}

/// Kills: a window that is one connection's and goes to another by way of the history.
#[test]
fn compressed_rooms_have_one_too() {
    let route = || {
        ws().history(History::last(50))
            .deflate(Deflate::Shared)
            .on_connect(|socket| socket.join_with_history("den", 50))
            .on_message(|socket, message| socket.to_own_room(message))
    };
    for cores in [1, 2] {
        let server = TestServer::builder().cores(cores).start(move || App::new().ws("/", route()));
        let ann = server.handshake("/").deflate().open();
        let texts: Vec<String> = (0..20).map(|number| format!("{number} {}", "the same again ".repeat(40))).collect();
        for text in &texts {
            ann.send(text.clone());
            ann.expect_text(text);
        }
        for ben in [server.handshake("/").deflate().open(), server.connect("/")] {
            texts.iter().for_each(|text| ben.expect_text(text));
            assert!(ben.unread().is_empty());
        }
        let [ben, eve] = [server.handshake("/").deflate().open(), server.connect("/")];
        [&ben, &eve].iter().for_each(|client| texts.iter().for_each(|text| client.expect_text(text)));
        for number in 0..3 {
            let text = format!("{number} {}", "and on ".repeat(80));
            ann.send(text.clone());
            [&ann, &ben, &eve].iter().for_each(|client| client.expect_text(&text));
        }
    }
}

/// Kills: histories that only routes can have, or that more messages than fit into a queue end.
#[test]
fn the_setting_is_for_all_rooms_and_a_history_is_more_than_a_queue_holds() {
    let config = Config::default().history(History::last(100)).max_outbox(64 << 10);
    let route = || {
        ws().on_connect(|socket| socket.join_with_history("den", 100))
            .on_message(|socket, message| socket.to_own_room(message))
    };
    let server = TestServer::builder().cores(2).config(config).start(move || App::new().ws("/", route()));
    let ann = server.connect("/");
    let text = |number: usize| format!("{number} {}", "x".repeat(5_000));
    for number in 0..100 {
        ann.send(text(number));
        ann.expect_text(&text(number));
    }
    let ben = server.connect("/");
    (0..100).for_each(|number| ben.expect_text(&text(number)));
    ann.send("and then");
    ben.expect_text("and then");
}
