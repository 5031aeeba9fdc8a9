//! One connection's TLS.
//!
//! Invariant: what is in `out` was sealed before whatever is sealed next, and leaves before it; a session that has failed
//! hands nothing on and seals nothing any more; one that has said close_notify neither.

use std::fmt;
use std::sync::Arc;

use super::error::alert_text;
use super::handshake::{Done, Handshake, Kernel};
use super::keys::Key;
use super::posted::{Message, Posted, key_update};
use super::record::{
    ALERT, APPLICATION_DATA, CLOSE_NOTIFY, FATAL, HANDSHAKE, HEADER_BYTES, Header, USER_CANCELED, WARNING, header,
};
use super::{Event, Failure, RECORD_BYTES_MAX, TlsError, TlsInfo, TlsVersion};
use crate::proto::Spares;

/// Records without content in a row: empty ones, new keys, tickets, warnings. Each costs us more than the peer.
const QUIET_RECORDS_MAX: u8 = 32;

/// One connection's TLS. See the module above for the order of calls.
pub struct Session {
    stage: Stage,
    /// A record that has come in part; or, once it was whole, whose content was lent.
    split: Vec<u8>,
    is_lent: bool,
    /// What is to be sent: of the handshake, new keys, an alert.
    out: Vec<u8>,
    info: Option<Arc<TlsInfo>>,
    /// The peer has said close_notify.
    peer_has_closed: bool,
    /// So have we.
    has_closed: bool,
}

enum Stage {
    /// A server's that has heard nothing.
    Fresh(Arc<rustls::ServerConfig>),
    Handshake(Box<Handshake>),
    Open(Box<Records>),
    Failed,
}

/// Both directions' keys.
struct Records {
    opening: Key,
    sealing: Key,
    /// What derives the next keys; TLS 1.2 has none.
    kernel: Option<Kernel>,
    posted: Posted,
    quiet_records: u8,
    /// An answer to the peer's wish for a new key is in `out`: it answers what the peer wishes meanwhile.
    has_answered: bool,
}

/// What was found, and where.
enum Found {
    Ready,
    Closed,
    /// In what was received.
    Here(usize, usize),
    /// In the split record.
    Split(usize, usize),
}

impl Session {
    /// A server's session. `config` has `enable_secret_extraction`, as [`Acceptor`](super::Acceptor) sees to.
    pub fn server(config: Arc<rustls::ServerConfig>) -> Session {
        Session::at(Stage::Fresh(config), Vec::new())
    }

    /// A client's session, whose first words wait in it. `config` has `enable_secret_extraction`, as
    /// [`Connector`](super::Connector) sees to.
    ///
    /// # Errors
    /// If the configuration cannot be used.
    pub fn client(
        config: Arc<rustls::ClientConfig>,
        name: rustls::pki_types::ServerName<'static>,
    ) -> Result<Session, TlsError> {
        let mut out = Vec::new();
        let handshake = Handshake::client(config, name, &mut out)?;
        Ok(Session::at(Stage::Handshake(Box::new(handshake)), out))
    }

    fn at(stage: Stage, out: Vec<u8>) -> Session {
        let (split, info) = (Vec::new(), None);
        Session { stage, split, is_lent: false, out, info, peer_has_closed: false, has_closed: false }
    }

    /// Whether the handshake is still to be made, or done: then [`Session::next`] may take long.
    pub fn is_handshaking(&self) -> bool {
        matches!(self.stage, Stage::Fresh(_) | Stage::Handshake(_))
    }

    /// Whether the peer has said something.
    pub fn has_begun(&self) -> bool {
        !matches!(self.stage, Stage::Fresh(_)) || !self.split.is_empty()
    }

    /// What the handshake has agreed on, once it is done.
    pub fn info(&self) -> Option<&Arc<TlsInfo>> {
        self.info.as_ref()
    }

    /// Whether the session has failed.
    pub fn has_failed(&self) -> bool {
        matches!(self.stage, Stage::Failed)
    }

    /// The next event in what has been received, from `at` on; to be asked until there is none, and `at` is at the end.
    /// Buffers for split records are taken from `spares` and given back.
    ///
    /// # Errors
    /// The session has failed: what it has to say of that waits in it, and nothing more comes out of it.
    pub fn next<'a>(
        &'a mut self,
        data: &'a mut [u8],
        at: &mut usize,
        spares: &mut Spares,
    ) -> Result<Option<Event<'a>>, TlsError> {
        match self.find(data, at, spares) {
            Ok(None) => Ok(None),
            Ok(Some(Found::Ready)) => Ok(Some(Event::Ready)),
            Ok(Some(Found::Closed)) => Ok(Some(Event::Closed)),
            Ok(Some(Found::Here(start, end))) => Ok(Some(Event::Data(&mut data[start..end]))),
            Ok(Some(Found::Split(start, end))) => Ok(Some(Event::Data(&mut self.split[start..end]))),
            Err(error) => {
                *at = data.len();
                self.fail(&error);
                self.give_split(spares);
                Err(error)
            }
        }
    }

    fn find(&mut self, data: &mut [u8], at: &mut usize, spares: &mut Spares) -> Result<Option<Found>, TlsError> {
        if self.is_lent {
            self.give_split(spares);
        }
        loop {
            // RFC 8446 6.1: any data received after a closure alert MUST be ignored.
            if self.peer_has_closed || self.has_failed() {
                *at = data.len();
                return Ok(None);
            }
            let rest = &mut data[*at..];
            if rest.is_empty() {
                return Ok(None);
            }
            if self.split.is_empty() {
                self.check_first(rest)?;
                match header(rest)? {
                    Some(header) if rest.len() >= header.record_len() => {
                        let start = *at;
                        *at += header.record_len();
                        match self.record(header, &mut data[start..*at])? {
                            Some(Found::Split(from, to)) => return Ok(Some(Found::Here(start + from, start + to))),
                            Some(found) => return Ok(Some(found)),
                            None => continue,
                        }
                    }
                    Some(header) => self.split = spares.take(header.record_len()),
                    None => self.split = Vec::with_capacity(HEADER_BYTES),
                }
            }
            // The header first, which says how long the record is.
            if self.split.len() < HEADER_BYTES {
                self.complete(HEADER_BYTES, data, at);
            }
            let Some(header) = header(&self.split)? else { return Ok(None) };
            let record_len = header.record_len();
            if self.split.capacity() < record_len {
                let mut larger = spares.take(record_len);
                larger.extend_from_slice(&self.split);
                self.split = larger;
            }
            self.complete(record_len, data, at);
            if self.split.len() < record_len {
                return Ok(None);
            }
            let mut record = std::mem::take(&mut self.split);
            let found = self.record(header, &mut record);
            self.split = record;
            match found? {
                Some(found @ Found::Split(..)) => {
                    self.is_lent = true;
                    return Ok(Some(found));
                }
                found => {
                    self.give_split(spares);
                    if found.is_some() {
                        return Ok(found);
                    }
                }
            }
        }
    }

    /// Moves what the split record lacks of so many bytes.
    fn complete(&mut self, len: usize, data: &[u8], at: &mut usize) {
        let part = (len - self.split.len()).min(data.len() - *at);
        self.split.extend_from_slice(&data[*at..*at + part]);
        *at += part;
    }

    fn give_split(&mut self, spares: &mut Spares) {
        self.is_lent = false;
        let split = std::mem::take(&mut self.split);
        if split.capacity() > HEADER_BYTES {
            spares.give(split);
        }
    }

    /// Whoever begins with something else does not speak TLS. No method of HTTP begins with a small letter or a byte that
    /// records begin with.
    fn check_first(&self, bytes: &[u8]) -> Result<(), TlsError> {
        match &self.stage {
            Stage::Fresh(_) if bytes[0].is_ascii_uppercase() => {
                Err(TlsError::new(Failure::PlainHttp, "plain HTTP where TLS is spoken"))
            }
            Stage::Fresh(_) if bytes[0] != HANDSHAKE || bytes.get(1).is_some_and(|major| *major != 3) => {
                Err(TlsError::new(Failure::NotTls, "something else where TLS is spoken"))
            }
            Stage::Handshake(handshake) if handshake.is_first_of_server() && bytes.starts_with(b"H") => {
                Err(TlsError::new(Failure::PlainHttp, "the server answered in plain HTTP"))
            }
            _ => Ok(()),
        }
    }

    /// Takes a whole record. Places in it are told as [`Found::Split`].
    fn record(&mut self, header: Header, record: &mut [u8]) -> Result<Option<Found>, TlsError> {
        match &mut self.stage {
            Stage::Fresh(config) => {
                let handshake = Handshake::server(config.clone())?;
                self.stage = Stage::Handshake(Box::new(handshake));
                self.record(header, record)
            }
            Stage::Handshake(handshake) => {
                if !handshake.take(record, &mut self.out)? {
                    return Ok(None);
                }
                let Stage::Handshake(handshake) = std::mem::replace(&mut self.stage, Stage::Failed) else {
                    unreachable!("it was one just now")
                };
                let Done { secrets, kernel, info } = handshake.finish()?;
                let key = |(number, secrets): &(u64, _)| Key::new(info.version, *number, secrets);
                let (opening, sealing) = (key(&secrets.rx)?, key(&secrets.tx)?);
                let kernel = (info.version == TlsVersion::Tls13).then_some(kernel);
                let (posted, quiet_records, has_answered) = (Posted::default(), 0, false);
                let records = Records { opening, sealing, kernel, posted, quiet_records, has_answered };
                self.stage = Stage::Open(Box::new(records));
                self.info = Some(Arc::new(info));
                Ok(Some(Found::Ready))
            }
            Stage::Open(records) => {
                let found = records.open(header, record, &mut self.out)?;
                self.peer_has_closed = matches!(found, Some(Found::Closed));
                Ok(found)
            }
            Stage::Failed => Ok(None),
        }
    }

    /// Ends the session, with an alert if there is one for it.
    fn fail(&mut self, error: &TlsError) {
        let stage = std::mem::replace(&mut self.stage, Stage::Failed);
        let Some(alert) = error.alert().filter(|_| !self.has_closed) else { return };
        match stage {
            Stage::Open(mut records) => {
                // If that fails there is nothing left to say it by.
                let _ = records.put(ALERT, &[FATAL, alert], &mut self.out);
            }
            // Before anything was agreed on an alert is plain. What rustls has failed with, it has said.
            Stage::Fresh(_) => self.out.extend_from_slice(&[ALERT, 3, 3, 0, 2, FATAL, alert]),
            Stage::Handshake(handshake) if !handshake.has_spoken => {
                self.out.extend_from_slice(&[ALERT, 3, 3, 0, 2, FATAL, alert]);
            }
            Stage::Handshake(_) | Stage::Failed => {}
        }
    }

    /// The connection has ended.
    ///
    /// # Errors
    /// If the peer has not said that it would (RFC 8446 6.1): what came last may have been cut off.
    pub fn end_of_file(&self) -> Result<(), TlsError> {
        match self.peer_has_closed {
            true => Ok(()),
            false => Err(TlsError::new(Failure::Truncated, "the connection ended without close_notify")),
        }
    }

    /// Whether the session has something to say by itself.
    #[inline]
    pub fn has_output(&self) -> bool {
        !self.out.is_empty()
    }

    /// Appends to `into` what the session has to say by itself.
    pub fn take_output(&mut self, into: &mut Vec<u8>) {
        if self.out.is_empty() {
            return;
        }
        if let Stage::Open(records) = &mut self.stage {
            records.has_answered = false;
        }
        into.append(&mut self.out);
        // It is there once in a connection's life, or hardly more often.
        self.out = Vec::new();
    }

    /// Says something else in place of what a failed session has to say: to a peer that does not speak TLS.
    pub fn say_plainly(&mut self, bytes: Vec<u8>) {
        debug_assert!(self.has_failed());
        self.out = bytes;
    }

    /// Seals the pieces, one behind the other, in as few records as they fit into, and appends these to `into`, behind what
    /// the session has to say by itself. A session that has failed or closed takes the pieces and seals nothing.
    ///
    /// # Errors
    /// The keys have sealed what they may and cannot be renewed; close_notify is in `into`.
    pub fn seal<'p>(&mut self, pieces: impl IntoIterator<Item = &'p [u8]>, into: &mut Vec<u8>) -> Result<(), TlsError> {
        debug_assert!(!self.is_handshaking(), "nothing is sealed before there is a key");
        self.take_output(into);
        let Stage::Open(records) = &mut self.stage else { return Ok(()) };
        if self.has_closed {
            return Ok(());
        }
        let sealed = records.seal(pieces, into);
        if let Err(error) = &sealed {
            if error.failure() == Failure::Exhausted {
                self.seal_close(into);
            }
            self.stage = Stage::Failed;
        }
        sealed
    }

    /// Seals close_notify: nothing follows it.
    pub fn seal_close(&mut self, into: &mut Vec<u8>) {
        self.take_output(into);
        if let Stage::Open(records) = &mut self.stage
            && !self.has_closed
        {
            let _ = records.put(ALERT, &[WARNING, CLOSE_NOTIFY], into);
        }
        self.has_closed = true;
    }

    /// Whether close_notify has been said, or there is nobody to say it to.
    pub fn has_closed(&self) -> bool {
        self.has_closed || !matches!(self.stage, Stage::Open(_))
    }

    /// Bytes of heap that it holds of what comes and goes; not its keys.
    pub fn memory_bytes(&self) -> usize {
        let stage = match &self.stage {
            Stage::Handshake(handshake) => handshake.memory_bytes(),
            Stage::Open(records) => records.posted.memory_bytes(),
            Stage::Fresh(_) | Stage::Failed => 0,
        };
        self.split.capacity() + self.out.capacity() + stage
    }

    /// Seals a record of any type, with any content.
    #[cfg(test)]
    pub(super) fn put_any(&mut self, content_type: u8, content: &[u8], into: &mut Vec<u8>) {
        let Stage::Open(records) = &mut self.stage else { panic!("there are no keys") };
        records.put(content_type, content, into).unwrap();
    }

    /// Renews the key, and asks the peer to do so.
    #[cfg(test)]
    pub(super) fn ask_for_key(&mut self, into: &mut Vec<u8>) {
        let Stage::Open(records) = &mut self.stage else { panic!("there are no keys") };
        records.renew(true, into).unwrap();
    }

    /// Lets the keys of now seal so many records.
    #[cfg(test)]
    pub(super) fn set_records_max(&mut self, records_max: u64) {
        if let Stage::Open(records) = &mut self.stage {
            records.sealing.records_max = records_max;
        }
    }
}

impl Records {
    /// Opens a record, and does what it says if it is not data.
    fn open(&mut self, header: Header, record: &mut [u8], out: &mut Vec<u8>) -> Result<Option<Found>, TlsError> {
        let unexpected = |text: &str| TlsError::new(Failure::Protocol, text);
        // RFC 8446 5.2: the opaque type is always application_data.
        if self.kernel.is_some() && header.content_type() != APPLICATION_DATA {
            return Err(unexpected("a record that is not sealed"));
        }
        let opened = self.opening.open(header, record)?;
        let mut content = &record[opened.start..opened.end];
        if self.posted.has_begun() && opened.content_type != HANDSHAKE {
            return Err(unexpected("something amid a message of the handshake"));
        }
        match opened.content_type {
            APPLICATION_DATA if !content.is_empty() => {
                self.quiet_records = 0;
                return Ok(Some(Found::Split(opened.start, opened.end)));
            }
            APPLICATION_DATA => {}
            ALERT => return self.alert(content),
            HANDSHAKE if content.is_empty() => return Err(unexpected("an empty message")),
            HANDSHAKE => {
                let Some(kernel) = &mut self.kernel else { return Err(unexpected("renegotiation")) };
                let is_client = kernel.is_client();
                while let Some(message) = self.posted.next(&mut content, is_client)? {
                    self.obey(&message, out)?;
                }
            }
            _ => return Err(unexpected("a record of a type that has no place here")),
        }
        self.count_quiet()?;
        Ok(None)
    }

    fn count_quiet(&mut self) -> Result<(), TlsError> {
        self.quiet_records += 1;
        match self.quiet_records > QUIET_RECORDS_MAX {
            true => Err(TlsError::new(Failure::Flood, "too many records that say nothing")),
            false => Ok(()),
        }
    }

    fn alert(&mut self, content: &[u8]) -> Result<Option<Found>, TlsError> {
        let &[level, alert] = content else {
            return Err(TlsError::new(Failure::Protocol, "an alert of no alert's length"));
        };
        match alert {
            CLOSE_NOTIFY => Ok(Some(Found::Closed)),
            // RFC 8446 6: all other alerts are errors, whatever level they have, but user_canceled. In TLS 1.2 there are
            // warnings.
            _ if alert == USER_CANCELED || (self.kernel.is_none() && level == WARNING) => {
                self.count_quiet()?;
                Ok(None)
            }
            _ => {
                Err(TlsError::new(Failure::Alert, alert_text(alert)))
            }
        }
    }

    fn obey(&mut self, message: &Message, out: &mut Vec<u8>) -> Result<(), TlsError> {
        let Some(kernel) = &mut self.kernel else { return Ok(()) };
        match message {
            Message::Ticket(ticket) => Ok(kernel.keep_ticket(ticket)?),
            Message::KeyUpdate { asks } => {
                let (number, secrets) = kernel.next_opening()?;
                self.opening = Key::new(TlsVersion::Tls13, number, &secrets)?;
                if *asks && !self.has_answered {
                    self.has_answered = true;
                    self.renew(false, out)?;
                }
                Ok(())
            }
        }
    }

    /// Says that a new key comes, and takes it (RFC 8446 4.6.3).
    fn renew(&mut self, asks: bool, out: &mut Vec<u8>) -> Result<(), TlsError> {
        self.put(HANDSHAKE, &key_update(asks), out)?;
        let Some(kernel) = &mut self.kernel else {
            return Err(TlsError::new(Failure::Exhausted, "the keys have sealed what they may"));
        };
        let (number, secrets) = kernel.next_sealing()?;
        let records_max = self.sealing.records_max;
        self.sealing = Key::new(TlsVersion::Tls13, number, &secrets)?;
        self.sealing.records_max = records_max;
        Ok(())
    }

    /// Seals a record of this type.
    fn put(&mut self, content_type: u8, content: &[u8], out: &mut Vec<u8>) -> Result<(), TlsError> {
        let at = self.sealing.begin(out);
        out.extend_from_slice(content);
        self.sealing.seal(content_type, at, out)
    }

    fn seal<'p>(&mut self, pieces: impl IntoIterator<Item = &'p [u8]>, into: &mut Vec<u8>) -> Result<(), TlsError> {
        // The record that is being filled, and how many bytes it still takes.
        let mut begun: Option<(usize, usize)> = None;
        for mut piece in pieces {
            while !piece.is_empty() {
                let (at, room) = match begun {
                    Some(begun) => begun,
                    None => {
                        if self.sealing.is_worn() {
                            if self.kernel.is_none() {
                                return Err(TlsError::new(Failure::Exhausted, "the keys have sealed what they may"));
                            }
                            self.renew(false, into)?;
                        }
                        (self.sealing.begin(into), RECORD_BYTES_MAX)
                    }
                };
                let (part, rest) = piece.split_at(piece.len().min(room));
                into.extend_from_slice(part);
                piece = rest;
                begun = Some((at, room - part.len()));
                if room == part.len() {
                    self.sealing.seal(APPLICATION_DATA, at, into)?;
                    begun = None;
                }
            }
        }
        begun.map_or(Ok(()), |(at, _)| self.sealing.seal(APPLICATION_DATA, at, into))
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let stage = match &self.stage {
            Stage::Fresh(_) => "fresh",
            Stage::Handshake(_) => "handshake",
            Stage::Open(_) => "open",
            Stage::Failed => "failed",
        };
        f.debug_struct("Session").field("stage", &stage).finish_non_exhaustive()
    }
}
