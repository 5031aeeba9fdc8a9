//! Listeners of several cores: as the kernel wakes accepts, and as it does not.

use super::*;
use crate::engine::{Op, Ring as _, Token, Wait};

/// Cores that share one listener, each with so many accepts that wait.
fn cores(accepts: &[u32]) -> (World, Vec<Ring>) {
    let world = World::new(1, Faults::none());
    let options = RingOptions { shared_listeners: 1, ..RingOptions::default() };
    let mut rings: Vec<Ring> = (0..accepts.len()).map(|core| world.ring(core, options.clone())).collect();
    for (ring, count) in rings.iter_mut().zip(accepts) {
        (0..*count).for_each(|slot| ring.accept(0, Token::new(Op::Accept, 1, slot)));
        assert_eq!(turn(ring), []);
    }
    (world, rings)
}

/// A turn, and what has become of accepts: each with its slot.
fn turn(ring: &mut Ring) -> Vec<(u32, Result<u32, i32>)> {
    ring.turn(std::iter::empty(), Wait::Forever).expect("a ring that works");
    let completions = std::iter::from_fn(|| ring.completion());
    completions.map(|completion| (completion.token.index(), completion.result)).collect()
}

#[test]
fn each_connection_wakes_the_accept_that_has_waited_longest() {
    let (world, mut rings) = cores(&[2, 1]);
    let clients = [(); 4].map(|()| world.connect_shared(0));
    assert!(world.runnable(0) && world.runnable(1));
    assert_eq!(turn(&mut rings[1]), [(0, Ok(0))]);
    assert_eq!(turn(&mut rings[0]), [(0, Ok(0)), (1, Ok(0))]);
    assert_eq!(clients.each_ref().map(Client::is_accepted), [true, true, true, false]);
    // Both have something to do until they have slept again.
    rings.iter_mut().for_each(|ring| assert_eq!(turn(ring), []));
    assert!(!world.runnable(0) && !world.runnable(1), "the fourth has woken nobody");
    // An accept that comes takes who is there.
    rings[1].accept(0, Token::new(Op::Accept, 1, 1));
    assert_eq!(turn(&mut rings[1]), [(1, Ok(0))]);
    assert!(clients[3].is_accepted());
}

#[test]
fn who_is_woken_and_finds_nobody_waits_again() {
    let (world, mut rings) = cores(&[1, 0]);
    let first = world.connect_shared(0);
    rings[1].accept(0, Token::new(Op::Accept, 1, 0));
    assert_eq!(turn(&mut rings[1]), [(0, Ok(0))]);
    assert!(first.is_accepted() && world.runnable(0));
    assert_eq!(turn(&mut rings[0]), []);
    assert!(!world.runnable(0));
    let second = world.connect_shared(0);
    assert_eq!(turn(&mut rings[0]), [(0, Ok(0))]);
    assert!(second.is_accepted());
}

#[test]
fn a_connection_that_shows_later_wakes_somebody_then() {
    let (world, mut rings) = cores(&[1, 1]);
    world.set_faults(Faults::none().with(Fault::Postponed, 1.0));
    let client = world.connect_shared(0);
    assert!(!world.runnable(0));
    let at = world.next_wakeup().expect("it shows then");
    assert_eq!(world.next_event(), Some(at));
    world.advance(at - world.now());
    assert!(world.runnable(0) && !world.runnable(1));
    assert_eq!(turn(&mut rings[0]), [(0, Ok(0))]);
    assert!(client.is_accepted());
}

#[test]
fn who_was_woken_and_stops_wakes_nobody_in_its_stead() {
    let (world, mut rings) = cores(&[2, 1]);
    let client = world.connect_shared(0);
    rings[0].stop_accepting(0);
    let mut ended = turn(&mut rings[0]);
    ended.sort_unstable();
    assert_eq!(ended, [(0, Err(libc::ECANCELED)), (1, Err(libc::ECANCELED))]);
    assert!(!client.is_accepted() && !client.saw_reset() && !world.runnable(1));
    let other = world.connect_shared(0);
    assert_eq!(turn(&mut rings[1]), [(0, Ok(0))]);
    assert!(client.is_accepted() && !other.is_accepted());
    // The last one to stop leaves nobody waiting.
    rings[1].stop_accepting(0);
    turn(&mut rings[1]);
    assert!(other.saw_reset() && world.connect_shared(0).saw_reset());
}

#[test]
fn a_core_that_ends_takes_its_accepts_with_it() {
    let (world, mut rings) = cores(&[1, 1]);
    let first = world.connect_shared(0);
    drop(rings.remove(0));
    let second = world.connect_shared(0);
    assert_eq!(turn(&mut rings[0]), [(0, Ok(0))]);
    assert!(first.is_accepted() && !second.is_accepted() && !second.saw_reset());
    world.thread_ended(1);
    assert!(second.saw_reset());
}
