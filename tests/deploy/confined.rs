//! The program within what the files of deploy/ leave to it: system calls, capabilities, a file system that is read only.

use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::common::PATIENCE;
use crate::common::program::Program;
use crate::common::raw::{self, Raw};
use crate::{Scratch, is_installed, json, list_of, output, place, read};

const ADDED: [&str; 3] = ["io_uring_enter", "io_uring_register", "io_uring_setup"];

/// The calls that a profile allows whatever their arguments.
fn allowed(profile: &Value) -> BTreeSet<String> {
    let rules = profile["syscalls"].as_array().expect("rules");
    let plain = rules.iter().filter(|rule| rule["action"] == "SCMP_ACT_ALLOW" && rule.get("args").is_none());
    plain.flat_map(|rule| list_of(&rule["names"])).collect()
}

/// The profile without these calls.
fn without(profile: &Value, calls: &[&str]) -> Value {
    let mut profile = profile.clone();
    for rule in profile["syscalls"].as_array_mut().expect("rules") {
        rule["names"].as_array_mut().expect("names").retain(|name| !calls.iter().any(|call| name == call));
    }
    profile
}

/// The program under a profile, without capabilities; `None` where that cannot be tried here.
fn confined(profile: &Path, arguments: &[&str]) -> Option<Command> {
    if !is_installed("python3") {
        return None;
    }
    let confine = place("tests/deploy/confine.py");
    let mut command = Command::new("python3");
    command.arg(&confine).arg(profile);
    // Whether the tool can do it here at all.
    let status = Command::new("python3").arg(&confine).arg(profile).arg("/bin/true").status().expect("it starts");
    if status.code() == Some(77) {
        eprintln!("skipped: libseccomp is not installed");
        return None;
    }
    command.arg(env!("CARGO_BIN_EXE_ringwire")).args(arguments);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("RINGWIRE_") {
            command.env_remove(name);
        }
    }
    command.stdin(Stdio::null());
    Some(command)
}

/// Serves in such a confinement, which is one: of the process itself, which the tool has become.
///
/// Kills: a tool that confines nothing.
fn serves_confined(command: Command) {
    serves(command, |program| {
        let are = ["Seccomp:", "NoNewPrivs:", "CapEff:", "CapBnd:"].map(|name| program.status(name));
        assert_eq!(are[..3], ["2", "1", "0000000000000000"], "{are:?}");
        let users = program.status("Uid:");
        assert!(users.split_whitespace().all(|user| user != "0"), "{users}");
    });
}

/// What a start that fails says; it is ended where it does not fail.
fn refused(command: &mut Command) -> Output {
    command.stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("it starts");
    let start = Instant::now();
    while child.try_wait().expect("it can be asked").is_none() {
        if start.elapsed() > PATIENCE {
            let _ = child.kill();
            let _ = child.wait();
            panic!("{command:?} serves");
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    child.wait_with_output().expect("what it has said")
}

/// It accepts, upgrades, echoes small and large messages on both cores, tells its metrics, and drains.
/// It has nothing to complain of: what it may do without is not missing either.
fn serves(mut command: Command, look: impl FnOnce(&Program)) {
    let scratch = Scratch::new("serves");
    let log = scratch.file("log", "");
    command.stderr(std::fs::File::create(&log).expect("a file"));
    let program = Program::run(command);
    look(&program);
    let mut clients: Vec<Raw> = (0..8).map(|_| Raw::connect(program.address)).collect();
    for client in &mut clients {
        client.upgrade("/echo");
        for len in [5, 300_000] {
            client.send(&raw::binary(&vec![7; len]));
            assert_eq!(client.frame().payload.len(), len);
        }
    }
    let mut other = Raw::connect(program.address);
    other.send(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(other.response(false).status, 200);
    program.signal(Signal::SIGTERM);
    assert!(clients.iter_mut().all(|client| client.frame().code() == Some(1001)));
    drop((clients, other));
    assert!(program.ended().success());
    assert_eq!(std::fs::read_to_string(log).expect("UTF-8"), "");
}

const ARGUMENTS: [&str; 3] = ["--addr=127.0.0.1:0", "--cores=2", "--log=warn"];

#[test]
fn the_program_serves_under_the_profile_without_capabilities() {
    if let Some(command) = confined(&place("deploy/seccomp.json"), &ARGUMENTS) {
        serves_confined(command);
    }
}

/// What runtimes allow by default is the profile without what it adds: each of the three is missed, and the message names the
/// files that allow them.
#[test]
fn without_what_the_profile_adds_a_start_fails_and_names_it() {
    let profile = json("deploy/seccomp.json");
    let scratch = Scratch::new("default");
    for calls in [&ADDED[..], &ADDED[..1], &ADDED[1..2], &ADDED[2..]] {
        let file = scratch.file(&format!("{}.json", calls[0]), without(&profile, calls).to_string());
        let Some(mut command) = confined(&file, &ARGUMENTS) else { return };
        let Output { status, stderr, .. } = refused(&mut command);
        let message = String::from_utf8_lossy(&stderr);
        assert_eq!(status.code(), Some(69), "{calls:?}: {message}");
        assert_eq!(message.lines().count(), 1, "{message}");
        for name in
            ["seccomp", "deploy/seccomp.json", "deploy/compose.yaml", "deploy/kubernetes.yaml", "deploy/README.md"]
        {
            assert!(message.contains(name), "{name}: {message}");
        }
    }
}

#[test]
fn the_profile_adds_the_calls_of_io_uring_and_nothing_else() {
    let profile = json("deploy/seccomp.json");
    assert_eq!(list_of(&profile["syscalls"][0]["names"]), ADDED);
    let names = allowed(&profile);
    assert!(names.len() > 350, "{}", names.len());
    for call in ["read", "accept4", "clone", "execve", "socket", "futex"] {
        let is_ruled = profile["syscalls"]
            .as_array()
            .expect("rules")
            .iter()
            .any(|rule| list_of(&rule["names"]).contains(&call.to_owned()));
        assert!(is_ruled, "{call}");
    }
    // Some that runtimes have reasons to forbid.
    for call in [
        "add_key",
        "bpf",
        "clone3",
        "delete_module",
        "init_module",
        "keyctl",
        "mount",
        "pivot_root",
        "reboot",
        "setns",
        "unshare",
        "userfaultfd",
    ] {
        assert!(!names.contains(call), "{call}");
    }
    assert_eq!((&profile["defaultAction"], &profile["defaultErrnoRet"]), (&json!("SCMP_ACT_ERRNO"), &json!(1)));
    // Conditions, which containerd does not know and takes for rules that always hold.
    assert!(
        !read("deploy/seccomp.json").contains("\"includes\"") && !read("deploy/seccomp.json").contains("\"excludes\"")
    );
    assert!(profile["comment"].as_str().is_some_and(|it| it.contains("github.com/moby/profiles")));
}

/// The calls of a group of systemd's, and of those in it.
fn group(name: &str) -> BTreeSet<String> {
    let listed = output(Command::new("systemd-analyze").args(["syscall-filter", "--no-pager", name]));
    let mut calls = BTreeSet::new();
    for line in listed.lines().filter(|line| line.starts_with(' ')) {
        let line = line.trim();
        match line.strip_prefix('@') {
            Some(_) => calls.extend(group(line)),
            None if line.starts_with('#') => {}
            None => {
                calls.insert(line.to_owned());
            }
        }
    }
    calls
}

/// The filter of the systemd unit, made of its own lines as systemd does it.
#[test]
fn the_program_serves_under_the_filter_of_the_unit() {
    if !is_installed("systemd-analyze") {
        return;
    }
    let unit = read("deploy/ringwire.service");
    let mut names = BTreeSet::new();
    for line in unit.lines().filter_map(|line| line.strip_prefix("SystemCallFilter=")) {
        match line.strip_prefix('~') {
            Some(groups) => groups.split(' ').for_each(|it| names = &names - &group(it)),
            None => line.split(' ').for_each(|it| names.extend(group(it))),
        }
    }
    assert!(names.len() > 200 && !names.contains("chroot") && !names.contains("mount"), "{}", names.len());
    // Other lines of the unit are filters, too: of kinds of sockets, and of memory that is written and run.
    let mut rules = vec![];
    let mut only = |call: &str, argument: u32, mask: u64, values: &[u64]| {
        names.remove(call);
        for value in values {
            let arguments = json!([{"index": argument, "op": "SCMP_CMP_MASKED_EQ", "value": mask, "valueTwo": value}]);
            rules.push(json!({"names": [call], "action": "SCMP_ACT_ALLOW", "args": arguments}));
        }
    };
    let line = |name: &str| unit.lines().find_map(|line| line.strip_prefix(name)).expect(name);
    let families = line("RestrictAddressFamilies=").split(' ').map(|family| match family {
        "AF_UNIX" => 1,
        "AF_INET" => 2,
        "AF_INET6" => 10,
        other => panic!("{other}"),
    });
    only("socket", 0, u64::from(u32::MAX), &families.collect::<Vec<u64>>());
    assert_eq!(line("MemoryDenyWriteExecute="), "yes");
    const WRITE: u64 = 2;
    const EXECUTE: u64 = 4;
    only("mmap", 2, WRITE | EXECUTE, &[0, WRITE, EXECUTE]);
    only("mprotect", 2, EXECUTE, &[0]);
    only("pkey_mprotect", 2, EXECUTE, &[0]);
    rules.push(json!({"names": names, "action": "SCMP_ACT_ALLOW"}));
    let profile = json!({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": rules});
    let scratch = Scratch::new("unit");
    let file = scratch.file("unit.json", profile.to_string());
    if let Some(command) = confined(&file, &ARGUMENTS) {
        serves_confined(command);
    }
}

/// A container as containerd and Docker make it, by the program that they do it with, and with what the manifests say: the
/// profile, no capability, nobody's rights, a file system that is read only. Its network is this machine's.
#[test]
fn the_program_serves_in_a_container() {
    let is_root = std::fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0);
    if !is_installed("runc") || !is_root {
        return eprintln!("skipped: a container takes runc and root's rights");
    }
    let scratch = Scratch::new("runc");
    let root = scratch.0.join("root");
    std::fs::create_dir_all(root.join("proc")).expect("a folder");
    let mut mounts = vec![json!({"destination": "/proc", "type": "proc", "source": "proc"})];
    let program = Path::new(env!("CARGO_BIN_EXE_ringwire"));
    let read_only = |source: &Path, at: &str| json!({"destination": at, "type": "bind", "source": source, "options": ["rbind", "ro", "nosuid", "nodev"]});
    std::fs::write(root.join("ringwire"), b"").expect("a file");
    mounts.push(read_only(program, "/ringwire"));
    // Its libraries, unless it has none.
    for library in ["/lib", "/lib64", "/usr/lib"].map(Path::new).into_iter().filter(|library| library.exists()) {
        let at = library.strip_prefix("/").expect("an absolute path");
        std::fs::create_dir_all(root.join(at)).expect("a folder");
        mounts.push(read_only(&library.canonicalize().expect("a folder"), &format!("/{}", at.display())));
    }
    let empty: [&str; 0] = [];
    let none =
        json!({"bounding": empty, "effective": empty, "permitted": empty, "inheritable": empty, "ambient": empty});
    let bundle = |profile: &Value, arguments: &[&str]| {
        let arguments: Vec<&str> = ["/ringwire"].iter().chain(arguments).copied().collect();
        json!({
            "ociVersion": "1.0.2",
            "root": {"path": "root", "readonly": true},
            "mounts": mounts,
            "process": {
                "args": arguments,
                "cwd": "/",
                "user": {"uid": 65532, "gid": 65532},
                "capabilities": none,
                "noNewPrivileges": true,
            },
            "linux": {"namespaces": [{"type": "mount"}, {"type": "pid"}, {"type": "ipc"}, {"type": "uts"}], "seccomp": profile},
        })
    };
    let run = |name: &str, profile: &Value, arguments: &[&str]| {
        scratch.file("config.json", bundle(profile, arguments).to_string());
        let mut command = Command::new("runc");
        command.arg("--root").arg(scratch.0.join("state")).args(["run", "--bundle"]).arg(&scratch.0);
        command.arg(format!("ringwire-test-{name}-{}", std::process::id())).stdin(Stdio::null());
        command
    };
    // What containerd takes of a profile: it does not know the map of architectures.
    let mut profile = json("deploy/seccomp.json");
    profile.as_object_mut().expect("a profile").remove("archMap");
    let probe = run("probe", &json!({"defaultAction": "SCMP_ACT_ALLOW"}), &["--version"]).output().expect("it starts");
    if !probe.status.success() {
        return eprintln!("skipped: runc: {}", String::from_utf8_lossy(&probe.stderr));
    }
    serves(run("good", &profile, &ARGUMENTS), |_| {});
    let refused = refused(&mut run("default", &without(&profile, &ADDED), &ARGUMENTS));
    let message = String::from_utf8_lossy(&refused.stderr);
    assert_eq!(refused.status.code(), Some(69), "{message}");
    assert!(message.contains("deploy/seccomp.json"), "{message}");
}
