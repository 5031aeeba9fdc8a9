use super::*;
use crate::deal::Deal;
use crate::part::Part;
use crate::scenario::{Pace, Ramp};

fn plan(rooms: usize, members: usize, publishers: usize, stalled: usize) -> Plan {
    Plan {
        groups: rooms,
        groups_in_all: rooms,
        part: Part::default(),
        members,
        publishers,
        stalled,
        stall_after: 0,
        deal: Deal::new(1, 1),
        burst: 2,
        pace: Pace { rate: Some(1.0), count: None, patience: 1000 },
        ramp: Ramp { concurrency: 1, per_second: None },
        raw: false,
    }
}

/// Kills: a message that takes the place of one that is under way; a stream that goes on whose messages take too long, or that a
/// lost one stops for good.
#[test]
fn a_stream_goes_on_where_it_has_room() {
    let board = Arc::new(Board::new(plan(1, 3, 1, 0), 1));
    let window = board.window as u64;
    let fanout = Fanout::new(board.clone(), Share { worker: 0, workers: 1, part: Part::default() });
    let (stream, flights) = (&board.streams[0], &board.flights);
    assert!(fanout.has_room(0, 0));
    // All that there is room for, and nothing has come.
    for sequence in 0..window {
        let flight = &flights[board.place(0, sequence)];
        flight.sequence.store(sequence, Ordering::Relaxed);
        flight.sent.store(5000, Ordering::Relaxed);
    }
    stream.published.store(window - 2, Ordering::Relaxed);
    assert!(fanout.has_room(0, 5000));
    stream.published.store(window, Ordering::Relaxed);
    assert!(!fanout.has_room(0, 5000));
    // The first has come, and the second: it takes both for a burst.
    flights[0].workers.store(1, Ordering::Relaxed);
    assert!(!fanout.has_room(0, 5000));
    flights[1].workers.store(1, Ordering::Relaxed);
    assert!(fanout.has_room(0, 5000));
    // They took more than half of the patience; but that was long ago.
    stream.completed_at.store(5600, Ordering::Relaxed);
    stream.took.store(600, Ordering::Relaxed);
    assert!(!fanout.has_room(0, 5700) && fanout.has_room(0, 6200));
    stream.took.store(400, Ordering::Relaxed);
    assert!(fanout.has_room(0, 5700));
    // What is older than the patience is under way no more.
    flights[1].workers.store(0, Ordering::Relaxed);
    assert!(!fanout.has_room(0, 6000) && fanout.has_room(0, 6001));
}

/// Kills: rooms whose publishers all speak to the same server, or those of an agent.
#[test]
fn publishers_and_others_are_spread_over_the_urls_each_by_themselves() {
    for (urls, agents, rooms, members, publishers, stalled) in
        [(2, 1, 12, 4, 1, 0), (2, 2, 12, 4, 1, 0), (3, 2, 12, 6, 2, 0), (3, 3, 18, 3, 1, 0), (2, 1, 1, 7, 2, 3)]
    {
        let mut turns = [publishers, members - publishers, stalled].map(|_| vec![0; urls]);
        let mut of_agents = vec![vec![0; urls]; agents];
        let deal = Deal::new(urls, agents);
        for (agent, of_agent) in of_agents.iter_mut().enumerate() {
            let part = Part { agent, agents };
            let plan = Plan { groups: part.of(rooms), part, deal, ..plan(rooms, members, publishers, stalled) };
            for group in 0..plan.groups {
                for place in 0..members + stalled {
                    let url = deal.url(plan.turn(group, place));
                    let kind = usize::from(place >= publishers) + usize::from(place >= members);
                    turns[kind][url] += 1;
                    of_agent[url] += usize::from(kind == 0);
                }
            }
        }
        for each in &turns {
            assert!(
                each.iter().max().zip(each.iter().min()).is_some_and(|(most, least)| most - least <= 1),
                "{turns:?}"
            );
        }
        assert!(rooms == 1 || of_agents.iter().flatten().all(|count| *count > 0), "{of_agents:?}");
    }
}
