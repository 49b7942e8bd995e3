//! [`Durations`]: how long something took, many times, in classes that double.

use std::fmt;
use std::time::Duration;

/// How often something took how long, in microseconds, by powers of two.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Durations([u64; Self::CLASSES]);

impl Durations {
    /// The last has everything above half an hour.
    const CLASSES: usize = 32;

    /// Adds one.
    pub fn add(&mut self, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX).max(1);
        self.0[(micros.ilog2() as usize).min(Self::CLASSES - 1)] += 1;
    }

    /// Adds all of another.
    pub fn add_all(&mut self, other: &Self) {
        self.0.iter_mut().zip(other.0).for_each(|(one, other)| *one += other);
    }

    /// How many there are.
    pub fn count(&self) -> u64 {
        self.0.iter().sum()
    }

    /// The classes from the first to the last that has any: the time from which on it counts,
    /// which is half of the next one's, and how many it has.
    pub fn classes(&self) -> Vec<(Duration, u64)> {
        let first = self.0.iter().position(|count| *count > 0).unwrap_or(0);
        let end = self.0.iter().rposition(|count| *count > 0).map_or(0, |last| last + 1);
        let class = |at: usize| (Duration::from_micros(1 << at), self.0[at]);
        (first..end).map(class).collect()
    }

    /// The least time that at least this share of them, from 0 to 1, stayed below; twice the
    /// true one at the most.
    pub fn below(&self, share: f64) -> Option<Duration> {
        let wanted = (self.count() as f64 * share).ceil();
        let mut seen = 0;
        let class = self.0.iter().position(|count| {
            seen += count;
            seen > 0 && seen as f64 >= wanted
        })?;
        Some(Duration::from_micros(2 << class))
    }
}

impl fmt::Display for Durations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.below(0.5), self.below(0.99), self.below(1.0)) {
            (Some(half), Some(most), Some(all)) => {
                write!(f, "half below {half:?}, 99 % below {most:?}, all below {all:?}")
            }
            _ => f.write_str("none"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_by_powers_of_two() {
        let mut durations = Durations::default();
        assert_eq!((durations.below(0.5), durations.to_string()), (None, "none".into()));
        for micros in [0, 1, 3, 3, 900, 1100] {
            durations.add(Duration::from_micros(micros));
        }
        let micros = |n| Duration::from_micros(n);
        assert_eq!(durations.count(), 6);
        assert_eq!(durations.classes()[..2], [(micros(1), 2), (micros(2), 2)]);
        assert_eq!(durations.classes().last(), Some(&(micros(1024), 1)));
        assert_eq!(durations.below(0.5), Some(micros(4)));
        assert_eq!(durations.below(1.0), Some(micros(2048)));
        let mut twice = durations;
        twice.add_all(&durations);
        assert_eq!((twice.count(), twice.below(0.5)), (12, Some(micros(4))));
        durations.add(Duration::MAX);
        assert_eq!(durations.classes().len(), 32, "what is too long is in the last class");
    }
}
