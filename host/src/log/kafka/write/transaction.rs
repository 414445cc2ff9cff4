//! Writing records as one: a client with a transactional id of its own, from the first
//! such write on.

use std::ffi::CStr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::bindings as sys;
use rdkafka::types::RDKafkaErrorCode as Code;

use crate::log::kafka::error::about_topic;
use crate::log::kafka::ffi::client::{Client, millis};
use crate::log::kafka::write::producer::Producer;
use crate::log::kafka::write::target::Target;
use crate::log::{Ack, Delivery, LogError, NewRecord};

/// How long each step of a transaction may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// How long to wait before a step is tried again.
const AGAIN: Duration = Duration::from_millis(100);

/// A client that writes in transactions, one at a time.
#[derive(Debug)]
pub(in crate::log::kafka) struct Transactions(Producer);

/// What a step of a transaction says.
#[derive(Debug)]
struct Refused {
    code: Code,
    reason: String,
    /// It may do if it is tried again.
    is_retriable: bool,
}

/// How a transaction failed, and whether its client is of use any more.
#[derive(Debug)]
pub(in crate::log::kafka) struct Failed {
    pub(in crate::log::kafka) error: LogError,
    pub(in crate::log::kafka) is_client_dead: bool,
}

impl Transactions {
    /// Blocks until the cluster lets it begin transactions.
    pub(in crate::log::kafka) fn start(producer: Producer, log: &str, topic: &str) -> Result<Self, LogError> {
        let client = producer.client();
        retried(|| init(client)).map_err(|refused| {
            about_topic(log, topic, "begin a transaction for", refused.code, refused.reason)
        })?;
        Ok(Self(producer))
    }

    /// Writes all records, or none. Blocks.
    pub(in crate::log::kafka) fn write(
        &self,
        target: &Arc<Target>,
        records: &[NewRecord],
        runtime: &tokio::runtime::Handle,
    ) -> Result<Vec<Ack>, Failed> {
        let client = self.0.client();
        begin(client).map_err(|refused| self.failed(target, refused, true))?;
        let mut deliveries = Vec::with_capacity(records.len());
        for record in records {
            match runtime.block_on(self.0.send(target, record)) {
                Ok(delivery) => deliveries.push(delivery),
                Err(error) => {
                    let is_client_dead = self.abort().is_err();
                    return Err(Failed { error, is_client_dead });
                }
            }
        }
        match retried(|| commit(client)) {
            Ok(()) => acks(deliveries, runtime).map_err(|error| Failed { error, is_client_dead: true }),
            // What is tried again until time is over may have been done.
            Err(refused) if refused.is_retriable => Err(self.unknown(target, refused)),
            // That it could be aborted means that nothing was written.
            Err(refused) => match self.abort() {
                Err(_) => Err(self.unknown(target, refused)),
                Ok(()) => {
                    let error = acks(deliveries, runtime).err();
                    Err(error.map_or_else(
                        || self.failed(target, refused, false),
                        |error| Failed { error, is_client_dead: false },
                    ))
                }
            },
        }
    }

    /// Ends a transaction without what was written in it.
    fn abort(&self) -> Result<(), Refused> {
        let aborted = retried(|| abort(self.0.client()));
        self.0.forget_given_up();
        aborted
    }

    /// Whether another client is needed.
    pub(in crate::log::kafka) fn is_dead(&self) -> bool {
        self.0.is_dead()
    }

    fn failed(&self, target: &Target, refused: Refused, is_client_dead: bool) -> Failed {
        let Refused { code, reason, .. } = refused;
        Failed {
            error: about_topic(self.0.log(), target.name(), "write in a transaction to", code, reason),
            is_client_dead,
        }
    }

    fn unknown(&self, target: &Target, refused: Refused) -> Failed {
        let (log, topic) = (self.0.log().to_owned(), target.name().to_owned());
        let reason = format!("the commit of its transaction was not confirmed: {}", refused.reason);
        Failed { error: LogError::Undelivered { log, topic, reason }, is_client_dead: true }
    }
}

/// Where the records are; or why the first that is nowhere is not.
fn acks(deliveries: Vec<Delivery>, runtime: &tokio::runtime::Handle) -> Result<Vec<Ack>, LogError> {
    let mut purged = None;
    let mut acks = Vec::with_capacity(deliveries.len());
    for delivery in deliveries {
        match runtime.block_on(delivery) {
            Ok(ack) => acks.push(ack),
            // Those that were given up because of another say less than that one.
            Err(error @ LogError::Undelivered { .. }) => drop(purged.get_or_insert(error)),
            Err(error) => return Err(error),
        }
    }
    purged.map_or(Ok(acks), Err)
}

/// Tries until it is done, or will never be, or time is over.
fn retried(mut step: impl FnMut() -> Result<(), Refused>) -> Result<(), Refused> {
    let started = Instant::now();
    loop {
        match step() {
            Err(refused) if refused.is_retriable && started.elapsed() < PATIENCE => std::thread::sleep(AGAIN),
            done => return done,
        }
    }
}

#[allow(unsafe_code, reason = "calls into librdkafka")]
fn init(client: &Client) -> Result<(), Refused> {
    // SAFETY: the client is alive.
    take(unsafe { sys::rd_kafka_init_transactions(client.rk(), millis(PATIENCE)) })
}

#[allow(unsafe_code, reason = "calls into librdkafka")]
fn begin(client: &Client) -> Result<(), Refused> {
    // SAFETY: as above.
    take(unsafe { sys::rd_kafka_begin_transaction(client.rk()) })
}

#[allow(unsafe_code, reason = "calls into librdkafka")]
fn commit(client: &Client) -> Result<(), Refused> {
    // SAFETY: as above.
    take(unsafe { sys::rd_kafka_commit_transaction(client.rk(), millis(PATIENCE)) })
}

#[allow(unsafe_code, reason = "calls into librdkafka")]
fn abort(client: &Client) -> Result<(), Refused> {
    // SAFETY: as above.
    take(unsafe { sys::rd_kafka_abort_transaction(client.rk(), millis(PATIENCE)) })
}

/// Reads an error object and frees it.
#[allow(unsafe_code, reason = "calls into librdkafka")]
fn take(error: *mut sys::rd_kafka_error_t) -> Result<(), Refused> {
    if error.is_null() {
        return Ok(());
    }
    // SAFETY: an error object is the caller's to free, once; its text lives until then.
    unsafe {
        let refused = Refused {
            code: sys::rd_kafka_error_code(error).into(),
            reason: CStr::from_ptr(sys::rd_kafka_error_string(error)).to_string_lossy().into_owned(),
            is_retriable: sys::rd_kafka_error_is_retriable(error) != 0,
        };
        sys::rd_kafka_error_destroy(error);
        Err(refused)
    }
}
