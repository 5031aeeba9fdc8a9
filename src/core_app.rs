//! An app on one core: the [`Service`] that its routes become.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, HeaderValue, StatusCode};

use crate::app::{App, Before, Hooks, HttpHandler, Params, Router, guarded};
use crate::connection::{Connection, Inbox};
use crate::context::{CoreContext, States};
use crate::error_http::HttpError;
use crate::hub::{CoreHub, Hub};
use crate::message::{Message, OwnedMessage};
use crate::proto::Incoming;
use crate::proto::handshake;
use crate::reply::BoxError;
use crate::request::Request;
use crate::response::Outcome;
use crate::runtime::Runtime;
use crate::service::{Accept, Answer, Ended, Inbound, Reply, Service};
use crate::socket::Socket;
use crate::ws::{Closed, Handler, Mode, OnClose, Route, Ws};

/// One core's part of an app.
pub(crate) struct CoreApp {
    core: Rc<CoreContext>,
    router: Rc<Router>,
    routes: Rc<RefCell<Routes>>,
    states: States,
    answers: Rc<RefCell<Answers>>,
}

/// The WebSocket routes by number: those of the router, then those that handlers upgraded to.
struct Routes {
    list: Vec<(Rc<Route>, Rc<Hooks>)>,
}

/// What has been decided beside the handlers.
#[derive(Default)]
struct Answers {
    ready: Vec<(u32, u32, Answer)>,
    /// The requests of the WebSockets that are being opened, by slot.
    opening: HashMap<u32, Request>,
}

impl CoreApp {
    pub(crate) fn new(app: App, hub: &mut CoreHub, handle: Hub) -> CoreApp {
        let (router, envelope) = app.into_parts();
        handle.set_envelope(envelope);
        hub.set_route_paths(router.ws.iter().map(|(_, path, _)| Arc::from(path.as_str())).collect());
        hub.set_route_limits(router.ws.iter().map(|(ws, ..)| ws.0.limits.clone()).collect());
        let list = router.ws.iter().map(|(ws, _, hooks)| (Rc::clone(&ws.0), Rc::clone(hooks))).collect();
        let runtime = Runtime::new();
        if let Some(waker) = handle.courier().waker(hub.core()) {
            runtime.set_waker(waker);
        }
        runtime.make_current();
        CoreApp {
            core: Rc::new(CoreContext::new(handle, runtime, envelope)),
            router: Rc::new(router),
            routes: Rc::new(RefCell::new(Routes { list })),
            states: States::default(),
            answers: Rc::default(),
        }
    }

    fn route(&self, number: u16) -> (Rc<Route>, Rc<Hooks>) {
        let routes = self.routes.borrow();
        let (route, hooks) = &routes.list[usize::from(number)];
        (Rc::clone(route), Rc::clone(hooks))
    }

    fn socket<'a>(&'a mut self, hub: &'a mut CoreHub, slot: u32) -> Socket<'a> {
        Socket { hub, core: &self.core, states: &mut self.states, slot }
    }

    /// A WebSocket request: its hooks decide, now or later.
    fn upgrade(&mut self, slot: u32, generation: u32, mut request: Request, number: u16, hooks: &Rc<Hooks>) -> Answer {
        let (route, _) = self.route(number);
        for observer in &hooks.observers {
            guarded("an observer", || observer(&request));
        }
        if hooks.before.iter().any(|before| matches!(before, Before::Later(_))) {
            let (hooks, answers) = (Rc::clone(hooks), Rc::clone(&self.answers));
            let task = async move {
                let checked = check(&hooks, &mut request).await;
                let mut answers = answers.borrow_mut();
                let answer = match checked.and_then(|()| accept(&route, &mut request, number)) {
                    Ok(accept) => {
                        answers.opening.insert(slot, request);
                        Answer::WebSocket(accept)
                    }
                    Err(error) => Answer::Response(refusal(error, &request)),
                };
                answers.ready.push((slot, generation, answer));
            };
            self.core.runtime.spawn(task).detach();
            return Answer::Later;
        }
        match check_now(hooks, &mut request).and_then(|()| accept(&route, &mut request, number)) {
            Ok(accept) => {
                self.answers.borrow_mut().opening.insert(slot, request);
                Answer::WebSocket(accept)
            }
            Err(error) => Answer::Response(refusal(error, &request)),
        }
    }

    /// An HTTP request: hooks and handler run as a task.
    fn http(
        &mut self,
        slot: u32,
        generation: u32,
        mut request: Request,
        handler: &HttpHandler,
        hooks: &Rc<Hooks>,
    ) -> Answer {
        let (hooks, handler) = (Rc::clone(hooks), Rc::clone(handler));
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
                    reply.headers.extend(added);
                    Answer::Response(reply)
                }
                Outcome::Upgrade(upgrade) => {
                    let (mut request, ws) = *upgrade;
                    request.added_headers.extend(added);
                    let number = routes.borrow_mut().number(&ws, &hooks);
                    match accept(&ws.0, &mut request, number) {
                        Ok(accept) => {
                            answered.answers.borrow_mut().opening.insert(slot, request);
                            Answer::WebSocket(accept)
                        }
                        Err(error) => Answer::Response(refusal(error, &request)),
                    }
                }
            };
            answered.answer = Some(answer);
        };
        self.core.runtime.spawn(task).detach();
        Answer::Later
    }

    /// A handler failed: with an error, or by a panic.
    fn failed(&mut self, hub: &mut CoreHub, slot: u32, route: &Route, error: Option<&BoxError>) {
        let mut socket = self.socket(hub, slot);
        if let Some(error) = error {
            tracing::error!(id = %socket.id(), %error, "a handler failed");
            if let Some(on_error) = &route.on_error {
                guarded("on_error", || on_error(&mut socket, error.as_ref()));
            }
        } else {
            tracing::error!(id = %socket.id(), "a handler panicked");
        }
        if let Some((code, reason)) = route.failure.close_for(error) {
            hub.close(slot, Some(code), reason);
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
        match guarded("a handler", || call(&mut socket)) {
            Some(Ok(())) => true,
            Some(Err(error)) => {
                self.failed(hub, slot, route, Some(&error));
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
        let inbox = Inbox::new(route.inbox_depth);
        let (id, peer, handle) = (hub.id(slot), hub.peer(slot), self.core.hub.clone());
        let state = self.states.get_or_insert(slot);
        state.inbox = Some(Rc::clone(&inbox));
        let sender =
            if route.mode == Mode::SendOnly { state.sender(id, handle) } else { state.weak_sender(id, handle) };
        let connection = Connection {
            core: Rc::clone(&self.core),
            inbox,
            request: state.request.clone(),
            sender,
            id,
            peer,
            discard_replies: route.mode == Mode::ReceiveOnly,
        };
        let route = Rc::clone(route);
        let task = async move {
            let ended = match &route.handler {
                Handler::Task(task) => task(connection.clone()).await,
                Handler::MessageAsync(handler) => {
                    handle_messages(connection.clone(), handler.as_ref(), route.triggers()).await
                }
                Handler::Message(_) | Handler::None => Ok(()),
            };
            if let Err(error) = ended {
                tracing::error!(%id, %error, "a task failed");
                if let Some((code, reason)) = route.failure.close_for(Some(&error)) {
                    let mut connection = connection.clone();
                    let _ = connection.close(code, reason);
                }
            }
            connection.abandon();
            if route.mode == Mode::SendOnly {
                connection.core.runtime.with_hub(move |hub| {
                    if let Some(slot) = hub.resolve(id) {
                        hub.close_with_senders(slot);
                    }
                });
            }
            // The connection's own sender ends here: a send-only connection closes if there is no other.
        };
        let guarded = PanicGuard { core: Rc::clone(&self.core), id, is_done: false };
        self.core
            .runtime
            .spawn(async move {
                let mut guarded = guarded;
                task.await;
                guarded.is_done = true;
            })
            .detach();
    }
}

async fn handle_messages(
    mut connection: Connection,
    handler: &dyn Fn(Connection, OwnedMessage) -> crate::ws::LocalBoxFuture<'static, Result<(), BoxError>>,
    triggers: bool,
) -> Result<(), BoxError> {
    if triggers {
        handler(connection.clone(), OwnedMessage::text("")).await?;
    }
    while let Some(message) = connection.recv().await {
        handler(connection.clone(), message).await?;
    }
    Ok(())
}

impl Service for CoreApp {
    fn request(&mut self, hub: &mut CoreHub, slot: u32, generation: u32, inbound: &Inbound<'_, '_>) -> Answer {
        let _ = hub;
        let router = Rc::clone(&self.router);
        let head = inbound.head;
        let found = router.find(head.path());
        let (endpoint, params) = match found {
            Some((endpoint, params)) => (Some(endpoint), params),
            None => (None, Params::new()),
        };
        let request = match Request::new(inbound, params, self.core.hub.clone()) {
            Ok(request) => request,
            Err(error) => return Answer::Response(error.into()),
        };
        let Some(endpoint) = endpoint else {
            return match &router.fallback {
                Some(fallback) => self.http(slot, generation, request, fallback, &Rc::default()),
                None => Answer::Response(Reply::error(StatusCode::NOT_FOUND, "not found")),
            };
        };
        // A path may have both: then an ordinary GET is HTTP, and a handshake is WebSocket.
        if let Some((number, hooks)) = &endpoint.ws {
            let has_http = endpoint.handler(head.method()).is_ok();
            if !has_http || handshake::is_upgrade_request(head) {
                return match handshake::check(head) {
                    Ok(_) => self.upgrade(slot, generation, request, *number, hooks),
                    // The shard refuses it in the right form.
                    Err(_) => Answer::WebSocket(Accept { route: *number, ..Accept::default() }),
                };
            }
        }
        match endpoint.handler(head.method()) {
            Ok((handler, hooks)) => self.http(slot, generation, request, handler, hooks),
            Err(reply) => Answer::Response(reply),
        }
    }

    fn open(&mut self, hub: &mut CoreHub, slot: u32) {
        let (route, _) = self.route(hub.route(slot));
        let request = self.answers.borrow_mut().opening.remove(&slot);
        if let Some(mut request) = request {
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
            Handler::Task(_) | Handler::MessageAsync(_) => self.start_task(hub, slot, &route),
            Handler::Message(handler) if route.triggers() && hub.is_open(slot) => {
                let discards = route.mode == Mode::ReceiveOnly;
                self.run(hub, slot, &route, |socket| handler(socket, Route::no_message(), discards));
            }
            Handler::Message(_) | Handler::None => {}
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
        let route = Rc::clone(&self.routes.borrow().list[usize::from(hub.route(slot))].0);
        if route.mode == Mode::SendOnly {
            hub.counters.messages_discarded += 1;
            return;
        }
        let message = Message(message);
        for intercept in &route.before_message {
            if !self.run(hub, slot, &route, |socket| intercept(socket, &message)) {
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
                if inbox.is_some_and(|inbox| inbox.push(message.into_owned())) {
                    hub.hold(slot);
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
    }

    fn abandoned(&mut self, slot: u32) {
        self.answers.borrow_mut().opening.remove(&slot);
    }

    fn run_tasks(&mut self, hub: &mut Option<Box<CoreHub>>, now_ns: u64) {
        self.core.runtime.make_current();
        self.core.runtime.set_now_ns(now_ns);
        self.core.runtime.run(hub);
    }

    fn take_answers(&mut self, answers: &mut Vec<(u32, u32, Answer)>) {
        answers.append(&mut self.answers.borrow_mut().ready);
    }

    fn is_ready(&self) -> bool {
        self.core.runtime.is_ready()
    }

    fn next_due_ns(&self) -> Option<u64> {
        self.core.runtime.next_due_ns()
    }
}

impl Routes {
    /// The number of a route that a handler upgraded to.
    fn number(&mut self, ws: &Ws, hooks: &Rc<Hooks>) -> u16 {
        let same = |(route, known): &(Rc<Route>, Rc<Hooks>)| Rc::ptr_eq(route, &ws.0) && Rc::ptr_eq(known, hooks);
        let index = self.list.iter().position(same).unwrap_or_else(|| {
            self.list.push((Rc::clone(&ws.0), Rc::clone(hooks)));
            self.list.len() - 1
        });
        index as u16
    }
}

/// Answers a request even if its handler panics or is dropped.
struct AnswerGuard {
    answers: Rc<RefCell<Answers>>,
    slot: u32,
    generation: u32,
    answer: Option<Answer>,
}

impl Drop for AnswerGuard {
    fn drop(&mut self) {
        let failed = || Answer::Response(Reply::error(StatusCode::INTERNAL_SERVER_ERROR, "internal error"));
        let answer = self.answer.take().unwrap_or_else(failed);
        self.answers.borrow_mut().ready.push((self.slot, self.generation, answer));
    }
}

/// Closes a connection whose task panicked.
struct PanicGuard {
    core: Rc<CoreContext>,
    id: crate::id::ConnectionId,
    is_done: bool,
}

impl Drop for PanicGuard {
    fn drop(&mut self) {
        if !self.is_done {
            let id = self.id;
            self.core.runtime.with_hub(move |hub| {
                if let Some(slot) = hub.resolve(id) {
                    hub.close(slot, Some(1011), "internal error");
                }
            });
        }
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

/// How to open a route's WebSocket for a request whose hooks have agreed.
fn accept(route: &Route, request: &mut Request, number: u16) -> Result<Accept, HttpError> {
    if request.protocol.is_none() && !route.protocols.is_empty() {
        let chosen = request.protocols().find(|offered| route.protocols.iter().any(|known| known == offered));
        request.protocol = chosen.map(str::to_owned);
        if request.protocol.is_none() && route.protocol_required {
            return Err(HttpError::bad_request("unsupported subprotocol"));
        }
    }
    let headers: Vec<(HeaderName, HeaderValue)> = std::mem::take(&mut request.added_headers);
    Ok(Accept { route: number, protocol: request.protocol.clone(), headers })
}

fn refusal(error: HttpError, request: &Request) -> Reply {
    let mut reply = Reply::from(error);
    reply.headers.extend(request.added_headers.iter().cloned());
    reply
}
