//! The names of topics.

use crate::log::LogError;

/// The largest length of a topic name in Kafka.
const MAX_NAME: usize = 249;

/// Checks a topic name by Kafka's rules. They also ensure that the folder of a topic in a directory lies within that
/// directory.
pub(crate) fn check_topic_name(topic: &str) -> Result<(), LogError> {
    let is_legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    let reason = if topic.is_empty() {
        "a topic needs a name".to_owned()
    } else if topic.len() > MAX_NAME {
        format!("a topic name has at most {MAX_NAME} characters, this one has {}", topic.len())
    } else if matches!(topic, "." | "..") {
        "`.` and `..` are not valid topic names".to_owned()
    } else if let Some(c) = topic.chars().find(|&c| !is_legal(c)) {
        format!("a topic name has only ASCII letters, digits, `.`, `_` and `-`, but this one has `{c}`")
    } else {
        return Ok(());
    };
    Err(LogError::InvalidTopic { topic: topic.to_owned(), reason })
}
