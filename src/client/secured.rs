//! What arrives of `wss://`: it is opened in the ring's buffer, and read there. What leaves: `seal.rs`.
//!
//! The end is said: close_notify behind the last frame, or the alert that a failure calls for, and then the server has a
//! moment to close first.

use super::conn::Phase;
use super::driver::{Driver, LINGER_NS};
use super::error::ClientError;
use super::input::Worker;
use super::line::Ended;
use crate::engine::{Filled, Ring};
use crate::tls::Event;

impl<R: Ring> Driver<R> {
    /// Opens what was received, and handles what is in it.
    pub(super) fn feed_sealed(&mut self, slot: u32, filled: &Filled) {
        let Some(mut session) = self.conns[slot].tls.as_mut().and_then(|tls| tls.session.take()) else { return };
        let mut at = 0;
        let mut failed = None;
        let mut has_closed = false;
        loop {
            let conn = &mut self.conns[slot];
            let input = match session.next(self.ring.buffer(filled), &mut at, &mut self.spares) {
                Ok(None) => break,
                Ok(Some(Event::Data(plain))) => {
                    let (spares, wakers, messages) = (&mut self.spares, &mut self.wakers, &mut self.messages);
                    Worker { conn, spares, wakers, messages }.input(plain)
                }
                Ok(Some(Event::Ready)) => {
                    let info = session.info();
                    if let Some(info) = info {
                        let (version, cipher_suite, resumed) = (info.version(), info.cipher_suite(), info.is_resumed());
                        tracing::debug!(%version, cipher_suite, resumed, "a client has agreed on TLS");
                    }
                    if let Some(tls) = &mut conn.tls {
                        tls.info = info.cloned();
                    }
                    // The request has waited for it.
                    self.mark_dirty(slot);
                    continue;
                }
                Ok(Some(Event::Closed)) => {
                    has_closed = true;
                    continue;
                }
                Err(error) => {
                    failed = Some(error);
                    break;
                }
            };
            self.handled(slot, input);
            if self.conns[slot].phase == Phase::Dead {
                return;
            }
        }
        let has_output = session.has_output();
        let conn = &mut self.conns[slot];
        let has_ended = has_closed || failed.is_some();
        let is_paused = conn.paused;
        if let Some(tls) = &mut conn.tls {
            tls.session = Some(session);
            tls.failed = tls.failed.take().or(failed);
        }
        if has_output {
            self.mark_dirty(slot);
        }
        // What is held back came before.
        if has_ended && !is_paused {
            self.end_of_session(slot);
        }
    }

    /// If nothing more comes of the session, and everything before has been handled, the connection ends; whether it does.
    pub(super) fn end_of_session(&mut self, slot: u32) -> bool {
        let Some(tls) = &mut self.conns[slot].tls else { return false };
        match (tls.failed.take(), tls.server_has_closed()) {
            (Some(error), _) => self.say_last(slot, ClientError::Tls(error)),
            (None, true) => return self.server_closed(slot),
            (None, false) => return false,
        }
        true
    }

    /// The server has said that it will send nothing more, and everything before that has been handled; whether that ends the
    /// connection.
    fn server_closed(&mut self, slot: u32) -> bool {
        let conn = &mut self.conns[slot];
        match conn.phase {
            // It closes the connection next.
            Phase::Flushing | Phase::Dead => return false,
            Phase::Refused => self.refused(slot, true),
            phase => {
                if phase == Phase::Closing {
                    conn.set_closed_without_close_frame();
                }
                let error = ClientError::Broken(conn.cut_off());
                self.say_last(slot, error);
            }
        }
        true
    }

    /// Ends a connection as was decided before, or else with this error. Where there is TLS, and the handshake is not under way,
    /// the session says so before the descriptor is closed.
    pub(super) fn say_last(&mut self, slot: u32, error: ClientError) {
        let conn = &mut self.conns[slot];
        let can_speak = conn.tls.is_some() && !conn.is_tls_handshaking() && conn.finished.is_none();
        if !can_speak || conn.phase == Phase::Dead {
            return self.finish(slot, error);
        }
        if !conn.told {
            conn.ended.get_or_insert_with(|| Ended::abnormal(error));
            self.tell(slot);
        }
        let conn = &mut self.conns[slot];
        conn.phase = Phase::Flushing;
        conn.deadline_ns = self.now_ns + LINGER_NS;
        self.mark_dirty(slot);
        self.watch_over(slot);
    }
}
