//! tokio-websockets.

use std::net::SocketAddr;

use peers::runner::Outcome;
use tokio_websockets::{Config, Limits, Message, ServerBuilder};

use super::{Data, MESSAGE_BYTES_MAX, Mode, serve_sessions};

impl Data for Message {
    fn is_data(&self) -> bool {
        self.is_text() || self.is_binary()
    }
}

pub(super) fn serve(addr: SocketAddr, mode: Mode) -> Outcome<()> {
    serve_sessions(addr, mode, |stream| async move {
        let builder = ServerBuilder::new()
            .config(Config::default().frame_size(usize::MAX))
            .limits(Limits::default().max_payload_len(Some(MESSAGE_BYTES_MAX)));
        builder.accept(stream).await.ok().map(|(_, socket)| socket)
    })
}
