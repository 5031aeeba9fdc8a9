//! A bus that keeps the order of one sender's messages to one subject, and nothing else.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use bytes::Bytes;
use ringwire::engine::sim::Rng;

/// What goes wrong, and how often: of messages, or in a step.
#[derive(Clone, Copy, Debug)]
pub struct Faults {
    pub loss: f64,
    pub doubled: f64,
    /// Longest way.
    pub delay_ms: u64,
    pub cuts: f64,
    pub kills: f64,
    pub stops: f64,
}

pub struct Message {
    pub to: usize,
    pub subject: String,
    pub payload: Bytes,
}

#[derive(Default)]
pub struct Bus {
    /// By when they arrive, and in which order they were sent.
    under_way: BTreeMap<(u64, u64), Message>,
    sent: u64,
    /// When the last one arrives, by sender, receiver and subject.
    last_ns: HashMap<(usize, usize, String), u64>,
    listening: Vec<BTreeSet<String>>,
    cut: BTreeSet<usize>,
    /// A message is there of which every copy counts.
    pub doubled: u64,
}

fn matches(pattern: &str, subject: &str) -> bool {
    let (mut pattern, mut subject) = (pattern.split('.'), subject.split('.'));
    loop {
        match (pattern.next(), subject.next()) {
            (Some(">"), Some(_)) => return true,
            (Some("*"), Some(_)) => {}
            (Some(token), Some(other)) if token == other => {}
            (None, None) => return true,
            _ => return false,
        }
    }
}

impl Bus {
    pub fn add(&mut self) {
        self.listening.push(BTreeSet::new());
    }

    pub fn subscribe(&mut self, node: usize, subject: String) {
        self.listening[node].insert(subject);
    }

    pub fn unsubscribe(&mut self, node: usize, subject: &str) {
        self.listening[node].remove(subject);
    }

    pub fn is_listening(&self, node: usize, subject: &str) -> bool {
        self.listening[node].contains(subject)
    }

    /// The node's connection ends, and what it listens to with it.
    pub fn forget(&mut self, node: usize) {
        self.listening[node].clear();
        self.under_way.retain(|_, message| message.to != node);
    }

    /// Nothing passes to or from it.
    pub fn cut(&mut self, node: usize) {
        self.cut.insert(node);
        self.under_way.retain(|_, message| message.to != node);
    }

    pub fn mend(&mut self, node: usize) {
        self.cut.remove(&node);
    }

    pub fn publish(&mut self, from: usize, subject: &str, payload: &Bytes, now_ns: u64, faults: Faults, rng: &mut Rng) {
        if self.cut.contains(&from) {
            return;
        }
        for to in 0..self.listening.len() {
            let wants = self.listening[to].iter().any(|pattern| matches(pattern, subject));
            if to == from || !wants || self.cut.contains(&to) {
                continue;
            }
            if rng.chance(faults.loss) {
                continue;
            }
            let copies = if rng.chance(faults.doubled) { 2 } else { 1 };
            self.doubled += copies - 1;
            for copy in 0..copies {
                let way_ns = rng.below(faults.delay_ms * 1_000_000 + 1);
                let last_ns = self.last_ns.entry((from, to, subject.to_owned())).or_default();
                // The first copies are in order; a second one comes whenever it does, and later.
                let at_ns = if copy == 0 { (now_ns + way_ns).max(*last_ns) } else { *last_ns + 2 * way_ns };
                if copy == 0 {
                    *last_ns = at_ns;
                }
                self.sent += 1;
                let message = Message { to, subject: subject.to_owned(), payload: payload.clone() };
                self.under_way.insert((at_ns, self.sent), message);
            }
        }
    }

    /// The next message that has arrived by now for somebody who `listens`.
    pub fn next(&mut self, now_ns: u64, listens: impl Fn(usize) -> bool) -> Option<Message> {
        let due = self.under_way.range(..=(now_ns, u64::MAX)).find(|(_, message)| listens(message.to));
        let key = *due?.0;
        self.under_way.remove(&key)
    }
}
