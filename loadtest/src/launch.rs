//! From the command line to a run: checks what a scenario needs, plans it, runs it.

use std::{
    cell::RefCell,
    sync::{Arc, Mutex, PoisonError, atomic::AtomicBool},
    thread,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use ringwire::{
    Config, check,
    engine::uring::closes_late,
    proto::{Kind, extensions::Offer},
};

use crate::{
    cli::{Command, Common, Contexts, Flow, Publishing},
    files::Files,
    gate::Gate,
    headers,
    net::{Nanos, Net},
    outcome,
    part::Part,
    progress::Progress,
    report::About,
    run,
    scenario::{
        Pace, Ramp, Scenario, Share,
        churn::{self, Churn},
        connect::{self, Connect},
        echo::{self, Echo},
        emit::{self, Emit},
        fanout::{self, Board, Fanout},
        play::{self, Play},
    },
    script::{self, Role, Script, recording::Recording, stages::Stages},
    target::Target,
    tls::Tls,
    usage,
    verdict::Outcome,
    wire::{Content, Layout, Messages, STAMP_BYTES, STREAMS_MAX, Sizes},
};

/// Stands in for a window's length where a count ends it, to choose how finely time is cut.
const WINDOW_GUESSED: Duration = Duration::from_secs(20);
/// More threads than these are a mistake.
const THREADS_MAX: usize = 1024;
/// What another machine may ask for: a place of 8 bytes is kept for each.
const IN_FLIGHT_MAX: usize = 1 << 26;

/// By whom, with what and for whom a run is made.
#[derive(Debug)]
pub(crate) struct Site<'a> {
    pub(crate) files: &'a Files,
    /// What of it is made here.
    pub(crate) part: Part,
    /// Where it waits for those who make the other parts.
    pub(crate) gate: Option<Arc<Gate>>,
    /// The most connections that may be asked for.
    pub(crate) connections_max: Option<usize>,
    pub(crate) progress: RefCell<Progress>,
    /// Ends it early.
    pub(crate) stop: &'a AtomicBool,
}

impl<'a> Site<'a> {
    /// All of it is made here.
    pub(crate) fn alone(files: &'a Files, progress: Progress, stop: &'a AtomicBool) -> Site<'a> {
        let progress = RefCell::new(progress);
        Site { files, part: Part::default(), gate: None, connections_max: None, progress, stop }
    }
}

impl Site<'_> {
    /// Whether so many messages may be in flight.
    fn check_in_flight(&self, messages: usize) -> Result<(), String> {
        if self.connections_max.is_some() && messages > IN_FLIGHT_MAX {
            return Err(format!("{messages} messages in flight: an agent takes {IN_FLIGHT_MAX} at most"));
        }
        Ok(())
    }
}

/// What a run was, and what it brought.
type Done = (About, outcome::Outcome);

/// What a run needs, before it is made.
#[derive(Debug)]
pub(crate) struct Needs {
    /// What is dealt out to agents: connections, users, sockets.
    pub(crate) connections: usize,
    /// What cannot be dealt out further: no more agents than these can have a part.
    pub(crate) parts_max: usize,
    /// The agents that the scenario file names.
    pub(crate) agents: Vec<String>,
    /// From when messages flow to when they are measured.
    pub(crate) warmup: Duration,
    /// From when messages flow to the end of the measured window, where that is a time.
    pub(crate) lasts: Option<Duration>,
    /// How long what is under way then may take.
    pub(crate) patience: Duration,
}

/// Looks at what a run needs, and reads all its files.
///
/// # Errors
/// What is wrong with them, or why agents cannot make such a run.
pub(crate) fn needs(command: &Command, files: &Files) -> Outcome<Needs> {
    read_all(&command.common().tls, files)?;
    let flow = command.flow();
    let warmup = flow.map_or(Duration::ZERO, |flow| flow.warmup);
    let lasts = flow.filter(|flow| flow.count.is_none()).map(|flow| flow.warmup + flow.duration);
    let patience = command.common().patience;
    let of = |connections| Needs { connections, parts_max: connections, agents: Vec::new(), warmup, lasts, patience };
    let staged = |stages: &Stages| Needs { lasts: Some(Duration::from_nanos(stages.end())), ..of(stages.most()) };
    Ok(match command {
        Command::Echo(cli) => cli.stages.as_ref().map_or_else(|| of(cli.connections), staged),
        Command::Churn(cli) => cli.stages.as_ref().map_or_else(|| of(cli.users), staged),
        Command::Connect(cli) => of(cli.connections),
        Command::Emit(cli) => of(cli.connections),
        Command::Broadcast(cli) => Needs { parts_max: 1, ..of(cli.subscribers + cli.publishing.publishers as usize) },
        Command::Slow(cli) => {
            Needs { parts_max: 1, ..of(cli.subscribers + cli.stalled + cli.publishing.publishers as usize) }
        }
        Command::Rooms(cli) => Needs { parts_max: cli.rooms, ..of(cli.rooms.saturating_mul(cli.members)) },
        Command::Run(cli) => {
            let file = script::file::Scenario::read(&cli.file, files)?;
            read_all(&cli.common.tls.clone().or(&file.tls), files)?;
            let stages = cli.stages.as_ref().unwrap_or(&file.script.stages);
            let patience = Duration::from_nanos(file.script.patience(nanos(patience)));
            Needs { agents: file.agents, patience, ..staged(stages) }
        }
        Command::Replay(cli) => {
            let recording = Recording::read(&cli.file, cli.matching, cli.speed, files)?;
            of(cli.connections.unwrap_or(recording.roles.len()))
        }
        Command::Agent(_) | Command::Diff(_) => unreachable!("no scenario"),
    })
}

/// Reads the files of TLS.
fn read_all(tls: &Tls, files: &Files) -> Result<(), String> {
    for path in tls.files() {
        files.read(path).map_err(|error| format!("{}: {error}", path.display()))?;
    }
    Ok(())
}

/// Runs a scenario as the command line asks for it, or this site's part of it.
///
/// # Errors
/// If nothing could be measured.
pub(crate) fn scenario(command: &Command, site: &Site<'_>) -> Outcome<Done> {
    match command {
        Command::Echo(cli) => {
            if let Some(stages) = &cli.stages {
                let common = &cli.load.common;
                let script = Script::of(Role::echo(kind(common), None), stages.clone());
                return play(common, "echo", script, Elsewhere::default(), site);
            }
            let launch = Launch::flowing(&cli.load.flow, &cli.load.common, cli.connections, site);
            site.check_in_flight(launch.own().saturating_mul(cli.pipeline as usize))?;
            let plan = echo::Plan {
                connections: cli.connections,
                ramp: launch.ramp(),
                pipeline: cli.pipeline as usize,
                pace: launch.pace(&cli.load.flow),
                raw: launch.common.to.raw,
            };
            let run = launch.plan()?;
            launch.run(&run, "echo", "replies", cli.load.flow.rate, |share, _| Echo::new(plan.clone(), share))
        }
        Command::Broadcast(cli) => {
            let members = cli.subscribers + cli.publishing.publishers as usize;
            fan_out("broadcast", &cli.publishing, Groups { count: 1, members, stalled: 0 }, None, site)
        }
        Command::Rooms(cli) => {
            if !cli.publishing.load.common.to.urls().all(|url| url.path.contains("{room}")) {
                return Err("the URL must have {room} in its path".into());
            }
            let groups = Groups { count: cli.rooms.max(1), members: cli.members, stalled: 0 };
            fan_out("rooms", &cli.publishing, groups, None, site)
        }
        Command::Slow(cli) => {
            if cli.publishing.load.flow.count.is_some() {
                return Err("slow needs a --duration: readers stall in the middle of it".into());
            }
            let duration = cli.publishing.load.flow.duration;
            if let Some(after) = cli.stall_after.filter(|after| *after >= duration) {
                let [after, duration] = [after, duration].map(humantime::format_duration);
                return Err(format!(
                    "--stall-after {after}: the window is over after {duration} (--duration), and nobody would stall"
                )
                .into());
            }
            let members = cli.subscribers + cli.publishing.publishers as usize;
            let groups = Groups { count: 1, members, stalled: cli.stalled };
            fan_out("slow", &cli.publishing, groups, cli.stall_after, site)
        }
        Command::Emit(cli) => {
            let mut launch = Launch::flowing(&cli.load.flow, &cli.load.common, cli.connections, site);
            launch.refuse_raw("emit")?;
            let to = &launch.common.to;
            if to.content != Content::Random {
                return Err("emit sends its payloads within JSON: --content random alone".into());
            }
            if to.binary || to.size.min() < STAMP_BYTES || to.size.max() > 32 << 10 {
                return Err(format!("emit sends text of {STAMP_BYTES} bytes to 32 KiB").into());
            }
            if !cli.api.contains("{id}") {
                return Err("--api must have {id} in it".into());
            }
            Target::check_path(&cli.api).map_err(|why| format!("--api: {why}"))?;
            if let Some(token) = &cli.token {
                headers::check_value(token).map_err(|why| format!("--token: {why}"))?;
            }
            let mut run = launch.plan()?;
            let plan = emit::Plan {
                deal: run.deal(),
                sockets: cli.connections,
                posters: cli.posters.max(1),
                pipeline: cli.pipeline as usize,
                ramp: launch.ramp(),
                pace: launch.pace(&cli.load.flow),
                hosts: to
                    .urls()
                    .map(|url| headers::host_and_others(&url.host, &to.headers, &[]).0.to_owned())
                    .collect(),
                api: cli.api.clone(),
                token: cli.token.clone(),
            };
            site.check_in_flight(plan.posters.saturating_mul(run.workers).saturating_mul(plan.pipeline))?;
            let share = |worker| Share { worker, workers: run.workers, part: site.part };
            launch.beside = (0..run.workers).map(|worker| plan.posters_of(share(worker))).sum();
            launch.check_own()?;
            // As many places on each thread as it may need.
            run.slots = cli.connections + plan.posters * run.workers * site.part.agents;
            launch.run(&run, "emit", "deliveries", cli.load.flow.rate, |share, _| Emit::new(plan.clone(), share))
        }
        Command::Connect(cli) => {
            let launch = Launch::new(&cli.common, cli.connections, site);
            if cli.ping {
                launch.refuse_raw("--ping")?;
            }
            let plan = connect::Plan {
                connections: cli.connections,
                ramp: launch.ramp(),
                first_echo: cli.echo,
                ping: cli.ping,
                pings_per_second: cli.ping_rate,
                hold: nanos(cli.hold),
                patience: nanos(cli.common.patience),
                raw: cli.common.to.raw,
            };
            let (run, rate) = (launch.plan()?, cli.common.opening.ramp);
            launch.run(&run, "connect", "connections", rate, |share, _| Connect::new(plan.clone(), share))
        }
        Command::Churn(cli) => {
            if let Some(stages) = &cli.stages {
                let common = &cli.load.common;
                let role = Role::echo(kind(common), Some(cli.words.max(1)));
                return play(common, "churn", Script::of(role, stages.clone()), Elsewhere::default(), site);
            }
            let launch = Launch::flowing(&cli.load.flow, &cli.load.common, cli.users, site);
            launch.refuse_raw("churn")?;
            let plan = churn::Plan { users: cli.users, words: cli.words, pace: launch.pace(&cli.load.flow) };
            let mut run = launch.plan()?;
            // Sessions come and go: a worker that has none open is no failure, and an address has only so many ports.
            run.connections = 0;
            run.slots = cli.users;
            launch.run(&run, "churn", "sessions", cli.load.flow.rate, |share, _| Churn::new(plan.clone(), share))
        }
        Command::Run(cli) => {
            let file = script::file::Scenario::read(&cli.file, site.files)?;
            let mut script = file.script;
            if let Some(stages) = &cli.stages {
                script.stages = stages.clone();
            }
            let urls = file.urls.iter().map(|url| Target::parse(url)).collect::<Result<Vec<_>, _>>()?;
            play(&cli.common, "run", script, Elsewhere { urls, tls: file.tls, ..Elsewhere::default() }, site)
        }
        Command::Replay(cli) => {
            let mut recording = Recording::read(&cli.file, cli.matching, cli.speed, site.files)?;
            // Where the command line says where to, what was recorded need not be there.
            let urls = if cli.common.to.urls().next().is_some() {
                recording.roles.iter_mut().for_each(|role| role.target = None);
                Vec::new()
            } else {
                recording.urls.iter().map(|url| Target::parse(url)).collect::<Result<_, _>>()?
            };
            let connections = cli.connections.unwrap_or(recording.roles.len());
            let warnings = recording.told_of_skipped();
            let elsewhere = Elsewhere { urls, warnings, ..Elsewhere::default() };
            play(&cli.common, "replay", recording.script(connections, cli.repeat), elsewhere, site)
        }
        Command::Agent(_) | Command::Diff(_) => unreachable!("no scenario"),
    }
}

/// The opcode of messages.
fn kind(common: &Common) -> Kind {
    if common.to.binary { Kind::Binary } else { Kind::Text }
}

/// What a file says where the command line does not.
#[derive(Default)]
struct Elsewhere {
    urls: Vec<Target>,
    tls: Tls,
    warnings: Vec<String>,
}

/// Users who follow a script.
fn play(common: &Common, scenario: &str, script: Script, elsewhere: Elsewhere, site: &Site<'_>) -> Outcome<Done> {
    let users = script.stages.most();
    let mut launch = Launch::new(common, users, site);
    launch.refuse_raw(scenario)?;
    let is_elsewhere = launch.urls.is_empty();
    if is_elsewhere {
        launch.urls = elsewhere.urls;
    }
    // A file for wss:// may be tried out on a server without.
    if is_elsewhere || launch.urls.iter().any(|url| url.is_secure) {
        launch.tls = launch.tls.or(&elsewhere.tls);
    }
    launch.warnings = elsewhere.warnings;
    launch.steps.clone_from(&script.names);
    // A recording ends when all have played it.
    launch.duration = script.sessions.is_none().then_some(Duration::from_nanos(script.stages.end()));
    let mut run = launch.plan()?;
    run.connections = 0;
    run.slots = users;
    run.patience = Duration::from_nanos(script.patience(nanos(common.patience)));
    let plan = play::Plan {
        script: Arc::new(script),
        deal: run.deal(),
        concurrency: common.opening.concurrency,
        patience: nanos(common.patience),
    };
    launch.run(&run, scenario, "replies", None, |share, _| Play::new(plan.clone(), share))
}

/// Groups of connections that hear the same.
#[derive(Clone, Copy)]
struct Groups {
    count: usize,
    members: usize,
    stalled: usize,
}

fn fan_out(
    scenario: &str,
    cli: &Publishing,
    groups: Groups,
    stall_after: Option<Duration>,
    site: &Site<'_>,
) -> Outcome<Done> {
    let (flow, common) = (&cli.load.flow, &cli.load.common);
    let publishers = cli.publishers as usize;
    if publishers > groups.members {
        return Err("a group has more publishers than members".into());
    }
    if common.to.raw && (publishers > 1 || scenario != "broadcast") {
        return Err("--raw needs a broadcast with one publisher".into());
    }
    if common.to.size.min() < STAMP_BYTES {
        return Err(
            format!("{scenario} needs messages of at least {STAMP_BYTES} bytes, which say who sent them").into()
        );
    }
    if groups.count * publishers > STREAMS_MAX {
        return Err(format!("at most {STREAMS_MAX} publishers can be told apart").into());
    }
    // A group is one agent's: what was sent is known where it was sent.
    let here = site.part.of(groups.count);
    let connections = here * site.part.agents * (groups.members + groups.stalled);
    let mut launch = Launch::flowing(flow, common, connections, site);
    if common.to.raw {
        launch.layout = Layout::RawFanout;
    }
    let run = launch.plan()?;
    let plan = fanout::Plan {
        groups: here,
        groups_in_all: groups.count,
        part: site.part,
        members: groups.members,
        publishers,
        stalled: groups.stalled,
        stall_after: nanos(stall_after.unwrap_or(flow.duration / 2)),
        deal: run.deal(),
        burst: u64::from(cli.burst),
        pace: launch.pace(flow),
        ramp: launch.ramp(),
        raw: common.to.raw,
    };
    let board = Arc::new(Board::new(plan, run.workers));
    launch.run(&run, scenario, "deliveries", flow.rate, |share, net| {
        board.set_bell(share.worker, net.bell());
        Fanout::new(board.clone(), share)
    })
}

fn nanos(time: Duration) -> Nanos {
    // The command line takes no time that would not fit.
    time.as_nanos() as Nanos
}

/// What all scenarios need from the command line.
struct Launch<'a> {
    common: &'a Common,
    /// Of all sites together.
    connections: usize,
    /// More of them here.
    beside: usize,
    layout: Layout,
    warmup: Duration,
    /// Without it the run ends when the workers do.
    duration: Option<Duration>,
    /// Where to.
    urls: Vec<Target>,
    tls: Tls,
    /// What users expect, where they follow a script.
    steps: Vec<String>,
    /// What the report says of what was asked for.
    warnings: Vec<String>,
    site: &'a Site<'a>,
}

impl<'a> Launch<'a> {
    fn new(common: &'a Common, connections: usize, site: &'a Site<'a>) -> Self {
        let layout = if common.to.raw { Layout::RawEcho } else { Layout::WebSocket };
        let urls = common.to.urls().cloned().collect();
        Self {
            common,
            connections,
            beside: 0,
            layout,
            warmup: Duration::ZERO,
            duration: None,
            urls,
            tls: common.tls.clone(),
            steps: Vec::new(),
            warnings: Vec::new(),
            site,
        }
    }

    /// The connections that are made here.
    fn own(&self) -> usize {
        self.site.part.of(self.connections) + self.beside
    }

    /// Whether so many may be made here.
    fn check_own(&self) -> Result<(), String> {
        let own = self.own();
        match self.site.connections_max.filter(|most| own > *most) {
            Some(most) => Err(format!("{own} connections: this agent takes {most} at most (--max-connections)")),
            None => Ok(()),
        }
    }

    /// Of a scenario in which messages flow.
    fn flowing(flow: &Flow, common: &'a Common, connections: usize, site: &'a Site<'a>) -> Self {
        let duration = flow.count.is_none().then_some(flow.duration);
        Self { warmup: flow.warmup, duration, ..Self::new(common, connections, site) }
    }

    fn ramp(&self) -> Ramp {
        let opening = &self.common.opening;
        Ramp { concurrency: opening.concurrency, per_second: opening.ramp }
    }

    fn pace(&self, flow: &Flow) -> Pace {
        Pace { rate: flow.rate, count: flow.count, patience: nanos(self.common.patience) }
    }

    fn refuse_raw(&self, what: &str) -> Result<(), String> {
        if self.common.to.raw {
            Err(format!("{what} needs WebSocket: --raw is for echo, broadcast and connect"))
        } else {
            Ok(())
        }
    }

    /// Where to, and how each is spoken to.
    fn targets(&self) -> Result<Vec<Target>, String> {
        let Common { to, opening, .. } = self.common;
        let count = self.urls.len();
        if count == 0 {
            return Err("neither the command line nor the file has a URL".to_owned());
        }
        let mut targets = Vec::new();
        for url in &self.urls {
            let mut target = url.clone();
            target.headers.clone_from(&to.headers);
            target.protocols.clone_from(&to.protocols);
            target.offer = to.deflate.map(|contexts| Offer { context: contexts == Contexts::Context });
            target.check()?;
            target.sources = opening.bind.clone().unwrap_or_default();
            target.spread_sources(self.own().div_ceil(count), self.site.part.agent);
            if target.is_secure {
                target.connector = Some(self.tls.connector(self.site.files)?);
            }
            targets.push(target);
        }
        if !targets.iter().any(|target| target.is_secure) && self.tls.is_asked_for() {
            return Err("the options of TLS are for wss:// URLs: there is none".to_owned());
        }
        Ok(targets)
    }

    fn plan(&self) -> Result<run::Plan, String> {
        let Common { to, opening, output, patience, .. } = self.common;
        let targets = self.targets()?;
        let own = self.own();
        if own == 0 {
            return Err("there must be connections, for each agent at least one".to_owned());
        }
        self.check_own()?;
        // An agent need not be where the server is.
        let server_pid = output.server_pid.filter(|_| self.site.gate.is_none());
        if let Some(pid) = server_pid {
            usage::check(pid).map_err(|error| format!("--server-pid {pid}: {error}"))?;
        }
        let descriptors = run::raise_nofile().map_err(|error| error.to_string())?;
        let processors = thread::available_parallelism().map_or(1, usize::from);
        let pinned = opening.pin.len();
        let wanted = if pinned > 0 { pinned } else { (processors / 2).max(1) };
        // Where all threads share the process's descriptors, more of them hold no more connections.
        let are_shared = closes_late().map_err(|error| {
            // What is wrong with this machine, as the server's own check has it.
            let why = check::require(&Config::default()).err().map(|why| why.to_string());
            why.unwrap_or_else(|| format!("io_uring cannot be used: {error}"))
        })?;
        let least = if are_shared { 1 } else { run::workers_needed(own, descriptors) };
        let wanted = opening.threads.unwrap_or(wanted).clamp(1, THREADS_MAX).max(least);
        let kind = if to.binary { Kind::Binary } else { Kind::Text };
        let window = self.duration.unwrap_or(WINDOW_GUESSED);
        Ok(run::Plan {
            targets: targets.into(),
            deflate_bytes_min: to.deflate_min,
            messages: messages(self.layout, kind, &to.size, to.content),
            connections: self.connections,
            slots: 0,
            part: self.site.part,
            gate: self.site.gate.clone(),
            workers: wanted.clamp(1, own),
            pin: opening.pin.clone(),
            warmup: self.warmup,
            duration: self.duration,
            patience: *patience,
            handshake_patience: *patience,
            server_pid,
            interval: (window / 40).clamp(Duration::from_millis(100), Duration::from_secs(1)),
        })
    }

    /// Runs; `rate` is what was asked for.
    fn run<S: Scenario>(
        &self,
        plan: &run::Plan,
        scenario: &str,
        unit: &str,
        rate: Option<f64>,
        make: impl Fn(Share, &Net) -> S + Sync,
    ) -> Outcome<Done> {
        let started_unix_s = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let outcome = plan.run(make, &mut self.site.progress.borrow_mut(), self.site.stop)?;
        // Of a part the leader judges, who knows the others.
        if let Some(why) = outcome.not_measured().filter(|_| self.site.gate.is_none()) {
            return Err(why.into());
        }
        let urls: Vec<String> = self.urls.iter().map(|url| url.url.clone()).collect();
        let about = About {
            scenario: scenario.to_owned(),
            unit: unit.to_owned(),
            urls,
            steps: self.steps.clone(),
            warnings: self.warnings.clone(),
            connections: self.own(),
            rate,
            started_unix_s,
        };
        Ok((about, outcome))
    }
}

/// The messages of a run. They stay for good, so that those of the same kind are made once: an agent makes many runs.
fn messages(layout: Layout, kind: Kind, sizes: &Sizes, content: Content) -> &'static Messages {
    static MADE: Mutex<Vec<&'static Messages>> = Mutex::new(Vec::new());
    let mut made = MADE.lock().unwrap_or_else(PoisonError::into_inner);
    let is_same = |known: &&&Messages| known.is_made_of(layout, kind, sizes, content);
    if let Some(known) = made.iter().find(is_same) {
        return known;
    }
    let messages: &'static Messages = Box::leak(Box::new(Messages::new(layout, kind, sizes.clone(), content)));
    made.push(messages);
    messages
}
