//! A topic that is written to: what it takes, as far as it is known.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::sync::OnceCell;

use crate::log::kafka::config::BatchSize;
use crate::log::{CLEANUP_POLICY, LogError, NewRecord, TopicDescription};
use crate::sync::lock;

/// The topic setting that says how large a batch may be.
pub(in crate::log::kafka) const MAX_MESSAGE_BYTES: &str = "max.message.bytes";

/// How long a topic is not asked again that refused something but a size.
const AGAIN: Duration = Duration::from_secs(5);

/// A topic that is written to.
#[derive(Debug)]
pub(in crate::log::kafka) struct Target {
    pub(in crate::log::kafka) name: String,
    pub(in crate::log::kafka) id: String,
    /// The same topic, as it was known before it refused something.
    before: Mutex<Option<Arc<Self>>>,
    pub(in crate::log::kafka) takes: OnceCell<Takes>,
    /// It refused what it should take, and for its size.
    pub(in crate::log::kafka) is_outdated: AtomicBool,
    pub(in crate::log::kafka) refused_size: AtomicBool,
    made: Instant,
    /// The records that were queued and are not reported on.
    pub(in crate::log::kafka) outstanding: AtomicUsize,
}

/// What a topic takes.
#[derive(Debug)]
pub(in crate::log::kafka) struct Takes {
    pub(in crate::log::kafka) batch: BatchSize,
    pub(in crate::log::kafka) max_message_bytes: Option<u64>,
    /// Compacted topics take no records without a key.
    pub(in crate::log::kafka) cleanup_policy: String,
}

impl Target {
    pub(in crate::log::kafka) fn new(topic: &TopicDescription, before: Option<Arc<Self>>) -> Arc<Self> {
        Arc::new(Self {
            name: topic.name.clone(),
            id: topic.id.clone(),
            before: Mutex::new(before),
            takes: OnceCell::new(),
            is_outdated: AtomicBool::new(false),
            refused_size: AtomicBool::new(false),
            made: Instant::now(),
            outstanding: AtomicUsize::new(0),
        })
    }

    /// It refused a record for what it was thought to be: it is asked again, but not all the time.
    pub(in crate::log::kafka) fn refused(&self) {
        if self.made.elapsed() >= AGAIN {
            self.is_outdated.store(true, Ordering::Release);
        }
    }

    pub(in crate::log::kafka) fn name(&self) -> &str {
        &self.name
    }

    pub(in crate::log::kafka) fn before(&self) -> Option<Arc<Self>> {
        lock(&self.before).clone()
    }

    pub(in crate::log::kafka) fn forget_before(&self) {
        // OK as above.
        lock(&self.before).take();
    }

    pub(in crate::log::kafka) fn batch(&self) -> BatchSize {
        self.takes.get().map_or(BatchSize::Default, |takes| takes.batch)
    }

    /// Why a record was refused as too large. One of so few bytes as the topic takes was refused
    /// with others: the topic takes less than it did.
    pub(in crate::log::kafka) fn refused_as_too_large(&self, len: usize) -> String {
        let limit = self.takes.get().and_then(|takes| takes.max_message_bytes);
        if limit.is_none_or(|limit| len as u64 <= limit) {
            self.refused_size.store(true, Ordering::Release);
            self.is_outdated.store(true, Ordering::Release);
        }
        match limit {
            Some(limit) if len as u64 > limit => {
                format!("it has {len} bytes, and the topic takes {limit} (its {MAX_MESSAGE_BYTES})")
            }
            _ => format!(
                "its batch is larger than what the topic takes (its {MAX_MESSAGE_BYTES}), the record has {len} \
                 bytes of it: write it again"
            ),
        }
    }

    /// What both the client and the topic take.
    pub(in crate::log::kafka) fn limits(&self, client: u64) -> String {
        let topic = self.takes.get().and_then(|takes| takes.max_message_bytes);
        let topic = topic
            .map_or_else(String::new, |limit| format!("; the topic takes {limit}, its {MAX_MESSAGE_BYTES}"));
        format!("the client takes {client}, message.max.bytes, a property of the log{topic}")
    }

    /// Fails if a record can never be written.
    pub(in crate::log::kafka) fn check(&self, record: &NewRecord) -> Result<(), LogError> {
        let refused = |reason: String| Err(LogError::InvalidRecord { topic: self.name.clone(), reason });
        if record.timestamp == Some(0) {
            let reason = "Kafka's client takes a timestamp of 0 for none, and would write the time of now";
            return refused(format!("{reason}: write 1, or no timestamp"));
        }
        let Some(takes) = self.takes.get().filter(|takes| takes.is_compacted() && record.key.is_none())
        else {
            return Ok(());
        };
        // The policy may have been changed.
        self.refused();
        refused(format!(
            "it has no key, and the topic is compacted ({CLEANUP_POLICY}={}): give it a key",
            takes.cleanup_policy
        ))
    }
}

impl Takes {
    fn is_compacted(&self) -> bool {
        self.cleanup_policy.split(',').any(|policy| policy.trim() == "compact")
    }
}
