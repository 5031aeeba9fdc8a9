//! Cores beside a bridge: what they tell it, what they hand it, and what they do not.

use super::tests::{bytes_of, payloads};
use super::*;
use crate::mail::{Mailbox, PostOffice};
use crate::outbox::FrameBuf;
use crate::proto::{Incoming, Kind, Opcode, Payload};

const BRIDGE: usize = 1;

/// One core, and the bridge's mailbox.
fn beside_bridge(depth: usize) -> (CoreHub, Mailbox<Letter>) {
    let mut office = PostOffice::new(1, 64);
    let mailbox = office.add_bridge(depth);
    let (post, _) = office.take(0);
    let ids = IdKey::default().of_node(7);
    let mut hub = CoreHub::new(ids, post, Outbox::new(1 << 20), Spares::new(1 << 20), SlowConsumer::Close);
    for slot in 0..3 {
        hub.outbox.open(slot, 1);
        hub.enter(slot, 1, 0);
    }
    (hub, mailbox)
}

/// What the bridge was written, in short.
fn written(hub: &mut CoreHub, mailbox: &mut Mailbox<Letter>) -> Vec<String> {
    let mut rung = Vec::new();
    hub.post_mail(|core| rung.push(core));
    assert!(rung.iter().all(|core| *core == BRIDGE));
    let mut all = Vec::new();
    while let Some(letter) = mailbox.next_urgent().or_else(|| mailbox.next()) {
        let Letter::Order(order) = letter else { panic!("what cannot leave the process") };
        all.push(match order {
            Order::Presence { room, core: 0, members } => format!("{room}: {members}"),
            Order::Member { room, id, is_there } => {
                assert_eq!(id.node(), 7);
                format!("{room}: {} {is_there}", id.slot())
            }
            Order::Publish { scope: Scope::Room(room), .. } => format!("to {room}"),
            Order::Publish { scope: Scope::Everyone, .. } => "to all".into(),
            Order::EmitTo { id, .. } => format!("to {}", id.slot()),
            other => panic!("{other:?}"),
        });
    }
    all
}

fn publish(hub: &mut CoreHub, scope: &Scope) -> Delivery {
    let message = Incoming { kind: Kind::Text, payload: Payload::Borrowed(b"x"), uncompressed: false };
    hub.send_to_scope(scope, message, Sending::default())
}

fn elsewhere(hub: &mut CoreHub, members: u32) {
    hub.read(Order::Presence { room: "a".into(), core: BRIDGE, members }.into());
}

/// Kills: a change of a room's members that the bridge of a single core is not told; a number that is told twice.
#[test]
fn the_bridge_is_told_of_members_and_of_who_came_by_a_change() {
    let (mut hub, mut mailbox) = beside_bridge(64);
    hub.join(0, "a").expect("room");
    assert_eq!(written(&mut hub, &mut mailbox), ["a: 1"]);
    hub.join_then(1, "a", None).expect("room");
    assert_eq!(written(&mut hub, &mut mailbox), ["a: 2", "a: 1 true"], "who counts is told before who it is");
    hub.join(2, "a").expect("room");
    hub.leave(2, "a");
    assert_eq!(written(&mut hub, &mut mailbox), [""; 0], "nothing has changed");
    hub.leave(0, "a");
    assert_eq!(written(&mut hub, &mut mailbox), ["a: 1"]);
    hub.outbox.shut(1);
    hub.leave_all(1);
    assert_eq!(written(&mut hub, &mut mailbox), ["a: 0", "a: 1 false"]);
    assert_eq!(hub.room_count(), 0);
}

/// Kills: a message to a room without members elsewhere that is handed on; one with members there that is not, or twice.
#[test]
fn only_what_somebody_elsewhere_is_to_get_is_handed_on() {
    let (mut hub, mut mailbox) = beside_bridge(64);
    let room = Scope::Room("a".into());
    hub.join(0, "a").expect("room");
    written(&mut hub, &mut mailbox);
    assert_eq!(publish(&mut hub, &room), Delivery { queued: 1, ..Delivery::default() });
    assert_eq!(publish(&mut hub, &Scope::Everyone), Delivery { queued: 3, ..Delivery::default() });
    assert_eq!(written(&mut hub, &mut mailbox), [""; 0]);
    elsewhere(&mut hub, 5);
    hub.read(Order::Others { nodes: 2, connections: 9 }.into());
    assert_eq!((hub.member_count("a"), hub.members_abroad("a")), (6, 5));
    assert_eq!(publish(&mut hub, &room), Delivery { queued: 1, elsewhere: 5, ..Delivery::default() });
    assert_eq!(publish(&mut hub, &Scope::Everyone), Delivery { queued: 3, elsewhere: 9, ..Delivery::default() });
    assert_eq!(written(&mut hub, &mut mailbox), ["to a", "to all"]);
    let notice = FrameBuf::new(Opcode::Text, b"joined");
    hub.join_then(1, "a", Some(&notice)).expect("room");
    assert_eq!(written(&mut hub, &mut mailbox), ["a: 2", "a: 1 true", "to a"], "the notice goes there, too");
    elsewhere(&mut hub, 0);
    hub.read(Order::Others { nodes: 0, connections: 0 }.into());
    publish(&mut hub, &room);
    publish(&mut hub, &Scope::Everyone);
    assert_eq!(written(&mut hub, &mut mailbox), [""; 0]);
}

/// Kills: a core that waits for the bridge, or does not say that it was full.
#[test]
fn a_bridge_that_is_full_is_not_waited_for() {
    let (mut hub, mut mailbox) = beside_bridge(2);
    elsewhere(&mut hub, 1);
    let room = Scope::Room("a".into());
    let told: Vec<u32> = (0..4).map(|_| publish(&mut hub, &room).refused).collect();
    assert_eq!(told, [0, 0, 1, 1]);
    assert!(!hub.is_congested());
    assert_eq!(hub.counters.abroad_refused, 2);
    assert_eq!(written(&mut hub, &mut mailbox).len(), 2);
    // Urgent letters find room always.
    for number in 0..10 {
        hub.join(0, &number.to_string()).expect("room");
    }
    assert!(!hub.is_congested());
}

/// Kills: an id of another node that is taken for one of this, and one that waits where there is no other.
#[test]
fn an_id_of_another_node_goes_to_the_bridge() {
    let (mut hub, mut mailbox) = beside_bridge(64);
    let of = |node| IdKey::default().of_node(node).id(0, 1, 1);
    hub.emit_to(of(8), Opcode::Text, b"x", None);
    assert_eq!(written(&mut hub, &mut mailbox), ["to 1"]);
    let (tally, answer) = Tally::new();
    hub.emit_to(hub.id(1), Opcode::Text, b"mine", Some(tally));
    assert_eq!(answer.recv().map(|delivery| delivery.queued), Ok(1));
    assert_eq!(written(&mut hub, &mut mailbox), [""; 0]);
}

/// Kills: who is told of lost members of other rooms, or by what the app does not say.
#[test]
fn members_are_told_of_the_lost_as_the_app_says() {
    let (mut hub, _mailbox) = beside_bridge(64);
    hub.join(0, "a").expect("room");
    hub.join(1, "b").expect("room");
    let ids: Arc<[ConnectionId]> = (0..2).map(|slot| IdKey::default().of_node(9).id(0, slot, 1)).collect();
    let lost = |back| Order::Lost { room: "a".into(), ids: Arc::clone(&ids), back };
    hub.read(lost(false).into());
    hub.set_tell_lost(Box::new(|room, id, back| {
        let text = format!("{room} {} {back}", id.slot());
        (id.slot() == 0 || back).then(|| FrameBuf::new(Opcode::Text, text.as_bytes()))
    }));
    hub.read(lost(false).into());
    hub.read(lost(true).into());
    let sent: Vec<(u32, Vec<String>)> =
        hub.outbox.batch().map(|send| (send.slot, payloads(&bytes_of(send.bytes)))).collect();
    assert_eq!(sent, [(0, vec!["a 0 false".into(), "a 0 true".into(), "a 1 true".into()])]);
}
