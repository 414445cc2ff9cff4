//! Requests to the cluster and their replies, through librdkafka's admin API.
//!
//! A request is sent at once. Its reply comes through the client's queue, and whoever polls the
//! queue passes it to [`PendingReplies::deliver`](super::pending::PendingReplies::deliver).

use std::collections::HashMap;
use std::ffi::{CString, c_char};
use std::ptr;
use std::slice;
use std::time::Duration;

use rdkafka::bindings as sys;
use rdkafka::error::IsError;
use rdkafka::types::RDKafkaErrorCode;
use tokio::sync::oneshot;

use crate::log::kafka::ffi::client::{Client, millis, take_error};
use crate::log::kafka::ffi::event::{Reply, text};
use crate::log::{NewTopic, Partition};

use sys::rd_kafka_ResourceType_t::RD_KAFKA_RESOURCE_TOPIC;
use sys::rd_kafka_admin_op_t as Operation;

/// The zero UUID in base64, which clusters without topic ids return.
const ZERO_ID: &str = "AAAAAAAAAAAAAAAAAAAAAA";

/// A cluster's description of a topic.
#[derive(Debug, Clone)]
pub(in crate::log::kafka) struct DescribedTopic {
    pub(in crate::log::kafka) name: String,
    /// The topic id in base64; empty if the cluster has none.
    pub(in crate::log::kafka) id: String,
    pub(in crate::log::kafka) partitions: Partition,
    /// The partitions that had no leader at the time of the reply.
    pub(in crate::log::kafka) leaderless: Vec<Partition>,
}

/// The result for one item of a request, such as one topic.
pub(in crate::log::kafka) type Answer<T> = Result<T, (RDKafkaErrorCode, String)>;

/// Receives the reply to a request.
pub(in crate::log::kafka) type PendingReply = oneshot::Receiver<Reply>;

/// The options of a request, which carry its number.
struct RequestOptions(*mut sys::rd_kafka_AdminOptions_t);

#[allow(unsafe_code, reason = "calls into librdkafka")]
impl RequestOptions {
    fn new(client: &Client, operation: Operation, timeout: Duration) -> (Self, PendingReply) {
        let (opaque, pending) = client.pending().add();
        let millis = millis(timeout);
        // SAFETY: the client is alive; the options are freed in `drop`; the opaque is a number.
        let options = unsafe {
            let options = sys::rd_kafka_AdminOptions_new(client.rk(), operation);
            sys::rd_kafka_AdminOptions_set_opaque(options, opaque);
            // librdkafka refuses a timeout of more than an hour, and keeps its default then.
            sys::rd_kafka_AdminOptions_set_request_timeout(options, millis, ptr::null_mut(), 0);
            options
        };
        (Self(options), pending)
    }
}

#[allow(unsafe_code, reason = "calls into librdkafka")]
impl Drop for RequestOptions {
    fn drop(&mut self) {
        // SAFETY: created by `new`; a request has a copy.
        unsafe { sys::rd_kafka_AdminOptions_destroy(self.0) }
    }
}

/// Requests identity and partitions of topics.
#[allow(unsafe_code, reason = "calls into librdkafka")]
pub(in crate::log::kafka) fn describe_topics(
    client: &Client,
    names: &[CString],
    timeout: Duration,
) -> PendingReply {
    let (options, pending) =
        RequestOptions::new(client, Operation::RD_KAFKA_ADMIN_OP_DESCRIBETOPICS, timeout);
    let mut pointers: Vec<*const c_char> = names.iter().map(|name| name.as_ptr()).collect();
    // SAFETY: all arguments live until the end of the calls, which copy them.
    unsafe {
        let topics = sys::rd_kafka_TopicCollection_of_topic_names(pointers.as_mut_ptr(), pointers.len());
        sys::rd_kafka_DescribeTopics(client.rk(), topics, options.0, client.queue());
        sys::rd_kafka_TopicCollection_destroy(topics);
    }
    pending
}

/// Returns the topics in the reply to [`describe_topics`], with a result for each.
#[allow(unsafe_code, reason = "calls into librdkafka")]
pub(in crate::log::kafka) fn parse_topics(reply: &Reply) -> Vec<(String, Answer<DescribedTopic>)> {
    // SAFETY: everything in the reply lives as long as the reply.
    unsafe {
        let result = sys::rd_kafka_event_DescribeTopics_result(reply.as_ptr());
        if result.is_null() {
            return Vec::new();
        }
        let mut count = 0;
        let topics = sys::rd_kafka_DescribeTopics_result_topics(result, &mut count);
        as_slice(topics, count)
            .iter()
            .map(|&topic| (text(sys::rd_kafka_TopicDescription_name(topic)), parse_topic(topic)))
            .collect()
    }
}

/// Reads the description of one topic.
///
/// # Safety
///
/// The description must be alive.
#[allow(unsafe_code, reason = "calls into librdkafka")]
unsafe fn parse_topic(topic: *const sys::rd_kafka_TopicDescription_t) -> Answer<DescribedTopic> {
    // SAFETY: everything in the description lives as long as the description.
    unsafe {
        let error = sys::rd_kafka_TopicDescription_error(topic);
        let code = sys::rd_kafka_error_code(error);
        if code.is_error() {
            return Err((code.into(), text(sys::rd_kafka_error_string(error))));
        }
        let mut count = 0;
        let partitions = sys::rd_kafka_TopicDescription_partitions(topic, &mut count);
        let leaderless = as_slice(partitions, count)
            .iter()
            .filter(|&&partition| sys::rd_kafka_TopicPartitionInfo_leader(partition).is_null())
            .map(|&partition| sys::rd_kafka_TopicPartitionInfo_partition(partition))
            .collect();
        let id = sys::rd_kafka_TopicDescription_topic_id(topic);
        Ok(DescribedTopic {
            name: text(sys::rd_kafka_TopicDescription_name(topic)),
            id: Some(text(sys::rd_kafka_Uuid_base64str(id))).filter(|id| id != ZERO_ID).unwrap_or_default(),
            // OK because partition numbers have 32 bits.
            partitions: Partition::try_from(count).expect("few enough"),
            leaderless,
        })
    }
}

/// Requests the settings of a topic.
#[allow(unsafe_code, reason = "calls into librdkafka")]
pub(in crate::log::kafka) fn describe_configuration(
    client: &Client,
    topic: &CString,
    timeout: Duration,
) -> PendingReply {
    let (options, pending) =
        RequestOptions::new(client, Operation::RD_KAFKA_ADMIN_OP_DESCRIBECONFIGS, timeout);
    // SAFETY: all arguments live until the end of the calls, which copy them.
    unsafe {
        let resource = sys::rd_kafka_ConfigResource_new(RD_KAFKA_RESOURCE_TOPIC, topic.as_ptr());
        sys::rd_kafka_DescribeConfigs(client.rk(), &mut { resource }, 1, options.0, client.queue());
        sys::rd_kafka_ConfigResource_destroy(resource);
    }
    pending
}

/// Returns the settings in the reply to [`describe_configuration`], by name.
#[allow(unsafe_code, reason = "calls into librdkafka")]
pub(in crate::log::kafka) fn parse_settings(reply: &Reply) -> Answer<HashMap<String, String>> {
    // SAFETY: everything in the reply lives as long as the reply.
    unsafe {
        let result = sys::rd_kafka_event_DescribeConfigs_result(reply.as_ptr());
        if result.is_null() {
            return Ok(HashMap::new());
        }
        let mut count = 0;
        let resources = sys::rd_kafka_DescribeConfigs_result_resources(result, &mut count);
        let Some(&resource) = as_slice(resources, count).first() else { return Ok(HashMap::new()) };
        resource_error(resource)?;
        let entries = as_slice(sys::rd_kafka_ConfigResource_configs(resource, &mut count), count);
        let setting = |&entry: &_| {
            (text(sys::rd_kafka_ConfigEntry_name(entry)), text(sys::rd_kafka_ConfigEntry_value(entry)))
        };
        Ok(entries.iter().map(setting).collect())
    }
}

/// Requests to change one setting of a topic. All other settings stay as they are.
///
/// # Errors
///
/// A text about a name or a value that cannot be sent.
#[allow(unsafe_code, reason = "calls into librdkafka")]
pub(in crate::log::kafka) fn alter_configuration(
    client: &Client,
    topic: &CString,
    name: &str,
    value: &str,
    timeout: Duration,
) -> Result<PendingReply, String> {
    let c_text = |text: &str| CString::new(text).map_err(|_| format!("setting `{name}` contains a NUL byte"));
    let (name, value) = (c_text(name)?, c_text(value)?);
    // SAFETY: all arguments live until the end of the calls, which copy them.
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
        let (options, pending) = RequestOptions::new(client, operation, timeout);
        sys::rd_kafka_IncrementalAlterConfigs(client.rk(), &mut { resource }, 1, options.0, client.queue());
        sys::rd_kafka_ConfigResource_destroy(resource);
        Ok(pending)
    }
}

/// Returns the result in the reply to [`alter_configuration`].
#[allow(unsafe_code, reason = "calls into librdkafka")]
pub(in crate::log::kafka) fn parse_alteration(reply: &Reply) -> Answer<()> {
    // SAFETY: everything in the reply lives as long as the reply.
    unsafe {
        let result = sys::rd_kafka_event_IncrementalAlterConfigs_result(reply.as_ptr());
        let mut count = 0;
        let resources = match result.is_null() {
            true => &[],
            false => {
                let resources = sys::rd_kafka_IncrementalAlterConfigs_result_resources(result, &mut count);
                as_slice(resources, count)
            }
        };
        match resources.first() {
            Some(&resource) => resource_error(resource),
            None => {
                let reason = "the broker did not confirm the change: check the topic's settings".to_owned();
                Err((RDKafkaErrorCode::BadMessage, reason))
            }
        }
    }
}

/// Returns the error of a resource, if it has one.
///
/// # Safety
///
/// The resource must be alive.
#[allow(unsafe_code, reason = "calls into librdkafka")]
unsafe fn resource_error(resource: *const sys::rd_kafka_ConfigResource_t) -> Answer<()> {
    // SAFETY: the caller ensures that the resource is alive.
    unsafe {
        let code = sys::rd_kafka_ConfigResource_error(resource);
        if code.is_error() {
            return Err((code.into(), text(sys::rd_kafka_ConfigResource_error_string(resource))));
        }
    }
    Ok(())
}

/// Requests to create a topic. It is compacted unless its settings contain another `cleanup.policy`.
///
/// # Errors
///
/// A text about a name, a setting or a number that cannot be sent.
#[allow(unsafe_code, reason = "calls into librdkafka")]
pub(in crate::log::kafka) fn create_topic(
    client: &Client,
    name: &CString,
    settings: &NewTopic,
    timeout: Duration,
) -> Result<PendingReply, String> {
    let c_text = |text: &str| CString::new(text).map_err(|_| format!("setting `{text}` contains a NUL byte"));
    let mut texts = vec![(c"cleanup.policy".to_owned(), c"compact".to_owned())];
    for (name, value) in &settings.settings {
        texts.push((c_text(name)?, c_text(value)?));
    }
    let mut reason: [c_char; 512] = [0; 512];
    // -1 means the broker's default.
    let (partitions, replicas) =
        (settings.partitions.unwrap_or(-1), settings.replication_factor.map_or(-1, i32::from));
    // SAFETY: all arguments live until the end of the calls, which copy them; `reason` is a C string if no
    // topic is returned.
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
        let (options, pending) =
            RequestOptions::new(client, Operation::RD_KAFKA_ADMIN_OP_CREATETOPICS, timeout);
        for (name, value) in &texts {
            sys::rd_kafka_NewTopic_set_config(topic, name.as_ptr(), value.as_ptr());
        }
        sys::rd_kafka_CreateTopics(client.rk(), &mut { topic }, 1, options.0, client.queue());
        sys::rd_kafka_NewTopic_destroy(topic);
        Ok(pending)
    }
}

/// Returns the result in the reply to [`create_topic`].
#[allow(unsafe_code, reason = "calls into librdkafka")]
pub(in crate::log::kafka) fn parse_creation(reply: &Reply) -> Answer<()> {
    // SAFETY: everything in the reply lives as long as the reply.
    unsafe {
        let result = sys::rd_kafka_event_CreateTopics_result(reply.as_ptr());
        if result.is_null() {
            return Ok(());
        }
        let mut count = 0;
        let topics = sys::rd_kafka_CreateTopics_result_topics(result, &mut count);
        topics_error(as_slice(topics, count))
    }
}

/// Requests to delete a topic.
#[allow(unsafe_code, reason = "calls into librdkafka")]
pub(in crate::log::kafka) fn delete_topic(
    client: &Client,
    name: &CString,
    timeout: Duration,
) -> PendingReply {
    let (options, pending) = RequestOptions::new(client, Operation::RD_KAFKA_ADMIN_OP_DELETETOPICS, timeout);
    // SAFETY: all arguments live until the end of the calls, which copy them.
    unsafe {
        let topic = sys::rd_kafka_DeleteTopic_new(name.as_ptr());
        sys::rd_kafka_DeleteTopics(client.rk(), &mut { topic }, 1, options.0, client.queue());
        sys::rd_kafka_DeleteTopic_destroy(topic);
    }
    pending
}

/// Returns the result in the reply to [`delete_topic`].
#[allow(unsafe_code, reason = "calls into librdkafka")]
pub(in crate::log::kafka) fn parse_deletion(reply: &Reply) -> Answer<()> {
    // SAFETY: everything in the reply lives as long as the reply.
    unsafe {
        let result = sys::rd_kafka_event_DeleteTopics_result(reply.as_ptr());
        if result.is_null() {
            return Ok(());
        }
        let mut count = 0;
        let topics = sys::rd_kafka_DeleteTopics_result_topics(result, &mut count);
        topics_error(as_slice(topics, count))
    }
}

/// Returns the first error of the results of topics, if there is one.
///
/// # Safety
///
/// The results must be alive.
#[allow(unsafe_code, reason = "calls into librdkafka")]
unsafe fn topics_error(topics: &[*const sys::rd_kafka_topic_result_t]) -> Answer<()> {
    for &topic in topics {
        // SAFETY: the caller ensures that the results are alive.
        unsafe {
            let code = sys::rd_kafka_topic_result_error(topic);
            if code.is_error() {
                return Err((code.into(), text(sys::rd_kafka_topic_result_error_string(topic))));
            }
        }
    }
    Ok(())
}

/// Views a C array as a slice. The pointer of an empty array may be null.
///
/// # Safety
///
/// If `items` is not null, it must point to `count` items that live as long as `'a`.
#[allow(unsafe_code, reason = "reads C arrays")]
unsafe fn as_slice<'a, T>(items: *const T, count: usize) -> &'a [T] {
    if items.is_null() {
        return &[];
    }
    // SAFETY: the caller ensures length and lifetime.
    unsafe { slice::from_raw_parts(items, count) }
}
