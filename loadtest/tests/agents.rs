//! Several generators as one: real agents on the loopback network, led by the program, against ringwire's own routes.

mod common;

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    process::{Child, Command, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

use common::{Noted, Ringwire, assert_accounted, program, scratch, serve, serve_noting};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use ringwire::config::Deflate;
use serde_json::{Value, json};
use tungstenite::{Message, WebSocket, client::IntoClientRequest, stream::MaybeTlsStream};

const TOKEN: &str = "RINGWIRE_LOADTEST_TOKEN";
/// What must happen at last; the machine may be busy.
const PATIENCE: Duration = Duration::from_secs(90);

/// An agent; ended when dropped.
struct Agent {
    child: Child,
    address: String,
}

impl Agent {
    fn start(options: &str) -> Agent {
        Agent::with(program().env_remove(TOKEN), options)
    }

    fn with(program: &mut Command, options: &str) -> Agent {
        let mut child = program
            .args(["agent", "-q"])
            .args(if options.contains("--listen") { &[][..] } else { &["--listen", "127.0.0.1:0"] })
            .args(options.split_whitespace())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("it starts");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("piped")).read_line(&mut line).expect("a line");
        let address = line.trim().strip_prefix("agent listening on ").unwrap_or_else(|| panic!("{line}")).to_owned();
        Agent { child, address }
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id() as i32), signal).expect("ours");
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn names(agents: &[&Agent]) -> String {
    agents.iter().map(|agent| agent.address.as_str()).collect::<Vec<_>>().join(",")
}

/// Leads a run, with this as standard input, and returns what came of it and the figures, if there are some.
fn lead_with(input: &str, command: &str, options: &str, agents: &[&Agent]) -> (Output, Value) {
    let json = scratch("figures.json");
    let mut child = program()
        .env_remove(TOKEN)
        .args([command, "-q", "--agents", &names(agents), "--json"])
        .arg(&json)
        .args(options.split_whitespace())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it starts");
    child.stdin.take().expect("piped").write_all(input.as_bytes()).expect("read");
    let output = child.wait_with_output().expect("ours");
    let figures = std::fs::read(&json).map(|bytes| serde_json::from_slice(&bytes).expect("JSON")).unwrap_or_default();
    let _ = std::fs::remove_file(json);
    (output, figures)
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr].concat()).into_owned()
}

/// Leads a run that must end with this code.
fn lead(code: i32, command: &str, options: &str, agents: &[&Agent]) -> Value {
    let (output, figures) = lead_with("", command, options, agents);
    assert_eq!(output.status.code(), Some(code), "{command} {options}\n{}", text(&output));
    if !figures.is_null() {
        assert_accounted(&figures);
    }
    figures
}

/// Leads a run that cannot be made, and must say why.
fn refused(command: &str, options: &str, agents: &[&Agent], why: &str) {
    let (output, _) = lead_with("", command, options, agents);
    assert_eq!(output.status.code(), Some(2), "{}", text(&output));
    assert!(text(&output).contains(why), "{why} is not in {}", text(&output));
}

fn sum(figures: &Value, pointer: &str) -> u64 {
    let agents = figures["agents"].as_array().expect("agents");
    agents.iter().map(|agent| agent.pointer(pointer).and_then(Value::as_u64).unwrap_or_default()).sum()
}

fn total(table: &Value) -> u64 {
    table.as_object().expect("a table").values().filter_map(Value::as_u64).sum()
}

/// The whole is the sum of the agents' parts, and every connection has an end.
fn assert_adds_up(figures: &Value) {
    assert_eq!(figures["messages"], sum(figures, "/messages"), "{figures}");
    assert_eq!(figures["opened"], sum(figures, "/opened"), "{figures}");
    assert_eq!(figures["latency_us"]["count"], sum(figures, "/latency_us/count"), "{figures}");
    let ends: u64 = figures["agents"].as_array().expect("agents").iter().map(|agent| total(&agent["ends"])).sum();
    assert_eq!(total(&figures["ends"]), ends, "{figures}");
    let max = |row: &Value| row["latency_us"]["max"].as_f64().unwrap_or_default();
    let highest = figures["agents"].as_array().expect("agents").iter().map(max).fold(0.0, f64::max);
    assert!((max(figures) - highest).abs() < 1e-6, "{figures}");
    assert!(!figures["warnings"].to_string().contains("accounted for"), "{figures}");
}

/// Kills: a connection or a message that is lost in the division; an agent's histogram that is left out.
#[test]
fn two_agents_make_exactly_what_one_would() {
    let server = Ringwire::start(|config| config);
    let (a, b) = (Agent::start(""), Agent::start(""));
    let url = |path: &str| format!("--url ws://{}{path}", server.address);
    // What is counted, connections in all, and what each agent has of them.
    for (command, path, options, messages, connections, parts) in [
        ("echo", "/echo", "--connections 7 --pipeline 3 --count 301 --warmup 0", Some(301), 7, [4, 3]),
        ("echo", "/echo", "--connections 5 --threads 2 --rate 400 --count 101 --warmup 0", Some(101), 5, [3, 2]),
        ("connect", "/echo", "--connections 101 --ping --echo", Some(101), 101, [51, 50]),
        (
            "rooms",
            "/rooms/{room}",
            "--rooms 5 --members 3 --publishers 2 --count 101 --warmup 0",
            Some(303),
            15,
            [9, 6],
        ),
        ("rooms", "/rooms/{room}", "--rooms 3 --members 4 --rate 300 --duration 0.5 --threads 2", None, 12, [8, 4]),
    ] {
        let figures = lead(0, command, &format!("{} {options}", url(path)), &[&a, &b]);
        assert_adds_up(&figures);
        if let Some(messages) = messages {
            assert_eq!(figures["messages"], messages, "{command} {options}: {figures}");
        }
        let wanted = &figures["connections"];
        assert_eq!((&wanted["wanted"], &wanted["ready"]), (&json!(connections), &json!(connections)), "{figures}");
        let own = [0, 1].map(|agent| figures["agents"][agent]["connections"]["ready"].as_u64());
        assert_eq!(own, parts.map(Some), "{command} {options}");
        assert_eq!(total(&figures["ends"]), connections, "{figures}");
        assert_eq!(figures["problem_count"], 0);
    }
    // Sessions come and go.
    for (command, path, options, counted) in [
        ("churn", "/echo", "--users 5 --count 31 --words 2 --warmup 0", 31),
        ("emit", "/ws", "--connections 7 --posters 2 --count 51 --warmup 0", 51),
    ] {
        let figures = lead(0, command, &format!("{} {options}", url(path)), &[&a, &b]);
        assert_adds_up(&figures);
        assert_eq!(figures["messages"], counted, "{command}: {figures}");
        assert_eq!(figures["problem_count"], 0);
        if command == "emit" {
            let connections = &figures["connections"];
            assert_eq!((&connections["wanted"], &connections["ready"]), (&json!(11), &json!(11)), "{figures}");
        }
    }
    // One agent alone may do anything.
    let figures = lead(0, "broadcast", &format!("{} --subscribers 9 --count 20 --warmup 0", url("/broadcast")), &[&a]);
    assert_eq!((&figures["messages"], figures["agents"].as_array().map(Vec::len)), (&json!(200), Some(1)));
}

#[test]
fn they_begin_together_and_every_report_names_them() {
    let server = Ringwire::start(|config| config);
    let (a, b) = (Agent::start(""), Agent::start(""));
    let files = ["page.html", "junit.xml", "summary.md", "log.hlog"].map(scratch);
    let [html, junit, summary, log] = &files;
    let pid = std::process::id();
    let options = format!(
        "--url ws://{}/echo --connections 4 --rate 500 --duration 1 --warmup 0.2 --rounds 2 --server-pid {pid} --html {} --junit {} \
         --summary {} --hdr-log {} --slo lost=0,p99<60s",
        server.address,
        html.display(),
        junit.display(),
        summary.display(),
        log.display()
    );
    let (output, figures) = lead_with("", "echo", &options, &[&a, &b]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    let told = text(&output);
    assert_eq!(figures["rounds"], 2);
    // Threads of other tests come and go meanwhile: how much it is cannot be told.
    assert!(figures["server"]["cpu_us_per_message"].is_number(), "{figures}");
    assert!(figures["server"]["rss_bytes_open"].as_u64() > Some(0), "{figures}");
    for (agent, row) in [&a, &b].into_iter().zip(figures["agents"].as_array().expect("agents")) {
        assert_eq!(row["agent"], agent.address.as_str());
        // However busy this machine is, they do not begin seconds apart.
        assert!(row["began_late_us"].as_f64().is_some_and(|late| late < 5e6), "{row}");
        assert!(row["round_trip_us"].as_f64() > Some(0.0) && row["lag_us"]["count"].as_u64() > Some(0), "{row}");
        let name = agent.address.as_str();
        assert!(told.lines().any(|line| line.starts_with("agent ") && line.contains(name)), "{told}");
        for file in [html, junit, summary] {
            assert!(std::fs::read_to_string(file).expect("written").contains(name), "{}", file.display());
        }
    }
    let series = figures["series"]["messages_per_s"].as_array().expect("a series");
    assert!(series.len() > 3, "{series:?}");
    assert!(std::fs::read_to_string(log).expect("written").contains("HIST"));
    for file in files {
        std::fs::remove_file(file).expect("ours");
    }
}

fn paths(noted: &Noted) -> Vec<String> {
    noted.lock().expect("held briefly").iter().map(|(path, _)| path.clone()).collect()
}

/// Kills: users of two agents with the same row, number or room; a file that an agent looks for itself.
#[test]
fn files_travel_and_users_are_one_agents() {
    let (addr, noted) = serve_noting();
    let (a, b) = (Agent::start(""), Agent::start(""));
    let rows = scratch("users.csv");
    std::fs::write(&rows, "token\nann\nbob\ncat\ndan\neve\n").expect("written");
    let scenario = format!(
        r#"
        url = "ws://{addr}"
        agents = ["{}", "{}"]
        stages = [{{ duration = "0s", connections = 5 }}, {{ duration = "500ms", connections = 5 }}]
        [[users]]
        csv = "{}"
        path = "/{{token}}/{{user}}"
        strict = true
        steps = [{{ name = "say", send = "{{message}}", expect = "sent", think = "20ms" }}]
        "#,
        a.address,
        b.address,
        rows.display()
    );
    // Nobody but the leader has this file. That it names agents is enough.
    let json = scratch("figures.json");
    let mut child = program()
        .env_remove(TOKEN)
        .args(["run", "/dev/stdin", "-q", "--json"])
        .arg(&json)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it starts");
    child.stdin.take().expect("piped").write_all(scenario.as_bytes()).expect("read");
    let output = child.wait_with_output().expect("ours");
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    let figures: Value = serde_json::from_slice(&std::fs::read(&json).expect("written")).expect("JSON");
    assert_adds_up(&figures);
    // What came after the window was waited for, and is in the step's times alone.
    assert!(figures["steps"]["say"]["count"].as_u64() >= figures["messages"].as_u64(), "{figures}");
    let mut seen = paths(&noted);
    seen.sort();
    assert_eq!(seen, ["/ann/0", "/bob/1", "/cat/2", "/dan/3", "/eve/4"]);
    [rows, json].into_iter().for_each(|file| std::fs::remove_file(file).expect("ours"));
}

/// Kills: sessions that every agent plays, or none; a recording that an agent looks for itself.
#[test]
fn recordings_are_played_by_all_together() {
    let (addr, noted) = serve_noting();
    let (a, b) = (Agent::start(""), Agent::start(""));
    let message = |kind: &str, time: f64| json!({"type": kind, "time": time, "opcode": 1, "data": "hello"});
    let entry = |path: &str| {
        let messages = [message("send", 1.0), message("receive", 1.1), message("send", 1.2), message("receive", 1.3)];
        json!({"request": {"url": format!("ws://{addr}/{path}")}, "_webSocketMessages": messages})
    };
    let entries = ["a", "b", "c"].map(entry);
    let har = json!({"log": {"entries": entries}}).to_string();
    for (options, users, expected) in [
        ("", 3, vec!["/a", "/b", "/c"]),
        (
            "--connections 5 --repeat 2 --match exact",
            5,
            vec!["/a", "/a", "/a", "/a", "/b", "/b", "/b", "/b", "/c", "/c"],
        ),
    ] {
        noted.lock().expect("held briefly").clear();
        // Nobody but the leader has this file.
        let (output, figures) = lead_with(&har, "replay", &format!("/dev/stdin {options}"), &[&a, &b]);
        assert_eq!(output.status.code(), Some(0), "{options}: {}", text(&output));
        assert_adds_up(&figures);
        let mut seen = paths(&noted);
        seen.sort();
        assert_eq!(seen, expected, "{options}");
        let sessions = expected.len() as u64;
        assert_eq!((&figures["sessions"], &figures["messages"]), (&json!(sessions), &json!(2 * sessions)), "{figures}");
        let each = [0, 1].map(|agent| figures["agents"][agent]["messages"].as_u64().unwrap_or_default());
        assert!(each[0] > each[1] && each[1] > 0, "{users} users: {each:?}");
    }
}

#[test]
fn rooms_have_numbers_of_the_whole_run() {
    let (addr, noted) = serve_noting();
    let (a, b) = (Agent::start(""), Agent::start(""));
    // Nobody hears anybody here: what matters is who asked for which room.
    let options = format!("--url ws://{addr}/{{room}} --rooms 5 --members 2 --count 1 --warmup 0 --patience 500ms");
    let (_, figures) = lead_with("", "rooms", &options, &[&a, &b]);
    assert_eq!(figures["connections"]["ready"], 10, "{figures}");
    let mut seen = paths(&noted);
    seen.sort();
    let expected: Vec<String> = (0..10).map(|place| format!("/room-{}", place / 2)).collect();
    assert_eq!(seen, expected);
}

#[test]
fn tls_and_compression_are_as_the_leader_has_them() {
    let key = rcgen::KeyPair::generate().expect("a key");
    let params = rcgen::CertificateParams::new(vec!["127.0.0.1".to_owned()]).expect("a name");
    let certificate = params.self_signed(&key).expect("signed").pem();
    let files = ["cert.pem", "key.pem"].map(scratch);
    std::fs::write(&files[0], &certificate).expect("written");
    std::fs::write(&files[1], key.serialize_pem()).expect("written");
    let server = Ringwire::start(|config| {
        config
            .tls_cert([files[0].clone()].into_iter().collect())
            .tls_key([files[1].clone()].into_iter().collect())
            .deflate(Deflate::Dedicated)
    });
    let (a, b) = (Agent::start(""), Agent::start(""));
    let options = format!(
        "--url wss://{}/echo --connections 5 --count 100 --warmup 0 --size 1KiB --content json --deflate \
         --key-exchange secp256r1",
        server.address
    );
    // Only the leader can read it.
    let (output, figures) = lead_with(&certificate, "echo", &format!("{options} --ca /dev/stdin"), &[&a, &b]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    assert_adds_up(&figures);
    let tls = &figures["tls"];
    assert_eq!(
        tls["full"].as_u64().zip(tls["resumed"].as_u64()).map(|(full, resumed)| full + resumed),
        Some(5),
        "{tls}"
    );
    assert_eq!(tls["agreed"], json!({"TLSv1.3, secp256r1, TLS_AES_128_GCM_SHA256": 5}));
    assert_eq!(total(&figures["deflate"]["agreed"]), 5, "{figures}");
    assert!(figures["deflate"]["sent"]["messages"].as_u64() >= Some(100), "{figures}");
    // Recordings are played in the same way.
    let word = "the word is ".repeat(40);
    let message = |kind: &str, time: f64| json!({"type": kind, "time": time, "opcode": 1, "data": word});
    let entry = json!({
        "request": {"url": "ws://elsewhere/echo"}, "_webSocketMessages": [message("send", 1.0), message("receive", 1.1)],
    });
    let har = scratch("recorded.har");
    std::fs::write(&har, json!({"log": {"entries": [entry.clone(), entry]}}).to_string()).expect("written");
    let recorded = format!(
        "{} --url wss://{}/echo --match exact --connections 4 --deflate --ca /dev/stdin",
        har.display(),
        server.address
    );
    let (output, figures) = lead_with(&certificate, "replay", &recorded, &[&a, &b]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    assert_adds_up(&figures);
    assert_eq!((&figures["sessions"], total(&figures["tls"]["agreed"])), (&json!(4), 4), "{figures}");
    assert_eq!(figures["deflate"]["sent"]["messages"], 4, "{figures}");
    std::fs::remove_file(har).expect("ours");
    // Whoever trusts somebody else is told so, by the agents.
    let other = rcgen::CertificateParams::new(vec!["127.0.0.1".to_owned()]).expect("a name");
    let other = other.self_signed(&rcgen::KeyPair::generate().expect("a key")).expect("signed").pem();
    let (output, _) = lead_with(&other, "echo", &format!("{options} --ca /dev/stdin"), &[&a, &b]);
    assert_eq!(output.status.code(), Some(2), "{}", text(&output));
    assert!(text(&output).contains("no connection could be opened"), "{}", text(&output));
    files.into_iter().for_each(|file| std::fs::remove_file(file).expect("ours"));
}

/// Kills: a table that is read and not heeded, on this machine or by agents; one that goes before the command line.
#[test]
fn tls_is_as_the_scenario_file_has_it_unless_the_command_line_says_more() {
    let key = rcgen::KeyPair::generate().expect("a key");
    let params = rcgen::CertificateParams::new(vec!["127.0.0.1".to_owned()]).expect("a name");
    let [pem, key_file, scenario] = ["cert.pem", "key.pem", "wss.toml"].map(scratch);
    std::fs::write(&pem, params.self_signed(&key).expect("signed").pem()).expect("written");
    std::fs::write(&key_file, key.serialize_pem()).expect("written");
    let (secure, plain) = (
        Ringwire::start(|config| {
            config.tls_cert([pem.clone()].into_iter().collect()).tls_key([key_file.clone()].into_iter().collect())
        }),
        Ringwire::start(|config| config),
    );
    let file = format!(
        r#"
        url = "wss://{}/echo"
        stages = [{{ duration = "0s", connections = 4 }}, {{ duration = "300ms", connections = 4 }}]
        [tls]
        ca = "{}"
        key_exchange = ["secp384r1", "x25519"]
        no_resumption = true
        [[users]]
        steps = [{{ send = "{{message}}", expect = "sent", think = "20ms" }}]
        "#,
        secure.address,
        // It is looked for beside the scenario.
        pem.file_name().expect("a name").display(),
    );
    std::fs::write(&scenario, file).expect("written");
    let (a, b) = (Agent::start(""), Agent::start(""));
    for agents in [&[][..], &[&a, &b]] {
        for (options, agreed) in [
            ("", Some("secp384r1")),
            ("--key-exchange secp256r1", Some("secp256r1")),
            ("--insecure", Some("secp384r1")),
            // Without TLS there is nothing to say about it.
            (&format!("--url ws://{}/echo", plain.address), None),
        ] {
            let json = scratch("figures.json");
            let mut program = program();
            program.env_remove(TOKEN).args(["run", "-q", "--json"]).arg(&json).arg(&scenario);
            program.args(options.split_whitespace());
            if !agents.is_empty() {
                program.args(["--agents", &names(agents)]);
            }
            let output = program.output().expect("it starts");
            assert_eq!(output.status.code(), Some(0), "{options}\n{}", text(&output));
            let figures: Value = serde_json::from_slice(&std::fs::read(&json).expect("written")).expect("JSON");
            std::fs::remove_file(json).expect("ours");
            let Some(agreed) = agreed else {
                assert!(figures["tls"].is_null(), "{figures}");
                continue;
            };
            let told = format!("TLSv1.3, {agreed}, TLS_AES_128_GCM_SHA256");
            assert_eq!(figures["tls"]["agreed"], json!({told: 4}), "{options}: {}", figures["tls"]);
            assert_eq!((&figures["tls"]["full"], &figures["tls"]["resumed"]), (&json!(4), &json!(0)));
        }
    }
    // Who is trusted by the command line alone.
    let other = scratch("other.pem");
    let stranger = rcgen::CertificateParams::new(vec!["127.0.0.1".to_owned()]).expect("a name");
    let stranger = stranger.self_signed(&rcgen::KeyPair::generate().expect("a key")).expect("signed").pem();
    std::fs::write(&other, stranger).expect("written");
    let output = program().args(["run", "-q"]).arg(&scenario).arg("--ca").arg(&other).output().expect("it starts");
    assert!(output.status.code() != Some(0) && text(&output).contains("TLS: "), "{}", text(&output));
    [pem, key_file, scenario, other].into_iter().for_each(|file| std::fs::remove_file(file).expect("ours"));
}

/// A leader under way, whose messages flow.
struct Leader {
    child: Child,
    json: std::path::PathBuf,
    stderr: Option<thread::JoinHandle<String>>,
}

impl Leader {
    fn start(command: &str, options: &str, agents: &[&Agent]) -> Leader {
        let json = scratch("figures.json");
        let mut child = program()
            .env_remove(TOKEN)
            .args([command, "--agents", &names(agents), "--json"])
            .arg(&json)
            .args(options.split_whitespace())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("it starts");
        let mut lines = BufReader::new(child.stderr.take().expect("piped"));
        let mut told = String::new();
        let began = Instant::now();
        while !told.contains("measuring") {
            let read = lines.read_line(&mut told).expect("text");
            assert!(read > 0 && began.elapsed() < PATIENCE, "{told}");
        }
        let stderr = thread::spawn(move || {
            let _ = lines.read_to_string(&mut told);
            told
        });
        Leader { child, json, stderr: Some(stderr) }
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id() as i32), signal).expect("ours");
    }

    /// Waits for its end; exit code, standard error and figures.
    fn end(mut self) -> (Option<i32>, String, Value) {
        let began = Instant::now();
        let status = loop {
            match self.child.try_wait().expect("ours") {
                Some(status) => break status,
                None => assert!(began.elapsed() < PATIENCE, "it does not end"),
            }
            thread::sleep(Duration::from_millis(20));
        };
        let told = self.stderr.take().expect("once").join().expect("text");
        let figures =
            std::fs::read(&self.json).map(|bytes| serde_json::from_slice(&bytes).expect("JSON")).unwrap_or_default();
        (status.code(), told, figures)
    }
}

impl Drop for Leader {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_file(&self.json);
    }
}

/// Kills: a run that goes on, or passes, without one of its agents; one that is not named.
#[test]
fn a_dead_or_silent_agent_ends_the_run_and_is_named() {
    let server = Ringwire::start(|config| config);
    for (signal, why) in [(Signal::SIGKILL, "agent"), (Signal::SIGSTOP, "said nothing for 3 s")] {
        let (a, b) = (Agent::start(""), Agent::start(""));
        let options = format!(
            "--url ws://{}/echo --connections 6 --rate 200 --duration 600 --warmup 0 --patience 1 --agent-patience 3s \
             --rounds 3",
            server.address
        );
        let leader = Leader::start("echo", &options, &[&a, &b]);
        // What it says each second has come at least once since.
        thread::sleep(Duration::from_millis(2500));
        b.signal(signal);
        let (code, told, figures) = leader.end();
        assert_eq!(code, Some(1), "{signal}: {told}");
        let line =
            told.lines().find(|line| line.starts_with("ringwire-loadtest: agent ")).unwrap_or_else(|| panic!("{told}"));
        assert!(line.contains(&b.address) && line.contains(why), "{line}");
        let rows = figures["agents"].as_array().expect("agents");
        assert!(rows[0]["lost"].is_null() && rows[1]["lost"].is_string(), "{figures}");
        assert!(figures["messages"].as_u64() > Some(0), "{figures}");
        assert_eq!((&figures["messages"], &figures["passed"]), (&rows[0]["messages"], &json!(false)));
        assert_eq!((&figures["ends"]["unknown"], total(&figures["ends"])), (&json!(3), 6), "{figures}");
        assert!(figures["problems"][1].as_str().is_some_and(|first| first.contains(&b.address)), "{figures}");
        assert!(figures["warnings"].to_string().contains("1 of 2 agents are lost"), "{figures}");
        let missing = &figures["problem_kinds"]["round_missing"];
        assert!(missing["count"] == 2 && missing.to_string().contains("1 of 3 rounds was made: "), "{figures}");
        // The other is there for the next.
        lead_when_free(&format!("ws://{}/echo", server.address), &[&a]);
    }
}

/// Leads a short run as soon as the agents are free.
fn lead_when_free(url: &str, agents: &[&Agent]) -> Value {
    let began = Instant::now();
    loop {
        let options = format!("--url {url} --connections 2 --count 10 --warmup 0");
        let (output, figures) = lead_with("", "echo", &options, agents);
        if output.status.code() == Some(0) {
            return figures;
        }
        assert!(text(&output).contains("busy") && began.elapsed() < PATIENCE, "{}", text(&output));
        thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn agents_whose_leader_is_gone_stop_and_wait_for_the_next() {
    let server = Ringwire::start(|config| config);
    let url = format!("ws://{}/echo", server.address);
    let (a, b) = (Agent::start(""), Agent::start(""));
    let options = format!("--url {url} --connections 6 --rate 200 --duration 600 --warmup 0");
    let leader = Leader::start("echo", &options, &[&a, &b]);
    // Meanwhile nobody else may lead, and is told who does.
    refused("echo", &format!("--url {url} --connections 2 --count 1"), &[&b], "busy: led by 127.0.0.1:");
    leader.signal(Signal::SIGKILL);
    drop(leader);
    let figures = lead_when_free(&url, &[&a, &b]);
    assert_eq!(figures["messages"], 10);
    let began = Instant::now();
    while server.connections() > 0 {
        assert!(began.elapsed() < PATIENCE, "connections of the run are left");
        thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn an_interrupt_ends_all_with_a_report() {
    let server = Ringwire::start(|config| config);
    let url = format!("ws://{}/echo", server.address);
    let (a, b) = (Agent::start(""), Agent::start(""));
    let options = format!("--url {url} --connections 6 --rate 200 --duration 600 --warmup 0");
    let leader = Leader::start("echo", &options, &[&a, &b]);
    thread::sleep(Duration::from_millis(500));
    leader.signal(Signal::SIGINT);
    let (code, told, figures) = leader.end();
    assert_eq!(code, Some(0), "{told}");
    assert_adds_up(&figures);
    assert!(figures["messages"].as_u64() > Some(0), "{figures}");
    assert!(figures["warnings"].to_string().contains("interrupted"), "{figures}");
    lead_when_free(&url, &[&a, &b]);
}

/// Kills: a token that is not compared.
#[test]
fn a_token_is_asked_for_and_compared() {
    let server = Ringwire::start(|config| config);
    let options = format!("--url ws://{}/echo --connections 2 --count 10 --warmup 0", server.address);
    let agent = Agent::with(program().env(TOKEN, "secret-token"), "");
    refused("echo", &options, &[&agent], "it wants a token: set RINGWIRE_LOADTEST_TOKEN");
    for (token, code, why) in [
        ("secret-tokem", 2, "it wants another token"),
        ("secret-toke", 2, "it wants another token"),
        ("secret-token", 0, "messages"),
    ] {
        let output = program()
            .env(TOKEN, token)
            .args(["echo", "-q", "--agents", &agent.address])
            .args(options.split_whitespace())
            .output()
            .expect("it starts");
        assert_eq!(output.status.code(), Some(code), "{}", text(&output));
        assert!(text(&output).contains(why), "{why} is not in {}", text(&output));
        assert!(!text(&output).contains("secret-tok"), "{}", text(&output));
    }
    // Beyond this machine it listens with a token only.
    for listen in ["0.0.0.0:0", "[::]:0"] {
        let output = program().env_remove(TOKEN).args(["agent", "--listen", listen]).output().expect("it starts");
        assert_eq!(output.status.code(), Some(2), "{}", text(&output));
        assert!(text(&output).contains("set RINGWIRE_LOADTEST_TOKEN"), "{}", text(&output));
    }
    let open = Agent::with(program().env_remove(TOKEN), "--listen 0.0.0.0:0 --token other");
    assert!(open.address.starts_with("0.0.0.0:"));
}

type Socket = WebSocket<MaybeTlsStream<TcpStream>>;

fn say(socket: &mut Socket, order: &Value) {
    socket.send(Message::text(order.to_string())).expect("sent");
}

fn hear(socket: &mut Socket) -> Value {
    loop {
        let message = socket.read().expect("a message");
        if message.is_text() {
            let word: Value = serde_json::from_str(message.to_text().expect("text")).expect("JSON");
            if word.get("doing").is_none() {
                return word;
            }
        }
    }
}

/// Leads by hand, up to the agent's answer to this hello.
fn greet(agent: &Agent, hello: &Value) -> (Socket, Value) {
    let (mut socket, _) = tungstenite::connect(format!("ws://{}/", agent.address)).expect("an agent");
    assert!(hear(&mut socket)["hello"]["connections_max"].as_u64() > Some(0));
    say(&mut socket, &json!({"hello": hello}));
    let answer = hear(&mut socket);
    (socket, answer)
}

fn own_hello() -> Value {
    json!({"protocol": 2, "version": env!("CARGO_PKG_VERSION")})
}

#[test]
fn versions_must_be_the_same() {
    let agent = Agent::start("");
    for hello in
        [json!({"protocol": 1, "version": env!("CARGO_PKG_VERSION")}), json!({"protocol": 2, "version": "0.0.9"})]
    {
        let (_, answer) = greet(&agent, &hello);
        assert!(answer["refused"]["why"].as_str().is_some_and(|why| why.contains("both must be the same")), "{answer}");
    }
    let (_, answer) = greet(&agent, &own_hello());
    assert!(answer.get("welcome").is_some(), "{answer}");
    // And the other way about.
    let addr = serve(|stream| {
        let Ok(mut socket) = tungstenite::accept(stream) else { return };
        let _ = socket.send(Message::text(r#"{"hello":{"protocol":7,"version":"9.0.0","news":[]}}"#));
        while socket.read().is_ok() {}
    });
    let silent = serve(|stream| {
        let Ok(mut socket) = tungstenite::accept(stream) else { return };
        let _ = socket.send(Message::text("what?"));
        while socket.read().is_ok() {}
    });
    for (addr, why) in [(addr, "it is version 9.0.0 (protocol 7), this is version"), (silent, "what no agent says")] {
        let output = program()
            .args(["echo", "-q", "ws://127.0.0.1:1/", "--agents", &addr.to_string()])
            .output()
            .expect("it starts");
        assert_eq!(output.status.code(), Some(2), "{}", text(&output));
        assert!(text(&output).contains(why) && text(&output).contains(&addr.to_string()), "{}", text(&output));
    }
}

/// Kills: an agent that reads a file of its own for a leader; one that takes orders from a page.
#[test]
fn what_must_not_be_ordered_is_refused() {
    let agent = Agent::start("--max-connections 10");
    let plan =
        |arguments: Value| json!({"plan": {"part": {"agent": 0, "agents": 1}, "arguments": arguments, "files": []}});
    let (mut socket, _) = greet(&agent, &own_hello());
    for (arguments, why) in [
        (json!(["run", "/etc/hostname", "--url", "ws://127.0.0.1:1/"]), "it was not sent with the run"),
        (json!(["replay", "/etc/hostname", "--url", "ws://127.0.0.1:1/"]), "it was not sent with the run"),
        (json!(["echo", "wss://127.0.0.1:1/", "--ca", "/etc/hostname"]), "it was not sent with the run"),
        (json!(["echo", "ws://127.0.0.1:1/", "--connections", "11"]), "this agent takes 10 at most"),
        (json!(["echo", "ws://127.0.0.1:1/", "--connections", "0"]), "there must be connections"),
        (json!(["agent"]), "for no scenario"),
        (json!(["diff", "/etc/hostname", "/etc/hostname"]), "for no scenario"),
        (json!(["dance"]), "dance"),
    ] {
        say(&mut socket, &plan(arguments.clone()));
        let answer = hear(&mut socket);
        let told = answer["failed"]["why"].as_str().unwrap_or_default();
        assert!(told.contains(why), "{arguments}: {answer}");
    }
    let two =
        json!({"plan": {"part": {"agent": 2, "agents": 2}, "arguments": ["echo", "ws://127.0.0.1:1/"], "files": []}});
    say(&mut socket, &two);
    assert!(hear(&mut socket)["failed"]["why"].as_str().is_some_and(|why| why.contains("no such agent")));
    say(&mut socket, &json!({"dance": {}}));
    assert!(hear(&mut socket)["refused"]["why"].as_str().is_some_and(|why| why.contains("no order")));
    // A page's WebSocket says where it is from.
    let mut request = format!("ws://{}/", agent.address).into_client_request().expect("a request");
    request.headers_mut().insert("origin", "https://example.org".parse().expect("a value"));
    let Err(tungstenite::Error::Http(response)) = tungstenite::connect(request) else { panic!("not for pages") };
    assert_eq!(response.status(), 403);
}

#[test]
fn runs_that_agents_cannot_make_together_are_refused() {
    let (a, b) = (Agent::start(""), Agent::start("--max-connections 3"));
    let url = "--url ws://127.0.0.1:1/";
    let both = [&a, &b];
    refused("broadcast", url, &both, "everybody hears everybody");
    refused("slow", url, &both, "everybody hears everybody");
    refused("rooms", &format!("{url}{{room}} --rooms 1"), &both, "1 rooms are too few for 2 agents");
    refused("echo", &format!("{url} --connections 1"), &both, "1 connections are too few for 2 agents");
    refused("echo", &format!("{url} --connections 8"), &both, "its part is 4 connections, and it takes 3 at most");
    refused("echo", url, &[&a, &a], "is named twice");
    // An agent that cannot make its part says so.
    refused("echo", &format!("{url} --connections 4"), &both, ": no connection could be opened");
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("bound").to_string();
    let output = program().args(["echo", "-q", "--agents", &nobody]).args(url.split(' ')).output().expect("it starts");
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output).contains(&format!("agent {nobody}: ")), "{}", text(&output));
}
