//! yawc.

use std::{convert::Infallible, net::SocketAddr};

use futures_util::StreamExt;
use hyper::{Request, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use peers::runner::Outcome;
use yawc::{Frame, OpCode, Options, WebSocket};

use super::{Data, Hub, MESSAGE_BYTES_MAX, Mode, serve_tokio, session};

impl Data for Frame {
    fn is_data(&self) -> bool {
        matches!(self.opcode(), OpCode::Text | OpCode::Binary)
    }
}

pub(super) fn serve(addr: SocketAddr, mode: Mode) -> Outcome<()> {
    let hub = Hub::new();
    serve_tokio(addr, move |stream| {
        let hub = hub.clone();
        async move {
            let upgrade = service_fn(move |mut request: Request<Incoming>| {
                let hub = hub.clone();
                async move {
                    let options = Options::default()
                        .without_compression()
                        .with_utf8()
                        .with_limits(MESSAGE_BYTES_MAX, MESSAGE_BYTES_MAX + (64 << 10));
                    let (response, socket) = WebSocket::upgrade_with_options(&mut request, options)?;
                    tokio::task::spawn_local(async move {
                        if let Ok(socket) = socket.await {
                            session(socket.map(Ok::<_, Infallible>), mode, hub).await;
                        }
                    });
                    Ok::<_, yawc::WebSocketError>(response)
                }
            });
            let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), upgrade).with_upgrades().await;
        }
    })
}
