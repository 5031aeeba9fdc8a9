//! Recorded sessions: the WebSockets of an HTTP archive (HAR), as browsers' developer tools save them. Each becomes a user who
//! sends the same at the same times and waits for as many messages.

use std::path::Path;

use data_encoding::BASE64;
use ringwire::{proto::Kind, quote::quoted};
use serde_json::Value;

use super::{Action, Role, Script, expect::Expected, stages::Stages, template::Template};
use crate::{files::Files, net::Nanos};

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
    /// Of the first of them.
    pub(crate) url: String,
    pub(crate) roles: Vec<Role>,
    pub(crate) names: Vec<String>,
    /// How long the longest took.
    pub(crate) lasted: Nanos,
}

impl Recording {
    /// Reads a file; `speed` 2 plays it in half the time.
    ///
    /// # Errors
    /// What is wrong.
    pub(crate) fn read(path: &Path, matching: Matching, speed: f64, files: &Files) -> Result<Recording, String> {
        let told = |error: String| format!("{}: {error}", path.display());
        let text = files.read(path).map_err(|error| told(error.to_string()))?;
        let har = serde_json::from_slice(&text).map_err(|error| told(format!("not JSON: {error}")))?;
        Recording::of(&har, matching, speed).map_err(told)
    }

    fn of(har: &Value, matching: Matching, speed: f64) -> Result<Recording, String> {
        let mut recording = Recording { url: String::new(), roles: Vec::new(), names: Vec::new(), lasted: 0 };
        for entry in har["log"]["entries"].as_array().into_iter().flatten() {
            let Some(messages) = entry["_webSocketMessages"].as_array() else { continue };
            let url = entry["request"]["url"].as_str().unwrap_or_default();
            if recording.url.is_empty() {
                url.clone_into(&mut recording.url);
            }
            recording.add(url, messages, matching, speed)?;
        }
        if recording.roles.is_empty() {
            return Err("no WebSocket was recorded in it (no entry has _webSocketMessages)".to_owned());
        }
        Ok(recording)
    }

    fn add(&mut self, url: &str, messages: &[Value], matching: Matching, speed: f64) -> Result<(), String> {
        let number = self.roles.len() + 1;
        let mut role = Role::idle(&format!("session {number}"));
        let path = url.split_once("://").and_then(|(_, rest)| rest.find(['/', '?']).map(|at| &rest[at..]));
        role.path = path.map(Template::literal);
        let name = self.names.len();
        self.names.push(role.name.clone());
        let mut first = None;
        for message in messages {
            let told = |what: &str| format!("session {number}: a message {what}");
            let time = message["time"].as_f64().ok_or_else(|| told("without a time"))?;
            let data = message["data"].as_str().ok_or_else(|| told("without data"))?;
            let after = ((time - *first.get_or_insert(time)).max(0.0) / speed * 1e9) as Nanos;
            self.lasted = self.lasted.max(after);
            let is_binary = message["opcode"] == 2;
            let kind = if is_binary { Kind::Binary } else { Kind::Text };
            match message["type"].as_str() {
                Some("send") => {
                    role.begin.push(Action::At(after));
                    role.begin.push(Action::Send {
                        payload: payload(data, is_binary).ok_or_else(|| told("that is not Base64"))?,
                        kind,
                    });
                }
                Some("receive") => {
                    let what = match (matching, serde_json::from_str(data)) {
                        (Matching::Exact, _) => {
                            Expected::Equals(payload(data, is_binary).ok_or_else(|| told("that is not Base64"))?)
                        }
                        (Matching::Shape, Ok(shape)) => Expected::Shape(shape),
                        _ => Expected::Any,
                    };
                    role.begin.push(Action::Expect { name, what, within: None });
                }
                other => return Err(told(&format!("of type {}", quoted(other.unwrap_or_default())))),
            }
        }
        self.roles.push(role);
        Ok(())
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
            assert_eq!((recording.url.as_str(), recording.lasted), ("ws://example.org:9001/ws?x=1", 1_000_000_000));
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

    #[test]
    fn what_is_no_recording_is_told() {
        let of = |har: &Value| Recording::of(har, Matching::Any, 1.0).map(|_| ());
        for (har, why) in [
            (json!({}), "no WebSocket"),
            (har(json!([{"type": "send", "data": "x"}])), "without a time"),
            (har(json!([{"type": "send", "time": 1}])), "without data"),
            (har(json!([{"type": "error", "time": 1, "data": ""}])), "of type \"error\""),
            (har(json!([{"type": "send", "time": 1, "opcode": 2, "data": "?"}])), "Base64"),
        ] {
            let error = of(&har).expect_err(why);
            assert!(error.contains(why), "{error}");
        }
    }
}
