//! Queues whose sockets do not keep up: what is dropped, what is replaced, what is told of it.

use bytes::Bytes;

use super::backlog::PART_BYTES_MAX;
use super::tests::{BYTES_MAX, batch, encoded, finish_waiting, flush, flush_short, outbox, shared};
use super::*;
use crate::proto::Replies as _;

// ---- dropping the oldest ------------------------------------------------------------------------------------------

fn oldest(messages: u64, bytes: u64) -> Dropped {
    Dropped { oldest: messages, bytes, ..Dropped::default() }
}

/// A queue whose socket is full: 10 bytes in flight, then a ping, `a`, `b`, a pong and `c` of 100 bytes each message.
fn full_socket() -> (Outbox, Bytes) {
    let mut outbox = outbox(1);
    outbox.send(0, Opcode::Binary, &[0; 8]);
    let (_, waiting) = flush_short(&mut outbox, 0, 0);
    let control = |outbox: &mut Outbox, opcode| OutboxReplies { outbox, slot: 0 }.reply(opcode, b"");
    control(&mut outbox, Opcode::Ping);
    outbox.send(0, Opcode::Binary, &[b'a'; 98]);
    outbox.send(0, Opcode::Binary, &[b'b'; 98]);
    control(&mut outbox, Opcode::Pong);
    outbox.send(0, Opcode::Binary, &[b'c'; 98]);
    assert_eq!(outbox.queued_bytes(0), 10 + 300 + 4);
    (outbox, waiting)
}

#[test]
fn the_oldest_messages_go_first_and_control_frames_stay() {
    let (mut outbox, waiting) = full_socket();
    assert!(outbox.drop_oldest(0, 600).is_none(), "it fits");
    assert_eq!(outbox.drop_oldest(0, 700), oldest(1, 100));
    assert_eq!(outbox.drop_oldest(0, 800), oldest(1, 100));
    assert!(outbox.invariants());
    let sent = finish_waiting(&mut outbox, 0, waiting);
    let expected = [encoded(&[0; 8]), vec![0x89, 0, 0x8a, 0], encoded(&[b'c'; 98])].concat();
    assert_eq!(sent, expected);
}

#[test]
fn nothing_is_dropped_for_a_message_that_can_never_fit() {
    let (mut outbox, waiting) = full_socket();
    assert!(outbox.drop_oldest(0, 2 * BYTES_MAX).is_none());
    assert!(outbox.drop_oldest(0, BYTES_MAX - 9).is_none(), "what is in flight stays");
    assert_eq!(outbox.drop_oldest(0, BYTES_MAX - 14), oldest(3, 300));
    assert_eq!(outbox.send(0, Opcode::Binary, &[1; BYTES_MAX - 14 - 4]), Queued::Yes);
    assert_eq!(outbox.queued_bytes(0), BYTES_MAX);
    finish_waiting(&mut outbox, 0, waiting);
}

/// Kills: a full queue of one tick's messages that loses the newest.
#[test]
fn the_oldest_of_a_tick_can_be_dropped() {
    let message = |letter: u8| [letter; 196];
    for by_reference in [false, true] {
        let mut outbox = outbox(2);
        for letter in b'a'..=b'e' {
            match by_reference {
                true => outbox.queue_shared(0, &shared(&message(letter))),
                false => outbox.send(0, Opcode::Binary, &message(letter)),
            };
        }
        let more = outbox.encode(Opcode::Binary, &message(b'f')).unwrap();
        assert_eq!(outbox.queue(0, more), Queued::Full);
        assert_eq!(outbox.drop_oldest(0, more.wire_len()), oldest(1, more.wire_len() as u64));
        assert_eq!(outbox.queue(0, more), Queued::Yes);
        assert!(outbox.invariants());
        let expected: Vec<u8> = (b'b'..=b'f').flat_map(|letter| encoded(&message(letter))).collect();
        assert!(flush(&mut outbox) == [(0, expected)]);
    }
}

/// What stands before the messages of a connection's first tick is the response to its handshake.
#[test]
fn what_is_no_frame_is_never_dropped() {
    for interrupted in [false, true] {
        let mut outbox = outbox(2);
        let response = b"HTTP/1.1 101 Switching Protocols\r\n\r\n";
        let put = |out: &mut Vec<u8>| {
            out.extend_from_slice(response);
            Ok::<(), ()>(())
        };
        assert_eq!(outbox.queue_raw(0, put), Ok(true));
        if interrupted {
            // The stretch is joined elsewhere in the arena.
            outbox.send(1, Opcode::Binary, b"other");
        }
        OutboxReplies { outbox: &mut outbox, slot: 0 }.reply(Opcode::Ping, b"");
        for letter in b'a'..=b'd' {
            assert_eq!(outbox.send(0, Opcode::Binary, &[letter; 198]), Queued::Yes);
        }
        assert_eq!(outbox.drop_oldest(0, 400).messages(), 2);
        assert_eq!(outbox.send(0, Opcode::Binary, &[b'e'; 396]), Queued::Yes);
        let messages = [encoded(&[b'c'; 198]), encoded(&[b'd'; 198]), encoded(&[b'e'; 396])].concat();
        let expected = [response.to_vec(), vec![0x89, 0], messages].concat();
        let (sent, waiting) = {
            let mut sent = batch(&mut outbox);
            let waiting = outbox.sent_short(0, 10).expect("a rest");
            outbox.settle(|_| {});
            (sent.remove(0).1[..10].to_vec(), waiting)
        };
        assert_eq!(&waiting[..response.len() - 10], &response[10..]);
        assert!(outbox.invariants());
        assert_eq!([sent, finish_waiting(&mut outbox, 0, waiting)].concat(), expected);
    }
}

/// Kills: a waiting send that owns the whole of a full queue, which leaves nothing to drop.
#[test]
fn most_of_a_full_queue_can_be_dropped_while_a_send_waits() {
    let mut outbox = outbox(1);
    for letter in b'a'..=b'j' {
        assert_eq!(outbox.send(0, Opcode::Binary, &[letter; 98]), Queued::Yes);
    }
    let (_, waiting) = flush_short(&mut outbox, 0, 50);
    assert_eq!(waiting.len(), 50, "the rest of the message that was begun");
    assert_eq!(outbox.drop_oldest(0, 900), oldest(9, 900));
    drop(waiting);
    assert_eq!(outbox.sent_async(0, |_| {}), None);
    for letter in b'a'..=b'j' {
        outbox.send(0, Opcode::Binary, &[letter; 98]);
    }
    let (_, waiting) = flush_short(&mut outbox, 0, 100);
    assert_eq!(waiting.len(), 200, "a quarter of the limit");
    assert!(outbox.drop_oldest(0, 900).is_none());
    assert_eq!(outbox.drop_oldest(0, 800), oldest(7, 700));
    finish_waiting(&mut outbox, 0, waiting);
}

#[test]
fn a_very_long_message_is_sent_in_parts_and_not_dropped_when_begun() {
    let mut outbox = Outbox::new(8 << 20);
    outbox.open(0, 7);
    // The rest of it looks like frames.
    let payload = vec![0x81; 3 * PART_BYTES_MAX];
    let next = shared(b"next");
    outbox.queue_shared(0, &shared(&payload));
    outbox.queue_shared(0, &next);
    let (mut sent, waiting) = flush_short(&mut outbox, 0, 1000);
    assert_eq!(waiting.len(), PART_BYTES_MAX);
    assert!(outbox.invariants());
    let dropped = outbox.drop_oldest(0, (8 << 20) - (outbox.queued_bytes(0) - next.len()));
    assert_eq!(dropped, oldest(1, next.len() as u64), "the next one alone");
    sent.extend(finish_waiting(&mut outbox, 0, waiting));
    assert!(sent == encoded(&payload));
}

// ---- the latest of each key ---------------------------------------------------------------------------------------

fn latest(outbox: &mut Outbox, key: &str, payload: &[u8]) -> (Queued, Dropped) {
    let key = Key::of(key.as_bytes());
    outbox.put_latest(0, &mut Outgoing::new(Opcode::Binary, payload).keyed(Some(key)), key)
}

fn queue_latest(outbox: &mut Outbox, key: &str, payload: &[u8]) -> u64 {
    let (queued, dropped) = latest(outbox, key, payload);
    assert_eq!(queued, Queued::Yes);
    assert!(outbox.invariants());
    dropped.replaced
}

#[test]
fn the_latest_takes_the_place_of_an_older_one_that_waits() {
    let mut outbox = outbox(1);
    assert_eq!(queue_latest(&mut outbox, "a", b"in flight"), 0);
    let (_, waiting) = flush_short(&mut outbox, 0, 3);
    assert_eq!(queue_latest(&mut outbox, "a", b"a2"), 0, "what has been begun is not touched");
    assert_eq!(queue_latest(&mut outbox, "b", b"b1"), 0);
    assert_eq!(outbox.send(0, Opcode::Binary, b"no key"), Queued::Yes);
    assert_eq!(queue_latest(&mut outbox, "a", b"a3, which is longer"), 1);
    assert_eq!(queue_latest(&mut outbox, "c", b"c1"), 0);
    assert_eq!(queue_latest(&mut outbox, "a", b"a4"), 1);
    assert_eq!(queue_latest(&mut outbox, "b", b"b2"), 1);
    let expected = [&b"in flight"[..], b"a4", b"b2", b"no key", b"c1"].map(encoded).concat()[3..].to_vec();
    assert_eq!(finish_waiting(&mut outbox, 0, waiting), expected);
}

#[test]
fn what_waited_when_its_socket_got_full_can_be_replaced() {
    let mut outbox = outbox(1);
    for key in ["a", "b", "c", "d", "e"] {
        assert_eq!(queue_latest(&mut outbox, key, &[key.as_bytes()[0]; 98]), 0);
    }
    let (sent, waiting) = flush_short(&mut outbox, 0, 150);
    assert_eq!(waiting.len(), 250, "the rest of b, c and d");
    assert_eq!(queue_latest(&mut outbox, "b", b"B"), 0, "it has been begun");
    assert_eq!(queue_latest(&mut outbox, "e", b"E"), 1);
    let rest = finish_waiting(&mut outbox, 0, waiting);
    let message = |letter: u8| encoded(&[letter; 98]);
    let expected = [message(b'a'), message(b'b'), message(b'c'), message(b'd'), encoded(b"E"), encoded(b"B")].concat();
    assert_eq!([sent, rest].concat(), expected);
}

#[test]
fn a_tick_that_is_too_full_is_conflated() {
    let mut outbox = outbox(2);
    for number in 0..9u8 {
        queue_latest(&mut outbox, if number == 3 { "once" } else { "often" }, &[number; 98]);
        // So that the stretch is joined elsewhere.
        outbox.send(1, Opcode::Binary, b"other");
    }
    assert_eq!(latest(&mut outbox, "more", &[9; 198]).0, Queued::Full);
    let dropped = outbox.conflate(0);
    assert_eq!(dropped, Dropped { replaced: 7, bytes: 700, ..Dropped::default() });
    assert!(outbox.invariants());
    assert_eq!(queue_latest(&mut outbox, "more", &[9; 198]), 0);
    let expected = [encoded(&[8; 98]), encoded(&[3; 98]), encoded(&[9; 198])].concat();
    assert!(flush(&mut outbox).contains(&(0, expected)));
}

#[test]
fn keys_of_messages_that_have_gone_are_forgotten() {
    let mut outbox = Outbox::new(1 << 20);
    outbox.open(0, 7);
    outbox.send(0, Opcode::Binary, b"x");
    let (_, mut waiting) = flush_short(&mut outbox, 0, 0);
    for number in 0..10_000 {
        queue_latest(&mut outbox, &number.to_string(), &[1; 100]);
        waiting = outbox.sent_async(0, |_| {}).expect("there is always more");
        let places = outbox.slots[0].backlog.as_ref().unwrap().places();
        assert!(places < 70, "{places} keys are remembered");
    }
    finish_waiting(&mut outbox, 0, waiting);
}

#[test]
fn of_pings_that_pile_up_the_last_one_is_answered() {
    let mut outbox = outbox(1);
    outbox.send(0, Opcode::Binary, b"in flight");
    let (_, waiting) = flush_short(&mut outbox, 0, 0);
    for payload in [&b"first"[..], b"second", b"last"] {
        OutboxReplies { outbox: &mut outbox, slot: 0 }.reply(Opcode::Pong, payload);
        outbox.send(0, Opcode::Binary, b"between");
    }
    let expected = [encoded(b"in flight"), b"\x8a\x04last".to_vec(), encoded(b"between").repeat(3)].concat();
    assert_eq!(finish_waiting(&mut outbox, 0, waiting), expected);
}

// ---- falling ------------------------------------------------------------------------------------------------------

#[test]
fn falls_are_noted_from_where_somebody_wants_to_know() {
    let mut outbox = outbox(1);
    outbox.send(0, Opcode::Binary, &[0; 98]);
    flush(&mut outbox);
    assert_eq!((outbox.take_falls(), outbox.expects_fall()), (vec![], false), "nobody wants to know");
    outbox.note_falls_from(100);
    outbox.send(0, Opcode::Binary, &[0; 98]);
    assert!(!outbox.expects_fall(), "not more than that");
    outbox.send(0, Opcode::Binary, &[0; 98]);
    assert!(outbox.expects_fall());
    flush(&mut outbox);
    assert_eq!(outbox.take_falls(), [(0, 200)]);
    (0..3).for_each(|_| assert_eq!(outbox.send(0, Opcode::Binary, &[0; 98]), Queued::Yes));
    let (_, waiting) = flush_short(&mut outbox, 0, 50);
    assert_eq!(outbox.take_falls(), [(0, 300)]);
    finish_waiting(&mut outbox, 0, waiting);
    assert_eq!(outbox.take_falls(), [(0, 250)]);
    outbox.close(0);
    assert_eq!(outbox.take_falls(), []);
}

/// Kills: a fall that is told of whoever has the place next.
#[test]
fn a_fall_is_not_told_of_who_has_gone() {
    for comes_next in [false, true] {
        let mut outbox = outbox(2);
        outbox.note_falls_from(0);
        for slot in [0, 1] {
            outbox.send(slot, Opcode::Binary, &[0; 98]);
        }
        flush(&mut outbox);
        outbox.close(0);
        if comes_next {
            outbox.open(0, 77);
        }
        assert_eq!(outbox.take_falls(), [(1, 100)]);
    }
}

#[test]
fn what_waits_is_timed_by_the_sends_that_were_done() {
    let mut outbox = outbox(1);
    outbox.set_now_ms(5);
    outbox.send(0, Opcode::Binary, &[0; 98]);
    outbox.send(0, Opcode::Binary, &[0; 898]);
    assert_eq!(outbox.waiting_since_ms(0), None);
    let (_, waiting) = flush_short(&mut outbox, 0, 50);
    assert_eq!(outbox.waiting_since_ms(0), Some(5));
    outbox.set_now_ms(9);
    outbox.send(0, Opcode::Binary, b"");
    assert_eq!(outbox.waiting_since_ms(0), Some(5), "more to send is no progress");
    drop(waiting);
    let waiting = outbox.sent_async(0, |_| {}).unwrap();
    assert_eq!(outbox.waiting_since_ms(0), Some(9));
    finish_waiting(&mut outbox, 0, waiting);
    assert_eq!(outbox.waiting_since_ms(0), None);
}

/// Kills: the keys of a queue out of step with its pieces when the frames of a context go; some of these left.
#[test]
fn keys_stay_when_the_frames_of_a_context_go() {
    let mut outbox = outbox(1);
    outbox.open_context(0);
    let (first, second) = (Step::first().next(), Step::first().next().next());
    let plain = |outbox: &mut Outbox, letter: u8, key: Option<Key>| {
        outbox.put(0, Outgoing::new(Opcode::Binary, &[letter; 98]).set_key(key))
    };
    let (x, y) = (Key::of(b"x"), Key::of(b"y"));
    // All in one tick, and the socket takes nothing.
    plain(&mut outbox, b'1', None);
    plain(&mut outbox, b'2', None);
    for (step, after, letter, key) in [(first, None, b'x', x), (second, Some(first), b'y', y)] {
        let frame = outbox.encode_compressed(Opcode::Binary, &[b'c'; 98]).expect("room");
        assert!(outbox.queue_with_context(0, frame, after, step));
        plain(&mut outbox, letter, Some(key));
    }
    let (_, waiting) = flush_short(&mut outbox, 0, 0);
    assert_eq!(outbox.in_flight_bytes(0), 200);
    assert_eq!(outbox.drop_oldest(0, BYTES_MAX - 590), oldest(2, 200), "with the first the one that needs it");
    assert!(!outbox.can_follow(0, Some(second)));
    let (queued, dropped) = outbox.put_latest(0, Outgoing::new(Opcode::Binary, &[b'Y'; 98]).set_key(Some(y)), y);
    assert_eq!((queued, dropped.replaced), (Queued::Yes, 1));
    let sent = finish_waiting(&mut outbox, 0, waiting);
    assert_eq!(sent, [b'1', b'2', b'x', b'Y'].map(|letter| encoded(&[letter; 98])).concat());
}
