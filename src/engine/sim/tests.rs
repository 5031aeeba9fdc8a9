//! The fake without faults: what goes in comes out, and the kernel's ordinary answers.

use bytes::Bytes;

use super::*;
use crate::engine::{BatchSend, Completion, Filled, Nanos, Op, Peer, Pieces, Ring as _, Token, Wait};

/// A world with one core and one connection accepted into slot 0 under generation 1.
pub(super) struct Bench {
    pub(super) world: World,
    pub(super) ring: Ring,
    pub(super) client: Client,
}

/// What a completion says but for its data: operation, result, more.
pub(super) type Outcome = (Op, Result<u32, i32>, bool);

pub(super) const RECV: Token = Token::new(Op::Recv, 1, 0);
pub(super) const RECV_INTO: Token = Token::new(Op::RecvInto, 1, 0);
pub(super) const SEND: Token = Token::new(Op::Send, 1, 0);
pub(super) const SEND_NOW: Token = Token::new(Op::SendNow, 1, 0);
pub(super) const CANCEL: Token = Token::new(Op::Cancel, 1, 0);
pub(super) const CLOSE: Token = Token::new(Op::Close, 1, 0);

impl Bench {
    pub(super) fn new(options: RingOptions) -> Bench {
        let world = World::new(1, Faults::none());
        let mut ring = world.ring(0, options);
        let client = world.connect(0, 0);
        ring.accept(0, Token::new(Op::Accept, 1, 0));
        ring.turn(std::iter::empty(), Wait::No).unwrap();
        let accepted = ring.completion().expect("an accepted connection");
        assert_eq!((accepted.token.op(), accepted.result), (Op::Accept, Ok(0)));
        Bench { world, ring, client }
    }

    pub(super) fn turn(&mut self) -> Vec<Completion> {
        self.turn_with(&[])
    }

    /// A turn with a batch, and all that it completes.
    pub(super) fn turn_with(&mut self, batch: &[(Token, &[u8])]) -> Vec<Completion> {
        let batch = batch.iter().map(|&(token, bytes)| BatchSend { token, pieces: Pieces::One(bytes) });
        self.ring.turn(batch, Wait::Forever).unwrap();
        std::iter::from_fn(|| self.ring.completion()).collect()
    }

    /// Reads and recycles what completions carry; what is left of them is (op, result, more).
    pub(super) fn consume(&mut self, completions: Vec<Completion>) -> (Vec<u8>, Vec<Outcome>) {
        let mut data = Vec::new();
        let mut rest = Vec::new();
        for completion in completions {
            if let Some(filled) = completion.filled {
                assert_eq!(completion.result, Ok(filled.byte_count()));
                data.extend_from_slice(self.ring.buffer(&filled));
                self.ring.recycle(filled);
            }
            rest.push((completion.token.op(), completion.result, completion.more));
        }
        (data, rest)
    }

    pub(super) fn close(&mut self) -> Vec<Completion> {
        self.ring.cancel(CANCEL);
        self.ring.close(CLOSE);
        self.turn()
    }
}

fn results(completions: &[Completion]) -> Vec<Outcome> {
    completions.iter().map(|c| (c.token.op(), c.result, c.more)).collect()
}

#[test]
fn accept_tells_the_peer_and_takes_one_of_the_armed_slots() {
    let world = World::new(1, Faults::none());
    let mut ring = world.ring(0, RingOptions::default());
    ring.accept(0, Token::new(Op::Accept, 1, 3));
    ring.accept(0, Token::new(Op::Accept, 1, 4));
    ring.turn(std::iter::empty(), Wait::Forever).unwrap();
    assert!(ring.completion().is_none());
    assert_eq!(ring.parked_until(), Some(Nanos::MAX));
    assert!(!world.runnable(0));

    let client = world.connect_from(0, 0, Peer::Unix);
    assert!(world.runnable(0) && !client.is_accepted());
    ring.turn(std::iter::empty(), Wait::Forever).unwrap();
    let accepted = ring.completion().unwrap();
    assert_eq!((accepted.token.index(), accepted.result, ring.peer(3)), (3, Ok(0), Peer::Unix));
    assert!(client.is_accepted());
}

#[test]
fn received_bytes_come_in_order_through_buffers_of_both_kinds() {
    for incremental in [false, true] {
        let options = RingOptions { buffers: 4, buffer_bytes: 16, incremental, ..RingOptions::default() };
        let mut bench = Bench::new(options);
        bench.ring.recv(RECV);
        let mut received = Vec::new();
        for round in 0..10u8 {
            bench.client.send(&[round; 7]);
            let completions = bench.turn();
            received.extend(bench.consume(completions).0);
        }
        let expected: Vec<u8> = (0..10).flat_map(|round| [round; 7]).collect();
        assert_eq!(received, expected, "incremental: {incremental}");
    }
}

#[test]
fn incremental_buffers_hold_several_stretches() {
    let options = RingOptions { buffers: 2, buffer_bytes: 16, incremental: true, ..RingOptions::default() };
    let mut bench = Bench::new(options);
    bench.ring.recv(RECV);
    bench.client.send(b"0123456789");
    let completions = bench.turn();
    let first = completions[0].filled.as_ref().unwrap().0;
    assert_eq!((first.offset, first.len, first.last), (0, 10, false));
    bench.consume(completions);
    bench.client.send(b"abcdefghij");
    let completions = bench.turn();
    let stretches: Vec<_> = completions.iter().map(|c| c.filled.as_ref().unwrap().0).collect();
    assert_eq!((stretches[0].buffer, stretches[0].offset, stretches[0].len, stretches[0].last), (0, 10, 6, true));
    assert_eq!((stretches[1].buffer, stretches[1].offset, stretches[1].len), (1, 0, 4));
    assert_eq!(bench.consume(completions).0, b"abcdefghij");
}

#[test]
fn empty_buffer_ring_ends_the_receive() {
    let options = RingOptions { buffers: 2, buffer_bytes: 4, ..RingOptions::default() };
    let mut bench = Bench::new(options);
    bench.ring.recv(RECV);
    bench.client.send(b"0123456789");
    let completions = bench.turn();
    assert_eq!(results(&completions).last(), Some(&(Op::Recv, Err(libc::ENOBUFS), false)));
    assert_eq!(bench.consume(completions).0, b"01234567");
    bench.ring.recv(RECV);
    let completions = bench.turn();
    assert_eq!(bench.consume(completions).0, b"89");
}

#[test]
fn end_of_file_carries_no_buffer() {
    let mut bench = Bench::new(RingOptions::default());
    bench.ring.recv(RECV);
    bench.client.send(b"last words");
    bench.client.shutdown_write();
    let completions = bench.turn();
    assert!(completions[1].filled.is_none());
    let (data, rest) = bench.consume(completions);
    assert_eq!(data, b"last words");
    assert_eq!(rest, [(Op::Recv, Ok(10), true), (Op::Recv, Ok(0), false)]);
    // Half-closed: the other direction still works.
    assert!(bench.turn_with(&[(SEND_NOW, b"answer")]).is_empty());
    assert_eq!(bench.client.received(), b"answer");
}

#[test]
fn whole_batch_send_completes_silently() {
    let mut bench = Bench::new(RingOptions::default());
    let pieces = [Bytes::from_static(b"one"), Bytes::from_static(b"two")];
    let send = BatchSend { token: SEND_NOW, pieces: Pieces::Many(&pieces) };
    bench.ring.turn(std::iter::once(send), Wait::Forever).unwrap();
    assert!(bench.ring.completion().is_none());
    assert_eq!(bench.client.received(), b"onetwo");
}

#[test]
fn full_socket_cuts_a_batch_send_and_holds_an_asynchronous_one() {
    let mut bench = Bench::new(RingOptions::default());
    bench.client.set_window(4);
    assert_eq!(results(&bench.turn_with(&[(SEND_NOW, b"123456")])), [(Op::SendNow, Ok(4), false)]);
    assert_eq!(results(&bench.turn_with(&[(SEND_NOW, b"56")])), [(Op::SendNow, Err(libc::EAGAIN), false)]);
    bench.ring.send(SEND, Bytes::from_static(b"56789abc"));
    assert!(bench.turn().is_empty());
    assert!(!bench.world.runnable(0));
    assert_eq!(bench.client.read(3), b"123");
    assert!(bench.world.runnable(0));
    assert!(bench.turn().is_empty());
    assert_eq!(bench.client.received(), b"4567");
    assert!(bench.turn().is_empty());
    assert_eq!(bench.client.received(), b"89ab");
    assert_eq!(results(&bench.turn()), [(Op::Send, Ok(8), false)]);
    assert_eq!(bench.client.received(), b"c");
}

#[test]
fn client_waits_for_room_too() {
    let mut bench = Bench::new(RingOptions::default());
    bench.client.set_send_window(4);
    bench.client.send(b"0123456789");
    bench.client.shutdown_write();
    assert_eq!(bench.client.unsent(), 6);
    bench.ring.recv(RECV);
    let completions = bench.turn();
    let (data, rest) = bench.consume(completions);
    assert_eq!((data.as_slice(), rest.last()), (b"0123456789".as_slice(), Some(&(Op::Recv, Ok(0), false))));
}

#[test]
fn a_receive_of_what_is_there_does_not_wait() {
    let mut bench = Bench::new(RingOptions::default());
    bench.ring.recv_into_now(RECV_INTO, Vec::with_capacity(10), 5);
    assert_eq!(results(&bench.turn()), [(Op::RecvInto, Err(libc::EAGAIN), false)]);
    assert!(bench.ring.take_received(RECV_INTO).is_empty());
    bench.client.send(b"0123456789");
    bench.ring.recv_into_now(RECV_INTO, Vec::with_capacity(10), 5);
    assert_eq!(results(&bench.turn()), [(Op::RecvInto, Ok(5), false)]);
    assert_eq!(bench.ring.take_received(RECV_INTO), b"01234");
}

#[test]
fn a_bounded_receive_ends_with_data() {
    for bounds_receives in [true, false] {
        let mut bench = Bench::new(RingOptions { bounds_receives, ..RingOptions::default() });
        bench.client.send(b"0123456789");
        bench.ring.recv_at_most(RECV, 4);
        let completions = bench.turn();
        let (data, rest) = bench.consume(completions);
        if bounds_receives {
            assert_eq!((data.as_slice(), rest.last()), (b"0123".as_slice(), Some(&(Op::Recv, Ok(4), false))));
        } else {
            assert_eq!((data.as_slice(), rest.last()), (b"0123456789".as_slice(), Some(&(Op::Recv, Ok(10), true))));
        }
    }
}

#[test]
fn receive_into_appends_and_gives_the_buffer_back() {
    let mut bench = Bench::new(RingOptions::default());
    let mut buffer = Vec::with_capacity(10);
    buffer.extend_from_slice(b"ab");
    let capacity = buffer.capacity();
    bench.ring.recv_into(RECV_INTO, buffer, 5);
    bench.client.send(b"0123456789");
    assert_eq!(results(&bench.turn()), [(Op::RecvInto, Ok(5), false)]);
    let buffer = bench.ring.take_received(RECV_INTO);
    assert_eq!((buffer.as_slice(), buffer.capacity()), (b"ab01234".as_slice(), capacity));
    bench.ring.recv_into(RECV_INTO, buffer, 500);
    assert_eq!(results(&bench.turn()), [(Op::RecvInto, Ok((capacity - 7) as u32), false)]);
    bench.ring.take_received(RECV_INTO);
}

#[test]
fn clean_close_is_a_fin_after_all_bytes() {
    let mut bench = Bench::new(RingOptions::default());
    bench.ring.recv(RECV);
    bench.turn_with(&[(SEND_NOW, b"goodbye")]);
    let mut ended = results(&bench.close());
    ended.sort_by_key(|(op, ..)| *op as u8);
    assert_eq!(ended, [(Op::Recv, Err(libc::ECANCELED), false), (Op::Close, Ok(0), false)]);
    assert!(!bench.client.saw_fin());
    assert_eq!(bench.client.received(), b"goodbye");
    assert!(bench.client.saw_fin() && !bench.client.saw_reset() && bench.client.is_closed());
    bench.world.check_quiescent(0);
}

#[test]
fn close_with_data_unread_is_a_reset_after_all_bytes() {
    let mut bench = Bench::new(RingOptions::default());
    bench.turn_with(&[(SEND_NOW, b"goodbye")]);
    bench.client.send(b"unread");
    bench.close();
    assert_eq!(bench.client.received(), b"goodbye");
    assert!(bench.client.saw_reset() && !bench.client.saw_fin());
}

#[test]
fn sending_to_a_closed_server_is_a_reset() {
    let mut bench = Bench::new(RingOptions::default());
    bench.close();
    assert!(bench.client.saw_fin());
    bench.client.send(b"late");
    assert!(bench.client.saw_reset());
}

#[test]
fn reset_by_the_client_shows_once_then_epipe_and_end() {
    let mut bench = Bench::new(RingOptions::default());
    bench.ring.recv(RECV);
    bench.client.send(b"before");
    bench.client.reset();
    let completions = bench.turn();
    let (data, rest) = bench.consume(completions);
    assert_eq!((data.as_slice(), rest.last()), (b"before".as_slice(), Some(&(Op::Recv, Err(libc::ECONNRESET), false))));
    assert_eq!(results(&bench.turn_with(&[(SEND_NOW, b"x")])), [(Op::SendNow, Err(libc::EPIPE), false)]);
    bench.ring.recv(RECV);
    assert_eq!(results(&bench.turn()), [(Op::Recv, Ok(0), false)]);
}

#[test]
fn first_send_to_a_client_that_closed_vanishes_and_the_next_fails() {
    let mut bench = Bench::new(RingOptions::default());
    bench.client.close();
    assert!(bench.turn_with(&[(SEND_NOW, b"x")]).is_empty());
    assert_eq!(results(&bench.turn_with(&[(SEND_NOW, b"x")])), [(Op::SendNow, Err(libc::EPIPE), false)]);
}

#[test]
fn client_that_closes_with_data_unread_resets() {
    let mut bench = Bench::new(RingOptions::default());
    bench.turn_with(&[(SEND_NOW, b"x")]);
    bench.client.close();
    bench.ring.recv(RECV);
    assert_eq!(results(&bench.turn()), [(Op::Recv, Err(libc::ECONNRESET), false)]);
}

#[test]
fn cancelled_send_tells_how_far_it_came() {
    let mut bench = Bench::new(RingOptions::default());
    bench.client.set_window(4);
    bench.ring.send(SEND, Bytes::from_static(b"123456"));
    assert!(bench.turn().is_empty());
    bench.ring.cancel(CANCEL);
    assert_eq!(results(&bench.turn()), [(Op::Send, Ok(4), false)]);
    bench.ring.send(SEND, Bytes::from_static(b"56"));
    bench.ring.cancel(CANCEL);
    assert_eq!(results(&bench.turn()), [(Op::Send, Err(libc::ECANCELED), false)]);
}

#[test]
fn doorbell_wakes_the_other_core() {
    let world = World::new(1, Faults::none());
    let mut rings = [world.ring(0, RingOptions::default()), world.ring(1, RingOptions::default())];
    rings[1].turn(std::iter::empty(), Wait::Until(1_000)).unwrap();
    assert_eq!((world.parked_until(1), world.runnable(1), world.next_event()), (Some(1_000), false, None));
    rings[0].ring_doorbell(1);
    rings[0].turn(std::iter::empty(), Wait::Forever).unwrap();
    assert!(world.runnable(1) && !world.runnable(0));
    rings[1].turn(std::iter::empty(), Wait::Forever).unwrap();
    let completion = rings[1].completion().unwrap();
    assert_eq!(completion.token, Token::new(Op::Doorbell, 0, 0));
}

#[test]
fn clock_moves_only_when_told_and_deadlines_end_sleep() {
    let mut bench = Bench::new(RingOptions::default());
    bench.ring.turn(std::iter::empty(), Wait::Until(500)).unwrap();
    assert_eq!((bench.ring.now(), bench.world.next_wakeup(), bench.world.runnable(0)), (0, Some(500), false));
    bench.world.advance(500);
    assert!(bench.world.runnable(0));
    bench.ring.turn(std::iter::empty(), Wait::Until(500)).unwrap();
    assert_eq!(bench.ring.parked_until(), None);
    bench.ring.turn(std::iter::empty(), Wait::Forever).unwrap();
    assert_eq!(bench.world.next_wakeup(), None);
}

#[test]
fn stop_accepting_ends_accepts_and_refuses_clients() {
    let mut bench = Bench::new(RingOptions::default());
    bench.ring.accept(0, Token::new(Op::Accept, 1, 5));
    let early = bench.world.connect(0, 0);
    bench.ring.accept(0, Token::new(Op::Accept, 1, 6));
    bench.ring.stop_accepting(0);
    let completions = bench.turn();
    assert_eq!(results(&completions), [(Op::Accept, Ok(0), false), (Op::Accept, Err(libc::ECANCELED), false)]);
    assert!(early.is_accepted() && bench.world.connect(0, 0).saw_reset());
}

#[test]
fn accepting_ends_for_each_listener_by_itself() {
    let mut bench = Bench::new(RingOptions { listeners: 2, ..RingOptions::default() });
    bench.ring.accept(0, Token::new(Op::Accept, 1, 5));
    bench.ring.accept(1, Token::new(Op::Accept, 1, 6));
    bench.ring.stop_accepting(0);
    bench.ring.stop_accepting(0);
    assert_eq!(results(&bench.turn()), [(Op::Accept, Err(libc::ECANCELED), false)]);
    assert!(bench.world.connect(0, 0).saw_reset());
    let other = bench.world.connect(0, 1);
    assert_eq!(results(&bench.turn()), [(Op::Accept, Ok(0), false)]);
    assert!(other.is_accepted());
}

#[test]
fn full_queues_submit_and_show_in_portions() {
    let options = RingOptions { sq_entries: 1, cq_entries: 2, buffer_bytes: 1, ..RingOptions::default() };
    let mut bench = Bench::new(options);
    bench.client.send(b"12345");
    // The submission queue holds one entry: it goes to the kernel at once, and completes before any turn.
    bench.ring.recv(RECV);
    let mut data = Vec::new();
    let mut seen = Vec::new();
    while let Some(completion) = bench.ring.completion() {
        seen.push(completion);
    }
    assert_eq!(seen.len(), 2);
    for _ in 0..10 {
        let (bytes, rest) = bench.consume(std::mem::take(&mut seen));
        data.extend(bytes);
        // What finds the completion queue full ends the receive.
        if rest.iter().any(|&(_, _, more)| !more) {
            bench.ring.recv(RECV);
        }
        seen.extend(bench.turn());
    }
    assert_eq!(data, b"12345");
}

#[test]
fn recycled_bytes_are_overwritten() {
    let mut bench = Bench::new(RingOptions { incremental: true, ..RingOptions::default() });
    bench.ring.recv(RECV);
    bench.client.send(b"secret");
    let completions = bench.turn();
    bench.consume(completions);
    bench.client.send(b"x");
    let filled = bench.turn().remove(0).filled.unwrap();
    let mut extent = filled.0;
    assert_eq!((extent.offset, extent.len), (6, 1));
    bench.ring.recycle(filled);
    extent.offset = 0;
    let forged = Filled(extent);
    let reading = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| bench.ring.buffer(&forged).to_vec()));
    assert!(reading.is_err());
}

#[test]
fn gone_ring_closes_its_connections() {
    let Bench { world, ring, client } = Bench::new(RingOptions::default());
    let pending = world.connect(0, 0);
    drop(ring);
    assert!(client.saw_fin() && pending.saw_reset() && world.connect(0, 0).saw_reset());
    assert_eq!(world.next_wakeup(), None);
}
