//! A thousand tests of a chat with two clients, each with a server of its own.

use std::time::{Duration, Instant};

use ringwire::testing::TestServer;
use ringwire::{App, ws};

fn app() -> App {
    let room = ws()
        .on_connect(|socket| {
            let room = socket.param("room").to_owned();
            socket.join(room)
        })
        .on_message(|socket, message| socket.to_own_room(message));
    App::new().ws("/rooms/{room}", room)
}

/// Optimised it is well under a second: `cargo test --profile proof --test testing a_thousand -- --nocapture`.
#[test]
fn a_thousand_tests_take_a_moment() {
    let began = Instant::now();
    for seed in 0..1000 {
        let server = TestServer::builder().seed(seed).start(app);
        let (ann, ben) = (server.connect("/rooms/lobby"), server.connect("/rooms/lobby"));
        ann.send("hello");
        ben.expect_text("hello");
        ann.expect_text("hello");
        ben.close(1000, "");
        ben.expect_close(1000);
    }
    let took = began.elapsed();
    println!("a thousand tests took {took:?}");
    assert!(took < Duration::from_secs(60), "a thousand tests took {took:?}");
}
