//! However the stream is cut into pieces, the machine says the same, and so do those who read the requests before it. (That
//! a whole core answers them alike is in the simulation, `requests`.)

mod wire;

use ringwire::proto::http::{BodyDecoder, BodyPiece, HeadLimits, check_method, empty_lines, head_end, parse_head};
use ringwire::proto::proxy::{ProxyError, Source, parse};
use ringwire::proto::{Limits, Role};
use wire::{LIMITS, Run, Seen, close, frame, run_with, server_frame};

fn corpus() -> Vec<(&'static str, Vec<u8>)> {
    let long = |len: usize| (0..len).map(|i| b'a' + (i % 26) as u8).collect::<Vec<_>>();
    let bye = frame(0x88, &close(1000, "fürs Erste".as_bytes()));
    let sequences: Vec<(&'static str, Vec<Vec<u8>>)> = vec![
        ("texts", vec![frame(0x81, b"Hello"), frame(0x81, b""), frame(0x81, "κόσμε".as_bytes()), bye.clone()]),
        ("binaries", vec![frame(0x82, &[0xFF; 125]), frame(0x82, &[1; 126]), frame(0x82, &[2; 7]), bye.clone()]),
        ("controls", vec![frame(0x89, b"ping"), frame(0x8A, b""), frame(0x89, &[9; 125]), bye.clone()]),
        (
            "fragments",
            vec![
                frame(0x01, "κό".as_bytes()),
                frame(0x89, b"p1"),
                frame(0x00, &"σ".as_bytes()[..1]),
                frame(0x00, b""),
                frame(0x8A, b"p2"),
                frame(0x80, &["σ".as_bytes()[1..].to_vec(), b"z".to_vec()].concat()),
                frame(0x82, b"next"),
                bye.clone(),
            ],
        ),
        ("longer", vec![frame(0x02, &long(150)), frame(0x80, &long(170)), frame(0x81, &long(140)), bye.clone()]),
        ("close at once", vec![bye.clone(), frame(0x81, b"late")]),
        ("empty close", vec![frame(0x88, b""), frame(0x88, b"")]),
        ("bad text", vec![frame(0x81, b"ok"), frame(0x81, b"ab\xFFcd"), frame(0x81, b"x"), bye.clone()]),
        ("bad text in fragments", vec![frame(0x01, b"\xE2\x82"), frame(0x80, b"\x41more"), bye.clone()]),
        ("text cut short", vec![frame(0x01, b"\xE2\x82"), frame(0x80, b""), bye.clone()]),
        ("unmasked", vec![frame(0x81, b"ok"), server_frame(0x81, b"no"), bye.clone()]),
        ("reserved opcode", vec![frame(0x82, b"ok"), frame(0x83, b"no"), bye.clone()]),
        ("reserved bits", vec![frame(0x89, b"ok"), frame(0xC1, b"no"), bye.clone()]),
        ("wrong twice over", vec![vec![0x0B | 0x40, 0x7E], bye.clone()]),
        ("two wrong bytes", vec![frame(0x01, b"a"), vec![0x81, 0x05, 0, 0, 0, 0, 0], bye.clone()]),
        ("nothing to continue", vec![frame(0x80, b"no"), bye.clone()]),
        ("no continuation", vec![frame(0x01, b"a"), frame(0x89, b""), frame(0x81, b"b"), bye.clone()]),
        ("long control", vec![frame(0x89, &[0; 126]), bye.clone()]),
        ("length not minimal", vec![vec![0x82, 0xFE, 0, 9, 1, 2, 3, 4], long(9), bye.clone()]),
        ("too big", vec![frame(0x02, &long(300)), frame(0x80, &long(300)), frame(0x89, b"x"), bye.clone()]),
        ("too many", [vec![frame(0x01, b"")], vec![frame(0x00, b"y"); 9], vec![bye.clone()]].concat()),
        ("short close", vec![frame(0x89, b""), frame(0x88, b"x"), bye.clone()]),
        ("bad code", vec![frame(0x88, &close(1005, b"")), bye.clone()]),
        ("bad reason", vec![frame(0x88, &close(1000, b"\xFF")), bye]),
    ];
    sequences.into_iter().map(|(name, frames)| (name, frames.concat())).collect()
}

const SMALL: Limits = Limits { message_bytes_max: 500, fragments_max: 8 };

fn check(name: &str, want: &Run, lend: Option<usize>, pieces: &[&[u8]]) {
    let result = run_with(Role::Server, SMALL, lend, pieces);
    assert_eq!(&result, want, "{name}, lend {lend:?}, cut as {:?}", lens(pieces));
}

fn lens(pieces: &[&[u8]]) -> Vec<usize> {
    pieces.iter().map(|piece| piece.len()).collect()
}

#[test]
fn the_corpus_is_not_trivial() {
    let runs: Vec<_> = corpus().iter().map(|(_, bytes)| run_with(Role::Server, SMALL, None, &[bytes])).collect();
    assert!(runs.iter().all(|run| !run.sent.is_empty() && !run.seen.is_empty()));
    assert_eq!(runs.iter().filter(|run| run.failed).count(), 17);
}

#[test]
fn two_pieces_and_one_byte_at_a_time() {
    for (name, bytes) in corpus() {
        let want = run_with(Role::Server, SMALL, None, &[&bytes]);
        for lend in [None, Some(1), Some(100)] {
            check(name, &want, lend, &bytes.chunks(1).collect::<Vec<_>>());
            check(name, &want, lend, &bytes.chunks(7).collect::<Vec<_>>());
            for at in 0..=bytes.len() {
                check(name, &want, lend, &[&bytes[..at], &bytes[at..]]);
            }
        }
    }
}

#[test]
fn three_pieces() {
    for (name, bytes) in corpus() {
        let want = run_with(Role::Server, SMALL, None, &[&bytes]);
        // All pairs of cuts, in long sequences those on a coarser grid that moves with the first cut.
        let step = 1 + bytes.len() / 120;
        for first in 0..=bytes.len() {
            for second in (first..=bytes.len()).step_by(step) {
                let pieces = [&bytes[..first], &bytes[first..second], &bytes[second..]];
                check(name, &want, if second % 2 == 0 { None } else { Some(1) }, &pieces);
            }
        }
    }
}

#[test]
fn the_client_role_too() {
    let bytes = [
        server_frame(0x01, "κό".as_bytes()),
        server_frame(0x89, b"p1"),
        server_frame(0x80, "σμε".as_bytes()),
        server_frame(0x82, &[5; 300]),
        server_frame(0x88, &close(1001, b"away")),
    ]
    .concat();
    let want = run_with(Role::Client, LIMITS, None, &[&bytes]);
    assert_eq!(want.seen.len(), 4);
    for at in 0..=bytes.len() {
        for lend in [None, Some(1)] {
            let result = run_with(Role::Client, LIMITS, lend, &[&bytes[..at], &bytes[at..]]);
            assert_eq!(result, want, "cut at {at}");
        }
    }
}

/// Large frames through lent buffers, in pieces of many sizes.
#[test]
fn large_messages_through_loans() {
    let large: Vec<u8> = (0..700_000).map(|i| b'0' + (i * 7 / 5 % 75) as u8).collect();
    let bytes = [
        frame(0x82, &large),
        frame(0x81, &large[..100_000]),
        frame(0x01, &large[..200_001]),
        frame(0x89, b"between"),
        frame(0x80, &large[200_001..400_000]),
        frame(0x88, &close(1000, b"")),
    ]
    .concat();
    let want = [
        Seen::Binary(large.clone()),
        Seen::Text(large[..100_000].to_vec()),
        Seen::Ping(b"between".to_vec()),
        Seen::Text(large[..400_000].to_vec()),
        Seen::Close(Some(1000), String::new()),
    ];
    for size in [1447, 2048, 65_536, 99_991, 1 << 20, 1 << 24] {
        for lend in [None, Some(1), Some(32 * 1024)] {
            let pieces: Vec<_> = bytes.chunks(size).collect();
            let result = run_with(Role::Server, LIMITS, lend, &pieces);
            assert!(result.seen == want, "pieces of {size}, lend {lend:?}");
        }
    }
}

// ---- HTTP -----------------------------------------------------------------------------------------------------------

/// What was read of one request.
#[derive(Clone, Debug, PartialEq)]
enum Read {
    Request(String, String, Vec<u8>),
    Refused(u16),
    /// More was to come of the head, or of the body.
    Unfinished(&'static str),
}

/// Reads requests as they arrive, in the order of calls that [`ringwire::proto::http`] tells.
fn read_requests(pieces: &[&[u8]]) -> Vec<Read> {
    let limits = HeadLimits { bytes_max: 200, headers_max: 10 };
    let (mut read, mut bytes, mut searched) = (Vec::new(), Vec::new(), 0);
    let mut under_way: Option<(String, String, Vec<u8>, BodyDecoder)> = None;
    for piece in pieces {
        bytes.extend_from_slice(piece);
        loop {
            if let Some((method, target, mut content, mut decoder)) = under_way.take() {
                let mut consumed = 0;
                let ended = loop {
                    match decoder.next(&bytes, &mut consumed) {
                        Ok(BodyPiece::Data(data)) => content.extend_from_slice(data),
                        Ok(BodyPiece::More) => break false,
                        Ok(BodyPiece::End) => break true,
                        Err(error) => return [read, vec![Read::Refused(error.status())]].concat(),
                    }
                };
                bytes.drain(..consumed);
                if !ended {
                    under_way = Some((method, target, content, decoder));
                    break;
                }
                read.push(Read::Request(method, target, content));
            }
            let empty = empty_lines(&bytes);
            bytes.drain(..empty);
            searched -= searched.min(empty);
            let Some(end) = head_end(&bytes, searched) else {
                searched = bytes.len();
                let early = check_method(&bytes).err().map(|error| error.status());
                let early = early.or((bytes.len() > limits.bytes_max).then_some(431));
                match early {
                    Some(status) => return [read, vec![Read::Refused(status)]].concat(),
                    None => break,
                }
            };
            let head: Vec<u8> = bytes.drain(..end).collect();
            searched = 0;
            let parsed = parse_head(&head, &limits).and_then(|head| Ok((head.body()?, head)));
            match parsed {
                Ok((body, head)) => {
                    let (method, target) = (head.method().to_owned(), head.target().to_owned());
                    let decoder = BodyDecoder::new(body, 50);
                    match decoder {
                        Ok(decoder) => under_way = Some((method, target, Vec::new(), decoder)),
                        Err(error) => return [read, vec![Read::Refused(error.status())]].concat(),
                    }
                }
                Err(error) => return [read, vec![Read::Refused(error.status())]].concat(),
            }
        }
    }
    match under_way {
        Some(_) => read.push(Read::Unfinished("body")),
        None if !bytes.is_empty() => read.push(Read::Unfinished("head")),
        None => {}
    }
    read
}

fn requests() -> Vec<String> {
    let get = "GET /a HTTP/1.1\r\nHost: x\r\n\r\n";
    let post = |field: &str, body: &str| format!("POST /b HTTP/1.1\r\nHost: x\r\n{field}\r\n\r\n{body}{get}");
    let chunks = |body: &str| post("Transfer-Encoding: chunked", body);
    vec![
        format!("{get}{get}"),
        format!("\r\n\r\n{get}\r\n\r\n\r\n{get}\r\n"),
        format!("\r\n\n{get}"),
        format!("\r\r\n{get}"),
        get.replace("\r\n", "\n"),
        get.replace("GET", &"M".repeat(30)),
        get.replace("GET", &"M".repeat(65)),
        "M".repeat(300),
        format!("{}\r\n\r\n", "M".repeat(300)),
        "\u{16}\u{3}\u{1}\r\n\r\n".into(),
        format!(" {get}"),
        get.replace("/a", &"/a".repeat(150)),
        get.replace("/a", &"/a".repeat(85)),
        get.replace("/a", &"/a".repeat(86)),
        get.replace("/a", &"/a".repeat(87)),
        get.replace("/a", "/%6"),
        get.replace("/a", "http://me@x/"),
        get.replace("Host: x", "Host: x\r\nHost: x"),
        post("Content-Length: 5", "hello"),
        post("Content-Length: 5", "hello\r\n"),
        post("Content-Length: 0", "\r\n\r\n"),
        post("Content-Length: 51", ""),
        post("Content-Length: 5x", ""),
        chunks("5\r\nhello\r\n1 ; a = \"\\\"\";b\r\n!\r\n000\r\nX: y\r\nZ:\r\n\r\n\r\n"),
        chunks("0\r\n\r\n"),
        chunks("5 junk\r\nhello\r\n0\r\n\r\n"),
        chunks("5 \r\nhello\r\n0\r\n\r\n"),
        chunks("5\r\nhello!\r\n0\r\n\r\n"),
        chunks("5\nhello\n0\n\n"),
        chunks("33\r\n"),
        chunks("0\r\nX\r\n\r\n"),
        chunks("0\r\nX: y"),
        "POST /b HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhell".into(),
        "GET /a HTTP/1.1\r\nHo".into(),
    ]
}

/// RFC 9112: heads and bodies in two pieces, in three and byte by byte.
#[test]
fn requests_are_the_same_however_they_are_cut() {
    let (mut whole, mut refused) = (0, 0);
    for text in requests() {
        let bytes = text.as_bytes();
        let want = read_requests(&[bytes]);
        whole += want.iter().filter(|read| matches!(read, Read::Request(..))).count();
        refused += want.iter().filter(|read| matches!(read, Read::Refused(_))).count();
        assert_eq!(read_requests(&bytes.chunks(1).collect::<Vec<_>>()), want, "{text:?}");
        for first in 0..=bytes.len() {
            assert_eq!(read_requests(&[&bytes[..first], &bytes[first..]]), want, "{text:?} cut at {first}");
            for second in (first..=bytes.len()).step_by(5) {
                let pieces = [&bytes[..first], &bytes[first..second], &bytes[second..]];
                assert_eq!(read_requests(&pieces), want, "{text:?} cut at {first} and {second}");
            }
        }
    }
    assert_eq!((whole, refused), (19, 20), "the corpus is not trivial");
}

// ---- the PROXY protocol -----------------------------------------------------------------------------------------------

/// What is read of a connection's first bytes as they arrive, and what is left for whoever reads on.
fn read_proxy_header(pieces: &[&[u8]]) -> (Result<Option<Source>, ProxyError>, Vec<u8>) {
    let mut bytes = Vec::new();
    let mut source = None;
    for piece in pieces {
        bytes.extend_from_slice(piece);
        if source.is_none() {
            match parse(&bytes) {
                Ok(None) => {}
                Ok(Some((named, len))) => {
                    source = Some(named);
                    bytes.drain(..len);
                }
                Err(error) => return (Err(error), Vec::new()),
            }
        }
    }
    (Ok(source), bytes)
}

#[test]
fn proxy_headers_are_the_same_however_they_are_cut() {
    let v2 = |command: u8, family: u8, rest: &[u8]| {
        [b"\r\n\r\n\0\r\nQUIT\n", &[command, family][..], &(rest.len() as u16).to_be_bytes(), rest].concat()
    };
    let v4 = [192, 0, 2, 7, 198, 51, 100, 1, 0xdc, 4, 1, 187];
    let headers: Vec<Vec<u8>> = vec![
        b"PROXY TCP4 192.0.2.7 198.51.100.1 56324 443\r\n".into(),
        b"PROXY TCP6 2001:db8::7 2001:db8::1 56324 443\r\n".into(),
        b"PROXY UNKNOWN\r\n".into(),
        b"PROXY TCP4 192.0.2.7\r\n".into(),
        b"PROXY TCP4 192.0.2.7 198.51.100.1 56324 443\n".into(),
        [&b"PROXY UNKNOWN "[..], &[b'x'; 120], b"\r\n"].concat(),
        b"PROXY".into(),
        b"POST / HTTP/1.1\r\n".into(),
        b"\r\n\r\nGET / HTTP/1.1\r\n".into(),
        v2(0x21, 0x11, &v4),
        v2(0x21, 0x11, &[&v4[..], &[4, 0, 1, 0xff]].concat()),
        v2(0x21, 0x21, &[0x20; 36]),
        v2(0x21, 0x21, &[0x20; 35]),
        v2(0x20, 0x00, b""),
        v2(0x22, 0x11, &v4),
        v2(0x21, 0x51, &v4),
        v2(0x21, 0x11, &[0; 5000]),
    ];
    let (mut named, mut refused) = (0, 0);
    for header in headers {
        // Bytes that follow are none of its business, even if they look like another header.
        let bytes = [&header[..], b"PROXY GET / HTTP/1.1\r\n\r\n"].concat();
        let want = read_proxy_header(&[&bytes]);
        named += usize::from(matches!(want.0, Ok(Some(_))));
        refused += usize::from(want.0.is_err());
        assert_eq!(read_proxy_header(&bytes.chunks(1).collect::<Vec<_>>()), want, "{}", header.escape_ascii());
        let ends: Vec<usize> = (0..=bytes.len().min(200)).collect();
        for (nth, &first) in ends.iter().enumerate() {
            for &second in ends[nth..].iter().step_by(3) {
                let pieces = [&bytes[..first], &bytes[first..second], &bytes[second..]];
                assert_eq!(read_proxy_header(&pieces), want, "{} at {first} and {second}", header.escape_ascii());
            }
        }
    }
    assert_eq!((named, refused), (7, 10), "the corpus is not trivial");
}
