//! How long the work of a table takes: counts by duration, for metrics.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// The upper bounds of the counted durations.
const BOUNDS: [Duration; 14] = [
    Duration::from_micros(100),
    Duration::from_micros(250),
    Duration::from_micros(500),
    Duration::from_millis(1),
    Duration::from_micros(2_500),
    Duration::from_millis(5),
    Duration::from_millis(10),
    Duration::from_millis(25),
    Duration::from_millis(50),
    Duration::from_millis(100),
    Duration::from_millis(250),
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_secs(5),
];

/// How often something took how long, since the table was started.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Latency {
    /// Upper bounds, ascending, with how often it took at most that long and longer than the bound before. The last bound
    /// is [`Duration::MAX`].
    pub counts: Vec<(Duration, u64)>,
    /// How long it took in total.
    pub total: Duration,
}

/// How long the work of a table took since it was started.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Latencies {
    /// From the delivery of a batch by the log until its records are visible. Batches count, not records, and only of
    /// the generation that is served: loading does not count.
    pub apply: Latency,
    /// Barriers that found the table fresh.
    pub barrier: Latency,
}

/// Counts durations.
#[derive(Debug, Default)]
pub(in crate::table) struct LatencyCounter {
    counts: [AtomicU64; BOUNDS.len() + 1],
    nanos: AtomicU64,
}

impl LatencyCounter {
    pub(in crate::table) fn add(&self, took: Duration) {
        let index = BOUNDS.partition_point(|bound| *bound < took);
        self.counts[index].fetch_add(1, Ordering::Relaxed);
        self.nanos.fetch_add(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    pub(in crate::table) fn latency(&self) -> Latency {
        let bounds = BOUNDS.into_iter().chain([Duration::MAX]);
        let counts = bounds.zip(&self.counts).map(|(bound, count)| (bound, count.load(Ordering::Relaxed)));
        Latency { counts: counts.collect(), total: Duration::from_nanos(self.nanos.load(Ordering::Relaxed)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_counts_below_its_bound() {
        let counter = LatencyCounter::default();
        for micros in [0, 100, 101, 1_000_000, 5_000_001] {
            counter.add(Duration::from_micros(micros));
        }
        let Latency { counts, total } = counter.latency();
        let counted: Vec<_> = counts.into_iter().filter(|(_, count)| *count > 0).collect();
        let expected = [
            (Duration::from_micros(100), 2),
            (Duration::from_micros(250), 1),
            (Duration::from_secs(1), 1),
            (Duration::MAX, 1),
        ];
        assert_eq!(counted, expected);
        assert_eq!(total, Duration::from_micros(6_000_202));
    }
}
