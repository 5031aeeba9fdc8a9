//! `peers compare` with a server started by hand. In place of the load generator is a script that notes how it is called
//! and writes figures, so that nothing is measured here.

use std::{
    fs,
    io::{BufRead, BufReader},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
};

use nix::{
    sched::{CpuSet, sched_getaffinity},
    unistd::Pid,
};

const PEERS: &str = env!("CARGO_BIN_EXE_peers");

const LOAD_GENERATOR: &str = r#"#!/bin/sh
echo "$@" >>"$0.calls"
while [ "$1" != --json ]; do shift; done
echo '{"messages_per_s": 20000, "latency_us": {"p50": 250, "p99": 1500}, "handshake_us": {"p50": 7000, "p99": 9000},
    "server": {"cpu_us_per_message": 4.5, "cpu_us_per_connection": 12.25, "rss_bytes_per_connection": 640}}' >"$2"
"#;

/// A directory of this test's own.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Self {
        let path = std::env::temp_dir().join(format!("peers-compare-test-{}", std::process::id()));
        fs::create_dir_all(&path).expect("a directory");
        Self(path)
    }

    fn load_generator(&self) -> PathBuf {
        let path = self.0.join("load-generator");
        fs::write(&path, LOAD_GENERATOR).expect("written");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("ours");
        path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

struct Peer(Child);

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn start_peer() -> (Peer, String) {
    let mut child = Command::new(PEERS)
        .args(["serve", "tokio-tungstenite", "--addr", "127.0.0.1:0"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("the program starts");
    let mut line = String::new();
    BufReader::new(child.stdout.take().expect("piped")).read_line(&mut line).expect("a line");
    let addr = line.trim().strip_prefix("listening on ").expect("the ready line").to_owned();
    (Peer(child), addr)
}

fn compare(load_generator: &Path, arguments: &[&str]) -> Output {
    let allowed = sched_getaffinity(Pid::from_raw(0)).expect("our own");
    let cpu = (0..CpuSet::count()).find(|cpu| allowed.is_set(*cpu) == Ok(true)).expect("one").to_string();
    Command::new(PEERS)
        .args(["compare", "--rounds", "2", "--duration", "0.5", "--server-cpu", &cpu, "--client-cpu", &cpu])
        .arg("--loadtest")
        .arg(load_generator)
        // It only has to be there.
        .args(["--ringwire", "/bin/true"])
        .args(arguments)
        .output()
        .expect("the program starts")
}

fn refused(load_generator: &Path, arguments: &[&str], why: &str) {
    let output = compare(load_generator, arguments);
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && text.contains(why), "{why:?} is not in {text}");
    assert!(output.stdout.is_empty(), "no table");
}

#[test]
fn a_server_started_by_hand_is_measured_where_it_is() {
    let scratch = Scratch::new();
    let load_generator = scratch.load_generator();
    let (peer, addr) = start_peer();
    let pid = peer.0.id();
    let named = format!("mine=ws://{addr}/,{pid}");
    let output = compare(&load_generator, &["--servers", "mine", "--peer", &named, "--rows", "1,idle"]);
    let (table, told) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{table}{told}");
    for row in [
        "| echo 64 x 64 B | mine | 20 k | 4.50 us | - | 250 us | 1.5 ms | 640 B |",
        "| 10,000 idle | mine | 20 k | 12.25 us | - | 7.0 ms | 9.0 ms | 640 B |",
    ] {
        assert!(table.lines().any(|line| line == row), "{row} is not in\n{table}");
    }
    assert_eq!(table.lines().filter(|line| line.contains("mine")).count(), 2, "{table}");
    let calls = fs::read_to_string(scratch.0.join("load-generator.calls")).expect("it was called");
    let calls: Vec<&str> = calls.lines().collect();
    assert_eq!(calls.len(), 4, "two rows, two rounds");
    for (call, scenario) in calls.iter().zip(["echo", "echo", "connect", "connect"]) {
        let to_it = format!("--url ws://{addr}/echo --server-pid={pid}");
        assert!(call.starts_with(scenario) && call.contains(&to_it) && !call.contains("--raw"), "{call}");
    }

    let twice = ["--peer", &named, "--peer", &named];
    refused(&load_generator, &twice, "two peers are called \"mine\"");
    refused(&load_generator, &["--servers", "nobody", "--peer", &named], "no server is called \"nobody\"");
    refused(&load_generator, &["--rows", "nothing", "--peer", &named], "no row is called \"nothing\"");
    drop(peer);
    refused(&load_generator, &["--peer", &named], &format!("peer mine: there is no process {pid}"));
}
