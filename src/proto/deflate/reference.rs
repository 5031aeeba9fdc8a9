//! An inflater for tests, from RFC 1951 alone: slow, simple, and of no common origin with those that are used.
//!
//! It keeps the window that was agreed and fails where a message refers beyond it, as a client would whose memory is no larger.
//! Inflaters at large do not tell: they have 32 KiB whatever was agreed.

// Each test program uses its own part of it.
#![allow(dead_code)]

/// A receiver's end of a context (RFC 7692 7.2.2).
#[derive(Debug)]
pub(crate) struct Reference {
    window_bytes: usize,
    /// All that has come, as far back as a window goes.
    history: Vec<u8>,
    /// The farthest that anything has referred to.
    pub(crate) farthest: usize,
}

type Result<T> = std::result::Result<T, &'static str>;

impl Reference {
    pub(crate) fn new(window_bits: u8) -> Reference {
        Reference { window_bytes: 1 << window_bits, history: Vec::new(), farthest: 0 }
    }

    /// The next message of the sender's. After an error it is of no use.
    pub(crate) fn read(&mut self, payload: &[u8], bytes_max: usize) -> Result<Vec<u8>> {
        let input = [payload, &[0x00, 0x00, 0xff, 0xff]].concat();
        let mut bits = Bits { bytes: &input, at: 0 };
        let before = self.history.len();
        let mut out = Output {
            bytes: std::mem::take(&mut self.history),
            bytes_max: before + bytes_max,
            window_bytes: self.window_bytes,
            farthest: self.farthest,
        };
        while bits.at < 8 * input.len() {
            let is_final = bits.take(1)? == 1;
            match bits.take(2)? {
                0 => out.stored(&mut bits)?,
                1 => {
                    let lengths = |symbol| {
                        [8, 9, 7, 8][usize::from(symbol > 143) + usize::from(symbol > 255) + usize::from(symbol > 279)]
                    };
                    let symbols: Vec<u8> = (0..288).map(lengths).collect();
                    out.coded(&mut bits, &Code::new(&symbols)?, &Code::new(&[5; 32])?)?;
                }
                2 => {
                    let (symbols, distances) = read_codes(&mut bits)?;
                    out.coded(&mut bits, &symbols, &distances)?;
                }
                _ => return Err("a block of no type"),
            }
            // RFC 7692 7.2.3.4: what comes behind a final block begins with a byte of its own.
            if is_final {
                bits.align();
                if bits.at >= 8 * payload.len() {
                    break;
                }
            }
        }
        let message = out.bytes[before..].to_vec();
        self.farthest = out.farthest;
        self.history = out.bytes;
        let old = self.history.len().saturating_sub(self.window_bytes);
        self.history.drain(..old);
        Ok(message)
    }
}

/// RFC 1951 3.1.1: from the least significant bit on.
struct Bits<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Bits<'_> {
    /// The next 16 bits, zeros where there are no more.
    fn peek(&self) -> u32 {
        let byte = |at| self.bytes.get(self.at / 8 + at).map_or(0, |byte| u32::from(*byte));
        (byte(0) | byte(1) << 8 | byte(2) << 16) >> (self.at % 8) & 0xffff
    }

    fn skip(&mut self, count: u32) -> Result<()> {
        self.at += count as usize;
        if self.at > 8 * self.bytes.len() { Err("it is cut off") } else { Ok(()) }
    }

    /// At most 16 bits.
    fn take(&mut self, count: u32) -> Result<u32> {
        let value = self.peek() & ((1 << count) - 1);
        self.skip(count)?;
        Ok(value)
    }

    fn align(&mut self) {
        self.at = self.at.next_multiple_of(8);
    }
}

/// RFC 1951 3.2.2: codes of a length are consecutive, and those of the next begin behind them.
struct Code {
    counts: [u16; 16],
    symbols: Vec<u16>,
}

impl Code {
    fn new(lengths: &[u8]) -> Result<Code> {
        let mut counts = [0; 16];
        let mut symbols = Vec::new();
        for length in 1..=15 {
            let of_it = (0..).zip(lengths).filter(|(_, it)| **it == length).map(|(symbol, _): (u16, _)| symbol);
            let before = symbols.len();
            symbols.extend(of_it);
            counts[usize::from(length)] = (symbols.len() - before) as u16;
        }
        let mut free: i32 = 1;
        for count in &counts[1..] {
            free = 2 * free - i32::from(*count);
            if free < 0 {
                return Err("more codes than there are");
            }
        }
        // RFC 1951 3.2.7: a single distance has one bit; no distance, where all are literals.
        if free > 0 && symbols.len() > 1 {
            return Err("fewer codes than there must be");
        }
        Ok(Code { counts, symbols })
    }

    fn read(&self, bits: &mut Bits<'_>) -> Result<u16> {
        let (mut next, mut code, mut first, mut index) = (bits.peek(), 0, 0, 0);
        for (len, count) in (1..).zip(&self.counts[1..]) {
            let count = u32::from(*count);
            code |= next & 1;
            next >>= 1;
            if code < first + count {
                bits.skip(len)?;
                return Ok(self.symbols[(index + code - first) as usize]);
            }
            index += count;
            first = 2 * (first + count);
            code *= 2;
        }
        // Of an incomplete code, what is missing may still have come.
        Err(if bits.at + self.counts.len() > 8 * bits.bytes.len() { "it is cut off" } else { "no code of this" })
    }
}

/// RFC 1951 3.2.7.
fn read_codes(bits: &mut Bits<'_>) -> Result<(Code, Code)> {
    const ORDER: [usize; 19] = [16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15];
    let (symbols, distances) = (257 + bits.take(5)? as usize, 1 + bits.take(5)? as usize);
    let count = 4 + bits.take(4)? as usize;
    if symbols > 286 || distances > 30 {
        return Err("symbols that there are not");
    }
    let mut of_lengths = [0; 19];
    for place in &ORDER[..count] {
        of_lengths[*place] = bits.take(3)? as u8;
    }
    let of_lengths = Code::new(&of_lengths)?;
    let mut lengths: Vec<u8> = Vec::new();
    while lengths.len() < symbols + distances {
        let (value, times) = match of_lengths.read(bits)? {
            16 => (*lengths.last().ok_or("nothing to be repeated")?, 3 + bits.take(2)?),
            17 => (0, 3 + bits.take(3)?),
            18 => (0, 11 + bits.take(7)?),
            length => (length as u8, 1),
        };
        lengths.extend(std::iter::repeat_n(value, times as usize));
    }
    if lengths.len() > symbols + distances {
        return Err("too many lengths");
    }
    if lengths[256] == 0 {
        return Err("a block without an end");
    }
    Ok((Code::new(&lengths[..symbols])?, Code::new(&lengths[symbols..])?))
}

struct Output {
    bytes: Vec<u8>,
    bytes_max: usize,
    window_bytes: usize,
    farthest: usize,
}

impl Output {
    fn stored(&mut self, bits: &mut Bits<'_>) -> Result<()> {
        bits.align();
        let (len, check) = (bits.take(16)?, bits.take(16)?);
        if len != !check & 0xffff {
            return Err("a length that is not confirmed");
        }
        for _ in 0..len {
            let byte = bits.take(8)? as u8;
            self.put(byte)?;
        }
        Ok(())
    }

    /// RFC 1951 3.2.5.
    fn coded(&mut self, bits: &mut Bits<'_>, symbols: &Code, distances: &Code) -> Result<()> {
        loop {
            let symbol = u32::from(symbols.read(bits)?);
            let len = match symbol {
                0..256 => {
                    self.put(symbol as u8)?;
                    continue;
                }
                256 => return Ok(()),
                257..265 => symbol - 254,
                265..285 => {
                    let more = (symbol - 261) / 4;
                    3 + ((4 + (symbol - 265) % 4) << more) + bits.take(more)?
                }
                285 => 258,
                _ => return Err("a length that there is not"),
            };
            let distance = match u32::from(distances.read(bits)?) {
                code @ 0..4 => 1 + code,
                code @ 4..30 => {
                    let more = code / 2 - 1;
                    1 + ((2 + code % 2) << more) + bits.take(more)?
                }
                _ => return Err("a distance that there is not"),
            } as usize;
            if distance > self.bytes.len() {
                return Err("it refers to what was before everything");
            }
            if distance > self.window_bytes {
                return Err("it refers to what is beyond the window");
            }
            self.farthest = self.farthest.max(distance);
            for _ in 0..len {
                self.put(self.bytes[self.bytes.len() - distance])?;
            }
        }
    }

    fn put(&mut self, byte: u8) -> Result<()> {
        if self.bytes.len() == self.bytes_max {
            return Err("too much");
        }
        self.bytes.push(byte);
        Ok(())
    }
}
