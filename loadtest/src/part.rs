//! One agent's part of what several agents do together.

use serde::{Deserialize, Serialize};

/// Which of how many agents this is. Everything is dealt out to them in turn. Invariant: `agent < agents`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Part {
    pub(crate) agent: usize,
    pub(crate) agents: usize,
}

impl Default for Part {
    /// All of it.
    fn default() -> Part {
        Part { agent: 0, agents: 1 }
    }
}

impl Part {
    /// So many of `total`.
    pub(crate) fn of(self, total: usize) -> usize {
        total / self.agents + usize::from(self.agent < total % self.agents)
    }

    /// The number in the whole run of this agent's item `index`.
    pub(crate) fn number(self, index: usize) -> usize {
        index * self.agents + self.agent
    }
}
