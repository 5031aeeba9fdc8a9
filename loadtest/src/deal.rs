//! How what a run has is dealt out to its URLs: each kind by itself, evenly, and all kinds together.
//!
//! Agents are given everything in turn. URLs that were given it in step with them would leave each agent one URL alone, so whenever
//! both have come to their end together, the URLs begin one later. A kind's own turns begin where those of the kind before have
//! ended.

/// See the module.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Deal {
    urls: usize,
    agents: usize,
}

impl Deal {
    pub(crate) fn new(urls: usize, agents: usize) -> Deal {
        Deal { urls: urls.max(1), agents: agents.max(1) }
    }

    /// URLs and agents come to their end together after so many.
    fn cycle(self) -> usize {
        self.agents / gcd(self.urls, self.agents) * self.urls
    }

    /// The URL whose turn it is.
    pub(crate) fn url(self, turn: usize) -> usize {
        (turn + turn / self.cycle()) % self.urls
    }

    /// The first turn of each kind, of which there are so many.
    pub(crate) fn firsts(self, counts: impl IntoIterator<Item = usize>) -> Vec<usize> {
        let mut url = 0;
        let mut first = |count: usize| {
            // The last cycle, which is not whole, is to begin at this URL; each before it has begun one earlier.
            let shift = (url + self.urls - count / self.cycle() % self.urls) % self.urls;
            url = (url + count) % self.urls;
            shift * self.cycle()
        };
        counts.into_iter().map(&mut first).collect()
    }
}

fn gcd(a: usize, b: usize) -> usize {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_even(counts: &[usize]) -> bool {
        counts.iter().max().zip(counts.iter().min()).is_some_and(|(most, least)| most - least <= 1)
    }

    /// Kills: a kind that goes to one URL alone, an agent that does; several kinds that all begin with the first URL.
    #[test]
    fn each_kind_and_each_agent_goes_to_all_urls() {
        for urls in 1..=4 {
            for agents in 1..=4 {
                let deal = Deal::new(urls, agents);
                for counts in [&[1][..], &[1, 1, 1, 1], &[5, 7], &[40, 3, 11], &[100], &[96, 96], &[25, 75, 1]] {
                    let firsts = deal.firsts(counts.iter().copied());
                    let mut all = vec![0; urls];
                    let mut before = 0;
                    for (&count, first) in counts.iter().zip(firsts) {
                        let mut each = vec![0; urls];
                        let mut of_agent = vec![vec![0; urls]; agents];
                        for turn in 0..count {
                            let url = deal.url(first + turn);
                            each[url] += 1;
                            all[url] += 1;
                            of_agent[(before + turn) % agents][url] += 1;
                            assert!(
                                is_even(&each),
                                "{count} of {counts:?} to {urls} URLs by {agents} agents: {each:?}"
                            );
                        }
                        before += count;
                        if count >= deal.cycle() * urls {
                            assert!(of_agent.iter().flatten().all(|count| *count > 0), "{counts:?}: {of_agent:?}");
                        }
                    }
                    assert!(is_even(&all), "{counts:?} to {urls} URLs by {agents} agents: {all:?}");
                }
            }
        }
    }
}
