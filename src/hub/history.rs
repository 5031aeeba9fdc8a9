//! Rooms with a history: one core numbers, keeps and passes on what is published to such a room, and answers who asks for it.
//!
//! **The owner.** An order over all cores needs one place that makes it. A room's owner is the core that a hash of its name
//! says, or the next of which it is not known that it has ended. Whatever is published to the room, on whichever core or
//! thread, is written to the owner, which gives it the next offset, keeps it, and writes it to all cores that have members, as
//! a publisher's own core does for a room without a history. Who publishes on the owner's core saves the detour. An owner that
//! ends takes what it has kept with it, and what it has not read; the next one begins anew. A core turns to that one when it
//! has read all that the former has passed on, so that nobody takes the numbers of the one for those of the other.
//!
//! **Which rooms.** A room's name alone says whether it has a history ([`Histories`]): by the settings and by what the app's
//! routes declare when it is made, which is the same on all cores. So there is nothing to agree on while messages flow, a room
//! that nobody is in keeps what is published to it, and a room without pays one test of a flag.
//!
//! **No gap and no double.** A join with history is a change ([`super::changes`]): when all cores know of it, the owner among
//! them, the joiner's core asks the owner, and until the answer is read the joiner is among those that are joining and gets
//! nothing. Letters from the owner to a core keep their order. So all messages in the answer are those that the core read
//! before it, or would have, and every message behind it is read after it, when the joiner is a member: whoever reads a letter
//! looks at once whether it is such an answer ([`CoreHub::has_recovered`]), and tells the joiner before the next letter.
//!
//! **Epochs.** A record begins with a random epoch, that every position names. A position of another epoch, or one behind the
//! end, is answered with what there is and "not complete": what a server that was started again, an owner that has ended, or
//! the bound on memory has lost is told, and never passed over.
//!
//! **Bounds.** A room's messages are bounded by number, age and bytes ([`Record`]); what all rooms of a core take, by a share of
//! the setting: past it the rooms that were quiet the longest are forgotten whole. Messages on their way to the owner are
//! bounded by a credit: an owner that is congested does not confirm what it has read, and a core that has
//! [`UNREAD_MAX`] messages unconfirmed counts as congested and takes in no more. What threads and the bridge write to an owner
//! that is far behind is refused, before it has a number, and told so.
//!
//! **Other machines.** Where they share one history, what is published gets its number from them, and an owner may have to ask
//! for what it has not got: [`super::shared`]. Else a history is the machine's: it has what a member there got or would have got.
//! Messages of other machines come by the bridge and are numbered here; the number of one machine means nothing on another,
//! whose epochs are others. When the bridge has stopped listening to a room it says so, and the room's history ends with it.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use super::record::Record;
use super::recovered::{Position, Recovered, Since};
use super::letter::Answer;
use super::{CoreHub, Delivery, Order, Publication, Tally};
use crate::config::History;
use crate::outbox::{Outgoing, Queued};

/// Messages that a core has written to an owner which has not confirmed them: more of them, and it takes in nothing.
const UNREAD_MAX: u32 = 512;
/// An owner confirms so many at once.
const CONFIRM_MIN: u32 = 128;
/// Letters of an owner that wait for room elsewhere: past it, what comes from threads is refused.
const WAITING_MAX: usize = 4096;
/// What all rooms of a core may keep, unless it is said.
const BYTES_MAX_DEFAULT: usize = 16 << 20;
/// Between two looks at what has become too old.
const LOOK_NS: u64 = 10_000_000_000;

/// Which rooms have a history. The same on all cores.
#[derive(Clone, Debug, Default)]
pub(crate) struct Histories {
    /// The longest beginnings first.
    rules: Vec<History>,
}

impl Histories {
    /// Of these, the first says what holds for rooms that no other is for; of two for the same rooms, the later one counts.
    pub(crate) fn new(rules: impl IntoIterator<Item = History>) -> Histories {
        let mut by_prefix: BTreeMap<String, History> = BTreeMap::new();
        for rule in rules {
            by_prefix.insert(rule.prefix().to_owned(), rule);
        }
        let mut rules: Vec<History> = by_prefix.into_values().collect();
        rules.sort_by_key(|rule| std::cmp::Reverse(rule.prefix().len()));
        if rules.iter().all(History::is_off) {
            rules.clear();
        }
        Histories { rules }
    }

    /// What is kept of a room, if anything is.
    #[inline]
    pub(crate) fn of(&self, name: &str) -> Option<&History> {
        if self.rules.is_empty() { None } else { self.find(name) }
    }

    /// What all of them together ask for; `None` if no room has a history.
    pub(crate) fn bounds(&self) -> Option<HistoryBounds> {
        let rules = || self.rules.iter().filter(|rule| !rule.is_off());
        let messages_max = rules().map(History::messages_max).max()?;
        let age_max_ns = rules().map(History::age_max_ns).collect::<Option<Vec<u64>>>();
        Some(HistoryBounds { messages_max, age_max_ns: age_max_ns.and_then(|ages| ages.into_iter().max()) })
    }

    fn find(&self, name: &str) -> Option<&History> {
        self.rules.iter().find(|rule| name.starts_with(rule.prefix())).filter(|rule| !rule.is_off())
    }
}

/// The most that any room keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct HistoryBounds {
    pub(crate) messages_max: usize,
    /// `None`: of some rooms no message is too old.
    pub(crate) age_max_ns: Option<u64>,
}

/// The core of so many that owns a room, and those that do when it has ended, in their order.
pub(crate) fn owners(name: &str, cores: usize) -> impl Iterator<Item = usize> {
    // FNV-1a: the same on all threads, and in every run.
    let hash = name
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    let first = if cores == 0 { 0 } else { ((hash ^ (hash >> 32)) % cores as u64) as usize };
    (0..cores).map(move |next| (first + next) % cores)
}

/// A join that waits for what the owner answers.
pub(super) struct Asking {
    pub(super) slot: u32,
    pub(super) generation: u32,
    pub(super) room: Arc<str>,
    pub(super) since: Since,
    pub(super) is_join: bool,
    owner: usize,
}

/// What a core knows and keeps of rooms' histories.
#[derive(Default)]
pub(super) struct Archive {
    histories: Arc<Histories>,
    default: History,
    /// Of the rooms that it owns.
    records: HashMap<Arc<str>, Record>,
    /// Their names, the one that was used first in front.
    turns: BTreeMap<u64, Arc<str>>,
    last_turn: u64,
    bytes: usize,
    bytes_max: Option<usize>,
    messages: usize,
    epochs: u64,
    next_look_ns: u64,
    /// By owner: what it has not confirmed.
    unread: Vec<u32>,
    /// Some owner has not confirmed much.
    is_behind: bool,
    /// By core: what is to be confirmed.
    owed: Vec<u32>,
    owed_most: u32,
    /// Joins whose answers are on their way, by the numbers of their changes.
    pub(super) asking: BTreeMap<u64, Asking>,
    /// Joins that are answered, and whose connections have not been told.
    pub(super) recovered: VecDeque<(u64, Recovered)>,
    /// Of the change that was told last.
    pub(super) told: Option<Recovered>,
}

/// Who is answered when something is found.
pub(super) enum Seeker {
    /// A join on this core, by the number of its change.
    Here(u64),
    /// One on another core.
    Core(usize, u64),
    /// Whoever asked by a handle.
    Outside(Answer<Recovered>),
}

impl CoreHub {
    /// Sets what rooms keep by the settings, and how much that may be on this core.
    pub(crate) fn set_history(&mut self, default: History, bytes_max: usize) {
        self.archive.default = default;
        self.archive.bytes_max = Some(bytes_max);
        self.set_histories(std::iter::empty());
    }

    /// What routes say of rooms' histories, beside the settings.
    pub(crate) fn set_histories(&mut self, of_routes: impl Iterator<Item = History>) {
        let default = std::iter::once(self.archive.default.clone());
        self.archive.histories = Arc::new(Histories::new(default.chain(of_routes)));
    }

    /// Which rooms have one.
    pub(crate) fn histories(&self) -> &Arc<Histories> {
        &self.archive.histories
    }

    #[inline]
    pub(crate) fn has_history(&self, name: &str) -> bool {
        self.archive.histories.of(name).is_some()
    }

    fn owner(&self, name: &str) -> usize {
        // Not as soon as it has ended: what it has passed on before that is read first.
        owners(name, self.post.cores()).find(|core| !self.has_ended(*core)).unwrap_or(self.core)
    }

    // ---- messages -------------------------------------------------------------------------------------------------

    /// Has a room's owner number, keep and pass on a message. The count is of this core's members where it is the owner.
    pub(super) fn record(
        &mut self,
        name: &Arc<str>,
        message: &mut Outgoing<'_>,
        except: Option<u32>,
        tally: Option<Arc<Tally>>,
    ) -> Delivery {
        let except = except.map(|slot| self.id(slot));
        let publication = Publication::of(&mut self.outbox, message, except, tally);
        let owner = self.owner(name);
        if owner == self.core {
            return self.record_here(name, publication, true);
        }
        let (room, from) = (Arc::clone(name), Some(self.core));
        self.post.send(owner, Order::Record { room, publication, goes_abroad: true, from }.into());
        let cores = self.post.cores();
        let unread = &mut self.archive.unread;
        unread.resize(cores, 0);
        unread[owner] += 1;
        self.archive.is_behind |= unread[owner] >= UNREAD_MAX;
        Delivery::default()
    }

    /// A message has come for a room that this core owns, from another core, or from a thread.
    pub(super) fn read_record(
        &mut self,
        name: &Arc<str>,
        publication: Publication,
        goes_abroad: bool,
        from: Option<usize>,
    ) {
        match from {
            Some(core) => {
                let cores = self.post.cores();
                let owed = &mut self.archive.owed;
                owed.resize(cores, 0);
                owed[core] += 1;
                self.archive.owed_most = self.archive.owed_most.max(owed[core]);
            }
            // Threads and the bridge are held up by nobody.
            None if self.post.waiting() > WAITING_MAX => {
                self.counters.history_refused += 1;
                return publication.tell(Delivery { refused: 1, ..Delivery::default() });
            }
            None => {}
        }
        self.record_here(name, publication, goes_abroad);
    }

    fn record_here(&mut self, name: &Arc<str>, mut publication: Publication, goes_abroad: bool) -> Delivery {
        if self.is_shared(name) {
            return self.record_elsewhere(name, publication, goes_abroad);
        }
        // There it gets the numbers of there.
        let abroad = goes_abroad.then(|| publication.frame.clone());
        let now_ns = self.now_ns;
        if let Some(numbered) = self.with_record(name, |record| record.keep(&publication.frame, now_ns)) {
            publication.frame = numbered;
        }
        self.pass_on(name, publication, abroad)
    }

    /// Some of what this core has written to an owner has been read there.
    pub(super) fn records_read(&mut self, owner: usize, count: u32) {
        if let Some(unread) = self.archive.unread.get_mut(owner) {
            *unread = unread.saturating_sub(count);
        }
        self.archive.is_behind = self.archive.unread.iter().any(|unread| *unread >= UNREAD_MAX);
    }

    /// Whether an owner has not confirmed much.
    #[inline]
    pub(super) fn is_behind_in_records(&self) -> bool {
        self.archive.is_behind
    }

    /// Confirms what has been read, where this core is not held up itself. At the end of a tick.
    #[inline]
    pub(super) fn confirm_records(&mut self) {
        if self.archive.owed_most >= CONFIRM_MIN && !self.post.is_congested() {
            self.archive.owed_most = 0;
            for core in 0..self.archive.owed.len() {
                let count = std::mem::take(&mut self.archive.owed[core]);
                if count > 0 && core != self.core {
                    self.post.send_urgent(core, Order::RecordsRead { owner: self.core, count }.into());
                }
            }
        }
    }

    // ---- what is kept ---------------------------------------------------------------------------------------------

    /// Lends the record of a room, which is made if there is none; `None` if the room has no history.
    fn with_record<R>(&mut self, name: &Arc<str>, lend: impl FnOnce(&mut Record) -> R) -> Option<R> {
        let archive = &mut self.archive;
        if !archive.records.contains_key(name) {
            let limits = archive.histories.of(name)?.clone();
            archive.epochs += 1;
            let epoch = self.ids.epoch(self.core, archive.epochs);
            self.insert_record(name, Record::new(name, limits, epoch));
        }
        self.lend_record(name, lend)
    }

    /// The same of a room whose messages are numbered elsewhere: one that is made begins behind this.
    pub(super) fn with_shared_record<R>(
        &mut self,
        name: &Arc<str>,
        at: Position,
        lend: impl FnOnce(&mut Record) -> R,
    ) -> Option<R> {
        if !self.archive.records.contains_key(name) {
            let limits = self.archive.histories.of(name)?.clone();
            self.insert_record(name, Record::behind(name, limits, at));
        }
        self.lend_record(name, lend)
    }

    pub(super) fn record_of(&self, name: &str) -> Option<&Record> {
        self.archive.records.get(name)
    }

    fn insert_record(&mut self, name: &Arc<str>, record: Record) {
        self.archive.bytes += record.bytes();
        self.archive.records.insert(Arc::clone(name), record);
    }

    fn lend_record<R>(&mut self, name: &Arc<str>, lend: impl FnOnce(&mut Record) -> R) -> Option<R> {
        let archive = &mut self.archive;
        archive.last_turn += 1;
        let turn = archive.last_turn;
        let record = archive.records.get_mut(name)?;
        let name = archive.turns.remove(&record.turn).unwrap_or_else(|| Arc::clone(name));
        record.turn = turn;
        archive.turns.insert(turn, name);
        let (bytes, messages) = (record.bytes(), record.len());
        let lent = lend(record);
        archive.bytes = archive.bytes + record.bytes() - bytes;
        archive.messages = archive.messages + record.len() - messages;
        let surplus = archive.bytes.saturating_sub(archive.bytes_max.unwrap_or(BYTES_MAX_DEFAULT));
        self.forget_histories(surplus);
        Some(lent)
    }

    /// Forgets the rooms that were quiet the longest, until so many bytes are free; how many are.
    pub(crate) fn forget_histories(&mut self, bytes: usize) -> usize {
        let mut freed = 0;
        while freed < bytes
            && let Some((_, name)) = self.archive.turns.pop_first()
        {
            freed += self.remove_record(&name);
        }
        freed
    }

    fn remove_record(&mut self, name: &str) -> usize {
        let archive = &mut self.archive;
        let Some(record) = archive.records.remove(name) else { return 0 };
        archive.turns.remove(&record.turn);
        archive.bytes -= record.bytes();
        archive.messages -= record.len();
        self.counters.history_forgotten += 1;
        record.bytes()
    }

    /// This machine has not heard of all that was published to a room.
    pub(super) fn end_history(&mut self, name: &str) {
        self.remove_record(name);
    }

    /// What is kept of all rooms is worth nothing any more.
    pub(super) fn end_all_histories(&mut self) {
        self.forget_histories(usize::MAX);
    }

    /// Forgets what is too old of rooms in which nothing happens. Once in a while.
    #[inline]
    pub(super) fn look_at_histories(&mut self) {
        if self.archive.messages > 0 && self.now_ns >= self.archive.next_look_ns {
            self.expire_histories();
        }
    }

    #[cold]
    fn expire_histories(&mut self) {
        let archive = &mut self.archive;
        archive.next_look_ns = self.now_ns + LOOK_NS;
        (archive.bytes, archive.messages) = (0, 0);
        for record in archive.records.values_mut() {
            record.expire(self.now_ns);
            archive.bytes += record.bytes();
            archive.messages += record.len();
        }
    }

    /// Checks what it counts; for `debug_assert`.
    pub(super) fn history_invariants(&self) {
        let Archive { records, turns, bytes, messages, .. } = &self.archive;
        assert_eq!(records.values().map(Record::bytes).sum::<usize>(), *bytes);
        assert_eq!(records.values().map(Record::len).sum::<usize>(), *messages);
        assert_eq!(records.len(), turns.len());
    }

    /// Bytes that rooms keep of their messages here.
    pub(super) fn history_bytes(&self) -> usize {
        self.archive.bytes
    }

    /// Rooms, and their messages.
    pub(super) fn history_counts(&self) -> (usize, usize) {
        (self.archive.records.len(), self.archive.messages)
    }

    // ---- who asks -------------------------------------------------------------------------------------------------

    /// What a room that this core owns has to say to somebody who asks so.
    pub(super) fn recover(&mut self, name: &Arc<str>, since: Since) -> Recovered {
        let now_ns = self.now_ns;
        let recovered = self.with_record(name, |record| record.recover(since, now_ns)).unwrap_or_default();
        self.count_recovery(since, recovered.is_complete);
        Recovered { members: self.member_count(name), ..recovered }
    }

    pub(super) fn count_recovery(&mut self, since: Since, is_complete: bool) {
        if matches!(since, Since::Position(_)) {
            self.counters.history_recoveries += 1;
            self.counters.history_incomplete += u64::from(!is_complete);
        }
    }

    /// A join is known to all: asks the room's owner for what the connection is to get.
    pub(super) fn ask_owner(&mut self, number: u64, mut asking: Asking) {
        asking.owner = self.owner(&asking.room);
        let (room, since, owner) = (Arc::clone(&asking.room), asking.since, asking.owner);
        self.archive.asking.insert(number, asking);
        if owner == self.core || !self.has_history(&room) {
            self.seek(&room, since, Seeker::Here(number));
        } else {
            self.post.send(owner, Order::Recover { room, since, core: self.core, number }.into());
        }
    }

    /// Somebody on another core asks. The answer goes the way of the messages.
    pub(super) fn read_recover(&mut self, name: &Arc<str>, since: Since, core: usize, number: u64) {
        self.seek(name, since, Seeker::Core(core, number));
    }

    pub(super) fn read_recovered(&mut self, number: u64, recovered: Recovered) {
        if self.archive.asking.contains_key(&number) {
            self.archive.recovered.push_back((number, recovered));
        }
    }

    /// Whether somebody is to be told what it has got of a history, before another letter is read.
    #[inline]
    pub(crate) fn has_recovered(&self) -> bool {
        !self.archive.recovered.is_empty()
    }

    /// What the connection gets whose change was told last.
    pub(crate) fn take_recovered(&mut self, members: usize) -> Recovered {
        Recovered { members, ..self.archive.told.take().unwrap_or_default() }
    }

    /// Another core has ended: its rooms have other owners, who are asked what it has not answered.
    pub(super) fn owner_ended(&mut self, core: usize) {
        self.records_read(core, u32::MAX);
        if let Some(owed) = self.archive.owed.get_mut(core) {
            *owed = 0;
        }
        let answered: Vec<u64> = self.archive.recovered.iter().map(|(number, _)| *number).collect();
        let unanswered =
            self.archive.asking.iter().filter(|(number, asking)| asking.owner == core && !answered.contains(number));
        for number in unanswered.map(|(number, _)| *number).collect::<Vec<_>>() {
            if let Some(asking) = self.archive.asking.remove(&number) {
                self.ask_owner(number, asking);
            }
        }
    }

    /// Queues what a connection has got of a history, whatever the limit of its queue: its input is held back while much is
    /// queued to it, and how much a room keeps has a limit of its own.
    pub(crate) fn replay(&mut self, slot: u32, recovered: &Recovered) -> Queued {
        for frame in recovered.frames() {
            let queued = self.reply(slot, &mut Outgoing::of_frame(frame.clone()));
            if queued != Queued::Yes {
                return queued;
            }
        }
        if self.is_open(slot) { Queued::Yes } else { Queued::Gone }
    }
}

impl Asking {
    pub(super) fn new(slot: u32, generation: u32, room: Arc<str>, since: Since, is_join: bool) -> Asking {
        Asking { slot, generation, room, since, is_join, owner: 0 }
    }
}
