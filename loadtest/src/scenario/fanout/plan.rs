//! What a fan-out is to be: its groups, their members, and who of them publishes how much.

use crate::{
    deal::Deal,
    net::Nanos,
    part::Part,
    scenario::{Pace, Ramp},
};

/// What to do.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// How many groups, in this process; a broadcast has one.
    pub(crate) groups: usize,
    /// How many in the whole run, and which of them are here.
    pub(crate) groups_in_all: usize,
    pub(crate) part: Part,
    /// Members of each, publishers included, stalled readers not.
    pub(crate) members: usize,
    /// Of these, how many publish.
    pub(crate) publishers: usize,
    /// More members that stop reading.
    pub(crate) stalled: usize,
    /// When they do, after the measured window began.
    pub(crate) stall_after: Nanos,
    pub(crate) deal: Deal,
    pub(crate) burst: u64,
    /// Of published messages.
    pub(crate) pace: Pace,
    pub(crate) ramp: Ramp,
    pub(crate) raw: bool,
}

impl Plan {
    /// Connections in all.
    pub(crate) fn connections(&self) -> usize {
        self.groups * (self.members + self.stalled)
    }

    pub(super) fn streams(&self) -> usize {
        self.groups * self.publishers
    }

    pub(super) fn streams_in_all(&self) -> usize {
        self.groups_in_all * self.publishers
    }

    /// A group's number in the whole run.
    pub(super) fn group_number(&self, group: usize) -> usize {
        self.part.number(group)
    }

    /// A stream's number in the whole run.
    pub(super) fn stream_number(&self, stream: usize) -> u32 {
        let (group, place) = (stream / self.publishers, stream % self.publishers);
        (self.group_number(group) * self.publishers + place) as u32
    }

    /// The turn of a member of a group here among those of its kind, which publish, receive only, or stall.
    pub(super) fn turn(&self, group: usize, place: usize) -> usize {
        let each = [self.publishers, self.members - self.publishers, self.stalled];
        let kind = usize::from(place >= self.publishers) + usize::from(place >= self.members);
        let first = self.deal.firsts(each.map(|each| each * self.groups_in_all))[kind];
        first + self.group_number(group) * each[kind] + place - each[..kind].iter().sum::<usize>()
    }

    /// The bursts of a stream of these, of so many messages in the whole run.
    pub(super) fn bursts(&self, count: u64, stream: usize) -> u64 {
        let (bursts, all) = (count.div_ceil(self.burst), self.streams_in_all() as u64);
        bursts / all + u64::from(u64::from(self.stream_number(stream)) < bursts % all)
    }
}
