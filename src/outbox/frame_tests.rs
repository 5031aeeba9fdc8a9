//! Where queues are cut: at the ends of frames, masked or not, of every length class of RFC 6455 5.2.

use bytes::Bytes;

use super::backlog::{Backlog, PART_BYTES_MAX, RESEND_BYTES};
use super::tests::{BYTES_MAX, finish_waiting, flush_short, outbox};
use super::*;
use crate::proto::frame::put_masked_frame;

/// The shortest and the longest payloads of each form of the length.
const LENGTHS: [usize; 5] = [0, 125, 126, 65_535, 65_536];

/// Who sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum By {
    Server,
    Client,
}

fn put(out: &mut Vec<u8>, by: By, payload: &[u8]) {
    match by {
        By::Server => put_frame(out, Opcode::Binary, payload),
        // A key that makes every byte of the payload look like the beginning of a frame.
        By::Client => put_masked_frame(out, Opcode::Binary, payload, [0x81 ^ 0x55; 4]),
    }
}

/// One frame of each length, one behind the other, and where they end.
fn frames(by: By, lengths: &[usize]) -> (Vec<u8>, Vec<usize>) {
    let mut bytes = Vec::new();
    let ends = lengths.iter().map(|len| {
        put(&mut bytes, by, &vec![0x55; *len]);
        bytes.len()
    });
    let ends = ends.collect();
    (bytes, ends)
}

/// Kills: lengths of masked frames that are read as if they were not masked, in the cut behind what was sent, and in that
/// behind what fits into a waiting send.
#[test]
fn a_short_send_is_cut_where_a_frame_ends() {
    for by in [By::Server, By::Client] {
        for lengths in [LENGTHS, [65_536, 65_535, 126, 125, 0], [0, 0, 126, 126, 125]] {
            let (bytes, ends) = frames(by, &lengths);
            let bytes = Bytes::from(bytes);
            for sent in 0..bytes.len() {
                let mut backlog = Backlog::default();
                backlog.push_back(bytes.clone(), None);
                backlog.sent(sent);
                let mut at = sent;
                // The rest of the frame that was begun, and what follows it; what comes then is cut as it was before.
                for _ in 0..2 {
                    let Some(next) = backlog.next_in_flight(RESEND_BYTES) else { break };
                    backlog.invariants();
                    let expected = &bytes[at..at + next.len()];
                    assert!(next.as_ptr() == expected.as_ptr() || next == expected, "{by:?} {sent}");
                    at += next.len();
                    assert!(ends.contains(&at), "{by:?} {sent}: cut at {at}");
                    backlog.in_flight_bytes = 0;
                }
                assert_eq!(backlog.queue_bytes, bytes.len() - at);
            }
        }
    }
}

/// Kills: a panic, or a frame that is taken apart, where much is queued behind a short send.
#[test]
fn whole_frames_follow_a_short_send_whoever_sends() {
    assert!(LENGTHS.iter().all(|len| *len < PART_BYTES_MAX));
    for by in [By::Server, By::Client] {
        let lengths = [LENGTHS; 3].concat();
        let (bytes, ends) = frames(by, &lengths);
        let near_ends = ends.iter().flat_map(|end| end.saturating_sub(15)..(end + 15).min(bytes.len()));
        for sent in (0..15).chain(near_ends) {
            let mut outbox = Outbox::new(usize::MAX);
            outbox.open(0, 7);
            for len in &lengths {
                assert!(outbox.queue_frames(0, |out| put(out, by, &vec![0x55; *len])));
            }
            let (mut got, waiting) = flush_short(&mut outbox, 0, sent);
            got.extend(finish_waiting(&mut outbox, 0, waiting));
            assert!(got == bytes, "{by:?} {sent}");
        }
    }
}

/// Kills: frames of a client that are dropped in part, or more or fewer of them than are needed.
#[test]
fn the_oldest_frames_are_dropped_whole_whoever_sends() {
    for by in [By::Server, By::Client] {
        // As a tick's stretch, and as the backlog of a socket that is full.
        for waits in [false, true] {
            let mut outbox = outbox(1);
            let lengths = [0, 125, 126, 200, 125];
            let (bytes, ends) = frames(by, &lengths);
            let mut expected = bytes[ends[2]..].to_vec();
            let mut waiting = None;
            if waits {
                assert!(outbox.queue_frames(0, |out| put(out, by, b"")));
                waiting = Some(flush_short(&mut outbox, 0, 0).1);
            }
            assert!(outbox.queue_frames(0, |out| out.extend_from_slice(&bytes)));
            let room = BYTES_MAX - outbox.queued_bytes(0);
            let dropped = outbox.drop_oldest(0, room + ends[1] + 1);
            assert_eq!((dropped.oldest, dropped.bytes), (3, ends[2] as u64), "{by:?} {waits}");
            assert!(outbox.invariants());
            let sent = match waiting {
                Some(waiting) => {
                    expected = [&waiting[..], &expected].concat();
                    finish_waiting(&mut outbox, 0, waiting)
                }
                None => super::tests::flush(&mut outbox).remove(0).1,
            };
            assert!(sent == expected, "{by:?} {waits}");
        }
    }
}
