//! Decodes the batches of a partition, in order, with codecs that may fault or be slow.
//!
//! A batch is decoded as a whole first. If a codec faults over it, it is decoded again in small parts, and a
//! part over which it faults again record by record, so that only the records at fault are rejected. If the codec
//! has exceeded its deadline, all records are decoded one by one at once: a thousand calls cost a few milliseconds more
//! than one call, while each part with a record that loops costs a deadline. The worker returns to the pool after each
//! fault and after each tick, and what was decoded by then is applied, so that a table makes progress however many of its
//! records are poison. A codec that keeps faulting waits between turns, and is quarantined in the end.

use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use futures_util::stream::BoxStream;
use futures_util::{Stream, StreamExt, stream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::sleep;

use crate::checkpoint::CheckpointRecord;
use crate::codec::workers;
use crate::codec::{CodecFailure, Codecs, HostFailure, RejectKind, RejectReason};
use crate::log::{LogError, Offset, Partition, RecordBatch, StreamItem};
use crate::table::decoded::{DecodedRecords, Outcome};
use crate::table::generation::decode::decode;
use crate::table::generation::decode_turn::{FaultingCalls, PART_BYTES, Turn, TurnRange, decode_turn};
use crate::table::generation::source::{Origin, SourceItem, StreamError};
use crate::table::generation_state::GenerationState;
use crate::table::quarantine::{CallStats, Change, Permit as QuarantinePermit};
use crate::table::reject::RejectedRecord;
use crate::table::settings::RETRY_AFTER;
use crate::table::shared::Shared;

/// How many batches of a partition are decoded at once: one is decoded while the next is fetched.
const BATCHES_IN_FLIGHT: usize = 2;

/// After this many consecutive faults, a codec waits before its next turn.
const MAX_CONSECUTIVE_FAULTS: u32 = 4;

/// The first and the longest back-off between turns. Each is twice as long as the one before.
const FIRST_BACK_OFF: Duration = Duration::from_millis(50);
const MAX_BACK_OFF: Duration = Duration::from_secs(2);

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
    /// When the log delivered it; `None` if it is from a checkpoint.
    pub(super) received: Option<Instant>,
    /// What a checkpoint keeps of it.
    record: Option<CheckpointRecord>,
    /// Its raw records, if some were rejected in a table with a dead-letter topic.
    raw: Option<Arc<RecordBatch>>,
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

    /// Returns when the log delivered the step's records.
    pub(super) fn received(&self) -> Option<Instant> {
        match self {
            Self::Apply(batch) => batch.received,
            Self::Position { .. } | Self::Start { .. } => None,
        }
    }

    /// Returns the rejected records of the step with their raw batch, in a table with a dead-letter topic.
    pub(super) fn take_rejected(&mut self) -> Option<(Arc<RecordBatch>, Vec<&RejectedRecord>)> {
        let Self::Apply(batch) = self else { return None };
        let raw = batch.raw.take()?;
        let rejected = batch.decoded.outcomes.iter().filter_map(|outcome| match outcome {
            Outcome::Reject(reject) => Some(&**reject),
            _ => None,
        });
        Some((raw, rejected.collect()))
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
                StreamItem::Records(batch) => {
                    let (batch, received) = (Arc::new(*batch), Instant::now());
                    decoder.decode_whole(SourceBatch { batch, origin, received }).await
                }
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
        Ok(FirstAttempt::Whole(decoded, source)) => {
            let decoder = second_decoder.clone();
            stream::once(async move { Ok(decoder.step(decoded, source).await) }).boxed()
        }
        Ok(FirstAttempt::Again { source, exceeded_deadline }) => {
            second_decoder.clone().decode_again(source, exceeded_deadline).map(Ok).boxed()
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
    Whole(DecodedRecords, SourceBatch),
    /// A codec faulted over the batch, or is in quarantine, or the batch decodes to too many bytes. If the codec exceeded
    /// its deadline, each record is decoded alone, because every larger call may cost a deadline.
    Again {
        source: SourceBatch,
        exceeded_deadline: bool,
    },
}

/// A batch, or a part of one, before it is decoded.
#[derive(Clone)]
struct SourceBatch {
    batch: Arc<RecordBatch>,
    origin: Origin,
    /// When it was delivered.
    received: Instant,
}

/// How far a batch has come that is decoded again.
struct BatchProgress {
    batch: Arc<RecordBatch>,
    /// The index of the next record.
    next: usize,
    /// Below this index, each record is decoded alone.
    alone_until: usize,
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
    async fn decode_whole(&self, source: SourceBatch) -> FirstAttempt {
        let batch = source.batch.clone();
        let job = batch.clone();
        let decode_batch = move |codecs: &Codecs| {
            let began = Instant::now();
            Ok((CodecFailure::split(decode(codecs, &job))?, began.elapsed()))
        };
        let mut has_failed = false;
        let result = loop {
            // It may begin between two attempts, because a codec no longer starts.
            if self.state.quarantine.is_active() {
                if has_failed {
                    self.forget_failure(&batch);
                }
                return FirstAttempt::Again { source, exceeded_deadline: false };
            }
            match self.try_run(&batch, 0, None, &mut has_failed, decode_batch.clone()).await {
                Some(result) => break result,
                None => sleep(RETRY_AFTER).await,
            }
        };
        match result {
            // Not noted: its parts are, when they are decoded.
            (Ok(decoded), _) if decoded.byte_len() > MAX_WHOLE_BYTES => {
                FirstAttempt::Again { source, exceeded_deadline: false }
            }
            (Ok(decoded), took) => {
                // The time of a record that is rejected among others is not known, and is short.
                let is_fault = batch.len() == 1 && decoded.ends_with_fault();
                let faults =
                    if is_fault { FaultingCalls { count: 1, time: took } } else { FaultingCalls::default() };
                self.note(&decoded, took, faults, None);
                FirstAttempt::Whole(decoded, source)
            }
            (Err(fault), took) => {
                self.note_fault(&fault, took);
                tracing::debug!(
                    topic = self.state.topic.name,
                    partition = batch.partition(),
                    offset = batch.get(0).offset,
                    "a codec faulted over {} records ({fault}); decoding them again in parts",
                    batch.len()
                );
                let exceeded_deadline = fault.kind == RejectKind::Deadline;
                FirstAttempt::Again { source, exceeded_deadline }
            }
        }
    }

    /// Notes a call that faulted. Its records are noted when they are decoded again.
    fn note_fault(&self, fault: &RejectReason, took: Duration) {
        let last_fault = Some(fault);
        let calls =
            CallStats { last_fault, took, faulting_calls: 1, fault_time: took, ..CallStats::default() };
        self.note_stats(calls, None);
    }

    /// Notes the calls that have decoded some records.
    fn note(
        &self,
        decoded: &DecodedRecords,
        took: Duration,
        faulting: FaultingCalls,
        permit: Option<&QuarantinePermit>,
    ) {
        let (faults, last_fault) = decoded.faults();
        let FaultingCalls { count: faulting_calls, time: fault_time } = faulting;
        let records = decoded.outcomes.len() as u64;
        self.note_stats(CallStats { records, faults, last_fault, took, faulting_calls, fault_time }, permit);
    }

    /// Notes calls, which may begin or end the quarantine of the codecs.
    fn note_stats(&self, calls: CallStats<'_>, permit: Option<&QuarantinePermit>) {
        // Codecs of the host do not fault, but may no longer start.
        if self.state.lane.is_host() && !self.state.quarantine.is_active() {
            return;
        }
        let settings = self.shared.settings.quarantine;
        self.state.quarantine.note(settings, calls, permit, |change| self.publish(change));
    }

    /// Reports the begin or the end of a quarantine.
    fn publish(&self, change: Change) {
        let topic = &self.state.topic.name;
        let reason = match change {
            Change::Began(reason) => {
                tracing::error!(topic, "{reason}");
                Some(reason)
            }
            Change::Ended => {
                tracing::info!(topic, "the quarantine of the codec has ended");
                None
            }
        };
        self.shared.update_generation(&self.state, |conditions| conditions.quarantined = reason);
    }

    /// The step that applies a decoded batch.
    async fn step(&self, mut decoded: DecodedRecords, source: SourceBatch) -> Step {
        let SourceBatch { batch, origin, received } = source;
        if origin == Origin::Checkpoint {
            // The position follows once the log is seen to continue there.
            decoded.next = 0;
        }
        let has_rejects = || decoded.outcomes.iter().any(|outcome| matches!(outcome, Outcome::Reject(_)));
        let raw = (self.shared.dead_letters.is_some() && has_rejects()).then(|| batch.clone());
        let is_enabled = self.shared.checkpointing.is_enabled(self.state.number);
        let record = is_enabled.then(|| checkpoint_record(origin, batch, &decoded)).flatten();
        let _budget = Budget::acquire(decoded.byte_len()).await;
        let received = (origin == Origin::Log).then_some(received);
        Step::Apply(DecodedBatch { decoded, received, record, raw, _budget })
    }

    /// Decodes a batch in parts, or record by record. Each step has the records of one turn on a worker.
    fn decode_again(self, source: SourceBatch, exceeded_deadline: bool) -> impl Stream<Item = Step> + Send {
        let batch = source.batch.clone();
        let alone_until = if exceeded_deadline { batch.len() } else { 0 };
        let progress =
            BatchProgress { batch, next: 0, alone_until, consecutive_faults: 0, back_off: FIRST_BACK_OFF };
        stream::unfold((self, progress, source), move |(decoder, mut progress, source)| async move {
            if progress.next == progress.batch.len() {
                return None;
            }
            if progress.consecutive_faults >= MAX_CONSECUTIVE_FAULTS {
                sleep(progress.back_off).await;
                progress.back_off = (progress.back_off * 2).min(MAX_BACK_OFF);
                progress.consecutive_faults = 0;
            }
            let (turn, permit) = decoder.run_turn(&progress).await;
            let Turn { decoded, alone_until, took, faulting } = turn;
            progress.alone_until = alone_until;
            decoder.note(&decoded, took, faulting, permit.as_ref());
            match decoded.ends_with_fault() {
                true => progress.consecutive_faults += 1,
                false => (progress.consecutive_faults, progress.back_off) = (0, FIRST_BACK_OFF),
            }
            let end = progress.next + decoded.outcomes.len();
            let part =
                SourceBatch { batch: Arc::new(progress.batch.slice(progress.next..end)), ..source.clone() };
            progress.next = end;
            Some((decoder.step(decoded, part).await, (decoder, progress, source)))
        })
    }

    /// Decodes the next records of a batch. In quarantine, waits for a permit, and gives it back if the host fails, so
    /// that other partitions go on.
    async fn run_turn(&self, progress: &BatchProgress) -> (Turn, Option<QuarantinePermit>) {
        let mut has_failed = false;
        loop {
            let permit = self.state.quarantine.permit(self.shared.settings.quarantine).await;
            let (batch, from) = (progress.batch.clone(), progress.next);
            let range = TurnRange { from, alone_until: progress.alone_until, only_first: permit.is_some() };
            let work = move |codecs: &Codecs| decode_turn(codecs, &batch, range);
            let attempt = self.try_run(&progress.batch, from, permit.as_ref(), &mut has_failed, work);
            if let Some(turn) = attempt.await {
                return (turn, permit);
            }
            drop(permit);
            sleep(RETRY_AFTER).await;
        }
    }

    /// Runs work on the codec workers once. Reports a failure of the host, for which no record is rejected, and its end.
    async fn try_run<T: Send + 'static>(
        &self,
        batch: &RecordBatch,
        index: usize,
        permit: Option<&QuarantinePermit>,
        has_failed: &mut bool,
        work: impl Fn(&Codecs) -> Result<T, HostFailure> + Clone + Send + 'static,
    ) -> Option<T> {
        let codecs = self.state.codecs.clone();
        let is_quick = self.state.lane.is_host() && batch.byte_len() <= SMALL_BATCH_BYTES;
        let result = match is_quick {
            // Decoding takes less time than the hand-over, and does not wait for other tables.
            true => work(&codecs),
            false => workers::run_codecs(&self.state.lane, move || work(&codecs)).await,
        };
        match result {
            Ok(result) => {
                if std::mem::take(has_failed) {
                    self.state.quarantine.note_start();
                    self.forget_failure(batch);
                }
                Some(result)
            }
            Err(failure) => {
                *has_failed = true;
                self.report_failure(batch, index, &failure);
                if failure.cannot_start {
                    let settings = self.shared.settings.quarantine;
                    let publish = |change| self.publish(change);
                    self.state.quarantine.note_failed_start(settings, &failure, permit, publish);
                }
                None
            }
        }
    }

    /// No longer reports that a batch cannot be decoded.
    fn forget_failure(&self, batch: &RecordBatch) {
        self.shared.update_generation(&self.state, |conditions| {
            conditions.undecoded.remove(&batch.partition());
        });
    }

    fn report_failure(&self, batch: &RecordBatch, index: usize, failure: &HostFailure) {
        let (partition, offset) = (batch.partition(), batch.get(index).offset);
        let reason = format!("partition {partition}, offset {offset}: {failure}; trying again");
        self.shared.update_generation(&self.state, |conditions| {
            conditions.undecoded.insert(partition, reason.into());
        });
    }
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
