//! The settings of a run as its report has them, so that two reports can be told to be alike. They are taken from the command line as
//! it was read, defaults included: a new option is one of them.

use std::path::Path;

use clap::{ArgMatches, CommandFactory};
use serde_json::{Map, Value, json};

use crate::{
    cli::{self, Cli},
    files::Files,
    target,
};

/// What says nothing of the load: where to and as whom, who makes the run, what comes of it; `text` is whatever is not `binary`.
const LEFT_OUT: [&str; 19] = [
    "agent_patience",
    "agents",
    "bind",
    "ca",
    "client_key",
    "hdr_log",
    "html",
    "insecure",
    "json",
    "junit",
    "quiet",
    "rounds",
    "server_pid",
    "slo",
    "summary",
    "text",
    "token",
    "url",
    "help",
];

/// The settings of the scenario that was asked for, by the options' names.
pub(crate) fn of(matches: &ArgMatches, files: &Files) -> Value {
    let mut settings = Map::new();
    let cli = Cli::command();
    let scenario = matches.subcommand().and_then(|(name, matches)| Some((cli.find_subcommand(name)?, matches)));
    let Some((command, matches)) = scenario else { return Value::Null };
    for arg in command.get_arguments() {
        let id = arg.get_id().as_str();
        let name = arg.get_long().unwrap_or(id).replace('-', "_");
        let Ok(Some(raw)) = matches.try_get_raw(id) else { continue };
        if LEFT_OUT.contains(&name.as_str()) || id == "positional" {
            continue;
        }
        let is_time = arg.get_value_names().is_some_and(|names| names.iter().any(|name| name == "TIME"));
        let values = raw.map(|value| {
            let value = value.to_string_lossy();
            match name.as_str() {
                // Of what may be secret, that it is there.
                "header" => value.split(':').next().unwrap_or_default().trim().to_owned(),
                "client_cert" => "given".to_owned(),
                "file" => named(Path::new(value.as_ref()), files),
                // However it was written.
                _ if is_time => {
                    cli::time(&value).map_or_else(|_| value.into(), |time| humantime::format_duration(time).to_string())
                }
                _ => value.into_owned(),
            }
        });
        let values: Vec<String> = values.collect();
        settings.insert(name, json!(values.join(", ")));
    }
    Value::Object(settings)
}

/// A command line as reports have it: of what may be secret, that it is there.
pub(crate) fn shown(arguments: impl IntoIterator<Item = String>) -> Vec<String> {
    let mut secret_of = None;
    let show = |argument: String| {
        if let Some(option) = secret_of.take() {
            return hidden(option, &argument);
        }
        if is_url(&argument) {
            return target::shown(&argument);
        }
        if let Some(url) = argument.strip_prefix("--url=") {
            return format!("--url={}", target::shown(url));
        }
        let (option, value) = match argument.split_once('=') {
            Some((option, value)) => (option, Some(value)),
            None => (argument.as_str(), None),
        };
        let option = ["--token", "--header"].into_iter().find(|secret| *secret == option);
        match (option, value) {
            (Some(option), Some(value)) => format!("{option}={}", hidden(option, value)),
            (option, _) => {
                secret_of = option;
                argument
            }
        }
    };
    arguments.into_iter().map(show).collect()
}

fn is_url(argument: &str) -> bool {
    argument.starts_with("ws://") || argument.starts_with("wss://")
}

fn hidden(option: &str, value: &str) -> String {
    match value.split_once(':') {
        Some((name, _)) if option == "--header" => format!("{name}: (set)"),
        _ => "(set)".to_owned(),
    }
}

/// A file's name, and a number that is another one for other contents (FNV-1a).
fn named(path: &Path, files: &Files) -> String {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let bytes = files.read(path).unwrap_or_default();
    let number = bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325_u64, |number, byte| (number ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3));
    format!("{name} ({number:016x})")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(line: &str) -> Value {
        let line = format!("ringwire-loadtest {line}");
        of(&Cli::command().try_get_matches_from(line.split(' ')).expect("a command line"), &Files::here())
    }

    /// Kills: an option that changes the load and is no setting; a secret in a report.
    #[test]
    fn whatever_changes_the_load_is_a_setting() {
        const COMMON: &str = "binary concurrency content deflate deflate_min header key_exchange client_cert no_resumption patience pin \
                              ramp raw size subprotocol threads";
        const FLOW: &str = "count duration rate warmup";
        let scenarios = [
            ("echo", FLOW, "connections pipeline stages"),
            ("fanout", FLOW, "subscribers publishers burst"),
            ("rooms", FLOW, "rooms members publishers burst"),
            ("slow", FLOW, "subscribers stalled stall_after publishers burst"),
            ("emit", FLOW, "connections posters pipeline api"),
            ("connect", "", "connections hold echo ping ping_rate"),
            ("churn", FLOW, "users words stages"),
            ("run", "", "file stages"),
            ("replay", "", "file connections repeat speed match"),
        ];
        let cli = Cli::command();
        for (scenario, flow, own) in scenarios {
            let expected: Vec<&str> = [COMMON, flow, own].into_iter().flat_map(str::split_whitespace).collect();
            let command = cli.find_subcommand(scenario).expect("a scenario");
            let names =
                command.get_arguments().map(|arg| arg.get_long().unwrap_or(arg.get_id().as_str()).replace('-', "_"));
            let mut names: Vec<String> =
                names.filter(|name| !LEFT_OUT.contains(&name.as_str()) && name != "positional").collect();
            names.sort_unstable();
            let mut expected: Vec<&str> = expected;
            expected.sort_unstable();
            assert_eq!(names, expected, "{scenario}");
        }
    }

    /// Kills: a token in a report, however it is given.
    #[test]
    fn what_may_be_secret_is_not_shown() {
        for (line, expected) in [
            ("echo|ws://x/|--size|64", "echo|ws://x/|--size|64"),
            ("emit|--token|s3cret|--rate|5", "emit|--token|(set)|--rate|5"),
            ("emit|--token=s3=cret|--rate=5", "emit|--token=(set)|--rate=5"),
            ("echo|--header|Authorization: Bearer s3cret|--quiet", "echo|--header|Authorization: (set)|--quiet"),
            ("echo|--header=Cookie: a=s3cret", "echo|--header=Cookie: (set)"),
            ("echo|--header|s3cret", "echo|--header|(set)"),
            ("emit|--token", "emit|--token"),
            ("echo|ws://x/?t=s3cret|--url|wss://x/?s3cret", "echo|ws://x/?t=…|--url|wss://x/?…"),
            ("echo|--url=ws://x/?t=s3cret", "echo|--url=ws://x/?t=…"),
        ] {
            let shown = shown(line.split('|').map(str::to_owned));
            assert_eq!(shown.join("|"), expected, "{line}");
        }
    }

    #[test]
    fn settings_are_as_they_were_read() {
        let url = "ws://127.0.0.1:1/";
        let plain = settings(&format!("echo {url}"));
        for (name, value) in [("connections", "64"), ("duration", "5s"), ("deflate_min", "256"), ("raw", "false")] {
            assert_eq!(plain[name], value, "{name}");
        }
        assert!(plain["rate"].is_null() && plain["deflate"].is_null() && plain["url"].is_null(), "{plain}");
        // However they are written, and where to and with what comes of it left out.
        let same = format!(
            "echo --url {url} --duration 5.0 --warmup 1000ms --text --quiet --json x --server-pid 1 --connections 64"
        );
        assert_eq!(settings(&same), plain);
        let more = settings(&format!(
            "emit {url} --deflate --rate 5 --header Authorization:Bearer_secret --token secret --client-cert a --client-key b"
        ));
        for (name, value) in
            [("deflate", "context"), ("rate", "5"), ("header", "Authorization"), ("client_cert", "given")]
        {
            assert_eq!(more[name], value, "{name}");
        }
        assert!(!more.to_string().contains("secret"), "{more}");
        let file = settings("run /proc/self/comm");
        assert!(file["file"].as_str().is_some_and(|file| file.starts_with("comm (") && file.len() == 23), "{file}");
    }
}
