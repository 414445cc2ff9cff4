//! The commands below codecs: topics and raw records.

use std::path::Path;

use serde::Serialize;

use crate::cli::args::{DescribeArgs, EnsureArgs, ProduceArgs};
use crate::cli::output::Output;
use crate::cli::write::{given_up_when_stopping, print_ack, unless_stopping};
use crate::cli::{CliError, Exit, Stopping, logs};
use crate::log::{self, Header, Log, LogError, NewRecord, NewTopic, TopicDescription};

pub(super) async fn produce(
    args: ProduceArgs,
    output: Output,
    mut stopping: Stopping,
) -> Result<Exit, CliError> {
    let record = NewRecord {
        key: bytes(args.key, args.key_file.as_deref())?,
        value: bytes(args.value, args.value_file.as_deref())?,
        headers: args.header.iter().map(|header| parse_header(header)).collect::<Result<_, _>>()?,
        partition: args.partition,
        timestamp: args.timestamp,
    };
    let log = logs::of_topic(&args.place)?;
    let send = async {
        let topic = log.describe(&args.place.topic).await?;
        log.send(&topic, record).await
    };
    let delivery = unless_stopping(&mut stopping, send).await??;
    let ack = given_up_when_stopping(&mut stopping, log.as_ref(), delivery).await?;
    print_ack(ack, output)?;
    Ok(Exit::Done)
}

/// The bytes given as text or in a file; `None` where neither is: a null.
fn bytes(text: Option<String>, file: Option<&Path>) -> Result<Option<Vec<u8>>, CliError> {
    match (text, file) {
        (Some(text), _) => Ok(Some(text.into_bytes())),
        (None, Some(path)) => std::fs::read(path).map(Some).map_err(CliError::file("read", path)),
        (None, None) => Ok(None),
    }
}

fn parse_header(text: &str) -> Result<Header, CliError> {
    let (name, value) =
        text.split_once('=').ok_or_else(|| CliError::Usage(format!("--header {text}: write NAME=VALUE")))?;
    Ok(Header { name: name.to_owned(), value: Some(value.as_bytes().to_vec()) })
}

pub(super) async fn ensure(args: EnsureArgs, output: Output) -> Result<Exit, CliError> {
    let log = logs::of_topic(&args.place)?;
    let settings = NewTopic { partitions: args.partitions, replication_factor: args.replication_factor };
    let (outcome, topic) = match log.create(&args.place.topic, settings).await {
        Ok(topic) => ("created", topic),
        Err(LogError::TopicExists { .. }) => ("verified", log.describe(&args.place.topic).await?),
        Err(error) => return Err(error.into()),
    };
    if outcome == "verified" && args.partitions.is_some_and(|partitions| partitions != topic.partitions) {
        tracing::warn!("topic `{}` has {} partitions and stays as it is", topic.name, topic.partitions);
    }
    if topic.is_compacted() == Some(false) {
        let policy = topic.cleanup_policy.as_deref().unwrap_or_default();
        tracing::warn!(
            "topic `{}` is not compacted (cleanup.policy={policy}): entries that are not written again will be lost",
            topic.name
        );
    }
    print_topic(log.as_ref(), Some(outcome), &topic, output).await
}

pub(super) async fn describe(args: DescribeArgs, output: Output) -> Result<Exit, CliError> {
    let log = logs::of_topic(&args.place)?;
    let topic = log.describe(&args.place.topic).await?;
    print_topic(log.as_ref(), None, &topic, output).await
}

async fn print_topic(
    log: &dyn Log,
    outcome: Option<&str>,
    topic: &TopicDescription,
    output: Output,
) -> Result<Exit, CliError> {
    #[derive(Serialize)]
    struct TopicLine<'a> {
        log: &'a str,
        topic: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        outcome: Option<&'a str>,
        id: &'a str,
        cleanup_policy: Option<&'a str>,
        partitions: Vec<OffsetsLine>,
    }
    #[derive(Serialize)]
    struct OffsetsLine {
        partition: i32,
        start: i64,
        end: i64,
    }
    let ranges = log.offsets(topic).await?;
    let line = |range: log::OffsetRange| OffsetsLine {
        partition: range.partition,
        start: range.start,
        end: range.end,
    };
    output.object(&TopicLine {
        log: log.url(),
        topic: &topic.name,
        outcome,
        id: &topic.id,
        cleanup_policy: topic.cleanup_policy.as_deref(),
        partitions: ranges.into_iter().map(line).collect(),
    })?;
    Ok(Exit::Done)
}
