//! docs/http_api.md: what it says is asked is asked, and what it says is answered is answered.

use std::process::Command;

use serde_json::Value;

use crate::User;
use crate::common::TestServer;

const PAGE: &str = include_str!("../../docs/http_api.md");

/// The commands of the blocks in that language, each with the lines that follow it.
fn commands(language: &str) -> Vec<(String, String)> {
    let mut commands: Vec<(String, String)> = Vec::new();
    let start = format!("```{language}\n");
    let blocks = PAGE.split(&start).skip(1);
    for line in blocks.flat_map(|block| block.split("```").next().unwrap_or_default().lines()) {
        match line.strip_prefix("$ ") {
            Some(command) => commands.push((command.to_owned(), String::new())),
            None => {
                let (command, answer) = commands.last_mut().expect("a command comes first");
                let is_continued = command.ends_with('\\');
                let to = if is_continued { command } else { answer };
                to.push_str(&format!("\n{line}"));
            }
        }
    }
    commands.into_iter().map(|(command, answer)| (command, answer.trim().to_owned())).collect()
}

/// Whether the text is the pattern, in which an ellipsis stands for anything.
fn is_like(text: &str, pattern: &str) -> bool {
    let mut parts = pattern.split('…');
    let Some(mut rest) = text.strip_prefix(parts.next().unwrap_or_default()) else { return false };
    let mut last = None;
    for part in parts {
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
        last = Some(part);
    }
    rest.is_empty() || last == Some("")
}

#[test]
fn patterns() {
    for (text, pattern, want) in [
        ("abc", "abc", true),
        ("abc", "ab", false),
        ("abc", "a…c", true),
        ("abc", "a…", true),
        ("abc", "…b", false),
        ("abc", "x…", false),
    ] {
        assert_eq!(is_like(text, pattern), want, "{text} {pattern}");
    }
}

#[test]
fn curl_is_answered_as_the_page_says() {
    if Command::new("curl").arg("--version").output().is_err() {
        eprintln!("curl is not installed: the page's commands are not tested");
        return;
    }
    let server = TestServer::new();
    let mut user = User::new(&server);
    user.join("lobby");
    let all = commands("console");
    assert!(all.len() > 10);
    for (command, answer) in all {
        let command = command.replace("127.0.0.1:9001", &server.address.to_string());
        let output = Command::new("sh").args(["-c", &command]).env("ID", &user.id).output().expect("a shell");
        let text = String::from_utf8(output.stdout).expect("UTF-8");
        let text = text.trim().replace("\r\n", "\n");
        assert!(is_like(&text, &answer), "{command}\nis answered\n{text}\nand not\n{answer}");
    }
    // What was sent to it has come, in order.
    let mut heard = Vec::new();
    loop {
        let (event, data) = user.next();
        heard.push(event.clone());
        if event == "disconnect" {
            assert_eq!(data["reason"], "Admin action");
            break;
        }
    }
    let to_one = ["private-message"; 2];
    let due = [&["maintenance", "broadcast", "news", "goal"][..], &to_one, &["score", "hint", "disconnect"]].concat();
    assert_eq!(heard, due);
}

/// Each event that the page shows a client to send is answered by those that it shows.
#[test]
fn events_are_answered_as_the_page_says() {
    let server = TestServer::new();
    let mut user = User::new(&server);
    let mut other = User::new(&server);
    other.join("lobby");
    let (_, table) = PAGE.split_once("| a client sends | it is answered |").expect("a table");
    let rows: Vec<[&str; 2]> = table
        .lines()
        .skip(2)
        .map_while(|line| {
            let mut cells = line.strip_prefix("| ")?.strip_suffix(" |")?.split(" | ");
            Some([cells.next()?, cells.next()?])
        })
        .collect();
    assert!(rows.len() >= 6);
    for [sent, answered] in rows {
        user.send(sent.trim_matches('`'));
        if answered == "nothing" {
            user.has_nothing_more();
            continue;
        }
        let (event, data) = user.next();
        let told = serde_json::json!({ "event": event, "data": data });
        let want: Value = serde_json::from_str(&answered.trim_matches('`').replace(":…", ":\"…\"")).expect("JSON");
        assert!(resembles(&told, &want), "{sent} is answered {told} and not {want}");
    }
}

/// Whether a value is the other, in which an ellipsis stands for anything.
fn resembles(value: &Value, pattern: &Value) -> bool {
    match (value, pattern) {
        (_, Value::String(text)) if text == "…" => true,
        (Value::String(text), Value::String(pattern)) => is_like(text, pattern),
        (Value::Object(value), Value::Object(pattern)) => {
            value.len() == pattern.len()
                && value.iter().all(|(key, value)| pattern.get(key).is_some_and(|pattern| resembles(value, pattern)))
        }
        (value, pattern) => value == pattern,
    }
}
