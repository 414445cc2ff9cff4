//! Locks and condition variables that ignore poisoning.
//!
//! Data behind a lock of this crate is valid between any two statements. So when a thread panics while it
//! holds a lock, the caller that waits for the thread's result reports the panic, and all other threads
//! continue.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// A count that only grows, and that threads wait for.
#[derive(Debug, Default)]
pub(crate) struct Counter {
    state: Mutex<CounterState>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct CounterState {
    count: u64,
    /// Whether it no longer grows.
    is_closed: bool,
}

impl Counter {
    /// Adds to the count.
    pub(crate) fn add(&self, count: u64) {
        lock(&self.state).count += count;
        self.changed.notify_all();
    }

    /// Ends all waiting: the count no longer grows.
    pub(crate) fn close(&self) {
        lock(&self.state).is_closed = true;
        self.changed.notify_all();
    }

    /// Whether the count no longer grows.
    pub(crate) fn is_closed(&self) -> bool {
        lock(&self.state).is_closed
    }

    /// Blocks until the count has reached a number, for `timeout` at most. Returns whether it has.
    pub(crate) fn wait_until(&self, number: u64, timeout: Duration) -> bool {
        let deadline = Instant::now() + timeout;
        let mut state = lock(&self.state);
        while state.count < number && !state.is_closed {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            state = wait_timeout(&self.changed, state, left).0;
        }
        state.count >= number
    }
}

/// Locks a mutex, whether or not a thread panicked while it held the lock.
pub(crate) fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Waits until a condition variable is notified.
pub(crate) fn wait<'a, T>(condvar: &Condvar, guard: MutexGuard<'a, T>) -> MutexGuard<'a, T> {
    condvar.wait(guard).unwrap_or_else(PoisonError::into_inner)
}

/// Waits until a condition variable is notified, for at most `timeout`. Returns false after a timeout.
pub(crate) fn wait_timeout<'a, T>(
    condvar: &Condvar,
    guard: MutexGuard<'a, T>,
    timeout: Duration,
) -> (MutexGuard<'a, T>, bool) {
    let (guard, result) = condvar.wait_timeout(guard, timeout).unwrap_or_else(PoisonError::into_inner);
    (guard, !result.timed_out())
}

/// Waits while a condition holds, for at most `timeout`. Returns false if it still holds then.
#[cfg(any(feature = "kafka", feature = "wasm"))]
pub(crate) fn wait_while<'a, T>(
    condvar: &Condvar,
    guard: MutexGuard<'a, T>,
    timeout: Duration,
    condition: impl Fn(&T) -> bool,
) -> (MutexGuard<'a, T>, bool) {
    let waited = condvar.wait_timeout_while(guard, timeout, |value| condition(value));
    let (guard, result) = waited.unwrap_or_else(PoisonError::into_inner);
    (guard, !result.timed_out())
}
