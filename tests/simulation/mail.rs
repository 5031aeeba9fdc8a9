//! Cores whose mailboxes are full, and who is told so.

use std::rc::Rc;

use ringwire::hub::{CoreHub, Letter};
use ringwire::{App, Config, Message, standalone};
use serde_json::{Value, json};

use crate::host::Setup;
use crate::rig::{Rig, Socket};

const TOKEN: &str = "c2ltdWxhdGVk";

/// The stand-alone program on two cores with mailboxes of two letters.
fn narrow() -> Rig {
    let app = || standalone::app(&Config::default().api_token(TOKEN.parse().ok()));
    Rig::new(&Setup { cores: 2, mail_depth: 2, app: Rc::new(app), ..Setup::default() })
}

/// Lets a core alone come to rest.
fn settle_alone(rig: &mut Rig, core: usize) {
    while rig.cores.all[core].is_runnable() {
        rig.cores.all[core].tick();
    }
}

/// Fills the mailbox of a core that does not run meanwhile.
fn fill(rig: &Rig, core: usize) {
    while rig.cores.courier.send(core, Letter::run(|_: &mut CoreHub| {})).is_ok() {}
}

fn events(socket: &mut Socket) -> Vec<Value> {
    socket.texts().iter().map(|text| serde_json::from_str(text).expect("JSON")).collect()
}

/// Kills: joins and leaves that ask all cores, their own included, through mailboxes.
#[test]
fn joins_and_leaves_are_answered_whatever_the_mailboxes_hold() {
    let mut rig = narrow();
    let mut socket = rig.open(0, "/ws");
    assert_eq!(socket.texts().len(), 1);
    fill(&rig, 0);
    fill(&rig, 1);
    for n in 0..100 {
        socket.text(&json!({"event": "join", "data": {"room": format!("r{}", n % 7)}}).to_string());
        socket.text(&json!({"event": "leave", "data": {"room": format!("r{}", n % 7)}}).to_string());
    }
    rig.pass_ms(1_000);
    let answers = events(&mut socket);
    assert_eq!(answers.len(), 200);
    for (n, answer) in answers.iter().enumerate() {
        let (event, members) = if n % 2 == 0 { ("joined", 1) } else { ("left", 0) };
        let data = json!({"room": format!("r{}", n / 2 % 7), "members": members});
        assert_eq!(*answer, json!({"event": event, "data": data}));
    }
    rig.finish();
}

/// Kills: letters about rooms that pile up without bound at a core that does not run.
#[test]
fn who_writes_urgent_letters_waits_for_a_core_that_does_not_read_them() {
    let app = || {
        let join = |socket: &mut ringwire::Socket<'_>, message: Message<'_>| {
            socket.join(message.as_text().unwrap_or_default()).map(|()| "joined")
        };
        App::new().ws("/join", join)
    };
    let mut rig = Rig::new(&Setup { cores: 2, mail_depth: 2, app: Rc::new(app), ..Setup::default() });
    let mut socket = rig.open(0, "/join");
    (0..100).for_each(|n| socket.text(&n.to_string()));
    settle_alone(&mut rig, 0);
    assert_eq!(socket.texts().len(), 3, "one more than the depth of a mailbox");
    rig.pass_ms(100);
    assert_eq!(socket.texts().len(), 97);
    rig.finish();
}

/// Kills: joins that are answered before all have read of them, and more than one of them under way for a connection.
#[test]
fn who_joins_waits_for_a_core_that_does_not_run() {
    let mut rig = narrow();
    let mut socket = rig.open(0, "/ws");
    assert_eq!(socket.texts().len(), 1);
    for n in 0..100 {
        socket.text(&json!({"event": "join", "data": {"room": n.to_string()}}).to_string());
    }
    settle_alone(&mut rig, 0);
    assert_eq!(events(&mut socket), Vec::<Value>::new());
    assert_eq!(rig.cores.all[0].shard.hub().changes_waiting(), 1);
    rig.pass_ms(100);
    assert_eq!(events(&mut socket).len(), 100);
    rig.finish();
}

fn ask(rig: &mut Rig, method: &str, path: &str, body: &str) -> (u16, Value) {
    let client = rig.connect(0);
    let head = format!("{method} {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: {}", body.len());
    client.send(format!("{head}\r\nAuthorization: Bearer {TOKEN}\r\n\r\n{body}").as_bytes());
    settle_alone(rig, 0);
    let response = String::from_utf8(client.received()).expect("text");
    let (head, body) = response.split_once("\r\n\r\n").expect("a whole head");
    (head[9..12].parse().expect("a status"), serde_json::from_str(body).expect("JSON"))
}

/// Kills: a core that could not be asked and is left out of the answer.
#[test]
fn the_api_says_that_a_core_could_not_be_asked() {
    let mut rig = narrow();
    let mut sockets = [0, 1].map(|core| rig.open(core, "/ws"));
    let ids = sockets.each_mut().map(|socket| {
        let connected = events(socket).remove(0);
        connected["data"]["id"].as_str().expect("an id").to_owned()
    });
    let [here, there] = ids;
    fill(&rig, 1);
    let event = r#"{"event":"news"}"#;
    for (method, path, body) in [
        ("POST", "/api/broadcast", event),
        ("POST", "/api/rooms/den", event),
        ("POST", &format!("/api/message/{there}"), "1"),
        ("GET", "/api/ws/connections", ""),
        ("GET", &format!("/api/ws/connections/{there}/data"), ""),
        ("PUT", &format!("/api/ws/connections/{there}/data"), "1"),
        ("DELETE", &format!("/api/ws/connections/{there}"), ""),
    ] {
        let (status, answer) = ask(&mut rig, method, path, body);
        assert_eq!(status, 503, "{method} {path}: {answer}");
        assert!(answer["error"].as_str().is_some_and(|error| error.starts_with("busy")), "{answer}");
    }
    // What the core that was asked knows itself takes no mailbox.
    fill(&rig, 0);
    assert_eq!(ask(&mut rig, "POST", &format!("/api/message/{here}"), "1"), (200, json!({"sent": true})));
    rig.finish();
}
