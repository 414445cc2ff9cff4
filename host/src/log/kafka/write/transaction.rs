//! Writes records atomically, with a client that has a transactional id of its own and starts at the first
//! such write.

use std::ffi::CStr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::bindings as sys;
use rdkafka::types::RDKafkaErrorCode as Code;

use crate::log::kafka::error::topic_error;
use crate::log::kafka::ffi::client::{Client, millis};
use crate::log::kafka::write::producer::Producer;
use crate::log::kafka::write::target::Target;
use crate::log::{Ack, Delivery, LogError, NewRecord};

/// How long each attempt of a step of a transaction may take, and how long a step is retried. Together, they
/// take twice this at most.
const STEP_TIMEOUT: Duration = Duration::from_secs(60);

/// How long to wait before a step is retried.
const RETRY_PAUSE: Duration = Duration::from_millis(100);

/// A client that writes in transactions, one at a time.
#[derive(Debug)]
pub(in crate::log::kafka) struct TransactionalProducer(Producer);

/// The error of a step of a transaction.
#[derive(Debug)]
struct StepError {
    code: Code,
    reason: String,
    /// Whether the step may succeed if it is retried.
    is_retriable: bool,
}

/// The error of a transaction, and whether its client must be replaced.
#[derive(Debug)]
pub(in crate::log::kafka) struct TransactionError {
    pub(in crate::log::kafka) error: LogError,
    pub(in crate::log::kafka) is_client_dead: bool,
}

impl TransactionalProducer {
    /// Prepares a producer for transactions. Blocks.
    pub(in crate::log::kafka) fn start(producer: Producer, log: &str, topic: &str) -> Result<Self, LogError> {
        let client = producer.client();
        retry(|| init(client)).map_err(|step_error| {
            topic_error(log, topic, "begin a transaction for", step_error.code, step_error.reason)
        })?;
        Ok(Self(producer))
    }

    /// Writes all records, or none. Blocks.
    pub(in crate::log::kafka) fn write(
        &self,
        target: &Arc<Target>,
        records: &[NewRecord],
        runtime: &tokio::runtime::Handle,
    ) -> Result<Vec<Ack>, TransactionError> {
        let client = self.0.client();
        begin(client).map_err(|step_error| self.failure(target, step_error, true))?;
        let mut deliveries = Vec::with_capacity(records.len());
        for record in records {
            match runtime.block_on(self.0.send(target, record)) {
                Ok(Some(delivery)) => deliveries.push(delivery),
                Ok(None) => {
                    let reason = "its client failed".to_owned();
                    let step_error = StepError { code: Code::Fatal, reason, is_retriable: false };
                    return Err(self.failure(target, step_error, true));
                }
                Err(error) => {
                    let is_client_dead = self.abort().is_err();
                    return Err(TransactionError { error, is_client_dead });
                }
            }
        }
        match retry(|| commit(client)) {
            Ok(()) => wait_for_acks(deliveries, runtime)
                .map_err(|error| TransactionError { error, is_client_dead: true }),
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
                    Err(error) => TransactionError { error, is_client_dead: false },
                }),
            },
        }
    }

    /// Aborts the transaction.
    fn abort(&self) -> Result<(), StepError> {
        let aborted = retry(|| abort(self.0.client()));
        self.0.forget_given_up();
        aborted
    }

    /// Whether the client must be replaced.
    pub(in crate::log::kafka) fn is_dead(&self) -> bool {
        self.0.is_dead()
    }

    /// Returns the error of a transaction of which nothing was written.
    fn failure(&self, target: &Target, step_error: StepError, is_client_dead: bool) -> TransactionError {
        let StepError { code, reason, .. } = step_error;
        TransactionError {
            error: topic_error(self.0.log(), target.name(), "write in a transaction to", code, reason),
            is_client_dead,
        }
    }

    /// Returns the error of a transaction that may have been committed or not.
    fn unknown_outcome(&self, target: &Target, step_error: StepError) -> TransactionError {
        let (log, topic) = (self.0.log().to_owned(), target.name().to_owned());
        let reason = format!("the commit of the transaction was not confirmed: {}", step_error.reason);
        TransactionError { error: LogError::Undelivered { log, topic, reason }, is_client_dead: true }
    }
}

/// Waits for the acknowledgements of all records. Returns the first error other than
/// [`LogError::Undelivered`], which records have, too, that were purged because of another one; otherwise the
/// first error.
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
