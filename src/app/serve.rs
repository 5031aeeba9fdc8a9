//! An app on one core: the [`Service`] that its routes become.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;

use crate::app::answered::Answered;
use crate::app::before::{Before, LocalBoxFuture, check, check_now};
use crate::app::calls::Call;
use crate::app::connection::{Connection, Shared};
use crate::app::context::{CoreContext, Kept};
use crate::app::cors::Cors;
use crate::app::definition::{Hooks, HttpHandler};
use crate::app::error_http::HttpError;
use crate::app::group::{App, LostMember, OnShutdown, Parts};
use crate::app::handlers::Handler;
use crate::app::inbox::{Inbox, Pushed};
use crate::app::reply::{BoxError, FailurePolicy, Panicked};
use crate::app::request::Request;
use crate::app::response::Outcome;
use crate::app::router::{Endpoint, Params, Router};
use crate::app::routes::{HeldRoute, Routes};
use crate::app::socket::{OnKnown, Socket};
use crate::app::state::Core;
use crate::app::ws::{Mode, OnClose, Route};
use crate::closed::Closed;
use crate::guard::{Guarded, GuardedFuture, guarded, text};
use crate::hub::{CoreHub, Known, READY_BYTES_MAX, RouteName};
use crate::message::{Message, OwnedMessage};
use crate::outbox::{Dropped, FrameBuf};
use crate::proto::Incoming;
use crate::proto::frame::Opcode;
use crate::proto::handshake;
use crate::proto::http::{HeadLimits, RequestHead, parse_head};
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
    kept: Kept,
    answers: Answers,
    /// When requests were complete that are not answered, by slot, with its generation; where somebody wants to know.
    begun: HashMap<u32, (u32, u64)>,
    on_shutdown: Vec<OnShutdown>,
    /// The core's.
    number: usize,
}

/// What tasks have answered, with the slots and generations of the requests.
type Answers = Rc<RefCell<Vec<(u32, u32, Answer)>>>;

/// What a request leaves to the WebSocket that it opens.
struct Opening {
    request: Request,
    held: Option<HeldRoute>,
}

impl CoreApp {
    pub(crate) fn new(app: App, hub: &mut CoreHub, handle: Hub) -> CoreApp {
        let Parts { router, envelope, shared, values, on_shutdown, tell_lost } = app.into_parts();
        if let Some(tell) = tell_lost {
            hub.set_tell_lost(Box::new(move |room, id, is_back| {
                let said = guarded("an app's word of lost members", || tell(&LostMember { room, id, is_back }));
                let (event, data) = said.flatten()?;
                let text = envelope.encode(&event, &data).ok()?;
                Some(FrameBuf::new(Opcode::Text, &text))
            }));
        }
        handle.set_envelope(envelope);
        hub.set_route_paths(router.ws.iter().map(|(_, path, _)| Arc::from(path.as_str())));
        hub.set_route_limits(router.ws.iter().map(|(ws, ..)| ws.0.limits.clone()).collect());
        hub.set_histories(router.ws.iter().flat_map(|(ws, ..)| ws.0.limits.histories.iter().cloned()));
        handle.set_histories(hub.histories());
        let routes = Routes::new(router.ws.iter().map(|(ws, _, hooks)| (Rc::clone(&ws.0), Rc::clone(hooks))));
        let runtime = Runtime::new();
        if let Some(waker) = handle.courier().waker(hub.core()) {
            runtime.set_waker(waker);
        }
        runtime.make_current();
        CoreApp {
            core: Rc::new(CoreContext::new(handle, runtime, envelope, shared, values)),
            router: Rc::new(router),
            routes: Rc::new(RefCell::new(routes)),
            kept: Kept::default(),
            answers: Rc::default(),
            begun: HashMap::new(),
            on_shutdown,
            number: hub.core(),
        }
    }

    /// The core runs on this thread, beside a test, which must not wait for it.
    #[cfg(feature = "testing")]
    pub(crate) fn share_thread(&self) {
        self.core.runtime.share_thread();
        self.core.runtime.make_current();
    }

    fn route(&self, number: u16) -> (Rc<Route>, Rc<Hooks>) {
        let routes = self.routes.borrow();
        let (route, hooks) = routes.at(number);
        (Rc::clone(route), Rc::clone(hooks))
    }

    #[inline]
    fn socket<'a>(&'a mut self, hub: &'a mut CoreHub, slot: u32, route: &Route) -> Socket<'a> {
        let Kept { states, requests } = &mut self.kept;
        Socket { hub, core: &self.core, states, requests, slot, discards_replies: route.mode == Mode::ReceiveOnly }
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
        if let (Some(endpoint), true) = (endpoint, Cors::is_question(head))
            && let (Some(cors), false) = (router.layers.cors(head.path()), endpoint.has_handler("OPTIONS"))
        {
            return Answer::Response(cors.answer(head, endpoint.allowed()));
        }
        let request = match Request::new(inbound, params, self.core.hub.clone()) {
            Ok(mut request) => {
                request.shared = Arc::clone(&self.core.shared);
                request
            }
            Err(error) => return Answer::Response(error.into()),
        };
        let Some(endpoint) = endpoint else {
            return match router.fallback(head.path(), serves) {
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
        let is_later = |before: &Before| matches!(before, Before::Later(_));
        if hooks.before.iter().chain(&route.before).any(is_later) {
            let hooks = Rc::clone(hooks);
            let answered = AnswerGuard { answers: Rc::clone(&self.answers), slot, generation, answer: None };
            let task = async move {
                // Whole, so that it also answers for a hook that panics.
                let mut answered = answered;
                answered.answer = Some(match check(hooks.before.iter().chain(&route.before), &mut request).await {
                    Ok(()) => open_or_refuse(&route, request, number, None),
                    Err(error) => Answer::Response(refusal(error, &request)),
                });
            };
            self.core.runtime.spawn(task).detach();
            return Answer::Later;
        }
        match check_now(hooks.before.iter().chain(&route.before), &mut request) {
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
            if let Err(error) = check(&hooks.before, &mut request).await {
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
                    match (check(&ws.0.before, &mut request).await, Routes::hold(&routes, &ws.0, &hooks, path)) {
                        (Err(error), _) => Answer::Response(refusal(error, &request)),
                        (Ok(()), Some(held)) => open_or_refuse(&ws.0, request, held.number(), Some(held)),
                        (Ok(()), None) => Answer::Response(HttpError::unavailable("too many routes").into()),
                    }
                }
            };
            answered.answer = Some(answer);
        };
        self.core.runtime.spawn(task).detach();
        Answer::Later
    }

    /// Does what tasks have asked to be done with sockets.
    fn run_calls(&mut self, hub: &mut CoreHub) {
        for (id, call) in self.core.calls.take() {
            if let (Some(slot), Ok(call)) = (hub.find(id), call.downcast::<Call>()) {
                let (route, _) = self.route(hub.route(slot));
                self.socket(hub, slot, &route).run(&route.rules, call.0);
            }
        }
    }

    /// Starts the task that handles a connection's messages.
    fn start_task(&mut self, hub: &mut CoreHub, slot: u32, route: &Rc<Route>) {
        let inbox = Inbox::new(route.inbox_depth, Rc::clone(&self.core.inbox_bytes));
        let (id, peer, handle) = (hub.id(slot), hub.peer(slot), self.core.hub.clone());
        let request = self.kept.requests.get(slot).filter(|_| !route.forget_request).cloned();
        let state = self.kept.states.get_or_insert(slot);
        state.inbox = Some(Rc::clone(&inbox));
        let sender = match route.mode {
            Mode::SendOnly => state.sender(id, handle, || hub.begin_senders(slot)),
            Mode::TwoWay | Mode::ReceiveOnly => state.weak_sender(id, handle),
        };
        let connection = Connection::new(Shared {
            core: Rc::clone(&self.core),
            inbox,
            rules: Rc::clone(&route.rules),
            discards_replies: route.mode == Mode::ReceiveOnly,
            route_name: hub.route_name(slot),
            request,
            extensions: Rc::clone(state.extensions.get_or_insert_default()),
            sender,
            id,
            peer,
            opened_ns: hub.opened_ns(slot),
            is_handling: Cell::new(false),
            reads: true,
        });
        let route = Rc::clone(route);
        let task = async move {
            match &route.handler {
                Handler::Task(task) => {
                    let result = caught(task(connection.clone())).await;
                    settle(&connection, &route, result);
                    connection.end_message();
                }
                Handler::MessageAsync(handler) => {
                    handle_messages(connection.clone(), &route, handler.as_ref()).await;
                }
                Handler::Message(_) | Handler::None => {}
            }
            if route.mode == Mode::SendOnly {
                let _gone = connection.lend(|socket| socket.hub.close_with_senders(socket.slot));
            }
            // The connection's own sender ends here: a send-only connection closes if there is no other.
        };
        self.core.runtime.spawn(task).detach();
    }
}

async fn handle_messages(
    mut connection: Connection,
    route: &Route,
    handler: &dyn Fn(Connection, Option<OwnedMessage>) -> LocalBoxFuture<'static, Result<(), BoxError>>,
) {
    let mut is_trigger = route.triggers();
    loop {
        let message = if is_trigger { None } else { Some(connection.recv().await) };
        let Some(message) = message.map_or(Some(None), |received| received.map(Some)) else { return };
        let result = caught(handler(connection.clone(), message)).await;
        let goes_on = settle(&connection, route, result);
        connection.end_message();
        // What comes to a connection that only sends is discarded.
        if !goes_on || route.mode == Mode::SendOnly {
            return;
        }
        is_trigger = false;
    }
}

/// Runs what a user wrote.
async fn caught(future: LocalBoxFuture<'static, Result<(), BoxError>>) -> Result<(), BoxError> {
    let mut future = GuardedFuture::new(future);
    poll_fn(|cx| future.poll_attempt(cx)).await.unwrap_or_else(|panic| Err(Panicked::boxed(panic)))
}

/// Does for a task's handler that has failed what is done for one that does not wait; false if that is the end.
fn settle(connection: &Connection, route: &Route, result: Result<(), BoxError>) -> bool {
    let Err(error) = result else { return true };
    let mut error = Some(Guarded::new(error));
    // Closing or not: the handler's failure is its author's to know.
    let goes_on = connection.lend(|socket| {
        let error = error.take().expect("there is one");
        let goes_on = route.rules.failure.close_for(&error).is_none();
        socket.failed(&route.rules, error.into_inner());
        goes_on
    });
    if let Some(error) = error {
        let error = text(&line(&*error));
        tracing::error!(id = %connection.id(), error, "a task failed after its connection had ended");
    }
    goes_on.unwrap_or(route.rules.failure == FailurePolicy::Keep)
}

impl Drop for CoreApp {
    fn drop(&mut self) {
        // Destructors of states and tasks may spawn and sleep, as anything that runs on a core may.
        self.core.runtime.make_current();
        self.kept = Kept::default();
        self.core.runtime.end();
        drop(self.core.calls.take());
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

    fn take_wakes(&mut self, wake: &mut dyn FnMut(usize)) {
        self.core.runtime.take_wakes(wake);
    }

    fn request(&mut self, hub: &mut CoreHub, slot: u32, generation: u32, inbound: &Inbound<'_, '_>) -> Answer {
        if !self.router.layers.is_empty() {
            self.begun.insert(slot, (generation, self.core.runtime.now_ns()));
        }
        let answer = self.answer(slot, generation, inbound);
        self.core.runtime.catch_up(hub);
        answer
    }

    fn answering(&mut self, slot: u32, generation: u32, asked: &[u8], reply: &mut Reply) {
        if self.router.layers.is_empty() {
            return;
        }
        let begun = self.begun.remove(&slot).filter(|(of, _)| *of == generation).map(|(_, since_ns)| since_ns);
        let latency = begun.map_or(0, |since_ns| self.core.runtime.now_ns().saturating_sub(since_ns));
        let limits = HeadLimits { bytes_max: usize::MAX, ..HeadLimits::default() };
        let head = parse_head(asked, &limits).ok();
        let latency = Duration::from_nanos(latency);
        let asked = head.as_ref().map(|head| (head.method(), head.path()));
        let fields = head.as_ref().map_or(&[][..], |head| head.all());
        self.router.layers.apply(&mut Answered { asked, fields, reply, latency });
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
            Ok(None) => self.router.fallback(head.path(), serves).is_none().then(not_found),
        }
    }

    fn open(&mut self, hub: &mut CoreHub, slot: u32, context: Option<Box<dyn Any>>) {
        let number = hub.route(slot);
        let (route, _) = self.route(number);
        if let Some(Opening { mut request, held }) = context.and_then(|context| context.downcast().ok()).map(|it| *it) {
            if let Some(held) = held {
                hub.set_limits_of(number, route.limits.clone());
                hub.name_route(number, RouteName { path: held.path(), made_at: Some(route.made_at) });
                self.kept.states.get_or_insert(slot).keeps = Some(Box::new(held));
            }
            let extensions = request.take_extensions();
            if !extensions.is_empty() {
                self.kept.states.get_or_insert(slot).extensions = Some(Rc::new(RefCell::new(extensions)));
            }
            if !route.forget_request || route.on_connect.is_some() || route.triggers() {
                self.kept.requests.set(slot, Rc::new(request));
            }
        }
        if let Some(on_connect) = &route.on_connect {
            self.socket(hub, slot, &route).run(&route.rules, |socket| on_connect(socket));
        }
        let is_task = matches!(route.handler, Handler::Task(_) | Handler::MessageAsync(_));
        match &route.handler {
            Handler::Task(_) | Handler::MessageAsync(_) if hub.is_open(slot) => self.start_task(hub, slot, &route),
            Handler::Message(handler) if route.triggers() && hub.is_open(slot) => {
                self.socket(hub, slot, &route).run(&route.rules, |socket| handler(socket, None));
            }
            _ => {}
        }
        if route.mode == Mode::SendOnly && !is_task {
            // A stream holds back what comes meanwhile, and here nothing is handled that comes.
            hub.release(hub.id(slot));
            if self.kept.states.get(slot).is_some_and(|state| state.has_senders()) {
                hub.close_with_senders(slot);
            } else {
                hub.close(slot, Some(1000), "done");
            }
        }
        if route.forget_request {
            self.kept.requests.take(slot);
            self.kept.states.drop_if_empty(slot);
        }
    }

    #[inline]
    fn message(&mut self, hub: &mut CoreHub, slot: u32, message: Incoming<'_>) {
        let message = Message(message);
        if self.core.questions.take(slot, &message) {
            return;
        }
        let route = Rc::clone(&self.routes.borrow().at(hub.route(slot)).0);
        if route.mode == Mode::SendOnly {
            hub.counters.messages_discarded += 1;
            return;
        }
        match &route.handler {
            Handler::Message(handler) => {
                let mut socket = self.socket(hub, slot, &route);
                if socket.before_message(&route.rules, &message) {
                    socket.run(&route.rules, |socket| handler(socket, Some(message)));
                    socket.after_message(&route.rules);
                }
            }
            // The task calls the interceptors.
            Handler::Task(_) | Handler::MessageAsync(_) => {
                let inbox = self.kept.states.get(slot).and_then(|state| state.inbox.as_ref());
                match inbox.map_or(Pushed::Discarded, |inbox| inbox.push(message.into_owned())) {
                    Pushed::Yes => {}
                    Pushed::Full => hub.hold(slot),
                    Pushed::Discarded => hub.counters.messages_discarded += 1,
                }
            }
            Handler::None => {
                hub.counters.messages_discarded += 1;
                let mut socket = self.socket(hub, slot, &route);
                if socket.before_message(&route.rules, &message) {
                    socket.after_message(&route.rules);
                }
            }
        }
    }

    fn known(&mut self, hub: &mut CoreHub, known: &Known) {
        let then = self.kept.states.get_mut(known.slot).and_then(|state| state.take_change(known.number));
        let then = then.and_then(|then| then.downcast::<OnKnown>().ok());
        if let (Some(then), Some(members)) = (then, known.members) {
            let (route, _) = self.route(hub.route(known.slot));
            self.socket(hub, known.slot, &route).tell(&route.rules, |socket| (then.0)(socket, members));
        }
    }

    fn ping(&mut self, hub: &mut CoreHub, slot: u32, payload: &[u8]) {
        let (route, _) = self.route(hub.route(slot));
        if let Some(on_ping) = &route.on_ping {
            self.socket(hub, slot, &route).run(&route.rules, |socket| on_ping(socket, payload));
        }
    }

    fn pong(&mut self, hub: &mut CoreHub, slot: u32, payload: &[u8]) {
        let (route, _) = self.route(hub.route(slot));
        if let Some(on_pong) = &route.on_pong {
            self.socket(hub, slot, &route).run(&route.rules, |socket| on_pong(socket, payload));
        }
    }

    fn dropped(&mut self, hub: &mut CoreHub, slot: u32, dropped: &Dropped) {
        let (route, _) = self.route(hub.route(slot));
        if let Some(on_drop) = &route.on_drop {
            self.socket(hub, slot, &route).tell(&route.rules, |socket| on_drop(socket, dropped));
        }
    }

    fn drained(&mut self, hub: &mut CoreHub, slot: u32, from_bytes: usize) {
        if hub.has_fallen(slot, from_bytes, READY_BYTES_MAX)
            && let Some(inbox) = self.kept.states.get(slot).and_then(|state| state.inbox.as_ref())
        {
            inbox.wake_senders();
        }
        if hub.has_fallen(slot, from_bytes, READY_BYTES_MAX) {
            hub.tell_ready(slot);
        }
        let wants = hub.limits(slot).drain_below_bytes.is_some_and(|below| hub.has_fallen(slot, from_bytes, below));
        if !wants || !hub.is_open(slot) {
            return;
        }
        let (route, _) = self.route(hub.route(slot));
        if let Some(on_drain) = &route.on_drain {
            self.socket(hub, slot, &route).tell(&route.rules, |socket| on_drain(socket));
        }
    }

    fn shutting_down(&mut self) {
        for hook in &self.on_shutdown {
            let hook = Rc::clone(hook);
            let core = Core::new(self.number, self.core.hub.clone());
            self.core.runtime.spawn(async move { hook(core).await }).detach();
        }
    }

    fn inbox_bytes(&self) -> usize {
        self.core.inbox_bytes.get()
    }

    fn inbox_bytes_of(&self, slot: u32) -> usize {
        let inbox = self.kept.states.get(slot).and_then(|state| state.inbox.as_ref());
        inbox.map_or(0, |inbox| inbox.bytes()) + self.core.questions.bytes_of(slot)
    }

    fn empty_inbox(&mut self, slot: u32) {
        if let Some(inbox) = self.kept.states.get(slot).and_then(|state| state.inbox.as_ref()) {
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
        let mut socket = self.socket(hub, slot, &route);
        let mut call = |what: &str, hook: &OnClose| {
            guarded(what, || hook(&mut socket, &closed));
        };
        if let Some(on_close) = &route.on_close {
            call("on_close", on_close);
        }
        for after in route.after.iter().chain(&hooks.after) {
            call("an after hook", after);
        }
        if let Some(state) = self.kept.states.take(slot)
            && let Some(inbox) = &state.inbox
        {
            inbox.close(hub.now_ns);
        }
        self.kept.requests.take(slot);
        self.core.questions.end(slot);
        self.core.runtime.catch_up(hub);
    }

    fn run_tasks(&mut self, hub: &mut Option<Box<CoreHub>>) {
        self.core.lent.replace(std::mem::take(&mut self.kept));
        self.core.runtime.run(hub);
        self.kept = self.core.lent.take();
        if let Some(hub) = hub {
            self.run_calls(hub);
        }
    }

    fn take_answers(&mut self, answers: &mut Vec<(u32, u32, Answer)>) {
        answers.append(&mut self.answers.borrow_mut());
    }

    fn is_ready(&self) -> bool {
        self.core.runtime.is_ready() || !self.core.calls.borrow().is_empty()
    }

    fn next_due_ns(&self) -> Option<u64> {
        self.core.runtime.next_due_ns()
    }
}

/// What of an endpoint is asked for where it is a WebSocket. A path may have both: then an ordinary GET is HTTP, and a handshake
/// is WebSocket.
fn websocket<'e>(endpoint: &'e Endpoint, head: &RequestHead<'_>) -> Option<&'e (u16, Rc<Hooks>)> {
    let has_http = endpoint.has_handler(head.method());
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

fn not_found() -> Reply {
    Reply::error(StatusCode::NOT_FOUND, "not found")
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
    let (protocol, refuses_deflate) = (request.protocol.clone(), request.refuses_deflate);
    let context = Some(Box::new(Opening { request, held }) as Box<dyn Any>);
    Answer::WebSocket(Accept { route: number, protocol, refuses_deflate, headers, context })
}

fn refusal(error: HttpError, request: &Request) -> Reply {
    let mut reply = Reply::from(error);
    reply.headers.extend(request.added_headers.iter().cloned());
    reply
}
