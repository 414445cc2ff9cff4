//! The task of a table: loads a generation, follows its topic, and begins another
//! generation beside it when the topic is replaced.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{BoxStream, SelectAll};
use futures_util::{StreamExt, stream};
use tokio::sync::watch;
use tokio::time::sleep;

use crate::codec::workers;
use crate::log::{LogError, Offset, Partition, PartitionStream, RecordBatch, StreamItem, TopicDescription};
use crate::table::decode::{Decoded, decode};
use crate::table::error::TableError;
use crate::table::shared::Shared;
use crate::table::view::View;

/// How many batches of a partition are decoded at once: one on its way through
/// the codec while the next is fetched.
const BATCHES_IN_FLIGHT: usize = 2;

/// How long to wait before trying again what the host could not do.
const RETRY: Duration = Duration::from_secs(1);

/// One step of a partition's ordered stream.
enum Step {
    Apply(Decoded),
    Position(Partition, Offset),
}

/// Follows the topic until told to stop, or until all handles are gone.
pub(super) async fn run(shared: Arc<Shared>, mut stopped: watch::Receiver<bool>) {
    let _end = End(shared.clone());
    tokio::select! {
        // An error means that the last handle was dropped.
        _ = stopped.wait_for(|&stopped| stopped) => {}
        () = observe(&shared) => {}
        error = follow(&shared) => shared.update(|conditions| conditions.failed = Some(Arc::new(error))),
    }
}

/// Says that the task is over, however it came to its end: nobody is to wait for it
/// for ever.
struct End(Arc<Shared>);

impl Drop for End {
    fn drop(&mut self) {
        self.0.update(|conditions| conditions.stopped = true);
    }
}

/// Loads generation after generation, until the log fails for good.
async fn follow(shared: &Arc<Shared>) -> TableError {
    let mut topic = shared.topic.clone();
    let mut generation = 1;
    loop {
        let Err(error) = load(shared, &topic, generation).await;
        let replaced = matches!(error, LogError::Replaced { .. } | LogError::UnknownTopic { .. });
        if !passing(shared, &error) && !replaced {
            return error.into();
        }
        tracing::warn!(topic = topic.name, "loading a new generation: {error}");
        shared.update(|conditions| {
            conditions.outdated = Some(format!("loading the topic again: {error}").into());
            conditions.undecoded.clear();
        });
        topic = match reappeared(shared, &topic).await {
            Ok(topic) => Arc::new(topic),
            Err(error) => return error.into(),
        };
        generation += 1;
    }
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
    let mut late = pin!(sleep(shared.catchup_timeout));
    let mut warned = false;
    loop {
        shared.update(|conditions| {
            conditions.unreachable = health.trouble().map(|trouble| trouble.to_string().into());
        });
        tokio::select! {
            () = health.changed() => {}
            () = &mut late, if !warned => {
                warned = true;
                let reason = format!("still loading after {:?}{}", shared.catchup_timeout, shared.behind());
                shared.update(|conditions| conditions.late = Some(reason.into()));
            }
        }
    }
}

/// Loads a generation and follows the topic; only an error ends it. The first
/// generation is served from its first batch on, a later one when it is complete.
async fn load(
    shared: &Arc<Shared>,
    topic: &Arc<TopicDescription>,
    generation: u64,
) -> Result<std::convert::Infallible, LogError> {
    let ranges = shared.log.offsets(topic).await?;
    let mut partitions = shared.log.read(topic, &ranges).await?;
    let mut steps = SelectAll::new();
    let mut view = View::new(generation, topic.clone());
    shared.begin_loading();
    let (mut serving, mut complete) = (generation == 1, false);
    let mut expected = ranges.len();
    loop {
        if !complete && expected == 0 && shared.is_loaded(&view) {
            complete = true;
            if !serving {
                shared.switch(&view);
                serving = true;
                shared.update(|conditions| conditions.outdated = None);
            }
            shared.finish_loading(view.counters.records);
        }
        let step = tokio::select! {
            // Partitions first: what is loaded must count all that are known.
            biased;
            stream = partitions.next() => {
                let stream = stream.unwrap_or(Err(LogError::Closed))?;
                expected = expected.saturating_sub(1);
                view.begin(stream.range());
                shared.expect(stream.range());
                steps.push(decoding(shared, stream));
                continue;
            }
            step = steps.next(), if !steps.is_empty() => step.unwrap_or(Err(LogError::Closed))?,
        };
        match step {
            Step::Apply(decoded) if serving => shared.apply_and_publish(&mut view, decoded),
            Step::Apply(decoded) => shared.apply(&mut view, decoded),
            Step::Position(partition, offset) => {
                view.advance(partition, offset);
                if serving {
                    shared.publish_positions(&view);
                }
            }
        }
    }
}

/// A partition's stream with its batches decoded, in order.
fn decoding(shared: &Arc<Shared>, stream: PartitionStream) -> BoxStream<'static, Result<Step, LogError>> {
    let partition = stream.range().partition;
    let shared = shared.clone();
    let step = move |item: Result<StreamItem, LogError>| {
        let shared = shared.clone();
        async move {
            match item? {
                StreamItem::Records(batch) => Ok(Step::Apply(decoded(&shared, *batch).await)),
                StreamItem::Position(offset) => Ok(Step::Position(partition, offset)),
            }
        }
    };
    // A stream that just ends would leave its partition behind, unseen.
    let end = stream::once(async { Err(LogError::Closed) });
    stream.map(step).buffered(BATCHES_IN_FLIGHT).chain(end).boxed()
}

/// Decodes a batch on a codec worker. What the host cannot do now it tries again:
/// no record is charged with it.
async fn decoded(shared: &Shared, batch: RecordBatch) -> Decoded {
    let batch = Arc::new(batch);
    let mut failed = false;
    loop {
        let (codecs, job) = (shared.codecs.clone(), batch.clone());
        match workers::run(move || decode(&codecs, &job)).await {
            Ok(decoded) => {
                if failed {
                    shared.update(|conditions| drop(conditions.undecoded.remove(&batch.partition())));
                }
                return decoded;
            }
            Err(failure) => {
                failed = true;
                let offset = batch.get(0).offset;
                let reason =
                    format!("partition {}, offset {offset}: {failure}; trying again", batch.partition());
                shared
                    .update(|conditions| drop(conditions.undecoded.insert(batch.partition(), reason.into())));
                sleep(RETRY).await;
            }
        }
    }
}
