//! RFC 6455, section by section: bytes of a peer in, events and the Close frame out. The numbers in parentheses are the
//! cases of Autobahn's testsuite.

mod wire;

use ringwire::proto::{Limits, Opcode, ProtocolError, Role};
use wire::{KEY, LIMITS, Peer, Run, Seen, binary, close, frame, run, run_with, server_frame, text};

const NORMAL: [u8; 2] = [0x03, 0xE8];

/// A clean run: these messages and control frames, then an orderly close.
fn fine(name: &str, frames: &[Vec<u8>], want: &[Seen]) {
    let bytes = [&frames.concat()[..], &frame(0x88, &NORMAL)].concat();
    let mut want = want.to_vec();
    want.push(Seen::Close(Some(1000), String::new()));
    for pieces in [vec![&bytes[..]], bytes.chunks(1).collect(), bytes.chunks(997).collect()] {
        let result = run(&pieces);
        assert_eq!(result.seen, want, "{name}");
        assert_eq!(result.close_code(), Some(Some(1000)), "{name}");
        assert!(result.is_done && !result.failed && !result.is_open, "{name}");
        let pings = want.iter().filter_map(|seen| match seen {
            Seen::Ping(payload) => Some((Opcode::Pong, payload.clone())),
            _ => None,
        });
        let pongs = result.sent.iter().filter(|sent| sent.0 != Opcode::Close).cloned();
        assert!(pongs.eq(pings), "{name}: {:?}", result.sent);
    }
}

/// A run that fails: these events, then the error, and its code in the one Close frame, last of what is sent.
fn fails(name: &str, frames: &[Vec<u8>], before: &[Seen], error: ProtocolError) -> Run {
    // What comes behind the error must not matter.
    let bytes = [&frames.concat()[..], &frame(0x81, b"ignored"), &frame(0x89, b"ignored")].concat();
    let mut want = before.to_vec();
    want.push(Seen::Failed(error));
    let by_byte = run(&bytes.chunks(1).collect::<Vec<_>>());
    let result = run(&[&bytes]);
    for result in [&by_byte, &result] {
        assert_eq!(result.seen, want, "{name}");
        assert_eq!(result.close_code(), Some(Some(error.close_code())), "{name}");
        assert!(result.failed && !result.is_open, "{name}");
        assert_eq!(result.sent.last().map(|sent| sent.0), Some(Opcode::Close), "{name}");
    }
    result
}

mod section_5_1_masking {
    use super::*;

    #[test]
    fn a_server_refuses_unmasked_frames() {
        for first in [0x81, 0x82, 0x89, 0x8A, 0x88] {
            fails("unmasked", &[server_frame(first, b"")], &[], ProtocolError::Unmasked);
        }
        assert_eq!(run(&[&[0x81, 0x05]]).close_code(), Some(Some(1002)), "two bytes are enough");
    }

    #[test]
    fn a_client_refuses_masked_frames() {
        let result = run_with(Role::Client, LIMITS, None, &[&frame(0x81, b"x")]);
        assert_eq!(result.seen, [Seen::Failed(ProtocolError::Masked)]);
        assert_eq!(result.close_code(), Some(Some(1002)));
    }

    #[test]
    fn a_client_takes_unmasked_frames() {
        let bytes = [
            server_frame(0x81, b"Hello"),
            server_frame(0x02, b"a"),
            server_frame(0x89, b"p"),
            server_frame(0x80, &[b'b'; 70_000]),
            server_frame(0x88, &close(1001, b"away")),
        ]
        .concat();
        let long = [&b"a"[..], &[b'b'; 70_000]].concat();
        let want = [text("Hello"), Seen::Ping(b"p".to_vec()), binary(long), Seen::Close(Some(1001), "away".into())];
        for pieces in [vec![&bytes[..]], bytes.chunks(1).collect(), bytes.chunks(4096).collect()] {
            let result = run_with(Role::Client, LIMITS, None, &pieces);
            assert_eq!(result.seen, want);
            assert_eq!(result.close_code(), Some(Some(1001)));
        }
    }

    #[test]
    fn a_zero_key_is_a_key() {
        let result = run(&[&[0x81, 0x82, 0, 0, 0, 0, b'h', b'i']]);
        assert_eq!(result.seen, [text("hi")]);
    }
}

mod section_5_2_base_framing {
    use super::*;

    /// (1.1.1-8, 1.2.1-8)
    #[test]
    fn every_form_of_the_length() {
        for len in [0, 1, 125, 126, 127, 128, 65_535, 65_536] {
            let payload = vec![b'*'; len];
            fine("text", &[frame(0x81, &payload)], &[text(&payload)]);
            let payload = vec![0xFE; len];
            fine("binary", &[frame(0x82, &payload)], &[binary(&payload)]);
        }
    }

    #[test]
    fn lengths_not_minimal_or_with_the_top_bit_are_refused() {
        for head in [&[0x82, 0xFE, 0, 0][..], &[0x82, 0xFE, 0, 125], &[0x82, 0xFF, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF]] {
            let bytes = [head, &KEY, &[0; 70_000]].concat();
            fails("not minimal", &[bytes], &[], ProtocolError::NonMinimalLength);
        }
        let bytes = [0x82, 0xFF, 0x80, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4].to_vec();
        fails("top bit", &[bytes], &[], ProtocolError::LengthOutOfRange);
    }

    /// (3.1-3.7)
    #[test]
    fn reserved_bits() {
        let hello = frame(0x81, b"Hello, world!");
        for bits in 1..8u8 {
            for opcode in [0x81, 0x82, 0x88, 0x89, 0x8A, 0x01] {
                let wrong = frame(opcode | bits << 4, b"*");
                fails("alone", std::slice::from_ref(&wrong), &[], ProtocolError::ReservedBits);
                let frames = [hello.clone(), wrong, frame(0x89, b"")];
                fails("second", &frames, &[text("Hello, world!")], ProtocolError::ReservedBits);
            }
            assert_eq!(run(&[&[0x81 | bits << 4]]).close_code(), Some(Some(1002)), "one byte");
        }
    }

    /// (4.1.1-5, 4.2.1-5)
    #[test]
    fn reserved_opcodes() {
        for opcode in [3, 4, 5, 6, 7, 11, 12, 13, 14, 15] {
            for payload in [&b""[..], b"reserved opcode payload"] {
                let wrong = frame(0x80 | opcode, payload);
                let frames = [frame(0x81, b"Hello"), wrong, frame(0x89, b"")];
                fails("reserved opcode", &frames, &[text("Hello")], ProtocolError::ReservedOpcode);
            }
            assert_eq!(run(&[&[0x80 | opcode]]).close_code(), Some(Some(1002)), "one byte");
        }
    }
}

mod section_5_4_fragmentation {
    use super::*;

    /// (5.1, 5.2)
    #[test]
    fn control_frames_are_not_fragmented() {
        for first in [0x08, 0x09, 0x0A] {
            let frames = [frame(first, b"frag"), frame(0x80, b"ment")];
            fails("fragmented control", &frames, &[], ProtocolError::FragmentedControl);
        }
    }

    /// (5.3-5.8)
    #[test]
    fn two_fragments_with_and_without_a_ping_between() {
        let (one, two) = (frame(0x01, b"fragment1"), frame(0x80, b"fragment2"));
        let whole = text("fragment1fragment2");
        fine("two", &[one.clone(), two.clone()], std::slice::from_ref(&whole));
        let ping = Seen::Ping(b"ping".to_vec());
        fine("ping between", &[one, frame(0x89, b"ping"), two], &[ping, whole]);
        let frames = [frame(0x02, &[1]), frame(0x00, &[2]), frame(0x8A, b""), frame(0x80, &[3])];
        fine("binary", &frames, &[Seen::Pong(vec![]), binary([1, 2, 3])]);
    }

    /// (5.9-5.14)
    #[test]
    fn continuation_of_nothing() {
        for first in [0x80, 0x00] {
            let frames = [frame(first, b"non-continuation"), frame(0x81, b"Hello")];
            fails("5.9", &frames, &[], ProtocolError::UnexpectedContinuation);
        }
        let frames = [frame(0x81, b"done"), frame(0x80, b"more")];
        fails("5.11", &frames, &[text("done")], ProtocolError::UnexpectedContinuation);
    }

    /// (5.15)
    #[test]
    fn continuation_behind_a_fragmented_message() {
        let frames = [frame(0x01, b"fragment1"), frame(0x80, b"fragment2"), frame(0x00, b"fragment3")];
        let before = [text("fragment1fragment2")];
        fails("5.15", &frames, &before, ProtocolError::UnexpectedContinuation);
    }

    /// (5.16, 5.17)
    #[test]
    fn continuation_first_then_text() {
        for first in [0x00, 0x80] {
            let frames = [frame(first, b"1"), frame(0x01, b"2"), frame(0x80, b"3")];
            fails("5.16", &frames, &[], ProtocolError::UnexpectedContinuation);
        }
    }

    /// (5.18)
    #[test]
    fn a_new_message_within_a_message() {
        for second in [0x81, 0x82, 0x01, 0x02] {
            let frames = [frame(0x01, b"fragment1"), frame(second, b"fragment2")];
            fails("5.18", &frames, &[], ProtocolError::ExpectedContinuation);
        }
    }

    /// (5.19, 5.20)
    #[test]
    fn five_fragments_with_two_pings() {
        let frames = [
            frame(0x01, b"fragment1"),
            frame(0x00, b"fragment2"),
            frame(0x89, b"pongme 1!"),
            frame(0x00, b"fragment3"),
            frame(0x00, b"fragment4"),
            frame(0x89, b"pongme 2!"),
            frame(0x80, b"fragment5"),
        ];
        let want = [
            Seen::Ping(b"pongme 1!".to_vec()),
            Seen::Ping(b"pongme 2!".to_vec()),
            text("fragment1fragment2fragment3fragment4fragment5"),
        ];
        fine("5.19", &frames, &want);
    }

    #[test]
    fn empty_fragments_make_an_empty_message() {
        fine("6.1.2", &[frame(0x01, b""), frame(0x00, b""), frame(0x80, b"")], &[text("")]);
        let frames = [frame(0x02, b""), frame(0x00, b"x"), frame(0x80, b"")];
        fine("6.1.3", &frames, &[binary("x")]);
    }

    /// (10.1.1)
    #[test]
    fn many_fragments() {
        let whole = vec![b'*'; 65_536];
        let mut frames: Vec<_> = whole.chunks(1300).map(|part| frame(0x00, part)).collect();
        let last = frames.len() - 1;
        frames[0][0] = 0x01;
        frames[last][0] = 0x80;
        fine("10.1.1", &frames, &[text(&whole)]);
    }
}

mod section_5_5_control_frames {
    use super::*;

    /// (2.1-2.4, 2.6)
    #[test]
    fn a_ping_is_answered_with_its_payload() {
        for payload in [&b""[..], b"Hello, world!", &[0, 0xFF, 0xFE, 0xFD, 0xFC, 0xFB], &[0xFE; 125]] {
            fine("ping", &[frame(0x89, payload)], &[Seen::Ping(payload.to_vec())]);
        }
    }

    /// (2.5)
    #[test]
    fn a_long_control_frame_is_refused() {
        for first in [0x88, 0x89, 0x8A] {
            fails("126 bytes", &[frame(first, &[0xFE; 126])], &[], ProtocolError::LongControl);
            assert_eq!(run(&[&[first, 0xFE]]).close_code(), Some(Some(1002)), "two bytes");
        }
    }

    /// (2.7-2.9)
    #[test]
    fn unsolicited_pongs_are_events_only() {
        let frames = [frame(0x8A, b""), frame(0x8A, b"unsolicited"), frame(0x89, b"ping")];
        let want = [Seen::Pong(vec![]), Seen::Pong(b"unsolicited".to_vec()), Seen::Ping(b"ping".to_vec())];
        fine("pongs", &frames, &want);
    }

    /// (2.10, 2.11)
    #[test]
    fn ten_pings_are_answered_in_order() {
        let pings: Vec<_> = (0..10).map(|i| format!("payload-{i}").into_bytes()).collect();
        let frames: Vec<_> = pings.iter().map(|ping| frame(0x89, ping)).collect();
        let want: Vec<_> = pings.into_iter().map(Seen::Ping).collect();
        fine("pings", &frames, &want);
    }
}

mod section_7_closing {
    use super::*;

    /// (7.1.1-7.1.5)
    #[test]
    fn everything_behind_the_close_is_ignored() {
        for behind in [frame(0x88, &NORMAL), frame(0x89, b"x"), frame(0x81, b"x"), vec![0xFF; 9]] {
            let bytes = [frame(0x81, b"Hello"), frame(0x88, &NORMAL), behind].concat();
            for pieces in [vec![&bytes[..]], bytes.chunks(1).collect()] {
                let result = run(&pieces);
                assert_eq!(result.seen, [text("Hello"), Seen::Close(Some(1000), String::new())]);
                assert_eq!(result.sent, [(Opcode::Close, NORMAL.to_vec())]);
                assert!(result.is_done && result.close_received && !result.failed);
            }
        }
        let bytes = [frame(0x01, b"frag"), frame(0x88, &NORMAL), frame(0x80, b"ment")].concat();
        assert_eq!(run(&[&bytes]).seen, [Seen::Close(Some(1000), String::new())]);
    }

    /// (7.3.1-7.3.6)
    #[test]
    fn close_payloads() {
        let result = run(&[&frame(0x88, b"")]);
        assert_eq!(result.seen, [Seen::Close(None, String::new())]);
        assert_eq!(result.sent, [(Opcode::Close, vec![])]);
        fails("7.3.2", &[frame(0x88, b"a")], &[], ProtocolError::ShortClose);
        for reason in ["", "Hello World!", &"*".repeat(123)] {
            let result = run(&[&frame(0x88, &close(1000, reason.as_bytes()))]);
            assert_eq!(result.seen, [Seen::Close(Some(1000), reason.into())]);
            assert_eq!(result.sent, [(Opcode::Close, NORMAL.to_vec())]);
        }
        let long = frame(0x88, &close(1000, &[b'*'; 124]));
        fails("7.3.6", &[long], &[], ProtocolError::LongControl);
    }

    /// (7.5.1)
    #[test]
    fn a_close_reason_is_utf8() {
        let reason = b"\xCE\xBA\xE1\xBD\xB9\xCF\x83\xCE\xBC\xCE\xB5\xED\xA0\x80edited";
        let result = fails("7.5.1", &[frame(0x88, &close(1000, reason))], &[], ProtocolError::BadCloseReason);
        assert_eq!(result.close_code(), Some(Some(1007)));
        assert!(result.is_done);
    }

    /// (7.7.1-7.7.13)
    #[test]
    fn valid_codes() {
        let codes = [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014];
        for code in codes.into_iter().chain([3000, 3999, 4000, 4999]) {
            let result = run(&[&frame(0x88, &close(code, b""))]);
            assert_eq!(result.seen, [Seen::Close(Some(code), String::new())]);
            assert_eq!(result.close_code(), Some(Some(code)));
        }
    }

    /// (7.9.1-7.9.9, 7.13.1, 7.13.2)
    #[test]
    fn invalid_codes() {
        for code in [0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65_535] {
            let result = fails("code", &[frame(0x88, &close(code, b""))], &[], ProtocolError::BadCloseCode);
            assert!(result.is_done && result.close_received);
        }
    }

    #[test]
    fn our_close_is_sent_once_and_the_answer_is_the_end() {
        let mut peer = Peer::new(Role::Server, LIMITS);
        peer.receive(&frame(0x01, b"half"));
        assert!(peer.close(Some(1001), "going away"));
        assert!(!peer.close(Some(1000), "again"));
        assert!(!peer.machine.is_open() && !peer.machine.is_done() && peer.machine.close_sent());
        // What was under way is discarded, pings are not answered any more (5.5.1), bad text is nobody's business.
        peer.receive(&frame(0x80, b"rest"));
        peer.receive(&[frame(0x89, b"ping"), frame(0x81, b"\xFF"), frame(0x80, b"")].concat());
        assert_eq!((peer.seen.len(), peer.machine.memory_bytes()), (0, 0));
        peer.receive(&frame(0x88, &close(1001, b"ok")));
        let result = peer.finish();
        assert_eq!(result.seen, [Seen::Close(Some(1001), "ok".into())]);
        assert_eq!(result.sent, [(Opcode::Close, close(1001, b"going away"))]);
        assert!(result.is_done && !result.failed);
    }

    #[test]
    fn closing_while_a_frame_is_incomplete() {
        let bytes = [frame(0x82, &[7; 500]), frame(0x88, &close(4000, b"bye"))].concat();
        for cut in 0..bytes.len() - 1 {
            let mut peer = Peer::new(Role::Server, LIMITS);
            peer.receive(&bytes[..cut]);
            peer.close(None, "");
            peer.receive(&bytes[cut..]);
            let seen = peer.finish().seen;
            assert_eq!(seen.last(), Some(&Seen::Close(Some(4000), "bye".into())), "{cut}");
            assert_eq!(seen.len(), if cut < 508 { 1 } else { 2 }, "{cut}");
        }
    }

    #[test]
    fn a_broken_frame_while_closing_is_a_failure_without_another_close() {
        let mut peer = Peer::new(Role::Server, LIMITS);
        peer.close(Some(1000), "");
        peer.receive(&[0x83, 0x80]);
        peer.receive(&frame(0x88, &NORMAL));
        let result = peer.finish();
        assert_eq!(result.seen, [Seen::Failed(ProtocolError::ReservedOpcode)]);
        assert_eq!(result.sent.len(), 1);
        assert!(result.is_done && result.failed);
    }

    #[test]
    fn after_a_failure_the_close_of_the_peer_is_still_noticed() {
        for bad in [frame(0x81, &[0xFF; 300]), frame(0x01, b"\xFF")] {
            let bytes = [bad, frame(0x89, b"x"), frame(0x88, &close(1007, b"sorry"))].concat();
            for pieces in [vec![&bytes[..]], bytes.chunks(1).collect(), bytes.chunks(50).collect()] {
                let result = run(&pieces);
                assert_eq!(result.seen, [Seen::Failed(ProtocolError::BadUtf8)]);
                assert!(result.is_done && result.close_received);
                assert_eq!(result.sent.len(), 1);
            }
        }
    }
}

mod section_8_1_utf8 {
    use super::*;

    const KOSME: &[u8] = b"\xCE\xBA\xE1\xBD\xB9\xCF\x83\xCE\xBC\xCE\xB5";

    /// Whole, in fragments at every place and byte by byte.
    fn text_is(bytes: &[u8], valid: bool) {
        let mut ways = vec![vec![frame(0x81, bytes)]];
        for at in 0..=bytes.len() {
            ways.push(vec![frame(0x01, &bytes[..at]), frame(0x80, &bytes[at..])]);
        }
        let mut single: Vec<_> = bytes.iter().map(|byte| frame(0x00, &[*byte])).collect();
        single.push(frame(0x80, b""));
        single[0][0] |= 0x01;
        ways.push(single);
        for frames in ways {
            if valid {
                fine("valid", &frames, &[text(bytes)]);
            } else {
                fails(&format!("{bytes:x?}"), &frames, &[], ProtocolError::BadUtf8);
            }
        }
    }

    /// (6.1, 6.2)
    #[test]
    fn valid_text_in_any_fragments() {
        text_is("Hello-µ@ßöäüàá-UTF-8!!".as_bytes(), true);
        text_is(KOSME, true);
        fine("6.1.1", &[frame(0x81, b"")], &[text("")]);
    }

    /// (6.3)
    #[test]
    fn invalid_text_in_any_fragments() {
        text_is(&[KOSME, b"\xED\xA0\x80edited"].concat(), false);
    }

    /// (6.4.1, 6.4.2)
    #[test]
    fn fails_within_the_message_at_the_bad_fragment() {
        for (good, bad) in [(KOSME.to_vec(), &b"\xF4\x90\x80\x80"[..]), ([KOSME, b"\xF4"].concat(), b"\x90")] {
            let mut peer = Peer::new(Role::Server, LIMITS);
            peer.receive(&frame(0x01, &good));
            assert!(peer.machine.is_open());
            peer.receive(&frame(0x00, bad));
            let result = peer.finish();
            assert_eq!(result.seen, [Seen::Failed(ProtocolError::BadUtf8)]);
            assert_eq!(result.close_code(), Some(Some(1007)));
        }
    }

    /// (6.4.3, 6.4.4): as those, but within one frame whose bytes come one at a time.
    #[test]
    fn fails_within_the_frame_at_the_first_byte_that_is_certain() {
        let whole = [KOSME, b"\xF4\x90\x80\x80edited"].concat();
        let bytes = frame(0x81, &whole);
        let bad = bytes.len() - whole.len() + KOSME.len() + 1;
        let mut peer = Peer::new(Role::Server, LIMITS);
        for byte in &bytes[..bad] {
            peer.receive(&[*byte]);
            assert!(peer.machine.is_open());
        }
        peer.receive(&bytes[bad..=bad]);
        assert_eq!(peer.seen, [Seen::Failed(ProtocolError::BadUtf8)]);
    }

    /// (6.5)
    #[test]
    fn a_character_in_several_pieces_of_one_frame() {
        let bytes = frame(0x81, KOSME);
        for at in 1..bytes.len() {
            assert_eq!(run(&[&bytes[..at], &bytes[at..]]).seen, [text(KOSME)]);
        }
    }

    /// (6.6)
    #[test]
    fn every_prefix() {
        let character_ends = [2, 5, 7, 9, 11];
        for len in 1..=KOSME.len() {
            text_is(&KOSME[..len], character_ends.contains(&len));
        }
    }

    /// (6.7, 6.9, 6.11, 6.22, 6.23)
    #[test]
    fn the_first_and_last_of_every_length_and_non_characters() {
        let characters = [
            '\0',
            '\u{80}',
            '\u{800}',
            '\u{10000}',
            '\u{7F}',
            '\u{7FF}',
            '\u{FFFF}',
            '\u{10FFFF}',
            '\u{D7FF}',
            '\u{E000}',
            '\u{FFFD}',
            '\u{FFFE}',
            '\u{1FFFE}',
            '\u{10FFFE}',
        ];
        for character in characters {
            text_is(character.encode_utf8(&mut [0; 4]).as_bytes(), true);
        }
    }

    /// (6.8, 6.10)
    #[test]
    fn sequences_of_five_and_six_bytes() {
        for bytes in [
            &b"\xF8\x88\x80\x80\x80"[..],
            b"\xFC\x84\x80\x80\x80\x80",
            b"\xF7\xBF\xBF\xBF",
            b"\xFB\xBF\xBF\xBF\xBF",
            b"\xFD\xBF\xBF\xBF\xBF\xBF",
            b"\xF4\x90\x80\x80",
        ] {
            text_is(bytes, false);
        }
    }

    /// (6.12-6.14)
    #[test]
    fn lonely_bytes() {
        for byte in [0x80, 0xBF, 0xC0, 0xC1, 0xDF, 0xE0, 0xEF, 0xF0, 0xF7, 0xF8, 0xFC, 0xFE, 0xFF] {
            text_is(&[byte], false);
            text_is(&[byte, b' ', byte, b' '], false);
        }
        for count in 2..=7 {
            text_is(&b"\x80\xBF\x80\xBF\x80\xBF\x80"[..count], false);
        }
    }

    /// (6.15-6.17)
    #[test]
    fn incomplete_characters() {
        for bytes in [&b"\xC0"[..], b"\xE0\x80", b"\xE1\x80", b"\xF0\x90\x80", b"\xF1\x80\x80", b"\xDF", b"\xEF\xBF"] {
            text_is(bytes, false);
        }
    }

    /// (6.18, 6.19)
    #[test]
    fn overlong_characters() {
        for bytes in [
            &b"\xC0\xAF"[..],
            b"\xE0\x80\xAF",
            b"\xF0\x80\x80\xAF",
            b"\xC1\xBF",
            b"\xE0\x9F\xBF",
            b"\xF0\x8F\xBF\xBF",
            b"\xC0\x80",
            b"\xE0\x80\x80",
            b"\xF0\x80\x80\x80",
        ] {
            text_is(bytes, false);
        }
    }

    /// (6.20, 6.21)
    #[test]
    fn surrogates() {
        for bytes in [
            &b"\xED\xA0\x80"[..],
            b"\xED\xAD\xBF",
            b"\xED\xAE\x80",
            b"\xED\xAF\xBF",
            b"\xED\xB0\x80",
            b"\xED\xBE\x80",
            b"\xED\xBF\xBF",
            b"\xED\xA0\x80\xED\xB0\x80",
            b"\xED\xAF\xBF\xED\xBF\xBF",
        ] {
            text_is(bytes, false);
        }
    }

    #[test]
    fn binary_is_not_checked() {
        fine("binary", &[frame(0x02, b"\xFF"), frame(0x80, b"\xC0")], &[binary(b"\xFF\xC0")]);
    }

    #[test]
    fn long_text() {
        for len in [63, 64, 65, 127, 128, 129, 255, 256, 257, 4000] {
            let mut long = "é".repeat(len).into_bytes();
            fine("long", &[frame(0x81, &long)], &[text(&long)]);
            *long.last_mut().unwrap() = b'x';
            fails("long", &[frame(0x81, &long)], &[], ProtocolError::BadUtf8);
        }
    }
}

mod section_10_4_limits {
    use super::*;

    const SMALL: Limits = Limits { message_bytes_max: 100, fragments_max: 3 };

    fn close_code(pieces: &[&[u8]]) -> Option<Option<u16>> {
        run_with(Role::Server, SMALL, None, pieces).close_code()
    }

    #[test]
    fn a_message_over_the_limit_fails_at_its_header() {
        assert_eq!(close_code(&[&frame(0x82, &[0; 100])]), None);
        assert_eq!(close_code(&[&frame(0x82, &[0; 101])]), Some(Some(1009)));
        assert_eq!(close_code(&[&frame(0x82, &[0; 101])[..6]]), Some(Some(1009)), "header only");
        let huge = [0x82, 0xFF, 0x7F, 255, 255, 255, 255, 255, 255, 255, 1, 2, 3, 4];
        assert_eq!(close_code(&[&huge]), Some(Some(1009)), "2^63 - 1");
    }

    #[test]
    fn fragments_count_together() {
        let (first, rest) = (frame(0x02, &[0; 60]), frame(0x80, &[0; 40]));
        assert_eq!(close_code(&[&first, &rest]), None);
        let rest = frame(0x80, &[0; 41]);
        assert_eq!(close_code(&[&first, &rest[..6]]), Some(Some(1009)));
        let huge = [0x80, 0xFF, 0x7F, 255, 255, 255, 255, 255, 255, 255, 1, 2, 3, 4];
        assert_eq!(close_code(&[&first, &huge]), Some(Some(1009)));
    }

    #[test]
    fn too_many_fragments() {
        let (first, more, last) = (frame(0x02, b""), frame(0x00, b""), frame(0x80, b""));
        assert_eq!(close_code(&[&first, &more, &last, &frame(0x82, b"")]), None);
        assert_eq!(close_code(&[&first, &more, &more]), None);
        assert_eq!(close_code(&[&first, &more, &more, &last]), Some(Some(1008)));
        // A frame counts once, however it arrives.
        let frames = [frame(0x02, b"a"), frame(0x00, b"b"), frame(0x80, b"c")].concat();
        let pieces: Vec<_> = frames.chunks(1).collect();
        assert_eq!(close_code(&pieces), None);
    }

    #[test]
    fn a_declared_length_reserves_nothing() {
        let limits = Limits { message_bytes_max: usize::MAX, fragments_max: 10 };
        let head = [0x82, 0xFF, 0x7F, 255, 255, 255, 255, 255, 255, 255, 1, 2, 3, 4];
        let mut peer = Peer::new(Role::Server, limits);
        peer.receive(&head);
        // A record and a kilobyte of headroom, whatever is declared.
        assert!(peer.machine.memory_bytes() < 4096, "{}", peer.machine.memory_bytes());
        peer.receive(&[0; 3000]);
        assert!(peer.machine.memory_bytes() < 8192, "{}", peer.machine.memory_bytes());
        let lent = peer.machine.lend(1000, &mut peer.spares).unwrap();
        assert!(lent.buffer.capacity() < 100_000, "{}", lent.buffer.capacity());
        assert!(peer.machine.memory_bytes() >= lent.buffer.capacity());
        let mut replies = |_, _: &[u8]| {};
        let spares = &mut peer.spares;
        assert!(peer.machine.give_back(lent.buffer, 0, &limits, spares, &mut replies).is_none());
        peer.machine.take_buffers(spares);
        assert_eq!(peer.machine.memory_bytes(), 0);
    }
}
