//! What the parts of an app on one core share, and what it keeps for each of its connections.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

use crate::app::acks::{Asker, Questions};
use crate::app::inbox::Inbox;
use crate::app::request::Request;
use crate::app::values::{CoreValues, SharedValues};
use crate::guard::{Guarded, guarded};
use crate::hub::ConnectionId;
use crate::message::Envelope;
use crate::remote::Hub;
use crate::remote::{Alive, Sender};
use crate::runtime::Runtime;

/// Shared by all handlers and tasks of a core.
pub(crate) struct CoreContext {
    pub(crate) hub: Hub,
    pub(crate) runtime: Rc<Runtime>,
    envelope: Cell<Envelope>,
    /// State that all cores share.
    pub(crate) shared: Arc<SharedValues>,
    /// State of this core.
    pub(crate) values: Rc<CoreValues>,
    /// Bytes that wait in inboxes.
    pub(crate) inbox_bytes: Rc<Cell<usize>>,
    /// What is kept for the core's connections, while tasks run: lent to them as the hub is.
    pub(crate) lent: RefCell<Kept>,
    /// What clients were asked.
    pub(crate) questions: Questions,
    /// What tasks have the core do with sockets. Only who puts it there knows what it is.
    pub(crate) calls: RefCell<Vec<(ConnectionId, Box<dyn Any>)>>,
}

impl Asker for CoreContext {
    fn questions(&self) -> &Questions {
        &self.questions
    }

    fn now_ns(&self) -> u64 {
        self.runtime.now_ns()
    }
}

impl CoreContext {
    pub(crate) fn new(
        hub: Hub,
        runtime: Rc<Runtime>,
        envelope: Envelope,
        shared: SharedValues,
        values: CoreValues,
    ) -> CoreContext {
        let (shared, values) = (Arc::new(shared), Rc::new(values));
        runtime.set_local(Rc::clone(&values));
        let inbox_bytes = Rc::<Cell<usize>>::default();
        CoreContext {
            hub,
            runtime,
            envelope: Cell::new(envelope),
            shared,
            values,
            questions: Questions::new(Rc::clone(&inbox_bytes)),
            inbox_bytes,
            lent: RefCell::default(),
            calls: RefCell::default(),
        }
    }

    pub(crate) fn envelope(&self) -> Envelope {
        self.envelope.get()
    }
}

/// What the app keeps for a core's connections.
#[derive(Default)]
pub(crate) struct Kept {
    pub(crate) states: States,
    pub(crate) requests: Requests,
}

/// The requests that opened a core's connections, by slot. Apart from their states: what a handler reads of its request
/// must not stand in the way of what it changes.
#[derive(Default)]
pub(crate) struct Requests(Vec<Option<Rc<Request>>>);

impl Requests {
    pub(crate) fn get(&self, slot: u32) -> Option<&Rc<Request>> {
        self.0.get(slot as usize)?.as_ref()
    }

    pub(crate) fn set(&mut self, slot: u32, request: Rc<Request>) {
        let index = slot as usize;
        if self.0.len() <= index {
            self.0.resize_with(index + 1, || None);
        }
        self.0[index] = Some(request);
    }

    pub(crate) fn take(&mut self, slot: u32) -> Option<Rc<Request>> {
        self.0.get_mut(slot as usize)?.take()
    }
}

/// Typed values of a connection, shared by its state and its task.
pub(crate) type Extensions = Rc<RefCell<Guarded<http::Extensions>>>;

/// What the app keeps for one connection; most of it only where a handler asks for it.
#[derive(Default)]
pub(crate) struct ConnState {
    pub(crate) extensions: Option<Extensions>,
    pub(crate) cleanups: Vec<Box<dyn FnOnce()>>,
    pub(crate) inbox: Option<Rc<Inbox>>,
    /// What must not be dropped before the connection has ended.
    pub(crate) keeps: Option<Box<dyn Any>>,
    /// What is to be done when changes of its rooms are known to all, by their numbers, in order. Only who put it there
    /// knows what it is.
    changes: VecDeque<(u64, Box<dyn Any>)>,
    senders: Weak<Alive>,
    gone: Option<Arc<AtomicBool>>,
}

impl ConnState {
    /// `begin` gives the number of these senders if there is none.
    pub(crate) fn sender(&mut self, id: ConnectionId, hub: Hub, begin: impl FnOnce() -> u32) -> Sender {
        let alive = self.senders.upgrade().unwrap_or_else(|| Alive::new(id, hub.clone(), begin()));
        self.senders = Arc::downgrade(&alive);
        let gone = Arc::clone(self.gone.get_or_insert_default());
        Sender::new(id, hub, Some(alive), gone)
    }

    /// Keeps this until the change of this number is known to all.
    pub(crate) fn await_change(&mut self, number: u64, then: Box<dyn Any>) {
        self.changes.push_back((number, then));
    }

    pub(crate) fn take_change(&mut self, number: u64) -> Option<Box<dyn Any>> {
        let index = self.changes.iter().position(|(of, _)| *of == number)?;
        self.changes.remove(index).map(|(_, then)| then)
    }

    /// A sender that does not keep a send-only connection open.
    pub(crate) fn weak_sender(&mut self, id: ConnectionId, hub: Hub) -> Sender {
        let gone = Arc::clone(self.gone.get_or_insert_default());
        Sender::new(id, hub, None, gone)
    }

    /// Whether somebody outside holds a [`Sender`].
    pub(crate) fn has_senders(&self) -> bool {
        self.senders.strong_count() > 0
    }
}

impl Drop for ConnState {
    fn drop(&mut self) {
        if let Some(gone) = &self.gone {
            gone.store(true, Ordering::Relaxed);
        }
        while let Some(clean) = self.cleanups.pop() {
            guarded("a clean-up", clean);
        }
    }
}

/// The states of a core's connections, by slot.
#[derive(Default)]
pub(crate) struct States(Vec<Option<Box<ConnState>>>);

impl States {
    pub(crate) fn get(&self, slot: u32) -> Option<&ConnState> {
        self.0.get(slot as usize)?.as_deref()
    }

    pub(crate) fn get_mut(&mut self, slot: u32) -> Option<&mut ConnState> {
        self.0.get_mut(slot as usize)?.as_deref_mut()
    }

    /// Frees a state that says nothing.
    pub(crate) fn drop_if_empty(&mut self, slot: u32) {
        if let Some(state) = self.0.get_mut(slot as usize) {
            state.take_if(|state| {
                let is_used = state.inbox.is_some() || state.keeps.is_some() || state.extensions.is_some();
                !is_used && state.changes.is_empty() && state.gone.is_none() && state.cleanups.is_empty()
            });
        }
    }

    pub(crate) fn get_or_insert(&mut self, slot: u32) -> &mut ConnState {
        let index = slot as usize;
        if self.0.len() <= index {
            self.0.resize_with(index + 1, || None);
        }
        self.0[index].get_or_insert_default()
    }

    pub(crate) fn take(&mut self, slot: u32) -> Option<Box<ConnState>> {
        self.0.get_mut(slot as usize)?.take()
    }
}
