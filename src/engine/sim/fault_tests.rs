//! Each fault on its own: it happens, is counted, and does what its name says without losing a byte.

use bytes::Bytes;

use super::tests::{Bench, CANCEL, CLOSE, Outcome, RECV, RECV_INTO, SEND, SEND_NOW};
use super::*;
use crate::engine::{Nanos, Op, Ring as _, Token, Wait};

fn bench_with(fault: Fault, options: RingOptions) -> Bench {
    let bench = Bench::new(options);
    bench.world.set_faults(Faults::none().with(fault, 1.0));
    bench
}

fn bench(fault: Fault) -> Bench {
    bench_with(fault, RingOptions::default())
}

impl Bench {
    fn count(&self, fault: Fault) -> u64 {
        self.world.fault_counts().of(fault)
    }

    /// Moves the world's chance on by `n` draws.
    pub(super) fn draw(&self, n: usize) {
        for _ in 0..n {
            let _ = self.world.fork_rng();
        }
    }

    /// The next turn's results after letting time pass for whatever is delayed.
    fn results_after_delay(&mut self) -> Vec<Outcome> {
        let at = self.world.next_event().expect("something is on its way");
        self.world.advance(at - self.world.now());
        let completions = self.turn();
        self.consume(completions).1
    }
}

#[test]
fn short_send_sends_a_beginning() {
    let mut bench = bench(Fault::ShortSend);
    let completions = bench.turn_with(&[(SEND_NOW, b"123456")]);
    let sent = completions[0].result.unwrap() as usize;
    assert!((1..6).contains(&sent));
    assert_eq!(bench.client.received(), b"123456"[..sent]);
    assert_eq!(bench.count(Fault::ShortSend), 1);
}

#[test]
fn spurious_eagain_sends_nothing() {
    let mut bench = bench(Fault::SpuriousEagain);
    let completions = bench.turn_with(&[(SEND_NOW, b"123456")]);
    assert_eq!((completions[0].result, bench.client.readable()), (Err(libc::EAGAIN), 0));
}

#[test]
fn delayed_send_goes_out_in_parts_and_whole() {
    let mut bench = bench(Fault::DelayedSend);
    bench.ring.send(SEND, Bytes::from(vec![7; 1_000]));
    assert!(bench.turn().is_empty() && bench.client.readable() == 0);
    let mut result = None;
    for _ in 0..1_000 {
        if let Some(&last) = bench.results_after_delay().first() {
            result = Some(last);
            break;
        }
    }
    assert_eq!(result, Some((Op::Send, Ok(1_000), false)));
    assert_eq!(bench.client.received(), vec![7; 1_000]);
    assert!(bench.count(Fault::DelayedSend) > 2);
}

#[test]
fn broken_send_tells_how_far_it_came_then_the_error() {
    for seed_part in 0..20 {
        let mut bench = bench(Fault::BrokenSend);
        bench.draw(seed_part);
        bench.ring.send(SEND, Bytes::from_static(b"123456"));
        let result = bench.turn()[0].result;
        let received = bench.client.received();
        assert!(bench.client.saw_reset());
        match result {
            Ok(n) => {
                assert_eq!(received, b"123456"[..n as usize]);
                assert_eq!(bench.turn_with(&[(SEND_NOW, b"x")])[0].result, Err(libc::ECONNRESET));
            }
            Err(errno) => assert_eq!((errno, received.len()), (libc::ECONNRESET, 0)),
        }
    }
}

#[test]
fn one_receive_without_buffers_only_while_one_is_out() {
    let mut bench = bench_with(Fault::NoBuffersOne, RingOptions { buffer_bytes: 4, ..RingOptions::default() });
    bench.ring.recv(RECV);
    bench.client.send(b"12345678");
    let completions = bench.turn();
    let (data, rest) = bench.consume(completions);
    assert_eq!(data, b"1234");
    assert_eq!(rest, [(Op::Recv, Ok(4), true), (Op::Recv, Err(libc::ENOBUFS), false)]);
    bench.ring.recv(RECV);
    let completions = bench.turn();
    assert_eq!(bench.consume(completions).0, b"5678");
}

#[test]
fn squeezed_buffers_leave_at_least_one() {
    let mut bench = bench_with(Fault::NoBuffersAll, RingOptions { buffer_bytes: 1, ..RingOptions::default() });
    let sent: Vec<u8> = (0..100).collect();
    bench.client.send(&sent);
    let mut received = Vec::new();
    let mut starved = 0;
    while received.len() < sent.len() {
        bench.ring.recv(RECV);
        let completions = bench.turn();
        let (data, rest) = bench.consume(completions);
        assert!((1..=3).contains(&data.len()));
        received.extend(data);
        starved += usize::from(rest.last() == Some(&(Op::Recv, Err(libc::ENOBUFS), false)));
        if rest.last().is_some_and(|&(_, _, more)| more) {
            break;
        }
    }
    assert_eq!(received, sent);
    assert!(starved > 20);
}

#[test]
fn lost_more_carries_data() {
    let mut bench = bench(Fault::LostMore);
    bench.ring.recv(RECV);
    bench.client.send(b"123");
    let completions = bench.turn();
    let (data, rest) = bench.consume(completions);
    assert_eq!((data.as_slice(), rest), (b"123".as_slice(), vec![(Op::Recv, Ok(3), false)]));
    bench.client.send(b"456");
    assert!(bench.turn().is_empty());
}

#[test]
fn receives_end_with_errors_that_lose_nothing() {
    for (fault, errno) in [(Fault::RecvInterrupted, libc::EINTR), (Fault::RecvCancelled, libc::ECANCELED)] {
        let mut bench = bench(fault);
        bench.ring.recv(RECV);
        bench.client.send(b"123");
        let completions = bench.turn();
        assert_eq!(bench.consume(completions).1, [(Op::Recv, Err(errno), false)]);
        bench.world.set_faults(Faults::none());
        bench.ring.recv(RECV);
        let completions = bench.turn();
        assert_eq!(bench.consume(completions).0, b"123");
    }
}

#[test]
fn end_of_file_only_after_arming_again() {
    let mut bench = bench(Fault::EofAfterRearm);
    bench.ring.recv(RECV);
    bench.client.send(b"123");
    bench.client.close();
    let completions = bench.turn();
    assert_eq!(bench.consume(completions).1, [(Op::Recv, Ok(3), false)]);
    bench.ring.recv(RECV);
    let completions = bench.turn();
    assert_eq!(bench.consume(completions).1, [(Op::Recv, Ok(0), false)]);
}

#[test]
fn reset_in_the_middle_shows_on_both_sides() {
    let mut receiving = bench(Fault::Reset);
    receiving.ring.recv(RECV);
    receiving.client.send(b"123");
    let completions = receiving.turn();
    let (data, rest) = receiving.consume(completions);
    assert_eq!((data.as_slice(), rest[1]), (b"123".as_slice(), (Op::Recv, Err(libc::ECONNRESET), false)));
    assert!(receiving.client.saw_reset());
    let mut sending = bench(Fault::Reset);
    assert_eq!(sending.turn_with(&[(SEND_NOW, b"1")])[0].result, Err(libc::ECONNRESET));
    assert!(sending.client.saw_reset());
}

#[test]
fn reset_may_destroy_what_was_not_read() {
    let mut bench = bench(Fault::ResetDiscards);
    bench.turn_with(&[(SEND_NOW, b"never read")]);
    bench.client.send(b"unread");
    bench.close();
    assert!(bench.client.received().is_empty() && bench.client.saw_reset());
}

#[test]
fn late_end_after_cancel_may_carry_data() {
    let (mut with_data, mut ended_by_data) = (0, 0);
    for seed_part in 0..40 {
        let mut bench = bench(Fault::LateAfterCancel);
        bench.draw(seed_part);
        bench.ring.recv(RECV);
        bench.client.send(b"123");
        bench.ring.cancel(CANCEL);
        bench.ring.close(CLOSE);
        assert_eq!(bench.turn().len(), 1, "only the close");
        assert!(!bench.client.is_released());
        let rest = bench.results_after_delay();
        assert!(!rest.last().unwrap().2, "the last one ends it: {rest:?}");
        with_data += usize::from(rest[0].1 == Ok(3));
        ended_by_data += usize::from(rest.len() == 1 && rest[0].1 == Ok(3));
        assert!(bench.client.is_released());
        bench.world.check_quiescent(0);
    }
    assert!((5..35).contains(&with_data), "{with_data}");
    assert!((1..with_data).contains(&ended_by_data), "{ended_by_data} of {with_data}");
}

#[test]
fn postponed_completions_come_in_time() {
    let mut bench = bench(Fault::Postponed);
    bench.ring.recv(RECV);
    bench.client.send(b"123");
    assert!(bench.turn().is_empty());
    assert!(!bench.world.runnable(0) && bench.world.next_event().is_some_and(|at| at > 0));
    assert_eq!(bench.results_after_delay(), [(Op::Recv, Ok(3), true)]);
}

#[test]
fn postponed_doorbell_comes_in_time() {
    let mut bench = bench(Fault::Postponed);
    bench.ring.ring_doorbell(0);
    assert!(bench.turn().is_empty());
    assert_eq!(bench.results_after_delay(), [(Op::Doorbell, Ok(0), false)]);
}

#[test]
fn reordering_is_between_slots_only() {
    let mut bench = bench(Fault::Reordered);
    let mut clients = vec![bench.client.clone()];
    for slot in 1..8 {
        bench.ring.accept(0, Token::new(Op::Accept, 1, slot));
        clients.push(bench.world.connect(0, 0));
        assert_eq!(bench.turn().len(), 1);
    }
    (0..8).for_each(|slot| bench.ring.recv(Token::new(Op::Recv, 1, slot)));
    let mut received = vec![Vec::new(); 8];
    let mut orders = std::collections::BTreeSet::new();
    for round in 0..20u8 {
        // Which slot each client got is of no concern here: all write the same.
        clients.iter().for_each(|client| client.send(&[round]));
        let completions = bench.turn();
        orders.insert(completions.iter().map(|c| c.token.index()).collect::<Vec<_>>());
        for completion in completions {
            let filled = completion.filled.unwrap();
            received[completion.token.index() as usize].extend_from_slice(bench.ring.buffer(&filled));
            bench.ring.recycle(filled);
        }
    }
    assert!(orders.len() > 10);
    assert!(received.iter().all(|bytes| *bytes == (0..20).collect::<Vec<u8>>()));
}

#[test]
fn overflow_hides_completions_for_a_while_but_not_those_of_the_batch() {
    let mut bench = bench(Fault::CqOverflow);
    bench.ring.recv(RECV);
    bench.client.send(b"123");
    let mut turns = 0;
    let mut completions = bench.turn();
    while completions.is_empty() {
        assert!(bench.world.runnable(0), "hidden is not asleep");
        turns += 1;
        completions = bench.turn();
    }
    assert!((1..=4).contains(&turns), "{turns}");
    bench.consume(completions);
    bench.client.set_window(0);
    assert_eq!(bench.turn_with(&[(SEND_NOW, b"x")]).len(), 1);
}

#[test]
fn failed_accept_leaves_the_connection_pending() {
    let mut bench = bench(Fault::AcceptError);
    let client = bench.world.connect(0, 0);
    bench.ring.accept(0, Token::new(Op::Accept, 1, 1));
    let errno = bench.turn()[0].result.unwrap_err();
    assert!([libc::EMFILE, libc::ENFILE, libc::ENOMEM].contains(&errno));
    bench.world.set_faults(Faults::none());
    bench.ring.accept(0, Token::new(Op::Accept, 1, 1));
    assert_eq!(bench.turn()[0].result, Ok(0));
    assert!(client.is_accepted());
}

#[test]
fn aborted_accept_loses_the_connection() {
    let mut bench = bench(Fault::AcceptAborted);
    let client = bench.world.connect(0, 0);
    bench.ring.accept(0, Token::new(Op::Accept, 1, 1));
    assert_eq!(bench.turn()[0].result, Err(libc::ECONNABORTED));
    assert!(client.saw_reset());
}

#[test]
fn small_deliveries_lose_nothing() {
    for fault in [Fault::SingleByte, Fault::ShortRecv] {
        let mut bench = bench(fault);
        bench.ring.recv(RECV);
        bench.client.send(b"0123456789");
        let completions = bench.turn();
        let (data, rest) = bench.consume(completions);
        assert_eq!(data, b"0123456789");
        assert!(rest.len() > 1 && (fault == Fault::ShortRecv || rest.len() == 10), "{rest:?}");
    }
}

#[test]
fn single_shot_receives_are_short_or_interrupted() {
    let mut short = bench(Fault::RecvIntoShort);
    short.ring.recv_into(RECV_INTO, Vec::with_capacity(10), 10);
    short.client.send(b"0123456789");
    let n = short.turn()[0].result.unwrap() as usize;
    assert!((1..10).contains(&n));
    assert_eq!(short.ring.take_received(RECV_INTO), b"0123456789"[..n]);
    let mut interrupted = bench(Fault::RecvIntoInterrupted);
    interrupted.ring.recv_into(RECV_INTO, Vec::with_capacity(10), 10);
    interrupted.client.send(b"0123456789");
    assert_eq!(interrupted.turn()[0].result, Err(libc::EINTR));
    assert!(interrupted.ring.take_received(RECV_INTO).is_empty());
}

#[test]
fn early_submission_completes_before_the_turn() {
    let mut bench = bench(Fault::EarlySubmit);
    bench.client.send(b"123");
    bench.ring.recv(RECV);
    let completion = bench.ring.completion().expect("a completion without a turn");
    assert_eq!(completion.result, Ok(3));
}

#[test]
fn clock_jumps_on_top_of_what_was_asked() {
    let bench = bench(Fault::ClockJump);
    bench.world.advance(10);
    assert!(bench.world.now() > 10);
}

#[test]
fn waiting_until_a_time_does_not_sleep_past_a_completion() {
    let mut bench = bench(Fault::Postponed);
    bench.ring.recv(RECV);
    bench.client.send(b"123");
    bench.ring.turn(std::iter::empty(), Wait::Until(Nanos::MAX - 1)).unwrap();
    let event = bench.world.next_event().unwrap();
    assert_eq!(bench.world.next_wakeup(), Some(event));
}
