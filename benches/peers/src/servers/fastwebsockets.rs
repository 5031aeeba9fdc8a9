//! fastwebsockets. It has no way to write several frames at once: every message is a write.

use std::{convert::Infallible, net::SocketAddr};

use bytes::Bytes;
use fastwebsockets::{FragmentCollector, FragmentCollectorRead, Frame, OpCode, Payload, WebSocketError, upgrade};
use hyper::{Request, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use peers::runner::Outcome;
use tokio::sync::mpsc;

use super::{Hub, MESSAGE_BYTES_MAX, Mode, serve_tokio};

type Shared = (bool, Bytes);

pub(super) fn serve(addr: SocketAddr, mode: Mode) -> Outcome<()> {
    let hub = Hub::new();
    serve_tokio(addr, move |stream| {
        let hub = hub.clone();
        async move {
            let service = service_fn(move |mut request: Request<Incoming>| {
                let hub = hub.clone();
                async move {
                    let (response, socket) = upgrade::upgrade(&mut request)?;
                    tokio::task::spawn_local(async move {
                        let _ = match mode {
                            Mode::Echo => echo(socket).await,
                            Mode::Broadcast => broadcast(socket, hub).await,
                        };
                    });
                    Ok::<_, WebSocketError>(response)
                }
            });
            let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).with_upgrades().await;
        }
    })
}

async fn echo(socket: upgrade::UpgradeFut) -> Result<(), WebSocketError> {
    let mut socket = socket.await?;
    socket.set_max_message_size(MESSAGE_BYTES_MAX);
    let mut socket = FragmentCollector::new(socket);
    loop {
        let frame = socket.read_frame().await?;
        match frame.opcode {
            OpCode::Close => return Ok(()),
            OpCode::Text | OpCode::Binary => socket.write_frame(frame).await?,
            _ => {}
        }
    }
}

async fn broadcast(socket: upgrade::UpgradeFut, hub: Hub<Shared>) -> Result<(), WebSocketError> {
    let mut socket = socket.await?;
    socket.set_max_message_size(MESSAGE_BYTES_MAX);
    let (reader, mut writer) = socket.split(tokio::io::split);
    let mut reader = FragmentCollectorRead::new(reader);
    let (place, mut queue): (usize, mpsc::Receiver<Shared>) = hub.join();
    let writing = tokio::task::spawn_local(async move {
        while let Some((text, bytes)) = queue.recv().await {
            let opcode = if text { OpCode::Text } else { OpCode::Binary };
            writer.write_frame(Frame::new(true, opcode, None, Payload::Borrowed(&bytes))).await?;
        }
        let _ = writer.write_frame(Frame::close(1000, b"")).await;
        Ok::<_, WebSocketError>(())
    });
    loop {
        let frame = reader.read_frame::<_, Infallible>(&mut |_| async { Ok(()) }).await;
        match frame {
            Ok(frame) if frame.opcode == OpCode::Close => break,
            Ok(frame) if matches!(frame.opcode, OpCode::Text | OpCode::Binary) => {
                hub.publish(&(frame.opcode == OpCode::Text, Bytes::copy_from_slice(&frame.payload)));
            }
            Ok(_) => {}
            Err(_) => break,
        }
    }
    hub.leave(place);
    let _ = writing.await;
    Ok(())
}
