//! Compressed messages, against another's inflater: the codec, and the machine in any fragments and pieces.
//!
//! Input: flags, sizes of fragments and pieces, then messages of the payload, divided by four equal bytes of 0xEE.

use miniz_oxide::inflate::stream::{InflateState, inflate};
use miniz_oxide::{DataFormat, MZError, MZFlush, MZStatus};
use ringwire::proto::deflate::{History, Inflater};
use ringwire::proto::extensions::Agreed;
use ringwire::proto::frame::{mark_compressed, put_masked_frame};
use ringwire::proto::{Event, Limits, Machine, Opcode, Pool, ProtocolError, Role, Spares};

use super::take;

const BYTES_MAX: usize = 100_000;

pub fn run(mut data: &[u8]) {
    let flags = take(&mut data);
    let fragment = usize::from(take(&mut data)).max(1);
    let piece = usize::from(take(&mut data)).max(1);
    let has_context = flags & 1 != 0;
    let messages: Vec<&[u8]> = split(data).collect();

    let (mut inflater, mut context, mut pool) = (Inflater::new(), History::new(15), Pool::new(1 << 20));
    let mut history = Vec::new();
    let mut given = Vec::new();
    for message in &messages {
        let mut out = Vec::new();
        let read = inflater.inflate(message, has_context.then_some(&mut context), BYTES_MAX, &mut out, &mut pool);
        match (reference(&history, message), &read) {
            (Reference::Whole(theirs), Ok(())) => assert!(out == theirs, "other bytes"),
            // It stops at a final block, or at what it refuses earlier because no end of it could be right, and knows nothing of more behind it.
            (Reference::Start(theirs), Ok(())) => assert!(out.starts_with(&theirs), "other bytes"),
            // The other takes what lies before all data for zeros.
            (_, Err(_)) => {}
        }
        if has_context {
            history.extend_from_slice(&out);
            history.drain(..history.len().saturating_sub(1 << 15));
        }
        assert!(out.len() <= BYTES_MAX + 1 && out.capacity() <= 2 * BYTES_MAX);
        let Ok(()) = read else {
            given.push(None);
            break;
        };
        given.push(Some(out));
    }
    through_machine(&messages, has_context, fragment, piece, &given);
}

enum Reference {
    Whole(Vec<u8>),
    Start(Vec<u8>),
}

/// What another's inflater gives that has been given the history before, as a block without compression.
fn reference(history: &[u8], message: &[u8]) -> Reference {
    let len = history.len() as u16;
    let block = [&[0][..], &len.to_le_bytes(), &(!len).to_le_bytes(), history].concat();
    let input = [&block[..], message, &[0, 0, 0xFF, 0xFF]].concat();
    let mut state = InflateState::new_boxed(DataFormat::Raw);
    let mut read = read(&mut state, &input);
    let (Reference::Whole(out) | Reference::Start(out)) = &mut read;
    // It looks ahead, and where it finds what is wrong it keeps back what it has made before.
    out.drain(..history.len().min(out.len()));
    read
}

fn read(state: &mut InflateState, input: &[u8]) -> Reference {
    let (mut taken, mut out) = (0, Vec::new());
    loop {
        let mut piece = [0; 8192];
        let result = inflate(state, &input[taken..], &mut piece, MZFlush::None);
        taken += result.bytes_consumed;
        out.extend_from_slice(&piece[..result.bytes_written]);
        match result.status {
            Ok(MZStatus::StreamEnd) => return Reference::Start(out),
            _ if out.len() > BYTES_MAX + (1 << 15) => return Reference::Whole(out),
            Ok(_) if taken == input.len() && result.bytes_written < piece.len() => {
                return Reference::Whole(out);
            }
            Ok(_) => {}
            Err(MZError::Buf) if taken == input.len() && result.bytes_written == 0 => {
                return Reference::Whole(out);
            }
            Err(_) => return Reference::Start(out),
        }
    }
}

fn split(data: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = Some(data);
    std::iter::from_fn(move || {
        let data = rest?;
        let at = data.windows(4).position(|window| window == [0xEE; 4]);
        rest = at.map(|at| &data[at + 4..]);
        Some(&data[..at.unwrap_or(data.len())])
    })
}

/// The same messages in frames, in pieces: the same payloads, or the same failure.
fn through_machine(messages: &[&[u8]], has_context: bool, fragment: usize, piece: usize, given: &[Option<Vec<u8>>]) {
    let mut bytes = Vec::new();
    for message in messages.iter().take(given.len()) {
        let parts: Vec<&[u8]> = if message.is_empty() { vec![&[]] } else { message.chunks(fragment).collect() };
        for (index, part) in parts.iter().enumerate() {
            let opcode = if index == 0 { Opcode::Binary } else { Opcode::Continuation };
            let mut frame = Vec::new();
            put_masked_frame(&mut frame, opcode, part, [3, 1, 4, 1]);
            if index == 0 {
                mark_compressed(&mut frame);
            }
            if index + 1 < parts.len() {
                frame[0] &= 0x7F;
            }
            bytes.extend(frame);
        }
    }
    let agreed =
        Agreed { server_context: false, client_context: has_context, server_window_bits: 15, client_window_bits: 15 };
    let limits = Limits { message_bytes_max: BYTES_MAX, fragments_max: u32::MAX };
    let (mut machine, mut spares) = (Machine::new(Role::Server), Spares::new(1 << 20));
    machine.agree(agreed);
    let mut expected = given.iter();
    let mut reply = |_: Opcode, _: &[u8]| {};
    for piece in bytes.chunks_mut(piece) {
        let mut consumed = 0;
        while let Some(event) = machine.next(piece, &mut consumed, &limits, &mut spares, &mut reply) {
            match (event, expected.next()) {
                (Event::Message(message), Some(Some(payload))) => assert!(*message.payload == payload[..]),
                (Event::Failed(ProtocolError::BadCompression | ProtocolError::MessageTooBig), Some(None)) => {}
                (event, _) => panic!("{event:?}"),
            }
        }
    }
    assert!(expected.next().is_none(), "a message is missing");
}
