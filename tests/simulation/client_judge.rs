//! What users of the client were told, held against what the server's handler has seen: every message that was accepted
//! arrives once and in order, and all of them do unless the user was told how the connection ended, and there was a cause
//! for such an end.

use std::collections::VecDeque;

use ringwire::client::ClientError;
use ringwire::engine::sim::Fault;

use crate::client_driver::{Met, Report, Run};
use crate::client_host::{GREETING, Manner, Peer};
use crate::client_users::{BYE, BYE_CODE, End, Visit};
use crate::table::Table;

impl Run {
    pub fn judge(self) -> Result<Report, String> {
        let mut table = Table::default();
        let mut clean = 0;
        for (user, visits) in self.visits.iter().enumerate() {
            let mut met: VecDeque<&(u16, Met)> = self.met[user].iter().collect();
            for (number, visit) in visits.borrow().iter().enumerate() {
                let seen = self.seen.borrow().get(&(user, number)).cloned().unwrap_or_default();
                let blame = |why: &str| format!("user {user}, visit {number}: {why}; seen {}: {visit:?}", seen.len());
                let Some(end) = &visit.end else { return Err(blame("no end was told")) };
                let was_tried = match end {
                    End::NotOpened(ClientError::Connect { source, .. }) => source.raw_os_error() != Some(libc::EMFILE),
                    End::NotOpened(ClientError::NotConnected | ClientError::Prepare { .. }) | End::GaveUp => false,
                    _ => true,
                };
                table.add(row(end), 1);
                if self.scenario.is_secure {
                    table.add(row(end) + ", TLS", 1);
                }
                if !was_tried {
                    if !visit.received.is_empty() || !seen.is_empty() {
                        return Err(blame("messages of a connection that was not made"));
                    }
                    continue;
                }
                // Who keeps a connection up uses one port, and each of the other calls its own.
                met.retain(|(nth, _)| *nth == 0 || usize::from(*nth) > number);
                let Some((_, met)) = met.pop_front() else { return Err(blame("it did not connect")) };
                self.judge_visit(visit, end, met, &seen).map_err(|why| blame(&why))?;
                clean += u64::from(matches!(end, End::Closed(_, true)));
            }
        }
        let faults = self.world.fault_counts();
        Fault::ALL.iter().for_each(|&fault| table.add(format!("fault {fault:?}"), faults.of(fault)));
        table.add("slot reused", self.world.slots_reused());
        table.add("message accepted", self.seen.borrow().values().map(|seen| seen.len() as u64).sum());
        Ok(Report { fingerprint: self.world.fingerprint(), clean, table })
    }

    fn judge_visit(&self, visit: &Visit, end: &End, met: &Met, seen: &[String]) -> Result<(), String> {
        let cable = match met {
            Met::Server(cable) => cable,
            Met::Stranger(peer, manner) => return judge_stranger(visit, end, peer, *manner),
            Met::Nobody if matches!(end, End::NotOpened(_)) && seen.is_empty() => return Ok(()),
            Met::Nobody => return Err("it met nobody".to_owned()),
        };
        if !visit.accepted.starts_with(seen) {
            return Err("the server has seen something else than what was sent".to_owned());
        }
        if !visit.accepted.starts_with(&visit.received) {
            return Err("something else came back than what was sent".to_owned());
        }
        if visit.received.len() > seen.len() {
            return Err("an answer to what the server has not seen".to_owned());
        }
        let is_excused = cable.was_broken() || self.scenario.drops;
        let bye = visit.accepted.iter().any(|text| text.ends_with(BYE));
        let is_whole = match end {
            End::Closed(1000, true) => true,
            End::Closed(BYE_CODE, true) if bye => true,
            End::Dropped => !is_excused,
            _ if is_excused => false,
            end => return Err(format!("a healthy connection ended with {end:?}")),
        };
        if is_whole && seen.len() != visit.accepted.len() {
            return Err("the server has not seen everything".to_owned());
        }
        let all_back = visit.was_patient || (matches!(end, End::Closed(BYE_CODE, true)) && !visit.was_stopped);
        if is_whole && all_back && visit.received.len() != visit.accepted.len() {
            return Err("not everything has come back".to_owned());
        }
        Ok(())
    }
}

fn judge_stranger(visit: &Visit, end: &End, peer: &Peer, manner: Manner) -> Result<(), String> {
    let greeting = [GREETING.to_owned()];
    if let Some(wrong) = peer.wrong_pong() {
        return Err(format!("a ping was answered with {wrong:?}"));
    }
    if visit.ponged > 0 {
        return Err("no pong was its own".to_owned());
    }
    match end {
        End::NotOpened(_) if visit.received.is_empty() => Ok(()),
        _ if !manner.opens() => Err(format!("{manner:?} cannot end so")),
        End::Closed(_, true) => Err(format!("{manner:?} does not close in order")),
        _ if greeting.starts_with(&visit.received) => Ok(()),
        _ => Err(format!("{manner:?} did not say that")),
    }
}

fn row(end: &End) -> String {
    match end {
        End::GaveUp => "gave up".to_owned(),
        End::Dropped => "handle dropped".to_owned(),
        End::Closed(code, clean) => format!("closed with {code}{}", if *clean { ", clean" } else { "" }),
        End::NotOpened(error) | End::Broken(error) => {
            let name = format!("{error:?}");
            let name = name.split([' ', '{']).next().unwrap_or_default();
            let name = name.split_once("(Os").map_or(name, |(name, _)| name);
            let opened = if matches!(end, End::Broken(_)) { "broken" } else { "not opened" };
            format!("{opened}: {}", name.split_once('(').map_or(name, |(name, _)| name))
        }
    }
}
