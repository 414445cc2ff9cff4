//! A topic that is written to, and the limits of its records, as far as they are known.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::sync::OnceCell;

use crate::log::kafka::config::BatchSize;
use crate::log::{CLEANUP_POLICY, LogError, NewRecord, TopicDescription};
use crate::sync::lock;

/// The topic setting for the largest size of a batch.
pub(in crate::log::kafka) const MAX_MESSAGE_BYTES: &str = "max.message.bytes";

/// The shortest time between two requests for the settings of a topic that refuses records for other reasons
/// than their size.
const MIN_QUERY_INTERVAL: Duration = Duration::from_secs(5);

/// A topic that is written to.
#[derive(Debug)]
pub(in crate::log::kafka) struct Target {
    pub(in crate::log::kafka) name: String,
    pub(in crate::log::kafka) id: String,
    /// The same topic with its previous limits, until its outstanding records have been written.
    previous: Mutex<Option<Arc<Self>>>,
    pub(in crate::log::kafka) limits: OnceCell<TopicLimits>,
    /// Whether the limits may have changed, so that they must be requested again.
    pub(in crate::log::kafka) is_outdated: AtomicBool,
    /// Whether the topic refused a record for its size although it fits the limits.
    pub(in crate::log::kafka) has_refused_size: AtomicBool,
    created: Instant,
    /// The number of records that were queued and have no delivery report yet.
    pub(in crate::log::kafka) outstanding: AtomicUsize,
}

/// The limits of a topic's records.
#[derive(Debug)]
pub(in crate::log::kafka) struct TopicLimits {
    pub(in crate::log::kafka) batch: BatchSize,
    pub(in crate::log::kafka) max_message_bytes: Option<u64>,
    /// Compacted topics accept no records without a key. Empty if unknown.
    pub(in crate::log::kafka) cleanup_policy: String,
}

impl Target {
    pub(in crate::log::kafka) fn new(topic: &TopicDescription, previous: Option<Arc<Self>>) -> Arc<Self> {
        Arc::new(Self {
            name: topic.name.clone(),
            id: topic.id.clone(),
            previous: Mutex::new(previous),
            limits: OnceCell::new(),
            is_outdated: AtomicBool::new(false),
            has_refused_size: AtomicBool::new(false),
            created: Instant::now(),
            outstanding: AtomicUsize::new(0),
        })
    }

    /// Marks the limits as outdated, because the topic refused a record that they allow, or because a record
    /// is refused here that they forbid. Has no effect if they were requested a short time ago.
    pub(in crate::log::kafka) fn mark_outdated(&self) {
        if self.created.elapsed() >= MIN_QUERY_INTERVAL {
            self.is_outdated.store(true, Ordering::Release);
        }
    }

    pub(in crate::log::kafka) fn name(&self) -> &str {
        &self.name
    }

    /// Returns the same topic with its previous limits.
    pub(in crate::log::kafka) fn previous(&self) -> Option<Arc<Self>> {
        lock(&self.previous).clone()
    }

    pub(in crate::log::kafka) fn forget_previous(&self) {
        lock(&self.previous).take();
    }

    /// Returns the size of its batches; the default until its limits are known.
    pub(in crate::log::kafka) fn batch_size(&self) -> BatchSize {
        self.limits.get().map_or(BatchSize::Default, |limits| limits.batch)
    }

    /// Returns why a record was refused as too large. If its key and value are within the limit, its batch was
    /// too large: the limit of the topic may have changed, and is requested again.
    pub(in crate::log::kafka) fn handle_size_refusal(&self, len: usize) -> String {
        let limit = self.limits.get().and_then(|limits| limits.max_message_bytes);
        if limit.is_none_or(|limit| len as u64 <= limit) {
            self.has_refused_size.store(true, Ordering::Release);
            self.is_outdated.store(true, Ordering::Release);
        }
        match limit {
            Some(limit) if len as u64 > limit => {
                format!("it has {len} bytes, and the topic accepts {limit} ({MAX_MESSAGE_BYTES})")
            }
            _ => format!(
                "its batch is larger than the topic accepts ({MAX_MESSAGE_BYTES}), and its key and value have \
                 {len} bytes of it: write it again; if that fails, the record is too large with its headers \
                 and the overhead of a batch"
            ),
        }
    }

    /// Describes the size limits of the client and of the topic.
    pub(in crate::log::kafka) fn describe_limits(&self, client: u64) -> String {
        let topic = self.limits.get().and_then(|limits| limits.max_message_bytes);
        let topic = topic
            .map_or_else(String::new, |limit| format!("; the topic accepts {limit} ({MAX_MESSAGE_BYTES})"));
        format!("the client accepts {client} (message.max.bytes, a property of the log){topic}")
    }

    /// Checks that a record can be written.
    pub(in crate::log::kafka) fn check(&self, record: &NewRecord) -> Result<(), LogError> {
        let refused = |reason: String| Err(LogError::InvalidRecord { topic: self.name.clone(), reason });
        if record.timestamp == Some(0) {
            let reason = "Kafka's client treats a timestamp of 0 as none, and would write the current time";
            return refused(format!("{reason}: use 1, or no timestamp"));
        }
        let Some(limits) = self.limits.get().filter(|limits| limits.is_compacted() && record.key.is_none())
        else {
            return Ok(());
        };
        // The policy may have changed.
        self.mark_outdated();
        refused(format!(
            "it has no key, and the topic is compacted ({CLEANUP_POLICY}={}): give it a key",
            limits.cleanup_policy
        ))
    }
}

impl TopicLimits {
    fn is_compacted(&self) -> bool {
        self.cleanup_policy.split(',').any(|policy| policy.trim() == "compact")
    }
}
