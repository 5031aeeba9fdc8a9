//! Joins and leaves that are answered once they are known to all.
//!
//! A change is done when every core has read of it: whoever makes one writes a numbered letter to each of the others, they
//! say up to which number they have read, and what waits for the lowest of these is told so, in the order in which it was
//! made. Who joins is told of, and counted, at once; it gets what is published when its join is done.
//!
//! From this follows, whichever cores the connections are on:
//! * Of two joins, the one that is done later counts the other; of any number, the last one counts all.
//! * What is published once a join is done reaches that member: every core knows where to send it.
//! * The letter of a change also carries the notice of it to those who are in the room. So each of them either counts a change
//!   in the answer to its own join, or gets its notice after that, and never both: count and notices always add up.
//! * Changes stand in line with the messages of their core. Letters about plain joins are urgent, and a core that has read
//!   a change has read the urgent letters that were written before it.
//!
//! Why not an owner for each room, who would put joins in order: its core would be asked for every join, its end would be
//! every one of its rooms' end, and a member would still have to wait until the other cores know where to send. Nothing
//! here is asked or counted when a message is published, and a core alone answers at once.
//!
//! What waits is bounded by whoever waits: no further message of a connection is handled before its change is done. A core
//! that is slow, or whose mailbox is full, holds the changes of all others up for that long and nothing else of theirs. A core
//! that has ended is not waited for, and its members count no more.

use std::collections::VecDeque;
use std::sync::Arc;

use super::history::Asking;
use super::letter::Answer;
use super::room::Place;
use super::{CoreHub, JoinError, Order, RoomId, Since};
use crate::hub::ConnectionId;
use crate::outbox::{FrameBuf, Outgoing};

/// The changes that a core has made and not yet heard of from all others, and those of others that it has read.
pub(super) struct Changes {
    /// The number of the last one.
    last: u64,
    /// Up to which number each core has read; cores that have nothing to read are beyond all numbers.
    read_by: Vec<u64>,
    /// Up to which number all have.
    known: u64,
    /// What waits, in the order of numbers.
    waiting: VecDeque<Waiting>,
    /// Cores that have to be told up to where their changes have been read in this tick.
    to_confirm: Vec<(usize, u64)>,
}

impl Changes {
    pub(super) fn new(core: usize, cores: usize) -> Changes {
        let read_by: Vec<u64> = (0..cores).map(|of| if of == core { u64::MAX } else { 0 }).collect();
        let known = read_by.iter().copied().min().unwrap_or(u64::MAX);
        Changes { last: 0, read_by, known, waiting: VecDeque::new(), to_confirm: Vec::new() }
    }

    fn next(&mut self) -> u64 {
        self.last += 1;
        self.last
    }

    fn read_up_to(&mut self, core: usize, number: u64) {
        if let Some(read) = self.read_by.get_mut(core) {
            *read = number.max(*read);
        }
        self.known = self.read_by.iter().copied().min().unwrap_or(u64::MAX);
    }

    fn has_ended(&self, core: usize) -> bool {
        self.read_by[core] == u64::MAX
    }
}

/// Who waits elsewhere for a change to be known to all.
enum Asker {
    OfJoin(Answer<Result<usize, JoinError>>),
    OfLeave(Answer<bool>),
}

impl Asker {
    /// With how many members the room has then, as [`Known::members`].
    fn tell(self, members: Option<usize>) {
        // Nobody may be waiting any more.
        match self {
            Asker::OfJoin(answer) => drop(answer.send(Ok(members.ok_or(JoinError::Gone)))),
            Asker::OfLeave(answer) => drop(answer.send(Ok(true))),
        }
    }
}

struct Waiting {
    number: u64,
    slot: u32,
    generation: u32,
    room: Arc<str>,
    change: Change,
    asker: Option<Asker>,
    /// What it gets of the room's history.
    since: Option<Since>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Change {
    Join,
    /// Of one that is in already.
    JoinAgain,
    Leave,
}

/// When a change is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Done {
    /// It is: so many members has the room.
    Now(usize),
    /// [`CoreHub::next_done`] will say so of this number.
    Later(u64),
    /// The connection is closing, and is told nothing.
    Untold,
}

/// A change that is known to all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Known {
    /// Whose.
    pub slot: u32,
    /// As [`Done::Later`] said.
    pub number: u64,
    /// How many members the room has now; `None` if the change was overtaken by another, or the connection is closing.
    pub members: Option<usize>,
}

impl CoreHub {
    /// Lets a connection join the room of this name, and tells when that is known to all; it gets what is published from then
    /// on. None of its messages is handled until then. `notice` goes to who is in the room, unless it is in it already.
    ///
    /// # Errors
    /// As [`CoreHub::join`].
    pub fn join_then(&mut self, slot: u32, name: &str, notice: Option<&FrameBuf>) -> Result<Done, JoinError> {
        self.join_by_change(slot, name, notice, None)
    }

    /// As [`CoreHub::join_then`], with what it is to get of the room's history: [`CoreHub::take_recovered`] has it when that is
    /// done, and what the connection gets from then on is what follows.
    ///
    /// # Errors
    /// As [`CoreHub::join`].
    pub fn join_since(
        &mut self,
        slot: u32,
        name: &str,
        notice: Option<&FrameBuf>,
        since: Since,
    ) -> Result<Done, JoinError> {
        self.join_by_change(slot, name, notice, Some(since))
    }

    fn join_by_change(
        &mut self,
        slot: u32,
        name: &str,
        notice: Option<&FrameBuf>,
        since: Option<Since>,
    ) -> Result<Done, JoinError> {
        let (id, was) = self.let_in(slot, name)?;
        match was {
            Some(place) if place.is_changed_in() && !place.is_joining() && since.is_none() => {
                Ok(Done::Now(self.member_count(name)))
            }
            Some(_) => {
                let number = self.changes.next();
                self.tell_change(id, Some(number), None);
                Ok(self.when_known(slot, id, number, Change::JoinAgain, since))
            }
            None => {
                let number = self.changes.next();
                self.members[slot as usize].rooms.push((id, Place::JOINING));
                let room = &mut self.rooms[id.0 as usize];
                room.joining.push_back((number, slot));
                room.changed_in += 1;
                self.note(id, notice);
                self.tell_change(id, Some(number), notice);
                self.tell_bridge_of(slot, id, true);
                self.note_abroad(id, notice);
                Ok(self.when_known(slot, id, number, Change::Join, since))
            }
        }
    }

    /// Removes a connection from a room at once, and tells when that is known to all; `None` if it was not a member. None of its
    /// messages is handled until then. `notice` goes to who is in the room.
    pub fn leave_then(&mut self, slot: u32, name: &str, notice: Option<&FrameBuf>) -> Option<Done> {
        // As long as it is needed.
        let id = self.names.get(name).copied()?;
        let was_pinned = std::mem::replace(&mut self.rooms[id.0 as usize].pinned, true);
        let waits = self.outbox.is_open(slot);
        let done = self.leave(slot, name).then(|| {
            self.note(id, notice);
            let number = waits.then(|| self.changes.next());
            self.tell_change(id, number, notice);
            self.note_abroad(id, notice);
            number.map_or(Done::Untold, |number| self.when_known(slot, id, number, Change::Leave, None))
        });
        self.rooms[id.0 as usize].pinned = was_pinned;
        self.forget_if_unused(id);
        done
    }

    /// Has a connection join a room for somebody elsewhere, who is told when all know of it.
    pub(super) fn join_for(&mut self, id: ConnectionId, room: &str, answer: Answer<Result<usize, JoinError>>) {
        let done = self.resolve(id).ok_or(JoinError::Gone).and_then(|slot| self.join_then(slot, room, None));
        match done {
            Ok(done) => self.when_done(done, Asker::OfJoin(answer)),
            Err(error) => drop(answer.send(Ok(Err(error)))),
        }
    }

    /// As [`CoreHub::join_for`], of a connection that is to leave.
    pub(super) fn leave_for(&mut self, id: ConnectionId, room: &str, answer: Answer<bool>) {
        match self.find(id).and_then(|slot| self.leave_then(slot, room, None)) {
            Some(done) => self.when_done(done, Asker::OfLeave(answer)),
            None => drop(answer.send(Ok(false))),
        }
    }

    fn when_done(&mut self, done: Done, asker: Asker) {
        match done {
            Done::Now(members) => asker.tell(Some(members)),
            Done::Untold => asker.tell(None),
            Done::Later(number) => {
                let last = self.changes.waiting.back_mut().filter(|last| last.number == number);
                last.expect("it waits for the others").asker = Some(asker);
            }
        }
    }

    /// Gives the members of this core the notice of a change.
    fn note(&mut self, id: RoomId, notice: Option<&FrameBuf>) {
        if let Some(frame) = notice {
            self.deliver_to_room(id, &mut Outgoing::of_frame(frame.clone()), None);
        }
    }

    /// Tells the others how many members that came by changes a room has here; with a number if somebody waits for that to
    /// be read.
    pub(super) fn tell_change(&mut self, id: RoomId, number: Option<u64>, notice: Option<&FrameBuf>) {
        if self.rooms[id.0 as usize].to_tell().plain != self.rooms[id.0 as usize].told.plain {
            // What is urgent is read first.
            self.announce(id);
        }
        let core = self.core;
        let room = &mut self.rooms[id.0 as usize];
        room.told.changed_in = room.changed_in;
        for other in (0..self.post.cores()).filter(|other| *other != core && !self.changes.has_ended(*other)) {
            let change = Order::Change {
                room: Arc::clone(&room.name),
                core,
                members: room.changed_in,
                number,
                notice: notice.cloned(),
            };
            self.post.send(other, change.into());
        }
    }

    fn when_known(&mut self, slot: u32, id: RoomId, number: u64, change: Change, since: Option<Since>) -> Done {
        let member = &mut self.members[slot as usize];
        member.changes += 1;
        let room = Arc::clone(&self.rooms[id.0 as usize].name);
        let generation = member.generation;
        self.changes.waiting.push_back(Waiting { number, slot, generation, room, change, asker: None, since });
        if number <= self.changes.known
            && self.changes.waiting.len() == 1
            && !self.has_recovered()
            && let Some(known) = self.next_done()
        {
            return Done::Now(known.members.unwrap_or(0));
        }
        self.outbox.set_held(slot, true);
        Done::Later(number)
    }

    /// The next change that all cores know of. Whoever joined is a member from now on, so it must be told before anything else
    /// is published.
    pub fn next_done(&mut self) -> Option<Known> {
        loop {
            if let Some((number, recovered)) = self.archive.recovered.pop_front() {
                if let Some(known) = self.admit_recovered(number) {
                    self.archive.told = Some(recovered);
                    return Some(known);
                }
                continue;
            }
            if !self.is_any_known() {
                return None;
            }
            let Waiting { number, slot, generation, room, change, asker, since } = self.changes.waiting.pop_front()?;
            if let Some(since) = since {
                // Its owner knows of it, too.
                self.ask_owner(number, Asking::new(slot, generation, room, since, change == Change::Join));
                continue;
            }
            let member = &mut self.members[slot as usize];
            if !member.open || member.generation != generation {
                if let Some(asker) = asker {
                    asker.tell(None);
                }
                continue;
            }
            member.changes -= 1;
            self.release_if_free(slot);
            let stands = match change {
                Change::Join => self.admit(&room, number),
                Change::JoinAgain => self.is_in(slot, &room),
                Change::Leave => !self.is_in(slot, &room),
            };
            let members = (stands && self.is_open(slot)).then(|| self.member_count(&room));
            if let Some(asker) = asker {
                asker.tell(members);
            }
            return Some(Known { slot, number, members });
        }
    }

    /// Makes a member of who joined by this change, and whose answer has just been read; `None` if it has gone.
    fn admit_recovered(&mut self, number: u64) -> Option<Known> {
        let Asking { slot, generation, room, is_join, .. } = self.archive.asking.remove(&number)?;
        let member = &mut self.members[slot as usize];
        if !member.open || member.generation != generation {
            return None;
        }
        member.changes -= 1;
        self.release_if_free(slot);
        let stands = if is_join { self.admit(&room, number) } else { self.is_in(slot, &room) };
        let members = (stands && self.is_open(slot)).then(|| self.member_count(&room));
        Some(Known { slot, number, members })
    }

    /// Makes a member of who joined by this change; false if it has left meanwhile.
    fn admit(&mut self, name: &str, number: u64) -> bool {
        let Some(id) = self.names.get(name).copied() else { return false };
        let room = &mut self.rooms[id.0 as usize];
        let Some(index) = room.joining.iter().position(|(of, _)| *of == number) else { return false };
        let Some((_, slot)) = room.joining.remove(index) else { return false };
        let place = Place::changed_in(room.members.len());
        room.members.push(slot);
        let rooms = &mut self.members[slot as usize].rooms;
        let entry = rooms.iter_mut().find(|(of, _)| *of == id).expect("who joins knows the room");
        entry.1 = place;
        true
    }

    // ---- the others -----------------------------------------------------------------------------------------------

    pub(super) fn read_change(
        &mut self,
        name: &Arc<str>,
        core: usize,
        members: u32,
        number: Option<u64>,
        notice: Option<&FrameBuf>,
    ) {
        let id = self.find_or_make(name, || Arc::clone(name));
        self.rooms[id.0 as usize].elsewhere.set_changed_in(core, members);
        self.note(id, notice);
        self.forget_if_unused(id);
        let Some(number) = number else { return };
        let to_confirm = &mut self.changes.to_confirm;
        match to_confirm.iter_mut().find(|(of, _)| *of == core) {
            Some(entry) => entry.1 = number,
            None => to_confirm.push((core, number)),
        }
    }

    /// At the end of the tick: whatever runs from now on knows what has been read.
    pub(super) fn confirm_changes(&mut self) {
        while let Some((other, number)) = self.changes.to_confirm.pop() {
            self.post.send_urgent(other, Order::ChangesRead { core: self.core, number }.into());
        }
    }

    pub(super) fn changes_read(&mut self, core: usize, number: u64) {
        self.changes.read_up_to(core, number);
    }

    /// Another core has ended, and its connections with it.
    pub(super) fn core_ended(&mut self, core: usize) {
        self.changes.read_up_to(core, u64::MAX);
        self.owner_ended(core);
        let ids: Vec<RoomId> = self.rooms.iter().map(|(key, _)| RoomId(key as u32)).collect();
        for id in ids {
            if self.rooms[id.0 as usize].elsewhere.forget(core) {
                self.forget_if_unused(id);
            }
        }
    }

    /// Whether [`CoreHub::next_done`] has something to say.
    #[inline]
    pub(crate) fn has_done(&self) -> bool {
        self.has_recovered() || self.is_any_known()
    }

    #[inline]
    fn is_any_known(&self) -> bool {
        self.changes.waiting.front().is_some_and(|first| first.number <= self.changes.known)
    }

    /// Whether another core has said that it has ended.
    pub(super) fn has_ended(&self, core: usize) -> bool {
        core != self.core && self.changes.has_ended(core)
    }

    /// Changes that wait for other cores to read of them.
    pub fn changes_waiting(&self) -> usize {
        self.changes.waiting.len() + self.archive.asking.len()
    }
}
