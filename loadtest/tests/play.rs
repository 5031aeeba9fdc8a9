//! Scenario files, stages and recordings, against ringwire's routes and against servers that are wrong in one way each.

mod common;

use std::collections::BTreeSet;

use serde_json::{Value, json};
use tungstenite::Message;

use common::{File, Ringwire, assert_only, output, play, program, run, says, serve_echo, serve_noting};

#[test]
fn users_join_rooms_and_talk_as_the_file_says() {
    let server = Ringwire::start(|config| config);
    let file = File::new(
        "rooms.toml",
        r#"
        url = "ws://127.0.0.1:1/nowhere"
        stages = [{ duration = "0s", connections = 6 }, { duration = "700ms", connections = 6 }]

        [[users]]
        name = "talkers"
        path = "/ws"
        rounds = 3
        variables = { room = "room-{user}-{session}" }
        begin = [
            { expect = { json = { event = "connected" } } },
            { name = "join", send = '{"event":"join","data":{"room":"{room}"}}',
              expect = { json = { event = "joined", data = { room = "{room}", members = 1 } } } },
        ]
        steps = [
            { name = "say", send = '{"event":"message","data":{"room":"{room}","message":"number {count}"}}', think = "5ms..10ms",
              expect = { json = { event = "message", data = { message = "number {count}" } } } },
        ]
        "#,
    );
    // {count} in what is expected is one more than in what was sent: no message is as expected.
    let figures = play(1, "run", &file, &format!("--url ws://{} --patience 300ms", server.address));
    assert!(figures["checks"]["lost"].as_u64() > Some(0), "{figures}");
    says(&figures, "say: nothing came that is as expected");
    let right = std::fs::read_to_string(&file.0)
        .expect("there")
        .replace("= { message = \"number {count}\" }", "= { room = \"{room}\" }");
    let file = File::new("right.toml", &right);
    for threads in [1, 2] {
        let figures = play(0, "run", &file, &format!("--url ws://{} --threads {threads}", server.address));
        let steps = figures["steps"].as_object().expect("a table");
        assert_eq!(steps.keys().collect::<Vec<_>>(), ["talkers begin 1", "join", "say"]);
        let (sessions, joins) = (figures["sessions"].as_u64().expect("a count"), steps["join"]["count"].as_u64());
        assert!(sessions >= 6 && joins >= Some(sessions), "{sessions} {joins:?}");
        assert!(steps["say"]["count"].as_u64() >= Some(3 * sessions), "{figures}");
        assert_eq!(figures["ends"]["closed"].as_u64(), figures["opened"].as_u64(), "{figures}");
    }
}

#[test]
fn every_connection_has_its_row_of_the_file() {
    let (addr, noted) = serve_noting();
    let rows = File::new("tokens.csv", "name,token\nkim,\"t,1\"\nana,t2\nleo,t3\n");
    let csv = rows.0.file_name().expect("a file").to_string_lossy().into_owned();
    let text = format!(
        r#"
        url = "ws://{addr}"
        connections = 6
        duration = "400ms"
        [[users]]
        csv = "{csv}"
        path = "/chat?as={{name}}&n={{user}}"
        headers = {{ Authorization = "Bearer {{token}}" }}
        rounds = 2
        steps = [{{ send = "{{message}}", expect = "sent", think = "10ms" }}]
        "#
    );
    let file = File::new("users.toml", &text);
    play(0, "run", &file, "--threads 2 --size 300");
    let noted: BTreeSet<(String, String)> = noted.lock().expect("held briefly").iter().cloned().collect();
    let row = |user: usize| [("kim", "t,1"), ("ana", "t2"), ("leo", "t3")][user % 3];
    let expected: BTreeSet<(String, String)> =
        (0..6).map(|user| (format!("/chat?as={}&n={user}", row(user).0), format!("Bearer {}", row(user).1))).collect();
    assert_eq!(noted, expected);
    // What HTTP does not allow is found before the run, and what only it makes is not sent.
    let rows = File::new("bad.csv", "name,token\nkim,\"secret\nb\"\n");
    let bad = rows.0.file_name().expect("a file").to_string_lossy().into_owned();
    let file = File::new("bad.toml", &text.replace(&csv, &bad));
    let output = program().arg("run").arg(&file.0).output().expect("it starts");
    let error = String::from_utf8_lossy(&output.stderr);
    let place = format!("{}:8:37: users[0].headers.Authorization: with line 2 of the csv file: ", file.0.display());
    assert!(output.status.code() == Some(2) && error.contains(&place) && !error.contains("secret"), "{error}");
    let file = File::new("message.toml", &text.replace("?as={name}", "?as={message}"));
    let figures = play(1, "run", &file, "--size 300");
    says(&figures, "its path: it has characters that a URL cannot have");
}

/// Kills: kinds and URLs that are dealt out by the same number: one URL has all of a kind.
#[test]
fn every_url_has_users_of_every_kind() {
    for urls in 1..=3 {
        let servers: Vec<_> = (0..urls).map(|_| serve_noting()).collect();
        let text: String = servers.iter().map(|(addr, _)| format!("\"ws://{addr}\", ")).collect();
        for weights in [[1, 1], [3, 1]] {
            servers.iter().for_each(|(_, noted)| noted.lock().expect("held briefly").clear());
            let user = |place: usize| {
                format!(
                    "[[users]]\nweight = {}\npath = \"/{place}/{{user}}\"\nsteps = [{{ send = \"{{message}}\", \
                     expect = \"sent\", think = \"50ms\" }}]\n",
                    weights[place]
                )
            };
            let file = File::new(
                "kinds.toml",
                &format!("url = [{text}]\nconnections = 12\nduration = \"300ms\"\n{}{}", user(0), user(1)),
            );
            play(0, "run", &file, "--threads 2");
            let all = 12 / (weights[0] + weights[1]);
            for (_, noted) in &servers {
                let noted = noted.lock().expect("held briefly");
                for (place, weight) in weights.iter().enumerate() {
                    let kind = format!("/{place}/");
                    let count = noted.iter().filter(|(path, _)| path.starts_with(&kind)).count();
                    let part: usize = all * weight;
                    let even = part / urls..=part.div_ceil(urls);
                    assert!(even.contains(&count), "{count} to one of {urls} URLs, {weights:?}: {noted:?}");
                }
            }
        }
    }
}

#[test]
fn connections_follow_the_stages() {
    let server = Ringwire::start(|config| config);
    let url = format!("ws://{}/echo", server.address);
    for (scenario, options) in [("echo", "--size 2KiB"), ("churn", "--words 3")] {
        let stages = "500ms:40,500ms:40,500ms:5,300ms:5";
        let figures = run(0, scenario, &url, &format!("--stages {stages} {options} --threads 2"));
        let open: Vec<u64> =
            figures["series"]["open"].as_array().expect("a list").iter().filter_map(Value::as_u64).collect();
        let most = *open.iter().max().expect("samples");
        assert!((20..=40).contains(&most), "{open:?}");
        assert!(open.iter().rev().skip(1).take(2).all(|open| *open <= 5), "{scenario}: {open:?}");
        assert!(figures["messages"].as_u64() > Some(50) && figures["unasked"] == 0, "{figures}");
        let elapsed = figures["elapsed_s"].as_f64().expect("a figure");
        assert!((1.8..4.0).contains(&elapsed), "{elapsed}");
    }
    // Rounds at a rate: from nothing to 200 a second and on.
    let figures = run(0, "echo", &url, "--stages 0s:20@100,2s:20@100");
    let rate = figures["messages_per_s"].as_f64().expect("a figure");
    assert!((60.0..=105.0).contains(&rate), "{rate}");
    assert!(figures["uncorrected_us"]["count"].as_u64() > Some(100), "{figures}");
}

#[test]
fn a_round_that_is_late_counts_from_when_it_was_due() {
    let addr = serve_echo(|number, message| {
        if number == 10 {
            std::thread::sleep(std::time::Duration::from_millis(800));
        }
        vec![message]
    });
    let figures = run(0, "echo", &format!("ws://{addr}/"), "--stages 0s:1@100,2s:1@100");
    let us = |key: &str, time: &str| figures[key][time].as_f64().expect("a figure");
    assert!(us("latency_us", "p90") > 300_000.0, "{}", figures["latency_us"]);
    assert!(us("uncorrected_us", "p90") < 100_000.0, "{}", figures["uncorrected_us"]);
}

#[test]
fn servers_that_are_wrong_are_found_by_scripts_too() {
    let echo = |code, addr, options: &str| {
        run(code, "echo", &format!("ws://{addr}/"), &format!("--stages 0s:1,1s:1 {options}"))
    };
    let addr = serve_echo(|number, message| if number == 3 { vec!["another".into()] } else { vec![message] });
    let figures = echo(1, addr, "");
    assert_only(&figures, "corrupted", 1);
    says(&figures, "7 bytes that are not as expected");
    // What comes twice answers nothing, or takes the place of the next.
    let addr = serve_echo(|number, message| if number == 3 { vec![message.clone(), message] } else { vec![message] });
    let figures = echo(1, addr, "");
    assert!(figures["problem_count"].as_u64() > Some(0), "{figures}");
    let addr = serve_echo(|number, message| if number == 3 { vec![] } else { vec![message] });
    let figures = echo(1, addr, "--patience 300ms");
    assert!(figures["checks"]["lost"].as_u64() > Some(0), "{figures}");
    says(&figures, "nothing came that is as expected");
    let addr = serve_echo(|number, message| if number == 3 { vec![Message::Close(None)] } else { vec![message] });
    let figures = echo(1, addr, "");
    assert!(figures["connections"]["failed"].as_u64() > Some(0), "{figures}");
    says(&figures, "the connection ended before it came");
}

#[test]
fn recordings_are_played_again() {
    let server = Ringwire::start(|config| config);
    let message =
        |kind: &str, time: f64, data: Value| json!({"type": kind, "time": time, "opcode": 1, "data": data.to_string()});
    let messages = json!([
        message("receive", 5.0, json!({"event": "connected", "data": {"id": "x"}})),
        message("send", 5.2, json!({"event": "join", "data": {"room": "r"}})),
        message("receive", 5.3, json!({"event": "joined", "data": {"room": "r", "members": 7}})),
        message("send", 5.4, json!({"event": "ping", "data": [1, 2]})),
        message("receive", 5.5, json!({"event": "pong", "data": [1, 2]})),
    ]);
    let har = json!({"log": {"entries": [
        {"request": {"url": format!("ws://{}/ws", server.address)}, "_webSocketMessages": messages},
    ]}});
    let file = File::new("session.har", &har.to_string());
    let figures = play(0, "replay", &file, "");
    assert_eq!((&figures["sessions"], &figures["published"], &figures["messages"]), (&1.into(), &2.into(), &3.into()));
    let figures = play(0, "replay", &file, "--repeat 3 --speed 4");
    assert_eq!((&figures["sessions"], &figures["messages"]), (&3.into(), &9.into()));
    let elapsed = figures["elapsed_s"].as_f64().expect("a figure");
    assert!((0.3..3.0).contains(&elapsed), "three times 0.4 s in a quarter of the time: {elapsed}");
    // The id is another one each time, and so is the number of members with several at once.
    let figures = play(1, "replay", &file, "--match exact --patience 300ms");
    assert_eq!(figures["checks"]["lost"], 1, "{figures}");
    let other = serve_echo(|_, message| vec![message]);
    let figures = play(1, "replay", &file, &format!("--url ws://{other}/ --patience 300ms"));
    says(&figures, "session 1: nothing came that is as expected");
    let figures = play(1, "replay", &file, &format!("--url ws://{other}/ --match any --patience 300ms"));
    assert_eq!(figures["checks"]["lost"], 1, "an echo says nothing first: {figures}");
}

/// Kills: a second server whose sessions go to the first; frames that no user sends, which are sent as text; a mark before the text.
#[test]
fn recordings_of_several_servers_and_with_what_cannot_be_played() {
    let servers = [serve_noting(), serve_noting()];
    let message =
        |kind: &str, opcode: i32, data: &str| json!({"type": kind, "time": 5.0, "opcode": opcode, "data": data});
    let entry = |server: usize, path: &str| {
        let messages = json!([
            message("send", 9, ""),
            message("send", 1, "hello"),
            message("receive", 1, "hello"),
            message("receive", 10, ""),
            message("receive", 8, ""),
            message("error", -1, "net::ERR_CONNECTION_RESET"),
        ]);
        json!({"request": {"url": format!("ws://{}/{path}", servers[server].0)}, "_webSocketMessages": messages})
    };
    let har = json!({"log": {"entries": [entry(0, "a"), entry(1, "b"), entry(0, "c"), entry(1, "d"), entry(1, "e")]}});
    let file = File::new("two.har", &format!("\u{feff}{har}"));
    let told = "20 of 30 recorded messages cannot be played, and are left out: 15 control frames, 5 of type";
    let paths = |server: usize| {
        let mut noted = servers[server].1.lock().expect("held briefly");
        let mut paths: Vec<String> = noted.drain(..).map(|(path, _)| path).collect();
        paths.sort();
        paths
    };
    for options in ["", "--threads 2 --match exact"] {
        let figures = play(0, "replay", &file, options);
        assert_eq!((paths(0), paths(1)), (vec!["/a".into(), "/c".into()], vec!["/b".into(), "/d".into(), "/e".into()]));
        assert_eq!((&figures["published"], &figures["messages"]), (&5.into(), &5.into()), "{figures:#}");
        assert!(figures["warnings"][0].as_str().is_some_and(|text| text.starts_with(told)), "{}", figures["warnings"]);
        let ready: Vec<_> = figures["targets"].as_array().expect("a list").iter().map(|row| &row["ready"]).collect();
        assert_eq!(ready, [2, 3]);
    }
    // Who says where to, says so of all.
    let figures = play(0, "replay", &file, &format!("--url ws://{}", servers[1].0));
    assert_eq!((paths(0).len(), paths(1).len()), (0, 5), "{figures:#}");
    let options = format!("--url ws://{} --url ws://{}", servers[0].0, servers[1].0);
    play(0, "replay", &file, &options);
    assert_eq!((paths(0).len(), paths(1).len()), (3, 2), "dealt out in turn");
    // The mark may stand before other texts, too.
    let rows = File::new("rows.csv", "\u{feff}name\nkim\n");
    let text = format!(
        "\u{feff}url = \"ws://{}\"\nconnections = 1\nduration = \"100ms\"\n[[users]]\ncsv = \"{}\"\npath = \"/{{name}}\"\n\
         steps = [{{ think = 1 }}]\n",
        servers[0].0,
        rows.0.file_name().expect("a file").to_string_lossy()
    );
    play(0, "run", &File::new("marked.toml", &text), "");
    assert_eq!(paths(0), ["/kim"]);
}

#[test]
fn what_cannot_be_played_is_told_before_anything_is() {
    let file = File::new("empty.toml", "[[users]]\nsteps = [{ think = 1 }]\n");
    let no_url = output("run", &file, "");
    let text = String::from_utf8_lossy(&no_url.stderr);
    assert!(no_url.status.code() == Some(2) && text.contains("has a URL"), "{text}");
    let wrong = File::new("wrong.toml", "[[users]]\nsteps = [{ send = \"{rom}\", think = \"1s\" }]\n");
    let text = String::from_utf8_lossy(&output("run", &wrong, "--url ws://127.0.0.1:1/").stderr).into_owned();
    assert!(text.contains("wrong.toml") && text.contains("no such variable"), "{text}");
    let header = File::new("header.toml", "[[users]]\nheaders = { \"a b\" = \"c\" }\n");
    let text = String::from_utf8_lossy(&output("run", &header, "--url ws://127.0.0.1:1/").stderr).into_owned();
    assert!(text.contains("no name of a header field"), "{text}");
    let text = String::from_utf8_lossy(&output("replay", &file, "").stderr).into_owned();
    assert!(text.contains("not JSON"), "{text}");
}
