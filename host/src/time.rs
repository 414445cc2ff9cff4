//! Points in time by two clocks.

use std::time::{Instant, SystemTime};

/// A point in time by two clocks: a monotonic one for measuring, and that of the system for people.
pub(crate) type TimePoint = (Instant, SystemTime);

/// Returns the current time.
pub(crate) fn now() -> TimePoint {
    (Instant::now(), SystemTime::now())
}

/// Returns a past time of the monotonic clock by both clocks.
pub(crate) fn past(instant: Instant) -> TimePoint {
    let (now, time) = now();
    (instant, time - now.saturating_duration_since(instant))
}
