//! The swaps of a table: the one that runs, the last report, and the codecs that were served before.

use std::borrow::Cow;
use std::sync::Mutex;

use serde::Serialize;
use tokio::task::AbortHandle;
use tokio::time::Instant;

use crate::codec::Codecs;
use crate::sync::lock;
use crate::table::{DeadLetterComparison, Difference, PreparedSwap};

/// What a swap is doing, or how it has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum SwapState {
    /// The new codec is checked and compiled, and the topic is loaded with it.
    Loading,
    /// Its contents are compared with the served ones.
    Comparing,
    /// It is being served. It can no longer be cancelled.
    Committing,
    /// It is served.
    Done,
    /// It would have been served: it was only tried.
    Tried,
    /// It is not served, because it differs by more than the request allows.
    Refused,
    /// It is not served, because it cannot be.
    Failed,
    Cancelled,
}

impl SwapState {
    /// The name that users see.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Loading => "loading",
            Self::Comparing => "comparing",
            Self::Committing => "committing",
            Self::Done => "done",
            Self::Tried => "tried",
            Self::Refused => "refused",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }

    /// Whether the swap has not ended.
    fn is_running(self) -> bool {
        matches!(self, Self::Loading | Self::Comparing | Self::Committing)
    }
}

/// What a swap would do, or has done.
#[derive(Debug, Clone, Serialize)]
pub(super) struct SwapReport {
    pub(super) state: SwapState,
    /// Why it was refused, or has failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) reason: Option<String>,
    pub(super) fingerprint_before: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) fingerprint_after: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) difference: Option<Difference>,
    /// How many records were read before and after. A checkpoint has only the newest records of each key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) records: Option<BeforeAfter<u64>>,
    /// How many of them were rejected.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) rejected: Option<BeforeAfter<u64>>,
    /// How many dead letters are rejected before and after.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) dead_letters: Option<DeadLetterComparison>,
    /// How many records were loaded from the checkpoint, in a table with one; the others were read from the log.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) from_checkpoint: Option<u64>,
    /// How long loading took, in nanoseconds per record.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) load_ns_per_record: Option<BeforeAfter<Option<u64>>>,
    /// What the caller should know.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) notes: Vec<Cow<'static, str>>,
}

/// A number before a swap and after it.
#[derive(Debug, Clone, Copy, Serialize)]
pub(super) struct BeforeAfter<T> {
    pub(super) before: T,
    pub(super) after: T,
}

impl SwapReport {
    pub(super) fn new(state: SwapState, fingerprint_before: String) -> Self {
        Self {
            state,
            reason: None,
            fingerprint_before,
            fingerprint_after: None,
            difference: None,
            records: None,
            rejected: None,
            dead_letters: None,
            from_checkpoint: None,
            load_ns_per_record: None,
            notes: Vec::new(),
        }
    }
}

/// The decoding that was served before a swap, which still follows the topic.
#[derive(Debug)]
pub(super) struct Back {
    pub(super) prepared: PreparedSwap,
    pub(super) codecs: Codecs,
    pub(super) until: Instant,
}

/// The swaps of a table. At most one runs.
#[derive(Debug, Default)]
pub(super) struct Swaps {
    /// A std lock: held to read or change fields.
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    running: Option<AbortHandle>,
    report: Option<SwapReport>,
    back: Option<Back>,
}

impl Swaps {
    /// Begins a swap. Returns false, and calls nothing, if one is running.
    pub(super) fn begin(&self, report: SwapReport, spawn: impl FnOnce() -> AbortHandle) -> bool {
        let mut state = lock(&self.state);
        if state.report.as_ref().is_some_and(|report| report.state.is_running()) {
            return false;
        }
        state.report = Some(report);
        state.running = Some(spawn());
        true
    }

    /// The report of the last swap.
    pub(super) fn report(&self) -> Option<SwapReport> {
        lock(&self.state).report.clone()
    }

    /// Changes the report of the swap that is running.
    pub(super) fn update(&self, change: impl FnOnce(&mut SwapReport)) {
        if let Some(report) = &mut lock(&self.state).report
            && report.state.is_running()
        {
            change(report);
        }
    }

    /// Begins to serve the new codecs. Returns false if the swap was cancelled.
    pub(super) fn begin_commit(&self) -> bool {
        let mut state = lock(&self.state);
        match &mut state.report {
            Some(report) if report.state.is_running() => {
                report.state = SwapState::Committing;
                true
            }
            _ => false,
        }
    }

    /// Cancels the swap that is running. Returns false if none is, or if it is too late.
    pub(super) fn cancel(&self) -> bool {
        let mut state = lock(&self.state);
        let State { running: Some(running), report: Some(report), .. } = &mut *state else { return false };
        if !report.state.is_running() || report.state == SwapState::Committing {
            return false;
        }
        running.abort();
        report.state = SwapState::Cancelled;
        true
    }

    /// Keeps the decoding that was served before.
    pub(super) fn set_back(&self, back: Back) {
        lock(&self.state).back = Some(back);
    }

    /// Takes the decoding that was served before, if it is still kept.
    pub(super) fn take_back(&self) -> Option<Back> {
        lock(&self.state).back.take()
    }

    /// Gives up the decoding that was served before, if its time has passed.
    pub(super) fn expire_back(&self) {
        let mut state = lock(&self.state);
        // The lock is not held while it is dropped.
        let expired = state.back.take_if(|back| back.until <= Instant::now());
        drop(state);
        drop(expired);
    }

    /// Until when the decoding that was served before is kept.
    pub(super) fn back_until(&self) -> Option<Instant> {
        lock(&self.state).back.as_ref().map(|back| back.until)
    }
}
