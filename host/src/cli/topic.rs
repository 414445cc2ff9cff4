//! The commands `topic` and `produce`, which use no codecs.

use std::path::Path;

use serde::Serialize;

use crate::cli::args::{DescribeArgs, EnsureArgs, ProduceArgs};
use crate::cli::output::Output;
use crate::cli::write::{MAX_VALUE_BYTES, finish_or_give_up, print_ack, run_unless_stopped};
use crate::cli::{CliError, Exit, StopRequests, logs};
use crate::file::{FileError, read_bounded};
use crate::log::{self, EnsureOutcome, EnsureTopic, Header, Log, NewRecord, NewTopic, TopicDescription};

pub(super) async fn produce(
    args: ProduceArgs,
    output: Output,
    mut stop_requests: StopRequests,
) -> Result<Exit, CliError> {
    let record = NewRecord {
        key: bytes(args.key, args.key_file.as_deref())?,
        value: bytes(args.value, args.value_file.as_deref())?,
        headers: args.header.iter().map(|header| parse_header(header)).collect::<Result<_, _>>()?,
        partition: args.partition,
        timestamp: args.timestamp,
    };
    let log = logs::open_for_topic(&args.target)?;
    let send = async {
        let topic = log.describe(&args.target.topic).await?;
        log.send(&topic, record).await
    };
    let delivery = run_unless_stopped(&mut stop_requests, send).await??;
    let ack = finish_or_give_up(&mut stop_requests, log.as_ref(), delivery).await?;
    print_ack(ack, output)?;
    Ok(Exit::Done)
}

/// Returns the bytes of a text argument or of a file; `None`, which is a null, if neither is given.
fn bytes(text: Option<String>, file: Option<&Path>) -> Result<Option<Vec<u8>>, CliError> {
    match (text, file) {
        (Some(text), _) => Ok(Some(text.into_bytes())),
        (None, Some(path)) => {
            read_bounded(path, MAX_VALUE_BYTES).map(Some).map_err(FileError::of::<CliError>("read", path))
        }
        (None, None) => Ok(None),
    }
}

fn parse_header(text: &str) -> Result<Header, CliError> {
    let (name, value) = text
        .split_once('=')
        .ok_or_else(|| CliError::Usage(format!("--header {text} has no `=`: write NAME=VALUE")))?;
    Ok(Header { name: name.to_owned(), value: Some(value.as_bytes().to_vec()) })
}

pub(super) async fn ensure(args: EnsureArgs, output: Output) -> Result<Exit, CliError> {
    let log = logs::open_for_topic(&args.target)?;
    let new = NewTopic {
        partitions: args.partitions,
        replication_factor: args.replication_factor,
        settings: args.setting.iter().map(|setting| parse_setting(setting)).collect::<Result<_, _>>()?,
    };
    let options = EnsureTopic { new, on_policy_mismatch: args.on_policy_mismatch };
    let ensured = log::ensure_topic(log.as_ref(), &args.target.topic, &options).await?;
    let topic = &ensured.topic;
    if ensured.outcome != EnsureOutcome::Created
        && args.partitions.is_some_and(|partitions| partitions != topic.partitions)
    {
        tracing::warn!(
            "topic `{}` exists with {} partitions; their number was not changed",
            topic.name,
            topic.partitions
        );
    }
    let policy = match ensured.outcome {
        EnsureOutcome::Created => log.setting(&topic.name, "cleanup.policy").await.ok(),
        _ => ensured.policy,
    };
    print_topic(log.as_ref(), Some(ensured.outcome.name()), topic, policy, output).await
}

fn parse_setting(text: &str) -> Result<(String, String), CliError> {
    let (name, value) = text
        .split_once('=')
        .ok_or_else(|| CliError::Usage(format!("--setting {text} has no `=`: write NAME=VALUE")))?;
    Ok((name.to_owned(), value.to_owned()))
}

pub(super) async fn describe(args: DescribeArgs, output: Output) -> Result<Exit, CliError> {
    let log = logs::open_for_topic(&args.target)?;
    let topic = log.describe(&args.target.topic).await?;
    // OK to ignore: reading the policy takes a right (DESCRIBE_CONFIGS) that describing the topic does not.
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
    output.print_object(&TopicLine {
        log: log.url(),
        topic: &topic.name,
        outcome,
        id: &topic.id,
        cleanup_policy: policy,
        partitions: ranges.into_iter().map(line).collect(),
    })?;
    Ok(Exit::Done)
}
