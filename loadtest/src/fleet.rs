//! Several generators as one run.
//!
//! A *leader* has the command line and makes the report, and no load. *Agents* (`ringwire-loadtest agent`) make the load: each
//! has its part of everything that the run counts (`crate::part`), so that connections, rates, rooms, users, rows of files
//! and random seeds are each one agent's. Between them is a WebSocket of the project's own client and server; what is said on it
//! is in `protocol`.
//!
//! Order: hello, both ways, with versions that must be the same; the agent says welcome, or who leads it already. For each run:
//! the leader sends the plan (the command line and the files that it names); each agent opens its connections and says ready;
//! the leader asks for the agents' clocks and tells each, in its own time, when to begin; they say how they do each second, and at
//! the end send all that they counted. `merge` makes one outcome of it, as if one process had counted.
//!
//! Nobody waits for ever: an agent that says nothing for `--agent-patience` is lost, and so is one whose connection ends. The run
//! then ends, the report is of what the others brought and says who is missing, and the run has failed. An agent whose leader is
//! gone stops its run and waits for the next.
//!
//! An agent sends whatever load it is told to: without a token it listens for this machine alone, pages in browsers cannot order
//! anything, and it opens no file that a leader names.

pub(crate) mod address;
pub(crate) mod agent;
mod job;
pub(crate) mod leader;
mod mail;
mod member;
mod merge;
mod protocol;
