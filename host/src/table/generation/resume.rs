//! Starting a generation from a checkpoint instead of replaying the whole topic.

use std::sync::Arc;
use std::time::Duration;

use futures_util::{Stream, StreamExt, stream};

use crate::checkpoint::{Checkpoint, CheckpointError, CheckpointWriter, LoadRequirements, LoadedCheckpoint};
use crate::log::{Headers, OffsetRange, PartitionStream, RecordBatch, StreamItem, TopicDescription};
use crate::table::barrier::barrier;
use crate::table::checkpointing::VERIFY_EVERY_MILLIS;
use crate::table::generation::source::{Origin, SourceItem, StreamError};
use crate::table::generation_state::GenerationState;
use crate::table::shared::Shared;

/// How long the barrier of a verification may take.
const VERIFY_TIMEOUT: Duration = Duration::from_secs(10);

/// Opens the folder of the table's checkpoint, if it has one.
pub(in crate::table) async fn open_checkpoint(shared: &Shared) -> Option<Arc<Checkpoint>> {
    let folder = shared.settings.checkpoint.folder.clone()?;
    let opened = tokio::task::spawn_blocking(move || Checkpoint::open(&folder)).await.ok()?;
    match opened {
        Ok(checkpoint) => Some(Arc::new(checkpoint)),
        Err(error) => {
            give_up(shared, &shared.topic_name(), &error);
            shared.checkpointing.report_unused(&shared.topic_name(), &error.to_string());
            None
        }
    }
}

/// Verifies now and then that the table has applied everything written so far, which keeps the
/// checkpoint young. Returns an error if the table may have missed something.
pub(super) async fn verify(shared: &Shared, state: &GenerationState) -> CheckpointError {
    let clock = &shared.settings.clock;
    loop {
        let due = clock.now().saturating_add(VERIFY_EVERY_MILLIS);
        while clock.now() < due {
            clock.sleep_until(due).await;
        }
        let as_of = clock.now();
        // A barrier is about the generation that is served.
        if shared.view().generation == state.number
            && shared.checkpointing.is_enabled(state.number)
            && barrier(shared, VERIFY_TIMEOUT).await.is_fresh()
        {
            let now = clock.now();
            if let Err(error) = shared.checkpointing.check_age(state.number, as_of, now) {
                return error;
            }
            shared.checkpointing.complete(state.number, as_of, now);
        }
    }
}

/// The source of a generation's records: the checkpoint, if there is one, then the log.
#[derive(Debug)]
pub(super) struct RecordSource {
    loaded: Option<LoadedCheckpoint>,
    headers: Headers,
}

impl RecordSource {
    /// Replays the whole log.
    pub(super) fn without_checkpoint(headers: Headers) -> Self {
        Self { loaded: None, headers }
    }

    /// Loads what a checkpoint has of the topic, and begins to write it from there on. `distrusted`
    /// is the reason not to load it, if there is one.
    pub(super) async fn load_and_write(
        shared: &Shared,
        state: &GenerationState,
        checkpoint: &Arc<Checkpoint>,
        ranges: &[OffsetRange],
        headers: Headers,
        distrusted: Option<CheckpointError>,
    ) -> Self {
        let topic = &state.topic;
        // Another generation may still write into the folder.
        if !shared.checkpointing.finish().await {
            let error = CheckpointError::TooSlow;
            give_up(shared, &topic.name, &error);
            shared.checkpointing.report_unused(&topic.name, &error.to_string());
            return Self::without_checkpoint(headers);
        }
        let max_age = max_age(shared, topic).await;
        shared.checkpointing.set_max_age(max_age.as_ref().ok().copied());
        let found = match distrusted {
            Some(error) => Err(error),
            None => load(shared, checkpoint, topic, ranges, headers, max_age).await,
        };
        let report = |error| shared.checkpointing.report_unused(&topic.name, &format!("{error}"));
        let loaded = found.map_err(|error: CheckpointError| report(error)).ok();
        state.set_loaded(loaded.as_ref().map_or(0, LoadedCheckpoint::records));
        if loaded.is_none() && shared.is_beside_served(state.number) {
            // A new checkpoint would replace that of the served generation, and the swap may still fail.
            let reason = "a swap of codecs ended it, because the new generation could not load it; the table \
                          writes one again when it is started again";
            shared.checkpointing.fail(reason.into());
            return Self::without_checkpoint(headers);
        }
        let start = {
            let (checkpoint, loaded, ranges) = (checkpoint.clone(), loaded.clone(), ranges.to_vec());
            let (topic, isolation) = (topic.clone(), shared.log.isolation());
            move || CheckpointWriter::start(checkpoint, &topic, &ranges, headers, isolation, loaded.as_ref())
        };
        match tokio::task::spawn_blocking(start).await {
            Ok(Ok(writer)) => shared.checkpointing.begin(state.number, writer, loaded.as_ref()),
            Ok(Err(error)) => give_up(shared, &topic.name, &error),
            Err(_) => give_up(shared, &topic.name, &CheckpointError::Panicked),
        }
        Self { loaded, headers }
    }

    /// Loads what a checkpoint has of the topic, while another generation goes on writing it.
    pub(super) async fn load_only(
        shared: &Shared,
        state: &GenerationState,
        checkpoint: &Arc<Checkpoint>,
        ranges: &[OffsetRange],
        headers: Headers,
        distrusted: Option<CheckpointError>,
    ) -> Self {
        let topic = &state.topic;
        let max_age = max_age(shared, topic).await;
        let known_max_age = max_age.as_ref().ok().copied();
        let found = match distrusted {
            Some(error) => Err(error),
            None => load(shared, checkpoint, topic, ranges, headers, max_age).await,
        };
        match found {
            Ok(loaded) => {
                state.set_loaded(loaded.records());
                state.set_checkpoint_age(loaded.as_of(), known_max_age);
                Self { loaded: Some(loaded), headers }
            }
            Err(error) => {
                tracing::info!(topic = topic.name, "the other codecs replay the topic: {error}");
                state.set_checkpoint_unused(&error);
                Self::without_checkpoint(headers)
            }
        }
    }

    /// Ends the hold on the checkpoint's segments: compaction may remove them once the streams have read them. Call it
    /// after all partitions of the checkpoint have a stream.
    pub(super) fn release(&mut self) {
        self.loaded = None;
    }

    /// Returns the parts of the partitions that must be read from the log.
    pub(super) fn remaining(&self, ranges: &[OffsetRange]) -> Vec<OffsetRange> {
        let remaining =
            |&range: &OffsetRange| self.loaded.as_ref().map_or(range, |loaded| loaded.remaining(range));
        ranges.iter().map(remaining).collect()
    }

    /// The items of a partition: what the checkpoint has, then what the log has after it. `range`
    /// covers both.
    pub(super) fn stream(
        &self,
        range: OffsetRange,
        log: PartitionStream,
    ) -> impl Stream<Item = Result<SourceItem, StreamError>> + Send + use<> {
        let from_log = |item| SourceItem { item, origin: Origin::Log };
        let Some(loaded) = &self.loaded else {
            return log.map(move |item| Ok(from_log(item?))).left_stream();
        };
        let checkpoint = loaded
            .stream(range, self.headers)
            .map(|batch| batch.map(from_checkpoint).map_err(StreamError::Checkpoint));
        let mut overlap = loaded.overlap(range.partition);
        let end = StreamItem::Position(overlap.position());
        // The end of the checkpoint counts as a position only when the log was seen to continue
        // there. Before that, the table might be complete with records that the log does not have.
        let mut end = Some(Ok(SourceItem { item: end, origin: Origin::Checkpoint }));
        let known_end = stream::iter(if overlap.is_verified() { end.take() } else { None });
        let log = log.flat_map(move |item| {
            let item = match item {
                Ok(StreamItem::Records(batch)) => match overlap.remove_from(*batch) {
                    Ok(batch) if batch.is_empty() => None,
                    Ok(batch) => Some(Ok(from_log(StreamItem::Records(Box::new(batch))))),
                    Err(error) => Some(Err(StreamError::Checkpoint(error))),
                },
                Ok(item) => Some(Ok(from_log(item))),
                Err(error) => Some(Err(StreamError::Log(error))),
            };
            let end = if matches!(item, Some(Err(_))) { None } else { end.take() };
            stream::iter(end.into_iter().chain(item))
        });
        checkpoint.chain(known_end).chain(log).right_stream()
    }
}

fn from_checkpoint(batch: RecordBatch) -> SourceItem {
    SourceItem { item: StreamItem::Records(Box::new(batch)), origin: Origin::Checkpoint }
}

fn give_up(shared: &Shared, topic: &str, error: &CheckpointError) {
    tracing::warn!(topic, "no checkpoint is written: {error}");
    shared.checkpointing.fail(error.to_string().into());
}

/// Loads the checkpoint, if it is sound.
async fn load(
    shared: &Shared,
    checkpoint: &Arc<Checkpoint>,
    topic: &TopicDescription,
    ranges: &[OffsetRange],
    headers: Headers,
    max_age: Result<Duration, CheckpointError>,
) -> Result<LoadedCheckpoint, CheckpointError> {
    let (checkpoint, topic, ranges) = (checkpoint.clone(), topic.clone(), ranges.to_vec());
    let (now, isolation) = (shared.settings.clock.now(), shared.log.isolation());
    let load = move || {
        let load = |max_age| {
            checkpoint.load(&LoadRequirements {
                topic: &topic,
                ranges: &ranges,
                headers,
                isolation,
                max_age,
                now,
            })
        };
        match max_age {
            Ok(max_age) => load(max_age),
            // If there is no checkpoint at all, that is the better reason.
            Err(error) => load(Duration::MAX).and(Err(error)),
        }
    };
    tokio::task::spawn_blocking(load).await.unwrap_or(Err(CheckpointError::Panicked))
}

/// Returns the maximum age of a checkpoint: the time for which the log keeps tombstones, unless the user
/// sets another one.
pub(super) async fn max_age(shared: &Shared, topic: &TopicDescription) -> Result<Duration, CheckpointError> {
    if let Some(max_age) = shared.settings.checkpoint.max_age {
        return Ok(max_age);
    }
    let unfit = |reason: String| CheckpointError::Unusable {
        reason: format!(
            "it is unknown how long the log keeps tombstones ({reason}); set checkpoint_max_age to that time"
        ),
    };
    let setting = shared.log.setting(&topic.name, "delete.retention.ms").await;
    let millis = setting.map_err(|error| unfit(error.to_string()))?;
    millis.parse().map(Duration::from_millis).map_err(|_| unfit(format!("delete.retention.ms={millis}")))
}
