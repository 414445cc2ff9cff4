//! The events in a client's queue.
//!
//! `rdkafka` has safe wrappers for most events, but they lose topic and offset of an end-of-partition event,
//! and the partition of an error. Both are needed here, so events are read from librdkafka directly.

use std::ffi::{CStr, c_char, c_int};
use std::fmt;
use std::ptr::{self, NonNull};
use std::slice;

use rdkafka::bindings as sys;
use rdkafka::types::{RDKafkaErrorCode, RDKafkaEvent, RDKafkaMessage, RDKafkaRespErr};

use crate::log::{Header, Offset, Partition};

/// An event of a client.
#[derive(Debug)]
pub(in crate::log::kafka) enum Event {
    /// A record was fetched.
    Record(FetchedRecord),
    /// Everything before this offset was delivered, and the partition ends there at present.
    PartitionEnd(PartitionOffset),
    /// An error that belongs to no request.
    Failure(Failure),
    /// Queued records were acknowledged or failed.
    Deliveries(Deliveries),
    /// The reply to an admin request.
    Reply(Reply),
    /// librdkafka needs an OAuth token.
    TokenRequested,
}

/// An offset in a partition of a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::log::kafka) struct PartitionOffset {
    pub(in crate::log::kafka) topic: String,
    pub(in crate::log::kafka) partition: Partition,
    pub(in crate::log::kafka) offset: Offset,
}

/// An error that belongs to no request.
#[derive(Debug, Clone)]
pub(in crate::log::kafka) struct Failure {
    pub(in crate::log::kafka) code: RDKafkaErrorCode,
    pub(in crate::log::kafka) reason: String,
    /// Whether the client cannot be used any more.
    pub(in crate::log::kafka) is_fatal: bool,
    /// The partition that failed, and where, if the error is about one.
    pub(in crate::log::kafka) partition_offset: Option<PartitionOffset>,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The text ends with how long the connection was in its state, which says nothing to users.
        f.write_str(self.reason.split(" (after ").next().unwrap_or(&self.reason))
    }
}

/// An event of librdkafka, freed when it is dropped.
#[derive(Debug)]
struct Native(NonNull<RDKafkaEvent>);

// SAFETY: an event has one owner.
#[allow(unsafe_code, reason = "a raw pointer with one owner")]
unsafe impl Send for Native {}

impl Native {
    fn as_ptr(&self) -> *mut RDKafkaEvent {
        self.0.as_ptr()
    }
}

#[allow(unsafe_code, reason = "calls into librdkafka")]
impl Drop for Native {
    fn drop(&mut self) {
        // SAFETY: `self` owns the event, which is freed once.
        unsafe { sys::rd_kafka_event_destroy(self.as_ptr()) }
    }
}

#[allow(unsafe_code, reason = "calls into librdkafka")]
impl Event {
    /// Reads an event of librdkafka and takes its ownership. Returns `None` if it is null, or a log line,
    /// which is logged.
    ///
    /// # Safety
    ///
    /// The event must be null, or alive and without another owner.
    pub(in crate::log::kafka) unsafe fn new(event: *mut RDKafkaEvent) -> Option<Self> {
        let event = Native(NonNull::new(event)?);
        // SAFETY: the event is alive, here and below.
        match unsafe { sys::rd_kafka_event_type(event.as_ptr()) } {
            sys::RD_KAFKA_EVENT_FETCH => FetchedRecord::new(event).map(Self::Record),
            sys::RD_KAFKA_EVENT_ERROR => Some(read_error(&event)),
            sys::RD_KAFKA_EVENT_DR => Some(Self::Deliveries(Deliveries(event))),
            sys::RD_KAFKA_EVENT_OAUTHBEARER_TOKEN_REFRESH => Some(Self::TokenRequested),
            sys::RD_KAFKA_EVENT_LOG => {
                log_event(&event);
                None
            }
            _ => Some(Self::Reply(Reply(event))),
        }
    }
}

#[allow(unsafe_code, reason = "calls into librdkafka")]
impl Event {
    /// Reads a message that came without an event, and takes its ownership: a record, or an error or the
    /// end of a partition.
    ///
    /// # Safety
    ///
    /// The message must be alive and without another owner.
    pub(in crate::log::kafka) unsafe fn from_message(message: NonNull<RDKafkaMessage>) -> Self {
        let owner = NativeMessage(message);
        // SAFETY: the message is alive as long as `owner`, and so are its texts.
        let read = unsafe { message.as_ref() };
        if read.err == RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR {
            return Self::Record(FetchedRecord { message, _owner: Owner::Message(owner) });
        }
        // SAFETY: as above.
        let (topic, reason) = unsafe {
            let name = if read.rkt.is_null() { ptr::null() } else { sys::rd_kafka_topic_name(read.rkt) };
            (text(name), text(sys::rd_kafka_message_errstr(message.as_ptr())))
        };
        let at = PartitionOffset { topic, partition: read.partition, offset: read.offset };
        match read.err.into() {
            RDKafkaErrorCode::PartitionEOF => Self::PartitionEnd(at),
            code => Self::Failure(Failure {
                code,
                reason,
                is_fatal: code == RDKafkaErrorCode::Fatal,
                partition_offset: (!at.topic.is_empty()).then_some(at),
            }),
        }
    }
}

/// Reads an error event.
#[allow(unsafe_code, reason = "calls into librdkafka")]
fn read_error(event: &Native) -> Event {
    // SAFETY: the event is alive and an error event; the caller owns the partition and frees it once.
    unsafe {
        let code: RDKafkaErrorCode = sys::rd_kafka_event_error(event.as_ptr()).into();
        let at = NonNull::new(sys::rd_kafka_event_topic_partition(event.as_ptr())).map(|native| {
            let read = native.as_ref();
            let (topic, partition, offset) = (text(read.topic), read.partition, read.offset);
            sys::rd_kafka_topic_partition_destroy(native.as_ptr());
            PartitionOffset { topic, partition, offset }
        });
        match (code, at) {
            (RDKafkaErrorCode::PartitionEOF, Some(at)) => Event::PartitionEnd(at),
            (code, at) => Event::Failure(Failure {
                code,
                reason: text(sys::rd_kafka_event_error_string(event.as_ptr())),
                is_fatal: sys::rd_kafka_event_error_is_fatal(event.as_ptr()) != 0,
                partition_offset: at,
            }),
        }
    }
}

/// Logs a log line of librdkafka. What it means for a table or a write is reported by other events.
#[allow(unsafe_code, reason = "calls into librdkafka")]
fn log_event(event: &Native) {
    let (mut facility, mut line, mut level) = (std::ptr::null(), std::ptr::null(), 0);
    // SAFETY: the event is alive; the texts live as long as it does.
    let (facility, line) = unsafe {
        if sys::rd_kafka_event_log(event.as_ptr(), &mut facility, &mut line, &mut level) != 0 {
            return;
        }
        (text(facility), text(line))
    };
    write_line(level, &facility, &line);
}

/// Logs a log line of librdkafka, as a callback. Without it, a client that polls records without events
/// would write to standard error.
///
/// # Safety
///
/// The texts must be null or end with a NUL.
#[allow(unsafe_code, reason = "called by librdkafka, on the thread that polls")]
pub(in crate::log::kafka) unsafe extern "C" fn on_log(
    _: *const sys::rd_kafka_t,
    level: c_int,
    facility: *const c_char,
    line: *const c_char,
) {
    // SAFETY: the caller ensures that both are C strings or null.
    let (facility, line) = unsafe { (text(facility), text(line)) };
    write_line(level, &facility, &line);
}

/// Logs a line under the target `librdkafka`. Levels are those of syslog: up to 4 are warnings and worse.
fn write_line(level: c_int, facility: &str, line: &str) {
    // librdkafka warns that a producer ignores this property, which is not true of its requests for offsets.
    let is_wrong = facility == "CONFWARN" && line.contains("isolation.level");
    if level <= 4 && !is_wrong {
        tracing::info!(target: "librdkafka", "{facility}: {line}");
    } else {
        tracing::debug!(target: "librdkafka", "{facility}: {line}");
    }
}

/// A record in librdkafka's memory.
#[derive(Debug)]
pub(in crate::log::kafka) struct FetchedRecord {
    message: NonNull<RDKafkaMessage>,
    _owner: Owner,
}

/// The owner of a message, which frees it.
#[derive(Debug)]
enum Owner {
    Event(#[allow(dead_code, reason = "freed when it is dropped")] Native),
    Message(#[allow(dead_code, reason = "freed when it is dropped")] NativeMessage),
}

/// A message of librdkafka that came without an event, freed when it is dropped.
#[derive(Debug)]
struct NativeMessage(NonNull<RDKafkaMessage>);

#[allow(unsafe_code, reason = "calls into librdkafka")]
impl Drop for NativeMessage {
    fn drop(&mut self) {
        // SAFETY: `self` owns the message, which is freed once.
        unsafe { sys::rd_kafka_message_destroy(self.0.as_ptr()) }
    }
}

#[allow(unsafe_code, reason = "calls into librdkafka")]
impl FetchedRecord {
    fn new(event: Native) -> Option<Self> {
        // SAFETY: the event is alive; the message lives as long as it does.
        let message = unsafe { sys::rd_kafka_event_message_next(event.as_ptr()) };
        Some(Self { message: NonNull::new(message.cast_mut())?, _owner: Owner::Event(event) })
    }

    fn message(&self) -> &RDKafkaMessage {
        // SAFETY: the message lives as long as `_owner`.
        unsafe { self.message.as_ref() }
    }

    /// An identity of the partition that needs no copy of the topic's name. It is the same for all records
    /// of a partition while the client reads it.
    pub(in crate::log::kafka) fn source(&self) -> (usize, Partition) {
        (self.message().rkt.addr(), self.message().partition)
    }

    pub(in crate::log::kafka) fn topic(&self) -> String {
        // SAFETY: a message's topic lives as long as the message.
        unsafe { text(sys::rd_kafka_topic_name(self.message().rkt)) }
    }

    pub(in crate::log::kafka) fn partition(&self) -> Partition {
        self.message().partition
    }

    pub(in crate::log::kafka) fn offset(&self) -> Offset {
        self.message().offset
    }

    /// The epoch of the leader that appended the record, or -1 if it is unknown.
    pub(in crate::log::kafka) fn leader_epoch(&self) -> i32 {
        // SAFETY: the message is alive.
        unsafe { sys::rd_kafka_message_leader_epoch(self.message.as_ptr()) }
    }

    pub(in crate::log::kafka) fn key(&self) -> Option<&[u8]> {
        // SAFETY: the bytes live as long as the message.
        unsafe { bytes(self.message().key.cast(), self.message().key_len) }
    }

    pub(in crate::log::kafka) fn value(&self) -> Option<&[u8]> {
        // SAFETY: the bytes live as long as the message.
        unsafe { bytes(self.message().payload.cast(), self.message().len) }
    }

    /// Milliseconds since 1970, or -1 if the record has no timestamp.
    pub(in crate::log::kafka) fn timestamp(&self) -> i64 {
        let mut kind = sys::rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_NOT_AVAILABLE;
        // SAFETY: the message is alive.
        unsafe { sys::rd_kafka_message_timestamp(self.message.as_ptr(), &mut kind) }
    }

    /// Copies the headers. The call costs time even if there are none.
    pub(in crate::log::kafka) fn headers(&self) -> Vec<Header> {
        let mut headers = std::ptr::null_mut();
        // SAFETY: the message is alive, and the headers live as long as it does.
        unsafe {
            if sys::rd_kafka_message_headers(self.message.as_ptr(), &mut headers)
                != RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR
            {
                return Vec::new();
            }
            (0..sys::rd_kafka_header_cnt(headers)).filter_map(|index| read_header(headers, index)).collect()
        }
    }
}

/// Copies the header at an index.
///
/// # Safety
///
/// The headers must be alive.
#[allow(unsafe_code, reason = "calls into librdkafka")]
unsafe fn read_header(headers: *const sys::rd_kafka_headers_t, index: usize) -> Option<Header> {
    let (mut name, mut value, mut size) = (std::ptr::null(), std::ptr::null(), 0);
    // SAFETY: the headers are alive; name and value live as long as they do.
    unsafe {
        let error = sys::rd_kafka_header_get_all(headers, index, &mut name, &mut value, &mut size);
        let value = bytes(value.cast(), size).map(<[u8]>::to_vec);
        (error == RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR).then(|| Header { name: text(name), value })
    }
}

/// A batch of delivery reports of queued records.
#[derive(Debug)]
pub(in crate::log::kafka) struct Deliveries(Native);

/// The delivery report of one record.
#[derive(Debug)]
pub(in crate::log::kafka) struct DeliveryReport {
    /// `None` if the record was acknowledged.
    pub(in crate::log::kafka) error: Option<RDKafkaErrorCode>,
    pub(in crate::log::kafka) partition: Partition,
    pub(in crate::log::kafka) offset: Offset,
    /// The record's key, if its delivery failed.
    pub(in crate::log::kafka) key: Option<Vec<u8>>,
    /// The number of bytes of key and value.
    pub(in crate::log::kafka) len: usize,
    /// The pointer that was queued with the record.
    pub(in crate::log::kafka) opaque: *mut std::ffi::c_void,
}

#[allow(unsafe_code, reason = "calls into librdkafka")]
impl Deliveries {
    /// Calls `each` with the report of every record.
    pub(in crate::log::kafka) fn for_each(self, mut each: impl FnMut(DeliveryReport)) {
        // SAFETY: the event is alive; each message lives as long as it does.
        unsafe {
            while let Some(message) = sys::rd_kafka_event_message_next(self.0.as_ptr()).as_ref() {
                let failed = message.err != RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR;
                each(DeliveryReport {
                    error: failed.then(|| message.err.into()),
                    key: if failed {
                        bytes(message.key.cast(), message.key_len).map(<[u8]>::to_vec)
                    } else {
                        None
                    },
                    len: message.key_len + message.len,
                    partition: message.partition,
                    offset: message.offset,
                    opaque: message._private,
                });
            }
        }
    }
}

/// The reply to an admin request, whose content [`admin`](super::admin) reads.
#[derive(Debug)]
pub(in crate::log::kafka) struct Reply(Native);

#[allow(unsafe_code, reason = "calls into librdkafka")]
impl Reply {
    pub(in crate::log::kafka) fn as_ptr(&self) -> *mut RDKafkaEvent {
        self.0.as_ptr()
    }

    /// The pointer that was sent with the request.
    pub(in crate::log::kafka) fn opaque(&self) -> *mut std::ffi::c_void {
        // SAFETY: the event is alive.
        unsafe { sys::rd_kafka_event_opaque(self.as_ptr()) }
    }

    /// Returns the error if the whole request failed.
    pub(in crate::log::kafka) fn error(&self) -> Option<(RDKafkaErrorCode, String)> {
        // SAFETY: the event is alive, and the text with it.
        unsafe {
            let code = sys::rd_kafka_event_error(self.as_ptr());
            (code != RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR)
                .then(|| (code.into(), text(sys::rd_kafka_event_error_string(self.as_ptr()))))
        }
    }
}

/// Copies a C string. Null becomes the empty string, and invalid UTF-8 is replaced.
///
/// # Safety
///
/// The text must be null or end with a NUL.
#[allow(unsafe_code, reason = "reads C strings")]
pub(in crate::log::kafka) unsafe fn text(text: *const c_char) -> String {
    if text.is_null() {
        return String::new();
    }
    // SAFETY: the caller ensures that it is a C string.
    unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
}

/// Views a C buffer as a slice. Null becomes `None`; an empty buffer does not.
///
/// # Safety
///
/// The pointer must be null or point to that many bytes that live as long as `'a`.
#[allow(unsafe_code, reason = "reads C buffers")]
unsafe fn bytes<'a>(pointer: *const u8, len: usize) -> Option<&'a [u8]> {
    // SAFETY: the caller ensures length and lifetime.
    (!pointer.is_null()).then(|| unsafe { slice::from_raw_parts(pointer, len) })
}
