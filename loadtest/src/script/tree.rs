//! A TOML document as a tree in which every value knows its key and its place, so that whatever is wrong with one is told with both:
//! `12:30: users[0].steps[1].think: "1 parsec" is not a time`.

use std::fmt::Display;

use ringwire::quote::quoted;
use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

/// One value, and where it is.
#[derive(Clone, Debug)]
pub(crate) struct Node<'a> {
    /// The whole document.
    text: &'a str,
    /// As `users[0].name`; empty of the document itself.
    key: String,
    at: usize,
    value: &'a DeValue<'a>,
    /// What it says is not told.
    is_secret: bool,
}

/// A table of which all keys are known.
#[derive(Debug)]
pub(crate) struct Table<'a> {
    node: Node<'a>,
    entries: Vec<(&'a str, Node<'a>)>,
}

/// A document.
#[derive(Debug)]
pub(crate) struct Document<'a> {
    text: &'a str,
    root: DeValue<'a>,
}

impl<'a> Document<'a> {
    /// Reads it.
    ///
    /// # Errors
    /// Where it is no TOML, and why.
    pub(crate) fn parse(text: &'a str) -> Result<Document<'a>, String> {
        let table = DeTable::parse(text).map_err(|error| {
            let at = error.span().map_or(0, |span| span.start);
            format!("{}: {}", place(text, at), error.message().replace('\n', ": "))
        })?;
        Ok(Document { text, root: DeValue::Table(table.into_inner()) })
    }

    pub(crate) fn root(&'a self) -> Node<'a> {
        Node { text: self.text, key: String::new(), at: 0, value: &self.root, is_secret: false }
    }
}

/// Line and column, from 1 on.
fn place(text: &str, at: usize) -> String {
    let before = text.get(..at).unwrap_or(text);
    let line = before.rsplit('\n').next().unwrap_or_default();
    format!("{}:{}", before.matches('\n').count() + 1, line.chars().count() + 1)
}

impl<'a> Node<'a> {
    fn child(&self, key: String, value: &'a Spanned<DeValue<'a>>) -> Node<'a> {
        Node { text: self.text, key, at: value.span().start, value: value.get_ref(), is_secret: self.is_secret }
    }

    /// The same; that what it says, and whatever is in it, is not told where it is wrong.
    pub(crate) fn secret(&self) -> Node<'a> {
        Node { is_secret: true, ..self.clone() }
    }

    /// What is wrong with it, with its place and its key.
    pub(crate) fn wrong(&self, why: impl Display) -> String {
        let place = place(self.text, self.at);
        if self.key.is_empty() { format!("{place}: {why}") } else { format!("{place}: {}: {why}", self.key) }
    }

    /// That it is not what it should be.
    pub(crate) fn wanted(&self, what: &str) -> String {
        let found = match self.value {
            DeValue::String(_) if self.is_secret => "a text".to_owned(),
            DeValue::Integer(_) | DeValue::Float(_) if self.is_secret => "a number".to_owned(),
            DeValue::String(text) => format!("the text {}", quoted(text.as_ref())),
            DeValue::Integer(number) => format!("the number {number}"),
            DeValue::Float(number) => format!("the number {number}"),
            DeValue::Boolean(is_true) => is_true.to_string(),
            DeValue::Datetime(time) => format!("the date {time}"),
            DeValue::Array(_) => "a list".to_owned(),
            DeValue::Table(_) => "a table".to_owned(),
        };
        self.wrong(format_args!("it is {found}, and should be {what}"))
    }

    pub(crate) fn text(&self) -> Result<&'a str, String> {
        self.value.as_str().ok_or_else(|| self.wanted("a text"))
    }

    /// Reads its text.
    pub(crate) fn read<T>(&self, read: impl FnOnce(&str) -> Result<T, String>) -> Result<T, String> {
        read(self.text()?).map_err(|why| self.wrong(why))
    }

    pub(crate) fn flag(&self) -> Result<bool, String> {
        self.value.as_bool().ok_or_else(|| self.wanted("true or false"))
    }

    /// A whole number within bounds.
    pub(crate) fn count(&self, least: u64, most: u64) -> Result<u64, String> {
        let number =
            self.value.as_integer().and_then(|number| u64::from_str_radix(number.as_str(), number.radix()).ok());
        number.filter(|number| (least..=most).contains(number)).ok_or_else(|| {
            self.wanted(&match most {
                u64::MAX => format!("a whole number from {least} on"),
                _ => format!("a whole number from {least} to {most}"),
            })
        })
    }

    /// A number from 0 on.
    pub(crate) fn number(&self) -> Result<f64, String> {
        let number = match self.value {
            DeValue::Integer(number) => {
                i64::from_str_radix(number.as_str(), number.radix()).ok().map(|number| number as f64)
            }
            DeValue::Float(number) => number.as_str().parse::<f64>().ok(),
            _ => None,
        };
        number.filter(|number| *number >= 0.0 && number.is_finite()).ok_or_else(|| self.wanted("a number from 0 on"))
    }

    /// What it says as text, if it is no list or table.
    pub(crate) fn plain(&self) -> Result<String, String> {
        match self.value {
            DeValue::String(text) => Ok(text.clone().into_owned()),
            DeValue::Integer(_) => self.json().map(|number| number.to_string()),
            DeValue::Float(number) => {
                number.as_str().parse::<f64>().map(|number| number.to_string()).map_err(|why| self.wrong(why))
            }
            DeValue::Boolean(is_true) => Ok(is_true.to_string()),
            _ => Err(self.wanted("a text, a number, true or false")),
        }
    }

    pub(crate) fn list(&self) -> Result<Vec<Node<'a>>, String> {
        let DeValue::Array(list) = self.value else { return Err(self.wanted("a list")) };
        Ok(list.iter().enumerate().map(|(place, value)| self.child(format!("{}[{place}]", self.key), value)).collect())
    }

    /// The values of a list, or the only one.
    pub(crate) fn one_or_many(&self) -> Vec<Node<'a>> {
        self.list().unwrap_or_else(|_| vec![self.clone()])
    }

    pub(crate) fn is_table(&self) -> bool {
        self.value.is_table()
    }

    /// All of a table, whatever the keys are.
    pub(crate) fn entries(&self) -> Result<Vec<(&'a str, Node<'a>)>, String> {
        let DeValue::Table(table) = self.value else { return Err(self.wanted("a table")) };
        let entries = table.iter().map(|(name, value)| {
            let name: &'a str = name.get_ref();
            let dot = if self.key.is_empty() { "" } else { "." };
            (name, self.child(format!("{}{dot}{name}", self.key), value))
        });
        Ok(entries.collect())
    }

    /// A table that has some of these keys, and no others.
    pub(crate) fn table(&self, known: &[&str]) -> Result<Table<'a>, String> {
        let entries = self.entries()?;
        match entries.iter().find(|(name, _)| !known.contains(name)) {
            None => Ok(Table { node: self.clone(), entries }),
            Some((_, node)) => Err(node.wrong(format_args!("there is no such key: there are {}", known.join(", ")))),
        }
    }

    /// The same as JSON; numbers and text of other kinds than JSON's are text.
    pub(crate) fn json(&self) -> Result<serde_json::Value, String> {
        Ok(match self.value {
            DeValue::String(text) => text.as_ref().into(),
            DeValue::Boolean(is_true) => (*is_true).into(),
            DeValue::Integer(number) => match i64::from_str_radix(number.as_str(), number.radix()) {
                Ok(number) => number.into(),
                Err(_) => return Err(self.wrong("the number does not fit into 64 bits")),
            },
            DeValue::Float(number) => {
                match number.as_str().parse::<f64>().ok().and_then(serde_json::Number::from_f64) {
                    Some(number) => number.into(),
                    None => return Err(self.wrong("JSON has no such number")),
                }
            }
            DeValue::Datetime(time) => time.to_string().into(),
            DeValue::Array(_) => self.list()?.iter().map(Node::json).collect::<Result<Vec<_>, _>>()?.into(),
            DeValue::Table(_) => {
                let entries = self.entries()?.into_iter().map(|(name, node)| Ok((name.to_owned(), node.json()?)));
                serde_json::Value::Object(entries.collect::<Result<_, String>>()?)
            }
        })
    }
}

impl<'a> Table<'a> {
    pub(crate) fn get(&self, key: &str) -> Option<&Node<'a>> {
        self.entries.iter().find(|(name, _)| *name == key).map(|(_, node)| node)
    }

    /// One that has to be there.
    pub(crate) fn need(&self, key: &str) -> Result<&Node<'a>, String> {
        self.get(key).ok_or_else(|| self.node.wrong(format_args!("{key} is missing")))
    }

    /// Reads a value, if it is there.
    pub(crate) fn map<T>(
        &self,
        key: &str,
        read: impl FnOnce(&Node<'a>) -> Result<T, String>,
    ) -> Result<Option<T>, String> {
        self.get(key).map(read).transpose()
    }

    pub(crate) fn flag(&self, key: &str) -> Result<bool, String> {
        Ok(self.map(key, Node::flag)?.unwrap_or_default())
    }

    /// The values of a list, or the only one; none where it is not there.
    pub(crate) fn all(&self, key: &str) -> Vec<Node<'a>> {
        self.get(key).map(Node::one_or_many).unwrap_or_default()
    }

    /// The values of a list, which it has to be; none where it is not there.
    pub(crate) fn list(&self, key: &str) -> Result<Vec<Node<'a>>, String> {
        Ok(self.map(key, Node::list)?.unwrap_or_default())
    }

    /// What is wrong with the table itself.
    pub(crate) fn wrong(&self, why: impl Display) -> String {
        self.node.wrong(why)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn values_know_their_places() {
        let text = "a = 1\n\n[[b]]\nc = { d = [true, 2.5] }\n\"é f\" = 0x10\n";
        let document = Document::parse(text).expect("TOML");
        let root = document.root().table(&["a", "b"]).expect("both");
        let b = root.list("b").expect("a list");
        let inner = b[0].table(&["c", "é f"]).expect("both");
        let d = inner.need("c").expect("there").table(&["d"]).expect("one");
        assert_eq!(d.list("d").expect("a list")[1].wrong("no"), "4:18: b[0].c.d[1]: no");
        assert_eq!(inner.need("é f").expect("there").wrong("no"), "5:9: b[0].é f: no");
        assert_eq!(inner.need("é f").and_then(|node| node.count(0, 16)), Ok(16));
        assert_eq!(inner.need("x").expect_err("not there"), "3:1: b[0]: x is missing");
        assert_eq!(document.root().wrong("no"), "1:1: no");
        let json = document.root().json().expect("all of it is");
        assert_eq!(json, json!({"a": 1, "b": [{"c": {"d": [true, 2.5]}, "é f": 16}]}));
        let error = document.root().table(&["b"]).expect_err("a is not known");
        assert_eq!(error, "1:5: a: there is no such key: there are b");
        for (text, place) in [("a = \n", "1:5: "), ("a = 1\na = 2\n", "2:1: "), ("\n x", "2:")] {
            let error = Document::parse(text).expect_err(text);
            assert!(error.starts_with(place) && !error.contains('\n'), "{error}");
        }
    }

    #[test]
    fn a_value_of_another_kind_is_told() {
        type Read = fn(&Node<'_>) -> Result<(), String>;
        let number: Read = |node| node.number().map(drop);
        let text: Read = |node| node.text().map(drop);
        let flag: Read = |node| node.flag().map(drop);
        let few: Read = |node| node.count(1, 9).map(drop);
        let list: Read = |node| node.list().map(drop);
        let table: Read = |node| node.table(&[]).map(drop);
        let plain: Read = |node| node.plain().map(drop);
        let json: Read = |node| node.json().map(drop);
        let rows: [(&str, Read, &str); 19] = [
            ("-1", number, "it is the number -1, and should be a number from 0 on"),
            ("-0.5", number, "a number from 0 on"),
            ("inf", number, "a number from 0 on"),
            ("nan", number, "a number from 0 on"),
            ("'x'", number, "it is the text \"x\""),
            ("5", text, "it is the number 5, and should be a text"),
            ("[]", text, "it is a list, and should be a text"),
            ("{}", text, "it is a table"),
            ("'true'", flag, "should be true or false"),
            ("0", few, "should be a whole number from 1 to 9"),
            ("10", few, "from 1 to 9"),
            ("1.5", few, "it is the number 1.5"),
            ("99999999999999999999", few, "from 1 to 9"),
            ("'x'", list, "should be a list"),
            ("[1]", table, "it is a list, and should be a table"),
            ("2024-01-01", plain, "it is the date 2024-01-01"),
            ("[1]", plain, "a text, a number, true or false"),
            ("[1, inf]", json, "1:9: a[1]: JSON has no such number"),
            ("99999999999999999999", json, "64 bits"),
        ];
        for (value, read, why) in rows {
            let text = format!("a = {value}");
            let document = Document::parse(&text).expect("TOML");
            let error = read(document.root().table(&["a"]).expect("one").need("a").expect("there")).expect_err(value);
            assert!(error.contains(why) && error.starts_with("1:") && error.contains(": a"), "{value}: {error}");
        }
    }
}
