//! The last changes of a table, within limits of number and bytes.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::table::change::Effect;
use crate::table::clock::Clock;
use crate::table::positions::Positions;
use crate::table::status::Status;
use crate::table::view::View;
use crate::table::watch::token::WatchToken;

/// How many effects (changes, rejected records, statuses) the history holds at most.
pub const MAX_HISTORY_EFFECTS: usize = 10_000;

/// How many bytes of entries, old and new, and of positions, the history holds at most.
const MAX_HISTORY_BYTES: usize = 16 << 20;

/// A batch keeps the view after it if so many batches, or bytes, before it do not.
const VIEW_EVERY_BATCHES: usize = 64;
const VIEW_EVERY_BYTES: usize = 1 << 20;

/// What an effect uses besides its entries.
const EFFECT_BYTES: usize = 128;

/// What is published at once.
#[derive(Debug)]
pub(super) enum Update {
    Effects(Vec<Effect>),
    Status(Status),
}

/// A numbered update.
#[derive(Debug)]
pub(super) struct WatchBatch {
    pub(super) number: u64,
    pub(super) update: Update,
    /// The positions before the update and after it.
    pub(super) before: Positions,
    pub(super) after_positions: Positions,
    /// When it was published: milliseconds since 1970.
    pub(super) time: i64,
    /// The view after the update; only some batches keep it.
    pub(super) after: Option<Arc<View>>,
    bytes: usize,
}

/// The last batches, and the newest view and status.
#[derive(Debug)]
pub(super) struct History {
    batches: VecDeque<Arc<WatchBatch>>,
    effects: usize,
    bytes: usize,
    /// The number of the next batch.
    next: u64,
    /// The number of batches and bytes since the last batch that keeps its view.
    since_view: (usize, usize),
    /// The number of bytes ever published.
    published: u64,
    /// The number of the batch after the last one with a status.
    after_status: u64,
    newest: Arc<View>,
    status: Status,
    clock: Arc<dyn Clock>,
    /// The latest time of a batch or a token: milliseconds since 1970. Times of batches ascend strictly.
    last_time: i64,
    /// No batch after this time is missing.
    complete_since: i64,
}

impl History {
    pub(super) fn new(newest: Arc<View>, clock: Arc<dyn Clock>) -> Self {
        let now = clock.now();
        Self {
            batches: VecDeque::new(),
            effects: 0,
            bytes: 0,
            next: 0,
            since_view: (0, 0),
            published: 0,
            after_status: 0,
            newest,
            status: Status::Loading,
            clock,
            last_time: now,
            complete_since: now,
        }
    }

    /// Sets the newest view, and returns the one before.
    pub(super) fn replace_newest(&mut self, view: Arc<View>) -> Arc<View> {
        std::mem::replace(&mut self.newest, view)
    }

    /// Sets the status, without a batch for it.
    pub(super) fn set_status(&mut self, status: Status) {
        self.status = status;
    }

    /// Appends the effects that led to the newest view.
    pub(super) fn push_effects(&mut self, effects: Vec<Effect>, before: &View) {
        let bytes = effects.iter().map(byte_len).sum();
        let count = effects.len();
        self.push(Update::Effects(effects), before.positions().clone(), count, bytes);
    }

    /// Appends the status.
    pub(super) fn push_status(&mut self) {
        let before = self.newest.positions().clone();
        self.push(Update::Status(self.status.clone()), before, 1, EFFECT_BYTES);
        self.after_status = self.next;
    }

    fn push(&mut self, update: Update, before: Positions, effects: usize, bytes: usize) {
        let time = self.clock.now().max(self.last_time + 1);
        self.last_time = time;
        let after_positions = self.newest.positions().clone();
        let bytes = bytes + before.byte_len() + after_positions.byte_len();
        let (batches, since) = (self.since_view.0 + 1, self.since_view.1 + bytes);
        let keeps_view = batches >= VIEW_EVERY_BATCHES || since >= VIEW_EVERY_BYTES;
        self.since_view = if keeps_view { (0, 0) } else { (batches, since) };
        let after = keeps_view.then(|| self.newest.clone());
        let number = self.next;
        let batch = WatchBatch { number, update, before, after_positions, time, after, bytes };
        self.batches.push_back(Arc::new(batch));
        self.next += 1;
        self.effects += effects;
        self.bytes += bytes;
        self.published += bytes as u64;
        while (self.effects > MAX_HISTORY_EFFECTS || self.bytes > MAX_HISTORY_BYTES)
            && let Some(oldest) = self.batches.pop_front()
        {
            self.bytes -= oldest.bytes;
            self.complete_since = oldest.time;
            self.effects -= match &oldest.update {
                Update::Effects(effects) => effects.len(),
                Update::Status(_) => 1,
            };
        }
    }

    /// Drops all batches, and skips a number: nobody can resume before this point.
    pub(super) fn clear(&mut self) {
        self.batches = VecDeque::new();
        (self.effects, self.bytes, self.since_view) = (0, 0, (0, 0));
        self.next += 1;
        self.complete_since = self.now();
    }

    /// The time for a token or a gap, not before any batch.
    fn now(&mut self) -> i64 {
        self.last_time = self.last_time.max(self.clock.now());
        self.last_time
    }

    /// The latest time of a batch or a token.
    pub(super) fn last_time(&self) -> i64 {
        self.last_time
    }

    /// Begins to record.
    pub(super) fn begin(&mut self) {
        self.complete_since = self.now();
    }

    /// The bytes of the batches.
    pub(super) fn byte_len(&self) -> usize {
        self.bytes
    }

    /// The number of bytes ever published.
    pub(super) fn published(&self) -> u64 {
        self.published
    }

    /// The number of the oldest batch, or of the next one if there is none.
    pub(super) fn first(&self) -> u64 {
        self.next - self.batches.len() as u64
    }

    /// The number of the next batch.
    pub(super) fn next(&self) -> u64 {
        self.next
    }

    pub(super) fn newest(&self) -> &Arc<View> {
        &self.newest
    }

    pub(super) fn status(&self) -> &Status {
        &self.status
    }

    /// The status, if the batch with this number or a later one published it.
    pub(super) fn status_since(&self, number: u64) -> Option<Status> {
        (self.after_status > number).then(|| self.status.clone())
    }

    /// Whether the batch with the last status is no longer in the history.
    pub(super) fn has_dropped_status(&self) -> bool {
        self.after_status <= self.first()
    }

    /// The batch with this number, if the history still has it.
    pub(super) fn batch(&self, number: u64) -> Option<&Arc<WatchBatch>> {
        let index = usize::try_from(number.checked_sub(self.first())?).ok()?;
        self.batches.get(index)
    }

    /// The token of a watcher that has seen everything that was published.
    pub(super) fn newest_token(&mut self) -> WatchToken {
        let time = self.now();
        self.token(self.newest.positions().clone(), time)
    }

    /// The token of a watcher that has seen everything below these positions, and the effects of no
    /// record until this time.
    pub(super) fn token(&self, positions: Positions, time: i64) -> WatchToken {
        let (topic_id, fingerprint) = (self.newest.topic.id.as_str().into(), self.newest.fingerprint.clone());
        WatchToken { topic_id, fingerprint, positions, time }
    }

    /// Whether a token is of the topic that is served, decoded by the codecs that are served.
    pub(super) fn accepts(&self, token: &WatchToken) -> bool {
        *token.topic_id == *self.newest.topic.id && token.fingerprint == self.newest.fingerprint
    }

    /// The number of the first batch that a watcher with this token has not seen completely; `None` if
    /// the history does not reach back to the token.
    pub(super) fn resume_at(&self, token: &WatchToken) -> Option<u64> {
        let oldest = self.batches.front().map_or(self.newest.positions(), |batch| &batch.before);
        // Effects of no record, such as expirations, have a time only.
        if token.time < self.complete_since || !token.positions.has_reached(oldest) {
            return None;
        }
        let is_seen = |batch: &&Arc<WatchBatch>| {
            batch.time <= token.time && token.positions.has_reached(&batch.after_positions)
        };
        Some(self.first() + self.batches.iter().take_while(is_seen).count() as u64)
    }
}

fn byte_len(effect: &Effect) -> usize {
    EFFECT_BYTES
        + match effect {
            Effect::Change(change) => {
                [&change.old, &change.new].into_iter().flatten().map(|entry| entry.byte_len()).sum()
            }
            Effect::Rejected { key, group, notice } => {
                let texts = [key, group].into_iter().flatten().map(|text| text.len());
                texts.sum::<usize>() + notice.message.len()
            }
        }
}
