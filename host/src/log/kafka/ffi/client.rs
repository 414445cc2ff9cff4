//! A client of librdkafka, reduced to what this log uses: one queue, from which one thread or task takes typed
//! [`Event`]s.
//!
//! Most code that calls C is here, in [`event`](super::event), [`admin`](super::admin) and
//! [`offsets`](super::offsets). The client may
//! be used from any thread. Only one thread or task polls it, and receives its events.

use std::ffi::{CString, c_char, c_void};
use std::path::{Path, PathBuf};
use std::ptr::{self, NonNull};
use std::sync::Arc;
use std::time::Duration;

use rdkafka::bindings as sys;
use rdkafka::client::{Client as Native, DefaultClientContext};
use rdkafka::error::{IsError, KafkaError};
use rdkafka::types::{RDKafka, RDKafkaErrorCode, RDKafkaQueue, RDKafkaType};
use rdkafka::{ClientConfig, TopicPartitionList};
use tokio::sync::Notify;

use crate::log::kafka::ffi::event::{Event, on_log, text};
use crate::log::kafka::ffi::pending::PendingReplies;
use crate::log::kafka::ffi::token::Token;
use crate::log::{Offset, Partition};

/// The most messages that [`Client::poll_records`] takes: their pointers fit a page of memory (4 KiB).
pub(in crate::log::kafka) const MAX_RECORDS_PER_POLL: usize = 512;

/// The kind of a client. Both kinds can send admin requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::log::kafka) enum Kind {
    Consumer,
    Producer,
}

/// A client of librdkafka and its queue of events.
pub(in crate::log::kafka) struct Client {
    native: Native,
    queue: NonNull<RDKafkaQueue>,
    /// Notified when an event arrives in the empty queue. Dropped after the queue.
    has_events: Arc<Notify>,
    pending: PendingReplies,
    /// The file of the OAuth token, if clients authenticate with one.
    token_file: Option<PathBuf>,
}

// SAFETY: librdkafka's handles and queues may be used from several threads at once (its INTRODUCTION.md,
// "Threads and callbacks").
#[allow(unsafe_code, reason = "the queue is a raw pointer of a thread-safe library")]
unsafe impl Send for Client {}
// SAFETY: as above.
#[allow(unsafe_code, reason = "the queue is a raw pointer of a thread-safe library")]
unsafe impl Sync for Client {}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").finish_non_exhaustive()
    }
}

#[allow(unsafe_code, reason = "calls into librdkafka")]
impl Client {
    /// Creates a client, which starts its own threads and connects in the background.
    ///
    /// # Errors
    ///
    /// If librdkafka rejects the configuration or cannot start its threads.
    pub(in crate::log::kafka) fn new(
        kind: Kind,
        config: &ClientConfig,
        token_file: Option<PathBuf>,
    ) -> Result<Self, KafkaError> {
        let native_config = config.create_native_config()?;
        let mut events = sys::RD_KAFKA_EVENT_ERROR | sys::RD_KAFKA_EVENT_DR;
        if token_file.is_some() {
            events |= sys::RD_KAFKA_EVENT_OAUTHBEARER_TOKEN_REFRESH;
        }
        // SAFETY: the configuration is alive until the client takes it.
        unsafe {
            sys::rd_kafka_conf_set_events(native_config.ptr(), events);
            sys::rd_kafka_conf_set_log_cb(native_config.ptr(), Some(on_log));
        }
        let type_ = match kind {
            Kind::Consumer => RDKafkaType::RD_KAFKA_CONSUMER,
            Kind::Producer => RDKafkaType::RD_KAFKA_PRODUCER,
        };
        let native = Native::new(config, native_config, type_, DefaultClientContext)?;
        let rk = native.native_ptr();
        // SAFETY: the client is alive. The caller owns the returned queue; `drop` destroys it before the
        // client.
        let queue = unsafe {
            if kind == Kind::Consumer {
                sys::rd_kafka_poll_set_consumer(rk);
                sys::rd_kafka_queue_get_consumer(rk)
            } else {
                sys::rd_kafka_queue_get_main(rk)
            }
        };
        let queue =
            NonNull::new(queue).ok_or_else(|| KafkaError::ClientCreation("no event queue".to_owned()))?;
        Ok(Self { native, queue, has_events: Arc::default(), pending: PendingReplies::default(), token_file })
    }

    /// The handle of librdkafka's client.
    pub(in crate::log::kafka) fn rk(&self) -> *mut RDKafka {
        self.native.native_ptr()
    }

    /// The requests that have no reply yet.
    pub(in crate::log::kafka) fn pending(&self) -> &PendingReplies {
        &self.pending
    }

    /// The handle of the queue, to which replies of requests are sent.
    pub(in crate::log::kafka) fn queue(&self) -> *mut RDKafkaQueue {
        self.queue.as_ptr()
    }

    /// Waits for the next event. Returns `None` after the timeout, after [`Client::wake`], and after a log
    /// line. Answers requests for OAuth tokens.
    pub(in crate::log::kafka) fn poll(&self, timeout: Duration) -> Option<Event> {
        // SAFETY: the queue lives as long as `self`; `Event` owns the event and frees it.
        let event = unsafe { Event::new(sys::rd_kafka_queue_poll(self.queue(), millis(timeout))) };
        if let Some(Event::TokenRequested) = &event {
            self.refresh_token();
        }
        event
    }

    /// Returns what is notified when an event arrives in the empty queue, from now on. A task that was notified must
    /// take all events, with [`Client::poll_all`].
    pub(in crate::log::kafka) fn notify_of_events(&self) -> Arc<Notify> {
        let opaque = Arc::as_ptr(&self.has_events).cast_mut().cast::<c_void>();
        // SAFETY: the queue lives as long as `self`, and what `opaque` points to lives longer: `drop` ends the
        // notifications first.
        unsafe { sys::rd_kafka_queue_cb_event_enable(self.queue(), Some(on_event), opaque) };
        self.has_events.clone()
    }

    /// Passes all available events to `each`. Does not wait. Whoever receives a request for an OAuth token must call
    /// [`Client::refresh_token`].
    pub(in crate::log::kafka) fn poll_all(&self, mut each: impl FnMut(Event)) {
        // SAFETY: the queue lives as long as `self`.
        while let Some(event) = NonNull::new(unsafe { sys::rd_kafka_queue_poll(self.queue(), 0) }) {
            // SAFETY: librdkafka returns each event once, so nobody else has it.
            if let Some(event) = unsafe { Event::new(event.as_ptr()) } {
                each(event);
            }
        }
    }

    /// Answers a request for an OAuth token. Reads a file.
    pub(in crate::log::kafka) fn refresh_token(&self) {
        if let Some(file) = &self.token_file {
            self.set_token(file);
        }
    }

    /// Passes available records and events of partitions to `each`, up to [`MAX_RECORDS_PER_POLL`], and
    /// returns their number. Does not wait. Takes a fraction of the time that [`Client::poll`] would take for
    /// as many records. But `poll` is still needed for all other events: here, librdkafka only logs errors
    /// that are not about a partition. And after an end-of-partition event that was taken here, librdkafka's
    /// position is wrong (up to 2.13.1).
    pub(in crate::log::kafka) fn poll_records(&self, mut each: impl FnMut(Event)) -> usize {
        let mut messages = [ptr::null_mut(); MAX_RECORDS_PER_POLL];
        let (queue, capacity) = (self.queue.as_ptr(), messages.len());
        // SAFETY: the queue lives as long as `self`; the array has this capacity.
        let taken = unsafe { sys::rd_kafka_consume_batch_queue(queue, 0, messages.as_mut_ptr(), capacity) };
        let taken = usize::try_from(taken).unwrap_or(0);
        for message in messages[..taken].iter().copied().filter_map(NonNull::new) {
            // SAFETY: librdkafka returns each message once, so nobody else has it.
            each(unsafe { Event::from_message(message) });
        }
        taken
    }

    /// Whether [`Client::poll_records`] may be used. Clients with OAuth tokens must not use it, because it
    /// does not deliver requests for tokens.
    pub(in crate::log::kafka) fn can_poll_records(&self) -> bool {
        self.token_file.is_none()
    }

    /// Gives librdkafka the token in this file, or the reason why there is none.
    fn set_token(&self, file: &Path) {
        let fail = |reason: String| {
            // OK because each NUL in the reason was replaced.
            let reason = CString::new(reason.replace('\0', " ")).expect("no NUL");
            // SAFETY: the client is alive; the reason is copied.
            unsafe { sys::rd_kafka_oauthbearer_set_token_failure(self.rk(), reason.as_ptr()) };
        };
        let token = match Token::read(file) {
            Ok(token) => token,
            Err(reason) => return fail(reason),
        };
        let mut reason: [c_char; 512] = [0; 512];
        // SAFETY: all arguments live until the end of the call, which copies them; `reason` is a C string
        // if an error is returned.
        let error = unsafe {
            let code = sys::rd_kafka_oauthbearer_set_token(
                self.rk(),
                token.text.as_ptr(),
                token.expires,
                token.principal.as_ptr(),
                std::ptr::null_mut(),
                0,
                reason.as_mut_ptr(),
                reason.len(),
            );
            code.is_error().then(|| text(reason.as_ptr()))
        };
        if let Some(reason) = error {
            fail(format!("{}: {reason}", file.display()));
        }
    }

    /// Returns the fatal error of the client, if it has one. The client cannot be used after it.
    pub(in crate::log::kafka) fn fatal_error(&self) -> Option<(RDKafkaErrorCode, String)> {
        let mut reason: [c_char; 512] = [0; 512];
        // SAFETY: the client is alive; `reason` is a C string if an error is returned.
        unsafe {
            let code = sys::rd_kafka_fatal_error(self.rk(), reason.as_mut_ptr(), reason.len());
            code.is_error().then(|| (code.into(), text(reason.as_ptr())))
        }
    }

    /// Makes the current [`Client::poll`], or the next one, return at once.
    pub(in crate::log::kafka) fn wake(&self) {
        // SAFETY: the queue lives as long as `self`.
        unsafe { sys::rd_kafka_queue_yield(self.queue.as_ptr()) }
    }

    /// Adds partitions to the assignment, each with the offset where reading begins.
    pub(in crate::log::kafka) fn assign(
        &self,
        partitions: &TopicPartitionList,
    ) -> Result<(), RDKafkaErrorCode> {
        // SAFETY: client and list are alive; the list is copied.
        let error = unsafe { sys::rd_kafka_incremental_assign(self.rk(), partitions.ptr()) };
        take_error(error)
    }

    /// Removes partitions from the assignment.
    pub(in crate::log::kafka) fn unassign(
        &self,
        partitions: &TopicPartitionList,
    ) -> Result<(), RDKafkaErrorCode> {
        // SAFETY: as in `assign`.
        let error = unsafe { sys::rd_kafka_incremental_unassign(self.rk(), partitions.ptr()) };
        take_error(error)
    }

    /// Stops fetching these partitions until [`Client::resume`].
    pub(in crate::log::kafka) fn pause(&self, partitions: &TopicPartitionList) {
        // SAFETY: client and list are alive. The call fails for partitions that are not assigned, which are
        // not fetched anyway.
        unsafe { sys::rd_kafka_pause_partitions(self.rk(), partitions.ptr()) };
    }

    /// Resumes fetching these partitions after the last record that was taken from the queue.
    pub(in crate::log::kafka) fn resume(&self, partitions: &TopicPartitionList) {
        // SAFETY: as in `pause`.
        unsafe { sys::rd_kafka_resume_partitions(self.rk(), partitions.ptr()) };
    }

    /// Returns the position of each of these partitions: the offset after what was taken from the queue,
    /// including control records. Partitions without a known position are left out.
    pub(in crate::log::kafka) fn positions(
        &self,
        partitions: &TopicPartitionList,
    ) -> Vec<(String, Partition, Offset)> {
        // SAFETY: client and list are alive; the offsets are written into the list.
        unsafe { sys::rd_kafka_position(self.rk(), partitions.ptr()) };
        let elements = partitions.elements();
        let known = elements.iter().filter_map(|element| match element.offset() {
            rdkafka::Offset::Offset(offset) => {
                Some((element.topic().to_owned(), element.partition(), offset))
            }
            _ => None,
        });
        known.collect()
    }

    /// Requests metadata, and blocks until a broker answers or the timeout is over.
    pub(in crate::log::kafka) fn probe(&self, timeout: Duration) -> Result<(), RDKafkaErrorCode> {
        let mut metadata = std::ptr::null();
        // SAFETY: the client is alive; the metadata is freed once.
        unsafe {
            let code =
                sys::rd_kafka_metadata(self.rk(), 0, std::ptr::null_mut(), &mut metadata, millis(timeout));
            if code.is_error() {
                return Err(code.into());
            }
            sys::rd_kafka_metadata_destroy(metadata);
        }
        Ok(())
    }

    /// Returns the names of all topics. Blocks.
    pub(in crate::log::kafka) fn list_topics(
        &self,
        timeout: Duration,
    ) -> Result<Vec<String>, RDKafkaErrorCode> {
        let metadata = self.native.fetch_metadata(None, timeout);
        let metadata =
            metadata.map_err(|error| error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Fail))?;
        Ok(metadata.topics().iter().map(|topic| topic.name().to_owned()).collect())
    }

    /// Makes the client fetch the metadata of a topic, such as its partitions. Blocks.
    pub(in crate::log::kafka) fn refresh_metadata(
        &self,
        topic: &str,
        timeout: Duration,
    ) -> Result<(), KafkaError> {
        self.native.fetch_metadata(Some(topic), timeout).map(drop)
    }
}

#[allow(unsafe_code, reason = "calls into librdkafka")]
impl Drop for Client {
    fn drop(&mut self) {
        // SAFETY: `self` owns this reference to the queue, and the client is destroyed after it.
        unsafe {
            sys::rd_kafka_queue_cb_event_enable(self.queue(), None, ptr::null_mut());
            sys::rd_kafka_queue_destroy(self.queue());
        }
    }
}

/// Is called by librdkafka, on one of its threads and while it holds a lock of the queue.
#[allow(unsafe_code, reason = "reads the pointer that `Client::notify_of_events` lent to librdkafka")]
unsafe extern "C" fn on_event(_: *mut RDKafka, opaque: *mut c_void) {
    // SAFETY: it lives until the queue ends the notifications.
    unsafe { &*opaque.cast::<Notify>() }.notify_one();
}

/// Returns the code of an error object, and frees the object. Null means success.
#[allow(unsafe_code, reason = "calls into librdkafka")]
pub(in crate::log::kafka) fn take_error(error: *mut sys::rd_kafka_error_t) -> Result<(), RDKafkaErrorCode> {
    if error.is_null() {
        return Ok(());
    }
    // SAFETY: the caller of librdkafka owns the error object, which is freed once here.
    unsafe {
        let code = sys::rd_kafka_error_code(error);
        sys::rd_kafka_error_destroy(error);
        Err(code.into())
    }
}

/// Converts a duration to librdkafka's milliseconds. Longer durations become the longest.
pub(in crate::log::kafka) fn millis(time: Duration) -> i32 {
    i32::try_from(time.as_millis()).unwrap_or(i32::MAX)
}

/// Returns a list of partitions for [`Client::assign`], each with the offset where reading begins, and with
/// the leader epoch of the record before it, or -1.
#[allow(unsafe_code, reason = "calls into librdkafka")]
pub(in crate::log::kafka) fn partition_list_with_epochs<'a>(
    partitions: impl IntoIterator<Item = (&'a str, Partition, Offset, i32)>,
) -> TopicPartitionList {
    let (offsets, epochs): (Vec<_>, Vec<_>) = partitions
        .into_iter()
        .map(|(topic, partition, offset, epoch)| ((topic, partition, offset), epoch))
        .unzip();
    let list = partition_list(offsets);
    for (index, epoch) in epochs.into_iter().enumerate() {
        // SAFETY: the list has an element for each epoch.
        unsafe {
            let element = (*list.ptr()).elems.add(index);
            sys::rd_kafka_topic_partition_set_leader_epoch(element, epoch);
        }
    }
    list
}

/// Returns a list of partitions and offsets, as methods of [`Client`] take it.
pub(in crate::log::kafka) fn partition_list<'a>(
    partitions: impl IntoIterator<Item = (&'a str, Partition, Offset)>,
) -> TopicPartitionList {
    let mut list = TopicPartitionList::new();
    for (topic, partition, offset) in partitions {
        // OK because offsets of records are valid offsets.
        list.add_partition_offset(topic, partition, rdkafka::Offset::Offset(offset)).expect("a valid offset");
    }
    list
}
