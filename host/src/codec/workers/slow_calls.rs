//! Limits the slow calls of a component to one at a time for each purpose.

use std::cell::Cell;
use std::sync::{Arc, Condvar, Mutex};

use crate::codec::workers::purpose::Purpose;
use crate::sync::{lock, wait};

thread_local! {
    /// The purpose of the job that this thread is running.
    static PURPOSE: Cell<Option<Purpose>> = const { Cell::new(None) };
}

/// Runs a job that has this purpose.
pub(super) fn run_with_purpose(purpose: Purpose, job: impl FnOnce()) {
    let before = PURPOSE.replace(Some(purpose));
    job();
    PURPOSE.set(before);
}

/// The slow calls of one component: one permit for each purpose. A call is slow after it has been running for
/// longer than [`TICK`](super::TICK).
#[derive(Debug, Clone, Default)]
pub(crate) struct SlowCalls(Arc<[Permit; 2]>);

/// The permit for one slow call. The lock is a std lock, because it is only held to read or set the flag.
#[derive(Debug, Default)]
struct Permit {
    is_taken: Mutex<bool>,
    released: Condvar,
}

impl SlowCalls {
    /// Called from within a guest call that has become slow. Pauses it until no other slow call of the
    /// component has the purpose of this thread's job, and takes the permit. Returns at once on a thread that
    /// runs no job.
    pub(crate) fn enter(&self) -> SlowCall {
        let Some(purpose) = PURPOSE.get() else { return SlowCall(None) };
        let index = match purpose {
            Purpose::Read => 0,
            Purpose::Write => 1,
        };
        let permit = &self.0[index];
        let mut is_taken = lock(&permit.is_taken);
        while *is_taken {
            is_taken = wait(&permit.released, is_taken);
        }
        *is_taken = true;
        drop(is_taken);
        SlowCall(Some((self.0.clone(), index)))
    }
}

/// A running slow call. Dropping it releases the permit.
#[derive(Debug)]
pub(crate) struct SlowCall(Option<(Arc<[Permit; 2]>, usize)>);

impl Drop for SlowCall {
    fn drop(&mut self) {
        if let Some((permits, index)) = &self.0 {
            *lock(&permits[*index].is_taken) = false;
            permits[*index].released.notify_one();
        }
    }
}
