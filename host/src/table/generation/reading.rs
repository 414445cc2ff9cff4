//! The sources of a generation: the topic's events, and the decoded steps of all partitions.

use std::sync::Arc;

use futures_util::stream::{BoxStream, SelectAll};
use futures_util::{FutureExt, StreamExt};

use crate::log::{Headers, LogError, OffsetRange, TopicEvent, TopicSample, TopicStream};
use crate::table::generation::decode_stream::{Step, decode_stream};
use crate::table::generation::resume::RecordSource;
use crate::table::generation::source::{GenerationStart, StreamError};
use crate::table::generation_state::GenerationState;
use crate::table::shared::Shared;

/// How many steps are applied before a view is published, if that many are ready. Batching
/// amortizes the cost of publishing.
const STEPS_PER_VIEW: usize = 16;

/// The sources of a generation.
pub(super) struct Reading {
    shared: Arc<Shared>,
    state: Arc<GenerationState>,
    /// What each partition held when reading began.
    ranges: Vec<OffsetRange>,
    source: RecordSource,
    topic_events: TopicStream,
    steps: SelectAll<BoxStream<'static, Result<Step, StreamError>>>,
    /// How many partitions the log has handed out.
    partitions: usize,
}

/// What the sources of a generation deliver.
pub(super) enum ReadingEvent {
    /// A partition to load.
    Partition(OffsetRange),
    /// The end offsets of the partitions.
    Sample(TopicSample),
    /// Steps to apply, and the error after them if there is one.
    Steps(Vec<Step>, Result<(), StreamError>),
}

impl Reading {
    /// Opens the sources: finds out what the topic holds, loads the checkpoint, reads the log from
    /// there.
    pub(super) async fn open(
        shared: &Arc<Shared>,
        state: &Arc<GenerationState>,
        start: GenerationStart,
    ) -> Result<Self, LogError> {
        // A dead letter has the headers of its record.
        let wants_headers = state.codecs.value.wants_headers() || shared.dead_letters.is_some();
        let headers = if wants_headers { Headers::Wanted } else { Headers::Unwanted };
        let ranges = shared.log.offsets(&state.topic).await?;
        let source = match &start.checkpoint {
            None => RecordSource::without_checkpoint(headers),
            Some(checkpoint) => {
                let distrusted = start.distrusted;
                if start.writes_checkpoint {
                    RecordSource::load_and_write(shared, state, checkpoint, &ranges, headers, distrusted)
                        .await
                } else {
                    RecordSource::load_only(shared, state, checkpoint, &ranges, headers, distrusted).await
                }
            }
        };
        let topic_events = shared.log.read(&state.topic, &source.remaining(&ranges), headers).await?;
        Ok(Self {
            shared: shared.clone(),
            state: state.clone(),
            ranges,
            source,
            topic_events,
            steps: SelectAll::new(),
            partitions: 0,
        })
    }

    /// Whether the log has handed out every partition that the topic had when reading began.
    pub(super) fn has_all_partitions(&self) -> bool {
        self.partitions >= self.ranges.len()
    }

    /// Waits for the next event.
    pub(super) async fn next(&mut self) -> Result<ReadingEvent, StreamError> {
        tokio::select! {
            // Partitions first: a topic is not loaded before all of its partitions are known.
            biased;
            event = self.topic_events.next() => self.take_event(event),
            step = self.steps.next(), if !self.steps.is_empty() => {
                let first = step.unwrap_or(Err(StreamError::Log(LogError::Closed)))?;
                let (steps, error) = self.with_ready_steps(first);
                Ok(ReadingEvent::Steps(steps, error))
            }
        }
    }

    /// Waits for the next event other than steps: a partition to load, or a sample.
    pub(super) async fn next_topic_event(&mut self) -> Result<ReadingEvent, StreamError> {
        let event = self.topic_events.next().await;
        self.take_event(event)
    }

    fn take_event(
        &mut self,
        event: Option<Result<TopicEvent, LogError>>,
    ) -> Result<ReadingEvent, StreamError> {
        match event.unwrap_or(Err(LogError::Closed))? {
            TopicEvent::Partition(stream) => {
                let partition = stream.range().partition;
                let known = self.ranges.iter().find(|range| range.partition == partition);
                let range = known.copied().unwrap_or(stream.range());
                self.partitions += 1;
                let stream = self.source.stream(range, stream);
                if self.has_all_partitions() {
                    self.source.release();
                }
                self.steps.push(decode_stream(&self.shared, &self.state, partition, stream));
                Ok(ReadingEvent::Partition(range))
            }
            TopicEvent::Sample(sample) => Ok(ReadingEvent::Sample(sample)),
        }
    }

    /// Collects the steps after `first` that are ready, up to an error.
    fn with_ready_steps(&mut self, first: Step) -> (Vec<Step>, Result<(), StreamError>) {
        let mut steps = vec![first];
        while steps.len() < STEPS_PER_VIEW {
            match self.steps.next().now_or_never() {
                Some(Some(Ok(step))) => steps.push(step),
                Some(Some(Err(error))) => return (steps, Err(error)),
                Some(None) | None => break,
            }
        }
        (steps, Ok(()))
    }
}
