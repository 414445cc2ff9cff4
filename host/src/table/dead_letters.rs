//! The dead-letter topic of a table: rejected records are written to it unchanged, with headers that say where they come
//! from and why they were rejected.
//!
//! A generation pushes the dead letters of the records that it is about to apply to a queue, from which one task of the
//! table writes them. A record that the topic holds is not written again, whoever wrote it: the topic is read before it
//! is written to, and an append fails if the topic has grown since. The checkpoint waits for dead letters. Tables wait
//! only while writing fails, while the queue is full, or while the checkpoint holds back too many records.

#[cfg(feature = "cli")]
mod compare;
mod deferred;
mod letter;
#[cfg(feature = "cli")]
mod retry;
#[cfg(feature = "cli")]
mod stored;
mod topic;
mod writer;

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::sync::{Notify, watch};

use crate::log::{Offset, Partition};
use crate::sync::{Counter, lock};
use crate::table::settings::{DeadLetterOnError, DeadLetterSettings};
use crate::table::status::DeadLetterStats;

#[cfg(feature = "cli")]
pub(super) use compare::compare;
#[cfg(feature = "cli")]
pub(crate) use compare::{CompareLettersError, DeadLetterComparison};
pub(super) use deferred::DeferredLetters;
pub(super) use letter::DeadLetter;
#[cfg(feature = "cli")]
pub(crate) use retry::{RetryError, RetryOptions, RetryOutcome, RetryResult, retry};
pub(super) use topic::open_topic;
pub(super) use writer::run;

/// How many bytes of dead letters may be queued before the table pauses.
const MAX_QUEUE_BYTES: usize = 16 << 20;

/// How many bytes of records may be applied since the queue was empty before the table pauses: a checkpoint keeps
/// them in memory until the dead letters before them are written.
const MAX_BYTES_SINCE_EMPTY: usize = 16 << 20;

/// How many dead letters are written together, and how many bytes. The last one may exceed the limit.
const BATCH_LETTERS: usize = 1_000;
const BATCH_BYTES: usize = 4 << 20;

/// The queue of the dead letters of a table.
#[derive(Debug)]
pub(super) struct DeadLetters {
    settings: DeadLetterSettings,
    /// A std lock: held to read or change fields.
    state: Mutex<State>,
    /// Wakes the task that writes.
    wake_writer: Notify,
    /// Notifies when dead letters are done, or when writing fails.
    changed: watch::Sender<()>,
    /// How many of the pushed dead letters are written, were in the topic already, or are lost.
    done: Arc<Counter>,
}

#[derive(Debug, Default)]
struct State {
    queue: VecDeque<Arc<DeadLetter>>,
    queue_bytes: usize,
    /// How many bytes of records were applied since the queue was empty.
    bytes_since_empty: usize,
    known: KnownRecords,
    stats: DeadLetterStats,
    /// How many dead letters were pushed.
    pushed: u64,
    /// Whether the last attempt to write failed.
    is_failing: bool,
}

/// The rejected records that were seen in the dead-letter topic since the table was started, by the identity of their
/// topic.
#[derive(Debug, Default)]
struct KnownRecords(HashMap<String, HashSet<(Partition, Offset)>>);

impl KnownRecords {
    fn contains(&self, letter: &DeadLetter) -> bool {
        self.0.get(&letter.topic_id).is_some_and(|known| known.contains(&(letter.partition, letter.offset)))
    }

    fn insert(&mut self, topic_id: &str, partition: Partition, offset: Offset) {
        if let Some(known) = self.0.get_mut(topic_id) {
            known.insert((partition, offset));
        } else {
            self.0.insert(topic_id.to_owned(), HashSet::from([(partition, offset)]));
        }
    }

    fn byte_len(&self) -> usize {
        // A hash table has a byte for each slot besides the item.
        let set = |known: &HashSet<_>| known.capacity() * (size_of::<(Partition, Offset)>() + 1);
        self.0.iter().map(|(topic_id, known)| topic_id.len() + set(known)).sum()
    }
}

impl DeadLetters {
    pub(super) fn new(settings: DeadLetterSettings) -> Self {
        let stats = DeadLetterStats { topic: settings.topic.clone(), ..DeadLetterStats::default() };
        Self {
            settings,
            state: Mutex::new(State { stats, ..State::default() }),
            wake_writer: Notify::new(),
            changed: watch::channel(()).0,
            done: Arc::default(),
        }
    }

    /// Returns the name of the dead-letter topic.
    pub(super) fn topic(&self) -> &str {
        &self.settings.topic
    }

    /// Whether a dead letter was seen in the topic.
    pub(super) fn is_known(&self, letter: &DeadLetter) -> bool {
        lock(&self.state).known.contains(letter)
    }

    /// Queues dead letters, apart from those that the topic holds. Returns the number that [`DeadLetters::done`] must
    /// reach before the checkpoint may store what is applied from now on; `None` if it need not wait.
    pub(super) fn push(&self, letters: Vec<DeadLetter>) -> Option<u64> {
        let mut state = lock(&self.state);
        for letter in letters {
            if state.known.contains(&letter) {
                state.stats.already_written += 1;
                continue;
            }
            // A table that goes on must not keep more and more of them while writing fails.
            let drops_when_full = self.settings.on_error == DeadLetterOnError::Continue && state.is_failing;
            if drops_when_full && state.queue_bytes > MAX_QUEUE_BYTES {
                state.stats.lost += 1;
                continue;
            }
            state.queue_bytes += letter.byte_len();
            state.queue.push_back(Arc::new(letter));
            state.pushed += 1;
        }
        self.wake_writer.notify_one();
        let must_wait = !state.queue.is_empty() && self.settings.on_error == DeadLetterOnError::Wait;
        must_wait.then_some(state.pushed)
    }

    /// Returns the count of the pushed dead letters that are done: written, in the topic already, or lost.
    pub(super) fn done(&self) -> Arc<Counter> {
        self.done.clone()
    }

    /// Counts bytes that the checkpoint keeps in memory until the queued dead letters are written.
    pub(super) fn add_applied(&self, bytes: usize) {
        let mut state = lock(&self.state);
        if !state.queue.is_empty() {
            state.bytes_since_empty += bytes;
        }
    }

    /// Returns whether the table must pause: apply no records.
    pub(super) fn must_pause(&self) -> bool {
        let state = lock(&self.state);
        let is_full = state.queue_bytes > MAX_QUEUE_BYTES;
        match self.settings.on_error {
            DeadLetterOnError::Wait => {
                let is_checkpoint_full = state.bytes_since_empty > MAX_BYTES_SINCE_EMPTY;
                !state.queue.is_empty() && (is_full || is_checkpoint_full || state.is_failing)
            }
            DeadLetterOnError::Continue => is_full && !state.is_failing,
        }
    }

    /// Whether the last attempt to write failed.
    pub(super) fn is_failing(&self) -> bool {
        lock(&self.state).is_failing
    }

    /// Notifies when dead letters are done, or when writing fails. A generation that pushes some checks afterwards whether
    /// it must pause.
    pub(super) fn subscribe(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// Returns the memory that the queue and the known records use, in bytes.
    pub(super) fn byte_len(&self) -> u64 {
        let state = lock(&self.state);
        (state.queue_bytes + state.known.byte_len()) as u64
    }

    pub(super) fn stats(&self) -> DeadLetterStats {
        let state = lock(&self.state);
        DeadLetterStats { waiting: state.queue.len() as u64, ..state.stats.clone() }
    }

    /// Waits until the queue is empty, for `timeout` at most, and not at all while writing fails. Then the
    /// checkpoint waits for dead letters no longer. Returns how many were not written.
    pub(super) async fn finish(&self, timeout: Duration) -> usize {
        let mut changed = self.changed.subscribe();
        let is_over = |state: &State| state.queue.is_empty() || state.is_failing;
        // OK to ignore: what is left is counted below.
        let _ = tokio::time::timeout(timeout, changed.wait_for(|()| is_over(&lock(&self.state)))).await;
        self.done.close();
        lock(&self.state).queue.len()
    }

    /// Waits for dead letters, and returns the first ones of the queue. They stay in it until they are done.
    async fn next_batch(&self) -> Vec<Arc<DeadLetter>> {
        loop {
            let batch = self.batch();
            if !batch.is_empty() {
                return batch;
            }
            self.wake_writer.notified().await;
        }
    }

    fn batch(&self) -> Vec<Arc<DeadLetter>> {
        let mut bytes = 0;
        let is_small = |letter: &&Arc<DeadLetter>| {
            let before = bytes;
            bytes += letter.byte_len();
            before < BATCH_BYTES
        };
        lock(&self.state).queue.iter().take(BATCH_LETTERS).take_while(is_small).cloned().collect()
    }

    /// Removes the first dead letters of the queue. `written` of them were written now, and `lost` are lost; the topic
    /// held the others.
    fn complete(&self, count: usize, written: u64, lost: u64) {
        let mut state = lock(&self.state);
        state.stats.written += written;
        state.stats.lost += lost;
        state.stats.already_written += (count as u64).saturating_sub(written + lost);
        state.is_failing = false;
        let removed: usize = state.queue.drain(..count).map(|letter| letter.byte_len()).sum();
        state.queue_bytes -= removed;
        if state.queue.is_empty() {
            state.bytes_since_empty = 0;
        }
        self.done.add(count as u64);
        self.notify(state);
    }

    /// Records that an attempt to write failed.
    fn record_failure(&self) {
        let mut state = lock(&self.state);
        state.is_failing = true;
        self.notify(state);
    }

    /// Notifies of a change, after the state was unlocked.
    fn notify(&self, state: MutexGuard<'_, State>) {
        drop(state);
        self.changed.send_replace(());
    }

    /// Forgets what the topic holds, because it was re-created.
    fn forget_known(&self) {
        lock(&self.state).known = KnownRecords::default();
    }

    /// Records that the topic holds the dead letter of a record.
    fn mark_known(&self, topic_id: &str, partition: Partition, offset: Offset) {
        lock(&self.state).known.insert(topic_id, partition, offset);
    }
}
