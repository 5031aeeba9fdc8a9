//! What a leader knows of one agent, and its connection to it.

use std::{
    sync::mpsc::Sender,
    thread,
    time::{Duration, Instant},
};

use ringwire::{
    OwnedMessage,
    client::{self, ClientError, blocking::Client},
    quote::quoted,
};

use super::protocol::{Brought, Doing, Hello, MESSAGE_BYTES_MAX, Order, TOKEN_VARIABLE, Version, Word};
use crate::{
    outcome::{self, Counts, Ended, Interval},
    words::one_line,
};

/// An agent has so long to accept a connection, and to answer a hello.
const HELLO_PATIENCE: Duration = Duration::from_secs(10);

/// What happened at an agent, and when.
#[derive(Debug)]
pub(crate) struct Event {
    pub(crate) member: usize,
    pub(crate) at: Instant,
    /// What it said, or why it says nothing any more.
    pub(crate) word: Result<Word, String>,
}

/// Where an agent stands in a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Stage {
    Opening,
    Ready,
    Flowing,
    Measured,
    /// It has brought its part, or is lost.
    Over,
}

/// The agent's clock and ours, at the same time.
#[derive(Clone, Copy, Debug)]
struct Clocks {
    round_trip: Duration,
    ours: Instant,
    theirs_ns: u64,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) name: String,
    pub(crate) hello: Hello,
    sender: client::Sender,
    pub(crate) stage: Stage,
    heard_at: Instant,
    pub(crate) doing: Doing,
    probe: Option<(u64, Instant)>,
    clocks: Option<Clocks>,
    goes_at: Option<Instant>,
    began_late: Option<Duration>,
    intervals: Vec<Interval>,
    pub(crate) brought: Option<Box<Brought>>,
    pub(crate) lost: Option<String>,
}

/// One word of an agent.
fn read(message: &OwnedMessage) -> Result<Word, String> {
    message.json().map_err(|error| one_line(&format!("it said what no agent says: {error}")))
}

fn hear(client: &mut Client) -> Result<Word, String> {
    match client.recv_timeout(HELLO_PATIENCE) {
        Some(Ok(message)) => read(&message),
        Some(Err(error)) => Err(error.to_string()),
        None => Err("it closed the connection".to_owned()),
    }
}

fn write(order: &Order) -> Result<String, String> {
    serde_json::to_string(order).map_err(|error| error.to_string())
}

impl Member {
    /// Connects to an agent, and reads what it says from now on into `events`.
    ///
    /// # Errors
    /// If it is not there, is of another version, wants another token, or is led already.
    pub(crate) fn connect(
        name: &str,
        number: usize,
        token: Option<&str>,
        events: &Sender<Event>,
    ) -> Result<Member, String> {
        let told = |why: String| format!("agent {name}: {why}");
        let mut connect = client::connect(format!("ws://{name}/"))
            .handshake_timeout(HELLO_PATIENCE)
            .max_message(MESSAGE_BYTES_MAX)
            .max_inbox(MESSAGE_BYTES_MAX)
            .max_outbox(2 * MESSAGE_BYTES_MAX);
        if let Some(token) = token {
            connect = connect.header("Authorization", format!("Bearer {token}"));
        }
        let mut client = connect.wait().map_err(|error| told(why_not(&error, token.is_some())))?;
        let hello = match hear(&mut client).map_err(told)? {
            Word::Hello(hello) => hello,
            _ => return Err(told("it is none: it says no hello".to_owned())),
        };
        // So that the agent knows too.
        client.send(write(&Order::Hello(Version::own())).map_err(told)?).map_err(|error| told(error.to_string()))?;
        if !hello.version.fits() {
            let _ = client.close(1000, "");
            return Err(told(format!("it is {}, this is {}: both must be the same", hello.version, Version::own())));
        }
        match hear(&mut client).map_err(told)? {
            Word::Welcome {} => {}
            Word::Refused { why } => return Err(told(one_line(&why))),
            _ => return Err(told("it is none: it neither welcomes nor refuses".to_owned())),
        }
        let sender = client.sender();
        let events = events.clone();
        thread::spawn(move || {
            let mut is_over = false;
            while !is_over {
                let word = match client.recv() {
                    Some(Ok(message)) => read(&message),
                    Some(Err(error)) => Err(error.to_string()),
                    None => Err(match client.closed() {
                        Some(closed) => format!("it ended the connection (close code {})", closed.code),
                        None => "it ended the connection".to_owned(),
                    }),
                };
                is_over = word.is_err();
                // Nobody listens any more where the run is over.
                is_over |= events.send(Event { member: number, at: Instant::now(), word }).is_err();
            }
        });
        Ok(Member {
            name: name.to_owned(),
            hello,
            sender,
            stage: Stage::Over,
            heard_at: Instant::now(),
            doing: Doing::default(),
            probe: None,
            clocks: None,
            goes_at: None,
            began_late: None,
            intervals: Vec::new(),
            brought: None,
            lost: None,
        })
    }

    /// Begins a run.
    pub(crate) fn begin(&mut self, plan: &Order) {
        self.stage = Stage::Opening;
        self.heard_at = Instant::now();
        self.doing = Doing::default();
        (self.clocks, self.goes_at, self.began_late) = (None, None, None);
        self.intervals.clear();
        self.brought = None;
        self.say(plan);
    }

    /// Says something; whoever cannot be told is lost.
    pub(crate) fn say(&mut self, order: &Order) {
        if self.lost.is_some() {
            return;
        }
        let said = write(order).and_then(|text| self.sender.try_send(text).map_err(|error| error.to_string()));
        if let Err(why) = said {
            self.lose(why);
        }
    }

    pub(crate) fn lose(&mut self, why: String) {
        if self.lost.is_none() && self.brought.is_none() {
            self.lost = Some(why);
        }
        self.stage = Stage::Over;
    }

    pub(crate) fn is_over(&self) -> bool {
        self.stage == Stage::Over
    }

    /// Whether it has said nothing for longer than it may.
    pub(crate) fn is_silent(&self, now: Instant, patience: Duration) -> bool {
        !self.is_over() && now.saturating_duration_since(self.heard_at) > patience
    }

    pub(crate) fn probe(&mut self, number: u64) {
        // Before it is said: the answer may be there before we are on again.
        let asked_at = Instant::now();
        self.say(&Order::Probe { number });
        self.probe = Some((number, asked_at));
    }

    pub(crate) fn is_probed(&self) -> bool {
        self.is_over() || self.probe.is_none()
    }

    pub(crate) fn round_trip(&self) -> Option<Duration> {
        self.clocks.map(|clocks| clocks.round_trip)
    }

    /// Has it begin then.
    pub(crate) fn go(&mut self, at: Instant) {
        let Some(clocks) = self.clocks else { return self.lose("it did not say its time".to_owned()) };
        self.goes_at = Some(at);
        let after = at.saturating_duration_since(clocks.ours).as_nanos() as u64;
        self.say(&Order::Go { at_ns: clocks.theirs_ns.saturating_add(after) });
    }

    /// Takes what it said.
    pub(crate) fn hear(&mut self, at: Instant, word: Result<Word, String>) {
        self.heard_at = at;
        let word = match word {
            Ok(word) => word,
            Err(why) => return self.lose(why),
        };
        match word {
            Word::Doing(doing) => self.doing = doing,
            // What is left of an earlier run.
            _ if self.is_over() => {}
            Word::Ready(counts) => {
                self.doing.counts = counts;
                self.stage = self.stage.max(Stage::Ready);
            }
            Word::Probed { number, now_ns } => {
                let Some((asked, sent_at)) = self.probe.take_if(|probe| probe.0 == number) else { return };
                debug_assert_eq!(asked, number);
                let round_trip = at.saturating_duration_since(sent_at);
                // The shorter the way there and back, the less does it matter which of both was longer.
                if self.clocks.is_none_or(|known| round_trip < known.round_trip) {
                    self.clocks = Some(Clocks { round_trip, ours: sent_at + round_trip / 2, theirs_ns: now_ns });
                }
            }
            Word::Flowing { at_ns } => {
                self.stage = self.stage.max(Stage::Flowing);
                if let (Some(goes_at), Some(clocks)) = (self.goes_at, self.clocks) {
                    let since = Duration::from_nanos(at_ns.saturating_sub(clocks.theirs_ns));
                    self.began_late = clocks.ours.checked_add(since).map(|at| at.saturating_duration_since(goes_at));
                }
            }
            Word::Measured {} => self.stage = self.stage.max(Stage::Measured),
            Word::Intervals(intervals) => self.intervals.extend(intervals),
            Word::Result(mut brought) => {
                brought.outcome.intervals = std::mem::take(&mut self.intervals);
                self.brought = Some(brought);
                self.stage = Stage::Over;
            }
            Word::Failed { why } | Word::Refused { why } => self.lose(one_line(&why)),
            Word::Hello(_) | Word::Welcome {} => {}
        }
    }

    /// What came of its part.
    pub(crate) fn ended(&mut self) -> outcome::Agent {
        let ended = match (self.brought.take(), &self.lost) {
            (Some(brought), _) => Ended::Whole(Box::new(brought.outcome)),
            (None, lost) => {
                let why = lost.clone().unwrap_or_else(|| "it has brought nothing".to_owned());
                Ended::Lost(why, self.last_counts())
            }
        };
        let machine = &self.hello.machine;
        outcome::Agent {
            name: self.name.clone(),
            machine: (machine.kernel.clone(), machine.processor.clone(), machine.processors),
            round_trip: self.round_trip(),
            began_late: self.began_late,
            ended,
        }
    }

    fn last_counts(&self) -> Counts {
        self.doing.counts
    }

    pub(crate) fn leave(&self) {
        let _ = self.sender.close(1000, "");
    }
}

/// Why there is no connection, in words that help.
fn why_not(error: &ClientError, has_token: bool) -> String {
    match error {
        ClientError::Refused(refused) if refused.status.as_u16() == 401 && has_token => {
            format!("it wants another token than that of {TOKEN_VARIABLE}")
        }
        ClientError::Refused(refused) if refused.status.as_u16() == 401 => {
            format!("it wants a token: set {TOKEN_VARIABLE}")
        }
        ClientError::Refused(refused) => {
            format!("it answered with status {}: {}", refused.status.as_u16(), quoted(&refused.body))
        }
        error => error.to_string(),
    }
}
