//! What comes out of a client's queue.
//!
//! `rdkafka` has safe wrappers for most events, but they lose the topic and the
//! offset of an end of a partition and the place of an error, and both are needed
//! here; so events are read from librdkafka itself.

use std::ffi::{CStr, c_char, c_int};
use std::fmt;
use std::ptr::{self, NonNull};
use std::slice;

use rdkafka::bindings as sys;
use rdkafka::types::{RDKafkaErrorCode, RDKafkaEvent, RDKafkaMessage, RDKafkaRespErr};

use crate::log::{Header, Offset, Partition};

/// One thing that a client has to say.
#[derive(Debug)]
pub(in crate::log::kafka) enum Event {
    /// A record was fetched.
    Record(Fetched),
    /// All of a partition below this offset was handed out.
    End(Place),
    /// Something failed.
    Failure(Failure),
    /// Records were acknowledged, or given up.
    Deliveries(Deliveries),
    /// The answer to a request.
    Reply(Reply),
    /// Another OAuth token is needed.
    TokenWanted,
}

/// A partition's offset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::log::kafka) struct Place {
    pub(in crate::log::kafka) topic: String,
    pub(in crate::log::kafka) partition: Partition,
    pub(in crate::log::kafka) offset: Offset,
}

/// An error that belongs to no request.
#[derive(Debug, Clone)]
pub(in crate::log::kafka) struct Failure {
    pub(in crate::log::kafka) code: RDKafkaErrorCode,
    pub(in crate::log::kafka) reason: String,
    /// The client is of no use any more.
    pub(in crate::log::kafka) fatal: bool,
    /// Where, if it is about a partition.
    pub(in crate::log::kafka) place: Option<Place>,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // librdkafka adds how long a connection was in which state.
        f.write_str(self.reason.split(" (after ").next().unwrap_or(&self.reason))
    }
}

/// An event of librdkafka, freed when it is dropped.
#[derive(Debug)]
struct Native(NonNull<RDKafkaEvent>);

// SAFETY: whoever has an event is the only one that has it.
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
        // SAFETY: it was handed out to be freed once.
        unsafe { sys::rd_kafka_event_destroy(self.as_ptr()) }
    }
}

#[allow(unsafe_code, reason = "calls into librdkafka")]
impl Event {
    /// Reads an event. Nothing comes of log lines but a line in the log.
    ///
    /// # Safety
    ///
    /// The event must be null or one that nobody else has.
    pub(in crate::log::kafka) unsafe fn new(event: *mut RDKafkaEvent) -> Option<Self> {
        let event = Native(NonNull::new(event)?);
        // SAFETY: the event is alive, here and below.
        match unsafe { sys::rd_kafka_event_type(event.as_ptr()) } {
            sys::RD_KAFKA_EVENT_FETCH => Fetched::new(event).map(Self::Record),
            sys::RD_KAFKA_EVENT_ERROR => Some(failure(&event)),
            sys::RD_KAFKA_EVENT_DR => Some(Self::Deliveries(Deliveries(event))),
            sys::RD_KAFKA_EVENT_OAUTHBEARER_TOKEN_REFRESH => Some(Self::TokenWanted),
            sys::RD_KAFKA_EVENT_LOG => {
                log(&event);
                None
            }
            _ => Some(Self::Reply(Reply(event))),
        }
    }
}

#[allow(unsafe_code, reason = "calls into librdkafka")]
impl Event {
    /// Reads a message that came without an event: a record, or what is wrong with a
    /// partition.
    ///
    /// # Safety
    ///
    /// The message must be one that nobody else has.
    pub(in crate::log::kafka) unsafe fn of_message(message: NonNull<RDKafkaMessage>) -> Self {
        let owner = NativeMessage(message);
        // SAFETY: the message is alive, and its texts with it.
        let read = unsafe { message.as_ref() };
        if read.err == RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR {
            return Self::Record(Fetched { message, _owner: Owner::Itself(owner) });
        }
        // SAFETY: as above.
        let (topic, reason) = unsafe {
            let name = if read.rkt.is_null() { ptr::null() } else { sys::rd_kafka_topic_name(read.rkt) };
            (text(name), text(sys::rd_kafka_message_errstr(message.as_ptr())))
        };
        let place = Place { topic, partition: read.partition, offset: read.offset };
        match read.err.into() {
            RDKafkaErrorCode::PartitionEOF => Self::End(place),
            code => Self::Failure(Failure {
                code,
                reason,
                fatal: code == RDKafkaErrorCode::Fatal,
                place: (!place.topic.is_empty()).then_some(place),
            }),
        }
    }
}

#[allow(unsafe_code, reason = "calls into librdkafka")]
fn failure(event: &Native) -> Event {
    // SAFETY: the event is alive and an error event; the place is ours to free.
    unsafe {
        let code: RDKafkaErrorCode = sys::rd_kafka_event_error(event.as_ptr()).into();
        let place = NonNull::new(sys::rd_kafka_event_topic_partition(event.as_ptr())).map(|place| {
            let read = place.as_ref();
            let (topic, partition, offset) = (text(read.topic), read.partition, read.offset);
            sys::rd_kafka_topic_partition_destroy(place.as_ptr());
            Place { topic, partition, offset }
        });
        match (code, place) {
            (RDKafkaErrorCode::PartitionEOF, Some(place)) => Event::End(place),
            (code, place) => Event::Failure(Failure {
                code,
                reason: text(sys::rd_kafka_event_error_string(event.as_ptr())),
                fatal: sys::rd_kafka_event_error_is_fatal(event.as_ptr()) != 0,
                place,
            }),
        }
    }
}

/// What librdkafka says to whoever reads logs: what it means to a table or a write
/// is said there.
#[allow(unsafe_code, reason = "calls into librdkafka")]
fn log(event: &Native) {
    let (mut facility, mut line, mut level) = (std::ptr::null(), std::ptr::null(), 0);
    // SAFETY: the event is alive; the texts live as long as it does.
    let (facility, line) = unsafe {
        if sys::rd_kafka_event_log(event.as_ptr(), &mut facility, &mut line, &mut level) != 0 {
            return;
        }
        (text(facility), text(line))
    };
    say(level, &facility, &line);
}

/// The same from a client that polls records without events: librdkafka would write to
/// the standard error.
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
    // SAFETY: as the caller says.
    let (facility, line) = unsafe { (text(facility), text(line)) };
    say(level, &facility, &line);
}

/// Levels are syslog's: up to 4 are warnings and worse.
fn say(level: c_int, facility: &str, line: &str) {
    if level <= 4 {
        tracing::info!(target: "librdkafka", "{facility}: {line}");
    } else {
        tracing::debug!(target: "librdkafka", "{facility}: {line}");
    }
}

/// A record in librdkafka's memory.
#[derive(Debug)]
pub(in crate::log::kafka) struct Fetched {
    message: NonNull<RDKafkaMessage>,
    _owner: Owner,
}

/// What a message is freed with.
#[derive(Debug)]
enum Owner {
    Event(#[allow(dead_code, reason = "freed when it is dropped")] Native),
    Itself(#[allow(dead_code, reason = "freed when it is dropped")] NativeMessage),
}

/// A message of librdkafka that came without an event, freed when it is dropped.
#[derive(Debug)]
struct NativeMessage(NonNull<RDKafkaMessage>);

#[allow(unsafe_code, reason = "calls into librdkafka")]
impl Drop for NativeMessage {
    fn drop(&mut self) {
        // SAFETY: it was handed out to be freed once.
        unsafe { sys::rd_kafka_message_destroy(self.0.as_ptr()) }
    }
}

#[allow(unsafe_code, reason = "calls into librdkafka")]
impl Fetched {
    fn new(event: Native) -> Option<Self> {
        // SAFETY: the event is alive; the message lives as long as it does.
        let message = unsafe { sys::rd_kafka_event_message_next(event.as_ptr()) };
        Some(Self { message: NonNull::new(message.cast_mut())?, _owner: Owner::Event(event) })
    }

    fn message(&self) -> &RDKafkaMessage {
        // SAFETY: it lives as long as the event.
        unsafe { self.message.as_ref() }
    }

    /// Tells partitions apart without reading their topic's name: the same for all
    /// records of a partition while the client reads it.
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

    /// The epoch of the leader that wrote it, or -1.
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

    /// Milliseconds since 1970, or -1.
    pub(in crate::log::kafka) fn timestamp(&self) -> i64 {
        let mut kind = sys::rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_NOT_AVAILABLE;
        // SAFETY: the message is alive.
        unsafe { sys::rd_kafka_message_timestamp(self.message.as_ptr(), &mut kind) }
    }

    pub(in crate::log::kafka) fn headers(&self) -> Vec<Header> {
        let mut headers = std::ptr::null_mut();
        // SAFETY: the message is alive, and so are the headers with it.
        unsafe {
            if sys::rd_kafka_message_headers(self.message.as_ptr(), &mut headers)
                != RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR
            {
                return Vec::new();
            }
            (0..sys::rd_kafka_header_cnt(headers)).filter_map(|index| header(headers, index)).collect()
        }
    }
}

/// # Safety
///
/// The headers must be alive.
#[allow(unsafe_code, reason = "calls into librdkafka")]
unsafe fn header(headers: *const sys::rd_kafka_headers_t, index: usize) -> Option<Header> {
    let (mut name, mut value, mut size) = (std::ptr::null(), std::ptr::null(), 0);
    // SAFETY: the headers are alive; name and value live as long as they do.
    unsafe {
        let error = sys::rd_kafka_header_get_all(headers, index, &mut name, &mut value, &mut size);
        let value = bytes(value.cast(), size).map(<[u8]>::to_vec);
        (error == RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR).then(|| Header { name: text(name), value })
    }
}

/// Reports on records that were queued for writing.
#[derive(Debug)]
pub(in crate::log::kafka) struct Deliveries(Native);

/// What became of one record.
#[derive(Debug)]
pub(in crate::log::kafka) struct Delivered {
    pub(in crate::log::kafka) error: Option<RDKafkaErrorCode>,
    pub(in crate::log::kafka) partition: Partition,
    pub(in crate::log::kafka) offset: Offset,
    /// Its key, if it failed.
    pub(in crate::log::kafka) key: Option<Vec<u8>>,
    /// The bytes of its key and its value.
    pub(in crate::log::kafka) len: usize,
    /// What was queued with the record.
    pub(in crate::log::kafka) opaque: *mut std::ffi::c_void,
}

#[allow(unsafe_code, reason = "calls into librdkafka")]
impl Deliveries {
    /// Calls `each` for every record.
    pub(in crate::log::kafka) fn for_each(self, mut each: impl FnMut(Delivered)) {
        // SAFETY: the event is alive; each message lives as long as it does.
        unsafe {
            while let Some(message) = sys::rd_kafka_event_message_next(self.0.as_ptr()).as_ref() {
                let failed = message.err != RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR;
                each(Delivered {
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

/// The answer to a request; [`admin`](super::admin) knows what is in it.
#[derive(Debug)]
pub(in crate::log::kafka) struct Reply(Native);

#[allow(unsafe_code, reason = "calls into librdkafka")]
impl Reply {
    pub(in crate::log::kafka) fn as_ptr(&self) -> *mut RDKafkaEvent {
        self.0.as_ptr()
    }

    /// What was handed in with the request.
    pub(in crate::log::kafka) fn opaque(&self) -> *mut std::ffi::c_void {
        // SAFETY: the event is alive.
        unsafe { sys::rd_kafka_event_opaque(self.as_ptr()) }
    }

    /// Why the whole request failed.
    pub(in crate::log::kafka) fn error(&self) -> Option<(RDKafkaErrorCode, String)> {
        // SAFETY: the event is alive, and the text with it.
        unsafe {
            let code = sys::rd_kafka_event_error(self.as_ptr());
            (code != RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR)
                .then(|| (code.into(), text(sys::rd_kafka_event_error_string(self.as_ptr()))))
        }
    }
}

/// # Safety
///
/// The text must be null or end with a NUL.
#[allow(unsafe_code, reason = "reads C strings")]
pub(in crate::log::kafka) unsafe fn text(text: *const c_char) -> String {
    if text.is_null() {
        return String::new();
    }
    // SAFETY: it is a C string, as the caller says.
    unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
}

/// Null and empty differ.
///
/// # Safety
///
/// The pointer must be null or point to that many bytes that live as long as `'a`.
#[allow(unsafe_code, reason = "reads C buffers")]
unsafe fn bytes<'a>(pointer: *const u8, len: usize) -> Option<&'a [u8]> {
    // SAFETY: as the caller says.
    (!pointer.is_null()).then(|| unsafe { slice::from_raw_parts(pointer, len) })
}
