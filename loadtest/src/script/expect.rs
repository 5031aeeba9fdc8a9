//! What a user waits for.

use ringwire::proto::Kind;
use serde_json::Value;

use super::template::{Template, Values};

/// See the module.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Expected {
    /// Any message.
    Any,
    /// What was sent last, as it was.
    Sent,
    /// Exactly this text.
    Equals(Template),
    /// A message with this in it.
    Contains(Template),
    /// JSON that has these values at these places (JSON pointers); text may have variables.
    Json(Vec<(String, Wanted)>),
    /// JSON with the same fields, of the same types, as this.
    Shape(Value),
}

/// A value that JSON is to have at some place.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Wanted {
    Text(Template),
    /// Neither text, nor a list or table.
    Value(Value),
    /// As many, each as it is wanted.
    List(Vec<Wanted>),
    /// Within a list: these fields and no others.
    Fields(Vec<(String, Wanted)>),
}

impl Wanted {
    fn is_met(&self, found: &Value, values: &mut Values<'_>) -> bool {
        match (self, found) {
            (Wanted::Text(text), Value::String(found)) => *found == text.text(values),
            (Wanted::Value(value), found) => is_equal(found, value),
            (Wanted::List(wanted), Value::Array(found)) => {
                wanted.len() == found.len()
                    && wanted.iter().zip(found).all(|(wanted, found)| wanted.is_met(found, values))
            }
            (Wanted::Fields(wanted), Value::Object(found)) => {
                let mut is_there =
                    |(key, wanted): &(String, Wanted)| found.get(key).is_some_and(|found| wanted.is_met(found, values));
                wanted.len() == found.len() && wanted.iter().all(&mut is_there)
            }
            _ => false,
        }
    }
}

impl Expected {
    /// Whether a message is as expected; `sent` is what was sent last.
    pub(crate) fn is_met(&self, kind: Kind, payload: &[u8], sent: (Kind, &[u8]), values: &mut Values<'_>) -> bool {
        match self {
            Expected::Any => true,
            Expected::Sent => sent == (kind, payload),
            Expected::Equals(text) => text.render(values) == payload,
            Expected::Contains(part) => {
                let part = part.text(values);
                String::from_utf8_lossy(payload).contains(&part)
            }
            Expected::Json(wanted) => {
                let Ok(json) = serde_json::from_slice::<Value>(payload) else { return false };
                wanted
                    .iter()
                    .all(|(pointer, wanted)| json.pointer(pointer).is_some_and(|found| wanted.is_met(found, values)))
            }
            Expected::Shape(shape) => {
                serde_json::from_slice::<Value>(payload).is_ok_and(|json| has_shape(&json, shape))
            }
        }
    }
}

/// Whether two values are the same; 1 and 1.0 are.
fn is_equal(a: &Value, b: &Value) -> bool {
    a == b || a.as_f64().zip(b.as_f64()).is_some_and(|(a, b)| a == b)
}

/// Whether `json` has the fields of `shape`, with values of the same types; lists may be of any length. What says what it is
/// (`event`, `type`) has to be the same.
fn has_shape(json: &Value, shape: &Value) -> bool {
    match (json, shape) {
        (Value::Object(json), Value::Object(shape)) => {
            json.len() == shape.len()
                && shape.iter().all(|(key, wanted)| {
                    json.get(key).is_some_and(|found| match key.as_str() {
                        "event" | "type" if wanted.is_string() => found == wanted,
                        _ => has_shape(found, wanted),
                    })
                })
        }
        (Value::Array(json), Value::Array(shape)) => match shape.first() {
            Some(shape) => json.iter().all(|found| has_shape(found, shape)),
            None => true,
        },
        (Value::Null, Value::Null)
        | (Value::Bool(_), Value::Bool(_))
        | (Value::Number(_), Value::Number(_))
        | (Value::String(_), Value::String(_)) => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{Content, Keys, Layout, Messages, Sizes};
    use serde_json::json;

    #[test]
    fn messages_are_held_against_what_is_expected() {
        let messages = Messages::new(Layout::WebSocket, Kind::Text, Sizes::Fixed(20), Content::Random);
        let (mut keys, variables) = (Keys::new(1), vec!["lobby".to_owned()]);
        let mut values = Values {
            user: 7,
            session: 0,
            count: 0,
            now_ms: 0,
            variables: &variables,
            messages: &messages,
            keys: &mut keys,
        };
        let text = |text: &str| Template::parse(text, &["room".to_owned()]).expect("a template");
        let json = |pairs: &[(&str, Wanted)]| {
            Expected::Json(pairs.iter().map(|(pointer, wanted)| ((*pointer).to_owned(), wanted.clone())).collect())
        };
        let joined = json(&[("/event", Wanted::Text(text("joined"))), ("/data/room", Wanted::Text(text("{room}")))]);
        let two = json(&[("/data/members", Wanted::Value(json!(2)))]);
        let in_list = |key: &str| Wanted::Fields(vec![(key.to_owned(), Wanted::Text(text("{room}")))]);
        let list = json(&[("/a", Wanted::List(vec![in_list("b"), Wanted::Value(json!(1))]))]);
        let shape = Expected::Shape(json!({"event": "joined", "data": {"room": "x", "members": 1, "ids": ["a"]}}));
        let message = r#"{"event":"joined","data":{"room":"lobby","members":2,"ids":["a","b"]}}"#;
        let rows = [
            (&Expected::Any, "", true),
            (&Expected::Sent, "hello", true),
            (&Expected::Sent, "hellO", false),
            (&Expected::Equals(text("in {room}")), "in lobby", true),
            (&Expected::Equals(text("in {room}")), "in lobby!", false),
            (&Expected::Contains(text("{room}")), message, true),
            (&Expected::Contains(text("{user}")), message, false),
            (&joined, message, true),
            (&joined, r#"{"event":"joined","data":{"room":"other"}}"#, false),
            (&joined, r#"{"event":"joined"}"#, false),
            (&joined, "not JSON", false),
            (&two, message, true),
            (&two, r#"{"data":{"members":2.0}}"#, true),
            (&two, r#"{"data":{"members":"2"}}"#, false),
            (&list, r#"{"a":[{"b":"lobby"},1.0]}"#, true),
            (&list, r#"{"a":[{"b":"{room}"},1]}"#, false),
            (&list, r#"{"a":[{"b":"lobby"},2]}"#, false),
            (&list, r#"{"a":[{"b":"lobby"}]}"#, false),
            (&list, r#"{"a":[{"b":"lobby"},1,1]}"#, false),
            (&list, r#"{"a":[{"b":"lobby","c":1},1]}"#, false),
            (&list, r#"{"a":[{"c":"lobby"},1]}"#, false),
            (&list, r#"{"a":{"b":"lobby"}}"#, false),
            (&shape, message, true),
            (&shape, r#"{"event":"left","data":{"room":"lobby","members":2,"ids":[]}}"#, false),
            (&shape, r#"{"event":"joined","data":{"room":"lobby","members":"2","ids":[]}}"#, false),
            (&shape, r#"{"event":"joined","data":{"room":"lobby","members":2}}"#, false),
        ];
        for (expected, message, is_met) in rows {
            let met = expected.is_met(Kind::Text, message.as_bytes(), (Kind::Text, b"hello"), &mut values);
            assert_eq!(met, is_met, "{expected:?} {message}");
        }
        assert!(!Expected::Sent.is_met(Kind::Binary, b"hello", (Kind::Text, b"hello"), &mut values));
    }
}
