//! The rate limit for the log messages of a component, which all its instances share.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::sync::lock;

/// How many messages a component may log in a burst.
const BURST_MESSAGES: f64 = 100.0;

/// How many bytes a component may log in a burst.
const BURST_BYTES: f64 = 64.0 * 1024.0;

/// How long it takes until the component may log a full burst again.
const REFILL: Duration = Duration::from_secs(10);

/// The rate limit of one component. A std lock: held to count.
#[derive(Debug, Default)]
pub(super) struct LogLimiter(Mutex<Option<Bucket>>);

/// A token bucket: how much the component may log now.
#[derive(Debug)]
struct Bucket {
    messages: f64,
    bytes: f64,
    refilled_at: Instant,
    /// How many messages were dropped since the last one that was logged.
    dropped: u64,
}

/// The decision whether a message is logged.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Admission {
    /// The message is logged.
    Admitted {
        /// How many messages were dropped since the last one that was logged.
        dropped: u64,
    },
    /// The message is not logged.
    Dropped,
}

impl LogLimiter {
    /// Decides whether a message of this many bytes is logged, and counts it.
    pub(super) fn admit(&self, now: Instant, bytes: usize) -> Admission {
        let mut bucket = lock(&self.0);
        let full = Bucket { messages: BURST_MESSAGES, bytes: BURST_BYTES, refilled_at: now, dropped: 0 };
        let bucket = bucket.get_or_insert(full);
        let part = now.saturating_duration_since(bucket.refilled_at).as_secs_f64() / REFILL.as_secs_f64();
        bucket.messages = (bucket.messages + part * BURST_MESSAGES).min(BURST_MESSAGES);
        bucket.bytes = (bucket.bytes + part * BURST_BYTES).min(BURST_BYTES);
        bucket.refilled_at = now;
        if bucket.messages < 1.0 || bucket.bytes <= 0.0 {
            bucket.dropped += 1;
            return Admission::Dropped;
        }
        bucket.messages -= 1.0;
        // A message with more bytes than are left is logged, and the next refill takes longer.
        bucket.bytes -= bytes as f64;
        Admission::Admitted { dropped: std::mem::take(&mut bucket.dropped) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_component_that_logs_constantly_is_limited() {
        let (limiter, start) = (LogLimiter::default(), Instant::now());
        let mut admitted = 0;
        for millis in 0..60_000 {
            let now = start + Duration::from_millis(millis);
            for _ in 0..10 {
                admitted += usize::from(limiter.admit(now, 20) != Admission::Dropped);
            }
        }
        assert!((600..=710).contains(&admitted), "{admitted}");
    }

    #[test]
    fn dropped_messages_are_counted_and_bytes_are_limited() {
        let (limiter, start) = (LogLimiter::default(), Instant::now());
        assert_eq!(limiter.admit(start, 1 << 20), Admission::Admitted { dropped: 0 });
        assert_eq!(limiter.admit(start, 1), Admission::Dropped);
        assert_eq!(limiter.admit(start + REFILL, 1), Admission::Dropped);
        let later = start + REFILL * 40;
        assert_eq!(limiter.admit(later, 1), Admission::Admitted { dropped: 2 });
    }
}
