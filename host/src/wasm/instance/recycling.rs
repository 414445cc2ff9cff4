//! When an instance is replaced by a new one, between two calls: a runtime may grow with each call, or keep something that
//! changes its answers.

use std::time::{Duration, Instant};

use crate::wasm::limits::Limits;

/// How much of the memory that its limit leaves it an instance may use. The rest is for a single call.
const MEMORY: f64 = 0.6;

/// By how much the marks of an instance are lowered at most, so that not all instances are replaced at once.
const JITTER: f64 = 0.2;

/// What an instance may reach before it is replaced.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct RecyclingMarks {
    memory: usize,
    calls: u64,
    age: Duration,
    started: Instant,
}

impl RecyclingMarks {
    /// Chooses the marks of an instance that has started now, and uses this memory.
    pub(super) fn choose(limits: &Limits, used: usize, now: Instant) -> Self {
        let lower = |mark: f64| mark * (1.0 - rand::random_range(0.0..JITTER));
        let spare = limits.memory.saturating_sub(used) as f64;
        Self {
            memory: used.saturating_add(lower(spare * MEMORY) as usize),
            calls: (lower(limits.recycle_calls as f64) as u64).max(1),
            age: limits.recycle_age.mul_f64(lower(1.0)),
            started: now,
        }
    }

    /// Returns whether an instance that uses this memory, after this many calls, must be replaced.
    pub(super) fn are_reached(&self, used: usize, calls: u64, now: Instant) -> bool {
        used > self.memory || calls >= self.calls || now.saturating_duration_since(self.started) >= self.age
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_calls_and_age_have_marks_that_differ() {
        let (now, limits) = (Instant::now(), Limits::default());
        let marks: Vec<_> = (0..20).map(|_| RecyclingMarks::choose(&limits, 1 << 20, now)).collect();
        assert!(marks.iter().any(|other| *other != marks[0]));
        let part = |mark: f64, limit: f64| (limit * (1.0 - JITTER)..=limit).contains(&mark);
        for marks in marks {
            assert!(part(
                (marks.memory - (1 << 20)) as f64 + 1.0,
                (limits.memory - (1 << 20)) as f64 * MEMORY
            ));
            assert!(!marks.are_reached(marks.memory, marks.calls - 1, now));
            assert!(marks.are_reached(marks.memory + 1, 0, now));
            assert!(marks.calls <= limits.recycle_calls && marks.are_reached(0, marks.calls, now));
            assert!(marks.age <= limits.recycle_age && marks.are_reached(0, 0, now + marks.age));
        }
    }
}
