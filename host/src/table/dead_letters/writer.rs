//! The task that writes the dead letters of a table.

use std::collections::{BTreeMap, HashSet};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use backon::{BackoffBuilder, ExponentialBuilder};
use tokio::time::sleep;

use crate::log::{
    Headers, LogError, NewRecord, Offset, OffsetRange, Partition, RecordBatch, TopicDescription, key_hash,
    partition_of_hash, read_ranges, with_timeout,
};
use crate::table::dead_letters::DeadLetters;
use crate::table::dead_letters::letter::{DeadLetter, ParsedLetter};
use crate::table::settings::DeadLetterOnError;
use crate::table::shared::Shared;

/// How long a request to the log may take.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// The first and the longest pause after a failed attempt to write.
const FAILURE_PAUSES: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));

/// The first and the longest pause after an attempt that failed because somebody else wrote to the topic.
const CONFLICT_PAUSES: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(2));

/// After this many such attempts in a row, writing counts as failed.
const MAX_CONFLICTS: u32 = 20;

/// How long after the first failed attempt a table that goes on without its dead letters gives up a batch.
const GIVE_UP_AFTER: Duration = Duration::from_secs(10);

/// Reads what the dead-letter topic holds, then writes the dead letters of a table until it is aborted.
pub(in crate::table) async fn run(shared: Arc<Shared>, letters: Arc<DeadLetters>) {
    let topic_ids = HashSet::from([shared.view().topic.id.clone()]);
    let (letters_to_write, positions) = (letters.clone(), BTreeMap::new());
    let mut writer =
        Writer { shared, letters: letters_to_write, topic_ids, topic: None, positions, is_recreated: false };
    if let Err(error) = writer.catch_up().await {
        tracing::warn!(
            topic = writer.shared.topic_name(),
            "cannot read dead-letter topic `{}`: {error}. The table tries again when it next rejects a record",
            letters.topic()
        );
    }
    loop {
        let batch = letters.next_batch().await;
        writer.write_or_give_up(&batch).await;
    }
}

/// Pauses that grow from the first to the longest one, and vary.
fn pauses((first, longest): (Duration, Duration)) -> impl Iterator<Item = Duration> {
    ExponentialBuilder::default()
        .with_min_delay(first)
        .with_max_delay(longest)
        .with_jitter()
        .without_max_times()
        .build()
}

struct Writer {
    shared: Arc<Shared>,
    letters: Arc<DeadLetters>,
    /// The identities of the table's topic, whose dead letters are of interest. A topic that is re-created adds one.
    topic_ids: HashSet<String>,
    /// The dead-letter topic; `None` before it is described.
    topic: Option<TopicDescription>,
    /// Up to where each partition of the dead-letter topic was read.
    positions: BTreeMap<Partition, Offset>,
    /// Whether the dead-letter topic was re-created since the last attempt.
    is_recreated: bool,
}

/// What is known of a batch after some attempts to write it.
#[derive(Debug, Default)]
struct Attempt {
    /// How many dead letters were written by now.
    written: u64,
    /// The dead letters that the topic refuses.
    refused: HashSet<(String, Partition, Offset)>,
    /// Whether each dead letter is written alone, because the topic refuses one of them.
    is_one_by_one: bool,
    /// The last error that left it unknown whether dead letters were written.
    undelivered: Option<LogError>,
}

impl Writer {
    /// Writes a batch. If that fails, tries it again until it succeeds or is given up.
    async fn write_or_give_up(&mut self, batch: &[Arc<DeadLetter>]) {
        let mut failing_since = None;
        let mut attempt = Attempt::default();
        let mut pauses = pauses(FAILURE_PAUSES);
        loop {
            let Err(error) = self.write(batch, &mut attempt).await else {
                self.letters.complete(batch.len(), attempt.written, attempt.refused.len() as u64);
                return self.report(None);
            };
            self.letters.record_failure();
            let failing_since = *failing_since.get_or_insert_with(Instant::now);
            match self.letters.settings.on_error {
                DeadLetterOnError::Wait => self.report(Some(self.describe_failure(batch, &error))),
                DeadLetterOnError::Continue if failing_since.elapsed() < GIVE_UP_AFTER => {}
                DeadLetterOnError::Continue => return self.give_up(batch, attempt.written, &error),
            }
            // OK because the number of pauses has no limit.
            sleep(pauses.next().unwrap_or(FAILURE_PAUSES.1)).await;
        }
    }

    /// Writes the dead letters of a batch that the topic neither holds nor refuses.
    async fn write(&mut self, batch: &[Arc<DeadLetter>], attempt: &mut Attempt) -> Result<(), LogError> {
        self.add_topic_ids(batch);
        let mut pauses = pauses(CONFLICT_PAUSES);
        let mut has_ended_transactions = false;
        for _ in 0..MAX_CONFLICTS {
            let topic = match self.catch_up().await {
                // Reading times out at a transaction that another process has left open.
                Err(LogError::Unreachable { .. }) if !has_ended_transactions => {
                    has_ended_transactions = true;
                    self.end_open_transactions().await?;
                    continue;
                }
                topic => topic?,
            };
            if std::mem::take(&mut self.is_recreated) {
                *attempt = Attempt::default();
            }
            let mut has_conflict = false;
            for (partition, missing) in self.missing(batch, &topic, attempt) {
                let at_once = if attempt.is_one_by_one { 1 } else { missing.len() };
                for missing in missing.chunks(at_once.max(1)) {
                    has_conflict |= !self.append(&topic, partition, missing, attempt).await?;
                }
            }
            if !has_conflict {
                return Ok(());
            }
            sleep(pauses.next().unwrap_or(CONFLICT_PAUSES.1)).await;
        }
        let (log, topic) = (self.shared.log.url().to_owned(), self.letters.topic().to_owned());
        let reason = "others write to it all the time".to_owned();
        let conflicts = LogError::Unreachable { log, topic, action: "write to", reason };
        Err(attempt.undelivered.take().unwrap_or(conflicts))
    }

    /// Appends dead letters to a partition. Returns false if they must be tried again.
    async fn append(
        &mut self,
        topic: &TopicDescription,
        partition: Partition,
        missing: &[&DeadLetter],
        attempt: &mut Attempt,
    ) -> Result<bool, LogError> {
        let end = self.positions.get(&partition).copied().unwrap_or(0);
        let records: Vec<NewRecord> = missing.iter().map(|letter| letter.record.clone()).collect();
        let log = &*self.shared.log;
        let append = log.append_at(topic, partition, end, records);
        match with_timeout(log, &topic.name, "write to", REQUEST_TIMEOUT, append).await {
            Ok(Some(appended)) => {
                self.positions.insert(partition, appended.end);
                for letter in missing {
                    self.letters.mark_known(&letter.topic_id, letter.partition, letter.offset);
                }
                attempt.written += missing.len() as u64;
                Ok(true)
            }
            Ok(None) => Ok(false),
            // What was written is read before the next attempt.
            Err(error @ LogError::Undelivered { .. }) => {
                attempt.undelivered = Some(error);
                Ok(false)
            }
            Err(LogError::InvalidRecord { reason, .. }) if missing.len() == 1 => {
                let letter = missing[0];
                tracing::error!(
                    topic = self.shared.topic_name(),
                    partition = letter.partition,
                    offset = letter.offset,
                    "a rejected record is lost, because dead-letter topic `{}` refuses it: {reason}",
                    topic.name
                );
                attempt.refused.insert((letter.topic_id.clone(), letter.partition, letter.offset));
                Ok(true)
            }
            Err(LogError::InvalidRecord { .. }) => {
                attempt.is_one_by_one = true;
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    /// Returns the dead letters that the topic neither holds nor refuses, by the partition that they are written to.
    fn missing<'a>(
        &self,
        batch: &'a [Arc<DeadLetter>],
        topic: &TopicDescription,
        attempt: &Attempt,
    ) -> BTreeMap<Partition, Vec<&'a DeadLetter>> {
        let mut missing: BTreeMap<Partition, Vec<&DeadLetter>> = BTreeMap::new();
        let mut seen = HashSet::new();
        for letter in batch {
            let id = (letter.topic_id.clone(), letter.partition, letter.offset);
            // Two generations may have rejected the same record.
            let is_done = self.letters.is_known(letter) || attempt.refused.contains(&id);
            if !is_done && seen.insert(id) {
                missing.entry(choose_partition(letter, topic.partitions)).or_default().push(letter);
            }
        }
        missing
    }

    /// Adds the identity of a re-created topic. The dead-letter topic is then read again from its start, for the dead
    /// letters of that identity.
    fn add_topic_ids(&mut self, batch: &[Arc<DeadLetter>]) {
        for letter in batch {
            if !self.topic_ids.contains(&letter.topic_id) {
                self.topic_ids.insert(letter.topic_id.clone());
                self.positions.clear();
            }
        }
    }

    /// Ends the transactions that other processes have left open in the dead-letter topic.
    async fn end_open_transactions(&self) -> Result<(), LogError> {
        let log = &*self.shared.log;
        let end = async {
            let topic = log.describe(self.letters.topic()).await?;
            log.append_at(&topic, 0, 0, Vec::new()).await
        };
        with_timeout(log, self.letters.topic(), "write to", REQUEST_TIMEOUT, end).await.map(drop)
    }

    /// Reads what was written to the topic since it was read last. Returns the topic.
    async fn catch_up(&mut self) -> Result<TopicDescription, LogError> {
        let log = self.shared.log.clone();
        let (topic, ends) = self.describe().await?;
        let ranges: Vec<OffsetRange> = ends
            .into_iter()
            .map(|range| {
                // A position is at most one beyond the end, because the marker of our own transaction may not be
                // visible yet. If it is farther, the topic was truncated, and is read from its start.
                let known = self.positions.get(&range.partition).filter(|known| **known <= range.end + 1);
                OffsetRange { start: known.map_or(range.start, |known| range.start.max(*known)), ..range }
            })
            .collect();
        let (letters, topic_ids, positions) = (&self.letters, &self.topic_ids, &mut self.positions);
        let name = self.shared.topic_name();
        let learn = |batch: RecordBatch| {
            for letter in (0..batch.len()).filter_map(|index| ParsedLetter::parse(&batch.get(index))) {
                if letter.topic == name && topic_ids.contains(letter.topic_id) {
                    letters.mark_known(letter.topic_id, letter.partition, letter.offset);
                }
            }
            positions.insert(batch.partition(), batch.next_offset().unwrap_or_default());
            ControlFlow::Continue(())
        };
        read_ranges(&*log, &topic, &ranges, Headers::Wanted, learn).await?;
        self.positions.extend(ranges.iter().map(|range| (range.partition, range.start.max(range.end))));
        Ok(topic)
    }

    /// Returns the dead-letter topic, with its present partitions and offsets.
    async fn describe(&mut self) -> Result<(TopicDescription, Vec<OffsetRange>), LogError> {
        let (log, name) = (&*self.shared.log, self.letters.topic());
        let describe = async {
            let mut topic = match &self.topic {
                Some(topic) => topic.clone(),
                None => log.describe(name).await?,
            };
            let ends = match log.offsets(&topic).await {
                Err(LogError::Replaced { .. } | LogError::UnknownTopic { .. }) => {
                    topic = log.describe(name).await?;
                    // The new topic holds nothing of what was read.
                    self.positions.clear();
                    self.letters.forget_known();
                    self.is_recreated = true;
                    log.offsets(&topic).await?
                }
                Ok(ends) if ends.len() > usize::try_from(topic.partitions).unwrap_or(0) => {
                    topic = log.describe(name).await?;
                    ends
                }
                ends => ends?,
            };
            Ok((topic, ends))
        };
        let (topic, ends) = with_timeout(log, name, "describe", REQUEST_TIMEOUT, describe).await?;
        self.topic = Some(topic.clone());
        Ok((topic, ends))
    }

    fn describe_failure(&self, batch: &[Arc<DeadLetter>], error: &LogError) -> Arc<str> {
        let name = self.letters.topic();
        // OK because a batch has at least one dead letter.
        let DeadLetter { partition, offset, .. } = **batch.first().expect("a dead letter");
        format!(
            "the table applies no more records until it can write to dead-letter topic `{name}`: {error}. It keeps \
             trying. To go on without the {} rejected records that wait (the first one: partition {partition}, offset \
             {offset}), set dead_letter_on_error = \"continue\"",
            self.letters.stats().waiting
        )
        .into()
    }

    /// Loses the dead letters of a batch that were not written.
    fn give_up(&self, batch: &[Arc<DeadLetter>], written: u64, error: &LogError) {
        let lost = batch.iter().filter(|letter| !self.letters.is_known(letter)).count();
        // OK because a batch has at least one dead letter.
        let DeadLetter { partition, offset, .. } = **batch.first().expect("a dead letter");
        tracing::error!(
            topic = self.shared.topic_name(),
            "{lost} rejected records are lost (of a batch that begins with partition {partition}, offset {offset}), because \
             dead-letter topic `{}` cannot be written: {error}",
            self.letters.topic()
        );
        self.letters.complete(batch.len(), written, lost as u64);
        self.letters.record_failure();
    }

    fn report(&self, reason: Option<Arc<str>>) {
        self.shared.update(|conditions| conditions.dead_letters = reason);
    }
}

/// Returns the partition that a dead letter is written to: always the same one, so that two processes that write it
/// notice each other.
fn choose_partition(letter: &DeadLetter, partitions: Partition) -> Partition {
    match &letter.record.key {
        Some(key) => partition_of_hash(key_hash(key), partitions),
        None => letter.partition % partitions,
    }
}
