//! Letters between cores: bounded channels, and bells that ring only for cores that sleep.
//!
//! Owns the channels and the parked flags; knows no connection, and of a ring only its bell. A core writes letters during its tick with
//! [`Post::send`], which never blocks and never loses one: what a full channel does not take waits on the sender's side, in
//! order, and the sender is told ([`Post::is_congested`]) so that it stops taking in what it cannot pass on. Letters from
//! one core to another arrive in the order they were sent.
//!
//! Beside the bounded channel each core has one for urgent letters, which never wait: word of what others must know before
//! they send what they have. Few things are urgent, and what is must be bounded by something other than the channel:
//! rooms, connections. Where many of them have not been read, whoever writes them counts as congested. Urgent letters keep
//! their order among themselves and are read before the others.
//!
//! There may be one more address, with the number behind the last core's: the *bridge*, a thread that passes letters on to other
//! machines. It is written to and woken as a core is, but nobody waits for room in its mailbox: what it has no room for is
//! refused.
//!
//! Nobody sleeps through a letter, and none waits for a core that has ended: `mail/parked.rs` says why.
//!
//! Knows of this crate: `engine`, `marks`.

mod parked;
mod room;
mod sync;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crossbeam_channel::{Receiver, Sender, TrySendError};
pub(crate) use parked::Parked;

use crate::engine::bell::Bell;
use crate::marks::{Mark, reach};
use room::RoomWanted;

/// Wakes a core that sleeps in its ring, from any thread.
pub trait Wake: Send + Sync {
    /// Wakes it; harmless if it is awake.
    fn wake(&self);
}

impl Wake for Bell {
    fn wake(&self) {
        self.ring();
    }
}

/// The letter could not be delivered: the core has ended, or its mailbox is full.
///
/// ```
/// use ringwire::{HttpError, MailError, Request};
///
/// async fn count(request: Request) -> Result<String, HttpError> {
///     match request.hub().count().await {
///         Ok(count) => Ok(count.to_string()),
///         Err(MailError::Full) => Err(HttpError::unavailable("busy: try again")),
///         Err(other) => Err(other.into()), // 503, too
///     }
/// }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MailError {
    /// The core's mailbox is full.
    #[error("the core's mailbox is full")]
    Full,
    /// The core has ended.
    #[error("the core has ended")]
    Ended,
    /// The machine that has the connection does not answer: whether it was done there is not known.
    #[error("the node does not answer")]
    Unreachable,
}

struct Address<T> {
    sender: Sender<T>,
    /// The other end, to discard what a core that has ended will not read: a bounded channel keeps it as long as anybody
    /// can send.
    unread: Receiver<T>,
    urgent: Sender<T>,
    parked: Arc<Parked>,
    wanted: Arc<RoomWanted>,
    /// Letters that found the mailbox full and did not wait.
    refused: Arc<AtomicU64>,
}

impl<T> Clone for Address<T> {
    fn clone(&self) -> Self {
        Address {
            sender: self.sender.clone(),
            unread: self.unread.clone(),
            urgent: self.urgent.clone(),
            parked: Arc::clone(&self.parked),
            wanted: Arc::clone(&self.wanted),
            refused: Arc::clone(&self.refused),
        }
    }
}

impl<T> Address<T> {
    /// [`Address::written`] is to follow.
    fn put(&self, letter: T) -> Result<(), (MailError, T)> {
        if self.parked.has_ended() {
            return Err((MailError::Ended, letter));
        }
        self.sender.try_send(letter).map_err(|error| match error {
            TrySendError::Full(letter) => (MailError::Full, letter),
            TrySendError::Disconnected(letter) => (MailError::Ended, letter),
        })
    }

    fn offer(&self, letter: T) -> Result<(), (MailError, T)> {
        self.put(letter).inspect_err(|(error, _)| {
            if *error == MailError::Full {
                self.refused.fetch_add(1, Ordering::Relaxed);
            }
        })
    }

    /// Letters have been put in: true if the core slept and it is now on the caller to wake it.
    fn written(&self) -> bool {
        let slept = self.parked.take();
        if self.parked.has_ended() {
            discard(&self.unread);
        }
        slept
    }

    /// Urgent letters never wait, but who causes them can be made to.
    fn is_crowded(&self) -> bool {
        self.sender.capacity().is_some_and(|depth| self.urgent.len() > depth)
    }
}

/// Whoever waits for what becomes of a letter learns by its end that it was not read.
fn discard<T>(unread: &Receiver<T>) {
    while unread.try_recv().is_ok() {}
}

/// The receiving end of one core.
pub struct Mailbox<T> {
    receiver: Receiver<T>,
    urgent: Receiver<T>,
    parked: Arc<Parked>,
    wanted: Arc<RoomWanted>,
    /// Letters were taken out since the last [`Mailbox::tell_of_room`].
    was_read: bool,
}

impl<T> Mailbox<T> {
    /// The next letter.
    #[allow(clippy::should_implement_trait, reason = "an empty mailbox is not an ended one")]
    #[inline]
    pub fn next(&mut self) -> Option<T> {
        let letter = self.receiver.try_recv().ok();
        self.was_read |= letter.is_some();
        letter
    }

    /// The next urgent letter; to be asked before [`Mailbox::next`].
    #[inline]
    pub fn next_urgent(&mut self) -> Option<T> {
        let letter = self.urgent.try_recv().ok();
        self.was_read |= letter.is_some();
        letter
    }

    /// Tells the cores that wait for room that there is some; those that may sleep are handed to `wake`, which asks
    /// [`Post::wake`]. Once per tick, after the last letter.
    #[inline]
    pub fn tell_of_room(&mut self, wake: impl FnMut(usize)) {
        if std::mem::take(&mut self.was_read) {
            self.wanted.tell(wake);
        }
    }

    /// Letters waiting, without the urgent ones.
    pub fn len(&self) -> usize {
        self.receiver.len()
    }

    /// Urgent letters waiting.
    pub fn urgent_len(&self) -> usize {
        self.urgent.len()
    }

    /// Whether none is waiting, urgent or not.
    pub fn is_empty(&self) -> bool {
        self.receiver.is_empty() && self.urgent.is_empty()
    }

    /// Declares that the core is about to sleep; false if a letter has come, and it must not.
    #[inline]
    pub fn park(&mut self) -> bool {
        self.parked.park(|| self.receiver.is_empty() && self.urgent.is_empty())
    }

    /// The core is awake again.
    #[inline]
    pub fn unpark(&mut self) {
        self.parked.unpark();
    }
}

impl<T> Drop for Mailbox<T> {
    fn drop(&mut self) {
        self.parked.end();
        discard(&self.receiver);
    }
}

/// One core's way to the others.
pub struct Post<T> {
    core: usize,
    addresses: Vec<Address<T>>,
    bridge: Option<Address<T>>,
    /// What a full channel did not take, per core.
    waiting: Vec<VecDeque<T>>,
    waiting_count: usize,
    /// More urgent letters to a core than a mailbox holds of the others had not been read when it was last looked.
    crowded: bool,
    /// Cores that got a letter since the bells were last rung.
    written: Vec<usize>,
    /// Cores whose mailboxes were full, or crowded, when it was last tried: they will tell when there is room.
    asked: Vec<usize>,
}

impl<T> Post<T> {
    /// A post without cores.
    pub(crate) fn nowhere() -> Post<T> {
        Post {
            core: 0,
            addresses: Vec::new(),
            bridge: None,
            waiting: Vec::new(),
            waiting_count: 0,
            crowded: false,
            written: Vec::new(),
            asked: Vec::new(),
        }
    }

    /// The number of cores.
    pub fn cores(&self) -> usize {
        self.addresses.len()
    }

    /// This core's number.
    pub fn core(&self) -> usize {
        self.core
    }

    /// The number of the bridge, if there is one.
    #[inline]
    pub fn bridge(&self) -> Option<usize> {
        self.bridge.as_ref().map(|_| self.addresses.len())
    }

    fn address(&self, number: usize) -> Option<&Address<T>> {
        self.addresses.get(number).or(self.bridge.as_ref().filter(|_| number == self.addresses.len()))
    }

    /// Sends a letter to another core.
    ///
    /// # Panics
    /// If `core` is this core or none.
    pub fn send(&mut self, core: usize, letter: T) {
        self.note_written(core);
        if self.waiting[core].is_empty() {
            match self.addresses[core].put(letter) {
                Ok(()) | Err((MailError::Ended | MailError::Unreachable, _)) => {}
                Err((MailError::Full, letter)) => self.wait(core, letter),
            }
        } else {
            self.wait(core, letter);
        }
    }

    /// Sends an urgent letter to another core, or the bridge: it overtakes the others and never waits.
    ///
    /// # Panics
    /// If `core` is this core or none.
    pub fn send_urgent(&mut self, core: usize, letter: T) {
        self.note_written(core);
        let address = self.address(core).expect("an address");
        // A core that has ended does not need to know, nor does the bridge.
        let _ = address.urgent.send(letter);
        // The bridge waits for nobody, and is waited for by nobody.
        self.crowded |= core < self.addresses.len() && address.is_crowded();
    }

    /// Sends a letter to another core unless it would have to wait, be it for letters that wait already: those that nobody
    /// holds up for it, and which must not overtake the others all the same.
    ///
    /// # Errors
    /// If the mailbox is full, the core or the bridge has ended, or there is none of this number; the letter comes back.
    ///
    /// # Panics
    /// If `core` is this core.
    pub fn offer(&mut self, core: usize, letter: T) -> Result<(), (MailError, T)> {
        let Some(address) = self.address(core) else { return Err((MailError::Ended, letter)) };
        if self.waiting.get(core).is_some_and(|waiting| !waiting.is_empty()) {
            return Err((MailError::Full, letter));
        }
        address.offer(letter)?;
        self.note_written(core);
        Ok(())
    }

    fn note_written(&mut self, core: usize) {
        assert_ne!(core, self.core, "a core does not write to itself");
        if !self.written.contains(&core) {
            self.written.push(core);
        }
    }

    fn wait(&mut self, core: usize, letter: T) {
        reach(Mark::LetterWaits);
        self.waiting[core].push_back(letter);
        self.waiting_count += 1;
    }

    /// Whether some of the cores that had no room have told of some: there is something to [retry](Post::retry).
    pub fn is_told_of_room(&self) -> bool {
        self.asked.iter().any(|core| self.addresses[*core].wanted.is_told(self.core))
    }

    /// Wakes a core that waits for room in this one's mailbox, by `ring`, if it sleeps.
    pub fn wake(&self, core: usize, ring: impl FnOnce(usize)) {
        if self.addresses.get(core).is_some_and(|address| address.parked.take()) {
            ring(core);
        }
    }

    /// Whether letters wait for room in some core's mailbox, or many urgent ones to be read.
    #[inline]
    pub fn is_congested(&self) -> bool {
        self.waiting_count > 0 || self.crowded
    }

    /// Letters that wait for room in other cores' mailboxes.
    pub fn waiting(&self) -> usize {
        self.waiting_count
    }

    /// Letters waiting in this core's own mailbox, without the urgent ones.
    pub fn own_depth(&self) -> usize {
        self.addresses.get(self.core).map_or(0, |own| own.sender.len())
    }

    /// Letters that were not sent to this core because its mailbox was full.
    pub fn own_refused(&self) -> u64 {
        self.addresses.get(self.core).map_or(0, |own| own.refused.load(Ordering::Relaxed))
    }

    /// Tries again to deliver the letters that wait. Once per tick. Where there is still no room, that core will tell of some,
    /// and wake this one.
    pub fn retry(&mut self) {
        self.asked.clear();
        if self.crowded {
            self.crowded = false;
            for core in 0..self.addresses.len() {
                if self.is_crowded_still(core) {
                    self.crowded = true;
                    self.asked.push(core);
                }
            }
        }
        if self.waiting_count == 0 {
            return;
        }
        for core in 0..self.addresses.len() {
            if !self.deliver_waiting(core) {
                self.addresses[core].wanted.ask(self.core);
                // There may have been room before it was asked for.
                if !self.deliver_waiting(core) {
                    self.asked.push(core);
                }
            }
        }
    }

    fn is_crowded_still(&self, core: usize) -> bool {
        let address = &self.addresses[core];
        address.is_crowded() && {
            address.wanted.ask(self.core);
            address.is_crowded()
        }
    }

    /// Whether all letters to a core that wait were delivered.
    fn deliver_waiting(&mut self, core: usize) -> bool {
        while let Some(letter) = self.waiting[core].pop_front() {
            match self.addresses[core].put(letter) {
                Ok(()) | Err((MailError::Ended | MailError::Unreachable, _)) => {
                    self.waiting_count -= 1;
                    if !self.written.contains(&core) {
                        self.written.push(core);
                    }
                }
                Err((MailError::Full, letter)) => {
                    if !self.waiting[core].is_empty() {
                        reach(Mark::LetterKeepsItsPlace);
                    }
                    self.waiting[core].push_front(letter);
                    return false;
                }
            }
        }
        true
    }

    /// The cores to wake for the letters written since the last call; once per tick, after the last letter.
    pub fn bells(&mut self, mut ring: impl FnMut(usize)) {
        for &core in &self.written {
            if self.address(core).is_some_and(Address::written) {
                ring(core);
            }
        }
        self.written.clear();
    }
}

impl<T> Drop for Post<T> {
    fn drop(&mut self) {
        // A core that ends in the middle of a tick has letters underway to others that may have ended, too.
        for &core in &self.written {
            self.address(core).map(Address::written);
        }
    }
}

/// The way to all cores from any thread.
pub struct Courier<T> {
    doors: Arc<[Door<T>]>,
    bridge: Option<Arc<Door<T>>>,
    /// The same in all that come of one office.
    office: Arc<()>,
}

/// Where a core's letters go in, and how it is woken for them.
struct Door<T> {
    address: Address<T>,
    wake: Arc<dyn Wake>,
}

impl<T> Clone for Courier<T> {
    fn clone(&self) -> Self {
        Courier { doors: Arc::clone(&self.doors), bridge: self.bridge.clone(), office: Arc::clone(&self.office) }
    }
}

/// Wakes one core, if it sleeps, without a letter: for what is ready for it elsewhere.
#[derive(Clone)]
pub struct CoreWaker {
    parked: Arc<Parked>,
    wake: Arc<dyn Wake>,
    /// The core's number, and whose.
    place: Option<(Arc<()>, usize)>,
}

impl CoreWaker {
    /// Wakes whoever parks with this flag.
    pub(crate) fn new(parked: Arc<Parked>, wake: Arc<dyn Wake>) -> CoreWaker {
        CoreWaker { parked, wake, place: None }
    }

    /// The number of the core that it wakes, if that is one of those that the other one's belongs to.
    pub(crate) fn core_beside(&self, other: &CoreWaker) -> Option<usize> {
        let ((office, core), (of_other, _)) = (self.place.as_ref()?, other.place.as_ref()?);
        Arc::ptr_eq(office, of_other).then_some(*core)
    }

    /// To be called after what the core is to see can be seen.
    pub fn wake(&self) {
        if self.parked.take() {
            self.wake.wake();
        }
    }
}

impl<T> Courier<T> {
    fn door(&self, number: usize) -> Option<&Door<T>> {
        self.doors.get(number).or(self.bridge.as_deref().filter(|_| number == self.doors.len()))
    }

    /// The number of the bridge, if there is one.
    pub fn bridge(&self) -> Option<usize> {
        self.bridge.as_ref().map(|_| self.doors.len())
    }

    /// What wakes a core; `None` if there is no such core.
    pub fn waker(&self, core: usize) -> Option<CoreWaker> {
        let Door { address, wake } = self.doors.get(core)?;
        let place = Some((Arc::clone(&self.office), core));
        Some(CoreWaker { parked: Arc::clone(&address.parked), wake: Arc::clone(wake), place })
    }

    /// Whether this wakes a core that the courier goes to.
    pub fn has(&self, waker: &CoreWaker) -> bool {
        self.doors.iter().any(|door| Arc::ptr_eq(&door.address.parked, &waker.parked))
    }

    /// Sends a letter to a core and wakes it if it sleeps.
    ///
    /// # Errors
    /// If the mailbox is full, the core has ended, or there is no such core.
    pub fn send(&self, core: usize, letter: T) -> Result<(), MailError> {
        self.offer(core, letter).map_err(|(error, _)| error)
    }

    /// As [`Courier::send`].
    ///
    /// # Errors
    /// Likewise; the letter comes back.
    pub fn offer(&self, core: usize, letter: T) -> Result<(), (MailError, T)> {
        let Some(Door { address, wake }) = self.door(core) else { return Err((MailError::Ended, letter)) };
        address.offer(letter)?;
        if address.written() {
            wake.wake();
        }
        Ok(())
    }

    /// Sends an urgent letter to a core, which is never full, and wakes it if it sleeps.
    ///
    /// # Errors
    /// If the core has ended, or there is no such core.
    pub fn send_urgent(&self, core: usize, letter: T) -> Result<(), MailError> {
        let Door { address, wake } = self.door(core).ok_or(MailError::Ended)?;
        address.urgent.send(letter).map_err(|_| MailError::Ended)?;
        if address.written() {
            wake.wake();
        }
        Ok(())
    }

    /// Whether a core has ended: it reads nothing any more.
    pub fn has_ended(&self, core: usize) -> bool {
        self.doors.get(core).is_none_or(|door| door.address.parked.has_ended())
    }

    /// The number of cores.
    pub fn cores(&self) -> usize {
        self.doors.len()
    }
}

/// The channels of all cores, before they are handed out.
pub struct PostOffice<T> {
    addresses: Vec<Address<T>>,
    bridge: Option<Address<T>>,
    mailboxes: Vec<Option<Mailbox<T>>>,
}

impl<T> PostOffice<T> {
    /// Channels for `cores` cores, each of which holds up to `depth` letters.
    pub fn new(cores: usize, depth: usize) -> PostOffice<T> {
        let (addresses, mailboxes) = (0..cores)
            .map(|_| {
                let (address, mailbox) = ends(cores, depth);
                (address, Some(mailbox))
            })
            .unzip();
        PostOffice { addresses, bridge: None, mailboxes }
    }

    /// Adds the bridge's, which holds up to `depth` letters; to be called before the cores' ends are taken.
    pub fn add_bridge(&mut self, depth: usize) -> Mailbox<T> {
        let (address, mailbox) = ends(self.addresses.len(), depth);
        self.bridge = Some(address);
        mailbox
    }

    /// The two ends of one core.
    ///
    /// # Panics
    /// If they were taken before.
    pub fn take(&mut self, core: usize) -> (Post<T>, Mailbox<T>) {
        let mailbox = self.mailboxes[core].take().expect("each core's ends are taken once");
        let waiting = self.addresses.iter().map(|_| VecDeque::new()).collect();
        let (addresses, bridge) = (self.addresses.clone(), self.bridge.clone());
        let (written, asked) = (Vec::new(), Vec::new());
        let post = Post { core, addresses, bridge, waiting, waiting_count: 0, crowded: false, written, asked };
        (post, mailbox)
    }

    /// The way in for threads that are no core; `wakes` has one entry per core, and one for the bridge if there is one.
    pub fn courier(&self, wakes: Vec<Arc<dyn Wake>>) -> Courier<T> {
        let bridge = self.bridge.iter();
        assert_eq!(wakes.len(), self.addresses.len() + bridge.len());
        let all = self.addresses.iter().chain(bridge).cloned();
        let mut doors: Vec<Door<T>> = all.zip(wakes).map(|(address, wake)| Door { address, wake }).collect();
        let bridge = doors.drain(self.addresses.len()..).next().map(Arc::new);
        Courier { doors: doors.into(), bridge, office: Arc::default() }
    }
}

/// A new address for whoever these cores write to, and its mailbox.
fn ends<T>(cores: usize, depth: usize) -> (Address<T>, Mailbox<T>) {
    let (sender, receiver) = crossbeam_channel::bounded(depth);
    let (urgent_sender, urgent) = crossbeam_channel::unbounded();
    let parked = Arc::new(Parked::default());
    let wanted = Arc::new(RoomWanted::new(cores));
    let unread = receiver.clone();
    let address = Address {
        sender,
        unread,
        urgent: urgent_sender,
        parked: Arc::clone(&parked),
        wanted: Arc::clone(&wanted),
        refused: Arc::default(),
    };
    (address, Mailbox { receiver, urgent, parked, wanted, was_read: false })
}
