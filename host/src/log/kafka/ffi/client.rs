//! A client of librdkafka, reduced to what this log uses: one queue, from which
//! one thread takes typed [`Event`]s.
//!
//! With [`event`](super::event) and [`admin`](super::admin) this is all of the
//! code that calls C. The client may be used from any thread; events are for
//! whoever polls.

use std::ffi::{CString, c_char};
use std::path::{Path, PathBuf};
use std::ptr::{self, NonNull};
use std::time::Duration;

use rdkafka::bindings as sys;
use rdkafka::client::{Client as Native, DefaultClientContext};
use rdkafka::error::{IsError, KafkaError};
use rdkafka::types::{RDKafka, RDKafkaErrorCode, RDKafkaQueue, RDKafkaType};
use rdkafka::{ClientConfig, TopicPartitionList};

use crate::log::kafka::ffi::event::{Event, on_log, text};
use crate::log::kafka::ffi::token::Token;
use crate::log::{Offset, Partition};

/// How many messages are taken at once: their pointers fit a page of memory.
pub(in crate::log::kafka) const RECORDS_AT_ONCE: usize = 512;

/// What a client can do. Either can ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::log::kafka) enum Kind {
    Consumer,
    Producer,
}

/// A client and its queue.
pub(in crate::log::kafka) struct Client {
    native: Native,
    queue: NonNull<RDKafkaQueue>,
    token_file: Option<PathBuf>,
}

// SAFETY: librdkafka's handles and queues may be used from several threads at once
// (its introduction, "Threads and callbacks").
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
    /// A client of its own threads. Nothing is connected yet.
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
        // SAFETY: the configuration lives until the client takes it.
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
        // SAFETY: the client is alive, and a queue that it hands out is ours to
        // give back, which `drop` does before the client goes.
        let queue = unsafe {
            if kind == Kind::Consumer {
                sys::rd_kafka_poll_set_consumer(rk);
                sys::rd_kafka_queue_get_consumer(rk)
            } else {
                sys::rd_kafka_queue_get_main(rk)
            }
        };
        let queue =
            NonNull::new(queue).ok_or_else(|| KafkaError::ClientCreation("it has no queue".to_owned()))?;
        Ok(Self { native, queue, token_file })
    }

    pub(in crate::log::kafka) fn rk(&self) -> *mut RDKafka {
        self.native.native_ptr()
    }

    pub(in crate::log::kafka) fn queue(&self) -> *mut RDKafkaQueue {
        self.queue.as_ptr()
    }

    /// The next event, or nothing within this time, or nothing because of
    /// [`Client::wake`].
    pub(in crate::log::kafka) fn poll(&self, timeout: Duration) -> Option<Event> {
        let millis = millis(timeout);
        // SAFETY: the queue lives as long as `self`; the event is `Event`'s to free.
        let event = unsafe { Event::new(sys::rd_kafka_queue_poll(self.queue.as_ptr(), millis)) };
        if let (Some(Event::TokenWanted), Some(file)) = (&event, &self.token_file) {
            self.give_token(file);
        }
        event
    }

    /// Hands over what is at hand of records and of news about partitions, up to
    /// [`RECORDS_AT_ONCE`], and tells how many. Takes a fraction of the time of as many
    /// calls of [`Client::poll`], which all else is for: here, other errors go to the log
    /// only, and after the news of a partition's end librdkafka counts its position wrong
    /// (up to 2.13.1).
    pub(in crate::log::kafka) fn poll_records(&self, mut each: impl FnMut(Event)) -> usize {
        let mut messages = [ptr::null_mut(); RECORDS_AT_ONCE];
        let (queue, room) = (self.queue.as_ptr(), messages.len());
        // SAFETY: the queue lives as long as `self`; so many messages fit.
        let taken = unsafe { sys::rd_kafka_consume_batch_queue(queue, 0, messages.as_mut_ptr(), room) };
        let taken = usize::try_from(taken).unwrap_or(0);
        for message in messages[..taken].iter().copied().filter_map(NonNull::new) {
            // SAFETY: each message is handed out once.
            each(unsafe { Event::of_message(message) });
        }
        taken
    }

    /// Whether [`Client::poll_records`] can be used: it takes no questions for tokens.
    pub(in crate::log::kafka) fn polls_records(&self) -> bool {
        self.token_file.is_none()
    }

    /// Answers the question for a token.
    fn give_token(&self, file: &Path) {
        let refuse = |reason: String| {
            // OK because a NUL in the reason was replaced.
            let reason = CString::new(reason.replace('\0', " ")).expect("no NUL");
            // SAFETY: the client is alive; the reason is copied.
            unsafe { sys::rd_kafka_oauthbearer_set_token_failure(self.rk(), reason.as_ptr()) };
        };
        let token = match Token::read(file) {
            Ok(token) => token,
            Err(reason) => return refuse(reason),
        };
        let mut reason: [c_char; 512] = [0; 512];
        // SAFETY: everything lives through the call, which copies it; the reason is a
        // text if there is an error.
        let refused = unsafe {
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
        if let Some(reason) = refused {
            refuse(format!("{}: {reason}", file.display()));
        }
    }

    /// Why the client is of no use any more, if so.
    pub(in crate::log::kafka) fn fatal_error(&self) -> Option<(RDKafkaErrorCode, String)> {
        let mut reason: [c_char; 512] = [0; 512];
        // SAFETY: the client is alive; the reason is a text if there is an error.
        unsafe {
            let code = sys::rd_kafka_fatal_error(self.rk(), reason.as_mut_ptr(), reason.len());
            code.is_error().then(|| (code.into(), text(reason.as_ptr())))
        }
    }

    /// Makes a poll that is under way, or the next one, return at once.
    pub(in crate::log::kafka) fn wake(&self) {
        // SAFETY: the queue lives as long as `self`.
        unsafe { sys::rd_kafka_queue_yield(self.queue.as_ptr()) }
    }

    /// Adds partitions to those that are read, each from an offset.
    pub(in crate::log::kafka) fn assign(&self, places: &TopicPartitionList) -> Result<(), RDKafkaErrorCode> {
        // SAFETY: client and list are alive; the list is copied.
        let error = unsafe { sys::rd_kafka_incremental_assign(self.rk(), places.ptr()) };
        take_error(error)
    }

    /// Takes partitions away from those that are read.
    pub(in crate::log::kafka) fn unassign(
        &self,
        places: &TopicPartitionList,
    ) -> Result<(), RDKafkaErrorCode> {
        // SAFETY: as in `assign`.
        let error = unsafe { sys::rd_kafka_incremental_unassign(self.rk(), places.ptr()) };
        take_error(error)
    }

    /// Fetches no more of these partitions, for now.
    pub(in crate::log::kafka) fn pause(&self, places: &TopicPartitionList) {
        // SAFETY: client and list are alive. Fails for partitions that are not
        // assigned, of which nothing is fetched anyway.
        unsafe { sys::rd_kafka_pause_partitions(self.rk(), places.ptr()) };
    }

    /// Goes on behind the last record that was taken from the queue.
    pub(in crate::log::kafka) fn resume(&self, places: &TopicPartitionList) {
        // SAFETY: as in `pause`.
        unsafe { sys::rd_kafka_resume_partitions(self.rk(), places.ptr()) };
    }

    /// For each place the offset behind what was taken from the queue, control
    /// records counted.
    pub(in crate::log::kafka) fn positions(
        &self,
        places: &TopicPartitionList,
    ) -> Vec<(String, Partition, Offset)> {
        // SAFETY: client and list are alive; the offsets are written into the list.
        unsafe { sys::rd_kafka_position(self.rk(), places.ptr()) };
        let places = places.elements();
        let known = places.iter().filter_map(|place| match place.offset() {
            rdkafka::Offset::Offset(offset) => Some((place.topic().to_owned(), place.partition(), offset)),
            _ => None,
        });
        known.collect()
    }

    /// Waits until a broker answers.
    pub(in crate::log::kafka) fn probe(&self, timeout: Duration) -> Result<(), RDKafkaErrorCode> {
        let mut metadata = std::ptr::null();
        // SAFETY: the client is alive; what it answers is freed, once.
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

    /// Makes the client learn of a topic's partitions.
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
        // SAFETY: the only reference that is ours; the client itself goes after it.
        unsafe { sys::rd_kafka_queue_destroy(self.queue.as_ptr()) }
    }
}

/// The code of an error object, which is freed.
#[allow(unsafe_code, reason = "calls into librdkafka")]
pub(in crate::log::kafka) fn take_error(error: *mut sys::rd_kafka_error_t) -> Result<(), RDKafkaErrorCode> {
    if error.is_null() {
        return Ok(());
    }
    // SAFETY: an error object is the caller's to free, once.
    unsafe {
        let code = sys::rd_kafka_error_code(error);
        sys::rd_kafka_error_destroy(error);
        Err(code.into())
    }
}

/// As librdkafka counts time.
pub(in crate::log::kafka) fn millis(time: Duration) -> i32 {
    i32::try_from(time.as_millis()).unwrap_or(i32::MAX)
}

/// A list of places where reading begins or goes on, each with the leader epoch of what
/// was read before it, or -1.
#[allow(unsafe_code, reason = "calls into librdkafka")]
pub(in crate::log::kafka) fn places_in_epochs<'a>(
    places_in_epochs: impl IntoIterator<Item = (&'a str, Partition, Offset, i32)>,
) -> TopicPartitionList {
    let (rest, epochs): (Vec<_>, Vec<_>) = places_in_epochs
        .into_iter()
        .map(|(topic, partition, offset, epoch)| ((topic, partition, offset), epoch))
        .unzip();
    let list = places(rest);
    for (index, epoch) in epochs.into_iter().enumerate() {
        // SAFETY: the list has an element for each epoch.
        unsafe {
            let element = (*list.ptr()).elems.add(index);
            sys::rd_kafka_topic_partition_set_leader_epoch(element, epoch);
        }
    }
    list
}

/// A list of places for the calls above.
pub(in crate::log::kafka) fn places<'a>(
    places: impl IntoIterator<Item = (&'a str, Partition, Offset)>,
) -> TopicPartitionList {
    let mut list = TopicPartitionList::new();
    for (topic, partition, offset) in places {
        // OK because offsets of records are valid offsets.
        list.add_partition_offset(topic, partition, rdkafka::Offset::Offset(offset)).expect("a valid offset");
    }
    list
}
