//! Compares tables with a reference of ten lines over random histories of their topics: 2,000 histories in a
//! directory, and 40 on a broker, which also have transactions (200 if tests may take long).

use std::collections::BTreeMap;
use std::path::Path;

use ktables::codec::Codecs;
use ktables::log::NewRecord;
use ktables::table::Table;
use ktables_tests::kafka::{self, Transactional};
use ktables_tests::{LogKind, Scratch, TIMEOUT, is_long_run, record};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestCaseError, TestRunner};
use tempfile::TempDir;
use tokio::runtime::Runtime;

/// A step of a history. There are few keys, so that steps affect the same ones.
#[derive(Debug, Clone)]
enum Step {
    /// Writes records.
    Write(Vec<(u8, Content)>),
    /// Writes records atomically, or in a transaction that is aborted.
    Atomic(Vec<(u8, Content)>, Outcome),
    /// Stops the table, and starts another one.
    Restart { with_checkpoint: bool },
    /// Adds a partition with a record to the topic, if its log can do that.
    Grow,
    /// Compares the table with the reference.
    Check,
}

/// The value of a record.
#[derive(Debug, Clone, Copy)]
enum Content {
    Value(u16),
    Delete,
    /// A value that is not JSON, which the codec rejects.
    Malformed,
}

/// The end of a transaction.
#[derive(Debug, Clone, Copy)]
enum Outcome {
    Commit,
    Abort,
}

/// The expected contents: the last write wins, null deletes, and rejected values change nothing.
#[derive(Debug, Default)]
struct Reference(BTreeMap<String, String>);

impl Reference {
    fn write(&mut self, key: &str, content: Content) {
        match content {
            Content::Value(value) => drop(self.0.insert(key.to_owned(), value.to_string())),
            Content::Delete => drop(self.0.remove(key)),
            Content::Malformed => {}
        }
    }
}

fn writes() -> impl Strategy<Value = Vec<(u8, Content)>> {
    let content = prop_oneof![
        6 => any::<u16>().prop_map(Content::Value),
        2 => Just(Content::Delete),
        1 => Just(Content::Malformed),
    ];
    proptest::collection::vec((0..8_u8, content), 1..10)
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => writes().prop_map(Step::Write),
        2 => (writes(), prop_oneof![Just(Outcome::Commit), Just(Outcome::Abort)])
            .prop_map(|(writes, outcome)| Step::Atomic(writes, outcome)),
        2 => any::<bool>().prop_map(|with_checkpoint| Step::Restart { with_checkpoint }),
        1 => Just(Step::Grow),
        2 => Just(Step::Check),
    ];
    proptest::collection::vec(step, 1..8)
}

fn key(number: u8) -> String {
    format!("k{number}")
}

fn value(content: Content) -> Option<String> {
    match content {
        Content::Value(value) => Some(value.to_string()),
        Content::Delete => None,
        Content::Malformed => Some("{".to_owned()),
    }
}

/// Returns the records of writes. A key stays in its partition when partitions are added.
fn records(writes: &[(u8, Content)], partitions: i32) -> Vec<NewRecord> {
    let record = |&(number, content): &(u8, Content)| NewRecord {
        partition: Some(i32::from(number) % partitions),
        ..record(&key(number), value(content).as_deref().map(str::as_bytes))
    };
    writes.iter().map(record).collect()
}

/// One history: a topic, its table, and the expected contents.
struct History {
    scratch: Scratch,
    table: Option<Table>,
    folder: TempDir,
    reference: Reference,
    partitions: usize,
    /// The producer for aborted transactions, if the log has transactions.
    transactional: Option<std::rc::Rc<Transactional>>,
}

impl History {
    async fn start(&mut self, checkpoint: Option<&Path>) {
        let builder = Table::builder(self.scratch.log.clone(), &self.scratch.topic.name, Codecs::default());
        let builder = builder.catchup_timeout(TIMEOUT);
        let builder = checkpoint.into_iter().fold(builder, |builder, folder| builder.checkpoint(folder));
        self.table = Some(builder.start().await.unwrap());
    }

    async fn apply(&mut self, step: Step) -> Result<(), TestCaseError> {
        match step {
            Step::Write(writes) => {
                self.scratch.write(records(&writes, self.scratch.topic.partitions)).await;
                writes.iter().for_each(|&(number, content)| self.reference.write(&key(number), content));
            }
            Step::Atomic(writes, Outcome::Commit) => {
                let records = records(&writes, self.scratch.topic.partitions);
                let acks = self.scratch.log.send_atomically(&self.scratch.topic, records).await.unwrap();
                prop_assert_eq!(acks.len(), writes.len());
                writes.iter().for_each(|&(number, content)| self.reference.write(&key(number), content));
            }
            Step::Atomic(writes, Outcome::Abort) => {
                if let Some(transactional) = &self.transactional {
                    transactional.begin();
                    for (number, content) in writes {
                        let partition = i32::from(number) % self.scratch.topic.partitions;
                        let aborted = value(content).unwrap_or_default();
                        transactional.send(&self.scratch.topic.name, partition, &key(number), &aborted);
                    }
                    transactional.abort();
                }
            }
            Step::Restart { with_checkpoint } => {
                if let Some(table) = self.table.take() {
                    table.stop().await;
                }
                let folder = self.folder.path().join("checkpoint");
                self.start(with_checkpoint.then_some(&folder)).await;
            }
            Step::Grow => self.grow().await,
            Step::Check => self.check().await?,
        }
        Ok(())
    }

    async fn grow(&mut self) {
        if self.transactional.is_none() {
            return;
        }
        self.partitions += 1;
        let name = self.scratch.topic.name.clone();
        kafka::grow(&kafka::shared(), &name, self.partitions).await;
        let key = format!("grown-{}", self.partitions);
        let partition = i32::try_from(self.partitions).ok().map(|count| count - 1);
        let grown = NewRecord { partition, ..record(&key, Some(b"1")) };
        let log = &self.scratch.log;
        ktables_tests::eventually_ok("the new partition takes a record", || async {
            let topic = log.describe(&name).await?;
            log.send(&topic, grown.clone()).await?.await
        })
        .await;
        self.reference.write(&key, Content::Value(1));
    }

    async fn check(&self) -> Result<(), TestCaseError> {
        let Some(table) = &self.table else { return Ok(()) };
        let freshness = table.barrier(TIMEOUT).await;
        prop_assert!(freshness.is_fresh(), "{:?}", freshness);
        let entry = |entry: &ktables::table::Entry| (entry.key().to_owned(), entry.json().to_owned());
        let contents: BTreeMap<_, _> = table.snapshot().iter().map(entry).collect();
        prop_assert_eq!(&contents, &self.reference.0);
        prop_assert_eq!(table.len(), self.reference.0.len());
        Ok(())
    }

    async fn run(&mut self, steps: Vec<Step>) -> Result<(), TestCaseError> {
        self.start(None).await;
        for step in steps {
            self.apply(step).await?;
        }
        self.check().await?;
        // Starts from the checkpoint, if one was written, and then without it.
        for with_checkpoint in [true, false] {
            self.apply(Step::Restart { with_checkpoint }).await?;
            self.check().await?;
        }
        Ok(())
    }
}

/// Runs this many random histories, and fails with the shortest one that differs from the reference.
fn compare_random_histories(cases: u32, kind: LogKind) {
    let runtime = Runtime::new().unwrap();
    let config = Config { cases, failure_persistence: None, max_shrink_iters: 300, ..Config::default() };
    let transactional =
        (kind == LogKind::Kafka).then(|| std::rc::Rc::new(Transactional::new(&kafka::shared())));
    // All histories on Kafka share the clients of this log, because the first write of a client takes half a
    // second.
    let shared = (kind == LogKind::Kafka).then(|| runtime.block_on(kind.scratch(2)));
    let result = TestRunner::new(config).run(&steps(), |steps| {
        runtime.block_on(async {
            let scratch = match &shared {
                None => Scratch::new(1).await,
                Some(shared) => shared.create_sibling(2).await,
            };
            let (transactional, partitions) = (transactional.clone(), 2);
            let folder = TempDir::new().unwrap();
            let reference = Reference::default();
            let mut history = History { scratch, table: None, folder, reference, partitions, transactional };
            history.run(steps).await
        })
    });
    result.unwrap_or_else(|error| panic!("{error}"));
}

#[test]
fn tables_equal_the_reference_after_random_histories_in_a_directory() {
    compare_random_histories(2000, LogKind::Directory);
}

#[test]
fn tables_equal_the_reference_after_random_histories_on_a_broker() {
    compare_random_histories(if is_long_run() { 200 } else { 40 }, LogKind::Kafka);
}
