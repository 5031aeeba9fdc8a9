//! tokio-tungstenite.

use std::net::SocketAddr;

use peers::runner::Outcome;
use tungstenite::{Message, protocol::WebSocketConfig};

use super::{Data, MESSAGE_BYTES_MAX, Mode, serve_sessions};

impl Data for Message {
    fn is_data(&self) -> bool {
        self.is_text() || self.is_binary()
    }
}

pub(super) fn serve(addr: SocketAddr, mode: Mode) -> Outcome<()> {
    serve_sessions(addr, mode, |stream| async move {
        // The default read buffer of 128 KiB per connection doubles the CPU time at 512 connections.
        let config = WebSocketConfig::default().read_buffer_size(16 << 10).max_message_size(Some(MESSAGE_BYTES_MAX));
        tokio_tungstenite::accept_async_with_config(stream, Some(config)).await.ok()
    })
}
