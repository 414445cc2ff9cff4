//! Compares how many dead letters of a table two sets of codecs reject.

use std::time::Duration;

use serde::Serialize;
use tokio::time::Instant;

use crate::codec::{Codecs, HostFailure};
use crate::log::{Log, LogError, TopicDescription};
use crate::table::dead_letters::stored::{describe, offsets, read_chunk};
use crate::table::decoded::Outcome;

/// How many dead letters two sets of codecs reject.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub(crate) struct DeadLetterComparison {
    /// The dead letters of the table's topic that were decoded.
    pub(crate) decoded: u64,
    pub(crate) rejected_before: u64,
    pub(crate) rejected_after: u64,
    /// Whether all dead letters were decoded before the timeout.
    pub(crate) is_complete: bool,
}

/// Why dead letters could not be compared.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CompareLettersError {
    #[error(transparent)]
    Log(#[from] LogError),
    #[error("cannot decode them: {0}")]
    Codec(#[from] HostFailure),
}

/// Decodes the dead letters of a topic with two sets of codecs, until all are decoded or a time is over.
pub(in crate::table) async fn compare(
    log: &dyn Log,
    topic: &TopicDescription,
    dead_letter: &str,
    [before, after]: [&Codecs; 2],
    timeout: Duration,
) -> Result<DeadLetterComparison, CompareLettersError> {
    let deadline = Instant::now() + timeout;
    let mut comparison = DeadLetterComparison::default();
    let compare_all = async {
        let dead_letters = describe(log, dead_letter).await?;
        let mut remaining = offsets(log, &dead_letters).await?;
        loop {
            let mut letters = read_chunk(log, &dead_letters, &topic.name, &mut remaining).await?;
            if letters.is_empty() {
                comparison.is_complete = true;
                return Ok(());
            }
            // The others are of an earlier topic of the same name.
            letters.retain(|letter| letter.topic_id == topic.id);
            for letter in letters {
                let (before, after) = (letter.decode(before).await?, letter.decode(after).await?);
                let count = |outcome| u64::from(matches!(outcome, Outcome::Reject(_)));
                comparison.decoded += 1;
                comparison.rejected_before += count(before);
                comparison.rejected_after += count(after);
            }
        }
    };
    match tokio::time::timeout_at(deadline, compare_all).await {
        Ok(compared) => compared.map(|()| comparison),
        Err(_) => Ok(comparison),
    }
}
