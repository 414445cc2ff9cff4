//! A generation: one decoding of one topic by one set of codecs.
//!
//! A generation owns its topic, codecs, sources, view, progress and rejected records, and runs as a
//! task of its own. It loads the topic while another generation may be served. When it has applied
//! everything that the topic held when it began and, in a swap, has reached the positions of the served one, it
//! takes the other one's place in one step, and follows the topic from then on.

mod dead_letters;
mod decode;
mod decode_stream;
mod decode_turn;
mod lag_tracker;
mod memory;
mod reading;
mod replay;
mod resume;
mod source;
mod switching;

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};

#[cfg(any(test, feature = "cli"))]
pub(in crate::table) use decode::decode;
pub(in crate::table) use replay::{replay, wait_until_reached};
pub(in crate::table) use resume::open_checkpoint;
pub(in crate::table) use source::GenerationStart;

use crate::checkpoint::CheckpointError;
use crate::log::{LogError, TopicSample, partition_of_hash};
use crate::table::dead_letters::DeferredLetters;
use crate::table::decoded::DecodedRecords;
use crate::table::error::TableError;
use crate::table::generation_state::GenerationState;
use crate::table::shared::Shared;
use crate::table::status::{Lag, WriterAnomaly};
use crate::table::view::{ApplyOptions, ApplyResult, Deadlines, View};
use crate::thread::{run_in_background, run_long};
use crate::time;
use decode_stream::Step;
use lag_tracker::LagTracker;
use reading::{Reading, ReadingEvent};
use source::StreamError;

/// Applying this many records takes too long for a thread of the runtime: some 0.15 ms, measured while a topic of small
/// records loads. For fewer, waking another thread for the other tasks costs more than letting them wait.
const LONG_RECORDS: usize = 1024;

/// Why a generation no longer loads or follows its topic.
#[derive(Debug)]
pub(super) enum GenerationEnd {
    Log(LogError),
    /// The checkpoint that it loaded cannot be trusted, or it did not follow its topic for so long that it may
    /// have missed tombstones.
    Checkpoint(CheckpointError),
    /// A record was rejected in a table that halts then, or a swap needs too much memory.
    Halted(TableError),
    /// Another generation is served in its place.
    Replaced,
    /// Its task panicked.
    Panicked,
}

impl From<LogError> for GenerationEnd {
    fn from(error: LogError) -> Self {
        Self::Log(error)
    }
}

impl From<StreamError> for GenerationEnd {
    fn from(error: StreamError) -> Self {
        match error {
            StreamError::Log(error) => Self::Log(error),
            StreamError::Checkpoint(error) => Self::Checkpoint(error),
        }
    }
}

/// What a generation reports to the supervisor, with its number.
#[derive(Debug)]
pub(super) enum GenerationEvent {
    /// It is served from now on.
    Served(u64),
    /// It no longer follows its topic. If it is served, its entries still expire.
    Ended(u64, GenerationEnd),
}

/// A generation whose task runs. Dropping it aborts the task.
#[derive(Debug)]
pub(super) struct RunningGeneration {
    pub(super) state: Arc<GenerationState>,
    task: JoinHandle<()>,
}

/// How a generation that is being loaded catches up with the served one, which is ahead: by holding it.
struct Overtaking {
    /// Since when the served generation has been ahead without being held.
    since: Instant,
    /// How long to hold it next.
    hold: Duration,
}

impl RunningGeneration {
    /// Starts the task of a generation.
    pub(super) fn start(
        shared: &Arc<Shared>,
        state: Arc<GenerationState>,
        start: GenerationStart,
        events: mpsc::UnboundedSender<GenerationEvent>,
    ) -> Self {
        let view = View::unsorted(state.number, state.topic.clone(), state.fingerprint.clone());
        let deadlines = shared.settings.ttl.map(Deadlines::new);
        let generation = Generation {
            shared: shared.clone(),
            state: state.clone(),
            view,
            deadlines,
            is_served: false,
            complete_at: None,
            is_recorded: false,
            overtaking: None,
            deferred: DeferredLetters::default(),
            lags: LagTracker::new(shared.log.stale_after(), time::now()),
            events,
        };
        Self { state, task: tokio::spawn(generation.run(start)) }
    }

    pub(super) fn abort(&self) {
        self.task.abort();
    }

    pub(super) fn is_finished(&self) -> bool {
        self.task.is_finished()
    }

    /// Waits until the task has stopped.
    pub(super) async fn wait_until_stopped(&mut self) {
        if !self.is_finished() {
            // OK to ignore: it was aborted, or has panicked, which it reports itself.
            let _ = (&mut self.task).await;
        }
    }
}

impl Drop for RunningGeneration {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The work of a generation's task.
struct Generation {
    shared: Arc<Shared>,
    state: Arc<GenerationState>,
    /// The view that records are applied to. Clones of it are published.
    view: View,
    /// When its entries expire, in a table with a time to live.
    deadlines: Option<Deadlines>,
    is_served: bool,
    /// When it was complete for the first time, and the age of its checkpoint was checked: milliseconds since 1970.
    complete_at: Option<i64>,
    /// Whether the checkpoint knows that it was complete.
    is_recorded: bool,
    /// Set while it is loaded and the served generation is ahead.
    overtaking: Option<Overtaking>,
    /// The dead letters of a swap that may still fail.
    deferred: DeferredLetters,
    lags: LagTracker,
    events: mpsc::UnboundedSender<GenerationEvent>,
}

impl Drop for Generation {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.report(GenerationEvent::Ended(self.state.number, GenerationEnd::Panicked));
        }
        // It may be the last owner of millions of rows.
        let view = std::mem::replace(
            &mut self.view,
            View::empty(0, self.state.topic.clone(), self.state.fingerprint.clone()),
        );
        let deadlines = self.deadlines.take();
        run_in_background(move || drop((view, deadlines)));
    }
}

impl Generation {
    async fn run(mut self, start: GenerationStart) {
        let Err(end) = self.load_and_follow(start).await;
        self.state.is_reading.store(false, Ordering::Release);
        self.report(GenerationEvent::Ended(self.state.number, end));
        // Its entries expire until another generation is served.
        while self.is_served && self.deadlines.is_some() {
            self.next_deadline().await;
            if self.expire().is_err() {
                return;
            }
        }
    }

    fn report(&self, event: GenerationEvent) {
        // The supervisor drops its end when the table stops.
        let _ = self.events.send(event);
    }

    async fn load_and_follow(&mut self, start: GenerationStart) -> Result<Infallible, GenerationEnd> {
        let (shared, state) = (self.shared.clone(), self.state.clone());
        let writes_checkpoint = start.checkpoint.is_some() && start.writes_checkpoint;
        tokio::select! {
            end = self.read(start) => end,
            error = resume::verify(&shared, &state), if writes_checkpoint => {
                Err(GenerationEnd::Checkpoint(error))
            }
        }
    }

    /// Reads the topic: loads what it holds, then follows it.
    async fn read(&mut self, start: GenerationStart) -> Result<Infallible, GenerationEnd> {
        let began = self.shared.settings.clock.now();
        let mut reading = Reading::open(&self.shared, &self.state, start).await?;
        self.lags = LagTracker::new(self.shared.log.stale_after(), time::now());
        self.state.is_reading.store(true, Ordering::Release);
        let (mut is_complete, mut is_late) = (false, false);
        loop {
            self.wait_for_memory(&mut reading).await?;
            self.wait_for_dead_letters(&mut reading).await?;
            self.wait_while_frozen(&mut reading).await?;
            if self.is_served {
                self.step_aside();
            }
            // A generation that another one has replaced waits for its gate, like one that was never served.
            is_complete &= self.is_served;
            let gate = self.state.gate();
            // Before the attempt to be served, so that a gate that opens meanwhile is not missed.
            let is_gated = !self.is_served && !gate.is_open();
            if !is_complete && reading.has_all_partitions() && self.state.is_loaded(&self.view) {
                is_complete = self.complete(began).await?;
            }
            let is_alone = self.is_served || !self.shared.is_serving();
            let may_be_late = !is_complete && !is_late && is_alone;
            let held_until = self.state.held_until().filter(|_| self.is_served);
            tokio::select! {
                biased;
                () = sleep_until(self.shared.late_at), if may_be_late => {
                    is_late = true;
                    // The partial table, and its status, include every partition that is known by now.
                    while let Some(event) = reading.next_topic_event().now_or_never() {
                        self.handle(event?).await?;
                    }
                    // It may be served already, because of a memory limit.
                    if !self.is_served {
                        self.serve_partially().await;
                    }
                    self.shared.report_late();
                }
                () = self.next_deadline(), if self.is_served || is_gated => self.expire()?,
                () = self.wait_until_must_pause(), if self.shared.dead_letters.is_some() => {}
                () = self.next_lag() => self.evaluate_overdue(self.lags.due()),
                () = gate.wait_until_open(), if is_gated => {}
                () = self.state.replaced.notified(), if self.is_served => {}
                () = self.state.wait_until_frozen(true), if self.is_served => {}
                () = sleep_until(held_until.unwrap_or_else(Instant::now)), if held_until.is_some() => {}
                event = reading.next(), if held_until.is_none() => self.handle(event?).await?,
            }
        }
    }

    async fn handle(&mut self, event: ReadingEvent) -> Result<(), GenerationEnd> {
        match event {
            ReadingEvent::Partition(range) => {
                self.view.add_partition(range);
                self.state.add_range(range);
            }
            ReadingEvent::Sample(sample) => self.evaluate_sample(&sample),
            ReadingEvent::Steps(steps, error) => {
                self.apply(steps).await?;
                error?;
            }
        }
        Ok(())
    }

    /// Compares what was applied with the end offsets that the log reports.
    fn evaluate_sample(&mut self, sample: &TopicSample) {
        let partitions = sample.partitions.iter();
        let samples = partitions.map(|sample| (*sample, self.view.position(sample.partition))).collect();
        let lags = self.lags.evaluate(samples, time::past(sample.requested_at));
        self.report_lags(lags);
    }

    /// Waits until a partition counts as lagging, if nothing more of it is applied before.
    async fn next_lag(&self) {
        match self.lags.due() {
            None => std::future::pending().await,
            Some(due) => sleep_until(due.into()).await,
        }
    }

    /// Reports lags in time although the log reports no end offsets. If the time at which one was due was
    /// waited for, it is not in the future: timers may be early by less than a tick.
    fn evaluate_overdue(&mut self, waited_for: Option<std::time::Instant>) {
        let (now, time) = time::now();
        let now = waited_for.map_or(now, |due| due.max(now));
        let lags = self.lags.evaluate_overdue(|partition| self.view.position(partition), (now, time));
        self.report_lags(lags);
    }

    fn report_lags(&self, changed: Option<Vec<Lag>>) {
        if let Some(lags) = changed {
            self.shared.update_generation(&self.state, |conditions| conditions.lags = lags);
        }
    }

    /// Queues the dead letters of steps, appends the steps to the checkpoint, then applies them.
    async fn apply(&mut self, mut steps: Vec<Step>) -> Result<(), GenerationEnd> {
        self.queue_rejected(&mut steps)?;
        if self.shared.checkpointing.is_enabled(self.state.number) {
            let records: Vec<_> = steps.iter_mut().filter_map(Step::take_checkpoint_record).collect();
            if let Some(dead_letters) = &self.shared.dead_letters {
                let kib: usize = records.iter().map(|record| record.queue_kib() as usize).sum();
                dead_letters.add_applied(kib * 1024);
            }
            self.shared.checkpointing.append(self.state.number, records.into_iter()).await;
        }
        let is_long = steps.iter().map(Step::cost).sum::<usize>() >= LONG_RECORDS;
        let apply = || self.apply_and_publish(steps);
        if is_long { run_long(apply) } else { apply() }
    }

    /// Hides the entries whose time to live is over.
    fn expire(&mut self) -> Result<(), GenerationEnd> {
        run_long(|| self.apply_and_publish(Vec::new()))
    }

    /// Applies steps to the view, and publishes it if the generation is served.
    fn apply_and_publish(&mut self, steps: Vec<Step>) -> Result<(), GenerationEnd> {
        let is_recording = self.is_served && self.shared.is_recording();
        let received: Vec<_> =
            if self.is_served { steps.iter().filter_map(Step::received).collect() } else { Vec::new() };
        let ApplyResult { effects, rejects, first_anomalies, halted_by } =
            self.apply_steps(steps, is_recording);
        for (anomaly, partition, offset) in first_anomalies {
            let topic = &self.state.topic.name;
            tracing::warn!(
                topic,
                partition,
                offset,
                "{anomaly}; further ones are only counted (ktables status)"
            );
        }
        for reject in rejects {
            let (topic, partition, offset) = (&self.state.topic.name, reject.partition, reject.offset);
            tracing::debug!(topic, partition, offset, "rejected a record: {}", reject.reason);
            self.state.push_reject(reject);
        }
        self.state.update_progress(&self.view);
        if self.is_served {
            let effects = is_recording.then_some(effects);
            if self.shared.publish(Arc::new(self.view.clone()), effects) {
                for received in received {
                    self.shared.apply_latency.add(received.elapsed());
                }
            } else if !self.step_aside() {
                return Err(GenerationEnd::Replaced);
            }
        }
        match halted_by {
            Some(reject) => Err(GenerationEnd::Halted(TableError::halted(&self.state.topic.name, *reject))),
            None => Ok(()),
        }
    }

    fn apply_steps(&mut self, steps: Vec<Step>, collect_effects: bool) -> ApplyResult {
        let options = ApplyOptions { on_reject: self.shared.settings.on_reject, collect_effects };
        let mut applied = ApplyResult::default();
        for step in steps {
            match step {
                Step::Apply(batch) => {
                    self.check_partitioner(&batch.decoded, &mut applied);
                    self.view.apply(batch.decoded, options, self.deadlines.as_mut(), &mut applied);
                }
                Step::Position { partition, offset, .. } => self.view.advance(partition, offset),
                Step::Start { partition, offset } => {
                    self.view.remove_below(partition, offset, options, &mut applied);
                }
            }
            if applied.halted_by.is_some() {
                break;
            }
        }
        if let Some(deadlines) = &mut self.deadlines {
            self.view.expire(self.shared.settings.clock.now(), deadlines, options, &mut applied);
        }
        applied
    }

    /// Checks whether the writers of a batch use Java's default partitioner.
    fn check_partitioner(&mut self, decoded: &DecodedRecords, applied: &mut ApplyResult) {
        let partitions = self.view.partition_count();
        if let Some((offset, hash)) = decoded.first
            && partitions > 0
            && partition_of_hash(hash, partitions) != decoded.partition
        {
            self.view.count(WriterAnomaly::OtherPartitioner, decoded.partition, offset, applied);
        }
    }

    /// Waits until an entry may expire. Returns early if the clock was set.
    async fn next_deadline(&self) {
        match &self.deadlines {
            None => std::future::pending().await,
            Some(deadlines) => {
                self.shared.settings.clock.sleep_until(deadlines.next().unwrap_or(i64::MAX)).await
            }
        }
    }
}
