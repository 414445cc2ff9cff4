//! The checkpoint of a table: which generation writes it, and whether it was loaded and is written.

use std::sync::{Arc, Mutex};
use std::time::{Duration, UNIX_EPOCH};

use crate::checkpoint::{CheckpointError, CheckpointRecord, CheckpointWriter, LoadedCheckpoint};
use crate::sync::{Counter, lock};
use crate::table::generation_state::GenerationState;
use crate::table::settings::CheckpointSettings;
use crate::table::status::CheckpointStats;

/// How often a table verifies that it has applied everything written so far. The age of a
/// checkpoint counts from the last time it did.
pub(super) const VERIFY_EVERY_MILLIS: i64 = 30_000;

/// The state of a table's checkpoint.
#[derive(Debug, Default)]
pub(super) struct Checkpointing {
    /// A std lock: held to read or change fields.
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// The writer, and the number of the generation that feeds it.
    writer: Option<(u64, Arc<CheckpointWriter>)>,
    /// Why the checkpoint was not used.
    unused: Option<Arc<str>>,
    /// Why the checkpoint is no longer written. The writer may still have the folder.
    failed: Option<Arc<str>>,
    /// How long the log keeps tombstones, or the limit that the user has set, if one is known.
    max_age: Option<Duration>,
    /// The last time as of which the table had applied everything: milliseconds since 1970.
    as_of: Option<i64>,
}

impl Checkpointing {
    /// Returns the statistics of the checkpoint, which a generation may have loaded; `None` for a table without one.
    pub(super) fn stats(
        &self,
        settings: &CheckpointSettings,
        generation: &GenerationState,
    ) -> Option<CheckpointStats> {
        let folder = settings.folder.clone()?;
        let State { writer, unused, failed, .. } = &*lock(&self.state);
        let written = writer.as_ref().map(|(_, writer)| writer.state()).unwrap_or_default();
        let as_of = written.as_of.and_then(|millis| u64::try_from(millis).ok());
        Some(CheckpointStats {
            folder,
            loaded: generation.loaded(),
            unused: generation.checkpoint_unused().or(unused.clone().filter(|_| generation.loaded() == 0)),
            as_of: as_of.map(|millis| UNIX_EPOCH + Duration::from_millis(millis)),
            bytes: written.bytes,
            failed: written.failed.map(|error| error.to_string().into()).or(failed.clone()),
        })
    }

    /// Whether a generation writes a checkpoint.
    pub(super) fn is_enabled(&self, generation: u64) -> bool {
        self.writer(generation).is_some()
    }

    fn writer(&self, generation: u64) -> Option<Arc<CheckpointWriter>> {
        let state = lock(&self.state);
        let (number, writer) = state.writer.as_ref().filter(|_| state.failed.is_none())?;
        (*number == generation).then(|| writer.clone())
    }

    /// Lets a generation write the checkpoint, from where `loaded` ends.
    pub(super) fn begin(&self, generation: u64, writer: CheckpointWriter, loaded: Option<&LoadedCheckpoint>) {
        let mut state = lock(&self.state);
        state.writer = Some((generation, Arc::new(writer)));
        state.failed = None;
        state.as_of = loaded.map(LoadedCheckpoint::as_of);
        if loaded.is_some() {
            state.unused = None;
        }
    }

    /// Appends what a generation is about to apply. If that fails, the
    /// table continues without writing the checkpoint.
    pub(super) async fn append(&self, generation: u64, records: impl Iterator<Item = CheckpointRecord>) {
        let Some(writer) = self.writer(generation) else { return };
        for record in records {
            if let Err(error) = writer.append(record).await {
                return self.abandon(generation, &error);
            }
        }
    }

    /// Keeps what a generation appends from now on out of the checkpoint until a count has reached a number.
    pub(super) fn wait_for(&self, generation: u64, count: Arc<Counter>, number: u64) {
        let Some(writer) = self.writer(generation) else { return };
        if let Err(error) = writer.wait_for(count, number) {
            self.abandon(generation, &error);
        }
    }

    /// Checks that the table has followed the topic closely enough to have seen every tombstone written before `as_of`.
    ///
    /// # Errors
    ///
    /// If the last time is so long ago that tombstones may have come and gone since. Then neither
    /// the table nor the checkpoint is sure to match the topic.
    pub(super) fn check_age(&self, generation: u64, as_of: i64, now: i64) -> Result<(), CheckpointError> {
        if self.writer(generation).is_none() {
            return Ok(());
        }
        let (before, max_age) = {
            let mut state = lock(&self.state);
            (state.as_of.replace(as_of), state.max_age)
        };
        check_away(before.map_or(0, |before| now.saturating_sub(before)), max_age)
    }

    /// Records that everything written to the topic before `as_of` is applied, as of `now`. Its age was checked.
    pub(super) fn complete(&self, generation: u64, as_of: i64, now: i64) {
        let Some(writer) = self.writer(generation) else { return };
        if let Err(error) = writer.complete(as_of, now) {
            self.abandon(generation, &error);
        }
    }

    /// Stops writing if this generation writes, because it was given up.
    pub(super) fn end(&self, generation: u64) {
        let mut state = lock(&self.state);
        if state.writer.as_ref().is_some_and(|(number, _)| *number == generation) {
            let reason =
                "the generation that wrote it was given up; the table continues it when it is started again";
            state.failed = Some(reason.into());
        }
    }

    /// Stops writing if this generation writes, because writing failed.
    fn abandon(&self, generation: u64, error: &CheckpointError) {
        let mut state = lock(&self.state);
        if state.writer.as_ref().is_some_and(|(number, _)| *number == generation) {
            state.failed = Some(error.to_string().into());
        }
    }

    /// Waits until what was appended is on the disk and the folder is free; false if that takes too
    /// long.
    pub(super) async fn finish(&self) -> bool {
        let writer = lock(&self.state).writer.clone();
        match writer {
            Some((_, writer)) => writer.finish().await,
            None => true,
        }
    }

    /// Stops writing, for this reason.
    pub(super) fn fail(&self, reason: Arc<str>) {
        lock(&self.state).failed = Some(reason);
    }

    /// Records why a generation replays the topic instead of loading the checkpoint.
    pub(super) fn report_unused(&self, topic: &str, reason: &str) {
        tracing::info!(topic, "the checkpoint is not used: {reason}");
        lock(&self.state).unused = Some(reason.into());
    }

    /// Sets how long the log keeps tombstones, or the limit that the user has set.
    pub(super) fn set_max_age(&self, max_age: Option<Duration>) {
        lock(&self.state).max_age = max_age;
    }
}

/// Checks that whoever did not follow the topic for some time, in milliseconds, has seen every tombstone.
pub(super) fn check_away(away: i64, max_age: Option<Duration>) -> Result<(), CheckpointError> {
    // Where tombstones vanish sooner than a table verifies, checkpoints cannot be used; but a
    // table that follows the topic can.
    if away >= 2 * VERIFY_EVERY_MILLIS
        && let Some(max_age) = max_age.filter(|max_age| away as u128 >= max_age.as_millis())
    {
        let away = Duration::from_millis(away as u64);
        let reason = format!(
            "the table did not follow the topic for {away:?}, and the limit is {max_age:?} \
             (checkpoint_max_age, or else the topic's delete.retention.ms): it may have missed tombstones"
        );
        return Err(CheckpointError::Unusable { reason });
    }
    Ok(())
}
