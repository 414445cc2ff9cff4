//! What the handles of a table and its tasks share: the published view, the status, and the
//! generations.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use arc_swap::{ArcSwap, Guard};
use tokio::sync::watch;

use crate::codec::Codecs;
use crate::log::{Log, TopicDescription};
use crate::sync::lock;
use crate::table::change::Effect;
use crate::table::checkpointing::Checkpointing;
use crate::table::dead_letters::DeadLetters;
use crate::table::end_offsets::EndOffsets;
use crate::table::generation_state::GenerationState;
use crate::table::reject::RejectedRecord;
use crate::table::settings::Settings;
use crate::table::status::{Conditions, GenerationConditions, LatencyCounter, Stats, Status};
use crate::table::swap_gate::SwapGate;
use crate::table::view::View;
use crate::table::watch::{Hub, ReplayMemory, SharedHub};
use crate::thread::run_in_background;

/// What the handles of a table and its tasks share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) log: Arc<dyn Log>,
    pub(super) settings: Settings,
    /// The time at which the catch-up timeout has passed.
    pub(super) late_at: tokio::time::Instant,
    view: ArcSwap<View>,
    /// Locked while a view or a status is published and announced, so that a watcher that begins
    /// misses nothing and sees nothing twice.
    pub(super) hub: SharedHub,
    /// Notifies of each published view and each status.
    published: watch::Sender<()>,
    status: watch::Sender<Status>,
    /// When the status changed. A std lock: held to read or set it.
    since: Mutex<Since>,
    /// Whether the table's tasks have ended.
    pub(super) ended: watch::Sender<bool>,
    pub(super) end_offsets: EndOffsets,
    /// From the delivery of a batch until it is visible. In memory of its own, because it changes with each batch, and
    /// readers load the view.
    pub(super) apply_latency: Box<LatencyCounter>,
    pub(super) barrier_latency: Box<LatencyCounter>,
    pub(super) checkpointing: Checkpointing,
    pub(super) replay_memory: ReplayMemory,
    /// The dead letters, in a table with a dead-letter topic.
    pub(super) dead_letters: Option<Arc<DeadLetters>>,
    /// A std lock: held to read or change fields. Taken after the hub's lock.
    state: Mutex<State>,
}

/// The generations of a table, and the conditions of its status.
#[derive(Debug)]
struct State {
    conditions: Conditions,
    /// The generation that is served; while none is, the one that is loaded.
    reported: Arc<GenerationState>,
    /// The generation that is loaded to replace it.
    next: Option<Arc<GenerationState>>,
    /// Whether a generation is served.
    is_served: bool,
    /// The codecs that must not be used any more.
    revocation: Option<CodecRevocation>,
}

/// Says that a codec must not be used any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CodecRevocation {
    /// The fingerprint of the codecs of a table, one of which it is.
    pub(crate) fingerprint: Arc<str>,
    /// Which codec it is, and why.
    pub(crate) reason: Arc<str>,
    /// Whether a generation with these codecs applies no more records.
    pub(crate) freezes: bool,
}

impl State {
    /// Applies the revocation to the reported generation, which may have replaced another one.
    fn apply_revocation(&mut self) {
        let of_reported = |revocation: &&CodecRevocation| revocation.fingerprint == self.reported.fingerprint;
        let revocation = self.revocation.as_ref().filter(of_reported);
        self.reported.set_frozen(revocation.is_some_and(|revocation| revocation.freezes));
        self.conditions.generation.revoked = revocation.map(|revocation| revocation.reason.clone());
    }
}

/// When the status changed.
#[derive(Debug, Clone, Copy)]
struct Since {
    /// The last time that it did.
    status: SystemTime,
    /// When the table was caught up for the last time; `None` while it is.
    stale: Option<SystemTime>,
}

impl Since {
    fn change(&mut self, status: &Status) {
        self.status = SystemTime::now();
        self.stale = match status {
            Status::CaughtUp => None,
            _ => self.stale.or(Some(self.status)),
        };
    }
}

impl Shared {
    /// The state of a table whose first generation reads `topic` with `codecs`.
    pub(super) fn new(
        log: Arc<dyn Log>,
        topic: Arc<TopicDescription>,
        codecs: Codecs,
        settings: Settings,
    ) -> Self {
        let reported = Arc::new(GenerationState::new(1, topic.clone(), codecs, SwapGate::open()));
        let view = Arc::new(View::empty(1, topic, reported.fingerprint.clone()));
        Self {
            hub: Arc::new(Mutex::new(Hub::new(
                view.clone(),
                settings.describe_contents().into(),
                settings.clock.clone(),
            ))),
            view: ArcSwap::new(view),
            log,
            late_at: far_ahead(settings.catchup_timeout),
            dead_letters: settings.dead_letters.clone().map(|settings| Arc::new(DeadLetters::new(settings))),
            settings,
            published: watch::channel(()).0,
            status: watch::channel(Status::Loading).0,
            since: Mutex::new(Since { status: SystemTime::now(), stale: Some(SystemTime::now()) }),
            ended: watch::channel(false).0,
            end_offsets: EndOffsets::default(),
            apply_latency: Box::default(),
            barrier_latency: Box::default(),
            checkpointing: Checkpointing::default(),
            replay_memory: ReplayMemory::default(),
            state: Mutex::new(State {
                conditions: Conditions::default(),
                reported,
                next: None,
                is_served: false,
                revocation: None,
            }),
        }
    }

    /// The newest view, to be read at once and dropped.
    pub(super) fn view(&self) -> Guard<Arc<View>> {
        self.view.load()
    }

    /// The newest view, to be kept.
    pub(super) fn view_to_keep(&self) -> Arc<View> {
        self.view.load_full()
    }

    /// Notifies of each published view and each change of status.
    pub(super) fn subscribe_published(&self) -> watch::Receiver<()> {
        self.published.subscribe()
    }

    pub(super) fn subscribe_status(&self) -> watch::Receiver<Status> {
        self.status.subscribe()
    }

    pub(super) fn status(&self) -> Status {
        self.status.borrow().clone()
    }

    /// The name of the topic.
    pub(super) fn topic_name(&self) -> String {
        self.view().topic.name.clone()
    }

    /// Whether watchers need the effects of records.
    pub(super) fn is_recording(&self) -> bool {
        lock(&self.hub).is_recording()
    }

    /// Publishes a view of the served generation with the effects that led to it, or `None` if they
    /// were not recorded. Publishes nothing and returns false if another generation is served by now.
    pub(super) fn publish(&self, view: Arc<View>, effects: Option<Vec<Effect>>) -> bool {
        let mut hub = lock(&self.hub);
        if self.view.load().generation != view.generation {
            return false;
        }
        self.view.store(view.clone());
        match effects {
            // Somebody began to watch while they were not recorded.
            None if hub.is_recording() => hub.publish_unrecorded(view),
            effects => hub.publish(view, effects.unwrap_or_default()),
        }
        drop(hub);
        self.published.send_replace(());
        true
    }

    /// Begins to serve a generation: publishes its view in place of the one before, in one step.
    /// Changes nothing and returns false if the view is behind the one that is served, or if the
    /// generation was given up.
    pub(super) fn try_switch(
        &self,
        generation: &Arc<GenerationState>,
        view: Arc<View>,
        is_complete: bool,
    ) -> bool {
        let mut hub = lock(&self.hub);
        let mut state = lock(&self.state);
        if ![Some(&state.reported), state.next.as_ref()]
            .into_iter()
            .flatten()
            .any(|known| known.number == generation.number)
        {
            return false;
        }
        let before = self.view.load_full();
        // The positions of a topic that was re-created say nothing about its successor, and a
        // generation that no longer follows the topic cannot be ahead for a good reason.
        let is_comparable = before.topic.id == view.topic.id && state.conditions.outdated.is_none();
        if is_comparable && state.is_served && !view.positions().has_reached(before.positions()) {
            return false;
        }
        state.next = None;
        if state.reported.number != generation.number {
            let replaced = std::mem::replace(&mut state.reported, generation.clone());
            let conditions = state.conditions.next_generation.take().unwrap_or_default();
            let conditions = std::mem::replace(&mut state.conditions.generation, conditions);
            if let Some(gate) = replaced.close_gate() {
                gate.offer(before.clone());
                state.conditions.keep(conditions);
                state.next = Some(replaced.clone());
            }
            replaced.replaced.notify_one();
        }
        state.is_served = true;
        if is_complete {
            state.conditions.set_complete(&view);
        }
        state.apply_revocation();
        drop(state);
        self.view.store(view.clone());
        hub.switch_generation(view);
        drop(hub);
        self.published.send_replace(());
        // It may be the last owner of millions of rows.
        run_in_background(move || drop(before));
        true
    }

    /// Reports that the served generation is complete.
    pub(super) fn report_complete(&self, generation: &GenerationState, view: &View) {
        self.update_state(|state| {
            if state.reported.number != generation.number {
                return;
            }
            state.conditions.set_complete(view);
        });
    }

    /// Begins to load a generation. It is reported at once if none is served.
    pub(super) fn begin_loading(&self, generation: &Arc<GenerationState>) {
        let mut state = lock(&self.state);
        if state.is_served {
            state.next = Some(generation.clone());
            state.conditions.next_generation = Some(GenerationConditions::default());
            state.conditions.is_next_gated = !generation.gate().is_open();
        } else {
            // A table that was late stays late until it is complete.
            let late = state.conditions.generation.late.take();
            state.reported = generation.clone();
            state.conditions.generation = GenerationConditions { late, ..GenerationConditions::default() };
        }
    }

    /// Gives up a generation that is being loaded, so that it will not be served. Returns false if it is
    /// served already.
    pub(super) fn abandon_loading(&self, number: u64) -> bool {
        let mut is_served = false;
        self.update_state(|state| {
            is_served = state.is_served && state.reported.number == number;
            if state.next.as_ref().is_some_and(|next| next.number == number) {
                (state.next, state.conditions.next_generation) = (None, None);
            }
        });
        !is_served
    }

    /// Whether a generation is loaded beside another one that is served and follows the topic.
    pub(super) fn is_beside_served(&self, number: u64) -> bool {
        let state = lock(&self.state);
        state.is_served && state.reported.number != number && state.conditions.outdated.is_none()
    }

    /// Whether a generation is loaded, or kept, beside the reported one.
    pub(super) fn is_next(&self, number: u64) -> bool {
        lock(&self.state).next.as_ref().is_some_and(|next| next.number == number)
    }

    /// The generation beside the reported one, if it waits for this gate.
    pub(super) fn next_with(&self, gate: &Arc<SwapGate>) -> Option<Arc<GenerationState>> {
        lock(&self.state).next.clone().filter(|next| Arc::ptr_eq(&next.gate(), gate))
    }

    /// The statistics of a generation beside the reported one.
    pub(super) fn stats_of(&self, generation: &GenerationState) -> Stats {
        let since = lock(&self.since).status;
        let checkpoint = self.checkpointing.stats(&self.settings.checkpoint, generation);
        generation.stats(since, None, generation.load_progress(), checkpoint, None)
    }

    /// Whether any generation is served.
    pub(super) fn is_serving(&self) -> bool {
        lock(&self.state).is_served
    }

    /// The generation that is served; while none is, the one that is loaded.
    pub(super) fn reported(&self) -> Arc<GenerationState> {
        lock(&self.state).reported.clone()
    }

    /// Whether the reported generation reads the topic: it has begun to, and has not ended.
    pub(super) fn is_reading(&self) -> bool {
        self.reported().is_reading.load(Ordering::Acquire)
    }

    /// Reports why a generation no longer follows the topic, if it is the one that is reported.
    pub(super) fn report_outdated(&self, number: u64, reason: String) {
        if tokio::time::Instant::now() >= self.late_at && self.reported().number == number {
            // It can no longer report this itself.
            self.report_late();
        }
        self.update_state(|state| {
            if state.reported.number == number {
                state.conditions.outdated = Some(reason.into());
                state.conditions.generation.undecoded.clear();
                state.conditions.generation.lags.clear();
                state.conditions.generation.memory = None;
                state.conditions.generation.dead_letters = None;
                state.conditions.generation.quarantined = None;
            }
        });
    }

    /// Reports that loading takes longer than the catch-up timeout.
    pub(super) fn report_late(&self) {
        let mut incomplete = self.reported().describe_incomplete();
        if !incomplete.is_empty() {
            // The text is not updated, so it says that these offsets are from then.
            incomplete = format!(" (then: {incomplete})");
        }
        let reason = format!("still loading after {:?}{incomplete}", self.settings.catchup_timeout);
        self.update(|conditions| conditions.generation.late = Some(reason.into()));
    }

    /// Changes the conditions of one generation.
    pub(super) fn update_generation(
        &self,
        generation: &GenerationState,
        change: impl FnOnce(&mut GenerationConditions),
    ) {
        self.update_state(|state| {
            if state.reported.number == generation.number {
                change(&mut state.conditions.generation);
            } else if state.next.as_ref().is_some_and(|next| next.number == generation.number) {
                state.conditions.next_generation.as_mut().map(change);
            }
        });
    }

    /// Reports that a codec must not be used any more; `None` if none is revoked.
    #[cfg(feature = "cli")]
    pub(super) fn set_revocation(&self, revocation: Option<CodecRevocation>) {
        if lock(&self.state).revocation != revocation {
            self.update_state(|state| state.revocation = revocation);
        }
    }

    /// Returns why the codecs with this fingerprint must not be used at all any more.
    #[cfg(feature = "cli")]
    pub(super) fn freeze_reason(&self, fingerprint: impl FnOnce() -> String) -> Option<Arc<str>> {
        let revocation = lock(&self.state).revocation.clone().filter(|revocation| revocation.freezes)?;
        (*revocation.fingerprint == *fingerprint()).then_some(revocation.reason)
    }

    /// Changes the conditions of the table.
    pub(super) fn update(&self, change: impl FnOnce(&mut Conditions)) {
        self.update_state(|state| change(&mut state.conditions));
    }

    /// Changes conditions, and publishes the status if it changes with them.
    fn update_state(&self, change: impl FnOnce(&mut State)) {
        let mut hub = lock(&self.hub);
        let mut state = lock(&self.state);
        change(&mut state);
        state.apply_revocation();
        let status = state.conditions.status();
        drop(state);
        let changed = self.status.send_if_modified(|current| {
            let changed = *current != status;
            *current = status.clone();
            changed
        });
        if changed {
            lock(&self.since).change(&status);
            let topic = self.topic_name();
            match &status {
                Status::Failed(_) => {
                    tracing::error!(topic, "table is {status}; its contents stay as they are")
                }
                Status::Degraded(_) => tracing::warn!(topic, "table is {status}"),
                _ => tracing::info!(topic, "table is {status}"),
            }
            hub.publish_status(status);
        }
        drop(hub);
        self.published.send_replace(());
    }

    /// Whether a generation has ended, and no other one is complete yet.
    pub(super) fn is_outdated(&self) -> bool {
        lock(&self.state).conditions.outdated.is_some()
    }

    /// Whether the table was complete once.
    pub(super) fn was_complete(&self) -> bool {
        lock(&self.state).conditions.was_complete
    }

    /// The bytes that the table uses with one of its generations. The other one does not count: the
    /// served generation must not stop because of the one that will replace it, and once that one is served,
    /// what the replaced one uses is freed.
    pub(super) fn memory_bytes(&self, generation: &GenerationState) -> u64 {
        let view = generation.view_bytes.load(Ordering::Relaxed);
        let dead_letters = self.dead_letters.as_ref().map_or(0, |letters| letters.byte_len());
        view + dead_letters + generation.reject_bytes() + lock(&self.hub).byte_len() as u64
    }

    pub(super) fn rejects(&self) -> Vec<RejectedRecord> {
        self.reported().rejects()
    }

    pub(super) fn stats(&self) -> Stats {
        let (reported, next) = {
            let state = lock(&self.state);
            (state.reported.clone(), state.next.clone())
        };
        let loading = next.as_ref().unwrap_or(&reported).load_progress();
        let checkpoint = self.checkpointing.stats(&self.settings.checkpoint, &reported);
        let dead_letters = self.dead_letters.as_ref().map(|letters| letters.stats());
        let Since { status, stale } = *lock(&self.since);
        reported.stats(status, stale, loading, checkpoint, dead_letters)
    }
}

/// The time that is this far ahead; if the clock cannot represent it, a time that is never reached.
fn far_ahead(time: Duration) -> tokio::time::Instant {
    const NEVER: Duration = Duration::from_secs(30 * 365 * 24 * 3600);
    let now = tokio::time::Instant::now();
    now.checked_add(time).unwrap_or(now + NEVER)
}
