//! Locks and condition variables that ignore poisoning.
//!
//! Data behind a lock of this crate is valid between any two statements. So when a thread panics while it
//! holds a lock, the caller that waits for the thread's result reports the panic, and all other threads
//! continue.

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
