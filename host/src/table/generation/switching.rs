//! How a generation becomes the served one, and how it waits after another one has taken its place.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::codec::workers;
use crate::table::checkpointing::check_away;
use crate::table::generation::{Generation, GenerationEnd, GenerationEvent, Overtaking};
use crate::table::settings::RETRY_AFTER;

/// How long a generation that is being loaded stays behind the served one before it holds that one: the
/// served one applies nothing for a while.
const OVERTAKE_AFTER: Duration = Duration::from_secs(1);

/// How long the served generation is held for the first time and at most. Each time is twice as long
/// as the one before.
const FIRST_HOLD: Duration = Duration::from_millis(250);
const MAX_HOLD: Duration = Duration::from_secs(4);

impl Generation {
    /// Serves the generation, which has applied everything that the topic held when it began. Returns
    /// false if it is still behind the generation that is served now, and has to catch up with it first.
    pub(super) async fn complete(&mut self, began: i64) -> Result<bool, GenerationEnd> {
        self.sort().await;
        let (checkpointing, number) = (&self.shared.checkpointing, self.state.number);
        let complete_at = match self.complete_at {
            Some(complete_at) => complete_at,
            None => {
                let now = self.shared.settings.clock.now();
                checkpointing.check_age(number, began, now).map_err(GenerationEnd::Checkpoint)?;
                if let Some((as_of, max_age)) = self.state.checkpoint_age() {
                    let away = now.saturating_sub(as_of);
                    check_away(away, max_age).map_err(GenerationEnd::Checkpoint)?;
                }
                self.state.finish_loading(self.view.counters.records);
                *self.complete_at.insert(now)
            }
        };
        let gate = self.state.gate();
        if !self.is_served && !gate.is_open() {
            gate.offer(Arc::new(self.view.clone()));
            self.state.update_progress(&self.view);
            return Ok(false);
        }
        if !self.is_served && !self.try_switch(true) {
            self.hold_served();
            return Ok(false);
        }
        // After the dead letters of a swap were queued, for which the checkpoint waits.
        if !std::mem::replace(&mut self.is_recorded, true) {
            self.shared.checkpointing.complete(number, began, complete_at);
        }
        self.lags.forget_advanced(|partition| self.view.position(partition));
        self.shared.report_complete(&self.state, &self.view);
        Ok(true)
    }

    /// If another generation is served by now, and this one is kept, makes it wait for its gate. Returns false if it is
    /// still served, or is not kept.
    pub(super) fn step_aside(&mut self) -> bool {
        let is_kept = self.shared.is_next(self.state.number);
        if is_kept {
            self.is_served = false;
            self.overtaking = None;
        }
        is_kept
    }

    /// Holds the served generation if it has been ahead for some time: under many writes, two
    /// generations may never be at the same positions otherwise.
    fn hold_served(&mut self) {
        let now = Instant::now();
        let overtaking = self.overtaking.get_or_insert(Overtaking { since: now, hold: FIRST_HOLD });
        if now.duration_since(overtaking.since) >= OVERTAKE_AFTER {
            let until = now + overtaking.hold;
            // A generation is served, so it is the reported one.
            self.shared.reported().hold_until(until);
            *overtaking = Overtaking { since: until, hold: (overtaking.hold * 2).min(MAX_HOLD) };
        }
    }

    /// Serves what was loaded so far, although the generation is not complete.
    pub(super) async fn serve_partially(&mut self) {
        self.sort().await;
        self.try_switch(false);
    }

    /// Sorts the view on the host's workers. From then on it stays sorted.
    async fn sort(&mut self) {
        while !self.view.is_sorted() {
            let mut view = self.view.clone();
            let sort = move || {
                view.sort();
                view
            };
            match workers::run_host(sort).await {
                Ok(sorted) => self.view = sorted,
                Err(failure) => {
                    let reason = failure.reason;
                    tracing::error!(
                        topic = self.state.topic.name,
                        "cannot sort the table: {reason}; trying again"
                    );
                    sleep(RETRY_AFTER).await;
                }
            }
        }
    }

    fn try_switch(&mut self, is_complete: bool) -> bool {
        self.is_served = self.shared.try_switch(&self.state, Arc::new(self.view.clone()), is_complete);
        if self.is_served {
            self.overtaking = None;
            self.state.release();
            self.state.gate().withdraw_offer();
            // Sorting has built the groups, so their number is copied now.
            self.state.update_progress(&self.view);
            self.report(GenerationEvent::Served(self.state.number));
            // Those that were deferred while another generation was served.
            self.push_dead_letters(Vec::new());
        }
        self.is_served
    }
}
