//! The comparison servers: echo and broadcast on one WebSocket library each, one small file each.
//!
//! All alike: one thread, release build, no compression, TCP_NODELAY, messages up to 16 MiB, queues of 4,096 messages per
//! connection, and as few writes as the library allows: what is read at once is answered at once.

mod fastwebsockets;
mod sockudo_ws;
mod tokio_tungstenite;
mod tokio_uring_tungstenite;
mod tokio_websockets;
mod yawc;

use std::{
    cell::RefCell,
    future::{Future, poll_fn},
    net::SocketAddr,
    rc::Rc,
    task::Poll,
};

use futures_util::{Sink, SinkExt, Stream, StreamExt};
use peers::{process, runner::Outcome};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::mpsc,
    task::LocalSet,
};

/// Largest message.
const MESSAGE_BYTES_MAX: usize = 16 << 20;
/// Messages that may wait for one connection.
const QUEUE_MAX: usize = 4096;

/// What is done with a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Mode {
    /// It goes back.
    Echo,
    /// It goes to everybody.
    Broadcast,
}

/// Serves at an address until the process is stopped.
type Serve = fn(SocketAddr, Mode) -> Outcome<()>;

/// The servers by name.
pub(crate) const ALL: [(&str, Serve); 6] = [
    ("tokio-tungstenite", tokio_tungstenite::serve),
    ("fastwebsockets", fastwebsockets::serve),
    ("tokio-websockets", tokio_websockets::serve),
    ("sockudo-ws", sockudo_ws::serve),
    ("yawc", yawc::serve),
    ("tokio-uring+tungstenite", tokio_uring_tungstenite::serve),
];

/// A message of some library. A clone must be cheap.
trait Data: Clone + 'static {
    fn is_data(&self) -> bool;
}

/// Everybody on `/broadcast`.
struct Hub<M>(Rc<RefCell<Vec<Option<mpsc::Sender<M>>>>>);

impl<M> Clone for Hub<M> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<M: Clone> Hub<M> {
    fn new() -> Self {
        Self(Rc::default())
    }

    fn join(&self) -> (usize, mpsc::Receiver<M>) {
        let (sender, receiver) = mpsc::channel(QUEUE_MAX);
        let mut members = self.0.borrow_mut();
        let place = members.iter().position(Option::is_none).unwrap_or(members.len());
        if place == members.len() {
            members.push(None);
        }
        members[place] = Some(sender);
        (place, receiver)
    }

    fn leave(&self, place: usize) {
        self.0.borrow_mut()[place] = None;
    }

    fn publish(&self, message: &M) {
        self.0.borrow().iter().flatten().for_each(|member| drop(member.try_send(message.clone())));
    }
}

/// Accepts on one thread and gives every connection a task.
fn serve_tokio<F: Future<Output = ()> + 'static>(addr: SocketAddr, handle: impl Fn(TcpStream) -> F) -> Outcome<()> {
    process::raise_nofile()?;
    process::exit_on_signals();
    let listener = process::listen(addr)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    LocalSet::new().block_on(&runtime, async {
        listener.set_nonblocking(true)?;
        process::announce(&listener)?;
        let listener = TcpListener::from_std(listener)?;
        loop {
            let (stream, _) = listener.accept().await?;
            tokio::task::spawn_local(handle(stream));
        }
    })
}

/// Serves with a library whose WebSocket is a stream and a sink; `accept` does its handshake.
fn serve_sessions<M: Data, E, S, F>(addr: SocketAddr, mode: Mode, accept: impl Fn(TcpStream) -> F) -> Outcome<()>
where
    S: Stream<Item = Result<M, E>> + Sink<M> + Unpin,
    F: Future<Output = Option<S>> + 'static,
{
    let hub = Hub::new();
    serve_tokio(addr, move |stream| {
        let (hub, accepting) = (hub.clone(), accept(stream));
        async move {
            if let Some(socket) = accepting.await {
                session(socket, mode, hub).await;
            }
        }
    })
}

/// One connection of a library whose WebSocket is a stream and a sink.
async fn session<M: Data, E>(mut socket: impl Stream<Item = Result<M, E>> + Sink<M> + Unpin, mode: Mode, hub: Hub<M>) {
    match mode {
        Mode::Echo => drop(echo(&mut socket).await),
        Mode::Broadcast => {
            let (place, receiver) = hub.join();
            drop(broadcast(&mut socket, &hub, receiver).await);
            hub.leave(place);
        }
    }
}

async fn echo<M: Data, E, S: Stream<Item = Result<M, E>> + Sink<M> + Unpin>(socket: &mut S) -> Result<(), S::Error> {
    while let Some(Ok(message)) = socket.next().await {
        let mut next = Some(message);
        while let Some(message) = next {
            if message.is_data() {
                socket.feed(message).await?;
            }
            next = here_already(socket).await;
        }
        socket.flush().await?;
    }
    Ok(())
}

async fn broadcast<M: Data, E, S: Stream<Item = Result<M, E>> + Sink<M> + Unpin>(
    socket: &mut S,
    hub: &Hub<M>,
    mut queue: mpsc::Receiver<M>,
) -> Result<(), S::Error> {
    loop {
        tokio::select! {
            message = socket.next() => {
                let Some(Ok(message)) = message else { return Ok(()) };
                let mut next = Some(message);
                while let Some(message) = next {
                    if message.is_data() {
                        hub.publish(&message);
                    }
                    next = here_already(socket).await;
                }
                socket.flush().await?;
            }
            Some(message) = queue.recv() => {
                socket.feed(message).await?;
                while let Ok(message) = queue.try_recv() {
                    socket.feed(message).await?;
                }
                socket.flush().await?;
            }
        }
    }
}

/// The next message, if it has been read already.
async fn here_already<M, E>(socket: &mut (impl Stream<Item = Result<M, E>> + Unpin)) -> Option<M> {
    poll_fn(|context| match socket.poll_next_unpin(context) {
        Poll::Ready(message) => Poll::Ready(message.and_then(Result::ok)),
        Poll::Pending => Poll::Ready(None),
    })
    .await
}
