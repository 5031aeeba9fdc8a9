//! A real nats-server, for a test that has one to itself.

#![allow(dead_code, reason = "not every test does all of this")]

use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// On a machine that is busy with other tests.
const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) fn nats_server() -> Option<PathBuf> {
    let places = std::env::var_os("PATH").unwrap_or_default();
    let more = [PathBuf::from("/usr/sbin"), PathBuf::from("/usr/local/sbin")];
    let found = std::env::split_paths(&places).chain(more).map(|place| place.join("nats-server"));
    let found = found.into_iter().find(|path| path.is_file());
    if found.is_none() {
        eprintln!("nats-server is not installed: machines are not joined, and this is not tested");
    }
    found
}

pub(crate) fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port").port()
}

pub(crate) struct Nats {
    pub(crate) child: Child,
    pub(crate) port: u16,
    arguments: Vec<String>,
    /// Where JetStream keeps its files.
    directory: Option<PathBuf>,
}

/// A directory of this test's own, that is not there yet.
pub(crate) fn fresh_directory(what: &str) -> PathBuf {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    let path = std::env::temp_dir().join(format!("ringwire-nats-{what}-{}-{number}", std::process::id()));
    let _ = std::fs::remove_dir_all(&path);
    path
}

impl Nats {
    /// With JetStream.
    pub(crate) fn with_jetstream() -> Option<Nats> {
        let program = nats_server()?;
        let directory = fresh_directory("js");
        let path = directory.to_str().expect("UTF-8").to_owned();
        let started = (0..5).find_map(|_| Nats::on(&program, free_port(), &["-js", "-sd", &path]));
        let nats = started.expect("nats-server starts");
        let mut nats = nats;
        nats.directory = Some(directory);
        Some(nats)
    }

    pub(crate) fn start() -> Option<Nats> {
        let program = nats_server()?;
        // The port was free a moment before: another one is tried if it has been taken meanwhile.
        (0..5).find_map(|_| Nats::on(&program, free_port(), &[])).or_else(|| panic!("nats-server does not start"))
    }

    pub(crate) fn on(program: &Path, port: u16, arguments: &[&str]) -> Option<Nats> {
        let child = Command::new(program)
            .args(["-a", "127.0.0.1", "-p", &port.to_string()])
            .args(arguments)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("it starts");
        let arguments = arguments.iter().map(|argument| (*argument).to_owned()).collect();
        let mut nats = Nats { child, port, arguments, directory: None };
        let start = Instant::now();
        while start.elapsed() < PATIENCE && nats.child.try_wait().expect("it can be asked").is_none() {
            if TcpStream::connect(("127.0.0.1", port)).is_ok() {
                return Some(nats);
            }
            thread::sleep(Duration::from_millis(10));
        }
        None
    }

    pub(crate) fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id() as i32), signal).expect("it runs");
        // Each of its threads is stopped by itself.
        while signal == Signal::SIGSTOP && !self.stands_still() {
            thread::sleep(Duration::from_millis(1));
        }
    }

    fn stands_still(&self) -> bool {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.child.id())).expect("it runs");
        let state = |task: std::fs::DirEntry| std::fs::read_to_string(task.path().join("stat"));
        // The state stands behind the name, which is in brackets.
        tasks
            .flatten()
            .filter_map(|task| state(task).ok())
            .all(|stat| stat.rsplit(')').next().is_some_and(|rest| rest.starts_with(" T")))
    }

    /// Ends it and starts another in its place.
    pub(crate) fn restart(&mut self, pause: Duration) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        thread::sleep(pause);
        let program = nats_server().expect("it was there");
        let start = Instant::now();
        let arguments: Vec<&str> = self.arguments.iter().map(String::as_str).collect();
        let mut again = loop {
            if let Some(again) = Nats::on(&program, self.port, &arguments) {
                break again;
            }
            assert!(start.elapsed() < PATIENCE, "nats-server does not start again");
        };
        again.directory = self.directory.take();
        *self = again;
    }
}

impl Drop for Nats {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if let Some(directory) = &self.directory {
            let _ = std::fs::remove_dir_all(directory);
        }
    }
}
