//! The rate limit for the log messages of a component, whatever the number of its instances and
//! records.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::sync::lock;

/// How many messages, and how many bytes, a component may log at once.
const BURST: f64 = 100.0;
const BURST_BYTES: f64 = 64.0 * 1024.0;

/// The time after which it may log as much again.
const REFILL: Duration = Duration::from_secs(10);

/// The rate limit of one component. A std lock: held to count.
#[derive(Debug, Default)]
pub(super) struct GuestLog(Mutex<Option<Bucket>>);

#[derive(Debug)]
struct Bucket {
    messages: f64,
    bytes: f64,
    filled: Instant,
    dropped: u64,
}

/// Whether a message is logged.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Admission {
    /// It is logged.
    Admitted {
        /// How many messages before it were dropped.
        dropped: u64,
    },
    /// It is not logged.
    Dropped,
}

impl GuestLog {
    /// Whether a message of this many bytes may be logged now.
    pub(super) fn admit(&self, now: Instant, bytes: usize) -> Admission {
        let mut bucket = lock(&self.0);
        let bucket =
            bucket.get_or_insert(Bucket { messages: BURST, bytes: BURST_BYTES, filled: now, dropped: 0 });
        let part = now.saturating_duration_since(bucket.filled).as_secs_f64() / REFILL.as_secs_f64();
        bucket.messages = (bucket.messages + part * BURST).min(BURST);
        bucket.bytes = (bucket.bytes + part * BURST_BYTES).min(BURST_BYTES);
        bucket.filled = now;
        if bucket.messages < 1.0 || bucket.bytes <= 0.0 {
            bucket.dropped += 1;
            return Admission::Dropped;
        }
        bucket.messages -= 1.0;
        // A message that is longer than what is left is logged, and later ones wait longer.
        bucket.bytes -= bytes as f64;
        Admission::Admitted { dropped: std::mem::take(&mut bucket.dropped) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_component_that_logs_all_the_time_is_limited() {
        let (messages, start) = (GuestLog::default(), Instant::now());
        let mut admitted = 0;
        for millis in 0..60_000 {
            let now = start + Duration::from_millis(millis);
            for _ in 0..10 {
                admitted += usize::from(messages.admit(now, 20) != Admission::Dropped);
            }
        }
        assert!((600..=710).contains(&admitted), "{admitted}");
    }

    #[test]
    fn dropped_messages_are_counted_and_bytes_are_limited() {
        let (messages, start) = (GuestLog::default(), Instant::now());
        assert_eq!(messages.admit(start, 1 << 20), Admission::Admitted { dropped: 0 });
        assert_eq!(messages.admit(start, 1), Admission::Dropped);
        assert_eq!(messages.admit(start + REFILL, 1), Admission::Dropped);
        let later = start + REFILL * 40;
        assert_eq!(messages.admit(later, 1), Admission::Admitted { dropped: 2 });
    }
}
