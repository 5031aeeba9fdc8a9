//! sockudo-ws.

use std::net::SocketAddr;

use peers::runner::Outcome;
use sockudo_ws::{Config, Message, WebSocketStream, handshake::server_handshake};

use super::{Data, Hub, MESSAGE_BYTES_MAX, Mode, serve_tokio, session};

impl Data for Message {
    fn is_data(&self) -> bool {
        matches!(self, Message::Text(_) | Message::Binary(_))
    }
}

pub(super) fn serve(addr: SocketAddr, mode: Mode) -> Outcome<()> {
    let hub = Hub::new();
    serve_tokio(addr, move |mut stream| {
        let hub = hub.clone();
        async move {
            if server_handshake(&mut stream).await.is_ok() {
                let config = Config::builder().max_payload_length(MESSAGE_BYTES_MAX).idle_timeout(0).build();
                session(WebSocketStream::server(stream, config), mode, hub).await;
            }
        }
    })
}
