//! What must not have happened, whatever has.

use std::collections::{BTreeMap, BTreeSet};

/// Who published it: node and core.
type From = (usize, usize);

/// What has happened so often.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Scale {
    pub published: u64,
    pub delivered: u64,
    pub doubled: u64,
    pub answers: u64,
    pub unanswered: u64,
    pub lost: u64,
    pub back: u64,
    pub kills: u64,
    pub cuts: u64,
    pub stops: u64,
    pub parts: u64,
}

impl Scale {
    pub fn add(&mut self, other: Scale) {
        for (sum, more) in [
            (&mut self.published, other.published),
            (&mut self.delivered, other.delivered),
            (&mut self.doubled, other.doubled),
            (&mut self.answers, other.answers),
            (&mut self.unanswered, other.unanswered),
            (&mut self.lost, other.lost),
            (&mut self.back, other.back),
            (&mut self.kills, other.kills),
            (&mut self.cuts, other.cuts),
            (&mut self.stops, other.stops),
            (&mut self.parts, other.parts),
        ] {
            *sum += more;
        }
    }
}

#[derive(Default)]
pub struct Oracle {
    /// By member and message.
    got: BTreeSet<(usize, u64)>,
    /// The last number of a sender's core to a scope that a member has got.
    last: BTreeMap<(usize, From, String), u64>,
    /// Who was there, and known to be, when it was published, and has not left since.
    owed: BTreeSet<(usize, u64)>,
    /// By node and member: the last thing that was told.
    told: BTreeMap<(usize, usize), bool>,
    /// Questions whose message a member has got, by token.
    done: BTreeMap<u64, u32>,
    pub scale: Scale,
}

impl Oracle {
    /// A member gets message `number`, which that core has sent to this scope.
    pub fn delivered(&mut self, member: usize, number: u64, from: From, scope: &str) {
        self.scale.delivered += 1;
        assert!(self.got.insert((member, number)), "member {member} gets message {number} twice");
        self.owed.remove(&(member, number));
        let last = self.last.entry((member, from, scope.to_owned())).or_default();
        assert!(*last < number, "member {member} gets {number} of {from:?} to {scope} after {last}");
        *last = number;
    }

    pub fn owe(&mut self, member: usize, number: u64) {
        self.owed.insert((member, number));
    }

    /// Whoever leaves is owed nothing any more.
    pub fn left(&mut self, member: usize) {
        self.owed.retain(|(of, _)| *of != member);
    }

    /// What has not come.
    pub fn missed(&self) -> usize {
        self.owed.len()
    }

    pub fn told(&mut self, node: usize, member: usize, back: bool) {
        if back {
            self.scale.back += 1;
        } else {
            self.scale.lost += 1;
        }
        let before = self.told.insert((node, member), back);
        assert_ne!(before, Some(back), "node {node} is told of member {member} twice: back {back}");
    }

    /// The members that a node believes lost.
    pub fn believed_lost(&self, node: usize) -> impl Iterator<Item = usize> + '_ {
        self.told.iter().filter(move |((of, _), back)| *of == node && !**back).map(|((_, member), _)| *member)
    }

    /// A question was done.
    pub fn done(&mut self, token: u64) {
        let done = self.done.entry(token).or_default();
        *done += 1;
        assert_eq!(*done, 1, "question {token} was done twice");
    }

    /// And answered: `Some(true)` is a yes.
    pub fn answered(&mut self, token: u64, answer: Option<bool>) {
        match answer {
            Some(_) => self.scale.answers += 1,
            None => self.scale.unanswered += 1,
        }
        if answer == Some(true) {
            assert!(self.done.contains_key(&token), "a wrong yes to question {token}");
        }
        if answer == Some(false) {
            assert!(!self.done.contains_key(&token), "a wrong no to question {token}");
        }
    }
}
