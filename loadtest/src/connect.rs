//! Connect: opens connections as fast as a bounded number of handshakes in flight allows, holds them, closes them.

use std::{
    io,
    net::Ipv4Addr,
    thread,
    time::{Duration, Instant},
};

use peers::uring::{App, Chunk, Driver, Io, Options};
use serde_json::{Value, json};

use crate::{
    handshake::{Response, Target},
    usage,
    wire::{Keys, Messages, Replies, append_close},
};

const WAKE_EVERY: Duration = Duration::from_millis(10);
/// No handshake or first reply takes longer on a server that works.
const PATIENCE: Duration = Duration::from_secs(20);
/// Lets the server finish what the last connection started before its memory is read.
const SETTLE: Duration = Duration::from_millis(300);
const PROBLEMS_LISTED_MAX: usize = 20;

/// What is opened, how, and for how long.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) target: Target,
    pub(crate) raw: bool,
    pub(crate) connections: usize,
    pub(crate) concurrency: usize,
    pub(crate) source_ips: u8,
    /// The message every connection sends once, if any.
    pub(crate) first_echo: Option<Messages>,
    pub(crate) hold: Duration,
    pub(crate) server_pid: Option<u32>,
}

/// Figures of one run.
#[derive(Debug)]
pub(crate) struct Report {
    connections: usize,
    elapsed: Duration,
    server_cpu: Option<Duration>,
    client_cpu: Duration,
    rss_before: Option<u64>,
    rss_after: Option<u64>,
    pub(crate) problem_count: u64,
    problems: Vec<String>,
}

#[derive(Debug)]
enum State {
    /// Part of a response head.
    Handshake(Vec<u8>),
    FirstEcho(Box<Replies>),
    Open,
    Gone,
}

struct Connect<'a> {
    plan: &'a Plan,
    states: Vec<State>,
    started: usize,
    opening: usize,
    opened: usize,
    last_progress: Instant,
    keys: Keys,
    problem_count: u64,
    problems: Vec<String>,
    /// When to stop holding, once every connection is open.
    until: Option<Instant>,
    stage: Stage,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Open,
    Hold,
    Bye,
}

impl Connect<'_> {
    fn problem(&mut self, text: String) {
        self.problem_count += 1;
        if self.problems.len() < PROBLEMS_LISTED_MAX {
            self.problems.push(text);
        }
    }

    fn start_more(&mut self, io: &mut Io) {
        while self.opening < self.plan.concurrency && self.started < self.plan.connections {
            let number = self.started;
            self.started += 1;
            if let Err(error) = self.start(io, number) {
                self.problem(format!("connection {number}: {error}"));
            }
        }
    }

    fn start(&mut self, io: &mut Io, number: usize) -> io::Result<()> {
        let ips = self.plan.source_ips;
        let source = (ips > 1).then(|| Ipv4Addr::new(127, 0, 0, 1 + (number % usize::from(ips)) as u8));
        let conn = io.adopt(self.plan.target.connect(source)?.into())?;
        if self.states.len() <= conn as usize {
            self.states.resize_with(conn as usize + 1, || State::Gone);
        }
        self.opening += 1;
        if self.plan.raw {
            self.upgraded(io, conn);
        } else {
            self.states[conn as usize] = State::Handshake(Vec::new());
            io.out(conn).extend_from_slice(&self.plan.target.request());
        }
        Ok(())
    }

    fn upgraded(&mut self, io: &mut Io, conn: u32) {
        if let Some(messages) = &self.plan.first_echo {
            messages.append_request(io.out(conn), 0, self.keys.key());
            self.states[conn as usize] = State::FirstEcho(Box::default());
        } else {
            self.ready(conn);
        }
    }

    fn ready(&mut self, conn: u32) {
        self.states[conn as usize] = State::Open;
        self.opening -= 1;
        self.opened += 1;
        self.last_progress = Instant::now();
    }

    /// Moves a connection on by what it received.
    fn advance(&mut self, io: &mut Io, conn: u32, bytes: &[u8]) -> Result<(), String> {
        match &mut self.states[conn as usize] {
            State::Handshake(head) => {
                head.extend_from_slice(bytes);
                match Response::parse(head) {
                    Some(Ok(len)) if len == head.len() => self.upgraded(io, conn),
                    Some(Ok(_)) => return Err("data behind the handshake".to_owned()),
                    Some(Err(error)) => return Err(error),
                    None => {}
                }
            }
            State::FirstEcho(replies) => {
                let messages = self.plan.first_echo.as_ref().expect("a first echo was sent");
                let completed = replies.check(messages, bytes).map_err(|wrong| wrong.to_string())?;
                io.out(conn).append(&mut replies.pongs);
                if completed > 0 {
                    self.ready(conn);
                }
            }
            State::Open if self.plan.raw => return Err("data that nothing asked for".to_owned()),
            State::Open => {
                // While held only control frames may come; a reply that is due never does, so anything else is wrong.
                let mut replies = Replies::default();
                let messages = Messages::new(crate::wire::Layout::WebSocket, true, 0);
                let completed = replies.check(&messages, bytes).map_err(|wrong| wrong.to_string())?;
                if completed > 0 {
                    return Err("a message that nothing asked for".to_owned());
                }
                io.out(conn).append(&mut replies.pongs);
            }
            State::Gone => {}
        }
        Ok(())
    }

    fn fail(&mut self, io: &mut Io, conn: u32, why: &str) {
        match std::mem::replace(&mut self.states[conn as usize], State::Gone) {
            State::Gone => return,
            State::Open => self.opened -= 1,
            State::Handshake(_) | State::FirstEcho(_) => self.opening -= 1,
        }
        self.problem(format!("connection {conn}: {why}"));
        io.close(conn);
    }
}

impl App for Connect<'_> {
    fn received(&mut self, io: &mut Io, conn: u32, chunk: Chunk) {
        if self.stage != Stage::Bye
            && let Err(why) = self.advance(io, conn, chunk.bytes())
        {
            self.fail(io, conn, &why);
        }
        io.recycle(chunk);
    }

    fn closed(&mut self, io: &mut Io, conn: u32, error: i32) {
        if self.stage != Stage::Bye {
            self.fail(io, conn, &format!("closed by the server (error {error})"));
        }
    }

    fn tick(&mut self, io: &mut Io) -> bool {
        match self.stage {
            Stage::Open => {
                self.start_more(io);
                if self.opening > 0 && self.last_progress.elapsed() > PATIENCE {
                    let missing = self.opening;
                    self.problem(format!("{missing} connections never became ready"));
                    self.opening = 0;
                }
                let over = self.opening == 0 && self.started == self.plan.connections;
                if over {
                    self.stage = Stage::Hold;
                }
                !over
            }
            Stage::Hold => {
                if self.until.is_some_and(|until| Instant::now() >= until) {
                    self.stage = Stage::Bye;
                    if !self.plan.raw {
                        for (conn, state) in (0..).zip(&self.states) {
                            if matches!(state, State::Open) {
                                append_close(io.out(conn), self.keys.key());
                            }
                        }
                    }
                }
                true
            }
            Stage::Bye => false,
        }
    }
}

impl Plan {
    /// Opens, measures, holds, closes.
    pub(crate) fn run(&self) -> io::Result<Report> {
        let options = Options {
            buffers: 256,
            slots: (self.connections as u32 + 64).next_multiple_of(64),
            timer: Some(WAKE_EVERY),
            ..Options::default()
        };
        let mut driver = Driver::new(options, None)?;
        let mut connect = Connect {
            plan: self,
            states: Vec::new(),
            started: 0,
            opening: 0,
            opened: 0,
            last_progress: Instant::now(),
            keys: Keys::new(0xc0ffee),
            problem_count: 0,
            problems: Vec::new(),
            until: None,
            stage: Stage::Open,
        };
        let server_cpu = || self.server_pid.map(usage::cpu).transpose();
        let server_rss = || self.server_pid.map(usage::resident_bytes).transpose();
        let own_pid = std::process::id();

        let (rss_before, cpu_before, own_before) = (server_rss()?, server_cpu()?, usage::cpu(own_pid)?);
        let begin = Instant::now();
        driver.run(&mut connect)?;
        let elapsed = begin.elapsed();
        let client_cpu = usage::cpu(own_pid)? - own_before;
        thread::sleep(SETTLE);
        let (rss_after, cpu_after) = (server_rss()?, server_cpu()?);
        connect.until = Some(Instant::now() + self.hold);
        let connections = connect.opened;
        driver.run(&mut connect)?;
        Ok(Report {
            connections,
            elapsed,
            server_cpu: cpu_after.zip(cpu_before).map(|(after, before)| after.saturating_sub(before)),
            client_cpu,
            rss_before,
            rss_after,
            problem_count: connect.problem_count,
            problems: connect.problems,
        })
    }
}

impl Report {
    fn per_connection_us(&self, cpu: Duration) -> f64 {
        cpu.as_secs_f64() * 1e6 / self.connections.max(1) as f64
    }

    fn rss_per_connection(&self) -> Option<f64> {
        let grown = self.rss_after? as f64 - self.rss_before? as f64;
        Some(grown / self.connections.max(1) as f64)
    }

    /// All figures; durations in the unit their name ends with.
    pub(crate) fn to_json(&self) -> Value {
        json!({
            "connections": self.connections,
            "elapsed_s": self.elapsed.as_secs_f64(),
            "connections_per_s": self.connections as f64 / self.elapsed.as_secs_f64(),
            "server_cpu_us_per_connection": self.server_cpu.map(|cpu| self.per_connection_us(cpu)),
            "client_cpu_us_per_connection": self.per_connection_us(self.client_cpu),
            "server_rss_bytes_before": self.rss_before,
            "server_rss_bytes_after": self.rss_after,
            "server_rss_bytes_per_connection": self.rss_per_connection(),
            "problem_count": self.problem_count,
            "problems": self.problems,
        })
    }
}

impl std::fmt::Display for Report {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let elapsed = self.elapsed.as_secs_f64();
        let rate = self.connections as f64 / elapsed;
        writeln!(f, "connections   {} in {elapsed:.2} s = {rate:.0} /s", self.connections)?;
        if let Some(cpu) = self.server_cpu {
            writeln!(f, "server CPU    {:.2} us/connection", self.per_connection_us(cpu))?;
        }
        writeln!(f, "client CPU    {:.2} us/connection", self.per_connection_us(self.client_cpu))?;
        if let (Some(each), Some(after)) = (self.rss_per_connection(), self.rss_after) {
            let total = after as f64 / (1024.0 * 1024.0);
            writeln!(f, "server memory {each:.0} bytes/connection, {total:.1} MiB resident")?;
        }
        write!(f, "problems      {}", self.problem_count)?;
        for problem in &self.problems {
            write!(f, "\n  {problem}")?;
        }
        Ok(())
    }
}
