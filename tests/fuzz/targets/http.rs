//! Requests as a connection reads them: heads, the decision on the upgrade, bodies, several in a row.
//!
//! Input: the size of the pieces, then the stream. However it is cut, the same is read.

use ringwire::proto::handshake;
use ringwire::proto::http::{
    Body, BodyDecoder, BodyPiece, HeadError, HeadLimits, asks_for_head, check_method, empty_lines, head_end,
    looks_like_http, parse_head,
};

use super::take;

const LIMITS: HeadLimits = HeadLimits { bytes_max: 2_048, headers_max: 20 };
const BODY_BYTES_MAX: usize = 1_000;

pub fn run(mut data: &[u8]) {
    let piece_bytes = usize::from(take(&mut data)).max(1);
    let mut rest = data;
    while let Some(len) = request(rest, piece_bytes) {
        rest = &rest[len..];
    }
}

/// Reads one request; its length, if another may follow.
fn request(bytes: &[u8], piece_bytes: usize) -> Option<usize> {
    let end = head_end(bytes, 0);
    assert_eq!(find_end(bytes, piece_bytes), end, "the end of a head does not depend on the pieces");
    let end = end?;
    let parsed = parse_head(&bytes[..end], &LIMITS);
    if let Some(early) = refused_early(&bytes[..end]) {
        assert_eq!(parsed.err(), Some(early), "what is refused before its end is refused for the same reason with it");
        return None;
    }
    let head = match parsed {
        Ok(head) => head,
        Err(error) => {
            assert!((400..600).contains(&error.status()));
            return None;
        }
    };
    assert!(head.all().len() <= LIMITS.headers_max && !head.method().is_empty());
    assert_eq!(asks_for_head(&bytes[..end]), head.method() == "HEAD");
    assert!(head.authority().is_none_or(|authority| !authority.is_empty() && !authority.contains('@')));
    assert!(head.path() == "*" || head.path().starts_with('/'));
    assert!((0..end).all(|len| looks_like_http(&bytes[..len])), "refused at its first bytes, and yet it is a request");
    let _ = (head.query(), head.keep_alive(), head.expects_continue(), head.header("origin"));
    assert!(head.target().contains(head.path()));
    match handshake::check(&head) {
        Ok(upgrade) => {
            assert!(handshake::is_upgrade_request(&head) && handshake::is_attempt(&head) && upgrade.key().len() == 24);
            let protocol = upgrade.protocols().next();
            let mut answer = Vec::new();
            if handshake::put_switching(&mut answer, upgrade.key(), protocol, []).is_ok() {
                let read = handshake::check_response(&answer, upgrade.key(), None);
                let (read, len) = read.expect("a right answer").expect("a whole one");
                assert_eq!((read.protocol.as_deref(), len), (protocol, answer.len()));
            }
            return None;
        }
        Err(refusal) => assert!(matches!(refusal.status, 400 | 405 | 426)),
    }
    let body = head.body().ok()?;
    let whole = read_body(body, &bytes[end..], usize::MAX);
    assert_eq!(read_body(body, &bytes[end..], piece_bytes), whole, "a body does not depend on the pieces");
    let (content, len) = whole?;
    assert!(content.len() <= BODY_BYTES_MAX);
    Some(end + len)
}

/// Why the first of these bytes are refused, if they are.
fn refused_early(bytes: &[u8]) -> Option<HeadError> {
    let begun = &bytes[empty_lines(bytes)..];
    let early = (0..=begun.len().min(100)).find_map(|len| check_method(&begun[..len]).err());
    assert_eq!(early.is_some(), !looks_like_http(bytes));
    early
}

/// [`head_end`] as bytes arrive.
fn find_end(bytes: &[u8], piece_bytes: usize) -> Option<usize> {
    let mut seen = 0;
    while seen < bytes.len() {
        let arrived = (seen + piece_bytes).min(bytes.len());
        let end = head_end(&bytes[..arrived], seen);
        if end.is_some() {
            return end;
        }
        seen = arrived;
    }
    None
}

/// The content of a whole body and the bytes that it takes; `None` for one that is refused or goes on.
fn read_body(body: Body, bytes: &[u8], piece_bytes: usize) -> Option<(Vec<u8>, usize)> {
    let mut decoder = BodyDecoder::new(body, BODY_BYTES_MAX).ok()?;
    let (mut content, mut before) = (Vec::new(), 0);
    // A body of no bytes is complete without any.
    for piece in bytes.chunks(piece_bytes.min(bytes.len()).max(1)).chain([&[][..]]) {
        let mut consumed = 0;
        loop {
            match decoder.next(piece, &mut consumed).ok()? {
                BodyPiece::Data(data) => {
                    assert!(!data.is_empty());
                    content.extend_from_slice(data);
                }
                BodyPiece::More => break,
                BodyPiece::End => return Some((content, before + consumed)),
            }
        }
        assert_eq!(consumed, piece.len());
        before += piece.len();
    }
    None
}
