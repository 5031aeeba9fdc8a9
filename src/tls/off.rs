//! In place of what makes sessions, without the feature: nothing does.

use std::sync::Arc;

use super::{Event, TlsError, TlsInfo};
use crate::proto::Spares;

/// There is none.
#[derive(Debug)]
pub enum Acceptor {}

/// There is none.
#[derive(Debug)]
pub enum Session {}

#[expect(clippy::missing_errors_doc, clippy::unused_self, reason = "they cannot be called")]
impl Acceptor {
    pub fn session(&self) -> Session {
        match *self {}
    }
}

#[expect(clippy::missing_errors_doc, reason = "they cannot be called")]
impl Session {
    pub fn is_handshaking(&self) -> bool {
        match *self {}
    }

    pub fn has_begun(&self) -> bool {
        match *self {}
    }

    pub fn info(&self) -> Option<&Arc<TlsInfo>> {
        match *self {}
    }

    pub fn has_failed(&self) -> bool {
        match *self {}
    }

    pub fn next<'a>(
        &'a mut self,
        _data: &'a mut [u8],
        _at: &mut usize,
        _spares: &mut Spares,
    ) -> Result<Option<Event<'a>>, TlsError> {
        match *self {}
    }

    pub fn end_of_file(&self) -> Result<(), TlsError> {
        match *self {}
    }

    pub fn has_output(&self) -> bool {
        match *self {}
    }

    pub fn take_output(&mut self, _into: &mut Vec<u8>) {
        match *self {}
    }

    pub fn say_plainly(&mut self, _bytes: Vec<u8>) {
        match *self {}
    }

    pub fn seal<'p>(
        &mut self,
        _pieces: impl IntoIterator<Item = &'p [u8]>,
        _into: &mut Vec<u8>,
    ) -> Result<(), TlsError> {
        match *self {}
    }

    pub fn seal_close(&mut self, _into: &mut Vec<u8>) {
        match *self {}
    }

    pub fn has_closed(&self) -> bool {
        match *self {}
    }

    pub fn memory_bytes(&self) -> usize {
        match *self {}
    }
}
