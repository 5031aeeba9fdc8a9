//! From the command line to a run: checks what a scenario needs, plans it, runs it.

use std::{
    sync::{Arc, atomic::AtomicBool},
    thread,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use ringwire::{engine::uring::closes_late, proto::Kind};

use crate::{
    cli::{Command, Common, Flow, Publishing},
    net::{Nanos, Net},
    output,
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
    },
    usage,
    verdict::{Outcome, Verdict},
    wire::{Layout, Messages, STAMP_BYTES, STREAMS_MAX},
};

/// Stands in for a window's length where a count ends it, to choose how finely time is cut.
const WINDOW_GUESSED: Duration = Duration::from_secs(20);

/// Runs a scenario as the command line asks for it; `stop` ends it early.
///
/// # Errors
/// If nothing could be measured.
pub(crate) fn scenario(command: &Command, stop: &AtomicBool) -> Outcome<Verdict> {
    match command {
        Command::Echo(cli) => {
            let launch = Launch::flowing(&cli.load.flow, &cli.load.common, cli.connections, stop);
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
            fan_out("broadcast", &cli.publishing, Groups { count: 1, members, stalled: 0 }, stop)
        }
        Command::Rooms(cli) => {
            if !cli.publishing.load.common.to.url().path.contains("{room}") {
                return Err("the URL must have {room} in its path".into());
            }
            let groups = Groups { count: cli.rooms.max(1), members: cli.members, stalled: 0 };
            fan_out("rooms", &cli.publishing, groups, stop)
        }
        Command::Slow(cli) => {
            if cli.publishing.load.flow.count.is_some() {
                return Err("slow needs a --duration: readers stall in the middle of it".into());
            }
            let members = cli.subscribers + cli.publishing.publishers as usize;
            fan_out("slow", &cli.publishing, Groups { count: 1, members, stalled: cli.stalled }, stop)
        }
        Command::Emit(cli) => {
            let mut launch = Launch::flowing(&cli.load.flow, &cli.load.common, cli.connections, stop);
            launch.refuse_raw("emit")?;
            let to = &launch.common.to;
            if to.binary || to.size.min() < STAMP_BYTES || to.size.max() > 32 << 10 {
                return Err(format!("emit sends text of {STAMP_BYTES} bytes to 32 KiB").into());
            }
            if !cli.api.contains("{id}") {
                return Err("--api must have {id} in it".into());
            }
            let plan = emit::Plan {
                sockets: cli.connections,
                posters: cli.posters.max(1),
                ramp: launch.ramp(),
                pace: launch.pace(&cli.load.flow),
                host: to.url().host.clone(),
                api: cli.api.clone(),
                token: cli.token.clone(),
            };
            let mut run = launch.plan()?;
            launch.connections += plan.posters * run.workers;
            run.connections = launch.connections;
            launch.run(&run, "emit", "deliveries", cli.load.flow.rate, |share, _| Emit::new(plan.clone(), share))
        }
        Command::Connect(cli) => {
            let launch = Launch::new(&cli.common, cli.connections, stop);
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
            let launch = Launch::flowing(&cli.load.flow, &cli.load.common, cli.users, stop);
            launch.refuse_raw("churn")?;
            let plan = churn::Plan { users: cli.users, words: cli.words, pace: launch.pace(&cli.load.flow) };
            let mut run = launch.plan()?;
            // Sessions come and go: a worker that has none open is no failure, and an address has only so many ports.
            run.connections = 0;
            run.slots = cli.users;
            launch.run(&run, "churn", "sessions", cli.load.flow.rate, |share, _| Churn::new(plan.clone(), share))
        }
        Command::Diff { .. } => unreachable!("no scenario"),
    }
}

/// Groups of connections that hear the same.
#[derive(Clone, Copy)]
struct Groups {
    count: usize,
    members: usize,
    stalled: usize,
}

fn fan_out(scenario: &'static str, cli: &Publishing, groups: Groups, stop: &AtomicBool) -> Outcome<Verdict> {
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
    let connections = groups.count * (groups.members + groups.stalled);
    let mut launch = Launch::flowing(flow, common, connections, stop);
    if common.to.raw {
        launch.layout = Layout::RawFanout;
    }
    let plan = fanout::Plan {
        groups: groups.count,
        members: groups.members,
        publishers,
        stalled: groups.stalled,
        stall_after: nanos(flow.duration / 2),
        burst: u64::from(cli.burst),
        pace: launch.pace(flow),
        ramp: launch.ramp(),
        raw: common.to.raw,
    };
    let run = launch.plan()?;
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
    connections: usize,
    layout: Layout,
    warmup: Duration,
    /// Without it the run ends when the workers do.
    duration: Option<Duration>,
    stop: &'a AtomicBool,
}

impl<'a> Launch<'a> {
    fn new(common: &'a Common, connections: usize, stop: &'a AtomicBool) -> Self {
        let layout = if common.to.raw { Layout::RawEcho } else { Layout::WebSocket };
        Self { common, connections, layout, warmup: Duration::ZERO, duration: None, stop }
    }

    /// Of a scenario in which messages flow.
    fn flowing(flow: &Flow, common: &'a Common, connections: usize, stop: &'a AtomicBool) -> Self {
        let duration = flow.count.is_none().then_some(flow.duration);
        Self { warmup: flow.warmup, duration, ..Self::new(common, connections, stop) }
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

    fn plan(&self) -> Result<run::Plan, String> {
        let Common { to, opening, output, patience } = self.common;
        let mut target = to.target()?;
        target.headers.clone_from(&to.headers);
        target.protocols.clone_from(&to.protocols);
        target.check()?;
        target.sources = opening.bind.clone().unwrap_or_default();
        target.spread_sources(self.connections);
        if self.connections == 0 {
            return Err("there must be connections".to_owned());
        }
        if let Some(pid) = output.server_pid {
            usage::check(pid).map_err(|error| format!("--server-pid {pid}: {error}"))?;
        }
        let descriptors = run::raise_nofile().map_err(|error| error.to_string())?;
        let processors = thread::available_parallelism().map_or(1, usize::from);
        let pinned = opening.pin.len();
        let wanted = if pinned > 0 { pinned } else { (processors / 2).max(1) };
        // Where all threads share the process's descriptors, more of them hold no more connections.
        let are_shared = closes_late().map_err(|error| format!("io_uring cannot be used: {error}"))?;
        let least = if are_shared { 1 } else { run::workers_needed(self.connections, descriptors) };
        let wanted = opening.threads.unwrap_or(wanted).max(least);
        let kind = if to.binary { Kind::Binary } else { Kind::Text };
        let window = self.duration.unwrap_or(WINDOW_GUESSED);
        Ok(run::Plan {
            target: Arc::new(target),
            messages: Box::leak(Box::new(Messages::new(self.layout, kind, to.size.clone()))),
            connections: self.connections,
            slots: 0,
            workers: wanted.clamp(1, self.connections),
            pin: opening.pin.clone(),
            warmup: self.warmup,
            duration: self.duration,
            patience: *patience,
            server_pid: output.server_pid,
            interval: (window / 40).clamp(Duration::from_millis(100), Duration::from_secs(1)),
        })
    }

    /// Runs, prints and stores; `rate` is what was asked for.
    fn run<S: Scenario>(
        &self,
        plan: &run::Plan,
        scenario: &'static str,
        unit: &'static str,
        rate: Option<f64>,
        make: impl Fn(Share, &Net) -> S + Sync,
    ) -> Outcome<Verdict> {
        let Common { to, output, .. } = self.common;
        let started_unix_s = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let outcome = plan.run(make, &mut Progress::new(output.quiet), self.stop)?;
        let url = to.url().url.clone();
        let about = About { scenario, unit, url, connections: self.connections, rate, started_unix_s };
        output::finish(&about, &outcome, output)
    }
}
