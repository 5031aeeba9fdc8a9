//! Who the users of one worker are.
//!
//! Users have numbers in the order in which they come, and what kind each is of goes by its number. Which agent, which thread and which
//! URL has one goes by how many of its kind come before it, so that each has its part of every kind; and a kind goes on where the
//! kind before has ended, so that each has its part of all.

use super::turns::Turns;
use crate::{deal::Deal, scenario::Share};

/// A user of this worker.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Seat {
    /// Its number in the whole run.
    pub(crate) number: usize,
    pub(crate) role: usize,
    /// How many of its kind come before it.
    pub(crate) number_in_role: usize,
    /// Its turn among those that go to the URLs.
    pub(crate) turn: usize,
}

/// The users of this worker, of so many in all, in the order of their numbers.
pub(super) fn of_worker(turns: &Turns, total: usize, share: Share, deal: Deal) -> Vec<Seat> {
    let counts: Vec<usize> = (0..turns.roles()).map(|role| turns.count(role, total)).collect();
    let firsts = deal.firsts(counts.iter().copied());
    let before = |role: usize| counts[..role].iter().sum::<usize>();
    let mut places: Vec<usize> = (0..counts.len()).map(before).collect();
    let mut numbers = vec![0; counts.len()];
    let mut seats = Vec::with_capacity(share.of(total));
    for number in 0..total {
        let role = turns.role_of(number);
        let (place, number_in_role) = (places[role], numbers[role]);
        places[role] += 1;
        numbers[role] += 1;
        if share.has(place) {
            seats.push(Seat { number, role, number_in_role, turn: firsts[role] + number_in_role });
        }
    }
    debug_assert_eq!(seats.len(), share.of(total));
    seats
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::part::Part;

    /// Each is as many as every other, or one more.
    fn is_even(counts: &[usize]) -> bool {
        counts.iter().max().zip(counts.iter().min()).is_some_and(|(most, least)| most - least <= 1)
    }

    /// All users, each with its agent and its URL, in the order of their numbers.
    fn all(weights: &[u32], total: usize, urls: usize, workers: &[usize]) -> Vec<(Seat, usize, usize)> {
        let (turns, deal) = (Turns::new(weights.iter().copied()), Deal::new(urls, workers.len()));
        let mut all = Vec::new();
        for (agent, &workers_of) in workers.iter().enumerate() {
            let part = Part { agent, agents: workers.len() };
            for worker in 0..workers_of {
                let share = Share { worker, workers: workers_of, part };
                let seats = of_worker(&turns, total, share, deal);
                assert!(seats.is_sorted_by_key(|seat| seat.number) && seats.len() == share.of(total));
                all.extend(seats.into_iter().map(|seat| (seat, agent, deal.url(seat.turn))));
            }
        }
        all.sort_by_key(|(seat, ..)| seat.number);
        all
    }

    /// Kills: kinds, agents and URLs that are dealt out by the same number, so that one of them has all of a kind.
    #[test]
    fn each_kind_is_spread_evenly_over_urls_and_agents() {
        for weights in [&[1][..], &[1, 1], &[3, 1], &[1, 3], &[5, 2, 3], &[1; 8], &[90, 7, 3]] {
            for urls in 1..=3 {
                for workers in [&[1][..], &[2], &[1, 1], &[2, 1], &[1, 1, 1], &[2, 3, 1]] {
                    for total in [1, 2, 7, 24, 97] {
                        let users = all(weights, total, urls, workers);
                        let what = format!("{weights:?}, {urls} URLs, threads {workers:?}, {total} users");
                        // Each is one worker's, and of the kind that its number says.
                        let turns = Turns::new(weights.iter().copied());
                        let numbers: Vec<usize> = users.iter().map(|(seat, ..)| seat.number).collect();
                        assert_eq!(numbers, (0..total).collect::<Vec<_>>(), "{what}");
                        assert!(users.iter().all(|(seat, ..)| seat.role == turns.role_of(seat.number)), "{what}");
                        let agents = workers.len();
                        let (mut by_url, mut by_agent) =
                            (vec![vec![0; urls]; weights.len()], vec![vec![0; agents]; weights.len()]);
                        let mut next = vec![0; weights.len()];
                        for (seat, agent, url) in &users {
                            // A row of a file is one user's, one by one.
                            assert_eq!(seat.number_in_role, next[seat.role], "{what}");
                            next[seat.role] += 1;
                            by_url[seat.role][*url] += 1;
                            by_agent[seat.role][*agent] += 1;
                            // However many of them are there.
                            assert!(is_even(&by_url[seat.role]) && is_even(&by_agent[seat.role]), "{what}");
                        }
                        let sum = |by: &[Vec<usize>], place: usize| by.iter().map(|counts| counts[place]).sum();
                        assert!(is_even(&(0..urls).map(|url| sum(&by_url, url)).collect::<Vec<_>>()), "{what}");
                        assert!(is_even(&(0..agents).map(|agent| sum(&by_agent, agent)).collect::<Vec<_>>()), "{what}");
                    }
                }
            }
        }
    }
}
