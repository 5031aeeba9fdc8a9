//! Recorded sessions: the WebSockets of an HTTP archive (HAR), as browsers' developer tools save them. Each becomes a user who
//! sends the same at the same times and waits for as many messages. What no user can do again is left out, and counted by reason.

use std::{collections::BTreeMap, path::Path};

use data_encoding::BASE64;
use ringwire::{proto::Kind, quote::quoted};
use serde_json::Value;

use super::{Action, Role, Script, expect::Expected, stages::Stages, template::Template};
use crate::{
    files::{Files, without_mark},
    net::Nanos,
    target::Target,
};

/// How what comes is held against what came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Matching {
    /// A message, whatever it is.
    Any,
    /// The same fields of the same types, where it was JSON; else any message.
    Shape,
    /// The same bytes.
    Exact,
}

/// Recorded sessions, read.
#[derive(Clone, Debug)]
pub(crate) struct Recording {
    /// One of each server; roles say which is theirs.
    pub(crate) urls: Vec<String>,
    pub(crate) roles: Vec<Role>,
    pub(crate) names: Vec<String>,
    /// How long the longest took.
    pub(crate) lasted: Nanos,
    /// Messages that are there, and those of them that cannot be played, by what they are.
    messages: Left,
    /// The same of sessions.
    sessions: Left,
}

/// Things that were recorded, and those of them that are left out, by what they are.
#[derive(Clone, Debug, Default)]
struct Left {
    recorded: u64,
    out: BTreeMap<String, u64>,
}

impl Left {
    fn leave_out(&mut self, what: impl Into<String>) {
        *self.out.entry(what.into()).or_default() += 1;
    }

    fn is_all_out(&self) -> bool {
        self.recorded > 0 && self.out.values().sum::<u64>() == self.recorded
    }

    /// How many are left out, and why.
    fn told(&self, what: &str) -> Option<String> {
        let out: u64 = self.out.values().sum();
        let each: Vec<String> = self.out.iter().map(|(what, count)| format!("{count} {what}")).collect();
        (out > 0).then(|| {
            format!(
                "{out} of {} recorded {what} cannot be played, and are left out: {}",
                self.recorded,
                each.join(", ")
            )
        })
    }
}

/// The server of a URL: what stands before the path.
fn server(url: &str) -> &str {
    let from = url.find("://").map_or(0, |at| at + 3);
    url[from..].find(['/', '?']).map_or(url, |at| &url[..from + at])
}

impl Recording {
    /// Reads a file; `speed` 2 plays it in half the time.
    ///
    /// # Errors
    /// What is wrong.
    pub(crate) fn read(path: &Path, matching: Matching, speed: f64, files: &Files) -> Result<Recording, String> {
        let told = |error: String| format!("{}: {error}", path.display());
        let text = files.read(path).map_err(|error| told(error.to_string()))?;
        let har = serde_json::from_slice(without_mark(&text)).map_err(|error| told(format!("not JSON: {error}")))?;
        Recording::of(&har, matching, speed).map_err(told)
    }

    fn of(har: &Value, matching: Matching, speed: f64) -> Result<Recording, String> {
        let mut recording = Recording {
            urls: Vec::new(),
            roles: Vec::new(),
            names: Vec::new(),
            lasted: 0,
            messages: Left::default(),
            sessions: Left::default(),
        };
        for entry in har["log"]["entries"].as_array().into_iter().flatten() {
            let Some(messages) = entry["_webSocketMessages"].as_array() else { continue };
            recording.sessions.recorded += 1;
            match entry["request"]["url"].as_str().map(|url| (url, Target::check_url(url))) {
                None => recording.sessions.leave_out("without a URL"),
                Some((_, Err(why))) => recording.sessions.leave_out(format!("of which {why}")),
                Some((url, Ok(()))) => recording.add(url, messages, matching, speed),
            }
        }
        if recording.sessions.recorded == 0 {
            return Err("no WebSocket was recorded in it (no entry has _webSocketMessages)".to_owned());
        }
        match recording.sessions.is_all_out() || recording.messages.is_all_out() {
            true => Err(recording.told_of_skipped().join("; ")),
            false => Ok(recording),
        }
    }

    /// How many sessions and messages are left out, and why.
    pub(crate) fn told_of_skipped(&self) -> Vec<String> {
        [self.sessions.told("sessions"), self.messages.told("messages")].into_iter().flatten().collect()
    }

    fn add(&mut self, url: &str, messages: &[Value], matching: Matching, speed: f64) {
        let number = self.roles.len() + 1;
        let mut role = Role::idle(&format!("session {number}"));
        let path = url.split_once("://").and_then(|(_, rest)| rest.find(['/', '?']).map(|at| &rest[at..]));
        // RFC 9110 4.2.3: an empty path is "/".
        let slash = |path: &str| if path.starts_with('?') { "/" } else { "" };
        role.path = path.map(|path| Template::literal(&format!("{}{path}", slash(path))));
        let known = self.urls.iter().position(|known| server(known) == server(url));
        role.target = Some(known.unwrap_or(self.urls.len()));
        if known.is_none() {
            // Each session has its own path, in which a token may be.
            self.urls.push(server(url).to_owned());
        }
        let name = self.names.len();
        self.names.push(role.name.clone());
        let mut first = None;
        for message in messages {
            self.messages.recorded += 1;
            let (time, action) = match read(message, matching) {
                Ok(read) => read,
                Err(what) => {
                    self.messages.leave_out(what);
                    continue;
                }
            };
            let after = ((time - *first.get_or_insert(time)).max(0.0) / speed * 1e9) as Nanos;
            self.lasted = self.lasted.max(after);
            match action {
                Recorded::Sent(payload, kind) => {
                    role.begin.push(Action::At(after));
                    role.begin.push(Action::Send { payload, kind });
                }
                Recorded::Came(what) => role.begin.push(Action::Expect { name, what, within: None }),
            }
        }
        self.roles.push(role);
    }

    /// So many users play it, each so often.
    pub(crate) fn script(self, connections: usize, sessions: u64) -> Script {
        let mut roles = self.roles;
        roles.iter_mut().for_each(|role| role.rounds = Some(1));
        // It ends when they have: the stages say only how many they are.
        let stages = Stages::constant(connections, self.lasted.max(1));
        Script::new(roles, stages, self.names, Some(sessions))
    }
}

/// What a user has to do for a recorded message.
enum Recorded {
    Sent(Template, Kind),
    Came(Expected),
}

/// Reads a message, and when it went or came; or what it is that cannot be played.
fn read(message: &Value, matching: Matching) -> Result<(f64, Recorded), String> {
    let is_sent = match message["type"].as_str() {
        Some("send") => true,
        Some("receive") => false,
        other => return Err(format!("of type {}", quoted(other.unwrap_or_default()))),
    };
    let is_binary = match &message["opcode"] {
        Value::Null => false,
        opcode => match opcode.as_i64() {
            Some(1) => false,
            Some(2) => true,
            Some(8..=10) => return Err("control frames".to_owned()),
            _ => return Err(format!("with opcode {opcode}")),
        },
    };
    let kind = if is_binary { Kind::Binary } else { Kind::Text };
    let time = message["time"].as_f64().ok_or("without a time")?;
    let data = message["data"].as_str().ok_or("without data")?;
    let bytes = || payload(data, is_binary).ok_or("whose data are not Base64");
    let recorded = match (is_sent, matching, serde_json::from_str(data)) {
        (true, ..) => Recorded::Sent(bytes()?, kind),
        (false, Matching::Exact, _) => Recorded::Came(Expected::Equals(bytes()?)),
        (false, Matching::Shape, Ok(shape)) => Recorded::Came(Expected::Shape(shape)),
        _ => Recorded::Came(Expected::Any),
    };
    Ok((time, recorded))
}

/// What was sent: text as it is, binary data in Base64.
fn payload(data: &str, is_binary: bool) -> Option<Template> {
    match is_binary {
        false => Some(Template::literal(data)),
        true => BASE64.decode(data.as_bytes()).ok().map(Template::bytes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn har(messages: Value) -> Value {
        json!({"log": {"entries": [
            {"request": {"url": "https://example.org/page"}},
            {"request": {"url": "ws://example.org:9001/ws?x=1"}, "_webSocketMessages": messages},
        ]}})
    }

    #[test]
    fn a_recording_becomes_steps_at_its_times() {
        let messages = json!([
            {"type": "receive", "time": 100.0, "opcode": 1, "data": "{\"event\":\"connected\"}"},
            {"type": "send", "time": 100.5, "opcode": 1, "data": "hello {user}"},
            {"type": "receive", "time": 100.6, "opcode": 1, "data": "hello"},
            {"type": "send", "time": 102.0, "opcode": 2, "data": "AQID"},
        ]);
        for (matching, first, second) in [
            (Matching::Any, Expected::Any, Expected::Any),
            (Matching::Shape, Expected::Shape(json!({"event": "connected"})), Expected::Any),
            (
                Matching::Exact,
                Expected::Equals(Template::literal("{\"event\":\"connected\"}")),
                Expected::Equals(Template::literal("hello")),
            ),
        ] {
            let recording = Recording::of(&har(messages.clone()), matching, 2.0).expect("a recording");
            assert_eq!(
                (&recording.urls[..], recording.lasted),
                (&["ws://example.org:9001".to_owned()][..], 1_000_000_000)
            );
            let role = &recording.roles[0];
            assert_eq!(role.path, Some(Template::literal("/ws?x=1")));
            let [
                Action::Expect { what: one, .. },
                Action::At(250_000_000),
                Action::Send { payload, kind: Kind::Text },
                Action::Expect { what: two, .. },
                Action::At(1_000_000_000),
                Action::Send { payload: last, kind: Kind::Binary },
            ] = &role.begin[..]
            else {
                panic!("{:?}", role.begin)
            };
            assert_eq!((one, two), (&first, &second));
            // What was recorded has no variables.
            assert_eq!(payload, &Template::literal("hello {user}"));
            assert_eq!(last, &Template::bytes(vec![1, 2, 3]));
        }
    }

    /// Kills: one message that cannot be played, for which the whole file is refused; a ping that is played as text.
    #[test]
    fn what_cannot_be_played_is_left_out_and_counted() {
        let good = || json!({"type": "send", "time": 5.0, "opcode": 1, "data": "x"});
        for (message, why) in [
            (json!({"type": "error", "time": 1.0, "opcode": -1, "data": "net::ERR"}), "1 of type \"error\""),
            (json!({"time": 1.0, "opcode": 1, "data": "x"}), "1 of type \"\""),
            (json!({"type": "send", "time": 1.0, "opcode": -1, "data": "x"}), "1 with opcode -1"),
            (json!({"type": "receive", "time": 1.0, "opcode": 0, "data": "x"}), "1 with opcode 0"),
            (json!({"type": "send", "time": 1.0, "opcode": "text", "data": "x"}), "1 with opcode \"text\""),
            (json!({"type": "receive", "time": 1.0, "opcode": 8, "data": ""}), "1 control frames"),
            (json!({"type": "send", "time": 1.0, "opcode": 9, "data": ""}), "1 control frames"),
            (json!({"type": "receive", "time": 1.0, "opcode": 10, "data": ""}), "1 control frames"),
            (json!({"type": "send", "opcode": 1, "data": "x"}), "1 without a time"),
            (json!({"type": "receive", "time": 1.0, "opcode": 1}), "1 without data"),
            (json!({"type": "send", "time": 1.0, "opcode": 2, "data": "?"}), "1 whose data are not Base64"),
        ] {
            let recording = Recording::of(&har(json!([message, good()])), Matching::Any, 1.0).expect(why);
            let told = recording.told_of_skipped();
            assert_eq!(told, [format!("1 of 2 recorded messages cannot be played, and are left out: {why}")]);
            // What is left out has no part in the times either.
            assert_eq!((recording.roles[0].begin.len(), recording.lasted), (2, 0), "{why}");
            let error = Recording::of(&har(json!([message])), Matching::Any, 1.0).map(|_| ()).expect_err(why);
            assert!(error.contains("1 of 1 recorded messages cannot be played") && error.contains(why), "{error}");
        }
        let good = Recording::of(&har(json!([good()])), Matching::Any, 1.0).expect("a recording");
        assert!(good.told_of_skipped().is_empty());
        let none = Recording::of(&json!({}), Matching::Any, 1.0).map(|_| ());
        assert!(none.is_err_and(|error| error.contains("no WebSocket")));
    }

    /// Kills: one session that cannot be played, for which the whole file is refused without the place.
    #[test]
    fn a_session_without_a_url_of_websocket_is_left_out_and_counted() {
        let entry = |url: Value| json!({"request": {"url": url}, "_webSocketMessages": []});
        let scheme = "1 of which the URL must begin with ws:// or wss://";
        for (url, why) in [
            (json!("http://a/x?s3cret"), scheme),
            (json!(""), scheme),
            (Value::Null, "1 without a URL"),
            (json!("ws://kim:s3cret@a/"), "1 of which the URL has a user in it"),
            (json!("ws:///"), "1 of which the URL has no host"),
        ] {
            let both = json!({"log": {"entries": [entry(url.clone()), entry(json!("ws://a/"))]}});
            let recording = Recording::of(&both, Matching::Any, 1.0).expect(why);
            let told = recording.told_of_skipped().join("; ");
            assert!(told.starts_with("1 of 2 recorded sessions cannot be played") && told.contains(why), "{told}");
            assert_eq!((recording.roles.len(), &recording.urls[..]), (1, &["ws://a".to_owned()][..]), "{url}");
            let error = Recording::of(&json!({"log": {"entries": [entry(url)]}}), Matching::Any, 1.0).map(drop);
            assert!(error.is_err_and(|error| error.contains(why) && !error.contains("s3cret")), "{why}");
        }
    }

    /// Kills: sessions with a second server that are played to the first.
    #[test]
    fn each_session_is_played_to_its_own_server() {
        let urls = ["ws://a:1/x", "wss://b/y", "ws://a:1/z?q", "ws://a:2", "wss://b?q"];
        let entry = |url: &&str| json!({"request": {"url": url}, "_webSocketMessages": []});
        let har = json!({"log": {"entries": urls.iter().map(entry).collect::<Value>()}});
        let recording = Recording::of(&har, Matching::Any, 1.0).expect("a recording");
        // A path may have a token in it, and urls are in every report.
        assert_eq!(recording.urls, ["ws://a:1", "wss://b", "ws://a:2"]);
        let targets: Vec<_> = recording.roles.iter().map(|role| role.target).collect();
        assert_eq!(targets, [0, 1, 0, 2, 1].map(Some));
        let paths: Vec<_> = recording.roles.iter().map(|role| role.path.clone()).collect();
        let literal = |path: &str| Some(Template::literal(path));
        assert_eq!(paths, [literal("/x"), literal("/y"), literal("/z?q"), None, literal("/?q")]);
    }
}
