//! What the machine does with memory; what it says is tested in `tests/rfc6455.rs` and `tests/splits.rs`.

use super::super::deflate::{Deflater, LEVEL};
use super::super::frame::{put_frame, put_masked_frame};
use super::*;

const LIMITS: Limits = Limits { message_bytes_max: 1 << 20, fragments_max: 10 };

/// What an idle connection pays.
#[test]
fn is_small() {
    assert_eq!(size_of::<Machine>(), 16);
    assert!(size_of::<Partial>() <= 256, "{}", size_of::<Partial>());
}

fn masked(len: usize) -> Vec<u8> {
    let mut out = Vec::new();
    put_masked_frame(&mut out, Opcode::Binary, &vec![7; len], [1, 2, 3, 4]);
    out
}

fn no_replies(opcode: Opcode, _: &[u8]) {
    panic!("a reply: {opcode:?}");
}

#[test]
fn a_whole_message_is_borrowed_from_the_input() {
    for len in [0, 5, 125, 126, 65_535, 65_536, 100_000] {
        let mut input = masked(len);
        let behind = input.as_ptr_range().end;
        let (mut machine, mut spares) = (Machine::new(Role::Server), Spares::new(0));
        let mut consumed = 0;
        let event = machine.next(&mut input, &mut consumed, &LIMITS, &mut spares, &mut no_replies);
        match event {
            Some(Event::Message(Incoming { payload: Payload::Borrowed(payload), .. })) => {
                assert_eq!(payload.as_ptr_range().end, behind);
                assert_eq!(payload, vec![7; len]);
            }
            other => panic!("{other:?}"),
        }
        assert_eq!(machine.memory_bytes(), 0);
    }
}

/// An echo of an assembled message needs neither a copy nor, once warm, an allocation.
#[test]
fn an_owned_payload_becomes_a_frame_where_it_is() {
    let (mut machine, mut spares) = (Machine::new(Role::Server), Spares::new(1 << 20));
    let mut storage = None;
    for len in [70_000, 126, 5, 70_000] {
        let mut input = masked(len);
        let (head, tail) = input.split_at_mut(len + 1);
        let mut consumed = 0;
        let event = machine.next(head, &mut consumed, &LIMITS, &mut spares, &mut no_replies);
        assert!(event.is_none() && machine.memory_bytes() > 0);
        consumed = 0;
        let event = machine.next(tail, &mut consumed, &LIMITS, &mut spares, &mut no_replies);
        let Some(Event::Message(Incoming { payload: Payload::Owned(payload), .. })) = event else {
            panic!("not assembled: {len}");
        };
        assert_eq!(payload.as_slice(), vec![7; len]);
        let at = payload.as_slice().as_ptr();
        let (buffer, start) = payload.into_frame(Opcode::Binary);
        assert_eq!(buffer[buffer.len() - len..].as_ptr(), at);
        let mut want = Vec::new();
        put_frame(&mut want, Opcode::Binary, &vec![7; len]);
        assert_eq!(buffer[start..], want);
        if len == 70_000 {
            assert_eq!(*storage.get_or_insert(buffer.as_ptr()), buffer.as_ptr());
        }
        spares.give(buffer);
        assert_eq!(machine.memory_bytes(), 0, "nothing incomplete, nothing held");
    }
}

#[test]
fn a_loan_outlives_a_close_and_the_end() {
    for end in [false, true] {
        let (mut machine, mut spares) = (Machine::new(Role::Server), Spares::new(1 << 20));
        let mut replies = |_: Opcode, _: &[u8]| {};
        let mut input = masked(100_000);
        let mut consumed = 0;
        let head = &mut input[..1000];
        assert!(machine.next(head, &mut consumed, &LIMITS, &mut spares, &mut replies).is_none());
        assert!(machine.lend(100_000, &mut spares).is_none(), "less than that is to come");
        let mut lent = machine.lend(99_000, &mut spares).unwrap();
        assert!(machine.lend(1, &mut spares).is_none(), "lent already");
        assert_eq!(lent.len_max, 100_000 + 14 - 1000);
        lent.buffer.extend_from_slice(&[0; 5000]);
        if end {
            machine.take_buffers(&mut spares);
        } else {
            assert!(machine.close(Some(1001), "", &mut replies));
        }
        let kept = spares.bytes();
        let event = machine.give_back(lent.buffer, 5000, &LIMITS, &mut spares, &mut replies);
        assert!(event.is_none() && spares.bytes() > kept);
        if !end {
            let mut rest = input[6000..].to_vec();
            rest.extend_from_slice(&[0x88, 0x80, 0, 0, 0, 0]);
            consumed = 0;
            let event = machine.next(&mut rest, &mut consumed, &LIMITS, &mut spares, &mut replies);
            assert_eq!(event, Some(Event::Close { code: None, reason: "" }));
            assert!(machine.is_done());
        }
    }
}

fn compressed(payload: &[u8], context: Option<&mut History>) -> Vec<u8> {
    let mut out = Vec::new();
    assert!(Deflater::new(LEVEL).compress(payload, context, &mut out));
    out
}

fn deflating(client_context: bool) -> Machine {
    let mut machine = Machine::new(Role::Server);
    machine.agree(Agreed { server_context: false, client_context, server_window_bits: 15, client_window_bits: 12 });
    machine
}

fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    put_masked_frame(&mut frame, Opcode::Binary, payload, [9, 8, 7, 6]);
    frame[0] = first;
    frame
}

/// What the machine says to bytes that come in pieces, and what it replies.
fn said(machine: &mut Machine, spares: &mut Spares, bytes: &[u8], piece: usize) -> (Vec<String>, Vec<u8>) {
    let (mut said, mut replies) = (Vec::new(), Vec::new());
    for piece in bytes.chunks(piece) {
        let (mut input, mut consumed) = (piece.to_vec(), 0);
        loop {
            let mut reply = |opcode: Opcode, payload: &[u8]| {
                replies.push(opcode as u8);
                replies.extend_from_slice(&payload[..payload.len().min(2)]);
            };
            match machine.next(&mut input, &mut consumed, &LIMITS, spares, &mut reply) {
                Some(Event::Message(message)) => {
                    said.push(format!("{:?} {}", message.kind, String::from_utf8_lossy(&message.payload)));
                    if let Payload::Owned(payload) = message.payload {
                        spares.give(payload.into_parts().0);
                    }
                }
                Some(Event::Ping(payload)) => said.push(format!("ping {}", payload.len())),
                Some(Event::Failed(error)) => said.push(format!("{error}")),
                Some(other) => said.push(format!("{other:?}")),
                None => break,
            }
        }
    }
    (said, replies)
}

/// Kills: text checked before it is decompressed, RSV1 lost with fragments, a context that misses a message or has one that
/// was not compressed.
#[test]
fn compressed_messages_in_any_fragments_and_pieces() {
    let texts: Vec<String> =
        (0..6).map(|n| format!("{n}: \u{e9}t\u{e9} \u{e9}t\u{e9} {}", "na\u{ef}ve ".repeat(9))).collect();
    for context in [false, true] {
        let mut history = History::new(12);
        let mut bytes = Vec::new();
        for (number, text) in texts.iter().enumerate() {
            let payload = compressed(text.as_bytes(), context.then_some(&mut history));
            let at = payload.len() * number / 6;
            bytes.extend(frame(0x41, &payload[..at]));
            bytes.extend(frame(0x89, b"?"));
            bytes.extend(frame(0x00, &[]));
            bytes.extend(frame(0x80, &payload[at..]));
            bytes.extend(frame(0x81, b"plain"));
            // Whole in its frame.
            let payload = compressed(text.as_bytes(), context.then_some(&mut history));
            bytes.extend(frame(0xC1, &payload));
        }
        let expected: Vec<String> = texts
            .iter()
            .flat_map(|text| {
                ["ping 1".to_owned(), format!("Text {text}"), "Text plain".to_owned(), format!("Text {text}")]
            })
            .collect();
        for piece in (1..40).chain([1000, bytes.len()]) {
            let (mut machine, mut spares) = (deflating(context), Spares::new(1 << 20));
            let (said, _) = said(&mut machine, &mut spares, &bytes, piece);
            assert_eq!(said, expected, "{piece}");
            let inflated = spares.inflated();
            let payloads: usize = texts.iter().map(|text| 2 * text.len()).sum();
            assert_eq!((inflated.messages, inflated.bytes_after), (12, payloads as u64));
            assert_eq!(machine.memory_bytes() > 0, context, "it holds a window, or nothing");
            assert!(machine.memory_bytes() <= size_of::<Partial>() + size_of::<History>() + 4096);
            machine.take_buffers(&mut spares);
            assert_eq!(machine.memory_bytes(), 0);
        }
    }
}

/// Kills: RSV1 where it must not be, each error's code, bounds that count bytes before or after alone.
#[test]
fn what_is_wrong_with_compressed_messages() {
    let bad_utf8 = compressed(&[[0xC3, 0x28].as_slice(), &[b'a'; 100]].concat(), None);
    let large = compressed(&vec![b'a'; LIMITS.message_bytes_max + 1], None);
    let fits = compressed(&vec![0; LIMITS.message_bytes_max], None);
    let hello = compressed(b"Hello Hello Hello Hello", None);
    let rows: [(&str, Vec<u8>, u16); 9] = [
        ("on a continuation", [frame(0x41, &hello), frame(0xC0, &[])].concat(), 1002),
        ("on a control frame", frame(0xC9, &[]), 1002),
        ("RSV2", frame(0xA2, &hello), 1002),
        ("RSV3", frame(0x92, &hello), 1002),
        ("invalid data", frame(0xC2, &[0xFF; 20]), 1007),
        ("refers to what was not", frame(0xC2, &[0xf2, 0x00, 0x11, 0x00, 0x00]), 1007),
        ("no UTF-8", frame(0xC1, &bad_utf8), 1007),
        ("too big when decompressed", frame(0xC2, &large), 1009),
        ("too big as it is", frame(0xC2, &vec![0; LIMITS.message_bytes_max + 1])[..20].to_vec(), 1009),
    ];
    for (name, bytes, code) in rows {
        for piece in [1, 7, bytes.len()] {
            let (mut machine, mut spares) = (deflating(true), Spares::new(0));
            let (said, replies) = said(&mut machine, &mut spares, &bytes, piece);
            assert_eq!(replies, [&[8][..], &code.to_be_bytes()].concat(), "{name}: {said:?}");
            assert_eq!((said.len(), machine.memory_bytes() > 300), (1, false), "{name}: {said:?}");
        }
    }
    let (mut machine, mut spares) = (deflating(false), Spares::new(1 << 22));
    let (said_binary, _) = said(&mut machine, &mut spares, &frame(0xC2, &bad_utf8), 1000);
    assert_eq!((said_binary.len(), said(&mut machine, &mut spares, &frame(0xC2, &fits), 100).0.len()), (1, 1));
    // Without an agreement.
    let (_, replies) = said(&mut Machine::new(Role::Server), &mut spares, &frame(0xC2, &hello), 99);
    assert_eq!(replies, [8, 3, 234]);
}
