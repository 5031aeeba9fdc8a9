//! The history of one room, as its owner keeps it: the last messages, by their numbers.
//!
//! A room of this machine alone is numbered here, without a gap. Where all machines have one history ([`super::shared`]) the numbers
//! come with the messages, and others lie between them.
//!
//! Invariant: the messages are all those of the room whose offsets are above `floor` and up to `last`, and `frame_bytes` is what
//! their frames take. A floor of 0 says that nothing of the room has been forgotten.

use std::collections::VecDeque;

use super::recovered::{Position, Recovered, Since};
use super::numbered::Found;
use crate::config::History;
use crate::outbox::FrameBuf;

/// What a message takes beside its bytes.
const MESSAGE_BYTES: usize = 96;
/// What a room takes beside its messages and its name.
const RECORD_BYTES: usize = 320;

pub(super) struct Record {
    limits: History,
    epoch: u64,
    /// The offset of the last message that there was.
    last: u64,
    floor: u64,
    /// It has forgotten what was more than it may keep: there is no more of it to be had.
    is_full: bool,
    messages: VecDeque<Kept>,
    /// Of the messages' frames.
    frame_bytes: usize,
    /// Of the record without messages.
    own_bytes: usize,
    /// When it was used last, in the order of all records of the core.
    pub(super) turn: u64,
}

struct Kept {
    offset: u64,
    frame: FrameBuf,
    at_ns: u64,
}

impl Record {
    pub(super) fn new(name: &str, limits: History, epoch: u64) -> Record {
        Record::behind(name, limits, Position { epoch, offset: 0 })
    }

    /// One that begins behind this.
    pub(super) fn behind(name: &str, limits: History, at: Position) -> Record {
        let own_bytes = RECORD_BYTES + 2 * name.len();
        Record {
            limits,
            epoch: at.epoch,
            last: at.offset,
            floor: at.offset,
            is_full: false,
            messages: VecDeque::new(),
            frame_bytes: 0,
            own_bytes,
            turn: 0,
        }
    }

    /// What it takes in memory.
    pub(super) fn bytes(&self) -> usize {
        self.own_bytes + self.frame_bytes + self.messages.len() * MESSAGE_BYTES
    }

    pub(super) fn len(&self) -> usize {
        self.messages.len()
    }

    pub(super) fn position(&self) -> Position {
        Position { epoch: self.epoch, offset: self.last }
    }

    /// Numbers a message and keeps it; as its receivers get it.
    pub(super) fn keep(&mut self, frame: &FrameBuf, now_ns: u64) -> FrameBuf {
        let offset = self.last + 1;
        let frame = frame.numbered(offset);
        self.keep_at(offset, frame.clone(), now_ns);
        frame
    }

    /// Keeps a message that has its number already, and is the next one of the room.
    pub(super) fn keep_at(&mut self, offset: u64, frame: FrameBuf, now_ns: u64) {
        debug_assert!(offset > self.last);
        self.last = offset;
        self.frame_bytes += frame.len();
        self.messages.push_back(Kept { offset, frame, at_ns: now_ns });
        self.expire(now_ns);
    }

    /// Begins anew behind this: what came between is not known, or was no part of the history.
    pub(super) fn restart(&mut self, offset: u64) {
        self.messages.clear();
        self.frame_bytes = 0;
        self.is_full = false;
        (self.last, self.floor) = (offset, offset);
    }

    /// Puts what was found elsewhere before what it has, if nothing is missing between the two.
    pub(super) fn extend(&mut self, found: Found, now_ns: u64) {
        if found.end < self.floor || found.floor >= self.floor || self.is_full {
            return;
        }
        let older: Vec<_> = found.messages.into_iter().filter(|message| message.offset <= self.floor).collect();
        for message in older.into_iter().rev() {
            self.frame_bytes += message.frame.len();
            let at_ns = now_ns.saturating_sub(message.age_ns);
            self.messages.push_front(Kept { offset: message.offset, frame: message.frame, at_ns });
        }
        self.floor = found.floor;
        self.is_full = found.is_full;
        self.expire(now_ns);
    }

    /// Forgets what is too old, too many or too much.
    pub(super) fn expire(&mut self, now_ns: u64) {
        let age_max_ns = self.limits.age_max_ns();
        while let Some(first) = self.messages.front() {
            let is_old = age_max_ns.is_some_and(|max_ns| now_ns.saturating_sub(first.at_ns) > max_ns);
            let is_much = self.frame_bytes > self.limits.bytes_max();
            if !is_old && !is_much && self.messages.len() <= self.limits.messages_max() {
                break;
            }
            self.frame_bytes -= first.frame.len();
            (self.floor, self.is_full) = (first.offset, true);
            self.messages.pop_front();
        }
        if self.messages.is_empty() {
            self.messages.shrink_to_fit();
        }
        debug_assert!(self.floor <= self.last && self.messages.len() as u64 <= self.last - self.floor);
    }

    /// Whether nobody else could answer better than it does.
    pub(super) fn covers(&self, since: Since) -> bool {
        match since {
            Since::Now => true,
            Since::Last(wanted) => self.has_last(wanted) || self.is_full,
            Since::Position(Position { epoch, offset }) if epoch == self.epoch => {
                // One from the future may be another machine's, which has heard more.
                offset <= self.last && (offset >= self.floor || self.is_full)
            }
            Since::Position(_) => self.floor == 0 || self.is_full,
        }
    }

    fn has_last(&self, wanted: usize) -> bool {
        wanted <= self.messages.len() || self.floor == 0
    }

    /// What somebody who asks so gets.
    pub(super) fn recover(&mut self, since: Since, now_ns: u64) -> Recovered {
        self.expire(now_ns);
        let (from, is_complete) = match since {
            Since::Now => (self.messages.len(), true),
            Since::Last(wanted) => (self.messages.len().saturating_sub(wanted), self.has_last(wanted)),
            Since::Position(Position { epoch, offset }) if epoch == self.epoch && offset <= self.last => {
                (self.messages.partition_point(|kept| kept.offset <= offset), offset >= self.floor)
            }
            Since::Position(_) => (0, false),
        };
        let kept = self.messages.iter().skip(from);
        let messages = kept.map(|kept| (kept.offset, kept.frame.clone())).collect();
        Recovered { members: 0, position: Some(self.position()), is_complete, messages }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chance::Chance;
    use crate::hub::FoundMessage;
    use crate::outbox::Outgoing;
    use crate::proto::Opcode;

    const EPOCH: u64 = 7;

    fn at(offset: u64) -> Since {
        Since::Position(Position { epoch: EPOCH, offset })
    }

    fn record(limits: History) -> Record {
        Record::new("room", limits, EPOCH)
    }

    fn say(record: &mut Record, text: &str, now_ns: u64) {
        record.keep(&FrameBuf::new(Opcode::Text, text.as_bytes()), now_ns);
    }

    /// Offsets, and whether that is all.
    fn recovered(record: &mut Record, since: Since, now_ns: u64) -> (Vec<u64>, bool) {
        let recovered = record.recover(since, now_ns);
        assert_eq!(recovered.position, Some(record.position()));
        let texts = recovered.messages().map(|(offset, message)| (offset, message.as_text().map(str::to_owned)));
        let offsets = texts.inspect(|(offset, text)| assert_eq!(text.as_deref(), Some(&*offset.to_string())));
        (offsets.map(|(offset, _)| offset).collect(), recovered.is_complete)
    }

    /// Kills: an offset that is one too many or too few, and one of another epoch, or from the future, that is believed.
    #[test]
    fn what_is_asked_for_is_there_or_told_not_to_be() {
        let mut record = record(History::last(3));
        assert_eq!(recovered(&mut record, Since::Last(5), 0), (vec![], true));
        assert_eq!(recovered(&mut record, at(0), 0), (vec![], true));
        (1..=5).for_each(|number: u32| say(&mut record, &number.to_string(), 0));
        let cases = [
            (Since::Now, vec![], true),
            (Since::Last(0), vec![], true),
            (Since::Last(2), vec![4, 5], true),
            (Since::Last(3), vec![3, 4, 5], true),
            (Since::Last(4), vec![3, 4, 5], false),
            (Since::Last(usize::MAX), vec![3, 4, 5], false),
            (at(5), vec![], true),
            (at(4), vec![5], true),
            (at(2), vec![3, 4, 5], true),
            (at(1), vec![3, 4, 5], false),
            (at(0), vec![3, 4, 5], false),
            (at(6), vec![3, 4, 5], false),
            (at(u64::MAX), vec![3, 4, 5], false),
            (Since::Position(Position { epoch: EPOCH + 1, offset: 5 }), vec![3, 4, 5], false),
        ];
        for (since, offsets, is_complete) in cases {
            assert_eq!(recovered(&mut record, since, 0), (offsets, is_complete), "{since:?}");
        }
    }

    /// Kills: bounds that are not kept, or whose effect is not told.
    #[test]
    fn age_and_bytes_are_bounds_too() {
        const SECOND: u64 = 1_000_000_000;
        let mut by_age = record(History::last(100).max_age(std::time::Duration::from_secs(10)));
        (1..=4).for_each(|number: u64| say(&mut by_age, &number.to_string(), number * SECOND));
        assert_eq!(recovered(&mut by_age, at(0), 11 * SECOND), (vec![1, 2, 3, 4], true));
        assert_eq!(recovered(&mut by_age, at(1), 13 * SECOND), (vec![3, 4], false));
        assert_eq!(recovered(&mut by_age, at(3), 99 * SECOND), (vec![], false));
        assert_eq!(recovered(&mut by_age, at(4), 99 * SECOND), (vec![], true), "it has missed nothing");
        let mut by_bytes = record(History::last(100).max_bytes(10));
        (1..=5).for_each(|number: u32| say(&mut by_bytes, &number.to_string(), 0));
        // A frame has two bytes beside its payload.
        assert_eq!(recovered(&mut by_bytes, at(0), 0), (vec![3, 4, 5], false));
        by_bytes.keep(&FrameBuf::new(Opcode::Binary, &[0; 20]), 0);
        assert_eq!(recovered(&mut by_bytes, at(5), 0), (vec![], false), "it is larger than all that may be kept");
        assert_eq!(by_bytes.bytes(), record(History::off()).bytes());
    }

    /// The same as a list that forgets nothing, of which what the bounds say is taken away.
    #[test]
    fn a_record_is_as_its_model() {
        for seed in 0..300 {
            let mut chance = Chance(seed);
            let (messages_max, age_max, bytes_max) = (1 + chance.below(6), chance.below(20) as u64, chance.below(40));
            let limits = History::last(messages_max as u32).max_bytes(bytes_max);
            let mut record = record(limits.max_age(std::time::Duration::from_nanos(age_max)));
            let mut all: Vec<(u64, usize)> = Vec::new();
            let mut forgotten = 0;
            let mut now = 0;
            for _ in 0..60 {
                now += chance.below(6) as u64;
                if chance.below(3) > 0 {
                    let text = (all.len() + 1).to_string();
                    say(&mut record, &text, now);
                    all.push((now, text.len() + 2));
                }
                let is_over = |from: usize| {
                    let kept = &all[from..];
                    let bytes: usize = kept.iter().map(|(_, len)| len).sum();
                    kept.len() > messages_max
                        || bytes > bytes_max
                        || kept.first().is_some_and(|(at, _)| now - at > age_max)
                };
                while is_over(forgotten) {
                    forgotten += 1;
                }
                let offset = chance.below(all.len() + 2) as u64;
                let is_there = offset as usize >= forgotten && offset as usize <= all.len();
                let from = if is_there { offset as usize } else { forgotten };
                let expected: Vec<u64> = (from as u64 + 1..=all.len() as u64).collect();
                assert_eq!(recovered(&mut record, at(offset), now), (expected, is_there), "seed {seed}");
            }
        }
    }

    /// Kills: an offset that is written into something else than an event.
    #[test]
    fn events_say_their_offset_and_nothing_else_does() {
        let mut record = record(History::last(9));
        let event = FrameBuf::new(Opcode::Text, br#"{"event":"a","data":{}}"#);
        let said = |frame: FrameBuf| frame.parts().map(|(opcode, payload)| (opcode, payload.to_vec()));
        assert_eq!(said(record.keep(&event, 0)), said(event.clone()));
        let numbered = br#"{"event":"a","data":{},"offset":2}"#;
        assert_eq!(said(record.keep(&event.clone().event(true), 0)), Some((Opcode::Text, numbered.to_vec())));
        let marked = record.keep(&event.uncompressed(true).event(true), 0);
        assert!(Outgoing::of_frame(marked).compressible(0).is_none());
    }

    fn found(floor: u64, end: u64, offsets: &[u64]) -> Found {
        let message = |offset: &u64| {
            let frame = FrameBuf::new(Opcode::Text, offset.to_string().as_bytes());
            FoundMessage { offset: *offset, frame, age_ns: 0 }
        };
        Found { epoch: EPOCH, floor, end, messages: offsets.iter().map(message).collect(), ..Found::default() }
    }

    fn shared(offsets: &[u64], behind: u64) -> Record {
        let at = Position { epoch: EPOCH, offset: behind };
        let mut record = Record::behind("room", History::last(5), at);
        for offset in offsets {
            record.keep_at(*offset, FrameBuf::new(Opcode::Text, offset.to_string().as_bytes()), 0);
        }
        record
    }

    /// Kills: what was found that is put before something else than what follows it, or twice; a floor that claims too much.
    #[test]
    fn what_is_found_elsewhere_comes_before_what_is_here_if_nothing_is_between() {
        // The record, what was found, what is asked for, and what comes of it.
        let cases = [
            (shared(&[30, 40], 20), found(10, 20, &[15, 20]), at(10), vec![15, 20, 30, 40], true),
            (shared(&[30, 40], 20), found(10, 30, &[15, 20, 30]), at(12), vec![15, 20, 30, 40], true),
            (shared(&[30, 40], 20), found(10, 19, &[15]), at(10), vec![30, 40], false),
            (shared(&[30, 40], 20), found(10, 20, &[15, 20]), at(9), vec![15, 20, 30, 40], false),
            (shared(&[30, 40], 20), found(25, 40, &[30, 40]), at(20), vec![30, 40], true),
            (shared(&[], 20), found(0, 20, &[15, 20]), Since::Last(9), vec![15, 20], true),
            (shared(&[], 20), found(1, 20, &[15, 20]), Since::Last(9), vec![15, 20], false),
            (shared(&[], 20), found(1, 20, &[15, 20]), Since::Last(2), vec![15, 20], true),
            // No more than the room may keep, and what that leaves out is told.
            (shared(&[30, 40], 20), found(5, 20, &[6, 7, 15, 20]), at(6), vec![7, 15, 20, 30, 40], true),
            (shared(&[30, 40], 20), found(5, 20, &[6, 7, 15, 20]), at(5), vec![7, 15, 20, 30, 40], false),
        ];
        for (number, (mut record, found, since, offsets, is_complete)) in cases.into_iter().enumerate() {
            record.extend(found, 0);
            assert_eq!(recovered(&mut record, since, 0), (offsets, is_complete), "case {number}");
        }
    }

    /// Kills: an answer from memory where somebody else knows more, or a question where nobody does.
    #[test]
    fn who_asks_is_answered_from_memory_where_that_has_all() {
        let mut full = shared(&[1, 2, 3, 4, 5, 6], 0);
        let cases = [
            (Since::Now, true),
            (at(20), true),
            (at(35), true),
            (at(19), false),
            (at(41), false),
            (Since::Last(2), true),
            (Since::Last(3), false),
            (Since::Position(Position { epoch: EPOCH + 1, offset: 30 }), false),
        ];
        for (since, is_covered) in cases {
            assert_eq!(shared(&[30, 40], 20).covers(since), is_covered, "{since:?}");
        }
        assert!(full.covers(at(0)) && full.covers(Since::Last(9)), "it may keep no more");
        full.restart(7);
        assert_eq!((full.covers(at(6)), full.covers(at(7)), full.len()), (false, true, 0));
        assert_eq!(recovered(&mut full, at(6), 0), (vec![], false));
    }
}
