//! A table's checkpoint: what it begins with instead of its topic, and what it keeps.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures_util::{Stream, StreamExt, stream};

use crate::checkpoint::{Checkpoint, CheckpointError, Keeper, Kept, Loaded, Wanted};
use crate::log::{
    Headers, LogError, OffsetRange, Partition, PartitionStream, RecordBatch, StreamItem, TopicDescription,
};
use crate::table::settings::CheckpointSettings;
use crate::table::shared::{Shared, lock};
use crate::table::wait::barrier;

/// How often to look whether everything that was written by then is applied: how old a
/// checkpoint is counts from there.
const VERIFY_MILLIS: i64 = 30_000;

/// How long the log may take to tell.
const PATIENCE: Duration = Duration::from_secs(10);

/// What ends the stream of a partition.
#[derive(Debug)]
pub(super) enum Broken {
    Log(LogError),
    Checkpoint(CheckpointError),
}

impl From<LogError> for Broken {
    fn from(error: LogError) -> Self {
        Self::Log(error)
    }
}

/// An item of a partition's stream.
#[derive(Debug)]
pub(super) struct Item {
    pub(super) item: StreamItem,
    /// Whether it comes from the log, and not from the checkpoint.
    pub(super) is_new: bool,
}

/// What a table has of checkpoints.
#[derive(Debug, Default)]
pub(super) struct Checkpointing {
    /// A std lock: held to look or to replace.
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    keeper: Option<Arc<Keeper>>,
    loaded: u64,
    unused: Option<Arc<str>>,
    /// Why nothing is kept any more, if so. The keeper may have the folder still.
    failed: Option<Arc<str>>,
    /// How long the log keeps tombstones, if that is known.
    max_age: Option<Duration>,
    /// As of when everything was applied last: milliseconds since 1970.
    as_of: Option<i64>,
}

/// How a table's checkpoint fares.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckpointStats {
    /// Its folder.
    pub folder: PathBuf,
    /// How many records the table began with.
    pub loaded: u64,
    /// Why it was not used, if it was not: the whole topic was replayed.
    pub unused: Option<Arc<str>>,
    /// As of when the one on the disk is complete; `None` as long as there is none.
    pub as_of: Option<SystemTime>,
    /// What it takes on the disk.
    pub bytes: u64,
    /// Why it is not kept any more, if so.
    pub failed: Option<Arc<str>>,
}

impl Checkpointing {
    pub(super) fn stats(&self, settings: Option<&CheckpointSettings>) -> Option<CheckpointStats> {
        let State { keeper, loaded, unused, failed, .. } = &*lock(&self.state);
        let kept = keeper.as_ref().map(|keeper| keeper.state()).unwrap_or_default();
        let as_of = kept.as_of.and_then(|millis| u64::try_from(millis).ok());
        Some(CheckpointStats {
            folder: settings?.folder.clone(),
            loaded: *loaded,
            unused: unused.clone(),
            as_of: as_of.map(|millis| UNIX_EPOCH + Duration::from_millis(millis)),
            bytes: kept.bytes,
            failed: kept.failed.map(|error| error.to_string().into()).or(failed.clone()),
        })
    }

    pub(super) fn is_kept(&self) -> bool {
        self.keeper().is_some()
    }

    fn keeper(&self) -> Option<Arc<Keeper>> {
        let state = lock(&self.state);
        state.keeper.clone().filter(|_| state.failed.is_none())
    }

    /// Keeps what is about to be applied. What the disk does not take ends the checkpoint, and
    /// not the table.
    pub(super) async fn keep(&self, kept: impl Iterator<Item = Kept>) {
        let Some(keeper) = self.keeper() else { return };
        for kept in kept {
            if let Err(error) = keeper.keep(kept).await {
                return self.abandon(&error);
            }
        }
    }

    /// Everything of before a time is applied, as is known now. Fails if that was said last so
    /// long ago that tombstones may have come and gone since: neither what was read nor what
    /// is kept is sure to be the topic.
    pub(super) fn complete(&self, as_of: i64, now: i64) -> Result<(), CheckpointError> {
        let Some(keeper) = self.keeper() else { return Ok(()) };
        let (before, max_age) = {
            let mut state = lock(&self.state);
            (state.as_of.replace(as_of), state.max_age)
        };
        let away = before.map_or(0, |before| now.saturating_sub(before));
        // Where tombstones go sooner than anybody looks, checkpoints are of no use, and are not
        // used; a table that follows is.
        if away >= 2 * VERIFY_MILLIS
            && let Some(max_age) = max_age.filter(|max_age| away as u128 >= max_age.as_millis())
        {
            let away = Duration::from_millis(away as u64);
            let reason = format!(
                "the table was away for {away:?}, and the log keeps tombstones for {max_age:?}: some may be missed"
            );
            return Err(CheckpointError::Unfit { reason });
        }
        if let Err(error) = keeper.complete(as_of, now) {
            self.abandon(&error);
        }
        Ok(())
    }

    /// Waits until what was kept is on the disk, and the folder is free; false if that takes
    /// too long.
    pub(super) async fn finish(&self) -> bool {
        let keeper = lock(&self.state).keeper.clone();
        match keeper {
            Some(keeper) => keeper.finish().await,
            None => true,
        }
    }

    fn abandon(&self, error: &CheckpointError) {
        lock(&self.state).failed = Some(error.to_string().into());
    }

    /// Said once for each generation: the topic is replayed.
    fn not_used(&self, topic: &str, reason: &str) {
        tracing::info!(topic, "no checkpoint is used: {reason}");
        lock(&self.state).unused = Some(reason.into());
    }
}

/// Says now and then as of when the checkpoint is complete. Ends with what was missed, if
/// something may have been.
pub(super) async fn missed(shared: &Shared) -> CheckpointError {
    let clock = &shared.settings.clock;
    loop {
        let due = clock.now().saturating_add(VERIFY_MILLIS);
        while clock.now() < due {
            clock.until(due).await;
        }
        let as_of = clock.now();
        if shared.checkpointing.is_kept()
            && barrier(shared, PATIENCE).await.is_fresh()
            && let Err(error) = shared.checkpointing.complete(as_of, clock.now())
        {
            return error;
        }
    }
}

/// What a generation begins with.
#[derive(Debug)]
pub(super) struct Resumed {
    loaded: Option<Loaded>,
    headers: Headers,
}

/// Opens the folder for a checkpoint, if there is to be one.
pub(super) async fn open(shared: &Shared) -> Option<Arc<Checkpoint>> {
    let folder = shared.settings.checkpoint.as_ref()?.folder.clone();
    let opened = tokio::task::spawn_blocking(move || Checkpoint::open(&folder)).await.ok()?;
    match opened {
        Ok(checkpoint) => Some(Arc::new(checkpoint)),
        Err(error) => {
            tracing::warn!(topic = shared.topic.name, "no checkpoint is kept: {error}");
            shared.checkpointing.abandon(&error);
            shared.checkpointing.not_used(&shared.topic.name, &error.to_string());
            None
        }
    }
}

impl Resumed {
    /// Looks what of a checkpoint can be used for a topic, and begins to keep what comes.
    /// `distrusted` says why it cannot be, if that is known.
    pub(super) async fn new(
        shared: &Shared,
        checkpoint: Option<&Arc<Checkpoint>>,
        topic: &TopicDescription,
        ranges: &[OffsetRange],
        headers: Headers,
        distrusted: Option<CheckpointError>,
    ) -> Self {
        let Some(checkpoint) = checkpoint else { return Self { loaded: None, headers } };
        // The one before it has the folder.
        if !shared.checkpointing.finish().await {
            let error = CheckpointError::Slow;
            tracing::warn!(topic = topic.name, "no checkpoint is kept: {error}");
            shared.checkpointing.abandon(&error);
            shared.checkpointing.not_used(&topic.name, &error.to_string());
            return Self { loaded: None, headers };
        }
        let found = match distrusted {
            Some(error) => Err(error),
            None => find(shared, checkpoint, topic, ranges, headers).await,
        };
        let loaded =
            found.map_err(|error| shared.checkpointing.not_used(&topic.name, &error.to_string())).ok();
        let (started, keeper, starts) = (checkpoint.clone(), loaded.clone(), ranges.to_vec());
        let (topic_kept, isolation) = (topic.clone(), shared.log.isolation());
        let start = move || Keeper::start(started, &topic_kept, &starts, headers, isolation, keeper.as_ref());
        let keeper = tokio::task::spawn_blocking(start).await;
        match keeper {
            Ok(Ok(keeper)) => {
                let mut state = lock(&shared.checkpointing.state);
                state.keeper = Some(Arc::new(keeper));
                state.failed = None;
                state.as_of = loaded.as_ref().map(Loaded::as_of);
                state.loaded = loaded.as_ref().map_or(0, Loaded::records);
                if loaded.is_some() {
                    state.unused = None;
                }
            }
            Ok(Err(error)) => {
                tracing::warn!(topic = topic.name, "no checkpoint is kept: {error}");
                shared.checkpointing.abandon(&error);
            }
            Err(_) => {}
        }
        Self { loaded, headers }
    }

    /// Where the log is to be read from.
    pub(super) fn rest(&self, ranges: &[OffsetRange]) -> Vec<OffsetRange> {
        let rest = |&range: &OffsetRange| self.loaded.as_ref().map_or(range, |loaded| loaded.rest(range));
        ranges.iter().map(rest).collect()
    }

    /// A partition: what the checkpoint has, then what the log has behind it. `range` is all
    /// of it.
    pub(super) fn join(
        &self,
        range: OffsetRange,
        log: PartitionStream,
    ) -> impl Stream<Item = Result<Item, Broken>> + Send + use<> {
        let new = |item| Item { item, is_new: true };
        match &self.loaded {
            None => log.map(move |item| Ok(new(item?))).left_stream(),
            Some(loaded) => {
                let old = loaded
                    .stream(range, self.headers)
                    .map(|batch| batch.map(old).map_err(Broken::Checkpoint));
                let mut overlap = loaded.overlap(range.partition);
                let reached = Item { item: StreamItem::Position(overlap.position()), is_new: false };
                // Told when the log was seen to go on behind what is kept, and not before: a
                // table is complete then.
                let mut reached = Some(Ok(reached));
                let at_once = stream::iter(if overlap.is_known() { reached.take() } else { None });
                let rest = log.flat_map(move |item| {
                    let item = match item {
                        Ok(StreamItem::Records(batch)) => match overlap.new_of(*batch) {
                            Ok(batch) if batch.is_empty() => None,
                            Ok(batch) => Some(Ok(new(StreamItem::Records(Box::new(batch))))),
                            Err(error) => Some(Err(Broken::Checkpoint(error))),
                        },
                        Ok(item) => Some(Ok(new(item))),
                        Err(error) => Some(Err(Broken::Log(error))),
                    };
                    let reached = if matches!(item, Some(Err(_))) { None } else { reached.take() };
                    stream::iter(reached.into_iter().chain(item))
                });
                old.chain(at_once).chain(rest).right_stream()
            }
        }
    }
}

fn old(batch: RecordBatch) -> Item {
    Item { item: StreamItem::Records(Box::new(batch)), is_new: false }
}

/// The checkpoint that is there, if it is sound.
async fn find(
    shared: &Shared,
    checkpoint: &Arc<Checkpoint>,
    topic: &TopicDescription,
    ranges: &[OffsetRange],
    headers: Headers,
) -> Result<Loaded, CheckpointError> {
    let max_age = max_age(shared, topic).await;
    lock(&shared.checkpointing.state).max_age = max_age.as_ref().ok().copied();
    let (checkpoint, topic, ranges) = (checkpoint.clone(), topic.clone(), ranges.to_vec());
    let (now, isolation) = (shared.settings.clock.now(), shared.log.isolation());
    let load = move || {
        let found = |max_age| {
            checkpoint.load(&Wanted { topic: &topic, ranges: &ranges, headers, isolation, max_age, now })
        };
        match max_age {
            Ok(max_age) => found(max_age),
            // That there is none is said first.
            Err(error) => found(Duration::MAX).and(Err(error)),
        }
    };
    tokio::task::spawn_blocking(load).await.unwrap_or(Err(CheckpointError::Slow))
}

/// How long the log keeps tombstones.
async fn max_age(shared: &Shared, topic: &TopicDescription) -> Result<Duration, CheckpointError> {
    if let Some(max_age) = shared.settings.checkpoint.as_ref().and_then(|settings| settings.max_age) {
        return Ok(max_age);
    }
    let unfit = |reason: String| CheckpointError::Unfit {
        reason: format!(
            "how long the log keeps tombstones cannot be told ({reason}); checkpoint_max_age would say it"
        ),
    };
    let setting = shared.log.setting(&topic.name, "delete.retention.ms").await;
    let millis = setting.map_err(|error| unfit(error.to_string()))?;
    // A log that keeps them for ever says so with a number that is as good as that.
    millis.parse().map(Duration::from_millis).map_err(|_| unfit(format!("delete.retention.ms={millis}")))
}

/// What of a decoded batch a checkpoint keeps.
pub(super) fn kept(is_new: bool, batch: Arc<RecordBatch>, rejected: Vec<i64>) -> Option<Kept> {
    let partition: Partition = batch.partition();
    match (is_new, rejected.is_empty()) {
        (true, _) => Some(Kept::Records(batch, rejected)),
        (false, false) => Some(Kept::Rejected(partition, rejected)),
        (false, true) => None,
    }
}
