//! An agent: a server of the library's own whose only route takes a leader's orders, and at most one run at a time.

use std::{
    fmt,
    future::{Future, poll_fn},
    io::Write as _,
    net::{SocketAddr, ToSocketAddrs},
    pin::pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::Poll,
    thread,
    time::{Duration, Instant},
};

use ringwire::{
    App, Connection, HttpError, OwnedMessage, Request, Server, check,
    config::{ApiToken, Config, CoreSet, ListenAddress},
    http::header::{AUTHORIZATION, ORIGIN},
    quote::quoted,
    sleep, timeout, ws,
};

use super::{
    job::{Clock, Job},
    mail::Mail,
    protocol::{Hello, MESSAGE_BYTES_MAX, Machine, Order, TOKEN_VARIABLE, Version, Word},
};
use crate::{
    cli, run, usage,
    verdict::{Outcome, Verdict},
};

/// Whoever connects has so long to say hello.
const HELLO_PATIENCE: Duration = Duration::from_secs(10);
/// Whoever wants to lead waits so long for a run to end whose leader is gone,
const ENDING_PATIENCE: Duration = Duration::from_secs(3);
/// and so long for a leader who may be about to leave: a run just before this one may have been its.
const LEAVING_PATIENCE: Duration = Duration::from_millis(300);
/// How often the leader is told how it goes.
const BEAT: Duration = Duration::from_secs(1);
/// A leader that is silent is asked whether it is there, and is gone if it is silent for longer.
const LEADER_ASKED_AFTER: Duration = Duration::from_secs(3);
const LEADER_GONE_AFTER: Duration = Duration::from_secs(15);
/// Descriptors that are not connections.
const SPARE_DESCRIPTORS: u64 = 512;
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Serves until it is stopped.
///
/// # Errors
/// If it cannot listen, or must not without a token.
pub(crate) fn serve(cli: &cli::Agent, stop: &AtomicBool) -> Outcome<Verdict> {
    let token = cli.token.clone().or_else(|| std::env::var(TOKEN_VARIABLE).ok()).filter(|token| !token.is_empty());
    let token = token.map(|token| token.parse::<ApiToken>().map_err(|_| "a token is of A-Z a-z 0-9 - . _ ~ + / ="));
    let token = token.transpose()?;
    let told = |error: std::io::Error| format!("--listen {}: {error}", quoted(&cli.listen));
    let addresses: Vec<SocketAddr> = cli.listen.to_socket_addrs().map_err(told)?.collect();
    let is_open = addresses.iter().any(|address| !address.ip().to_canonical().is_loopback());
    if is_open && token.is_none() {
        return Err(format!(
            "--listen {}: others than this machine could order any load to anywhere: set {TOKEN_VARIABLE}",
            quoted(&cli.listen)
        )
        .into());
    }
    let descriptors = run::raise_nofile()?.saturating_sub(SPARE_DESCRIPTORS);
    let (kernel, processor, processors) = usage::machine();
    let agent = Arc::new(Agent {
        token,
        connections_max: cli.max_connections.unwrap_or_else(|| usize::try_from(descriptors).unwrap_or(usize::MAX)),
        machine: Machine { kernel, processor, processors },
        clock: Clock::new(),
        is_quiet: cli.quiet,
        seat: Mutex::default(),
    });
    let config = Config::default()
        .addresses(addresses.into_iter().take(1).map(ListenAddress::from).collect())
        .cores(CoreSet::Count(1))
        .pin(false)
        .recv_buffers(256)
        .max_connections(64)
        .max_message(MESSAGE_BYTES_MAX)
        .max_outbox(2 * MESSAGE_BYTES_MAX)
        .ping_interval(LEADER_ASKED_AFTER)
        .idle_timeout(LEADER_GONE_AFTER)
        .drain_spread(Duration::ZERO);
    // What keeps this machine from it, as the server's own check has it.
    check::require(&config)?;
    let made = agent.clone();
    let handle = Server::new(config).start(move || app(&made))?;
    for address in handle.addresses().iter().filter_map(|address| address.inet()) {
        println!("agent listening on {address}");
    }
    std::io::stdout().flush()?;
    while !stop.load(Ordering::Relaxed) {
        thread::sleep(LOOK_EVERY);
    }
    handle.shutdown();
    handle.join()?;
    Ok(Verdict::Passed)
}

struct Agent {
    token: Option<ApiToken>,
    connections_max: usize,
    machine: Machine,
    clock: Clock,
    is_quiet: bool,
    /// Who leads it.
    seat: Mutex<Option<Seat>>,
}

#[derive(Clone, Debug)]
struct Seat {
    leader: String,
    since: Instant,
    is_gone: bool,
}

/// Why nobody else may lead, and how long it is worth to wait.
struct Busy {
    why: String,
    patience: Duration,
}

/// Whoever has it leads.
struct Seated<'a>(&'a Agent);

impl Drop for Seated<'_> {
    fn drop(&mut self) {
        self.0.seat().take();
    }
}

impl Agent {
    fn seat(&self) -> MutexGuard<'_, Option<Seat>> {
        self.seat.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets somebody lead, or says why not.
    fn seated(&self, leader: &str) -> Result<Seated<'_>, Busy> {
        let mut seat = self.seat();
        if let Some(Seat { leader, since, is_gone }) = &*seat {
            let seconds = since.elapsed().as_secs();
            return Err(match is_gone {
                true => {
                    Busy { why: format!("busy: it ends the run of {leader}, which is gone"), patience: ENDING_PATIENCE }
                }
                false => Busy { why: format!("busy: led by {leader} for {seconds} s"), patience: LEAVING_PATIENCE },
            });
        }
        *seat = Some(Seat { leader: leader.to_owned(), since: Instant::now(), is_gone: false });
        Ok(Seated(self))
    }

    fn say(&self, text: impl fmt::Display) {
        if !self.is_quiet {
            eprintln!("{text}");
        }
    }

    /// Whether a request may lead at all.
    fn check(&self, request: &Request) -> Result<(), HttpError> {
        let headers = request.headers();
        // Every browser says where the page is from that wants a WebSocket (RFC 6455 10.2), and no leader does.
        if headers.contains_key(ORIGIN) {
            return Err(HttpError::forbidden("not for pages in browsers"));
        }
        let Some(token) = &self.token else { return Ok(()) };
        let shown = headers.get(AUTHORIZATION).and_then(|value| value.as_bytes().strip_prefix(b"Bearer "));
        match shown {
            Some(shown) if token.is(shown) => Ok(()),
            Some(_) => Err(HttpError::unauthorized("wrong token")),
            None => Err(HttpError::unauthorized("a token is needed")),
        }
    }
}

fn app(agent: &Arc<Agent>) -> App {
    let (checks, leads) = (agent.clone(), agent.clone());
    App::new().before(move |request| checks.check(request)).ws(
        "/",
        ws().task(move |connection: Connection| {
            let agent = leads.clone();
            async move { lead(&agent, connection).await }
        }),
    )
}

fn send(connection: &Connection, word: &Word) {
    match serde_json::to_string(word) {
        Ok(text) => drop(connection.send(text)),
        Err(error) => drop(connection.close(1011, &error.to_string())),
    }
}

fn refuse(connection: &Connection, why: String) {
    send(connection, &Word::Refused { why });
    let _ = connection.close(1008, "refused");
}

/// What comes next.
enum Next {
    Order(Option<OwnedMessage>),
    Word(Word),
    Beat,
}

async fn next(connection: &mut Connection, mail: &Mail) -> Next {
    let mut message = pin!(connection.recv());
    let mut beat = pin!(sleep(BEAT));
    poll_fn(|cx| {
        if let Poll::Ready(message) = message.as_mut().poll(cx) {
            return Poll::Ready(Next::Order(message));
        }
        if let Poll::Ready(word) = mail.poll_take(cx) {
            return Poll::Ready(Next::Word(word));
        }
        beat.as_mut().poll(cx).map(|()| Next::Beat)
    })
    .await
}

/// One connection: somebody who wants to lead.
async fn lead(agent: &Agent, mut connection: Connection) {
    let peer = connection.peer().map_or_else(|| "somebody".to_owned(), |peer| peer.to_string());
    let hello =
        Hello { version: Version::own(), connections_max: agent.connections_max, machine: agent.machine.clone() };
    send(&connection, &Word::Hello(hello));
    let Ok(Some(message)) = timeout(HELLO_PATIENCE, connection.recv()).await else {
        let _ = connection.close(1008, "no hello");
        return;
    };
    match message.json::<Order>() {
        Ok(Order::Hello(version)) if version.fits() => {}
        Ok(Order::Hello(version)) => {
            let own = Version::own();
            return refuse(&connection, format!("this agent is {own}, the leader {version}: both must be the same"));
        }
        _ => return refuse(&connection, "a leader says hello first".to_owned()),
    }
    let began = Instant::now();
    let seated = loop {
        match agent.seated(&peer) {
            Ok(seated) => break seated,
            Err(busy) if began.elapsed() < busy.patience => sleep(LOOK_EVERY).await,
            Err(busy) => return refuse(&connection, busy.why),
        }
    };
    send(&connection, &Word::Welcome {});
    agent.say(format_args!("led by {peer}"));
    let job = follow(agent, &mut connection).await;
    if let Some(seat) = &mut *agent.seat() {
        seat.is_gone = true;
    }
    if let Some(job) = job {
        job.abandon();
        while !job.is_over() {
            sleep(LOOK_EVERY).await;
        }
    }
    agent.say(format_args!("{peer} is gone"));
    drop(seated);
}

/// Follows orders until the leader is gone; the run that still goes on then, if there is one.
async fn follow(agent: &Agent, connection: &mut Connection) -> Option<Job> {
    let mail = Arc::new(Mail::default());
    let mut job: Option<Job> = None;
    loop {
        let message = match next(connection, &mail).await {
            Next::Order(Some(message)) => message,
            Next::Order(None) => return job,
            Next::Word(word) => {
                // What is sent is as much as a run has measured: no faster than the leader reads.
                connection.ready().await;
                send(connection, &word);
                continue;
            }
            Next::Beat => {
                send(connection, &Word::Doing(mail.doing()));
                continue;
            }
        };
        let order = match message.json::<Order>() {
            Ok(order) => order,
            Err(error) => {
                refuse(connection, format!("no order: {error}"));
                return job;
            }
        };
        match order {
            Order::Hello(_) => {}
            Order::Probe { number } => {
                send(connection, &Word::Probed { number, now_ns: agent.clock.of(Instant::now()) });
            }
            Order::Plan(_) if job.as_ref().is_some_and(|job| !job.is_over()) => {
                send(connection, &Word::Failed { why: "a run goes on already".to_owned() });
            }
            Order::Plan(plan) => match Job::begin(&plan, agent.connections_max, agent.clock, &mail) {
                Ok(begun) => {
                    // The rest of the command line may have secrets in it.
                    let scenario = plan.arguments.first().map_or("", String::as_str);
                    let (number, agents) = (plan.part.agent + 1, plan.part.agents);
                    agent.say(format_args!("part {number} of {agents} of {}", quoted(scenario)));
                    mail.note(Default::default());
                    job = Some(begun);
                }
                Err(why) => send(connection, &Word::Failed { why }),
            },
            Order::Go { at_ns } => {
                if let Some(job) = &job {
                    job.go(agent.clock.at(at_ns));
                }
            }
            Order::Stop {} => {
                if let Some(job) = &job {
                    job.stop();
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Kills: a second leader who waits until the first one's run is over, and is then served.
    #[test]
    fn who_comes_while_another_leads_is_told_at_once() {
        let agent = Agent {
            token: None,
            connections_max: 1,
            machine: Machine::default(),
            clock: Clock::new(),
            is_quiet: true,
            seat: Mutex::default(),
        };
        let first = agent.seated("a:1");
        let busy = agent.seated("b:2").err().expect("taken");
        assert_eq!((busy.why.as_str(), busy.patience), ("busy: led by a:1 for 0 s", LEAVING_PATIENCE));
        assert!(LEAVING_PATIENCE < Duration::from_secs(1));
        // A run whose leader is gone is ended, which is worth to wait for.
        agent.seat().as_mut().expect("taken").is_gone = true;
        let busy = agent.seated("b:2").err().expect("taken");
        assert!(busy.why.contains("it ends the run of a:1") && busy.patience == ENDING_PATIENCE, "{}", busy.why);
        drop(first);
        assert!(agent.seated("b:2").is_ok());
    }
}
