//! What a user's handle and the client thread share of one connection.
//!
//! Users encode and mask their frames themselves, into the queue that the thread empties; the thread puts messages into
//! the inbox. Each side wakes the other: the thread by wakers, users by a letter to the thread, of which at most one per
//! connection is under way (`noticed`). A line sends none itself, since it knows no thread: a call that makes one due says
//! so ([`Noticed`]).
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

use super::deflate::Compressing;
use super::error::ClientError;
use super::keys::{self, no_random};
use super::out::{JOIN_BYTES_MAX, Out, SEND_BYTES_MAX};
use crate::closed::Closed;
use crate::engine::Key;
use crate::guard;
use crate::message::{IntoMessage, OwnedMessage};
use crate::proto::close;
use crate::proto::frame::{Opcode, put_masked_frame};
use crate::tls::TlsInfo;
use crate::wakers::Wakers;

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
    pub(super) tls: Option<Arc<TlsInfo>>,
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
    waiting: Wakers,
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
    /// How messages are compressed, if they are. Locked before the state, and by users alone once the connection is open: who
    /// compresses with a context has the turn until the message is queued.
    deflate: Mutex<Option<Compressing>>,
    /// Set by the thread.
    key: OnceLock<Key>,
    out_bytes_max: usize,
    inbox_bytes_max: usize,
}

/// What a call gave, and whether a letter must tell the thread to look at the line.
pub(super) type Noticed<T> = (T, bool);

/// Somebody who may wait for room, a pong or the end; takes itself off the list when it is dropped.
pub(super) struct Waiter<'l> {
    line: &'l Line,
    number: Option<u64>,
}

impl Waiter<'_> {
    fn wait(&mut self, mut state: MutexGuard<'_, State>, cx: &Context<'_>) {
        let number = *self.number.get_or_insert_with(|| state.waiting.number());
        let former = state.waiting.set(number, cx.waker());
        drop(state);
        drop(former);
    }
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        if let Some(number) = self.number {
            let waker = self.line.lock().waiting.remove(number);
            drop(waker);
        }
    }
}

/// What [`Line::try_queue`] did with a message.
pub(super) enum Queued {
    Yes,
    /// There was no room: what is for [`Line::poll_queue`].
    Later(Later),
}

/// What waits for room.
pub(super) enum Later {
    Frame(Vec<u8>),
    /// It is compressed when its turn has come, since it may refer to what is queued before it.
    Message(Opcode, Vec<u8>),
}

/// What [`Line::try_queue_compressed`] did with a message.
enum Compressed {
    /// It is queued; whether a letter must tell the thread.
    Queued(bool),
    /// There was no room.
    Full,
    /// It is to go as it is.
    No,
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

impl Line {
    pub(super) fn new(out_bytes_max: usize, inbox_bytes_max: usize) -> Arc<Line> {
        Arc::new(Line {
            state: Mutex::default(),
            deflate: Mutex::default(),
            key: OnceLock::new(),
            out_bytes_max,
            inbox_bytes_max,
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a letter is due for the thread to look at this connection: none is under way.
    fn notify(state: &mut State) -> bool {
        !std::mem::replace(&mut state.noticed, true)
    }

    /// One more who may come to wait for room, a pong or the end.
    pub(super) fn waiter(&self) -> Waiter<'_> {
        Waiter { line: self, number: None }
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

    pub(super) fn poll_recv(&self, cx: &Context<'_>) -> Noticed<Poll<Option<Result<OwnedMessage, ClientError>>>> {
        let mut state = self.lock();
        if let Some(message) = state.inbox.pop_front() {
            state.inbox_bytes -= message.as_bytes().len() + MESSAGE_OVERHEAD_BYTES;
            let mut is_due = false;
            if state.held && state.inbox_bytes <= self.inbox_bytes_max / 2 {
                state.held = false;
                state.wants.resume = true;
                is_due = Self::notify(&mut state);
            }
            return (Poll::Ready(Some(Ok(message))), is_due);
        }
        if state.is_over {
            return (Poll::Ready(state.error.take().map(Err)), false);
        }
        self.wait(state, cx);
        (Poll::Pending, false)
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
    pub(super) fn try_queue(&self, message: impl IntoMessage) -> Result<Noticed<Queued>, ClientError> {
        message.with_message(|message| {
            let opcode = if message.is_text() { Opcode::Text } else { Opcode::Binary };
            let payload = message.as_bytes();
            if payload.len() > SEND_BYTES_MAX - 16 {
                return Err(ClientError::TooBig(payload.len()));
            }
            if !message.0.uncompressed {
                match self.try_queue_compressed(opcode, payload)? {
                    Compressed::Queued(is_due) => return Ok((Queued::Yes, is_due)),
                    Compressed::Full => {
                        let later = Queued::Later(Later::Message(opcode, payload.to_vec()));
                        return Ok((later, Self::notify(&mut self.lock())));
                    }
                    Compressed::No => {}
                }
            }
            // A large one is masked before the lock is taken.
            let large = if payload.len() > JOIN_BYTES_MAX { Some(frame(opcode, payload)?) } else { None };
            let mut state = self.lock();
            Self::may_send(&state)?;
            if !self.has_room(&state, payload.len()) {
                drop(state);
                let later = Queued::Later(Later::Frame(large.map_or_else(|| frame(opcode, payload), Ok)?));
                // There may be: see `COUNTED_LATE_BYTES_MAX`.
                return Ok((later, Self::notify(&mut self.lock())));
            }
            match large {
                Some(frame) => {
                    state.out_bytes += frame.len();
                    state.out.push(frame);
                }
                None => self.put(&mut state, opcode, payload)?,
            }
            Ok((Queued::Yes, Self::notify(&mut state)))
        })?
    }

    /// Queues a message if there is room and it is to be compressed.
    fn try_queue_compressed(&self, opcode: Opcode, payload: &[u8]) -> Result<Compressed, ClientError> {
        let mut deflate = self.deflate.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(compressing) = deflate.as_mut().filter(|compressing| compressing.takes(payload.len())) else {
            return Ok(Compressed::No);
        };
        let has_room = {
            let state = self.lock();
            Self::may_send(&state)?;
            self.has_room(&state, payload.len())
        };
        if !has_room {
            return Ok(Compressed::Full);
        }
        let Some(frame) = compressing.frame(opcode, payload)? else { return Ok(Compressed::No) };
        let mut state = self.lock();
        Self::may_send(&state)?;
        state.out_bytes += frame.len();
        state.out.push(frame);
        Ok(Compressed::Queued(Self::notify(&mut state)))
    }

    fn put(&self, state: &mut State, opcode: Opcode, payload: &[u8]) -> Result<(), ClientError> {
        let tail = state.out.tail();
        let before = tail.len();
        put(tail, opcode, payload)?;
        state.out_bytes += tail.len() - before;
        Ok(())
    }

    /// Queues what has waited once there is room.
    pub(super) fn poll_queue(
        &self,
        later: &mut Later,
        waiter: &mut Waiter<'_>,
        cx: &Context<'_>,
    ) -> Noticed<Poll<Result<(), ClientError>>> {
        loop {
            let mut state = self.lock();
            if let Err(error) = Self::may_send(&state) {
                return (Poll::Ready(Err(error)), false);
            }
            let (Later::Frame(bytes) | Later::Message(_, bytes)) = &*later;
            if !self.has_room(&state, bytes.len()) {
                // There may be: see `COUNTED_LATE_BYTES_MAX`.
                let is_due = Self::notify(&mut state);
                waiter.wait(state, cx);
                return (Poll::Pending, is_due);
            }
            match later {
                Later::Frame(frame) => {
                    let frame = std::mem::take(frame);
                    state.out_bytes += frame.len();
                    state.out.push(frame);
                    return (Poll::Ready(Ok(())), Self::notify(&mut state));
                }
                Later::Message(opcode, payload) => {
                    // Locked before the state.
                    drop(state);
                    match self.try_queue_compressed(*opcode, payload) {
                        Ok(Compressed::Queued(is_due)) => return (Poll::Ready(Ok(())), is_due),
                        // Somebody else was faster.
                        Ok(Compressed::Full) => {}
                        Ok(Compressed::No) => match frame(*opcode, payload) {
                            Ok(frame) => *later = Later::Frame(frame),
                            Err(error) => return (Poll::Ready(Err(error)), false),
                        },
                        Err(error) => return (Poll::Ready(Err(error)), false),
                    }
                }
            }
        }
    }

    /// Queues a ping; its number, for [`Line::poll_pong`].
    pub(super) fn ping(&self) -> Result<Noticed<u64>, ClientError> {
        let mut state = self.lock();
        Self::may_send(&state)?;
        let number = self.put_ping(&mut state)?;
        Ok((number, Self::notify(&mut state)))
    }

    fn put_ping(&self, state: &mut State) -> Result<u64, ClientError> {
        state.pings_sent += 1;
        let number = state.pings_sent;
        self.put(state, Opcode::Ping, &number.to_be_bytes())?;
        Ok(number)
    }

    pub(super) fn poll_pong(
        &self,
        number: u64,
        waiter: &mut Waiter<'_>,
        cx: &Context<'_>,
    ) -> Poll<Result<(), ClientError>> {
        let state = self.lock();
        if state.pongs_seen >= number {
            return Poll::Ready(Ok(()));
        }
        if state.is_over {
            return Poll::Ready(Self::may_send(&state));
        }
        waiter.wait(state, cx);
        Poll::Pending
    }

    /// Begins the closing handshake behind what is queued; the first close counts.
    pub(super) fn close(&self, code: u16, reason: &str) -> Result<Noticed<()>, ClientError> {
        if !close::is_legal(code) {
            return Err(ClientError::IllegalCloseCode(code));
        }
        let mut state = self.lock();
        if !state.sealed {
            state.sealed = true;
            state.wants.close = Some((code, reason.to_owned()));
            return Ok(((), Self::notify(&mut state)));
        }
        Ok(((), false))
    }

    pub(super) fn poll_closed(&self, waiter: &mut Waiter<'_>, cx: &Context<'_>) -> Poll<Option<Closed>> {
        let state = self.lock();
        if state.is_over {
            return Poll::Ready(state.closed.clone());
        }
        waiter.wait(state, cx);
        Poll::Pending
    }

    pub(super) fn closed(&self) -> Option<Closed> {
        self.lock().closed.clone()
    }

    pub(super) fn is_open(&self) -> bool {
        !self.lock().sealed
    }

    /// The user's handle is gone: nobody will receive any more.
    pub(super) fn abandon(&self) -> Noticed<()> {
        let mut state = self.lock();
        state.sealed = true;
        let inbox = std::mem::take(&mut state.inbox);
        state.inbox_bytes = 0;
        state.held = false;
        let mut is_due = false;
        if !state.is_over {
            state.wants.gone = true;
            is_due = Self::notify(&mut state);
        }
        drop(state);
        drop(inbox);
        ((), is_due)
    }

    // ---- the thread's side ----------------------------------------------------------------------------------------

    pub(super) fn key(&self) -> Option<Key> {
        self.key.get().copied()
    }

    pub(super) fn set_key(&self, key: Key) {
        let _ = self.key.set(key);
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

    pub(super) fn open(&self, opened: Opened, deflate: Option<Compressing>, wakers: &mut Vec<Waker>) {
        *self.deflate.lock().unwrap_or_else(PoisonError::into_inner) = deflate;
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
            wakers.extend(state.waiting.take());
        }
    }

    /// Moves what one send can carry into `out`, and so many bytes at most.
    pub(super) fn take_out(&self, out: &mut Out, bytes_max: usize) -> Taken {
        let mut state = self.lock();
        let more = out.take_from(&mut state.out, bytes_max);
        let counted_late_max = COUNTED_LATE_BYTES_MAX.min(self.out_bytes_max / 2);
        Taken { more, watched: !state.waiting.is_empty() || state.out_bytes > counted_late_max }
    }

    /// So many bytes have been sent.
    pub(super) fn sent(&self, bytes: usize, wakers: &mut Vec<Waker>) {
        let mut state = self.lock();
        debug_assert!(bytes <= state.out_bytes);
        state.out_bytes -= bytes;
        if state.out_bytes <= self.out_bytes_max / 2 {
            wakers.extend(state.waiting.take());
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
        wakers.extend(state.waiting.take());
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
        wakers.into_iter().for_each(guard::wake);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::extensions::Agreed;
    use crate::proto::{Event, Limits, Machine, Role, Spares};

    /// Kills: wakers of futures that were dropped, which stay until somebody is woken.
    #[test]
    fn who_gives_up_is_forgotten() {
        let line = Line::new(100, 100);
        let cx = Context::from_waker(Waker::noop());
        assert!(matches!(line.try_queue(&[0_u8; 200][..]), Ok((Queued::Yes, true))));
        for _ in 0..100 {
            let (mut room, mut pong, mut end) = (line.waiter(), line.waiter(), line.waiter());
            assert!(line.poll_queue(&mut Later::Frame(vec![0; 50]), &mut room, &cx).0.is_pending());
            assert!(line.poll_pong(1, &mut pong, &cx).is_pending());
            assert!(line.poll_closed(&mut end, &cx).is_pending());
            assert!(!line.lock().waiting.is_empty());
        }
        assert!(line.lock().waiting.is_empty());
    }

    /// What the thread has sent, read as a server does, and how many of the messages were compressed.
    fn read(bytes: &mut [u8], agreed: Agreed) -> (Vec<String>, u64) {
        let limits = Limits { message_bytes_max: 1 << 20, fragments_max: 1 };
        let (mut machine, mut spares) = (Machine::new(Role::Server), Spares::new(1 << 20));
        machine.agree(agreed);
        let (mut consumed, mut texts) = (0, Vec::new());
        let mut reply = |_: Opcode, _: &[u8]| {};
        while let Some(event) = machine.next(bytes, &mut consumed, &limits, &mut spares, &mut reply) {
            let Event::Message(message) = event else { panic!("{event:?}") };
            texts.push(String::from_utf8(message.payload.to_vec()).unwrap());
        }
        (texts, spares.inflated().messages)
    }

    /// Kills: what has to wait for room and goes as it is for that, or in another place of the context than of the queue;
    /// a mark that is not looked at.
    #[test]
    fn what_waits_for_room_is_compressed_in_its_turn() {
        let agreed =
            Agreed { server_context: true, client_context: true, server_window_bits: 15, client_window_bits: 15 };
        let line = Line::new(900, 900);
        *line.deflate.lock().unwrap() = Some(Compressing::new(agreed, 1));
        let texts: Vec<String> = (0..5).map(|number| format!("{number} {}", "now and again ".repeat(69))).collect();
        let cx = Context::from_waker(Waker::noop());
        let mut sent = Vec::new();
        let mut send_all = || {
            let (mut out, mut wakers) = (Out::default(), Vec::new());
            line.take_out(&mut out, usize::MAX);
            out.pieces().for_each(|piece| sent.extend_from_slice(piece));
            line.sent(out.clear(), &mut wakers);
        };
        assert!(matches!(line.try_queue(texts[0].as_str()), Ok((Queued::Yes, _))));
        for (number, text) in texts.iter().enumerate().skip(1) {
            let queued = match number {
                3 => line.try_queue(text.as_str().uncompressed()),
                _ => line.try_queue(text.as_str()),
            };
            let Ok((Queued::Later(mut later), _)) = queued else { panic!("there was room for {number}") };
            let mut waiter = line.waiter();
            assert!(line.poll_queue(&mut later, &mut waiter, &cx).0.is_pending());
            send_all();
            assert!(matches!(line.poll_queue(&mut later, &mut waiter, &cx).0, Poll::Ready(Ok(()))));
        }
        send_all();
        assert_eq!(read(&mut sent, agreed), (texts, 4));
    }

    /// Kills: a letter for each call, and a call after the thread has looked that makes none due.
    #[test]
    fn one_letter_at_a_time_is_due() {
        let line = Line::new(1000, 1000);
        let is_due = || line.try_queue("x").is_ok_and(|(_, is_due)| is_due);
        assert_eq!([(); 3].map(|()| is_due()), [true, false, false]);
        line.take_wants();
        assert_eq!([(); 2].map(|()| is_due()), [true, false]);
        line.take_wants();
        assert!(line.ping().is_ok_and(|(_, is_due)| is_due));
        assert!(!line.close(1000, "").is_ok_and(|(_, is_due)| is_due) && line.lock().wants.close.is_some());
        line.take_wants();
        assert!(line.abandon().1);
    }
}
