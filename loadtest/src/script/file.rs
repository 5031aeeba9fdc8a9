//! Scenario files: TOML. `README.md` shows one.

use std::path::{Path, PathBuf};

use ringwire::{proto::Kind, quote::quoted};
use serde::Deserialize;

use super::{
    Action, Role, Script, Span,
    expect::{Expected, Wanted},
    stages::{Stage, Stages, nanos},
    template::Template,
};
use crate::files::{Files, without_mark};
use crate::tls::{KeyExchanges, Tls};

/// A scenario file, read.
#[derive(Clone, Debug)]
pub(crate) struct Scenario {
    /// Where to, if the command line does not say.
    pub(crate) urls: Vec<String>,
    /// How servers of `wss://` are spoken to, where the command line does not say.
    pub(crate) tls: Tls,
    /// The agents that make the run, if the command line does not say.
    pub(crate) agents: Vec<String>,
    pub(crate) script: Script,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileOf {
    #[serde(default)]
    url: Option<OneOrMany<String>>,
    #[serde(default)]
    tls: TlsOf,
    #[serde(default)]
    agents: Vec<String>,
    #[serde(default)]
    connections: Option<usize>,
    #[serde(default)]
    duration: Option<String>,
    #[serde(default)]
    rate: Option<f64>,
    #[serde(default)]
    stages: Vec<StageOf>,
    users: Vec<UserOf>,
}

/// The options of the command line, by their names.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct TlsOf {
    ca: Option<OneOrMany<String>>,
    insecure: bool,
    client_cert: Option<String>,
    client_key: Option<String>,
    no_resumption: bool,
    key_exchange: Option<OneOrMany<String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct StageOf {
    duration: String,
    connections: usize,
    #[serde(default)]
    rate: Option<f64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct UserOf {
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    weight: Option<u32>,
    #[serde(default)]
    path: Option<String>,
    #[serde(default)]
    headers: toml::Table,
    /// A file of values, one row a user, with the names of the columns in its first line.
    #[serde(default)]
    csv: Option<String>,
    #[serde(default)]
    variables: toml::Table,
    #[serde(default)]
    rounds: Option<u64>,
    #[serde(default)]
    away: Option<String>,
    #[serde(default)]
    strict: bool,
    #[serde(default)]
    begin: Vec<StepOf>,
    #[serde(default)]
    steps: Vec<StepOf>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct StepOf {
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    send: Option<String>,
    #[serde(default)]
    binary: bool,
    #[serde(default)]
    expect: Option<OneOrMany<ExpectOf>>,
    #[serde(default)]
    within: Option<String>,
    #[serde(default)]
    think: Option<String>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMany<T> {
    One(T),
    Many(Vec<T>),
}

impl<T> OneOrMany<T> {
    fn into_vec(self) -> Vec<T> {
        match self {
            OneOrMany::One(one) => vec![one],
            OneOrMany::Many(many) => many,
        }
    }
}

/// `"any"`, `"sent"`, or a table with one of these.
#[derive(Deserialize)]
#[serde(untagged)]
enum ExpectOf {
    Word(String),
    Table(ExpectTable),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ExpectTable {
    #[serde(default)]
    equals: Option<String>,
    #[serde(default)]
    contains: Option<String>,
    #[serde(default)]
    json: Option<toml::Table>,
}

impl Scenario {
    /// Reads a file, and those that it names, which are looked for beside it.
    ///
    /// # Errors
    /// What is wrong, and where.
    pub(crate) fn read(path: &Path, files: &Files) -> Result<Scenario, String> {
        let told = |error: String| format!("{}: {error}", path.display());
        let bytes = files.read(path).map_err(|error| told(error.to_string()))?;
        let text = String::from_utf8(without_mark(&bytes).to_vec()).map_err(|_| told("not UTF-8".to_owned()))?;
        let beside = path.parent().unwrap_or(Path::new("."));
        Scenario::parse(&text, beside, files).map_err(told)
    }

    fn parse(text: &str, beside: &Path, files: &Files) -> Result<Scenario, String> {
        let file: FileOf = toml::from_str(text).map_err(|error| error.to_string().trim_end().to_owned())?;
        let stages = stages(&file)?;
        let urls = file.url.map_or_else(Vec::new, OneOrMany::into_vec);
        let tls = file.tls.told(beside).map_err(|error| format!("tls: {error}"))?;
        let agents = file.agents;
        let mut names = Vec::new();
        let mut roles = Vec::new();
        for (place, user) in file.users.into_iter().enumerate() {
            let name = user.name.clone().unwrap_or_else(|| format!("users {}", place + 1));
            let role = role(user, &name, (beside, files), &mut names).map_err(|error| format!("{name}: {error}"))?;
            role.check()?;
            roles.push(role);
        }
        if roles.is_empty() {
            return Err("there are no [[users]]".to_owned());
        }
        Ok(Scenario { urls, tls, agents, script: Script::new(roles, stages, names, None) })
    }
}

impl TlsOf {
    /// As the command line would say it; files are beside the scenario's.
    fn told(self, beside: &Path) -> Result<Tls, String> {
        let file = |name: String| beside.join(name);
        let ca: Vec<PathBuf> = self.ca.map_or_else(Vec::new, OneOrMany::into_vec).into_iter().map(file).collect();
        if self.insecure && !ca.is_empty() {
            return Err("one of ca and insecure".to_owned());
        }
        if self.client_cert.is_some() != self.client_key.is_some() {
            return Err("client_cert and client_key belong together".to_owned());
        }
        let names = self.key_exchange.map(|names| names.into_vec().join(","));
        Ok(Tls {
            ca,
            insecure: self.insecure,
            client_cert: self.client_cert.map(file),
            client_key: self.client_key.map(file),
            no_resumption: self.no_resumption,
            key_exchange: names.as_deref().map(KeyExchanges::parse).transpose()?,
        })
    }
}

fn stages(file: &FileOf) -> Result<Stages, String> {
    let is_rate = |rate: Option<f64>| rate.is_none_or(|rate| rate >= 0.0 && rate.is_finite());
    if !is_rate(file.rate) || !file.stages.iter().all(|stage| is_rate(stage.rate)) {
        return Err("a rate is a number from 0 on".to_owned());
    }
    let stages = if file.stages.is_empty() {
        let (connections, rate) = (file.connections.unwrap_or(64), file.rate);
        let lasts = nanos(file.duration.as_deref().unwrap_or("10s"))?;
        let stage = |lasts| Stage { lasts, connections, rate };
        vec![stage(0), stage(lasts)]
    } else {
        if file.connections.is_some() || file.duration.is_some() || file.rate.is_some() {
            return Err("connections, duration and rate stand in each of the stages, where there are any".to_owned());
        }
        let stage = |stage: &StageOf| {
            Ok(Stage { lasts: nanos(&stage.duration)?, connections: stage.connections, rate: stage.rate })
        };
        file.stages.iter().map(stage).collect::<Result<Vec<_>, String>>()?
    };
    let stages = Stages::new(&stages);
    if stages.end() == 0 || stages.most() == 0 || stages.most() > 10_000_000 {
        return Err("the stages must last some time and have some connections".to_owned());
    }
    Ok(stages)
}

fn role(user: UserOf, name: &str, (beside, files): (&Path, &Files), names: &mut Vec<String>) -> Result<Role, String> {
    let weight = user.weight.unwrap_or(1);
    if !(1..=1_000_000).contains(&weight) || user.rounds == Some(0) {
        return Err("weight and rounds are from 1 on".to_owned());
    }
    let (mut known, rows) = match &user.csv {
        Some(file) => table(&beside.join(file), files)?,
        None => (Vec::new(), Vec::new()),
    };
    let mut variables = Vec::new();
    for (name, value) in &user.variables {
        // Each may use those before it.
        variables.push(Template::parse(&text_of(value)?, &known)?);
        known.push(name.clone());
    }
    let template = |text: &str| Template::parse(text, &known);
    let mut headers = Vec::new();
    for (field, value) in &user.headers {
        headers.push((field.clone(), template(&text_of(value)?)?));
    }
    let mut actions = |steps: Vec<StepOf>, part: &str| -> Result<Vec<Action>, String> {
        let mut actions = Vec::new();
        for (place, step) in steps.into_iter().enumerate() {
            let told = |error: String| format!("step {} of {part}: {error}", place + 1);
            let label = step.name.clone().unwrap_or_else(|| format!("{name} {part} {}", place + 1));
            actions.extend(step.actions(&known, &label, names).map_err(told)?);
        }
        Ok(actions)
    };
    let begin = actions(user.begin, "begin")?;
    let each = actions(user.steps, "steps")?;
    Ok(Role {
        name: name.to_owned(),
        weight,
        target: None,
        path: user.path.as_deref().map(template).transpose()?,
        headers,
        rows,
        variables,
        begin,
        each,
        rounds: user.rounds,
        away: user.away.as_deref().map(Span::parse).transpose()?.unwrap_or_default(),
        strict: user.strict,
    })
}

/// What a value of TOML says as text.
fn text_of(value: &toml::Value) -> Result<String, String> {
    match value {
        toml::Value::String(text) => Ok(text.clone()),
        toml::Value::Integer(number) => Ok(number.to_string()),
        toml::Value::Float(number) => Ok(number.to_string()),
        toml::Value::Boolean(is_true) => Ok(is_true.to_string()),
        _ => Err("a text, a number or a boolean is wanted".to_owned()),
    }
}

/// The columns' names and the rows of a CSV file (RFC 4180).
fn table(path: &Path, files: &Files) -> Result<(Vec<String>, Vec<Vec<String>>), String> {
    let told = |error: csv::Error| format!("{}: {error}", path.display());
    let bytes = files.read(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let mut reader = csv::ReaderBuilder::new().trim(csv::Trim::Headers).from_reader(without_mark(&bytes));
    let names: Vec<String> = reader.headers().map_err(told)?.iter().map(str::to_owned).collect();
    let mut rows = Vec::new();
    for record in reader.records() {
        rows.push(record.map_err(told)?.iter().map(str::to_owned).collect());
    }
    if rows.is_empty() {
        return Err(format!("{}: no row behind the names of the columns", path.display()));
    }
    Ok((names, rows))
}

impl StepOf {
    fn actions(self, known: &[String], label: &str, names: &mut Vec<String>) -> Result<Vec<Action>, String> {
        let mut actions = Vec::new();
        if let Some(text) = &self.send {
            let kind = if self.binary { Kind::Binary } else { Kind::Text };
            actions.push(Action::Send { payload: Template::parse(text, known)?, kind });
        }
        let within = self.within.as_deref().map(nanos).transpose()?;
        for expect in self.expect.map_or_else(Vec::new, OneOrMany::into_vec) {
            let what = expect.expected(known)?;
            let name = names.iter().position(|name| name == label).unwrap_or(names.len());
            if name == names.len() {
                names.push(label.to_owned());
            }
            actions.push(Action::Expect { name, what, within });
        }
        if let Some(think) = &self.think {
            actions.push(Action::Think(Span::parse(think)?));
        }
        if actions.is_empty() {
            return Err("it has none of send, expect and think".to_owned());
        }
        Ok(actions)
    }
}

impl ExpectOf {
    fn expected(self, known: &[String]) -> Result<Expected, String> {
        let template = |text: &str| Template::parse(text, known);
        match self {
            ExpectOf::Word(word) => match word.as_str() {
                "any" => Ok(Expected::Any),
                "sent" => Ok(Expected::Sent),
                _ => Err(format!("{} is not any or sent, nor a table with equals, contains or json", quoted(&word))),
            },
            ExpectOf::Table(ExpectTable { equals: Some(text), contains: None, json: None }) => {
                Ok(Expected::Equals(template(&text)?))
            }
            ExpectOf::Table(ExpectTable { equals: None, contains: Some(text), json: None }) => {
                Ok(Expected::Contains(template(&text)?))
            }
            ExpectOf::Table(ExpectTable { equals: None, contains: None, json: Some(table) }) => {
                let mut wanted = Vec::new();
                gather("", &table, &template, &mut wanted)?;
                Ok(Expected::Json(wanted))
            }
            ExpectOf::Table(_) => Err("an expect has one of equals, contains and json".to_owned()),
        }
    }
}

/// The values of a table and of those in it, each with its place as a JSON pointer (RFC 6901).
fn gather(
    at: &str,
    table: &toml::Table,
    template: &impl Fn(&str) -> Result<Template, String>,
    wanted: &mut Vec<(String, Wanted)>,
) -> Result<(), String> {
    for (key, value) in table {
        let at = format!("{at}/{}", key.replace('~', "~0").replace('/', "~1"));
        match value {
            toml::Value::Table(inner) => gather(&at, inner, template, wanted)?,
            toml::Value::String(text) => wanted.push((at, Wanted::Text(template(text)?))),
            value => {
                let value = serde_json::to_value(value).map_err(|error| error.to_string())?;
                wanted.push((at, Wanted::Value(value)));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Scenario, String> {
        Scenario::parse(text, Path::new("/nowhere"), &Files::here())
    }

    #[test]
    fn a_scenario_is_read() {
        let scenario = parse(
            r#"
            url = ["ws://127.0.0.1:1/ws", "ws://127.0.0.1:2/ws"]
            agents = ["a:1", "b:2"]
            tls = { ca = "ca.pem", client_cert = "/own/kim.pem", client_key = "kim.key", no_resumption = true,
                    key_exchange = ["x25519", "secp256r1"] }
            stages = [{ duration = "2s", connections = 10, rate = 5 }, { duration = "1s", connections = 20 }]

            [[users]]
            name = "talkers"
            weight = 3
            rounds = 5
            away = "1s..2s"
            headers = { X-User = "{user}" }
            variables = { room = "room-{user%5}", shout = "{room}!" }
            begin = [{ name = "join", send = '{"event":"join","data":{"room":"{room}"}}', within = "2s",
                       expect = { json = { event = "joined", data = { room = "{room}", members = 2 } } } }]
            steps = [{ send = "{shout}", expect = ["any", { contains = "x" }], think = "500ms..1s" }]

            [[users]]
            path = "/echo"
            strict = true
            steps = [{ send = "{message}", binary = true, expect = "sent" }]
            "#,
        )
        .expect("a scenario");
        assert_eq!((scenario.urls.len(), &scenario.agents[..]), (2, &["a:1".to_owned(), "b:2".to_owned()][..]));
        // Files are beside the scenario's.
        let tls = Tls {
            ca: vec!["/nowhere/ca.pem".into()],
            insecure: false,
            client_cert: Some("/own/kim.pem".into()),
            client_key: Some("/nowhere/kim.key".into()),
            no_resumption: true,
            key_exchange: Some(KeyExchanges::parse("x25519,secp256r1").expect("two names")),
        };
        assert_eq!(format!("{:?}", scenario.tls), format!("{tls:?}"));
        let script = &scenario.script;
        assert_eq!((script.stages.most(), script.stages.end()), (20, 3_000_000_000));
        assert_eq!(script.names, ["join", "talkers steps 1", "users 2 steps 1"]);
        let [talkers, second] = &script.roles[..] else { panic!("two roles") };
        assert_eq!((talkers.weight, talkers.rounds, talkers.strict, second.strict), (3, Some(5), false, true));
        assert_eq!((talkers.begin.len(), talkers.each.len(), second.each.len()), (2, 4, 2));
        let Action::Expect { what: Expected::Json(wanted), within: Some(2_000_000_000), .. } = &talkers.begin[1] else {
            panic!("{:?}", talkers.begin)
        };
        assert_eq!(
            wanted.iter().map(|(at, _)| at.as_str()).collect::<Vec<_>>(),
            ["/event", "/data/room", "/data/members"]
        );
        assert!(matches!(second.each[0], Action::Send { kind: Kind::Binary, .. }));
    }

    #[test]
    fn what_is_wrong_with_a_scenario_is_told_with_its_place() {
        let user = |inner: &str| format!("[[users]]\nname = \"kim\"\n{inner}");
        let rows = [
            ("".to_owned(), "users"),
            ("users = []".to_owned(), "there are no [[users]]"),
            (user("colour = 1"), "colour"),
            (user("steps = [{ send = \"{rom}\", think = \"1s\" }]"), "kim: step 1 of steps: \"rom\": no such variable"),
            (user("steps = [{ send = \"x\" }]"), "never wait"),
            (user("steps = [{ name = \"x\" }]"), "none of send"),
            (user("steps = [{ send = \"x\", expect = \"all\" }]"), "any or sent"),
            (user("steps = [{ send = \"x\", expect = { equals = \"a\", contains = \"b\" } }]"), "one of equals"),
            (user("steps = [{ send = \"x\", think = \"x\" }]"), "not a time"),
            (user("weight = 0"), "from 1 on"),
            (user("csv = \"tokens.csv\""), "/nowhere/tokens.csv"),
            (user("headers = { A = [] }"), "a text, a number"),
            (format!("tls = {{ cas = 1 }}\n{}", user("")), "cas"),
            (format!("tls = {{ ca = [\"a.pem\"], insecure = true }}\n{}", user("")), "tls: one of ca and insecure"),
            (format!("tls = {{ client_cert = \"a.pem\" }}\n{}", user("")), "belong together"),
            (
                format!("tls = {{ key_exchange = [\"x25519\", \"x448\"] }}\n{}", user("")),
                "tls: \"x448\" is no key exchange: there are x25519mlkem768, x25519, secp256r1, secp384r1",
            ),
            (format!("tls = {{ key_exchange = [] }}\n{}", user("")), "is no key exchange"),
            (format!("rate = -1\n{}", user("")), "a rate is"),
            (format!("duration = \"0s\"\n{}", user("")), "last some time"),
            (
                format!("connections = 1\nstages = [{{ duration = \"1s\", connections = 1 }}]\n{}", user("")),
                "each of the stages",
            ),
        ];
        for (text, why) in rows {
            let error = parse(&text).expect_err(&text);
            assert!(error.contains(why), "{text}: {error}");
        }
    }
}
