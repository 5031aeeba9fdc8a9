//! Tests of sleeping and waking.

use std::io::Write as _;
use std::sync::mpsc;
use std::thread;

use super::tests::{Bench, LONG, LONG_NS, small, token};
use super::*;

#[test]
fn a_wait_ends_at_its_time() {
    for spin in [Duration::ZERO, Duration::from_millis(1)] {
        let mut bench = Bench::new(&Options { spin, ..small() });
        let (began, until) = (Instant::now(), bench.ring.now() + 30_000_000);
        bench.turn(Wait::Until(until));
        assert!(bench.ring.now() >= until && began.elapsed() < Duration::from_secs(5));
        let began = Instant::now();
        bench.turn(Wait::Until(until));
        bench.turn(Wait::No);
        assert!(began.elapsed() < Duration::from_secs(1), "that time is past");
        // A completion ends it early.
        let mut client = bench.connect(0);
        bench.ring.recv(token(Op::Recv, 0));
        let writer = thread::spawn(move || {
            thread::sleep(Duration::from_millis(30));
            client.write_all(b"x").unwrap();
            client
        });
        let began = Instant::now();
        bench.turn(Wait::Until(bench.ring.now() + LONG_NS));
        assert_eq!(bench.seen.len(), 1);
        assert!(began.elapsed() < LONG);
        drop(writer.join().unwrap());
    }
}

#[test]
fn a_send_that_fails_ends_the_wait() {
    let mut bench = Bench::new(&small());
    bench.turn_with(&[(0, b"x")], Wait::Forever);
    assert_eq!(bench.failed_sends(), [(0, Err(libc::EBADF))]);
}

/// Kills: a sleep until more comes than the ring holds already.
#[test]
fn a_turn_does_not_sleep_on_what_it_holds() {
    let mut bench = Bench::new(&small());
    let _silent = bench.connect(0);
    // One enter takes the first of the two, which is done at once, and the next one the second, which never is.
    bench.ring.submits_max = 1;
    bench.ring.close(token(Op::Close, 9));
    bench.ring.recv(token(Op::Recv, 0));
    let began = Instant::now();
    bench.turn(Wait::Until(bench.ring.now() + LONG_NS));
    let seen: Vec<_> = bench.seen.iter().map(|seen| (seen.token.op(), seen.result)).collect();
    assert_eq!(seen, [(Op::Close, Err(libc::EBADF))]);
    assert!(began.elapsed() < LONG / 2, "it slept until its time was up");
}

#[test]
fn one_ring_wakes_another() {
    let mut bench = Bench::new(&small());
    let (bells, bell_of) = mpsc::channel();
    let (woken, wakes) = mpsc::channel();
    let sleeper = thread::spawn(move || {
        let mut ring = Uring::new(&small(), Vec::new()).unwrap();
        bells.send(ring.doorbell()).unwrap();
        for _ in 0..3 {
            let began = Instant::now();
            let seen = loop {
                ring.turn(std::iter::empty(), Wait::Until(ring.now() + LONG_NS)).unwrap();
                match ring.completion() {
                    Some(seen) => break seen,
                    None => assert!(began.elapsed() < LONG, "nobody rang"),
                }
            };
            assert_eq!(seen.token.op(), Op::Doorbell);
            woken.send(()).unwrap();
        }
    });
    bench.ring.set_doorbells(vec![bench.ring.doorbell(), bell_of.recv().unwrap()]);
    for _ in 0..3 {
        thread::sleep(Duration::from_millis(20));
        bench.ring.ring_doorbell(1);
        bench.turn(Wait::No);
        wakes.recv_timeout(LONG).expect("it woke up");
    }
    sleeper.join().unwrap();
    // Nobody is there any more: harmless, as is a core that never was.
    bench.ring.ring_doorbell(1);
    bench.ring.ring_doorbell(7);
    bench.assert_quiet();
}

#[test]
fn any_thread_wakes_a_sleeping_ring() {
    let mut bench = Bench::new(&small());
    let bell = bench.ring.bell();
    for _ in 0..3 {
        let bell = Arc::clone(&bell);
        let ringer = thread::spawn(move || {
            thread::sleep(Duration::from_millis(20));
            bell.ring();
            bell.ring();
        });
        let seen = bench.until(Op::Doorbell, 0);
        assert!(seen.result.is_ok());
        ringer.join().unwrap();
        // The second may have come by itself.
        bench.turn(Wait::Until(bench.ring.now() + 20_000_000));
        bench.seen.clear();
    }
    bell.ring();
    bench.until(Op::Doorbell, 0);
    drop(bench);
    bell.ring();
}
