//! A witness of a fault: writes, watches, asks for freshness and remembers, and says at the
//! end what was lost, doubled, wrong or claimed falsely.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use ktables::codec::Codecs;
use ktables::log::{Ack, Log, LogOptions};
use ktables::table::{Cause, Entry, Status, Table, WatchEvent, WatchStart, Watcher};
use ktables::writer::{Target, Write, WriteError, Writer};
use tokio::task::JoinHandle;

use crate::{PATIENCE, eventually_async, kafka};

/// How soon a log says that nothing is heard.
pub const STALE_AFTER: Duration = Duration::from_secs(1);

/// A table that is caught up has seen what was acknowledged so long ago: silence is noticed
/// within [`STALE_AFTER`] and the time that questions take which nobody answers.
const GRACE: Duration = Duration::from_secs(5);

/// How many keys are written.
const KEYS: u64 = 40;

/// How many of them at once.
const AT_ONCE: u64 = 10;

/// What was seen of faults.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FaultTally {
    /// Faults injected.
    pub faults: u64,
    /// Writes acknowledged.
    pub acknowledged: u64,
    /// Of them, those that a table does not have that replays its topic afterwards.
    pub lost: u64,
    /// Changes that a watcher saw twice, or that do not follow from the one before.
    pub doubled: u64,
    /// Tables that differ from one that replays its topic.
    pub wrong: u64,
    /// Times that a table was caught up, or a barrier fresh, without what was acknowledged.
    pub false_claims: u64,
}

impl FaultTally {
    /// So many faults, and nothing wrong: of tests that assert that themselves.
    #[must_use]
    pub fn of(faults: u64) -> Self {
        Self { faults, ..Self::default() }
    }

    /// Tells it to whoever repeats tests, in a line of its own, and fails if anything is
    /// wrong.
    ///
    /// # Panics
    ///
    /// If anything is.
    pub fn tell(self) {
        let Self { faults, acknowledged, lost, doubled, wrong, false_claims } = self;
        let line = format!(
            "TALLY faults={faults} acknowledged={acknowledged} lost={lost} doubled={doubled} wrong={wrong} \
             false_claims={false_claims}"
        );
        say(&line);
        assert_eq!((lost, doubled, wrong, false_claims), (0, 0, 0, 0), "{self:?}");
    }
}

/// Tells a line, also in a test that passes, which keeps to itself what is printed.
fn say(line: &str) {
    std::io::Write::write_all(&mut std::io::stdout(), format!("{line}\n").as_bytes()).expect("told");
}

/// A write that was acknowledged.
#[derive(Debug, Clone)]
struct Acked {
    key: String,
    /// `None` is a delete.
    value: Option<u64>,
    partition: i32,
    offset: i64,
    at: Instant,
}

#[derive(Debug, Default)]
struct Seen {
    acked: Vec<Acked>,
    /// Keys of writes that may have been written or not.
    unknown: Vec<String>,
    doubled: u64,
    false_claims: u64,
    /// What the watcher was led to.
    watched: BTreeMap<String, Entry>,
    /// Statuses that were told, by name, with their reasons.
    statuses: Vec<(String, String)>,
    generations: u64,
}

/// A table under observation, and somebody who writes to its topic.
#[derive(Debug)]
pub struct Witness {
    /// The table.
    pub table: Table,
    log: Arc<dyn Log>,
    url: String,
    options: LogOptions,
    topic: String,
    seen: Arc<Mutex<Seen>>,
    writing: Arc<AtomicBool>,
    is_idle: Arc<AtomicBool>,
    stopped: Arc<AtomicBool>,
    tasks: Vec<JoinHandle<()>>,
}

impl Witness {
    /// Observes a topic that is there, and writes to it from now on.
    ///
    /// # Panics
    ///
    /// If it cannot.
    pub async fn of(bootstrap: &str, properties: &[(&str, &str)], topic: &str) -> Self {
        let properties = properties.iter().map(|&(name, value)| (name.to_owned(), value.to_owned()));
        let options = LogOptions {
            stale_after: STALE_AFTER,
            properties: properties.collect(),
            ..LogOptions::default()
        };
        let url = format!("kafka://{bootstrap}");
        let log = ktables::log::open_with(&url, options.clone()).expect("a log");
        kafka::seen(log.as_ref(), topic).await;
        let builder = Table::builder(log.clone(), topic, Codecs::default());
        let table = builder.catchup_timeout(PATIENCE).start().await.expect("a table");
        Self::with(url, options, log, table, topic).await
    }

    async fn with(url: String, options: LogOptions, log: Arc<dyn Log>, table: Table, topic: &str) -> Self {
        let writer = Writer::open(log.clone(), topic, Codecs::default()).await.expect("a writer");
        let seen = Arc::new(Mutex::new(Seen::default()));
        let (writing, stopped) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicBool::new(false)));
        let is_idle = Arc::new(AtomicBool::new(false));
        let watcher = table.watch(WatchStart::Entries);
        let tasks = vec![
            tokio::spawn(write(writer, seen.clone(), writing.clone(), is_idle.clone(), stopped.clone())),
            tokio::spawn(watch(watcher, seen.clone())),
            tokio::spawn(doubt(table.clone(), seen.clone(), stopped.clone())),
        ];
        let topic = topic.to_owned();
        Self { table, log, url, options, topic, seen, writing, is_idle, stopped, tasks }
    }

    /// Waits until so many more writes are acknowledged.
    pub async fn more_acknowledged(&self, count: usize) {
        let before = lock(&self.seen).acked.len();
        eventually_async("writes are acknowledged", || {
            (lock(&self.seen).acked.len() >= before + count).then_some(())
        })
        .await;
    }

    /// Waits until a status was told whose name, or reason, says this.
    pub async fn told(&self, words: &str) -> String {
        eventually_async(&format!("the status says `{words}`"), || {
            let seen = lock(&self.seen);
            let said = |(name, reason): &(String, String)| {
                (name == words || reason.contains(words)).then(|| format!("{name} {reason}"))
            };
            seen.statuses.iter().find_map(said)
        })
        .await
    }

    /// What was told of the status is forgotten.
    pub fn forget_statuses(&self) {
        lock(&self.seen).statuses.clear();
    }

    /// Writes no more, until [`Witness::go_on`]; what was begun is answered then.
    pub async fn hold(&self) {
        self.writing.store(false, Relaxed);
        eventually_async("the writer is idle", || self.is_idle.load(Relaxed).then_some(())).await;
    }

    /// Writes again.
    pub fn go_on(&self) {
        self.is_idle.store(false, Relaxed);
        self.writing.store(true, Relaxed);
    }

    /// What was written until now is gone, and nobody wonders: its topic was deleted, or a
    /// cluster was told to lose it. To be called while it holds.
    pub fn forget(&self) {
        let mut seen = lock(&self.seen);
        seen.acked.clear();
        seen.unknown.clear();
    }

    /// How many generations took over.
    #[must_use]
    pub fn generations(&self) -> u64 {
        lock(&self.seen).generations
    }

    /// Comes to an end: waits until the table is caught up with all that was written, and
    /// compares it with one that replays the topic.
    ///
    /// # Panics
    ///
    /// If the table does not recover.
    pub async fn finish(self, faults: u64) -> FaultTally {
        self.hold().await;
        let table = &self.table;
        let mut last = table.status();
        let recovered = async {
            while !table.barrier(PATIENCE).await.is_fresh() || !matches!(table.status(), Status::CaughtUp) {
                last = table.status();
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        if tokio::time::timeout(2 * PATIENCE, recovered).await.is_err() {
            panic!("the table does not recover: {last}, {:?}", table.stats());
        }
        // Through clients that saw none of it.
        let log = ktables::log::open_with(&self.url, self.options.clone()).expect("a log");
        let builder = Table::builder(log, &self.topic, Codecs::default());
        let fresh = builder.catchup_timeout(PATIENCE).start().await.expect("a table");
        self.judge(&fresh, faults).await
    }

    /// Comes to an end with a table that need not have recovered, beside one that replayed the
    /// topic.
    pub async fn judge(self, fresh: &Table, faults: u64) -> FaultTally {
        self.hold().await;
        self.stopped.store(true, Relaxed);
        let contents: BTreeMap<String, Entry> = entries(&self.table);
        let fresh = entries(fresh);
        eventually_async("the watcher has seen all", || (lock(&self.seen).watched == contents).then_some(()))
            .await;
        let seen = lock(&self.seen);
        let lost = newest(&seen.acked).filter(|(key, acked)| is_lost(&seen, &fresh, key, acked)).count();
        if fresh != contents {
            let differing = |(key, entry): &(&String, &Entry)| contents.get(*key) != Some(entry);
            say(&format!(
                "missing or other: {:?}",
                fresh.iter().filter(differing).take(3).collect::<Vec<_>>()
            ));
            let stale = contents.keys().filter(|key| !fresh.contains_key(*key));
            say(&format!("to spare: {:?}", stale.take(3).collect::<Vec<_>>()));
        }
        let tally = FaultTally {
            faults,
            acknowledged: seen.acked.len() as u64,
            lost: lost as u64,
            doubled: seen.doubled,
            wrong: u64::from(fresh != contents),
            false_claims: seen.false_claims,
        };
        drop(seen);
        self.tasks.iter().for_each(JoinHandle::abort);
        // Its clients go before the test ends.
        drop(self.log);
        tally
    }
}

/// Whether a write that was acknowledged is neither there nor was followed by another.
fn is_lost(seen: &Seen, fresh: &BTreeMap<String, Entry>, key: &str, acked: &Acked) -> bool {
    match (fresh.get(key), acked.value) {
        (Some(entry), Some(value)) if entry.offset() == acked.offset => entry.json() != value.to_string(),
        (Some(entry), _) => entry.offset() < acked.offset,
        (None, Some(_)) => !seen.unknown.iter().any(|unknown| unknown == key),
        (None, None) => false,
    }
}

/// The newest write of each key. Its records are all in one partition.
fn newest(acked: &[Acked]) -> impl Iterator<Item = (&str, &Acked)> {
    let mut newest: HashMap<&str, &Acked> = HashMap::new();
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

/// Sets and deletes, again and again.
async fn write(
    writer: Writer,
    seen: Arc<Mutex<Seen>>,
    writing: Arc<AtomicBool>,
    is_idle: Arc<AtomicBool>,
    stopped: Arc<AtomicBool>,
) {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    while !stopped.load(Relaxed) {
        if !writing.load(Relaxed) {
            is_idle.store(true, Relaxed);
            tokio::time::sleep(Duration::from_millis(5)).await;
            continue;
        }
        let numbers: Vec<u64> = (0..AT_ONCE).map(|_| NUMBER.fetch_add(1, Relaxed)).collect();
        let write = |&number: &u64| Write {
            target: Target::Key(format!("k{}", number % KEYS)),
            value: value(number).map(|value| value.to_string()),
        };
        let writes: Vec<Write> = numbers.iter().map(write).collect();
        let answers = writer.set_many(writes).await;
        lock(&seen).answered(numbers.into_iter().zip(answers));
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// What a write of this number sets; `None` is a delete.
fn value(number: u64) -> Option<u64> {
    (!number.is_multiple_of(9)).then_some(number)
}

impl Seen {
    fn answered(&mut self, answers: impl Iterator<Item = (u64, Result<Ack, WriteError>)>) {
        for (number, answer) in answers {
            let key = format!("k{}", number % KEYS);
            match answer {
                Ok(Ack { partition, offset }) => {
                    let at = Instant::now();
                    self.acked.push(Acked { key, value: value(number), partition, offset, at });
                }
                Err(_) => self.unknown.push(key),
            }
        }
    }
}

/// Follows the table, and notices what does not follow.
async fn watch(mut watcher: Watcher, seen: Arc<Mutex<Seen>>) {
    let mut last: HashMap<i32, i64> = HashMap::new();
    while let Some(event) = watcher.next().await {
        let mut seen = lock(&seen);
        match event {
            WatchEvent::Entry(entry) => drop(seen.watched.insert(entry.key().to_owned(), entry)),
            WatchEvent::Change(change) => {
                if change.cause == Cause::Record {
                    let last = last.entry(change.partition).or_insert(-1);
                    seen.doubled += u64::from(change.offset <= *last);
                    *last = change.offset.max(*last);
                }
                let old = match &change.new {
                    Some(new) => seen.watched.insert(change.key().to_owned(), new.clone()),
                    None => seen.watched.remove(change.key()),
                };
                let follows = old == change.old || change.cause != Cause::Record;
                seen.doubled += u64::from(!follows);
            }
            WatchEvent::Generation(_) => {
                last.clear();
                seen.generations += 1;
            }
            WatchEvent::Status(status) => {
                seen.statuses.push((status.name().to_owned(), status.reason().unwrap_or_default()));
            }
            WatchEvent::Synced | WatchEvent::Rejected { .. } => {}
            event => panic!("{event:?}"),
        }
    }
}

/// Asks whether the table is fresh, and looks whether that is true.
async fn doubt(table: Table, seen: Arc<Mutex<Seen>>, stopped: Arc<AtomicBool>) {
    while !stopped.load(Relaxed) {
        tokio::time::sleep(Duration::from_millis(100)).await;
        let (known, generation) = (lock(&seen).acked.clone(), table.snapshot().generation());
        // What was long acknowledged: looked at first, so that a machine that stood still does
        // not count as a table that did.
        let old: Vec<Acked> = known.iter().filter(|acked| acked.at.elapsed() > GRACE).cloned().collect();
        let is_fresh = table.barrier(Duration::from_millis(300)).await.is_fresh();
        let missing = |acked: &Acked| !is_visible(&table, acked);
        if is_fresh && known.iter().any(missing) && is_still(&seen, &known) {
            claimed_falsely(&seen, &table, "a barrier", known.iter().rfind(|acked| missing(acked)));
        }
        // It is there, if the table is caught up now and was then.
        if matches!(table.status(), Status::CaughtUp)
            && table.snapshot().generation() == generation
            && old.iter().any(missing)
            && matches!(table.status(), Status::CaughtUp)
            && is_still(&seen, &known)
        {
            claimed_falsely(&seen, &table, "the status", old.iter().find(|acked| missing(acked)));
        }
    }
}

/// Counts a claim, and says what is known of it.
fn claimed_falsely(seen: &Mutex<Seen>, table: &Table, who: &str, missing: Option<&Acked>) {
    lock(seen).false_claims += 1;
    let since = missing.map(|acked| acked.at.elapsed());
    say(&format!("{who} claims falsely, {since:?} after {missing:?}: {:?}", table.stats()));
}

/// Whether nobody forgot what was written.
fn is_still(seen: &Mutex<Seen>, known: &[Acked]) -> bool {
    lock(seen).acked.len() >= known.len()
}

fn is_visible(table: &Table, acked: &Acked) -> bool {
    let reached = |(partition, position)| partition == acked.partition && position > acked.offset;
    table.snapshot().positions().any(reached)
}

fn lock(seen: &Mutex<Seen>) -> MutexGuard<'_, Seen> {
    seen.lock().expect("not poisoned")
}
