//! Chance: seeds, faults, and what failures say.

use ringwire::testing::{Faults, TestClient, TestServer, seeds};
use ringwire::{App, Message, Socket};

use crate::failure;

fn echo() -> App {
    App::new().ws("/", |socket: &mut Socket<'_>, message: Message<'_>| socket.send(message))
}

#[test]
fn other_seeds_are_other_runs() {
    let run = |seed| {
        let server = TestServer::builder().seed(seed).faults(Faults::harsh()).start(echo);
        let client = server.connect("/");
        client.send("hello");
        client.expect_text("hello");
        server.fingerprint()
    };
    assert_eq!(run(1), run(1));
    assert_ne!(run(1), run(2));
}

#[test]
fn seeds_go_from_zero_unless_the_environment_says_otherwise() {
    if ["RINGWIRE_TEST_SEED", "RINGWIRE_TEST_SEEDS"].iter().all(|name| std::env::var_os(name).is_none()) {
        assert_eq!(seeds(3).collect::<Vec<_>>(), [0, 1, 2]);
        assert_eq!(seeds(0).count(), 0);
        assert_eq!(TestServer::new(echo).seed(), 0);
    }
}

/// Each kind of fault happens where it is asked for, and no other does.
#[test]
fn faults_happen_on_request() {
    type Case = (&'static str, fn() -> Faults, bool);
    let cases: [Case; 6] = [
        ("none", Faults::none, false),
        ("short sends", || Faults::none().short_sends(0.5), true),
        ("split receives", || Faults::none().split_receives(0.5), true),
        ("delays", || Faults::none().delays(0.5), true),
        ("lacking buffers", || Faults::none().lacking_buffers(0.5), true),
        ("harsh", Faults::harsh, true),
    ];
    for (name, faults, some) in cases {
        let server = TestServer::builder().faults(faults()).start(echo);
        let client = server.connect("/");
        for _ in 0..20 {
            client.send("x".repeat(3000));
            client.expect_text(&"x".repeat(3000));
        }
        assert_eq!(server.faults_injected() > 0, some, "{name}");
    }
}

#[test]
fn resets_end_connections_and_nothing_else() {
    let (mut broken, mut whole) = (0, 0);
    for seed in seeds(40) {
        let server = TestServer::builder().seed(seed).faults(Faults::none().resets(0.03)).start(echo);
        let Ok(client) = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| server.connect("/"))) else {
            continue;
        };
        for number in 0..10 {
            client.send(number.to_string());
            match client.next() {
                Some(message) => assert_eq!(message.as_text(), Some(number.to_string().as_str())),
                None => break,
            }
        }
        *(if client.is_open() { &mut whole } else { &mut broken }) += 1;
        if !client.is_open() {
            client.expect_end();
        }
    }
    assert!(seeds(40).count() < 40 || (broken > 0 && whole > 0), "{broken} broken, {whole} whole");
}

/// Every expectation that fails says what was due, what came, and how to see it again.
#[test]
fn failures_say_what_came_and_how_to_repeat_them() {
    type Expect = fn(&TestClient);
    let table: [(&str, Expect); 13] = [
        ("text \"b\" was due, but text \"a\" came", |client| client.expect_text("b")),
        ("binary \"a\" was due, but text \"a\" came", |client| client.expect_binary("a")),
        ("JSON \"1\" was due, but text \"a\" came", |client| client.expect_json(1)),
        ("a binary message was due", |client| drop(client.next_binary())),
        ("JSON of another type was due", |client| assert_eq!(client.next_json::<u8>(), 1)),
        ("Close 1000 was due, but text \"a\" came", |client| drop(client.expect_close(1000))),
        ("an end without a Close was due", |client| client.expect_end()),
        ("nothing was due, but text \"a\" came", |client| client.expect_nothing()),
        ("a ping was due, but none came", |client| drop(client.expect_ping())),
        ("a pong \"a\" was due, but none came", |client| client.expect_pong("a")),
        ("text \"b\" was due, but nothing came", |client| {
            client.expect_text("a");
            client.expect_text("b");
        }),
        ("a message was due, but nothing came", |client| {
            client.expect_text("a");
            client.next();
        }),
        ("text \"b\" was due, but Close 1000 \"\" came", |client| {
            client.expect_text("a");
            client.close(1000, "bye");
            client.expect_text("b");
        }),
    ];
    for (due, expect) in table {
        let server = TestServer::builder().seed(77).start(echo);
        let client = server.connect("/");
        client.send("a");
        let text = failure(|| expect(&client));
        assert!(text.contains(due), "{due}: {text}");
        assert!(text.starts_with("client 0 (/): "), "{text}");
        assert!(text.ends_with("(seed 77: RINGWIRE_TEST_SEED=77 repeats this run)"), "{text}");
    }
    let server = TestServer::builder().seed(77).start(echo);
    let calls: [(&str, &dyn Fn()); 3] = [
        ("refused with 404", &|| drop(server.connect("/nowhere"))),
        ("should be refused", &|| drop(server.handshake("/").refusal())),
        ("has not ended", &|| TestServer::builder().seed(77).start(echo).join()),
    ];
    for (why, call) in calls {
        let text = failure(call);
        assert!(text.contains(why) && text.contains("RINGWIRE_TEST_SEED=77"), "{why}: {text}");
    }
}
