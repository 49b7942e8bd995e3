//! Makes a list of draws simpler while it still fails: shorter first, then smaller.
//!
//! The method is that of Hypothesis (MacIver and Donaldson, "Test-Case Reduction via Test-Case
//! Generation", ECOOP 2020): not what was made from the draws is made simpler, but the draws.

/// The simplest draws found for which `fails`, starting from `draws`, for which it does too.
/// `fails` returns the draws that the program really made, or `None` if nothing fails. Stops
/// after `tries` calls.
pub(crate) fn shrink(
    mut draws: Vec<u64>,
    tries: u32,
    mut fails: impl FnMut(&[u64]) -> Option<Vec<u64>>,
) -> Vec<u64> {
    let mut left = tries;
    let mut attempt = |best: &mut Vec<u64>, candidate: &[u64]| {
        if left == 0 || !simpler(candidate, best) {
            return false;
        }
        left -= 1;
        match fails(candidate) {
            // What it really drew may be longer than what it was offered.
            Some(drawn) if simpler(&drawn, best) => {
                *best = drawn;
                true
            }
            Some(_) => {
                *best = candidate.to_vec();
                true
            }
            None => false,
        }
    };
    loop {
        let before = draws.clone();
        for chunk in [32, 16, 8, 4, 3, 2, 1] {
            let mut at = draws.len().saturating_sub(chunk);
            loop {
                let end = (at + chunk).min(draws.len());
                if at < end {
                    let candidate = [&draws[..at], &draws[end..]].concat();
                    if !attempt(&mut draws, &candidate) {
                        // A count in front of them may have to go down with them.
                        let counts = (0..at).rev().filter(|count| draws[*count] > 0).take(4);
                        for count in counts.collect::<Vec<_>>() {
                            let mut candidate = candidate.clone();
                            candidate[count] -= 1;
                            if attempt(&mut draws, &candidate) {
                                break;
                            }
                        }
                    }
                }
                if at == 0 {
                    break;
                }
                at -= 1;
                at = at.min(draws.len());
            }
        }
        for at in 0..draws.len() {
            while let Some(value) = draws.get(at).copied().filter(|value| *value > 0) {
                let smaller = [0, value / 2, value - 1];
                let took = smaller.into_iter().any(|smaller| {
                    let mut candidate = draws.clone();
                    candidate[at] = smaller;
                    attempt(&mut draws, &candidate)
                });
                if !took {
                    break;
                }
            }
        }
        if draws == before {
            return draws;
        }
    }
}

/// Zeros at the end are what is drawn anyway.
pub(crate) fn trim(draws: &mut Vec<u64>) {
    while draws.last() == Some(&0) {
        draws.pop();
    }
}

/// Shorter, or as long and smaller at the first difference.
fn simpler(one: &[u64], other: &[u64]) -> bool {
    (one.len(), one) < (other.len(), other)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A program that draws a count and then so many numbers, and fails if two of them are
    /// above 10.
    fn counted(draws: &[u64]) -> Option<Vec<u64>> {
        let mut at = 0;
        let mut made = Vec::new();
        let mut draw = || {
            let drawn = draws.get(at).copied().unwrap_or(0);
            at += 1;
            made.push(drawn);
            drawn
        };
        let count = draw();
        let high = (0..count).filter(|_| draw() > 10).count();
        trim(&mut made);
        (high >= 2).then_some(made)
    }

    #[test]
    fn finds_the_smallest_of_a_program_that_counts() {
        let start = vec![6, 3, 50, 7, 1000, 0, 11];
        assert!(counted(&start).is_some());
        assert_eq!(shrink(start, 10_000, counted), [2, 11, 11]);
    }

    #[test]
    fn stops_when_it_has_tried_enough() {
        let mut tried = 0;
        let start = vec![6, 3, 50, 7, 1000, 0, 11];
        let found = shrink(start, 5, |draws| {
            tried += 1;
            counted(draws)
        });
        assert_eq!(tried, 5);
        assert!(counted(&found).is_some(), "what it returns fails");
    }
}
