//! What was not as it should be: every problem is counted once, by its kind, and told in words as far as there is room. What is not
//! told is in the number of its kind, so that the list accounts for all that is counted.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::words::{grouped, one_line};

/// Of each kind so many lines are told.
pub(crate) const TOLD_MAX: usize = 10;

/// A kind of problem; the first is the first to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Problem {
    /// An agent is gone, with its part of the run.
    AgentLost,
    /// A round of several was not made.
    RoundMissing,
    /// A connection failed, ended on its own, or never came to be.
    Failed,
    /// A message never came.
    Lost,
    /// A message came again.
    Duplicated,
    /// A message came behind a later one.
    Reordered,
    /// A message came with another opcode, length or content.
    Corrupted,
    /// A message came although nobody sent it.
    Unexpected,
    /// A connection neither answered our Close frame nor ended in time.
    Silent,
}

impl Problem {
    /// Those of messages.
    pub(crate) const CHECKS: [Problem; 5] =
        [Problem::Lost, Problem::Duplicated, Problem::Reordered, Problem::Corrupted, Problem::Unexpected];

    /// Its key in the figures.
    pub(crate) fn key(self) -> &'static str {
        match self {
            Problem::RoundMissing => "round_missing",
            Problem::AgentLost => "agent_lost",
            Problem::Failed => "failed",
            Problem::Lost => "lost",
            Problem::Duplicated => "duplicated",
            Problem::Reordered => "reordered",
            Problem::Corrupted => "corrupted",
            Problem::Unexpected => "unexpected",
            Problem::Silent => "silent",
        }
    }

    /// So many of them, in words.
    fn words(self, count: u64) -> String {
        let (one, several) = match self {
            Problem::RoundMissing => ("round missing", "rounds missing"),
            Problem::AgentLost => ("agent lost", "agents lost"),
            Problem::Failed => ("connection failed", "connections failed"),
            Problem::Silent => ("connection silent", "connections silent"),
            check => (check.key(), check.key()),
        };
        format!("{} {}", grouped(count), if count == 1 { one } else { several })
    }
}

/// What is told of some problems of a kind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Told {
    count: u64,
    text: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Noted {
    count: u64,
    told: Vec<Told>,
}

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Problems(BTreeMap<Problem, Noted>);

impl Problems {
    /// Counts problems, and tells of them what the text says.
    pub(crate) fn note(&mut self, what: Problem, count: u64, text: impl FnOnce() -> String) {
        if count == 0 {
            return;
        }
        let noted = self.0.entry(what).or_default();
        noted.count += count;
        if noted.told.len() < TOLD_MAX {
            noted.told.push(Told { count, text: text() });
        }
    }

    pub(crate) fn count(&self, what: Problem) -> u64 {
        self.0.get(&what).map_or(0, |noted| noted.count)
    }

    pub(crate) fn total(&self) -> u64 {
        self.0.values().map(|noted| noted.count).sum()
    }

    /// The first to be read.
    pub(crate) fn first(&self) -> Option<&str> {
        self.0.values().find_map(|noted| noted.told.first()).map(|told| told.text.as_str())
    }

    pub(crate) fn add(&mut self, from: &Problems) {
        for (what, noted) in &from.0 {
            let into = self.0.entry(*what).or_default();
            into.count += noted.count;
            let room = TOLD_MAX.saturating_sub(into.told.len());
            into.told.extend(noted.told.iter().take(room).cloned());
        }
    }

    /// The same, with whose they are: another machine has written them.
    pub(crate) fn of(&self, whose: &str) -> Problems {
        let mut problems = self.clone();
        for told in problems.0.values_mut().flat_map(|noted| &mut noted.told) {
            told.text = format!("{whose}: {}", one_line(&told.text));
        }
        problems
    }

    /// What is told: under the number of each kind that there is, what is known of some.
    pub(crate) fn lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for (what, Noted { count, told }) in &self.0 {
            lines.push(what.words(*count));
            lines.extend(told.iter().map(|told| format!("  {}", told.text)));
            let more = count.saturating_sub(told.iter().map(|told| told.count).sum());
            if more > 0 && !told.is_empty() {
                lines.push(format!("  and {} more", grouped(more)));
            }
        }
        lines
    }

    /// Puts all of it into the figures.
    pub(crate) fn fill(&self, figures: &mut Value) {
        let of = |what: &Problem| (what.key().to_owned(), json!(self.count(*what)));
        figures["checks"] = Problem::CHECKS.iter().map(of).collect();
        figures["problem_count"] = json!(self.total());
        figures["problem_kinds"] = json!(self);
        figures["problems"] = json!(self.lines());
    }

    /// Those of figures.
    pub(crate) fn read(figures: &Value) -> Problems {
        Problems::deserialize(&figures["problem_kinds"]).unwrap_or_default()
    }

    /// What is told of one kind, in one line.
    pub(crate) fn line_of(&self, what: Problem) -> String {
        let told = self.0.get(&what).into_iter().flat_map(|noted| &noted.told);
        told.map(|told| told.text.as_str()).collect::<Vec<_>>().join("; ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Kills: problems that are counted and in no line.
    #[test]
    fn the_lines_account_for_every_problem() {
        let mut problems = Problems::default();
        for number in 0..15 {
            problems.note(Problem::Lost, 10, || format!("connection {number}: 10 replies never came"));
        }
        problems.note(Problem::Failed, 1, || "connection 3: refused".to_owned());
        problems.note(Problem::Corrupted, 0, || unreachable!("there is none"));
        let lines = problems.lines();
        assert_eq!(lines[..3], ["1 connection failed", "  connection 3: refused", "150 lost"]);
        assert_eq!(lines[3], "  connection 0: 10 replies never came");
        assert_eq!(lines[12..], ["  connection 9: 10 replies never came", "  and 50 more"]);
        assert_eq!((problems.total(), problems.count(Problem::Lost)), (151, 150));
        // Of several workers and agents it is the same.
        let mut sum = problems.of("agent b");
        sum.add(&problems.of("agent a\u{1b}"));
        let lines = sum.lines();
        assert_eq!(
            lines[..3],
            ["2 connections failed", "  agent b: connection 3: refused", "  agent a\u{1b}: connection 3: refused"]
        );
        assert_eq!((&lines[3][..], lines.last().map(String::as_str)), ("300 lost", Some("  and 200 more")));
        let mut figures = json!({});
        sum.fill(&mut figures);
        assert_eq!((&figures["problem_count"], &figures["checks"]["lost"]), (&json!(302), &json!(300)));
        assert_eq!(Problems::read(&figures), sum);
    }

    #[test]
    fn a_kind_has_the_same_name_everywhere() {
        let others = [Problem::RoundMissing, Problem::AgentLost, Problem::Failed, Problem::Silent];
        for what in others.into_iter().chain(Problem::CHECKS) {
            assert_eq!(json!(what), what.key());
        }
    }
}
