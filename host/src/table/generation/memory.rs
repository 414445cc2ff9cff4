//! How a generation waits while its table, or the process, exceeds a memory limit.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::table::error::TableError;
use crate::table::generation::reading::Reading;
use crate::table::generation::{Generation, GenerationEnd};

/// How often a table that exceeds a memory limit checks whether there is room again.
const MEMORY_CHECK_EVERY: Duration = Duration::from_millis(200);

/// How long a swap's generation may exceed a memory limit before it is given up.
const MEMORY_GRACE: Duration = Duration::from_secs(1);

impl Generation {
    /// Waits while the table, or the process, exceeds a memory limit. Entries expire, and lags are judged
    /// meanwhile. The generation of a swap is given up instead, because the served one needs the memory.
    pub(super) async fn wait_for_memory(&mut self, reading: &mut Reading) -> Result<(), GenerationEnd> {
        let mut is_reported = false;
        let give_up_at = Instant::now() + MEMORY_GRACE;
        while let Some(reason) = self.exceeded_limit() {
            if Instant::now() >= give_up_at && self.shared.is_beside_served(self.state.number) {
                let topic = self.state.topic.name.clone();
                return Err(GenerationEnd::Halted(TableError::MemoryLimit { topic, reason }));
            }
            if !std::mem::replace(&mut is_reported, true) {
                if !self.is_served && !self.shared.is_serving() {
                    // What was loaded can be read meanwhile.
                    self.serve_partially().await;
                }
                self.shared
                    .update_generation(&self.state, |conditions| conditions.memory = Some(reason.into()));
            }
            tokio::select! {
                () = sleep(MEMORY_CHECK_EVERY) => {}
                event = reading.next_topic_event() => self.handle(event?).await?,
                () = self.next_deadline(), if self.is_served => {
                    // Another generation that is served by now ends this one soon.
                    let _ = self.expire();
                }
            }
        }
        if is_reported {
            // The lag is known before the table no longer reports its memory limit.
            self.evaluate_overdue(None);
            self.shared.update_generation(&self.state, |conditions| conditions.memory = None);
        }
        Ok(())
    }

    /// Waits while the served generation applies no records, because a codec of it was revoked. The contents stay readable,
    /// and expire.
    pub(super) async fn wait_while_frozen(&mut self, reading: &mut Reading) -> Result<(), GenerationEnd> {
        let was_frozen = self.is_served && self.state.is_frozen();
        while self.is_served && self.state.is_frozen() {
            let state = self.state.clone();
            tokio::select! {
                () = state.wait_until_frozen(false) => {}
                () = state.replaced.notified() => return Ok(()),
                event = reading.next_topic_event() => self.handle(event?).await?,
                () = self.next_deadline() => {
                    // Another generation that is served by now ends this one soon.
                    let _ = self.expire();
                }
            }
        }
        if was_frozen {
            // The lag is known before the table no longer reports the revocation.
            self.evaluate_overdue(None);
        }
        Ok(())
    }

    /// Describes the memory limit that is exceeded.
    fn exceeded_limit(&self) -> Option<String> {
        if let Some(limit) = self.shared.settings.memory_limit {
            let used = self.shared.memory_bytes(&self.state);
            if used > limit {
                return Some(format!(
                    "memory limit {limit} bytes: the table uses {used}, raise tables.NAME.memory_limit"
                ));
            }
        }
        let (used, limit) = crate::memory::exceeded_process_limit()?;
        Some(format!(
            "memory limit {limit} bytes: the process uses {used}, raise memory in the section [limits]"
        ))
    }
}
