//! How the sockets of a ring end with it, whoever holds the ring's descriptor for longer: other cores do, to wake this one.

use std::io;

use tracing::debug;

use super::sockets::Sockets;
use super::{Op, Token, Uring};

impl Uring {
    /// Closes every socket. `is_idle`: nothing is in flight any more.
    pub(super) fn end_sockets(&mut self, is_idle: bool) {
        let emptied = match self.sockets {
            Sockets::Plain(_) => {
                self.close_plain();
                Ok(())
            }
            // Which waits, before Linux 6.13, until whatever is in flight has ended.
            Sockets::Direct if is_idle => self.submitter.unregister_files(),
            Sockets::Direct => self.empty_table(),
        };
        if let Err(error) = emptied {
            debug!(%error, "the table of direct descriptors could not be given up");
        }
    }

    /// Closes every direct descriptor, without waiting for operations that would not be cancelled.
    fn empty_table(&self) -> io::Result<()> {
        let nothing = [-1; 1024];
        for first in (0..self.slots).step_by(nothing.len()) {
            let count = nothing.len().min((self.slots - first) as usize);
            self.submitter.register_files_update(first, &nothing[..count])?;
        }
        Ok(())
    }

    /// Closes the sockets that are descriptors of the process, which the ring's end does not close.
    fn close_plain(&mut self) {
        self.cq.sync();
        self.sq.sync();
        let waiting = self.sq.len();
        for entry in self.held.drain(..).chain(&mut *self.cq) {
            let token = Token::from_user_data(entry.user_data()).filter(|token| token.op() == Op::Accept);
            if let (Some(token), Ok(brought)) = (token, u32::try_from(entry.result())) {
                // Nobody has taken this completion, or will.
                self.sockets.accepted(token.index(), brought);
            }
        }
        if let Sockets::Plain(plain) = &mut self.sockets {
            plain.close_all(waiting);
        }
    }
}
