//! How much a component may log: so much over time, however many instances it has and however many
//! records it is called for.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The most messages, and the most bytes, that a component may log at once.
const BURST: f64 = 100.0;
const BURST_BYTES: f64 = 64.0 * 1024.0;

/// In this time it may log as much again.
const REFILL: Duration = Duration::from_secs(10);

/// What one component may still log. A std lock: held to count.
#[derive(Debug, Default)]
pub(super) struct GuestMessages(Mutex<Option<Bucket>>);

#[derive(Debug)]
struct Bucket {
    messages: f64,
    bytes: f64,
    filled: Instant,
    dropped: u64,
}

/// What is to be done with a message.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Admission {
    /// It is logged; so many before it were dropped.
    Admitted {
        /// How many.
        dropped: u64,
    },
    /// It is not logged.
    Dropped,
}

impl GuestMessages {
    /// Whether a message of this many bytes may be logged now.
    pub(super) fn admit(&self, now: Instant, bytes: usize) -> Admission {
        let mut bucket = self.0.lock().unwrap_or_else(PoisonError::into_inner);
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
        // One that is longer than what is left is logged, and others wait for it.
        bucket.bytes -= bytes as f64;
        Admission::Admitted { dropped: std::mem::take(&mut bucket.dropped) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_component_that_logs_all_the_time_is_heard_now_and_then() {
        let (messages, start) = (GuestMessages::default(), Instant::now());
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
    fn what_was_dropped_is_counted_and_bytes_count_too() {
        let (messages, start) = (GuestMessages::default(), Instant::now());
        assert_eq!(messages.admit(start, 1 << 20), Admission::Admitted { dropped: 0 });
        assert_eq!(messages.admit(start, 1), Admission::Dropped);
        assert_eq!(messages.admit(start + REFILL, 1), Admission::Dropped);
        let later = start + REFILL * 40;
        assert_eq!(messages.admit(later, 1), Admission::Admitted { dropped: 2 });
    }
}
