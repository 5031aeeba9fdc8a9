//! Text with variables: `{"event":"join","data":{"room":"{room}","n":{count}}}`.
//!
//! A brace that no name follows stands for itself, as JSON has them everywhere.

use ringwire::quote::quoted;

use crate::wire::{Keys, Messages, Name, STREAMS_MAX};

/// See the module.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Template(Vec<Part>);

#[derive(Clone, Debug, PartialEq)]
enum Part {
    Bytes(Vec<u8>),
    /// Of a session, by its place.
    Variable(usize),
    /// The user's number, or its rest.
    User(Option<u64>),
    Session,
    /// Messages that were sent before in this session.
    Count,
    NowMs,
    Random(u64, u64),
    /// So many letters.
    Letters(usize),
    /// The load generator's own message, of the size and content that the command line says.
    Message,
}

/// What variables stand for.
#[derive(Debug)]
pub(crate) struct Values<'a> {
    pub(crate) user: u64,
    pub(crate) session: u64,
    pub(crate) count: u64,
    pub(crate) now_ms: u64,
    pub(crate) variables: &'a [String],
    pub(crate) messages: &'a Messages,
    pub(crate) keys: &'a mut Keys,
}

const LETTERS_MAX: u64 = 1 << 20;

const KNOWN: &str = "{user}, {user%N}, {session}, {count}, {now_ms}, {random:A..B}, {letters:N}, {message}";

impl Template {
    /// Reads it; `variables` are the names of the session's own.
    pub(crate) fn parse(text: &str, variables: &[String]) -> Result<Template, String> {
        let mut parts = Vec::new();
        let mut plain = String::new();
        let mut rest = text;
        while let Some(open) = rest.find('{') {
            plain += &rest[..open];
            rest = &rest[open..];
            match name_in(rest) {
                None => {
                    plain.push('{');
                    rest = &rest[1..];
                }
                Some(name) => {
                    if !plain.is_empty() {
                        parts.push(Part::Bytes(std::mem::take(&mut plain).into_bytes()));
                    }
                    parts.push(part(name, variables)?);
                    rest = &rest[name.len() + 2..];
                }
            }
        }
        plain += rest;
        if !plain.is_empty() {
            parts.push(Part::Bytes(plain.into_bytes()));
        }
        Ok(Template(parts))
    }

    /// Whether it has variables of the session.
    pub(crate) fn has_variables(&self) -> bool {
        self.0.iter().any(|part| matches!(part, Part::Variable(_)))
    }

    /// Text without variables, whatever it is.
    pub(crate) fn literal(text: &str) -> Template {
        Template::bytes(text.as_bytes().to_vec())
    }

    /// Bytes, whatever they are.
    pub(crate) fn bytes(bytes: Vec<u8>) -> Template {
        Template(vec![Part::Bytes(bytes)])
    }

    /// The load generator's own message.
    pub(crate) fn message() -> Template {
        Template(vec![Part::Message])
    }

    /// What it stands for.
    pub(crate) fn render(&self, values: &mut Values<'_>) -> Vec<u8> {
        let mut out = Vec::new();
        for part in &self.0 {
            let number = match part {
                Part::Bytes(bytes) => {
                    out.extend_from_slice(bytes);
                    continue;
                }
                Part::Variable(place) => {
                    out.extend_from_slice(values.variables[*place].as_bytes());
                    continue;
                }
                Part::Letters(count) => {
                    out.extend((0..*count).map(|_| b'a' + ((values.keys.bits() >> 40) % 26) as u8));
                    continue;
                }
                Part::Message => {
                    let stream = (values.user % STREAMS_MAX as u64) as u32;
                    out.extend(values.messages.reply(Name { stream, sequence: values.count }).payload());
                    continue;
                }
                Part::User(None) => values.user,
                Part::User(Some(modulus)) => values.user % modulus,
                Part::Session => values.session,
                Part::Count => values.count,
                Part::NowMs => values.now_ms,
                Part::Random(low, high) => low + values.keys.bits() % (high - low + 1),
            };
            out.extend_from_slice(number.to_string().as_bytes());
        }
        out
    }

    /// The same as text.
    pub(crate) fn text(&self, values: &mut Values<'_>) -> String {
        String::from_utf8_lossy(&self.render(values)).into_owned()
    }
}

/// The name behind a brace, if it is one.
fn name_in(text: &str) -> Option<&str> {
    let name = &text[1..text.find('}')?];
    is_name_or(name, "%:").then_some(name)
}

/// Whether a variable of one's own may have this name.
///
/// # Errors
/// Why not.
pub(crate) fn check_name(name: &str) -> Result<(), String> {
    if !is_name_or(name, "") {
        return Err("a name has letters, digits, _, - and . and begins with a letter or _".to_owned());
    }
    match built_in(name) {
        Some(_) => Err(format!("{{{name}}} has a meaning already: there are {KNOWN}")),
        None => Ok(()),
    }
}

/// Those that need nothing behind their names.
fn built_in(name: &str) -> Option<Part> {
    match name {
        "user" => Some(Part::User(None)),
        "session" => Some(Part::Session),
        "count" => Some(Part::Count),
        "now_ms" => Some(Part::NowMs),
        "message" => Some(Part::Message),
        _ => None,
    }
}

fn is_name_or(name: &str, more: &str) -> bool {
    let is_of_it = |char: char| char.is_ascii_alphanumeric() || "_-.".contains(char) || more.contains(char);
    name.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_') && name.chars().all(is_of_it)
}

fn part(name: &str, variables: &[String]) -> Result<Part, String> {
    if let Some(place) = variables.iter().position(|known| known == name) {
        return Ok(Part::Variable(place));
    }
    let wrong = |what: &str| format!("{}: {what}", quoted(name));
    let number = |text: &str| text.parse::<u64>().ok();
    if let Some(part) = built_in(name) {
        return Ok(part);
    }
    if let Some(modulus) = name.strip_prefix("user%") {
        let modulus = number(modulus).filter(|modulus| *modulus > 0);
        return modulus.map(|modulus| Part::User(Some(modulus))).ok_or_else(|| wrong("a number from 1 on"));
    }
    if let Some(bounds) = name.strip_prefix("random:") {
        let bounds = bounds.split_once("..").and_then(|(low, high)| Some((number(low)?, number(high)?)));
        let bounds = bounds.filter(|(low, high)| low <= high && high - low < u64::MAX);
        return bounds
            .map(|(low, high)| Part::Random(low, high))
            .ok_or_else(|| wrong("random:LOW..HIGH, the lower number first"));
    }
    if let Some(count) = name.strip_prefix("letters:") {
        let count = number(count).filter(|count| *count <= LETTERS_MAX);
        let why = || wrong(&format!("letters:NUMBER, of {LETTERS_MAX} at most"));
        return count.map(|count| Part::Letters(count as usize)).ok_or_else(why);
    }
    let own = variables.iter().map(|name| format!("{{{name}}}, ")).collect::<String>();
    Err(wrong(&format!("no such variable; there are {own}{KNOWN}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{Content, Layout, Sizes};
    use ringwire::proto::Kind;

    fn rendered(text: &str, names: &[&str], values: &[&str]) -> Result<String, String> {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let variables: Vec<String> = values.iter().map(|value| (*value).to_owned()).collect();
        let messages = Messages::new(Layout::WebSocket, Kind::Text, Sizes::Fixed(20), Content::Random);
        let template = Template::parse(text, &names)?;
        Ok(template.text(&mut Values {
            user: 107,
            session: 3,
            count: 9,
            now_ms: 1234,
            variables: &variables,
            messages: &messages,
            keys: &mut Keys::new(1),
        }))
    }

    #[test]
    fn variables_are_filled_in_and_json_is_left_alone() {
        let rows = [
            ("", ""),
            ("plain", "plain"),
            (r#"{"a":{"b":[{}]}}"#, r#"{"a":{"b":[{}]}}"#),
            (r#"{"room":"{room}","n":{count}}"#, r#"{"room":"lobby","n":9}"#),
            ("{user} {user%50} {session} {now_ms}", "107 7 3 1234"),
            ("{random:5..5}", "5"),
            ("{{room}}", "{lobby}"),
            ("{not closed", "{not closed"),
            ("{ user }", "{ user }"),
            ("é{room}é", "élobbyé"),
        ];
        for (text, expected) in rows {
            assert_eq!(rendered(text, &["room"], &["lobby"]).as_deref(), Ok(expected), "{text}");
        }
        let letters = rendered("{letters:12}", &[], &[]).expect("a template");
        assert!(letters.len() == 12 && letters.bytes().all(|letter| letter.is_ascii_lowercase()), "{letters}");
        assert_eq!(rendered("{message}", &[], &[]).map(|text| text.len()), Ok(20));
        for _ in 0..100 {
            let number: u64 = rendered("{random:3..9}", &[], &[]).expect("a template").parse().expect("a number");
            assert!((3..=9).contains(&number));
        }
    }

    #[test]
    fn a_name_that_is_none_is_told_with_those_that_are() {
        for (text, why) in [
            ("{rom}", "{room}, {user}"),
            ("{user%0}", "from 1 on"),
            ("{random:9..1}", "LOW..HIGH, the lower number first"),
            ("{letters:x}", "NUMBER"),
            ("{letters:1048577}", "NUMBER, of 1048576 at most"),
        ] {
            let error = rendered(text, &["room"], &["x"]).expect_err(text);
            assert!(error.contains(why), "{error}");
        }
        // Kills: a column that nobody's messages have, since its name stands for something else, or the other way round.
        for part in KNOWN.split(", ") {
            let name = part.trim_matches(['{', '}']);
            let why = if name.contains(['%', ':']) { "a name has letters" } else { "has a meaning already" };
            assert!(check_name(name).is_err_and(|error| error.contains(why)), "{name}");
        }
        for name in ["a", "_users", "user-name", "Count", "random", "x.1"] {
            assert_eq!(check_name(name), Ok(()), "{name}");
        }
    }
}
