//! A client that writes.
//!
//! Every queued record is acknowledged, or reported as not acknowledged. A client that is dropped purges its
//! queue first, so that no [`Delivery`] waits for ever.

use std::ffi::{CString, c_void};
use std::ptr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, OnceLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rdkafka::bindings as sys;
use rdkafka::types::RDKafkaErrorCode as Code;
use tokio::sync::{Notify, oneshot};

use crate::log::kafka::config::{Configs, Purpose};
use crate::log::kafka::error::{ErrorClass, classify, topic_error};
use crate::log::kafka::ffi::client::{Client, take_error};
use crate::log::kafka::ffi::event::{DeliveryReport, Event};
use crate::log::kafka::health::cluster_health::ClusterHealth;
use crate::log::kafka::health::stuck::{ProducerAction, StuckProducerDetector};
use crate::log::kafka::write::target::Target;
use crate::log::{Ack, Delivery, LogError, NewRecord, Unacknowledged};
use crate::sync::{lock, wait_while};
use crate::thread::run_in_background;

use sys::rd_kafka_vtype_t as Kind;

/// How long the thread waits for events at a time.
const POLL_TIMEOUT: Duration = Duration::from_millis(500);

/// How long a request for the partitions of a topic may take.
const METADATA_TIMEOUT: Duration = Duration::from_secs(5);

/// How long to wait for the delivery reports of purged records.
const PURGE_TIMEOUT: Duration = Duration::from_secs(2);

/// How long a record waits for the report of another one before it tries the queue again.
const ROOM_TIMEOUT: Duration = Duration::from_secs(1);

/// A delivery report that librdkafka owes for a record.
struct PendingReport {
    answer: oneshot::Sender<Result<Ack, LogError>>,
    target: Arc<Target>,
}

/// A client that writes, and the thread that polls it.
#[derive(Debug)]
pub(in crate::log::kafka) struct Producer {
    inner: Arc<Inner>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Inner {
    client: Client,
    log: Arc<str>,
    health: Arc<ClusterHealth>,
    must_stop: AtomicBool,
    is_dead: AtomicBool,
    /// Its `message.max.bytes`: the limit of a record with its overhead.
    max_message_bytes: u64,
    /// How long a client that was replaced may take to write its queued records.
    retire_timeout: Duration,
    /// The error that made the client unusable.
    fatal: OnceLock<(Code, String)>,
    /// Why its outstanding records were purged, for their errors.
    give_up_reason: OnceLock<&'static str>,
    /// Notified when the queue may have room again.
    room: Notify,
    /// A std lock, held only to count, or to take the list.
    outstanding: Mutex<Outstanding>,
    /// A std lock, held only to count.
    stuck: Mutex<StuckProducerDetector>,
    /// Notified after each delivery report.
    reported: Condvar,
}

/// The records that were queued and have no delivery report yet.
#[derive(Debug)]
struct Outstanding {
    records: usize,
    /// The time of the last delivery report, or of the first outstanding record if that is later.
    since: Instant,
    /// The records that were purged.
    given_up: Vec<Unacknowledged>,
}

impl Producer {
    /// Starts a client and its thread.
    pub(in crate::log::kafka) fn start(
        configs: &Configs,
        purpose: Purpose,
        log: Arc<str>,
        health: Arc<ClusterHealth>,
    ) -> Result<Self, LogError> {
        let inner = Arc::new(Inner {
            client: configs.start(purpose)?,
            log: log.clone(),
            health,
            must_stop: AtomicBool::new(false),
            is_dead: AtomicBool::new(false),
            max_message_bytes: configs.max_message_bytes(),
            retire_timeout: configs.retire_timeout(),
            fatal: OnceLock::new(),
            give_up_reason: OnceLock::new(),
            room: Notify::new(),
            outstanding: Mutex::new(Outstanding { records: 0, since: Instant::now(), given_up: Vec::new() }),
            stuck: Mutex::default(),
            reported: Condvar::new(),
        });
        let polled = inner.clone();
        let thread = crate::thread::spawn("ktables-produce", move || polled.run()).map_err(|error| {
            LogError::Client { log: log.to_string(), reason: format!("cannot start a thread: {error}") }
        })?;
        Ok(Self { inner, thread: Some(thread) })
    }

    pub(in crate::log::kafka) fn client(&self) -> &Client {
        &self.inner.client
    }

    /// The log's URL.
    pub(in crate::log::kafka) fn log(&self) -> &str {
        &self.inner.log
    }

    /// Whether the client has failed for good, or was given up.
    pub(in crate::log::kafka) fn is_dead(&self) -> bool {
        self.inner.is_dead.load(Ordering::Acquire)
    }

    /// Queues a record. Waits while the queue is full. Returns `None` if the client fails for good, or is given
    /// up, during the wait.
    pub(in crate::log::kafka) async fn send(
        &self,
        target: &Arc<Target>,
        record: &NewRecord,
    ) -> Result<Option<Delivery>, LogError> {
        let mut has_refreshed = false;
        loop {
            // Registered before the attempt, so that no notification is missed.
            let room = self.inner.room.notified();
            match self.inner.queue(target, record) {
                Err(Code::QueueFull) if self.inner.is_empty() => {
                    let reason = "the queue of the client is too small for it (queue.buffering.max.kbytes and \
                                  queue.buffering.max.messages, properties of the log)";
                    let (topic, reason) = (target.name().to_owned(), reason.to_owned());
                    return Err(LogError::InvalidRecord { topic, reason });
                }
                Err(Code::QueueFull) => {
                    // OK to ignore: either way, the queue may have room again.
                    let _ = tokio::time::timeout(ROOM_TIMEOUT, room).await;
                    if self.is_dead() {
                        return Ok(None);
                    }
                }
                // The partition was added since the client requested metadata.
                Err(Code::UnknownPartition) if !has_refreshed => {
                    has_refreshed = true;
                    let (inner, name) = (self.inner.clone(), target.name().to_owned());
                    let refresh = move || inner.client.refresh_metadata(&name, METADATA_TIMEOUT);
                    if let Ok(Err(error)) = tokio::task::spawn_blocking(refresh).await {
                        tracing::debug!(
                            topic = target.name(),
                            "cannot refresh the metadata of the topic: {error}"
                        );
                    }
                }
                Err(code) => return Err(self.inner.queue_error(target, record, code)),
                Ok(delivery) => return Ok(Some(delivery)),
            }
        }
    }

    /// Clears the list of purged records: those of a transaction that was aborted are not reported as lost.
    pub(in crate::log::kafka) fn forget_given_up(&self) {
        lock(&self.inner.outstanding).given_up.clear();
    }

    /// Lets a client that was replaced write its queued records, on a thread of its own, then drops it.
    pub(in crate::log::kafka) fn retire(old: Arc<Self>) {
        let retire = move || {
            old.inner.wait_for_reports(old.inner.retire_timeout);
            // This purges records that are still outstanding.
            drop(old);
        };
        if let Err(error) = crate::thread::spawn("ktables-retire", retire) {
            tracing::warn!(
                "cannot start a thread for a replaced client, its outstanding records are given up: {error}"
            );
        }
    }

    /// Purges the outstanding records, whose errors state this reason. Returns their number. The client must
    /// not be used any more.
    pub(in crate::log::kafka) fn give_up(&self, reason: &'static str) -> usize {
        let _ = self.inner.give_up_reason.set(reason);
        self.inner.is_dead.store(true, Ordering::Release);
        let purged = self.inner.close(Duration::ZERO).len();
        // Wakes those that wait for room in its queue.
        self.inner.room.notify_waiters();
        purged
    }

    /// Returns what to do if it receives no delivery report: see [`StuckProducerDetector::check`].
    pub(in crate::log::kafka) fn check(
        &self,
        answering_since: Instant,
        stale_after: Duration,
    ) -> Option<ProducerAction> {
        let silent_since = self.silent_since();
        lock(&self.inner.stuck).check(silent_since, answering_since, Instant::now(), stale_after)
    }

    /// Sends a request that any broker answers at once, and records whether one did. Blocks.
    pub(in crate::log::kafka) fn probe(&self, timeout: Duration) {
        let has_failed = self.client().probe(timeout).is_err();
        lock(&self.inner.stuck).record_probe(has_failed, Instant::now());
    }

    /// Since when no delivery report has arrived while records are outstanding; `None` if none are.
    pub(in crate::log::kafka) fn silent_since(&self) -> Option<Instant> {
        let outstanding = lock(&self.inner.outstanding);
        (outstanding.records > 0).then_some(outstanding.since)
    }

    /// Waits until no record is outstanding. Returns false after the timeout.
    pub(in crate::log::kafka) fn flush(&self, timeout: Duration) -> bool {
        self.inner.wait_for_reports(timeout)
    }

    /// Waits until no record of one topic is outstanding. Returns false after the timeout.
    pub(in crate::log::kafka) fn flush_target(&self, target: &Target, timeout: Duration) -> bool {
        self.inner.wait_while(timeout, |_| target.outstanding.load(Ordering::Acquire) > 0)
    }

    /// Waits until no record is outstanding, and purges those that are after the timeout. Returns all purged
    /// records.
    pub(in crate::log::kafka) fn close(&self, timeout: Duration) -> Vec<Unacknowledged> {
        self.inner.close(timeout)
    }
}

impl Drop for Producer {
    fn drop(&mut self) {
        let (inner, thread) = (self.inner.clone(), self.thread.take());
        run_in_background(move || {
            let lost = inner.close(Duration::ZERO);
            if !lost.is_empty() {
                let count = lost.len();
                tracing::warn!(
                    log = %inner.log,
                    "{count} records were not acknowledged; close the log before it is dropped"
                );
            }
            inner.must_stop.store(true, Ordering::Release);
            inner.client.wake();
            // OK to ignore the result: the panic hook has reported a panic.
            thread.map(JoinHandle::join);
        });
    }
}

impl Inner {
    fn run(&self) {
        while !self.must_stop.load(Ordering::Acquire) {
            match self.client.poll(POLL_TIMEOUT) {
                Some(Event::Deliveries(deliveries)) => {
                    let mut reports = 0;
                    deliveries.for_each(|delivered| {
                        reports += 1;
                        self.handle_report(delivered);
                    });
                    let mut outstanding = lock(&self.outstanding);
                    outstanding.records -= reports;
                    outstanding.since = Instant::now();
                    drop(outstanding);
                    self.reported.notify_all();
                    self.room.notify_waiters();
                }
                Some(Event::Failure(failure)) => {
                    self.health.record_failure(&failure);
                    if failure.is_fatal {
                        if let Some(fatal) = self.client.fatal_error() {
                            // The first error is the cause.
                            let _ = self.fatal.set(fatal);
                        }
                        tracing::warn!(log = %self.log, "a producer failed and is replaced: {failure}");
                        self.is_dead.store(true, Ordering::Release);
                    }
                }
                _ => {}
            }
        }
    }

    /// Passes the outcome of a record to whoever waits for it.
    #[allow(unsafe_code, reason = "takes back a box that librdkafka held")]
    fn handle_report(&self, delivered: DeliveryReport) {
        // SAFETY: each queued record passes one box to librdkafka, and has exactly one report.
        let pending = unsafe { Box::from_raw(delivered.opaque.cast::<PendingReport>()) };
        pending.target.outstanding.fetch_sub(1, Ordering::AcqRel);
        let answer = match delivered.error {
            // The offset may be unknown if the record was sent twice.
            None => {
                let offset = (delivered.offset >= 0).then_some(delivered.offset);
                Ok(Ack { partition: delivered.partition, offset })
            }
            Some(code) => Err(self.delivery_error(&pending.target, &delivered, code)),
        };
        // OK to ignore: the caller may have dropped its delivery.
        let _ = pending.answer.send(answer);
    }

    /// Returns the error for a record that was not delivered.
    fn delivery_error(&self, target: &Target, delivered: &DeliveryReport, code: Code) -> LogError {
        let (log, topic) = (self.log.to_string(), target.name().to_owned());
        // Records that were not sent because the client was refused a right fail with that error.
        if let (Code::PurgeQueue | Code::Fatal, Some((code, reason))) = (code, self.fatal())
            && classify(code) == ErrorClass::Denied
        {
            return topic_error(&log, &topic, "write to", code, reason);
        }
        if matches!(code, Code::PurgeQueue | Code::PurgeInflight) {
            let unacknowledged = Unacknowledged {
                topic: topic.clone(),
                partition: (delivered.partition >= 0).then_some(delivered.partition),
                key: delivered.key.clone(),
            };
            lock(&self.outstanding).given_up.push(unacknowledged);
            let given_up = self.give_up_reason.get().map(|&reason| reason.to_owned());
            let failed = || self.fatal().map(|(_, reason)| reason);
            let reason = given_up.or_else(failed).unwrap_or_else(|| "it was given up".to_owned());
            return LogError::Undelivered { log, topic, reason };
        }
        match classify(code) {
            ErrorClass::Transient => {
                let why = self.health.reason().map_or_else(String::new, |reason| format!(": {reason}"));
                LogError::Undelivered { log, topic, reason: format!("{code}{why}") }
            }
            ErrorClass::Authentication | ErrorClass::Denied | ErrorClass::Missing => {
                topic_error(&log, &topic, "write to", code, code.to_string())
            }
            ErrorClass::Gone | ErrorClass::Damaged | ErrorClass::Refused => {
                match refusal_reason(target, delivered, code) {
                    Some(reason) => LogError::InvalidRecord { topic, reason },
                    None => {
                        let failed = self.fatal().filter(|_| code == Code::Fatal).map(|(_, reason)| reason);
                        let reason = failed.unwrap_or_else(|| code.to_string());
                        LogError::Undelivered { log, topic, reason }
                    }
                }
            }
        }
    }

    /// Returns the error that made the client unusable, if any.
    fn fatal(&self) -> Option<(Code, String)> {
        self.fatal.get().cloned().or_else(|| self.client.fatal_error())
    }

    /// Returns the error for a record that could not be queued.
    fn queue_error(&self, target: &Target, record: &NewRecord, code: Code) -> LogError {
        match code {
            Code::MessageSizeTooLarge => {
                let limits = target.describe_limits(self.max_message_bytes);
                let reason = format!(
                    "it has {} bytes with its key and headers, besides some overhead: {limits}",
                    record.byte_len()
                );
                LogError::InvalidRecord { topic: target.name().to_owned(), reason }
            }
            code => topic_error(&self.log, target.name(), "write to", code, code.to_string()),
        }
    }

    /// Queues a record, or returns librdkafka's code at once.
    #[allow(unsafe_code, reason = "calls into librdkafka")]
    fn queue(&self, target: &Arc<Target>, record: &NewRecord) -> Result<Delivery, Code> {
        // OK because the cluster has a topic of this name.
        let name = CString::new(target.name()).expect("no NUL");
        let headers = record.headers.iter().map(|header| CString::new(header.name.as_str()));
        let headers = headers.collect::<Result<Vec<_>, _>>().map_err(|_| Code::InvalidArgument)?;
        let (answer, delivery) = oneshot::channel();
        let pending = PendingReport { answer, target: target.clone() };
        let opaque: *mut c_void = Box::into_raw(Box::new(pending)).cast();
        let value = |kind, u| sys::rd_kafka_vu_t { vtype: kind, u };
        let mut values = vec![
            value(Kind::RD_KAFKA_VTYPE_TOPIC, sys::rd_kafka_vu_s__bindgen_ty_1 { cstr: name.as_ptr() }),
            value(
                Kind::RD_KAFKA_VTYPE_PARTITION,
                sys::rd_kafka_vu_s__bindgen_ty_1 { i32_: record.partition.unwrap_or(-1) },
            ),
            value(
                Kind::RD_KAFKA_VTYPE_MSGFLAGS,
                sys::rd_kafka_vu_s__bindgen_ty_1 { i: sys::RD_KAFKA_MSG_F_COPY },
            ),
            value(Kind::RD_KAFKA_VTYPE_KEY, memory_value(record.key.as_deref())),
            value(Kind::RD_KAFKA_VTYPE_VALUE, memory_value(record.value.as_deref())),
            value(Kind::RD_KAFKA_VTYPE_OPAQUE, sys::rd_kafka_vu_s__bindgen_ty_1 { ptr: opaque }),
        ];
        if let Some(timestamp) = record.timestamp {
            values.push(value(
                Kind::RD_KAFKA_VTYPE_TIMESTAMP,
                sys::rd_kafka_vu_s__bindgen_ty_1 { i64_: timestamp },
            ));
        }
        values.extend(record.headers.iter().zip(&headers).map(|(header, name)| {
            let (val, size) = match &header.value {
                Some(bytes) => (bytes.as_ptr().cast::<c_void>(), bytes.len().cast_signed()),
                None => (ptr::null(), 0),
            };
            let header = sys::rd_kafka_vu_s__bindgen_ty_1__bindgen_ty_2 { name: name.as_ptr(), val, size };
            value(Kind::RD_KAFKA_VTYPE_HEADER, sys::rd_kafka_vu_s__bindgen_ty_1 { header })
        }));
        let mut outstanding = lock(&self.outstanding);
        if outstanding.records == 0 {
            outstanding.since = Instant::now();
        }
        outstanding.records += 1;
        target.outstanding.fetch_add(1, Ordering::AcqRel);
        drop(outstanding);
        // SAFETY: everything lives during the call, which copies it, except for the opaque pointer, which the
        // delivery report returns.
        let queued =
            take_error(unsafe { sys::rd_kafka_produceva(self.client.rk(), values.as_ptr(), values.len()) });
        match queued {
            Ok(()) => Ok(Delivery::from_channel(delivery)),
            Err(code) => {
                lock(&self.outstanding).records -= 1;
                target.outstanding.fetch_sub(1, Ordering::AcqRel);
                // SAFETY: nothing was queued, so there will be no report.
                drop(unsafe { Box::from_raw(opaque.cast::<PendingReport>()) });
                Err(code)
            }
        }
    }

    #[allow(unsafe_code, reason = "calls into librdkafka")]
    fn close(&self, timeout: Duration) -> Vec<Unacknowledged> {
        if !self.wait_for_reports(timeout) {
            let everything = sys::RD_KAFKA_PURGE_F_QUEUE | sys::RD_KAFKA_PURGE_F_INFLIGHT;
            // SAFETY: the client is alive.
            unsafe { sys::rd_kafka_purge(self.client.rk(), everything) };
            self.wait_for_reports(PURGE_TIMEOUT);
        }
        std::mem::take(&mut lock(&self.outstanding).given_up)
    }

    /// Whether no record is outstanding.
    fn is_empty(&self) -> bool {
        lock(&self.outstanding).records == 0
    }

    /// Waits until no record is outstanding. Returns false after the timeout.
    fn wait_for_reports(&self, timeout: Duration) -> bool {
        self.wait_while(timeout, |outstanding| outstanding.records > 0)
    }

    /// Waits while the condition holds. Returns false after the timeout.
    fn wait_while(&self, timeout: Duration, condition: impl Fn(&Outstanding) -> bool) -> bool {
        let outstanding = lock(&self.outstanding);
        wait_while(&self.reported, outstanding, timeout, condition).1
    }
}

/// Returns why a broker refused a record for good, if the code says so.
fn refusal_reason(target: &Target, delivered: &DeliveryReport, code: Code) -> Option<String> {
    Some(match code {
        Code::MessageSizeTooLarge => target.handle_size_refusal(delivered.len),
        Code::InvalidRecord | Code::InvalidMessage if delivered.key.is_none() => {
            target.mark_outdated();
            format!("it has no key, and compacted topics accept no such records ({code}): give it a key")
        }
        Code::InvalidRecord | Code::InvalidMessage => code.to_string(),
        Code::InvalidDifferentRecord => {
            "the broker refused another record of its batch, and this one with it: write it again".to_owned()
        }
        Code::InvalidTimestamp => "its timestamp is too far from the broker's time: see the topic's \
                                   message.timestamp.before.max.ms and message.timestamp.after.max.ms"
            .to_owned(),
        _ => return None,
    })
}

/// Returns a key or value in librdkafka's form. Null and empty differ.
fn memory_value(bytes: Option<&[u8]>) -> sys::rd_kafka_vu_s__bindgen_ty_1 {
    let (ptr, size) =
        bytes.map_or((ptr::null_mut(), 0), |bytes| (bytes.as_ptr().cast_mut().cast(), bytes.len()));
    sys::rd_kafka_vu_s__bindgen_ty_1 { mem: sys::rd_kafka_vu_s__bindgen_ty_1__bindgen_ty_1 { ptr, size } }
}
