//! Locks and condition variables, with one policy for poisoning: none.
//!
//! Everything behind a lock of this crate is valid between any two statements. So when a thread
//! panics while it holds a lock, whoever waits for its result reports the panic, and everybody else
//! continues.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Locks a mutex, whether or not a thread panicked while it held the lock.
pub(crate) fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Waits until a condition variable is notified.
pub(crate) fn wait<'a, T>(condvar: &Condvar, guard: MutexGuard<'a, T>) -> MutexGuard<'a, T> {
    condvar.wait(guard).unwrap_or_else(PoisonError::into_inner)
}

/// Waits until a condition variable is notified, for `timeout` at most; false if it was not.
pub(crate) fn wait_timeout<'a, T>(
    condvar: &Condvar,
    guard: MutexGuard<'a, T>,
    timeout: Duration,
) -> (MutexGuard<'a, T>, bool) {
    let (guard, result) = condvar.wait_timeout(guard, timeout).unwrap_or_else(PoisonError::into_inner);
    (guard, !result.timed_out())
}

/// Waits while a condition holds, for `timeout` at most; false if it still holds.
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
