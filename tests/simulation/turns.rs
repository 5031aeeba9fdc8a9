//! How much of a tick one thing may take: so that whoever wants little does not wait for all who want much.

use std::cell::RefCell;
use std::rc::Rc;

use ringwire::config::Deflate;
use ringwire::{App, Message, Socket as Peer, ws};

use crate::host::Setup;
use crate::rig::{Rig, Socket};
use crate::secure;
use crate::wire::{BINARY, TEXT};

/// The first bytes of the messages that handlers were called with, and `end` for each connection that has ended.
type Seen = Rc<RefCell<Vec<String>>>;

fn rig(change: impl Fn(&mut Setup)) -> (Rig, Seen) {
    let seen = Seen::default();
    let noted = Rc::clone(&seen);
    let app = move || {
        let (messages, ends) = (Rc::clone(&noted), Rc::clone(&noted));
        App::new().ws(
            "/ws",
            ws().on_message(move |_: &mut Peer<'_>, message: Message<'_>| {
                let bytes = message.as_bytes();
                messages.borrow_mut().push(String::from_utf8_lossy(&bytes[..bytes.len().min(2)]).into_owned());
            })
            .on_close(move |_, _| ends.borrow_mut().push("end".into())),
        )
    };
    let mut setup = Setup { app: Rc::new(app), ..Setup::default() };
    setup.deflate.mode = Deflate::Stateless;
    change(&mut setup);
    (Rig::new(&setup), seen)
}

fn open(rig: &mut Rig, count: usize, offer: Option<&'static str>) -> Vec<Socket> {
    rig.transport.offer = offer;
    (0..count).map(|_| rig.open(0, "/ws")).collect()
}

/// Kills: input that waits in the order in which it came; a budget that is not renewed; one that lets nobody go on.
#[test]
fn who_sends_little_does_not_wait_for_all_that_is_to_be_inflated() {
    let (mut rig, seen) = rig(|setup| {
        setup.settings.inflate_ns_per_tick = 0;
        setup.settings.inflate_bytes_min = 1;
    });
    let mut many = open(&mut rig, 20, Some("permessage-deflate"));
    let mut plain = open(&mut rig, 1, None).remove(0);
    for round in 0..3 {
        for (number, socket) in many.iter_mut().enumerate() {
            let name = char::from(b'a' + number as u8);
            // Of one connection in order, whatever waits.
            socket.frame(BINARY, format!("{name}0{}", "0".repeat(3_000)).as_bytes());
            socket.frame(BINARY, format!("{name}1{}", "0".repeat(3_000)).as_bytes());
        }
        plain.frame(TEXT, b"it is little");
        rig.settle();
        let seen = std::mem::take(&mut *seen.borrow_mut());
        let place = seen.iter().position(|text| text == "it").expect("it was handled");
        assert!(place <= 2, "round {round}: {place} others went first");
        assert_eq!(seen.len(), 41);
        for name in 'a'..'u' {
            let of_one: Vec<&String> = seen.iter().filter(|text| text.starts_with(name)).collect();
            assert!(name == 'i' || of_one == [&format!("{name}0"), &format!("{name}1")], "{of_one:?}");
        }
    }
    rig.finish();
}

/// Little input is handled at once, whatever is to be inflated.
#[test]
fn little_compressed_input_does_not_wait() {
    let (mut rig, seen) = rig(|setup| {
        setup.settings.inflate_ns_per_tick = 0;
        setup.settings.inflate_bytes_min = 40;
    });
    let mut sockets = open(&mut rig, 20, Some("permessage-deflate"));
    let random: String =
        (0..200u32).map(|at| char::from(b'a' + (at.wrapping_mul(0x9e37_79b1) >> 27) as u8 % 26)).collect();
    let (much, little) = sockets.split_at_mut(10);
    much.iter_mut().for_each(|socket| socket.frame(BINARY, format!("m{random}").as_bytes()));
    little.iter_mut().for_each(|socket| socket.frame(BINARY, format!("l{}", "l".repeat(500)).as_bytes()));
    rig.settle();
    let seen = seen.borrow();
    let last_little = seen.iter().rposition(|text| text == "ll").expect("they were handled");
    assert!(seen.len() == 20 && last_little <= 11, "{seen:?}");
}

/// Kills: an end that overtakes what came before it; input that stays behind; a tick that handles all there is.
#[test]
fn of_much_input_a_tick_handles_a_part_in_order() {
    let (mut rig, seen) = rig(|setup| setup.settings.tick_bytes_max = 1);
    let mut sockets = open(&mut rig, 20, None);
    let before = rig.counters(0).ticks;
    for (number, socket) in sockets.iter_mut().enumerate() {
        socket.frame(TEXT, format!("{number:02}").as_bytes());
        socket.client.close();
    }
    rig.settle();
    let expected: Vec<String> = (0..20).map(|number| format!("{number:02}")).collect();
    let messages: Vec<String> = seen.borrow().iter().filter(|text| *text != "end").cloned().collect();
    assert_eq!(messages, expected, "before its end, of each");
    assert!(rig.counters(0).ticks - before >= 20, "one at a time");
    assert_eq!(seen.borrow().iter().filter(|text| *text == "end").count(), 20);
}

/// Kills: a step of a handshake between a message and its answer; handshakes that yield for ever.
#[test]
fn answers_leave_before_a_step_of_a_handshake_and_that_comes_next() {
    let (mut rig, _) = rig(|setup| {
        setup.app = Rc::new(|| App::new().ws("/ws", |_: &mut Peer<'_>, message: Message<'_>| message.to_owned()));
        setup.settings.acceptors = vec![Some(secure::acceptor())];
    });
    rig.transport.secure = Some(secure::layer);
    let mut talker = open(&mut rig, 1, None).remove(0);
    let newcomer = rig.connect(0);
    rig.settle();
    let _hello = secure::Socket::secure(newcomer.clone());
    let (mut answered_after, mut shaken_after) = (None, None);
    for tick in 0..12 {
        // Something is to be said in each tick.
        talker.text("more");
        rig.cores.all[0].tick();
        answered_after = answered_after.or((talker.client.readable() > 0).then_some(tick));
        shaken_after = shaken_after.or((newcomer.readable() > 0).then_some(tick));
    }
    let (answered, shaken) = (answered_after.expect("an answer"), shaken_after.expect("a step"));
    assert!(
        answered < shaken && shaken <= answered + 2,
        "answered after {answered} ticks, the handshake's after {shaken}"
    );
}
