//! A witness of a fault: it writes to a topic, watches a table and requests barriers, and counts at the end
//! what was lost, doubled, wrong or claimed falsely.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use ktables::codec::Codecs;
use ktables::log::{Ack, Log, LogOptions};
use ktables::table::{Cause, Entry, Status, Table, WatchEvent, WatchStart, Watcher};
use ktables::writer::{Target, Write, WriteError, Writer};
use tokio::task::JoinHandle;

use crate::{TIMEOUT, eventually_async, kafka};

/// The `stale_after` of the witness's log: how soon it reports that no broker answers.
pub const STALE_AFTER: Duration = Duration::from_secs(1);

/// A table that is caught up must have applied records that were acknowledged this long ago: silence is
/// detected within [`STALE_AFTER`] plus the timeout of requests that nobody answers.
const GRACE: Duration = Duration::from_secs(5);

/// How many different keys are written.
const KEYS: u64 = 40;

/// How many records are written at once.
const BATCH: u64 = 10;

/// Counts of faults and of their effects.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FaultTally {
    /// Faults injected.
    pub faults: u64,
    /// Writes acknowledged.
    pub acknowledged: u64,
    /// Acknowledged writes that a table that replays the topic afterwards does not have.
    pub lost: u64,
    /// Changes that a watcher received twice, or whose old value is not the new value of the change before.
    pub doubled: u64,
    /// Tables that differ from one that replays the topic.
    pub wrong: u64,
    /// How often a table was caught up, or a barrier fresh, without records that were acknowledged before.
    pub false_claims: u64,
}

impl FaultTally {
    /// Counts faults without errors, for tests that assert this themselves.
    #[must_use]
    pub fn without_errors(faults: u64) -> Self {
        Self { faults, ..Self::default() }
    }

    /// Prints the counts in one line, which `cargo xtask soak` reads.
    ///
    /// # Panics
    ///
    /// If there is an error.
    pub fn report(self) {
        let Self { faults, acknowledged, lost, doubled, wrong, false_claims } = self;
        let line = format!(
            "TALLY faults={faults} acknowledged={acknowledged} lost={lost} doubled={doubled} wrong={wrong} \
             false_claims={false_claims}"
        );
        print_line(&line);
        assert_eq!((lost, doubled, wrong, false_claims), (0, 0, 0, 0), "{self:?}");
    }
}

/// Prints a line also if the test passes, whose output from `println!` is not shown.
fn print_line(line: &str) {
    std::io::Write::write_all(&mut std::io::stdout(), format!("{line}\n").as_bytes()).expect("printed");
}

/// A write that was acknowledged.
#[derive(Debug, Clone)]
struct AckedWrite {
    key: String,
    /// `None` for a delete.
    value: Option<u64>,
    partition: i32,
    offset: i64,
    at: Instant,
}

/// What the tasks of a witness have observed.
#[derive(Debug, Default)]
struct Observations {
    acked: Vec<AckedWrite>,
    /// How many times the writes were forgotten.
    forgotten: u64,
    /// The keys of writes that failed, and may have been written or not, or whose offset is unknown.
    unknown: Vec<String>,
    doubled: u64,
    false_claims: u64,
    /// The contents according to the watcher.
    watched: BTreeMap<String, Entry>,
    /// The names and reasons of the statuses that the watcher received.
    statuses: Vec<(String, String)>,
    generations: u64,
}

/// A table under observation, and tasks that write to its topic, watch it, and check its claims of freshness.
#[derive(Debug)]
pub struct Witness {
    /// The table.
    pub table: Table,
    url: String,
    options: LogOptions,
    topic: String,
    observations: Arc<Mutex<Observations>>,
    is_writing: Arc<AtomicBool>,
    is_idle: Arc<AtomicBool>,
    is_stopped: Arc<AtomicBool>,
    tasks: Vec<JoinHandle<()>>,
}

impl Witness {
    /// Starts to observe an existing topic, and to write to it.
    ///
    /// # Panics
    ///
    /// If the table or the writer cannot be started.
    pub async fn start(bootstrap: &str, properties: &[(&str, &str)], topic: &str) -> Self {
        let properties = properties.iter().map(|&(name, value)| (name.to_owned(), value.to_owned()));
        let options = LogOptions {
            stale_after: STALE_AFTER,
            properties: properties.collect(),
            ..LogOptions::default()
        };
        let url = format!("kafka://{bootstrap}");
        let log = ktables::log::open_with(&url, options.clone()).expect("a log");
        kafka::wait_for_topic(log.as_ref(), topic).await;
        let builder = Table::builder(log.clone(), topic, Codecs::default());
        let table = builder.catchup_timeout(TIMEOUT).start().await.expect("a table");
        Self::observe(url, options, log, table, topic).await
    }

    async fn observe(url: String, options: LogOptions, log: Arc<dyn Log>, table: Table, topic: &str) -> Self {
        let writer = Writer::open(log.clone(), topic, Codecs::default()).await.expect("a writer");
        let observations = Arc::new(Mutex::new(Observations::default()));
        let (is_writing, is_stopped) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicBool::new(false)));
        let is_idle = Arc::new(AtomicBool::new(false));
        let watcher = table.watch(WatchStart::Entries);
        let tasks = vec![
            tokio::spawn(write(
                writer,
                observations.clone(),
                is_writing.clone(),
                is_idle.clone(),
                is_stopped.clone(),
            )),
            tokio::spawn(watch(watcher, observations.clone())),
            tokio::spawn(check_freshness(table.clone(), observations.clone(), is_stopped.clone())),
        ];
        let topic = topic.to_owned();
        Self { table, url, options, topic, observations, is_writing, is_idle, is_stopped, tasks }
    }

    /// Waits until this many more writes are acknowledged.
    pub async fn wait_for_writes(&self, count: usize) {
        let before = lock(&self.observations).acked.len();
        eventually_async("writes are acknowledged", || {
            (lock(&self.observations).acked.len() >= before + count).then_some(())
        })
        .await;
    }

    /// Waits until the watcher has received a status whose name is this text, or whose reason contains it.
    /// Returns both.
    pub async fn wait_for_status(&self, text: &str) -> String {
        eventually_async(&format!("the status says `{text}`"), || {
            let observations = lock(&self.observations);
            let find = |(name, reason): &(String, String)| {
                (name == text || reason.contains(text)).then(|| format!("{name} {reason}"))
            };
            observations.statuses.iter().find_map(find)
        })
        .await
    }

    /// Forgets the statuses that were received.
    pub fn forget_statuses(&self) {
        lock(&self.observations).statuses.clear();
    }

    /// Pauses writing until [`Witness::resume_writes`], and waits until all writes are answered.
    pub async fn pause_writes(&self) {
        // A paused writer sets it again.
        self.is_idle.store(false, Relaxed);
        self.is_writing.store(false, Relaxed);
        eventually_async("the writer is idle", || self.is_idle.load(Relaxed).then_some(())).await;
    }

    /// Resumes writing.
    pub fn resume_writes(&self) {
        self.is_idle.store(false, Relaxed);
        self.is_writing.store(true, Relaxed);
    }

    /// Forgets all writes, because the test has deleted the topic, or has made the cluster lose records. Must
    /// be called while writing is paused.
    pub fn forget_writes(&self) {
        let mut observations = lock(&self.observations);
        observations.acked.clear();
        observations.unknown.clear();
        observations.forgotten += 1;
    }

    /// Returns how many times another generation was served.
    #[must_use]
    pub fn generations(&self) -> u64 {
        lock(&self.observations).generations
    }

    /// Stops writing, waits until the table is caught up, and compares it with one that replays the topic.
    ///
    /// # Panics
    ///
    /// If the table does not recover.
    pub async fn finish(self, faults: u64) -> FaultTally {
        self.pause_writes().await;
        let table = &self.table;
        let mut last = table.status();
        let recovered = async {
            while !table.barrier(TIMEOUT).await.is_fresh() || !matches!(table.status(), Status::CaughtUp) {
                last = table.status();
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        if tokio::time::timeout(2 * TIMEOUT, recovered).await.is_err() {
            panic!("the table does not recover: {last}, {:?}", table.stats());
        }
        // The clients of this log did not experience the fault.
        let log = ktables::log::open_with(&self.url, self.options.clone()).expect("a log");
        let builder = Table::builder(log, &self.topic, Codecs::default());
        let fresh = builder.catchup_timeout(TIMEOUT).start().await.expect("a table");
        self.compare_with(&fresh, faults).await
    }

    /// Stops writing, and compares the table, which need not have recovered, with one that replayed the
    /// topic.
    pub async fn compare_with(self, fresh: &Table, faults: u64) -> FaultTally {
        self.pause_writes().await;
        self.is_stopped.store(true, Relaxed);
        let contents: BTreeMap<String, Entry> = entries(&self.table);
        let fresh = entries(fresh);
        eventually_async("the watcher has received everything", || {
            (lock(&self.observations).watched == contents).then_some(())
        })
        .await;
        let observations = lock(&self.observations);
        let is_lost = |(key, acked): &(&str, &AckedWrite)| is_lost(&observations, &fresh, key, acked);
        let lost = newest(&observations.acked).filter(is_lost).count();
        if fresh != contents {
            let differing = |(key, entry): &(&String, &Entry)| contents.get(*key) != Some(entry);
            print_line(&format!(
                "missing or different entries: {:?}",
                fresh.iter().filter(differing).take(3).collect::<Vec<_>>()
            ));
            let stale = contents.keys().filter(|key| !fresh.contains_key(*key));
            print_line(&format!("entries that should not exist: {:?}", stale.take(3).collect::<Vec<_>>()));
        }
        let tally = FaultTally {
            faults,
            acknowledged: observations.acked.len() as u64,
            lost: lost as u64,
            doubled: observations.doubled,
            wrong: u64::from(fresh != contents),
            false_claims: observations.false_claims,
        };
        drop(observations);
        self.tasks.iter().for_each(JoinHandle::abort);
        tally
    }
}

/// Whether an acknowledged write is missing, although no later write to its key replaced it.
fn is_lost(
    observations: &Observations,
    fresh: &BTreeMap<String, Entry>,
    key: &str,
    acked: &AckedWrite,
) -> bool {
    match (fresh.get(key), acked.value) {
        (Some(entry), Some(value)) if entry.offset() == acked.offset => entry.json() != value.to_string(),
        (Some(entry), _) => entry.offset() < acked.offset,
        (None, Some(_)) => !observations.unknown.iter().any(|unknown| unknown == key),
        (None, None) => false,
    }
}

/// Returns the newest write of each key, by offset. All records of a key are in one partition: a test that adds
/// partitions ends before the producer of the witness learns of them.
fn newest(acked: &[AckedWrite]) -> impl Iterator<Item = (&str, &AckedWrite)> {
    let mut newest: HashMap<&str, &AckedWrite> = HashMap::new();
    for acked in acked {
        let known = newest.entry(&acked.key).or_insert(acked);
        if acked.offset > known.offset {
            *known = acked;
        }
    }
    newest.into_iter()
}

fn entries(table: &Table) -> BTreeMap<String, Entry> {
    table.snapshot().iter().map(|entry| (entry.key().to_owned(), entry.clone())).collect()
}

/// Sets and deletes keys until the witness is stopped.
async fn write(
    writer: Writer,
    observations: Arc<Mutex<Observations>>,
    is_writing: Arc<AtomicBool>,
    is_idle: Arc<AtomicBool>,
    is_stopped: Arc<AtomicBool>,
) {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    while !is_stopped.load(Relaxed) {
        if !is_writing.load(Relaxed) {
            is_idle.store(true, Relaxed);
            tokio::time::sleep(Duration::from_millis(5)).await;
            continue;
        }
        let numbers: Vec<u64> = (0..BATCH).map(|_| NUMBER.fetch_add(1, Relaxed)).collect();
        let write = |&number: &u64| Write {
            target: Target::Key(format!("k{}", number % KEYS)),
            value: value(number).map(|value| value.to_string()),
        };
        let writes: Vec<Write> = numbers.iter().map(write).collect();
        let results = writer.set_many(writes).await;
        lock(&observations).add_results(numbers.into_iter().zip(results));
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Returns the value that the write with this number sets; `None` for a delete.
fn value(number: u64) -> Option<u64> {
    (!number.is_multiple_of(9)).then_some(number)
}

impl Observations {
    fn add_results(&mut self, results: impl Iterator<Item = (u64, Result<Ack, WriteError>)>) {
        for (number, result) in results {
            let key = format!("k{}", number % KEYS);
            match result {
                Ok(Ack { partition, offset: Some(offset) }) => {
                    let at = Instant::now();
                    self.acked.push(AckedWrite { key, value: value(number), partition, offset, at });
                }
                // It may have been written, but nobody knows where: it cannot be compared.
                Ok(Ack { offset: None, .. }) | Err(_) => self.unknown.push(key),
            }
        }
    }
}

/// Watches the table, and counts changes that are doubled or out of order.
async fn watch(mut watcher: Watcher, observations: Arc<Mutex<Observations>>) {
    let mut last: HashMap<i32, i64> = HashMap::new();
    while let Some(event) = watcher.next().await {
        let mut observations = lock(&observations);
        match event {
            WatchEvent::Entry(entry) => drop(observations.watched.insert(entry.key().to_owned(), entry)),
            WatchEvent::Change(change) => {
                if change.cause == Cause::Record {
                    let last = last.entry(change.partition).or_insert(-1);
                    observations.doubled += u64::from(change.offset <= *last);
                    *last = change.offset.max(*last);
                }
                let old = match &change.new {
                    Some(new) => observations.watched.insert(change.key().to_owned(), new.clone()),
                    None => observations.watched.remove(change.key()),
                };
                let is_consistent = old == change.old || change.cause != Cause::Record;
                observations.doubled += u64::from(!is_consistent);
            }
            WatchEvent::Generation(_) => {
                last.clear();
                observations.generations += 1;
            }
            WatchEvent::Status(status) => {
                observations.statuses.push((status.name().to_owned(), status.reason().unwrap_or_default()));
            }
            WatchEvent::Synced | WatchEvent::Rejected { .. } => {}
            event => panic!("{event:?}"),
        }
    }
}

/// Requests barriers and reads the status of the table, and checks that both are right.
async fn check_freshness(table: Table, observations: Arc<Mutex<Observations>>, is_stopped: Arc<AtomicBool>) {
    while !is_stopped.load(Relaxed) {
        tokio::time::sleep(Duration::from_millis(100)).await;
        let (known, forgotten) = {
            let observations = lock(&observations);
            (observations.acked.clone(), observations.forgotten)
        };
        let is_current = || lock(&observations).forgotten == forgotten;
        let generation = table.snapshot().generation();
        // Selected before the barrier, so that a pause of the machine does not count as a late table.
        let old: Vec<AckedWrite> = known.iter().filter(|acked| acked.at.elapsed() > GRACE).cloned().collect();
        let is_fresh = table.barrier(Duration::from_millis(300)).await.is_fresh();
        let missing = |acked: &AckedWrite| !is_visible(&table, acked);
        if is_fresh && known.iter().any(missing) && is_current() {
            count_false_claim(&observations, &table, "a barrier", known.iter().rfind(|acked| missing(acked)));
        }
        // The records must be visible if the table is caught up before and after the check.
        if matches!(table.status(), Status::CaughtUp)
            && table.snapshot().generation() == generation
            && old.iter().any(missing)
            && matches!(table.status(), Status::CaughtUp)
            && is_current()
        {
            count_false_claim(&observations, &table, "the status", old.iter().find(|acked| missing(acked)));
        }
    }
}

/// Counts a false claim, and prints its details.
fn count_false_claim(
    observations: &Mutex<Observations>,
    table: &Table,
    source: &str,
    missing: Option<&AckedWrite>,
) {
    lock(observations).false_claims += 1;
    let since = missing.map(|acked| acked.at.elapsed());
    print_line(&format!("{source} claims freshness, {since:?} after {missing:?}: {:?}", table.stats()));
}

fn is_visible(table: &Table, acked: &AckedWrite) -> bool {
    let reached = |(partition, position)| partition == acked.partition && position > acked.offset;
    table.snapshot().positions().any(reached)
}

fn lock(observations: &Mutex<Observations>) -> MutexGuard<'_, Observations> {
    observations.lock().expect("not poisoned")
}
