//! Streams as replies: each item is sent when most of what is queued has left.

use std::cell::Cell;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use futures_core::Stream;

use crate::app::calls::call;
use crate::app::connection::{Connection, Shared};
use crate::app::inbox::Inbox;
use crate::app::reply::{BoxError, HandlerReply, IntoReply, Panicked, ReplySink, ReplyStream, Sent};
use crate::app::socket::Socket;
use crate::guard::GuardedFuture;
use crate::message::Message;

/// What the inbox of a connection holds whose messages go to no task: nothing is put into it.
const NO_TASK_DEPTH: usize = 1;

/// Ends with the first item that fails, and keeps why.
struct UntilFailed {
    items: ReplyStream,
    failed: Option<BoxError>,
}

impl Stream for UntilFailed {
    type Item = crate::message::OwnedMessage;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            match ready!(self.items.poll_next(cx)) {
                Some(Ok(Some(message))) => return Poll::Ready(Some(message)),
                Some(Ok(None)) => {}
                Some(Err(error)) => {
                    self.failed = Some(error);
                    return Poll::Ready(None);
                }
                None => return Poll::Ready(None),
            }
        }
    }
}

/// Keeps a stream for who can wait for it.
struct Deferred<'c> {
    connection: &'c mut Connection,
    stream: Option<ReplyStream>,
}

impl ReplySink for Deferred<'_> {
    fn send_reply(&mut self, message: Message<'_>) -> Sent {
        self.connection.send_reply(message)
    }

    fn send_reply_stream(&mut self, stream: ReplyStream) -> Result<(), BoxError> {
        self.stream = Some(stream).filter(|_| !self.connection.discards_replies());
        Ok(())
    }
}

impl Connection {
    /// Sends a reply; of a stream, all that it brings.
    pub(crate) async fn deliver(&mut self, reply: impl HandlerReply) -> Result<(), BoxError> {
        let mut sink = Deferred { connection: self, stream: None };
        reply.into_reply().reply(&mut sink)?;
        match sink.stream {
            Some(stream) => self.send_replies(stream).await,
            None => Ok(()),
        }
    }

    async fn send_replies(&mut self, stream: ReplyStream) -> Result<(), BoxError> {
        let mut replies = pin!(UntilFailed { items: stream, failed: None });
        // Who has gone, or does not keep up, misses the rest.
        let _ = self.send_stream(replies.as_mut()).await;
        replies.failed.take().map_or(Ok(()), Err)
    }
}

impl ReplySink for Socket<'_> {
    fn send_reply(&mut self, message: Message<'_>) -> Sent {
        if self.discards_replies { Sent::Dropped } else { self.queue(message, None) }
    }

    /// No more messages of the connection are handled until the stream has ended, as none are while a handler waits: so a
    /// peer has one stream and no more.
    fn send_reply_stream(&mut self, stream: ReplyStream) -> Result<(), BoxError> {
        if !self.discards_replies {
            self.start_stream(stream, true);
        }
        Ok(())
    }
}

/// Where the reply of `on_connect` goes: what it streams is sent beside the connection's messages.
pub(crate) struct Greeting<'g, 's>(pub(crate) &'g mut Socket<'s>);

impl ReplySink for Greeting<'_, '_> {
    fn send_reply(&mut self, message: Message<'_>) -> Sent {
        self.0.send_reply(message)
    }

    fn send_reply_stream(&mut self, stream: ReplyStream) -> Result<(), BoxError> {
        if !self.0.discards_replies {
            self.0.start_stream(stream, false);
        }
        Ok(())
    }
}

impl Socket<'_> {
    fn start_stream(&mut self, stream: ReplyStream, holds: bool) {
        let (id, core, sender) = (self.id(), Rc::clone(self.core), self.sender());
        let state = self.states.get_or_insert(self.slot);
        let depth = NO_TASK_DEPTH;
        let inbox = state.inbox.get_or_insert_with(|| Inbox::new(depth, Rc::clone(&core.inbox_bytes)));
        let mut connection = Connection::new(Shared {
            core: Rc::clone(&core),
            inbox: Rc::clone(inbox),
            rules: Rc::default(),
            discards_replies: false,
            route_name: self.hub.route_name(self.slot),
            request: None,
            extensions: Rc::clone(state.extensions.get_or_insert_default()),
            sender,
            id,
            peer: self.hub.peer(self.slot),
            opened_ns: self.hub.opened_ns(self.slot),
            is_handling: Cell::new(false),
            reads: false,
        });
        if holds {
            self.hub.hold(self.slot);
        }
        let sending = async move {
            let mut sending = GuardedFuture::new(Box::pin(async { connection.send_replies(stream).await }));
            let sent = poll_fn(|cx| sending.poll_attempt(cx)).await;
            drop(sending);
            if holds {
                core.runtime.with_hub(move |hub| hub.release(id));
            }
            match sent {
                Ok(Ok(())) => {}
                Ok(Err(error)) => call(&core, id, |_| Err(error)),
                Err(panic) => call(&core, id, |_| Err(Panicked::boxed(panic))),
            }
        };
        self.core.runtime.spawn(sending).detach();
    }
}
