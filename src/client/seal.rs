//! What a connection of `wss://` has beside the others, and how what leaves is sealed. What arrives: `secured.rs`.
//!
//! Queues hold plain bytes, and limits count them. A part of them is sealed for each send, so that of a long queue most
//! stays as it is; it counts as sent when all of that has left. What the session has to say by itself, of the handshake and
//! later, leaves in front.

use std::sync::Arc;

use super::line::{Line, Taken};
use super::out::Out;
use crate::tls::{RECORD_BYTES_MAX, RECORD_OVERHEAD_MAX, Session, TlsError, TlsInfo};

/// Most plain bytes that are sealed at once.
const SEALED_BYTES_MAX: usize = 256 << 10;

/// See the module.
pub(super) struct Seal {
    /// Absent only while what was received is opened.
    pub(super) session: Option<Box<Session>>,
    /// What the handshake has agreed on.
    pub(super) info: Option<Arc<TlsInfo>>,
    /// Why the session has failed, until what came before is handled.
    pub(super) failed: Option<TlsError>,
    /// Of the line's queue, what is in the bytes that are being sent.
    plain_bytes: usize,
}

impl Seal {
    pub(super) fn new(session: Box<Session>) -> Seal {
        Seal { session: Some(session), info: None, failed: None, plain_bytes: 0 }
    }

    /// Moves what one send can carry into `out`, sealed. With `ends`, nothing follows what is queued.
    pub(super) fn take_out(
        &mut self,
        line: &Line,
        ends: bool,
        plain: &mut Out,
        out: &mut Out,
    ) -> Result<Taken, TlsError> {
        let sealed = out.tail();
        let session = self.session.as_deref_mut().filter(|session| {
            // Nothing of the queue leaves before there is a key.
            !session.is_handshaking()
        });
        let Some(session) = session else {
            if let Some(session) = &mut self.session {
                session.take_output(sealed);
            }
            return Ok(Taken { more: false, watched: false });
        };
        let taken = line.take_out(plain, SEALED_BYTES_MAX);
        let len = plain.len();
        if len > 0 {
            sealed.reserve(len + (len / RECORD_BYTES_MAX + 2) * RECORD_OVERHEAD_MAX);
        }
        let sealing = session.seal(plain.pieces(), sealed);
        self.plain_bytes = plain.clear();
        if ends && !taken.more && !session.has_closed() {
            session.seal_close(sealed);
        }
        sealing.map(|()| taken)
    }

    /// What was sealed has been sent: how many bytes of the queue that were.
    pub(super) fn take_sent(&mut self) -> usize {
        std::mem::take(&mut self.plain_bytes)
    }

    /// Whether the session has nothing to say any more.
    pub(super) fn has_said_all(&self) -> bool {
        self.session.as_ref().is_some_and(|session| session.has_closed() && !session.has_output())
    }

    pub(super) fn is_handshaking(&self) -> bool {
        self.session.as_ref().is_some_and(|session| session.is_handshaking())
    }

    /// Whether the server has said that it will send nothing more.
    pub(super) fn server_has_closed(&self) -> bool {
        self.session.as_ref().is_some_and(|session| session.end_of_file().is_ok())
    }

    /// What it means that the connection has ended where it should not.
    pub(super) fn cut_off(&self) -> &'static str {
        match self.server_has_closed() {
            _ if self.is_handshaking() => "the server closed the connection within the TLS handshake",
            // RFC 8446 6.1.
            false => "the connection ended without close_notify: what came last may be missing",
            true => "the server closed the connection",
        }
    }
}
