//! What a request looks like on the wire, and what its reply must look like. No I/O here.
//!
//! A message is named by its stream (who sends) and its sequence number alone: its payload is a stamp of 16 characters
//! (sequence, stream, checksum) followed by a window of a fixed table that the checksum's hash chooses. So every message
//! differs, none is stored, and a reply is checked by comparing slices. Where the payload is shorter than the stamp, it is
//! as much of the stamp as fits: the sequence comes first.

use ringwire::proto::{
    Kind, Opcode,
    frame::{HEADER_BYTES_MAX, encode_header},
    mask,
};
use ringwire::quote::quoted;

/// Bodies of random bytes start at one of this many places of the table.
const WINDOWS_RANDOM: usize = 4096;
/// Those of JSON at one of so many: a compressor must not find the last message's bytes again in the next one.
const WINDOWS_JSON: usize = 1 << 20;
/// Characters of the stamp: 8 of the sequence, 4 of the stream, 4 of the checksum; six bits each, low ones first.
pub(crate) const STAMP_BYTES: usize = 16;
const SEQUENCE_CHARS: usize = 8;
const STREAM_CHARS: usize = 4;
/// Streams that the stamp can tell apart.
pub(crate) const STREAMS_MAX: usize = 1 << (6 * STREAM_CHARS);
const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
const NO_DIGIT: u8 = 0xFF;

/// The value of each character of [`ALPHABET`].
const DIGITS: [u8; 256] = {
    let mut digits = [NO_DIGIT; 256];
    let mut value = 0;
    while value < 64 {
        digits[ALPHABET[value] as usize] = value as u8;
        value += 1;
    }
    digits
};

/// The characters of each twelve bits: the stamp is written two at a time.
const PAIRS: [[u8; 2]; 4096] = {
    let mut pairs = [[0; 2]; 4096];
    let mut value = 0;
    while value < 4096 {
        pairs[value] = [ALPHABET[value & 63], ALPHABET[value >> 6]];
        value += 1;
    }
    pairs
};

/// A small generator for mask keys; statistical quality is all that a load generator needs.
#[derive(Debug)]
pub(crate) struct Keys(u64);

impl Keys {
    pub(crate) fn new(seed: u64) -> Self {
        Self(mix(seed) | 1)
    }

    /// The next 64 bits (xorshift64*).
    pub(crate) fn bits(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// The next mask key.
    pub(crate) fn key(&mut self) -> [u8; 4] {
        ((self.bits() >> 32) as u32).to_le_bytes()
    }
}

/// splitmix64's finisher.
fn mix(mut bits: u64) -> u64 {
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

/// How large payloads are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Sizes {
    /// All the same.
    Fixed(usize),
    /// Each size of the range as likely as another.
    Range(usize, usize),
    /// Sizes with their weights.
    Mix(Vec<(usize, u32)>),
}

impl Sizes {
    /// Reads `64`, `64..4096` or `64:90,4096:10`; sizes take KiB and MiB.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let size = |text: &str| -> Result<usize, String> {
            let (digits, unit) = match text.trim() {
                text if text.ends_with("MiB") => (&text[..text.len() - 3], 1 << 20),
                text if text.ends_with("KiB") => (&text[..text.len() - 3], 1 << 10),
                text => (text, 1),
            };
            let bytes = digits
                .trim()
                .parse::<usize>()
                .map_err(|_| format!("{} is not a size such as 64 or 4KiB", quoted(text)))?;
            if bytes > 1 << 24 { Err("payloads may have at most 16777216 bytes".to_owned()) } else { Ok(bytes * unit) }
        };
        if let Some((low, high)) = text.split_once("..") {
            let (low, high) = (size(low)?, size(high)?);
            return if low <= high { Ok(Self::Range(low, high)) } else { Err("the range is empty".to_owned()) };
        }
        if !text.contains([':', ',']) {
            return Ok(Self::Fixed(size(text)?));
        }
        let mut parts = Vec::new();
        for part in text.split(',') {
            let (bytes, weight) = part.split_once(':').unwrap_or((part, "1"));
            let weight = weight.parse().ok().filter(|weight| (1..=1_000_000).contains(weight));
            parts.push((size(bytes)?, weight.ok_or_else(|| format!("{} is not SIZE:WEIGHT", quoted(part)))?));
        }
        Ok(Self::Mix(parts))
    }

    /// The largest.
    pub(crate) fn max(&self) -> usize {
        match self {
            Self::Fixed(size) | Self::Range(_, size) => *size,
            Self::Mix(parts) => parts.iter().map(|part| part.0).max().unwrap_or_default(),
        }
    }

    /// The smallest.
    pub(crate) fn min(&self) -> usize {
        match self {
            Self::Fixed(size) | Self::Range(size, _) => *size,
            Self::Mix(parts) => parts.iter().map(|part| part.0).min().unwrap_or_default(),
        }
    }

    fn of(&self, hash: u64) -> usize {
        match self {
            Self::Fixed(size) => *size,
            Self::Range(low, high) => low + (hash % (high - low + 1) as u64) as usize,
            Self::Mix(parts) => {
                let total: u64 = parts.iter().map(|part| u64::from(part.1)).sum();
                let mut left = hash % total;
                for (size, weight) in parts {
                    if left < u64::from(*weight) {
                        return *size;
                    }
                    left -= u64::from(*weight);
                }
                unreachable!("left < total")
            }
        }
    }
}

/// What payloads are made of, behind their stamps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Content {
    /// Bytes, or characters, of no pattern: nothing to compress.
    Random,
    /// Cut out of a stream of JSON records: 1 KiB of it compresses about 1.7 to 1 by itself, 4.5 to 1 with a context.
    Json,
}

impl Content {
    fn windows(self) -> usize {
        match self {
            Content::Random => WINDOWS_RANDOM,
            Content::Json => WINDOWS_JSON,
        }
    }

    fn table(self, kind: Kind, len: usize) -> Vec<u8> {
        let mut random = Keys::new(0x5eed);
        match self {
            Content::Random => (0..len)
                .map(|_| match (kind, (random.bits() >> 32) as u8) {
                    (Kind::Binary, byte) => byte,
                    // Printable ASCII that JSON needs no escape for.
                    (Kind::Text, byte) => match b' ' + byte % 95 {
                        b'"' | b'\\' => b'.',
                        byte => byte,
                    },
                })
                .collect(),
            Content::Json => json_records(&mut random, len),
        }
    }
}

/// Records as a shop might send them, one a line, until there are so many bytes: the same names again and again, much that
/// few values are there for, and numbers.
fn json_records(random: &mut Keys, len: usize) -> Vec<u8> {
    const CITIES: [&str; 8] = ["Berlin", "Lisbon", "Oslo", "Quito", "Delhi", "Turin", "Osaka", "Perth"];
    const NAMES: [&str; 8] = ["kim", "ana", "leo", "mia", "tom", "eva", "max", "zoe"];
    const WORDS: [&str; 16] = [
        "small", "large", "blue", "red", "green", "light", "warm", "thin", "cup", "lamp", "shirt", "chair", "book",
        "bag", "pen", "clock",
    ];
    let mut text = String::with_capacity(len + 2048);
    let mut below = |count: usize| ((random.bits() >> 33) % count as u64) as usize;
    for number in 0.. {
        if text.len() >= len {
            break;
        }
        text += &format!("{{\"type\":\"order.updated\",\"sequence\":{number},\"at\":\"2025-01-{:02}T", 1 + below(28));
        text += &format!("{:02}:{:02}:{:02}Z\",\"customer\":{{", below(24), below(60), below(60));
        text += &format!("\"id\":{},\"name\":\"{}\",\"tier\":\"gold\",", below(1000), NAMES[below(8)]);
        text += &format!("\"verified\":{},\"language\":\"en-GB\"}},\"address\":{{", below(2) == 0);
        text += &format!("\"street\":\"{} Street\",\"number\":{},", CITIES[below(8)], below(200));
        text += &format!("\"postalCode\":\"{:04}0\",\"city\":\"{}\",", below(9999), CITIES[below(8)]);
        text += "\"country\":\"DE\"},\"payment\":{\"method\":\"credit-card\",\"currency\":\"EUR\",";
        text += &format!("\"amount\":{},\"captured\":true}},\"items\":[", 100 + below(99_900));
        for place in 0..4 + below(2) {
            text += if place == 0 { "" } else { "," };
            text += &format!("{{\"sku\":\"A-{:02}\",\"quantity\":{},", below(40), 1 + below(4));
            text += &format!("\"unitPrice\":{}99,\"taxRate\":19,", 1 + below(30));
            text += &format!("\"shelf\":\"{}-1{}\",", ["A", "B", "C", "D"][below(4)], below(10));
            text += &format!("\"title\":\"{}\"}}", WORDS[below(16)]);
        }
        text += "],\"carrier\":{\"company\":\"parcel-express\",";
        text += &format!("\"tracking\":\"{:06x}\",\"days\":{},", below(1 << 24), 1 + below(8));
        text += "\"signature\":false}}\n";
    }
    text.truncate(len);
    text.into_bytes()
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

/// Which message: its stream and its place in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Name {
    pub(crate) stream: u32,
    pub(crate) sequence: u64,
}

/// All messages of a run.
#[derive(Debug)]
pub(crate) struct Messages {
    pub(crate) layout: Layout,
    pub(crate) kind: Kind,
    pub(crate) sizes: Sizes,
    content: Content,
    windows: usize,
    table: Vec<u8>,
}

/// One message's bytes, in three pieces.
#[derive(Debug)]
pub(crate) struct Parts<'a> {
    header: [u8; HEADER_BYTES_MAX],
    header_len: usize,
    stamp: [u8; STAMP_BYTES],
    stamp_len: usize,
    body: &'a [u8],
}

/// How received bytes compare with those that were due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Match {
    /// These many bytes end the message.
    Whole(usize),
    /// All are right so far.
    Partial,
    /// A byte differs.
    Differs,
}

impl Parts<'_> {
    fn pieces(&self) -> [&[u8]; 3] {
        [&self.header[..self.header_len], &self.stamp[..self.stamp_len], self.body]
    }

    /// Compares `bytes` with the message from its byte `at` on.
    #[inline]
    pub(crate) fn compare(&self, at: usize, bytes: &[u8]) -> Match {
        // The common case, whole and short, with comparisons of known length.
        if at == 0
            && let Some((&[a, b], rest)) = bytes.split_first_chunk()
            && let Some((stamp, rest)) = rest.split_first_chunk::<STAMP_BYTES>()
            && self.header_len == 2
            && self.stamp_len == STAMP_BYTES
            && rest.len() >= self.body.len()
        {
            let is_equal = [a, b] == [self.header[0], self.header[1]]
                && *stamp == self.stamp
                && rest[..self.body.len()] == *self.body;
            return if is_equal { Match::Whole(2 + STAMP_BYTES + self.body.len()) } else { Match::Differs };
        }
        self.compare_pieces(at, bytes)
    }

    fn compare_pieces(&self, at: usize, bytes: &[u8]) -> Match {
        let mut used = 0;
        let mut start = 0;
        for piece in self.pieces() {
            let end = start + piece.len();
            if at + used < end {
                let want = &piece[at + used - start..];
                let take = want.len().min(bytes.len() - used);
                if bytes[used..used + take] != want[..take] {
                    return Match::Differs;
                }
                used += take;
                if take < want.len() {
                    return Match::Partial;
                }
            }
            start = end;
        }
        Match::Whole(used)
    }

    /// The message's first `len` bytes.
    pub(crate) fn prefix(&self, len: usize) -> Vec<u8> {
        let mut bytes = self.pieces().concat();
        bytes.truncate(len);
        bytes
    }

    /// The payload alone.
    pub(crate) fn payload(&self) -> Vec<u8> {
        [&self.stamp[..self.stamp_len], self.body].concat()
    }
}

impl Messages {
    pub(crate) fn new(layout: Layout, kind: Kind, sizes: Sizes, content: Content) -> Self {
        let windows = content.windows();
        let table = content.table(kind, sizes.max() + windows);
        Self { layout, kind, sizes, content, windows, table }
    }

    /// Whether they are the same as those of [`Messages::new`] would be.
    pub(crate) fn is_made_of(&self, layout: Layout, kind: Kind, sizes: &Sizes, content: Content) -> bool {
        (self.layout, self.kind, &self.sizes, self.content) == (layout, kind, sizes, content)
    }

    /// Payload bytes of a message.
    pub(crate) fn size(&self, name: Name) -> usize {
        self.sizes.of(hash(name))
    }

    #[inline]
    fn stamp_and_body(&self, name: Name) -> ([u8; STAMP_BYTES], usize, &[u8]) {
        let hash = hash(name);
        let size = self.sizes.of(hash);
        let mut stamp = [0; STAMP_BYTES];
        let check = (hash >> 16) & 0xFF_FFFF;
        let others = check << 24 | u64::from(name.stream) & (STREAMS_MAX as u64 - 1);
        for (half, bits) in stamp.chunks_exact_mut(8).zip([name.sequence, others]) {
            for (index, pair) in half.chunks_exact_mut(2).enumerate() {
                pair.copy_from_slice(&PAIRS[(bits >> (12 * index)) as usize & 4095]);
            }
        }
        let window = (hash >> 44) as usize & (self.windows - 1);
        (stamp, size.min(STAMP_BYTES), &self.table[window..window + size.saturating_sub(STAMP_BYTES)])
    }

    /// The reply to a message.
    #[inline]
    pub(crate) fn reply(&self, name: Name) -> Parts<'_> {
        let (stamp, stamp_len, body) = self.stamp_and_body(name);
        let size = stamp_len + body.len();
        let opcode = Opcode::from(self.kind);
        let (header, header_len) = match self.layout {
            Layout::WebSocket => encode_header(opcode, true, false, size as u64, None),
            Layout::RawEcho => encode_header(opcode, true, false, size as u64, Some([0; 4])),
            Layout::RawFanout => {
                let (mut header, len) = encode_header(opcode, true, false, size as u64, Some([0; 4]));
                header.copy_within(4..len, 0);
                (header, len - 4)
            }
        };
        Parts { header, header_len, stamp, stamp_len, body }
    }

    /// Appends the message as a client sends it.
    #[inline]
    pub(crate) fn put_request(&self, out: &mut Vec<u8>, name: Name, key: [u8; 4]) {
        let (stamp, stamp_len, body) = self.stamp_and_body(name);
        let key = if self.layout == Layout::WebSocket { key } else { [0; 4] };
        let size = stamp_len + body.len();
        let (header, header_len) = encode_header(Opcode::from(self.kind), true, false, size as u64, Some(key));
        out.reserve(HEADER_BYTES_MAX + size);
        // A copy of known length is a few instructions; what is too much goes again.
        let start = out.len();
        out.extend_from_slice(&header);
        out.truncate(start + header_len);
        if self.layout == Layout::WebSocket {
            mask::copy_into(key, 0, &stamp[..stamp_len], out);
            // The stamp is a multiple of 4 bytes wherever a body follows, so the key begins anew.
            mask::copy_into(key, 0, body, out);
        } else {
            out.extend_from_slice(&stamp[..stamp_len]);
            out.extend_from_slice(body);
        }
    }

    /// Which message this payload is, or `None` if it is none of ours: something in it was changed. A short payload does
    /// not carry its whole name: the rest is taken from `near`, the message that was due.
    pub(crate) fn identify(&self, payload: &[u8], near: Name) -> Option<Name> {
        let digits = |chars: &[u8]| {
            chars.iter().rev().try_fold(0u64, |number, &char| match DIGITS[usize::from(char)] {
                NO_DIGIT => None,
                digit => Some(number << 6 | u64::from(digit)),
            })
        };
        let known = payload.len().min(SEQUENCE_CHARS);
        let modulus = 1u64 << (6 * known);
        let low = digits(&payload[..known])?;
        let stream = match payload.get(SEQUENCE_CHARS..SEQUENCE_CHARS + STREAM_CHARS) {
            Some(chars) => digits(chars)? as u32,
            None => near.stream,
        };
        // The candidate nearest to what was due; a repetition rather than something far ahead.
        let base = near.sequence - near.sequence % modulus + low;
        let candidates = [Some(base), base.checked_sub(modulus), base.checked_add(modulus)];
        let sequence =
            candidates.into_iter().flatten().min_by_key(|sequence| sequence.abs_diff(near.sequence)).unwrap_or(base);
        let name = Name { stream, sequence };
        let (stamp, stamp_len, body) = self.stamp_and_body(name);
        let is_it = payload.len() == stamp_len + body.len()
            && payload[..stamp_len] == stamp[..stamp_len]
            && payload[stamp_len..] == *body;
        is_it.then_some(name)
    }

    /// The stream a payload claims, if it is long enough to say.
    pub(crate) fn claimed_stream(payload: &[u8]) -> Option<u32> {
        let chars = payload.get(SEQUENCE_CHARS..SEQUENCE_CHARS + STREAM_CHARS)?;
        let digit = |number: u64, &char: &u8| match DIGITS[usize::from(char)] {
            NO_DIGIT => None,
            digit => Some(number << 6 | u64::from(digit)),
        };
        chars.iter().rev().try_fold(0, digit).map(|stream| stream as u32)
    }
}

#[inline]
fn hash(name: Name) -> u64 {
    mix((u64::from(name.stream) + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ name.sequence)
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn name(stream: u32, sequence: u64) -> Name {
        Name { stream, sequence }
    }

    #[test]
    fn a_request_unmasks_to_its_reply() {
        for size in [0, 1, 7, 15, 16, 17, 125, 126, 65_535, 65_536] {
            let messages = Messages::new(Layout::WebSocket, Kind::Text, Sizes::Fixed(size), Content::Random);
            let key = [1, 2, 3, 4];
            let mut request = Vec::new();
            messages.put_request(&mut request, name(3, 9), key);
            let header = request.len() - size;
            let unmasked: Vec<u8> =
                request[header..].iter().enumerate().map(|(index, byte)| byte ^ key[index % 4]).collect();
            let parts = messages.reply(name(3, 9));
            assert_eq!(unmasked, parts.payload(), "{size}");
            assert_eq!(parts.prefix(usize::MAX).len(), header - 4 + size);
            assert_eq!(messages.identify(&unmasked, name(3, 9)), Some(name(3, 9)));
        }
    }

    #[test]
    fn payloads_of_json_are_told_apart_as_others_are() {
        let messages = Messages::new(Layout::WebSocket, Kind::Text, Sizes::Fixed(1024), Content::Json);
        let payload = |sequence| messages.reply(name(2, sequence)).payload();
        for sequence in 0..2000 {
            let text = String::from_utf8(payload(sequence)).expect("text");
            assert!(text.len() == 1024 && text.contains("\"items\":"), "{text}");
            assert_eq!(messages.identify(text.as_bytes(), name(2, sequence)), Some(name(2, sequence)));
        }
        // Two in a row have no long stretch in common by chance of their places.
        let places: std::collections::BTreeSet<usize> =
            (0..100).map(|sequence| (hash(name(2, sequence)) >> 44) as usize & (WINDOWS_JSON - 1)).collect();
        assert_eq!(places.len(), 100);
    }

    #[test]
    fn every_single_corrupted_byte_is_found() {
        let messages = Messages::new(Layout::WebSocket, Kind::Binary, Sizes::Fixed(200), Content::Random);
        let good = messages.reply(name(1, 77));
        let bytes = good.prefix(usize::MAX);
        assert_eq!(good.compare(0, &bytes), Match::Whole(bytes.len()));
        for index in 0..bytes.len() {
            let mut bad = bytes.clone();
            bad[index] ^= 0x10;
            assert_eq!(good.compare(0, &bad), Match::Differs, "byte {index}");
            if index >= 4 {
                assert_eq!(messages.identify(&bad[4..], name(1, 77)), None, "byte {index}");
            }
        }
    }

    #[test]
    fn messages_are_compared_in_any_pieces() {
        let messages = Messages::new(Layout::WebSocket, Kind::Text, Sizes::Fixed(100), Content::Random);
        let parts = messages.reply(name(0, 5));
        let bytes = parts.prefix(usize::MAX);
        for split in 0..bytes.len() {
            assert_eq!(parts.compare(0, &bytes[..split]), Match::Partial);
            assert_eq!(parts.compare(split, &bytes[split..]), Match::Whole(bytes.len() - split));
        }
    }

    #[test]
    fn short_payloads_are_named_after_what_was_due() {
        let messages = Messages::new(Layout::WebSocket, Kind::Text, Sizes::Fixed(1), Content::Random);
        let payload = |sequence| messages.reply(name(4, sequence)).payload();
        assert_eq!(messages.identify(&payload(99), name(4, 100)), Some(name(4, 99)));
        assert_eq!(messages.identify(&payload(130), name(4, 125)), Some(name(4, 130)));
    }

    #[test]
    fn a_raw_delivery_is_the_end_of_the_request() {
        for size in [64, 200, 70_000] {
            let messages = Messages::new(Layout::RawFanout, Kind::Text, Sizes::Fixed(size), Content::Random);
            let mut request = Vec::new();
            messages.put_request(&mut request, name(0, 1), [7; 4]);
            assert_eq!(messages.reply(name(0, 1)).prefix(usize::MAX), request[4..]);
        }
    }

    #[test]
    fn sizes_are_read_and_stay_within_their_bounds() {
        assert_eq!(Sizes::parse("4KiB"), Ok(Sizes::Fixed(4096)));
        assert_eq!(Sizes::parse("16..1KiB"), Ok(Sizes::Range(16, 1024)));
        let mix = Sizes::parse("64:90,4KiB:10").expect("a mix");
        assert_eq!((mix.min(), mix.max()), (64, 4096));
        let large = (0..10_000).filter(|&sequence| mix.of(hash(name(0, sequence))) == 4096).count();
        assert!((800..1200).contains(&large), "{large} of 10000");
        for wrong in ["", "x", "9..3", "1:0", "99999999999"] {
            assert!(Sizes::parse(wrong).is_err(), "{wrong}");
        }
    }
}
