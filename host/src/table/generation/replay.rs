//! Reading the log again for a watcher that resumes.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::SelectAll;

use crate::log::{Headers, OffsetRange, TopicEvent};
use crate::table::change::{Cause, Change, Effect};
use crate::table::decoded::{Decoded, Outcome};
use crate::table::entry::{Entry, EntryMaker};
use crate::table::generation::decode_stream::{Step, decode_stream};
use crate::table::generation::resume::max_age;
use crate::table::generation::source::{Origin, SourceItem, StreamError};
use crate::table::generation_state::GenerationState;
use crate::table::positions::Positions;
use crate::table::reject::{RejectNotice, RejectedRecord};
use crate::table::settings::OnReject;
use crate::table::shared::Shared;
use crate::table::view::View;
use crate::table::watch::WatchToken;

/// How many records, and how many bytes of decoded records, are read for one watcher. One that needs
/// more starts again: its entries are not much more.
const MAX_RECORDS: usize = 100_000;
const MAX_BYTES: usize = 64 << 20;

/// How long reading may take.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Reads what led from a token to a view: every effect, or those of the newest record of each key.
/// `None` if the log no longer has it, cannot be read, or has too much.
pub(in crate::table) async fn replay(
    shared: Arc<Shared>,
    state: Arc<GenerationState>,
    token: WatchToken,
    view: Arc<View>,
    wants_every: bool,
) -> Option<Vec<Effect>> {
    let on_reject = shared.settings.on_reject;
    let mut replayed = Replayed::new(view.clone(), on_reject, wants_every);
    if !token.positions.has_reached(view.positions()) {
        let read = read(&shared, &state, &token, &mut replayed);
        tokio::time::timeout(TIMEOUT, read).await.ok()??;
    }
    let ttl = shared.settings.ttl.map(|ttl| i64::try_from(ttl.as_millis()).unwrap_or(i64::MAX));
    Some(replayed.finish(ttl, token.time))
}

async fn read(
    shared: &Arc<Shared>,
    state: &Arc<GenerationState>,
    token: &WatchToken,
    replayed: &mut Replayed,
) -> Option<()> {
    // Tombstones that compaction removed since would be missing.
    let age = shared.settings.clock.now().saturating_sub(token.time);
    let max_age = max_age(shared, &state.topic).await.ok()?;
    if u128::try_from(age).is_ok_and(|age| age >= max_age.as_millis()) {
        return None;
    }
    let ranges = shared.log.offsets(&state.topic).await.ok()?;
    let remaining = ranges.iter().map(|range| remaining(range, &token.positions));
    let ranges = remaining.collect::<Option<Vec<_>>>()?;
    let wants_headers = state.codecs.value.wants_headers();
    let headers = if wants_headers { Headers::Wanted } else { Headers::Unwanted };
    let mut events = shared.log.read(&state.topic, &ranges, headers).await.ok()?;
    let mut steps = SelectAll::new();
    let mut positions: Positions = ranges.iter().map(|range| (range.partition, range.start)).collect();
    let target = replayed.view.positions().clone();
    while !positions.has_reached(&target) {
        tokio::select! {
            biased;
            event = events.next() => {
                if let TopicEvent::Partition(stream) = event?.ok()? {
                    let partition = stream.range().partition;
                    let from_log = |item| Ok::<_, StreamError>(SourceItem { item: item?, origin: Origin::Log });
                    steps.push(decode_stream(shared, state, partition, stream.map(from_log)));
                }
            }
            step = steps.next(), if !steps.is_empty() => match step?.ok()? {
                Step::Apply(batch) => {
                    positions.raise(batch.decoded.partition, batch.decoded.next);
                    replayed.add(batch.decoded)?;
                }
                Step::Position { partition, offset, .. } => positions.raise(partition, offset),
                // The log has lost records that were to be read.
                Step::Start { .. } => return None,
            }
        }
    }
    Some(())
}

/// The part of a partition after a token; `None` if the log no longer holds all of it.
fn remaining(range: &OffsetRange, positions: &Positions) -> Option<OffsetRange> {
    // A partition that the token does not know was added since.
    let start = positions.get(range.partition).unwrap_or(range.start);
    (range.start..=range.end).contains(&start).then_some(OffsetRange { start, ..*range })
}

/// The effects of the records that were read.
struct Replayed {
    view: Arc<View>,
    on_reject: OnReject,
    wants_every: bool,
    records: usize,
    bytes: usize,
    /// All effects, or those of records without a key.
    effects: Vec<Effect>,
    /// For each key that was written, the newest record as an entry, and its number.
    newest: HashMap<Box<str>, (usize, Entry)>,
    maker: EntryMaker,
}

impl Replayed {
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
    fn add(&mut self, decoded: Decoded) -> Option<()> {
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
        (self.records <= MAX_RECORDS && self.bytes <= MAX_BYTES).then_some(())
    }

    fn add_entry(&mut self, entry: Entry, is_tombstone: bool) {
        if self.wants_every {
            self.effects.push(Effect::Change(match is_tombstone {
                true => Change::deleted_unknown(entry, Cause::Record),
                false => Change::set(None, entry, Cause::Record),
            }));
        } else {
            self.newest.insert(entry.key().into(), (self.records, entry));
        }
    }

    fn add_reject(&mut self, reject: &RejectedRecord) {
        let effect = || Effect::Rejected {
            key: reject.key.clone(),
            group: reject.group.clone(),
            notice: RejectNotice::new(reject),
        };
        let Some(key) = &reject.key else { return self.effects.push(effect()) };
        let entry = self.maker.make(reject.place(), key, None, b"");
        if !self.wants_every {
            self.newest.insert(key.clone(), (self.records, entry));
            return;
        }
        if self.on_reject == OnReject::Remove {
            self.effects.push(Effect::Change(Change::deleted_unknown(entry, Cause::Rejected)));
        }
        self.effects.push(effect());
    }

    /// All effects; those of expirations after the token's time last.
    fn finish(mut self, ttl: Option<i64>, since: i64) -> Vec<Effect> {
        let mut newest: Vec<(usize, Entry)> = std::mem::take(&mut self.newest).into_values().collect();
        newest.sort_unstable_by_key(|(number, _)| *number);
        let written: HashSet<Box<str>> = newest.iter().map(|(_, entry)| entry.key().into()).collect();
        for (_, entry) in newest {
            self.push_newest(entry);
        }
        if let Some(ttl) = ttl {
            let expired = self.view.all_expired().filter(|entry| {
                let deadline = entry.timestamp().map(|timestamp| timestamp.saturating_add(ttl));
                deadline.is_some_and(|deadline| deadline > since) && !written.contains(entry.key())
            });
            let expired = expired
                .map(|entry| Effect::Change(Change::deleted(entry.clone(), entry.place(), Cause::Expired)));
            self.effects.extend(expired.collect::<Vec<_>>());
        }
        self.effects
    }

    /// Pushes the present state of a key that was written.
    fn push_newest(&mut self, written: Entry) {
        let key = written.key();
        let notice = self.view.notice(key).filter(|notice| notice.partition == written.partition());
        let effect = notice.map(|notice| Effect::Rejected {
            key: Some(key.into()),
            group: written.group().map(Into::into),
            notice: notice.clone(),
        });
        match self.view.rows().get(key).cloned() {
            Some(entry) => self.effects.push(Effect::Change(Change::set(None, entry, Cause::Difference))),
            None => self.effects.push(Effect::Change(Change::deleted_unknown(written, Cause::Difference))),
        }
        self.effects.extend(effect);
    }
}
