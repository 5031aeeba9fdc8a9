//! Compressing what is sent (RFC 7692 6.1): one compressor for a thread, a context for each connection that has agreed on one.

use std::fmt;

use ringwire::proto::{
    Role,
    deflate::{Deflater, History, LEVEL, WINDOW_BITS, WINDOW_BITS_MAX, WINDOW_BITS_MIN},
    extensions::Agreed,
};

use crate::tally::{Deflated, Packed};

/// See the module.
pub(crate) struct Deflate {
    deflater: Deflater,
    /// Messages of fewer bytes are sent as they are.
    bytes_min: usize,
    /// By connection.
    sending: Vec<Option<Sending>>,
    compressed: Vec<u8>,
}

/// How a connection compresses.
struct Sending {
    /// How far the server can look back, in bytes.
    window_bytes: usize,
    context: Option<History>,
}

impl Deflate {
    pub(super) fn new(bytes_min: usize) -> Deflate {
        Deflate { deflater: Deflater::new(LEVEL), bytes_min, sending: Vec::new(), compressed: Vec::new() }
    }

    /// The connection's handshake has agreed on this.
    pub(super) fn begin(&mut self, conn: u32, agreed: Agreed) {
        let bits = agreed.sent_window_bits(Role::Client);
        let has_context = agreed.sends_context(Role::Client) && bits >= WINDOW_BITS_MIN;
        let sending = Sending {
            // What has no context refers to itself alone, and the largest window is what there is.
            window_bytes: if bits == WINDOW_BITS_MAX { usize::MAX } else { 1 << bits },
            context: has_context.then(|| History::new(bits.min(WINDOW_BITS))),
        };
        let conn = conn as usize;
        if self.sending.len() <= conn {
            self.sending.resize_with(conn + 1, || None);
        }
        self.sending[conn] = Some(sending);
    }

    /// The connection is no more.
    pub(super) fn end(&mut self, conn: u32) {
        if let Some(sending) = self.sending.get_mut(conn as usize) {
            *sending = None;
        }
    }

    /// The payload, compressed, if that is shorter and the connection takes it; with a context, it must be sent now.
    pub(super) fn compress(&mut self, conn: u32, payload: &[u8], told: &mut Deflated) -> Option<&[u8]> {
        let sending = self.sending.get_mut(conn as usize)?.as_mut()?;
        let takes = sending.context.is_some() || payload.len() <= sending.window_bytes;
        self.compressed.clear();
        if payload.len() < self.bytes_min
            || !takes
            || !self.deflater.compress(payload, sending.context.as_mut(), &mut self.compressed)
        {
            return None;
        }
        let (bytes, bytes_on_wire) = (payload.len() as u64, self.compressed.len() as u64);
        told.sent.add(Packed { messages: 1, bytes, bytes_on_wire });
        Some(&self.compressed)
    }
}

impl fmt::Debug for Deflate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Deflate").field("bytes_min", &self.bytes_min).finish_non_exhaustive()
    }
}

/// What was agreed on, in words.
pub(super) fn words(agreed: Agreed) -> String {
    let of = |has_context: bool, bits: u8| match has_context {
        true => format!("with a context of 2^{bits} bytes"),
        false => "without context".to_owned(),
    };
    format!(
        "server {}, client {}",
        of(agreed.server_context, agreed.server_window_bits),
        of(agreed.client_context, agreed.client_window_bits)
    )
}
