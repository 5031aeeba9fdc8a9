//! The server as a program: started, sent signals, measured.

use std::io::{BufRead as _, BufReader, Read as _};
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::PATIENCE;

/// The program with these arguments, and none of this crate's variables. `prelude` is shell that runs before it, in
/// the same process.
pub(crate) fn command(prelude: &str, arguments: &[&str]) -> Command {
    let program = env!("CARGO_BIN_EXE_ringwire");
    let mut command = Command::new("sh");
    command.arg("-c").arg(format!("{prelude}\nexec \"$0\" \"$@\"")).arg(program).args(arguments);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("RINGWIRE_") {
            command.env_remove(name);
        }
    }
    // Freed memory goes back to the kernel at once, so that what is resident is what is held.
    command.env("MIMALLOC_PURGE_DELAY", "0").stdin(Stdio::null());
    command
}

pub(crate) struct Program {
    child: Child,
    output: BufReader<ChildStdout>,
    pub(crate) first_line: String,
    pub(crate) address: SocketAddr,
}

impl Program {
    /// On a free port, with two cores.
    pub(crate) fn start(arguments: &[&str]) -> Program {
        let all = [&["--addr=127.0.0.1:0", "--cores=2", "--log=error"], arguments].concat();
        Program::run(command("", &all))
    }

    pub(crate) fn with_listener(listener: impl Into<OwnedFd>, arguments: &[&str]) -> Program {
        let mut command = command("exec 3<&0 0</dev/null; export LISTEN_FDS=1 LISTEN_PID=$$", arguments);
        command.stdin(Stdio::from(listener.into()));
        Program::run(command)
    }

    pub(crate) fn run(mut command: Command) -> Program {
        let mut child = command.stdout(Stdio::piped()).spawn().expect("it starts");
        let mut output = BufReader::new(child.stdout.take().expect("a pipe"));
        let mut first_line = String::new();
        output.read_line(&mut first_line).expect("a line");
        let address = first_line
            .strip_prefix("ringwire listening on ")
            .and_then(|rest| rest.strip_prefix("ws://").or(rest.strip_prefix("wss://")))
            .and_then(|rest| rest.split([' ', ',']).next()?.parse().ok())
            .unwrap_or_else(|| panic!("{first_line:?}"));
        Program { child, output, first_line, address }
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id() as i32), signal).expect("it runs");
    }

    pub(crate) fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("it can be asked").is_none()
    }

    /// Waits for its end; what it wrote after the first line must be nothing.
    pub(crate) fn ended(mut self) -> ExitStatus {
        let start = Instant::now();
        let status = loop {
            if let Some(status) = self.child.try_wait().expect("it can be asked") {
                break status;
            }
            assert!(start.elapsed() < PATIENCE, "it does not end");
            std::thread::sleep(Duration::from_millis(5));
        };
        let mut more = String::new();
        self.output.read_to_string(&mut more).expect("UTF-8");
        assert_eq!(more, "");
        status
    }

    /// Resident memory in bytes.
    pub(crate) fn rss(&self) -> u64 {
        self.memory("VmRSS:")
    }

    /// The most that it ever was.
    pub(crate) fn rss_peak(&self) -> u64 {
        self.memory("VmHWM:")
    }

    /// What its memory consists of, to be told when it is too much.
    pub(crate) fn memory_parts(&self) -> String {
        ["VmRSS:", "RssAnon:", "RssFile:", "RssShmem:"].map(|name| format!("{name} {}", self.status(name))).join(", ")
    }

    fn memory(&self, name: &str) -> u64 {
        self.status(name).trim_end_matches(" kB").parse::<u64>().expect("a number") << 10
    }

    /// What the system says of it under this name (`/proc/PID/status`).
    pub(crate) fn status(&self, name: &str) -> String {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("it runs");
        status.lines().find_map(|line| line.strip_prefix(name)).expect("a line").trim().to_owned()
    }

    /// Descriptors in its own table; sockets of connections are not among them.
    pub(crate) fn descriptors(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.child.id())).expect("it runs").count()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
