//! Questions to the cluster and their answers, in librdkafka's admin interface.
//!
//! A question goes out at once; its answer comes through the client's queue, whose
//! poller hands it to [`answer`].

use std::collections::HashMap;
use std::ffi::{CString, c_char, c_void};
use std::ptr;
use std::slice;
use std::time::Duration;

use rdkafka::bindings as sys;
use rdkafka::error::IsError;
use rdkafka::types::RDKafkaErrorCode;
use tokio::sync::oneshot;

use crate::log::kafka::ffi::client::{Client, millis, take_error};
use crate::log::kafka::ffi::event::{Reply, text};
use crate::log::{NewTopic, Offset, OffsetRange, Partition};

use sys::rd_kafka_IsolationLevel_t::{
    RD_KAFKA_ISOLATION_LEVEL_READ_COMMITTED, RD_KAFKA_ISOLATION_LEVEL_READ_UNCOMMITTED,
};
use sys::rd_kafka_ResourceType_t::RD_KAFKA_RESOURCE_TOPIC;
use sys::rd_kafka_admin_op_t as Operation;

/// Which end of a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::log::kafka) enum End {
    /// The offset of its first record.
    First,
    /// The offset its next record will get: the high watermark.
    Last,
    /// The last stable offset: that of the first record of an open transaction, or the
    /// high watermark if there is none.
    Stable,
}

/// The identity of topics in clusters that give them none.
const NO_ID: &str = "AAAAAAAAAAAAAAAAAAAAAA";

/// What the cluster knows of a topic.
#[derive(Debug, Clone)]
pub(in crate::log::kafka) struct Described {
    pub(in crate::log::kafka) name: String,
    pub(in crate::log::kafka) id: String,
    pub(in crate::log::kafka) partitions: Partition,
    /// Those without a leader, at this moment.
    pub(in crate::log::kafka) leaderless: Vec<Partition>,
}

/// What was answered for one of the things asked for.
pub(in crate::log::kafka) type Answer<T> = Result<T, (RDKafkaErrorCode, String)>;

/// The way an answer comes back.
pub(in crate::log::kafka) type Pending = oneshot::Receiver<Reply>;

/// Hands a reply to whoever asked.
#[allow(unsafe_code, reason = "takes back what was lent to librdkafka")]
pub(in crate::log::kafka) fn answer(reply: Reply) {
    let opaque = reply.opaque();
    if !opaque.is_null() {
        // SAFETY: each request lends one box, and has one reply.
        let asker = unsafe { Box::from_raw(opaque.cast::<oneshot::Sender<Reply>>()) };
        // Whoever asked may have lost patience.
        let _ = asker.send(reply);
    }
}

/// The options of a request, with the way back for its answer.
struct Options(*mut sys::rd_kafka_AdminOptions_t);

#[allow(unsafe_code, reason = "calls into librdkafka")]
impl Options {
    fn new(client: &Client, operation: Operation, timeout: Duration) -> (Self, Pending) {
        let (sender, pending) = oneshot::channel::<Reply>();
        let opaque: *mut c_void = Box::into_raw(Box::new(sender)).cast();
        let millis = millis(timeout);
        // SAFETY: the client is alive; the options are freed in `drop`, and the
        // opaque in `answer`.
        let options = unsafe {
            let options = sys::rd_kafka_AdminOptions_new(client.rk(), operation);
            sys::rd_kafka_AdminOptions_set_opaque(options, opaque);
            // Refused for times longer than an hour, which are the default then.
            sys::rd_kafka_AdminOptions_set_request_timeout(options, millis, ptr::null_mut(), 0);
            options
        };
        (Self(options), pending)
    }
}

#[allow(unsafe_code, reason = "calls into librdkafka")]
impl Drop for Options {
    fn drop(&mut self) {
        // SAFETY: made by `new`; a request keeps a copy.
        unsafe { sys::rd_kafka_AdminOptions_destroy(self.0) }
    }
}

/// Asks for identity and partitions of topics.
#[allow(unsafe_code, reason = "calls into librdkafka")]
pub(in crate::log::kafka) fn describe_topics(
    client: &Client,
    names: &[CString],
    timeout: Duration,
) -> Pending {
    let (options, pending) = Options::new(client, Operation::RD_KAFKA_ADMIN_OP_DESCRIBETOPICS, timeout);
    let mut pointers: Vec<*const c_char> = names.iter().map(|name| name.as_ptr()).collect();
    // SAFETY: everything lives through the call, which copies it.
    unsafe {
        let topics = sys::rd_kafka_TopicCollection_of_topic_names(pointers.as_mut_ptr(), pointers.len());
        sys::rd_kafka_DescribeTopics(client.rk(), topics, options.0, client.queue());
        sys::rd_kafka_TopicCollection_destroy(topics);
    }
    pending
}

/// The answer to [`describe_topics`], a topic each.
#[allow(unsafe_code, reason = "calls into librdkafka")]
pub(in crate::log::kafka) fn described(reply: &Reply) -> Vec<(String, Answer<Described>)> {
    // SAFETY: what the reply points to lives as long as it does.
    unsafe {
        let result = sys::rd_kafka_event_DescribeTopics_result(reply.as_ptr());
        if result.is_null() {
            return Vec::new();
        }
        let mut count = 0;
        let topics = sys::rd_kafka_DescribeTopics_result_topics(result, &mut count);
        list(topics, count)
            .iter()
            .map(|&topic| (text(sys::rd_kafka_TopicDescription_name(topic)), one(topic)))
            .collect()
    }
}

/// # Safety
///
/// The description must be alive.
#[allow(unsafe_code, reason = "calls into librdkafka")]
unsafe fn one(topic: *const sys::rd_kafka_TopicDescription_t) -> Answer<Described> {
    // SAFETY: all of it lives as long as the description.
    unsafe {
        let error = sys::rd_kafka_TopicDescription_error(topic);
        let code = sys::rd_kafka_error_code(error);
        if code.is_error() {
            return Err((code.into(), text(sys::rd_kafka_error_string(error))));
        }
        let mut count = 0;
        let partitions = sys::rd_kafka_TopicDescription_partitions(topic, &mut count);
        let leaderless = list(partitions, count)
            .iter()
            .filter(|&&partition| sys::rd_kafka_TopicPartitionInfo_leader(partition).is_null())
            .map(|&partition| sys::rd_kafka_TopicPartitionInfo_partition(partition))
            .collect();
        let id = sys::rd_kafka_TopicDescription_topic_id(topic);
        Ok(Described {
            name: text(sys::rd_kafka_TopicDescription_name(topic)),
            id: Some(text(sys::rd_kafka_Uuid_base64str(id))).filter(|id| id != NO_ID).unwrap_or_default(),
            // OK because a topic's partitions are numbered by 32 bits.
            partitions: Partition::try_from(count).expect("few enough"),
            leaderless,
        })
    }
}

/// Asks for an end of partitions of topics. Only the high watermark tells where
/// everything ends that was acknowledged: under `read_committed` the answer is the last
/// stable offset.
#[allow(unsafe_code, reason = "calls into librdkafka")]
pub(in crate::log::kafka) fn list_offsets<'a>(
    client: &Client,
    partitions: impl IntoIterator<Item = (&'a str, Partition)>,
    end: End,
    timeout: Duration,
) -> Pending {
    let (options, pending) = Options::new(client, Operation::RD_KAFKA_ADMIN_OP_LISTOFFSETS, timeout);
    let offset = match end {
        End::First => rdkafka::Offset::Beginning,
        End::Last | End::Stable => rdkafka::Offset::End,
    };
    let isolation = match end {
        End::First | End::Last => RD_KAFKA_ISOLATION_LEVEL_READ_UNCOMMITTED,
        End::Stable => RD_KAFKA_ISOLATION_LEVEL_READ_COMMITTED,
    };
    let mut places = rdkafka::TopicPartitionList::new();
    for (topic, partition) in partitions {
        // OK because these are valid offsets.
        places.add_partition_offset(topic, partition, offset).expect("a valid offset");
    }
    // SAFETY: everything lives through the call, which copies it.
    unsafe {
        sys::rd_kafka_AdminOptions_set_isolation_level(options.0, isolation);
        sys::rd_kafka_ListOffsets(client.rk(), places.ptr(), options.0, client.queue());
    }
    pending
}

/// An offset in the answer to [`list_offsets`], and the partition it is of.
pub(in crate::log::kafka) type Listed = (String, Partition, Result<Offset, RDKafkaErrorCode>);

/// The answer to [`list_offsets`], a partition each.
#[allow(unsafe_code, reason = "calls into librdkafka")]
pub(in crate::log::kafka) fn listed(reply: &Reply) -> Vec<Listed> {
    // SAFETY: what the reply points to lives as long as it does.
    unsafe {
        let result = sys::rd_kafka_event_ListOffsets_result(reply.as_ptr());
        if result.is_null() {
            return Vec::new();
        }
        let mut count = 0;
        let infos = sys::rd_kafka_ListOffsets_result_infos(result, &mut count);
        let place = |&info: &*const _| {
            let place = &*sys::rd_kafka_ListOffsetsResultInfo_topic_partition(info);
            let offset = match place.offset {
                _ if place.err.is_error() => Err(place.err.into()),
                // No error, and no answer: nobody leads the partition just now.
                ..0 => Err(RDKafkaErrorCode::LeaderNotAvailable),
                offset => Ok(offset),
            };
            (text(place.topic), place.partition, offset)
        };
        list(infos, count).iter().map(place).collect()
    }
}

/// First and end offsets together.
pub(in crate::log::kafka) fn ranges(
    first: &[(Partition, Offset)],
    last: &[(Partition, Offset)],
) -> Vec<OffsetRange> {
    let end = |partition| last.iter().find(|place| place.0 == partition).map(|place| place.1);
    let range = |&(partition, start): &(Partition, Offset)| {
        end(partition).map(|end| OffsetRange { partition, start, end })
    };
    let mut ranges: Vec<OffsetRange> = first.iter().filter_map(range).collect();
    ranges.sort_by_key(|range| range.partition);
    ranges
}

/// Asks for a topic's configuration.
#[allow(unsafe_code, reason = "calls into librdkafka")]
pub(in crate::log::kafka) fn describe_configuration(
    client: &Client,
    topic: &CString,
    timeout: Duration,
) -> Pending {
    let (options, pending) = Options::new(client, Operation::RD_KAFKA_ADMIN_OP_DESCRIBECONFIGS, timeout);
    // SAFETY: everything lives through the call, which copies it.
    unsafe {
        let resource = sys::rd_kafka_ConfigResource_new(RD_KAFKA_RESOURCE_TOPIC, topic.as_ptr());
        sys::rd_kafka_DescribeConfigs(client.rk(), &mut { resource }, 1, options.0, client.queue());
        sys::rd_kafka_ConfigResource_destroy(resource);
    }
    pending
}

/// The settings in the answer to [`describe_configuration`].
#[allow(unsafe_code, reason = "calls into librdkafka")]
pub(in crate::log::kafka) fn settings(reply: &Reply) -> Answer<HashMap<String, String>> {
    // SAFETY: what the reply points to lives as long as it does.
    unsafe {
        let result = sys::rd_kafka_event_DescribeConfigs_result(reply.as_ptr());
        if result.is_null() {
            return Ok(HashMap::new());
        }
        let mut count = 0;
        let resources = sys::rd_kafka_DescribeConfigs_result_resources(result, &mut count);
        let Some(&resource) = list(resources, count).first() else { return Ok(HashMap::new()) };
        resource_error(resource)?;
        let entries = list(sys::rd_kafka_ConfigResource_configs(resource, &mut count), count);
        let setting = |&entry: &_| {
            (text(sys::rd_kafka_ConfigEntry_name(entry)), text(sys::rd_kafka_ConfigEntry_value(entry)))
        };
        Ok(entries.iter().map(setting).collect())
    }
}

/// Asks to change one setting of a topic, and no other.
#[allow(unsafe_code, reason = "calls into librdkafka")]
pub(in crate::log::kafka) fn alter_configuration(
    client: &Client,
    topic: &CString,
    name: &str,
    value: &str,
    timeout: Duration,
) -> Result<Pending, String> {
    let c_text = |text: &str| CString::new(text).map_err(|_| format!("`{name}` has no NUL in it"));
    let (name, value) = (c_text(name)?, c_text(value)?);
    // SAFETY: everything lives through the calls, which copy it.
    unsafe {
        let resource = sys::rd_kafka_ConfigResource_new(RD_KAFKA_RESOURCE_TOPIC, topic.as_ptr());
        let set = sys::rd_kafka_AlterConfigOpType_t::RD_KAFKA_ALTER_CONFIG_OP_TYPE_SET;
        let added = take_error(sys::rd_kafka_ConfigResource_add_incremental_config(
            resource,
            name.as_ptr(),
            set,
            value.as_ptr(),
        ));
        if let Err(code) = added {
            sys::rd_kafka_ConfigResource_destroy(resource);
            return Err(code.to_string());
        }
        let operation = Operation::RD_KAFKA_ADMIN_OP_INCREMENTALALTERCONFIGS;
        let (options, pending) = Options::new(client, operation, timeout);
        sys::rd_kafka_IncrementalAlterConfigs(client.rk(), &mut { resource }, 1, options.0, client.queue());
        sys::rd_kafka_ConfigResource_destroy(resource);
        Ok(pending)
    }
}

/// The answer to [`alter_configuration`].
#[allow(unsafe_code, reason = "calls into librdkafka")]
pub(in crate::log::kafka) fn altered(reply: &Reply) -> Answer<()> {
    // SAFETY: what the reply points to lives as long as it does.
    unsafe {
        let result = sys::rd_kafka_event_IncrementalAlterConfigs_result(reply.as_ptr());
        let mut count = 0;
        let resources = match result.is_null() {
            true => &[],
            false => {
                let resources = sys::rd_kafka_IncrementalAlterConfigs_result_resources(result, &mut count);
                list(resources, count)
            }
        };
        match resources.first() {
            Some(&resource) => resource_error(resource),
            None => {
                Err((RDKafkaErrorCode::BadMessage, "the answer does not say whether it was done".to_owned()))
            }
        }
    }
}

/// # Safety
///
/// The resource must be alive.
#[allow(unsafe_code, reason = "calls into librdkafka")]
unsafe fn resource_error(resource: *const sys::rd_kafka_ConfigResource_t) -> Answer<()> {
    // SAFETY: as the caller says.
    unsafe {
        let code = sys::rd_kafka_ConfigResource_error(resource);
        if code.is_error() {
            return Err((code.into(), text(sys::rd_kafka_ConfigResource_error_string(resource))));
        }
    }
    Ok(())
}

/// Asks for a topic to be made, compacted if its settings do not say otherwise.
#[allow(unsafe_code, reason = "calls into librdkafka")]
pub(in crate::log::kafka) fn create_topic(
    client: &Client,
    name: &CString,
    settings: &NewTopic,
    timeout: Duration,
) -> Result<Pending, String> {
    let c_text = |text: &str| CString::new(text).map_err(|_| format!("setting `{text}` has no NUL in it"));
    let mut texts = vec![(c"cleanup.policy".to_owned(), c"compact".to_owned())];
    for (name, value) in &settings.settings {
        texts.push((c_text(name)?, c_text(value)?));
    }
    let mut reason: [c_char; 512] = [0; 512];
    // The broker's own default.
    let (partitions, replicas) =
        (settings.partitions.unwrap_or(-1), settings.replication_factor.map_or(-1, i32::from));
    // SAFETY: everything lives through the calls, which copy it; the reason is a text
    // where there is no topic.
    unsafe {
        let topic = sys::rd_kafka_NewTopic_new(
            name.as_ptr(),
            partitions,
            replicas,
            reason.as_mut_ptr(),
            reason.len(),
        );
        if topic.is_null() {
            return Err(text(reason.as_ptr()));
        }
        let (options, pending) = Options::new(client, Operation::RD_KAFKA_ADMIN_OP_CREATETOPICS, timeout);
        for (name, value) in &texts {
            sys::rd_kafka_NewTopic_set_config(topic, name.as_ptr(), value.as_ptr());
        }
        sys::rd_kafka_CreateTopics(client.rk(), &mut { topic }, 1, options.0, client.queue());
        sys::rd_kafka_NewTopic_destroy(topic);
        Ok(pending)
    }
}

/// The answer to [`create_topic`].
#[allow(unsafe_code, reason = "calls into librdkafka")]
pub(in crate::log::kafka) fn created(reply: &Reply) -> Answer<()> {
    // SAFETY: what the reply points to lives as long as it does.
    unsafe {
        let result = sys::rd_kafka_event_CreateTopics_result(reply.as_ptr());
        if result.is_null() {
            return Ok(());
        }
        let mut count = 0;
        let topics = sys::rd_kafka_CreateTopics_result_topics(result, &mut count);
        for &topic in list(topics, count) {
            let code = sys::rd_kafka_topic_result_error(topic);
            if code.is_error() {
                return Err((code.into(), text(sys::rd_kafka_topic_result_error_string(topic))));
            }
        }
        Ok(())
    }
}

/// An array of librdkafka's, which may be null where it is empty.
///
/// # Safety
///
/// If not null, it must have that many items, and live as long as `'a`.
#[allow(unsafe_code, reason = "reads C arrays")]
unsafe fn list<'a, T>(items: *const T, count: usize) -> &'a [T] {
    if items.is_null() {
        return &[];
    }
    // SAFETY: as the caller says.
    unsafe { slice::from_raw_parts(items, count) }
}
