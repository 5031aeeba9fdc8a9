//! The program as a user starts it: help, settings, exit codes.

#![cfg(feature = "cli")]

use std::io::{BufRead as _, BufReader, Read as _};
use std::net::TcpListener;
use std::process::{Command, Output, Stdio};

use ringwire::config::{Allowed, SETTINGS};

/// The program with these arguments, and of all variables of this crate only these.
fn command(arguments: &[&str], variables: &[(&str, &str)]) -> Command {
    let mut command = command_of(env!("CARGO_BIN_EXE_ringwire"), variables);
    command.args(arguments);
    command
}

fn command_of(program: &str, variables: &[(&str, &str)]) -> Command {
    let mut command = Command::new(program);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("RINGWIRE_") {
            command.env_remove(name);
        }
    }
    command.envs(variables.iter().copied()).stdin(Stdio::null());
    command
}

fn run(arguments: &[&str], variables: &[(&str, &str)]) -> Output {
    command(arguments, variables).output().expect("the program starts")
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).expect("UTF-8")
}

/// The one line on standard error of a start that fails with this code.
fn failure(output: &Output, code: i32) -> String {
    let text = String::from_utf8(output.stderr.clone()).expect("UTF-8");
    assert_eq!(output.status.code(), Some(code), "{text}");
    assert!(output.stdout.is_empty());
    assert!(text.starts_with("ringwire: "), "{text}");
    assert_eq!(text.lines().count(), 1, "{text}");
    text
}

#[test]
fn help_has_every_setting() {
    for arguments in [&["--help"][..], &["check", "--help"], &["-h"]] {
        let output = run(arguments, &[]);
        assert!(output.status.success());
        let help = stdout(&output);
        for setting in SETTINGS {
            let flag = format!("--{} <", setting.flag());
            assert!(help.contains(&flag), "{flag} in {help}");
            let default = format!("[default: {}; ", setting.default);
            let variable = format!("; {}]", setting.variable);
            let unwrapped = help.split_whitespace().collect::<Vec<_>>().join(" ");
            assert!(unwrapped.contains(&default), "{default} in {help}");
            assert!(unwrapped.contains(&variable), "{variable} in {help}");
            if let Allowed::Word(_) | Allowed::Text(..) = setting.allowed {
                let allowed = format!("; allowed: {}; {}]", setting.allowed.describe(), setting.variable);
                assert!(unwrapped.contains(&allowed), "{allowed} in {help}");
            }
        }
    }
    let help = stdout(&run(&["--help"], &[]));
    for subcommand in ["serve", "check", "config"] {
        assert!(help.contains(&format!("\n  {subcommand} ")), "{help}");
    }
}

#[test]
fn version() {
    let output = run(&["--version"], &[]);
    assert!(output.status.success());
    let expected = concat!("ringwire ", env!("CARGO_PKG_VERSION"), "\n");
    assert_eq!(stdout(&output), expected);
}

#[test]
fn a_bad_value_is_a_config_error_of_every_subcommand() {
    for subcommand in ["serve", "check", "config"] {
        let output = run(&[subcommand], &[("RINGWIRE_RECV_BUFFERS", "1000")]);
        assert_eq!(
            failure(&output, 78),
            "ringwire: RINGWIRE_RECV_BUFFERS=1000 is not allowed: it must be a power of two from 1 to 32768\n"
        );
    }
    let output = run(&["--max-outbox", "much"], &[]);
    assert!(failure(&output, 78).contains("--max-outbox=much is not allowed: it must be a size"));
}

#[test]
fn a_bad_log_filter_is_a_config_error() {
    let output = run(&["config"], &[("RINGWIRE_LOG", "ringwire=loud")]);
    assert!(failure(&output, 78).contains("RINGWIRE_LOG=ringwire=loud"));
}

#[test]
fn an_unknown_variable_is_a_config_error_with_a_suggestion() {
    let output = run(&[], &[("RINGWIRE_MAX_CONECTIONS", "10")]);
    assert_eq!(
        failure(&output, 78),
        "ringwire: unknown variable RINGWIRE_MAX_CONECTIONS: did you mean RINGWIRE_MAX_CONNECTIONS?\n"
    );
}

#[test]
fn an_unknown_flag_is_wrong_usage() {
    let output = run(&["--max-conections", "10"], &[]);
    assert_eq!(output.status.code(), Some(64));
    assert!(String::from_utf8_lossy(&output.stderr).contains("--max-connections"));
}

#[test]
fn flags_win_over_variables() {
    let output = run(
        &["--cores", "3", "config", "--idle-timeout=90s"],
        &[("RINGWIRE_CORES", "2"), ("RINGWIRE_IDLE_TIMEOUT", "1h")],
    );
    let lines = stdout(&output);
    assert!(lines.contains("RINGWIRE_CORES=3\n"), "{lines}");
    assert!(lines.contains("RINGWIRE_IDLE_TIMEOUT=90s\n"), "{lines}");
}

#[test]
fn printed_settings_can_be_fed_back() {
    let settings = [
        ("RINGWIRE_ADDR", "[::1]:9100,unix:/tmp/a $(touch it)'s `socket`;\"#"),
        ("RINGWIRE_CORES", "5-5"),
        ("RINGWIRE_SPIN", "50us"),
        ("RINGWIRE_MAX_HEAD", "1000"),
        ("RINGWIRE_SLOW_CONSUMER", "drop-old"),
        ("RINGWIRE_LOG", "warn,ringwire=debug"),
    ];
    let first = stdout(&run(&["config"], &settings));
    assert_eq!(first.lines().count(), SETTINGS.len());
    // By a shell, which must find nothing to do in them but to set variables.
    let mut shell = command_of("sh", &settings[..0]);
    shell.args(["-euc", "set -a; eval \"$1\"; set +a; \"$0\" config; printf %s \"$RINGWIRE_ADDR\""]);
    let output = shell.args([env!("CARGO_BIN_EXE_ringwire"), &first]).output().expect("a shell");
    assert!(output.status.success() && output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(stdout(&output), first.clone() + settings[0].1);
    for plain in ["\nRINGWIRE_CORES=5-5\n", "\nRINGWIRE_ORIGINS='*'\n", "\nRINGWIRE_API_TOKEN='(none)'\n"] {
        assert!(first.contains(plain), "{plain} in {first}");
    }
}

#[test]
fn check_tells_about_this_machine() {
    let output = run(&["check", "--addr=127.0.0.1:0"], &[]);
    let report = stdout(&output);
    assert_eq!(output.status.code(), Some(0), "{report}");
    for what in [
        "kernel: ",
        "RINGWIRE_ADDR: 127.0.0.1:0 can be",
        "admin address: none",
        "proxies: ",
        "io_uring: works",
        "seccomp: ",
        "RLIMIT_NOFILE: ",
        "RLIMIT_MEMLOCK: ",
        "net.core.somaxconn: ",
    ] {
        assert!(report.contains(what), "{what} in {report}");
    }
}

#[test]
fn check_tells_what_ports_are_taken() {
    let other = TcpListener::bind("127.0.0.1:0").expect("a listener");
    let address = other.local_addr().expect("an address").to_string();
    for flag in ["--addr", "--admin-addr"] {
        let output = run(&["check", "--addr=127.0.0.1:0", flag, &address], &[]);
        let report = stdout(&output);
        assert_eq!(output.status.code(), Some(78), "{report}");
        assert!(report.contains(&format!("{address} cannot be listened on: ")), "{report}");
        assert!(report.contains("RINGWIRE_REUSEPORT=true"), "{report}");
    }
    let trusting = stdout(&run(&["check", "--addr=127.0.0.1:0", "--trusted-proxies=0.0.0.0/0"], &[]));
    assert!(trusting.contains("advice  proxies: trusted: 0.0.0.0/0;"), "{trusting}");
}

#[test]
fn check_tells_what_is_bad() {
    let output = run(&["check", "--cores=0,1023"], &[]);
    let report = stdout(&output);
    assert_eq!(output.status.code(), Some(78), "{report}");
    assert!(report.contains("RINGWIRE_CORES=0,1023 cannot be"), "{report}");
}

#[test]
fn processors_that_are_not_there_are_a_config_error() {
    let output = run(&["--cores=0,1023"], &[]);
    assert!(failure(&output, 78).contains("RINGWIRE_CORES=0,1023 cannot be"));
}

#[test]
fn an_address_in_use_is_unavailable() {
    let other = TcpListener::bind("127.0.0.1:0").expect("a listener");
    let address = other.local_addr().expect("an address").to_string();
    let output = run(&["--addr", &address], &[("RINGWIRE_LOG", "off")]);
    let line = failure(&output, 69);
    assert!(line.contains(&format!("cannot listen on {address}: ")), "{line}");
}

#[test]
fn the_first_line_tells_where_operators_ask() {
    let mut child = command(&["--addr=127.0.0.1:0", "--admin-addr=127.0.0.1:0", "--cores=1", "--log=off"], &[])
        .stdout(Stdio::piped())
        .spawn()
        .expect("the program starts");
    let mut line = String::new();
    BufReader::new(child.stdout.take().expect("a pipe")).read_line(&mut line).expect("a line");
    child.kill().expect("it runs");
    child.wait().expect("it ended");
    assert!(line.starts_with("ringwire listening on ws://127.0.0.1:"), "{line}");
    let (_, admin) = line.split_once(" (1 cores), admin on http://127.0.0.1:").expect(&line);
    assert!(admin.trim_end().parse::<u16>().is_ok_and(|port| port != 0), "{line}");
}

#[test]
fn the_first_line_tells_the_real_port() {
    let mut child = command(&["--addr=127.0.0.1:0", "--cores=2"], &[])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    let mut line = String::new();
    let mut output = BufReader::new(child.stdout.take().expect("a pipe"));
    output.read_line(&mut line).expect("a line");
    child.kill().expect("it runs");
    let mut log = String::new();
    let mut errors = child.stderr.take().expect("a pipe");
    errors.read_to_string(&mut log).expect("UTF-8");
    child.wait().expect("it ended");
    let port = line
        .strip_prefix("ringwire listening on ws://127.0.0.1:")
        .and_then(|rest| rest.strip_suffix(" (2 cores)\n"))
        .and_then(|port| port.parse::<u16>().ok());
    assert!(port.is_some_and(|port| port != 0), "{line:?}, {log}");
}
