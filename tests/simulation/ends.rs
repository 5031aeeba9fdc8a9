//! How each connection ended, as its client saw it, held against what the server was told.

use std::time::Duration;

use ringwire::engine::Nanos;
use ringwire::metrics::Side;
use ringwire::shard::service::Ended;
use ringwire::{Closed, ConnectionId};

use crate::oracle::{End, Log};

/// A Close frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Said {
    pub code: Option<u16>,
    pub reason: String,
}

/// One end that a server was told of.
#[derive(Clone, Debug)]
pub struct Told {
    /// The client, by its number.
    pub client: usize,
    pub id: ConnectionId,
    pub ended: Ended,
    /// How long it was open.
    pub duration: Duration,
}

/// What `on_close` was told, if the app has one.
pub type Heard = Vec<(ConnectionId, Closed)>;

/// What the core's clock may be behind the world's: it stands still in a tick.
const SLACK: Duration = Duration::from_millis(1);

/// Checks every end that the server was told of, and that it was told of every end.
///
/// `earned`: codes with which the server may have begun. `times_out`: whether time limits are short enough to be reached.
pub fn judge(logs: &[Log], told: &[Told], earned: &[u16], times_out: bool) -> Result<(), String> {
    for (client, log) in logs.iter().enumerate() {
        let mut of_client = told.iter().filter(|told| told.client == client);
        let (first, second) = (of_client.next(), of_client.next());
        let why = match (first, second) {
            (None, _) if log.opened_at.is_some() => Some(String::from("the server was not told of its end")),
            (None, _) => None,
            (Some(_), Some(_)) => Some(String::from("the server was told twice of its end")),
            (Some(told), None) => judge_one(log, told, earned, times_out).err(),
        };
        if let Some(why) = why {
            return Err(format!("client {client} ({:?}), {first:?}: {why}", log.end));
        }
    }
    Ok(())
}

fn judge_one(log: &Log, told: &Told, earned: &[u16], times_out: bool) -> Result<(), String> {
    let Ended { code, reason, clean, by } = &told.ended;
    let said = log.said.as_ref();
    let is_wrong = match by {
        Side::Peer => said.is_none_or(|said| (said.code, &said.reason) != (Some(*code), reason)) || !*clean,
        Side::Local => {
            let other = log.heard.as_ref().filter(|heard| (heard.code, &heard.reason) != (Some(*code), reason));
            // Those who went without a word may still be there when the cores are drained at the end.
            let is_drain = *code == 1001 && matches!(log.end, Some(End::Left | End::Broken));
            !(is_drain || earned.contains(code)) || other.is_some() || (*clean && said.is_none())
        }
        Side::Nobody => *code != 1006 || *clean,
        _ => true,
    };
    if is_wrong {
        return Err(format!("the client said {said:?} and heard {:?}", log.heard));
    }
    match log.end {
        Some(End::Clean) if *by != Side::Peer => return Err(String::from("the client began to close")),
        Some(End::ServerClosed(_)) if *by != Side::Local => return Err(String::from("the server began to close")),
        Some(End::ServerClosed(_)) if !*clean && log.said_at.is_some() && !log.was_broken && !times_out => {
            return Err(String::from("both said Close"));
        }
        _ => {}
    }
    judge_duration(log, told.duration)
}

fn judge_duration(log: &Log, duration: Duration) -> Result<(), String> {
    let between = |from: Nanos, to: Nanos| Duration::from_nanos(to.saturating_sub(from));
    let most = log.over_at.map(|over| between(log.asked_at, over) + SLACK);
    // An end in another way may be noticed late.
    if let (Some(End::Clean), Some(most)) = (log.end, most)
        && duration > most
    {
        return Err(format!("open for {duration:?}, of {most:?} that the client was there"));
    }
    if let (Some(End::Clean), Some(opened), Some(said)) = (log.end, log.opened_at, log.said_at) {
        let least = between(opened, said);
        if duration + SLACK < least {
            return Err(format!("open for {duration:?}, but the client said Close after {least:?}"));
        }
    }
    Ok(())
}

/// Checks that `on_close` was told the same as the core, once for each end.
pub fn judge_heard(told: &[Told], heard: &Heard) -> Result<(), String> {
    for Told { id, ended, duration, client } in told {
        let of_it: Vec<&Closed> = heard.iter().filter(|(of, _)| of == id).map(|(_, closed)| closed).collect();
        let [closed] = of_it[..] else {
            return Err(format!("client {client}: on_close was called {} times", of_it.len()));
        };
        let same = (closed.code, &closed.reason, closed.clean) == (ended.code, &ended.reason, ended.clean);
        if !same || closed.duration.abs_diff(*duration) > SLACK {
            return Err(format!("client {client}: on_close was told {closed:?}, not {ended:?} after {duration:?}"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(code: u16, reason: &str) -> Option<Said> {
        Some(Said { code: Some(code), reason: reason.to_owned() })
    }

    fn clean() -> (Log, Told) {
        let log = Log {
            opened_at: Some(2_000_000_000),
            said: close(3000, "bye"),
            said_at: Some(3_000_000_000),
            heard: close(3000, ""),
            asked_at: 1_000_000_000,
            over_at: Some(4_000_000_000),
            end: Some(End::Clean),
            ..Log::default()
        };
        let ended = Ended { code: 3000, reason: "bye".to_owned(), clean: true, by: Side::Peer };
        let id = "A".repeat(ConnectionId::TEXT_LEN).parse().expect("an id");
        (log, Told { client: 0, id, ended, duration: Duration::from_millis(1_500) })
    }

    fn verdict(change: impl Fn(&mut Log, &mut Told)) -> bool {
        let (mut log, mut told) = clean();
        change(&mut log, &mut told);
        judge(&[log], &[told], &[1001], false).is_ok()
    }

    #[test]
    fn what_is_told_must_be_what_was_said() {
        assert!(verdict(|_, _| {}));
        assert!(!verdict(|_, told| told.ended.clean = false));
        assert!(!verdict(|_, told| told.ended.code = 1234));
        assert!(!verdict(|_, told| told.ended.reason.clear()));
        assert!(!verdict(|_, told| told.ended.by = Side::Local));
        assert!(!verdict(|_, told| told.duration = Duration::from_millis(900)));
        assert!(!verdict(|_, told| told.duration = Duration::from_millis(3_100)));
        assert!(!verdict(|_, told| told.client = 1), "nobody was told of client 0");
    }

    fn server_closed(code: u16, clean: bool) -> bool {
        verdict(|log, told| {
            log.heard = close(code, "server shutting down");
            log.end = Some(End::ServerClosed(Some(code)));
            told.ended = Ended { code, reason: "server shutting down".to_owned(), clean, by: Side::Local };
        })
    }

    #[test]
    fn the_server_begins_only_with_what_was_earned() {
        assert!(server_closed(1001, true));
        assert!(!server_closed(1001, false));
        assert!(!server_closed(1002, true));
    }

    #[test]
    fn on_close_is_told_the_same_once() {
        let (_, told) = clean();
        let Ended { code, reason, clean, .. } = told.ended.clone();
        let good = Closed::new(code, reason, clean, told.duration);
        let of = |closed: &[Closed]| {
            let heard = closed.iter().map(|closed| (told.id, closed.clone())).collect();
            judge_heard(std::slice::from_ref(&told), &heard).is_ok()
        };
        assert!(of(std::slice::from_ref(&good)));
        assert!(!of(&[]) && !of(&[good.clone(), good.clone()]));
        let changes: [fn(&mut Closed); 4] = [
            |closed| closed.code = 1234,
            |closed| closed.clean = false,
            |closed| closed.reason.clear(),
            |closed| closed.duration = Duration::ZERO,
        ];
        for (number, change) in changes.into_iter().enumerate() {
            let mut other = good.clone();
            change(&mut other);
            assert!(!of(&[other]), "{number}");
        }
    }
}
