//! What compression a route offers, and what a connection has agreed to.

use super::CoreHub;
use crate::config::Deflate;
use crate::proto::deflate::{LEVEL, WINDOW_BITS};
use crate::proto::extensions::{Agreed, Terms};

/// How messages are compressed, unless a route says otherwise.
#[derive(Clone, Copy, Debug)]
pub struct DeflateSettings {
    /// Whether, and how.
    pub mode: Deflate,
    /// Messages of fewer bytes are sent as they are.
    pub bytes_min: usize,
    /// The window of contexts, in bits.
    pub window_bits: u8,
    /// How hard, 1 to 9.
    pub level: u8,
}

impl Default for DeflateSettings {
    fn default() -> DeflateSettings {
        DeflateSettings { mode: Deflate::Off, bytes_min: 256, window_bits: WINDOW_BITS, level: LEVEL }
    }
}

impl CoreHub {
    /// Sets how messages are compressed.
    pub fn set_deflate(&mut self, settings: DeflateSettings) {
        self.deflate = settings;
        self.streams.set_level(settings.level);
    }

    /// How a route compresses.
    pub(crate) fn deflate_mode(&self, route: u16) -> Deflate {
        let own = self.route_limits.get(usize::from(route)).and_then(|limits| limits.deflate);
        own.unwrap_or(self.deflate.mode)
    }

    /// What a route agrees to when a client offers compression; `None`: to nothing.
    pub(crate) fn deflate_terms(&self, route: u16) -> Option<Terms> {
        let mode = self.deflate_mode(route);
        (mode != Deflate::Off).then_some(Terms {
            server_context: matches!(mode, Deflate::Shared | Deflate::Dedicated),
            client_context: mode == Deflate::Dedicated,
            window_bits: self.deflate.window_bits,
        })
    }

    /// Notes what a connection has agreed to, right after it was entered.
    pub(crate) fn agree(&mut self, slot: u32, agreed: Agreed) {
        self.members[slot as usize].deflate = Some(agreed);
        let mode = self.deflate_mode(self.members[slot as usize].route);
        self.set_sends(slot, mode, agreed);
    }

    /// What a connection has agreed to.
    pub(crate) fn agreed(&self, slot: u32) -> Option<Agreed> {
        self.members[slot as usize].deflate
    }
}
