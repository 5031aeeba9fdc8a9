//! How many connections there are at what time, and how much they do.

use std::time::Duration;

use ringwire::quote::quoted;

use crate::net::Nanos;

/// Straight lines from one point to the next: each stage ends at its own.
#[derive(Clone, Debug, Default, PartialEq)]
struct Curve(Vec<(f64, f64)>);

/// See the module.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Stages {
    connections: Curve,
    /// Rounds a second, of all users; without it each begins the next when the last is over.
    rate: Option<Curve>,
    end: Nanos,
}

/// One of them, as it is written down.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Stage {
    pub(crate) lasts: Nanos,
    /// At its end.
    pub(crate) connections: usize,
    /// At its end.
    pub(crate) rate: Option<f64>,
}

/// Reads a time: a number of seconds, or with a unit.
pub(crate) fn nanos(text: &str) -> Result<Nanos, String> {
    let text = text.trim();
    let time = match text.parse::<f64>() {
        Ok(seconds) => Duration::try_from_secs_f64(seconds).ok(),
        Err(_) => humantime::parse_duration(text).ok(),
    };
    let time = time.filter(|time| *time < Duration::from_secs(1_000_000));
    time.map(|time| time.as_nanos() as Nanos).ok_or_else(|| {
        format!("{} is not a time: a number of seconds, or with a unit, as 5, 5s, 500ms, 2m", quoted(text))
    })
}

impl Curve {
    fn at(&self, time: f64) -> f64 {
        let next = self.0.partition_point(|point| point.0 <= time);
        let (from, to) = (self.0[next.saturating_sub(1)], self.0[next.min(self.0.len() - 1)]);
        if to.0 <= from.0 { from.1 } else { from.1 + (to.1 - from.1) * (time - from.0) / (to.0 - from.0) }
    }

    /// When the area under the curve, in seconds times its unit, reaches `area`; never, if it does not.
    fn reaches(&self, area: f64) -> Option<f64> {
        let mut left = area;
        for pair in self.0.windows(2) {
            let ((from, low), (to, high)) = (pair[0], pair[1]);
            let seconds = (to - from) / 1e9;
            let here = (low + high) / 2.0 * seconds;
            if here >= left && here > 0.0 {
                let slope = (high - low) / seconds;
                let x = if slope.abs() < 1e-9 {
                    left / low
                } else {
                    ((low * low + 2.0 * slope * left).max(0.0).sqrt() - low) / slope
                };
                return Some(from + x * 1e9);
            }
            left -= here;
        }
        None
    }
}

impl Stages {
    /// So many connections for so long.
    pub(crate) fn constant(connections: usize, lasts: Nanos) -> Stages {
        let stage = |lasts| Stage { lasts, connections, rate: None };
        Stages::new(&[stage(0), stage(lasts)])
    }

    /// One behind the other; what is before the first is nothing.
    pub(crate) fn new(stages: &[Stage]) -> Stages {
        let (mut connections, mut rates) = (vec![(0.0, 0.0)], vec![(0.0, 0.0)]);
        let mut end = 0;
        let mut rate = 0.0;
        for stage in stages {
            end += stage.lasts;
            connections.push((end as f64, stage.connections as f64));
            rate = stage.rate.unwrap_or(rate);
            rates.push((end as f64, rate));
        }
        let has_rate = stages.iter().any(|stage| stage.rate.is_some());
        Stages { connections: Curve(connections), rate: has_rate.then_some(Curve(rates)), end }
    }

    /// Reads `10s:1000,30s:10000`: within 10 seconds to 1,000 connections, then within 30 to 10,000; `10s:1000@200`: and to
    /// 200 rounds a second.
    pub(crate) fn parse(text: &str) -> Result<Stages, String> {
        let mut stages = Vec::new();
        for part in text.split(',') {
            let wrong = || format!("{} is not TIME:CONNECTIONS or TIME:CONNECTIONS@RATE", quoted(part));
            let (time, rest) = part.split_once(':').ok_or_else(wrong)?;
            let (connections, rate) = match rest.split_once('@') {
                Some((connections, rate)) => (connections, Some(rate)),
                None => (rest, None),
            };
            let connections = connections.trim().parse().ok().filter(|count| *count <= 10_000_000).ok_or_else(wrong)?;
            let rate = match rate.map(|rate| rate.trim().parse::<f64>()) {
                None => None,
                Some(Ok(rate)) if rate >= 0.0 && rate.is_finite() => Some(rate),
                Some(_) => return Err(wrong()),
            };
            stages.push(Stage { lasts: nanos(time)?, connections, rate });
        }
        let stages = Stages::new(&stages);
        if stages.end == 0 || stages.most() == 0 {
            return Err("the stages must last some time and have some connections".to_owned());
        }
        Ok(stages)
    }

    /// How many connections there should be so long after the beginning.
    pub(crate) fn connections(&self, at: Nanos) -> usize {
        self.connections.at(at as f64).round() as usize
    }

    /// The most that there ever are.
    pub(crate) fn most(&self) -> usize {
        self.connections.0.iter().map(|point| point.1 as usize).max().unwrap_or_default()
    }

    /// When the number of connections changes at the latest, from now on.
    pub(crate) fn changes(&self, at: Nanos) -> Option<Nanos> {
        let slope = self.connections.at((at + 1_000_000) as f64) - self.connections.at(at as f64);
        // A step of one connection, in milliseconds; or the next corner.
        let step = (1.0 / slope.abs().max(1e-9)).clamp(1.0, 10.0) as Nanos * 1_000_000;
        (at < self.end).then_some(at + step)
    }

    /// When round number `number` of all is due; `None`: not before the end.
    pub(crate) fn due(&self, number: u64) -> Option<Nanos> {
        self.rate.as_ref()?.reaches(number as f64 + 1.0).map(|at| at as Nanos)
    }

    /// Whether rounds are due at a rate.
    pub(crate) fn has_rate(&self) -> bool {
        self.rate.is_some()
    }

    /// When they are over.
    pub(crate) fn end(&self) -> Nanos {
        self.end
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: Nanos = 1_000_000_000;

    #[test]
    fn connections_go_in_straight_lines() {
        let stages = Stages::parse("10s:1000,30s:10000,1m:10000,5s:0").expect("stages");
        let rows =
            [(0, 0), (5, 500), (10, 1000), (25, 5500), (40, 10_000), (99, 10_000), (100, 10_000), (105, 0), (999, 0)];
        for (at, count) in rows {
            assert_eq!(stages.connections(at * S), count, "after {at} s");
        }
        assert_eq!((stages.most(), stages.end(), stages.has_rate()), (10_000, 105 * S, false));
        let jump = Stages::parse("0s:50,2:50").expect("stages");
        assert_eq!([0, 1, 2].map(|at| jump.connections(at * S)), [50, 50, 50]);
        assert_eq!(Stages::constant(7, S).connections(S / 2), 7);
    }

    #[test]
    fn rounds_are_due_as_the_rate_says() {
        let stages = Stages::parse("0s:5@100,10s:5@100").expect("stages");
        for number in [0, 1, 99, 500] {
            let at = stages.due(number).expect("due");
            assert!(at.abs_diff((number + 1) * S / 100) < 1000, "{number}: {at}");
        }
        assert_eq!(stages.due(1000), None);
        // From nothing to 100 a second in 10 seconds: 500 in all, half of the time for a quarter of them.
        let ramp = Stages::parse("10s:5@100").expect("stages");
        assert!(ramp.due(124).expect("due").abs_diff(5 * S) < S / 100);
        assert!(ramp.due(499).expect("due").abs_diff(10 * S) < S / 100);
        assert_eq!(ramp.due(501), None);
        let mut last = 0;
        for number in 0..499 {
            let at = ramp.due(number).expect("due");
            assert!(at >= last, "{number}");
            last = at;
        }
    }

    #[test]
    fn wrong_stages_say_what_is_wrong() {
        for wrong in ["", "10s", "10s:x", "x:10", "10s:10@x", "10s:10@-1", "0s:10", "10s:0"] {
            assert!(Stages::parse(wrong).is_err(), "{wrong}");
        }
    }
}
