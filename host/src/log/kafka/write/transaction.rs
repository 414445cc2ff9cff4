//! Writes records atomically, with a client that starts at the first such write.

use std::ffi::CStr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::bindings as sys;
use rdkafka::types::RDKafkaErrorCode as Code;

use crate::log::kafka::config::{BatchSize, Configs, Purpose, TransactionalId};
use crate::log::kafka::error::topic_error;
use crate::log::kafka::ffi::client::{Client, millis};
use crate::log::kafka::health::cluster_health::ClusterHealth;
use crate::log::kafka::write::producer::Producer;
use crate::log::kafka::write::target::Target;
use crate::log::{Ack, Delivery, LogError, NewRecord, Offset};

/// How long each attempt of a step of a transaction may take, and how long a step is retried. Together, they
/// take twice this at most.
const STEP_TIMEOUT: Duration = Duration::from_secs(60);

/// How long to wait before a step is retried.
const RETRY_PAUSE: Duration = Duration::from_millis(100);

/// Writes transactions, one at a time. Its client starts at the first one, and is replaced when it fails.
#[derive(Debug)]
pub(in crate::log::kafka) struct Transactions {
    configs: Arc<Configs>,
    log: Arc<str>,
    health: Arc<ClusterHealth>,
    id: TransactionalId,
    client: Option<(BatchSize, TransactionalProducer)>,
}

/// A client that writes in transactions.
#[derive(Debug)]
struct TransactionalProducer(Producer);

/// The error of a step of a transaction.
#[derive(Debug)]
struct StepError {
    code: Code,
    reason: String,
    /// Whether the step may succeed if it is retried.
    is_retriable: bool,
}

impl StepError {
    /// Whether a newer client has the transactional id, so that this one can no longer write.
    fn is_fenced(&self) -> bool {
        matches!(self.code, Code::Fenced | Code::ProducerFenced | Code::InvalidProducerEpoch)
    }
}

/// The error of a transaction.
#[derive(Debug)]
pub(in crate::log::kafka) struct TransactionError {
    pub(in crate::log::kafka) error: LogError,
    /// Whether nothing was written because a newer client has the transactional id, the records did not get the offsets
    /// that were expected, or the prepared client was dropped.
    pub(in crate::log::kafka) is_conflict: bool,
    /// Whether the client must be replaced.
    is_client_dead: bool,
}

impl TransactionError {
    fn new(error: LogError, is_client_dead: bool) -> Self {
        Self { error, is_conflict: false, is_client_dead }
    }
}

impl Transactions {
    pub(in crate::log::kafka) fn new(
        configs: Arc<Configs>,
        log: Arc<str>,
        health: Arc<ClusterHealth>,
        id: TransactionalId,
    ) -> Self {
        Self { configs, log, health, id, client: None }
    }

    /// Drops the client, so that the next [`Transactions::prepare`] starts another one.
    pub(in crate::log::kafka) fn drop_client(&mut self) {
        self.client = None;
    }

    /// Starts the client, if there is none that can write to this topic. From then on, older clients with the same
    /// transactional id can no longer write. Blocks.
    pub(in crate::log::kafka) fn prepare(&mut self, target: &Target) -> Result<(), LogError> {
        let batch = target.batch_size();
        if self.client.as_ref().is_some_and(|(size, client)| *size == batch && !client.0.is_dead()) {
            return Ok(());
        }
        self.client = None;
        let purpose = Purpose::Transact(batch, self.id.clone());
        let producer = Producer::start(&self.configs, purpose, self.log.clone(), self.health.clone())?;
        let client = TransactionalProducer::start(producer, &self.log, target.name())?;
        self.client = Some((batch, client));
        Ok(())
    }

    /// Writes all records, or none. Blocks.
    pub(in crate::log::kafka) fn write(
        &mut self,
        target: &Arc<Target>,
        records: &[NewRecord],
        runtime: &tokio::runtime::Handle,
    ) -> Result<Vec<Ack>, TransactionError> {
        self.prepare(target).map_err(|error| TransactionError::new(error, true))?;
        self.write_prepared(target, records, None, runtime)
    }

    /// Writes all records, or none, with the client that was prepared. Writes nothing if the client has failed since, or
    /// if the first record would not get the offset that is expected. Blocks.
    pub(in crate::log::kafka) fn write_prepared(
        &mut self,
        target: &Arc<Target>,
        records: &[NewRecord],
        expected: Option<Offset>,
        runtime: &tokio::runtime::Handle,
    ) -> Result<Vec<Ack>, TransactionError> {
        let Some((_, client)) = &self.client else {
            let error = conflict(&self.log, target, "the client has failed");
            return Err(TransactionError { error, is_conflict: true, is_client_dead: true });
        };
        let written = client.write(target, records, expected, runtime);
        if written.as_ref().is_err_and(|error| error.is_client_dead) {
            self.client = None;
        }
        written
    }
}

/// Returns the error of a transaction that wrote nothing, because of another writer or because its client was dropped.
fn conflict(log: &str, target: &Target, reason: &str) -> LogError {
    let (log, topic, reason) = (log.to_owned(), target.name().to_owned(), reason.to_owned());
    LogError::Unreachable { log, topic, action: "write in a transaction to", reason }
}

impl TransactionalProducer {
    /// Prepares a producer for transactions. Blocks.
    fn start(producer: Producer, log: &str, topic: &str) -> Result<Self, LogError> {
        let client = producer.client();
        retry(|| init(client)).map_err(|step_error| {
            topic_error(log, topic, "begin a transaction for", step_error.code, step_error.reason)
        })?;
        Ok(Self(producer))
    }

    /// Writes all records, or none. `expected` is the offset that the first one must get. Blocks.
    fn write(
        &self,
        target: &Arc<Target>,
        records: &[NewRecord],
        expected: Option<Offset>,
        runtime: &tokio::runtime::Handle,
    ) -> Result<Vec<Ack>, TransactionError> {
        begin(self.0.client()).map_err(|step_error| self.failure(target, step_error, true))?;
        let mut deliveries = Vec::with_capacity(records.len());
        for record in records {
            let sent = runtime.block_on(self.0.send(target, record));
            if let Some(step_error) = self.fatal_error() {
                return Err(self.failure(target, step_error, true));
            }
            match sent {
                Ok(Some(delivery)) => deliveries.push(delivery),
                Ok(None) => {
                    let reason = "its client failed".to_owned();
                    let step_error = StepError { code: Code::Fatal, reason, is_retriable: false };
                    return Err(self.failure(target, step_error, true));
                }
                Err(error) => return Err(TransactionError::new(error, self.abort().is_err())),
            }
        }
        match expected {
            None => self.commit(target, deliveries, runtime),
            Some(expected) => self.commit_at(target, deliveries, expected, runtime),
        }
    }

    fn commit(
        &self,
        target: &Target,
        deliveries: Vec<Delivery>,
        runtime: &tokio::runtime::Handle,
    ) -> Result<Vec<Ack>, TransactionError> {
        match retry(|| commit(self.0.client())) {
            Ok(()) => wait_for_acks(deliveries, runtime).map_err(|error| TransactionError::new(error, true)),
            // A commit that was retried until the timeout may have succeeded.
            Err(step_error) if step_error.is_retriable => Err(self.unknown_outcome(target, step_error)),
            // If the transaction can be aborted, nothing was written.
            Err(step_error) => match self.abort() {
                Err(_) => Err(self.unknown_outcome(target, step_error)),
                Ok(()) => Err(match wait_for_acks(deliveries, runtime) {
                    Ok(_) => self.failure(target, step_error, false),
                    // It is known that nothing was written.
                    Err(LogError::Undelivered { reason, .. }) => {
                        let reason = format!("{}: {reason}", step_error.reason);
                        self.failure(target, StepError { reason, ..step_error }, false)
                    }
                    Err(error) => TransactionError::new(error, false),
                }),
            },
        }
    }

    /// Commits the transaction if its first record got the offset that is expected; otherwise aborts it.
    fn commit_at(
        &self,
        target: &Target,
        deliveries: Vec<Delivery>,
        expected: Offset,
        runtime: &tokio::runtime::Handle,
    ) -> Result<Vec<Ack>, TransactionError> {
        let acks = wait_for_acks(deliveries, runtime);
        if let Some(step_error) = self.fatal_error() {
            return Err(self.failure(target, step_error, true));
        }
        match acks {
            Ok(acks) if acks.first().is_some_and(|ack| ack.offset == Some(expected)) => {
                // Even if this fails because a newer client has fenced this one, the transaction may be committed: only
                // the answer may be lost.
                retry(|| commit(self.0.client()))
                    .map(|()| acks)
                    .map_err(|step_error| self.unknown_outcome(target, step_error))
            }
            Ok(_) => {
                let error = conflict(self.0.log(), target, "somebody else has written to it meanwhile");
                Err(TransactionError { error, is_conflict: true, is_client_dead: self.abort().is_err() })
            }
            Err(error) => Err(TransactionError::new(error, self.abort().is_err())),
        }
    }

    /// Aborts the transaction.
    fn abort(&self) -> Result<(), StepError> {
        let aborted = retry(|| abort(self.0.client()));
        self.0.forget_given_up();
        aborted
    }

    /// Returns the error that made the client unusable, if any.
    fn fatal_error(&self) -> Option<StepError> {
        let (code, reason) = self.0.client().fatal_error()?;
        Some(StepError { code, reason, is_retriable: false })
    }

    /// Returns the error of a transaction of which nothing was written.
    fn failure(&self, target: &Target, step_error: StepError, is_client_dead: bool) -> TransactionError {
        let is_conflict = step_error.is_fenced();
        let StepError { code, reason, .. } = step_error;
        let error = topic_error(self.0.log(), target.name(), "write in a transaction to", code, reason);
        TransactionError { error, is_conflict, is_client_dead }
    }

    /// Returns the error of a transaction that may have been committed or not.
    fn unknown_outcome(&self, target: &Target, step_error: StepError) -> TransactionError {
        let (log, topic) = (self.0.log().to_owned(), target.name().to_owned());
        let reason = format!("the commit of the transaction was not confirmed: {}", step_error.reason);
        TransactionError::new(LogError::Undelivered { log, topic, reason }, true)
    }
}

/// Waits for the acknowledgements of all records. If several records failed, returns an error other than
/// [`LogError::Undelivered`] if there is one: records that were purged because another one failed are undelivered, too.
fn wait_for_acks(deliveries: Vec<Delivery>, runtime: &tokio::runtime::Handle) -> Result<Vec<Ack>, LogError> {
    let mut undelivered = None;
    let mut acks = Vec::with_capacity(deliveries.len());
    for delivery in deliveries {
        match runtime.block_on(delivery) {
            Ok(ack) => acks.push(ack),
            Err(error @ LogError::Undelivered { .. }) => drop(undelivered.get_or_insert(error)),
            Err(error) => return Err(error),
        }
    }
    undelivered.map_or(Ok(acks), Err)
}

/// Retries a step until it succeeds, fails for good, or [`STEP_TIMEOUT`] is over.
fn retry(mut step: impl FnMut() -> Result<(), StepError>) -> Result<(), StepError> {
    let started = Instant::now();
    loop {
        match step() {
            Err(step_error) if step_error.is_retriable && started.elapsed() < STEP_TIMEOUT => {
                std::thread::sleep(RETRY_PAUSE);
            }
            result => return result,
        }
    }
}

#[allow(unsafe_code, reason = "calls into librdkafka")]
fn init(client: &Client) -> Result<(), StepError> {
    // SAFETY: the client is alive.
    to_result(unsafe { sys::rd_kafka_init_transactions(client.rk(), millis(STEP_TIMEOUT)) })
}

#[allow(unsafe_code, reason = "calls into librdkafka")]
fn begin(client: &Client) -> Result<(), StepError> {
    // SAFETY: as above.
    to_result(unsafe { sys::rd_kafka_begin_transaction(client.rk()) })
}

#[allow(unsafe_code, reason = "calls into librdkafka")]
fn commit(client: &Client) -> Result<(), StepError> {
    // SAFETY: as above.
    to_result(unsafe { sys::rd_kafka_commit_transaction(client.rk(), millis(STEP_TIMEOUT)) })
}

#[allow(unsafe_code, reason = "calls into librdkafka")]
fn abort(client: &Client) -> Result<(), StepError> {
    // SAFETY: as above.
    to_result(unsafe { sys::rd_kafka_abort_transaction(client.rk(), millis(STEP_TIMEOUT)) })
}

/// Converts an error object, null if there is no error, and frees it.
#[allow(unsafe_code, reason = "calls into librdkafka")]
fn to_result(error: *mut sys::rd_kafka_error_t) -> Result<(), StepError> {
    if error.is_null() {
        return Ok(());
    }
    // SAFETY: an error object is the caller's to free, once; its text lives until then.
    unsafe {
        let step_error = StepError {
            code: sys::rd_kafka_error_code(error).into(),
            reason: CStr::from_ptr(sys::rd_kafka_error_string(error)).to_string_lossy().into_owned(),
            is_retriable: sys::rd_kafka_error_is_retriable(error) != 0,
        };
        sys::rd_kafka_error_destroy(error);
        Err(step_error)
    }
}
