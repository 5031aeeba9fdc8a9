//! What a user of a scenario file does, step by step: what is sent, what is expected, and how long is thought.

use ringwire::proto::Kind;
use serde_json::Value;

use super::{
    Action,
    expect::{Expected, Wanted},
    reads::{span, template, time},
    tree::Node,
};

pub(super) const KEYS: [&str; 6] = ["name", "send", "binary", "expect", "within", "think"];
pub(super) const KEYS_OF_EXPECT: [&str; 3] = ["equals", "contains", "json"];

/// What steps are read with.
pub(super) struct Steps<'a> {
    /// The variables' names.
    pub(super) known: &'a [String],
    /// What steps without a name are called, with their number behind it.
    pub(super) label: String,
    /// The names of expectations, by their numbers.
    pub(super) names: &'a mut Vec<String>,
    /// There is a message that an expect can be the echo of.
    pub(super) has_sent: bool,
}

impl Steps<'_> {
    /// Reads a list of them.
    pub(super) fn read(&mut self, steps: &[Node<'_>]) -> Result<Vec<Action>, String> {
        let mut actions = Vec::new();
        for (place, step) in steps.iter().enumerate() {
            actions.extend(self.step(step, place + 1)?);
        }
        Ok(actions)
    }

    fn step(&mut self, node: &Node<'_>, number: usize) -> Result<Vec<Action>, String> {
        let step = node.table(&KEYS)?;
        let name = step.map("name", |name| name.text().map(str::to_owned))?;
        let label = name.unwrap_or_else(|| format!("{} {number}", self.label));
        let is_binary = step.flag("binary")?;
        let within = step.map("within", time)?;
        let mut actions = Vec::new();
        for (key, of) in [("binary", "send"), ("within", "expect")] {
            if step.get(of).is_none() {
                step.map(key, |node| Err::<(), _>(node.wrong(format_args!("there is no {of} in this step"))))?;
            }
        }
        if let Some(payload) = step.map("send", |text| template(text, self.known))? {
            self.has_sent = true;
            actions.push(Action::Send { payload, kind: if is_binary { Kind::Binary } else { Kind::Text } });
        }
        for expect in step.all("expect") {
            let what = self.expected(&expect)?;
            let name = self.names.iter().position(|name| *name == label).unwrap_or(self.names.len());
            if name == self.names.len() {
                self.names.push(label.clone());
            }
            actions.push(Action::Expect { name, what, within });
        }
        actions.extend(step.map("think", span)?.map(Action::Think));
        if actions.is_empty() {
            return Err(node.wrong("it has none of send, expect and think"));
        }
        Ok(actions)
    }

    /// `"any"`, `"sent"`, or a table with one of `equals`, `contains` and `json`.
    fn expected(&self, node: &Node<'_>) -> Result<Expected, String> {
        if !node.is_table() {
            return match node.text() {
                Ok("any") => Ok(Expected::Any),
                Ok("sent") if self.has_sent => Ok(Expected::Sent),
                Ok("sent") => Err(node.wrong("nothing is sent before it")),
                _ => Err(node.wanted("\"any\", \"sent\" or a table with equals, contains or json")),
            };
        }
        let table = node.table(&KEYS_OF_EXPECT)?;
        match (table.get("equals"), table.get("contains"), table.get("json")) {
            (Some(text), None, None) => template(text, self.known).map(Expected::Equals),
            (None, Some(text), None) => template(text, self.known).map(Expected::Contains),
            (None, None, Some(json)) => {
                let mut wanted = Vec::new();
                self.gather("", json, &mut wanted)?;
                Ok(Expected::Json(wanted))
            }
            _ => Err(node.wrong("an expect has one of equals, contains and json")),
        }
    }

    /// The values of a table and of those in it, each with its place as a JSON pointer (RFC 6901).
    fn gather(&self, at: &str, table: &Node<'_>, wanted: &mut Vec<(String, Wanted)>) -> Result<(), String> {
        for (key, node) in table.entries()? {
            let at = format!("{at}/{}", key.replace('~', "~0").replace('/', "~1"));
            if node.is_table() {
                self.gather(&at, &node, wanted)?;
                continue;
            }
            wanted.push((at, self.wanted(&node)?));
        }
        Ok(())
    }

    /// One value, with all that is in it: texts have variables everywhere.
    fn wanted(&self, node: &Node<'_>) -> Result<Wanted, String> {
        Ok(match node.json()? {
            Value::String(_) => Wanted::Text(template(node, self.known)?),
            Value::Array(_) => {
                Wanted::List(node.list()?.iter().map(|node| self.wanted(node)).collect::<Result<_, _>>()?)
            }
            Value::Object(_) => {
                let fields = node.entries()?.into_iter().map(|(key, node)| Ok((key.to_owned(), self.wanted(&node)?)));
                Wanted::Fields(fields.collect::<Result<_, String>>()?)
            }
            value => Wanted::Value(value),
        })
    }
}
