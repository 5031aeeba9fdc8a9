//! Connections that a core makes: answered, refused, given up; and the rules for them.

use socket2::SockAddr;

use std::net::SocketAddr;

use super::rule_tests::panics_with;
use super::tests::{Bench, CANCEL, CLOSE, Outcome, RECV, SEND_NOW};
use super::*;
use crate::engine::{Op, Ring as _, Token};

const CONNECT: Token = Token::new(Op::Connect, 1, 0);

/// A core that connects in slot 0 under generation 1.
fn dialling(faults: Faults) -> (Bench, Dial) {
    let world = World::new(1, faults);
    let ring = world.ring(0, RingOptions::default());
    let client = world.connect(0, 0);
    let mut bench = Bench { world, ring, client };
    connect(&mut bench, CONNECT).expect("a descriptor");
    assert!(bench.turn().is_empty());
    let dial = bench.world.next_dial().expect("it connects");
    (bench, dial)
}

fn connect(bench: &mut Bench, token: Token) -> std::io::Result<()> {
    let descriptor = std::fs::File::open("/dev/null").unwrap().into();
    let address: SocketAddr = "10.0.0.1:80".parse().unwrap();
    bench.ring.connect(token, descriptor, SockAddr::from(address))
}

fn results(bench: &mut Bench) -> Vec<Outcome> {
    let completions = bench.turn();
    bench.consume(completions).1
}

#[test]
fn an_answered_connect_is_a_connection() {
    let (mut bench, dial) = dialling(Faults::none());
    assert_eq!(dial.address(), Some("10.0.0.1:80".parse().unwrap()));
    assert!(!bench.world.runnable(0));
    let server = dial.accept();
    assert!(bench.world.runnable(0));
    assert_eq!(results(&mut bench), [(Op::Connect, Ok(0), false)]);
    bench.ring.recv(RECV);
    server.send(b"welcome");
    let completions = bench.turn_with(&[(SEND_NOW, b"hello")]);
    assert_eq!(bench.consume(completions).0, b"welcome");
    assert_eq!(server.received(), b"hello");
    bench.close();
    bench.turn();
    assert!(server.saw_fin());
    bench.ring.stop_accepting(0);
    bench.turn();
    bench.world.check_quiescent(0);
}

#[test]
fn a_refused_connect_leaves_a_descriptor_to_close_and_another_may_follow() {
    let (mut bench, dial) = dialling(Faults::none());
    dial.refuse(libc::ECONNREFUSED);
    assert_eq!(results(&mut bench), [(Op::Connect, Err(libc::ECONNREFUSED), false)]);
    bench.ring.close(CLOSE);
    assert_eq!(results(&mut bench), [(Op::Close, Ok(0), false)]);
    connect(&mut bench, CONNECT).expect("a descriptor");
    bench.turn();
    bench.world.next_dial().expect("it connects again").accept();
    assert_eq!(results(&mut bench), [(Op::Connect, Ok(0), false)]);
}

#[test]
fn a_connect_that_is_given_up_ends_and_whoever_answers_it_sees_the_end() {
    let (mut bench, dial) = dialling(Faults::none());
    bench.ring.cancel(CANCEL);
    bench.ring.close(CLOSE);
    let mut ended = results(&mut bench);
    ended.sort_by_key(|(op, ..)| *op as u8);
    assert_eq!(ended, [(Op::Close, Ok(0), false), (Op::Connect, Err(libc::ECANCELED), false)]);
    assert!(dial.accept().saw_reset());
}

#[test]
fn a_late_cancellation_may_come_after_the_connection() {
    let late = Faults::none().with(Fault::LateAfterCancel, 1.0);
    let seen = (0..20).map(|draws| {
        let (mut bench, dial) = dialling(late.clone());
        bench.draw(draws);
        let _server = dial.accept();
        bench.ring.cancel(CANCEL);
        assert_eq!(results(&mut bench), []);
        bench.world.advance(2_000_000);
        results(&mut bench)[0].1
    });
    let seen: Vec<Result<u32, i32>> = seen.collect();
    assert!(seen.contains(&Ok(0)) && seen.contains(&Err(libc::ECANCELED)), "{seen:?}");
}

#[test]
fn faults_of_connects() {
    let (mut bench, dial) = dialling(Faults::none().with(Fault::ConnectFailed, 1.0));
    let server = dial.accept();
    assert!(matches!(results(&mut bench)[..], [(Op::Connect, Err(_), false)]));
    assert!(server.was_broken() && server.saw_reset());
    bench.world.set_faults(Faults::none().with(Fault::NoDescriptor, 1.0));
    let error = connect(&mut bench, Token::new(Op::Connect, 1, 1)).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EMFILE));
    assert!(bench.turn().is_empty() && bench.world.next_dial().is_none());
}

#[test]
fn rules_of_connects() {
    let breaks = |message: &str, wrong: fn(&mut Bench)| {
        panics_with(message, || {
            let (mut bench, _dial) = dialling(Faults::none());
            wrong(&mut bench);
        });
    };
    breaks("before the connection is made", |bench| bench.ring.recv(RECV));
    breaks("not cancelled", |bench| bench.ring.close(CLOSE));
    breaks("connect in a slot that is Connecting", |bench| connect(bench, CONNECT).unwrap());
    breaks("connect with a generation that the slot had before", |bench| {
        for generation in [1, 2] {
            bench.ring.cancel(Token::new(Op::Cancel, generation, 0));
            bench.ring.close(Token::new(Op::Close, generation, 0));
            bench.turn();
            connect(bench, Token::new(Op::Connect, 3 - generation, 0)).unwrap();
            bench.turn();
        }
    });
}
