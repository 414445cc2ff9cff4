//! Decides which generation of a table is served, which one is loaded, and when to switch.
//!
//! The first generation is loaded when the table starts. Another one is loaded when the served one has ended
//! (the topic was re-created or truncated, a checkpoint turned out to be wrong, or reading failed in a way
//! that may pass), and when the codecs are swapped. What was served stays readable until the new one takes
//! over; in a swap, it also follows the topic until then.

mod swapping;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, sleep_until};

use crate::checkpoint::{Checkpoint, CheckpointError};
use crate::codec::Codecs;
use crate::log::{LogError, TopicDescription};
use crate::sync::lock;
use crate::table::dead_letters;
use crate::table::error::TableError;
use crate::table::generation::{
    GenerationEnd, GenerationEvent, GenerationStart, RunningGeneration, open_checkpoint,
};
use crate::table::generation_state::GenerationState;
use crate::table::settings::RETRY_AFTER;
use crate::table::shared::Shared;
use crate::table::swap::SwapRequest;
use crate::table::swap_gate::{SwapAnswer, SwapGate};

/// How long a table that ends waits until its dead letters are written.
const DEAD_LETTER_TIMEOUT: Duration = Duration::from_secs(10);

/// Runs a table until it is stopped, all its handles are gone, or it fails.
pub(super) async fn run(
    shared: Arc<Shared>,
    codecs: Codecs,
    swaps: mpsc::Receiver<SwapRequest>,
    mut stopped: watch::Receiver<bool>,
) {
    let _guard = TaskEndGuard(shared.clone());
    // Aborts its task when it is dropped.
    let mut writers = JoinSet::new();
    if let Some(letters) = shared.dead_letters.clone() {
        writers.spawn(dead_letters::run(shared.clone(), letters));
    }
    let mut supervisor = Supervisor::new(shared.clone());
    tokio::select! {
        // An error means that the last handle was dropped.
        _ = stopped.wait_for(|&stopped| stopped) => {}
        () = observe(&shared) => {}
        // It ends only if it panics.
        Some(_) = writers.join_next() => {
            let error = TableError::Panicked { topic: shared.topic_name() };
            shared.update(|conditions| conditions.failed = Some(Arc::new(error)));
        }
        error = supervisor.run(codecs, swaps) => {
            shared.update(|conditions| conditions.failed = Some(Arc::new(error)));
        }
    }
    supervisor.stop().await;
    if let Some(letters) = &shared.dead_letters {
        let unwritten = letters.finish(DEAD_LETTER_TIMEOUT).await;
        if unwritten > 0 {
            let (topic, dead_letter) = (shared.topic_name(), letters.topic());
            tracing::warn!(
                topic,
                "{unwritten} rejected records were not written to dead-letter topic `{dead_letter}` before the table \
                 stopped; the next start that reads them writes them"
            );
        }
    }
    shared.update(|conditions| conditions.is_stopped = true);
    if !shared.checkpointing.finish().await {
        let topic = shared.topic_name();
        tracing::warn!(topic, "the checkpoint was not finished in time: the disk is too slow");
    }
}

/// Ends a table that cannot begin to read its topic.
#[cfg(feature = "cli")]
pub(super) fn fail_table(shared: Arc<Shared>, error: TableError) {
    let _guard = TaskEndGuard(shared.clone());
    shared.update(|conditions| conditions.failed = Some(Arc::new(error)));
}

/// Reports the end of the task, also if it panics, so that nobody waits for it for ever.
struct TaskEndGuard(Arc<Shared>);

impl Drop for TaskEndGuard {
    fn drop(&mut self) {
        if let Some(letters) = &self.0.dead_letters {
            letters.done().close();
        }
        let topic = self.0.topic_name();
        let panicked = std::thread::panicking().then(|| Arc::new(TableError::Panicked { topic }));
        self.0.update(|conditions| {
            conditions.is_stopped = true;
            conditions.failed = panicked.or(conditions.failed.take());
        });
        self.0.ended.send_replace(true);
    }
}

/// Reports when the log cannot be reached, and when loading takes longer than the catch-up timeout
/// although there is nothing to serve yet.
async fn observe(shared: &Shared) {
    let mut health = shared.log.health();
    let mut late = std::pin::pin!(sleep_until(shared.late_at));
    let mut is_late = false;
    let mut minutes = tokio::time::interval(Duration::from_secs(60));
    loop {
        shared.update(|conditions| {
            conditions.unreachable = health.outage().map(|outage| outage.to_string().into());
        });
        loop {
            tokio::select! {
                () = health.changed() => break,
                now = minutes.tick() => {
                    let mut hub = lock(&shared.hub);
                    hub.expire(now.into_std());
                    hub.enforce_limits();
                }
                () = &mut late, if !is_late => {
                    is_late = true;
                    // A generation that has begun to read its topic reports this itself, after what it has
                    // loaded is served.
                    if !shared.is_reading() {
                        shared.report_late();
                    }
                }
            }
        }
    }
}

/// How to load another generation after one has ended.
#[derive(Debug, Clone)]
struct Restart {
    /// The topic that the generation read.
    topic: Arc<TopicDescription>,
    codecs: Codecs,
    gate: Arc<SwapGate>,
    reason: String,
    /// Why its checkpoint must not be loaded.
    distrusted: Option<CheckpointError>,
    /// Whether the topic may have changed.
    must_describe: bool,
}

/// A generation that is loaded once its topic is known.
struct WaitingStart {
    topic: BoxFuture<'static, Result<TopicDescription, LogError>>,
    codecs: Codecs,
    gate: Arc<SwapGate>,
    distrusted: Option<CheckpointError>,
}

struct Supervisor {
    shared: Arc<Shared>,
    events: mpsc::UnboundedReceiver<GenerationEvent>,
    event_sender: mpsc::UnboundedSender<GenerationEvent>,
    checkpoint: Option<Arc<Checkpoint>>,
    /// The number of the next generation.
    next_number: u64,
    serving: Option<RunningGeneration>,
    loading: Option<RunningGeneration>,
    /// The generation that is loaded next.
    waiting: Option<WaitingStart>,
    /// Receives the result of the swap, if the loading generation was requested by one, or is kept for one.
    swap: Option<SwapAnswer>,
    /// What to load if the swap is given up, because the served generation has ended meanwhile.
    fallback: Option<Restart>,
    /// Generations that were replaced or given up, and may not have stopped yet.
    retired: Vec<RunningGeneration>,
}

impl Supervisor {
    fn new(shared: Arc<Shared>) -> Self {
        let (event_sender, events) = mpsc::unbounded_channel();
        Self {
            shared,
            events,
            event_sender,
            checkpoint: None,
            next_number: 1,
            serving: None,
            loading: None,
            waiting: None,
            swap: None,
            fallback: None,
            retired: Vec::new(),
        }
    }

    /// Loads generation after generation, until the table fails.
    async fn run(&mut self, codecs: Codecs, mut swaps: mpsc::Receiver<SwapRequest>) -> TableError {
        self.checkpoint = open_checkpoint(&self.shared).await;
        self.start(self.shared.view().topic.clone(), codecs, SwapGate::open(), None);
        loop {
            let handled = tokio::select! {
                Some(event) = self.events.recv() => match event {
                    GenerationEvent::Served(number) => {
                        self.finish_switch(number);
                        Ok(())
                    }
                    GenerationEvent::Ended(number, end) => self.handle_end(number, end).await,
                },
                topic = next_topic(&mut self.waiting) => self.start_waiting(topic).await,
                Some(request) = swaps.recv() => {
                    self.begin_swap(request);
                    Ok(())
                }
                () = wait_until_cancelled(&mut self.swap) => {
                    self.cancel_swap().await;
                    Ok(())
                }
            };
            if let Err(error) = handled {
                return error;
            }
        }
    }

    /// Starts to load a generation. `distrusted` is the reason not to load its checkpoint.
    fn start(
        &mut self,
        topic: Arc<TopicDescription>,
        codecs: Codecs,
        gate: Arc<SwapGate>,
        distrusted: Option<CheckpointError>,
    ) {
        let state = Arc::new(GenerationState::new(self.next_number, topic, codecs, gate));
        self.next_number += 1;
        self.shared.begin_loading(&state);
        // While it waits for a caller, who may give it up, the served generation goes on writing the checkpoint, if it writes one.
        let writes_checkpoint = state.gate().is_open();
        let start = GenerationStart { checkpoint: self.checkpoint.clone(), writes_checkpoint, distrusted };
        let events = self.event_sender.clone();
        self.loading = Some(RunningGeneration::start(&self.shared, state, start, events));
    }

    /// Loads another generation after one has ended.
    fn restart(&mut self, restart: Restart) {
        let Restart { topic, codecs, gate, distrusted, must_describe, .. } = restart;
        if must_describe {
            let topic = wait_for_topic(self.shared.clone(), topic).boxed();
            self.waiting = Some(WaitingStart { topic, codecs, gate, distrusted });
        } else {
            self.start(topic, codecs, gate, distrusted);
        }
    }

    /// Starts the generation that waited for its topic. An error ends the table.
    async fn start_waiting(&mut self, topic: Result<TopicDescription, LogError>) -> Result<(), TableError> {
        let Some(WaitingStart { codecs, gate, distrusted, .. }) = self.waiting.take() else { return Ok(()) };
        match topic {
            Ok(topic) => self.start(Arc::new(topic), codecs, gate, distrusted),
            Err(error) if self.swap.is_some() => self.fail_swap(error.into()).await,
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    /// Makes the loading generation the serving one, if it is served by now.
    fn finish_switch(&mut self, number: u64) {
        let is_loading = self.loading.as_ref().is_some_and(|loading| loading.state.number == number);
        if is_loading && self.shared.is_serving() && self.shared.reported().number == number {
            let before = std::mem::replace(&mut self.serving, self.loading.take());
            self.retired.retain(|retired| !retired.is_finished());
            self.fallback = None;
            if let Some(swap) = self.swap.take() {
                // OK to ignore: whoever asked does not wait any more.
                let _ = swap.send(Ok(number));
            }
            self.retire(before);
        }
    }

    /// Ends a generation that was replaced, unless a caller keeps it and it still follows the topic.
    fn retire(&mut self, before: Option<RunningGeneration>) {
        let Some(before) = before else { return };
        let retention = before.state.take_retention();
        match retention.filter(|_| before.state.is_reading.load(Ordering::Acquire)) {
            Some(retention) => (self.loading, self.swap) = (Some(before), Some(retention.answer)),
            None => {
                self.shared.abandon_loading(before.state.number);
                before.state.gate().withdraw_offer();
                before.abort();
                self.retired.push(before);
            }
        }
    }

    /// Loads another generation if that can help. An error ends the table.
    async fn handle_end(&mut self, number: u64, end: GenerationEnd) -> Result<(), TableError> {
        // Another generation may have replaced it, although that event has not arrived yet.
        self.finish_switch(self.shared.reported().number);
        let is = |running: &&RunningGeneration| running.state.number == number;
        let (serving, loading) = (self.serving.as_ref().filter(is), self.loading.as_ref().filter(is));
        let is_serving = serving.is_some();
        let Some(state) = serving.or(loading).map(|ended| ended.state.clone()) else { return Ok(()) };
        let restart = match self.restart_after(&state, is_serving, end) {
            Ok(Some(restart)) => restart,
            Ok(None) => return Ok(()),
            Err(error) if !is_serving && self.swap.is_some() => {
                self.fail_swap(error).await;
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        if is_serving {
            // It does not follow the topic any more, so nobody can go back to it.
            drop(state.take_retention());
        } else if self.swap.is_some() && !state.gate().is_open() && state.gate().offered().is_some() {
            // The caller has compared what would not be served.
            let (topic, reason) = (self.shared.topic_name(), restart.reason);
            self.fail_swap(TableError::SwapFailed { topic, reason }).await;
            return Ok(());
        }
        tracing::warn!(topic = state.topic.name, "loading a new generation: {}", restart.reason);
        // If the served generation has ended already, this is a failure of its successor, and the newer reason.
        let number = if self.shared.is_outdated() { self.shared.reported().number } else { number };
        self.shared.report_outdated(number, format!("loading the topic again: {}", restart.reason));
        if is_serving && self.swap.is_some() && !self.is_next_gated() {
            self.restart_swap(restart).await;
        } else if is_serving && self.swap.is_some() {
            // What was compared with the served contents is no longer what would be served.
            self.fallback = Some(restart);
            self.fail_swap(TableError::Loading { topic: self.shared.topic_name() }).await;
        } else {
            self.give_up_loading().await;
            self.restart(restart);
        }
        Ok(())
    }

    /// Decides how to load another generation after one has ended; `None` if another one is served already.
    /// An error ends the table.
    fn restart_after(
        &self,
        ended: &GenerationState,
        is_serving: bool,
        end: GenerationEnd,
    ) -> Result<Option<Restart>, TableError> {
        let restart = |reason: String, distrusted, must_describe| {
            let (topic, codecs) = (ended.topic.clone(), ended.codecs.clone());
            // The successor of the served generation is served as soon as it is complete.
            let gate = if is_serving { SwapGate::open() } else { ended.gate() };
            Ok(Some(Restart { topic, codecs, gate, reason, distrusted, must_describe }))
        };
        match end {
            GenerationEnd::Replaced => Ok(None),
            GenerationEnd::Halted(error) => Err(error),
            GenerationEnd::Panicked => Err(TableError::Panicked { topic: self.shared.topic_name() }),
            GenerationEnd::Checkpoint(error) => restart(error.to_string(), Some(error), false),
            GenerationEnd::Log(error) => {
                let is_replaced = matches!(error, LogError::Replaced { .. } | LogError::UnknownTopic { .. });
                if !is_replaced && !is_retryable(&self.shared, &error) {
                    return Err(error.into());
                }
                let reason = error.to_string();
                let distrusted = is_replaced.then(|| CheckpointError::Unusable { reason: reason.clone() });
                restart(reason, distrusted, true)
            }
        }
    }

    /// Gives up the generation that is loading, and waits until it has stopped. Returns false if it is
    /// served already.
    async fn give_up_loading(&mut self) -> bool {
        self.waiting = None;
        let Some(number) = self.loading.as_ref().map(|loading| loading.state.number) else { return true };
        if !self.shared.abandon_loading(number) {
            self.finish_switch(number);
            return false;
        }
        let given_up = self.loading.take().inspect(|loading| {
            loading.abort();
            loading.state.gate().withdraw_offer();
        });
        self.retired.extend(given_up);
        self.wait_for_retired().await;
        self.shared.checkpointing.end(number);
        true
    }

    async fn wait_for_retired(&mut self) {
        while let Some(last) = self.retired.last_mut() {
            last.wait_until_stopped().await;
            self.retired.pop();
        }
    }

    /// Stops all generations, and waits until nothing is published any more.
    async fn stop(&mut self) {
        let running = self.loading.take().into_iter().chain(self.serving.take());
        self.retired.extend(running.inspect(RunningGeneration::abort));
        self.wait_for_retired().await;
    }
}

/// Whether to keep trying after an error. An unreachable log is always tried again. Refused credentials and
/// errors of the file system are tried again only by a table that was complete once: at the start, they will
/// hardly pass. Everything else, such as a missing right or damaged records, ends the table.
fn is_retryable(shared: &Shared, error: &LogError) -> bool {
    match error {
        LogError::Unreachable { .. } => true,
        LogError::Authentication { .. } => shared.was_complete(),
        error => error.is_transient() && shared.was_complete(),
    }
}

/// Waits until there is a topic of the same name. If it is still the same topic, waits a while, because its
/// problem may pass by itself.
async fn wait_for_topic(
    shared: Arc<Shared>,
    before: Arc<TopicDescription>,
) -> Result<TopicDescription, LogError> {
    // A generation that still follows the topic reports its own problems.
    let report = |reason: String| {
        if !shared.is_serving() || shared.is_outdated() {
            shared.report_outdated(shared.reported().number, reason);
        }
    };
    loop {
        match shared.log.describe(&before.name).await {
            Ok(topic) => {
                if topic.id == before.id {
                    sleep(RETRY_AFTER).await;
                }
                return Ok(topic);
            }
            Err(LogError::UnknownTopic { .. }) => report("the topic is missing".to_owned()),
            Err(error) if is_retryable(&shared, &error) => report(error.to_string()),
            Err(error) => return Err(error),
        }
        sleep(RETRY_AFTER).await;
    }
}

/// Waits for the topic of the generation that is loaded next.
async fn next_topic(waiting: &mut Option<WaitingStart>) -> Result<TopicDescription, LogError> {
    match waiting {
        Some(waiting) => waiting.topic.as_mut().await,
        None => std::future::pending().await,
    }
}

/// Waits until the caller that requested a swap no longer waits for it.
async fn wait_until_cancelled(swap: &mut Option<SwapAnswer>) {
    match swap {
        Some(swap) => swap.closed().await,
        None => std::future::pending().await,
    }
}
