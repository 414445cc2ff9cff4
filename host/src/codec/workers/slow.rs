//! Calls of a component that run for longer than a tick: one at a time for each purpose.

use std::cell::Cell;
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use crate::codec::workers::Purpose;

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

/// The slow calls of one component.
#[derive(Debug, Clone, Default)]
pub(crate) struct SlowCalls(Arc<[Place; 2]>);

/// A place for one slow call. A std lock: held to look or to set.
#[derive(Debug, Default)]
struct Place {
    is_taken: Mutex<bool>,
    freed: Condvar,
}

impl SlowCalls {
    /// Waits until no other call of the component is slow for the purpose of this thread's job.
    /// Outside of jobs nothing is waited for.
    pub(crate) fn enter(&self) -> Slow {
        let Some(purpose) = PURPOSE.get() else { return Slow(None) };
        let index = match purpose {
            Purpose::Read => 0,
            Purpose::Write => 1,
        };
        let place = &self.0[index];
        let mut is_taken = place.is_taken.lock().unwrap_or_else(PoisonError::into_inner);
        while *is_taken {
            is_taken = place.freed.wait(is_taken).unwrap_or_else(PoisonError::into_inner);
        }
        *is_taken = true;
        drop(is_taken);
        Slow(Some((self.0.clone(), index)))
    }
}

/// A call that is slow, as long as this lives.
#[derive(Debug)]
pub(crate) struct Slow(Option<(Arc<[Place; 2]>, usize)>);

impl Drop for Slow {
    fn drop(&mut self) {
        if let Some((places, index)) = &self.0 {
            *places[*index].is_taken.lock().unwrap_or_else(PoisonError::into_inner) = false;
            places[*index].freed.notify_one();
        }
    }
}
