//! What a user's handle and the client thread share of one connection.
//!
//! Users encode and mask their frames themselves, into the queue that the thread empties; the thread puts messages into
//! the inbox. Each side wakes the other: the thread by wakers, users by a letter to the thread, of which at most one per
//! connection is under way (`noticed`).
//!
//! Bounds: a frame is queued only while `out_bytes` is below its limit, so at most one frame is beyond it, and control
//! frames; input is held back while `inbox_bytes` is at its limit, so at most one message is beyond it.
//!
//! The lock is held for a few instructions at a time, and no waker is called under it.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use http::HeaderMap;

use super::driver::{Driver, Letter};
use super::error::ClientError;
use super::keys;
use super::out::{JOIN_BYTES_MAX, Out, SEND_BYTES_MAX};
use crate::closed::Closed;
use crate::message::{IntoMessage, OwnedMessage};
use crate::proto::close;
use crate::proto::frame::{Opcode, put_masked_frame};

/// What a message in the inbox counts beyond its payload.
const MESSAGE_OVERHEAD_BYTES: usize = 64;
/// Control frames are dropped once so many bytes wait beyond the limit: RFC 6455 5.5.3 asks to answer the latest ping only.
const CONTROL_SLACK_BYTES: usize = 64 << 10;
/// A send that succeeds wakes nobody, so up to so many bytes that have been sent may be counted as waiting while the thread
/// sleeps. Beyond that it does not sleep before it has counted them off.
const COUNTED_LATE_BYTES_MAX: usize = 64 << 10;

/// What the server said to the handshake.
#[derive(Debug, Default)]
pub(super) struct Opened {
    pub(super) protocol: Option<String>,
    pub(super) headers: HeaderMap,
}

/// How a connection ended.
#[derive(Debug)]
pub(super) struct Ended {
    pub(super) code: u16,
    pub(super) reason: String,
    pub(super) clean: bool,
    /// What `recv` tells once; `None` if the end was in order.
    pub(super) error: Option<ClientError>,
}

impl Ended {
    /// RFC 6455 7.1.5: without a Close frame the code is 1006.
    pub(super) fn abnormal(error: ClientError) -> Ended {
        Ended { code: 1006, reason: error.to_string(), clean: false, error: Some(error) }
    }
}

/// What users want of the thread, beside having their frames sent.
#[derive(Debug, Default)]
pub(super) struct Wants {
    /// Begin the closing handshake.
    pub(super) close: Option<(u16, String)>,
    /// The handle was dropped.
    pub(super) gone: bool,
    /// Input need not be held back any more.
    pub(super) resume: bool,
}

#[derive(Default)]
struct State {
    opened: Option<Opened>,
    inbox: VecDeque<OwnedMessage>,
    inbox_bytes: usize,
    held: bool,
    is_over: bool,
    closed: Option<Closed>,
    error: Option<ClientError>,
    /// Who connects, or receives.
    receiver: Option<Waker>,
    /// Who waits for room, a pong or the end.
    waiting: Vec<Waker>,
    out: Out,
    /// Queued and not sent, what the thread has taken included.
    out_bytes: usize,
    /// No more messages are taken.
    sealed: bool,
    /// The Close frame is queued: nothing may follow it (RFC 6455 5.5.1).
    shut: bool,
    pings_sent: u64,
    pongs_seen: u64,
    wants: Wants,
    noticed: bool,
}

/// See the module.
pub(super) struct Line {
    state: Mutex<State>,
    driver: Arc<Driver>,
    /// Slot and generation, set by the thread.
    place: OnceLock<(u32, u32)>,
    out_bytes_max: usize,
    inbox_bytes_max: usize,
}

/// What [`Line::try_queue`] did with a message.
pub(super) enum Queued {
    Yes,
    /// There was no room: the frame, for [`Line::poll_queue`].
    Later(Vec<u8>),
}

/// What [`Line::take_out`] found.
#[derive(Clone, Copy)]
pub(super) struct Taken {
    /// More is left in the queue.
    pub(super) more: bool,
    /// Somebody waits until it is sent.
    pub(super) watched: bool,
}

fn frame(opcode: Opcode, payload: &[u8]) -> Result<Vec<u8>, ClientError> {
    let mut frame = Vec::new();
    put(&mut frame, opcode, payload)?;
    Ok(frame)
}

fn put(out: &mut Vec<u8>, opcode: Opcode, payload: &[u8]) -> Result<(), ClientError> {
    let key = keys::random().map_err(no_random)?;
    put_masked_frame(out, opcode, payload, key);
    Ok(())
}

pub(super) fn no_random(error: getrandom::Error) -> ClientError {
    ClientError::Unavailable(format!("the system has no random bytes: {error}"))
}

fn register(wakers: &mut Vec<Waker>, cx: &Context<'_>) {
    if !wakers.iter().any(|waker| waker.will_wake(cx.waker())) {
        wakers.push(cx.waker().clone());
    }
}

impl Line {
    pub(super) fn new(driver: Arc<Driver>, out_bytes_max: usize, inbox_bytes_max: usize) -> Arc<Line> {
        let place = OnceLock::new();
        Arc::new(Line { state: Mutex::default(), driver, place, out_bytes_max, inbox_bytes_max })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn driver(&self) -> &Arc<Driver> {
        &self.driver
    }

    /// Lets the thread look at this connection.
    fn notify(self: &Arc<Line>, mut state: MutexGuard<'_, State>) {
        let first = !std::mem::replace(&mut state.noticed, true);
        drop(state);
        if first {
            self.driver.post(Letter::Look(Arc::clone(self)));
        }
    }

    // ---- the user's side ------------------------------------------------------------------------------------------

    pub(super) fn poll_open(&self, cx: &Context<'_>) -> Poll<Result<Opened, ClientError>> {
        let mut state = self.lock();
        if let Some(opened) = state.opened.take() {
            return Poll::Ready(Ok(opened));
        }
        if state.is_over {
            let error = state.error.take().unwrap_or(ClientError::Closing);
            return Poll::Ready(Err(error));
        }
        self.wait(state, cx);
        Poll::Pending
    }

    pub(super) fn poll_recv(self: &Arc<Line>, cx: &Context<'_>) -> Poll<Option<Result<OwnedMessage, ClientError>>> {
        let mut state = self.lock();
        if let Some(message) = state.inbox.pop_front() {
            state.inbox_bytes -= message.as_bytes().len() + MESSAGE_OVERHEAD_BYTES;
            if state.held && state.inbox_bytes <= self.inbox_bytes_max / 2 {
                state.held = false;
                state.wants.resume = true;
                self.notify(state);
            }
            return Poll::Ready(Some(Ok(message)));
        }
        if state.is_over {
            return Poll::Ready(state.error.take().map(Err));
        }
        self.wait(state, cx);
        Poll::Pending
    }

    fn wait(&self, mut state: MutexGuard<'_, State>, cx: &Context<'_>) {
        if !state.receiver.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            // Dropping a waker may drop a whole task, and with it this line's handle: not under the lock.
            let former = state.receiver.replace(cx.waker().clone());
            drop(state);
            drop(former);
        }
    }

    fn may_send(state: &State) -> Result<(), ClientError> {
        match &state.closed {
            Some(closed) => Err(ClientError::Closed(closed.clone())),
            None if state.sealed => Err(ClientError::Closing),
            None => Ok(()),
        }
    }

    fn has_room(&self, state: &State, len: usize) -> bool {
        state.out_bytes == 0 || state.out_bytes + len <= self.out_bytes_max
    }

    /// Queues a message if there is room.
    pub(super) fn try_queue(self: &Arc<Line>, message: impl IntoMessage) -> Result<Queued, ClientError> {
        message.with_message(|message| {
            let opcode = if message.is_text() { Opcode::Text } else { Opcode::Binary };
            let payload = message.as_bytes();
            if payload.len() > SEND_BYTES_MAX - 16 {
                return Err(ClientError::TooBig(payload.len()));
            }
            // A large one is masked before the lock is taken.
            let large = if payload.len() > JOIN_BYTES_MAX { Some(frame(opcode, payload)?) } else { None };
            let mut state = self.lock();
            Self::may_send(&state)?;
            if !self.has_room(&state, payload.len()) {
                // There may be: see `COUNTED_LATE_BYTES_MAX`.
                self.notify(state);
                return Ok(Queued::Later(large.map_or_else(|| frame(opcode, payload), Ok)?));
            }
            match large {
                Some(frame) => {
                    state.out_bytes += frame.len();
                    state.out.push(frame);
                }
                None => self.put(&mut state, opcode, payload)?,
            }
            self.notify(state);
            Ok(Queued::Yes)
        })?
    }

    fn put(&self, state: &mut State, opcode: Opcode, payload: &[u8]) -> Result<(), ClientError> {
        let tail = state.out.tail();
        let before = tail.len();
        put(tail, opcode, payload)?;
        state.out_bytes += tail.len() - before;
        Ok(())
    }

    /// Queues an encoded frame once there is room.
    pub(super) fn poll_queue(self: &Arc<Line>, frame: &mut Vec<u8>, cx: &Context<'_>) -> Poll<Result<(), ClientError>> {
        let mut state = self.lock();
        if let Err(error) = Self::may_send(&state) {
            return Poll::Ready(Err(error));
        }
        if self.has_room(&state, frame.len()) {
            let frame = std::mem::take(frame);
            state.out_bytes += frame.len();
            state.out.push(frame);
            self.notify(state);
            return Poll::Ready(Ok(()));
        }
        register(&mut state.waiting, cx);
        // There may be room: see `COUNTED_LATE_BYTES_MAX`.
        self.notify(state);
        Poll::Pending
    }

    /// Queues a ping; its number, for [`Line::poll_pong`].
    pub(super) fn ping(self: &Arc<Line>) -> Result<u64, ClientError> {
        let mut state = self.lock();
        Self::may_send(&state)?;
        let number = self.put_ping(&mut state)?;
        self.notify(state);
        Ok(number)
    }

    fn put_ping(&self, state: &mut State) -> Result<u64, ClientError> {
        state.pings_sent += 1;
        let number = state.pings_sent;
        self.put(state, Opcode::Ping, &number.to_be_bytes())?;
        Ok(number)
    }

    pub(super) fn poll_pong(&self, number: u64, cx: &Context<'_>) -> Poll<Result<(), ClientError>> {
        let mut state = self.lock();
        if state.pongs_seen >= number {
            return Poll::Ready(Ok(()));
        }
        if state.is_over {
            return Poll::Ready(Self::may_send(&state));
        }
        register(&mut state.waiting, cx);
        Poll::Pending
    }

    /// Begins the closing handshake behind what is queued; the first close counts.
    pub(super) fn close(self: &Arc<Line>, code: u16, reason: &str) -> Result<(), ClientError> {
        if !close::is_legal(code) {
            return Err(ClientError::IllegalCloseCode(code));
        }
        let mut state = self.lock();
        if !state.sealed {
            state.sealed = true;
            state.wants.close = Some((code, reason.to_owned()));
            self.notify(state);
        }
        Ok(())
    }

    pub(super) fn poll_closed(&self, cx: &Context<'_>) -> Poll<Option<Closed>> {
        let mut state = self.lock();
        if state.is_over {
            return Poll::Ready(state.closed.clone());
        }
        register(&mut state.waiting, cx);
        Poll::Pending
    }

    pub(super) fn closed(&self) -> Option<Closed> {
        self.lock().closed.clone()
    }

    pub(super) fn is_open(&self) -> bool {
        !self.lock().sealed
    }

    /// The user's handle is gone: nobody will receive any more.
    pub(super) fn abandon(self: &Arc<Line>) {
        let mut state = self.lock();
        state.sealed = true;
        let inbox = std::mem::take(&mut state.inbox);
        state.inbox_bytes = 0;
        state.held = false;
        if !state.is_over {
            state.wants.gone = true;
            self.notify(state);
        }
        drop(inbox);
    }

    // ---- the thread's side ----------------------------------------------------------------------------------------

    pub(super) fn place(&self) -> Option<(u32, u32)> {
        self.place.get().copied()
    }

    pub(super) fn set_place(&self, slot: u32, generation: u32) {
        let _ = self.place.set((slot, generation));
    }

    /// What the letter was for.
    pub(super) fn take_wants(&self) -> Wants {
        let mut state = self.lock();
        state.noticed = false;
        std::mem::take(&mut state.wants)
    }

    /// Queues the handshake's request.
    pub(super) fn push_request(&self, request: Vec<u8>) {
        let mut state = self.lock();
        state.out_bytes += request.len();
        state.out.push(request);
    }

    pub(super) fn open(&self, opened: Opened, wakers: &mut Vec<Waker>) {
        let mut state = self.lock();
        state.opened = Some(opened);
        wakers.extend(state.receiver.take());
    }

    /// Bytes of input that the inbox can take before it is full.
    pub(super) fn inbox_room(&self) -> usize {
        self.inbox_bytes_max.saturating_sub(self.lock().inbox_bytes)
    }

    /// What a message takes of [`Line::inbox_room`].
    pub(super) fn cost(message: &OwnedMessage) -> usize {
        message.as_bytes().len() + MESSAGE_OVERHEAD_BYTES
    }

    /// Puts messages into the inbox. With `hold`, the rest is to be held back: false if the user has received so much
    /// meanwhile that it need not be.
    pub(super) fn deliver(&self, messages: &mut Vec<OwnedMessage>, hold: bool, wakers: &mut Vec<Waker>) -> bool {
        let mut state = self.lock();
        state.inbox_bytes += messages.iter().map(Self::cost).sum::<usize>();
        state.inbox.extend(messages.drain(..));
        wakers.extend(state.receiver.take());
        state.held = hold && state.inbox_bytes > self.inbox_bytes_max / 2;
        state.held
    }

    /// Queues a pong or a Close frame.
    pub(super) fn control(&self, opcode: Opcode, payload: &[u8]) {
        let mut state = self.lock();
        let is_close = opcode == Opcode::Close;
        if state.shut || !is_close && state.out_bytes > self.out_bytes_max + CONTROL_SLACK_BYTES {
            return;
        }
        state.sealed |= is_close;
        state.shut |= is_close;
        self.put(&mut state, opcode, payload).expect("the handshake took random bytes from the same source");
    }

    /// Queues a ping, to see whether the server is there.
    pub(super) fn probe(&self) {
        let mut state = self.lock();
        if !state.shut && state.out_bytes <= self.out_bytes_max {
            self.put_ping(&mut state).expect("the handshake took random bytes from the same source");
        }
    }

    /// A pong came: RFC 6455 5.5.3, it may stand for the pings before it too.
    pub(super) fn pong(&self, payload: &[u8], wakers: &mut Vec<Waker>) {
        let Ok(number) = payload.try_into().map(u64::from_be_bytes) else { return };
        let mut state = self.lock();
        if number <= state.pings_sent && number > state.pongs_seen {
            state.pongs_seen = number;
            wakers.append(&mut state.waiting);
        }
    }

    /// Moves what one send can carry into `out`.
    pub(super) fn take_out(&self, out: &mut Out) -> Taken {
        let mut state = self.lock();
        let more = out.take_from(&mut state.out);
        let counted_late_max = COUNTED_LATE_BYTES_MAX.min(self.out_bytes_max / 2);
        Taken { more, watched: !state.waiting.is_empty() || state.out_bytes > counted_late_max }
    }

    /// So many bytes have been sent.
    pub(super) fn sent(&self, bytes: usize, wakers: &mut Vec<Waker>) {
        let mut state = self.lock();
        debug_assert!(bytes <= state.out_bytes);
        state.out_bytes -= bytes;
        if state.out_bytes <= self.out_bytes_max / 2 {
            wakers.append(&mut state.waiting);
        }
    }

    /// Whether everything queued has been sent.
    pub(super) fn is_flushed(&self) -> bool {
        self.lock().out_bytes == 0
    }

    /// The end; the first one counts. `open_for` is `None` if it was never open.
    pub(super) fn end(&self, ended: Ended, open_for: Option<Duration>, wakers: &mut Vec<Waker>) {
        let mut state = self.lock();
        if state.is_over {
            return;
        }
        state.is_over = true;
        state.sealed = true;
        state.shut = true;
        let Ended { code, reason, clean, error } = ended;
        state.closed = open_for.map(|duration| Closed { code, reason, clean, duration });
        state.error = error;
        state.out = Out::default();
        wakers.extend(state.receiver.take());
        wakers.append(&mut state.waiting);
    }
}

/// The thread's hold on a line. Whatever becomes of the thread, users learn of the end.
pub(super) struct LineEnd(pub(super) Arc<Line>);

impl std::ops::Deref for LineEnd {
    type Target = Line;

    fn deref(&self) -> &Line {
        &self.0
    }
}

impl Drop for LineEnd {
    fn drop(&mut self) {
        let mut wakers = Vec::new();
        let error = ClientError::Unavailable("the client thread has ended".into());
        self.0.end(Ended::abnormal(error), None, &mut wakers);
        wakers.into_iter().for_each(Waker::wake);
    }
}
