//! A client of bytes: what it sends is written down in the test, and it hides nothing of what it gets.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use super::{PATIENCE, bytes};

pub(crate) const TEXT: u8 = 1;
pub(crate) const BINARY: u8 = 2;
pub(crate) const CLOSE: u8 = 8;
pub(crate) const PING: u8 = 9;
pub(crate) const PONG: u8 = 10;
pub(crate) const FIN: u8 = 0x80;
/// Of a message that is compressed (RFC 7692 6).
pub(crate) const RSV1: u8 = 0x40;

/// RFC 6455 1.3's.
pub(crate) const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
pub(crate) const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// A good handshake's request.
pub(crate) fn upgrade_request(path: &str) -> Vec<u8> {
    bytes::request(path, KEY)
}

/// A client's frame with this first byte.
pub(crate) fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    bytes::put_frame(&mut frame, first, payload, [0x37, 0xFA, 0x21, 0x3D]);
    frame
}

pub(crate) fn text(payload: &str) -> Vec<u8> {
    frame(FIN | TEXT, payload.as_bytes())
}

pub(crate) fn binary(payload: &[u8]) -> Vec<u8> {
    frame(FIN | BINARY, payload)
}

pub(crate) fn close(code: u16, reason: &[u8]) -> Vec<u8> {
    frame(FIN | CLOSE, &[&code.to_be_bytes(), reason].concat())
}

/// A server's frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) first: u8,
    pub(crate) payload: Vec<u8>,
}

impl Frame {
    pub(crate) fn new(first: u8, payload: &[u8]) -> Frame {
        Frame { first, payload: payload.to_vec() }
    }

    pub(crate) fn is_close(&self) -> bool {
        self.first == FIN | CLOSE
    }

    /// The code of a Close frame.
    pub(crate) fn code(&self) -> Option<u16> {
        let code = self.payload.get(..2).map(|code| u16::from_be_bytes([code[0], code[1]]));
        code.filter(|_| self.is_close())
    }
}

/// An HTTP response.
#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Response {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).filter_map(|line| line.split_once(": ")).find_map(|(field, value)| {
            let is_named = field.eq_ignore_ascii_case(name);
            is_named.then_some(value)
        })
    }
}

/// How a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// The server finished sending.
    Finished,
    /// It was reset.
    Reset,
    /// It has not ended in time.
    Open,
}

pub(crate) struct Raw {
    pub(crate) stream: TcpStream,
    received: Vec<u8>,
}

impl Raw {
    pub(crate) fn connect(address: SocketAddr) -> Raw {
        Raw::over(TcpStream::connect(address).expect("a connection"))
    }

    pub(crate) fn over(stream: TcpStream) -> Raw {
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        stream.set_nodelay(true).expect("no delay");
        Raw { stream, received: Vec::new() }
    }

    pub(crate) fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).expect("it can be sent");
    }

    /// Sends, unless the server has ended the connection already.
    pub(crate) fn send_if_open(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes);
    }

    /// Does the opening handshake, and agrees on compression.
    pub(crate) fn upgrade_compressed(&mut self, path: &str) {
        let request = String::from_utf8(upgrade_request(path)).expect("text");
        let offer = "\r\nSec-WebSocket-Extensions: permessage-deflate\r\n\r\n";
        self.send(request.replace("\r\n\r\n", offer).as_bytes());
        let response = self.response(false);
        assert!(response.header("sec-websocket-extensions").is_some(), "{response:?}");
    }

    /// Does the opening handshake.
    pub(crate) fn upgrade(&mut self, path: &str) {
        self.send(&upgrade_request(path));
        let response = self.response(false);
        assert_eq!(response.status, 101, "{response:?}");
        assert_eq!(response.header("sec-websocket-accept"), Some(ACCEPT));
    }

    /// More bytes into `received`.
    fn fill(&mut self) -> Result<(), End> {
        let mut buffer = [0; 64 << 10];
        match self.stream.read(&mut buffer) {
            Ok(0) => Err(End::Finished),
            Ok(len) => {
                self.received.extend_from_slice(&buffer[..len]);
                Ok(())
            }
            Err(error) => match error.kind() {
                ErrorKind::WouldBlock | ErrorKind::TimedOut => Err(End::Open),
                ErrorKind::ConnectionReset | ErrorKind::BrokenPipe => Err(End::Reset),
                _ => panic!("{error}"),
            },
        }
    }

    pub(crate) fn response(&mut self, head_only: bool) -> Response {
        self.try_response(head_only).expect("a response")
    }

    pub(crate) fn try_response(&mut self, head_only: bool) -> Result<Response, End> {
        let head_end = loop {
            if let Some(at) = self.received.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
                break at + 4;
            }
            self.fill()?;
        };
        let head = String::from_utf8(self.received.drain(..head_end).collect()).expect("UTF-8");
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
        let mut response = Response { status, head, body: String::new() };
        let body_len = match response.header("content-length") {
            Some(len) if !head_only => len.parse().expect("a length"),
            _ => 0,
        };
        while self.received.len() < body_len {
            self.fill()?;
        }
        response.body = String::from_utf8(self.received.drain(..body_len).collect()).expect("UTF-8");
        Ok(response)
    }

    pub(crate) fn frame(&mut self) -> Frame {
        self.try_frame().expect("a frame")
    }

    pub(crate) fn try_frame(&mut self) -> Result<Frame, End> {
        loop {
            if let Some((frame, len)) = parse(&self.received) {
                self.received.drain(..len);
                return Ok(frame);
            }
            self.fill()?;
        }
    }

    /// All that comes until the connection ends.
    pub(crate) fn rest(&mut self) -> (Vec<u8>, End) {
        let end = loop {
            if let Err(end) = self.fill() {
                break end;
            }
        };
        (std::mem::take(&mut self.received), end)
    }

    /// All frames until the connection ends.
    pub(crate) fn frames(&mut self) -> (Vec<Frame>, End) {
        let mut frames = Vec::new();
        loop {
            match self.try_frame() {
                Ok(frame) => frames.push(frame),
                Err(end) => {
                    assert!(self.received.is_empty(), "part of a frame: {:?}", self.received);
                    return (frames, end);
                }
            }
        }
    }

    /// Nothing comes for this long.
    pub(crate) fn is_silent(&mut self, time: Duration) -> bool {
        self.stream.set_read_timeout(Some(time)).expect("a timeout");
        let end = self.fill();
        self.stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        end == Err(End::Open)
    }

    pub(crate) fn finish_sending(&self) {
        // The server may have ended the connection already.
        let _ = self.stream.shutdown(Shutdown::Write);
    }

    /// Ends the connection with a reset, as a killed or crashed client does.
    pub(crate) fn reset(self) {
        let socket = socket2::Socket::from(self.stream);
        socket.set_linger(Some(Duration::ZERO)).expect("an option");
    }
}

/// A server's frame at the start of `bytes` and its length there.
fn parse(bytes: &[u8]) -> Option<(Frame, usize)> {
    let (&first, &second) = (bytes.first()?, bytes.get(1)?);
    assert_eq!(second & 0x80, 0, "a server does not mask");
    let (len, header) = match second {
        126 => (usize::from(u16::from_be_bytes(bytes.get(2..4)?.try_into().ok()?)), 4),
        127 => (u64::from_be_bytes(bytes.get(2..10)?.try_into().ok()?) as usize, 10),
        len => (usize::from(len), 2),
    };
    let payload = bytes.get(header..header + len)?;
    Some((Frame::new(first, payload), header + len))
}
