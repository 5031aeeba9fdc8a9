//! What the machine does with memory; what it says is tested in `tests/rfc6455.rs` and `tests/splits.rs`.

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
