//! Which of several roles a user has.

/// Roles take turns as their weights say: of as many users in a row as the weights add up to, each has exactly its part, and
/// of fewer about that.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Turns {
    weights: Box<[u32]>,
    total: u64,
    step: u64,
}

impl Turns {
    pub(super) fn new(weights: impl IntoIterator<Item = u32>) -> Turns {
        let weights: Box<[u32]> = weights.into_iter().collect();
        let total = weights.iter().map(|weight| u64::from(*weight)).sum::<u64>().max(1);
        // By the golden section, which mixes best; what divides the total, too, would leave places out.
        let golden = (total as f64 * 0.618_033_988_749_895) as u64;
        let step = (golden.max(1)..).find(|step| gcd(*step, total) == 1).unwrap_or(1);
        Turns { weights, total, step }
    }

    /// How many there are.
    pub(super) fn roles(&self) -> usize {
        self.weights.len()
    }

    /// How many of the first `users` have this role.
    pub(super) fn count(&self, role: usize, users: usize) -> usize {
        let from: u64 = self.weights[..role].iter().map(|weight| u64::from(*weight)).sum();
        let to = from + u64::from(self.weights[role]);
        // A place of at least `from` is one more that the quotient is larger by where so much is added.
        let sum =
            |place: u64| floor_sum(users as u128, self.total.into(), self.step.into(), (self.total - place).into());
        (sum(from) - sum(to)) as usize
    }

    /// The role of this user.
    pub(super) fn role_of(&self, user: usize) -> usize {
        let place = (user as u64 % self.total) as u128 * u128::from(self.step) % u128::from(self.total);
        let mut left = place as u64;
        for (role, weight) in self.weights.iter().enumerate() {
            if left < u64::from(*weight) {
                return role;
            }
            left -= u64::from(*weight);
        }
        unreachable!("a place is less than the total")
    }
}

/// The sum of the quotients (a i + b) / m, without their fractions, over i from 0 to n - 1: as Euclid's algorithm goes, in as many
/// steps.
fn floor_sum(mut n: u128, mut m: u128, mut a: u128, mut b: u128) -> u128 {
    let mut sum = 0;
    while n > 0 {
        sum += n * (n - 1) / 2 * (a / m) + n * (b / m);
        (a, b) = (a % m, b % m);
        let end = a * n + b;
        if a == 0 {
            break;
        }
        (n, b) = (end / m, end % m);
        (m, a) = (a, m);
    }
    sum
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(weights: &[u32], users: std::ops::Range<usize>) -> Vec<usize> {
        let turns = Turns::new(weights.iter().copied());
        let mut counts = vec![0; weights.len()];
        users.for_each(|user| counts[turns.role_of(user)] += 1);
        counts
    }

    /// Kills: roles that some users too many have, and others nobody; such as come in blocks.
    #[test]
    fn each_has_its_part_of_every_users_in_a_row() {
        for weights in [&[1][..], &[1, 1], &[1, 1, 1], &[1; 7], &[1; 64], &[9, 1], &[1, 3], &[5, 2, 3], &[90, 7, 3]] {
            let total = weights.iter().sum::<u32>() as usize;
            for first in [0, 1, 1000 * total + 1, usize::MAX / total / 2 * total] {
                let due: Vec<usize> = weights.iter().map(|weight| *weight as usize).collect();
                assert_eq!(counts(weights, first..first + total), due, "{weights:?} from {first}");
            }
        }
        // Users of a role are numbered one by one.
        for weights in [&[1][..], &[1, 1], &[2, 4], &[5, 2, 3], &[1; 64], &[999_983, 1_000_000]] {
            let turns = Turns::new(weights.iter().copied());
            let mut next = vec![0; weights.len()];
            for user in 0..500 {
                let role = turns.role_of(user);
                assert_eq!(turns.count(role, user), next[role], "{weights:?}, user {user}");
                next[role] += 1;
            }
        }
        for users in [40, 400, 4000] {
            let second = counts(&[250_000, 750_000], 0..users)[1] as f64 / users as f64;
            assert!((0.7..0.8).contains(&second), "{second} of {users}");
        }
        assert_eq!(counts(&[50, 50], 0..2), [1, 1]);
        assert_eq!(counts(&[90, 10], 0..20).iter().filter(|count| **count > 0).count(), 2);
    }
}
