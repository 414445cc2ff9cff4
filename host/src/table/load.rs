//! The task of a table: loads a generation, follows its topic, and begins another
//! generation beside it when the topic is replaced.

use std::collections::HashMap;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::stream::SelectAll;
use futures_util::{FutureExt, Stream, StreamExt};
use tokio::sync::watch;
use tokio::time::{sleep, sleep_until};

use crate::checkpoint::{Checkpoint, CheckpointError};
use crate::codec::workers;
use crate::log::{Applied, Headers, LogError, Partition, TopicDescription, TopicNews};
use crate::table::decoding::{Step, decoding};
use crate::table::error::TableError;
use crate::table::expiry::Deadlines;
use crate::table::resume::{self, Broken, Resumed};
use crate::table::shared::{Shared, Work, lock};
use crate::table::view::View;
use crate::thread::long;

/// How long to wait before trying again what the host could not do.
pub(super) const RETRY: Duration = Duration::from_secs(1);

/// How often to look whether there is room in memory again.
const ROOM_LOOK: Duration = Duration::from_millis(200);

/// How many steps are taken at once, if so many are there: the more are, the less a
/// moment costs.
const STEPS: usize = 16;

/// Follows the topic until told to stop, or until all handles are gone.
pub(super) async fn run(shared: Arc<Shared>, mut stopped: watch::Receiver<bool>) {
    let _end = Over(shared.clone());
    tokio::select! {
        // An error means that the last handle was dropped.
        _ = stopped.wait_for(|&stopped| stopped) => {}
        () = observe(&shared) => {}
        error = follow(&shared) => shared.update(|conditions| conditions.failed = Some(Arc::new(error))),
    }
    shared.update(|conditions| conditions.stopped = true);
    if !shared.checkpointing.finish().await {
        tracing::warn!(topic = shared.topic.name, "the disk does not take the end of the checkpoint");
    }
}

/// Says that the task is over, however it came to its end: nobody is to wait for it
/// for ever.
struct Over(Arc<Shared>);

impl Drop for Over {
    fn drop(&mut self) {
        let panicked =
            std::thread::panicking().then(|| TableError::Panicked { topic: self.0.topic.name.clone() });
        self.0.update(|conditions| {
            conditions.stopped = true;
            conditions.failed = panicked.map(Arc::new).or(conditions.failed.take());
        });
        self.0.ended.send_replace(true);
    }
}

/// What ends the loading and following of a generation.
enum End {
    Log(LogError),
    /// The checkpoint it began with is of no use.
    Checkpoint(CheckpointError),
    Halted(TableError),
}

impl From<LogError> for End {
    fn from(error: LogError) -> Self {
        Self::Log(error)
    }
}

impl From<Broken> for End {
    fn from(broken: Broken) -> Self {
        match broken {
            Broken::Log(error) => Self::Log(error),
            Broken::Checkpoint(error) => Self::Checkpoint(error),
        }
    }
}

/// Loads generation after generation, until the log fails for good.
async fn follow(shared: &Arc<Shared>) -> TableError {
    let mut topic = shared.topic.clone();
    let mut served = None;
    let mut generation = 1;
    let checkpoint = resume::open(shared).await;
    let mut distrusted = None;
    loop {
        let of = Generation { topic: &topic, number: generation };
        let end = tokio::select! {
            Err(end) = load(shared, of, &mut served, checkpoint.as_ref(), distrusted.take()) => end,
            error = resume::missed(shared), if checkpoint.is_some() => End::Checkpoint(error),
        };
        let (reason, is_checkpoints) = match end {
            End::Halted(error) => return error,
            End::Checkpoint(error) => {
                let reason = error.to_string();
                distrusted = Some(error);
                (reason, true)
            }
            End::Log(error) => {
                let replaced = matches!(error, LogError::Replaced { .. } | LogError::UnknownTopic { .. });
                if replaced {
                    distrusted = Some(CheckpointError::Unfit { reason: error.to_string() });
                }
                if !passing(shared, &error) && !replaced {
                    return error.into();
                }
                (error.to_string(), false)
            }
        };
        tracing::warn!(topic = topic.name, "loading a new generation: {reason}");
        shared.update(|conditions| {
            conditions.outdated = Some(format!("loading the topic again: {reason}").into());
            conditions.undecoded.clear();
            conditions.lags.clear();
        });
        if !is_checkpoints {
            topic = match serving(shared, &mut served, reappeared(shared, &topic)).await {
                Ok(topic) => Arc::new(topic),
                Err(error) => return error.into(),
            };
        }
        generation += 1;
    }
}

/// Which generation.
#[derive(Clone, Copy)]
struct Generation<'a> {
    topic: &'a Arc<TopicDescription>,
    number: u64,
}

/// Whether to go on trying. What a disk or a door refuses at the start it will go on
/// to refuse; a table that was complete waits until somebody mends it.
fn passing(shared: &Shared, error: &LogError) -> bool {
    match error {
        LogError::Unreachable { .. } => true,
        LogError::Authentication { .. } => shared.was_complete(),
        error => error.is_transient() && shared.was_complete(),
    }
}

/// Waits for the topic to be there; a while if it is the one that was followed, so
/// that what is wrong with it may pass.
async fn reappeared(shared: &Shared, before: &TopicDescription) -> Result<TopicDescription, LogError> {
    loop {
        match shared.log.describe(&before.name).await {
            Ok(topic) => {
                if topic.id == before.id {
                    sleep(RETRY).await;
                }
                return Ok(topic);
            }
            Err(LogError::UnknownTopic { .. }) => {
                shared.update(|conditions| conditions.outdated = Some("the topic is missing".into()));
            }
            Err(error) if passing(shared, &error) => {
                shared.update(|conditions| conditions.outdated = Some(error.to_string().into()));
            }
            Err(error) => return Err(error),
        }
        sleep(RETRY).await;
    }
}

/// Says when loading takes longer than it should, and when the log is out of reach
/// and when it is back.
async fn observe(shared: &Arc<Shared>) {
    let mut health = shared.log.health();
    let mut late = pin!(sleep_until(shared.late));
    let mut warned = false;
    let mut minutes = tokio::time::interval(Duration::from_secs(60));
    loop {
        shared.update(|conditions| {
            conditions.unreachable = health.trouble().map(|trouble| trouble.to_string().into());
        });
        tokio::select! {
            () = health.changed() => {}
            now = minutes.tick() => {
                lock(&shared.hub).expire(now.into_std());
                continue;
            }
            () = &mut late, if !warned => {
                warned = true;
                if shared.reads.load(Ordering::Acquire) {
                    // It is told when what there is is served.
                    continue;
                }
                shared.tell_late();
            }
        }
    }
}

/// That a generation is read, as long as this lives.
struct Reads<'a>(&'a AtomicBool);

impl<'a> Reads<'a> {
    fn of(shared: &'a Shared) -> Self {
        shared.reads.store(true, Ordering::Release);
        Self(&shared.reads)
    }
}

impl Drop for Reads<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

/// The works of a table.
struct Works<'a> {
    /// What readers have.
    served: &'a mut Option<Work>,
    /// The one that is read, until it is served.
    loading: Option<Work>,
}

impl Works<'_> {
    /// The one that is read.
    fn read(&mut self) -> &mut View {
        let work = self.loading.as_mut().or(self.served.as_mut());
        // OK because it is served when it is not loading.
        &mut work.expect("one that is read").view
    }

    /// Serves the one that is read.
    async fn serve(&mut self, shared: &Shared) {
        if let Some(Work { view, deadlines }) = self.loading.take() {
            *self.served = Some(Work { view: ordered(shared, view).await, deadlines });
        }
    }

    /// Takes steps of the one that is read.
    fn take(&mut self, shared: &Shared, steps: Vec<Step>) -> Result<(), TableError> {
        match (&mut self.loading, &mut self.served) {
            (Some(loading), _) => shared.take(loading, steps),
            (None, Some(served)) => shared.take_and_publish(served, steps),
            (None, None) => Ok(()),
        }
    }
}

/// From this many records on, applying them takes too long for a thread of the runtime.
const LONG: usize = 2048;

/// Does something while the entries that are served expire.
async fn serving<T>(shared: &Shared, served: &mut Option<Work>, doing: impl Future<Output = T>) -> T {
    let mut doing = pin!(doing);
    loop {
        tokio::select! {
            done = &mut doing => return done,
            () = expiring(shared, served.as_ref()) => expire(shared, served),
        }
    }
}

/// Hides the entries that are served and whose time is over.
fn expire(shared: &Shared, served: &mut Option<Work>) {
    if let Some(work) = served {
        // OK because there is no record that could halt the table.
        long(|| shared.take_and_publish(work, Vec::new())).expect("no record");
    }
}

/// Loads a generation and follows the topic; only an error ends it. It is served when it
/// is complete; where nothing is served, what there is of it once that takes too long.
async fn load(
    shared: &Arc<Shared>,
    Generation { topic, number: generation }: Generation<'_>,
    served: &mut Option<Work>,
    checkpoint: Option<&Arc<Checkpoint>>,
    distrusted: Option<CheckpointError>,
) -> Result<std::convert::Infallible, End> {
    let began = shared.settings.clock.now();
    let headers = if shared.codecs.value.wants_headers() { Headers::Wanted } else { Headers::Unwanted };
    let prepared = async {
        let ranges = shared.log.offsets(topic).await?;
        let resumed = Resumed::new(shared, checkpoint, topic, &ranges, headers, distrusted).await;
        let stream = shared.log.read(topic, &resumed.rest(&ranges), headers).await?;
        Ok::<_, LogError>((ranges, resumed, stream))
    };
    let (ranges, resumed, mut topic_stream) = serving(shared, served, prepared).await?;
    let mut steps = SelectAll::new();
    let mut applied: HashMap<Partition, Applied> = HashMap::new();
    let view = View::to_be_loaded(generation, topic.clone());
    shared.begin_loading(&view);
    let deadlines = shared.settings.ttl.map(Deadlines::new);
    let mut works = Works { served, loading: Some(Work { view, deadlines }) };
    let mut complete = false;
    let mut expected = ranges.len();
    let mut late = pin!(sleep_until(shared.late));
    let _reads = Reads::of(shared);
    loop {
        if !complete && expected == 0 && shared.is_loaded(works.read()) {
            complete = true;
            let now = shared.settings.clock.now();
            shared.checkpointing.complete(began, now).map_err(End::Checkpoint)?;
            works.serve(shared).await;
            let view = works.read();
            shared.update(|conditions| {
                conditions.outdated = None;
                // What was slow to be read is read, as far as it was there.
                conditions.lags.retain(|lag| view.position(lag.partition) <= lag.position);
            });
            shared.finish_loading(view.counters.records);
        }
        wait_for_room(shared, &mut works).await;
        let step = tokio::select! {
            // Partitions first: what is loaded must count all that are known.
            biased;
            news = topic_stream.next() => {
                let stream = match news.unwrap_or(Err(LogError::Closed))? {
                    TopicNews::Partition(stream) => stream,
                    TopicNews::Lags(lags) => {
                        shared.update(|conditions| conditions.lags = lags);
                        continue;
                    }
                };
                expected = expected.saturating_sub(1);
                let known = ranges.iter().find(|range| range.partition == stream.range().partition);
                let range = known.copied().unwrap_or(stream.range());
                works.read().begin(range);
                shared.expect(range);
                applied.insert(range.partition, stream.applied());
                steps.push(decoding(shared, range.partition, resumed.join(range, stream)));
                continue;
            }
            () = &mut late, if works.served.is_none() => {
                works.serve(shared).await;
                shared.tell_late();
                continue;
            }
            () = expiring(shared, works.served.as_ref()) => {
                expire(shared, works.served);
                continue;
            }
            step = steps.next(), if !steps.is_empty() => step.unwrap_or(Err(Broken::Log(LogError::Closed)))?,
        };
        let (mut taken, error) = with_those_at_hand(step, &mut steps);
        if shared.checkpointing.is_kept() {
            shared.checkpointing.keep(taken.iter_mut().filter_map(Step::kept)).await;
        }
        let partitions: Vec<Partition> = taken.iter().map(Step::partition).collect();
        let is_long = taken.iter().map(Step::weight).sum::<usize>() >= LONG;
        let take = || works.take(shared, taken);
        (if is_long { long(take) } else { take() }).map_err(End::Halted)?;
        let view = works.read();
        for partition in partitions {
            if let Some(applied) = applied.get(&partition) {
                applied.set(view.position(partition));
            }
        }
        error?;
    }
}

/// Waits while the table, or the process, takes more memory than it may.
async fn wait_for_room(shared: &Shared, works: &mut Works<'_>) {
    let mut is_told = false;
    while let Some(reason) = over_limit(shared, works) {
        if !std::mem::replace(&mut is_told, true) {
            if works.served.is_none() {
                // What there is can be read meanwhile.
                works.serve(shared).await;
            }
            shared.update(|conditions| conditions.memory = Some(reason.into()));
        }
        serving(shared, works.served, sleep(ROOM_LOOK)).await;
    }
    if is_told {
        shared.update(|conditions| conditions.memory = None);
    }
}

/// Why no more may be applied, if so.
fn over_limit(shared: &Shared, works: &Works<'_>) -> Option<String> {
    if let Some(limit) = shared.settings.memory_limit {
        // A generation that takes over makes room: the larger one counts.
        let generations = works.loading.iter().chain(works.served.as_ref());
        let used = generations.map(|work| work.view.byte_len()).max().unwrap_or(0) + shared.bytes_beside();
        if used > limit {
            return Some(format!(
                "memory limit {limit} bytes: the table uses {used}, set tables.NAME.memory_limit"
            ));
        }
    }
    let (used, limit) = crate::memory::over_process_limit()?;
    Some(format!("memory limit {limit} bytes: the process uses {used}, set limits.memory"))
}

/// Waits until something of what is served may have expired, or the clock was set.
async fn expiring(shared: &Shared, served: Option<&Work>) {
    match served.and_then(|work| work.deadlines.as_ref()) {
        None => std::future::pending().await,
        Some(deadlines) => shared.settings.clock.until(deadlines.next().unwrap_or(i64::MAX)).await,
    }
}

/// A step, and those behind it that need not be waited for; and what ended them.
fn with_those_at_hand(
    first: Step,
    steps: &mut (impl Stream<Item = Result<Step, Broken>> + Unpin),
) -> (Vec<Step>, Result<(), Broken>) {
    let mut taken = vec![first];
    while taken.len() < STEPS {
        match steps.next().now_or_never() {
            Some(Some(Ok(step))) => taken.push(step),
            Some(Some(Err(error))) => return (taken, Err(error)),
            Some(None) | None => break,
        }
    }
    (taken, Ok(()))
}

/// Puts a generation in order, on the host's workers, and serves it.
async fn ordered(shared: &Shared, view: View) -> View {
    loop {
        let mut sorted = view.clone();
        let sort = move || {
            sorted.sort();
            sorted
        };
        match workers::run_host(sort).await {
            Ok(sorted) => {
                shared.switch(&sorted);
                return sorted;
            }
            Err(failure) => {
                tracing::error!(topic = shared.topic.name, "{failure}; trying again");
                sleep(RETRY).await;
            }
        }
    }
}
