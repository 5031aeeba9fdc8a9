//! What a message costs: printed, not asserted. `cargo test --test deflate_speed -- --ignored --nocapture`

use std::time::Instant;

use ringwire::engine::sim::Rng;
use ringwire::proto::Pool;
use ringwire::proto::deflate::{Deflater, History, Inflater, WINDOW_BITS};

const MESSAGES: usize = 4_000;
/// Messages of that many streams in turn, so that no state goes on where it is.
const STREAMS: usize = 16;

/// About 1 KiB of quotes.
fn quotes(chance: &mut Rng) -> Vec<u8> {
    const SYMBOLS: [&str; 8] = ["AAPL", "MSFT", "GOOG", "AMZN", "NVDA", "META", "TSLA", "ORCL"];
    let mut text = String::from(r#"{"event":"quotes","data":["#);
    while text.len() < 1000 {
        let symbol = format!("{}{}", SYMBOLS[below(chance, 8)], below(chance, 5));
        let (bid, ask, size) = (below(chance, 50_000) + 10_000, below(chance, 50_000) + 10_000, below(chance, 900));
        text += &format!(r#"{{"symbol":"{symbol}","bid":{bid},"ask":{ask},"size":{size},"venue":"XNAS"}},"#);
    }
    text.truncate(1024);
    text.into_bytes()
}

/// About 1 KiB of a chat.
fn chat(chance: &mut Rng) -> Vec<u8> {
    const WORDS: [&str; 16] = [
        "the ",
        "server ",
        "restarts ",
        "at ",
        "noon ",
        "please ",
        "save ",
        "your ",
        "work ",
        "before ",
        "that ",
        "and ",
        "tell ",
        "everybody ",
        "who ",
        "is ",
    ];
    let mut text = String::new();
    while text.len() < 1000 {
        let id = below(chance, 1 << 40);
        text +=
            &format!(r#"{{"event":"message","data":{{"id":"{id:x}","room":"lobby","userId":{},"message":""#, id % 97);
        for _ in 0..8 {
            text += WORDS[below(chance, 16)];
        }
        text += &format!(r#"","timestamp":{}}}}}"#, 1_700_000_000_000 + below(chance, 1 << 30));
    }
    text.truncate(1024);
    text.into_bytes()
}

#[test]
#[ignore = "figures, not a judgement; wants an optimized build"]
fn speed() {
    for (name, make) in [("quotes", quotes as fn(&mut Rng) -> Vec<u8>), ("chat", chat)] {
        let chance = &mut Rng::new(1);
        let messages: Vec<_> = (0..MESSAGES).map(|_| make(chance)).collect();
        for level in [1, 2, 3, 6] {
            row(name, level, 15, None, &messages);
            for bits in [11, 12, 13, 15] {
                row(name, level, bits, Some(STREAMS), &messages);
            }
            row(name, level, WINDOW_BITS, Some(1), &messages);
        }
    }
}

fn row(name: &str, level: u8, bits: u8, streams: Option<usize>, messages: &[Vec<u8>]) {
    let mut deflater = Deflater::new(level);
    let mut senders: Vec<_> = (0..streams.unwrap_or(0)).map(|_| History::new(bits)).collect();
    let mut receivers: Vec<_> = (0..streams.unwrap_or(0)).map(|_| History::new(bits)).collect();
    let mut compressed: Vec<Vec<u8>> = messages.iter().map(|_| Vec::with_capacity(1024)).collect();
    let start = Instant::now();
    for (number, message) in messages.iter().enumerate() {
        let context = streams.map(|streams| &mut senders[number % streams]);
        assert!(deflater.compress(message, context, &mut compressed[number]));
    }
    let deflate_us = start.elapsed().as_secs_f64() * 1e6 / messages.len() as f64;

    let mut inflater = Inflater::new();
    let mut pool = Pool::new(1 << 20);
    let mut out = Vec::with_capacity(4096);
    let start = Instant::now();
    for (number, bytes) in compressed.iter().enumerate() {
        out.clear();
        let context = streams.map(|streams| &mut receivers[number % streams]);
        inflater.inflate(bytes, context, 1 << 20, &mut out, &mut pool).unwrap();
    }
    let inflate_us = start.elapsed().as_secs_f64() * 1e6 / messages.len() as f64;
    let bytes: usize = compressed.iter().map(Vec::len).sum();
    let ratio = messages.iter().map(Vec::len).sum::<usize>() as f64 / bytes as f64;
    let context = match streams {
        None => "no context".to_owned(),
        Some(streams) => format!("{} KiB, {streams} streams", (1 << bits) >> 10),
    };
    println!(
        "{name:7} level {level} {context:20} deflate {deflate_us:5.1} us, inflate {inflate_us:4.1} us, ratio {ratio:.2}"
    );
}

fn below(rng: &mut Rng, bound: usize) -> usize {
    let mut bytes = [0; 8];
    rng.fill(&mut bytes);
    (u64::from_le_bytes(bytes) % bound as u64) as usize
}
