//! Rooms whose history all machines share: what the owner of such a room does on this one.
//!
//! Where the other machines have a place that puts the messages of rooms in one order and keeps them, the bridge says so
//! ([`Mode`]), and a room's owner numbers nothing any more. What is published goes to the bridge, comes back with its number in the order
//! that all machines see, and then goes to this machine's members: the sender's own as everybody's. What the owner has in memory
//! is the end of that line. Who asks for more than that is answered when the bridge has found it; while that is on its way the
//! asker gets nothing, and what comes of it stands in line with the room's messages: the rule of [`super::history`] holds,
//! no gap and no double.
//!
//! **Apart.** While that place is away, messages go to this machine's members all the same, by the same way and without a number, and
//! nobody gets a position. When it is back the bridge puts a mark into the line of each such room, which comes here as a message
//! without content: whoever asks across it is told that not all is there.
//!
//! A machine that was once one of them never numbers for itself again, whatever becomes of that place: clients would count its
//! numbers as those of the history that they know.
//!
//! **Bounds.** What finds the bridge's mailbox full is refused, and told so; so are questions past [`SEEKING_MAX`], with what is here. The
//! bridge answers each question, if only that it has found nothing in time.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::history::Seeker;
use super::numbered::{Found, Mode, Numbered, SHARED_NAME_BYTES_MAX};
use super::record::Record;
use super::recovered::{Position, Recovered, Since};
use super::{CoreHub, Delivery, Order, Publication};

/// Questions of a core that the bridge has not answered.
const SEEKING_MAX: usize = 4096;

struct Seeking {
    room: Arc<str>,
    since: Since,
    seeker: Seeker,
}

/// What a core knows of the shared history.
#[derive(Default)]
pub(super) struct Sharing {
    mode: Mode,
    seeking: BTreeMap<u64, Seeking>,
    tokens: u64,
}

impl CoreHub {
    /// The bridge says who keeps the history of rooms.
    pub(super) fn set_mode(&mut self, mode: Mode) {
        let before = std::mem::replace(&mut self.sharing.mode, mode);
        if let Mode::Shared(_) = mode
            && before != mode
        {
            // What was kept is of another history, or ends before what came meanwhile.
            self.end_all_histories();
        }
    }

    /// Whether what is published to a room is put in order elsewhere.
    pub(super) fn is_shared(&self, name: &str) -> bool {
        self.sharing.mode != Mode::Local && name.len() <= SHARED_NAME_BYTES_MAX
    }

    // ---- messages -------------------------------------------------------------------------------------------------

    /// Hands a message to the bridge, to be numbered.
    pub(super) fn record_elsewhere(
        &mut self,
        name: &Arc<str>,
        publication: Publication,
        goes_abroad: bool,
    ) -> Delivery {
        if !goes_abroad {
            // It comes from there, and is no part of the history.
            self.pass_on(name, publication, None);
            return Delivery::default();
        }
        let bridge = self.post.bridge().unwrap_or(self.post.cores());
        let elsewhere = self.members_abroad(name) as u32;
        let order = Order::Number { room: Arc::clone(name), publication };
        match self.post.offer(bridge, order.into()) {
            Ok(()) => Delivery { elsewhere, ..Delivery::default() },
            Err((error, letter)) => {
                self.counters.abroad_refused += 1;
                letter.refuse(error);
                Delivery { refused: 1, ..Delivery::default() }
            }
        }
    }

    /// A message has its place in the one line.
    pub(super) fn read_numbered(&mut self, name: &Arc<str>, numbered: Numbered) {
        let Numbered { epoch, offset, is_next, publication, is_known } = numbered;
        let publication = publication
            .map(|publication| Publication { frame: publication.frame.numbered(offset), ..publication });
        if self.sharing.mode == Mode::Shared(epoch) {
            let now_ns = self.now_ns;
            self.with_shared_record(name, Position { epoch, offset: offset.saturating_sub(1) }, |record| {
                if offset <= record.position().offset {
                    return;
                }
                match &publication {
                    Some(Publication { frame, .. }) => {
                        if !is_next {
                            record.restart(offset - 1);
                        }
                        record.keep_at(offset, frame.clone(), now_ns);
                    }
                    None => record.restart(offset),
                }
            });
        }
        if let Some(publication) = publication.filter(|_| !is_known) {
            self.pass_on(name, publication, None);
        }
    }

    /// Passes a message on to the members here as it is, and to other machines if it is to go there.
    pub(super) fn give_unnumbered(&mut self, name: &Arc<str>, publication: Publication, goes_abroad: bool) {
        let abroad = goes_abroad.then(|| publication.frame.clone());
        self.pass_on(name, publication, abroad);
    }

    // ---- who asks -------------------------------------------------------------------------------------------------

    /// Answers somebody who wants a room's history, at once or when the bridge has found it.
    pub(super) fn seek(&mut self, name: &Arc<str>, since: Since, seeker: Seeker) {
        if !self.is_shared(name) || !self.has_history(name) {
            let recovered = self.recover(name, since);
            return self.tell_seeker(seeker, recovered);
        }
        let is_here = self.record_of(name).is_some_and(|record| record.covers(since));
        let is_reachable = matches!(self.sharing.mode, Mode::Shared(_));
        if is_here || !is_reachable || self.sharing.seeking.len() >= SEEKING_MAX {
            let recovered = self.recover_shared(name, since, None);
            return self.tell_seeker(seeker, recovered);
        }
        self.sharing.tokens += 1;
        let token = self.sharing.tokens;
        let order = Order::Seek { room: Arc::clone(name), since, core: self.core, token };
        let bridge = self.post.bridge().unwrap_or(self.post.cores());
        if self.post.offer(bridge, order.into()).is_err() {
            let recovered = self.recover_shared(name, since, None);
            return self.tell_seeker(seeker, recovered);
        }
        self.sharing.seeking.insert(token, Seeking { room: Arc::clone(name), since, seeker });
    }

    /// The bridge has found what there is, in line with the room's messages; or nothing, in time.
    pub(super) fn read_sought(&mut self, token: u64, found: Option<Found>) {
        let Some(Seeking { room, since, seeker }) = self.sharing.seeking.remove(&token) else { return };
        let found = found.filter(|found| self.sharing.mode == Mode::Shared(found.epoch));
        let recovered = self.recover_shared(&room, since, found);
        self.tell_seeker(seeker, recovered);
    }

    fn recover_shared(&mut self, name: &Arc<str>, since: Since, found: Option<Found>) -> Recovered {
        let now_ns = self.now_ns;
        let recovered = match found {
            // Nothing more of it comes here, and so nothing is kept of it.
            Some(found) if found.last.is_none() => self.histories().of(name).cloned().map(|limits| {
                let at = Position { epoch: found.epoch, offset: found.end };
                let mut record = Record::behind(name, limits, at);
                record.extend(found, now_ns);
                record.recover(since, now_ns)
            }),
            Some(found) => {
                let at = Position { epoch: found.epoch, offset: found.last.unwrap_or(found.end) };
                self.with_shared_record(name, at, |record| {
                    record.extend(found, now_ns);
                    record.recover(since, now_ns)
                })
            }
            None if self.record_of(name).is_some() => {
                let at = Position { epoch: 0, offset: 0 };
                self.with_shared_record(name, at, |record| record.recover(since, now_ns))
            }
            None => None,
        };
        let mut recovered = recovered.unwrap_or_default();
        if !matches!(self.sharing.mode, Mode::Shared(_)) {
            // What is published meanwhile has no number, and what others publish does not come here.
            (recovered.position, recovered.is_complete) = (None, false);
        }
        self.count_recovery(since, recovered.is_complete);
        Recovered { members: self.member_count(name), ..recovered }
    }

    fn tell_seeker(&mut self, seeker: Seeker, recovered: Recovered) {
        match seeker {
            Seeker::Here(number) => self.read_recovered(number, recovered),
            Seeker::Core(core, number) if core != self.core && core < self.post.cores() => {
                self.post.send(core, Order::Recovered { number, recovered }.into());
            }
            Seeker::Core(..) => {}
            // Nobody may be waiting any more.
            Seeker::Outside(answer) => drop(answer.send(Ok(recovered))),
        }
    }

    /// The bridge does not want to listen to a room any more, in which nobody is: nothing is kept of it from here on.
    pub(super) fn read_release(&mut self, name: &Arc<str>) {
        self.end_history(name);
        if let Some(bridge) = self.post.bridge() {
            // Behind whatever this core has said of members: if there are some again, it goes on listening.
            self.post.send_urgent(bridge, Order::Released { room: Arc::clone(name) }.into());
        }
    }
}
