//! Scenario files: TOML. `README.md` shows one. Whatever is wrong with a value is found when the file is read, and told with its line
//! and its key.

use std::path::Path;

use super::{
    Role, Script,
    reads::{span, template, time},
    stages::{Stage, Stages},
    steps::Steps,
    table::Rows,
    template::{Template, Values, check_name},
    tree::{Document, Node, Table},
};
use crate::{
    files::{Files, without_mark},
    fleet::address,
    headers,
    net::Nanos,
    target::Target,
    tls::{KeyExchanges, Tls},
    wire::{Content, Keys, Layout, Messages, Sizes},
};
use ringwire::proto::Kind;

const KEYS: [&str; 8] = ["url", "tls", "agents", "connections", "duration", "rate", "stages", "users"];
/// The options of the command line, by their names.
const KEYS_OF_TLS: [&str; 6] = ["ca", "insecure", "client_cert", "client_key", "no_resumption", "key_exchange"];
const KEYS_OF_A_STAGE: [&str; 3] = ["duration", "connections", "rate"];
const KEYS_OF_USERS: [&str; 11] =
    ["name", "weight", "path", "headers", "csv", "variables", "rounds", "away", "strict", "begin", "steps"];
const CONNECTIONS_MAX: u64 = 10_000_000;

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

impl Scenario {
    /// Reads a file, and those that it names, which are looked for beside it.
    ///
    /// # Errors
    /// What is wrong, and where.
    pub(crate) fn read(path: &Path, files: &Files) -> Result<Scenario, String> {
        let bytes = files.read(path).map_err(|error| format!("{}: {error}", path.display()))?;
        let text =
            String::from_utf8(without_mark(&bytes).to_vec()).map_err(|_| format!("{}: not UTF-8", path.display()))?;
        let beside = path.parent().unwrap_or(Path::new("."));
        Scenario::parse(&text, beside, files).map_err(|error| format!("{}:{error}", path.display()))
    }

    fn parse(text: &str, beside: &Path, files: &Files) -> Result<Scenario, String> {
        let document = Document::parse(text)?;
        let file = document.root().table(&KEYS)?;
        let stages = stages(&file)?;
        let url = |node: &Node<'_>| node.read(|url| Target::check_url(url).map(|()| url.to_owned()));
        let urls: Vec<String> = file.all("url").iter().map(url).collect::<Result<_, _>>()?;
        if urls.is_empty() {
            file.map("url", |node| Err::<(), _>(node.wrong("there is none in it")))?;
        }
        let tls = file.map("tls", |node| tls(node, beside, files))?.unwrap_or_default();
        let mut agents = Vec::new();
        for node in file.list("agents")? {
            let agent = node.read(address::parse)?;
            if agents.contains(&agent) {
                return Err(node.wrong(format_args!("{agent} is named twice")));
            }
            agents.push(agent);
        }
        let mut names = Vec::new();
        let mut roles = Vec::new();
        for (place, node) in file.list("users")?.iter().enumerate() {
            let user = node.table(&KEYS_OF_USERS)?;
            let name = user.map("name", |name| name.text().map(str::to_owned))?;
            roles.push(role(
                &user,
                name.unwrap_or_else(|| format!("users {}", place + 1)),
                (beside, files),
                &mut names,
            )?);
        }
        if roles.is_empty() {
            return Err(file.wrong("there are no [[users]]"));
        }
        Ok(Scenario { urls, tls, agents, script: Script::new(roles, stages, names, None) })
    }
}

/// A time that lasts.
fn lasting(node: &Node<'_>) -> Result<Nanos, String> {
    time(node).and_then(|time| if time > 0 { Ok(time) } else { Err(node.wrong("it must last some time")) })
}

/// As the command line would say it; files are beside the scenario's.
fn tls(node: &Node<'_>, beside: &Path, files: &Files) -> Result<Tls, String> {
    let table = node.table(&KEYS_OF_TLS)?;
    let file = |node: &Node<'_>| node.text().map(|name| beside.join(name));
    let tls = Tls {
        ca: table.all("ca").iter().map(file).collect::<Result<_, _>>()?,
        insecure: table.flag("insecure")?,
        client_cert: table.map("client_cert", file)?,
        client_key: table.map("client_key", file)?,
        no_resumption: table.flag("no_resumption")?,
        key_exchange: table.map("key_exchange", key_exchanges)?,
    };
    if tls.insecure && !tls.ca.is_empty() {
        return Err(table.wrong("one of ca and insecure"));
    }
    if tls.client_cert.is_some() != tls.client_key.is_some() {
        return Err(table.wrong("client_cert and client_key belong together"));
    }
    for node in table.all("ca").iter().chain(table.get("client_cert")).chain(table.get("client_key")) {
        let path = file(node)?;
        files.read(&path).map_err(|error| node.wrong(format_args!("{}: {error}", path.display())))?;
    }
    Ok(tls)
}

fn key_exchanges(node: &Node<'_>) -> Result<KeyExchanges, String> {
    let names = node.one_or_many().iter().map(Node::text).collect::<Result<Vec<_>, _>>()?;
    KeyExchanges::parse(&names.join(",")).map_err(|why| node.wrong(why))
}

fn stages(file: &Table<'_>) -> Result<Stages, String> {
    let Some(node) = file.get("stages") else {
        let connections = file.map("connections", |node| node.count(1, CONNECTIONS_MAX))?.unwrap_or(64) as usize;
        let lasts = file.map("duration", lasting)?.unwrap_or(10_000_000_000);
        let rate = file.map("rate", Node::number)?;
        let stage = |lasts| Stage { lasts, connections, rate };
        return Ok(Stages::new(&[stage(0), stage(lasts)]));
    };
    for key in ["connections", "duration", "rate"] {
        file.map(key, |node| Err::<(), _>(node.wrong("it stands in each of the stages, where there are any")))?;
    }
    let stage = |node: Node<'_>| {
        let stage = node.table(&KEYS_OF_A_STAGE)?;
        Ok(Stage {
            lasts: time(stage.need("duration")?)?,
            connections: stage.need("connections")?.count(0, CONNECTIONS_MAX)? as usize,
            rate: stage.map("rate", Node::number)?,
        })
    };
    let stages = Stages::new(&node.list()?.into_iter().map(stage).collect::<Result<Vec<_>, String>>()?);
    if stages.end() == 0 || stages.most() == 0 {
        return Err(node.wrong("the stages must last some time and have some connections"));
    }
    Ok(stages)
}

fn role(
    user: &Table<'_>,
    name: String,
    (beside, files): (&Path, &Files),
    names: &mut Vec<String>,
) -> Result<Role, String> {
    let rows = user.map("csv", |node| read_rows(node, beside, files))?.unwrap_or_default();
    let mut known = rows.names.clone();
    let mut variables = Vec::new();
    for (name, node) in user.map("variables", Node::entries)?.unwrap_or_default() {
        check_name(name).map_err(|why| node.wrong(why))?;
        if known.iter().any(|other| other == name) {
            return Err(node.wrong("a column of the csv file has this name already"));
        }
        // Each may use those before it.
        variables.push(Template::parse(&node.plain()?, &known).map_err(|why| node.wrong(why))?);
        known.push(name.to_owned());
    }
    let mut headers = Vec::new();
    let fields = user.map("headers", |node| node.secret().entries())?.unwrap_or_default();
    for (field, node) in &fields {
        headers::check_name(field).map_err(|why| node.wrong(why))?;
        let value = Template::parse(&node.plain()?, &known).map_err(|why| node.wrong(why))?;
        headers.push(((*field).to_owned(), value));
        headers::check_together(headers.iter().map(|(name, _)| name)).map_err(|why| node.wrong(why))?;
    }
    let mut steps = Steps { known: &known, label: format!("{name} begin"), names, has_sent: false };
    let begin = steps.read(&user.list("begin")?)?;
    steps.label = format!("{name} steps");
    let each = steps.read(&user.list("steps")?)?;
    let role = Role {
        weight: user.map("weight", |node| node.count(1, 1_000_000))?.unwrap_or(1) as u32,
        target: None,
        path: user.map("path", |node| template(node, &known))?,
        headers,
        rows: rows.rows,
        variables,
        begin,
        each,
        rounds: user.map("rounds", |node| node.count(1, u64::MAX))?,
        away: user.map("away", span)?.unwrap_or_default(),
        strict: user.flag("strict")?,
        name,
    };
    user.map("steps", |node| role.check().map_err(|why| node.wrong(why)))?;
    let handshake = fields.iter().map(|(_, node)| node).zip(role.headers.iter().map(|(_, value)| value));
    for (node, value) in handshake {
        check_values(node, value, &role, &rows.lines, headers::check_value)?;
    }
    if let (Some(node), Some(path)) = (user.get("path"), &role.path) {
        check_values(node, path, &role, &rows.lines, Target::check_path)?;
    }
    if role.begin.is_empty() && role.each.is_empty() {
        return Err(user.wrong("there is nothing that they do: begin and steps are missing; for those who stay, steps = [{ think = \"1m\" }]"));
    }
    Ok(role)
}

fn read_rows(node: &Node<'_>, beside: &Path, files: &Files) -> Result<Rows, String> {
    let path = beside.join(node.text()?);
    let bytes = files.read(&path).map_err(|error| node.wrong(format_args!("{}: {error}", path.display())))?;
    Rows::parse(without_mark(&bytes)).map_err(|error| node.wrong(format_args!("{}:{error}", path.display())))
}

/// Whether what a template says of the handshake can be written: of each row of the file, where it has variables.
fn check_values(
    node: &Node<'_>,
    template: &Template,
    role: &Role,
    lines: &[usize],
    check: impl Fn(&str) -> Result<(), String>,
) -> Result<(), String> {
    let messages = Messages::new(Layout::WebSocket, Kind::Text, Sizes::Fixed(0), Content::Random);
    let mut keys = Keys::new(0);
    let rows = if template.has_variables() { role.rows.len().max(1) } else { 1 };
    for place in 0..rows {
        let mut variables = role.rows.get(place).cloned().unwrap_or_default();
        let mut say = |template: &Template, variables: &[String]| {
            let (user, keys) = (place as u64, &mut keys);
            template.text(&mut Values { user, session: 0, count: 0, now_ms: 0, variables, messages: &messages, keys })
        };
        if template.has_variables() {
            for variable in &role.variables {
                let value = say(variable, &variables);
                variables.push(value);
            }
        }
        check(&say(template, &variables)).map_err(|why| {
            match lines.get(place).filter(|_| template.has_variables()) {
                None => node.wrong(why),
                Some(line) => node.wrong(format_args!("with line {line} of the csv file: {why}")),
            }
        })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::script::{Action, expect::Expected, steps};

    fn parse(text: &str) -> Result<Scenario, String> {
        Scenario::parse(text, Path::new("/nowhere"), &Files::here())
    }

    #[test]
    fn a_scenario_is_read() {
        let names = ["/nowhere/ca.pem", "/own/kim.pem", "/nowhere/kim.key"];
        let files = Files::sent(names.map(|name| (name.into(), Vec::new())).into());
        let scenario = Scenario::parse(
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
            Path::new("/nowhere"),
            &files,
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

    /// Kills: an error that does not say which value it is of, or where that is.
    #[test]
    fn what_is_wrong_with_a_value_is_told_with_its_line_and_key() {
        // What stands in the third line of a file that is right without it, and in the second of its users.
        let of_file = [
            ("colour = 1", "colour: there is no such key: there are url, tls, agents"),
            ("url = 5", "url: it is the number 5, and should be a text"),
            ("url = ['ws://a', 'http://a']", "url[1]: the URL must begin with ws:// or wss://"),
            ("url = 'ws://a:x/'", "url: its port is no number"),
            ("url = 'ws://kim:s3cret@a/'", "url: the URL has a user in it"),
            ("url = 'ws://:1/'", "url: the URL has no host"),
            ("agents = 'a'", "agents: it is the text \"a\", and should be a list"),
            ("agents = ['a', 'ws://b']", "agents[1]: \"ws://b\" is not HOST or HOST:PORT"),
            ("agents = ['a', 'b', 'a:9009']", "agents[2]: a:9009 is named twice"),
            ("url = []", "url: there is none in it"),
            ("tls = { ca = 'nope.pem' }", "tls.ca: /nowhere/nope.pem: No such file"),
            ("tls = { ca = ['nope.pem'] }", "tls.ca[0]: /nowhere/nope.pem: No such file"),
            ("tls = { client_cert = '/dev/null', client_key = 'k' }", "tls.client_key: /nowhere/k: No such file"),
            ("agents = [5]", "agents[0]: it is the number 5"),
            ("connections = 0", "connections: it is the number 0, and should be a whole number from 1 to 10000000"),
            ("connections = '5'", "connections: it is the text \"5\""),
            ("connections = 1.5", "connections: it is the number 1.5"),
            ("duration = '1 parsec'", "duration: \"1 parsec\" is not a time"),
            ("duration = []", "duration: it is a list, and should be a text"),
            ("duration = 0", "duration: it must last some time"),
            ("rate = -1", "rate: it is the number -1, and should be a number from 0 on"),
            ("rate = 'x'", "rate: it is the text"),
            ("stages = 5", "stages: it is the number 5, and should be a list"),
            ("stages = []", "stages: the stages must last some time"),
            ("stages = [{ duration = '1s', connections = 0 }]", "stages: the stages must last some time"),
            ("stages = ['1s:5']", "stages[0]: it is the text"),
            ("stages = [{ connections = 1 }]", "stages[0]: duration is missing"),
            ("stages = [{ duration = '1s' }]", "stages[0]: connections is missing"),
            ("stages = [{ duration = 'x', connections = 1 }]", "stages[0].duration: \"x\" is not a time"),
            ("stages = [{ duration = 1, connections = -1 }]", "stages[0].connections: it is the number -1"),
            ("stages = [{ duration = 1, connections = 1, rate = 'x' }]", "stages[0].rate: it is"),
            ("stages = [{ duration = 1, connections = 1, rat = 1 }]", "stages[0].rat: there is no such key"),
            ("connections = 1\nstages = [{ duration = 1, connections = 1 }]", "connections: it stands in each"),
            ("tls = 'ca.pem'", "tls: it is the text"),
            ("tls = { cas = 1 }", "tls.cas: there is no such key: there are ca, insecure"),
            ("tls = { ca = ['a', 5] }", "tls.ca[1]: it is the number 5"),
            ("tls = { ca = 'a', insecure = true }", "tls: one of ca and insecure"),
            ("tls = { insecure = 1 }", "tls.insecure: it is the number 1, and should be true or false"),
            ("tls = { client_cert = 'a' }", "tls: client_cert and client_key belong together"),
            ("tls = { client_cert = 5 }", "tls.client_cert: it is the number 5"),
            ("tls = { client_key = 5 }", "tls.client_key: it is the number 5"),
            ("tls = { no_resumption = 'x' }", "tls.no_resumption: it is the text"),
            (
                "tls = { key_exchange = ['x25519', 'x448'] }",
                "tls.key_exchange: \"x448\" is no key exchange: there are x255",
            ),
            ("tls = { key_exchange = [] }", "tls.key_exchange: \"\" is no key exchange"),
            ("tls = { key_exchange = 5 }", "tls.key_exchange: it is the number 5"),
            ("users = 5", "users: it is the number 5, and should be a list"),
            ("duration = ", ""),
        ];
        let of_users = [
            ("colour = 1", "colour: there is no such key: there are name, weight"),
            ("name = 5", "name: it is the number 5"),
            ("weight = 0", "weight: it is the number 0, and should be a whole number from 1 to 1000000"),
            ("rounds = 0", "rounds: it is the number 0, and should be a whole number from 1 on"),
            ("strict = 'yes'", "strict: it is the text"),
            ("away = '2s..1s'", "away: 2s..1s: the first is the shorter one"),
            ("away = 'soon'", "away: \"soon\" is not a time"),
            ("path = 'echo'", "path: it does not begin with a slash"),
            ("path = '{user}'", "path: it does not begin with a slash"),
            ("path = '/a b'", "path: it has characters that a URL cannot have"),
            ("path = '/{rom}'", "path: \"rom\": no such variable"),
            ("path = 5", "path: it is the number 5"),
            ("headers = 5", "headers: it is a number, and should be a table"),
            ("headers = 'Authorization: s3cret'", "headers: it is a text, and should be a table"),
            ("headers = { A = [] }", "headers.A: it is a list, and should be a text, a number, true or false"),
            ("headers = { 'A B' = 'x' }", "headers.A B: \"A B\" is no name of a header field"),
            ("headers = { Upgrade = 'x' }", "headers.Upgrade: Upgrade cannot be given: the handshake has its own"),
            ("headers = { Host = 'a', hOST = 'b' }", "headers.hOST: Host is given twice"),
            ("headers = { A = '{rom}' }", "headers.A: \"rom\": no such variable"),
            ("headers = { A = \"a\\u0001\" }", "headers.A: its value has characters that a header cannot have"),
            ("csv = 'tokens.csv'", "csv: /nowhere/tokens.csv: No such file"),
            ("csv = 5", "csv: it is the number 5"),
            ("variables = 5", "variables: it is the number 5, and should be a table"),
            ("variables = { a = [] }", "variables.a: it is a list"),
            ("variables = { 'a b' = 'x' }", "variables.a b: a name has letters"),
            ("variables = { count = 'x' }", "variables.count: {count} has a meaning already: there are {user}"),
            ("variables = { a = '{b}', b = '' }", "variables.a: \"b\": no such variable"),
            ("begin = 5", "begin: it is the number 5, and should be a list"),
            ("begin = ['x']", "begin[0]: it is the text \"x\", and should be a table"),
            ("steps = [{ think = 1 }, { name = 'x' }]", "steps[1]: it has none of send, expect and think"),
            ("steps = [{ sent = 'x' }]", "steps[0].sent: there is no such key: there are name, send"),
            ("steps = [{ name = 5, think = 1 }]", "steps[0].name: it is the number 5"),
            ("steps = [{ send = 5 }]", "steps[0].send: it is the number 5"),
            ("steps = [{ send = '{rom}', think = 1 }]", "steps[0].send: \"rom\": no such variable; there are {user}"),
            ("steps = [{ send = '{random:9..1}', think = 1 }]", "steps[0].send: \"random:9..1\": random:LOW..HIGH"),
            (
                "steps = [{ send = '{letters:99999999999999}', think = 1 }]",
                "steps[0].send: \"letters:99999999999999\": letters:NUMBER, of 1048576",
            ),
            ("steps = [{ think = 1, binary = true }]", "steps[0].binary: there is no send in this step"),
            ("steps = [{ send = 'x', think = 1, within = 1 }]", "steps[0].within: there is no expect in this step"),
            ("steps = [{ expect = 'sent', think = 1 }, { send = 'x' }]", "steps[0].expect: nothing is sent before it"),
            (
                "steps = [{ send = 'x', expect = [{ json = { a = [{ b = '{nope}' }] } }] }]",
                "steps[0].expect[0].json.a[0].b: \"nope\": no such",
            ),
            ("steps = [{ send = 'x', binary = 1 }]", "steps[0].binary: it is the number 1"),
            ("steps = [{ send = 'x' }]", "steps: users kim: its steps never wait"),
            ("steps = [{ think = '1 parsec' }]", "steps[0].think: \"1 parsec\" is not a time"),
            ("steps = [{ think = '2s..1s' }]", "steps[0].think: 2s..1s: the first is the shorter one"),
            ("steps = [{ think = {} }]", "steps[0].think: it is a table"),
            ("steps = [{ expect = 'any', within = 'x' }]", "steps[0].within: \"x\" is not a time"),
            (
                "steps = [{ expect = 'all' }]",
                "steps[0].expect: it is the text \"all\", and should be \"any\", \"sent\" or",
            ),
            (
                "steps = [{ expect = ['any', 5] }]",
                "steps[0].expect[1]: it is the number 5, and should be \"any\", \"sent\"",
            ),
            ("steps = [{ expect = { is = 'x' } }]", "steps[0].expect.is: there is no such key: there are equals"),
            ("steps = [{ expect = { equals = 'a', contains = 'b' } }]", "steps[0].expect: an expect has one of equals"),
            ("steps = [{ expect = {} }]", "steps[0].expect: an expect has one of equals"),
            ("steps = [{ expect = { equals = 5 } }]", "steps[0].expect.equals: it is the number 5"),
            ("steps = [{ expect = { contains = '{rom}' } }]", "steps[0].expect.contains: \"rom\": no such variable"),
            ("steps = [{ expect = { json = 5 } }]", "steps[0].expect.json: it is the number 5"),
            ("steps = [{ expect = { json = { a = { b = '{rom}' } } } }]", "steps[0].expect.json.a.b: \"rom\": no such"),
            ("steps = [{ expect = { json = { a = [inf] } } }]", "steps[0].expect.json.a[0]: JSON has no such number"),
        ];
        // Each key of the format has its row.
        let of_steps = steps::KEYS.into_iter().chain(steps::KEYS_OF_EXPECT);
        for key in KEYS.into_iter().chain(KEYS_OF_TLS).chain(KEYS_OF_A_STAGE).chain(KEYS_OF_USERS).chain(of_steps) {
            let is_told = |why: &str| {
                why.split(": ")
                    .next()
                    .unwrap_or_default()
                    .split(['.', '['])
                    .any(|part| part.trim_end_matches(|char: char| "0123456789]".contains(char)) == key)
            };
            assert!(of_file.iter().chain(&of_users).any(|(_, why)| is_told(why)), "{key}");
        }
        let rows = of_file.map(|(line, why)| (format!("# A file.\n\n{line}\n[[users]]\n"), 3, "", why));
        let rows_of_users =
            of_users.map(|(line, why)| (format!("[[users]]\nname = 'kim'\n{line}\n"), 3, "users[0].", why));
        let is_twice = |text: &str| text.matches("name = ").count() > 1 && text.contains("name = 5\n");
        for (text, line, of, why) in rows.into_iter().chain(rows_of_users) {
            let text = if is_twice(&text) { text.replace("name = 'kim'", "") } else { text };
            let text = if text.contains("users = 5") { text.replace("[[users]]", "") } else { text };
            let error = parse(&text).expect_err(&text);
            let (place, told) = error.split_once(": ").expect("a place");
            assert!(place.starts_with(&format!("{line}:")), "{text}: {error}");
            assert!(told.starts_with(&format!("{of}{why}")), "{text}: {error}");
        }
        for (text, why) in [
            ("", "1:1: there are no [[users]]"),
            ("users = []", "1:1: there are no [[users]]"),
            ("\n[[users]]\npath = '/'\n", "2:1: users[0]: there is nothing that they do: begin and steps are missing"),
            ("[[users]]\nsteps = []\n", "1:1: users[0]: there is nothing that they do: begin and steps are missing"),
        ] {
            assert!(parse(text).expect_err(text).starts_with(why), "{text}");
        }
        // What is sent at the beginning can be waited for later on.
        for text in ["begin = [{ send = 'x' }]\nsteps = [{ expect = 'sent' }]", "begin = [{ think = 1 }]"] {
            assert!(parse(&format!("[[users]]\n{text}")).is_ok(), "{text}");
        }
    }

    /// Kills: a value of a column that breaks each handshake while the run goes on.
    #[test]
    fn columns_are_looked_at_before_the_run() {
        let folder = std::env::temp_dir().join(format!("loadtest-rows-{}", std::process::id()));
        std::fs::create_dir(&folder).expect("a folder of our own");
        let read = |csv: &str, users: &str| {
            std::fs::write(folder.join("a.csv"), csv).expect("ours");
            std::fs::write(folder.join("a.toml"), format!("[[users]]\ncsv = 'a.csv'\n{users}")).expect("ours");
            Scenario::read(&folder.join("a.toml"), &Files::here())
        };
        let at = |place: &str| format!("{}:{place}", folder.join("a.toml").display());
        let csv = folder.join("a.csv");
        for (text, users, why) in [
            (
                "host\na\n\"b\nc\"\n",
                "headers = { Host = '{host}' }",
                "3:20: users[0].headers.Host: with line 3 of the csv file: ",
            ),
            (
                "p\n/a\nb\n",
                "path = '{p}'",
                "3:8: users[0].path: with line 3 of the csv file: it does not begin with a slash",
            ),
            ("p\n/a\n/ b\n", "variables = { q = '{p}' }\npath = '{q}'", "4:8: users[0].path: with line 3 of the csv"),
            ("p\n1\n", "variables = { p = 'x' }", "3:19: users[0].variables.p: a column of the csv file has this name"),
            ("p\n1\n", "headers = { Host = 'a', host = 'b' }", "3:32: users[0].headers.host: Host is given twice"),
            ("p\n\"1\n", "", &format!("2:7: users[0].csv: {}:2: a quote is not closed", csv.display())),
        ] {
            let error = read(text, users).expect_err(users);
            assert!(error.starts_with(&at(why)), "{error}");
        }
        let role = &read("p,q\n/a,x\n/b,y\n", "path = '{p}'\nheaders = { Host = '{q}' }\nsteps = [{ think = 1 }]")
            .expect("right")
            .script
            .roles[0];
        assert_eq!(role.rows, [["/a", "x"], ["/b", "y"]]);
        std::fs::remove_dir_all(folder).expect("ours");
    }
}
