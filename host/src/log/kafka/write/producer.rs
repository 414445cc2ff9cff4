//! A client that writes.
//!
//! What is queued is acknowledged, or reported as not acknowledged: a client that
//! goes gives up first what it has, so that no [`Delivery`] waits for ever.

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
use crate::log::kafka::error::{ErrorClass, about_topic, classify};
use crate::log::kafka::ffi::client::{Client, take_error};
use crate::log::kafka::ffi::event::{Delivered, Event};
use crate::log::kafka::health::cluster_health::ClusterHealth;
use crate::log::kafka::write::target::Target;
use crate::log::{Ack, Delivery, LogError, NewRecord, Unacknowledged};
use crate::sync::{lock, wait_while};
use crate::thread::run_aside;

use sys::rd_kafka_vtype_t as Kind;

/// How long the thread waits for events.
const PATIENCE: Duration = Duration::from_millis(500);

/// How long to wait for the partitions of a topic.
const METADATA: Duration = Duration::from_secs(5);

/// How long to wait for the reports on records that were given up.
const GIVING_UP: Duration = Duration::from_secs(2);

/// How long a client that was replaced may take for what it has: more than the default of
/// `delivery.timeout.ms`, 120 s.
pub(in crate::log::kafka) const RETIREMENT: Duration = Duration::from_secs(130);

/// Who waits for the report on a record.
struct Waiting {
    answer: oneshot::Sender<Result<Ack, LogError>>,
    target: Arc<Target>,
}

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
    stop: AtomicBool,
    dead: AtomicBool,
    /// The largest record that it takes, in bytes.
    max_message_bytes: u64,
    /// Why it is of no use any more.
    fatal: OnceLock<(Code, String)>,
    given_up_because: OnceLock<&'static str>,
    /// The queue may have room again.
    room: Notify,
    /// A std lock: held to count or to take.
    outstanding: Mutex<Outstanding>,
    reported: Condvar,
}

#[derive(Debug)]
struct Outstanding {
    records: usize,
    /// Since when nothing was reported, while something is outstanding.
    since: Instant,
    given_up: Vec<Unacknowledged>,
}

impl Producer {
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
            stop: AtomicBool::new(false),
            dead: AtomicBool::new(false),
            max_message_bytes: configs.max_message_bytes(),
            fatal: OnceLock::new(),
            given_up_because: OnceLock::new(),
            room: Notify::new(),
            outstanding: Mutex::new(Outstanding { records: 0, since: Instant::now(), given_up: Vec::new() }),
            reported: Condvar::new(),
        });
        let polled = inner.clone();
        let thread = crate::thread::spawn("ktables-produce", move || polled.run()).map_err(|error| {
            LogError::Client { log: log.to_string(), reason: format!("no thread: {error}") }
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

    /// Whether another is needed.
    pub(in crate::log::kafka) fn is_dead(&self) -> bool {
        self.inner.dead.load(Ordering::Acquire)
    }

    /// Queues a record; waits while the queue is full.
    pub(in crate::log::kafka) async fn send(
        &self,
        target: &Arc<Target>,
        record: &NewRecord,
    ) -> Result<Delivery, LogError> {
        let mut refreshed = false;
        loop {
            // Listens before it looks, so that no room is missed.
            let room = self.inner.room.notified();
            match self.inner.queue(target, record) {
                Err(Code::QueueFull) => room.await,
                // The topic has it: it was added since the client looked.
                Err(Code::UnknownPartition) if !refreshed => {
                    refreshed = true;
                    let (inner, name) = (self.inner.clone(), target.name().to_owned());
                    let refresh = move || inner.client.refresh_metadata(&name, METADATA);
                    if let Ok(Err(error)) = tokio::task::spawn_blocking(refresh).await {
                        tracing::debug!(topic = target.name(), "cannot ask for new partitions: {error}");
                    }
                }
                Err(code) => return Err(self.inner.error(target, record, code)),
                Ok(delivery) => return Ok(delivery),
            }
        }
    }

    /// What was given up on purpose is not to be listed.
    pub(in crate::log::kafka) fn forget_given_up(&self) {
        lock(&self.inner.outstanding).given_up.clear();
    }

    /// Lets a client that is replaced finish what it has.
    pub(in crate::log::kafka) fn retire(old: Arc<Self>) {
        let end = move || {
            old.inner.wait_for_reports(RETIREMENT);
            // What is outstanding then is given up.
            drop(old);
        };
        if let Err(error) = crate::thread::spawn("ktables-retire", end) {
            tracing::warn!("what a replaced client has not written is given up: {error}");
        }
    }

    /// Gives up what is outstanding, for this reason, and takes nothing more.
    pub(in crate::log::kafka) fn give_up(&self, reason: &'static str) {
        let _ = self.inner.given_up_because.set(reason);
        self.inner.dead.store(true, Ordering::Release);
        let lost = self.inner.close(Duration::ZERO);
        // They are listed when the log is closed.
        lock(&self.inner.outstanding).given_up.extend(lost);
    }

    /// For how long nothing was reported of what is outstanding.
    pub(in crate::log::kafka) fn silence(&self, now: Instant) -> Duration {
        let outstanding = lock(&self.inner.outstanding);
        if outstanding.records == 0 {
            Duration::ZERO
        } else {
            now.saturating_duration_since(outstanding.since)
        }
    }

    /// Whether nothing is outstanding within this time.
    pub(in crate::log::kafka) fn flush(&self, patience: Duration) -> bool {
        self.inner.wait_for_reports(patience)
    }

    /// The same for what goes to one topic.
    pub(in crate::log::kafka) fn flush_target(&self, target: &Target, patience: Duration) -> bool {
        self.inner.wait_while(patience, |_| target.outstanding.load(Ordering::Acquire) > 0)
    }

    /// Waits until nothing is outstanding; gives up what is after this time.
    pub(in crate::log::kafka) fn close(&self, patience: Duration) -> Vec<Unacknowledged> {
        self.inner.close(patience)
    }
}

impl Drop for Producer {
    fn drop(&mut self) {
        let (inner, thread) = (self.inner.clone(), self.thread.take());
        run_aside(move || {
            let lost = inner.close(Duration::ZERO);
            if !lost.is_empty() {
                let count = lost.len();
                tracing::warn!(log = %inner.log, "{count} records were not acknowledged; close the log before the end");
            }
            inner.stop.store(true, Ordering::Release);
            inner.client.wake();
            // That it panicked it has said.
            thread.map(JoinHandle::join);
        });
    }
}

impl Inner {
    fn run(&self) {
        while !self.stop.load(Ordering::Acquire) {
            match self.client.poll(PATIENCE) {
                Some(Event::Deliveries(deliveries)) => {
                    let mut reports = 0;
                    deliveries.for_each(|delivered| {
                        reports += 1;
                        self.delivered(delivered);
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
                    if failure.fatal {
                        if let Some(fatal) = self.client.fatal_error() {
                            // The first error is the cause.
                            let _ = self.fatal.set(fatal);
                        }
                        tracing::warn!(log = %self.log, "the writing client ends and is replaced: {failure}");
                        self.dead.store(true, Ordering::Release);
                    }
                }
                _ => {}
            }
        }
    }

    #[allow(unsafe_code, reason = "takes back what was lent to librdkafka")]
    fn delivered(&self, delivered: Delivered) {
        // SAFETY: each record lends one box, and has one report.
        let waiting = unsafe { Box::from_raw(delivered.opaque.cast::<Waiting>()) };
        waiting.target.outstanding.fetch_sub(1, Ordering::AcqRel);
        let answer = match delivered.error {
            // Where a record is that was sent again, the cluster does not always say.
            None => Ok(Ack { partition: delivered.partition, offset: delivered.offset.max(-1) }),
            Some(code) => Err(self.not_delivered(&waiting.target, &delivered, code)),
        };
        // Whoever wrote it may not want to know.
        let _ = waiting.answer.send(answer);
    }

    fn not_delivered(&self, target: &Target, delivered: &Delivered, code: Code) -> LogError {
        let (log, topic) = (self.log.to_string(), target.name().to_owned());
        // What is not sent because of an error that ended the client, fails with that error.
        if let (Code::PurgeQueue | Code::Fatal, Some((code, reason))) = (code, self.fatal())
            && classify(code) == ErrorClass::Denied
        {
            return about_topic(&log, &topic, "write to", code, reason);
        }
        if matches!(code, Code::PurgeQueue | Code::PurgeInflight) {
            let unacknowledged = Unacknowledged {
                topic: topic.clone(),
                partition: delivered.partition,
                key: delivered.key.clone(),
            };
            lock(&self.outstanding).given_up.push(unacknowledged);
            let reason = self.given_up_because.get().copied().unwrap_or("it was given up").to_owned();
            return LogError::Undelivered { log, topic, reason };
        }
        match classify(code) {
            ErrorClass::Transient => {
                let why = self.health.reason().map_or_else(String::new, |reason| format!(": {reason}"));
                LogError::Undelivered { log, topic, reason: format!("{code}{why}") }
            }
            ErrorClass::Authentication | ErrorClass::Denied | ErrorClass::Missing => {
                about_topic(&log, &topic, "write to", code, code.to_string())
            }
            ErrorClass::Gone | ErrorClass::Damaged | ErrorClass::Refused => {
                match refused(target, delivered, code) {
                    Some(reason) => LogError::InvalidRecord { topic, reason },
                    None => LogError::Undelivered { log, topic, reason: code.to_string() },
                }
            }
        }
    }

    /// Why the client is of no use any more, if so.
    fn fatal(&self) -> Option<(Code, String)> {
        self.fatal.get().cloned().or_else(|| self.client.fatal_error())
    }

    fn error(&self, target: &Target, record: &NewRecord, code: Code) -> LogError {
        match code {
            Code::MessageSizeTooLarge => {
                let limits = target.limits(self.max_message_bytes);
                let reason = format!("it has {} bytes with its key and headers: {limits}", record.byte_len());
                LogError::InvalidRecord { topic: target.name().to_owned(), reason }
            }
            code => about_topic(&self.log, target.name(), "write to", code, code.to_string()),
        }
    }

    #[allow(unsafe_code, reason = "calls into librdkafka")]
    fn queue(&self, target: &Arc<Target>, record: &NewRecord) -> Result<Delivery, Code> {
        // OK because the log knows a topic of this name.
        let name = CString::new(target.name()).expect("no NUL");
        let headers = record.headers.iter().map(|header| CString::new(header.name.as_str()));
        let headers = headers.collect::<Result<Vec<_>, _>>().map_err(|_| Code::InvalidArgument)?;
        let (answer, delivery) = oneshot::channel();
        let waiting = Waiting { answer, target: target.clone() };
        let opaque: *mut c_void = Box::into_raw(Box::new(waiting)).cast();
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
            value(Kind::RD_KAFKA_VTYPE_KEY, memory(record.key.as_deref())),
            value(Kind::RD_KAFKA_VTYPE_VALUE, memory(record.value.as_deref())),
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
        // SAFETY: everything lives through the call, which copies it, but for the
        // opaque, which the report gives back.
        let queued =
            take_error(unsafe { sys::rd_kafka_produceva(self.client.rk(), values.as_ptr(), values.len()) });
        match queued {
            Ok(()) => Ok(Delivery::new(delivery)),
            Err(code) => {
                lock(&self.outstanding).records -= 1;
                target.outstanding.fetch_sub(1, Ordering::AcqRel);
                // SAFETY: nothing was queued, so there will be no report.
                drop(unsafe { Box::from_raw(opaque.cast::<Waiting>()) });
                Err(code)
            }
        }
    }

    #[allow(unsafe_code, reason = "calls into librdkafka")]
    fn close(&self, patience: Duration) -> Vec<Unacknowledged> {
        if !self.wait_for_reports(patience) {
            let everything = sys::RD_KAFKA_PURGE_F_QUEUE | sys::RD_KAFKA_PURGE_F_INFLIGHT;
            // SAFETY: the client is alive.
            unsafe { sys::rd_kafka_purge(self.client.rk(), everything) };
            self.wait_for_reports(GIVING_UP);
        }
        std::mem::take(&mut lock(&self.outstanding).given_up)
    }

    /// Whether nothing is outstanding within this time.
    fn wait_for_reports(&self, patience: Duration) -> bool {
        self.wait_while(patience, |outstanding| outstanding.records > 0)
    }

    /// Waits while something is so, for so long at most; whether it is not any more.
    fn wait_while(&self, patience: Duration, is_so: impl Fn(&Outstanding) -> bool) -> bool {
        let outstanding = lock(&self.outstanding);
        wait_while(&self.reported, outstanding, patience, is_so).1
    }
}

/// Why a broker will never take a record, if that is what it says.
fn refused(target: &Target, delivered: &Delivered, code: Code) -> Option<String> {
    Some(match code {
        Code::MessageSizeTooLarge => target.refused_as_too_large(delivered.len),
        Code::InvalidRecord | Code::InvalidMessage if delivered.key.is_none() => {
            target.refused();
            format!("it has no key, which a compacted topic does not take ({code})")
        }
        Code::InvalidRecord | Code::InvalidMessage => code.to_string(),
        Code::InvalidDifferentRecord => {
            "the broker refused another record of its batch, and with it this one: write it again".to_owned()
        }
        Code::InvalidTimestamp => "its timestamp is too far from the broker's time: see the topic's \
                                   message.timestamp.before.max.ms and message.timestamp.after.max.ms"
            .to_owned(),
        _ => return None,
    })
}

/// Null and empty differ.
fn memory(bytes: Option<&[u8]>) -> sys::rd_kafka_vu_s__bindgen_ty_1 {
    let (ptr, size) =
        bytes.map_or((ptr::null_mut(), 0), |bytes| (bytes.as_ptr().cast_mut().cast(), bytes.len()));
    sys::rd_kafka_vu_s__bindgen_ty_1 { mem: sys::rd_kafka_vu_s__bindgen_ty_1__bindgen_ty_1 { ptr, size } }
}
