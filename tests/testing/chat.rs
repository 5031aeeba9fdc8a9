//! The chat of `examples/team_chat.rs`, tested by the kit alone: tokens, rooms, history, presence, private messages,
//! pages of other origins, the access log, the end.

use std::cell::RefCell;
use std::io::{self, Write};
use std::sync::LazyLock;

use ringwire::testing::{Faults, TestClient, TestServer, seeds};
use serde_json::{Value, json};

#[allow(dead_code)]
#[path = "../../examples/team_chat.rs"]
mod team_chat;

/// Runs a test on one core and on three, with and without faults.
fn each(test: impl Fn(TestServer)) {
    for cores in [1, 3] {
        for faults in [Faults::none(), Faults::harsh()] {
            for seed in seeds(5) {
                let chat = team_chat::Chat::default();
                let builder = TestServer::builder().cores(cores).seed(seed).faults(faults.clone());
                test(builder.start(|| team_chat::app(&chat)));
            }
        }
    }
}

fn enter(server: &TestServer, room: &str, user: &str) -> (TestClient, Value) {
    let client = server.handshake(&format!("/rooms/{room}")).token(&format!("{user}-secret")).open();
    let welcome = client.expect_event("welcome");
    (client, welcome)
}

fn texts(history: &Value) -> Vec<&str> {
    history.as_array().expect("a list").iter().filter_map(|said| said["text"].as_str()).collect()
}

#[test]
fn only_the_team_gets_in() {
    each(|server| {
        let refusals = [
            server.handshake("/rooms/lobby").refusal(),
            server.handshake("/rooms/lobby").token("guessed").refusal(),
            server.handshake("/rooms/lobby?token=guessed").refusal(),
            server.post("/users/ann/messages").json("hi").send(),
        ];
        for refusal in refusals {
            assert_eq!(refusal.expect_status(401).json::<Value>(), json!({"error": "a token is needed"}));
        }
        server.connect("/rooms/lobby?token=ann-secret").expect_event("welcome");
    });
}

#[test]
fn who_comes_and_goes_is_told_once_for_each_user() {
    each(|server| {
        let (ann, welcome) = enter(&server, "lobby", "ann");
        assert_eq!(welcome, json!({"history": [], "present": ["ann"]}));
        let (ben, welcome) = enter(&server, "lobby", "ben");
        assert_eq!(welcome["present"], json!(["ann", "ben"]));
        assert_eq!(ann.expect_event("joined"), "ben");
        let (bens_phone, _) = enter(&server, "lobby", "ben");
        let (_eve, welcome) = enter(&server, "other", "eve");
        assert_eq!(welcome["present"], json!(["eve"]));
        ann.expect_nothing();
        ben.close(1000, "");
        ben.expect_close(1000);
        ann.expect_nothing();
        bens_phone.reset();
        assert_eq!(ann.expect_event("left"), "ben");
    });
}

#[test]
fn a_room_hears_what_is_said_there_and_remembers_fifty_of_it() {
    each(|server| {
        let (ann, _) = enter(&server, "lobby", "ann");
        let (eve, _) = enter(&server, "other", "eve");
        for number in 1..=52 {
            ann.emit("say", &format!("number {number}"));
            let said = json!({"number": number, "from": "ann", "text": format!("number {number}")});
            assert_eq!(ann.expect_event("said"), said);
        }
        let (ben, welcome) = enter(&server, "lobby", "ben");
        let said = texts(&welcome["history"]);
        assert_eq!((said.len(), said[0], said[49]), (50, "number 3", "number 52"));
        assert_eq!(ann.expect_event("joined"), "ben");
        ben.emit("say", &json!({"not": "a text"}));
        assert_eq!(ben.expect_event("error")["event"], "say");
        ann.expect_nothing();
        eve.expect_nothing();
    });
}

/// Between the history and what is said from then on, nothing is missed, whoever talks meanwhile on whichever core.
#[test]
fn who_joins_a_busy_room_misses_nothing() {
    each(|server| {
        let (talker, _) = enter(&server, "lobby", "ann");
        server.set_faults(Faults::harsh());
        let mut joiner = None;
        for number in 1..=20 {
            server.together(|| {
                if number == 10 {
                    joiner = Some(server.handshake("/rooms/lobby").token("ben-secret"));
                }
                talker.emit("say", &number.to_string());
            });
            if let Some(handshake) = joiner.take() {
                check_that_nothing_is_missed(&talker, &handshake.open(), number);
            }
        }
    });
}

fn check_that_nothing_is_missed(talker: &TestClient, joiner: &TestClient, said: u64) {
    talker.emit("say", "last");
    let welcome = joiner.expect_event("welcome");
    let history = welcome["history"].as_array().expect("a list");
    let mut last = history.last().map_or(0, |said| said["number"].as_u64().expect("a number"));
    while last < said + 1 {
        let (name, data) = joiner.next_event();
        assert_eq!(name, "said");
        let number = data["number"].as_u64().expect("a number");
        assert!(number <= last + 1, "{last} is followed by {number}");
        last = last.max(number);
    }
}

#[test]
fn private_messages_go_to_all_of_one_user_and_nobody_else() {
    each(|server| {
        let (ann, _) = enter(&server, "lobby", "ann");
        let (anns_phone, _) = enter(&server, "other", "ann");
        let (eve, _) = enter(&server, "user:ann", "eve");
        let say = |to: &str| server.post(&format!("/users/{to}/messages")).token("ben-secret").json("psst").send();
        assert_eq!(say("ann").expect_status(200).json::<Value>(), json!({"told": 2}));
        for client in [&ann, &anns_phone] {
            assert_eq!(client.expect_event("private"), json!({"from": "ben", "text": "psst"}));
        }
        assert_eq!(say("ben").expect_status(404).json::<Value>()["error"], "nobody of that name is here");
        assert_eq!(server.post("/users/ann/messages").token("ben-secret").body("psst").send().status(), 400);
        eve.expect_nothing();
    });
}

#[test]
fn it_ends_with_everything_said() {
    each(|server| {
        let (ann, _) = enter(&server, "lobby", "ann");
        let (ben, _) = enter(&server, "lobby", "ben");
        ann.expect_event("joined");
        ben.pause();
        ann.emit("say", "the last word");
        ann.expect_event("said");
        server.shutdown();
        ben.resume();
        assert_eq!(ben.expect_event("said")["text"], "the last word");
        for client in [ann, ben] {
            // Whoever is closed first has left for the other.
            while client.next().is_some() {}
            client.expect_close(1001);
        }
        server.join();
    });
}

/// A browser asks first, without a token.
#[test]
fn pages_of_the_team_may_send_private_messages_and_no_others() {
    each(|server| {
        let (ann, _) = enter(&server, "lobby", "ann");
        let may = |origin: &str| {
            let question = server.request("OPTIONS", "/users/ann/messages").header("origin", origin);
            let question = question.header("access-control-request-method", "POST");
            question.header("access-control-request-headers", "authorization").send()
        };
        let team = "https://team.example";
        let answer = may(team).expect_status(204);
        assert_eq!(answer.header("access-control-allow-origin"), Some(team));
        assert_eq!(answer.header("access-control-allow-headers"), Some("authorization"));
        assert_eq!(may("https://other.example").expect_status(403).header("access-control-allow-origin"), None);
        // What is refused can be read as well.
        for (token, status) in [("ben-secret", 200), ("guessed", 401)] {
            let call = server.post("/users/ann/messages").token(token).header("origin", team).json("psst");
            assert_eq!(call.send().expect_status(status).header("access-control-allow-origin"), Some(team));
        }
        ann.expect_event("private");
    });
}

thread_local! {
    /// What this thread has logged.
    static WRITTEN: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

struct ToThread;

impl Write for ToThread {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        WRITTEN.with_borrow_mut(|written| written.write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Logs for the whole process: what is logged by a test alone may be lost while others have nobody who wants it.
static LOG: LazyLock<()> = LazyLock::new(|| {
    let log = tracing_subscriber::fmt().with_env_filter(team_chat::LOG).with_ansi(false);
    log.with_writer(|| ToThread).init();
});

#[test]
fn the_log_has_a_line_for_each_request_and_no_secret() {
    LazyLock::force(&LOG);
    each(|server| {
        WRITTEN.take();
        server.connect("/rooms/lobby?token=ann-secret").expect_event("welcome");
        server.post("/users/nobody/messages").token("ben-secret").json("psst").send().expect_status(404);
        server.handshake("/rooms/lobby?token=guessed").refusal().expect_status(401);
        let log = String::from_utf8(WRITTEN.take()).expect("text");
        let lines: Vec<&str> = log.lines().filter(|line| line.contains("ringwire::access: request")).collect();
        let asked =
            ["method=GET path=/rooms/lobby", "method=POST path=/users/nobody/messages", "method=GET path=/rooms/lobby"];
        assert_eq!(lines.len(), asked.len(), "{log}");
        for (line, (asked, status)) in lines.iter().zip(asked.iter().zip([101, 404, 401])) {
            assert!(line.contains(&format!("{asked} status={status} ")), "{line}");
        }
        assert!(!log.contains("secret") && !log.contains("guessed"), "{log}");
    });
}
