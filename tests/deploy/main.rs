//! The files of deploy/: each is used as its reader will use it, as far as a machine without their container runtimes can, and
//! whatever they name of the program is looked up in the program.
//!
//! What needs a tool that is not installed is skipped, and says so.

#![cfg(feature = "cli")]
#![forbid(unsafe_code)]

#[path = "../common/mod.rs"]
mod common;

mod confined;
mod containers;
mod dashboard;
mod manifests;
mod monitoring;
mod units;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use ringwire::config::{Config, SETTINGS, Setting};
use yaml_rust2::{Yaml, YamlLoader};

fn place(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

fn read(name: &str) -> String {
    std::fs::read_to_string(place(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn json(name: &str) -> serde_json::Value {
    serde_json::from_str(&read(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// The documents of a file.
fn yaml(name: &str) -> Vec<Yaml> {
    YamlLoader::load_from_str(&read(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn text(value: &Yaml) -> &str {
    value.as_str().unwrap_or_else(|| panic!("not a text: {value:?}"))
}

fn list(value: &Yaml) -> &[Yaml] {
    value.as_vec().unwrap_or_else(|| panic!("not a list: {value:?}"))
}

/// Whether a program is installed; says so if not.
fn is_installed(program: &str) -> bool {
    let places = std::env::var_os("PATH").unwrap_or_default();
    let more = [PathBuf::from("/usr/sbin"), PathBuf::from("/usr/local/sbin")];
    let is_there = std::env::split_paths(&places).chain(more).any(|place| place.join(program).is_file());
    if !is_there {
        eprintln!("skipped: {program} is not installed");
    }
    is_there
}

/// The output of a command that succeeds.
fn output(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {text}");
    text
}

/// A folder of a test's own, which is gone with this.
struct Scratch(PathBuf);

/// Makes each one another.
static SCRATCHES: AtomicU32 = AtomicU32::new(0);

impl Scratch {
    fn new(name: &str) -> Scratch {
        let number = SCRATCHES.fetch_add(1, Ordering::Relaxed);
        let place = std::env::temp_dir().join(format!("ringwire-deploy-{name}-{}-{number}", std::process::id()));
        let _ = std::fs::remove_dir_all(&place);
        std::fs::create_dir_all(&place).expect("a folder");
        Scratch(place)
    }

    fn file(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.0.join(name);
        std::fs::write(&path, content).expect("a file");
        path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// The settings that these variables make, which must be allowed, each by itself and all together.
fn config_of(variables: &BTreeMap<String, String>) -> Config {
    let given = variables.iter().map(|(name, value)| (name.into(), value.into()));
    let config = Config::from_sources(given, std::iter::empty::<(&Setting, &str)>()).expect("settings of the program");
    config.validate().expect("settings that go together");
    config
}

fn seconds(config: &Config, setting: &str) -> f64 {
    let value = Setting::named(setting).expect("a setting").value(config);
    value.parse::<humantime::Duration>().map_or_else(|_| panic!("{setting}={value}"), |time| time.as_secs_f64())
}

/// How long the program may take to end: its times, and its grace for cores that hang.
fn end_s(config: &Config) -> f64 {
    seconds(config, "RINGWIRE_DRAIN_NOTICE") + seconds(config, "RINGWIRE_DRAIN_TIMEOUT") + 10.0
}

/// The port that a setting of an address names.
fn port(config: &Config, setting: &str) -> i64 {
    let value = Setting::named(setting).expect("a setting").value(config);
    value.rsplit(':').next().and_then(|port| port.parse().ok()).unwrap_or_else(|| panic!("{setting}={value}"))
}

/// Whatever looks like a setting of the program is one, in all files of deploy/ and their guide.
#[test]
fn settings_that_are_named_are_there() {
    let known: Vec<&str> = SETTINGS.iter().map(|setting| setting.variable).collect();
    let mut files = 0;
    for entry in std::fs::read_dir(place("deploy")).expect("a folder") {
        let path = entry.expect("a file").path();
        let content = std::fs::read_to_string(&path).expect("UTF-8");
        files += 1;
        for (at, _) in content.match_indices("RINGWIRE_") {
            let rest = &content[at..];
            let end = rest.find(|it: char| !(it.is_ascii_uppercase() || it == '_')).unwrap_or(rest.len());
            assert!(known.contains(&&rest[..end]), "{}: {}", path.display(), &rest[..end]);
        }
    }
    assert!(files >= 11, "{files}");
}

/// Kills: a guide, or a message of `check`, that names a file which is not there.
#[test]
fn files_that_are_named_are_there() {
    let mut named = 0;
    for page in ["deploy/README.md", "README.md", "CONTRIBUTING.md", "src/check/judge.rs", "src/server/mod.rs"] {
        let content = read(page);
        for (at, _) in content.match_indices("deploy/") {
            let rest = &content[at..];
            let end = rest.find(|it: char| !(it.is_ascii_alphanumeric() || "/.-_".contains(it))).unwrap_or(rest.len());
            let name = rest[..end].trim_end_matches(['.', '/']);
            named += 1;
            assert!(place(name).exists(), "{page} names {name}");
        }
    }
    assert!(named > 20, "{named}");
}

/// The texts of a list.
fn list_of(value: &serde_json::Value) -> Vec<String> {
    let texts = value.as_array().into_iter().flatten().filter_map(serde_json::Value::as_str);
    texts.map(str::to_owned).collect()
}
