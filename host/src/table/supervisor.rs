//! Decides which generation of a table is served, which one is loaded, and when to switch.
//!
//! The first generation is loaded when the table starts. Another one is loaded when the topic was
//! re-created or truncated, when a checkpoint turned out to be wrong, and when the codecs are
//! swapped. Both run at the same time until the new one takes over.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{sleep, sleep_until};

use crate::checkpoint::{Checkpoint, CheckpointError};
use crate::codec::Codecs;
use crate::log::{LogError, TopicDescription};
use crate::sync::lock;
use crate::table::error::TableError;
use crate::table::generation::{
    GenerationEnd, GenerationEvent, GenerationStart, RunningGeneration, open_checkpoint,
};
use crate::table::generation_state::GenerationState;
use crate::table::settings::RETRY_AFTER;
use crate::table::shared::Shared;

/// A request to decode the topic with other codecs.
#[derive(Debug)]
pub(super) struct SwapRequest {
    pub(super) codecs: Codecs,
    /// Receives the number of the new generation when it is served. Dropped by the caller, it
    /// cancels the swap.
    pub(super) answer: oneshot::Sender<Result<u64, TableError>>,
}

/// Runs a table until it is stopped, all its handles are gone, or it fails.
pub(super) async fn run(
    shared: Arc<Shared>,
    codecs: Codecs,
    swaps: mpsc::Receiver<SwapRequest>,
    mut stopped: watch::Receiver<bool>,
) {
    let _guard = TaskEndGuard(shared.clone());
    let mut supervisor = Supervisor::new(shared.clone());
    tokio::select! {
        // An error means that the last handle was dropped.
        _ = stopped.wait_for(|&stopped| stopped) => {}
        () = observe(&shared) => {}
        error = supervisor.run(codecs, swaps) => {
            shared.update(|conditions| conditions.failed = Some(Arc::new(error)));
        }
    }
    supervisor.stop().await;
    shared.update(|conditions| conditions.is_stopped = true);
    if !shared.checkpointing.finish().await {
        tracing::warn!(topic = shared.topic_name(), "the disk is too slow for the end of the checkpoint");
    }
}

/// Reports the end of the task, also if it panics, so that nobody waits for it for ever.
struct TaskEndGuard(Arc<Shared>);

impl Drop for TaskEndGuard {
    fn drop(&mut self) {
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
                now = minutes.tick() => lock(&shared.hub).expire(now.into_std()),
                () = &mut late, if !is_late => {
                    is_late = true;
                    // A generation that is being read is served before it is reported as late.
                    if !shared.is_reading() {
                        shared.report_late();
                    }
                }
            }
        }
    }
}

/// How to load another generation after one has ended.
struct Restart {
    reason: String,
    /// Why its checkpoint must not be loaded.
    distrusted: Option<CheckpointError>,
    /// Whether the topic may have changed.
    must_describe: bool,
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
    /// Who waits for the generation that is loading, if it was requested.
    swap: Option<oneshot::Sender<Result<u64, TableError>>>,
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
            swap: None,
        }
    }

    /// Loads generation after generation, until the table fails.
    async fn run(&mut self, codecs: Codecs, mut swaps: mpsc::Receiver<SwapRequest>) -> TableError {
        self.checkpoint = open_checkpoint(&self.shared).await;
        self.start(self.shared.view().topic.clone(), codecs, None);
        loop {
            tokio::select! {
                Some(event) = self.events.recv() => match event {
                    GenerationEvent::Served(number) => self.finish_switch(number),
                    GenerationEvent::Ended(number, end) => {
                        if let Err(error) = self.handle_end(number, end).await {
                            return error;
                        }
                    }
                },
                Some(request) = swaps.recv() => self.begin_swap(request),
                () = is_cancelled(&mut self.swap) => self.cancel_swap(),
            }
        }
    }

    /// Starts to load a generation. `distrusted` is the reason not to load its checkpoint.
    fn start(&mut self, topic: Arc<TopicDescription>, codecs: Codecs, distrusted: Option<CheckpointError>) {
        let state = Arc::new(GenerationState::new(self.next_number, topic, codecs));
        self.next_number += 1;
        self.shared.begin_loading(&state);
        let start = GenerationStart { checkpoint: self.checkpoint.clone(), distrusted };
        let events = self.event_sender.clone();
        self.loading = Some(RunningGeneration::start(&self.shared, state, start, events));
    }

    fn finish_switch(&mut self, number: u64) {
        let is_loading = self.loading.as_ref().is_some_and(|loading| loading.state.number == number);
        if is_loading && self.shared.is_serving() {
            self.serving = self.loading.take();
            if let Some(swap) = self.swap.take() {
                // OK to ignore: whoever asked does not wait any more.
                let _ = swap.send(Ok(number));
            }
        }
    }

    /// Loads another generation if that can help. An error ends the table.
    async fn handle_end(&mut self, number: u64, end: GenerationEnd) -> Result<(), TableError> {
        let is = |running: &&RunningGeneration| running.state.number == number;
        let is_serving = self.serving.as_ref().filter(is).is_some();
        let Some(ended) = self.serving.as_ref().filter(is).or(self.loading.as_ref().filter(is)) else {
            return Ok(());
        };
        let (topic, codecs) = (ended.state.topic.clone(), ended.state.codecs.clone());
        let Restart { reason, distrusted, must_describe } = match self.restart_after(end) {
            Ok(Some(restart)) => restart,
            Ok(None) => return Ok(()),
            Err(error) if !is_serving && self.swap.is_some() => {
                self.fail_swap(error);
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        tracing::warn!(topic = topic.name, "loading a new generation: {reason}");
        if is_serving || self.serving.is_none() {
            self.shared.report_outdated(format!("loading the topic again: {reason}"));
        }
        if is_serving && self.loading.is_some() {
            // The generation that is loading takes over.
            return Ok(());
        }
        if !is_serving {
            self.stop_loading().await;
        }
        let topic = match must_describe {
            true => Arc::new(self.wait_for_topic(&topic).await?),
            false => topic,
        };
        self.start(topic, codecs, distrusted);
        Ok(())
    }

    /// How to load another generation after one has ended; `None` if another one is served already.
    /// An error ends the table.
    fn restart_after(&self, end: GenerationEnd) -> Result<Option<Restart>, TableError> {
        match end {
            GenerationEnd::Replaced => Ok(None),
            GenerationEnd::Halted(error) => Err(error),
            GenerationEnd::Panicked => Err(TableError::Panicked { topic: self.shared.topic_name() }),
            GenerationEnd::Checkpoint(error) => {
                let reason = error.to_string();
                Ok(Some(Restart { reason, distrusted: Some(error), must_describe: false }))
            }
            GenerationEnd::Log(error) => {
                let is_replaced = matches!(error, LogError::Replaced { .. } | LogError::UnknownTopic { .. });
                if !is_replaced && !self.may_pass(&error) {
                    return Err(error.into());
                }
                let reason = error.to_string();
                let distrusted = is_replaced.then(|| CheckpointError::Unfit { reason: reason.clone() });
                Ok(Some(Restart { reason, distrusted, must_describe: true }))
            }
        }
    }

    /// Whether to keep trying after an error. What a disk or a broker refuses at the start it will
    /// keep refusing; a table that was complete waits until somebody repairs it.
    fn may_pass(&self, error: &LogError) -> bool {
        match error {
            LogError::Unreachable { .. } => true,
            LogError::Authentication { .. } => self.shared.was_complete(),
            error => error.is_transient() && self.shared.was_complete(),
        }
    }

    /// Waits until there is a topic of the same name. If it is still the same topic, waits a while
    /// so that what is wrong with it may pass.
    async fn wait_for_topic(&self, before: &TopicDescription) -> Result<TopicDescription, LogError> {
        loop {
            match self.shared.log.describe(&before.name).await {
                Ok(topic) => {
                    if topic.id == before.id {
                        sleep(RETRY_AFTER).await;
                    }
                    return Ok(topic);
                }
                Err(LogError::UnknownTopic { .. }) => {
                    self.shared.report_outdated("the topic is missing".to_owned());
                }
                Err(error) if self.may_pass(&error) => self.shared.report_outdated(error.to_string()),
                Err(error) => return Err(error),
            }
            sleep(RETRY_AFTER).await;
        }
    }

    fn begin_swap(&mut self, request: SwapRequest) {
        let topic = self.shared.topic_name();
        // The generation may be served although its event has not arrived yet.
        self.finish_switch(self.shared.reported().number);
        if self.loading.is_some() {
            let _ = request.answer.send(Err(TableError::Loading { topic }));
            return;
        }
        tracing::info!(topic, "loading the topic with other codecs");
        self.swap = Some(request.answer);
        self.start(self.shared.view().topic.clone(), request.codecs, None);
    }

    fn cancel_swap(&mut self) {
        tracing::info!(topic = self.shared.topic_name(), "the swap of the codecs was cancelled");
        (self.swap, self.loading) = (None, None);
        self.shared.abandon_loading();
    }

    fn fail_swap(&mut self, error: TableError) {
        if let Some(swap) = self.swap.take() {
            // OK to ignore: whoever asked does not wait any more.
            let _ = swap.send(Err(error));
        }
        self.loading = None;
        self.shared.abandon_loading();
    }

    async fn stop_loading(&mut self) {
        if let Some(loading) = self.loading.take() {
            loading.stop().await;
        }
    }

    /// Stops all generations, and waits until nothing is published any more.
    async fn stop(&mut self) {
        self.stop_loading().await;
        if let Some(serving) = self.serving.take() {
            serving.stop().await;
        }
    }
}

/// Waits until whoever asked for a swap no longer waits for it.
async fn is_cancelled(swap: &mut Option<oneshot::Sender<Result<u64, TableError>>>) {
    match swap {
        Some(swap) => swap.closed().await,
        None => std::future::pending().await,
    }
}
