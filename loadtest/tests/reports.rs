//! Reports: of several rounds, as files, and held against each other.

mod common;

use std::{
    net::TcpListener,
    path::Path,
    sync::atomic::{AtomicU64, Ordering},
    thread,
    time::Duration,
};

use common::{program, run, run_on, scratch, serve, serve_echo};
use serde_json::{Value, json};
use tungstenite::{
    Message,
    protocol::{CloseFrame, frame::coding::CloseCode},
};

/// Kills: rounds of which only the last is reported; a limit that is never exceeded.
#[test]
fn rounds_have_medians_and_limits_are_kept_between_reports() {
    let fast = serve_echo(|_, message| vec![message]);
    let slow = serve_echo(|_, message| {
        thread::sleep(Duration::from_millis(40));
        vec![message]
    });
    let (a, b) = (scratch("a.json"), scratch("b.json"));
    let (junit, summary) = (scratch("junit.xml"), scratch("summary.md"));
    for (addr, path) in [(fast, &a), (slow, &b)] {
        let options = format!(
            "--connections 1 --warmup 0 --count 20 --rounds 3 --json {} --junit {} --summary {} --slo p50<20ms",
            path.display(),
            junit.display(),
            summary.display()
        );
        let output = run_on("echo", &format!("ws://{addr}/"), &options);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert_eq!(output.status.code(), Some(if addr == fast { 0 } else { 3 }), "{text}");
        assert!(text.contains("rounds         3:") && text.contains("latency p50"), "{text}");
        let xml = std::fs::read_to_string(&junit).expect("written");
        assert_eq!(xml.contains("<failure"), addr == slow, "{xml}");
    }
    let figures: Value = serde_json::from_slice(&std::fs::read(&b).expect("written")).expect("JSON");
    let range = &figures["ranges"]["/latency_us/p50"];
    let median = figures["latency_us"]["p50"].as_f64();
    assert!(figures["rounds"] == 3 && range[0].as_f64() <= median && median <= range[1].as_f64(), "{range}");
    let diff = |a, b, limits: &str| {
        let output = program().arg("diff").args([a, b]).args(["--fail-on", limits, "--summary"]).arg(&summary).output();
        let output = output.expect("it starts");
        (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let (code, text) = diff(&a, &b, "p50=+10%,lost=+0%");
    assert!(code == Some(3) && text.contains("limit p50=+10%: EXCEEDED") && text.contains("worse"), "{text}");
    let (code, text) = diff(&b, &a, "p50=+10%,lost=+0%");
    assert!(code == Some(0) && text.contains("limit p50=+10%: met") && text.contains("better"), "{text}");
    assert_eq!(diff(&a, &b, "p98=+1%").0, Some(2));
    let markdown = std::fs::read_to_string(&summary).expect("written");
    assert_eq!(markdown.matches("### Load test: ").count(), 4, "each is appended: {markdown}");
    [a, b, junit, summary].into_iter().for_each(|path| std::fs::remove_file(path).expect("ours"));
}

/// Kills: one round that cannot be made, for which all others are thrown away.
#[test]
fn rounds_that_were_made_are_reported_whatever_the_next_comes_to() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let addr = listener.local_addr().expect("bound");
    let server = thread::spawn(move || {
        let mut listener = Some(listener);
        for is_last in [false, true] {
            let (stream, _) = listener.as_ref().expect("still open").accept().expect("accepted");
            if is_last {
                listener = None;
            }
            let mut socket = tungstenite::accept(stream).expect("a handshake");
            while let Ok(message) = socket.read() {
                if message.is_text() && socket.send(message).is_err() {
                    break;
                }
            }
        }
    });
    let figures =
        run(1, "echo", &format!("ws://{addr}/"), "--connections 1 --warmup 0 --count 20 --rounds 5 --patience 1");
    server.join().expect("no panic");
    assert_eq!([&figures["rounds"], &figures["rounds_asked"], &figures["messages"]], [2, 5, 40]);
    let told = figures["problem_kinds"]["round_missing"].to_string();
    assert!(told.contains("\"count\":3") && told.contains("2 of 5 rounds were made: no connection could"), "{told}");
    assert!(told.contains("refused") && figures["passed"] == false, "{told}");
}

/// Kills: close codes, errors and ends of which only the last round is told.
#[test]
fn what_went_wrong_in_any_round_is_told() {
    let number = AtomicU64::new(0);
    let addr = serve(move |stream| {
        let is_first = number.fetch_add(1, Ordering::Relaxed) == 0;
        let Ok(mut socket) = tungstenite::accept(stream) else { return };
        while let Ok(message) = socket.read() {
            let answer = match message {
                message if !message.is_text() => continue,
                _ if is_first => Message::Close(Some(CloseFrame { code: CloseCode::Error, reason: "".into() })),
                message => message,
            };
            if socket.send(answer).is_err() {
                return;
            }
        }
    });
    let figures =
        run(1, "echo", &format!("ws://{addr}/"), "--connections 2 --warmup 0 --count 20 --rounds 2 --patience 1");
    assert_eq!(figures["rounds"], 2);
    assert_eq!(figures["close_codes"], json!({"1000": 3, "1011": 1}), "{figures}");
    assert_eq!((&figures["ends"], &figures["connections"]["failed"]), (&json!({"closed": 3, "failed": 1}), &json!(1)));
    assert_eq!((&figures["connections"]["wanted"], &figures["connections"]["ready"]), (&json!(2), &json!(2)));
}

/// Kills: a long run of which the report cannot be written; an error that does not say which file.
#[test]
fn what_cannot_be_written_is_told_before_the_run() {
    let number = std::sync::Arc::new(AtomicU64::new(0));
    let count = number.clone();
    let addr = serve(move |stream| {
        count.fetch_add(1, Ordering::Relaxed);
        drop(stream);
    });
    let url = format!("ws://{addr}/");
    let told =
        |output: std::process::Output| (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned());
    for option in ["--json", "--html", "--hdr-log", "--junit", "--summary"] {
        let (code, error) = told(run_on("echo", &url, &format!("--connections 1 {option} /nowhere/report")));
        assert_eq!((code, number.load(Ordering::Relaxed)), (Some(2), 0), "{error}");
        assert!(error.contains(&format!("{option} /nowhere/report: No such file")), "{error}");
    }
    for option in ["--junit", "--summary"] {
        let (code, error) =
            told(program().args(["diff", "a.json", "b.json", option, "/nowhere/report"]).output().expect("it starts"));
        assert!(code == Some(2) && error.contains(&format!("{option} /nowhere/report: No such file")), "{error}");
    }
    // One that turns out to be full takes nothing from the others.
    let addr = serve_echo(|_, message| vec![message]);
    let json = scratch("kept.json");
    let options =
        format!("--connections 1 --warmup 0 --count 5 --html /dev/full --json {} --junit /dev/full", json.display());
    let (code, error) = told(run_on("echo", &format!("ws://{addr}/"), &options));
    assert!(code == Some(2) && error.contains("--html /dev/full: No space"), "{error}");
    assert!(error.contains("--junit /dev/full: No space") && json.is_file(), "{error}");
    std::fs::remove_file(&json).expect("ours");
    // Nor does it where nobody reads the report.
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    let options = format!("--connections 1 --warmup 0 --count 5 --json {}", json.display());
    let mut command = program();
    command.args(["echo", "-q", &format!("ws://{addr}/")]).args(options.split_whitespace()).stdout(writer);
    let (code, error) = told(
        command
            .stderr(std::process::Stdio::piped())
            .spawn()
            .and_then(|child| child.wait_with_output())
            .expect("it starts"),
    );
    assert!(code == Some(2) && error.contains("standard output: Broken pipe") && json.is_file(), "{error}");
    std::fs::remove_file(json).expect("ours");
}

/// Kills: runs of other settings that are compared without a word, and limits that are judged by them.
#[test]
fn reports_are_compared_like_for_like() {
    let addr = serve_echo(|_, message| vec![message]);
    let [one, same, more, other] = ["one", "same", "more", "other"].map(|name| scratch(&format!("{name}.json")));
    let (junit, summary) = (scratch("diff.xml"), scratch("diff.md"));
    for (path, scenario, options) in [
        (&one, "echo", "--connections 1 --warmup 0 --count 20 --size 64"),
        (&same, "echo", "--connections 1 --warmup 0s --count 20 --text"),
        (&more, "echo", "--connections 2 --warmup 0 --count 20 --size 1KiB"),
        (&other, "connect", "--connections 1"),
    ] {
        let url = format!("ws://{addr}/");
        assert!(run_on(scenario, &url, &format!("{options} --json {}", path.display())).status.success());
    }
    let diff = |a: &Path, b: &Path, options: &str| {
        let _ = std::fs::remove_file(&summary);
        let mut command = program();
        command.arg("diff").args([a, b]).args(options.split_whitespace());
        let output = command.arg("--junit").arg(&junit).arg("--summary").arg(&summary).output().expect("it starts");
        let read = |path: &Path| std::fs::read_to_string(path).unwrap_or_default();
        let text = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8_lossy(&text).into_owned(), read(&junit), read(&summary))
    };
    const LIMIT: &str = "--fail-on p50=+100000%,lost=+0%";
    let (code, text, xml, markdown) = diff(&one, &same, LIMIT);
    assert!(code == Some(0) && !text.contains("like for like"), "{text}");
    assert!(!xml.contains("like for like") && !markdown.contains("like for like"), "{xml}{markdown}");
    const UNLIKE: &str = "not like for like: connections 1 -> 2, size 64 -> 1KiB";
    for (options, expected) in
        [("", 0), (LIMIT, 2), ("--fail-on p50=+100000% --anyway", 0), ("--fail-on rate=-100% --anyway", 0)]
    {
        let (code, text, xml, markdown) = diff(&one, &more, options);
        assert_eq!(code, Some(expected), "{options}: {text}");
        assert!(text.starts_with(UNLIKE) && text.contains("latency p50"), "{text}");
        assert!(xml.contains(&UNLIKE.replace('>', "&gt;")), "{xml}");
        assert!(markdown.contains(&format!("> ⚠️ {}", UNLIKE.replace('>', "\\>"))), "{markdown}");
        assert_eq!(xml.contains("<failure"), expected == 2, "{xml}");
        assert_eq!(text.contains("--anyway"), expected == 2, "{text}");
    }
    let (code, text, ..) = diff(&one, &other, "");
    assert!(code == Some(2) && text.contains("A is of \"echo\", B of \"connect\""), "{text}");
    std::fs::write(&other, "{}").expect("ours");
    let (code, text, ..) = diff(&one, &other, "");
    let named = format!("{}: no report of --json: it has no tool", other.display());
    assert!(code == Some(2) && text.contains(&named), "{text}");
    // What is an error writes no file.
    assert!(!summary.exists());
    [one, same, more, other, junit].into_iter().for_each(|path| std::fs::remove_file(path).expect("ours"));
}
