//! What must come back. Each connection keeps a [`Log`]; the judges read the logs when the run is over.
//!
//! Every data message that a simulated client sends is tagged with its sender and number, so that a judge can tell what
//! any received one is.

use std::collections::BTreeMap;

use ringwire::engine::Nanos;

use crate::ends::Said;
use crate::wire::Message;

/// What the server does with a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// It goes back to its sender.
    Echo,
    /// It goes to everybody on the route, its sender included.
    Broadcast,
    /// It goes to everybody in the sender's room, itself included.
    Rooms,
}

impl Route {
    /// The path that a client of room number `room` asks for.
    pub fn path(self, room: usize) -> &'static str {
        match self {
            Route::Echo => "/echo",
            Route::Broadcast => "/broadcast",
            Route::Rooms => ["/rooms/red", "/rooms/green", "/rooms/blue"][room],
        }
    }
}

/// How a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The client sent Close, the server answered it and closed.
    Clean,
    /// The server sent a Close of its own first.
    ServerClosed(Option<u16>),
    /// The connection broke, or ended without a Close.
    Broken,
    /// The client went without a word.
    Left,
}

/// One connection's history as its client saw it.
#[derive(Clone, Debug, Default)]
pub struct Log {
    pub room: usize,
    pub opened_at: Option<Nanos>,
    /// Messages written, each with the time at which its last byte was; `None` if it never was.
    pub sent: Vec<(Message, Option<Nanos>)>,
    pub received: Vec<Message>,
    pub end: Option<End>,
    /// When its connection was begun, and when it was over.
    pub asked_at: Nanos,
    pub over_at: Option<Nanos>,
    /// Its own Close, and when it was written.
    pub said: Option<Said>,
    pub said_at: Option<Nanos>,
    /// The server's Close.
    pub heard: Option<Said>,
    /// A fault broke the connection under both.
    pub was_broken: bool,
}

/// What tells a message's sender and number in its payload.
pub fn tag(sender: usize, number: usize) -> String {
    format!("{sender}:{number}:")
}

fn parse_tag(message: &Message) -> Option<(usize, usize)> {
    let text: Vec<u8> = message.payload.iter().copied().take(32).collect();
    let text = String::from_utf8_lossy(&text).into_owned();
    let mut parts = text.split(':');
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

/// Checks the logs of all connections of a run.
///
/// `grace_ns`: how long after its handshake a connection may still miss broadcasts, while word of it goes round.
pub fn judge(route: Route, logs: &[Log], grace_ns: Nanos) -> Result<(), String> {
    for (id, log) in logs.iter().enumerate() {
        match route {
            Route::Echo => judge_echo(log),
            Route::Broadcast | Route::Rooms => judge_broadcast(id, logs, grace_ns),
        }
        .map_err(|why| format!("client {id} ({:?}): {why}", log.end))?;
    }
    Ok(())
}

/// Echo: what was sent comes back in order and exactly once; all of it, if the connection ended cleanly.
fn judge_echo(log: &Log) -> Result<(), String> {
    if log.received.len() > log.sent.len() {
        return Err(format!("{} answers to {} messages", log.received.len(), log.sent.len()));
    }
    for (i, (received, (sent, whole_at))) in log.received.iter().zip(&log.sent).enumerate() {
        if received != sent {
            return Err(format!("answer {i} is {}, not {}", brief(received), brief(sent)));
        }
        if whole_at.is_none() {
            return Err(format!("answer {i} came before the message was written"));
        }
    }
    if log.end == Some(End::Clean) && log.received.len() < log.sent.len() {
        return Err(format!("a clean end after {} answers to {} messages", log.received.len(), log.sent.len()));
    }
    Ok(())
}

/// Broadcast: from each sender come its messages in order, without gap or repetition; from senders that ended cleanly,
/// to members that ended cleanly, all that were sent while the member was surely one.
fn judge_broadcast(member: usize, logs: &[Log], grace_ns: Nanos) -> Result<(), String> {
    let log = &logs[member];
    // By sender, the first number received and the next one expected.
    let mut runs: BTreeMap<usize, (usize, usize)> = BTreeMap::new();
    for received in &log.received {
        let sent = parse_tag(received).and_then(|(sender, number)| {
            let from = logs.get(sender)?;
            let (message, whole_at) = from.sent.get(number)?;
            (message == received && whole_at.is_some() && from.room == log.room).then_some((sender, number))
        });
        let Some((sender, number)) = sent else {
            return Err(format!("received {}, which nobody sent to it", brief(received)));
        };
        let (_, next) = runs.entry(sender).or_insert((number, number));
        if *next != number {
            return Err(format!("message {number} of client {sender} came where {next} was due"));
        }
        *next += 1;
    }
    let (Some(End::Clean), Some(opened_at)) = (log.end, log.opened_at) else { return Ok(()) };
    for (sender, from) in logs.iter().enumerate() {
        // Others may send on after this member has said goodbye; its own messages all came before that.
        if sender != member || from.end != Some(End::Clean) {
            continue;
        }
        let due = from.sent.iter().position(|(_, at)| at.is_some_and(|at| at >= opened_at.saturating_add(grace_ns)));
        let Some(due) = due else { continue };
        let (first, next) = runs.get(&sender).copied().unwrap_or((usize::MAX, 0));
        if first > due || next < from.sent.len() {
            let all = from.sent.len();
            return Err(format!("of its own messages {due}..{all}, only {first}..{next} came"));
        }
    }
    Ok(())
}

/// For broadcasts among clients that stay until nothing is under way: whoever ended cleanly got everything that others
/// who did sent after the last of them joined.
pub fn judge_complete(logs: &[Log], grace_ns: Nanos) -> Result<(), String> {
    let clean = || logs.iter().enumerate().filter(|(_, log)| log.end == Some(End::Clean));
    let Some(all_open_at) = clean().map(|(_, log)| log.opened_at).max().flatten() else { return Ok(()) };
    for (id, log) in clean() {
        let mut got: BTreeMap<(usize, usize), u32> = BTreeMap::new();
        for tag in log.received.iter().filter_map(parse_tag) {
            *got.entry(tag).or_default() += 1;
        }
        for (sender, from) in clean().filter(|(_, from)| from.room == log.room) {
            for (number, (_, at)) in from.sent.iter().enumerate() {
                let due = at.is_some_and(|at| at >= all_open_at.saturating_add(grace_ns));
                if due && got.get(&(sender, number)) != Some(&1) {
                    return Err(format!("client {id} misses message {number} of client {sender}"));
                }
            }
        }
    }
    Ok(())
}

/// The key class of a message, where messages have keys.
pub fn key_of(number: usize, keys: usize) -> usize {
    number % keys
}

/// For broadcasts of which some may be dropped: what came was sent, is whole, came once, and of each sender in order; in
/// order within each key where a newer message may take the place of an older one.
pub fn judge_lossy(logs: &[Log], keys: usize) -> Result<(), String> {
    for (id, log) in logs.iter().enumerate() {
        let mut last: BTreeMap<(usize, usize), usize> = BTreeMap::new();
        for received in &log.received {
            let sent = parse_tag(received).filter(|(sender, number)| {
                let sent = logs.get(*sender).and_then(|from| from.sent.get(*number));
                sent.is_some_and(|(message, whole_at)| message == received && whole_at.is_some())
            });
            let Some((sender, number)) = sent else {
                return Err(format!("client {id} received {}, which nobody sent", brief(received)));
            };
            let former = last.insert((sender, key_of(number, keys)), number);
            if former.is_some_and(|former| former >= number) {
                return Err(format!("client {id}: message {number} of client {sender} came after {former:?}"));
            }
        }
    }
    Ok(())
}

/// For broadcasts with keys, of which none is dropped for want of room, among clients that stay until nothing is under
/// way: whoever ended cleanly got the last message of each key that others who did sent after the last of them joined.
pub fn judge_latest(logs: &[Log], keys: usize) -> Result<(), String> {
    let clean = || logs.iter().enumerate().filter(|(_, log)| log.end == Some(End::Clean));
    let Some(all_open_at) = clean().map(|(_, log)| log.opened_at).max().flatten() else { return Ok(()) };
    for (id, log) in clean() {
        let got: Vec<(usize, usize)> = log.received.iter().filter_map(parse_tag).collect();
        for (sender, from) in clean() {
            for key in 0..keys {
                let mut of_key = from.sent.iter().enumerate().filter(|(number, _)| key_of(*number, keys) == key);
                let Some((number, (_, at))) = of_key.next_back() else { continue };
                if at.is_some_and(|at| at >= all_open_at) && !got.contains(&(sender, number)) {
                    return Err(format!("client {id} misses the last message of key {key} of client {sender}"));
                }
            }
        }
    }
    Ok(())
}

fn brief(message: &Message) -> String {
    let start: Vec<u8> = message.payload.iter().copied().take(24).collect();
    format!("opcode {} with {} bytes {:?}", message.opcode, message.payload.len(), String::from_utf8_lossy(&start))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn messages(sender: usize, numbers: &[usize]) -> Vec<Message> {
        numbers.iter().map(|&number| Message { opcode: 1, payload: tag(sender, number).into_bytes() }).collect()
    }

    fn log(sent: Vec<Message>, received: Vec<Message>, end: End) -> Log {
        let sent = sent.into_iter().map(|message| (message, Some(100))).collect();
        Log { opened_at: Some(50), sent, received, end: Some(end), ..Log::default() }
    }

    #[test]
    fn echo_wants_order_once_and_all() {
        let judge_received =
            |numbers: &[usize], end| judge(Route::Echo, &[log(messages(0, &[0, 1, 2]), messages(0, numbers), end)], 0);
        assert_eq!(judge_received(&[0, 1, 2], End::Clean), Ok(()));
        assert_eq!(judge_received(&[0, 1], End::Broken), Ok(()));
        assert!(judge_received(&[0, 1], End::Clean).is_err());
        assert!(judge_received(&[0, 2], End::Broken).is_err());
        assert!(judge_received(&[0, 0, 1], End::Clean).is_err());
        assert!(judge_received(&[0, 1, 2, 2], End::Clean).is_err());
    }

    #[test]
    fn broadcast_wants_unbroken_runs() {
        let judge_received = |numbers: &[usize], end| {
            let logs = [
                log(messages(0, &[0, 1, 2]), messages(0, &[0, 1, 2]), End::Clean),
                log(vec![], messages(0, numbers), end),
            ];
            judge(Route::Broadcast, &logs, 0)
        };
        assert_eq!(judge_received(&[0, 1, 2], End::Clean), Ok(()));
        assert_eq!(judge_received(&[1, 2], End::Clean), Ok(()));
        assert_eq!(judge_received(&[0, 1], End::Broken), Ok(()));
        assert!(judge_received(&[0, 2], End::Broken).is_err());
        assert!(judge_received(&[0, 1, 1], End::Broken).is_err());
        assert!(judge_received(&[3], End::Broken).is_err());
    }

    #[test]
    fn broadcast_wants_own_messages_and_completeness() {
        let own_missing = [log(messages(0, &[0, 1]), messages(0, &[0]), End::Clean)];
        assert!(judge(Route::Broadcast, &own_missing, 0).is_err());
        assert!(judge(Route::Broadcast, &own_missing, 1_000).is_ok());
        let other_missing =
            [log(messages(0, &[0, 1]), messages(0, &[0, 1]), End::Clean), log(vec![], messages(0, &[0]), End::Clean)];
        assert_eq!(judge(Route::Broadcast, &other_missing, 0), Ok(()));
        assert!(judge_complete(&other_missing, 0).is_err());
        assert!(judge_complete(&other_missing, 51).is_ok());
    }
}
