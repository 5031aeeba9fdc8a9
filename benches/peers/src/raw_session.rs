//! Answers whole sessions with the bytes that a WebSocket server answers, and no more than that takes: the least that users
//! who connect, say something and leave can cost. A request's key is looked for and hashed, because clients check it; a
//! frame is unmasked and sent back; behind a Close the connection is closed. Nothing is checked, and what does not come in
//! one piece is not understood: it is for a load generator's small messages.

use std::error::Error;

use clap::Parser;
use tungstenite::handshake::derive_accept_key;

use crate::{
    bare::Bare,
    epoll,
    uring::{self, Chunk, Options},
};

#[derive(Parser)]
#[command(about)]
struct Args {
    #[command(flatten)]
    bare: Bare<1024>,
}

const KEY: &[u8] = b"Sec-WebSocket-Key: ";
const KEY_LEN: usize = 24;
const CLOSE: u8 = 8;

#[derive(Default)]
struct Session {
    answer: Vec<u8>,
}

impl Session {
    /// Puts the answer to these bytes into `answer`: whether the connection is to be closed behind it.
    fn answer(&mut self, mut bytes: &[u8]) -> bool {
        self.answer.clear();
        if bytes.starts_with(b"GET ") {
            let Some(behind) = self.upgrade(bytes) else { return true };
            bytes = behind;
        }
        let mut is_over = false;
        while let [first, second, a, b, c, d, rest @ ..] = bytes {
            let len = usize::from(second & 0x7f).min(rest.len());
            self.answer.extend([*first, second & 0x7f]);
            self.answer
                .extend(rest[..len].iter().zip([a, b, c, d].into_iter().cycle()).map(|(byte, mask)| byte ^ mask));
            is_over |= first & 0x0f == CLOSE;
            bytes = &rest[len..];
        }
        is_over
    }

    /// Answers a request for an upgrade, and gives what is behind it.
    fn upgrade<'a>(&mut self, bytes: &'a [u8]) -> Option<&'a [u8]> {
        let end = bytes.windows(4).position(|window| window == b"\r\n\r\n")? + 4;
        let key = bytes.windows(KEY.len()).position(|window| window.eq_ignore_ascii_case(KEY))? + KEY.len();
        let accept = derive_accept_key(bytes.get(key..key + KEY_LEN)?);
        self.answer.extend_from_slice(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: ",
        );
        self.answer.extend_from_slice(accept.as_bytes());
        self.answer.extend_from_slice(b"\r\n\r\n");
        Some(&bytes[end..])
    }
}

impl uring::App for Session {
    fn received(&mut self, io: &mut uring::Io, conn: u32, chunk: Chunk) {
        let is_over = self.answer(chunk.bytes());
        io.recycle(chunk);
        io.send(conn, &self.answer);
        if is_over {
            io.close(conn);
        }
    }
}

impl epoll::App for Session {
    fn received(&mut self, io: &mut epoll::Io, conn: u32, bytes: &[u8]) {
        let is_over = self.answer(bytes);
        io.send(conn, &self.answer);
        if is_over {
            io.close(conn);
        }
    }
}

/// Serves as the command line `args` says, the program's name first.
///
/// # Errors
/// If the address or the ring cannot be had.
pub fn serve(args: impl IntoIterator<Item = String>) -> Result<(), Box<dyn Error>> {
    Args::parse_from(args).bare.serve(&mut Session::default(), Options::default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_is_answered() {
        let mut session = Session::default();
        let head = b"GET /echo HTTP/1.1\r\nHost: x\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
        // The key is RFC 6455's own example.
        assert!(!session.answer(head));
        assert!(session.answer.ends_with(b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"));
        let message = [0x82, 0x82, 1, 2, 3, 4, b'a' ^ 1, b'b' ^ 2];
        assert!(!session.answer(&message));
        assert_eq!(session.answer, b"\x82\x02ab");
        let close = [0x88, 0x82, 1, 2, 3, 4, 3 ^ 1, 0xe8 ^ 2];
        assert!(session.answer(&[message, close].concat()));
        assert_eq!(session.answer, b"\x82\x02ab\x88\x02\x03\xe8");
    }
}
