//! tokio-tungstenite.

use std::net::SocketAddr;

use peers::runner::Outcome;
use tungstenite::{Message, protocol::WebSocketConfig};

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
            // The default read buffer of 128 KiB per connection doubles the CPU time at 512 connections.
            let config =
                WebSocketConfig::default().read_buffer_size(16 << 10).max_message_size(Some(MESSAGE_BYTES_MAX));
            if let Ok(socket) = tokio_tungstenite::accept_async_with_config(stream, Some(config)).await {
                session(socket, mode, hub).await;
            }
        }
    })
}
