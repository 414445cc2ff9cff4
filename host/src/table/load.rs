//! The task of a table: loads a generation, follows its topic, and begins another
//! generation beside it when the topic is replaced.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{BoxStream, SelectAll};
use futures_util::{FutureExt, Stream, StreamExt, stream};
use tokio::sync::watch;
use tokio::time::{sleep, sleep_until};

use crate::codec::workers;
use crate::log::{
    Headers, LogError, Offset, Partition, PartitionStream, RecordBatch, StreamItem, TopicDescription,
    TopicNews,
};
use crate::table::decode::{Decoded, decode};
use crate::table::error::TableError;
use crate::table::expiry::Deadlines;
use crate::table::shared::{Shared, Work};
use crate::table::view::View;

/// How many batches of a partition are decoded at once: one on its way through
/// the codec while the next is fetched.
const BATCHES_IN_FLIGHT: usize = 2;

/// How long to wait before trying again what the host could not do.
const RETRY: Duration = Duration::from_secs(1);

/// How many steps are taken at once, if so many are there: the more are, the less a
/// moment costs.
const STEPS: usize = 16;

/// One step of a partition's ordered stream.
pub(super) enum Step {
    Apply(Decoded),
    Position(Partition, Offset),
    /// The partition begins here now.
    Start(Partition, Offset),
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
    let mut serving = Serving::Nothing;
    let mut generation = 1;
    loop {
        let error = match load(shared, &topic, generation, &mut serving).await {
            Err(TableError::Log(error)) => error,
            Err(error) => return error,
        };
        let replaced = matches!(error, LogError::Replaced { .. } | LogError::UnknownTopic { .. });
        if !passing(shared, &error) && !replaced {
            return error.into();
        }
        tracing::warn!(topic = topic.name, "loading a new generation: {error}");
        shared.update(|conditions| {
            conditions.outdated = Some(format!("loading the topic again: {error}").into());
            conditions.undecoded.clear();
            conditions.standstills.clear();
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
    let mut late = pin!(sleep_until(shared.late));
    let mut warned = false;
    loop {
        shared.update(|conditions| {
            conditions.unreachable = health.trouble().map(|trouble| trouble.to_string().into());
        });
        tokio::select! {
            () = health.changed() => {}
            () = &mut late, if !warned => {
                warned = true;
                let reason = format!("still loading after {:?}{}", shared.settings.catchup_timeout, shared.behind());
                shared.update(|conditions| conditions.late = Some(reason.into()));
            }
        }
    }
}

/// What readers have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Serving {
    /// No record yet.
    Nothing,
    /// A generation, by its number.
    Generation(u64),
}

/// Loads a generation and follows the topic; only an error ends it. It is served when it
/// is complete; where nothing is served, what there is of it once that takes too long.
async fn load(
    shared: &Arc<Shared>,
    topic: &Arc<TopicDescription>,
    generation: u64,
    serving: &mut Serving,
) -> Result<std::convert::Infallible, TableError> {
    let ranges = shared.log.offsets(topic).await?;
    let headers = if shared.codecs.value.wants_headers() { Headers::Wanted } else { Headers::Unwanted };
    let mut topic_stream = shared.log.read(topic, &ranges, headers).await?;
    let mut steps = SelectAll::new();
    let view = View::to_be_loaded(generation, topic.clone());
    shared.begin_loading(&view);
    let mut work = Work { view, deadlines: shared.settings.ttl.map(Deadlines::new) };
    let mut complete = false;
    let mut expected = ranges.len();
    let mut late = pin!(sleep_until(shared.late));
    loop {
        if !complete && expected == 0 && shared.is_loaded(&work.view) {
            complete = true;
            if *serving != Serving::Generation(generation) {
                work.view = served(shared, work.view).await;
                *serving = Serving::Generation(generation);
            }
            shared.update(|conditions| conditions.outdated = None);
            shared.finish_loading(work.view.counters.records);
        }
        let next_expiry = work.deadlines.as_ref().and_then(Deadlines::next);
        let step = tokio::select! {
            // Partitions first: what is loaded must count all that are known.
            biased;
            news = topic_stream.next() => {
                let stream = match news.unwrap_or(Err(LogError::Closed))? {
                    TopicNews::Partition(stream) => stream,
                    TopicNews::Standstills(standstills) => {
                        shared.update(|conditions| conditions.standstills = standstills);
                        continue;
                    }
                };
                expected = expected.saturating_sub(1);
                work.view.begin(stream.range());
                shared.expect(stream.range());
                steps.push(decoding(shared, stream));
                continue;
            }
            () = &mut late, if *serving == Serving::Nothing => {
                work.view = served(shared, work.view).await;
                *serving = Serving::Generation(generation);
                continue;
            }
            () = expiring(shared, next_expiry), if *serving == Serving::Generation(generation) => {
                shared.take_and_publish(&mut work, Vec::new())?;
                continue;
            }
            step = steps.next(), if !steps.is_empty() => step.unwrap_or(Err(LogError::Closed))?,
        };
        let (taken, error) = with_those_at_hand(step, &mut steps);
        match *serving == Serving::Generation(generation) {
            true => shared.take_and_publish(&mut work, taken)?,
            false => shared.take(&mut work, taken)?,
        }
        error?;
    }
}

/// Waits until something of a table may have expired, or its clock was set.
async fn expiring(shared: &Shared, next: Option<i64>) {
    match (shared.settings.ttl, next) {
        (None, _) => std::future::pending().await,
        (Some(_), next) => shared.settings.clock.until(next.unwrap_or(i64::MAX)).await,
    }
}

/// A step, and those behind it that need not be waited for; and what ended them.
fn with_those_at_hand(
    first: Step,
    steps: &mut (impl Stream<Item = Result<Step, LogError>> + Unpin),
) -> (Vec<Step>, Result<(), LogError>) {
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

/// Puts a generation in order, on the codec workers, and serves it.
async fn served(shared: &Shared, view: View) -> View {
    loop {
        let mut sorted = view.clone();
        let sort = move || {
            sorted.sort();
            Ok(sorted)
        };
        match workers::run(sort).await {
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
                StreamItem::Start(offset) => Ok(Step::Start(partition, offset)),
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
