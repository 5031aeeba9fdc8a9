//! What a request looks like on the wire, what its reply must look like, and the check that it does.
//!
//! A message is named by its sequence number alone: its payload is the number followed by a window of a fixed table,
//! so that every message differs, none is stored, and a reply is checked by comparing slices. No I/O here.

/// Payload windows start at one of this many places of the table.
const WINDOWS: usize = 4096;
const SEQUENCE_BYTES: usize = 8;
/// Copied and masked piece by piece, so that a piece is still in the first-level cache when it is masked.
const MASK_PIECE: usize = 4096;

/// Opcodes of RFC 6455 5.2, with the FIN bit.
const TEXT: u8 = 0x81;
const BINARY: u8 = 0x82;
const CLOSE: u8 = 0x88;
const PING: u8 = 0x89;
const PONG: u8 = 0x8a;
const MASKED: u8 = 0x80;

/// A small generator for mask keys; statistical quality is all that is needed.
#[derive(Debug)]
pub(crate) struct Keys(u64);

impl Keys {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed | 1)
    }

    /// The next key (xorshift64*).
    pub(crate) fn key(&mut self) -> [u8; 4] {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        ((self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32) as u32).to_le_bytes()
    }
}

/// How the bytes of requests and replies are laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Layout {
    /// RFC 6455: masked requests, unmasked replies.
    WebSocket,
    /// Requests of the same length without a mask; a reply is the same bytes.
    RawEcho,
    /// Requests of the same length without a mask; a reply is as long as an unmasked frame: the request's last bytes.
    RawFanout,
}

/// All messages of a run: same size, same kind, different contents.
#[derive(Debug)]
pub(crate) struct Messages {
    layout: Layout,
    text: bool,
    size: usize,
    header: Vec<u8>,
    reply_header: Vec<u8>,
    table: Vec<u8>,
}

impl Messages {
    pub(crate) fn new(layout: Layout, text: bool, size: usize) -> Self {
        let opcode = if text { TEXT } else { BINARY };
        let header = length_header(opcode, size, layout == Layout::WebSocket);
        let mut reply_header = match layout {
            Layout::WebSocket => length_header(opcode, size, false),
            Layout::RawEcho | Layout::RawFanout => [&header[..], &[0; 4]].concat(),
        };
        if layout == Layout::RawFanout {
            reply_header.drain(..4);
        }
        let mut random = Keys::new(0x5eed);
        let table =
            (0..size + WINDOWS).map(|_| if text { b' ' + random.key()[0] % 95 } else { random.key()[0] }).collect();
        Self { layout, text, size, header, reply_header, table }
    }

    /// Bytes of a request and of its reply on the wire.
    pub(crate) fn wire_bytes(&self) -> (usize, usize) {
        (self.header.len() + 4 + self.size, self.reply_header.len() + self.size)
    }

    /// Appends the request with this sequence number.
    pub(crate) fn append_request(&self, out: &mut Vec<u8>, sequence: u64, key: [u8; 4]) {
        let key = if self.layout == Layout::WebSocket { key } else { [0; 4] };
        out.reserve(self.header.len() + key.len() + self.size);
        out.extend_from_slice(&self.header);
        out.extend_from_slice(&key);
        let (front, back) = self.payload(sequence);
        let masked = out.len();
        out.extend_from_slice(&front[..self.size.min(SEQUENCE_BYTES)]);
        if self.layout != Layout::WebSocket {
            return out.extend_from_slice(back);
        }
        mask(&mut out[masked..], key);
        // The sequence number is eight bytes, so the key begins anew behind it.
        for piece in back.chunks(MASK_PIECE) {
            let masked = out.len();
            out.extend_from_slice(piece);
            mask(&mut out[masked..], key);
        }
    }

    fn payload(&self, sequence: u64) -> ([u8; SEQUENCE_BYTES], &[u8]) {
        let mut front = sequence.to_le_bytes();
        if self.text {
            // Six bits a character keep the number readable as UTF-8.
            for (index, byte) in front.iter_mut().enumerate() {
                *byte = b'0' + (sequence >> (6 * index) & 63) as u8;
            }
        }
        let window = (sequence.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 52) as usize % WINDOWS;
        (front, &self.table[window..window + self.size.saturating_sub(SEQUENCE_BYTES)])
    }
}

fn length_header(opcode: u8, size: usize, masked: bool) -> Vec<u8> {
    let mask = if masked { MASKED } else { 0 };
    // RFC 6455 5.2: the minimal number of bytes MUST be used to encode the length.
    match size {
        0..=125 => vec![opcode, mask | size as u8],
        126..=0xffff => [&[opcode, mask | 126][..], &(size as u16).to_be_bytes()].concat(),
        _ => [&[opcode, mask | 127][..], &(size as u64).to_be_bytes()].concat(),
    }
}

fn mask(bytes: &mut [u8], key: [u8; 4]) {
    let wide = u64::from_ne_bytes([key[0], key[1], key[2], key[3], key[0], key[1], key[2], key[3]]);
    let mut words = bytes.chunks_exact_mut(8);
    for word in &mut words {
        let masked = u64::from_ne_bytes(word.try_into().expect("eight bytes")) ^ wide;
        word.copy_from_slice(&masked.to_ne_bytes());
    }
    for (byte, key) in words.into_remainder().iter_mut().zip(key.into_iter().cycle()) {
        *byte ^= key;
    }
}

/// Appends a masked control frame.
pub(crate) fn append_control(out: &mut Vec<u8>, opcode: u8, payload: &[u8], key: [u8; 4]) {
    debug_assert!(payload.len() <= 125);
    out.extend_from_slice(&[opcode, MASKED | payload.len() as u8]);
    out.extend_from_slice(&key);
    let masked = out.len();
    out.extend_from_slice(payload);
    mask(&mut out[masked..], key);
}

/// Appends a masked Close 1000.
pub(crate) fn append_close(out: &mut Vec<u8>, key: [u8; 4]) {
    append_control(out, CLOSE, &1000u16.to_be_bytes(), key);
}

/// What came instead of the reply that was due.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Wrong {
    /// A byte differs, counted from the beginning of the frame.
    Byte { sequence: u64, offset: usize, got: u8, want: u8 },
    /// The server closed.
    Close { sequence: u64, code: u16 },
}

impl std::fmt::Display for Wrong {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Byte { sequence, offset, got, want } => {
                write!(f, "reply {sequence}: byte {offset} is {got:#04x} instead of {want:#04x}")
            }
            Self::Close { sequence, code } => write!(f, "Close {code} instead of reply {sequence}"),
        }
    }
}

/// The replies one connection still expects, in order, without gap.
#[derive(Debug, Default)]
pub(crate) struct Replies {
    /// The reply that is due.
    pub(crate) sequence: u64,
    /// Bytes of it that have arrived.
    position: usize,
    /// A control frame that is arriving.
    control: Vec<u8>,
    /// Pongs to send, ready masked.
    pub(crate) pongs: Vec<u8>,
}

impl Replies {
    /// Checks received bytes and returns how many replies they completed.
    pub(crate) fn check(&mut self, messages: &Messages, mut bytes: &[u8]) -> Result<usize, Wrong> {
        let mut completed = 0;
        let header = messages.reply_header.len();
        let whole = header + messages.size;
        while !bytes.is_empty() {
            let between = self.position == 0 && messages.layout == Layout::WebSocket;
            if between && (!self.control.is_empty() || matches!(bytes[0], CLOSE | PING | PONG)) {
                bytes = self.control(bytes)?;
                continue;
            }
            let (front, back) = messages.payload(self.sequence);
            let front = &front[..messages.size.min(SEQUENCE_BYTES)];
            let mut at = 0;
            for part in [&messages.reply_header[..], front, back] {
                let end = at + part.len();
                if self.position < end && !bytes.is_empty() {
                    let want = &part[self.position - at..];
                    let take = want.len().min(bytes.len());
                    if bytes[..take] != want[..take] {
                        return Err(self.wrong_byte(bytes, want));
                    }
                    self.position += take;
                    bytes = &bytes[take..];
                }
                at = end;
            }
            if self.position == whole {
                self.position = 0;
                self.sequence += 1;
                completed += 1;
            }
        }
        Ok(completed)
    }

    fn wrong_byte(&self, bytes: &[u8], want: &[u8]) -> Wrong {
        let differs = bytes.iter().zip(want).position(|(got, want)| got != want).unwrap_or_default();
        Wrong::Byte {
            sequence: self.sequence,
            offset: self.position + differs,
            got: bytes[differs],
            want: want[differs],
        }
    }

    fn control<'a>(&mut self, bytes: &'a [u8]) -> Result<&'a [u8], Wrong> {
        let whole = |control: &[u8]| 2 + control.get(1).map_or(0, |len| usize::from(len & 0x7f));
        let mut used = 0;
        while self.control.len() < whole(&self.control) && used < bytes.len() {
            self.control.push(bytes[used]);
            used += 1;
        }
        if self.control.len() == whole(&self.control) {
            let control = std::mem::take(&mut self.control);
            let key = [0x5a, 0xa5, 0x3c, 0xc3];
            match control[0] {
                // RFC 6455 5.5.2: upon receipt of a Ping frame, an endpoint MUST send a Pong frame in response.
                PING => append_control(&mut self.pongs, PONG, &control[2..], key),
                CLOSE => {
                    let code = control.get(2..4).map_or(1005, |code| u16::from_be_bytes([code[0], code[1]]));
                    return Err(Wrong::Close { sequence: self.sequence, code });
                }
                _ => {}
            }
        }
        Ok(&bytes[used..])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Undoes a request by the letter of RFC 6455 5.3 and returns the reply a correct server gives.
    fn reply(messages: &Messages, request: &[u8]) -> Vec<u8> {
        let header = messages.header.len();
        let key = &request[header..header + 4];
        let payload = request[header + 4..].iter().enumerate().map(|(index, byte)| byte ^ key[index % 4]);
        let mut reply = request[..header].to_vec();
        reply[1] &= 0x7f;
        reply.extend(payload);
        reply
    }

    #[test]
    fn replies_of_every_length_form_are_checked_whatever_the_splits() {
        for (size, header) in [(0, 2), (1, 2), (7, 2), (8, 2), (125, 2), (126, 4), (65_535, 4), (65_536, 10)] {
            let messages = Messages::new(Layout::WebSocket, true, size);
            assert_eq!(messages.wire_bytes(), (header + 4 + size, header + size));
            let mut stream = Vec::new();
            for sequence in 0..3 {
                let mut request = Vec::new();
                messages.append_request(&mut request, sequence, Keys::new(sequence + 9).key());
                stream.extend(reply(&messages, &request));
            }
            for split in [1, 3, 64, 4096, usize::MAX] {
                let mut replies = Replies::default();
                let completed: usize = stream
                    .chunks(split.min(stream.len()))
                    .map(|part| replies.check(&messages, part).expect("a correct reply"))
                    .sum();
                assert_eq!((completed, replies.sequence), (3, 3), "{size} bytes in pieces of {split}");
            }
        }
    }

    #[test]
    fn every_single_corrupted_byte_is_found() {
        let messages = Messages::new(Layout::WebSocket, false, 200);
        let mut request = Vec::new();
        messages.append_request(&mut request, 0, [1, 2, 3, 4]);
        let good = reply(&messages, &request);
        for index in 0..good.len() {
            let mut bad = good.clone();
            bad[index] ^= 0x10;
            assert!(Replies::default().check(&messages, &bad).is_err(), "byte {index}");
        }
    }

    #[test]
    fn a_repeated_or_skipped_reply_is_found() {
        let messages = Messages::new(Layout::WebSocket, true, 64);
        let mut request = Vec::new();
        messages.append_request(&mut request, 1, [9; 4]);
        let second = reply(&messages, &request);
        assert!(Replies::default().check(&messages, &second).is_err());
    }

    #[test]
    fn a_raw_delivery_is_the_end_of_the_request() {
        for size in [64, 200, 70_000] {
            let messages = Messages::new(Layout::RawFanout, false, size);
            let mut request = Vec::new();
            messages.append_request(&mut request, 0, [7; 4]);
            let (sent, received) = messages.wire_bytes();
            assert_eq!((request.len(), sent - received), (sent, 4));
            assert_eq!(Replies::default().check(&messages, &request[4..]), Ok(1));
        }
    }

    #[test]
    fn control_frames_between_replies_are_answered() {
        let messages = Messages::new(Layout::WebSocket, true, 1);
        let mut replies = Replies::default();
        assert_eq!(replies.check(&messages, &[PING, 1]), Ok(0));
        assert_eq!(replies.check(&messages, &[b'x', PONG, 0, TEXT, 1, b'0']), Ok(1));
        assert_eq!(replies.pongs[..2], [PONG, MASKED | 1]);
        let closed = replies.check(&messages, &[CLOSE, 2, 3, 233]);
        assert_eq!(closed, Err(Wrong::Close { sequence: 1, code: 1001 }));
    }
}
