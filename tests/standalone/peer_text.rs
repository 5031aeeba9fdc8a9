//! What a peer wrote comes back short, and costs what it is long.

use serde_json::Value;
use tungstenite::Message;

use crate::common::{TestServer, config};
use crate::{User, ask_with};

/// Bytes of an error, whatever it is about: our own words, and 64 characters of a peer's with their escapes.
const ERROR_BYTES_MAX: usize = 500;

/// Texts that are long, and become longer when they are escaped without a bound.
fn long_texts() -> Vec<String> {
    let times = |text: &str| text.repeat((1 << 20) / text.len());
    vec![times("x"), times("\u{7f}"), times("\u{202e}"), times("🦀"), times(r"\u0000"), times(r"\\"), times(r#"\""#)]
}

#[test]
fn an_error_event_is_short_and_on_one_line() {
    let server = TestServer::new();
    let mut user = User::new(&server);
    user.join("den");
    for text in long_texts() {
        for (event, quotes) in [
            (format!(r#"{{"event":"{text}"}}"#), true),
            (format!(r#"{{"event":"join","data":{{"room":"{text}"}}}}"#), false),
            (format!(r#"{{"event":"leave","data":{{"room":"{text}"}}}}"#), true),
            (format!(r#"{{"event":"typing","data":{{"room":"{text}"}}}}"#), true),
            (format!(r#"{{"event":"message","data":{{"room":"{text}","message":1}}}}"#), true),
            (format!(r#"{{"event":"join","data":"{text}"}}"#), false),
            (format!(r#"{{"event":"join","data":{{"{text}":1}}}}"#), false),
            (format!(r#"{{"event":["{text}"]}}"#), false),
            (format!(r#"{{"{text}":1}}"#), false),
            (format!(r#""{text}""#), false),
            (text.clone(), false),
        ] {
            user.send(&event);
            let Ok(Message::Text(answer)) = user.client.read() else { panic!("no event") };
            let start: String = event.chars().take(60).collect();
            assert!(answer.len() <= ERROR_BYTES_MAX, "{} bytes for {start}", answer.len());
            let answer: Value = serde_json::from_str(&answer).expect("JSON");
            assert_eq!(answer["event"], "error", "{start}");
            let message = answer["data"]["message"].as_str().expect("a text");
            assert!(!message.chars().any(char::is_control), "{message}");
            assert_eq!(message.contains('…'), quotes, "{message}");
            if let Some((_, quoted)) = message.split_once('"').filter(|_| quotes) {
                let quoted = quoted.rsplit_once('"').expect("the other mark").0;
                assert!(quoted.chars().count() <= 64, "{quoted}");
            }
        }
    }
    user.has_nothing_more();
}

#[test]
fn an_error_of_http_is_short_and_on_one_line() {
    let server = TestServer::with(config().max_body(16 << 20).max_head(64 << 10));
    let user = User::new(&server);
    let data = format!("/api/ws/connections/{}/data", user.id);
    let long = "%7F".repeat(4 << 10);
    let mut cases = vec![
        ("GET", format!("/api/{long}"), String::new()),
        ("POST", format!("/api/message/{long}"), "1".to_owned()),
        ("POST", format!("/api/rooms/{long}"), r#"{"event":"x"}"#.to_owned()),
        ("GET", format!("/api/ws/connections?limit={long}"), String::new()),
        ("DELETE", format!("/api/ws/connections/{long}"), String::new()),
        ("GET", format!("/rooms/{long}"), String::new()),
    ];
    for text in long_texts() {
        cases.push(("POST", "/api/broadcast".to_owned(), format!(r#"{{"event":["{text}"]}}"#)));
        cases.push(("POST", "/api/broadcast".to_owned(), format!(r#"{{"{text}":1}}"#)));
        cases.push(("POST", "/api/rooms/x".to_owned(), format!(r#""{text}""#)));
        cases.push(("PUT", data.clone(), format!(r#"["{text}" "{text}"]"#)));
        cases.push(("PUT", data.clone(), text));
    }
    for (method, path, body) in cases {
        let response = ask_with(&server, method, &path, &[], &body);
        let what = format!("{method} {} of {} bytes", &path[..path.len().min(40)], body.len());
        assert!((400..=426).contains(&response.status), "{what}: {}", response.status);
        assert!(response.head.len() + response.body.len() <= 2 * ERROR_BYTES_MAX, "{what}: {response:?}");
        let answer: Value = serde_json::from_str(&response.body).expect("JSON");
        let error = answer["error"].as_str().expect("a text");
        assert!(!error.chars().any(char::is_control), "{what}: {error}");
    }
}

/// Each of these would take hours if the time grew with the square of the length.
#[test]
fn an_event_costs_what_it_is_long() {
    let server = TestServer::new();
    let mut user = User::new(&server);
    let times = |text: &str| text.repeat((7 << 20) / text.len());
    let nested = |open: &str, close: &str| format!("{}1{}", times(open), close.repeat((7 << 20) / open.len()));
    for (event, answer) in [
        (format!(r#"{{"event":"{}"}}"#, times("x")), "error"),
        (format!(r#"{{"event":"{}"}}"#, times(r"\u0041")), "error"),
        (format!(r#"{{"event":"ping","data":"{}"}}"#, times(r"\ud83e\udd80")), "pong"),
        (format!(r#"{{"event":"ping","data":{}1}}"#, times(" \n")), "pong"),
        (format!(r#"{{"event":"ping","data":{}}}"#, times("7")), "pong"),
        (format!(r#"{{{}"event":"ping"}}"#, times(r#""key":{"a":1},"#)), "pong"),
        (format!(r#"{{"event":"ping","data":{{{}"a":1}}}}"#, times(r#""key":1,"#)), "pong"),
        (format!(r#"{{"event":"ping","data":{}}}"#, nested("[", "]")), "error"),
        (format!(r#"{{"event":"ping","data":{}}}"#, nested(r#"{"a":"#, "}")), "error"),
        (format!(r#"{{"event":"ping","more":{}}}"#, nested("[", "]")), "pong"),
        (format!(r#"{{"event":{}"#, times("[")), "error"),
        (times(r#"{"event":"#), "error"),
    ] {
        let len = event.len();
        user.send(&event);
        let Ok(Message::Text(text)) = user.client.read() else { panic!("no event") };
        assert!(text.starts_with(&format!(r#"{{"event":"{answer}""#)), "{}", &event[..40]);
        assert!(text.len() <= len, "{} bytes for {len}", text.len());
    }
}
