//! Leads a run: plans it, has the agents begin at the same time, shows how they do, and puts together what they bring.

use std::{
    collections::BTreeSet,
    ffi::OsString,
    sync::{
        atomic::{AtomicBool, Ordering},
        mpsc::{self, Receiver},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use data_encoding::BASE64;

use super::{
    member::{Event, Member, Stage},
    merge,
    protocol::{AGENTS_MAX, FILES_BYTES_MAX, Order, Plan, SentFile, TOKEN_VARIABLE},
};
use crate::{
    cli::Command,
    files::{Contents, Files},
    launch,
    outcome::{Counts, Outcome as Measured},
    part::Part,
    progress::{Doing, Progress},
    report::About,
    usage,
    verdict::Outcome,
};

/// How often the agents' clocks are asked for.
const PROBES: u64 = 8;
const PROBE_PATIENCE: Duration = Duration::from_secs(2);
/// From the order to begin to the beginning: at least so long, and several times as long as the way to the farthest agent.
const GO_AFTER_MIN: Duration = Duration::from_millis(250);
const GO_AFTER_MAX: Duration = Duration::from_secs(5);
/// When a run has to end, agents have so long beside the patience that answers have: many connections are to be closed.
const END_PATIENCE: Duration = Duration::from_secs(75);
/// How long an event is waited for before everything is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(20);
const LEAVE_PATIENCE: Duration = Duration::from_secs(2);
const SHOW_EVERY: Duration = Duration::from_millis(250);

/// The agents, as long as there are runs to make.
#[derive(Debug)]
pub(crate) struct Fleet {
    members: Vec<Member>,
    events: Receiver<Event>,
    arguments: Vec<String>,
    files: Vec<SentFile>,
    server_pid: Option<u32>,
    /// From when messages flow to when they are measured.
    warmup: Duration,
    /// From when messages flow to when nobody measures any more, where that is known.
    lasts: Option<Duration>,
    agent_patience: Duration,
    end_patience: Duration,
}

impl Drop for Fleet {
    fn drop(&mut self) {
        self.members.iter().for_each(Member::leave);
        // An agent that has taken leave is free for whoever leads next.
        let give_up = Instant::now() + LEAVE_PATIENCE;
        let mut left = self.members.iter().filter(|member| member.lost.is_none()).count();
        while left > 0
            && let Ok(event) = self.events.recv_timeout(give_up.saturating_duration_since(Instant::now()))
        {
            left -= usize::from(event.word.is_err());
        }
    }
}

impl Fleet {
    /// Connects to the agents that a command names, or its scenario file; none if it names none.
    ///
    /// # Errors
    /// What is wrong with the command or its files, or with an agent.
    pub(crate) fn gather(
        command: &Command,
        files: &Files,
        arguments: impl Iterator<Item = OsString>,
    ) -> Outcome<Option<Fleet>> {
        let common = command.common();
        if common.opening.agents.is_empty() && !matches!(command, Command::Run(_)) {
            return Ok(None);
        }
        let needs = launch::needs(command, files)?;
        let names = if common.opening.agents.is_empty() { &needs.agents } else { &common.opening.agents };
        if names.is_empty() {
            return Ok(None);
        }
        check_names(names)?;
        check_parts(command, &needs, names.len())?;
        if let Some(pid) = common.output.server_pid {
            usage::check(pid).map_err(|error| format!("--server-pid {pid}: {error}"))?;
        }
        let arguments = arguments.map(OsString::into_string).collect::<Result<Vec<_>, _>>();
        let arguments = arguments.map_err(|_| "the command line is not UTF-8: it cannot be sent to agents")?;
        let files = to_send(files.known())?;
        let token = std::env::var(TOKEN_VARIABLE).ok().filter(|token| !token.is_empty());
        let (tell, events) = mpsc::channel();
        let mut members = Vec::new();
        for (number, name) in names.iter().enumerate() {
            let member = Member::connect(name, number, token.as_deref(), &tell)?;
            let own = Part { agent: number, agents: names.len() }.of(needs.connections);
            let most = member.hello.connections_max;
            members.push(member);
            if own > most {
                return Err(format!(
                    "agent {name}: its part is {own} connections, and it takes {most} at most: use more agents, or start it \
                     with more descriptors (ulimit -Hn) or --max-connections"
                )
                .into());
            }
        }
        Ok(Some(Fleet {
            members,
            events,
            arguments,
            files,
            server_pid: common.output.server_pid,
            warmup: needs.warmup,
            lasts: needs.lasts,
            agent_patience: common.opening.agent_patience,
            end_patience: needs.patience + END_PATIENCE,
        }))
    }

    /// Makes a run.
    ///
    /// # Errors
    /// If nothing could be measured: an agent cannot make its part, or all are lost.
    pub(crate) fn run(&mut self, progress: Progress, stop: &AtomicBool) -> Outcome<(About, Measured)> {
        let started_unix_s = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let agents = self.members.len();
        for (agent, member) in self.members.iter_mut().enumerate() {
            let part = Part { agent, agents };
            let plan = Plan { part, arguments: self.arguments.clone(), files: self.files.clone() };
            member.begin(&Order::Plan(plan));
        }
        let mut run = Run {
            server: Server::new(self.server_pid),
            began: Instant::now(),
            shown_at: Instant::now(),
            told: BTreeSet::new(),
            end_by: None,
            flows_at: None,
            progress,
            stop,
            fleet: self,
        };
        run.make()?;
        let server = run.server;
        self.merged(&server, started_unix_s)
    }

    /// What all have brought, as one.
    fn merged(&mut self, server: &Server, started_unix_s: u64) -> Outcome<(About, Measured)> {
        let abouts: Vec<About> =
            self.members.iter().filter_map(|member| Some(member.brought.as_ref()?.about.clone())).collect();
        let Some(first) = abouts.first() else {
            let why: Vec<String> = self.members.iter().filter_map(lost_line).collect();
            return Err(format!("no agent has brought anything: {}", why.join("; ")).into());
        };
        let connections = abouts.iter().map(|about| about.connections).sum();
        let about = About { connections, started_unix_s, ..first.clone() };
        let mut outcome = merge::outcomes(self.members.iter_mut().map(Member::ended).collect());
        if let Some(why) = outcome.not_measured() {
            return Err(why.into());
        }
        server.add_to(&mut outcome);
        Ok((about, outcome))
    }
}

fn lost_line(member: &Member) -> Option<String> {
    Some(format!("agent {}: {}", member.name, member.lost.as_ref()?))
}

fn check_names(names: &[String]) -> Result<(), String> {
    if names.len() > AGENTS_MAX {
        return Err(format!("{} agents: {AGENTS_MAX} at most", names.len()));
    }
    let mut known = BTreeSet::new();
    match names.iter().find(|name| !known.insert(*name)) {
        Some(twice) => Err(format!("agent {twice} is named twice")),
        None => Ok(()),
    }
}

/// Whether there is a part for each.
fn check_parts(command: &Command, needs: &launch::Needs, agents: usize) -> Result<(), String> {
    if agents <= needs.parts_max {
        return Ok(());
    }
    Err(match command {
        Command::Broadcast(_) | Command::Slow(_) => {
            "in this scenario everybody hears everybody: one agent can check it, several cannot know what the others have sent. \
             Use one agent, or rooms, where each has rooms of its own"
                .to_owned()
        }
        Command::Rooms(_) => format!("{} rooms are too few for {agents} agents: each has rooms of its own", needs.parts_max),
        _ => format!("{} connections are too few for {agents} agents", needs.parts_max),
    })
}

fn to_send(contents: Contents) -> Result<Vec<SentFile>, String> {
    let bytes: usize = contents.values().map(Vec::len).sum();
    if bytes > FILES_BYTES_MAX {
        return Err(format!("the files of this run have {bytes} bytes: {FILES_BYTES_MAX} can be sent to agents"));
    }
    let sent = contents.into_iter().map(|(path, bytes)| {
        let name = path.into_os_string().into_string().map_err(|_| "the name of a file is not UTF-8".to_owned())?;
        Ok(SentFile { name, base64: BASE64.encode(&bytes) })
    });
    sent.collect()
}

/// A run under way.
struct Run<'a> {
    fleet: &'a mut Fleet,
    progress: Progress,
    stop: &'a AtomicBool,
    server: Server,
    began: Instant,
    shown_at: Instant,
    /// The agents of whose loss has been told.
    told: BTreeSet<usize>,
    /// Everybody has been told to end, and must have by then.
    end_by: Option<Instant>,
    flows_at: Option<Instant>,
}

impl Run<'_> {
    fn make(&mut self) -> Outcome<()> {
        self.until(Stage::Ready);
        self.server.opened();
        self.compare_clocks();
        if self.lost().next().is_some() && !self.stop.load(Ordering::Relaxed) {
            // Before anything was measured: there is nothing to report.
            let why: Vec<String> = self.lost().filter_map(lost_line).collect();
            return Err(why.join("; ").into());
        }
        if self.end_by.is_none() {
            self.go();
        }
        self.until(Stage::Measured);
        self.server.measured();
        self.until(Stage::Over);
        self.progress.clear();
        Ok(())
    }

    fn lost(&self) -> impl Iterator<Item = &Member> {
        self.fleet.members.iter().filter(|member| member.lost.is_some())
    }

    /// Goes on until all agents have come so far.
    fn until(&mut self, stage: Stage) {
        while self.fleet.members.iter().any(|member| member.stage < stage) {
            // Who ends early has no further stage to come to.
            if stage < Stage::Over && self.end_by.is_some() {
                return;
            }
            self.step();
        }
    }

    /// Takes what agents say, and looks after those who say nothing.
    fn step(&mut self) {
        let mut next = self.fleet.events.recv_timeout(LOOK_EVERY).ok();
        while let Some(Event { member, at, word }) = next {
            self.fleet.members[member].hear(at, word);
            next = self.fleet.events.try_recv().ok();
        }
        let now = Instant::now();
        let patience = self.fleet.agent_patience;
        for member in &mut self.fleet.members {
            if member.is_silent(now, patience) {
                member.lose(format!("it has said nothing for {:.0} s", patience.as_secs_f64()));
            }
            if self.end_by.is_some_and(|end_by| now > end_by) && !member.is_over() {
                member.lose("it has not brought its part in time".to_owned());
            }
        }
        self.tell_lost();
        let is_broken = self.lost().next().is_some();
        if self.end_by.is_none() && (is_broken || self.stop.load(Ordering::Relaxed)) {
            self.end_all();
        }
        if let Some(flows_at) = self.flows_at {
            self.server.measure_from(flows_at + self.fleet.warmup);
            // Nobody has been told to end, since all know when to: so long after that nothing is to come.
            let ends_at = self.fleet.lasts.map(|lasts| flows_at + lasts + self.fleet.end_patience);
            if self.end_by.is_none() {
                self.end_by = ends_at.filter(|ends_at| now > *ends_at);
            }
        }
        if now.saturating_duration_since(self.shown_at) >= SHOW_EVERY {
            self.shown_at = now;
            self.show();
        }
    }

    /// Whoever is lost is told at once, however little else is shown.
    fn tell_lost(&mut self) {
        for (number, member) in self.fleet.members.iter().enumerate() {
            if let Some(line) = lost_line(member)
                && self.told.insert(number)
            {
                self.progress.clear();
                eprintln!("ringwire-loadtest: {line}");
            }
        }
    }

    fn end_all(&mut self) {
        self.end_by = Some(Instant::now() + self.fleet.end_patience);
        self.fleet.members.iter_mut().filter(|member| !member.is_over()).for_each(|member| member.say(&Order::Stop {}));
    }

    /// Asks all agents for their time, several times: what takes the least time there and back is the truest.
    fn compare_clocks(&mut self) {
        for number in 0..PROBES {
            if self.end_by.is_some() {
                return;
            }
            self.fleet.members.iter_mut().filter(|member| !member.is_over()).for_each(|member| member.probe(number));
            let give_up = Instant::now() + PROBE_PATIENCE;
            while !self.fleet.members.iter().all(Member::is_probed) && Instant::now() < give_up && self.end_by.is_none()
            {
                self.step();
            }
        }
    }

    fn go(&mut self) {
        let farthest = self.fleet.members.iter().filter_map(Member::round_trip).max().unwrap_or_default();
        let at = Instant::now() + (4 * farthest).clamp(GO_AFTER_MIN, GO_AFTER_MAX);
        self.fleet.members.iter_mut().filter(|member| !member.is_over()).for_each(|member| member.go(at));
        self.flows_at = Some(at);
    }

    /// What all do, in one line.
    fn show(&mut self) {
        let mut counts = Counts::default();
        let mut rate = 0.0;
        let mut latencies = hdrhistogram::Histogram::<u64>::new(2).expect("two digits");
        // Where the slowest is.
        let members = &self.fleet.members;
        for doing in members.iter().map(|member| &member.doing) {
            counts.add(&doing.counts);
            rate += doing.rate;
            if let Some(theirs) = &doing.latencies {
                latencies.add(theirs).expect("it grows as needed");
            }
        }
        let slowest = members.iter().filter(|member| !member.is_over()).min_by_key(|member| member.stage);
        let what = slowest.map_or("ending", |member| member.doing.what.as_str()).to_owned();
        let latencies = (!latencies.is_empty()).then_some(&latencies);
        self.progress.show(self.began.elapsed().as_secs_f64(), Doing { what: &what, counts: &counts, rate, latencies });
    }
}

/// The server's process, where it is on this machine.
#[derive(Debug, Default)]
struct Server {
    pid: Option<u32>,
    /// CPU time at the beginning, when all are open, and at the ends of the measured window.
    before: Option<usage::Threads>,
    opened: Option<usage::Threads>,
    begin: Option<usage::Threads>,
    end: Option<usage::Threads>,
    rss_before: Option<u64>,
    rss_open: Option<u64>,
    rss_after: Option<u64>,
}

impl Server {
    fn new(pid: Option<u32>) -> Server {
        let mut server = Server { pid, ..Server::default() };
        (server.before, server.rss_before) = (server.cpu(), server.rss());
        server
    }

    fn cpu(&self) -> Option<usage::Threads> {
        usage::Threads::read(self.pid?).ok()
    }

    fn rss(&self) -> Option<u64> {
        usage::resident_bytes(self.pid?).ok()
    }

    fn opened(&mut self) {
        (self.opened, self.rss_open) = (self.cpu(), self.rss());
    }

    /// Looks once, when it is time.
    fn measure_from(&mut self, at: Instant) {
        if self.begin.is_none() && self.pid.is_some() && Instant::now() >= at {
            self.begin = self.cpu();
        }
    }

    fn measured(&mut self) {
        (self.end, self.rss_after) = (self.cpu(), self.rss());
    }

    fn add_to(&self, outcome: &mut Measured) {
        let between =
            |from: &Option<usage::Threads>, to: &Option<usage::Threads>| Some(to.as_ref()?.since(from.as_ref()?));
        outcome.ramp_cpu.server = between(&self.before, &self.opened).map(|(all, _)| all);
        let measured = between(&self.begin, &self.end);
        outcome.cpu.server = measured.map(|(all, _)| all);
        outcome.cpu.server_busiest = measured.map(|(_, busiest)| busiest);
        outcome.server_cores = self.pid.and_then(usage::cores);
        (outcome.rss_before, outcome.rss_open, outcome.rss_after) = (self.rss_before, self.rss_open, self.rss_after);
        outcome.server_gone = self.pid.is_some() && self.rss_after.is_none();
    }
}
