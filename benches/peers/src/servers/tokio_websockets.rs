//! tokio-websockets.

use std::net::SocketAddr;

use peers::runner::Outcome;
use tokio_websockets::{Config, Limits, Message, ServerBuilder};

use super::{Data, Hub, MESSAGE_BYTES_MAX, Mode, serve_tokio, session};

impl Data for Message {
    fn is_data(&self) -> bool {
        self.is_text() || self.is_binary()
    }
}

pub(super) fn serve(addr: SocketAddr, mode: Mode) -> Outcome<()> {
    let hub = Hub::new();
    serve_tokio(addr, move |stream| {
        let hub = hub.clone();
        async move {
            let builder = ServerBuilder::new()
                .config(Config::default().frame_size(usize::MAX))
                .limits(Limits::default().max_payload_len(Some(MESSAGE_BYTES_MAX)));
            if let Ok((_, socket)) = builder.accept(stream).await {
                session(socket, mode, hub).await;
            }
        }
    })
}
