//! How a generation queues its rejected records for the dead-letter topic, and pauses while they cannot be written.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use crate::table::dead_letters::{DeadLetter, DeadLetters};
use crate::table::error::TableError;
use crate::table::generation::decode_stream::Step;
use crate::table::generation::reading::Reading;
use crate::table::generation::{Generation, GenerationEnd};

/// How long a pause may last before the status reports it. If writing fails, the status reports that at once.
const REPORT_AFTER: Duration = Duration::from_secs(5);

impl Generation {
    /// Queues the dead letters of these steps, which are about to be applied. The checkpoint has the steps only once the
    /// dead letters are written.
    pub(super) fn queue_rejected(&mut self, steps: &mut [Step]) -> Result<(), GenerationEnd> {
        let Some(dead_letters) = self.shared.dead_letters.clone() else { return Ok(()) };
        let mut letters = Vec::new();
        for (raw, rejected) in steps.iter_mut().filter_map(Step::take_rejected) {
            // Both are in the order of their offsets.
            let mut records = (0..raw.len()).map(|index| raw.get(index));
            for reject in rejected {
                if let Some(record) = records.find(|record| record.offset == reject.offset) {
                    letters.push(DeadLetter::new(&self.state.topic, &record, reject));
                }
            }
        }
        if self.shared.is_beside_served(self.state.number) {
            // The swap may still be given up.
            letters.retain(|letter| !dead_letters.is_known(letter));
            return self.deferred.add(letters).map_err(|reason| {
                let (topic, dead_letter) = (self.state.topic.name.clone(), dead_letters.topic().to_owned());
                GenerationEnd::Halted(TableError::DeadLetters { topic, dead_letter, reason })
            });
        }
        self.push_dead_letters(letters);
        Ok(())
    }

    /// Queues dead letters, after those that were deferred. The checkpoint waits for all that are queued.
    pub(super) fn push_dead_letters(&mut self, letters: Vec<DeadLetter>) {
        let Some(dead_letters) = &self.shared.dead_letters else { return };
        let mut all = self.deferred.take();
        all.extend(letters);
        if let Some(number) = dead_letters.push(all) {
            self.shared.checkpointing.wait_for(self.state.number, dead_letters.done(), number);
        }
    }

    /// Whether the generation must not apply records now. The generation of a swap goes on, because it only defers its
    /// dead letters.
    fn must_pause(&self, dead_letters: &DeadLetters) -> bool {
        dead_letters.must_pause() && !self.shared.is_beside_served(self.state.number)
    }

    /// Waits until the generation must pause.
    pub(super) async fn wait_until_must_pause(&self) {
        let Some(dead_letters) = &self.shared.dead_letters else { return std::future::pending().await };
        let mut changed = dead_letters.subscribe();
        while !self.must_pause(dead_letters) {
            // OK to ignore: the sender lives as long as the table.
            let _ = changed.changed().await;
        }
    }

    /// Waits while the generation must pause. Entries expire, and lags are evaluated meanwhile.
    pub(super) async fn wait_for_dead_letters(&mut self, reading: &mut Reading) -> Result<(), GenerationEnd> {
        let Some(dead_letters) = self.shared.dead_letters.clone() else { return Ok(()) };
        let mut changed = dead_letters.subscribe();
        let report_at = Instant::now() + REPORT_AFTER;
        let (mut has_waited, mut is_reported) = (false, false);
        while self.must_pause(&dead_letters) {
            has_waited = true;
            let is_long = is_reported || dead_letters.is_failing();
            if is_long && !self.is_served && !self.shared.is_serving() {
                // What was loaded can be read meanwhile.
                self.serve_partially().await;
            }
            tokio::select! {
                // OK to ignore: the sender lives as long as the table.
                _ = changed.changed() => {}
                () = sleep_until(report_at), if !is_reported => {
                    is_reported = true;
                    let waiting = dead_letters.stats().waiting;
                    let reason = format!(
                        "the table applies no more records until {waiting} rejected records are written to dead-letter \
                         topic `{}`",
                        dead_letters.topic()
                    );
                    self.report_pause(Some(reason));
                }
                event = reading.next_topic_event() => self.handle(event?).await?,
                () = self.next_deadline(), if self.is_served => {
                    // OK to ignore: it fails only if another generation is served by now, which ends this one.
                    let _ = self.expire();
                }
            }
        }
        if has_waited {
            self.evaluate_overdue(None);
        }
        if is_reported {
            self.report_pause(None);
        }
        Ok(())
    }

    fn report_pause(&self, reason: Option<String>) {
        self.shared.update_generation(&self.state, |conditions| {
            conditions.dead_letters = reason.map(Into::into);
        });
    }
}
