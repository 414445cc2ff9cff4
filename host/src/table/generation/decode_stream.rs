//! Decodes the batches of a partition, in order, with codecs that may fault or be slow.
//!
//! A batch is decoded as a whole first. If a codec faults over it, its records are decoded one by
//! one, so that only the records at fault are rejected. One by one and not by halves, because a
//! thousand calls cost a fraction of a millisecond more than one call, while each halving with a
//! record that loops costs a deadline. The worker returns to the pool after each fault and after
//! each tick, and what was decoded by then is applied, so that a table makes progress however many
//! of its records are poison. A codec that keeps faulting waits between turns.

use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use futures_util::stream::BoxStream;
use futures_util::{Stream, StreamExt, stream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::sleep;

use crate::checkpoint::CheckpointRecord;
use crate::codec::workers::{self, TICK};
use crate::codec::{CodecFailure, Codecs, HostFailure, RejectReason};
use crate::log::{LogError, Offset, Partition, RecordBatch, StreamItem};
use crate::table::decoded::DecodedRecords;
use crate::table::generation::decode::decode;
use crate::table::generation::source::{Origin, SourceItem, StreamError};
use crate::table::generation_state::GenerationState;
use crate::table::settings::RETRY_AFTER;
use crate::table::shared::Shared;

/// How many batches of a partition are decoded at once: one is decoded while the next is fetched.
const BATCHES_IN_FLIGHT: usize = 2;

/// After this many consecutive faults, a codec waits before its next turn.
const MAX_CONSECUTIVE_FAULTS: u32 = 4;

/// The first and the longest back-off between turns. Each is twice as long as the one before.
const FIRST_BACK_OFF: Duration = Duration::from_millis(50);
const MAX_BACK_OFF: Duration = Duration::from_secs(2);

/// Records that are decoded one by one are applied when they have this many bytes.
const PART_BYTES: usize = 4 << 20;

/// How many KiB all tables of the process may hold that are decoded and not yet applied. Each
/// worker may exceed it by one part.
const DECODED_KIB: usize = 128 * 1024;

/// How long a part waits for that budget.
const BUDGET_TIMEOUT: Duration = Duration::from_secs(1);

/// A batch that decodes to more bytes is decoded again in parts, when it is its turn to be applied.
const MAX_WHOLE_BYTES: usize = 2 * PART_BYTES;

/// Batches up to this size are decoded by built-in codecs on the task that reads them.
const SMALL_BATCH_BYTES: usize = 4 * 1024;

/// A step of a partition, in order.
pub(super) enum Step {
    Apply(DecodedBatch),
    /// Everything below an offset was read, although no record may have the last offsets.
    Position {
        partition: Partition,
        offset: Offset,
        origin: Origin,
    },
    /// The log no longer holds records below an offset.
    Start {
        partition: Partition,
        offset: Offset,
    },
}

/// A decoded batch, or a part of one.
pub(super) struct DecodedBatch {
    pub(super) decoded: DecodedRecords,
    /// What a checkpoint keeps of it.
    record: Option<CheckpointRecord>,
    /// Held until the batch is applied.
    _budget: Budget,
}

/// A share of [`DECODED_KIB`]; released when it is dropped.
struct Budget(#[allow(dead_code, reason = "held until it is dropped")] Option<OwnedSemaphorePermit>);

impl Budget {
    /// Waits for a share of this many bytes, for [`BUDGET_TIMEOUT`] at most: whoever has it may wait
    /// for memory, and a partition holds few parts anyway. Small batches need no share, because
    /// their number is bounded.
    async fn acquire(bytes: usize) -> Self {
        static DECODED: LazyLock<Arc<Semaphore>> = LazyLock::new(|| Arc::new(Semaphore::new(DECODED_KIB)));
        if bytes < PART_BYTES / 16 {
            return Self(None);
        }
        let kib = u32::try_from((bytes / 1024).min(DECODED_KIB)).unwrap_or(u32::MAX);
        let permit = tokio::time::timeout(BUDGET_TIMEOUT, DECODED.clone().acquire_many_owned(kib)).await;
        // The semaphore is never closed.
        Self(permit.ok().and_then(Result::ok))
    }
}

impl Step {
    /// The cost of applying the step, in records. [`Step::Start`] examines all rows.
    pub(super) fn cost(&self) -> usize {
        match self {
            Self::Apply(batch) => batch.decoded.outcomes.len(),
            Self::Start { .. } => 1 << 20,
            Self::Position { .. } => 0,
        }
    }

    /// Takes what a checkpoint keeps of the step.
    pub(super) fn take_checkpoint_record(&mut self) -> Option<CheckpointRecord> {
        match *self {
            Self::Apply(ref mut batch) => batch.record.take(),
            Self::Position { partition, offset, origin: Origin::Log } => {
                Some(CheckpointRecord::Position(partition, offset))
            }
            Self::Position { origin: Origin::Checkpoint, .. } => None,
            Self::Start { partition, offset } => Some(CheckpointRecord::Start(partition, offset)),
        }
    }
}

/// Decodes a partition's stream, in order.
pub(super) fn decode_stream(
    shared: &Arc<Shared>,
    state: &Arc<GenerationState>,
    partition: Partition,
    stream: impl Stream<Item = Result<SourceItem, StreamError>> + Send + 'static,
) -> BoxStream<'static, Result<Step, StreamError>> {
    let decoder = Decoder { shared: shared.clone(), state: state.clone() };
    let second_decoder = decoder.clone();
    let decode_whole = move |item: Result<SourceItem, StreamError>| {
        let decoder = decoder.clone();
        async move {
            let SourceItem { item, origin } = item?;
            Ok(match item {
                StreamItem::Records(batch) => decoder.decode_whole(Arc::new(*batch), origin).await,
                StreamItem::Position(offset) => {
                    FirstAttempt::Step(Step::Position { partition, offset, origin })
                }
                StreamItem::Start(offset) => FirstAttempt::Step(Step::Start { partition, offset }),
            })
        }
    };
    // Budgets are acquired in the order of the steps: a later step must not hold what an earlier one
    // waits for.
    let steps = move |first: Result<FirstAttempt, StreamError>| match first {
        Ok(FirstAttempt::Step(step)) => stream::once(std::future::ready(Ok(step))).boxed(),
        Ok(FirstAttempt::Whole(decoded, batch, origin)) => {
            let decoder = second_decoder.clone();
            stream::once(async move { Ok(decoder.step(decoded, batch, origin).await) }).boxed()
        }
        Ok(FirstAttempt::OneByOne(batch, origin)) => {
            second_decoder.clone().decode_one_by_one(batch, origin).map(Ok).boxed()
        }
        Err(error) => stream::once(std::future::ready(Err(error))).boxed(),
    };
    // Without an error, the end of one partition's stream would go unnoticed.
    let end = stream::once(async { Err(StreamError::Log(LogError::Closed)) });
    stream.map(decode_whole).buffered(BATCHES_IN_FLIGHT).flat_map(steps).chain(end).boxed()
}

/// The result of the first attempt to decode an item.
enum FirstAttempt {
    Step(Step),
    Whole(DecodedRecords, Arc<RecordBatch>, Origin),
    /// A codec faulted over the batch, or it decodes to too many bytes.
    OneByOne(Arc<RecordBatch>, Origin),
}

/// How far a batch has come whose records are decoded one by one.
struct BatchProgress {
    batch: Arc<RecordBatch>,
    /// The index of the next record.
    next: usize,
    consecutive_faults: u32,
    back_off: Duration,
}

/// Decodes the batches of one generation.
#[derive(Clone)]
struct Decoder {
    shared: Arc<Shared>,
    state: Arc<GenerationState>,
}

impl Decoder {
    async fn decode_whole(&self, batch: Arc<RecordBatch>, origin: Origin) -> FirstAttempt {
        let job = batch.clone();
        match self.run(&batch, 0, move |codecs| decode(codecs, &job)).await {
            Ok(decoded) if decoded.byte_len() > MAX_WHOLE_BYTES => FirstAttempt::OneByOne(batch, origin),
            Ok(decoded) => FirstAttempt::Whole(decoded, batch, origin),
            Err(fault) => {
                tracing::debug!(
                    topic = self.state.topic.name,
                    partition = batch.partition(),
                    offset = batch.get(0).offset,
                    "a codec faulted over {} records ({fault}); decoding them one by one",
                    batch.len()
                );
                FirstAttempt::OneByOne(batch, origin)
            }
        }
    }

    /// The step that applies a decoded batch.
    async fn step(&self, mut decoded: DecodedRecords, batch: Arc<RecordBatch>, origin: Origin) -> Step {
        if origin == Origin::Checkpoint {
            // The position follows once the log is seen to continue there.
            decoded.next = 0;
        }
        let is_enabled = self.shared.checkpointing.is_enabled(self.state.number);
        let record = is_enabled.then(|| checkpoint_record(origin, batch, &decoded)).flatten();
        let _budget = Budget::acquire(decoded.byte_len()).await;
        Step::Apply(DecodedBatch { decoded, record, _budget })
    }

    /// Decodes the records of a batch one by one. Each step has the records of one turn on a worker.
    fn decode_one_by_one(self, batch: Arc<RecordBatch>, origin: Origin) -> impl Stream<Item = Step> + Send {
        let progress = BatchProgress { batch, next: 0, consecutive_faults: 0, back_off: FIRST_BACK_OFF };
        stream::unfold((self, progress), move |(decoder, mut progress)| async move {
            if progress.next == progress.batch.len() {
                return None;
            }
            if progress.consecutive_faults >= MAX_CONSECUTIVE_FAULTS {
                sleep(progress.back_off).await;
                progress.back_off = (progress.back_off * 2).min(MAX_BACK_OFF);
                progress.consecutive_faults = 0;
            }
            let (batch, next) = (progress.batch.clone(), progress.next);
            let decoded =
                decoder.run(&progress.batch, next, move |codecs| decode_turn(codecs, &batch, next)).await;
            // OK because a record that is decoded alone is rejected instead.
            let decoded = decoded.expect("no fault over a single record");
            match decoded.ends_with_fault() {
                true => progress.consecutive_faults += 1,
                false => (progress.consecutive_faults, progress.back_off) = (0, FIRST_BACK_OFF),
            }
            let end = progress.next + decoded.outcomes.len();
            let part = Arc::new(progress.batch.slice(progress.next..end));
            progress.next = end;
            Some((decoder.step(decoded, part, origin).await, (decoder, progress)))
        })
    }

    /// Runs work on the codec workers, until it succeeds or a codec faults. Failures of the host are
    /// reported and retried: no record is rejected for them.
    async fn run(
        &self,
        batch: &RecordBatch,
        index: usize,
        work: impl Fn(&Codecs) -> Result<DecodedRecords, CodecFailure> + Clone + Send + 'static,
    ) -> Result<DecodedRecords, RejectReason> {
        let partition = batch.partition();
        let mut has_failed = false;
        loop {
            let (codecs, work) = (self.state.codecs.clone(), work.clone());
            let is_quick = self.state.lane.is_host() && batch.byte_len() <= SMALL_BATCH_BYTES;
            let result = match is_quick {
                // Decoding takes less time than the hand-over, and does not wait for other tables.
                true => Ok(work(&codecs)),
                false => workers::run(&self.state.lane, move || work(&codecs)).await,
            };
            let failure = match result {
                Ok(Err(CodecFailure::Fault(fault))) => return Err(fault),
                Ok(Ok(decoded)) => {
                    if has_failed {
                        self.shared.update_generation(&self.state, |conditions| {
                            conditions.undecoded.remove(&partition);
                        });
                    }
                    return Ok(decoded);
                }
                Ok(Err(CodecFailure::Host(failure))) | Err(failure) => failure,
            };
            has_failed = true;
            self.report_failure(batch, index, &failure);
            sleep(RETRY_AFTER).await;
        }
    }

    fn report_failure(&self, batch: &RecordBatch, index: usize, failure: &HostFailure) {
        let (partition, offset) = (batch.partition(), batch.get(index).offset);
        let reason = format!("partition {partition}, offset {offset}: {failure}; trying again");
        self.shared.update_generation(&self.state, |conditions| {
            conditions.undecoded.insert(partition, reason.into());
        });
    }
}

/// Decodes records one by one, from an index on, until a codec faults, a tick has passed, or the result
/// has [`PART_BYTES`]. Decodes at least one record.
fn decode_turn(codecs: &Codecs, batch: &RecordBatch, from: usize) -> Result<DecodedRecords, CodecFailure> {
    let began = Instant::now();
    let mut decoded = decode(codecs, &batch.slice(from..from + 1))?;
    for index in from + 1..batch.len() {
        if decoded.ends_with_fault() || began.elapsed() >= TICK || decoded.byte_len() >= PART_BYTES {
            break;
        }
        match decode(codecs, &batch.slice(index..index + 1)) {
            Ok(next) => decoded.append(next),
            // The next turn begins with this record, and reports the failure.
            Err(_) => break,
        }
    }
    Ok(decoded)
}

/// What a checkpoint keeps of a decoded batch.
fn checkpoint_record(
    origin: Origin,
    batch: Arc<RecordBatch>,
    decoded: &DecodedRecords,
) -> Option<CheckpointRecord> {
    let rejected = decoded.rejected_offsets();
    match origin {
        Origin::Log => Some(CheckpointRecord::Records(batch, rejected)),
        Origin::Checkpoint if rejected.is_empty() => None,
        Origin::Checkpoint => Some(CheckpointRecord::Rejected(batch.partition(), rejected)),
    }
}
