//! The name that a client asks for: rustls goes by it and does not say it of a connection like ours.

use super::record::HEADER_BYTES;

/// What has come of a client's first message.
#[derive(Default)]
pub(super) struct Hello {
    bytes: Vec<u8>,
    name: Option<Box<str>>,
    is_read: bool,
}

const CLIENT_HELLO: u8 = 1;
const HELLO_BYTES_MAX: usize = 64 << 10;

impl Hello {
    /// Looks at a record of the handshake, header and all, until the message has been whole.
    pub(super) fn look_at(&mut self, record: &[u8]) {
        if self.is_read {
            return;
        }
        self.bytes.extend_from_slice(&record[HEADER_BYTES..]);
        let len = match *self.bytes.as_slice() {
            [CLIENT_HELLO, a, b, c, ..] => 4 + u32::from_be_bytes([0, a, b, c]) as usize,
            [] | [CLIENT_HELLO, ..] => usize::MAX,
            _ => 0,
        };
        if self.bytes.len() >= len || self.bytes.len() > HELLO_BYTES_MAX {
            self.name = server_name(self.bytes.get(4..len).unwrap_or_default()).map(Into::into);
            self.bytes = Vec::new();
            self.is_read = true;
        }
    }

    pub(super) fn into_name(self) -> Option<Box<str>> {
        self.name
    }
}

/// The name in the extension server_name (RFC 6066 3) of a ClientHello (RFC 8446 4.1.2). Only a host's name; a literal
/// address is none.
fn server_name(hello: &[u8]) -> Option<&str> {
    // legacy_version, random, legacy_session_id, cipher_suites, legacy_compression_methods.
    let (_, rest) = hello.split_at_checked(2 + 32)?;
    let (_, rest) = split_short(rest, 1)?;
    let (_, rest) = split_short(rest, 2)?;
    let (_, rest) = split_short(rest, 1)?;
    let (mut extensions, _) = split_short(rest, 2)?;
    while !extensions.is_empty() {
        let (kind, rest) = extensions.split_at_checked(2)?;
        let (content, rest) = split_short(rest, 2)?;
        if kind == [0, 0] {
            let (names, _) = split_short(content, 2)?;
            let (host_name, name) = names.split_at_checked(1)?;
            let (name, _) = split_short(name, 2)?;
            let name = std::str::from_utf8(name).ok().filter(|_| host_name == [0])?;
            return rustls::pki_types::DnsName::try_from(name).ok().map(|_| name);
        }
        extensions = rest;
    }
    None
}

/// What has its length in front of it, in so many bytes, and the rest.
fn split_short(bytes: &[u8], len_bytes: usize) -> Option<(&[u8], &[u8])> {
    let (len, rest) = bytes.split_at_checked(len_bytes)?;
    let len = len.iter().fold(0, |len, byte| len << 8 | usize::from(*byte));
    rest.split_at_checked(len)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_stands_there_leads_to_no_panic() {
        for len in 0..100 {
            for byte in [0, 1, 2, 0x16, 0xff] {
                assert_eq!(server_name(&vec![byte; len]), None);
                let mut hello = Hello::default();
                hello.look_at(&vec![byte; HEADER_BYTES + len]);
                hello.look_at(&vec![byte; HEADER_BYTES + len]);
                assert_eq!(hello.into_name(), None);
            }
        }
    }
}
