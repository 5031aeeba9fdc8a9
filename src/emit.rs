//! Sending from any thread: what [`Hub`] and [`crate::Sender`] offer, and the answers to it.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use serde::Serialize;
use serde_json::Value;

use crate::frame_buf::FrameBuf;
use crate::hub::{ConnectionInfo, CoreHub, Delivery, Hub, Letter, Scope, Tally};
use crate::id::ConnectionId;
use crate::mail::MailError;
use crate::message::{EncodeError, IntoMessage, borrowed};
use crate::metrics::{CoreMetrics, Metrics};
use crate::outbox::Queued;
use crate::proto::{Kind, close};

/// An answer on its way: what became of a message, once every core concerned has looked. Await it, or
/// [`Delivering::wait`] on a thread of your own; dropping it changes nothing.
#[derive(Debug)]
pub struct Delivering(oneshot::Receiver<Delivery>);

impl Delivering {
    /// Blocks until the answer is there. Not on a core's thread, which would wait for itself.
    pub fn wait(self) -> Delivery {
        self.0.recv().unwrap_or_default()
    }
}

impl IntoFuture for Delivering {
    type Output = Delivery;
    type IntoFuture = Answer<Delivery>;

    fn into_future(self) -> Answer<Delivery> {
        Answer(Some(self.0.into_future()), Result::unwrap_or_default)
    }
}

/// The future of an answer.
#[derive(Debug)]
pub struct Answer<A, O = A>(Option<oneshot::AsyncReceiver<A>>, fn(Result<A, oneshot::RecvError>) -> O);

impl<A, O> Future for Answer<A, O> {
    type Output = O;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<O> {
        let finish = self.1;
        match &mut self.0 {
            Some(answer) => Pin::new(answer).poll(cx).map(finish),
            None => Poll::Ready(finish(Err(oneshot::RecvError))),
        }
    }
}

/// A question to a connection's core on its way.
#[derive(Debug)]
pub struct Asking<A>(Option<oneshot::Receiver<A>>);

impl<A> Asking<A> {
    /// Blocks until the answer is there; `None` if there will be none: the server has ended, or the core's mailbox is full. Not on a core's
    /// thread, which would wait for itself.
    pub fn wait(self) -> Option<A> {
        self.0?.recv().ok()
    }
}

impl<A> IntoFuture for Asking<A> {
    type Output = Option<A>;
    type IntoFuture = Answer<A, Option<A>>;

    fn into_future(self) -> Answer<A, Option<A>> {
        Answer(self.0.map(IntoFuture::into_future), Result::ok)
    }
}

impl Hub {
    // ---- messages -------------------------------------------------------------------------------------------------

    /// Sends a message to one connection, on whichever core it is. The answer says `gone` for an id that is stale or was
    /// never one; a stale id never reaches a later connection.
    ///
    /// # Errors
    /// If a value cannot be written as JSON.
    pub fn send_to(&self, id: ConnectionId, message: impl IntoMessage) -> Result<Delivering, EncodeError> {
        let frame = encode(message)?;
        let (tally, answer) = Tally::new();
        if id.core() < self.cores() {
            let letter = Letter::EmitTo { id, frame, tally: Some(Arc::clone(&tally)) };
            self.post(id.core(), letter, &tally);
        } else {
            tally.add(Queued::Gone.into());
        }
        Ok(Delivering(answer))
    }

    /// Sends a named event to one connection.
    ///
    /// # Errors
    /// If the data cannot be written as JSON.
    pub fn emit_to(
        &self,
        id: ConnectionId,
        event: &str,
        data: &(impl Serialize + ?Sized),
    ) -> Result<Delivering, EncodeError> {
        let text = self.envelope().encode(event, data)?;
        self.send_to(id, Text(&text))
    }

    /// Sends a message to all connections.
    ///
    /// # Errors
    /// If a value cannot be written as JSON.
    pub fn send_to_all(&self, message: impl IntoMessage) -> Result<Delivering, EncodeError> {
        Ok(self.send_to_scope(Scope::Everyone, encode(message)?, None))
    }

    /// Sends a named event to all connections.
    ///
    /// # Errors
    /// If the data cannot be written as JSON.
    pub fn emit_to_all(&self, event: &str, data: &(impl Serialize + ?Sized)) -> Result<Delivering, EncodeError> {
        let text = self.envelope().encode(event, data)?;
        self.send_to_all(Text(&text))
    }

    /// Sends a named event to all connections but one.
    ///
    /// # Errors
    /// If the data cannot be written as JSON.
    pub fn emit_to_all_except(
        &self,
        id: ConnectionId,
        event: &str,
        data: &(impl Serialize + ?Sized),
    ) -> Result<Delivering, EncodeError> {
        let text = self.envelope().encode(event, data)?;
        Ok(self.send_to_scope(Scope::Everyone, encode(Text(&text))?, Some(id)))
    }

    /// Sends a message to the members of a room.
    ///
    /// # Errors
    /// If a value cannot be written as JSON.
    pub fn send_to_room(&self, room: &str, message: impl IntoMessage) -> Result<Delivering, EncodeError> {
        Ok(self.send_to_scope(Scope::Room(room.into()), encode(message)?, None))
    }

    /// Sends a named event to the members of a room.
    ///
    /// # Errors
    /// If the data cannot be written as JSON.
    pub fn emit_to_room(
        &self,
        room: &str,
        event: &str,
        data: &(impl Serialize + ?Sized),
    ) -> Result<Delivering, EncodeError> {
        let text = self.envelope().encode(event, data)?;
        self.send_to_room(room, Text(&text))
    }

    /// Sends a named event to the connections of a route, by its path as it was given to `App::ws`.
    ///
    /// # Errors
    /// If the data cannot be written as JSON.
    pub fn emit_to_route(
        &self,
        path: &str,
        event: &str,
        data: &(impl Serialize + ?Sized),
    ) -> Result<Delivering, EncodeError> {
        let text = self.envelope().encode(event, data)?;
        Ok(self.send_to_scope(Scope::Path(path.into()), encode(Text(&text))?, None))
    }

    fn send_to_scope(&self, scope: Scope, frame: FrameBuf, except: Option<ConnectionId>) -> Delivering {
        let (tally, answer) = Tally::new();
        for core in 0..self.cores() {
            let (scope, frame) = (scope.clone(), frame.clone());
            let letter = Letter::Publish { scope, frame, except, tally: Some(Arc::clone(&tally)) };
            self.post(core, letter, &tally);
        }
        Delivering(answer)
    }

    fn post(&self, core: usize, letter: Letter, tally: &Tally) {
        match self.letter(core, letter) {
            Ok(()) => {}
            Err(MailError::Full) => tally.add(Queued::Full.into()),
            Err(MailError::Ended) => tally.add(Queued::Gone.into()),
        }
    }

    // ---- connections ----------------------------------------------------------------------------------------------

    /// Closes a connection with this code and reason. The answer is false if it had gone; there is none, and nothing
    /// happens, if the code is not one that may be sent.
    pub fn disconnect(&self, id: ConnectionId, code: u16, reason: impl Into<String>) -> Asking<bool> {
        if !close::is_legal(code) {
            return Asking(None);
        }
        let reason = reason.into();
        self.ask(id.core(), move |hub| {
            let slot = hub.resolve(id);
            if let Some(slot) = slot {
                hub.close(slot, Some(code), reason);
            }
            slot.is_some()
        })
    }

    /// A connection's JSON data; `None` inside if it has gone.
    pub fn data(&self, id: ConnectionId) -> Asking<Option<Value>> {
        self.ask(id.core(), move |hub| hub.resolve(id).map(|slot| hub.data(slot)))
    }

    /// Sets a connection's JSON data. The answer is false if it had gone.
    pub fn set_data(&self, id: ConnectionId, data: Value) -> Asking<bool> {
        self.ask(id.core(), move |hub| {
            let slot = hub.resolve(id);
            if let Some(slot) = slot {
                hub.set_data(slot, data);
            }
            slot.is_some()
        })
    }

    /// All connections, core by core.
    pub async fn connections(&self) -> Vec<ConnectionInfo> {
        self.gather(CoreHub::connections).await.into_iter().flatten().collect()
    }

    /// A part of all connections, core by core: at most `limit` of them after the first `offset`.
    pub async fn connections_page(&self, offset: usize, limit: usize) -> Vec<ConnectionInfo> {
        let (mut skip, mut wanted) = (offset, limit);
        let mut page = Vec::new();
        for core in 0..self.cores() {
            if wanted == 0 {
                break;
            }
            let Some((found, passed)) = self.ask(core, move |hub| hub.connections_page(skip, wanted)).await else {
                continue;
            };
            skip -= passed;
            wanted -= found.len();
            page.extend(found);
        }
        page
    }

    /// The ids of all connections.
    pub async fn ids(&self) -> Vec<ConnectionId> {
        self.connections().await.into_iter().map(|connection| connection.id).collect()
    }

    /// How many connections there are.
    pub async fn count(&self) -> usize {
        self.gather(|hub| hub.count()).await.into_iter().sum()
    }

    /// The members of a room, core by core.
    pub async fn members(&self, room: &str) -> Vec<ConnectionId> {
        let room = room.to_owned();
        let members = self.gather(move |hub| {
            let slots = hub.local_members(&room).iter();
            slots.map(|slot| hub.id(*slot)).collect::<Vec<_>>()
        });
        members.await.into_iter().flatten().collect()
    }

    /// How many members a room has, over all cores.
    pub async fn member_count(&self, room: &str) -> usize {
        let room = room.to_owned();
        self.gather(move |hub| hub.local_members(&room).len()).await.into_iter().sum()
    }

    /// What every core tells of itself, for metrics; a core that has ended is left out. Works however full the mailboxes
    /// are.
    pub async fn metrics(&self) -> Metrics {
        let ask = |core| {
            let (sender, answer) = oneshot::channel();
            let run = move |hub: &mut CoreHub| {
                let _ = sender.send(hub.metrics());
            };
            Asking(self.courier().send_urgent(core, Letter::Run(Box::new(run))).is_ok().then_some(answer))
        };
        let questions: Vec<Asking<CoreMetrics>> = (0..self.cores()).map(ask).collect();
        let mut cores = Vec::with_capacity(questions.len());
        for question in questions {
            cores.extend(question.await);
        }
        Metrics {
            cores,
            cores_all: self.cores(),
            draining: self.is_draining(),
            memory_bytes_max: self.memory_bytes_max(),
            memory_over: self.is_out_of_memory(),
        }
    }

    /// Asks one core; the answer is `None` if there is no such core, it has ended, or its mailbox is full.
    pub(crate) fn ask<A: Send + 'static>(
        &self,
        core: usize,
        ask: impl FnOnce(&mut CoreHub) -> A + Send + 'static,
    ) -> Asking<A> {
        let (sender, answer) = oneshot::channel();
        let run = move |hub: &mut CoreHub| {
            // Nobody may be waiting any more.
            let _ = sender.send(ask(hub));
        };
        Asking(self.letter(core, Letter::Run(Box::new(run))).is_ok().then_some(answer))
    }

    /// Asks every core and waits for all of them; a core that cannot answer is left out.
    pub(crate) async fn gather<A: Send + 'static>(
        &self,
        ask: impl Fn(&mut CoreHub) -> A + Clone + Send + 'static,
    ) -> Vec<A> {
        let questions: Vec<Asking<A>> = (0..self.cores()).map(|core| self.ask(core, ask.clone())).collect();
        let mut answers = Vec::with_capacity(questions.len());
        for question in questions {
            answers.extend(question.await);
        }
        answers
    }
}

/// Text that is known to be text.
struct Text<'t>(&'t [u8]);

impl IntoMessage for Text<'_> {
    fn with_message<R>(self, send: impl FnOnce(crate::message::Message<'_>) -> R) -> Result<R, EncodeError> {
        Ok(send(borrowed(Kind::Text, self.0)))
    }
}

fn encode(message: impl IntoMessage) -> Result<FrameBuf, EncodeError> {
    message.with_message(|message| FrameBuf::new(message.0.kind.into(), message.as_bytes()))
}
