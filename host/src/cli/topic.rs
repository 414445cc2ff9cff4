//! The commands below codecs: topics and raw records.

use std::path::Path;

use serde::Serialize;

use crate::cli::args::{DescribeArgs, EnsureArgs, ProduceArgs};
use crate::cli::output::Output;
use crate::cli::write::{MAX_VALUE_BYTES, given_up_when_stopping, print_ack, unless_stopping};
use crate::cli::{CliError, Exit, Stopping, logs};
use crate::file::read_bounded;
use crate::log::{self, EnsureOutcome, EnsureTopic, Header, Log, NewRecord, NewTopic, TopicDescription};

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
        (None, Some(path)) => {
            read_bounded(path, MAX_VALUE_BYTES).map(Some).map_err(CliError::file("read", path))
        }
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
    let new = NewTopic {
        partitions: args.partitions,
        replication_factor: args.replication_factor,
        settings: args.setting.iter().map(|setting| parse_setting(setting)).collect::<Result<_, _>>()?,
    };
    let how = EnsureTopic { new, on_policy_mismatch: args.on_policy_mismatch };
    let ensured = log::ensure_topic(log.as_ref(), &args.place.topic, &how).await?;
    let topic = &ensured.topic;
    if ensured.outcome != EnsureOutcome::Created
        && args.partitions.is_some_and(|partitions| partitions != topic.partitions)
    {
        tracing::warn!("topic `{}` has {} partitions and stays as it is", topic.name, topic.partitions);
    }
    let policy = match ensured.outcome {
        EnsureOutcome::Created => log.setting(&topic.name, "cleanup.policy").await.ok(),
        _ => ensured.policy,
    };
    print_topic(log.as_ref(), Some(ensured.outcome.name()), topic, policy, output).await
}

fn parse_setting(text: &str) -> Result<(String, String), CliError> {
    let (name, value) =
        text.split_once('=').ok_or_else(|| CliError::Usage(format!("--setting {text}: write NAME=VALUE")))?;
    Ok((name.to_owned(), value.to_owned()))
}

pub(super) async fn describe(args: DescribeArgs, output: Output) -> Result<Exit, CliError> {
    let log = logs::of_topic(&args.place)?;
    let topic = log.describe(&args.place.topic).await?;
    // Asking for it takes a right of its own.
    let policy = log.setting(&topic.name, "cleanup.policy").await.ok();
    print_topic(log.as_ref(), None, &topic, policy, output).await
}

async fn print_topic(
    log: &dyn Log,
    outcome: Option<&str>,
    topic: &TopicDescription,
    policy: Option<String>,
    output: Output,
) -> Result<Exit, CliError> {
    #[derive(Serialize)]
    struct TopicLine<'a> {
        log: &'a str,
        topic: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        outcome: Option<&'a str>,
        id: &'a str,
        cleanup_policy: Option<String>,
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
        cleanup_policy: policy,
        partitions: ranges.into_iter().map(line).collect(),
    })?;
    Ok(Exit::Done)
}
