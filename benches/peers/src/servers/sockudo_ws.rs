//! sockudo-ws.

use std::net::SocketAddr;

use peers::runner::Outcome;
use sockudo_ws::{Config, Message, WebSocketStream, handshake::server_handshake};

use super::{Data, MESSAGE_BYTES_MAX, Mode, serve_sessions};

impl Data for Message {
    fn is_data(&self) -> bool {
        matches!(self, Message::Text(_) | Message::Binary(_))
    }
}

pub(super) fn serve(addr: SocketAddr, mode: Mode) -> Outcome<()> {
    serve_sessions(addr, mode, |mut stream| async move {
        server_handshake(&mut stream).await.ok()?;
        let config = Config::builder().max_payload_length(MESSAGE_BYTES_MAX).idle_timeout(0).build();
        Some(WebSocketStream::server(stream, config))
    })
}
