//! In place of what makes sessions, without the feature: nothing does.

#![allow(missing_docs, reason = "none of it can be called")]

use std::convert::Infallible;
use std::sync::Arc;

use super::{Event, TlsError, TlsInfo};
use crate::proto::Spares;

/// There is none.
#[derive(Debug)]
pub struct Acceptor(Infallible);

/// There is none.
#[derive(Debug)]
pub struct Session(Infallible);


impl Acceptor {
    pub fn session(&self) -> Session {
        match self.0 {}
    }
}

impl Session {
    pub fn is_handshaking(&self) -> bool {
        match self.0 {}
    }

    pub fn has_begun(&self) -> bool {
        match self.0 {}
    }

    pub fn info(&self) -> Option<&Arc<TlsInfo>> {
        match self.0 {}
    }

    pub fn has_failed(&self) -> bool {
        match self.0 {}
    }

    pub fn next<'a>(
        &'a mut self,
        _data: &'a mut [u8],
        _at: &mut usize,
        _spares: &mut Spares,
    ) -> Result<Option<Event<'a>>, TlsError> {
        match self.0 {}
    }

    pub fn end_of_file(&self) -> Result<(), TlsError> {
        match self.0 {}
    }

    pub fn has_output(&self) -> bool {
        match self.0 {}
    }

    pub fn take_output(&mut self, _into: &mut Vec<u8>) {
        match self.0 {}
    }

    pub fn say_plainly(&mut self, _bytes: Vec<u8>) {
        match self.0 {}
    }

    pub fn seal<'p>(
        &mut self,
        _pieces: impl IntoIterator<Item = &'p [u8]>,
        _into: &mut Vec<u8>,
    ) -> Result<(), TlsError> {
        match self.0 {}
    }

    pub fn seal_close(&mut self, _into: &mut Vec<u8>) {
        match self.0 {}
    }

    pub fn has_closed(&self) -> bool {
        match self.0 {}
    }

    pub fn memory_bytes(&self) -> usize {
        match self.0 {}
    }
}
