//! What users do, step by step, and how many of them there are when. Plain data: a scenario file, a recording or an option of the
//! command line gives one, and `scenario::play` plays it.

pub(crate) mod expect;
pub(crate) mod file;
mod reads;
pub(crate) mod recording;
pub(crate) mod seats;
pub(crate) mod stages;
mod steps;
mod table;
pub(crate) mod template;
mod tree;
mod turns;

use ringwire::proto::Kind;

use self::{expect::Expected, seats::Seat, stages::Stages, template::Template, turns::Turns};
use crate::{deal::Deal, net::Nanos, scenario::Share};

/// See the module.
#[derive(Clone, Debug)]
pub(crate) struct Script {
    pub(crate) roles: Vec<Role>,
    pub(crate) stages: Stages,
    /// The names of expectations, by the numbers that they have in [`Action::Expect`].
    pub(crate) names: Vec<String>,
    /// How often each user comes; without it, again and again.
    pub(crate) sessions: Option<u64>,
    turns: Turns,
}

/// One kind of user.
#[derive(Clone, Debug)]
pub(crate) struct Role {
    pub(crate) name: String,
    /// So many of all users, in parts, are of this kind.
    pub(crate) weight: u32,
    /// The URL that these go to, by its number; without it they are dealt out to all.
    pub(crate) target: Option<usize>,
    /// In place of the URL's.
    pub(crate) path: Option<Template>,
    pub(crate) headers: Vec<(String, Template)>,
    /// What the columns of a file say, one row a user; then what is made of it for each session.
    pub(crate) rows: Vec<Vec<String>>,
    pub(crate) variables: Vec<Template>,
    /// Once a session.
    pub(crate) begin: Vec<Action>,
    /// Again and again.
    pub(crate) each: Vec<Action>,
    /// The user leaves after so many rounds, and comes again.
    pub(crate) rounds: Option<u64>,
    /// Between two sessions.
    pub(crate) away: Span,
    /// A message that nobody waits for, or another than the one that is waited for, is a failed check.
    pub(crate) strict: bool,
}

/// One thing to do.
#[derive(Clone, Debug)]
pub(crate) enum Action {
    Send {
        payload: Template,
        kind: Kind,
    },
    /// To wait until a message comes that is as expected, but no longer than this.
    Expect {
        name: usize,
        what: Expected,
        within: Option<Nanos>,
    },
    Think(Span),
    /// To wait until so long after the session began.
    At(Nanos),
}

/// A time, or any within bounds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) least: Nanos,
    pub(crate) most: Nanos,
}

impl Span {
    /// Reads `500ms` or `500ms..2s`.
    pub(crate) fn parse(text: &str) -> Result<Span, String> {
        let (least, most) = text.split_once("..").unwrap_or((text, text));
        let span = Span { least: stages::nanos(least)?, most: stages::nanos(most)? };
        if span.least <= span.most { Ok(span) } else { Err(format!("{text}: the first is the shorter one")) }
    }

    /// One of them, by random bits.
    pub(crate) fn choose(self, bits: u64) -> Nanos {
        self.least + bits % (self.most - self.least + 1)
    }
}

impl Role {
    /// Checks what no file may ask for.
    pub(crate) fn check(&self) -> Result<(), String> {
        let waits = |action: &Action| match action {
            Action::Send { .. } => false,
            Action::Think(span) => span.least > 0,
            Action::Expect { .. } | Action::At(_) => true,
        };
        if !self.each.is_empty() && !self.each.iter().any(waits) {
            return Err(format!("users {}: its steps never wait; give one an expect or a think", self.name));
        }
        Ok(())
    }

    /// An echo's user: the load generator's own message, which has to come back.
    pub(crate) fn echo(kind: Kind, rounds: Option<u64>) -> Role {
        let send = Action::Send { payload: Template::message(), kind };
        let expect = Action::Expect { name: 0, what: Expected::Sent, within: None };
        Role { each: vec![send, expect], rounds, strict: true, ..Role::idle("users") }
    }

    /// A user who does nothing.
    pub(crate) fn idle(name: &str) -> Role {
        Role {
            name: name.to_owned(),
            weight: 1,
            target: None,
            path: None,
            headers: Vec::new(),
            rows: Vec::new(),
            variables: Vec::new(),
            begin: Vec::new(),
            each: Vec::new(),
            rounds: None,
            away: Span::default(),
            strict: false,
        }
    }
}

impl Script {
    pub(crate) fn new(roles: Vec<Role>, stages: Stages, names: Vec<String>, sessions: Option<u64>) -> Script {
        Script { turns: Turns::new(roles.iter().map(|role| role.weight)), roles, stages, names, sessions }
    }

    /// All users alike.
    pub(crate) fn of(role: Role, stages: Stages) -> Script {
        Script::new(vec![role], stages, vec!["reply".to_owned()], None)
    }

    /// The users of a worker, in the order in which they come.
    pub(crate) fn seats(&self, share: Share, deal: Deal) -> Vec<Seat> {
        seats::of_worker(&self.turns, self.stages.most(), share, deal)
    }

    /// The longest that anything may take which is expected, if nothing else is said.
    pub(crate) fn patience(&self, unsaid: Nanos) -> Nanos {
        let actions = self.roles.iter().flat_map(|role| role.begin.iter().chain(&role.each));
        let within = |action: &Action| match action {
            Action::Expect { within, .. } => *within,
            _ => None,
        };
        actions.filter_map(within).fold(unsaid, Nanos::max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_read_and_kept() {
        let span = Span::parse("500ms..2s").expect("a span");
        assert_eq!(span, Span { least: 500_000_000, most: 2_000_000_000 });
        assert_eq!(Span::parse("1s").map(|span| (span.least, span.most)), Ok((1_000_000_000, 1_000_000_000)));
        for bits in [0, 1, u64::MAX, 1 << 40] {
            assert!((span.least..=span.most).contains(&span.choose(bits)));
        }
        for wrong in ["", "2s..1s", "x", "1s.."] {
            assert!(Span::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn steps_that_never_wait_are_refused() {
        let send = || Action::Send { payload: Template::message(), kind: Kind::Text };
        let role = |each| Role { each, ..Role::idle("x") };
        assert!(role(vec![send()]).check().is_err_and(|error| error.contains("never wait")));
        assert!(role(vec![send(), Action::Think(Span::default())]).check().is_err());
        assert!(role(vec![send(), Action::Think(Span { least: 1, most: 2 })]).check().is_ok());
        assert!(Role::echo(Kind::Text, None).check().is_ok());
    }
}
