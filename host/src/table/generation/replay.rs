//! Reading the log again for a watcher that resumes.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::SelectAll;

use crate::log::{Headers, OffsetRange, TopicEvent};
use crate::table::change::{Cause, Change, Effect};
use crate::table::decoded::{DecodedRecords, Outcome};
use crate::table::entry::{Entry, EntryMaker};
use crate::table::generation::decode_stream::{Step, decode_stream};
use crate::table::generation::resume::max_age;
use crate::table::generation::source::{Origin, SourceItem, StreamError};
use crate::table::generation_state::GenerationState;
use crate::table::positions::Positions;
use crate::table::reject::{RejectNotice, RejectedRecord};
use crate::table::settings::OnReject;
use crate::table::shared::Shared;
use crate::table::swap_gate::SwapGate;
use crate::table::view::View;
use crate::table::watch::{MAX_REPLAY_BYTES, ReplayedEffects, Source, WatchToken};
use crate::thread::run_long;

/// How many records are read for one watcher, besides [`MAX_REPLAY_BYTES`]. A watcher that needs more starts again: to
/// receive all entries costs hardly more then.
const MAX_RECORDS: usize = 100_000;

/// The number of the state that a replay decodes with. No generation has this number.
const REPLAY_NUMBER: u64 = 0;

/// How long waiting for the table may take, and how long reading the log may take.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Waits until the served view has reached a token. Returns early if it never will: the table has ended,
/// decodes something else, or the log ends before the token; and after a timeout.
pub(in crate::table) async fn wait_until_reached(shared: &Shared, token: &WatchToken) {
    let wait = async {
        let mut published = shared.subscribe_published();
        while !shared.status().is_final() {
            let view = shared.view_to_keep();
            if shared.is_serving() {
                let is_other = Source::new(&view, &shared.settings.describe_contents()) != token.source;
                if is_other || view.positions().has_reached(&token.place.positions) {
                    return;
                }
                let positions = &token.place.positions;
                // Watchers that wait share the requests.
                match shared.end_offsets.get(&*shared.log, &view.topic).await {
                    Ok(ends) if !ends.iter().copied().collect::<Positions>().has_reached(positions) => return,
                    Ok(_) | Err(_) => {}
                }
            }
            // OK to ignore: the sender lives in `shared`.
            let _ = published.changed().await;
        }
    };
    // OK to ignore: what the table has not reached by then cannot be replayed.
    let _ = tokio::time::timeout(TIMEOUT, wait).await;
}

/// Reads what led from a token to a view: every effect, or those of the newest record of each key.
/// `None` if the log no longer has it, cannot be read, or has too much, if the view is behind the token, or if too many
/// other watchers read the log, or do not take what was read for them.
pub(in crate::table) async fn replay(
    shared: &Arc<Shared>,
    state: &GenerationState,
    token: &WatchToken,
    view: Arc<View>,
    wants_every: bool,
) -> Option<ReplayedEffects> {
    let (seen, place) = (&token.place, view.place());
    // Nobody knows which entries went with the records that the log has lost since.
    if !place.positions.has_reached(&seen.positions) || !seen.starts.has_reached(&place.starts) {
        return None;
    }
    let unread = unread(shared, state, token, &view);
    let unread = tokio::time::timeout(TIMEOUT, unread).await.ok()??;
    let ttl = shared.settings.ttl.map(|ttl| i64::try_from(ttl.as_millis()).unwrap_or(i64::MAX));
    if unread.is_empty() && ttl.is_none() {
        return Some(ReplayedEffects::default());
    }
    let memory = shared.replay_memory.reserve().await?;
    let mut collector = EffectCollector::new(view.clone(), shared.settings.on_reject, wants_every);
    if !unread.is_empty() {
        let read = read(shared, state, &unread, &mut collector);
        tokio::time::timeout(TIMEOUT, read).await.ok()??;
    }
    let bytes = collector.bytes;
    let effects = run_long(|| collector.finish(ttl, seen.expired_until))?;
    Some(ReplayedEffects::new(effects, bytes, memory))
}

/// Returns the parts of the partitions that lead from a token to a view; none if the token has reached the view. `None` if
/// they must not be read.
async fn unread(
    shared: &Shared,
    state: &GenerationState,
    token: &WatchToken,
    view: &View,
) -> Option<Vec<OffsetRange>> {
    if state.quarantine.is_active() {
        return None;
    }
    let ranges = shared.log.offsets(&state.topic).await.ok()?;
    let ranges = remaining(&ranges, &token.place.positions)?;
    if token.place.positions.has_reached(view.positions()) {
        return Some(Vec::new());
    }
    // Tombstones that compaction removed since would be missing.
    let age = shared.settings.clock.now().saturating_sub(token.as_of?);
    let max_age = max_age(shared, &state.topic).await.ok()?;
    (!u128::try_from(age).is_ok_and(|age| age >= max_age.as_millis())).then_some(ranges)
}

async fn read(
    shared: &Arc<Shared>,
    state: &GenerationState,
    ranges: &[OffsetRange],
    collector: &mut EffectCollector,
) -> Option<()> {
    let target = collector.view.positions().clone();
    let wants_headers = state.codecs.value.wants_headers();
    let headers = if wants_headers { Headers::Wanted } else { Headers::Unwanted };
    let mut events = shared.log.read(&state.topic, ranges, headers).await.ok()?;
    // A state of its own: its failures are not those of the table, and it takes turns with it.
    let (topic, codecs) = (state.topic.clone(), state.codecs.clone());
    let state = Arc::new(GenerationState::new(REPLAY_NUMBER, topic, codecs, SwapGate::open()));
    let mut steps = SelectAll::new();
    let starts: Positions = ranges.iter().map(|range| (range.partition, range.start)).collect();
    let mut positions = starts.clone();
    while !positions.has_reached(&target) {
        tokio::select! {
            biased;
            event = events.next() => {
                if let TopicEvent::Partition(stream) = event?.ok()? {
                    let partition = stream.range().partition;
                    let from_log = |item| Ok::<_, StreamError>(SourceItem { item: item?, origin: Origin::Log });
                    steps.push(decode_stream(shared, &state, partition, stream.map(from_log)));
                }
            }
            step = steps.next(), if !steps.is_empty() => match step?.ok()? {
                Step::Apply(batch) => {
                    positions.raise(batch.decoded.partition, batch.decoded.next);
                    collector.add(batch.decoded)?;
                }
                Step::Position { partition, offset, .. } => positions.raise(partition, offset),
                // The log has lost records that were to be read.
                Step::Start { partition, offset } if starts.get(partition)? < offset => return None,
                Step::Start { .. } => {}
            }
        }
    }
    Some(())
}

/// The parts of the partitions after these positions; `None` if the log does not hold all of them.
fn remaining(ranges: &[OffsetRange], positions: &Positions) -> Option<Vec<OffsetRange>> {
    let is_known = |partition| ranges.iter().any(|range| range.partition == partition);
    let remaining = |range: &OffsetRange| {
        // A partition that has no position was added since.
        let start = positions.get(range.partition).unwrap_or(range.start);
        (range.start..=range.end).contains(&start).then_some(OffsetRange { start, ..*range })
    };
    if !positions.iter().all(|(partition, _)| is_known(partition)) {
        return None;
    }
    ranges.iter().map(remaining).collect()
}

/// Collects the effects of the records that are read.
struct EffectCollector {
    view: Arc<View>,
    on_reject: OnReject,
    wants_every: bool,
    records: usize,
    bytes: usize,
    /// All effects, or those of records without a key.
    effects: Vec<Effect>,
    /// What was read of each key.
    newest: HashMap<Box<str>, NewestRecord>,
    maker: EntryMaker,
}

/// The newest record of a key.
struct NewestRecord {
    /// The number of the record, among those that were read.
    number: usize,
    /// The record as an entry, which has no value if the record was rejected.
    entry: Entry,
    /// The newest record of the key that may have changed its entry.
    changed: Option<Entry>,
}

impl EffectCollector {
    fn new(view: Arc<View>, on_reject: OnReject, wants_every: bool) -> Self {
        Self {
            view,
            on_reject,
            wants_every,
            records: 0,
            bytes: 0,
            effects: Vec::new(),
            newest: HashMap::new(),
            maker: EntryMaker::default(),
        }
    }

    /// Adds the records of a batch that the view has. `None` if there are too many.
    fn add(&mut self, decoded: DecodedRecords) -> Option<()> {
        self.bytes += decoded.byte_len();
        let end = self.view.position(decoded.partition);
        for outcome in decoded.outcomes {
            self.records += 1;
            match outcome {
                Outcome::Set(entry, _) if entry.offset() < end => self.add_entry(entry, false),
                Outcome::Delete(entry, _) if entry.offset() < end => self.add_entry(entry, true),
                Outcome::Reject(reject) if reject.offset < end => self.add_reject(&reject),
                Outcome::Set(..) | Outcome::Delete(..) | Outcome::Reject(_) | Outcome::Foreign(_) => {}
            }
        }
        (self.records <= MAX_RECORDS && self.bytes <= MAX_REPLAY_BYTES).then_some(())
    }

    fn add_entry(&mut self, entry: Entry, is_tombstone: bool) {
        if self.wants_every {
            self.effects.push(Effect::Change(match is_tombstone {
                true => Change::deleted_unknown(entry, Cause::Record),
                false => Change::set(None, entry, Cause::Record),
            }));
        } else {
            self.set_newest(entry, true);
        }
    }

    fn set_newest(&mut self, entry: Entry, is_change: bool) {
        let before = self.newest.remove(entry.key());
        let changed = if is_change { Some(entry.clone()) } else { before.and_then(|newest| newest.changed) };
        self.newest.insert(entry.key().into(), NewestRecord { number: self.records, entry, changed });
    }

    fn add_reject(&mut self, reject: &RejectedRecord) {
        let effect = || Effect::Rejected {
            key: reject.key.clone(),
            group: reject.group.clone(),
            notice: RejectNotice::new(reject),
        };
        let Some(key) = &reject.key else { return self.effects.push(effect()) };
        let pair = reject.group.as_deref().map(|group| (group, ""));
        let entry = self.maker.make(reject.place(), key, pair, b"");
        let removes = self.on_reject == OnReject::Remove;
        if !self.wants_every {
            return self.set_newest(entry, removes);
        }
        if removes {
            self.effects.push(Effect::Change(Change::deleted_unknown(entry, Cause::Rejected)));
        }
        self.effects.push(effect());
    }

    /// Returns all effects. Those of entries that have expired since `seen_until` come last. Returns `None`
    /// if there are too many.
    fn finish(mut self, ttl: Option<i64>, seen_until: i64) -> Option<Vec<Effect>> {
        let mut newest: Vec<NewestRecord> = std::mem::take(&mut self.newest).into_values().collect();
        newest.sort_unstable_by_key(|newest| newest.number);
        let written: HashSet<Box<str>> = newest.iter().map(|newest| newest.entry.key().into()).collect();
        for newest in newest {
            self.push_newest(newest);
        }
        if let Some(ttl) = ttl {
            let view = self.view.clone();
            let is_unseen = |entry: &&Entry| {
                let deadline = entry.timestamp().map(|timestamp| timestamp.saturating_add(ttl));
                deadline.is_some_and(|deadline| deadline > seen_until) && !written.contains(entry.key())
            };
            for entry in view.all_expired().filter(is_unseen) {
                let change = Change::deleted(entry.clone(), entry.place(), Cause::Expired);
                self.effects.push(Effect::Change(change));
                if self.effects.len() > MAX_RECORDS {
                    return None;
                }
            }
        }
        Some(self.effects)
    }

    /// Pushes the present state of a key that was written.
    fn push_newest(&mut self, newest: NewestRecord) {
        let written = newest.entry;
        let key = written.key();
        let notice = self.view.notice(key).filter(|notice| notice.partition == written.partition());
        let effect = notice.map(|notice| Effect::Rejected {
            key: Some(key.into()),
            group: written.group().map(Into::into),
            notice: notice.clone(),
        });
        if let Some(changed) = newest.changed {
            self.effects.push(Effect::Change(match self.view.rows().get(key).cloned() {
                Some(entry) => Change::set(None, entry, Cause::Difference),
                None => Change::deleted_unknown(changed, Cause::Difference),
            }));
        }
        self.effects.extend(effect);
    }
}
