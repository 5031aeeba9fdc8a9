//! permessage-deflate (RFC 7692) as a strict client speaks it: what it offers, and an inflater of its own, apart from the
//! library's, with no larger a window than was agreed.

use ringwire::proto::deflate::{Deflater, History, WINDOW_BITS_MIN};

#[path = "../../src/proto/deflate/reference.rs"]
mod reference;
use reference::Reference;

/// What clients offer, the usual first.
pub const OFFERS: [&str; 6] = [
    "permessage-deflate; client_max_window_bits",
    "permessage-deflate",
    "permessage-deflate; server_max_window_bits=15; client_max_window_bits=10",
    "permessage-deflate; server_max_window_bits=10",
    // A window that no server of ours can keep to, and what is asked for if so.
    "permessage-deflate; server_max_window_bits=9, permessage-deflate; client_no_context_takeover",
    "permessage-deflate; server_no_context_takeover",
];

/// What was agreed, and where both contexts are.
#[derive(Debug)]
pub struct Compression {
    server_bits: u8,
    /// Of the server's messages, where it keeps a context.
    incoming: Option<Reference>,
    deflater: Deflater,
    client_bits: u8,
    outgoing: Option<History>,
    /// Messages that came compressed.
    pub messages: u64,
}

impl Compression {
    /// What a server's answer says.
    ///
    /// # Errors
    /// If it is no answer to the offer.
    pub fn new(answer: &str, offer: &str) -> Result<Compression, String> {
        let says = |of: &str, what: &str| of.split(';').any(|part| part.trim() == what);
        let bits = |side: &str| {
            let value =
                answer.split(';').find_map(|part| part.trim().strip_prefix(side)?.strip_prefix("_max_window_bits="));
            value.map_or(Ok(15), |bits| bits.parse::<u8>().map_err(|_| format!("{answer:?}")))
        };
        let is_kept = answer.starts_with("permessage-deflate")
            && (says(answer, "server_no_context_takeover") || !says(offer, "server_no_context_takeover"))
            && (offer.contains("client_max_window_bits") || !answer.contains("client_max_window_bits"));
        if !is_kept {
            return Err(format!("{answer:?} is no answer to {offer:?}"));
        }
        let (server_bits, client_bits) = (bits("server")?, bits("client")?);
        let has_context = !says(answer, "server_no_context_takeover");
        let keeps_context = !says(answer, "client_no_context_takeover") && !says(offer, "client_no_context_takeover");
        Ok(Compression {
            server_bits,
            incoming: has_context.then(|| Reference::new(server_bits)),
            deflater: Deflater::new(6),
            client_bits,
            outgoing: (keeps_context && client_bits >= WINDOW_BITS_MIN).then(|| History::new(client_bits)),
            messages: 0,
        })
    }

    /// RFC 7692 7.2.2.
    ///
    /// # Errors
    /// If it cannot be read by who has what was agreed.
    pub fn inflate(&mut self, payload: &[u8]) -> Result<Vec<u8>, String> {
        let mut alone = Reference::new(self.server_bits);
        let inflater = self.incoming.as_mut().unwrap_or(&mut alone);
        self.messages += 1;
        inflater.read(payload, 1 << 20).map_err(|why| format!("a message cannot be inflated: {why}"))
    }

    /// RFC 7692 7.2.1; `None`: it is better sent as it is.
    pub fn deflate(&mut self, payload: &[u8]) -> Option<Vec<u8>> {
        if self.outgoing.is_none() && payload.len() > 1 << self.client_bits {
            return None;
        }
        let mut out = Vec::new();
        self.deflater.compress(payload, self.outgoing.as_mut(), &mut out).then_some(out)
    }
}
