//! The task of a table: loads a generation, follows its topic, and begins another
//! generation beside it when the topic is replaced.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::{BoxStream, select_all};
use tokio::sync::watch;
use tokio::time::sleep;

use crate::codec::workers;
use crate::log::{
    LogError, Offset, OffsetRange, Partition, PartitionStream, RecordBatch, StreamItem, TopicDescription,
};
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
        let passing = matches!(error, LogError::Io { .. } | LogError::Watch { .. }) && shared.was_complete();
        let replaced = matches!(error, LogError::Replaced { .. } | LogError::UnknownTopic { .. });
        if !passing && !replaced {
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
            Err(error @ LogError::Io { .. }) => {
                shared.update(|conditions| conditions.outdated = Some(error.to_string().into()));
            }
            Err(error) => return Err(error),
        }
        sleep(RETRY).await;
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
    let from: Vec<(Partition, Offset)> = ranges.iter().map(|range| (range.partition, range.start)).collect();
    let streams = shared.log.read(topic, &from).await?;
    let mut steps = select_all(streams.into_iter().map(|stream| steps(shared, stream)));
    let mut view = View::new(generation, topic.clone(), from.iter().map(|&(_, offset)| offset).collect());
    shared.begin_loading(ranges.clone());
    let mut late = pin!(sleep(shared.catchup_timeout));
    let mut warned = false;
    let (mut serving, mut complete) = (generation == 1, false);
    loop {
        if !complete && reached(&view, &ranges) {
            complete = true;
            if !serving {
                shared.switch(&view);
                serving = true;
                shared.update(|conditions| conditions.outdated = None);
            }
            shared.finish_loading(view.counters.records);
        }
        let step = tokio::select! {
            step = steps.next() => step.unwrap_or(Err(LogError::Closed))?,
            () = &mut late, if !complete && !warned => {
                warned = true;
                let reason = lateness(&view, &ranges, shared.catchup_timeout);
                shared.update(|conditions| conditions.late = Some(reason.into()));
                continue;
            }
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
fn steps(shared: &Arc<Shared>, stream: PartitionStream) -> BoxStream<'static, Result<Step, LogError>> {
    let partition = stream.partition();
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
    stream.map(step).buffered(BATCHES_IN_FLIGHT).boxed()
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

/// The gate: everything that was there when loading began is applied.
fn reached(view: &View, ranges: &[OffsetRange]) -> bool {
    ranges.iter().all(|range| range.end <= range.start || view.position(range.partition) >= range.end)
}

fn lateness(view: &View, ranges: &[OffsetRange], timeout: Duration) -> String {
    let behind = ranges.iter().filter(|range| view.position(range.partition) < range.end);
    let behind: Vec<String> = behind
        .map(|range| {
            format!("partition {} at {} of {}", range.partition, view.position(range.partition), range.end)
        })
        .collect();
    format!("still loading after {timeout:?}: {}", behind.join(", "))
}
