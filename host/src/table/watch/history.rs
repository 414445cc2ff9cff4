//! The last changes of a table, within limits of number and bytes.

use std::collections::VecDeque;
use std::sync::Arc;

use uuid::Uuid;

use crate::table::change::Effect;
use crate::table::clock::Clock;
use crate::table::place::Place;
use crate::table::status::Status;
use crate::table::view::View;
use crate::table::watch::token::{Cursor, Source, WatchToken};

/// How many effects (changes, rejected records, statuses) the history holds at most.
pub const MAX_HISTORY_EFFECTS: usize = 10_000;

/// How many bytes of entries, old and new, and of positions, the history holds at most.
const MAX_HISTORY_BYTES: usize = 16 << 20;

/// A batch keeps the view after it once this many batches, or this many bytes, were published without one.
const VIEW_EVERY_BATCHES: usize = 64;
const VIEW_EVERY_BYTES: usize = 1 << 20;

/// How far a table that is caught up is assumed to lag at most: several times the usual `stale_after`. With a
/// longer one, or just after a long load, it may lag more.
const MAX_LAG_MILLIS: i64 = 60_000;

/// How many bytes an effect uses besides its entries.
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
    source: Source,
    /// The place before the update and after it.
    before: Place,
    after: Place,
    /// The table had applied every record that was written before this time (milliseconds since 1970);
    /// `None` if it was never caught up.
    as_of: Option<i64>,
    /// The view after the update; only some batches keep it.
    pub(super) view: Option<Arc<View>>,
    bytes: usize,
}

/// The last batches, and the newest view and status.
#[derive(Debug)]
pub(super) struct History {
    /// Tells histories apart, also those of other processes.
    id: Uuid,
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
    /// The settings that decide what the table holds: tokens of a table with other settings start again.
    settings: Arc<str>,
    source: Source,
    status: Status,
    clock: Arc<dyn Clock>,
    /// The time [`History::as_of`] when the table was last caught up; `None` if it never was.
    caught_up: Option<i64>,
}

impl History {
    pub(super) fn new(newest: Arc<View>, settings: Arc<str>, clock: Arc<dyn Clock>) -> Self {
        Self {
            id: Uuid::new_v4(),
            batches: VecDeque::new(),
            effects: 0,
            bytes: 0,
            next: 0,
            since_view: (0, 0),
            published: 0,
            after_status: 0,
            source: Source::new(&newest, &settings),
            settings,
            newest,
            status: Status::Loading,
            clock,
            caught_up: None,
        }
    }

    /// Sets the newest view, and returns the one before.
    pub(super) fn replace_newest(&mut self, view: Arc<View>) -> Arc<View> {
        if view.generation != self.newest.generation {
            self.source = Source::new(&view, &self.settings);
        }
        std::mem::replace(&mut self.newest, view)
    }

    /// Sets the status, without a batch for it.
    pub(super) fn set_status(&mut self, status: Status) {
        self.caught_up = self.as_of();
        self.status = status;
    }

    /// Returns a time (milliseconds since 1970): the newest view has every record that was written before
    /// it. `None` if the table was never caught up.
    fn as_of(&self) -> Option<i64> {
        match self.status {
            Status::CaughtUp => Some(self.clock.now() - MAX_LAG_MILLIS),
            _ => self.caught_up,
        }
    }

    /// Appends the effects that led to the newest view.
    pub(super) fn push_effects(&mut self, effects: Vec<Effect>, before: &View) {
        let bytes = effects.iter().map(byte_len).sum();
        let count = effects.len();
        self.push(Update::Effects(effects), before.place().clone(), count, bytes);
    }

    /// Appends the status.
    pub(super) fn push_status(&mut self) {
        let before = self.newest.place().clone();
        self.push(Update::Status(self.status.clone()), before, 1, EFFECT_BYTES);
        self.after_status = self.next;
    }

    fn push(&mut self, update: Update, before: Place, effects: usize, bytes: usize) {
        let after = self.newest.place().clone();
        let bytes = bytes + before.byte_len() + after.byte_len();
        let (batches, since) = (self.since_view.0 + 1, self.since_view.1 + bytes);
        let keeps_view = batches >= VIEW_EVERY_BATCHES || since >= VIEW_EVERY_BYTES;
        self.since_view = if keeps_view { (0, 0) } else { (batches, since) };
        let view = keeps_view.then(|| self.newest.clone());
        let (number, source, as_of) = (self.next, self.source.clone(), self.as_of());
        let batch = WatchBatch { number, update, source, before, after, as_of, view, bytes };
        self.batches.push_back(Arc::new(batch));
        self.next += 1;
        self.effects += effects;
        self.bytes += bytes;
        self.published += bytes as u64;
        while (self.effects > MAX_HISTORY_EFFECTS || self.bytes > MAX_HISTORY_BYTES)
            && let Some(oldest) = self.batches.pop_front()
        {
            self.bytes -= oldest.bytes;
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
    }

    /// Counts bytes that watchers may keep alive, although they are in no batch.
    pub(super) fn add_published(&mut self, bytes: u64) {
        self.published += bytes;
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
    pub(super) fn newest_token(&self) -> WatchToken {
        let cursor = self.cursor(self.next, 0);
        let (source, place) = (self.source.clone(), self.newest.place().clone());
        WatchToken { source, place, as_of: self.as_of(), cursor }
    }

    /// The token of a watcher that has seen this many effects of a batch, and everything before it;
    /// `None` if no [`Place`] describes that.
    pub(super) fn token(&self, batch: &WatchBatch, effects: usize) -> Option<WatchToken> {
        let (place, cursor) = match &batch.update {
            _ if effects == 0 => (batch.before.clone(), self.cursor(batch.number, 0)),
            Update::Effects(all) if effects < all.len() => {
                (batch.place_within(all, effects)?, self.cursor(batch.number, effects))
            }
            _ => (batch.after.clone(), self.cursor(batch.number + 1, 0)),
        };
        Some(WatchToken { source: batch.source.clone(), place, as_of: batch.as_of, cursor })
    }

    fn cursor(&self, batch: u64, effects: usize) -> Cursor {
        Cursor { history: self.id, batch, effects }
    }

    /// Whether a token is of the topic that is served, decoded by the codecs that are served.
    pub(super) fn accepts(&self, token: &WatchToken) -> bool {
        // Without an identity, a topic that was re-created cannot be told from the one before.
        token.source == self.source && !token.source.topic_id.is_empty()
    }

    /// Whether this history made the token, and still has everything after it.
    pub(super) fn reaches(&self, token: &WatchToken) -> bool {
        let Cursor { history, batch, effects } = token.cursor;
        let is_known = match self.batch(batch).map(|batch| &batch.update) {
            Some(Update::Effects(all)) => effects < all.len(),
            Some(Update::Status(_)) => effects == 0,
            None => batch == self.next && effects == 0,
        };
        history == self.id && token.source == self.source && is_known
    }
}

impl WatchBatch {
    /// Returns the place after the first `count` effects. `None` if no place describes that: it is between
    /// two effects of the same record, or after an effect that no record caused.
    fn place_within(&self, effects: &[Effect], count: usize) -> Option<Place> {
        let mut place = self.before.clone();
        for effect in &effects[..count] {
            let (partition, offset) = effect.record()?;
            place.positions.raise(partition, offset + 1);
        }
        let is_split = effects[..count].last().and_then(Effect::record) == effects[count].record();
        (!is_split).then_some(place)
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
