//! The same table for every way to write a handler, on one core and on three, without faults and under them.

use std::time::Duration;

use ringwire::testing::{Faults, TestServer, TestServerBuilder, seeds};
use ringwire::{App, Connection, Message, OwnedMessage, Socket, Ws, sleep, ws};

type Way = fn() -> Ws;

/// Each echoes to its sender, and to the room of its path whatever begins with `all `.
const WAYS: [(&str, Way); 4] = [
    ("closure", || {
        ws().on_message(|socket: &mut Socket<'_>, message: Message<'_>| {
            let room = socket.param("room").to_owned();
            if message.as_text().is_some_and(|text| text.starts_with("all ")) {
                let _ = socket.to(&room).send(message);
            } else {
                let _ = socket.send(message);
            }
        })
    }),
    ("async", || {
        ws().on_message_async(async |mut socket: Connection, message: OwnedMessage| answer(&mut socket, message))
    }),
    ("async that waits", || {
        ws().on_message_async(async |mut socket: Connection, message: OwnedMessage| {
            sleep(Duration::from_millis(3)).await;
            answer(&mut socket, message);
        })
    }),
    ("task", || {
        ws().task(async |mut socket: Connection| {
            while let Some(message) = socket.recv().await {
                answer(&mut socket, message);
            }
        })
    }),
];

fn answer(socket: &mut Connection, message: OwnedMessage) {
    if message.as_text().is_some_and(|text| text.starts_with("all ")) {
        let _ = socket.hub().send_to_room(socket.param("room"), message);
    } else {
        let _ = socket.send(message);
    }
}

fn app(way: Way) -> App {
    App::new().ws(
        "/rooms/{room}",
        way().on_connect(|socket| {
            let room = socket.param("room").to_owned();
            socket.join(room)
        }),
    )
}

fn faults() -> [(&'static str, Faults); 4] {
    [
        ("none", Faults::none()),
        ("short sends", Faults::none().short_sends(0.5)),
        ("split receives", Faults::none().split_receives(0.5)),
        ("harsh", Faults::harsh()),
    ]
}

fn each(mut check: impl FnMut(&str, TestServerBuilder, Way)) {
    for (name, way) in WAYS {
        for cores in [1, 3] {
            for (what, faults) in faults() {
                for seed in seeds(3) {
                    let builder = TestServer::builder().cores(cores).seed(seed).faults(faults.clone());
                    check(&format!("{name}, {cores} cores, {what}, seed {seed}"), builder, way);
                }
            }
        }
    }
}

#[test]
fn answers_are_the_same_however_a_handler_is_written() {
    each(|name, builder, way| {
        let server = builder.start(|| app(way));
        let clients: Vec<_> = (0..4).map(|_| server.connect("/rooms/lobby")).collect();
        let stranger = server.connect("/rooms/other");
        for (number, client) in clients.iter().enumerate() {
            client.send(format!("only {number}"));
            client.expect_text(&format!("only {number}"));
            client.send(vec![number as u8; 5000]);
            client.expect_binary(vec![number as u8; 5000]);
            client.send_fragments(&["all ", "of ", &number.to_string()]);
            clients.iter().for_each(|other| other.expect_text(&format!("all of {number}")));
        }
        stranger.expect_nothing();
        clients[0].close(1000, "bye");
        clients[0].expect_close(1000);
        clients[1].leave();
        server.advance(Duration::from_millis(200));
        assert_eq!(server.hub().websockets(), 3, "{name}");
        server.shutdown();
        clients[2].expect_close(1001);
        server.join();
    });
}

#[test]
fn one_seed_is_one_run() {
    each(|name, builder, way| {
        let run = || {
            let server = builder.clone().start(|| app(way));
            let clients: Vec<_> = (0..3).map(|_| server.connect("/rooms/lobby")).collect();
            for round in 0..3 {
                server.together(|| clients.iter().for_each(|client| client.send(format!("all {round}"))));
                clients.iter().for_each(|client| drop(client.next()));
            }
            server.advance(Duration::from_secs(40));
            let ids = server.block_on(server.hub().connections()).expect("the cores answer");
            let ids: Vec<String> = ids.iter().map(|known| known.id.to_string()).collect();
            (server.fingerprint(), server.trace(), ids)
        };
        assert_eq!(run(), run(), "{name}");
    });
}
