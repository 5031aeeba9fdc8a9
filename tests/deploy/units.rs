//! The systemd units, and what the program tells systemd.

use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixDatagram;
use std::process::Command;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::common::program::{Program, command};
use crate::common::raw::Raw;
use crate::{Scratch, config_of, end_s, is_installed, output, port, read};

/// Exposure that `systemd-analyze security` may find at most, in tenths: 10 is what an ordinary unit has without hardening, in
/// whole numbers.
const EXPOSURE_MAX_TENTHS: u32 = 20;

/// Values of a line `NAME=value` in a unit.
fn values(unit: &str, name: &str) -> Vec<String> {
    let unit = read(unit);
    let of_name = unit.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix('='));
    of_name.map(str::to_owned).collect()
}

/// Both units, with the program where it is.
fn installed(scratch: &Scratch) -> [std::path::PathBuf; 2] {
    let unit = read("deploy/ringwire.service");
    assert_eq!(unit.matches("ExecStart=/usr/local/bin/ringwire\n").count(), 1);
    let unit = unit.replace("/usr/local/bin/ringwire", env!("CARGO_BIN_EXE_ringwire"));
    [scratch.file("ringwire.service", unit), scratch.file("ringwire.socket", read("deploy/ringwire.socket"))]
}

#[test]
fn systemd_takes_the_units() {
    if is_installed("systemd-analyze") {
        let scratch = Scratch::new("verify");
        let said = output(Command::new("systemd-analyze").arg("verify").args(installed(&scratch)));
        assert!(!said.contains("ringwire"), "{said}");
    }
}

#[test]
fn the_service_is_hardened() {
    if is_installed("systemd-analyze") {
        let scratch = Scratch::new("security");
        let mut command = Command::new("systemd-analyze");
        command.args(["security", "--no-pager", "--offline=true", &format!("--threshold={EXPOSURE_MAX_TENTHS}")]);
        output(command.arg(&installed(&scratch)[0]));
    }
}

#[test]
fn the_units_say_of_the_program_what_holds() {
    let config = config_of(&Default::default());
    let stop: f64 = values("deploy/ringwire.service", "TimeoutStopSec")[0].parse().expect("seconds");
    assert!(stop >= end_s(&config), "{stop} s for {} s", end_s(&config));
    let nofile: u64 = values("deploy/ringwire.service", "LimitNOFILE")[0].parse().expect("a number");
    assert!(nofile >= 1_000_000, "as many as RINGWIRE_MAX_CONNECTIONS by default");
    let listens = &values("deploy/ringwire.socket", "ListenStream")[0];
    assert!(listens.ends_with(&format!(":{}", port(&config, "RINGWIRE_ADDR"))));
    assert_eq!(values("deploy/ringwire.socket", "Backlog"), ["4096"]);
    // Settings that are wrong, and wrong usage.
    assert_eq!(values("deploy/ringwire.service", "RestartPreventExitStatus"), ["64 78"]);
}

fn told(socket: &UnixDatagram) -> String {
    let mut buffer = [0; 4096];
    let len = socket.recv(&mut buffer).expect("a word in time");
    String::from_utf8(buffer[..len].to_vec()).expect("UTF-8")
}

/// Kills: a service manager that waits for READY=1 for ever, and one that ends a drain halfway.
#[test]
fn the_service_manager_is_told_of_the_start_and_of_the_end() {
    let scratch = Scratch::new("notify");
    let path = scratch.0.join("notify");
    let socket = UnixDatagram::bind(&path).expect("a socket");
    socket.set_read_timeout(Some(Duration::from_secs(60))).expect("a timeout");
    let arguments = ["--addr=127.0.0.1:0", "--cores=2", "--log=error", "--drain-notice=2s", "--drain-timeout=3s"];
    let mut command = command("", &arguments);
    command.env("NOTIFY_SOCKET", &path);
    let program = Program::run(command);
    assert_eq!(
        told(&socket),
        format!("READY=1\nSTATUS={}", program.first_line.trim_start_matches("ringwire ").trim_end())
    );
    let mut client = Raw::connect(program.address);
    client.upgrade("/echo");
    program.signal(Signal::SIGTERM);
    assert_eq!(told(&socket), "STOPPING=1\nSTATUS=draining\nEXTEND_TIMEOUT_USEC=15000000");
    // It is told at the beginning, when clients are served as ever.
    client.send(&crate::common::raw::text("still here"));
    assert_eq!(client.frame().payload, b"still here");
    assert_eq!(client.frame().code(), Some(1001));
    drop(client);
    assert!(program.ended().success());
}

/// A start that fails tells nobody that it is ready.
#[test]
fn a_start_that_fails_is_not_told_as_ready() {
    let scratch = Scratch::new("unready");
    let path = scratch.0.join("notify");
    let socket = UnixDatagram::bind(&path).expect("a socket");
    socket.set_nonblocking(true).expect("a mode");
    let mut command = command("", &["--addr=256.0.0.1:0", "--log=error"]);
    let output = command.env("NOTIFY_SOCKET", &path).output().expect("it starts");
    assert!(!output.status.success());
    assert!(socket.recv(&mut [0; 64]).is_err());
}

/// The commands of the guide that make the file of settings, as they are run: by somebody with the usual umask, anew and again over
/// one that all may read.
///
/// Kills: a file with a token in it that everybody can read, and one that the program does not read back.
#[test]
fn the_file_of_settings_is_for_its_owner_alone() {
    let path = values("deploy/ringwire.service", "EnvironmentFile")[0].trim_start_matches('-').to_owned();
    let guide = read("deploy/README.md");
    let commands: Vec<&str> =
        guide.lines().filter_map(|line| line.strip_prefix("    ")).filter(|line| line.contains(&path)).collect();
    assert!(commands.iter().any(|command| command.contains(&format!("> {path}"))), "{commands:?}");
    let scratch = Scratch::new("settings");
    let file = scratch.0.join("ringwire.env");
    let script = commands.join("\n").replace(&path, &file.display().to_string());
    let script = format!("set -e\numask 022\nringwire() {{ {} \"$@\"; }}\n{script}\n", env!("CARGO_BIN_EXE_ringwire"));
    for existed in [false, true] {
        if existed {
            std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).expect("ours");
        }
        output(Command::new("sh").arg("-c").arg(&script).env("RINGWIRE_LOG_FORMAT", "json"));
        let mode = std::fs::metadata(&file).expect("a file").permissions().mode() & 0o777;
        assert_eq!(mode, 0o600, "existed: {existed}");
        let read_back = format!("set -a; . {}; {} config", file.display(), env!("CARGO_BIN_EXE_ringwire"));
        let settings = output(Command::new("sh").arg("-c").arg(read_back));
        assert_eq!(settings, std::fs::read_to_string(&file).expect("UTF-8"));
        assert!(settings.contains("\nRINGWIRE_LOG_FORMAT=json\n"), "{settings}");
    }
    // Whatever else a guide has somebody write below /etc is made for few to read, too.
    for page in ["deploy/README.md", "README.md", "docs/tls.md", "docs/many_machines.md", "docs/behind_a_proxy.md"] {
        let page_text = read(page);
        for line in page_text.lines().filter(|line| line.starts_with("    ") || line.starts_with('$')) {
            if let Some((_, rest)) = line.split_once("> /etc/") {
                let written = format!("/etc/{}", rest.split_whitespace().next().unwrap_or_default());
                let is_made = |line: &str| line.contains("install -m 6") && line.ends_with(&written);
                assert!(page_text.lines().any(is_made), "{page}: {line}");
            }
        }
    }
}
