//! The handlers of a route's messages: those that answer at once, those that wait, by kinds of messages, and what they come to.

use std::rc::Rc;

use crate::app::before::LocalBoxFuture;
use crate::app::connection::Connection;
use crate::app::reply::{BoxError, HandlerReply, IntoReply};
use crate::app::socket::Socket;
use crate::app::stream::Greeting;
use crate::guard::Guarded;
use crate::message::{Message, OwnedMessage, borrowed};
use crate::proto::Kind;

/// Without a message when it runs because the connection has opened.
type OnMessage = Rc<dyn Fn(&mut Socket<'_>, Option<Message<'_>>) -> Result<(), BoxError>>;
type OnMessageAsync = Rc<dyn Fn(Connection, Option<OwnedMessage>) -> LocalBoxFuture<'static, Result<(), BoxError>>>;
type OnTask = Rc<dyn Fn(Connection) -> LocalBoxFuture<'static, Result<(), BoxError>>>;
pub(crate) type OnControl = Rc<dyn Fn(&mut Socket<'_>, &[u8]) -> Result<(), BoxError>>;

#[derive(Clone, Default)]
pub(crate) enum Handler {
    #[default]
    None,
    Message(OnMessage),
    MessageAsync(OnMessageAsync),
    Task(OnTask),
}

/// What the message handler gets when it runs without a message.
pub(crate) fn no_message<'m>() -> Message<'m> {
    borrowed(Kind::Text, b"")
}

pub(crate) fn now<R: HandlerReply>(handler: impl Fn(&mut Socket<'_>, Message<'_>) -> R + 'static) -> Handler {
    let handler = Guarded::new(handler);
    now_or_at_open(move |socket, message| handler(socket, message.unwrap_or_else(no_message)))
}

pub(crate) fn now_or_at_open<R: HandlerReply>(
    handler: impl Fn(&mut Socket<'_>, Option<Message<'_>>) -> R + 'static,
) -> Handler {
    let handler = Guarded::new(handler);
    Handler::Message(Rc::new(move |socket, message| {
        let reply = handler(socket, message);
        reply.into_reply().reply(socket)
    }))
}

pub(crate) fn later<F, R>(handler: F) -> Handler
where
    F: AsyncFn(Connection, OwnedMessage) -> R + 'static,
    R: HandlerReply,
{
    let handler = Rc::new(Guarded::new(handler));
    Handler::MessageAsync(Rc::new(move |connection: Connection, message| {
        let handler = Rc::clone(&handler);
        let mut replies = connection.clone();
        let message = message.unwrap_or_else(|| OwnedMessage::text(""));
        Box::pin(async move { replies.deliver(handler(connection, message).await).await })
    }))
}

pub(crate) fn later_or_at_open<F, R>(handler: F) -> Handler
where
    F: AsyncFn(Connection, Option<OwnedMessage>) -> R + 'static,
    R: HandlerReply,
{
    let handler = Rc::new(Guarded::new(handler));
    Handler::MessageAsync(Rc::new(move |connection: Connection, message| {
        let handler = Rc::clone(&handler);
        let mut replies = connection.clone();
        Box::pin(async move { replies.deliver(handler(connection, message).await).await })
    }))
}

pub(crate) fn control<R: HandlerReply>(handler: impl Fn(&mut Socket<'_>, &[u8]) -> R + 'static) -> OnControl {
    let handler = Guarded::new(handler);
    Rc::new(move |socket, payload| {
        let reply = handler(socket, payload);
        reply.into_reply().reply(&mut Greeting(socket))
    })
}

/// The handlers of a route's messages, as they were given.
#[derive(Clone, Default)]
pub(crate) struct Handlers {
    pub(crate) text: Handler,
    pub(crate) binary: Handler,
    /// Of what has no handler of its kind.
    pub(crate) other: Handler,
}

impl Handlers {
    fn of(&self, is_text: bool) -> &Handler {
        match if is_text { &self.text } else { &self.binary } {
            Handler::None => &self.other,
            handler => handler,
        }
    }

    /// One handler for all messages.
    pub(crate) fn joined(&self) -> Handler {
        if let (Handler::None, Handler::None) = (&self.text, &self.binary) {
            return self.other.clone();
        }
        let handlers = self.clone();
        let may_wait = [true, false].iter().any(|is_text| matches!(self.of(*is_text), Handler::MessageAsync(_)));
        if !may_wait {
            return Handler::Message(Rc::new(move |socket, message| handlers.call(socket, message)));
        }
        let handlers = Rc::new(handlers);
        Handler::MessageAsync(Rc::new(move |connection: Connection, message: Option<OwnedMessage>| {
            let is_text = message.as_ref().is_none_or(OwnedMessage::is_text);
            if let Handler::MessageAsync(handler) = handlers.of(is_text) {
                return handler(connection, message);
            }
            let handlers = Rc::clone(&handlers);
            Box::pin(async move {
                let message = message.as_ref().map(OwnedMessage::as_message);
                // Where the connection has ended meanwhile, there is nothing to be handled.
                connection.lend(|socket| handlers.call(socket, message)).unwrap_or(Ok(()))
            })
        }))
    }

    fn call(&self, socket: &mut Socket<'_>, message: Option<Message<'_>>) -> Result<(), BoxError> {
        let is_text = message.as_ref().is_none_or(Message::is_text);
        if let Handler::Message(handler) = self.of(is_text) {
            return handler(socket, message);
        }
        socket.hub.counters.messages_discarded += 1;
        Ok(())
    }
}
