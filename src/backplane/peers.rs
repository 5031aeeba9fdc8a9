//! The other nodes, as far as they have told of themselves, and the sums over all of them.
//!
//! Invariant: the total of a room is the sum over all peers of what each was last heard to have in it.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use super::NodeInfo;
use super::beat::{Beat, Item, Kind};
use crate::hub::ConnectionId;

/// Nodes that have ended or are silent and are remembered.
const FORMER_MAX: usize = 1024;
/// How soon all of a node is asked for again.
const ASK_AGAIN_NS: u64 = 200_000_000;

/// How long what a node has said before its end may be on its way.
const STRAY_NS: u64 = 2_000_000_000;

/// What is known of another node.
#[derive(Default)]
pub(super) struct Peer {
    pub(super) name: String,
    pub(super) started_ns: u64,
    heard_ns: u64,
    /// Of its last beat that counts.
    number: u64,
    /// Whether all of it is known, up to that beat.
    is_known: bool,
    /// All of it is being told.
    staged: Option<HashMap<Arc<str>, Room>>,
    asked_ns: Option<u64>,
    /// It was taken for lost before.
    is_back: bool,
    connections: u64,
    rooms: HashMap<Arc<str>, Room>,
}

/// A room of another node.
#[derive(Default)]
struct Room {
    members: u32,
    ids: HashSet<ConnectionId>,
}

/// Why a node is not there any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Former {
    /// It has not been heard of: it may live.
    Silent,
    /// It has said so, or another has its name: its connections have ended.
    Ended,
}

/// A node that was there.
struct Gone {
    name: String,
    at_ns: u64,
    former: Former,
}

/// Members of a room that are lost with their node, or are there again.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Told {
    pub(super) room: Arc<str>,
    pub(super) ids: Vec<ConnectionId>,
    pub(super) back: bool,
}

/// All of them.
#[derive(Default)]
pub(super) struct Peers {
    all: BTreeMap<u32, Peer>,
    former: BTreeMap<u32, Gone>,
    totals: HashMap<Arc<str>, u64>,
    /// Rooms whose totals have changed since they were taken.
    changed: BTreeSet<Arc<str>>,
    /// Whether it has become another number of nodes or connections.
    is_news: bool,
    told: Vec<Told>,
}

impl Peers {
    pub(super) fn get(&self, node: u32) -> Option<&Peer> {
        self.all.get(&node)
    }

    pub(super) fn former(&self, node: u32) -> Option<Former> {
        self.former.get(&node).map(|gone| gone.former)
    }

    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    pub(super) fn connections(&self) -> u64 {
        self.all.values().map(|peer| peer.connections).sum()
    }

    pub(super) fn numbers(&self) -> impl Iterator<Item = u32> {
        self.all.keys().copied()
    }

    /// By number.
    pub(super) fn list(&self, now_ns: u64) -> impl Iterator<Item = NodeInfo> {
        self.all.iter().map(move |(node, peer)| NodeInfo {
            name: peer.name.clone(),
            number: *node,
            connections: peer.connections,
            rooms: peer.rooms.len(),
            started_unix_ms: peer.started_ns / 1_000_000,
            heard_ago: Duration::from_nanos(now_ns.saturating_sub(peer.heard_ns)),
        })
    }

    pub(super) fn members(&self, room: &str) -> u64 {
        self.totals.get(room).copied().unwrap_or(0)
    }

    pub(super) fn rooms(&self) -> usize {
        self.totals.len()
    }

    /// The rooms whose totals have changed, with these.
    pub(super) fn take_changed(&mut self) -> Vec<(Arc<str>, u32)> {
        let changed = std::mem::take(&mut self.changed);
        let total = |room: &Arc<str>| u32::try_from(self.members(room)).unwrap_or(u32::MAX);
        let all: Vec<(Arc<str>, u32)> = changed.into_iter().map(|room| (Arc::clone(&room), total(&room))).collect();
        for (room, _) in all.iter().filter(|(_, total)| *total == 0) {
            self.totals.remove(room);
        }
        all
    }

    pub(super) fn take_news(&mut self) -> bool {
        std::mem::take(&mut self.is_news)
    }

    pub(super) fn take_told(&mut self) -> Vec<Told> {
        std::mem::take(&mut self.told)
    }

    /// Something has come from a node; true if it is to be asked for all of it.
    pub(super) fn heard(&mut self, node: u32, beat: Beat, now_ns: u64) -> bool {
        if beat.kind == Kind::End {
            self.remove(node, Former::Ended, now_ns);
            return false;
        }
        // What it had said before may still be on its way.
        let is_over =
            |gone: &Gone| gone.former == Former::Ended && now_ns < gone.at_ns.saturating_add(STRAY_NS);
        if self.former.get(&node).is_some_and(is_over) {
            return false;
        }
        let older = self.all.iter().find(|(other, peer)| **other != node && peer.name == beat.name);
        if let Some((&other, peer)) = older {
            if peer.started_ns > beat.started_ns {
                // It was replaced, and does not know yet.
                return false;
            }
            self.remove(other, Former::Ended, now_ns);
        }
        let totals = &mut Totals { totals: &mut self.totals, changed: &mut self.changed };
        let peer = self.all.entry(node).or_insert_with(|| {
            self.is_news = true;
            let is_back = self.former.remove(&node).is_some_and(|gone| gone.former == Former::Silent);
            // Whoever had the name lives no more.
            let of_this_name = self.former.values_mut().filter(|gone| gone.name == beat.name);
            of_this_name.for_each(|gone| gone.former = Former::Ended);
            let (name, started_ns) = (beat.name.clone(), beat.started_ns);
            Peer { name, started_ns, is_back, heard_ns: now_ns, ..Peer::default() }
        });
        let is_late = beat.number <= peer.number;
        if is_late {
            // It has come twice.
            return false;
        }
        peer.heard_ns = peer.heard_ns.max(now_ns);
        self.is_news |= peer.connections != beat.connections;
        peer.connections = beat.connections;
        let is_next = beat.number == peer.number + 1;
        peer.number = beat.number;
        if !is_next {
            peer.is_known = false;
            if peer.staged.take().is_some() {
                totals.forget_unused();
            }
        }
        match beat.kind {
            Kind::Changes if peer.is_known => {
                // Of one that is not known there is nothing to forget.
                let is_news = |item: &Item| item.members > 0 || peer.rooms.contains_key(&*item.room);
                let news: Vec<Item> = beat.rooms.into_iter().filter(is_news).collect();
                for item in news {
                    let room = totals.shared(&item.room);
                    apply(&mut peer.rooms, room, item, totals);
                }
            }
            Kind::Changes | Kind::End => {}
            Kind::All { first, last } => {
                if first {
                    peer.staged = Some(HashMap::new());
                }
                if let Some(staged) = &mut peer.staged {
                    for item in beat.rooms.into_iter().filter(|item| item.members > 0) {
                        let room = Room { members: item.members, ids: item.came.into_iter().collect() };
                        staged.insert(totals.shared(&item.room), room);
                    }
                }
                if last && let Some(staged) = peer.staged.take() {
                    peer.replace(staged, totals);
                    peer.is_known = true;
                    peer.asked_ns = None;
                    if std::mem::take(&mut peer.is_back) {
                        self.told.extend(peer.tell(true));
                    }
                }
            }
        }
        let is_asked = peer.asked_ns.is_some_and(|asked_ns| now_ns < asked_ns.saturating_add(ASK_AGAIN_NS));
        let asks = !peer.is_known && peer.staged.is_none() && !is_asked;
        if asks {
            peer.asked_ns = Some(now_ns);
        }
        asks
    }

    /// A node has ended, or is taken for it. True if it was there.
    pub(super) fn remove(&mut self, node: u32, former: Former, now_ns: u64) -> bool {
        let Some(mut peer) = self.all.remove(&node) else {
            // Whoever was silent may say later that it has ended.
            if let Some(known) = self.former.get_mut(&node) {
                known.former = former;
            }
            return false;
        };
        self.told.extend(peer.tell(false));
        peer.replace(HashMap::new(), &mut Totals { totals: &mut self.totals, changed: &mut self.changed });
        self.is_news = true;
        self.former.insert(node, Gone { name: peer.name, at_ns: now_ns, former });
        if self.former.len() > FORMER_MAX
            && let Some((&oldest, _)) = self.former.iter().min_by_key(|(_, gone)| gone.at_ns)
        {
            self.former.remove(&oldest);
        }
        true
    }

    /// Those that have been silent for longer than this.
    pub(super) fn silent(&self, timeout_ns: u64, now_ns: u64) -> Vec<u32> {
        let is_silent = |peer: &Peer| peer.heard_ns.saturating_add(timeout_ns) < now_ns;
        self.all.iter().filter(|(_, peer)| is_silent(peer)).map(|(node, _)| *node).collect()
    }

    /// This node has not listened for so long: that is nobody's silence.
    pub(super) fn forgive(&mut self, ns: u64) {
        self.all.values_mut().for_each(|peer| peer.heard_ns = peer.heard_ns.saturating_add(ns));
    }

    /// Checks the sums; for assertions.
    pub(super) fn invariants(&self) -> bool {
        let mut sums: HashMap<&str, u64> = HashMap::new();
        for (room, of) in self.all.values().flat_map(|peer| &peer.rooms) {
            *sums.entry(room).or_default() += u64::from(of.members);
        }
        self.totals.iter().all(|(room, total)| sums.get(&**room).copied().unwrap_or(0) == *total)
            && sums.iter().all(|(room, sum)| self.members(room) == *sum)
    }
}

impl Peer {
    fn replace(&mut self, rooms: HashMap<Arc<str>, Room>, totals: &mut Totals<'_>) {
        for (room, of) in &rooms {
            totals.change(room, 0, of.members);
        }
        for (room, of) in std::mem::replace(&mut self.rooms, rooms) {
            totals.change(&room, of.members, 0);
        }
    }

    fn tell(&self, back: bool) -> Vec<Told> {
        let known = self.rooms.iter().filter(|(_, of)| !of.ids.is_empty());
        let mut told: Vec<Told> = known
            .map(|(room, of)| {
                let mut ids: Vec<ConnectionId> = of.ids.iter().copied().collect();
                ids.sort_unstable();
                Told { room: Arc::clone(room), ids, back }
            })
            .collect();
        told.sort_unstable_by(|one, other| one.room.cmp(&other.room));
        told
    }
}

fn apply(rooms: &mut HashMap<Arc<str>, Room>, room: Arc<str>, item: Item, totals: &mut Totals<'_>) {
    let before = rooms.get(&room).map_or(0, |of| of.members);
    totals.change(&room, before, item.members);
    if item.members == 0 {
        rooms.remove(&room);
        return;
    }
    let of = rooms.entry(room).or_default();
    of.members = item.members;
    for id in &item.left {
        of.ids.remove(id);
    }
    of.ids.extend(item.came);
}

/// The sums, while a peer changes.
struct Totals<'t> {
    totals: &'t mut HashMap<Arc<str>, u64>,
    changed: &'t mut BTreeSet<Arc<str>>,
}

impl Totals<'_> {
    /// The name in the memory that it has already.
    fn shared(&mut self, room: &str) -> Arc<str> {
        if let Some((known, _)) = self.totals.get_key_value(room) {
            return Arc::clone(known);
        }
        let room: Arc<str> = room.into();
        self.totals.insert(Arc::clone(&room), 0);
        room
    }

    /// Forgets names that came with what is not to count.
    fn forget_unused(&mut self) {
        self.totals.retain(|room, total| *total > 0 || self.changed.contains(room));
    }

    fn change(&mut self, room: &Arc<str>, before: u32, after: u32) {
        if before != after {
            let total = self.totals.entry(Arc::clone(room)).or_default();
            *total = *total + u64::from(after) - u64::from(before);
            self.changed.insert(Arc::clone(room));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: u8) -> ConnectionId {
        ConnectionId::from_bytes([number; 16])
    }

    fn beat(number: u64, kind: Kind, rooms: &[(&str, u32)]) -> Beat {
        let item = |(room, members): &(&str, u32)| Item {
            room: (*room).to_owned(),
            members: *members,
            came: vec![id(*members as u8)],
            left: Vec::new(),
        };
        let rooms = rooms.iter().map(item).collect();
        Beat { number, name: "a".into(), started_ns: 1, connections: 9, kind, asks: false, rooms }
    }

    const ALL: Kind = Kind::All { first: true, last: true };

    fn changed(peers: &mut Peers) -> Vec<(String, u32)> {
        assert!(peers.invariants());
        peers.take_changed().into_iter().map(|(room, total)| (room.to_string(), total)).collect()
    }

    #[test]
    fn changes_count_from_when_all_is_known_and_in_line() {
        let mut peers = Peers::default();
        assert!(peers.heard(1, beat(5, Kind::Changes, &[("x", 2)]), 0), "it is unknown");
        assert_eq!(changed(&mut peers), []);
        assert!(!peers.heard(1, beat(6, ALL, &[("x", 3), ("y", 1)]), 1));
        assert_eq!(changed(&mut peers), [("x".into(), 3), ("y".into(), 1)]);
        assert!(!peers.heard(1, beat(6, Kind::Changes, &[("x", 100)]), 2), "again");
        assert!(!peers.heard(1, beat(7, Kind::Changes, &[("x", 4), ("y", 0)]), 2));
        assert_eq!(changed(&mut peers), [("x".into(), 4), ("y".into(), 0)]);
        assert!(peers.heard(1, beat(9, Kind::Changes, &[("x", 5)]), 3), "one is missing");
        assert!(!peers.heard(1, beat(10, Kind::Changes, &[("x", 6)]), 4), "it was asked just now");
        assert!(peers.heard(1, beat(11, Kind::Changes, &[]), 3 + ASK_AGAIN_NS), "no answer came");
        assert_eq!(changed(&mut peers), []);
        assert_eq!(peers.members("x"), 4, "what was known stands until then");
        assert!(!peers.heard(1, beat(12, Kind::All { first: true, last: false }, &[("z", 1)]), 5));
        assert!(!peers.heard(1, beat(13, Kind::All { first: false, last: true }, &[("x", 1)]), 5));
        assert_eq!(changed(&mut peers), [("x".into(), 1), ("z".into(), 1)]);
    }

    #[test]
    fn who_is_silent_counts_no_more_and_its_members_are_told_of_once() {
        let mut peers = Peers::default();
        peers.heard(1, beat(1, ALL, &[("x", 3)]), 0);
        changed(&mut peers);
        assert_eq!((peers.len(), peers.connections(), peers.take_news()), (1, 9, true));
        assert_eq!(peers.silent(10, 10), Vec::<u32>::new());
        peers.forgive(5);
        assert_eq!(peers.silent(10, 15), Vec::<u32>::new());
        assert_eq!(peers.silent(10, 16), [1]);
        assert!(peers.remove(1, Former::Silent, 16));
        assert!(!peers.remove(1, Former::Silent, 16));
        assert_eq!(changed(&mut peers), [("x".into(), 0)]);
        assert_eq!(peers.take_told(), [Told { room: "x".into(), ids: vec![id(3)], back: false }]);
        assert_eq!((peers.rooms(), peers.former(1)), (0, Some(Former::Silent)));
        // And it is there again.
        assert!(peers.heard(1, beat(2, Kind::Changes, &[]), 20));
        assert_eq!(peers.take_told(), []);
        peers.heard(1, beat(3, ALL, &[("x", 4)]), 21);
        assert_eq!(peers.take_told(), [Told { room: "x".into(), ids: vec![id(4)], back: true }]);
        assert_eq!((changed(&mut peers), peers.former(1)), (vec![("x".into(), 4)], None));
    }

    #[test]
    fn a_name_is_its_latest_owners() {
        let mut peers = Peers::default();
        peers.heard(1, beat(1, ALL, &[("x", 3)]), 0);
        let newer = Beat { started_ns: 2, ..beat(1, ALL, &[("x", 1)]) };
        peers.heard(2, newer, 1);
        assert_eq!((peers.len(), peers.former(1), peers.members("x")), (1, Some(Former::Ended), 1));
        assert!(!peers.heard(1, beat(2, Kind::Changes, &[]), 2), "it does not know yet");
        assert_eq!(peers.len(), 1);
        peers.heard(2, beat(2, Kind::End, &[]), 3);
        assert_eq!((peers.len(), peers.former(2)), (0, Some(Former::Ended)));
    }
}
