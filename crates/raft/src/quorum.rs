//! Majorities, for any number of voters.

/// How many of `voters` make a quorum: more than half.
pub(crate) fn majority(voters: usize) -> usize {
    voters / 2 + 1
}

/// The highest value that a majority has reached, given what each voter has reached; `None` without voters, since
/// nobody can agree to anything. Reorders `reached`.
pub(crate) fn agreed<T: Ord + Copy>(reached: &mut [T]) -> Option<T> {
    if reached.is_empty() {
        return None;
    }
    reached.sort_unstable_by(|a, b| b.cmp(a));
    Some(reached[majority(reached.len()) - 1])
}

/// How an election stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tally {
    Won,
    Lost,
    Open,
}

/// Counts an election among `voters` of whom some have answered.
pub(crate) fn tally(voters: usize, granted: usize, refused: usize) -> Tally {
    assert!(granted + refused <= voters, "{granted} for and {refused} against are more than {voters}");
    if voters > 0 && granted >= majority(voters) {
        Tally::Won
    } else if voters > 0 && voters - refused >= majority(voters) {
        Tally::Open
    } else {
        Tally::Lost
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 4 of 7 go on, 3 of 6 stop.
    #[test]
    fn majority_is_half_rounded_down_and_one() {
        let table = [(1, 1), (2, 2), (3, 2), (4, 3), (5, 3), (6, 4), (7, 4)];
        for (voters, expected) in table {
            assert_eq!(majority(voters), expected, "{voters} voters");
            // The least number of which any two groups share a voter.
            let shared = (1..=voters).find(|group| 2 * group > voters).unwrap();
            assert_eq!(majority(voters), shared, "{voters} voters");
        }
    }

    /// All assignments of 0..=2 to up to seven voters, counted a second way: the highest value such that the voters at
    /// or above it outnumber the others.
    #[test]
    fn agreed_equals_slow_count() {
        assert_eq!(agreed::<u64>(&mut []), None);
        for voters in 1..=7_u32 {
            for case in 0..3_u64.pow(voters) {
                let reached: Vec<u64> = (0..voters).map(|voter| case / 3_u64.pow(voter) % 3).collect();
                let has_quorum = |value: u64| {
                    let with = reached.iter().filter(|at| **at >= value).count();
                    with > reached.len() - with
                };
                let slow = (0..=2).rev().find(|value| has_quorum(*value));
                assert_eq!(agreed(&mut reached.clone()), slow, "{reached:?}");
            }
        }
    }

    #[test]
    fn tally_is_open_until_one_side_cannot_be_stopped() {
        assert_eq!(tally(0, 0, 0), Tally::Lost);
        for voters in 1..=7 {
            for granted in 0..=voters {
                for refused in 0..=voters - granted {
                    let rest = voters - granted - refused;
                    let expected = match (2 * granted > voters, 2 * (granted + rest) > voters) {
                        (true, _) => Tally::Won,
                        (false, true) => Tally::Open,
                        (false, false) => Tally::Lost,
                    };
                    assert_eq!(tally(voters, granted, refused), expected, "{voters} {granted} {refused}");
                }
            }
        }
    }
}
