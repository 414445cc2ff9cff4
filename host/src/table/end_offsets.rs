//! The end offsets that barriers wait for.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::log::{Log, LogError, Offset, Partition, TopicDescription};

/// Requests end offsets from a log. At most one request is in flight; callers that arrive meanwhile share
/// the answer to the next one.
#[derive(Debug, Default)]
pub(super) struct EndOffsets {
    /// How many requests have begun.
    begun: AtomicU64,
    /// The last answer. Its lock is held while a request is in flight, so that other callers wait.
    last: tokio::sync::Mutex<Option<LastAnswer>>,
}

#[derive(Debug)]
struct LastAnswer {
    /// The number of the request.
    number: u64,
    topic_id: String,
    answer: Answer,
}

type Answer = Result<Arc<[(Partition, Offset)]>, LogError>;

impl EndOffsets {
    /// Returns end offsets that the topic had at some time between the call and its return.
    pub(super) async fn get(&self, log: &dyn Log, topic: &TopicDescription) -> Answer {
        let before = self.begun.load(Ordering::Acquire);
        let mut last = self.last.lock().await;
        if let Some(last) = &*last
            && last.number > before
            && last.topic_id == topic.id
        {
            return last.answer.clone();
        }
        let number = self.begun.fetch_add(1, Ordering::AcqRel) + 1;
        let answer = log.end_offsets(topic).await.map(Arc::from);
        *last = Some(LastAnswer { number, topic_id: topic.id.clone(), answer: answer.clone() });
        answer
    }
}
