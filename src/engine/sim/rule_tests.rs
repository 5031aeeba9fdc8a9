//! Canaries: each rule of the kernel, broken on purpose, must panic; each planted bug must show.

use bytes::Bytes;

use super::tests::{Bench, CANCEL, CLOSE, RECV, RECV_INTO, SEND, SEND_NOW};
use super::*;
use crate::engine::{BATCH_PIECES_MAX, BatchSend, Extent, Filled, Op, Pieces, Ring as _, Token, Wait};

/// Asserts that `wrong` panics with a message that contains `message`.
fn must_panic(message: &str, wrong: impl FnOnce(&mut Bench)) {
    panics_with(message, || wrong(&mut Bench::new(RingOptions::default())));
}

pub(super) fn panics_with(message: &str, wrong: impl FnOnce()) {
    let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(wrong));
    let panic = result.expect_err(&format!("nothing panicked with: {message}"));
    let said = panic.downcast_ref::<String>().cloned();
    let said = said.or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned())).unwrap_or_default();
    assert!(said.contains(message), "expected a panic about {message:?}, got: {said}");
}

#[test]
fn two_sends_in_flight() {
    must_panic("two sends in flight", |bench| {
        bench.ring.send(SEND, Bytes::from_static(b"a"));
        bench.ring.send(SEND, Bytes::from_static(b"b"));
    });
    must_panic("two sends in flight", |bench| {
        bench.client.set_window(0);
        bench.ring.send(SEND, Bytes::from_static(b"a"));
        bench.turn();
        bench.turn_with(&[(SEND_NOW, b"b")]);
    });
    must_panic("two sends for one slot in one batch", |bench| {
        bench.turn_with(&[(SEND_NOW, b"a"), (SEND_NOW, b"b")]);
    });
}

#[test]
fn sending_on_without_the_result_of_the_send_before() {
    let untaken = |bench: &mut Bench| {
        bench.client.set_window(1);
        let send = BatchSend { token: SEND_NOW, pieces: Pieces::One(b"abc") };
        bench.ring.turn(std::iter::once(send), Wait::No).unwrap();
    };
    must_panic("before the result of the one before was taken", |bench| {
        untaken(bench);
        bench.turn_with(&[(SEND_NOW, b"d")]);
    });
    must_panic("before the result of a batch send was taken", |bench| {
        untaken(bench);
        bench.ring.send(SEND, Bytes::from_static(b"d"));
    });
}

#[test]
fn ill_formed_sends() {
    must_panic("empty batch send", |bench| {
        bench.turn_with(&[(SEND_NOW, b"")]);
    });
    must_panic("send of no bytes", |bench| bench.ring.send(SEND, Bytes::new()));
    must_panic("65 pieces", |bench| {
        let pieces = vec![Bytes::from_static(b"x"); BATCH_PIECES_MAX + 1];
        let send = BatchSend { token: SEND_NOW, pieces: Pieces::Many(&pieces) };
        bench.ring.turn(std::iter::once(send), Wait::No).unwrap();
    });
    must_panic("no token for SendNow", |bench| {
        bench.turn_with(&[(SEND, b"x")]);
    });
}

#[test]
fn receives_armed_twice() {
    must_panic("recv armed twice", |bench| {
        bench.ring.recv(RECV);
        bench.ring.recv(RECV);
    });
    must_panic("recv while a recv_into", |bench| {
        bench.ring.recv_into(RECV_INTO, Vec::with_capacity(1), 1);
        bench.ring.recv(RECV);
    });
    must_panic("recv_into while a recv", |bench| {
        bench.ring.recv(RECV);
        bench.ring.recv_into(RECV_INTO, Vec::with_capacity(1), 1);
    });
    must_panic("without spare capacity", |bench| bench.ring.recv_into(RECV_INTO, Vec::new(), 1));
}

#[test]
fn operations_on_a_closed_slot() {
    must_panic("recv on a closed slot", |bench| bench.ring.recv(Token::new(Op::Recv, 1, 9)));
    must_panic("recv on a closed slot", |bench| {
        bench.ring.close(CLOSE);
        bench.ring.recv(RECV);
    });
    must_panic("batch send on a closed slot", |bench| {
        bench.ring.close(CLOSE);
        bench.turn_with(&[(SEND_NOW, b"x")]);
    });
    must_panic("cancel on a closed slot", |bench| {
        bench.close();
        bench.ring.cancel(CANCEL);
    });
    must_panic("slot out of range", |bench| bench.ring.recv(Token::new(Op::Recv, 1, 64)));
}

#[test]
fn closing_wrongly() {
    must_panic("close twice", |bench| {
        bench.ring.close(CLOSE);
        bench.ring.close(CLOSE);
    });
    must_panic("was not cancelled", |bench| {
        bench.ring.recv(RECV);
        bench.ring.close(CLOSE);
    });
    must_panic("was not cancelled", |bench| {
        bench.ring.cancel(CANCEL);
        bench.ring.recv(RECV);
        bench.ring.close(CLOSE);
    });
}

#[test]
fn reusing_a_slot_too_early() {
    must_panic("accept into a slot that is Open", |bench| bench.ring.accept(0, Token::new(Op::Accept, 2, 0)));
    must_panic("accept into a slot that is Closing", |bench| {
        bench.ring.close(CLOSE);
        bench.ring.turn(std::iter::empty(), Wait::No).unwrap();
        bench.ring.accept(0, Token::new(Op::Accept, 2, 0));
    });
    must_panic("with operations in flight: recv (Cancelled)", |bench| {
        bench.world.set_faults(Faults::none().with(Fault::LateAfterCancel, 1.0));
        bench.ring.recv(RECV);
        let completions = bench.close();
        assert_eq!(completions.len(), 1, "only the close: {completions:?}");
        bench.ring.accept(0, Token::new(Op::Accept, 2, 0));
    });
}

#[test]
fn generations() {
    must_panic("a generation that the slot had before", |bench| {
        bench.close();
        bench.ring.accept(0, Token::new(Op::Accept, 1, 0));
    });
    must_panic("a generation that is not the slot's own", |bench| bench.ring.recv(Token::new(Op::Recv, 2, 0)));
}

#[test]
fn accepting_wrongly() {
    must_panic("listener 1, which does not exist", |bench| bench.ring.accept(1, Token::new(Op::Accept, 1, 1)));
    must_panic("accept after stop_accepting", |bench| {
        bench.ring.stop_accepting(0);
        bench.ring.accept(0, Token::new(Op::Accept, 1, 1));
    });
    must_panic("accept into a slot that is Accepting", |bench| {
        bench.ring.accept(0, Token::new(Op::Accept, 1, 1));
        bench.ring.accept(0, Token::new(Op::Accept, 2, 1));
    });
    must_panic("peer asked for outside the tick", |bench| {
        bench.turn();
        bench.ring.peer(0);
    });
}

#[test]
fn buffers() {
    let receive = |bench: &mut Bench| -> Filled {
        bench.ring.recv(RECV);
        bench.client.send(b"data");
        bench.turn().remove(0).filled.expect("data")
    };
    // No code outside of the engine can forge them like that: a stretch is given back once, or not at all.
    must_panic("recycled twice", |bench| {
        let filled = receive(bench);
        let forged = Filled(filled.0);
        bench.ring.recycle(filled);
        bench.ring.recycle(forged);
    });
    must_panic("never lent", |bench| {
        let extent = receive(bench).0;
        bench.ring.recycle(Filled(Extent { buffer: extent.buffer + 1, ..extent }));
    });
    must_panic("was not recycled within", |bench| {
        let _kept = receive(bench);
        (0..=super::rules::RECYCLED_WITHIN_TURNS).for_each(|_| drop(bench.turn()));
    });
    must_panic("is not lent", |bench| {
        let filled = receive(bench);
        let forged = Filled(filled.0);
        bench.ring.recycle(filled);
        bench.ring.buffer(&forged);
    });
    must_panic("a buffer that was not given back", |bench| {
        let _kept = receive(bench);
        bench.world.check_quiescent(0);
    });
}

#[test]
fn received_buffers() {
    let receive = |bench: &mut Bench| {
        bench.ring.recv_into(RECV_INTO, Vec::with_capacity(8), 8);
        bench.client.send(b"data");
        assert_eq!(bench.turn().len(), 1);
    };
    must_panic("was not taken", |bench| {
        receive(bench);
        bench.turn();
    });
    must_panic("take_received twice", |bench| {
        receive(bench);
        bench.ring.take_received(RECV_INTO);
        bench.ring.take_received(RECV_INTO);
    });
    must_panic("or before its completion", |bench| {
        bench.ring.recv_into(RECV_INTO, Vec::with_capacity(8), 8);
        bench.ring.take_received(RECV_INTO);
    });
}

#[test]
fn doorbell_of_nobody() {
    must_panic("core 7, which does not exist", |bench| {
        bench.ring.ring_doorbell(7);
        bench.turn();
    });
}

#[test]
fn leaving_things_behind() {
    must_panic("slot 0 is Open", |bench| bench.world.check_quiescent(0));
    must_panic("slot 0 has in flight: send (Yes)", |bench| {
        bench.client.set_window(0);
        bench.ring.send(SEND, Bytes::from_static(b"x"));
        bench.turn();
        bench.world.check_quiescent(0);
    });
    must_panic("operations queued and not submitted", |bench| {
        bench.ring.recv(RECV);
        bench.world.check_quiescent(0);
    });
}

/// What a client sees of 200 numbered sends and a close.
fn seen_under(mutant: Option<Mutant>) -> (Vec<u8>, bool) {
    let mut bench = Bench::new(RingOptions { mutant, ..RingOptions::default() });
    for n in 0..200u8 {
        assert!(bench.turn_with(&[(SEND_NOW, &[n, n, n])]).is_empty());
    }
    bench.close();
    (bench.client.received(), bench.client.saw_fin())
}

#[test]
fn planted_bugs_show() {
    let (good, fin) = seen_under(None);
    assert!(fin && good == (0..200u8).flat_map(|n| [n, n, n]).collect::<Vec<_>>());
    let (lost, _) = seen_under(Some(Mutant::LoseByte));
    assert!(lost.len() < good.len());
    let (doubled, _) = seen_under(Some(Mutant::DuplicateByte));
    assert!(doubled.len() > good.len());
    let (mut reordered, _) = seen_under(Some(Mutant::ReorderSends));
    assert_ne!(reordered, good);
    reordered.sort_unstable();
    assert_eq!(reordered, good);
    assert_eq!(seen_under(Some(Mutant::ForgetFin)), (good, false));
}
