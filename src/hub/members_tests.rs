//! Who is in a room, as other threads ask for it and have it changed.

use std::collections::BTreeSet;

use super::tests::World;
use super::*;
use crate::chance::Chance;

/// Kills: pages of a room that leave somebody out or tell of somebody twice, in whatever order members came and went.
#[test]
fn the_pages_of_a_room_tell_of_each_member_once() {
    let mut world = World::new(1);
    let mut chance = Chance(5);
    (0..200).for_each(|slot| world.connect(0, slot, 0));
    let hub = &mut world.hubs[0];
    let mut members = BTreeSet::new();
    for _ in 0..1_000 {
        let slot = chance.below(200) as u32;
        if members.remove(&slot) {
            assert!(hub.leave(slot, "den"));
        } else {
            hub.join(slot, "den").unwrap();
            members.insert(slot);
        }
    }
    let all: Vec<u32> = members.into_iter().collect();
    let slots = |page: &ConnectionPage| page.connections.iter().map(|member| member.id.slot()).collect::<Vec<u32>>();
    for limit in [1, 7, 199, 1_000] {
        let (mut by_slot, mut by_offset) = (Vec::new(), Vec::new());
        let mut from = Some(0);
        while let Some(slot) = from {
            let page = hub.members_page("den", slot, 0, limit, usize::MAX);
            by_slot.extend(slots(&page));
            from = page.next;
        }
        let mut ids = Vec::new();
        let mut from = Some(0);
        while let Some(slot) = from {
            let (part, next) = hub.member_ids("den", slot, limit);
            assert!(part.len() <= limit);
            ids.extend(part.iter().map(|id| id.slot()));
            from = next;
        }
        assert_eq!(ids, all, "ids, {limit} at a time");
        while by_offset.len() < all.len() {
            let page = hub.members_page("den", 0, by_offset.len(), limit, usize::MAX);
            assert_eq!(page.passed, by_offset.len());
            by_offset.extend(slots(&page));
        }
        assert_eq!((&by_slot, &by_offset), (&all, &all), "{limit} at a time");
    }
    hub.set_data(all[1], RawJson::from(&serde_json::json!("x".repeat(1_000))));
    assert_eq!(slots(&hub.members_page("den", 0, 0, 9, 1_000)), all[..1], "no more bytes than are allowed");
    assert_eq!(slots(&hub.members_page("den", 0, 1, 9, 1_000)), all[1..2], "but one");
    assert!(hub.members_page("nowhere", 0, 0, 9, 1_000).connections.is_empty());
}

/// Kills: a core that tells only of the rooms that it has members in itself, or of empty ones, or in no order.
#[test]
fn each_core_tells_of_all_rooms_in_their_order() {
    let mut world = World::new(2);
    (0..2).for_each(|core| world.connect(core, 0, 0));
    world.hubs[0].room("r/kept-and-empty");
    for (core, name) in [(0, "r/d"), (1, "r/b"), (1, "r/c"), (0, "r/b"), (1, "other"), (0, "r/a"), (1, "r/e")] {
        world.hubs[core].join(0, name).unwrap();
    }
    assert!(world.hubs[1].leave(0, "r/c"));
    world.mail();
    for hub in &world.hubs {
        let page = |after, limit| -> Vec<(String, usize)> {
            hub.rooms_page("r/", after, limit).into_iter().map(|room| (room.name, room.members)).collect()
        };
        let all = [("r/a", 1), ("r/b", 2), ("r/d", 1), ("r/e", 1)].map(|(name, members)| (name.to_owned(), members));
        assert_eq!(page("", 9), all);
        assert_eq!(page("", 2), all[..2]);
        assert_eq!(page("r/b", 2), all[2..]);
        assert!(page("r/e", 2).is_empty() && page("", 0).is_empty());
    }
}

/// Kills: joins by the hub that are never answered because their connection has gone.
#[test]
fn whoever_asked_for_a_join_is_told_when_the_connection_goes_first() {
    let mut world = World::new(2);
    world.connect(0, 3, 0);
    let id = world.hubs[0].id(3);
    let (join, joined) = oneshot::channel();
    let (leave, left) = oneshot::channel();
    for order in
        [Order::Join { id, room: "den".into(), answer: join }, Order::Leave { id, room: "den".into(), answer: leave }]
    {
        assert!(world.hubs[0].read(order.into()).is_none());
    }
    world.disconnect(0, 3);
    world.mail();
    while world.hubs[0].next_done().is_some() {}
    assert_eq!((joined.recv(), left.recv()), (Ok(Ok(Err(JoinError::Gone))), Ok(Ok(true))));
}
