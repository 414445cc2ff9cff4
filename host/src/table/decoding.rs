//! The decoding of a partition's batches, in order, by codecs that may fault or take long.
//!
//! A batch is decoded as a whole. If its codec faults over it, its records are decoded one by one,
//! so that only the culprits are rejected: one by one and not by halves, because a thousand calls
//! cost a fraction of a millisecond more than one, while each halving with a culprit that loops
//! costs a deadline. The worker goes back to the pool after each fault and after each tick, and
//! what is decided is handed on, so that a table makes progress however many of its records are
//! poison. Codecs that go on faulting wait between turns.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::stream::BoxStream;
use futures_util::{Stream, StreamExt, stream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::sleep;

use crate::checkpoint::Kept;
use crate::codec::workers::{self, TICK};
use crate::codec::{CodecFailure, HostFailure};
use crate::log::{LogError, Offset, Partition, RecordBatch, StreamItem};
use crate::table::decode::{Decoded, decode};
use crate::table::load::RETRY;
use crate::table::resume::{self, Broken, Item};
use crate::table::shared::Shared;

/// How many batches of a partition are decoded at once: one on its way through
/// the codec while the next is fetched.
const BATCHES_IN_FLIGHT: usize = 2;

/// After this many faults in a row, a codec waits before its next turn.
const FAULTS_IN_A_ROW: u32 = 4;

/// How long it waits at first, and at most: each wait is twice as long as the one before.
const FIRST_WAIT: Duration = Duration::from_millis(50);
const LONGEST_WAIT: Duration = Duration::from_secs(2);

/// What is decoded one by one is handed on when it has this many bytes.
const PART_BYTES: usize = 4 << 20;

/// What all tables of the process may hold that is decoded and not yet applied, in KiB. What
/// exceeds it is one part for each worker.
const DECODED_KIB: usize = 128 * 1024;

/// How long a part waits for its room.
const ROOM_WAIT: Duration = Duration::from_secs(1);

/// What a whole batch may become before its turn; what is more is decoded in parts, in its turn.
const WHOLE_BYTES: usize = 2 * PART_BYTES;

/// Batches up to this size are decoded by built-in codecs on the task that reads them.
const SMALL_BYTES: usize = 4 * 1024;

/// One step of a partition's ordered stream.
pub(super) enum Step {
    /// Decoded records, what of them a checkpoint keeps, and their room.
    Apply(Decoded, Option<Kept>, #[allow(dead_code, reason = "held until it is applied")] Room),
    /// A position, and whether it is news to a checkpoint.
    Position(Partition, Offset, bool),
    /// The partition begins here now.
    Start(Partition, Offset),
}

/// Held by what is decoded until it is applied.
pub(super) struct Room(#[allow(dead_code, reason = "held until it is dropped")] Option<OwnedSemaphorePermit>);

impl Room {
    /// Waits until there is room for so many bytes, for so long that others get on; but not for
    /// ever, because those who have it may wait for memory, and a partition holds few parts anyway.
    /// Small batches need no room of their own: their number is bounded.
    async fn of(bytes: usize) -> Self {
        static DECODED: std::sync::LazyLock<Arc<Semaphore>> =
            std::sync::LazyLock::new(|| Arc::new(Semaphore::new(DECODED_KIB)));
        if bytes < PART_BYTES / 16 {
            return Self(None);
        }
        let kib = u32::try_from((bytes / 1024).min(DECODED_KIB)).unwrap_or(u32::MAX);
        let room = tokio::time::timeout(ROOM_WAIT, DECODED.clone().acquire_many_owned(kib)).await;
        // It is never closed.
        Self(room.ok().and_then(Result::ok))
    }
}

impl Step {
    /// How long it takes, in records. A start looks at all of them.
    pub(super) fn weight(&self) -> usize {
        match self {
            Self::Apply(decoded, ..) => decoded.outcomes.len(),
            Self::Start(..) => 1 << 20,
            Self::Position(..) => 0,
        }
    }

    pub(super) fn partition(&self) -> Partition {
        match *self {
            Self::Apply(Decoded { partition, .. }, ..)
            | Self::Position(partition, ..)
            | Self::Start(partition, _) => partition,
        }
    }

    /// What of it a checkpoint keeps.
    pub(super) fn kept(&mut self) -> Option<Kept> {
        match self {
            Self::Apply(_, kept, _) => kept.take(),
            Self::Position(partition, offset, true) => Some(Kept::Position(*partition, *offset)),
            Self::Start(partition, offset) => Some(Kept::Start(*partition, *offset)),
            Self::Position(_, _, false) => None,
        }
    }
}

/// A partition's stream with its batches decoded, in order.
pub(super) fn decoding(
    shared: &Arc<Shared>,
    partition: Partition,
    stream: impl Stream<Item = Result<Item, Broken>> + Send + 'static,
) -> BoxStream<'static, Result<Step, Broken>> {
    let (first_shared, shared) = (shared.clone(), shared.clone());
    let first = move |item: Result<Item, Broken>| {
        let shared = first_shared.clone();
        async move {
            let Item { item, is_new } = item?;
            Ok(match item {
                StreamItem::Records(batch) => First::decode(&shared, Arc::new(*batch), is_new).await,
                StreamItem::Position(offset) => First::Step(Step::Position(partition, offset, is_new)),
                StreamItem::Start(offset) => First::Step(Step::Start(partition, offset)),
            })
        }
    };
    // Room is taken in turn: what comes behind must not hold what a step before it waits for.
    let steps = move |first: Result<First, Broken>| match first {
        Ok(First::Step(step)) => stream::once(std::future::ready(Ok(step))).boxed(),
        Ok(First::Whole(decoded, batch, is_new)) => {
            let shared = shared.clone();
            stream::once(async move { Ok(apply(&shared, decoded, batch, is_new).await) }).boxed()
        }
        Ok(First::OneByOne(batch, is_new)) => one_by_one(shared.clone(), batch, is_new).map(Ok).boxed(),
        Err(broken) => stream::once(std::future::ready(Err(broken))).boxed(),
    };
    // A stream that just ends would leave its partition behind, unseen.
    let end = stream::once(async { Err(Broken::Log(LogError::Closed)) });
    stream.map(first).buffered(BATCHES_IN_FLIGHT).flat_map(steps).chain(end).boxed()
}

/// What came of the first try.
enum First {
    Step(Step),
    /// What was decoded of a batch, and whether it is new.
    Whole(Decoded, Arc<RecordBatch>, bool),
    /// A codec faulted over the batch, or made too much of it.
    OneByOne(Arc<RecordBatch>, bool),
}

impl First {
    async fn decode(shared: &Arc<Shared>, batch: Arc<RecordBatch>, is_new: bool) -> Self {
        let job = batch.clone();
        let decoded = retried(shared, &batch, 0, move |codecs| decode(codecs, &job)).await;
        match decoded {
            Ok(decoded) if decoded.byte_len() > WHOLE_BYTES => Self::OneByOne(batch, is_new),
            Ok(decoded) => Self::Whole(decoded, batch, is_new),
            Err(rejection) => {
                let offset = batch.get(0).offset;
                tracing::debug!(
                    topic = shared.topic.name,
                    partition = batch.partition(),
                    offset,
                    "a codec faulted over {} records ({rejection}); going on one by one",
                    batch.len()
                );
                Self::OneByOne(batch, is_new)
            }
        }
    }
}

/// The step that applies what was decoded of a batch.
async fn apply(shared: &Shared, mut decoded: Decoded, batch: Arc<RecordBatch>, is_new: bool) -> Step {
    if !is_new {
        // How far a checkpoint reaches is told when the log was seen to go on there.
        decoded.next = 0;
    }
    let keep = |decoded: &Decoded| resume::kept(is_new, batch, decoded.rejected());
    let kept = if shared.checkpointing.is_kept() { keep(&decoded) } else { None };
    let room = Room::of(decoded.byte_len()).await;
    Step::Apply(decoded, kept, room)
}

/// How far a batch is that is decoded one by one.
struct Turn {
    batch: Arc<RecordBatch>,
    next: usize,
    /// Faults in a row.
    faults: u32,
    wait: Duration,
}

/// The steps of a batch whose records are decoded one by one, as many at a time as a turn takes.
fn one_by_one(shared: Arc<Shared>, batch: Arc<RecordBatch>, is_new: bool) -> impl Stream<Item = Step> + Send {
    let turn = Turn { batch, next: 0, faults: 0, wait: FIRST_WAIT };
    stream::unfold(turn, move |mut turn| {
        let shared = shared.clone();
        async move {
            if turn.next == turn.batch.len() {
                return None;
            }
            if turn.faults >= FAULTS_IN_A_ROW {
                sleep(turn.wait).await;
                turn.wait = (turn.wait * 2).min(LONGEST_WAIT);
                turn.faults = 0;
            }
            let (batch, next) = (turn.batch.clone(), turn.next);
            let decoded = retried(&shared, &turn.batch, next, move |codecs| some(codecs, &batch, next)).await;
            // OK because a record that is decoded alone is decided.
            let decoded = decoded.expect("records alone do not fault");
            let behind = turn.next + decoded.outcomes.len();
            match decoded.ends_with_fault() {
                true => turn.faults += 1,
                false => (turn.faults, turn.wait) = (0, FIRST_WAIT),
            }
            let part = Arc::new(turn.batch.slice(turn.next..behind));
            turn.next = behind;
            Some((apply(&shared, decoded, part, is_new).await, turn))
        }
    })
}

/// Decodes records alone, from an index on: until one faults, or for a tick, or until they are
/// many bytes. At least one.
fn some(codecs: &crate::codec::Codecs, batch: &RecordBatch, from: usize) -> Result<Decoded, CodecFailure> {
    let began = Instant::now();
    let mut decoded = decode(codecs, &batch.slice(from..from + 1))?;
    let mut bytes = decoded.byte_len();
    for index in from + 1..batch.len() {
        if decoded.ends_with_fault() || began.elapsed() >= TICK || bytes >= PART_BYTES {
            break;
        }
        match decode(codecs, &batch.slice(index..index + 1)) {
            Ok(next) => {
                bytes += next.byte_len();
                decoded.append(next);
            }
            // The next turn begins with it, and says so.
            Err(_) => break,
        }
    }
    Ok(decoded)
}

/// Runs work on the codec workers. What the host cannot do now it tries again: no record is charged
/// with it.
async fn retried(
    shared: &Shared,
    batch: &RecordBatch,
    index: usize,
    work: impl Fn(&crate::codec::Codecs) -> Result<Decoded, CodecFailure> + Clone + Send + 'static,
) -> Result<Decoded, crate::codec::Rejection> {
    let partition = batch.partition();
    let mut failed = false;
    loop {
        let (codecs, work) = (shared.codecs.clone(), work.clone());
        let done = match shared.lane.is_host() && batch.byte_len() <= SMALL_BYTES {
            // It takes less time than to hand it over, and does not wait behind what others load.
            true => Ok(work(&codecs)),
            false => workers::run(&shared.lane, move || work(&codecs)).await,
        };
        let failure = match done {
            Ok(Err(CodecFailure::Fault(rejection))) => return Err(rejection),
            Ok(Ok(decoded)) => {
                if failed {
                    shared.update(|conditions| drop(conditions.undecoded.remove(&partition)));
                }
                return Ok(decoded);
            }
            Ok(Err(CodecFailure::Host(failure))) | Err(failure) => failure,
        };
        failed = true;
        tell_failure(shared, batch, index, &failure);
        sleep(RETRY).await;
    }
}

fn tell_failure(shared: &Shared, batch: &RecordBatch, index: usize, failure: &HostFailure) {
    let (partition, offset) = (batch.partition(), batch.get(index).offset);
    let reason = format!("partition {partition}, offset {offset}: {failure}; trying again");
    shared.update(|conditions| drop(conditions.undecoded.insert(partition, reason.into())));
}
