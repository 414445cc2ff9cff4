//! Finds the dead-letter topic of a table, or creates it.

use std::collections::BTreeMap;

use crate::log::{Isolation, Log, LogError, NewTopic, TopicDescription, is_compacted};
use crate::table::error::TableError;

/// The settings of a new dead-letter topic: nothing is compacted or deleted.
const SETTINGS: [(&str, &str); 3] =
    [("cleanup.policy", "delete"), ("retention.ms", "-1"), ("retention.bytes", "-1")];

/// Checks that the dead-letter topic of a table exists, is not compacted, and is not the table's own topic. Creates it if
/// it does not exist and `may_create` is true.
pub(in crate::table) async fn open_topic(
    log: &dyn Log,
    topic: &TopicDescription,
    dead_letter: &str,
    may_create: bool,
) -> Result<(), TableError> {
    let error = |reason: String| {
        let (topic, dead_letter) = (topic.name.clone(), dead_letter.to_owned());
        TableError::DeadLetters { topic, dead_letter, reason }
    };
    if topic.name == dead_letter {
        return Err(error("a table cannot use its own topic: choose another one".to_owned()));
    }
    if topic.id.is_empty() {
        return Err(error(
            "dead letters need topic identities, which brokers have since Kafka 2.8: upgrade the cluster"
                .to_owned(),
        ));
    }
    if log.isolation() == Isolation::ReadUncommitted {
        return Err(error(
            "dead letters need isolation = \"read_committed\", because records of aborted transactions would count as \
             written"
                .to_owned(),
        ));
    }
    match log.describe(dead_letter).await {
        Ok(_) if is_compacted(log, dead_letter).await => Err(error(
            "it is compacted, which deletes rejected records: set its cleanup.policy to delete, and retention.ms and \
             retention.bytes to -1"
                .to_owned(),
        )),
        Ok(_) => Ok(()),
        Err(LogError::UnknownTopic { .. }) if may_create => {
            let settings: BTreeMap<String, String> =
                SETTINGS.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
            match log.create(dead_letter, NewTopic { settings, ..NewTopic::default() }).await {
                // Somebody else created it meanwhile.
                Ok(_) | Err(LogError::TopicExists { .. }) => Ok(()),
                Err(failure) => Err(failure.into()),
            }
        }
        Err(LogError::UnknownTopic { .. }) => {
            let settings = SETTINGS.map(|(name, value)| format!(" --setting {name}={value}")).concat();
            Err(error(format!(
                "it does not exist. Create it with `ktables topic ensure --log {} --topic {dead_letter}{settings}`, or \
                 set ensure_topic = true",
                log.url()
            )))
        }
        Err(failure) => Err(failure.into()),
    }
}
