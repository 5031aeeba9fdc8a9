//! An app on one core: the [`Service`] that its routes become.

use std::any::Any;
use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;

use crate::app::connection::{Connection, READY_BYTES_MAX, Reader};
use crate::app::context::{CoreContext, States};
use crate::app::definition::{Before, Hooks, HttpHandler};
use crate::app::error_http::HttpError;
use crate::app::group::App;
use crate::app::inbox::{Inbox, Pushed};
use crate::app::reply::BoxError;
use crate::app::request::Request;
use crate::app::response::Outcome;
use crate::app::router::{Endpoint, Params, Router};
use crate::app::routes::{HeldRoute, Routes};
use crate::app::socket::{OnKnown, Socket};
use crate::app::ws::{Handler, LocalBoxFuture, Mode, OnClose, Route};
use crate::closed::Closed;
use crate::guard::{Guarded, GuardedFuture, guarded, text};
use crate::hub::ConnectionId;
use crate::hub::{CoreHub, Known, RouteName};
use crate::message::{Message, OwnedMessage};
use crate::outbox::Dropped;
use crate::proto::Incoming;
use crate::proto::handshake;
use crate::proto::http::RequestHead;
use crate::quote::line;
use crate::remote::Hub;
use crate::runtime::Runtime;
use crate::shard::service::{Accept, Answer, Ended, Inbound, Reply, Serves, Service};

/// One core's part of an app, for simulations.
#[doc(hidden)]
pub fn service(app: App, hub: &mut CoreHub, handle: Hub) -> impl Service + use<> {
    CoreApp::new(app, hub, handle)
}

/// One core's part of an app.
pub(crate) struct CoreApp {
    core: Rc<CoreContext>,
    router: Rc<Router>,
    routes: Rc<RefCell<Routes>>,
    states: States,
    answers: Answers,
    failures: Failures,
}

/// What tasks have answered, with the slots and generations of the requests.
type Answers = Rc<RefCell<Vec<(u32, u32, Answer)>>>;
/// Tasks' handlers that have failed.
type Failures = Rc<RefCell<Vec<(ConnectionId, Failure)>>>;

/// How a handler has failed: with its error, or by a panic.
type Failure = Option<Guarded<BoxError>>;

/// What a request leaves to the WebSocket that it opens.
struct Opening {
    request: Request,
    held: Option<HeldRoute>,
}

impl CoreApp {
    pub(crate) fn new(app: App, hub: &mut CoreHub, handle: Hub) -> CoreApp {
        let (router, envelope) = app.into_parts();
        handle.set_envelope(envelope);
        hub.set_route_paths(router.ws.iter().map(|(_, path, _)| Arc::from(path.as_str())));
        hub.set_route_limits(router.ws.iter().map(|(ws, ..)| ws.0.limits.clone()).collect());
        let routes = Routes::new(router.ws.iter().map(|(ws, _, hooks)| (Rc::clone(&ws.0), Rc::clone(hooks))));
        let runtime = Runtime::new();
        if let Some(waker) = handle.courier().waker(hub.core()) {
            runtime.set_waker(waker);
        }
        runtime.make_current();
        CoreApp {
            core: Rc::new(CoreContext::new(handle, runtime, envelope)),
            router: Rc::new(router),
            routes: Rc::new(RefCell::new(routes)),
            states: States::default(),
            answers: Rc::default(),
            failures: Rc::default(),
        }
    }

    fn route(&self, number: u16) -> (Rc<Route>, Rc<Hooks>) {
        let routes = self.routes.borrow();
        let (route, hooks) = routes.at(number);
        (Rc::clone(route), Rc::clone(hooks))
    }

    fn socket<'a>(&'a mut self, hub: &'a mut CoreHub, slot: u32) -> Socket<'a> {
        Socket { hub, core: &self.core, states: &mut self.states, slot }
    }

    /// What its route says to a request.
    fn answer(&mut self, slot: u32, generation: u32, inbound: &Inbound<'_, '_>) -> Answer {
        let router = Rc::clone(&self.router);
        let (head, serves) = (inbound.head, inbound.serves);
        if let Some(reply) = router.answer_for_server(head.method(), head.path(), serves) {
            return Answer::Response(reply);
        }
        let (endpoint, params) = match router.find(head.path(), serves) {
            Ok(Some((endpoint, params))) => (Some(endpoint), params),
            Ok(None) => (None, Params::new()),
            Err(error) => return Answer::Response(error.into()),
        };
        let request = match Request::new(inbound, params, self.core.hub.clone()) {
            Ok(request) => request,
            Err(error) => return Answer::Response(error.into()),
        };
        let Some(endpoint) = endpoint else {
            return match router.fallback.as_ref().filter(|_| serves != Serves::Admin) {
                Some(fallback) => self.http(slot, generation, request, &Arc::default(), fallback, &Rc::default()),
                None => Answer::Response(not_found()),
            };
        };
        if let Some((number, hooks)) = websocket(endpoint, head) {
            return match handshake::check(head) {
                Ok(_) => self.upgrade(slot, generation, request, *number, hooks),
                // The shard refuses it in the right form.
                Err(_) => Answer::WebSocket(Accept { route: *number, ..Accept::default() }),
            };
        }
        match endpoint.handler(head.method()) {
            Ok((handler, hooks)) => self.http(slot, generation, request, &endpoint.path, handler, hooks),
            Err(reply) => Answer::Response(reply),
        }
    }

    /// A WebSocket request: its hooks decide, now or later.
    fn upgrade(&mut self, slot: u32, generation: u32, mut request: Request, number: u16, hooks: &Rc<Hooks>) -> Answer {
        let (route, _) = self.route(number);
        for observer in &hooks.observers {
            guarded("an observer", || observer(&request));
        }
        if hooks.before.iter().any(|before| matches!(before, Before::Later(_))) {
            let hooks = Rc::clone(hooks);
            let answered = AnswerGuard { answers: Rc::clone(&self.answers), slot, generation, answer: None };
            let task = async move {
                // Whole, so that it also answers for a hook that panics.
                let mut answered = answered;
                answered.answer = Some(match check(&hooks, &mut request).await {
                    Ok(()) => open_or_refuse(&route, request, number, None),
                    Err(error) => Answer::Response(refusal(error, &request)),
                });
            };
            self.core.runtime.spawn(task).detach();
            return Answer::Later;
        }
        match check_now(hooks, &mut request) {
            Ok(()) => open_or_refuse(&route, request, number, None),
            Err(error) => Answer::Response(refusal(error, &request)),
        }
    }

    /// An HTTP request: hooks and handler run as a task.
    fn http(
        &mut self,
        slot: u32,
        generation: u32,
        mut request: Request,
        path: &Arc<str>,
        handler: &HttpHandler,
        hooks: &Rc<Hooks>,
    ) -> Answer {
        let (hooks, handler, path) = (Rc::clone(hooks), Rc::clone(handler), Arc::clone(path));
        let (answers, routes) = (Rc::clone(&self.answers), Rc::clone(&self.routes));
        let answered = AnswerGuard { answers, slot, generation, answer: None };
        let task = async move {
            let mut answered = answered;
            for observer in &hooks.observers {
                guarded("an observer", || observer(&request));
            }
            if let Err(error) = check(&hooks, &mut request).await {
                answered.answer = Some(Answer::Response(refusal(error, &request)));
                return;
            }
            let added = std::mem::take(&mut request.added_headers);
            let answer = match handler(request).await.0 {
                Outcome::Reply(mut reply) => {
                    reply.headers.extend(added.into_inner());
                    Answer::Response(reply)
                }
                Outcome::Upgrade(upgrade) => {
                    let (mut request, ws) = *upgrade;
                    request.added_headers.extend(added.into_inner());
                    match Routes::hold(&routes, &ws.0, &hooks, path) {
                        Some(held) => open_or_refuse(&ws.0, request, held.number(), Some(held)),
                        None => Answer::Response(HttpError::unavailable("too many routes").into()),
                    }
                }
            };
            answered.answer = Some(answer);
        };
        self.core.runtime.spawn(task).detach();
        Answer::Later
    }

    /// A handler failed: with an error, or by a panic.
    fn failed(&mut self, hub: &mut CoreHub, slot: u32, route: &Route, failure: Failure) {
        let error = failure.as_deref();
        let mut socket = self.socket(hub, slot);
        if let Some(error) = error {
            tracing::error!(id = %socket.id(), error = text(&line(error)), "a handler failed");
            if let Some(on_error) = &route.on_error {
                guarded("on_error", || on_error(&mut socket, error.as_ref()));
            }
        } else {
            tracing::error!(id = %socket.id(), "a handler panicked");
        }
        self.core.runtime.catch_up(hub);
        if let Some((code, reason)) = route.failure.close_for(error) {
            hub.close(slot, Some(code), reason);
        }
    }

    /// Does for tasks that failed what is done for handlers at once.
    fn handle_failures(&mut self, hub: &mut CoreHub) {
        let failures = self.failures.take();
        for (id, failure) in failures {
            // Closing or not: the handler's failure is its author's to know.
            match hub.find(id) {
                Some(slot) => {
                    let (route, _) = self.route(hub.route(slot));
                    self.failed(hub, slot, &route, failure);
                }
                None => {
                    let error = failure.as_deref().map_or("a panic".to_owned(), |error| text(&line(error)));
                    tracing::error!(%id, error, "a task failed after its connection had ended");
                }
            }
        }
    }

    /// Runs what a user wrote for a connection; false if it failed.
    fn run(
        &mut self,
        hub: &mut CoreHub,
        slot: u32,
        route: &Route,
        call: impl FnOnce(&mut Socket<'_>) -> Result<(), BoxError>,
    ) -> bool {
        let mut socket = Socket { hub, core: &self.core, states: &mut self.states, slot };
        let result = guarded("a handler", || call(&mut socket));
        self.core.runtime.catch_up(hub);
        match result {
            Some(Ok(())) => true,
            Some(Err(error)) => {
                self.failed(hub, slot, route, Some(error.into()));
                false
            }
            None => {
                self.failed(hub, slot, route, None);
                false
            }
        }
    }

    /// Starts the task that handles a connection's messages.
    fn start_task(&mut self, hub: &mut CoreHub, slot: u32, route: &Rc<Route>) {
        let inbox = Inbox::new(route.inbox_depth, Rc::clone(&self.core.inbox_bytes));
        let (id, peer, handle) = (hub.id(slot), hub.peer(slot), self.core.hub.clone());
        let state = self.states.get_or_insert(slot);
        state.inbox = Some(Rc::clone(&inbox));
        let sender = match route.mode {
            Mode::SendOnly => state.sender(id, handle, || hub.begin_senders(slot)),
            Mode::TwoWay | Mode::ReceiveOnly => state.weak_sender(id, handle),
        };
        let connection = Connection {
            core: Rc::clone(&self.core),
            inbox: Reader::new(inbox, Rc::clone(&self.core), id),
            request: state.request.clone(),
            sender,
            id,
            peer,
            discard_replies: route.mode == Mode::ReceiveOnly,
        };
        let (route, failures) = (Rc::clone(route), Rc::clone(&self.failures));
        let task = async move {
            match &route.handler {
                Handler::Task(task) => {
                    if let Err(failure) = caught(task(connection.clone())).await {
                        failures.borrow_mut().push((id, failure));
                    }
                }
                Handler::MessageAsync(handler) => {
                    handle_messages(connection.clone(), &route, handler.as_ref(), &failures).await;
                }
                Handler::Message(_) | Handler::None => {}
            }
            if route.mode == Mode::SendOnly {
                connection.core.runtime.with_hub(move |hub| {
                    if let Some(slot) = hub.resolve(id) {
                        hub.close_with_senders(slot);
                    }
                });
            }
            // The connection's own sender ends here: a send-only connection closes if there is no other.
        };
        self.core.runtime.spawn(task).detach();
    }
}

async fn handle_messages(
    mut connection: Connection,
    route: &Route,
    handler: &dyn Fn(Connection, OwnedMessage) -> LocalBoxFuture<'static, Result<(), BoxError>>,
    failures: &Failures,
) {
    let mut next = if route.triggers() { Some(OwnedMessage::text("")) } else { connection.recv().await };
    while let Some(message) = next {
        if let Err(failure) = caught(handler(connection.clone(), message)).await {
            let is_over = route.failure.close_for(failure.as_deref()).is_some();
            failures.borrow_mut().push((connection.id, failure));
            if is_over {
                return;
            }
        }
        next = connection.recv().await;
    }
}

/// Runs what a user wrote.
async fn caught(future: LocalBoxFuture<'static, Result<(), BoxError>>) -> Result<(), Failure> {
    match GuardedFuture::new(future).await {
        Some(result) => result.map_err(|error| Some(error.into())),
        None => Err(None),
    }
}

impl Drop for CoreApp {
    fn drop(&mut self) {
        // Destructors of states and tasks may spawn and sleep, as anything that runs on a core may.
        self.core.runtime.make_current();
        self.states = States::default();
        self.core.runtime.end();
    }
}

impl Service for CoreApp {
    fn begin_tick(&mut self, now_ns: u64) {
        self.core.runtime.make_current();
        self.core.runtime.set_now_ns(now_ns);
        self.core.runtime.set_in_tick(true);
    }

    fn end_tick(&mut self) {
        self.core.runtime.set_in_tick(false);
    }

    fn request(&mut self, hub: &mut CoreHub, slot: u32, generation: u32, inbound: &Inbound<'_, '_>) -> Answer {
        let answer = self.answer(slot, generation, inbound);
        self.core.runtime.catch_up(hub);
        answer
    }

    /// Only what the routes say: hooks see the whole request, and once.
    fn refusal_of_head(&self, head: &RequestHead<'_>, serves: Serves) -> Option<Reply> {
        let for_server = self.router.answer_for_server(head.method(), head.path(), serves);
        if let Some(reply) = for_server.filter(|reply| !reply.status.is_success()) {
            return Some(reply);
        }
        match self.router.find(head.path(), serves) {
            Ok(Some((endpoint, _))) => match websocket(endpoint, head) {
                Some(_) => handshake::check(head).err().map(Reply::from),
                None => endpoint.handler(head.method()).err(),
            },
            Err(error) => Some(error.into()),
            Ok(None) => (self.router.fallback.is_none() || serves == Serves::Admin).then(not_found),
        }
    }

    fn open(&mut self, hub: &mut CoreHub, slot: u32, context: Option<Box<dyn Any>>) {
        let number = hub.route(slot);
        let (route, _) = self.route(number);
        if let Some(Opening { mut request, held }) = context.and_then(|context| context.downcast().ok()).map(|it| *it) {
            if let Some(held) = held {
                hub.set_limits_of(number, route.limits.clone());
                hub.name_route(number, RouteName { path: held.path(), made_at: Some(route.made_at) });
                self.states.get_or_insert(slot).keeps = Some(Box::new(held));
            }
            let extensions = request.take_extensions();
            if !route.forget_request || !extensions.is_empty() || route.on_connect.is_some() {
                let state = self.states.get_or_insert(slot);
                state.extensions = extensions;
                state.request = Some(Rc::new(request));
            }
        }
        if let Some(on_connect) = &route.on_connect {
            self.run(hub, slot, &route, |socket| on_connect(socket));
        }
        match &route.handler {
            Handler::Task(_) | Handler::MessageAsync(_) if hub.is_open(slot) => self.start_task(hub, slot, &route),
            Handler::Message(handler) if route.triggers() && hub.is_open(slot) => {
                let discards = route.mode == Mode::ReceiveOnly;
                self.run(hub, slot, &route, |socket| handler(socket, Route::no_message(), discards));
            }
            _ => {}
        }
        let is_task = matches!(route.handler, Handler::Task(_) | Handler::MessageAsync(_));
        if route.mode == Mode::SendOnly && !is_task {
            if self.states.get(slot).is_some_and(|state| state.has_senders()) {
                hub.close_with_senders(slot);
            } else {
                hub.close(slot, Some(1000), "done");
            }
        }
        if route.forget_request
            && let Some(state) = self.states.get_mut(slot)
        {
            state.request = None;
            self.states.drop_if_empty(slot);
        }
    }

    #[inline]
    fn message(&mut self, hub: &mut CoreHub, slot: u32, message: Incoming<'_>) {
        let route = Rc::clone(&self.routes.borrow().at(hub.route(slot)).0);
        if route.mode == Mode::SendOnly {
            hub.counters.messages_discarded += 1;
            return;
        }
        let message = Message(message);
        for intercept in &route.before_message {
            if !self.run(hub, slot, &route, |socket| intercept(socket, &message)) || !hub.is_open(slot) {
                return;
            }
        }
        match &route.handler {
            Handler::Message(handler) => {
                let discards = route.mode == Mode::ReceiveOnly;
                self.run(hub, slot, &route, |socket| handler(socket, message, discards));
            }
            Handler::Task(_) | Handler::MessageAsync(_) => {
                let inbox = self.states.get(slot).and_then(|state| state.inbox.as_ref());
                match inbox.map_or(Pushed::Discarded, |inbox| inbox.push(message.into_owned())) {
                    Pushed::Yes => {}
                    Pushed::Full => hub.hold(slot),
                    Pushed::Discarded => hub.counters.messages_discarded += 1,
                }
            }
            Handler::None => hub.counters.messages_discarded += 1,
        }
        for intercept in &route.after_message {
            self.run(hub, slot, &route, |socket| {
                intercept(socket);
                Ok(())
            });
        }
    }

    fn known(&mut self, hub: &mut CoreHub, known: &Known) {
        let then = self.states.get_mut(known.slot).and_then(|state| state.take_change(known.number));
        let then = then.and_then(|then| then.downcast::<OnKnown>().ok());
        if let (Some(then), Some(members)) = (then, known.members) {
            let (route, _) = self.route(hub.route(known.slot));
            self.run(hub, known.slot, &route, |socket| {
                (then.0)(socket, members);
                Ok(())
            });
        }
    }

    fn dropped(&mut self, hub: &mut CoreHub, slot: u32, dropped: &Dropped) {
        let (route, _) = self.route(hub.route(slot));
        if let Some(on_drop) = &route.on_drop {
            self.run(hub, slot, &route, |socket| {
                on_drop(socket, dropped);
                Ok(())
            });
        }
    }

    fn drained(&mut self, hub: &mut CoreHub, slot: u32, from_bytes: usize) {
        if hub.has_fallen(slot, from_bytes, READY_BYTES_MAX)
            && let Some(inbox) = self.states.get(slot).and_then(|state| state.inbox.as_ref())
        {
            inbox.wake_senders();
        }
        let wants = hub.limits(slot).drain_below_bytes.is_some_and(|below| hub.has_fallen(slot, from_bytes, below));
        if !wants || !hub.is_open(slot) {
            return;
        }
        let (route, _) = self.route(hub.route(slot));
        if let Some(on_drain) = &route.on_drain {
            self.run(hub, slot, &route, |socket| {
                on_drain(socket);
                Ok(())
            });
        }
    }

    fn inbox_bytes(&self) -> usize {
        self.core.inbox_bytes.get()
    }

    fn inbox_bytes_of(&self, slot: u32) -> usize {
        self.states.get(slot).and_then(|state| state.inbox.as_ref()).map_or(0, |inbox| inbox.bytes())
    }

    fn empty_inbox(&mut self, slot: u32) {
        if let Some(inbox) = self.states.get(slot).and_then(|state| state.inbox.as_ref()) {
            inbox.clear();
        }
    }

    fn close(&mut self, hub: &mut CoreHub, slot: u32, ended: &Ended) {
        let (route, hooks) = self.route(hub.route(slot));
        let opened_ns = hub.opened_ns(slot);
        let closed = Closed {
            code: ended.code,
            reason: ended.reason.clone(),
            clean: ended.clean,
            duration: Duration::from_nanos(hub.now_ns.saturating_sub(opened_ns)),
        };
        for observer in &hooks.closed_observers {
            guarded("an observer", || observer(&closed));
        }
        let mut socket = self.socket(hub, slot);
        let mut call = |what: &str, hook: &OnClose| {
            guarded(what, || hook(&mut socket, &closed));
        };
        if let Some(on_close) = &route.on_close {
            call("on_close", on_close);
        }
        for after in &hooks.after {
            call("an after hook", after);
        }
        if let Some(state) = self.states.take(slot)
            && let Some(inbox) = &state.inbox
        {
            inbox.close();
        }
        self.core.runtime.catch_up(hub);
    }

    fn run_tasks(&mut self, hub: &mut Option<Box<CoreHub>>) {
        self.core.runtime.run(hub);
        if let Some(hub) = hub {
            self.handle_failures(hub);
        }
    }

    fn take_answers(&mut self, answers: &mut Vec<(u32, u32, Answer)>) {
        answers.append(&mut self.answers.borrow_mut());
    }

    fn is_ready(&self) -> bool {
        self.core.runtime.is_ready()
    }

    fn next_due_ns(&self) -> Option<u64> {
        self.core.runtime.next_due_ns()
    }
}

/// What of an endpoint is asked for where it is a WebSocket. A path may have both: then an ordinary GET is HTTP, and a handshake
/// is WebSocket.
fn websocket<'e>(endpoint: &'e Endpoint, head: &RequestHead<'_>) -> Option<&'e (u16, Rc<Hooks>)> {
    let has_http = endpoint.handler(head.method()).is_ok();
    endpoint.ws.as_ref().filter(|_| !has_http || handshake::is_upgrade_request(head))
}

/// Answers a request even if its handler panics or is dropped.
struct AnswerGuard {
    answers: Answers,
    slot: u32,
    generation: u32,
    answer: Option<Answer>,
}

impl Drop for AnswerGuard {
    fn drop(&mut self) {
        let failed = || Answer::Response(Reply::error(StatusCode::INTERNAL_SERVER_ERROR, "internal error"));
        let answer = self.answer.take().unwrap_or_else(failed);
        self.answers.borrow_mut().push((self.slot, self.generation, answer));
    }
}

async fn check(hooks: &Hooks, request: &mut Request) -> Result<(), HttpError> {
    for before in &hooks.before {
        match before {
            Before::Now(check) => check_one(check.as_ref(), request)?,
            Before::Later(check) => check(request).await?,
        }
    }
    Ok(())
}

fn not_found() -> Reply {
    Reply::error(StatusCode::NOT_FOUND, "not found")
}

fn check_now(hooks: &Hooks, request: &mut Request) -> Result<(), HttpError> {
    for before in &hooks.before {
        if let Before::Now(check) = before {
            check_one(check.as_ref(), request)?;
        }
    }
    Ok(())
}

fn check_one(check: &dyn Fn(&mut Request) -> Result<(), HttpError>, request: &mut Request) -> Result<(), HttpError> {
    let internal = || Err(HttpError::new(StatusCode::INTERNAL_SERVER_ERROR, "internal error"));
    guarded("a hook", || check(request)).unwrap_or_else(internal)
}

/// Opens a route's WebSocket for a request whose hooks have agreed, if the two can agree on a subprotocol.
fn open_or_refuse(route: &Route, mut request: Request, number: u16, held: Option<HeldRoute>) -> Answer {
    if request.protocol.is_none() && !route.protocols.is_empty() {
        let chosen = request.protocols().find(|offered| route.protocols.iter().any(|known| known == offered));
        request.protocol = chosen.map(str::to_owned);
        if request.protocol.is_none() && route.protocol_required {
            return Answer::Response(refusal(HttpError::bad_request("unsupported subprotocol"), &request));
        }
    }
    let headers = std::mem::take(&mut request.added_headers);
    let protocol = request.protocol.clone();
    Answer::WebSocket(Accept { route: number, protocol, headers, context: Some(Box::new(Opening { request, held })) })
}

fn refusal(error: HttpError, request: &Request) -> Reply {
    let mut reply = Reply::from(error);
    reply.headers.extend(request.added_headers.iter().cloned());
    reply
}
