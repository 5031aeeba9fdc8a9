//! tungstenite on tokio-uring: the sockets are tokio-uring's, the protocol is tungstenite's over a buffer in memory.

use std::{
    cell::RefCell,
    io::{self, Read, Write},
    net::SocketAddr,
    rc::Rc,
};

use peers::{process, runner::Outcome};
use tokio::sync::{Notify, mpsc};
use tokio_uring::net::{TcpListener, TcpStream};
use tungstenite::{
    Message, WebSocket,
    handshake::derive_accept_key,
    protocol::{Role, WebSocketConfig},
};

use super::{Data, Hub, MESSAGE_BYTES_MAX, Mode};

/// Bytes of one receive.
const READ_BYTES: usize = 16 << 10;

/// What was received, and what is to be sent.
#[derive(Default)]
struct Memory {
    input: Vec<u8>,
    read: usize,
    output: Vec<u8>,
}

impl Read for Memory {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = (&self.input[self.read..]).read(buffer)?;
        self.read += count;
        if self.read == self.input.len() {
            self.input.clear();
            self.read = 0;
        }
        if count == 0 { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(count) }
    }
}

impl Write for Memory {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        self.output.write(buffer)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

pub(super) fn serve(addr: SocketAddr, mode: Mode) -> Outcome<()> {
    process::raise_nofile()?;
    process::exit_on_signals();
    let listener = process::listen(addr)?;
    let hub = Hub::new();
    tokio_uring::builder().entries(4096).start(async move {
        process::announce(&listener)?;
        let listener = TcpListener::from_std(listener);
        loop {
            let (stream, _) = listener.accept().await?;
            let hub = hub.clone();
            tokio_uring::spawn(async move {
                let stream = Rc::new(stream);
                let served = match mode {
                    Mode::Echo => echo(&stream).await,
                    Mode::Broadcast => broadcast(&stream, hub).await,
                };
                drop(served);
            });
        }
    })
}

/// Answers the opening handshake.
async fn accept(stream: &TcpStream) -> io::Result<WebSocket<Memory>> {
    let mut head = Vec::new();
    let mut buffer = vec![0; 1024];
    while !head.ends_with(b"\r\n\r\n") {
        let (read, filled) = stream.read(buffer).await;
        buffer = filled;
        match read? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            count => head.extend_from_slice(&buffer[..count]),
        }
    }
    let head = String::from_utf8_lossy(&head);
    let key = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("sec-websocket-key").then(|| value.trim())
    });
    let key = key.ok_or(io::ErrorKind::InvalidData)?;
    let response = format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {}\r\n\r\n",
        derive_accept_key(key.as_bytes())
    );
    stream.write_all(response.into_bytes()).await.0?;
    let config = WebSocketConfig::default().read_buffer_size(READ_BYTES).max_message_size(Some(MESSAGE_BYTES_MAX));
    Ok(WebSocket::from_raw_socket(Memory::default(), Role::Server, Some(config)))
}

/// Hands every complete message to `take`; false at the end.
fn messages(socket: &mut WebSocket<Memory>, mut take: impl FnMut(&mut WebSocket<Memory>, Message)) -> bool {
    loop {
        match socket.read() {
            Ok(message) if message.is_data() => take(socket, message),
            Ok(_) => {}
            Err(tungstenite::Error::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => return true,
            Err(_) => return false,
        }
    }
}

async fn send(stream: &TcpStream, output: Vec<u8>) -> io::Result<Vec<u8>> {
    let (sent, mut output) = stream.write_all(output).await;
    sent?;
    output.clear();
    Ok(output)
}

async fn echo(stream: &TcpStream) -> io::Result<()> {
    let mut socket = accept(stream).await?;
    let mut buffer = vec![0; READ_BYTES];
    loop {
        let (read, filled) = stream.read(buffer).await;
        buffer = filled;
        let count = read?;
        if count == 0 {
            return Ok(());
        }
        socket.get_mut().input.extend_from_slice(&buffer[..count]);
        let open = messages(&mut socket, |socket, message| drop(socket.write(message)));
        drop(socket.flush());
        if !socket.get_ref().output.is_empty() {
            let output = std::mem::take(&mut socket.get_mut().output);
            socket.get_mut().output = send(stream, output).await?;
        }
        if !open {
            return Ok(());
        }
    }
}

async fn broadcast(stream: &Rc<TcpStream>, hub: Hub<Message>) -> io::Result<()> {
    let socket = Rc::new(RefCell::new(accept(stream).await?));
    let (place, queue) = hub.join();
    let wake = Rc::new(Notify::new());
    let writing = tokio_uring::spawn(write(stream.clone(), socket.clone(), queue, wake.clone()));
    let mut buffer = vec![0; READ_BYTES];
    loop {
        let (read, filled) = stream.read(buffer).await;
        buffer = filled;
        let Ok(count @ 1..) = read else { break };
        let mut socket = socket.borrow_mut();
        socket.get_mut().input.extend_from_slice(&buffer[..count]);
        let open = messages(&mut socket, |_, message| hub.publish(&message));
        drop(socket.flush());
        // Pongs and the Close frame are the writer's to send.
        if !socket.get_ref().output.is_empty() {
            wake.notify_one();
        }
        if !open {
            break;
        }
    }
    hub.leave(place);
    let _ = writing.await;
    Ok(())
}

async fn write(
    stream: Rc<TcpStream>,
    socket: Rc<RefCell<WebSocket<Memory>>>,
    mut queue: mpsc::Receiver<Message>,
    wake: Rc<Notify>,
) -> io::Result<()> {
    let mut open = true;
    while open {
        tokio::select! {
            message = queue.recv() => {
                open = message.is_some();
                let mut socket = socket.borrow_mut();
                message.into_iter().for_each(|message| drop(socket.write(message)));
                while let Ok(message) = queue.try_recv() {
                    drop(socket.write(message));
                }
                drop(socket.flush());
            }
            () = wake.notified() => {}
        }
        let output = std::mem::take(&mut socket.borrow_mut().get_mut().output);
        if !output.is_empty() {
            send(&stream, output).await?;
        }
    }
    Ok(())
}
