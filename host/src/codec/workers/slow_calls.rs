//! Slow calls of a component: one at a time for each purpose.

use std::cell::Cell;
use std::sync::{Arc, Condvar, Mutex};

use crate::codec::workers::purpose::Purpose;
use crate::sync::{lock, wait};

thread_local! {
    /// The purpose of the job that this thread runs.
    static PURPOSE: Cell<Option<Purpose>> = const { Cell::new(None) };
}

/// Runs a job for this purpose.
pub(super) fn with_purpose(purpose: Purpose, job: impl FnOnce()) {
    let before = PURPOSE.replace(Some(purpose));
    job();
    PURPOSE.set(before);
}

/// The slow calls of one component. A call is slow when it has run for longer than a tick.
#[derive(Debug, Clone, Default)]
pub(crate) struct SlowCalls(Arc<[Permit; 2]>);

/// The permit for one slow call. A std lock: held to read or set it.
#[derive(Debug, Default)]
struct Permit {
    is_taken: Mutex<bool>,
    freed: Condvar,
}

impl SlowCalls {
    /// Waits until no other call of the component is slow for the purpose of this thread's job. Returns
    /// at once on a thread that runs no job.
    pub(crate) fn enter(&self) -> SlowCall {
        let Some(purpose) = PURPOSE.get() else { return SlowCall(None) };
        let index = match purpose {
            Purpose::Read => 0,
            Purpose::Write => 1,
        };
        let permit = &self.0[index];
        let mut is_taken = lock(&permit.is_taken);
        while *is_taken {
            is_taken = wait(&permit.freed, is_taken);
        }
        *is_taken = true;
        drop(is_taken);
        SlowCall(Some((self.0.clone(), index)))
    }
}

/// A slow call, while this lives.
#[derive(Debug)]
pub(crate) struct SlowCall(Option<(Arc<[Permit; 2]>, usize)>);

impl Drop for SlowCall {
    fn drop(&mut self) {
        if let Some((permits, index)) = &self.0 {
            *lock(&permits[*index].is_taken) = false;
            permits[*index].freed.notify_one();
        }
    }
}
